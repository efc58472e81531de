//! Checks on the ways between the hosts that shall join and the members.
//!
//! Towards a member nothing but an open port will do. Towards a new host, where nothing listens before the start, a
//! connection that is refused proves the way just as well; only silence is a finding.

use super::Problem;
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::observation::{Reach, Service};
use crate::ports::PortState;
use crate::topology::HostName;
use crate::version::Capabilities;

fn is_new(cx: &Context<'_>, host: &HostName) -> bool {
    cx.change.add.contains(host)
}

/// Why a way is no good, if it is known to be none.
fn fault(cx: &Context<'_>, way: &Reach) -> Option<String> {
    let said = match (way.state.known()?, is_new(cx, &way.from)) {
        (PortState::Open, _) | (PortState::Closed, false) => return None,
        (PortState::Closed, true) => "refused",
        (PortState::NoAnswer, _) => "no answer",
    };
    Some(format!("from host {} to {} ({}): {said}", way.from, way.to, way.service))
}

fn problems(cx: &Context<'_>, wanted: impl Fn(&Reach) -> bool) -> Vec<Problem> {
    let all: Vec<&Reach> = cx.obs.reach.iter().filter(|w| wanted(w)).collect();
    let lines: Vec<String> = all.iter().filter_map(|w| fault(cx, w)).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    vec![
        Problem::new(format!("{} of {} ways between new hosts and members are shut", lines.len(), all.len()))
            .evidence(super::some(lines, cx.policy.list_ranges))
            .cure("open the ports in the firewalls both ways, and look whether each node advertises an address that the others can dial")
            .retry(Retry::WhenFactChanges("ways between new hosts and members".to_owned())),
    ]
}

pub(super) fn reach(cx: &Context<'_>) -> Vec<Problem> {
    problems(cx, |way| way.service != Service::Brpc)
}

pub(super) fn brpc(cx: &Context<'_>) -> Vec<Problem> {
    problems(cx, |way| way.service == Service::Brpc)
}

/// What could not be tried for a new host.
pub(super) fn untold(cx: &Context<'_>, host: &HostName) -> Vec<String> {
    let inventory = &cx.request.inventory;
    let own = inventory.hosts.get(host);
    let is_own = |w: &&Reach| {
        w.from == *host
            || own.is_some_and(|e| {
                w.to == e.address
                    || e.sql_address.as_ref() == Some(&w.to)
                    || e.brpc_address.as_ref() == Some(&w.to)
            })
    };
    let ways: Vec<&Reach> = cx.obs.reach.iter().filter(is_own).collect();
    let mut lines: Vec<String> = Vec::new();
    if !ways.iter().any(|w| w.from == *host) {
        lines.push("which members it reaches was not tried".to_owned());
    }
    if !ways.iter().any(|w| w.from != *host) {
        lines.push("which members reach it was not tried".to_owned());
    }
    lines.extend(ways.iter().filter_map(|w| match &w.state {
        Fact::Unknown(why) => Some(format!("from host {} to {} ({}): {why}", w.from, w.to, w.service)),
        Fact::Known(_) => None,
    }));
    if !Capabilities::of(cx.obs.version().known().copied()).brpc_addr {
        return lines;
    }
    // The cluster does not tell these addresses; the inventory may.
    let undescribed = |address| {
        let entry = inventory.host_at(address).and_then(|h| inventory.hosts.get(h));
        entry.is_none_or(|e| e.brpc_address.is_none())
    };
    let members: Vec<String> = cx
        .staying
        .iter()
        .filter(|n| n.address.known().is_some_and(undescribed))
        .map(|n| n.id.to_string())
        .collect();
    if !members.is_empty() {
        lines.push(format!("the brpc address of {}: the inventory does not have it", members.join(", ")));
    }
    lines
}
