//! `exec`: one script, command or file for every host, over connections that stay open between rounds.

use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream;
use futures_util::{Stream, StreamExt as _};
use kwdb_scale_core::ports::{Command, CommandOutput, HostTransport, PortError, PortErrorKind};
use kwdb_scale_core::secret::Secret;
use kwdb_scale_core::topology::HostName;
use kwdb_scale_ssh::{Agent, HostKeyPolicy, KeyFile, SshFault, SshHost, SshLimits, SshTransport};
use serde_json::json;

use super::hosts_file::{self, Target};
use crate::cli::{ExecArgs, Global};
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::transport::Hosts;
use crate::ui::Ui;

/// What an encrypted key file is opened with: never on a command line, which others can read.
const PASSPHRASE: &str = "KWSCALE_KEY_PASSPHRASE";
/// For commands on the hosts to be ended after Ctrl-C: the polite signal, a second, the other one.
const ENDING: Duration = Duration::from_secs(2);
/// Kept of each of a command's two outputs, on each host. Outputs of all hosts are in memory together.
const OUTPUT_MIB: usize = 4;
/// A script or file is held in memory, once.
const LARGEST: u64 = 256 << 20;
/// A longer script is not an argument of the host's shell but its input: Linux takes arguments of 128 KiB, and every
/// quote in it takes four bytes.
const LONGEST_TEXT: usize = 24 << 10;

/// What is done on every host.
enum Work {
    Run(Command),
    Put { content: Vec<u8>, path: String, mode: u32 },
}

/// What came of it on one host.
struct Outcome {
    host: HostName,
    result: Result<Option<CommandOutput>, PortError>,
    took: Duration,
}

pub(crate) async fn exec(ui: &Ui, global: &Global, args: &ExecArgs) -> Result<Exit, Failure> {
    let work = work(args)?;
    let (fleet, hosts) = fleet(global, args).await?;
    let json = args.json || ui.json();
    let total = hosts.len();
    let mut worst = Exit::Done;
    let (mut failed, mut lost) = (std::collections::BTreeSet::new(), 0_usize);
    let mut under_way = stream::iter(hosts)
        .map(|host| Box::pin(rounds(fleet.as_ref(), host, &work, args.rounds)))
        .flatten_unordered(args.at_once);
    loop {
        let (round, outcome) = tokio::select! {
            next = under_way.next() => match next {
                Some(outcome) => outcome,
                None => break,
            },
            _ = tokio::signal::ctrl_c() => {
                ui.say("kwscale: interrupted; the commands under way are ended");
                // Tasks of the transport end them.
                drop(under_way);
                tokio::time::sleep(ENDING).await;
                return Ok(Exit::Failed);
            }
        };
        let exit = outcome.exit();
        if exit != Exit::Done {
            failed.insert(outcome.host.clone());
            if exit as u8 > worst as u8 {
                worst = exit;
            }
        }
        if outcome.ends_here() && round < args.rounds {
            lost += 1;
        }
        if json { ui.print(outcome.json(round)) } else { outcome.print(ui) }
    }
    if lost > 0 {
        ui.say(format_args!("kwscale: no further round on {lost} of {total} hosts"));
    }
    if !failed.is_empty() {
        ui.say(format_args!("kwscale: failed on {} of {total} hosts", failed.len()));
    }
    Ok(worst)
}

/// A host's rounds, one after the other, which wait for no other host's. The last is the one in which the host could not
/// be reached, or not be logged in to: each further one would cost its deadline again, and tell nothing new.
fn rounds<'a>(
    fleet: &'a dyn HostTransport,
    host: HostName,
    work: &'a Work,
    rounds: u32,
) -> impl Stream<Item = (u32, Outcome)> + 'a {
    stream::unfold(1, move |round| {
        let host = host.clone();
        async move {
            if round > rounds {
                return None;
            }
            let outcome = one(fleet, host, work).await;
            let next = if outcome.ends_here() { rounds } else { round };
            Some(((round, outcome), next + 1))
        }
    })
}

async fn one(fleet: &dyn HostTransport, host: HostName, work: &Work) -> Outcome {
    let begun = Instant::now();
    let result = match work {
        Work::Run(command) => fleet.run(&host, command).await.map(Some),
        Work::Put { content, path, mode } => fleet.put(&host, path, content, *mode).await.map(|()| None),
    };
    Outcome { host, result, took: begun.elapsed() }
}

