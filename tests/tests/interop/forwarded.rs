//! `agent --forwarded`: what services learn of their clients, with nginx, Django and Flask set up as in the manual.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::curl::{curl, text};
use crate::harness::{Case, case};
use crate::hidden::{Raw, read_head};
use crate::peers::{Peer, script};
use crate::program::{Program, run};
use crate::proxy::connect_from;
use crate::wire::{Answer, Below, Wire};
use crate::world::{Enrolled, Relay, World, basic, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("django_accepts_only_its_own_form", &[Peer::Django], || form(Peer::Django, "forwarded_django.py")),
    case("flask_accepts_only_its_own_form", &[Peer::Flask], || form(Peer::Flask, "forwarded_flask.py")),
    case("django_behind_nginx_accepts_its_form", &[Peer::Django, Peer::Nginx], django_behind_nginx),
    case("nginx_redirects_to_where_the_client_is", &[Peer::Nginx, Peer::Curl], nginx_redirects),
    case(
        "every_request_gets_forwarding_fields_and_other_input_is_refused",
        &[],
        every_request_gets_forwarding_fields,
    ),
    case("the_option_is_for_http_services", &[], the_option_is_for_http_services),
];

/// The clients' address, which differs from the agent's.
const CLIENT: &str = "127.0.0.9";

/// A relay, and an agent that forwards to this service.
struct Forwarded {
    world: World,
    relay: Relay,
    home: Enrolled,
    _agent: Program,
}

impl Forwarded {
    fn to(service: SocketAddr) -> Self {
        let world = World::new();
        let home = world.enrol("home", &[]);
        let relay = world.relay(&[]);
        let agent = world.agent(&relay, &home, Below::Tls13, &["--to", &service.to_string(), "--forwarded"]);
        Self { world, relay, home, _agent: agent }
    }

    /// Submits the form with the Python client.
    fn fill_in(&self, python: Peer) {
        let url = self.relay.url(Below::Tls13);
        let mut client = python.command();
        client.arg(script("forwarded_client.py")).args([&url, &self.home.id]);
        client.arg(self.world.certificate()).arg(CLIENT);
        let host = url.strip_prefix("https://").expect("its scheme");
        assert_eq!(text(&run(&mut client)), format!("{CLIENT} https {host}\n403\n"));
    }
}

/// A Python program that prints where it listens.
fn service(python: Peer, name: &str) -> (SocketAddr, Program) {
    let mut command = python.command();
    let server = Program::start("service", command.arg("-u").arg(script(name)));
    let port: u16 = server.pick("its port", |line| line.strip_prefix("listening ")?.parse().ok());
    (([127, 0, 0, 1], port).into(), server)
}

fn form(python: Peer, name: &str) {
    let (address, _server) = service(python, name);
    Forwarded::to(address).fill_in(python);
}

