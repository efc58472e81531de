//! Clusters as rows, and valid plans for them, written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use jiff::Timestamp;
use kwdb_scale_core::assess::{Change, OperationKind};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::observation::{Observation, Reply};
use kwdb_scale_core::plan::{
    Fingerprint, Leaving, NodePrint, OldDirectory, OldEntry, Plan, Step, ZonePrint, check,
};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::ports::{AuthorityFacts, Gateway, HostFacts, StoreContent, StoreFacts};
use kwdb_scale_core::request::{
    Certificates, Finish, Inventory, InventoryHost, NodeRef, OldData, Operation, Options, Redistribution,
    Request,
};
use kwdb_scale_core::rows::{
    Answer, ClusterRow, JobRow, LivenessRow, NodeRow, Query, RangeKind, RangeRow, Rows, SettingRow, StoreRow,
    ZoneRow,
};
use kwdb_scale_core::topology::{
    Address, ClusterId, HostName, Locality, NodeClass, NodeId, RangeId, StartMode, StoreId,
};

pub(crate) const CLUSTER: &str = "6a1f5a3c-3f0e-4d4e-9d5c-0d6b7f1a2b3c";
pub(crate) const SETTING: &str = "kv.allocator.ts_consider_rebalance.enabled";

pub(crate) fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() - seconds).unwrap()
}

pub(crate) fn address(n: u32) -> Address {
    Address::new(format!("127.0.0.1:{}", 26000 + n))
}

pub(crate) fn host(n: u32) -> HostName {
    HostName::new(format!("h{n}"))
}

/// Ids of stores differ from ids of nodes.
pub(crate) fn store(n: u32) -> StoreId {
    StoreId(10 + n)
}

pub(crate) fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

pub(crate) fn liveness_row(n: u32) -> LivenessRow {
    LivenessRow {
        node_id: NodeId(n),
        epoch: Some(1),
        expiration: Some(ago(-9)),
        draining: Some(false),
        decommissioning: Some(false),
        upgrading: Some(false),
        updated_at: Some(ago(2)),
    }
}

pub(crate) fn node_row(n: u32, mode: &StartMode) -> NodeRow {
    NodeRow {
        node_id: NodeId(n),
        address: Some(address(n)),
        sql_address: Some(address(n)),
        locality: Some(Locality::from(format!("region=NODE{n}"))),
        start_mode: Some(mode.clone()),
        build: Some("V3.2.1".into()),
        started_at: Some(ago(3600 + i64::from(n))),
        is_live: Some(true),
        ranges: Some(3),
        leases: Some(1),
    }
}

pub(crate) fn store_row(n: u32, id: StoreId) -> StoreRow {
    StoreRow {
        node_id: NodeId(n),
        store_id: id,
        capacity: Some(100 << 30),
        available: Some(90 << 30),
        used: Some(1 << 30),
        range_count: Some(3),
        lease_count: Some(1),
        ranges_unavailable: Some(0),
        ranges_underreplicated: Some(0),
        replicate_purgatory: Some(0),
        replicate_pending: Some(0),
        updated_at: Some(ago(3)),
        started_at: Some(ago(3600 + i64::from(n))),
        node_address: None,
    }
}

pub(crate) fn range_row(id: u64, start_key: &str, stores: &[u32]) -> RangeRow {
    RangeRow {
        range_id: RangeId(id),
        kind: RangeKind::Relational,
        start_key: start_key.into(),
        table_id: None,
        database: None,
        table: None,
        index: None,
        replicas: stores.iter().map(|n| store(*n)).collect(),
        learners: Vec::new(),
    }
}

pub(crate) fn zone_row(id: u64, range: &str, factor: u32) -> ZoneRow {
    let sql = format!(
        "ALTER RANGE {range} CONFIGURE ZONE USING\n\trange_min_bytes = 134217728,\n\trange_max_bytes = 536870912,\n\t\
         gc.ttlseconds = 90000,\n\tnum_replicas = {factor},\n\tconstraints = '[]',\n\tlease_preferences = '[]'"
    );
    ZoneRow {
        zone_id: id,
        target: Some(format!("RANGE {range}")),
        range_name: Some(range.into()),
        raw_config_sql: Some(sql.clone()),
        full_config_sql: Some(sql),
        ..ZoneRow::default()
    }
}

