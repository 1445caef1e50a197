//! Clients that reuse a connection to the relay for another hidden server: no request reaches the wrong one.
//!
//! The programs are those of `tests/peers/reuse`; `tests/attacks/run reuse` runs more of them, longer.

mod service;

use std::io::{Read as _, Write as _};
use std::process::Command;

use self::service::{Service, answer};
use crate::harness::{Case, case};
use crate::hidden::{Raw, read_head};
use crate::peers::{Peer, script};
use crate::program::{Program, run};
use crate::wire::{Answer, Below, Wire};
use crate::world::{Enrolled, Relay, World, basic, lines};

pub(crate) const CASES: &[Case] = &[
    case("curl_with_basic", &[Peer::Curl, Peer::Python], || {
        python("curl_client.py", Peer::Python, &["basic"])
    }),
    case("curl_with_digest", &[Peer::Curl, Peer::Python], || {
        python("curl_client.py", Peer::Python, &["digest"])
    }),
    case("requests_with_basic", &[Peer::Requests], || {
        python("python_client.py", Peer::Requests, &["requests"])
    }),
    case("requests_with_digest", &[Peer::Requests], || {
        python("python_client.py", Peer::Requests, &["requests-digest"]);
    }),
    case("httpx_with_basic", &[Peer::Httpx], || python("python_client.py", Peer::Httpx, &["httpx"])),
    case("httpx_with_digest", &[Peer::Httpx], || python("python_client.py", Peer::Httpx, &["httpx-digest"])),
    case("aiohttp_with_basic", &[Peer::Aiohttp], || python("python_client.py", Peer::Aiohttp, &["aiohttp"])),
    case("aiohttp_with_digest", &[Peer::Aiohttp], || {
        python("python_client.py", Peer::Aiohttp, &["aiohttp-digest"]);
    }),
    case("pipelined_requests", &[Peer::Python], || python("pipeline.py", Peer::Python, &[])),
    case("node_with_a_keep_alive_agent", &[Peer::Node, Peer::Python], || {
        let mut node = Peer::Node.command();
        node.arg(script("reuse/reuse.js"));
        client(node);
    }),
    case(
        "the_other_head_is_found_after_every_kind_of_message",
        &[],
        the_other_head_is_found_after_every_kind_of_message,
    ),
    case("a_head_cut_at_every_byte", &[], a_head_cut_at_every_byte),
    case("a_megabyte_each_way_before_the_other_head", &[], a_megabyte_each_way_before_the_other_head),
    case("the_other_head_waits_for_a_slow_answer", &[], the_other_head_waits_for_a_slow_answer),
    case(
        "an_answer_without_a_length_ends_the_connection",
        &[],
        an_answer_without_a_length_ends_the_connection,
    ),
    case(
        "an_answer_that_is_not_http_ends_the_connection",
        &[],
        an_answer_that_is_not_http_ends_the_connection,
    ),
    case("the_last_exchange_ends_the_connection", &[], the_last_exchange_ends_the_connection),
    case("an_early_answer_does_not_misplace_the_body", &[], an_early_answer_does_not_misplace_the_body),
    case(
        "an_incomplete_other_head_at_the_end_is_not_forwarded",
        &[],
        an_incomplete_other_head_at_the_end_is_not_forwarded,
    ),
    case("bytes_after_an_upgrade_are_forwarded_first", &[], bytes_after_an_upgrade_are_forwarded_first),
    case("a_request_without_a_name_is_challenged", &[], a_request_without_a_name_is_challenged),
    case("an_unknown_name_in_a_later_request_gets_404", &[], an_unknown_name_in_a_later_request_gets_404),
    case("many_requests_take_turns_in_order", &[], many_requests_take_turns_in_order),
];

const ALL: [Below; 3] = [Below::Clear, Below::Tls12, Below::Tls13];

/// How many requests a program sends.
const COUNT: &str = "60";

/// A relay and two hidden servers behind agents.
struct Two {
    _world: World,
    relay: Relay,
    a: Enrolled,
    b: Enrolled,
    _agents: [Program; 2],
}

impl Two {
    /// The services of the two, each at a port, and the agents' transport to the relay.
    fn new(world: World, a: u16, b: u16, below: Below) -> Self {
        let [first, second] = ["a", "b"].map(|name| world.enrol(name, &[]));
        let relay = world.relay(&["--log-rate", "0"]);
        let agent = |of, port: u16| {
            world.agent(&relay, of, below, &["--to", &format!("127.0.0.1:{port}"), "--pool", "8"])
        };
        let agents = [agent(&first, a), agent(&second, b)];
        Self { _world: world, relay, a: first, b: second, _agents: agents }
    }

