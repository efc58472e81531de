//! The catalogue. Each row is a check: its name, its severity for each kind of change, what must hold, and where
//! the rule comes from. `docs/checks.md` repeats the table; a test keeps the two equal.

mod authority;
mod capacity;
mod certificates;
mod cluster;
mod holders;
mod hosts;
mod machine;
mod means;
mod members;
mod network;
mod notes;
mod owner;
mod ranges;
mod script;
mod settings;
mod stores;
mod zones;

pub(crate) use stores::{OldDataOf, is_foreign};

use super::resolve::{ALREADY, HOSTS, TARGETS};
use super::{Context, Finding, OperationKind, Retry, Severity};
use crate::fact::Fact;

/// A check: one thing that must hold, should hold, or is good to know.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// What it looks for.
    pub what: &'static str,
    /// Where the rule comes from.
    pub source: &'static str,
    severities: [Option<Severity>; 4],
    run: fn(&Context<'_>) -> Vec<Problem>,
}

impl Check {
    /// How much a finding of this check weighs for a kind of change; `None` where it does not apply.
    pub fn severity(&self, kind: OperationKind) -> Option<Severity> {
        let [out, scale_in, replace, nothing] = self.severities;
        match kind {
            OperationKind::Out => out,
            OperationKind::In => scale_in,
            OperationKind::Replace => replace,
            OperationKind::Nothing => nothing,
        }
    }

    /// Runs it, if it applies to the change.
    pub fn run(&self, context: &Context<'_>) -> Vec<Finding> {
        let Some(severity) = self.severity(context.change.kind) else { return Vec::new() };
        (self.run)(context)
            .into_iter()
            .map(|problem| Finding {
                check: self.name.to_owned(),
                severity,
                message: problem.message,
                evidence: problem.evidence,
                cure: problem.cure,
                retry: (severity == Severity::Refuse).then_some(problem.retry),
            })
            .collect()
    }
}

/// What a check found, before the table says how much it weighs.
struct Problem {
    message: String,
    evidence: Vec<String>,
    cure: Option<String>,
    retry: Retry,
}

impl Problem {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), evidence: Vec::new(), cure: None, retry: Retry::NeedsPerson }
    }

    /// An unknown fact: it weighs what a failed check weighs, for it is no pass.
    fn unknown(what: &str, why: &str) -> Self {
        Self::new(format!("{what} unknown: {why}"))
            .retry(Retry::WhenFactChanges(what.trim_end_matches(" is").trim_end_matches(" are").to_owned()))
    }

    fn evidence(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(lines);
        self
    }

    fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    fn after_secs(self, secs: i64) -> Self {
        self.retry(Retry::After(jiff::SignedDuration::from_secs(secs)))
    }
}

const NO: Option<Severity> = None;
const INFO: Option<Severity> = Some(Severity::Info);
const WARN: Option<Severity> = Some(Severity::Warn);
const REFUSE: Option<Severity> = Some(Severity::Refuse);

macro_rules! table {
    ($($name:expr, [$out:ident $in:ident $replace:ident $nothing:ident], $run:expr, $what:expr, $source:expr;)*) => {
        &[$(Check {
            name: $name,
            what: $what,
            source: $source,
            severities: [$out, $in, $replace, $nothing],
            run: $run,
        }),*]
    };
}

/// Findings of these come from [`resolve`](super::resolve).
fn by_resolve(_: &Context<'_>) -> Vec<Problem> {
    Vec::new()
}

const PAGE: &str = "KWDB page \"Cluster Scaling\"";

