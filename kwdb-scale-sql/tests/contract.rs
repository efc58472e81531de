//! The contracts of a fact source and of settings, over the simulated cluster's ports.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kwdb_scale_core::topology::Address;
use kwdb_scale_sim::contract::{self, FactsFixture, WallClock};
use kwdb_scale_sim::model::{Cluster, Config, NodeStart, Security};
use kwdb_scale_sim::process::{Listeners, Pace, free_addresses};
use kwdb_scale_sim::{certs, contract::KillNode};
use kwdb_scale_sql::{Secure, SqlSource};

/// Four nodes, so that a range whose replica dies still has a quorum.
async fn suites(security: Security, certs: Option<&Path>) {
    let addresses = free_addresses(5).unwrap();
    let (nobody, addresses) = addresses.split_last().unwrap();
    let mut cluster = Cluster::new(Config { security: security.clone(), ..Config::default() });
    for address in addresses {
        let start = NodeStart::new(address.clone(), addresses.to_vec());
        cluster.start_node(NodeStart { security: security.clone(), ..start }).unwrap();
    }
    cluster.advance(Duration::from_secs(2));
    cluster.init(&addresses[0]).unwrap();
    cluster.advance(Duration::from_secs(300));
    let cluster = Arc::new(Mutex::new(cluster));
    let mut listeners = Listeners::new(Arc::clone(&cluster), Pace::Times(20.0));
    let mut builder = SqlSource::builder(addresses.to_vec());
    if let Some(certs) = certs {
        listeners = listeners.secure(certs).unwrap();
        builder = builder.security(Secure::certs_dir(certs, "root"));
    }
    for address in addresses {
        listeners.open(address).await.unwrap();
    }
    let source = builder.build().unwrap();
    let kill: KillNode<'_> =
        Box::new(|address: &Address| assert!(cluster.lock().unwrap().kill_node(address)));
    let fixture = FactsFixture {
        source: &source,
        gateways: addresses.to_vec(),
        nobody: nobody.clone(),
        clock: &WallClock::default(),
        kill: Mutex::new(Some(kill)),
    };
    contract::settings_control(&source, &fixture).await;
    contract::fact_source(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn insecure() {
    suites(Security::Insecure, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secure() {
    let dir = tempfile::tempdir().unwrap();
    let certs_dir = dir.path().join("certs");
    certs::create(&certs_dir, &["127.0.0.1"], &["root"]).unwrap();
    let security = Security::Ca(std::fs::read_to_string(certs_dir.join("ca.crt")).unwrap());
    suites(security, Some(&certs_dir)).await;
}
