//! What one look at a host tells, each fact known or visibly unknown.
//!
//! [`HostFacts`] is what [`NodeLifecycle::inspect`](crate::ports::NodeLifecycle::inspect) gives. Its fields up to
//! `secure` are what every implementation can tell; [`Machine`] is the rest, told by those that can look at the
//! machine itself. The look of [`Kwbase`](crate::kwbase::Kwbase) is one shell script in one round trip: `probe` holds
//! the script, `read` reads its answer. Nothing that is secret is read: of keys only name, mode, owner and size, whether they
//! fit their certificates, and the digest of an authority's.

mod certificates;
mod network;
pub(crate) mod probe;
pub(crate) mod read;
#[cfg(test)]
mod tests;

pub(crate) use read::{flag_values, store_path};

pub use certificates::{AuthorityKey, CertificateDirectory, CertificateFile, KeyMatch};
pub use network::LocalNetwork;

use std::fmt;
use std::net::IpAddr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::owner::{Described, Owner, StartLine};
use crate::topology::{Address, HostName, StartMode};

/// Whether two paths of directories are written alike.
pub(crate) fn same_path(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// Where KWDB's installer keeps its record of the installation.
pub const MODE_FILE: &str = "/etc/kaiwudb/info/MODE";
/// Where KWDB's installer keeps the list of the other nodes.
pub const NODE_FILE: &str = "/etc/kaiwudb/info/NODE";
/// The service of KWDB's installer.
pub const UNIT: &str = "kaiwudb.service";
/// The container of KWDB's installer.
pub const CONTAINER: &str = "kaiwudb-container";

/// What was found in a store directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreContent {
    /// The directory does not exist.
    Absent,
    /// It exists and holds nothing that a node leaves behind.
    Empty,
    /// It holds a node's files: the names found, such as `kwbase.start_mode`, `CURRENT`, `STORAGE_VERSION`. All of them
    /// where a node shall join, else the first; a sign that cannot be shown is escaped with a backslash.
    InUse(Vec<String>),
}

/// How many names are shown where not every one matters.
const SHOWN: usize = 10;

/// The first of the names of a directory, for people.
pub fn first_names(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Whether a store of KWDB has entries of that name at its top: the engine's files, its own notes, its directories.
pub fn is_of_a_store(name: &str) -> bool {
    // Not `extern`: that is the default of `--external-io-dir`, with backups and exports in it.
    const NAMES: [&str; 13] = [
        "CURRENT",
        "IDENTITY",
        "LOCK",
        "STORAGE_VERSION",
        "COCKROACHDB_VERSION",
        "KWBASEDB_VERSION",
        "EMERGENCY_BALLAST",
        "temp-dirs-record.txt",
        "auxiliary",
        "logs",
        "tsdb",
        "raft",
        "lost+found",
    ];
    const BEGINNINGS: [&str; 5] = ["MANIFEST-", "OPTIONS-", "kwbase.", "kwbase-temp", "cockroach-temp"];
    let numbered = name.rsplit_once('.').is_some_and(|(number, kind)| {
        matches!(kind, "sst" | "log" | "dbtmp" | "blob")
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
    });
    numbered || NAMES.contains(&name) || BEGINNINGS.iter().any(|b| name.starts_with(b))
}

/// One store directory of a host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StoreFacts {
    /// Absolute path on the host.
    pub path: String,
    /// What is in it.
    pub content: Fact<StoreContent>,
    /// Where something is mounted: the directory itself, or places below it.
    #[serde(default = "nothing_mounted", skip_serializing_if = "is_nothing_mounted")]
    pub mounts: Fact<Vec<String>>,
    /// The directory itself, where the path is a link or goes through one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leads_to: Option<String>,
    /// Whether the user that commands run as may not write in the directory above, so that it cannot be moved aside. False
    /// also where that is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmovable: bool,
    /// What lies beside it under the names to which old data is moved aside, as paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asides: Vec<String>,
}

fn nothing_mounted() -> Fact<Vec<String>> {
    Fact::Known(Vec::new())
}

fn not_looked_at<T>() -> Fact<T> {
    Fact::unknown("it was not looked at")
}

