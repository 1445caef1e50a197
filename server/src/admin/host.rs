//! The names by which a client may address the server.
//!
//! A page of another site can make a browser connect to a loopback address, by a name that resolves to it (DNS
//! rebinding). The browser then sends the name of that site as `Host`, in requests that only read as well. An address
//! as `Host` cannot come from such a name.

use std::net::IpAddr;

/// Whether a `Host` is `localhost`, an address, or one of `names`, with any port.
pub(super) fn is_known(host: &str, names: &[String]) -> bool {
    let name = without_port(host);
    if let Some(address) = name.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| {
            // A zone is of the client's machine.
            address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6())
        });
    }
    if name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()) {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || names.contains(&name)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => {
            // An address of IPv6 has its port behind the bracket.
            if name.starts_with('[') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_known() {
        let names = ["relay.lan".to_owned()];
        for host in [
            "localhost",
            "LOCALHOST:9100",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:9100",
            "192.0.2.7:80",
            "[::1]",
            "[::1]:9100",
            "[2001:db8::1]:1",
            "relay.lan",
            "Relay.LAN.:9100",
        ] {
            assert!(is_known(host, &names), "{host}");
        }
    }

    #[test]
    fn every_other_name_is_unknown() {
        for host in [
            "",
            ":9100",
            "evil.example",
            "evil.example:9100",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:9100:9100",
            "127.1",
            "2130706433",
            "::1",
            "[::1",
            "::1]",
            "[127.0.0.1]",
            "[::1%lo]",
            "localhost:x",
            "localhost@evil.example",
        ] {
            assert!(!is_known(host, &[]), "{host}");
        }
    }
}
