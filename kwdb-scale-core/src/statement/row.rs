//! One row of each query: from its text values, and back to them in the order of the columns.

use super::StatementError;
use super::cell::{self, Cells};
use crate::rows::{
    ClusterRow, JobRow, LeaseRow, LivenessRow, NodeRow, RangeKind, RangeRow, ReplicaCountRow, SettingRow,
    StoreRow, ZoneRow,
};
use crate::topology::{Address, Locality, NodeId, RangeId, StartMode, StoreId};

pub(super) fn cluster(c: &Cells<'_>) -> Result<ClusterRow, StatementError> {
    Ok(ClusterRow {
        cluster_id: c.required("cluster_id")?.into(),
        gateway_node: NodeId(c.required_number("gateway_node")?),
        build: c.filled("build"),
        is_admin: c.bool("is_admin")?,
    })
}

pub(super) fn cluster_cells(r: &ClusterRow) -> Vec<Option<String>> {
    vec![
        Some(r.cluster_id.to_string()),
        Some(r.gateway_node.0.to_string()),
        r.build.clone(),
        r.is_admin.map(|b| b.to_string()),
    ]
}

pub(super) fn liveness(c: &Cells<'_>) -> Result<LivenessRow, StatementError> {
    Ok(LivenessRow {
        node_id: NodeId(c.required_number("node_id")?),
        epoch: c.number("epoch")?,
        expiration: c.expiration("expiration")?,
        draining: c.bool("draining")?,
        decommissioning: c.bool("decommissioning")?,
        upgrading: c.bool("upgrading")?,
        updated_at: c.timestamp("updated_at")?,
    })
}

pub(super) fn liveness_cells(r: &LivenessRow) -> Vec<Option<String>> {
    vec![
        Some(r.node_id.0.to_string()),
        r.epoch.map(|n| n.to_string()),
        r.expiration.map(cell::expiration),
        r.draining.map(|b| b.to_string()),
        r.decommissioning.map(|b| b.to_string()),
        r.upgrading.map(|b| b.to_string()),
        r.updated_at.map(cell::timestamp),
    ]
}

pub(super) fn node(c: &Cells<'_>) -> Result<NodeRow, StatementError> {
    Ok(NodeRow {
        node_id: NodeId(c.required_number("node_id")?),
        address: c.filled("address").map(Address::from),
        sql_address: c.filled("sql_address").map(Address::from),
        locality: c.filled("locality").map(Locality::from),
        start_mode: c.filled("start_mode").map(StartMode::from),
        build: c.filled("build_tag"),
        started_at: c.timestamp("started_at")?,
        is_live: c.bool("is_live")?,
        ranges: c.count("ranges")?,
        leases: c.count("leases")?,
    })
}

pub(super) fn node_cells(r: &NodeRow) -> Vec<Option<String>> {
    vec![
        Some(r.node_id.0.to_string()),
        r.address.as_ref().map(Address::to_string),
        r.sql_address.as_ref().map(Address::to_string),
        r.locality.as_ref().map(Locality::to_string),
        r.start_mode.as_ref().map(StartMode::to_string),
        r.build.clone(),
        r.started_at.map(cell::timestamp),
        r.is_live.map(|b| b.to_string()),
        r.ranges.map(|n| n.to_string()),
        r.leases.map(|n| n.to_string()),
    ]
}

pub(super) fn store(c: &Cells<'_>) -> Result<StoreRow, StatementError> {
    Ok(StoreRow {
        node_id: NodeId(c.required_number("node_id")?),
        store_id: StoreId(c.required_number("store_id")?),
        capacity: c.count("capacity")?,
        available: c.count("available")?,
        used: c.count("used")?,
        range_count: c.count("range_count")?,
        lease_count: c.count("lease_count")?,
        ranges_unavailable: c.count("ranges_unavailable")?,
        ranges_underreplicated: c.count("ranges_underreplicated")?,
        replicate_purgatory: c.count("replicate_purgatory")?,
        replicate_pending: c.count("replicate_pending")?,
        updated_at: c.timestamp("updated_at")?,
        started_at: c.timestamp("started_at")?,
        node_address: c.filled("node_address").map(Address::from),
    })
}

pub(super) fn store_cells(r: &StoreRow) -> Vec<Option<String>> {
    let number = |n: Option<u64>| n.map(|n| n.to_string());
    vec![
        Some(r.node_id.0.to_string()),
        Some(r.store_id.0.to_string()),
        number(r.capacity),
        number(r.available),
        number(r.used),
        number(r.range_count),
        number(r.lease_count),
        number(r.ranges_unavailable),
        number(r.ranges_underreplicated),
        number(r.replicate_purgatory),
        number(r.replicate_pending),
        r.updated_at.map(cell::timestamp),
        r.started_at.map(cell::timestamp),
        r.node_address.as_ref().map(Address::to_string),
    ]
}

