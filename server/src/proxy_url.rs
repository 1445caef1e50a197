//! HTTP proxies on the way to a relay: their URLs, and the environment variables that name them.

use std::env;
use std::net::IpAddr;
use std::path::Path;

use rendezvous_core::endpoint::{Host, HostPort};
use rendezvous_core::opaque::Opaque;
use rendezvous_core::prefix::Prefix;
use rendezvous_core::tunnel::{Credentials, Proxy};
use zeroize::Zeroizing;

use crate::entropy;
use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::options::value::{bracketed, split_host_port};
use crate::relay_url::RelayUrl;

/// The default port of a proxy, as in curl.
const PORT: u16 = 1080;

/// The URL of a proxy: `http://[USER[:PASSWORD]@]HOST[:PORT]`. `Debug` does not show the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl {
    place: HostPort,
    user: Option<String>,
    password: Option<Opaque<String>>,
}

impl ProxyUrl {
    /// Parses a URL. Percent-encoded characters in user name and password are decoded.
    ///
    /// # Errors
    ///
    /// A message that does not repeat the URL, which may contain a password.
    pub fn parse(text: &str) -> Result<ProxyUrl, String> {
        const FORM: &str = "not the URL of a proxy: write http://HOST:PORT or http://USER@HOST:PORT";
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(("https" | "HTTPS", _)) => {
                return Err("proxies with TLS (https://) are not supported: write http://".to_owned());
            }
            Some((scheme, _)) if scheme.to_ascii_lowercase().starts_with("socks") => {
                return Err("SOCKS proxies are not supported: an HTTP proxy is needed".to_owned());
            }
            Some(_) => return Err(FORM.to_owned()),
            // Environment variables often have no scheme.
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, authority) = match rest.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, rest),
        };
        if authority.contains(['/', '?', '#']) || !authority.is_ascii() {
            return Err(FORM.to_owned());
        }
        let (host, port) = split_host_port(authority).ok_or(FORM)?;
        let port = port.unwrap_or(PORT);
        if port == 0 {
            return Err("port 0 is not valid".to_owned());
        }
        let host = host.parse::<IpAddr>().map_or_else(|_| Host::Name(host), Host::Address);
        let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, password)) => (Some(decoded(user)?), Some(decoded(password)?)),
            None => (None, None),
        };
        if user.as_deref().is_some_and(|user| user.is_empty() || user.contains(':')) {
            return Err("the user name of a proxy must not be empty or contain a colon".to_owned());
        }
        let password = password.filter(|password| !password.is_empty()).map(Opaque);
        Ok(ProxyUrl { place: HostPort { host, port }, user, password })
    }

    /// Whether the URL contains a password.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The proxy, with the password of a file if there is one.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the file cannot be read or there is no user name for its password.
    pub fn with_password(self, file: Option<&Path>) -> Result<Proxy, Failure> {
        let ProxyUrl { place, user, mut password } = self;
        if let Some(file) = file {
            if user.is_none() {
                return Err(Failure::Usage(
                    "--proxy-password-file needs a user name: --proxy http://USER@HOST:PORT".to_owned(),
                ));
            }
            password = Some(Opaque(read_password(file)?));
        }
        let credentials = user
            .map(|user| Credentials { user, password: password.unwrap_or_else(|| Opaque(String::new())) });
        Ok(Proxy { place, credentials, seed: *entropy::bytes()? })
    }
}

/// The proxy of the environment for a relay: `https_proxy` or `HTTPS_PROXY` (`http_proxy` for a relay without TLS), unless
/// `no_proxy` or `NO_PROXY` excludes it. Returns also the name of the variable.
///
/// # Errors
///
/// [`Failure::Usage`] if the variable is not the URL of a proxy.
pub fn of_environment(relay: &RelayUrl) -> Result<Option<(&'static str, ProxyUrl)>, Failure> {
    // HTTP_PROXY is not read: in a CGI program a client can set it.
    let names: &[&'static str] = if relay.tls { &["https_proxy", "HTTPS_PROXY"] } else { &["http_proxy"] };
    let set = |name: &&'static str| Some((*name, env::var(name).ok().filter(|value| !value.is_empty())?));
    let Some((name, value)) = names.iter().find_map(set) else { return Ok(None) };
    let excluded = ["no_proxy", "NO_PROXY"].iter().find_map(|name| env::var(name).ok());
    if excluded.is_some_and(|list| is_excluded(&list, &relay.host, relay.port)) {
        return Ok(None);
    }
    match ProxyUrl::parse(&value) {
        Ok(url) => Ok(Some((name, url))),
        Err(why) => Err(Failure::Usage(format!("{name}: {why}"))),
    }
}

/// Whether a list in the form of `NO_PROXY` contains a host. Its words are separated by commas or spaces: `*`; a name, with
/// all names below it, also as `.NAME` or `*.NAME`; an address; a range of addresses, `10.0.0.0/8`. A name or an address may
/// have a port: `HOST:PORT`, `[V6]:PORT`. Several colons without brackets are an IPv6 address.
pub fn is_excluded(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.split('%').next().unwrap_or_default().parse::<IpAddr>().ok();
    list.split([',', ' ', '\t']).filter(|word| !word.is_empty()).any(|word| {
        if word == "*" {
            return true;
        }
        let (name, only) = split_port(word);
        if only.is_some_and(|only| only != port) {
            return false;
        }
        if let Some(address) = address {
            return name.parse::<Prefix>().is_ok_and(|prefix| prefix.contains(address));
        }
        let name =
            name.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.').to_ascii_lowercase();
        !name.is_empty()
            && (host == name || host.strip_suffix(&name).is_some_and(|front| front.ends_with('.')))
    })
}

/// Splits `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT` or `V6`.
fn split_port(word: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = word.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match word.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, port.parse().ok()),
        _ => (word, None),
    }
}

