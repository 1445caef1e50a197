//! The addresses of host names: look-ups in progress, and the results of the last ones.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Span, Time};

use super::Resolved;
use super::look_up::Family;

/// How long the addresses of a successful look-up are used without another.
const FRESH: Span = Span::from_secs(30);
/// How long earlier addresses are used without another look-up after one has failed.
const RETRY: Span = Span::from_secs(5);
/// Limit of names in the cache.
const NAMES_MAX: usize = 256;
/// Limit of connections that wait for the look-up of one name.
const WAITING_MAX: usize = 1_024;

/// The name cache of a program.
///
/// The addresses of the last successful look-up are kept. If they are older than 30 s, they are reported at once and
/// another look-up starts, so that a name server that does not respond delays no connection. Concurrent requests for a
/// name share one look-up.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: BTreeMap<String, Name>,
    /// Names whose look-up has not started.
    begun: VecDeque<String>,
    answers: VecDeque<Resolved>,
}

#[derive(Debug, Default)]
struct Name {
    /// The addresses of the last successful look-up.
    good: Vec<SocketAddr>,
    /// Until then no other look-up starts.
    fresh_until: Time,
    used: Time,
    look_up: Option<LookUp>,
}

/// A look-up in progress.
#[derive(Debug, Default)]
struct LookUp {
    found: BTreeMap<Family, Vec<SocketAddr>>,
    waiting: Vec<(ConnId, u16)>,
}

impl Names {
    /// Requests the addresses of a name.
    pub(super) fn ask(&mut self, on: ConnId, host: &str, port: u16, now: Time) {
        let loopback = loopback(host);
        if !loopback.is_empty() {
            let loopback: Vec<_> = loopback.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            return self.answer(on, port, &loopback, true);
        }
        self.make_room(host);
        let name = self.names.entry(host.to_owned()).or_default();
        name.used = now;
        let good = name.good.clone();
        let is_fresh = !good.is_empty() && now < name.fresh_until;
        if is_fresh || name.look_up.as_ref().is_some_and(|it| it.waiting.len() >= WAITING_MAX) {
            return self.answer(on, port, &good, true);
        }
        if name.look_up.is_none() {
            self.begun.push_back(host.to_owned());
        }
        let look_up = name.look_up.get_or_insert_default();
        look_up.waiting.push((on, port));
        let found: Vec<_> = look_up.found.values().flatten().copied().collect();
        let known = if good.is_empty() { found } else { good };
        if !known.is_empty() {
            self.answer(on, port, &known, false);
        }
    }

    /// The next name to look up, in both families.
    pub(super) fn next_look_up(&mut self) -> Option<String> {
        self.begun.pop_front()
    }

    /// Records the result of a look-up of one family. No addresses: it failed.
    pub(super) fn found(&mut self, host: &str, family: Family, addresses: Vec<SocketAddr>, now: Time) {
        let Some(name) = self.names.get_mut(host) else { return };
        let Some(look_up) = &mut name.look_up else { return };
        look_up.found.insert(family, addresses.clone());
        let is_complete = look_up.found.len() == Family::ALL.len();
        let (waiting, told) = if is_complete {
            let LookUp { found, waiting } = name.look_up.take().unwrap_or_default();
            let mut all: Vec<_> = found.into_values().flatten().collect();
            if all.is_empty() && is_in_localhost(host) {
                all = LOOPBACK.map(|ip| SocketAddr::new(ip, 0)).to_vec();
            }
            name.fresh_until = now + if all.is_empty() { RETRY } else { FRESH };
            if !all.is_empty() {
                name.good = all;
            }
            (waiting, name.good.clone())
        } else {
            (look_up.waiting.clone(), addresses)
        };
        if is_complete || !told.is_empty() {
            for (on, port) in waiting {
                self.answer(on, port, &told, is_complete);
            }
        }
    }

    /// The next result.
    pub(super) fn next_answer(&mut self) -> Option<Resolved> {
        self.answers.pop_front()
    }

