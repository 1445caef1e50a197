//! Pebble, the CA that Let's Encrypt tests clients with, and its name server pebble-challtestsrv, which has the same
//! address for all names at first.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::peers::Peer;
use crate::program::{Program, run};
use crate::world::{Folder, Relay, World};

/// The programs that a test with Pebble needs.
pub(crate) const NEEDED: &[Peer] = &[Peer::Pebble, Peer::Curl];

/// The domain of the relays.
pub(crate) const DOMAIN: &str = "relay.example.com";

/// A CA.
pub(crate) struct Pebble {
    folder: Folder,
    pub(crate) program: Program,
    config: PathBuf,
    special: Special,
    _names: Program,
    directory: u16,
    management: u16,
    /// Where its validators come.
    pub(crate) validated: u16,
    /// Where its validators come for HTTP-01.
    pub(crate) http: u16,
    /// Its name server.
    pub(crate) dns: u16,
    names_management: u16,
}

/// What is special about a CA.
#[derive(Clone, Copy, Default)]
pub(crate) struct Special {
    /// In percent.
    pub(crate) nonces_refused: u32,
    /// In seconds.
    pub(crate) validity: Option<u32>,
    pub(crate) external_account: bool,
    /// Validators for TLS-ALPN-01 come to a port where nothing is.
    pub(crate) validates_nowhere: bool,
    /// Each validator waits for a random time below this, in seconds.
    pub(crate) delay: Option<u32>,
}

/// A port where nothing listens now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// As in the example of Pebble's documentation.
pub(crate) const MAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

impl Pebble {
    pub(crate) fn start(special: Special) -> Self {
        let folder = Folder::new();
        let [directory, management, dns, names_management, validated, http] = [(); 6].map(|()| free_port());
        Self::write_certificate(&folder);
        let path = |name: &str| folder.0.join(name).display().to_string();
        let keys = if special.external_account { format!(r#""kid-1":"{MAC_KEY}""#) } else { String::new() };
        let validity =
            special.validity.map_or(String::new(), |it| format!(r#","certificateValidityPeriod":{it}"#));
        let tls_port = if special.validates_nowhere { free_port() } else { validated };
        let config = format!(
            r#"{{"pebble":{{"listenAddress":"127.0.0.1:{directory}","managementListenAddress":"127.0.0.1:{management}",
            "certificate":"{}","privateKey":"{}","httpPort":{},"tlsPort":{tls_port},"ocspResponderURL":"",
            "externalAccountBindingRequired":{},"externalAccountMACKeys":{{{keys}}}{validity}}}}}"#,
            path("pebble.crt"),
            path("pebble.key"),
            http,
            special.external_account,
        );
        let config = folder.write("pebble.json", &config);
        let mut names = Command::new("pebble-challtestsrv");
        names.args([
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
        ]);
        names.args([
            "-dns01",
            &format!("127.0.0.1:{dns}"),
            "-management",
            &format!("127.0.0.1:{names_management}"),
        ]);
        let names = Program::start("names", &mut names);
        names.expect_line("Starting");
        let program = Self::program(&config, dns, special);
        Self {
            folder,
            program,
            config,
            special,
            _names: names,
            directory,
            management,
            validated,
            http,
            dns,
            names_management,
        }
    }

    fn program(config: &Path, dns: u16, special: Special) -> Program {
        let mut pebble = Peer::Pebble.command();
        pebble.arg("-config").arg(config).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        match special.delay {
            Some(seconds) => pebble.env("PEBBLE_VA_SLEEPTIME", seconds.to_string()),
            None => pebble.env("PEBBLE_VA_NOSLEEP", "1"),
        };
        pebble.env("PEBBLE_AUTHZREUSE", "0");
        pebble.env("PEBBLE_WFE_NONCEREJECT", special.nonces_refused.to_string());
        let program = Program::start("pebble", &mut pebble);
        program.expect_line("ACME directory available at");
        program
    }

    /// Starts it again. It has forgotten all accounts and orders, and has another root.
    pub(crate) fn restart(&mut self) {
        self.program.kill();
        self.program = Self::program(&self.config, self.dns, self.special);
    }

    /// The certificate of its own server, and the root for it.
    fn write_certificate(folder: &Folder) {
        let key = KeyPair::generate().expect("a key");
        let mut root = CertificateParams::default();
        // Not the name that rcgen gives to all.
        root.distinguished_name.push(DnType::CommonName, "CA of Pebble's own server");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        folder.write("ca.pem", &root.self_signed(&key).expect("a root").pem());
        let issuer = Issuer::new(root, key);
        let key = KeyPair::generate().expect("a key");
        let own = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        folder.write("pebble.crt", &own.signed_by(&key, &issuer).expect("a certificate").pem());
        folder.write("pebble.key", &key.serialize_pem());
    }

    /// The options of a client of it.
    pub(crate) fn options(&self) -> Vec<String> {
        let ca = self.folder.0.join("ca.pem").display().to_string();
        let directory = format!("https://localhost:{}/dir", self.directory);
        ["--acme", "--acme-agree-tos", "--acme-directory", &directory, "--acme-ca", &ca]
            .map(str::to_owned)
            .to_vec()
    }

    /// The root of the certificates that it issues.
    pub(crate) fn root(&self) -> PathBuf {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let output =
            run(Peer::Curl.command().args(["-sf", "--cacert"]).arg(self.folder.0.join("ca.pem")).arg(url));
        assert!(output.status.success(), "Pebble's root");
        self.folder.write("root.pem", &String::from_utf8_lossy(&output.stdout))
    }

    /// Changes what its name server answers: `add-caa`, `add-aaaa` …, with this JSON.
    pub(crate) fn set_names(&self, command: &str, json: &str) {
        let url = format!("http://127.0.0.1:{}/{command}", self.names_management);
        assert!(run(Peer::Curl.command().args(["-sf", "-d", json, &url])).status.success(), "{command}");
    }

    /// Writes a file into its folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        self.folder.write(name, text)
    }

    /// How many orders there were.
    pub(crate) fn orders(&self) -> usize {
        self.program.lines("Added order")
    }

    /// `rendezvous serve --acme` where its validators come.
    pub(crate) fn relay(&self, world: &World, more: &[&str]) -> Relay {
        let options = self.options();
        let options: Vec<&str> = ["--domain", DOMAIN]
            .into_iter()
            .chain(options.iter().map(String::as_str))
            .chain(more.iter().copied())
            .collect();
        world.relay_at([&format!("127.0.0.1:{}", self.validated), "127.0.0.1:0"], &options)
    }

    /// Whether a browser that trusts the CA accepts what is served for this name; the body that it gets then.
    pub(crate) fn open(&self, relay: &Relay, name: &str) -> Result<String, String> {
        self.open_at(relay.tls.port(), name)
    }

    /// The same at a port of this machine.
    pub(crate) fn open_at(&self, port: u16, name: &str) -> Result<String, String> {
        let mut curl = Peer::Curl.command();
        curl.args(["-sS", "--cacert"]).arg(self.root());
        curl.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), &format!("https://{name}:{port}/")]);
        let output = run(&mut curl);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}
