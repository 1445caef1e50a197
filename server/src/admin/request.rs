//! Requests, and what every one of them must have.

use rendezvous_core::http::head::{Body, Head};

use super::host;

/// Limit of the body of a request, in bytes.
pub(super) const BODY_MAX: usize = 16 * 1024;
/// The field that a change must have. A page of another site can send it only after a preflight request, which is
/// refused.
const CHANGE_FIELD: &str = "X-Rendezvous";

/// From where a client may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// This machine, by TCP.
    Loopback,
    /// A socket of the file system.
    Socket,
    /// Other machines, by TLS. Everything but probes needs a password.
    Remote,
}

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET, or HEAD.
    Get,
    /// POST: a change.
    Post,
}

/// A request that has passed all checks that do not depend on the path.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: Method,
    /// From where it came.
    pub access: Access,
    /// Its path, without a query.
    pub path: &'a str,
    /// The values of `Accept`.
    pub accept: Vec<&'a [u8]>,
    /// The body of a change.
    pub body: &'a [u8],
}

/// Why a request is refused: the status and its reason phrase, and a text.
pub(super) type Refusal = (u16, &'static str, &'static str);

/// The length of a request's body.
///
/// # Errors
/// The body is too long, or its length is not known in advance.
pub(super) fn body_bytes(head: &Head<'_>) -> Result<usize, Refusal> {
    match head.body {
        Body::None => Ok(0),
        Body::Length(bytes) if bytes <= BODY_MAX as u64 => Ok(usize::try_from(bytes).unwrap_or(BODY_MAX)),
        Body::Length(_) => Err((413, "Content Too Large", "the body is too long")),
        Body::Chunked => Err((411, "Length Required", "send the body with a Content-Length")),
    }
}

impl<'a> Request<'a> {
    /// Checks a request and takes its parts.
    ///
    /// # Errors
    /// Its host is unknown, its client may not have its target, or it is a change without the fields of one.
    pub(super) fn check(
        head: &Head<'a>,
        body: &'a [u8],
        access: Access,
        names: &[String],
    ) -> Result<Self, Refusal> {
        let path = head.target.split('?').next().unwrap_or_default();
        let is_probe = is_probe(path);
        match head.host {
            Some(host) if host::is_known(host, names) => {}
            // Load balancers probe with HTTP/1.0. A browser always sends a Host.
            None if is_probe => {}
            Some(_) | None => {
                return Err((
                    421,
                    "Misdirected Request",
                    "unknown Host: use an address, or --metrics-name NAME",
                ));
            }
        }
        let method = match head.method {
            "GET" | "HEAD" => Method::Get,
            "POST" => Method::Post,
            _ => return Err((405, "Method Not Allowed", "the method is not GET, HEAD or POST")),
        };
        if method == Method::Post {
            check_change(head, access)?;
        }
        Ok(Self { method, access, path, accept: head.values("Accept"), body })
    }

    /// Whether it is served only with a password.
    pub(super) fn needs_password(&self) -> bool {
        self.access == Access::Remote && !is_probe(self.path)
    }
}

/// Whether a path is that of a probe, which shows nothing but a state.
fn is_probe(path: &str) -> bool {
    matches!(path, "/live" | "/ready")
}

