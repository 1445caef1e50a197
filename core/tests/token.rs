//! Tokens: the vectors of RFC 4226 and RFC 6238, bound tokens, the window, and what a key does not reveal.

use data_encoding::HEXLOWER;
use rendezvous_core::token::{Algorithm, Key, KeyError};

const NONCE: &[u8] = b"abcdefghijklmnop-_09AZ";
/// A second in the middle of step 37037036.
const WALL: u64 = 1_111_111_109;
const STEP: u64 = 37_037_036;

/// The secrets of RFC 6238 Appendix B: the digits 1 to 9 and 0 repeated, as long as the hash.
fn key(algorithm: Algorithm, digits: u8) -> Key {
    let len = match algorithm {
        Algorithm::Sha1 => 20,
        Algorithm::Sha256 => 32,
        Algorithm::Sha512 => 64,
    };
    let secret = b"1234567890".iter().copied().cycle().take(len).collect();
    Key::new(secret, algorithm, digits, Key::PERIOD_SECS).unwrap()
}

fn text(key: &Key, step: u64) -> String {
    let plain = key.plain(step);
    assert_eq!(plain.as_ref(), plain.as_bytes());
    String::from_utf8(plain.as_bytes().to_vec()).unwrap()
}

#[test]
fn plain_tokens_are_those_of_rfc_4226_appendix_d() {
    let key = key(Algorithm::Sha1, 6);
    let expected =
        ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
    for (step, expected) in (0..).zip(expected) {
        assert_eq!(text(&key, step), expected, "count {step}");
    }
}

#[test]
fn plain_tokens_are_those_of_rfc_6238_appendix_b() {
    for (wall, sha1, sha256, sha512) in [
        (59, "94287082", "46119246", "90693936"),
        (1_111_111_109, "07081804", "68084774", "25091201"),
        (1_111_111_111, "14050471", "67062674", "99943326"),
        (1_234_567_890, "89005924", "91819424", "93441116"),
        (2_000_000_000, "69279037", "90698825", "38618901"),
        (20_000_000_000, "65353130", "77737706", "47863826"),
    ] {
        for (algorithm, expected) in
            [(Algorithm::Sha1, sha1), (Algorithm::Sha256, sha256), (Algorithm::Sha512, sha512)]
        {
            let key = key(algorithm, 8);
            assert_eq!(text(&key, key.step(wall)), expected, "{algorithm:?} at {wall}");
        }
    }
}

#[test]
fn ten_digits_hold_all_31_bits_and_zeroes_in_front() {
    // The truncated values of RFC 4226 Appendix D.
    let key = key(Algorithm::Sha1, 10);
    assert_eq!([0, 1, 2].map(|step| text(&key, step)), ["1284755224", "1094287082", "0137359152"]);
}

#[test]
fn bound_tokens_are_the_front_of_the_hash_of_step_and_nonce() {
    for (algorithm, expected) in [
        (Algorithm::Sha1, "98ed0ab89df21edbac50b7484aa72773"),
        (Algorithm::Sha256, "630bddc337bd322bdcc3a49575c2bdac"),
        (Algorithm::Sha512, "819c48faa8fd3d27a46fe2c207970a6e"),
    ] {
        assert_eq!(HEXLOWER.encode(&key(algorithm, 8).bound(STEP, NONCE)), expected, "{algorithm:?}");
    }
}

#[test]
fn the_step_is_the_time_in_whole_periods() {
    let key = key(Algorithm::Sha256, 8);
    assert_eq!([0, 29, 30, 59, 60].map(|wall| key.step(wall)), [0, 0, 1, 1, 2]);
    assert_eq!(key.step(WALL), STEP);
}

#[test]
fn a_plain_token_fits_its_own_step_and_the_two_beside_it() {
    let key = key(Algorithm::Sha256, 8);
    let token = key.plain(STEP);
    let at = |wall| key.check_plain(wall, token.as_bytes());
    assert_eq!(at(STEP * 30 - 31), None);
    assert_eq!(at(STEP * 30 - 30), Some(STEP));
    assert_eq!(at(STEP * 30), Some(STEP));
    assert_eq!(at(STEP * 30 + 59), Some(STEP));
    assert_eq!(at(STEP * 30 + 60), None);
}

