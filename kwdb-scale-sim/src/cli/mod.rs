//! The `kwbase` command line over a [`Cluster`]: the same output, on the same streams, with the same exit codes as
//! KWDB V3.2.1.
//!
//! A [`Session`] is one run of one command. It never waits: [`Session::poll`] does what can be done at the
//! cluster's present time, hands out the output since the last call, and says when to call again. [`run`] loops it
//! on the virtual clock. `node decommission --wait=all` on three nodes goes on for ever here as it does there.
//!
//! | command | |
//! |---|---|
//! | `version`, `--help` of the client commands | |
//! | `node status`, `node ls` | SQL: every format, `--ranges --stats --decommission --all`, one id |
//! | `node decommission`, `node recommission`, `node drain`, `quit`, `init` | the admin service |
//! | `cert create-ca`, `create-client-ca`, `create-node`, `create-client`, `list` | of a [lab](crate::lab)'s program only: they work on files |
//! | `start`, `start-single-replica`, `start-single-node` | see [`StartArgs`] |

pub(crate) mod args;
mod connect;
mod decommission;
mod drain;
mod format;
mod init;
mod start;
mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::version::Version;

use self::args::{Args, CLIENT, Flag};
use self::connect::Client;
use crate::model::Cluster;

pub use start::{StartArgs, WAITING, insecure_warning, store_key};

/// Where a command runs: what it finds on its machine.
#[derive(Clone, Debug, Default)]
pub struct ClientEnv {
    /// Certificate directories by path. A path that is not here does not exist.
    pub certs: BTreeMap<String, Certs>,
    /// The directory used without `--certs-dir` (`$HOME/.kwbase-certs`).
    pub default_certs: Option<String>,
    /// The machine's name; it keeps equal store paths of different machines apart.
    pub host: String,
    /// Build tag of the `kwbase` program; the cluster's configured one when `None`.
    pub build: Option<String>,
}

impl ClientEnv {
    /// The release of the `kwbase` program.
    fn release(&self, cluster: &Cluster) -> Version {
        let tag = self.build.as_deref().unwrap_or(&cluster.config().version);
        Version::parse(tag).unwrap_or(Version::NEWEST)
    }
}

/// What lies in a certificate directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Certs {
    /// The authority, as [`Security::Ca`](crate::model::Security::Ca) names it; `None` when `ca.crt` is missing.
    pub ca: Option<String>,
    /// Users with a client certificate of that authority.
    pub clients: Vec<String>,
}

/// When a [`Session`] is to be polled again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// At this time of the cluster's clock.
    At(Timestamp),
    /// It waits for something that may never happen; asking once a second is enough.
    Hanging,
    /// It ended with this exit code.
    Done(i32),
}

/// Output since the last poll, and what comes next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Poll {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// What comes next.
    pub next: Next,
}

/// A command that ended, or that did not in the time it was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CliReply {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; `None` when it was still running.
    pub exit: Option<i32>,
}

/// One run of one command.
#[derive(Debug)]
pub struct Session {
    state: State,
    out: Output,
}

#[derive(Debug, Default)]
struct Output {
    stdout: String,
    stderr: String,
}

#[derive(Debug)]
enum State {
    Decommission(decommission::Wait),
    Drain(drain::Drain),
    Init(init::Init),
    Start(Box<start::Starting>),
    /// Does its work in one go, after the time that a connection takes.
    Once(Once),
    Ended(i32),
}

#[derive(Debug)]
struct Once {
    kind: OnceKind,
    args: Args,
    client: Client,
    release: Version,
    due: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum OnceKind {
    Status,
    Ls,
    Recommission,
}

/// What a command does next, as its own module sees it.
enum Step {
    At(Timestamp),
    Hang,
    Done,
    /// The text after `ERROR: `; `Failed running` and exit code 1 follow.
    Fail(String),
    /// Ends with this code and nothing more.
    Exit(i32),
}

const FORMAT: &[Flag] = &[("format", "", true)];
const STATUS: &[Flag] = &[
    ("ranges", "", false),
    ("stats", "", false),
    ("decommission", "", false),
    ("all", "", false),
    ("timeout", "", true),
];
const LS: &[Flag] = &[("timeout", "", true)];
const WAIT: &[Flag] = &[("wait", "", true)];
const DRAIN: &[Flag] = &[("drain-wait", "", true)];
const QUIT: &[Flag] = &[("drain-wait", "", true), ("decommission", "", false)];

impl Session {
    /// Starts the command line `argv` (the program's name first).
    pub fn new(cluster: &mut Cluster, argv: &[String], env: &ClientEnv) -> Self {
        let mut out = Output::default();
        let state = begin(cluster, argv, env, &mut out);
        Self { state, out }
    }

