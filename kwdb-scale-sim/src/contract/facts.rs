//! The contract of a `FactSource`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;

use kwdb_scale_core::ports::{Clock, FactSource, PortErrorKind};
use kwdb_scale_core::rows::{Answer, Query, RangeRow, ReplicaCountRow, Rows};
use kwdb_scale_core::topology::{Address, NodeId, RangeId, StoreId};

use super::wait::{fails, in_time, liveness, must, nodes, ranges, rows};

/// Ends the node at a gateway.
pub type KillNode<'a> = Box<dyn FnOnce(&Address) + Send + 'a>;

/// A healthy cluster and a way to ask it.
pub struct FactsFixture<'a> {
    /// What is tried out.
    pub source: &'a dyn FactSource,
    /// SQL addresses of at least two live nodes.
    pub gateways: Vec<Address>,
    /// A loopback address at which nothing listens.
    pub nobody: Address,
    /// By which the cluster's time passes.
    pub clock: &'a dyn Clock,
    /// Ends the last gateway's node for good, without which its part is left out. The cluster must go on without it.
    pub kill: Mutex<Option<KillNode<'a>>>,
}

impl fmt::Debug for FactsFixture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FactsFixture")
            .field("source", &self.source)
            .field("gateways", &self.gateways)
            .finish()
    }
}

const NO_STORE: StoreId = StoreId(2_000_000_000);
const NO_RANGE: RangeId = RangeId(9_000_000_000);

/// Every question of the closed set is answered by the gateway that was asked and no other, with its time and with
/// rows of the question's kind; counts and lists agree with the ranges; what is NULL or absent stays unknown;
/// a gateway where nobody listens is `Unreachable`, and one that died fails while its rows stay.
///
/// # Panics
/// When it does otherwise.
pub async fn fact_source(f: &FactsFixture<'_>) {
    assert!(f.gateways.len() >= 2, "the suite needs two gateways");
    assert!(!f.source.seeds().is_empty(), "a source has at least one seed");
    let mut clusters = BTreeSet::new();
    let mut asked = BTreeSet::new();
    for gateway in &f.gateways {
        let stores = stores(f, gateway).await;
        for query in closed_set(stores) {
            let answer = must(&format!("{query:?} through {gateway}"), f.source.fetch(gateway, &query).await);
            matches(&query, &answer, gateway);
            if let Rows::Cluster(row) = &answer.rows {
                clusters.insert(row.cluster_id.clone());
                assert!(asked.insert(row.gateway_node), "{gateway} answers for another: {row:?}");
                membership(f, gateway, row.gateway_node).await;
            }
        }
        time_moves(f, gateway).await;
        counts(f, gateway).await;
        unknown_stays_unknown(f, gateway).await;
    }
    assert_eq!(clusters.len(), 1, "all gateways are of one cluster: {clusters:?}");
    unreachable(f).await;
    dead(f).await;
}

fn closed_set(stores: Vec<StoreId>) -> Vec<Query> {
    vec![
        Query::Cluster,
        Query::Liveness,
        Query::Nodes,
        Query::Stores,
        Query::Ranges,
        Query::ReplicaCounts(stores.clone()),
        Query::ReplicaCounts(Vec::new()),
        Query::RangesOn { stores: stores.clone(), limit: 3 },
        Query::RangesOn { stores: Vec::new(), limit: 3 },
        Query::LeasesOn { stores, limit: 3 },
        Query::LeasesOn { stores: Vec::new(), limit: 3 },
        Query::LeasesOf(vec![RangeId(1), NO_RANGE]),
        Query::LeasesOf(Vec::new()),
        Query::Zones,
        Query::Jobs,
        Query::Settings(vec!["server.time_until_store_dead".to_owned()]),
        Query::Settings(Vec::new()),
    ]
}

fn matches(query: &Query, answer: &Answer, gateway: &Address) {
    assert_eq!(&answer.gateway, gateway, "the answer names who gave it");
    let fits = match (query, &answer.rows) {
        (Query::Cluster, Rows::Cluster(_)) | (Query::Jobs, Rows::Jobs(_)) => true,
        (Query::Liveness, Rows::Liveness(rows)) => !rows.is_empty(),
        (Query::Nodes, Rows::Nodes(rows)) => !rows.is_empty(),
        (Query::Stores, Rows::Stores(rows)) => !rows.is_empty(),
        (Query::Ranges, Rows::Ranges(rows)) => !rows.is_empty(),
        (Query::RangesOn { stores, .. }, Rows::Ranges(rows)) => rows.is_empty() == stores.is_empty(),
        (Query::LeasesOn { stores, .. }, Rows::Leases(rows)) => rows.is_empty() == stores.is_empty(),
        (Query::LeasesOf(ranges), Rows::Leases(rows)) => rows.is_empty() == ranges.is_empty(),
        (Query::ReplicaCounts(stores), Rows::ReplicaCounts(rows)) => rows.len() == stores.len(),
        (Query::Zones, Rows::Zones(rows)) => !rows.is_empty(),
        (Query::Settings(names), Rows::Settings(rows)) => rows.len() == names.len(),
        _ => false,
    };
    assert!(fits, "{query:?} through {gateway} was answered with {:?}", answer.rows);
}

