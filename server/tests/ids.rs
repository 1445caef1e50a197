//! The file `ids`, and the commands that change it.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use common::Folder;
use common::cli::{Done, command, run};
use rendezvous::ids::{Edit, Ids, Stamp, Tokens, is_label, is_name};
use rendezvous::state::{self, SECRET, State};

fn uri(last: u32) -> String {
    format!(
        "otpauth://totp/rendezvous:2f402f80-da50-41e1-9b23-{last:012x}?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&algorithm=SHA256&digits=8&period=30"
    )
}

fn parse(text: &str) -> Ids {
    Ids::parse(text.as_bytes(), "ids")
}

fn complaint(text: &str) -> String {
    let ids = parse(text);
    assert_eq!(ids.errors.len(), 1, "{text}: {:?}", ids.errors);
    ids.errors.concat()
}

fn ok(folder: &Folder, args: &[&str]) -> Done {
    let done = run(folder, args);
    assert_eq!(done.code, 0, "{args:?}: {}", done.err);
    done
}

fn failed(folder: &Folder, args: &[&str]) -> String {
    let done = run(folder, args);
    assert_eq!(done.code, 1, "{args:?}: {}{}", done.out, done.err);
    done.err
}

#[test]
fn a_line_is_a_name_a_key_uri_labels_and_the_kind_of_tokens() {
    let ids = parse(&format!(
        "# comment\n\n  home \t{}  label=home label=www  tokens=any\nb {}\r\n",
        uri(1),
        uri(2)
    ));
    assert_eq!(ids.errors, Vec::<String>::new());
    let [home, b] = &ids.entries[..] else { panic!("two entries") };
    assert_eq!((home.name.as_str(), home.tokens), ("home", Tokens::Any));
    assert_eq!(home.labels, ["home", "www"]);
    assert_eq!(b.tokens, Tokens::Bound, "where it is not said");
}

