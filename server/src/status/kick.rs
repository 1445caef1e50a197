//! The request to end connections, and its answer: JSON objects at `/api/kick`.

use miniserde::{Deserialize, Serialize};
use rendezvous_core::engine::Kick;
use rendezvous_core::machine::ConnId;
use rendezvous_core::prefix::Prefix;

use crate::ids::is_name;
use crate::logging::Names;

/// What to end: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// A connection, as logs and lists show it.
    pub conn: Option<String>,
    /// The operator's name of a hidden server.
    pub name: Option<String>,
    /// An address, or a range of them.
    pub from: Option<String>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Ended {
    /// The number of connections that were ended.
    pub ended: u32,
    /// The number of older processes that were told to end theirs, if there are any.
    pub older: Option<u32>,
}

impl Ended {
    /// The answer as text.
    #[must_use]
    pub fn text(&self) -> String {
        let older = self.older.map_or_else(String::new, |older| format!(",\"older\":{older}"));
        format!("{{\"ended\":{}{older}}}\n", self.ended)
    }
}

impl Request {
    /// The request for what an operator types.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let given = Some(text.to_owned());
        if conn(text).is_some() {
            Some(Self { conn: given, ..<Self as Default>::default() })
        } else if text.parse::<Prefix>().is_ok() {
            Some(Self { from: given, ..<Self as Default>::default() })
        } else {
            is_name(text).then(|| Self { name: given, ..<Self as Default>::default() })
        }
    }

    /// What the engine ends; `None` if the request is malformed, or no hidden server has the name.
    #[must_use]
    pub fn resolve(&self, names: &Names) -> Option<Kick> {
        match (&self.conn, &self.name, &self.from) {
            (Some(text), None, None) => conn(text).map(Kick::Conn),
            (None, Some(name), None) => {
                names.0.iter().find(|(_, known)| *known == name).map(|(id, _)| Kick::Id(*id))
            }
            (None, None, Some(text)) => text.parse().ok().map(Kick::From),
            _ => None,
        }
    }
}

/// Parses `INDEX.GENERATION`.
fn conn(text: &str) -> Option<ConnId> {
    let number = |text: &str| {
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_digits.then(|| text.parse().ok())?
    };
    let (index, generation) = text.split_once('.')?;
    Some(ConnId { index: number(index)?, generation: number(generation)? })
}

#[cfg(test)]
mod tests {
    use rendezvous_core::id::Id;

    use super::*;

    #[test]
    fn the_answer_is_read_as_it_was_written() {
        for (ended, older, text) in
            [(1, None, "{\"ended\":1}\n"), (0, Some(2), "{\"ended\":0,\"older\":2}\n")]
        {
            let answer = Ended { ended, older };
            assert_eq!(answer.text(), text);
            assert_eq!(miniserde::json::from_str::<Ended>(text).ok(), Some(answer));
        }
    }

    #[test]
    fn connections_addresses_and_names_are_told_apart() {
        let of = |text: &str| {
            let request = Request::parse(text)?;
            request.resolve(&Names([(Id(7), "home".to_owned()), (Id(8), "10.x".to_owned())].into()))
        };
        assert_eq!(of("12.345"), Some(Kick::Conn(ConnId { index: 12, generation: 345 })));
        assert_eq!(of("home"), Some(Kick::Id(Id(7))));
        assert_eq!(of("10.x"), Some(Kick::Id(Id(8))));
        assert!(matches!(of("192.0.2.7"), Some(Kick::From(_))));
        assert!(matches!(of("2001:db8::/32"), Some(Kick::From(_))));
        for text in ["", "other", "1.2.3", "-", "a b", "99999999999.1", "+1.2"] {
            assert_eq!(of(text), None, "{text}");
        }
        let two = Request { conn: Some("1.2".to_owned()), name: Some("home".to_owned()), from: None };
        assert_eq!(two.resolve(&Names::default()), None);
    }
}
