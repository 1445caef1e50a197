//! `id add`, `id rotate` and `id ticket`: the commands that make secrets and tickets.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rendezvous_core::id::Id;
use rendezvous_core::token::{Algorithm, Key};
use zeroize::Zeroizing;

use super::{commit, paste};
use crate::console::{print, print_error};
use crate::entropy;
use crate::failure::{Failure, reason};
use crate::files::{self, FileKind};
use crate::ids::{Edit, Entry, IDS_FILE, Ids, Steering, Tokens, is_label, is_name};
use crate::options::value::public_host;
use crate::options::{Matches, Opt, STATE, Spec, parse, value};
use crate::relay_url::RelayUrl;
use crate::state::State;
use crate::status::socket;
use crate::ticket::{Ticket, parse_ca};
use crate::trust::Trust;
use crate::{cert, key_uri, tls_config};

pub(super) const RELAY: Opt = Opt::one(
    "relay",
    "URL",
    "",
    "the relay's URL for agents and clients: https://relay.example.com:8443; without it, no ticket is written",
);

pub(super) const CA: Opt = Opt::one(
    "ca",
    "FILE|system",
    "the pin of relay.crt",
    "how clients verify the relay, if its certificate is not self-signed",
);

const SNI: Opt = Opt::flag(
    "sni",
    "the ticket's agent sends LABEL.HOST as server name, with the first label and the host of --relay: for relays with --group",
);

const OUT: Opt =
    Opt::one("out", "FILE", "NAME.ticket", "the file for the ticket, which must not exist; - is stdout");

pub(super) const ADD: Spec = Spec {
    command: "id add",
    operands: &["NAME"],
    summary: "Enrols a hidden server, writes its ticket, and prints the commands for its agent and its clients.",
    options: &[
        RELAY,
        OUT,
        CA,
        SNI,
        STATE,
        Opt::one("uuid", "UUID", "random", "the ID"),
        Opt::one(
            "tokens",
            "bound|any",
            "bound",
            "the tokens that it may send; any: also plain ones, for old hidden servers and scripts",
        ),
        Opt::many("label", "LABEL", "", "a name under the relay's --domain"),
        Opt::flag(
            "end-to-end",
            "its clients' TLS is not terminated by the relay, but by its agent (--end-to-end) or service (--tls-to)",
        ),
        Opt::one("algorithm", "SHA1|SHA256|SHA512", "SHA256", "the hash function of its tokens"),
        Opt::one("digits", "N", "8", "number of digits of plain tokens, 6 to 10"),
        Opt::one("period", "SECONDS", "30", "the time step, 1 to 3600"),
        Opt::one("secret-file", "FILE", "a random secret", "an existing secret (BASE32); - is stdin"),
    ],
    footer: "\
A hidden server written for node-rendezvous: --algorithm SHA1 --digits 6 --tokens any",
};

/// `id add NAME`.
pub(super) fn add(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&ADD, args)?;
    let name = matches.operands().concat();
    if !is_name(&name) {
        return Err(Failure::Usage(format!(
            "'{name}' is not a valid name: use 1 to 64 letters, digits, - _ ."
        )));
    }
    let relay = matches.get_if("relay", RelayUrl::parse)?;
    let entry = Entry {
        id: read_id(&matches)?,
        labels: matches.get_all("label", read_label)?,
        tokens: matches
            .get("tokens", |text| Tokens::parse(text).ok_or(format!("'{text}' is not bound or any")))?,
        key: read_key(&matches)?,
        end_to_end: matches.flag("end-to-end"),
        steering: Steering::default(),
        name,
    };
    if let Some(twice) =
        entry.labels.iter().enumerate().find(|(at, label)| entry.labels[..*at].contains(label))
    {
        return Err(Failure::Usage(format!("--label: '{}' is repeated", twice.1)));
    }
    let state = State::open_for_owner(matches.one("state"))?;
    // Before a complaint that its ticket exists.
    let path = state.file(IDS_FILE);
    if Ids::load(&path)?.get(&entry.name).is_some() {
        let (path, name) = (path.display(), &entry.name);
        return Err(Failure::Failed(format!(
            "{path}: '{name}' already exists ('rendezvous id ticket {name}' writes its ticket again)"
        )));
    }
    let out = Out::of(&matches, &entry.name, relay.as_ref(), &state)?;
    let mut edit = Edit::begin(&state)?;
    edit.add(&entry)?;
    finish(edit, out, &entry, "is enrolled", matches.one("state"))
}

