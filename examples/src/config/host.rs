//! `[[host]]`: how one host runs kwbase, and how it is reached.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kwdb_scale_core::deploy::{self, DeployHost};
use kwdb_scale_core::kwbase::{KwbaseHost, PROGRAM, Security, StoreSpec};
use kwdb_scale_core::owner::Owner;
use kwdb_scale_core::topology::{Address, HostName, Locality};
use serde::Deserialize;

/// How a host is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reach {
    /// It is this machine.
    Local,
    /// Over SSH.
    Ssh {
        /// What `ssh` would be called with: `host`, `user@host` or a name of the ssh_config.
        destination: String,
        /// Through `sudo -n`, as another user or as root.
        sudo: Option<Option<String>>,
    },
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Transport {
    #[default]
    Local,
    Ssh,
}

/// `true` is root.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Sudo {
    Is(bool),
    User(String),
}

/// With what nodes of a host are started, marked and stopped.
#[derive(Clone, Copy, Default, Deserialize)]
enum Method {
    #[default]
    #[serde(rename = "kwbase")]
    Kwbase,
    #[serde(rename = "deploy.sh")]
    DeploySh,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OwnerName {
    #[default]
    Quit,
    Systemd,
    Container,
}

/// The fields of [`KwbaseHost`], written out so that an unknown key is an error, and how the host is reached.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostTable {
    pub(super) name: HostName,
    #[serde(default)]
    transport: Transport,
    ssh: Option<String>,
    sudo: Option<Sudo>,
    program: Option<String>,
    #[serde(default)]
    exec_prefix: Vec<String>,
    certs_dir: Option<PathBuf>,
    stores: Option<Vec<StoreSpec>>,
    listen_addr: Option<Address>,
    advertise_addr: Option<Address>,
    sql_addr: Option<Address>,
    advertise_sql_addr: Option<Address>,
    http_addr: Option<Address>,
    brpc_addr: Option<Address>,
    locality: Option<Locality>,
    #[serde(default)]
    attrs: Vec<String>,
    cache: Option<String>,
    max_sql_memory: Option<String>,
    max_offset: Option<String>,
    #[serde(default)]
    ts_store: Vec<String>,
    #[serde(default)]
    use_raft_store: bool,
    pid_file: Option<String>,
    #[serde(default)]
    extra_flags: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    background: Option<bool>,
    output_file: Option<String>,
    #[serde(default)]
    method: Method,
    install_dir: Option<String>,
    ca_dir: Option<String>,
    keep_ca_key: Option<bool>,
    all_seeds: Option<bool>,
    root: Option<String>,
    owner: Option<OwnerName>,
    unit: Option<String>,
    engine: Option<String>,
    container: Option<String>,
}

impl HostTable {
    pub(super) fn reach(&self) -> Result<Reach, String> {
        match self.transport {
            Transport::Local if self.ssh.is_some() || self.sudo.is_some() => Err(format!(
                "[[host]] host {}: ssh and sudo are for hosts with transport = \"ssh\"; add that, or leave them out",
                self.name
            )),
            Transport::Local => Ok(Reach::Local),
            Transport::Ssh => Ok(Reach::Ssh {
                destination: self.ssh.clone().unwrap_or_else(|| self.name.to_string()),
                sudo: match self.sudo.clone() {
                    None | Some(Sudo::Is(false)) => None,
                    Some(Sudo::Is(true)) => Some(None),
                    Some(Sudo::User(user)) => Some(Some(user)),
                },
            }),
        }
    }

