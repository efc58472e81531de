//! `node status` and `node ls`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::rows::{LivenessRow, NodeRow, Query, Rows, StoreRow};
use kwdb_scale_core::topology::{Address, NodeId};

use super::args::Args;
use super::connect::Client;
use super::format::Format;
use super::{Output, Step};
use crate::model::Cluster;

const BASE: [&str; 10] = [
    "id",
    "address",
    "sql_address",
    "build",
    "started_at",
    "updated_at",
    "locality",
    "start_mode",
    "is_available",
    "is_live",
];
const RANGES: [&str; 5] =
    ["replicas_leaders", "replicas_leaseholders", "ranges", "ranges_unavailable", "ranges_underreplicated"];
const STATS: [&str; 5] = ["live_bytes", "key_bytes", "value_bytes", "intent_bytes", "system_bytes"];
const DECOMMISSION: [&str; 3] = ["gossiped_replicas", "is_decommissioning", "is_draining"];

pub(crate) fn status(
    cluster: &Cluster,
    args: &Args,
    client: &Client,
    (since, zone): (Timestamp, &str),
    out: &mut Output,
) -> Step {
    let id = match args.words.first().map(|w| (w, w.parse::<u32>())) {
        Some((word, Err(_))) => return Step::Fail(format!("could not parse node_id {word}")),
        Some((_, Ok(id))) => Some(NodeId(id)),
        None => None,
    };
    let all = args.is_set("all");
    let decommission = all || args.is_set("decommission");
    let rows = match read(cluster, client, since, decommission, out) {
        Ok(rows) => rows,
        Err(step) => return step,
    };
    let now = cluster.now();
    let rows: Vec<&Row> = rows.iter().filter(|r| id.is_none_or(|id| r.liveness.node_id == id)).collect();
    if let (Some(id), true) = (id, rows.is_empty()) {
        return Step::Fail(format!("node {} doesn't exist", id.0));
    }
    let mut columns = BASE.to_vec();
    let groups = [
        (all || args.is_set("ranges"), &RANGES[..]),
        (all || args.is_set("stats"), &STATS[..]),
        (decommission, &DECOMMISSION[..]),
    ];
    columns.extend(groups.iter().filter(|(shown, _)| *shown).flat_map(|(_, names)| names.iter().copied()));
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|r| columns.iter().map(|c| r.field(c, now, zone).unwrap_or_else(|| "NULL".to_owned())).collect())
        .collect();
    out.stdout += &format_of(args).print(&columns, &table);
    Step::Done
}

pub(crate) fn ls(
    cluster: &Cluster,
    args: &Args,
    client: &Client,
    since: Timestamp,
    out: &mut Output,
) -> Step {
    match read(cluster, client, since, false, out) {
        Ok(rows) => {
            let table: Vec<Vec<String>> =
                rows.iter().map(|r| vec![r.liveness.node_id.0.to_string()]).collect();
            out.stdout += &format_of(args).print(&["id"], &table);
            Step::Done
        }
        Err(step) => step,
    }
}

pub(crate) fn format_of(args: &Args) -> Format {
    args.get("format").and_then(Format::parse).unwrap_or(Format::Tsv)
}

struct Row {
    liveness: LivenessRow,
    node: Option<NodeRow>,
    stores: Vec<StoreRow>,
}

fn read(
    cluster: &Cluster,
    client: &Client,
    since: Timestamp,
    hidden_too: bool,
    out: &mut Output,
) -> Result<Vec<Row>, Step> {
    let gateway = match client.sql(cluster, since, &mut out.stdout) {
        Ok(Some(gateway)) => gateway,
        Ok(None) => {
            let soon = cluster.now() + Duration::from_secs(1);
            return Err(Step::At(soon.min(Client::gives_up(since))));
        }
        Err(text) => return Err(Step::Fail(text)),
    };
    let now = cluster.now();
    let mut rows: Vec<Row> = liveness(cluster, &gateway)
        .into_iter()
        .map(|liveness| Row { liveness, node: None, stores: Vec::new() })
        .filter(|r| hidden_too || r.liveness.decommissioning == Some(false) || r.unexpired(now))
        .collect();
    let mut nodes: BTreeMap<NodeId, NodeRow> = match cluster.rows(&gateway, &Query::Nodes).map(|a| a.rows) {
        Ok(Rows::Nodes(nodes)) => nodes.into_iter().map(|n| (n.node_id, n)).collect(),
        _ => BTreeMap::new(),
    };
    let stores = match cluster.rows(&gateway, &Query::Stores).map(|a| a.rows) {
        Ok(Rows::Stores(stores)) => stores,
        _ => Vec::new(),
    };
    for row in &mut rows {
        let id = row.liveness.node_id;
        row.node = nodes.remove(&id);
        row.stores = stores.iter().filter(|s| s.node_id == id).cloned().collect();
    }
    Ok(rows)
}

