//! A hidden server registers (docs/protocol.md §2).

use rendezvous_core::event::{Event, WaitingEnd};

use crate::world::{WALL, World};
use crate::{
    Config, ID, OK, OTHER, STRANGER, both, bound_connect, config, enrolled, plain_connect, world, world_with,
};

const NONCE: &str = "0123456789abcdef";
const NOT_AUTHORIZED: &str = "not authorized";

#[test]
fn a_bound_token_gets_exactly_200_and_the_connection_waits() {
    let mut world = world();
    let on = world.client_sends(bound_connect(ID, WALL, NONCE));
    assert_eq!(world.got(on), OK);
    assert!(world.is_open(on));
    let from = "192.0.2.1:1000".parse().ok();
    assert_eq!(world.take_events(), [Event::Waiting { on, from, id: ID, waiting: 1 }]);
    // The kernel closes a waiting connection whose peer stops acknowledging.
    assert_eq!(world.wire(on).user_timeout, Some(Config::default().user_timeout));
}

#[test]
fn a_plain_token_gets_exactly_200_and_the_connection_waits() {
    let mut world = world();
    let on = world.client_sends(plain_connect(ID, WALL));
    assert_eq!(world.got(on), OK);
    assert!(world.is_open(on));
}

#[test]
fn a_waiting_connection_waits_for_ever() {
    let mut world = world();
    let on = world.register(ID);
    let plain = world.register_plain(OTHER);
    world.wait_secs(7 * 24 * 3_600);
    assert!(world.is_open(on) && world.is_open(plain));
    assert_eq!(world.deadline, None);
}

#[test]
fn an_id_is_compared_without_regard_to_case() {
    let mut world = world();
    let upper = ID.to_string().to_uppercase();
    let on = world.client_sends(bound_connect(ID, WALL, NONCE).replace(&ID.to_string(), &upper));
    assert_eq!(world.got(on), OK);
}

#[test]
fn a_malformed_id_response_or_nonce_is_400() {
    let cases = [
        ("uuid:1234?response=12345678", "malformed UUID"),
        ("uuid:?response=12345678", "malformed UUID"),
        ("uuid:ID?response=12345", "malformed response, nonce or challenge"),
        ("uuid:ID?response=", "malformed response, nonce or challenge"),
        ("uuid:ID?response=12345678901", "malformed response, nonce or challenge"),
        ("uuid:ID?response=12345678&response=12345678", "malformed response, nonce or challenge"),
        ("uuid:ID?response=12345678&nonce=0123456789abcdef", "malformed response, nonce or challenge"),
        ("uuid:ID?response=00112233445566778899aabbccddeeff", "malformed response, nonce or challenge"),
        (
            "uuid:ID?response=00112233445566778899aabbccddeeff&nonce=short",
            "malformed response, nonce or challenge",
        ),
        (
            "uuid:ID?response=00112233445566778899AABBCCDDEEFF&nonce=0123456789abcdef",
            "malformed response, nonce or challenge",
        ),
    ];
    for (target, why) in cases {
        let mut world = world();
        let on =
            world.client_sends(format!("CONNECT {} HTTP/1.1\r\n\r\n", target.replace("ID", &ID.to_string())));
        world.assert_refused(on, "400 Bad Request", why);
    }
}