#[test]
fn a_bound_token_fits_its_own_step_and_the_two_beside_it() {
    let key = key(Algorithm::Sha512, 8);
    let token = key.bound(STEP, NONCE);
    let at = |wall| key.check_bound(wall, NONCE, &token);
    assert_eq!(at(STEP * 30 - 31), None);
    assert_eq!(at(STEP * 30 - 30), Some(STEP));
    assert_eq!(at(STEP * 30), Some(STEP));
    assert_eq!(at(STEP * 30 + 59), Some(STEP));
    assert_eq!(at(STEP * 30 + 60), None);
}

#[test]
fn the_first_and_the_last_step_have_one_neighbour() {
    let key = Key::new(b"secret".to_vec(), Algorithm::Sha1, 6, 1).unwrap();
    for (wall, fitting, other) in [(0, 1, u64::MAX), (u64::MAX, u64::MAX - 1, 0)] {
        assert_eq!(key.check_plain(wall, key.plain(wall).as_bytes()), Some(wall));
        assert_eq!(key.check_plain(wall, key.plain(fitting).as_bytes()), Some(fitting));
        assert_eq!(key.check_plain(wall, key.plain(other).as_bytes()), None);
        assert_eq!(key.check_bound(wall, NONCE, &key.bound(fitting, NONCE)), Some(fitting));
        assert_eq!(key.check_bound(wall, NONCE, &key.bound(other, NONCE)), None);
    }
}

#[test]
fn a_token_that_fits_two_steps_counts_for_the_current_one() {
    // Six digits are few: with this secret two consecutive steps have the same token.
    let key = key(Algorithm::Sha1, 6);
    assert_eq!([910_737, 910_738].map(|step| text(&key, step)), ["911617", "911617"]);
    assert_eq!(key.check_plain(910_737 * 30, b"911617"), Some(910_737));
    assert_eq!(key.check_plain(910_738 * 30, b"911617"), Some(910_738));
}

#[test]
fn a_token_with_one_digit_changed_does_not_fit() {
    let key = key(Algorithm::Sha256, 8);
    for at in 0..8 {
        let mut token = key.plain(STEP).as_bytes().to_vec();
        token[at] = if token[at] == b'9' { b'0' } else { token[at] + 1 };
        assert_eq!(key.check_plain(WALL, &token), None, "digit {at}");
    }
}

#[test]
fn a_plain_token_of_another_length_does_not_fit() {
    let key = key(Algorithm::Sha256, 8);
    let token = key.plain(STEP).as_bytes().to_vec();
    for other in [
        b"".to_vec(),
        token[..7].to_vec(),
        token[1..].to_vec(),
        [&token[..], b"\0"].concat(),
        [&token[..], b"00"].concat(),
        [&token[..], b"\0\0\0\0\0\0\0\0"].concat(),
        [b"0", &token[..]].concat(),
    ] {
        assert_eq!(key.check_plain(WALL, &other), None, "{other:?}");
    }
}

#[test]
fn a_bound_token_with_one_bit_changed_does_not_fit() {
    let key = key(Algorithm::Sha256, 8);
    for bit in 0..128 {
        let mut token = key.bound(STEP, NONCE);
        token[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key.check_bound(WALL, NONCE, &token), None, "bit {bit}");
    }
}

#[test]
fn a_bound_token_does_not_fit_another_nonce() {
    let key = key(Algorithm::Sha256, 8);
    let token = key.bound(STEP, NONCE);
    assert_eq!(key.check_bound(WALL, b"abcdefghijklmnop-_09Az", &token), None);
    assert_eq!(key.check_bound(WALL, b"", &token), None);
}

