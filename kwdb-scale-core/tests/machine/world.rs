//! A small cluster of the mind: nodes with a bit, ranges of replicas, rows as a gateway would answer them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kwdb_scale_core::execute::{Act, ActResult, Look, Looked, Nudge, Nudged, Order};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::health::needed;
use kwdb_scale_core::observation::{Observation, Reply, full_survey, view_survey};
use kwdb_scale_core::plan::{Plan, plan};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::ports::{
    CertificateFacts, DecommissionStatus, Enqueued, Gateway, HostFacts, PortErrorKind, ProcessState,
    Readiness, StoreContent, StoreFacts,
};
use kwdb_scale_core::request::{Inventory, InventoryHost, Operation, Options, Pace, Request};
use kwdb_scale_core::rows::{
    Answer, ClusterRow, LeaseRow, LivenessRow, NodeRow, Query, RangeKind, RangeRow, ReplicaCountRow, Rows,
    SettingRow, StoreRow, ZoneRow,
};
use kwdb_scale_core::topology::{Address, ClusterId, HostName, NodeId, RangeId, StartMode, StoreId};

fn zone(factor: u32) -> String {
    format!(
        "ALTER RANGE default CONFIGURE ZONE USING\n\tnum_replicas = {factor},\n\tconstraints = '[]',\n\t\
         lease_preferences = '[]'"
    )
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) bit: bool,
    pub(crate) up: bool,
    pub(crate) host: HostName,
}

/// How the replicate queues take it when they are asked to look at a range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Queue {
    Absent,
    Works,
    Silent,
    Denies,
    Says(Enqueued),
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) nodes: BTreeMap<u32, Node>,
    pub(crate) ranges: Vec<Vec<u32>>,
    pub(crate) moving: bool,
    /// Of the only zone.
    pub(crate) factor: u32,
    /// Acts that go on although nobody waits for them, with the time when they are done.
    pub(crate) orphans: Vec<(Timestamp, Order)>,
    pub(crate) silent: BTreeSet<u32>,
    /// Nodes that run and that nobody can reach, so that the others hold their liveness for expired.
    pub(crate) cut: BTreeSet<u32>,
    /// What goes on cannot be looked up.
    pub(crate) blind: bool,
    pub(crate) queue: Queue,
    /// How often nodes still say that they are not ready.
    pub(crate) not_ready: usize,
    /// The replicate queues fill more and more.
    pub(crate) filling: bool,
    /// Ranges that servers were asked to look at.
    pub(crate) asked: Vec<RangeId>,
    /// Replicas that the status through a member counts beyond those of the ranges; `None` when the port has no status.
    pub(crate) status: Option<BTreeMap<u32, u64>>,
    /// Members whose word on emptiness was asked for in one look.
    pub(crate) status_through: BTreeSet<Vec<u32>>,
    /// What looks at certificates tell, one after the other, the last for ever.
    pub(crate) certificates: Vec<CertificateFacts>,
    /// The last of them that was told.
    told: Option<CertificateFacts>,
    settings: BTreeMap<String, String>,
}

pub(crate) fn host(n: u32) -> HostName {
    HostName::new(format!("h{n}"))
}

pub(crate) fn address(host: &HostName) -> Address {
    Address::new(format!("{host}:26257"))
}

impl World {
    pub(crate) fn new(nodes: u32) -> Self {
        let ranges = (0..6_u32).map(|r| (0..3).map(|i| (r + i) % nodes + 1).collect()).collect();
        Self {
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            nodes: (1..=nodes).map(|n| (n, Node { bit: false, up: true, host: host(n) })).collect(),
            ranges,
            moving: true,
            factor: 3,
            orphans: Vec::new(),
            silent: BTreeSet::new(),
            cut: BTreeSet::new(),
            blind: false,
            queue: Queue::Absent,
            not_ready: 0,
            filling: false,
            asked: Vec::new(),
            status: Some(BTreeMap::new()),
            status_through: BTreeSet::new(),
            certificates: Vec::new(),
            told: None,
            settings: kwdb_scale_core::policy::SETTINGS
                .iter()
                .map(|s| ((*s).to_owned(), if s.ends_with("enabled") { "true" } else { "30m" }.to_owned()))
                .collect(),
        }
    }

