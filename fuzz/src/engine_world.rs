//! The invariants of a relay with any peers: checked from outside, by what it sends, logs and pairs.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::{BASE64, HEXLOWER};
use rendezvous_core::engine::{Config, ConnectionState, Engine, Kick, TakeOver, Transport};
use rendezvous_core::event::Event;
use rendezvous_core::http::head::{Finder, Limits};
use rendezvous_core::http::reply::{ACCEPTED, write_accepted};
use rendezvous_core::http::response::parse_response;
use rendezvous_core::id::Id;
use rendezvous_core::machine::ConnId;
use rendezvous_core::registry::{Access, ClientLimits, Enrolment};
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::token::{Algorithm, Key};

use crate::shell::{Did, Shell};

/// Sun, 06 Nov 1994 08:49:37 GMT.
const WALL: u64 = 784_111_777;
const WAITING_MAX: u32 = 3;
const PAIRS_MAX: u32 = 3;
const HELD_MAX: u32 = 2;

/// A relay, and what is known of its peers.
pub(crate) struct World {
    pub(crate) shell: Shell<Engine>,
    /// The enrolled IDs, and which of its two secrets each has.
    enrolled: BTreeMap<Id, u8>,
    peers: BTreeMap<ConnId, Peer>,
    /// Accepted tokens, by ID, secret, step and nonce, since the last list of IDs.
    spent: BTreeSet<(Id, u8, u64, u8)>,
    /// The arguments of the last list of IDs.
    listed: (u8, u8, u8),
    /// What the operator has set, and how many pairs there may be.
    steered: BTreeMap<Id, (Access, u32, u32)>,
    /// Another process takes over, or has done so.
    taken_over: Option<TakeOver>,
}

/// What a peer has sent, as far as this module wrote it.
#[derive(Debug, Default)]
struct Peer {
    /// It also sent bytes of the fuzzer's, so its requests may mean anything.
    raw: bool,
    /// Its last request is followed by bytes that may become part of the next one.
    ragged: bool,
    /// The tokens in its CONNECTs: ID, secret, step, nonce; no nonce in a plain one.
    claims: Vec<(Id, u8, u64, Option<u8>)>,
    /// Its requests: the ID, and the head as a hidden server must get it.
    requests: Vec<(Id, String)>,
    /// The last answer that it got.
    last: Vec<u8>,
    waits_for: Option<Id>,
}

pub(crate) fn ids() -> [Id; 3] {
    [1, 2, 3].map(|number: u128| Id(number << 64 | 0xabcd_ef00))
}

pub(crate) fn key(id: Id, version: u8) -> Key {
    let secret = [&id.0.to_be_bytes()[..], &[version]].concat();
    Key::new(secret, Algorithm::Sha256, 6, 30).expect("a key")
}

/// The number of ways to name a hidden server.
const WAYS: u8 = 5;

impl World {
    pub(crate) fn new() -> Self {
        let config = Config {
            listeners: vec![Transport::Plain, Transport::Tls],
            domain: Some("relay.example".to_owned()),
            connections_max: 20,
            connections_per_address_max: 12,
            waiting_per_id_max: WAITING_MAX,
            pairs_per_id_max: PAIRS_MAX,
            held_per_id_max: HELD_MAX,
            tokens_per_id_max: 6,
            ..Config::default()
        };
        let now = Now { mono: Time(7_000_000), wall: WALL };
        let engine = Engine::new(config, [7; 32], now);
        let (enrolled, peers, spent) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let shell = Shell::new(engine, now);
        let (listed, steered) = ((0, 0, 0), BTreeMap::new());
        let mut world = Self { shell, enrolled, peers, spent, listed, steered, taken_over: None };
        world.enrol(0b111, 0, 0b010);
        world
    }

    /// One bit for each ID: whether it is enrolled, has its second secret, accepts plain tokens.
    pub(crate) fn enrol(&mut self, which: u8, second: u8, plain: u8) {
        self.list(which, second, plain);
        // The replay cache of a removed entry is deleted.
        self.spent.clear();
        self.judge();
    }

    fn list(&mut self, which: u8, second: u8, plain: u8) {
        self.listed = (which, second, plain);
        let steered = self.steered.clone();
        let set = |id| steered.get(&id).copied().unwrap_or((Access::Open, PAIRS_MAX, PAIRS_MAX));
        let bit = |of: u8, at: usize| of >> at & 1;
        let enrolment = |(at, id): (usize, Id)| Enrolment {
            labels: vec![format!("label{at}")],
            plain_tokens: bit(plain, at) == 1,
            access: set(id).0,
            clients: ClientLimits { pairs_max: Some(set(id).1), ..ClientLimits::NONE },
            ..Enrolment::new(id, key(id, bit(second, at)))
        };
        let all = || ids().into_iter().enumerate().filter(|(at, _)| bit(which, *at) == 1);
        let list: Vec<Enrolment> = all().map(enrolment).collect();
        self.enrolled = all().map(|(at, id)| (id, bit(second, at))).collect();
        self.shell.call(|engine, now| engine.handle_ids(list, now));
    }

