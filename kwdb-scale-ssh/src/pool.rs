//! One connection a host, made when needed, shared, and made anew when it is gone.

use std::pin::pin;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use kwdb_scale_core::ports::PortError;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::config::{SshHost, SshLimits};
use crate::connection::{self, Connection, OpenError, Session};
use crate::error::{config, unreachable};
use crate::keys::Keys;

/// A host that has not answered by then is waited for without its right to a handshake, so that hosts that are down do
/// not keep those that are up waiting.
const DIAL_PATIENCE: Duration = Duration::from_millis(500);

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
type Slot = Mutex<Option<Arc<Connection>>>;

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

    /// The connection to a host, made if there is none.
    pub(crate) async fn connection(&self, host: &SshHost) -> Result<Arc<Connection>, PortError> {
        let slot = self.slot(host);
        let mut current = slot.lock().await;
        if let Some(connection) = current.as_ref().filter(|c| c.is_usable()) {
            return Ok(Arc::clone(connection));
        }
        *current = None;
        // The jump host first: it needs the right to a handshake, too, and must not wait for ours.
        let via = match &host.via {
            Some(jump) => Some(Box::pin(self.connection(jump)).await?),
            None => None,
        };
        let mut right = self.right().await?;
        let connecting = async {
            let opening = async {
                match &via {
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
            let connection = Connection::open(host, stream, via.clone(), &self.limits, &self.keys).await;
            drop(right);
            connection
        };
        let patience = host.connect_timeout.unwrap_or(self.limits.connect);
        let connection = timeout(patience, connecting).await.unwrap_or_else(|_| {
            Err(unreachable(format!(
                "'{}' did not answer, or not let us in, within {patience:?}",
                host.shown()
            )))
        })?;
        *current = Some(Arc::clone(&connection));
        Ok(connection)
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
