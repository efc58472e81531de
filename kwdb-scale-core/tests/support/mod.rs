//! Synthetic clusters: rows that a healthy cluster would answer, for tests to change before they become an
//! observation. Store ids differ from node ids.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kwdb_scale_core::assess::{Assessment, Severity, assess};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::health::needed;
use kwdb_scale_core::observation::{Observation, Reply};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::ports::{HostFacts, Means, StoreContent, StoreFacts};
use kwdb_scale_core::request::{Inventory, InventoryHost, NodeRef, Operation, Options, Request};
use kwdb_scale_core::rows::{
    Answer, ClusterRow, JobRow, LivenessRow, NodeRow, Query, RangeKind, RangeRow, Rows, SettingRow, StoreRow,
    ZoneRow,
};
use kwdb_scale_core::topology::{Address, ClusterId, HostName, NodeId, RangeId, StartMode, StoreId};

/// Hosts of the inventory, whatever the number of nodes.
pub const HOSTS: u32 = 12;
const GIB: u64 = 1 << 30;

/// A cluster as rows.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub now: Timestamp,
    pub gateway: u32,
    pub views: Vec<u32>,
    pub cluster_id: ClusterId,
    pub is_admin: Option<bool>,
    pub liveness: Vec<LivenessRow>,
    pub nodes: Vec<NodeRow>,
    pub stores: Vec<StoreRow>,
    pub ranges: Vec<RangeRow>,
    pub zones: Vec<ZoneRow>,
    pub jobs: Vec<JobRow>,
    pub settings: Vec<SettingRow>,
    /// Questions that fail, with their error.
    pub failing: Vec<(&'static str, &'static str)>,
    pub hosts: BTreeMap<HostName, Fact<HostFacts>>,
    pub inventory: Inventory,
    /// What a view answers instead of the truth.
    pub view_liveness: BTreeMap<u32, Vec<LivenessRow>>,
    pub view_cluster: BTreeMap<u32, ClusterId>,
    pub view_offset: BTreeMap<u32, SignedDuration>,
    /// With what nodes are marked, when somebody says.
    pub means: Option<Means>,
    pub owned: BTreeSet<HostName>,
}

pub fn address(node: u32) -> Address {
    Address::new(format!("10.0.0.{node}:26257"))
}

pub fn host(node: u32) -> HostName {
    HostName::new(format!("h{node}"))
}

pub fn stores_of(node: u32, per_node: u32) -> Vec<StoreId> {
    (0..per_node).map(|i| StoreId(100 + node * 10 + i)).collect()
}

pub fn zone(id: u64, target: &str, range: Option<&str>, database: Option<&str>, factor: u32) -> ZoneRow {
    let sql = format!(
        "ALTER {target} CONFIGURE ZONE USING\n\trange_min_bytes = 134217728,\n\tgc.ttlseconds = 90000,\n\tnum_replicas = {factor},\n\tconstraints = '[]',\n\tlease_preferences = '[]'"
    );
    ZoneRow {
        zone_id: id,
        target: Some(target.to_owned()),
        range_name: range.map(str::to_owned),
        database: database.map(str::to_owned),
        raw_config_sql: Some(sql.clone()),
        full_config_sql: Some(sql),
        ..ZoneRow::default()
    }
}

/// `PARTITION name OF INDEX app.public.pt@primary` of table 79.
pub fn partition(subzone: u64, name: &str, factor: u32, fields: &str) -> ZoneRow {
    let target = format!("PARTITION {name} OF INDEX app.public.pt@primary");
    ZoneRow {
        zone_id: 79,
        subzone_id: subzone,
        database: Some("app".into()),
        table: Some("pt".into()),
        index: Some("primary".into()),
        partition: Some(name.to_owned()),
        raw_config_sql: Some(format!("ALTER {target} CONFIGURE ZONE USING\n\t{fields}")),
        full_config_sql: Some(format!(
            "ALTER {target} CONFIGURE ZONE USING\n\tnum_replicas = {factor},\n\t{fields}"
        )),
        target: Some(target),
        ..ZoneRow::default()
    }
}

/// Start key, database, table and factor of the ranges of a synthetic cluster.
const KEYS: [(&str, &str, &str, u32); 9] = [
    ("/Min", "", "", 5),
    ("/System/NodeLiveness", "", "", 5),
    ("/System/NodeLivenessMax", "", "", 5),
    ("/System/tsd", "", "", 3),
    ("/Table/SystemConfigSpan/Start", "", "", 5),
    ("/Table/15", "system", "jobs", 5),
    ("/Table/78", "app", "kv", 3),
    ("/Table/78/1/1000", "app", "kv", 3),
    ("/Table/79", "app", "pt", 3),
];

