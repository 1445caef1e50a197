//! Tickets, and tokens made from them.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use common::Folder;
use common::cli::run;
use rendezvous::pin::Pin;
use rendezvous::relay_url::RelayUrl;
use rendezvous::state::{self, SECRET};
use rendezvous::ticket::Ticket;
use rendezvous::trust::Trust;

const ID: &str = "id otpauth://totp/rendezvous:2f402f80-da50-41e1-9b23-0123456789ab?secret=JBSWY3DPEHPK3PXP&algorithm=SHA256&digits=8&period=30";
const PIN: &str = "pin sha256//CkjRtbnzTHoYyqR2gDoeQ5pUkeh3cHJ7ApdhcGvEeXc=";
const RELAY: &str = "relay https://relay.example.com:8443";

fn parse(lines: &[&str]) -> Result<Ticket, String> {
    Ticket::parse(lines.join("\n").as_bytes(), "home.ticket").map_err(|error| error.to_string())
}

fn refusal(lines: &[&str]) -> String {
    parse(lines).expect_err("a ticket that is refused")
}

#[test]
fn a_ticket_is_written_and_read_word_for_word() {
    let text = format!(
        "# rendezvous ticket for home: secret, because it lets anyone act as this hidden server\n{RELAY}\n{PIN}\n{ID}\n"
    );
    let ticket = parse(&[&text]).unwrap();
    assert_eq!(*ticket.to_text("home"), text);
    assert_eq!(ticket.relay, RelayUrl { tls: true, host: "relay.example.com".to_owned(), port: 8443 });
    let pin = Pin::parse("sha256//CkjRtbnzTHoYyqR2gDoeQ5pUkeh3cHJ7ApdhcGvEeXc=").unwrap();
    assert_eq!(ticket.trust, Trust::Pins(vec![pin]));
    assert!(!ticket.plain);
    let again = parse(&[RELAY, PIN, PIN, ID, "token plain"]).unwrap();
    assert_eq!(parse(&[&again.to_text("x")]).unwrap(), again);
    for ca in ["ca system", "ca /etc/relay ca.pem"] {
        let ticket = parse(&[RELAY, ca, ID]).unwrap();
        assert_eq!(parse(&[&ticket.to_text("x")]).unwrap(), ticket);
    }
    assert!(!format!("{ticket:?}").contains("JBSW"));
}

#[test]
fn the_relay_is_known_by_pins_or_a_ca_file_or_the_systems_cas() {
    assert!(matches!(parse(&[RELAY, PIN, PIN, ID]).unwrap().trust, Trust::Pins(pins) if pins.len() == 2));
    assert_eq!(parse(&[RELAY, "ca system", ID]).unwrap().trust, Trust::System);
    assert_eq!(parse(&[RELAY, ID]).unwrap().trust, Trust::System, "where nothing is said");
    assert_eq!(parse(&[RELAY, "ca a.pem", ID]).unwrap().trust, Trust::CaFile("a.pem".into()));
    assert!(refusal(&[RELAY, PIN, "ca system", ID]).contains("exclude each other"));
    let folder = Folder::new();
    state::write_new(&folder.file("t"), format!("{RELAY}\nca a.pem\n{ID}").as_bytes(), SECRET).unwrap();
    let ticket = Ticket::load(&folder.file("t")).unwrap();
    assert_eq!(ticket.trust, Trust::CaFile(folder.file("a.pem")), "beside the ticket");
}

#[test]
fn what_is_wrong_is_named_by_file_and_line() {
    let id = "id otpauth://totp/rendezvous:2f402f80-da50-41e1-9b23-0123456789ab?digits=8";
    assert_eq!(refusal(&[RELAY, PIN, id]), "home.ticket:3: not a Key URI: missing 'secret'");
    assert_eq!(
        refusal(&["# x", "", "pni x"]),
        "home.ticket:3: unknown word 'pni': expected relay, pin, ca, id, token or sni"
    );
    assert!(refusal(&[RELAY, RELAY]).starts_with("home.ticket:2: 'relay' is repeated"));
    assert!(refusal(&["pin sha1//x"]).starts_with("home.ticket:1: 'sha1//x' is not a pin"));
    assert!(refusal(&["token bound"]).starts_with("home.ticket:1: 'token' must be followed by plain"));
    assert!(refusal(&["ca"]).starts_with("home.ticket:1: 'ca' needs a value"));
    assert!(refusal(&[ID]).starts_with("home.ticket: no line 'relay"));
    assert!(refusal(&[RELAY]).starts_with("home.ticket: no line 'id"));
    assert!(!refusal(&["JBSWY3DPEHPK3PXP"]).contains("JBSW"), "a line that lost its front may be a secret");
    // Lines may be joined by copying them.
    let joined = format!("{RELAY} {PIN} {ID}");
    for line in [joined.as_str(), &joined.replace("relay ", "pin "), &joined.replace("relay ", "ca ")] {
        assert!(!refusal(&[line]).contains("JBSW"), "a secret is told");
    }
    assert_eq!(Ticket::parse(b"\n\xff", "t").unwrap_err().to_string(), "t:2: not UTF-8");
}

