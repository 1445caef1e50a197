//! Parses the server name of a TLS ClientHello without answering it (RFC 8446 §4.1.2, RFC 6066 §3).
//!
//! The relay routes a client of an end-to-end hidden server by this name, and forwards every byte of the hello
//! unchanged. So only the name is interpreted. Unknown extensions, cipher suites and versions are left to the hidden
//! server. With an Encrypted ClientHello the outer name counts.
//!
//! ```
//! use rendezvous_core::client_hello::{ClientHello, Reader};
//!
//! let mut reader = Reader::default();
//! // The beginning of a record: more bytes are needed.
//! assert_eq!(reader.read(&[22, 3, 1]), ClientHello::Partial);
//! // No TLS record begins like this.
//! assert_eq!(Reader::default().read(b"GET / HTTP/1.1"), ClientHello::NotTls);
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// The maximum length of a ClientHello with its handshake header of four bytes, in bytes.
pub const MESSAGE_MAX: usize = 16 * 1024;
/// The maximum length of a ClientHello with its record headers, in bytes.
pub const WIRE_MAX: usize = MESSAGE_MAX + 2 * 1024;

/// The maximum length of a name, in bytes (RFC 1035 §2.3.4).
const NAME_MAX: usize = 253;
/// The maximum length of a label, in bytes.
const LABEL_MAX: usize = 63;
/// The maximum length of a record's plaintext, in bytes (RFC 8446 §5.1).
const RECORD_MAX: usize = 16 * 1024;
const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;

/// The content type of a handshake record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// The type of the ClientHello message (RFC 8446 §4).
const CLIENT_HELLO: u8 = 1;
/// The extension `server_name` (RFC 6066 §3).
const SERVER_NAME: u16 = 0;
/// The extension `application_layer_protocol_negotiation` (RFC 7301 §3.1).
const APPLICATION_PROTOCOLS: u16 = 16;
/// The only defined type of name.
const HOST_NAME: u8 = 0;

/// The result of reading the first bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientHello {
    /// An incomplete ClientHello.
    Partial,
    /// A complete ClientHello with a host name: in lower case, without a trailing dot.
    Name(String),
    /// A complete ClientHello without a host name. An IP address does not count as one.
    NoName,
    /// The first byte is not that of a TLS handshake.
    NotTls,
    /// The host name is malformed or ambiguous.
    Refused(Malformed),
}

/// Why a ClientHello is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A record is malformed.
    Record,
    /// The handshake message is not a ClientHello, or its lengths are contradictory.
    Message,
    /// It is longer than [`MESSAGE_MAX`], or has too many records.
    TooLong,
    /// There are several names, or a name is not a host name.
    Name,
}

/// A fatal alert, as the record of a server that has received only the ClientHello (RFC 8446 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// `decode_error`: the ClientHello is malformed.
    DecodeError,
    /// `unrecognized_name`: no hidden server has this name.
    UnrecognizedName,
}

impl Alert {
    /// The alert's record.
    #[must_use]
    pub const fn record(self) -> [u8; 7] {
        let description = match self {
            Self::DecodeError => 50,
            Self::UnrecognizedName => 112,
        };
        [21, 3, 3, 0, 2, 2, description]
    }
}

impl Malformed {
    /// The reason, for logs.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Record => "malformed TLS record",
            Self::Message => "malformed ClientHello",
            Self::TooLong => "ClientHello too long",
            Self::Name => "malformed server name",
        }
    }
}

/// Reads one ClientHello. It scans each byte once, and keeps none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// The offset of the next record.
    next: u32,
    /// The number of message bytes in the records before it.
    message: u32,
}

impl Reader {
    /// Reads everything that was received on the connection, from the first byte on.
    ///
    /// The result does not depend on the pieces in which the bytes arrive. Bytes after the ClientHello are ignored.
    pub fn read(&mut self, wire: &[u8]) -> ClientHello {
        match self.find(wire) {
            Ok(None) if wire.len() >= WIRE_MAX => ClientHello::Refused(Malformed::TooLong),
            Ok(None) => ClientHello::Partial,
            Ok(Some(message)) => match server_name(&message) {
                Ok(Some(name)) => ClientHello::Name(name),
                Ok(None) => ClientHello::NoName,
                Err(why) => ClientHello::Refused(why),
            },
            Err(_) if wire.first() != Some(&HANDSHAKE) => ClientHello::NotTls,
            Err(why) => ClientHello::Refused(why),
        }
    }

