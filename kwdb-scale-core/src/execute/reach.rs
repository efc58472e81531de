//! Do the hosts that shall join and the members reach each other?

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use super::observe::Awaited;
use crate::fact::Fact;
use crate::observation::{Node, Observation, Reach, Service};
use crate::ports::{NodeLifecycle, PortErrorKind};
use crate::request::{Inventory, InventoryHost};
use crate::topology::{Address, HostName, NodeClass};
use crate::version::Capabilities;

/// For one attempt to connect.
const DEADLINE: Duration = Duration::from_secs(3);

/// Tries every way between `joining` and the members, all at once: from each new host to the addresses of each member,
/// and from the host of each member, where the inventory has it, to those of each new host. Empty where the
/// implementation cannot tell.
pub(super) async fn reach(
    lifecycle: &dyn NodeLifecycle,
    observation: &Observation,
    inventory: &Inventory,
    joining: &BTreeSet<HostName>,
    awaited: &Awaited,
) -> Vec<Reach> {
    // Before V3.0.0 nodes have no brpc address.
    let brpc = Capabilities::of(observation.version().known().copied()).brpc_addr;
    let members: Vec<&Node> = observation.of_class(NodeClass::Member).collect();
    let to_members: Vec<(Service, Address)> =
        members.iter().flat_map(|node| addresses_of(node, inventory, brpc)).collect();
    let new: Vec<(Service, Address)> = joining
        .iter()
        .filter_map(|host| inventory.hosts.get(host))
        .flat_map(|entry| described(entry, brpc))
        .collect();
    let hosts: BTreeSet<&HostName> =
        members.iter().filter_map(|n| inventory.host_at(n.address.known()?)).collect();
    let ways =
        joining.iter().map(|host| (host, &to_members)).chain(hosts.into_iter().map(|host| (host, &new)));
    let tries = ways
        .filter(|(_, to)| !to.is_empty())
        .map(|(host, to)| awaited.answer(host, attempt(lifecycle, host, to)));
    join_all(tries).await.into_iter().flatten().collect()
}

async fn attempt(lifecycle: &dyn NodeLifecycle, host: &HostName, to: &[(Service, Address)]) -> Vec<Reach> {
    let addresses: Vec<Address> = to.iter().map(|(_, address)| address.clone()).collect();
    let states = match lifecycle.reach(host, &addresses, DEADLINE).await {
        Ok(states) => states,
        Err(e) if e.kind() == PortErrorKind::Unsupported => return Vec::new(),
        Err(e) => vec![Fact::Unknown(e.chain()); to.len()],
    };
    let mut states = states.into_iter();
    to.iter()
        .map(|(service, address)| Reach {
            from: host.clone(),
            to: address.clone(),
            service: *service,
            state: states.next().unwrap_or_else(|| Fact::unknown("it was not told")),
        })
        .collect()
}

/// What the cluster says of a member's addresses, and the inventory of its brpc.
fn addresses_of(node: &Node, inventory: &Inventory, brpc: bool) -> Vec<(Service, Address)> {
    let Some(address) = node.address.known() else { return Vec::new() };
    let sql = node.sql_address.known().filter(|sql| *sql != address);
    let entry = inventory.host_at(address).and_then(|host| inventory.hosts.get(host));
    let brpc = entry.and_then(|e| e.brpc_address.as_ref()).filter(|_| brpc);
    listed(address, sql, brpc)
}

fn described(entry: &InventoryHost, brpc: bool) -> Vec<(Service, Address)> {
    let sql = entry.sql_address.as_ref().filter(|sql| **sql != entry.address);
    listed(&entry.address, sql, entry.brpc_address.as_ref().filter(|_| brpc))
}

fn listed(rpc: &Address, sql: Option<&Address>, brpc: Option<&Address>) -> Vec<(Service, Address)> {
    let all = [(Service::Rpc, Some(rpc)), (Service::Sql, sql), (Service::Brpc, brpc)];
    all.into_iter().filter_map(|(service, address)| Some((service, address?.clone()))).collect()
}
