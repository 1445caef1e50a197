//! The address of the agent's machine changes while clients connect.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Case, case, in_own_namespaces};
use crate::nat::{Space, ip};
use crate::peers::Peer;
use crate::program::Program;
use crate::wire::{Answer, Below};
use crate::world::{Enrolled, Relay, World, basic, lines, rendezvous};

pub(crate) const CASES: &[Case] = &[case(
    "clients_are_served_after_the_agents_address_has_changed",
    &[Peer::Namespaces, Peer::Python],
    in_namespaces,
)];

/// Answers each request with an empty page.
const SERVICE: &str = "
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer.request_queue_size = 100
server = http.server.ThreadingHTTPServer(('127.0.0.1', 9000), Page)
print('it listens', flush=True)
server.serve_forever()
";

fn in_namespaces() {
    let name = "paths::clients_are_served_after_the_agents_address_has_changed";
    in_own_namespaces(&["--net"], name, addresses_change);
}

fn addresses_change() {
    ip("link set lo up");
    let far = Space::new(1);
    ip("address add fd99::1/64 dev near1 nodad");
    far.ip("address add fd99::2/64 dev far nodad");
    let service = Program::start("service", &mut far.command(Peer::Python.command().args(["-c", SERVICE])));
    service.expect_line("it listens");
    for (host, old, new) in
        [("10.99.1.1", "10.99.1.2/24", "10.99.1.3/24"), ("[fd99::1]", "fd99::2/64", "fd99::3/64 nodad")]
    {
        let world = World::new();
        let home = world.enrol("home", &[]);
        let relay = world.relay_at(["[::]:0", "[::]:0"], &[]);
        let ticket = world.ticket_with(&relay, &home, Below::Tls13, |line| {
            let url = format!("relay https://{host}:{}", relay.tls.port());
            Some(if line.starts_with("relay ") { url } else { line.to_owned() })
        });
        let mut command = rendezvous();
        command.args(["agent", "--to", "127.0.0.1:9000", "--ticket"]).arg(ticket);
        let agent = Program::start("agent", &mut far.command(&mut command));
        agent.expect_lines(lines::WAITING, 4);
        ask(&relay, &home);
        // Clients that connect before the new address exists are handed to dead connections.
        far.ip(&format!("address del {old} dev far"));
        thread::scope(|scope| {
            let clients: Vec<_> = (0..6).map(|_| scope.spawn(|| ask(&relay, &home))).collect();
            far.ip(&format!("address add {new} dev far"));
            let changed = Instant::now();
            ask(&relay, &home);
            println!("{host}: the first client after the change took {:?}", changed.elapsed());
            let longest = clients.into_iter().map(|client| client.join().expect("an answer")).max();
            println!("{host}: the longest of the others took {longest:?}");
            // Without detection they would wait for half a minute on a dead connection.
            assert!(longest < Some(Duration::from_secs(12)), "{longest:?}");
        });
    }
}

/// How long it takes until a client is answered.
fn ask(relay: &Relay, home: &Enrolled) -> Duration {
    let begun = Instant::now();
    let mut wire = relay.open(Below::Clear);
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&home.id));
    wire.send(request.as_bytes());
    assert_eq!(Answer::read(&mut wire).status(), 200);
    begun.elapsed()
}
