//! `rendezvous password`: sets a password in a file for `agent --password-file` or `serve --admin-password-file`.

use std::io::{self, BufRead, IsTerminal, Read, Stdin};
use std::path::Path;

use zeroize::Zeroizing;

use crate::console::print_error;
use crate::entropy;
use crate::failure::{Failure, reason};
use crate::files::{self, FileKind};
use crate::linux::EchoOff;
use crate::options::value::count;
use crate::options::{Opt, Spec, parse};
use crate::password_file::{
    self, COST_ADVISED, COST_MAX, COST_MIN, PASSWORD_MAX, check_password, check_user,
};
use crate::state::{self, SECRET};

pub(super) const SPEC: Spec = Spec {
    command: "password",
    operands: &["FILE", "USER"],
    summary: "Sets the password of a user in a file for 'agent --password-file' or 'serve --admin-password-file'. Makes the file if it is missing.",
    options: &[Opt::one("cost", "N", "12", "the cost of a check: 2^N rounds of bcrypt, 4 to 14")],
    footer: "\
On a terminal, the password is asked for twice and not shown; otherwise it is the first line of standard input. It
has at most 72 bytes. The file has the format of 'htpasswd -B' and mode 0600. Agent and relay read it again on SIGHUP.",
};

/// Limit of a line, in bytes. It exceeds that of passwords, so that longer ones are detected.
const LINE_MAX: u64 = 4_096;

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure`] for invalid options, an invalid user name or password, or if the file can be neither read nor written.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let [file, user] = matches.operands() else { return Err(Failure::Usage("FILE USER".to_owned())) };
    if file.is_empty() {
        return Err(Failure::Usage("FILE: the name is empty".to_owned()));
    }
    check_user(user).map_err(|why| Failure::Usage(format!("USER: {why}")))?;
    let costs = count(COST_MIN.into(), COST_MAX.into());
    let cost = u32::try_from(matches.get("cost", costs)?).unwrap_or(COST_ADVISED);
    if cost < COST_ADVISED {
        print_error(
            Some(SPEC.command),
            &format!("warning: with a cost below {COST_ADVISED}, passwords in a stolen file can be guessed"),
        );
    }
    let path = Path::new(file);
    // Detects an unusable file before the user types the password.
    let before = read(path)?;
    let password = ask()?;
    check_password(&password).map_err(|why| Failure::Failed(why.to_owned()))?;
    let hash = hash(&password, cost)?;
    state::write_whole(path, &password_file::with_entry(&before, user, &hash), SECRET)
}

/// The text of the file; empty if it does not exist.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bytes =
        files::read_if_exists(path, FileKind::PASSWORDS)?.map(|content| content.bytes).unwrap_or_default();
    password_file::parse(&bytes, &path.display().to_string())?;
    Ok(bytes)
}

fn hash(password: &str, cost: u32) -> Result<String, Failure> {
    let parts = bcrypt::non_truncating_hash_with_salt(password, cost, *entropy::bytes()?);
    let parts = parts.map_err(|error| Failure::Failed(format!("cannot hash the password: {error}")))?;
    Ok(parts.format_for_version(bcrypt::Version::TwoY))
}

fn ask() -> Result<Zeroizing<String>, Failure> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read_line(&input);
    }
    let cannot =
        |error: io::Error| Failure::Failed(format!("cannot read from the terminal: {}", reason(&error)));
    let _silent = EchoOff::on(&input).map_err(cannot)?;
    print_error(Some(SPEC.command), "new password (not shown):");
    let first = read_line(&input)?;
    print_error(Some(SPEC.command), "the same password again:");
    let second = read_line(&input)?;
    if first == second {
        Ok(first)
    } else {
        Err(Failure::Failed("the passwords differ: nothing was changed".to_owned()))
    }
}

/// Reads the next line of standard input, without its line feed.
fn read_line(input: &Stdin) -> Result<Zeroizing<String>, Failure> {
    let cannot = |why: &str| Failure::Failed(format!("cannot read the password from standard input: {why}"));
    // Allocated once with its full capacity: a growing vector leaves copies in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LINE_MAX as usize));
    let read = input.lock().take(LINE_MAX).read_until(b'\n', &mut bytes);
    read.map_err(|error| cannot(&reason(&error)))?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    if bytes.len() > PASSWORD_MAX {
        return Err(Failure::Failed(format!(
            "the password is longer than {PASSWORD_MAX} bytes, and bcrypt ignores the rest"
        )));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| cannot("it is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}
