//! URLs of a CA.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;

use crate::endpoint::{Host, HostPort};
use crate::http::{Authority, is_target};

/// The longest URL that is accepted.
pub const URL_MAX: usize = 2_048;

/// An absolute `https` URL, kept byte for byte as the CA wrote it: it is signed (RFC 8555 §6.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// Where the path begins; the end of the text if there is none.
    path: usize,
    place: HostPort,
}

impl Url {
    /// Reads a URL. `None` if it is no `https` URL (RFC 8555 §6.1), if it has user information or a fragment, or if it is
    /// longer than [`URL_MAX`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const SCHEME: &str = "https://";
        if text.len() > URL_MAX {
            return None;
        }
        let rest = text.strip_prefix(SCHEME)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end)?;
        if !target.is_empty() && !is_target(target) {
            return None;
        }
        let authority = Authority::parse(authority).filter(|it| !it.host.is_empty())?;
        let bare = authority.host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = match bare.unwrap_or(authority.host).parse::<IpAddr>() {
            Ok(address) => Host::Address(address),
            Err(_) if bare.is_some() => return None,
            Err(_) => Host::Name(authority.host.to_ascii_lowercase()),
        };
        let place = HostPort { host, port: authority.port.unwrap_or(443) };
        Some(Self { text: text.into(), path: SCHEME.len() + end, place })
    }

    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host and port, 443 if the URL has none.
    #[must_use]
    pub const fn place(&self) -> &HostPort {
        &self.place
    }

    /// Whether both have the same host and port. All URLs of a CA have: `docs/acme.md §2`.
    #[must_use]
    pub fn is_same_origin(&self, other: &Self) -> bool {
        self.place == other.place
    }

    /// The host as it was written, with the port if there is one: the value of `Host`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.text.get("https://".len()..self.path).unwrap_or_default()
    }

    /// The target of a request (RFC 9112 §3.2.1).
    #[must_use]
    pub fn target(&self) -> String {
        match self.text.get(self.path..).unwrap_or_default() {
            path if path.starts_with('/') => path.into(),
            query => format!("/{query}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_kept_as_it_was_written_and_anything_but_https_is_refused() {
        let url = Url::parse("https://CA.example:14000/dir?a=b").expect("a URL");
        assert_eq!((url.authority(), url.target().as_str()), ("CA.example:14000", "/dir?a=b"));
        assert_eq!(url.place(), &HostPort { host: Host::Name("ca.example".into()), port: 14000 });
        let bare = Url::parse("https://[::1]").expect("a URL");
        assert_eq!((bare.target().as_str(), bare.place().port), ("/", 443));
        assert!(Url::parse("https://ca.example/x").is_some_and(|it| !it.is_same_origin(&url)));
        for wrong in [
            "http://a/",
            "https:///",
            "https://a@b/",
            "https://a/#b",
            "https://a/ b",
            "https://a/\r\n",
            "",
            "/x",
            "https://[a]/",
        ] {
            assert_eq!(Url::parse(wrong), None, "{wrong}");
        }
    }
}
