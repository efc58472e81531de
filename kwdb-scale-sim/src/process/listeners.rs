//! The twin's ports without its processes: tasks inside a test that listen for the nodes of a model.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::sync::Arc;

use kwdb_scale_core::topology::Address;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::hub::{Front, Hub, acceptor};
use super::socket_address;
use super::wire::NodeCerts;
use crate::model::{Phase, ProcessView, Shared};

pub use super::hub::Pace;

/// Real ports for the nodes of a model, served by tasks of the caller's runtime.
///
/// What a node's port answers follows the model: SQL clients of a killed node lose their connections, those of a
/// drained one are refused. Dropped, it closes every port.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
/// use kwdb_scale_sim::model::{Cluster, Config, NodeStart};
/// use kwdb_scale_sim::process::{Listeners, Pace, free_addresses};
///
/// let addresses = free_addresses(3)?;
/// let mut cluster = Cluster::new(Config::default());
/// for address in &addresses {
///     cluster.start_node(NodeStart::new(address.clone(), addresses.clone()))?;
/// }
/// cluster.advance(Duration::from_secs(2));
/// cluster.init(&addresses[0])?;
/// cluster.advance(Duration::from_secs(60));
///
/// let cluster = Arc::new(Mutex::new(cluster));
/// let mut listeners = Listeners::new(Arc::clone(&cluster), Pace::Times(20.0));
/// for address in &addresses {
///     listeners.open(address).await?;
/// }
/// // A PostgreSQL client may now connect to any of the addresses as root.
/// # Ok(()) }
/// ```
pub struct Listeners {
    hub: Arc<Hub>,
    tls: Option<TlsAcceptor>,
    open: BTreeMap<Address, JoinSet<()>>,
}

impl Listeners {
    /// Takes the model over: with [`Pace::Times`] its clock runs from now on. To be called in a tokio runtime.
    pub fn new(cluster: Shared, pace: Pace) -> Self {
        Self { hub: Hub::start(cluster, pace), tls: None, open: BTreeMap::new() }
    }

    /// The same for nodes with the certificates of a directory (`ca.crt`, `node.crt`, `node.key`), such as
    /// [`certs::create`](crate::certs::create) makes.
    ///
    /// # Errors
    /// Files that cannot be read or are no certificates.
    pub fn secure(mut self, certs: &Path) -> io::Result<Self> {
        let read = |file: &str| std::fs::read_to_string(certs.join(file));
        let certs = NodeCerts { ca: read("ca.crt")?, cert: read("node.crt")?, key: read("node.key")? };
        self.tls = Some(acceptor(&certs)?);
        Ok(self)
    }

    /// Makes a SQL user, or changes one. There is `root` at the beginning.
    pub fn set_user(&self, name: &str, password: &str, admin: bool) {
        self.hub.set_user(name, Some(password.to_owned()), admin);
    }

    /// Listens at the ports (RPC, SQL and HTTP) of the process that runs in the model at this RPC address, until it
    /// ends. To be called again when a node was started again.
    ///
    /// # Errors
    /// `NotFound` when no process of the model runs there; a port that cannot be bound.
    pub async fn open(&mut self, address: &Address) -> io::Result<()> {
        let view = self.hub.cluster().process(address);
        let view: ProcessView = view
            .filter(|view| !matches!(view.phase, Phase::Exited { .. }))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no process at {address}")))?;
        // The ports of the process before are free before this one takes them.
        if let Some(mut before) = self.open.remove(address) {
            before.shutdown().await;
        }
        let tls = self.tls.clone().filter(|_| view.security.is_secure());
        let front = Front::new(
            Arc::clone(&self.hub),
            view.process,
            view.address.clone(),
            view.sql_address.clone(),
            tls,
        );
        let mut tasks = JoinSet::new();
        for sql in std::collections::BTreeSet::from([&view.address, &view.sql_address]) {
            let (listener, front) = (bind(sql).await?, Arc::clone(&front));
            tasks.spawn(accept(listener, move |stream| Arc::clone(&front).serve_sql(stream)));
        }
        if let Some(http) = &view.http_address {
            let (listener, front) = (bind(http).await?, Arc::clone(&front));
            tasks.spawn(accept(listener, move |stream| Arc::clone(&front).serve_http(stream)));
        }
        let hub = Arc::clone(&self.hub);
        let mut ports = tasks;
        let mut keeper = JoinSet::new();
        keeper.spawn(async move {
            loop {
                if front.follow().is_none_or(|view| matches!(view.phase, Phase::Exited { .. })) {
                    // What was said last is on its way to the clients.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    ports.shutdown().await;
                    return;
                }
                hub.tick().await;
            }
        });
        self.open.insert(address.clone(), keeper);
        Ok(())
    }
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open: Vec<&Address> = self.open.keys().collect();
        f.debug_struct("Listeners").field("hub", &self.hub).field("open", &open).finish_non_exhaustive()
    }
}

/// Loopback addresses at which nothing listens now.
///
/// # Errors
/// No port is to be had.
pub fn free_addresses(n: usize) -> io::Result<Vec<Address>> {
    // Held together, so that no two are the same.
    let held: Vec<StdListener> =
        (0..n).map(|_| StdListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(Address::new(listener.local_addr()?.to_string()))).collect()
}

async fn bind(address: &Address) -> io::Result<TcpListener> {
    let address = socket_address(address.as_str());
    TcpListener::bind(address.ok_or(io::ErrorKind::InvalidInput)?).await
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(tokio::net::TcpStream) -> F + Send)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    // Connections end with the listener.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let connection = serve(stream);
                    // An error is a connection that broke: the client knows.
                    connections.spawn(async move { drop(connection.await) });
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
