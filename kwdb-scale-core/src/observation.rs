//! The facts made of rows: what a cluster is at one moment, with each unknown left visible.
//!
//! [`Observation::build`] is the only way from rows to facts, so that SQL, the simulated cluster and recorded
//! output share it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::ports::{AuthorityFacts, Gateway, HostFacts, Means, PortState};
use crate::request::Inventory;
use crate::rows::{
    Answer, ClusterRow, JobRow, LivenessRow, NodeRow, Query, RangeRow, Rows, StoreRow, ZoneRow,
};
use crate::schema::{self, ReadError};
use crate::topology::{
    Address, ClusterId, HostName, Locality, NodeClass, NodeId, RangeId, StartMode, StoreId,
};
use crate::version::Version;

/// Schema id of an observation's JSON form.
pub const SCHEMA: &str = "kwdb-scale.observation/v1";

/// One answer, or why there was none.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Reply {
    /// The node that was asked.
    pub gateway: Address,
    /// What was asked.
    pub query: Query,
    /// The answer or the error in one line.
    pub result: Result<Answer, String>,
}

/// A cluster at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Observation {
    /// [`SCHEMA`].
    pub schema: String,
    /// SQL address of the node through which it was made.
    pub gateway: Address,
    /// That node's own id.
    pub gateway_node: Fact<NodeId>,
    /// That node's clock when it answered the liveness question; unknown when it did not.
    pub server_time: Fact<Timestamp>,
    /// Identity of the cluster.
    pub cluster_id: Fact<ClusterId>,
    /// Whether the connected user has the admin role.
    pub is_admin: Fact<bool>,
    /// Every node that ever joined, Removed ones included.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Whether the table of nodes is complete: unknown when liveness could not be read.
    pub membership: Fact<()>,
    /// Every range descriptor.
    pub ranges: Fact<Vec<RangeRow>>,
    /// Every zone configuration.
    pub zones: Fact<Vec<ZoneRow>>,
    /// The settings of [`crate::policy::SETTINGS`] that were answered. A name that the server does not know is
    /// absent from a known map.
    pub settings: Fact<BTreeMap<String, String>>,
    /// Jobs that have not ended.
    pub jobs: Fact<Vec<JobRow>>,
    /// What other gateways see of liveness.
    pub other_views: Vec<View>,
    /// What was found on hosts that were looked at, or why it could not be.
    pub hosts: BTreeMap<HostName, Fact<HostFacts>>,
    /// Which addresses answer from which hosts, for the hosts that shall join; empty when it was not tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reach: Vec<Reach>,
    /// Who issues certificates for hosts that join; `None` where the request does not [concern](crate::request::Request::concerns_authority)
    /// them, or nobody is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Fact<AuthorityFacts>>,
    /// With what nodes will be marked and stopped; `None` when nobody said, which is held for kwbase on hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub means: Option<Means>,
    /// Hosts where a node is stopped by what owns its process, on the host itself.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub owned: BTreeSet<HostName>,
}

/// What an address is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Between nodes, and SQL unless that has an address of its own.
    Rpc,
    /// SQL at an address of its own.
    Sql,
    /// Time-series data between nodes.
    Brpc,
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rpc => "RPC",
            Self::Sql => "SQL",
            Self::Brpc => "brpc",
        })
    }
}

/// What came of an attempt to connect from a host to an address.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reach {
    /// From where.
    pub from: HostName,
    /// To where.
    pub to: Address,
    /// What the address is for.
    pub service: Service,
    /// Open, closed (somebody refused, so there is a way), or no answer.
    pub state: Fact<PortState>,
}

/// Membership as one gateway sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct View {
    /// SQL address of the gateway.
    pub gateway: Address,
    /// The gateway's own node id.
    pub node: Fact<NodeId>,
    /// The gateway's cluster.
    pub cluster_id: Fact<ClusterId>,
    /// The gateway's clock.
    pub server_time: Fact<Timestamp>,
    /// Liveness by this gateway.
    pub liveness: Fact<Vec<LivenessRow>>,
    /// By how much its clock is surely ahead (or, negative, behind) of the first gateway's: how far its answer lies
    /// outside the first gateway's answers before and after it. Zero when it lies between them. Unknown without
    /// both.
    pub skew: Fact<SignedDuration>,
}

