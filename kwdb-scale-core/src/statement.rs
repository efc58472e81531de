//! The one SQL text for each [`Query`], and its text rows turned into typed [`Rows`] and back.
//!
//! Pure: nothing is sent here. A transport sends [`sql`] by the *simple* protocol, so that every value comes as
//! text and no type has to be looked up in the catalogue, and gives what came back to [`parse`]. The simulator
//! recognises the text with [`query_of`] and answers it with [`encode`].
//!
//! Every statement has the same form: one row of the server's clock, `LEFT JOIN`ed with the rows asked for.
//! So the clock is there even when there are no rows; column `present` is then NULL. Every column is cast to
//! `STRING`. The dialect is that of KWDB 2.2.1 to 3.2.1 (CockroachDB 20.1); all of it is read-only, touches
//! `kwdb_internal` alone and needs the admin role except for [`Query::Cluster`].
//!
//! `kwdb_internal.ranges` is never used: it asks every leaseholder, and hangs on an unavailable range.
//! `ranges_no_leases` scans the meta ranges only. It lists voters (also incoming ones of a joint configuration)
//! and learners; an *outgoing* voter of an unfinished joint configuration is in neither list, which is why one
//! zero count proves nothing and several samples are taken.

mod cell;
mod row;

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::ports::{PortError, PortErrorKind};
use crate::rows::{Answer, Query, Rows};
use crate::topology::{Address, RangeId, StoreId};
use cell::Table;

/// Why an answer could not be understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// The answer has no row, not even the one with the server's clock.
    #[error("{query}: the server answered no row at all")]
    NoRows {
        /// [`name`] of the query.
        query: &'static str,
    },
    /// A column that cannot be done without is not in the answer.
    #[error("{query}: column '{column}' is missing in the answer")]
    MissingColumn {
        /// [`name`] of the query.
        query: &'static str,
        /// The column.
        column: String,
    },
    /// A value that cannot be done without is NULL.
    #[error("{query}: column '{column}' is NULL")]
    Null {
        /// [`name`] of the query.
        query: &'static str,
        /// The column.
        column: String,
    },
    /// A value that does not have the form it should have.
    #[error("{query}: column '{column}' holds '{value}', which is not {expected}")]
    Malformed {
        /// [`name`] of the query.
        query: &'static str,
        /// The column.
        column: String,
        /// The value, cut when long.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A row that has not as many values as there are columns.
    #[error("{query}: a row has {values} values for {columns} columns")]
    Width {
        /// [`name`] of the query.
        query: &'static str,
        /// Values in the row.
        values: usize,
        /// Columns of the answer.
        columns: usize,
    },
    /// The user lacks the admin role, and KWDB then leaves rows out of this answer without an error.
    #[error(
        "{query}: the user does not have the admin role, so rows are left out (cure: GRANT admin TO the user)"
    )]
    NotAdmin {
        /// [`name`] of the query.
        query: &'static str,
    },
}

impl From<StatementError> for PortError {
    fn from(error: StatementError) -> Self {
        let kind = match error {
            StatementError::NotAdmin { .. } => PortErrorKind::Denied,
            _ => PortErrorKind::Malformed,
        };
        Self::new(kind, error.to_string())
    }
}

/// A short name of the query for messages and logs.
pub fn name(query: &Query) -> &'static str {
    match query {
        Query::Cluster => "cluster",
        Query::Liveness => "liveness",
        Query::Nodes => "nodes",
        Query::Stores => "stores",
        Query::Ranges => "ranges",
        Query::ReplicaCounts(_) => "replica counts",
        Query::RangesOn { .. } => "ranges on stores",
        Query::LeasesOn { .. } => "leases of ranges on stores",
        Query::LeasesOf(_) => "leases of ranges",
        Query::Zones => "zones",
        Query::Jobs => "jobs",
        Query::Settings(_) => "settings",
    }
}

