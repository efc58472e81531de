//! Making one full observation through the ports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{join, join_all};

use super::perform::look_at_authority;
use super::reach::reach;
use crate::fact::Fact;
use crate::observation::{Observation, Reply, full_survey, view_survey};
use crate::ports::{CertificateControl, FactSource, HostFacts, NodeLifecycle, PortError, PortErrorKind};
use crate::request::{Inventory, NodeRef, Operation, Request};
use crate::rows::{Query, Rows};
use crate::topology::{Address, HostName, NodeClass, NodeId};

/// Views of other gateways that an observation takes.
const OTHER_VIEWS: usize = 2;
/// Hosts of members whose authority is compared with the issuer's.
const MEMBER_HOSTS: usize = 2;
/// What an observation is made for.
#[derive(Clone, Debug, Default)]
pub struct ObserveOptions {
    /// The request it is made for: its leaving nodes are not asked, its new hosts are looked at.
    pub request: Option<Request>,
    /// The caller's hosts.
    pub inventory: Inventory,
    /// Looked at when the request asks for certificates, which is refused without one, or removes nodes, whose hosts may hold
    /// the authority's only key.
    pub certificates: Option<Arc<dyn CertificateControl>>,
    /// Told which hosts have not answered yet, for a caller who stops waiting.
    pub awaited: Awaited,
}

/// The hosts that an observation waits for. Clones are of the same list.
#[derive(Clone, Debug, Default)]
pub struct Awaited(Arc<Mutex<BTreeMap<HostName, usize>>>);

impl Awaited {
    /// Those that were asked something and have not answered it. Also after the observation was given up.
    pub fn hosts(&self) -> Vec<HostName> {
        self.questions().keys().cloned().collect()
    }

    /// Waits for what a host is asked.
    pub(super) async fn answer<T>(&self, host: &HostName, asked: impl Future<Output = T>) -> T {
        *self.questions().entry(host.clone()).or_default() += 1;
        let answer = asked.await;
        let mut questions = self.questions();
        match questions.get_mut(host) {
            Some(open) if *open > 1 => *open -= 1,
            _ => {
                questions.remove(host);
            }
        }
        answer
    }

