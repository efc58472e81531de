//! Round trips by property, and answers in the form that a real V3.2.1 gave.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::rows::{
    ClusterRow, JobRow, LeaseRow, LivenessRow, NodeRow, RangeKind, RangeRow, ReplicaCountRow, SettingRow,
    StoreRow, ZoneRow,
};
use crate::topology::{Locality, NodeId, RangeId, StartMode};

fn gateway() -> Address {
    Address::new("127.0.0.1:26257")
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0_i64..4_000_000_000, 0_i32..1_000_000_000).prop_map(|(s, n)| Timestamp::new(s, n).unwrap())
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_.:/'=é\n ]{0,11}[a-z]"
}

fn stores() -> impl Strategy<Value = Vec<StoreId>> {
    vec((0_u32..50).prop_map(StoreId), 0..5)
}

fn number() -> impl Strategy<Value = Option<u64>> {
    option::of(0..u64::MAX)
}

fn range_row() -> impl Strategy<Value = RangeRow> {
    let names = (option::of(word()), option::of(word()), option::of(word()));
    let kind =
        prop_oneof![Just(RangeKind::Relational), Just(RangeKind::TimeSeries), Just(RangeKind::Unknown)];
    (any::<u64>(), kind, option::of(1_u64..9999), names, stores(), stores()).prop_map(
        |(range_id, kind, table_id, (database, table, index), replicas, learners)| RangeRow {
            range_id: RangeId(range_id),
            kind,
            start_key: table_id.map_or_else(|| "/System/tsd".to_owned(), |id| format!("/Table/{id}/1")),
            table_id,
            database,
            table,
            index,
            replicas,
            learners,
        },
    )
}