    /// With services that answer automatically.
    fn with_services(below: Below) -> (Self, [Service; 2]) {
        let services = [Service::start('a'), Service::start('b')];
        let [a, b] = services.each_ref().map(|service| service.address.port());
        (Self::new(World::new(), a, b, below), services)
    }

    /// With services whose connections the test controls.
    fn by_hand() -> (Self, [Raw; 2]) {
        let services = [Raw::start(), Raw::start()];
        let [a, b] = services.each_ref().map(|service| service.address.port());
        (Self::new(World::new(), a, b, Below::Tls13), services)
    }

    /// A head without a body for one of the two.
    fn get(&self, name: char, target: &str) -> String {
        request("GET", name, target, &basic(&self.of(name).id), "")
    }

    fn of(&self, name: char) -> &Enrolled {
        if name == 'a' { &self.a } else { &self.b }
    }
}

fn request(method: &str, name: char, target: &str, fields: &str, body: &str) -> String {
    format!("{method} /{name}/{target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}")
}

/// Runs a program of `tests/peers/reuse` in Python.
fn python(name: &str, python: Peer, mode: &[&str]) {
    let mut command = python.command();
    command.arg(script(&format!("reuse/{name}"))).args(mode);
    client(command);
}

/// Runs a client: every request is answered by its own hidden server, and connections are reused.
fn client(mut command: Command) {
    let world = World::new();
    let [a, b] = ["a", "b"].map(|name| world.enrol(name, &[]));
    let service = |own: &Enrolled, other: &Enrolled| {
        let mut python = Peer::Python.command();
        python.arg(script("reuse/hidden_server.py")).args([&own.name, &other.id]);
        let service = Program::start(&format!("service {}", own.name), &mut python);
        let port: u16 = service.pick("its port", |line| line.strip_prefix("listening ")?.parse().ok());
        (service, port)
    };
    let services = [service(&a, &b), service(&b, &a)];
    let relay = world.relay(&["--log-rate", "0"]);
    let agent = |of, (_, port): &(Program, u16)| {
        world.agent(&relay, of, Below::Tls13, &["--to", &format!("127.0.0.1:{port}"), "--pool", "8"])
    };
    let _agents = [agent(&a, &services[0]), agent(&b, &services[1])];
    command.args([&relay.url(Below::Tls13), &a.id, &b.id]).arg(world.certificate()).arg(COUNT);
    let output = run(&mut command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("{COUNT} answered by their own")), "{text}");
    for (service, _) in &services {
        assert_eq!(service.lines("misled"), 0, "requests reached the wrong hidden server");
    }
    let client_of = |line: &String| Some(line.split_once("client=")?.1.split(' ').next()?.to_owned());
    let mut clients: Vec<String> =
        relay.program.lines_with(lines::PAIRED).iter().filter_map(client_of).collect();
    let pairs = clients.len();
    clients.sort_unstable();
    clients.dedup();
    assert!(clients.len() <= 30, "{} connections, {pairs} pairs: the client reused none", clients.len());
}

/// How the two requests are written.
#[derive(Clone, Copy, Debug)]
enum Writes {
    Together,
    /// In two writes, the second one this many bytes after the first request's start.
    Cut(usize),
    /// The second request after the first answer has arrived.
    After,
    /// Together, followed by EOF.
    ThenEnd,
}

/// Sends two requests, and expects both answers, in order, byte for byte. After the client's EOF the connection ends
/// cleanly after them.
fn exchange(client: &mut Wire, first: &str, second: &str, answers: [&[u8]; 2], writes: Writes) {
    let both = format!("{first}{second}");
    let what = || format!("{writes:?}: {:?} …", first.lines().next());
    match writes {
        Writes::Together | Writes::ThenEnd => client.send(both.as_bytes()),
        Writes::Cut(at) => {
            client.send(&both.as_bytes()[..at]);
            client.send(&both.as_bytes()[at..]);
        }
        Writes::After => client.send(first.as_bytes()),
    }
    if let Writes::ThenEnd = writes {
        client.end();
        let got = client.rest();
        let wanted = answers.concat();
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&wanted), "{}", what());
        return;
    }
    expect(client, answers[0], &what());
    if let Writes::After = writes {
        client.send(second.as_bytes());
    }
    expect(client, answers[1], &what());
}

