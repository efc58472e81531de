//! How one host runs kwbase, and the check that such a description makes sense.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BRPC_ADDR, HTTP_PORT, PORT, PROGRAM, STORE};
use crate::owner::Owner;
use crate::topology::{Address, HostName, Locality};

/// How one host runs kwbase. Only `name` and `security` have no default.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KwbaseHost {
    /// The name by which the [`HostTransport`](crate::ports::HostTransport) knows the host.
    pub name: HostName,
    /// The program: [`PROGRAM`] unless given ([`PROGRAM_IN_CONTAINER`](super::PROGRAM_IN_CONTAINER) in containers).
    #[serde(default = "default_program")]
    pub program: String,
    /// Put before every command line on this host as argv, checks of files included, such as
    /// `["docker", "exec", "-i", "NAME"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec_prefix: Vec<String>,
    /// Insecure, or with certificates.
    pub security: Security,
    /// `--store`, one flag each. The first one also holds the logs and `kwbase.start_mode`.
    #[serde(default = "default_stores")]
    pub stores: Vec<StoreSpec>,
    /// `--listen-addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_addr: Option<Address>,
    /// `--advertise-addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise_addr: Option<Address>,
    /// `--sql-addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql_addr: Option<Address>,
    /// `--advertise-sql-addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise_sql_addr: Option<Address>,
    /// `--http-addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_addr: Option<Address>,
    /// `--brpc-addr`: [`BRPC_ADDR`] unless given; left out before V3.0.0, which does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brpc_addr: Option<Address>,
    /// `--locality`; without it KWDB makes up `region=NODE<id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// `--attrs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attrs: Vec<String>,
    /// `--cache`, such as `25%` or `2GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// `--max-sql-memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sql_memory: Option<String>,
    /// `--max-offset`; must be the same on all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_offset: Option<String>,
    /// `--ts-store`, one flag each: directories of time-series data outside the first store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ts_store: Vec<String>,
    /// `--use-raft-store` (from V3.1.0); must stay the same for a store's whole life.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_raft_store: bool,
    /// `--pid-file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<String>,
    /// More flags of `start`, each as one word: `--name` or `--name=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_flags: Vec<String>,
    /// Environment of kwbase on this host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// `--background`. Without it the start command is the node itself and never comes back while the node lives.
    #[serde(default = "default_background")]
    pub background: bool,
    /// File that takes what the start command prints, written by the transport's host (outside a container that
    /// `exec_prefix` enters). By default `<first store>.start.log`, beside the store so that the store stays empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file: Option<String>,
    /// What starts and stops the node's process. Any other than [`Owner::Quit`] is a service manager of the host, outside
    /// of what `exec_prefix` enters; nodes are then started and stopped through it alone.
    #[serde(default, skip_serializing_if = "Owner::is_quit")]
    pub owner: Owner,
}

/// How clients and nodes prove who they are.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// `--insecure`.
    Insecure,
    /// `--certs-dir`: holds `ca.crt`, for commands `client.root.{crt,key}`, for nodes `node.{crt,key}`.
    Certs {
        /// Absolute path on the host; `/etc/kaiwudb/certs` on an installed one.
        certs_dir: String,
    },
}

/// One `--store`. In configuration a plain path stands for a store without attributes and size.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "StoreForm")]
pub struct StoreSpec {
    /// Absolute path.
    pub path: String,
    /// Attributes, such as `ssd`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attrs: Vec<String>,
    /// Size that the allocator reckons with, such as `20%` or `200GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StoreForm {
    Path(String),
    Full {
        path: String,
        #[serde(default)]
        attrs: Vec<String>,
        #[serde(default)]
        size: Option<String>,
    },
}

impl From<StoreForm> for StoreSpec {
    fn from(form: StoreForm) -> Self {
        match form {
            StoreForm::Path(path) => Self::new(path),
            StoreForm::Full { path, attrs, size } => Self { path, attrs, size },
        }
    }
}

impl StoreSpec {
    /// A store without attributes and size.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), attrs: Vec::new(), size: None }
    }

    /// The flag's value. The label `path=` is needed with attributes, a size, or a `=` in the path.
    pub(super) fn value(&self) -> String {
        if self.attrs.is_empty() && self.size.is_none() && !self.path.contains('=') {
            return self.path.clone();
        }
        let mut text = format!("path={}", self.path);
        if !self.attrs.is_empty() {
            text.push_str(&format!(",attrs={}", self.attrs.join(":")));
        }
        if let Some(size) = &self.size {
            text.push_str(&format!(",size={size}"));
        }
        text
    }
}

/// A description of a host that does not make sense.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("host {}: {field}: {reason}; {cure}", host.as_str().escape_debug())]
pub struct HostError {
    /// The host.
    pub host: HostName,
    /// The field, with the offending value where it is a list.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub cure: String,
}

impl HostError {
    /// Two descriptions have one name.
    pub(crate) fn twice(host: HostName) -> Self {
        Self {
            host,
            field: "name".to_owned(),
            reason: "stands there twice".to_owned(),
            cure: "give each host a name of its own".to_owned(),
        }
    }
}

fn default_program() -> String {
    PROGRAM.to_owned()
}

fn default_stores() -> Vec<StoreSpec> {
    vec![StoreSpec::new(STORE)]
}

fn default_background() -> bool {
    true
}

impl KwbaseHost {
    /// A host with every default.
    pub fn new(name: impl Into<HostName>, security: Security) -> Self {
        Self {
            name: name.into(),
            program: default_program(),
            exec_prefix: Vec::new(),
            security,
            stores: default_stores(),
            listen_addr: None,
            advertise_addr: None,
            sql_addr: None,
            advertise_sql_addr: None,
            http_addr: None,
            brpc_addr: None,
            locality: None,
            attrs: Vec::new(),
            cache: None,
            max_sql_memory: None,
            max_offset: None,
            ts_store: Vec::new(),
            use_raft_store: false,
            pid_file: None,
            extra_flags: Vec::new(),
            env: BTreeMap::new(),
            background: true,
            output_file: None,
            owner: Owner::Quit,
        }
    }

