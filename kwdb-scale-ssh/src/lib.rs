//! kwdb-scale on hosts that are reached over SSH.
//!
//! [`kwdb_scale_core`] decides what is safe and asks the outside through its ports. This crate implements one of
//! them, [`HostTransport`]: it runs `kwbase` and other commands, starts nodes, moves files and probes ports on named
//! hosts. It speaks the protocol itself, on tokio, and needs neither a program nor a home directory where it runs
//! (Unix only); [`SshConfig`] asks an installed `ssh` for the meaning of an ssh_config, if you want that.
//!
//! # A complete program
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use kwdb_scale_core::ports::{Command, HostTransport, PortErrorKind};
//! use kwdb_scale_core::topology::HostName;
//! use kwdb_scale_ssh::{Agent, HostKeyPolicy, KeyFile, Privilege, SshHost, SshTransport};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Three nodes behind a bastion; commands run as the user who owns the data.
//!     let keys = HostKeyPolicy::Strict { files: vec!["/etc/ssh/ssh_known_hosts".into()] };
//!     let bastion = SshHost::new("bastion.example.com", "ops", keys.clone()).login(Agent::from_env());
//!     let host = |address: &str| {
//!         SshHost::new(address, "ops", keys.clone())
//!             .login(Agent::from_env())
//!             .login(KeyFile::new("/home/ops/.ssh/id_ed25519"))
//!             .via(bastion.clone())
//!             .privilege(Privilege::Sudo { user: Some("kaiwudb".into()) })
//!     };
//!     let hosts = [("n1", "10.0.0.1"), ("n2", "10.0.0.2"), ("n3", "10.0.0.3")];
//!     let transport = SshTransport::new(hosts.map(|(name, address)| (name.into(), host(address))))?;
//!
//!     let n1 = HostName::from("n1");
//!     let command = Command::new(["kwbase", "version"]).deadline(Duration::from_secs(10));
//!     match transport.run(&n1, &command).await {
//!         Ok(output) => println!("{}: {}", output.end, output.stdout),
//!         // It may or may not have been done: ask the cluster, do not guess.
//!         Err(e) if e.kind().may_have_been_done() => eprintln!("unknown: {}", e.chain()),
//!         Err(e) if e.kind() == PortErrorKind::Unreachable => eprintln!("not done: {}", e.chain()),
//!         Err(e) => return Err(e.into()),
//!     }
//!     let state = transport.probe(&n1, &"10.0.0.2:26257".into(), Duration::from_secs(2)).await?;
//!     println!("n2, seen from n1: {state:?}");
//!     Ok(())
//! }
//! ```
//!
//! What operates clusters is [`Kwbase`](kwdb_scale_core::kwbase::Kwbase), the kwbase command line, over this transport:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost};
//! # fn f(transport: kwdb_scale_ssh::SshTransport, hosts: Vec<KwbaseHost>) -> Result<(), Box<dyn std::error::Error>> {
//! // The hosts by the names that the transport knows them by: see `KwbaseHost`.
//! let kwbase = Arc::new(Kwbase::new(Arc::new(transport), hosts)?);
//! // It is a `DecommissionControl` and a `NodeLifecycle`: give it to `kwdb_scale_core::execute::Ports`.
//! # let _ = kwbase;
//! # Ok(()) }
//! ```
//!
//! # What is where
//!
//! | item | says |
//! |---|---|
//! | [`SshTransport`] | what is done on hosts, and what becomes of it when a deadline passes or a connection is lost |
//! | [`SshHost`] | how a host is reached: address, user, jump host |
//! | [`HostKeyPolicy`] | which host is the right one: known_hosts files, pinned fingerprints, or the first key seen |
//! | [`Login`], [`KeyFile`], [`Agent`] | how to log in: key files (encrypted, with certificates), an agent, a password, a dialogue |
//! | [`Privilege`] | as whom: the user who logs in, or through `sudo` with or without a password |
//! | [`Answer`] | what to type when a command on a terminal, or a login, asks |
//! | [`SshConfig`] | hosts of a person's ssh_config |
//! | [`SshFault`] | what is wrong, where the kind of an error does not tell enough |
//! | [`SshLimits`] | handshakes and sessions at once, time to connect, keepalive |
//!
//! # What a host needs
//!
//! An SSH server that starts each command in a session of its own, as OpenSSH does; a login shell that is a POSIX
//! one (sh, dash, bash, ksh, zsh); the usual tools (`env`, `sed`, `sleep`, `kill`, `dd`, `head`, `wc`, `mv`,
//! `chmod`, `sync`) and, for the comparison of files, `sha256sum`, `shasum` or `openssl`. A jump host must be allowed to
//! forward TCP (`AllowTcpForwarding`); a host that is probed must be, too, or have `bash`. With a [`Privilege`] other
//! than as is, sudo must allow `sh`.
//!
//! Command lines and environments are visible to other users of the host while they run, as always on Unix: a secret
//! goes through standard input, or is an [`Answer`] on a terminal.
//!
//! # Errors
//!
//! | kind | means |
//! |---|---|
//! | `Unreachable` | no connection, or no session before the deadline. Nothing was done |
//! | `Authentication` | the host key was refused, or the host refused every login, or sudo the password. Nothing was done |
//! | `Denied` | the host does not run commands for us, or sudo does not. Nothing was done |
//! | `ConnectionLost` | the connection went away after a command was sent. It may have been done |
//! | `Deadline` | the command did not come back in time; the message tells whether it was ended |
//! | `Unsupported` | the host does not forward TCP (and has no bash), or knows only algorithms that are no longer safe |
//!
//! [`HostTransport`]: kwdb_scale_core::ports::HostTransport

mod config;
mod connection;
mod detached;
mod ecdsa;
mod error;
mod exchange;
mod files;
mod host_keys;
mod keys;
mod known_hosts;
mod login;
mod paths;
mod pool;
mod probe;
mod run;
mod script;
mod ssh_config;
mod stream;
mod transport;

pub use config::{Agent, Answer, KeyFile, Login, Privilege, SshHost, SshLimits};
pub use error::SshFault;
pub use host_keys::HostKeyPolicy;
/// What passwords and passphrases are given in: it prints as `[redacted]`.
pub use kwdb_scale_core::secret::Secret;
pub use ssh_config::SshConfig;
pub use transport::SshTransport;