#[test]
fn a_token_of_another_secret_or_hash_does_not_fit() {
    let key = key(Algorithm::Sha256, 8);
    let other_secret = Key::new(b"another".to_vec(), Algorithm::Sha256, 8, 30).unwrap();
    let other_hash = Key::new(key.secret().to_vec(), Algorithm::Sha512, 8, 30).unwrap();
    for other in [other_secret, other_hash] {
        assert_eq!(key.check_plain(WALL, other.plain(STEP).as_bytes()), None);
        assert_eq!(key.check_bound(WALL, NONCE, &other.bound(STEP, NONCE)), None);
    }
}

#[test]
fn no_token_fits_the_dummy() {
    let dummy = Key::dummy();
    assert_eq!(dummy.check_plain(WALL, dummy.plain(STEP).as_bytes()), None);
    assert_eq!(dummy.check_bound(WALL, NONCE, &dummy.bound(STEP, NONCE)), None);
    // A real key with the same secret accepts them: the dummy refused for no other reason.
    let real = Key::new(dummy.secret().to_vec(), dummy.algorithm(), dummy.digits(), dummy.period()).unwrap();
    assert_eq!(real.check_plain(WALL, dummy.plain(STEP).as_bytes()), Some(STEP));
    assert_ne!(real, dummy);
}

#[test]
fn a_key_keeps_its_limits() {
    let new = |bytes, digits, period| Key::new(vec![b'x'; bytes], Algorithm::Sha1, digits, period);
    for (bytes, digits, period) in [(1, 6, 1), (256, 10, 3_600), (20, 8, 30)] {
        let key = new(bytes, digits, period).unwrap();
        assert_eq!((key.secret().len(), key.digits(), key.period()), (bytes, digits, period));
        assert_eq!(key.algorithm(), Algorithm::Sha1);
    }
    for (bytes, digits, period, expected) in [
        (0, 8, 30, KeyError::Secret),
        (257, 8, 30, KeyError::Secret),
        (20, 5, 30, KeyError::Digits),
        (20, 11, 30, KeyError::Digits),
        (20, 8, 0, KeyError::Period),
        (20, 8, 3_601, KeyError::Period),
    ] {
        assert_eq!(new(bytes, digits, period), Err(expected), "{bytes} {digits} {period}");
    }
    let texts = [KeyError::Secret, KeyError::Digits, KeyError::Period].map(|error| error.to_string());
    assert_eq!(
        texts,
        [
            "the secret must have 1 to 256 bytes",
            "the digits must be 6 to 10",
            "the period must be 1 to 3600 seconds"
        ]
    );
}

#[test]
fn debug_shows_neither_secret_nor_token() {
    let key = Key::new(b"hunter2hunter2".to_vec(), Algorithm::Sha1, 6, 30).unwrap();
    let shown = format!("{key:?} {:?}", key.plain(STEP));
    assert!(shown.contains("Sha1") && shown.contains("Plain { digits: 6"), "{shown}");
    for hidden in ["hunter2", "104, 117, 110", &text(&key, STEP)] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

#[test]
fn keys_are_equal_when_all_of_them_is() {
    let new =
        |secret: &[u8], digits, period| Key::new(secret.to_vec(), Algorithm::Sha1, digits, period).unwrap();
    let key = new(b"secret", 8, 30);
    assert_eq!(key, key.clone());
    for other in [new(b"secreT", 8, 30), new(b"secret2", 8, 30), new(b"secret", 6, 30), new(b"secret", 8, 60)]
    {
        assert_ne!(key, other);
    }
}

#[test]
fn algorithms_are_read_by_name_in_any_case() {
    for algorithm in [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512] {
        assert_eq!(Algorithm::parse(algorithm.name()), Some(algorithm));
        assert_eq!(Algorithm::parse(&algorithm.name().to_lowercase()), Some(algorithm));
    }
    for name in ["", "SHA", "SHA224", "SHA-1", "MD5"] {
        assert_eq!(Algorithm::parse(name), None, "{name:?}");
    }
}
