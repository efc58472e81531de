//! The calls: one channel a node, attempts within a deadline, and the methods that only ask or mark.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::uri::PathAndQuery;
use kwdb_scale_core::certificate::Certificate;
use kwdb_scale_core::ports::{
    DecommissionControl, DecommissionStatus, Gateway, Means, PortError, PortErrorKind, Readiness,
};
use kwdb_scale_core::topology::{Address, NodeId};
use prost::Message;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic_prost::ProstCodec;

use crate::config::Builder;
use crate::connection::{Channel, Connector};
use crate::error::{ServerSaid, Stage, is_loss, is_overload};
use crate::messages::{
    DECOMMISSION, DECOMMISSION_STATUS, DecommissionRequest, DecommissionStatusRequest,
    DecommissionStatusResponse, HEALTH, HealthRequest, HealthResponse, NodeStatus,
};

/// The pause before a call that the server was too busy for is made again: doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A longer deadline is this one: it is added to a clock and goes over the wire in eight digits.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// KWDB's admin RPC.
///
/// Cheap to clone; clones share their channels: one a node, made when first needed, kept and used by many calls at once,
/// and given up when it fails or an answer does not come in time. Going on to another node is the caller's choice.
///
/// A call that was dropped is given up at once, here and at the server.
#[derive(Clone)]
pub struct AdminRpc {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    attempt_timeout: Duration,
    max_channels: usize,
    slots: Mutex<Slots>,
}

/// The nodes spoken to, each with when it was last used.
#[derive(Default)]
struct Slots {
    used: u64,
    by_node: HashMap<Address, (u64, Arc<Slot>)>,
}

type Slot = tokio::sync::Mutex<Option<Channel>>;