fn answer() -> impl Strategy<Value = (Query, Rows)> {
    let cluster = (word(), any::<u32>(), option::of(word()), option::of(any::<bool>())).prop_map(
        |(id, node, build, is_admin)| {
            let row = ClusterRow { cluster_id: id.into(), gateway_node: NodeId(node), build, is_admin };
            (Query::Cluster, Rows::Cluster(row))
        },
    );
    let bit = || option::of(any::<bool>());
    let liveness = (
        any::<u32>(),
        option::of(any::<i64>()),
        option::of(time()),
        (bit(), bit(), bit()),
        option::of(time()),
    )
        .prop_map(|(node, epoch, expiration, (draining, decommissioning, upgrading), updated_at)| {
            LivenessRow {
                node_id: NodeId(node),
                epoch,
                expiration,
                draining,
                decommissioning,
                upgrading,
                updated_at,
            }
        });
    let node = (
        any::<u32>(),
        option::of(word()),
        option::of("[a-z]=[a-z],[a-z]=[a-z]"),
        option::of(time()),
        bit(),
        number(),
    )
        .prop_map(|(node, text, locality, started_at, is_live, n)| NodeRow {
            node_id: NodeId(node),
            address: text.clone().map(Address::from),
            sql_address: text.clone().map(Address::from),
            locality: locality.map(Locality::from),
            start_mode: text.clone().map(StartMode::from),
            build: text,
            started_at,
            is_live,
            ranges: n,
            leases: n,
        });
    let at = option::of(word()).prop_map(|a| a.map(Address::from));
    let store = (any::<u32>(), any::<u32>(), vec(number(), 9), option::of(time()), option::of(time()), at)
        .prop_map(|(node, store, n, updated_at, started_at, node_address)| StoreRow {
            node_id: NodeId(node),
            store_id: StoreId(store),
            capacity: n[0],
            available: n[1],
            used: n[2],
            range_count: n[3],
            lease_count: n[4],
            ranges_unavailable: n[5],
            ranges_underreplicated: n[6],
            replicate_purgatory: n[7],
            replicate_pending: n[8],
            updated_at,
            started_at,
            node_address,
        });
    let zone =
        (any::<u64>(), any::<u64>(), vec(option::of(word()), 8)).prop_map(|(zone_id, subzone_id, t)| {
            ZoneRow {
                zone_id,
                subzone_id,
                target: t[0].clone(),
                range_name: t[1].clone(),
                database: t[2].clone(),
                table: t[3].clone(),
                index: t[4].clone(),
                partition: t[5].clone(),
                raw_config_sql: t[6].clone(),
                full_config_sql: t[7].clone(),
            }
        });
    let job = (any::<u64>(), word(), word(), option::of(word()))
        .prop_map(|(job_id, job_type, status, description)| JobRow { job_id, job_type, status, description });
    let setting = (word(), ".{0,9}").prop_map(|(name, value)| SettingRow { name, value });
    let lease = (any::<u64>(), option::of(any::<u32>()))
        .prop_map(|(range, store)| LeaseRow { range_id: RangeId(range), lease_store: store.map(StoreId) });
    let count = (any::<u32>(), any::<u64>())
        .prop_map(|(store, replicas)| ReplicaCountRow { store_id: StoreId(store), replicas });
    prop_oneof![
        cluster,
        vec(liveness, 0..4).prop_map(|r| (Query::Liveness, Rows::Liveness(r))),
        vec(node, 0..4).prop_map(|r| (Query::Nodes, Rows::Nodes(r))),
        vec(store, 0..4).prop_map(|r| (Query::Stores, Rows::Stores(r))),
        vec(range_row(), 0..4).prop_map(|r| (Query::Ranges, Rows::Ranges(r))),
        (stores(), vec(range_row(), 0..4), any::<u32>())
            .prop_map(|(stores, r, limit)| (Query::RangesOn { stores, limit }, Rows::Ranges(r))),
        (stores(), vec(count, 0..4))
            .prop_map(|(stores, r)| (Query::ReplicaCounts(stores), Rows::ReplicaCounts(r))),
        (vec(any::<u64>().prop_map(RangeId), 0..4), vec(lease.clone(), 0..4))
            .prop_map(|(ranges, r)| (Query::LeasesOf(ranges), Rows::Leases(r))),
        (stores(), vec(lease, 0..4), any::<u32>())
            .prop_map(|(stores, r, limit)| (Query::LeasesOn { stores, limit }, Rows::Leases(r))),
        vec(zone, 0..4).prop_map(|r| (Query::Zones, Rows::Zones(r))),
        vec(job, 0..4).prop_map(|r| (Query::Jobs, Rows::Jobs(r))),
        (vec("[a-z_.']{0,9}", 0..4), vec(setting, 0..4))
            .prop_map(|(names, r)| (Query::Settings(names), Rows::Settings(r))),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed_again((query, rows) in answer(), now in time()) {
        let (columns, cells) = encode(&query, &rows, now);
        prop_assert_eq!(columns, super::columns(&query));
        let answer = parse(&query, &gateway(), columns, &cells).unwrap();
        prop_assert_eq!(answer, Answer { gateway: gateway(), server_time: now, rows });
    }

    #[test]
    fn a_statement_is_recognised((query, _) in answer()) {
        prop_assert_eq!(query_of(&sql(&query)), Some(query.clone()));
        prop_assert_eq!(query_of(&format!("{};", sql(&query))), Some(query));
    }

    #[test]
    fn any_text_is_an_error_or_rows_but_no_panic(
        (query, rows) in answer(), now in time(), junk in ".{0,12}", at in any::<prop::sample::Index>(),
    ) {
        let (columns, mut cells) = encode(&query, &rows, now);
        let column = at.index(columns.len());
        cells[0][column] = Some(junk);
        if let Err(error) = parse(&query, &gateway(), columns, &cells) {
            let named = error.to_string().contains(columns[column]);
            let elsewhere = matches!(error, StatementError::NotAdmin { .. } | StatementError::Null { .. });
            prop_assert!(named || elsewhere, "{error}");
        }
    }
}

#[test]
fn statements_read_as_intended() {
    let text = [
        Query::Cluster,
        Query::Liveness,
        Query::Nodes,
        Query::Stores,
        Query::Ranges,
        Query::ReplicaCounts(vec![StoreId(4), StoreId(5)]),
        Query::ReplicaCounts(vec![]),
        Query::RangesOn { stores: vec![StoreId(4), StoreId(5)], limit: 20 },
        Query::LeasesOn { stores: vec![StoreId(4), StoreId(5)], limit: 20 },
        Query::LeasesOf(vec![RangeId(7), RangeId(8)]),
        Query::Zones,
        Query::Jobs,
        Query::Settings(vec!["server.time_until_store_dead".into(), "it's".into()]),
    ]
    .iter()
    .map(|q| format!("-- {}\n{};", name(q), sql(q)))
    .collect::<Vec<_>>()
    .join("\n");
    insta::assert_snapshot!(text);
}

#[test]
fn a_quote_cannot_leave_its_literal() {
    assert_eq!(literal(r"a'; DROP TABLE x; --\"), r"'a''; DROP TABLE x; --\'");
    let query = Query::Settings(vec!["a'] b".into(), "c".into()]);
    assert_eq!(query_of(&sql(&query)), Some(query));
    assert_eq!(query_of("SELECT 1"), None);
    assert_eq!(query_of(&format!("{} ", sql(&Query::Zones).replace("zones", "tables"))), None);
}

fn some(cells: &[&str]) -> Vec<Option<String>> {
    cells.iter().map(|c| Some((*c).to_owned())).collect()
}

#[test]
fn times_of_every_release() {
    let columns = ["server_time", "node_id", "expiration", "updated_at"];
    let read = |now: &str, expiration: &str, updated: &str| {
        let rows = [some(&[now, "1", expiration, updated])];
        parse(&Query::Liveness, &gateway(), &columns, &rows).map(|a| match a.rows {
            Rows::Liveness(r) => (a.server_time.to_string(), r[0].clone()),
            other => panic!("{other:?}"),
        })
    };
    let (now, row) =
        read("2026-11-23 13:44:29.277952469+00:00", "1795438488.808905183,0", "2026-11-23 12:54:33.811345")
            .unwrap();
    assert_eq!(now, "2026-11-23T13:44:29.277952469Z");
    assert_eq!(row.expiration.unwrap().to_string(), "2026-11-23T12:54:48.808905183Z");
    assert_eq!(row.updated_at.unwrap().to_string(), "2026-11-23T12:54:33.811345Z");
    // A cast TIMESTAMP has a zone; a cluster's time zone setting shows in now().
    let (now, row) = read("2026-11-23 21:44:29+08:00", "0,0", "2026-11-23 12:54:33.811345+00:00").unwrap();
    assert_eq!(now, "2026-11-23T13:44:29Z");
    assert_eq!(row.updated_at.unwrap().to_string(), "2026-11-23T12:54:33.811345Z");
    assert_eq!(row.expiration, Some(Timestamp::UNIX_EPOCH));
    let error = read("2026-11-23 21:44:29+08:00", "soon", "2026-11-23 12:54:33").unwrap_err();
    assert_eq!(
        error.to_string(),
        "liveness: column 'expiration' holds 'soon', which is not a time of the form seconds.nanoseconds,logical"
    );
}

#[test]
fn unknown_is_not_zero() {
    let columns = ["server_time", "present", "node_id", "store_id", "ranges_unavailable"];
    let now = "2026-11-23 13:44:29+00:00";
    let row = vec![Some(now.into()), Some("t".into()), Some("1".into()), Some("2".into()), None];
    let Rows::Stores(rows) = parse(&Query::Stores, &gateway(), &columns, &[row]).unwrap().rows else {
        panic!()
    };
    assert_eq!((rows[0].ranges_unavailable, rows[0].capacity), (None, None));

    // Seen on a node that was killed and started again, for some seconds. Its other cells count.
    let row = vec![Some(now.into()), Some("t".into()), Some("1".into()), Some("2".into()), Some("-3".into())];
    let Rows::Stores(rows) = parse(&Query::Stores, &gateway(), &columns, &[row]).unwrap().rows else {
        panic!()
    };
    assert_eq!((rows[0].ranges_unavailable, rows[0].store_id), (None, StoreId(2)));

    let nothing = vec![Some(now.into()), None, None, None, None];
    let answer = parse(&Query::Stores, &gateway(), &columns, &[nothing]).unwrap();
    assert_eq!(answer.rows, Rows::Stores(vec![]));
    assert_eq!(
        parse(&Query::Stores, &gateway(), &columns, &[]),
        Err(StatementError::NoRows { query: "stores" })
    );
    // A count that is not there is an error, since it has no unknown.
    let columns = ["server_time", "store_id", "replicas"];
    let row = vec![Some(now.into()), Some("2".into()), None];
    let error = parse(&Query::ReplicaCounts(vec![StoreId(2)]), &gateway(), &columns, &[row]).unwrap_err();
    assert_eq!(error, StatementError::Null { query: "replica counts", column: "replicas".into() });
}

#[test]
fn rows_left_out_for_want_of_the_admin_role_are_an_error() {
    let columns = ["server_time", "is_admin", "present"];
    let row = vec![Some("2026-11-23 13:44:29+00:00".into()), Some("false".into()), None];
    let error = parse(&Query::Zones, &gateway(), &columns, &[row]).unwrap_err();
    assert_eq!(error, StatementError::NotAdmin { query: "zones" });
    assert_eq!(PortError::from(error).kind(), PortErrorKind::Denied);
}

#[test]
fn the_table_id_of_a_relational_range_is_in_its_key() {
    let columns = columns(&Query::Ranges);
    let read = |table_id: &str, start: &str| {
        let now = "2026-11-23 13:44:29+00:00";
        let row = some(&[now, "true", "7", "DEFAULT_RANGE", start, table_id, "", "", "", "{1,2,7}", "{}"]);
        let Rows::Ranges(rows) = parse(&Query::Ranges, &gateway(), columns, &[row]).unwrap().rows else {
            panic!()
        };
        rows[0].table_id
    };
    assert_eq!(read("0", "/Table/53/1/1000"), Some(53));
    assert_eq!(read("78", "/Table/53/1/1000"), Some(78));
    assert_eq!(read("0", "/System/NodeLiveness"), None);
    assert_eq!(read("0", "/Table/SystemConfigSpan/Start"), None);
}

/// The tables of a recorded `kwbase sql --format=table`: columns and rows, the clock put in front.
fn recorded(text: &str, pick: usize) -> (Vec<String>, Vec<Vec<Option<String>>>) {
    let lines: Vec<&str> = text.lines().collect();
    let rule = lines.iter().enumerate().filter(|(_, l)| l.contains("-+-")).map(|(i, _)| i).nth(pick).unwrap();
    let cells = |line: &str| line.split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let mut columns = cells(lines[rule - 1]);
    columns.insert(0, "server_time".into());
    let rows = lines[rule + 1..]
        .iter()
        .take_while(|l| !l.starts_with('('))
        .map(|l| {
            let mut row: Vec<_> = cells(l).into_iter().map(|c| Some(c).filter(|c| c != "NULL")).collect();
            row.insert(0, Some("2026-11-23 12:54:38.123+00:00".into()));
            row
        })
        .collect();
    (columns, rows)
}

#[test]
fn recorded_nodes() {
    let (columns, rows) = recorded(include_str!("../../tests/data/observed/11-gossip_nodes.txt"), 1);
    let Rows::Nodes(rows) = parse(&Query::Nodes, &gateway(), &columns, &rows).unwrap().rows else { panic!() };
    assert_eq!(rows.len(), 3);
    assert_eq!(
        rows[2],
        NodeRow {
            node_id: NodeId(3),
            address: Some("127.0.0.1:26259".into()),
            sql_address: Some("127.0.0.1:26259".into()),
            locality: Some("region=NODE3".into()),
            start_mode: Some(StartMode::MultiReplica),
            build: Some("V3.2.1".into()),
            started_at: Some("2026-11-23T12:54:13.097233Z".parse().unwrap()),
            is_live: Some(true),
            ranges: Some(50),
            leases: Some(0),
        }
    );
}

#[test]
fn recorded_liveness() {
    let (columns, rows) = recorded(include_str!("../../tests/data/observed/12-gossip_liveness.txt"), 1);
    let Rows::Liveness(rows) = parse(&Query::Liveness, &gateway(), &columns, &rows).unwrap().rows else {
        panic!()
    };
    assert_eq!(rows.len(), 3);
    assert_eq!(
        rows[0],
        LivenessRow {
            node_id: NodeId(1),
            epoch: Some(1),
            expiration: Some("2026-11-23T12:54:48.808905183Z".parse().unwrap()),
            draining: Some(false),
            decommissioning: Some(false),
            upgrading: Some(false),
            updated_at: Some("2026-11-23T12:54:33.811345Z".parse().unwrap()),
        }
    );
}

#[test]
fn recorded_stores() {
    let (columns, rows) = recorded(include_str!("../../tests/data/observed/14-kv_store_status.txt"), 1);
    let Rows::Stores(rows) = parse(&Query::Stores, &gateway(), &columns, &rows).unwrap().rows else {
        panic!()
    };
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[0].capacity, rows[0].range_count), (Some(270_553_174_016), Some(57)));
    assert_eq!((rows[2].node_id, rows[2].store_id, rows[2].used), (NodeId(3), StoreId(3), Some(0)));
    assert_eq!(rows[1].ranges_unavailable, None, "the recording has no gauges");
}

#[test]
fn recorded_liveness_of_a_decommissioning_node() {
    let text = include_str!("../../tests/data/observed/40-decommission-none/03-gossip_liveness.txt");
    let (columns, rows) = recorded(text, 0);
    let Rows::Liveness(rows) = parse(&Query::Liveness, &gateway(), &columns, &rows).unwrap().rows else {
        panic!()
    };
    let of_4 = rows.iter().find(|r| r.node_id == NodeId(4)).unwrap();
    assert_eq!((of_4.decommissioning, of_4.draining), (Some(true), Some(false)));
}
