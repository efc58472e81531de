//! Runs a `kwbase` command over the model, for a client at a port or, without a cluster, in the client itself.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hub::Front;
use super::wire::{ClientEvent, ClientHello, send};
use crate::cli::{Certs, CliReply, ClientEnv, Next, Session, run};
use crate::model::{Cluster, Config, Security};
use crate::pgwire::wire::{Reply, split};
use crate::pgwire::{Handler, Stream};

/// Runs a command that reaches no cluster: what it prints and its exit code are those of a program whose server is
/// not there. Without an exit code it would try again.
pub(super) fn locally(args: &[String]) -> CliReply {
    let mut cluster = Cluster::new(Config::default());
    // Only `init` tries again, after a second; everything else gives up in the end.
    let waits = args.first().is_some_and(|command| command == "init");
    let limit = Duration::from_millis(if waits { 900 } else { 60_000 });
    if args.first().is_some_and(|command| command == "sql") {
        // All that a failed `sql` has in common with a failed `node ls` is its words.
        let flags = args.iter().filter(|a| a.starts_with("--host") || *a == "--insecure").cloned();
        let ls: Vec<String> = ["node", "ls"].map(str::to_owned).into_iter().chain(flags).collect();
        let mut reply = run(&mut cluster, &argv(&ls), &here(&ls), limit);
        reply.stderr = reply.stderr.replace("\"node ls\"", "\"sql\"");
        return reply;
    }
    run(&mut cluster, &argv(args), &here(args), limit)
}

impl Front {
    /// Runs a client's command and sends what it prints as it comes.
    pub(super) async fn command<S: Stream>(&self, stream: &mut S, hello: ClientHello) -> io::Result<()> {
        send(stream, &ClientEvent::Accepted).await?;
        let mut args = hello.args;
        if args.first().is_some_and(|command| command == "sql") {
            let (out, err, code) = self.sql_command(&args).await;
            send(stream, &ClientEvent::Stdout(out)).await?;
            send(stream, &ClientEvent::Stderr(err)).await?;
            return send(stream, &ClientEvent::Exit(code)).await;
        }
        let formatted = args.iter().any(|a| a.starts_with("--format"));
        if hello.terminal && args.first().is_some_and(|a| a == "node") && !formatted {
            args.push("--format=table".to_owned());
        }
        // It has reached this node, under whatever name: a node at 0.0.0.0 is at 127.0.0.1 too.
        args.push(format!("--host={}", self.address()));
        let (mut session, mut poll) = {
            let mut cluster = self.hub().cluster();
            let env = there(&args, &cluster.config().security);
            let mut session = Session::new(&mut cluster, &argv(&args), &env);
            let poll = session.poll(&mut cluster);
            (session, poll)
        };
        loop {
            if !poll.stderr.is_empty() {
                send(stream, &ClientEvent::Stderr(poll.stderr)).await?;
            }
            if !poll.stdout.is_empty() {
                send(stream, &ClientEvent::Stdout(poll.stdout)).await?;
            }
            let at = match poll.next {
                Next::Done(code) => return send(stream, &ClientEvent::Exit(code)).await,
                Next::At(at) => at,
                Next::Hanging => self.hub().cluster().now() + Duration::from_secs(1),
            };
            self.hub().until(at).await;
            poll = session.poll(&mut self.hub().cluster());
        }
    }

    /// `kwbase sql -e …`: output, error output and exit code.
    async fn sql_command(&self, args: &[String]) -> (String, String, i32) {
        let mut statements = Vec::new();
        let mut comma = false;
        let mut rest = args.iter().skip(1);
        while let Some(arg) = rest.next() {
            if arg == "-e" || arg == "--execute" {
                statements.extend(rest.next());
            } else if arg == "--format" {
                comma = rest.next().is_some_and(|format| format == "csv");
            } else {
                comma |= arg == "--format=csv";
            }
        }
        let separator = if comma { ',' } else { '\t' };
        let (mut out, failed) = (String::new(), "Failed running \"sql\"\n");
        for sql in statements.iter().flat_map(|text| split(text)) {
            match self.query("root", sql).await {
                Ok(Reply::Empty) => {}
                Ok(Reply::Done(tag)) => out += &format!("{tag}\n"),
                Ok(Reply::Rows { columns, rows }) => {
                    out += &line(columns.iter().map(String::as_str), separator);
                    for row in &rows {
                        out += &line(row.iter().map(|v| v.as_deref().unwrap_or("NULL")), separator);
                    }
                }
                Err(error) if error.code == "XXUUU" => {
                    return (out, format!("ERROR: {}\n{failed}", error.message), 1);
                }
                Err(error) => {
                    return (out, format!("ERROR: {}\nSQLSTATE: {}\n{failed}", error.message, error.code), 1);
                }
            }
        }
        (out, String::new(), 0)
    }
}

fn line<'a>(values: impl Iterator<Item = &'a str>, separator: char) -> String {
    let quoted = values.map(|value| {
        if value.contains([separator, '"', '\n']) {
            format!("\"{}\"", value.replace('"', "\"\""))
        } else {
            value.to_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(&separator.to_string()) + "\n"
}

fn argv(args: &[String]) -> Vec<String> {
    [&["kwbase".to_owned()], args].concat()
}

/// The certificates that a client finds on its machine.
fn here(args: &[String]) -> ClientEnv {
    let default = env::home_dir().map(|home| home.join(".kwbase-certs"));
    let given = certs_dir(args).map(PathBuf::from);
    let look = |dir: &Path| Certs {
        ca: fs::read_to_string(dir.join("ca.crt")).ok(),
        clients: if dir.join("client.root.crt").exists() { vec!["root".to_owned()] } else { Vec::new() },
    };
    ClientEnv {
        certs: given
            .iter()
            .chain(&default)
            .filter(|dir| dir.is_dir())
            .map(|dir| (dir.display().to_string().trim_end_matches('/').to_owned(), look(dir)))
            .collect(),
        default_certs: default.map(|dir| dir.display().to_string()),
        ..ClientEnv::default()
    }
}

/// The same for a client that has shown its certificate already, so that the model lets it in again.
fn there(args: &[String], security: &Security) -> ClientEnv {
    let Security::Ca(ca) = security else { return ClientEnv::default() };
    let certs = Certs { ca: Some(ca.clone()), clients: vec!["root".to_owned()] };
    let dir = certs_dir(args).unwrap_or("default").trim_end_matches('/').to_owned();
    ClientEnv {
        certs: BTreeMap::from([(dir.clone(), certs)]),
        default_certs: Some(dir),
        ..ClientEnv::default()
    }
}

fn certs_dir(args: &[String]) -> Option<&str> {
    let at = args.iter().rposition(|a| a == "--certs-dir" || a.starts_with("--certs-dir="))?;
    match args.get(at)?.split_once('=') {
        Some((_, dir)) => Some(dir),
        None => args.get(at + 1).map(String::as_str),
    }
}