/// The columns of the answer to [`sql`], in order.
pub fn columns(query: &Query) -> &'static [&'static str] {
    match query {
        Query::Cluster => &["server_time", "present", "cluster_id", "gateway_node", "build", "is_admin"],
        Query::Liveness => &[
            "server_time",
            "present",
            "node_id",
            "epoch",
            "expiration",
            "draining",
            "decommissioning",
            "upgrading",
            "updated_at",
        ],
        Query::Nodes => &[
            "server_time",
            "present",
            "node_id",
            "address",
            "sql_address",
            "locality",
            "start_mode",
            "build_tag",
            "started_at",
            "is_live",
            "ranges",
            "leases",
        ],
        Query::Stores => &[
            "server_time",
            "present",
            "node_id",
            "store_id",
            "capacity",
            "available",
            "used",
            "range_count",
            "lease_count",
            "ranges_unavailable",
            "ranges_underreplicated",
            "replicate_purgatory",
            "replicate_pending",
            "updated_at",
            "started_at",
            "node_address",
        ],
        Query::Ranges | Query::RangesOn { .. } => &[
            "server_time",
            "present",
            "range_id",
            "range_type",
            "start_pretty",
            "table_id",
            "database_name",
            "table_name",
            "index_name",
            "replicas",
            "learner_replicas",
        ],
        Query::ReplicaCounts(_) => &["server_time", "present", "store_id", "replicas"],
        Query::LeasesOn { .. } | Query::LeasesOf(_) => &["server_time", "present", "range_id", "lease_store"],
        Query::Zones => &[
            "server_time",
            "is_admin",
            "present",
            "zone_id",
            "subzone_id",
            "target",
            "range_name",
            "database_name",
            "table_name",
            "index_name",
            "partition_name",
            "raw_config_sql",
            "full_config_sql",
        ],
        Query::Jobs => &["server_time", "is_admin", "present", "job_id", "job_type", "status", "description"],
        Query::Settings(_) => &["server_time", "present", "variable", "value"],
    }
}

/// The statement, without a semicolon at its end. Only reads.
pub fn sql(query: &Query) -> String {
    let (rows, order) = match query {
        Query::Cluster => (
            "SELECT true AS present, kwdb_internal.cluster_id() AS cluster_id, max(node_id) AS gateway_node, \
             max(CASE WHEN field = 'Version' THEN value END) AS build, kwdb_internal.is_admin() AS is_admin \
             FROM kwdb_internal.node_build_info"
                .to_owned(),
            "r.gateway_node",
        ),
        Query::Liveness => (
            "SELECT true AS present, node_id, epoch, expiration, draining, decommissioning, upgrading, updated_at \
             FROM kwdb_internal.gossip_liveness"
                .to_owned(),
            "r.node_id",
        ),
        Query::Nodes => (
            "SELECT true AS present, node_id, advertise_address AS address, advertise_sql_address AS sql_address, \
             locality, start_mode, build_tag, started_at, is_live, ranges, leases FROM kwdb_internal.gossip_nodes"
                .to_owned(),
            "r.node_id",
        ),
        Query::Stores => (
            "SELECT true AS present, s.node_id, s.store_id, s.capacity, s.available, s.used, s.range_count, \
             s.lease_count, (s.metrics->>'ranges.unavailable')::DECIMAL::INT8 AS ranges_unavailable, \
             (s.metrics->>'ranges.underreplicated')::DECIMAL::INT8 AS ranges_underreplicated, \
             (s.metrics->>'queue.replicate.purgatory')::DECIMAL::INT8 AS replicate_purgatory, \
             (s.metrics->>'queue.replicate.pending')::DECIMAL::INT8 AS replicate_pending, n.updated_at, \
             n.started_at, n.address AS node_address FROM kwdb_internal.kv_store_status AS s \
             LEFT JOIN kwdb_internal.kv_node_status AS n ON n.node_id = s.node_id"
                .to_owned(),
            "r.store_id",
        ),
        Query::Ranges => (format!("SELECT {RANGE_COLUMNS} FROM kwdb_internal.ranges_no_leases"), "r.range_id"),
        Query::ReplicaCounts(stores) => {
            let list = ids(stores.iter().map(|s| s.0));
            (
                format!(
                    "SELECT true AS present, a.store_id, COALESCE(c.replicas, 0) AS replicas \
                     FROM (SELECT unnest({list}) AS store_id) AS a \
                     LEFT JOIN (SELECT u.store_id, count(*) AS replicas \
                     FROM (SELECT unnest(array_cat(replicas, learner_replicas)) AS store_id \
                     FROM kwdb_internal.ranges_no_leases) AS u GROUP BY u.store_id) AS c \
                     ON c.store_id = a.store_id"
                ),
                "r.store_id",
            )
        },
        Query::RangesOn { stores, limit } => {
            let list = ids(stores.iter().map(|s| s.0));
            (
                format!(
                    "SELECT {RANGE_COLUMNS} FROM kwdb_internal.ranges_no_leases \
                     WHERE array_cat(replicas, learner_replicas) && {list} ORDER BY range_id LIMIT {limit}"
                ),
                "r.range_id",
            )
        },
        Query::LeasesOn { stores, limit } => {
            let list = ids(stores.iter().map(|s| s.0));
            (
                format!(
                    "SELECT true AS present, range_id, kwdb_internal.lease_holder(start_key) AS lease_store \
                     FROM (SELECT range_id, start_key FROM kwdb_internal.ranges_no_leases \
                     WHERE array_cat(replicas, learner_replicas) && {list} ORDER BY range_id LIMIT {limit})"
                ),
                "r.range_id",
            )
        },
        Query::LeasesOf(ranges) => {
            let list = ids(ranges.iter().map(|r| r.0));
            (
                format!(
                    "SELECT true AS present, range_id, kwdb_internal.lease_holder(start_key) AS lease_store \
                     FROM (SELECT range_id, start_key FROM kwdb_internal.ranges_no_leases \
                     WHERE range_id = ANY ({list}))"
                ),
                "r.range_id",
            )
        }
        Query::Zones => (
            "SELECT true AS present, zone_id, subzone_id, target, range_name, database_name, table_name, \
             index_name, partition_name, raw_config_sql, full_config_sql FROM kwdb_internal.zones"
                .to_owned(),
            "r.zone_id, r.subzone_id",
        ),
        Query::Jobs => (
            "SELECT true AS present, job_id, COALESCE(job_type, 'UNKNOWN') AS job_type, status, description \
             FROM kwdb_internal.jobs WHERE status NOT IN ('succeeded', 'failed', 'canceled', 'cancelled')"
                .to_owned(),
            "r.job_id",
        ),
        Query::Settings(names) => {
            let list = names.iter().map(|n| literal(&n.to_lowercase())).collect::<Vec<_>>().join(", ");
            (
                format!(
                    "SELECT true AS present, variable, value FROM kwdb_internal.cluster_settings \
                     WHERE variable = ANY (ARRAY[{list}]::STRING[])"
                ),
                "r.variable",
            )
        },
    };
    let columns = columns(query);
    let is_head = |column: &str| {
        column == "server_time" || (column == "is_admin" && matches!(query, Query::Zones | Query::Jobs))
    };
    let mut text = String::from("SELECT ");
    for (i, column) in columns.iter().enumerate() {
        let from = if is_head(column) { "h" } else { "r" };
        let comma = if i == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{from}.{column}::STRING AS {column}");
    }
    let head = if columns.iter().any(|c| *c == "is_admin" && is_head(c)) {
        "now() AS server_time, kwdb_internal.is_admin() AS is_admin"
    } else {
        "now() AS server_time"
    };
    let _ = write!(text, " FROM (SELECT {head}) AS h LEFT JOIN ({rows}) AS r ON true ORDER BY {order}");
    text
}

