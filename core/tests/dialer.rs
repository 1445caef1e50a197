//! Happy Eyeballs: when each address is tried, and what is remembered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rendezvous_core::dialer::{ATTEMPT_DELAY, AddressBook, Race, Todo};
use rendezvous_core::relay_client::Deadlines;
use rendezvous_core::time::{Span, Time};

fn v4(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 443)
}

fn v6(host: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)), 443)
}

fn ms(ms: u64) -> Span {
    Span::from_millis(ms)
}

/// A race with its address book and a clock.
struct Course {
    race: Race,
    book: AddressBook,
    now: Time,
}

impl Course {
    fn to(addresses: &[SocketAddr]) -> Self {
        Self::with(AddressBook::default(), addresses)
    }

    fn with(mut book: AddressBook, addresses: &[SocketAddr]) -> Self {
        let now = Time(7_000_000);
        let mut race = Race::resolving(Deadlines::default(), now);
        book.resolved(addresses, true);
        race.resolved(addresses, true, &book, now);
        Self { race, book, now }
    }

    /// All addresses that are dialled now.
    fn dials(&mut self) -> Vec<SocketAddr> {
        let mut dials = Vec::new();
        while let Todo::Dial(address) = self.race.poll(&self.book, self.now) {
            dials.push(address);
        }
        dials
    }