/// nginx with one server, at an address of its own, because it cannot report a port that it chose. `listen` are
/// the options of its listener.
pub(crate) fn nginx(world: &World, listen: &str, server: &str) -> (SocketAddr, Program) {
    let own = std::process::id().to_be_bytes();
    let address = (1..=250)
        .map(|last| SocketAddr::from(([127, own[2] | 1, own[3], last], 8090)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("loopback has a free address");
    let folder = world.folder.0.display();
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
        .concat();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr notice;\nevents {{}}\nhttp {{\n\
         {places}  access_log off;\n  server {{\n    listen {address} {listen};\n{server}  }}\n}}\n"
    );
    let config = world.folder.write("nginx.conf", &config);
    let program = Program::start("nginx", Peer::Nginx.command().arg("-c").arg(config).args(["-e", "stderr"]));
    // At this line it listens.
    program.expect_line("using the \"epoll\" event method");
    (address, program)
}

fn django_behind_nginx() {
    let (django, _server) = service(Peer::Django, "forwarded_django.py");
    let world = World::new();
    let pass = format!("    location / {{ proxy_pass http://{django}; proxy_http_version 1.1; }}\n");
    let (address, _nginx) = nginx(&world, "", &pass);
    Forwarded::to(address).fill_in(Peer::Django);
}

fn nginx_redirects() {
    let world = World::new();
    let root = world.folder.0.join("root");
    std::fs::create_dir_all(root.join("dir")).expect("a folder can be made");
    std::fs::write(root.join("dir/index.html"), "the page\n").expect("a file can be written");
    let server = format!(
        "    root {};\n    absolute_redirect off;\n    set_real_ip_from 127.0.0.1;\n    \
         real_ip_header X-Forwarded-For;\n    add_header X-Client $remote_addr;\n",
        root.display()
    );
    let (address, _nginx) = nginx(&world, "", &server);
    let forwarded = Forwarded::to(address);
    let url = forwarded.relay.url(Below::Tls13);
    let mut client = curl(&forwarded.world, &forwarded.home, "--basic");
    client.args(["--location", "--interface", CLIENT, "--header", "X-Forwarded-For: 203.0.113.9"]);
    client
        .args(["--write-out", "%header{x-client} %{num_redirects} %{url_effective}"])
        .arg(format!("{url}/dir"));
    let shown = text(&run(&mut client));
    let shown = shown.strip_prefix("the page\n").unwrap_or_else(|| panic!("{shown}"));
    let host = url.strip_prefix("https://").expect("its scheme");
    let is_there = shown.contains(" 1 https://") && shown.ends_with(&format!("{host}/dir/"));
    assert!(is_there, "{shown}");
    // curl supports %header{} since 7.84.
    assert!(shown.starts_with(CLIENT) || shown.starts_with("%header"), "{shown}");
}

/// Reads one request, and answers it.
fn exchange(service: &mut TcpStream) -> String {
    let head = String::from_utf8(read_head(service)).expect("text");
    service.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("it takes an answer");
    head
}

fn every_request_gets_forwarding_fields() {
    let service = Raw::start();
    let forwarded = Forwarded::to(service.address);
    let mut client = Wire::over(connect_from(CLIENT, forwarded.relay.tls), Below::Tls13);
    let request =
        |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: a.example:8443\r\n{fields}\r\n");
    let told = |path: &str, fields: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a.example:8443\r\n{fields}X-Forwarded-For: {CLIENT}\r\n\
             X-Forwarded-Host: a.example:8443\r\nX-Forwarded-Proto: https\r\n\
             Forwarded: for={CLIENT};host=\"a.example:8443\";proto=https\r\n\r\n"
        )
    };
    let credentials = basic(&forwarded.home.id);
    client.send(request("/1", &credentials).as_bytes());
    let mut local = service.accept();
    assert_eq!(exchange(&mut local), told("/1", ""));
    assert_eq!(Answer::read(&mut client).text(), "ok");
    // A later request, with names that CGI does not distinguish from the real ones, and two more after it.
    let forged = request(
        "/2",
        &format!("{credentials}X_Forwarded_For: 1\r\nConnection: X-Forwarded-For\r\nFORWARDED: x\r\n"),
    );
    let post = "POST /3 HTTP/1.1\r\nHost: a.example:8443\r\nTransfer-Encoding: chunked\r\n";
    let chunks = "1b\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n\r\n0\r\n\r\n";
    client
        .send(format!("{forged}{post}{credentials}\r\n{chunks}GET /4 HTTP/1.1\nX-Real-IP: 1\n\n").as_bytes());
    let _second = exchange(&mut local);
    let third = String::from_utf8(read_head(&mut local)).expect("text");
    assert!(
        third.starts_with(post) && third.contains(&format!("\r\nX-Forwarded-For: {CLIENT}\r\n")),
        "{third}"
    );
    let mut body = vec![0; chunks.len()];
    local.read_exact(&mut body).expect("the body arrives");
    assert_eq!(String::from_utf8_lossy(&body), chunks);
    local.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthird").expect("it takes an answer");
    assert_eq!(Answer::read(&mut client).text(), "ok");
    assert_eq!(Answer::read(&mut client).text(), "third");
    // Input that is not HTTP is answered in its turn, and the service does not receive it.
    let refused = Answer::read(&mut client);
    assert_eq!((refused.status(), refused.field("Connection")), (400, Some("close")));
    let mut rest = Vec::new();
    local.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

fn the_option_is_for_http_services() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let output =
        run(rendezvous().args(["agent", "--forwarded", "--stream", "127.0.0.1:22", "--ticket"]).arg(ticket));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains("--forwarded"), "{complaint}");
}
