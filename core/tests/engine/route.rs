//! The hidden server that a request names (docs/protocol.md §3.1), and 404.

use rendezvous_core::event::Event;

use crate::world::World;
use crate::{GET, ID, NOBODY, OTHER, STRANGER, bound_connect, credential, get, world, world_with};

/// The bytes that the hidden server of ID receives of this request; `None` if it receives none.
fn reaches(request: &str) -> Option<String> {
    let mut world = world();
    let hidden = world.register(ID);
    let client = world.client_sends(request);
    (world.peer(client) == Some(hidden)).then(|| world.got(hidden))
}

fn upgrade(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}\r\n"
    )
}

#[test]
fn digest_and_basic_name_an_id_and_are_taken_out_of_the_head() {
    let basic = data_encoding::BASE64.encode(format!("{ID}:any password: at all").as_bytes());
    let upper = ID.to_string().to_uppercase();
    let fields = [
        format!("Authorization: Digest username=\"{ID}\", response=\"wrong\", uri=\"/elsewhere\""),
        format!("authorization:dIGEST username={upper}"),
        format!("AUTHORIZATION: Digest username*=UTF-8''{ID}"),
        format!("Authorization: Basic {basic}"),
    ];
    for field in fields {
        let request = format!("GET /a?b HTTP/1.1\r\nHost: relay\r\n{field}\r\nx-y:  z \r\n\r\n");
        let expected = "GET /a?b HTTP/1.1\r\nHost: relay\r\nx-y:  z \r\n\r\n";
        assert_eq!(reaches(&request).as_deref(), Some(expected), "{field}");
    }
}

#[test]
fn the_head_arrives_byte_for_byte_and_what_is_behind_it_too() {
    let request = format!(
        "PATCH //a/../b?%zz=%E9&[x] HTTP/1.1\r\nhOST: relay:443\r\nX:1\r\nx: 2\r\n{}X:\t3 \r\nEmpty:\r\n\
         Proxy-Authorization: Basic eDp5\r\nContent-Length: 4\r\n\r\nbody and more",
        credential(ID)
    );
    assert_eq!(reaches(&request), Some(request.replace(&credential(ID), "")));
}

#[test]
fn http_1_0_is_as_good() {
    let request = format!("GET / HTTP/1.0\r\n{}\r\n", credential(ID));
    assert_eq!(reaches(&request).as_deref(), Some("GET / HTTP/1.0\r\n\r\n"));
}

