//! Checks on hosts that shall join.

use std::collections::BTreeMap;

use super::Problem;
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::host_facts::{DirectoryUse, FileSystem, first_names, is_of_a_store, same_path};
use crate::observation::{Node, Observation};
use crate::owner::Owner;
use crate::ports::{HostFacts, StoreContent, StoreFacts};
use crate::request::{OldData, Request};
use crate::safety::safe_to_wipe;
use crate::topology::{Address, HostName, NodeClass, NodeId};

/// What was found on the hosts that shall join, as far as they could be looked at.
fn joining<'a>(cx: &Context<'a>) -> Vec<(&'a HostName, &'a HostFacts)> {
    cx.change.add.iter().filter_map(|host| Some((host, cx.obs.hosts.get(host)?.known()?))).collect()
}

pub(super) fn facts(cx: &Context<'_>) -> Vec<Problem> {
    cx.change
        .add
        .iter()
        .filter_map(|host| {
            let why = match cx.obs.hosts.get(host) {
                Some(Fact::Known(_)) => return None,
                Some(Fact::Unknown(why)) => why.as_str(),
                None => "it was not looked at",
            };
            Some(
                Problem::new(format!("host {host} is unknown: {why}"))
                    .cure(look_again(host))
                    .retry(Retry::WhenFactChanges(format!("host {host}"))),
            )
        })
        .collect()
}

/// What is wrong the reason says itself.
pub(super) fn look_again(host: &HostName) -> String {
    format!("mend what the reason names, and look again (kwscale: hosts {host})")
}

/// Hosts of nodes and the control host that could not be looked at.
pub(super) fn others(cx: &Context<'_>) -> Vec<Problem> {
    let others = cx.obs.hosts.iter().filter(|(host, _)| !cx.change.add.contains(host));
    others
        .filter_map(|(host, facts)| Some((host, facts.why_unknown()?)))
        .map(|(host, why)| {
            Problem::new(format!("host {host} could not be looked at: {why}")).cure(look_again(host))
        })
        .collect()
}

