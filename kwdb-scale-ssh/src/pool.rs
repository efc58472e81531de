//! One connection a host, made when needed, shared, and made anew when it is gone.

use std::pin::pin;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use kwdb_scale_core::ports::PortError;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

use crate::config::{SshHost, SshLimits};
use crate::connection::{self, Connection, NotConnected, OpenError, Session};
use crate::error::{config, unreachable};
use crate::keys::Keys;

/// A host that has not answered by then is waited for without its right to a handshake, so that hosts that are down do
/// not keep those that are up waiting.
const DIAL_PATIENCE: Duration = Duration::from_millis(500);

/// The first pause after a server closed the connection before the keys were exchanged, as sshd does when too many are
/// logging in (`MaxStartups`); each further one is twice as long.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(100);
/// Tries in all: 3.1 s of pauses.
const TURNED_AWAY_TRIES: u32 = 6;

/// The connections of a transport.
#[derive(Debug)]
pub(crate) struct Pool {
    limits: SshLimits,
    handshakes: Semaphore,
    keys: Keys,
    /// By what the connection depends on. A handful of hosts: a search is fine.
    slots: StdMutex<Vec<(SshHost, Arc<Slot>)>>,
}

/// Held while connecting, so that a host gets one handshake at a time.
type Slot = Mutex<State>;

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Connection>>,
    /// When the last attempt to connect failed, and why. Whoever asked while it went on gets the same answer: each of many
    /// would wait as long again for a host that does not answer, one after the other.
    failed: Option<(Instant, PortError)>,
}

impl Pool {
    pub(crate) fn new(limits: SshLimits) -> Self {
        let handshakes = Semaphore::new(limits.handshakes);
        Self { limits, handshakes, keys: Keys::default(), slots: StdMutex::default() }
    }

    async fn right(&self) -> Result<SemaphorePermit<'_>, PortError> {
        self.handshakes.acquire().await.map_err(|_| config("the transport is closed"))
    }

    fn slot(&self, host: &SshHost) -> Arc<Slot> {
        let key = host.connection();
        let mut slots = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, slot)) = slots.iter().find(|(known, _)| *known == key) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::default());
        slots.push((key, Arc::clone(&slot)));
        slot
    }

    /// The connection to a host, made if there is none. Those who ask while one is being made share what comes of it.
    pub(crate) async fn connection(&self, host: &SshHost) -> Result<Arc<Connection>, PortError> {
        let slot = self.slot(host);
        let asked = Instant::now();
        let mut state = slot.lock().await;
        if let Some(connection) = state.current.as_ref().filter(|c| c.is_usable()) {
            return Ok(Arc::clone(connection));
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(failed, _)| asked < *failed) {
            return Err(error.clone());
        }
        *state = State::default();
        match self.connect_anew(host).await {
            Ok(connection) => {
                state.current = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect_anew(&self, host: &SshHost) -> Result<Arc<Connection>, PortError> {
        // The jump host first: it needs the right to a handshake, too, and must not wait for ours.
        let via = match &host.via {
            Some(jump) => Some(Box::pin(self.connection(jump)).await?),
            None => None,
        };
        // Waiting for it says nothing about the host.
        let right = self.right().await?;
        let patience = host.connect_timeout.unwrap_or(self.limits.connect);
        let mut turned_away = None;
        let connecting = self.connect(host, via.as_ref(), right, &mut turned_away);
        timeout(patience, connecting).await.unwrap_or_else(|_| {
            Err(turned_away.unwrap_or_else(|| {
                unreachable(format!(
                    "'{}' did not answer, or not let us in, within {patience:?}",
                    host.shown()
                ))
            }))
        })
    }

    /// Connects; tries again, with growing pauses, where the server only has too much to do. The last such refusal is
    /// left in `turned_away`, for a caller who stops waiting.
    async fn connect<'a>(
        &'a self,
        host: &SshHost,
        via: Option<&Arc<Connection>>,
        mut right: SemaphorePermit<'a>,
        turned_away: &mut Option<PortError>,
    ) -> Result<Arc<Connection>, PortError> {
        let mut pause = TURNED_AWAY_PAUSE;
        for _ in 1..TURNED_AWAY_TRIES {
            match self.connect_once(host, via, right).await {
                Ok(connection) => return Ok(connection),
                Err(NotConnected::Failed(error)) => return Err(error),
                Err(NotConnected::TurnedAway(error)) => {
                    tracing::debug!(host = host.shown(), ?pause, "turned away, tried again after a pause");
                    *turned_away = Some(error);
                }
            }
            sleep(pause).await;
            pause *= 2;
            right = self.right().await?;
        }
        self.connect_once(host, via, right).await.map_err(NotConnected::into_error)
    }

    async fn connect_once<'a>(
        &'a self,
        host: &SshHost,
        via: Option<&Arc<Connection>>,
        mut right: SemaphorePermit<'a>,
    ) -> Result<Arc<Connection>, NotConnected> {
        let opening = async {
            match via {
                Some(jump) => jump.tunnel(host).await,
                None => connection::dial(host).await,
            }
        };
        let mut opening = pin!(opening);
        let stream = match timeout(DIAL_PATIENCE, &mut opening).await {
            Ok(stream) => stream?,
            Err(_) => {
                drop(right);
                let stream = opening.await?;
                right = self.right().await?;
                stream
            }
        };
        let connection = Connection::open(host, stream, via.cloned(), &self.limits, &self.keys).await;
        drop(right);
        connection
    }

    /// A session on the host. A connection that turns out to be gone is made anew, once.
    pub(crate) async fn session(&self, host: &SshHost) -> Result<(Arc<Connection>, Session), PortError> {
        let mut tries = 0;
        loop {
            let connection = self.connection(host).await?;
            match connection.session().await {
                Ok(session) => return Ok((connection, session)),
                Err(OpenError::Refused(error)) => return Err(error),
                Err(OpenError::Gone) if tries == 0 => {
                    connection.retire();
                    tries += 1;
                }
                Err(OpenError::Gone) => {
                    connection.retire();
                    return Err(unreachable(format!("'{}' closes every connection", host.shown())));
                }
            }
        }
    }
}
