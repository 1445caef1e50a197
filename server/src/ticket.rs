//! Tickets: text files with all that an agent needs to be one hidden server at one relay.
//!
//! ```text
//! relay https://relay.example.com:8443
//! pin sha256//CkjRtbnzTHoYyqR2gDoeQ5pUkeh3cHJ7ApdhcGvEeXc=
//! id otpauth://totp/rendezvous:UUID?secret=BASE32&algorithm=SHA256&digits=8&period=30
//! ```
//!
//! `pin` may be repeated. `ca FILE` or `ca system` replaces the pins; the default without either is `ca system`. `token
//! plain` is for relays that do not know bound tokens. `sni LABEL.DOMAIN` is the server name to send to a group of relays,
//! instead of the relay's host. `#` begins a comment line.

use std::path::{Path, PathBuf};

use rendezvous_core::id::Id;
use rendezvous_core::token::Key;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::key_uri;
use crate::pin::Pin;
use crate::relay_url::RelayUrl;
use crate::state::{self, SECRET};
use crate::trust::Trust;

/// The content of a ticket. `Debug` does not show the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The relay. A cleartext URL ([`RelayUrl::tls`]) is allowed; the caller warns of it.
    pub relay: RelayUrl,
    /// How the relay's certificate is verified. Ignored for a cleartext URL.
    pub trust: Trust,
    /// The ID of the hidden server.
    pub id: Id,
    /// The key that its tokens are made with.
    pub key: Key,
    /// Whether to send plain tokens (`token plain`). If so, only one connection may wait.
    pub plain: bool,
    /// The server name to send (`sni LABEL.DOMAIN`), in lower case; `None`: the relay's host. It travels in clear.
    pub sni: Option<String>,
}

impl Ticket {
    /// Reads a ticket file. A relative `ca` path is relative to the ticket.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`], with file and line if possible; also if users other than the owner can read the file.
    pub fn load(path: &Path) -> Result<Ticket, Failure> {
        let bytes = files::read(path, FileKind::TICKET)?;
        let mut ticket = Ticket::parse(&bytes, &path.display().to_string())?;
        if let (Trust::CaFile(ca), Some(folder)) = (&mut ticket.trust, path.parent()) {
            *ca = folder.join(&*ca);
        }
        Ok(ticket)
    }

    /// Parses the text of a ticket; `shown` is its name in messages.
    ///
    /// # Errors
    ///
    /// Those of [`Ticket::load`].
    pub fn parse(bytes: &[u8], shown: &str) -> Result<Ticket, Failure> {
        let mut given = Lines::default();
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let line = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned());
            let read = line.and_then(|line| given.read(line));
            read.map_err(|why| Failure::Failed(format!("{shown}:{number}: {why}")))?;
        }
        given.into_ticket().map_err(|why| Failure::Failed(format!("{shown}: {why}")))
    }

    /// The text of the ticket including the secret, with a comment that names its ID.
    pub fn to_text(&self, name: &str) -> Zeroizing<String> {
        let uri = key_uri::print(self.id, &self.key);
        let mut head = format!(
            "# rendezvous ticket for {name}: secret, because it lets anyone act as this hidden server\n"
        );
        head.push_str(&format!("relay {}\n", self.relay));
        match &self.trust {
            Trust::Pins(pins) => pins.iter().for_each(|pin| head.push_str(&format!("pin {pin}\n"))),
            Trust::CaFile(path) => head.push_str(&format!("ca {}\n", path.display())),
            Trust::System if self.relay.tls => head.push_str("ca system\n"),
            Trust::System | Trust::Insecure => {}
        }
        if let Some(sni) = &self.sni {
            head.push_str(&format!("sni {sni}\n"));
        }
        let tail = if self.plain { "\ntoken plain\n" } else { "\n" };
        // Allocated once with its full capacity: a growing string leaves copies of the secret in memory.
        let mut text = Zeroizing::new(String::with_capacity(head.len() + uri.len() + 32));
        for part in [head.as_str(), "id ", &uri, tail] {
            text.push_str(part);
        }
        text
    }

    /// Writes the ticket as a new file, private to its owner. Never overwrites a file.
    ///
    /// # Errors
    ///
    /// [`Failure::Failed`] if the file exists or cannot be written.
    pub fn write_new(&self, path: &Path, name: &str) -> Result<(), Failure> {
        state::write_new(path, self.to_text(name).as_bytes(), SECRET)
    }
}

