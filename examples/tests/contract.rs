//! The contract suites on what an operator's program is made of: kwbase through local processes, the admin RPC, facts over
//! SQL.
//!
//! On a lab of the twin's processes; with `KWDB_SCALE_KWBASE=/path/to/kwbase` on a real one besides. Without the usual
//! test harness, because twin nodes are this executable started again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost, Security, StoreSpec};
use kwdb_scale_core::ports::{DecommissionControl, Gateway, PortErrorKind};
use kwdb_scale_core::topology::{Address, NodeId, RangeId};
use kwdb_scale_local::{LocalTransport, SystemClock};
use kwdb_scale_rpc::{
    AdminRpc, EnqueueErrorKind as Kind, EnqueueRange, Readiness, RpcStop, Secure, Security as RpcSecurity,
};
use kwdb_scale_sim::certs;
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
        let cluster = bench(5, false, false, kwbase.as_ref());
        runtime.block_on(everything(cluster));
        println!("test contract of facts, settings, control, lifecycle on {on} ... ok");
        let cluster = bench(3, true, false, kwbase.as_ref());
        runtime.block_on(single_replica(cluster));
        println!("test contract of control, single-replica, on {on} ... ok");
        // On the twin the crate's own tests have the insecure ones.
        for secure in [true, false].into_iter().take(1 + usize::from(kwbase.is_some())) {
            let cluster = bench(5, false, secure, kwbase.as_ref());
            let poll = runtime.block_on(over_rpc(cluster));
            let how = if secure { "secure" } else { "insecure" };
            println!(
                "test contract of control, lifecycle, ranges over RPC, {how}, on {on} (a poll: {poll:.1?}) ... ok"
            );
        }
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

