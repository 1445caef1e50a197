//! All interleavings of an order: at each step, by its name, something fails or the program is killed.

use rendezvous_core::acme::{Event, NoResponse};
use rendezvous_core::http::date::write_date;
use rendezvous_core::time::Span;

use crate::ca::{Ari, Failing, How, Switches};
use crate::world::{DAY, HOUR, World};

/// A failure at a step.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// The program is killed before the step.
    KilledBefore,
    /// The program is killed after the step was performed, before it receives the result.
    KilledAfter,
    /// The connection breaks before the CA has the request.
    Broken,
    /// The connection breaks after the CA has performed the request.
    AnswerLost,
    /// The CA answers 500 and does nothing.
    Internal,
    /// The CA answers 503 with `Retry-After`, and does nothing.
    Unavailable,
    /// The CA answers 429 with a date in `Retry-After`, and does nothing.
    RateLimited,
    /// A proxy in front of the CA answers.
    Proxy,
    /// The CA refuses the nonce.
    BadNonce,
    /// The disk is full for ten minutes.
    DiskFull,
}

const ALL: [Wrong; 10] = [
    Wrong::KilledBefore,
    Wrong::KilledAfter,
    Wrong::Broken,
    Wrong::AnswerLost,
    Wrong::Internal,
    Wrong::Unavailable,
    Wrong::RateLimited,
    Wrong::Proxy,
    Wrong::BadNonce,
    Wrong::DiskFull,
];

const NAMES: [&str; 2] = ["relay.example.com", "a.relay.example.com"];

fn world() -> World {
    World::new(&NAMES, Switches { processing: 1, ..Switches::default() })
}

/// A world whose two certificates are due for renewal, and replace others (RFC 9773 §5).
fn renewing_world() -> World {
    let ari = Some(Ari { from: 60, to: 70, retry_after: "21600" });
    let mut world = World::new(&NAMES, Switches { processing: 1, ari, ..Switches::default() });
    world.until_installed(2);
    world.run_for(HOUR);
    // The machine sleeps over the window.
    world.now.wall += 75 * DAY;
    world.now.mono = world.now.mono + Span::from_secs(HOUR);
    world.installed = 0;
    world
}

/// The names of all steps until both certificates are installed.
fn steps(world: fn() -> World) -> Vec<String> {
    let mut world = world();
    let mut steps = Vec::new();
    while world.installed < 2 {
        steps.extend(world.next());
        world.step();
    }
    // What is stored afterwards.
    for _ in 0..2 {
        steps.extend(world.next());
        world.step();
    }
    steps
}

/// Goes to step number `at`, which counts questions and requests.
fn go_to(world: &mut World, at: usize) {
    let mut count = 0;
    loop {
        if world.next().is_some() {
            if count == at {
                return;
            }
            count += 1;
        }
        world.step();
    }
}

/// The first segment of the path of a request.
fn kind(step: &str) -> Option<&'static str> {
    const KINDS: [&str; 9] = [
        "directory",
        "nonce",
        "new-account",
        "new-order",
        "order",
        "authorization",
        "challenge",
        "finalize",
        "certificate",
    ];
    let name = step.split_once(' ')?.1;
    KINDS.into_iter().find(|it| *it == name)
}

fn go_wrong(world: &mut World, step: &str, wrong: Wrong) {
    let fail = |world: &mut World, how: How, is_done: bool| {
        if let Some(what) = kind(step) {
            world.ca.switches.failing.push(Failing { what, how, is_done, times: 1 });
        }
        world.step();
    };
    match wrong {
        Wrong::KilledBefore => world.restart(),
        Wrong::KilledAfter => world.step_and_die(),
        Wrong::Broken => world.step_fails(NoResponse::Ended),
        Wrong::AnswerLost => fail(world, How::Silent(NoResponse::TimedOut), true),
        Wrong::Internal => fail(world, How::Problem(500, "serverInternal", None), false),
        Wrong::Unavailable => fail(world, How::Problem(503, "serverInternal", Some("90".into())), false),
        Wrong::RateLimited => {
            let mut date = Vec::new();
            write_date(world.now.wall + 90, &mut date);
            let date = String::from_utf8(date).expect("ASCII");
            fail(world, How::Problem(429, "rateLimited", Some(date)), false);
        }
        Wrong::Proxy => fail(world, How::Body(403, b"<html>denied</html>".to_vec()), false),
        Wrong::BadNonce => {
            world.ca.switches.bad_nonces = 3;
            world.step();
        }
        Wrong::DiskFull => {
            world.disk.is_full = true;
            world.run_for(600);
            world.disk.is_full = false;
        }
    }
}

/// Something goes wrong at each step, and the program is started again `restart` steps later, if that is given.
fn everything_goes_wrong(world: fn() -> World, orders: usize, restart: Option<usize>) {
    let steps = steps(world);
    assert!(steps.len() > 30, "{steps:?}");
    for (at, step) in steps.iter().enumerate() {
        for wrong in ALL {
            let mut world = world();
            go_to(&mut world, at);
            go_wrong(&mut world, step, wrong);
            if let Some(later) = restart {
                (0..later).for_each(|_| world.step());
                world.restart();
            }
            let begin = world.now.wall;
            let requests = world.ca.log.len();
            let way = format!("{wrong:?} at step {at}, {step}, restarted after {restart:?} steps");
            while world.installed < 2 || !world.is_valid() {
                world.step();
                assert!(world.now.wall < begin + 2 * HOUR, "{way}: {:#?}", world.events);
            }
            world.run_for(HOUR);
            assert_eq!(world.ca.accounts.len(), 1, "{way}: accounts");
            assert_eq!(world.ca.orders.len(), orders, "{way}: orders");
            assert!(world.ca.failed_validations.is_empty(), "{way}: {:?}", world.events);
            assert!(world.provided.is_empty(), "{way}: {:?}", world.provided);
            let more = world.ca.log.len() - requests;
            assert!(more < 60, "{way}: {more} requests");
        }
    }
}

