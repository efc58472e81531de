//! The machine against a small hostile world: whatever happens between two looks, no act breaks a rule, and the
//! journal always gives back the durable state.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kwdb_scale_core::execute::{
    Act, ActResult, Cancel, Effect, End, Event, Ledger, Look, Looked, Order, Record, State, StopReason, step,
};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::observation::{Observation, Reply, full_survey, view_survey};
use kwdb_scale_core::plan::{Plan, plan};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::ports::{HostFacts, PortErrorKind, ProcessState, StoreContent, StoreFacts};
use kwdb_scale_core::request::{Inventory, InventoryHost, NodeRef, Operation, Options, Request};
use kwdb_scale_core::rows::{
    Answer, ClusterRow, LivenessRow, NodeRow, Query, RangeKind, RangeRow, ReplicaCountRow, Rows, SettingRow,
    StoreRow, ZoneRow,
};
use kwdb_scale_core::topology::{Address, ClusterId, HostName, NodeId, RangeId, StartMode, StoreId};
use proptest::prelude::*;

const ZONE: &str = "ALTER RANGE default CONFIGURE ZONE USING\n\tnum_replicas = 3,\n\tconstraints = '[]',\n\t\
                    lease_preferences = '[]'";

#[derive(Clone, Debug)]
struct Node {
    bit: bool,
    up: bool,
    host: HostName,
}

#[derive(Clone, Debug)]
struct World {
    now: Timestamp,
    nodes: BTreeMap<u32, Node>,
    ranges: Vec<Vec<u32>>,
    moving: bool,
    silent: BTreeSet<u32>,
    settings: BTreeMap<String, String>,
}

fn host(n: u32) -> HostName {
    HostName::new(format!("h{n}"))
}

fn address(host: &HostName) -> Address {
    Address::new(format!("{host}:26257"))
}

impl World {
    fn new(nodes: u32) -> Self {
        let ranges = (0..6_u32).map(|r| (0..3).map(|i| (r + i) % nodes + 1).collect()).collect();
        Self {
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            nodes: (1..=nodes).map(|n| (n, Node { bit: false, up: true, host: host(n) })).collect(),
            ranges,
            moving: true,
            silent: BTreeSet::new(),
            settings: kwdb_scale_core::policy::SETTINGS
                .iter()
                .map(|s| ((*s).to_owned(), if s.ends_with("enabled") { "true" } else { "30m" }.to_owned()))
                .collect(),
        }
    }

    fn replicas(&self, n: u32) -> u64 {
        self.ranges.iter().filter(|r| r.contains(&n)).count() as u64
    }

