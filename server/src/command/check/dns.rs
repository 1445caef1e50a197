//! Queries to name servers (RFC 1035), for what getaddrinfo(3) cannot look up: CAA records, and addresses that a file such
//! as `/etc/hosts` does not change. They block.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

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
/// The class Internet.
const INTERNET: u16 = 1;
const CNAME: u16 = 5;
/// The length of a header.
const HEADER: usize = 12;

/// A type of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
    /// The CAs that may issue certificates (RFC 8659).
    Caa,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Caa => 257,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Caa => "CAA",
        }
    }
}

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
        let six = self.records(name, Kind::Aaaa, deadline)?;
        let four = self.records(name, Kind::A, deadline)?;
        let six = six.iter().filter_map(|it| <[u8; 16]>::try_from(it.as_slice()).ok());
        let four = four.iter().filter_map(|it| <[u8; 4]>::try_from(it.as_slice()).ok());
        let six = six.map(|it| IpAddr::V6(Ipv6Addr::from(it)));
        Ok(six.chain(four.map(|it| IpAddr::V4(Ipv4Addr::from(it)))).collect())
    }

    /// The data of the records of a name, at the end of its aliases. None if the name or the records do not exist.
    ///
    /// # Errors
    /// No name server gave an answer.
    pub(super) fn records(&self, name: &str, kind: Kind, deadline: Deadline) -> Result<Vec<Vec<u8>>, String> {
        let cannot = |why: &str| format!("cannot look up {} records of {name}: {why}", kind.name());
        let id = entropy::bytes::<2>().map_err(|failure| cannot(&failure.to_string()))?;
        let query = query(*id, name, kind).ok_or_else(|| cannot("it is not a valid name"))?;
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
fn query(id: [u8; 2], name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::from(id);
    // Recursion desired, one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..64).contains(len))?;
        message.push(len);
        message.extend(label.as_bytes());
    }
    message.push(0);
    if message.len() - HEADER > 255 {
        return None;
    }
    message.extend(kind.code().to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    Some(message)
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

/// The answer to a query.
struct Answer {
    message: Vec<u8>,
    /// The position of the first record.
    records: usize,
}

impl Answer {
    /// The answer in this message; `None` if it does not answer the query.
    fn of(query: &[u8], message: &[u8]) -> Option<Self> {
        let question = query.get(HEADER..)?;
        let is_answer = message.get(2)? & 0x80 != 0;
        let records = HEADER + question.len();
        let is_same = message.get(..2) == query.get(..2)
            && message.get(4..6) == query.get(4..6)
            && message.get(HEADER..records)?.eq_ignore_ascii_case(question);
        (is_answer && is_same).then(|| Self { message: message.to_vec(), records })
    }

    fn is_truncated(&self) -> bool {
        self.message.get(2).is_some_and(|flags| flags & 2 != 0)
    }

    /// The data of the records of this kind, at the end of the name's aliases.
    fn records(&self, name: &str, kind: Kind) -> Result<Vec<Vec<u8>>, String> {
        match self.message.get(3).map(|flags| flags & 15) {
            Some(0) => {}
            // The name does not exist.
            Some(3) => return Ok(Vec::new()),
            Some(2) => {
                return Err("answers SERVFAIL: the zone's name servers or its DNSSEC are broken".to_owned());
            }
            Some(5) => return Err("answers REFUSED: it does not serve this machine".to_owned()),
            code => return Err(format!("answers with error {}", code.unwrap_or_default())),
        }
        let all = self.parse().ok_or("sends a malformed answer")?;
        let mut owner = name.to_ascii_lowercase();
        for _ in 0..ALIASES_MAX {
            let alias = all.iter().find(|it| it.kind == CNAME && it.owner == owner);
            let Some(alias) = alias else { break };
            owner = alias.alias.clone().ok_or("sends a malformed alias")?;
        }
        let found = all.into_iter().filter(|it| it.kind == kind.code() && it.owner == owner);
        Ok(found.map(|it| it.data).collect())
    }

    fn parse(&self) -> Option<Vec<Record>> {
        let count = u16::from_be_bytes(*self.message.get(6..8)?.first_chunk()?);
        let mut records = Vec::new();
        let mut at = self.records;
        for _ in 0..count {
            let owner = self.name(&mut at)?;
            let fixed: [u8; 10] = *self.message.get(at..)?.first_chunk()?;
            let [kind, kind_low, _, class, .., len, len_low] = fixed;
            let kind = u16::from_be_bytes([kind, kind_low]);
            at += fixed.len();
            let end = at + usize::from(u16::from_be_bytes([len, len_low]));
            let data = self.message.get(at..end)?.to_vec();
            let alias = if kind == CNAME { Some(self.name(&mut at)?) } else { None };
            at = end;
            if u16::from(class) == INTERNET {
                records.push(Record { owner, kind, data, alias });
            }
        }
        Some(records)
    }

    /// The name at a position, in lower case, and the position behind it. Each pointer leads further to the front, so
    /// that a name ends.
    fn name(&self, at: &mut usize) -> Option<String> {
        let mut labels = Vec::new();
        let (mut position, mut end, mut before) = (*at, None, *at);
        loop {
            let len = *self.message.get(position)?;
            position += 1;
            match len {
                0 => break,
                1..64 => {
                    let label = self.message.get(position..position + usize::from(len))?;
                    labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                    position += usize::from(len);
                }
                192.. => {
                    let to = usize::from(u16::from_be_bytes([len & 63, *self.message.get(position)?]));
                    end.get_or_insert(position + 1);
                    if to >= before {
                        return None;
                    }
                    (position, before) = (to, to);
                }
                64..192 => return None,
            }
        }
        *at = end.unwrap_or(position);
        Some(labels.join("."))
    }
}

struct Record {
    owner: String,
    kind: u16,
    data: Vec<u8>,
    /// The name that an alias leads to.
    alias: Option<String>,
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

    fn read(message: &[u8], query: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        Answer::of(query, message).ok_or("no answer")?.records("a.example", Kind::Caa)
    }

    #[test]
    fn records_are_those_at_the_end_of_the_aliases() {
        let query = query([1, 2], "a.example", Kind::Caa).expect("a name");
        let caa = Kind::Caa.code();
        let records = [
            (None, CNAME, wire_name("b.example")),
            (Some("B.example"), CNAME, vec![1, b'c', 192, 14]),
            (Some("c.example"), caa, vec![7]),
            (Some("other.example"), caa, vec![8]),
            (None, caa, vec![9]),
        ];
        // The pointer in the second alias leads to 'example'.
        assert_eq!(read(&answer(&query, &records), &query), Ok(vec![vec![7]]));
        let ring =
            [(None, CNAME, wire_name("b.example")), (Some("b.example"), CNAME, wire_name("a.example"))];
        assert_eq!(read(&answer(&query, &ring), &query), Ok(Vec::new()));
    }

    #[test]
    fn malformed_answers_and_answers_to_other_queries_are_not_used() {
        let query = query([1, 2], "a.example", Kind::Caa).expect("a name");
        let whole = answer(&query, &[(None, Kind::Caa.code(), vec![7, 7])]);
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
        assert_eq!(read(&upper, &query), Ok(vec![vec![7, 7]]), "case does not matter");
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
            assert_eq!(query([0, 0], name, Kind::A), None, "{name}");
        }
        assert!(query([0, 0], &["a"; 126].join("."), Kind::A).is_some());
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
        let found = Resolver::of(address).records("a.example", Kind::A, Deadline::after(TRY));
        assert_eq!(found, Ok(vec![vec![192, 0, 2, 9]]));
    }

    #[test]
    fn the_next_name_server_is_asked_if_one_cannot_be_reached() {
        let working =
            server(|query| vec![answer(query, &[(None, query[query.len() - 3].into(), vec![192, 0, 2, 1])])]);
        let closed = UdpSocket::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
        let resolver = Resolver { servers: vec![closed, working] };
        let found = resolver.records("a.example", Kind::A, Deadline::after(Duration::from_secs(60)));
        assert_eq!(found, Ok(vec![vec![192, 0, 2, 1]]));
        let nobody =
            Resolver::of(closed).records("a.example", Kind::A, Deadline::after(Duration::from_secs(60)));
        let why = nobody.expect_err("nothing listens there");
        assert!(why.contains("cannot look up A records of a.example") && why.contains("refused"), "{why}");
    }
}
