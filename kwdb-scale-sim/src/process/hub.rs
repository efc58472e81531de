//! What the ports of all nodes have behind them: the model, the clock that drives it, and the SQL users.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kwdb_scale_core::topology::Address;
use rustls::RootCertStore;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::rpc::Caller;
use super::wire::{CLIENT_MAGIC, ClientEvent, ClientHello, NodeCerts, receive, send};
use crate::certs;
use crate::http::Readiness;
use crate::model::{Cluster, Health, Phase as ProcessPhase, ProcessView, Shared};
use crate::pgwire::{self, Phase, Stream};

/// How the model's clock moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many model seconds in one real second. Not positive or not finite counts as 1.
    Times(f64),
    /// Only when the caller advances the model.
    Manual,
}

/// How often waiting connections look at the model again.
const TICK: Duration = Duration::from_millis(10);

struct User {
    password: Option<String>,
    admin: bool,
}

pub(crate) struct Hub {
    cluster: Shared,
    pace: Pace,
    began: (Instant, Timestamp),
    users: Mutex<BTreeMap<String, User>>,
    ticks: watch::Sender<()>,
}

impl Hub {
    /// Starts the clock. Ends with its last handle.
    pub(crate) fn start(cluster: Shared, pace: Pace) -> Arc<Self> {
        let now = lock(&cluster).now();
        let root = User { password: None, admin: true };
        let hub = Arc::new(Self {
            cluster,
            pace,
            began: (Instant::now(), now),
            users: Mutex::new(BTreeMap::from([("root".to_owned(), root)])),
            ticks: watch::Sender::new(()),
        });
        let weak = Arc::downgrade(&hub);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                let Some(hub) = weak.upgrade() else { return };
                drop(hub.cluster());
                hub.ticks.send_replace(());
            }
        });
        hub
    }

    /// The model, brought up to now.
    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        let mut cluster = lock(&self.cluster);
        if self.pace != Pace::Manual {
            let elapsed = self.began.0.elapsed().mul_f64(self.factor());
            cluster.advance_to(self.began.1.checked_add(elapsed).unwrap_or(Timestamp::MAX));
        }
        cluster
    }

    /// Comes back when the model's clock stands there.
    pub(crate) async fn until(&self, at: Timestamp) {
        loop {
            let left = at.duration_since(self.cluster().now());
            let Ok(left) = Duration::try_from(left) else { return };
            match self.pace {
                _ if left.is_zero() => return,
                Pace::Manual => self.tick().await,
                // A moment more, so that rounding does not make it loop.
                Pace::Times(_) => {
                    tokio::time::sleep(left.div_f64(self.factor()) + Duration::from_micros(500)).await;
                }
            }
        }
    }

    fn factor(&self) -> f64 {
        match self.pace {
            Pace::Times(factor) if factor.is_finite() && factor > 0.0 => factor,
            _ => 1.0,
        }
    }

    /// Comes back when the model may have changed.
    pub(crate) async fn tick(&self) {
        let _ = self.ticks.subscribe().changed().await;
    }

    pub(crate) fn set_user(&self, name: &str, password: Option<String>, admin: bool) {
        self.users().insert(name.to_owned(), User { password, admin });
    }

    /// Grants a user the admin role; `false` when there is no such user.
    pub(crate) fn grant_admin(&self, name: &str) -> bool {
        self.users().get_mut(name).is_some_and(|user| {
            user.admin = true;
            true
        })
    }

    pub(crate) fn authenticate(&self, user: &str, password: Option<&str>) -> bool {
        let users = self.users();
        let Some(known) = users.get(user) else { return false };
        // A user without a password cannot be let in with one.
        password.is_none() || (known.password.is_some() && known.password.as_deref() == password)
    }

    pub(crate) fn is_admin(&self, user: &str) -> bool {
        self.users().get(user).is_some_and(|user| user.admin)
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<String, User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("pace", &self.pace).finish_non_exhaustive()
    }
}

fn lock(cluster: &Shared) -> MutexGuard<'_, Cluster> {
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ports of one process of the model.
pub(crate) struct Front {
    hub: Arc<Hub>,
    process: u64,
    address: Address,
    sql_address: Address,
    /// For SQL clients that ask for TLS, and for the HTTP port.
    tls: Option<TlsAcceptor>,
    /// For clients that begin with TLS: kwbase commands and gRPC.
    rpc_tls: Option<TlsAcceptor>,
    phase: watch::Sender<Phase>,
    /// How many sessions are in a transaction: a drain waits for them.
    transactions: Mutex<u32>,
}