#[test]
fn a_label_under_the_domain_names_an_id_without_a_challenge() {
    for host in [
        "home.hidden.example",
        "HOME.Hidden.Example:8443",
        "home.hidden.example.",
        &format!("{ID}.hidden.example"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(reaches(&request), Some(request));
    }
}

#[test]
fn under_the_domain_authorization_is_the_hidden_server_s_own() {
    for field in
        [credential(OTHER), "Authorization: Bearer x\r\n".to_owned(), "Authorization: Basic ?\r\n".to_owned()]
    {
        let request = format!("GET / HTTP/1.1\r\nHost: home.hidden.example\r\n{field}\r\n");
        assert_eq!(reaches(&request), Some(request));
    }
}

#[test]
fn a_connector_whose_id_is_not_the_label_s_is_misdirected() {
    let request = |method: &str, target: &str, upgrade: &str, user: &str| {
        let basic = data_encoding::BASE64.encode(format!("{user}:").as_bytes());
        format!(
            "{method} {target} HTTP/1.1\r\nHost: home.hidden.example\r\nAuthorization: Basic {basic}\r\n\
             Connection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
        )
    };
    let (id, other) = (ID.to_string(), OTHER.to_string());
    for user in [other.clone(), STRANGER.to_string()] {
        for upgrade in ["octet-stream", "octet-stream+tls"] {
            let mut world = world();
            world.register(ID);
            let on = world.client_sends(request("GET", "/", upgrade, &user));
            let why = "the host and the user name are of two hidden servers";
            world.assert_refused(on, "421 Misdirected Request", why);
        }
    }
    // Its own ID, and requests that are not a connector's: there the user name is for the hidden server.
    for request in [
        request("GET", "/", "octet-stream", &id),
        request("GET", "/", "octet-stream+tls", &id),
        request("GET", "/", "websocket", &other),
        request("GET", "/chat", "octet-stream", &other),
        request("POST", "/", "octet-stream", &other),
        request("GET", "/", "octet-stream", "alice"),
    ] {
        assert_eq!(reaches(&request), Some(request));
    }
}

#[test]
fn an_unknown_label_is_404_and_never_a_challenge() {
    let mut world = world();
    for host in ["nobody.hidden.example", &format!("{STRANGER}.hidden.example")] {
        for field in ["", &credential(ID)] {
            let on = world.client_sends(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{field}\r\n"));
            world.assert_refused(on, "404 Not Found", NOBODY);
        }
    }
}

#[test]
fn the_domain_itself_and_what_is_no_label_of_it_are_asked_like_anyone() {
    let mut world = world();
    for host in ["hidden.example", "a.b.hidden.example", "homehidden.example", "home.hidden.example.org", ""]
    {
        let on = world.client_sends(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(world.was_challenged(on), "{host}");
    }
}

#[test]
fn without_a_domain_no_host_means_anybody() {
    let mut world = world_with(|config| config.domain = None);
    let on = world.client_sends("GET / HTTP/1.1\r\nHost: home.hidden.example\r\n\r\n");
    assert!(world.was_challenged(on));
}

#[test]
fn a_parameter_in_the_target_of_an_upgrade_names_an_id() {
    for target in [
        format!("/?rendezvous={ID}"),
        format!("/chat?a=b&rendezvous={ID}&c"),
        format!("http://relay/?rendezvous={ID}"),
    ] {
        let request = upgrade(&target, "");
        assert_eq!(reaches(&request), Some(request));
    }
}

#[test]
fn beside_the_parameter_authorization_is_the_hidden_server_s_own() {
    for field in ["Authorization: Bearer x\r\n", "Authorization: Basic YWRtaW46\r\n"] {
        let request = upgrade(&format!("/?rendezvous={ID}"), field);
        assert_eq!(reaches(&request), Some(request));
    }
}

#[test]
fn the_parameter_names_an_id_in_every_request_without_another_name() {
    for request in [
        format!("GET /?rendezvous={ID} HTTP/1.1\r\nHost: relay\r\n\r\n"),
        format!("PUT /a?b&rendezvous={ID} HTTP/1.1\r\nHost: relay\r\nContent-Length: 0\r\n\r\n"),
        format!("GET /?rendezvous={ID} HTTP/1.0\r\n\r\n"),
        format!("GET /?rendezvous={ID} HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer x\r\n\r\n"),
        // It is not a label, so it is a user name for the hidden server.
        format!("GET /?rendezvous={ID} HTTP/1.1\r\nHost: relay\r\nAuthorization: Basic YWRtaW46\r\n\r\n"),
        upgrade(&format!("/?rendezvous={ID}"), "").replace("Connection: Upgrade\r\n", ""),
    ] {
        assert_eq!(reaches(&request), Some(request));
    }
}

#[test]
fn a_parameter_that_is_repeated_or_no_id_names_nobody() {
    let mut world = world();
    for target in
        [format!("/?rendezvous={ID}&rendezvous={ID}"), "/?rendezvous=home".to_owned(), "/".to_owned()]
    {
        for request in [upgrade(&target, ""), format!("GET {target} HTTP/1.1\r\nHost: relay\r\n\r\n")] {
            let on = world.client_sends(&request);
            assert!(world.was_challenged(on), "{request}");
        }
    }
}

#[test]
fn the_label_goes_before_the_credential_and_the_credential_before_the_parameter() {
    let mut world = world();
    let hidden = world.register(ID);
    let request = format!(
        "GET /?rendezvous={OTHER} HTTP/1.1\r\nHost: home.hidden.example\r\nConnection: Upgrade\r\n\
         Upgrade: x\r\n{}\r\n",
        credential(OTHER)
    );
    let client = world.client_sends(&request);
    assert_eq!((world.peer(client), world.got(hidden)), (Some(hidden), request));

    let hidden = world.register(ID);
    let head = format!("GET /?rendezvous={OTHER} HTTP/1.1\r\nHost: relay\r\n");
    let client = world.client_sends(format!("{head}{}\r\n", credential(ID)));
    assert_eq!((world.peer(client), world.got(hidden)), (Some(hidden), format!("{head}\r\n")));
}

#[test]
fn in_an_upgrade_the_parameter_goes_before_the_credential_of_another_hidden_server() {
    let target = format!("/?rendezvous={ID}");
    for field in [
        credential(OTHER),
        credential(ID),
        credential(STRANGER),
        format!("Authorization: Digest username=\"uuid:{OTHER}\"\r\n"),
        // A label names an ID as well.
        "Authorization: Basic aG9tZTo=\r\n".to_owned(),
    ] {
        assert_eq!(reaches(&upgrade(&target, &field)), Some(upgrade(&target, "")), "{field}");
    }
}

#[test]
fn a_label_may_be_typed_as_user_name_where_there_is_a_domain() {
    let head = "GET / HTTP/1.1\r\nHost: relay\r\n";
    for user in ["home", "HOME", " home ", "home.hidden.example", "Home.Hidden.Example."] {
        let request = format!("{head}Authorization: Digest username=\"{user}\"\r\n\r\n");
        assert_eq!(reaches(&request), Some(format!("{head}\r\n")), "{user}");
    }
    for user in ["house", "home.example", "hidden.example", "a.home.hidden.example"] {
        let mut world = world();
        let on = world.client_sends(format!("{head}Authorization: Digest username=\"{user}\"\r\n\r\n"));
        assert!(world.was_challenged(on), "{user}");
    }
    let mut world = world_with(|config| config.domain = None);
    let on = world.client_sends(format!("{head}Authorization: Digest username=\"home\"\r\n\r\n"));
    assert!(world.was_challenged(on), "without a domain there are no labels");
}

#[test]
fn two_user_names_are_never_routed_by_one_of_them() {
    let mut world = world();
    world.register(ID);
    for target in ["/".to_owned(), format!("/?rendezvous={ID}")] {
        let field = format!("Authorization: Digest username=\"{ID}\", username=\"{OTHER}\"\r\n");
        let on = world.client_sends(upgrade(&target, &field));
        world.assert_refused(on, "400 Bad Request", "malformed Authorization");
    }
}

#[test]
fn an_unknown_id_and_one_for_which_nobody_waits_get_one_and_the_same_404() {
    let mut world = world();
    let answer = |world: &mut World, request: &str| {
        let on = world.client_sends(request);
        world.assert_refused(on, "404 Not Found", NOBODY);
        world.got(on)
    };
    let absent = answer(&mut world, &get(ID));
    assert_eq!(answer(&mut world, &get(STRANGER)), absent);
    assert_eq!(answer(&mut world, &upgrade(&format!("/?rendezvous={STRANGER}"), "")), absent);
    assert_eq!(answer(&mut world, &upgrade(&format!("/?rendezvous={ID}"), "")), absent);
    assert_eq!(answer(&mut world, "GET / HTTP/1.1\r\nHost: home.hidden.example\r\n\r\n"), absent);
}

#[test]
fn a_404_to_head_has_no_body() {
    let mut world = world();
    let on = world.client_sends(get(ID).replace("GET", "HEAD"));
    let whole = world.answer("404 Not Found", "Connection: close\r\n", false, NOBODY);
    let end = whole.find("\r\n\r\n").expect("an end") + 4;
    assert_eq!(world.got(on), whole[..end]);
}

#[test]
fn an_empty_line_before_the_request_is_not_passed_on() {
    assert_eq!(reaches(&format!("\r\n{}", get(ID))).as_deref(), Some(GET));
}

#[test]
fn a_client_in_tls_is_served_like_one_in_clear() {
    let mut world = world();
    let hidden = world.register(ID);
    let client = world.open_on(1, "192.0.2.1:1000");
    world.secured(client);
    world.write(client, get(ID));
    assert_eq!((world.peer(client), world.got(hidden).as_str()), (Some(hidden), GET));
}

#[test]
fn a_refusal_tells_the_operator_of_an_id_that_is_enrolled_and_of_no_other() {
    const NONCE: &str = "0123456789abcdef";
    let mut world = world();
    let stale = world.now.wall - 3_600;
    for (request, named) in [
        (get(ID), Some(ID)),
        (get(STRANGER), None),
        (bound_connect(ID, stale, NONCE), Some(ID)),
        (bound_connect(STRANGER, stale, NONCE), None),
    ] {
        world.take_events();
        world.client_sends(&request);
        let told = world.take_events().into_iter().find_map(|event| match event {
            Event::Refused { id, .. } => Some(id),
            _ => None,
        });
        assert_eq!(told, Some(named), "{request}");
    }
}
