//! The ports of core over a [`Cluster`](crate::model::Cluster), on its virtual clock: a whole scale-in in milliseconds.
//!
//! A [`World`] is a cluster, the machines it may run on, and a script of what goes wrong when. Its ports share one
//! clock: `sleep_until` lets the model's time go by and returns at once, and every call costs the time that it
//! costs on real machines. Drive it from one task.
//!
//! ```
//! use kwdb_scale_sim::memory::World;
//! use std::time::Duration;
//!
//! let world = World::started(4);
//! world.advance(Duration::from_secs(300));
//! let ports = world.ports();
//! world.at(world.now() + Duration::from_secs(20), |cluster| {
//!     cluster.kill_node(&"127.0.0.1:26258".into());
//! });
//! # drop(ports);
//! ```
//!
//! [`World::ports`] is everything that an operation needs. [`World::transport`] runs `kwbase …` command lines
//! through [`cli`](crate::cli) instead, for what is built on a `HostTransport`. [`Faulty`] stands before any port
//! and fails, delays, repeats or falsifies calls.

mod certificates;
mod fault;
mod ports;
mod record;
mod transport;
mod world;

pub use certificates::SimCertificates;
pub use fault::{Call, Edit, Fault, Faulty, Which};
pub use ports::{SimClock, SimControl, SimFacts, SimLifecycle, SimSettings};
pub use record::{MemJournal, MemLock};
pub use transport::SimTransport;
pub use world::{SimHost, World};
