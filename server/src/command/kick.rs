//! `rendezvous kick`: ends connections at a running relay.

use miniserde::json;

use crate::console::print;
use crate::failure::Failure;
use crate::options::{STATE, Spec, parse};
use crate::state;
use crate::status::control;
use crate::status::kick::{Ended, Request};
use crate::status::socket;

/// The options of `kick`.
pub(super) const SPEC: Spec = Spec {
    command: "kick",
    operands: &["TARGET"],
    summary: "Ends connections at a running relay: one connection with the other half of its pair, all of a hidden server, or all from an address.",
    options: &[STATE],
    footer: "\
TARGET is a connection, a name or an address. A connection is the first column of 'rendezvous status --connections', such
as 12.345; an address may be a range, such as 192.0.2.0/24. Prints how many connections were ended; exit code 1 if there
were none. What was ended may connect again: use 'id set NAME --disable', 'id set NAME --deny' or 'serve --deny-file' to
prevent it.",
};

/// Runs the command with the arguments after its name.
///
/// # Errors
/// [`Failure`] for invalid arguments, if no relay runs, or if no connection was ended.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let folder = state::find(matches.one("state"))?;
    let what = matches.operands().first().map_or("", String::as_str);
    let request = Request::parse(what).ok_or_else(|| {
        Failure::Usage(format!("'{what}' is not a connection, a name or an address: 12.345, home, 192.0.2.7"))
    })?;
    let answer = control::post(&folder, "/api/kick", &json::to_string(&request))
        .map_err(|error| socket::no_response(&folder, control::NAME, &error))?;
    let Ended { ended, older } = json::from_str(&answer)
        .map_err(|_| Failure::Failed("the relay's answer is from another version".to_owned()))?;
    if let Some(older @ 1..) = older {
        return print(&format!("ended {ended}, and told {older} older processes\n"));
    }
    if ended == 0 {
        return Err(Failure::Failed(format!("there is no connection of '{what}'")));
    }
    print(&format!("ended {ended}\n"))
}
