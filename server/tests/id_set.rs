//! `id set`: what it changes, what it refuses, and that it changes all or nothing.

mod common;

use std::fs;

use common::Folder;
use common::cli::{Done, run};
use rendezvous::ids::{Entry, Ids, Steering};

fn ok(folder: &Folder, args: &[&str]) -> Done {
    let done = run(folder, args);
    assert_eq!(done.code, 0, "{args:?}: {}", done.err);
    done
}

fn file(folder: &Folder) -> String {
    fs::read_to_string(folder.file("state/ids")).unwrap()
}

fn entry(folder: &Folder, name: &str) -> Entry {
    let ids = Ids::load(&folder.file("state/ids")).unwrap();
    assert_eq!(ids.errors, Vec::<String>::new());
    ids.get(name).unwrap_or_else(|| panic!("no {name}")).clone()
}

fn two() -> Folder {
    let folder = Folder::new();
    ok(&folder, &["id", "add", "home", "--label", "www"]);
    ok(&folder, &["id", "add", "other", "--label", "blog", "--end-to-end", "--tokens", "any"]);
    folder
}

#[test]
fn every_limit_is_set_shown_and_removed() {
    let folder = two();
    let before = entry(&folder, "home");
    let other = entry(&folder, "other");
    let all = [
        "id",
        "set",
        "home",
        "--max-pairs",
        "7",
        "--rate",
        "100000",
        "--quota",
        "5G",
        "--allow",
        "10.0.0.0/8",
        "--allow",
        "2001:db8::/32",
        "--deny",
        "10.6.6.6",
        "--disable",
        "--label",
        "add=Shop",
        "--label",
        "remove=www",
    ];
    let done = ok(&folder, &all);
    for part in ["rate 100000 bytes/s each way", "disabled", "quota 5368709120 bytes/month", "labels shop"] {
        assert!(done.out.contains(part), "{part}: {}", done.out);
    }
    let after = entry(&folder, "home");
    assert_eq!((after.id, &after.key, &after.labels), (before.id, &before.key, &vec!["shop".to_owned()]));
    let prefix = |text: &str| text.parse().unwrap();
    let expected = Steering {
        disabled: true,
        max_pairs: Some(7),
        rate: Some(100_000),
        quota: Some(5 << 30),
        allow: vec![prefix("10.0.0.0/8"), prefix("2001:db8::/32")],
        deny: vec![prefix("10.6.6.6")],
    };
    assert_eq!(after.steering, expected);
    let shown = ok(&folder, &["id", "show", "home"]).out;
    for row in [
        "access     disabled",
        "max pairs  7",
        "rate       100000 bytes/s each way",
        "quota      5368709120 bytes/month",
        "allow      10.0.0.0/8, 2001:db8::/32",
        "deny       10.6.6.6/32",
    ] {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    let json = ok(&folder, &["id", "list", "--json"]).out;
    assert!(json.contains(r#""disabled":true,"max_pairs":7,"rate":100000,"quota":5368709120"#), "{json}");
    ok(&folder, &["id", "set", "home", "--enable", "--rate", "none"]);
    let rest = Steering { disabled: false, rate: None, ..expected };
    assert_eq!(entry(&folder, "home").steering, rest);
    let none =
        ["id", "set", "home", "--max-pairs", "none", "--quota", "none", "--allow", "all", "--deny", "none"];
    ok(&folder, &none);
    assert_eq!(entry(&folder, "home").steering, Steering::default());
    assert_eq!(entry(&folder, "other"), other, "the other line is unchanged");
}

#[test]
fn a_renamed_id_keeps_everything_else() {
    let folder = two();
    ok(&folder, &["id", "set", "other", "--rate", "64k"]);
    let before = entry(&folder, "other");
    ok(&folder, &["id", "set", "other", "--rename", "second"]);
    assert_eq!(entry(&folder, "second"), Entry { name: "second".to_owned(), ..before });
    assert!(Ids::load(&folder.file("state/ids")).unwrap().get("other").is_none());
}

#[test]
fn comments_and_other_lines_stay_byte_for_byte() {
    let folder = two();
    let text = file(&folder).replace("other ", "# kept\n\n  other\t ") + "\n# the end, without a line feed";
    fs::write(folder.file("state/ids"), &text).unwrap();
    ok(&folder, &["id", "set", "home", "--max-pairs", "3"]);
    let new = file(&folder);
    let (old, new): (Vec<_>, Vec<_>) = (text.split('\n').collect(), new.split('\n').collect());
    assert_eq!(old.len(), new.len());
    let differing: Vec<_> = old.iter().zip(&new).filter(|(old, new)| old != new).collect();
    assert_eq!(differing.len(), 1, "{differing:?}");
    assert!(differing[0].1.ends_with("  label=www  tokens=bound  max-pairs=3"), "{differing:?}");
}

#[test]
fn an_invalid_change_changes_nothing() {
    let folder = two();
    let before = file(&folder);
    let long: Vec<String> = (0..65).flat_map(|n| ["--deny".to_owned(), format!("10.0.0.{n}")]).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    for (args, code, error) in [
        (&[][..], 2, "nothing to change"),
        (&["--rate", "10"], 2, "--rate: '10' is less than 1000"),
        (&["--rate", "fast"], 2, "'fast' is not a size"),
        (&["--rate", "-5"], 2, "is not a size"),
        (&["--rates", "5"], 2, "--rate"),
        (&["--max-pairs", "0"], 2, "disable the hidden server instead"),
        (&["--quota", "0"], 2, "less than 1"),
        (&["--allow", "10.0.0.1/8"], 2, "bits beyond the prefix"),
        (&["--allow", "10.0.0.0/33"], 2, "number of bits"),
        (&["--allow", "example.com"], 2, "not a range of addresses"),
        (&["--allow", "all", "--allow", "10.0.0.0/8"], 2, "'all' must be the only value"),
        (&["--deny", "::1", "--deny", "::1/128"], 2, "is repeated"),
        (&long, 2, "more than 64"),
        (&["--disable", "--enable"], 2, "exclude each other"),
        (&["--rename", "-x"], 2, "not a valid name"),
        (&["--label", "www"], 2, "not add=LABEL or remove=LABEL"),
        (&["--label", "add=no_label"], 2, "not a valid label"),
        (&["--rename", "other"], 1, "'other' already exists"),
        (&["--label", "add=blog", "--rate", "64k"], 1, "'other' already has the label 'blog'"),
        (&["--label", "add=www"], 1, "'home' already has the label 'www'"),
        (&["--label", "remove=none"], 1, "'home' has no label 'none'"),
        (&["--rate", "64k", "--label", "remove=none"], 1, "has no label"),
    ] {
        let done = run(&folder, &[&["id", "set", "home"], args].concat());
        assert_eq!(done.code, code, "{args:?}: {}{}", done.out, done.err);
        assert!(done.err.contains(error), "{args:?}: {}", done.err);
        assert_eq!(file(&folder), before, "{args:?}");
    }
    assert!(run(&folder, &["id", "set", "hime", "--disable"]).err.contains("did you mean 'home'?"));
}

#[test]
fn invalid_fields_of_the_file_are_errors_of_their_line() {
    let uri = "otpauth://totp/rendezvous:2f402f80-da50-41e1-9b23-0123456789ab?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
    for (field, error) in [
        ("access=on", "'access=' must be followed by disabled"),
        ("access=disabled access=disabled", "'access=' is repeated"),
        ("rate=1", "rate=: '1' is less than 1000"),
        ("rate=9k rate=9k", "'rate=' is repeated"),
        ("max-pairs=0", "max-pairs=: '0' is not a limit"),
        ("quota=x", "quota=: 'x' is not a size"),
        ("allow=10.0.0.1/8", "allow=: '10.0.0.1/8' is not a range"),
        ("deny=::1 deny=::1", "deny=: '::1' is repeated"),
        ("speed=1", "unknown field 'speed' after the Key URI"),
    ] {
        let ids = Ids::parse(format!("a {uri} {field}\n").as_bytes(), "ids");
        assert_eq!((ids.entries.len(), ids.errors.len()), (0, 1), "{field}");
        assert!(ids.errors[0].contains(error), "{field}: {}", ids.errors[0]);
    }
}

#[test]
fn a_deny_file_has_one_range_in_each_line() {
    let folder = Folder::new();
    let path = folder.file("denied");
    fs::write(&path, "# spammers\n10.0.0.0/8\n\n2001:db8::/32 # all of it\n  192.0.2.1  \n").unwrap();
    let read = rendezvous::deny_file::read(&path).unwrap();
    assert_eq!(
        read.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]
    );
    fs::write(&path, "10.0.0.0/8\n10.0.0.1/8\n").unwrap();
    let error = rendezvous::deny_file::read(&path).unwrap_err().to_string();
    assert!(error.contains("denied:2: '10.0.0.1/8' is not a range"), "{error}");
}
