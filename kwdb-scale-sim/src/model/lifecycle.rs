//! Processes: start, join, `init`, stop, kill, freeze; and what they leave on disk.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::topology::{Address, Locality, NodeId, StartMode, StoreId};

use super::cluster::{Cluster, Event};
use super::state::{Disk, Liveness, Member, Process, Store};
use super::time::nanos;
use super::types::{Health, NodeStart, Phase, ProcessView, RpcError, StartError, StartReply};

const MS: u64 = 1_000_000;

impl Cluster {
    /// Starts a process. It listens at once and tries to join a moment later; see [`process`](Self::process) for
    /// what becomes of it.
    ///
    /// # Errors
    /// When the process ends before it tries to join.
    pub fn start_node(&mut self, start: NodeStart) -> Result<StartReply, StartError> {
        let addresses = [Some(&start.address), start.sql_address.as_ref(), start.http_address.as_ref()];
        for address in addresses.into_iter().flatten() {
            if self.listening(address) {
                return Err(StartError::AddressInUse(address.clone()));
            }
        }
        if start.stores.is_empty() {
            return Err(StartError::NoStore);
        }
        let running = self.processes.iter().filter(|p| p.is_running());
        let used: BTreeSet<&String> = running.flat_map(|p| &p.start.stores).collect();
        if let Some(store) = start.stores.iter().find(|s| used.contains(s)) {
            return Err(StartError::StoreInUse(store.clone()));
        }
        if start.mode == StartMode::SingleNode && !start.join.is_empty() {
            return Err(StartError::JoinSingleNode);
        }
        let disks: Vec<Option<&Disk>> = start.stores.iter().map(|s| self.disks.get(s)).collect();
        let identities: BTreeSet<NodeId> =
            disks.iter().flatten().filter_map(|d| d.identity.map(|(node, _)| node)).collect();
        if let Some(node) = identities.first() {
            let whole = self.member(*node).is_some_and(|m| m.stores.len() <= start.stores.len());
            if identities.len() > 1 || !whole {
                return Err(StartError::StoresDisagree);
            }
            let should = disks.iter().flatten().find_map(|d| d.start_mode.clone());
            if let Some(should) = should.filter(|s| *s != start.mode) {
                return Err(StartError::StartMode { is: start.mode, should });
            }
        } else if start.join.is_empty() && self.mode.is_some() {
            return Err(StartError::SecondCluster);
        }
        let number = self.processes.len();
        self.processes.push(Process {
            number: number as u64,
            sql_address: start.sql_address.clone().unwrap_or_else(|| start.address.clone()),
            build: start.build.clone().unwrap_or_else(|| self.config.version.clone()),
            phase: Phase::Booting,
            node: None,
            joined_at: 0,
            has_beaten: false,
            refuses_since: None,
            silent_since: None,
            status: "",
            frozen: false,
            foreign: false,
            transaction_until: 0,
            start,
        });
        self.after(self.config.timings.boot, Event::Join { process: number });
        let ready_at = self.timestamp(self.now + nanos(Duration::from_secs(2)));
        Ok(StartReply { process: number as u64, ready_at })
    }

    /// The process that last ran at this address (RPC, SQL or HTTP).
    pub fn process(&self, address: &Address) -> Option<ProcessView> {
        let p = self.processes.iter().rev().find(|p| listens_at(p, address))?;
        Some(ProcessView {
            process: p.number,
            phase: p.phase.clone(),
            node: p.node,
            address: p.start.address.clone(),
            sql_address: p.sql_address.clone(),
            http_address: p.start.http_address.clone(),
            mode: p.start.mode.clone(),
            build: p.build.clone(),
            security: p.start.security.clone(),
            status: p.status,
            frozen: p.frozen,
        })
    }

    /// Whether something listens at this address.
    pub fn listening(&self, address: &Address) -> bool {
        self.running(address).is_some()
    }

    pub(crate) fn running(&self, address: &Address) -> Option<usize> {
        self.processes.iter().rposition(|p| p.is_running() && listens_at(p, address))
    }