impl Front {
    pub(crate) fn new(
        hub: Arc<Hub>,
        process: u64,
        address: Address,
        sql_address: Address,
        tls: Option<TlsAcceptor>,
    ) -> Arc<Self> {
        let phase = watch::Sender::new(Phase::Open);
        let rpc_tls = tls.as_ref().map(|tls| {
            let mut config = ServerConfig::clone(tls.config());
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        Arc::new(Self {
            hub,
            process,
            address,
            sql_address,
            tls,
            rpc_tls,
            phase,
            transactions: Mutex::new(0),
        })
    }

    /// A session began or ended a transaction.
    pub(crate) fn count_transaction(&self, open: bool) {
        let mut transactions = self.transactions.lock().unwrap_or_else(PoisonError::into_inner);
        *transactions = if open { *transactions + 1 } else { transactions.saturating_sub(1) };
        let mut cluster = self.hub.cluster();
        let day = Duration::from_secs(if *transactions > 0 { 86_400 } else { 0 });
        let until = cluster.now() + day;
        if cluster.process(&self.address).is_some_and(|view| view.process == self.process) {
            cluster.hold_transaction(&self.address, until);
        }
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn sql_address(&self) -> &Address {
        &self.sql_address
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The process, while it is the one that last ran at the address. Tells the connections how far a shutdown has
    /// come: to be called at every tick.
    pub(crate) fn follow(&self) -> Option<ProcessView> {
        let (view, drained) = {
            let cluster = self.hub.cluster();
            let view = cluster.process(&self.address).filter(|view| view.process == self.process);
            let member = view.as_ref().and_then(|view| view.node).and_then(|node| cluster.member(node));
            (view, member.is_some_and(|member| member.liveness.draining))
        };
        let phase = match view.as_ref().map(|v| &v.phase) {
            Some(ProcessPhase::Booting | ProcessPhase::Waiting | ProcessPhase::Serving) => Phase::Open,
            Some(ProcessPhase::Draining) if drained => Phase::Cut,
            Some(ProcessPhase::Draining) => Phase::Closing,
            Some(ProcessPhase::Exited { .. }) | None => Phase::Closed,
        };
        self.phase.send_if_modified(|old| {
            let changed = *old != phase;
            *old = phase;
            changed
        });
        view
    }

    /// Cuts every connection.
    pub(crate) fn close(&self) {
        self.phase.send_replace(Phase::Closed);
    }

    /// Serves a connection of the SQL and RPC port: its first bytes tell SQL clients, gRPC and kwbase commands apart. On
    /// a secure node the latter two come under TLS, and a SQL client asks for it first.
    pub(crate) async fn serve_sql<S: Stream>(self: Arc<Self>, mut stream: S) -> io::Result<()> {
        let first = stream.read_u8().await?;
        let mut stream = pgwire::with_prefix(vec![first], stream);
        match (first, &self.rpc_tls) {
            (0x16, Some(acceptor)) => {
                let mut stream = match acceptor.accept(stream).into_fallible().await {
                    Ok(stream) => stream,
                    // The client reads the alert before the connection goes.
                    Err((_, stream)) => return linger(stream).await,
                };
                let chain = stream.get_ref().1.peer_certificates();
                let name = chain.and_then(|c| c.first()).and_then(|c| certs::common_name(c));
                let first = stream.read_u8().await?;
                let stream = pgwire::with_prefix(vec![first], stream);
                match first {
                    b'K' => self.serve_command(stream, name).await,
                    b'P' => self.serve_rpc(stream, Caller::new(name)).await,
                    _ => Ok(()),
                }
            }
            (0x16, None) => {
                // Go's gRPC server says its settings before it reads: an empty frame, which is no TLS record.
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
                linger(stream).await
            }
            (b'K', None) => self.serve_command(stream, Some("root".to_owned())).await,
            (b'P', None) => self.serve_rpc(stream, Caller::Root).await,
            (0, _) => pgwire::serve(stream, self.tls.clone(), Arc::clone(&self)).await,
            _ => Ok(()),
        }
    }

    /// Serves a connection of the HTTP port.
    pub(crate) async fn serve_http<S: Stream>(self: Arc<Self>, stream: S) -> io::Result<()> {
        let mut phase = self.phase.subscribe();
        let serve = crate::http::serve(stream, self.tls.clone(), || self.readiness());
        tokio::select! {
            ended = serve => ended,
            _ = pgwire::reached(&mut phase, Phase::Closed) => Ok(()),
        }
    }

    fn readiness(&self) -> Readiness {
        match self.hub.cluster().health(&self.address, true) {
            Some(Health::Ok) => Readiness::Ready,
            Some(Health::NotReady(message)) => Readiness::Not(message),
            None => Readiness::Not("node is not healthy"),
        }
    }

    async fn serve_command<S: Stream>(&self, stream: S, user: Option<String>) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut magic = vec![0; CLIENT_MAGIC.len()];
        stream.read_exact(&mut magic).await?;
        if magic != CLIENT_MAGIC {
            return Ok(());
        }
        let Some(hello) = receive::<_, ClientHello>(&mut stream).await? else { return Ok(()) };
        if !matches!(user.as_deref(), Some("root" | "node")) {
            let user = user.unwrap_or_default();
            let text = format!(
                "ERROR: rpc error: code = Unknown desc = user [{user}] is not allowed to perform this RPC\n"
            );
            send(&mut stream, &ClientEvent::Stderr(text)).await?;
            return send(&mut stream, &ClientEvent::Exit(1)).await;
        }
        let mut phase = self.phase.subscribe();
        tokio::select! {
            ended = self.command(&mut stream, hello) => ended?,
            // A quit ends its own node, and is still to say so.
            () = async {
                pgwire::reached(&mut phase, Phase::Closed).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            } => {}
        }
        stream.shutdown().await
    }
}

/// Says that it is over, and reads what the client still sends for a moment: unread bytes would cost it what was said
/// last.
async fn linger<S: Stream>(mut stream: S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let read = async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
    Ok(())
}

/// What a secure node's SQL and HTTP ports need: TLS 1.2 only, client certificates verified where given.
pub(crate) fn acceptor(certs: &NodeCerts) -> io::Result<TlsAcceptor> {
    let read = |text: &str| CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for cert in read(&certs.ca).map_err(io::Error::other)? {
        roots.add(cert).map_err(io::Error::other)?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(certs.key.as_bytes()).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .map_err(io::Error::other)?
        .with_client_cert_verifier(clients)
        .with_single_cert(read(&certs.cert).map_err(io::Error::other)?, key)
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
