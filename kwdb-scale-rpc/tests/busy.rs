//! Servers that are too busy, break off, hang, or are none: what a KWDB does only in bad moments.
#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod twin;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kwdb_scale_core::ports::{DecommissionControl, Enqueued, PortErrorKind, ReplicateQueue};
use kwdb_scale_core::topology::RangeId;
use kwdb_scale_core::topology::{Address, NodeId};
use kwdb_scale_rpc::messages::{EnqueueDetails, EnqueueRangeResponse};
use kwdb_scale_rpc::{AdminRpc, EnqueueRange};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::{Code, Status};
use twin::{DEADLINE, fails, gateway, hasty, insecure};

/// What a call other than the greeting is answered with.
#[derive(Clone, Copy)]
enum Say {
    Code(Code, &'static str),
    /// The status of node 4, encoded.
    FourIsEmpty,
    /// To a range that was sent to node 4: this error.
    Enqueued(&'static str),
    /// The connection ends.
    Cut,
    Hang,
}

struct Fake {
    address: Address,
    connections: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Fake {
    /// Says one after the other, and the last one for ever.
    async fn start(says: Vec<Say>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new(listener.local_addr().unwrap().to_string());
        let (connections, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let fake = Self { address, connections: Arc::clone(&connections), calls: Arc::clone(&calls) };
        let says = Arc::new(Mutex::new(VecDeque::from(says)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (says, calls, cut) = (Arc::clone(&says), Arc::clone(&calls), Arc::new(Notify::new()));
                let also = Arc::clone(&cut);
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (says, calls, cut) = (Arc::clone(&says), Arc::clone(&calls), Arc::clone(&also));
                    async move {
                        if request.uri().path().ends_with("/Health") {
                            return Ok::<_, Infallible>(message(&[]));
                        }
                        calls.fetch_add(1, Ordering::SeqCst);
                        let say = {
                            let mut says = says.lock().unwrap();
                            if says.len() > 1 { says.pop_front().unwrap() } else { says[0] }
                        };
                        match say {
                            Say::Code(code, text) => Ok(Status::new(code, text).into_http()),
                            Say::FourIsEmpty => Ok(message(&[0x12, 4, 0x08, 4, 0x10, 1])),
                            Say::Enqueued(error) => {
                                let error = error.to_owned();
                                let details = EnqueueDetails { node_id: 4, error, ..Default::default() };
                                Ok(message(&EnqueueRangeResponse { details: vec![details] }.encode_to_vec()))
                            }
                            Say::Cut => {
                                cut.notify_one();
                                std::future::pending().await
                            }
                            Say::Hang => std::future::pending().await,
                        }
                    }
                });
                tokio::spawn(async move {
                    let served = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        _ = served => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        fake
    }

    fn counts(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.calls.load(Ordering::SeqCst))
    }
}

/// A message and `grpc-status: 0` in the headers' place, which gRPC allows only without a body: in trailers here.
fn message(bytes: &[u8]) -> http::Response<Body> {
    let mut framed = vec![0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()];
    framed.extend_from_slice(bytes);
    let body = Body::new(Framed(Some(framed), false));
    http::Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// A body of one frame, and trailers that say OK.
struct Framed(Option<Vec<u8>>, bool);

impl hyper::body::Body for Framed {
    type Data = hyper::body::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Infallible>>> {
        if let Some(bytes) = self.0.take() {
            return std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes.into()))));
        }
        if std::mem::replace(&mut self.1, true) {
            return std::task::Poll::Ready(None);
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::trailers(trailers))))
    }
}

const BUSY: Say = Say::Code(Code::Unknown, "aborted during DistSender.Send: context deadline exceeded");
const LATE: Say = Say::Code(Code::DeadlineExceeded, "context deadline exceeded");

