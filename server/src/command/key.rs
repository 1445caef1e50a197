//! `rendezvous key`: makes keys and prints pins.

use std::path::PathBuf;

use crate::cert;
use crate::console::{print, print_error};
use crate::failure::Failure;
use crate::options::{Spec, parse};
use crate::state::State;
use crate::tls_config;

pub(super) const SPEC: Spec = Spec {
    command: "key",
    operands: &["[FILE]"],
    summary: "Prints the pin of a key or a certificate (PEM). If the file does not exist, it makes a key first.",
    options: &[],
    footer: "\
FILE: the default is connect.key in $STATE_DIRECTORY, else $XDG_STATE_HOME/rendezvous, else ~/.local/state/rendezvous.
A new key is ECDSA P-256, readable only by its owner. The pin is the SHA-256 of the public key, as curl's
--pinnedpubkey has it. 'agent --allow-key' and 'connect --end-to-end' take it. It is not secret.",
};

/// The default file in the state folder.
const FILE: &str = "connect.key";

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure`] for invalid options, or if the file can be neither read nor made.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let file = match matches.operands().first().map(String::as_str) {
        Some("") => return Err(Failure::Usage("FILE: the name is empty".to_owned())),
        Some(file) => PathBuf::from(file),
        None => default_file()?,
    };
    let provider = tls_config::provider();
    let pin = match cert::pin_of(&file, &provider)? {
        Some(pin) => pin,
        None => {
            cert::make_key(&file)?;
            print_error(Some(SPEC.command), &format!("made the key {}", file.display()));
            cert::of_key(&file, &provider)?.pin
        }
    };
    print(&format!("{pin}\n"))
}

fn default_file() -> Result<PathBuf, Failure> {
    let state = State::open(None).map_err(|failure| match failure {
        Failure::Usage(_) => {
            Failure::Usage("FILE is missing (neither HOME nor STATE_DIRECTORY is set)".to_owned())
        }
        failure => failure,
    })?;
    Ok(state.file(FILE))
}
