//! A cluster, an operation on it, and everything that watches over both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kwdb_scale_core::execute::{
    Cancel, Canceller, End, ExecuteError, JournalRecord, ObserveOptions, Operation, Ports, Record, observe,
};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::plan::{Plan, Refusal, Step, plan};
use kwdb_scale_core::policy::{Policy, TS_REBALANCE};
use kwdb_scale_core::ports::{
    AuthorityFacts, CertificateControl, CertificateFacts, CertifyHost, ClearData, Clock, DecommissionControl,
    DecommissionStatus, Gateway, HostFacts, Journal, NodeLifecycle, PortError, PortErrorKind, PortState,
    ProcessState, StartNode, StartOutcome, StopNode,
};
use kwdb_scale_core::request::{
    self, Certificates, Finish, NodeRef, OldData, Options, Pace, Redistribution, Request,
};
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{Address, HostName, NodeId, StartMode, StoreId};
use kwdb_scale_sim::memory::{Call, Fault, Faulty, MemJournal, SimHost, Which, World};
use kwdb_scale_sim::model::{Cluster, Config, MembershipStatus, Phase, Security, TableSpec};

/// Where a crash hits a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Crash {
    /// The record did not get to the disk. Of an outcome: the act was done and nobody knows.
    Before,
    /// The record is there and nothing after it was done. Of an intent: the act was not done.
    After,
}

/// When the caller gives up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    Record(usize),
    Sleep(usize),
}

#[derive(Debug, Default)]
struct Trigger {
    cancels: Vec<(Moment, Cancel)>,
    canceller: Option<Canceller>,
    records: usize,
    sleeps: usize,
}

impl Trigger {
    fn pull(&self, hit: impl Fn(&Moment) -> bool) {
        for (_, how) in self.cancels.iter().filter(|(m, _)| hit(m)) {
            if let Some(canceller) = &self.canceller {
                canceller.cancel(*how);
            }
        }
    }
}

/// A journal at which the process crashes, and that notes when to give up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    pub(crate) records: MemJournal,
    crash: Option<(usize, Crash)>,
    trigger: Arc<Mutex<Trigger>>,
}

impl Book {
    pub(crate) fn crashing(n: usize, how: Crash) -> Self {
        Self { crash: Some((n, how)), ..Self::default() }
    }

    pub(crate) fn cancelling(cancels: &[(Moment, Cancel)]) -> Self {
        let book = Self::default();
        book.trigger.lock().unwrap().cancels = cancels.to_vec();
        book
    }

    pub(crate) fn and_crashing(mut self, n: usize, how: Crash) -> Self {
        self.crash = Some((n, how));
        self
    }

    /// The same records without crash and cancel.
    pub(crate) fn reopened(&self) -> Self {
        Self { records: self.records.clone(), ..Self::default() }
    }

    pub(crate) async fn all(&self) -> Vec<Record> {
        self.records.records().await.unwrap().into_iter().map(|r| r.record).collect()
    }

    pub(crate) fn sleeps(&self) -> usize {
        self.trigger.lock().unwrap().sleeps
    }
}

#[async_trait]
impl Journal for Book {
    async fn append(&self, record: &JournalRecord) -> Result<(), PortError> {
        let number = {
            let mut trigger = self.trigger.lock().unwrap();
            trigger.records += 1;
            trigger.pull(|m| matches!(m, Moment::Record(n) if *n == trigger.records));
            trigger.records
        };
        let crash = || PortError::new(PortErrorKind::Other, "the process died here");
        match self.crash {
            Some((n, Crash::Before)) if n == number => Err(crash()),
            Some((n, Crash::After)) if n == number => {
                self.records.append(record).await?;
                Err(crash())
            }
            _ => self.records.append(record).await,
        }
    }

    async fn records(&self) -> Result<Vec<JournalRecord>, PortError> {
        self.records.records().await
    }
}

#[derive(Debug)]
struct Watch {
    inner: Arc<dyn Clock>,
    trigger: Arc<Mutex<Trigger>>,
}

#[async_trait]
impl Clock for Watch {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    async fn sleep_until(&self, until: Timestamp) {
        {
            let mut trigger = self.trigger.lock().unwrap();
            trigger.sleeps += 1;
            trigger.pull(|m| matches!(m, Moment::Sleep(n) if *n == trigger.sleeps));
        }
        self.inner.sleep_until(until).await;
    }
}