#[tokio::test]
async fn a_busy_server_is_asked_again_within_the_deadline() {
    let fake = Fake::start(vec![BUSY, LATE, Say::FourIsEmpty]).await;
    let rpc = insecure();
    let via = gateway(1, &fake.address);
    let status = rpc.status(&via, &[NodeId(4)], DEADLINE).await.unwrap().unwrap();
    assert_eq!((status[0].node, status[0].is_live, status[0].replicas), (NodeId(4), true, 0));
    assert_eq!(fake.counts(), (1, 3), "one channel, three attempts");

    let fake = Fake::start(vec![BUSY]).await;
    let begun = Instant::now();
    let error = fails(rpc.mark(&gateway(1, &fake.address), &[NodeId(4)], Duration::from_millis(900)).await);
    assert_eq!(error.kind(), PortErrorKind::Deadline, "{error}");
    assert!(error.to_string().contains("tried") && error.chain().contains("DistSender"), "{}", error.chain());
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(fake.counts().1 > 2, "{:?}", fake.counts());
}

#[tokio::test]
async fn one_that_hangs_is_asked_again_on_another_channel() {
    let fake = Fake::start(vec![Say::Hang, Say::FourIsEmpty]).await;
    let rpc = AdminRpc::builder().attempt_timeout(Duration::from_millis(200)).build().unwrap();
    rpc.status(&gateway(1, &fake.address), &[NodeId(4)], DEADLINE).await.unwrap();
    assert_eq!(fake.counts(), (2, 2));

    let fake = Fake::start(vec![Say::Hang]).await;
    let error = fails(rpc.status(&gateway(1, &fake.address), &[NodeId(4)], Duration::from_millis(500)).await);
    assert_eq!(error.kind(), PortErrorKind::Deadline);
    // A range that moves slowly is not sent twice.
    let fake = Fake::start(vec![Say::Hang]).await;
    let job = EnqueueRange::replicate(NodeId(1), RangeId(7));
    let error = fails(rpc.enqueue_range(&gateway(1, &fake.address), &job, Duration::from_millis(500)).await);
    assert_eq!((error.kind(), fake.counts()), (PortErrorKind::Deadline, (1, 1)));
}

