//! A simulated KWDB for tests, called the twin: one deterministic model of a cluster with three faces.
//!
//! * **In memory**, on a virtual clock: a test runs a whole scale-in in milliseconds ([`memory`]).
//! * **As ports inside a test**, which a PostgreSQL client or a gRPC client of the admin service connects to
//!   ([`process::Listeners`]).
//! * **As processes**, with the `kwbase` command line, signals, files and TLS ([`lab`]). A lab also drives a real
//!   `kwbase`, so that one test suite runs on both.
//!
//! The twin answers what KWDB V3.2.1 was seen to answer: the same rows, the same words on the same streams, the same
//! exit codes. It holds no data and runs no SQL engine: an unknown statement is an error that names it.
//!
//! # A cluster for a test
//!
//! Three nodes on real loopback ports, at twenty times the speed of life:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//! use kwdb_scale_sim::model::{Cluster, Config, NodeStart};
//! use kwdb_scale_sim::process::{Listeners, Pace, free_addresses};
//!
//! let addresses = free_addresses(3)?;
//! let mut cluster = Cluster::new(Config::default());
//! for address in &addresses {
//!     cluster.start_node(NodeStart::new(address.clone(), addresses.clone()))?;
//! }
//! cluster.advance(Duration::from_secs(2));
//! cluster.init(&addresses[0])?;
//! cluster.advance(Duration::from_secs(60));
//!
//! let cluster = Arc::new(Mutex::new(cluster));
//! let mut listeners = Listeners::new(Arc::clone(&cluster), Pace::Times(20.0));
//! for address in &addresses {
//!     listeners.open(address).await?;
//! }
//! // The program under test is given `addresses` … and then a node dies:
//! cluster.lock().unwrap().kill_node(&addresses[2]);
//! # Ok(()) })
//! # }
//! ```
//!
//! # Real processes
//!
//! Nodes of the twin are the calling executable started again, so its `main` begins with [`process::hook`]. Under
//! `cargo test` that takes a target with `harness = false`.
//!
//! ```no_run
//! use kwdb_scale_sim::lab::{Lab, LabOptions};
//! use std::time::Duration;
//!
//! kwdb_scale_sim::process::hook();
//! let lab = Lab::up(LabOptions { nodes: 4, speed: 20.0, ..LabOptions::new("/tmp/lab") })?.scoped();
//! let host = format!("--host={}", lab.info().hosts[0].address);
//! println!("{}", lab.kwbase(&["node", "status", &host], Duration::from_secs(20))?);
//! lab.kill("n4")?;
//! # Ok::<(), kwdb_scale_sim::lab::LabError>(())
//! ```
//!
//! # Map
//!
//! | module | what |
//! |---|---|
//! | [`model`] | the cluster as a value: nodes, ranges, allocator, liveness, zones, gossip, clock |
//! | [`cli`] | the `kwbase` command line over a model |
//! | [`memory`] | the ports of `kwdb-scale-core` over a model, and faults |
//! | [`process`] | hook, nodes as processes, and listeners inside a test |
//! | [`lab`] | clusters of processes in a directory: the twin's or a real `kwbase`'s; on loopback ports, or on hosts with namespaces and an sshd of their own; Linux |
//! | [`contract`] | what every implementation of a port must do, as functions for its tests |
//! | [`standin`] | stand-ins for `deploy.sh`, `systemctl` and `kw-status` of an installed host |
//! | [`certs`] | CA, node and client certificates as `kwbase cert` makes them |
//!
//! The crate has no features.

pub mod certs;
pub mod cli;
pub mod contract;
mod http;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod memory;
pub mod model;
mod pgwire;
pub mod process;
pub mod standin;
