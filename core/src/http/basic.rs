//! User name and password of a request: Basic authentication (RFC 7617).

use alloc::format;
use alloc::string::String;
#[cfg(feature = "trace")]
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

#[cfg(feature = "trace")]
use data_encoding::{BASE64, BASE64_NOPAD};
use zeroize::Zeroizing;

use super::challenge::decode_basic;
use super::syntax::{is_blank, trim};

/// The maximum length of user name and password together, in bytes.
pub const CREDENTIALS_MAX: usize = 1_024;

/// A user name and a password, as a client sent them. Both are zeroed on drop. `Debug` shows neither, since users
/// sometimes type the password into the field of the name.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl Credentials {
    /// The user name: the part before the first colon.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password: the part after the first colon.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// The credentials in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// No `Authorization`, or one of another scheme.
    Nothing,
    /// Basic with invalid BASE64, without a colon, longer than [`CREDENTIALS_MAX`], not UTF-8, or with control
    /// characters.
    Malformed,
    /// A user name and a password.
    Basic(Credentials),
}

/// Parses the value of an `Authorization` field.
#[must_use]
pub fn read(authorization: Option<&[u8]>) -> Presented {
    let Some((_, _, encoded)) = authorization.and_then(split) else { return Presented::Nothing };
    let Some(pair) = decode_basic(encoded).map(Zeroizing::new) else { return Presented::Malformed };
    let text = core::str::from_utf8(&pair).ok().filter(|text| !text.chars().any(char::is_control));
    let parts = text.filter(|text| text.len() <= CREDENTIALS_MAX).and_then(|text| text.split_once(':'));
    let Some((user, password)) = parts else { return Presented::Malformed };
    Presented::Basic(Credentials {
        user: Zeroizing::new(user.into()),
        password: Zeroizing::new(password.into()),
    })
}

/// Appends the field that challenges for user name and password. `realm` has neither quotes nor backslashes.
pub fn write_challenge(realm: &str, out: &mut Vec<u8>) {
    debug_assert!(!realm.contains(['"', '\\']));
    out.extend_from_slice(
        format!("WWW-Authenticate: Basic realm=\"{realm}\", charset=\"UTF-8\"\r\n").as_bytes(),
    );
}

/// For traces: a value of the same length for which [`read`] gives the same kind of result, with user name and
/// password of the same lengths.
#[cfg(feature = "trace")]
pub(crate) fn stand_in(value: &[u8]) -> Vec<u8> {
    let Some((scheme, blank, encoded)) = split(value) else {
        return value.iter().map(|&byte| if is_blank(byte) { byte } else { b'x' }).collect();
    };
    let behind = value.len() - scheme.len() - blank.len() - encoded.len();
    let encoded = match read(Some(value)) {
        Presented::Nothing | Presented::Malformed => vec![b'!'; encoded.len()],
        Presented::Basic(credentials) => {
            let mut pair = vec![b'x'; credentials.user.len() + 1 + credentials.password.len()];
            pair[credentials.user.len()] = b':';
            let encoding = if encoded.ends_with(b"=") { BASE64 } else { BASE64_NOPAD };
            encoding.encode(&pair).into_bytes()
        }
    };
    // Trimmed whitespace is moved to the end.
    [scheme, blank, &encoded, &vec![b' '; behind]].concat()
}

/// The scheme, the whitespace after it and the credentials, if the scheme is Basic.
fn split(authorization: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let text = trim(authorization);
    let (scheme, rest) = text.split_at_checked(5).filter(|(it, _)| it.eq_ignore_ascii_case(b"Basic"))?;
    let blanks = rest.iter().take_while(|&&byte| is_blank(byte)).count();
    let (blank, encoded) = rest.split_at(blanks);
    (encoded.is_empty() || !blank.is_empty()).then_some((scheme, blank, encoded))
}

#[cfg(all(test, feature = "trace"))]
mod tests {
    use super::*;

    fn basic(pair: &[u8]) -> Vec<u8> {
        [b"Basic ", BASE64.encode(pair).as_bytes()].concat()
    }

    fn pair(presented: &Presented) -> Option<(&str, &str)> {
        match presented {
            Presented::Basic(credentials) => Some((credentials.user(), credentials.password())),
            Presented::Nothing | Presented::Malformed => None,
        }
    }

    #[test]
    fn the_user_name_ends_at_the_first_colon() {
        for (text, expected) in [
            (&b"anna:secret"[..], ("anna", "secret")),
            (b"anna:a:b", ("anna", "a:b")),
            (b":", ("", "")),
            ("\u{e4}nna:\u{20ac}".as_bytes(), ("\u{e4}nna", "\u{20ac}")),
        ] {
            assert_eq!(pair(&read(Some(&basic(text)))), Some(expected));
        }
        assert_eq!(pair(&read(Some(b"bAsIc  YTpi"))), Some(("a", "b")));
    }

    #[test]
    fn another_scheme_is_nothing_and_bad_basic_is_malformed() {
        for value in [None, Some(&b""[..]), Some(b"Bearer YTpi"), Some(b"Basically YTpi"), Some(b"BasicYTpi")]
        {
            assert_eq!(read(value), Presented::Nothing, "{value:?}");
        }
        let long = basic(&[&b"a:"[..], &[b'x'; CREDENTIALS_MAX]].concat());
        let controls = [basic(b"a\n:b"), basic(b"a:b\x7f"), basic("a:\u{9f}".as_bytes())];
        for value in [&b"Basic"[..], b"Basic !", b"Basic YQ==", b"Basic Y Tpi", &basic(b"a:\xff"), &long]
            .into_iter()
            .chain(controls.iter().map(Vec::as_slice))
        {
            assert_eq!(read(Some(value)), Presented::Malformed, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn a_stand_in_is_read_alike_and_shows_nothing() {
        let values = [
            basic(b"anna:secret"),
            basic(b":"),
            b"Basic YTpi".to_vec(),
            b" basic\tYW5uYTpzZWM ".to_vec(),
            b"Basic YQ==".to_vec(),
            b"Basic".to_vec(),
            b"Bearer abc.def".to_vec(),
        ];
        for value in values {
            let stand_in = stand_in(&value);
            assert_eq!(stand_in.len(), value.len());
            let lengths = |it| match read(Some(it)) {
                Presented::Basic(it) => Some((it.user().len(), it.password().len())),
                Presented::Nothing => None,
                Presented::Malformed => Some((usize::MAX, 0)),
            };
            assert_eq!(lengths(&stand_in), lengths(&value), "{}", value.escape_ascii());
        }
        assert_eq!(stand_in(&basic(b"anna:secret")), basic(b"xxxx:xxxxxx"));
    }

    #[test]
    fn debug_shows_nothing() {
        let shown = format!("{:?}", read(Some(&basic(b"anna:secret"))));
        assert!(!shown.contains("anna") && !shown.contains("secret"), "{shown}");
    }
}
