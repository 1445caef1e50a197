//! Owners and modes of files, which do not exist here: access follows the lists of the folder, and those of a user's
//! profile admit only the user and administrators. Every file counts as private to the user.

use std::fs::{DirBuilder, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::MetadataExt as _;
use std::path::Path;

/// Flags of open(2) for a file that must not be a link, and whose opening must not block: none.
pub(crate) const NO_FOLLOW: i32 = 0;
/// Flags of open(2) for a file whose opening must not block: none.
pub(crate) const NO_WAIT: i32 = 0;

/// The fields of a file's metadata that Unix has.
pub(crate) trait MetadataExt {
    /// Private to its owner.
    fn mode(&self) -> u32;
    /// The one user.
    fn uid(&self) -> u32;
    /// The one group.
    fn gid(&self) -> u32;
    /// Unknown: 0.
    fn dev(&self) -> u64;
    /// Unknown: 0.
    fn ino(&self) -> u64;
    /// Bytes.
    fn size(&self) -> u64;
    /// The last change, in a unit of the system.
    fn mtime(&self) -> i64;
    /// Contained in [`MetadataExt::mtime`]: 0.
    fn mtime_nsec(&self) -> i64;
    /// The creation, in a unit of the system.
    fn ctime(&self) -> i64;
    /// Contained in [`MetadataExt::ctime`]: 0.
    fn ctime_nsec(&self) -> i64;
}

impl MetadataExt for Metadata {
    fn mode(&self) -> u32 {
        if self.is_dir() { 0o700 } else { 0o600 }
    }

    fn uid(&self) -> u32 {
        0
    }

    fn gid(&self) -> u32 {
        0
    }

    fn dev(&self) -> u64 {
        0
    }

    fn ino(&self) -> u64 {
        0
    }

    fn size(&self) -> u64 {
        self.file_size()
    }

    fn mtime(&self) -> i64 {
        self.last_write_time().cast_signed()
    }

    fn mtime_nsec(&self) -> i64 {
        0
    }

    fn ctime(&self) -> i64 {
        self.creation_time().cast_signed()
    }

    fn ctime_nsec(&self) -> i64 {
        0
    }
}

/// The kinds of files that Unix has.
pub(crate) trait FileTypeExt {
    /// Whether it is a FIFO.
    fn is_fifo(&self) -> bool;
    /// Whether it is a socket.
    fn is_socket(&self) -> bool;
    /// Whether it is a character device.
    fn is_char_device(&self) -> bool;
    /// Whether it is a block device.
    fn is_block_device(&self) -> bool;
}

impl FileTypeExt for FileType {
    fn is_fifo(&self) -> bool {
        false
    }

    fn is_socket(&self) -> bool {
        false
    }

    fn is_char_device(&self) -> bool {
        false
    }

    fn is_block_device(&self) -> bool {
        false
    }
}

/// The options of open(2).
pub(crate) trait OpenOptionsExt {
    /// The mode of a new file: ignored.
    fn mode(&mut self, mode: u32) -> &mut Self;
    /// Further flags: ignored.
    fn custom_flags(&mut self, flags: i32) -> &mut Self;
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, _: u32) -> &mut Self {
        self
    }

    fn custom_flags(&mut self, _: i32) -> &mut Self {
        self
    }
}

/// The options of mkdir(2).
pub(crate) trait DirBuilderExt {
    /// The mode of a new folder: ignored.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, _: u32) -> &mut Self {
        self
    }
}

/// Sets the mode of an open file: nothing.
///
/// # Errors
/// None.
pub(crate) const fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}

/// Sets the mode of a file: nothing.
///
/// # Errors
/// None.
#[cfg(feature = "units")]
pub(crate) const fn set_mode_of(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

/// Sets the owner of an open file: nothing.
///
/// # Errors
/// None.
pub(crate) const fn set_owner(_: &File, _: u32, _: u32) -> io::Result<()> {
    Ok(())
}
