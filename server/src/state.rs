//! The state folder, and atomic writing of files there and elsewhere, with secrets private to their owner.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::console::print_error;
use crate::entropy;
use crate::escape::Escaped;
use crate::failure::{Failure, reason};
use crate::files;
use crate::linux::descriptors::{AsFd, OwnedFd};
use crate::linux::files::{DirBuilderExt, MetadataExt, NO_FOLLOW, OpenOptionsExt, set_mode, set_owner};
use crate::logging;

/// The mode of a file that holds a secret.
pub const SECRET: u32 = 0o600;

/// The mode of a file that anyone may read.
pub const PUBLIC: u32 = 0o644;

/// Finds the state folder: the value of `--state`, else `$STATE_DIRECTORY` (set by systemd; the first one, if it has
/// several), else `$XDG_STATE_HOME/rendezvous`, else `~/.local/state/rendezvous`. It need not exist.
///
/// # Errors
///
/// [`Failure::Usage`] if none of these is set.
pub fn find(option: Option<&str>) -> Result<PathBuf, Failure> {
    if let Some(given) = option {
        return match given {
            "" => Err(Failure::Usage("--state: the folder's name is empty".to_owned())),
            given => Ok(PathBuf::from(given)),
        };
    }
    if let Some(given) = env::var_os("STATE_DIRECTORY").and_then(|all| env::split_paths(&all).next())
        && !given.as_os_str().is_empty()
    {
        return Ok(given);
    }
    // Relative paths are ignored, as the XDG specification requires.
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("rendezvous")).ok_or_else(|| {
        Failure::Usage(
            "no state folder: give --state DIR (neither HOME nor STATE_DIRECTORY is set)".to_owned(),
        )
    })
}

/// Finds an existing state folder like [`find`], for commands that only read.
///
/// # Errors
///
/// Those of [`find`], and [`Failure::Failed`] if the folder does not exist.
pub fn find_existing(option: Option<&str>) -> Result<PathBuf, Failure> {
    let folder = find(option)?;
    let found = fs::metadata(&folder).and_then(|found| match found.is_dir() {
        true => Ok(()),
        false => Err(io::Error::from(io::ErrorKind::NotADirectory)),
    });
    found.map_err(|error| {
        let (shown, why) = (folder.display(), reason(&error));
        Failure::Failed(format!("cannot use the state folder {shown}: {why} (another folder: --state DIR)"))
    })?;
    Ok(folder)
}

/// A state folder that exists.
#[derive(Clone, Debug)]
pub struct State {
    folder: PathBuf,
}

/// The lock of a state folder, released on drop.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// A lock that another process has handed over with its open file. It is released once both have closed it.
    #[must_use]
    pub fn adopt(file: OwnedFd) -> Self {
        Self { file: File::from(file) }
    }

    /// A duplicate of the open file, for another process.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }
}

/// Why a state folder could not be locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockError {
    /// Another program did not release it in time.
    Held(Failure),
    /// The file `lock` cannot be made or opened, because the folder is read-only. No other program can take the lock
    /// then, unless it has more rights.
    Unavailable(Failure),
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Failure {
        match error {
            LockError::Held(failure) | LockError::Unavailable(failure) => failure,
        }
    }
}

/// How long to wait for another program that holds the lock. This program's commands hold it for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between two attempts: flock(2) has no timeout.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Number of attempts after which the wait is reported.
const TRIES_UNSAID: u128 = 25;

impl State {
    /// Finds the folder (see [`find`]) and makes it, mode 0700, if it is missing.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it is not known, is not a folder, cannot be made, or if others can change its content.
    pub fn open(option: Option<&str>) -> Result<State, Failure> {
        State::open_as(option, false)
    }

    /// Opens the folder like [`State::open`], for commands that root runs for the user of a relay: root may use another
    /// user's folder.
    ///
    /// # Errors
    ///
    /// Those of [`State::open`].
    pub fn open_for_owner(option: Option<&str>) -> Result<State, Failure> {
        State::open_as(option, true)
    }

    fn open_as(option: Option<&str>, for_owner: bool) -> Result<State, Failure> {
        let folder = find(option)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| Failure::of_file("make the folder", &folder, &error))?;
        files::check_folder(&folder, for_owner)?;
        Ok(State { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens a folder in it, and makes it, mode 0700, if it is missing. It has a lock of its own.
    ///
    /// # Errors
    ///
    /// Those of [`State::open`].
    pub fn subfolder(&self, name: &str) -> Result<State, Failure> {
        let folder = self.folder.join(name);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| Failure::of_file("make the folder", &folder, &error))?;
        files::check_folder(&folder, true)?;
        Ok(State { folder })
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes the lock that a program holds while it changes files in the folder. If another program holds it, this
    /// waits for at most 10 seconds and reports that. Calling it twice on one thread deadlocks.
    ///
    /// On a file system without locks nothing is locked, and a warning is logged.
    ///
    /// # Errors
    ///
    /// [`LockError`]
    pub fn lock(&self) -> Result<Lock, LockError> {
        let path = self.file("lock");
        let open = || -> io::Result<File> {
            match create_new(&path, SECRET) {
                Ok(file) => {
                    give_to_owner_of(&self.folder, &file);
                    Ok(file)
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let file =
                        OpenOptions::new().read(true).write(true).custom_flags(NO_FOLLOW).open(&path)?;
                    if file.metadata()?.is_file() {
                        Ok(file)
                    } else {
                        Err(io::Error::other("it is not a regular file"))
                    }
                }
                Err(error) => Err(error),
            }
        };
        let file = open().map_err(|error| LockError::Unavailable(Failure::of_file("open", &path, &error)))?;
        wait_for_lock(&file, &path)?;
        Ok(Lock { file })
    }

    /// Replaces a file of the folder atomically: readers see the old or the new content, and so does the system after a
    /// power failure. The file keeps its owner (root may run this for the relay's user), or gets the folder's.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`]; the file is unchanged.
    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), Failure> {
        let path = self.file(name);
        let temporary = Temporary::write(&path, bytes, mode)?;
        let owner = if fs::symlink_metadata(&path).is_ok() { &path } else { &self.folder };
        give_to_owner_of(owner, &temporary.file);
        temporary.replace(&path)
    }
}

/// Replaces any file atomically, like [`State::write`]. It belongs to the user of this process.
///
/// # Errors
///
/// [`Failure::Failed`]; the file is unchanged.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    Temporary::write(path, bytes, mode)?.replace(path)
}

