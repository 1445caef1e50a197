//! The command line.

use std::path::PathBuf;

use crate::Failure;

/// The options; see the head of `main.rs`.
pub(crate) struct Args {
    pub(crate) only: Vec<String>,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) against: Option<PathBuf>,
    pub(crate) verbose: bool,
    pub(crate) list: bool,
}

impl Args {
    pub(crate) fn read(mut given: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut args = Self {
            only: Vec::new(),
            rounds: 0,
            quick: false,
            json: None,
            binary: None,
            against: None,
            verbose: false,
            list: false,
        };
        while let Some(option) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{option} needs a value"));
            match option.as_str() {
                "--only" => args.only.push(value()?),
                "--rounds" => args.rounds = value()?.parse().map_err(|_| "--rounds needs a number")?,
                "--quick" => args.quick = true,
                "--json" => args.json = Some(value()?.into()),
                "--binary" => args.binary = Some(value()?.into()),
                "--against" => args.against = Some(value()?.into()),
                "--verbose" => args.verbose = true,
                "--list" => args.list = true,
                // cargo passes it to every benchmark.
                "--bench" => {}
                _ => {
                    return Err(format!(
                        "unknown option {option}; see the head of tests/benches/relay/main.rs"
                    )
                    .into());
                }
            }
        }
        if args.rounds == 0 {
            args.rounds = if args.quick { 3 } else { 7 };
        }
        Ok(args)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// This amount of work, or a quarter of it with `--quick`.
    pub(crate) fn load(&self, full: usize) -> usize {
        if self.quick { full / 4 } else { full }
    }
}
