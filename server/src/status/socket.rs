//! The status socket in the relay's state folder, private to its owner. Each connection receives one document and EOF;
//! there are no requests.

use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::DOCUMENT_MAX;
use super::document::Document;
use crate::clock::Clock;
use crate::failure::{Failure, reason};
use crate::ids::Stamp;
use crate::logging::Escaped;
use crate::pin::Pin;
use crate::socket_file::{self, UnixListener, UnixStream};
use crate::state::{LockError, State};

/// Its name in the state folder.
pub const NAME: &str = "status.sock";
/// How long to wait for a relay's answer, which takes one turn of its event loop.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of [`await_ids`].
pub const IDS_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval between two requests of [`await_ids`].
const IDS_PAUSE: Duration = Duration::from_millis(20);

/// Opens the status socket and replaces one that a dead relay left behind. If that is impossible, it logs a warning and
/// returns `None`: the relay runs without the socket.
///
/// # Errors
/// [`Failure::Failed`] if another relay runs with this state folder.
pub fn open(state: &State) -> Result<Option<UnixListener>, Failure> {
    // The lock lets one of two relays that start at once find the other alive. A read-only folder has neither lock nor
    // socket.
    let _lock = match state.lock() {
        Ok(lock) => Some(lock),
        Err(LockError::Unavailable(_)) => None,
        Err(LockError::Held(failure)) => return Err(failure),
    };
    let path = state.file(NAME);
    if socket_file::is_alive(&path) {
        return Err(Failure::Failed(format!(
            "another relay runs with this state folder and listens on {} (give each relay its own --state)",
            path.display()
        )));
    }
    match socket_file::bind(&path) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => {
            log::warn!(
                "event=no-status-socket path={} reason={}",
                Escaped(&path.to_string_lossy()),
                Escaped(&reason(&error))
            );
            Ok(None)
        }
    }
}

/// Writes the document to a connection and closes it. If it does not fit into the send buffer, the rest is dropped.
pub fn answer(mut caller: UnixStream, document: &str) {
    // If this fails, the system's default size is large enough.
    let _ = SockRef::from(&caller).set_send_buffer_size(2 * DOCUMENT_MAX);
    match caller.write(document.as_bytes()) {
        Ok(bytes) if bytes == document.len() => {}
        Ok(bytes) => log::debug!("event=status-cut bytes={bytes} of={}", document.len()),
        Err(error) => log::debug!("event=status-unsent reason={}", Escaped(&reason(&error))),
    }
}

/// Reads the status document of the relay of a state folder.
///
/// # Errors
/// [`Failure::Failed`] if no relay runs, access is denied, or it does not respond.
pub fn ask(folder: &Path) -> Result<String, Failure> {
    ask_within(folder, TIMEOUT).map_err(|error| no_response(folder, NAME, &error))
}

/// The failure of a command whose relay did not respond at the socket with this name in its state folder.
#[must_use]
pub fn no_response(folder: &Path, name: &str, error: &io::Error) -> Failure {
    let path = folder.join(name);
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::Failed(format!(
            "no relay runs with the state folder {} (use --state DIR for another one)",
            folder.display()
        )),
        _ if is_late(error) => Failure::Failed(format!("the relay at {} does not respond", path.display())),
        _ => Failure::of_file("ask the relay at", &path, error),
    }
}

/// Reads the document with this timeout for the connection and for each read.
fn ask_within(folder: &Path, timeout: Duration) -> io::Result<String> {
    let socket = socket_file::connect(&folder.join(NAME), timeout)?;
    let mut text = String::new();
    socket.take(2 * DOCUMENT_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether a change of the file `ids` is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdsChange {
    /// It is in force, or no relay runs.
    InForce,
    /// A relay runs but has not read the file within [`IDS_TIMEOUT`].
    NotRead,
    /// The relay is of another version: its document cannot be read.
    Unknown,
}

/// Waits until the relay of a state folder, if one runs, has read the present state of the file `ids`. Each request
/// makes the relay check the file.
#[must_use]
pub fn await_ids(folder: &Path, ids: &Path) -> IdsChange {
    let clock = Clock::start();
    let start = clock.now().mono;
    loop {
        let waited = Duration::from_micros(clock.now().mono.since(start).0);
        let left = IDS_TIMEOUT.saturating_sub(waited);
        if left.is_zero() {
            return IdsChange::NotRead;
        }
        match ask_within(folder, left) {
            Ok(document) => {
                let Some(document) = Document::parse(&document) else {
                    if document.ends_with("}\n") {
                        return IdsChange::Unknown;
                    }
                    thread::sleep(IDS_PAUSE);
                    continue;
                };
                // Computed anew: later changes by others include this one.
                if document.ids_stamp == Stamp::of(ids).to_string() {
                    return IdsChange::InForce;
                }
                thread::sleep(IDS_PAUSE);
            }
            Err(error) if is_late(&error) => return IdsChange::NotRead,
            Err(_) => return IdsChange::InForce,
        }
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The certificate that the relay of a state folder serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedCertificate {
    /// Its pin.
    pub pin: Pin,
    /// It is from a CA, and the next one has another key.
    pub changes_keys: bool,
}

/// The certificate that the relay of a state folder serves, if one runs.
#[must_use]
pub fn served_certificate(folder: &Path) -> Option<ServedCertificate> {
    let certificate = Document::parse(&ask(folder).ok()?)?.certificate;
    Some(ServedCertificate {
        pin: Pin::parse(&certificate.pin).ok()?,
        changes_keys: certificate.changes_keys,
    })
}
