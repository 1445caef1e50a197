//! `--deny-file`: the addresses from which a relay accepts no connection.

use std::path::Path;

use rendezvous_core::prefix::Prefix;

use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::options::value;

/// Reads a file with one `ADDR` or `ADDR/BITS` in each line. Empty lines and text after `#` are ignored.
///
/// # Errors
///
/// [`Failure::Failed`] if the file cannot be read, or with the number of the first invalid line.
pub fn read(path: &Path) -> Result<Vec<Prefix>, Failure> {
    let at = |line: usize, why: &str| Failure::Failed(format!("{}:{line}: {why}", path.display()));
    let text = files::read_text(path, FileKind::DENY)?.map_err(|line| at(line, "not UTF-8"))?;
    let mut prefixes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let word = line.split('#').next().unwrap_or_default().trim();
        if !word.is_empty() {
            prefixes.push(value::prefix(word).map_err(|why| at(number + 1, &why))?);
        }
    }
    Ok(prefixes)
}