    /// Whether the other nodes hear of it.
    fn heard(&self, id: u32) -> bool {
        self.nodes[&id].up && !self.cut.contains(&id)
    }

    pub(crate) fn replicas(&self, n: u32) -> u64 {
        self.ranges.iter().filter(|r| r.contains(&n)).count() as u64
    }

    /// One replica leaves a marked node, or is added, when the allocator finds another place.
    pub(crate) fn allocate(&mut self) {
        for range in 0..self.ranges.len() {
            if self.moving && self.work_on(range) {
                return;
            }
        }
    }

    /// Whether the allocator changed something about a range.
    fn work_on(&mut self, range: usize) -> bool {
        let mut targets = self.nodes.iter().filter(|(_, n)| n.up && !n.bit).map(|(id, _)| *id);
        let members = self.nodes.values().filter(|n| !n.bit).count();
        let replicas = &mut self.ranges[range];
        let from = replicas.iter().position(|n| self.nodes[n].bit);
        let Some(to) = targets.find(|t| !replicas.contains(t)) else { return false };
        match from {
            Some(from) => replicas[from] = to,
            None if replicas.len() < needed(self.factor, members) as usize => replicas.push(to),
            None => return false,
        }
        true
    }

    fn nudge(&mut self, nudge: &Nudge) -> Nudged {
        self.asked.push(nudge.range);
        match &self.queue {
            // Went away after it had been there.
            Queue::Absent => return Err((PortErrorKind::Unsupported, "no queue".into())),
            Queue::Silent => return Err((PortErrorKind::Deadline, "no answer".into())),
            Queue::Denies => return Err((PortErrorKind::Denied, "not for you".into())),
            Queue::Says(what) => return Ok(what.clone()),
            Queue::Works => {}
        }
        let range = nudge.range.0 as usize - 1;
        if self.ranges[range][0] != nudge.node.0 {
            return Ok(Enqueued::Stale(format!("{} has no replica for r{}", nudge.node, nudge.range.0)));
        }
        self.work_on(range);
        Ok(Enqueued::Processed)
    }