impl Outcome {
    /// A host that answers and whose command fails, or whose output is not all here, is 1, one that cannot be reached
    /// is 3, and a key of ours that cannot be used, or is not there, is 2.
    fn exit(&self) -> Exit {
        use PortErrorKind as Kind;
        match &self.result {
            Ok(Some(output)) if cut(output) => Exit::Failed,
            Ok(output) if output.as_ref().is_none_or(|o| o.end.success()) => Exit::Done,
            Ok(_) => Exit::Failed,
            Err(e) => match e.kind() {
                Kind::Unreachable | Kind::Authentication | Kind::ConnectionLost | Kind::Unsupported => {
                    Exit::Refused
                }
                Kind::Config => Exit::Usage,
                _ => Exit::Failed,
            },
        }
    }

    /// Whether further rounds would come to the same.
    fn ends_here(&self) -> bool {
        matches!(self.exit(), Exit::Refused | Exit::Usage)
    }

    /// Whether the command printed anything.
    fn printed(&self) -> bool {
        matches!(&self.result, Ok(Some(output)) if !output.stdout.is_empty() || !output.stderr.is_empty())
    }

    /// Why it failed, and what helps; one line. `above` tells whether what the command printed stands above that line.
    fn failure(&self, above: bool) -> Option<String> {
        use PortErrorKind as Kind;
        let (why, cure) = match &self.result {
            Ok(Some(output)) if !output.end.success() => {
                let why = output.end.to_string();
                if !above {
                    return Some(plain(&why));
                }
                (why, "read what it printed above")
            }
            Ok(Some(output)) if cut(output) => (
                format!("its output was cut at {OUTPUT_MIB} MiB"),
                "let it print less, or print into a file on the host",
            ),
            Ok(_) => return None,
            Err(e) => {
                let why = e.chain();
                let cure = match e.kind() {
                    Kind::Unreachable => "see that the host is up and that its SSH server listens there",
                    Kind::Config if SshFault::of(e) == Some(SshFault::Passphrase) => {
                        "an encrypted key is opened with KWSCALE_KEY_PASSPHRASE where --key names it, by an agent elsewhere"
                    }
                    // What was not trusted, not let in or not understood says itself what helps.
                    Kind::Authentication | Kind::Config | Kind::Unsupported => return Some(plain(&why)),
                    Kind::ConnectionLost => "it may have been done: look at the host before trying again",
                    Kind::Deadline => "give a longer --deadline, or something that ends",
                    Kind::NotFound => "make or install it there, or name another",
                    Kind::Denied => "allow it to that user on the host, or take another user",
                    _ => "correct what is named",
                };
                (why, cure)
            }
        };
        Some(plain(&format!("{why}; cure: {cure}")))
    }

    /// Every line behind the host's name, so that hosts cannot be mistaken for each other.
    fn print(&self, ui: &Ui) {
        let host = &self.host;
        let prefixed = |text: &str| {
            let lines = text.split_terminator('\n').map(|line| format!("{host}: {}\n", plain(line)));
            lines.collect::<String>()
        };
        if let Ok(Some(output)) = &self.result {
            if !output.stdout.is_empty() {
                ui.print(prefixed(&output.stdout));
            }
            if !output.stderr.is_empty() {
                ui.say(prefixed(&output.stderr).trim_end_matches('\n'));
            }
            if cut(output) && !output.end.success() {
                ui.say(format_args!("{host}: its output was cut at {OUTPUT_MIB} MiB"));
            } else if output.truncated && !cut(output) {
                ui.say(format_args!(
                    "{host}: the command ended, but something that it started holds its output open: what that prints is not shown"
                ));
            }
        }
        if let Some(failure) = self.failure(self.printed()) {
            ui.say(format_args!("kwscale: {host}: {failure}"));
        }
    }

    fn json(&self, round: u32) -> serde_json::Value {
        let mut object = json!({
            "schema": "kwscale.exec/v1",
            "host": self.host.as_str(),
            "round": round,
            "exit": self.exit() as u8,
            "seconds": self.took.as_secs_f64(),
        });
        let Some(map) = object.as_object_mut() else { return object };
        if let Ok(Some(output)) = &self.result {
            map.insert("end".to_owned(), output.end.to_string().into());
            map.insert("stdout".to_owned(), output.stdout.clone().into());
            map.insert("stderr".to_owned(), output.stderr.clone().into());
            map.insert("truncated".to_owned(), output.truncated.into());
        }
        if let Some(failure) = self.failure(false) {
            map.insert("message".to_owned(), failure.into());
        }
        object
    }
}