pub(super) const ROTATE: Spec = Spec {
    command: "id rotate",
    operands: &["NAME"],
    summary: "Gives a hidden server a new secret and writes its new ticket. The old ticket stops working.",
    options: &[RELAY, OUT, CA, SNI, STATE],
    footer: "",
};

/// `id rotate NAME`.
pub(super) fn rotate(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&ROTATE, args)?;
    let name = matches.operands().concat();
    let relay = matches.get_if("relay", RelayUrl::parse)?;
    let state = State::open_for_owner(matches.one("state"))?;
    let out = Out::of(&matches, &name, relay.as_ref(), &state)?;
    let mut edit = Edit::begin(&state)?;
    let old = &edit.get(&name)?.key;
    let secret = random_secret(old.algorithm())?;
    let key = new_key(secret, old.algorithm(), old.digits(), old.period())?;
    edit.rotate(&name, &key)?;
    let entry = edit.get(&name)?.clone();
    finish(edit, out, &entry, "has a new secret", matches.one("state"))
}

pub(super) const TICKET: Spec = Spec {
    command: "id ticket",
    operands: &["NAME"],
    summary: "Writes the ticket of an enrolled hidden server.",
    options: &[
        RELAY.explained("the relay's URL for agents and clients: https://relay.example.com:8443"),
        OUT,
        CA,
        SNI,
        STATE,
    ],
    footer: "",
};

/// `id ticket NAME`.
pub(super) fn ticket(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&TICKET, args)?;
    let name = matches.operands().concat();
    let relay = matches.get_if("relay", RelayUrl::parse)?;
    let relay =
        relay.ok_or_else(|| Failure::Usage("--relay URL is missing: a ticket contains it".to_owned()))?;
    let state = State::open_for_owner(matches.one("state"))?;
    let out = Out::of(&matches, &name, Some(&relay), &state)?;
    let path = state.file(IDS_FILE);
    let ids = Ids::load(&path)?;
    let entry = ids.get(&name).ok_or_else(|| ids.nobody(&name, &path))?.clone();
    if let Some(out) = out {
        out.check(&entry)?;
        let ticket = out.ticket(&entry);
        out.write(&ticket, &name)?;
        out.print(&entry, "")?;
    }
    Ok(())
}

/// How the ticket's agent verifies the relay: as `--ca` says; else by the pin of the certificate that a running relay
/// serves; else by that of the certificate in the state folder, which is made if missing and covers the relay's host
/// name.
fn trust(matches: &Matches, relay: &RelayUrl, state: &State) -> Result<Trust, Failure> {
    if let Some(given) = matches.get_if("ca", parse_ca)? {
        return Ok(given);
    }
    if !relay.tls {
        return Ok(Trust::System); // there is nothing to check
    }
    let path = state.file(cert::CERT_FILE);
    let served = socket::served_certificate(state.folder());
    if served.is_some_and(|served| served.changes_keys) {
        // A pin would be wrong after the next renewal.
        return Ok(Trust::System);
    }
    if let Some(pin) =
        served.map(|served| served.pin).filter(|pin| cert::pin_of_file(&path).ok() != Some(*pin))
    {
        warn(&format!(
            "the running relay serves another certificate than {} (--cert): its pin is used. If a public CA signed it, \
             give --ca system instead, because a renewed certificate can have another key",
            path.display()
        ));
        return Ok(Trust::Pins(vec![pin]));
    }
    let had_key = fs::symlink_metadata(state.file(cert::KEY_FILE)).is_ok();
    let mut names = cert::default_names(None);
    names.push(public_host(&relay.host).to_owned());
    let (identity, warning) = cert::ensure(state, cert::PairFiles::RELAY, &names, &tls_config::provider())?;
    if !had_key {
        let folder = state.folder().display();
        print_error(
            Some("id"),
            &format!("note: made a new key in {folder}: start the relay with this folder"),
        );
    }
    if let Some(warning) = warning {
        warn(&warning);
    }
    Ok(Trust::Pins(vec![identity.pin]))
}

