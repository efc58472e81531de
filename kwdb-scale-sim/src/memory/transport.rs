//! `kwbase …` command lines on the known hosts, without any process.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kwdb_scale_core::ports::{
    Command, CommandEnd, CommandOutput, Detached, HostTransport, PortError, PortErrorKind, PortState, Spawned,
};
use kwdb_scale_core::topology::{Address, HostName};

use super::{SimHost, World};
use crate::cli::{Next, Session};
use crate::model::Security;

/// Runs command lines whose program is called `kwbase`, and the one shell script with which core looks at a host. What stands before the program (such as `docker exec`) is left out.
#[derive(Clone, Debug)]
pub struct SimTransport(World);

impl SimTransport {
    pub(crate) fn new(world: &World) -> Self {
        Self(world.clone())
    }

    /// Runs until the end or `until`; what was printed, and how it ended.
    fn session(&self, host: &SimHost, argv: &[String], until: Timestamp) -> (String, String, Option<i32>) {
        let env = host.client_env();
        let mut session = Session::new(&mut self.0.cluster(), argv, &env);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        loop {
            let poll = session.poll(&mut self.0.cluster());
            stdout += &poll.stdout;
            stderr += &poll.stderr;
            let at = match poll.next {
                Next::Done(code) => return (stdout, stderr, Some(code)),
                Next::At(at) => at,
                Next::Hanging => self.0.now() + Duration::from_secs(1),
            };
            if self.0.now() >= until {
                return (stdout, stderr, None);
            }
            self.0.advance_to(at.min(until));
        }
    }

    /// The answer to core's look at a host: of what it asks, that which a simulated host has.
    fn inspect(&self, host: &SimHost, words: &[String]) -> String {
        let time = self.0.now();
        let cluster = self.0.cluster();
        // The outer script is given the command line of the inner one: `… sh -c SCRIPT sh PROGRAM CERTS CA_KEY N DIR…`.
        let inner =
            words.iter().position(|w| w == "-c").and_then(|at| words.get(at + 3..)).unwrap_or_default();
        let word = |at: usize| inner.get(at).map_or("", String::as_str);
        let (certs, count) = (word(1), word(3).parse().unwrap_or(0));
        let clock = format!("Kclock {}.{:09}", time.as_second(), time.subsec_nanosecond());
        let mut items = vec![clock.clone()];
        items.extend(
            ["Kuser sim", "Ksudo no", "Kmode-state absent", "Knode-state absent", "Kunit-state absent"]
                .map(str::to_owned),
        );
        for dir in inner.iter().skip(4).take(count) {
            let files = cluster.store_files(&host.store_key(dir));
            items.push(if files.is_empty() { "Sabsent".to_owned() } else { "Sdir".to_owned() });
            items.extend(files.iter().map(|f| format!("N{f}")));
        }
        let build = host.build.as_ref().unwrap_or(&cluster.config().version);
        items.push("Kversion-state 0".to_owned());
        items.push(format!("Kversion KaiwuDB Version:  {build}"));
        if !certs.is_empty() {
            let there = matches!(host.security, Security::Ca(_)) && certs == host.certs_dir;
            let sign = |yes: bool| if yes { '+' } else { '-' };
            items.push(format!("C{}ca.crt", sign(there)));
            for file in ["client.root.crt", "client.root.key"] {
                items.push(format!("C{}{file}", sign(there && host.root_certificate)));
            }
        }
        items.push("T".to_owned());
        let own = [Some(&host.address), host.sql_address.as_ref(), host.http_address.as_ref()];
        let ports = own.into_iter().flatten().filter(|a| cluster.listening(a)).filter_map(Address::port);
        items.extend(ports.map(|p| format!("L00000000:{p:04X}")));
        items.extend(["E".to_owned(), clock, "Z0".to_owned()]);
        items.iter().map(|i| format!("{i}\0")).collect()
    }
}