    /// Whether there is a result.
    pub(super) fn has_answer(&self) -> bool {
        !self.answers.is_empty()
    }

    fn answer(&mut self, on: ConnId, port: u16, addresses: &[SocketAddr], is_complete: bool) {
        let mut addresses = addresses.to_vec();
        addresses.iter_mut().for_each(|address| address.set_port(port));
        self.answers.push_back(Resolved { on, addresses, is_complete });
    }

    /// Removes the least recently used name if the cache is full.
    fn make_room(&mut self, host: &str) {
        if self.names.len() < NAMES_MAX || self.names.contains_key(host) {
            return;
        }
        let idle = self.names.iter().filter(|(_, name)| name.look_up.is_none());
        if let Some((oldest, _)) = idle.min_by_key(|(_, name)| name.used) {
            let oldest = oldest.clone();
            self.names.remove(&oldest);
        }
    }
}

const LOOPBACK: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];

/// The addresses of `localhost`, independent of name servers (RFC 6761 §6.3); none for any other name.
pub(crate) fn loopback(host: &str) -> Vec<IpAddr> {
    let is_localhost = host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case("localhost");
    if is_localhost { LOOPBACK.to_vec() } else { Vec::new() }
}

/// Whether a name is below `localhost`. Such a name may be in the hosts file; otherwise it is loopback as well.
fn is_in_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "192.0.2.1";
    const B: &str = "192.0.2.2";
    const C: &str = "2001:db8::1";

    fn on(index: u32) -> ConnId {
        ConnId { index, generation: 1 }
    }

    fn at(seconds: u64) -> Time {
        Time(0) + Span::from_secs(seconds)
    }

    fn all(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|it| SocketAddr::new(it.parse().expect("an address"), 0)).collect()
    }

    /// The results: connection, addresses, whether they are complete.
    fn answers(names: &mut Names) -> Vec<(u32, Vec<String>, bool)> {
        let next = || names.next_answer();
        std::iter::from_fn(next)
            .map(|it| {
                let addresses = it.addresses.iter().map(|it| {
                    assert_eq!(it.port(), 443);
                    it.ip().to_string()
                });
                (it.on.index, addresses.collect(), it.is_complete)
            })
            .collect()
    }

    fn look_ups(names: &mut Names) -> Vec<String> {
        std::iter::from_fn(|| names.next_look_up()).collect()
    }

    fn answered(names: &mut Names, host: &str, v6: &[&str], v4: &[&str], now: Time) {
        names.found(host, Family::V6, all(v6), now);
        names.found(host, Family::V4, all(v4), now);
    }

    fn told(index: u32, addresses: &[&str], is_complete: bool) -> (u32, Vec<String>, bool) {
        (index, addresses.iter().map(|it| (*it).to_owned()).collect(), is_complete)
    }

    #[test]
    fn look_ups_of_one_name_are_one_and_all_get_its_answer() {
        let mut names = Names::default();
        for index in 0..3 {
            names.ask(on(index), "relay", 443, at(0));
        }
        assert_eq!(look_ups(&mut names), ["relay"]);
        assert_eq!(answers(&mut names), []);
        answered(&mut names, "relay", &[], &[A], at(1));
        let expected: Vec<_> = (0..3).map(|index| told(index, &[A], true)).collect();
        assert_eq!(answers(&mut names), expected);
    }

    #[test]
    fn addresses_are_told_as_soon_as_one_family_is_there() {
        let mut names = Names::default();
        names.ask(on(0), "relay", 443, at(0));
        names.found("relay", Family::V6, all(&[C]), at(1));
        names.ask(on(1), "relay", 443, at(1));
        assert_eq!(answers(&mut names), [told(0, &[C], false), told(1, &[C], false)]);
        names.found("relay", Family::V4, all(&[A]), at(2));
        assert_eq!(answers(&mut names), [told(0, &[C, A], true), told(1, &[C, A], true)]);
    }

    #[test]
    fn a_look_up_is_good_for_30_s() {
        let mut names = Names::default();
        names.ask(on(0), "relay", 443, at(0));
        answered(&mut names, "relay", &[C], &[A], at(0));
        assert_eq!(look_ups(&mut names).len(), 1);
        answers(&mut names);
        names.ask(on(1), "relay", 443, at(29));
        assert_eq!(answers(&mut names), [told(1, &[C, A], true)]);
        assert_eq!(look_ups(&mut names), [""; 0]);
    }

    #[test]
    fn while_the_name_server_is_silent_the_last_addresses_are_told_at_once() {
        let mut names = Names::default();
        names.ask(on(0), "relay", 443, at(0));
        answered(&mut names, "relay", &[], &[A], at(0));
        answers(&mut names);
        for index in 1..=200 {
            names.ask(on(index), "relay", 443, at(100));
            assert_eq!(answers(&mut names), [told(index, &[A], false)]);
        }
        assert_eq!(look_ups(&mut names).len(), 2, "one look-up for all of them");
        answered(&mut names, "relay", &[], &[B], at(160));
        assert_eq!(answers(&mut names).first(), Some(&told(1, &[B], true)));
    }

    #[test]
    fn if_a_look_up_fails_the_last_addresses_stay() {
        let mut names = Names::default();
        names.ask(on(0), "relay", 443, at(0));
        answered(&mut names, "relay", &[], &[A], at(0));
        names.ask(on(1), "relay", 443, at(100));
        answers(&mut names);
        answered(&mut names, "relay", &[], &[], at(110));
        assert_eq!(answers(&mut names), [told(1, &[A], true)]);
        look_ups(&mut names);
        names.ask(on(2), "relay", 443, at(114));
        assert_eq!(answers(&mut names), [told(2, &[A], true)]);
        assert_eq!(look_ups(&mut names), [""; 0], "it is not asked again at once");
        names.ask(on(3), "relay", 443, at(115));
        assert_eq!(look_ups(&mut names), ["relay"]);
    }

    #[test]
    fn a_name_that_does_not_resolve_has_no_addresses_and_is_looked_up_again() {
        let mut names = Names::default();
        names.ask(on(0), "relay", 443, at(0));
        answered(&mut names, "relay", &[], &[], at(0));
        assert_eq!(answers(&mut names), [told(0, &[], true)]);
        names.ask(on(1), "relay", 443, at(0));
        assert_eq!(look_ups(&mut names), ["relay", "relay"]);
    }

    #[test]
    fn localhost_is_loopback_ipv6_first_and_nobody_is_asked() {
        let mut names = Names::default();
        for host in ["localhost", "LocalHost", "localhost."] {
            names.ask(on(0), host, 443, at(0));
            assert_eq!(answers(&mut names), [told(0, &["::1", "127.0.0.1"], true)]);
        }
        assert_eq!(look_ups(&mut names), [""; 0]);
        names.ask(on(0), "app.localhost", 443, at(0));
        answered(&mut names, "app.localhost", &[], &[], at(0));
        assert_eq!(answers(&mut names), [told(0, &["::1", "127.0.0.1"], true)]);
    }

    #[test]
    fn the_names_that_are_remembered_are_bounded() {
        let mut names = Names::default();
        for index in 0..1_000 {
            let host = format!("host-{index}");
            names.ask(on(0), &host, 443, at(index));
            answered(&mut names, &host, &[], &[A], at(index));
        }
        assert_eq!(names.names.len(), NAMES_MAX);
        answers(&mut names);
        names.ask(on(0), "host-999", 443, at(1_000));
        assert_eq!(answers(&mut names), [told(0, &[A], true)]);
    }

    #[test]
    fn those_who_wait_for_one_name_are_bounded() {
        let mut names = Names::default();
        for index in 0..=1_024 {
            names.ask(on(index), "relay", 443, at(0));
        }
        assert_eq!(answers(&mut names), [told(1_024, &[], true)]);
    }
}