#[tokio::test]
async fn a_connection_cut_in_a_call_may_have_done_it() {
    let fake = Fake::start(vec![Say::FourIsEmpty, Say::Cut]).await;
    let (rpc, via) = (insecure(), gateway(1, &fake.address));
    // The proof is answered, then the mark is cut: on the channel that was there, and once more on a new one.
    let error = fails(rpc.mark(&via, &[NodeId(4)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::ConnectionLost, "{}", error.chain());
    assert!(error.kind().may_have_been_done());
    assert_eq!(fake.counts(), (2, 3));
}

#[tokio::test]
async fn a_shutdown_is_a_connection_that_ends() {
    let rpc = insecure();
    let fake = Fake::start(vec![Say::Cut]).await;
    rpc.shutdown(&fake.address, DEADLINE).await.unwrap();
    assert_eq!(fake.counts(), (1, 1), "sent once");
    let fake = Fake::start(vec![Say::Code(Code::Unavailable, "transport is closing")]).await;
    rpc.shutdown(&fake.address, DEADLINE).await.unwrap();
    let waits = "node waiting for init; /kwbase.server.serverpb.Admin/Drain not available";
    let fake = Fake::start(vec![Say::Code(Code::Unavailable, waits)]).await;
    let error = fails(rpc.shutdown(&fake.address, DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::NotInitialised, "{error}");
    let fake = Fake::start(vec![Say::Hang]).await;
    let error = fails(rpc.shutdown(&fake.address, Duration::from_millis(300)).await);
    assert_eq!(error.kind(), PortErrorKind::Deadline, "{error}");
}

/// What a node says of a range that it was sent, in the words of a KWDB V3.2.1, and what is made of it: those that the
/// simulated cluster says, and those that only a busy one does.
#[tokio::test]
async fn what_becomes_of_a_range_is_told_by_the_nodes_words() {
    let no_place =
        "0 of 2 live stores are able to take a new replica for the range (2 already have a replica)";
    let rows = [
        ("", "processed"),
        ("n4 has no replica for r48", "stale"),
        ("replica [n2,s2,r20/3:/Table/{20-21}] does not have the range lease", "stale"),
        ("change replicas of r229 failed: target n3,s3 not found", "raced"),
        (
            "change replicas of r231 failed: descriptor changed: [expected] r231:/Table/78/1/13{700-800}",
            "raced",
        ),
        (no_place, "failed"),
        ("unknown queue type \"replicat\"", "failed"),
        ("failed to dial into node 4 (UNAVAILABLE): initial connection heartbeat failed", "unreachable"),
        ("aborted during DistSender.Send: context deadline exceeded", "cut off"),
        ("context canceled", "cut off"),
    ];
    for (words, outcome) in rows {
        let fake = Fake::start(vec![Say::Enqueued(words)]).await;
        let via = gateway(1, &fake.address);
        let (is, text) = match insecure().enqueue(&via, NodeId(4), RangeId(7), DEADLINE).await {
            Ok(Enqueued::Processed) => ("processed", String::new()),
            Ok(Enqueued::Stale(text)) => ("stale", text),
            Ok(Enqueued::Raced(text)) => ("raced", text),
            Ok(Enqueued::Failed(text)) => ("failed", text),
            Err(e) if e.kind() == PortErrorKind::Unreachable => ("unreachable", e.to_string()),
            Err(e) if e.kind() == PortErrorKind::Deadline => ("cut off", e.to_string()),
            other => panic!("{words}: {other:?}"),
        };
        assert_eq!((is, text.as_str()), (outcome, words), "the server's own words are kept");
    }
}

#[tokio::test]
async fn words_that_nobody_has_seen_are_passed_on() {
    let fake = Fake::start(vec![Say::Code(Code::Unknown, "raft: stopped")]).await;
    let error = fails(insecure().status(&gateway(1, &fake.address), &[NodeId(4)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::Other, "{error}");
    assert!(error.to_string().contains("raft: stopped [UNKNOWN]"), "{error}");
    let fake = Fake::start(vec![Say::Code(Code::Unavailable, "node is shutting down")]).await;
    let error = fails(insecure().status(&gateway(1, &fake.address), &[NodeId(4)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::ShuttingDown, "{error}");
}

#[tokio::test]
async fn channels_are_bounded() {
    let rpc = AdminRpc::builder().max_channels(1).build().unwrap();
    let (one, other) = (Fake::start(vec![Say::FourIsEmpty]).await, Fake::start(vec![Say::FourIsEmpty]).await);
    for fake in [&one, &one, &other, &one] {
        rpc.status(&gateway(1, &fake.address), &[NodeId(4)], DEADLINE).await.unwrap();
    }
    assert_eq!((one.counts(), other.counts()), ((2, 3), (1, 1)));
}

#[tokio::test]
async fn what_is_no_rpc_port_is_said_to_be_none() {
    // An HTTP/1 server, one that says nothing, and one that answers with a method it does not have.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = Address::new(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 24];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let error = fails(hasty().status(&gateway(1, &http), &[NodeId(4)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::Malformed, "{}", error.chain());
    assert!(error.to_string().contains("RPC address"), "{error}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new(silent.local_addr().unwrap().to_string());
    let error = fails(hasty().status(&gateway(1, &address), &[NodeId(4)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::Deadline, "{error}");
    assert!(error.to_string().contains("said nothing"), "{error}");

    let fake = Fake::start(vec![Say::Code(Code::Unimplemented, "unknown method Decommission")]).await;
    let error = fails(hasty().status(&gateway(1, &fake.address), &[NodeId(4)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::Unsupported, "{error}");

    for bad in ["10.0.0.1", "", ":26257", "10.0.0.1:0", "http://10.0.0.1:26257"] {
        let error = fails(hasty().status(&gateway(1, &Address::new(bad)), &[NodeId(4)], DEADLINE).await);
        assert_eq!(error.kind(), PortErrorKind::Config, "{bad}: {error}");
    }
}
