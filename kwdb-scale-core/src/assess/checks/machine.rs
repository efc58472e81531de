//! Checks on the machines of hosts that shall join: installation, processes, disks, limits, clock. Those of
//! certificates stand in `certificates`, those of the network in `network`.

use super::Problem;
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::host_facts::{
    ClockOffset, DirectoryUse, HostFacts, InstallMethod, Installed, MODE_FILE, Machine, UNIT, Writable,
};
use crate::kwbase::PROGRAM;
use crate::owner::Owner;
use crate::topology::{HostName, NodeClass};

/// Below so many bytes free kwbase refuses a store (`MinimumStoreSize`, base/store_spec.go).
const LEAST_FREE: u64 = 640 << 20;
/// Open files that kwbase demands and recommends (server/config_unix.go, storage/rocksdb.go): for each store, and for
/// connections.
const FILES_LEAST: (u64, u64) = (1_700, 256);
const FILES_GOOD: (u64, u64) = (10_000, 5_000);
/// What KWDB's service sets `vm.max_map_count` to (kaiwudb_install/utils/kaiwudb_install.sh).
const MAPS: u64 = 10_000_000;

/// A host that shall join, with what a look at its machine told.
#[derive(Clone, Copy)]
pub(super) struct Joining<'a> {
    pub(super) host: &'a HostName,
    pub(super) facts: &'a HostFacts,
    pub(super) machine: &'a Machine,
}

impl Joining<'_> {
    /// Whether an installer's record is that of the node that shall start here, and not of another one of the machine.
    fn is_installed_as(&self, installed: &Installed) -> bool {
        let bare = installed.method == InstallMethod::Bare && !self.machine.inside;
        let program =
            bare && self.machine.program.starts_with(&format!("{}/", installed.place.trim_end_matches('/')));
        program || self.facts.has_store(&installed.data_root) || self.machine.inside
    }

    fn installed(&self) -> Option<&Installed> {
        self.machine.installed.known()?.as_ref().filter(|i| self.is_installed_as(i))
    }

    fn changes(&self, what: &str) -> Retry {
        Retry::WhenFactChanges(format!("{what} of host {}", self.host))
    }
}

pub(super) fn joining<'a>(cx: &Context<'a>) -> Vec<Joining<'a>> {
    let all = cx.change.add.iter().filter_map(|host| {
        let facts = cx.obs.hosts.get(host)?.known()?;
        Some(Joining { host, facts, machine: facts.machine.as_deref()? })
    });
    all.collect()
}

/// The machines of members' hosts that were looked at.
pub(super) fn members<'a>(cx: &Context<'a>) -> Vec<(&'a HostName, &'a Machine)> {
    let members = cx.obs.of_class(NodeClass::Member).filter_map(|n| cx.host_of(n));
    let mut found: Vec<(&HostName, &Machine)> = Vec::new();
    for host in members {
        let machine = cx.obs.hosts.get(host).and_then(Fact::known).and_then(|f| f.machine.as_deref());
        if let Some(machine) = machine
            && !found.iter().any(|(name, _)| *name == host)
        {
            found.push((host, machine));
        }
    }
    found
}

pub(super) fn installed(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for new in joining(cx) {
        let Some(installed) = new.installed() else { continue };
        let (is, runs) = match (installed.method, new.machine.inside) {
            (InstallMethod::Container, false) => ("in a container", "outside of it"),
            (InstallMethod::Bare, true) => ("bare", "behind a prefix"),
            _ => continue,
        };
        found.push(
            Problem::new(format!("KWDB is installed {is} on host {}, and its commands run {runs}", new.host))
                .evidence([format!("{MODE_FILE}: {}, {}", installed.method, installed.place)])
                .cure("give the host the program and the exec_prefix that fit its installation"),
        );
    }
    found
}

