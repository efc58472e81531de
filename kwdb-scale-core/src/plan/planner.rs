//! The planner: observation, request and policy in, a plan or a refusal out. Synchronous and deterministic.

use std::collections::BTreeSet;
use std::fmt;

use crate::assess::{
    Assessment, Change, Finding, OldDataOf, OperationKind, Retry, Severity, assess, is_foreign,
};
use crate::fact::Fact;
use crate::observation::{Node, Observation};
use crate::plan::{Fingerprint, Leaving, OldDirectory, OldEntry, Plan, SCHEMA, Step};
use crate::policy::{Policy, TS_REBALANCE};
use crate::ports::{Gateway, HostFacts, StoreContent, StoreFacts};
use crate::request::{Finish, OldData, Redistribution, Request};
use crate::topology::{Address, HostName, NodeClass, NodeId, StartMode};

/// Most addresses in a `--join` list; KWDB's manual advises three to five.
const JOIN_LIST: usize = 5;

/// Why there is no plan: everything the checks found, at least one refusal among it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What the checks said.
    pub findings: Vec<Finding>,
}

impl Refusal {
    /// The findings that refuse.
    pub fn reasons(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.severity == Severity::Refuse)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<&str> = self.reasons().map(|r| r.message.as_str()).collect();
        write!(f, "refused: {}", reasons.join("; "))
    }
}

impl std::error::Error for Refusal {}

/// Makes a plan, or says why there can be none.
///
/// The same input gives the same plan, byte for byte. A request that is true already gives an empty plan.
///
/// # Errors
/// [`Refusal`] with every finding, when one of them refuses.
pub fn plan(observation: &Observation, request: &Request, policy: &Policy) -> Result<Plan, Refusal> {
    let Assessment { change, mut findings, .. } = assess(observation, request, policy);
    if findings.iter().any(|f| f.severity == Severity::Refuse) {
        return Err(Refusal { findings });
    }
    match build(observation, request, policy, change, &findings) {
        Ok(mut plan) => {
            plan.findings = findings;
            match plan.content_id() {
                Ok(id) => {
                    plan.id = id;
                    Ok(plan)
                }
                Err(e) => Err(internal(Vec::new(), &format!("the plan cannot be written: {e}"))),
            }
        }
        Err(why) => {
            findings.push(missing(&why));
            Err(Refusal { findings })
        }
    }
}

fn missing(what: &str) -> Finding {
    Finding::new("plan-facts", Severity::Refuse, format!("a fact that the plan needs is unknown: {what}"))
        .cure("observe again when the fact can be had")
        .retry(Retry::WhenFactChanges(what.to_owned()))
}

fn internal(mut findings: Vec<Finding>, what: &str) -> Refusal {
    findings.push(missing(what));
    Refusal { findings }
}

fn need<T: Clone>(fact: &Fact<T>, what: &str) -> Result<T, String> {
    match fact {
        Fact::Known(value) => Ok(value.clone()),
        Fact::Unknown(why) => Err(format!("{what}: {why}")),
    }
}

fn build(
    observation: &Observation,
    request: &Request,
    policy: &Policy,
    change: Change,
    findings: &[Finding],
) -> Result<Plan, String> {
    let cluster_id = need(&observation.cluster_id, "cluster id")?;
    let start_mode = need(&observation.start_mode(), "start mode")?;
    let removed: BTreeSet<NodeId> = change.remove.iter().copied().collect();
    let gateways = gateways(observation, request, &removed);
    let mut leaving = Vec::new();
    for id in &change.remove {
        let node = observation.nodes.get(id).ok_or_else(|| format!("node {}", id.0))?;
        leaving.push(leaving_node(node, request)?);
    }
    leaving.sort_by_key(|l| l.node);
    let members_before = observation.counted_members();
    // Who was left drained does not count already.
    let counted =
        |id: &&NodeId| observation.nodes.get(*id).is_some_and(|n| n.decommissioning == Fact::Known(false));
    let leave = change.remove.iter().filter(counted).count();
    let members_after = (members_before + change.add.len()).saturating_sub(leave);
    let steps = match change.kind {
        OperationKind::Nothing => Vec::new(),
        _ => steps(observation, request, &change, &start_mode, &gateways, &leaving)?,
    };
    Ok(Plan {
        schema: SCHEMA.to_owned(),
        id: String::new(),
        cluster_id,
        request: request.clone(),
        fingerprint: Fingerprint::of(observation, findings),
        known_ids: observation.nodes.keys().copied().collect(),
        change,
        policy: policy.clone(),
        findings: Vec::new(),
        start_mode,
        members_before,
        members_after,
        gateways,
        leaving,
        steps,
    })
}

/// The step that clears what a removed node left on `host`, where the request says so and there is something.
fn clear_data(obs: &Observation, request: &Request, host: &HostName) -> Result<Option<Step>, String> {
    let Some(found) = OldDataOf::on(obs, request, host) else { return Ok(None) };
    if found.nodes.is_empty() {
        return Err(format!("whose data host {host} holds"));
    }
    let entries = |store: &StoreFacts| match &store.content {
        Fact::Known(StoreContent::InUse(names)) => {
            let foreign = |name: &String| is_foreign(obs, host, &store.path, name);
            let entry = |name: &String| OldEntry { name: name.clone(), foreign: foreign(name) };
            names.iter().map(entry).collect()
        }
        _ => Vec::new(),
    };
    let directory = |store: &StoreFacts| OldDirectory {
        entries: entries(store),
        path: store.path.clone(),
        aside: found.aside(store).filter(|_| request.options.old_data == OldData::MoveAside),
    };
    Ok(Some(Step::ClearData {
        host: host.clone(),
        nodes: found.nodes.iter().map(|n| n.id).collect(),
        stores: found.nodes.iter().flat_map(|n| n.stores.keys().copied()).collect(),
        directories: found.in_use.iter().copied().map(directory).collect(),
    }))
}

