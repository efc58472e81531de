//! A cluster of the twin on real ports, asked over RPC.
#![allow(dead_code, reason = "every test file uses its part")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kwdb_scale_core::ports::{Gateway, PortError};
use kwdb_scale_core::topology::{Address, NodeId, StartMode};
use kwdb_scale_rpc::AdminRpc;
use kwdb_scale_sim::model::{Cluster, Config, NodeStart, Security, Shared, TableSpec};
use kwdb_scale_sim::process::{Listeners, Pace, free_addresses};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Twin {
    pub(crate) cluster: Shared,
    pub(crate) addresses: Vec<Address>,
    pub(crate) listeners: Listeners,
}

impl Twin {
    /// An insecure cluster whose ranges have found their places.
    pub(crate) async fn plain(nodes: usize, pace: Pace) -> Self {
        Self::new(nodes, StartMode::MultiReplica, pace, None, 0).await
    }

    /// The same with the certificates of a directory.
    pub(crate) async fn secure(nodes: usize, certs: &Path) -> Self {
        Self::new(nodes, StartMode::MultiReplica, Pace::Times(20.0), Some(certs), 0).await
    }

    pub(crate) async fn new(
        nodes: usize,
        mode: StartMode,
        pace: Pace,
        certs: Option<&Path>,
        ranges: u32,
    ) -> Self {
        let security = certs.map_or(Security::Insecure, |_| Security::Ca("its authority".to_owned()));
        let addresses = free_addresses(nodes).unwrap();
        let mut cluster = Cluster::new(Config { security: security.clone(), ..Config::default() });
        for (i, address) in addresses.iter().enumerate() {
            let start = NodeStart {
                security: security.clone(),
                mode: mode.clone(),
                ..NodeStart::new(address.clone(), addresses.clone())
            };
            cluster.start_node(start).unwrap();
            cluster.advance(Duration::from_secs(2));
            // One after the other, so that the n-th address gets the n-th id.
            if i == 0 {
                cluster.init(address).unwrap();
                cluster.advance(Duration::from_secs(2));
            }
        }
        cluster.advance(Duration::from_secs(600));
        if ranges > 0 {
            cluster.create_table(TableSpec::new("app", "kv", ranges)).unwrap();
            cluster.advance(Duration::from_secs(600));
        }
        let cluster = Arc::new(Mutex::new(cluster));
        let mut listeners = Listeners::new(Arc::clone(&cluster), pace);
        if let Some(certs) = certs {
            listeners = listeners.secure(certs).unwrap();
        }
        for address in &addresses {
            listeners.open(address).await.unwrap();
        }
        Self { cluster, addresses, listeners }
    }

    pub(crate) fn via(&self, n: usize) -> Gateway {
        gateway(n, &self.addresses[n - 1])
    }
}

pub(crate) fn gateway(n: usize, address: &Address) -> Gateway {
    Gateway {
        node: NodeId(u32::try_from(n).unwrap()),
        address: address.clone(),
        sql_address: address.clone(),
        host: None,
    }
}

pub(crate) fn insecure() -> AdminRpc {
    AdminRpc::builder().build().unwrap()
}

/// For nodes that do not answer.
pub(crate) fn hasty() -> AdminRpc {
    let short = Duration::from_millis(400);
    AdminRpc::builder().connect_timeout(short).startup_timeout(short).build().unwrap()
}

/// What failed, as kind and whole text.
#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(result: Result<T, PortError>) -> PortError {
    result.expect_err("this must fail")
}
