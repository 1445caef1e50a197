//! The stream proxy of December 2002, one behaviour a test; the modules are the state tables of docs/stream-proxy.md §2,
//! §3, §4, and what lies between them.
//!
//! Every row of the tables, and where it is tested:
//!
//! | initiator | `initiator` |
//! |---|---|
//! | I0 open | `i0_pf1_pf2_offers_its_own_address_first_and_proxies_next_with_128_random_bits`, `i0_no_more_than_8_connections_are_offered` |
//! | I0 nothing to offer | `i0_a1_1_nothing_to_offer_is_offered` |
//! | I1 TCP accept | `i1_accept_is_kept_unread_for_30_s`, `i1_the_end_of_a_socket_that_nobody_claimed_is_its_end` |
//! | I1 the target's claim | `i1_pf6_the_claim_is_answered_and_nothing_relayed_before_pf5` |
//! | I1, I2 a claim that fits nothing | `i1_a_claim_may_come_before_its_socket_and_is_404_after_2_s`, `i1_a_claim_with_a_wrong_stream_id_or_a_wrong_jid_is_404`, `i2_a_second_claim_is_404` |
//! | I1, I2 PF5 names us | `i1_pf5_before_pf6`, `i2_pf5_is_waited_for_10_s_and_no_longer` |
//! | I1 PF5 names a proxy | `i1_a6_3_a_proxy_is_named_so_nobody_listens_and_its_addresses_are_dialled_in_order` |
//! | I1 PF5 names nobody known | `i1_an_unknown_or_missing_jid_fails`, `i1_our_own_jid_is_unknown_where_it_was_not_offered`, `i2_a_proxy_named_after_a_claim_here_fails` |
//! | I1 error | `i1_a5_1_without_reversal_an_error_is_the_end`, `i5_10_s_without_an_offer_fail_with_what_the_peer_said` |
//! | I4 result | `i4_a6_4_claims_the_address_dialled_with_its_own_port`, `i4_a6_8_the_result_of_the_proxy_is_clear_to_send` |
//! | I4 error, dial failed, reset, 60 s | `i4_an_error_of_the_proxy_fails`, `i4_every_dial_failed`, `i4_a_dial_may_take_10_s`, `i4_a_reset_of_the_socket_fails`, `i4_60_s_from_the_targets_word` |
//! | I4 FIN: a half-close, other than the table has it | `i4_a_clean_end_is_the_half_close_of_a_target_that_is_clear_before_us`, `i2_a_clean_end_is_the_half_close_of_a_target_that_is_clear_before_us` |
//! | I5 an offer with the same stream id | `i5_a1_3_a2_2_an_offer_with_the_same_stream_id_makes_a_target_of_it`, `i5_roles_are_changed_once` |
//! | I5 another stream id | `i5_an_offer_with_another_stream_id_is_another_stream` |
//! | I3 clear | `i1_pf5_before_pf6` |
//! | any: cancel, 60 s | `any_cancel_closes_all_sockets`, `any_shutting_down_cancels_and_begins_nothing`, `i1_60_s_without_an_answer_fail` |
//!
//! | target | `target` |
//! |---|---|
//! | T0 no connection | `t0_a1_no_connection_is_404`, `t0_a1_3_then_it_makes_the_offer_with_the_same_stream_id`, `t0_a1_3_roles_are_changed_once`, `t0_a1_3_not_where_it_has_nothing_to_offer_either` |
//! | T0 not wanted | `t0_a5_not_wanted_is_406`, `t0_a5_by_policy_is_403`, `t0_too_many_streams_are_500_and_503_while_shutting_down`, `t0_the_same_stream_again_is_409` |
//! | T0 connections | `t0_connections_are_dialled_in_the_order_of_the_document`, `t0_a_dial_may_take_10_s`, `t0_addresses_that_would_make_a_port_scanner_of_us_are_not_dialled` |
//! | T0 malformed | `t0_no_stream_id_or_nothing_but_malformed_connections_is_400`, `t0_malformed_connections_are_skipped_if_a_good_one_is_left` |
//! | T1 all failed | `t1_a2_every_dial_failed_is_404`, `t1_a2_2_then_it_makes_the_offer_with_the_same_stream_id`, `t1_all_dials_together_may_take_60_s`, `t1_a_socket_that_ends_at_once_is_a_dial_that_failed` |
//! | T1 connected | `t1_pf4_and_pf5_go_out_together` |
//! | T2 result | `t2_pf7_the_result_is_clear_to_send_and_the_socket_is_handed_over` |
//! | T2 error | `t2_a4_an_error_closes` |
//! | T2 bytes | `t2_nothing_is_read_before_it_is_clear`, `bytes_before_clear_to_send_at_the_target_wait_unread` |
//! | T2 reset, 60 s | `t2_a_reset_of_the_socket_closes`, `t2_60_s_without_an_answer_close` |
//! | T2 FIN: a half-close, other than the table has it | `t2_a_clean_end_is_the_half_close_of_an_initiator_that_is_clear_before_us`, `t2_after_a_clean_end_60_s_without_an_answer_close_all_the_same` |
//!
//! | proxy | `proxy` and `limits` |
//! |---|---|
//! | accept | `accept_reads_nothing_and_is_unclaimed_for_30_s` |
//! | unclaimed, first claim | `a1_a2_the_first_claim_is_held_without_an_answer` |
//! | unclaimed, second claim | `a5_to_a8_the_second_claim_joins_first_and_then_tells_both_each_with_its_own_id`, `the_initiator_may_be_first`, `both_claims_at_the_same_time_before_either_socket`, `two_resources_of_one_account_are_two_sides` |
//! | unclaimed, EOF or 30 s | `unclaimed_and_ended_is_closed`, `accept_reads_nothing_and_is_unclaimed_for_30_s` |
//! | claimed, EOF or 60 s | `claimed_and_ended_is_404`, `claimed_for_60_s_is_504`, `a_socket_that_died_between_claim_and_pairing_leaves_the_stream_id_free`, `a_socket_that_died_unseen_before_pairing_ends_the_pair` |
//! | claimed, the same JID or a third | `the_same_jid_again_is_409_and_changes_nothing`, `a_third_jid_after_pairing_is_409_and_the_pair_goes_on`, `a_stolen_stream_id_is_noticed_by_whom_it_was_stolen_from` |
//! | paired, bytes and FIN | `paired_bytes_and_ends_are_passed_on_and_closed_when_both_are_done`, `paired_and_reset_is_closed_on_both_sides` |
//! | no socket for 2 s | `a_claim_without_a_socket_is_404_after_2_s`, `a_claim_may_come_before_its_socket` |
//! | no stream id, no endpoint | `no_stream_id_or_no_endpoint_is_400` |
//! | not allowed, too many failures | `who_is_not_allowed_is_403`, `five_failed_claims_a_minute_and_then_500` |
//! | bounds | `of_10_000_unclaimed_sockets_the_oldest_go`, `one_address_pushes_out_its_own_sockets_and_nobody_elses`, `of_early_claims_the_oldest_goes_with_500` |