    /// What the HTTP port answers to `/health` (or `/health?ready=1`); `None` when nothing listens or answers.
    pub fn health(&self, address: &Address, ready: bool) -> Option<Health> {
        let p = self.processes.get(self.running(address)?).filter(|p| !p.frozen)?;
        if !ready {
            return Some(Health::Ok);
        }
        Some(match p.phase {
            Phase::Booting | Phase::Waiting => Health::NotReady("node is waiting for cluster initialization"),
            Phase::Draining => Health::NotReady("node is shutting down"),
            _ if p.node.is_some_and(|n| self.node_live(n)) => Health::Ok,
            _ => Health::NotReady("node is not healthy"),
        })
    }

    /// `kwbase init` at this RPC address.
    ///
    /// On a node that should join an initialised cluster this succeeds, as in reality, and makes it a cluster of
    /// its own that never joins.
    ///
    /// # Errors
    /// [`RpcError::AlreadyInitialised`], or nothing listens or answers there.
    pub fn init(&mut self, address: &Address) -> Result<(), RpcError> {
        let process = self.answering(address)?;
        let Some(p) = self.processes.get_mut(process) else { return Err(RpcError::Unreachable) };
        if p.is_node() || p.foreign {
            return Err(RpcError::AlreadyInitialised);
        }
        if self.mode.is_some() {
            p.foreign = true;
            return Ok(());
        }
        self.bootstrap(process);
        Ok(())
    }

    /// SIGKILL. Whether something was there.
    pub fn kill_node(&mut self, address: &Address) -> bool {
        let Some(process) = self.running(address) else { return false };
        self.exit(process, 137, "Killed".to_owned());
        true
    }

    /// SIGTERM: drains and ends, in about three seconds; never without a quorum of the system ranges. Whether
    /// something was there.
    pub fn stop_node(&mut self, address: &Address) -> bool {
        let Some(process) = self.running(address) else { return false };
        if self.works(process) {
            self.begin_drain(process);
            self.after((Duration::from_secs(2), Duration::from_secs(4)), Event::Stopping { process });
        } else {
            self.exit(process, 0, String::new());
        }
        true
    }

    /// SIGSTOP (or a machine that hangs): connections are accepted, nothing is answered, heartbeats end.
    pub fn freeze_node(&mut self, address: &Address, frozen: bool) -> bool {
        let Some(process) = self.running(address) else { return false };
        let now = self.now;
        let Some(p) = self.processes.get_mut(process) else { return false };
        if p.frozen == frozen {
            return true;
        }
        // A new entry for the same process, so that what was to happen before does not happen afterwards.
        let mut changed = p.clone();
        p.phase = Phase::Exited { code: 0, message: String::new() };
        p.silent_since.get_or_insert(now);
        changed.frozen = frozen;
        changed.silent_since = frozen.then_some(now);
        changed.joined_at = now;
        changed.has_beaten = false;
        let (node, stores) = (changed.node, self.stores_of(process));
        let process = self.processes.len();
        self.processes.push(changed);
        if let Some(member) = node.and_then(|n| self.member_mut(n)) {
            member.process = process as u64;
        }
        if frozen {
            self.abandon_queues(&stores);
        } else if self.works(process) {
            self.start_events(process, &stores);
        } else {
            self.events.push(now, Event::Join { process });
        }
        true
    }

    /// Deletes a store directory. A running process keeps its own: then nothing is deleted and this is `false`.
    pub fn wipe_store(&mut self, store: &str) -> bool {
        let used = self.processes.iter().any(|p| p.is_running() && p.start.stores.iter().any(|s| s == store));
        if !used {
            self.disks.remove(store);
        }
        !used
    }

