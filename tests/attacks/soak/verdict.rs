//! Whether resources grow.

/// A measurement of the relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Seconds since all connections were there.
    pub(crate) second: u64,
    /// Descriptors beyond the load's own connections.
    pub(crate) descriptors: i64,
    /// Resident memory, in KiB.
    pub(crate) resident: i64,
}

/// Allowed growth between a sixth of the time and its end: momentary connections, and one part in fifty of the memory
/// and 2 MiB, for the tokens of the last minutes and momentary load.
const DESCRIPTORS: i64 = 64;
const RESIDENT_PART: i64 = 50;
const RESIDENT: i64 = 2048;

/// What grew between a sixth of the time and its end: medians over a twelfth each.
pub(crate) fn growth(looks: &[Look], seconds: u64) -> Vec<String> {
    let early = medians(looks, seconds / 6, seconds / 4);
    let late = medians(looks, seconds - seconds / 12, seconds);
    let (Some(early), Some(late)) = (early, late) else {
        return vec!["too few looks to judge growth by".to_owned()];
    };
    println!("soak: after a sixth of the time: {} descriptors, {} KiB", early.0, early.1);
    println!("soak: at the end:                {} descriptors, {} KiB", late.0, late.1);
    let mut grew = Vec::new();
    if late.0 > early.0 + DESCRIPTORS {
        grew.push(format!("descriptors grew from {} to {}", early.0, late.0));
    }
    if late.1 > early.1 + early.1 / RESIDENT_PART + RESIDENT {
        grew.push(format!("memory grew from {} to {} KiB", early.1, late.1));
    }
    grew
}

/// The medians of descriptors and memory in a part of the time.
fn medians(looks: &[Look], from: u64, to: u64) -> Option<(i64, i64)> {
    let within = || looks.iter().filter(|look| (from..=to).contains(&look.second));
    Some((
        median(within().map(|look| look.descriptors).collect())?,
        median(within().map(|look| look.resident).collect())?,
    ))
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
