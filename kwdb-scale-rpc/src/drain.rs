//! Draining and ending a node.

use std::time::Duration;

use http::uri::PathAndQuery;
use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::topology::Address;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::client::{AdminRpc, LONGEST};
use crate::connection::Channel;
use crate::error::{Stage, is_loss, is_overload, one_line};
use crate::messages::{DRAIN, DrainRequest, DrainResponse};

/// Between two calls: a server that had nothing to do for a call comes back at once.
const PAUSE: Duration = Duration::from_millis(100);

/// How far a drain is, as the node says itself.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DrainProgress {
    /// Whether it has begun to drain: it refuses new clients.
    pub is_draining: bool,
    /// What there was to do when the call began (clients, leases, its liveness record). Zero after a call that drained
    /// is drained; zero of a mere question says nothing.
    pub remaining: u64,
    /// The same in words, such as `liveness record: 1, range lease iterations: 23`.
    pub description: String,
}

impl AdminRpc {
    /// Asks how far a drain is, without beginning one. Only reads.
    pub async fn drain_progress(
        &self,
        node: &Address,
        deadline: Duration,
    ) -> Result<DrainProgress, PortError> {
        self.drain_once(node, false, deadline).await
    }

    /// Makes the node at the RPC address `node` refuse new clients and hand over its leases, until nothing remains, and
    /// tells each step. Cannot be undone without a restart; may be repeated.
    ///
    /// A call of the server takes a second, or ten more while clients have transactions open. When something remains at
    /// the deadline the error is [`Deadline`](PortErrorKind::Deadline) and says what; the node goes on draining.
    pub async fn drain(
        &self,
        node: &Address,
        deadline: Duration,
        mut progress: impl FnMut(&DrainProgress) + Send,
    ) -> Result<(), PortError> {
        let end = Instant::now() + deadline.min(LONGEST);
        let left = || end.saturating_duration_since(Instant::now());
        progress(&self.drain_progress(node, left()).await?);
        loop {
            let now = self.drain_once(node, true, left()).await?;
            tracing::debug!(%node, remaining = now.remaining, what = now.description, "draining");
            progress(&now);
            if now.remaining == 0 {
                return Ok(());
            }
            if left() <= PAUSE {
                let text = format!(
                    "the node was not drained within {} s; {} remain ({}): look for clients with open transactions, and \
                     for ranges without a quorum",
                    deadline.as_secs_f32(),
                    now.remaining,
                    now.description
                );
                return Err(self.connector().peer(node).error(PortErrorKind::Deadline, text));
            }
            sleep(PAUSE).await;
        }
    }

    /// Ends the process of the node at the RPC address `node`, drained or not.
    ///
    /// A node that goes closes the connection without an answer, so a connection that ends after the request was sent is
    /// `Ok`: that the node is gone is to be proven by the cluster and by its port. Errors before that are of a node to
    /// which nothing was said.
    pub async fn shutdown(&self, node: &Address, deadline: Duration) -> Result<(), PortError> {
        let peer = self.connector().peer(node);
        let run = async {
            let (channel, kept) = self.channel(node).await?;
            let said = self.send_shutdown(&channel).await;
            self.forget(node, &channel);
            match said {
                Err(NotSent) if kept => {
                    // It had died before; now it is known whether the node is there.
                    let (channel, _) = self.channel(node).await?;
                    let said = self.send_shutdown(&channel).await;
                    self.forget(node, &channel);
                    said.unwrap_or(Ok(()))
                }
                said => said.unwrap_or(Ok(())),
            }
            .map_err(|status| peer.of_status(Stage::Calling, status))
        };
        timeout(deadline, run).await.unwrap_or_else(|_| {
            let text = format!("the node did not go within {} s of being told to", deadline.as_secs_f32());
            Err(peer.error(PortErrorKind::Deadline, text))
        })
    }

    /// The outer error: the channel was dead already.
    async fn send_shutdown(&self, channel: &Channel) -> Result<Result<(), Status>, NotSent> {
        let mut grpc = channel.grpc();
        grpc.ready().await.map_err(|_| NotSent)?;
        let request = DrainRequest { shutdown: true, do_drain: false };
        let codec = ProstCodec::<DrainRequest, DrainResponse>::default();
        let answer = grpc
            .server_streaming(tonic::Request::new(request), PathAndQuery::from_static(DRAIN), codec)
            .await;
        let ended = match answer {
            Ok(answer) => last(answer.into_inner()).await.map(drop),
            Err(status) => Err(status),
        };
        Ok(ended.or_else(|status| if is_loss(&status) { Ok(()) } else { Err(status) }))
    }

    /// One call; a second one when a channel that was kept turns out to have died.
    async fn drain_once(
        &self,
        node: &Address,
        do_drain: bool,
        limit: Duration,
    ) -> Result<DrainProgress, PortError> {
        let peer = self.connector().peer(node);
        let end = Instant::now() + limit.min(LONGEST);
        let run = async {
            let mut again = true;
            loop {
                let (channel, kept) = self.channel(node).await?;
                let left = end.saturating_duration_since(Instant::now());
                let status = match drain_call(&channel, do_drain, left).await {
                    Ok(Some(last)) => return Ok(read(last)),
                    Ok(None) => {
                        let text = "the answer to a drain holds no message";
                        return Err(peer.error(PortErrorKind::Malformed, text));
                    }
                    Err(status) => status,
                };
                if is_loss(&status) {
                    self.forget(node, &channel);
                    if kept && std::mem::take(&mut again) {
                        continue;
                    }
                } else if is_overload(&status) && end > Instant::now() + PAUSE {
                    sleep(PAUSE).await;
                    continue;
                }
                return Err(peer.of_status(Stage::Calling, status));
            }
        };
        timeout(limit, run).await.unwrap_or_else(|_| {
            let text = format!("the call to drain did not come back within {} s", limit.as_secs_f32());
            Err(peer.error(PortErrorKind::Deadline, text))
        })
    }
}

/// The channel had died before the request was sent.
struct NotSent;

async fn drain_call(
    channel: &Channel,
    do_drain: bool,
    limit: Duration,
) -> Result<Option<DrainResponse>, Status> {
    let mut grpc = channel.grpc();
    grpc.ready().await.map_err(|e| Status::from_error(Box::new(e)))?;
    let mut request = tonic::Request::new(DrainRequest { shutdown: false, do_drain });
    request.set_timeout(limit);
    let codec = ProstCodec::<DrainRequest, DrainResponse>::default();
    let answer = grpc.server_streaming(request, PathAndQuery::from_static(DRAIN), codec).await?;
    last(answer.into_inner()).await
}

/// The last message of a stream that ended well.
async fn last(mut stream: Streaming<DrainResponse>) -> Result<Option<DrainResponse>, Status> {
    let mut last = None;
    while let Some(message) = stream.message().await? {
        last = Some(message);
    }
    Ok(last)
}

fn read(response: DrainResponse) -> DrainProgress {
    DrainProgress {
        is_draining: response.is_draining,
        remaining: response.drain_remaining_indicator,
        description: one_line(&response.drain_remaining_description),
    }
}