    /// The operator changes the access and the limit of pairs of an ID.
    pub(crate) fn steer(&mut self, id: u8, access: u8, pairs: u8) {
        let id = ids()[usize::from(id % 3)];
        let access = [Access::Open, Access::Disabled, Access::QuotaUsed][usize::from(access % 3)];
        let limit = u32::from(pairs % 4);
        // Pairs that exist may stay, and be handed over again.
        let allowed = limit.max(self.pairs_of(id));
        self.steered.insert(id, (access, limit, allowed));
        let (which, second, plain) = self.listed;
        self.list(which, second, plain);
        self.judge();
    }

    /// The operator ends all connections of an ID.
    pub(crate) fn kick(&mut self, id: u8) {
        let id = ids()[usize::from(id % 3)];
        self.shell.call(|engine, now| engine.handle_kick(&Kick::Id(id), now));
        let (all, _) = self.shell.machine.list(0, usize::MAX, self.shell.now);
        let is_left = |state| state != ConnectionState::Closing;
        assert!(!all.iter().any(|info| info.id == Some(id) && is_left(info.state)), "a connection is left");
        self.judge();
    }

    pub(crate) fn take_over(&mut self, step: u8) {
        let step = [TakeOver::Freeze, TakeOver::Cancel, TakeOver::Retire][usize::from(step % 3)];
        self.taken_over = match (self.taken_over, step) {
            (Some(TakeOver::Retire), _) => self.taken_over,
            (_, TakeOver::Cancel) => None,
            _ => Some(step),
        };
        let pairs = self.shell.machine.pairs();
        self.shell.call(|engine, now| engine.handle_take_over(step, now));
        assert!(self.shell.machine.pairs() >= pairs, "a pair ended because of a take-over");
        self.judge();
    }

    fn pairs_of(&self, id: Id) -> u32 {
        let snapshot = self.shell.machine.snapshot(self.shell.now);
        snapshot.ids.iter().find(|of| of.id == id).map_or(PAIRS_MAX, |of| of.pairs)
    }

    pub(crate) fn drain(&mut self) {
        self.shell.call(Engine::handle_drain);
        self.judge();
    }

    pub(crate) fn strict(&mut self, strict: bool, hold: u8) {
        let config = Config {
            one_time_strict: strict,
            hold: Span::from_secs(u64::from(hold % 8)),
            waiting_per_id_max: WAITING_MAX,
            pairs_per_id_max: PAIRS_MAX,
            held_per_id_max: HELD_MAX,
            ..Config::default()
        };
        self.shell.call(|engine, now| engine.handle_config(config, now));
    }

    pub(crate) fn open(&mut self, listener: u8, host: u8) {
        self.shell.open(u16::from(listener % 2), host % 3);
        self.judge();
    }

    pub(crate) fn raw(&mut self, on: ConnId, bytes: &[u8]) {
        self.peers.entry(on).or_default().raw = true;
        self.shell.give(on, bytes);
        self.judge();
    }

    /// Prepares a request of this module's.
    fn asks(&mut self, on: ConnId, ragged: bool) -> &mut Peer {
        let peer = self.peers.entry(on).or_default();
        peer.raw |= std::mem::replace(&mut peer.ragged, ragged);
        peer
    }

    /// A hidden server registers as `id` with the secret of `of`, for a step that is `off` from the current one.
    pub(crate) fn connect(&mut self, on: ConnId, id: Id, of: Id, version: u8, off: i8, nonce: Option<u8>) {
        let key = key(of, version);
        let step = key.step(self.shell.now.wall).saturating_add_signed(off.into());
        let token = match nonce {
            Some(nonce) => {
                let nonce = format!("nonce-no-{nonce:07}");
                format!("{}&nonce={nonce}", HEXLOWER.encode(&key.bound(step, nonce.as_bytes())))
            }
            None => String::from_utf8(key.plain(step).as_bytes().to_vec()).expect("digits"),
        };
        // The secret of another ID is not valid.
        let peer = self.asks(on, false);
        if id == of {
            peer.claims.push((id, version, step, nonce));
        }
        self.shell.give(on, format!("CONNECT uuid:{id}?response={token} HTTP/1.1\r\n\r\n").as_bytes());
        self.judge();
    }

