//! The socket in the state folder, and the connections to it, on the event loop.

use std::io;
use std::ops::Range;
use std::path::Path;

use rendezvous_core::time::{Span, Time};

use super::channel::{Channel, ChannelError};
use super::message::{FrameError, Message};
use crate::linux::descriptors::OwnedFd;
use crate::logging::Escaped;
use crate::net::mio::{MioNet, OwnEdge};
use crate::socket_file::{self, SocketFile, UnixListener, UnixStream};

/// Limit of connections.
const LINKS_MAX: usize = 16;
/// How long a connection may take for its first message.
const FIRST_MESSAGE: Span = Span::from_secs(5);
/// Limit of messages that are received in one turn.
const MESSAGES_MAX: usize = 64;
/// The places of these sockets among those that the program serves itself ([`MioNet::register_own`]).
const PLACES: Range<usize> = 64..64 + 1 + LINKS_MAX;

/// The place of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

/// What happened on a connection.
#[derive(Debug)]
pub enum Received {
    /// A message. Only the first message of a take-over comes from a process that was not checked before.
    Message(Message),
    /// It has ended, for this reason. Its place is free.
    Ended(String),
}

/// The connections of a process with those that take over from it and those that it took over from.
#[derive(Debug, Default)]
pub struct Links {
    listener: Option<(UnixListener, Option<SocketFile>)>,
    /// Whether connections may be pending.
    is_ready: bool,
    links: [Option<Link>; LINKS_MAX],
    /// Whether there is work that needs no edge.
    is_pending: bool,
}

#[derive(Debug)]
struct Link {
    channel: Channel<UnixStream>,
    pid: u32,
    since: Time,
    /// Whether its first message has arrived.
    has_begun: bool,
    is_readable: bool,
    /// Why it ends once everything is sent.
    ending: Option<String>,
}

impl Link {
    /// The next message, or the end.
    fn receive(&mut self, now: Time) -> Option<Received> {
        loop {
            match &self.ending {
                Some(why) if !self.channel.has_unsent() => return Some(Received::Ended(why.clone())),
                _ => {}
            }
            if !self.has_begun && self.since + FIRST_MESSAGE <= now {
                return Some(Received::Ended("it sends nothing".to_owned()));
            }
            if !self.is_readable {
                return None;
            }
            match self.channel.receive() {
                Ok(Some((message, _))) => {
                    self.has_begun = true;
                    // After a refusal nothing counts.
                    if self.ending.is_none() {
                        return Some(Received::Message(message));
                    }
                }
                Ok(None) => {
                    self.is_readable = false;
                    return None;
                }
                Err(error) => {
                    if let ChannelError::Frame(FrameError::Version(_)) = error {
                        let refused = Message::Refused { why: error.to_string() };
                        self.channel.queue(&refused, Vec::new());
                        let _ = self.channel.flush();
                    }
                    return Some(Received::Ended(error.to_string()));
                }
            }
        }
    }
}

