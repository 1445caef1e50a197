//! The files of an ACME client in the state folder: `acme/HOST-DIGEST/`, one folder for each directory URL; those of an
//! agent begin with `agent-`, so that it can share the state folder of a relay.
//!
//! | file | content |
//! |---|---|
//! | `account.pem`, `account-next.pem` | the key of the account, and the next one while it is replaced |
//! | `state.json` | the client's document: account, pending orders, failures |
//! | `NAME.pem` | the key and the chain of a certificate |
//! | `NAME.key` | the key of a pending order |
//! | `lock` | locked while a program runs the client |
//!
//! Each file is written atomically, private to its owner, and is on disk before anything depends on it. A file with
//! unusable content (cut off by another program or a full disk) is renamed to `FILE.bad`, so that it blocks nothing and
//! can be inspected.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use rendezvous_core::acme::{Certificate, Names, PublicKey, State as Document, Url};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::chain;
use super::key::Key;
use crate::cert::{self, Identity};
use crate::escape::Escaped;
use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::state::{Lock, SECRET, State};

const ACCOUNT: &str = "account.pem";
const NEXT_ACCOUNT: &str = "account-next.pem";
const DOCUMENT: &str = "state.json";

/// The folder for one directory URL. It is locked until this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    /// `acme` in the state folder.
    all: State,
    own: State,
    prefix: String,
    lock: Lock,
}

/// A stored certificate.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) identity: Identity,
    pub(super) certificate: Certificate,
}

impl Folder {
    /// Opens the folder for this directory, whose name begins with `prefix`, made if it is missing, and locks it, unless
    /// another process has handed over its lock.
    ///
    /// # Errors
    /// It cannot be made, or another program runs a client there.
    pub(super) fn open(
        state: &State,
        prefix: &str,
        directory: &Url,
        lock: Option<Lock>,
    ) -> Result<Self, Failure> {
        let all = state.subfolder("acme")?;
        let digest = Sha256::digest(directory.as_str());
        let host = directory.authority().replace([':', '[', ']'], "_");
        let digest = &digest[..4];
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let own = all.subfolder(&format!("{prefix}{host}-{digest}"))?;
        let lock = match lock {
            Some(lock) => lock,
            None => own.lock()?,
        };
        Ok(Self { all, own, prefix: prefix.to_owned(), lock })
    }

    /// The lock of the folder.
    pub(super) const fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Returns the account's key, and makes one if there is no usable one. A new key means a new account.
    ///
    /// # Errors
    /// It can be neither read nor made.
    pub(super) fn account_key(&self) -> Result<Key, Failure> {
        match self.read_key(ACCOUNT)? {
            Some(key) => Ok(key),
            None => self.make_key(ACCOUNT),
        }
    }