    fn rows(&self, gateway: u32, query: &Query) -> Rows {
        let soon = self.now.checked_add(SignedDuration::from_secs(9)).unwrap();
        let past = self.now.checked_sub(SignedDuration::from_secs(30)).unwrap();
        let started = self.now.checked_sub(SignedDuration::from_secs(10)).unwrap();
        let ids = || self.nodes.iter().map(|(id, n)| (NodeId(*id), n));
        let range = |(i, r): (usize, &Vec<u32>)| RangeRow {
            range_id: RangeId(i as u64 + 1),
            kind: RangeKind::Relational,
            start_key: format!("/Table/53/1/{i}"),
            table_id: Some(53),
            database: Some("app".into()),
            table: Some("kv".into()),
            index: None,
            replicas: r.iter().map(|n| StoreId(n + 100)).collect(),
            learners: Vec::new(),
        };
        match query {
            Query::Cluster => Rows::Cluster(ClusterRow {
                cluster_id: ClusterId::new("c"),
                gateway_node: NodeId(gateway),
                build: Some("V3.2.1".into()),
                is_admin: Some(true),
            }),
            Query::Liveness => Rows::Liveness(
                ids()
                    .map(|(node_id, n)| LivenessRow {
                        node_id,
                        epoch: Some(1),
                        expiration: Some(if self.heard(node_id.0) { soon } else { past }),
                        draining: Some(false),
                        decommissioning: Some(n.bit),
                        upgrading: Some(false),
                        updated_at: Some(self.now),
                    })
                    .collect(),
            ),
            Query::Nodes => Rows::Nodes(
                ids()
                    .map(|(node_id, n)| NodeRow {
                        node_id,
                        address: Some(address(&n.host)),
                        sql_address: Some(address(&n.host)),
                        locality: Some(format!("region=NODE{}", node_id.0).into()),
                        start_mode: Some(StartMode::MultiReplica),
                        build: Some("V3.2.1".into()),
                        started_at: Some(Timestamp::from_second(1_700_000_000).unwrap()),
                        is_live: Some(self.heard(node_id.0)),
                        ranges: None,
                        leases: None,
                    })
                    .collect(),
            ),
            Query::Stores => Rows::Stores(
                ids()
                    .map(|(node_id, _)| StoreRow {
                        node_id,
                        store_id: StoreId(node_id.0 + 100),
                        capacity: Some(1000),
                        available: Some(900),
                        used: Some(10),
                        range_count: Some(self.replicas(node_id.0)),
                        lease_count: Some(1),
                        ranges_unavailable: Some(0),
                        ranges_underreplicated: Some(0),
                        replicate_purgatory: Some(0),
                        replicate_pending: Some(if self.filling { 50 * self.asked.len() as u64 } else { 0 }),
                        updated_at: Some(if self.heard(node_id.0) { started } else { past }),
                        started_at: Some(Timestamp::from_second(1_700_000_000).unwrap()),
                        node_address: None,
                    })
                    .collect(),
            ),
            Query::Ranges => Rows::Ranges(self.ranges.iter().enumerate().map(range).collect()),
            Query::RangesOn { stores, .. } => Rows::Ranges(
                self.ranges
                    .iter()
                    .enumerate()
                    .map(range)
                    .filter(|r| r.replicas.iter().any(|s| stores.contains(s)))
                    .collect(),
            ),
            Query::LeasesOn { stores, .. } => Rows::Leases(
                self.ranges
                    .iter()
                    .zip(1..)
                    .filter(|(r, _)| r.iter().any(|n| stores.contains(&StoreId(n + 100))))
                    .map(|(r, id)| LeaseRow { range_id: RangeId(id), lease_store: Some(StoreId(r[0] + 100)) })
                    .collect(),
            ),
            Query::LeasesOf(ranges) => Rows::Leases(
                self.ranges
                    .iter()
                    .zip(1..)
                    .filter(|(_, id)| ranges.contains(&RangeId(*id)))
                    .map(|(r, id)| LeaseRow { range_id: RangeId(id), lease_store: Some(StoreId(r[0] + 100)) })
                    .collect(),
            ),
            Query::ReplicaCounts(stores) => Rows::ReplicaCounts(
                stores
                    .iter()
                    .map(|s| ReplicaCountRow { store_id: *s, replicas: self.replicas(s.0 - 100) })
                    .collect(),
            ),
            Query::Zones => Rows::Zones(vec![ZoneRow {
                target: Some("RANGE default".into()),
                range_name: Some("default".into()),
                raw_config_sql: Some(zone(self.factor)),
                full_config_sql: Some(zone(self.factor)),
                ..ZoneRow::default()
            }]),
            Query::Settings(names) => Rows::Settings(
                names
                    .iter()
                    .filter_map(|n| {
                        self.settings.get(n).map(|v| SettingRow { name: n.clone(), value: v.clone() })
                    })
                    .collect(),
            ),
            _ => Rows::Jobs(Vec::new()),
        }
    }

    fn reply(&self, gateway: &Address, query: &Query) -> Reply {
        let node = self.nodes.iter().find(|(_, n)| address(&n.host) == *gateway && n.up).map(|(id, _)| *id);
        let result = match node {
            Some(id) if !self.silent.contains(&id) => {
                Ok(Answer { gateway: gateway.clone(), server_time: self.now, rows: self.rows(id, query) })
            }
            _ => Err(format!("{gateway}: refused")),
        };
        Reply { gateway: gateway.clone(), query: query.clone(), result }
    }