/// A node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Derived; see [`NodeClass`].
    pub class: NodeClass,
    /// Liveness record not expired (and not upgrading): `is_available` of `node status`.
    pub is_available: Fact<bool>,
    /// Heard by gossip: `is_live` of `node status`.
    pub is_live: Fact<bool>,
    /// The decommissioning bit.
    pub decommissioning: Fact<bool>,
    /// Shutting down.
    pub draining: Fact<bool>,
    /// Being upgraded.
    pub upgrading: Fact<bool>,
    /// When the liveness record expires.
    pub expiration: Fact<Timestamp>,
    /// Advertised RPC address: by gossip, or, where that has forgotten the node, by the status that the node wrote last.
    pub address: Fact<Address>,
    /// Advertised SQL address.
    pub sql_address: Fact<Address>,
    /// Locality.
    pub locality: Fact<Locality>,
    /// Start mode.
    pub start_mode: Fact<StartMode>,
    /// Build tag.
    pub build: Fact<String>,
    /// Incarnation.
    pub started_at: Fact<Timestamp>,
    /// Its stores; empty when no status row was found, which is not the same as having none.
    pub stores: BTreeMap<StoreId, Store>,
    /// Ranges that name one of its stores, learners counted, by descriptors.
    pub replicas: Fact<u64>,
}

/// A store of a node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Store {
    /// Its id.
    pub id: StoreId,
    /// The status row.
    pub status: StoreRow,
    /// Ranges that name it, learners counted, by descriptors.
    pub replicas: Fact<u64>,
}

impl Node {
    /// The release, parsed from the build tag.
    pub fn version(&self) -> Fact<Version> {
        match &self.build {
            Fact::Known(tag) => match Version::parse(tag) {
                Ok(version) => Fact::Known(version),
                Err(e) => Fact::Unknown(e.to_string()),
            },
            Fact::Unknown(why) => Fact::Unknown(why.clone()),
        }
    }

    /// Marked, running and empty: nothing of it moves any more. It was left so ([`Finish::LeaveDrained`]), or it was
    /// removed and started again on its old store.
    ///
    /// [`Finish::LeaveDrained`]: crate::request::Finish::LeaveDrained
    pub fn is_drained(&self) -> bool {
        self.class == NodeClass::Leaving && self.replicas == Fact::Known(0)
    }

    /// Live and available by everything that is known: `is_available` and `is_live` both true.
    pub fn is_healthy(&self) -> Fact<bool> {
        match (&self.is_available, &self.is_live) {
            (Fact::Known(false), _) | (_, Fact::Known(false)) => Fact::Known(false),
            (Fact::Known(true), Fact::Known(true)) => Fact::Known(true),
            (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => Fact::Unknown(why.clone()),
        }
    }
}

/// The questions of a full observation, for the first gateway.
pub fn full_survey() -> Vec<Query> {
    vec![
        Query::Cluster,
        Query::Liveness,
        Query::Nodes,
        Query::Stores,
        Query::Ranges,
        Query::Zones,
        Query::Jobs,
        Query::Settings(crate::policy::SETTINGS.iter().map(|s| (*s).to_owned()).collect()),
    ]
}

/// The questions for each further gateway.
pub fn view_survey() -> Vec<Query> {
    vec![Query::Cluster, Query::Liveness]
}

struct Found<'a, T> {
    value: Fact<&'a T>,
    time: Fact<Timestamp>,
}

fn find<'a, T>(
    replies: &'a [Reply],
    gateway: &Address,
    what: &str,
    pick: impl Fn(&'a Rows) -> Option<&'a T>,
    asks: impl Fn(&Query) -> bool,
) -> Found<'a, T> {
    let mut why = format!("{what} was not asked of {gateway}");
    for reply in replies.iter().filter(|r| r.gateway == *gateway && asks(&r.query)) {
        match &reply.result {
            Ok(answer) => match pick(&answer.rows) {
                Some(value) => {
                    return Found { value: Fact::Known(value), time: Fact::Known(answer.server_time) };
                }
                None => why = format!("{gateway} answered {what} with other rows"),
            },
            Err(e) => why = e.clone(),
        }
    }
    Found { value: Fact::Unknown(why.clone()), time: Fact::Unknown(why) }
}

macro_rules! find {
    ($replies:expr, $gateway:expr, $variant:ident) => {
        find($replies, $gateway, stringify!($variant), |r| if let Rows::$variant(v) = r { Some(v) } else { None }, |q| {
            matches!(q, find!(@query $variant))
        })
    };
    (@query Settings) => { Query::Settings(_) };
    (@query $variant:ident) => { Query::$variant };
}

