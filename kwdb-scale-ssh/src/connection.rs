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
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

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
/// For the server's words on a refusal to be taken, which is a matter of two tasks of this process.
const WORDS_PATIENCE: Duration = Duration::from_secs(5);

/// A connection that is logged in. Dropping the last handle closes it.
pub(crate) struct Connection {
    handle: Handle<Client>,
    shown: String,
    sessions: Arc<Semaphore>,
    /// See [`SPARE`].
    spare: Arc<Semaphore>,
    refusals: Mutex<mpsc::UnboundedReceiver<Words>>,
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

/// What the server says of a refusal. The library does not tell to which of the channels being opened it belongs, and
/// goes on to the next message once it was taken: so it belongs to the one that was refused just now.
#[derive(Debug)]
struct Words {
    text: String,
    _taken: oneshot::Sender<()>,
}

/// A refusal to open a channel, and the server's words.
type Refusal = (russh::Error, String);

/// Why no channel was opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The connection is no longer there. Nothing was asked of the host.
    Gone,
    /// The server refused.
    Refused(PortError),
}

/// Why there is no connection. Nothing was done on the host.
#[derive(Debug)]
pub(crate) enum NotConnected {
    /// The server closed before the keys were exchanged; it may let the next one in.
    TurnedAway(PortError),
    Failed(PortError),
}

impl NotConnected {
    pub(crate) fn into_error(self) -> PortError {
        match self {
            Self::TurnedAway(error) | Self::Failed(error) => error,
        }
    }
}

impl From<PortError> for NotConnected {
    fn from(error: PortError) -> Self {
        Self::Failed(error)
    }
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
    ) -> Result<Arc<Self>, NotConnected> {
        let loading = host.clone();
        let check = blocking(move || HostCheck::load(&loading)).await?;
        let config = Arc::new(configuration(&check, limits));
        let (words, refusals) = mpsc::unbounded_channel();
        let lost = Arc::new(StdMutex::new(None));
        let client = Client { check, words, lost: Arc::clone(&lost) };
        let shown = host.shown();
        let handshake = match stream {
            Stream::Tcp(stream) => client::connect_stream(config, stream, client).await,
            Stream::Through(channel) => client::connect_stream(config, channel.into_stream(), client).await,
        };
        let mut handle = handshake.map_err(|e| e.into_not_connected(&shown))?;
        log_in(&mut handle, host, keys).await?;
        tracing::debug!(host = shown, user = host.user, "connected");
        Ok(Arc::new(Self {
            handle,
            shown,
            sessions: Arc::new(Semaphore::new(limits.sessions)),
            spare: Arc::new(Semaphore::new(SPARE)),
            refusals: Mutex::new(refusals),
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
            let opening = Opening::start(self, |c| async move { c.handle.channel_open_session().await });
            match opening.channel().await {
                Ok(channel) => return Ok(Session { channel, permit }),
                Err((
                    russh::Error::ChannelOpenFailure(
                        ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage,
                    ),
                    _,
                )) => {
                    tracing::debug!(host = self.shown, "the server allows no more sessions for now");
                    sleep(CROWDED_PAUSE).await;
                }
                Err((russh::Error::ChannelOpenFailure(failure), _)) => {
                    return Err(OpenError::Refused(PortError::new(
                        PortErrorKind::Denied,
                        format!("'{}' refused to open a session: {}", self.shown, failure.description()),
                    )));
                }
                Err(_) => return Err(OpenError::Gone),
            }
        }
    }

    /// Asks the host to connect to `address`. Any number may be asked at once: one address that does not answer keeps
    /// no other waiting.
    pub(crate) async fn forward(self: &Arc<Self>, address: &str, port: u16) -> Result<Forwarding, OpenError> {
        let to = address.to_owned();
        let opening = Opening::start(self, move |c| async move {
            c.handle.channel_open_direct_tcpip(to, port.into(), "127.0.0.1", 0).await
        });
        match opening.channel().await {
            Ok(channel) => Ok(Forwarding::Open(channel)),
            Err((russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed), words)) => {
                Ok(Forwarding::Failed(words))
            }
            Err((russh::Error::ChannelOpenFailure(failure), _)) => Err(OpenError::Refused(PortError::new(
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
        match self.forward(&host.address, host.port).await {
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

/// A channel that is being opened, in a task of its own. When the caller goes away, one stays that closes it.
struct Opening(Option<tokio::task::JoinHandle<Result<Channel<Msg>, Refusal>>>);

impl Opening {
    fn start<F>(connection: &Arc<Connection>, open: impl FnOnce(Arc<Connection>) -> F) -> Self
    where
        F: Future<Output = Result<Channel<Msg>, russh::Error>> + Send + 'static,
    {
        let connection = Arc::clone(connection);
        let opening = open(Arc::clone(&connection));
        Self(Some(tokio::spawn(async move {
            match opening.await {
                Ok(channel) => Ok(channel),
                Err(e @ russh::Error::ChannelOpenFailure(_)) => {
                    let mut refusals = connection.refusals.lock().await;
                    let words = timeout(WORDS_PATIENCE, refusals.recv()).await;
                    Err((e, words.ok().flatten().map(|words| words.text).unwrap_or_default()))
                }
                Err(e) => Err((e, String::new())),
            }
        })))
    }

    async fn channel(mut self) -> Result<Channel<Msg>, Refusal> {
        let result = match self.0.as_mut() {
            Some(opening) => opening.await.ok(),
            None => None,
        };
        self.0 = None;
        result.unwrap_or_else(|| Err((russh::Error::Disconnect, String::new())))
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
            cipher: ciphers(aes_in_hardware()),
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

/// The library's list, which holds authenticated modes first, with the one ahead that costs both ends less.
fn ciphers(aes_in_hardware: bool) -> Cow<'static, [russh::cipher::Name]> {
    let mut ciphers = Preferred::DEFAULT.cipher.into_owned();
    if aes_in_hardware {
        // Stable: the rest stays as it is.
        ciphers.sort_by_key(|name| *name != russh::cipher::AES_256_GCM);
    }
    Cow::Owned(ciphers)
}

#[cfg(target_arch = "x86_64")]
fn aes_in_hardware() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn aes_in_hardware() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn aes_in_hardware() -> bool {
    false
}

/// Our side of the protocol.
#[derive(Debug)]
pub(crate) struct Client {
    check: HostCheck,
    words: mpsc::UnboundedSender<Words>,
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
        let text = description.chars().filter(|c| !c.is_control()).take(200).collect();
        let (_taken, taken) = oneshot::channel();
        if self.words.send(Words { text, _taken }).is_ok() {
            // Ends with an error, which says that the words were taken and dropped.
            let _ = timeout(WORDS_PATIENCE, taken).await;
        }
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

#[cfg(test)]
mod tests {
    use russh::cipher;

    use super::*;

    #[test]
    fn ciphers_are_authenticated_modes_first() {
        let both = [cipher::AES_256_GCM, cipher::CHACHA20_POLY1305];
        assert_eq!(ciphers(true)[..2], both);
        assert_eq!(ciphers(false)[..2], [both[1], both[0]]);
        assert_eq!(ciphers(true).len(), Preferred::DEFAULT.cipher.len());
    }
}