/// Whether more was printed than is kept. Where something may be missing, but less than that was kept, an output was
/// only still open after the command's end, as a daemon leaves it that the command started: that is no failure.
fn cut(output: &CommandOutput) -> bool {
    // Bytes that are no UTF-8 never get fewer by being replaced.
    output.truncated && output.stdout.len().max(output.stderr.len()) >= OUTPUT_MIB << 20
}

/// One line that does nothing to a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.strip_suffix('\r').unwrap_or(text).chars() {
        match c {
            '\t' => plain.push(c),
            c if c.is_control() => plain.extend(c.escape_default()),
            c => plain.push(c),
        }
    }
    plain
}

/// Reads what is to be done. Everything local is wrong before any host is asked.
fn work(args: &ExecArgs) -> Result<Work, Failure> {
    let deadline = Duration::try_from(args.deadline)
        .map_err(|_| Failure::usage(format!("--deadline {:#} is not a time to wait", args.deadline)))?;
    let command = |argv: &[&str]| {
        let command = Command::new(argv.iter().copied()).deadline(deadline);
        Command { output_cap: OUTPUT_MIB << 20, ..command }
    };
    if let Some(script) = &args.script {
        let script = read_once("the script", script)?;
        return Ok(Work::Run(match String::from_utf8(script) {
            Ok(text) if text.len() <= LONGEST_TEXT && !text.contains('\0') => {
                command(&["sh", "-c", &text, "sh"])
            }
            other => {
                let stdin = Some(other.map_or_else(FromUtf8Error::into_bytes, String::into_bytes));
                Command { stdin, ..command(&["sh", "-s"]) }
            }
        }));
    }
    if let Some(file) = &args.put {
        let (content, mode) = read("the file", file)?;
        let path = args.to.clone().unwrap_or_default();
        // A relative one would be looked for where the login begins, which is another directory with sudo.
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(Failure::usage(format!(
                "--to '{}' is not the absolute path of a file: write its full name on the hosts, from / on",
                path.escape_default()
            )));
        }
        return Ok(Work::Put { content, path, mode });
    }
    match args.command.first() {
        Some(program) if !program.is_empty() && !program.starts_with('-') => {
            Ok(Work::Run(command(&args.command.iter().map(String::as_str).collect::<Vec<_>>())))
        }
        program => Err(Failure::usage(format!(
            "--command '{}' does not begin with a program: write its name, then its arguments",
            program.map(|p| p.escape_default().to_string()).unwrap_or_default()
        ))),
    }
}

/// The bytes of a local file and its permission bits.
fn read(what: &str, path: &Path) -> Result<(Vec<u8>, u32), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = path.display();
    let found = std::fs::metadata(path).map_err(|e| Failure::unreadable(what, path, &e))?;
    if !found.is_file() && !found.is_dir() {
        return Err(Failure::usage(format!("{what} {shown} is not a regular file: name one")));
    }
    Ok((read_once(what, path)?, found.permissions().mode() & 0o777))
}

/// The bytes of whatever can be read to its end: a file, a pipe of the shell, a terminal. Waits for as long as nobody
/// ends a pipe; Ctrl-C ends the process meanwhile, because nothing takes it before the hosts are asked.
fn read_once(what: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut content = Vec::new();
    let reading = std::fs::File::open(path).and_then(|file| {
        let size = file.metadata()?.len();
        if size <= LARGEST {
            // Longer by one than what is taken, so that more is seen.
            file.take(LARGEST + 1).read_to_end(&mut content)?;
        }
        Ok(size)
    });
    let size = reading.map_err(|e| Failure::unreadable(what, path, &e))?;
    if size > LARGEST || content.len() as u64 > LARGEST {
        let shown = path.display();
        return Err(Failure::usage(format!(
            "{what} {shown} has more than {LARGEST} bytes: take one of at most so many"
        )));
    }
    Ok(content)
}

