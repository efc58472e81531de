//! One channel to one node: TCP, TLS where demanded, HTTP/2, and a first answer that shows who is there.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{PathAndQuery, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::topology::Address;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::config::{Builder, Secure, Security, host_and_port};
use crate::error::{Peer, Stage, cause};
use crate::messages::{HEALTH, HealthRequest, HealthResponse};

/// A ping that is not answered for so long ends a channel.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read: the trace of a run is tens of thousands of bytes.
const MAX_ANSWER: usize = 32 << 20;

/// How channels are made; shared by all.
pub(crate) struct Connector {
    tls: Option<(TlsConnector, Secure)>,
    connect_timeout: Duration,
    startup_timeout: Duration,
    keepalive: Duration,
}

impl Connector {
    /// The client certificate in PEM, read again.
    pub(crate) fn client_certificate(&self) -> Option<Vec<u8>> {
        let (certificate, _) = self.tls.as_ref()?.1.identity.as_ref()?;
        certificate.read("client certificate").ok()
    }

    pub(crate) fn new(builder: &Builder) -> Result<Self, PortError> {
        let tls = match &builder.security {
            Security::Insecure => None,
            Security::Secure(secure) => {
                let config = crate::tls::client_config(secure)?;
                Some((TlsConnector::from(Arc::new(config)), secure.clone()))
            }
        };
        Ok(Self {
            tls,
            connect_timeout: builder.connect_timeout,
            startup_timeout: builder.startup_timeout,
            keepalive: builder.keepalive,
        })
    }

    pub(crate) fn peer<'a>(&self, address: &'a Address) -> Peer<'a> {
        Peer { address, secure: self.tls.is_some() }
    }

    /// Connects and has the node say a first word, so that whatever is wrong with address, certificate or node is known
    /// before anything is asked of it.
    pub(crate) async fn connect(&self, address: &Address) -> Result<Channel, PortError> {
        let peer = self.peer(address);
        let stream = self.tcp(&peer, address).await?;
        let start = async {
            let channel = match &self.tls {
                None => self.http2(&peer, stream, "http").await?,
                Some((connector, secure)) => {
                    let name = secure.name_of(address);
                    let name = ServerName::try_from(name.to_owned()).map_err(|e| {
                        let text =
                            format!("'{name}' is no name that a certificate could be verified for: {e}");
                        peer.error(PortErrorKind::Config, text)
                    })?;
                    let stream = connector.connect(name, stream).await.map_err(|e| of_handshake(&peer, e))?;
                    self.http2(&peer, stream, "https").await?
                }
            };
            let mut grpc = channel.grpc();
            grpc.ready().await.map_err(|e| peer.of_transport(Stage::Connecting, e))?;
            let codec = ProstCodec::<HealthRequest, HealthResponse>::default();
            let request = tonic::Request::new(HealthRequest { ready: false });
            let greeted = grpc.unary(request, PathAndQuery::from_static(HEALTH), codec).await;
            greeted.map_err(|status| peer.of_status(Stage::Connecting, status))?;
            Ok(channel)
        };
        // TCP has its own timeout, so what ends here is a node that took the connection.
        timeout(self.startup_timeout, start).await.unwrap_or_else(|_| {
            let text = format!(
                "the node took the connection and then said nothing for {} s (it hangs, or this is not its RPC address)",
                self.startup_timeout.as_secs_f32()
            );
            Err(peer.error(PortErrorKind::Deadline, text))
        })
    }

    async fn tcp(&self, peer: &Peer<'_>, address: &Address) -> Result<TcpStream, PortError> {
        let (host, port) = host_and_port(address)?;
        let connect = async {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for found in tokio::net::lookup_host((host, port)).await? {
                match TcpStream::connect(found).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let no_answer = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        let stream = timeout(self.connect_timeout, connect).await.unwrap_or_else(no_answer).map_err(|e| {
            let text = format!("cannot connect: {e} (is the node up, and is this its RPC address?)");
            peer.error(PortErrorKind::Unreachable, text).with_source(e)
        })?;
        // Only a matter of latency.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Whether something takes connections at an address: not when the host itself refuses. Anything else tells nothing.
    pub(crate) async fn is_open(&self, address: &Address, within: Duration) -> Result<bool, PortError> {
        let peer = self.peer(address);
        match timeout(within, self.tcp(&peer, address)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(e)) if is_refused(&e) => Ok(false),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(peer.error(PortErrorKind::Unreachable, "cannot connect: no answer in time")),
        }
    }

    async fn http2<S>(&self, peer: &Peer<'_>, stream: S, scheme: &str) -> Result<Channel, PortError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let origin =
            Uri::builder().scheme(scheme).authority(peer.address.as_str()).path_and_query("/").build();
        let origin = origin.map_err(|e| peer.error(PortErrorKind::Config, format!("no RPC address: {e}")))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(self.keepalive)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| peer.of_transport(Stage::Connecting, e))?;
        let address = peer.address.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, error = &error as &dyn Error, "RPC channel ended");
            }
        });
        Ok(Channel { sender, origin, task: Arc::new(Task(task)) })
    }
}

/// Whether nothing listens at an address: the host itself refused the connection.
pub(crate) fn is_refused(error: &PortError) -> bool {
    error.kind() == PortErrorKind::Unreachable
        && cause::<io::Error>(error).is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

fn of_handshake(peer: &Peer<'_>, error: io::Error) -> PortError {
    if cause::<rustls::Error>(&error).is_some() {
        return peer.of_transport(Stage::Connecting, error);
    }
    let text = format!(
        "the connection ended during the TLS handshake: {error} (is this an insecure cluster, or another port?)"
    );
    peer.error(PortErrorKind::Tls, text).with_source(error)
}

/// The task that moves a channel's bytes. Ends with the last call that uses it.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An HTTP/2 connection on which calls run side by side.
#[derive(Clone)]
pub(crate) struct Channel {
    sender: http2::SendRequest<Body>,
    origin: Uri,
    task: Arc<Task>,
}

impl Channel {
    pub(crate) fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.task.0.is_finished()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.task, &other.task)
    }

    pub(crate) fn grpc(&self) -> Grpc<Self> {
        Grpc::with_origin(self.clone(), self.origin.clone()).max_decoding_message_size(MAX_ANSWER)
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
