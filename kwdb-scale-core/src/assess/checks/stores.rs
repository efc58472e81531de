//! Checks on the stores of hosts that shall join, and on clearing what lies there.

use super::Problem;
use super::hosts::joining;
use crate::assess::{Context, Finding, Retry};
use crate::fact::Fact;
use crate::host_facts::{DirectoryUse, FileSystem, first_names, is_of_a_store, same_path};
use crate::observation::{Node, Observation};
use crate::owner::Owner;
use crate::ports::{HostFacts, StoreContent, StoreFacts};
use crate::request::{OldData, Request};
use crate::safety::safe_to_wipe;
use crate::topology::{HostName, NodeClass, NodeId};

pub(super) fn store_empty(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for (host, facts) in joining(cx) {
        if facts.stores.is_empty() {
            found.push(Problem::new(format!("no store directory of host {host} is known")));
        }
        let old = OldDataOf::on(cx.obs, cx.request, host);
        if let Some(old) = &old {
            found.extend(refusals(cx, host, old, cx.request.options.old_data));
        }
        for store in &facts.stores {
            match &store.content {
                Fact::Known(StoreContent::Absent | StoreContent::Empty) => {}
                // Judged above: the request clears it.
                Fact::Known(StoreContent::InUse(_)) if old.is_some() => {}
                Fact::Known(StoreContent::InUse(files)) => found.push(in_use(cx, host, store, files)),
                Fact::Unknown(why) => {
                    let problem =
                        Problem::unknown(&format!("what store {} of host {host} holds is", store.path), why)
                            .retry(Retry::WhenFactChanges(format!("store of host {host}")));
                    found.push(if is_at_rest(facts) { problem.cure(INTO_ONE_AT_REST) } else { problem });
                }
            }
        }
    }
    found
}

/// A store that holds something, where nobody asked for it to be cleared.
fn in_use(cx: &Context<'_>, host: &HostName, store: &StoreFacts, names: &[String]) -> Problem {
    let Some(strange) = strange(cx, host, store, names) else {
        return strangers(host, store, names);
    };
    let mut what = vec![format!("found: {}", first_names(names))];
    if !strange.is_empty() {
        what.push(format!("none of them a store's: {}", first_names(&strange)));
    }
    let below: Vec<String> = store.mounted_below().map(str::to_owned).collect();
    if !below.is_empty() {
        what.push(format!("mounted below it: {}", first_names(&below)));
    }
    // What is offered must not be refused when it is asked for.
    let clears = |fate| {
        OldDataOf::there(cx.obs, cx.request, host)
            .is_some_and(|old| refusals(cx, host, &old, fate).is_empty())
    };
    let how = if clears(OldData::MoveAside) {
        "clear the directory when its data is needed no more (kwscale: --wipe-old-data)"
    } else if clears(OldData::Delete) {
        "clear the directory when its data is needed no more (kwscale: --wipe-old-data=delete)"
    } else {
        "look whose data it is; clear the directory by hand when it is needed no more, or name an empty one"
    };
    Problem::new(format!("store {} of host {host} holds a node's files", store.path))
        .evidence(what)
        .cure(format!("{how}: a node comes back only as a new one"))
        .retry(Retry::WhenFactChanges(format!("store of host {host}")))
}

/// What lies in a store that no store of KWDB has; `None` when nothing else does.
fn strange(cx: &Context<'_>, host: &HostName, store: &StoreFacts, names: &[String]) -> Option<Vec<String>> {
    let strange: Vec<String> =
        names.iter().filter(|n| is_foreign(cx.obs, host, &store.path, n)).cloned().collect();
    (strange.len() < names.len()).then_some(strange)
}

/// A store directory that holds no node's files, but somebody's.
fn strangers(host: &HostName, store: &StoreFacts, names: &[String]) -> Problem {
    Problem::new(format!(
        "store {} of host {host} is not empty, and what it holds is none of KWDB's",
        store.path
    ))
    .evidence([format!("found: {}", first_names(names))])
    .cure("move it away by hand, or name an empty directory as the store")
    .retry(Retry::WhenFactChanges(format!("store of host {host}")))
}

