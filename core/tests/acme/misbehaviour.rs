//! CAs that behave otherwise than RFC 8555 describes, and failures outside of an order.

use rendezvous_core::acme::{ChallengeKind, Config, Event, ExternalAccount, NoResponse, Proof};

use crate::ca::{Ari, Failing, How, Switches, Validation, problem};
use crate::world::{DAY, HOUR, START, World};

const NAME: &[&str] = &["relay.example.com"];

fn failing(what: &'static str, how: How, times: u32) -> Failing {
    Failing { what, how, is_done: false, times }
}

#[test]
fn half_of_the_nonces_may_be_refused_and_nine_in_a_row() {
    let mut world = World::new(NAME, Switches { bad_nonce_every: 2, ..Switches::default() });
    world.until_installed(1);
    assert_eq!(world.failures(), [""; 0]);
    let mut world = World::new(NAME, Switches { bad_nonces: 9, ..Switches::default() });
    world.until_installed(1);
    assert_eq!(world.failures(), [""; 0]);
}

#[test]
fn after_ten_refused_nonces_the_order_waits_and_goes_on() {
    let mut world = World::new(NAME, Switches::default());
    world.until("ordered", |it| it.ca.count("order") > 0);
    world.ca.switches.bad_nonces = 25;
    world.until_installed(1);
    assert_eq!(world.failures().len(), 2, "{:?}", world.failures());
    assert!(world.failures()[0].contains("badNonce"), "{:?}", world.failures());
    assert_eq!(world.ca.orders.len(), 1);
}

#[test]
fn responses_without_nonces_cost_a_request_for_each() {
    let mut world = World::new(NAME, Switches { no_nonces: true, ..Switches::default() });
    world.until_installed(1);
    let posts = world.ca.log.iter().filter(|(_, method, _)| method.as_str() == "POST").count();
    assert_eq!(world.ca.count("nonce"), posts);
}

#[test]
fn a_nonce_is_refused_after_a_429_as_well() {
    let mut world = World::new(NAME, Switches::default());
    world.ca.switches.failing.push(failing(
        "finalize",
        How::Problem(429, "rateLimited", Some("30".into())),
        1,
    ));
    world.until("limited", |it| !it.failures().is_empty());
    world.ca.switches.bad_nonces = 2;
    world.until_installed(1);
    assert_eq!(world.ca.orders.len(), 1);
}

#[test]
fn the_retry_after_of_a_failure_is_kept_to_as_seconds_and_as_a_date() {
    for (retry_after, least, most) in [
        ("7200", 7_200, 8_000),
        ("Fri, 15 Jan 2027 12:00:00 GMT", 14_000, 15_000),
        ("0", 50, 120),
        ("soon", 50, 120),
        ("315360000", DAY, DAY + 1_000),
    ] {
        let mut world = World::new(NAME, Switches::default());
        let how = How::Problem(503, "serverInternal", Some(retry_after.into()));
        world.ca.switches.failing.push(failing("new-order", how, 1));
        world.until_installed(1);
        let orders: Vec<u64> =
            world.ca.log.iter().filter(|it| it.2 == "new-order").map(|(wall, ..)| *wall).collect();
        assert_eq!(orders.len(), 2);
        let pause = orders[1] - orders[0];
        assert!((least..most).contains(&pause), "{retry_after}: {pause} s ({START})");
    }
}

#[test]
fn a_challenge_is_posted_once_and_after_a_conflict_the_authorization_is_read() {
    let mut world = World::new(NAME, Switches { validation: Validation::After(400), ..Switches::default() });
    world.until("posted", |it| it.ca.count("challenge") == 1);
    // The validators come while the program is restarted and has not asked the CA anything.
    world.step();
    world.restart();
    world.until("provided", |it| !it.provided.is_empty());
    assert_eq!(world.ca.log.last().map(|it| it.2.as_str()), Some("challenge"), "provided before any request");
    world.until_installed(1);
    assert!(world.ca.count("challenge") <= 2, "once more after the restart, and refused");
    assert_eq!((world.failures().len(), world.ca.orders.len()), (0, 1));
}

