//! `cluster.toml`: how an operator describes a cluster to `kwscale`. `docs/cluster-toml.md` tells of every key.
//!
//! Unknown keys are errors, and every error names the file, the line or key, the reason and the cure.

mod certificates;
mod host;
mod policy;
mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use kwdb_scale_core::deploy::DeployHost;
use kwdb_scale_core::kwbase::{KwbaseHost, Security};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::request::{Inventory, InventoryHost};
use kwdb_scale_core::topology::{Address, HostName};
use serde::Deserialize;
use toml::Spanned;

pub use certificates::Certificates;
use certificates::CertificatesTable;
use host::HostTable;
pub use host::Reach;
pub use policy::LONGEST;
use policy::policy_of;
pub use sql::Sql;
use sql::SqlTable;

use crate::control::Choice;

/// A cluster as its file describes it, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// Name for people.
    pub label: String,
    /// SQL addresses to begin with.
    pub seeds: Vec<Address>,
    /// Directory with `ca.crt` and client certificates; `None` on an insecure cluster.
    pub certs: Option<PathBuf>,
    /// Where kwbase runs when the gateway's host is not known.
    pub control_host: Option<HostName>,
    /// Over the admin RPC or by the command line.
    pub control: Choice,
    /// Where journals are kept, and the lock.
    pub journal: PathBuf,
    /// How SQL is spoken.
    pub sql: Sql,
    /// Thresholds and waits.
    pub policy: Policy,
    /// The hosts, in the order of the file.
    pub hosts: Vec<KwbaseHost>,
    /// How each host is reached.
    pub reach: BTreeMap<HostName, Reach>,
    /// Those whose nodes are started and marked with `deploy.sh`.
    pub deploy: Vec<DeployHost>,
    /// The ssh_config that says how, for those that are reached over SSH; the user's own when `None`.
    pub ssh_config: Option<PathBuf>,
    /// Who issues certificates for hosts that join, when somebody does.
    pub certificates: Option<Certificates>,
}

