//! Checks on what owns the process of a node: a unit or a container, by whose name it is started and stopped.

use super::{Problem, machine, means};
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::host_facts::{HostFacts, Machine, NodeProcess};
use crate::kwbase::with_port;
use crate::observation::Node;
use crate::owner::{Owner, StartLine};
use crate::request::Finish;
use crate::topology::{Address, HostName, NodeClass};

/// What owns the nodes of a host.
struct Owned<'a> {
    owner: &'a Owner,
    there: Fact<Option<There<'a>>>,
}

/// A unit or container that is there.
struct There<'a> {
    state: &'a str,
    is_up: bool,
    /// Its process, where the machine tells it.
    main_pid: Option<u32>,
    /// The command line by which it starts its node, where that is told.
    starts: Option<&'a StartLine>,
    /// What would start it again after a stop, and the cure.
    returns: Option<&'a str>,
}

/// The unit or container of a host.
fn of(facts: &HostFacts) -> Option<Owned<'_>> {
    let machine: &Machine = facts.machine.as_deref()?;
    let there = match &machine.owner {
        Owner::Quit => return None,
        Owner::Systemd { .. } => machine.unit.as_ref().map(|unit| {
            unit.as_ref().map(|u| There {
                state: &u.active,
                is_up: u.is_up(),
                main_pid: u.main_pid,
                starts: u.starts.as_ref(),
                returns: None,
            })
        }),
        Owner::Container { .. } => machine.container.as_ref().map(|container| {
            container.as_ref().map(|c| There {
                state: &c.state,
                is_up: c.is_up(),
                main_pid: None,
                starts: c.starts.as_ref(),
                returns: c.returns.as_deref(),
            })
        }),
    };
    Some(Owned { owner: &machine.owner, there })
}

/// The stores of the node that a process is, where the host's own node is another process of the machine.
fn another(facts: &HostFacts, main: u32) -> Option<&[String]> {
    let machine = facts.machine.as_deref().filter(|m| !m.inside)?;
    let processes = machine.processes.known()?;
    let ours = |p: &&NodeProcess| p.stores.iter().any(|path| facts.has_store(path));
    let held = processes.iter().find(|p| p.pid == main).filter(|p| !ours(p) && !p.stores.is_empty())?;
    processes.iter().any(|p| ours(&p)).then_some(&held.stores[..])
}

/// Why the node that one starts would not be the described one, or none of the cluster, and the cure.
fn astray(cx: &Context<'_>, facts: &HostFacts, there: &There<'_>) -> Option<(String, &'static str)> {
    let Some(described) = facts.machine.as_deref().and_then(|m| m.described.as_ref()) else {
        let what = "was not held against the description of its host".to_owned();
        return Some((what, "look at the host again"));
    };
    let lives = |n: &&Node| n.class == NodeClass::Member && n.is_live != Fact::Known(false);
    StartLine::fault(there.starts, described, facts.secure, cx.mode.known(), |address| {
        let same = |other: &Address| with_port(other) == with_port(address);
        let of = cx.obs.nodes.values().filter(|n| n.address.known().is_some_and(same));
        of.clone().next().is_some() && !of.clone().any(|n| lives(&n))
    })
}

/// What is wrong with one that is not there.
fn absent(host: &HostName, owned: &Owned<'_>, cure: &str) -> Option<Problem> {
    let owner = owned.owner;
    let keeper = match owner {
        Owner::Container { .. } => "its engine",
        Owner::Systemd { .. } | Owner::Quit => "systemd",
    };
    match &owned.there {
        Fact::Known(Some(_)) => None,
        Fact::Known(None) => Some(Problem::new(format!("host {host} has no {owner}")).cure(cure)),
        Fact::Unknown(why) => {
            Some(Problem::unknown(&format!("the state of {owner} on host {host} is"), why).cure(format!(
                "check the owner of host {host} in its description, and that {keeper} runs there"
            )))
        }
    }
}

/// What starts a new node must be there, and start the node that is described; what holds a leaving node must run it and
/// nothing else, and stay stopped later.
pub(super) fn owners(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    let retry = |host: &HostName, owner: &Owner| Retry::WhenFactChanges(format!("{owner} of host {host}"));
    for new in machine::joining(cx) {
        // A script that adds the node changes the unit before it starts it, and looks at it itself.
        let Some(owned) = of(new.facts).filter(|_| new.facts.script.is_none()) else { continue };
        let made = match owned.owner {
            Owner::Container { .. } => " (docker create or podman create)",
            Owner::Systemd { .. } | Owner::Quit => "",
        };
        let cure = format!(
            "make it there with the node's whole command line, --join included{made}, or correct the name in the description of \
             host {}",
            new.host
        );
        let retry = || retry(new.host, owned.owner);
        found.extend(absent(new.host, &owned, &cure).map(|p| p.retry(retry())));
        let Fact::Known(Some(there)) = &owned.there else { continue };
        if let Some((what, cure)) = astray(cx, new.facts, there) {
            let message = format!("{} of host {} {what}", owned.owner, new.host);
            found.push(Problem::new(message).cure(cure).retry(retry()));
        }
    }
    if cx.request.options.finish != Finish::Stop {
        return found;
    }
    for (node, host) in means::owned(cx) {
        let facts = cx.obs.hosts.get(host).and_then(Fact::known);
        // A node that is down needs no stop, and what owned it may be gone for good.
        let Some(facts) = facts.filter(|_| node.is_live != Fact::Known(false)) else { continue };
        let Some(owned) = of(facts) else { continue };
        let owner = owned.owner;
        let problem = |message: String| Problem::new(message).retry(retry(host, owner));
        let cure = format!("correct what owns the node on host {host} in its description");
        found.extend(absent(host, &owned, &cure).map(|p| p.retry(retry(host, owner))));
        let Fact::Known(Some(there)) = &owned.there else { continue };
        if !there.is_up {
            let message = format!(
                "{owner} of host {host} is {}, and {} lives: its process is not in there",
                there.state, node.id
            );
            found.push(problem(message).cure(&cure));
        }
        if let Some(stores) = there.main_pid.and_then(|pid| another(facts, pid)) {
            let stores = stores.join(",");
            found.push(
                problem(format!("{owner} of host {host} runs another node, that of --store={stores}"))
                    .cure(&cure),
            );
        }
        if let Some(why) = there.returns {
            let (why, cure) = why.split_once("; ").unwrap_or((why, "take that away"));
            let message = format!("something would start {owner} of host {host} again after its stop: {why}");
            found.push(problem(message).cure(cure));
        }
    }
    found
}