#[test]
fn a_failed_validation_is_reported_and_tried_again_three_times_in_the_first_hour_whatever_the_restarts() {
    let mut world = World::new(NAME, Switches { validation: Validation::Fails, ..Switches::default() });
    for _ in 0..100 {
        world.run_for(36);
        world.restart();
    }
    let failed = world.ca.failed_validations.clone();
    let hour = failed.iter().filter(|at| **at < START + HOUR).count();
    assert!((2..=3).contains(&hour), "{failed:?}");
    assert!(
        world.failures().iter().all(|it| it.contains("because of unauthorized")),
        "{:?}",
        world.failures()
    );
    world.ca.switches.validation = Validation::After(1);
    world.until_installed(1);
}

#[test]
fn a_validation_that_never_comes_ends_with_the_order_and_delays_no_other_order() {
    let mut world = World::new(
        &["relay.example.com", "a.relay.example.com"],
        Switches { validation: Validation::Never, ..Switches::default() },
    );
    world.until("put off", |it| it.ca.orders.len() == 2);
    assert!(world.now.wall < START + HOUR);
    world.run_for(8 * DAY);
    assert!(
        world.failures().iter().any(|it| it.contains("expired") || it.contains("the order")),
        "{:?}",
        world.failures()
    );
    assert!(world.ca.log.len() < 600, "{}", world.ca.log.len());
    assert!(world.ca.orders.len() <= 5, "{}", world.ca.orders.len());
}

#[test]
fn a_ca_that_has_forgotten_everything_gets_a_new_account_and_a_new_order_once() {
    for at in ["new-order", "challenge", "finalize"] {
        let mut world = World::new(NAME, Switches::default());
        world.until(at, |it| it.ca.count(at) > 0);
        world.ca.forget();
        world.until_installed(1);
        assert_eq!((world.ca.accounts.len(), world.ca.orders.len()), (1, 1), "{at}");
        assert!(world.now.wall < START + HOUR, "{at}");
    }
}

#[test]
fn a_ca_that_forgets_again_and_again_is_not_asked_often() {
    let mut world = World::new(NAME, Switches::default());
    let how = How::Problem(400, "accountDoesNotExist", None);
    world.ca.switches.failing.push(failing("new-order", how, u32::MAX));
    world.run_for(30 * DAY);
    assert!(world.ca.accounts.len() <= 1 && world.ca.log.len() < 6_000, "{}", world.ca.log.len());
}

#[test]
fn a_deactivated_account_is_reported_and_asked_about_once_a_day() {
    let mut world = World::new(NAME, Switches::default());
    world.until_installed(1);
    world.ca.accounts.values_mut().for_each(|it| it.is_deactivated = true);
    let before = world.ca.log.len();
    world.run_for(70 * DAY);
    let failures = world.failures();
    assert!(failures.iter().any(|it| it.contains("the account")), "{failures:?}");
    assert!(world.ca.log.len() - before < 150, "{}", world.ca.log.len() - before);
    // The same with the lost answer of a registration: the account is found by its key.
    let mut world = World::new(NAME, Switches::default());
    world.until("registered", |it| it.ca.accounts.len() == 1);
    world.ca.accounts.values_mut().for_each(|it| it.is_deactivated = true);
    world.restart();
    world.run_for(10 * DAY);
    assert!(world.ca.log.len() < 60, "{}", world.ca.log.len());
}

#[test]
fn an_external_account_is_bound_once_and_its_absence_is_reported() {
    let switches = || Switches { external_account: Some(("kid-1", b"secret")), ..Switches::default() };
    let bound = |config: &mut Config| config.external_account = ExternalAccount::parse("kid-1", "c2VjcmV0");
    let mut world = World::with(NAME, switches(), bound);
    let lost = Failing { is_done: true, ..failing("new-account", How::Silent(NoResponse::Ended), 1) };
    world.ca.switches.failing.push(lost);
    world.until_installed(1);
    assert_eq!(
        (world.ca.accounts.len(), world.ca.count("new-account")),
        (1, 2),
        "a second binding is refused"
    );
    let mut world = World::new(NAME, switches());
    world.run_for(5 * DAY);
    assert!(world.failures().iter().all(|it| it.contains("EAB")), "{:?}", world.failures());
    assert!(world.ca.log.len() <= 12, "{:?}", world.ca.log);
}

