//! The messages of `kwbase.server.serverpb.Admin`, written by hand after `server/serverpb/admin.proto` and `status.proto`
//! (V2.2.2 to V3.2.1): only the methods and fields that are used. Shared with the simulated cluster, which serves them.

/// The service, as it stands in every path.
pub const SERVICE: &str = "kwbase.server.serverpb.Admin";

/// Path of `Decommission`.
pub const DECOMMISSION: &str = "/kwbase.server.serverpb.Admin/Decommission";
/// Path of `DecommissionStatus`.
pub const DECOMMISSION_STATUS: &str = "/kwbase.server.serverpb.Admin/DecommissionStatus";
/// Path of `Drain`.
pub const DRAIN: &str = "/kwbase.server.serverpb.Admin/Drain";
/// Path of `Health`.
pub const HEALTH: &str = "/kwbase.server.serverpb.Admin/Health";
/// Path of `EnqueueRange`.
pub const ENQUEUE_RANGE: &str = "/kwbase.server.serverpb.Admin/EnqueueRange";

/// Sets or clears the decommissioning bit.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecommissionRequest {
    /// The nodes; empty is the recipient itself, so it is never sent empty.
    #[prost(int32, repeated, tag = "1")]
    pub node_ids: Vec<i32>,
    /// Set or clear.
    #[prost(bool, tag = "2")]
    pub decommissioning: bool,
}

/// Asks for the status of nodes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecommissionStatusRequest {
    /// The nodes; empty is all.
    #[prost(int32, repeated, tag = "1")]
    pub node_ids: Vec<i32>,
}

/// The answer to both.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecommissionStatusResponse {
    /// One a node.
    #[prost(message, repeated, tag = "2")]
    pub status: Vec<NodeStatus>,
}

/// `DecommissionStatusResponse.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeStatus {
    /// The node.
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    /// Whether it is live.
    #[prost(bool, tag = "2")]
    pub is_live: bool,
    /// Replicas by a scan of the meta ranges.
    #[prost(int64, tag = "3")]
    pub replica_count: i64,
    /// The decommissioning bit.
    #[prost(bool, tag = "4")]
    pub decommissioning: bool,
    /// The draining bit.
    #[prost(bool, tag = "5")]
    pub draining: bool,
}

/// Drains, shuts down, or (neither) only asks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DrainRequest {
    /// End the process.
    #[prost(bool, tag = "3")]
    pub shutdown: bool,
    /// Drain.
    #[prost(bool, tag = "4")]
    pub do_drain: bool,
}

/// How far a drain is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DrainResponse {
    /// `[0, 1]` of a draining node: for clients of 19.x.
    #[prost(int32, repeated, tag = "1")]
    pub deprecated_drain_status: Vec<i32>,
    /// Whether the node drains.
    #[prost(bool, tag = "2")]
    pub is_draining: bool,
    /// What there was to do when the call began; zero is drained.
    #[prost(uint64, tag = "3")]
    pub drain_remaining_indicator: u64,
    /// The same in words.
    #[prost(string, tag = "4")]
    pub drain_remaining_description: String,
}

/// Asks whether the node is there, or whether it is ready.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthRequest {
    /// Ready for clients.
    #[prost(bool, tag = "1")]
    pub ready: bool,
}

/// It is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthResponse {}

/// Runs a range through a queue of its replica's store.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EnqueueRangeRequest {
    /// The node; zero is every node.
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    /// The queue.
    #[prost(string, tag = "2")]
    pub queue: String,
    /// The range.
    #[prost(int32, tag = "3")]
    pub range_id: i32,
    /// Without asking the queue first whether there is anything to do.
    #[prost(bool, tag = "4")]
    pub skip_should_queue: bool,
}

/// What came of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EnqueueRangeResponse {
    /// One a node.
    #[prost(message, repeated, tag = "1")]
    pub details: Vec<EnqueueDetails>,
}

/// `EnqueueRangeResponse.Details`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EnqueueDetails {
    /// The node; zero in an error of the call as a whole.
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    /// The trace of the run.
    #[prost(message, repeated, tag = "2")]
    pub events: Vec<TraceEvent>,
    /// Why it failed; empty when it did not.
    #[prost(string, tag = "3")]
    pub error: String,
}

/// One line of a trace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TraceEvent {
    /// When.
    #[prost(message, optional, tag = "1")]
    pub time: Option<Timestamp>,
    /// What.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Timestamp {
    /// Seconds since the epoch.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}
