//! Bounded costs, and hidden secrets.

use super::*;

#[test]
fn a_stanza_that_is_too_much_costs_itself_and_not_the_connection() {
    let mut stage = Stage::new();
    let on = stage.up(1);
    let deep = format!(
        "<iq type='set' from='a@b/c' to='proxy.localhost' id='1'>{}{}</iq>",
        "<q>".repeat(40),
        "</q>".repeat(40)
    );
    let actions = stage.receive(on, &deep);
    let [Asked::Message(_, sent)] = &actions[..] else { panic!("{actions:?}") };
    assert!(sent.starts_with("<iq type='error' from='proxy.localhost' to='a@b/c' id='1'><error code='406'"));
    stage.it.handle_flushed(on, stage.now);
    let text = format!("<message from='a@b/c' to='proxy.localhost'>{}</message>", "x".repeat(100_000));
    let mut totals = Vec::new();
    for _ in 0..8 {
        for piece in text.as_bytes().chunks(4096) {
            assert_eq!(stage.receive(on, std::str::from_utf8(piece).unwrap()), []);
        }
        totals.extend(stage.events());
    }
    assert_eq!(totals, [1, 2, 4, 8].map(|total| ComponentEvent::Excess { total }));
    assert!(stage.it.is_up());
    assert_eq!(stage.calls(), [], "nothing of it came through");
}

#[test]
fn what_waits_to_be_sent_is_not_shown() {
    let shows = |it: &ComponentHost<Puppet>, bytes: &str| {
        let shown = format!("{it:?}");
        assert!(shown.contains(&format!("({} bytes)", bytes.len())), "{shown}");
        shown.contains(format!("{:?}", bytes.as_bytes()).trim_matches(['[', ']'])) || shown.contains(bytes)
    };
    let mut stage = Stage::new();
    stage.actions();
    stage.it.handle_connected(server(1), stage.now);
    stage.actions();
    let _ = stage.it.handle_bytes(server(1), HEADER.as_bytes(), stage.now);
    assert!(!shows(&stage.it, "<handshake>aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e</handshake>"));
    stage.receive(server(1), "");
    stage.receive(server(1), "<handshake/>");
    stage.it.inner_mut().iqs.push_back(question(1));
    stage.actions();
    stage.it.inner_mut().iqs.push_back(question(2));
    stage.actions();
    stage.calls();
    assert!(!shows(&stage.it, &written(&question(2))));
}