/// The hosts of the file, or of the cluster, in their order.
async fn fleet(global: &Global, args: &ExecArgs) -> Result<(Arc<dyn HostTransport>, Vec<HostName>), Failure> {
    let Some(file) = &args.hosts_file else {
        let config = Config::read(&global.cluster)
            .map_err(|e| Failure::usage(format!("{e}; or name a file of hosts with --hosts-file")))?;
        let transport = Hosts::each_of(&config).await.map_err(|e| Failure::usage(e.chain()))?;
        let names = config.hosts.iter().map(|host| host.name.clone()).collect();
        return Ok((Arc::new(transport), names));
    };
    let targets = hosts_file::read(file)?;
    let user = user(args)?;
    let host_keys = host_keys(&args.known_hosts)?;
    let host = |target: &Target| {
        let host = SshHost::new(&target.host, &user, host_keys.clone())
            .port(target.port.unwrap_or(args.port.unwrap_or(22)));
        match &args.key {
            Some(key) => host.login(key_file(key)),
            None => host.login(Agent::from_env()),
        }
    };
    if let Some(key) = &args.key {
        readable("the key file", key)?;
    } else if std::env::var_os("SSH_AUTH_SOCK").is_none() {
        return Err(Failure::usage("no way to log in: give --key FILE, or start an SSH agent"));
    }
    let names: Vec<HostName> = targets.iter().map(Target::name).collect();
    let hosts: Vec<(HostName, SshHost)> = names.iter().cloned().zip(targets.iter().map(host)).collect();
    let mut limits = SshLimits::default();
    limits.handshakes = limits.handshakes.min(args.at_once);
    let transport = SshTransport::with_limits(hosts, limits).map_err(|e| Failure::usage(e.chain()))?;
    Ok((Arc::new(transport), names))
}

