//! Errors of TLS, and the kinds of failure that they are.

use rendezvous_core::machine::TlsFailure;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// A TLS error. The alert for the peer is already in the outgoing buffer.
#[derive(Debug)]
pub struct TlsError(pub(super) Error);

impl TlsError {
    /// The alert by which the peer ended the session, if it did.
    #[must_use]
    pub const fn alert(&self) -> Option<AlertDescription> {
        match &self.0 {
            Error::AlertReceived(alert) => Some(*alert),
            _ => None,
        }
    }

    /// The kind of failure.
    #[must_use]
    pub fn failure(&self) -> TlsFailure {
        match &self.0 {
            Error::InvalidCertificate(why) => certificate(why),
            Error::NoCertificatesPresented | Error::UnsupportedNameType => TlsFailure::Certificate,
            Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                TlsFailure::Alpn
            }
            Error::AlertReceived(AlertDescription::ProtocolVersion) => TlsFailure::Version,
            Error::AlertReceived(
                AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity,
            ) => TlsFailure::Cipher,
            Error::PeerIncompatible(why) => incompatible(why),
            Error::InvalidMessage(
                InvalidMessage::HandshakePayloadTooLarge
                | InvalidMessage::CertificatePayloadTooLarge
                | InvalidMessage::MessageTooLarge,
            ) => TlsFailure::TooLong,
            _ => TlsFailure::Protocol,
        }
    }
}

fn certificate(why: &CertificateError) -> TlsFailure {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFailure::CertificateExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsFailure::CertificateNotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsFailure::CertificateName
        }
        CertificateError::UnknownIssuer => TlsFailure::CertificateIssuer,
        _ => TlsFailure::Certificate,
    }
}

fn incompatible(why: &PeerIncompatible) -> TlsFailure {
    match why {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        // rustls checks this extension before the version, and clients older than TLS 1.2 do not send it.
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic => TlsFailure::Version,
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::EcPointsExtensionRequired
        | PeerIncompatible::UncompressedEcPointsRequired => TlsFailure::Cipher,
        _ => TlsFailure::Protocol,
    }
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