/// A container that does not run cannot be entered, and one that runs is no host for a new node.
const INTO_ONE_AT_REST: &str = "give the host an exec_prefix that needs no running container: docker (or podman) run --rm -i \
                                --network host --volumes-from NAME IMAGE; docs/hosts.md tells more";

/// Whether a prefix leads into a container of the node's own that is there and does not run.
fn is_at_rest(facts: &HostFacts) -> bool {
    let machine = facts.machine.as_deref().filter(|m| m.inside && matches!(m.owner, Owner::Container { .. }));
    let container = machine.and_then(|m| m.container.known()?.as_ref());
    container.is_some_and(|container| !container.is_up())
}

/// A removed node's data on a host that shall join, where the request clears such data.
pub(crate) struct OldDataOf<'a> {
    /// The removed nodes that had the host's address, by id. Empty when the data is not known to be theirs.
    pub(crate) nodes: Vec<&'a Node>,
    /// The directories that hold a node's files.
    pub(crate) in_use: Vec<&'a StoreFacts>,
}

impl<'a> OldDataOf<'a> {
    /// `None` when there is nothing to clear, or the request clears nothing.
    pub(crate) fn on(obs: &'a Observation, request: &Request, host: &HostName) -> Option<Self> {
        if request.options.old_data == OldData::Refuse { None } else { Self::there(obs, request, host) }
    }

    /// Whether or not the request clears it.
    fn there(obs: &'a Observation, request: &Request, host: &HostName) -> Option<Self> {
        let facts = obs.hosts.get(host)?.known()?;
        let in_use: Vec<&StoreFacts> = facts
            .stores
            .iter()
            .filter(|s| matches!(s.content, Fact::Known(StoreContent::InUse(_))))
            .collect();
        let address = &request.inventory.hosts.get(host)?.address;
        let nodes = obs.of_class(NodeClass::Removed).filter(|n| n.address.known() == Some(address)).collect();
        (!in_use.is_empty()).then_some(Self { nodes, in_use })
    }

    /// To where a directory is moved: beside itself, with the id of the newest of its nodes.
    pub(crate) fn aside(&self, store: &StoreFacts) -> Option<String> {
        let newest = self.nodes.last()?.id.0;
        Some(format!("{}.node-{newest}", store.path.trim_end_matches('/')))
    }
}

/// Why the data on a host must not be cleared in that way. What is offered instead would not be refused.
fn refusals(cx: &Context<'_>, host: &HostName, old: &OldDataOf<'_>, fate: OldData) -> Vec<Problem> {
    let retry = |problem: Problem| problem.retry(Retry::WhenFactChanges(format!("store of host {host}")));
    let mut found: Vec<Problem> = never_cleared(cx, host, old).into_iter().map(retry).collect();
    let is_by_hand = !found.is_empty();
    found.extend(old.in_use.iter().filter_map(|store| mounted_below(host, store, fate)).map(retry));
    if is_by_hand {
        return found;
    }
    found.extend(old.in_use.iter().filter_map(|store| odd_names(host, store)).map(retry));
    found.extend(objections(cx, host, old));
    let (other, instead) = match fate {
        OldData::Delete => (OldData::MoveAside, "have the directory moved aside (kwscale: --wipe-old-data)"),
        OldData::MoveAside | OldData::Refuse => {
            (OldData::Delete, "have its files deleted (kwscale: --wipe-old-data=delete)")
        }
    };
    let is_offered = found.is_empty() && in_the_way(cx, host, old, other).is_empty();
    found.extend(in_the_way(cx, host, old, fate).into_iter().map(|(message, by_hand)| {
        let cure = if is_offered { format!("{by_hand}, or {instead}") } else { by_hand.to_owned() };
        retry(Problem::new(message).cure(cure))
    }));
    found
}

