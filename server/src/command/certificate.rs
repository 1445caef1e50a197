//! The options that say which certificate a command shows.

use std::path::PathBuf;

use rustls::crypto::CryptoProvider;

use crate::cert::{self, Identity};
use crate::clock;
use crate::failure::Failure;
use crate::logging::Escaped;
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
    cert::normal_name(text).ok_or_else(|| format!("'{text}' is neither a host name nor an address"))
}

/// The certificate in the files of [`files`], or else the program's own with its warning. Warnings are logged, also those
/// about its dates.
///
/// # Errors
/// Those of [`cert::load`] and of `own`.
pub(super) fn load(
    files: Option<&(PathBuf, PathBuf)>,
    own: impl FnOnce() -> Result<(Identity, Option<String>), Failure>,
    provider: &CryptoProvider,
) -> Result<Identity, Failure> {
    let (identity, warning) = match files {
        Some((cert, key)) => (cert::load(cert, key, provider)?, None),
        None => own()?,
    };
    let leaf = identity.certified.cert.first();
    let of_dates = leaf.and_then(|leaf| cert::validity_warning(leaf, clock::wall()));
    for warning in warning.into_iter().chain(of_dates) {
        log::warn!("event=certificate reason={}", Escaped(&warning));
    }
    Ok(identity)
}
