//! The corpus, replayed unchanged.

use rendezvous_core::time::{Now, Span};
use rendezvous_core::trace::{Bytes, Input, Replay, Replayer, Setup, Trace};

use crate::cut::{Shell, joined, took};
use crate::{cases, each_case};

#[test]
fn every_case_replays_to_its_actions() {
    each_case(|_, _, trace| match Replay::new(trace).find_map(|played| played.difference()) {
        Some(it) => Err(format!("{}: expected {:?}, got {:?}", it.line, it.expected, it.got)),
        None => Ok(()),
    });
}

#[test]
fn every_case_has_a_description_and_a_source() {
    each_case(|_, text, _| {
        let comment: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        if comment.is_empty() { Err("1: no comment on top".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn a_case_that_is_written_parses_to_the_same() {
    each_case(|_, _, trace| {
        let written = trace.to_string();
        match Trace::parse(&written) {
            Ok(again) if again == *trace && again.to_string() == written => Ok(()),
            Ok(_) => Err(format!(" another one:\n{written}")),
            Err(error) => Err(format!(" as written out: {error}")),
        }
    });
}

/// A machine that acts at a deadline does not act a microsecond earlier.
#[test]
fn deadlines_are_exact() {
    each_case(|_, _, trace| {
        for (place, step) in trace.steps.iter().enumerate() {
            if step.event != Input::Timeout || step.outcomes.is_empty() {
                continue;
            }
            let mut replayer = before(trace, place)?;
            let early = Now { mono: step.now.mono - Span(1), ..step.now };
            if early.mono < trace.steps[place - 1].now.mono {
                continue;
            }
            let actions = replayer.apply(&Input::Timeout, early)?;
            if !actions.is_empty() {
                return Err(format!("{}: a microsecond earlier: {actions:?}", step.line));
            }
        }
        Ok(())
    });
}

/// With any line missing, the result is a trace or an error, and a run or an error, never a panic.
#[test]
fn a_case_with_a_missing_line_causes_no_panic() {
    each_case(|_, text, _| {
        let lines: Vec<&str> = text.lines().collect();
        for missing in 0..lines.len() {
            let rest: Vec<&str> =
                lines.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, line)| *line).collect();
            if let Ok(trace) = Trace::parse(&rest.join("\n")) {
                // For example an agent gets addresses that it did not ask for: each such input is refused.
                Replay::new(&trace).for_each(|played| drop(played.difference()));
            }
        }
        Ok(())
    });
}

/// With more bytes after the offered ones, a relay's verdict is the same, except for a CONNECT, which gets 409.
#[test]
fn trailing_bytes_change_no_verdict_but_409() {
    const TRAILING: &[u8] = b"GET";
    each_case(|_, _, trace| {
        if let Setup::Agent { .. } = trace.setup {
            return Ok(());
        }
        for (place, step) in trace.steps.iter().enumerate() {
            let Input::In { on, .. } = step.event else { continue };
            let bytes = trace.bytes(step);
            let expected = before(trace, place)?.apply(&step.event, step.now)?;
            let is_unfinished = expected.iter().all(|action| action.text.starts_with("took "));
            // More bytes of a pair may be passed.
            let is_gated = expected.first().is_some_and(|action| action.text.starts_with("pass "));
            // All that follows a ClientHello is the raw client's own.
            let is_raw = bytes.first() == Some(&22);
            if is_unfinished || is_gated || is_raw {
                continue;
            }
            let more = [&bytes, TRAILING].concat();
            let event = Input::In { on, bytes: Bytes::literal(&more) };
            let got = before(trace, place)?.apply(&event, step.now)?;
            let is_conflict = bytes.starts_with(b"CONNECT ")
                && got.iter().any(|action| action.bytes.starts_with(b"HTTP/1.1 409 "));
            if got != expected && !is_conflict {
                return Err(format!("{}: with trailing bytes: {got:?}", step.line));
            }
        }
        Ok(())
    });
}

/// An agent reads on after an answer: more bytes act as if they came a moment later. If bytes are not to be offered
/// then, they do not act.
#[test]
fn trailing_bytes_at_an_agent_act_as_if_they_came_later() {
    const TRAILING: &[u8] = b"HEAD / HTTP/1.1\r\nHost: relay.example\r\n\r\n";
    let mut steps = 0;
    for (name, _, trace) in &cases() {
        let Setup::Agent { .. } = trace.setup else { continue };
        for (place, step) in trace.steps.iter().enumerate() {
            let Input::In { on, .. } = step.event else { continue };
            let bytes = [&*trace.bytes(step), TRAILING].concat();
            let offer = |replayer: &mut Replayer<'_>, bytes: &[u8]| {
                let event = Input::In { on, bytes: Bytes::literal(bytes) };
                replayer
                    .apply(&event, step.now)
                    .unwrap_or_else(|why| panic!("{name}.trace:{}: {why}", step.line))
            };
            let together = offer(&mut before(trace, place).expect("it can happen"), &bytes);

            let mut replayer = before(trace, place).expect("it can happen");
            let mut apart = replayer.apply(&step.event, step.now).expect("it can happen");
            let mut shell = Shell::default();
            shell.look(&apart);
            if !shell.ignores_input(on) {
                let more = offer(&mut replayer, &bytes[took(&apart)..]);
                apart.extend(more);
            }
            assert_eq!(joined(together), joined(apart), "{name}.trace:{}: with trailing bytes", step.line);
            steps += 1;
        }
    }
    assert!(steps > 30, "{steps} steps of agents");
}

/// The machine before the step at this place.
fn before(trace: &Trace, place: usize) -> Result<Replayer<'_>, String> {
    let (mut replayer, _) = Replayer::start(trace, trace.steps[0].now);
    for step in &trace.steps[1..place] {
        replayer.apply(&step.event, step.now)?;
    }
    Ok(replayer)
}
