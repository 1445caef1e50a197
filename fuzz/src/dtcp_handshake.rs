//! One connection of DTCP, from either end, with arbitrary input in arbitrary pieces.

use rendezvous_core::dtcp::Key;
use rendezvous_core::dtcp::handshake::{Dialled, Dialling, ERRORS_MAX, Served, Serving, Step, Tls, Verdict};

/// The first byte selects the side; the others are the peer's input.
pub(crate) fn run(bytes: &[u8]) {
    let Some((how, said)) = bytes.split_first() else { return };
    let tls = [Tls::Off, Tls::Prefer, Tls::Require][usize::from(how % 3)];
    let judge = usize::from(how / 3);
    let cuts = [said.len().max(1), 1, 5];
    let served = cuts.map(|cut| serve(tls, judge, said, cut));
    let dialled = cuts.map(|cut| dial(tls, said, cut));
    for at in 1..cuts.len() {
        assert_eq!(served[at], served[0], "served in pieces of {}", cuts[at]);
        assert_eq!(dialled[at], dialled[0], "dialled in pieces of {}", cuts[at]);
    }
}

/// The actions of the handshake.
#[derive(Clone, Debug, PartialEq)]
enum Act {
    StartTls,
    Judged(Vec<u8>),
    Accept,
    Acknowledged,
    Refuse,
    Dismiss,
    AskTls,
    ShowKey,
    Right,
    Failed,
}

/// All actions, and how many bytes were consumed by then.
fn serve(tls: Tls, judge: usize, said: &[u8], cut: usize) -> (Vec<Act>, usize) {
    let mut serving = Serving::new(tls);
    let (mut acts, mut used) = (Vec::new(), 0);
    let mut verdicts = 0;
    let mut is_over = false;
    let mut is_final = false;
    for end in ends(said.len(), cut) {
        loop {
            let Step { used: took, act } = serving.on_bytes(&said[used..end]);
            used += took;
            assert!(used <= end);
            assert!(!is_over || act == Served::Wait && took == 0, "it is over");
            let mut next = Some(act);
            while let Some(act) = next.take() {
                match act {
                    Served::Wait => {}
                    Served::StartTls => {
                        assert!(tls != Tls::Off && !serving.is_secure(), "TLS that nobody wants, or twice");
                        acts.push(Act::StartTls);
                        assert_eq!(serving.on_bytes(&said[used..end]), Step { used: 0, act: Served::Wait });
                        serving.on_tls_up();
                    }
                    Served::Judge(key) => {
                        assert!(!key.is_empty());
                        assert!(tls != Tls::Require || serving.is_secure(), "a key in clear");
                        acts.push(Act::Judged(key.to_vec()));
                        assert_eq!(serving.on_bytes(&said[used..end]), Step { used: 0, act: Served::Wait });
                        assert_eq!(serving.judge(Verdict::Later), Served::Wait);
                        let verdict = [Verdict::Wrong, Verdict::Tentative, Verdict::Commit, Verdict::UsedKey]
                            [(judge + verdicts) % 4];
                        verdicts += 1;
                        is_final = verdict == Verdict::Commit;
                        next = Some(serving.judge(verdict));
                    }
                    Served::Accept => {
                        acts.push(Act::Accept);
                        assert_eq!(serving.is_tentative(), !is_final);
                        is_over = is_final;
                    }
                    Served::Acknowledged => {
                        assert_eq!(acts.last(), Some(&Act::Accept), "an ack of nothing");
                        acts.push(Act::Acknowledged);
                        is_over = true;
                    }
                    Served::Refuse => acts.push(Act::Refuse),
                    Served::Dismiss => {
                        acts.push(Act::Dismiss);
                        is_over = true;
                    }
                }
            }
            if took == 0 {
                break;
            }
        }
    }
    let refused = acts.iter().filter(|act| **act == Act::Refuse).count();
    assert!(refused < usize::from(ERRORS_MAX), "more errors than are forgiven");
    (acts, used)
}

fn dial(tls: Tls, said: &[u8], cut: usize) -> (Vec<Act>, usize) {
    let mine = Key::new(b"mine").expect("a key");
    let mut dialling = Dialling::new(tls);
    let (mut acts, mut used) = (Vec::new(), 0);
    let mut is_over = false;
    let mut is_secure = false;
    event(&mut acts, dialling.on_connected());
    for end in ends(said.len(), cut) {
        loop {
            let Step { used: took, act } = dialling.on_bytes(&said[used..end], &mine);
            used += took;
            assert!(used <= end);
            assert!(!is_over || act == Dialled::Wait && took == 0, "it is over");
            event(&mut acts, act);
            match act {
                Dialled::StartTls => {
                    assert!(tls != Tls::Off && !is_secure);
                    is_secure = true;
                    assert_eq!(
                        dialling.on_bytes(&said[used..end], &mine),
                        Step { used: 0, act: Dialled::Wait }
                    );
                    event(&mut acts, dialling.on_tls_up());
                }
                Dialled::ShowKey => assert!(tls != Tls::Require, "a key in clear"),
                Dialled::Right => {
                    assert!(tls != Tls::Require || is_secure);
                    is_over = true;
                }
                Dialled::Failed => is_over = true,
                Dialled::Wait | Dialled::AskTls => {}
            }
            if took == 0 {
                break;
            }
        }
    }
    (acts, used)
}

fn event(acts: &mut Vec<Act>, act: Dialled) {
    acts.push(match act {
        Dialled::Wait => return,
        Dialled::AskTls => Act::AskTls,
        Dialled::StartTls => Act::StartTls,
        Dialled::ShowKey => Act::ShowKey,
        Dialled::Right => Act::Right,
        Dialled::Failed => Act::Failed,
    });
}

/// Where each piece ends.
fn ends(len: usize, cut: usize) -> impl Iterator<Item = usize> {
    (1..=len.div_ceil(cut)).map(move |piece| (piece * cut).min(len))
}
