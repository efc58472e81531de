//! How nodes are marked, counted, asked to look at ranges, drained and stopped: over KWDB's admin RPC, or by the command
//! line on the hosts. `control` in `cluster.toml` says which.

use std::collections::BTreeSet;
use std::sync::Arc;

use kwdb_scale_core::deploy::DeployScript;
use kwdb_scale_core::ports::{Gateway, PortError};
use kwdb_scale_core::topology::HostName;
use kwdb_scale_rpc::{AdminRpc, Chosen, Prefer, Secure};
use serde::Deserialize;

use crate::config::Config;
use crate::transport::Hosts;

/// What `control` of `cluster.toml` says.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// `kwbase` (or `deploy.sh`) on the hosts.
    CommandLine,
    /// The admin RPC, and nothing else.
    Rpc,
    /// The admin RPC where it can be had, else the command line.
    #[default]
    Auto,
}

/// What the choice comes to, with the members that stay.
///
/// # Errors
/// The RPC is demanded and cannot be had.
pub async fn choose(
    config: &Config,
    commands: &Arc<DeployScript<Hosts>>,
    gateways: &[Gateway],
) -> Result<Chosen, PortError> {
    // A service manager would start again what the RPC ends, and deploy.sh wants to be asked itself.
    let scripted: BTreeSet<HostName> = config.deploy.iter().map(|host| host.name.clone()).collect();
    let by_others = config.hosts.iter().filter(|host| !host.owner.is_quit()).map(|host| host.name.clone());
    let prefer = Prefer::new(client(config), commands.clone())
        .with_marks_on_hosts(!scripted.is_empty())
        .with_owned(by_others.chain(scripted).collect());
    match config.control {
        Choice::CommandLine => Ok(prefer.by_commands("control = \"command-line\" of the cluster's file")),
        Choice::Rpc => prefer.demand(gateways, "control = \"rpc\" of the cluster's file").await,
        Choice::Auto => Ok(prefer.choose(gateways).await),
    }
}

fn client(config: &Config) -> Result<AdminRpc, PortError> {
    let mut builder = AdminRpc::builder();
    if let Some(dir) = &config.certs {
        let mut secure = Secure::certs_dir(dir, "root");
        if let Some(name) = &config.sql.server_name {
            secure = secure.server_name(name.clone());
        }
        builder = builder.security(secure);
    }
    builder.build()
}
