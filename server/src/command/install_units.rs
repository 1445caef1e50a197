//! `rendezvous install-units`: writes the systemd units, with the place of this program in them.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::console::print;
use crate::failure::Failure;
use crate::linux::files::{DirBuilderExt as _, OpenOptionsExt as _, set_mode_of};
use crate::options::value::path;
use crate::options::{Opt, Spec, parse};

pub(super) const SPEC: Spec = Spec {
    command: "install-units",
    operands: &[],
    summary: "Writes the systemd units of relay, agents and stream proxy, for this program where it is.",
    options: &[
        Opt::one("root", "DIR", "/", "write below this folder instead"),
        Opt::one(
            "program",
            "FILE",
            "this program, or its copy in /usr/local/bin if it is in a home folder",
            "the program that the units start",
        ),
    ],
    footer: "\
It writes /etc/systemd/system/rendezvous*, and /etc/rendezvous/relay.conf and agents/ if they are missing.
The units hide home folders from the program, so a program in one ('cargo install') is copied to
/usr/local/bin first. Packages bring units of their own; those in /etc take precedence.
'systemctl daemon-reload' then makes systemd read them.",
};

/// The units: file names and contents.
const UNITS: &[(&str, &str)] = &[
    ("rendezvous.service", include_str!("../../dist/rendezvous.service")),
    ("rendezvous.socket", include_str!("../../dist/rendezvous.socket")),
    ("rendezvous-agent@.service", include_str!("../../dist/rendezvous-agent@.service")),
    ("rendezvous-proxy.service", include_str!("../../dist/rendezvous-proxy.service")),
];
/// The relay's options, if there are none.
const RELAY_CONF: &str = include_str!("../../dist/relay.conf");
/// The program in the units of the source.
const PACKAGED: &str = "/usr/bin/rendezvous";
/// Where a program that the units cannot see is copied.
const COPY: &str = "/usr/local/bin/rendezvous";
/// Folders that `ProtectHome=yes` hides.
const HIDDEN: &[&str] = &["/home", "/root", "/run/user"];

/// Runs the command with the arguments after its name.
///
/// # Errors
///
/// [`Failure`] for invalid options, or if a file cannot be written.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let root = matches.get_if("root", path)?.unwrap_or_else(|| PathBuf::from("/"));
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let mut report = String::new();
    let program = match matches.get_if("program", path)? {
        Some(given) if !given.is_absolute() => {
            return Err(Failure::Usage(format!("--program: '{}' is not an absolute path", given.display())));
        }
        Some(given) => given,
        None => {
            let own = std::env::current_exe()
                .map_err(|error| Failure::of_file("find", Path::new("this program"), &error))?;
            if HIDDEN.iter().any(|folder| own.starts_with(folder)) {
                copy_program(&own, &below(COPY))?;
                report.push_str(&format!("copied {} to {}\n", own.display(), below(COPY).display()));
                PathBuf::from(COPY)
            } else {
                own
            }
        }
    };
    let program = quoted(&program)?;
    let units = below("/etc/systemd/system");
    make_folder(&units, 0o755)?;
    for (name, text) in UNITS {
        let path = units.join(name);
        let text = text.replace(PACKAGED, &program);
        fs::write(&path, text).map_err(|error| Failure::of_file("write", &path, &error))?;
        report.push_str(&format!("wrote {}\n", path.display()));
    }
    make_folder(&below("/etc/rendezvous"), 0o755)?;
    make_folder(&below("/etc/rendezvous/agents"), 0o700)?;
    let conf = below("/etc/rendezvous/relay.conf");
    let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&conf);
    match made.and_then(|mut file| file.write_all(RELAY_CONF.as_bytes())) {
        Ok(()) => report.push_str(&format!("wrote {}\n", conf.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            report.push_str(&format!("kept {}\n", conf.display()));
        }
        Err(error) => return Err(Failure::of_file("write", &conf, &error)),
    }
    report.push_str(
        "\nNext:\n\n    systemctl daemon-reload\n    \
         rendezvous id add home --state /var/lib/rendezvous --relay https://THIS-HOST\n    \
         systemctl enable --now rendezvous.socket rendezvous.service\n",
    );
    print(&report)
}

/// Copies the program. A running one is replaced, not written to.
fn copy_program(from: &Path, to: &Path) -> Result<(), Failure> {
    make_folder(to.parent().unwrap_or(Path::new("/")), 0o755)?;
    let new = to.with_extension("new");
    fs::copy(from, &new).map_err(|error| Failure::of_file("write", &new, &error))?;
    let mode = set_mode_of(&new, 0o755);
    mode.and_then(|()| fs::rename(&new, to)).map_err(|error| Failure::of_file("write", to, &error))
}

fn make_folder(folder: &Path, mode: u32) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(folder);
    made.map_err(|error| Failure::of_file("make", folder, &error))
}

/// The program as `ExecStart=` takes it: in quotes, with specifiers and variables escaped (systemd.service(5)).
fn quoted(program: &Path) -> Result<String, Failure> {
    let text = program.to_str().filter(|text| !text.chars().any(char::is_control)).ok_or_else(|| {
        Failure::Failed(format!("cannot name {} in a unit: use --program", program.display()))
    })?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '%' | '$' => quoted.extend([letter, letter]),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_special_name_is_quoted_for_systemd() {
        let of = |text: &str| quoted(Path::new(text)).unwrap();
        assert_eq!(of("/usr/local/bin/rendezvous"), "/usr/local/bin/rendezvous");
        assert_eq!(of(r#"/opt/a b/50%/$x"y"#), r#""/opt/a b/50%%/$$x\"y""#);
        assert!(quoted(Path::new("/a\nb")).is_err());
    }

    #[test]
    fn every_unit_starts_the_packaged_program_before_it_is_replaced() {
        for (name, text) in UNITS.iter().filter(|(name, _)| name.ends_with(".service")) {
            assert!(text.contains(&format!("\nExecStart={PACKAGED} ")), "{name}");
        }
    }
}
