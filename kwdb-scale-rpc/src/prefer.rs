//! [`Prefer`]: the admin RPC where it can be had, else commands on hosts.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kwdb_scale_core::ports::{
    BegunMark, DecommissionControl, DecommissionStatus, Gateway, Means, NodeLifecycle, PortError,
    PortErrorKind, ReplicateQueue,
};
use kwdb_scale_core::topology::{HostName, NodeId};

use crate::client::AdminRpc;
use crate::stop::RpcStop;

/// For one node to show that it takes the RPC.
const TRY: Duration = Duration::from_secs(5);
/// Nodes that are asked.
const TRIED: usize = 2;

/// Chooses between the admin RPC and `C`, another implementation of the ports (`kwbase` on hosts, say).
///
/// The RPC can be had when a member that stays answers a question of the service that is served: that shows its address,
/// the certificates and their rights. Nothing is changed by it.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use kwdb_scale_core::ports::{DecommissionControl, Gateway, NodeLifecycle, PortError};
/// use kwdb_scale_rpc::{AdminRpc, Prefer, Secure};
///
/// # async fn example<C: DecommissionControl + NodeLifecycle + 'static>(
/// #     commands: Arc<C>,
/// #     members_that_stay: &[Gateway],
/// # ) -> Result<(), PortError> {
/// let rpc = AdminRpc::builder().security(Secure::certs_dir("/etc/kaiwudb/certs", "root")).build();
/// let chosen = Prefer::new(rpc, commands).choose(members_that_stay).await;
/// println!("by {}", chosen.means);
/// // `Observation::means` takes `chosen.means`, `Ports` the others.
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Prefer<C> {
    rpc: Result<AdminRpc, PortError>,
    commands: Arc<C>,
    owned: BTreeSet<HostName>,
    marks_on_hosts: bool,
}

/// The ports for acts on a cluster, and which they are.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Marks and counts.
    pub control: Arc<dyn DecommissionControl>,
    /// Where servers are asked to look at ranges sooner; only the RPC can.
    pub queue: Option<Arc<dyn ReplicateQueue>>,
    /// Processes of nodes.
    pub lifecycle: Arc<dyn NodeLifecycle>,
    /// Which it is, and why. The control says the same.
    pub means: Means,
}

impl<C: DecommissionControl + NodeLifecycle + 'static> Prefer<C> {
    /// The two. A client that could not be built is one that cannot be had.
    pub fn new(rpc: Result<AdminRpc, PortError>, commands: Arc<C>) -> Self {
        Self { rpc, commands, owned: BTreeSet::new(), marks_on_hosts: false }
    }

    /// Leaves the stop of nodes on these hosts to `C` in any case: something owns their processes and would start them
    /// again.
    #[must_use]
    pub fn with_owned(mut self, hosts: BTreeSet<HostName>) -> Self {
        self.owned = hosts;
        self
    }

    /// Leaves marks to `C` in any case: there is a script that wants to be asked.
    #[must_use]
    pub fn with_marks_on_hosts(mut self, yes: bool) -> Self {
        self.marks_on_hosts = yes;
        self
    }

    /// The RPC where one of the first of `gateways` takes it, else the commands.
    pub async fn choose(self, gateways: &[Gateway]) -> Chosen {
        match within_reach(&self.rpc, gateways).await {
            Ok((rpc, via)) => self.over_rpc(rpc, says(&via)),
            Err(e) => {
                let refused = matches!(e.kind(), PortErrorKind::Authentication | PortErrorKind::Denied);
                let theirs =
                    self.rpc.as_ref().ok().filter(|_| refused).and_then(AdminRpc::client_fingerprint);
                self.commands_for(format!("the admin RPC cannot be had: {}", e.chain()), theirs)
            }
        }
    }

    /// The RPC and nothing else, demanded by `whom` (the name of a setting, say).
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn demand(self, gateways: &[Gateway], whom: &str) -> Result<Chosen, PortError> {
        let (rpc, via) = within_reach(&self.rpc, gateways).await?;
        Ok(self.over_rpc(rpc, format!("{whom}; {}", says(&via))))
    }

    /// The commands and nothing else, for that reason. Nobody is asked.
    pub fn by_commands(self, why: &str) -> Chosen {
        self.commands_for(why.to_owned(), None)
    }

    fn commands_for(self, why: String, refused: Option<String>) -> Chosen {
        let means = Means::CommandLine { why, refused };
        Chosen {
            control: Arc::new(Control { rpc: None, commands: self.commands.clone(), means: means.clone() }),
            queue: None,
            lifecycle: self.commands,
            means,
        }
    }

    fn over_rpc(self, rpc: AdminRpc, why: String) -> Chosen {
        let means = Means::AdminRpc { why, marks_on_hosts: self.marks_on_hosts };
        let (commands, control) = (self.commands.clone(), Some(rpc.clone()));
        Chosen {
            control: Arc::new(Control { rpc: control, commands, means: means.clone() }),
            queue: Some(Arc::new(rpc.clone())),
            lifecycle: Arc::new(RpcStop::new(rpc, self.commands).with_owned(self.owned)),
            means,
        }
    }
}

fn says(via: &Gateway) -> String {
    format!("node {} at {} takes it", via.node.0, via.address)
}

/// The RPC and the member that took it. It is asked for its own status: that shows the certificate's rights, too.
async fn within_reach(
    rpc: &Result<AdminRpc, PortError>,
    gateways: &[Gateway],
) -> Result<(AdminRpc, Gateway), PortError> {
    let rpc = match rpc {
        Ok(rpc) => rpc.clone(),
        Err(e) => return Err(PortError::new(e.kind(), e.chain())),
    };
    let text = "no live member that stays is known, so nobody can be asked over the admin RPC";
    let mut last = PortError::new(PortErrorKind::Unreachable, text);
    for gateway in gateways.iter().take(TRIED) {
        match rpc.status(gateway, &[gateway.node], TRY).await {
            Ok(_) => return Ok((rpc, gateway.clone())),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Marks and counts by what was chosen.
#[derive(Debug)]
struct Control<C> {
    rpc: Option<AdminRpc>,
    commands: Arc<C>,
    means: Means,
}

impl<C: DecommissionControl> Control<C> {
    fn marking(&self) -> &dyn DecommissionControl {
        match &self.rpc {
            Some(rpc) if !self.means.marks_on_hosts() => rpc,
            _ => self.commands.as_ref(),
        }
    }
}

#[async_trait]
impl<C: DecommissionControl + 'static> DecommissionControl for Control<C> {
    fn means(&self) -> Option<Means> {
        Some(self.means.clone())
    }

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
        match &self.rpc {
            Some(rpc) => rpc.status(via, nodes, deadline).await,
            None => self.commands.status(via, nodes, deadline).await,
        }
    }

    /// A call ends with its connection; a command that an earlier run left behind may go on.
    async fn mark_under_way(&self, begun: &BegunMark) -> Result<Option<String>, PortError> {
        let told = self.commands.mark_under_way(begun).await;
        let nowhere = begun.hosts.is_empty() && begun.via.iter().all(|via| via.host.is_none());
        left_behind(told, self.rpc.is_some() && nowhere)
    }
}

/// What the commands say of an earlier run's, where there may be no host on which one could have run.
pub(crate) fn left_behind(
    told: Result<Option<String>, PortError>,
    nowhere: bool,
) -> Result<Option<String>, PortError> {
    match told {
        Err(e) if nowhere && e.kind() == PortErrorKind::Config => Ok(None),
        told => told,
    }
}
