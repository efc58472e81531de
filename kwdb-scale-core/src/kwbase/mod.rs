//! The `kwbase` command line: every command of KWDB's "Cluster Scaling" page as a typed builder, parsers for what
//! it prints, and [`Kwbase`], which makes [`DecommissionControl`](crate::ports::DecommissionControl) and
//! [`NodeLifecycle`](crate::ports::NodeLifecycle) of any [`HostTransport`](crate::ports::HostTransport).
//!
//! | on the page | here |
//! |---|---|
//! | `kwbase start`, `kwbase start-single-replica` | [`KwbaseHost::start`] |
//! | `kwbase node status [--decommission]` | [`KwbaseHost::node_status`], [`parse::node_status`] |
//! | `kwbase node decommission ID…` | [`KwbaseHost::node_decommission`], [`parse::decommission`] |
//! | `kwbase quit` | [`KwbaseHost::quit`], [`output::drain_progress`] |
//!
//! Besides: `node ls`, `node recommission`, `node drain`, `version`, and `init`, which scaling never runs.
//!
//! Three habits make the answers trustworthy. `--host`, `--insecure` or `--certs-dir`, and (for `node` commands)
//! `--format=csv` are always given, because the defaults depend on the environment and on whether a terminal
//! is attached. Columns are found by name, so that releases may add, drop or move them. And an exit code of zero
//! is only believed for what it proves: that the command ended, not that a node joined or left.

mod adapter;
pub(crate) mod begun;
mod certificates;
mod clear;
mod command;
pub mod ddl;
pub mod error;
mod host;
mod inspect;
pub mod output;
pub mod parse;
pub mod quote;
mod validate;

pub use adapter::Kwbase;
pub(crate) use adapter::first_found;
pub use certificates::Authority;
pub use command::{CommandError, CommandLine, StatusOptions, Wait};
pub use host::{HostError, KwbaseHost, Security, StoreSpec};
pub(crate) use host::{advertised, with_port};

/// Where the bare-metal packages put the program.
pub const PROGRAM: &str = "/usr/local/kaiwudb/bin/kwbase";
/// Where the container images put the program.
pub const PROGRAM_IN_CONTAINER: &str = "/kaiwudb/bin/kwbase";
/// Default store of the page.
pub const STORE: &str = "/var/lib/kaiwudb";
/// Default port for RPC and SQL.
pub const PORT: u16 = 26257;
/// Default port of the HTTP endpoint.
pub const HTTP_PORT: u16 = 8080;
/// The brpc address that the page gives for every start.
pub const BRPC_ADDR: &str = ":27257";
