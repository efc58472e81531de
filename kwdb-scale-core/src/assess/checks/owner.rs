//! Checks on what owns the process of a node: a unit or a container, by whose name it is started and stopped.

use super::{Problem, machine, means};
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::host_facts::{HostFacts, Machine};
use crate::request::Finish;
use crate::topology::HostName;

/// The unit or container that owns the nodes of a host.
struct Owner<'a> {
    /// What it is, with its name.
    what: String,
    /// Whose word counts.
    keeper: &'static str,
    /// How one is made, where that is not plain.
    made: &'static str,
    there: Fact<Option<There<'a>>>,
}

/// One that is there.
struct There<'a> {
    state: &'a str,
    is_up: bool,
    /// What would start it again after a stop, and the cure.
    returns: Option<&'a str>,
}

/// What owns the nodes there, but for what a script that adds and marks them looks at itself.
fn of(facts: &HostFacts) -> Option<Owner<'_>> {
    let machine: &Machine = facts.machine.as_deref().filter(|_| facts.script.is_none())?;
    match (&machine.owner_unit, &machine.owner_container) {
        (Some(unit), _) => {
            let there = machine.unit.as_ref().map(|unit| {
                unit.as_ref().map(|u| There { state: &u.active, is_up: u.is_up(), returns: None })
            });
            Some(Owner { what: format!("unit {unit}"), keeper: "systemd", made: "", there })
        }
        (None, Some(name)) => {
            let there = machine.container.as_ref().map(|container| {
                container.as_ref().map(|c| There {
                    state: &c.state,
                    is_up: c.is_up(),
                    returns: c.returns.as_deref(),
                })
            });
            let made = " (docker create or podman create)";
            Some(Owner { what: format!("container {name}"), keeper: "its engine", made, there })
        }
        (None, None) => None,
    }
}

/// What is wrong with an owner that is not there.
fn absent(host: &HostName, owner: &Owner<'_>, cure: &str) -> Option<Problem> {
    let Owner { what, keeper, there, .. } = owner;
    match there {
        Fact::Known(Some(_)) => None,
        Fact::Known(None) => Some(Problem::new(format!("host {host} has no {what}")).cure(cure)),
        Fact::Unknown(why) => {
            Some(Problem::unknown(&format!("the state of {what} on host {host} is"), why).cure(format!(
                "check the owner of host {host} in its description, and that {keeper} runs there"
            )))
        }
    }
}

/// What starts a new node must be there; what holds a leaving node must run, and stay stopped later.
pub(super) fn owners(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    let retry =
        |host: &HostName, owner: &Owner<'_>| Retry::WhenFactChanges(format!("{} of host {host}", owner.what));
    for new in machine::joining(cx) {
        let Some(owner) = of(new.facts) else { continue };
        let cure = format!(
            "make it there with the node's whole command line, --join included{}, or correct the name in the description of \
             host {}",
            owner.made, new.host
        );
        found.extend(absent(new.host, &owner, &cure).map(|p| p.retry(retry(new.host, &owner))));
    }
    if cx.request.options.finish != Finish::Stop {
        return found;
    }
    for (node, host) in means::owned(cx) {
        let facts = cx.obs.hosts.get(host).and_then(Fact::known);
        // A node that is down needs no stop, and what owned it may be gone for good.
        let Some(owner) = facts.and_then(of).filter(|_| node.is_live != Fact::Known(false)) else { continue };
        let cure = format!("correct what owns the node on host {host} in its description");
        found.extend(absent(host, &owner, &cure).map(|p| p.retry(retry(host, &owner))));
        let (Fact::Known(Some(there)), what) = (&owner.there, &owner.what) else { continue };
        if !there.is_up {
            let message = format!(
                "{what} of host {host} is {}, and {} lives: its process is not in there",
                there.state, node.id
            );
            found.push(Problem::new(message).cure(&cure).retry(retry(host, &owner)));
        }
        if let Some(why) = there.returns {
            let (why, cure) = why.split_once("; ").unwrap_or((why, "take that away"));
            let message = format!("something would start {what} of host {host} again after its stop: {why}");
            found.push(Problem::new(message).cure(cure).retry(retry(host, &owner)));
        }
    }
    found
}
