//! From a request to a change of membership: names become nodes, and what is so already is left out.

use std::collections::BTreeSet;

use super::{Change, Finding, Retry, Severity};
use crate::fact::Fact;
use crate::observation::{Node, Observation};
use crate::request::{Finish, Inventory, NodeRef, Operation, Request};
use crate::topology::{Address, HostName, NodeClass, NodeId};

/// Findings on nodes that are named as leaving.
pub(super) const TARGETS: &str = "targets-known";
/// Findings on hosts that are named as joining.
pub(super) const HOSTS: &str = "hosts-known";
/// Information about parts of a request that are so already.
pub(super) const ALREADY: &str = "already-so";

/// Names become nodes and hosts; what is so already is left out and said. The findings are of the checks
/// `targets-known`, `hosts-known` (refusals) and `already-so` (information); a change that comes with a refusal
/// must not be acted on.
pub fn resolve(obs: &Observation, request: &Request) -> (Change, Vec<Finding>) {
    let mut r =
        Resolver { obs, inventory: &request.inventory, finish: request.options.finish, findings: Vec::new() };
    if let Fact::Unknown(why) = &obs.membership {
        r.refuse(TARGETS, format!("the members of the cluster are unknown: {why}"), None, Retry::NeedsPerson);
        return (Change::new(Vec::new(), Vec::new()), r.findings);
    }
    let change = match &request.operation {
        Operation::ScaleOut { hosts } => Change::new(r.joining(hosts, false), Vec::new()),
        Operation::ScaleIn { nodes } => Change::new(Vec::new(), r.leaving(nodes)),
        Operation::Replace { nodes, hosts } => {
            let change = Change::new(r.joining(hosts, false), r.leaving(nodes));
            if hosts.is_empty() || nodes.is_empty() {
                let message = "a replacement names at least one node that leaves and one host that joins";
                let cure = "ask for a scale-in or a scale-out instead";
                r.refuse(TARGETS, message.to_owned(), Some(cure.to_owned()), Retry::NeedsPerson);
            }
            r.both_ways(hosts, &change.remove);
            change
        }
        Operation::Reach { members } => r.reach(members),
    };
    (change, r.findings)
}

struct Resolver<'a> {
    obs: &'a Observation,
    inventory: &'a Inventory,
    finish: Finish,
    findings: Vec<Finding>,
}

enum Occupant<'a> {
    Free,
    Member(&'a Node),
    /// Somebody is there who is no live member, or several are: refused already.
    Refused,
}

impl<'a> Resolver<'a> {
    fn refuse(&mut self, check: &str, message: String, cure: Option<String>, retry: Retry) {
        let mut finding = Finding::new(check, Severity::Refuse, message).retry(retry);
        finding.cure = cure;
        self.findings.push(finding);
    }

    fn inform(&mut self, message: String) {
        self.findings.push(Finding::new(ALREADY, Severity::Info, message));
    }

