//! The file of `agent --password-file` and `serve --admin-password-file`: users and bcrypt hashes, in the format of `htpasswd -B`.
//!
//! ```text
//! # a comment
//! anna:$2y$12$…53 characters…
//! ```
//!
//! A file without entries admits no one.

use std::fmt;

use crate::failure::Failure;

/// The lowest cost at which guessing is slow enough. `htpasswd -B` uses 5 by default.
pub const COST_ADVISED: u32 = 10;

/// The highest accepted cost: such a hash takes about a second.
pub const COST_MAX: u32 = 14;

/// The lowest cost of bcrypt.
pub const COST_MIN: u32 = 4;

/// Limit of a password, in bytes: bcrypt ignores the rest.
pub const PASSWORD_MAX: usize = 72;

/// Limit of a user name, in bytes.
pub const USER_MAX: usize = 255;

/// Length of a hash: `$2y$12$`, 22 characters of salt and 31 of the hash.
const HASH_LEN: usize = 60;

/// A user and the hash of the password. `Debug` does not show the hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    user: String,
    hash: String,
    cost: u32,
}

impl Entry {
    /// The user name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The bcrypt hash.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The cost: a check takes 2^cost rounds.
    #[must_use]
    pub const fn cost(&self) -> u32 {
        self.cost
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("user", &self.user).field("cost", &self.cost).finish_non_exhaustive()
    }
}

/// The entries of a password file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passwords {
    /// Sorted by user.
    entries: Vec<Entry>,
}

impl Passwords {
    /// The entry of a user.
    #[must_use]
    pub fn entry(&self, user: &str) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.user.as_str().cmp(user)).ok()?;
        self.entries.get(at)
    }

    /// All entries, sorted by user.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no users.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Parses the text of a password file; `shown` is its name in messages.
///
/// # Errors
///
/// [`Failure::Failed`] for the first malformed line, with its number. The message repeats nothing of the line, which
/// may contain a password.
pub fn parse(bytes: &[u8], shown: &str) -> Result<Passwords, Failure> {
    let mut numbered = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        match read_line(line) {
            Ok(entry) => numbered.extend(entry.map(|entry| (entry, number))),
            Err(why) => return Err(malformed(shown, number, why)),
        }
    }
    numbered.sort_by(|(one, at), (other, at_other)| (&one.user, at).cmp(&(&other.user, at_other)));
    let repeated = numbered.windows(2).filter_map(|pair| match pair {
        [(one, _), (other, number)] if one.user == other.user => Some(*number),
        _ => None,
    });
    if let Some(number) = repeated.min() {
        return Err(malformed(shown, number, "this user has an earlier entry"));
    }
    Ok(Passwords { entries: numbered.into_iter().map(|(entry, _)| entry).collect() })
}

/// The text of a file in which this entry replaces the user's old one or is appended. All other lines are unchanged.
#[must_use]
pub fn with_entry(bytes: &[u8], user: &str, hash: &str) -> Vec<u8> {
    let is_old = |line: &[u8]| !line.starts_with(b"#") && user_of(line) == Some(user.as_bytes());
    let mut text = Vec::with_capacity(bytes.len() + user.len() + HASH_LEN + 3);
    let mut is_set = false;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if !is_old(line) {
            text.extend_from_slice(line);
        } else if !is_set {
            is_set = true;
            text.extend_from_slice(format!("{user}:{hash}\n").as_bytes());
        }
    }
    if !is_set {
        if text.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(format!("{user}:{hash}\n").as_bytes());
    }
    text
}

/// Checks a user name: not empty, no control character, and no colon, which ends the name in a request (RFC 7617 §2).
///
/// # Errors
///
/// The rule that the name breaks.
pub fn check_user(user: &str) -> Result<(), &'static str> {
    match () {
        () if user.is_empty() => Err("the user name is empty"),
        () if user.len() > USER_MAX => Err("the user name is longer than 255 bytes"),
        () if user.contains(':') => Err("the user name contains a colon"),
        () if user.chars().any(char::is_control) => Err("the user name contains control characters"),
        () if user.starts_with('#') || user.trim() != user => {
            Err("the user name begins with '#' or a space, or ends with a space")
        }
        () => Ok(()),
    }
}

/// Checks a new password: not empty, no control character (RFC 7617 §2), and not longer than bcrypt can use.
///
/// # Errors
///
/// The rule that the password breaks.
pub fn check_password(password: &str) -> Result<(), &'static str> {
    match () {
        () if password.is_empty() => Err("the password is empty"),
        () if password.len() > PASSWORD_MAX => {
            Err("the password is longer than 72 bytes, and bcrypt ignores the rest")
        }
        () if password.chars().any(char::is_control) => Err("the password contains control characters"),
        () => Ok(()),
    }
}

fn malformed(shown: &str, number: usize, why: &str) -> Failure {
    Failure::Failed(format!("{shown}:{number}: {why}"))
}

fn user_of(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    line.get(..colon)
}

