//! Synthetic clusters of any size, as the rows that a real one would deliver.

use jiff::{SignedDuration, Timestamp};
use kwdb_scale_core::observation::{Reply, full_survey, view_survey};
use kwdb_scale_core::policy::{REBALANCE_THRESHOLD, SETTINGS, TIME_UNTIL_DEAD};
use kwdb_scale_core::rows::{
    Answer, ClusterRow, LivenessRow, NodeRow, Query, RangeKind, RangeRow, Rows, SettingRow, StoreRow, ZoneRow,
};
use kwdb_scale_core::topology::{Address, ClusterId, Locality, NodeId, RangeId, StartMode, StoreId};

/// The server's clock in every answer.
pub fn server_time() -> Timestamp {
    Timestamp::from_second(1_795_438_474).unwrap_or_default()
}

fn before(seconds: i64) -> Timestamp {
    server_time().checked_sub(SignedDuration::from_secs(seconds)).unwrap_or_default()
}

/// Address of node `n`.
pub fn address(n: u32) -> Address {
    Address::new(format!("10.0.{}.{}:26257", n / 250, n % 250 + 1))
}

/// Store of node `n`: not the node's number.
pub fn store(n: u32) -> StoreId {
    StoreId(n + 1000)
}

/// The rows that answer `query` in a healthy cluster of `nodes` nodes with `ranges` ranges of three replicas.
pub fn rows(query: &Query, nodes: u32, ranges: u64) -> Rows {
    let all = 1..=nodes;
    match query {
        Query::Liveness => Rows::Liveness(
            all.map(|n| LivenessRow {
                node_id: NodeId(n),
                epoch: Some(1),
                expiration: Some(before(-10)),
                draining: Some(false),
                decommissioning: Some(false),
                upgrading: Some(false),
                updated_at: Some(before(5)),
            })
            .collect(),
        ),
        Query::Nodes => Rows::Nodes(
            all.map(|n| NodeRow {
                node_id: NodeId(n),
                address: Some(address(n)),
                sql_address: Some(address(n)),
                locality: Some(Locality::from(format!("region=NODE{n}"))),
                start_mode: Some(StartMode::MultiReplica),
                build: Some("V3.2.1".into()),
                started_at: Some(before(86_400)),
                is_live: Some(true),
                ranges: Some(ranges * 3 / u64::from(nodes)),
                leases: Some(ranges / u64::from(nodes)),
            })
            .collect(),
        ),
        Query::Stores => Rows::Stores(
            all.map(|n| StoreRow {
                node_id: NodeId(n),
                store_id: store(n),
                capacity: Some(1 << 40),
                available: Some(1 << 39),
                used: Some(1 << 38),
                range_count: Some(ranges * 3 / u64::from(nodes)),
                lease_count: Some(ranges / u64::from(nodes)),
                ranges_unavailable: Some(0),
                ranges_underreplicated: Some(0),
                replicate_purgatory: Some(0),
                replicate_pending: Some(0),
                updated_at: Some(before(5)),
                started_at: Some(before(86_400)),
                node_address: Some(address(n)),
            })
            .collect(),
        ),
        Query::Ranges => Rows::Ranges((1..=ranges).map(|r| range(r, nodes)).collect()),
        Query::Zones => Rows::Zones(vec![default_zone()]),
        Query::Settings(names) => Rows::Settings(names.iter().map(|n| setting(n)).collect()),
        Query::Jobs => Rows::Jobs(Vec::new()),
        _ => Rows::Cluster(ClusterRow {
            cluster_id: ClusterId::new("38ec64e9-963e-4860-b9ab-f2d6a9462440"),
            gateway_node: NodeId(1),
            build: Some("V3.2.1".into()),
            is_admin: Some(true),
        }),
    }
}

fn range(r: u64, nodes: u32) -> RangeRow {
    let first = u32::try_from(r % u64::from(nodes)).unwrap_or(0);
    RangeRow {
        range_id: RangeId(r),
        kind: RangeKind::Relational,
        start_key: format!("/Table/53/1/{r}"),
        table_id: Some(53),
        database: Some("app".into()),
        table: Some("kv".into()),
        index: None,
        replicas: (0..3).map(|i| store((first + i) % nodes + 1)).collect(),
        learners: Vec::new(),
    }
}

fn default_zone() -> ZoneRow {
    let sql = "ALTER RANGE default CONFIGURE ZONE USING\n\trange_min_bytes = 134217728,\n\trange_max_bytes = \
               536870912,\n\tgc.ttlseconds = 90000,\n\tnum_replicas = 3,\n\tconstraints = '[]',\n\t\
               lease_preferences = '[]'";
    ZoneRow {
        target: Some("RANGE default".into()),
        range_name: Some("default".into()),
        raw_config_sql: Some(sql.into()),
        full_config_sql: Some(sql.into()),
        ..ZoneRow::default()
    }
}

fn setting(name: &str) -> SettingRow {
    let value = match name {
        TIME_UNTIL_DEAD => "30m0s",
        REBALANCE_THRESHOLD => "0.05",
        n if n.ends_with("enabled") => "true",
        _ => "16 MiB",
    };
    SettingRow { name: name.to_owned(), value: value.to_owned() }
}

/// A full survey through node 1 and views through nodes 2 and 3.
pub fn replies(nodes: u32, ranges: u64) -> Vec<Reply> {
    let reply = |gateway: u32, query: Query| {
        let mut rows = rows(&query, nodes, ranges);
        if let Rows::Cluster(row) = &mut rows {
            row.gateway_node = NodeId(gateway);
        }
        let gateway = address(gateway);
        let answer = Answer { gateway: gateway.clone(), server_time: server_time(), rows };
        Reply { gateway, query, result: Ok(answer) }
    };
    let mut list: Vec<Reply> = full_survey().into_iter().map(|q| reply(1, q)).collect();
    for gateway in [2, 3] {
        list.extend(view_survey().into_iter().map(|q| reply(gateway, q)));
    }
    debug_assert_eq!(SETTINGS.len(), 6);
    list
}