#[test]
fn nothing_is_registered_without_agreement() {
    let mut world = World::with(NAME, Switches::default(), |config| config.agrees_to_terms = false);
    world.run_for(DAY / 2);
    assert_eq!(world.ca.count("new-account"), 0);
    assert!(world.failures()[0].contains("terms"), "{:?}", world.failures());
    // A changed configuration allows one early attempt.
    world.configure = |_| {};
    world.restart();
    world.run_for(60);
    assert_eq!(world.installed, 1);
}

#[test]
fn a_profile_is_sent_only_if_the_directory_lists_it() {
    let short = |config: &mut Config| config.profile = Some("shortlived".into());
    let mut world =
        World::with(NAME, Switches { profiles: &["classic", "shortlived"], ..Switches::default() }, short);
    world.until_installed(1);
    assert_eq!(world.ca.orders[0].profile.as_deref(), Some("shortlived"));
    let mut world = World::with(NAME, Switches { profiles: &["classic"], ..Switches::default() }, short);
    world.until_installed(1);
    assert_eq!(world.ca.orders[0].profile, None);
    let warns = |it: &Event| matches!(it, Event::Ignored { what } if what.contains("shortlived") && what.contains("classic"));
    assert!(world.events.iter().any(warns), "{:?}", world.events);
}

#[test]
fn the_preferred_chain_is_found_wherever_it_is_and_the_default_serves_without_it() {
    let preferred = |config: &mut Config| config.preferred_chain = Some("Root-X".into());
    for (alternates, expected) in [
        (vec!["Root-X"], "Root-X"),
        (vec!["Root-A", "Root-X"], "Root-X"),
        (vec!["Root-A"], "Default Root"),
        (vec![], "Default Root"),
    ] {
        let mut world = World::with(NAME, Switches { alternates, ..Switches::default() }, preferred);
        world.until_installed(1);
        assert_eq!(world.issuers, [expected]);
        let warned = world.events.iter().any(|it| matches!(it, Event::Ignored { .. }));
        assert_eq!(warned, expected != "Root-X");
    }
    let default = |config: &mut Config| config.preferred_chain = Some("Default Root".into());
    let mut world =
        World::with(NAME, Switches { alternates: vec!["Root-A"], ..Switches::default() }, default);
    world.until_installed(1);
    assert_eq!(
        (world.issuers.as_slice(), world.ca.count("alternate")),
        (&["Default Root".to_owned()][..], 0)
    );
}

#[test]
fn the_kinds_of_challenges_that_are_configured_are_answered_and_no_other() {
    let http = |config: &mut Config| config.challenges = vec![ChallengeKind::Http01];
    let mut world = World::with(NAME, Switches::default(), http);
    world.until("provided", |it| !it.provided.is_empty());
    assert!(matches!(world.provided[0].proof, Proof::Http01 { .. }));
    world.until_installed(1);
    let mut world = World::new(NAME, Switches { unknown_challenges_only: true, ..Switches::default() });
    world.run_for(DAY);
    assert!(world.failures().iter().all(|it| it.contains("dns-persist-01")), "{:?}", world.failures());
    assert!(world.ca.deactivated >= 1, "the authorization is given up");
    assert_eq!(world.ca.count("challenge"), 0);
}