pub(super) fn mode(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for new in joining(cx) {
        let host = new.host;
        if let Fact::Unknown(why) = &new.machine.installed
            && new.machine.program == PROGRAM
        {
            let what = format!("how KWDB was installed on host {host} ({MODE_FILE}) is");
            found.push(Problem::unknown(&what, why).retry(new.changes("MODE file")));
        }
        let Some(installed) = new.installed() else { continue };
        if let Fact::Known(mode) = &cx.mode
            && installed.start_mode != *mode
        {
            let was = &installed.start_mode;
            found.push(
                Problem::new(format!("host {host} is installed for {was}, the cluster runs with {mode}"))
                    .evidence([format!("{MODE_FILE}, line 2")])
                    .cure(format!(
                        "install KWDB on host {host} with the cluster's method, and start nothing there"
                    ))
                    .retry(new.changes("MODE file")),
            );
        }
        if installed.secure() != new.facts.secure {
            let word = |secure| if secure { "secure" } else { "insecure" };
            found.push(
                Problem::new(format!(
                    "host {host} is installed {}, and described as {}",
                    word(installed.secure()),
                    word(new.facts.secure)
                ))
                .evidence([format!("{MODE_FILE}, line 8: {}", installed.security)])
                .cure("install the host as the cluster runs: a node of the other kind waits for hours and never joins")
                .retry(new.changes("MODE file")),
            );
        }
    }
    found
}

pub(super) fn running(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for new in joining(cx) {
        let (host, machine) = (new.host, new.machine);
        let processes = machine.processes.known().map_or(&[][..], Vec::as_slice);
        let ours = processes.iter().filter(|p| p.stores.iter().any(|s| new.facts.has_store(s)));
        let mut lines: Vec<String> = ours
            .map(|p| {
                format!(
                    "process {} of {}: kwbase {} --store={}",
                    p.pid,
                    p.user,
                    p.start_mode,
                    p.stores.join(",")
                )
            })
            .collect();
        // What runs on the machine is not what runs inside a container, nor need it be this host's: another node of
        // the machine has other stores.
        if let (Fact::Known(Some(unit)), false) = (&machine.unit, machine.inside)
            && unit.is_up()
        {
            let main = processes.iter().find(|p| Some(p.pid) == unit.main_pid);
            if main.is_none_or(|p| p.stores.iter().any(|s| new.facts.has_store(s))) {
                lines.push(format!("{} is {}", machine.unit_name(), unit.active));
            }
        }
        if let Fact::Known(Some(container)) = &machine.container
            && container.is_up()
        {
            let record = machine.installed.known().and_then(Option::as_ref);
            let installers = !machine.inside && record.is_none_or(|i| new.facts.has_store(&i.data_root));
            // A container that owns the node is this host's, whatever leads into it.
            if let Owner::Container { name, .. } = &machine.owner {
                lines.push(format!("container {name} of {} is {}", container.image, container.state));
            } else if installers {
                lines.push(format!("the container of {} is {}", container.image, container.state));
            }
        }
        if !lines.is_empty() {
            found.push(
                Problem::new(format!("KWDB runs on host {host} already"))
                    .evidence(lines)
                    .cure("stop it, and look whether it serves another cluster first")
                    .retry(new.changes("processes")),
            );
        }
    }
    found
}

/// A scale-in disables the unit of what it stops; a join only starts it.
pub(super) fn unit_disabled(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for new in joining(cx).into_iter().filter(|new| new.facts.by_service) {
        if let Fact::Known(Some(unit)) = &new.machine.unit
            && unit.enabled == "disabled"
        {
            found.push(
                Problem::new(format!(
                    "the unit that starts the node of host {} is disabled, so that a reboot would not bring it back",
                    new.host
                ))
                .cure("systemctl enable it there, unless that is wanted"),
            );
        }
    }
    found
}

pub(super) fn writable(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for new in joining(cx) {
        let machine = new.machine;
        // A service starts the node as somebody else, for whom nothing was tried: the rights tell.
        let user = machine.service_user().filter(|_| new.facts.by_service);
        if new.facts.by_service && user.is_none() {
            continue;
        }
        let shut = |w: &&Writable| match user {
            None => w.writable == Fact::Known(false),
            Some(user) => w.rights.as_ref().is_some_and(|rights| rights.shut_out(user)),
        };
        let rights = |w: &Writable| w.rights.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
        let closed = machine.writable.iter().filter(|w| new.facts.has_store(&w.directory)).filter(shut);
        let lines: Vec<String> = closed.map(|w| format!("{}{}", w.directory, rights(w))).collect();
        if !lines.is_empty() {
            let who = match user {
                Some(user) => format!("{user}, as whom {} runs", machine.unit_name()),
                None => machine.user.to_string(),
            };
            found.push(
                Problem::new(format!(
                    "no file can be made in store directories of host {} by {who}",
                    new.host
                ))
                .evidence(lines)
                .cure("make the directory and give it to the user that runs kwbase, or run as another user")
                .retry(new.changes("writable")),
            );
        }
    }
    found
}

