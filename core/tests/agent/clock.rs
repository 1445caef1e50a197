//! Tokens by the relay's time.

use super::*;

#[test]
fn a_refusal_from_another_time_sets_the_clock_right_and_the_next_try_is_at_once() {
    for theirs in [WALL - 7_200, WALL + 86_400] {
        let mut rig = agent();
        let (on, _) = one(&rig.news());
        refuse(&mut rig, on, &dated("401 Unauthorized", theirs));
        let news = rig.news();
        let seconds = theirs.cast_signed() - WALL.cast_signed();
        assert!(notes(&news).contains(&Note::ClockAdopted { upstream: 0, seconds }));
        let (on, _) = one(&news);
        rig.tell(|agent, now| agent.handle_connected(on, now));
        let text = sent(&rig.news(), on);
        assert!(is_valid(&text, theirs) && !is_valid(&text, WALL));
        rig.hears(on, OK);
        assert_eq!(rig.machine.waiting(0), 1);
    }
}

#[test]
fn a_relay_that_refuses_at_every_time_of_its_own_is_not_stormed() {
    let mut rig = agent();
    let mut theirs = WALL;
    let (on, _) = one(&rig.news());
    theirs += 1_000;
    refuse(&mut rig, on, &dated("401 Unauthorized", theirs));
    let (on, _) = one(&rig.news());
    theirs += 1_000;
    refuse(&mut rig, on, &dated("401 Unauthorized", theirs));
    assert!(dials(&rig.news()).is_empty());
    assert!(rig.wait_for_deadline() >= Span::from_secs(4));
}

#[test]
fn a_refusal_from_our_own_time_changes_nothing() {
    let mut rig = agent();
    let (on, _) = one(&rig.news());
    refuse(&mut rig, on, &dated("401 Unauthorized", WALL + 30));
    let notes = notes(&rig.news());
    let [Note::RelayLost { why: RelayLoss::Refused(401), again, .. }] = notes[..] else {
        panic!("{notes:?}");
    };
    assert!(again >= Span::from_secs(4), "{again:?}");
}
