//! A simulated year of each permanent failure, and of lifetimes.

use rendezvous_core::acme::{Config, Event, NoResponse};

use crate::ca::{Ari, Failing, How, Switches, Up, Validation};
use crate::world::{DAY, HOUR, START, World};

const NAME: &[&str] = &["relay.example.com"];
const YEAR: u64 = 365 * DAY;

/// Limit of requests in a year of any failure (`docs/acme.md §7`).
const REQUESTS_MAX: usize = 15_000;

fn forever(what: &'static str, how: How) -> Switches {
    let failing = Failing { what, how, is_done: false, times: u32::MAX };
    Switches { failing: vec![failing], ..Switches::default() }
}

/// All permanent failures of a CA.
fn failures() -> Vec<(String, Switches)> {
    let mut all = vec![
        ("down".into(), Switches { up: Up::Never, ..Switches::default() }),
        ("validation fails".into(), Switches { validation: Validation::Fails, ..Switches::default() }),
        ("validation never comes".into(), Switches { validation: Validation::Never, ..Switches::default() }),
        ("wrong key".into(), Switches { wrong_key: true, ..Switches::default() }),
        ("all nonces are refused".into(), Switches { bad_nonce_every: 1, ..Switches::default() }),
        ("processing for ever".into(), Switches { processing: 10 * YEAR, ..Switches::default() }),
        ("never ready".into(), Switches { ready_after: 10 * YEAR, ..Switches::default() }),
        ("unknown challenges".into(), Switches { unknown_challenges_only: true, ..Switches::default() }),
        ("a wrong clock".into(), Switches { skew: -3 * DAY as i64, ..Switches::default() }),
    ];
    for what in [
        "directory",
        "new-account",
        "new-order",
        "order",
        "authorization",
        "challenge",
        "finalize",
        "certificate",
    ] {
        let hows = [
            How::Problem(500, "serverInternal", None),
            How::Problem(403, "unauthorized", None),
            How::Body(200, b"garbage".to_vec()),
        ];
        for how in hows {
            all.push((format!("{what}: {how:?}"), forever(what, how)));
        }
    }
    for what in ["new-account", "new-order", "order"] {
        let hows = [
            How::Problem(400, "accountDoesNotExist", None),
            How::Problem(404, "malformed", None),
            How::Problem(400, "malformed", None),
            How::Problem(429, "rateLimited", None),
            How::Problem(503, "serverInternal", Some("60".into())),
            How::Body(403, b"<html>".to_vec()),
        ];
        for how in hows {
            all.push((format!("{what}: {how:?}"), forever(what, how)));
        }
    }
    all
}

#[test]
fn a_year_of_any_failure_makes_a_bounded_number_of_requests() {
    for (what, switches) in failures() {
        let mut world = World::new(NAME, switches);
        world.run_for(YEAR);
        let requests = world.ca.log.len();
        assert_eq!(world.installed, 0, "{what}");
        assert!((1..REQUESTS_MAX).contains(&requests), "{what}: {requests} requests");
        assert!(!world.failures().is_empty(), "{what}");
        // And then it works.
        let working = Switches::default();
        world.ca.switches = working;
        world.run_for(40 * DAY);
        assert!(world.is_valid(), "{what}: {:?}", world.events.last());
    }
}

#[test]
fn a_renewal_that_fails_for_a_year_makes_a_bounded_number_of_requests() {
    // Each request once, and each kind of failure.
    for (what, switches) in failures().into_iter().step_by(3) {
        let mut world = World::new(NAME, Switches::default());
        world.until_installed(1);
        let before = world.ca.log.len();
        world.ca.switches = switches;
        world.run_for(YEAR);
        let requests = world.ca.log.len() - before;
        assert!((1..REQUESTS_MAX).contains(&requests), "{what}: {requests} requests");
        let warned = world.events.iter().filter(|it| matches!(it, Event::Expiring { .. })).count();
        assert!(warned > 25 || world.installed > 1, "{what}: {warned} warnings");
    }
}

/// The CA works at first, and then for one hour at any time in the window.
#[test]
fn a_certificate_is_renewed_if_the_ca_works_for_one_hour_in_the_window() {
    // A lifetime in hours, and how many hours of its window are tried.
    for (lifetime, tries) in [(160, 16), (45 * 24, 4), (64 * 24, 3), (90 * 24, 4)] {
        // From when it is due until three hours before its end.
        let from = if lifetime < 240 { lifetime / 2 } else { lifetime / 3 * 2 } + 1;
        for number in 0..tries {
            let at = from + (lifetime - 4 - from) * number / (tries - 1);
            let up = Up::OneHour { until: START + 2 * DAY, at: START + at * HOUR };
            let lifetime = lifetime * HOUR;
            let mut world = World::new(NAME, Switches { up, lifetime, backdated: 0, ..Switches::default() });
            world.until_installed(1);
            world.run_for(lifetime - HOUR);
            assert_eq!(world.installed, 2, "{lifetime} s, in hour {at}");
            assert!(world.is_valid(), "{lifetime} s, in hour {at}");
        }
    }
}

