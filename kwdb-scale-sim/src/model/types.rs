//! What goes into the model and what comes out of it, apart from rows.

use std::fmt;

use jiff::Timestamp;
use kwdb_scale_core::rows::RangeKind;
use kwdb_scale_core::topology::{Address, Locality, NodeId, StartMode};

use super::Security;

/// A `kwbase start` of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeStart {
    /// Listening and advertised RPC address.
    pub address: Address,
    /// SQL address; the RPC address when `None`.
    pub sql_address: Option<Address>,
    /// HTTP address.
    pub http_address: Option<Address>,
    /// `--locality`; `region=NODE<id>` when `None`.
    pub locality: Option<Locality>,
    /// The sub-command.
    pub mode: StartMode,
    /// `--join`.
    pub join: Vec<Address>,
    /// One key per `--store`, unique in the whole model (such as `n1:/data/n1`). A key that was used before is a
    /// store with data: the node comes back with its old identity.
    pub stores: Vec<String>,
    /// Build tag; the configuration's when `None`.
    pub build: Option<String>,
    /// `--insecure` or the authority of its certificates.
    pub security: Security,
}

impl NodeStart {
    /// A multi-replica, insecure node with one store named after its address.
    pub fn new(address: impl Into<Address>, join: Vec<Address>) -> Self {
        let address = address.into();
        Self {
            sql_address: None,
            http_address: None,
            locality: None,
            mode: StartMode::MultiReplica,
            join,
            stores: vec![format!("store-of-{address}")],
            build: None,
            security: Security::Insecure,
            address,
        }
    }
}

/// A process that was started. Whether it joined is seen in [`Cluster::process`](super::Cluster::process).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StartReply {
    /// Number of the process, never given again.
    pub process: u64,
    /// When `start --background` comes back: at the latest two seconds after the start, joined or not.
    pub ready_at: Timestamp,
}

/// A process that ended before it was ready.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StartError {
    /// Something listens at the address already.
    AddressInUse(Address),
    /// No store was named.
    NoStore,
    /// Another running process uses the store.
    StoreInUse(String),
    /// The stores belong to different nodes, or only some of them hold data of a node that had others.
    StoresDisagree,
    /// The store holds data of a node that ran with another sub-command.
    StartMode {
        /// The sub-command used.
        is: StartMode,
        /// The sub-command that the store's data demands.
        should: StartMode,
    },
    /// `start` without `--join` would make a second cluster, which the model does not hold.
    SecondCluster,
    /// `start-single-node` with `--join`.
    JoinSingleNode,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressInUse(address) => write!(
                f,
                "ERROR: consider changing the port via --listen-addr: listen tcp {address}: bind: address already in use"
            ),
            Self::NoStore => f.write_str("ERROR: no store specified"),
            Self::StoreInUse(store) => {
                write!(f, "ERROR: failed to create engines: could not lock {store}/LOCK")
            }
            Self::StoresDisagree => f.write_str("ERROR: unexpected set of stores in the given directories"),
            Self::StartMode { is, should } => {
                write!(f, "ERROR: check start mode failed! Node start mode is {is}, should be {should}")
            }
            Self::SecondCluster => {
                f.write_str("ERROR: a start without --join would initialise a second cluster")
            }
            Self::JoinSingleNode => f.write_str(
                "ERROR: cannot use --join with 'kaiwudb start-single-node', use 'kaiwudb start' or 'kaiwudb start-single-replica' instead.",
            ),
        }
    }
}

impl std::error::Error for StartError {}

/// Where a process stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Phase {
    /// It listens and has not tried to join yet.
    Booting,
    /// It tries to join for ever, or waits for `init`.
    Waiting,
    /// It is a node.
    Serving,
    /// A drain has begun or ended: it refuses new clients. It stays a live node.
    Draining,
    /// It ended with this code, after printing this.
    Exited {
        /// Exit code; 137 stands for SIGKILL.
        code: i32,
        /// What it printed at the end.
        message: String,
    },
}

/// A process as seen from its own machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProcessView {
    /// Number of the process.
    pub process: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Its node id, once it has one.
    pub node: Option<NodeId>,
    /// Its RPC address.
    pub address: Address,
    /// Its SQL address.
    pub sql_address: Address,
    /// Its HTTP address.
    pub http_address: Option<Address>,
    /// Its sub-command.
    pub mode: StartMode,
    /// Its build tag.
    pub build: String,
    /// Its security.
    pub security: Security,
    /// How it came to be a node, as its log says: `initialized new cluster`, `initialized new node, joined
    /// pre-existing cluster`, `restarted pre-existing node`; empty before.
    pub status: &'static str,
    /// Whether it is frozen (as by SIGSTOP): it accepts connections and answers nothing.
    pub frozen: bool,
}