/// A partition with constraints of its own.
pub(crate) fn partition_row(constraints: &str) -> ZoneRow {
    let target = "PARTITION a OF INDEX app.public.pt@primary";
    ZoneRow {
        zone_id: 60,
        subzone_id: 2,
        target: Some(target.into()),
        database: Some("app".into()),
        table: Some("pt".into()),
        index: Some("primary".into()),
        partition: Some("a".into()),
        raw_config_sql: Some(format!("ALTER {target} CONFIGURE ZONE USING\n\tconstraints = {constraints}")),
        full_config_sql: Some(format!(
            "ALTER {target} CONFIGURE ZONE USING\n\tnum_replicas = 3,\n\tconstraints = {constraints}"
        )),
        ..ZoneRow::default()
    }
}

/// The rows of a cluster, as its gateways would deliver them.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) liveness: Vec<LivenessRow>,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) stores: Vec<StoreRow>,
    pub(crate) ranges: Vec<RangeRow>,
    pub(crate) zones: Vec<ZoneRow>,
    pub(crate) settings: Vec<SettingRow>,
    pub(crate) jobs: Vec<JobRow>,
    pub(crate) is_admin: Option<bool>,
    pub(crate) views: Vec<u32>,
}

impl Cluster {
    /// `members` live ones, and a Removed one with id 9 at the address of node 1's former life.
    pub(crate) fn new(members: u32, mode: &StartMode) -> Self {
        let ids = 1..=members;
        let mut removed = liveness_row(9);
        removed.decommissioning = Some(true);
        removed.expiration = Some(ago(3600));
        let mut removed_node = node_row(9, mode);
        removed_node.address = Some(address(1));
        removed_node.is_live = Some(false);
        let copies: Vec<Vec<u32>> = if *mode == StartMode::MultiReplica {
            vec![ids.clone().take(5).collect(), vec![1, 2, 3], vec![1, 2, 3]]
        } else {
            vec![vec![1], vec![1], vec![members]]
        };
        Self {
            liveness: ids.clone().map(liveness_row).chain([removed]).collect(),
            nodes: ids.clone().map(|n| node_row(n, mode)).chain([removed_node]).collect(),
            stores: ids.map(|n| store_row(n, store(n))).chain([store_row(9, store(9))]).collect(),
            ranges: vec![
                range_row(1, "/Min", &copies[0]),
                range_row(2, "/System/tse", &copies[1]),
                range_row(3, "/Table/53", &copies[2]),
            ],
            zones: vec![zone_row(0, "default", 3), zone_row(16, "meta", 5)],
            settings: vec![SettingRow { name: SETTING.into(), value: "true".into() }],
            jobs: Vec::new(),
            is_admin: Some(true),
            views: vec![2, 3],
        }
    }

    /// What is observed of it through node 1.
    pub(crate) fn observe(&self, hosts: BTreeMap<HostName, Fact<HostFacts>>) -> Observation {
        let ask = |gateway: u32, query: Query, rows: Rows| {
            let gateway = address(gateway);
            let answer = Answer { gateway: gateway.clone(), server_time: now(), rows };
            Reply { gateway, query, result: Ok(answer) }
        };
        let cluster = |gateway: u32| {
            Rows::Cluster(ClusterRow {
                cluster_id: ClusterId::new(CLUSTER),
                gateway_node: NodeId(gateway),
                build: Some("V3.2.1".into()),
                is_admin: self.is_admin,
            })
        };
        let mut replies = vec![
            ask(1, Query::Cluster, cluster(1)),
            ask(1, Query::Liveness, Rows::Liveness(self.liveness.clone())),
            ask(1, Query::Nodes, Rows::Nodes(self.nodes.clone())),
            ask(1, Query::Stores, Rows::Stores(self.stores.clone())),
            ask(1, Query::Ranges, Rows::Ranges(self.ranges.clone())),
            ask(1, Query::Zones, Rows::Zones(self.zones.clone())),
            ask(1, Query::Jobs, Rows::Jobs(self.jobs.clone())),
        ];
        for gateway in &self.views {
            replies.push(ask(*gateway, Query::Cluster, cluster(*gateway)));
            replies.push(ask(*gateway, Query::Liveness, Rows::Liveness(self.liveness.clone())));
        }
        let names = self.settings.iter().map(|s| s.name.clone()).collect();
        replies.push(ask(1, Query::Settings(names), Rows::Settings(self.settings.clone())));
        Observation::build(&address(1), &replies, hosts)
    }
}

