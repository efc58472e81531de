//! KWDB's deployment script, `deploy.sh`, as an implementation of the ports.
//!
//! [`DeployScript`] stands before a [`Kwbase`](crate::kwbase::Kwbase): on the hosts that are described to it by a
//! [`DeployHost`] nodes are started with `deploy.sh join`, marked with `deploy.sh decommission` and stopped with
//! `systemctl stop kaiwudb`; on all others, and for what the script cannot do (counting, recommissioning, draining), the
//! kwbase command line is used.
//!
//! The script says that it is done when it has only begun, and ends with 0 when it has done nothing. What is believed of
//! it is therefore little: see [`output`] for its words, and `docs/deploy-sh.md` for each of its traps and what is done
//! about it. Whether a node joined or left is told by the cluster, through nodes that stay.
//!
//! | module | what |
//! |---|---|
//! | [`info`] | the MODE and NODE files of an installation |
//! | [`output`] | what the script prints, and its errors with their cures |

mod adapter;
mod certificates;
mod host;
pub mod info;
mod look;
pub mod output;
mod shown;

pub use adapter::DeployScript;
pub use host::DeployHost;
pub use shown::Shown;

/// The unit that the installer makes, on bare metal and for containers.
pub const UNIT: &str = "kaiwudb";
/// The only name under which `deploy.sh join` finds the archive of certificates.
pub const ARCHIVE: &str = "kaiwudb_certs.tar.gz";
/// Where an installation keeps its certificates.
pub const CERTS_DIR: &str = "/etc/kaiwudb/certs";