#[test]
fn a_broken_line_is_reported_with_its_number_and_the_others_serve() {
    let broken = "otpauth://totp/rendezvous:2f402f80-da50-41e1-9b23-0123456789ab?digits=8";
    let ids = parse(&format!("a {}\n#\nbroken {broken}\nc {}\n", uri(1), uri(3)));
    assert_eq!(ids.errors, ["ids:3: not a Key URI: missing 'secret'"]);
    assert_eq!(ids.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn a_damaged_file_does_not_replace_the_ids_of_a_running_relay() {
    let folder = Folder::new();
    let path = folder.file("ids");
    let one = format!("a {}\n", uri(1));
    let two = format!("{one}b {}\n", uri(2));
    let old = parse(&two);
    let refused = |text: &str, old: &Ids| match parse(text).check_successor_of(old, &path) {
        Ok(()) => None,
        Err(failure) => Some(failure.to_string()),
    };
    assert_eq!(refused(&one, &old), None, "an ID is removed");
    assert_eq!(refused("# nobody\n", &old), None, "all are removed");
    assert_eq!(refused(&format!("{two}c\n"), &old), None, "no ID is missing");
    // The file was cut off, or a line is wrong.
    let why = refused(&two[..one.len() + 40], &old).expect("it is refused");
    assert!(why.starts_with("ids:2: ") && why.contains("the old IDs stay in force"), "{why}");
    // The line was wrong before.
    assert_eq!(refused("c\n", &parse(&format!("c\n{one}"))), None);
    let why = refused("", &old).expect("it is refused");
    assert!(why.contains("ids is missing or empty"), "{why}");
    assert!(Ids::load(&path).unwrap().check_successor_of(&old, &path).is_err());
    assert_eq!(refused("", &Ids::default()), None);
}

#[test]
fn unknown_words_and_wrong_values_are_refused() {
    let line = |rest: &str| complaint(&format!("a {} {rest}", uri(1)));
    assert!(line("lable=x").starts_with("ids:1: unknown field 'lable'"));
    assert!(line("tokens=all").contains("bound or any"));
    assert!(line("tokens=any tokens=any").contains("repeated"));
    assert!(line("label=Home").contains("lower-case"));
    assert!(line("label=x label=x").contains("the label 'x' is repeated"));
    assert!(line("# comment").contains("unknown field"));
    assert!(complaint("a").contains("'a' has no Key URI"));
    // An editor may have wrapped the line before the secret.
    assert!(!complaint("JBSWY3DPEHPK3PXP").contains("JBSW"));
    assert!(complaint(&uri(1)).contains("must begin with a name"));
    assert!(!complaint("a otpauth://totp/x?secret=JBSWY3DPEHPK3PXP").contains("JBSW"));
    assert!(!line("JBSWY3DPEHPK3PXP").contains("JBSW"), "it may be a secret that was cut off");
}

#[test]
fn names_ids_and_labels_are_unique_and_the_first_one_serves() {
    let after = |line: &str| {
        let text = format!("a {} label=x\n{line}", uri(1));
        assert_eq!(parse(&text).entries.len(), 1);
        complaint(&text)
    };
    assert_eq!(after(&format!("a {}", uri(2))), "ids:2: 'a' already exists");
    assert_eq!(after(&format!("b {}", uri(1))), "ids:2: 'b' has the same ID as 'a'");
    assert_eq!(after(&format!("b {} label=x", uri(2))), "ids:2: 'a' already has the label 'x'");
}

#[test]
fn names_and_labels_are_of_few_characters() {
    for name in ["a", "A-b_c.9", &"x".repeat(64)] {
        assert!(is_name(name), "{name}");
    }
    for name in ["", "#a", "a b", "-a", ".a", "ä", "a/b", &"x".repeat(65)] {
        assert!(!is_name(name), "{name}");
    }
    for label in ["a", "a-1", &"x".repeat(63)] {
        assert!(is_label(label), "{label}");
    }
    for label in ["", "A", "a.b", "-a", "a-", "a_b", &"x".repeat(64), "2f402f80-da50-41e1-9b23-0123456789ab"]
    {
        assert!(!is_label(label), "{label}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let line = format!("home {} label=home tokens=any\n", uri(1)).into_bytes();
    for at in 0..line.len() {
        for byte in [0, b'\n', b' ', b'=', b'%', 0xff, 0xc3] {
            let mut changed = line.clone();
            changed[at] = byte;
            let _ = Ids::parse(&changed, "ids");
        }
        let _ = Ids::parse(&line[at..], "ids");
        let _ = Ids::parse(&line[..at], "ids");
    }
}

#[test]
fn changes_keep_the_rest_of_the_file_byte_for_byte() {
    let folder = Folder::new();
    let state = State::open(folder.file("state").to_str()).unwrap();
    let (before, after) = ("# mine\r\n\n\tbroken line \u{e9}\n", format!("\n  # end\nz   {}", uri(9)));
    let text = format!("{before}home\t\t{}   label=h  \n{after}", uri(1));
    state.write("ids", text.as_bytes(), SECRET).unwrap();
    let path = state.file("ids");
    let key = Ids::load(&path).unwrap().get("z").unwrap().key.clone();

    let mut edit = Edit::begin(&state).unwrap();
    edit.rotate("home", &key).unwrap();
    edit.commit().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "the key was the same, and so is every space");

    let mut edit = Edit::begin(&state).unwrap();
    let home = edit.remove("home").unwrap();
    assert!(edit.remove("home").is_err());
    edit.commit().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{before}{after}"));

    let mut edit = Edit::begin(&state).unwrap();
    edit.add(&home).unwrap();
    assert!(edit.add(&home).is_err());
    edit.commit().unwrap();
    let line = format!("home  {}  label=h  tokens=bound\n", uri(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{before}{after}\n{line}"));

    let edit = Edit::begin(&state).unwrap();
    drop(edit); // nothing is written without a commit
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let folder = Folder::new();
    ok(&folder, &["id", "add", "home"]);
    let path = folder.file("state/ids");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(Ids::load(&path).is_err());
    for args in [&["id", "list"][..], &["id", "add", "b"], &["id", "show", "home"]] {
        assert!(failed(&folder, args).contains("chmod 600"), "{args:?}");
    }
}

#[test]
fn a_change_of_the_file_is_noticed() {
    let folder = Folder::new();
    let path = folder.file("ids");
    let missing = Ids::load(&path).unwrap();
    assert!(missing.entries.is_empty() && !missing.has_changed(&path));
    state::write_whole(&path, uri(1).as_bytes(), SECRET).unwrap();
    assert!(missing.has_changed(&path));
    let ids = Ids::load(&path).unwrap();
    assert!(!ids.has_changed(&path));
    assert_eq!(ids.stamp(), Stamp::of(&path));
    state::write_whole(&path, uri(2).as_bytes(), SECRET).unwrap();
    assert!(ids.has_changed(&path), "even one of the same size in the same instant");
}

#[test]
fn twenty_at_once_lose_nothing() {
    let folder = Folder::new();
    let names: Vec<String> = (0..20).map(|number| format!("host{number}")).collect();
    let start = |name: &String| -> Child {
        let args = ["id", "add", name, "--relay", "https://relay.example.com"];
        command(&folder, &args).stdout(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<Child> = names.iter().map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let ids = Ids::load(&folder.file("state/ids")).unwrap();
    assert_eq!((ids.entries.len(), ids.errors.len()), (20, 0));
    let pins: Vec<String> = names
        .iter()
        .map(|name| {
            assert!(ids.get(name).is_some(), "{name}");
            let ticket = fs::read_to_string(folder.file(&format!("{name}.ticket"))).unwrap();
            ticket.lines().find(|line| line.starts_with("pin ")).unwrap().to_owned()
        })
        .collect();
    assert!(pins.iter().all(|pin| *pin == pins[0]), "one certificate for all");
}

#[test]
fn add_list_show_rotate_ticket_and_remove_do_what_they_say() {
    let folder = Folder::new();
    let relay = ["--relay", "https://relay.example.com:8443"];
    let uuid = "2f402f80-da50-41e1-9b23-0123456789ab";
    let added =
        ok(&folder, &[&["id", "add", "home", "--uuid", uuid, "--label", "Home"], &relay[..]].concat());
    let pin = fs::read_to_string(folder.file("home.ticket")).unwrap();
    let pin = pin.lines().find_map(|line| line.strip_prefix("pin ")).unwrap();
    for part in [
        format!("home {uuid} is enrolled"),
        "rendezvous agent --ticket home.ticket --to 127.0.0.1:8080".to_owned(),
        format!("curl --digest -u {uuid}: -k --pinnedpubkey '{pin}' https://relay.example.com:8443/"),
        format!(
            "Host home\n        ProxyCommand rendezvous connect https://relay.example.com:8443 {uuid} --pin {pin}"
        ),
    ] {
        assert!(added.out.contains(&part), "{part} in {}", added.out);
    }
    assert!(!added.out.contains("secret="), "what is printed is no secret");
    let rows = added.out.lines().map(|line| line.chars().count().div_ceil(80).max(1)).sum::<usize>();
    assert!(rows < 24, "it scrolls in a terminal of 80x24: {rows} rows: {}", added.out);
    let last = added.out.lines().last().unwrap();
    assert_eq!(last, "    rendezvous agent --ticket home.ticket --to 127.0.0.1:8080");
    let line = fs::read_to_string(folder.file("state/ids")).unwrap();
    assert!(line.ends_with("&algorithm=SHA256&digits=8&period=30  label=home  tokens=bound\n"), "{line}");

    let secret = line.split("secret=").nth(1).unwrap().split('&').next().unwrap();
    for args in [&["id", "list"][..], &["id", "list", "--json"], &["id", "show", "home"]] {
        let shown = ok(&folder, args).out;
        assert!(
            shown.contains(uuid) && shown.contains("home") && !shown.contains(secret),
            "{args:?}: {shown}"
        );
    }
    let ticket = fs::read_to_string(folder.file("home.ticket")).unwrap();
    assert_eq!(ok(&folder, &[&["id", "ticket", "home", "--out", "-"], &relay[..]].concat()).out, ticket);
    assert!(
        failed(&folder, &[&["id", "rotate", "home"], &relay[..]].concat()).contains("home.ticket exists")
    );
    assert_eq!(fs::read_to_string(folder.file("state/ids")).unwrap(), line, "nothing was changed");
    ok(&folder, &[&["id", "rotate", "home", "--out", "new"], &relay[..]].concat());
    assert!(!fs::read_to_string(folder.file("state/ids")).unwrap().contains(secret));
    assert_eq!(fs::metadata(folder.file("new")).unwrap().permissions().mode() & 0o777, 0o600);

    let elsewhere = ok(&folder, &["id", "add", "away", "--state", "other state"]).out;
    assert!(elsewhere.contains("id ticket away --state 'other state' --relay"), "{elsewhere}");
    for add in [&["id", "add", "home"][..], &[&["id", "add", "home"][..], &relay].concat()] {
        assert!(
            failed(&folder, add).contains("'home' already exists ('rendezvous id ticket home'"),
            "{add:?}"
        );
    }
    assert!(failed(&folder, &["id", "add", "b", "--uuid", uuid]).contains("has the same ID as 'home'"));
    assert!(failed(&folder, &["id", "remove", "hime"]).contains("did you mean 'home'?"));
    ok(&folder, &["id", "remove", "home"]);
    assert!(ok(&folder, &["id", "list"]).out.is_empty());
    assert_eq!(ok(&folder, &["id", "list", "--json"]).out, "[]\n");
}

#[test]
fn a_failed_add_leaves_no_ticket_and_no_id() {
    let folder = Folder::new();
    let relay = "--relay=https://relay.example.com";
    ok(&folder, &["id", "add", "home", relay]);
    let uuid = format!("--uuid={}", Ids::load(&folder.file("state/ids")).unwrap().entries[0].id);
    failed(&folder, &["id", "add", "b", relay, &uuid]);
    assert!(!folder.file("b.ticket").exists());
    failed(&folder, &["id", "add", "c", relay, "--out", "/nowhere/c.ticket"]);
    assert_eq!(Ids::load(&folder.file("state/ids")).unwrap().entries.len(), 1);
}

#[test]
fn a_secret_comes_from_a_file_or_stdin_and_old_hidden_servers_are_warned_of() {
    let folder = Folder::new();
    let file = folder.file("secret");
    let name = file.to_str().unwrap();
    let write = |text: &str| state::write_whole(&file, text.as_bytes(), SECRET).unwrap();
    write("jbsw y3dp ehpk 3pxp\njbsw y3dp ehpk 3pxp====\n");
    let old = ["--algorithm", "sha1", "--digits", "6", "--tokens", "any", "--secret-file"];
    let done = ok(&folder, &[&["id", "add", "a"], &old[..], &[name]].concat());
    let line = fs::read_to_string(folder.file("state/ids")).unwrap();
    assert!(
        line.contains(
            "?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&algorithm=SHA1&digits=6&period=30  tokens=any"
        ),
        "{line}"
    );
    assert!(done.err.contains("bytes above 127"), "{}", done.err);
    write("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    assert_eq!(ok(&folder, &[&["id", "add", "b"], &old[..], &[name]].concat()).err, "");
    assert!(ok(&folder, &["id", "add", "c", "--secret-file", name]).err.contains("--tokens any"));
    write("not BASE32 1");
    let error = failed(&folder, &["id", "add", "d", "--secret-file", name]);
    assert!(error.contains("not a secret in BASE32") && !error.contains("not BASE32 1"), "{error}");
    write("");
    assert!(failed(&folder, &["id", "add", "d", "--secret-file", "-"]).contains("stdin: not a secret"));
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert!(failed(&folder, &["id", "add", "d", "--secret-file", name]).contains("chmod 600"));
    ok(&folder, &["id", "add", "e", "--algorithm", "SHA1"]);
    let ids = Ids::load(&folder.file("state/ids")).unwrap();
    assert!(
        ids.get("e").unwrap().key.secret().iter().all(|byte| *byte < 0x80),
        "made for old hidden servers"
    );
}