#[test]
fn after_a_failed_validation_the_next_attempt_uses_the_next_kind_of_challenge() {
    let both = |config: &mut Config| {
        config.challenges = vec![ChallengeKind::TlsAlpn01, ChallengeKind::Http01];
    };
    let switches = Switches { validation: Validation::HttpOnly, ..Switches::default() };
    let mut world = World::with(NAME, switches, both);
    world.until("failed", |it| it.ca.failed_validations.len() == 1);
    world.restart();
    world.until_installed(1);
    assert_eq!((world.ca.failed_validations.len(), world.ca.orders.len()), (1, 2));
    world.run_for(HOUR);
    assert!(world.provided.is_empty(), "{:?}", world.provided);
}

#[test]
fn a_certificate_for_another_key_is_not_used_and_another_is_ordered() {
    let mut world = World::new(NAME, Switches { wrong_key: true, ..Switches::default() });
    world.until("refused", |it| !it.failures().is_empty());
    assert!(world.failures()[0].contains("another key"), "{:?}", world.failures());
    world.ca.switches.wrong_key = false;
    world.until_installed(1);
    assert_eq!(world.ca.orders.len(), 2);
}

#[test]
fn an_order_that_is_gone_after_a_restart_is_dropped_and_the_next_one_waits() {
    let mut world = World::new(NAME, Switches { validation: Validation::Never, ..Switches::default() });
    world.until("posted", |it| it.ca.count("challenge") == 1);
    world.restart();
    world.ca.switches.validation = Validation::After(1);
    world.ca.switches.failing.push(failing("order", How::Problem(404, "malformed", None), 1));
    world.until("dropped", |it| !it.failures().is_empty());
    world.until_installed(1);
    assert_eq!(world.failures().len(), 1);
}

#[test]
fn a_full_disk_stops_everything_before_the_next_order() {
    let mut world = World::new(NAME, Switches::default());
    world.disk.is_full = true;
    world.run_for(DAY);
    assert_eq!(world.ca.log.len(), 0, "no request at all");
    assert!(world.failures()[0].contains("no space left"), "{:?}", world.failures());
    world.disk.is_full = false;
    world.until_installed(1);
    // After finalize: the certificate is downloaded again.
    let mut world = World::new(NAME, Switches::default());
    world.until("finalized", |it| it.ca.count("finalize") == 1);
    world.disk.is_full = true;
    world.run_for(DAY);
    world.restart();
    world.disk.is_full = false;
    world.until_installed(1);
    assert_eq!(world.ca.orders.len(), 1);
}

#[test]
fn the_key_of_the_account_is_replaced_and_certificates_are_renewed_with_it() {
    let mut world = World::new(NAME, Switches::default());
    world.until_installed(1);
    let url = world.client.account().map(String::from);
    world.client.replace_account_key(world.now);
    world.until("replaced", |it| it.events.contains(&Event::AccountKeyReplaced));
    assert_eq!((world.ca.key_changes, world.disk.account_key.as_str()), (1, "account-2"));
    world.restart();
    world.until("renewed", |it| it.installed == 1);
    world.run_for(61 * DAY);
    assert_eq!((world.installed, world.ca.accounts.len()), (2, 1));
    assert_eq!(world.client.account().map(String::from), url);
}

#[test]
fn a_replacement_of_the_account_key_survives_the_end_of_the_program_at_each_step() {
    for steps in 0.. {
        let mut world = World::new(NAME, Switches::default());
        world.until_installed(1);
        world.run_for(60);
        world.client.replace_account_key(world.now);
        let mut is_over = false;
        for _ in 0..steps {
            world.step();
            is_over |= world.disk.account_key == "account-2";
        }
        world.step_and_die();
        if world.disk.account_key != "account-2" && world.disk.next_account_key.is_none() {
            // The replacement had not begun: the operator requests it again.
            world.client.replace_account_key(world.now);
        }
        world.run_for(10 * 60);
        assert_eq!(world.disk.account_key, "account-2", "after {steps} steps");
        assert_eq!(world.ca.key_changes, 1, "after {steps} steps");
        world.run_for(61 * DAY);
        assert_eq!((world.installed, world.ca.accounts.len()), (2, 1), "after {steps} steps");
        if is_over {
            return;
        }
    }
}

