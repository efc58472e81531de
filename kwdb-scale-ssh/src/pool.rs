//! One connection a host, made when needed, shared, and made anew when it is gone.

use std::sync::{Arc, Mutex as StdMutex};

use kwdb_scale_core::ports::PortError;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::config::{SshHost, SshLimits};
use crate::connection::{Connection, OpenError, Session};
use crate::error::{config, unreachable};

/// The connections of a transport.
#[derive(Debug)]
pub(crate) struct Pool {
    limits: SshLimits,
    handshakes: Semaphore,
    /// By what the connection depends on. A handful of hosts: a search is fine.
    slots: StdMutex<Vec<(SshHost, Arc<Slot>)>>,
}

/// Held while connecting, so that a host gets one handshake at a time.
type Slot = Mutex<Option<Arc<Connection>>>;

impl Pool {
    pub(crate) fn new(limits: SshLimits) -> Self {
        Self { limits, handshakes: Semaphore::new(limits.handshakes), slots: StdMutex::default() }
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
        let _right = self.handshakes.acquire().await.map_err(|_| config("the transport is closed"))?;
        let connecting = Connection::open(host, via, &self.limits);
        let connection = timeout(self.limits.connect, connecting).await.unwrap_or_else(|_| {
            Err(unreachable(format!(
                "'{}' did not answer, or not let us in, within {:?}",
                host.shown(),
                self.limits.connect
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