    /// One replica leaves a marked node, when the allocator finds another place.
    fn allocate(&mut self) {
        if !self.moving {
            return;
        }
        let targets: Vec<u32> =
            self.nodes.iter().filter(|(_, n)| n.up && !n.bit).map(|(id, _)| *id).collect();
        for range in &mut self.ranges {
            let from = range.iter().position(|n| self.nodes[n].bit);
            let to = targets.iter().find(|t| !range.contains(t));
            if let (Some(from), Some(to)) = (from, to) {
                range[from] = *to;
                return;
            }
        }
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
                        expiration: Some(if n.up { soon } else { past }),
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
                        is_live: Some(n.up),
                        ranges: None,
                        leases: None,
                    })
                    .collect(),
            ),
            Query::Stores => Rows::Stores(
                ids()
                    .map(|(node_id, n)| StoreRow {
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
                        updated_at: Some(if n.up { started } else { past }),
                        started_at: Some(Timestamp::from_second(1_700_000_000).unwrap()),
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
            Query::ReplicaCounts(stores) => Rows::ReplicaCounts(
                stores
                    .iter()
                    .map(|s| ReplicaCountRow { store_id: *s, replicas: self.replicas(s.0 - 100) })
                    .collect(),
            ),
            Query::Zones => Rows::Zones(vec![ZoneRow {
                target: Some("RANGE default".into()),
                range_name: Some("default".into()),
                raw_config_sql: Some(ZONE.into()),
                full_config_sql: Some(ZONE.into()),
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
            stores: vec![StoreFacts { path: "/data".into(), content: Fact::Known(content) }],
            listening: Fact::Known(if node.is_some_and(|n| n.up) { vec![address(host)] } else { Vec::new() }),
            can_authenticate: Fact::Known(true),
            secure: false,
        }
    }

    fn answer(&self, look: &Look) -> Looked {
        Looked {
            replies: look.asks.iter().map(|(g, q)| self.reply(g, q)).collect(),
            scan_took: SignedDuration::from_millis(10),
            hosts: look.hosts.iter().map(|h| (h.clone(), Fact::Known(self.host_facts(h)))).collect(),
            processes: look
                .processes
                .iter()
                .map(|p| {
                    let up = self.nodes.get(&p.node.0).is_some_and(|n| n.up);
                    (p.node, if up { ProcessState::Running } else { ProcessState::Stopped })
                })
                .collect(),
        }
    }

    fn act(&mut self, order: &Order) -> ActResult {
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
            Act::Stop { node } => {
                self.nodes.get_mut(&node.0).unwrap().up = false;
                ActResult::Done(String::new())
            }
            _ => ActResult::Done(String::new()),
        }
    }
}

fn request(operation: Operation) -> Request {
    let hosts =
        (1..=9).map(|n| (host(n), InventoryHost { address: address(&host(n)), sql_address: None })).collect();
    Request { operation, inventory: Inventory { hosts }, options: Options::default() }
}

fn make_plan(world: &World, operation: Operation) -> Plan {
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
    let request = request(operation);
    plan(&observation, &request, &policy).unwrap_or_else(|refusal| {
        panic!("{}", refusal.reasons().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

/// What may happen before a look is answered.
#[derive(Clone, Debug)]
enum Mishap {
    Nothing,
    Move(u8),
    KillStaying,
    ReviveStaying,
    KillLeaving,
    Recommission,
    Freeze,
    Thaw,
    Silence(u32),
    Speak,
    LoseNextAct,
    FailNextAct,
    CrashAndResume,
    CancelLeave,
    CancelUndo,
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        30 => Just(Mishap::Nothing),
        30 => (1..6_u8).prop_map(Mishap::Move),
        2 => Just(Mishap::KillStaying),
        4 => Just(Mishap::ReviveStaying),
        1 => Just(Mishap::KillLeaving),
        1 => Just(Mishap::Recommission),
        2 => Just(Mishap::Freeze),
        4 => Just(Mishap::Thaw),
        3 => (1..4_u32).prop_map(Mishap::Silence),
        6 => Just(Mishap::Speak),
        3 => Just(Mishap::LoseNextAct),
        2 => Just(Mishap::FailNextAct),
        3 => Just(Mishap::CrashAndResume),
        1 => Just(Mishap::CancelLeave),
        1 => Just(Mishap::CancelUndo),
    ]
}

struct Run {
    world: World,
    state: State,
    records: Vec<Record>,
    leaving: Vec<u32>,
    lose: bool,
    fail: bool,
    /// The world as the last look saw it.
    seen: Option<World>,
    confirmed: BTreeMap<NodeId, u64>,
    waiting_for: String,
    replayed: usize,
}

impl Run {
    fn new(world: World, plan: Plan) -> Self {
        let leaving = plan.leaving.iter().map(|l| l.node.0).collect();
        let records = vec![Record::Begun { plan: Box::new(plan.clone()) }];
        Self {
            world,
            state: State::new(plan),
            records,
            leaving,
            lose: false,
            fail: false,
            seen: None,
            confirmed: BTreeMap::new(),
            waiting_for: String::new(),
            replayed: 0,
        }
    }

    fn check_act(&self, order: &Order) {
        let plan = &self.state.ledger.plan;
        assert!(self.state.ledger.admitted, "an act before the preflight");
        assert!(!self.leaving.contains(&order.via.node.0), "a leaving node is the gateway");
        match &order.act {
            Act::Mark { nodes } => {
                assert_eq!(nodes, &plan.leaving.iter().map(|l| l.node).collect::<Vec<_>>());
            }
            Act::Stop { node } => {
                let seen = self.seen.as_ref().unwrap();
                assert!(seen.nodes[&node.0].bit, "stopped without the bit");
                assert_eq!(seen.replicas(node.0), 0, "stopped with replicas");
                assert_eq!(self.confirmed.get(node), Some(&0), "stopped without confirmation");
                for (id, n) in &seen.nodes {
                    assert!(n.up || self.leaving.contains(id), "stopped while member {id} was down");
                }
            }
            Act::Start { host, join, .. } => {
                let there = self.world.nodes.values().filter(|n| n.host == *host).count();
                assert_eq!(there, 0, "started twice");
                assert!(!join.is_empty() && !join.contains(&address(host)));
                assert!(self.leaving.iter().all(|l| !join.contains(&address(&self.world.nodes[l].host))));
            }
            Act::Recommission { nodes } => {
                assert!(nodes.iter().all(|n| self.state.ledger.marked.contains(n)));
                assert!(nodes.iter().all(|n| !self.state.ledger.stopped.contains(n)));
            }
            _ => {}
        }
    }

    fn feed(&mut self, event: Event) -> Option<Effect> {
        let (state, effects) = step(&self.state, self.world.now, event);
        let mut blocking = None;
        for effect in effects {
            assert!(blocking.is_none(), "an effect follows one that waits for an event");
            match effect {
                Effect::Record(record) => self.records.push(record),
                Effect::Notify(_) => {}
                other => blocking = Some(other),
            }
        }
        self.state = state;
        if self.records.len() > self.replayed {
            self.replayed = self.records.len();
            let replayed = Ledger::replay(&self.records).unwrap();
            assert_eq!(replayed, self.state.ledger, "a replay gives another state");
        }
        blocking
    }

    fn suffer(&mut self, mishap: &Mishap) -> Option<Event> {
        let staying = self.world.nodes.keys().find(|id| !self.leaving.contains(id)).copied().unwrap();
        match mishap {
            Mishap::Nothing => {}
            Mishap::Move(n) => (0..*n).for_each(|_| self.world.allocate()),
            Mishap::KillStaying => self.world.nodes.get_mut(&staying).unwrap().up = false,
            Mishap::ReviveStaying => self.world.nodes.get_mut(&staying).unwrap().up = true,
            Mishap::KillLeaving => {
                if let Some(l) = self.leaving.first() {
                    self.world.nodes.get_mut(l).unwrap().up = false;
                }
            }
            Mishap::Recommission => {
                if let Some(l) = self.leaving.first() {
                    self.world.nodes.get_mut(l).unwrap().bit = false;
                }
            }
            Mishap::Freeze => self.world.moving = false,
            Mishap::Thaw => self.world.moving = true,
            Mishap::Silence(n) => {
                self.world.silent.insert(*n);
            }
            Mishap::Speak => self.world.silent.clear(),
            Mishap::LoseNextAct => self.lose = true,
            Mishap::FailNextAct => self.fail = true,
            Mishap::CrashAndResume => {
                let mut ledger = Ledger::replay(&self.records).unwrap();
                ledger.apply(&Record::Resumed).unwrap();
                self.records.push(Record::Resumed);
                self.state = State::resume(ledger);
                self.confirmed.clear();
                return Some(Event::Start);
            }
            Mishap::CancelLeave => return Some(Event::Cancel(Cancel::Leave)),
            Mishap::CancelUndo => return Some(Event::Cancel(Cancel::Undo)),
        }
        None
    }

    fn run(mut self, mishaps: &[Mishap]) -> (World, End, Vec<Record>) {
        let mut script = mishaps.iter();
        let mut event = Event::Start;
        for _ in 0..3000 {
            let blocking = self.feed(event.clone());
            if let Some(end) = self.state.ledger.ended.clone() {
                return (self.world, end, self.records);
            }
            event = match blocking.expect("neither waiting nor ended") {
                Effect::Look(look) => {
                    for (gateway, query) in &look.asks {
                        let leaving = self.leaving.iter().any(|l| address(&host(*l)) == *gateway);
                        assert!(!leaving, "{query:?} was put to a leaving node");
                    }
                    match script.next().and_then(|m| self.suffer(m)) {
                        Some(event) => event,
                        None => {
                            self.seen = Some(self.world.clone());
                            Event::Looked(self.world.answer(&look))
                        }
                    }
                }
                Effect::Act(order) => {
                    self.check_act(&order);
                    if std::mem::take(&mut self.fail) {
                        let kind = PortErrorKind::Unreachable;
                        Event::Acted(ActResult::Failed { kind, message: "refused".into() })
                    } else {
                        let result = self.world.act(&order);
                        if let ActResult::Counted(counts) = &result {
                            self.confirmed.extend(counts.clone());
                        }
                        if std::mem::take(&mut self.lose) {
                            let kind = PortErrorKind::ConnectionLost;
                            Event::Acted(ActResult::Failed { kind, message: "lost".into() })
                        } else {
                            Event::Acted(result)
                        }
                    }
                }
                Effect::Sleep { until, waiting_for } => {
                    self.waiting_for = waiting_for;
                    self.world.now = until;
                    self.world.allocate();
                    Event::Woke
                }
                Effect::Record(_) | Effect::Notify(_) => unreachable!(),
            };
        }
        panic!("no end after 3000 events; waiting for {}", self.waiting_for);
    }
}

fn prove_end(world: &World, leaving: &[u32], joined: &[u32], end: &End) {
    if matches!(end, End::Done(_)) {
        for l in leaving {
            assert!(!world.nodes[l].up && world.nodes[l].bit && world.replicas(*l) == 0);
        }
        for j in joined {
            assert!(world.nodes.values().any(|n| n.host == host(*j) && n.up && !n.bit));
        }
    }
}

#[test]
fn a_quiet_world_lets_everything_through() {
    let world = World::new(5);
    let nodes = vec![NodeRef::Id(NodeId(4)), NodeRef::Host(host(5))];
    let plan = make_plan(&world, Operation::ScaleIn { nodes });
    let (world, end, records) = Run::new(world, plan).run(&[]);
    assert!(matches!(end, End::Done(_)), "{end:?}");
    prove_end(&world, &[4, 5], &[], &end);
    let marks = records.iter().filter(|r| matches!(r, Record::Intent { act: Act::Mark { .. }, .. })).count();
    assert_eq!(marks, 1, "all targets are marked in one command");

    let plan = make_plan(&World::new(3), Operation::ScaleOut { hosts: vec![host(7), host(8)] });
    let (world, end, _) = Run::new(World::new(3), plan).run(&[]);
    assert!(matches!(end, End::Done(_)), "{end:?}");
    prove_end(&world, &[], &[7, 8], &end);
}

#[test]
fn a_standstill_is_explained() {
    let mut world = World::new(4);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] });
    world.moving = false;
    let left = world.replicas(4);
    let (_, end, _) = Run::new(world, plan).run(&[]);
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::Stalled);
    assert_eq!(stopped.evidence.len() as u64, left, "{:?}", stopped.evidence);
    assert!(stopped.next.iter().any(|n| n.starts_with("recommission 4")), "{:?}", stopped.next);
}

#[test]
fn drift_is_listed_and_nothing_is_done() {
    let world = World::new(5);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(5))] });
    let mut later = world;
    later.nodes.get_mut(&2).unwrap().up = false;
    let (after, end, records) = Run::new(later, plan).run(&[]);
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::Refused);
    assert!(stopped.evidence.iter().any(|e| e.contains("node 2: class: was member, is dead")), "{stopped:?}");
    assert!(!records.iter().any(|r| matches!(r, Record::Intent { .. })));
    assert!(!after.nodes[&5].bit);
}

