//! What every [`HostTransport`] must do, as functions that take one.
//!
//! Another transport's tests include this file and call `contract_suite!` with an expression that makes a [`Fixture`].
//! The host needs a POSIX shell with the usual tools (`cat`, `env`, `head`, `ls`, `ln`, `printf`, `sleep`, `tr`), and
//! the probes expect that 127.0.0.1 of the host is that of the test.

mod wait;

use std::any::Any;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use kwdb_scale_core::ports::{
    Command, CommandEnd, CommandOutput, Detached, HostTransport, PortErrorKind, PortState, Spawned,
};
use kwdb_scale_core::topology::{Address, HostName};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use wait::{PATIENCE, until};

/// A transport, one of its hosts and an empty directory on that host.
pub(crate) struct Fixture {
    pub(crate) transport: Box<dyn HostTransport>,
    pub(crate) host: HostName,
    pub(crate) scratch: String,
    /// Whatever must live as long as the test.
    #[expect(dead_code, reason = "only dropped")]
    pub(crate) keep: Box<dyn Any + Send + Sync>,
}

impl Fixture {
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.scratch)
    }

    async fn run(&self, command: &Command) -> CommandOutput {
        self.transport.run(&self.host, command).await.unwrap()
    }

    /// Runs a command that must succeed without a word on stderr.
    async fn ok(&self, argv: &[&str]) -> String {
        let output = self.run(&Command::new(argv.iter().copied())).await;
        assert_eq!((output.end, output.stderr.as_str()), (CommandEnd::Exit(0), ""), "{argv:?}");
        output.stdout
    }

    async fn put(&self, name: &str, content: &[u8], mode: u32) {
        self.transport.put(&self.host, &self.path(name), content, mode).await.unwrap();
    }

    async fn get(&self, name: &str) -> Option<Vec<u8>> {
        match self.transport.get(&self.host, &self.path(name), 64 << 20).await {
            Ok(content) => Some(content),
            Err(e) if e.kind() == PortErrorKind::NotFound => None,
            Err(e) => panic!("{}", e.chain()),
        }
    }

    async fn spawn(&self, argv: &[&str], output: &str, wait: Duration) -> Spawned {
        let detached = self.detached(argv, output, wait);
        self.transport.spawn(&self.host, &detached).await.unwrap()
    }

    fn detached(&self, argv: &[&str], output: &str, wait: Duration) -> Detached {
        Detached { command: Command::new(argv.iter().copied()), output_file: self.path(output), wait }
    }

    /// A shell text that appends to the file `name` several times a second until its directory is gone.
    fn beat(&self, name: &str) -> String {
        format!("while echo x >>'{}'; do sleep 0.1; done", self.path(name))
    }

    /// Waits until the file `name` no longer grows, that is until the process that beats is gone.
    async fn beat_stops(&self, name: &str) {
        until("the process is gone", || async {
            let before = self.get(name).await.expect("it has beaten");
            sleep(Duration::from_secs(1)).await;
            (self.get(name).await.expect("the file stays") == before).then_some(())
        })
        .await;
    }
}

/// Makes one test of each function of the contract.
#[macro_export]
macro_rules! contract_suite {
    ($fixture:expr) => {
        $crate::contract_suite!($fixture;
            exit_code_and_streams, end_by_signal, missing_program, standard_input, unread_standard_input,
            large_outputs, output_cap, environment, hostile_arguments, deadline_ends_descendants,
            dropped_run_ends_the_command, descendant_that_holds_the_pipes, put_and_get, put_replaces_atomically,
            put_and_get_failures, detached_that_ends, detached_output, detached_stays, dropped_spawn_leaves_it,
            detached_failures, probe_open_and_closed, probe_no_answer
        );
    };
    ($fixture:expr; $($name:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                contract::$name(&$fixture).await;
            }
        )+
    };
}

pub(crate) async fn exit_code_and_streams(f: &Fixture) {
    for code in [0, 1, 3, 255] {
        let script = format!("echo out; echo err >&2; exit {code}");
        let output = f.run(&Command::new(["sh", "-c", &script])).await;
        let expected = CommandOutput {
            end: CommandEnd::Exit(code),
            stdout: "out\n".into(),
            stderr: "err\n".into(),
            truncated: false,
        };
        assert_eq!(output, expected);
    }
    let output = f.run(&Command::new(["printf", "a\\377b"])).await;
    assert_eq!(output.stdout, "a\u{fffd}b", "invalid UTF-8 is replaced");
}

