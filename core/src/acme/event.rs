//! The events of a client, for the log.

use alloc::string::String;

use super::config::ChallengeKind;
use super::names::Names;

/// An event to log. Texts of the CA are bounded, and control characters and quotes in them are escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The CA has an account for the key.
    Account {
        /// Its URL.
        url: String,
    },
    /// The CA and the driver use the new key of the account.
    AccountKeyReplaced,
    /// An order is placed or resumed.
    Ordering {
        /// The names.
        names: Names,
        /// Why.
        why: &'static str,
    },
    /// A certificate is stored and served.
    Installed {
        /// The names.
        names: Names,
        /// The end of its validity, in seconds since 1970.
        not_after: u64,
        /// When it is renewed as things are, in seconds since 1970.
        renew_at: u64,
    },
    /// An attempt failed.
    Failed {
        /// The names; `None` if the failure is not about one certificate.
        names: Option<Names>,
        /// The step that failed.
        step: &'static str,
        /// The CA's problem with its subproblems and links (RFC 7807, RFC 8555 §6.7.1), or what else happened.
        why: String,
        /// The challenge of the order that the CA has not accepted.
        challenge: Option<ChallengeKind>,
        /// The next attempt, in seconds from now.
        again: u64,
    },
    /// Less than a third of the lifetime is left. Reported daily, and hourly in the last tenth.
    Expiring {
        /// The names.
        names: Names,
        /// How many seconds are left; 0: expired.
        left: u64,
        /// The last failure; empty if there was none.
        last_failure: String,
    },
    /// The CA asks for an early renewal, and explains why there.
    Explained {
        /// The names.
        names: Names,
        /// The CA's `explanationURL`.
        url: String,
    },
    /// The clock is before the time at which the program was built: nothing is done until it is set.
    ClockBeforeBuild,
    /// The clock differs from the CA's by more than a day: nothing is ordered until that is over.
    ClockDiffers {
        /// The CA's `Date`, in seconds since 1970.
        date: u64,
    },
    /// Something in the configuration has no effect.
    Ignored {
        /// The setting and the reason.
        what: String,
    },
}