#![cfg(feature = "xmpp")]

mod claims;
mod ends;
mod initiator;
mod iqs;
mod limits;
mod matching;
mod meaning;
mod proxy;
mod random;
mod target;
mod together;
mod world;

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../common/driver.rs"]
mod driver;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../common/harness.rs"]
mod harness;

use std::net::SocketAddr;

use rendezvous_core::bytestream::name::{IqId, Jid, StreamId};
use rendezvous_core::bytestream::proxy::{Config, Proxy};
use rendezvous_core::bytestream::stanza::{Condition, Query, Stanza};
use rendezvous_core::event::{Event, ProxyEvent};
use rendezvous_core::machine::{Close, ConnId, Listener, Machine, Output};

use harness::{Done, Harness, asked};

const TARGET: &str = "target@example.org/home";
const INITIATOR: &str = "initiator@example.net/work";
const THIRD: &str = "third@example.com/x";

fn jid(text: &str) -> Jid {
    Jid::new(text).expect("a JID")
}

fn sid(text: &str) -> StreamId {
    StreamId::new(text).expect("a stream id")
}

fn iq(text: &str) -> IqId {
    IqId::new(text).expect("an id")
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn stanza(peer: &str, id: &str, query: Query) -> Stanza {
    Stanza { peer: jid(peer), id: iq(id), query }
}

fn claim(stream: &str, endpoint: &str) -> Query {
    Query::Claim { sid: Some(sid(stream)), endpoint: Some(at(endpoint)) }
}

fn error(peer: &str, id: &str, condition: Condition) -> Stanza {
    stanza(peer, id, Query::Error(condition))
}

fn clear(peer: &str, id: &str) -> Stanza {
    stanza(peer, id, Query::CLEAR)
}

/// The proxy listens on 10.0.0.1:4000.
fn config() -> Config {
    let mut config = Config::new(jid(ends::PROXY));
    config.rules.listeners = vec![at("10.0.0.1:4000")];
    config
}

fn proxy() -> Harness<Proxy> {
    Harness::new(Proxy::new(config()))
}

fn proxy_with(change: impl FnOnce(&mut Config)) -> Harness<Proxy> {
    let mut config = config();
    change(&mut config);
    Harness::new(Proxy::new(config))
}

impl Harness<Proxy> {
    fn accept(&mut self, from: &str) -> ConnId {
        self.call(|proxy, now| proxy.handle_open(Listener(0), at(from), now))
    }

    fn deliver(&mut self, stanza: Stanza) {
        self.call(|proxy, now| proxy.handle_stanza(stanza, now));
    }

    /// The stanzas of the proxy since the last call.
    fn sent_stanzas(&mut self) -> Vec<Stanza> {
        std::iter::from_fn(|| self.machine.poll_stanza()).collect()
    }

    fn events(&mut self) -> Vec<ProxyEvent> {
        let events = std::mem::take(&mut self.xmpp_events).into_iter();
        events
            .filter_map(|event| match event {
                Event::StreamProxy(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    /// A claim from this JID, with this id, on the stream `s`.
    fn claims(&mut self, who: &str, id: &str, endpoint: &str) {
        self.deliver(stanza(who, id, claim("s", endpoint)));
    }

    /// The target's socket, claimed.
    fn claimed(&mut self) -> ConnId {
        let on = self.accept("10.0.0.2:1001");
        self.claims(TARGET, "t", "10.0.0.1:1001");
        assert_eq!(self.machine.claimed(), 1);
        on
    }

    /// Both sockets, joined and answered.
    fn paired(&mut self) -> (ConnId, ConnId) {
        let first = self.claimed();
        let second = self.accept("10.0.0.3:1002");
        self.claims(INITIATOR, "i", "10.0.0.1:1002");
        assert_eq!(self.sent_stanzas(), [clear(TARGET, "t"), clear(INITIATOR, "i")]);
        assert_eq!(self.machine.pairs(), 1);
        self.actions();
        self.events();
        (first, second)
    }

    #[track_caller]
    fn assert_closed(&mut self, on: ConnId, how: Close) {
        let actions = self.actions();
        assert!(asked(&actions, Output::Close { on, how }), "{actions:?}");
    }

    #[track_caller]
    fn assert_not_closed(&mut self) {
        let actions = self.actions();
        assert!(!actions.iter().any(|did| matches!(did, Done::Asked(Output::Close { .. }))), "{actions:?}");
    }
}

#[test]
fn the_table_of_rows_names_tests_that_there_are() {
    let tests = [
        include_str!("initiator.rs"),
        include_str!("target.rs"),
        include_str!("proxy.rs"),
        include_str!("limits.rs"),
        include_str!("together.rs"),
    ]
    .concat();
    let table = include_str!("main.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let rows: Vec<_> = table.filter_map(|row| row.split_once(" | `")).map(|(_, names)| names).collect();
    let names = rows.iter().flat_map(|names| names.split('`')).filter(|name| name.contains('_'));
    let mut count = 0;
    for name in names {
        assert!(tests.contains(&format!("#[test]\nfn {name}()")), "no test {name}");
        count += 1;
    }
    assert!(count > 70, "{count} names");
}
