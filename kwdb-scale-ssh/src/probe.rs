//! Does something listen there, seen from the host? The host is asked to connect and to tell how it went: its SSH
//! server, or its bash where the server may not connect for us.

use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::ports::{Command, PortError, PortErrorKind, PortState};
use kwdb_scale_core::topology::Address;
use tokio::time::timeout;

use crate::config::SshHost;
use crate::connection::{Forwarding, OpenError};
use crate::error::{config, unreachable};
use crate::pool::Pool;
use crate::run::run;

pub(crate) async fn probe(
    pool: &Arc<Pool>,
    host: &SshHost,
    address: &Address,
    deadline: Duration,
) -> Result<PortState, PortError> {
    let (name, Some(port)) = (address.host(), address.port()) else {
        return Err(config(format!("'{address}' has no port to probe")));
    };
    if name.is_empty() {
        return Err(config(format!("'{address}' has no host to probe")));
    }
    let mut tries = 0;
    loop {
        // The deadline is that of the probe; a host that cannot be reached is an error of its own.
        let connection = pool.connection(host).await?;
        let answer = match timeout(deadline, connection.forward(name, port)).await {
            Ok(answer) => answer,
            Err(_) => return Ok(PortState::NoAnswer),
        };
        match answer {
            Ok(Forwarding::Open(channel)) => {
                let _ = channel.close().await;
                return Ok(PortState::Open);
            }
            Ok(Forwarding::Failed(words)) => {
                return state(host, name, &words);
            }
            Err(OpenError::Refused(error)) => {
                return by_bash(pool, host, name, port, deadline, error).await;
            }
            Err(OpenError::Gone) if tries == 0 => tries += 1,
            Err(OpenError::Gone) => {
                return Err(unreachable(format!("'{}' closes every connection", host.shown())));
            }
        }
    }
}

/// `refusal`: why the SSH server did not do it.
async fn by_bash(
    pool: &Arc<Pool>,
    host: &SshHost,
    name: &str,
    port: u16,
    deadline: Duration,
    refusal: PortError,
) -> Result<PortState, PortError> {
    let port = port.to_string();
    let text = r#"exec 3<>"/dev/tcp/$1/$2""#;
    let command = Command::new(["bash", "-c", text, "bash", name, &port]).deadline(deadline);
    match run(pool, host, &command, None).await {
        Ok(finished) if finished.end.success() => Ok(PortState::Open),
        Ok(finished) => state(host, name, &String::from_utf8_lossy(&finished.outputs.err)),
        Err(e) if e.kind() == PortErrorKind::Deadline => Ok(PortState::NoAnswer),
        Err(e) if e.kind() == PortErrorKind::NotFound => Err(refusal.with_source(e)),
        Err(e) => Err(e),
    }
}

/// What OpenSSH says is strerror(3) of its attempt, or gai_strerror(3), in English; bash says the same. Anything else is
/// unknown.
fn state(host: &SshHost, name: &str, words: &str) -> Result<PortState, PortError> {
    let words = words.to_ascii_lowercase();
    if words.contains("refused") {
        return Ok(PortState::Closed);
    }
    let unresolved =
        ["name or service not known", "no address associated", "name resolution", "unknown host"];
    if unresolved.iter().any(|u| words.contains(u)) {
        return Err(unreachable(format!("'{}' cannot resolve the name '{name}'", host.shown())));
    }
    tracing::debug!(host = host.shown(), name, words, "a probe failed");
    Ok(PortState::NoAnswer)
}

#[cfg(test)]
mod tests {
    use kwdb_scale_core::ports::PortErrorKind;

    use super::*;
    use crate::host_keys::HostKeyPolicy;

    #[test]
    fn words_of_the_server() {
        let host = SshHost::new("h", "u", HostKeyPolicy::default_files());
        let said = |words| state(&host, "x", words).map_err(|e| e.kind());
        assert_eq!(said("Connection refused"), Ok(PortState::Closed));
        for unknown in
            ["", "Connection timed out", "No route to host", "open failed", "Network is unreachable"]
        {
            assert_eq!(said(unknown), Ok(PortState::NoAnswer), "{unknown}");
        }
        for unresolved in ["Name or service not known", "unknown host (Temporary failure in name resolution)"]
        {
            assert_eq!(said(unresolved), Err(PortErrorKind::Unreachable), "{unresolved}");
        }
    }
}
