//! The rate limit of log lines that peers cause, and texts of reasons.

use rendezvous::logging::Limiter;
use rendezvous::logging::xmpp::LossText;
use rendezvous_core::time::{Span, Time};
use rendezvous_core::xmpp::component::Loss;
use rendezvous_core::xmpp::condition::StreamCondition;

const START: Time = Time(0);

#[test]
fn five_seconds_lines_may_come_at_once_and_no_more() {
    let mut limiter = Limiter::new(200);
    assert_eq!((0..1_500).filter(|_| limiter.take(START)).count(), 1_000);
    assert_eq!(limiter.total(), 500);
}

#[test]
fn after_a_second_there_is_room_for_a_seconds_lines() {
    let mut limiter = Limiter::new(200);
    while limiter.take(START) {}
    assert!(!limiter.take(START + Span::from_millis(4)));
    assert!(limiter.take(START + Span::from_millis(5)));
    let later = START + Span::from_millis(1_005);
    assert_eq!((0..1_000).filter(|_| limiter.take(later)).count(), 200);
    let much_later = START + Span::from_secs(3_600);
    assert_eq!((0..2_000).filter(|_| limiter.take(much_later)).count(), 1_000);
}

#[test]
fn how_many_were_left_out_is_said_once_and_at_most_once_a_second() {
    let mut limiter = Limiter::new(1);
    let at = |secs| START + Span::from_secs(secs);
    assert_eq!(limiter.catch_up(at(10)), 0);
    assert_eq!((0..15).filter(|_| limiter.take(at(10))).count(), 5);
    assert_eq!(limiter.catch_up(at(10)), 10);
    assert_eq!(limiter.catch_up(at(20)), 0, "it was said");
    assert_eq!((0..7).filter(|_| limiter.take(at(20))).count(), 5);
    assert_eq!(limiter.catch_up(at(20)), 2);
    assert!(!limiter.take(at(20)));
    assert_eq!(limiter.catch_up(at(20)), 0, "it was said this very second");
    assert_eq!(limiter.catch_up(at(21)), 1);
    assert_eq!(limiter.total(), 13);
}

#[test]
fn without_a_limit_there_is_none_and_it_can_change() {
    let mut limiter = Limiter::new(0);
    assert!((0..100_000).all(|_| limiter.take(START)));
    limiter.set_rate(2);
    assert_eq!((0..100).filter(|_| limiter.take(START)).count(), 10);
    limiter.set_rate(0);
    assert!((0..100).all(|_| limiter.take(START)));
    assert_eq!(limiter.total(), 90);
}

#[test]
fn it_is_clear_which_side_of_an_xmpp_stream_has_refused_the_other() {
    let condition = StreamCondition::NotWellFormed;
    assert_eq!(LossText(Loss::Refused(condition)).to_string(), "\"not-well-formed\"");
    let ours = "\"its stream was not valid and was ended: not-well-formed\"";
    assert_eq!(LossText(Loss::Malformed(condition)).to_string(), ours);
}
