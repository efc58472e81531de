//! The cluster as a value, its clock, and what happens by itself as time goes by.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::rows::{JobRow, StoreRow};
use kwdb_scale_core::topology::{ClusterId, NodeId, StartMode, StoreId};

use super::config::Config;
use super::state::{Disk, Gossiped, Member, Process, Range, Store, Table};
use super::time::{self, Nanos, Queue, Rng, nanos};
use super::types::ZoneTarget;
use super::zones::{Policy, ZoneConfig};

/// What is to happen at a point in time. Events of a process carry its number, so that they end with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A process tries to join.
    Join { process: usize },
    /// A node renews its liveness record.
    Heartbeat { process: usize },
    /// A record ends now, unless it was renewed.
    Expiry { node: NodeId, at: Nanos },
    /// A node writes its status.
    Status { process: usize },
    /// A store's scanner looks at its next replica.
    Scan { process: usize, store: StoreId },
    /// A store's replicate queue takes the next range.
    Work { process: usize, store: StoreId },
    /// A change of replicas ends.
    Finish { range: usize, number: u64 },
    /// A store gossips its counts.
    GossipStore { process: usize, store: StoreId, periodic: bool },
    /// Ranges for which there was no place are tried again everywhere.
    Purgatory,
    /// The data of a moved replica is deleted.
    ReplicaGc { store: StoreId },
    /// A lease whose holder is gone is taken over.
    Takeover { range: usize },
    /// The ranges of a fresh cluster split to their final number.
    SystemSplit,
    /// A graceful stop makes progress.
    Stopping { process: usize },
    /// A process ends.
    Exit { process: usize, code: i32 },
}

/// One cluster of the model. See the [module](super) for what it can be asked.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) config: Config,
    pub(crate) now: Nanos,
    pub(crate) rng: Rng,
    pub(crate) events: Queue<Event>,
    pub(crate) cluster_id: ClusterId,
    /// The cluster's start mode, once initialised.
    pub(crate) mode: Option<StartMode>,
    pub(crate) disks: BTreeMap<String, Disk>,
    pub(crate) processes: Vec<Process>,
    pub(crate) members: Vec<Member>,
    pub(crate) stores: Vec<Store>,
    pub(crate) ranges: Vec<Range>,
    pub(crate) tables: Vec<Table>,
    pub(crate) next_table: u64,
    pub(crate) next_change: u64,
    pub(crate) zones: BTreeMap<ZoneTarget, ZoneConfig>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) databases: Vec<String>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) jobs: Vec<JobRow>,
    /// Nodes without the decommissioning bit, dead ones counted.
    pub(crate) counted_nodes: usize,
    pub(crate) replicas_added: u64,
}

impl Cluster {
    /// A model without any process. Its clock stands at the configuration's base time.
    pub fn new(config: Config) -> Self {
        let cluster_id = config.cluster_id.clone().unwrap_or_else(|| uuid(config.seed));
        let mut cluster = Self {
            now: 0,
            rng: Rng::new(config.seed),
            events: Queue::new(),
            cluster_id,
            mode: None,
            disks: BTreeMap::new(),
            processes: Vec::new(),
            members: Vec::new(),
            stores: Vec::new(),
            ranges: Vec::new(),
            tables: Vec::new(),
            next_table: 78,
            next_change: 0,
            zones: super::zones::defaults(),
            policies: Vec::new(),
            databases: ["system", "defaultdb", "postgres"].map(str::to_owned).to_vec(),
            settings: super::settings::defaults(&config.version),
            jobs: Vec::new(),
            counted_nodes: 0,
            replicas_added: 0,
            config,
        };
        cluster.refresh_policies();
        cluster
    }

    /// What the model was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The virtual clock.
    pub fn now(&self) -> Timestamp {
        self.timestamp(self.now)
    }

    /// Lets everything happen up to `until`; the clock then stands there. An earlier time changes nothing.
    pub fn advance_to(&mut self, until: Timestamp) {
        let until = time::from_timestamp(self.config.base_time, until);
        while let Some((at, event)) = self.events.pop_due(until) {
            self.now = self.now.max(at);
            self.handle(event);
        }
        self.now = self.now.max(until);
    }

    /// Lets `span` go by.
    pub fn advance(&mut self, span: Duration) {
        self.advance_to(self.timestamp(self.now + nanos(span)));
    }

    /// The cluster's UUID, once initialised.
    pub fn cluster_id(&self) -> Option<&ClusterId> {
        self.mode.as_ref().map(|_| &self.cluster_id)
    }

