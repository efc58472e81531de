//! What every implementation of a port must do, as functions that try one out and panic with a clear message.
//!
//! Write an implementation of a port of `kwdb-scale-core`, make the suite's fixture of it in a test, and call the
//! suite. The implementations of this library pass the same functions, on the simulated cluster and on a real KWDB.
//!
//! | port | suite | what it needs |
//! |---|---|---|
//! | `HostTransport` | [`transport_contract!`](crate::transport_contract) over [`transport`] and, on hosts with a POSIX shell, [`posix`] | a directory on a host |
//! | `FactSource` | [`fact_source`] | a healthy cluster of at least two nodes |
//! | `SettingsControl` | [`settings_control`] | the same |
//! | `DecommissionControl` | [`decommission_control`], [`decommission_control_single_replica`] | two nodes that may leave |
//! | `NodeLifecycle` | [`node_lifecycle`] | a member's host and a fresh one |
//! | `Journal` | [`journal`](fn@journal) | a new journal |
//! | `OperationLock` | [`operation_lock`] | two handles on one lock |
//! | `Clock` | [`clock`](fn@clock) | nothing |
//!
//! A suite that waits does so by the fixture's clock: virtual time passes at once. Limits are generous; only a failure
//! reaches them.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use kwdb_scale_sim::contract;
//! use kwdb_scale_sim::memory::{MemLock, World};
//!
//! let lock = MemLock::default();
//! contract::operation_lock(&lock, &lock.clone()).await;
//! contract::clock(&World::started(1).clock()).await;
//! # }
//! ```
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test suite fails by panicking"
)]

mod clock;
mod control;
mod facts;
mod lifecycle;
pub mod posix;
mod records;
mod settings;
pub mod transport;
mod wait;

pub use clock::clock;
pub use control::{ControlFixture, decommission_control, decommission_control_single_replica};
pub use facts::{FactsFixture, KillNode, fact_source};
pub use lifecycle::{LifecycleFixture, node_lifecycle};
pub use records::{journal, journal_reopened, operation_lock};
pub use settings::settings_control;
pub use transport::TransportFixture;
pub use wait::WallClock;