impl Cluster {
    /// A healthy multi-replica cluster of nodes 1 to `n` with one store each.
    pub fn new(n: u32) -> Self {
        Self::with_stores(n, 1)
    }

    pub fn with_stores(n: u32, per_node: u32) -> Self {
        let now: Timestamp = "2026-11-23T13:00:00Z".parse().unwrap();
        let mut cluster = Self {
            now,
            gateway: 1,
            views: (2..=n.min(3)).collect(),
            cluster_id: ClusterId::new("4bf36bef-896c-419d-8f82-3b569ba84a9f"),
            is_admin: Some(true),
            liveness: Vec::new(),
            nodes: Vec::new(),
            stores: Vec::new(),
            ranges: Vec::new(),
            zones: vec![
                zone(0, "RANGE default", Some("default"), None, 3),
                zone(1, "DATABASE system", None, Some("system"), 5),
                zone(16, "RANGE meta", Some("meta"), None, 5),
                zone(17, "RANGE system", Some("system"), None, 5),
                zone(22, "RANGE liveness", Some("liveness"), None, 5),
            ],
            jobs: vec![job("TS TXN", "running"), job("CREATE STATS", "running")],
            settings: vec![
                setting("kv.allocator.ts_consider_rebalance.enabled", "true"),
                setting("kv.allocator.ts_store_dead_rebalance.enabled", "true"),
                setting("server.time_until_store_dead", "30m0s"),
            ],
            failing: Vec::new(),
            hosts: BTreeMap::new(),
            inventory: Inventory::default(),
            means: None,
            owned: BTreeSet::new(),
            view_liveness: BTreeMap::new(),
            view_cluster: BTreeMap::new(),
            view_offset: BTreeMap::new(),
        };
        for node in 1..=n {
            cluster.add_node(node, per_node);
        }
        for node in 1..=HOSTS {
            cluster.inventory.hosts.insert(
                host(node),
                InventoryHost { address: address(node), sql_address: None, brpc_address: None },
            );
            cluster.hosts.insert(host(node), Fact::Known(host_facts(node, node <= n)));
        }
        cluster.spread();
        cluster
    }

    /// Rows of a live node.
    pub fn add_node(&mut self, node: u32, per_node: u32) {
        self.liveness.push(LivenessRow {
            node_id: NodeId(node),
            epoch: Some(1),
            expiration: Some(self.now + SignedDuration::from_secs(12)),
            draining: Some(false),
            decommissioning: Some(false),
            upgrading: Some(false),
            updated_at: Some(self.now),
        });
        self.nodes.push(NodeRow {
            node_id: NodeId(node),
            address: Some(address(node)),
            sql_address: Some(address(node)),
            locality: Some(format!("region=NODE{node}").as_str().into()),
            start_mode: Some(StartMode::MultiReplica),
            build: Some("V3.2.1".into()),
            started_at: Some(self.now - SignedDuration::from_hours(1)),
            is_live: Some(true),
            ranges: Some(3),
            leases: Some(1),
        });
        for store in stores_of(node, per_node) {
            self.stores.push(StoreRow {
                node_id: NodeId(node),
                store_id: store,
                capacity: Some(100 * GIB),
                available: Some(80 * GIB),
                used: Some(10 * GIB),
                range_count: Some(3),
                lease_count: Some(1),
                ranges_unavailable: Some(0),
                ranges_underreplicated: Some(0),
                replicate_purgatory: Some(0),
                replicate_pending: Some(0),
                updated_at: Some(self.now - SignedDuration::from_secs(4)),
                started_at: Some(self.now - SignedDuration::from_hours(1)),
                node_address: Some(address(node)),
            });
        }
    }

    /// Gives every range the replicas that it needs on the nodes that are there.
    pub fn spread(&mut self) {
        self.spread_with(3);
    }