fn is_nothing_mounted(mounts: &Fact<Vec<String>>) -> bool {
    mounts.known().is_some_and(Vec::is_empty)
}

impl StoreFacts {
    /// A directory in which nothing is mounted.
    pub fn new(path: impl Into<String>, content: Fact<StoreContent>) -> Self {
        Self {
            path: path.into(),
            content,
            mounts: nothing_mounted(),
            leads_to: None,
            unmovable: false,
            asides: Vec::new(),
        }
    }

    /// Whether it is known to be a mount point itself.
    pub(crate) fn is_mounted(&self) -> bool {
        self.mounts.known().is_some_and(|all| all.iter().any(|at| same_path(at, &self.path)))
    }

    /// The mount points that are known below it.
    pub(crate) fn mounted_below(&self) -> impl Iterator<Item = &str> {
        let all = self.mounts.known().into_iter().flatten();
        all.map(String::as_str).filter(|at| !same_path(at, &self.path))
    }
}

/// What a look at an installation tells whose script, KWDB's `deploy.sh`, adds and marks the node of the host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ScriptFacts {
    /// Why the script cannot be run at all, each in one line; empty when it can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusable: Vec<String>,
    /// What else keeps `join` from adding a node as the host is described, each in one line. A node that runs there, and
    /// another start mode than the cluster's, are told by other facts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<String>,
    /// Whether the archive of certificates lies where `join` opens it; `None` on an insecure cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<bool>,
    /// Why `join` cannot make certificates of the archive that lies there; `None` where nothing speaks against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_fault: Option<String>,
    /// SHA-256 of the authority's certificate in the archive that lies there, as 64 lower-case hex digits; `None` where there
    /// is none, or a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_authority: Option<Fact<String>>,
    /// `decommission` marks every node at this address, whatever its port; `None` when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What is known of a host without changing anything on it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HostFacts {
    /// The host.
    pub host: HostName,
    /// Build tag by `kwbase version`, such as `V3.2.1`.
    pub build: Fact<String>,
    /// The configured store directories.
    pub stores: Vec<StoreFacts>,
    /// Configured addresses at which something listens already (a fresh host has none).
    pub listening: Fact<Vec<Address>>,
    /// Secure mode: whether the root client certificate and key can be read where commands run, and are such;
    /// `Known(true)` on an insecure cluster.
    pub can_authenticate: Fact<bool>,
    /// Whether the host is configured for a secure cluster.
    pub secure: bool,
    /// Whether a service manager starts the node there, with limits of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_service: bool,
    /// Whether certificates are made there alone, of the archive with the authority's private key: `deploy.sh join`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archive_only: bool,
    /// What hinders a script that adds and marks the node there; `None` where none does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Fact<ScriptFacts>>,
    /// What a look at the machine tells; `None` when the implementation has no such look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Box<Machine>>,
}

impl HostFacts {
    /// Whether a path is one of the configured store directories.
    pub(crate) fn has_store(&self, path: &str) -> bool {
        self.stores.iter().any(|s| same_path(&s.path, path))
    }

    /// Without the names that nobody needs of a host where no node shall join.
    pub(crate) fn brief(mut self) -> Self {
        for store in &mut self.stores {
            if let Fact::Known(StoreContent::InUse(names)) = &mut store.content {
                names.truncate(SHOWN);
            }
        }
        self
    }

    /// Whether nodes can be marked from here: it has kwbase and can log in as root. Not known is no.
    pub fn can_mark(&self) -> bool {
        self.build.known().is_some() && self.can_authenticate == Fact::Known(true)
    }
}

