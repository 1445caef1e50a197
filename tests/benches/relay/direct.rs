//! A stream of `rendezvous connect` past the relay, beside the same one through it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::args::Args;
use crate::field::Field;
use crate::process::PATIENCE;
use crate::report::{Quantity, Report};
use crate::{Failure, Scenario};

const THROUGHPUT: Quantity = Quantity { name: "throughput", unit: "MB/s" };
/// Bytes of one stream, from the service to the client.
const BYTES: usize = 512 << 20;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario { name: "direct and relayed".to_owned(), run: Box::new(run) }]
}

/// A program of ours, killed when it is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Result<Program, Failure> {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Program(quiet.spawn()?))
}

fn run(field: &mut Field, args: &Args, report: &mut Report) -> Result<(), Failure> {
    let ground = &field.ground;
    let folder = ground.new_folder()?;
    let bytes = args.load(BYTES);
    let service = serve(bytes)?;
    let at = free_port()?;
    let (state, ticket) = (folder.join("state"), folder.join("home.ticket"));
    let mut add = Command::new(&ground.binary);
    add.args(["id", "add", "home", "--relay", &format!("https://{at}"), "--state"]).arg(&state);
    let added = add.arg("--out").arg(&ticket).stdout(Stdio::null()).status()?;
    if !added.success() {
        return Err("no ticket could be made".into());
    }
    let (id, pin) = read(&ticket)?;
    let mut relay = Command::new("taskset");
    relay.args(["-c", "0"]).arg(&ground.binary).args(["serve", "--listen", &at.to_string(), "--state"]);
    let _relay = start(relay.arg(&state))?;
    await_listener(at)?;
    let mut agent = Command::new(&ground.binary);
    agent
        .args(["agent", "--stream", &service.to_string(), "--direct", "127.0.0.1:0", "--ticket"])
        .arg(&ticket);
    let _agent = start(&mut agent)?;
    for _ in 0..args.rounds {
        for (name, wish) in [("direct", "require"), ("relayed", "off")] {
            let mut connect = Command::new(&ground.binary);
            connect.args(["connect", &format!("https://{at}"), &id, "--pin", &pin]);
            connect.args(["--direct", wish, "--direct-timeout", "20", "--direct-allow", "loopback"]);
            report.sample(name, THROUGHPUT, receive(&mut connect, bytes)?);
        }
    }
    Ok(())
}

/// Serves this many bytes to each connection.
fn serve(bytes: usize) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        let block = vec![0x5a; 1 << 20];
        while let Ok((mut stream, _)) = listener.accept() {
            let mut left = bytes;
            while left > 0 && stream.write_all(&block[..left.min(block.len())]).is_ok() {
                left -= left.min(block.len());
            }
        }
    });
    Ok(at)
}

/// Megabytes per second, from the first bytes to the end.
fn receive(connect: &mut Command, bytes: usize) -> Result<f64, Failure> {
    let mut program = Program(connect.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let mut from = program.0.stdout.take().ok_or("its output is piped")?;
    let mut block = vec![0; 1 << 20];
    let first = from.read(&mut block)?;
    let began = Instant::now();
    let mut got = first;
    loop {
        match from.read(&mut block)? {
            0 => break,
            bytes => got += bytes,
        }
    }
    if got != bytes {
        return Err(format!("{got} of {bytes} bytes came").into());
    }
    Ok((got - first) as f64 / 1e6 / began.elapsed().as_secs_f64())
}

fn free_port() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn await_listener(at: SocketAddr) -> Result<(), Failure> {
    let began = Instant::now();
    while TcpStream::connect(at).is_err() {
        if began.elapsed() > PATIENCE {
            return Err("the relay does not listen".into());
        }
        thread::yield_now();
    }
    Ok(())
}

/// The ID and the pin in a ticket.
fn read(ticket: &Path) -> Result<(String, String), Failure> {
    let text = fs::read_to_string(ticket)?;
    let id = text
        .split_once("rendezvous:")
        .and_then(|(_, rest)| rest.get(..36))
        .ok_or("a ticket without an ID")?;
    let pin = text.lines().find_map(|line| line.strip_prefix("pin ")).ok_or("a ticket without a pin")?;
    Ok((id.to_owned(), pin.to_owned()))
}
