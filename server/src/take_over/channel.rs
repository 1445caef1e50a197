//! Messages over a Unix socket, blocking or not.

use std::collections::VecDeque;
use std::fmt;
use std::io;

use super::message::{BODY_MAX, DESCRIPTORS_MAX, FrameError, HEADER, Message, parse_header};
use crate::failure::reason;
use crate::linux::descriptors::{self, AsFd, OwnedFd, PeerProcess};

/// Bytes that are received in one call.
const RECEIVE: usize = 16 * 1024;

/// Why no message was received.
#[derive(Debug)]
pub enum ChannelError {
    /// The other process has closed the socket.
    Closed,
    /// It sent something else.
    Frame(FrameError),
    /// A system call failed.
    Io(io::Error),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "the other process has closed the connection"),
            Self::Frame(error) => write!(f, "{error}"),
            Self::Io(error) => write!(f, "{}", reason(error)),
        }
    }
}

impl std::error::Error for ChannelError {}

impl From<FrameError> for ChannelError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A message and its descriptors.
pub(super) type Received = (Message, Vec<OwnedFd>);

/// A socket on which messages are sent and received.
#[derive(Debug)]
pub struct Channel<S> {
    socket: S,
    received: Vec<u8>,
    /// Descriptors whose message is not complete.
    descriptors: VecDeque<OwnedFd>,
    /// Messages, the bytes of each that are sent already, and its descriptors.
    unsent: VecDeque<(Vec<u8>, usize, Vec<OwnedFd>)>,
}

impl<S: AsFd> Channel<S> {
    /// A channel on a connected socket.
    pub const fn new(socket: S) -> Self {
        Self { socket, received: Vec::new(), descriptors: VecDeque::new(), unsent: VecDeque::new() }
    }

    /// The socket.
    pub const fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// The process at the other end, if it may take part: it belongs to the same user, or to root.
    ///
    /// # Errors
    /// It belongs to another user, or it is unknown.
    pub(crate) fn check_peer(&self) -> io::Result<PeerProcess> {
        let peer = descriptors::peer_process(&self.socket)?;
        if peer.user == 0 || peer.user == crate::linux::effective_user() {
            return Ok(peer);
        }
        let why = format!("the other process belongs to user {}", peer.user);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }

    /// Queues a message. `descriptors` are those of its labels.
    pub fn queue(&mut self, message: &Message, descriptors: Vec<OwnedFd>) {
        debug_assert_eq!(message.descriptors(), descriptors.len(), "one for each label");
        self.unsent.push_back((message.bytes(), 0, descriptors));
    }

    /// Whether a queued message is not sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends what is queued. Returns whether all of it was sent.
    ///
    /// # Errors
    /// Those of sendmsg(2), except for `WouldBlock`.
    pub fn flush(&mut self) -> io::Result<bool> {
        while let Some((bytes, sent, own)) = self.unsent.front_mut() {
            let borrowed: Vec<_> = own.iter().map(AsFd::as_fd).collect();
            match descriptors::send(&self.socket, &bytes[*sent..], &borrowed) {
                Ok(count) => {
                    *sent += count;
                    own.clear();
                    if *sent >= bytes.len() {
                        self.unsent.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Receives a message. Returns `None` if none is complete and the socket would block, or has timed out.
    ///
    /// # Errors
    /// [`ChannelError`]
    pub fn receive(&mut self) -> Result<Option<Received>, ChannelError> {
        loop {
            if let Some(message) = self.parse()? {
                return Ok(Some(message));
            }
            let (mut bytes, mut got) = ([0; RECEIVE], Vec::new());
            match descriptors::receive(&self.socket, &mut bytes, &mut got, DESCRIPTORS_MAX) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ChannelError::Closed);
                }
                Err(error) => return Err(error.into()),
            }
            self.descriptors.extend(got);
            if self.descriptors.len() > 2 * DESCRIPTORS_MAX {
                return Err(FrameError::Descriptors.into());
            }
        }
    }

    /// The first message of what was received, if it is complete.
    fn parse(&mut self) -> Result<Option<Received>, ChannelError> {
        debug_assert!(self.received.len() <= HEADER + BODY_MAX + RECEIVE, "bounded");
        let Some(header) = self.received.first_chunk() else { return Ok(None) };
        let header = parse_header(*header)?;
        let end = HEADER + header.body_bytes;
        let Some(body) = self.received.get(HEADER..end) else { return Ok(None) };
        let message = Message::parse(header.kind, body)?;
        let count = message.descriptors();
        if self.descriptors.len() < count {
            return Err(FrameError::Descriptors.into());
        }
        let own = self.descriptors.drain(..count).collect();
        self.received.drain(..end);
        Ok(Some((message, own)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::label::{Label, Role};
    use super::super::message::TOKENS_MAX;
    use super::*;

    fn pair() -> (Channel<UnixStream>, Channel<UnixStream>) {
        let (left, right) = UnixStream::pair().unwrap();
        for socket in [&left, &right] {
            socket.set_nonblocking(true).unwrap();
        }
        (Channel::new(left), Channel::new(right))
    }

    fn sockets(count: usize) -> (Message, Vec<OwnedFd>) {
        let label = |place: usize| Label {
            role: Role::Port(format!("p{place}")),
            is_inherited: false,
            address: "[::]:1".to_owned(),
        };
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let labels = (0..count).map(label).collect();
        (Message::Sockets { labels, is_last: true }, (0..count).map(|_| file()).collect())
    }

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        let (mut left, mut right) = pair();
        let (many, files) = sockets(100);
        let (one, file) = sockets(1);
        left.queue(&Message::Ready, Vec::new());
        left.queue(&many, files);
        left.queue(&one, file);
        left.queue(&Message::Taken, Vec::new());
        assert!(left.flush().unwrap());
        let mut got = Vec::new();
        while let Some((message, own)) = right.receive().unwrap() {
            assert_eq!(own.len(), message.descriptors());
            got.push(message);
        }
        assert_eq!(got, [Message::Ready, many, one, Message::Taken]);
        drop(left);
        assert!(matches!(right.receive(), Err(ChannelError::Closed)));
    }

    #[test]
    fn what_does_not_fit_into_the_socket_is_sent_later() {
        let (mut left, mut right) = pair();
        let token =
            rendezvous_core::registry::UsedToken { id: rendezvous_core::id::Id(1), token: [2; 16], until: 3 };
        let message = Message::Tokens(vec![token; TOKENS_MAX]);
        for _ in 0..50 {
            left.queue(&message, Vec::new());
        }
        let mut count = 0;
        while count < 50 {
            let _ = left.flush().unwrap();
            while let Some((got, _)) = right.receive().unwrap() {
                assert_eq!(got, message);
                count += 1;
            }
        }
        assert!(!left.has_unsent());
    }

    #[test]
    fn descriptors_without_labels_and_labels_without_descriptors_are_refused() {
        let (left, mut right) = pair();
        let (message, _files) = sockets(2);
        descriptors::send(&left.socket, &message.bytes(), &[left.socket.as_fd()]).unwrap();
        assert!(matches!(right.receive(), Err(ChannelError::Frame(FrameError::Descriptors))));
        let (left, mut right) = pair();
        let many: Vec<_> = (0..253).map(|_| left.socket.as_fd()).collect();
        for _ in 0..3 {
            descriptors::send(&left.socket, &[0], &many).unwrap();
        }
        assert!(right.receive().is_err());
    }
}