/// Stands just before the cluster and looks at every act that reaches it.
#[derive(Debug)]
struct Guard {
    world: World,
    plan: Plan,
    leaving: BTreeSet<NodeId>,
    lifecycle: Arc<dyn NodeLifecycle>,
    control: Arc<dyn DecommissionControl>,
    certificates: Arc<dyn CertificateControl>,
    wrong: Arc<Mutex<Vec<String>>>,
    stop_hangs: bool,
}

impl Guard {
    fn accuse(&self, ok: bool, what: impl Into<String>) {
        if !ok {
            let at = self.world.now();
            self.wrong.lock().unwrap().push(format!("{at}: {}", what.into()));
        }
    }

    /// A drain or a stop may only ever reach a marked, empty node of the plan.
    fn judge(&self, what: &str, target: &StopNode) {
        let id = target.node;
        self.accuse(self.leaving.contains(&id), format!("{what} of node {}, which does not leave", id.0));
        self.accuse(!self.leaving.contains(&target.via.node), format!("{what} through a leaving node"));
        let cluster = self.world.cluster();
        let there = cluster.process(&target.address).filter(|p| !matches!(p.phase, Phase::Exited { .. }));
        let left = cluster.replica_count(id);
        let marked = is_marked(&cluster, id);
        drop(cluster);
        self.accuse(left == 0, format!("{what} of node {} with {left} replicas", id.0));
        self.accuse(marked, format!("{what} of node {}, which is not marked", id.0));
        if let Some(there) = there {
            self.accuse(there.node == Some(id), format!("{what} of node {} hit {:?}", id.0, there.node));
        }
    }

    /// Only what removed nodes left is ever cleared, and all of it.
    fn judge_clearing(&self, job: &ClearData) {
        let host = self.world.host(&job.host).unwrap();
        let named: BTreeSet<&String> = job.directories.iter().map(|d| &d.path).collect();
        let all = host.stores.iter().all(|s| named.contains(s));
        let of_host = |step: &Step| match step {
            Step::ClearData { host, nodes, .. } if *host == job.host => Some(nodes.clone()),
            _ => None,
        };
        let nodes = self.plan.steps.iter().find_map(of_host).unwrap_or_default();
        let cluster = self.world.cluster();
        let in_use = cluster.listening(&host.address);
        let removed = nodes.iter().all(|n| is_marked(&cluster, *n) && cluster.replica_count(*n) == 0);
        drop(cluster);
        self.accuse(!in_use, format!("host {} was cleared while in use", job.host));
        self.accuse(all, format!("{named:?} were cleared, not all of them"));
        self.accuse(removed && !nodes.is_empty(), format!("data of {nodes:?} was cleared"));
    }
}

#[async_trait]
impl NodeLifecycle for Guard {
    async fn inspect(&self, host: &HostName) -> Result<HostFacts, PortError> {
        self.lifecycle.inspect(host).await
    }

    async fn start(&self, node: &StartNode) -> Result<StartOutcome, PortError> {
        let address = self.world.host(&node.host).unwrap().address;
        let certified = self.world.host(&node.host).unwrap();
        let certified = !certified.security.is_secure() || certified.node_certificate;
        self.accuse(certified, format!("host {} was started without certificates", node.host));
        let twice = self.world.cluster().listening(&address);
        self.accuse(!twice, format!("host {} was started twice", node.host));
        self.accuse(!node.join.is_empty(), "a start without --join");
        self.lifecycle.start(node).await
    }

    async fn reach(
        &self,
        host: &HostName,
        to: &[Address],
        deadline: Duration,
    ) -> Result<Vec<Fact<PortState>>, PortError> {
        self.lifecycle.reach(host, to, deadline).await
    }

    async fn clear_data(&self, job: &ClearData) -> Result<String, PortError> {
        self.judge_clearing(job);
        self.lifecycle.clear_data(job).await
    }

    async fn drain(&self, node: &StopNode) -> Result<(), PortError> {
        self.judge("drain", node);
        self.lifecycle.drain(node).await
    }

    async fn stop(&self, node: &StopNode) -> Result<(), PortError> {
        self.judge("stop", node);
        if self.stop_hangs {
            std::future::pending::<()>().await;
        }
        let before = without_quorum(&self.world);
        let result = self.lifecycle.stop(node).await;
        let after = without_quorum(&self.world);
        self.accuse(after <= before, format!("the stop of {} left {after} ranges without quorum", node.node));
        result
    }

