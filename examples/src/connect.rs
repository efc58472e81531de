//! The ports of a cluster that `cluster.toml` describes.

use std::path::Path;
use std::sync::Arc;

use kwdb_scale_core::execute::{ObserveOptions, Ports, observe};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::kwbase::Kwbase;
use kwdb_scale_core::observation::Observation;
use kwdb_scale_core::ports::{FactSource, Journal, PortError, PortErrorKind};
use kwdb_scale_core::request::Request;
use kwdb_scale_local::{FileLock, SystemClock};
use kwdb_scale_sql::{Secure, SqlSource};

use crate::config::{Config, Sql};
use crate::failure::{Exit, Failure};
use crate::transport::Hosts;

/// A cluster within reach: nothing is connected before it is asked.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its description.
    pub config: Arc<Config>,
    /// Facts and settings.
    pub sql: SqlSource,
    /// The command line on the hosts.
    pub kwbase: Arc<Kwbase<Hosts>>,
}

impl Cluster {
    /// Reads the file and the keys that it names, and the ssh_config where hosts are reached over SSH. Connects to
    /// nothing.
    ///
    /// # Errors
    /// Exit code 2: a file or key is missing or makes no sense.
    pub async fn open(path: &Path) -> Result<Self, Failure> {
        Self::of(Config::read(path).map_err(|e| Failure::usage(e.to_string()))?).await
    }

    /// The same for a description at hand.
    ///
    /// # Errors
    /// Exit code 2: a key is missing or makes no sense.
    pub async fn of(config: Config) -> Result<Self, Failure> {
        let usage = |what: String| Failure::usage(format!("{}: {what}", config.path.display()));
        let mut builder = SqlSource::builder(config.seeds.clone())
            .user(config.sql.user.clone())
            .connect_timeout(config.sql.connect_timeout)
            .statement_timeout(config.sql.statement_timeout)
            .deadline(config.sql.deadline);
        if let Some(dir) = &config.certs {
            builder = builder.security(security(dir, &config.sql));
        }
        // Everything that can be wrong before the first connection is wrong in the file or in what it names.
        let sql = builder.build().map_err(|e| usage(e.chain()))?;
        let transport = Hosts::of(&config).await.map_err(|e| usage(e.chain()))?;
        let mut kwbase =
            Kwbase::new(Arc::new(transport), config.hosts.clone()).map_err(|e| usage(e.to_string()))?;
        if let Some(control) = &config.control_host {
            kwbase = kwbase.with_control_host(control.clone()).map_err(|e| usage(e.to_string()))?;
        }
        Ok(Self { sql, kwbase: Arc::new(kwbase), config: Arc::new(config) })
    }

    /// The ports with a journal. The lock is the one in the cluster's own directory of journals, wherever this journal
    /// lies: one operation runs at a time.
    pub fn ports(&self, journal: Arc<dyn Journal>) -> Ports {
        Ports {
            facts: Arc::new(self.sql.clone()),
            settings: Arc::new(self.sql.clone()),
            control: self.kwbase.clone(),
            lifecycle: self.kwbase.clone(),
            journal,
            lock: Arc::new(self.lock()),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// The lock that lets one operation run at a time.
    pub fn lock(&self) -> FileLock {
        FileLock::in_dir(&self.config.journal)
    }

    /// Observes the cluster, for the request when there is one.
    ///
    /// # Errors
    /// Exit code 3: nobody answers, the CA is another, the user lacks the admin role.
    pub async fn observe(&self, request: Option<&Request>) -> Result<Observation, Failure> {
        let options = ObserveOptions { request: request.cloned(), inventory: self.config.inventory() };
        let within = self.config.sql.observe_deadline;
        let facts: &dyn FactSource = &self.sql;
        let observed =
            tokio::time::timeout(within, observe(facts, Some(self.kwbase.as_ref()), &options)).await;
        let observation = match observed {
            Ok(Ok(observation)) => observation,
            Ok(Err(e)) if e.kind() == PortErrorKind::Config => return Err(Failure::usage(e.to_string())),
            Ok(Err(e)) => return Err(unreadable(e.last_chain())),
            Err(_) => return Err(unreadable(format!("no full answer within {} s", within.as_secs_f32()))),
        };
        if observation.is_admin == Fact::Known(false) {
            let user = &self.config.sql.user;
            return Err(unreadable(format!(
                "user '{user}' lacks the admin role, without which the topology cannot be read; cure: GRANT admin TO {user}"
            )));
        }
        Ok(observation)
    }
}

trait LastChain {
    fn last_chain(&self) -> String;
}

impl LastChain for kwdb_scale_core::execute::ObserveError {
    /// The error with the last cause, whose own chain is one line.
    fn last_chain(&self) -> String {
        let tried: Vec<String> = self.tried.iter().map(|(a, ..)| a.to_string()).collect();
        match tried.as_slice() {
            [] | [_] => self.last.chain(),
            many => format!("tried {}; the last said: {}", many.join(", "), self.last.chain()),
        }
    }
}

fn unreadable(why: String) -> Failure {
    Failure::new(Exit::Refused, format!("the cluster cannot be read: {why}"))
}

fn security(dir: &Path, sql: &Sql) -> Secure {
    let mut secure = if sql.client_certificate {
        Secure::certs_dir(dir, &sql.user)
    } else {
        Secure::ca_file(dir.join("ca.crt"))
    };
    if let Some(password) = &sql.password {
        secure = secure.password(password.clone());
    }
    if let Some(name) = &sql.server_name {
        secure = secure.server_name(name.clone());
    }
    secure
}

/// The exit code of an error of a port that is met while the cluster is read or changed.
pub(crate) fn port_failure(what: &str, error: &PortError) -> Failure {
    Failure::new(crate::failure::exit_of(error.kind()), format!("{what}: {}", error.chain()))
}
