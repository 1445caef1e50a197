//! Command lines, and the responses to them.

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use common::Folder;
use common::cli::run;
use rendezvous::failure::Failure;
use rendezvous::options::{CONFIG, Matches, Opt, Spec, parse, value};

const SPEC: Spec = Spec {
    command: "serve",
    operands: &[],
    summary: "Serves.",
    options: &[
        CONFIG,
        Opt::many("listen", "ADDR:PORT", "[::]:8443", "where to listen"),
        Opt::one("wait", "SECONDS", "5", "how long"),
        Opt::one("buffer", "SIZE", "64k", "how much").letter('b'),
        Opt::flag("once", "and no more"),
        Opt::many("ticket", "FILE", "", "a ticket"),
        Opt::many("to", "HOST:PORT", "", "where to"),
    ],
    footer: "",
};

fn read(args: &[&str]) -> Result<Matches, Failure> {
    parse(&SPEC, &args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
}

fn usage(args: &[&str]) -> String {
    match read(args) {
        Err(Failure::Usage(text)) => text,
        other => panic!("{args:?} is a usage error, not {other:?}"),
    }
}

#[test]
fn an_option_that_is_not_given_has_the_default_that_help_shows() {
    let matches = read(&[]).unwrap();
    assert_eq!(matches.get("wait", value::seconds), Ok(Duration::from_secs(5)));
    assert_eq!(matches.get("buffer", value::size(1, 1 << 20)), Ok(65536));
    assert!(!matches.flag("once"));
    let Err(Failure::Help(help)) = read(&["--help"]) else { panic!("--help is help") };
    for part in [
        "Usage: rendezvous serve [OPTIONS]",
        "--listen ADDR:PORT",
        "may be repeated [[::]:8443]",
        "[64k]",
        "-b, --buffer",
    ] {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn options_are_read_in_every_form_that_getopts_knows() {
    let matches = read(&["--listen=[::]:1", "--listen", "0.0.0.0:2", "-b", "1k", "--once"]).unwrap();
    assert_eq!(matches.many("listen"), ["[::]:1", "0.0.0.0:2"]);
    assert_eq!(matches.get("buffer", value::size(1, 1 << 20)), Ok(1024));
    assert!(matches.flag("once"));
}

#[test]
fn options_that_belong_together_keep_their_order() {
    let matches = read(&["--ticket", "a", "--to", "x:1", "--wait", "1", "--ticket", "b"]).unwrap();
    assert_eq!(matches.in_order(&["ticket", "to"]), [("ticket", "a"), ("to", "x:1"), ("ticket", "b")]);
}

#[test]
fn a_wrong_option_is_named_and_the_right_one_suggested() {
    assert!(usage(&["--lisen", "x"]).contains("unknown option --lisen, did you mean --listen?"));
    assert!(usage(&["--wait"]).contains("--wait needs a value: SECONDS"));
    assert!(usage(&["--wait", "1", "--wait", "2"]).contains("--wait may be given only once"));
    assert!(usage(&["--once=1"]).contains("--once takes no value"));
    assert!(usage(&["-x"]).contains("unknown option -x"));
    assert!(usage(&["extra"]).contains("unexpected argument 'extra'"));
}

#[test]
fn a_value_that_cannot_be_read_is_refused_with_the_name_of_its_option() {
    let matches = read(&["--wait", "soon"]).unwrap();
    let Err(Failure::Usage(text)) = matches.get("wait", value::seconds) else { panic!("'soon' is no time") };
    assert!(text.starts_with("--wait: 'soon' is not a time"), "{text}");
}

#[test]
fn the_command_line_wins_over_the_file_and_repeatable_options_add_up() {
    let folder = Folder::new();
    let file = folder.file("serve.conf");
    std::fs::write(&file, "# ours\n\nlisten [::]:443\n  wait   7  \nbuffer 8k\nonce\nlisten [::]:444\r\n")
        .unwrap();
    let file = file.to_str().unwrap();
    let matches = read(&["--wait", "9", "--listen", "[::]:1", "--config", file]).unwrap();
    assert_eq!(matches.one("wait"), Some("9"));
    assert_eq!(matches.one("buffer"), Some("8k"));
    assert_eq!(matches.many("listen"), ["[::]:443", "[::]:444", "[::]:1"]);
    assert!(matches.flag("once"));
}

#[test]
fn a_wrong_line_of_the_file_is_named_by_file_and_line() {
    let folder = Folder::new();
    let file = folder.file("serve.conf");
    let said = |text: &[u8]| {
        std::fs::write(&file, text).unwrap();
        let text = usage(&["--config", file.to_str().unwrap()]);
        text.strip_prefix(&format!("{}:", file.display())).unwrap_or(&text).to_owned()
    };
    assert_eq!(said(b"wait 5\nlsten [::]:1"), "2: unknown word 'lsten', did you mean 'listen'?");
    assert_eq!(said(b"wait"), "1: 'wait' needs a value: SECONDS");
    assert_eq!(said(b"once yes"), "1: 'once' takes no value");
    assert_eq!(said(b"wait 5\n\nwait 6"), "3: 'wait' is already given in line 1");
    assert_eq!(said(b"config x"), "1: unknown word 'config'");
    assert_eq!(said(b"wait 5\nlisten \xff"), "2: not UTF-8");
    std::fs::write(&file, "wait soon").unwrap();
    let matches = read(&["--config", file.to_str().unwrap()]).unwrap();
    let error = matches.get("wait", value::seconds).unwrap_err().to_string();
    assert!(error.contains("serve.conf:1: wait: 'soon' is not a time"), "{error}");
    assert!(
        read(&["--config", "/nowhere"])
            .unwrap_err()
            .to_string()
            .contains("cannot read configuration /nowhere: no such file")
    );
}

#[test]
fn a_timeout_that_would_end_every_connection_is_refused() {
    assert_eq!(value::timeout("0.1"), Ok(Duration::from_millis(100)));
    for short in ["0", "0.05", "1ms"] {
        assert_eq!(value::timeout(short), Err(format!("'{short}' is less than 0.1s")));
    }
    let interval = value::interval(Duration::from_secs(1));
    assert_eq!(interval("0"), Ok(Duration::ZERO));
    assert_eq!(interval("1"), Ok(Duration::from_secs(1)));
    assert_eq!(interval("0.5"), Err("'0.5' is less than 1s".to_owned()));
}

#[test]
fn times_sizes_counts_and_addresses_are_read_with_their_bounds() {
    assert_eq!(value::seconds("0.5"), Ok(Duration::from_millis(500)));
    assert_eq!(value::seconds("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(value::seconds("2h"), Ok(Duration::from_secs(7200)));
    for wrong in ["", "-1", "inf", "nan", "1e3", "1..2", ".", "5 s", "5d", "99999999999999999999", "ß"] {
        assert!(value::seconds(wrong).is_err(), "{wrong}");
    }
    let size = value::size(1024, 1 << 30);
    assert_eq!(size("64k"), Ok(65536));
    assert_eq!(size("16KiB"), Ok(16384));
    assert_eq!(size("1G"), Ok(1 << 30));
    for wrong in ["", "k", "-1", "1", "2G", "64x", "18446744073709551615G", "1.5k"] {
        assert!(size(wrong).is_err(), "{wrong}");
    }
    assert_eq!(value::count(1, 9)("9"), Ok(9));
    assert!(
        value::count(1, 9)("10").is_err()
            && value::count(1, 9)("0").is_err()
            && value::count(1, 9)("+5").is_err()
    );
    assert!(value::listen_address("[::]:443").is_ok() && value::listen_address("0.0.0.0:0").is_ok());
    assert!(value::listen_address("443").unwrap_err().contains("[::]:443"));
    assert!(value::listen_address("localhost:1").is_err());
    assert_eq!(value::host_port("Printer.lan:80").map(|to| to.to_string()), Ok("printer.lan:80".to_owned()));
    assert_eq!(value::host_port("[::1]:22").map(|to| to.to_string()), Ok("[::1]:22".to_owned()));
    assert_eq!(value::host_port("[fe80::1%eth0]:22").map(|to| to.host), Ok("fe80::1%eth0".to_owned()));
    assert_eq!(value::host_port("printer.lan.:80").map(|to| to.host), Ok("printer.lan.".to_owned()));
    assert!(value::host_port("drucker.münchen.example:80").unwrap_err().contains("A-label form (xn--"));
    for wrong in
        ["", ":80", "a", "a:", "a:0", "a:65536", "::1:22", "[::1]", "[x]:1", "a b:1", "a:+1", "[::1]22"]
    {
        assert!(value::host_port(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn help_goes_to_stdout_and_a_wrong_command_to_stderr() {
    let folder = Folder::new();
    for args in
        [&[][..], &["--help"], &["id", "--help"], &["id", "add", "--help"], &["token", "-h"], &["--version"]]
    {
        let done = run(&folder, args);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{args:?}");
        assert!(done.out.contains("endezvous"), "{args:?}: {}", done.out);
    }
    for (args, said) in [
        (&["tokn"][..], "rendezvous: unknown command 'tokn': did you mean 'token'?"),
        (&["--verson"], "rendezvous: unknown option '--verson': did you mean '--version'?"),
        (&["id", "ad"], "rendezvous: id: unknown command 'id ad', did you mean 'id add'?"),
        (&["id", "add"], "rendezvous: id: NAME is missing"),
        (&["id", "add", "a", "--digits", "11"], "rendezvous: id: --digits: '11' is more than 10"),
        (&["token"], "rendezvous: token: --ticket FILE is missing"),
    ] {
        let done = run(&folder, args);
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}");
        assert!(done.err.starts_with(said), "{args:?}: {}", done.err);
    }
}

/// Each option is valid by itself. Defaults adapt to the given options.
#[test]
fn limits_that_contradict_each_other_are_refused_with_the_arithmetic() {
    let folder = Folder::new();
    for (args, said) in [
        (
            &["--max-heads", "5000"][..],
            "--max-heads 5000 × --head-size 16384 = 81920000 bytes, more than --buffer-memory 50331648",
        ),
        (
            &["--max-heads", "1500", "--head-size", "64k"],
            "--max-heads 1500 × --head-size 65536 = 98304000 bytes, more than --buffer-memory 50331648",
        ),
        (
            &["--max-handshakes", "2000", "--buffer-memory", "8M"],
            "--max-handshakes 2000 × memory of a handshake 22528 = 45056000 bytes, more than --buffer-memory 8388608",
        ),
        (
            &["--buffer", "4M", "--buffer-memory", "8M"],
            "4 × --buffer 4194304 = 16777216 bytes, more than --buffer-memory 8388608",
        ),
        (
            &["--head-size", "1M", "--buffer-memory", "1M"],
            "--max-heads 8 × --head-size 1048576 = 8388608 bytes, more than --buffer-memory 1048576",
        ),
    ] {
        let done = run(&folder, &[&["serve"], args].concat());
        assert_eq!(done.code, 2, "{args:?}: {}", done.err);
        assert!(done.err.starts_with(&format!("rendezvous: serve: {said}: ")), "{args:?}: {}", done.err);
    }
    // The options are read; the first error is the certificate's.
    for args in [
        &["--head-size", "64k"][..],
        &["--buffer-memory", "8M"],
        &["--buffer-memory", "8M", "--head-size", "64k"],
        &["--buffer-memory", "1M"],
        &["--max-heads", "1500", "--max-handshakes", "2000"],
    ] {
        let done = run(&folder, &[&["serve", "--cert", "none", "--key", "none"], args].concat());
        assert!(done.code != 0 && !done.err.contains('×'), "{args:?}: {}", done.err);
    }
}

#[test]
fn arguments_that_are_not_utf_8_or_would_move_the_cursor_are_shown_harmlessly() {
    let folder = Folder::new();
    let done = run(&folder, &[OsStr::from_bytes(b"id"), OsStr::from_bytes(b"\xff\xfe")]);
    assert_eq!(done.code, 2);
    assert!(done.err.contains("argument 2 is not UTF-8"), "{}", done.err);
    let done = run(&folder, &["a\x1b[2J\nb"]);
    assert!(!done.err.contains('\x1b') && done.err.contains("\\u{1b}[2J\\nb"), "{}", done.err);
}
