//! The identities of a recording, and their stand-ins.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::HEXLOWER;

use super::Identity;
use crate::agent::Upstream;
use crate::entropy::Entropy;
use crate::http::target::{Registration, Token};
use crate::id::Id;
use crate::registry::{Enrolment, UsedToken, acceptable_until};
use crate::token::{Challenge, ChallengeKey, Key};

/// The real keys, and the stand-ins that are written instead.
#[derive(Debug)]
pub(super) struct Pseudonyms {
    /// The IDs that are enrolled at the moment.
    keys: BTreeMap<Id, Keys>,
    /// All identities that were written so far.
    identities: Vec<Identity>,
    /// The source of stand-in secrets. They are not secret: anyone can compute them.
    secrets: Entropy,
    /// For a relay, the keys of its own challenges and of its shadow's.
    challenges: Option<(ChallengeKey, ChallengeKey)>,
    /// Tokens that another process has accepted, after the second in which they expire.
    used: BTreeSet<(u64, Id, [u8; 16])>,
}

/// The stand-ins for the token of a CONNECT and for its challenge, with the same lengths.
pub(super) struct StandIn {
    pub(super) response: Vec<u8>,
    pub(super) challenge: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Keys {
    real: Key,
    stand_in: Key,
}

impl Default for Pseudonyms {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            identities: Vec::new(),
            secrets: Entropy::new([0; 32]),
            challenges: None,
            used: BTreeSet::new(),
        }
    }
}

impl Pseudonyms {
    /// The pseudonyms of a relay, with its seed and that of its shadow.
    pub(super) fn of_relay(seed: [u8; 32], stand_in: [u8; 32]) -> Self {
        let challenges = Some((ChallengeKey::new(seed), ChallengeKey::new(stand_in)));
        Self { challenges, ..Self::default() }
    }

