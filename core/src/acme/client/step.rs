//! The steps of a client, as values: what is under way, and what follows.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::action::{Challenge, QuestionId};
use super::super::config::PublicKey;
use super::super::jose::Unsigned;
use super::super::names::Names;
use super::super::objects::Order;
use super::super::problem::Problem;
use super::super::url::Url;
use crate::time::Time;

/// What is under way.
#[derive(Debug)]
pub(super) enum Pending {
    /// A pause until a time.
    Pause { until: Time, next: Next },
    /// A question to the driver.
    Answer { id: QuestionId, then: Then, until: Time },
    /// A request to the CA.
    Response { id: u32, exchange: Exchange, until: Time },
}

/// The step that an answer of the driver belongs to.
#[derive(Debug)]
pub(super) enum Then {
    Stored(Next),
    SignedCall(Unsigned),
    SignedKeyChange(Unsigned),
    Made,
    Provided(Challenge, Next),
    Inspected,
    Installed,
    AccountKeyMade,
    AccountKeyReplaced,
}

/// The step that a response of the CA belongs to.
#[derive(Clone, Debug)]
pub(super) enum Exchange {
    Directory(Next),
    Nonce,
    Call,
    RenewalInfo(Names),
}

/// The next step.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// Decide what is due.
    Plan,
    /// Fetch the directory, then perform another step.
    Directory(Box<Self>),
    /// Look up the account, or register it.
    Account,
    Register,
    /// Order a certificate.
    Begin(Names),
    /// Resume an order.
    Resume(Names),
    NewOrder,
    Look,
    /// The order has this state.
    Proceed(Order),
    Authorization,
    /// Store the challenge that is answered now, then post it.
    StoreChallenge(Url),
    /// Post the challenge.
    Challenge(Url),
    Finalize,
    Download(Url),
    /// Deactivate the pending ones among these authorizations.
    Deactivate(Vec<Url>),
    /// Deactivate the pending authorizations of an abandoned order.
    Abandoned(Url),
    RenewalInfo(Names),
    Rollover,
}

/// A signed request, until it is answered.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) url: Url,
    pub(super) payload: String,
    pub(super) by: By,
    pub(super) purpose: Purpose,
    pub(super) tries: u8,
}

/// The key that signs a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Account,
    Key,
    NextKey(PublicKey),
}

/// The purpose of a signed request.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Lookup,
    Register,
    /// Checks whether the account is valid after an order was refused with this problem.
    CheckAccount(Problem),
    NewOrder,
    Look,
    Authorization,
    Challenge(Url),
    Finalize,
    Download,
    Alternate,
    /// Checks whether the first of these is pending.
    LookToDeactivate(Vec<Url>),
    Deactivate(Vec<Url>),
    /// Reads the authorizations of an abandoned order.
    Abandoned,
    RolloverLookup,
    KeyChange,
}

impl Purpose {
    /// For the log.
    pub(super) const fn step(&self) -> &'static str {
        match self {
            Self::Lookup | Self::CheckAccount(_) => "the account",
            Self::Register => "the registration",
            Self::NewOrder => "the order",
            Self::Look => "the state of the order",
            Self::Authorization => "the authorization",
            Self::Challenge(_) => "the challenge",
            Self::Finalize => "the certificate request",
            Self::Download | Self::Alternate => "the download",
            Self::LookToDeactivate(_) | Self::Deactivate(_) | Self::Abandoned => "the deactivation",
            Self::RolloverLookup | Self::KeyChange => "the account key",
        }
    }
}
