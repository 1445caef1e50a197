//! The certificate of a relay or agent: from files, or self-signed in the state folder and made if missing.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use zeroize::Zeroizing;

use crate::entropy;
use crate::failure::{Failure, reason};
use crate::files::{self, FileKind};
use crate::pin::Pin;
use crate::state::{self, LockError, PUBLIC, SECRET, State};
use crate::x509::MADE_HERE;
use crate::{trust, x509};

/// The certificate's file in the state folder.
pub const CERT_FILE: &str = "relay.crt";

/// The key's file in the state folder.
pub const KEY_FILE: &str = "relay.key";

/// The file names of a key and its certificate in a state folder.
#[derive(Clone, Copy, Debug)]
pub struct PairFiles {
    cert: &'static str,
    key: &'static str,
}

impl PairFiles {
    /// Those of a relay.
    pub const RELAY: Self = Self { cert: CERT_FILE, key: KEY_FILE };
    /// Those of an agent that terminates the TLS of clients.
    pub const AGENT: Self = Self { cert: "agent.crt", key: "agent.key" };

    /// The file of the key.
    #[must_use]
    pub const fn key(self) -> &'static str {
        self.key
    }

    fn paths(self, state: &State) -> (PathBuf, PathBuf) {
        (state.file(self.cert), state.file(self.key))
    }
}

/// A certificate chain, its key and its pin.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For [`tls_config::server_config`](crate::tls_config::server_config).
    pub certified: Arc<CertifiedKey>,
    /// The pin of its key.
    pub pin: Pin,
}

