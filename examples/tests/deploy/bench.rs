//! A lab with hosts of the script's beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kwdb_scale_core::deploy::{DeployHost, DeployScript};
use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost, Security, StoreSpec};
use kwdb_scale_core::ports::{Gateway, NodeLifecycle, StartNode, StartOutcome, StopNode};
use kwdb_scale_core::topology::{Address, NodeId, StartMode};
use kwdb_scale_local::{LocalTransport, SystemClock};
use kwdb_scale_sim::lab::{Lab, LabHost, LabInfo, LabOptions, ScopedLab};
use kwdb_scale_sim::standin::Standin;
use kwdb_scale_sql::SqlSource;

pub(crate) const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) lab: ScopedLab,
    pub(crate) deploy: DeployScript<LocalTransport>,
    pub(crate) source: SqlSource,
    pub(crate) clock: SystemClock,
    pub(crate) standins: BTreeMap<String, Standin>,
    pub(crate) tmp: tempfile::TempDir,
}

/// `KWDB_SCALE_KWBASE`.
pub(crate) fn real() -> Option<PathBuf> {
    std::env::var_os("KWDB_SCALE_KWBASE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A lab of three nodes, and hosts `d1`, `d2` … at 127.0.0.11, 127.0.0.12 …; `change` may change each before it is
/// installed.
pub(crate) fn bench(hosts: usize, change: impl Fn(usize, &mut Standin, &LabInfo)) -> Bench {
    let tmp = tempfile::Builder::new().prefix("kwdb-deploy-").tempdir().unwrap();
    let options = LabOptions {
        nodes: 3,
        speed: 20.0,
        ranges: 4,
        kwbase: real(),
        ends_with_caller: true,
        ..LabOptions::new(tmp.path().join("lab"))
    };
    let mut lab = Lab::up(options).unwrap().scoped();
    let spare: Vec<LabHost> = (0..hosts).map(|_| lab.add().unwrap()).collect();
    let info = lab.info();
    let mut standins = BTreeMap::new();
    let mut described: Vec<KwbaseHost> = info.hosts[..3].iter().map(|host| member(info, host)).collect();
    let mut scripted = Vec::new();
    for index in 1..=hosts {
        let name = format!("d{index}");
        let home = tmp.path().join(&name);
        let mut standin = Standin::new(
            home.join("root"),
            home.join("install"),
            &info.kwbase,
            format!("127.0.0.{}", 10 + index),
        );
        // Ports of the lab's own block, which no other lab takes.
        let ports = &spare[index - 1];
        standin.port = ports.address.port().unwrap();
        standin.http_port = ports.http_address.port().unwrap();
        standin.brpc_port = ports.brpc_address.port().unwrap();
        standin.waits = (0.2, 0.2);
        standin.start_arg = "--cache=256MiB --max-sql-memory=256MiB".to_owned();
        change(index, &mut standin, info);
        standin.install().unwrap();
        described.push(kwbase_host(&name, &standin));
        scripted.push(deploy_host(&name, &standin));
        standins.insert(name, standin);
    }
    let transport = LocalTransport::new(described.iter().map(|h| h.name.clone()));
    let kwbase = Kwbase::new(Arc::new(transport), described).unwrap();
    Bench {
        deploy: DeployScript::new(kwbase, scripted).unwrap(),
        source: SqlSource::builder(info.seeds()).build().unwrap(),
        clock: SystemClock::new(),
        standins,
        lab,
        tmp,
    }
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

fn member(info: &LabInfo, host: &LabHost) -> KwbaseHost {
    KwbaseHost {
        program: text(&info.kwbase),
        stores: host.stores.iter().map(|s| StoreSpec::new(text(s))).collect(),
        listen_addr: Some(host.address.clone()),
        http_addr: Some(host.http_address.clone()),
        brpc_addr: Some(host.brpc_address.clone()),
        ..KwbaseHost::new(host.name.clone(), Security::Insecure)
    }
}

pub(crate) fn kwbase_host(name: &str, standin: &Standin) -> KwbaseHost {
    let at = |port: u16| Some(Address::new(format!("{}:{port}", standin.address)));
    KwbaseHost {
        program: text(standin.at("/usr/local/kaiwudb/bin/kwbase")),
        stores: vec![StoreSpec::new(text(standin.data_root()))],
        listen_addr: at(standin.port),
        http_addr: at(standin.http_port),
        // The twin takes this port on 127.0.0.1 alone.
        brpc_addr: Some(Address::new(format!("127.0.0.1:{}", standin.brpc_port))),
        env: [("PATH".to_owned(), format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", text(standin.at("/usr/bin"))))]
            .into(),
        ..KwbaseHost::new(name, Security::Insecure)
    }
}

pub(crate) fn deploy_host(name: &str, standin: &Standin) -> DeployHost {
    DeployHost { root: text(&standin.root), ..DeployHost::new(name, text(&standin.install_dir)) }
}

impl Bench {
    pub(crate) fn via(&self) -> Gateway {
        let host = &self.lab.info().hosts[0];
        Gateway {
            node: NodeId(1),
            address: host.address.clone(),
            sql_address: host.sql_address.clone(),
            host: Some(host.name.clone()),
        }
    }

    pub(crate) fn address(&self, name: &str) -> Address {
        let standin = &self.standins[name];
        Address::new(format!("{}:{}", standin.address, standin.port))
    }

    pub(crate) fn file(&self, name: &str, path: &str) -> PathBuf {
        self.standins[name].at(path)
    }

    pub(crate) fn start(&self, name: &str) -> StartNode {
        StartNode {
            host: name.into(),
            mode: StartMode::MultiReplica,
            join: self.lab.info().join(),
            deadline: DEADLINE,
        }
    }

    /// Starts a node with the script.
    pub(crate) async fn join(&self, name: &str) {
        let outcome = self.deploy.start(&self.start(name)).await.unwrap();
        assert_eq!(outcome, StartOutcome::Started, "{name}");
    }

    pub(crate) fn stop(&self, node: u32, name: &str) -> StopNode {
        StopNode {
            node: NodeId(node),
            address: self.address(name),
            host: Some(name.into()),
            via: self.via(),
            deadline: DEADLINE,
        }
    }

    /// Command lines of the processes that name a path of this bench and `word`.
    pub(crate) fn processes(&self, word: &str) -> Vec<String> {
        let home = text(self.tmp.path());
        let of = |entry: std::fs::DirEntry| {
            let bytes = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
            (line.contains(&home) && line.contains(word)).then_some(line)
        };
        std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter_map(of).collect()
    }
}

/// Ends what the stand-in units run: they are nobody's children.
impl Drop for Bench {
    fn drop(&mut self) {
        for standin in self.standins.values() {
            let systemctl = standin.at("/usr/bin/systemctl");
            let unit = standin.at("/etc/systemd/system/kaiwudb.service");
            if let Ok(unit_text) = std::fs::read_to_string(&unit) {
                let quick = unit_text.replace("[Service]", "[Service]\nTimeoutStopSec=1");
                let _ = std::fs::write(&unit, quick);
            }
            let _ = std::process::Command::new(systemctl).args(["stop", "kaiwudb"]).status();
        }
    }
}