    /// The cluster's start mode, once initialised.
    pub fn start_mode(&self) -> Option<&StartMode> {
        self.mode.as_ref()
    }

    pub(crate) fn timestamp(&self, at: Nanos) -> Timestamp {
        time::to_timestamp(self.config.base_time, at)
    }

    pub(crate) fn after(&mut self, delay: (Duration, Duration), event: Event) {
        let at = self.now + self.rng.between(delay);
        self.events.push(at, event);
    }

    pub(crate) fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get((node.0 as usize).checked_sub(1)?)
    }

    pub(crate) fn member_mut(&mut self, node: NodeId) -> Option<&mut Member> {
        self.members.get_mut((node.0 as usize).checked_sub(1)?)
    }

    pub(crate) fn store(&self, store: StoreId) -> Option<&Store> {
        self.stores.get(store.0.checked_sub(self.config.first_store_id)? as usize)
    }

    pub(crate) fn store_mut(&mut self, store: StoreId) -> Option<&mut Store> {
        self.stores.get_mut(store.0.checked_sub(self.config.first_store_id)? as usize)
    }

    pub(crate) fn node_of(&self, store: StoreId) -> Option<NodeId> {
        self.store(store).map(|s| s.node)
    }

    /// The running process of a node.
    pub(crate) fn process_of(&self, node: NodeId) -> Option<&Process> {
        let process = self.processes.get(self.member(node)?.process as usize)?;
        (process.is_node() && !process.frozen).then_some(process)
    }

    /// Whether the process behind a store works: what raft needs.
    pub(crate) fn store_up(&self, store: StoreId) -> bool {
        self.node_of(store).is_some_and(|n| self.process_of(n).is_some())
    }

    /// Whether a node's liveness record is valid: what the allocator and the gauges go by.
    pub(crate) fn node_live(&self, node: NodeId) -> bool {
        self.member(node).is_some_and(|m| m.liveness.expiration > self.now)
    }

    pub(crate) fn store_live(&self, store: StoreId) -> bool {
        self.node_of(store).is_some_and(|n| self.node_live(n))
    }

    pub(crate) fn has_quorum(&self, range: &Range) -> bool {
        let up = range.voters.iter().filter(|s| self.store_up(**s)).count();
        up * 2 > range.voters.len()
    }

    /// Whether the ranges without which nothing works (meta, liveness, system) have their quorum.
    pub(crate) fn system_available(&self) -> bool {
        self.mode.is_some() && self.ranges.iter().take(3).all(|r| self.has_quorum(r))
    }

    /// No replica ever moves by itself.
    pub(crate) fn is_mpp(&self) -> bool {
        !matches!(self.mode, Some(StartMode::MultiReplica))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Join { process } => self.try_join(process),
            Event::Heartbeat { process } => self.heartbeat(process),
            Event::Expiry { node, at } => self.expiry(node, at),
            Event::Status { process } => self.write_status(process),
            Event::Scan { process, store } => self.scan(process, store),
            Event::Work { process, store } => self.work(process, store),
            Event::Finish { range, number } => self.finish(range, number),
            Event::GossipStore { process, store, periodic } => self.gossip_store(process, store, periodic),
            Event::Purgatory => self.retry_purgatories(),
            Event::ReplicaGc { store } => {
                if self.store_up(store)
                    && let Some(s) = self.store_mut(store)
                {
                    s.leftovers = s.leftovers.saturating_sub(1);
                }
            }
            Event::Takeover { range } => self.takeover(range, None),
            Event::SystemSplit => self.system_split(),
            Event::Stopping { process } => self.stopping(process),
            Event::Exit { process, code } => self.exit(process, code, String::new()),
        }
    }

    /// Whether `process` is a working node now.
    pub(crate) fn works(&self, process: usize) -> bool {
        self.processes.get(process).is_some_and(|p| p.is_node() && !p.frozen)
    }

    fn heartbeat(&mut self, process: usize) {
        let Some(p) = self.processes.get(process).filter(|p| p.is_node() && !p.frozen) else { return };
        let Some(node) = p.node else { return };
        let first = !p.has_beaten;
        let expiry = nanos(self.config.timings.liveness_expiry);
        if !self.system_available() {
            // The write waits for a quorum; a second later is soon enough to try again.
            self.events.push(self.now + nanos(Duration::from_secs(1)), Event::Heartbeat { process });
            return;
        }
        if let Some(p) = self.processes.get_mut(process) {
            p.has_beaten = true;
        }
        let now = self.now;
        let written = now + 1_000_000 + self.rng.next() % 30_000_000;
        let Some(member) = self.member_mut(node) else { return };
        let was_live = member.liveness.expiration > now;
        member.before = member.liveness.clone();
        if first || !was_live {
            member.liveness.epoch += 1;
        }
        member.liveness.expiration = now + expiry;
        member.liveness.updated_at = written;
        // A drain is over when the process was started again.
        if first {
            member.liveness.draining = false;
        }
        self.events.push(now + expiry, Event::Expiry { node, at: now + expiry });
        self.events.push(now + nanos(self.config.timings.heartbeat), Event::Heartbeat { process });
        if first {
            self.lapse_leases(node);
        }
        if !was_live {
            self.gauge_all();
        }
    }

    fn expiry(&mut self, node: NodeId, at: Nanos) {
        let Some(member) = self.member(node).filter(|m| m.liveness.expiration == at) else { return };
        let leases: Vec<usize> = member
            .stores
            .iter()
            .filter_map(|s| self.store(*s))
            .flat_map(|s| s.replicas.iter().copied())
            .filter(|r| {
                let holder = self.ranges.get(*r).and_then(|r| r.leaseholder);
                holder.is_some_and(|h| self.node_of(h) == Some(node))
            })
            .collect();
        let delay = self.config.timings.lease_takeover;
        if !leases.is_empty() && self.system_available() {
            // Whoever takes over a lease makes it invalid first, by raising the epoch of its holder's record.
            let at = self.now + 140_000_000;
            if let Some(m) = self.member_mut(node) {
                m.before = m.liveness.clone();
                m.liveness.epoch += 1;
                m.liveness.updated_at = at;
            }
        }
        for range in leases {
            self.after(delay, Event::Takeover { range });
        }
        self.gauge_all();
    }

    fn write_status(&mut self, process: usize) {
        if !self.works(process) {
            return;
        }
        self.events.push(self.now + nanos(self.config.timings.status), Event::Status { process });
        if !self.system_available() {
            return;
        }
        let Some(node) = self.processes.get(process).and_then(|p| p.node) else { return };
        let Some(member) = self.member(node) else { return };
        // The first row is written before the gauges are first computed.
        let age = self.now.saturating_sub(member.started_at);
        let counted = age > nanos(Duration::from_secs(5));
        let sized = age > nanos(Duration::from_secs(60));
        let (now, started_at) = (self.timestamp(self.now), self.timestamp(member.started_at));
        let capacity = self.config.store_capacity;
        let foreign = self.config.store_foreign;
        let gauge = |n: u32| Some(if counted { u64::from(n) } else { 0 });
        let rows = member
            .stores
            .iter()
            .filter_map(|id| self.store(*id))
            .map(|s| StoreRow {
                node_id: node,
                store_id: s.id,
                capacity: Some(capacity),
                available: Some(capacity.saturating_sub(foreign).saturating_sub(s.bytes)),
                used: Some(if sized { s.bytes } else { 0 }),
                range_count: Some(s.replicas.len() as u64 + u64::from(s.leftovers)),
                lease_count: gauge(s.leases),
                ranges_unavailable: gauge(s.unavailable),
                ranges_underreplicated: gauge(s.under_replicated),
                replicate_purgatory: Some(s.purgatory.len() as u64),
                replicate_pending: Some(s.queue.len() as u64),
                updated_at: Some(now),
                started_at: Some(started_at),
                node_address: Some(member.address.clone()),
            })
            .collect();
        if let Some(member) = self.member_mut(node) {
            member.status = rows;
        }
    }

    fn gossip_store(&mut self, process: usize, store: StoreId, periodic: bool) {
        if !self.works(process) {
            return;
        }
        let now = self.now;
        if periodic {
            let at = now + nanos(self.config.timings.store_gossip);
            self.events.push(at, Event::GossipStore { process, store, periodic });
        }
        let Some(s) = self.store_mut(store) else { return };
        let fresh = s.gossiped.is_none();
        s.gossip_pending = false;
        s.gossiped = Some(Gossiped { at: now, ranges: s.replicas.len() as u64, leases: u64::from(s.leases) });
        if fresh {
            // A new place: whatever waits for one is tried again.
            self.events.push(now, Event::Purgatory);
        }
    }
}

/// A UUID of version 4 in which nothing is random but the seed.
pub(crate) fn uuid(seed: u64) -> ClusterId {
    let (a, b) = (time::hash(seed, 1, 0), time::hash(seed, 2, 0));
    ClusterId::new(format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        0x8000 | (b >> 48) & 0x3fff,
        b & 0xffff_ffff_ffff
    ))
}