/// Parses a line; `None` for an empty line or a comment.
fn read_line(line: &[u8]) -> Result<Option<Entry>, &'static str> {
    if line.trim_ascii().is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let line = std::str::from_utf8(line.trim_ascii_end()).map_err(|_| "the line is not UTF-8")?;
    let (user, hash) = line.split_once(':').ok_or("the line is not USER:HASH")?;
    check_user(user)?;
    let cost = cost_of(hash)?;
    Ok(Some(Entry { user: user.to_owned(), hash: hash.to_owned(), cost }))
}

/// The cost of a valid hash.
fn cost_of(hash: &str) -> Result<u32, &'static str> {
    const NOT_BCRYPT: &str =
        "the hash is not bcrypt ($2a$, $2b$ or $2y$): set the password again with 'rendezvous password'";
    const MALFORMED: &str = "the bcrypt hash is malformed";
    let is_known = ["$2a$", "$2b$", "$2y$"].iter().any(|version| hash.starts_with(version));
    if !is_known {
        return Err(NOT_BCRYPT);
    }
    let bytes = hash.as_bytes();
    let (Some([tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'$']), Some(text)) =
        (bytes.get(4..7), bytes.get(7..))
    else {
        return Err(MALFORMED);
    };
    let is_base64 = text.iter().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'/'));
    // Only some bits of the last characters count: other implementations refuse the rest.
    let is_salt = matches!(bytes.get(28), Some(b'.' | b'O' | b'e' | b'u'));
    if bytes.len() != HASH_LEN || !is_base64 || !is_salt || hash.parse::<bcrypt::HashParts>().is_err() {
        return Err(MALFORMED);
    }
    match u32::from(tens - b'0') * 10 + u32::from(ones - b'0') {
        cost @ COST_MIN..=COST_MAX => Ok(cost),
        0..COST_MIN => Err("the cost of the hash is below 4"),
        _ => Err("the cost of the hash is above 14: a single check would take seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `secret`, as `htpasswd -nbB -C 4` hashes it.
    fn hash(cost: &str) -> String {
        format!("$2y${cost}$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIVa")
    }

    #[test]
    fn each_line_is_an_entry_a_comment_or_empty() {
        let text = format!("# users\n\nbert:{}\r\nanna:{}", hash("10"), hash("05"));
        let read = parse(text.as_bytes(), "f").unwrap();
        let users: Vec<_> = read.entries().iter().map(|entry| (entry.user(), entry.cost())).collect();
        assert_eq!(users, [("anna", 5), ("bert", 10)]);
        assert_eq!(read.entry("bert").map(Entry::hash), Some(hash("10").as_str()));
        assert_eq!(read.entry("carl"), None);
        assert!(!format!("{read:?}").contains("abcdefgh"));
    }

    #[test]
    fn a_bad_line_names_its_number_and_nothing_else() {
        let bad = [
            "anna",
            "anna:secret-word",
            "anna:$apr1$secret-word",
            "anna:{SHA}secret-word",
            ":$2y$10$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIVa",
            "an\u{7}na:$2y$10$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIVa",
            "anna:$2y$15$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIVa",
            "anna:$2y$03$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIVa",
            "anna:$2x$10$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIVa",
            "anna:$2y$10$abcdefghijklmnopqrstuzO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIVa",
            "anna:$2y$10$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIV",
            "anna:$2y$10$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIV€",
            "anna:$2y$1é$abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIV",
        ];
        for line in bad {
            let text = format!("bert:{}\n{line}\n", hash("10"));
            let failure = parse(text.as_bytes(), "f").unwrap_err().to_string();
            assert!(failure.starts_with("f:2: "), "{line}: {failure}");
            assert!(!failure.contains("secret-word") && !failure.contains("abcdefgh"), "{failure}");
        }
        let twice = format!("anna:{0}\nbert:{0}\nanna:{0}\n", hash("10"));
        assert!(parse(twice.as_bytes(), "f").unwrap_err().to_string().starts_with("f:3: "));
    }

    #[test]
    fn an_entry_is_set_and_all_other_lines_stay() {
        let (old, new) = (hash("05"), hash("12"));
        let text = format!("# users\nanna:{old}\nbert:{old}");
        let changed = with_entry(text.as_bytes(), "anna", &new);
        assert_eq!(String::from_utf8(changed).unwrap(), format!("# users\nanna:{new}\nbert:{old}"));
        let added = with_entry(text.as_bytes(), "carl", &new);
        assert_eq!(String::from_utf8(added).unwrap(), format!("{text}\ncarl:{new}\n"));
        assert_eq!(with_entry(b"", "carl", &new), format!("carl:{new}\n").as_bytes());
    }

    #[test]
    fn names_and_passwords_are_those_that_a_request_can_carry() {
        for user in ["", "a:b", "a\nb", "#a", " a", "a ", &"a".repeat(256)] {
            assert!(check_user(user).is_err(), "{user:?}");
        }
        for user in ["a", "Änne", "a b", "a#"] {
            assert_eq!(check_user(user), Ok(()));
        }
        for password in ["", "a\tb", "a\u{9f}b", &"a".repeat(73), &"ä".repeat(37)] {
            assert!(check_password(password).is_err(), "{password:?}");
        }
        assert_eq!(check_password(&"ä".repeat(36)), Ok(()));
        assert_eq!(check_password("a:b"), Ok(()));
    }
}
