//! The contract suites on what an operator's program is made of: kwbase through local processes, facts over SQL.
//!
//! On a lab of the twin's processes; with `KWDB_SCALE_KWBASE=/path/to/kwbase` on a real one besides. Without the usual
//! test harness, because twin nodes are this executable started again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost, Security, StoreSpec};
use kwdb_scale_core::ports::Gateway;
use kwdb_scale_core::topology::{Address, NodeId};
use kwdb_scale_local::{LocalTransport, SystemClock};
use kwdb_scale_sim::contract::{self, ControlFixture, FactsFixture, LifecycleFixture};
use kwdb_scale_sim::lab::{Lab, LabHost, LabInfo, LabOptions, ScopedLab};
use kwdb_scale_sim::process::free_addresses;
use kwdb_scale_sql::SqlSource;

fn main() {
    kwdb_scale_sim::process::hook();
    if std::env::args().any(|a| a == "--list") {
        println!("contract: test");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let real = std::env::var_os("KWDB_SCALE_KWBASE").filter(|path| !path.is_empty()).map(PathBuf::from);
    for kwbase in [None, real.clone()].into_iter().take(1 + usize::from(real.is_some())) {
        let on = if kwbase.is_some() { "a real kwbase" } else { "the twin" };
        let cluster = bench(5, false, kwbase.as_ref());
        runtime.block_on(everything(cluster));
        println!("test contract of facts, settings, control, lifecycle on {on} ... ok");
        let cluster = bench(3, true, kwbase.as_ref());
        runtime.block_on(single_replica(cluster));
        println!("test contract of control, single-replica, on {on} ... ok");
    }
}

struct Bench {
    lab: ScopedLab,
    kwbase: Kwbase<LocalTransport>,
    source: SqlSource,
    clock: SystemClock,
    fresh: LabHost,
    nobody: Address,
    _tmp: tempfile::TempDir,
}

fn bench(nodes: usize, single_replica: bool, kwbase: Option<&PathBuf>) -> Bench {
    let tmp = tempfile::tempdir().unwrap();
    let options = LabOptions {
        nodes,
        single_replica,
        speed: 20.0,
        kwbase: kwbase.cloned(),
        ..LabOptions::new(tmp.path().join("lab"))
    };
    let mut lab = Lab::up(options).unwrap().scoped();
    let fresh = lab.add().unwrap();
    let info = lab.info();
    let mut hosts: Vec<KwbaseHost> = info.hosts.iter().map(|host| described(info, host)).collect();
    // Where a node cannot start: the first node's port is taken.
    let mut broken = described(info, &fresh);
    broken.name = "broken".into();
    broken.listen_addr = Some(info.hosts[0].address.clone());
    broken.pid_file = None;
    broken.stores = vec![StoreSpec::new(tmp.path().join("broken").to_str().unwrap())];
    hosts.push(broken);
    let transport = LocalTransport::new(hosts.iter().map(|h| h.name.clone()));
    Bench {
        kwbase: Kwbase::new(Arc::new(transport), hosts).unwrap(),
        source: SqlSource::builder(info.seeds()).build().unwrap(),
        clock: SystemClock::new(),
        fresh,
        nobody: free_addresses(1).unwrap().remove(0),
        lab,
        _tmp: tmp,
    }
}

fn described(info: &LabInfo, host: &LabHost) -> KwbaseHost {
    KwbaseHost {
        program: info.kwbase.to_str().unwrap().to_owned(),
        stores: host.stores.iter().map(|s| StoreSpec::new(s.to_str().unwrap())).collect(),
        listen_addr: Some(host.address.clone()),
        http_addr: Some(host.http_address.clone()),
        brpc_addr: Some(host.brpc_address.clone()),
        cache: Some("256MiB".to_owned()),
        max_sql_memory: Some("256MiB".to_owned()),
        pid_file: Some(host.pid_file.to_str().unwrap().to_owned()),
        ..KwbaseHost::new(host.name.clone(), Security::Insecure)
    }
}

impl Bench {
    fn via(&self) -> Gateway {
        let host = &self.lab.info().hosts[0];
        Gateway {
            node: NodeId(1),
            address: host.address.clone(),
            sql_address: host.sql_address.clone(),
            host: Some(host.name.clone()),
        }
    }

    fn control(&self, leaving: [NodeId; 2]) -> ControlFixture<'_> {
        ControlFixture {
            control: &self.kwbase,
            facts: &self.source,
            clock: &self.clock,
            via: self.via(),
            leaving,
            nobody: self.nobody.clone(),
        }
    }
}

async fn everything(bench: Bench) {
    let hosts = &bench.lab.info().hosts;
    contract::node_lifecycle(&LifecycleFixture {
        lifecycle: &bench.kwbase,
        facts: &bench.source,
        clock: &bench.clock,
        via: bench.via(),
        join: bench.lab.info().join(),
        fresh: (bench.fresh.name.clone(), bench.fresh.address.clone()),
        broken: Some("broken".into()),
        control: None,
    })
    .await;
    contract::decommission_control(&bench.control([NodeId(4), NodeId(5)])).await;
    let kill = |address: &Address| {
        let host = hosts.iter().find(|h| h.sql_address == *address).unwrap();
        bench.lab.kill(host.name.as_str()).unwrap();
    };
    let facts = FactsFixture {
        source: &bench.source,
        gateways: hosts[..5].iter().map(|h| h.sql_address.clone()).collect(),
        nobody: bench.nobody.clone(),
        clock: &bench.clock,
        kill: Mutex::new(Some(Box::new(kill))),
    };
    contract::settings_control(&bench.source, &facts).await;
    contract::fact_source(&facts).await;
}

async fn single_replica(bench: Bench) {
    contract::decommission_control_single_replica(&bench.control([NodeId(2), NodeId(3)])).await;
}