    /// The same where `RANGE default` says `default_factor`.
    pub fn spread_with(&mut self, default_factor: u32) {
        self.zones[0] = zone(0, "RANGE default", Some("default"), None, default_factor);
        let nodes: Vec<u32> = self.liveness.iter().map(|l| l.node_id.0).collect();
        let single = self.nodes.iter().any(|n| n.start_mode == Some(StartMode::SingleReplica));
        self.ranges = KEYS
            .iter()
            .enumerate()
            .map(|(i, (key, database, table, factor))| {
                let factor = if *factor == 3 { default_factor } else { *factor };
                let wanted = if single { 1 } else { needed(factor, nodes.len()) as usize };
                let replicas = (0..wanted.min(nodes.len()))
                    .map(|k| {
                        let node = nodes[(i + k) % nodes.len()];
                        let own: Vec<_> =
                            self.stores.iter().filter(|s| s.node_id.0 == node).map(|s| s.store_id).collect();
                        own[i % own.len()]
                    })
                    .collect();
                RangeRow {
                    range_id: RangeId(i as u64 + 1),
                    kind: RangeKind::Relational,
                    start_key: (*key).to_owned(),
                    table_id: None,
                    database: Some((*database).to_owned()).filter(|d| !d.is_empty()),
                    table: Some((*table).to_owned()).filter(|t| !t.is_empty()),
                    index: None,
                    replicas,
                    learners: Vec::new(),
                }
            })
            .collect();
    }

    /// The same, on nodes whose status row is there only.
    pub fn spread_known(&mut self) {
        let all = self.liveness.clone();
        self.liveness.retain(|l| self.stores.iter().any(|s| s.node_id == l.node_id));
        self.spread();
        self.liveness = all;
    }

    pub fn live_row(&mut self, node: u32) -> &mut LivenessRow {
        self.liveness.iter_mut().find(|l| l.node_id.0 == node).unwrap()
    }

    pub fn node_row(&mut self, node: u32) -> &mut NodeRow {
        self.nodes.iter_mut().find(|n| n.node_id.0 == node).unwrap()
    }

    pub fn store_row(&mut self, node: u32) -> &mut StoreRow {
        self.stores.iter_mut().find(|s| s.node_id.0 == node).unwrap()
    }

    /// The node's record expires and gossip hears it no more.
    pub fn kill(&mut self, node: u32) {
        let past = self.now - SignedDuration::from_secs(60);
        self.live_row(node).expiration = Some(past);
        self.node_row(node).is_live = Some(false);
        for store in self.stores.iter_mut().filter(|s| s.node_id.0 == node) {
            store.updated_at = Some(past);
        }
    }

    /// The node is marked; its replicas stay where they are.
    pub fn mark(&mut self, node: u32) {
        self.live_row(node).decommissioning = Some(true);
    }

    /// The node was decommissioned and stopped: no range names its stores.
    pub fn remove(&mut self, node: u32) {
        self.mark(node);
        self.empty(node);
        self.kill(node);
    }

    /// Moves what the node holds to other nodes.
    pub fn empty(&mut self, node: u32) {
        let own: BTreeSet<StoreId> =
            self.stores.iter().filter(|s| s.node_id.0 == node).map(|s| s.store_id).collect();
        let marked: BTreeSet<NodeId> =
            self.liveness.iter().filter(|l| l.decommissioning == Some(true)).map(|l| l.node_id).collect();
        let others: Vec<StoreId> = self
            .stores
            .iter()
            .filter(|s| s.node_id.0 != node && !marked.contains(&s.node_id))
            .map(|s| s.store_id)
            .collect();
        let owner: BTreeMap<StoreId, NodeId> = self.stores.iter().map(|s| (s.store_id, s.node_id)).collect();
        for range in &mut self.ranges {
            let here: BTreeSet<NodeId> = range.replicas.iter().map(|s| owner[s]).collect();
            range.replicas = range
                .replicas
                .iter()
                .filter_map(|s| {
                    if own.contains(s) {
                        others.iter().copied().find(|o| !here.contains(&owner[o]))
                    } else {
                        Some(*s)
                    }
                })
                .collect();
        }
    }