/// Writes the ticket and then the file. A ticket without an ID is harmless and is removed again; an ID without its
/// ticket would be unusable.
fn finish(
    edit: Edit<'_>,
    out: Option<Out>,
    entry: &Entry,
    done: &str,
    state: Option<&str>,
) -> Result<(), Failure> {
    let name = &entry.name;
    let Some(out) = out else {
        commit(edit)?;
        let state = state.map_or_else(String::new, |state| format!(" --state {}", paste::quoted(state)));
        return print(&format!(
            "{entry} {done}\nIts ticket: rendezvous id ticket {name}{state} --relay https://HOST:PORT\n"
        ));
    };
    out.check(entry)?;
    let ticket = out.ticket(entry);
    if out.path.is_none() {
        commit(edit)?;
        out.write(&ticket, name)?;
    } else {
        out.write(&ticket, name)?;
        commit(edit).inspect_err(|_| out.take_back())?;
    }
    out.print(entry, done)
}

/// Where the ticket is written, and its contents about the relay.
struct Out {
    /// `None`: stdout.
    path: Option<PathBuf>,
    relay: RelayUrl,
    trust: Trust,
    /// Whether the ticket names the first label as server name, for a group of relays.
    sni: bool,
}

impl Out {
    /// Reads the options. Returns `None` if no relay, and hence no ticket, was requested.
    fn of(
        matches: &Matches,
        name: &str,
        relay: Option<&RelayUrl>,
        state: &State,
    ) -> Result<Option<Out>, Failure> {
        let Some(relay) = relay else {
            if matches.one("out").is_some() || matches.one("ca").is_some() {
                return Err(Failure::Usage("--relay URL is missing: a ticket contains it".to_owned()));
            }
            return Ok(None);
        };
        let path = match matches.get_if("out", value::path)? {
            Some(given) if given == Path::new("-") => None,
            Some(given) => Some(given),
            None => Some(PathBuf::from(format!("{name}.ticket"))),
        };
        // Checked before anything is changed. Writing the ticket never overwrites a file in any case.
        if let Some(path) = path.as_ref().filter(|path| fs::symlink_metadata(path).is_ok()) {
            return Err(Failure::Failed(format!(
                "{} exists and is not overwritten: move it away, or use --out FILE",
                path.display()
            )));
        }
        Ok(Some(Out {
            path,
            relay: relay.clone(),
            trust: trust(matches, relay, state)?,
            sni: matches.flag(SNI.long),
        }))
    }

