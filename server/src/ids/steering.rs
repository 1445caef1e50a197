//! The fields of the file `ids` that limit a hidden server and its clients.

use rendezvous_core::prefix::Prefix;

use crate::options::value;

/// Limit of prefixes in each list.
pub const PREFIXES_MAX: usize = 64;
/// The lowest rate, in bytes per second. Below it a single packet would take more than a second.
pub const RATE_MIN: u64 = 1_000;
/// The highest rate, in bytes per second.
pub const RATE_MAX: u64 = 100_000_000_000;
/// The highest quota, in bytes per month.
pub const QUOTA_MAX: u64 = 1 << 60;
/// The highest limit of pairs.
pub const PAIRS_MAX: u64 = 1_000_000;

/// What the operator has limited. The default is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// It is not served.
    pub disabled: bool,
    /// Limit of pairs; `None`: the relay's.
    pub max_pairs: Option<u32>,
    /// Bytes per second in each direction, shared by all of its pairs.
    pub rate: Option<u64>,
    /// Bytes per calendar month (UTC), both directions together.
    pub quota: Option<u64>,
    /// The addresses of clients that are served; empty: all.
    pub allow: Vec<Prefix>,
    /// The addresses of clients that are refused, even if they are in `allow`.
    pub deny: Vec<Prefix>,
}

impl Steering {
    /// Parses one field. `Ok(false)`: it is none of these.
    ///
    /// # Errors
    ///
    /// The value is invalid, or the field is repeated.
    pub(super) fn read(&mut self, word: &str) -> Result<bool, String> {
        let (key, text) = word.split_once('=').unwrap_or((word, ""));
        let once = |is_new: bool| if is_new { Ok(()) } else { Err(format!("'{key}=' is repeated")) };
        let of = |error: String| format!("{key}=: {error}");
        match key {
            "access" => {
                once(!self.disabled)?;
                match text {
                    "disabled" => self.disabled = true,
                    _ => return Err("'access=' must be followed by disabled".to_owned()),
                }
            }
            "max-pairs" => {
                once(self.max_pairs.is_none())?;
                self.max_pairs = Some(max_pairs(text).map_err(of)?);
            }
            "rate" => {
                once(self.rate.is_none())?;
                self.rate = Some(value::size(RATE_MIN, RATE_MAX)(text).map_err(of)?);
            }
            "quota" => {
                once(self.quota.is_none())?;
                self.quota = Some(value::size(1, QUOTA_MAX)(text).map_err(of)?);
            }
            "allow" => self.allow = prefixes(&self.allow, text).map_err(of)?,
            "deny" => self.deny = prefixes(&self.deny, text).map_err(of)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The fields of the file, in their order.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.disabled {
            words.push("access=disabled".to_owned());
        }
        words.extend(self.max_pairs.map(|max| format!("max-pairs={max}")));
        words.extend(self.rate.map(|rate| format!("rate={rate}")));
        words.extend(self.quota.map(|quota| format!("quota={quota}")));
        words.extend(self.allow.iter().map(|prefix| format!("allow={prefix}")));
        words.extend(self.deny.iter().map(|prefix| format!("deny={prefix}")));
        words
    }
}

/// Parses a limit of pairs.
///
/// # Errors
///
/// It is not a number from 1 to [`PAIRS_MAX`].
pub fn max_pairs(text: &str) -> Result<u32, String> {
    if text == "0" {
        return Err("'0' is not a limit: disable the hidden server instead".to_owned());
    }
    value::count(1, PAIRS_MAX)(text).map(|max| u32::try_from(max).unwrap_or(u32::MAX))
}

/// Adds a prefix to a list.
fn prefixes(list: &[Prefix], text: &str) -> Result<Vec<Prefix>, String> {
    let prefix = value::prefix(text)?;
    if list.contains(&prefix) {
        return Err(format!("'{text}' is repeated"));
    }
    if list.len() >= PREFIXES_MAX {
        return Err(format!("more than {PREFIXES_MAX} ranges of addresses"));
    }
    Ok([list, &[prefix]].concat())
}