    fn address(&mut self, host: &HostName) -> Option<&'a Address> {
        let inventory = self.inventory;
        let Some(entry) = inventory.hosts.get(host) else {
            let known: Vec<_> = inventory.hosts.keys().map(HostName::as_str).collect();
            let cure = format!("name one of: {}", list(&known));
            let message = format!("host {host} is not in the inventory");
            self.refuse(HOSTS, message, Some(cure), Retry::NeedsPerson);
            return None;
        };
        let same: Vec<_> = inventory
            .hosts
            .iter()
            .filter(|(_, h)| h.address == entry.address)
            .map(|(name, _)| name.as_str())
            .collect();
        if same.len() > 1 {
            let message = format!("hosts {} have one address, {}", list(&same), entry.address);
            let cure = "give each host of the inventory its own address".to_owned();
            self.refuse(HOSTS, message, Some(cure), Retry::NeedsPerson);
            return None;
        }
        Some(&entry.address)
    }

    /// With `dead_too`, a member that is down counts as there.
    fn joining(&mut self, hosts: &[HostName], dead_too: bool) -> Vec<HostName> {
        let mut seen = BTreeSet::new();
        let mut add = Vec::new();
        for host in hosts {
            if !seen.insert(host) {
                let message = format!("host {host} is named twice");
                self.refuse(HOSTS, message, Some("name each host once".to_owned()), Retry::NeedsPerson);
                continue;
            }
            let Some(address) = self.address(host) else { continue };
            match self.occupant(host, address, dead_too) {
                Occupant::Free => add.push(host.clone()),
                Occupant::Member(node) => {
                    self.inform(format!("host {host} is a member already: {} at {address}", node.id));
                }
                Occupant::Refused => {}
            }
        }
        add
    }

    /// Who advertises the address of a host that is to have a live member.
    fn occupant(&mut self, host: &HostName, address: &Address, dead_too: bool) -> Occupant<'a> {
        let obs = self.obs;
        let there = obs.at_address(address);
        let Some((first, rest)) = there.split_first() else {
            return Occupant::Free;
        };
        if !rest.is_empty() {
            self.ambiguous(HOSTS, host, address, &there);
            return Occupant::Refused;
        }
        let id = first.id;
        let (what, cure) = match first.class {
            NodeClass::Member => return Occupant::Member(first),
            NodeClass::Dead if dead_too => return Occupant::Member(first),
            NodeClass::Dead => (
                "a member that is down",
                format!("start {id} again on its own store, or give the host another address"),
            ),
            NodeClass::Leaving => (
                "being decommissioned",
                format!(
                    "kwbase node recommission {} --host=<a member> [--insecure | --certs-dir=<dir>] keeps it; else wait until it is removed",
                    id.0
                ),
            ),
            NodeClass::Removed | NodeClass::Unknown => {
                ("of unknown class", "observe again when the cluster can be read".to_owned())
            }
        };
        let message = format!("host {host}: {address} belongs to {id}, which is {what}");
        self.refuse(HOSTS, message, Some(cure), Retry::WhenFactChanges(format!("class of {id}")));
        Occupant::Refused
    }

    fn ambiguous(&mut self, check: &str, host: &HostName, address: &Address, nodes: &[&Node]) {
        let names: Vec<String> = nodes.iter().map(|n| format!("{} ({})", n.id, n.class)).collect();
        let message = format!("host {host}: {address} is advertised by several nodes: {}", list(&names));
        let cure = "name the node by its id".to_owned();
        self.refuse(check, message, Some(cure), Retry::NeedsPerson);
    }

    fn leaving(&mut self, refs: &[NodeRef]) -> Vec<NodeId> {
        let mut named: Vec<(NodeId, &NodeRef)> = Vec::new();
        for reference in refs {
            let Some(node) = self.node(reference) else { continue };
            if let Some((_, first)) = named.iter().find(|(id, _)| *id == node.id) {
                let message = format!("{} is named twice: {first} and {reference}", node.id);
                self.refuse(TARGETS, message, Some("name each node once".to_owned()), Retry::NeedsPerson);
                continue;
            }
            named.push((node.id, reference));
        }
        let mut remove = Vec::new();
        for (id, _) in named {
            match self.obs.nodes.get(&id) {
                Some(n) if n.class == NodeClass::Removed => self.inform(format!("{id} is removed already")),
                Some(n) if n.is_drained() && self.finish == Finish::LeaveDrained => {
                    self.inform(format!("{id} is emptied and left running already"));
                }
                Some(n) if n.is_drained() => {
                    self.inform(format!(
                        "{id} is marked and empty already: that is proven again before it is stopped"
                    ));
                    remove.push(id);
                }
                _ => remove.push(id),
            }
        }
        remove
    }

    fn node(&mut self, reference: &NodeRef) -> Option<&'a Node> {
        let obs = self.obs;
        match reference {
            NodeRef::Id(id) => {
                let node = obs.nodes.get(id);
                if node.is_none() {
                    let message = format!("there is no node {}", id.0);
                    let cure = format!("name one of: {}", self.known_nodes());
                    self.refuse(TARGETS, message, Some(cure), Retry::NeedsPerson);
                }
                node
            }
            NodeRef::Host(host) => {
                let address = self.address(host)?;
                let there = obs.at_address(address);
                match there.as_slice() {
                    [one] => Some(*one),
                    [] => self.formerly(host, address),
                    several => {
                        self.ambiguous(TARGETS, host, address, several);
                        None
                    }
                }
            }
        }
    }

    /// A host at whose address nobody is now: fine if a removed node was there.
    fn formerly(&mut self, host: &HostName, address: &Address) -> Option<&'a Node> {
        let obs = self.obs;
        let unnamed: Vec<String> = obs
            .nodes
            .values()
            .filter(|n| n.class != NodeClass::Removed && n.address.known().is_none())
            .map(|n| n.id.to_string())
            .collect();
        let removed = obs
            .of_class(NodeClass::Removed)
            .filter(|n| n.address.known() == Some(address))
            .max_by_key(|n| n.id);
        if unnamed.is_empty() && removed.is_some() {
            return removed;
        }
        let mut message = format!("no node advertises {address}, the address of host {host}");
        if !unnamed.is_empty() {
            message.push_str(&format!("; the address of {} is unknown", list(&unnamed)));
        }
        let cure = format!("name the node by its id: {}", self.known_nodes());
        self.refuse(TARGETS, message, Some(cure), Retry::NeedsPerson);
        None
    }

    fn known_nodes(&self) -> String {
        let all: Vec<String> = self
            .obs
            .nodes
            .values()
            .filter(|n| n.class != NodeClass::Removed)
            .map(|n| match n.address.known() {
                Some(address) => format!("{} at {address}", n.id.0),
                None => n.id.0.to_string(),
            })
            .collect();
        list(&all)
    }

    /// A node cannot be replaced by itself.
    fn both_ways(&mut self, hosts: &[HostName], remove: &[NodeId]) {
        for host in hosts {
            let Some(address) = self.inventory.hosts.get(host).map(|h| &h.address) else { continue };
            for id in remove {
                if self.obs.nodes.get(id).is_some_and(|n| n.address.known() == Some(address)) {
                    let message = format!("{id} is to leave and host {host}, where it runs, is to join");
                    let cure = "name another host, or give the new node another address".to_owned();
                    self.refuse(HOSTS, message, Some(cure), Retry::NeedsPerson);
                }
            }
        }
    }

    fn reach(&mut self, members: &[HostName]) -> Change {
        let add = self.joining(members, true);
        // Who is there already needs no word here.
        self.findings.retain(|f| f.check != ALREADY);
        let wanted: BTreeSet<&Address> =
            members.iter().filter_map(|h| self.inventory.hosts.get(h)).map(|h| &h.address).collect();
        let mut remove = Vec::new();
        for node in self.obs.nodes.values() {
            match (node.class, node.address.known()) {
                (NodeClass::Removed | NodeClass::Leaving, _) => {}
                (_, Some(address)) if wanted.contains(address) => {}
                (_, Some(_)) => remove.push(node.id),
                (_, None) => {
                    let message = format!(
                        "the address of {} is unknown: whether it shall stay cannot be told",
                        node.id
                    );
                    let cure = "observe again, or ask for a scale-in by node id".to_owned();
                    self.refuse(
                        TARGETS,
                        message,
                        Some(cure),
                        Retry::WhenFactChanges(format!("address of {}", node.id)),
                    );
                }
            }
        }
        Change::new(add, remove)
    }
}

fn list<S: AsRef<str>>(items: &[S]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}