#[test]
fn a_relay_is_a_scheme_a_host_and_a_port_and_nothing_else() {
    for (text, shown, port) in [
        ("https://relay.example.com", "https://relay.example.com", 443),
        ("http://relay.example.com/", "http://relay.example.com", 80),
        ("HTTPS://Relay.Example.COM:8443/", "https://relay.example.com:8443", 8443),
        ("https://[2001:db8::1]", "https://[2001:db8::1]", 443),
        ("https://[::1]:443", "https://[::1]", 443),
        ("https://192.0.2.1:1", "https://192.0.2.1:1", 1),
    ] {
        let relay = RelayUrl::parse(text).unwrap();
        assert_eq!((relay.to_string().as_str(), relay.port), (shown, port));
    }
    assert_eq!(RelayUrl::parse("https://[::1]").unwrap().host, "::1");
    for (text, why) in [
        ("relay.example.com", "must begin with https://"),
        ("ftp://x", "must begin with https://"),
        ("https://", "write https://HOST:PORT"),
        ("https://u:geheim@x", "must not contain a user name"),
        ("https://x/path", "must not contain a path"),
        ("https://x?q", "must not contain a path"),
        ("https://x#f", "must not contain a path"),
        ("https://x:", "write https://HOST:PORT"),
        ("https://x:0", "port 0 is not valid"),
        ("https://x:65536", "write https://HOST:PORT"),
        ("https://::1", "write https://HOST:PORT"),
        ("https://[::1", "write https://HOST:PORT"),
        ("https://[fe80::1%]", "write https://HOST:PORT"),
        ("https://[fe80::1%a b]", "write https://HOST:PORT"),
        ("https://[fe80::1%et]h0]", "write https://HOST:PORT"),
        ("https://192.0.2.1%eth0", "write https://HOST:PORT"),
        ("https://ü.example", "A-label form (xn--"),
        ("https://a b", "write https://HOST:PORT"),
    ] {
        let error = RelayUrl::parse(text).unwrap_err();
        assert!(error.contains(why) && !error.contains("geheim"), "{text}: {error}");
    }
}

#[test]
fn the_host_field_has_no_zone_and_no_dot_behind_a_name() {
    for (text, shown, authority) in [
        ("https://[fe80::1%eth0]:8443", "https://[fe80::1%eth0]:8443", "[fe80::1]:8443"),
        ("https://[FE80::1%25eth0]", "https://[fe80::1%eth0]", "[fe80::1]"),
        ("https://[fe80::1%25]", "https://[fe80::1%25]", "[fe80::1]"),
        ("https://[fe80::1%2]", "https://[fe80::1%2]", "[fe80::1]"),
        ("https://relay.example.com.:8443", "https://relay.example.com.:8443", "relay.example.com:8443"),
        ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
    ] {
        let relay = RelayUrl::parse(text).unwrap();
        assert_eq!((relay.to_string().as_str(), relay.authority().as_str()), (shown, authority));
        assert_eq!(RelayUrl::parse(&relay.to_string()), Ok(relay), "what is shown can be read");
    }
}

#[test]
fn a_ticket_that_others_can_read_is_refused() {
    let folder = Folder::new();
    let path = folder.file("t");
    parse(&[RELAY, ID]).unwrap().write_new(&path, "home").unwrap();
    assert!(Ticket::load(&path).is_ok());
    let error = parse(&[RELAY, ID]).unwrap().write_new(&path, "home").unwrap_err().to_string();
    assert!(error.contains("exists and is not overwritten"), "{error}");
    fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
    let done = run(&folder, &["token", "--ticket", "t"]);
    assert_eq!(
        (done.code, done.err.as_str()),
        (1, "rendezvous: token: cannot read ticket t: others may open it (mode 0604): chmod 600 t\n")
    );
}

#[test]
fn no_bytes_make_it_panic() {
    let text = format!("{RELAY}\n{PIN}\n{ID}\ntoken plain\n").into_bytes();
    for at in 0..text.len() {
        for byte in [0, b'\n', b' ', b':', b'[', b'%', 0xff, 0xc3] {
            let mut changed = text.clone();
            changed[at] = byte;
            let _ = Ticket::parse(&changed, "t");
        }
        let _ = Ticket::parse(&text[at..], "t");
    }
}

#[test]
fn a_token_is_bound_to_a_fresh_nonce_or_plain() {
    let folder = Folder::new();
    let ticket = parse(&[RELAY, ID]).unwrap();
    ticket.write_new(&folder.file("t"), "home").unwrap();
    let token = |args: &[&str]| {
        let done = run(&folder, &[&["token", "--ticket", "t"], args].concat());
        assert_eq!(done.code, 0, "{}", done.err);
        done.out.trim_end().to_owned()
    };
    let wall = rendezvous::clock::wall();
    let (one, two) = (token(&[]), token(&[]));
    assert_ne!(one, two);
    let (response, nonce) = one.strip_prefix("response=").unwrap().split_once("&nonce=").unwrap();
    assert_eq!((response.len(), nonce.len()), (32, 24));
    let bytes = data_encoding::HEXLOWER.decode(response.as_bytes()).unwrap();
    let bytes: [u8; 16] = bytes.try_into().unwrap();
    assert!(ticket.key.check_bound(wall, nonce.as_bytes(), &bytes).is_some());
    assert!(ticket.key.check_plain(wall, token(&["--plain"]).as_bytes()).is_some());
    let text = format!("{RELAY}\n{ID}\ntoken plain\n");
    state::write_whole(&folder.file("t"), text.as_bytes(), SECRET).unwrap();
    assert!(ticket.key.check_plain(wall, token(&[]).as_bytes()).is_some());
}