/// Why rows could not be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum QueryError {
    /// Nothing listens there.
    Unreachable,
    /// The connection is accepted and no answer comes: not initialised, not joined, frozen, or a quorum of the
    /// system ranges is lost.
    Hang,
    /// SQLSTATE 57P01, `server is not accepting clients`: the node is drained.
    NotAccepting,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "connection refused",
            Self::Hang => "no answer",
            Self::NotAccepting => "server is not accepting clients",
        })
    }
}

impl std::error::Error for QueryError {}

/// How a call of the admin service ended badly.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RpcError {
    /// Nothing listens there.
    Unreachable,
    /// No answer comes.
    Hang,
    /// The node waits for `init` or to join.
    WaitingForInit,
    /// The id is not in the liveness table; ids before it in the list keep what was done to them.
    UnknownNode {
        /// The id.
        id: NodeId,
        /// Whether the call was to mark (or else to unmark).
        mark: bool,
    },
    /// Single-replica clusters do not decommission.
    SingleReplica,
    /// A node of the cluster is being upgraded.
    Upgrading,
    /// `init` on a cluster that is initialised.
    AlreadyInitialised,
    /// The gateway knows no node of that id.
    NoDescriptor(NodeId),
    /// The gateway cannot reach the node at that address.
    CannotDial(Address),
}

impl fmt::Display for RpcError {
    /// The description of the gRPC status.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("connection refused"),
            Self::Hang => f.write_str("context deadline exceeded"),
            Self::WaitingForInit => {
                f.write_str("node waiting for init; /kwbase.server.serverpb.Admin not available")
            }
            Self::UnknownNode { id, mark } => {
                write!(f, "during liveness update {} -> {mark}: node not in the liveness table", id.0)
            }
            Self::SingleReplica => f.write_str("node cannot be decommissioned in mpp mode"),
            Self::Upgrading => f.write_str("can not run node decommission when cluster has node UPGRADING"),
            Self::AlreadyInitialised => f.write_str("cluster has already been initialized"),
            Self::NoDescriptor(id) => write!(f, "unable to look up descriptor for n{}", id.0),
            Self::CannotDial(address) => write!(
                f,
                "initial connection heartbeat failed: rpc error: code = Unavailable desc = all SubConns are in \
                 TransientFailure, latest connection error: connection error: desc = \"transport: Error while dialing \
                 dial tcp {address}: connect: connection refused\""
            ),
        }
    }
}

impl std::error::Error for RpcError {}

/// What the HTTP port says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// 200.
    Ok,
    /// 503 with this message.
    NotReady(&'static str),
}

/// A table to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    /// Database; made when absent.
    pub database: String,
    /// Table.
    pub table: String,
    /// Relational or time-series.
    pub kind: RangeKind,
    /// How many ranges, at least one. Of a partitioned table: of each partition.
    pub ranges: u32,
    /// Bytes in each range.
    pub bytes_per_range: u64,
    /// Partition names; each gets its own ranges.
    pub partitions: Vec<String>,
    /// The partitions list hash points: constraints that no available store meets are then dropped (V3.0.0).
    pub hash_points: bool,
}

impl TableSpec {
    /// A relational table of small ranges.
    pub fn new(database: &str, table: &str, ranges: u32) -> Self {
        Self {
            database: database.to_owned(),
            table: table.to_owned(),
            kind: RangeKind::Relational,
            ranges,
            bytes_per_range: 1 << 20,
            partitions: Vec::new(),
            hash_points: false,
        }
    }
}

/// What a zone configuration belongs to.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ZoneTarget {
    /// `RANGE default`, `meta`, `system`, `liveness`.
    Range(String),
    /// `DATABASE name`.
    Database(String),
    /// `TABLE database.public.table`.
    Table {
        /// Database.
        database: String,
        /// Table.
        table: String,
    },
    /// `PARTITION name OF TABLE database.public.table`.
    Partition {
        /// Database.
        database: String,
        /// Table.
        table: String,
        /// Partition.
        partition: String,
    },
}

/// Why a statement on the schema, zones or settings was refused: SQLSTATE and message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SqlRefusal {
    /// SQLSTATE.
    pub code: &'static str,
    /// Message.
    pub message: String,
}

impl fmt::Display for SqlRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlRefusal {}