/// Loads a chain (the end-entity certificate first) and its key from PEM files.
///
/// # Errors
///
/// [`Failure::Failed`] with the file and its error, or if key and certificate do not match.
pub fn load(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Identity, Failure> {
    let pem = files::read(key, FileKind::KEY)?;
    assemble(trust::read_certificates(cert)?, cert, &pem, key, provider)
}

/// Returns the state folder's own certificate for `names` (see [`default_names`]), and makes it if it is missing. If it
/// was made by this program and lacks some names, it is replaced by one for the old and new names with the same key and
/// hence the same pin.
///
/// The second part of the result is a warning: the certificate lacks a name but is unchanged, because it is the user's
/// own or the folder is read-only. The lock is taken only if something must be made.
///
/// # Errors
///
/// [`Failure::Failed`] if a file cannot be read or written, if others can read the key, or if key and certificate do
/// not match.
pub fn ensure(
    state: &State,
    pair: PairFiles,
    names: &[String],
    provider: &CryptoProvider,
) -> Result<(Identity, Option<String>), Failure> {
    let wanted = in_order(names.iter().filter_map(|name| normal_name(name)));
    // Usually nothing must be changed, so neither the lock, which may be held, nor a writable folder is needed.
    if let Ok(Some(complete)) = load_complete(state, pair, &wanted, provider) {
        return Ok(complete);
    }
    let made = match state.lock() {
        Ok(_lock) => make_missing(state, pair, names, &wanted),
        Err(LockError::Unavailable(failure)) => Err(failure),
        Err(LockError::Held(failure)) => return Err(failure),
    };
    let (cert, key) = pair.paths(state);
    match made {
        Ok(warning) => Ok((load_own(state, pair, provider)?, warning)),
        Err(failure) if is_missing(&key)? || is_missing(&cert)? => Err(failure),
        // The existing certificate is used although it cannot be changed.
        Err(failure) => {
            let identity = load_own(state, pair, provider)?;
            Ok((identity, Some(format!("{} lacks names: {failure}", cert.display()))))
        }
    }
}

/// The state folder's certificate and a warning, as in [`ensure`]; `None` if files or names are missing.
fn load_complete(
    state: &State,
    pair: PairFiles,
    wanted: &[String],
    provider: &CryptoProvider,
) -> Result<Option<(Identity, Option<String>)>, Failure> {
    let (cert, key) = pair.paths(state);
    if is_missing(&key)? || is_missing(&cert)? {
        return Ok(None);
    }
    let warning = match missing_names(&cert, wanted)? {
        MissingNames::Nothing => None,
        MissingNames::Names { made_here: true, .. } => return Ok(None),
        MissingNames::Names { made_here: false, all } => Some(not_made_here(&cert, &all)),
    };
    Ok(Some((load_own(state, pair, provider)?, warning)))
}

fn load_own(state: &State, pair: PairFiles, provider: &CryptoProvider) -> Result<Identity, Failure> {
    let (cert, key) = pair.paths(state);
    let pem = files::read(&key, FileKind::STATE_KEY)?;
    assemble(trust::read_certificates(&cert)?, &cert, &pem, &key, provider)
}

/// Makes a missing key, certificate or name; the lock is held. Returns a warning as in [`ensure`].
fn make_missing(
    state: &State,
    pair: PairFiles,
    names: &[String],
    wanted: &[String],
) -> Result<Option<String>, Failure> {
    let (cert, key) = pair.paths(state);
    if is_missing(&key)? {
        if !is_missing(&cert)? {
            return Err(Failure::Failed(format!(
                "{} has no key: restore {}, or remove the certificate to make a new pair",
                cert.display(),
                key.display()
            )));
        }
        let made = KeyPair::generate().map_err(|error| cannot_make(&error))?;
        state.write(pair.key, Zeroizing::new(made.serialize_pem()).as_bytes(), SECRET)?;
    }
    let pem = files::read(&key, FileKind::STATE_KEY)?;
    match missing_names(&cert, wanted)? {
        MissingNames::Nothing => Ok(None),
        MissingNames::Names { made_here: true, all } => {
            let certificate = self_signed(&pem, &key, names, &all)?;
            state.write(pair.cert, certificate.as_bytes(), PUBLIC)?;
            Ok(None)
        }
        MissingNames::Names { made_here: false, all } => Ok(Some(not_made_here(&cert, &all))),
    }
}

fn not_made_here(cert: &Path, lacks: &[String]) -> String {
    format!(
        "{} was not made by rendezvous and is unchanged, but lacks the names: {}",
        cert.display(),
        lacks.join(", ")
    )
}

/// The default names of a self-signed certificate: the host's name, `localhost`, `127.0.0.1`, `::1`, and with a domain
/// that and all names below it.
pub fn default_names(domain: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> = host_name().into_iter().collect();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    if let Some(domain) = domain {
        names.extend([domain.to_owned(), format!("*.{domain}")]);
    }
    names
}

/// Normalises a name for certificates: lower case, addresses as [`IpAddr`] prints them. `None` if it is neither a host
/// name (possibly with a leading `*.`) nor an address.
pub fn normal_name(name: &str) -> Option<String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let host = name.strip_prefix("*.").unwrap_or(&name);
    matches!(ServerName::try_from(host), Ok(ServerName::DnsName(_))).then_some(name)
}

/// Expiry is reported this many days in advance.
const EXPIRY_DAYS: u64 = 14;

/// The problem with the validity of a certificate (DER) at this time, in seconds since 1970; `None` if there is none.
#[must_use]
pub fn validity_warning(certificate: &[u8], now: u64) -> Option<String> {
    const DAY: u64 = 24 * 60 * 60;
    let (first, last) = x509::parts(certificate)?.validity()?;
    if now < first {
        let days = (first - now) / DAY;
        Some(format!("the certificate becomes valid in {days} days, or this machine's clock is wrong"))
    } else if last < now {
        Some(format!("the certificate expired {} days ago: clients with a CA refuse it", (now - last) / DAY))
    } else if last - now < EXPIRY_DAYS * DAY {
        Some(format!("the certificate expires in {} days", (last - now) / DAY))
    } else {
        None
    }
}

/// The names in a certificate (DER).
pub fn names_of(certificate: &[u8]) -> Vec<String> {
    x509::parts(certificate).map(|parts| parts.names()).unwrap_or_default()
}

