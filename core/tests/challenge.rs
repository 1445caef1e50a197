//! The user name in an `Authorization`, and the challenge that asks for one.

use data_encoding::BASE64;
use rendezvous_core::http::challenge::Identified::{self, Malformed, Name, Unidentified};
use rendezvous_core::http::challenge::{identify, write_challenge};
use rendezvous_core::id::Id;

const UUID: &str = "2f402f80-da50-41e1-9b23-0123456789ab";
const FOUND: Identified = Identified::Id(Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab));

/// Each line is a value with `ID` for the UUID.
fn all_are(expected: Identified, values: &[&str]) {
    for value in values {
        assert_eq!(identify(value.replace("ID", UUID).as_bytes()), expected, "{value}");
    }
}

fn name(name: &str) -> Identified {
    Name(name.to_owned())
}

fn basic(pair: &str) -> Identified {
    identify(format!("Basic {}", BASE64.encode(pair.as_bytes())).as_bytes())
}

#[test]
fn digest_names_the_id_as_user() {
    all_are(
        FOUND,
        &[
            r#"Digest username="ID""#,
            r#"Digest username="ID", realm="rendezvous", nonce="00", uri="/", response="6629fae49393a05397450978507c4ef1", opaque="00", qop=auth, nc=00000001, cnonce="0a4f113b""#,
            r#"Digest realm="rendezvous",nonce="00",username="ID""#,
            r#"Digest username="ID" , realm="rendezvous" , qop=auth"#,
            "Digest\tusername\t=\t\"ID\"\t",
        ],
    );
}