#[test]
fn a_clock_before_the_build_waits_and_one_that_differs_from_the_ca_orders_nothing() {
    let mut world = World::new(NAME, Switches::default());
    world.now.wall = 0;
    world.restart();
    world.run_for(3 * HOUR);
    assert_eq!(world.ca.log.len(), 0);
    assert_eq!(world.events.iter().filter(|it| **it == Event::ClockBeforeBuild).count(), 1);
    world.now.wall = START;
    world.until_installed(1);
    assert!(world.now.wall < START + 120);
    let mut world = World::new(NAME, Switches { skew: -(5 * 365 * DAY as i64), ..Switches::default() });
    world.run_for(DAY);
    assert_eq!((world.ca.count("new-order"), world.ca.count("new-account")), (0, 0));
    assert!(world.events.iter().any(|it| matches!(it, Event::ClockDiffers { .. })));
    world.ca.switches.skew = 0;
    world.until_installed(1);
}

#[test]
fn a_clock_that_jumps_five_years_ahead_and_back_costs_no_certificate() {
    let mut world = World::new(NAME, Switches::default());
    world.until_installed(1);
    world.now.wall += 5 * 365 * DAY;
    world.ca.switches.skew = -(5 * 365 * DAY as i64);
    world.run_for(DAY);
    assert_eq!(world.ca.orders.len(), 1);
    world.now.wall -= 5 * 365 * DAY;
    world.ca.switches.skew = 0;
    world.run_for(62 * DAY);
    assert_eq!(world.installed, 2, "renewed at its time");
    assert!(world.is_valid());
}

#[test]
fn names_that_are_not_wanted_any_more_end_their_orders_and_new_ones_begin() {
    let mut world = World::new(NAME, Switches { validation: Validation::Never, ..Switches::default() });
    world.until("posted", |it| it.ca.count("challenge") == 1);
    let other =
        rendezvous_core::acme::Wanted { names: crate::world::names("b.example.com"), certificate: None };
    world.ca.switches.validation = Validation::After(1);
    world.names = vec![other.names.clone()];
    world.restart();
    world.until_installed(1);
    assert!(world.is_valid());
    // While the program runs.
    let mut world = World::new(NAME, Switches { validation: Validation::Never, ..Switches::default() });
    world.until("posted", |it| it.ca.count("challenge") == 1);
    world.step();
    world.ca.switches.validation = Validation::After(1);
    world.names = vec![other.names.clone()];
    world.replace_wanted(vec![other]);
    world.until_installed(1);
    assert!(world.is_valid() && world.ca.count("challenge") == 2);
    assert!(world.provided.is_empty());
}

#[test]
fn authorizations_of_names_that_are_not_wanted_any_more_are_deactivated_once() {
    for restarts in [false, true] {
        let mut world = World::new(NAME, Switches { validation: Validation::Never, ..Switches::default() });
        world.until("posted", |it| it.ca.count("challenge") == 1);
        world.names = Vec::new();
        if restarts {
            world.restart();
        } else {
            world.replace_wanted(Vec::new());
        }
        world.run_for(DAY);
        assert_eq!(world.ca.deactivated, 1, "restarts: {restarts}");
        let requests = world.ca.log.len();
        world.run_for(DAY);
        assert_eq!(world.ca.log.len(), requests, "restarts: {restarts}: nothing is left to do");
    }
}