#[test]
fn a_year_of_failing_renewal_information_renews_by_the_lifetime() {
    for how in [
        How::Problem(500, "serverInternal", None),
        How::Problem(429, "rateLimited", Some("60".into())),
        How::Body(200, b"garbage".to_vec()),
        How::Silent(NoResponse::TimedOut),
    ] {
        let ari = Some(Ari { from: 60, to: 70, retry_after: "21600" });
        let mut world = World::new(NAME, Switches { ari, ..forever("renewal-info", how.clone()) });
        world.until_installed(1);
        let end = world.now.wall + YEAR;
        while world.now.wall < end {
            world.step();
            assert!(world.is_valid(), "{how:?}");
        }
        assert!((6..=7).contains(&world.installed), "{how:?}: {}", world.installed);
        assert!(world.ca.log.len() < REQUESTS_MAX, "{how:?}: {}", world.ca.log.len());
    }
}

#[test]
fn certificates_of_all_lifetimes_are_renewed_in_time_and_not_too_often() {
    let aris = [
        None,
        Some(Ari { from: 60, to: 70, retry_after: "21600" }),
        // Renew at once, again and again.
        Some(Ari { from: -10, to: -5, retry_after: "21600" }),
        // After the end of the certificate.
        Some(Ari { from: 150, to: 160, retry_after: "315360000" }),
        Some(Ari { from: 70, to: 60, retry_after: "rubbish" }),
    ];
    for lifetime in [160 * HOUR, 45 * DAY, 64 * DAY, 90 * DAY] {
        for (kind, ari) in aris.iter().enumerate() {
            let mut world = World::new(NAME, Switches { lifetime, ari: ari.clone(), ..Switches::default() });
            world.until_installed(1);
            let end = world.now.wall + YEAR;
            while world.now.wall < end {
                world.step();
                assert!(world.is_valid(), "{lifetime} s, {kind}");
            }
            let most = match kind {
                2 => YEAR / (lifetime / 10).min(DAY) + 2,
                _ => YEAR / (lifetime / 2 - HOUR) + 2,
            };
            assert!(
                u64::from(world.installed) <= most,
                "{lifetime} s, {kind}: {} of {most}",
                world.installed
            );
            assert!(world.ca.log.len() < REQUESTS_MAX, "{lifetime} s, {kind}: {}", world.ca.log.len());
            assert_eq!(world.failures(), [""; 0], "{lifetime} s, {kind}");
        }
    }
}

#[test]
fn a_window_that_moves_to_now_renews_soon_and_is_explained() {
    let ari = Ari { from: 60, to: 70, retry_after: "21600" };
    let mut world = World::new(NAME, Switches { ari: Some(ari), ..Switches::default() });
    world.until_installed(1);
    world.run_for(10 * DAY);
    assert_eq!(world.installed, 1);
    // The certificate is to be revoked.
    world.ca.switches.ari = Some(Ari { from: 1, to: 2, retry_after: "3600" });
    world.run_for(8 * HOUR);
    assert_eq!(world.installed, 2);
    assert!(world.events.iter().any(|it| matches!(it, Event::Explained { url, .. } if url.contains("why"))));
}

#[test]
fn a_machine_that_slept_over_the_window_renews_within_the_hour() {
    let mut world = World::new(NAME, Switches::default());
    world.until_installed(1);
    world.run_for(60);
    // The monotonic clock stands still.
    world.now.wall += 80 * DAY;
    world.run_for(HOUR + 120);
    assert_eq!(world.installed, 2);
}

#[test]
fn a_hundred_restarts_an_hour_for_a_week_lose_and_repeat_nothing() {
    let mut world = World::new(NAME, Switches::default());
    for at in 0..7 * 24 * 100_u64 {
        let end = START + at * 36;
        while world.now.wall < end {
            world.step();
        }
        world.restart();
    }
    assert_eq!((world.installed, world.ca.orders.len(), world.ca.accounts.len()), (1, 1, 1));
    assert!(world.ca.log.len() < 60, "{}", world.ca.log.len());
}

#[test]
fn restarts_while_the_ca_is_down_make_no_more_requests() {
    let mut world = World::new(NAME, Switches { up: Up::Never, ..Switches::default() });
    for _ in 0..2_400 {
        world.run_for(36);
        world.restart();
    }
    assert!(
        world.ca.log.len() < 60,
        "{} in a day, {:?}, {:?}",
        world.ca.log.len(),
        &world.ca.log[..20],
        &world.events[..20]
    );
}

#[test]
fn short_lived_certificates_with_a_profile_are_renewed_though_each_validation_fails_once() {
    let short = |config: &mut Config| config.profile = Some("shortlived".into());
    let switches = Switches { lifetime: 160 * HOUR, profiles: &["shortlived"], ..Switches::default() };
    let mut world = World::with(NAME, switches, short);
    world.until_installed(1);
    for _ in 0..50 {
        let count = world.installed;
        let failed = world.ca.failed_validations.len();
        world.ca.switches.validation = Validation::Fails;
        world.until("failed", |it| it.ca.failed_validations.len() > failed);
        world.ca.switches.validation = Validation::After(5);
        world.until_installed(count + 1);
        assert!(world.is_valid());
    }
}
