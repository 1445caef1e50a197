//! Tokens, with which a hidden server authenticates for an ID: time-based ones (RFC 6238), plain or bound to a nonce,
//! and ones over a challenge of the relay.
//!
//! A *plain* token is the number that authenticator apps show: HOTP (RFC 4226) of the time step. A *bound* token is a
//! truncated HMAC of the time step and a nonce of the hidden server, valid for one connection. A token *over a
//! challenge* is a truncated HMAC of the relay's challenge and a nonce, and needs no clock: see [`challenge`]. The
//! registry, not this module, remembers used tokens.

use alloc::vec::Vec;
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

pub use self::challenge::{Challenge, ChallengeKey};

pub mod challenge;

/// The maximum number of digits of a plain token: dynamic truncation leaves 31 bits (RFC 4226 §5.3), ten decimal
/// digits.
pub const DIGITS_MAX: u8 = 10;

/// The length of a bound token in bytes; 32 hexadecimal digits on the wire.
pub const BOUND_BYTES: usize = 16;

/// The hash of the HMAC (RFC 6238 §1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// HMAC-SHA-1, which hidden servers written for node-rendezvous use.
    Sha1,
    /// HMAC-SHA-256.
    #[default]
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name in a Key URI: `SHA1`, `SHA256`, `SHA512`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }

    /// The algorithm of that name, case-insensitively; `None` if there is none.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha512].into_iter().find(|it| it.name().eq_ignore_ascii_case(name))
    }
}

/// Why a [`Key`] is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The secret is empty or longer than [`Key::SECRET_BYTES_MAX`].
    Secret,
    /// The number of digits is not 6 to 10.
    Digits,
    /// The period is zero or longer than [`Key::PERIOD_SECS_MAX`].
    Period,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "the secret must have 1 to 256 bytes",
            Self::Digits => "the digits must be 6 to 10",
            Self::Period => "the period must be 1 to 3600 seconds",
        })
    }
}

impl core::error::Error for KeyError {}

/// The secret that a hidden server and one relay share for an ID, with the parameters of its tokens.
///
/// The secret is zeroed on drop, hidden from `Debug`, and compared in constant time.
#[derive(Clone)]
pub struct Key {
    secret: Zeroizing<Vec<u8>>,
    algorithm: Algorithm,
    digits: u8,
    period: u32,
    /// False for the dummy key, which does all the work and then refuses.
    usable: bool,
}

impl Key {
    /// The default number of digits of a plain token.
    pub const DIGITS: u8 = 8;
    /// The default time step, in seconds (RFC 6238 §5.2).
    pub const PERIOD_SECS: u32 = 30;
    /// The maximum time step, in seconds.
    pub const PERIOD_SECS_MAX: u32 = 3_600;
    /// The maximum length of a secret, in bytes.
    pub const SECRET_BYTES_MAX: usize = 256;

    /// Makes a key. `secret` has 1 to 256 bytes, `digits` is 6 to 10, `period` is 1 to 3600 seconds.
    ///
    /// The minimum length of a secret (RFC 4226 §4 R6: 16 bytes) is checked when an ID is enrolled. A shorter one is
    /// accepted here, so that old hidden servers stay usable.
    ///
    /// # Errors
    ///
    /// The first limit that is violated. The secret is zeroed then as well.
    pub fn new(secret: Vec<u8>, algorithm: Algorithm, digits: u8, period: u32) -> Result<Self, KeyError> {
        let secret = Zeroizing::new(secret);
        if secret.is_empty() || secret.len() > Self::SECRET_BYTES_MAX {
            return Err(KeyError::Secret);
        }
        if !(6..=DIGITS_MAX).contains(&digits) {
            return Err(KeyError::Digits);
        }
        if !(1..=Self::PERIOD_SECS_MAX).contains(&period) {
            return Err(KeyError::Period);
        }
        Ok(Self { secret, algorithm, digits, period, usable: true })
    }

    /// A key that accepts no token, used for unknown IDs. It takes as long as a real one with the default hash,
    /// digits and period, so that the response time does not reveal which IDs are enrolled.
    #[must_use]
    pub fn dummy() -> Self {
        Self {
            secret: Zeroizing::new(alloc::vec![0; 32]),
            algorithm: Algorithm::default(),
            digits: Self::DIGITS,
            period: Self::PERIOD_SECS,
            usable: false,
        }
    }

    /// The secret, for the file that stores it only.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// The hash of the HMAC.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The number of digits of a plain token.
    #[must_use]
    pub const fn digits(&self) -> u8 {
        self.digits
    }

    /// The time step in seconds.
    #[must_use]
    pub const fn period(&self) -> u32 {
        self.period
    }

    /// The time step of the wall clock's second `wall`: T of RFC 6238 §4.2, with T0 = 0.
    #[must_use]
    pub fn step(&self, wall: u64) -> u64 {
        wall / u64::from(self.period)
    }

    /// The plain token of a time step: HOTP (RFC 4226 §5.3) with T as the counter, with leading zeroes.
    #[must_use]
    pub fn plain(&self, step: u64) -> Plain {
        let hash = self.hash(&[&step.to_be_bytes()]);
        let front = usize::from(hash.last() & 0x0f);
        let mut value = 0;
        for byte in &hash.bytes[front..front + 4] {
            // `^` would be equivalent to `|`, since the bits do not overlap.
            value = value << 8 | u64::from(*byte);
        }
        Plain::new(value & 0x7fff_ffff, self.digits)
    }

