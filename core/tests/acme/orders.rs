//! Orders that succeed.

use crate::ca::{Switches, Validation};
use crate::world::World;

#[test]
fn a_first_certificate_takes_one_order_and_each_request_once() {
    let mut world = World::new(&["relay.example.com"], Switches::default());
    world.until_installed(1);
    assert_eq!(world.failures(), [""; 0]);
    assert_eq!(world.ca.orders.len(), 1);
    for (kind, count) in [
        ("directory", 1),
        ("nonce", 0),
        ("new-account", 1),
        ("new-order", 1),
        ("challenge", 1),
        ("finalize", 1),
        ("certificate", 1),
    ] {
        assert_eq!(world.ca.count(kind), count, "{kind}");
    }
    world.run_for(60);
    assert!(world.provided.is_empty(), "the challenge is withdrawn");
}

#[test]
fn several_names_are_validated_one_after_the_other() {
    let mut world = World::new(&["a.example.com b.example.com c.example.com"], Switches::default());
    world.until_installed(1);
    assert_eq!((world.ca.orders.len(), world.ca.count("challenge")), (1, 3));
}

#[test]
fn authorizations_that_are_valid_already_need_no_challenge() {
    let switches = Switches { authorizations_valid: true, ..Switches::default() };
    let mut world = World::new(&["a.example.com"], switches);
    world.until_installed(1);
    assert_eq!(world.ca.count("challenge"), 0);
}

#[test]
fn slow_validations_orders_and_certificates_are_polled_until_they_are_there() {
    for (validation, ready_after, processing) in
        [(60, 0, 0), (2, 60, 0), (2, 0, 60), (3_000, 2_000, 4_000), (0, 0, 0)]
    {
        let validation = Validation::After(validation);
        let switches = Switches { validation, ready_after, processing, ..Switches::default() };
        let mut world = World::new(&["a.example.com"], switches);
        world.until_installed(1);
        assert_eq!(world.failures(), [""; 0]);
        assert_eq!((world.ca.orders.len(), world.ca.count("challenge")), (1, 1));
        assert!(world.ca.log.len() < 120, "{} requests", world.ca.log.len());
    }
}