/// Which query a text made by [`sql`] is; `None` for any other text.
///
/// For servers that stand in for KWDB: they need no SQL engine to answer the closed set.
pub fn query_of(text: &str) -> Option<Query> {
    let text = text.trim().trim_end_matches(';').trim_end();
    let stores = || listed(text, StoreId);
    let mut candidates = vec![
        Query::Cluster,
        Query::Liveness,
        Query::Nodes,
        Query::Stores,
        Query::Ranges,
        Query::Zones,
        Query::Jobs,
    ];
    if text.contains("unnest(ARRAY[") {
        candidates.extend(stores().map(Query::ReplicaCounts));
    }
    if let Some((_, limit)) = text.split_once(" LIMIT ") {
        let limit = limit.split(')').next().and_then(|n| n.parse().ok());
        candidates.extend(stores().zip(limit).map(|(stores, limit)| Query::RangesOn { stores, limit }));
        candidates.extend(stores().zip(limit).map(|(stores, limit)| Query::LeasesOn { stores, limit }));
    }
    if text.contains("WHERE range_id = ANY") {
        candidates.extend(listed(text, RangeId).map(Query::LeasesOf));
    }
    if let Some((_, list)) = text.split_once("WHERE variable = ANY (ARRAY[") {
        candidates.extend(literals(list).map(Query::Settings));
    }
    candidates.into_iter().find(|query| sql(query) == text)
}

/// A text as a SQL literal: `it's` becomes `'it''s'`. KWDB reads a backslash in it as it stands.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Turns the text rows of an answer into typed rows.
///
/// Columns are found by name; more of them, or another order, does no harm. An absent column and a NULL are
/// both `None` where the row type allows it.
pub fn parse<C: AsRef<str>>(
    query: &Query,
    gateway: &Address,
    columns: &[C],
    rows: &[Vec<Option<String>>],
) -> Result<Answer, StatementError> {
    let table = Table::new(name(query), columns, rows)?;
    let server_time = table.first()?.timestamp("server_time")?;
    let server_time =
        server_time.ok_or(StatementError::Null { query: name(query), column: "server_time".to_owned() })?;
    if matches!(query, Query::Zones | Query::Jobs) && table.first()?.bool("is_admin")? == Some(false) {
        return Err(StatementError::NotAdmin { query: name(query) });
    }
    let rows = match query {
        Query::Cluster => Rows::Cluster(
            table
                .each(row::cluster)?
                .into_iter()
                .next()
                .ok_or(StatementError::Null { query: name(query), column: "present".to_owned() })?,
        ),
        Query::Liveness => Rows::Liveness(table.each(row::liveness)?),
        Query::Nodes => Rows::Nodes(table.each(row::node)?),
        Query::Stores => Rows::Stores(table.each(row::store)?),
        Query::Ranges | Query::RangesOn { .. } => Rows::Ranges(table.each(row::range)?),
        Query::ReplicaCounts(_) => Rows::ReplicaCounts(table.each(row::replica_count)?),
        Query::LeasesOn { .. } | Query::LeasesOf(_) => Rows::Leases(table.each(row::lease)?),
        Query::Zones => Rows::Zones(table.each(row::zone)?),
        Query::Jobs => Rows::Jobs(table.each(row::job)?),
        Query::Settings(_) => Rows::Settings(table.each(row::setting)?),
    };
    Ok(Answer { gateway: gateway.clone(), server_time, rows })
}