    /// The key that is to replace the account's key.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn next_account_key(&self) -> Result<Option<Key>, Failure> {
        self.read_key(NEXT_ACCOUNT)
    }

    /// Returns that key, and makes one if there is none.
    ///
    /// # Errors
    /// It can be neither read nor made.
    pub(super) fn make_next_account_key(&self) -> Result<Key, Failure> {
        match self.next_account_key()? {
            Some(key) => Ok(key),
            None => self.make_key(NEXT_ACCOUNT),
        }
    }

    /// Replaces the account's key by the next key. If there is no next key, that has already happened.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn replace_account_key(&self) -> Result<(), Failure> {
        let Some(next) = self.next_account_key()? else { return Ok(()) };
        self.own.write(ACCOUNT, next.to_pem().as_bytes(), SECRET)?;
        self.remove(NEXT_ACCOUNT)
    }

    /// Returns the client's document, or a new one if there is no usable one.
    ///
    /// # Errors
    /// It cannot be read. It is not set aside, because it records failures and orders that must not be repeated.
    pub(super) fn document(&self, directory: &Url) -> Result<Document, Failure> {
        let path = self.own.file(DOCUMENT);
        let Some(content) = files::read_if_exists(&path, FileKind::ACME)? else {
            return Ok(Document::default());
        };
        let parsed = match std::str::from_utf8(&content.bytes) {
            Ok(text) => Document::parse(text, directory).map_err(|error| error.why.to_owned()),
            Err(_) => Err("it is not UTF-8".to_owned()),
        };
        Ok(parsed.unwrap_or_else(|why| {
            self.set_aside(DOCUMENT, &why);
            Document::default()
        }))
    }

    /// Replaces the document.
    ///
    /// # Errors
    /// It cannot be written; the old one is still there.
    pub(super) fn store_document(&self, document: &str) -> Result<(), Failure> {
        self.own.write(DOCUMENT, document.as_bytes(), SECRET)
    }

    /// The stored certificate for these names, if it is usable.
    pub(super) fn certificate(&self, names: &Names, now: u64, provider: &CryptoProvider) -> Option<Stored> {
        self.certificate_in(&self.own, names, now, provider)
    }

    /// The same from another CA: it is served until there is one from this CA.
    pub(super) fn certificate_of_others(
        &self,
        names: &Names,
        now: u64,
        provider: &CryptoProvider,
    ) -> Option<Stored> {
        let others = fs::read_dir(self.all.folder()).ok()?.filter_map(Result::ok);
        let others = others.filter(|other| other.path() != self.own.folder() && other.path().is_dir());
        let found = others.filter_map(|other| {
            let name = other.file_name();
            let name = name.to_str().filter(|name| is_of_agent(name) == is_of_agent(&self.prefix))?;
            let other = self.all.subfolder(name).ok()?;
            self.certificate_in(&other, names, now, provider)
        });
        found.max_by_key(|stored| stored.certificate.not_after)
    }

    fn certificate_in(
        &self,
        folder: &State,
        names: &Names,
        now: u64,
        provider: &CryptoProvider,
    ) -> Option<Stored> {
        let path = folder.file(&file_of(names, "pem"));
        let content = match files::read_if_exists(&path, FileKind::ACME) {
            Ok(content) => content?,
            Err(failure) => {
                log::warn!("event=acme-file reason={}", Escaped(&failure.to_string()));
                return None;
            }
        };
        let stored = Key::from_pem(&content.bytes).and_then(|key| {
            let chain = chain::parse(&content.bytes)?;
            // An expired certificate still tells when it was last renewed, and serving it is no worse than serving
            // none.
            let described = chain::describe(&chain).ok_or("a malformed certificate")?;
            chain::check(
                &chain,
                &key,
                names,
                now.max(described.not_before).min(described.not_after.saturating_sub(1)),
                provider,
            )?;
            let identity = cert::assemble(chain, &path, &content.bytes, &path, provider);
            Ok(Stored { identity: identity.map_err(|error| error.to_string())?, certificate: described })
        });
        match stored {
            Ok(stored) => Some(stored),
            Err(why) => {
                if folder.folder() == self.own.folder() {
                    self.set_aside(&file_of(names, "pem"), &why);
                }
                None
            }
        }
    }

    /// The key of the stored certificate for these names.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn certificate_key(&self, names: &Names) -> Result<Option<Key>, Failure> {
        self.read_key(&file_of(names, "pem"))
    }

    /// The key of the pending order for these names.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn pending_key(&self, names: &Names) -> Result<Option<Key>, Failure> {
        self.read_key(&file_of(names, "key"))
    }

    /// Stores a key for an order of these names, replacing another one.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn store_pending_key(&self, names: &Names, key: &Key) -> Result<(), Failure> {
        self.own.write(&file_of(names, "key"), key.to_pem().as_bytes(), SECRET)
    }

    /// Stores a key and its chain (PEM) for these names, and removes the pending key.
    ///
    /// # Errors
    /// It cannot be written; the old one is still there.
    pub(super) fn install(
        &self,
        names: &Names,
        key: &Key,
        pem: &str,
        chain: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Identity, Failure> {
        let file = file_of(names, "pem");
        let mut text = key.to_pem();
        text.push_str(pem);
        self.own.write(&file, text.as_bytes(), SECRET)?;
        // If this fails, the next order replaces it.
        let _ = self.remove(&file_of(names, "key"));
        let path = self.own.file(&file);
        cert::assemble(chain, &path, text.as_bytes(), &path, provider)
    }

    fn make_key(&self, file: &str) -> Result<Key, Failure> {
        let key = Key::generate().map_err(Failure::Failed)?;
        self.own.write(file, key.to_pem().as_bytes(), SECRET)?;
        Ok(key)
    }

    fn read_key(&self, file: &str) -> Result<Option<Key>, Failure> {
        let content = files::read_if_exists(&self.own.file(file), FileKind::ACME)?;
        Ok(content.and_then(|content| match Key::from_pem(&content.bytes) {
            Ok(key) => Some(key),
            Err(why) => {
                self.set_aside(file, &why);
                None
            }
        }))
    }

    fn remove(&self, file: &str) -> Result<(), Failure> {
        let path: PathBuf = self.own.file(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::of_file("remove", &path, &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Renames an unusable file.
    fn set_aside(&self, file: &str, why: &str) {
        let (path, to) = (self.own.file(file), self.own.file(&format!("{file}.bad")));
        let renamed = fs::rename(&path, &to);
        let outcome =
            if renamed.is_ok() { format!("it is now {}", to.display()) } else { "it stays".to_owned() };
        log::error!(
            "event=acme-file file={} reason={} outcome={}",
            Escaped(&path.to_string_lossy()),
            Escaped(why),
            Escaped(&outcome)
        );
    }
}

/// Whether a folder, or the prefix of its name, is of an agent.
pub(super) fn is_of_agent(folder: &str) -> bool {
    folder.starts_with("agent-")
}

/// The coordinates of a key.
///
/// # Errors
/// It is not on the curve.
pub(super) fn public(key: &Key) -> Result<PublicKey, String> {
    let (x, y) = key.public()?;
    Ok(PublicKey { x, y })
}

/// The file name for a certificate: its first name is a host name, whose characters are all safe in file names.
fn file_of(names: &Names, extension: &str) -> String {
    let first = names.as_slice().first().map_or("", String::as_str);
    format!("{first}.{extension}")
}
