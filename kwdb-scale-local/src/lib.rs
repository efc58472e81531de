//! kwdb-scale on the machine it runs on: a host transport, a journal, a lock and a clock.
//!
//! [`kwdb_scale_core`] decides what is safe and asks the outside through its ports. This crate implements those that
//! need nothing but an operating system (Unix), on tokio:
//!
//! | here | port | does |
//! |---|---|---|
//! | [`LocalTransport`] | [`HostTransport`] | runs commands, moves files, probes ports on this machine |
//! | [`FileJournal`] | [`Journal`] | keeps the record of an operation as JSON lines |
//! | [`FileLock`] | [`OperationLock`] | lets one operation run at a time on this machine |
//! | [`SystemClock`] | [`Clock`] | tells the time, without steps |
//!
//! Every future of the transport needs a tokio runtime with I/O and time enabled. The crate has no features.
//!
//! # A complete program
//!
//! ```
//! use std::time::Duration;
//!
//! use kwdb_scale_core::ports::{Clock, Command, HostTransport, Journal, OperationLock, PortState};
//! use kwdb_scale_core::topology::{Address, HostName};
//! use kwdb_scale_local::{FileJournal, FileLock, LocalTransport, SystemClock};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! # let scratch = tempfile::tempdir()?;
//! # let dir = scratch.path();
//! // Three nodes on one machine: three names, one transport.
//! let hosts = ["n1", "n2", "n3"].map(HostName::from);
//! let transport = LocalTransport::new(hosts.clone());
//! let [n1, ..] = &hosts;
//!
//! // Arguments are handed over as they are, never through a shell; the deadline ends whatever the command started.
//! let command = Command::new(["printf", "%s", "a b; $(c)"]).deadline(Duration::from_secs(10));
//! let output = transport.run(n1, &command).await?;
//! assert!(output.end.success());
//! assert_eq!(output.stdout, "a b; $(c)");
//!
//! // Is anybody listening?
//! let state = transport.probe(n1, &Address::from("127.0.0.1:1"), Duration::from_secs(2)).await?;
//! assert_ne!(state, PortState::Open);
//!
//! // One operation at a time, and a record of it that survives a crash.
//! let held = FileLock::in_dir(dir).acquire("scale-in of n4").await?;
//! let second = FileLock::in_dir(dir).acquire("scale-out").await;
//! assert!(second.is_err_and(|e| e.to_string().contains("held by scale-in of n4")));
//!
//! let journal = FileJournal::create(dir, "scale-in").await?;
//! assert!(journal.records().await?.is_empty());
//! assert_eq!(FileJournal::latest(dir).await?.as_deref(), Some(journal.path()));
//!
//! let clock = SystemClock::new();
//! clock.sleep_until(clock.now()).await;
//! drop(held);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! [`HostTransport`]: kwdb_scale_core::ports::HostTransport
//! [`Journal`]: kwdb_scale_core::ports::Journal
//! [`OperationLock`]: kwdb_scale_core::ports::OperationLock
//! [`Clock`]: kwdb_scale_core::ports::Clock

mod clock;
mod detached;
mod error;
mod files;
mod journal;
mod launch;
mod lock;
mod probe;
mod run;
mod transport;

pub use clock::SystemClock;
pub use journal::FileJournal;
pub use lock::FileLock;
pub use transport::LocalTransport;
