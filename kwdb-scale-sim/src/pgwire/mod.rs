//! The SQL port: start-up, TLS, authentication and the simple query protocol, as a KWDB V3.2.1 was seen to speak
//! them. What the statements mean is the [`Handler`]'s matter.

pub(crate) mod wire;

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::certs;
use wire::{Out, Reply, SqlError, Startup};

/// `version()` and the parameter `kwdb_version`.
pub(crate) const VERSION: &str =
    "KaiwuDB V3.2.1 (x86_64-linux-gnu, built 2026/11/23 12:00:00, go1.19.8, gcc 12.2.0)";

/// How far a node's shutdown has come, as its SQL clients feel it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    /// Clients are served.
    #[default]
    Open,
    /// New clients are refused; sessions go on.
    Refusing,
    /// Idle sessions are told and ended; those in a transaction go on.
    Closing,
    /// Sessions that are still in a transaction are cut.
    Cut,
    /// Nothing is behind the port any more.
    Closed,
}

/// Waits until a shutdown has come at least so far; a node that is gone is closed.
pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, least: Phase) -> Phase {
    phase.wait_for(|p| *p >= least).await.map_or(Phase::Closed, |p| *p)
}

/// The node behind a SQL port.
pub(crate) trait Handler: Send + Sync + 'static {
    /// How far the shutdown has come.
    fn phase(&self) -> watch::Receiver<Phase>;

    /// Comes back once the node can look users up: one that is waiting for `init`, or has lost its quorum, lets
    /// the connection stall.
    fn admitted(&self) -> impl Future<Output = ()> + Send;

    /// Whether the user exists; with a password, whether it is the user's.
    fn authenticate(&self, user: &str, password: Option<&str>) -> bool;

    /// Whether the user has the admin role.
    fn is_admin(&self, user: &str) -> bool;

    /// A session began or ended a transaction.
    fn transaction(&self, open: bool);

    /// Runs one statement for a user.
    fn query(&self, user: &str, sql: &str) -> impl Future<Output = Result<Reply, SqlError>> + Send;
}

/// A stream of bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Serves one SQL connection to its end. `tls` is given on a secure cluster, which nevertheless lets plaintext
/// connections in and asks them for a password.
pub(crate) async fn serve<S: Stream, H: Handler>(
    mut stream: S,
    tls: Option<TlsAcceptor>,
    handler: Arc<H>,
) -> io::Result<()> {
    let secure = tls.is_some();
    let mut tls = tls;
    loop {
        match wire::read_startup(&mut stream).await? {
            Startup::Ssl => match tls.take() {
                None => stream.write_all(b"N").await?,
                Some(acceptor) => {
                    stream.write_all(b"S").await?;
                    let mut stream = acceptor.accept(stream).await?;
                    let name = stream
                        .get_ref()
                        .1
                        .peer_certificates()
                        .and_then(|chain| chain.first())
                        .and_then(|cert| certs::common_name(cert));
                    return match wire::read_startup(&mut stream).await? {
                        Startup::Session(parameters) => {
                            Session::new(stream, handler, parameters).run(Access::Tls(name)).await
                        }
                        _ => Ok(()),
                    };
                }
            },
            Startup::Gss => stream.write_all(b"N").await?,
            Startup::Session(parameters) => {
                let access = if secure { Access::Tls(None) } else { Access::Trust };
                return Session::new(stream, handler, parameters).run(access).await;
            }
            // KWDB closes a connection that asks to cancel, without cancelling anything.
            Startup::Cancel => return Ok(()),
            Startup::Unknown(_) => {
                let mut out = Out::default();
                out.error(&SqlError::new("08P01", "unknown protocol version"));
                return stream.write_all(out.bytes()).await;
            }
        }
    }
}

/// How a client proves who it is.
enum Access {
    /// An insecure cluster: any user that exists.
    Trust,
    /// A secure cluster: the certificate's name, or else a password.
    Tls(Option<String>),
}

struct Session<S, H: Handler> {
    stream: S,
    handler: Arc<H>,
    parameters: Vec<(String, String)>,
    user: String,
    /// `I`, `T` or `E`.
    status: u8,
}

impl<S: Stream, H: Handler> Session<S, H> {
    fn new(stream: S, handler: Arc<H>, parameters: Vec<(String, String)>) -> Self {
        let user = parameters.iter().find(|(n, _)| n == "user").map(|(_, v)| v.clone()).unwrap_or_default();
        Self { stream, handler, parameters, user, status: b'I' }
    }

