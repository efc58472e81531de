//! Where the commands of a host run: on this machine, or over SSH.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use kwdb_scale_core::ports::{
    Command, CommandOutput, Detached, HostTransport, PortError, PortState, Spawned,
};
use kwdb_scale_core::topology::{Address, HostName};
use kwdb_scale_local::LocalTransport;
use kwdb_scale_ssh::{Privilege, SshConfig, SshTransport};

use crate::config::{Config, Reach};

/// Sends each host's commands the way that `cluster.toml` says.
#[derive(Clone, Debug)]
pub struct Hosts {
    local: LocalTransport,
    ssh: SshTransport,
    reach: BTreeMap<HostName, Reach>,
}

impl Hosts {
    /// Reads the ssh_config of the hosts that are reached over SSH. Connects to nothing.
    ///
    /// # Errors
    /// `ssh -G` cannot be run or does not like its configuration; a host cannot be reached as it says.
    pub async fn of(config: &Config) -> Result<Self, PortError> {
        let read = match &config.ssh_config {
            Some(file) => SshConfig::in_file(file),
            None => SshConfig::of_user(),
        };
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for (name, reach) in &config.reach {
            match reach {
                Reach::Local => here.push(name.clone()),
                Reach::Ssh { destination, sudo } => {
                    let mut host = read.host(destination).await?;
                    if let Some(user) = sudo {
                        host = host.privilege(Privilege::Sudo { user: user.clone() });
                    }
                    there.push((name.clone(), host));
                }
            }
        }
        Ok(Self {
            local: LocalTransport::new(here),
            ssh: SshTransport::new(there)?,
            reach: config.reach.clone(),
        })
    }

    fn to(&self, host: &HostName) -> &dyn HostTransport {
        match self.reach.get(host) {
            Some(Reach::Ssh { .. }) => &self.ssh,
            // It also tells of a host that it does not know.
            Some(Reach::Local) | None => &self.local,
        }
    }
}

#[async_trait]
impl HostTransport for Hosts {
    async fn connect(&self, host: &HostName) -> Result<(), PortError> {
        self.to(host).connect(host).await
    }

    async fn run(&self, host: &HostName, command: &Command) -> Result<CommandOutput, PortError> {
        self.to(host).run(host, command).await
    }

    async fn spawn(&self, host: &HostName, detached: &Detached) -> Result<Spawned, PortError> {
        self.to(host).spawn(host, detached).await
    }

    async fn put(&self, host: &HostName, path: &str, content: &[u8], mode: u32) -> Result<(), PortError> {
        self.to(host).put(host, path, content, mode).await
    }

    async fn get(&self, host: &HostName, path: &str, max: usize) -> Result<Vec<u8>, PortError> {
        self.to(host).get(host, path, max).await
    }

    async fn probe(
        &self,
        host: &HostName,
        address: &Address,
        deadline: Duration,
    ) -> Result<PortState, PortError> {
        self.to(host).probe(host, address, deadline).await
    }
}