/// Every check, in the order in which findings are listed. The severities are of scale-out, scale-in, replace and
/// of a request that is fulfilled already.
static CATALOGUE: &[Check] = table! {
    // The request.
    TARGETS, [REFUSE REFUSE REFUSE REFUSE], by_resolve,
        "the nodes that shall leave exist, are named once and without ambiguity", PAGE;
    HOSTS, [REFUSE REFUSE REFUSE REFUSE], by_resolve,
        "the hosts that shall join are in the inventory, named once, and their addresses free", "two liveness rows may share one address (observed)";
    ALREADY, [INFO INFO INFO INFO], by_resolve,
        "parts of the request that are so already", "requests are idempotent";
    // The cluster.
    "cluster-readable", [REFUSE REFUSE REFUSE WARN], cluster::readable,
        "the cluster is reached and initialised, and its identity is known", PAGE;
    "admin-role", [REFUSE REFUSE REFUSE WARN], cluster::admin,
        "the user has the admin role", "kwdb_internal tables need it (sql/authorization.go)";
    "gateways-agree", [REFUSE REFUSE REFUSE WARN], cluster::agree,
        "all gateways belong to one cluster and see the same members", "liveness is read from each gateway's own gossip";
    "two-gateways", [WARN REFUSE REFUSE NO], cluster::two_gateways,
        "two members that stay have answered", "one gateway's gossip may lag or miss nodes (kwdb_internal.go)";
    "clock-skew", [WARN WARN WARN NO], cluster::skew,
        "clocks of the gateways differ by little", "nodes end themselves at 80 % of --max-offset (500 ms)";
    // The members.
    "members-known", [REFUSE REFUSE REFUSE WARN], members::known,
        "the class of every node can be told", "unknown is never a pass";
    "members-described", [REFUSE REFUSE REFUSE NO], members::described,
        "address, locality, start mode and build of every live node are known", "gossip may lack a descriptor (kwdb_internal.go)";
    "members-alive", [WARN REFUSE REFUSE WARN], members::alive,
        "every member is alive: is_available and is_live are both true", PAGE;
    "target-alive", [NO REFUSE REFUSE NO], members::target_alive,
        "no leaving node is down", "removing a dead node is an operation of its own: its quorum arithmetic differs (store_pool.go)";
    "none-draining", [WARN REFUSE REFUSE NO], members::draining,
        "no node is draining", "replicas on draining nodes are not counted for quorum (store_pool.go)";
    "none-upgrading", [REFUSE REFUSE REFUSE NO], members::upgrading,
        "no node is being upgraded", "the server refuses to decommission then (server.go)";
    "none-leaving", [REFUSE REFUSE REFUSE WARN], members::leaving,
        "no other decommission is in progress", "separate decommissions at once may not converge (cockroach#35156)";
    "drained-still-running", [WARN WARN WARN WARN], members::drained,
        "no emptied node still runs, and no removed node came back", "a removed node restarted on its old store is live again (observed)";
    // Modes and releases.
    "start-mode", [REFUSE REFUSE REFUSE NO], members::start_mode,
        "all nodes run with one known start mode that can scale", "kwbase start, start-single-replica; start-single-node never grows";
    "single-replica-scale-in", [NO REFUSE REFUSE NO], members::single_replica,
        "a single-replica cluster is not scaled in", PAGE;
    "version-supported", [REFUSE REFUSE REFUSE NO], members::version_supported,
        "every node runs V2.2.1 or newer", "older open-source builds cannot join or decommission (cli/node.go)";
    "version-uniform", [REFUSE REFUSE REFUSE NO], members::version_uniform,
        "every node runs the same release", "membership does not change during an upgrade";
    "version-known", [WARN WARN WARN NO], members::version_known,
        "the release is one that this library knows", "release table";
    // How many remain.
    "members-remain", [NO REFUSE REFUSE NO], members::remain,
        "at least 3 live members remain", PAGE;
    "zone-need", [NO REFUSE REFUSE NO], zones::need,
        "the members that remain are enough for the factor of every zone", "GetNeededReplicas (allocator.go)";
    "factor-shrinks", [NO INFO INFO NO], zones::shrinks,
        "zones whose ranges will keep fewer replicas, with the tolerance that is left", "GetNeededReplicas (allocator.go)";
    "factor-grows", [INFO NO INFO NO], zones::grows,
        "zones whose ranges will get more replicas", "GetNeededReplicas (allocator.go)";
    // Ranges.
    "ranges-available", [REFUSE REFUSE REFUSE NO], ranges::available,
        "every range has a live quorum, by descriptors and liveness", PAGE;
    "ranges-replicated", [WARN REFUSE REFUSE NO], ranges::replicated,
        "every range has the live replicas that it needs", PAGE;
    "ranges-mapped", [WARN REFUSE REFUSE NO], ranges::mapped,
        "every replica is on a store of a known node", "unknown is never a pass";
    "ranges-unclear", [WARN WARN WARN NO], ranges::unclear,
        "ranges whose partition cannot be told have the greater of the possible factors", "descriptors do not name partitions";
    "moves-under-way", [WARN WARN WARN NO], ranges::learners,
        "no replica is being moved", "a learner is a copy being made";
    "page-query", [WARN REFUSE REFUSE NO], ranges::page,
        "the page's own query, limited to live nodes, says 0 and 0", PAGE;
    "status-fresh", [WARN REFUSE REFUSE NO], ranges::fresh,
        "every live node has written its status lately", "rows of kv_store_status are never deleted (observed)";
    "purgatory", [WARN WARN WARN NO], ranges::purgatory,
        "the allocator finds a place for every replica", "gauge queue.replicate.purgatory";
    // Zones and jobs.
    "constraints-block", [NO REFUSE REFUSE NO], zones::blocking,
        "no zone constraint hinders replicas from leaving", PAGE;
    "constraints-name", [NO WARN WARN NO], zones::naming,
        "no zone constraint names a leaving node's locality", PAGE;
    "lease-preferences", [NO WARN WARN NO], zones::leases,
        "no lease preference names a leaving node's locality", PAGE;
    "jobs", [WARN REFUSE REFUSE NO], settings::jobs,
        "no schema change, import, export, backup or restore is running", "KWDB upgrade page (SHOW JOBS)";
    // New hosts.
    "host-facts", [REFUSE NO REFUSE NO], hosts::facts,
        "every new host could be looked at", "unknown is never a pass";
    "hosts-of-members", [WARN WARN WARN NO], hosts::others,
        "every host of a node, and the control host, could be looked at", "unknown is never a pass";
    "host-store-empty", [REFUSE NO REFUSE NO], stores::store_empty,
        "the store of a new host is absent or empty", PAGE;
    "old-data", [WARN NO WARN NO], stores::old_data,
        "what a removed node left on a new host, where the request clears it", PAGE;
    "host-version", [REFUSE NO REFUSE NO], hosts::version,
        "a new host has the cluster's release", "mixed releases are refused";
    "host-ports-free", [REFUSE NO REFUSE NO], hosts::ports,
        "nothing listens at a new host's addresses", PAGE;
    "host-secure", [REFUSE NO REFUSE NO], hosts::secure,
        "new hosts and members are configured alike, secure or insecure", PAGE;
    "host-credentials", [WARN NO WARN NO], hosts::credentials,
        "commands on a new host can authenticate as root", PAGE;
    "certificates-authority", [REFUSE NO REFUSE NO], authority::authority,
        "certificates that are asked for can be made, by the cluster's own authority", PAGE;
    "certificates-key-travels", [WARN NO WARN NO], authority::key_travels,
        "the authority's private key stays where it is", PAGE;
    "host-address", [WARN NO WARN NO], hosts::address,
        "a new host's address can be dialled by the others", "--advertise-addr";
    "host-listen-address", [REFUSE NO REFUSE NO], hosts::listen_address,
        "the machine on which a new node starts has the addresses at which it is to listen", "a node that cannot listen ends at its start (bind: cannot assign requested address)";
    "host-mode", [REFUSE NO REFUSE NO], machine::mode,
        "a new host is installed for the cluster's start mode, secure or insecure as the cluster is", "/etc/kaiwudb/info/MODE, lines 2 and 8 (kaiwudb_install.sh)";
    "host-not-running", [REFUSE NO REFUSE NO], machine::running,
        "no node runs on a new host: no process with its store, no kaiwudb.service, no kaiwudb-container, not the container that owns it", PAGE;
    "host-disk-full", [REFUSE NO REFUSE NO], machine::disk_full,
        "a new host has 640 MiB free for each store", "MinimumStoreSize (base/store_spec.go)";
    "host-certificates", [REFUSE NO REFUSE NO], certificates::usable,
        "a secure new host has the cluster's CA and a node certificate of it that is for its addresses and has not ended; none is damaged, the key is its own, closed to others, and open to the user of the unit that starts the node", "certificate_loader.go (keys up to 0700)";
    "host-certificates-replaced", [INFO NO INFO NO], certificates::replaced,
        "damaged certificates of a new host that are replaced", "certificates that are asked for replace what is there";
    "certificates-of-members", [WARN WARN WARN NO], certificates::of_members,
        "no certificate or key on the host of a member or on the control host is damaged", "certificate_loader.go";
    "host-open-files", [REFUSE NO REFUSE NO], machine::open_files,
        "the hard limit of open files of a new host is enough to start: 1700 for each store, and 256", "server/config_unix.go";
    "host-clock-far", [REFUSE NO REFUSE NO], machine::clock_far,
        "a new host's clock does not surely differ from those of most members by more than policy max_clock_skew", "nodes end themselves at 80 % of --max-offset (500 ms)";
    "host-reach", [REFUSE NO REFUSE NO], network::reach,
        "new hosts and members reach each other, both ways, on RPC and SQL", "--advertise-addr; nodes dial each other";
    "host-reach-brpc", [WARN NO WARN NO], network::brpc,
        "new hosts and members reach each other, both ways, on brpc", "--brpc-addr; its addresses are the inventory's";
    "host-writable", [REFUSE NO REFUSE NO], machine::writable,
        "the user that starts the node on a new host, by its unit where there is one, can make files in its store directories", "a node makes its store at the first start";
    "host-installed", [WARN NO WARN NO], machine::installed,
        "commands on a new host run the way KWDB is installed there, bare or in a container", "/etc/kaiwudb/info/MODE, line 1 (kaiwudb_install.sh)";
    "host-unit-disabled", [WARN NO WARN NO], machine::unit_disabled,
        "where a unit starts the node of a new host, it is enabled", "a scale-in disables the unit of what it stops";
    "host-disk-small", [WARN NO WARN NO], machine::disk_small,
        "the disk of a new host's store is not much smaller than the median store of the members (policy min_disk_percent)", "the allocator counts replicas, not bytes";
    "host-limits", [WARN NO WARN NO], machine::limits,
        "limits of open files, locked memory and vm.max_map_count are those of KWDB's service", "server/config_unix.go; kaiwudb.service (kaiwudb_install.sh)";
    "host-clock", [WARN NO WARN NO], machine::clock,
        "a new host's clock differs by little from those of the members' hosts", "nodes end themselves at 80 % of --max-offset (500 ms)";
    "host-certificates-end", [WARN NO WARN NO], certificates::ending,
        "no certificate of a secure new host ends within 30 days", "a node does not start with one that has ended";
    "ca-key-last", [NO REFUSE REFUSE NO], holders::last_holder,
        "no leaving node's host is the only proven holder of its CA's private key (in its certificate directory, or where it is configured to lie) or of the installer's NODE file, and none that could not be looked at may hold the only key", "only the initial deployment node has them (KWDB deployment pages)";
    "ca-key-unseen", [NO WARN WARN NO], holders::unseen_dead,
        "no host of a dead leaving node that could not be looked at may hold the only private key of the CA", "unknown is never a pass; a dead machine may be gone for good";
    "ca-key-open", [WARN WARN WARN NO], certificates::open_keys,
        "no CA's private key has a mode by which everybody on a host may read it", "KWDB page tells to chmod it for the transfer";
    "host-leftovers", [WARN WARN WARN NO], machine::leftovers,
        "no archive or copy of the CA's private key lies about on a host, nor temporary files of certificates of an operation that was cut off", "/tmp/kaiwudb_certs, kaiwudb_certs.tar.gz (KWDB pages); <certs_dir>.new-*, .gone-*, kwdb-scale-* (ours)";
    "host-untold", [INFO NO INFO NO], machine::untold,
        "what could not be told of a new host", "unknown is never a pass";
    "address-reused", [INFO NO INFO NO], hosts::reused,
        "new hosts that take the address of a removed node", "two liveness rows may share one address (observed)";
    "marking-host", [NO REFUSE REFUSE NO], means::marking,
        "unless nodes are marked over the admin RPC, a host of a member that stays has kwbase and can authenticate as root", "decommission is an RPC as root (server/admin.go)";
    "script-join", [REFUSE NO REFUSE NO], script::join,
        "where deploy.sh adds a node: it can be run, its installation is for the node that is described, and the archive of certificates is there, of the cluster's CA, or will be", "deploy.sh, kaiwudb_install.sh (V2.0.4 to V3.2.1)";
    "script-mark", [NO REFUSE REFUSE NO], script::mark,
        "where deploy.sh marks a leaving node: it can be run, and marks no other node", "deploy.sh decommission marks every node of the host's address";
    "stopping-host", [NO REFUSE REFUSE NO], means::stopping,
        "where a unit or a container owns the process of a leaving node, its host has kwbase and can authenticate as root", "the stop asks a member that stays at the last moment, from there";
    "process-owner", [REFUSE REFUSE REFUSE NO], owner::owners,
        "where a unit or a container owns the process of a node that joins or leaves, it is there by that name; that of a new one starts the node that is described (store, address, locality, security) and has it join a member; that of a leaving node that lives runs that node, and nothing starts it again after its stop", "systemd, or the engine, starts and stops it by that name";
    "means", [INFO INFO INFO NO], means::said,
        "with what new nodes are asked whether they are ready, and leaving ones marked, counted and stopped, and why, when the caller says it", "the caller's configuration";
    // Disks.
    "disk-full", [NO REFUSE REFUSE NO], capacity::full,
        "no member that stays uses 95 % of a disk", "maxFractionUsedThreshold (allocator_scorer.go)";
    "disk-projected", [NO WARN NO NO], capacity::projected,
        "the members that stay will use less than 92.5 % of their disks", "rebalanceToMaxFractionUsedThreshold (allocator_scorer.go)";
    "disk-unknown", [NO WARN WARN NO], capacity::unknown,
        "how full the disks are is known", "unknown is never zero";
    // Time-series settings.
    "settings-known", [WARN WARN WARN NO], settings::known,
        "the cluster settings could be read", "unknown is never a pass";
    "ts-rebalance-off", [WARN NO WARN NO], settings::ts_rebalance,
        "time-series ranges may move to the new node", "kv.allocator.ts_consider_rebalance.enabled";
    "ts-dead-rebalance-off", [INFO INFO INFO NO], settings::ts_dead_rebalance,
        "time-series ranges on dead nodes are repaired", "kv.allocator.ts_store_dead_rebalance.enabled";
    "replica-moves", [NO INFO INFO NO], notes::moves,
        "how many replicas will move, and what marking the leaving nodes together or in batches makes of it",
        "measured on a real V3.2.1: two of six nodes together took 14 % fewer moves and half the time, three of six 21 % fewer moves";
    // The notes of the page.
    "note-queries", [INFO INFO INFO NO], notes::queries, "queries may be incomplete meanwhile, by release", PAGE;
    "note-ts-ddl", [INFO INFO INFO NO], notes::ts_ddl, "DDL of time-series indexes may time out meanwhile", PAGE;
    "note-disk", [INFO INFO INFO NO], notes::disk, "disk usage may rise meanwhile", PAGE;
    "note-off-peak", [INFO INFO INFO NO], notes::off_peak, "scale during off-peak hours", PAGE;
    "note-alter", [INFO NO INFO NO], notes::alter, "avoid frequent ALTER during redistribution", PAGE;
    "note-redistribution", [INFO NO INFO NO], notes::redistribution,
        "what the redistribution setting stops and what it does not", PAGE;
    "note-single-replica", [INFO NO NO NO], notes::single_replica,
        "existing data of a single-replica cluster stays where it is", PAGE;
    "note-clients", [NO INFO INFO NO], notes::clients, "clients must leave a node before it stops", PAGE;
    "note-rejoin", [NO INFO INFO NO], notes::rejoin, "a removed node comes back only as a new one", PAGE;
};

