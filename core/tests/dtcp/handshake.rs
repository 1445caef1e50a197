//! The handshake on one connection, from either end.

use rendezvous_core::dtcp::Key;
use rendezvous_core::dtcp::handshake::{Dialled, Dialling, Served, Serving, Step, Tls, Verdict};

fn key() -> Key {
    Key::new(b"c7b5ea3f").unwrap()
}

/// A serving end that has read one line.
fn served<'a>(serving: &mut Serving, line: &'a [u8]) -> Served<'a> {
    let Step { used, act } = serving.on_bytes(line);
    assert_eq!(used, line.len(), "{:?}", line.escape_ascii().to_string());
    act
}

fn tentative() -> Serving {
    let mut serving = Serving::new(Tls::Prefer);
    assert_eq!(served(&mut serving, b"key:k\n"), Served::Judge(b"k"));
    assert_eq!(serving.judge(Verdict::Tentative), Served::Accept);
    serving
}

fn serving_in_tls(tls: Tls) -> Serving {
    let mut serving = Serving::new(tls);
    assert_eq!(served(&mut serving, b"starttls\n"), Served::StartTls);
    serving.on_tls_up();
    serving
}

/// A dialling end that has asked for TLS, or sent its key.
fn dialling(tls: Tls) -> Dialling {
    let mut dialling = Dialling::new(tls);
    let asked = if tls == Tls::Off { Dialled::ShowKey } else { Dialled::AskTls };
    assert_eq!(dialling.on_connected(), asked);
    dialling
}

fn answer(dialling: &mut Dialling, line: &[u8]) -> Dialled {
    dialling.on_bytes(line, &key()).act
}

#[test]
fn a_right_key_at_the_requestor_needs_no_ack() {
    let mut serving = Serving::new(Tls::Off);
    assert_eq!(served(&mut serving, b"key:k\n"), Served::Judge(b"k"));
    assert_eq!(serving.judge(Verdict::Commit), Served::Accept);
    assert_eq!(serving.on_bytes(b"ok\n"), Step { used: 0, act: Served::Wait });
}

#[test]
fn a_right_key_at_the_responder_needs_the_ack() {
    let mut serving = tentative();
    assert!(serving.is_tentative());
    assert_eq!(served(&mut serving, b"ok\n"), Served::Acknowledged);
    assert_eq!(serving.on_bytes(b"key:k\n"), Step { used: 0, act: Served::Wait });
}

#[test]
fn case_2_nothing_is_read_behind_a_key_until_it_is_judged() {
    let mut serving = Serving::new(Tls::Off);
    assert_eq!(serving.on_bytes(b"key:k\nstarttls\n"), Step { used: 6, act: Served::Judge(b"k") });
    assert_eq!(serving.on_bytes(b"starttls\n"), Step { used: 0, act: Served::Wait });
    assert_eq!(serving.judge(Verdict::Later), Served::Wait);
    assert_eq!(serving.on_bytes(b"starttls\n"), Step { used: 0, act: Served::Wait });
    assert_eq!(serving.judge(Verdict::Wrong), Served::Refuse);
    assert_eq!(served(&mut serving, b"starttls\n"), Served::Refuse);
}

#[test]
fn case_17_a_fourth_error_ends_the_connection() {
    let mut serving = Serving::new(Tls::Off);
    for line in [&b"key:wrong\n"[..], b"hello\n", b"ok\n"] {
        let act = match served(&mut serving, line) {
            Served::Judge(_) => serving.judge(Verdict::Wrong),
            act => act,
        };
        assert_eq!(act, Served::Refuse);
    }
    assert_eq!(served(&mut serving, b"\n"), Served::Dismiss);
    assert_eq!(serving.on_bytes(b"key:k\n"), Step { used: 0, act: Served::Wait });
}

#[test]
fn case_18_nonsense_is_an_error_and_the_connection_stays() {
    for line in [&b"\n"[..], b"key\n", b"key:\n", b"hello\n", b"ok\n", b"ok:k\n", b"error\n"] {
        let mut serving = Serving::new(Tls::Off);
        assert_eq!(served(&mut serving, line), Served::Refuse, "{:?}", line.escape_ascii().to_string());
        assert_eq!(served(&mut serving, b"key:k\n"), Served::Judge(b"k"));
    }
}

#[test]
fn case_19_a_line_too_long_ends_the_connection() {
    for mut serving in [Serving::new(Tls::Off), tentative()] {
        assert_eq!(serving.on_bytes(&[b'k'; 511]), Step { used: 0, act: Served::Wait });
        assert_eq!(serving.on_bytes(&[b'k'; 512]).act, Served::Dismiss);
    }
}

#[test]
fn case_22_an_argument_to_the_ack_is_no_ack() {
    let mut serving = tentative();
    assert_eq!(served(&mut serving, b"ok:k\n"), Served::Refuse);
    assert!(!serving.is_tentative());
    assert_eq!(served(&mut serving, b"ok\n"), Served::Refuse);
    assert_eq!(served(&mut tentative(), b"ok:\n"), Served::Acknowledged);
}

