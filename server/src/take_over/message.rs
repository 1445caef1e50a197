//! The messages, as bytes.
//!
//! A message is a header of eight bytes and a body: version (16 bits), kind (16 bits), and the length of the body (32 bits),
//! all big-endian. The header, [`Kind::Hello`] and [`Kind::Refused`] are the same in all versions, so that processes of
//! different versions can tell each other why there is no take-over.

use std::fmt;

use rendezvous_core::id::Id;
use rendezvous_core::registry::UsedToken;

use super::label::Label;
use crate::usage::Amount;

/// The version of the messages.
pub const VERSION: u16 = 1;
/// The length of a header.
pub(super) const HEADER: usize = 8;
/// Limit of a body, in bytes.
pub(super) const BODY_MAX: usize = 64 * 1024;
/// Limit of the descriptors of one message: that of the kernel (SCM_MAX_FD).
pub const DESCRIPTORS_MAX: usize = 253;
/// Limit of the tokens of one message.
pub const TOKENS_MAX: usize = 1_000;
/// Limit of the entries of one message about traffic.
pub const MOVED_MAX: usize = 1_000;
/// Limit of the text of one message with records, in bytes.
pub const RECORDS_MAX: usize = 48 * 1024;
/// The length of a token: its ID, its bytes, and the second in which it expires.
const TOKEN: usize = 16 + 16 + 8;
/// The length of an entry about traffic: the ID, and three numbers.
const MOVED: usize = 16 + 3 * 8;

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// The first message of a process that takes over. Its body is the version of the program.
    Hello = 1,
    /// Some of the listening sockets.
    Sockets = 2,
    /// The new process has loaded everything and has the sockets.
    Ready = 3,
    /// Some of the used tokens.
    Tokens = 4,
    /// Some of the records of traffic, in the form of the file `usage`.
    Records = 5,
    /// Everything was sent.
    Commit = 6,
    /// The new process serves from now on.
    Taken = 7,
    /// The sockets of the new process have their names.
    Settled = 8,
    /// There is no take-over. Its body is the reason.
    Refused = 9,
    /// The first message of a process that was taken over from, to another one than its successor.
    Older = 10,
    /// The state of a process that was taken over from.
    Report = 11,
    /// What has moved in such a process since its last message.
    Traffic = 12,
    /// Such a process should end connections.
    Kick = 13,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Hello,
        Self::Sockets,
        Self::Ready,
        Self::Tokens,
        Self::Records,
        Self::Commit,
        Self::Taken,
        Self::Settled,
        Self::Refused,
        Self::Older,
        Self::Report,
        Self::Traffic,
        Self::Kick,
    ];

    fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// A message, apart from its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// [`Kind::Hello`]
    Hello {
        /// The version of the program.
        program: String,
    },
    /// [`Kind::Sockets`]
    Sockets {
        /// A label for each of the descriptors, in their order.
        labels: Vec<Label>,
        /// Whether no further message of this kind follows.
        is_last: bool,
    },
    /// [`Kind::Ready`]
    Ready,
    /// [`Kind::Tokens`]
    Tokens(Vec<UsedToken>),
    /// [`Kind::Records`]: whole lines.
    Records(String),
    /// [`Kind::Commit`]
    Commit,
    /// [`Kind::Taken`]
    Taken,
    /// [`Kind::Settled`]
    Settled,
    /// [`Kind::Refused`]
    Refused {
        /// The reason.
        why: String,
    },
    /// [`Kind::Older`]
    Older,
    /// [`Kind::Report`]
    Report {
        /// Seconds of the wall clock at which the process started.
        started: u64,
        /// Its connections.
        connections: u64,
        /// Its pairs.
        pairs: u64,
    },
    /// [`Kind::Traffic`]: for each ID.
    Traffic(Vec<(Id, Amount)>),
    /// [`Kind::Kick`]: the connections, as `POST /api/kick` names them.
    Kick(String),
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The other process has another version of the messages.
    Version(u16),
    /// The kind is unknown.
    Kind(u16),
    /// The body is longer than the limit.
    Length(u32),
    /// The body of this kind is malformed.
    Body(Kind),
    /// The number of descriptors is not that of the labels.
    Descriptors,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "the other process has version {version} of the take-over, this one version {VERSION}: restart the relay instead"
            ),
            Self::Kind(kind) => write!(f, "a message of the unknown kind {kind}"),
            Self::Length(bytes) => write!(f, "a message of {bytes} bytes, more than {BODY_MAX}"),
            Self::Body(kind) => write!(f, "a malformed message {kind:?}"),
            Self::Descriptors => write!(f, "a message with a wrong number of descriptors"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) body_bytes: usize,
}

