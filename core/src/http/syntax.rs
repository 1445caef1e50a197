//! The lexical rules that heads, credentials and targets share (RFC 9110 §5.6, RFC 3986 §2 and §3.2).

/// Whether a byte may be in a token (RFC 9110 §5.6.2).
pub(super) const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether a byte may be in a request target: the characters of RFC 3986 §2 but `#`, since a fragment is never sent.
/// Brackets are allowed anywhere, since browsers do not escape them in a query.
pub(super) const fn is_target_byte(byte: u8) -> bool {
    is_unreserved_or_sub_delim(byte) || matches!(byte, b':' | b'/' | b'?' | b'[' | b']' | b'@' | b'%')
}

const fn is_unreserved_or_sub_delim(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

/// Whether all bytes of `text` may be in a request target.
#[cfg(feature = "acme")]
pub(crate) fn is_target(text: &str) -> bool {
    text.bytes().all(is_target_byte)
}

/// Whether a byte is a space or a horizontal tab.
pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `text` without surrounding optional whitespace (RFC 9110 §5.6.3).
pub(super) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

/// `text` without leading optional whitespace.
pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    let blank = text.iter().take_while(|&&byte| is_blank(byte)).count();
    text.get(blank..).unwrap_or_default()
}

fn trim_end(text: &[u8]) -> &[u8] {
    let blank = text.iter().rev().take_while(|&&byte| is_blank(byte)).count();
    text.get(..text.len() - blank).unwrap_or_default()
}

/// A decimal number of digits only: no sign, no space, not empty, not above `u64::MAX`.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// `text` after `prefix`, case-insensitively.
pub(super) fn strip_prefix_caseless<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (front, rest) = text.split_at_checked(prefix.len())?;
    front.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// `uri-host [ ":" port ]`: a `Host` field, or the authority of a target without user information.
#[derive(Clone, Copy)]
pub(crate) struct Authority<'a> {
    /// A registered name, an IPv4 address, or an IPv6 address in brackets; may be empty (RFC 9110 §7.2).
    pub(crate) host: &'a str,
    /// `None` without a port, or with an empty one.
    pub(crate) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Returns `None` for anything that RFC 3986 §3.2 does not allow, for user information, and for a port above
    /// 65535.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let host_bytes = match text.strip_prefix('[') {
            Some(inner) => inner.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at_checked(host_bytes)?;
        let port = match rest.strip_prefix(':') {
            Some("") => None,
            Some(digits) => Some(u16::try_from(decimal(digits.as_bytes())?).ok()?),
            None if rest.is_empty() => None,
            None => return None,
        };
        is_host(host).then_some(Self { host, port })
    }

    /// Whether both name the same host and port; `default` is the default port of the scheme.
    pub(super) fn is_same(&self, other: &Self, default: Option<u16>) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port.or(default) == other.port.or(default)
    }
}

/// Whether the text is a valid `Host` value.
#[cfg(feature = "trace")]
pub(crate) fn is_authority(text: &str) -> bool {
    Authority::parse(text).is_some()
}

fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => {
            !inner.is_empty() && inner.bytes().all(|it| is_unreserved_or_sub_delim(it) || it == b':')
        }
        None => text.bytes().all(|it| is_unreserved_or_sub_delim(it) || it == b'%'),
    }
}