#[test]
fn sixty_labels_all_get_their_certificates() {
    let labels: Vec<String> = (0..60).map(|it| format!("l{it}.relay.example.com")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let mut world = World::new(&labels, Switches::default());
    world.until_installed(60);
    assert_eq!((world.ca.orders.len(), world.ca.accounts.len()), (60, 1));
    assert!(world.now.wall < START + 2 * HOUR);
}

#[test]
fn a_limit_of_new_certificates_holds_labels_back_but_no_renewal() {
    let labels: Vec<String> = (0..10).map(|it| format!("l{it}.relay.example.com")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let mut world = World::new(&labels, Switches::default());
    world.until_installed(4);
    let limit = How::Problem(429, "rateLimited", Some("7200".into()));
    world.ca.switches.failing.push(failing("new-order", limit, 1));
    world.until("limited", |it| !it.failures().is_empty());
    let at = world.now.wall;
    world.until_installed(5);
    assert!(world.now.wall >= at + 7_200, "after the limit");
    world.until_installed(10);
    assert_eq!(world.ca.count("new-order"), 11);
}

#[test]
fn replaces_is_sent_with_renewals_and_left_out_once_it_is_refused() {
    let ari = Ari { from: 60, to: 62, retry_after: "21600" };
    let mut world = World::new(NAME, Switches { ari: Some(ari.clone()), ..Switches::default() });
    world.until_installed(1);
    world.run_for(58 * DAY);
    assert_eq!(world.installed, 2);
    assert!(world.ca.orders[1].replaces.is_some());
    for kind in ["alreadyReplaced", "conflict", "malformed", "unauthorized"] {
        let switches =
            Switches { ari: Some(ari.clone()), refuse_replaces: Some(kind), ..Switches::default() };
        let mut world = World::new(NAME, switches);
        world.until_installed(1);
        world.run_for(58 * DAY);
        assert_eq!((world.installed, world.ca.count("new-order")), (2, 3), "{kind}");
        assert_eq!(world.failures(), [""; 0], "{kind}");
    }
}

#[test]
fn problems_are_shown_whole_and_harmless() {
    let mut world = World::new(NAME, Switches::default());
    let body = format!(
        r#"{{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"a\u001b[31m\u202e\nevent=x","subproblems":[{}]}}"#,
        problem("caa")
    );
    world.ca.switches.failing.push(failing("new-order", How::Body(400, body.into()), 1));
    world.until("refused", |it| !it.failures().is_empty());
    let expected =
        "the order: rejectedIdentifier: a\\u{1b}[31m\\u{202e}\\nevent=x [caa: because of caa] (HTTP 400)";
    assert_eq!(world.failures(), [expected]);
}

#[test]
fn what_a_ca_sends_instead_of_json_is_a_failure_of_the_ca() {
    for what in ["directory", "new-account", "new-order", "order", "authorization", "finalize", "certificate"]
    {
        for body in [&b""[..], b"null", b"[]", b"{}", b"\xff\xfe", b"{\"status\":\"odd\"}", &[b'['; 60_000]] {
            let mut world = World::new(NAME, Switches { processing: 3, ..Switches::default() });
            let how = How::Body(200, body.to_vec());
            world.ca.switches.failing.push(failing(what, how, 2));
            world.until_installed(1);
            assert!(world.now.wall < START + HOUR, "{what}");
            assert!(
                world.ca.orders.len() == 1 && world.failures().len() <= 2,
                "{what}: {:?}",
                world.failures()
            );
        }
    }
}

#[test]
fn nothing_is_ordered_while_validators_cannot_come_and_it_counts_as_no_failure() {
    let mut world = World::new(NAME, Switches::default());
    world.client.set_reachable(false, world.now);
    world.run_for(3 * DAY);
    let before = world.ca.count("new-order");
    assert!(before <= 1 && world.ca.count("challenge") == 0, "{:?}", world.ca.log);
    assert!(world.ca.log.len() < 20, "{}", world.ca.log.len());
    world.client.set_reachable(true, world.now);
    world.until_installed(1);
    assert_eq!(world.ca.orders.len(), 1);
    // The tunnel is cut after each POST.
    let mut world = World::new(NAME, Switches { validation: Validation::Fails, ..Switches::default() });
    for count in 1..=8 {
        world.until("posted", |it| it.ca.count("challenge") == count);
        world.client.set_reachable(false, world.now);
        world.run_for(HOUR);
        world.client.set_reachable(true, world.now);
    }
    assert!(world.now.wall < START + 12 * HOUR, "no pause of a day");
    world.ca.switches.validation = Validation::After(1);
    world.until_installed(1);
    assert!(world.now.wall < START + 13 * HOUR);
}
