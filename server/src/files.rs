//! Reading of all files that the program is given: regular files of limited size. Secrets are read only if no other
//! user can read or replace them.
//!
//! A FIFO, a device or a socket is refused at once, so reading never blocks on a writer. A secret must belong to root
//! or the effective user and be inaccessible to others, and the folders on its path must not be writable by others,
//! because a user who can write to a folder can replace the secret. A folder with the sticky bit, such as `/tmp`, is
//! accepted: there only the owner of a file can replace it.
//!
//! Symbolic links are followed, because Kubernetes mounts secrets, and NixOS and systemd manage folders, as links. Each
//! link on the path must belong to root or the effective user: its owner could redirect any other link at any time.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use zeroize::Zeroizing;

use crate::failure::{Failure, reason};
use crate::linux;
use crate::linux::files::{FileTypeExt, MetadataExt, NO_WAIT, OpenOptionsExt};

/// Limit of symbolic links on a path, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A kind of file: its noun in messages, its protection, and its size limit.
#[derive(Clone, Copy, Debug)]
pub struct FileKind {
    noun: &'static str,
    protection: Protection,
    bytes_max: u64,
}

/// Which users may have access to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    /// Anyone.
    None,
    /// Root and the effective user.
    Owner,
    /// Anyone may read it; root and the effective user may write to it.
    Writers,
    /// Root and the effective user; also a group, if the file belongs to root. Debian's group `ssl-cert` and
    /// PostgreSQL's keys use that.
    OwnerAndGroup,
    /// As [`Protection::Owner`]. Root may also read files of the owner of the state folder, because root enrols hidden
    /// servers for a relay that runs as another user.
    StateFolder,
}

impl FileKind {
    /// `--config`.
    pub const CONFIG: FileKind =
        FileKind { noun: "configuration", protection: Protection::None, bytes_max: 1 << 20 };
    /// `ca` and `--cert`.
    pub const CERTIFICATE: FileKind =
        FileKind { noun: "certificate", protection: Protection::None, bytes_max: 16 << 20 };
    /// `replay`.
    pub const TRACE: FileKind = FileKind { noun: "trace", protection: Protection::None, bytes_max: 1 << 30 };
    /// `--ticket`.
    pub const TICKET: FileKind =
        FileKind { noun: "ticket", protection: Protection::Owner, bytes_max: 64 << 10 };
    /// `--secret-file`.
    pub const SECRET: FileKind =
        FileKind { noun: "secret", protection: Protection::Owner, bytes_max: 64 << 10 };
    /// `--key`.
    pub const KEY: FileKind =
        FileKind { noun: "key", protection: Protection::OwnerAndGroup, bytes_max: 1 << 20 };
    /// `--allow-keys`.
    pub const ALLOWED_KEYS: FileKind =
        FileKind { noun: "allowed keys", protection: Protection::Writers, bytes_max: 1 << 20 };
    /// `--deny-file`.
    pub const DENY: FileKind =
        FileKind { noun: "denied addresses", protection: Protection::Writers, bytes_max: 16 << 20 };
    /// `--password-file`.
    pub const PASSWORDS: FileKind =
        FileKind { noun: "passwords", protection: Protection::OwnerAndGroup, bytes_max: 1 << 20 };
    /// `relay.key` in the state folder.
    pub const STATE_KEY: FileKind =
        FileKind { noun: "key", protection: Protection::StateFolder, bytes_max: 1 << 20 };
    /// The files of `acme` in the state folder.
    pub const ACME: FileKind =
        FileKind { noun: "ACME file", protection: Protection::StateFolder, bytes_max: 4 << 20 };
    /// `usage` in the state folder.
    pub const USAGE: FileKind =
        FileKind { noun: "usage", protection: Protection::StateFolder, bytes_max: 64 << 20 };
    /// `ids` in the state folder.
    pub const IDS: FileKind =
        FileKind { noun: "IDs", protection: Protection::StateFolder, bytes_max: 16 << 20 };
}

/// The content of a file.
#[derive(Debug)]
pub struct Content {
    /// The bytes of the file, without a byte order mark. They are wiped on drop.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The metadata of the file before it was read.
    pub metadata: Metadata,
}