pub(crate) fn inventory(hosts: impl IntoIterator<Item = u32>) -> Inventory {
    let hosts = hosts.into_iter();
    Inventory {
        control: Some(host(1)),
        authority: None,
        authority_elsewhere: false,
        hosts: hosts
            .map(|n| (host(n), InventoryHost { address: address(n), sql_address: None, brpc_address: None }))
            .collect(),
    }
}

/// What is found on a host where nothing runs yet.
pub(crate) fn free_host(n: u32) -> Fact<HostFacts> {
    Fact::Known(HostFacts {
        host: host(n),
        build: Fact::Known("V3.2.1".into()),
        stores: vec![StoreFacts::new("/data/kwdb", Fact::Known(StoreContent::Empty))],
        listening: Fact::Known(Vec::new()),
        can_authenticate: Fact::Known(true),
        secure: false,
        by_service: false,
        archive_only: false,
        script: None,
        machine: None,
    })
}

pub(crate) fn gateway(n: u32) -> Gateway {
    Gateway { node: NodeId(n), address: address(n), sql_address: address(n), host: Some(host(n)) }
}

pub(crate) fn join(n: u32, mode: &StartMode, others: &[u32]) -> Step {
    Step::Join {
        host: host(n),
        address: address(n),
        mode: mode.clone(),
        join: others.iter().copied().map(address).collect(),
    }
}

/// A plan with what is needed to judge it.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) observation: Observation,
    /// Whether the id is made to fit the content before the plan is judged.
    pub(crate) seal: bool,
}

impl World {
    pub(crate) fn seal(&mut self) {
        self.plan.id = self.plan.content_id().unwrap();
    }

    /// Names of the rules that the plan breaks.
    pub(crate) fn broken(&self) -> BTreeSet<&'static str> {
        check(&self.plan, Some(&self.observation)).iter().map(|v| v.rule).collect()
    }

    /// Everything that the checker says, for messages of tests.
    pub(crate) fn verdict(&self) -> String {
        check(&self.plan, Some(&self.observation)).iter().map(|v| format!("\n  {v}")).collect()
    }
}

fn world(
    members: u32,
    mode: &StartMode,
    operation: Operation,
    options: Options,
    (add, remove): (&[u32], &[u32]),
    steps: Vec<Step>,
) -> World {
    let cluster = Cluster::new(members, mode);
    let observation = cluster.observe(add.iter().map(|n| (host(*n), free_host(*n))).collect());
    let kind = match (add, remove) {
        ([], []) => OperationKind::Nothing,
        (_, []) => OperationKind::Out,
        ([], _) => OperationKind::In,
        _ => OperationKind::Replace,
    };
    let prints = (1..=members).map(|n| {
        let print = NodePrint {
            class: NodeClass::Member,
            stores: BTreeSet::from([store(n)]),
            address: Fact::Known(address(n).to_string()),
            start_mode: Fact::Known(mode.to_string()),
            build: Fact::Known("V3.2.1".into()),
        };
        (NodeId(n), print)
    });
    let zone =
        |factor| ZonePrint { num_replicas: Fact::Known(factor), constraints: Fact::Known(String::new()) };
    let plan = Plan {
        schema: "kwdb-scale.plan/v1".into(),
        id: String::new(),
        cluster_id: ClusterId::new(CLUSTER),
        request: Request { operation, inventory: inventory(1..=8), options },
        change: Change { kind, add: add.iter().copied().map(host).collect(), remove: nodes(remove) },
        policy: Policy::default(),
        findings: Vec::new(),
        fingerprint: Fingerprint {
            cluster_id: Fact::Known(CLUSTER.into()),
            nodes: prints.collect(),
            zones: BTreeMap::from([("RANGE default".into(), zone(3)), ("RANGE meta".into(), zone(5))]),
            settings: BTreeMap::from([(SETTING.into(), Fact::Known("true".into()))]),
            refused: BTreeSet::new(),
        },
        start_mode: mode.clone(),
        known_ids: (1..=members).chain([9]).map(NodeId).collect(),
        members_before: members as usize,
        members_after: members as usize + add.len() - remove.len(),
        gateways: vec![gateway(1), gateway(2), gateway(3)],
        leaving: remove
            .iter()
            .map(|n| Leaving {
                node: NodeId(*n),
                stores: BTreeSet::from([store(*n)]),
                address: address(*n),
                host: Some(host(*n)),
                started_at: ago(3600 + i64::from(*n)),
            })
            .collect(),
        steps,
    };
    let mut world = World { plan, observation, seal: true };
    world.seal();
    world
}

