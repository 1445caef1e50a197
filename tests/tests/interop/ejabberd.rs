//! ejabberd, for the tests with an XMPP server.
//!
//! It runs in an Erlang node without a name, which needs no name server of Erlang, with a database of its own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dtcp::ends;
use crate::harness::{Case, case};
use crate::peers::Peer;
use crate::program::Program;
use crate::streams;
use crate::xmpp_server::{ACCOUNTS, Ports, SECRET, XmppServer, write};

pub(crate) const CASES: &[Case] = &[case(
    "direct_connections_and_streams_work_over_ejabberd",
    &[Peer::Ejabberd, Peer::Erlang, Peer::Slixmpp],
    direct_connections_and_streams_work_over_ejabberd,
)];

const COMPONENTS: &[&str] = &["a.localhost", "b.localhost", "c.localhost", "proxy.localhost"];

fn configuration(folder: &Path) -> PathBuf {
    folder.join("ejabberd.yml")
}

pub(crate) fn configure(folder: &Path, ports: Ports, components: &[&str]) {
    let hosts: String =
        components.iter().map(|name| format!("      {name}:\n        password: {SECRET}\n")).collect();
    let text = format!(
        "hosts:\n  - localhost\n\
         loglevel: info\n\
         auth_method: internal\n\
         s2s_access: none\n\
         listen:\n\
         \x20 -\n    port: {}\n    ip: 127.0.0.1\n    module: ejabberd_c2s\n\
         \x20 -\n    port: {}\n    ip: 127.0.0.1\n    module: ejabberd_service\n    global_routes: false\n    hosts:\n{hosts}\
         modules: {{}}\n",
        ports.clients.port(),
        ports.components.port(),
    );
    write(&configuration(folder), &text);
}

/// The folder of the libraries of Erlang's packages, as `ejabberdctl` has it.
fn libraries() -> String {
    let script = Peer::Ejabberd.find().expect("a case names what it needs");
    let script = fs::read_to_string(script).expect("ejabberdctl is a script");
    let line = script.lines().find_map(|line| line.trim().strip_prefix("ERL_LIBS="));
    line.expect("ejabberdctl names the libraries").trim_matches(['\'', '"']).to_owned()
}

/// Starts it and awaits its ports. Returns `None` if it did not get them.
pub(crate) fn launch(folder: &Path) -> Option<Program> {
    let names: Vec<_> = ACCOUNTS.iter().map(|name| format!("<<\"{name}\">>")).collect();
    let register = format!(
        "[ok = ejabberd_auth:try_register(N, <<\"localhost\">>, <<N/binary, \"pw\">>) || N <- [{}], \
         not ejabberd_auth:user_exists(N, <<\"localhost\">>)], io:format(\"accounts are there~n\").",
        names.join(", ")
    );
    let mut command = Peer::Erlang.command();
    command.args(["+K", "true", "-noinput", "-mnesia", "dir"]);
    command.arg(format!("\"{}\"", folder.join("database").display()));
    command.args(["-s", "ejabberd", "-eval", &register]);
    command.env("EJABBERD_CONFIG_PATH", configuration(folder)).env("ERL_LIBS", libraries());
    command.env("EJABBERD_LOG_PATH", folder.join("ejabberd.log")).env("HOME", folder);
    command.env("ERL_CRASH_DUMP_BYTES", "0").current_dir(folder);
    let program = Program::start("ejabberd", &mut command);
    let is_up = |line: &str| {
        let failed = line.contains("Failed to open socket");
        (failed || line.contains("accounts are there")).then_some(!failed)
    };
    program.pick("that it is up", is_up).then_some(program)
}

fn direct_connections_and_streams_work_over_ejabberd() {
    let server = XmppServer::ejabberd(COMPONENTS);
    for [opener, accepter] in [[ends::REACHABLE, ends::HIDDEN], [ends::HIDDEN, ends::REACHABLE]] {
        let accepter = ends::accept(&server, accepter);
        ends::exchange(ends::open(&server, ends::ACCEPTER, opener), accepter, ends::MUCH);
    }
    for jid in [ends::ACCOUNT, ends::COMPONENT] {
        let accepter = ends::accept(&server, ends::HIDDEN);
        let options = [ends::REACHABLE, &["--to", ends::ACCEPTER]].concat();
        ends::exchange(ends::peer(&server, "open", jid, &options), accepter, ends::MUCH);
        let accepter = ends::peer(&server, "accept", jid, ends::REACHABLE);
        ends::exchange(ends::open(&server, jid, ends::HIDDEN), accepter, ends::MUCH);
    }
    ends::open(&server, ends::ACCOUNT, ends::REACHABLE).fails("refused with 503 service-unavailable");
    streams::cross_direct_and_by_proxy(server);
}