/// Data that is not known to be a removed node's, directories that are not a node's own, and links.
fn never_cleared(cx: &Context<'_>, host: &HostName, old: &OldDataOf<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    if old.nodes.is_empty() {
        let mut paths = Vec::new();
        for store in &old.in_use {
            match &store.content {
                Fact::Known(StoreContent::InUse(names)) if strange(cx, host, store, names).is_none() => {
                    found.push(strangers(host, store, names));
                }
                _ => paths.push(store.path.as_str()),
            }
        }
        if !paths.is_empty() {
            found.push(
                Problem::new(format!(
                    "{} of host {host} holds a node's files, and no removed node had its address: whose they are is unknown",
                    paths.join(", ")
                ))
                .cure("look whose data it is; if it is needed no more, clear the directory by hand"),
            );
        }
    }
    for path in old.in_use.iter().map(|store| &store.path).filter(|path| !may_be_cleared(path)) {
        found.push(
            Problem::new(format!(
                "{path} of host {host} is no directory of a node's own; it is never cleared"
            ))
            .cure("give the node a directory of its own, or clear it by hand"),
        );
    }
    for (path, real) in old.in_use.iter().filter_map(|store| Some((&store.path, store.leads_to.as_ref()?))) {
        found.push(
            Problem::new(format!(
                "{path} of host {host} leads to {real}; what a link leads to is never cleared"
            ))
            .cure("name that directory itself as the store, or clear it by hand"),
        );
    }
    found
}

/// Names that cannot stand in a plan as they are.
fn odd_names(host: &HostName, store: &StoreFacts) -> Option<Problem> {
    let Fact::Known(StoreContent::InUse(names)) = &store.content else { return None };
    let odd: Vec<String> =
        names.iter().filter(|n| n.contains(['\\', char::REPLACEMENT_CHARACTER])).cloned().collect();
    (!odd.is_empty()).then(|| {
        Problem::new(format!(
            "{} of host {host} holds names that are no plain text, so it cannot be told whether they are what was \
             consented to: {}",
            store.path,
            first_names(&odd)
        ))
        .cure("move them away by hand")
    })
}

/// What speaks against it that the nodes are removed.
fn objections(cx: &Context<'_>, host: &HostName, old: &OldDataOf<'_>) -> Vec<Problem> {
    let ids: Vec<NodeId> = old.nodes.iter().map(|n| n.id).collect();
    let problem = |o: Finding| Problem {
        message: format!("the data on host {host} must not be cleared: {}", o.message),
        evidence: o.evidence,
        cure: o.cure,
        retry: o.retry.unwrap_or(Retry::NeedsPerson),
    };
    safe_to_wipe(cx.obs, &ids).objections.into_iter().map(problem).collect()
}

/// What hinders this way of clearing and not the other one, and what a person can do.
fn in_the_way(
    cx: &Context<'_>,
    host: &HostName,
    old: &OldDataOf<'_>,
    fate: OldData,
) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for store in &old.in_use {
        let (path, Fact::Known(StoreContent::InUse(names))) = (&store.path, &store.content) else { continue };
        if fate == OldData::Delete {
            let foreign: Vec<&str> =
                names.iter().filter(|n| is_foreign(cx.obs, host, path, n)).map(String::as_str).collect();
            if !foreign.is_empty() {
                let message = format!(
                    "{path} of host {host} holds what no store of KWDB has, and would be deleted: {}",
                    foreign.join(", ")
                );
                found.push((message, "move it away by hand"));
            }
        } else if is_mounted(cx.obs, host, store) {
            let message =
                format!("{path} of host {host} is a mount point, and cannot be moved aside as a whole");
            found.push((message, "clear it by hand"));
        } else if store.unmovable {
            let above = match path.trim_end_matches('/').rsplit_once('/') {
                Some((above, _)) if !above.is_empty() => above,
                _ => "/",
            };
            let message = format!(
                "{path} of host {host} cannot be moved aside: the user that commands run as there may not write in {above}"
            );
            found.push((message, "let commands run as root there (sudo), or move it by hand"));
        } else if let Some(aside) = old.aside(store).filter(|aside| store.asides.contains(aside)) {
            let message =
                format!("{path} of host {host} cannot be moved aside to {aside}, which is there already");
            found.push((message, "move that away by hand"));
        }
    }
    found
}