impl Observation {
    /// Reads an observation that was written as JSON; fields that a later minor version added are passed over.
    ///
    /// # Errors
    /// [`ReadError`]: another major version, or no observation.
    pub fn from_json(text: &str) -> Result<Self, ReadError> {
        schema::read(text, SCHEMA)
    }

    /// Makes facts of rows, given in the order of asking. `primary` is the gateway whose answers count; answers of others become
    /// [`other_views`](Self::other_views). `hosts` is what was found on hosts.
    pub fn build(primary: &Address, replies: &[Reply], hosts: BTreeMap<HostName, Fact<HostFacts>>) -> Self {
        let cluster = find!(replies, primary, Cluster).value;
        let liveness = find!(replies, primary, Liveness);
        let nodes = find!(replies, primary, Nodes).value;
        let stores = find!(replies, primary, Stores).value;
        let ranges = find!(replies, primary, Ranges).value;
        let zones = find!(replies, primary, Zones).value;
        let jobs = find!(replies, primary, Jobs).value;
        let settings = find!(replies, primary, Settings).value;
        let counts = ranges.as_ref().map(|r| count_replicas(r));

        let node_table = match (&liveness.value, &liveness.time) {
            (Fact::Known(rows), Fact::Known(now)) => build_nodes(
                rows,
                *now,
                nodes.as_ref().map(|n| n.as_slice()),
                stores.as_ref().map(|s| s.as_slice()),
                counts.as_ref(),
            ),
            _ => BTreeMap::new(),
        };
        let mut others: Vec<Address> = Vec::new();
        for reply in replies {
            if reply.gateway != *primary && !others.contains(&reply.gateway) {
                others.push(reply.gateway.clone());
            }
        }
        Self {
            schema: SCHEMA.to_owned(),
            gateway: primary.clone(),
            gateway_node: cluster.clone().map(|c: &ClusterRow| c.gateway_node),
            server_time: liveness.time,
            cluster_id: cluster.clone().map(|c: &ClusterRow| c.cluster_id.clone()),
            is_admin: flatten(cluster, "is_admin", |c| c.is_admin),
            membership: liveness.value.map(|_| ()),
            nodes: node_table,
            ranges: ranges.map(Clone::clone),
            zones: zones.map(Clone::clone),
            settings: settings
                .map(|rows| rows.iter().map(|row| (row.name.clone(), row.value.clone())).collect()),
            jobs: jobs.map(Clone::clone),
            other_views: others.into_iter().map(|gateway| build_view(primary, gateway, replies)).collect(),
            hosts,
            reach: Vec::new(),
            authority: None,
            means: None,
            owned: BTreeSet::new(),
        }
    }

