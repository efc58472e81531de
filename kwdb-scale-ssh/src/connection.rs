//! One connection to one host: handshake, login, channels.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use russh::client::{self, DisconnectReason, Handle, Msg};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Preferred};
use tokio::io::BufReader;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;

use crate::config::{SshHost, SshLimits};
use crate::error::{HandshakeError, blocking, unreachable};
use crate::host_keys::HostCheck;
use crate::keys::Keys;
use crate::login::log_in;
use crate::stream::QuickStream;

/// Signs of life that may go unanswered.
const UNANSWERED: usize = 3;
/// Sessions kept for ending commands when every other is taken by one.
const SPARE: usize = 2;
/// Between two tries to open a session when the server allows no more.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);
/// For the server's words on a refusal, which come right behind it.
const WORDS_PATIENCE: Duration = Duration::from_secs(5);

/// A connection that is logged in. Dropping the last handle closes it.
pub(crate) struct Connection {
    handle: Handle<Client>,
    shown: String,
    sessions: Arc<Semaphore>,
    /// See [`SPARE`].
    spare: Arc<Semaphore>,
    /// One at a time: what the server says of a refused forwarding does not say which one it was.
    forwarding: Mutex<mpsc::UnboundedReceiver<String>>,
    retired: AtomicBool,
    lost: Arc<StdMutex<Option<String>>>,
    /// The connection through which this one goes.
    _via: Option<Arc<Connection>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("to", &self.shown).finish_non_exhaustive()
    }
}

/// Why no channel was opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The connection is no longer there. Nothing was asked of the host.
    Gone,
    /// The server refused.
    Refused(PortError),
}

/// An open session and the right to have it.
pub(crate) struct Session {
    pub(crate) channel: Channel<Msg>,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What became of an attempt to connect from the host to somewhere else.
pub(crate) enum Forwarding {
    Open(Channel<Msg>),
    /// In the server's words.
    Failed(String),
}

impl Connection {
    /// Speaks over the stream, which may go through `via`, and logs in. Dropping the future gives it up.
    pub(crate) async fn open(
        host: &SshHost,
        stream: Stream,
        via: Option<Arc<Connection>>,
        limits: &SshLimits,
        keys: &Keys,
    ) -> Result<Arc<Self>, PortError> {
        let loading = host.clone();
        let check = blocking(move || HostCheck::load(&loading)).await?;
        let config = Arc::new(configuration(&check, limits));
        let (words, forwarding) = mpsc::unbounded_channel();
        let lost = Arc::new(StdMutex::new(None));
        let client = Client { check, words, lost: Arc::clone(&lost) };
        let shown = host.shown();
        let handshake = match stream {
            Stream::Tcp(stream) => client::connect_stream(config, stream, client).await,
            Stream::Through(channel) => client::connect_stream(config, channel.into_stream(), client).await,
        };
        let mut handle = handshake.map_err(|e| e.into_port_error(&shown))?;
        log_in(&mut handle, host, keys).await?;
        tracing::debug!(host = shown, user = host.user, "connected");
        Ok(Arc::new(Self {
            handle,
            shown,
            sessions: Arc::new(Semaphore::new(limits.sessions)),
            spare: Arc::new(Semaphore::new(SPARE)),
            forwarding: Mutex::new(forwarding),
            retired: AtomicBool::new(false),
            lost,
            _via: via,
        }))
    }

    /// Whether new work may go over it.
    pub(crate) fn is_usable(&self) -> bool {
        !self.handle.is_closed() && !self.retired.load(Ordering::Relaxed)
    }

    /// Takes no new work from now on; what goes over it is not touched.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// The error of a loss in the middle of `what`.
    pub(crate) fn lost(&self, what: &str) -> PortError {
        let why = self.lost.lock().ok().and_then(|lost| lost.clone());
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        PortError::new(
            PortErrorKind::ConnectionLost,
            format!("the connection to '{}' was lost{why} in the middle of {what}", self.shown),
        )
    }

    /// Opens a session, after waiting for one to be free.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Session, OpenError> {
        self.session_of(&self.sessions).await
    }

    /// The same from the small number kept for ending commands.
    pub(crate) async fn spare_session(self: &Arc<Self>) -> Result<Session, OpenError> {
        self.session_of(&self.spare).await
    }

    async fn session_of(self: &Arc<Self>, of: &Arc<Semaphore>) -> Result<Session, OpenError> {
        let permit = Arc::clone(of).acquire_owned().await.map_err(|_| OpenError::Gone)?;
        loop {
            let connection = Arc::clone(self);
            let opening = Opening::start(async move { connection.handle.channel_open_session().await });
            match opening.channel().await {
                Ok(channel) => return Ok(Session { channel, permit }),
                Err(russh::Error::ChannelOpenFailure(
                    ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage,
                )) => {
                    tracing::debug!(host = self.shown, "the server allows no more sessions for now");
                    sleep(CROWDED_PAUSE).await;
                }
                Err(russh::Error::ChannelOpenFailure(failure)) => {
                    return Err(OpenError::Refused(PortError::new(
                        PortErrorKind::Denied,
                        format!("'{}' refused to open a session: {}", self.shown, failure.description()),
                    )));
                }
                Err(_) => return Err(OpenError::Gone),
            }
        }
    }