    /// Goes on as far as the cluster's present time allows.
    pub fn poll(&mut self, cluster: &mut Cluster) -> Poll {
        let (step, name) = match &mut self.state {
            State::Ended(code) => (Step::Exit(*code), ""),
            State::Decommission(wait) => (wait.step(cluster, &mut self.out), "node decommission"),
            State::Drain(drain) => (drain.step(cluster, &mut self.out), drain.name()),
            State::Init(init) => (init.step(cluster, &mut self.out), "init"),
            State::Start(start) => {
                let step = start.step(cluster, &mut self.out);
                (step, "start")
            }
            State::Once(once) => (once.step(cluster, &mut self.out), once.name()),
        };
        let next = match step {
            Step::At(t) => Next::At(t),
            Step::Hang => Next::Hanging,
            Step::Done => self.end(0),
            Step::Exit(code) => self.end(code),
            Step::Fail(text) => {
                self.out.stderr += &failure(&text, name);
                self.end(1)
            }
        };
        Poll {
            stdout: std::mem::take(&mut self.out.stdout),
            stderr: std::mem::take(&mut self.out.stderr),
            next,
        }
    }

    fn end(&mut self, code: i32) -> Next {
        self.state = State::Ended(code);
        Next::Done(code)
    }
}

/// Runs a command on the virtual clock, for at most `limit`.
pub fn run(cluster: &mut Cluster, argv: &[String], env: &ClientEnv, limit: Duration) -> CliReply {
    let end = cluster.now() + limit;
    let mut session = Session::new(cluster, argv, env);
    let mut reply = CliReply { stdout: String::new(), stderr: String::new(), exit: None };
    loop {
        let poll = session.poll(cluster);
        reply.stdout += &poll.stdout;
        reply.stderr += &poll.stderr;
        let at = match poll.next {
            Next::Done(code) => {
                reply.exit = Some(code);
                return reply;
            }
            Next::At(at) => at,
            Next::Hanging => cluster.now() + Duration::from_secs(1),
        };
        if at > end {
            cluster.advance_to(end);
            return reply;
        }
        cluster.advance_to(at);
    }
}

fn failure(text: &str, name: &str) -> String {
    format!("ERROR: {text}\nFailed running \"{name}\"\n")
}

fn begin(cluster: &mut Cluster, argv: &[String], env: &ClientEnv, out: &mut Output) -> State {
    let words: Vec<&str> = argv.iter().skip(1).map(String::as_str).collect();
    let build = env.build.clone().unwrap_or_else(|| cluster.config().version.clone());
    let (name, known, positional): (&str, &[&[Flag]], (usize, usize)) = match words.as_slice() {
        ["version", ..] => {
            out.stdout += &version(&build);
            return State::Ended(0);
        }
        ["start" | "start-single-replica" | "start-single-node", ..] => {
            return start::begin(cluster, argv.get(1..).unwrap_or_default(), env, out);
        }
        ["node", "status", ..] => ("node status", &[CLIENT, FORMAT, STATUS], (0, 1)),
        ["node", "ls", ..] => ("node ls", &[CLIENT, FORMAT, LS], (0, 0)),
        ["node", "decommission", ..] => ("node decommission", &[CLIENT, FORMAT, WAIT], (1, usize::MAX)),
        ["node", "recommission", ..] => ("node recommission", &[CLIENT, FORMAT], (1, usize::MAX)),
        ["node", "drain", ..] => ("node drain", &[CLIENT, FORMAT, DRAIN], (0, 0)),
        ["quit", ..] => ("quit", &[CLIENT, QUIT], (0, 0)),
        ["init", ..] => ("init", &[CLIENT], (0, 0)),
        ["node"] | ["node", "--help" | "-h", ..] | ["help", "node"] => {
            out.stdout += help("node").unwrap_or_default();
            return State::Ended(0);
        }
        _ => {
            let word = words.first().copied().unwrap_or_default();
            out.stderr += &failure(&format!("unknown command \"{word}\" for \"kwbase\""), word);
            return State::Ended(1);
        }
    };
    let skip = 1 + name.split(' ').count();
    let usage = |out: &mut Output, text: &str| {
        let help = help(name).unwrap_or_default();
        let from = help.find("Usage:").unwrap_or(0);
        out.stderr += help.get(from..).unwrap_or_default();
        out.stderr += "\n";
        out.stderr += &failure(text, name);
        State::Ended(1)
    };
    let args = match Args::parse(argv.get(skip..).unwrap_or_default(), known) {
        Ok(args) => args,
        Err(bad) => return usage(out, &bad.0),
    };
    if args.is_set("help") {
        out.stdout += help(name).unwrap_or_default();
        return State::Ended(0);
    }
    if let Some(format) = args.get("format")
        && format::Format::parse(format).is_none()
    {
        let text = format!(
            "invalid argument \"{format}\" for \"--format\" flag: invalid table display format: {format} (possible values: tsv, csv, table, records, sql, html, raw)"
        );
        return usage(out, &text);
    }
    if let Some(wait) = args.get("wait")
        && !["all", "live", "none"].contains(&wait)
    {
        let text = format!(
            "invalid argument \"{wait}\" for \"--wait\" flag: invalid node decommission parameter: {wait} (possible values: all, live, none)"
        );
        return usage(out, &text);
    }
    let (least, most) = positional;
    let given = args.words.len();
    let wrong = if given < least {
        Some(format!("requires at least {least} arg(s), only received {given}"))
    } else if most == 0 && given > 0 {
        let word = args.words.first().map(String::as_str).unwrap_or_default();
        Some(format!("unknown command \"{word}\" for \"kwbase {name}\""))
    } else if given > most {
        Some(format!("accepts at most {most} arg(s), received {given}"))
    } else {
        None
    };
    if let Some(text) = wrong {
        out.stderr += &failure(&text, name);
        return State::Ended(1);
    }
    let release = env.release(cluster);
    if name == "node decommission" && release < Version::OLDEST {
        let text = "node decommissioning feature needs an enterprise license to enable.";
        out.stderr += &failure(text, name);
        return State::Ended(1);
    }
    let client = match Client::new(&args, env, name.rsplit(' ').next().unwrap_or(name)) {
        Ok(client) => client,
        Err(text) => {
            out.stderr += &failure(&text, name);
            return State::Ended(1);
        }
    };
    out.stderr += &client.warnings;
    let once =
        |kind| State::Once(Once { kind, args: args.clone(), client: client.clone(), release, due: None });
    match name {
        "node status" => once(OnceKind::Status),
        "node ls" => once(OnceKind::Ls),
        "node recommission" => once(OnceKind::Recommission),
        "node decommission" => State::Decommission(decommission::Wait::new(args, client)),
        "init" => State::Init(init::Init::new(client)),
        _ => State::Drain(drain::Drain::new(&args, client, name == "quit")),
    }
}

impl Once {
    fn name(&self) -> &'static str {
        match self.kind {
            OnceKind::Status => "node status",
            OnceKind::Ls => "node ls",
            OnceKind::Recommission => "node recommission",
        }
    }

