//! What a caller configures: seeds, user, security, deadlines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::secret::Secret;
use kwdb_scale_core::topology::Address;

use crate::SqlSource;

/// Makes a [`SqlSource`]. Start with [`SqlSource::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    pub(crate) seeds: Vec<Address>,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) application_name: String,
    pub(crate) security: Security,
    pub(crate) connect_timeout: Duration,
    pub(crate) startup_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) keepalive: Duration,
}

impl Builder {
    pub(crate) fn new(seeds: Vec<Address>) -> Self {
        Self {
            seeds,
            user: "root".to_owned(),
            database: "system".to_owned(),
            application_name: "kwdb-scale".to_owned(),
            security: Security::Insecure,
            connect_timeout: Duration::from_secs(5),
            startup_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(15),
            deadline: Duration::from_secs(30),
            keepalive: Duration::from_secs(15),
        }
    }

    /// The SQL user, `root` unless set. It needs the admin role: the topology tables cannot be read without.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// The database, `system` unless set. No statement depends on it.
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.database = database.into();
        self
    }

    /// What `SHOW SESSIONS` shows, `kwdb-scale` unless set.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
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

    /// How long TLS and log-in may take after that, 5 s unless set. A node that waits for `init`, or that has not
    /// joined yet, accepts connections and then says nothing.
    pub fn startup_timeout(mut self, timeout: Duration) -> Self {
        self.startup_timeout = timeout;
        self
    }

    /// After how long the *server* gives a statement up (`SET statement_timeout`), 15 s unless set. KWDB ignores
    /// cancel requests, so this is the only thing that ends a statement there. Keep it below the deadline.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// How long one question may take in all, connecting and waiting for an earlier question through the same
    /// node included; 30 s unless set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// After how long an idle connection is probed (TCP keepalive), 15 s unless set.
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.keepalive = idle;
        self
    }

    /// Reads the certificate files and checks the configuration. Connects to nothing.
    ///
    /// Fails with [`Config`](PortErrorKind::Config) when there is no seed, an address has no port, or a secure
    /// configuration has neither client certificate nor password; with [`NotFound`](PortErrorKind::NotFound)
    /// when a file cannot be read. The message names the file.
    pub fn build(self) -> Result<SqlSource, PortError> {
        if self.seeds.is_empty() {
            return Err(PortError::new(PortErrorKind::Config, "no SQL address is given"));
        }
        for seed in &self.seeds {
            host_and_port(seed)?;
        }
        SqlSource::new(self)
    }
}

/// How a cluster is reached.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Security {
    /// Without TLS and without a password: a cluster started with `--insecure`.
    Insecure,
    /// With TLS always, the node's certificate and name verified.
    Secure(Secure),
}

impl From<Secure> for Security {
    fn from(secure: Secure) -> Self {
        Self::Secure(secure)
    }
}

/// A secure cluster: its CA, and a client certificate or a password or both.
///
/// TLS is demanded, whatever the node says: a secure KWDB accepts a plaintext connection and asks there for the
/// password in clear text, so a client that falls back gives it away.
#[derive(Clone, Debug)]
#[must_use]
pub struct Secure {
    pub(crate) ca: Pem,
    pub(crate) identity: Option<(Pem, Pem)>,
    pub(crate) password: Option<Secret>,
    pub(crate) server_name: Option<String>,
    pub(crate) server_names: BTreeMap<Address, String>,
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

    /// The files that `kwbase cert` makes: `ca.crt`, `client.<user>.crt` and `client.<user>.key` in a directory.
    pub fn certs_dir(dir: impl AsRef<Path>, user: &str) -> Self {
        let dir = dir.as_ref();
        Self::ca_file(dir.join("ca.crt"))
            .client_cert_files(dir.join(format!("client.{user}.crt")), dir.join(format!("client.{user}.key")))
    }

    fn new(ca: Pem) -> Self {
        Self { ca, identity: None, password: None, server_name: None, server_names: BTreeMap::new() }
    }

    /// Logs in with a client certificate, whose common name is the user. The key may be PKCS#1 (what
    /// `kwbase cert` makes), SEC1 or PKCS#8, not encrypted.
    pub fn client_cert_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(cert.into()), Pem::File(key.into())));
        self
    }

    /// The same with PEM texts.
    pub fn client_cert_pem(mut self, cert: impl Into<String>, key: Secret) -> Self {
        self.identity = Some((Pem::Text(Secret::new(cert)), Pem::Text(key)));
        self
    }

    /// Logs in with a password, used when the server asks for one. It is sent under TLS only.
    pub fn password(mut self, password: Secret) -> Self {
        self.password = Some(password);
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
            format!("'{address}' is not an SQL address (it should look like 10.0.0.1:26257)"),
        )),
    }
}