#[test]
fn a_malformed_head_is_400() {
    let cases = [
        ("CONNECT  HTTP/1.1\r\n\r\n", "malformed request line"),
        ("CONNECT uuid:x\r\n\r\n", "malformed request line"),
        ("CONNECT uuid:x HTTP/1.1\nHost: x\n\n", "LF without CR"),
        ("CONNECT uuid:x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "CONNECT with a body"),
        ("CONNECT uuid:x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "CONNECT with a body"),
        ("CONNECT uuid:x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "more than one Host"),
        ("\x16\x03\x01", "not HTTP"),
    ];
    for (head, why) in cases {
        let mut world = world();
        let on = world.client_sends(head);
        world.assert_refused(on, "400 Bad Request", why);
    }
}

#[test]
fn an_unknown_id_and_every_token_that_is_no_good_get_one_and_the_same_answer() {
    let used = {
        let mut world = world();
        world.client_sends(bound_connect(ID, WALL, NONCE));
        let on = world.client_sends(bound_connect(ID, WALL, NONCE));
        world.assert_refused(on, "401 Unauthorized", NOT_AUTHORIZED);
        world.got(on)
    };
    let unknown = bound_connect(STRANGER, WALL, NONCE);
    let of_another = bound_connect(OTHER, WALL, NONCE).replace(&OTHER.to_string(), &ID.to_string());
    let expired = bound_connect(ID, WALL - 60, NONCE);
    let early = bound_connect(ID, WALL + 60, NONCE);
    let other_nonce = bound_connect(ID, WALL, NONCE).replace(NONCE, "fedcba9876543210");
    let plain_unknown = plain_connect(STRANGER, WALL);
    let plain_wrong = plain_connect(OTHER, WALL).replace(&OTHER.to_string(), &ID.to_string());
    let plain_expired = plain_connect(ID, WALL - 60);
    let short = format!("CONNECT uuid:{ID}?response=123456 HTTP/1.1\r\n\r\n");
    for head in
        [unknown, of_another, expired, early, other_nonce, plain_unknown, plain_wrong, plain_expired, short]
    {
        let mut world = world();
        let on = world.client_sends(head);
        assert_eq!(world.got(on), used);
        assert!(!world.is_open(on));
    }
}

#[test]
fn a_plain_token_for_an_id_that_takes_bound_ones_alone_is_401_like_any_other() {
    let mut ids = both();
    ids[0].plain_tokens = false;
    let mut world = World::new(config(), ids);
    let on = world.client_sends(plain_connect(ID, WALL));
    world.assert_refused(on, "401 Unauthorized", NOT_AUTHORIZED);
    let on = world.client_sends(bound_connect(ID, WALL, NONCE));
    assert_eq!(world.got(on), OK);
}

#[test]
fn tokens_of_the_step_before_and_the_step_after_are_good() {
    for wall in [WALL - 30, WALL, WALL + 30] {
        let mut world = world();
        let bound = world.client_sends(bound_connect(ID, wall, NONCE));
        let plain = world.client_sends(plain_connect(ID, wall));
        assert_eq!((world.got(bound), world.got(plain)), (OK.to_owned(), OK.to_owned()));
    }
}

#[test]
fn a_bound_token_is_good_once_for_as_long_as_it_is_acceptable() {
    let mut world = world();
    let head = bound_connect(ID, WALL + 30, NONCE);
    let first = world.client_sends(&head);
    assert_eq!(world.got(first), OK);
    for _ in 0..12 {
        let again = world.client_sends(&head);
        world.assert_refused(again, "401 Unauthorized", NOT_AUTHORIZED);
        world.wait_secs(10);
    }
    assert!(world.is_open(first));
}

#[test]
fn two_nonces_make_two_tokens_of_one_step() {
    let mut world = world();
    for nonce in [NONCE, "0123456789abcdeg"] {
        let on = world.client_sends(bound_connect(ID, WALL, nonce));
        assert_eq!(world.got(on), OK);
    }
}

#[test]
fn a_plain_token_may_be_used_again_within_its_step() {
    let mut world = world();
    for _ in 0..3 {
        let on = world.client_sends(plain_connect(ID, WALL));
        assert_eq!(world.got(on), OK);
    }
}

#[test]
fn a_plain_token_is_good_once_with_one_time_strict() {
    let mut world = world_with(|config| config.one_time_strict = true);
    let first = world.client_sends(plain_connect(ID, WALL));
    let again = world.client_sends(plain_connect(ID, WALL));
    let next = world.client_sends(plain_connect(ID, WALL + 30));
    assert_eq!(world.got(first), OK);
    world.assert_refused(again, "401 Unauthorized", NOT_AUTHORIZED);
    assert_eq!(world.got(next), OK);
    assert!(!world.is_open(first), "the newer replaced it; the refused one did not");
}

#[test]
fn the_relay_is_no_open_proxy() {
    for target in ["example.com:443", "http://x/", "192.0.2.1:22", "urn:uuid:x?response=12345678"] {
        let mut world = world();
        let on = world.client_sends(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
        world.assert_refused(on, "403 Forbidden", "target is not a uuid URI");
    }
}

#[test]
fn a_registration_without_a_response_is_407() {
    for query in ["", "?", "?nonce=0123456789abcdef", "?Response=12345678"] {
        let mut world = world();
        let on = world.client_sends(format!("CONNECT uuid:{ID}{query} HTTP/1.1\r\n\r\n"));
        world.assert_refused(on, "407 Proxy Authentication Required", "no response parameter");
    }
}

#[test]
fn unknown_parameters_and_all_fields_but_a_body_s_are_ignored() {
    let mut world = world();
    let head = bound_connect(ID, WALL, NONCE)
        .replace("?response", "?a=b&c&response")
        .replace("\r\n\r\n", "\r\nAuthorization: x\r\nAuthorization: y\r\nExpect: 100-continue\r\n\r\n");
    let on = world.client_sends(head);
    assert_eq!(world.got(on), OK);
}

#[test]
fn bytes_behind_the_head_are_409_and_cost_no_token() {
    let mut world = world();
    let head = bound_connect(ID, WALL, NONCE);
    let on = world.client_sends(head.clone() + "x");
    world.assert_refused(on, "409 Conflict", "bytes after the request, before its response");
    let on = world.client_sends(head);
    assert_eq!(world.got(on), OK);
}

#[test]
fn bytes_before_the_rendezvous_are_a_protocol_error_and_close() {
    let mut world = world();
    let on = world.register(ID);
    world.take_events();
    world.wait_secs(3);
    world.write(on, "x");
    assert!(!world.is_open(on));
    assert_eq!(world.got(on), "", "there is no answer to it");
    let after = rendezvous_core::time::Span::from_secs(3);
    assert_eq!(
        world.take_events(),
        [Event::WaitingEnded { on, id: ID, why: WaitingEnd::UnexpectedBytes, after }]
    );
}

#[test]
fn a_connect_under_http_1_0_is_505_and_so_is_http_2() {
    for version in ["HTTP/1.0", "HTTP/2.0", "HTTP/0.9"] {
        let mut world = world();
        let on = world.client_sends(bound_connect(ID, WALL, NONCE).replace("HTTP/1.1", version));
        world.assert_refused(on, "505 HTTP Version Not Supported", "HTTP version not supported");
    }
}

#[test]
fn a_registration_may_come_on_a_connection_that_was_challenged_before() {
    let mut world = world();
    let on = world.client_sends("GET / HTTP/1.1\r\nHost: relay\r\n\r\n");
    assert!(world.was_challenged(on));
    world.write(on, bound_connect(ID, WALL, NONCE));
    assert_eq!(world.got(on), OK);
}

#[test]
fn every_registration_has_the_same_answer_wherever_it_is_cut() {
    let heads = [
        bound_connect(ID, WALL, NONCE),
        plain_connect(ID, WALL),
        plain_connect(STRANGER, WALL),
        "CONNECT example.com:443 HTTP/1.1\r\n\r\n".to_owned(),
        format!("CONNECT uuid:{ID} HTTP/1.1\r\n\r\n"),
        "CONNECT uuid:x HTTP/1.1\r\n\r\n".to_owned(),
        "CONNECT uuid:x HTTP/1.0\r\n\r\n".to_owned(),
        "CONNECT uuid:x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
    ];
    for head in heads {
        let verdict = |pieces: &[&str]| {
            let mut world = world();
            let on = world.open();
            pieces.iter().for_each(|piece| world.write(on, piece));
            (world.got(on), world.is_open(on))
        };
        let whole = verdict(&[&head]);
        for cut in 1..head.len() {
            assert_eq!(verdict(&[&head[..cut], &head[cut..]]), whole, "{head:?} cut at {cut}");
        }
        let bytes: Vec<&str> = head.split("").filter(|it| !it.is_empty()).collect();
        assert_eq!(verdict(&bytes), whole, "{head:?} octet by octet");
    }
}

#[test]
fn an_end_while_waiting_closes_and_the_id_has_one_less() {
    use rendezvous_core::machine::End;
    for how in [End::Clean, End::Truncated, End::Reset] {
        let mut world = World::new(config(), vec![enrolled(ID, &[])]);
        let (first, second) = (world.register(ID), world.register(ID));
        world.end(second, how);
        let client = world.client_sends(crate::get(ID));
        assert_eq!(world.peer(client), Some(first));
    }
}