/// What a look at a machine tells.
///
/// Where commands on the host go through a prefix such as `docker exec`, `ports`, `file_systems`, `writable`, `limits`
/// but for `max_map_count`, `certificates` and `processes` are those inside; everything else is the machine's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Machine {
    /// Path of the program as configured.
    pub program: String,
    /// Whether a prefix leads into a container.
    pub inside: bool,
    /// Operating system.
    pub system: Fact<System>,
    /// The user who runs commands there.
    pub user: Fact<String>,
    /// Whether that user may become root without a password (`sudo -n true`); `false` also when there is no sudo.
    pub sudo: Fact<bool>,
    /// The installer's [`MODE_FILE`]; `None` when there is none.
    pub installed: Fact<Option<Installed>>,
    /// The installer's [`NODE_FILE`]; `None` when there is none.
    pub peers: Fact<Option<Peers>>,
    /// Where a `deploy.sh` of KWDB lies, of the usual places.
    pub deploy_scripts: Fact<Vec<String>>,
    /// What owns the processes of the host's nodes, by the caller's configuration.
    #[serde(default, skip_serializing_if = "Owner::is_quit")]
    pub owner: Owner,
    /// What the owner, where there is one, must start, by the caller's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub described: Option<Described>,
    /// The owner, where it is a unit, else the installer's [`UNIT`]; `None` when there is no such unit, or no systemd.
    pub unit: Fact<Option<Unit>>,
    /// The owner, where it is a container, else the installer's [`CONTAINER`]; `None` when there is no such container, or
    /// no engine.
    pub container: Fact<Option<Container>>,
    /// Where something listens (TCP).
    pub ports: Fact<Vec<Listener>>,
    /// The addresses that are its own, at which a node can listen there.
    #[serde(default = "not_looked_at")]
    pub addresses: Fact<Vec<LocalNetwork>>,
    /// At which addresses a node of this host is to listen, by the caller's configuration: those that are no names and do
    /// not stand for every address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<Address>,
    /// The file systems of the directories that a node of this host uses.
    pub file_systems: Vec<FileSystem>,
    /// Whether files can be made in the directories that an installation and a node use, or in their nearest existing
    /// parents.
    pub writable: Vec<Writable>,
    /// Limits of whoever runs commands there.
    pub limits: Limits,
    /// How far the machine's clock is from the operator's.
    pub clock: Fact<ClockOffset>,
    /// The certificate directory; `None` on an insecure host, and when it does not exist.
    pub certificates: Fact<Option<CertificateDirectory>>,
    /// The file in which the authority's private key lies, on the host where it does by the caller's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_key: Option<AuthorityKey>,
    /// What lies about that holds private keys or may hold them: a CA's, and what an operation that goes on or was cut off
    /// has of certificates. Of such a directory also the keys and archives in it, as far as it can be looked into.
    pub leftovers: Fact<Vec<Leftover>>,
    /// Nodes of KWDB that run there, whoever started them.
    pub processes: Fact<Vec<NodeProcess>>,
}

impl Machine {
    /// As whom the unit starts the node, where a unit does and says it by name: files are told with names.
    pub(crate) fn service_user(&self) -> Option<&str> {
        let unit = self.unit.known()?.as_ref().filter(|_| !matches!(self.owner, Owner::Container { .. }))?;
        unit.user.as_deref().filter(|user| !self.inside && !user.bytes().all(|b| b.is_ascii_digit()))
    }

    /// Of which unit [`unit`](Self::unit) tells.
    pub fn unit_name(&self) -> &str {
        match &self.owner {
            Owner::Systemd { unit } => unit,
            Owner::Quit | Owner::Container { .. } => UNIT,
        }
    }

    /// Of which container [`container`](Self::container) tells.
    pub fn container_name(&self) -> &str {
        match &self.owner {
            Owner::Container { name, .. } => name,
            Owner::Quit | Owner::Systemd { .. } => CONTAINER,
        }
    }

    /// At which addresses a node of this host is to listen and surely cannot, for they are not the machine's.
    pub fn cannot_bind(&self) -> Vec<&Address> {
        let Fact::Known(own) = &self.addresses else { return Vec::new() };
        let foreign =
            |bind: &&Address| bind.ip().is_some_and(|ip| !own.iter().any(|network| network.holds(ip)));
        self.binds.iter().filter(foreign).collect()
    }

