//! The admin service of a node: gRPC on the port that SQL uses too, over the model. Which errors it gives, and in which
//! words, is what a KWDB V3.2.1 was seen to say.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream as Messages, StreamExt};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kwdb_scale_core::ports::DecommissionStatus;
use kwdb_scale_core::topology::NodeId;
use kwdb_scale_rpc::messages::{
    DECOMMISSION, DECOMMISSION_STATUS, DRAIN, DecommissionRequest, DecommissionStatusRequest,
    DecommissionStatusResponse, DrainRequest, DrainResponse, ENQUEUE_RANGE, EnqueueDetails,
    EnqueueRangeRequest, EnqueueRangeResponse, HEALTH, HealthRequest, HealthResponse, NodeStatus, SERVICE,
    Timestamp, TraceEvent,
};
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::hub::Front;
use crate::model::{Cluster, Enqueue, EnqueueRun, Health, RpcError};
use crate::pgwire::{self, Phase, Stream};

/// What one `Drain` call takes when there is nobody to wait for.
const DRAIN_CALL: Duration = Duration::from_millis(1_005);

/// Who calls.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// `root` or `node`, or anyone on an insecure cluster.
    Root,
    /// Another user, by certificate.
    Other(String),
    /// Nobody: TLS without a client certificate.
    Nobody,
}

impl Caller {
    /// By the common name of a client certificate.
    pub(super) fn new(name: Option<String>) -> Self {
        match name.as_deref() {
            Some("root" | "node") => Self::Root,
            Some(other) => Self::Other(other.to_owned()),
            None => Self::Nobody,
        }
    }

    fn allowed(&self) -> Result<(), Status> {
        match self {
            Self::Root => Ok(()),
            Self::Other(user) => {
                Err(Status::unknown(format!("user [{user}] is not allowed to perform this RPC")))
            }
            Self::Nobody => Err(Status::unknown("no client certificates in request")),
        }
    }
}

impl Front {
    /// Serves HTTP/2 to its end.
    pub(super) async fn serve_rpc<S: Stream>(self: Arc<Self>, stream: S, caller: Caller) -> io::Result<()> {
        let mut phase = self.subscribe();
        let admin = Admin { front: Arc::clone(&self), caller };
        let service = service_fn(move |request| {
            let admin = admin.clone();
            async move { Ok::<_, Infallible>(admin.serve(request).await) }
        });
        let connection =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            ended = connection => ended.map_err(io::Error::other),
            // A node that ends answers nobody any more.
            _ = pgwire::reached(&mut phase, Phase::Closed) => Ok(()),
        }
    }
}

/// The service of one connection.
#[derive(Clone)]
struct Admin {
    front: Arc<Front>,
    caller: Caller,
}

type Drained = Pin<Box<dyn Messages<Item = Result<DrainResponse, Status>> + Send>>;

impl Admin {
    async fn serve(self, request: http::Request<Incoming>) -> http::Response<Body> {
        if let Err(refused) = self.caller.allowed() {
            return refused.into_http();
        }
        let path = request.uri().path().to_owned();
        match path.as_str() {
            HEALTH => {
                let mut grpc = Grpc::new(ProstCodec::<HealthResponse, HealthRequest>::default());
                grpc.unary(Call(move |m| self.clone().health(m)), request).await
            }
            DECOMMISSION => {
                let mut grpc =
                    Grpc::new(ProstCodec::<DecommissionStatusResponse, DecommissionRequest>::default());
                grpc.unary(Call(move |m| self.clone().decommission(m)), request).await
            }
            DECOMMISSION_STATUS => {
                let codec = ProstCodec::<DecommissionStatusResponse, DecommissionStatusRequest>::default();
                Grpc::new(codec).unary(Call(move |m| self.clone().decommission_status(m)), request).await
            }
            DRAIN => {
                let mut grpc = Grpc::new(ProstCodec::<DrainResponse, DrainRequest>::default());
                grpc.server_streaming(Call(move |m| self.clone().drain(m)), request).await
            }
            ENQUEUE_RANGE => {
                let mut grpc = Grpc::new(ProstCodec::<EnqueueRangeResponse, EnqueueRangeRequest>::default());
                grpc.unary(Call(move |m| self.clone().enqueue_range(m)), request).await
            }
            _ => {
                let text = match path.trim_start_matches('/').split_once('/') {
                    Some((SERVICE, method)) => format!("unknown method {method} for service {SERVICE}"),
                    Some((service, _)) => format!("unknown service {service}"),
                    None => format!("malformed method name: {path:?}"),
                };
                Status::unimplemented(text).into_http()
            }
        }
    }