pub(crate) async fn end_by_signal(f: &Fixture) {
    let output = f.run(&Command::new(["sh", "-c", "echo before; kill -9 $$"])).await;
    assert_eq!((output.end, output.stdout.as_str()), (CommandEnd::Signal(9), "before\n"));
}

pub(crate) async fn missing_program(f: &Fixture) {
    for program in ["kwdb-scale-no-such-program".to_owned(), f.path("absent")] {
        let error = f.transport.run(&f.host, &Command::new([program.clone()])).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::NotFound, "{}", error.chain());
        assert!(error.to_string().contains(&program), "{error}");
    }
    let none = Command::new(Vec::<String>::new());
    assert_eq!(f.transport.run(&f.host, &none).await.unwrap_err().kind(), PortErrorKind::Config);
}

pub(crate) async fn standard_input(f: &Fixture) {
    // Far more than a pipe holds, in both directions at once.
    let text: String = (0..300_000).map(|i| format!("{i}\n")).collect();
    let mut command = Command::new(["cat"]);
    command.stdin = Some(text.clone().into_bytes());
    assert!(f.run(&command).await.stdout == text, "the input comes back");
    command.stdin = Some(Vec::new());
    assert_eq!(f.run(&command).await.stdout, "");
    command.stdin = None;
    assert_eq!(f.run(&command).await.stdout, "", "without bytes the input is empty");
}

pub(crate) async fn unread_standard_input(f: &Fixture) {
    let mut command = Command::new(["sh", "-c", "exec <&-; exit 4"]);
    command.stdin = Some(vec![b'x'; 4 << 20]);
    assert_eq!(f.run(&command).await.end, CommandEnd::Exit(4));
}

pub(crate) async fn large_outputs(f: &Fixture) {
    let script = "head -c 3000000 /dev/zero | tr '\\0' b >&2; head -c 3000000 /dev/zero | tr '\\0' a";
    let output = f.run(&Command::new(["sh", "-c", script])).await;
    assert!(output.stdout == "a".repeat(3_000_000) && output.stderr == "b".repeat(3_000_000));
    assert!(!output.truncated);
}

pub(crate) async fn output_cap(f: &Fixture) {
    let mut command = Command::new(["sh", "-c", "head -c 200000 /dev/zero | tr '\\0' a; exit 5"]);
    command.output_cap = 1000;
    let output = f.run(&command).await;
    assert_eq!((output.end, output.stdout.len(), output.truncated), (CommandEnd::Exit(5), 1000, true));
    command.output_cap = 200_000;
    let output = f.run(&command).await;
    assert_eq!((output.stdout.len(), output.truncated), (200_000, false), "exactly the cap is not cut");
}

pub(crate) async fn environment(f: &Fixture) {
    let mut command = Command::new(["env"]);
    command.env.insert("KWDB_SCALE_CONTRACT".into(), "a b\t$(c)'\"".into());
    let output = f.run(&command).await.stdout;
    let has = |line: &str| output.lines().any(|l| l == line);
    assert!(has("LC_ALL=C"), "{output}");
    assert!(has("KWDB_SCALE_CONTRACT=a b\t$(c)'\""), "{output}");
    assert!(!output.lines().any(|l| l.starts_with("KWBASE_")), "{output}");
    command.env.insert("KWBASE_CONTRACT".into(), "asked for".into());
    let output = f.run(&command).await.stdout;
    assert!(output.lines().any(|l| l == "KWBASE_CONTRACT=asked for"), "{output}");
}

pub(crate) async fn hostile_arguments(f: &Fixture) {
    let hostile = [
        "",
        " ",
        "a  b",
        "'",
        "\"",
        "'\\''",
        "\\",
        "a\nb\n",
        "\t",
        "$(touch x)",
        "`id`",
        "$HOME",
        "${x}",
        "-n",
        "--",
        "--host=x",
        "*",
        "~",
        "!!",
        "#",
        ";",
        "a&b|c",
        ">x",
        "%s",
        "\\n",
        "{a,b}",
        "ä → 数据库 🦀",
        "\u{1b}[31m",
        "\u{7f}",
        "x\r",
    ];
    let output = f.run(&Command::new(["printf", "%s\\0"].into_iter().chain(hostile))).await;
    let arrived: Vec<&str> = output.stdout.split_terminator('\0').collect();
    assert_eq!(arrived, hostile);

    let name = "it's a \"program\" $(x)";
    f.put(name, b"#!/bin/sh\nprintf '%s' \"$1\"\n", 0o755).await;
    assert_eq!(f.ok(&[&f.path(name), "a 'b'"]).await, "a 'b'");
}

