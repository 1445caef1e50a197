//! Octets that nobody can guess, from the operating system: the one place that asks for them.

use data_encoding::BASE64URL_NOPAD;
use rendezvous_core::id::Id;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// `N` random octets.
///
/// # Errors
///
/// [`Failure::Failed`] where the system gives none.
pub fn octets<const N: usize>() -> Result<Zeroizing<[u8; N]>, Failure> {
    let mut random = Zeroizing::new([0; N]);
    getrandom::fill(&mut *random)
        .map_err(|error| Failure::Failed(format!("the system gives no entropy: {error}")))?;
    Ok(random)
}

/// A random ID: a UUID of version 4 (RFC 9562 §5.4), random but for version and variant.
///
/// # Errors
///
/// As [`octets`].
pub fn id() -> Result<Id, Failure> {
    let random = u128::from_be_bytes(*octets()?);
    Ok(Id(random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62))
}

/// A fresh nonce for a bound token: 24 characters.
///
/// # Errors
///
/// As [`octets`].
pub fn nonce() -> Result<String, Failure> {
    Ok(BASE64URL_NOPAD.encode(&*octets::<18>()?))
}