    /// The time until the next deadline.
    fn due(&mut self) -> Span {
        match self.race.poll(&self.book, self.now) {
            Todo::Wait(until) => until.since(self.now),
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, span: Span) {
        self.now = self.now + span;
    }

    fn connected(&mut self, address: SocketAddr) {
        self.race.connected(address, self.now);
    }

    fn failed(&mut self, address: SocketAddr) {
        self.race.failed(address, self.now);
        self.book.failed(address, self.now);
    }
}

#[test]
fn both_families_are_tried_by_turns_250_ms_apart() {
    let mut course = Course::to(&[v6(1), v6(2), v6(3), v4(1), v4(2)]);
    for address in [v6(1), v4(1), v6(2), v4(2), v6(3)] {
        assert_eq!(course.dials(), [address]);
        assert!(course.due() >= ATTEMPT_DELAY);
        course.pass(ms(249));
        assert_eq!(course.dials(), []);
        course.pass(ms(1));
    }
    assert_eq!(course.dials(), []);
}

#[test]
fn the_family_that_the_resolver_prefers_goes_first() {
    let book = AddressBook::default();
    assert_eq!(book.order(&[v4(1), v4(2), v6(1)], Time(0)), [v4(1), v6(1), v4(2)]);
    assert_eq!(book.order(&[v6(1), v6(1), v4(1)], Time(0)), [v6(1), v4(1)]);
    assert_eq!(book.order(&[], Time(0)), []);
}

#[test]
fn after_a_failure_the_next_address_is_tried_at_once() {
    let mut course = Course::to(&[v6(1), v4(1), v4(2)]);
    assert_eq!(course.dials(), [v6(1)]);
    course.pass(ms(3));
    course.failed(v6(1));
    assert_eq!(course.dials(), [v4(1)]);
    course.failed(v4(1));
    assert_eq!(course.dials(), [v4(2)]);
    course.failed(v4(2));
    assert_eq!(course.race.poll(&course.book, course.now), Todo::Lost);
}

#[test]
fn an_address_that_does_not_answer_goes_on_while_others_are_tried_and_may_still_win() {
    let mut course = Course::to(&[v6(1), v4(1)]);
    assert_eq!(course.dials(), [v6(1)]);
    course.pass(ATTEMPT_DELAY);
    assert_eq!(course.dials(), [v4(1)]);
    course.failed(v4(1));
    course.pass(Span::from_secs(3));
    course.connected(v6(1));
    assert_eq!(course.race.connect_time(v6(1)), Some(ms(3_250)));
    assert_eq!(course.due(), Span::from_secs(10), "the handshake");
}

#[test]
fn each_attempt_has_its_own_deadline() {
    let mut course = Course::to(&[v6(1), v4(1)]);
    course.dials();
    course.pass(ATTEMPT_DELAY);
    course.dials();
    assert_eq!(course.due(), ms(9_750));
    course.pass(ms(9_750));
    assert_eq!(course.race.poll(&course.book, course.now), Todo::Late(v6(1)));
    course.failed(v6(1));
    assert_eq!(course.due(), ATTEMPT_DELAY);
}

#[test]
fn a_silent_handshake_holds_the_next_address_back_for_some_round_trips_and_at_most_a_second() {
    for (connect, delay) in [(0, 250), (62, 250), (100, 400), (240, 960), (249, 996), (800, 1_000)] {
        let mut course = Course::to(&[v6(1), v4(1)]);
        assert_eq!(course.dials(), [v6(1)]);
        course.pass(ms(connect.min(240)));
        // If connecting takes longer than the delay, the second address is being dialled already.
        if connect > 249 {
            course.pass(ms(connect - 240));
        }
        course.connected(v6(1));
        if connect < 241 {
            assert_eq!(course.due(), ms(delay), "{connect} ms");
            course.pass(ms(delay));
            assert_eq!(course.dials(), [v4(1)]);
        }
    }
}

#[test]
fn a_failed_handshake_or_answer_is_followed_by_the_next_address_at_once() {
    let mut course = Course::to(&[v6(1), v4(1), v6(2)]);
    course.dials();
    course.connected(v6(1));
    course.failed(v6(1));
    assert_eq!(course.dials(), [v4(1)]);
    course.connected(v4(1));
    course.race.asked(v4(1), true, course.now);
    course.pass(Span::from_secs(9));
    assert_eq!(course.dials(), [], "TLS has shown that it is the right server");
    course.failed(v4(1));
    assert_eq!(course.dials(), [v6(2)]);
}

#[test]
fn a_server_in_clear_that_does_not_answer_for_a_second_gets_a_rival() {
    let mut course = Course::to(&[v6(1), v4(1)]);
    course.dials();
    course.connected(v6(1));
    course.race.asked(v6(1), false, course.now);
    assert_eq!(course.due(), Span::from_secs(1));
    course.pass(Span::from_secs(1));
    assert_eq!(course.dials(), [v4(1)]);
}

#[test]
fn a_rival_that_fails_does_not_hurry_the_others_while_one_is_in_its_handshake() {
    let mut course = Course::to(&[v6(1), v4(1), v6(2)]);
    course.dials();
    course.pass(ATTEMPT_DELAY);
    assert_eq!(course.dials(), [v4(1)]);
    course.connected(v6(1));
    course.failed(v4(1));
    assert_eq!(course.dials(), []);
}

#[test]
fn the_address_that_worked_is_tried_first_the_next_time() {
    let mut course = Course::to(&[v6(1), v6(2), v4(1)]);
    course.book.connected(v4(1), ms(10), course.now);
    let mut course = Course::with(course.book, &[v6(1), v6(2), v4(1)]);
    assert_eq!(course.dials(), [v4(1)]);
    course.pass(ATTEMPT_DELAY);
    assert_eq!(course.dials(), [v6(1)]);
}

#[test]
fn an_address_that_is_known_to_be_far_is_given_the_time_that_it_needs() {
    for (connect, delay) in [(10, 250), (200, 800), (900, 2_000)] {
        let mut book = AddressBook::default();
        book.connected(v4(1), ms(connect), Time(0));
        let mut course = Course::with(book, &[v6(1), v4(1)]);
        assert_eq!(course.dials(), [v4(1)]);
        assert_eq!(course.due(), ms(delay), "{connect} ms");
    }
}

#[test]
fn addresses_that_failed_go_last_for_ten_minutes_the_oldest_failure_first() {
    let mut book = AddressBook::default();
    let all = [v6(1), v6(2), v4(1), v4(2)];
    book.connected(v6(1), ms(1), Time(0));
    book.failed(v6(1), Time(2));
    book.failed(v4(1), Time(1));
    assert_eq!(book.order(&all, Time(3)), [v6(2), v4(2), v4(1), v6(1)]);
    let later = Time(2) + Span::from_secs(600);
    assert_eq!(book.order(&all, later), [v6(1), v4(1), v6(2), v4(2)]);
    book.connected(v4(1), ms(1), Time(3));
    assert_eq!(book.order(&all, Time(4)), [v4(1), v6(2), v4(2), v6(1)]);
}

#[test]
fn whether_there_is_another_address_counts_those_that_the_host_has_and_that_did_not_fail() {
    let mut book = AddressBook::default();
    book.resolved(&[v6(1), v4(1)], true);
    assert!(book.has_other(v6(1), Time(0)));
    book.failed(v4(1), Time(0));
    assert!(!book.has_other(v6(1), Time(1)));
    assert!(book.has_other(v4(1), Time(1)));
    book.resolved(&[v4(1)], true);
    assert!(!book.has_other(v4(1), Time(1)), "the host has it no more");
}

#[test]
fn addresses_that_are_found_later_join_the_race() {
    let now = Time(0);
    let (book, mut race) = (AddressBook::default(), Race::resolving(Deadlines::default(), now));
    assert_eq!(race.poll(&book, now), Todo::Wait(Time(10_000_000)));
    race.resolved(&[v6(1)], false, &book, now);
    assert_eq!(race.poll(&book, now), Todo::Dial(v6(1)));
    race.failed(v6(1), now);
    assert_eq!(race.poll(&book, now), Todo::Wait(Time(10_000_000)), "the look-up goes on");
    race.resolved(&[v6(1), v4(1)], true, &book, now);
    assert_eq!(race.poll(&book, now), Todo::Dial(v4(1)), "and each address is tried once");
    race.failed(v4(1), now);
    assert_eq!(race.poll(&book, now), Todo::Lost);
}

#[test]
fn addresses_that_the_host_has_no_more_are_not_tried() {
    let now = Time(0);
    let (book, mut race) = (AddressBook::default(), Race::resolving(Deadlines::default(), now));
    race.resolved(&[v4(1), v4(2)], false, &book, now);
    assert_eq!(race.poll(&book, now), Todo::Dial(v4(1)));
    race.resolved(&[v4(3)], true, &book, now);
    race.failed(v4(1), now);
    assert_eq!(race.poll(&book, now), Todo::Dial(v4(3)));
    race.failed(v4(3), now);
    assert_eq!(race.poll(&book, now), Todo::Lost);
}

#[test]
fn a_look_up_that_does_not_end_is_waited_for_as_long_as_a_dial() {
    let now = Time(0);
    let (book, mut race) = (AddressBook::default(), Race::resolving(Deadlines::default(), now));
    assert_eq!(race.poll(&book, Time(9_999_999)), Todo::Wait(Time(10_000_000)));
    assert_eq!(race.poll(&book, Time(10_000_000)), Todo::Lost);
    let mut race = Race::resolving(Deadlines::default(), now);
    race.unresolved();
    assert_eq!(race.poll(&book, now), Todo::Lost);
}

#[test]
fn of_a_host_with_very_many_addresses_some_are_tried() {
    let all: Vec<_> = (0..200).map(v4).collect();
    let mut course = Course::to(&all);
    for _ in 0..16 {
        assert_eq!(course.dials().len(), 1);
        course.pass(ATTEMPT_DELAY);
    }
    assert_eq!(course.dials(), []);
}