    /// Takes a new list. Returns the names of its identities, the list with stand-in secrets, and the identities that
    /// were not written yet. An unchanged secret keeps its stand-in.
    pub(super) fn enrol(&mut self, list: &[Enrolment]) -> (Vec<String>, Vec<Enrolment>, Vec<Identity>) {
        let old = core::mem::take(&mut self.keys);
        let (mut names, mut stand_ins, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for enrolment in list {
            // If two lines have the same ID, the first counts.
            if self.keys.contains_key(&enrolment.id) {
                continue;
            }
            let kept = old.get(&enrolment.id).filter(|keys| keys.real == enrolment.key);
            let keys = kept.cloned().unwrap_or_else(|| Keys {
                real: enrolment.key.clone(),
                stand_in: self.stand_in(&enrolment.key),
            });
            let enrolment = Enrolment { key: keys.stand_in.clone(), ..enrolment.clone() };
            self.keys.insert(enrolment.id, keys);
            let known = self.identities.iter().find(|identity| identity.enrolment == enrolment);
            let name = match known {
                Some(identity) => identity.name.clone(),
                None => {
                    let identity = self.name(enrolment.clone());
                    let name = identity.name.clone();
                    new.push(identity);
                    name
                }
            };
            names.push(name);
            stand_ins.push(enrolment);
        }
        (names, stand_ins, new)
    }

    /// The upstreams of an agent with stand-in secrets. One secret has one stand-in. One ID may have several, at
    /// several relays.
    pub(super) fn upstreams(&mut self, list: &[Upstream]) -> Vec<Upstream> {
        let mut masked: Vec<Upstream> = Vec::new();
        for upstream in list {
            let before =
                list.iter().zip(&masked).find(|(it, _)| it.id == upstream.id && it.key == upstream.key);
            let key = match before {
                Some((_, known)) => known.key.clone(),
                None => {
                    let key = self.stand_in(&upstream.key);
                    self.name(Enrolment::new(upstream.id, key.clone()));
                    key
                }
            };
            masked.push(Upstream { key, ..upstream.clone() });
        }
        masked
    }

    /// An identity with a stand-in for the new secret of an agent's upstream.
    pub(super) fn renew(&mut self, id: Id, key: &Key) -> Identity {
        let stand_in = self.stand_in(key);
        self.name(Enrolment::new(id, stand_in))
    }

    /// All identities that were named so far.
    pub(super) fn identities(&self) -> &[Identity] {
        &self.identities
    }

    /// Whether a user name is a known label, alone or with a domain.
    pub(super) fn is_label(&self, name: &str) -> bool {
        let label = name.split('.').next().unwrap_or_default();
        let mut labels = self.identities.iter().flat_map(|identity| &identity.enrolment.labels);
        labels.any(|known| known.eq_ignore_ascii_case(label))
    }

    /// Names a new identity.
    fn name(&mut self, enrolment: Enrolment) -> Identity {
        let identity = Identity { name: format!("id{}", self.identities.len() + 1), enrolment };
        self.identities.push(identity.clone());
        identity
    }

    fn stand_in(&mut self, key: &Key) -> Key {
        let mut secret = Vec::new();
        while secret.len() < key.secret().len() {
            secret.extend_from_slice(&self.secrets.block());
        }
        secret.truncate(key.secret().len());
        let made = Key::new(secret, key.algorithm(), key.digits(), key.period());
        made.unwrap_or_else(|_| unreachable!("it is like a key that there is"))
    }

    /// These tokens of an enrolled ID are not valid from now on.
    pub(super) fn invalidate(&mut self, tokens: &[UsedToken], wall: u64) {
        self.used = self.used.split_off(&(wall + 1, Id(0), [0; 16]));
        self.used.extend(tokens.iter().map(|used| (used.until, used.id, used.token)));
    }

    fn is_used(&self, id: Id, keys: &Keys, step: u64, token: [u8; 16]) -> bool {
        self.used.contains(&(acceptable_until(&keys.real, step), id, token))
    }

    /// The stand-in for a token: for a valid one, the valid one of the same step; for an invalid one, an invalid one.
    pub(super) fn token(&self, registration: &Registration<'_>, wall: u64) -> StandIn {
        let Token::Challenged { response, nonce, challenge } = registration.token else {
            return StandIn { response: self.timed_token(registration, wall), challenge: None };
        };
        let stand_in = self.challenge(&challenge);
        let keys = self.keys.get(&registration.id);
        let right = keys.filter(|keys| keys.real.check_over_challenge(&challenge, nonce, &response));
        let token = right.map_or([0; 16], |keys| keys.stand_in.over_challenge(&stand_in, nonce));
        StandIn {
            response: HEXLOWER.encode(&token).into_bytes(),
            challenge: Some(stand_in.as_bytes().to_vec()),
        }
    }

    /// The stand-in for a challenge: for one of the relay, the corresponding one of its shadow; otherwise one that
    /// nobody made.
    fn challenge(&self, challenge: &Challenge) -> Challenge {
        let made = self.challenges.as_ref().and_then(|(real, shadow)| real.translate(challenge, shadow));
        let nobodys = || Challenge::parse(&alloc::vec![b'x'; challenge.as_bytes().len()]);
        made.or_else(nobodys).unwrap_or(*challenge)
    }

    /// The stand-in for a token that is bound to a time.
    fn timed_token(&self, registration: &Registration<'_>, wall: u64) -> Vec<u8> {
        let keys = self.keys.get(&registration.id);
        match registration.token {
            Token::Plain(digits) => {
                let step = keys.and_then(|keys| Some((keys, keys.real.check_plain(wall, digits)?)));
                let step = step.filter(|(keys, step)| !self.is_used(registration.id, keys, *step, [0; 16]));
                if let Some((keys, step)) = step {
                    return keys.stand_in.plain(step).as_bytes().to_vec();
                }
                let is_wrong = |token: &Vec<u8>| {
                    keys.is_none_or(|keys| keys.stand_in.check_plain(wall, token).is_none())
                };
                // At most three are valid.
                let wrong = (b'0'..=b'9').map(|digit| alloc::vec![digit; digits.len()]).find(is_wrong);
                wrong.unwrap_or_default()
            }
            Token::Bound { response, nonce } => {
                let step = keys.and_then(|keys| Some((keys, keys.real.check_bound(wall, nonce, &response)?)));
                let step = step.filter(|(keys, step)| !self.is_used(registration.id, keys, *step, response));
                let token = step.map_or([0; 16], |(keys, step)| keys.stand_in.bound(step, nonce));
                HEXLOWER.encode(&token).into_bytes()
            }
            Token::Challenged { .. } => Vec::new(),
        }
    }
}
