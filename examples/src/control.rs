//! How nodes are marked, counted, asked to look at ranges, drained and stopped: over KWDB's admin RPC, or by the command
//! line on the hosts. `control` in `cluster.toml` says which.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kwdb_scale_core::deploy::DeployScript;
use kwdb_scale_core::ports::{
    BegunMark, DecommissionControl, DecommissionStatus, Gateway, NodeLifecycle, PortError, PortErrorKind,
    ReplicateQueue,
};
use kwdb_scale_core::topology::{HostName, NodeId};
use kwdb_scale_rpc::{AdminRpc, RpcStop, Secure};
use serde::Deserialize;

use crate::config::Config;
use crate::transport::Hosts;

/// For the question whether the RPC can be had.
const TRY: Duration = Duration::from_secs(5);
/// Members that are asked it.
const TRIED: usize = 2;

/// What `control` of `cluster.toml` says.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// `kwbase` (or `deploy.sh`) on the hosts.
    #[default]
    CommandLine,
    /// The admin RPC, and nothing else.
    Rpc,
    /// The admin RPC where it can be had, else the command line.
    Auto,
}

/// The ports for acts on a cluster, and in one line which they are and why.
#[derive(Clone, Debug)]
pub struct Control {
    /// Marks and counts.
    pub marks: Arc<dyn DecommissionControl>,
    /// Where servers are asked to look at ranges sooner.
    pub queue: Option<Arc<dyn ReplicateQueue>>,
    /// Processes of nodes.
    pub lifecycle: Arc<dyn NodeLifecycle>,
    /// For people.
    pub said: String,
}

impl Control {
    /// The command line.
    pub fn by_commands(commands: &Arc<DeployScript<Hosts>>, why: &str) -> Self {
        Self {
            marks: commands.clone(),
            queue: None,
            lifecycle: commands.clone(),
            said: format!("the command line ({why})"),
        }
    }

    /// What the choice comes to, with the members that stay.
    ///
    /// # Errors
    /// The RPC is demanded and cannot be had.
    pub async fn choose(
        config: &Config,
        commands: &Arc<DeployScript<Hosts>>,
        gateways: &[Gateway],
    ) -> Result<Self, PortError> {
        if config.control == Choice::CommandLine {
            return Ok(Self::by_commands(commands, "control of the cluster's file"));
        }
        match within_reach(config, gateways).await {
            Ok((rpc, via)) => Ok(Self::over_rpc(config, commands, rpc, &via)),
            Err(e) if config.control == Choice::Auto => Ok(Self::by_commands(commands, &e.chain())),
            Err(e) => Err(e),
        }
    }

    fn over_rpc(config: &Config, commands: &Arc<DeployScript<Hosts>>, rpc: AdminRpc, via: &Gateway) -> Self {
        // A service manager would start again what the RPC ends, and deploy.sh wants to be asked itself.
        let scripted: BTreeSet<HostName> = config.deploy.iter().map(|host| host.name.clone()).collect();
        let owned = config.hosts.iter().filter(|host| !host.owner.is_quit()).map(|host| host.name.clone());
        let owned: BTreeSet<HostName> = owned.chain(scripted.iter().cloned()).collect();
        let marks = Marks { rpc: rpc.clone(), commands: commands.clone(), scripted: !scripted.is_empty() };
        let stop = RpcStop::new(rpc.clone(), commands.clone()).with_owned(owned);
        let by = if marks.scripted { ", marks by deploy.sh" } else { "" };
        Self {
            said: format!("the admin RPC (node {via} takes it{by})"),
            marks: Arc::new(marks),
            queue: Some(Arc::new(rpc)),
            lifecycle: Arc::new(stop),
        }
    }
}

/// The RPC and the member that took it. It is asked for its own status: that shows the certificate's rights, too.
async fn within_reach(config: &Config, gateways: &[Gateway]) -> Result<(AdminRpc, Gateway), PortError> {
    let mut builder = AdminRpc::builder();
    if let Some(dir) = &config.certs {
        let mut secure = Secure::certs_dir(dir, "root");
        if let Some(name) = &config.sql.server_name {
            secure = secure.server_name(name.clone());
        }
        builder = builder.security(secure);
    }
    let rpc = builder.build()?;
    let mut last = PortError::new(
        PortErrorKind::Config,
        "no member that stays is known, so the admin RPC cannot be asked",
    );
    for gateway in gateways.iter().take(TRIED) {
        match rpc.status(gateway, &[gateway.node], TRY).await {
            Ok(_) => return Ok((rpc, gateway.clone())),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Marks over the RPC, or by deploy.sh where hosts use it; counts over the RPC.
#[derive(Debug)]
struct Marks {
    rpc: AdminRpc,
    commands: Arc<DeployScript<Hosts>>,
    scripted: bool,
}

impl Marks {
    fn marking(&self) -> &dyn DecommissionControl {
        if self.scripted { self.commands.as_ref() } else { &self.rpc }
    }
}

#[async_trait]
impl DecommissionControl for Marks {
    async fn mark(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        self.marking().mark(via, nodes, deadline).await
    }

    async fn recommission(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        self.marking().recommission(via, nodes, deadline).await
    }

    async fn status(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Option<Vec<DecommissionStatus>>, PortError> {
        self.rpc.status(via, nodes, deadline).await
    }

    /// A call ends with its connection; a command that an earlier run left behind may go on.
    async fn mark_under_way(&self, begun: &BegunMark) -> Result<Option<String>, PortError> {
        match begun.via.iter().any(|via| via.host.is_some()) || self.scripted {
            true => self.commands.mark_under_way(begun).await,
            false => Ok(None),
        }
    }
}
