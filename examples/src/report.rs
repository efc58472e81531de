//! A cluster as `kwscale status` shows it.

use jiff::SignedDuration;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::health::{PageHealth, RangeHealth, page_health, range_health};
use kwdb_scale_core::observation::{Node, Observation};
use kwdb_scale_core::request::Inventory;
use kwdb_scale_core::topology::{NodeClass, NodeId, RangeId, StoreId};
use serde::Serialize;

use crate::ui::table;

/// What `status --format json` prints. What is unknown is null, and `unknown` says why.
#[derive(Debug, Serialize)]
pub struct Status {
    schema: &'static str,
    label: String,
    cluster_id: Option<String>,
    gateway: String,
    server_time: Option<String>,
    start_mode: Option<String>,
    version: Option<String>,
    members: usize,
    nodes: Vec<NodeStatus>,
    ranges: Option<Ranges>,
    page_query: Option<PageHealth>,
    settings: Option<std::collections::BTreeMap<String, String>>,
    jobs_running: Option<usize>,
    unknown: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeStatus {
    id: NodeId,
    host: Option<String>,
    address: Option<String>,
    class: NodeClass,
    live: Option<bool>,
    available: Option<bool>,
    decommissioning: Option<bool>,
    draining: Option<bool>,
    replicas: Option<u64>,
    leases: Option<u64>,
    build: Option<String>,
    locality: Option<String>,
    stores: Vec<StoreId>,
}

#[derive(Debug, Serialize)]
struct Ranges {
    total: usize,
    unavailable: usize,
    under_replicated: usize,
    unclear: usize,
    with_learners: usize,
    unmapped: usize,
    good: bool,
    examples: Vec<RangeId>,
}

struct Unknowns(Vec<String>);

impl Unknowns {
    fn take<T>(&mut self, what: &str, fact: Fact<T>) -> Option<T> {
        match fact {
            Fact::Known(value) => Some(value),
            Fact::Unknown(why) => {
                let line = format!("{what}: {why}");
                if !self.0.contains(&line) {
                    self.0.push(line);
                }
                None
            }
        }
    }
}

impl Status {
    /// Takes what an observation knows; `max_age` is how old a status row may be to count for the page's query.
    pub fn of(label: &str, inventory: &Inventory, obs: &Observation, max_age: SignedDuration) -> Self {
        let mut unknown = Unknowns(Vec::new());
        unknown.take("membership", obs.membership.clone());
        let nodes = obs.nodes.values().map(|n| node_status(n, inventory, &mut unknown)).collect();
        let health = range_health(obs, obs.counted_members(), &Default::default());
        Self {
            schema: "kwscale.status/v1",
            label: label.to_owned(),
            cluster_id: unknown.take("cluster id", obs.cluster_id.clone()).map(|id| id.to_string()),
            gateway: obs.gateway.to_string(),
            server_time: unknown.take("server time", obs.server_time.clone()).map(|t| t.to_string()),
            start_mode: unknown.take("start mode", obs.start_mode()).map(|m| m.to_string()),
            version: unknown.take("version", obs.version()).map(|v| v.to_string()),
            members: obs.members().len(),
            nodes,
            ranges: unknown.take("range health", health).map(|h| ranges(&h)),
            page_query: unknown.take("the page's health query", page_health(obs, max_age)),
            settings: unknown.take("settings", obs.settings.clone()),
            jobs_running: unknown
                .take("jobs", obs.jobs.clone())
                .map(|jobs| jobs.iter().filter(|j| j.hinders()).count()),
            unknown: unknown.0,
        }
    }

