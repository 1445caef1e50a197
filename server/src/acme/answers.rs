//! Responses to an ACME client's requests. They access files, make keys and sign, so they run on a worker thread.

use std::sync::Arc;

use rendezvous_core::acme::action::AccountKey;
use rendezvous_core::acme::{Answer, Challenge, Names, Proof, Question, Wanted};
use rustls::crypto::CryptoProvider;

use super::chain;
use super::folder::{self, Folder};
use super::key::Key;
use crate::clock;
use crate::failure::Failure;
use crate::live_certificates::LiveCertificates;

/// How the key of a certificate is chosen.
#[derive(Debug)]
pub enum KeyChoice {
    /// A new key for each order.
    Fresh,
    /// The key of the previous certificate. The first certificate of `name` gets `key`, whose pin is already known.
    Keep {
        /// A name.
        name: String,
        /// The PEM file of its key.
        key: Option<Key>,
    },
}

/// Responds to requests.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) folder: Folder,
    pub(super) live: Arc<LiveCertificates>,
    pub(super) keys: KeyChoice,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Answers {
    /// Loads the stored certificates for these names, and serves only them.
    pub(super) fn load(&self, all: Vec<Names>) -> Vec<Wanted> {
        let now = clock::wall();
        let is_wanted = |name: &str| all.iter().any(|names| names.as_slice().iter().any(|it| it == name));
        self.live.retain(is_wanted);
        let load = |names: Names| {
            let stored = self.folder.certificate(&names, now, &self.provider);
            let certificate = stored.as_ref().map(|stored| stored.certificate.clone());
            let served = stored.or_else(|| self.folder.certificate_of_others(&names, now, &self.provider));
            if let Some(served) = served {
                for name in names.as_slice() {
                    self.live.set(name, served.identity.clone());
                }
            }
            Wanted { names, certificate }
        };
        all.into_iter().map(load).collect()
    }

    pub(super) fn answer(&self, question: Question) -> Answer {
        let answered = match question {
            Question::Store { document } => self.folder.store_document(&document).map(|()| Answer::Done),
            Question::Sign { with, bytes } => self.sign(with, &bytes),
            Question::MakeRequest { names } => self.make_request(&names),
            Question::Provide(challenge) => self.provide(&challenge),
            Question::Inspect { chain } => Ok(match chain::parse(chain.as_bytes()) {
                Ok(chain) => Answer::Inspected { topmost_issuer: chain::topmost_issuer(&chain) },
                Err(why) => Answer::Refused { why },
            }),
            Question::Install { names, chain } => self.install(&names, &chain),
            Question::MakeAccountKey => self
                .folder
                .make_next_account_key()
                .and_then(|key| folder::public(&key).map(Answer::AccountKey).map_err(Failure::Failed)),
            Question::ReplaceAccountKey => self.folder.replace_account_key().map(|()| Answer::Done),
        };
        answered.unwrap_or_else(|failure| Answer::Failed { why: failure.to_string() })
    }

    fn sign(&self, with: AccountKey, bytes: &[u8]) -> Result<Answer, Failure> {
        let key = match with {
            AccountKey::Current => self.folder.account_key()?,
            AccountKey::Next => self.folder.make_next_account_key()?,
        };
        key.sign(bytes).map(Answer::Signed).map_err(Failure::Failed)
    }

    fn make_request(&self, names: &Names) -> Result<Answer, Failure> {
        let key = match self.kept_key(names)? {
            Some(key) => key,
            None => Key::generate().map_err(Failure::Failed)?,
        };
        self.folder.store_pending_key(names, &key)?;
        let der = key.request(names.as_slice()).map_err(Failure::Failed)?;
        Ok(Answer::Request { der })
    }

    /// The kept key for these names, if keys are kept and there is one.
    fn kept_key(&self, names: &Names) -> Result<Option<Key>, Failure> {
        let KeyChoice::Keep { name, key } = &self.keys else { return Ok(None) };
        if let Some(before) = self.folder.certificate_key(names)? {
            return Ok(Some(before));
        }
        let known = key.as_ref().filter(|_| names.as_slice().first() == Some(name));
        known.map(|key| Key::from_pem(key.to_pem().as_bytes())).transpose().map_err(Failure::Failed)
    }

    fn provide(&self, challenge: &Challenge) -> Result<Answer, Failure> {
        match &challenge.proof {
            Proof::TlsAlpn01 { digest } => {
                let made =
                    Key::generate().and_then(|key| key.challenge(&challenge.name, digest, &self.provider));
                self.live.provide(&challenge.name, made.map_err(Failure::Failed)?);
            }
            // The client's own HTTP listener responds.
            Proof::Http01 { .. } => {}
        }
        Ok(Answer::Done)
    }

    fn install(&self, names: &Names, pem: &str) -> Result<Answer, Failure> {
        let refused = |why| Ok(Answer::Refused { why });
        let chain = match chain::parse(pem.as_bytes()) {
            Ok(chain) => chain,
            Err(why) => return refused(why),
        };
        // After a crash that followed the installation, the pending key is gone.
        let keys = [self.folder.pending_key(names)?, self.folder.certificate_key(names)?];
        let now = clock::wall();
        let mut why = "the key that it was requested with is missing".to_owned();
        for key in keys.into_iter().flatten() {
            match chain::check(&chain, &key, names, now, &self.provider) {
                Ok(certificate) => {
                    let identity = self.folder.install(names, &key, pem, chain, &self.provider)?;
                    for name in names.as_slice() {
                        self.live.set(name, identity.clone());
                    }
                    return Ok(Answer::Installed(certificate));
                }
                Err(wrong) => why = wrong,
            }
        }
        refused(why)
    }
}