/// What is wrong with the file.
#[derive(Debug)]
pub struct ConfigError {
    path: PathBuf,
    line: Option<usize>,
    what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for ConfigError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: Spanned<ClusterTable>,
    #[serde(default)]
    sql: Option<Spanned<SqlTable>>,
    #[serde(default)]
    policy: BTreeMap<Spanned<String>, toml::Value>,
    #[serde(default)]
    ssh: SshTable,
    certificates: Option<Spanned<CertificatesTable>>,
    #[serde(default)]
    host: Vec<Spanned<HostTable>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SshTable {
    config: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterTable {
    label: Option<String>,
    secure: bool,
    seeds: Option<Vec<Address>>,
    certs: Option<PathBuf>,
    control_host: Option<HostName>,
    #[serde(default)]
    control: Choice,
    journal: Option<PathBuf>,
}

impl Config {
    /// Reads and checks the file. Connects to nothing.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, is not TOML, has an unknown key, or something in it makes no
    /// sense.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|e| ConfigError {
            path: path.to_owned(),
            line: None,
            what: format!("cannot be read: {e}; name the cluster's file with --cluster or KWSCALE_CLUSTER"),
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let line_of = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
        let fail = |at: Option<usize>, what: String| ConfigError {
            path: path.to_owned(),
            line: at.map(line_of),
            what,
        };
        let file: File = toml::from_str(text).map_err(|e| {
            let message = e.message().split_whitespace().collect::<Vec<_>>().join(" ");
            fail(e.span().map(|s| s.start), format!("{message}; docs/cluster-toml.md tells of every key"))
        })?;
        let base = base_of(path);
        let at = |p: &Path| base.join(p);

        let cluster_at = Some(file.cluster.span().start);
        let cluster = file.cluster.into_inner();
        let certs = match (cluster.secure, &cluster.certs) {
            (true, Some(dir)) => Some(at(dir)),
            (true, None) => {
                let what = "[cluster]: secure = true without certs; name the directory that holds ca.crt and \
                            client.<user>.crt and .key";
                return Err(fail(cluster_at, what.to_owned()));
            }
            (false, Some(_)) => {
                let what = "[cluster]: certs with secure = false; leave certs out, or set secure = true";
                return Err(fail(cluster_at, what.to_owned()));
            }
            (false, None) => None,
        };

        let mut hosts = Vec::new();
        let mut names = BTreeSet::new();
        let mut reach = BTreeMap::new();
        let mut deploy = Vec::new();
        for spanned in file.host {
            let here = Some(spanned.span().start);
            let table = spanned.into_inner();
            let way = table.reach().map_err(|what| fail(here, what))?;
            let scripted = table.deploy().map_err(|what| fail(here, what))?;
            let owner = table.owner().map_err(|what| fail(here, what))?;
            let mut host = table.into_host(&base, certs.as_deref());
            host.owner = owner;
            if host.name.as_str().starts_with('-')
                || host.name.as_str().chars().any(|c| c.is_control() || c.is_whitespace())
            {
                let what = format!(
                    "[[host]]: the name '{}' cannot be given to a command; write letters, digits, dots and dashes",
                    host.name.as_str().escape_debug()
                );
                return Err(fail(here, what));
            }
            host.validate().map_err(|e| fail(here, format!("[[host]] {e}")))?;
            if !names.insert(host.name.clone()) {
                let what = format!(
                    "[[host]]: the name '{}' stands there twice; give each a name of its own",
                    host.name
                );
                return Err(fail(here, what));
            }
            if host.name.as_str().chars().all(|c| c.is_ascii_digit()) {
                let what = format!(
                    "[[host]]: the name '{}' is a number, which commands take for a node id; give it another name",
                    host.name
                );
                return Err(fail(here, what));
            }
            if host.rpc_address().is_none() {
                let what = format!(
                    "[[host]] host {}: neither advertise_addr nor listen_addr names a host, so its node cannot be \
                     found by its address; write advertise_addr = \"host:port\"",
                    host.name
                );
                return Err(fail(here, what));
            }
            if let Some(zero) = host.rpc_address().filter(|a| a.port() == Some(0)) {
                let what = format!(
                    "[[host]] host {}: {zero} has port 0, at which no node is found; write its port",
                    host.name
                );
                return Err(fail(here, what));
            }
            if let Some(other) = hosts.iter().find(|h: &&KwbaseHost| h.rpc_address() == host.rpc_address()) {
                let what = format!(
                    "[[host]]: hosts {} and {} have one address; give each its own",
                    other.name, host.name
                );
                return Err(fail(here, what));
            }
            reach.insert(host.name.clone(), way);
            deploy.extend(scripted);
            hosts.push(host);
        }

        let seeds = match cluster.seeds {
            Some(seeds) => seeds,
            None => hosts.iter().filter_map(KwbaseHost::sql_address).collect(),
        };
        if seeds.is_empty() {
            let what =
                "[cluster]: no seeds and no [[host]]; name at least one SQL address of a node in seeds";
            return Err(fail(cluster_at, what.to_owned()));
        }
        for seed in &seeds {
            if seed.port().is_none_or(|p| p == 0) || seed.host().is_empty() {
                let what = format!("[cluster]: the seed '{seed}' is no SQL address; write host:port");
                return Err(fail(cluster_at, what));
            }
        }
        if let Some(control) = &cluster.control_host
            && !names.contains(control)
        {
            let what =
                format!("[cluster]: control_host '{control}' is not one of the [[host]] tables; add it");
            return Err(fail(cluster_at, what));
        }

        let ssh_config = match file.ssh.config {
            None => None,
            Some(config) if config.as_os_str().is_empty() || at(&config).is_dir() => {
                let what = format!(
                    "[ssh]: config = \"{}\" is not the path of a file; name the ssh_config, or leave config out for ssh's own",
                    config.display().to_string().escape_debug()
                );
                return Err(fail(None, what));
            }
            // One that is not there, ssh names itself.
            Some(config) => Some(at(&config)),
        };

        let certificates_at = file.certificates.as_ref().map(|c| c.span().start);
        let certificates = file
            .certificates
            .map(|c| c.into_inner().into_certificates(&base, cluster.secure, &hosts))
            .transpose()
            .map_err(|what| fail(certificates_at, what))?;

        let sql_at = file.sql.as_ref().map(|s| s.span().start);
        let sql = file.sql.map(Spanned::into_inner).unwrap_or_default();
        let sql = sql.into_sql(&base, certs.as_deref()).map_err(|what| fail(sql_at, what))?;
        let policy = policy_of(&file.policy).map_err(|(at, what)| fail(Some(at), what))?;

        Ok(Self {
            label: cluster.label.unwrap_or_else(|| "cluster".to_owned()).replace(char::is_control, " "),
            seeds,
            certs,
            control_host: cluster.control_host,
            control: cluster.control,
            journal: at(cluster.journal.as_deref().unwrap_or(Path::new("kwscale-journal"))),
            sql,
            policy,
            hosts,
            reach,
            deploy,
            ssh_config,
            certificates,
            path: path.to_owned(),
        })
    }

    /// Another host that has the same certificate directory on the same machine: certificates for one would replace the
    /// other's.
    pub fn shares_certificates(&self, name: &HostName) -> Option<&HostName> {
        let dir = |host: &KwbaseHost| match &host.security {
            Security::Certs { certs_dir } => Some(certs_dir.trim_end_matches('/').to_owned()),
            Security::Insecure => None,
        };
        let machine = |host: &KwbaseHost| match self.reach.get(&host.name) {
            Some(Reach::Ssh { destination, .. }) => Some(destination.clone()),
            _ => None,
        };
        let own = self.hosts.iter().find(|h| h.name == *name)?;
        let same = |h: &&KwbaseHost| {
            h.name != own.name && dir(h) == dir(own) && dir(h).is_some() && machine(h) == machine(own)
        };
        self.hosts.iter().find(same).map(|h| &h.name)
    }

    /// What planning needs to know of the hosts.
    pub fn inventory(&self) -> Inventory {
        let entry = |host: &KwbaseHost| {
            let address = host.rpc_address()?;
            let sql_address = host.sql_address().filter(|sql| *sql != address);
            let brpc_address = host.brpc_address();
            Some((host.name.clone(), InventoryHost { address, sql_address, brpc_address }))
        };
        Inventory {
            hosts: self.hosts.iter().filter_map(entry).collect(),
            control: self.control_host.clone(),
            authority: self.certificates.as_ref().and_then(|c| c.ca_host.clone()),
            // An insecure cluster has none. Where [certificates] names one, it is looked at.
            authority_elsewhere: self.certs.is_none(),
        }
    }
}

/// The directory of the file, absolute where that can be told.
fn base_of(path: &Path) -> PathBuf {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kwdb_scale_core::kwbase::Security;
    use kwdb_scale_core::owner::Owner;

    const MINIMAL: &str =
        "[cluster]\nsecure = false\n[[host]]\nname = \"n1\"\nlisten_addr = \"10.0.0.1:26257\"\n";

    const SECURE: &str = "[cluster]\nsecure = true\ncerts = \"c\"\n[[host]]\nname = \"n1\"\n\
                          listen_addr = \"10.0.0.1:26257\"\n";

    #[test]
    fn a_certificate_directory_of_two_hosts_is_noticed() {
        let more = "[[host]]\nname = \"n2\"\nlisten_addr = \"10.0.0.2:26257\"\n";
        let config = parse(&format!("{SECURE}{more}")).unwrap();
        assert_eq!(config.shares_certificates(&HostName::new("n2")), Some(&HostName::new("n1")));
        for own in ["certs_dir = \"/c2\"\n", "transport = \"ssh\"\n"] {
            let config = parse(&format!("{SECURE}{more}{own}")).unwrap();
            assert_eq!(config.shares_certificates(&HostName::new("n2")), None, "{own}");
        }
        let config = parse(&format!("{SECURE}[certificates]\nca_key = \"safe/ca.key\"\n")).unwrap();
        // Where a key is said to lie is looked at, not believed.
        let inventory = config.inventory();
        assert_eq!((inventory.authority, inventory.authority_elsewhere), (None, false));
        assert!(parse(MINIMAL).unwrap().inventory().authority_elsewhere, "it has no authority");
        let certificates = config.certificates.unwrap();
        assert_eq!(certificates.ca_key, Path::new("/c/safe/ca.key"));
        assert_eq!(certificates.ca_crt, Path::new("/c/safe/ca.crt"));
    }

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/c/cluster.toml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn little_is_enough() {
        let config = parse(MINIMAL).unwrap();
        assert_eq!(config.seeds, [Address::new("10.0.0.1:26257")]);
        assert_eq!(config.sql.user, "root");
        assert_eq!(config.policy, Policy::default());
        assert_eq!(config.journal, Path::new("/c/kwscale-journal"));
        let inventory = config.inventory();
        assert_eq!(inventory.hosts[&HostName::new("n1")].address, Address::new("10.0.0.1:26257"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        for (text, line, key) in [
            (format!("{MINIMAL}stroes = [\"/a\"]\n"), 6, "stroes"),
            (format!("{MINIMAL}[sql]\nusr = \"root\"\n"), 7, "usr"),
            (format!("{MINIMAL}[policy]\npol = \"1s\"\n"), 7, "pol"),
            (format!("{MINIMAL}[other]\n"), 6, "other"),
            (format!("{MINIMAL}[certificates]\nca_kye = \"/a\"\n"), 7, "ca_kye"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(&format!("line {line}:")) && error.contains(key), "{error}");
        }
    }

    #[test]
    fn every_mistake_names_key_and_cure() {
        let host = "[[host]]\nname = \"n1\"\nlisten_addr = \"10.0.0.1:26257\"\n";
        for (text, words) in [
            ("".to_owned(), "cluster"),
            ("[cluster]\nsecure = false\n".to_owned(), "seeds"),
            (format!("[cluster]\nsecure = true\n{host}"), "certs"),
            (format!("[cluster]\nsecure = false\ncerts = \"c\"\n{host}"), "leave certs out"),
            (format!("[cluster]\nsecure = false\nseeds = [\"a\"]\n{host}"), "host:port"),
            (format!("[cluster]\nsecure = false\ncontrol_host = \"n9\"\n{host}"), "control_host"),
            (format!("{MINIMAL}{host}"), "twice"),
            (format!("{MINIMAL}{}", host.replace("n1", "n2")), "one address"),
            (format!("{MINIMAL}{}", host.replace("n1", "7")), "a number"),
            (format!("{MINIMAL}[[host]]\nname = \"n2\"\n"), "advertise_addr"),
            (format!("{MINIMAL}stores = [\"rel\"]\n"), "absolute"),
            (format!("{MINIMAL}transport = \"carrier-pigeon\"\n"), "carrier-pigeon"),
            (format!("{MINIMAL}sudo = true\n"), "transport = \"ssh\""),
            (format!("{MINIMAL}[ssh]\nport = 22\n"), "port"),
            (format!("{MINIMAL}[ssh]\nconfig = \"\"\n"), "[ssh]: config = \"\" is not the path of a file"),
            (format!("{MINIMAL}[ssh]\nconfig = \"/\"\n"), "[ssh]: config = \"/\" is not the path of a file"),
            (format!("{MINIMAL}[certificates]\nca_key = \"/a\"\n"), "secure = false"),
            (format!("{SECURE}[certificates]\n"), "ca_key"),
            (format!("{SECURE}[certificates]\nca_key = \"a\"\nca_host = \"n1\"\n"), "absolute"),
            (format!("{SECURE}[certificates]\nca_key = \"/a\"\nca_host = \"n9\"\n"), "ca_host 'n9'"),
            (format!("{SECURE}[certificates]\nca_key = \"/a\"\nnames = [\"-x\"]\n"), "'-x'"),
            (format!("{SECURE}[certificates]\nca_key = \"/a\"\nowner = \"root\"\n"), "user:group"),
            (format!("{MINIMAL}[policy]\nsamples = 0\n"), "samples"),
            (format!("{MINIMAL}[policy]\nsamples = 1\n"), "2 to 1000"),
            (format!("{MINIMAL}[policy]\nsample_spacing = \"-1s\"\n"), "not positive"),
            (format!("{MINIMAL}[policy]\nlist_ranges = 3\npoll = \"1h\"\n"), "line 8"),
            (format!("{MINIMAL}[policy]\njoin_deadline = \"2562047788015215h\"\n"), "join_deadline"),
            (format!("{MINIMAL}[policy]\npoll = \"1h\"\n"), "stall_after"),
            (MINIMAL.replace("26257", "0"), "port 0"),
            (MINIMAL.replace("\"n1\"", "\"99999999999\""), "a number"),
            (MINIMAL.replace("\"n1\"", "\"--help\""), "cannot be given"),
            (MINIMAL.replace("\"n1\"", "\"a\\nb\""), "cannot be given"),
            (format!("{MINIMAL}[policy]\npoll = \"0s\"\n"), "poll"),
            (
                format!("{MINIMAL}[policy]\npoll = \"soon\"\n"),
                "line 7: [policy]: poll = \"soon\" cannot be used",
            ),
            (format!("{MINIMAL}[policy]\nsamples = \"many\"\n"), "write such as 3"),
            (format!("{MINIMAL}[policy]\nstall_after = \"-1s\"\n"), "not positive"),
            (format!("{MINIMAL}[sql]\npassword_env = \"KWSCALE_TEST_NOT_SET\"\n"), "KWSCALE_TEST_NOT_SET"),
            (format!("{MINIMAL}[sql]\npassword_file = \"none\"\n"), "/c/none"),
            (format!("{MINIMAL}[sql]\ndeadline = \"-1s\"\n"), "deadline"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with("/c/cluster.toml") && error.contains(words), "{text}\n{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn hosts_are_reached_as_the_file_says() {
        let far = "[ssh]\nconfig = \"ssh_config\"\n[[host]]\nname = \"n2\"\nlisten_addr = \"10.0.0.2:26257\"\n\
                   transport = \"ssh\"\nssh = \"ops@db2\"\nsudo = \"kaiwudb\"\n[[host]]\nname = \"n3\"\n\
                   listen_addr = \"10.0.0.3:26257\"\ntransport = \"ssh\"\n";
        let config = parse(&format!("{MINIMAL}{far}")).unwrap();
        assert_eq!(config.ssh_config.as_deref(), Some(Path::new("/c/ssh_config")));
        assert_eq!(config.reach[&HostName::new("n1")], Reach::Local);
        let ssh = |destination: &str, sudo| Reach::Ssh { destination: destination.to_owned(), sudo };
        assert_eq!(config.reach[&HostName::new("n2")], ssh("ops@db2", Some(Some("kaiwudb".to_owned()))));
        assert_eq!(config.reach[&HostName::new("n3")], ssh("n3", None));
    }

    #[test]
    fn methods_and_owners_of_hosts() {
        let script = "method = \"deploy.sh\"\ninstall_dir = \"/opt/kwdb_install\"\n";
        let config = parse(&format!("{MINIMAL}{script}")).unwrap();
        assert_eq!(config.deploy[0].install_dir, "/opt/kwdb_install");
        let owned = parse(&format!("{MINIMAL}owner = \"systemd\"\n")).unwrap();
        assert_eq!(owned.hosts[0].owner, Owner::Systemd { unit: "kaiwudb".into() });
        let boxed = parse(&format!("{MINIMAL}owner = \"container\"\ncontainer = \"kw\"\n")).unwrap();
        assert_eq!(boxed.hosts[0].owner, Owner::Container { engine: "docker".into(), name: "kw".into() });
        for (keys, words) in [
            ("method = \"deploy.sh\"\n", "without install_dir"),
            ("method = \"ansible\"\n", "ansible"),
            ("install_dir = \"/opt/k\"\n", "add that, or leave it out"),
            ("method = \"deploy.sh\"\ninstall_dir = \"/opt/a b\"\n", "unquoted"),
            (
                "method = \"deploy.sh\"\ninstall_dir = \"/opt/k\"\nowner = \"systemd\"\n",
                "always unit kaiwudb",
            ),
            ("owner = \"container\"\n", "the container's name"),
            ("unit = \"kaiwudb\"\n", "owner = \"systemd\""),
            ("owner = \"systemd\"\nunit = \"a b\"\n", "owner.systemd.unit"),
        ] {
            let error = parse(&format!("{MINIMAL}{keys}")).unwrap_err();
            assert!(error.contains(words) && !error.contains('\n'), "{keys}: {error}");
        }
    }

    #[test]
    fn a_secure_cluster_takes_its_certificates_from_beside_the_file() {
        let text = MINIMAL.replace("secure = false", "secure = true\ncerts = \"certs\"");
        let config = parse(&text).unwrap();
        assert_eq!(config.certs.as_deref(), Some(Path::new("/c/certs")));
        assert_eq!(config.hosts[0].security, Security::Certs { certs_dir: "/c/certs".into() });
    }
}