    fn step(&mut self, cluster: &mut Cluster, out: &mut Output) -> Step {
        let now = cluster.now();
        let due = *self.due.get_or_insert(now + connect::LATENCY);
        if now < due {
            return Step::At(due);
        }
        match self.kind {
            OnceKind::Status => {
                // Up to V3.2.0 times are printed with their zone.
                let zone = if self.release < Version::new(3, 2, 1) { "+00:00" } else { "" };
                status::status(cluster, &self.args, &self.client, (due, zone), out)
            }
            OnceKind::Ls => status::ls(cluster, &self.args, &self.client, due, out),
            OnceKind::Recommission => decommission::recommission(cluster, &self.args, &self.client, out),
        }
    }
}

fn help(name: &str) -> Option<&'static str> {
    Some(match name {
        "node" => include_str!("help/node.txt"),
        "node status" => include_str!("help/node_status.txt"),
        "node ls" => include_str!("help/node_ls.txt"),
        "node decommission" => include_str!("help/node_decommission.txt"),
        "node recommission" => include_str!("help/node_recommission.txt"),
        "node drain" => include_str!("help/node_drain.txt"),
        "quit" => include_str!("help/quit.txt"),
        "init" => include_str!("help/init.txt"),
        _ => return None,
    })
}

fn version(build: &str) -> String {
    format!(
        "KaiwuDB Version:  {build}\nBuild Time:       2026/11/23 12:00:00\nDistribution:     \nPlatform:         linux amd64 (x86_64-linux-gnu)\nGo Version:       go1.19.8\nC Compiler:       gcc 12.2.0\nBuild SHA-1:      TWIN\n"
    )
}