/// Parses the value of `ca`: `system` or a file name.
///
/// # Errors
///
/// The value is empty.
pub fn parse_ca(text: &str) -> Result<Trust, String> {
    match text {
        "" => Err("'ca' needs a value: FILE or system".to_owned()),
        "system" => Ok(Trust::System),
        file => Ok(Trust::CaFile(PathBuf::from(file))),
    }
}

#[derive(Default)]
struct Lines {
    relay: Option<RelayUrl>,
    pins: Vec<Pin>,
    ca: Option<Trust>,
    id: Option<(Id, Key)>,
    plain: Option<bool>,
    sni: Option<String>,
}

impl Lines {
    /// Parses one line. Errors never repeat a value that may be a secret.
    fn read(&mut self, line: &str) -> Result<(), String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (word, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        if word != "id" && value.contains("secret=") {
            // Lines may have been joined by copying them: the message must not contain the secret.
            return Err("unexpected Key URI: write each setting on a line of its own".to_owned());
        }
        match word {
            "relay" => once(word, &mut self.relay, RelayUrl::parse(value)?),
            "pin" => {
                self.pins.push(Pin::parse(value)?);
                Ok(())
            }
            "ca" => once(word, &mut self.ca, parse_ca(value)?),
            "id" => once(word, &mut self.id, key_uri::parse(value).map_err(|error| error.to_string())?),
            "token" if value == "plain" => once(word, &mut self.plain, true),
            "sni" => once(word, &mut self.sni, server_name(value)?),
            "token" => Err("'token' must be followed by plain".to_owned()),
            // A line without its first word may begin with the secret: show it only if it looks like a keyword.
            word if word.len() <= 16 && word.bytes().all(|b| b.is_ascii_lowercase()) => {
                Err(format!("unknown word '{word}': expected relay, pin, ca, id, token or sni"))
            }
            _ => Err("the line does not begin with relay, pin, ca, id, token or sni".to_owned()),
        }
    }

    fn into_ticket(self) -> Result<Ticket, String> {
        let relay = self.relay.ok_or("no line 'relay https://…': this may not be a ticket")?;
        let (id, key) = self.id.ok_or("no line 'id otpauth://…': this may not be a ticket")?;
        let trust = match (self.pins.is_empty(), self.ca) {
            (false, Some(_)) => return Err("'pin' and 'ca' exclude each other: remove one".to_owned()),
            (false, None) => Trust::Pins(self.pins),
            (true, ca) => ca.unwrap_or(Trust::System),
        };
        if self.sni.is_some() && !relay.tls {
            return Err("'sni' needs a relay with https://".to_owned());
        }
        Ok(Ticket { relay, trust, id, key, plain: self.plain.unwrap_or(false), sni: self.sni })
    }
}

/// Parses the value of `sni`: a host name, never an ID, because it travels in clear.
fn server_name(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let label = name.split('.').next().unwrap_or_default();
    if Id::parse(label.as_bytes()).is_some() {
        return Err("'sni' must not contain an ID, because it travels in clear: use a label".to_owned());
    }
    let is_name = name.contains('.') && name.parse::<std::net::IpAddr>().is_err();
    match crate::cert::normal_name(&name).filter(|normal| is_name && !normal.starts_with('*')) {
        Some(name) => Ok(name),
        None => Err("'sni' must be followed by LABEL.DOMAIN".to_owned()),
    }
}

fn once<T>(word: &str, place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("'{word}' is repeated")),
    }
}
