//! Sending a range to a queue of its replica's store, so that the server looks at it sooner.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kwdb_scale_core::ports::{self, Gateway, PortError, PortErrorKind, ReplicateQueue};
use kwdb_scale_core::topology::{NodeId, RangeId};

use crate::client::AdminRpc;
use crate::error::{ServerSaid, one_line};
use crate::messages::{ENQUEUE_RANGE, EnqueueDetails, EnqueueRangeRequest, EnqueueRangeResponse, TraceEvent};

/// One range for one queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EnqueueRange {
    /// On which node: the range's leaseholder, or nothing is done. `None` is every node that the gateway knows, one of
    /// which is the leaseholder; the others answer with an error each, and nodes that are down are waited for.
    pub node: Option<NodeId>,
    /// The queue: `replicate`, `split`, `merge`, `gc`, …
    pub queue: String,
    /// The range.
    pub range: RangeId,
    /// Run the queue without asking it first whether there is anything to do.
    pub skip_should_queue: bool,
}

impl EnqueueRange {
    /// A range for the replicate queue of its leaseholder, without asking first: what moves replicas off a leaving node.
    pub fn replicate(leaseholder: NodeId, range: RangeId) -> Self {
        Self { node: Some(leaseholder), queue: "replicate".to_owned(), range, skip_should_queue: true }
    }
}

/// What one node says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Enqueued {
    /// The node; `None` for an error that names none.
    pub node: Option<NodeId>,
    /// The trace of the run, in order.
    pub events: Vec<EnqueueEvent>,
    /// Why it failed; `None` when it ran to its end, whether or not there was anything to do.
    pub error: Option<EnqueueError>,
}

/// One line of a trace.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EnqueueEvent {
    /// By the node's clock; `None` when the server gave none that makes sense.
    pub time: Option<Timestamp>,
    /// The text, on one line.
    pub message: String,
}

/// Why a node did nothing or not everything.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EnqueueError {
    /// What to decide by.
    pub kind: EnqueueErrorKind,
    /// The server's own words, on one line.
    pub text: String,
}

/// What to decide by. Texts: seen on V3.2.1; `server/admin.go`, `kv/kvserver/store.go`, `replica_command.go`,
/// `allocator.go`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum EnqueueErrorKind {
    /// `nX has no replica for rY`: the leaseholder is another one by now, or the range is gone. Look it up again.
    NoReplica,
    /// `… does not have the range lease`: as well.
    NotLeaseholder,
    /// `descriptor changed: …`: somebody else changed the range at the same time. Look at it again.
    DescriptorChanged,
    /// `target nX,sY not found`: the replica to be removed is gone already.
    TargetNotFound,
    /// `0 of N live stores are able to take a new replica …`: the allocator finds no place. This is why a drain stalls.
    NoPlace,
    /// `… deadline exceeded`, `… canceled`: the run was cut off; the server goes on by itself.
    TimedOut,
    /// The node could not be reached by the gateway.
    NodeUnreachable,
    /// Anything else.
    Other,
}

/// The gateway cannot reach the node named.
const NO_HEARTBEAT: &str = "initial connection heartbeat failed";

/// In order: the first that fits counts.
const KINDS: &[(&str, EnqueueErrorKind)] = &[
    ("has no replica for r", EnqueueErrorKind::NoReplica),
    ("does not have the range lease", EnqueueErrorKind::NotLeaseholder),
    ("descriptor changed", EnqueueErrorKind::DescriptorChanged),
    ("live stores are able to take a new replica", EnqueueErrorKind::NoPlace),
    ("failed to dial into node", EnqueueErrorKind::NodeUnreachable),
    (NO_HEARTBEAT, EnqueueErrorKind::NodeUnreachable),
    ("deadline exceeded", EnqueueErrorKind::TimedOut),
    ("context canceled", EnqueueErrorKind::TimedOut),
];

impl EnqueueError {
    /// What a server's words mean.
    pub fn new(words: &str) -> Self {
        Self { kind: EnqueueErrorKind::of(words), text: one_line(words) }
    }

    /// The same as the port [`ReplicateQueue`] tells it.
    ///
    /// # Errors
    /// The run was cut off, or the node was not reached: nothing is known of the range.
    pub fn into_outcome(self) -> Result<ports::Enqueued, PortError> {
        use EnqueueErrorKind as Kind;

        let Self { kind, text } = self;
        match kind {
            Kind::NoReplica | Kind::NotLeaseholder => Ok(ports::Enqueued::Stale(text)),
            Kind::DescriptorChanged | Kind::TargetNotFound => Ok(ports::Enqueued::Raced(text)),
            Kind::TimedOut => Err(PortError::new(PortErrorKind::Deadline, text)),
            Kind::NodeUnreachable => Err(PortError::new(PortErrorKind::Unreachable, text)),
            Kind::NoPlace | Kind::Other => Ok(ports::Enqueued::Failed(text)),
        }
    }
}

