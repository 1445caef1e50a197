//! `--metrics` for other machines: TLS, passwords and a limit on guesses.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use crate::harness::{Case, case};
use crate::metrics::metrics_at;
use crate::password_protected::set_password;
use crate::program::{PATIENCE, run};
use crate::wire::{Answer, Below, Wire};
use crate::world::{Enrolled, Relay, World, base64, lines, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("other_machines_are_not_served_without_a_password", &[], other_machines_need_a_password),
    case("the_page_is_served_to_other_machines_by_tls_with_a_password", &[], the_page_is_served),
    case("changed_passwords_of_operators_are_in_force_after_sighup", &[], changed_passwords),
    case("guesses_of_the_operators_password_are_limited", &[], guesses_are_limited),
    case("slow_connections_of_one_address_leave_the_operator_a_place", &[], slow_connections),
];

/// Operator anna's credentials.
const RIGHT: &str = "anna:right";

/// A relay that serves its operator at all addresses of this machine.
struct Site {
    world: World,
    home: Enrolled,
    relay: Relay,
    at: SocketAddr,
}

impl Site {
    fn start() -> Self {
        let world = World::new();
        let home = world.enrol("home", &[]);
        set_password(&world, "anna", "right");
        let users = users(&world);
        let options = ["--metrics", "0.0.0.0:0", "--metrics-name", "relay.lan", "--domain", "relay.example"];
        let relay = world.relay(&[&options[..], &["--admin-password-file", &users]].concat());
        let at = relay.program.pick("where it serves metrics", metrics_at);
        Self { world, home, relay, at: SocketAddr::from(([127, 0, 0, 1], at.port())) }
    }

    /// A request on a connection of its own, with these credentials and further fields.
    fn ask(&self, below: Below, line: &str, credentials: &str, fields: &str) -> Answer {
        let mut wire = Wire::open(below, self.at);
        wire.send(request(line, credentials, fields).as_bytes());
        answer(&mut wire)
    }

    fn get(&self, path: &str, credentials: &str) -> Answer {
        self.ask(Below::Tls13, &format!("GET {path}"), credentials, "Host: relay.lan\r\n")
    }
}

fn users(world: &World) -> String {
    world.folder.0.join("users").to_str().expect("a path of ours").to_owned()
}

fn request(line: &str, credentials: &str, fields: &str) -> String {
    let authorization = match credentials {
        "" => String::new(),
        pair => format!("Authorization: Basic {}\r\n", base64(pair.as_bytes())),
    };
    format!("{line} HTTP/1.0\r\n{authorization}{fields}\r\n")
}

/// An answer that ends with its connection.
fn answer(wire: &mut Wire) -> Answer {
    let answer = Answer::read_head(wire);
    Answer { body: wire.rest(), ..answer }
}

fn other_machines_need_a_password() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    set_password(&world, "anna", "right");
    let users = users(&world);
    let fails = |command: &[&str], last: Option<&Path>, words: &[&str]| {
        let output = run(rendezvous().args(command).args(last));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && words.iter().all(|word| error.contains(word)), "{error}");
    };
    let state = world.state();
    let hint = ["--admin-password-file FILE", "'rendezvous password FILE USER'", "127.0.0.1"];
    for on in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9100", "[::ffff:192.0.2.1]:9100"] {
        fails(&["serve", "--metrics", on, "--state"], Some(&state), &hint);
        fails(
            &["agent", "--to", "127.0.0.1:1", "--metrics", on, "--ticket"],
            Some(&ticket),
            &["an agent serves its metrics without TLS and password", "unix:PATH"],
        );
    }
    let local = ["serve", "--metrics", "127.0.0.1:0", "--admin-password-file", &users, "--state"];
    fails(&local, Some(&state), &["has no effect"]);
}