    /// Names of what a node left in a store directory; empty when there is no such directory.
    pub fn store_files(&self, store: &str) -> Vec<&'static str> {
        let Some(disk) = self.disks.get(store) else { return Vec::new() };
        let mut files = Vec::new();
        if disk.identity.is_some() {
            files.extend(["CURRENT", "STORAGE_VERSION", "auxiliary", "tsdb"]);
        }
        if disk.start_mode.is_some() {
            files.push("kwbase.start_mode");
        }
        files.push("logs");
        files
    }

    /// A client holds a transaction open at that node until then: a drain waits for it, up to
    /// `server.shutdown.query_wait`.
    pub fn hold_transaction(&mut self, address: &Address, until: Timestamp) {
        let until = super::time::from_timestamp(self.config.base_time, until);
        if let Some(p) = self.running(address).and_then(|p| self.processes.get_mut(p)) {
            p.transaction_until = until;
        }
    }

    pub(crate) fn answering(&self, address: &Address) -> Result<usize, RpcError> {
        let process = self.running(address).ok_or(RpcError::Unreachable)?;
        match self.processes.get(process) {
            Some(p) if p.frozen => Err(RpcError::Hang),
            Some(_) => Ok(process),
            None => Err(RpcError::Unreachable),
        }
    }

    /// The stores of the node that a process runs as.
    pub(crate) fn stores_of(&self, process: usize) -> Vec<StoreId> {
        let node = self.processes.get(process).and_then(|p| p.node);
        node.and_then(|n| self.member(n)).map(|m| m.stores.clone()).unwrap_or_default()
    }

    pub(crate) fn try_join(&mut self, process: usize) {
        let Some(p) = self.processes.get(process).filter(|p| !p.frozen && !p.foreign) else { return };
        if !matches!(p.phase, Phase::Booting | Phase::Waiting) {
            return;
        }
        let identity = p.start.stores.iter().find_map(|s| self.disks.get(s).and_then(|d| d.identity));
        let trusted = p.start.security == self.config.security;
        if let (Some((node, _)), true) = (identity, trusted) {
            self.become_node(process, node, "restarted pre-existing node");
            return;
        }
        if self.mode.is_none() && p.start.join.is_empty() && trusted {
            self.bootstrap(process);
            return;
        }
        let contact = self.processes.iter().any(|q| {
            q.is_node()
                && !q.frozen
                && (p.start.join.contains(&q.start.address) || q.start.join.contains(&p.start.address))
        });
        if !contact || !trusted || !self.system_available() {
            if let Some(p) = self.processes.get_mut(process) {
                p.phase = Phase::Waiting;
            }
            self.events.push(self.now + nanos(self.config.timings.join_retry), Event::Join { process });
            return;
        }
        let Some(should) = self.mode.clone() else { return };
        let is = p.start.mode.clone();
        let stores = p.start.stores.clone();
        // The cluster's mode is written down before it is compared, and a store that has the file already is not
        // checked again: the hole that makes a second attempt on a dirty directory join.
        let unchecked =
            stores.first().and_then(|s| self.disks.get(s)).is_some_and(|d| d.start_mode.is_some());
        if let Some(first) = stores.first() {
            let disk = Disk { start_mode: Some(should.clone()), identity: None };
            self.disks.insert(first.clone(), disk);
        }
        if is != should && !unchecked {
            let message =
                format!("ERROR: Check start mode failed! Node start mode is {is}, should be {should}\n");
            self.exit(process, 1, message);
            return;
        }
        let node = self.new_member(process);
        self.become_node(process, node, "initialized new node, joined pre-existing cluster");
    }

    fn bootstrap(&mut self, process: usize) {
        let Some(p) = self.processes.get(process) else { return };
        let mode = p.start.mode.clone();
        if let Some(first) = p.start.stores.first().cloned() {
            self.disks.insert(first, Disk { start_mode: Some(mode.clone()), identity: None });
        }
        self.mode = Some(mode);
        let node = self.new_member(process);
        if let Some(store) = self.member(node).and_then(|m| m.stores.first().copied()) {
            self.create_system_ranges(store);
        }
        self.become_node(process, node, "initialized new cluster");
        self.events.push(self.now + 700 * MS, Event::SystemSplit);
    }

    fn new_member(&mut self, process: usize) -> NodeId {
        let id = NodeId(self.members.len() as u32 + 1);
        let Some(p) = self.processes.get(process).cloned() else { return id };
        let locality =
            p.start.locality.clone().unwrap_or_else(|| Locality::from(format!("region=NODE{}", id.0)));
        self.members.push(Member {
            id,
            liveness: Liveness::default(),
            before: Liveness::default(),
            address: p.start.address.clone(),
            sql_address: p.sql_address,
            locality,
            mode: p.start.mode.clone(),
            build: p.build,
            started_at: self.now,
            process: process as u64,
            stores: Vec::new(),
            status: Vec::new(),
        });
        self.counted_nodes += 1;
        for key in &p.start.stores {
            self.add_store(key, id, &p.start.mode);
        }
        id
    }

    fn become_node(&mut self, process: usize, node: NodeId, status: &'static str) {
        let now = self.now;
        let Some(p) = self.processes.get_mut(process) else { return };
        p.phase = Phase::Serving;
        p.node = Some(node);
        p.joined_at = now;
        p.status = status;
        let (start, build, sql) = (p.start.clone(), p.build.clone(), p.sql_address.clone());
        // Store directories that are new become further stores of the node.
        for key in &start.stores {
            if self.disks.get(key).is_none_or(|d| d.identity.is_none()) {
                self.add_store(key, node, &start.mode);
            }
        }
        let Some(member) = self.member_mut(node) else { return };
        member.address = start.address;
        member.sql_address = sql;
        member.mode = start.mode;
        member.build = build;
        member.started_at = now;
        member.process = process as u64;
        if let Some(locality) = start.locality {
            member.locality = locality;
        }
        let stores = member.stores.clone();
        self.start_events(process, &stores);
        self.gauge_all();
    }

    fn add_store(&mut self, key: &str, node: NodeId, mode: &StartMode) {
        let id = StoreId(self.config.first_store_id + self.stores.len() as u32);
        self.stores.push(Store {
            id,
            node,
            replicas: BTreeSet::new(),
            gave_up_at: 0,
            leases: 0,
            bytes: 0,
            under_replicated: 0,
            unavailable: 0,
            leftovers: 0,
            gossiped: None,
            gossip_pending: false,
            scan: Default::default(),
            queue: Default::default(),
            busy: None,
            purgatory: BTreeSet::new(),
        });
        let start_mode =
            self.disks.get(key).and_then(|d| d.start_mode.clone()).or_else(|| Some(mode.clone()));
        self.disks.insert(key.to_owned(), Disk { start_mode, identity: Some((node, id)) });
        if let Some(member) = self.member_mut(node) {
            member.stores.push(id);
        }
    }

    fn start_events(&mut self, process: usize, stores: &[StoreId]) {
        let now = self.now;
        self.events.push(now, Event::Heartbeat { process });
        self.events.push(now + 30 * MS, Event::Status { process });
        for store in stores {
            let store = *store;
            if let Some(s) = self.store_mut(store) {
                s.gossiped = None;
            }
            let phase = self.rng.next() % (1_000 * MS);
            self.events.push(now + phase, Event::Scan { process, store });
            let at = now + 50 * MS + phase / 4;
            self.events.push(at, Event::GossipStore { process, store, periodic: true });
        }
    }

    pub(crate) fn stopping(&mut self, process: usize) {
        if !self.works(process) {
            return;
        }
        if self.system_available() {
            self.begin_drain(process);
            self.exit(process, 0, String::new());
        } else {
            self.events.push(self.now + 1_000 * MS, Event::Stopping { process });
        }
    }

    pub(crate) fn exit(&mut self, process: usize, code: i32, message: String) {
        let now = self.now;
        let stores = self.stores_of(process);
        let Some(p) = self.processes.get_mut(process).filter(|p| p.is_running()) else { return };
        p.phase = Phase::Exited { code, message };
        p.silent_since.get_or_insert(now);
        self.abandon_queues(&stores);
    }

    fn abandon_queues(&mut self, stores: &[StoreId]) {
        for store in stores {
            if let Some(s) = self.store_mut(*store) {
                s.queue = Default::default();
                s.scan = Default::default();
                s.purgatory.clear();
                s.busy = None;
                s.gossip_pending = false;
            }
        }
    }
}

fn listens_at(p: &Process, address: &Address) -> bool {
    p.start.address == *address || p.sql_address == *address || p.start.http_address.as_ref() == Some(address)
}
