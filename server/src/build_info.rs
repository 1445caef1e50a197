//! What this program was built from: `rendezvous --version --verbose`. The build script sets the values.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, `-modified` behind it if files of the program were changed since. `unknown` in a debug build, and in one
/// from sources that come neither from a repository nor from `cargo package`.
pub const COMMIT: &str = env!("RENDEZVOUS_COMMIT");
/// The features, in alphabetical order, separated by a comma and a space.
pub const FEATURES: &str = env!("RENDEZVOUS_FEATURES");
/// The target triple.
pub const TARGET: &str = env!("RENDEZVOUS_TARGET");
/// The library that implements the cryptography of TLS.
pub const CRYPTOGRAPHY: &str = if cfg!(feature = "aws-lc-rs") { "AWS-LC (aws-lc-rs)" } else { "ring" };

/// The time of the sources that it was built from, in seconds since 1970; 0 if it is not known. No correct clock is earlier.
#[must_use]
pub fn source_time() -> u64 {
    env!("RENDEZVOUS_SOURCE_TIME").parse().unwrap_or(0)
}

/// The text of `--version --verbose`: the version, then one line for each of the other values.
pub fn text() -> String {
    format!(
        "rendezvous {VERSION}\n\
         commit: {COMMIT}\n\
         features: {FEATURES}\n\
         cryptography: {CRYPTOGRAPHY}\n\
         target: {TARGET}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_time_of_the_sources_is_in_the_past() {
        let first = 1_760_000_000;
        assert!((first..=clock::wall()).contains(&source_time()), "{}", source_time());
    }
}
