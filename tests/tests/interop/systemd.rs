//! Under a service manager: notifications, socket activation, and the hardening of the units.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::SockRef;

use crate::harness::{Case, case};
use crate::hidden::page;
use crate::peers::Peer;
use crate::program::{PATIENCE, Program, run};
use crate::wire::{Answer, Below, Wire};
use crate::world::{World, basic, lines, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("the_relays_unit_is_hardened", &[Peer::SystemdAnalyze], || {
        exposure("rendezvous.service", "rendezvous.service")
    }),
    case("the_agents_unit_is_hardened", &[Peer::SystemdAnalyze], || {
        exposure("rendezvous-agent@.service", "rendezvous-agent@home.service")
    }),
    case("the_proxys_unit_is_hardened", &[Peer::SystemdAnalyze], || {
        exposure("rendezvous-proxy.service", "rendezvous-proxy.service")
    }),
    case("installed_units_have_no_faults", &[Peer::SystemdAnalyze], installed_units_have_no_faults),
    case("the_relay_reports_its_state", &[], the_relay_reports_its_state),
    case("the_agent_reports_its_waiting_connections", &[], the_agent_reports_its_waiting_connections),
    case("a_missing_service_manager_is_ignored", &[], a_missing_service_manager_is_ignored),
    case("a_restart_refuses_no_client", &[Peer::Bash], a_restart_refuses_no_client),
    case("an_upgrade_hands_inherited_sockets_and_the_main_process_over", &[Peer::Bash], an_upgrade),
    case("a_socket_of_an_unknown_kind_is_refused", &[Peer::Bash], a_socket_of_an_unknown_kind_is_refused),
    case("sockets_for_another_process_are_not_used", &[], sockets_for_another_process_are_not_used),
    case("a_credential_is_a_ticket", &[], a_credential_is_a_ticket),
];

/// `systemd-analyze security` rates a unit from 0 (closed) to 10 (open).
fn exposure(file: &str, unit: &str) {
    const LIMIT: f32 = 1.5;
    let world = World::new();
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/dist").join(file);
    let path = world.folder.write(unit, &fs::read_to_string(dist).expect("the unit is there"));
    let mut analyze = Peer::SystemdAnalyze.command();
    let output = run(analyze.args(["security", "--offline=true", "--no-pager"]).arg(&path));
    let text = String::from_utf8_lossy(&output.stdout);
    let start = format!("Overall exposure level for {unit}: ");
    let level = text.split_once(&start).and_then(|(_, rest)| rest.split_whitespace().next());
    let level: f32 = level.expect("a level").parse().expect("a number");
    assert!(level > 0.0 && level < LIMIT, "{unit}: {level}, not below {LIMIT}");
    let unit_section = fs::read_to_string(&path).expect("it was written");
    let unit_section = unit_section.split("[Service]").next().expect("a text");
    assert!(unit_section.contains("\nStartLimitIntervalSec=0\n"), "{unit} gives up after five failures");
}

/// `systemd-analyze verify` reports unknown directives, and programs that do not exist.
fn installed_units_have_no_faults() {
    let world = World::new();
    let root = &world.folder.0;
    let mut install = rendezvous();
    let program = Path::new(install.get_program()).to_owned();
    let output = run(install.arg("install-units").arg("--root").arg(root).arg("--program").arg(&program));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let units = root.join("etc/systemd/system");
    let relay = fs::read_to_string(units.join("rendezvous.service")).expect("the relay's unit");
    assert!(
        relay.contains(&format!(
            "ExecStart={} serve --config /etc/rendezvous/relay.conf\n",
            program.display()
        ))
    );
    // An instance, because a template cannot be verified.
    fs::rename(units.join("rendezvous-agent@.service"), units.join("rendezvous-agent@home.service"))
        .expect("it can be renamed");
    for unit in ["rendezvous.service", "rendezvous-agent@home.service", "rendezvous-proxy.service"] {
        let mut analyze = Peer::SystemdAnalyze.command();
        let output = run(analyze.args(["verify", "--man=no", "--recursive-errors=no"]).arg(units.join(unit)));
        let findings = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && findings.is_empty(), "{unit}: {findings}");
    }
    // The options of the relay are read, and an edited file is kept.
    let conf = root.join("etc/rendezvous/relay.conf");
    let kept = "# mine\nwait 7\n";
    fs::write(&conf, kept).expect("it can be written");
    let mut again = rendezvous();
    assert!(run(again.arg("install-units").arg("--root").arg(root)).status.success());
    assert_eq!(fs::read_to_string(&conf).expect("it is there"), kept);
}

