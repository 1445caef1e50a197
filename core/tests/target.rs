//! The hidden server that a target or a `Host` names.

use rendezvous_core::http::reply::Status;
use rendezvous_core::http::target::{
    Registration, TargetError, Token, label, registration, rendezvous_parameter,
};
use rendezvous_core::id::Id;

const ID: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
const UUID: &str = "2f402f80-da50-41e1-9b23-0123456789ab";
const HEX: &str = "630bddc337bd322bdcc3a49575c2bdac";
const RESPONSE: [u8; 16] =
    [0x63, 0x0b, 0xdd, 0xc3, 0x37, 0xbd, 0x32, 0x2b, 0xdc, 0xc3, 0xa4, 0x95, 0x75, 0xc2, 0xbd, 0xac];
const NONCE: &str = "abcdefghijkl-_09";

fn of_query(query: &str) -> Result<Token<'static>, TargetError> {
    let target = format!("uuid:{UUID}?{query}").leak();
    registration(target).map(|it| {
        assert_eq!(it.id, ID);
        it.token
    })
}

#[test]
fn a_plain_token_has_six_to_ten_digits() {
    for digits in ["123456", "0123456", "00000000", "999999999", "1234567890"] {
        assert_eq!(of_query(&format!("response={digits}")), Ok(Token::Plain(digits.as_bytes())));
    }
    for other in ["", "1", "12345", "12345678901", "12345a", "+12345", "-12345", "%3123456", "12345 ", HEX] {
        assert_eq!(of_query(&format!("response={other}")), Err(TargetError::Malformed), "{other:?}");
    }
}

#[test]
fn a_bound_token_has_32_hexadecimal_digits_of_lower_case() {
    let with = |response: &str| of_query(&format!("response={response}&nonce={NONCE}"));
    assert_eq!(with(HEX), Ok(Token::Bound { response: RESPONSE, nonce: NONCE.as_bytes() }));
    let upper = HEX.to_uppercase();
    for other in [
        "",
        "123456",
        "12345678",
        &HEX[1..],
        &format!("{HEX}0"),
        &format!("{HEX}00"),
        &upper,
        &HEX.replace('6', "g"),
    ] {
        assert_eq!(with(other), Err(TargetError::Malformed), "{other:?}");
    }
}

#[test]
fn a_nonce_has_16_to_64_characters_that_need_no_escape() {
    let with = |nonce: &str| of_query(&format!("response={HEX}&nonce={nonce}"));
    for nonce in ["a".repeat(16), "Z".repeat(64), "0123456789-_azAZ".to_owned()] {
        assert_eq!(
            with(&nonce),
            Ok(Token::Bound { response: RESPONSE, nonce: nonce.clone().leak().as_bytes() })
        );
    }
    for other in [
        String::new(),
        "a".repeat(15),
        "a".repeat(65),
        format!("{}.", "a".repeat(16)),
        format!("{}%41", "a".repeat(16)),
        format!("{}=", "a".repeat(16)),
        format!("{}+", "a".repeat(16)),
    ] {
        assert_eq!(with(&other), Err(TargetError::Malformed), "{other:?}");
    }
}

#[test]
fn the_order_of_the_parameters_is_free_and_unknown_ones_are_ignored() {
    let bound = Ok(Token::Bound { response: RESPONSE, nonce: NONCE.as_bytes() });
    assert_eq!(of_query(&format!("nonce={NONCE}&response={HEX}")), bound);
    assert_eq!(of_query(&format!("v=1&nonce={NONCE}&&x&x&response={HEX}&y==")), bound);
    assert_eq!(of_query("Response=1&response=123456&responses=2&NONCE=3"), Ok(Token::Plain(b"123456")));
}

#[test]
fn a_second_response_or_nonce_is_malformed() {
    for query in [
        "response=123456&response=123456".to_owned(),
        "response=123456&response".to_owned(),
        format!("response={HEX}&nonce={NONCE}&nonce={NONCE}"),
        format!("nonce={NONCE}&nonce={NONCE}"),
    ] {
        assert_eq!(of_query(&query), Err(TargetError::Malformed), "{query}");
    }
}

#[test]
fn a_response_without_value_is_malformed() {
    for query in ["response", "response=", "response&nonce=abcdefghijkl-_09"] {
        assert_eq!(of_query(query), Err(TargetError::Malformed), "{query}");
    }
}

#[test]
fn a_target_without_response_is_told_to_authenticate() {
    for target in [
        format!("uuid:{UUID}"),
        format!("uuid:{UUID}?"),
        format!("uuid:{UUID}?token=123456"),
        format!("uuid:{UUID}?nonce={NONCE}"),
        format!("uuid:{UUID}?RESPONSE=123456"),
    ] {
        assert_eq!(registration(&target), Err(TargetError::NoResponse), "{target}");
    }
}

#[test]
fn scheme_and_id_have_no_case() {
    for target in
        [format!("UUID:{UUID}?response=123456"), format!("Uuid:{}?response=123456", UUID.to_uppercase())]
    {
        assert_eq!(
            registration(&target),
            Ok(Registration { id: ID, token: Token::Plain(b"123456"), takes_raw: false })
        );
    }
}