/// Checks that a change comes from the server's own page, or from a program.
fn check_change(head: &Head<'_>, access: Access) -> Result<(), Refusal> {
    const FORBIDDEN: &str = "Forbidden";
    let scheme = if access == Access::Remote { "https://" } else { "http://" };
    let is_same = |origin: &[u8]| {
        let origin = std::str::from_utf8(origin).ok().and_then(|it| it.strip_prefix(scheme));
        origin.is_some_and(|it| head.host.is_some_and(|host| it.eq_ignore_ascii_case(host)))
    };
    match head.values("Origin").as_slice() {
        [origin] if is_same(origin) => {}
        // Browsers do not use sockets of the file system.
        [] if access == Access::Socket => {}
        _ => return Err((403, FORBIDDEN, "a change needs an Origin that is this server")),
    }
    if head.values(CHANGE_FIELD) != [b"change"] {
        return Err((403, FORBIDDEN, "a change needs the field X-Rendezvous: change"));
    }
    let is_json = |value: &&[u8]| value.eq_ignore_ascii_case(b"application/json");
    if !head.values("Content-Type").first().is_some_and(is_json) {
        return Err((415, "Unsupported Media Type", "a change is application/json"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rendezvous_core::http::head;

    use super::*;

    fn check(text: &str, access: Access) -> Result<(Method, String), u16> {
        let head = head::parse(text.as_bytes()).expect("a head");
        let request = Request::check(&head, b"", access, &[]);
        request.map(|it| (it.method, it.path.to_owned())).map_err(|(status, ..)| status)
    }

    fn get(path: &str, host: &str, access: Access) -> Result<(Method, String), u16> {
        check(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"), access)
    }

    #[test]
    fn every_request_needs_a_host_of_this_machine() {
        let metrics = Ok((Method::Get, "/metrics".to_owned()));
        assert_eq!(get("/metrics?x", "127.0.0.1:9", Access::Loopback), metrics);
        assert_eq!(get("/metrics", "192.0.2.1:9", Access::Remote), metrics);
        for access in [Access::Loopback, Access::Socket, Access::Remote] {
            assert_eq!(get("/metrics", "evil.example", access), Err(421));
            assert_eq!(check("GET /metrics HTTP/1.0\r\n\r\n", access), Err(421));
            assert_eq!(check("GET /ready HTTP/1.0\r\n\r\n", access).map(|it| it.0), Ok(Method::Get));
            assert_eq!(get("/ready", "evil.example", access), Err(421));
        }
    }

    #[test]
    fn other_machines_get_only_probes_without_a_password() {
        for access in [Access::Loopback, Access::Socket, Access::Remote] {
            for path in ["/", "/api/status", "/metrics", "/ready/x", "/live/", "//ready", "/metrics?/ready"] {
                let text = format!("GET {path} HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n");
                let head = head::parse(text.as_bytes()).expect("a head");
                let request = Request::check(&head, b"", access, &[]).expect("a request");
                assert_eq!(request.needs_password(), access == Access::Remote, "{path}");
            }
            for path in ["/ready", "/live?x"] {
                let text = format!("GET {path} HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n");
                let head = head::parse(text.as_bytes()).expect("a head");
                assert!(!Request::check(&head, b"", access, &[]).expect("a request").needs_password());
            }
        }
    }

    #[test]
    fn a_change_comes_from_our_own_page_or_from_a_program_at_the_socket() {
        let post = |fields: &str, access| {
            let head =
                format!("POST /api/x HTTP/1.1\r\nHost: 127.0.0.1:9\r\nContent-Length: 0\r\n{fields}\r\n");
            check(&head, access).map(|it| it.0)
        };
        let json = "Content-Type: application/json\r\nX-Rendezvous: change\r\n";
        let own = "Origin: http://127.0.0.1:9\r\n";
        assert_eq!(post(&format!("{json}{own}"), Access::Loopback), Ok(Method::Post));
        assert_eq!(post(json, Access::Socket), Ok(Method::Post));
        assert_eq!(post(json, Access::Loopback), Err(403), "without Origin");
        assert_eq!(post(json, Access::Remote), Err(403), "without Origin");
        assert_eq!(post(&format!("{json}{own}"), Access::Remote), Err(403), "an origin without TLS");
        let secure = "Origin: https://127.0.0.1:9\r\n";
        assert_eq!(post(&format!("{json}{secure}"), Access::Remote), Ok(Method::Post));
        for origin in ["http://evil.example", "http://127.0.0.1:8", "https://127.0.0.1:9", "null", ""] {
            for access in [Access::Loopback, Access::Socket] {
                assert_eq!(post(&format!("{json}Origin: {origin}\r\n"), access), Err(403), "{origin}");
            }
        }
        assert_eq!(post(&format!("{json}{own}{own}"), Access::Loopback), Err(403), "two origins");
        assert_eq!(post(&format!("Content-Type: application/json\r\n{own}"), Access::Loopback), Err(403));
        let form = "Content-Type: text/plain\r\nX-Rendezvous: change\r\n";
        assert_eq!(post(&format!("{form}{own}"), Access::Loopback), Err(415));
        assert_eq!(check("OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n", Access::Loopback), Err(405));
    }

    #[test]
    fn bodies_are_short_and_of_known_length() {
        let of = |fields: &str| {
            let text = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            body_bytes(&head::parse(text.as_bytes()).expect("a head")).map_err(|(status, ..)| status)
        };
        assert_eq!(of("Content-Length: 16384\r\n"), Ok(BODY_MAX));
        assert_eq!(of("Content-Length: 16385\r\n"), Err(413));
        assert_eq!(of("Transfer-Encoding: chunked\r\n"), Err(411));
    }
}