fn expect(client: &mut Wire, wanted: &[u8], what: &str) {
    let mut got = Vec::new();
    let mut part = vec![0; wanted.len().max(1)];
    while got.len() < wanted.len() {
        match client.read(&mut part[..wanted.len() - got.len()]) {
            Ok(0) => break,
            Ok(read) => got.extend_from_slice(&part[..read]),
            Err(error) => panic!("{what}: {error} behind {:?}", String::from_utf8_lossy(&got)),
        }
    }
    assert!(got == wanted, "{what}: {:?} instead of {:?}", text(&got), text(wanted));
}

/// The beginning, for a message.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned()
}

fn the_other_head_is_found_after_every_kind_of_message() {
    for below in ALL {
        let hidden = if below == Below::Tls13 { Below::Tls13 } else { Below::Clear };
        let (two, services) = Two::with_services(hidden);
        let name = basic(&two.a.id);
        let with = |fields: &str| format!("{name}{fields}");
        let chunks = "5;x=y\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: 1\r\n\r\n";
        let expects = with("Expect: 100-continue\r\nContent-Length: 5\r\n");
        let upgrade = with("Connection: Upgrade\r\nUpgrade: websocket\r\n");
        let firsts = [
            request("GET", 'a', "plain", &name, ""),
            request("HEAD", 'a', "head", &name, ""),
            request("POST", 'a', "body", &with("Content-Length: 5\r\n"), "hello"),
            request("POST", 'a', "empty", &with("Content-Length: 0\r\n"), ""),
            // A body that looks like the head for the other one.
            request(
                "POST",
                'a',
                "alike",
                &with("Content-Length: 27\r\n"),
                "GET /b/1 HTTP/1.1\r\nX: y\r\n\r\n",
            ),
            request("POST", 'a', "chunks", &with("Transfer-Encoding: chunked\r\n"), chunks),
            request("GET", 'a', "chunked", &name, ""),
            request("GET", 'a', "204", &name, ""),
            request("GET", 'a', "304", &name, ""),
            request("GET", 'a', "interim", &name, ""),
            request("POST", 'a', "interim", &expects, "hello"),
            request("GET", 'a', "refused-upgrade", &upgrade, ""),
            request("OPTIONS", 'a', "options", &name, ""),
        ];
        let second_body =
            request("POST", 'b', "second", &format!("{}Content-Length: 4\r\n", basic(&two.b.id)), "body");
        for first in &firsts {
            for (second, body) in [(two.get('b', "second"), ""), (second_body.clone(), "body")] {
                let method = second.split(' ').next().unwrap_or_default();
                let answers = [service::answer_to(first), answer('b', method, "/b/second", body.as_bytes())];
                let border = first.len();
                let cuts = [border - 1, border, border + 1, border + 40, border + second.len() - 1];
                let writes = cuts.map(Writes::Cut).into_iter();
                for writes in writes.chain([Writes::Together, Writes::After, Writes::ThenEnd]) {
                    let mut client = two.relay.open(below);
                    exchange(&mut client, first, &second, [&answers[0], &answers[1]], writes);
                }
            }
        }
        for service in services {
            service.check();
        }
    }
}

fn a_head_cut_at_every_byte() {
    for below in [Below::Clear, Below::Tls13] {
        let (two, services) = Two::with_services(Below::Tls13);
        let first = request("POST", 'a', "1", &format!("{}Content-Length: 3\r\n", basic(&two.a.id)), "abc");
        let second = two.get('b', "2");
        let answers = [service::answer_to(&first), answer('b', "GET", "/b/2", b"")];
        for at in first.len() - 5..first.len() + second.len() {
            let mut client = two.relay.open(below);
            exchange(&mut client, &first, &second, [&answers[0], &answers[1]], Writes::Cut(at));
        }
        // One byte at a time.
        let mut client = two.relay.open(below);
        for byte in format!("{first}{second}").as_bytes() {
            client.send(&[*byte]);
        }
        expect(&mut client, &answers.concat(), "byte by byte");
        for service in services {
            service.check();
        }
    }
}

fn a_megabyte_each_way_before_the_other_head() {
    for below in ALL {
        let hidden = if below == Below::Clear { Below::Clear } else { Below::Tls13 };
        let (two, services) = Two::with_services(hidden);
        let body = "x".repeat(1 << 20);
        let first = |kind: &str, fields: &str, body: &str| {
            request("POST", 'a', kind, &format!("{}{fields}", basic(&two.a.id)), body)
        };
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for (fields, body) in [
            (format!("Content-Length: {}\r\n", body.len()), &body),
            ("Transfer-Encoding: chunked\r\n".to_owned(), &chunked),
        ] {
            for kind in ["megabyte", "chunked-megabyte"] {
                let first = first(kind, &fields, body);
                let answers = [service::answer_to(&first), answer('b', "GET", "/b/2", b"")];
                let mut client = two.relay.open(below);
                exchange(
                    &mut client,
                    &first,
                    &two.get('b', "2"),
                    [&answers[0], &answers[1]],
                    Writes::Together,
                );
            }
        }
        for service in services {
            service.check();
        }
    }
}

