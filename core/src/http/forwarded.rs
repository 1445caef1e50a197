//! Fields that tell a server for which client, and by which outside address, a request was forwarded.

/// Whether a field named `name` could be taken for one that a reverse proxy adds about a client. Servers that turn
/// names into variables (CGI, WSGI, PHP) read `-`, `_` and `.` as the same character.
pub(super) fn is_forwarding_name(name: &[u8]) -> bool {
    const NAMES: &[&str] = &[
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Real-IP",
        "X-Client-IP",
        "Client-IP",
    ];
    NAMES.iter().any(|it| is_same_name(name, it.as_bytes()))
}

/// Whether two field names are the same to a server that reads `-`, `_` and `.` as one character.
pub(super) fn is_same_name(name: &[u8], other: &[u8]) -> bool {
    let plain = |byte: &u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() };
    name.iter().map(plain).eq(other.iter().map(plain))
}
