//! The certificates in files, for comparison with what is served.

use std::fs;
use std::path::{Path, PathBuf};

use miniserde::json::{self, Value};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::Step;
use super::served::{Chain, described};
use crate::cert::{self, CERT_FILE};
use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::trust::read_certificates;
use crate::x509;

/// The certificates of `--cert` and `--state`.
#[derive(Debug, Default)]
pub(super) struct Stored {
    files: Vec<StoredFile>,
    /// The URL of the account at the CA.
    account: Option<String>,
    is_given: bool,
}

#[derive(Debug)]
struct StoredFile {
    path: PathBuf,
    source: Source,
    chain: Chain,
}

/// Where a certificate comes from, the preferred source first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// `--cert`.
    Given,
    /// A CA, by ACME.
    Acme,
    /// The relay itself.
    SelfSigned,
}

impl Stored {
    /// Reads the certificates for these names in the files of `--cert` and in a state folder.
    ///
    /// # Errors
    /// A file exists but cannot be used.
    pub(super) fn read(certs: &[PathBuf], state: Option<&Path>, names: &[String]) -> Result<Self, Failure> {
        let mut stored = Self { is_given: state.is_some() || !certs.is_empty(), ..Self::default() };
        for path in certs {
            let chain = read_certificates(path)?;
            stored.files.push(StoredFile { path: path.clone(), source: Source::Given, chain });
        }
        let Some(state) = state else { return Ok(stored) };
        for folder in subfolders(&state.join("acme"))? {
            for name in names {
                let path = folder.join(format!("{name}.pem"));
                let Some(content) = files::read_if_exists(&path, FileKind::ACME)? else { continue };
                let chain = CertificateDer::pem_slice_iter(&content.bytes).collect::<Result<Vec<_>, _>>();
                let chain = chain.map_err(|error| {
                    Failure::Failed(format!("{} is not in PEM format: {error}", path.display()))
                })?;
                stored.files.push(StoredFile { path, source: Source::Acme, chain });
                stored.account = stored.account.take().or(account(&folder)?);
            }
        }
        // The certificate that was issued last comes first.
        stored.files.sort_by_key(|file| (file.source, std::cmp::Reverse(file.end())));
        let own = state.join(CERT_FILE);
        if own.exists() {
            let chain = read_certificates(&own)?;
            stored.files.push(StoredFile { path: own, source: Source::SelfSigned, chain });
        }
        Ok(stored)
    }

    /// The URL of the account at the CA, if it is known.
    pub(super) fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// Compares a chain that is served for a name with the stored certificates. `None` if no files were given.
    pub(super) fn compare(&self, name: &str, served: &Chain) -> Option<Step> {
        if !self.is_given {
            return None;
        }
        let mut fitting = self.files.iter().filter(|file| file.is_for(name));
        let same = self.files.iter().find(|file| file.chain.first() == served.first());
        Some(match (same, fitting.next()) {
            (Some(same), Some(best))
                if same.source == Source::SelfSigned && best.source != Source::SelfSigned =>
            {
                Step::Failed(format!(
                    "{} is served for {name}, although {} is for it: restart the relay, or send it SIGHUP",
                    same.path.display(),
                    best.path.display()
                ))
            }
            (Some(same), _) if same.source == Source::SelfSigned => Step::Info(format!(
                "{} is served for {name}: no certificate of a CA is stored for it",
                same.path.display()
            )),
            (Some(same), _) => Step::Ok(format!("{} is served for {name}", same.path.display())),
            (None, Some(best)) => Step::Failed(format!(
                "{} is for {name}, but another certificate is served: {}. A load balancer or another program \
                 terminates TLS there, the address is that of another machine, or the relay has not read the file \
                 again (SIGHUP)",
                best.path.display(),
                described(served)
            )),
            (None, None) => Step::Info(format!(
                "no certificate for {name} is stored here (that of an end-to-end label is stored by its agent)"
            )),
        })
    }
}

impl StoredFile {
    fn is_for(&self, name: &str) -> bool {
        let names = self.chain.first().map(|leaf| cert::names_of(leaf)).unwrap_or_default();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        names.iter().any(|own| own == name || own.strip_prefix("*.").is_some_and(|own| Some(own) == parent))
    }

    /// The end of the validity, in seconds since 1970.
    fn end(&self) -> u64 {
        let validity =
            self.chain.first().and_then(|leaf| x509::parts(leaf)).and_then(|parts| parts.validity());
        validity.map_or(0, |(_, end)| end)
    }
}

/// The folders in a folder, in order; none if it does not exist.
fn subfolders(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::of_file("read", folder, &error)),
    };
    let mut folders: Vec<_> =
        entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

/// The URL of the account in an ACME client's document.
fn account(folder: &Path) -> Result<Option<String>, Failure> {
    let Some(content) = files::read_if_exists(&folder.join("state.json"), FileKind::ACME)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&content.bytes);
    let Ok(Value::Object(document)) = json::from_str(&text) else { return Ok(None) };
    Ok(match document.get("account") {
        Some(Value::String(url)) if !url.is_empty() => Some(url.clone()),
        Some(_) | None => None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn signed(names: &[&str]) -> Chain {
        let key = KeyPair::generate().expect("a key");
        let mut root = CertificateParams::default();
        root.distinguished_name.push(DnType::CommonName, "a root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer::new(root, key);
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(names).expect("names").signed_by(&key, &issuer);
        vec![leaf.expect("a certificate").der().clone()]
    }

    fn stored(files: &[(Source, &Chain)]) -> Stored {
        let file = |(source, chain): &(Source, &Chain)| StoredFile {
            path: PathBuf::from(format!("{source:?}")),
            source: *source,
            chain: (*chain).clone(),
        };
        Stored { files: files.iter().map(file).collect(), account: None, is_given: true }
    }

    fn word(step: Option<Step>) -> &'static str {
        match step {
            None => "nothing",
            Some(Step::Ok(_)) => "ok",
            Some(Step::Info(_)) => "info",
            Some(Step::Failed(_)) => "FAILED",
        }
    }

    #[test]
    fn what_is_served_is_compared_with_the_files_for_its_name() {
        let name = "home.relay.example";
        let (own, acme) = (signed(&["relay.example", "*.relay.example"]), signed(&[name]));
        let (wildcard, foreign) = (signed(&["*.relay.example"]), signed(&[name]));
        let all = [(Source::Acme, &acme), (Source::SelfSigned, &own)];
        assert_eq!(word(stored(&all).compare(name, &acme)), "ok");
        assert_eq!(word(stored(&all).compare(name, &own)), "FAILED", "although there is one of a CA");
        assert_eq!(word(stored(&all).compare(name, &foreign)), "FAILED");
        assert_eq!(word(stored(&all[1..]).compare(name, &own)), "info");
        let given = [(Source::Given, &wildcard), (Source::SelfSigned, &own)];
        assert_eq!(word(stored(&given).compare(name, &wildcard)), "ok");
        assert_eq!(word(stored(&given).compare("a.b.relay.example", &foreign)), "info", "none is for it");
        assert_eq!(word(Stored::default().compare(name, &own)), "nothing");
    }
}
