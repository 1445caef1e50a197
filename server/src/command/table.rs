//! All commands of the program, in the order of `rendezvous --help`.

use super::definition::{Command, Run};
#[cfg(feature = "units")]
use super::install_units;
use super::{agent, check, connect, demo, help, id, key, kick, password, serve, status, token, usage};
#[cfg(feature = "manual")]
use super::{completions, manual};
#[cfg(feature = "xmpp")]
use super::{dtcp, proxy, stream};

/// The commands. Help, manual pages and completions come from this table and from the option tables that it refers to.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        summary: "a quick start: relay, hidden page and agent in one process",
        specs: || vec![&demo::SPEC],
        run: Run::Alone(demo::run),
    },
    Command {
        name: "serve",
        summary: "run the relay",
        specs: || vec![&serve::SPEC],
        run: Run::Alone(serve::run),
    },
    Command {
        name: "id",
        summary: "enrol hidden servers and write their tickets",
        specs: id::specs,
        run: Run::Alone(id::run),
    },
    Command {
        name: "agent",
        summary: "connect a hidden server to its relay",
        specs: || vec![&agent::SPEC],
        run: Run::Alone(agent::run),
    },
    Command {
        name: "connect",
        summary: "connect a client that does not speak HTTP",
        specs: || vec![&connect::SPEC],
        run: Run::Alone(connect::run),
    },
    Command {
        name: "key",
        summary: "make a key, or print the pin of a key or certificate",
        specs: || vec![&key::SPEC],
        run: Run::Alone(key::run),
    },
    Command {
        name: "password",
        summary: "set a password for 'agent --password-file'",
        specs: || vec![&password::SPEC],
        run: Run::Alone(password::run),
    },
    #[cfg(feature = "xmpp")]
    Command {
        name: "dtcp",
        summary: "open a direct connection to an XMPP peer",
        specs: || vec![&dtcp::OPEN, &dtcp::ACCEPT],
        run: Run::Alone(dtcp::run),
    },
    #[cfg(feature = "xmpp")]
    Command {
        name: "proxy",
        summary: "run a stream proxy for an XMPP server",
        specs: || vec![&proxy::SPEC],
        run: Run::Alone(proxy::run),
    },
    #[cfg(feature = "xmpp")]
    Command {
        name: "stream",
        summary: "open or accept a stream between two XMPP entities",
        specs: || vec![&stream::OPEN, &stream::ACCEPT],
        run: Run::Alone(stream::run),
    },
    Command {
        name: "status",
        summary: "show the state of a running relay",
        specs: || vec![&status::SPEC],
        run: Run::Alone(status::run),
    },
    Command {
        name: "usage",
        summary: "show the traffic of each hidden server",
        specs: || vec![&usage::SPEC],
        run: Run::Alone(usage::run),
    },
    Command {
        name: "kick",
        summary: "end connections at a running relay",
        specs: || vec![&kick::SPEC],
        run: Run::Alone(kick::run),
    },
    Command {
        name: "check",
        summary: "diagnose the connection of a hidden server",
        specs: || vec![&check::SPEC],
        run: Run::Alone(check::run),
    },
    #[cfg(feature = "replay")]
    Command {
        name: "replay",
        summary: "replay a trace of 'serve --trace' or 'agent --trace'",
        specs: || vec![&super::replay::SPEC],
        run: Run::Alone(super::replay::run),
    },
    Command {
        name: "token",
        summary: "print a token",
        specs: || vec![&token::SPEC],
        run: Run::Alone(token::run),
    },
    Command {
        name: "help",
        summary: "show the manual page of a command",
        specs: || vec![&help::SPEC],
        run: Run::OfAll(help::run),
    },
    #[cfg(feature = "manual")]
    Command {
        name: "completions",
        summary: "print the completions of a shell",
        specs: || vec![&completions::SPEC],
        run: Run::OfAll(completions::run),
    },
    #[cfg(feature = "manual")]
    Command {
        name: "manual",
        summary: "write all manual pages into a folder",
        specs: || vec![&manual::SPEC],
        run: Run::OfAll(manual::run),
    },
    #[cfg(feature = "units")]
    Command {
        name: "install-units",
        summary: "write the systemd units for this program",
        specs: || vec![&install_units::SPEC],
        run: Run::Alone(install_units::run),
    },
];