    /// Nodes of a class.
    pub fn of_class(&self, class: NodeClass) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |n| n.class == class)
    }

    /// Nodes whose decommissioning bit is surely not set, live, dead or of unknown life: what the allocator counts.
    pub fn counted_members(&self) -> usize {
        self.nodes.values().filter(|n| n.decommissioning == Fact::Known(false)).count()
    }

    /// Ids of live Members.
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.of_class(NodeClass::Member).map(|n| n.id).collect()
    }

    /// The node that owns a store.
    pub fn node_of_store(&self, store: StoreId) -> Option<&Node> {
        self.nodes.values().find(|n| n.stores.contains_key(&store))
    }

    /// Nodes that are not Removed and advertise `address`. More than one is a conflict; Removed nodes never count.
    pub fn at_address(&self, address: &Address) -> Vec<&Node> {
        self.nodes
            .values()
            .filter(|n| n.class != NodeClass::Removed && n.address.known() == Some(address))
            .collect()
    }

    /// The one start mode of all nodes that are not Removed. A dead node whose descriptor has left the gossip (two
    /// hours after its death) has no say.
    pub fn start_mode(&self) -> Fact<StartMode> {
        let mut found: Option<&StartMode> = None;
        for node in self.nodes.values().filter(|n| n.class != NodeClass::Removed) {
            match (&node.start_mode, found) {
                (Fact::Unknown(_), _) if node.class == NodeClass::Dead => {}
                (Fact::Unknown(why), _) => return Fact::Unknown(format!("of {}: {why}", node.id)),
                (Fact::Known(mode), None) => found = Some(mode),
                (Fact::Known(mode), Some(other)) if mode != other => {
                    return Fact::Unknown(format!("differs: {other} and {mode} ({})", node.id));
                }
                _ => {}
            }
        }
        Fact::from_option(found.cloned(), "no node is known")
    }

    /// The lowest release among nodes that are not Removed. A dead node whose descriptor has left the gossip has no
    /// say.
    pub fn version(&self) -> Fact<Version> {
        let mut lowest: Option<Version> = None;
        for node in self.nodes.values().filter(|n| n.class != NodeClass::Removed) {
            match node.version() {
                Fact::Known(v) => lowest = Some(lowest.map_or(v, |l| l.min(v))),
                Fact::Unknown(_) if node.class == NodeClass::Dead && node.build.known().is_none() => {}
                Fact::Unknown(why) => return Fact::Unknown(format!("of {}: {why}", node.id)),
            }
        }
        Fact::from_option(lowest, "no node is known")
    }

    /// A setting in force: `None` inside a known fact when the server does not know the name.
    pub fn setting(&self, name: &str) -> Fact<Option<&str>> {
        self.settings.as_ref().map(|all| all.get(name).map(String::as_str))
    }

    /// The node as a gateway, when its addresses are known.
    pub fn gateway_of(&self, node: &Node, inventory: &Inventory) -> Option<Gateway> {
        let address = node.address.known()?.clone();
        let sql_address = node.sql_address.known().cloned().unwrap_or_else(|| address.clone());
        let host = inventory.host_at(&address).cloned();
        Some(Gateway { node: node.id, address, sql_address, host })
    }

    /// The range with this id.
    pub fn range(&self, id: RangeId) -> Option<&RangeRow> {
        self.ranges.known()?.iter().find(|r| r.range_id == id)
    }
}

fn flatten<T>(row: Fact<&T>, what: &str, get: impl Fn(&T) -> Option<bool>) -> Fact<bool> {
    match row {
        Fact::Known(row) => Fact::from_option(get(row), format!("{what} is NULL")),
        Fact::Unknown(why) => Fact::Unknown(why),
    }
}

fn count_replicas(ranges: &[RangeRow]) -> BTreeMap<StoreId, u64> {
    let mut counts = BTreeMap::new();
    for range in ranges {
        let stores: BTreeSet<_> = range.replicas.iter().chain(&range.learners).copied().collect();
        for store in stores {
            *counts.entry(store).or_insert(0) += 1;
        }
    }
    counts
}

fn build_view(primary: &Address, gateway: Address, replies: &[Reply]) -> View {
    let cluster = find!(replies, &gateway, Cluster).value;
    let liveness = find!(replies, &gateway, Liveness);
    View {
        node: cluster.clone().map(|c: &ClusterRow| c.gateway_node),
        cluster_id: cluster.map(|c| c.cluster_id.clone()),
        server_time: liveness.time,
        liveness: liveness.value.map(Clone::clone),
        skew: skew(primary, &gateway, replies),
        gateway,
    }
}

/// Replies are in the order of asking, one after another.
fn skew(primary: &Address, gateway: &Address, replies: &[Reply]) -> Fact<SignedDuration> {
    let why = "the first gateway did not answer before and after";
    let time = |r: &Reply| r.result.as_ref().ok().map(|a| a.server_time);
    let asked = |r: &Reply| r.gateway == *gateway && r.query == Query::Liveness;
    let Some(at) = replies.iter().position(asked) else { return Fact::unknown(why) };
    let (before, after) = replies.split_at(at);
    let first = before.iter().rev().filter(|r| r.gateway == *primary).find_map(time);
    let last = after.iter().filter(|r| r.gateway == *primary).find_map(time);
    match (after.first().and_then(time), first, last) {
        (Some(theirs), Some(first), _) if theirs < first => Fact::Known(theirs.duration_since(first)),
        (Some(theirs), _, Some(last)) if theirs > last => Fact::Known(theirs.duration_since(last)),
        (Some(_), Some(_), Some(_)) => Fact::Known(SignedDuration::ZERO),
        _ => Fact::unknown(why),
    }
}

