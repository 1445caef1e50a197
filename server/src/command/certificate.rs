//! The options that say which certificate a command shows.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::options::{Matches, value};

/// The files of `--cert` and `--key`, if they are given.
///
/// # Errors
/// One of them is missing.
pub(super) fn files(matches: &Matches) -> Result<Option<(PathBuf, PathBuf)>, Failure> {
    match (matches.get_if("cert", value::path)?, matches.get_if("key", value::path)?) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::Usage("--cert needs --key FILE".to_owned())),
        (None, Some(_)) => Err(Failure::Usage("--key needs --cert FILE".to_owned())),
    }
}

/// A `--name`: a host name or an address for a certificate.
pub(super) fn name(text: &str) -> Result<String, String> {
    crate::cert::normal_name(text).ok_or_else(|| format!("'{text}' is neither a host name nor an address"))
}
