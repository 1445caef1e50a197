//! Squid on the way to the relay: Basic, Digest, a wrong password, and a port that it does not allow.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use crate::curl::text;
use crate::harness::{Case, case};
use crate::hidden::{page, page_text};
use crate::peers::Peer;
use crate::program::{Program, run, run_with};
use crate::wire::Below;
use crate::world::{Enrolled, Relay, World, basic, lines, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("an_agent_passes_squid_with_basic", NEEDED, || an_agent_passes("basic")),
    case("an_agent_passes_squid_with_digest", NEEDED, || an_agent_passes("digest")),
    case("squid_refuses_a_wrong_password_and_another_port", NEEDED, squid_refuses),
];

const NEEDED: &[Peer] = &[Peer::Squid, Peer::Openssl];
const PASSWORD: &str = "s3cret-of-squid";
/// Where Debian has the helpers of Squid.
const HELPERS: &str = "/usr/lib/squid";

struct Site {
    world: World,
    home: Enrolled,
    relay: Relay,
    /// The `--proxy`.
    url: String,
    _squid: Program,
}

impl Site {
    /// A relay, and a Squid that asks for alice's password with this scheme and allows the relay's port, or only 443.
    fn start(scheme: &str, allows_relay: bool) -> Self {
        let world = World::new();
        let home = world.enrol("home", &[]);
        let relay = world.relay(&[]);
        // Another process may take the port in between; then Squid says so.
        let at = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port");
        let users = if scheme == "basic" {
            let mut hash = Peer::Openssl.command();
            hash.args(["passwd", "-apr1", "-stdin"]);
            format!("alice:{}", text(&run_with(&mut hash, PASSWORD.as_bytes())))
        } else {
            format!("alice:{PASSWORD}\n")
        };
        let users = world.folder.write("squid.users", &users);
        // Squid has another user.
        fs::set_permissions(&users, fs::Permissions::from_mode(0o644)).expect("it is our file");
        let helper = if scheme == "basic" { "basic_ncsa_auth" } else { "digest_file_auth" };
        let port = if allows_relay { relay.tls.port() } else { 443 };
        let configuration = format!(
            "http_port {at}\npid_filename none\ncache_log /dev/null\naccess_log none\ncache deny all\npinger_enable off\n\
             shutdown_lifetime 0 seconds\nvisible_hostname proxy.test\ncache_effective_user proxy\n\
             auth_param {scheme} program {HELPERS}/{helper} {}\nauth_param {scheme} realm of the test\n\
             acl users proxy_auth REQUIRED\nacl relay port {port}\nhttp_access deny !relay\n\
             http_access allow users\nhttp_access deny all\n",
            users.display()
        );
        let configuration = world.folder.write("squid.conf", &configuration);
        let mut squid = Peer::Squid.command();
        // A name of its own for its shared memory.
        squid.args(["-N", "-d", "1", "-n", &format!("test{}", at.port()), "-f"]).arg(configuration);
        let squid = Program::start("squid", &mut squid);
        squid.expect_line("Accepting HTTP Socket connections");
        Self { world, home, relay, url: format!("http://alice@{at}"), _squid: squid }
    }

    /// The options for this password.
    fn options(&self, password: &str) -> Vec<String> {
        let file = self.world.folder.write("password", password);
        let file = file.to_str().expect("a path of ours").to_owned();
        vec!["--proxy".to_owned(), self.url.clone(), "--proxy-password-file".to_owned(), file]
    }

    fn agent(&self, options: &[String]) -> Program {
        let ticket = self.world.ticket(&self.relay, &self.home, Below::Tls13);
        let mut agent = rendezvous();
        agent.args(["agent", "--to", &page().to_string()]).args(options).arg("--ticket").arg(ticket);
        Program::start("agent", &mut agent)
    }

    /// The lines of `check`, and whether it passed.
    fn check(&self, options: &[String]) -> (bool, String) {
        let ticket = self.world.ticket(&self.relay, &self.home, Below::Tls13);
        let check = run(rendezvous().args(["check", "--ticket"]).arg(ticket).args(options));
        (check.status.success(), String::from_utf8_lossy(&check.stdout).into_owned())
    }
}

fn an_agent_passes(scheme: &str) {
    let site = Site::start(scheme, true);
    let options = site.options(PASSWORD);
    let agent = site.agent(&options);
    agent.expect_line(lines::WAITING);
    let request = format!("GET /x HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&site.home.id));
    assert_eq!(site.relay.ask(request).text(), page_text("GET", "/x", b""));
    let (passed, shown) = site.check(&options);
    assert!(passed && shown.contains("opens a tunnel to https://"), "{shown}");
    assert_eq!(agent.lines(PASSWORD), 0);
}

fn squid_refuses() {
    let site = Site::start("basic", true);
    let options = site.options("wrong-password");
    site.agent(&options).expect_line("the proxy does not accept the user name and the password");
    let (passed, shown) = site.check(&options);
    assert!(!passed && shown.contains("the proxy does not accept the user name and the password"), "{shown}");
    let site = Site::start("basic", false);
    let options = site.options(PASSWORD);
    site.agent(&options).expect_line("many allow only port 443");
    let (passed, shown) = site.check(&options);
    assert!(!passed && shown.contains("refuses CONNECT to the relay's port with 403"), "{shown}");
}
