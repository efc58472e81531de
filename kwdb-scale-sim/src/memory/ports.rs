//! Facts, settings, decommissioning, processes and time.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::ports::{
    BegunMark, BegunWork, ClearData, Clock, DecommissionControl, DecommissionStatus, Enqueued, FactSource,
    Gateway, HostFacts, NodeLifecycle, PortError, PortErrorKind, PortState, ProcessState, ReplicateQueue,
    SettingsControl, StartNode, StartOutcome, StopNode, StoreContent, StoreFacts,
};
use kwdb_scale_core::rows::{Answer, Query};
use kwdb_scale_core::topology::{Address, HostName, NodeId, RangeId};
use kwdb_scale_rpc::EnqueueError;

use super::World;
use crate::model::{Enqueue, Phase, QueryError, RpcError};

/// What a query costs.
const QUERY: Duration = Duration::from_millis(8);
/// What a call of the admin service costs.
const CALL: Duration = Duration::from_millis(20);

/// Time as the model has it.
#[derive(Clone, Debug)]
pub struct SimClock(World);

/// Rows of the model.
#[derive(Clone, Debug)]
pub struct SimFacts {
    world: World,
    seeds: Vec<Address>,
    deadline: Duration,
}

/// Settings of the model.
#[derive(Clone, Debug)]
pub struct SimSettings(World);

/// Marks and unmarks in the model; can ask without marking, as the admin RPC can, unless that is
/// [taken away](Self::without_status).
#[derive(Clone, Debug)]
pub struct SimControl {
    world: World,
    has_status: bool,
}

/// Starts and stops nodes of the model on known hosts.
#[derive(Clone, Debug)]
pub struct SimLifecycle(World);

impl SimClock {
    pub(crate) fn new(world: &World) -> Self {
        Self(world.clone())
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    async fn sleep_until(&self, until: Timestamp) {
        self.0.advance_to(until);
    }
}

impl SimFacts {
    /// Facts through these seeds.
    pub fn new(world: &World, seeds: Vec<Address>) -> Self {
        Self { world: world.clone(), seeds, deadline: Duration::from_secs(10) }
    }
}

#[async_trait]
impl FactSource for SimFacts {
    fn seeds(&self) -> Vec<Address> {
        self.seeds.clone()
    }

    async fn fetch(&self, gateway: &Address, query: &Query) -> Result<Answer, PortError> {
        self.world.advance(QUERY);
        let answer = self.world.cluster().rows(gateway, query);
        answer.map_err(|e| sql_error(&self.world, gateway, e, self.deadline))
    }
}

impl SimSettings {
    pub(crate) fn new(world: &World) -> Self {
        Self(world.clone())
    }

    fn connect(&self, gateway: &Address) -> Result<(), PortError> {
        self.0.advance(QUERY);
        let answer = self.0.cluster().gateway(gateway);
        answer.map(drop).map_err(|e| sql_error(&self.0, gateway, e, Duration::from_secs(10)))
    }
}

#[async_trait]
impl SettingsControl for SimSettings {
    async fn get(&self, gateway: &Address, name: &str) -> Result<Option<String>, PortError> {
        self.connect(gateway)?;
        Ok(self.0.cluster().setting(name).map(str::to_owned))
    }

    async fn set(&self, gateway: &Address, name: &str, value: &str) -> Result<(), PortError> {
        self.connect(gateway)?;
        let done = self.0.cluster().set_setting(name, value);
        done.map_err(|e| PortError::new(PortErrorKind::CommandFailed, e.to_string()))
    }
}

impl SimControl {
    pub(crate) fn new(world: &World) -> Self {
        Self { world: world.clone(), has_status: true }
    }

    /// The same without a status, as the command line is: whoever wants the count marks again.
    #[must_use]
    pub fn without_status(self) -> Self {
        Self { has_status: false, ..self }
    }

    fn refuse_empty(nodes: &[NodeId]) -> Result<(), PortError> {
        if nodes.is_empty() {
            let text = "no node was named, and an empty list would mean the gateway itself";
            return Err(PortError::new(PortErrorKind::Config, text));
        }
        Ok(())
    }
}

#[async_trait]
impl DecommissionControl for SimControl {
    async fn mark(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        Self::refuse_empty(nodes)?;
        self.world.advance(CALL);
        let done = self.world.cluster().decommission(&via.address, nodes);
        done.map_err(|e| rpc_error(&self.world, &via.address, &e, deadline))
    }

    async fn recommission(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        Self::refuse_empty(nodes)?;
        self.world.advance(CALL);
        let done = self.world.cluster().recommission(&via.address, nodes);
        done.map_err(|e| rpc_error(&self.world, &via.address, &e, deadline))
    }

