//! Lines and fields of direct connections, for the fuzzer to choose from.

use arbitrary::Arbitrary;
use rendezvous_core::acl::Policy;
use rendezvous_core::dtcp::{Direct, Fingerprint};
use rendezvous_core::machine::Listener;
use rendezvous_core::time::Span;

use crate::shell::address;

/// The certificate that peers announce has only this byte.
pub(crate) const THEIRS: u8 = 7;

/// A line of a peer.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Line {
    StartTls,
    /// With the key that the machine offered last.
    Key,
    OkKey,
    Ok,
    Error,
    /// Followed by bytes of the stream.
    OkAndMore,
    ErrorAndMore,
    Nonsense,
}

impl Line {
    pub(crate) fn bytes(self, key: &str) -> Vec<u8> {
        match self {
            Self::StartTls => b"starttls\n".to_vec(),
            Self::Key => format!("key:{key}\n").into_bytes(),
            Self::OkKey => format!("ok:{key}\n").into_bytes(),
            Self::Ok => b"ok\n".to_vec(),
            Self::Error => b"error\n".to_vec(),
            Self::OkAndMore => b"ok\nSSH-2.0-x\r\n".to_vec(),
            Self::ErrorAndMore => b"error\nSSH-2.0-x\r\n".to_vec(),
            Self::Nonsense => b"key\n".to_vec(),
        }
    }
}

/// The fields of a peer's offer.
pub(crate) fn offer(hosts: bool) -> String {
    let hosts = if hosts { "DTCP-Host: 192.0.2.9:1, 192.0.2.9:2\r\n" } else { "" };
    format!("DTCP-Key: theirs\r\n{hosts}DTCP-Fingerprint: {}\r\n", Fingerprint([THEIRS; 32]))
}

/// The key in what a machine sent, if that is an offer.
pub(crate) fn key_of(sent: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(sent);
    let (_, behind) = text.split_once("\r\nDTCP-Key: ")?;
    behind.split("\r\n").next().map(str::to_owned)
}

/// Whether this is exactly one line of a machine.
pub(crate) fn is_line(sent: &[u8]) -> bool {
    let is_one = sent.ends_with(b"\n") && sent.iter().filter(|byte| **byte == b'\n').count() == 1;
    let fixed: [&[u8]; 5] = [b"starttls\n", b"ok\n", b"error\n", b"key:theirs\n", b"ok:theirs\n"];
    is_one && fixed.contains(&sent)
}

pub(crate) fn direct(hosts: bool, listener: u16, timeout: Span) -> Direct {
    Direct {
        hosts: hosts.then(|| address(200).into()).into_iter().collect(),
        listener: Some(Listener(listener)),
        fingerprint: Fingerprint([1; 32]),
        policy: Policy { private: true, ..Policy::default() },
        timeout,
    }
}
