//! IDs: valid and invalid texts, and the written form.

use rendezvous_core::id::Id;

const TEXT: &str = "2f402f80-da50-41e1-9b23-0123456789ab";
const VALUE: u128 = 0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab;

#[test]
fn an_id_is_read_as_the_number_that_it_is() {
    assert_eq!(Id::parse(TEXT.as_bytes()), Some(Id(VALUE)));
}

#[test]
fn upper_and_lower_case_are_the_same_id() {
    assert_eq!(Id::parse(TEXT.to_uppercase().as_bytes()), Some(Id(VALUE)));
    assert_eq!(Id::parse(b"2F402f80-dA50-41e1-9B23-0123456789aB"), Some(Id(VALUE)));
}

#[test]
fn an_id_is_written_in_lower_case_with_hyphens() {
    assert_eq!(Id(VALUE).to_string(), TEXT);
    assert_eq!(Id(1).to_string(), "00000000-0000-0000-0000-000000000001");
    assert_eq!(Id(u128::MAX).to_string(), "ffffffff-ffff-ffff-ffff-ffffffffffff");
}

#[test]
fn debug_shows_the_text_form() {
    assert_eq!(format!("{:?}", Id(VALUE)), format!("Id({TEXT})"));
}

#[test]
fn any_version_and_the_nil_uuid_are_ids() {
    for value in [0, u128::MAX, 0x1234_5678_9abc_1def_8123_4567_89ab_cdef] {
        assert_eq!(Id::parse(Id(value).to_string().as_bytes()), Some(Id(value)));
    }
}

#[test]
fn every_other_way_to_write_a_uuid_is_refused() {
    for text in [
        "",
        "-",
        "2f402f80da5041e19b230123456789ab",
        "{2f402f80-da50-41e1-9b23-0123456789ab}",
        "urn:uuid:2f402f80-da50-41e1-9b23-0123456789ab",
        "2f402f80-da50-41e1-9b23-0123456789a",
        "2f402f80-da50-41e1-9b23-0123456789abc",
        "2f402f80-da50-41e1-9b23-0123456789ag",
        "2f402f80-da50-41e1-9b2-30123456789ab",
        "2f402f80_da50_41e1_9b23_0123456789ab",
        "2f402f8--da50-41e1-9b23-0123456789ab",
        " f402f80-da50-41e1-9b23-0123456789ab",
        "+f402f80-da50-41e1-9b23-0123456789ab",
        "%32f402f80-da50-41e1-9b23-0123456789",
        "2f402f80-da50-41e1-9b23-0123456789ab ",
        "2f402f80-da50-41e1-9b23-0123456789é",
    ] {
        assert_eq!(Id::parse(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    assert_eq!(Id::parse(&[0xff; 36]), None);
    assert_eq!(Id::parse(&[0; 36]), None);
}