    fn host_facts(&self, host: &HostName) -> HostFacts {
        let node = self.nodes.values().find(|n| n.host == *host);
        let content = if node.is_some() {
            StoreContent::InUse(vec!["kwbase.start_mode".into()])
        } else {
            StoreContent::Absent
        };
        HostFacts {
            host: host.clone(),
            build: Fact::Known("V3.2.1".into()),
            stores: vec![StoreFacts::new("/data", Fact::Known(content))],
            listening: Fact::Known(if node.is_some_and(|n| n.up) { vec![address(host)] } else { Vec::new() }),
            can_authenticate: Fact::Known(true),
            secure: false,
            by_service: false,
            archive_only: false,
            script: None,
            machine: None,
        }
    }

    fn said(&self, via: &Gateway, nodes: &[NodeId]) -> Result<Option<Vec<DecommissionStatus>>, String> {
        if !self.nodes[&via.node.0].up || self.silent.contains(&via.node.0) {
            return Err(format!("{via}: refused"));
        }
        let Some(more) = &self.status else { return Ok(None) };
        let more = more.get(&via.node.0).copied().unwrap_or(0);
        let of = |id: &NodeId| DecommissionStatus {
            node: *id,
            is_live: self.heard(id.0),
            replicas: self.replicas(id.0) + more,
            decommissioning: self.nodes[&id.0].bit,
            draining: false,
        };
        Ok(Some(nodes.iter().map(of).collect()))
    }

    fn readiness(&mut self) -> Readiness {
        match self.not_ready.checked_sub(1) {
            Some(left) => {
                self.not_ready = left;
                Readiness::NotReady("node is not live".into())
            }
            None => Readiness::Ready,
        }
    }

    fn certificates(&mut self) -> Fact<CertificateFacts> {
        self.told = match self.certificates.len() {
            0 | 1 => self.certificates.first().cloned(),
            _ => Some(self.certificates.remove(0)),
        };
        Fact::from_option(self.told.clone(), "nobody looks")
    }

    pub(crate) fn answer(&mut self, look: &Look) -> Looked {
        if !look.statuses.is_empty() {
            self.status_through.insert(look.statuses.iter().map(|(via, _)| via.node.0).collect());
        }
        let said = |(via, nodes): &(Gateway, Vec<NodeId>)| (via.sql_address.clone(), self.said(via, nodes));
        let statuses = look.statuses.iter().map(said).collect();
        Looked {
            statuses,
            nudged: look.nudges.iter().map(|n| (n.range, self.nudge(n))).collect(),
            can_nudge: self.queue != Queue::Absent,
            quickest: Some(SignedDuration::from_millis(1)),
            replies: look.asks.iter().map(|(g, q)| self.reply(g, q)).collect(),
            scan_took: SignedDuration::from_millis(10),
            ready: look.ready.iter().map(|a| (a.clone(), Fact::Known(Some(self.readiness())))).collect(),
            hosts: look.hosts.iter().map(|h| (h.clone(), Fact::Known(self.host_facts(h)))).collect(),
            processes: look
                .processes
                .iter()
                .map(|p| {
                    let state = match self.nodes.get(&p.node.0) {
                        _ if self.cut.contains(&p.node.0) => ProcessState::Unknown,
                        Some(node) if node.up => ProcessState::Running,
                        _ => ProcessState::Stopped,
                    };
                    (p.node, state)
                })
                .collect(),
            begun: look
                .begun
                .iter()
                .map(|(act, _)| {
                    let goes_on = self.orphans.iter().any(|(_, order)| order.act == *act);
                    let fact = match self.blind {
                        true => Fact::unknown("the host does not answer"),
                        false => Fact::Known(goes_on.then(|| "the mark".to_owned())),
                    };
                    (act.clone(), fact)
                })
                .collect(),
            certificates: look
                .certificates
                .iter()
                .map(|job| (job.host.clone(), self.certificates()))
                .collect(),
            ..Looked::default()
        }
    }