fn bench(nodes: usize, single_replica: bool, secure: bool, kwbase: Option<&PathBuf>) -> Bench {
    let tmp = tempfile::tempdir().unwrap();
    let options = LabOptions {
        nodes,
        single_replica,
        secure,
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
        source: match &info.certs_dir {
            None => SqlSource::builder(info.seeds()),
            Some(dir) => {
                SqlSource::builder(info.seeds()).security(kwdb_scale_sql::Secure::certs_dir(dir, "root"))
            }
        }
        .build()
        .unwrap(),
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
        ..KwbaseHost::new(
            host.name.clone(),
            match &info.certs_dir {
                None => Security::Insecure,
                Some(dir) => Security::Certs { certs_dir: dir.to_str().unwrap().to_owned() },
            },
        )
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

/// The same ports over RPC. Gives what a poll of the status takes.
async fn over_rpc(bench: Bench) -> Duration {
    let rpc = match &bench.lab.info().certs_dir {
        None => AdminRpc::builder(),
        Some(dir) => AdminRpc::builder().security(Secure::certs_dir(dir, "root")),
    };
    let rpc = rpc.build().unwrap();
    if let Some(dir) = bench.lab.info().certs_dir.clone() {
        certificates(&bench, &dir).await;
    }
    let poll = ranges(&bench, &rpc).await;
    // The node that is stopped stays marked, so this comes first.
    contract::decommission_control(&ControlFixture {
        control: &rpc,
        ..bench.control([NodeId(4), NodeId(5)])
    })
    .await;
    let lifecycle = RpcStop::new(rpc.clone(), Arc::new(bench.kwbase.clone()));
    contract::node_lifecycle(&LifecycleFixture {
        lifecycle: &lifecycle,
        facts: &bench.source,
        clock: &bench.clock,
        via: bench.via(),
        join: bench.lab.info().join(),
        fresh: (bench.fresh.name.clone(), bench.fresh.address.clone()),
        broken: Some("broken".into()),
        control: Some(&rpc),
    })
    .await;
    poll
}

/// Whose certificate is taken, and what is said of the others. Nothing is done by any of them.
async fn certificates(bench: &Bench, ours: &Path) {
    let (via, deadline) = (bench.via(), Duration::from_secs(10));
    let theirs = tempfile::tempdir().unwrap();
    certs::create(theirs.path(), &["127.0.0.1"], &["root"]).unwrap();
    certs::create_client(ours, "alice").unwrap();
    let (cert, key) = ("client.root.crt", "client.root.key");
    let mixed = |ca: &Path, own: &Path| {
        Some(Secure::ca_file(ca.join("ca.crt")).client_cert_files(own.join(cert), own.join(key)))
    };
    for (secure, expected, words) in [
        (Some(Secure::certs_dir(ours, "node")), None, ""),
        (Some(Secure::certs_dir(ours, "root").server_name("localhost")), None, ""),
        (Some(Secure::certs_dir(ours, "alice")), Some(PortErrorKind::Denied), "user [alice] is not allowed"),
        (mixed(ours, theirs.path()), Some(PortErrorKind::Authentication), "refused the client certificate"),
        (mixed(theirs.path(), ours), Some(PortErrorKind::Tls), "not signed by the given CA"),
        (
            Some(Secure::certs_dir(ours, "root").server_name("kw9.example")),
            Some(PortErrorKind::Tls),
            "for another name",
        ),
        (None, Some(PortErrorKind::Tls), "as a secure one does to plaintext"),
    ] {
        let rpc = AdminRpc::builder().security(secure.map_or(RpcSecurity::Insecure, RpcSecurity::from));
        match (rpc.build().unwrap().status(&via, &[NodeId(4)], deadline).await, expected) {
            (Ok(status), None) => assert!(status.is_some()),
            (Err(error), Some(kind)) => {
                assert_eq!(error.kind(), kind, "{}", error.chain());
                assert!(error.chain().contains(words), "{}", error.chain());
            }
            (other, expected) => panic!("{expected:?} was expected: {other:?}"),
        }
    }
}

/// A range that is sent to its queue on every node: the one with its lease runs it, and all of them answer.
async fn ranges(bench: &Bench, rpc: &AdminRpc) -> Duration {
    let (via, deadline) = (bench.via(), Duration::from_secs(30));
    let ready = rpc.ready(&via.address, deadline).await.unwrap();
    assert_eq!(ready, Readiness::Ready);
    let nobody = rpc.ready(&bench.nobody, deadline).await.unwrap();
    assert!(matches!(nobody, Readiness::Unreachable(_)), "{nobody:?}");
    let everywhere = EnqueueRange { node: None, ..EnqueueRange::replicate(NodeId(1), RangeId(20)) };
    // A lease that moves between two nodes' looks is on neither of them, so that it is asked again.
    let mut ran = false;
    for _ in 0..5 {
        let said = rpc.enqueue_range(&via, &everywhere, deadline).await.unwrap();
        let nodes: BTreeSet<_> = said.iter().filter_map(|s| s.node).collect();
        assert_eq!(nodes, (1..=5).map(NodeId).collect(), "{said:?}");
        for said in &said {
            let kind = said.error.as_ref().map(|e| e.kind);
            let runs = kind.is_none() && !said.events.is_empty();
            assert!(runs || matches!(kind, Some(Kind::NoReplica | Kind::NotLeaseholder)), "{said:?}");
            ran |= runs;
        }
    }
    assert!(ran, "nobody has the lease");
    let stale = EnqueueRange::replicate(NodeId(2), RangeId(9_999));
    let said = rpc.enqueue_range(&via, &stale, deadline).await.unwrap();
    assert_eq!(said[0].error.as_ref().unwrap().text, "n2 has no replica for r9999");
    let nobody = EnqueueRange::replicate(NodeId(99), RangeId(20));
    let error = rpc.enqueue_range(&via, &nobody, deadline).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::UnknownNode, "{}", error.chain());

    let mut polls = Vec::new();
    for _ in 0..101 {
        let begun = Instant::now();
        rpc.status(&via, &[NodeId(4)], deadline).await.unwrap();
        polls.push(begun.elapsed());
    }
    polls.sort();
    polls[50]
}

async fn single_replica(bench: Bench) {
    let control = bench.control([NodeId(2), NodeId(3)]);
    contract::decommission_control_single_replica(&control).await;
    let rpc = AdminRpc::builder().build().unwrap();
    contract::decommission_control_single_replica(&ControlFixture { control: &rpc, ..control }).await;
}
