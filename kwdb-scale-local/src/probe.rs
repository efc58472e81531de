//! Does something listen there?

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use kwdb_scale_core::ports::{PortError, PortErrorKind, PortState};
use kwdb_scale_core::topology::Address;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Tries every address of the name at once: open if one accepts, closed only if all refuse.
pub(crate) async fn probe(address: &Address, deadline: Duration) -> Result<PortState, PortError> {
    let (host, Some(port)) = (address.host(), address.port()) else {
        return Err(PortError::new(PortErrorKind::Config, format!("'{address}' has no port to probe")));
    };
    if host.is_empty() {
        return Err(PortError::new(PortErrorKind::Config, format!("'{address}' has no host to probe")));
    }
    let attempt = async {
        let found = lookup_host((host, port)).await.map_err(|e| {
            PortError::new(PortErrorKind::Unreachable, format!("the name '{host}' cannot be resolved"))
                .with_source(e)
        })?;
        let mut attempts: JoinSet<PortState> = found.map(connect).collect();
        let mut closed = !attempts.is_empty();
        while let Some(state) = attempts.join_next().await {
            match state {
                Ok(PortState::Open) => return Ok(PortState::Open),
                Ok(PortState::Closed) => {}
                Ok(PortState::NoAnswer) | Err(_) => closed = false,
            }
        }
        Ok(if closed { PortState::Closed } else { PortState::NoAnswer })
    };
    timeout(deadline, attempt).await.unwrap_or(Ok(PortState::NoAnswer))
}

async fn connect(to: SocketAddr) -> PortState {
    match TcpStream::connect(to).await {
        // A connection to a free port of the ephemeral range of this machine can come from that very port: TCP then
        // connects the socket to itself, and nobody listens.
        Ok(stream) if stream.local_addr().is_ok_and(|local| local == to) => PortState::Closed,
        Ok(_) => PortState::Open,
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => PortState::Closed,
        Err(_) => PortState::NoAnswer,
    }
}
