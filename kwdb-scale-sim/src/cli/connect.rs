//! Reaching a node as a client: addresses, certificates, and how each way of failing reads.

use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::topology::Address;

use super::ClientEnv;
use super::args::{Args, full_address};
use crate::model::{Cluster, Phase, QueryError, RpcError, Security};

/// What a command takes to start and connect.
pub(crate) const LATENCY: Duration = Duration::from_millis(70);

/// After so long a connection that is accepted but not answered is given up (`KWBASE_CONNECT_TIMEOUT`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

const DIAL: &str = "cannot dial server.\nIs the server running?\nIf the server is running, check --host client-side and --advertise server-side.\n\n";
const NO_CERTS: &str = "cannot load certificates.\nCheck your certificate settings, set --certs-dir, or use --insecure for insecure clusters.\n\n";

/// The client side of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: Address,
    /// The client's own authority; none is insecure.
    security: Security,
    /// Whether root has a client certificate.
    root: bool,
    pub(crate) warnings: String,
}

impl Client {
    pub(crate) fn new(args: &Args, env: &ClientEnv, command: &str) -> Result<Self, String> {
        let mut warnings = String::new();
        let mut host = args.get("host").unwrap_or_default().to_owned();
        if let Some(url) = args.get("url") {
            let rest = url.split_once("://").map_or(url, |(_, r)| r);
            let rest = rest.split(['?']).next().unwrap_or(rest);
            let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
            let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
            if !user.is_empty() {
                warnings += &format!(
                    "warning: --url specifies user/password, but command \"{command}\" does not accept user/password details - details ignored\n"
                );
            }
            if !database.is_empty() {
                warnings += &format!(
                    "warning: --url specifies database \"{database}\", but command \"{command}\" does not accept a database name - database name ignored\n"
                );
            }
            host = place.to_owned();
        }
        let address = full_address(&host, args.get("port").unwrap_or("26257"));
        if args.is_set("insecure") {
            return Ok(Self { address, security: Security::Insecure, root: false, warnings });
        }
        let dir = args.get("certs-dir").map(str::to_owned).or_else(|| env.default_certs.clone());
        let certs = dir.and_then(|d| env.certs.get(d.trim_end_matches('/')));
        let Some(ca) = certs.and_then(|c| c.ca.clone()) else {
            return Err(format!("{NO_CERTS}problem with CA certificate: not found"));
        };
        let root = certs.is_some_and(|c| c.clients.iter().any(|u| u == "root"));
        Ok(Self { address, security: Security::Ca(ca), root, warnings })
    }

    /// The server's own spelling of the address: `localhost` is 127.0.0.1 as well.
    fn resolved(&self, cluster: &Cluster) -> Address {
        let port = self.address.port().unwrap_or(26257);
        let other = match self.address.host() {
            "localhost" => Some(Address::new(format!("127.0.0.1:{port}"))),
            "127.0.0.1" => Some(Address::new(format!("localhost:{port}"))),
            _ => None,
        };
        match other {
            Some(other) if !cluster.listening(&self.address) && cluster.listening(&other) => other,
            _ => self.address.clone(),
        }
    }

