//! `agent --client-ca`: clients show a certificate, and the service gets its subject.

use std::path::PathBuf;
use std::process::Command;

use crate::connect::greets;
use crate::curl::text;
use crate::forwarded::nginx;
use crate::harness::{Case, case};
use crate::hidden::Raw;
use crate::peers::Peer;
use crate::program::{Program, run};
use crate::raw::Sealed;
use crate::world::{World, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("a_client_shows_its_certificate_and_the_service_gets_the_subject", PEERS, page_with_certificate),
    case("a_connector_shows_its_certificate", &[Peer::Openssl], connector_with_certificate),
    case("client_ca_is_refused_with_services_that_it_cannot_protect", &[], options),
];

const PEERS: &[Peer] = &[Peer::Curl, Peer::Nginx, Peer::Openssl];

/// A CA that signs certificates.
struct Authority {
    folder: PathBuf,
    name: &'static str,
}

impl Authority {
    fn new(world: &World, name: &'static str) -> Self {
        let authority = Self { folder: world.folder.0.clone(), name };
        let mut openssl = Peer::Openssl.command();
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args(["-days", "2", "-subj", &format!("/CN={name}"), "-keyout"]);
        openssl.arg(authority.path("key")).arg("-out").arg(authority.path("pem"));
        assert!(run(&mut openssl).status.success());
        authority
    }

    fn path(&self, suffix: &str) -> String {
        self.folder.join(format!("{}.{suffix}", self.name)).display().to_string()
    }

    /// Signs a certificate, and returns the paths of it and of its key.
    fn sign(&self, subject: &str) -> (String, String) {
        let (request, certificate, key) = (self.path("csr"), self.path("user.pem"), self.path("user.key"));
        let mut openssl = Peer::Openssl.command();
        openssl.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8"]);
        openssl.args(["-subj", subject, "-keyout", &key, "-out", &request]);
        assert!(run(&mut openssl).status.success());
        let mut openssl = Peer::Openssl.command();
        openssl.args(["x509", "-req", "-days", "2", "-in", &request, "-out", &certificate]);
        openssl.args(["-CA", &self.path("pem"), "-CAkey", &self.path("key"), "-CAcreateserial"]);
        // Without an extension openssl makes a certificate of version 1.
        let extensions = self.path("ext");
        std::fs::write(&extensions, "extendedKeyUsage=clientAuth\n").expect("a file can be written");
        assert!(run(openssl.args(["-extfile", &extensions])).status.success());
        (certificate, key)
    }
}

fn page_with_certificate() {
    let world = World::new();
    let (ours, other) = (Authority::new(&world, "ours"), Authority::new(&world, "other"));
    let (certificate, key) = ours.sign("/C=DE/O=Example, Inc./CN=Ánna #1");
    let (of_other, key_of_other) = other.sign("/CN=Ánna");
    let (service, _nginx) = nginx(&world, "", "    return 200 \"$http_x_client_cert_subject\\n\";\n");
    let sealed = Sealed::terminating(&["--to", &service.to_string(), "--client-ca", &ours.path("pem")]);
    let mut openssl = Peer::Openssl.command();
    openssl.args(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", &certificate]);
    let shown = text(&run(&mut openssl));
    let subject = shown.strip_prefix("subject=").expect("a subject");
    assert!(subject.contains(r"CN=\C3\81nna #1,O=Example\, Inc.,C=DE"), "{subject}");
    let curl = |versions: &[&str], own: &[&str]| -> Command {
        let mut curl = sealed.curl();
        curl.args(["-k", "-H", "X-Client-Cert-Subject: CN=root"]).args(versions).args(own);
        curl.args([sealed.url("/one"), sealed.url("/two")]);
        curl
    };
    for versions in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        let own = ["--cert", &certificate, "--key", &key];
        assert_eq!(text(&run(&mut curl(&versions, &own))), subject.repeat(2));
        let stranger = ["--cert", of_other.as_str(), "--key", key_of_other.as_str()];
        for refused in [&[][..], &stranger] {
            let output = run(&mut curl(&versions, refused));
            assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        }
    }
}

fn connector_with_certificate() {
    let world = World::new();
    let ours = Authority::new(&world, "ours");
    let (certificate, key) = ours.sign("/CN=anna");
    let service = Raw::start();
    let address = service.address.to_string();
    let sealed = Sealed::terminating(&["--stream", &address, "--client-ca", &ours.path("pem")]);
    let connect = |own: &[&str]| {
        let mut connect = rendezvous();
        let relay = format!("https://{}", sealed.relay.tls);
        connect.args(["connect", &relay, &sealed.home.id, "--pin", &sealed.relay.pin]);
        connect.args(["--end-to-end", &sealed.pin]).args(own);
        connect
    };
    greets(&service, &mut connect(&["--key", &key, "--cert", &certificate]));
    for own in [&[][..], &["--key", key.as_str()]] {
        let (mut refused, to, _) = Program::start_piped("connect", &mut connect(own));
        assert_eq!(refused.exit().code(), Some(1), "{own:?}");
        drop(to);
    }
    assert!(service.is_idle());
}

fn options() {
    let agent = ["agent", "--ticket", "t", "--to", "h:1", "--client-ca", "ca"];
    for (more, why) in [
        (&[][..], "--end-to-end"),
        (&["--end-to-end", "--to-h2"], "--to-h2"),
        (
            &["--end-to-end", "--allow-key", "sha256//CkjRtbnzTHoYyqR2gDoeQ5pUkeh3cHJ7ApdhcGvEeXc="],
            "--allow-key",
        ),
        (&["--end-to-end", "--stream", "db=h:2"], "--stream"),
    ] {
        let output = run(rendezvous().args(agent).args(more));
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(shown.contains(why), "{shown}");
    }
    let output = run(rendezvous().args(["connect", "https://h:1", "ID", "--cert", "c"]));
    assert_eq!(output.status.code(), Some(2));
}
