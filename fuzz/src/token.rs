//! Tokens, against an implementation from the text of the RFCs.

use arbitrary::{Arbitrary, Unstructured};
use rendezvous_core::token::{Algorithm, BOUND_BYTES, Challenge, Key};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

#[derive(Arbitrary, Debug)]
struct Case<'a> {
    algorithm: u8,
    digits: u8,
    period: u16,
    wall: u64,
    /// What is presented besides the correct token.
    guess: &'a [u8],
    bound_guess: [u8; BOUND_BYTES],
    nonce: &'a [u8],
    secret: &'a [u8],
}

pub(crate) fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let algorithm = [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512][usize::from(case.algorithm) % 3];
    let (digits, period) = (6 + case.digits % 5, 1 + u32::from(case.period) % Key::PERIOD_SECS_MAX);
    let fits = (1..=Key::SECRET_BYTES_MAX).contains(&case.secret.len());
    let key = Key::new(case.secret.to_vec(), algorithm, digits, period);
    assert_eq!(key.is_ok(), fits);
    let Ok(key) = key else { return };
    let now = case.wall / u64::from(period);
    assert_eq!(key.step(case.wall), now);
    // The current step is checked first, then the one before, then the one after.
    let window: Vec<u64> =
        [Some(now), now.checked_sub(1), now.checked_add(1)].into_iter().flatten().collect();
    let plain = |step: u64| plain(&mac(algorithm, case.secret, &step.to_be_bytes()), digits);
    let bound = |step: u64| {
        let mac = mac(algorithm, case.secret, &[&step.to_be_bytes(), case.nonce].concat());
        <[u8; BOUND_BYTES]>::try_from(&mac[..BOUND_BYTES]).expect("no hash is shorter")
    };
    for step in window.iter().copied().chain([now.saturating_sub(2), now.saturating_add(2), 0]) {
        assert_eq!(key.plain(step).as_bytes(), plain(step).as_bytes());
        assert_eq!(key.bound(step, case.nonce), bound(step));
    }
    let presented = window.iter().copied().chain([now.saturating_sub(2), now.saturating_add(2)]);
    let mut guesses: Vec<Vec<u8>> = presented.clone().map(|step| plain(step).into_bytes()).collect();
    guesses.push(case.guess.to_vec());
    for guess in guesses {
        let wanted = window.iter().copied().find(|step| plain(*step).as_bytes() == guess);
        assert_eq!(key.check_plain(case.wall, &guess), wanted);
        assert_eq!(Key::dummy().check_plain(case.wall, &guess), None);
    }
    if let Some(challenge) = Challenge::parse(case.guess) {
        let message = [b"rendezvous challenge\0", case.guess, b"\0", case.nonce].concat();
        let mac = mac(algorithm, case.secret, &message);
        let token = <[u8; BOUND_BYTES]>::try_from(&mac[..BOUND_BYTES]).expect("no hash is shorter");
        for guess in [token, case.bound_guess] {
            let fits = key.check_over_challenge(&challenge, case.nonce, &guess);
            assert_eq!(fits, guess == token);
            assert!(!Key::dummy().check_over_challenge(&challenge, case.nonce, &guess));
        }
        assert_eq!(key.check_bound(case.wall, case.nonce, &token), None, "one kind is no other");
    }
    for guess in presented.map(bound).chain([case.bound_guess]) {
        let wanted = window.iter().copied().find(|step| bound(*step) == guess);
        assert_eq!(key.check_bound(case.wall, case.nonce, &guess), wanted);
        assert_eq!(Key::dummy().check_bound(case.wall, case.nonce, &guess), None);
    }
}

/// RFC 4226 §5.3, with the arithmetic of its example.
fn plain(mac: &[u8], digits: u8) -> String {
    let front = usize::from(mac[mac.len() - 1] & 15);
    let word = u32::from_be_bytes([mac[front], mac[front + 1], mac[front + 2], mac[front + 3]]) & 0x7fff_ffff;
    let value = u64::from(word) % 10_u64.pow(u32::from(digits));
    format!("{value:0width$}", width = usize::from(digits))
}

fn mac(algorithm: Algorithm, secret: &[u8], text: &[u8]) -> Vec<u8> {
    match algorithm {
        Algorithm::Sha1 => hmac(64, |bytes| Sha1::digest(bytes).to_vec(), secret, text),
        Algorithm::Sha256 => hmac(64, |bytes| Sha256::digest(bytes).to_vec(), secret, text),
        Algorithm::Sha512 => hmac(128, |bytes| Sha512::digest(bytes).to_vec(), secret, text),
    }
}

/// RFC 2104 §2: H(K XOR opad, H(K XOR ipad, text)).
fn hmac(block: usize, hash: impl Fn(&[u8]) -> Vec<u8>, secret: &[u8], text: &[u8]) -> Vec<u8> {
    let mut key = if secret.len() > block { hash(secret) } else { secret.to_vec() };
    key.resize(block, 0);
    let pad = |with: u8| key.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = hash(&[&pad(0x36), text].concat());
    hash(&[pad(0x5c), inner].concat())
}