#[test]
fn any_other_target_is_forbidden() {
    for target in [
        "example.com:443",
        "/",
        "*",
        "",
        "uuid",
        "uui",
        "http://example.com/",
        &format!("urn:uuid:{UUID}?response=123456"),
        &format!("{UUID}?response=123456"),
        &format!("uuid%3a{UUID}?response=123456"),
        "ééé",
    ] {
        assert_eq!(registration(target), Err(TargetError::NotUuid), "{target}");
    }
}

#[test]
fn an_id_in_another_form_is_a_bad_request() {
    for id in [
        "",
        "home",
        "2f402f80da5041e19b230123456789ab",
        "{2f402f80-da50-41e1-9b23-0123456789ab}",
        "//2f402f80-da50-41e1-9b23-0123456789ab",
        "2f402f80-da50-41e1-9b23-0123456789a%62",
        "2f402f80-da50-41e1-9b23-0123456789ab/",
    ] {
        assert_eq!(registration(&format!("uuid:{id}?response=123456")), Err(TargetError::BadId), "{id}");
    }
}

#[test]
fn what_is_wrong_first_is_what_is_answered() {
    assert_eq!(registration("http:nonsense"), Err(TargetError::NotUuid));
    assert_eq!(registration("uuid:nonsense"), Err(TargetError::BadId));
}

#[test]
fn every_target_error_has_its_status() {
    assert_eq!(TargetError::NotUuid.status(), Status::Forbidden403);
    assert_eq!(TargetError::BadId.status(), Status::BadRequest400);
    assert_eq!(TargetError::NoResponse.status(), Status::ProxyAuthRequired407);
    assert_eq!(TargetError::Malformed.status(), Status::BadRequest400);
}

#[test]
fn debug_does_not_show_a_token() {
    let target = format!("uuid:{UUID}?response={HEX}&nonce={NONCE}");
    let shown = format!("{:?}", [registration(&target).unwrap().token, Token::Plain(b"123456")]);
    assert_eq!(shown, "[Bound(..), Plain(..)]");
}

#[test]
fn a_browser_names_the_hidden_server_in_the_query() {
    for target in [
        format!("/?rendezvous={UUID}"),
        format!("/chat?room=1&rendezvous={UUID}&x"),
        format!("https://relay.example.com/chat?rendezvous={}", UUID.to_uppercase()),
        format!("/?a?&rendezvous={UUID}"),
    ] {
        assert_eq!(rendezvous_parameter(&target), Some(ID), "{target}");
    }
}

#[test]
fn a_rendezvous_parameter_counts_only_once_and_as_a_uuid() {
    for target in [
        "/".to_owned(),
        "/?".to_owned(),
        "*".to_owned(),
        "/?rendezvous".to_owned(),
        "/?rendezvous=".to_owned(),
        "/?rendezvous=home".to_owned(),
        format!("/rendezvous={UUID}"),
        format!("/?xrendezvous={UUID}"),
        format!("/?Rendezvous={UUID}"),
        format!("/?rendezvous={UUID}&rendezvous={UUID}"),
        format!("/?rendezvous={UUID}&rendezvous=x"),
        format!("/?rendezvous={UUID}/"),
        format!("/?rendezvous=%32{}", &UUID[1..]),
    ] {
        assert_eq!(rendezvous_parameter(&target), None, "{target}");
    }
}

#[test]
fn a_label_is_what_stands_before_the_domain() {
    for (host, domain, expected) in [
        ("home.relay.example.com", "relay.example.com", "home"),
        ("home.relay.example.com:8443", "relay.example.com", "home"),
        ("home.relay.example.com:", "relay.example.com", "home"),
        ("home.relay.example.com.", "relay.example.com", "home"),
        ("home.relay.example.com.:443", "relay.example.com.", "home"),
        ("Home.RELAY.example.COM", "relay.Example.com", "Home"),
        ("2f402f80-da50-41e1-9b23-0123456789ab.r.eu", "r.eu", UUID),
        ("a.localhost", "localhost", "a"),
    ] {
        assert_eq!(label(host, domain), Some(expected), "{host}");
    }
}

#[test]
fn any_other_host_has_no_label() {
    for host in [
        "",
        ".",
        "relay.example.com",
        ".relay.example.com",
        "homerelay.example.com",
        "a.b.relay.example.com",
        "home.relay.example.com..",
        "home.relay.example.org",
        "home.relay.example.com.evil.org",
        "home.relay.example.com:x",
        "home.relay.example.com:99999",
        "me@home.relay.example.com",
        "[::1]",
        "[home.relay.example.com]",
        "com",
        "é.relay.example.com",
        "éééééééééééé",
    ] {
        assert_eq!(label(host, "relay.example.com"), None, "{host}");
    }
}

#[test]
fn every_error_says_what_is_wrong() {
    let errors = [TargetError::NotUuid, TargetError::BadId, TargetError::NoResponse, TargetError::Malformed];
    assert_eq!(
        errors.map(TargetError::why),
        [
            "target is not a uuid URI",
            "malformed UUID",
            "no response parameter",
            "malformed response, nonce or challenge"
        ]
    );
}