impl EnqueueErrorKind {
    fn of(text: &str) -> Self {
        let found = KINDS.iter().find(|(needle, _)| text.contains(needle)).map(|(_, kind)| *kind);
        let gone = || text.contains("target n") && text.contains(" not found");
        found.unwrap_or_else(|| if gone() { Self::TargetNotFound } else { Self::Other })
    }
}

#[async_trait]
impl ReplicateQueue for AdminRpc {
    async fn enqueue(
        &self,
        via: &Gateway,
        node: NodeId,
        range: RangeId,
        deadline: Duration,
    ) -> Result<ports::Enqueued, PortError> {
        let said = self.enqueue_range(via, &EnqueueRange::replicate(node, range), deadline).await?;
        let error = said.into_iter().find_map(|said| said.error);
        error.map_or(Ok(ports::Enqueued::Processed), EnqueueError::into_outcome)
    }
}

impl AdminRpc {
    /// Sends a range through a queue at once, and comes back when that is done. The allocator decides as ever: this only
    /// makes it look. May be repeated.
    ///
    /// A run that moves a replica takes as long as its snapshot; one that is cut off by the deadline is given up by the
    /// server, and nothing is lost. That a node did nothing is no error of the call: see [`Enqueued::error`].
    pub async fn enqueue_range(
        &self,
        via: &Gateway,
        job: &EnqueueRange,
        deadline: Duration,
    ) -> Result<Vec<Enqueued>, PortError> {
        let peer = self.connector().peer(&via.address);
        let bad = |text: String| peer.error(PortErrorKind::Config, text);
        let node_id = match job.node {
            None => 0,
            Some(node) => {
                let id = i32::try_from(node.0).ok().filter(|id| *id > 0);
                id.ok_or_else(|| bad(format!("{node} is no node id")))?
            }
        };
        let range_id = i32::try_from(job.range.0).ok().filter(|id| *id > 0);
        let range_id = range_id.ok_or_else(|| bad(format!("{} is no range id", job.range)))?;
        if job.queue.is_empty() {
            return Err(bad("no queue is named (such as replicate)".to_owned()));
        }
        let request = EnqueueRangeRequest {
            node_id,
            queue: job.queue.clone(),
            range_id,
            skip_should_queue: job.skip_should_queue,
        };
        // One attempt: a run may take as long as the deadline allows, and whoever paces the runs counts those cut off.
        let answer = self.attempt(&via.address, ENQUEUE_RANGE, &request, deadline).await;
        let answer: EnqueueRangeResponse = match answer {
            Ok(answer) => answer,
            // Of one node named, the server makes a failure of the call what is otherwise that node's answer.
            Err(failed) => match said(&failed.error).filter(|text| text.contains(NO_HEARTBEAT)) {
                Some(text) => {
                    let details = EnqueueDetails { node_id, events: Vec::new(), error: text.to_owned() };
                    EnqueueRangeResponse { details: vec![details] }
                }
                None => return Err(failed.error),
            },
        };
        Ok(answer.details.into_iter().map(read).collect())
    }
}

fn said(error: &PortError) -> Option<&str> {
    let said = error.source().and_then(|e| e.downcast_ref::<ServerSaid>());
    said.map(|said| said.message.as_str())
}

fn read(details: EnqueueDetails) -> Enqueued {
    let error = (!details.error.is_empty()).then(|| EnqueueError::new(&details.error));
    Enqueued {
        node: u32::try_from(details.node_id).ok().filter(|id| *id > 0).map(NodeId),
        events: details.events.into_iter().map(event).collect(),
        error,
    }
}

fn event(event: TraceEvent) -> EnqueueEvent {
    let time = event.time.and_then(|t| Timestamp::new(t.seconds, t.nanos).ok());
    EnqueueEvent { time, message: one_line(&event.message) }
}

#[cfg(test)]
mod tests {
    use super::EnqueueErrorKind as Kind;

    #[test]
    fn errors_by_kind() {
        let seen = [
            ("n4 has no replica for r48", Kind::NoReplica),
            ("change replicas of r229 failed: target n3,s3 not found", Kind::TargetNotFound),
            (
                "change replicas of r231 failed: descriptor changed: [expected] r231:/Table/78/1/13{700-800} [(n1,s1):1, \
                 (n4,s4):2]",
                Kind::DescriptorChanged,
            ),
            (
                "replica [n2,s2,r231/2:/Table/78/1/13{700-800}] does not have the range lease",
                Kind::NotLeaseholder,
            ),
            (
                "0 of 2 live stores are able to take a new replica for the range (2 already have a replica); likely not \
                 enough nodes in cluster",
                Kind::NoPlace,
            ),
            ("aborted during DistSender.Send: context deadline exceeded", Kind::TimedOut),
            (
                "failed to dial into node 4 (UNAVAILABLE): initial connection heartbeat failed: rpc error: code = \
                 Unavailable desc = all SubConns are in TransientFailure",
                Kind::NodeUnreachable,
            ),
            ("unknown queue type \"replicat\"", Kind::Other),
        ];
        for (text, kind) in seen {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }
}