    /// Connects by SQL. `Ok(None)`: nothing has answered yet.
    pub(crate) fn sql(
        &self,
        cluster: &Cluster,
        since: Timestamp,
        stdout: &mut String,
    ) -> Result<Option<Address>, String> {
        let address = self.resolved(cluster);
        let Some(process) = cluster.process(&address).filter(|p| !matches!(p.phase, Phase::Exited { .. }))
        else {
            return Err(format!("{DIAL}dial tcp {}: connect: connection refused", self.address));
        };
        if process.sql_address != address {
            return Err("server closed the connection.\nIs this a KwDB node?\n\nEOF".to_owned());
        }
        let answers = cluster.gateway(&address) != Err(QueryError::Hang);
        if process.frozen || (!answers && process.node.is_none()) {
            return self.stalled(cluster, since);
        }
        match (&self.security, &process.security) {
            (Security::Insecure, Security::Ca(_)) => {
                return Err("password authentication failed for user root".to_owned());
            }
            (Security::Ca(_), Security::Insecure) => {
                return Err("cannot establish secure connection to insecure server.\nMaybe use --insecure?\n\npq: SSL is not enabled on the server".to_owned());
            }
            (Security::Ca(own), Security::Ca(other)) if own != other => {
                return Err("SSL authentication error while connecting.\n\nx509: certificate signed by unknown authority".to_owned());
            }
            (Security::Ca(_), _) if !self.root => {
                stdout.push_str("Enter password: ");
                return Err("inappropriate ioctl for device".to_owned());
            }
            _ => {}
        }
        match cluster.gateway(&address) {
            Ok(_) => Ok(Some(address)),
            Err(QueryError::NotAccepting) => {
                Err("server is not accepting clients\nSQLSTATE: 57P01".to_owned())
            }
            Err(_) => self.stalled(cluster, since),
        }
    }

    fn stalled(&self, cluster: &Cluster, since: Timestamp) -> Result<Option<Address>, String> {
        if cluster.now() < since + CONNECT_TIMEOUT {
            return Ok(None);
        }
        let port = 40_000 + since.subsec_microsecond() % 20_000;
        Err(format!("{DIAL}read tcp 127.0.0.1:{port}->{}: i/o timeout", self.address))
    }

    /// When a connection that is not answered is given up.
    pub(crate) fn gives_up(since: Timestamp) -> Timestamp {
        since + CONNECT_TIMEOUT
    }

    /// Connects to the admin service: the node's address, or why not.
    pub(crate) fn rpc(&self, cluster: &Cluster) -> Result<Address, String> {
        let failed = |reason: &str| {
            format!(
                "Failed to connect to the node: initial connection heartbeat failed: rpc error: code = Unavailable desc = all SubConns are in TransientFailure, latest connection error: {reason}"
            )
        };
        let handshake = |e: &str| {
            failed(&format!("connection error: desc = \"transport: authentication handshake failed: {e}\""))
        };
        if self.security.is_secure() && !self.root {
            return Err(format!("{NO_CERTS}problem with client cert for user root: not found"));
        }
        let address = self.resolved(cluster);
        let process = cluster.process(&address).filter(|p| !matches!(p.phase, Phase::Exited { .. }));
        let Some(process) = process else {
            let e = format!("dial tcp {}: connect: connection refused", self.address);
            let e = format!("connection error: desc = \"transport: Error while dialing {e}\"");
            return Err(format!("{DIAL}{}", failed(&e)));
        };
        match (&self.security, &process.security) {
            (Security::Insecure, Security::Ca(_)) => Err(format!(
                "server closed the connection.\nIs this a KwDB node?\n\nIf the node is configured to require secure connections,\nremove --insecure and configure secure credentials instead.\n\n{}",
                failed("connection closed")
            )),
            (Security::Ca(_), Security::Insecure) => Err(format!(
                "cannot establish secure connection to insecure server.\nMaybe use --insecure?\n\n{}",
                handshake("tls: first record does not look like a TLS handshake")
            )),
            (Security::Ca(own), Security::Ca(other)) if own != other => Err(format!(
                "SSL authentication error while connecting.\n\n{}",
                handshake("x509: certificate signed by unknown authority")
            )),
            _ => Ok(process.address),
        }
    }
}

/// The gRPC error text of a call that failed.
pub(crate) fn rpc_text(error: &RpcError, method: &str) -> String {
    match error {
        RpcError::WaitingForInit => format!(
            "rpc error: code = Unavailable desc = node waiting for init; /kwbase.server.serverpb.Admin/{method} not available"
        ),
        RpcError::Unreachable => "rpc error: code = Unavailable desc = transport is closing".to_owned(),
        other => format!("rpc error: code = Unknown desc = {other}"),
    }
}
