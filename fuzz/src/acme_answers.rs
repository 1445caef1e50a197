//! What a CA sends: HTTP responses, and in them JSON, problems, fields, dates and chains, to a client that wants a
//! certificate.
//!
//! The input is a list of responses, `====` lines between them. Each request gets the next one, and none when there are no
//! more.

use rendezvous_core::acme::dates::{RetryAfter, parse_rfc3339};
use rendezvous_core::acme::pem::parse_chain;
use rendezvous_core::acme::{
    Action, Answer, Certificate, Client, Config, Event, Names, PublicKey, Question, State, Url, Wanted, With,
};
use rendezvous_core::connector::{self, Connector};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{End, Machine, Output, Secured};
use rendezvous_core::relay_client::{Host, HostPort, Relay};
use rendezvous_core::time::{Now, Span, Time};

const SEPARATOR: &[u8] = b"\n====\n";
const START: u64 = 1_800_000_000;
/// The most steps of the client, whatever the CA sends.
const STEPS_MAX: usize = 3_000;
/// The longest text of an event: problems are shown up to 2,000 characters, and escaped.
const TEXT_MAX: usize = 30_000;

pub(crate) fn run(bytes: &[u8]) {
    parsers(bytes);
    let directory = Url::parse("https://ca.example:14000/directory").expect("a URL");
    let mut responses = split(bytes).into_iter();
    let mut now = Now { mono: Time(0), wall: START };
    let names = Names::parse(["a.example.com", "b.example.com"]).expect("names");
    let mut config = Config::new(directory.clone(), PublicKey { x: [1; 32], y: [2; 32] });
    config.agrees_to_terms = true;
    config.profile = Some("classic".into());
    config.preferred_chain = bytes.first().filter(|it| **it == b'H').map(|_| "Root".into());
    let body_max = config.body_max as usize;
    let wanted = Wanted { names, certificate: None };
    let client = Client::new(config, State::default(), vec![wanted], [9; 32], now);
    let mut machine = With::new(connector(), Some(client), 0);
    let mut text = Vec::new();
    for _ in 0..STEPS_MAX {
        text.clear();
        match machine.poll_output(&mut text) {
            Output::Idle { until, .. } => {
                if let Some(action) = machine.poll_action() {
                    act(action, &mut machine, &directory, now);
                    continue;
                }
                if responses.len() == 0 {
                    break;
                }
                let span = until.map_or(Span(1), |until| until.since(now.mono)).0.max(1);
                now.mono = now.mono + Span(span);
                now.wall += span.div_ceil(1_000_000);
                machine.handle_timeout(now);
            }
            Output::Resolve { on, port, .. } => {
                assert_eq!(port, 14_000, "no other host");
                machine.handle_resolved(on, &["192.0.2.1:14000".parse().expect("an address")], now);
            }
            Output::Dial { on, .. } => machine.handle_connected(on, now),
            Output::StartTls { on, .. } => machine.handle_secured(on, Secured::default(), now),
            Output::Send { to, .. } => match responses.next() {
                None => machine.handle_end(to, End::Reset, now),
                Some(response) => {
                    let used = machine.handle_bytes(to, response, now);
                    assert!(used <= response.len().min(body_max + (64 << 10)));
                    machine.handle_end(to, End::Clean, now);
                }
            },
            Output::Close { on, .. } => machine.handle_closed(on, now),
            _ => {}
        }
    }
}

fn connector() -> Connector {
    let place = HostPort { host: Host::Name("relay.example".into()), port: 443 };
    let relay = Relay { place, tls: false, host_header: "relay.example".into() };
    let id = Id::parse(b"12345678-1234-4234-8234-123456789abc").expect("an ID");
    Connector::new(connector::Config::new(relay, id))
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = bytes.windows(SEPARATOR.len()).position(|it| it == SEPARATOR) {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + SEPARATOR.len()..];
    }
    parts.push(bytes);
    parts
}

fn act(action: Action, machine: &mut With<Connector>, directory: &Url, now: Now) {
    let (id, question) = match action {
        Action::Withdraw(_) => return,
        Action::Event(event) => return check(&event),
        Action::Ask { id, question } => (id, question),
    };
    let answer = match question {
        Question::Store { document } => {
            let state = State::parse(&document, directory).expect("what is stored can be read");
            assert_eq!(&state, machine.client().expect("a client").state());
            assert_eq!(state.to_document(directory), document);
            Answer::Done
        }
        Question::Sign { .. } => Answer::Signed([3; 64]),
        Question::MakeRequest { .. } => Answer::Request { der: vec![0x30, 0] },
        Question::Inspect { chain } => match chain.len() % 3 {
            0 => Answer::Refused { why: "odd".into() },
            1 => Answer::Inspected { topmost_issuer: "Root".into() },
            _ => Answer::Inspected { topmost_issuer: String::new() },
        },
        Question::Install { chain, .. } => {
            assert_eq!(
                parse_chain(chain.as_bytes()).as_ref(),
                Some(&chain),
                "a chain is written as it is read"
            );
            match chain.len() % 5 {
                0 => Answer::Refused { why: "another key".into() },
                1 => Answer::Failed { why: "no space left".into() },
                _ => Answer::Installed(Certificate {
                    not_before: now.wall,
                    not_after: now.wall + 90 * 86_400,
                    authority_key_id: vec![1],
                    serial: vec![2],
                }),
            }
        }
        Question::Provide(challenge) => {
            assert!(
                ["a.example.com", "b.example.com"].contains(&challenge.name.as_str()),
                "one of our names"
            );
            Answer::Done
        }
        Question::MakeAccountKey | Question::ReplaceAccountKey => panic!("nobody asked for a new key"),
    };
    machine.handle_answer(id, answer, now);
}

/// What is logged is bounded, and harmless to a terminal.
fn check(event: &Event) {
    let texts = match event {
        Event::Account { url } | Event::Explained { url, .. } => vec![url],
        Event::Failed { why, .. } => vec![why],
        Event::Expiring { last_failure, .. } => vec![last_failure],
        Event::Ignored { what } => vec![what],
        _ => Vec::new(),
    };
    for text in texts {
        assert!(text.chars().count() < TEXT_MAX, "{} characters", text.chars().count());
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

/// What is read by itself.
fn parsers(bytes: &[u8]) {
    if let Some(chain) = parse_chain(bytes) {
        assert_eq!(parse_chain(chain.as_bytes()).as_ref(), Some(&chain));
        assert!(chain.is_ascii());
    }
    let _ = RetryAfter::parse(bytes).map(|it| it.seconds(START));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(at) = parse_rfc3339(text) {
        assert!(at <= 253_402_387_200, "a year of four digits: {at}");
    }
    if let Some(url) = Url::parse(text) {
        assert_eq!(url.as_str(), text);
        assert!(url.target().starts_with('/') && text.contains(url.authority()));
        assert!(!url.target().contains(|it: char| it.is_control() || it == ' '));
    }
    let directory = Url::parse("https://ca.example:14000/directory").expect("a URL");
    if let Ok(state) = State::parse(text, &directory) {
        let document = state.to_document(&directory);
        assert_eq!(State::parse(&document, &directory).as_ref(), Ok(&state));
    }
}
