//! A cluster with its machines and a script of what happens to it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::execute::Ports;
use kwdb_scale_core::kwbase::{self, KwbaseHost, StoreSpec};
use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::request::{Inventory, InventoryHost};
use kwdb_scale_core::topology::{Address, HostName, Locality, NodeId, StartMode};

use super::certificates::{Installed, SimCertificates};
use super::ports::{SimClock, SimControl, SimFacts, SimLifecycle, SimSettings};
use super::record::{MemJournal, MemLock};
use super::transport::SimTransport;
use crate::cli::{Certs, ClientEnv};
use crate::model::{Cluster, Config, NodeStart, Phase, Security, Shared};

type Act = Box<dyn FnOnce(&mut Cluster) + Send>;
type Condition = Box<dyn Fn(&Cluster) -> bool + Send>;

struct Scripted {
    at: Option<Timestamp>,
    when: Option<Condition>,
    act: Act,
}

/// How often conditions of the script are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A machine on which a node may run.
#[derive(Clone, Debug)]
pub struct SimHost {
    /// Name in the caller's inventory.
    pub name: HostName,
    /// Advertised RPC address of its node.
    pub address: Address,
    /// SQL address, when it is another one.
    pub sql_address: Option<Address>,
    /// HTTP address.
    pub http_address: Option<Address>,
    /// `--locality`.
    pub locality: Option<Locality>,
    /// Store directories.
    pub stores: Vec<String>,
    /// Security of the node and of commands run here.
    pub security: Security,
    /// Where the certificates lie, when secure.
    pub certs_dir: String,
    /// Whether root's client certificate lies there.
    pub root_certificate: bool,
    /// Whether a node's certificate lies there.
    pub node_certificate: bool,
    /// Build tag; the configuration's when `None`.
    pub build: Option<String>,
}

impl SimHost {
    /// A host with one store under `/data`, at `127.0.0.1` and a port of its own by `n`: 26256 + n for RPC and
    /// SQL, 8079 + n for HTTP.
    pub fn numbered(n: u16) -> Self {
        Self {
            name: HostName::new(format!("n{n}")),
            address: Address::new(format!("127.0.0.1:{}", 26256 + n)),
            sql_address: None,
            http_address: Some(Address::new(format!("127.0.0.1:{}", 8079 + n))),
            locality: None,
            stores: vec![format!("/data/n{n}")],
            security: Security::Insecure,
            certs_dir: "/certs".to_owned(),
            root_certificate: true,
            node_certificate: true,
            build: None,
        }
    }

    /// The SQL address of its node.
    pub fn sql(&self) -> &Address {
        self.sql_address.as_ref().unwrap_or(&self.address)
    }

    /// The model's key of a store path on this host.
    pub fn store_key(&self, path: &str) -> String {
        crate::cli::store_key(self.name.as_str(), path)
    }

    /// The model's start of a node here.
    pub fn node_start(&self, mode: StartMode, join: Vec<Address>) -> NodeStart {
        NodeStart {
            address: self.address.clone(),
            sql_address: self.sql_address.clone(),
            http_address: self.http_address.clone(),
            locality: self.locality.clone(),
            mode,
            join,
            stores: self.stores.iter().map(|s| self.store_key(s)).collect(),
            build: self.build.clone(),
            security: self.security.clone(),
        }
    }

    /// How core runs kwbase here, through [`World::transport`].
    pub fn kwbase(&self) -> KwbaseHost {
        let security = match self.security {
            Security::Insecure => kwbase::Security::Insecure,
            Security::Ca(_) => kwbase::Security::Certs { certs_dir: self.certs_dir.clone() },
        };
        let mut host = KwbaseHost::new(self.name.clone(), security);
        host.stores = self.stores.iter().map(StoreSpec::new).collect();
        host.listen_addr = Some(self.address.clone());
        host.sql_addr = self.sql_address.clone();
        host.http_addr = self.http_address.clone();
        // A port that no simulated node uses otherwise: the model has no brpc.
        let port = self.address.port().unwrap_or_default().saturating_add(1000);
        host.brpc_addr = Some(Address::new(format!("{}:{port}", self.address.host())));
        host.locality = self.locality.clone();
        host
    }

    pub(crate) fn client_env(&self) -> ClientEnv {
        let mut certs = BTreeMap::new();
        if let Security::Ca(ca) = &self.security {
            let clients = if self.root_certificate { vec!["root".to_owned()] } else { Vec::new() };
            certs.insert(self.certs_dir.clone(), Certs { ca: Some(ca.clone()), clients });
        }
        ClientEnv {
            certs,
            default_certs: None,
            host: self.name.as_str().to_owned(),
            build: self.build.clone(),
        }
    }
}

