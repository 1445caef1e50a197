//! Challenges of the relay. A token that is bound to one proves possession of the secret without a clock.
//!
//! # On the wire
//!
//! ```text
//! HTTP/1.1 401 Unauthorized
//! Rendezvous-Challenge: C
//!
//! CONNECT uuid:ID?response=TKN&nonce=N&challenge=C HTTP/1.1
//! Rendezvous-Challenge: next
//!
//! HTTP/1.1 200 OK
//! Rendezvous-Challenge: C2
//! ```
//!
//! * The relay puts the field into every 401, 407 and 429 to a CONNECT, and into the 200 of a registration whose
//!   token was bound to a challenge or which has a `Rendezvous-Challenge` field itself. The response to a plain token
//!   is always the bare 200.
//! * C is 16 to 64 of `A-Z a-z 0-9 - _`, and opaque to the hidden server. N has the same form and is fresh for every
//!   connection.
//! * TKN is 32 lower-case hexadecimal digits: the first 16 bytes of HMAC(secret, [`LABEL`] ‖ C ‖ 0x00 ‖ N), with the
//!   hash of the ID. No other token is a MAC over such a message: a plain token's message has 8 bytes, and that of a
//!   token bound to a time step has 8 bytes and then a nonce, which contains no zero byte.
//! * The relay accepts each (ID, C, N) once, during the lifetime of C, 60 to 120 s. Several connections may use one
//!   challenge, each with a nonce of its own.
//!
//! # Security
//!
//! An attacker that is not the relay can make up challenges and collect tokens over them. The relay accepts none of
//! these, since it verifies that it made the challenge itself; its key is new with each start. A man in the middle
//! that fetches a challenge from the relay and passes it on can use the one token that it gets for it, once, during
//! the lifetime of C. There are no tokens for later times.

use core::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::entropy::Entropy;
use crate::time::Time;

/// The beginning of the message of a token over a challenge.
pub const LABEL: &[u8] = b"rendezvous challenge\0";

/// The field that carries a challenge, and that asks for one.
pub const FIELD: &str = "Rendezvous-Challenge";

/// The length of a step in seconds. A challenge is valid in the step in which it was made and in the next one.
const STEP_SECS: u64 = 60;

const RANDOM_BYTES: usize = 12;
const MAC_BYTES: usize = 16;
const BYTES: usize = 4 + RANDOM_BYTES + MAC_BYTES;

/// A challenge as it is on the wire. Its origin and age are not known here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// Zeroes follow the text.
    text: [u8; Self::LEN_MAX],
    len: u8,
}

impl Challenge {
    /// The minimum length in bytes.
    pub const LEN_MIN: usize = 16;
    /// The maximum length in bytes.
    pub const LEN_MAX: usize = 64;

    /// Parses a challenge; `None` if it is not 16 to 64 of `A-Z a-z 0-9 - _`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_byte = |it: &u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
        if !(Self::LEN_MIN..=Self::LEN_MAX).contains(&text.len()) || !text.iter().all(is_byte) {
            return None;
        }
        let mut bytes = [0; Self::LEN_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Some(Self { text: bytes, len: u8::try_from(text.len()).ok()? })
    }

    /// The challenge's text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge({self})")
    }
}

/// Makes and verifies challenges, without state for each one.
///
/// A challenge is the number of its time step, 12 random bytes, and a MAC over both with a key of this process.
#[derive(Clone)]
pub struct ChallengeKey {
    keyed: Hmac<Sha256>,
    random: Entropy,
}

impl ChallengeKey {
    /// Derives the key of a relay from its seed. Other values derived from the seed reveal nothing about it.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let seed = Entropy::new(seed);
        let key = seed.derive(b"key of the challenges to hidden servers");
        let keyed =
            Hmac::new_from_slice(&key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        Self { keyed, random: Entropy::new(seed.derive(b"random part of the challenges to hidden servers")) }
    }

    /// A fresh challenge.
    pub fn issue(&mut self, now: Time) -> Challenge {
        let mut random = [0; RANDOM_BYTES];
        random.copy_from_slice(&self.random.half_block()[..RANDOM_BYTES]);
        self.seal(step(now), random)
    }

    /// When a challenge expires, in seconds of the monotonic clock; `None` if this key did not make it, or if it has
    /// expired. The time does not depend on the challenge's contents.
    #[must_use]
    pub fn check(&self, challenge: &Challenge, now: Time) -> Option<u64> {
        let (made, _) = self.open(challenge)?;
        let is_live = u64::from(step(now).wrapping_sub(made)) <= 1;
        is_live.then(|| (u64::from(made) + 2) * STEP_SECS)
    }

    /// The challenge that `other` would have made instead of this one; `None` if this key did not make it.
    #[cfg(feature = "trace")]
    pub(crate) fn translate(&self, challenge: &Challenge, other: &Self) -> Option<Challenge> {
        self.open(challenge).map(|(step, random)| other.seal(step, random))
    }

    fn seal(&self, step: u32, random: [u8; RANDOM_BYTES]) -> Challenge {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&step.to_be_bytes());
        bytes[4..4 + RANDOM_BYTES].copy_from_slice(&random);
        let mac = self.mac(&bytes[..4 + RANDOM_BYTES]);
        bytes[4 + RANDOM_BYTES..].copy_from_slice(&mac);
        let text = BASE64URL_NOPAD.encode(&bytes);
        Challenge::parse(text.as_bytes()).unwrap_or_else(|| unreachable!("32 bytes are 43 characters"))
    }

    /// The step and the random part of a challenge of this key.
    fn open(&self, challenge: &Challenge) -> Option<(u32, [u8; RANDOM_BYTES])> {
        let bytes = BASE64URL_NOPAD.decode(challenge.as_bytes()).ok()?;
        let (front, mac) = bytes.split_at_checked(4 + RANDOM_BYTES)?;
        let is_ours = bool::from(self.mac(front).ct_eq(mac));
        let (step, random) = front.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*step), random.try_into().ok()?)).filter(|_| is_ours)
    }

    fn mac(&self, front: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = self.keyed.clone();
        mac.update(front);
        let mut bytes = [0; MAC_BYTES];
        bytes.copy_from_slice(&mac.finalize().into_bytes()[..MAC_BYTES]);
        bytes
    }
}

impl fmt::Debug for ChallengeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChallengeKey").finish_non_exhaustive()
    }
}

/// The number of the time step. It follows the monotonic clock, so that setting the wall clock expires no challenge.
fn step(now: Time) -> u32 {
    // 2³² steps are more than 8000 years.
    u32::try_from(now.0 / (STEP_SECS * 1_000_000) % (1 << 32)).unwrap_or(0)
}
