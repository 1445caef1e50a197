//! Queries to name servers (RFC 1035), for what getaddrinfo(3) cannot look up: CAA records, and addresses that a file such
//! as `/etc/hosts` does not change. They block.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use super::wire::{Deadline, Timed};
use crate::entropy;
use crate::failure::reason;
use crate::files::{self, FileKind};

/// The port of name servers.
const PORT: u16 = 53;
/// The configuration of the system's resolver (resolv.conf(5)).
const CONFIGURATION: &str = "/etc/resolv.conf";
/// Limit of name servers, as in the system's resolver.
const SERVERS_MAX: usize = 3;
/// How long one name server may take before the next one is asked.
const TRY: Duration = Duration::from_secs(2);
/// Limit of a message over UDP without EDNS is 512 bytes; some servers send more.
const DATAGRAM_MAX: usize = 4096;
/// Limit of a chain of aliases.
const ALIASES_MAX: usize = 16;
/// The length of a header.
const HEADER: usize = 12;

/// The name servers that are asked, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
}

impl Resolver {
    /// One name server.
    pub(super) fn of(server: SocketAddr) -> Self {
        Self { servers: vec![server] }
    }

    /// The system's name servers.
    pub(super) fn system() -> Self {
        let text = files::read(Path::new(CONFIGURATION), FileKind::CONFIG).unwrap_or_default();
        Self::configured(&String::from_utf8_lossy(&text))
    }

    /// The name servers in the text of a resolv.conf(5); this machine's if it names none.
    fn configured(text: &str) -> Self {
        let address = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let is_server = words.next() == Some("nameserver");
            words.next().filter(|_| is_server)?.parse::<IpAddr>().ok()
        };
        let mut servers: Vec<_> =
            text.lines().filter_map(address).take(SERVERS_MAX).map(|ip| SocketAddr::new(ip, PORT)).collect();
        if servers.is_empty() {
            servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        }
        Self { servers }
    }

    /// The IPv6 and IPv4 addresses of a name, in that order.
    ///
    /// # Errors
    /// Why a look-up failed. A name without addresses is no error.
    pub(super) fn addresses(&self, name: &str, deadline: Deadline) -> Result<Vec<IpAddr>, String> {
        let six = self.records(name, TYPE::AAAA, deadline)?;
        let four = self.records(name, TYPE::A, deadline)?;
        let address = |data: RData<'_>| match data {
            RData::AAAA(it) => Some(IpAddr::V6(it.into())),
            RData::A(it) => Some(IpAddr::V4(it.into())),
            _ => None,
        };
        Ok(six.into_iter().chain(four).filter_map(address).collect())
    }

    /// The data of the records of a name, at the end of its aliases. None if the name or the records do not exist.
    ///
    /// # Errors
    /// No name server gave an answer.
    pub(super) fn records(
        &self,
        name: &str,
        kind: TYPE,
        deadline: Deadline,
    ) -> Result<Vec<RData<'static>>, String> {
        let cannot = |why: &str| format!("cannot look up {kind:?} records of {name}: {why}");
        let id = entropy::bytes::<2>().map_err(|failure| cannot(&failure.to_string()))?;
        let query =
            query(u16::from_be_bytes(*id), name, kind).ok_or_else(|| cannot("it is not a valid name"))?;
        let mut failures = Vec::new();
        // Twice, because datagrams are lost.
        for server in self.servers.iter().chain(&self.servers) {
            let within = TRY.min(deadline.left());
            if within.is_zero() {
                break;
            }
            match ask(*server, &query, Deadline::after(within)) {
                Ok(answer) => {
                    return answer.records(name, kind).map_err(|why| cannot(&format!("{server} {why}")));
                }
                Err(error) => {
                    let why = match error.kind() {
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "does not answer".to_owned(),
                        _ => format!("cannot be asked: {}", reason(&error)),
                    };
                    let failure = format!("{server} {why}");
                    if !failures.contains(&failure) {
                        failures.push(failure);
                    }
                }
            }
        }
        Err(cannot(&failures.join("; ")))
    }
}

/// The message of a query with recursion; `None` if the name is not valid.
fn query(id: u16, name: &str, kind: TYPE) -> Option<Vec<u8>> {
    if name.split('.').any(str::is_empty) {
        return None;
    }
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = Question::new(Name::new(name).ok()?, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().ok()
}

/// Sends a query to a server over UDP, and over TCP if the answer is too long for that (RFC 7766).
fn ask(server: SocketAddr, query: &[u8], deadline: Deadline) -> io::Result<Answer> {
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own)?;
    socket.connect(server)?;
    socket.send(query)?;
    let mut bytes = [0; DATAGRAM_MAX];
    loop {
        let left = deadline.left();
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let len = socket.recv(&mut bytes)?;
        let received = bytes.get(..len).unwrap_or_default();
        // What is not the answer to this query is ignored: anyone may have sent it.
        match Answer::of(query, received) {
            Some(answer) if answer.is_truncated() => return ask_over_tcp(server, query, deadline),
            Some(answer) => return Ok(answer),
            None => {}
        }
    }
}

