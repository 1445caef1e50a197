//! Random bytes from the operating system. Only this module asks for them.

use data_encoding::BASE64URL_NOPAD;
use rendezvous_core::id::Id;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Returns `N` random bytes.
///
/// # Errors
///
/// [`Failure::Failed`] if the system provides none.
pub fn bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, Failure> {
    let mut random = Zeroizing::new([0; N]);
    getrandom::fill(&mut *random)
        .map_err(|error| Failure::Failed(format!("cannot get entropy from the system: {error}")))?;
    Ok(random)
}

/// Makes a random ID: a UUID of version 4 (RFC 9562 §5.4).
///
/// # Errors
///
/// As [`bytes`].
pub fn id() -> Result<Id, Failure> {
    let random = u128::from_be_bytes(*bytes()?);
    Ok(Id(random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62))
}

/// Makes a random nonce for a bound token: 24 characters.
///
/// # Errors
///
/// As [`bytes`].
pub fn nonce() -> Result<String, Failure> {
    Ok(BASE64URL_NOPAD.encode(&*bytes::<18>()?))
}