/// Checks of the cluster's health. Others refuse until somebody changes the request, a host or the configuration.
const HEALTH: [&str; 17] = [
    "cluster-readable",
    "gateways-agree",
    "two-gateways",
    "members-known",
    "members-described",
    "members-alive",
    "target-alive",
    "none-draining",
    "none-upgrading",
    "none-leaving",
    "ranges-available",
    "ranges-replicated",
    "ranges-mapped",
    "page-query",
    "status-fresh",
    "jobs",
    "plan-facts",
];

/// Whether a check is about the cluster's health.
pub(super) fn is_health(name: &str) -> bool {
    HEALTH.contains(&name)
}

/// Every check.
pub fn catalogue() -> &'static [Check] {
    CATALOGUE
}

/// The first `most` of `items`, and how many more there are.
fn some<T: std::fmt::Display>(items: impl IntoIterator<Item = T>, most: u32) -> Vec<String> {
    let all: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let more = all.len().saturating_sub(most);
    let mut lines: Vec<String> = all.into_iter().take(most).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// The problem that an unknown fact is, or what `f` finds in a known one.
fn known_or<T>(fact: &Fact<T>, what: &str, f: impl FnOnce(&T) -> Vec<Problem>) -> Vec<Problem> {
    match fact {
        Fact::Known(value) => f(value),
        Fact::Unknown(why) => vec![Problem::unknown(what, why)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_of_health_are_in_the_catalogue() {
        for name in HEALTH {
            assert!(CATALOGUE.iter().any(|c| c.name == name) || name == "plan-facts", "{name}");
        }
    }
}