/// Parses a header. The version of [`Kind::Refused`] may be another one.
pub(super) fn parse_header(bytes: [u8; HEADER]) -> Result<Header, FrameError> {
    let [v0, v1, k0, k1, length @ ..] = bytes;
    let (version, number) = (u16::from_be_bytes([v0, v1]), u16::from_be_bytes([k0, k1]));
    if version != VERSION && number != Kind::Refused as u16 {
        return Err(FrameError::Version(version));
    }
    let kind = Kind::of(number).ok_or(FrameError::Kind(number))?;
    let length = u32::from_be_bytes(length);
    let body_bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= BODY_MAX);
    Ok(Header { kind, body_bytes: body_bytes.ok_or(FrameError::Length(length))? })
}

impl Message {
    /// The message as bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let kind = self.write(&mut body);
        debug_assert!(body.len() <= BODY_MAX, "{} bytes of {kind:?}", body.len());
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&(kind as u16).to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    fn write(&self, body: &mut Vec<u8>) -> Kind {
        match self {
            Self::Hello { program } => {
                body.extend_from_slice(program.as_bytes());
                Kind::Hello
            }
            Self::Sockets { labels, is_last } => {
                body.push(u8::from(*is_last));
                for label in labels {
                    body.extend_from_slice(label.to_string().as_bytes());
                    body.push(b'\n');
                }
                Kind::Sockets
            }
            Self::Ready => Kind::Ready,
            Self::Tokens(tokens) => {
                for token in tokens {
                    body.extend_from_slice(&token.id.0.to_be_bytes());
                    body.extend_from_slice(&token.token);
                    body.extend_from_slice(&token.until.to_be_bytes());
                }
                Kind::Tokens
            }
            Self::Records(lines) => {
                body.extend_from_slice(lines.as_bytes());
                Kind::Records
            }
            Self::Commit => Kind::Commit,
            Self::Taken => Kind::Taken,
            Self::Settled => Kind::Settled,
            Self::Refused { why } => {
                body.extend_from_slice(why.as_bytes());
                Kind::Refused
            }
            Self::Older => Kind::Older,
            Self::Report { started, connections, pairs } => {
                for number in [started, connections, pairs] {
                    body.extend_from_slice(&number.to_be_bytes());
                }
                Kind::Report
            }
            Self::Traffic(moved) => {
                for (id, Amount { from_client, from_hidden, pairs }) in moved {
                    body.extend_from_slice(&id.0.to_be_bytes());
                    for number in [from_client, from_hidden, pairs] {
                        body.extend_from_slice(&number.to_be_bytes());
                    }
                }
                Kind::Traffic
            }
            Self::Kick(what) => {
                body.extend_from_slice(what.as_bytes());
                Kind::Kick
            }
        }
    }

    /// Parses a body.
    pub(super) fn parse(kind: Kind, body: &[u8]) -> Result<Self, FrameError> {
        Self::read(kind, body).ok_or(FrameError::Body(kind))
    }

    fn read(kind: Kind, body: &[u8]) -> Option<Self> {
        let text = || std::str::from_utf8(body).ok().map(str::to_owned);
        let empty = |message: Self| body.is_empty().then_some(message);
        match kind {
            Kind::Hello => Some(Self::Hello { program: text()? }),
            Kind::Sockets => {
                let (is_last, rest) = body.split_first()?;
                let is_last = match is_last {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                let labels = std::str::from_utf8(rest).ok()?;
                if !labels.is_empty() && !labels.ends_with('\n') {
                    return None;
                }
                let labels = labels.lines().map(Label::parse).collect::<Option<Vec<_>>>()?;
                (labels.len() <= DESCRIPTORS_MAX).then_some(Self::Sockets { labels, is_last })
            }
            Kind::Ready => empty(Self::Ready),
            Kind::Tokens => entries(body, TOKEN, |mut rest| {
                Some(UsedToken {
                    id: Id(u128::from_be_bytes(take(&mut rest)?)),
                    token: take(&mut rest)?,
                    until: u64::from_be_bytes(take(&mut rest)?),
                })
            })
            .map(Self::Tokens),
            Kind::Records => Some(Self::Records(text()?)),
            Kind::Commit => empty(Self::Commit),
            Kind::Taken => empty(Self::Taken),
            Kind::Settled => empty(Self::Settled),
            // Of another version, its text may be anything.
            Kind::Refused => Some(Self::Refused { why: String::from_utf8_lossy(body).into_owned() }),
            Kind::Older => empty(Self::Older),
            Kind::Report => {
                let mut rest = body;
                let mut number = || take(&mut rest).map(u64::from_be_bytes);
                let (started, connections, pairs) = (number()?, number()?, number()?);
                rest.is_empty().then_some(Self::Report { started, connections, pairs })
            }
            Kind::Traffic => entries(body, MOVED, |mut rest| {
                let id = Id(u128::from_be_bytes(take(&mut rest)?));
                let mut number = || take(&mut rest).map(u64::from_be_bytes);
                Some((id, Amount { from_client: number()?, from_hidden: number()?, pairs: number()? }))
            })
            .map(Self::Traffic),
            Kind::Kick => Some(Self::Kick(text()?)),
        }
    }

    /// The number of descriptors that belong to the message.
    pub(super) fn descriptors(&self) -> usize {
        if let Self::Sockets { labels, .. } = self { labels.len() } else { 0 }
    }
}

/// Parses entries of the same length.
fn entries<T>(body: &[u8], length: usize, read: impl Fn(&[u8]) -> Option<T>) -> Option<Vec<T>> {
    let pieces = body.chunks_exact(length);
    if !pieces.remainder().is_empty() {
        return None;
    }
    pieces.map(read).collect()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (front, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*front)
}

#[cfg(test)]
mod tests {
    use super::super::label::Role;
    use super::*;

