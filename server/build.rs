//! Linker options that shrink a program built with the profile `small`, or with the same optimisation level.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=small.ld");
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