/// Reads a whole file.
///
/// # Errors
///
/// [`Failure::Failed`] if the file cannot be read, is not a regular file, is too large, is UTF-16, or is a secret that
/// others can read or replace.
pub fn read(path: &Path, kind: FileKind) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let opened = open(path, kind).map_err(|error| cannot_read(path, kind, &reason_of(path, &error)))?;
    Ok(opened.read(path, kind)?.bytes)
}

/// Reads a whole file of UTF-8 text that holds no secret.
///
/// # Errors
///
/// Those of [`read`]; the inner error is the number of the first line that is not UTF-8.
pub fn read_text(path: &Path, kind: FileKind) -> Result<Result<String, usize>, Failure> {
    let mut bytes = read(path, kind)?;
    Ok(String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        valid.iter().filter(|byte| **byte == b'\n').count() + 1
    }))
}

/// Reads a whole file; `None` if it does not exist.
///
/// # Errors
///
/// Those of [`read`].
pub fn read_if_exists(path: &Path, kind: FileKind) -> Result<Option<Content>, Failure> {
    match open(path, kind) {
        Ok(opened) => opened.read(path, kind).map(Some),
        Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_read(path, kind, &reason_of(path, &error))),
    }
}

/// Checks that only root and the effective user can change the content of a folder. With `for_owner`, root may also use
/// a folder of another user.
///
/// # Errors
///
/// [`Failure::Failed`] with the command that fixes it.
pub fn check_folder(folder: &Path, for_owner: bool) -> Result<(), Failure> {
    let owners = if for_owner { Owners::of_state_folder(folder) } else { Owners::own() };
    let checked = PathWalk::new(owners).follow(folder);
    checked.map_err(|why| Failure::Failed(format!("cannot use the folder {}: {why}", folder.display())))
}

/// An open file that was checked.
struct Opened {
    file: File,
    metadata: Metadata,
}

enum OpenError {
    Io(io::Error),
    Refused(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error)
    }
}

fn open(path: &Path, kind: FileKind) -> Result<Opened, OpenError> {
    // Checked before opening, because opening a device can have effects.
    check_type(&fs::metadata(path)?)?;
    let owners = match kind.protection {
        Protection::None => None,
        Protection::Owner | Protection::OwnerAndGroup | Protection::Writers => Some(Owners::own()),
        Protection::StateFolder => Some(Owners::of_state_folder(parent(path))),
    };
    if let Some(owners) = owners {
        PathWalk::new(owners).follow(path).map_err(OpenError::Refused)?;
    }
    let file = OpenOptions::new().read(true).custom_flags(NO_WAIT).open(path)?;
    let metadata = file.metadata()?;
    check_type(&metadata)?;
    if let Some(owners) = owners {
        check_secret(path, kind.protection, &metadata, owners).map_err(OpenError::Refused)?;
    }
    Ok(Opened { file, metadata })
}

impl Opened {
    fn read(self, path: &Path, kind: FileKind) -> Result<Content, Failure> {
        // Allocated once with its full capacity: a growing vector leaves copies of secrets in memory.
        let size = self.metadata.len().min(kind.bytes_max);
        let mut bytes = Zeroizing::new(Vec::with_capacity(size.max(4096) as usize + 1));
        let read = self.file.take(kind.bytes_max + 1).read_to_end(&mut bytes);
        read.map_err(|error| cannot_read(path, kind, &reason(&error)))?;
        if bytes.len() as u64 > kind.bytes_max {
            let why = format!("it is larger than {}", size_text(kind.bytes_max));
            return Err(cannot_read(path, kind, &why));
        }
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return Err(cannot_read(path, kind, "it is UTF-16: save it as UTF-8"));
        }
        // Editors on Windows put a byte order mark before UTF-8; it has no meaning (RFC 3629 §6).
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        Ok(Content { bytes, metadata: self.metadata })
    }
}

fn check_type(metadata: &Metadata) -> Result<(), OpenError> {
    let file_type = metadata.file_type();
    let what = match () {
        () if file_type.is_file() => return Ok(()),
        () if file_type.is_dir() => "a folder",
        () if file_type.is_fifo() => "a FIFO",
        () if file_type.is_socket() => "a socket",
        () if file_type.is_char_device() || file_type.is_block_device() => "a device",
        () => "something else",
    };
    Err(OpenError::Refused(format!("it is {what}, not a regular file")))
}