#[test]
fn scheme_and_parameter_names_have_no_case() {
    all_are(FOUND, &[r#"dIGEST UserName="ID""#, r#"DIGEST USERNAME="ID""#, r#"digest USERNAME*=utf-8''ID"#]);
    let credentials = BASE64.encode(format!("{UUID}:").as_bytes());
    assert_eq!(identify(format!("bASIC {credentials}").as_bytes()), FOUND);
}

#[test]
fn the_user_may_be_a_token() {
    all_are(FOUND, &["Digest username=ID", "Digest username=ID,realm=x", "Digest realm=x, username = ID"]);
}

#[test]
fn quoted_pairs_in_the_user_are_resolved() {
    let escaped: String = UUID.chars().flat_map(|it| ['\\', it]).collect();
    assert_eq!(identify(format!(r#"Digest username="{escaped}""#).as_bytes()), FOUND);
    all_are(Unidentified, &[r#"Digest username="\"ID\"""#, r#"Digest username="ID\\""#]);
    // A token has no quoted-pairs.
    all_are(Unidentified, &[r"Digest username=\ID"]);
}

#[test]
fn the_extended_user_is_decoded() {
    let escaped: String = UUID.bytes().map(|it| format!("%{it:02x}")).collect();
    assert_eq!(identify(format!("Digest username*=UTF-8''{escaped}").as_bytes()), FOUND);
    all_are(
        FOUND,
        &[
            "Digest username*=UTF-8''ID",
            "Digest username*=utf-8''ID",
            "Digest username*=UTF-8'en'ID, realm=x",
            "Digest username*=UTF-8''2f402f80%2Dda50-41e1%2d9b23-0123456789ab",
        ],
    );
}

#[test]
fn an_extended_user_that_is_no_uuid_names_nobody() {
    all_are(
        Unidentified,
        &[
            "Digest username*=ID",
            "Digest username*=UTF-8'ID",
            "Digest username*=UTF-8",
            "Digest username*=UTF-8''",
            "Digest username*=UTF-8''ID%",
            "Digest username*=UTF-8''ID%2",
            "Digest username*=UTF-8''ID%00",
            "Digest username*=UTF-8''%zz402f80-da50-41e1-9b23-0123456789ab",
            "Digest username*=UTF-8''2f402f80-da50-41e1-9b23-0123456789a%",
            "Digest username*=UTF-8''2f402f80-da50-41e1-9b23-0123456789a%6",
            "Digest username*=UTF-8''2f402f80-da50-41e1-9b23-0123456789a%+6",
            "Digest username*=ISO-8859-1''ID",
            "Digest username*=UTF-80''ID",
        ],
    );
}

#[test]
fn what_stands_in_other_parameters_is_skipped() {
    all_are(
        FOUND,
        &[
            r#"Digest realm="a, username=\"evil\", b", username="ID""#,
            r#"Digest uri="/?username=x,username=y", username="ID", x="\\""#,
            r#"Digest realm="", username="ID""#,
            "Digest uri=/path?a=b;c=, username=ID",
            r#"Digest ,, , username="ID",,"#,
            r#"Digest xusername="evil", username="ID", usernamex="evil""#,
            r#"Digest algorithm=SHA-512-256-sess, qop=odd, response=bad, nonce=, username="ID""#,
        ],
    );
}

#[test]
fn a_missing_user_names_nobody() {
    all_are(
        Unidentified,
        &[
            "",
            " ",
            "Digest",
            "Digest ",
            "Digest ,",
            r#"Digest realm="rendezvous""#,
            r#"Digest realm="username=ID""#,
            r#"Digest realm=", username=ID""#,
        ],
    );
}

#[test]
fn a_user_that_is_neither_an_id_nor_a_host_name_names_nobody() {
    let long = "a".repeat(254);
    all_are(
        Unidentified,
        &[
            r#"Digest username="""#,
            r#"Digest username=" ""#,
            "Digest username=",
            r#"Digest username="alice smith""#,
            r#"Digest username="{ID}""#,
            r#"Digest username="urn:ID""#,
            r#"Digest username="uuid:home""#,
            r#"Digest username="uuid:uuid:ID""#,
            r#"Digest username="ID:""#,
            r#"Digest username="%32f402f80-da50-41e1-9b23-0123456789ab""#,
            &format!(r#"Digest username="{long}""#),
        ],
    );
}

#[test]
fn an_id_may_be_typed_as_a_uri_and_with_spaces_around_it() {
    all_are(
        FOUND,
        &[
            r#"Digest username="uuid:ID""#,
            r#"Digest username="Uuid:ID""#,
            r#"Digest username="urn:uuid:ID""#,
            r#"Digest username="URN:Uuid:ID""#,
            r#"Digest username="ID ""#,
            r#"Digest username="  ID""#,
            "Digest username=\"\tuuid: ID \"",
            "Digest username*=UTF-8''%20uuid%3AID%20",
            "Digest username=uuid:ID",
        ],
    );
    for pair in ["ID :x", " ID:x", "uuid:ID:x", "uuid:ID", "urn:uuid:ID:x", " uuid: ID :x", "UuId:ID:a:b"] {
        assert_eq!(basic(&pair.replace("ID", UUID)), FOUND, "{pair}");
    }
}

#[test]
fn a_user_that_may_be_a_host_name_is_returned_for_the_caller_to_look_up() {
    let longest = "a".repeat(253);
    for user in ["home", "Home-2", "home.example.org", "a_b", "2f402f80-da50-41e1-9b23-0123456789a", &longest]
    {
        all_are(
            name(user),
            &[&format!(r#"Digest username="{user}""#), &format!("Digest username= {user} ,x=1")],
        );
        assert_eq!(basic(&format!(" {user} :secret")), name(user));
    }
    assert_eq!(basic("uuid:secret"), name("uuid"));
}

#[test]
fn a_hashed_user_names_nobody() {
    all_are(
        Unidentified,
        &[
            r#"Digest username="ID", userhash=true"#,
            r#"Digest userhash="true", username="ID""#,
            r#"Digest username*=UTF-8''ID, userhash=true"#,
        ],
    );
    all_are(FOUND, &[r#"Digest username="ID", userhash=false"#]);
}

#[test]
fn another_scheme_names_nobody() {
    all_are(
        Unidentified,
        &[
            "Bearer ID",
            "Negotiate YII=",
            r#"Digestusername="ID""#,
            r#"Digest,username="ID""#,
            r#"Digest-MD5 username="ID""#,
            r#"username="ID""#,
            "Basic: x",
        ],
    );
}

#[test]
fn what_clients_forget_beside_the_user_does_no_harm() {
    all_are(
        FOUND,
        &[
            // Ruby's net-http-digest_auth.
            r#"Digest username="ID", realm="rendezvous", algorithm=MD5, qop=auth, auth-int, uri="/", nonce="00", nc=00000000, cnonce="0a4f113b", response="66", opaque="a0""#,
            // Ruby's rack and older scripts, which take the challenge apart at its commas.
            r#"Digest username="ID", realm="rendezvous", qop="auth, response="66", nc=1"#,
            r#"Digest qop="auth, username="ID", response="66""#,
            r#"Digest qop=auth", username="ID""#,
            r#"Digest username="ID", stale, realm="x""#,
            r#"Digest stale username="ID""#,
            r#"Digest username="ID"; realm="x""#,
            r#"Digest realm=x;username=ID"#,
            r#"Digest username="ID";"#,
            r#"Digest username="ID" realm="x""#,
            r#"Digest username="ID"realm="x""#,
            r#"Digest username=ID realm=x"#,
            r#"Digest username="ID", junk"#,
            r#"Digest ="x", username="ID""#,
            r#"Digest username="ID", realm="x"#,
            r#"Digest username="ID", realm=""#,
            r#"Digest username="ID", uri=/a"b"c"#,
            "Digest\tusername\t=\t\"ID\"\t;\tx",
        ],
    );
    all_are(name("home"), &[r#"Digest username="home", qop="auth, response="66""#]);
}

#[test]
fn a_list_without_a_user_names_nobody_whatever_its_form() {
    all_are(
        Unidentified,
        &[
            "Digest ID",
            "Digest username",
            r#"Digest "ID""#,
            r#"Digest ="ID""#,
            r#"Digest username: "ID""#,
            r#"Digest realm="x\"#,
            r#"Digest xusername="ID", realm="x"#,
        ],
    );
}

#[test]
fn a_user_whose_end_is_in_doubt_is_malformed() {
    all_are(
        Malformed,
        &[
            r#"Digest username="ID"#,
            r#"Digest username="ID\""#,
            r#"Digest username="ID, realm="x""#,
            r#"Digest username*="UTF-8''ID"#,
            r#"Digest username=ID"x""#,
        ],
    );
}

#[test]
fn two_users_that_differ_are_malformed() {
    const OTHER: &str = "00000000-0000-0000-0000-000000000000";
    for value in [
        r#"Digest username="ID", username="OTHER""#,
        r#"Digest username="ID", USERNAME=OTHER"#,
        r#"Digest username="ID", username*=UTF-8''OTHER"#,
        r#"Digest username*=UTF-8''ID, username="", userhash=true"#,
        r#"Digest username="ID", username="home""#,
        r#"Digest username="alice smith", username="alice jones""#,
        r#"Digest username="ID"; username=OTHER"#,
        // Whether the second one is inside a string depends on where the parser thinks that strings begin.
        r#"Digest username="ID", qop="auth, username="OTHER", response="66""#,
        r#"Digest realm="x, username="ID", uri="/?a, username=OTHER"#,
        r#"Digest username="ID", realm="a \"b, username=OTHER, c"#,
    ] {
        let value = value.replace("OTHER", OTHER).replace("ID", UUID);
        assert_eq!(identify(value.as_bytes()), Malformed, "{value}");
    }
}

#[test]
fn one_user_that_is_repeated_is_no_doubt() {
    all_are(
        FOUND,
        &[
            r#"Digest username="ID", username="ID""#,
            r#"Digest username="ID", USERNAME=uuid:ID"#,
            r#"Digest username="ID", username*=UTF-8''ID"#,
        ],
    );
}

#[test]
fn basic_names_the_id_before_the_first_colon() {
    for password in ["", "secret", ":", "a:b", "pässword"] {
        assert_eq!(basic(&format!("{UUID}:{password}")), FOUND, "{password:?}");
    }
    assert_eq!(basic(&format!("{}:", UUID.to_uppercase())), FOUND);
}

#[test]
fn basic_with_another_user_names_nobody() {
    for pair in [":", ":secret", "alice smith:secret", &format!(":{UUID}"), &format!("{{{UUID}}}:"), "é:é"]
    {
        assert_eq!(basic(pair), Unidentified, "{pair}");
    }
}

#[test]
fn basic_without_a_colon_is_malformed() {
    assert_eq!(basic(UUID), Malformed);
    all_are(Malformed, &["Basic", "Basic "]);
}

#[test]
fn basic_may_be_without_padding_and_in_the_url_safe_alphabet() {
    // Three lengths of password for three lengths of padding, and bytes whose BASE64 has `+` and `/`.
    for password in ["", "p", "pw", "\u{3fb}\u{3ff}~~~???", "\u{fffd}"] {
        let pair = format!("{UUID}:{password}");
        let padded = BASE64.encode(pair.as_bytes());
        let url_safe = padded.replace('+', "-").replace('/', "_");
        for text in [&padded, &url_safe] {
            assert_eq!(identify(format!("Basic {text}").as_bytes()), FOUND, "{text}");
            assert_eq!(identify(format!("Basic {}", text.trim_end_matches('=')).as_bytes()), FOUND, "{text}");
        }
    }
}

#[test]
fn basic_in_bad_base64_is_malformed() {
    let good = BASE64.encode(format!("{UUID}:p").as_bytes());
    assert_eq!(identify(format!("Basic  {good} ").as_bytes()), FOUND);
    for bad in [
        format!("{good}="),
        format!("{good}!"),
        good[1..].to_owned(),
        format!("{good} {good}"),
        format!("{good}, realm=x"),
        format!("\"{good}\""),
        format!("{UUID}:"),
    ] {
        assert_eq!(identify(format!("Basic {bad}").as_bytes()), Malformed, "{bad}");
    }
}

#[test]
fn bytes_that_are_no_text_do_no_harm() {
    assert_eq!(identify(b"Digest username=\"\xff\xfe\""), Unidentified);
    assert_eq!(identify(b"\xff\xfe \xff"), Unidentified);
    let named = [b"Digest realm=\"\xe9\xff\", username=".as_slice(), UUID.as_bytes()].concat();
    assert_eq!(identify(&named), FOUND);
}

#[test]
fn the_challenge_offers_digest_and_then_basic_in_a_line_each() {
    let mut out = b"before".to_vec();
    write_challenge(&[0x0f; 16], &[0xa0; 16], &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "beforeWWW-Authenticate: Digest realm=\"rendezvous\", qop=\"auth, auth-int\", \
         nonce=\"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f\", opaque=\"a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0\"\r\n\
         WWW-Authenticate: Basic realm=\"rendezvous\"\r\n"
    );
}