pub(crate) async fn deadline_ends_descendants(f: &Fixture) {
    // What it started does not listen to the polite signal; then neither does the command itself.
    let deaf_child = format!("(trap '' TERM; {}) & wait", f.beat("first"));
    let deaf = format!("trap '' TERM; ({}) & wait; sleep 300", f.beat("second"));
    tokio::join!(ends_at_the_deadline(f, &deaf_child), ends_at_the_deadline(f, &deaf));
    tokio::join!(f.beat_stops("first"), f.beat_stops("second"));
}

async fn ends_at_the_deadline(f: &Fixture, script: &str) {
    let command = Command::new(["sh", "-c", script, "hunter2"]).deadline(Duration::from_secs(3));
    let start = Instant::now();
    let error = f.transport.run(&f.host, &command).await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_secs(3) && start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert_eq!(error.kind(), PortErrorKind::Deadline, "{}", error.chain());
    assert!(error.to_string().contains("'sh'"), "it names the program: {error}");
    assert!(!error.chain().contains("hunter2"), "it does not show arguments: {}", error.chain());
}

pub(crate) async fn dropped_run_ends_the_command(f: &Fixture) {
    let script = format!("({}) & wait", f.beat("beat"));
    let command = Command::new(["sh", "-c", &script]).deadline(Duration::from_secs(300));
    tokio::select! {
        ended = f.transport.run(&f.host, &command) => panic!("it does not end by itself: {ended:?}"),
        _ = until("it runs", || f.get("beat")) => {}
    }
    f.beat_stops("beat").await;
}

pub(crate) async fn descendant_that_holds_the_pipes(f: &Fixture) {
    let start = Instant::now();
    let output = f.run(&Command::new(["sh", "-c", "sleep 25 & echo said; exit 6"])).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!((output.end, output.stdout.as_str()), (CommandEnd::Exit(6), "said\n"));
}

pub(crate) async fn put_and_get(f: &Fixture) {
    let every_byte: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for (name, mode, shown) in
        [("plain", 0o644, "-rw-r--r--"), ("key", 0o600, "-rw-------"), ("script", 0o777, "-rwxrwxrwx")]
    {
        f.put(name, &every_byte, mode).await;
        assert!(f.get(name).await.unwrap() == every_byte, "{name} comes back");
        let listed = f.ok(&["ls", "-l", &f.path(name)]).await;
        assert!(listed.starts_with(shown), "{listed}");
    }
    f.put("sp ace's", b"", 0o600).await;
    assert_eq!(f.get("sp ace's").await.unwrap(), b"");
    // Exactly the limit is no error, one more is.
    f.put("four", b"1234", 0o600).await;
    let path = f.path("four");
    assert_eq!(f.transport.get(&f.host, &path, 4).await.unwrap(), b"1234");
    assert_eq!(f.transport.get(&f.host, &path, 3).await.unwrap_err().kind(), PortErrorKind::Malformed);
}

pub(crate) async fn put_replaces_atomically(f: &Fixture) {
    f.put("file", b"old", 0o400).await;
    f.ok(&["ln", &f.path("file"), &f.path("kept")]).await;
    f.put("file", b"new", 0o640).await;
    assert_eq!(f.get("file").await.unwrap(), b"new");
    assert_eq!(f.get("kept").await.unwrap(), b"old", "the old file is replaced, not written over");
    assert!(f.ok(&["ls", "-l", &f.path("file")]).await.starts_with("-rw-r-----"));
    assert_eq!(f.ok(&["ls", "-A", &f.scratch]).await, "file\nkept\n", "nothing is left behind");
}

pub(crate) async fn put_and_get_failures(f: &Fixture) {
    let absent = f.path("absent/file");
    let kind = |e: kwdb_scale_core::ports::PortError| e.kind();
    let put = f.transport.put(&f.host, &absent, b"x", 0o600).await;
    assert_eq!(put.map_err(kind), Err(PortErrorKind::NotFound));
    assert_eq!(f.transport.get(&f.host, &absent, 10).await.map_err(kind), Err(PortErrorKind::NotFound));
    let directory = f.transport.get(&f.host, &f.scratch, 10).await;
    assert_eq!(directory.map_err(kind), Err(PortErrorKind::Malformed), "a directory is no file");
}