fn check_secret(
    path: &Path,
    protection: Protection,
    metadata: &Metadata,
    owners: Owners,
) -> Result<(), String> {
    let (mode, shown) = (metadata.mode() & 0o7777, path.display());
    if !owners.contains(metadata.uid()) {
        let (is, own) = (user(metadata.uid()), user(owners.effective));
        let wanted = if owners.effective == 0 { own.clone() } else { format!("root or {own}") };
        return Err(format!("it belongs to {is}, not to {wanted} (mode {mode:04o}): chown {own} {shown}"));
    }
    if protection == Protection::Writers {
        if mode & 0o022 != 0 {
            return Err(format!("others may write to it (mode {mode:04o}): chmod go-w {shown}"));
        }
        return Ok(());
    }
    // In $CREDENTIALS_DIRECTORY (systemd's LoadCredential=), the group bits may be the mask of an access list that
    // contains only the service's user.
    let group_may_read =
        is_credential(path) || protection == Protection::OwnerAndGroup && metadata.uid() == 0;
    let closed_to = if group_may_read { 0o037 } else { 0o077 };
    if mode & closed_to != 0 {
        return Err(format!("others may open it (mode {mode:04o}): chmod 600 {shown}"));
    }
    Ok(())
}

fn is_credential(path: &Path) -> bool {
    env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| path.parent() == Some(Path::new(&folder)))
}

/// The users whose files are trusted, in addition to root.
#[derive(Clone, Copy)]
struct Owners {
    effective: u32,
    /// The owner of the state folder, if root acts for another user.
    acts_for: Option<u32>,
}

impl Owners {
    fn own() -> Owners {
        Owners { effective: linux::effective_user(), acts_for: None }
    }

    fn of_state_folder(folder: &Path) -> Owners {
        let own = Owners::own();
        let owner = fs::metadata(folder).map(|metadata| metadata.uid());
        Owners { acts_for: owner.ok().filter(|_| own.effective == 0), ..own }
    }

    fn contains(self, uid: u32) -> bool {
        uid == 0 || uid == self.effective || Some(uid) == self.acts_for
    }

    /// Whether a link of this user is followed. If root acts for another user, that user's links are not: they could
    /// point to root's files.
    fn may_link(self, uid: u32) -> bool {
        uid == 0 || uid == self.effective
    }
}

/// Walks the folders and links on the path to a file.
struct PathWalk {
    owners: Owners,
    /// The present folder, without links.
    at: PathBuf,
    /// The remaining components, last one first.
    todo: Vec<OsString>,
    links: usize,
}

impl PathWalk {
    fn new(owners: Owners) -> PathWalk {
        PathWalk { owners, at: PathBuf::from("/"), todo: Vec::new(), links: 0 }
    }

    /// Checks every folder and every link on the way to `path`, and `path` itself if it is a folder. If one of them
    /// cannot be looked at, only the folder that contains the file is checked: opening the file fails if that matters.
    fn follow(mut self, path: &Path) -> Result<(), String> {
        let Ok(absolute) = std::path::absolute(path) else { return self.check_parent(path) };
        self.push(&absolute);
        while let Some(part) = self.todo.pop() {
            if part == ".." {
                self.at.pop();
                continue;
            }
            let next = self.at.join(&part);
            let Ok(metadata) = fs::symlink_metadata(&next) else { return self.check_parent(path) };
            if metadata.is_symlink() {
                self.links += 1;
                if !self.owners.may_link(metadata.uid()) {
                    let owner = user(metadata.uid());
                    return Err(format!("the symbolic link {} belongs to {owner}", next.display()));
                }
                self.check_members()?;
                match fs::read_link(&next) {
                    Ok(target) if self.links <= LINKS_MAX => self.push(&target),
                    _ => return self.check_parent(path),
                }
                continue;
            }
            if metadata.is_dir() {
                self.check_folder(&next, &metadata)?;
            }
            self.at = next;
            if self.todo.is_empty() && !metadata.is_dir() {
                self.at.pop();
            }
        }
        self.check_members()
    }

