//! A transport of one's own: here a wrapper that writes an audit log of everything that is run or written on a host.
//! An SSH client, an agent or a container engine is implemented the same way.
//!
//! `cargo run --example custom_transport`. The hosts are those of a twin in memory.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kwdb_scale_core::execute::{End, ObserveOptions, Operation, Ports, observe};
use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost, Security, StoreSpec, quote};
use kwdb_scale_core::plan::plan;
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::ports::{
    Command, CommandOutput, Detached, HostTransport, PortError, PortState, Spawned,
};
use kwdb_scale_core::request::{NodeRef, Operation as Change, Options, Request};
use kwdb_scale_core::topology::{Address, HostName, NodeId};
use kwdb_scale_sim::memory::{SimHost, World};

/// Writes down what is done, then has it done.
#[derive(Debug)]
struct Audited<T> {
    inner: T,
    log: Arc<Mutex<Vec<String>>>,
}

impl<T> Audited<T> {
    fn note(&self, host: &HostName, what: &str) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{host}: {what}"));
    }
}

#[async_trait]
impl<T: HostTransport> HostTransport for Audited<T> {
    async fn connect(&self, host: &HostName) -> Result<(), PortError> {
        self.inner.connect(host).await
    }

    async fn run(&self, host: &HostName, command: &Command) -> Result<CommandOutput, PortError> {
        self.note(host, &quote::line(&command.argv));
        self.inner.run(host, command).await
    }

    async fn spawn(&self, host: &HostName, detached: &Detached) -> Result<Spawned, PortError> {
        self.note(host, &quote::line(&detached.command.argv));
        self.inner.spawn(host, detached).await
    }

    async fn put(&self, host: &HostName, path: &str, content: &[u8], mode: u32) -> Result<(), PortError> {
        self.note(host, &format!("write {path}, {} bytes, mode {mode:o}", content.len()));
        self.inner.put(host, path, content, mode).await
    }

    async fn get(&self, host: &HostName, path: &str, max: usize) -> Result<Vec<u8>, PortError> {
        self.inner.get(host, path, max).await
    }

    async fn probe(
        &self,
        host: &HostName,
        address: &Address,
        deadline: Duration,
    ) -> Result<PortState, PortError> {
        self.inner.probe(host, address, deadline).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = World::started(4);
    world.add_host(SimHost::numbered(5));
    let log = Arc::new(Mutex::new(Vec::new()));
    let transport = Audited { inner: world.transport(), log: Arc::clone(&log) };
    // DecommissionControl and NodeLifecycle come with any transport.
    let kwbase = Arc::new(Kwbase::new(Arc::new(transport), world.hosts().iter().map(describe))?);
    let ports = Ports { control: kwbase.clone(), lifecycle: kwbase, ..world.ports() };

    let request = Request {
        operation: Change::Replace { nodes: vec![NodeRef::Id(NodeId(4))], hosts: vec![HostName::new("n5")] },
        inventory: world.inventory(),
        options: Options::default(),
    };
    let options = ObserveOptions {
        request: Some(request.clone()),
        inventory: world.inventory(),
        ..ObserveOptions::default()
    };
    let observation = observe(&*ports.facts, Some(&*ports.lifecycle), &options).await?;
    let plan = plan(&observation, &request, &Policy::default())?;
    let end = Operation::begin(plan, ports).await?.run().await;

    println!("what was run on the hosts:");
    for line in log.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // The look into store directories is a small script: its first line will do.
        println!("  {}", line.lines().next().unwrap_or_default());
    }
    match end {
        End::Done(proof) => {
            println!("done: {}", proof.join("; "));
            Ok(())
        }
        other => Err(format!("not done: {other:?}").into()),
    }
}

fn describe(host: &SimHost) -> KwbaseHost {
    let mut described = KwbaseHost::new(host.name.clone(), Security::Insecure);
    described.program = "kwbase".to_owned();
    described.stores = host.stores.iter().map(StoreSpec::new).collect();
    described.listen_addr = Some(host.address.clone());
    described.http_addr = host.http_address.clone();
    described
}