fn the_other_head_waits_for_a_slow_answer() {
    for below in ALL {
        let (two, [a, b]) = Two::by_hand();
        let mut client = two.relay.open(below);
        client.send(format!("{}{}", two.get('a', "1"), two.get('b', "2")).as_bytes());
        let mut first = a.accept();
        assert!(read_head(&mut first).starts_with(b"GET /a/1 HTTP/1.1\r\n"));
        for part in ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "01234", "56789"] {
            assert!(b.is_idle(), "the second request went out in front of the first one's answer");
            first.write_all(part.as_bytes()).expect("can write");
            expect(&mut client, part.as_bytes(), "a part of the answer");
        }
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).expect("a clean end");
        assert_eq!(text(&rest), "", "the first hidden server gets nothing of the second request");
        let mut second = b.accept();
        let head = read_head(&mut second);
        assert!(head.starts_with(b"GET /b/2 HTTP/1.1\r\n"), "{:?}", text(&head));
        second.write_all(&service::plain('b', b"there\n")).expect("can write");
        assert_eq!(Answer::read(&mut client).text(), "b there\n");
    }
}

fn an_answer_without_a_length_ends_the_connection() {
    for below in ALL {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        ] {
            let (two, [a, b]) = Two::by_hand();
            let mut client = two.relay.open(below);
            client.send(format!("{}{}", two.get('a', "1"), two.get('b', "2")).as_bytes());
            let mut first = a.accept();
            read_head(&mut first);
            first.write_all(format!("{head}until the end").as_bytes()).expect("can write");
            first.shutdown(std::net::Shutdown::Write).expect("it is open");
            assert_eq!(text(&client.rest()), format!("{head}until the end"), "{below:?}");
            let mut rest = Vec::new();
            let _ = first.read_to_end(&mut rest);
            assert_eq!(text(&rest), "", "the first hidden server gets nothing of the second request");
            assert!(b.is_idle());
        }
    }
}

fn an_answer_that_is_not_http_ends_the_connection() {
    for garbage in
        ["hello\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxyz", "\0\u{1}\u{2}"]
    {
        let (two, [a, b]) = Two::by_hand();
        let mut client = two.relay.open(Below::Tls13);
        client.send(format!("{}{}", two.get('a', "1"), two.get('b', "2")).as_bytes());
        let mut first = a.accept();
        read_head(&mut first);
        first.write_all(garbage.as_bytes()).expect("can write");
        first.shutdown(std::net::Shutdown::Write).expect("it is open");
        // The relay may truncate it. What arrives must be its beginning.
        let (got, _) = client.rest_and_end();
        assert!(garbage.as_bytes().starts_with(&got), "{:?}", text(&got));
        let mut rest = Vec::new();
        let _ = first.read_to_end(&mut rest);
        assert_eq!(text(&rest), "", "the first hidden server gets nothing of the second request");
        assert!(b.is_idle());
    }
}

fn the_last_exchange_ends_the_connection() {
    for below in ALL {
        let (two, [a, b]) = Two::by_hand();
        let name = basic(&two.a.id);
        let expects = format!("{name}Expect: 100-continue\r\nContent-Length: 5\r\n");
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let firsts = [
            (request("GET", 'a', "1", &format!("{name}Connection: close\r\n"), ""), ok),
            (two.get('a', "1").replace("HTTP/1.1", "HTTP/1.0"), ok),
            // It is unknown whether the body still comes.
            (
                request("POST", 'a', "1", &expects, ""),
                "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n",
            ),
        ];
        for (first, answer) in firsts {
            let mut client = two.relay.open(below);
            client.send(first.as_bytes());
            let mut service = a.accept();
            read_head(&mut service);
            service.write_all(answer.as_bytes()).expect("can write");
            expect(&mut client, answer.as_bytes(), "the answer");
            // The relay may have ended the connection by now.
            let _ = client.write_all(two.get('b', "2").as_bytes()).and_then(|()| client.flush());
            let (got, _) = client.rest_and_end();
            assert_eq!(text(&got), "", "{first:?}");
            let mut rest = Vec::new();
            let _ = service.read_to_end(&mut rest);
            assert_eq!(text(&rest), "", "the first hidden server gets nothing of the second request");
            assert!(b.is_idle());
        }
    }
}