fn cap(text: String, limit: usize, truncated: &mut bool) -> String {
    if text.len() <= limit {
        return text;
    }
    *truncated = true;
    let end = (0..=limit).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

/// What is run: everything from the program on.
enum Program<'a> {
    Kwbase(&'a [String]),
    Script(&'a [String]),
}

fn program(argv: &[String]) -> Result<Program<'_>, PortError> {
    let name = |w: &String| w.rsplit('/').next().unwrap_or_default().to_owned();
    let at = argv.iter().position(|w| matches!(name(w).as_str(), "kwbase" | "sh"));
    let tail = at.and_then(|at| argv.get(at..)).unwrap_or_default();
    match tail {
        [first, ..] if name(first) == "kwbase" => Ok(Program::Kwbase(tail)),
        [_, dash_c, _, zeroth, rest @ ..] if dash_c == "-c" && zeroth == "sh" => Ok(Program::Script(rest)),
        _ => {
            let Some(program) = argv.first() else {
                return Err(PortError::new(PortErrorKind::Config, "the command line is empty"));
            };
            let text = format!("{program}: no such program on a simulated host");
            Err(PortError::new(PortErrorKind::NotFound, text))
        }
    }
}

#[async_trait]
impl HostTransport for SimTransport {
    async fn run(&self, host: &HostName, command: &Command) -> Result<CommandOutput, PortError> {
        let host = self.0.host(host)?;
        let until = self.0.now() + command.deadline;
        let (stdout, stderr, end) = match program(&command.argv)? {
            Program::Script(words) => {
                self.0.advance(Duration::from_millis(10));
                (self.inspect(&host, words), String::new(), Some(0))
            }
            Program::Kwbase(argv) => self.session(&host, argv, until),
        };
        let Some(code) = end else {
            let text = format!("{} did not end in {:?}", command.argv.join(" "), command.deadline);
            return Err(PortError::new(PortErrorKind::Deadline, text));
        };
        let mut truncated = false;
        let stdout = cap(stdout, command.output_cap, &mut truncated);
        let stderr = cap(stderr, command.output_cap, &mut truncated);
        Ok(CommandOutput { end: CommandEnd::Exit(code), stdout, stderr, truncated })
    }

    async fn spawn(&self, host: &HostName, detached: &Detached) -> Result<Spawned, PortError> {
        let known = self.0.host(host)?;
        let Program::Kwbase(argv) = program(&detached.command.argv)? else {
            return Err(PortError::new(PortErrorKind::Unsupported, "only kwbase can be spawned here"));
        };
        if !detached.output_file.starts_with('/') {
            let text = format!("the output file '{}' is not an absolute path", detached.output_file);
            return Err(PortError::new(PortErrorKind::Config, text));
        }
        let until = self.0.now() + detached.wait;
        let (stdout, stderr, end) = self.session(&known, argv, until);
        let key = (host.clone(), detached.output_file.clone());
        self.0.files().entry(key).or_default().extend((stderr + &stdout).into_bytes());
        match end {
            Some(code) => Ok(Spawned::Ended(CommandEnd::Exit(code))),
            None => {
                let number = self.0.cluster().process(&known.address).map_or(0, |p| p.process);
                Ok(Spawned::Running(1000 + number as u32))
            }
        }
    }

    async fn put(&self, host: &HostName, path: &str, content: &[u8], _mode: u32) -> Result<(), PortError> {
        self.0.host(host)?;
        self.0.files().insert((host.clone(), path.to_owned()), content.to_vec());
        Ok(())
    }

    async fn get(&self, host: &HostName, path: &str, max: usize) -> Result<Vec<u8>, PortError> {
        self.0.host(host)?;
        let files = self.0.files();
        let Some(content) = files.get(&(host.clone(), path.to_owned())) else {
            return Err(PortError::new(PortErrorKind::NotFound, format!("{host}: no file {path}")));
        };
        if content.len() > max {
            let text = format!("{host}: {path} is longer than {max} bytes");
            return Err(PortError::new(PortErrorKind::Malformed, text));
        }
        Ok(content.clone())
    }

    async fn probe(
        &self,
        host: &HostName,
        address: &Address,
        _deadline: Duration,
    ) -> Result<PortState, PortError> {
        self.0.host(host)?;
        self.0.advance(Duration::from_millis(1));
        let open = self.0.cluster().listening(address);
        Ok(if open { PortState::Open } else { PortState::Closed })
    }
}