    fn all() -> Vec<Message> {
        let labels = vec![
            Label { role: Role::Tls, is_inherited: true, address: "[::]:443".to_owned() },
            Label { role: Role::AcmeLock, is_inherited: false, address: String::new() },
        ];
        vec![
            Message::Hello { program: "0.1.0".to_owned() },
            Message::Sockets { labels, is_last: true },
            Message::Sockets { labels: Vec::new(), is_last: false },
            Message::Ready,
            Message::Tokens(vec![UsedToken { id: Id(7), token: [9; 16], until: u64::MAX }; TOKENS_MAX]),
            Message::Records("a\nb\n".to_owned()),
            Message::Commit,
            Message::Taken,
            Message::Settled,
            Message::Refused { why: "no".to_owned() },
            Message::Older,
            Message::Report { started: 1, connections: 2, pairs: 3 },
            Message::Traffic(vec![
                (Id(u128::MAX), Amount { from_client: 1, from_hidden: u64::MAX, pairs: 0 });
                MOVED_MAX
            ]),
            Message::Kick("{}".to_owned()),
        ]
    }

    fn parse(bytes: &[u8]) -> Result<Message, FrameError> {
        let (header, body) = bytes.split_first_chunk().expect("a header");
        let header = parse_header(*header)?;
        assert_eq!(header.body_bytes, body.len());
        Message::parse(header.kind, body)
    }

    #[test]
    fn each_message_is_read_as_it_was_written() {
        for message in all() {
            let bytes = message.bytes();
            assert!(bytes.len() <= HEADER + BODY_MAX);
            assert_eq!(parse(&bytes).as_ref(), Ok(&message));
        }
    }

    #[test]
    fn an_unknown_version_is_named_but_a_refusal_of_any_version_is_read() {
        let mut hello = all()[0].bytes();
        hello[1] = 2;
        let error = parse(&hello).unwrap_err();
        assert_eq!(error, FrameError::Version(2));
        assert_eq!(
            error.to_string(),
            "the other process has version 2 of the take-over, this one version 1: restart the relay instead"
        );
        let mut refused = Message::Refused { why: "no".to_owned() }.bytes();
        refused[0] = 9;
        assert_eq!(parse(&refused), Ok(Message::Refused { why: "no".to_owned() }));
    }

    #[test]
    fn no_length_and_no_kind_is_believed() {
        let header = |kind: u16, length: u32| {
            let mut bytes = [0; HEADER];
            bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
            bytes[2..4].copy_from_slice(&kind.to_be_bytes());
            bytes[4..].copy_from_slice(&length.to_be_bytes());
            parse_header(bytes)
        };
        let most = u32::try_from(BODY_MAX).unwrap();
        assert!(header(4, most).is_ok());
        assert_eq!(header(4, most + 1), Err(FrameError::Length(most + 1)));
        assert_eq!(header(4, u32::MAX), Err(FrameError::Length(u32::MAX)));
        assert_eq!(header(0, 0), Err(FrameError::Kind(0)));
        assert_eq!(header(99, 0), Err(FrameError::Kind(99)));
    }

    #[test]
    fn a_body_that_is_cut_or_longer_is_malformed_or_another_message_and_no_panic() {
        for message in all() {
            let bytes = message.bytes();
            let header = parse_header(*bytes.first_chunk().unwrap()).unwrap();
            let body = &bytes[HEADER..];
            for end in 0..body.len().min(200) {
                let cut = Message::parse(header.kind, &body[..end]);
                assert!(cut.as_ref() != Ok(&message), "{message:?}");
            }
            let longer = [body, &[0xff]].concat();
            assert!(Message::parse(header.kind, &longer).as_ref() != Ok(&message), "{message:?}");
        }
        // Arbitrary bodies.
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        for _ in 0..2_000 {
            let body: Vec<u8> = (0..next() % 90).map(|_| next()).collect();
            for kind in Kind::ALL {
                if let Ok(message) = Message::parse(kind, &body) {
                    assert!(message.descriptors() <= DESCRIPTORS_MAX);
                }
            }
        }
    }
}