pub(super) fn range(c: &Cells<'_>) -> Result<RangeRow, StatementError> {
    let start_key = c.required("start_pretty")?.to_owned();
    // The descriptor carries a table id for time-series ranges only; the key says it for the others.
    let table_id = match c.number("table_id")?.unwrap_or(0) {
        0 => start_key.strip_prefix("/Table/").and_then(|k| k.split('/').next()).and_then(|n| n.parse().ok()),
        id => Some(id),
    };
    Ok(RangeRow {
        range_id: RangeId(c.required_number("range_id")?),
        kind: match c.text("range_type") {
            Some("DEFAULT_RANGE") => RangeKind::Relational,
            Some("TS_RANGE") => RangeKind::TimeSeries,
            _ => RangeKind::Unknown,
        },
        start_key,
        table_id,
        database: c.filled("database_name"),
        table: c.filled("table_name"),
        index: c.filled("index_name"),
        replicas: c.ids("replicas")?,
        learners: c.ids("learner_replicas")?,
    })
}

pub(super) fn range_cells(r: &RangeRow) -> Vec<Option<String>> {
    // KWDB has these columns NOT NULL: absent is the empty text, or zero.
    let or_empty = |text: &Option<String>| Some(text.clone().unwrap_or_default());
    vec![
        Some(r.range_id.0.to_string()),
        match r.kind {
            RangeKind::Relational => Some("DEFAULT_RANGE".to_owned()),
            RangeKind::TimeSeries => Some("TS_RANGE".to_owned()),
            RangeKind::Unknown => None,
        },
        Some(r.start_key.clone()),
        Some(r.table_id.unwrap_or(0).to_string()),
        or_empty(&r.database),
        or_empty(&r.table),
        or_empty(&r.index),
        Some(cell::ids(&r.replicas)),
        Some(cell::ids(&r.learners)),
    ]
}

pub(super) fn replica_count(c: &Cells<'_>) -> Result<ReplicaCountRow, StatementError> {
    Ok(ReplicaCountRow {
        store_id: StoreId(c.required_number("store_id")?),
        replicas: c.required_number("replicas")?,
    })
}

pub(super) fn lease(c: &Cells<'_>) -> Result<LeaseRow, StatementError> {
    Ok(LeaseRow {
        range_id: RangeId(c.required_number("range_id")?),
        lease_store: c.number("lease_store")?.map(StoreId),
    })
}

pub(super) fn lease_cells(row: &LeaseRow) -> Vec<Option<String>> {
    vec![Some(row.range_id.0.to_string()), row.lease_store.map(|store| store.0.to_string())]
}

pub(super) fn zone(c: &Cells<'_>) -> Result<ZoneRow, StatementError> {
    Ok(ZoneRow {
        zone_id: c.required_number("zone_id")?,
        subzone_id: c.required_number("subzone_id")?,
        target: c.filled("target"),
        range_name: c.filled("range_name"),
        database: c.filled("database_name"),
        table: c.filled("table_name"),
        index: c.filled("index_name"),
        partition: c.filled("partition_name"),
        raw_config_sql: c.filled("raw_config_sql"),
        full_config_sql: c.filled("full_config_sql"),
    })
}

pub(super) fn zone_cells(r: &ZoneRow) -> Vec<Option<String>> {
    vec![
        Some(r.zone_id.to_string()),
        Some(r.subzone_id.to_string()),
        r.target.clone(),
        r.range_name.clone(),
        r.database.clone(),
        r.table.clone(),
        r.index.clone(),
        r.partition.clone(),
        r.raw_config_sql.clone(),
        r.full_config_sql.clone(),
    ]
}

pub(super) fn job(c: &Cells<'_>) -> Result<JobRow, StatementError> {
    Ok(JobRow {
        job_id: c.required_number("job_id")?,
        job_type: c.required("job_type")?.to_owned(),
        status: c.required("status")?.to_owned(),
        description: c.filled("description"),
    })
}

pub(super) fn job_cells(r: &JobRow) -> Vec<Option<String>> {
    vec![
        Some(r.job_id.to_string()),
        Some(r.job_type.clone()),
        Some(r.status.clone()),
        Some(r.description.clone().unwrap_or_default()),
    ]
}

pub(super) fn setting(c: &Cells<'_>) -> Result<SettingRow, StatementError> {
    Ok(SettingRow { name: c.required("variable")?.to_owned(), value: c.required("value")?.to_owned() })
}
