//! The ports of a cluster that `cluster.toml` describes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::assess::resolve;
use kwdb_scale_core::deploy::DeployScript;
use kwdb_scale_core::execute::{ObserveOptions, Ports, observe};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::kwbase::Kwbase;
use kwdb_scale_core::observation::Observation;
use kwdb_scale_core::plan::{Plan, gateways};
use kwdb_scale_core::ports::{FactSource, Gateway, Journal, PortError, PortErrorKind};
use kwdb_scale_core::request::Request;
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{ClusterId, HostName};
use kwdb_scale_local::{FileLock, SystemClock};
use kwdb_scale_rpc::Chosen;
use kwdb_scale_sql::{Secure, SqlSource};

use crate::config::{Config, Sql};
use crate::control;
use crate::failure::{Exit, Failure};
use crate::transport::Hosts;

/// A cluster within reach: nothing is connected before it is asked.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its description.
    pub config: Arc<Config>,
    /// Facts and settings.
    pub sql: SqlSource,
    /// The command line on the hosts: `deploy.sh` where that is a host's method, kwbase on the others.
    pub commands: Arc<DeployScript<Hosts>>,
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
        let transport = Arc::new(transport);
        let mut kwbase =
            Kwbase::new(transport.clone(), config.hosts.clone()).map_err(|e| usage(e.to_string()))?;
        kwbase = kwbase.with_clock(Arc::new(SystemClock::new()));
        if let Some(control) = &config.control_host {
            kwbase = kwbase.with_control_host(control.clone()).map_err(|e| usage(e.to_string()))?;
        }
        if let (Some(certificates), Some(dir)) = (&config.certificates, &config.certs) {
            let authority = certificates.authority(&config.hosts, &transport, &dir.join("ca.crt"));
            kwbase = kwbase.with_authority(authority.map_err(|e| usage(e.chain()))?);
        }
        let commands =
            DeployScript::new(kwbase, config.deploy.clone()).map_err(|e| usage(format!("[[host]] {e}")))?;
        Ok(Self { sql, commands: Arc::new(commands), config: Arc::new(config) })
    }

    /// The ports with a journal. The lock is the one in the cluster's own directory of journals, wherever this journal
    /// lies: one operation runs at a time.
    pub fn ports(&self, chosen: Chosen, journal: Arc<dyn Journal>) -> Ports {
        Ports {
            facts: Arc::new(self.sql.clone()),
            settings: Arc::new(self.sql.clone()),
            control: chosen.control,
            queue: chosen.queue,
            lifecycle: chosen.lifecycle,
            certificates: Some(self.commands.clone()),
            journal,
            lock: Arc::new(self.lock()),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// The ports for acts, with the members that stay.
    ///
    /// # Errors
    /// Exit code 2 or 3: the file demands the admin RPC, which cannot be had.
    pub async fn control(&self, gateways: &[Gateway]) -> Result<Chosen, Failure> {
        let chosen = control::choose(&self.config, &self.commands, gateways).await;
        chosen.map_err(|e| port_failure("the admin RPC, which control = \"rpc\" demands, cannot be had", &e))
    }

    /// The lock that lets one operation run at a time.
    pub fn lock(&self) -> FileLock {
        FileLock::in_dir(&self.config.journal)
    }

    /// The identity of the cluster that the file's own seeds lead to.
    ///
    /// # Errors
    /// Exit code 3: no seed answers.
    pub async fn id(&self) -> Result<ClusterId, Failure> {
        let mut tried = Vec::new();
        for seed in self.sql.seeds() {
            match self.sql.fetch(&seed, &Query::Cluster).await.map(|answer| answer.rows) {
                Ok(Rows::Cluster(row)) => return Ok(row.cluster_id),
                Ok(_) => tried.push(format!("{seed} answered something else")),
                Err(e) if e.kind() == PortErrorKind::Config => return Err(Failure::usage(e.chain())),
                Err(e) => tried.push(e.chain()),
            }
        }
        Err(unreadable(tried.join("; ")))
    }

    /// That the plan was made for the cluster of this file: its addresses lead to the other one otherwise, whatever
    /// the file says.
    ///
    /// # Errors
    /// Exit code 3: it was not, or no seed answers.
    pub async fn must_be_of(&self, plan: &Plan) -> Result<(), Failure> {
        let id = self.id().await?;
        if id == plan.cluster_id {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Refused,
            format!(
                "plan {} is for cluster {}, and {} leads to cluster {id}: name the file of the plan's cluster with \
                 --cluster, or make a plan for this one",
                plan.id,
                plan.cluster_id,
                self.config.path.display()
            ),
        ))
    }

    /// That certificates for these hosts would be theirs alone.
    ///
    /// # Errors
    /// Exit code 2: another host of the same machine has the same certificate directory.
    pub fn must_not_share_certificates<'a>(
        &self,
        hosts: impl IntoIterator<Item = &'a HostName>,
    ) -> Result<(), Failure> {
        let shared = |h: &'a HostName| Some((h, self.config.shares_certificates(h)?));
        match hosts.into_iter().find_map(shared) {
            None => Ok(()),
            Some((host, other)) => Err(Failure::usage(format!(
                "{}: hosts {host} and {other} have one certificate directory on one machine, so certificates for {host} \
                 would replace those of {other}; give {host} a certs_dir of its own, or leave --certificates out",
                self.config.path.display()
            ))),
        }
    }

    /// Makes the directory of journals, and proves that files can be made in it.
    ///
    /// # Errors
    /// Exit code 2: they cannot.
    pub fn journal_dir(&self, given: Option<&Path>) -> Result<PathBuf, Failure> {
        let dir = given.unwrap_or(&self.config.journal).to_owned();
        let probe = |dir: &Path| -> std::io::Result<()> {
            std::fs::create_dir_all(dir)?;
            tempfile::tempfile_in(dir).map(drop)
        };
        // The lock is in the file's own directory, wherever this journal lies.
        for needed in [&dir, &self.config.journal] {
            probe(needed).map_err(|e| {
                Failure::usage(format!(
                    "the journal directory {} cannot be used: {e}; nothing was done; give another with --journal or \
                     as `journal` in {}",
                    needed.display(),
                    self.config.path.display()
                ))
            })?;
        }
        Ok(dir)
    }

    /// Observes the cluster, for the request when there is one: then also with what nodes will be marked and stopped.
    ///
    /// # Errors
    /// Exit code 3: nobody answers, the CA is another, the user lacks the admin role; the file demands the admin RPC,
    /// which cannot be had.
    pub async fn observe(&self, request: Option<&Request>) -> Result<Observation, Failure> {
        let options = ObserveOptions {
            request: request.cloned(),
            inventory: self.config.inventory(),
            certificates: Some(self.commands.clone()),
            ..ObserveOptions::default()
        };
        let within = self.config.sql.observe_deadline;
        let facts: &dyn FactSource = &self.sql;
        let observed =
            tokio::time::timeout(within, observe(facts, Some(self.commands.as_ref()), &options)).await;
        let mut observation = match observed {
            Ok(Ok(observation)) => observation,
            Ok(Err(e)) if e.kind() == PortErrorKind::Config => return Err(Failure::usage(e.to_string())),
            Ok(Err(e)) => return Err(unreadable(e.last_chain())),
            Err(_) => return Err(too_late(within, &options.awaited.hosts())),
        };
        if observation.is_admin == Fact::Known(false) {
            let user = &self.config.sql.user;
            return Err(unreadable(format!(
                "user '{user}' lacks the admin role, without which the topology cannot be read; cure: GRANT admin TO {user}"
            )));
        }
        if let Some(request) = request {
            let leave = resolve(&observation, request).0.remove.into_iter().collect();
            let gateways = gateways(&observation, request, &leave);
            // Without anybody to ask, the checks say what is the matter.
            if !gateways.is_empty() {
                observation.means = Some(self.control(&gateways).await?.means);
            }
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

/// The time for an observation is over. Hosts are asked once SQL has answered.
fn too_late(within: Duration, hosts: &[HostName]) -> Failure {
    let within = within.as_secs_f32();
    if hosts.is_empty() {
        return unreadable(format!("no full answer within {within} s"));
    }
    let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    Failure::new(
        Exit::Refused,
        format!(
            "the cluster answers SQL, and these hosts had not told all after {within} s: {}; see what is the matter \
             with them (kwscale hosts {}), or allow more time (observe_deadline in [sql])",
            hosts.join(", "),
            hosts.join(" ")
        ),
    )
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
