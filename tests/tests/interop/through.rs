//! Agent and connector reach the relay through an HTTP proxy.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::harness::{Case, case};
use crate::hidden::{page, page_text};
use crate::program::Program;
use crate::wire::Below;
use crate::world::{World, base64, basic, lines, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("an_agent_reaches_its_relay_through_a_proxy_that_asks_for_a_password", &[], || {
        an_agent_through(Ending::KeepsOpen)
    }),
    case("an_agent_follows_a_proxy_that_closes_after_its_challenge", &[], || {
        an_agent_through(Ending::Closes)
    }),
    case("a_wrong_password_of_a_proxy_is_reported_and_never_logged", &[], a_wrong_password),
    case("check_goes_through_a_proxy", &[], check_goes_through_a_proxy),
    case("the_issuer_of_a_certificate_that_is_not_trusted_is_named", &[], the_issuer_is_named),
    case("a_connector_takes_the_proxy_of_the_environment", &[], a_connector_takes_the_proxy),
];

const PASSWORD: &str = "s3cret-of-the-proxy";

/// What the proxy does after a 407.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    KeepsOpen,
    Closes,
}

/// An HTTP proxy that asks for `alice` with [`PASSWORD`].
fn proxy(ending: Ending) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || drop(serve(client, ending)));
        }
    });
    address
}

fn serve(mut client: TcpStream, ending: Ending) -> io::Result<()> {
    let right = format!("Proxy-Authorization: Basic {}", base64(format!("alice:{PASSWORD}").as_bytes()));
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.lines().any(|line| line == right) {
            let close = if ending == Ending::Closes { "Connection: close\r\n" } else { "" };
            let answer = format!(
                "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\n\
                 Proxy-Authenticate: Basic realm=\"of the test\"\r\n{close}Transfer-Encoding: chunked\r\n\r\n\
                 5\r\nHTTP/\r\n4\r\n1.1 \r\n0\r\n\r\n"
            );
            client.write_all(answer.as_bytes())?;
            if ending == Ending::Closes {
                return client.shutdown(Shutdown::Both);
            }
            continue;
        }
        let target =
            head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        let relay = TcpStream::connect(target)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut from_relay, mut to_relay) = (relay.try_clone()?, relay);
        let mut to_client = client.try_clone()?;
        thread::spawn(move || {
            let _ = io::copy(&mut from_relay, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Write);
        });
        io::copy(&mut client, &mut to_relay)?;
        return to_relay.shutdown(Shutdown::Write);
    }
}

fn get(id: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(id))
}

fn an_agent_through(ending: Ending) {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let password = world.folder.write("password", PASSWORD);
    let url = format!("http://alice@{}", proxy(ending));
    let to = page().to_string();
    let options =
        ["--to", &to, "--proxy", &url, "--proxy-password-file", password.to_str().expect("a path of ours")];
    let agent = world.agent(&relay, &home, Below::Tls13, &options);
    assert_eq!(relay.ask(get(&home.id)).text(), page_text("GET", "/x", b""));
    assert_eq!(agent.lines(PASSWORD), 0);
}

fn a_wrong_password() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let password = world.folder.write("password", "wrong-password\n");
    let url = format!("http://alice@{}", proxy(Ending::KeepsOpen));
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let mut agent = rendezvous();
    agent.args(["agent", "--log", "trace", "--to", "127.0.0.1:1", "--proxy", &url, "--ticket"]).arg(&ticket);
    agent.arg("--proxy-password-file").arg(&password);
    let agent = Program::start("agent", &mut agent);
    agent.expect_line("the proxy does not accept the user name and the password");
    assert_eq!(agent.lines("wrong-password"), 0);
    let mut open = rendezvous();
    open.args(["agent", "--to", "127.0.0.1:1", "--proxy", "http://alice:visible@127.0.0.1:1", "--ticket"]);
    let open = crate::program::run(open.arg(&ticket));
    assert_eq!(open.status.code(), Some(2));
    let error = String::from_utf8_lossy(&open.stderr).into_owned();
    assert!(error.contains("--proxy-password-file") && !error.contains("visible"), "{error}");
}