/// A service manager.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rendezvous-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address = UnixAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("nobody has this name");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
        Self { socket, name }
    }

    fn start(&self, name: &str, command: &mut Command) -> Program {
        Program::start(name, command.env("NOTIFY_SOCKET", format!("@{}", self.name)))
    }

    /// Awaits a message with this beginning. Messages before it are skipped, except those that must not come.
    fn expect_message(&self, start: &str, but_not: &str) -> String {
        loop {
            let mut bytes = [0; 4096];
            let len = match self.socket.recv(&mut bytes) {
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("never told {start}: {error}"),
            };
            let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
            assert!(!text.starts_with(but_not), "{text:?} before {start:?}");
            if text.starts_with(start) {
                return text;
            }
        }
    }
}

fn the_relay_reports_its_state() {
    let (world, manager) = (World::new(), Manager::new());
    world.enrol("home", &[]);
    let mut serve = rendezvous();
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--state"])
        .arg(world.state())
        .env("WATCHDOG_USEC", "500000");
    let mut relay = manager.start("relay", &mut serve);
    manager.expect_message("READY=1", "STOPPING=1");
    relay.expect_exactly("event=listening", 1);
    assert!(manager.expect_message("STATUS=", "READY=1").contains("1 IDs, 0 waiting connections"));
    manager.expect_message("WATCHDOG=1", "READY=1");
    manager.expect_message("WATCHDOG=1", "READY=1");
    relay.signal("HUP");
    let reloading = manager.expect_message("RELOADING=1\nMONOTONIC_USEC=", "READY=1");
    assert!(reloading.rsplit_once('=').is_some_and(|(_, micros)| micros.parse::<u64>().is_ok()));
    manager.expect_message("READY=1", "STOPPING=1");
    relay.expect_exactly("event=reloaded", 1);
    relay.signal("TERM");
    manager.expect_message("STOPPING=1", "READY=1");
    assert!(relay.exit().success());
}

fn the_agent_reports_its_waiting_connections() {
    let (world, manager) = (World::new(), Manager::new());
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let mut agent = rendezvous();
    agent.args(["agent", "--to", "127.0.0.1:1", "--pool", "3", "--ticket"]).arg(ticket);
    let mut agent = manager.start("agent", &mut agent);
    manager.expect_message("READY=1", "STOPPING=1");
    let all = format!("STATUS=waiting connections: 3 at {}", relay.url(Below::Tls13));
    manager.expect_message(&all, "READY=1");
    agent.signal("TERM");
    manager.expect_message("STOPPING=1", "READY=1");
    assert!(agent.exit().success());
}

fn a_missing_service_manager_is_ignored() {
    let world = World::new();
    let mut serve = rendezvous();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(world.state());
    let relay = Program::start("relay", serve.env("NOTIFY_SOCKET", "/nowhere/at/all"));
    relay.expect_line(lines::READY);
    relay.expect_line("event=no-service-manager");
}

/// A listener whose descriptor is inherited by programs started from here.
fn passed_on() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    SockRef::from(&listener).set_cloexec(false).expect("a descriptor has flags");
    let address = listener.local_addr().expect("it has one");
    (listener, address)
}

/// `rendezvous serve` with sockets as a service manager passes them: from descriptor 3 upwards, for this process.
fn activated(world: &World, sockets: [&TcpListener; 2], names: &str) -> Command {
    const SCRIPT: &str = r#"exec {a}<&"$1" {b}<&"$2"; exec 3<&"$a" 4<&"$b" {a}<&- {b}<&-; shift 2
        export LISTEN_PID=$$ LISTEN_FDS=2; exec "$@""#;
    let mut bash = Peer::Bash.command();
    bash.args(["-c", SCRIPT, "bash"]).args(sockets.map(|socket| socket.as_raw_fd().to_string()));
    bash.arg(rendezvous().get_program()).args(["serve", "--state"]).arg(world.state());
    bash.env("LISTEN_FDNAMES", names).env_remove("RUST_LOG").env_remove("JOURNAL_STREAM");
    bash
}