    fn questions(&self) -> MutexGuard<'_, BTreeMap<HostName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why no observation could be made.
#[derive(Debug, thiserror::Error)]
#[error("the cluster cannot be read through any of {}: {last}", list(.tried))]
pub struct ObserveError {
    /// Every gateway that was tried, with what it said.
    pub tried: Vec<(Address, PortErrorKind, String)>,
    /// The last error.
    #[source]
    pub last: PortError,
}

fn list(tried: &[(Address, PortErrorKind, String)]) -> String {
    tried.iter().map(|(a, ..)| a.to_string()).collect::<Vec<_>>().join(", ")
}

impl ObserveError {
    /// What to decide by: the kind of the last error.
    pub fn kind(&self) -> PortErrorKind {
        self.last.kind()
    }
}

/// Observes the cluster: everything through one gateway, membership through up to two others. For a request also the hosts
/// that join, those of all nodes, the control host, and the ways between those that join and the members.
///
/// Only reads. A leaving node of the request is never a gateway.
///
/// # Errors
/// [`ObserveError`] when no seed answers the first question. Anything less is an unknown in the observation.
pub async fn observe(
    facts: &dyn FactSource,
    lifecycle: Option<&dyn NodeLifecycle>,
    options: &ObserveOptions,
) -> Result<Observation, ObserveError> {
    let (avoid_ids, avoid_addresses) = avoided(options);
    let mut tried = Vec::new();
    let mut last =
        PortError::new(PortErrorKind::Config, "no seed is configured; give at least one SQL address");
    let mut replies: Vec<Reply> = Vec::new();
    let mut primary: Option<Address> = None;
    let mut fallback: Option<Address> = None;
    for seed in facts.seeds() {
        if avoid_addresses.contains(&seed) && facts.seeds().len() > 1 {
            continue;
        }
        match facts.fetch(&seed, &Query::Cluster).await {
            Ok(answer) => {
                let avoided =
                    matches!(&answer.rows, Rows::Cluster(row) if avoid_ids.contains(&row.gateway_node));
                replies.push(Reply { gateway: seed.clone(), query: Query::Cluster, result: Ok(answer) });
                if avoided {
                    fallback.get_or_insert(seed);
                    continue;
                }
                primary = Some(seed);
                break;
            }
            Err(e) => {
                tried.push((seed.clone(), e.kind(), e.chain()));
                let definite = matches!(
                    e.kind(),
                    PortErrorKind::Tls
                        | PortErrorKind::Authentication
                        | PortErrorKind::Denied
                        | PortErrorKind::Config
                );
                last = e;
                if definite {
                    break;
                }
            }
        }
    }
    // Better a view of a leaving node than none: the checks then say that no member that stays answered.
    let Some(primary) = primary.or(fallback) else {
        return Err(ObserveError { tried, last });
    };
    replies.retain(|r| r.gateway == primary);
    for query in full_survey().into_iter().filter(|q| *q != Query::Cluster) {
        replies.push(ask(facts, &primary, query).await);
    }
    let first = Observation::build(&primary, &replies, BTreeMap::new());
    for gateway in other_gateways(facts, &first, &primary, &avoid_ids, &avoid_addresses) {
        for query in view_survey() {
            let reply = ask(facts, &gateway, query).await;
            let failed = reply.result.is_err();
            replies.push(reply);
            if failed {
                break;
            }
        }
        let views =
            replies.iter().filter(|r| r.gateway != primary && r.query == Query::Liveness && r.result.is_ok());
        if views.count() >= OTHER_VIEWS {
            break;
        }
    }
    if replies.iter().any(|r| r.gateway != primary) {
        // With the first gateway's time before and after the others' theirs can be judged.
        replies.push(ask(facts, &primary, Query::Cluster).await);
    }
    let machines = async {
        let Some(lifecycle) = lifecycle else { return (BTreeMap::new(), Vec::new()) };
        let of_interest = hosts_of_interest(&first, options);
        let names: Vec<HostName> = of_interest.joining.union(&of_interest.others).cloned().collect();
        let (mut hosts, reached) = join(
            inspect(lifecycle, &names, &options.awaited),
            reach(lifecycle, &first, &options.inventory, &of_interest.joining, &options.awaited),
        )
        .await;
        for host in &of_interest.others {
            if let (Some(facts), false) = (hosts.get_mut(host), of_interest.joining.contains(host)) {
                *facts = facts.clone().map(HostFacts::brief);
            }
        }
        (hosts, reached)
    };
    let authority = async {
        options.request.as_ref().filter(|request| request.concerns_authority())?;
        let members: Vec<HostName> = first
            .of_class(NodeClass::Member)
            .filter(|n| !avoid_ids.contains(&n.id))
            .filter_map(|n| options.inventory.host_at(n.address.known()?).cloned())
            .take(MEMBER_HOSTS)
            .collect();
        look_at_authority(options.certificates.as_deref(), &members).await
    };
    let ((hosts, reached), authority) = join(machines, authority).await;
    let mut observation = Observation::build(&primary, &replies, hosts);
    observation.reach = reached;
    observation.owned = lifecycle.map(NodeLifecycle::owned).unwrap_or_default();
    observation.authority = authority;
    Ok(observation)
}

async fn inspect(
    lifecycle: &dyn NodeLifecycle,
    hosts: &[HostName],
    awaited: &Awaited,
) -> BTreeMap<HostName, Fact<HostFacts>> {
    let looks = hosts.iter().map(|host| async move {
        let facts = awaited.answer(host, lifecycle.inspect(host)).await;
        (host.clone(), facts.map_or_else(|e| Fact::Unknown(e.chain()), Fact::Known))
    });
    join_all(looks).await.into_iter().collect()
}

async fn ask(facts: &dyn FactSource, gateway: &Address, query: Query) -> Reply {
    let result = facts.fetch(gateway, &query).await.map_err(|e| format!("{gateway}: {}", e.chain()));
    Reply { gateway: gateway.clone(), query, result }
}

/// Ids and SQL addresses that must not be gateways.
fn avoided(options: &ObserveOptions) -> (BTreeSet<NodeId>, BTreeSet<Address>) {
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let Some(request) = &options.request else { return (ids, addresses) };
    let mut avoid_host = |host: &HostName| {
        if let Some(entry) = options.inventory.hosts.get(host) {
            addresses.insert(entry.sql_address.clone().unwrap_or_else(|| entry.address.clone()));
        }
    };
    match &request.operation {
        Operation::ScaleOut { .. } => {}
        Operation::ScaleIn { nodes } | Operation::Replace { nodes, .. } => {
            for node in nodes {
                match node {
                    NodeRef::Id(id) => {
                        ids.insert(*id);
                    }
                    NodeRef::Host(host) => avoid_host(host),
                }
            }
        }
        Operation::Reach { members } => {
            options.inventory.hosts.keys().filter(|h| !members.contains(h)).for_each(avoid_host);
        }
    }
    (ids, addresses)
}

/// Other SQL addresses to ask: members' advertised ones first, then seeds that no node advertises.
fn other_gateways(
    facts: &dyn FactSource,
    first: &Observation,
    primary: &Address,
    avoid_ids: &BTreeSet<NodeId>,
    avoid_addresses: &BTreeSet<Address>,
) -> Vec<Address> {
    let mut list: Vec<Address> = Vec::new();
    let advertised = first
        .of_class(NodeClass::Member)
        .filter(|n| !avoid_ids.contains(&n.id))
        .filter_map(|n| n.sql_address.known());
    let known: BTreeSet<&Address> = first.nodes.values().filter_map(|n| n.sql_address.known()).collect();
    let seeds = facts.seeds();
    for address in advertised.cloned().chain(seeds.into_iter().filter(|s| !known.contains(s))) {
        if address != *primary && !avoid_addresses.contains(&address) && !list.contains(&address) {
            list.push(address);
        }
    }
    list.truncate(OTHER_VIEWS + 2);
    list
}

struct HostsOfInterest {
    /// New hosts of the request.
    joining: BTreeSet<HostName>,
    /// Hosts with which those are compared, where nodes may be marked, and which may leave: those of all nodes that
    /// are not removed, and the control host.
    others: BTreeSet<HostName>,
}

fn hosts_of_interest(observation: &Observation, options: &ObserveOptions) -> HostsOfInterest {
    let mut found = HostsOfInterest { joining: BTreeSet::new(), others: BTreeSet::new() };
    let Some(request) = &options.request else { return found };
    match &request.operation {
        Operation::ScaleOut { hosts } | Operation::Replace { hosts, .. } => {
            found.joining.extend(hosts.iter().cloned())
        }
        Operation::ScaleIn { .. } => {}
        Operation::Reach { members } => {
            let new = members.iter().filter(|host| {
                let entry = options.inventory.hosts.get(host);
                entry.is_some_and(|e| observation.at_address(&e.address).is_empty())
            });
            found.joining.extend(new.cloned());
        }
    }
    let nodes = observation.nodes.values().filter(|n| n.class != NodeClass::Removed);
    let hosts = nodes.filter_map(|n| options.inventory.host_at(n.address.known()?));
    found.others.extend(hosts.chain(&options.inventory.control).cloned());
    found
}
