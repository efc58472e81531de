//! The contract of a `HostTransport`, as far as it needs nothing of the host but one command.
//!
//! [`posix`](super::posix) goes on from here for hosts with a shell. Both are called by
//! [`transport_contract!`](crate::transport_contract).

use std::any::Any;
use std::time::Duration;

use kwdb_scale_core::ports::{
    Command, CommandEnd, CommandOutput, Detached, HostTransport, PortErrorKind, PortState, Spawned,
};
use kwdb_scale_core::topology::{Address, HostName};
use tokio::time::sleep;

use super::wait::{PATIENCE, fails, must, until};

/// A transport, one of its hosts and an empty directory on that host.
pub struct TransportFixture {
    /// What is tried out.
    pub transport: Box<dyn HostTransport>,
    /// A host that it knows. It does not know one called `no-such-host`.
    pub host: HostName,
    /// Absolute path of an empty directory there.
    pub scratch: String,
    /// A command that ends with success and says more than three characters on standard output, nothing on standard
    /// error, the same each time.
    pub says: Vec<String>,
    /// A command that ends with a failure.
    pub fails: Vec<String>,
    /// An address at which something listens, seen from the host, and one at which nothing does.
    pub open_and_closed: (Address, Address),
    /// Whatever must live as long as the test.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for TransportFixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransportFixture").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl TransportFixture {
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.scratch)
    }

    pub(super) async fn run(&self, command: &Command) -> CommandOutput {
        must(&format!("running {:?}", command.argv), self.transport.run(&self.host, command).await)
    }

    /// Runs a command that must succeed without a word on stderr.
    pub(super) async fn ok(&self, argv: &[&str]) -> String {
        let output = self.run(&Command::new(argv.iter().copied())).await;
        assert_eq!((output.end, output.stderr.as_str()), (CommandEnd::Exit(0), ""), "{argv:?}");
        output.stdout
    }

    pub(super) async fn put(&self, name: &str, content: &[u8], mode: u32) {
        let put = self.transport.put(&self.host, &self.path(name), content, mode).await;
        must(&format!("writing {name}"), put);
    }

    pub(super) async fn get(&self, name: &str) -> Option<Vec<u8>> {
        match self.transport.get(&self.host, &self.path(name), 64 << 20).await {
            Ok(content) => Some(content),
            Err(e) if e.kind() == PortErrorKind::NotFound => None,
            Err(e) => panic!("{}", e.chain()),
        }
    }

    pub(super) async fn spawn(&self, argv: &[&str], output: &str, wait: Duration) -> Spawned {
        let detached = self.detached(argv, output, wait);
        must(&format!("starting {argv:?}"), self.transport.spawn(&self.host, &detached).await)
    }

    pub(super) fn detached(&self, argv: &[&str], output: &str, wait: Duration) -> Detached {
        Detached { command: Command::new(argv.iter().copied()), output_file: self.path(output), wait }
    }

    /// A shell text that appends to the file `name` several times a second until its directory is gone.
    pub(super) fn beat(&self, name: &str) -> String {
        format!("while echo x >>'{}'; do sleep 0.1; done", self.path(name))
    }

    /// Waits until the file `name` no longer grows, that is until the process that beats is gone.
    pub(super) async fn beat_stops(&self, name: &str) {
        until("the process is gone", async || {
            let before = self.get(name).await.expect("it has beaten");
            sleep(Duration::from_secs(1)).await;
            (self.get(name).await.expect("the file stays") == before).then_some(())
        })
        .await;
    }
}

/// Makes one test of each case of the contract of a `HostTransport`.
///
/// `transport_contract!(any, fixture)` takes the cases of [`contract::transport`](crate::contract::transport);
/// `transport_contract!(posix, fixture)` those and the ones of [`contract::posix`](crate::contract::posix), for hosts
/// with a POSIX shell and the usual tools. `fixture` is an expression that makes a
/// [`TransportFixture`](crate::contract::TransportFixture) of its own for each test. The calling crate
/// needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! transport_contract {
    (any, $fixture:expr) => {
        $crate::transport_contract!(@ transport, $fixture;
            unknown_host, command_ends, output_is_cut, no_such_program, detached_ends, files, probes);
    };
    (posix, $fixture:expr) => {
        $crate::transport_contract!(any, $fixture);
        $crate::transport_contract!(@ posix, $fixture;
            exit_code_and_streams, end_by_signal, missing_program, standard_input, unread_standard_input,
            large_outputs, output_cap, environment, hostile_arguments, deadline_ends_descendants,
            dropped_run_ends_the_command, descendant_that_holds_the_pipes, put_and_get, put_replaces_atomically,
            put_and_get_failures, put_replaces_files_only, detached_that_ends, detached_output, detached_stays, dropped_spawn_leaves_it,
            detached_failures, probe_open_and_closed, probe_no_answer);
    };
    (@ $suite:ident, $fixture:expr; $($name:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::contract::$suite::$name(&$fixture).await;
            }
        )+
    };
}

