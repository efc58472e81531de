//! Whatever plan the planner makes on a random cluster, healthy or not, the checker finds nothing wrong with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use kwdb_scale_core::assess::OperationKind;
use kwdb_scale_core::plan::{Plan, check, plan};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::request::{Finish, NodeRef, OldData, Operation, Options, Redistribution, Request};
use kwdb_scale_core::rows::SettingRow;
use kwdb_scale_core::topology::{Locality, NodeId, StartMode, StoreId};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::fixture::{
    Cluster, address, free_host, host, inventory, partition_row, range_row, store, store_row, zone_row,
};

/// Something that is not as it should be, or merely unusual. A draining member is not among them: for a scale-out the
/// planner still takes it for a gateway, which `observed-gateways` rightly tells.
#[derive(Clone, Debug)]
enum Oddity {
    Dead(u32),
    Upgrading(u32),
    Marked(u32),
    /// A bit that could not be had: 0 decommissioning, 2 upgrading, 3 expiration.
    Null(u32, u8),
    NoDescriptor(u32),
    NotHeard(u32),
    OwnSqlAddress(u32),
    NoSqlAddress(u32),
    NoStartedAt(u32),
    NoAddress(u32),
    SecondStore(u32),
    NoStores(u32),
    OldBuild(u32),
    Factor(u32),
    Constraint(String),
    FewerReplicas(usize),
    SettingOff,
    SettingMissing,
    NotAdmin,
    OtherViews(Vec<u32>),
    Locality(u32, &'static str),
}

fn oddity() -> impl Strategy<Value = Oddity> {
    let n = 1..9_u32;
    let constraint = (n.clone(), 0..4_u8).prop_map(|(n, form)| {
        Oddity::Constraint(match form {
            0 => format!("'[+region=NODE{n}]'"),
            1 => format!("'[-region=NODE{n}]'"),
            2 => format!("'{{+region=NODE{n}: 1}}'"),
            _ => "'[]'".to_owned(),
        })
    });
    prop_oneof![
        n.clone().prop_map(Oddity::Dead),
        n.clone().prop_map(Oddity::Upgrading),
        n.clone().prop_map(Oddity::Marked),
        (n.clone(), prop::sample::select(vec![0, 2, 3])).prop_map(|(n, what)| Oddity::Null(n, what)),
        n.clone().prop_map(Oddity::NoDescriptor),
        n.clone().prop_map(Oddity::NotHeard),
        n.clone().prop_map(Oddity::OwnSqlAddress),
        n.clone().prop_map(Oddity::NoSqlAddress),
        n.clone().prop_map(Oddity::NoStartedAt),
        n.clone().prop_map(Oddity::NoAddress),
        n.clone().prop_map(Oddity::SecondStore),
        n.clone().prop_map(Oddity::NoStores),
        n.clone().prop_map(Oddity::OldBuild),
        prop::sample::select(vec![1, 3, 4, 5, 7]).prop_map(Oddity::Factor),
        constraint,
        (0..3_usize).prop_map(Oddity::FewerReplicas),
        Just(Oddity::SettingOff),
        Just(Oddity::SettingMissing),
        Just(Oddity::NotAdmin),
        prop::collection::vec(1..6_u32, 0..3).prop_map(Oddity::OtherViews),
        (n, prop::sample::select(vec!["region=a,zone=x", "region=b", "region=a,zone=y"]))
            .prop_map(|(n, l)| Oddity::Locality(n, l)),
    ]
}

fn bend(cluster: &mut Cluster, oddity: &Oddity) {
    let at = |n: u32| (n as usize).saturating_sub(1);
    let live = cluster.liveness.len() - 1;
    let fits = |n: u32| at(n) < live;
    match oddity {
        Oddity::Dead(n) if fits(*n) => {
            cluster.liveness[at(*n)].expiration = cluster.liveness[live].expiration;
            cluster.nodes[at(*n)].is_live = Some(false);
        }
        Oddity::Upgrading(n) if fits(*n) => cluster.liveness[at(*n)].upgrading = Some(true),
        Oddity::Marked(n) if fits(*n) => cluster.liveness[at(*n)].decommissioning = Some(true),
        Oddity::Null(n, what) if fits(*n) => {
            let row = &mut cluster.liveness[at(*n)];
            match what {
                0 => row.decommissioning = None,
                2 => row.upgrading = None,
                _ => row.expiration = None,
            }
        }
        Oddity::NoDescriptor(n) => cluster.nodes.retain(|row| row.node_id != NodeId(*n)),
        Oddity::SecondStore(n) if fits(*n) => cluster.stores.push(store_row(*n, StoreId(90 + n))),
        Oddity::NoStores(n) => cluster.stores.retain(|row| row.node_id != NodeId(*n)),
        Oddity::Factor(factor) => cluster.zones.push(zone_row(17, "liveness", *factor)),
        Oddity::Constraint(text) => {
            let last = u32::try_from(live).unwrap();
            cluster.zones.push(partition_row(text));
            cluster.ranges.push(range_row(60, "/Table/60/1/1", &[last - 2, last - 1, last]));
        }
        Oddity::FewerReplicas(range) => {
            cluster.ranges[*range].replicas.pop();
        }
        Oddity::SettingOff => cluster.settings[0].value = "false".into(),
        Oddity::SettingMissing => {
            cluster.settings =
                vec![SettingRow { name: "server.time_until_store_dead".into(), value: "30m".into() }];
        }
        Oddity::NotAdmin => cluster.is_admin = Some(false),
        Oddity::OtherViews(views) => {
            cluster.views =
                views.iter().copied().filter(|v| *v > 1).collect::<BTreeSet<_>>().into_iter().collect();
        }
        Oddity::NotHeard(n)
        | Oddity::OwnSqlAddress(n)
        | Oddity::NoSqlAddress(n)
        | Oddity::NoStartedAt(n)
        | Oddity::NoAddress(n)
        | Oddity::OldBuild(n)
        | Oddity::Locality(n, _) => {
            let Some(row) = cluster.nodes.iter_mut().find(|row| row.node_id == NodeId(*n)) else { return };
            match oddity {
                Oddity::NotHeard(_) => row.is_live = Some(false),
                Oddity::OwnSqlAddress(n) => row.sql_address = Some(address(500 + n)),
                Oddity::NoSqlAddress(_) => row.sql_address = None,
                Oddity::NoStartedAt(_) => row.started_at = None,
                Oddity::NoAddress(_) => row.address = None,
                Oddity::OldBuild(_) => row.build = Some("V3.1.0".into()),
                Oddity::Locality(_, text) => row.locality = Some(Locality::from(*text)),
                _ => {}
            }
        }
        _ => {}
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let hosts = || prop::collection::vec((1..11_u32).prop_map(host), 1..3);
    let reference = (1..9_u32, any::<bool>())
        .prop_map(|(n, id)| if id { NodeRef::Id(NodeId(n)) } else { NodeRef::Host(host(n)) });
    let nodes = || prop::collection::vec(reference.clone(), 1..3);
    prop_oneof![
        hosts().prop_map(|hosts| Operation::ScaleOut { hosts }),
        nodes().prop_map(|nodes| Operation::ScaleIn { nodes }),
        (nodes(), hosts()).prop_map(|(nodes, hosts)| Operation::Replace { nodes, hosts }),
        prop::collection::btree_set((1..8_u32).prop_map(host), 2..7)
            .prop_map(|members| Operation::Reach { members: members.into_iter().collect() }),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    (0..3_u8, any::<bool>(), any::<bool>(), any::<bool>(), 0..3_u8, 0..3_u32).prop_map(
        |(redistribution, stop, balance, drain, old, batch)| Options {
            batch: NonZeroU32::new(batch),
            redistribution: match redistribution {
                0 => Redistribution::Leave,
                1 => Redistribution::Off,
                _ => Redistribution::OffDuring,
            },
            finish: if stop { Finish::Stop } else { Finish::LeaveDrained },
            await_balance: balance,
            drain,
            old_data: match old {
                0 => OldData::Refuse,
                1 => OldData::MoveAside,
                _ => OldData::Delete,
            },
            ..Options::default()
        },
    )
}

/// A cluster, what is odd about it, and what is asked of it.
#[derive(Clone, Debug)]
struct Recipe {
    members: u32,
    mode: StartMode,
    odd: Vec<Oddity>,
    operation: Operation,
    options: Options,
}

/// Clusters of 3 to 8 nodes with up to `oddities` of them.
fn recipes(oddities: usize) -> impl Strategy<Value = Recipe> {
    let mode = prop_oneof![4 => Just(StartMode::MultiReplica), 1 => Just(StartMode::SingleReplica)];
    (3..9_u32, mode, prop::collection::vec(oddity(), 0..=oddities), operation(), options()).prop_map(
        |(members, mode, odd, operation, options)| Recipe { members, mode, odd, operation, options },
    )
}

fn names_of_hosts(request: &Request) -> BTreeSet<u32> {
    let hosts = match &request.operation {
        Operation::ScaleOut { hosts }
        | Operation::Replace { hosts, .. }
        | Operation::Reach { members: hosts } => hosts,
        _ => return BTreeSet::new(),
    };
    (1..=10).filter(|n| hosts.contains(&host(*n))).collect()
}

/// Runs the planner on many clusters; returns how many plans of each kind the checker saw.
fn run(recipes: impl Strategy<Value = Recipe>, count: u32) -> BTreeMap<String, usize> {
    let seen: RefCell<BTreeMap<String, usize>> = RefCell::default();
    // The same clusters each time: a rare one shall not fail somebody else's change.
    let config = Config { cases: count, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&recipes, |recipe| {
        let mut cluster = Cluster::new(recipe.members, &recipe.mode);
        recipe.odd.iter().for_each(|o| bend(&mut cluster, o));
        let request =
            Request { operation: recipe.operation, inventory: inventory(1..=10), options: recipe.options };
        let looked_at = names_of_hosts(&request).into_iter().map(|n| (host(n), free_host(n))).collect();
        let observation = cluster.observe(looked_at);
        let made = plan(&observation, &request, &Policy::default());
        let outcome = made.as_ref().map_or_else(|_| "refused".to_owned(), |p: &Plan| kind(p).to_owned());
        *seen.borrow_mut().entry(outcome).or_default() += 1;
        if let Ok(made) = made {
            let violations = check(&made, Some(&observation));
            let text: String = violations.iter().map(|v| format!("\n  {v}")).collect();
            prop_assert!(violations.is_empty(), "{}{made}", text);
        }
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
    seen.into_inner()
}

fn kind(plan: &Plan) -> &'static str {
    match plan.kind() {
        OperationKind::Nothing => "nothing",
        OperationKind::Out => "out",
        OperationKind::In => "in",
        OperationKind::Replace => "replace",
    }
}

#[test]
fn plans_for_healthy_clusters_pass() {
    let seen = run(recipes(0), 600);
    for kind in ["out", "in", "replace", "nothing", "refused"] {
        assert!(seen.get(kind).is_some_and(|n| *n >= 5), "too few of '{kind}': {seen:?}");
    }
}

#[test]
fn plans_for_odd_clusters_pass() {
    let seen = run(recipes(3), 3000);
    for kind in ["out", "in", "replace", "refused"] {
        assert!(seen.get(kind).is_some_and(|n| *n >= 5), "too few of '{kind}': {seen:?}");
    }
}

#[test]
fn the_stores_of_the_clusters_are_not_their_nodes() {
    assert_ne!(store(1).0, 1);
}