fn check_goes_through_a_proxy() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let check = |options: &[&str], variable: &str| {
        let mut check = rendezvous();
        check.args(["check", "--ticket"]).arg(&ticket).args(options);
        let output = crate::program::run(check.env("HTTPS_PROXY", variable));
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    for ending in [Ending::KeepsOpen, Ending::Closes] {
        let at = proxy(ending);
        let (code, shown) = check(&[], &format!("http://alice:{PASSWORD}@{at}"));
        let tunnel = format!("{at} opens a tunnel to https://{}", relay.tls);
        assert!(code == Some(0) && shown.contains(&tunnel) && !shown.contains(PASSWORD), "{shown}");
    }
    let at = proxy(Ending::KeepsOpen);
    let password = world.folder.write("password", "wrong-password\n");
    let password = password.to_str().expect("a path of ours");
    let url = format!("http://alice@{at}");
    let (code, shown) = check(&["--proxy", &url, "--proxy-password-file", password], "");
    assert!(code == Some(1) && shown.contains("does not accept the user name and the password"), "{shown}");
    let (code, shown) = check(&["--proxy", "http://127.0.0.1:1"], "");
    assert!(code == Some(1) && shown.contains("check that the proxy runs there"), "{shown}");
    let (code, shown) = check(&["--proxy", "none"], "http://127.0.0.1:1");
    assert!(code == Some(0) && !shown.contains("tunnel"), "{shown}");
    let output = crate::program::run(rendezvous().args(["check", "--domain", "x", "--proxy", &url]));
    assert_eq!(output.status.code(), Some(2));
}

/// A proxy that intercepts TLS has a certificate of its own.
fn the_issuer_is_named() {
    let (own, other) = (World::new(), World::new());
    let home = own.enrol("home", &[]);
    let intercepting = other.relay(&[]);
    let by_ca = format!("ca {}", own.certificate().display());
    for trust in [None, Some(by_ca.as_str())] {
        let ticket = own.ticket_with(&intercepting, &home, Below::Tls13, |line| {
            Some(trust.filter(|_| line.starts_with("pin ")).unwrap_or(line).to_owned())
        });
        let mut agent = rendezvous();
        let agent =
            Program::start("agent", agent.args(["agent", "--to", "127.0.0.1:1", "--ticket"]).arg(&ticket));
        agent.expect_line("event=certificate-refused issuer=\"CN=");
        if trust.is_none() {
            let real = own.ticket(&intercepting, &home, Below::Tls13);
            let pin = std::fs::read_to_string(real).expect("a ticket");
            let pin = pin.lines().find_map(|line| line.strip_prefix("pin ")).expect("a pin");
            agent.expect_line(&format!("expected={pin}"));
        }
        assert_eq!(agent.lines(&intercepting.pin), 0, "users would copy this pin");
        let check = crate::program::run(rendezvous().args(["check", "--ticket"]).arg(ticket));
        let shown = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(!check.status.success() && shown.contains("\"CN=") && shown.contains("issuer"), "{shown}");
    }
}

fn a_connector_takes_the_proxy() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let agent = world.agent(&relay, &home, Below::Tls13, &["--stream", &page().to_string()]);
    let connect = |variable: &str, value: &str, no_proxy: &str| {
        let mut connect = rendezvous();
        connect.env(variable, value).env("NO_PROXY", no_proxy);
        connect.args(["connect", &relay.url(Below::Tls13), &home.id, "--pin", &relay.pin]);
        crate::program::run_with(&mut connect, b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    };
    let url = format!("http://alice:{PASSWORD}@{}", proxy(Ending::Closes));
    let through = connect("HTTPS_PROXY", &url, "10.0.0.0/8,other.example");
    assert!(through.status.success(), "{}", String::from_utf8_lossy(&through.stderr));
    assert!(through.stdout.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&through.stdout));
    let refused = connect("https_proxy", "http://127.0.0.1:1", "");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("the proxy:"), "{error}");
    let excluded = connect("https_proxy", "http://127.0.0.1:1", "127.0.0.0/8");
    assert!(excluded.status.success(), "{}", String::from_utf8_lossy(&excluded.stderr));
    agent.expect_line(lines::WAITING);
}