fn user(args: &ExecArgs) -> Result<String, Failure> {
    let own = || ["LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
    let user = args.user.clone().or_else(own).filter(|user| !user.is_empty());
    user.ok_or_else(|| Failure::usage("the user to log in as is not known: give --user NAME"))
}

fn key_file(path: &Path) -> KeyFile {
    let mut beside = path.as_os_str().to_owned();
    beside.push("-cert.pub");
    let key = match Path::new(&beside).is_file() {
        true => KeyFile::new(path).certificate(beside),
        false => KeyFile::new(path),
    };
    match std::env::var(PASSPHRASE) {
        Ok(passphrase) if !passphrase.is_empty() => key.passphrase(Secret::new(passphrase)),
        _ => key,
    }
}

fn host_keys(files: &[PathBuf]) -> Result<HostKeyPolicy, Failure> {
    for file in files {
        readable("the known_hosts file", file)?;
    }
    Ok(match files.is_empty() {
        true => HostKeyPolicy::default_files(),
        false => HostKeyPolicy::Strict { files: files.to_vec() },
    })
}

/// A file that is named must be there: an absent one would make every host fail.
fn readable(what: &str, path: &Path) -> Result<(), Failure> {
    let opened = std::fs::File::open(path).and_then(|file| file.metadata());
    match opened {
        Ok(found) if !found.is_dir() => Ok(()),
        Ok(_) => Err(Failure::usage(format!("{what} {} is a directory: name the file", path.display()))),
        Err(e) => Err(Failure::unreadable(what, path, &e)),
    }
}

#[cfg(test)]
mod tests {
    use kwdb_scale_core::ports::CommandEnd;

    use super::*;

    fn of(result: Result<Option<CommandOutput>, PortError>) -> Outcome {
        Outcome { host: "h".into(), result, took: Duration::from_millis(1500) }
    }

    fn ended(end: CommandEnd) -> Outcome {
        let (stdout, stderr) = ("out\n".to_owned(), String::new());
        of(Ok(Some(CommandOutput { end, stdout, stderr, truncated: false })))
    }

    #[test]
    fn a_failed_command_is_one_and_a_host_out_of_reach_three() {
        assert_eq!(ended(CommandEnd::Exit(0)).exit(), Exit::Done);
        assert_eq!(ended(CommandEnd::Exit(3)).exit(), Exit::Failed);
        assert_eq!(ended(CommandEnd::Signal(9)).exit(), Exit::Failed);
        let error = |kind| of(Err(PortError::new(kind, "why")));
        assert_eq!(error(PortErrorKind::Deadline).exit(), Exit::Failed);
        assert_eq!(error(PortErrorKind::Authentication).exit(), Exit::Refused);
        let failure = error(PortErrorKind::Unreachable).failure(true).unwrap();
        assert!(failure.starts_with("why; cure: ") && !failure.contains('\n'), "{failure}");
        // These say it themselves.
        for kind in [PortErrorKind::Authentication, PortErrorKind::Config, PortErrorKind::Unsupported] {
            assert_eq!(error(kind).failure(true).unwrap(), "why");
        }
    }

    #[test]
    fn what_cannot_be_read_has_a_cure() {
        let none = Path::new("/nonexistent/file");
        let cases = [
            read_once("the script", none).err(),
            read("the file", none).err(),
            readable("the key file", none).err(),
            host_keys(&[none.to_owned()]).err(),
            hosts_file::read(none).err(),
        ];
        for failure in cases {
            let failure = failure.unwrap();
            assert_eq!(failure.exit, Exit::Usage);
            let text = failure.to_string();
            assert!(
                text.contains("/nonexistent/file cannot be read") && text.contains("; name a file"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_output_that_was_cut_is_a_failure_and_one_left_open_is_not() {
        let printed = |end, length, truncated| {
            let (stdout, stderr) = ("x".repeat(length), String::new());
            of(Ok(Some(CommandOutput { end, stdout, stderr, truncated })))
        };
        let (cap, success) = (OUTPUT_MIB << 20, CommandEnd::Exit(0));
        let cut = printed(success, cap, true);
        assert_eq!(cut.exit(), Exit::Failed);
        assert_eq!(cut.json(1)["truncated"], true);
        let failure = cut.failure(true).unwrap();
        assert!(failure.starts_with("its output was cut at 4 MiB; cure: "), "{failure}");
        // What the command itself says comes first.
        let failure = printed(CommandEnd::Exit(7), cap, true).failure(true).unwrap();
        assert!(failure.starts_with("exit code 7"), "{failure}");
        let open = printed(success, cap - 1, true);
        assert_eq!((open.exit(), open.failure(true)), (Exit::Done, None));
        assert_eq!(printed(success, cap, false).exit(), Exit::Done);
    }

    #[test]
    fn a_script_may_come_from_a_pipe_and_a_file_may_not() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let to = pipe.clone();
        let writer = std::thread::spawn(move || {
            let mut pipe = std::fs::OpenOptions::new().write(true).open(to).unwrap();
            // More than a pipe holds.
            (0..30_000).for_each(|_| pipe.write_all(b"true\n").unwrap());
        });
        assert!(read_once("the script", &pipe).unwrap() == b"true\n".repeat(30_000));
        writer.join().unwrap();
        let failure = read("the file", &pipe).unwrap_err().to_string();
        assert!(failure.contains("pipe is not a regular file"), "{failure}");
        let failure = read_once("the script", Path::new("/dev/zero")).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("/dev/zero has more than"), "{failure}");
        for read in [read_once("the script", dir.path()).err(), read("the file", dir.path()).err()] {
            let failure = read.unwrap().to_string();
            assert!(failure.contains("s a directory"), "{failure}");
        }
    }

    #[test]
    fn a_file_goes_to_an_absolute_path() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: ExecArgs,
        }
        let own = format!("{}/src/commands/exec.rs", env!("CARGO_MANIFEST_DIR"));
        let to = |path: &str| {
            let line = ["exec", "--put", &own, &format!("--to={path}")];
            work(&<Line as clap::Parser>::try_parse_from(line).unwrap().args).err()
        };
        assert!(to("/srv/f").is_none());
        for path in ["srv/f", "f", "./f", "~/f", "-f", "", "/srv/"] {
            let failure = to(path).unwrap_or_else(|| panic!("{path} was taken"));
            assert_eq!(failure.exit, Exit::Usage, "{path}");
            let said = format!("--to '{path}' is not the absolute path of a file");
            assert!(failure.to_string().contains(&said), "{failure}");
        }
    }

    #[test]
    fn a_failed_command_points_to_what_it_printed_where_it_printed_something() {
        let mut outcome = ended(CommandEnd::Exit(3));
        assert!(outcome.printed());
        assert_eq!(outcome.failure(true).unwrap(), "exit code 3; cure: read what it printed above");
        if let Ok(Some(output)) = &mut outcome.result {
            output.stdout.clear();
        }
        assert!(!outcome.printed());
        assert_eq!(outcome.failure(outcome.printed()).unwrap(), "exit code 3");
    }

    #[test]
    fn what_hosts_print_does_nothing_to_a_terminal() {
        assert_eq!(plain("a\tb\r"), "a\tb");
        assert_eq!(plain("\u{1b}[2Jx\ry\u{7f}\u{9b}"), "\\u{1b}[2Jx\\ry\\u{7f}\\u{9b}");
    }

    #[test]
    fn json_holds_it_as_it_is() {
        let object = ended(CommandEnd::Exit(3)).json(2);
        assert_eq!(object["round"], 2);
        assert_eq!((&object["end"], &object["stdout"]), (&"exit code 3".into(), &"out\n".into()));
        // Nothing stands above it there.
        assert_eq!(object["message"], "exit code 3");
        assert!(!object.to_string().contains('\n'));
    }
}