    /// The body of the ClientHello, once it is complete.
    fn find(&mut self, wire: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        loop {
            let at = self.next as usize;
            let record = wire.get(at..).unwrap_or_default();
            let Some(content) = record_content(record)? else { return Ok(None) };
            // The message's own header may span several records.
            let end = at + RECORD_HEADER + content.len;
            let message = self.message as usize + content.len;
            let front = wire.get(..end.min(wire.len())).unwrap_or_default();
            let needed = message_len(front)?;
            if content.is_whole {
                self.next = u32::try_from(end).unwrap_or(u32::MAX);
                self.message = u32::try_from(message).unwrap_or(u32::MAX);
            }
            match needed {
                Some(needed) if needed <= message => {
                    if !content.is_whole {
                        return Ok(None);
                    }
                    let mut bytes: Vec<u8> = contents(front).flatten().copied().collect();
                    bytes.truncate(needed);
                    bytes.drain(..HANDSHAKE_HEADER);
                    return Ok(Some(bytes));
                }
                _ if !content.is_whole => return Ok(None),
                _ => {}
            }
        }
    }
}

/// The content of the record at the front.
struct Content {
    /// Its length in bytes.
    len: usize,
    /// Whether all of it has been received.
    is_whole: bool,
}

/// Parses the header of a record; `None` if it is incomplete.
fn record_content(record: &[u8]) -> Result<Option<Content>, Malformed> {
    match *record {
        [kind, ..] if kind != HANDSHAKE => return Err(Malformed::Record),
        [_, major, ..] if major != 3 => return Err(Malformed::Record),
        _ => {}
    }
    let Some(&[_, _, _, high, low]) = record.first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len == 0 || len > RECORD_MAX {
        return Err(Malformed::Record);
    }
    Ok(Some(Content { len, is_whole: record.len() >= RECORD_HEADER + len }))
}

/// The contents of the records at the front of the wire; the last one may be incomplete.
fn contents(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let (&[_, _, _, high, low], rest) = wire.split_first_chunk::<RECORD_HEADER>()?;
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let content;
        (content, wire) = rest.split_at(len);
        Some(content)
    })
}

/// The length in the ClientHello's header, including that header; `None` if it is incomplete.
fn message_len(wire: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut header = [0; HANDSHAKE_HEADER];
    let mut filled = 0;
    for (to, from) in header.iter_mut().zip(contents(wire).flatten()) {
        *to = *from;
        filled += 1;
    }
    if filled > 0 && header[0] != CLIENT_HELLO {
        return Err(Malformed::Message);
    }
    if filled < HANDSHAKE_HEADER {
        return Ok(None);
    }
    let [_, high, middle, low] = header;
    let len = u32::from_be_bytes([0, high, middle, low]) as usize + HANDSHAKE_HEADER;
    if len > MESSAGE_MAX { Err(Malformed::TooLong) } else { Ok(Some(len)) }
}

/// Whether bytes begin like a TLS handshake.
#[cfg(feature = "trace")]
pub(crate) fn begins(wire: &[u8]) -> bool {
    wire.first() == Some(&HANDSHAKE)
}

/// The application protocol (ALPN) that an agent offers alone to a relay of a group. Its server name is that of its
/// clients, whose TLS the relay may not terminate (`docs/protocol.md §12`).
pub const AGENT_PROTOCOL: &[u8] = b"rendezvous-agent";

/// Whether the bytes begin with a complete ClientHello that offers this application protocol and no other (ALPN, RFC
/// 7301 §3.1).
#[must_use]
pub fn offers_only(wire: &[u8], protocol: &[u8]) -> bool {
    let Ok(Some(message)) = Reader::default().find(wire) else { return false };
    let Ok(Some(list)) = extension(&message, APPLICATION_PROTOCOLS) else { return false };
    let mut list = Cursor(list);
    let only = list.part16().and_then(|names| Cursor(names).part8().map(|name| (names, name)));
    only.is_ok_and(|(names, name)| name == protocol && names.len() == 1 + name.len())
}

/// For traces: appends as many bytes with the same result. Of a complete hello only its form and the server name are
/// kept; the bytes after it become zeroes.
#[cfg(feature = "trace")]
pub(crate) fn redact(wire: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(wire);
    let verdict = Reader::default().read(wire);
    if !matches!(verdict, ClientHello::Name(_) | ClientHello::NoName) {
        return;
    }
    let Some(copy) = out.get_mut(begin..) else { return };
    let keeps = kept_of_message(wire);
    let mut end = 0;
    for (at, keep) in message_places(wire).zip(keeps) {
        if let Some(byte) = copy.get_mut(at).filter(|_| !keep) {
            *byte = 0;
        }
        end = at + 1;
    }
    copy.iter_mut().skip(end).for_each(|byte| *byte = 0);
}

/// The offset of each byte of the message in the wire.
#[cfg(feature = "trace")]
fn message_places(wire: &[u8]) -> impl Iterator<Item = usize> {
    let mut begin = 0;
    contents(wire).flat_map(move |content| {
        let first = begin + RECORD_HEADER;
        begin = first + content.len();
        first..begin
    })
}