/// Every call refuses a host that the transport does not know.
///
/// # Panics
/// When it does otherwise.
pub async fn unknown_host(f: &TransportFixture) {
    let stranger = HostName::from("no-such-host");
    let command = Command::new(f.says.clone());
    let detached = Detached { command: command.clone(), output_file: f.path("log"), wait: PATIENCE };
    let path = f.path("file");
    let address = &f.open_and_closed.0;
    let errors = [
        fails("run", f.transport.run(&stranger, &command).await),
        fails("spawn", f.transport.spawn(&stranger, &detached).await),
        fails("put", f.transport.put(&stranger, &path, b"x", 0o600).await),
        fails("get", f.transport.get(&stranger, &path, 1).await),
        fails("probe", f.transport.probe(&stranger, address, PATIENCE).await),
    ];
    for error in errors {
        assert_eq!(error.kind(), PortErrorKind::Config, "{}", error.chain());
        assert!(error.chain().contains("no-such-host"), "it names the host: {}", error.chain());
    }
}

/// Success and failure of a command are both `Ok`.
///
/// # Panics
/// When it does otherwise.
pub async fn command_ends(f: &TransportFixture) {
    for _ in 0..2 {
        let said = f.run(&Command::new(f.says.clone())).await;
        assert_eq!(said.end, CommandEnd::Exit(0), "{said:?}");
        assert!(said.stdout.len() > 3 && said.stderr.is_empty() && !said.truncated, "{said:?}");
    }
    let failed = f.run(&Command::new(f.fails.clone())).await;
    assert!(!failed.end.success(), "{failed:?}");
}

/// What exceeds the cap is cut and flagged; the cap itself is no cut.
///
/// # Panics
/// When it does otherwise.
pub async fn output_is_cut(f: &TransportFixture) {
    let mut command = Command::new(f.says.clone());
    let whole = f.run(&command).await;
    command.output_cap = 3;
    let cut = f.run(&command).await;
    assert_eq!(cut.end, CommandEnd::Exit(0), "a cut does not end the command: {cut:?}");
    assert_eq!((Some(cut.stdout.as_str()), cut.truncated), (whole.stdout.get(..3), true));
    command.output_cap = whole.stdout.len();
    assert_eq!(f.run(&command).await, whole, "exactly the cap is not cut");
}

/// A program that is not there is `NotFound` and named; no program at all is `Config`.
///
/// # Panics
/// When it does otherwise.
pub async fn no_such_program(f: &TransportFixture) {
    let argv = ["kwdb-scale-no-such-program", "hunter2"];
    let detached = f.detached(&argv, "log", PATIENCE);
    let errors = [
        fails("run", f.transport.run(&f.host, &Command::new(argv)).await),
        fails("spawn", f.transport.spawn(&f.host, &detached).await),
    ];
    for error in errors {
        assert_eq!(error.kind(), PortErrorKind::NotFound, "{}", error.chain());
        assert!(error.to_string().contains(argv[0]), "{error}");
        assert!(!error.chain().contains("hunter2"), "it does not show arguments: {}", error.chain());
    }
    let none = Command::new(Vec::<String>::new());
    let error = fails("an empty command line", f.transport.run(&f.host, &none).await);
    assert_eq!(error.kind(), PortErrorKind::Config, "{}", error.chain());
}

/// A detached command that ends says how; its output is appended to the file.
///
/// # Panics
/// When it does otherwise.
pub async fn detached_ends(f: &TransportFixture) {
    let says: Vec<&str> = f.says.iter().map(String::as_str).collect();
    let fail: Vec<&str> = f.fails.iter().map(String::as_str).collect();
    let said = f.run(&Command::new(f.says.clone())).await.stdout;
    for times in 1..=2 {
        assert_eq!(f.spawn(&says, "log", PATIENCE).await, Spawned::Ended(CommandEnd::Exit(0)));
        assert_eq!(f.get("log").await, Some(said.repeat(times).into_bytes()), "appended");
    }
    let ended = f.spawn(&fail, "other", PATIENCE).await;
    assert!(matches!(ended, Spawned::Ended(end) if !end.success()), "{ended:?}");
    let relative = Detached { output_file: "log".to_owned(), ..f.detached(&says, "", PATIENCE) };
    let error = fails("a relative output file", f.transport.spawn(&f.host, &relative).await);
    assert_eq!(error.kind(), PortErrorKind::Config, "{}", error.chain());
}

/// Files come back byte for byte; a new one takes the place of the old; one that is longer than the limit is
/// `Malformed`, an absent one `NotFound`.
///
/// # Panics
/// When it does otherwise.
pub async fn files(f: &TransportFixture) {
    let every_byte: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
    for content in [&every_byte[..], b"", b"1234"] {
        for _ in 0..2 {
            f.put("it's a $(file)", content, 0o600).await;
            assert!(f.get("it's a $(file)").await.as_deref() == Some(content), "it comes back");
        }
    }
    let path = f.path("it's a $(file)");
    assert_eq!(must("exactly the limit", f.transport.get(&f.host, &path, 4).await), b"1234");
    let error = fails("one more than the limit", f.transport.get(&f.host, &path, 3).await);
    assert_eq!(error.kind(), PortErrorKind::Malformed, "{}", error.chain());
    let error = fails("an absent file", f.transport.get(&f.host, &f.path("absent"), 9).await);
    assert_eq!(error.kind(), PortErrorKind::NotFound, "{}", error.chain());
}

/// An address at which something listens is open, another closed.
///
/// # Panics
/// When it does otherwise.
pub async fn probes(f: &TransportFixture) {
    let (open, closed) = &f.open_and_closed;
    for (address, expected) in [(open, PortState::Open), (closed, PortState::Closed)] {
        let found = must("probing", f.transport.probe(&f.host, address, PATIENCE).await);
        assert_eq!(found, expected, "{address}");
    }
}