/// See the [module](super).
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Shared,
    script: Mutex<Vec<Scripted>>,
    hosts: Mutex<BTreeMap<HostName, SimHost>>,
    files: Mutex<BTreeMap<(HostName, String), Vec<u8>>>,
    certificates: Mutex<BTreeMap<HostName, Installed>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("now", &self.now()).finish_non_exhaustive()
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A world without machines and nodes.
    pub fn new(config: Config) -> Self {
        Self::over(Arc::new(Mutex::new(Cluster::new(config))))
    }

    /// A world over a cluster that others use too.
    pub fn over(cluster: Shared) -> Self {
        Self {
            inner: Arc::new(Inner {
                cluster,
                script: Mutex::new(Vec::new()),
                hosts: Mutex::new(BTreeMap::new()),
                files: Mutex::new(BTreeMap::new()),
                certificates: Mutex::new(BTreeMap::new()),
            }),
        }
    }

    /// A world that is the same up to now and goes its own way from here; without the script.
    #[must_use]
    pub fn fork(&self) -> Self {
        let copy = Self::over(Arc::new(Mutex::new(self.cluster().clone())));
        lock(&copy.inner.hosts).clone_from(&lock(&self.inner.hosts));
        copy.files().clone_from(&self.files());
        lock(&copy.inner.certificates).clone_from(&lock(&self.inner.certificates));
        copy
    }

    /// A multi-replica cluster of `nodes` numbered hosts, initialised, fully replicated, node ids in the order of
    /// the hosts.
    pub fn started(nodes: u16) -> Self {
        Self::started_with(Config::default(), StartMode::MultiReplica, nodes)
    }

    /// The same with a configuration and a start mode of one's own.
    pub fn started_with(config: Config, mode: StartMode, nodes: u16) -> Self {
        let security = config.security.clone();
        let world = Self::new(config);
        let hosts = (1..=nodes).map(|n| SimHost { security: security.clone(), ..SimHost::numbered(n) });
        world.start_all(&mode, hosts.collect());
        world
    }

    /// Starts nodes on `hosts` one after the other, so that the n-th host gets the n-th id, initialises the
    /// cluster through the first, and waits until nothing is under-replicated (at most ten minutes).
    pub fn start_all(&self, mode: &StartMode, hosts: Vec<SimHost>) {
        let join: Vec<Address> = hosts.iter().map(|h| h.address.clone()).collect();
        for (i, host) in hosts.into_iter().enumerate() {
            let start = host.node_start(mode.clone(), join.clone());
            let address = host.address.clone();
            self.add_host(host);
            if self.cluster().start_node(start).is_err() {
                continue;
            }
            let waits = if i == 0 { Phase::Waiting } else { Phase::Serving };
            for _ in 0..100 {
                self.advance(Duration::from_millis(100));
                if self.cluster().process(&address).is_some_and(|p| p.phase == waits) {
                    break;
                }
            }
            if i == 0 {
                // A node that names nobody to join has initialised itself already.
                let _ = self.cluster().init(&address);
                self.advance(Duration::from_millis(100));
            }
        }
        let many = matches!(mode, StartMode::MultiReplica);
        for _ in 0..600 {
            self.advance(Duration::from_secs(1));
            if !many || self.cluster().under_replicated() == 0 {
                break;
            }
        }
        // Long enough for every gateway to have heard and every status to be written.
        self.advance(Duration::from_secs(15));
    }

    /// The cluster itself, locked: hold it for one call and no longer, or the next use of the world waits for ever.
    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        lock(&self.inner.cluster)
    }

    /// The cluster, to share with other faces.
    pub fn shared(&self) -> Shared {
        Arc::clone(&self.inner.cluster)
    }

    /// The virtual clock.
    pub fn now(&self) -> Timestamp {
        self.cluster().now()
    }

    /// Lets `span` go by.
    pub fn advance(&self, span: Duration) {
        self.advance_to(self.now() + span);
    }

    /// Lets time go by until `until`; what the script demands happens on the way.
    pub fn advance_to(&self, until: Timestamp) {
        loop {
            let now = self.now();
            self.run_script(now);
            if now >= until {
                return;
            }
            let script = lock(&self.inner.script);
            let times = script.iter().filter_map(|s| s.at).filter(|t| *t > now);
            let look = script.iter().any(|s| s.when.is_some()).then(|| now + LOOK);
            let next = times.chain(look).min().map_or(until, |t| t.min(until));
            drop(script);
            self.cluster().advance_to(next);
        }
    }

    fn run_script(&self, now: Timestamp) {
        loop {
            let mut script = lock(&self.inner.script);
            let due = script.iter().position(|s| {
                s.at.is_some_and(|t| t <= now) || s.when.as_ref().is_some_and(|w| w(&self.cluster()))
            });
            let Some(due) = due else { return };
            let scripted = script.remove(due);
            drop(script);
            (scripted.act)(&mut self.cluster());
        }
    }

    /// At that time, this happens.
    pub fn at(&self, time: Timestamp, act: impl FnOnce(&mut Cluster) + Send + 'static) {
        lock(&self.inner.script).push(Scripted { at: Some(time), when: None, act: Box::new(act) });
    }

    /// As soon as that holds, this happens, once. Looked at every half second of virtual time.
    pub fn when(
        &self,
        condition: impl Fn(&Cluster) -> bool + Send + 'static,
        act: impl FnOnce(&mut Cluster) + Send + 'static,
    ) {
        let scripted = Scripted { at: None, when: Some(Box::new(condition)), act: Box::new(act) };
        lock(&self.inner.script).push(scripted);
    }

    /// Makes a machine known. Nothing is started on it.
    pub fn add_host(&self, host: SimHost) {
        lock(&self.inner.hosts).insert(host.name.clone(), host);
    }

    /// A known machine.
    pub fn host(&self, name: &HostName) -> Result<SimHost, PortError> {
        lock(&self.inner.hosts)
            .get(name)
            .cloned()
            .ok_or_else(|| PortError::new(PortErrorKind::Config, format!("host {name} is not known")))
    }

    /// Every known machine, by name.
    pub fn hosts(&self) -> Vec<SimHost> {
        lock(&self.inner.hosts).values().cloned().collect()
    }

    /// The inventory of every known machine.
    pub fn inventory(&self) -> Inventory {
        let host = |h: SimHost| {
            (h.name, InventoryHost { address: h.address, sql_address: h.sql_address, brpc_address: None })
        };
        Inventory { hosts: self.hosts().into_iter().map(host).collect(), ..Inventory::default() }
    }

    /// The node that runs (or last ran) on a machine.
    pub fn node_on(&self, name: &str) -> Option<NodeId> {
        let host = self.host(&HostName::new(name)).ok()?;
        self.cluster().process(&host.address)?.node
    }

    pub(crate) fn edit_host(&self, name: &HostName, edit: impl FnOnce(&mut SimHost)) {
        if let Some(host) = lock(&self.inner.hosts).get_mut(name) {
            edit(host);
        }
    }

    pub(crate) fn installed<R>(&self, host: &HostName, edit: impl FnOnce(&mut Installed) -> R) -> R {
        edit(lock(&self.inner.certificates).entry(host.clone()).or_default())
    }

    pub(crate) fn files(&self) -> MutexGuard<'_, BTreeMap<(HostName, String), Vec<u8>>> {
        lock(&self.inner.files)
    }

    /// Every port of an operation. Facts come from the known hosts as seeds, in order of their names; journal and
    /// lock are new ones in memory.
    pub fn ports(&self) -> Ports {
        Ports {
            facts: Arc::new(self.facts()),
            settings: Arc::new(SimSettings::new(self)),
            control: Arc::new(SimControl::new(self)),
            queue: Some(Arc::new(SimControl::new(self))),
            lifecycle: Arc::new(SimLifecycle::new(self)),
            certificates: Some(Arc::new(SimCertificates::new(self))),
            journal: Arc::new(MemJournal::default()),
            lock: Arc::new(MemLock::default()),
            clock: Arc::new(self.clock()),
        }
    }

    /// Marking and unmarking.
    pub fn control(&self) -> SimControl {
        SimControl::new(self)
    }

    /// The clock.
    pub fn clock(&self) -> SimClock {
        SimClock::new(self)
    }

    /// Facts, with every known host as a seed.
    pub fn facts(&self) -> SimFacts {
        let mut hosts = self.hosts();
        hosts.sort_by_key(|h| (h.name.as_str().len(), h.name.clone()));
        SimFacts::new(self, hosts.iter().map(|h| h.sql().clone()).collect())
    }

    /// Command lines on the known hosts.
    pub fn transport(&self) -> SimTransport {
        SimTransport::new(self)
    }
}