    fn push(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(part) => self.todo.push(part.to_owned()),
                Component::ParentDir => self.todo.push(OsString::from("..")),
                Component::RootDir => self.at = PathBuf::from("/"),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn check_parent(&self, path: &Path) -> Result<(), String> {
        let folder = parent(path);
        match fs::metadata(folder) {
            Ok(metadata) => {
                self.check_folder(folder, &metadata)?;
                check_group(folder, &metadata, self.owners)
            }
            Err(_) => Ok(()),
        }
    }

    /// Checks the present folder, which contains the file or a link to it.
    fn check_members(&self) -> Result<(), String> {
        match fs::symlink_metadata(&self.at) {
            Ok(metadata) => check_group(&self.at, &metadata, self.owners),
            Err(_) => Ok(()),
        }
    }

    fn check_folder(&self, folder: &Path, metadata: &Metadata) -> Result<(), String> {
        let shown = folder.display();
        // In a user namespace, files of unmapped users, including root, appear to belong to one user.
        if !self.owners.contains(metadata.uid()) && !linux::is_unmapped_user(metadata.uid()) {
            // On Android, the system's user owns the folders above an app's.
            if cfg!(target_os = "android") && !self.todo.is_empty() {
                return Ok(());
            }
            return Err(format!("the folder {shown} belongs to {}", user(metadata.uid())));
        }
        if metadata.mode() & 0o002 != 0 && !is_sticky(metadata) {
            let mode = metadata.mode() & 0o7777;
            return Err(format!(
                "everybody can write to the folder {shown} (mode {mode:04o}): chmod o-w {shown}"
            ));
        }
        Ok(())
    }
}

/// Accepts root's group and the private group of a trusted user (with the same number), which has no other members. A
/// volume of Kubernetes belongs to root and to such a group (`fsGroup`).
fn check_group(folder: &Path, metadata: &Metadata, owners: Owners) -> Result<(), String> {
    let group = metadata.gid();
    if metadata.mode() & 0o020 == 0
        || is_sticky(metadata)
        || owners.contains(group)
        || group == metadata.uid()
    {
        return Ok(());
    }
    let (shown, mode) = (folder.display(), metadata.mode() & 0o7777);
    Err(format!("a group can write to the folder {shown} (mode {mode:04o}): chmod g-w {shown}"))
}

fn is_sticky(metadata: &Metadata) -> bool {
    metadata.mode() & 0o1000 != 0
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn cannot_read(path: &Path, kind: FileKind, why: &str) -> Failure {
    match path.as_os_str().is_empty() {
        true => Failure::Failed(format!("cannot read {}: the file name is empty", kind.noun)),
        false => Failure::Failed(format!("cannot read {} {}: {why}", kind.noun, path.display())),
    }
}

/// The reason of an error; for 'permission denied' with the file's mode and owner.
fn reason_of(path: &Path, error: &OpenError) -> String {
    match error {
        OpenError::Refused(why) => why.clone(),
        OpenError::Io(error) => match fs::metadata(path) {
            Ok(metadata) if error.kind() == io::ErrorKind::PermissionDenied => {
                let (mode, owner) = (metadata.mode() & 0o7777, user(metadata.uid()));
                format!("{} (mode {mode:04o}, owner {owner})", reason(error))
            }
            _ => reason(error),
        },
    }
}

fn size_text(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

/// The name of a user, or `user 1234` if `/etc/passwd` does not have it.
fn user(uid: u32) -> String {
    let mut text = String::new();
    // Names are only for messages: without the file, or beyond its first mebibyte, the number is used.
    let _ = File::open("/etc/passwd").and_then(|file| file.take(1 << 20).read_to_string(&mut text));
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("user {uid}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_private_group_of_the_own_user_may_write_to_a_folder_and_no_other_group() {
        let folder = std::env::temp_dir().join(format!("rendezvous-group-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o2775)).unwrap();
        let metadata = fs::metadata(&folder).unwrap();
        fs::remove_dir(&folder).unwrap();
        let group = metadata.gid();
        let as_user = |effective| check_group(&folder, &metadata, Owners { effective, acts_for: None });
        assert_eq!(as_user(group), Ok(()));
        // Root's group, and the private group of the folder's owner, are accepted for everybody.
        let is_private = group == 0 || group == metadata.uid();
        assert_eq!(as_user(group.wrapping_add(1)).is_ok(), is_private);
    }
}