    /// How the host runs `deploy.sh`, where that is its method.
    pub(super) fn deploy(&self) -> Result<Option<DeployHost>, String> {
        let name = &self.name;
        match self.method {
            Method::Kwbase => {
                let given = [
                    ("install_dir", self.install_dir.is_some()),
                    ("ca_dir", self.ca_dir.is_some()),
                    ("keep_ca_key", self.keep_ca_key.is_some()),
                    ("all_seeds", self.all_seeds.is_some()),
                    ("root", self.root.is_some()),
                ];
                match given.iter().find(|(_, given)| *given) {
                    None => Ok(None),
                    Some((key, _)) => Err(format!(
                        "[[host]] host {name}: {key} is for hosts with method = \"deploy.sh\"; add that, or leave it out"
                    )),
                }
            }
            Method::DeploySh => {
                let Some(install_dir) = &self.install_dir else {
                    return Err(format!(
                        "[[host]] host {name}: method = \"deploy.sh\" without install_dir; name the directory that holds \
                         deploy.sh"
                    ));
                };
                if self.owner.is_some()
                    || self.unit.is_some()
                    || self.engine.is_some()
                    || self.container.is_some()
                {
                    return Err(format!(
                        "[[host]] host {name}: with method = \"deploy.sh\" the owner is always unit {}; leave owner, unit, \
                         engine and container out",
                        deploy::UNIT
                    ));
                }
                let host = DeployHost {
                    ca_dir: self.ca_dir.clone(),
                    keep_ca_key: self.keep_ca_key.unwrap_or(false),
                    all_seeds: self.all_seeds.unwrap_or(false),
                    root: self.root.clone().unwrap_or_default(),
                    ..DeployHost::new(name.clone(), install_dir.clone())
                };
                host.validate().map_err(|e| format!("[[host]] {e}"))?;
                Ok(Some(host))
            }
        }
    }

    /// What starts and stops the node's process.
    pub(super) fn owner(&self) -> Result<Owner, String> {
        let stray = |keys: &[(&str, &Option<String>)], owner: &str| match keys
            .iter()
            .find(|(_, value)| value.is_some())
        {
            None => Ok(()),
            Some((key, _)) => Err(format!(
                "[[host]] host {}: {key} is for hosts with owner = \"{owner}\"; add that, or leave it out",
                self.name
            )),
        };
        let unit = [("unit", &self.unit)];
        let container = [("engine", &self.engine), ("container", &self.container)];
        let owner = self.owner.unwrap_or_default();
        if !matches!(owner, OwnerName::Systemd) {
            stray(&unit, "systemd")?;
        }
        if !matches!(owner, OwnerName::Container) {
            stray(&container, "container")?;
        }
        Ok(match owner {
            OwnerName::Quit => Owner::Quit,
            OwnerName::Systemd => {
                Owner::Systemd { unit: self.unit.clone().unwrap_or_else(|| deploy::UNIT.to_owned()) }
            }
            OwnerName::Container => Owner::Container {
                engine: self.engine.clone().unwrap_or_else(|| "docker".to_owned()),
                name: self.container.clone().ok_or_else(|| {
                    format!(
                        "[[host]] host {}: owner = \"container\" without container; write the container's name",
                        self.name
                    )
                })?,
            },
        })
    }

    pub(super) fn into_host(self, base: &Path, certs: Option<&Path>) -> KwbaseHost {
        let scripted = matches!(self.method, Method::DeploySh);
        let security = match (self.certs_dir.as_deref(), certs) {
            // The script knows only this one.
            (None, Some(_)) if scripted => Security::Certs {
                certs_dir: format!("{}{}", self.root.as_deref().unwrap_or_default(), deploy::CERTS_DIR),
            },
            (Some(dir), _) => Security::Certs { certs_dir: base.join(dir).display().to_string() },
            (None, Some(dir)) => Security::Certs { certs_dir: dir.display().to_string() },
            (None, None) => Security::Insecure,
        };
        let mut host = KwbaseHost::new(self.name, security);
        host.program = self.program.unwrap_or_else(|| PROGRAM.to_owned());
        host.exec_prefix = self.exec_prefix;
        if let Some(stores) = self.stores {
            host.stores = stores;
        }
        host.listen_addr = self.listen_addr;
        host.advertise_addr = self.advertise_addr;
        host.sql_addr = self.sql_addr;
        host.advertise_sql_addr = self.advertise_sql_addr;
        host.http_addr = self.http_addr;
        host.brpc_addr = self.brpc_addr;
        host.locality = self.locality;
        host.attrs = self.attrs;
        host.cache = self.cache;
        host.max_sql_memory = self.max_sql_memory;
        host.max_offset = self.max_offset;
        host.ts_store = self.ts_store;
        host.use_raft_store = self.use_raft_store;
        host.pid_file = self.pid_file;
        host.extra_flags = self.extra_flags;
        host.env = self.env;
        host.background = self.background.unwrap_or(true);
        host.output_file = self.output_file;
        host
    }
}