/// Whether an entry of a store is none of KWDB's. Of a time-series directory outside the store nobody says what names it
/// holds: there nothing is.
pub(crate) fn is_foreign(obs: &Observation, host: &HostName, path: &str, name: &str) -> bool {
    let machine = obs.hosts.get(host).and_then(Fact::known).and_then(|facts| facts.machine.as_deref());
    let is_series = machine.is_some_and(|machine| {
        let mut all = machine.file_systems.iter();
        all.any(|f| f.directory == path && f.purpose == DirectoryUse::TimeSeries)
    });
    !is_series && !is_of_a_store(name)
}

/// Whether a store is known to be a file system of its own; where it is not, the act finds out.
fn is_mounted(obs: &Observation, host: &HostName, store: &StoreFacts) -> bool {
    let machine = obs.hosts.get(host).and_then(Fact::known).and_then(|facts| facts.machine.as_deref());
    let by_space = |f: &FileSystem| {
        f.directory == store.path && f.space.known().is_some_and(|s| same_path(&s.mount, &store.path))
    };
    store.is_mounted() || machine.is_some_and(|machine| machine.file_systems.iter().any(by_space))
}

/// What is mounted below a store hinders either way: it cannot be deleted. It can be moved along, but at the next boot
/// it is mounted where it was, over what the new node has there.
fn mounted_below(host: &HostName, store: &StoreFacts, fate: OldData) -> Option<Problem> {
    let path = &store.path;
    if let Fact::Unknown(why) = &store.mounts {
        return Some(Problem::unknown(&format!("what is mounted below {path} of host {host} is"), why));
    }
    let places: Vec<String> = store.mounted_below().map(str::to_owned).collect();
    let why = match fate {
        OldData::Delete => "what is mounted below it cannot be deleted",
        OldData::MoveAside | OldData::Refuse => {
            "what is mounted below it would be moved along, and be over the new node's files after the next boot"
        }
    };
    (!places.is_empty()).then(|| {
        Problem::new(format!("{path} of host {host} must not be cleared: {why}: {}", first_names(&places))).cure(
            "look whose data that is, then unmount it and take it out of /etc/fstab; time-series data on a disk of its own lies \
             outside the store (ts_store)",
        )
    })
}

/// Whether a directory may be cleared at all: absolute, without detours, at least two levels deep, and none that every
/// machine has.
fn may_be_cleared(path: &str) -> bool {
    const SHARED: [&str; 14] = [
        "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "root", "run", "sbin", "sys",
        "usr",
    ];
    const NOT_ITSELF: [&str; 12] = [
        "/var/lib",
        "/var/log",
        "/var/tmp",
        "/var/cache",
        "/var/spool",
        "/var/run",
        "/var/opt",
        "/var/mail",
        "/var/backups",
        "/var/local",
        "/var/lock",
        "/var/empty",
    ];
    let path = path.trim_end_matches('/');
    let Some(rest) = path.strip_prefix('/') else { return false };
    let parts: Vec<&str> = rest.split('/').collect();
    let straight = parts.iter().all(|p| !p.is_empty() && *p != "." && *p != "..");
    let home = parts.first() == Some(&"home") && parts.len() < 3;
    straight
        && parts.len() >= 2
        && !home
        && parts.first().is_some_and(|first| !SHARED.contains(first))
        && !NOT_ITSELF.contains(&path)
}

pub(super) fn old_data(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for (host, _) in joining(cx) {
        let Some(old) = OldDataOf::on(cx.obs, cx.request, host) else { continue };
        // What is refused does not come to it.
        if !refusals(cx, host, &old, cx.request.options.old_data).is_empty() {
            continue;
        }
        let ids: Vec<NodeId> = old.nodes.iter().map(|n| n.id).collect();
        let fate = match cx.request.options.old_data {
            OldData::Delete => "is deleted",
            OldData::MoveAside | OldData::Refuse => "is moved aside",
        };
        let lines = old.in_use.iter().map(|store| match &store.content {
            Fact::Known(StoreContent::InUse(names)) => format!("{}: {}", store.path, first_names(names)),
            _ => store.path.clone(),
        });
        found.push(
            Problem::new(format!(
                "what {} on host {host} {fate} before the new node starts",
                if ids.is_empty() { "lies".to_owned() } else { format!("{} left", crate::plan::ids(&ids)) }
            ))
            .evidence(lines.chain(safe_to_wipe(cx.obs, &ids).evidence)),
        );
    }
    found
}