    /// Checks that the entry has what its ticket needs.
    fn check(&self, entry: &Entry) -> Result<(), Failure> {
        match (self.sni, entry.labels.is_empty()) {
            (true, true) => Err(Failure::Failed(format!(
                "--sni: '{}' has no label (rendezvous id set {} --label add=LABEL)",
                entry.name, entry.name
            ))),
            (true, false) if !self.relay.tls => {
                Err(Failure::Usage("--sni needs a --relay with https://".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn ticket(&self, entry: &Entry) -> Ticket {
        let key = entry.key.clone();
        let label = entry.labels.first().filter(|_| self.sni);
        let sni = label.map(|label| format!("{label}.{}", public_host(&self.relay.host)));
        Ticket { relay: self.relay.clone(), trust: self.trust.clone(), id: entry.id, key, plain: false, sni }
    }

    fn write(&self, ticket: &Ticket, name: &str) -> Result<(), Failure> {
        match &self.path {
            Some(path) => ticket.write_new(path, name),
            None => print(&ticket.to_text(name)),
        }
    }

    fn take_back(&self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }

    /// Prints the result and the next steps. Prints nothing if the ticket went to stdout, which may be a pipe.
    fn print(&self, entry: &Entry, done: &str) -> Result<(), Failure> {
        if !self.relay.tls {
            warn(&format!("{} uses no TLS: the traffic can be read and changed on the way", self.relay));
        }
        let Some(path) = &self.path else { return Ok(()) };
        let mut text = String::new();
        if !done.is_empty() {
            text.push_str(&format!("{entry} {done}\n"));
        }
        text.push_str(&format!(
            "Its ticket, {}, authenticates the hidden server: keep it secret\n",
            path.display()
        ));
        text.push_str(&paste::for_clients(entry, &self.relay, &self.trust));
        // The last lines stay on the screen.
        let agent = paste::for_agent(path, entry, &self.relay);
        let qr_code = paste::qr_code(entry, &self.relay, &format!("{text}{agent}"));
        print(&format!("{text}{qr_code}{agent}"))
    }
}

fn read_id(matches: &Matches) -> Result<Id, Failure> {
    let read =
        |text: &str| Id::parse(text.as_bytes()).ok_or(format!("'{text}' is not a UUID (uuidgen prints one)"));
    match matches.get_if("uuid", read)? {
        Some(id) => Ok(id),
        None => entropy::id(),
    }
}

pub(super) fn read_label(text: &str) -> Result<String, String> {
    let label = text.to_ascii_lowercase();
    let why =
        || format!("'{text}' is not a valid label: use 1 to 63 letters, digits and dashes, but not a UUID");
    if is_label(&label) { Ok(label) } else { Err(why()) }
}

fn read_key(matches: &Matches) -> Result<Key, Failure> {
    let algorithm =
        |text: &str| Algorithm::parse(text).ok_or(format!("'{text}' is not one of SHA1, SHA256, SHA512"));
    let algorithm = matches.get("algorithm", algorithm)?;
    let digits = matches.get("digits", value::count(6, 10))? as u8;
    let period = matches.get("period", value::count(1, u64::from(Key::PERIOD_SECS_MAX)))? as u32;
    let secret = match matches.get_if("secret-file", value::path)? {
        None => random_secret(algorithm)?,
        Some(file) => {
            let secret = read_secret(&file)?;
            if algorithm == Algorithm::Sha1 && secret.iter().any(|byte| *byte >= 0x80) {
                warn(
                    "the secret has bytes above 127: hidden servers written for node-rendezvous cannot use it",
                );
            }
            if secret.len() < 16 {
                warn("the secret has less than 16 bytes and can be guessed");
            }
            if matches.one("tokens").is_none() {
                warn(
                    "only bound tokens are accepted; if the hidden server sends plain ones, use --tokens any",
                );
            }
            secret
        }
    };
    new_key(secret, algorithm, digits, period)
}

fn new_key(
    mut secret: Zeroizing<Vec<u8>>,
    algorithm: Algorithm,
    digits: u8,
    period: u32,
) -> Result<Key, Failure> {
    // Moved, not copied: the key wipes it on drop.
    let bytes = std::mem::take(&mut *secret);
    Key::new(bytes, algorithm, digits, period).map_err(|error| Failure::Failed(error.to_string()))
}

/// Makes a secret of 32 bytes; for SHA-1 of 7 bits each, for hidden servers that read it as text.
fn random_secret(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut secret = Zeroizing::new(entropy::bytes::<32>()?.to_vec());
    if algorithm == Algorithm::Sha1 {
        secret.iter_mut().for_each(|byte| *byte &= 0x7f);
    }
    Ok(secret)
}

/// Reads a BASE32 secret from a file or from stdin (`-`), ignoring white space.
fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let (bytes, shown) = if path == Path::new("-") {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        let read = io::stdin().take(4096).read_to_end(&mut bytes);
        read.map_err(|error| {
            Failure::Failed(format!("cannot read the secret from stdin: {}", reason(&error)))
        })?;
        (bytes, "stdin".to_owned())
    } else {
        (files::read(path, FileKind::SECRET)?, path.display().to_string())
    };
    let text = std::str::from_utf8(&bytes).unwrap_or("-"); // which is no BASE32 either
    let mut compact = Zeroizing::new(String::with_capacity(text.len()));
    compact.extend(text.chars().filter(|c| !c.is_whitespace()));
    key_uri::decode_secret(&compact)
        .map_err(|_| Failure::Failed(format!("{shown}: not a secret in BASE32 (A-Z, 2-7)")))
}

fn warn(text: &str) {
    print_error(Some("id"), &format!("warning: {text}"));
}
