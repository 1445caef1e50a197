//! The status socket in the relay's state folder, private to its owner. Each connection receives one document and EOF;
//! there are no requests.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use mio::net::UnixListener;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::DOCUMENT_MAX;
use super::document::Document;
use crate::clock::Clock;
use crate::failure::{Failure, reason};
use crate::files::short_path;
use crate::ids::Stamp;
use crate::linux;
use crate::logging::Escaped;
use crate::pin::Pin;
use crate::state::{LockError, State};

/// Its name in the state folder.
pub const NAME: &str = "status.sock";
/// Its name until it is ready.
const NEW_NAME: &str = ".status.sock.new";
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
    if is_alive(state.folder()) {
        return Err(Failure::Failed(format!(
            "another relay runs with this state folder and listens on {} (give each relay its own --state)",
            path.display()
        )));
    }
    match bind(state, &path) {
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

/// The file of a status socket. It is removed on drop, unless another relay has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    /// The file that [`open`] made in the state folder.
    #[must_use]
    pub fn of(state: &State) -> Option<Self> {
        let path = state.file(NAME);
        let device_and_inode = device_and_inode(&path)?;
        Some(Self { path, device_and_inode })
    }

    /// Removes the file on another thread, because a disk may be slow. The receiver is disconnected once that is done.
    #[must_use]
    pub fn remove_in_background(self) -> Receiver<()> {
        let (done, is_done) = channel();
        // If there is no thread, the file is removed here.
        let _ = thread::Builder::new().name("status-socket".to_owned()).spawn(move || {
            drop(self);
            drop(done);
        });
        is_done
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if device_and_inode(&self.path) == Some(self.device_and_inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn device_and_inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Writes the document to a connection and closes it. If it does not fit into the send buffer, the rest is dropped.
pub fn answer(mut caller: mio::net::UnixStream, document: &str) {
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
    let path = folder.join(NAME);
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::Failed(format!(
            "no relay runs with the state folder {} (use --state DIR for another one)",
            folder.display()
        )),
        _ if is_late(error) => Failure::Failed(format!("the relay at {} does not respond", path.display())),
        _ => Failure::of_file("ask the relay at", &path, error),
    };
    ask_within(folder, TIMEOUT).map_err(|error| failed(&error))
}

/// Reads the document with this timeout for the connection and for each read.
fn ask_within(folder: &Path, timeout: Duration) -> io::Result<String> {
    let (_open, short) = short_path(folder, NAME)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // It also limits connect(2), which blocks while the relay's backlog is full.
    socket.set_write_timeout(Some(timeout))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(&SockAddr::unix(short)?)?;
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

/// Whether a process listens there, even if its backlog is full.
fn is_alive(folder: &Path) -> bool {
    let Ok((_open, short)) = short_path(folder, NAME) else { return false };
    match mio::net::UnixStream::connect(short) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Binds the socket, private to its owner from the start. It gets its name once it accepts connections.
fn bind(state: &State, path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file with this name exists and is not a socket",
        ));
    }
    let new = state.file(NEW_NAME);
    let _ = fs::remove_file(&new);
    let (_open, short) = short_path(state.folder(), NEW_NAME)?;
    let listener = linux::with_private_files(|| UnixListener::bind(short))?;
    fs::rename(&new, path)?;
    Ok(listener)
}
