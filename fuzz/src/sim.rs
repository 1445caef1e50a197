//! The event loops of relay, agents and connectors in the simulated world of the tests, whose models check them.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use rendezvous_core::time::{Span, Time};
use tests::actors::{Behaviour, Ending, Style};
use tests::plan::{Incident, Participant, Plan, id};
use tests::rng::Rng;
use tests::secured::Secured;

/// The number of participants and incidents: few, so that a run is short.
const HAPPENINGS_MAX: usize = 16;
/// The longest response of a run.
const BYTES_MAX: u64 = 64 << 10;
/// All participants have started by then.
const HOUR_MS: u16 = 60_000;

static SECURED: LazyLock<Secured> = LazyLock::new(Secured::new);

#[derive(Arbitrary, Debug)]
struct Setting {
    /// The seed of all randomness during the run.
    seed: u64,
    /// In 256ths: short receives and sends, no readiness, spurious, stale and late edges, no descriptor, reset before
    /// it is accepted.
    faults: [u8; 8],
    latency_ms: u8,
    /// Bytes in transit in one direction: 256 times two to the power of this.
    room: u8,
    waiting_max: u8,
    pairs_max: u8,
    held_max: u8,
    hold_ms: u16,
    buffers_kib: u16,
    bytes_max: u16,
    /// One bit for each ending.
    endings: u8,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Client { id: u8, at: u16, behaviour: u64, challenged: bool, method: u8 },
    Program { id: u8, at: u16, behaviour: u64 },
    Hidden { id: u8, style: u8, seed: u64 },
    Agent { id: u8, seed: u8, pool: u8, skew: i16, named: bool },
    Scanner { at: u16, seed: u64 },
    Clock { at: u16, seconds: i16 },
    Descriptors { at: u16, most: u8 },
    Revoked { at: u16, id: u8 },
    Killed { at: u16 },
}

pub(crate) fn run(bytes: &[u8]) {
    let mut unstructured = Unstructured::new(bytes);
    let Ok(setting) = Setting::arbitrary(&mut unstructured) else { return };
    let mut plan = setting.plan();
    for _ in 0..HAPPENINGS_MAX {
        if unstructured.is_empty() {
            break;
        }
        let Ok(happening) = Step::arbitrary(&mut unstructured) else { break };
        happening.add_to(&mut plan);
    }
    plan.incidents.sort_by_key(|(at, _)| *at);
    // Without TLS: key exchange has its own entropy, so the same choices would not give the same run.
    if let Err(failure) = plan.run(false, &SECURED) {
        panic!("{}\n{plan:#?}", failure.why);
    }
}

impl Setting {
    /// Everything that is not chosen here is drawn from the seed.
    fn plan(&self) -> Plan {
        let mut plan = Plan::draw(self.seed, false);
        (plan.participants, plan.incidents) = (Vec::new(), Vec::new());
        let faults = &mut plan.faults;
        let [short_recv, short_send, would_block, spurious, stale, late, no_descriptor, aborted] =
            self.faults;
        for (rate, chosen, most) in [
            (&mut faults.short_recv, short_recv, 500),
            (&mut faults.short_send, short_send, 500),
            (&mut faults.would_block, would_block, 100),
            (&mut faults.spurious, spurious, 200),
            (&mut faults.stale, stale, 500),
            (&mut faults.late, late, 500),
            (&mut faults.no_descriptor, no_descriptor, 300),
            (&mut faults.aborted, aborted, 1_000),
        ] {
            *rate = u32::from(chosen) * most / 255;
        }
        faults.latency_max = Span::from_millis(u64::from(self.latency_ms));
        faults.room_max = 256 << (self.room % 11);
        plan.bytes_max = u64::from(self.bytes_max).min(faults.room_max as u64 * 64).clamp(1, BYTES_MAX);
        plan.waiting_max = 1 + u32::from(self.waiting_max % 8);
        plan.pairs_max = 1 + u32::from(self.pairs_max % 30);
        plan.held_max = u32::from(self.held_max % 11);
        plan.hold = Span::from_millis(u64::from(self.hold_ms % 8_000));
        plan.ceiling = 400_000 + (usize::from(self.buffers_kib) << 10) % (8 << 20);
        let endings = [Ending::AfterPeer, Ending::Close, Ending::Reset, Ending::Lost, Ending::Cut];
        plan.endings = vec![Ending::HalfClose];
        plan.endings
            .extend((0..).zip(endings).filter(|(bit, _)| self.endings >> bit & 1 == 1).map(|it| it.1));
        plan
    }
}

impl Step {
    fn add_to(&self, plan: &mut Plan) {
        let id = |number: u8| id(u64::from(number % 3));
        let moment = |ms: u16| Time(1_000_000 + u64::from(ms % HOUR_MS) * 1_000);
        let behaviour = |seed: u64| Behaviour::draw(&mut Rng::new(seed), plan.bytes_max, &plan.endings);
        let person = match *self {
            Self::Client { id: of, at, behaviour: seed, challenged, method } => Participant::Client {
                id: id(of),
                begins: moment(at),
                behaviour: behaviour(seed),
                challenged,
                method: ["GET", "HEAD", "OPTIONS", "PATCH"][usize::from(method % 4)],
            },
            Self::Program { id: of, at, behaviour: seed } => {
                Participant::Program { id: id(of), begins: moment(at), behaviour: behaviour(seed) }
            }
            Self::Hidden { id: of, style, seed } => {
                let pool = usize::from(1 + style / 4 % 4);
                let styles = [Style::Modern { pool }, Style::Old, Style::EarlySender, Style::Fickle];
                Participant::Hidden { id: id(of), style: styles[usize::from(style % 4)], seed }
            }
            Self::Agent { id: of, seed, pool, skew, named } => Participant::Agent {
                id: id(of),
                seed,
                pool: u16::from(1 + pool % 4),
                skew: skew.into(),
                named,
            },
            Self::Scanner { at, seed } => Participant::Scanner { begins: moment(at), seed },
            Self::Clock { at, seconds } => {
                return plan.incidents.push((moment(at), Incident::Clock(seconds.into())));
            }
            Self::Descriptors { at, most } => {
                return plan.incidents.push((moment(at), Incident::Descriptors(u32::from(1 + most % 16))));
            }
            Self::Revoked { at, id: of } => {
                return plan.incidents.push((moment(at), Incident::Revoked(id(of))));
            }
            Self::Killed { at } => return plan.incidents.push((moment(at), Incident::Killed)),
        };
        plan.participants.push(person);
    }
}