pub(super) fn store_empty(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for (host, facts) in joining(cx) {
        if facts.stores.is_empty() {
            found.push(Problem::new(format!("no store directory of host {host} is known")));
        }
        let old = OldDataOf::on(cx.obs, cx.request, host);
        if let Some(old) = &old {
            found.extend(not_theirs(cx, host, old, cx.request.options.old_data));
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
            .is_some_and(|old| not_theirs(cx, host, &old, fate).is_empty())
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
}

/// Why the data on a host must not be cleared in that way.
fn not_theirs(cx: &Context<'_>, host: &HostName, old: &OldDataOf<'_>, fate: OldData) -> Vec<Problem> {
    let retry = || Retry::WhenFactChanges(format!("store of host {host}"));
    let paths: Vec<&str> = old.in_use.iter().map(|s| s.path.as_str()).collect();
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
                .cure("look whose data it is; if it is needed no more, clear the directory by hand")
                .retry(retry()),
            );
        }
    }
    for path in paths.iter().filter(|p| !may_be_cleared(p)) {
        found.push(
            Problem::new(format!(
                "{path} of host {host} is no directory of a node's own; it is never cleared"
            ))
            .cure("give the node a directory of its own, or clear it by hand")
            .retry(retry()),
        );
    }
    for store in &old.in_use {
        found.extend(mounted_below(host, store, fate).map(|problem| problem.retry(retry())));
        let Fact::Known(StoreContent::InUse(names)) = &store.content else { continue };
        let path = &store.path;
        let odd: Vec<String> =
            names.iter().filter(|n| n.contains(['\\', char::REPLACEMENT_CHARACTER])).cloned().collect();
        if !odd.is_empty() {
            found.push(
                Problem::new(format!(
                    "{path} of host {host} holds names that are no plain text, so it cannot be told whether they are what was \
                     consented to: {}",
                    first_names(&odd)
                ))
                .cure("move them away by hand")
                .retry(retry()),
            );
        }
        if fate == OldData::Delete {
            let foreign: Vec<String> =
                names.iter().filter(|n| is_foreign(cx.obs, host, path, n)).cloned().collect();
            if !foreign.is_empty() {
                found.push(
                    Problem::new(format!(
                        "{path} of host {host} holds what no store of KWDB has, and would be deleted: {}",
                        foreign.join(", ")
                    ))
                    .cure(
                        "move it away by hand, or have the directory moved aside (kwscale: --wipe-old-data)",
                    )
                    .retry(retry()),
                );
            }
        }
    }
    if fate == OldData::MoveAside {
        for store in old.in_use.iter().filter(|store| is_mounted(cx.obs, host, store)) {
            let path = &store.path;
            found.push(
                Problem::new(format!(
                    "{path} of host {host} is a mount point, and cannot be moved aside as a whole"
                ))
                .cure(
                    "ask for its files to be deleted (kwscale: --wipe-old-data=delete), or clear it by hand",
                )
                .retry(retry()),
            );
        }
    }
    let ids: Vec<NodeId> = old.nodes.iter().map(|n| n.id).collect();
    if !ids.is_empty() {
        let objections = safe_to_wipe(cx.obs, &ids).objections;
        found.extend(objections.into_iter().map(|o| Problem {
            message: format!("the data on host {host} must not be cleared: {}", o.message),
            evidence: o.evidence,
            cure: o.cure,
            retry: o.retry.unwrap_or(Retry::NeedsPerson),
        }));
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

pub(super) fn version(cx: &Context<'_>) -> Vec<Problem> {
    let cluster: Vec<&String> = cx
        .obs
        .nodes
        .values()
        .filter(|n| n.class != NodeClass::Removed)
        .filter_map(|n| n.build.known())
        .collect();
    let mut found = Vec::new();
    for (host, facts) in joining(cx) {
        let retry = Retry::WhenFactChanges(format!("kwbase of host {host}"));
        match (&facts.build, cluster.first()) {
            (Fact::Unknown(why), _) => found
                .push(Problem::unknown(&format!("the kwbase release of host {host} is"), why).retry(retry)),
            (Fact::Known(_), None) => {
                found.push(Problem::new("the cluster's release is unknown").retry(retry));
            }
            (Fact::Known(build), Some(members)) => {
                if cluster.iter().any(|other| *other != build) {
                    found.push(
                        Problem::new(format!("host {host} has kwbase {build}, the cluster runs {members}"))
                            .cure(format!("install KWDB {members} on host {host}"))
                            .retry(retry),
                    );
                }
            }
        }
    }
    found
}

pub(super) fn ports(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for (host, facts) in joining(cx) {
        match &facts.listening {
            Fact::Known(list) if list.is_empty() => {}
            Fact::Known(list) => {
                let list: Vec<String> = list.iter().map(ToString::to_string).collect();
                found.push(
                    Problem::new(format!("something listens on host {host} already: {}", list.join(", ")))
                        .cure("stop what listens there, or give the node other ports")
                        .retry(Retry::WhenFactChanges(format!("listeners of host {host}"))),
                );
            }
            Fact::Unknown(why) => found.push(
                Problem::unknown(&format!("whether something listens on host {host} is"), why)
                    .retry(Retry::WhenFactChanges(format!("listeners of host {host}"))),
            ),
        }
    }
    found
}

pub(super) fn secure(cx: &Context<'_>) -> Vec<Problem> {
    let mut modes: BTreeMap<bool, Vec<String>> = BTreeMap::new();
    for (host, facts) in &cx.obs.hosts {
        let member = cx.staying.iter().chain(&cx.leaving).any(|n| cx.host_of(n) == Some(host));
        if let (Fact::Known(facts), true) = (facts, member || cx.change.add.contains(host)) {
            modes.entry(facts.secure).or_default().push(host.to_string());
        }
    }
    match (modes.get(&true), modes.get(&false)) {
        (Some(secure), Some(insecure)) => vec![
            Problem::new("some hosts are configured secure and some insecure")
                .evidence([
                    format!("secure: {}", secure.join(", ")),
                    format!("insecure: {}", insecure.join(", ")),
                ])
                .cure("configure all hosts as the cluster runs"),
        ],
        _ => Vec::new(),
    }
}

pub(super) fn credentials(cx: &Context<'_>) -> Vec<Problem> {
    if super::authority::wanted(cx) {
        // They are made before the node starts.
        return Vec::new();
    }
    let joins = joining(cx).into_iter().filter(|(host, _)| !super::script::makes_certificates(cx, host));
    joins
        .filter_map(|(host, facts)| {
            let dir = super::certificates::directory(facts).filter(|_| facts.secure);
            let faults = dir.map(|dir| super::certificates::root_faults(cx, dir)).unwrap_or_default();
            match &facts.can_authenticate {
                Fact::Known(true) if faults.is_empty() => None,
                Fact::Unknown(why) if faults.is_empty() => Some(Problem::unknown(
                    &format!("whether commands on host {host} can authenticate is"),
                    why,
                )),
                _ => {
                    let cure = if facts.archive_only {
                        "ask for certificates of the method archive (kwscale: --certificates archive)"
                    } else {
                        "ask for certificates of the method issue (kwscale: --certificates issue), or put client.root.crt and client.root.key of the cluster's CA there before starting (kwbase cert create-client root)"
                    };
                    let message = format!("root's client certificate and key cannot be used on host {host}");
                    Some(Problem::new(message).evidence(faults).cure(cure))
                }
            }
        })
        .collect()
}

fn is_loopback(address: &Address) -> bool {
    let host = address.host();
    host == "localhost" || host == "::1" || host.starts_with("127.")
}

pub(super) fn address(cx: &Context<'_>) -> Vec<Problem> {
    let others_dial = cx
        .obs
        .nodes
        .values()
        .filter(|n| n.class == NodeClass::Member)
        .filter_map(|n| n.address.known())
        .find(|a| !is_loopback(a));
    cx.change
        .add
        .iter()
        .filter_map(|host| {
            let address = &cx.request.inventory.hosts.get(host)?.address;
            let problem = if address.port().is_none() {
                format!("the address of host {host}, {address}, has no port")
            } else if matches!(address.host(), "" | "0.0.0.0" | "::") {
                format!("host {host} would advertise {address}, which nobody can dial")
            } else if let (true, Some(other)) = (is_loopback(address), others_dial) {
                format!("host {host} would advertise {address}, which {other} cannot dial")
            } else {
                return None;
            };
            Some(Problem::new(problem).cure("give the host the address at which the other nodes reach it"))
        })
        .collect()
}

pub(super) fn reused(cx: &Context<'_>) -> Vec<Problem> {
    cx.change
        .add
        .iter()
        .filter_map(|host| {
            let address = &cx.request.inventory.hosts.get(host)?.address;
            let former: Vec<String> = cx
                .obs
                .of_class(NodeClass::Removed)
                .filter(|n| n.address.known() == Some(address))
                .map(|n| n.id.to_string())
                .collect();
            let message = format!(
                "host {host} takes {address}, formerly of removed {}: the new node gets an id of its own",
                former.join(", ")
            );
            (!former.is_empty()).then(|| Problem::new(message))
        })
        .collect()
}