fn verify(members: &[u32], joined: &[u32], left: &[u32], finish: Finish) -> Step {
    Step::Verify {
        members: nodes(members),
        joined: joined.iter().copied().map(host).collect(),
        left: nodes(left),
        finish,
    }
}

/// Hosts h5 and h6 join four members.
pub(crate) fn scale_out() -> World {
    let mode = StartMode::MultiReplica;
    let steps = vec![
        join(5, &mode, &[1, 2, 3]),
        join(6, &mode, &[1, 2, 3]),
        Step::AwaitBalance,
        verify(&[1, 2, 3, 4], &[5, 6], &[], Finish::Stop),
    ];
    let operation = Operation::ScaleOut { hosts: vec![host(5), host(6)] };
    world(4, &mode, operation, Options::default(), (&[5, 6], &[]), steps)
}

/// Host h5, whose node 9 was removed, comes back; what it left is moved aside.
pub(crate) fn come_back() -> World {
    let mode = StartMode::MultiReplica;
    let steps = vec![
        Step::ClearData {
            host: host(5),
            nodes: nodes(&[9]),
            stores: BTreeSet::from([store(9)]),
            directories: vec![OldDirectory {
                path: "/data/kwdb".into(),
                aside: Some("/data/kwdb.node-9".into()),
                entries: vec![OldEntry { name: "CURRENT".into(), foreign: false }],
            }],
        },
        join(5, &mode, &[1, 2, 3]),
        Step::AwaitBalance,
        verify(&[1, 2, 3, 4], &[5], &[], Finish::Stop),
    ];
    let operation = Operation::ScaleOut { hosts: vec![host(5)] };
    let options = Options { old_data: OldData::MoveAside, ..Options::default() };
    let mut world = world(4, &mode, operation, options, (&[5], &[]), steps);
    world.observation.nodes.get_mut(&NodeId(9)).unwrap().address = Fact::Known(address(5));
    if let Some(Fact::Known(facts)) = world.observation.hosts.get_mut(&host(5)) {
        facts.stores[0].content = Fact::Known(StoreContent::InUse(vec!["CURRENT".into()]));
    }
    world
}

/// An authority that h1 and the operator trust.
pub(crate) fn authority() -> AuthorityFacts {
    let fingerprint = "ab".repeat(32);
    let trusted = ["host h1", "the operator"].map(|who| (who.to_owned(), Fact::Known(fingerprint.clone())));
    AuthorityFacts {
        place: "host h1".into(),
        fingerprint,
        not_after: "2099-01-01T00:00:00Z".parse().unwrap(),
        can_sign: Fact::Known(true),
        key: None,
        build: None,
        key_file: None,
        trusted: trusted.into(),
        archive_only: ["h7".into()].into(),
    }
}

/// Host h5 joins four members of a secure cluster, with certificates that are issued for it.
pub(crate) fn certified() -> World {
    let mode = StartMode::MultiReplica;
    let steps = vec![
        Step::Certify { host: host(5), method: Certificates::Issue, authority: authority().fingerprint },
        join(5, &mode, &[1, 2, 3]),
        verify(&[1, 2, 3, 4], &[5], &[], Finish::Stop),
    ];
    let options = Options { certificates: Certificates::Issue, await_balance: false, ..Options::default() };
    let operation = Operation::ScaleOut { hosts: vec![host(5)] };
    let mut world = world(4, &mode, operation, options, (&[5], &[]), steps);
    world.observation.authority = Some(Fact::Known(authority()));
    world
}

/// Host h4 joins three members of a single-replica cluster; redistribution is switched off and stays so.
pub(crate) fn single_replica_out() -> World {
    let mode = StartMode::SingleReplica;
    let steps = vec![
        Step::SetSetting { name: SETTING.into(), value: "false".into() },
        join(4, &mode, &[1, 2]),
        verify(&[1, 2, 3], &[4], &[], Finish::Stop),
    ];
    let operation = Operation::ScaleOut { hosts: vec![host(4)] };
    let options = Options { redistribution: Redistribution::Off, ..Options::default() };
    world(3, &mode, operation, options, (&[4], &[]), steps)
}

