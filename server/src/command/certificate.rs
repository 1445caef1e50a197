//! The options that select the certificates of a command.

use std::path::PathBuf;

use rustls::crypto::CryptoProvider;

use crate::cert::{self, Identity};
use crate::certificates::Certificates;
use crate::clock;
use crate::failure::Failure;
use crate::logging::Escaped;
use crate::options::{Matches, value};

/// The files of `--cert` and `--key`, in order: the first `--key` belongs to the first `--cert`, and so on.
///
/// # Errors
/// The numbers of both options differ.
pub(super) fn files(matches: &Matches) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
    let (certs, keys) = (matches.get_all("cert", value::path)?, matches.get_all("key", value::path)?);
    match (certs.len(), keys.len()) {
        (certs, 0) if certs > 0 => Err(Failure::Usage("--cert needs --key FILE".to_owned())),
        (0, keys) if keys > 0 => Err(Failure::Usage("--key needs --cert FILE".to_owned())),
        (certs, keys) if certs != keys => Err(Failure::Usage(format!(
            "--cert is given {certs} times and --key {keys} times: each --cert needs its own --key"
        ))),
        _ => Ok(certs.into_iter().zip(keys).collect()),
    }
}

/// Parses a `--name`: a host name or an address for a certificate.
pub(super) fn name(text: &str) -> Result<String, String> {
    cert::normal_name(text).ok_or_else(|| format!("'{text}' is not a host name or an address"))
}

/// Loads the certificates in the files of [`files`], or else the program's own with its warning. Warnings are logged,
/// including those about dates.
///
/// # Errors
/// Those of [`cert::load`] and of `own`.
pub(super) fn load(
    files: &[(PathBuf, PathBuf)],
    own: impl FnOnce() -> Result<(Identity, Option<String>), Failure>,
    provider: &CryptoProvider,
) -> Result<Certificates, Failure> {
    let mut loaded = Vec::new();
    for (cert, key) in files {
        loaded.push(cert::load(cert, key, provider)?);
    }
    let mut loaded = loaded.into_iter();
    let (first, warning) = match loaded.next() {
        Some(first) => (first, None),
        None => own()?,
    };
    let others: Vec<_> = loaded.collect();
    let of_dates = std::iter::once(&first).chain(&others).filter_map(|identity| {
        let leaf = identity.certified.cert.first()?;
        cert::validity_warning(leaf, clock::wall())
    });
    for warning in warning.into_iter().chain(of_dates) {
        log::warn!("event=certificate reason={}", Escaped(&warning));
    }
    Ok(Certificates::new(first, others))
}
