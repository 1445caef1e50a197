//! Sockets in the file system, private to the user of this process.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

pub(crate) use mio::net::{UnixListener, UnixStream};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::linux;

/// Limit of a path that fits into a socket address on all systems (104 bytes on BSD, 108 on Linux).
const PATH_MAX: usize = 100;

/// Binds a socket, private to its owner from the start. It gets its name once it accepts connections, and replaces a socket
/// with that name: check [`is_alive`] before.
///
/// # Errors
/// Another kind of file has this name, or those of the system calls.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file with this name exists and is not a socket",
        ));
    }
    let (folder, name) = folder_and_name(path)?;
    let new_name = format!(".{name}.new");
    let new = folder.join(&new_name);
    let _ = fs::remove_file(&new);
    let (_open, short) = short_path(folder, &new_name)?;
    let listener = linux::with_private_files(|| UnixListener::bind(short))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Whether a process listens there, even if its backlog is full.
pub(crate) fn is_alive(path: &Path) -> bool {
    let short = folder_and_name(path).and_then(|(folder, name)| short_path(folder, name));
    let Ok((_open, short)) = short else { return false };
    match UnixStream::connect(short) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Connects to a socket, for a program that may block: for `timeout` until it is connected, and for as long at each call.
///
/// # Errors
/// Those of the system calls.
pub(crate) fn connect(path: &Path, timeout: Duration) -> io::Result<Socket> {
    let (folder, name) = folder_and_name(path)?;
    let (_open, short) = short_path(folder, name)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // It also limits connect(2), which blocks while the backlog is full.
    socket.set_write_timeout(Some(timeout))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(&SockAddr::unix(short)?)?;
    Ok(socket)
}

/// Connects to a socket without blocking.
///
/// # Errors
/// Those of the system calls; `WouldBlock` if the backlog is full.
pub(crate) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let (folder, name) = folder_and_name(path)?;
    let (_open, short) = short_path(folder, name)?;
    UnixStream::connect(short)
}

/// A duplicate of a connected socket for the event loop. The socket is non-blocking from then on.
///
/// # Errors
/// Those of the system calls.
pub(crate) fn into_stream(socket: &Socket) -> io::Result<UnixStream> {
    let socket = socket.try_clone()?;
    socket.set_nonblocking(true)?;
    Ok(UnixStream::from_std(OwnedFd::from(socket).into()))
}

/// The file of a socket. It is removed on drop, unless another program has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    /// The file that was made there by a process that listens now; `None` if there is none.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let device_and_inode = device_and_inode(path)?;
        Some(Self { path: path.to_owned(), device_and_inode })
    }

    /// Removes the file on another thread, because a disk may be slow. The receiver is disconnected once that is done.
    #[must_use]
    pub fn remove_in_background(self) -> Receiver<()> {
        let (done, is_done) = channel();
        // If there is no thread, the file is removed here.
        let _ = thread::Builder::new().name("socket-file".to_owned()).spawn(move || {
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

fn folder_and_name(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no file name"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((folder.unwrap_or(Path::new(".")), name))
}

/// A path to a file of the folder that is short enough for a socket address, valid while the returned file is open.
fn short_path(folder: &Path, name: &str) -> io::Result<(Option<File>, PathBuf)> {
    let path = folder.join(name);
    if path.as_os_str().len() <= PATH_MAX {
        return Ok((None, path));
    }
    let open = File::open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())).join(name);
    Ok((Some(open), short))
}