impl Links {
    /// Binds the socket, private to its owner, in place of that of another process.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn listen(&mut self, net: &MioNet, path: &Path) -> io::Result<()> {
        let mut listener = socket_file::bind(path)?;
        net.register_own(&mut listener, PLACES.start)?;
        self.listener = Some((listener, SocketFile::of(path)));
        (self.is_ready, self.is_pending) = (true, true);
        Ok(())
    }

    /// Closes the socket. Its file is returned, to be removed.
    pub fn stop_listening(&mut self, net: &MioNet) -> Option<SocketFile> {
        let (mut listener, file) = self.listener.take()?;
        net.deregister_own(&mut listener);
        file
    }

    /// Takes the file of the socket, to be removed. The socket stays open, to refuse.
    pub fn take_file(&mut self) -> Option<SocketFile> {
        self.listener.as_mut()?.1.take()
    }

    /// Adds a connected socket.
    ///
    /// # Errors
    /// There is no place for it, or it cannot be registered.
    pub fn add(&mut self, net: &MioNet, mut channel: Channel<UnixStream>, now: Time) -> io::Result<Place> {
        let free = self.links.iter().position(Option::is_none);
        let place = free.ok_or_else(|| io::Error::other("too many connections"))?;
        let peer = channel.check_peer()?;
        net.register_own(channel.socket(), PLACES.start + 1 + place)?;
        self.links[place] = Some(Link {
            channel,
            pid: peer.pid.unwrap_or(0),
            since: now,
            has_begun: false,
            is_readable: true,
            ending: None,
        });
        self.is_pending = true;
        Ok(Place(place))
    }

    /// Connects to the socket of another process.
    ///
    /// # Errors
    /// No process listens there.
    pub fn connect(&mut self, net: &MioNet, path: &Path, now: Time) -> io::Result<Place> {
        let socket = socket_file::connect_now(path)?;
        let place = self.add(net, Channel::new(socket), now)?;
        if let Some(link) = &mut self.links[place.0] {
            link.has_begun = true;
        }
        Ok(place)
    }

    /// The process at the other end; 0 if it is unknown.
    #[must_use]
    pub fn pid(&self, place: Place) -> u32 {
        self.links[place.0].as_ref().map_or(0, |link| link.pid)
    }

    /// Sends a message with its descriptors, or queues what does not fit into the socket.
    pub fn send(&mut self, place: Place, message: &Message, descriptors: Vec<OwnedFd>) {
        if let Some(link) = &mut self.links[place.0] {
            link.channel.queue(message, descriptors);
            self.is_pending = true;
            // An error is found when it is received from.
            let _ = link.channel.flush();
        }
    }

    /// Whether a message waits to be sent.
    #[must_use]
    pub fn has_unsent(&self, place: Place) -> bool {
        self.links[place.0].as_ref().is_some_and(|link| link.channel.has_unsent())
    }

    /// Sends a reason, and closes the connection once it is sent.
    pub fn refuse(&mut self, place: Place, why: &str) {
        self.send(place, &Message::Refused { why: why.to_owned() }, Vec::new());
        if let Some(link) = &mut self.links[place.0] {
            link.ending = Some(why.to_owned());
        }
    }

    /// Closes a connection. Messages that have arrived are lost.
    pub fn close(&mut self, net: &MioNet, place: Place) {
        if let Some(mut link) = self.links[place.0].take() {
            net.deregister_own(link.channel.socket());
        }
    }

    /// Ends a connection, so that the other process can send nothing more, and returns whether this message had arrived.
    pub fn close_unless_received(&mut self, net: &MioNet, place: Place, message: &Message) -> bool {
        let Some(link) = &mut self.links[place.0] else { return false };
        (link.is_readable, self.is_pending) = (true, true);
        // Sending fails at the other end from now on. What was sent before is still received.
        let _ = link.channel.socket().shutdown(std::net::Shutdown::Both);
        while let Ok(Some((received, _))) = link.channel.receive() {
            if received == *message {
                return true;
            }
        }
        self.close(net, place);
        false
    }

    /// Takes the edges of these sockets, and accepts connections.
    pub fn work(&mut self, net: &mut MioNet, now: Time) {
        let edges = net.take_own_edges(PLACES);
        if edges.is_empty() && !self.is_pending {
            return;
        }
        self.is_pending = false;
        for OwnEdge { place, read, .. } in edges {
            match place - PLACES.start {
                0 => self.is_ready = true,
                place => {
                    if let Some(link) = &mut self.links[place - 1] {
                        link.is_readable |= read;
                        let _ = link.channel.flush();
                    }
                }
            }
        }
        while self.is_ready {
            let Some((listener, _)) = &self.listener else { break };
            match listener.accept() {
                Ok((socket, _)) => {
                    if let Err(error) = self.add(net, Channel::new(socket), now) {
                        log::warn!("event=take-over-refused reason={}", Escaped(&error.to_string()));
                    }
                }
                // After any error, wait for the next edge: one connection more causes it.
                Err(_) => self.is_ready = false,
            }
        }
    }

    /// What has arrived. Bounded: the rest is received in the next turn.
    pub fn receive(&mut self, net: &MioNet, now: Time) -> Vec<(Place, Received)> {
        let mut all = Vec::new();
        for place in (0..LINKS_MAX).map(Place) {
            while let Some(link) = &mut self.links[place.0] {
                if all.len() >= MESSAGES_MAX {
                    self.is_pending = true;
                    return all;
                }
                let Some(received) = link.receive(now) else { break };
                if let Received::Ended(_) = received {
                    self.close(net, place);
                }
                all.push((place, received));
            }
        }
        all
    }

    /// When the next turn is needed at the latest.
    #[must_use]
    pub fn due(&self, now: Time) -> Option<Time> {
        if self.is_pending {
            return Some(now);
        }
        let first = self.links.iter().flatten().filter(|link| !link.has_begun);
        first.map(|link| link.since + FIRST_MESSAGE).min()
    }

    /// Sends the rest to a process, at most for `timeout`. For the end of the program, outside of the event loop.
    pub fn finish(&mut self, place: Place, timeout: std::time::Duration) {
        let Some(link) = &mut self.links[place.0] else { return };
        let socket = socket2::SockRef::from(&*link.channel.socket());
        if socket.set_nonblocking(false).and_then(|()| socket.set_write_timeout(Some(timeout))).is_ok() {
            let _ = link.channel.flush();
        }
    }
}