fn an_early_answer_does_not_misplace_the_body() {
    for below in ALL {
        let (two, [a, b]) = Two::by_hand();
        let mut client = two.relay.open(below);
        let body = "x".repeat(500);
        let fields = format!("{}Content-Length: 1000\r\n", basic(&two.a.id));
        client.send(request("POST", 'a', "1", &fields, &body).as_bytes());
        let mut first = a.accept();
        read_head(&mut first);
        crate::hidden::expect(&mut first, body.as_bytes());
        let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
        first.write_all(answer).expect("can write");
        expect(&mut client, answer, "the early answer");
        client.send(format!("{body}{}", two.get('b', "2")).as_bytes());
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).expect("a clean end");
        assert_eq!(text(&rest), text(body.as_bytes()), "the rest of the body and nothing else");
        let mut second = b.accept();
        assert!(read_head(&mut second).starts_with(b"GET /b/2 HTTP/1.1\r\n"));
        second.write_all(&service::plain('b', b"there\n")).expect("can write");
        assert_eq!(Answer::read(&mut client).text(), "b there\n");
    }
}

fn an_incomplete_other_head_at_the_end_is_not_forwarded() {
    for below in ALL {
        let (two, [a, b]) = Two::by_hand();
        let whole = two.get('b', "2");
        for part in ["GET /b", &whole[..whole.len() - 1]] {
            let mut client = two.relay.open(below);
            client.send(format!("{}{part}", two.get('a', "1")).as_bytes());
            client.end();
            let mut first = a.accept();
            read_head(&mut first);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
            first.write_all(answer).expect("can write");
            expect(&mut client, answer, "the answer");
            let mut rest = Vec::new();
            first.read_to_end(&mut rest).expect("a clean end");
            assert_eq!(text(&rest), "", "the first hidden server gets nothing of the second request");
            assert!(b.is_idle());
        }
    }
}

fn bytes_after_an_upgrade_are_forwarded_first() {
    for below in ALL {
        let (two, [a, b]) = Two::by_hand();
        let mut client = two.relay.open(below);
        let fields = format!("{}Connection: Upgrade\r\nUpgrade: octet-stream\r\n", basic(&two.a.id));
        let behind = two.get('b', "2");
        client.send(format!("{}{behind}", request("GET", 'a', "1", &fields, "")).as_bytes());
        let mut first = a.accept();
        read_head(&mut first);
        let switched =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";
        first.write_all(switched).expect("can write");
        expect(&mut client, switched, "101");
        crate::hidden::expect(&mut first, behind.as_bytes());
        client.send(b"more");
        crate::hidden::expect(&mut first, b"more");
        assert!(b.is_idle());
    }
}

fn a_request_without_a_name_is_challenged() {
    for below in ALL {
        let (two, services) = Two::with_services(Below::Tls13);
        let mut client = two.relay.open(below);
        client.send(format!("{}{}", two.get('a', "1"), request("GET", 'b', "2", "", "")).as_bytes());
        expect(&mut client, &service::answer_to(&two.get('a', "1")), "the first answer");
        let answer = Answer::read(&mut client);
        assert_eq!(answer.status(), 401, "{answer:?}");
        client.send(two.get('b', "2").as_bytes());
        expect(&mut client, &service::answer_to(&two.get('b', "2")), "the answer with a name");
        for service in services {
            service.check();
        }
    }
}

fn an_unknown_name_in_a_later_request_gets_404() {
    let (two, services) = Two::with_services(Below::Tls13);
    let mut client = two.relay.open(Below::Tls13);
    let nobody = basic("00000000-0000-4000-8000-000000000000");
    client.send(format!("{}{}", two.get('a', "1"), request("GET", 'b', "2", &nobody, "")).as_bytes());
    expect(&mut client, &service::answer_to(&two.get('a', "1")), "the first answer");
    assert_eq!(Answer::read(&mut client).status(), 404);
    assert_eq!(text(&client.rest()), "");
    for service in services {
        service.check();
    }
}

fn many_requests_take_turns_in_order() {
    for below in ALL {
        let (two, services) = Two::with_services(Below::Tls13);
        let names: Vec<char> = "abababbaabbbaaababab".repeat(3).chars().collect();
        let requests = names.iter().enumerate().map(|(turn, name)| two.get(*name, &turn.to_string()));
        let requests: Vec<String> = requests.collect();
        let wanted: Vec<u8> = requests.iter().flat_map(|request| service::answer_to(request)).collect();
        let mut client = two.relay.open(below);
        client.send(requests.concat().as_bytes());
        expect(&mut client, &wanted, "all answers");
        for service in services {
            service.check();
        }
    }
}