    /// The bound token of a time step and a nonce: the first 16 bytes of HMAC(secret, T as 8 bytes ‖ nonce).
    #[must_use]
    pub fn bound(&self, step: u64, nonce: &[u8]) -> [u8; BOUND_BYTES] {
        let mut token = [0; BOUND_BYTES];
        token.copy_from_slice(&self.hash(&[&step.to_be_bytes(), nonce]).bytes[..BOUND_BYTES]);
        token
    }

    /// The token over a challenge of the relay and a nonce: the first 16 bytes of HMAC(secret, [`challenge::LABEL`] ‖
    /// challenge ‖ 0x00 ‖ nonce).
    #[must_use]
    pub fn over_challenge(&self, challenge: &Challenge, nonce: &[u8]) -> [u8; BOUND_BYTES] {
        let hash = self.hash(&[challenge::LABEL, challenge.as_bytes(), b"\0", nonce]);
        let mut token = [0; BOUND_BYTES];
        token.copy_from_slice(&hash.bytes[..BOUND_BYTES]);
        token
    }

    /// The time step of a plain token, out of the current one and its two neighbours (RFC 6238 §5.2); `None` if the
    /// token is of none of them. The time depends only on the key.
    #[must_use]
    pub fn check_plain(&self, wall: u64, token: &[u8]) -> Option<u64> {
        let mut given = [0; DIGITS_MAX as usize];
        for (to, from) in given.iter_mut().zip(token) {
            *to = *from;
        }
        let long_enough = choice(token.len() == usize::from(self.digits));
        self.check(wall, |step| self.plain(step).bytes.ct_eq(&given) & long_enough)
    }

    /// The time step of a bound token, out of the current one and its two neighbours; `None` if the token is of none
    /// of them. The time depends only on the key and the nonce's length.
    #[must_use]
    pub fn check_bound(&self, wall: u64, nonce: &[u8], response: &[u8; BOUND_BYTES]) -> Option<u64> {
        self.check(wall, |step| self.bound(step, nonce).ct_eq(response))
    }

    /// Whether a token was made over this challenge and nonce. The time depends only on the key and the lengths.
    /// [`ChallengeKey::check`] verifies the challenge itself.
    #[must_use]
    pub fn check_over_challenge(
        &self,
        challenge: &Challenge,
        nonce: &[u8],
        response: &[u8; BOUND_BYTES],
    ) -> bool {
        let fits = self.over_challenge(challenge, nonce).ct_eq(response);
        bool::from(fits & choice(self.usable))
    }

    /// Tries all three steps in constant time.
    fn check(&self, wall: u64, fits: impl Fn(u64) -> Choice) -> Option<u64> {
        let now = self.step(wall);
        let steps =
            [(now, true), (now.wrapping_sub(1), now > u64::MIN), (now.wrapping_add(1), now < u64::MAX)];
        let mut found = choice(false);
        let mut which = 0;
        for (step, exists) in steps {
            let hit = fits(step) & choice(exists) & choice(self.usable);
            which.conditional_assign(&step, hit & !found);
            found |= hit;
        }
        bool::from(found).then_some(which)
    }

    fn hash(&self, message: &[&[u8]]) -> Hash {
        match self.algorithm {
            Algorithm::Sha1 => hash::<Hmac<Sha1>>(&self.secret, message),
            Algorithm::Sha256 => hash::<Hmac<Sha256>>(&self.secret, message),
            Algorithm::Sha512 => hash::<Hmac<Sha512>>(&self.secret, message),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let same_shape = (self.algorithm, self.digits, self.period, self.usable)
            == (other.algorithm, other.digits, other.period, other.usable);
        same_shape & bool::from(self.secret.ct_eq(&other.secret))
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("algorithm", &self.algorithm)
            .field("digits", &self.digits)
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

/// A plain token: 6 to 10 decimal digits. `Debug` does not show them.
#[derive(Clone)]
pub struct Plain {
    /// Zeroes follow the digits.
    bytes: [u8; DIGITS_MAX as usize],
    digits: u8,
}

impl Plain {
    fn new(mut value: u64, digits: u8) -> Self {
        let mut bytes = [0; DIGITS_MAX as usize];
        for byte in bytes.iter_mut().take(usize::from(digits)).rev() {
            // A remainder of ten fits in any integer type.
            *byte = b'0' + (value % 10) as u8;
            value /= 10;
        }
        Self { bytes, digits }
    }

    /// The digits, as they are sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.digits)]
    }
}

impl AsRef<[u8]> for Plain {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").field("digits", &self.digits).finish_non_exhaustive()
    }
}

/// An HMAC with any of the three hashes: `len` bytes, then zeroes.
struct Hash {
    bytes: [u8; 64],
    len: usize,
}

impl Hash {
    fn last(&self) -> u8 {
        self.bytes[self.len - 1]
    }
}

fn hash<M: Mac + KeyInit>(secret: &[u8], message: &[&[u8]]) -> Hash {
    let mut mac = <M as KeyInit>::new_from_slice(secret).expect("HMAC takes a key of any length");
    for part in message {
        mac.update(part);
    }
    let result = mac.finalize().into_bytes();
    let mut bytes = [0; 64];
    bytes[..result.len()].copy_from_slice(&result);
    Hash { bytes, len: result.len() }
}

fn choice(is: bool) -> Choice {
    Choice::from(u8::from(is))
}
