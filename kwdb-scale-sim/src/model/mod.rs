//! The twin: one deterministic model of a KWDB cluster.
//!
//! A [`Cluster`] is a plain value with a virtual clock. Nothing in it sleeps, waits or reads the machine's time:
//! [`Cluster::advance_to`] computes everything that happens up to a point in time, and the result does not depend
//! on how finely it is called. The same seed and the same calls give the same rows, byte for byte.
//!
//! ```
//! use kwdb_scale_sim::model::{Cluster, Config, NodeStart};
//! use kwdb_scale_core::{rows::{Query, Rows}, topology::Address};
//! use std::time::Duration;
//!
//! let mut cluster = Cluster::new(Config::default());
//! let seeds: Vec<Address> = (1..=3).map(|n| Address::new(format!("127.0.0.1:2625{n}"))).collect();
//! for seed in &seeds {
//!     cluster.start_node(NodeStart::new(seed.clone(), seeds.clone()))?;
//! }
//! cluster.advance(Duration::from_secs(2));
//! cluster.init(&seeds[0])?;
//! cluster.advance(Duration::from_secs(60));
//! let answer = cluster.rows(&seeds[0], &Query::Liveness)?;
//! let Rows::Liveness(rows) = answer.rows else { unreachable!() };
//! assert_eq!(rows.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | what | calls |
//! |---|---|
//! | time | [`now`](Cluster::now), [`advance_to`](Cluster::advance_to), [`advance`](Cluster::advance) |
//! | processes | [`start_node`](Cluster::start_node), [`process`](Cluster::process), [`kill_node`](Cluster::kill_node), [`stop_node`](Cluster::stop_node) (SIGTERM), [`freeze_node`](Cluster::freeze_node), [`wipe_store`](Cluster::wipe_store) |
//! | admin service | [`init`](Cluster::init), [`decommission`](Cluster::decommission), [`recommission`](Cluster::recommission), [`decommission_status`](Cluster::decommission_status), [`drain`](Cluster::drain), [`shutdown`](Cluster::shutdown), [`enqueue_range`](Cluster::enqueue_range) |
//! | SQL | [`rows`](Cluster::rows), [`create_table`](Cluster::create_table), [`split`](Cluster::split), [`configure_zone`](Cluster::configure_zone), [`set_setting`](Cluster::set_setting), [`add_job`](Cluster::add_job) |
//! | HTTP | [`health`](Cluster::health) |
//!
//! What it does is what KWDB V3.2.1 was seen or read to do: needed replicas, the allocator's order of actions,
//! the pace of the scanner, gossip that lags, status rows that stay for ever, a decommission that hangs without a
//! word where no store can take a replica. What it does not do: data, transactions, load, clock skew.

mod allocator;
mod cluster;
mod config;
mod enqueue;
mod lifecycle;
mod membership;
mod replicas;
mod rows;
mod scanner;
mod schema;
mod settings;
mod state;
mod time;
mod types;
mod zones;

use std::sync::{Arc, Mutex};

pub use cluster::Cluster;
#[cfg(target_os = "linux")]
pub(crate) use cluster::uuid;
pub use config::{Config, Security, Timings};
pub use enqueue::{Enqueue, EnqueueRun};
pub use membership::MembershipStatus;
pub(crate) use settings::parse_duration;
pub use types::{
    Health, NodeStart, Phase, ProcessView, QueryError, RpcError, SqlRefusal, StartError, StartReply,
    TableSpec, ZoneTarget,
};

/// A cluster shared by several faces.
pub type Shared = Arc<Mutex<Cluster>>;