/// Live members that stay and are not draining: first those on whose host a command can be run and authenticated, then by id.
///
/// `removed` are the nodes that leave. These are [a plan's gateways](Plan::gateways), for who wants to ask them before
/// there is a plan.
pub fn gateways(observation: &Observation, request: &Request, removed: &BTreeSet<NodeId>) -> Vec<Gateway> {
    let can_mark = |host: &HostName| {
        observation.hosts.get(host).and_then(|f| f.known()).is_some_and(HostFacts::can_mark)
    };
    let mut found: Vec<(bool, Gateway)> = observation
        .of_class(NodeClass::Member)
        .filter(|n| !removed.contains(&n.id) && n.is_healthy() == Fact::Known(true))
        .filter(|n| n.draining == Fact::Known(false))
        .filter_map(|n| observation.gateway_of(n, &request.inventory))
        .map(|gateway| (gateway.host.as_ref().is_some_and(can_mark), gateway))
        .collect();
    found.sort_by_key(|(usable, gateway)| (!*usable, gateway.node));
    // Where only the control host can, no gateway names a host that cannot: its commands run on the control host then.
    let only_control =
        found.iter().all(|(usable, _)| !usable) && request.inventory.control.as_ref().is_some_and(can_mark);
    let named = |gateway: Gateway| if only_control { Gateway { host: None, ..gateway } } else { gateway };
    found.into_iter().map(|(_, gateway)| named(gateway)).collect()
}

fn leaving_node(node: &Node, request: &Request) -> Result<Leaving, String> {
    let address = need(&node.address, "address")?;
    if node.stores.is_empty() {
        return Err(format!("stores of node {}", node.id.0));
    }
    Ok(Leaving {
        node: node.id,
        stores: node.stores.keys().copied().collect(),
        host: request.inventory.host_at(&address).cloned(),
        address,
        started_at: need(&node.started_at, "start time")?,
    })
}

fn steps(
    observation: &Observation,
    request: &Request,
    change: &Change,
    mode: &StartMode,
    gateways: &[Gateway],
    leaving: &[Leaving],
) -> Result<Vec<Step>, String> {
    let options = &request.options;
    let mut steps = Vec::new();
    let setting = match observation.setting(TS_REBALANCE) {
        Fact::Known(value) => value.map(str::to_owned),
        Fact::Unknown(why) if options.redistribution != Redistribution::Leave => {
            return Err(format!("setting {TS_REBALANCE}: {why}"));
        }
        Fact::Unknown(_) => None,
    };
    let switch_off = options.redistribution != Redistribution::Leave && setting.as_deref() != Some("false");
    if switch_off {
        steps.push(Step::SetSetting { name: TS_REBALANCE.to_owned(), value: "false".to_owned() });
    }
    let join: Vec<Address> = gateways.iter().take(JOIN_LIST).map(|g| g.address.clone()).collect();
    let authority = match &observation.authority {
        _ if options.certificates.is_present() || change.add.is_empty() => None,
        Some(facts) => Some(need(facts, "the authority that issues certificates")?.fingerprint),
        None => return Err("the authority that issues certificates: it was not looked at".to_owned()),
    };
    for host in &change.add {
        let entry = request.inventory.hosts.get(host).ok_or_else(|| format!("host {host}"))?;
        steps.extend(clear_data(observation, request, host)?);
        if let Some(authority) = &authority {
            let method = options.certificates;
            steps.push(Step::Certify { host: host.clone(), method, authority: authority.clone() });
        }
        steps.push(Step::Join {
            host: host.clone(),
            address: entry.address.clone(),
            mode: mode.clone(),
            join: join.clone(),
        });
    }
    let nodes: Vec<NodeId> = leaving.iter().map(|l| l.node).collect();
    for batch in nodes.chunks(options.at_a_time(nodes.len())) {
        steps.push(Step::Mark { nodes: batch.to_vec() });
        steps.push(Step::AwaitEmpty { nodes: batch.to_vec() });
        for node in batch {
            if options.drain {
                steps.push(Step::Drain { node: *node });
            }
            if options.finish == Finish::Stop {
                steps.push(Step::Stop { node: *node });
            }
        }
    }
    // In single-replica mode the replicate queue is off: there is nothing to wait for.
    if options.await_balance && !change.add.is_empty() && *mode == StartMode::MultiReplica {
        steps.push(Step::AwaitBalance);
    }
    if switch_off && options.redistribution == Redistribution::OffDuring {
        steps.push(Step::RestoreSetting { name: TS_REBALANCE.to_owned() });
    }
    let stay =
        observation.of_class(NodeClass::Member).map(|n| n.id).filter(|id| !nodes.contains(id)).collect();
    steps.push(Step::Verify {
        members: stay,
        joined: change.add.clone(),
        left: nodes,
        finish: options.finish,
    });
    Ok(steps)
}