fn build_nodes(
    liveness: &[LivenessRow],
    now: Timestamp,
    nodes: Fact<&[NodeRow]>,
    stores: Fact<&[StoreRow]>,
    counts: Fact<&BTreeMap<StoreId, u64>>,
) -> BTreeMap<NodeId, Node> {
    let owned: BTreeSet<StoreId> =
        stores.known().into_iter().flat_map(|rows| rows.iter().map(|s| s.store_id)).collect();
    let mut table = BTreeMap::new();
    for row in liveness {
        let id = row.node_id;
        let detail = nodes.known().and_then(|rows| rows.iter().find(|n| n.node_id == id));
        let no_detail = nodes
            .why_unknown()
            .map_or_else(|| format!("the gateway's gossip has no descriptor of {id}"), str::to_owned);
        let text = |what: &str| match detail {
            Some(_) => format!("{what} of {id} is NULL"),
            None => no_detail.clone(),
        };
        let own_stores: Vec<&StoreRow> =
            stores.known().into_iter().flat_map(|rows| rows.iter().filter(|s| s.node_id == id)).collect();
        // The gossip forgets a node two hours after its end, or when all others restart; what the node wrote of itself
        // stays.
        let told = detail.and_then(|d| d.address.clone());
        let address = told.or_else(|| own_stores.iter().find_map(|s| s.node_address.clone()));
        let replicas = node_replicas(id, &own_stores, &stores, &owned, &counts);
        let expired = row.expiration.map(|e| e <= now);
        let upgrading = Fact::from_option(row.upgrading, format!("upgrading of {id} is NULL"));
        let is_available = match (expired, row.upgrading) {
            (Some(true), _) => Fact::Known(false),
            (Some(false), Some(upgrading)) => Fact::Known(!upgrading),
            _ => Fact::unknown(format!("expiration of {id} is NULL")),
        };
        let node = Node {
            id,
            class: classify(row.decommissioning, expired, &replicas),
            is_available,
            is_live: Fact::from_option(detail.and_then(|d| d.is_live), text("is_live")),
            decommissioning: Fact::from_option(
                row.decommissioning,
                format!("decommissioning of {id} is NULL"),
            ),
            draining: Fact::from_option(row.draining, format!("draining of {id} is NULL")),
            upgrading,
            expiration: Fact::from_option(row.expiration, format!("expiration of {id} is NULL")),
            address: Fact::from_option(address, text("address")),
            sql_address: Fact::from_option(detail.and_then(|d| d.sql_address.clone()), text("sql_address")),
            locality: Fact::from_option(detail.and_then(|d| d.locality.clone()), text("locality")),
            start_mode: Fact::from_option(detail.and_then(|d| d.start_mode.clone()), text("start_mode")),
            build: Fact::from_option(detail.and_then(|d| d.build.clone()), text("build")),
            started_at: Fact::from_option(detail.and_then(|d| d.started_at), text("started_at")),
            stores: own_stores
                .into_iter()
                .map(|status| {
                    let replicas = counts.clone().map(|c| c.get(&status.store_id).copied().unwrap_or(0));
                    (status.store_id, Store { id: status.store_id, status: status.clone(), replicas })
                })
                .collect(),
            replicas,
        };
        table.insert(id, node);
    }
    table
}

/// Replicas of a node by descriptors. A node without a status row has none only when every store that any
/// descriptor names is known to be another node's.
fn node_replicas(
    id: NodeId,
    own: &[&StoreRow],
    stores: &Fact<&[StoreRow]>,
    owned: &BTreeSet<StoreId>,
    counts: &Fact<&BTreeMap<StoreId, u64>>,
) -> Fact<u64> {
    match (stores, counts) {
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => Fact::Unknown(why.clone()),
        (Fact::Known(_), Fact::Known(counts)) => {
            if own.is_empty() && counts.keys().any(|s| !owned.contains(s)) {
                return Fact::unknown(format!("no store of {id} is known"));
            }
            Fact::Known(own.iter().map(|s| counts.get(&s.store_id).copied().unwrap_or(0)).sum())
        }
    }
}

fn classify(decommissioning: Option<bool>, expired: Option<bool>, replicas: &Fact<u64>) -> NodeClass {
    match (decommissioning, expired) {
        (Some(false), Some(false)) => NodeClass::Member,
        (Some(false), Some(true)) => NodeClass::Dead,
        (Some(true), Some(false)) => NodeClass::Leaving,
        (Some(true), Some(true)) => match replicas {
            Fact::Known(0) => NodeClass::Removed,
            Fact::Known(_) => NodeClass::Leaving,
            Fact::Unknown(_) => NodeClass::Unknown,
        },
        _ => NodeClass::Unknown,
    }
}