    /// Each part that could not be told, with the reason, one a line.
    pub fn unknowns(&self) -> Vec<String> {
        fn note<T>(lines: &mut Vec<String>, what: &str, fact: &Fact<T>) {
            lines.extend(fact.why_unknown().map(|why| format!("{what}: {why}")));
        }
        let mut lines = Vec::new();
        note(&mut lines, "operating system", &self.system);
        note(&mut lines, "user", &self.user);
        note(&mut lines, "sudo", &self.sudo);
        note(&mut lines, MODE_FILE, &self.installed);
        note(&mut lines, NODE_FILE, &self.peers);
        note(&mut lines, "deploy.sh", &self.deploy_scripts);
        note(&mut lines, self.unit_name(), &self.unit);
        note(&mut lines, self.container_name(), &self.container);
        note(&mut lines, "ports", &self.ports);
        if !self.binds.is_empty() {
            note(&mut lines, "addresses", &self.addresses);
        }
        for file_system in &self.file_systems {
            note(&mut lines, &format!("file system of {}", file_system.directory), &file_system.space);
        }
        for directory in &self.writable {
            note(&mut lines, &format!("right to write in {}", directory.directory), &directory.writable);
        }
        note(&mut lines, "limit of open files", &self.limits.open_files);
        note(&mut lines, "limit of locked memory", &self.limits.locked_memory);
        note(&mut lines, "vm.max_map_count", &self.limits.max_map_count);
        note(&mut lines, "clock", &self.clock);
        note(&mut lines, "certificate directory", &self.certificates);
        note(&mut lines, "leftovers", &self.leftovers);
        note(&mut lines, "processes", &self.processes);
        lines
    }
}

/// An operating system.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct System {
    /// `ID` of os-release, such as `ubuntu`; `None` where there is no os-release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `VERSION_ID` of os-release, such as `22.04`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Release of the kernel (`uname -r`).
    pub kernel: String,
    /// Architecture (`uname -m`).
    pub architecture: String,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for word in [&self.id, &self.version].into_iter().flatten() {
            write!(f, "{word} ")?;
        }
        write!(f, "{} kernel {}", self.architecture, self.kernel)
    }
}

/// With which method KWDB's installer installed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallMethod {
    /// Packages on the machine.
    Bare,
    /// A container image.
    Container,
}

impl fmt::Display for InstallMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare",
            Self::Container => "container",
        })
    }
}

/// What [`MODE_FILE`] says. The brpc port is not recorded there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Installed {
    /// Line 1.
    pub method: InstallMethod,
    /// Line 2 as the sub-command that it starts: `single`, `single-replication`, `multi-replication`.
    pub start_mode: StartMode,
    /// Line 3: the installation directory, or the name of the image.
    pub place: String,
    /// Line 4: the data directory.
    pub data_root: String,
    /// Line 5: RPC and SQL port.
    pub port: u16,
    /// Line 6: HTTP port.
    pub http_port: u16,
    /// Line 7: the user who runs the node.
    pub user: String,
    /// Line 8: `tls`, `tlcp` or `insecure`.
    pub security: String,
    /// Last line: this node's address.
    pub address: String,
}

impl Installed {
    /// Whether it was installed for a secure cluster.
    pub fn secure(&self) -> bool {
        self.security != "insecure"
    }
}

/// What [`NODE_FILE`] says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Peers {
    /// Line 1: addresses of the other nodes at the time of the installation.
    pub addresses: Vec<String>,
    /// Line 2.
    pub ssh_port: Option<u16>,
    /// Line 3.
    pub ssh_user: Option<String>,
}

/// State of a systemd unit.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Unit {
    /// `ActiveState`, such as `active`, `inactive`, `failed`.
    pub active: String,
    /// `UnitFileState`, such as `enabled`, `disabled`.
    pub enabled: String,
    /// `MainPID`; `None` when nothing runs.
    pub main_pid: Option<u32>,
    /// `User`: as whom it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Of `ExecStart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<StartLine>,
}

impl Unit {
    /// Whether it runs, or is about to run or to stop.
    pub fn is_up(&self) -> bool {
        self.main_pid.is_some()
            || matches!(self.active.as_str(), "active" | "activating" | "reloading" | "deactivating")
    }
}

/// State of a container.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Container {
    /// `docker` or `podman`.
    pub engine: String,
    /// The engine's word, such as `running`, `exited`, `created`.
    pub state: String,
    /// The image.
    pub image: String,
    /// Of a container that owns a node: what would start it again after it was stopped for good, and the cure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns: Option<String>,
    /// Of its path and arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<StartLine>,
}

impl Container {
    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        matches!(self.state.as_str(), "running" | "restarting" | "paused")
    }
}

