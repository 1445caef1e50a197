//! A small XML tree, parsed from a stanza or to be written as one.
//!
//! Attributes with a namespace (`xml:lang`) and the position of text between children are not kept, since they are
//! not used.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rxml::Namespace;

/// An element with its attributes, its children and its own text.
#[derive(Clone, PartialEq, Eq)]
pub struct Element {
    namespace: Namespace<'static>,
    name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    /// An empty element; `name` has no prefix.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self::of(Namespace::from(String::from(namespace)), String::from(name))
    }

    /// Used by the parser: elements of one namespace share its text.
    pub(super) const fn of(namespace: Namespace<'static>, name: String) -> Self {
        Self { namespace, name, attributes: Vec::new(), children: Vec::new(), text: String::new() }
    }

    /// Adds an attribute with a new name.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.add_attribute(String::from(name), String::from(value));
        self
    }

    /// Adds a child.
    #[must_use]
    pub fn with_child(mut self, child: Self) -> Self {
        self.add_child(child);
        self
    }

    /// Adds text.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        self.add_text(text);
        self
    }

    pub(super) fn add_attribute(&mut self, name: String, value: String) {
        debug_assert!(self.attribute(&name).is_none(), "an attribute twice");
        self.attributes.push((name, value));
    }

    pub(super) fn add_child(&mut self, child: Self) {
        self.children.push(child);
    }

    pub(super) fn add_text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Its namespace; empty for none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name, without a prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has this namespace and name.
    #[must_use]
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace() == namespace
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Its children, in the order of the document.
    #[must_use]
    pub fn children(&self) -> &[Self] {
        &self.children
    }

    /// Its children of this name and of its own namespace, in the order of the document.
    pub fn each<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.is(self.namespace(), name))
    }

    /// Its own text, without that of its children.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends its XML for an element whose default namespace is `outer`.
    pub fn write(&self, outer: &str, out: &mut Vec<u8>) {
        out.push(b'<');
        out.extend_from_slice(self.name.as_bytes());
        if self.namespace() != outer {
            write_attribute("xmlns", self.namespace(), out);
        }
        for (name, value) in &self.attributes {
            write_attribute(name, value, out);
        }
        if self.children.is_empty() && self.text.is_empty() {
            return out.extend_from_slice(b"/>");
        }
        out.push(b'>');
        escape(&self.text, out);
        for child in &self.children {
            child.write(self.namespace(), out);
        }
        out.extend_from_slice(b"</");
        out.extend_from_slice(self.name.as_bytes());
        out.push(b'>');
    }
}

/// Hides values and text, since keys and stream ids are secret.
impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.attributes.iter().map(|(name, _)| name).collect::<Vec<_>>();
        let mut shown = f.debug_struct(&self.name);
        shown.field("xmlns", &self.namespace()).field("attributes", &names).field("children", &self.children);
        shown.finish_non_exhaustive()
    }
}

/// Appends ` name='value'`.
pub(super) fn write_attribute(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape(value, out);
    out.push(b'\'');
}

/// Appends text escaped for an attribute or for content: XML's special characters, and white space that a parser
/// would normalise, become references. Characters that XML does not allow become U+FFFD.
fn escape(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        let mut itself = [0; 4];
        let reference = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '\'' => "&apos;",
            '"' => "&quot;",
            '\t' => "&#9;",
            '\n' => "&#10;",
            '\r' => "&#13;",
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => "\u{fffd}",
            _ => c.encode_utf8(&mut itself),
        };
        out.extend_from_slice(reference.as_bytes());
    }
}