/// Nodes 5 and 6 of six leave, drained and stopped.
pub(crate) fn scale_in() -> World {
    let leaving = nodes(&[5, 6]);
    let steps = vec![
        Step::Mark { nodes: leaving.clone() },
        Step::AwaitEmpty { nodes: leaving },
        Step::Drain { node: NodeId(5) },
        Step::Stop { node: NodeId(5) },
        Step::Drain { node: NodeId(6) },
        Step::Stop { node: NodeId(6) },
        verify(&[1, 2, 3, 4], &[], &[5, 6], Finish::Stop),
    ];
    let operation = Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(5)), NodeRef::Host(host(6))] };
    let options = Options { drain: true, ..Options::default() };
    world(6, &StartMode::MultiReplica, operation, options, (&[], &[5, 6]), steps)
}

/// Nodes 5 and 6 of six leave, one after the other.
pub(crate) fn scale_in_one_by_one() -> World {
    let leave = |id: u32| {
        [
            Step::Mark { nodes: nodes(&[id]) },
            Step::AwaitEmpty { nodes: nodes(&[id]) },
            Step::Stop { node: NodeId(id) },
        ]
    };
    let steps = [&leave(5)[..], &leave(6), &[verify(&[1, 2, 3, 4], &[], &[5, 6], Finish::Stop)]].concat();
    let operation = Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(5)), NodeRef::Id(NodeId(6))] };
    let options = Options { batch: NonZeroU32::new(1), ..Options::default() };
    world(6, &StartMode::MultiReplica, operation, options, (&[], &[5, 6]), steps)
}

/// Node 4 of four is emptied and left running.
pub(crate) fn leave_drained() -> World {
    let steps = vec![
        Step::Mark { nodes: nodes(&[4]) },
        Step::AwaitEmpty { nodes: nodes(&[4]) },
        verify(&[1, 2, 3], &[], &[4], Finish::LeaveDrained),
    ];
    let operation = Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] };
    let options = Options { finish: Finish::LeaveDrained, ..Options::default() };
    world(4, &StartMode::MultiReplica, operation, options, (&[], &[4]), steps)
}

/// Host h5 takes the place of node 4, with redistribution off for the time.
pub(crate) fn replace() -> World {
    let mode = StartMode::MultiReplica;
    let steps = vec![
        Step::SetSetting { name: SETTING.into(), value: "false".into() },
        join(5, &mode, &[1, 2]),
        Step::Mark { nodes: nodes(&[4]) },
        Step::AwaitEmpty { nodes: nodes(&[4]) },
        Step::Stop { node: NodeId(4) },
        Step::RestoreSetting { name: SETTING.into() },
        verify(&[1, 2, 3], &[5], &[4], Finish::Stop),
    ];
    let operation = Operation::Replace { nodes: vec![NodeRef::Host(host(4))], hosts: vec![host(5)] };
    let options =
        Options { redistribution: Redistribution::OffDuring, await_balance: false, ..Options::default() };
    world(4, &mode, operation, options, (&[5], &[4]), steps)
}

/// Nothing to do: the members are those of the hosts asked for.
pub(crate) fn nothing() -> World {
    let operation = Operation::Reach { members: vec![host(1), host(2), host(3)] };
    world(3, &StartMode::MultiReplica, operation, Options::default(), (&[], &[]), Vec::new())
}

/// The members shall be those of h1, h2, h3 and h5; they are those of h1 to h4.
pub(crate) fn reach() -> World {
    let mut world = replace();
    world.plan.request.operation = Operation::Reach { members: vec![host(1), host(2), host(3), host(5)] };
    world.seal();
    world
}

/// Every valid plan of this file.
pub(crate) fn all() -> Vec<(&'static str, World)> {
    vec![
        ("scale_out", scale_out()),
        ("single_replica_out", single_replica_out()),
        ("scale_in", scale_in()),
        ("scale_in_one_by_one", scale_in_one_by_one()),
        ("leave_drained", leave_drained()),
        ("replace", replace()),
        ("nothing", nothing()),
        ("reach", reach()),
        ("come_back", come_back()),
        ("certified", certified()),
    ]
}
