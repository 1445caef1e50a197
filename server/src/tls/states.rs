//! Handling of rustls's connection states.

use rustls::Error;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::Take;
use crate::buffer::Buffer;

/// The result of handling a state.
pub(super) enum Step {
    /// There may be more to process.
    Again,
    /// No complete record is left.
    Drained,
    Ended,
    Failed(Error),
}

/// Handles one state of rustls: its output goes to `out`, plaintext to `taker`.
pub(super) fn work<D>(
    status: UnbufferedStatus<'_, '_, D>,
    out: &mut Buffer,
    taker: &mut impl Take,
) -> (usize, Step) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Step::Failed(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut step = Step::Again;
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        taker.take(record.payload);
                    }
                    Err(error) => step = Step::Failed(error),
                }
            }
            step
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Step::Ended,
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Step::Drained,
        Ok(ConnectionState::ReadEarlyData(_)) => {
            Step::Failed(Error::General("early data, which was not offered".into()))
        }
        Ok(state) => match emit(state, out) {
            Ok(()) => Step::Again,
            Err(error) => Step::Failed(error),
        },
    };
    (discard, step)
}

/// Handles one state of rustls while sealing `plain`. Returns true once all is sealed.
pub(super) fn seal_step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &[u8],
    out: &mut Buffer,
) -> Result<bool, Error> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => grow(out, |room| match traffic.encrypt(plain, room) {
            Err(EncryptError::InsufficientSize(size)) => Err(Ok(size.required_size)),
            Err(error @ EncryptError::EncryptExhausted) => Err(Err(error.to_string())),
            Ok(written) => Ok(written),
        })
        .map(|()| true),
        state => emit(state, out).map(|()| false),
    }
}

/// Handles one state of rustls while sealing close_notify. Returns true once it is sealed.
pub(super) fn end_step<D>(status: UnbufferedStatus<'_, '_, D>, out: &mut Buffer) -> Result<bool, Error> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => {
            grow(out, |room| match traffic.queue_close_notify(room) {
                Err(EncryptError::InsufficientSize(size)) => Err(Ok(size.required_size)),
                Err(error @ EncryptError::EncryptExhausted) => Err(Err(error.to_string())),
                Ok(written) => Ok(written),
            })
            .map(|()| true)
        }
        state => emit(state, out).map(|()| false),
    }
}

/// Emits what rustls must send before data: tickets, key updates.
pub(super) fn emit<D>(state: ConnectionState<'_, '_, D>, out: &mut Buffer) -> Result<(), Error> {
    match state {
        ConnectionState::EncodeTlsData(mut data) => grow(out, |room| match data.encode(room) {
            Err(EncodeError::InsufficientSize(size)) => Err(Ok(size.required_size)),
            Err(error @ EncodeError::AlreadyEncoded) => Err(Err(error.to_string())),
            Ok(written) => Ok(written),
        }),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(())
        }
        // Reported only once, and handled by `open`; writing may continue.
        ConnectionState::PeerClosed => Ok(()),
        state => Err(Error::General(format!("cannot send in state {state:?}"))),
    }
}

/// Calls `write` with the room behind the content of `out`. Grows `out` if `write` requests it: `Err(Ok(size))`.
fn grow(
    out: &mut Buffer,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Result<usize, String>>,
) -> Result<(), Error> {
    let mut size = 0;
    loop {
        match write(out.reserve(size)) {
            Ok(written) => {
                out.commit(written);
                return Ok(());
            }
            Err(Ok(required)) if required > size => size = required,
            Err(Ok(required)) => return Err(Error::General(format!("{required} bytes are not enough"))),
            Err(Err(why)) => return Err(Error::General(why)),
        }
    }
}
