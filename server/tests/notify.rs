//! Messages to the service manager, and the environment variables that name it.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU32, Ordering};

use rendezvous::activation;
use rendezvous::notify::Manager;
use rendezvous_core::engine::Transport;
use rendezvous_core::time::{Span, Time};

const NOW: Time = Time(1_000_000);

fn receive(socket: &UnixDatagram) -> Option<String> {
    let mut bytes = [0; 4096];
    socket.set_nonblocking(true).unwrap();
    let len = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8(bytes[..len].to_vec()).unwrap())
}

/// A manager at an abstract socket name.
fn managed(watchdog: Option<Span>) -> (UnixDatagram, Manager) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("rendezvous-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    (socket, Manager::at(&OsString::from(format!("@{name}")), watchdog, NOW).unwrap())
}

#[test]
fn ready_reloading_and_stopping_are_told_at_once() {
    let (socket, mut manager) = managed(None);
    manager.ready(NOW);
    assert_eq!(receive(&socket).unwrap(), "READY=1");
    manager.reloading(NOW);
    let reloading = receive(&socket).unwrap();
    let (state, since) = reloading.split_once('\n').expect("two lines");
    assert_eq!(state, "RELOADING=1");
    assert!(since.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0);
    manager.stopping(NOW);
    assert_eq!(receive(&socket).unwrap(), "STOPPING=1");
    assert_eq!(receive(&socket), None);
}

#[test]
fn a_path_is_a_place_too() {
    let path = std::env::temp_dir().join(format!("rendezvous-notify-{}", std::process::id()));
    let socket = UnixDatagram::bind(&path).unwrap();
    let manager = Manager::at(path.as_os_str(), None, NOW);
    std::fs::remove_file(&path).unwrap();
    manager.unwrap().ready(NOW);
    assert_eq!(receive(&socket).unwrap(), "READY=1");
}

#[test]
fn a_name_that_leads_nowhere_is_an_error_and_no_manager_is_none() {
    for name in ["", "relative", "vsock:2:3", "/nowhere/at/all", "@rendezvous-nobody"] {
        assert!(Manager::at(&OsString::from(name), None, NOW).is_err(), "{name}");
    }
    let mut nobody = Manager::default();
    nobody.ready(NOW);
    nobody.update(NOW, || panic!("nobody wants to know"));
    assert_eq!(nobody.due(), None);
}

#[test]
fn the_watchdog_is_told_at_half_of_its_time() {
    let (socket, mut manager) = managed(Some(Span::from_secs(10)));
    let mut lives = |at: Time| {
        manager.update(at, || None);
        (receive(&socket).as_deref() == Some("WATCHDOG=1"), manager.due())
    };
    assert_eq!(lives(NOW), (true, Some(NOW + Span::from_secs(5))));
    assert!(!lives(NOW + Span::from_millis(4_999)).0);
    assert_eq!(lives(NOW + Span::from_secs(6)), (true, Some(NOW + Span::from_secs(11))));
}

#[test]
fn the_line_about_the_state_is_told_when_it_is_another_and_not_too_often() {
    let (socket, mut manager) = managed(None);
    let line = |text: &str| Some(text.to_owned());
    manager.update(NOW, || line("one"));
    assert_eq!(receive(&socket).unwrap(), "STATUS=one");
    assert_eq!(manager.due(), None, "nothing happened since");
    manager.touch();
    assert_eq!(manager.due(), Some(NOW + Span::from_secs(2)));
    manager.update(NOW + Span::from_secs(1), || panic!("too early"));
    manager.update(NOW + Span::from_secs(2), || line("one"));
    assert_eq!(receive(&socket), None, "it is the same");
    manager.touch();
    manager.update(NOW + Span::from_secs(4), || line("two"));
    assert_eq!(receive(&socket).unwrap(), "STATUS=two");
}

#[test]
fn a_manager_that_takes_nothing_for_a_while_gets_the_changes_of_state_later_in_order() {
    let (socket, mut manager) = managed(None);
    // As many messages as the system queues for a manager that does not read, then one more.
    manager.update(NOW, || None);
    let mut told = 0;
    while manager.due().is_none() {
        manager.ready(NOW);
        told += 1;
        assert!(told < 100_000, "the system keeps everything");
    }
    assert_eq!(manager.due(), Some(NOW + Span::from_millis(200)));
    manager.stopping(NOW);
    let kept = std::iter::from_fn(|| receive(&socket)).filter(|it| it == "READY=1").count();
    assert_eq!(kept, told - 1);
    manager.update(NOW + Span::from_millis(200), || None);
    assert_eq!(
        (receive(&socket).as_deref(), receive(&socket).as_deref()),
        (Some("READY=1"), Some("STOPPING=1"))
    );
    assert_eq!(manager.due(), None);
}

#[test]
fn an_inherited_sockets_name_says_what_it_speaks() {
    for (name, speaks) in [
        ("tls", Transport::Tls),
        ("plain", Transport::Plain),
        ("proxy", Transport::Proxied),
        ("", Transport::Tls),
        ("unknown", Transport::Tls),
        ("rendezvous.socket", Transport::Tls),
    ] {
        assert_eq!(activation::transport(name), Ok(speaks), "{name}");
    }
    let error = activation::transport("plian").unwrap_err().to_string();
    assert!(error.contains("'plian'") && error.contains("tls, plain or proxy"), "{error}");
}