    async fn process(&self, node: &StopNode) -> Result<ProcessState, PortError> {
        self.lifecycle.process(node).await
    }
}

#[async_trait]
impl DecommissionControl for Guard {
    async fn mark(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        let named: BTreeSet<NodeId> = nodes.iter().copied().collect();
        self.accuse(named == self.leaving, format!("{nodes:?} were marked"));
        self.accuse(!self.leaving.contains(&via.node), "marked through a leaving node");
        self.control.mark(via, nodes, deadline).await
    }

    async fn recommission(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        self.accuse(nodes.iter().all(|n| self.leaving.contains(n)), format!("{nodes:?} were recommissioned"));
        self.control.recommission(via, nodes, deadline).await
    }

    async fn status(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Option<Vec<DecommissionStatus>>, PortError> {
        self.control.status(via, nodes, deadline).await
    }
}

impl Guard {
    /// Certificates never change under a node that runs.
    fn judge_certificates(&self, what: &str, job: &CertifyHost) {
        let address = self.world.host(&job.host).unwrap().address;
        let runs = self.world.cluster().listening(&address);
        self.accuse(!runs, format!("{what} of certificates on host {} while its node runs", job.host));
    }
}

#[async_trait]
impl CertificateControl for Guard {
    fn issues(&self) -> bool {
        self.certificates.issues()
    }

    async fn authority(&self, members: &[HostName]) -> Result<AuthorityFacts, PortError> {
        self.certificates.authority(members).await
    }

    async fn look(&self, job: &CertifyHost) -> Result<CertificateFacts, PortError> {
        self.certificates.look(job).await
    }

    async fn install(&self, job: &CertifyHost) -> Result<(), PortError> {
        self.judge_certificates("installation", job);
        self.certificates.install(job).await
    }

    async fn restore(&self, job: &CertifyHost) -> Result<(), PortError> {
        self.judge_certificates("restoration", job);
        self.certificates.restore(job).await
    }

    async fn clean(&self, job: &CertifyHost) -> Result<(), PortError> {
        self.certificates.clean(job).await
    }
}

pub(crate) fn is_marked(cluster: &Cluster, node: NodeId) -> bool {
    let status = cluster.membership_status(node);
    matches!(status, Some(MembershipStatus::Decommissioning | MembershipStatus::Decommissioned))
}

/// Ranges without a quorum of running processes.
fn without_quorum(world: &World) -> usize {
    let cluster = world.cluster();
    let hosts = world.hosts();
    let up: BTreeSet<NodeId> = hosts
        .iter()
        .filter_map(|h| cluster.process(&h.address))
        .filter(|p| matches!(p.phase, Phase::Serving | Phase::Draining) && !p.frozen)
        .filter_map(|p| p.node)
        .collect();
    let ask = |query: &Query| hosts.iter().find_map(|h| cluster.rows(h.sql(), query).ok()).map(|a| a.rows);
    let (Some(Rows::Ranges(ranges)), Some(Rows::Stores(stores))) = (ask(&Query::Ranges), ask(&Query::Stores))
    else {
        return usize::MAX;
    };
    let node: BTreeMap<StoreId, NodeId> = stores.iter().map(|s| (s.store_id, s.node_id)).collect();
    let lost = |r: &&kwdb_scale_core::rows::RangeRow| {
        let live = r.replicas.iter().filter(|s| node.get(s).is_some_and(|n| up.contains(n))).count();
        live * 2 <= r.replicas.len()
    };
    ranges.iter().filter(lost).count()
}

/// A cluster, hosts, and an operation that was planned on it.
#[derive(Clone)]
pub(crate) struct Scene {
    cluster: Cluster,
    hosts: Vec<SimHost>,
    pub(crate) plan: Plan,
}

/// One telling of a scene, in a world of its own.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) plan: Plan,
    hosts: Vec<SimHost>,
    wrong: Arc<Mutex<Vec<String>>>,
    pub(crate) calls: BTreeMap<Call, u32>,
    pub(crate) stop_hangs: bool,
}

pub(crate) fn policy() -> Policy {
    Policy {
        poll: SignedDuration::from_secs(5),
        start_deadline: SignedDuration::from_secs(20),
        join_deadline: SignedDuration::from_mins(5),
        stop_deadline: SignedDuration::from_mins(1),
        removed_deadline: SignedDuration::from_mins(1),
        stall_after: SignedDuration::from_mins(2),
        settled_after: SignedDuration::from_mins(1),
        ..Policy::default()
    }
}

