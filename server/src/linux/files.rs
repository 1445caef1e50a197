//! Owners and modes of files.

use std::fs::{File, Permissions};
use std::io;
pub(crate) use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::fs::{PermissionsExt as _, fchown};

/// Flags of open(2) for a file that must not be a link, and whose opening must not block.
pub(crate) const NO_FOLLOW: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;
/// Flags of open(2) for a file whose opening must not block.
pub(crate) const NO_WAIT: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// Sets the mode of an open file.
///
/// # Errors
/// Those of fchmod(2).
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}

/// Sets the mode of a file.
///
/// # Errors
/// Those of chmod(2).
#[cfg(feature = "units")]
pub(crate) fn set_mode_of(path: &std::path::Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Sets the owner of an open file.
///
/// # Errors
/// Those of fchown(2).
pub(crate) fn set_owner(file: &File, user: u32, group: u32) -> io::Result<()> {
    fchown(file, Some(user), Some(group))
}