fn liveness(cluster: &Cluster, gateway: &Address) -> Vec<LivenessRow> {
    match cluster.rows(gateway, &Query::Liveness).map(|a| a.rows) {
        Ok(Rows::Liveness(rows)) => rows,
        _ => Vec::new(),
    }
}

impl Row {
    fn unexpired(&self, now: Timestamp) -> bool {
        self.liveness.expiration.is_some_and(|e| e > now)
    }

    fn sum(&self, f: impl Fn(&StoreRow) -> Option<u64>) -> Option<String> {
        let values: Option<Vec<u64>> = self.stores.iter().map(f).collect();
        values.filter(|v| !v.is_empty()).map(|v| v.iter().sum::<u64>().to_string())
    }

    /// The text of a column; `None` is SQL NULL.
    fn field(&self, column: &str, now: Timestamp, zone: &str) -> Option<String> {
        let n = self.node.as_ref();
        let flag = |b: Option<bool>| b.map(|b| b.to_string());
        match column {
            "id" => Some(self.liveness.node_id.0.to_string()),
            "address" => n?.address.as_ref().map(ToString::to_string),
            "sql_address" => n?.sql_address.as_ref().map(ToString::to_string),
            "build" => n?.build.clone(),
            "started_at" => n?.started_at.map(|t| time_text(t) + zone),
            "updated_at" => self.liveness.updated_at.map(|t| time_text(t) + zone),
            "locality" => n?.locality.as_ref().map(ToString::to_string),
            "start_mode" => n?.start_mode.as_ref().map(ToString::to_string),
            "is_available" => {
                Some((self.unexpired(now) && self.liveness.upgrading != Some(true)).to_string())
            }
            "is_live" => Some(n.and_then(|n| n.is_live).unwrap_or(false).to_string()),
            "replicas_leaders" | "replicas_leaseholders" => self.sum(|s| s.lease_count),
            "ranges" => self.sum(|s| s.range_count),
            "ranges_unavailable" => self.sum(|s| s.ranges_unavailable),
            "ranges_underreplicated" => self.sum(|s| s.ranges_underreplicated),
            "live_bytes" => self.sum(|s| s.used),
            "key_bytes" => self.sum(|s| Some(s.used? / 20)),
            "value_bytes" => self.sum(|s| Some(s.used? - s.used? / 20)),
            "intent_bytes" => self.sum(|_| Some(0)),
            "system_bytes" => self.sum(|s| Some(s.range_count? * 430)),
            "gossiped_replicas" => n?.ranges.map(|r| r.to_string()),
            "is_decommissioning" => flag(self.liveness.decommissioning),
            "is_draining" => flag(self.liveness.draining),
            _ => None,
        }
    }
}

/// `2026-11-23 12:54:56.31261`: microseconds without trailing zeros, no zone (V3.2.1).
fn time_text(t: Timestamp) -> String {
    let whole = t.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let fraction = format!(".{:06}", t.subsec_nanosecond().unsigned_abs() / 1000);
    format!("{whole}{}", fraction.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_as_kwbase_prints_them() {
        let text = |s: &str| super::time_text(s.parse().unwrap());
        assert_eq!(text("2026-11-23T12:54:56.312610Z"), "2026-11-23 12:54:56.31261");
        assert_eq!(text("2026-11-23T12:54:56Z"), "2026-11-23 12:54:56");
    }
}