    async fn health(self, request: HealthRequest) -> Result<HealthResponse, Status> {
        loop {
            let health = self.front.hub().cluster().health(self.front.address(), request.ready);
            match health {
                Some(Health::Ok) => return Ok(HealthResponse {}),
                Some(Health::NotReady(why)) => return Err(Status::unavailable(why)),
                // Frozen, or gone in this moment.
                None => self.front.hub().tick().await,
            }
        }
    }

    async fn decommission(self, request: DecommissionRequest) -> Result<DecommissionStatusResponse, Status> {
        let (nodes, mark) = (ids(&request.node_ids), request.decommissioning);
        let done = self.answer("Decommission", |cluster, via| {
            if mark { cluster.decommission(via, &nodes) } else { cluster.recommission(via, &nodes) }
        });
        done.await.map(statuses)
    }

    async fn decommission_status(
        self,
        request: DecommissionStatusRequest,
    ) -> Result<DecommissionStatusResponse, Status> {
        let nodes = ids(&request.node_ids);
        let found =
            self.answer("DecommissionStatus", |cluster, via| cluster.decommission_status(via, &nodes)).await;
        found.map(statuses)
    }

    async fn drain(self, request: DrainRequest) -> Result<Drained, Status> {
        let shutdown = request.shutdown;
        let front = Arc::clone(&self.front);
        let first = self.drain_once(request.do_drain).await?;
        let said = stream::iter([Ok(first)]);
        if !shutdown {
            return Ok(Box::pin(said));
        }
        let down = front.hub().cluster().shutdown(front.address());
        down.map_err(|e| status(&e, "Drain"))?;
        // It goes without another word.
        Ok(Box::pin(said.chain(stream::pending())))
    }

    async fn drain_once(&self, do_drain: bool) -> Result<DrainResponse, Status> {
        let hub = self.front.hub();
        let mut remaining = 0;
        if do_drain {
            self.answer("Drain", |cluster, at| cluster.refuse_clients(at)).await?;
            let until = {
                let cluster = hub.cluster();
                cluster.drain_waits_until(self.front.address()).unwrap_or_else(|| cluster.now()) + DRAIN_CALL
            };
            hub.until(until).await;
            remaining = self.answer("Drain", |cluster, at| cluster.drain(at)).await?;
        } else {
            // A question is answered by every member.
            self.answer("Drain", |cluster, at| cluster.decommission_status(at, &[])).await?;
        }
        let health = hub.cluster().health(self.front.address(), true);
        let is_draining = health == Some(Health::NotReady("node is shutting down"));
        let description = match remaining {
            0 => String::new(),
            1 => "liveness record: 1".to_owned(),
            more => format!("liveness record: 1, range lease iterations: {}", more - 1),
        };
        Ok(DrainResponse {
            deprecated_drain_status: if is_draining { vec![0, 1] } else { Vec::new() },
            is_draining,
            drain_remaining_indicator: remaining,
            drain_remaining_description: description,
        })
    }

