//! The contract of a `HostTransport` on hosts with a POSIX shell and the usual tools (`cat`, `env`, `grep`, `head`,
//! `kill`, `ls`, `ln`, `mkdir`, `mkfifo`, `printf`, `sleep`, `tr`). The probes expect that 127.0.0.1 of the host is that of the test.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use kwdb_scale_core::ports::{
    Command, CommandEnd, CommandOutput, Detached, PortErrorKind, PortState, Spawned,
};
use kwdb_scale_core::topology::Address;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::TransportFixture;
use super::wait::{PATIENCE, fails, until};

/// Every exit code comes back, with both streams; bytes that are no UTF-8 are replaced.
///
/// # Panics
/// When it does otherwise.
pub async fn exit_code_and_streams(f: &TransportFixture) {
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

/// The end by a signal is told, with what was said before it.
///
/// # Panics
/// When it does otherwise.
pub async fn end_by_signal(f: &TransportFixture) {
    let output = f.run(&Command::new(["sh", "-c", "echo before; kill -9 $$"])).await;
    assert_eq!((output.end, output.stdout.as_str()), (CommandEnd::Signal(9), "before\n"));
}

/// A program that is not there is `NotFound`, by name as by path.
///
/// # Panics
/// When it does otherwise.
pub async fn missing_program(f: &TransportFixture) {
    for program in ["kwdb-scale-no-such-program".to_owned(), f.path("absent")] {
        let error = f.transport.run(&f.host, &Command::new([program.clone()])).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::NotFound, "{}", error.chain());
        assert!(error.to_string().contains(&program), "{error}");
    }
    let none = Command::new(Vec::<String>::new());
    assert_eq!(f.transport.run(&f.host, &none).await.unwrap_err().kind(), PortErrorKind::Config);
}