fn ask_over_tcp(server: SocketAddr, query: &[u8], deadline: Deadline) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&server, deadline.left().max(Duration::from_millis(1)))?;
    let mut stream = Timed { stream, deadline };
    let len = u16::try_from(query.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&len.to_be_bytes(), query].concat())?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut bytes)?;
    Answer::of(query, &bytes).ok_or_else(|| io::Error::other("the answer is malformed"))
}

/// The message that answers a query.
struct Answer(Vec<u8>);

impl Answer {
    /// The answer in this message; `None` if it does not answer the query. The rest of the message may be malformed.
    fn of(query: &[u8], message: &[u8]) -> Option<Self> {
        let question = query.get(HEADER..)?;
        let is_answer = message.get(2)? & 0x80 != 0;
        let is_same = message.get(..2) == query.get(..2)
            && message.get(4..6) == query.get(4..6)
            && message.get(HEADER..HEADER + question.len())?.eq_ignore_ascii_case(question);
        (is_answer && is_same).then(|| Self(message.to_vec()))
    }

    fn is_truncated(&self) -> bool {
        self.0.get(2).is_some_and(|flags| flags & 2 != 0)
    }

    /// The data of the records of this kind, at the end of the name's aliases.
    fn records(&self, name: &str, kind: TYPE) -> Result<Vec<RData<'static>>, String> {
        let packet = Packet::parse(&self.0).map_err(|_| "sends a malformed answer")?;
        match packet.rcode() {
            RCODE::NoError => {}
            // The name does not exist.
            RCODE::NameError => return Ok(Vec::new()),
            RCODE::ServerFailure => {
                return Err("answers SERVFAIL: the zone's name servers or its DNSSEC are broken".to_owned());
            }
            RCODE::Refused => return Err("answers REFUSED: it does not serve this machine".to_owned()),
            code => return Err(format!("answers with the error {code:?}")),
        }
        let all = packet.answers.into_iter().filter(|it| it.class == CLASS::IN);
        let all: Vec<_> = all.collect();
        let mut owner = Name::new(name).map_err(|_| "was asked for an invalid name")?;
        for _ in 0..ALIASES_MAX {
            let alias = all.iter().find_map(|it| match &it.rdata {
                RData::CNAME(alias) if it.name == owner => Some(alias.0.clone()),
                _ => None,
            });
            let Some(alias) = alias else { break };
            owner = alias;
        }
        let found = all.into_iter().filter(|it| it.rdata.type_code() == kind && it.name == owner);
        Ok(found.map(|it| it.rdata.into_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// The answer to a query with these records, whose owner is the name in the question or given.
    fn answer(query: &[u8], records: &[(Option<&str>, u16, Vec<u8>)]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2] |= 0x80;
        message[7] = u8::try_from(records.len()).expect("few");
        for (owner, kind, data) in records {
            match owner {
                None => message.extend([192, 12]),
                Some(owner) => message.extend(wire_name(owner)),
            }
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 60]);
            message.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            message.extend(data);
        }
        message
    }

    fn wire_name(name: &str) -> Vec<u8> {
        let labels = name.split('.').flat_map(|label| {
            let len = u8::try_from(label.len()).expect("short");
            std::iter::once(len).chain(label.bytes())
        });
        labels.chain([0]).collect()
    }

    const CAA: u16 = 257;
    const CNAME: u16 = 5;

    /// The data of a CAA record with this flag.
    fn caa(flag: u8) -> Vec<u8> {
        vec![flag, 1, b'x']
    }

    /// The flags of the CAA records.
    fn read(message: &[u8], query: &[u8]) -> Result<Vec<u8>, String> {
        let flag = |data: &RData<'_>| match data {
            RData::CAA(it) => it.flag,
            other => panic!("{other:?}"),
        };
        let records = Answer::of(query, message).ok_or("no answer")?.records("a.example", TYPE::CAA);
        records.map(|records| records.iter().map(flag).collect())
    }

    #[test]
    fn records_are_those_at_the_end_of_the_aliases() {
        let query = query(0x102, "a.example", TYPE::CAA).expect("a name");
        let records = [
            (None, CNAME, wire_name("b.example")),
            (Some("B.example"), CNAME, vec![1, b'c', 192, 14]),
            (Some("c.example"), CAA, caa(7)),
            (Some("other.example"), CAA, caa(8)),
            (None, CAA, caa(9)),
        ];
        // The pointer in the second alias leads to 'example'.
        assert_eq!(read(&answer(&query, &records), &query), Ok(vec![7]));
        let ring =
            [(None, CNAME, wire_name("b.example")), (Some("b.example"), CNAME, wire_name("a.example"))];
        assert_eq!(read(&answer(&query, &ring), &query), Ok(Vec::new()));
    }

    #[test]
    fn malformed_answers_and_answers_to_other_queries_are_not_used() {
        let query = query(0x102, "a.example", TYPE::CAA).expect("a name");
        let whole = answer(&query, &[(None, CAA, caa(7))]);
        for len in 0..whole.len() {
            assert!(read(&whole[..len], &query).is_err(), "{len}");
        }
        for at in [0, 1, 2, 5, 14, query.len() - 1] {
            let mut other = whole.clone();
            other[at] ^= 0x80;
            assert_eq!(read(&other, &query), Err("no answer".to_owned()), "{at}");
        }
        let mut upper = whole.clone();
        upper[13] = b'A';
        assert_eq!(read(&upper, &query), Ok(vec![7]), "case does not matter");
        // Pointers to themselves, and to each other.
        for pointer in [query.len(), query.len() + 2] {
            let mut endless = whole.clone();
            endless[query.len()] = 192;
            endless[query.len() + 1] = u8::try_from(pointer).expect("short");
            assert_eq!(read(&endless, &query), Err("sends a malformed answer".to_owned()));
        }
        for (code, outcome) in [(3, Ok(Vec::new())), (2, Err(())), (5, Err(())), (1, Err(()))] {
            let mut failed = whole.clone();
            failed[3] = code;
            assert_eq!(read(&failed, &query).map_err(drop), outcome, "code {code}");
        }
    }

    #[test]
    fn names_that_are_too_long_or_have_empty_labels_are_not_asked_for() {
        let long = "a".repeat(64);
        for name in ["", ".", "a..b", "a.", &long, &["a"; 130].join(".")] {
            assert_eq!(query(0, name, TYPE::A), None, "{name}");
        }
        assert!(query(0, &["a"; 126].join("."), TYPE::A).is_some());
    }

    #[test]
    fn the_name_servers_are_those_of_the_configuration_or_this_machine() {
        let text = "# a comment\nsearch lan\nnameserver 192.0.2.1\nnameserver 2001:db8::1 # first\n\
                    nameserver fe80::1%eth0\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let servers = |text: &str| {
            Resolver::configured(text).servers.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(servers(text), ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert_eq!(servers("search lan\n"), ["127.0.0.1:53"]);
    }

    fn ipv4(last: u8) -> RData<'static> {
        RData::A(Ipv4Addr::new(192, 0, 2, last).into())
    }

    /// A name server: over UDP it sends what `reply` makes of a query, over TCP an address.
    fn server(reply: fn(&[u8]) -> Vec<Vec<u8>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let socket = UdpSocket::bind(address).expect("the same port is free for UDP");
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut bytes) {
                for datagram in reply(&bytes[..len]) {
                    socket.send_to(&datagram, from).expect("loopback");
                }
            }
        });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("the test connects");
                let mut bytes = [0; 512];
                let len = stream.read(&mut bytes).expect("a query");
                let answer = answer(&bytes[2..len], &[(None, 1, vec![192, 0, 2, 9])]);
                let prefix = u16::try_from(answer.len()).expect("short").to_be_bytes();
                stream.write_all(&[&prefix[..], &answer].concat()).expect("it reads");
            }
        });
        address
    }

    #[test]
    fn a_truncated_answer_is_asked_for_over_tcp_and_strangers_are_ignored() {
        let address = server(|query| {
            let mut truncated = answer(query, &[]);
            truncated[2] |= 2;
            let mut forged = answer(query, &[(None, 1, vec![192, 0, 2, 66])]);
            forged[1] ^= 1;
            vec![b"x".to_vec(), forged, truncated]
        });
        let found = Resolver::of(address).records("a.example", TYPE::A, Deadline::after(TRY));
        assert_eq!(found, Ok(vec![ipv4(9)]));
    }

    #[test]
    fn the_next_name_server_is_asked_if_one_cannot_be_reached() {
        let working =
            server(|query| vec![answer(query, &[(None, query[query.len() - 3].into(), vec![192, 0, 2, 1])])]);
        let closed = UdpSocket::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
        let resolver = Resolver { servers: vec![closed, working] };
        let found = resolver.records("a.example", TYPE::A, Deadline::after(Duration::from_secs(60)));
        assert_eq!(found, Ok(vec![ipv4(1)]));
        let nobody =
            Resolver::of(closed).records("a.example", TYPE::A, Deadline::after(Duration::from_secs(60)));
        let why = nobody.expect_err("nothing listens there");
        assert!(why.contains("cannot look up A records of a.example") && why.contains("refused"), "{why}");
    }
}
