//! What the linker leaves out of a program of the profile `small`; it does nothing in any other.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=small.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
    // A build script does not learn the profile's name; `small` alone is optimised like this.
    if !is("OPT_LEVEL", "z") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    // Tables for unwinding come with std and with C, whatever the profile says of panics: an eighth of the program. An
    // index of them has nothing to point to then.
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rustc-link-arg-bins=-T{folder}/small.ld");
    println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    // Relative relocations as a bitmap, instead of 24 octets for each. glibc loads that from 2.36 (2022) on, and an older
    // one says that it can't. musl's ways differ from version to version, so that it gets what all of them load.
    if is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
