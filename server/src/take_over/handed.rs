//! The descriptors that a process got from the one that it takes over from.

use std::fmt;
use std::net::{SocketAddr, TcpListener};

use socket2::Socket;

use super::label::{Label, Role};
use crate::failure::reason;
use crate::linux;
use crate::linux::descriptors::OwnedFd;

/// Descriptors with their labels, in the order in which the other process opened them.
#[derive(Debug, Default)]
pub struct Handed(Vec<(Label, OwnedFd)>);

/// A descriptor that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedError {
    label: Label,
    why: String,
}

impl fmt::Display for HandedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use the handed-over socket '{}': {}", self.label, self.why)
    }
}

impl std::error::Error for HandedError {}

impl Handed {
    /// Adds descriptors with their labels.
    pub(super) fn extend(&mut self, labels: Vec<Label>, descriptors: Vec<OwnedFd>) {
        self.0.extend(labels.into_iter().zip(descriptors));
    }

    /// The number of descriptors that were not taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all were taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the listener that was opened for this address.
    ///
    /// # Errors
    /// It is not a listening TCP socket.
    pub fn take_listener(
        &mut self,
        role: &Role,
        address: SocketAddr,
    ) -> Result<Option<TcpListener>, HandedError> {
        let address = address.to_string();
        self.take(|label| !label.is_inherited && label.role == *role && label.address == address)
            .map(listener)
            .transpose()
            .map(|found| found.map(|(listener, _)| listener))
    }

    /// Takes the next listener that the service manager has opened, with its role and address.
    ///
    /// # Errors
    /// It is not a listening TCP socket.
    pub fn take_inherited(&mut self) -> Result<Option<(Role, TcpListener, SocketAddr)>, HandedError> {
        let Some((label, descriptor)) = self.take(|label| label.is_inherited) else { return Ok(None) };
        let role = label.role.clone();
        listener((label, descriptor)).map(|(listener, address)| Some((role, listener, address)))
    }

    /// Takes another descriptor.
    pub fn take_file(&mut self, role: &Role) -> Option<OwnedFd> {
        self.take(|label| label.role == *role).map(|(_, descriptor)| descriptor)
    }

    /// Takes the label of a descriptor that no option asks for.
    pub fn take_unused(&mut self) -> Option<Label> {
        self.0.pop().map(|(label, _)| label)
    }

    fn take(&mut self, is_it: impl Fn(&Label) -> bool) -> Option<(Label, OwnedFd)> {
        let place = self.0.iter().position(|(label, _)| is_it(label));
        place.map(|place| self.0.remove(place))
    }
}

fn listener((label, descriptor): (Label, OwnedFd)) -> Result<(TcpListener, SocketAddr), HandedError> {
    let socket = Socket::from(descriptor);
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    let (Some(address), Ok(true), Ok(socket2::Type::STREAM)) =
        (address, linux::is_listener(&socket), socket.r#type())
    else {
        return Err(HandedError { label, why: "not a listening TCP socket".to_owned() });
    };
    match socket.set_nonblocking(true) {
        Ok(()) => Ok((socket.into(), address)),
        Err(error) => Err(HandedError { label, why: reason(&error) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(role: Role, is_inherited: bool, address: &str) -> Label {
        Label { role, is_inherited, address: address.to_owned() }
    }

    #[test]
    fn listeners_are_found_by_role_and_wanted_address_in_their_order() {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (first, second, other) = (bind(), bind(), bind());
        let addresses = [&first, &second, &other].map(|it| it.local_addr().unwrap());
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut handed = Handed::default();
        let labels = vec![
            label(Role::Tls, false, "127.0.0.1:0"),
            label(Role::Tls, false, "127.0.0.1:0"),
            label(Role::Plain, true, &addresses[2].to_string()),
        ];
        handed.extend(labels, vec![first.into(), second.into(), other.into()]);
        assert!(handed.take_listener(&Role::Plain, any).unwrap().is_none());
        for address in &addresses[..2] {
            let listener = handed.take_listener(&Role::Tls, any).unwrap().unwrap();
            assert_eq!(listener.local_addr().unwrap(), *address);
        }
        assert!(handed.take_listener(&Role::Tls, any).unwrap().is_none());
        let (role, _, address) = handed.take_inherited().unwrap().unwrap();
        assert_eq!((role, address), (Role::Plain, addresses[2]));
        assert!(handed.is_empty());
    }

    #[test]
    fn what_is_no_listener_is_named() {
        let mut handed = Handed::default();
        let file = std::fs::File::open("/dev/null").unwrap();
        handed.extend(vec![label(Role::Tls, false, "127.0.0.1:1")], vec![file.into()]);
        let error = handed.take_listener(&Role::Tls, "127.0.0.1:1".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot use the handed-over socket 'tls own 127.0.0.1:1': not a listening TCP socket"
        );
    }
}
