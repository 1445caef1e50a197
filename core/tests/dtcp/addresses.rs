//! `host:port`, and the addresses that may be dialled.

use rendezvous_core::acl::{Policy, Scope, scope};
use rendezvous_core::dtcp::host::{parse, write};
use rendezvous_core::relay_client::Host;

use crate::everywhere;

fn is_allowed(policy: &Policy, to: &str) -> bool {
    policy.allows(to.parse().unwrap())
}

#[test]
fn case_33_addresses_are_read_and_written_the_same() {
    for text in ["192.0.2.1:8000", "[2001:db8::1]:8000", "[::ffff:192.0.2.1]:1", "example.org:65535"] {
        assert_eq!(write(&parse(text).unwrap()), text);
    }
}

#[test]
fn case_33_what_is_no_host_and_port_is_unusable() {
    for text in [
        "",
        ":",
        "192.0.2.1",
        "192.0.2.1:",
        ":8000",
        "192.0.2.1:65536",
        "192.0.2.1:+80",
        "192.0.2.1: 80",
        "192.0.2.1:000080",
        "2001:db8::1:8000",
        "[2001:db8::1]",
        "[2001:db8::1]8000",
        "[2001:db8::1:8000",
        "[192.0.2.1]:80",
        "[fe80::1%eth0]:80",
        "2001:db8::1]:80",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn case_34_names_are_hosts_unless_a_resolver_takes_them_for_addresses() {
    let name = |text: &str| parse(text).map(|place| place.host);
    assert_eq!(name("Example.ORG:80"), Some(Host::Name("example.org".into())));
    assert_eq!(name("a_b-c:80"), Some(Host::Name("a_b-c".into())));
    let long = format!("{}:80", ["a"; 128].join("."));
    for text in
        ["127.1:80", "2130706433:80", "0x7f000001:80", "a.0x7f:80", "192.0.2.256:80", "a..b:80", ".a:80"]
    {
        assert_eq!(name(text), None, "{text}");
    }
    for text in ["a b:80", "-a:80", "a-:80", "a/b:80", "ä:80", "user@host:80", "a\n:80", &long] {
        assert_eq!(name(text), None, "{text}");
    }
}

#[test]
fn case_35_some_addresses_are_never_dialled() {
    for to in [
        "0.0.0.0:80",
        "0.1.2.3:80",
        "224.0.0.1:80",
        "239.255.255.255:80",
        "240.0.0.1:80",
        "255.255.255.255:80",
        "192.0.2.1:0",
        "[::]:80",
        "[ff02::1]:80",
        "[2001:db8::1]:0",
        "[::ffff:0.0.0.0]:80",
        "[::ffff:255.255.255.255]:80",
        "[64:ff9b::224.0.0.1]:80",
    ] {
        assert!(!is_allowed(&everywhere(), to), "{to}");
    }
}

#[test]
fn case_35_public_addresses_are_always_dialled() {
    for to in [
        "1.0.0.0:80",
        "100.63.255.255:80",
        "100.128.0.0:80",
        "172.15.255.255:80",
        "172.32.0.0:80",
        "192.167.255.255:80",
        "223.255.255.255:80",
        "[2001:db8::1]:80",
        "[2600::1]:80",
        "[64:ff9b::8.8.8.8]:80",
        "[::ffff:8.8.8.8]:80",
        "[2002:808:808::1]:80",
    ] {
        assert!(is_allowed(&Policy::default(), to), "{to}");
    }
}

#[test]
fn case_35_others_are_dialled_when_allowed_in_whatever_form() {
    let allow = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy
    };
    let scopes: [(Policy, &[&str]); 4] = [
        (
            allow(|it| it.loopback = true),
            &[
                "127.0.0.1:80",
                "127.255.255.255:80",
                "[::1]:80",
                "[::ffff:127.0.0.1]:80",
                "[64:ff9b::127.0.0.1]:80",
            ],
        ),
        (
            allow(|it| it.link_local = true),
            &[
                "169.254.169.254:80",
                "[fe80::1]:80",
                "[febf::1]:80",
                "[::ffff:169.254.0.1]:80",
                "[2002:a9fe:a9fe::]:80",
            ],
        ),
        (
            allow(|it| it.private = true),
            &[
                "10.0.0.1:80",
                "172.16.0.1:80",
                "172.31.255.255:80",
                "192.168.0.32:80",
                "198.18.0.1:80",
                "192.0.0.8:80",
                "[fc00::1]:80",
                "[fdff::1]:80",
                "[fec0::1]:80",
                "[64:ff9b:1::8.8.8.8]:80",
                "[::ffff:10.0.0.1]:80",
                "[::10.0.0.1]:80",
                "[::ffff:0:10.0.0.1]:80",
                "[64:ff9b::192.168.0.1]:80",
                "[2001::f5ff:fffe]:80",
                "[2002:c0a8:1::1]:80",
            ],
        ),
        (
            allow(|it| it.shared = true),
            &["100.64.0.0:80", "100.127.255.255:80", "[::ffff:100.64.0.1]:80", "[64:ff9b::100.64.0.1]:80"],
        ),
    ];
    for (at, (_, addresses)) in scopes.iter().enumerate() {
        for to in *addresses {
            for (which, (policy, _)) in scopes.iter().enumerate() {
                assert_eq!(is_allowed(policy, to), at == which, "{to}");
            }
        }
    }
}

#[test]
fn case_35_own_ports_are_never_dialled() {
    let own = |text: &str| Policy { own: vec![text.parse().unwrap()], ..everywhere() };
    assert!(!is_allowed(&own("192.0.2.1:8000"), "192.0.2.1:8000"));
    assert!(!is_allowed(&own("192.0.2.1:8000"), "[::ffff:192.0.2.1]:8000"));
    assert!(is_allowed(&own("192.0.2.1:8000"), "192.0.2.1:8001"));
    assert!(is_allowed(&own("192.0.2.1:8000"), "192.0.2.2:8000"));
    for unspecified in ["0.0.0.0:8000", "[::]:8000"] {
        for loopback in ["127.0.0.1:8000", "127.1.2.3:8000", "[::1]:8000"] {
            assert!(!is_allowed(&own(unspecified), loopback), "{loopback}");
        }
        assert!(is_allowed(&own(unspecified), "127.0.0.1:8001"));
        // The example has two endpoints that listen on the same port of two machines.
        assert!(is_allowed(&own(unspecified), "192.0.2.1:8000"));
    }
}

#[test]
fn a_scope_is_known_for_every_address_of_ipv4() {
    // The borders of all ranges of RFC 6890 and similar ones: below, at, and above each.
    let of = |text: &str| scope(text.parse().unwrap());
    for (address, expected) in [
        ("0.255.255.255", Scope::Nobody),
        ("1.0.0.0", Scope::Global),
        ("9.255.255.255", Scope::Global),
        ("10.255.255.255", Scope::Private),
        ("11.0.0.0", Scope::Global),
        ("126.255.255.255", Scope::Global),
        ("128.0.0.0", Scope::Global),
        ("169.253.255.255", Scope::Global),
        ("169.255.0.0", Scope::Global),
        ("192.0.1.0", Scope::Global),
        ("192.169.0.0", Scope::Global),
        ("198.17.255.255", Scope::Global),
        ("198.19.255.255", Scope::Private),
        ("198.20.0.0", Scope::Global),
    ] {
        assert_eq!(of(address), expected, "{address}");
    }
}