    async fn status(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Option<Vec<DecommissionStatus>>, PortError> {
        if !self.has_status {
            return Ok(None);
        }
        Self::refuse_empty(nodes)?;
        self.world.advance(CALL);
        let done = self.world.cluster().decommission_status(&via.address, nodes);
        done.map(Some).map_err(|e| rpc_error(&self.world, &via.address, &e, deadline))
    }

    /// Every call is over when it comes back.
    async fn mark_under_way(&self, _begun: &BegunMark) -> Result<Option<String>, PortError> {
        self.world.advance(CALL);
        Ok(None)
    }
}

#[async_trait]
impl ReplicateQueue for SimControl {
    async fn enqueue(
        &self,
        via: &Gateway,
        node: NodeId,
        range: RangeId,
        deadline: Duration,
    ) -> Result<Enqueued, PortError> {
        let job = Enqueue {
            node: Some(node),
            queue: "replicate".to_owned(),
            range: range.0,
            skip_should_queue: true,
        };
        let until = self.world.now() + deadline;
        self.world.advance(CALL);
        let begun = self.world.cluster().enqueue_range(&via.address, &job);
        let mut runs = begun.map_err(|e| rpc_error(&self.world, &via.address, &e, deadline))?;
        loop {
            let mut ended = true;
            for run in &mut runs {
                self.world.cluster().enqueue_goes_on(run);
                ended &= run.ended.is_some();
            }
            if ended {
                break;
            }
            if self.world.now() >= until {
                return Err(PortError::new(PortErrorKind::Deadline, "the queue is not done with the range"));
            }
            self.world.advance(Duration::from_millis(50));
        }
        let words = runs.into_iter().find_map(|run| run.ended.filter(|words| !words.is_empty()));
        words.map_or(Ok(Enqueued::Processed), |words| EnqueueError::new(&words).into_outcome())
    }
}

impl SimLifecycle {
    pub(crate) fn new(world: &World) -> Self {
        Self(world.clone())
    }
}

#[async_trait]
impl NodeLifecycle for SimLifecycle {
    async fn inspect(&self, name: &HostName) -> Result<HostFacts, PortError> {
        let host = self.0.host(name)?;
        self.0.advance(CALL);
        let cluster = self.0.cluster();
        let stores = host.stores.iter().map(|path| {
            let found = cluster.store_files(&host.store_key(path));
            let content = match found.is_empty() {
                true => StoreContent::Absent,
                false => StoreContent::InUse(found.into_iter().map(str::to_owned).collect()),
            };
            StoreFacts::new(path, Fact::Known(content))
        });
        let own = [Some(&host.address), host.sql_address.as_ref(), host.http_address.as_ref()];
        let listening = own.into_iter().flatten().filter(|a| cluster.listening(a)).cloned().collect();
        let secure = host.security.is_secure();
        Ok(HostFacts {
            build: Fact::Known(host.build.clone().unwrap_or_else(|| cluster.config().version.clone())),
            stores: stores.collect(),
            listening: Fact::Known(listening),
            can_authenticate: Fact::Known(!secure || host.root_certificate),
            secure,
            by_service: false,
            archive_only: false,
            script: None,
            host: host.name,
            machine: None,
        })
    }

    async fn reach(
        &self,
        name: &HostName,
        to: &[Address],
        _deadline: Duration,
    ) -> Result<Vec<Fact<PortState>>, PortError> {
        self.0.host(name)?;
        self.0.advance(CALL);
        let cluster = self.0.cluster();
        let state = |open: bool| if open { PortState::Open } else { PortState::Closed };
        Ok(to.iter().map(|a| Fact::Known(state(cluster.listening(a)))).collect())
    }

    async fn start(&self, node: &StartNode) -> Result<StartOutcome, PortError> {
        let host = self.0.host(&node.host)?;
        if node.join.is_empty() {
            let text = "a start without --join would initialise a second cluster";
            return Err(PortError::new(PortErrorKind::Config, text));
        }
        if host.security.is_secure() && !host.node_certificate {
            let text = "cannot load certificates: no node certificate found";
            return Ok(StartOutcome::Failed(text.to_owned()));
        }
        let started = self.0.cluster().start_node(host.node_start(node.mode.clone(), node.join.clone()));
        let ready_at = match started {
            Ok(reply) => reply.ready_at,
            Err(error) => return Ok(StartOutcome::Failed(error.to_string())),
        };
        let until = ready_at.min(self.0.now() + node.deadline);
        loop {
            let view = self.0.cluster().process(&host.address);
            match view.map(|p| (p.phase, p.process)) {
                Some((Phase::Exited { message, .. }, _)) => return Ok(StartOutcome::Failed(message)),
                Some((Phase::Serving, _)) => return Ok(StartOutcome::Started),
                Some((_, _)) if self.0.now() >= ready_at => return Ok(StartOutcome::Started),
                Some((_, number)) if self.0.now() >= until => {
                    return Ok(StartOutcome::StillStarting(1000 + number as u32));
                }
                _ => self.0.advance(Duration::from_millis(50)),
            }
        }
    }