    async fn enqueue_range(self, request: EnqueueRangeRequest) -> Result<EnqueueRangeResponse, Status> {
        if request.node_id < 0 {
            let text = format!("node_id must be non-negative; got {}", request.node_id);
            return Err(Status::invalid_argument(text));
        }
        if request.queue.is_empty() {
            return Err(Status::invalid_argument("queue name must be non-empty"));
        }
        let range = u64::try_from(request.range_id).ok().filter(|id| *id > 0);
        let range = range.ok_or_else(|| {
            Status::invalid_argument(format!("range_id must be positive; got {}", request.range_id))
        })?;
        let job = Enqueue {
            node: u32::try_from(request.node_id).ok().filter(|id| *id > 0).map(NodeId),
            queue: request.queue,
            range,
            skip_should_queue: request.skip_should_queue,
        };
        let mut runs = self.answer("EnqueueRange", |cluster, via| cluster.enqueue_range(via, &job)).await?;
        while runs.iter().any(|run| run.ended.is_none()) {
            self.front.hub().tick().await;
            let mut cluster = self.front.hub().cluster();
            runs.iter_mut().for_each(|run| cluster.enqueue_goes_on(run));
        }
        Ok(EnqueueRangeResponse { details: runs.into_iter().map(details).collect() })
    }

    /// What the model answers; a node that hangs answers when it no longer does.
    async fn answer<R>(
        &self,
        method: &str,
        mut ask: impl FnMut(&mut Cluster, &kwdb_scale_core::topology::Address) -> Result<R, RpcError>,
    ) -> Result<R, Status> {
        loop {
            let answer = ask(&mut self.front.hub().cluster(), self.front.address());
            match answer {
                Ok(answer) => return Ok(answer),
                Err(RpcError::Hang) => self.front.hub().tick().await,
                Err(error) => return Err(status(&error, method)),
            }
        }
    }
}

/// Ids of the wire, negative ones too, as numbers that no member has.
fn ids(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().map(|id| NodeId(u32::from_ne_bytes(id.to_ne_bytes()))).collect()
}

fn status(error: &RpcError, method: &str) -> Status {
    match error {
        RpcError::WaitingForInit => {
            Status::unavailable(format!("node waiting for init; /{SERVICE}/{method} not available"))
        }
        RpcError::Unreachable => Status::unavailable("transport is closing"),
        RpcError::UnknownNode { id, mark } => {
            let id = i32::from_ne_bytes(id.0.to_ne_bytes());
            Status::unknown(match method {
                "DecommissionStatus" => {
                    format!("unable to get liveness for {id}: node not in the liveness table")
                }
                _ => format!("during liveness update {id} -> {mark}: node not in the liveness table"),
            })
        }
        other => Status::unknown(other.to_string()),
    }
}

fn statuses(found: Vec<DecommissionStatus>) -> DecommissionStatusResponse {
    let status = found.into_iter().map(|status| NodeStatus {
        node_id: i32::try_from(status.node.0).unwrap_or(i32::MAX),
        is_live: status.is_live,
        replica_count: i64::try_from(status.replicas).unwrap_or(i64::MAX),
        decommissioning: status.decommissioning,
        draining: status.draining,
    });
    DecommissionStatusResponse { status: status.collect() }
}

fn details(run: EnqueueRun) -> EnqueueDetails {
    let event = |(at, message): (jiff::Timestamp, String)| TraceEvent {
        time: Some(Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }),
        message,
    };
    EnqueueDetails {
        node_id: i32::try_from(run.node.0).unwrap_or(i32::MAX),
        events: run.events.into_iter().map(event).collect(),
        error: run.ended.unwrap_or_default(),
    }
}

/// A method as tonic calls it.
struct Call<F>(F);

impl<F, Fut, Q, R> Service<tonic::Request<Q>> for Call<F>
where
    F: FnMut(Q) -> Fut,
    Fut: Future<Output = Result<R, Status>> + Send + 'static,
{
    type Response = tonic::Response<R>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(async move { answer.await.map(tonic::Response::new) })
    }
}
