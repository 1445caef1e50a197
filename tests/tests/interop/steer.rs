//! The operator limits, disables and ends while the relay runs.

use std::fs;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rendezvous_core::http::date::civil;

use crate::harness::{Case, case};
use crate::hidden::{page, page_text};
use crate::program::{PATIENCE, run};
use crate::wire::{Answer, Below, Wire};
use crate::world::{World, basic, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("limits_set_by_the_operator_are_in_force_when_the_command_ends", &[], limits_are_in_force),
    case("a_used_quota_refuses_clients_until_it_is_raised", &[], a_used_quota),
    case("a_quota_counts_on_after_the_relay_is_killed", &[], a_quota_counts_on),
    case("a_deny_file_is_read_again_on_hangup", &[], a_deny_file_is_read_again),
];

/// A request that names no hidden server.
const ASK: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

fn get(id: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(id))
}

/// Whether the relay resets the connection before it sends another byte.
fn is_cut(wire: &mut Wire) -> bool {
    let (bytes, end) = wire.rest_and_end();
    bytes.is_empty() && end.is_err()
}

impl World {
    fn set(&self, options: &[&str]) {
        let set = run(rendezvous().args(["id", "set", "home", "--state"]).arg(self.state()).args(options));
        assert!(set.status.success(), "id set {options:?}: {}", String::from_utf8_lossy(&set.stderr));
        assert_eq!(String::from_utf8_lossy(&set.stderr), "", "it is in force");
    }
}

fn limits_are_in_force() {
    let (world, relay, home, agent) = World::with_service(page());
    let page = page_text("GET", "/x", b"");
    assert_eq!(relay.ask(get(&home.id)).text(), page);
    world.set(&["--deny", "127.0.0.0/8"]);
    let refused = relay.ask(get(&home.id));
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("admits no clients from this address"), "{refused:?}");
    world.set(&["--deny", "none", "--allow", "127.0.0.0/8"]);
    assert_eq!(relay.ask(get(&home.id)).text(), page);
    let mut client = relay.open(Below::Clear);
    client.send(get(&home.id).as_bytes());
    assert_eq!(Answer::read(&mut client).text(), page);
    world.set(&["--disable", "--rename", "house"]);
    assert!(is_cut(&mut client), "its pair has ended");
    agent.expect_line("status=403");
    assert_eq!(relay.ask(get(&home.id)).status(), 403);
    relay.program.expect_line("id_name=\"house\"");
}

fn a_used_quota() {
    let (world, relay, home, _agent) = World::with_service(page());
    let page = page_text("GET", "/x", b"");
    assert_eq!(relay.ask(get(&home.id)).text(), page);
    world.set(&["--quota", "10"]);
    let refused = relay.ask(get(&home.id));
    assert_eq!(refused.status(), 503);
    assert!(refused.text().contains("transfer quota of this month is used up"), "{refused:?}");
    relay.program.expect_line("event=quota-used");
    world.set(&["--quota", "none"]);
    assert_eq!(relay.ask(get(&home.id)).text(), page);
}

/// Months since year 0.
fn month() -> u64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    let (year, month, _) = civil(seconds / 86_400);
    year * 12 + month
}

fn a_quota_counts_on() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let began = month();
    let serve = || world.relay(&["--usage-interval", "0.1"]);
    let mut first = serve();
    let agent = world.agent(&first, &home, Below::Tls13, &["--to", &page().to_string()]);
    let text_of_page = page_text("GET", "/x", b"");
    assert_eq!(first.ask(get(&home.id)).text(), text_of_page);
    let file = world.state().join("usage");
    let until = Instant::now() + PATIENCE;
    let used: u64 = loop {
        assert!(Instant::now() < until, "the usage is never written");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let Some(line) = text.lines().find(|line| line.ends_with(" 1")) else { continue };
        let mut words = line.split(' ').skip(2).map_while(|word| word.parse::<u64>().ok());
        break words.next().zip(words.next()).map(|(a, b)| a + b).expect("bytes of both directions");
    };
    first.program.kill();
    drop(agent);

    let second = serve();
    let _agent = world.agent(&second, &home, Below::Tls13, &["--to", &page().to_string()]);
    // The second half of the quota.
    world.set(&["--rename", "house", "--quota", &(2 * used).to_string()]);
    assert_eq!(second.ask(get(&home.id)).text(), text_of_page);
    if month() != began {
        return;
    }
    second.program.expect_line(&format!("event=quota-used id_name=\"house\" bytes={0} quota={0}", 2 * used));
    let refused = second.ask(get(&home.id));
    assert_eq!(refused.status(), 503);
    assert!(refused.text().contains("transfer quota of this month is used up"), "{refused:?}");
}

fn a_deny_file_is_read_again() {
    let world = World::new();
    let denied = world.folder.write("denied", "192.0.2.0/24\n");
    let path = denied.to_str().expect("a path of ours");
    let relay = world.relay(&["--deny-file", path]);
    assert_eq!(relay.ask(ASK).status(), 401);
    let mut client = relay.open(Below::Clear);
    world.folder.write("denied", "127.0.0.0/8 # ourselves\n");
    relay.program.signal("HUP");
    relay.program.expect_lines("event=reloaded", 1);
    assert!(is_cut(&mut client), "an open connection ends");
    world.folder.write("denied", "127.0.0.1/8\n");
    relay.program.signal("HUP");
    relay.program.expect_line("denied:1: '127.0.0.1/8' is not a range of addresses");
    assert!(is_cut(&mut relay.open(Below::Clear)), "the old list stays");
    world.folder.write("denied", "\n");
    relay.program.signal("HUP");
    relay.program.expect_lines("event=reloaded", 2);
    assert_eq!(relay.ask(ASK).status(), 401);
}