/// Ids stand once; the gateway knows itself, at the address at which it was asked, and for live.
async fn membership(f: &FactsFixture<'_>, gateway: &Address, own: NodeId) {
    let answer = must("liveness", f.source.fetch(gateway, &Query::Liveness).await);
    let Rows::Liveness(live) = &answer.rows else { panic!("{answer:?}") };
    let ids: BTreeSet<NodeId> = live.iter().map(|r| r.node_id).collect();
    assert_eq!(ids.len(), live.len(), "each node has one liveness row: {live:?}");
    let row =
        live.iter().find(|r| r.node_id == own).unwrap_or_else(|| panic!("{gateway} lacks itself: {live:?}"));
    assert!(
        row.expiration.is_some_and(|e| e > answer.server_time),
        "{gateway} answers, so by its own time {} it is live: {row:?}",
        answer.server_time
    );
    let nodes = nodes(f.source, gateway).await;
    let row = nodes
        .iter()
        .find(|n| n.node_id == own)
        .unwrap_or_else(|| panic!("{gateway} lacks itself: {nodes:?}"));
    assert_eq!(row.sql_address.as_ref(), Some(gateway), "{row:?}");
}

async fn stores(f: &FactsFixture<'_>, gateway: &Address) -> Vec<StoreId> {
    let Rows::Stores(stores) = rows(f.source, gateway, &Query::Stores).await else { panic!("stores") };
    let ids: BTreeSet<StoreId> = stores.iter().map(|s| s.store_id).collect();
    assert_eq!(ids.len(), stores.len(), "each store has one row: {stores:?}");
    ids.into_iter().collect()
}

/// The server's time, not a constant and not ours; it never goes back.
async fn time_moves(f: &FactsFixture<'_>, gateway: &Address) {
    let time = async || must("liveness", f.source.fetch(gateway, &Query::Liveness).await).server_time;
    let first = time().await;
    in_time(f.clock, "the server's time moves", async || {
        let next = time().await;
        assert!(next >= first, "the time of {gateway} went back from {first} to {next}");
        (next > first).then_some(())
    })
    .await;
}

fn on(range: &RangeRow, store: StoreId) -> bool {
    range.replicas.contains(&store) || range.learners.contains(&store)
}

/// `ReplicaCounts` and `RangesOn` say what `Ranges` says. Ranges may move in between: then they are read again.
async fn counts(f: &FactsFixture<'_>, gateway: &Address) {
    let mut stores = stores(f, gateway).await;
    stores.push(NO_STORE);
    let some = vec![stores[0], NO_STORE];
    in_time(f.clock, "two readings of the ranges agree", async || {
        let before = ranges(f.source, gateway).await;
        let counts = rows(f.source, gateway, &Query::ReplicaCounts(stores.clone())).await;
        let all = rows(f.source, gateway, &Query::RangesOn { stores: some.clone(), limit: 1_000_000 }).await;
        let two = rows(f.source, gateway, &Query::RangesOn { stores: some.clone(), limit: 2 }).await;
        let nowhere = rows(f.source, gateway, &Query::RangesOn { stores: vec![NO_STORE], limit: 2 }).await;
        let leases = rows(f.source, gateway, &Query::LeasesOn { stores: some.clone(), limit: 2 }).await;
        let named = before.iter().take(2).map(|r| r.range_id).chain([NO_RANGE]).collect();
        let leases_of = rows(f.source, gateway, &Query::LeasesOf(named)).await;
        if ranges(f.source, gateway).await != before {
            return None;
        }
        let ids: BTreeSet<_> = before.iter().map(|r| r.range_id).collect();
        assert_eq!(ids.len(), before.len(), "each range has one row");
        assert!(before.iter().all(|r| !r.replicas.is_empty()), "each range has a replica: {before:?}");

        let Rows::ReplicaCounts(mut counts) = counts else { panic!("replica counts") };
        counts.sort_by_key(|c| c.store_id);
        let count = |s: StoreId| before.iter().filter(|r| on(r, s)).count() as u64;
        let expected: Vec<_> =
            stores.iter().map(|s| ReplicaCountRow { store_id: *s, replicas: count(*s) }).collect();
        assert_eq!(counts, expected, "every store asked about has its count, one that nothing names zero");

        let mut expected: Vec<_> = before.iter().filter(|r| on(r, stores[0])).cloned().collect();
        expected.sort_by_key(|r| r.range_id);
        assert_eq!(all, Rows::Ranges(expected.clone()), "the ranges on {some:?}, lowest id first");
        expected.truncate(2);
        let Rows::Leases(leases) = leases else { panic!("leases") };
        let of = |r: &RangeRow| leases.iter().find(|l| l.range_id == r.range_id).cloned();
        let held = |r: &RangeRow| of(r).is_some_and(|l| l.lease_store.is_none_or(|s| on(r, s)));
        assert!(leases.len() == expected.len() && expected.iter().all(held), "{leases:?} of {expected:?}");
        assert_eq!(two, Rows::Ranges(expected), "the two lowest of them");
        let Rows::Leases(leases) = leases_of else { panic!("leases") };
        let named: BTreeSet<_> = before.iter().take(2).map(|r| r.range_id).collect();
        let told: BTreeSet<_> = leases.iter().map(|l| l.range_id).collect();
        assert_eq!(told, named, "the leases of the ranges that were named and are there");
        assert_eq!(nowhere, Rows::Ranges(Vec::new()), "no range is on a store that is not there");
        Some(())
    })
    .await;
}