fn amount(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

pub(super) fn disk_full(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for new in joining(cx) {
        for file_system in new.machine.file_systems.iter().filter(|f| f.purpose != DirectoryUse::External) {
            let Fact::Known(space) = &file_system.space else { continue };
            if space.free < LEAST_FREE {
                found.push(
                    Problem::new(format!(
                        "{} of host {} has {} free, less than kwbase takes for a store ({})",
                        file_system.directory,
                        new.host,
                        amount(space.free),
                        amount(LEAST_FREE)
                    ))
                    .evidence([format!("{} on {}, {}", space.source, space.mount, amount(space.size))])
                    .cure("free disk space, or name a directory of another file system")
                    .retry(new.changes("disk")),
                );
            }
        }
    }
    found
}

pub(super) fn disk_small(cx: &Context<'_>) -> Vec<Problem> {
    let members = cx.obs.of_class(NodeClass::Member);
    let mut sizes: Vec<u64> =
        members.flat_map(|n| n.stores.values()).filter_map(|s| s.status.capacity).collect();
    sizes.sort_unstable();
    let Some(median) = sizes.get(sizes.len() / 2).copied().filter(|m| *m > 0) else { return Vec::new() };
    let wanted = u128::from(median) * u128::from(cx.policy.min_disk_percent) / 100;
    let mut found = Vec::new();
    for new in joining(cx) {
        for file_system in new.machine.file_systems.iter().filter(|f| f.purpose == DirectoryUse::Store) {
            let Fact::Known(space) = &file_system.space else { continue };
            if u128::from(space.size) < wanted {
                found.push(
                    Problem::new(format!(
                        "store {} of host {} is on {} of disk, less than {} % of the median store of the members ({})",
                        file_system.directory,
                        new.host,
                        amount(space.size),
                        cx.policy.min_disk_percent,
                        amount(median)
                    ))
                    .cure("give the node a disk like those of the others: it gets as many replicas as they have"),
                );
            }
        }
    }
    found
}

fn count(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string())
}

/// How many open files of a host are needed for its stores.
fn files(new: &Joining<'_>, (each, more): (u64, u64)) -> u64 {
    let stores = u64::try_from(new.facts.stores.len()).unwrap_or(u64::MAX);
    stores.saturating_mul(each).saturating_add(more)
}

fn too_few(new: &Joining<'_>, wanted: u64) -> Option<u64> {
    new.machine.limits.open_files.known()?.hard.filter(|hard| *hard < wanted)
}

/// kwbase raises its own limit as far as the hard one allows, so that the soft one does not matter (seen on V3.2.1).
pub(super) fn open_files(cx: &Context<'_>) -> Vec<Problem> {
    let new = joining(cx).into_iter().filter(|new| !new.facts.by_service);
    new.filter_map(|new| {
        let least = files(&new, FILES_LEAST);
        let hard = too_few(&new, least)?;
        let host = new.host;
        Some(
            Problem::new(format!(
                "a session on host {host} may open {hard} files, and kwbase does not start below {least}"
            ))
            .cure(format!(
                "raise the hard limit of open files (nofile) for the user that runs kwbase, or start the node by {UNIT}, which sets it"
            ))
            .retry(new.changes("limit of open files")),
        )
    })
    .collect()
}

pub(super) fn limits(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    // Where the script starts the node, that is the service of its installation, which sets all three at every start.
    for new in joining(cx).into_iter().filter(|new| new.facts.script.is_none()) {
        let limits = &new.machine.limits;
        let mut lines = Vec::new();
        let good = files(&new, FILES_GOOD);
        // Less than the least is a finding of its own.
        if let Some(hard) =
            too_few(&new, good).filter(|h| new.facts.by_service || *h >= files(&new, FILES_LEAST))
        {
            lines.push(format!("open files: {hard}; kwbase recommends {good}"));
        }
        if let Fact::Known(memory) = &limits.locked_memory
            && memory.hard.is_some()
        {
            lines.push(format!("locked memory: {} bytes; KWDB's service has no limit", count(memory.hard)));
        }
        if let Fact::Known(maps) = &limits.max_map_count
            && *maps < MAPS
        {
            lines.push(format!("vm.max_map_count: {maps}; KWDB's service sets {MAPS}"));
        }
        if !lines.is_empty() {
            found.push(
                Problem::new(format!("limits of host {} are lower than KWDB's service sets them", new.host))
                    .evidence(lines)
                    .cure(format!("raise them for the user that runs kwbase, or start the node by {UNIT}, which sets them")),
            );
        }
    }
    found
}

