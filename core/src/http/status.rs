//! The statuses of the responses that relay and agent generate.

/// A status that is used (RFC 9110 §15, RFC 6585).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// An agent connects a connector to its service; see [`SWITCHING`](super::reply::SWITCHING).
    SwitchingProtocols101,
    /// A hidden server is accepted; see [`ACCEPTED`](super::reply::ACCEPTED).
    Ok200,
    /// Malformed.
    BadRequest400,
    /// A token that is not accepted, a client that names no hidden server, or a missing or wrong password.
    Unauthorized401,
    /// A CONNECT whose target is not an ID, or a client whose address is not allowed.
    Forbidden403,
    /// No hidden server waits under this ID.
    NotFound404,
    /// A CONNECT without a token.
    ProxyAuthRequired407,
    /// The head did not arrive in time.
    Timeout408,
    /// A hidden server sent bytes before it was accepted.
    Conflict409,
    /// The request line exceeds the limit.
    UriTooLong414,
    /// A connector's request whose host and user name belong to two hidden servers.
    Misdirected421,
    /// Too many failures.
    TooManyRequests429,
    /// The head exceeds the limit.
    HeadTooLarge431,
    /// The other side could not be reached, or ended before its first byte.
    BadGateway502,
    /// Full, shutting down, or no hidden server connected in time.
    Unavailable503,
    /// Not HTTP/1.x.
    VersionNotSupported505,
}

impl Status {
    /// The status code.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::SwitchingProtocols101 => 101,
            Self::Ok200 => 200,
            Self::BadRequest400 => 400,
            Self::Unauthorized401 => 401,
            Self::Forbidden403 => 403,
            Self::NotFound404 => 404,
            Self::ProxyAuthRequired407 => 407,
            Self::Timeout408 => 408,
            Self::Conflict409 => 409,
            Self::UriTooLong414 => 414,
            Self::Misdirected421 => 421,
            Self::TooManyRequests429 => 429,
            Self::HeadTooLarge431 => 431,
            Self::BadGateway502 => 502,
            Self::Unavailable503 => 503,
            Self::VersionNotSupported505 => 505,
        }
    }

    /// The reason phrase.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::SwitchingProtocols101 => "Switching Protocols",
            Self::Ok200 => "OK",
            Self::BadRequest400 => "Bad Request",
            Self::Unauthorized401 => "Unauthorized",
            Self::Forbidden403 => "Forbidden",
            Self::NotFound404 => "Not Found",
            Self::ProxyAuthRequired407 => "Proxy Authentication Required",
            Self::Timeout408 => "Request Timeout",
            Self::Conflict409 => "Conflict",
            Self::UriTooLong414 => "URI Too Long",
            Self::Misdirected421 => "Misdirected Request",
            Self::TooManyRequests429 => "Too Many Requests",
            Self::HeadTooLarge431 => "Request Header Fields Too Large",
            Self::BadGateway502 => "Bad Gateway",
            Self::Unavailable503 => "Service Unavailable",
            Self::VersionNotSupported505 => "HTTP Version Not Supported",
        }
    }
}
