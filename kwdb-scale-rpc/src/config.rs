//! What a caller configures: security and deadlines. The same names as in kwdb-scale-sql.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::secret::Secret;
use kwdb_scale_core::topology::Address;

use crate::AdminRpc;

/// Makes an [`AdminRpc`]. Start with [`AdminRpc::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    pub(crate) security: Security,
    pub(crate) connect_timeout: Duration,
    pub(crate) startup_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) max_channels: usize,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            security: Security::Insecure,
            connect_timeout: Duration::from_secs(5),
            startup_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(15),
            max_channels: 64,
        }
    }

    /// How the cluster is reached, [`Security::Insecure`] unless set.
    pub fn security(mut self, security: impl Into<Security>) -> Self {
        self.security = security.into();
        self
    }

    /// How long one TCP connection may take to be accepted, 5 s unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long TLS, HTTP/2 and the first answer may take after that, 5 s unless set.
    pub fn startup_timeout(mut self, timeout: Duration) -> Self {
        self.startup_timeout = timeout;
        self
    }

    /// After how long one attempt of a short call (status, mark, recommission, readiness) is given up and made again
    /// within the call's deadline, 10 s unless set and 100 ms at least. A server under load lets some calls run out.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout.max(Duration::from_millis(100));
        self
    }

    /// After how long without a word a channel is pinged, also while it is idle, 15 s unless set. A ping that is not
    /// answered within 10 s ends the channel.
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.keepalive = idle;
        self
    }

    /// How many channels are kept, one a node, 64 unless set. The one not used for longest goes first; calls on it end
    /// as they would have.
    pub fn max_channels(mut self, max: usize) -> Self {
        self.max_channels = max.max(1);
        self
    }

    /// Reads the certificate files and checks the configuration. Connects to nothing.
    ///
    /// Fails with [`Config`](PortErrorKind::Config) when a secure configuration has no client certificate, or files that
    /// do not fit together; with [`NotFound`](PortErrorKind::NotFound) when a file cannot be read. The message names the
    /// file.
    pub fn build(self) -> Result<AdminRpc, PortError> {
        AdminRpc::new(self)
    }
}

/// How a cluster is reached.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Security {
    /// Without TLS: a cluster started with `--insecure`.
    Insecure,
    /// With TLS always, the node's certificate and name verified.
    Secure(Secure),
}

impl From<Secure> for Security {
    fn from(secure: Secure) -> Self {
        Self::Secure(secure)
    }
}

/// A secure cluster: its CA, and the client certificate of `root` or `node`. Nobody else may call the admin service, and
/// no password will do.
#[derive(Clone, Debug)]
#[must_use]
pub struct Secure {
    pub(crate) ca: Pem,
    pub(crate) identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
    server_names: BTreeMap<Address, String>,
}

impl Secure {
    /// Verifies nodes against the CA certificates in a PEM file (`ca.crt`).
    pub fn ca_file(path: impl Into<PathBuf>) -> Self {
        Self::new(Pem::File(path.into()))
    }

    /// Verifies nodes against the CA certificates in a PEM text.
    pub fn ca_pem(pem: impl Into<String>) -> Self {
        Self::new(Pem::Text(Secret::new(pem)))
    }

    /// The files that `kwbase cert` makes: `ca.crt` and `client.<user>.crt` with its key in a directory; for the user
    /// `node`, `node.crt` and `node.key`.
    pub fn certs_dir(dir: impl AsRef<Path>, user: &str) -> Self {
        let dir = dir.as_ref();
        let stem = if user == "node" { user.to_owned() } else { format!("client.{user}") };
        Self::ca_file(dir.join("ca.crt"))
            .client_cert_files(dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")))
    }

    fn new(ca: Pem) -> Self {
        Self { ca, identity: None, server_name: None, server_names: BTreeMap::new() }
    }

    /// The client certificate, whose common name is the user. The key may be PKCS#1 (what `kwbase cert` makes), SEC1 or
    /// PKCS#8, not encrypted.
    pub fn client_cert_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(cert.into()), Pem::File(key.into())));
        self
    }

    /// The same with PEM texts.
    pub fn client_cert_pem(mut self, cert: impl Into<String>, key: Secret) -> Self {
        self.identity = Some((Pem::Text(Secret::new(cert)), Pem::Text(key)));
        self
    }

    /// The name that every node's certificate must be valid for, instead of the host of its address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The name that the certificate of the node at `address` must be valid for.
    pub fn server_name_of(mut self, address: Address, name: impl Into<String>) -> Self {
        self.server_names.insert(address, name.into());
        self
    }

    /// The name to verify for the node at `address`.
    pub(crate) fn name_of<'a>(&'a self, address: &'a Address) -> &'a str {
        self.server_names.get(address).or(self.server_name.as_ref()).map_or(address.host(), String::as_str)
    }
}

/// PEM in a file or at hand. The text of a key is never shown.
#[derive(Clone, Debug)]
pub(crate) enum Pem {
    File(PathBuf),
    Text(Secret),
}

impl Pem {
    /// The bytes; an error names the file.
    pub(crate) fn read(&self, what: &str) -> Result<Vec<u8>, PortError> {
        match self {
            Self::Text(text) => Ok(text.expose().as_bytes().to_vec()),
            Self::File(path) => std::fs::read(path).map_err(|e| {
                let message = format!("{what} '{}' cannot be read: {e}", path.display());
                PortError::new(PortErrorKind::NotFound, message).with_source(e)
            }),
        }
    }

    /// How to name it in a message.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => format!("'{}'", path.display()),
            Self::Text(_) => "given as text".to_owned(),
        }
    }
}

/// The two parts of an address, or why it cannot be used.
pub(crate) fn host_and_port(address: &Address) -> Result<(&str, u16), PortError> {
    let host = address.host();
    match address.port() {
        Some(port) if port != 0 && !host.is_empty() && !host.contains('/') => Ok((host, port)),
        _ => Err(PortError::new(
            PortErrorKind::Config,
            format!("'{address}' is not an RPC address (it should look like 10.0.0.1:26257)"),
        )),
    }
}
