//! Why a head is refused.

use super::status::Status;

/// Why a request head is refused. Each has its [`status`](Self::status) and a fixed text for the answer's body; the
/// rules are those of RFC 9112, at their strictest: what is passed on byte for byte must mean one thing to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first byte cannot begin a request: a TLS handshake on a listener in clear, another protocol.
    NotHttp,
    /// More than one empty line before the request line (RFC 9112 §2.2 asks for one to be ignored).
    BlankLines,
    /// LF without CR (RFC 9112 §2.2 allows it; who passes heads on must not).
    BareLineFeed,
    /// CR without LF (RFC 9112 §2.2).
    BareCarriageReturn,
    /// Another control byte than those, or than a tab in a field.
    Control,
    /// Not `method SP target SP version`, or a byte outside RFC 3986 in the target, or no such version at all.
    RequestLine,
    /// A form of target that the method does not have (RFC 9112 §3.2).
    TargetForm,
    /// A folded field (RFC 9112 §5.2).
    Folded,
    /// A field name that is empty, no token, or followed by a space (RFC 9112 §5.1).
    FieldName,
    /// A byte in a field's value that may not be there (RFC 9110 §5.5).
    FieldValue,
    /// HTTP/1.1 without `Host` (RFC 9112 §3.2).
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// A `Host` that is no host with or without a port.
    HostMalformed,
    /// A `Host` that names another place than the target does.
    HostContradicts,
    /// More than one `Authorization`.
    AuthorizationRepeated,
    /// A `Content-Length` that is no number, comes twice, or comes with a `Transfer-Encoding` (RFC 9112 §6.3).
    ContentLength,
    /// A `Transfer-Encoding` other than `chunked`, once, in HTTP/1.1 (RFC 9112 §6.1).
    TransferEncoding,
    /// A CONNECT that announces a body.
    ConnectBody,
    /// A CONNECT where only requests for one server are forwarded (RFC 9110 §9.3.6).
    Tunnel,
    /// An `Expect` other than `100-continue`, once (RFC 9110 §10.1.1).
    Expect,
    /// A malformed chunk (RFC 9112 §7.1), or a chunk extension that is not made of tokens.
    Chunk,
    /// A trailer field that belongs into a head: framing, routing, credentials, forwarding (RFC 9110 §6.5.1).
    Trailer,
    /// The bytes end before the head does. [`Finder`](super::head::Finder) does not hand such a head on.
    Incomplete,
    /// The request line is over the limit.
    LineTooLong,
    /// The head is over the limit.
    HeadTooLarge,
    /// More than [`FIELDS_MAX`](super::head::FIELDS_MAX) fields.
    TooManyFields,
    /// Neither HTTP/1.0 nor HTTP/1.1; or CONNECT under HTTP/1.0.
    Version,
}

impl Refusal {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::LineTooLong => Status::UriTooLong414,
            Self::HeadTooLarge | Self::TooManyFields => Status::HeadTooLarge431,
            Self::Version => Status::VersionNotSupported505,
            _ => Status::BadRequest400,
        }
    }

    /// A fixed text for the answer and the log; nothing of the peer's is in it.
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