fn the_page_is_served() {
    let site = Site::start();
    for below in [Below::Tls12, Below::Tls13] {
        let ask = |path: &str, credentials: &str, host: &str| {
            site.ask(below, &format!("GET {path}"), credentials, &format!("Host: {host}\r\n"))
        };
        for path in ["/ready", "/live"] {
            assert_eq!(ask(path, "", "192.0.2.1").status(), 200, "a probe");
        }
        for path in ["/", "/metrics", "/api/status", "/api/connections", "/nothing"] {
            // Not so many that they are limited.
            let wrong: &[&str] = match path {
                "/" => &["", "right", "anna:wrong", "bert:right", ":", "anna:"],
                _ => &["", "right"],
            };
            for credentials in wrong {
                let refused = ask(path, credentials, "192.0.2.1");
                assert_eq!(refused.status(), 401, "{path} {credentials}");
                assert_eq!(
                    refused.field("www-authenticate"),
                    Some("Basic realm=\"rendezvous\", charset=\"UTF-8\"")
                );
            }
        }
        assert!(ask("/", RIGHT, "relay.lan").text().starts_with("<!doctype html>"));
        assert!(ask("/metrics", RIGHT, "relay.example:9100").text().contains("rendezvous_build_info"));
        let status = ask("/api/status", RIGHT, "localhost").text();
        assert!(status.contains("\"home\"") && !status.contains(&site.home.id), "an ID is a capability");
        assert_eq!(ask("/api/usage", RIGHT, "localhost").status(), 404, "it has IDs");
        assert_eq!(ask("/", RIGHT, "evil.example").status(), 421);
        let twice = site.ask(
            below,
            "GET /metrics",
            RIGHT,
            &format!("Host: relay.lan\r\nAuthorization: Basic {}\r\n", base64(RIGHT.as_bytes())),
        );
        assert_eq!(twice.status(), 400);
        // Requests on one connection, sent at once.
        let mut wire = Wire::open(below, site.at);
        let one = request("GET /live", "", "Host: relay.lan\r\n").replace("HTTP/1.0", "HTTP/1.1");
        let other = request("GET /", RIGHT, "Host: relay.lan\r\n").replace("HTTP/1.0", "HTTP/1.1");
        wire.send(format!("{one}{other}{one}{other}").as_bytes());
        for text in ["live\n", "<!doctype", "live\n", "<!doctype"] {
            assert!(Answer::read(&mut wire).text().starts_with(text), "{text}");
        }
    }
    let clear = site.ask(Below::Clear, "GET /metrics", RIGHT, "Host: relay.lan\r\n");
    assert_eq!((clear.status(), clear.text().contains("use https")), (400, true), "{clear:?}");

    let _waiting = site.world.waiting(&site.relay, &site.home, Below::Clear);
    site.relay.program.expect_line(lines::WAITING);
    let body = "{\"name\":\"home\"}";
    let kick = |credentials: &str, origin: &str| {
        let fields = format!(
            "Host: relay.lan:9100\r\nOrigin: {origin}\r\nX-Rendezvous: change\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n",
            body.len()
        );
        let mut wire = Wire::open(Below::Tls13, site.at);
        wire.send(format!("{}{body}", request("POST /api/kick", credentials, &fields)).as_bytes());
        answer(&mut wire)
    };
    assert_eq!(kick("", "https://relay.lan:9100").status(), 401);
    assert_eq!(kick(RIGHT, "https://evil.example").status(), 403);
    assert_eq!(kick(RIGHT, "http://relay.lan:9100").status(), 403);
    assert_eq!(kick(RIGHT, "https://relay.lan:9100").text(), "{\"ended\":1}\n");
    site.relay.program.expect_line(lines::WAITING_ENDED);
    assert_eq!(site.relay.program.lines("right"), 0);
}

fn changed_passwords() {
    let site = Site::start();
    assert_eq!(site.get("/", RIGHT).status(), 200);
    set_password(&site.world, "anna", "new");
    site.relay.program.signal("HUP");
    site.relay.program.expect_line("event=reloaded");
    assert_eq!(site.get("/", RIGHT).status(), 401);
    assert_eq!(site.get("/", "anna:new").status(), 200);
    site.world.folder.write("users", "not a line of a password file\n");
    site.relay.program.signal("HUP");
    site.relay.program.expect_line("event=reload-refused");
    assert_eq!(site.get("/", "anna:new").status(), 200, "the old passwords stay");
}

fn guesses_are_limited() {
    let site = Site::start();
    assert_eq!(site.get("/", RIGHT).status(), 200);
    let until = Instant::now() + PATIENCE;
    let refused = (0..).map(|guess| site.get("/metrics", &format!("anna:{guess}"))).find(|answer| {
        assert!(Instant::now() < until, "guesses are never refused");
        answer.status() != 401
    });
    let refused = refused.expect("endless guesses");
    assert_eq!(refused.status(), 429);
    assert!(refused.field("retry-after").and_then(|it| it.parse::<u32>().ok()).is_some_and(|it| it > 0));
    site.relay.program.expect_line("event=wrong-password peer=127.0.0.1");
    assert_eq!(site.get("/metrics", RIGHT).status(), 200, "it is known");
    assert_eq!(site.get("/ready", "").status(), 200);
}

fn slow_connections() {
    let site = Site::start();
    let open = |bytes: &[u8]| {
        let mut tcp = TcpStream::connect(site.at).expect("it listens");
        // It may have been closed for a later one.
        let _ = tcp.write_all(bytes);
        tcp
    };
    let mut slow: Vec<_> = (0..20).map(|_| open(&[])).collect();
    // The beginning of a ClientHello, of a request in clear, and of nothing known.
    slow.extend([&[22, 3, 1, 0, 200, 1][..], b"GET /me", b"\0\0\0"].into_iter().map(open));
    assert_eq!(site.get("/metrics", RIGHT).status(), 200);
    let mut first = slow.swap_remove(0);
    first.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let ended = first.read(&mut [0; 64]);
    assert!(
        matches!(ended, Ok(0)) || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "it made room"
    );
}