/// The pin of the first certificate of a PEM file.
///
/// # Errors
///
/// [`Failure::Failed`] if there is no such file or no certificate in it.
pub fn pin_of_file(cert: &Path) -> Result<Pin, Failure> {
    let chain = trust::read_certificates(cert)?;
    chain.first().and_then(|own| Pin::of_certificate(own)).ok_or_else(|| malformed(cert))
}

/// Makes a key (ECDSA P-256) as a new file, private to its owner. Never overwrites a file.
///
/// # Errors
///
/// [`Failure::Failed`] if the file exists or cannot be written, or if others can write to its folder.
pub fn make_key(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::check_folder(folder, false)?;
    let pair = KeyPair::generate().map_err(|error| cannot_make(&error))?;
    state::write_new(path, Zeroizing::new(pair.serialize_pem()).as_bytes(), SECRET)
}

/// The pin of a PEM file: that of its first certificate, or else of its private key. `None` if the file does not exist.
///
/// # Errors
///
/// [`Failure::Failed`] if the file cannot be read or contains neither; if it is a key, also if others can read it.
pub fn pin_of(path: &Path, provider: &CryptoProvider) -> Result<Option<Pin>, Failure> {
    if is_missing(path)? {
        return Ok(None);
    }
    let pem = files::read(path, FileKind::CERTIFICATE)?;
    if CertificateDer::pem_slice_iter(&pem).next().is_some() {
        return pin_of_file(path).map(Some);
    }
    let pem = files::read(path, FileKind::KEY)?;
    let signing = signing_key(&pem, path, provider)?;
    let public = signing.public_key();
    let public = public.ok_or_else(|| Failure::Failed(format!("{}: no public key", path.display())))?;
    Ok(Some(Pin::of_spki(&public)))
}

/// Makes a self-signed certificate for a key file, for peers that know the key by its pin.
///
/// # Errors
///
/// [`Failure::Failed`] if the key cannot be read or used, or if others can read it.
pub fn of_key(key: &Path, provider: &CryptoProvider) -> Result<Identity, Failure> {
    let pem = files::read(key, FileKind::KEY)?;
    // Its errors cover encrypted keys and files without a key.
    signing_key(&pem, key, provider)?;
    let certificate = self_signed(&pem, key, &[], &[])?;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|error| Failure::Failed(format!("cannot make a certificate: {error}")))?;
    assemble(vec![certificate], key, &pem, key, provider)
}

/// Combines a chain and its key (PEM), whose files are named in errors.
///
/// # Errors
///
/// [`Failure::Failed`] if the key cannot be used, or does not match the chain's first certificate.
pub(crate) fn assemble(
    chain: Vec<CertificateDer<'static>>,
    cert: &Path,
    pem: &[u8],
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Identity, Failure> {
    let parts = chain.first().and_then(|own| x509::parts(own));
    let parts = parts.ok_or_else(|| malformed(cert))?;
    let signing = signing_key(pem, key, provider)?;
    if signing.public_key().is_some_and(|public| public.as_ref() != parts.spki) {
        return Err(Failure::Failed(format!(
            "{} is not the key of the certificate in {} (the server's own certificate comes first)",
            key.display(),
            cert.display()
        )));
    }
    let pin = Pin::of_spki(parts.spki);
    Ok(Identity { certified: Arc::new(CertifiedKey::new(chain, signing)), pin })
}

/// Parses a private key in PEM.
fn signing_key(pem: &[u8], key: &Path, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, Failure> {
    let shown = key.display();
    if is_encrypted(pem) {
        return Err(Failure::Failed(format!(
            "{shown} is encrypted: decrypt it with 'openssl pkey -in {shown} -out NEW-FILE'"
        )));
    }
    let secret = PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        // The PEM error's own text is not used: it may quote the file.
        let what = if matches!(error, pem::Error::NoItemsFound) {
            "contains no private key (PEM)"
        } else {
            "is not in PEM format"
        };
        Failure::Failed(format!("{shown} {what}"))
    })?;
    provider.key_provider.load_private_key(secret).map_err(|_| {
        Failure::Failed(format!("{shown}: unsupported kind of key: use ECDSA P-256 or RSA 2048"))
    })
}