/// Writes a new file atomically. Never overwrites a file, even if it appears meanwhile.
///
/// # Errors
///
/// [`Failure::Failed`], also if the file exists.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(exists(path));
    }
    Temporary::write(path, bytes, mode)?.link(path)
}

fn wait_for_lock(file: &File, path: &Path) -> Result<(), LockError> {
    for tries in 0..LOCK_TIMEOUT.as_millis() / LOCK_RETRY.as_millis() {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                log::warn!(
                    "event=no-lock file={} reason={} hint=\"run only one rendezvous at a time that changes files there\"",
                    Escaped(&path.to_string_lossy()),
                    Escaped(&reason(&error))
                );
                return Ok(());
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => {
                return Err(LockError::Unavailable(Failure::of_file("lock", path, &error)));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if tries == TRIES_UNSAID {
            say_waiting(path);
        }
        thread::sleep(LOCK_RETRY);
    }
    Err(LockError::Held(Failure::Failed(format!(
        "cannot lock {path}: another program has held the lock for {} seconds (fuser {path} shows which)",
        LOCK_TIMEOUT.as_secs(),
        path = path.display(),
    ))))
}

fn say_waiting(path: &Path) {
    let (shown, within) = (path.display(), LOCK_TIMEOUT.as_secs());
    if logging::is_started() {
        let text = path.to_string_lossy();
        let file = Escaped(&text);
        log::warn!(
            "event=waiting-for-lock file={file} timeout={within}s reason=\"another program holds it\""
        );
    } else {
        print_error(
            None,
            &format!("another program has locked {shown}: waiting for at most {within} seconds"),
        );
    }
}

/// Whether a file system has no locks: NFS without a lock server, some FUSE and network file systems.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS))
}

/// A temporary file next to the target. It is removed on drop unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// Makes it and writes its content to disk.
    fn write(target: &Path, bytes: &[u8], mode: u32) -> Result<Temporary, Failure> {
        let failed = |error: io::Error| Failure::of_file("write", target, &error);
        let name = target
            .file_name()
            .ok_or_else(|| Failure::Failed(format!("{} has no file name", target.display())))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}.tmp", u64::from_ne_bytes(*entropy::bytes()?)));
        let path = target.with_file_name(hidden);
        // Private until it is complete, whatever its final mode.
        let mut temporary = Temporary { file: create_new(&path, SECRET).map_err(failed)?, path };
        temporary.file.write_all(bytes).map_err(failed)?;
        set_mode(&temporary.file, mode).map_err(failed)?;
        temporary.file.sync_all().map_err(failed)?;
        Ok(temporary)
    }

    /// Renames it to `target`.
    fn replace(self, target: &Path) -> Result<(), Failure> {
        fs::rename(&self.path, target).map_err(|error| Failure::of_file("write", target, &error))?;
        sync_folder_of(target);
        Ok(())
    }

    /// Names it `target` if no file has that name.
    fn link(self, target: &Path) -> Result<(), Failure> {
        match fs::hard_link(&self.path, target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(target)),
            // A file system without hard links (FAT): not atomic, but still never overwrites.
            Err(_) => self.copy_to_new(target)?,
        }
        sync_folder_of(target);
        Ok(())
    }

    fn copy_to_new(&self, target: &Path) -> Result<(), Failure> {
        let copy = || -> io::Result<()> {
            let mode = self.file.metadata()?.mode() & 0o777;
            let mut to = create_new(target, mode)?;
            io::copy(&mut File::open(&self.path)?, &mut to)?;
            to.sync_all()
        };
        copy().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(target),
            _ => Failure::of_file("write", target, &error),
        })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename the file does not exist.
        let _ = fs::remove_file(&self.path);
    }
}

fn exists(path: &Path) -> Failure {
    Failure::Failed(format!(
        "{} exists and is not overwritten: move it away, or give another name",
        path.display()
    ))
}

fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// Only root can change the owner, and only then it matters. If it fails, the file belongs to the user of this process.
fn give_to_owner_of(path: &Path, file: &File) {
    if let (Ok(owner), Ok(ours)) = (fs::symlink_metadata(path), file.metadata())
        && (owner.uid(), owner.gid()) != (ours.uid(), ours.gid())
    {
        let _ = set_owner(file, owner.uid(), owner.gid());
    }
}

/// Makes the new name durable. The content is already on disk, so file systems that cannot do it are not an error.
fn sync_folder_of(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        log::debug!(
            "event=sync-failed folder={} reason={}",
            Escaped(&folder.to_string_lossy()),
            Escaped(&reason(&error))
        );
    }
}
