//! The status document in slices: it has all IDs, however many there are.

use miniserde::json;

use super::document::{Document, Enrolled};

/// The list of IDs in a document without any.
const NO_IDS: &str = "\"ids\":[]";

/// A document that is written in slices.
#[derive(Debug)]
pub struct Slices {
    /// The text in front of the IDs, until it is written.
    begin: Option<String>,
    ids: std::vec::IntoIter<Enrolled>,
    is_first: bool,
    end: String,
}

impl Slices {
    /// The slices of a document.
    #[must_use]
    pub fn new(mut document: Document) -> Self {
        let ids = std::mem::take(&mut document.ids);
        document.ids_left_out = 0;
        let text = json::to_string(&document);
        // Within strings a quote has a backslash in front of it.
        let (begin, end) = text.split_once(NO_IDS).unwrap_or((&text, ""));
        Self {
            begin: Some(format!("{begin}\"ids\":[")),
            ids: ids.into_iter(),
            is_first: true,
            end: format!("]{end}\n"),
        }
    }

    /// Appends the next slice, of about `enough` bytes. Returns whether more follow.
    pub fn next(&mut self, out: &mut String, enough: usize) -> bool {
        if let Some(begin) = self.begin.take() {
            out.push_str(&begin);
        }
        while out.len() < enough {
            let Some(id) = self.ids.next() else {
                out.push_str(&self.end);
                return false;
            };
            if !std::mem::take(&mut self.is_first) {
                out.push(',');
            }
            out.push_str(&json::to_string(&id));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_any_length_are_the_whole_document() {
        let id = |name: &str| Enrolled { name: name.to_owned(), ..Enrolled::default() };
        for ids in [Vec::new(), vec![id("a")], vec![id("\"ids\":[]"), id("b"), id("c")]] {
            let document = Document { ids, version: "\"ids\":[]".to_owned(), pid: 7, ..Document::default() };
            let whole = json::to_string(&document) + "\n";
            for enough in [1, 50, 300, 10_000] {
                let (mut slices, mut text) = (Slices::new(document.clone()), String::new());
                loop {
                    let mut slice = String::new();
                    let more = slices.next(&mut slice, enough);
                    assert!(!slice.is_empty());
                    text.push_str(&slice);
                    if !more {
                        break;
                    }
                }
                assert_eq!(text, whole);
            }
        }
    }
}