/// The proxy's host and port, for logs.
pub fn shown(proxy: &Proxy) -> String {
    match &proxy.place.host {
        Host::Address(address) => std::net::SocketAddr::new(*address, proxy.place.port).to_string(),
        Host::Name(name) => format!("{}:{}", bracketed(name), proxy.place.port),
    }
}

/// Decodes percent-encoded characters. Control characters are invalid.
fn decoded(text: &str) -> Result<String, String> {
    let bad = || "the user name or the password of the proxy's URL is not percent-encoded".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).map(|digit| digit as u8);
        let (high, low) = (digit(rest.next()), digit(rest.next()));
        bytes.push(high.zip(low).map(|(high, low)| high << 4 | low).ok_or_else(bad)?);
    }
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    if text.chars().any(char::is_control) { Err(bad()) } else { Ok(text) }
}

/// Reads a password: the first line of a file.
fn read_password(file: &Path) -> Result<String, Failure> {
    let bytes = files::read(file, FileKind::SECRET)?;
    let invalid =
        |why: &str| Failure::Failed(format!("cannot use the password in {}: {why}", file.display()));
    let text = Zeroizing::new(std::str::from_utf8(&bytes).map_err(|_| invalid("not UTF-8"))?.to_owned());
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if first.is_empty() || first.chars().any(char::is_control) || lines.any(|line| !line.trim().is_empty()) {
        return Err(invalid("the file must contain one line"));
    }
    Ok(first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_an_optional_user_name_and_password() {
        let url = ProxyUrl::parse("http://al%20ice:p%40ss%3a@proxy.lan:3128/").unwrap();
        assert_eq!(url.user.as_deref(), Some("al ice"));
        assert_eq!(url.password, Some(Opaque("p@ss:".to_owned())));
        assert!(!format!("{url:?}").contains("p@ss"), "{url:?}");
        let place = |text: &str| ProxyUrl::parse(text).unwrap().place;
        assert_eq!(place("proxy.lan"), HostPort { host: Host::Name("proxy.lan".to_owned()), port: 1080 });
        assert_eq!(place("http://[2001:db8::1]:3128").host, Host::Address("2001:db8::1".parse().unwrap()));
        assert!(!ProxyUrl::parse("http://user@proxy.lan:3128").unwrap().has_password());
    }

    #[test]
    fn an_invalid_url_is_refused_without_its_password() {
        for (text, error) in [
            ("https://secret:secret@proxy.lan", "proxies with TLS"),
            ("socks5h://secret@proxy.lan", "SOCKS"),
            ("ftp://secret@proxy.lan", "not the URL of a proxy"),
            ("http://u:secret@proxy.lan/path", "not the URL of a proxy"),
            ("http://u:secret@proxy.lan:0", "port 0"),
            ("http://u:secret@::1:443", "not the URL of a proxy"),
            ("http://u:secret%zz@proxy.lan", "percent-encoded"),
            ("http://u:secret%0a@proxy.lan", "percent-encoded"),
            ("http://:secret@proxy.lan", "user name"),
            ("", "not the URL of a proxy"),
        ] {
            let why = ProxyUrl::parse(text).unwrap_err();
            assert!(why.contains(error) && !why.contains("secret"), "{text}: {why}");
        }
    }

    #[test]
    fn no_proxy_excludes_names_addresses_ranges_and_ports() {
        for (list, host, port, excluded) in [
            ("*", "relay.example", 443, true),
            ("", "relay.example", 443, false),
            ("example", "relay.example", 443, true),
            (".example", "relay.example", 443, true),
            ("*.example", "relay.example", 443, true),
            ("RELAY.example.", "relay.example", 443, true),
            ("lay.example", "relay.example", 443, false),
            ("other, relay.example:443", "relay.example", 443, true),
            ("relay.example:8443", "relay.example", 443, false),
            ("10.0.0.0/8 127.0.0.1", "10.9.9.9", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("127.0.0.1:443", "127.0.0.1", 443, true),
            ("127.0.0.1:80", "127.0.0.1", 443, false),
            ("::1", "::1", 443, true),
            ("[::1]:443", "::1", 443, true),
            ("[::1]:80", "::1", 443, false),
            ("2001:db8::/32", "2001:db8::7", 443, true),
            ("fe80::1", "fe80::1%eth0", 443, true),
            ("1", "127.0.0.1", 443, false),
        ] {
            assert_eq!(is_excluded(list, host, port), excluded, "{list:?} {host}:{port}");
        }
    }
}
