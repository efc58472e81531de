//! Checks on containers that own the process of a node: their engine starts and stops it.

use super::{Problem, machine, means};
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::host_facts::Machine;
use crate::request::Finish;
use crate::topology::HostName;

/// What is wrong with the container as its engine tells it; `None` where it is there.
fn amiss(host: &HostName, machine: &Machine, name: &str, cure: &str) -> Option<Problem> {
    let problem = match &machine.container {
        Fact::Known(Some(_)) => return None,
        Fact::Known(None) => Problem::new(format!("host {host} has no container {name}")).cure(cure),
        Fact::Unknown(why) => {
            Problem::unknown(&format!("the state of container {name} on host {host} is"), why)
                .cure(format!("check owner, engine and container of host {host}, and that the engine runs"))
        }
    };
    Some(problem.retry(Retry::WhenFactChanges(format!("container {name} of host {host}"))))
}

/// A container that starts a new node must be there; one that holds a leaving node must run, and stay stopped later.
pub(super) fn owners(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for new in machine::joining(cx) {
        let Some(name) = &new.machine.owner_container else { continue };
        let cure = format!(
            "make it there with the node's whole command line, --join included (docker create or podman create), or correct the \
             container's name of host {}",
            new.host
        );
        found.extend(amiss(new.host, new.machine, name, &cure));
    }
    if cx.request.options.finish != Finish::Stop {
        return found;
    }
    for (node, host) in means::owned(cx) {
        let machine = cx.obs.hosts.get(host).and_then(Fact::known).and_then(|facts| facts.machine.as_deref());
        let Some((machine, name)) = machine.and_then(|m| Some((m, m.owner_container.as_ref()?))) else {
            continue;
        };
        // A node that is down needs no stop, and its container may be gone for good.
        if node.is_live == Fact::Known(false) {
            continue;
        }
        let cure = format!("correct engine and container of host {host}");
        found.extend(amiss(host, machine, name, &cure));
        let Fact::Known(Some(container)) = &machine.container else { continue };
        let retry = || Retry::WhenFactChanges(format!("container {name} of host {host}"));
        if !container.is_up() {
            let message = format!(
                "container {name} of host {host} is {}, and {} lives: its process is not in there",
                container.state, node.id
            );
            found.push(Problem::new(message).cure(cure).retry(retry()));
        }
        if let Some(why) = &container.returns {
            let (why, cure) = why.split_once("; ").unwrap_or((why, "take that away"));
            let message =
                format!("something would start container {name} of host {host} again after its stop: {why}");
            found.push(Problem::new(message).cure(cure).retry(retry()));
        }
    }
    found
}
