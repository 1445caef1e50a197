//! Descriptors that pass between processes over a Unix socket (unix(7), SCM_RIGHTS).

use std::io;
use std::mem::size_of;
pub(crate) use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

/// Sends bytes together with descriptors, which arrive with the first of them. Returns how many bytes were sent.
///
/// # Errors
/// Those of sendmsg(2).
#[allow(unsafe_code, reason = "sendmsg(2) with a control message")]
pub(crate) fn send(socket: &impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut control = control_buffer(numbers.len());
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is a C structure of integers and pointers, for which all zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    if !numbers.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control_bytes(numbers.len()) as _;
        let data_bytes = u32::try_from(size_of::<RawFd>() * numbers.len()).unwrap_or(u32::MAX);
        // SAFETY: `control` is aligned and has room for the header and the numbers, as `control_bytes` computes it, so the
        // first header is within it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(data_bytes) as _;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            std::ptr::copy_nonoverlapping(numbers.as_ptr(), data, numbers.len());
        }
    }
    // SAFETY: `message` refers to `part` and `control`, which live until the end of the call; the descriptor is open.
    let rc = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(rc).map_err(|_| io::Error::last_os_error())
}

/// Receives bytes, and appends the descriptors that came with them, which are closed on exec. Returns how many bytes were
/// received; 0 at EOF.
///
/// # Errors
/// Those of recvmsg(2), and `InvalidData` if more than `descriptors_max` came, or if the system had no room for all.
#[allow(unsafe_code, reason = "recvmsg(2) with a control message, and the descriptors in it")]
pub(crate) fn receive(
    socket: &impl AsFd,
    into: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    descriptors_max: usize,
) -> io::Result<usize> {
    let mut control = control_buffer(descriptors_max);
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: msghdr is a C structure of integers and pointers, for which all zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control_bytes(descriptors_max) as _;
    #[cfg(target_os = "linux")]
    let flags = libc::MSG_CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = 0;
    // SAFETY: `message` refers to `part` and `control`, which live until the end of the call; the descriptor is open.
    let rc = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let received = usize::try_from(rc).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled the control buffer, whose length is in `message`; the macros stay within it.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: it is within the buffer, as above.
        let (level, kind, bytes) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len as usize) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: it only computes a length.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = bytes.saturating_sub(head) / size_of::<RawFd>();
            for place in 0..count {
                // SAFETY: the data of this message are `count` descriptors, which the kernel has just opened for this
                // process, and which nothing else owns.
                descriptors.push(unsafe {
                    let data = libc::CMSG_DATA(header).cast::<RawFd>();
                    OwnedFd::from_raw_fd(data.add(place).read_unaligned())
                });
            }
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        let why = "not all descriptors arrived: there are too many, or none are left (ulimit -n)";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(received)
}

/// A process at the other end of a Unix socket, when it connected or listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerProcess {
    /// Its effective user ID.
    pub(crate) user: u32,
    /// Its process ID; `None` if the system does not tell it.
    pub(crate) pid: Option<u32>,
}

/// The process at the other end (SO_PEERCRED).
///
/// # Errors
/// Those of getsockopt(2).
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "getsockopt(2) into a plain structure of numbers")]
pub(crate) fn peer_process(socket: &impl AsFd) -> io::Result<PeerProcess> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or_default();
    // SAFETY: the descriptor is open for the length of the borrow; `peer` and `len` are valid for writing, and `len` is the
    // size of `peer`.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerProcess { user: peer.uid, pid: u32::try_from(peer.pid).ok().filter(|pid| *pid > 0) })
}

/// The process at the other end (getpeereid(3)).
///
/// # Errors
/// Those of getpeereid(3).
#[cfg(not(target_os = "linux"))]
#[allow(unsafe_code, reason = "getpeereid(3) into two integers")]
pub(crate) fn peer_process(socket: &impl AsFd) -> io::Result<PeerProcess> {
    let (mut user, mut group) = (u32::MAX, u32::MAX);
    // SAFETY: the descriptor is open for the length of the borrow; both numbers are valid for writing.
    if unsafe { libc::getpeereid(socket.as_fd().as_raw_fd(), &raw mut user, &raw mut group) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerProcess { user, pid: None })
}

/// The length of a control message with this many descriptors.
#[allow(unsafe_code, reason = "CMSG_SPACE(3) only computes a length")]
fn control_bytes(descriptors: usize) -> usize {
    let bytes = u32::try_from(size_of::<RawFd>() * descriptors).unwrap_or(u32::MAX);
    // SAFETY: it only computes a length.
    unsafe { libc::CMSG_SPACE(bytes) as usize }
}

/// A buffer for a control message, with the alignment of its header.
fn control_buffer(descriptors: usize) -> Vec<u64> {
    vec![0; control_bytes(descriptors).div_ceil(size_of::<u64>())]
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_bytes_and_refer_to_the_same_file() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let many: Vec<_> = (0..253).map(|_| writer.as_fd()).collect();
        assert_eq!(send(&left, b"with", &many).unwrap(), 4);
        assert_eq!(send(&left, b"without", &[]).unwrap(), 7);
        let (mut bytes, mut got) = ([0; 64], Vec::new());
        assert_eq!(receive(&right, &mut bytes, &mut got, 253).unwrap(), 4);
        assert_eq!(got.len(), 253);
        File::from(got.pop().unwrap()).write_all(b"x").unwrap();
        assert_eq!(receive(&right, &mut bytes, &mut got, 253).unwrap(), 7);
        assert_eq!(got.len(), 252);
        drop((writer, got));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn descriptors_that_have_no_room_are_an_error_and_are_closed() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&left, b"x", &[writer.as_fd(), writer.as_fd(), writer.as_fd(), writer.as_fd()]).unwrap();
        let mut got = Vec::new();
        let error = receive(&right, &mut [0; 8], &mut got, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop((writer, got));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
    }

    #[test]
    fn the_other_process_of_a_pair_is_this_one() {
        let (left, _right) = UnixStream::pair().unwrap();
        let peer = peer_process(&left).unwrap();
        assert_eq!(peer.user, super::super::effective_user());
        assert!(peer.pid.is_none_or(|pid| pid == std::process::id()));
    }
}