/// Standard input arrives whole, more than a pipe holds; without bytes it is empty.
///
/// # Panics
/// When it does otherwise.
pub async fn standard_input(f: &TransportFixture) {
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

/// A command that does not read its input still ends as it ends.
///
/// # Panics
/// When it does otherwise.
pub async fn unread_standard_input(f: &TransportFixture) {
    let mut command = Command::new(["sh", "-c", "exec <&-; exit 4"]);
    command.stdin = Some(vec![b'x'; 4 << 20]);
    assert_eq!(f.run(&command).await.end, CommandEnd::Exit(4));
}

/// Both streams at once, each more than a pipe holds.
///
/// # Panics
/// When it does otherwise.
pub async fn large_outputs(f: &TransportFixture) {
    let script = "head -c 3000000 /dev/zero | tr '\\0' b >&2; head -c 3000000 /dev/zero | tr '\\0' a";
    let output = f.run(&Command::new(["sh", "-c", script])).await;
    assert!(output.stdout == "a".repeat(3_000_000) && output.stderr == "b".repeat(3_000_000));
    assert!(!output.truncated);
}

/// What exceeds the cap is read and dropped.
///
/// # Panics
/// When it does otherwise.
pub async fn output_cap(f: &TransportFixture) {
    let mut command = Command::new(["sh", "-c", "head -c 200000 /dev/zero | tr '\\0' a; exit 5"]);
    command.output_cap = 1000;
    let output = f.run(&command).await;
    assert_eq!((output.end, output.stdout.len(), output.truncated), (CommandEnd::Exit(5), 1000, true));
    command.output_cap = 200_000;
    let output = f.run(&command).await;
    assert_eq!((output.stdout.len(), output.truncated), (200_000, false), "exactly the cap is not cut");
}

/// The environment is what was asked for, without `KWBASE_*` and with `LC_ALL=C`.
///
/// # Panics
/// When it does otherwise.
pub async fn environment(f: &TransportFixture) {
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

/// Arguments arrive as they are, whatever a shell would make of them.
///
/// # Panics
/// When it does otherwise.
pub async fn hostile_arguments(f: &TransportFixture) {
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

/// The deadline ends a command and what it started, also when they do not listen.
///
/// # Panics
/// When it does otherwise.
pub async fn deadline_ends_descendants(f: &TransportFixture) {
    // What it started does not listen to the polite signal; then neither does the command itself.
    let deaf_child = format!("(trap '' TERM; {}) & wait", f.beat("first"));
    let deaf = format!("trap '' TERM; ({}) & wait; sleep 300", f.beat("second"));
    tokio::join!(ends_at_the_deadline(f, &deaf_child), ends_at_the_deadline(f, &deaf));
    tokio::join!(f.beat_stops("first"), f.beat_stops("second"));
}

async fn ends_at_the_deadline(f: &TransportFixture, script: &str) {
    let command = Command::new(["sh", "-c", script, "hunter2"]).deadline(Duration::from_secs(3));
    let start = Instant::now();
    let error = f.transport.run(&f.host, &command).await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_secs(3) && start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert_eq!(error.kind(), PortErrorKind::Deadline, "{}", error.chain());
    assert!(error.to_string().contains("'sh'"), "it names the program: {error}");
    assert!(!error.chain().contains("hunter2"), "it does not show arguments: {}", error.chain());
}

/// Giving the call up ends the command and what it started.
///
/// # Panics
/// When it does otherwise.
pub async fn dropped_run_ends_the_command(f: &TransportFixture) {
    let script = format!("({}) & wait", f.beat("beat"));
    let command = Command::new(["sh", "-c", &script]).deadline(Duration::from_secs(300));
    tokio::select! {
        ended = f.transport.run(&f.host, &command) => panic!("it does not end by itself: {ended:?}"),
        _ = until("it runs", async || f.get("beat").await) => {}
    }
    f.beat_stops("beat").await;
}

/// A process that stays and holds the output open does not keep the call.
///
/// # Panics
/// When it does otherwise.
pub async fn descendant_that_holds_the_pipes(f: &TransportFixture) {
    let start = Instant::now();
    let output = f.run(&Command::new(["sh", "-c", "sleep 25 & echo said; exit 6"])).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!((output.end, output.stdout.as_str()), (CommandEnd::Exit(6), "said\n"));
}

/// Large files with their mode bits, hostile names, the limit.
///
/// # Panics
/// When it does otherwise.
pub async fn put_and_get(f: &TransportFixture) {
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

/// The file takes the place of another and leaves nothing else behind.
///
/// # Panics
/// When it does otherwise.
pub async fn put_replaces_atomically(f: &TransportFixture) {
    f.put("file", b"old", 0o400).await;
    f.ok(&["ln", &f.path("file"), &f.path("kept")]).await;
    f.put("file", b"new", 0o640).await;
    assert_eq!(f.get("file").await.unwrap(), b"new");
    assert_eq!(f.get("kept").await.unwrap(), b"old", "the old file is replaced, not written over");
    assert!(f.ok(&["ls", "-l", &f.path("file")]).await.starts_with("-rw-r-----"));
    assert_eq!(f.ok(&["ls", "-A", &f.scratch]).await, "file\nkept\n", "nothing is left behind");
}

/// Absent directories and files, and a directory where a file should be.
///
/// # Panics
/// When it does otherwise.
pub async fn put_and_get_failures(f: &TransportFixture) {
    let absent = f.path("absent/file");
    let kind = |e: kwdb_scale_core::ports::PortError| e.kind();
    let put = f.transport.put(&f.host, &absent, b"x", 0o600).await;
    assert_eq!(put.map_err(kind), Err(PortErrorKind::NotFound));
    assert_eq!(f.transport.get(&f.host, &absent, 10).await.map_err(kind), Err(PortErrorKind::NotFound));
    let directory = f.transport.get(&f.host, &f.scratch, 10).await;
    assert_eq!(directory.map_err(kind), Err(PortErrorKind::Malformed), "a directory is no file");
}

/// A directory, a named pipe and links to them are neither replaced nor written to; a link to a file, or to nothing, is
/// replaced.
///
/// # Panics
/// When it does otherwise.
pub async fn put_replaces_files_only(f: &TransportFixture) {
    f.ok(&["mkdir", &f.path("dir")]).await;
    f.ok(&["mkfifo", &f.path("pipe")]).await;
    f.put("target", b"target", 0o600).await;
    for to in ["dir", "pipe", "target", "nothing"] {
        f.ok(&["ln", "-s", to, &f.path(&format!("to-{to}"))]).await;
    }
    let before = f.ok(&["ls", "-lA", &f.scratch]).await;
    for name in ["dir", "pipe", "to-dir", "to-pipe"] {
        let path = f.path(name);
        let put = timeout(PATIENCE, f.transport.put(&f.host, &path, b"x", 0o600)).await.expect("it ends");
        let error = fails(name, put);
        assert_eq!(error.kind(), PortErrorKind::Malformed, "{}", error.chain());
        assert!(error.to_string().contains(&path), "it names the path: {error}");
    }
    assert_eq!(
        f.ok(&["ls", "-lA", &f.scratch]).await,
        before,
        "they stay as they are, and nothing is left behind"
    );
    for name in ["to-target", "to-nothing"] {
        f.put(name, b"new", 0o600).await;
        let listed = f.ok(&["ls", "-l", &f.path(name)]).await;
        assert!(listed.starts_with('-'), "the link is replaced: {listed}");
    }
    assert_eq!(f.get("target").await.unwrap(), b"target", "what it led to is not written");
    assert_eq!(f.get("nothing").await, None);
}

/// A detached command that ends within the wait says how.
///
/// # Panics
/// When it does otherwise.
pub async fn detached_that_ends(f: &TransportFixture) {
    let ended = f.spawn(&["sh", "-c", "exit 7"], "out", PATIENCE).await;
    assert_eq!(ended, Spawned::Ended(CommandEnd::Exit(7)));
    let ended = f.spawn(&["sh", "-c", "kill -9 $$"], "out", PATIENCE).await;
    assert_eq!(ended, Spawned::Ended(CommandEnd::Signal(9)));
}

/// Its output is appended, its input empty, its environment clean.
///
/// # Panics
/// When it does otherwise.
pub async fn detached_output(f: &TransportFixture) {
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
fn waits_for_stop(f: &TransportFixture) -> String {
    let (dir, stop) = (&f.scratch, f.path("stop"));
    format!("echo up; while [ -d '{dir}' ] && [ ! -e '{stop}' ]; do sleep 0.05; done; echo finished")
}

async fn finishes(f: &TransportFixture) {
    f.put("stop", b"", 0o600).await;
    until("it has finished", async || (f.get("log").await? == b"up\nfinished\n").then_some(())).await;
}

/// One that does not end is left alone, and its process id told.
///
/// # Panics
/// When it does otherwise.
pub async fn detached_stays(f: &TransportFixture) {
    let wait = Duration::from_millis(300);
    let start = Instant::now();
    let spawned = f.spawn(&["sh", "-c", &waits_for_stop(f)], "log", wait).await;
    assert!(start.elapsed() >= wait);
    let Spawned::Running(pid) = spawned else { panic!("it runs: {spawned:?}") };
    f.ok(&["kill", "-0", &pid.to_string()]).await;
    finishes(f).await;
}

/// Giving the call up leaves it alone.
///
/// # Panics
/// When it does otherwise.
pub async fn dropped_spawn_leaves_it(f: &TransportFixture) {
    let detached = f.detached(&["sh", "-c", &waits_for_stop(f)], "log", Duration::from_secs(300));
    tokio::select! {
        ended = f.transport.spawn(&f.host, &detached) => panic!("it does not end by itself: {ended:?}"),
        _ = until("it runs", async || { f.get("log").await.filter(|log| !log.is_empty()) }) => {}
    }
    finishes(f).await;
}

/// What cannot be started is an error.
///
/// # Panics
/// When it does otherwise.
pub async fn detached_failures(f: &TransportFixture) {
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

async fn probe(f: &TransportFixture, address: impl Into<Address>, deadline: Duration) -> PortState {
    f.transport.probe(&f.host, &address.into(), deadline).await.unwrap()
}

/// A listener of the test is open until it is closed.
///
/// # Panics
/// When it does otherwise.
pub async fn probe_open_and_closed(f: &TransportFixture) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_eq!(probe(f, address.as_str(), PATIENCE).await, PortState::Open);
    drop(listener);
    assert_eq!(probe(f, address.as_str(), PATIENCE).await, PortState::Closed);
    let no_port = f.transport.probe(&f.host, &Address::from("127.0.0.1"), PATIENCE).await;
    assert_eq!(no_port.unwrap_err().kind(), PortErrorKind::Config);
}

/// Silence is no answer, neither open nor closed.
///
/// # Panics
/// When it does otherwise.
pub async fn probe_no_answer(f: &TransportFixture) {
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