/// Whether the key is encrypted, as PKCS#8 (RFC 7468 §11) or in OpenSSL's older format (RFC 1421 §4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    [&b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| pem.windows(mark.len()).any(|part| part == *mark))
}

enum MissingNames {
    Nothing,
    /// `all`: all names for the certificate, including the old ones.
    Names {
        made_here: bool,
        all: Vec<String>,
    },
}

fn missing_names(cert: &Path, wanted: &[String]) -> Result<MissingNames, Failure> {
    if is_missing(cert)? {
        return Ok(MissingNames::Names { made_here: true, all: wanted.to_vec() });
    }
    let chain = trust::read_certificates(cert)?;
    let Some(parts) = chain.first().and_then(|own| x509::parts(own)) else {
        return Ok(MissingNames::Nothing); // malformed: loading it reports that
    };
    let has = parts.names();
    let lacking: Vec<_> = wanted.iter().filter(|name| !has.contains(name)).cloned().collect();
    if lacking.is_empty() {
        return Ok(MissingNames::Nothing);
    }
    let mark = MADE_HERE.as_bytes();
    let made_here =
        parts.issuer == parts.subject && parts.issuer.windows(mark.len()).any(|part| part == mark);
    let all = if made_here { in_order(has.into_iter().chain(lacking)) } else { lacking };
    Ok(MissingNames::Names { made_here, all })
}

/// Sorts and deduplicates names. For so few names, this needs less code than a sort.
fn in_order(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut all = Vec::new();
    for name in names {
        if let Err(place) = all.binary_search(&name) {
            all.insert(place, name);
        }
    }
    all
}

/// Makes the certificate. Its dates are fixed, so that it is valid whatever a router's clock says. It is neither a CA
/// nor restricted in its key usage: hidden servers of 2013, which verify it as its own CA, refuse a keyUsage without
/// keyCertSign, and other clients refuse a CA as a server.
fn self_signed(pem: &[u8], key: &Path, first: &[String], all: &[String]) -> Result<String, Failure> {
    let text = std::str::from_utf8(pem).unwrap_or_default();
    let pair = KeyPair::from_pem(text).map_err(|_| {
        Failure::Failed(format!(
            "{}: cannot make a certificate with this key: use PKCS#8 (PEM), ECDSA P-256 or RSA",
            key.display()
        ))
    })?;
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2010, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    params.is_ca = IsCa::NoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(serial_number()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, MADE_HERE);
    let common = first.iter().filter_map(|name| normal_name(name)).find(|name| name.len() <= 64);
    params.distinguished_name.push(DnType::CommonName, common.unwrap_or_else(|| "relay".to_owned()));
    for name in all {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|error| cannot_make(&error))?),
        });
    }
    Ok(params.self_signed(&pair).map_err(|error| cannot_make(&error))?.pem())
}

/// A random serial number: browsers refuse two certificates with the same issuer and serial number, and a name added
/// later makes a second certificate. Positive, without a leading zero.
fn serial_number() -> Result<SerialNumber, Failure> {
    let mut bytes = *entropy::bytes::<16>()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn malformed(cert: &Path) -> Failure {
    Failure::Failed(format!("{}: the first certificate is malformed", cert.display()))
}

fn cannot_make(error: &rcgen::Error) -> Failure {
    Failure::Failed(format!("cannot make a certificate: {error}"))
}

fn is_missing(path: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Failure::Failed(format!("cannot look for {}: {}", path.display(), reason(&error)))),
    }
}

fn host_name() -> Option<String> {
    let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let name = files.iter().find_map(|file| fs::read_to_string(file).ok())?;
    normal_name(name.trim())
}
