//! The choice between the RPC and commands, over the twin's ports.
#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod twin;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kwdb_scale_core::ports::{
    BegunMark, BegunWork, DecommissionControl, DecommissionStatus, Gateway, HostFacts, Means, NodeLifecycle,
    PortError, PortErrorKind, ProcessState, StartNode, StartOutcome, StopNode, async_trait,
};
use kwdb_scale_core::topology::{HostName, NodeId};
use kwdb_scale_rpc::{AdminRpc, Prefer, Secure};
use kwdb_scale_sim::process::{Pace, free_addresses};
use twin::{DEADLINE, Twin, fails, gateway, hasty, insecure};

/// Commands that only note that they were run. Nothing can be looked up on hosts.
#[derive(Debug, Default)]
struct Commands(Mutex<Vec<&'static str>>);

impl Commands {
    fn ran(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

type Statuses = Result<Vec<DecommissionStatus>, PortError>;

fn no_host() -> PortError {
    PortError::new(PortErrorKind::Config, "no host is known")
}

#[async_trait]
impl DecommissionControl for Commands {
    async fn mark(&self, _: &Gateway, _: &[NodeId], _: Duration) -> Statuses {
        self.ran("mark");
        Ok(Vec::new())
    }

    async fn recommission(&self, _: &Gateway, _: &[NodeId], _: Duration) -> Statuses {
        self.ran("recommission");
        Ok(Vec::new())
    }

    async fn mark_under_way(&self, _: &BegunMark) -> Result<Option<String>, PortError> {
        Err(no_host())
    }
}

#[async_trait]
impl NodeLifecycle for Commands {
    async fn inspect(&self, _: &HostName) -> Result<HostFacts, PortError> {
        Err(no_host())
    }

    async fn start(&self, _: &StartNode) -> Result<StartOutcome, PortError> {
        self.ran("start");
        Ok(StartOutcome::Started)
    }

    async fn drain(&self, _: &StopNode) -> Result<(), PortError> {
        self.ran("drain");
        Ok(())
    }

    async fn stop(&self, _: &StopNode) -> Result<(), PortError> {
        self.ran("stop");
        Ok(())
    }

    async fn work_under_way(&self, _: &BegunWork) -> Result<Option<String>, PortError> {
        Err(no_host())
    }

    async fn process(&self, _: &StopNode) -> Result<ProcessState, PortError> {
        self.ran("process");
        Ok(ProcessState::Unknown)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rpc_where_it_can_be_had() {
    let twin = Twin::plain(4, Pace::Times(20.0)).await;
    let commands = Arc::new(Commands::default());
    let nobody = gateway(9, &free_addresses(1).unwrap()[0]);
    let via = twin.via(1);

    // The first that is asked is gone; the second takes it.
    let chosen = Prefer::new(Ok(insecure()), commands.clone()).choose(&[nobody.clone(), twin.via(2)]).await;
    let why = format!("node 2 at {} takes it", twin.addresses[1]);
    assert_eq!(chosen.means, Means::AdminRpc { why, marks_on_hosts: false });
    assert_eq!(chosen.control.means().as_ref(), Some(&chosen.means));
    assert!(chosen.queue.is_some());
    let four = NodeId(4);
    chosen.control.mark(&via, &[four], DEADLINE).await.unwrap();
    assert!(chosen.control.status(&via, &[four], DEADLINE).await.unwrap().unwrap()[0].decommissioning);
    chosen.control.recommission(&via, &[four], DEADLINE).await.unwrap();
    let stop = |node: usize, host: Option<&str>| StopNode {
        node: NodeId(u32::try_from(node).unwrap()),
        address: twin.addresses[node - 1].clone(),
        host: host.map(HostName::new),
        via: via.clone(),
        deadline: DEADLINE,
    };
    assert_eq!(chosen.lifecycle.process(&stop(4, None)).await.unwrap(), ProcessState::Running);
    let gone = StopNode { address: nobody.address.clone(), ..stop(4, None) };
    assert_eq!(chosen.lifecycle.process(&gone).await.unwrap(), ProcessState::Stopped);
    // Where no host is known nothing can have been left behind on one.
    let mark = BegunMark { nodes: vec![four], hosts: Vec::new(), via: vec![via.clone()] };
    assert_eq!(chosen.control.mark_under_way(&mark).await.unwrap(), None);
    let work = BegunWork::Stop { node: stop(4, None), via: vec![via.clone()] };
    assert_eq!(chosen.lifecycle.work_under_way(&work).await.unwrap(), None);
    let known = BegunMark { hosts: vec![HostName::new("n4")], ..mark };
    assert!(chosen.control.mark_under_way(&known).await.is_err());
    assert_eq!(commands.take(), Vec::<&str>::new());

    // What belongs to scripts and services stays theirs.
    let chosen = Prefer::new(Ok(insecure()), commands.clone())
        .with_marks_on_hosts(true)
        .with_owned([HostName::new("n4")].into())
        .demand(std::slice::from_ref(&via), "a test")
        .await
        .unwrap();
    assert!(chosen.means.marks_on_hosts());
    let text =
        format!("the admin RPC (a test; node 1 at {} takes it; marks by commands on hosts)", via.address);
    assert_eq!(chosen.means.to_string(), text);
    chosen.control.mark(&via, &[four], DEADLINE).await.unwrap();
    assert!(!chosen.control.status(&via, &[four], DEADLINE).await.unwrap().unwrap()[0].decommissioning);
    chosen.lifecycle.stop(&stop(4, Some("n4"))).await.unwrap();
    chosen.lifecycle.process(&stop(4, Some("n4"))).await.unwrap();
    let error = fails(chosen.lifecycle.stop(&stop(3, Some("n3"))).await);
    assert_eq!(error.kind(), PortErrorKind::Denied, "{error}");
    assert_eq!(commands.take(), ["mark", "stop", "process"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_elsewhere_and_the_reason() {
    let twin = Twin::plain(3, Pace::Times(20.0)).await;
    let commands = Arc::new(Commands::default());
    let nobody = gateway(9, &free_addresses(1).unwrap()[0]);
    let certs = tempfile::tempdir().unwrap();
    kwdb_scale_sim::certs::create(certs.path(), &["127.0.0.1"], &["root"]).unwrap();
    let tls = AdminRpc::builder().security(Secure::certs_dir(certs.path(), "root")).build();
    let unbuilt = AdminRpc::builder().security(Secure::certs_dir(certs.path(), "nobody")).build();
    for (rpc, gateways, kind, words) in [
        (Ok(hasty()), vec![nobody], PortErrorKind::Unreachable, "refused"),
        (Ok(hasty()), Vec::new(), PortErrorKind::Unreachable, "no live member that stays is known"),
        (tls, vec![twin.via(1)], PortErrorKind::Tls, "TLS"),
        (unbuilt, vec![twin.via(1)], PortErrorKind::NotFound, "client.nobody.crt"),
    ] {
        let again = || match &rpc {
            Ok(rpc) => Ok(rpc.clone()),
            Err(e) => Err(PortError::new(e.kind(), e.chain())),
        };
        let chosen = Prefer::new(again(), commands.clone()).choose(&gateways).await;
        let Means::CommandLine { why, refused: None } = &chosen.means else { panic!("{:?}", chosen.means) };
        assert!(why.starts_with("the admin RPC cannot be had: ") && why.contains(words), "{why}");
        assert!(chosen.queue.is_none() && chosen.control.means().as_ref() == Some(&chosen.means));
        assert_eq!(chosen.control.status(&twin.via(1), &[NodeId(2)], DEADLINE).await.unwrap(), None);
        let error = fails(Prefer::new(again(), commands.clone()).demand(&gateways, "a test").await);
        assert_eq!(error.kind(), kind, "{}", error.chain());
        chosen.control.mark(&twin.via(1), &[NodeId(2)], DEADLINE).await.unwrap();
        assert_eq!(commands.take(), ["mark"]);
    }
}