    /// A table of nodes, and what there is to say of ranges and settings.
    pub fn text(&self) -> String {
        let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
        let mut text = format!(
            "{}: cluster {}, {}, {}, {} live members, by {}\n\n",
            self.label,
            or(&self.cluster_id),
            or(&self.version),
            or(&self.start_mode),
            self.members,
            self.gateway
        );
        let flag = |value: Option<bool>| value.map_or("?", |v| if v { "yes" } else { "no" }).to_owned();
        let count = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |v| v.to_string());
        let rows: Vec<Vec<String>> = self
            .nodes
            .iter()
            .map(|n| {
                vec![
                    n.id.0.to_string(),
                    n.host.clone().unwrap_or_else(|| "-".to_owned()),
                    or(&n.address),
                    n.class.to_string(),
                    flag(n.live),
                    flag(n.available),
                    flag(n.draining),
                    count(n.replicas),
                    count(n.leases),
                    or(&n.build),
                    or(&n.locality),
                ]
            })
            .collect();
        let header = [
            "id",
            "host",
            "address",
            "class",
            "live",
            "available",
            "draining",
            "replicas",
            "leases",
            "build",
            "locality",
        ];
        text.push_str(&table(&header, &rows));
        text.push('\n');
        match &self.ranges {
            Some(r) => text.push_str(&format!(
                "ranges: {} in all, {} unavailable, {} under-replicated, {} being moved{}\n",
                r.total,
                r.unavailable,
                r.under_replicated,
                r.with_learners,
                if r.unmapped > 0 {
                    format!(", {} with a replica on an unknown store", r.unmapped)
                } else {
                    String::new()
                }
            )),
            None => text.push_str("ranges: unknown\n"),
        }
        match &self.settings {
            Some(settings) => {
                for (name, value) in settings {
                    text.push_str(&format!("setting {name} = {value}\n"));
                }
            }
            None => text.push_str("settings: unknown\n"),
        }
        match self.jobs_running {
            Some(0) => {}
            Some(n) => text.push_str(&format!("jobs running that hinder: {n}\n")),
            None => text.push_str("jobs: unknown\n"),
        }
        for line in &self.unknown {
            text.push_str(&format!("unknown: {line}\n"));
        }
        text
    }
}

fn node_status(node: &Node, inventory: &Inventory, unknown: &mut Unknowns) -> NodeStatus {
    // What nobody knows any more of a removed node is no news.
    let removed = node.class == NodeClass::Removed;
    let mut silent = Unknowns(Vec::new());
    let unknown = if removed { &mut silent } else { unknown };
    let name = |what: &str| format!("node {}: {what}", node.id.0);
    let leases: Fact<u64> = if node.stores.is_empty() {
        Fact::unknown("no status row")
    } else {
        node.stores
            .values()
            .map(|s| s.status.lease_count)
            .sum::<Option<u64>>()
            .map_or_else(|| Fact::unknown("a lease count is NULL"), Fact::Known)
    };
    let address = unknown.take(&name("address"), node.address.clone());
    NodeStatus {
        id: node.id,
        // A removed node's address may be another's by now.
        host: address
            .as_ref()
            .filter(|_| !removed)
            .and_then(|a| inventory.host_at(a))
            .map(ToString::to_string),
        address: address.map(|a| a.to_string()),
        class: node.class,
        live: unknown.take(&name("live"), node.is_live.clone()),
        available: unknown.take(&name("available"), node.is_available.clone()),
        decommissioning: unknown.take(&name("decommissioning"), node.decommissioning.clone()),
        draining: unknown.take(&name("draining"), node.draining.clone()),
        replicas: unknown.take(&name("replicas"), node.replicas.clone()),
        leases: unknown.take(&name("leases"), leases),
        build: unknown.take(&name("build"), node.build.clone()),
        locality: unknown.take(&name("locality"), node.locality.clone()).map(|l| l.to_string()),
        stores: node.stores.keys().copied().collect(),
    }
}

fn ranges(health: &RangeHealth) -> Ranges {
    let bad = health.unavailable.iter().copied().chain(health.under_replicated.iter().map(|u| u.range));
    Ranges {
        total: health.total,
        unavailable: health.unavailable.len(),
        under_replicated: health.under_replicated.len(),
        unclear: health.unclear.len(),
        with_learners: health.with_learners,
        unmapped: health.unmapped.len(),
        good: health.is_good(),
        examples: bad.take(10).collect(),
    }
}
/// Node ids, as a person lists them.
pub(crate) fn ids(nodes: &[NodeId]) -> String {
    nodes.iter().map(|n| n.0.to_string()).collect::<Vec<_>>().join(", ")
}
