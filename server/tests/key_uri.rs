//! Key URIs.

use rendezvous::key_uri::{decode_secret, encode_secret, parse, print};
use rendezvous_core::token::{Algorithm, Key};

const UUID: &str = "2f402f80-da50-41e1-9b23-0123456789ab";

fn uri(query: &str) -> String {
    format!("otpauth://totp/rendezvous:{UUID}?{query}")
}

fn refusal(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn what_is_printed_is_read_again() {
    for (algorithm, name) in
        [(Algorithm::Sha1, "SHA1"), (Algorithm::Sha256, "SHA256"), (Algorithm::Sha512, "SHA512")]
    {
        let text = uri(&format!("secret=JBSWY3DPEHPK3PXP&algorithm={name}&digits=10&period=3600"));
        let (id, key) = parse(&text).unwrap();
        assert_eq!((key.algorithm(), key.digits(), key.period()), (algorithm, 10, 3600));
        assert_eq!(*print(id, &key), text);
    }
    for length in 1..=256 {
        let secret: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
        assert_eq!(*decode_secret(&encode_secret(&secret)).unwrap(), secret);
    }
}

#[test]
fn what_is_absent_is_what_the_key_uri_format_says() {
    let (_, key) = parse(&uri("secret=JBSWY3DPEHPK3PXP")).unwrap();
    assert_eq!((key.algorithm(), key.digits(), key.period()), (Algorithm::Sha1, 6, 30));
}

#[test]
fn what_other_programs_write_is_read() {
    let same = parse(&uri("secret=JBSWY3DPEHPK3PXPJA")).unwrap();
    for text in [
        uri("secret=jbswy3dpehpk3pxpja"),
        uri("secret=JBSWY3DPEHPK3PXPJA======"),
        uri("secret=JBSWY3DPEHPK3PXPJB%3D%3D"), // with other trailing bits, too
        uri("period=30&issuer=rendezvous&digits=6&image=x&algorithm=sha1&secret=JBSWY3DPEHPK3PXPJA"),
        format!("otpauth://totp/rendezvous%3A%20{UUID}?secret=JBSWY3DPEHPK3PXPJA"),
        format!("otpauth://totp/{}?secret=JBSWY3DPEHPK3PXPJA", UUID.to_uppercase()),
        format!("OTPAUTH://TOTP/Rendezvous:{UUID}?secret=JBSWY3DPEHPK3PXPJA"),
    ] {
        assert_eq!(parse(&text).unwrap(), same, "{text}");
    }
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    assert_eq!(refusal(&uri("digits=8")), "not a Key URI: missing 'secret'");
    assert_eq!(refusal(&uri("secret=")), "not a Key URI: missing 'secret'");
    assert_eq!(refusal(&uri("secret=AA&secret=AA")), "not a Key URI: 'secret' is repeated");
    assert_eq!(refusal(&uri("secret=A1")), "not a Key URI: 'secret' must be BASE32");
    assert_eq!(refusal(&uri("secret=A")), "not a Key URI: 'secret' must be BASE32");
    assert!(refusal(&uri(&format!("secret={}", "A".repeat(424)))).contains("1 to 256 bytes"));
    assert!(refusal(&uri("secret=AA&algorithm=MD5")).contains("'algorithm' must be SHA1, SHA256 or SHA512"));
    for digits in ["5", "11", "", "+8", "256", "x"] {
        assert!(refusal(&uri(&format!("secret=AA&digits={digits}"))).contains("'digits'"), "{digits}");
    }
    for period in ["0", "3601", "-1", "99999999999"] {
        assert!(refusal(&uri(&format!("secret=AA&period={period}"))).contains("'period'"), "{period}");
    }
    assert!(refusal(&uri("secret=AA&digit=8")).contains("unknown parameter"));
    for scheme in ["", "x", "otpauth://hotp/x?secret=AA", "otpauth://totp", "ötpauth://totp/", "https://x"] {
        assert!(refusal(scheme).contains("it must begin with otpauth://totp/"), "{scheme}");
    }
    for label in ["", "rendezvous:", "other:2f402f80-da50-41e1-9b23-0123456789ab", "rendezvous:2f402f80"] {
        assert!(
            refusal(&format!("otpauth://totp/{label}?secret=AA"))
                .contains("must be followed by 'rendezvous:' and a UUID"),
            "{label}"
        );
    }
}

#[test]
fn a_secret_is_in_no_error_and_in_no_debug_output() {
    let secret = "JBSWY3DPEHPK3PXP";
    let (_, key) = parse(&uri(&format!("secret={secret}"))).unwrap();
    let bytes = format!("{:?}", key.secret());
    assert!(!format!("{key:?}").contains(&bytes));
    for text in [
        uri(&format!("secret={secret}1")),
        uri(&format!("secret={secret}&digits={secret}")),
        uri(&format!("secrets={secret}")),
        uri(secret),
        format!("otpauth://totp/{secret}"),
        secret.to_owned(),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(!error.to_string().contains(secret) && !format!("{error:?}").contains(secret), "{error}");
    }
    assert!(Key::new(Vec::new(), Algorithm::Sha1, 6, 30).is_err());
}
