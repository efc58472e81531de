//! A service that adds a node to a cluster: every port made by hand, nothing of this package's own.
//!
//! `cargo run --example embed_scale_out`. The cluster is a lab of the twin, made at the beginning of `main`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::SignedDuration;
use kwdb_scale_core::execute::{End, ObserveOptions, Operation, Ports, Progress, observe};
use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost, Security, StoreSpec};
use kwdb_scale_core::plan::plan;
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::request::{Inventory, InventoryHost, Operation as Change, Options, Request};
use kwdb_scale_local::{FileJournal, FileLock, LocalTransport, SystemClock};
use kwdb_scale_sim::lab::{Lab, LabInfo, LabOptions};
use kwdb_scale_sql::SqlSource;

fn main() -> Result<(), Box<dyn Error>> {
    // Only for the lab: its nodes are this executable started again.
    kwdb_scale_sim::process::hook();
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::up(LabOptions {
        nodes: 3,
        ranges: 10,
        speed: 20.0,
        ..LabOptions::new(scratch.path().join("lab"))
    })?
    .scoped();
    lab.add()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(scale_out(lab.info()))
}

async fn scale_out(info: &LabInfo) -> Result<(), Box<dyn Error>> {
    // 1. The ports. Facts and settings come over SQL; commands run where the nodes are.
    let sql = SqlSource::builder(info.seeds()).deadline(Duration::from_secs(10)).build()?;
    let hosts: Vec<KwbaseHost> = info.hosts.iter().map(|h| describe(info, h)).collect();
    let transport = Arc::new(LocalTransport::new(hosts.iter().map(|h| h.name.clone())));
    let inventory = Inventory {
        hosts: hosts
            .iter()
            .filter_map(|h| {
                Some((
                    h.name.clone(),
                    InventoryHost { address: h.rpc_address()?, sql_address: None, brpc_address: None },
                ))
            })
            .collect(),
        ..Inventory::default()
    };
    let kwbase = Arc::new(Kwbase::new(transport, hosts)?);
    let journals = info.dir.join("journals");
    let ports = Ports {
        facts: Arc::new(sql.clone()),
        settings: Arc::new(sql),
        control: kwbase.clone(),
        // Nobody is asked to look at ranges sooner: the servers' own pace.
        queue: None,
        lifecycle: kwbase,
        // The certificates lie on the hosts already, or the cluster is insecure.
        certificates: None,
        journal: Arc::new(FileJournal::create(&journals, "scale-out").await?),
        lock: Arc::new(FileLock::in_dir(&journals)),
        clock: Arc::new(SystemClock::new()),
    };

    // 2. What is wanted, and how patient to be. The defaults suit production; the twin's time is short.
    let new_host = info.hosts.last().ok_or("the lab has no host")?.name.clone();
    let request = Request {
        operation: Change::ScaleOut { hosts: vec![new_host] },
        inventory: inventory.clone(),
        options: Options::default(),
    };
    let policy = Policy {
        poll: SignedDuration::from_millis(200),
        settled_after: SignedDuration::from_secs(3),
        max_clock_skew: SignedDuration::from_secs(10),
        ..Policy::default()
    };

    // 3. Observe and plan. A refusal tells every reason and its cure, and when to ask again.
    let options = ObserveOptions { request: Some(request.clone()), inventory, ..ObserveOptions::default() };
    let observation = observe(&*ports.facts, Some(&*ports.lifecycle), &options).await?;
    let plan = match plan(&observation, &request, &policy) {
        Ok(plan) => plan,
        Err(refusal) => {
            for reason in refusal.reasons() {
                eprintln!("{reason}\n    again: {:?}", reason.retry);
            }
            return Err(refusal.into());
        }
    };
    print!("{plan}");

    // 4. Apply. The journal holds everything that a later `Operation::resume` needs.
    let mut operation = Operation::begin(plan, ports).await?;
    let mut events = operation.events();
    let watcher = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Progress::StepDone { step, note } = event {
                println!("step {step} done: {note}");
            }
        }
    });
    let end = operation.run().await;
    watcher.await?;
    match end {
        End::Done(proof) => {
            println!("done: {}", proof.join("; "));
            Ok(())
        }
        other => Err(format!("not done: {other:?}").into()),
    }
}

/// How a host of the lab runs kwbase. In production this comes from the service's own inventory.
fn describe(info: &LabInfo, host: &kwdb_scale_sim::lab::LabHost) -> KwbaseHost {
    let mut described = KwbaseHost::new(host.name.clone(), Security::Insecure);
    described.program = info.kwbase.display().to_string();
    described.stores = host.stores.iter().map(|s| StoreSpec::new(s.display().to_string())).collect();
    described.listen_addr = Some(host.address.clone());
    described.http_addr = Some(host.http_address.clone());
    described.brpc_addr = Some(host.brpc_address.clone());
    described.cache = Some("256MiB".to_owned());
    // With it the lab finds the node when it is ended.
    described.pid_file = Some(host.pid_file.display().to_string());
    described.output_file = Some(host.output_file.display().to_string());
    described
}