#[test]
fn whatever_goes_wrong_at_a_step_both_certificates_come_with_one_order_each() {
    everything_goes_wrong(world, 2, None);
}

#[test]
fn whatever_goes_wrong_before_a_restart_both_certificates_come_with_one_order_each() {
    everything_goes_wrong(world, 2, Some(0));
    everything_goes_wrong(world, 2, Some(1));
}

#[test]
fn whatever_goes_wrong_at_a_step_of_a_renewal_it_is_one_order_that_replaces_the_certificate() {
    everything_goes_wrong(renewing_world, 4, None);
    let mut world = renewing_world();
    world.until_installed(2);
    assert!(world.ca.orders[2..].iter().all(|it| it.replaces.is_some()));
}

/// Like the tests above, but the program is killed at two steps.
#[test]
fn two_kills_at_any_two_steps_leave_one_order_each() {
    let steps = steps(world).len();
    for first in 0..steps {
        for second in [0, 1, 2, 3, 5, 8, 13] {
            let mut world = world();
            go_to(&mut world, first);
            world.step_and_die();
            for _ in 0..second {
                world.step();
            }
            world.step_and_die();
            let way = format!("killed at step {first} and {second} steps later");
            let begin = world.now.wall;
            while world.installed < 2 || !world.is_valid() {
                world.step();
                assert!(world.now.wall < begin + 2 * HOUR, "{way}: {:#?}", world.events);
            }
            world.run_for(HOUR);
            assert_eq!((world.ca.accounts.len(), world.ca.orders.len()), (1, 2), "{way}");
            assert!(world.ca.failed_validations.is_empty(), "{way}: {:?}", world.events);
        }
    }
}

/// The table of `docs/acme.md §3`.
#[test]
fn what_a_request_needs_is_on_disk_before_it_is_sent() {
    let mut world = world();
    let mut seen = 0;
    while world.installed < 2 {
        let next = world.next().unwrap_or_default();
        let document = world.disk.document.clone().unwrap_or_default();
        let needed = match kind(&next) {
            Some("new-account") => "\"account\":\"\"",
            Some("new-order") => "\"failures\":1",
            Some("order" | "authorization") => "\"order\":{\"url\":",
            Some("challenge") => "\"challenge\":{\"name\":",
            Some("finalize") => "\"csr\":",
            Some("certificate") => "\"certificate\":\"",
            _ => "",
        };
        assert!(document.contains(needed), "{next} needs {needed} in {document}");
        seen += usize::from(!needed.is_empty());
        world.step();
    }
    assert!(seen > 12, "{seen} requests");
}

/// The CA asks for a pause of two hours, and the program is killed some steps later.
#[test]
fn a_pause_that_was_reported_holds_across_a_kill_at_any_step() {
    let pause = 7_200;
    for (at, step) in steps(world).iter().enumerate() {
        let Some(what) = kind(step) else { continue };
        for (status, problem) in [(503, "serverInternal"), (429, "rateLimited")] {
            let mut reported = 0;
            for later in 0..4 {
                let mut world = world();
                go_to(&mut world, at);
                let how = How::Problem(status, problem, Some(pause.to_string()));
                world.ca.switches.failing.push(Failing { what, how, is_done: false, times: 1 });
                for _ in 0..=later {
                    if world.next().is_some() {
                        world.step();
                    }
                }
                world.next();
                let is_reported = |it: &Event| matches!(it, Event::Failed { again, .. } if *again >= pause);
                if !world.events.iter().any(is_reported) {
                    continue;
                }
                reported += 1;
                world.restart();
                let requests = world.ca.log.len();
                world.run_for(pause - 60);
                // A limit on new orders stops nothing else.
                let is_limit = status == 429 && what == "new-order";
                let more = world.ca.log[requests..].iter();
                let more: Vec<_> = more.filter(|it| !is_limit || it.2 == what).collect();
                assert!(more.is_empty(), "{status} at step {at}, {step}, killed {later} later: {more:?}");
            }
            assert!(reported > 0, "{status} at step {at}, {step}");
        }
    }
}

/// A kill between the response and the write loses the pause that the CA asked for.
#[test]
fn a_program_that_ends_at_each_response_asks_the_ca_once_in_each_growing_pause() {
    for what in ["directory", "new-account", "new-order"] {
        let how = How::Problem(503, "serverInternal", Some("7200".into()));
        let failing = vec![Failing { what, how, is_done: false, times: u32::MAX }];
        let mut world = World::new(&NAMES, Switches { failing, ..Switches::default() });
        let end = world.now.wall + DAY;
        while world.now.wall < end {
            match world.next().as_deref().and_then(kind) {
                Some(kind) if kind == what => world.step_and_die(),
                _ => world.step(),
            }
        }
        let refused = world.ca.log.iter().filter(|it| it.2.contains(what)).count();
        // The first three at once, then after 1, 10 and 45 minutes. Orders have pauses of their own.
        assert!((5..40).contains(&refused), "{what}: {refused} requests in a day");
    }
}
