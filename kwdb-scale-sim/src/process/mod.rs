//! The twin as processes: nodes that are started with the `kwbase` command line, answer on real ports and die of
//! real signals.
//!
//! The cluster lives in one *lab* process, which turns real time into the model's time by a speed factor. A node is
//! a process of its own that holds the ports and passes bytes between its clients and the lab: when it is killed its
//! connections break, and the model sees the node fall silent. Both are the calling executable started again: see
//! [`hook`]. How a lab is made: [`crate::lab`]. The same ports without any process, for tests: [`Listeners`].

mod cert;
mod client;
mod command;
mod hub;
pub(crate) mod lab;
mod listeners;
mod node;
mod rpc;
mod sql;
mod statement;
mod store;
pub(crate) mod wire;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::ToSocketAddrs as _;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, exit};

pub use listeners::{Listeners, Pace, free_addresses};
#[cfg(target_os = "linux")]
pub(crate) use store::random;
pub(crate) use store::write_private;

/// Says which part the process is to play.
pub(crate) const ROLE: &str = "KWDB_SCALE_SIM_ROLE";
/// The lab's directory.
pub(crate) const LAB: &str = "KWDB_SCALE_SIM_LAB";
/// Where `start --background` waits for its child's word that it is ready.
const READY: &str = "KWDB_SCALE_SIM_READY";

/// The parts of [`ROLE`].
pub(crate) const ROLE_LAB: &str = "lab";
pub(crate) const ROLE_KWBASE: &str = "kwbase";
pub(crate) const ROLE_DETACH: &str = "detach";
pub(crate) const ROLE_INIT: &str = "init";

/// To be called first in `main` of every executable that makes labs of twin nodes.
///
/// When the process was started to play a part of the twin (its environment says so) this plays it and never
/// returns. Otherwise it returns at once.
///
/// ```
/// // First in main:
/// kwdb_scale_sim::process::hook();
/// // The program itself.
/// ```
pub fn hook() {
    let Ok(role) = env::var(ROLE) else { return };
    let dir = env::var_os(LAB).map(PathBuf::from).unwrap_or_default();
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    exit(match role.as_str() {
        ROLE_LAB => lab::main(&dir),
        ROLE_DETACH => detach(args),
        ROLE_INIT => init(),
        ROLE_KWBASE => {
            kwbase(&dir, &args.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>())
        }
        _ => {
            eprintln!("{ROLE} is not a part of the twin: {role}");
            2
        }
    })
}

/// Becomes the given program in a session of its own, so that no terminal's signals reach it.
fn detach(args: Vec<OsString>) -> i32 {
    let mut args = args.into_iter();
    let Some(program) = args.next() else { return 2 };
    // Fails only for a process that leads its group, which then has a session to itself in practice.
    let _ = rustix::process::setsid();
    let error = Command::new(&program).args(args).env_remove(ROLE).env_remove(LAB).exec();
    eprintln!("cannot start {}: {error}", program.display());
    127
}

/// The first process of a host that is a process namespace: takes the end of whoever nobody else waits for. It ends
/// with the namespace.
fn init() -> i32 {
    loop {
        if rustix::process::wait(rustix::process::WaitOptions::empty()).is_err() {
            // Nobody is there yet, or no longer.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn kwbase(dir: &std::path::Path, args: &[String]) -> i32 {
    match args.first().map(String::as_str) {
        Some("cert") => cert::main(args),
        Some(command) if command.starts_with("start") => node::main(dir, args),
        _ => client::main(args),
    }
}

/// Prints to standard output and standard error. A reader that went away is no concern of a node's.
fn print(out: &str, err: &str) {
    let _ = io::stdout().write_all(out.as_bytes()).and_then(|()| io::stdout().flush());
    let _ = io::stderr().write_all(err.as_bytes());
}

/// `host:port` as a socket address. A name is resolved, to an IPv4 address where it has one, as by the real one.
fn socket_address(address: &str) -> Option<std::net::SocketAddr> {
    let found: Vec<std::net::SocketAddr> = address.to_socket_addrs().ok()?.collect();
    found.iter().find(|a| a.is_ipv4()).or_else(|| found.first()).copied()
}