    /// Asks the host to connect to `address`. A caller that goes away before the answer must
    /// [`retire`](Self::retire) the connection, because the answer that is still to come would be taken for that to
    /// the next question.
    pub(crate) async fn forward(self: &Arc<Self>, address: &str, port: u16) -> Result<Forwarding, OpenError> {
        let mut words = self.forwarding.lock().await;
        while words.try_recv().is_ok() {}
        let (connection, to) = (Arc::clone(self), address.to_owned());
        let opening = Opening::start(async move {
            connection.handle.channel_open_direct_tcpip(to, port.into(), "127.0.0.1", 0).await
        });
        match opening.channel().await {
            Ok(channel) => Ok(Forwarding::Open(channel)),
            Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed)) => {
                let words = tokio::time::timeout(WORDS_PATIENCE, words.recv()).await;
                Ok(Forwarding::Failed(words.ok().flatten().unwrap_or_default()))
            }
            Err(russh::Error::ChannelOpenFailure(failure)) => Err(OpenError::Refused(PortError::new(
                PortErrorKind::Unsupported,
                format!(
                    "'{}' does not connect to other addresses for us ({}): allow it in its sshd_config \
                     (AllowTcpForwarding, PermitOpen), or, for probes, install bash",
                    self.shown,
                    failure.description()
                ),
            ))),
            Err(_) => Err(OpenError::Gone),
        }
    }

    /// A stream through this connection to the next host.
    pub(crate) async fn tunnel(self: &Arc<Self>, host: &SshHost) -> Result<Stream, PortError> {
        // Retires the jump connection unless it answers, as `forward` demands.
        let mut pending = Pending { connection: self, answered: false };
        let result = self.forward(&host.address, host.port).await;
        pending.answered = true;
        match result {
            Ok(Forwarding::Open(channel)) => Ok(Stream::Through(channel)),
            Ok(Forwarding::Failed(words)) => Err(unreachable(format!(
                "'{}' cannot be reached from '{}': {}",
                host.shown(),
                self.shown,
                if words.is_empty() { "connect failed" } else { &words }
            ))),
            Err(OpenError::Refused(error)) => Err(error),
            Err(OpenError::Gone) => {
                Err(unreachable(format!("the connection to the jump host '{}' was lost", self.shown)))
            }
        }
    }
}

/// Retires a connection whose answer was not waited for.
pub(crate) struct Pending<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) answered: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.retire();
        }
    }
}

/// A channel that is being opened, in a task of its own. When the caller goes away, one stays that closes it.
struct Opening(Option<tokio::task::JoinHandle<Result<Channel<Msg>, russh::Error>>>);

impl Opening {
    fn start(opening: impl Future<Output = Result<Channel<Msg>, russh::Error>> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(opening)))
    }

    async fn channel(mut self) -> Result<Channel<Msg>, russh::Error> {
        let result = match self.0.as_mut() {
            Some(opening) => opening.await.unwrap_or(Err(russh::Error::Disconnect)),
            None => Err(russh::Error::Disconnect),
        };
        self.0 = None;
        result
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let (Some(opening), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Ok(Ok(channel)) = opening.await {
                    let _ = channel.close().await;
                }
            });
        }
    }
}

/// What a connection is spoken over.
pub(crate) enum Stream {
    Tcp(BufReader<QuickStream>),
    Through(Channel<Msg>),
}

/// Connects to a host that is reached directly.
pub(crate) async fn dial(host: &SshHost) -> Result<Stream, PortError> {
    QuickStream::connect(&host.address, host.port)
        .await
        .map(Stream::Tcp)
        .map_err(|e| unreachable(format!("nobody answers at '{}'", host.shown())).with_source(e))
}

fn configuration(check: &HostCheck, limits: &SshLimits) -> client::Config {
    let keys = check.algorithms();
    let certificates = if check.certificates() { keys.clone() } else { Vec::new() };
    client::Config {
        preferred: Preferred {
            key: Cow::Owned(keys),
            host_key_certificates: Cow::Owned(certificates),
            compression: Cow::Borrowed(&[russh::compression::NONE]),
            // The library's lists of the rest hold nothing with CBC, SHA-1 or small groups.
            ..Preferred::DEFAULT
        },
        nodelay: true,
        keepalive_interval: Some(limits.keepalive),
        keepalive_max: UNANSWERED,
        ..client::Config::default()
    }
}

/// Our side of the protocol.
#[derive(Debug)]
pub(crate) struct Client {
    check: HostCheck,
    words: mpsc::UnboundedSender<String>,
    lost: Arc<StdMutex<Option<String>>>,
}

impl client::Handler for Client {
    type Error = HandshakeError;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, HandshakeError> {
        self.check.check(presented).map(|()| true).map_err(HandshakeError::Refused)
    }

    async fn channel_open_failure(
        &mut self,
        _: ChannelId,
        _: ChannelOpenFailure,
        description: &str,
        _: &str,
        _: &mut client::Session,
    ) -> Result<(), HandshakeError> {
        let _ = self.words.send(description.chars().filter(|c| !c.is_control()).take(200).collect());
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<HandshakeError>) -> Result<(), HandshakeError> {
        let why = match reason {
            DisconnectReason::ReceivedDisconnect(info)
                if matches!(info.reason_code, Disconnect::ByApplication) =>
            {
                "the server ended it".to_owned()
            }
            DisconnectReason::ReceivedDisconnect(info) => {
                format!("the server ended it: {:?}", info.reason_code)
            }
            DisconnectReason::Error(HandshakeError::Ssh(e)) => e.to_string(),
            DisconnectReason::Error(HandshakeError::Refused(e)) => e.to_string(),
        };
        tracing::debug!(why, "disconnected");
        if let Ok(mut lost) = self.lost.lock() {
            *lost = Some(why);
        }
        Ok(())
    }
}
