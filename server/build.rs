//! The values of `--version --verbose`, and the linker options that shrink a program built with the profile `small`, or
//! with the same optimisation level.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::UNIX_EPOCH;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=small.ld");
    build_info();
    small();
}

/// Sets the environment variables that `src/build_info.rs` compiles in.
fn build_info() {
    let mut features: Vec<String> = env::vars()
        .filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase().replace('_', "-")))
        .filter(|name| name != "default")
        .collect();
    features.sort();
    println!("cargo:rustc-env=RENDEZVOUS_FEATURES={}", features.join(", "));
    println!("cargo:rustc-env=RENDEZVOUS_TARGET={}", env::var("TARGET").expect("cargo sets it"));
    println!("cargo:rerun-if-env-changed=RENDEZVOUS_COMMIT");
    let commit = env::var("RENDEZVOUS_COMMIT").ok().or_else(packaged_commit).or_else(commit_of_repository);
    println!("cargo:rustc-env=RENDEZVOUS_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rustc-env=RENDEZVOUS_SOURCE_TIME={}", source_time());
}

/// The time of the sources, in seconds since 1970: SOURCE_DATE_EPOCH (https://reproducible-builds.org), else that of the
/// repository's commit, else that of a file. The program's clock cannot be earlier. It may be older than the sources,
/// but not newer, so that the same sources give the same program.
fn source_time() -> u64 {
    let given = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let of_commit = || {
        git(&["ls-files", "--error-unmatch", "build.rs"])?;
        git(&["log", "-1", "--format=%ct"])?.parse().ok()
    };
    let of_file = || {
        let modified = fs::metadata("Cargo.toml").and_then(|it| it.modified()).ok()?;
        Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs())
    };
    given.or_else(of_commit).or_else(of_file).unwrap_or(0)
}

/// The commit that `cargo package` noted.
fn packaged_commit() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let sha1 = text.split_once("\"sha1\"")?.1.split('"').nth(1)?;
    Some(sha1.get(..12).unwrap_or(sha1).to_owned())
}

/// The commit of this project's repository, in release builds. Debug builds would be compiled again for each commit.
fn commit_of_repository() -> Option<String> {
    if env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    // The folder can also be inside another project's repository, which does not track this file.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // Each commit and each checkout appends to this file.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    for path in
        [log.as_str(), "src", "man", "Cargo.toml", "../core/src", "../core/Cargo.toml", "../Cargo.lock"]
    {
        if Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let changed = git(&["status", "--porcelain", "--untracked-files=no", ".", "../core", "../Cargo.lock"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-modified") })
}

/// The output of git in the folder of this package; `None` if it failed.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// Linker options of the profile `small`.
fn small() {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
    // A build script does not know the profile's name; only `small` has this optimisation level.
    if !is("OPT_LEVEL", "z") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    // The startup code of a static program may refer to the unwinding tables, with glibc and musl, so GNU ld cannot
    // discard them.
    let is_static =
        env::var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|all| all.split(',').any(|it| it == "crt-static"));
    if is_static || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    // std and C bring unwinding tables even if the profile aborts on panics; they are an eighth of the program. The
    // linker script drops them, so their index is not needed either.
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rustc-link-arg-bins=-T{folder}/small.ld");
    println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    // Relative relocations as a bitmap, instead of 24 bytes each, if the C library of this system will load the
    // program and supports them.
    if env::var("HOST") == env::var("TARGET") && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this system's C library; `None` if it is another one.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?.stdout;
    let said = String::from_utf8(said).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    // Some say 2.36.1.
    let minor = minor.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