impl AdminRpc {
    /// Begins with an insecure cluster and the usual deadlines.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(builder: Builder) -> Result<Self, PortError> {
        let connector = Connector::new(&builder)?;
        let (attempt_timeout, max_channels) = (builder.attempt_timeout, builder.max_channels);
        Ok(Self {
            inner: Arc::new(Inner { connector, attempt_timeout, max_channels, slots: Mutex::default() }),
        })
    }

    /// Whether the node at the RPC address `node` takes clients: what "joined" means to itself. Only reads.
    ///
    /// A node that cannot be told (TLS, credentials, no answer in time) is an error.
    pub async fn ready(&self, node: &Address, deadline: Duration) -> Result<Readiness, PortError> {
        let request = HealthRequest { ready: true };
        let answer: Result<HealthResponse, _> = self.call(node, HEALTH, &request, deadline).await;
        let Err(error) = answer else { return Ok(Readiness::Ready) };
        let raw = error.source().and_then(|e| e.downcast_ref::<ServerSaid>());
        match (error.kind(), raw) {
            (PortErrorKind::NotInitialised, _) => Ok(Readiness::WaitingForInit),
            (PortErrorKind::ShuttingDown, _) => Ok(Readiness::ShuttingDown),
            (PortErrorKind::Unreachable, _) => Ok(Readiness::Unreachable(error.to_string())),
            (PortErrorKind::Other, Some(said)) if said.code == "UNAVAILABLE" => {
                Ok(Readiness::NotReady(said.message.clone()))
            }
            _ => Err(error),
        }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.inner.connector
    }

    /// A short call that may be repeated, made again while the server is too busy, within the deadline.
    pub(crate) async fn call<Q, R>(
        &self,
        node: &Address,
        path: &'static str,
        request: &Q,
        deadline: Duration,
    ) -> Result<R, PortError>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let end = Instant::now() + deadline.min(LONGEST);
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0_u32;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let limit = left.min(self.inner.attempt_timeout);
            attempts += 1;
            let failed = match self.attempt(node, path, request, limit).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let left = end.saturating_duration_since(Instant::now());
            if !failed.busy || left <= pause {
                return Err(match failed.busy && attempts > 1 {
                    true => {
                        let text = format!("{} (tried {attempts} times)", failed.error);
                        PortError::new(failed.error.kind(), text).with_source(failed.error)
                    }
                    false => failed.error,
                });
            }
            tracing::debug!(%node, path, attempts, error = %failed.error, "again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One attempt; a second one at once when a channel that was kept turns out to have died.
    pub(crate) async fn attempt<Q, R>(
        &self,
        node: &Address,
        path: &'static str,
        request: &Q,
        limit: Duration,
    ) -> Result<R, Failed>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let (began, limit) = (Instant::now(), limit.min(LONGEST));
        let (mut used, mut again) = (None, true);
        let answer = timeout(limit, async {
            loop {
                let (channel, kept) = self.channel(node).await.map_err(Failed::of)?;
                used = Some(channel.clone());
                let left = limit.saturating_sub(began.elapsed());
                match unary(&channel, path, request.clone(), left).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) => {
                        let lost = is_loss(&status);
                        if lost {
                            self.forget(node, &channel);
                        }
                        if lost && kept && std::mem::take(&mut again) {
                            continue;
                        }
                        let busy = is_overload(&status);
                        let error = self.connector().peer(node).of_status(Stage::Calling, status);
                        return Err(Failed { error, busy });
                    }
                }
            }
        })
        .await;
        let ms = began.elapsed().as_millis();
        match answer {
            Ok(Ok(answer)) => {
                tracing::debug!(%node, path, ms, "answered");
                Ok(answer)
            }
            Ok(Err(failed)) => {
                tracing::debug!(%node, path, ms, error = %failed.error, "failed");
                Err(failed)
            }
            Err(_) => {
                // It may be the channel: the next call makes another. Calls that run on this one go on.
                if let Some(channel) = used {
                    self.forget(node, &channel);
                }
                let text = format!("no answer within {} s ({})", limit.as_secs_f32(), method(path));
                let error = self.connector().peer(node).error(PortErrorKind::Deadline, text);
                Err(Failed { error, busy: true })
            }
        }
    }

    /// The node's channel, and whether it was there before.
    pub(crate) async fn channel(&self, node: &Address) -> Result<(Channel, bool), PortError> {
        let slot = self.slot(node);
        let mut slot = slot.lock().await;
        if let Some(channel) = slot.as_ref().filter(|channel| channel.is_usable()) {
            return Ok((channel.clone(), true));
        }
        *slot = None;
        let channel = self.connector().connect(node).await?;
        *slot = Some(channel.clone());
        Ok((channel, false))
    }

    /// Drops a channel that failed, unless there is another one by now or one is just being made.
    pub(crate) fn forget(&self, node: &Address, failed: &Channel) {
        let slot = self.slot(node);
        if let Ok(mut slot) = slot.try_lock()
            && slot.as_ref().is_some_and(|channel| channel.is_same(failed))
        {
            *slot = None;
        }
    }

    fn slot(&self, node: &Address) -> Arc<Slot> {
        let mut slots = self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.used += 1;
        let used = slots.used;
        let entry = slots.by_node.entry(node.clone()).or_default();
        entry.0 = used;
        let slot = Arc::clone(&entry.1);
        if slots.by_node.len() > self.inner.max_channels {
            let oldest = slots.by_node.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(address, _)| address.clone()) {
                slots.by_node.remove(&oldest);
            }
        }
        slot
    }

    /// SHA-256 of the client certificate, where there is one that can be read.
    pub(crate) fn client_fingerprint(&self) -> Option<String> {
        let pem = self.connector().client_certificate()?;
        Some(Certificate::from_pem(std::str::from_utf8(&pem).ok()?).ok()?.fingerprint)
    }

    async fn statuses(
        &self,
        via: &Address,
        ids: &[i32],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        let request = DecommissionStatusRequest { node_ids: ids.to_vec() };
        match self.call(via, DECOMMISSION_STATUS, &request, deadline).await {
            Ok(answer) => self.read(via, ids, answer),
            // The server does not always name the one that it does not know.
            Err(e) if e.kind() == PortErrorKind::UnknownNode => Err(about(&e, ids)),
            Err(e) => Err(e),
        }
    }

    /// Sets or clears the bit of all nodes in one call, after every id was proven: the server would keep those before an
    /// unknown one marked.
    async fn set_bit(
        &self,
        via: &Address,
        nodes: &[NodeId],
        decommissioning: bool,
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        let node_ids = self.ids(via, nodes)?;
        let end = Instant::now() + deadline.min(LONGEST);
        self.statuses(via, &node_ids, deadline).await?;
        let left = end.saturating_duration_since(Instant::now());
        let request = DecommissionRequest { node_ids, decommissioning };
        let answer = self.call(via, DECOMMISSION, &request, left).await?;
        let found = self.read(via, &request.node_ids, answer)?;
        match found.iter().find(|status| status.decommissioning != decommissioning) {
            None => Ok(found),
            Some(other) => {
                let text = format!(
                    "the decommissioning bit of {} is {} after it was to become {decommissioning} (does somebody else \
                     change it?)",
                    other.node, other.decommissioning
                );
                Err(self.connector().peer(via).error(PortErrorKind::Other, text))
            }
        }
    }

    /// Ids as the server takes them, each once; never none.
    fn ids(&self, via: &Address, nodes: &[NodeId]) -> Result<Vec<i32>, PortError> {
        let peer = self.connector().peer(via);
        if nodes.is_empty() {
            let text = "no node was named, and to a server that marks an empty list means the gateway itself";
            return Err(peer.error(PortErrorKind::Config, text));
        }
        let mut ids = Vec::new();
        for node in nodes {
            let id = i32::try_from(node.0).ok().filter(|id| *id > 0);
            let id = id.ok_or_else(|| peer.error(PortErrorKind::Config, format!("{node} is no node id")))?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn read(
        &self,
        via: &Address,
        asked: &[i32],
        answer: DecommissionStatusResponse,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        let malformed = |text: String| self.connector().peer(via).error(PortErrorKind::Malformed, text);
        let mut found: Vec<i32> = answer.status.iter().map(|status| status.node_id).collect();
        let mut wanted = asked.to_vec();
        found.sort_unstable();
        wanted.sort_unstable();
        if found != wanted {
            return Err(malformed(format!(
                "the answer is about nodes {found:?}, and {wanted:?} were asked about"
            )));
        }
        answer
            .status
            .iter()
            .map(|status| {
                one(status).ok_or_else(|| malformed(format!("a status makes no sense: {status:?}")))
            })
            .collect()
    }
}

/// The error with the ids that the question was about.
fn about(error: &PortError, ids: &[i32]) -> PortError {
    let ids: Vec<String> = ids.iter().map(i32::to_string).collect();
    let about = PortError::new(error.kind(), format!("{error} (it was asked about {})", ids.join(", ")));
    match error.source().and_then(|said| said.downcast_ref::<ServerSaid>()) {
        Some(said) => about.with_source(said.clone()),
        None => about,
    }
}

fn one(status: &NodeStatus) -> Option<DecommissionStatus> {
    Some(DecommissionStatus {
        node: NodeId(u32::try_from(status.node_id).ok()?),
        is_live: status.is_live,
        replicas: u64::try_from(status.replica_count).ok()?,
        decommissioning: status.decommissioning,
        draining: status.draining,
    })
}

/// An attempt that failed.
pub(crate) struct Failed {
    pub(crate) error: PortError,
    /// The server was too busy, or did not answer in time.
    pub(crate) busy: bool,
}

impl Failed {
    fn of(error: PortError) -> Self {
        Self { error, busy: false }
    }
}

/// The method's own name.
pub(crate) fn method(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

async fn unary<Q, R>(channel: &Channel, path: &'static str, message: Q, limit: Duration) -> Result<R, Status>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    let mut grpc = channel.grpc();
    grpc.ready().await.map_err(|e| Status::from_error(Box::new(e)))?;
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    let codec = ProstCodec::<Q, R>::default();
    grpc.unary(request, PathAndQuery::from_static(path), codec).await.map(tonic::Response::into_inner)
}

impl fmt::Debug for AdminRpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminRpc")
            .field("attempt_timeout", &self.inner.attempt_timeout)
            .field("max_channels", &self.inner.max_channels)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl DecommissionControl for AdminRpc {
    fn means(&self) -> Option<Means> {
        Some(Means::AdminRpc { why: "nothing else is configured".to_owned(), marks_on_hosts: false })
    }

    async fn mark(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        self.set_bit(&via.address, nodes, true, deadline).await
    }

    async fn recommission(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        self.set_bit(&via.address, nodes, false, deadline).await
    }

    async fn status(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Option<Vec<DecommissionStatus>>, PortError> {
        let ids = self.ids(&via.address, nodes)?;
        self.statuses(&via.address, &ids, deadline).await.map(Some)
    }
}
