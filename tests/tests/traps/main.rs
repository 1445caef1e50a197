//! The traps of edge-triggered loops (docs/design.md §5), each as a case in the simulated world, where the kernel's part can
//! be forced. The model checks the invariants; the tests here ensure that the case occurs.
//!
//! Each has a test on real sockets too (`server/tests/event_loop/`):
//!
//! | trap | here | real sockets |
//! |---|---|---|
//! | a read that stops early gives no further edge | `a_turn_that_stops_early_continues_without_another_edge` | `bulk::twenty_megabytes_cross_both_ways_at_once_*` |
//! | room in a destination makes no edge of its source | `room_in_a_destination_resumes_its_source` | `pressure::a_slow_reader_blocks_its_own_pair_alone_and_gets_everything_in_the_end` |
//! | a listener is silent after EMFILE | `a_listener_without_descriptors_is_tried_again_when_there_are_some` | `traps::a_listener_that_had_no_descriptor_accepts_when_there_is_one_and_nobody_knocks`, `pressure::a_listener_that_ran_out_of_descriptors_accepts_again_when_nobody_knocks` |
//! | ECONNABORTED, and connections that are reset in the backlog | `connections_reset_in_the_backlog_do_not_block_later_ones` | `traps::who_is_gone_from_the_backlog_stops_nobody_behind_him` |
//! | a hang-up comes with unread bytes | `bytes_before_a_hang_up_are_read` | `traps::octets_that_a_hang_up_is_told_with_arrive` |
//! | bytes before a reset are still readable | `bytes_before_a_reset_arrive_and_the_reset_is_not_a_clean_end` | `traps::octets_that_a_reset_is_behind_arrive_and_are_no_clean_end` |
//! | the first write after a peer's close succeeds | `writing_to_a_closed_peer_loses_none_of_its_bytes` | `traps::writing_to_who_has_closed_costs_not_an_octet_of_what_he_sent` |
//! | bytes accepted by the kernel are not delivered yet | `our_reset_comes_after_bytes_accepted_by_the_kernel` | `ends::what_is_queued_for_a_slow_reader_is_delivered_before_it_sees_that_its_peer_was_cut` |
//! | bytes in user space have no event | `buffered_tls_records_count_as_readiness` | `pressure::pairs_take_turns_with_the_last_of_the_memory` |
//! | one fast peer starves the others | `a_fast_pair_does_not_delay_others` | `pressure::a_fast_pair_starves_no_interactive_one` |
//! | one slow reader stops the thread | `slow_readers_delay_no_others`, `all_complete_with_few_buffers` | `pressure::a_slow_reader_blocks_its_own_pair_alone_and_gets_everything_in_the_end` |
//! | bytes after a request belong to the stream | `bytes_after_a_request_follow_it_however_it_is_cut` | `hand_over::octets_behind_the_head_follow_it` |
//! | bytes after a CONNECT: the verdict depends on the cut | `bytes_after_a_connect_are_judged_by_how_they_are_cut` | `traps::octets_behind_a_connect_are_judged_by_how_they_are_cut`, `requests::octets_behind_a_registration_are_a_conflict` |
//! | polls return early, late or spuriously, and round up | `early_late_and_spurious_polls_hardly_move_deadlines` | `traps::a_deadline_between_two_milliseconds_is_no_reason_to_spin` |
//! | an event of a closed socket (docs/design.md §1.6) | `events_of_closed_sockets_reach_nobody` | `bulk::octets_cross_unharmed_one_by_one`, which gets edges of closed connections |
//!
//! The tests of DTCP cover bytes after a `starttls` line.

mod cuts;
mod ends;
mod listeners;
mod turns;

use std::cell::RefCell;
use std::rc::Rc;

use rendezvous_core::engine::{Config, Transport};
use rendezvous_core::time::{Span, Time};
use tests::actors::{Behaviour, Client, Ending, Hidden, Style};
use tests::model::ByteLedger;
use tests::plan::id;
use tests::rng::Rng;
use tests::run::{Run, SIZES, relay_address};
use tests::secured::Secured;
use tests::sim_net::Faults;

const CALM: Faults = Faults {
    short_recv: 0,
    short_send: 0,
    would_block: 0,
    spurious: 0,
    stale: 0,
    late: 0,
    no_descriptor: 0,
    aborted: 0,
    latency_min: Span::ZERO,
    latency_max: Span(1_000),
    room_max: 1 << 20,
};

/// A relay, and a hidden server that answers at most this many bytes and ends like this.
fn scene(seed: u64, faults: Faults, bytes: u64, ending: Ending, secured: Option<&Secured>) -> Run {
    let hidden = Hidden::new(relay_address(), id(0), Style::Modern { pool: 2 }, Rng::new(seed));
    scene_with(hidden.answering(bytes, &[ending]), seed, faults, secured)
}

/// A relay and this hidden server.
fn scene_with(hidden: Hidden, seed: u64, faults: Faults, secured: Option<&Secured>) -> Run {
    let mut run = Run::new(seed, faults);
    let tls = secured.is_some();
    let transport = if tls { Transport::Tls } else { Transport::Plain };
    let config = Config { listeners: vec![transport], ..Config::default() };
    let made;
    let setup = match secured {
        Some(secured) => secured,
        None => {
            made = Secured::new();
            &made
        }
    };
    run.start_relay(config, SIZES, setup.server(tls), &[id(0)]);
    run.add(hidden.secured(setup.client(tls)), None);
    run.wait(Span::from_secs(1));
    run
}

fn client(run: &mut Run, behaviour: Behaviour, secured: Option<&Secured>) -> Rc<RefCell<Client>> {
    let tls = secured.and_then(|secured| secured.client(true));
    let client = Client::new(relay_address(), id(0), run.now(), behaviour).secured(tls);
    let client = Rc::new(RefCell::new(client));
    run.add(Rc::clone(&client), None);
    client
}

/// A relay, and a hidden server that sends this many bytes and reads as fast as it can.
fn fast_scene(seed: u64, faults: Faults, bytes: u64) -> Run {
    let hidden = Hidden::new(relay_address(), id(0), Style::Modern { pool: 4 }, Rng::new(seed));
    scene_with(hidden.holding(Behaviour::plain(bytes)), seed, faults, None)
}

fn finish(mut run: Run) -> ByteLedger {
    run.leave();
    run.wait(Span::from_secs(120));
    run.check_empty();
    run.ledger
}

fn in_seconds(run: &Run, seconds: u64) -> Time {
    run.now() + Span::from_secs(seconds)
}
