//! The reasons for refusing a head.

use super::status::Status;

/// The reason why a request head is refused. Each has a [`status`](Self::status) and a fixed text for the response's
/// body. The rules are the strictest of RFC 9112, since what is forwarded unchanged must be interpreted in the same
/// way by everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first byte cannot begin a request: a TLS handshake on a plain-text listener, or another protocol.
    NotHttp,
    /// More than one empty line before the request line (RFC 9112 §2.2 asks to ignore one).
    BlankLines,
    /// LF without CR (RFC 9112 §2.2 permits it, but not if the head is forwarded).
    BareLineFeed,
    /// CR without LF (RFC 9112 §2.2).
    BareCarriageReturn,
    /// A control byte other than those, or than a tab in a field.
    Control,
    /// Not `method SP target SP version`, a byte outside RFC 3986 in the target, or an invalid version.
    RequestLine,
    /// A form of target that the method does not have (RFC 9112 §3.2).
    TargetForm,
    /// A folded field (RFC 9112 §5.2).
    Folded,
    /// A field name that is empty, not a token, or followed by a space (RFC 9112 §5.1).
    FieldName,
    /// An invalid byte in a field value (RFC 9110 §5.5).
    FieldValue,
    /// HTTP/1.1 without `Host` (RFC 9112 §3.2).
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// A `Host` that is not a host with or without a port.
    HostMalformed,
    /// A `Host` that differs from the target's host.
    HostContradicts,
    /// More than one `Authorization`.
    AuthorizationRepeated,
    /// A `Content-Length` that is not a number, is repeated, or is combined with a `Transfer-Encoding` (RFC 9112
    /// §6.3).
    ContentLength,
    /// A `Transfer-Encoding` other than a single `chunked` in HTTP/1.1 (RFC 9112 §6.1).
    TransferEncoding,
    /// A CONNECT that announces a body.
    ConnectBody,
    /// A CONNECT where only requests for one server are forwarded (RFC 9110 §9.3.6).
    Tunnel,
    /// An `Expect` other than a single `100-continue` (RFC 9110 §10.1.1).
    Expect,
    /// A malformed chunk (RFC 9112 §7.1), or a chunk extension that does not consist of tokens.
    Chunk,
    /// A trailer field that belongs in a head: framing, routing, credentials, forwarding (RFC 9110 §6.5.1).
    Trailer,
    /// The bytes end before the head does. [`Finder`](super::head::Finder) never passes on such a head.
    Incomplete,
    /// The request line exceeds the limit.
    LineTooLong,
    /// The head exceeds the limit.
    HeadTooLarge,
    /// More than [`FIELDS_MAX`](super::head::FIELDS_MAX) fields.
    TooManyFields,
    /// Neither HTTP/1.0 nor HTTP/1.1, or a CONNECT with HTTP/1.0.
    Version,
}

impl Refusal {
    /// The status of the response.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::LineTooLong => Status::UriTooLong414,
            Self::HeadTooLarge | Self::TooManyFields => Status::HeadTooLarge431,
            Self::Version => Status::VersionNotSupported505,
            _ => Status::BadRequest400,
        }
    }

    /// A fixed text for the response and the log, without any of the peer's bytes.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::NotHttp => "not HTTP",
            Self::BlankLines => "more than one empty line before the request",
            Self::BareLineFeed => "LF without CR",
            Self::BareCarriageReturn => "CR without LF",
            Self::Control => "control character",
            Self::RequestLine => "malformed request line",
            Self::TargetForm => "form of target does not fit the method",
            Self::Folded => "folded field",
            Self::FieldName => "malformed field name",
            Self::FieldValue => "malformed field value",
            Self::HostMissing => "no Host",
            Self::HostRepeated => "more than one Host",
            Self::HostMalformed => "malformed Host",
            Self::HostContradicts => "Host contradicts the target",
            Self::AuthorizationRepeated => "more than one Authorization",
            Self::ContentLength => "malformed Content-Length",
            Self::TransferEncoding => "malformed Transfer-Encoding",
            Self::ConnectBody => "CONNECT with a body",
            Self::Tunnel => "CONNECT is not forwarded",
            Self::Expect => "unsupported Expect",
            Self::Chunk => "malformed chunk",
            Self::Trailer => "field not allowed in a trailer",
            Self::Incomplete => "incomplete head",
            Self::LineTooLong => "request line too long",
            Self::HeadTooLarge => "head too large",
            Self::TooManyFields => "too many fields",
            Self::Version => "HTTP version not supported",
        }
    }
}