    /// Whether the host is configured for a secure cluster.
    pub fn secure(&self) -> bool {
        matches!(self.security, Security::Certs { .. })
    }

    /// The address at which a node of this host will be known (`address` of `node status`). `None` when neither
    /// `advertise_addr` nor `listen_addr` names a host: the node then takes its machine's host name.
    pub fn rpc_address(&self) -> Option<Address> {
        advertised(self.advertise_addr.as_ref(), self.listen_addr.as_ref())
    }

    /// The address of SQL (`sql_address` of `node status`).
    pub fn sql_address(&self) -> Option<Address> {
        if self.sql_addr.is_none() && self.advertise_sql_addr.is_none() {
            return self.rpc_address();
        }
        let rpc = self.rpc_address();
        advertised(self.advertise_sql_addr.as_ref(), self.sql_addr.as_ref()).or_else(|| {
            let port = self.advertise_sql_addr.as_ref().or(self.sql_addr.as_ref()).and_then(Address::port);
            Some(join_address(rpc?.host(), port.unwrap_or(PORT)))
        })
    }

    /// The address at which the other nodes reach brpc: the port of `brpc_addr` (from V3.0.0 on), at its host where it
    /// names one that can be dialled, else at the node's own. `None` where the node's is not known.
    pub fn brpc_address(&self) -> Option<Address> {
        let brpc = self.brpc();
        let port = brpc.port()?;
        match brpc.host() {
            "" | "0.0.0.0" | "::" => Some(join_address(self.rpc_address()?.host(), port)),
            host => Some(join_address(host, port)),
        }
    }

    /// The file that takes the start command's output.
    pub fn start_output(&self) -> String {
        let store = self.stores.first().map_or(STORE, |s| s.path.as_str());
        self.output_file.clone().unwrap_or_else(|| format!("{}.start.log", store.trim_end_matches('/')))
    }

    /// Every directory that must be empty before a new node starts here: stores and time-series stores.
    pub fn data_directories(&self) -> Vec<&str> {
        self.stores.iter().map(|s| s.path.as_str()).chain(self.ts_store.iter().map(String::as_str)).collect()
    }

    /// Where a node of this host will listen, with defaults filled in; an unspecified host becomes `127.0.0.1`, so
    /// that each can be probed from the host itself.
    pub fn listening_addresses(&self) -> Vec<Address> {
        let rpc = local(self.listen_addr.as_ref(), "", PORT);
        let mut all = vec![local(self.http_addr.as_ref(), rpc.host(), HTTP_PORT)];
        all.push(local(Some(&self.brpc()), rpc.host(), 0));
        if let Some(sql) = &self.sql_addr {
            all.push(local(Some(sql), rpc.host(), PORT));
        }
        all.insert(0, rpc);
        all
    }

    /// At which addresses a node of this host will listen, as far as its machine must have them: those that are no names
    /// and do not stand for every address. None of a container that no prefix leads into: it may have addresses of its own.
    pub(super) fn binds(&self) -> Vec<Address> {
        let seen = self.owner.has_paths_of_host(!self.exec_prefix.is_empty());
        let all = [&self.listen_addr, &self.sql_addr, &self.http_addr, &self.brpc_addr];
        let given = all.into_iter().flatten().filter(|_| seen);
        given.filter(|a| a.ip().is_some_and(|ip| !ip.is_unspecified())).cloned().collect()
    }

    pub(super) fn brpc(&self) -> Address {
        self.brpc_addr.clone().unwrap_or_else(|| Address::new(BRPC_ADDR))
    }

    /// Whether `address` is this host's own node, which must not stand in its `--join` list.
    pub(crate) fn is_own(&self, address: &Address) -> bool {
        let own = [self.rpc_address(), self.listen_addr.clone()];
        let wanted = with_port(address);
        own.iter().flatten().any(|a| with_port(a) == wanted)
    }
}

/// Host in lower case and port, KWDB's where none is given.
pub(crate) fn with_port(address: &Address) -> (String, u16) {
    let host = if address.port().is_some() { address.host() } else { address.as_str().trim_end_matches(':') };
    (host.to_ascii_lowercase(), address.port().unwrap_or(PORT))
}

fn join_address(host: &str, port: u16) -> Address {
    if host.contains(':') {
        Address::new(format!("[{host}]:{port}"))
    } else {
        Address::new(format!("{host}:{port}"))
    }
}

/// KWDB fills what is missing in an advertised address from the listening one.
pub(crate) fn advertised(advertise: Option<&Address>, listen: Option<&Address>) -> Option<Address> {
    let parts = |a: &Address| {
        let (host, _) = with_port(a);
        (Some(host).filter(|h| !h.is_empty()), a.port())
    };
    let (a_host, a_port) = advertise.map(parts).unwrap_or_default();
    let (l_host, l_port) = listen.map(parts).unwrap_or_default();
    Some(join_address(&a_host.or(l_host)?, a_port.or(l_port).unwrap_or(PORT)))
}

fn local(address: Option<&Address>, default_host: &str, default_port: u16) -> Address {
    let host =
        address.map(|a| with_port(a).0).filter(|h| !h.is_empty()).unwrap_or_else(|| default_host.to_owned());
    let port = address.and_then(Address::port).unwrap_or(default_port);
    match host.as_str() {
        "" | "0.0.0.0" | "::" => join_address("127.0.0.1", port),
        other => join_address(other, port),
    }
}