/// A listening TCP socket.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Listener {
    /// The address it is bound to; `0.0.0.0` or `::` is every one.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
}

/// What a directory is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectoryUse {
    /// A store.
    Store,
    /// Time-series data outside the first store.
    TimeSeries,
    /// Imports, exports and backups (`--external-io-dir`).
    External,
}

/// The file system that a directory is on, or will be: that of its nearest existing parent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileSystem {
    /// The directory.
    pub directory: String,
    /// What it is for.
    pub purpose: DirectoryUse,
    /// How much room there is.
    pub space: Fact<Space>,
}

/// Room on a file system, by `df`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Space {
    /// Device or other source.
    pub source: String,
    /// Where it is mounted.
    pub mount: String,
    /// Bytes in all.
    pub size: u64,
    /// Bytes that a user who is not root may still take.
    pub free: u64,
}

/// Whether files can be made in a directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Writable {
    /// The directory.
    pub directory: String,
    /// Whether a file can be made in it, or, where it does not exist, in its nearest existing parent.
    pub writable: Fact<bool>,
    /// Whose that directory is, where it could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<Rights>,
}

/// Who may do what with a directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rights {
    /// Permission bits, such as `0o700`.
    pub mode: u32,
    /// Its owner, by name or number.
    pub owner: String,
    /// Its group, by name or number.
    pub group: String,
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03o} {}:{}", self.mode, self.owner, self.group)
    }
}

impl Rights {
    /// Whether `user` surely can make no file in it. Groups other than the one of the user's own name are not known.
    pub fn shut_out(&self, user: &str) -> bool {
        let may = |shift: u32| (self.mode >> shift) & 0o3 == 0o3;
        match user {
            "root" | "0" => false,
            _ if user == self.owner => !may(6),
            _ if user == self.group => !may(3),
            _ => !may(3) && !may(0),
        }
    }
}

/// Limits of a machine and of a session there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// Open files (`RLIMIT_NOFILE`).
    pub open_files: Fact<Limit>,
    /// Bytes of memory that may be locked (`RLIMIT_MEMLOCK`).
    pub locked_memory: Fact<Limit>,
    /// `vm.max_map_count` of the kernel.
    pub max_map_count: Fact<u64>,
}

/// A resource limit. `None` is no limit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limit {
    /// The limit in force.
    pub soft: Option<u64>,
    /// Up to which a process may raise its own.
    pub hard: Option<u64>,
}

/// The distance of two clocks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClockOffset {
    /// By how much the machine's clock is ahead of the operator's (negative: behind), at the middle of what is
    /// possible.
    pub offset: SignedDuration,
    /// By how much the offset may be wrong either way: half of the round trip that told it, without the time that the
    /// look itself took.
    pub uncertainty: SignedDuration,
}

impl ClockOffset {
    /// By how much this clock surely differs from `other`; zero when they may be the same.
    pub fn surely_from(self, other: Self) -> SignedDuration {
        let distance = self.offset.saturating_sub(other.offset).abs();
        let doubt = self.uncertainty.saturating_add(other.uncertainty);
        distance.saturating_sub(doubt).max(SignedDuration::ZERO)
    }

    /// The operator's own clock.
    pub const OPERATOR: Self = Self { offset: SignedDuration::ZERO, uncertainty: SignedDuration::ZERO };
}

/// Something that was left lying about.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Leftover {
    /// Its path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub owner: String,
}

impl Leftover {
    /// Whether by its name an operation of ours made it, for as long as it makes and installs certificates.
    pub(crate) fn is_temporary(&self) -> bool {
        let ours =
            |part: &str| part.starts_with("kwdb-scale-") || part.contains(".new-") || part.contains(".gone-");
        self.path.split('/').any(ours)
    }
}

/// A node that runs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeProcess {
    /// Process id.
    pub pid: u32,
    /// Its user, by name or number.
    pub user: String,
    /// The sub-command.
    pub start_mode: StartMode,
    /// Values of `--store`, paths only.
    pub stores: Vec<String>,
    /// `--listen-addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_addr: Option<Address>,
    /// Its own limit of open files.
    pub open_files: Fact<Limit>,
    /// Its own limit of locked memory.
    pub locked_memory: Fact<Limit>,
}