/// For each byte of a well-formed message, whether it is kept: lengths, types and the server name.
#[cfg(feature = "trace")]
fn kept_of_message(wire: &[u8]) -> Vec<bool> {
    let message: Vec<u8> = contents(wire).flatten().copied().collect();
    let is_agent = offers_only(wire, AGENT_PROTOCOL);
    let len = message_len(wire).ok().flatten().unwrap_or(0).min(message.len());
    let mut keeps = Vec::with_capacity(len);
    let mut part = |keep: bool, len: usize| keeps.extend(core::iter::repeat_n(keep, len));
    let mut hello = Cursor(message.get(HANDSHAKE_HEADER..len).unwrap_or_default());
    part(true, HANDSHAKE_HEADER + 2);
    let mut walk = || {
        hello.take(2)?;
        hello.take(32)?;
        part(false, 32);
        let session = hello.part8()?.len();
        part(true, 1);
        part(false, session);
        let suites = hello.part16()?.len();
        let compression = hello.part8()?.len();
        part(true, 2 + suites + 1 + compression);
        let mut extensions = Cursor(hello.part16()?);
        part(true, 2);
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let data = extensions.part16()?.len();
            part(true, 4);
            part(kind == SERVER_NAME || (is_agent && kind == APPLICATION_PROTOCOLS), data);
        }
        Ok::<(), Malformed>(())
    };
    // A hello without extensions ends early; there is nothing left to mark.
    let _ = walk();
    keeps.resize(len, true);
    keeps
}

/// A cursor over bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed::Message)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A part with a length prefix of one byte.
    fn part8(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// A part with a length prefix of two bytes.
    fn part16(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

/// The host name in the body of a ClientHello.
fn server_name(body: &[u8]) -> Result<Option<String>, Malformed> {
    extension(body, SERVER_NAME)?.map_or(Ok(None), host_name)
}

/// The data of the only extension of a type in the body of a ClientHello.
fn extension(body: &[u8], wanted: u16) -> Result<Option<&[u8]>, Malformed> {
    let mut hello = Cursor(body);
    let _version = hello.u16()?;
    let _random = hello.take(32)?;
    if hello.part8()?.len() > 32 {
        return Err(Malformed::Message);
    }
    let suites = hello.part16()?;
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(Malformed::Message);
    }
    if hello.part8()?.is_empty() {
        return Err(Malformed::Message);
    }
    if hello.0.is_empty() {
        // Very old clients send no extensions.
        return Ok(None);
    }
    let mut extensions = Cursor(hello.part16()?);
    if !hello.0.is_empty() {
        return Err(Malformed::Message);
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.part16()?;
        if kind == wanted && found.replace(data).is_some() {
            return Err(Malformed::Name);
        }
    }
    Ok(found)
}

/// The name in the `server_name` extension.
fn host_name(data: &[u8]) -> Result<Option<String>, Malformed> {
    let mut data = Cursor(data);
    let mut list = Cursor(data.part16()?);
    let (kind, name) = (list.u8()?, list.part16()?);
    if kind != HOST_NAME || !list.0.is_empty() || !data.0.is_empty() {
        return Err(Malformed::Name);
    }
    canonical(name)
}

/// A host name in lower case and without a trailing dot; `None` for an IP address (RFC 6066 §3 allows none).
fn canonical(name: &[u8]) -> Result<Option<String>, Malformed> {
    let name = core::str::from_utf8(name).map_err(|_| Malformed::Name)?;
    if name.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_MAX
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() > NAME_MAX || !name.split('.').all(is_label) {
        return Err(Malformed::Name);
    }
    Ok(Some(name.to_ascii_lowercase()))
}

#[cfg(all(test, feature = "trace"))]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_hello_has_the_same_form_and_name_and_nothing_else() {
        let mut body = alloc::vec![3, 3];
        body.extend([7; 32]);
        body.extend([4, 9, 9, 9, 9]);
        body.extend([0, 2, 0x13, 1, 1, 0]);
        let name = [0, 0, 0, 6, 0, 4, 0, 0, 1, b'a'];
        let other = [0, 51, 0, 3, 9, 9, 9];
        body.extend([0, 17]);
        body.extend(other);
        body.extend(name);
        let mut message = alloc::vec![1, 0, 0, u8::try_from(body.len()).unwrap_or(0)];
        message.extend(body);
        let mut wire = Vec::new();
        for part in message.chunks(5) {
            wire.extend([22, 3, 1, 0, u8::try_from(part.len()).unwrap_or(0)]);
            wire.extend(part);
        }
        wire.extend([23, 3, 3, 0, 1, 9]);
        let mut redacted = Vec::new();
        redact(&wire, &mut redacted);
        assert_eq!(redacted.len(), wire.len());
        assert!(!redacted.contains(&9) && !redacted.contains(&7), "{redacted:?}");
        assert_eq!(Reader::default().read(&redacted), ClientHello::Name(String::from("a")));
        assert_eq!(Reader::default().read(&wire), ClientHello::Name(String::from("a")));
    }
}
