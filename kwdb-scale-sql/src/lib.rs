//! Facts and settings of a KWDB cluster over SQL, for kwdb-scale.
//!
//! [`SqlSource`] implements two ports of [`kwdb_scale_core`]:
//! [`FactSource`](kwdb_scale_core::ports::FactSource), which answers a closed set of questions with typed rows, and
//! [`SettingsControl`](kwdb_scale_core::ports::SettingsControl), which reads and sets cluster settings.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use kwdb_scale_core::ports::{FactSource, PortError, SettingsControl};
//! use kwdb_scale_core::rows::{Query, Rows};
//! use kwdb_scale_sql::{Secure, SqlSource};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), PortError> {
//!     let source = SqlSource::builder(["10.0.0.1:26257", "10.0.0.2:26257"])
//!         .user("root")
//!         .security(Secure::certs_dir("/etc/kaiwudb/certs", "root"))
//!         .deadline(Duration::from_secs(20))
//!         .build()?;
//!
//!     let answer = source.fetch_any(&source.seeds(), &Query::Liveness).await?;
//!     println!("{} at {}:", answer.gateway, answer.server_time);
//!     if let Rows::Liveness(rows) = &answer.rows {
//!         for row in rows {
//!             let live = row.expiration.is_some_and(|until| until > answer.server_time);
//!             println!("  {} live: {live}, leaving: {:?}", row.node_id, row.decommissioning);
//!         }
//!     }
//!
//!     let wait = source.get(&answer.gateway, "server.time_until_store_dead").await?;
//!     println!("a silent node is dead after {}", wait.as_deref().unwrap_or("an unknown time"));
//!     Ok(())
//! }
//! ```
//!
//! # How it asks
//!
//! * Statements and the reading of their rows are in [`kwdb_scale_core::statement`], which the simulated cluster
//!   shares. They go by the *simple protocol*, as text, with the server's clock in the same statement; no
//!   catalogue is looked up, and `kwdb_internal.ranges`, which asks every leaseholder, is never read.
//! * One connection a node, kept and used again. A question goes through the gateway named and no other;
//!   [`SqlSource::fetch_any`] is the one place that tries several.
//! * Everything ends by a deadline. KWDB ignores cancel requests, so a statement is ended at the server by
//!   `statement_timeout`, and here by giving the connection up.
//! * It needs a Tokio runtime with I/O and time.
//!
//! # Security
//!
//! * [`Secure`] demands TLS (1.2 on; KWDB speaks 1.2) and verifies the node's certificate against the CA given
//!   and its name against the address, or against [`Secure::server_name`].
//! * **A secure KWDB accepts plaintext and asks there for the password in clear text** (V3.2.1). Nothing here
//!   falls back to plaintext, and in [`Security::Insecure`] there is no password to give.
//! * The *ring* provider is named explicitly; the process-wide default is neither used nor set.
//! * The user needs the admin role (`GRANT admin TO user`): without it most of `kwdb_internal` cannot be read
//!   ([`Denied`](kwdb_scale_core::ports::PortErrorKind::Denied)), and zones and jobs would silently lack rows,
//!   which is made an error as well.
//!
//! # What the errors say
//!
//! | kind | when |
//! |---|---|
//! | `Unreachable` | refused, no route, name not found, no answer to the TCP connection |
//! | `Deadline` | connected but silent (waits for `init`, has not joined, hangs); the statement timeout; the deadline |
//! | `ConnectionLost` | closed in the middle, also by a node that quits |
//! | `ShuttingDown` | SQLSTATE 57P01: draining or shutting down |
//! | `Tls` | wrong CA, wrong name, TLS refused; or a secure node where an insecure one was configured |
//! | `Authentication` | wrong user, password or client certificate |
//! | `Denied` | no admin role |
//! | `Unsupported` | the release lacks a column, table, function or setting |
//! | `Malformed` | an answer that cannot be understood; names the column and the value |
//! | `NotFound`, `Config` | a file that cannot be read; a configuration that cannot work (before any connection) |
//!
//! # What one observation costs
//!
//! Measured on a real V3.2.1 of five nodes on a busy two-core machine (all nodes on it; ten times each, median;
//! text bytes of all values): with 2376 ranges and ten statements 215 kB in all and 1.8 s, of which
//!
//! | question | rows | bytes | ms |
//! |---|---|---|---|
//! | ranges | 2376 | 207 014 | 452 |
//! | replica counts of five stores | 5 | 220 | 550 |
//! | 20 ranges left on a store | 20 | 1 729 | 155 |
//! | zones | 7 | 3 215 | 376 |
//! | jobs, stores | 6 | 810 | 80 each |
//! | cluster, liveness, nodes, two settings | 13 | 1 469 | 3 to 27 each |
//!
//! On three idle nodes with 57 ranges every statement took 1 to 15 ms.

mod config;
mod connection;
mod error;
mod source;
mod tls;

pub use config::{Builder, Secure, Security};
pub use source::SqlSource;