    /// The act is done so many seconds from now, and goes on until then.
    pub(crate) fn later(&mut self, seconds: u8, order: Order) {
        let at = self.now.checked_add(SignedDuration::from_secs(seconds.into())).unwrap();
        self.orphans.push((at, order));
    }

    /// Does what is due by now.
    pub(crate) fn catch_up(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.orphans.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, order) in due {
            self.act(&order);
        }
    }

    pub(crate) fn act(&mut self, order: &Order) -> ActResult {
        let counts = |w: &Self, nodes: &[NodeId]| {
            ActResult::Counted(nodes.iter().map(|n| (*n, w.replicas(n.0))).collect())
        };
        match &order.act {
            Act::SetSetting { name, value, .. } | Act::RestoreSetting { name, value } => {
                self.settings.insert(name.clone(), value.clone());
                ActResult::Done(String::new())
            }
            Act::Start { host, .. } => {
                let id = self.nodes.keys().max().unwrap() + 1;
                self.nodes.insert(id, Node { bit: false, up: true, host: host.clone() });
                ActResult::Done(String::new())
            }
            Act::Mark { nodes } | Act::Confirm { nodes } => {
                for n in nodes {
                    self.nodes.get_mut(&n.0).unwrap().bit = true;
                }
                counts(self, nodes)
            }
            Act::Recommission { nodes } => {
                for n in nodes {
                    self.nodes.get_mut(&n.0).unwrap().bit = false;
                }
                ActResult::Done(String::new())
            }
            Act::RestoreCertificates { .. } => {
                let under = self.told.as_ref().and_then(|told| told.joining.as_ref()?.known());
                assert_eq!(under, None, "something was taken back under it");
                ActResult::Done(String::new())
            }
            Act::Stop { node } if self.cut.contains(&node.0) => {
                ActResult::Failed { kind: PortErrorKind::Unreachable, message: "no answer in time".into() }
            }
            Act::Stop { node } => {
                self.nodes.get_mut(&node.0).unwrap().up = false;
                ActResult::Done(String::new())
            }
            _ => ActResult::Done(String::new()),
        }
    }
}

fn request(operation: Operation) -> Request {
    let hosts = (1..=9)
        .map(|n| {
            (host(n), InventoryHost { address: address(&host(n)), sql_address: None, brpc_address: None })
        })
        .collect();
    Request { operation, inventory: Inventory { hosts, ..Inventory::default() }, options: Options::default() }
}

pub(crate) fn make_plan(world: &World, operation: Operation) -> Plan {
    make_plan_at(Pace::Tail, world, operation)
}

pub(crate) fn make_plan_at(pace: Pace, world: &World, operation: Operation) -> Plan {
    make_plan_with(Options { pace, ..Options::default() }, world, operation)
}

pub(crate) fn make_plan_with(options: Options, world: &World, operation: Operation) -> Plan {
    let mut policy = Policy { samples: 2, ..Policy::default() };
    policy.stall_after = SignedDuration::from_secs(60);
    policy.settled_after = SignedDuration::from_secs(30);
    let gateway = address(&host(1));
    let mut replies: Vec<Reply> = full_survey().iter().map(|q| world.reply(&gateway, q)).collect();
    for n in [2, 3] {
        replies.extend(view_survey().iter().map(|q| world.reply(&address(&host(n)), q)));
    }
    let hosts = (1..=9).map(|n| (host(n), Fact::Known(world.host_facts(&host(n))))).collect();
    let observation = Observation::build(&gateway, &replies, hosts);
    let mut request = request(operation);
    request.options = options;
    plan(&observation, &request, &policy).unwrap_or_else(|refusal| {
        panic!("{}", refusal.reasons().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}
