//! The corpus with its bytes cut: they are offered byte by byte, as a driver would offer them.

use std::collections::{BTreeMap, BTreeSet};

use rendezvous_core::machine::ConnId;
use rendezvous_core::trace::{Action, Bytes, Input, Replayer, Trace};

use crate::each_case;

/// The one verdict that depends on how bytes are cut.
const CUT_DIFFERS: &str = "bytes-behind-a-connect-get-409";

#[test]
fn cuts_at_every_byte_make_no_difference() {
    each_case(|name, _, trace| if name == CUT_DIFFERS { Ok(()) } else { cut(trace) });
}

fn cut(trace: &Trace) -> Result<(), String> {
    let start = trace.steps[0].now;
    let (mut whole, expected) = Replayer::start(trace, start);
    let (mut replayer, got) = Replayer::start(trace, start);
    assert_eq!(expected, got);
    let mut shell = Shell::default();
    for step in &trace.steps[1..] {
        let expected = whole.apply(&step.event, step.now)?;
        let got = match step.event {
            Input::In { on, .. } => {
                let bytes = trace.bytes(step);
                let mut all = Vec::new();
                let mut used = 0;
                for end in shell.ends(on, &bytes).map_err(|why| format!("{}: {why}", step.line))? {
                    if shell.is_gated(on) {
                        // The follower's own test covers cuts of requests and responses. A driver offers what is there.
                        let event = Input::In { on, bytes: Bytes::literal(&bytes[used..]) };
                        let actions = replayer.apply(&event, step.now)?;
                        shell.look(&actions);
                        if actions.iter().any(|action| action.text.starts_with("pass ")) {
                            used = bytes.len();
                        }
                        all.extend(actions);
                        break;
                    }
                    if shell.ignores_input(on) {
                        break;
                    }
                    let event = Input::In { on, bytes: Bytes::literal(&bytes[used..end]) };
                    let actions = replayer.apply(&event, step.now)?;
                    shell.look(&actions);
                    used += took(&actions);
                    all.extend(actions);
                }
                shell.kept.insert(on, bytes[used..].to_vec());
                joined(all)
            }
            _ => {
                if let Input::Secured { on, .. } = step.event {
                    shell.secured(on);
                }
                let actions = replayer.apply(&step.event, step.now)?;
                shell.look(&actions);
                actions
            }
        };
        if got != expected {
            return Err(format!("{}: whole {expected:?}, cut {got:?}", step.line));
        }
    }
    Ok(())
}

/// The state of the driver of an event loop.
#[derive(Default)]
pub(crate) struct Shell {
    /// Bytes that were offered and not consumed.
    kept: BTreeMap<ConnId, Vec<u8>>,
    /// Whether the machine has asked for no more bytes of a connection, by the text of its id.
    deaf: BTreeMap<String, bool>,
    /// Halves of pairs whose bytes are offered before they move.
    gated: BTreeSet<String>,
}

impl Shell {
    /// Up to where the bytes are offered each time: from those that were there before to all of them.
    fn ends(&self, on: ConnId, bytes: &[u8]) -> Result<Vec<usize>, String> {
        let kept = self.kept.get(&on).map_or(&[][..], Vec::as_slice);
        if !bytes.starts_with(kept) {
            return Err(format!("{} bytes were left over, and are not offered again", kept.len()));
        }
        let first = kept.len().max(1);
        let again = (kept.len() == bytes.len()).then_some(bytes.len());
        Ok(if again.is_some() { again.into_iter().collect() } else { (first..=bytes.len()).collect() })
    }

    pub(crate) fn ignores_input(&self, on: ConnId) -> bool {
        self.deaf.get(&format!("{}.{}", on.index, on.generation)).copied().unwrap_or(false)
    }

    fn is_gated(&self, on: ConnId) -> bool {
        self.gated.contains(&format!("{}.{}", on.index, on.generation))
    }

    /// Bytes left over before the handshake belonged to TLS.
    fn secured(&mut self, on: ConnId) {
        self.kept.remove(&on);
        self.deaf.remove(&format!("{}.{}", on.index, on.generation));
    }

    pub(crate) fn look(&mut self, actions: &[Action]) {
        for action in actions {
            let words: Vec<&str> = action.text.split(' ').collect();
            match words[..] {
                ["gate", on] => {
                    self.gated.insert(on.to_owned());
                }
                ["read", on, "on"] => {
                    self.gated.remove(on);
                    self.deaf.insert(on.to_owned(), false);
                }
                ["read", on, "off"] | ["close", on, _] | ["start-tls", on, ..] => {
                    self.deaf.insert(on.to_owned(), true);
                }
                ["pair", a, b] => {
                    self.deaf.insert(a.to_owned(), true);
                    self.deaf.insert(b.to_owned(), true);
                }
                _ => {}
            }
        }
    }
}

pub(crate) fn took(actions: &[Action]) -> usize {
    let counts = actions.iter().filter_map(|action| action.text.strip_prefix("took "));
    counts.map(|count| count.parse::<usize>().expect("a number")).sum()
}

/// Joins the actions of all the pieces, as they would be for the whole.
pub(crate) fn joined(actions: Vec<Action>) -> Vec<Action> {
    let used = took(&actions);
    let took = (used > 0).then(|| Action { text: format!("took {used}"), bytes: Vec::new() });
    let others = actions.into_iter().filter(|action| !action.text.starts_with("took "));
    took.into_iter().chain(others).collect()
}