/// The text rows that [`parse`] turns into `rows`, with the columns of [`columns`].
///
/// The inverse of [`parse`], for servers that stand in for KWDB; the user has the admin role. Rows of another
/// query than `query` yield the answer with no rows.
pub fn encode(
    query: &Query,
    rows: &Rows,
    server_time: Timestamp,
) -> (&'static [&'static str], Vec<Vec<Option<String>>>) {
    let columns = columns(query);
    let values: Vec<Vec<Option<String>>> = match (query, rows) {
        (Query::Cluster, Rows::Cluster(row)) => vec![row::cluster_cells(row)],
        (Query::Liveness, Rows::Liveness(rows)) => rows.iter().map(row::liveness_cells).collect(),
        (Query::Nodes, Rows::Nodes(rows)) => rows.iter().map(row::node_cells).collect(),
        (Query::Stores, Rows::Stores(rows)) => rows.iter().map(row::store_cells).collect(),
        (Query::Ranges | Query::RangesOn { .. }, Rows::Ranges(rows)) => {
            rows.iter().map(row::range_cells).collect()
        }
        (Query::ReplicaCounts(_), Rows::ReplicaCounts(rows)) => {
            rows.iter().map(|r| vec![Some(r.store_id.0.to_string()), Some(r.replicas.to_string())]).collect()
        }
        (Query::LeasesOn { .. } | Query::LeasesOf(_), Rows::Leases(rows)) => {
            rows.iter().map(row::lease_cells).collect()
        }
        (Query::Zones, Rows::Zones(rows)) => rows.iter().map(row::zone_cells).collect(),
        (Query::Jobs, Rows::Jobs(rows)) => rows.iter().map(row::job_cells).collect(),
        (Query::Settings(_), Rows::Settings(rows)) => {
            rows.iter().map(|r| vec![Some(r.name.clone()), Some(r.value.clone())]).collect()
        }
        _ => Vec::new(),
    };
    let mut head = vec![Some(cell::timestamp(server_time))];
    if matches!(query, Query::Zones | Query::Jobs) {
        head.push(Some("true".to_owned()));
    }
    let row = |present: Option<String>, values: Vec<Option<String>>| {
        let mut row = head.clone();
        row.push(present);
        row.extend(values);
        row.resize(columns.len(), None);
        row
    };
    let mut out: Vec<_> = values.into_iter().map(|v| row(Some("true".to_owned()), v)).collect();
    if out.is_empty() {
        out.push(row(None, Vec::new()));
    }
    (columns, out)
}

const RANGE_COLUMNS: &str = "true AS present, range_id, range_type, start_pretty, table_id, database_name, table_name, \
                             index_name, replicas, learner_replicas";

fn ids(ids: impl Iterator<Item = impl ToString>) -> String {
    let list = ids.map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    format!("ARRAY[{list}]::INT8[]")
}

/// Reads what [`ids`] wrote first in a text.
fn listed<N: std::str::FromStr, T>(text: &str, make: fn(N) -> T) -> Option<Vec<T>> {
    let (_, rest) = text.split_once("ARRAY[")?;
    let (list, _) = rest.split_once(']')?;
    let ids = list.split(',').map(str::trim).filter(|id| !id.is_empty());
    ids.map(|id| id.parse().ok().map(make)).collect()
}

/// Reads `'a', 'it''s'` up to the closing bracket.
fn literals(text: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        if rest.starts_with(']') {
            return Some(out);
        }
        rest = rest.strip_prefix('\'')?;
        let mut value = String::new();
        loop {
            let (piece, after) = rest.split_once('\'')?;
            value.push_str(piece);
            match after.strip_prefix('\'') {
                Some(more) => {
                    value.push('\'');
                    rest = more;
                }
                None => {
                    rest = after;
                    break;
                }
            }
        }
        out.push(value);
        rest = rest.strip_prefix(", ").unwrap_or(rest);
    }
}

#[cfg(test)]
mod tests;