    pub fn all_nodes(&mut self, change: impl Fn(&mut NodeRow)) {
        self.nodes.iter_mut().for_each(change);
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|s| s.name != name);
        self.settings.push(setting(name, value));
    }

    pub fn host_mut(&mut self, node: u32) -> &mut HostFacts {
        match self.hosts.get_mut(&host(node)) {
            Some(Fact::Known(facts)) => facts,
            other => panic!("host {node} is {other:?}"),
        }
    }

    fn reply(&self, node: u32, query: Query, rows: Rows) -> Reply {
        let name = format!("{query:?}");
        let offset = self.view_offset.get(&node).copied().unwrap_or(SignedDuration::ZERO);
        let failure = self
            .failing
            .iter()
            .find(|(what, _)| name.starts_with(what) || *what == format!("{node}:{name}").as_str());
        let result = match failure {
            Some((_, why)) => Err((*why).to_owned()),
            None => Ok(Answer { gateway: address(node), server_time: self.now + offset, rows }),
        };
        Reply { gateway: address(node), query, result }
    }

    pub fn replies(&self) -> Vec<Reply> {
        let own = |node: u32| ClusterRow {
            cluster_id: self.view_cluster.get(&node).unwrap_or(&self.cluster_id).clone(),
            gateway_node: NodeId(node),
            build: Some("V3.2.1".into()),
            is_admin: self.is_admin,
        };
        let g = self.gateway;
        let mut replies = vec![
            self.reply(g, Query::Cluster, Rows::Cluster(own(g))),
            self.reply(g, Query::Liveness, Rows::Liveness(self.liveness.clone())),
            self.reply(g, Query::Nodes, Rows::Nodes(self.nodes.clone())),
            self.reply(g, Query::Stores, Rows::Stores(self.stores.clone())),
            self.reply(g, Query::Ranges, Rows::Ranges(self.ranges.clone())),
            self.reply(g, Query::Zones, Rows::Zones(self.zones.clone())),
            self.reply(g, Query::Jobs, Rows::Jobs(self.jobs.clone())),
            self.reply(g, Query::Settings(Vec::new()), Rows::Settings(self.settings.clone())),
        ];
        for view in &self.views {
            let rows = self.view_liveness.get(view).unwrap_or(&self.liveness).clone();
            replies.push(self.reply(*view, Query::Cluster, Rows::Cluster(own(*view))));
            replies.push(self.reply(*view, Query::Liveness, Rows::Liveness(rows)));
        }
        replies.push(self.reply(g, Query::Cluster, Rows::Cluster(own(g))));
        replies
    }

    pub fn observe(&self) -> Observation {
        let observation = Observation::build(&address(self.gateway), &self.replies(), self.hosts.clone());
        Observation { means: self.means.clone(), owned: self.owned.clone(), ..observation }
    }

    pub fn request(&self, operation: Operation) -> Request {
        Request { operation, inventory: self.inventory.clone(), options: Options::default() }
    }

    pub fn assess(&self, operation: Operation) -> Assessment {
        assess(&self.observe(), &self.request(operation), &Policy::default())
    }
}

pub fn host_facts(node: u32, member: bool) -> HostFacts {
    let content =
        if member { StoreContent::InUse(vec!["kwbase.start_mode".into()]) } else { StoreContent::Absent };
    HostFacts {
        host: host(node),
        build: Fact::Known("V3.2.1".into()),
        stores: vec![StoreFacts::new(format!("/data/n{node}"), Fact::Known(content))],
        listening: Fact::Known(if member { vec![address(node)] } else { Vec::new() }),
        can_authenticate: Fact::Known(true),
        secure: false,
        by_service: false,
        archive_only: false,
        script: None,
        machine: None,
    }
}

pub fn job(job_type: &str, status: &str) -> JobRow {
    JobRow {
        job_id: 816_001,
        job_type: job_type.to_owned(),
        status: status.to_owned(),
        description: Some("a statement\n  over lines".into()),
    }
}

pub fn setting(name: &str, value: &str) -> SettingRow {
    SettingRow { name: name.to_owned(), value: value.to_owned() }
}

pub fn scale_out(hosts: &[u32]) -> Operation {
    Operation::ScaleOut { hosts: hosts.iter().map(|h| host(*h)).collect() }
}

pub fn scale_in(nodes: &[u32]) -> Operation {
    Operation::ScaleIn { nodes: nodes.iter().map(|n| NodeRef::Id(NodeId(*n))).collect() }
}

pub fn replace(nodes: &[u32], hosts: &[u32]) -> Operation {
    Operation::Replace {
        nodes: nodes.iter().map(|n| NodeRef::Id(NodeId(*n))).collect(),
        hosts: hosts.iter().map(|h| host(*h)).collect(),
    }
}

pub fn reach(members: &[u32]) -> Operation {
    Operation::Reach { members: members.iter().map(|h| host(*h)).collect() }
}

/// Names of the checks with a finding of `severity`, each once.
pub fn checks(assessment: &Assessment, severity: Severity) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for finding in assessment.findings.iter().filter(|f| f.severity == severity) {
        if !names.contains(&finding.check) {
            names.push(finding.check.clone());
        }
    }
    names
}