/// A multi-replica cluster with a table, at rest.
pub(crate) fn cluster_of(nodes: u16) -> World {
    let world = World::started(nodes);
    world.cluster().create_table(TableSpec::new("app", "kv", 8)).unwrap();
    world.advance(Duration::from_secs(300));
    world
}

pub(crate) fn scale_in(nodes: &[u32]) -> request::Operation {
    request::Operation::ScaleIn { nodes: ids(nodes) }
}

pub(crate) fn scale_out(hosts: &[u16]) -> request::Operation {
    request::Operation::ScaleOut { hosts: names(hosts) }
}

pub(crate) fn replace(nodes: &[u32], hosts: &[u16]) -> request::Operation {
    request::Operation::Replace { nodes: ids(nodes), hosts: names(hosts) }
}

pub(crate) fn ids(nodes: &[u32]) -> Vec<NodeRef> {
    nodes.iter().map(|n| NodeRef::Id(NodeId(*n))).collect()
}

pub(crate) fn names(hosts: &[u16]) -> Vec<HostName> {
    hosts.iter().map(|n| HostName::new(format!("n{n}"))).collect()
}

pub(crate) fn moved_aside() -> Options {
    Options { old_data: OldData::MoveAside, ..Options::default() }
}

pub(crate) async fn planned(
    world: &World,
    operation: request::Operation,
    options: Options,
) -> Result<Plan, Refusal> {
    let ports = world.ports();
    let inventory = world.inventory();
    let request = Request { operation, inventory: inventory.clone(), options };
    let look = ObserveOptions {
        request: Some(request.clone()),
        inventory,
        certificates: ports.certificates,
        ..ObserveOptions::default()
    };
    let observation = observe(&*ports.facts, Some(&*ports.lifecycle), &look).await.unwrap();
    plan(&observation, &request, &policy())
}

impl Scene {
    /// At the servers' own pace unless full speed is asked for: mishaps are timed by it.
    pub(crate) async fn new(world: &World, operation: request::Operation, options: Options) -> Self {
        let pace = if options.pace == Pace::Full { Pace::Full } else { Pace::Server };
        let options = Options { pace, ..options };
        let plan = match planned(world, operation, options).await {
            Ok(plan) => plan,
            Err(refusal) => panic!("{refusal}"),
        };
        Self { cluster: world.cluster().clone(), hosts: world.hosts(), plan }
    }

    pub(crate) async fn out() -> Self {
        let world = cluster_of(4);
        world.add_host(SimHost::numbered(5));
        Self::new(&world, scale_out(&[5]), Options::default()).await
    }

    /// A host without certificates joins a secure cluster.
    pub(crate) async fn out_with_certificates(old: bool) -> Self {
        let security = Security::Ca("lab".to_owned());
        let config = Config { security: security.clone(), ..Config::default() };
        let world = World::started_with(config, StartMode::MultiReplica, 4);
        world.advance(Duration::from_secs(60));
        let host =
            SimHost { security, root_certificate: old, node_certificate: false, ..SimHost::numbered(5) };
        world.add_host(host);
        let options = Options { certificates: Certificates::Issue, ..Options::default() };
        Self::new(&world, scale_out(&[5]), options).await
    }

    pub(crate) async fn leave_one() -> Self {
        Self::new(&cluster_of(5), scale_in(&[5]), Options::default()).await
    }

    pub(crate) async fn leave_two() -> Self {
        let options = Options { pace: Pace::Full, ..Options::default() };
        Self::new(&cluster_of(6), scale_in(&[5, 6]), options).await
    }

    pub(crate) async fn replace_with_everything() -> Self {
        let world = cluster_of(4);
        world.add_host(SimHost::numbered(5));
        let options =
            Options { redistribution: Redistribution::OffDuring, drain: true, ..Options::default() };
        Self::new(&world, replace(&[4], &[5]), options).await
    }

    /// A machine whose node was removed comes back, its old data on it.
    pub(crate) async fn come_back() -> Self {
        let left = Self::leave_one().await;
        let mut stage = left.stage();
        let end = stage.run(&Book::default(), &[]).await.unwrap();
        stage.prove_done(&end, "the scale-in before");
        Self::new(&stage.world, scale_out(&[5]), moved_aside()).await
    }

    pub(crate) async fn leave_drained() -> Self {
        let options = Options { finish: Finish::LeaveDrained, drain: true, ..Options::default() };
        Self::new(&cluster_of(4), scale_in(&[4]), options).await
    }