#[test]
fn undo_takes_the_mark_back() {
    let world = World::new(4);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] });
    let mishaps: Vec<Mishap> =
        [Mishap::Freeze].into_iter().chain(vec![Mishap::Nothing; 8]).chain([Mishap::CancelUndo]).collect();
    let (world, end, _) = Run::new(world, plan).run(&mishaps);
    assert!(matches!(end, End::Undone(_)), "{end:?}");
    assert!(!world.nodes[&4].bit && world.nodes[&4].up);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_world_breaks_no_rule(mishaps in prop::collection::vec(mishap(), 0..60), two in any::<bool>()) {
        let world = World::new(6);
        let mut nodes = vec![NodeRef::Id(NodeId(6))];
        if two {
            nodes.push(NodeRef::Id(NodeId(5)));
        }
        let plan = make_plan(&world, Operation::ScaleIn { nodes });
        let leaving: Vec<u32> = plan.leaving.iter().map(|l| l.node.0).collect();
        let (world, end, _) = Run::new(world, plan).run(&mishaps);
        prove_end(&world, &leaving, &[], &end);
    }

    #[test]
    fn replacing_in_a_hostile_world_breaks_no_rule(mishaps in prop::collection::vec(mishap(), 0..60)) {
        let world = World::new(4);
        let nodes = vec![NodeRef::Id(NodeId(4))];
        let plan = make_plan(&world, Operation::Replace { nodes, hosts: vec![host(8)] });
        let (world, end, _) = Run::new(world, plan).run(&mishaps);
        prove_end(&world, &[4], &[8], &end);
    }
}