/// A NULL is `None`, never an empty word or a number; a name that the server does not know has no row.
async fn unknown_stays_unknown(f: &FactsFixture<'_>, gateway: &Address) {
    let names = vec!["kwdb_scale.no_such_setting".to_owned(), "server.time_until_store_dead".to_owned()];
    let Rows::Settings(found) = rows(f.source, gateway, &Query::Settings(names)).await else {
        panic!("settings")
    };
    let found: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.value.is_empty())).collect();
    assert_eq!(found, [("server.time_until_store_dead", false)], "only what the server knows");

    let Rows::Zones(zones) = rows(f.source, gateway, &Query::Zones).await else { panic!("zones") };
    let default = zones.iter().find(|z| z.range_name.as_deref() == Some("default"));
    let default = default.unwrap_or_else(|| panic!("RANGE default has a zone: {zones:?}"));
    assert!(default.full_config_sql.is_some(), "{default:?}");
    let names = [&default.database, &default.table, &default.index, &default.partition];
    assert_eq!(names, [&None; 4], "RANGE default is of no table: {default:?}");

    let ranges = ranges(f.source, gateway).await;
    let meta =
        ranges.iter().find(|r| r.start_key == "/Min").unwrap_or_else(|| panic!("there is a first range"));
    assert_eq!(
        (meta.table_id, &meta.database, &meta.table, &meta.index),
        (None, &None, &None, &None),
        "the first range is of no table: {meta:?}"
    );
    for node in nodes(f.source, gateway).await {
        let empty = |a: &Option<Address>| a.as_ref().is_some_and(|a| a.as_str().is_empty());
        let build = node.build.as_deref() == Some("");
        assert!(!empty(&node.address) && !empty(&node.sql_address) && !build, "unknown is None: {node:?}");
    }
}

async fn unreachable(f: &FactsFixture<'_>) {
    for query in [Query::Cluster, Query::ReplicaCounts(vec![NO_STORE])] {
        let error = fails("asking where nobody listens", f.source.fetch(&f.nobody, &query).await);
        assert_eq!(error.kind(), PortErrorKind::Unreachable, "{}", error.chain());
        assert!(error.chain().contains(f.nobody.as_str()), "it names {}: {}", f.nobody, error.chain());
    }
}

async fn dead(f: &FactsFixture<'_>) {
    let kill = f.kill.lock().expect("the fixture is used by one test").take();
    let (Some(kill), Some((last, others))) = (kill, f.gateways.split_last()) else { return };
    let Rows::Cluster(row) = rows(f.source, last, &Query::Cluster).await else { panic!("cluster") };
    kill(last);
    // The port may close a moment after the process.
    in_time(f.clock, "a dead gateway fails", async || {
        let error = f.source.fetch(last, &Query::Liveness).await.err()?;
        assert!(error.kind().is_transient(), "{:?}: {}", error.kind(), error.chain());
        Some(())
    })
    .await;
    for other in others {
        in_time(f.clock, "the dead node's liveness expires", async || {
            let answer = must("liveness", f.source.fetch(other, &Query::Liveness).await);
            let Rows::Liveness(rows) = &answer.rows else { panic!("{answer:?}") };
            let row = rows.iter().find(|r| r.node_id == row.gateway_node);
            let row = row.unwrap_or_else(|| panic!("the row of a dead node stays: {rows:?}"));
            row.expiration.is_some_and(|e| e <= answer.server_time).then_some(())
        })
        .await;
        assert!(liveness(f.source, other).await.len() >= f.gateways.len(), "no row goes");
    }
}