    pub(crate) fn stage(&self) -> Stage {
        let world = World::over(Arc::new(Mutex::new(self.cluster.clone())));
        self.hosts.iter().for_each(|h| world.add_host(h.clone()));
        Stage {
            world,
            plan: self.plan.clone(),
            hosts: self.hosts.clone(),
            wrong: Arc::default(),
            calls: BTreeMap::new(),
            stop_hangs: false,
        }
    }
}

/// Every call that faults can hit here.
pub(crate) const CALLS: [Call; 10] = [
    Call::Fetch,
    Call::SetSetting,
    Call::Mark,
    Call::Recommission,
    Call::Status,
    Call::Inspect,
    Call::ClearData,
    Call::Start,
    Call::Drain,
    Call::Stop,
];

/// Those of certificates.
pub(crate) const CERTIFICATE_CALLS: [Call; 3] =
    [Call::Authority, Call::LookAtCertificates, Call::InstallCertificates];

impl Stage {
    fn guard(&self) -> Arc<Guard> {
        let ports = self.world.ports();
        Arc::new(Guard {
            world: self.world.clone(),
            plan: self.plan.clone(),
            leaving: self.plan.leaving.iter().map(|l| l.node).collect(),
            lifecycle: ports.lifecycle,
            control: ports.control,
            certificates: ports.certificates.unwrap(),
            wrong: self.wrong.clone(),
            stop_hangs: self.stop_hangs,
        })
    }

    /// Begins, or resumes when the book has records, and runs to the end.
    pub(crate) async fn run(
        &mut self,
        book: &Book,
        faults: &[(Call, Which, Fault)],
    ) -> Result<End, ExecuteError> {
        let plain = self.world.ports();
        let guard = self.guard();
        let guard_certificates = guard.clone() as Arc<dyn CertificateControl>;
        let mut facts = Faulty::new(&self.world, plain.facts);
        let mut settings = Faulty::new(&self.world, plain.settings);
        let mut control: Faulty<dyn DecommissionControl> =
            Faulty::new(&self.world, guard.clone() as Arc<dyn DecommissionControl>);
        let mut lifecycle: Faulty<dyn NodeLifecycle> =
            Faulty::new(&self.world, guard as Arc<dyn NodeLifecycle>);
        let mut certificates: Faulty<dyn CertificateControl> = Faulty::new(&self.world, guard_certificates);
        for (call, which, fault) in faults {
            certificates = certificates.with(*call, *which, fault.clone());
            facts = facts.with(*call, *which, fault.clone());
            settings = settings.with(*call, *which, fault.clone());
            control = control.with(*call, *which, fault.clone());
            lifecycle = lifecycle.with(*call, *which, fault.clone());
        }
        let (facts, settings) = (Arc::new(facts), Arc::new(settings));
        let (control, lifecycle) = (Arc::new(control), Arc::new(lifecycle));
        let certificates = Arc::new(certificates);
        let ports = Ports {
            facts: facts.clone(),
            settings: settings.clone(),
            control: control.clone(),
            lifecycle: lifecycle.clone(),
            certificates: Some(certificates.clone()),
            journal: Arc::new(book.clone()),
            clock: Arc::new(Watch { inner: plain.clock, trigger: book.trigger.clone() }),
            ..plain
        };
        let begun = self.world.now();
        let mut operation = if book.all().await.is_empty() {
            let consent = self.plan.consent();
            Operation::begin_with_consent(self.plan.clone(), ports, consent.as_deref()).await?
        } else {
            Operation::resume(ports).await?
        };
        book.trigger.lock().unwrap().canceller = Some(operation.canceller());
        let end = operation.run().await;
        for call in CALLS.into_iter().chain(CERTIFICATE_CALLS) {
            let count = facts.count(call)
                + settings.count(call)
                + control.count(call)
                + lifecycle.count(call)
                + certificates.count(call);
            self.calls.insert(call, count);
        }
        let took = self.world.now().duration_since(begun);
        assert!(took < SignedDuration::from_hours(1), "it took {took:#} to come to {end:?}");
        Ok(end)
    }