pub(crate) async fn detached_that_ends(f: &Fixture) {
    let ended = f.spawn(&["sh", "-c", "exit 7"], "out", PATIENCE).await;
    assert_eq!(ended, Spawned::Ended(CommandEnd::Exit(7)));
    let ended = f.spawn(&["sh", "-c", "kill -9 $$"], "out", PATIENCE).await;
    assert_eq!(ended, Spawned::Ended(CommandEnd::Signal(9)));
}

pub(crate) async fn detached_output(f: &Fixture) {
    let script = "cat; echo out; echo err >&2; printf '%s\\n' \"$1\"; env | grep -c '^LC_ALL=C$'";
    for _ in 0..2 {
        let ended = f.spawn(&["sh", "-c", script, "sh", "it's $x"], "log", PATIENCE).await;
        assert_eq!(ended, Spawned::Ended(CommandEnd::Exit(0)));
    }
    let log = String::from_utf8(f.get("log").await.unwrap()).unwrap();
    assert_eq!(log, "out\nerr\nit's $x\n1\n".repeat(2), "appended, with an empty standard input");
    assert!(f.ok(&["ls", "-l", &f.path("log")]).await.starts_with("-rw-------"));
}

/// Runs until the file `stop` appears and then says so.
fn waits_for_stop(f: &Fixture) -> String {
    let (dir, stop) = (&f.scratch, f.path("stop"));
    format!("echo up; while [ -d '{dir}' ] && [ ! -e '{stop}' ]; do sleep 0.05; done; echo finished")
}

async fn finishes(f: &Fixture) {
    f.put("stop", b"", 0o600).await;
    until("it has finished", || async { (f.get("log").await? == b"up\nfinished\n").then_some(()) }).await;
}

pub(crate) async fn detached_stays(f: &Fixture) {
    let wait = Duration::from_millis(300);
    let start = Instant::now();
    let spawned = f.spawn(&["sh", "-c", &waits_for_stop(f)], "log", wait).await;
    assert!(start.elapsed() >= wait);
    let Spawned::Running(pid) = spawned else { panic!("it runs: {spawned:?}") };
    f.ok(&["kill", "-0", &pid.to_string()]).await;
    finishes(f).await;
}

pub(crate) async fn dropped_spawn_leaves_it(f: &Fixture) {
    let detached = f.detached(&["sh", "-c", &waits_for_stop(f)], "log", Duration::from_secs(300));
    tokio::select! {
        ended = f.transport.spawn(&f.host, &detached) => panic!("it does not end by itself: {ended:?}"),
        _ = until("it runs", || async { f.get("log").await.filter(|log| !log.is_empty()) }) => {}
    }
    finishes(f).await;
}

pub(crate) async fn detached_failures(f: &Fixture) {
    let kind = async |argv: &[&str], output_file: String| {
        let command = Command::new(argv.iter().copied());
        let detached = Detached { command, output_file, wait: PATIENCE };
        f.transport.spawn(&f.host, &detached).await.unwrap_err().kind()
    };
    assert_eq!(kind(&[&f.path("absent")], f.path("log")).await, PortErrorKind::NotFound);
    assert_eq!(kind(&["true"], f.path("absent/log")).await, PortErrorKind::NotFound);
    assert_eq!(kind(&["true"], "relative".into()).await, PortErrorKind::Config);
    assert_eq!(kind(&[], f.path("log")).await, PortErrorKind::Config);
}

async fn probe(f: &Fixture, address: impl Into<Address>, deadline: Duration) -> PortState {
    f.transport.probe(&f.host, &address.into(), deadline).await.unwrap()
}

pub(crate) async fn probe_open_and_closed(f: &Fixture) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_eq!(probe(f, address.as_str(), PATIENCE).await, PortState::Open);
    drop(listener);
    assert_eq!(probe(f, address.as_str(), PATIENCE).await, PortState::Closed);
    let no_port = f.transport.probe(&f.host, &Address::from("127.0.0.1"), PATIENCE).await;
    assert_eq!(no_port.unwrap_err().kind(), PortErrorKind::Config);
}

pub(crate) async fn probe_no_answer(f: &Fixture) {
    // A listener whose queue is full drops what comes: nothing is accepted and nothing refused.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 100, "the queue never fills");
    }
    let start = Instant::now();
    let state = probe(f, address.to_string(), Duration::from_millis(500)).await;
    assert_eq!(state, PortState::NoAnswer);
    assert!(start.elapsed() < PATIENCE);
}
