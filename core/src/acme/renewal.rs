//! When a certificate is renewed: one function decides (`docs/acme.md §6`).

use alloc::string::String;

use super::action::Certificate;
use super::objects::RenewalInfo;
use crate::entropy::Entropy;

/// A window that the CA has not confirmed for this long no longer postpones a renewal.
const FRESH: u64 = 3 * 86_400;
/// Certificates with a shorter lifetime are renewed at half of it.
const SHORT: u64 = 10 * 86_400;

/// The window in which the CA wants a certificate to be renewed (RFC 9773 §4.2), as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The certificate.
    pub(super) id: String,
    /// Its beginning, in seconds since 1970.
    pub(super) start: u64,
    /// Its end, in seconds since 1970.
    pub(super) end: u64,
    /// The time in it that was chosen at random, once.
    pub(super) at: u64,
    /// When the CA last sent it, in seconds since 1970.
    pub(super) checked: u64,
}

impl Window {
    /// The window that the CA gives now. If it is the one before, the time that was chosen stays.
    pub(super) fn update(
        before: Option<&Self>,
        id: &str,
        info: &RenewalInfo,
        entropy: &mut Entropy,
        now: u64,
    ) -> Self {
        let same = before.filter(|it| it.id == id && it.start == info.start && it.end == info.end);
        let at = same.map_or_else(|| info.start + entropy.below(info.end - info.start), |it| it.at);
        Self { id: id.into(), start: info.start, end: info.end, at, checked: now }
    }
}

/// The time at which a certificate is renewed, in seconds since 1970; not after `now`: it is due.
///
/// The CA's window decides if there is one. It does not if it was not confirmed for three days: then it can only make the
/// renewal earlier, so that a renewal that has become due stays due. Without a window it is two thirds of the lifetime,
/// half of lifetimes below ten days. The last tenth of the lifetime is due in any case.
pub(super) fn renew_at(certificate: &Certificate, window: Option<&Window>, now: u64) -> u64 {
    let lifetime = certificate.lifetime();
    let part = if lifetime < SHORT { lifetime / 2 } else { lifetime / 3 * 2 };
    let by_lifetime = certificate.not_before.saturating_add(part);
    let last_tenth = certificate.not_after.saturating_sub(lifetime / 10);
    let id = certificate.renewal_id();
    let window = window.filter(|it| Some(&it.id) == id.as_ref());
    let at = match window {
        Some(it) if now < it.checked.saturating_add(FRESH) && it.checked <= now.saturating_add(FRESH) => {
            it.at
        }
        Some(it) => it.at.min(by_lifetime),
        None => by_lifetime,
    };
    at.min(last_tenth)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const NOW: u64 = 1_800_000_000;

    fn certificate(lifetime: u64) -> Certificate {
        Certificate {
            not_before: NOW,
            not_after: NOW + lifetime,
            authority_key_id: [1].into(),
            serial: [2].into(),
        }
    }

    fn window(at: u64, checked: u64) -> Window {
        let id = certificate(0).renewal_id().unwrap_or_default();
        Window { id, start: at - 10, end: at + 10, at, checked }
    }

    #[test]
    fn without_a_window_two_thirds_of_the_lifetime_decide_and_half_of_short_ones() {
        assert_eq!(renew_at(&certificate(90 * DAY), None, NOW), NOW + 60 * DAY);
        assert_eq!(renew_at(&certificate(45 * DAY), None, NOW), NOW + 30 * DAY);
        assert_eq!(renew_at(&certificate(160 * 3_600), None, NOW), NOW + 80 * 3_600);
        assert_eq!(renew_at(&certificate(0), None, NOW), NOW);
        let odd = Certificate { not_before: u64::MAX, not_after: 0, ..certificate(0) };
        assert_eq!(renew_at(&odd, None, NOW), 0);
    }

    #[test]
    fn a_fresh_window_decides_and_the_last_tenth_is_always_due() {
        let of = certificate(90 * DAY);
        assert_eq!(renew_at(&of, Some(&window(NOW + 70 * DAY, NOW)), NOW), NOW + 70 * DAY);
        assert_eq!(renew_at(&of, Some(&window(NOW + 7 * DAY, NOW)), NOW), NOW + 7 * DAY);
        assert_eq!(renew_at(&of, Some(&window(NOW + 89 * DAY, NOW)), NOW), NOW + 81 * DAY);
        let other = Window { id: "other".into(), ..window(NOW + 7 * DAY, NOW) };
        assert_eq!(renew_at(&of, Some(&other), NOW), NOW + 60 * DAY, "of another certificate");
    }

    #[test]
    fn a_stale_window_puts_nothing_off_and_a_due_renewal_stays_due() {
        let of = certificate(90 * DAY);
        let late = window(NOW + 70 * DAY, NOW);
        assert_eq!(renew_at(&of, Some(&late), NOW + 4 * DAY), NOW + 60 * DAY);
        let early = window(NOW + 7 * DAY, NOW + 6 * DAY);
        assert_eq!(renew_at(&of, Some(&early), NOW + 20 * DAY), NOW + 7 * DAY);
    }

    #[test]
    fn the_time_in_a_window_is_chosen_once() {
        let mut entropy = Entropy::new([3; 32]);
        let info = RenewalInfo { start: NOW, end: NOW + 1_000, explanation: None };
        let first = Window::update(None, "a", &info, &mut entropy, NOW);
        assert!((NOW..NOW + 1_000).contains(&first.at));
        let again = Window::update(Some(&first), "a", &info, &mut entropy, NOW + 5);
        assert_eq!((again.at, again.checked), (first.at, NOW + 5));
        let moved = RenewalInfo { end: NOW + 2_000, ..info };
        let others = (0..8).map(|_| Window::update(Some(&first), "a", &moved, &mut entropy, NOW).at);
        assert!(others.into_iter().any(|at| at != first.at));
    }
}