    async fn clear_data(&self, job: &ClearData) -> Result<String, PortError> {
        let host = self.0.host(&job.host)?;
        self.0.advance(CALL);
        for directory in &job.directories {
            if !self.0.cluster().wipe_store(&host.store_key(&directory.path)) {
                let message = format!("a process runs on {}; end it first", directory.path);
                return Err(PortError::new(PortErrorKind::CommandFailed, message));
            }
        }
        Ok(format!("{} directories of host {} were cleared", job.directories.len(), job.host))
    }

    async fn drain(&self, node: &StopNode) -> Result<(), PortError> {
        drain(&self.0, node)
    }

    async fn stop(&self, node: &StopNode) -> Result<(), PortError> {
        if !self.0.cluster().listening(&node.address) {
            return Ok(());
        }
        drain(&self.0, node)?;
        let done = self.0.cluster().shutdown(&node.address);
        done.map_err(|e| rpc_error(&self.0, &node.address, &e, node.deadline))?;
        let until = self.0.now() + Duration::from_secs(10);
        while self.0.cluster().listening(&node.address) && self.0.now() < until {
            self.0.advance(Duration::from_millis(20));
        }
        Ok(())
    }

    async fn process(&self, node: &StopNode) -> Result<ProcessState, PortError> {
        self.0.advance(Duration::from_millis(2));
        let running = self.0.cluster().listening(&node.address);
        Ok(if running { ProcessState::Running } else { ProcessState::Stopped })
    }

    /// Every call is over when it comes back, but for a node that was started and runs.
    async fn work_under_way(&self, begun: &BegunWork) -> Result<Option<String>, PortError> {
        self.0.advance(CALL);
        let BegunWork::Start(name) = begun else { return Ok(None) };
        let host = self.0.host(name)?;
        let runs = match self.0.cluster().process(&host.address) {
            Some(view) => !matches!(view.phase, Phase::Exited { .. }),
            None => false,
        };
        Ok(runs.then(|| format!("the node that was started on host {name}")))
    }
}

fn drain(world: &World, node: &StopNode) -> Result<(), PortError> {
    let until = world.now() + node.deadline;
    let fail = |e: RpcError| rpc_error(world, &node.address, &e, node.deadline);
    loop {
        let begun = world.cluster().refuse_clients(&node.address);
        begun.map_err(fail)?;
        let clients = world.cluster().drain_waits_until(&node.address);
        let done = clients.unwrap_or_else(|| world.now()) + Duration::from_secs(1);
        world.advance_to(done.min(until));
        if world.now() >= until {
            return Err(deadline(&node.address));
        }
        let left = world.cluster().drain(&node.address);
        if left.map_err(fail)? == 0 {
            return Ok(());
        }
    }
}

fn deadline(address: &Address) -> PortError {
    PortError::new(PortErrorKind::Deadline, format!("{address} did not answer in time"))
}

fn sql_error(world: &World, gateway: &Address, error: QueryError, limit: Duration) -> PortError {
    match error {
        QueryError::Unreachable => {
            let text = format!("{gateway}: connection refused");
            PortError::new(PortErrorKind::Unreachable, text)
        }
        QueryError::NotAccepting => {
            let text = format!("{gateway}: server is not accepting clients (57P01)");
            PortError::new(PortErrorKind::ShuttingDown, text)
        }
        QueryError::Hang => {
            world.advance(limit);
            deadline(gateway)
        }
    }
}

fn rpc_error(world: &World, address: &Address, error: &RpcError, limit: Duration) -> PortError {
    let kind = match error {
        RpcError::Unreachable => PortErrorKind::Unreachable,
        RpcError::Hang => {
            world.advance(limit);
            return deadline(address);
        }
        RpcError::WaitingForInit => PortErrorKind::NotInitialised,
        RpcError::UnknownNode { .. } => PortErrorKind::UnknownNode,
        RpcError::SingleReplica => PortErrorKind::SingleReplica,
        RpcError::Upgrading => PortErrorKind::Upgrading,
        RpcError::NoDescriptor(_) => PortErrorKind::UnknownNode,
        RpcError::CannotDial(_) => PortErrorKind::Unreachable,
        RpcError::AlreadyInitialised => PortErrorKind::Other,
    };
    PortError::new(kind, format!("{address}: {error}"))
}
