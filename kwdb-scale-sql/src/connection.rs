//! One connection to one node.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::topology::Address;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{LoadBalanceHosts, SslMode};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Builder, Secure, Security, host_and_port};
use crate::error::Peer;

/// How connections are made; shared by all of a source.
pub(crate) struct Connector {
    base: Config,
    user: String,
    tls: Option<(MakeRustlsConnect, Secure)>,
    connect_timeout: Duration,
    startup_timeout: Duration,
    statement_timeout: Duration,
}

impl Connector {
    pub(crate) fn new(builder: &Builder) -> Result<Self, PortError> {
        let mut base = Config::new();
        base.user(&builder.user)
            .dbname(&builder.database)
            .application_name(&builder.application_name)
            .connect_timeout(builder.connect_timeout)
            .load_balance_hosts(LoadBalanceHosts::Disable)
            .keepalives(true)
            .keepalives_idle(builder.keepalive)
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        let tls = match &builder.security {
            Security::Insecure => {
                base.ssl_mode(SslMode::Disable);
                None
            }
            Security::Secure(secure) => {
                let tls = MakeRustlsConnect::new(crate::tls::client_config(secure)?);
                // Never `Prefer`: that falls back to plaintext, where the password would be asked for.
                base.ssl_mode(SslMode::Require);
                if let Some(password) = &secure.password {
                    base.password(password.expose());
                }
                Some((tls, secure.clone()))
            }
        };
        Ok(Self {
            base,
            user: builder.user.clone(),
            tls,
            connect_timeout: builder.connect_timeout,
            startup_timeout: builder.startup_timeout,
            statement_timeout: builder.statement_timeout,
        })
    }

    pub(crate) fn peer<'a>(&'a self, address: &'a Address) -> Peer<'a> {
        Peer { address, user: &self.user, secure: self.tls.is_some() }
    }

    /// Connects, logs in and sets the statement timeout.
    pub(crate) async fn connect(&self, address: &Address) -> Result<Connection, PortError> {
        let peer = self.peer(address);
        let (host, port) = host_and_port(address)?;
        let found = self.resolve(&peer, host, port).await?;
        let name = self.tls.as_ref().map_or(host, |(_, secure)| secure.name_of(address));
        let mut config = self.base.clone();
        config.port(port);
        for ip in &found {
            config.host(name).hostaddr(*ip);
        }
        let tries = u32::try_from(found.len()).unwrap_or(1);
        let limit = self.connect_timeout.saturating_mul(tries).saturating_add(self.startup_timeout);
        let log_in = async {
            let mut connection = match &self.tls {
                None => {
                    let (client, io) = config.connect(NoTls).await.map_err(|e| peer.of_connect(e))?;
                    Connection::start(client, io, address)
                }
                Some((tls, _)) => {
                    let (client, io) = config.connect(tls.clone()).await.map_err(|e| peer.of_connect(e))?;
                    Connection::start(client, io, address)
                }
            };
            let set = format!("SET statement_timeout = {}", self.statement_timeout.as_millis());
            connection.ask(&set).await.map_err(|e| peer.of_statement(e))?;
            Ok(connection)
        };
        // The TCP part has its own, shorter timeout, so what ends here is a node that took the connection.
        timeout(limit, log_in).await.unwrap_or_else(|_| {
            let text = format!(
                "the node took the connection and then said nothing for {} s (it waits for init, has not joined yet, \
                 hangs, or this is not its SQL address)",
                limit.as_secs_f32()
            );
            Err(peer.error(PortErrorKind::Deadline, text))
        })
    }

    async fn resolve(&self, peer: &Peer<'_>, host: &str, port: u16) -> Result<Vec<IpAddr>, PortError> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let text = format!("the name '{host}' cannot be resolved");
        let unknown = || peer.error(PortErrorKind::Unreachable, &text);
        let mut found: Vec<IpAddr> = timeout(self.connect_timeout, tokio::net::lookup_host((host, port)))
            .await
            .map_err(|_| unknown())?
            .map_err(|e| unknown().with_source(e))?
            .map(|a: SocketAddr| a.ip())
            .collect();
        found.dedup();
        if found.is_empty() { Err(unknown()) } else { Ok(found) }
    }
}

/// The text of an answer.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

impl Text {
    /// Bytes of all values.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.iter().flatten().flatten().map(String::len).sum()
    }
}

/// A connection that is logged in, and the task that moves its bytes.
pub(crate) struct Connection {
    client: Client,
    task: JoinHandle<()>,
    asking: bool,
}

impl Connection {
    fn start<F>(client: Client, io: F, address: &Address) -> Self
    where
        F: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let address = address.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = io.await {
                tracing::debug!(%address, error = &error as &dyn std::error::Error, "SQL connection ended");
            }
        });
        Self { client, task, asking: false }
    }

    /// Whether the connection can still be used.
    pub(crate) fn is_usable(&self) -> bool {
        !self.asking && !self.client.is_closed() && !self.task.is_finished()
    }

    /// Sends a statement by the simple protocol and collects all rows.
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<Text, tokio_postgres::Error> {
        self.asking = true;
        let answer = self.client.simple_query(sql).await;
        self.asking = false;
        let mut text = Text::default();
        for message in answer? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    text.columns = columns.iter().map(|c| c.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len()).map(|i| row.try_get(i).map(|v| v.map(str::to_owned)));
                    text.rows.push(cells.collect::<Result<_, _>>()?);
                }
                _ => {}
            }
        }
        Ok(text)
    }
}

impl Drop for Connection {
    /// An idle connection says good-bye by itself when its client goes. One that still waits for an answer
    /// would wait for ever at a node that hangs, so it is cut.
    fn drop(&mut self) {
        if self.asking {
            self.task.abort();
        }
    }
}
