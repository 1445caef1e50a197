//! The new process: receives everything before it serves. It may block until then.

use std::path::Path;
use std::time::Duration;

use rendezvous_core::registry::UsedToken;
use socket2::Socket;

use super::NAME;
use super::channel::{Channel, ChannelError};
use super::handed::Handed;
use super::message::{FrameError, Message};
use crate::failure::{Failure, reason};
use crate::linux::descriptors::OwnedFd;
use crate::socket_file::{self, UnixStream};

/// How long the other process may take for each message. It waits for clients for some seconds.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// A take-over in progress, in the new process.
#[derive(Debug)]
pub struct Receiver {
    channel: Channel<Socket>,
}

/// What the other process sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tokens that were used.
    Tokens(Vec<UsedToken>),
    /// Records of traffic that are not in the file.
    Records(String),
    /// That was all.
    Commit,
}

impl Receiver {
    /// Connects to the running relay of a state folder, and gets its sockets.
    ///
    /// # Errors
    /// No relay runs, or it refuses.
    pub fn connect(folder: &Path) -> Result<(Self, Handed), Failure> {
        let path = folder.join(NAME);
        let socket = socket_file::connect(&path, MESSAGE_TIMEOUT).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => failed(&format!(
                "no relay that can hand over runs with the state folder {}: start without --take-over",
                folder.display()
            )),
            _ => Failure::of_file("connect to", &path, &error),
        })?;
        let channel = Channel::new(socket);
        channel.check_peer().map_err(|error| failed(&reason(&error)))?;
        let mut receiver = Self { channel };
        receiver.send(&Message::Hello { program: env!("CARGO_PKG_VERSION").to_owned() })?;
        let mut handed = Handed::default();
        loop {
            match receiver.receive()? {
                (Message::Sockets { labels, is_last }, descriptors) => {
                    handed.extend(labels, descriptors);
                    if is_last {
                        return Ok((receiver, handed));
                    }
                }
                (other, _) => return Err(unexpected(&other)),
            }
        }
    }

    /// Reports that everything is loaded.
    ///
    /// # Errors
    /// The other process is gone.
    pub fn ready(&mut self) -> Result<(), Failure> {
        self.send(&Message::Ready)
    }

    /// Receives the next part of what the other process knows.
    ///
    /// # Errors
    /// It has given up, or sent something else.
    pub fn next_step(&mut self) -> Result<Step, Failure> {
        match self.receive()? {
            (Message::Tokens(tokens), _) => Ok(Step::Tokens(tokens)),
            (Message::Records(lines), _) => Ok(Step::Records(lines)),
            (Message::Commit, _) => Ok(Step::Commit),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Takes over: if this succeeds, this process serves and the other one does not.
    ///
    /// # Errors
    /// The other process has given up, and continues.
    pub fn take(&mut self) -> Result<(), Failure> {
        self.send(&Message::Taken)
    }

    /// The connection, for the event loop.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn into_link(mut self) -> std::io::Result<Channel<UnixStream>> {
        socket_file::into_stream(self.channel.socket()).map(Channel::new)
    }

    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        self.channel.queue(message, Vec::new());
        match self.channel.flush() {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed("the running relay does not respond")),
            // It may have sent a reason.
            Err(error) => match self.channel.receive() {
                Ok(Some((Message::Refused { why }, _))) => Err(refused(&why)),
                _ => {
                    Err(failed(&format!("the running relay has given up the take-over: {}", reason(&error))))
                }
            },
        }
    }

    fn receive(&mut self) -> Result<(Message, Vec<OwnedFd>), Failure> {
        match self.channel.receive() {
            Ok(Some((Message::Refused { why }, _))) => Err(refused(&why)),
            Ok(Some(received)) => Ok(received),
            Ok(None) => Err(failed("the running relay does not respond")),
            Err(ChannelError::Closed) => Err(failed("the running relay has given up the take-over")),
            Err(error) => {
                if let ChannelError::Frame(FrameError::Version(_)) = error {
                    let _ = self.send(&Message::Refused { why: error.to_string() });
                }
                Err(failed(&error.to_string()))
            }
        }
    }
}

fn unexpected(message: &Message) -> Failure {
    let text = format!("{message:?}");
    let kind = text.split([' ', '(']).next().unwrap_or_default();
    failed(&format!("the running relay sent an unexpected message: {kind}"))
}

fn refused(why: &str) -> Failure {
    failed(&format!("the running relay refuses: {}", crate::escape::Shown(why)))
}

fn failed(why: &str) -> Failure {
    Failure::Failed(format!("cannot take over: {why}"))
}