#[test]
fn case_26_bytes_behind_starttls_are_not_lines() {
    let mut serving = Serving::new(Tls::Prefer);
    assert_eq!(serving.on_bytes(b"starttls\nkey:k\n"), Step { used: 9, act: Served::StartTls });
    assert_eq!(serving.on_bytes(b"key:k\n"), Step { used: 0, act: Served::Wait });
    let mut dialling = dialling(Tls::Require);
    let injected = [&b"ok\n"[..], b"ok:c7b5ea3f\n"].concat();
    assert_eq!(dialling.on_bytes(&injected, &key()), Step { used: 3, act: Dialled::StartTls });
    assert_eq!(dialling.on_bytes(&injected[3..], &key()), Step { used: 0, act: Dialled::Wait });
    assert_eq!(dialling.on_tls_up(), Dialled::ShowKey);
}

#[test]
fn case_26_without_tls_starttls_is_an_error() {
    let mut serving = Serving::new(Tls::Off);
    assert_eq!(served(&mut serving, b"starttls\n"), Served::Refuse);
    assert_eq!(served(&mut serving, b"key:k\n"), Served::Judge(b"k"));
}

#[test]
fn case_27_starttls_inside_of_tls_is_an_error() {
    let mut serving = serving_in_tls(Tls::Prefer);
    assert!(serving.is_secure());
    assert_eq!(served(&mut serving, b"starttls\n"), Served::Refuse);
    assert_eq!(served(&mut serving, b"key:k\n"), Served::Judge(b"k"));
}

#[test]
fn case_28_who_prefers_tls_goes_on_in_clear_and_who_requires_it_does_not() {
    for line in [&b"error\n"[..], b"error:bad input\n"] {
        assert_eq!(answer(&mut dialling(Tls::Require), line), Dialled::Failed);
        let mut prefers = dialling(Tls::Prefer);
        assert_eq!(answer(&mut prefers, line), Dialled::ShowKey);
        assert_eq!(answer(&mut prefers, b"ok:c7b5ea3f\n"), Dialled::Right);
    }
}

#[test]
fn case_29_where_tls_is_required_no_key_is_judged_in_clear() {
    let mut serving = Serving::new(Tls::Require);
    assert_eq!(served(&mut serving, b"key:k\n"), Served::Refuse);
    assert_eq!(served(&mut serving, b"starttls\n"), Served::StartTls);
    serving.on_tls_up();
    assert_eq!(served(&mut serving, b"key:k\n"), Served::Judge(b"k"));
    // If TLS is not required, a key in clear is equivalent.
    assert_eq!(served(&mut Serving::new(Tls::Prefer), b"key:k\n"), Served::Judge(b"k"));
}

#[test]
fn case_30_anything_but_the_ack_ends_the_tentative_state() {
    for line in [&b"starttls\n"[..], b"key:k\n", b"error\n", b"hello\n", b"\n"] {
        let mut serving = tentative();
        assert_eq!(served(&mut serving, line), Served::Refuse);
        assert!(!serving.is_tentative());
        assert_eq!(served(&mut serving, b"ok\n"), Served::Refuse);
        assert_eq!(served(&mut serving, b"key:k\n"), Served::Judge(b"k"));
    }
}

#[test]
fn case_31_any_other_answer_fails_the_connection() {
    for line in [
        &b"ok\n"[..],
        b"ok:wrong\n",
        b"ok:c7b5ea3\n",
        b"ok:c7b5ea3f0\n",
        b"error\n",
        b"key:c7b5ea3f\n",
        b"\n",
    ] {
        let mut dialling = dialling(Tls::Off);
        assert_eq!(answer(&mut dialling, line), Dialled::Failed, "{:?}", line.escape_ascii().to_string());
        assert_eq!(dialling.on_bytes(b"ok:c7b5ea3f\n", &key()), Step { used: 0, act: Dialled::Wait });
    }
    for line in [&b"ok:c7b5ea3f\n"[..], b"starttls\n", b"hello\n"] {
        assert_eq!(answer(&mut dialling(Tls::Prefer), line), Dialled::Failed);
    }
    assert_eq!(answer(&mut dialling(Tls::Off), &[b'x'; 512]), Dialled::Failed);
}

#[test]
fn case_32_bytes_before_anything_was_asked_fail_the_connection() {
    let mut fresh = Dialling::new(Tls::Off);
    assert_eq!(fresh.on_bytes(b"", &key()).act, Dialled::Wait);
    assert_eq!(fresh.on_bytes(b"o", &key()).act, Dialled::Failed);
}

#[test]
fn case_25_bytes_behind_the_right_answer_stay() {
    let answered = b"ok:c7b5ea3f\nerror\n";
    assert_eq!(dialling(Tls::Off).on_bytes(answered, &key()), Step { used: 12, act: Dialled::Right });
}