fn a_restart_refuses_no_client() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let ((tls, at_tls), (clear, at_clear)) = (passed_on(), passed_on());
    let start = || Program::start("relay", &mut activated(&world, [&tls, &clear], "tls:plain"));
    let mut first = start();
    first.expect_line(lines::READY);
    first.expect_exactly("event=listening", 2);
    let pin = first.pick("its pin", |line| Some(line.split_once("pin=")?.1.to_owned()));
    first.signal("TERM");
    assert!(first.exit().success());
    // No process accepts, and yet no client is refused.
    let relay = |program| crate::world::Relay { program, tls: at_tls, clear: at_clear, pin: pin.clone() };
    let mut client = Wire::open(Below::Clear, at_clear);
    client.send(
        format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&home.id)).as_bytes(),
    );
    let second = relay(start());
    let _agent = world.agent(&second, &home, Below::Tls13, &["--to", &page().to_string()]);
    assert_eq!(Answer::read(&mut client).status(), 200);
}

fn an_upgrade() {
    let (world, manager) = (World::new(), Manager::new());
    let home = world.enrol("home", &[]);
    let ((tls, at_tls), (clear, at_clear)) = (passed_on(), passed_on());
    let mut serve = activated(&world, [&tls, &clear], "tls:plain");
    let program = manager.start("relay", serve.env("WATCHDOG_USEC", "500000"));
    manager.expect_message("READY=1", "STOPPING=1");
    program.expect_exactly("event=listening", 2);
    let pin = program.pick("its pin", |line| Some(line.split_once("pin=")?.1.to_owned()));
    let mut relay = crate::world::Relay { program, tls: at_tls, clear: at_clear, pin };
    relay.program.signal("USR2");
    manager.expect_message("RELOADING=1", "READY=1");
    let message = manager.expect_message("MAINPID=", "STOPPING=1");
    let pid = message.strip_prefix("MAINPID=").and_then(|rest| rest.strip_suffix("\nREADY=1"));
    let pid = pid.and_then(|pid| pid.parse::<u32>().ok()).expect("a number");
    // The new process writes to the same log.
    relay.program.expect_lines(&format!("event=taken-over pid={pid}"), 1);
    relay.program.expect_exactly("event=listening", 4);
    manager.expect_message("WATCHDOG=1", "STOPPING=1");
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--to", &page().to_string()]);
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&home.id));
    assert_eq!(relay.ask(request).status(), 200);
    let ended = Command::new("kill").args(["-TERM", &pid.to_string()]).status();
    assert!(ended.is_ok_and(|status| status.success()), "it runs");
    manager.expect_message("STOPPING=1", "MAINPID=");
    assert!(relay.program.exit().success());
}

fn a_socket_of_an_unknown_kind_is_refused() {
    let world = World::new();
    let ((one, _), (other, _)) = (passed_on(), passed_on());
    let output = run(&mut activated(&world, [&one, &other], "tls:plian"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("'plian': its FileDescriptorName= must be"), "{complaint}");
}

fn sockets_for_another_process_are_not_used() {
    let world = World::new();
    let mut serve = rendezvous();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(world.state());
    let relay = Program::start("relay", serve.env("LISTEN_PID", "1").env("LISTEN_FDS", "7"));
    relay.expect_line(lines::READY);
    relay.expect_exactly("event=listening", 1);
}

/// systemd grants its user access to a credential by an access list, whose mask is shown as the file's group bits.
fn a_credential_is_a_ticket() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let token = |mode, folder: &Path| {
        fs::set_permissions(&ticket, fs::Permissions::from_mode(mode)).expect("its mode can be set");
        let mut token = rendezvous();
        run(token.args(["token", "--ticket"]).arg(&ticket).env("CREDENTIALS_DIRECTORY", folder))
            .status
            .success()
    };
    let (here, elsewhere) = (world.folder.0.as_path(), Path::new("/run/credentials/other"));
    assert_eq!([0o400, 0o440, 0o444, 0o460].map(|mode| token(mode, here)), [true, true, false, false]);
    assert_eq!([0o400, 0o440].map(|mode| token(mode, elsewhere)), [true, false]);
}