    /// A client requests the hidden server `at`.
    pub(crate) fn request(&mut self, on: ConnId, at: u8, way: u8, method: u8, behind: u8) {
        let at = usize::from(at % 3);
        let id = ids()[at];
        let method = ["GET", "HEAD", "OPTIONS", "POST"][usize::from(method % 4)];
        let body = if method == "POST" { "Content-Length: 7\r\n" } else { "" };
        let credentials = BASE64.encode(format!("{id}:x").as_bytes());
        let host = "Host: relay.example\r\n";
        let (target, front, field, back) = match way % (WAYS + 1) {
            0 => {
                ("/".to_owned(), host.to_owned(), format!("Authorization: Digest username=\"{id}\"\r\n"), "")
            }
            1 => (
                "/".to_owned(),
                host.to_owned(),
                format!("AUTHORIZATION:Basic {credentials}\r\n"),
                "X: 1\r\n",
            ),
            2 => (
                "/".to_owned(),
                format!("Host: label{at}.relay.example\r\n"),
                String::new(),
                "Authorization: Bearer x\r\n",
            ),
            3 => ("/".to_owned(), format!("Host: {id}.relay.example:8443\r\n"), String::new(), ""),
            4 => {
                let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
                (format!("/chat?rendezvous={id}"), host.to_owned(), String::new(), upgrade)
            }
            // Without a name the answer is the challenge.
            _ => ("/".to_owned(), host.to_owned(), String::new(), ""),
        };
        let line = format!("{method} {target} HTTP/1.1\r\n");
        let peer = self.asks(on, behind > 0);
        if way % (WAYS + 1) != WAYS {
            peer.requests.push((id, format!("{line}{front}{back}{body}\r\n")));
        }
        let bytes = "bytes".repeat(usize::from(behind));
        self.shell.give(on, format!("{line}{front}{field}{back}{body}\r\n{bytes}").as_bytes());
        self.judge();
    }

    /// Checks everything that the relay did since the last call.
    pub(crate) fn judge(&mut self) {
        for did in std::mem::take(&mut self.shell.did) {
            match did {
                Did::Sent(on, text) => {
                    assert!(text.len() <= 32 << 10, "more than a head");
                    self.peers.entry(on).or_default().last = text;
                }
                Did::Noted(Event::Waiting { on, id, waiting, .. }) => self.waits(on, id, waiting),
                Did::Noted(_) => {}
                Did::Paired { hidden, client } => self.meets(hidden, client),
            }
        }
        // Closed connections are removed, because their ids may be used again.
        let socks = &self.shell.socks;
        self.peers.retain(|on, _| socks.contains_key(on));
    }

    fn waits(&mut self, on: ConnId, id: Id, waiting: u32) {
        assert!(waiting <= WAITING_MAX, "{waiting} wait");
        assert_eq!(self.taken_over, None, "the other process has a copy of the tokens");
        let access = self.steered.get(&id).map_or(Access::Open, |of| of.0);
        assert_ne!(access, Access::Disabled, "a disabled hidden server waits");
        let version = self.enrolled.get(&id).copied().expect("an ID that is enrolled");
        let peer = self.peers.entry(on).or_default();
        assert!(is_accepted(&peer.last), "who waits was told so");
        assert_eq!(peer.waits_for.replace(id), None, "one connection waits once");
        // The first request on a connection with arbitrary bytes may have been a CONNECT too.
        if peer.raw {
            return;
        }
        let now = key(id, version).step(self.shell.now.wall);
        let right = |claim: &&(Id, u8, u64, Option<u8>)| {
            claim.0 == id && claim.1 == version && claim.2.abs_diff(now) <= 1
        };
        let &(_, _, step, nonce) =
            peer.claims.iter().find(right).expect("nobody waits without a right token");
        if let Some(nonce) = nonce {
            assert!(self.spent.insert((id, version, step, nonce)), "a bound token is good once");
        }
    }

    fn meets(&mut self, hidden: ConnId, client: ConnId) {
        let id = self.peers.get_mut(&hidden).and_then(|peer| peer.waits_for.take());
        let id = id.expect("a hidden server waits before it meets a client, and meets one");
        let got = self.peers.entry(hidden).or_default().last.clone();
        let client = self.peers.entry(client).or_default();
        assert!(client.waits_for.is_none(), "a hidden server is no client");
        let wanted = client.requests.iter().any(|(of, head)| *of == id && head.as_bytes() == got);
        assert!(
            wanted || client.raw,
            "{:?} is not what a client of {id} sent",
            String::from_utf8_lossy(&got)
        );
        let (access, _, allowed) =
            self.steered.get(&id).copied().unwrap_or((Access::Open, PAIRS_MAX, PAIRS_MAX));
        assert_eq!(access, Access::Open, "a client of an ID that is not served");
        assert!(!self.enrolled.contains_key(&id) || self.pairs_of(id) <= allowed, "too many pairs of an ID");
        assert!(self.shell.machine.pairs() <= PAIRS_MAX as usize * ids().len(), "too many pairs");
    }

    pub(crate) fn clear(mut self) {
        self.shell.clear();
        self.judge();
        assert_eq!(
            (self.shell.machine.pairs(), self.shell.machine.connections()),
            (0, 0),
            "a connection is left"
        );
    }
}

/// Whether it is a 200, with or without a challenge and the state of the pool.
fn is_accepted(answer: &[u8]) -> bool {
    let parsed = parse_response(answer, &mut Finder::default(), &Limits::default());
    let response = parsed.ok().flatten();
    let (challenge, pool) = response.map_or((None, None), |response| (response.challenge, response.pool));
    let mut expected = Vec::new();
    write_accepted(&mut expected, challenge.as_ref(), pool, None);
    answer == ACCEPTED || (challenge.is_some() || pool.is_some()) && answer == expected
}