    /// Resumes without faults until it ends for good, at most three times.
    pub(crate) async fn go_on(&mut self, book: &Book) -> End {
        let mut last = None;
        for _ in 0..3 {
            match self.run(&book.reopened(), &[]).await {
                Ok(end @ (End::Done(_) | End::Undone(_))) => return end,
                Ok(end) => last = Some(end),
                Err(ExecuteError::Ended(_)) => {
                    let Some(Record::Ended { end }) = book.all().await.pop() else { panic!("no end") };
                    return end;
                }
                Err(e) => panic!("{e}"),
            }
        }
        last.unwrap()
    }

    /// No act broke a rule.
    pub(crate) fn nothing_wrong(&self, what: &str) {
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{what}: {wrong:#?}");
    }

    fn expect(&self, ok: bool, what: &str, which: &str) {
        assert!(ok, "{which}: {what}");
    }

    /// The end state is there by the model itself.
    pub(crate) fn prove_done(&self, end: &End, which: &str) {
        self.nothing_wrong(which);
        assert!(matches!(end, End::Done(_)), "{which}: {end:?}");
        self.expect(!self.world.certificates_unfinished(), "something temporary is left", which);
        let cluster = self.world.cluster();
        let stop = self.plan.request.options.finish == Finish::Stop;
        for leaving in &self.plan.leaving {
            let id = leaving.node;
            self.expect(is_marked(&cluster, id), &format!("node {} is not marked", id.0), which);
            self.expect(cluster.replica_count(id) == 0, &format!("node {} holds replicas", id.0), which);
            let up = cluster
                .process(&leaving.address)
                .is_some_and(|p| p.node == Some(id) && !matches!(p.phase, Phase::Exited { .. }));
            self.expect(up != stop, &format!("node {} runs: {up}", id.0), which);
        }
        for host in &self.plan.change.add {
            let address = self.world.host(host).unwrap().address;
            let node = cluster.process(&address).and_then(|p| p.node);
            let live = node.and_then(|n| cluster.membership_status(n)) == Some(MembershipStatus::Live);
            self.expect(live, &format!("host {host} has no live member"), which);
        }
        for gateway in &self.plan.gateways {
            let live = cluster.membership_status(gateway.node) == Some(MembershipStatus::Live);
            self.expect(live, &format!("node {} is no live member", gateway.node.0), which);
        }
        self.expect(cluster.under_replicated() == 0, "ranges are under-replicated", which);
        let setting = cluster.setting(TS_REBALANCE);
        self.expect(setting == Some("true"), &format!("the setting is {setting:?}"), which);
    }

    /// Nothing of the operation is left, by the model itself.
    pub(crate) fn prove_undone(&self, end: &End, which: &str) {
        self.nothing_wrong(which);
        let End::Undone(told) = end else { panic!("{which}: {end:?}") };
        self.expect(!self.world.certificates_unfinished(), "something temporary is left", which);
        for host in &self.hosts {
            let there = self.world.host(&host.name).unwrap();
            let started = self.world.cluster().process(&there.address).is_some();
            let same = (there.node_certificate, there.root_certificate)
                == (host.node_certificate, host.root_certificate);
            let stays = |line: &String| line.contains("stay there") || line.contains("stays a member");
            let of_it = |line: &&String| line.contains(&format!("host {} ", host.name)) && stays(line);
            let said = told.iter().any(|l| of_it(&l));
            let what = format!("{} has not its old certificates, and nobody says so", host.name);
            self.expect(same || said, &what, which);
            let empty = self.world.certificates_left_empty(&there);
            self.expect(started || !empty, &format!("a directory was left on {}", host.name), which);
        }
        let cluster = self.world.cluster();
        for leaving in &self.plan.leaving {
            let live = cluster.membership_status(leaving.node) == Some(MembershipStatus::Live);
            self.expect(live, &format!("node {} is no live member", leaving.node.0), which);
        }
        let setting = cluster.setting(TS_REBALANCE);
        self.expect(setting == Some("true"), &format!("the setting is {setting:?}"), which);
    }

    pub(crate) fn was_stopped(&self, records: &[Record]) -> bool {
        use kwdb_scale_core::execute::Act;
        records.iter().any(|r| matches!(r, Record::Intent { act: Act::Stop { .. }, .. }))
    }

    /// Starts a node of a host again on its own store.
    pub(crate) fn restart(&self, n: u16) -> impl FnOnce(&mut Cluster) + Send + 'static {
        let hosts = self.world.hosts();
        let join = hosts.iter().map(|h| h.address.clone()).collect();
        let start = SimHost::numbered(n).node_start(StartMode::MultiReplica, join);
        move |cluster| {
            cluster.start_node(start).unwrap();
        }
    }
}
