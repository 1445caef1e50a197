//! The agent reconnects, and clients that come meanwhile are held.

use std::thread;

use crate::harness::{Case, case};
use crate::hidden::{page, page_text};
use crate::program::{count, run};
use crate::wire::{Answer, Below};
use crate::world::{World, basic, lines, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("after_a_restart_of_the_relay_clients_are_held_not_refused", &[], || restart(false)),
    case("after_a_crash_of_the_relay_clients_are_held_not_refused", &[], || restart(true)),
    case("after_its_connections_were_dropped", &[], after_its_connections_were_dropped),
    case("a_damaged_file_of_ids_closes_nothing", &[], a_damaged_file_of_ids_closes_nothing),
    case("a_relay_recovers_from_a_stopped_agent", &[], a_relay_recovers_from_a_stopped_agent),
    case("a_new_certificate_is_loaded_on_sighup", &[], a_new_certificate_is_loaded_on_sighup),
];

fn get(id: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(id))
}

fn restart(crash: bool) {
    let (world, mut relay, home, agent) = World::with_service(page());
    assert_eq!(relay.ask(get(&home.id)).text(), page_text("GET", "/x", b""));
    if crash {
        relay.program.kill();
    } else {
        relay.program.signal("TERM");
        assert!(relay.program.exit().success());
    }
    agent.expect_line(lines::RELAY_LOST);
    let relay = world.relay_again(&relay, &["--wait", "30"]);
    // Without waiting for the agent: all are answered.
    thread::scope(|scope| {
        for below in [Below::Clear, Below::Tls12, Below::Tls13, Below::Tls13, Below::Clear, Below::Tls13] {
            let (relay, home) = (&relay, &home);
            scope.spawn(move || {
                let mut client = relay.open(below);
                client.send(get(&home.id).as_bytes());
                assert_eq!(Answer::read(&mut client).text(), page_text("GET", "/x", b""));
            });
        }
    });
}

fn after_its_connections_were_dropped() {
    let (world, relay, home, agent) = World::with_service(page());
    agent.expect_lines(lines::WAITING, 4);
    // Without its line the ID's connections are closed. With it the agent is accepted again.
    let ids = world.state().join("ids");
    let kept = std::fs::read_to_string(&ids).expect("the file of IDs");
    let removed = run(rendezvous().args(["id", "remove", &home.name, "--state"]).arg(world.state()));
    assert!(removed.status.success());
    relay.program.expect_lines(lines::WAITING_ENDED, 4);
    let put_back = world.folder.write("ids", &kept);
    std::fs::rename(put_back, ids).expect("it is put back");
    relay.program.until("that the agent is back", |lines| count(lines, lines::WAITING) >= 5);
    assert_eq!(relay.ask(get(&home.id)).text(), page_text("GET", "/x", b""));
    drop(agent);
}

fn a_damaged_file_of_ids_closes_nothing() {
    let (world, relay, home, agent) = World::with_service(page());
    agent.expect_lines(lines::WAITING, 4);
    let ids = world.state().join("ids");
    let kept = std::fs::read_to_string(&ids).expect("the file of IDs");
    let half = kept.find("?secret").expect("a Key URI");
    for (damaged, times) in [(&kept[..half], 1), ("", 2)] {
        std::fs::write(&ids, damaged).expect("it can be written");
        relay.program.expect_lines("event=ids-refused", times);
        relay.program.signal("HUP");
        relay.program.expect_lines("event=reload-refused", times);
        assert_eq!(relay.ask(get(&home.id)).text(), page_text("GET", "/x", b""));
    }
    std::fs::write(&ids, kept).expect("it can be written");
    relay.program.signal("HUP");
    relay.program.expect_line("event=reloaded");
    assert_eq!(agent.lines("event=relay-lost"), 0);
}

fn a_relay_recovers_from_a_stopped_agent() {
    let (world, relay, home, mut agent) = World::with_service(page());
    agent.kill();
    relay.program.expect_lines(lines::WAITING_ENDED, 1);
    // It was served a moment ago: the next client is held until an agent returns.
    thread::scope(|scope| {
        let answer = scope.spawn(|| relay.ask(get(&home.id)));
        relay.program.expect_line(lines::HELD);
        let _agent = world.agent(&relay, &home, Below::Tls13, &["--to", &page().to_string()]);
        assert_eq!(answer.join().expect("an answer").text(), page_text("GET", "/x", b""));
    });
}

fn a_new_certificate_is_loaded_on_sighup() {
    let (world, relay, home, _agent) = World::with_service(page());
    let (cert, key) = (world.state().join("relay.crt"), world.state().join("relay.key"));
    // An invalid file is refused, and the old one stays in force.
    let good = std::fs::read_to_string(&cert).expect("the relay made one");
    std::fs::write(&cert, "no certificate").expect("it can be written");
    relay.program.signal("HUP");
    relay.program.expect_line("event=reload-refused");
    let mut client = relay.open(Below::Tls13);
    client.send(get(&home.id).as_bytes());
    assert_eq!(Answer::read(&mut client).text(), page_text("GET", "/x", b""));
    std::fs::write(&cert, good).expect("it can be written");
    assert!(key.is_file());
    relay.program.signal("HUP");
    relay.program.expect_line("event=reloaded");
}
