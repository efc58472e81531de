//! Where the commands of a host run: on this machine, or over SSH.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use kwdb_scale_core::ports::{
    Command, CommandOutput, Detached, HostTransport, PortError, PortErrorKind, PortState, Spawned,
};
use kwdb_scale_core::topology::{Address, HostName};
use kwdb_scale_local::LocalTransport;
use kwdb_scale_ssh::{Privilege, SshConfig, SshFault, SshHost, SshTransport};

use crate::config::{Config, Reach};

/// Sends each host's commands the way that `cluster.toml` says.
#[derive(Clone, Debug)]
pub struct Hosts {
    local: LocalTransport,
    ssh: SshTransport,
    reach: BTreeMap<HostName, Reach>,
    /// Those that cannot be reached as their ssh_config says, and why.
    unusable: BTreeMap<HostName, (PortErrorKind, String)>,
}

impl Hosts {
    /// Reads the ssh_config of the hosts that are reached over SSH. Connects to nothing.
    ///
    /// # Errors
    /// `ssh -G` cannot be run or does not like its configuration; a host cannot be reached as it says.
    pub async fn of(config: &Config) -> Result<Self, PortError> {
        let hosts = Self::each_of(config).await?;
        match hosts.unusable.first_key_value() {
            Some((_, (kind, why))) => Err(PortError::new(*kind, why)),
            None => Ok(hosts),
        }
    }

    /// The same for work on each host by itself: one that cannot be reached as the ssh_config says fails by itself,
    /// whatever is asked of it.
    ///
    /// # Errors
    /// What is wrong for every host alike: `ssh -G` cannot be run or does not like its configuration.
    pub async fn each_of(config: &Config) -> Result<Self, PortError> {
        let read = match &config.ssh_config {
            Some(file) => SshConfig::in_file(file),
            None => SshConfig::of_user(),
        };
        let (mut here, mut there, mut unusable) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (name, reach) in &config.reach {
            match reach {
                Reach::Local => here.push(name.clone()),
                Reach::Ssh { destination, sudo } => {
                    match usable(&read, name, destination, sudo.as_ref()).await {
                        Ok(host) => there.push((name.clone(), host)),
                        Err(e) if SshFault::of(&e) == Some(SshFault::SshConfig) => return Err(e),
                        Err(e) => {
                            unusable.insert(name.clone(), (e.kind(), e.chain()));
                        }
                    }
                }
            }
        }
        Ok(Self {
            local: LocalTransport::new(here),
            ssh: SshTransport::new(there)?,
            reach: config.reach.clone(),
            unusable,
        })
    }

    fn to(&self, host: &HostName) -> Result<&dyn HostTransport, PortError> {
        if let Some((kind, why)) = self.unusable.get(host) {
            return Err(PortError::new(*kind, why));
        }
        Ok(match self.reach.get(host) {
            Some(Reach::Ssh { .. }) => &self.ssh,
            // It also tells of a host that it does not know.
            Some(Reach::Local) | None => &self.local,
        })
    }
}

/// A host as the ssh_config has it, and as a transport takes it.
async fn usable(
    read: &SshConfig,
    name: &HostName,
    destination: &str,
    sudo: Option<&Option<String>>,
) -> Result<SshHost, PortError> {
    let mut host = read.host(destination).await?;
    if let Some(user) = sudo {
        host = host.privilege(Privilege::Sudo { user: user.clone() });
    }
    SshTransport::new([(name.clone(), host.clone())])?;
    Ok(host)
}

#[async_trait]
impl HostTransport for Hosts {
    async fn connect(&self, host: &HostName) -> Result<(), PortError> {
        self.to(host)?.connect(host).await
    }

    async fn run(&self, host: &HostName, command: &Command) -> Result<CommandOutput, PortError> {
        self.to(host)?.run(host, command).await
    }

    async fn spawn(&self, host: &HostName, detached: &Detached) -> Result<Spawned, PortError> {
        self.to(host)?.spawn(host, detached).await
    }

    async fn put(&self, host: &HostName, path: &str, content: &[u8], mode: u32) -> Result<(), PortError> {
        self.to(host)?.put(host, path, content, mode).await
    }

    async fn get(&self, host: &HostName, path: &str, max: usize) -> Result<Vec<u8>, PortError> {
        self.to(host)?.get(host, path, max).await
    }

    async fn probe(
        &self,
        host: &HostName,
        address: &Address,
        deadline: Duration,
    ) -> Result<PortState, PortError> {
        self.to(host)?.probe(host, address, deadline).await
    }
}
