//! [`RpcStop`]: drain and stop over RPC, everything else by another implementation.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::ports::{
    BegunWork, ClearData, DecommissionControl as _, HostFacts, NodeLifecycle, PortError, PortErrorKind,
    PortState, ProcessState, Readiness, StartNode, StartOutcome, StopNode,
};
use kwdb_scale_core::topology::{Address, HostName};
use tokio::time::Instant;

use crate::client::{AdminRpc, LONGEST};
use crate::connection::is_refused;
use crate::drain::DrainProgress;
use crate::prefer::left_behind;

/// Of a stop's deadline, kept for what follows the drain: a server takes up to 10 s to end. The same as with `kwbase
/// quit`.
const AFTER_DRAIN: Duration = Duration::from_secs(15);

/// For the question whether the node is empty.
const GUARD: Duration = Duration::from_secs(20);

/// For one attempt to connect.
const PROBE: Duration = Duration::from_secs(3);

/// Told of each step of a drain.
type OnProgress = Arc<dyn Fn(&StopNode, &DrainProgress) + Send + Sync>;

/// A `NodeLifecycle` that drains and stops over RPC, tries itself whether something listens there, and leaves looking at
/// hosts, starting and clearing to `L`. A node is stopped only
/// when a node that stays says at that moment that it is marked and holds nothing.
///
/// Where the RPC cannot be reached drain and stop fail, each with its kind: there is no fallback here. The node is ended,
/// and nobody is told not to start it again: a node whose process belongs to a systemd unit or to a container is to be
/// stopped by its owner, which is `L`'s matter: see [`with_owned`](Self::with_owned).
pub struct RpcStop<L: NodeLifecycle + ?Sized> {
    rpc: AdminRpc,
    inner: Arc<L>,
    owned: BTreeSet<HostName>,
    progress: Option<OnProgress>,
}

impl<L: NodeLifecycle + ?Sized> RpcStop<L> {
    /// Puts the RPC before `inner`.
    pub fn new(rpc: AdminRpc, inner: Arc<L>) -> Self {
        Self { rpc, inner, owned: BTreeSet::new(), progress: None }
    }

    /// Leaves the stop of nodes on these hosts to `L`: something owns their processes and would start them again.
    #[must_use]
    pub fn with_owned(mut self, hosts: BTreeSet<HostName>) -> Self {
        self.owned = hosts;
        self
    }

    /// Tells each step of a drain.
    #[must_use]
    pub fn with_progress(mut self, told: impl Fn(&StopNode, &DrainProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(told));
        self
    }

    fn is_owned(&self, node: &StopNode) -> bool {
        node.host.as_ref().is_some_and(|host| self.owned.contains(host))
    }

    /// Asks a node that stays, at the last moment.
    async fn must_be_empty(&self, node: &StopNode) -> Result<(), PortError> {
        let said = self.rpc.status(&node.via, &[node.node], node.deadline.min(GUARD)).await?;
        let why = match said.and_then(|list| list.into_iter().find(|s| s.node == node.node)) {
            Some(status) if !status.decommissioning => "it is not marked as leaving".to_owned(),
            Some(status) if status.replicas > 0 => format!("it holds {} replicas", status.replicas),
            Some(_) => return Ok(()),
            None => "nothing is said of it".to_owned(),
        };
        let text = format!("node {} was not stopped: through {} {why}", node.node.0, node.via);
        Err(PortError::new(PortErrorKind::Denied, text))
    }

    async fn drain_within(&self, node: &StopNode, limit: Duration) -> Result<(), PortError> {
        let told = |progress: &DrainProgress| {
            if let Some(told) = &self.progress {
                told(node, progress);
            }
        };
        self.rpc.drain(&node.address, limit, told).await
    }
}

impl<L: NodeLifecycle + ?Sized> Clone for RpcStop<L> {
    fn clone(&self) -> Self {
        Self {
            rpc: self.rpc.clone(),
            inner: Arc::clone(&self.inner),
            owned: self.owned.clone(),
            progress: self.progress.clone(),
        }
    }
}

impl<L: NodeLifecycle + ?Sized> fmt::Debug for RpcStop<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcStop").field("rpc", &self.rpc).field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// How long a drain may take of a stop's deadline.
fn drain_wait(deadline: Duration) -> Duration {
    deadline.saturating_sub(AFTER_DRAIN).max(deadline / 2)
}

#[async_trait]
impl<L: NodeLifecycle + ?Sized> NodeLifecycle for RpcStop<L> {
    async fn inspect(&self, host: &HostName) -> Result<HostFacts, PortError> {
        self.inner.inspect(host).await
    }

    fn owned(&self) -> BTreeSet<HostName> {
        self.owned.union(&self.inner.owned()).cloned().collect()
    }

    async fn reach(
        &self,
        host: &HostName,
        to: &[Address],
        deadline: Duration,
    ) -> Result<Vec<Fact<PortState>>, PortError> {
        self.inner.reach(host, to, deadline).await
    }

    async fn start(&self, node: &StartNode) -> Result<StartOutcome, PortError> {
        self.inner.start(node).await
    }

    async fn clear_data(&self, job: &ClearData) -> Result<String, PortError> {
        self.inner.clear_data(job).await
    }

    async fn readiness(&self, node: &Address, deadline: Duration) -> Result<Option<Readiness>, PortError> {
        self.rpc.ready(node, deadline).await.map(Some)
    }

    async fn drain(&self, node: &StopNode) -> Result<(), PortError> {
        self.drain_within(node, node.deadline).await
    }

    async fn stop(&self, node: &StopNode) -> Result<(), PortError> {
        if self.is_owned(node) {
            return self.inner.stop(node).await;
        }
        let end = Instant::now() + node.deadline.min(LONGEST);
        self.must_be_empty(node).await?;
        match self.drain_within(node, drain_wait(node.deadline)).await {
            Ok(()) => {}
            // Refused: nothing listens there, so the node is down already. A host that does not answer at all proves
            // nothing.
            Err(e) if is_refused(&e) => return Ok(()),
            Err(e) => return Err(e),
        }
        match self.rpc.shutdown(&node.address, end.saturating_duration_since(Instant::now())).await {
            // It went by itself in between.
            Err(e) if is_refused(&e) => Ok(()),
            ended => ended,
        }
    }

    /// A call ends with its connection; a command that an earlier run left behind may go on.
    async fn work_under_way(&self, begun: &BegunWork) -> Result<Option<String>, PortError> {
        let told = self.inner.work_under_way(begun).await;
        let nowhere = matches!(begun, BegunWork::Stop { node, via }
            if node.host.is_none() && via.iter().all(|via| via.host.is_none()));
        left_behind(told, nowhere)
    }

    /// Tried from here, as everything else is; where that tells nothing, or the owner has a say, by `L`.
    async fn process(&self, node: &StopNode) -> Result<ProcessState, PortError> {
        if self.is_owned(node) {
            return self.inner.process(node).await;
        }
        match self.rpc.connector().is_open(&node.address, PROBE).await {
            Ok(true) => Ok(ProcessState::Running),
            Ok(false) => Ok(ProcessState::Stopped),
            Err(_) => self.inner.process(node).await,
        }
    }
}