fn milliseconds(distance: jiff::SignedDuration) -> String {
    format!("{} ms", distance.as_millis())
}

/// New hosts whose clocks surely differ from others' by more than is allowed.
struct Skewed<'a> {
    host: &'a HostName,
    far: Vec<String>,
    others: usize,
    /// A node on such a host ends itself: most of the members' clocks are known, and half of these are far.
    ends_itself: bool,
}

fn skewed<'a>(cx: &Context<'a>) -> Vec<Skewed<'a>> {
    let most = cx.policy.max_clock_skew;
    let peers: Vec<(String, ClockOffset)> = members(cx)
        .into_iter()
        .filter_map(|(host, machine)| Some((format!("host {host}"), *machine.clock.known()?)))
        .collect();
    let mut found = Vec::new();
    for new in joining(cx) {
        let Fact::Known(own) = &new.machine.clock else { continue };
        // The operator's clock takes no part in the cluster: it only stands in where no member's host is known.
        let operator = [("the operator's machine".to_owned(), ClockOffset::OPERATOR)];
        let others = if peers.is_empty() { &operator[..] } else { &peers[..] };
        let far: Vec<String> = others
            .iter()
            .filter(|(_, other)| own.surely_from(*other) > most)
            .map(|(name, other)| format!("{} from {name}, or more", milliseconds(own.surely_from(*other))))
            .collect();
        if !far.is_empty() {
            let members = cx.obs.of_class(NodeClass::Member).count();
            let ends_itself = far.len() * 2 > members;
            found.push(Skewed {
                host: new.host,
                far,
                others: others.len(),
                ends_itself: ends_itself && !peers.is_empty(),
            });
        }
    }
    found
}

fn clock_problem(cx: &Context<'_>, skewed: Skewed<'_>) -> Problem {
    let message = format!(
        "the clock of host {} differs by more than {} from {} of {} others",
        skewed.host,
        milliseconds(cx.policy.max_clock_skew),
        skewed.far.len(),
        skewed.others
    );
    Problem::new(message)
        .evidence(skewed.far)
        .cure("set up time synchronisation (chrony, ntp): a node ends itself when its clock is 80 % of --max-offset (500 ms) off those of half the others")
        .retry(Retry::WhenFactChanges(format!("the clock of host {}", skewed.host)))
}

pub(super) fn clock(cx: &Context<'_>) -> Vec<Problem> {
    skewed(cx).into_iter().filter(|s| !s.ends_itself).map(|s| clock_problem(cx, s)).collect()
}

/// A node would end itself there.
pub(super) fn clock_far(cx: &Context<'_>) -> Vec<Problem> {
    skewed(cx).into_iter().filter(|s| s.ends_itself).map(|s| clock_problem(cx, s)).collect()
}

pub(super) fn leftovers(cx: &Context<'_>) -> Vec<Problem> {
    let mut lines = Vec::new();
    for (host, facts) in &cx.obs.hosts {
        let machine = facts.known().and_then(|f| f.machine.as_deref());
        for left in machine.and_then(|m| m.leftovers.known()).into_iter().flatten() {
            let what = if left.path.ends_with("/before-join") {
                ", kept aside by a deploy.sh join that goes on or was cut off: an undo or the next join puts it back"
            } else if left.is_temporary() {
                ", by its name of an operation that goes on or was cut off: kwscale resume removes it, or the next apply"
            } else {
                ""
            };
            lines.push(format!(
                "host {host}: {} (mode {:03o}, of {}{what})",
                left.path, left.mode, left.owner
            ));
        }
    }
    if lines.is_empty() {
        return Vec::new();
    }
    vec![
        Problem::new("what may hold private keys, a certificate authority's among them, lies about on hosts")
            .evidence(super::some(lines, cx.policy.list_ranges))
            .cure("keep the authority's key in one safe place, and remove these once no operation goes on"),
    ]
}

pub(super) fn untold(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for host in &cx.change.add {
        let Some(Fact::Known(facts)) = cx.obs.hosts.get(host) else { continue };
        let mut lines = match &facts.machine {
            None => vec!["its machine was not looked at".to_owned()],
            Some(machine) => machine.unknowns(),
        };
        lines.extend(super::certificates::untold(cx, facts));
        lines.extend(super::script::untold(cx, host));
        lines.extend(super::network::untold(cx, host));
        if !lines.is_empty() {
            found.push(
                Problem::new(format!("not everything about host {host} could be told"))
                    .evidence(super::some(lines, cx.policy.list_ranges)),
            );
        }
    }
    found
}
