//! KWDB's admin RPC for kwdb-scale: what the command line does, without a command line, and what it cannot do.
//!
//! [`AdminRpc`] is a plain gRPC client of the service `kwbase.server.serverpb.Admin` on a node's RPC port (26257, the
//! same as SQL's unless `--sql-addr` was given). It
//!
//! * is a [`DecommissionControl`](kwdb_scale_core::ports::DecommissionControl): marks, recommissions, and tells the
//!   *status*, the one read-only and authoritative count of the replicas left on a node;
//! * drains and ends nodes: [`AdminRpc::drain`], [`AdminRpc::shutdown`], and [`RpcStop`], which puts both before another
//!   [`NodeLifecycle`](kwdb_scale_core::ports::NodeLifecycle);
//! * tells whether a node takes clients: [`AdminRpc::ready`];
//! * stands behind [`Prefer`], which takes it where it can be had and commands on hosts elsewhere, and says which and why;
//! * has a node look at a range now rather than when its scanner comes by: [`AdminRpc::enqueue_range`].
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use kwdb_scale_core::ports::{DecommissionControl, Gateway, PortError};
//! use kwdb_scale_core::topology::{Address, NodeId};
//! use kwdb_scale_rpc::{AdminRpc, Readiness, Secure};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), PortError> {
//!     let rpc = AdminRpc::builder().security(Secure::certs_dir("/etc/kaiwudb/certs", "root")).build()?;
//!     let (address, deadline) = (Address::new("10.0.0.1:26257"), Duration::from_secs(20));
//!     if rpc.ready(&address, deadline).await? != Readiness::Ready {
//!         println!("{address} takes no clients");
//!     }
//!     let via = Gateway { node: NodeId(1), sql_address: address.clone(), address, host: None };
//!     for status in rpc.status(&via, &[NodeId(4)], deadline).await?.unwrap_or_default() {
//!         println!("{}: {} replicas left, leaving: {}", status.node, status.replicas, status.decommissioning);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # How it asks
//!
//! * One HTTP/2 channel a node, made when first needed, kept, pinged, and used by any number of calls at once. A new
//!   channel is greeted with a call that does nothing, so that a wrong address, certificate or node is known before
//!   anything is asked of it.
//! * A call goes through the node named and no other. Which node that is, and whether to go on to another one, is the
//!   caller's choice (the executor's).
//! * Everything ends by a deadline, which is sent along, so that the server gives up too. Short calls that the server is
//!   too busy for are made again within it. Nothing is global; it needs a Tokio runtime with I/O and time.
//! * Before nodes are marked each id is proven by a status: the server would keep those before an unknown id marked. An
//!   empty list, which means the recipient itself to the server, is never sent.
//!
//! # Security
//!
//! * [`Secure`] demands TLS (1.2 on; KWDB speaks 1.2) and verifies the node's certificate against the CA given and its
//!   name against the address, or against [`Secure::server_name`]. The service takes the client certificate of `root` or
//!   `node` and nothing else.
//! * The *ring* provider is named explicitly; the process-wide default is neither used nor set.
//!
//! # What the errors say
//!
//! Each is one line with the address, the reason and the cure; what the server said stands in the source as
//! [`ServerSaid`].
//!
//! | kind | when |
//! |---|---|
//! | `Unreachable` | refused, no route, name not found, no answer to the TCP connection |
//! | `Deadline` | connected but silent; the deadline; a server too busy, or ranges without a quorum |
//! | `ConnectionLost` | closed in the middle of a call |
//! | `Tls` | wrong CA, wrong name; plaintext to a secure node, TLS to an insecure one |
//! | `Authentication` | the client certificate was refused, or none arrived |
//! | `Denied` | the client certificate of a user other than root and node |
//! | `NotInitialised` | the node waits for `init`, or has not joined |
//! | `ShuttingDown` | the node is draining or shutting down |
//! | `UnknownNode` | an id that is not in the liveness table |
//! | `SingleReplica`, `Upgrading`, `Licence` | the cluster cannot change its members so |
//! | `Unsupported` | the release lacks the method |
//! | `Malformed` | the answer is not that of an RPC port, or makes no sense |
//! | `NotFound`, `Config` | a file that cannot be read; a configuration that cannot work (before any connection) |
//! | `Other` | a failure of the server that has no kind of its own; its words are in the message |

mod client;
mod config;
mod connection;
mod drain;
mod enqueue;
mod error;
#[doc(hidden)]
pub mod messages;
mod prefer;
mod stop;
mod tls;

pub use client::AdminRpc;
pub use config::{Builder, Secure, Security};
pub use drain::DrainProgress;
pub use enqueue::{EnqueueError, EnqueueErrorKind, EnqueueEvent, EnqueueRange, Enqueued};
pub use error::ServerSaid;
pub use kwdb_scale_core::ports::Readiness;
pub use prefer::{Chosen, Prefer};
pub use stop::RpcStop;