    async fn run(mut self, access: Access) -> io::Result<()> {
        let mut phase = self.handler.phase();
        if *phase.borrow() >= Phase::Refusing {
            return self.fail(SqlError::new("57P01", "server is not accepting clients")).await;
        }
        let handler = Arc::clone(&self.handler);
        tokio::select! {
            () = handler.admitted() => {}
            _ = reached(&mut phase, Phase::Cut) => return Ok(()),
        }
        if let Err(error) = self.authenticate(access).await? {
            return self.fail(error).await;
        }
        self.greet().await?;
        loop {
            let message = tokio::select! {
                message = wire::read_message(&mut self.stream) => message,
                ended = reached(&mut phase, if self.status == b'I' { Phase::Closing } else { Phase::Cut }) => {
                    return match ended {
                        Phase::Cut | Phase::Closed => Ok(()),
                        _ => self.fail(SqlError::new("57P01", "server is shutting down")).await,
                    };
                }
            };
            match message? {
                (b'Q', body) => {
                    let text =
                        String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).into_owned();
                    let answer = tokio::select! {
                        out = self.query(&text) => out,
                        _ = reached(&mut phase, Phase::Cut) => return Ok(()),
                    };
                    self.stream.write_all(answer.bytes()).await?;
                    self.stream.flush().await?;
                }
                (b'X', _) => return Ok(()),
                // The extended protocol: one error, then silence up to Sync, as the protocol wants it.
                (b'P' | b'B' | b'D' | b'E' | b'C' | b'F', _) => {
                    let mut out = Out::default();
                    out.error(&SqlError::new("0A000", "the twin answers the simple query protocol only"));
                    self.stream.write_all(out.bytes()).await?;
                    self.stream.flush().await?;
                    while wire::read_message(&mut self.stream).await?.0 != b'S' {}
                    self.ready().await?;
                }
                (b'S', _) => self.ready().await?,
                _ => {}
            }
        }
    }

    fn set_status(&mut self, status: u8) {
        let was = std::mem::replace(&mut self.status, status);
        if (was == b'I') != (status == b'I') {
            self.handler.transaction(status != b'I');
        }
    }

    async fn query(&mut self, text: &str) -> Out {
        let mut out = Out::default();
        let statements = wire::split(text);
        if statements.is_empty() {
            out.reply(&Reply::Empty);
        }
        for sql in statements {
            match self.statement(sql).await {
                Ok(reply) => out.reply(&reply),
                Err(error) => {
                    if self.status == b'T' {
                        self.set_status(b'E');
                    }
                    out.error(&error);
                    break;
                }
            }
        }
        out.ready(self.status);
        out
    }

    async fn statement(&mut self, sql: &str) -> Result<Reply, SqlError> {
        let word = sql.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        match word.as_str() {
            "commit" | "end" | "rollback" => {
                let done = if word == "rollback" || self.status == b'E' { "ROLLBACK" } else { "COMMIT" };
                self.set_status(b'I');
                Ok(Reply::Done(done))
            }
            _ if self.status == b'E' => Err(SqlError::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
            "begin" | "start" => {
                self.set_status(b'T');
                Ok(Reply::Done("BEGIN"))
            }
            _ => self.handler.query(&self.user, sql).await,
        }
    }

    /// Fails with the error that the client is to be told.
    async fn authenticate(&mut self, access: Access) -> io::Result<Result<(), SqlError>> {
        let refused =
            SqlError::new("XXUUU", format!("password authentication failed for user {}", self.user));
        let password = match access {
            Access::Trust => None,
            Access::Tls(Some(name)) if name == self.user => None,
            Access::Tls(Some(name)) => {
                let message = format!("requested user is {}, but certificate is for {name}", self.user);
                return Ok(Err(SqlError::new("XXUUU", message)));
            }
            Access::Tls(None) => {
                let mut out = Out::default();
                out.ask_password();
                self.stream.write_all(out.bytes()).await?;
                self.stream.flush().await?;
                match wire::read_message(&mut self.stream).await? {
                    (b'p', body) => {
                        Some(String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).into())
                    }
                    _ => return Ok(Err(refused)),
                }
            }
        };
        let password: Option<String> = password;
        let known = self.handler.authenticate(&self.user, password.as_deref());
        Ok(if known { Ok(()) } else { Err(refused) })
    }

    async fn greet(&mut self) -> io::Result<()> {
        let application = self.parameters.iter().find(|(n, _)| n == "application_name");
        let mut out = Out::default();
        out.authentication_ok();
        for (name, value) in [
            ("server_version", "9.5.0"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("application_name", application.map(|(_, v)| v.as_str()).unwrap_or_default()),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", ""),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
            ("kwdb_version", VERSION),
            ("session_authorization", &self.user),
            ("is_superuser", if self.handler.is_admin(&self.user) { "on" } else { "off" }),
        ] {
            out.parameter(name, value);
        }
        out.ready(self.status);
        self.stream.write_all(out.bytes()).await?;
        self.stream.flush().await
    }

    async fn ready(&mut self) -> io::Result<()> {
        let mut out = Out::default();
        out.ready(self.status);
        self.stream.write_all(out.bytes()).await?;
        self.stream.flush().await
    }

    /// Tells the error and ends the connection.
    async fn fail(mut self, error: SqlError) -> io::Result<()> {
        let mut out = Out::default();
        out.error(&error);
        self.stream.write_all(out.bytes()).await?;
        self.stream.shutdown().await
    }
}

impl<S, H: Handler> Drop for Session<S, H> {
    fn drop(&mut self) {
        if self.status != b'I' {
            self.handler.transaction(false);
        }
    }
}

/// A stream with bytes in front that were read already.
pub(crate) fn with_prefix<S: Stream>(prefix: Vec<u8>, stream: S) -> impl Stream {
    let (read, write) = tokio::io::split(stream);
    tokio::io::join(io::Cursor::new(prefix).chain(read), write)
}
