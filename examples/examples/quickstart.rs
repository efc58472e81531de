//! A cluster of four local processes grows to five and shrinks back to four, and everything is shown: observation,
//! findings, plan, progress, proof.
//!
//! `cargo run --example quickstart`. The processes are those of the twin, a simulated KWDB; with a real one it is the
//! same, see `kwscale lab up --kwbase`.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kwdb_scale_core::assess::{Finding, Retry, assess};
use kwdb_scale_core::execute::{End, Operation};
use kwdb_scale_core::plan::plan;
use kwdb_scale_core::request::{NodeRef, Operation as Change, Options, Request};
use kwdb_scale_core::topology::HostName;
use kwdb_scale_examples::connect::Cluster;
use kwdb_scale_examples::report::Status;
use kwdb_scale_examples::ui::{Format, Ui};
use kwdb_scale_examples::{lab, progress};
use kwdb_scale_local::FileJournal;
use kwdb_scale_sim::lab::{Lab, LabOptions};

/// How much faster than real the twin's time goes.
const SPEED: f64 = 20.0;
/// For a cluster that is not fit for a change yet.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    // Nodes of the twin are this executable started again: here such a start becomes a node and goes no further.
    kwdb_scale_sim::process::hook();
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let dir = scratch.path().join("lab");
    println!("== A lab of four nodes in {}, {SPEED} times as fast as real", dir.display());
    // If this program is killed, its lab is not left behind.
    let options =
        LabOptions { nodes: 4, ranges: 20, speed: SPEED, ends_with_caller: true, ..LabOptions::new(&dir) };
    let mut lab = lab::up(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shown = runtime.block_on(async {
        tokio::select! {
            shown = show(&mut lab) => shown,
            _ = tokio::signal::ctrl_c() => Err("interrupted; the lab is ended".into()),
        }
    });
    // The processes end, whatever came of it.
    lab.down()?;
    shown
}

async fn show(lab: &mut Lab) -> Result<bool, Box<dyn Error>> {
    // A fifth host: free ports and a directory, described in cluster.toml. Nothing is started on it yet.
    let fifth = lab::add(lab)?;
    let file = lab::cluster_file(lab.info());
    println!("== The cluster as {} describes it\n", file.display());
    let cluster = Cluster::open(&file).await?;
    println!("{}", status(&cluster).await?);

    println!("== Out: a node on host {}\n", fifth.name);
    if !change(&cluster, Change::ScaleOut { hosts: vec![fifth.name.clone()] }).await? {
        return Ok(false);
    }
    println!("{}", status(&cluster).await?);

    println!("== In: the node of host {} leaves\n", fifth.name);
    if !change(&cluster, Change::ScaleIn { nodes: vec![NodeRef::Host(HostName::new("n5"))] }).await? {
        return Ok(false);
    }
    println!("{}", status(&cluster).await?);
    println!("== Five nodes and back to four. The same by hand: examples/README.md");
    Ok(true)
}

async fn status(cluster: &Cluster) -> Result<String, Box<dyn Error>> {
    let observation = cluster.observe(None).await?;
    let config = &cluster.config;
    Ok(Status::of(&config.label, &config.inventory(), &observation, config.policy.max_status_age).text())
}

/// The whole road: observe, assess, plan, apply, verify.
async fn change(cluster: &Cluster, operation: Change) -> Result<bool, Box<dyn Error>> {
    let config = &cluster.config;
    let request = Request { operation, inventory: config.inventory(), options: Options::default() };
    let begun = Instant::now();
    let plan = loop {
        let observation = cluster.observe(Some(&request)).await?;
        let planned = plan(&observation, &request, &config.policy);
        // What passes by itself is waited for: the nodes' own gauges, say, are up to 10 s old.
        let passes = |r: &Finding| matches!(r.retry, Some(Retry::After(_)));
        if planned.as_ref().is_err_and(|no| no.reasons().all(passes)) && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        }
        println!("-- findings");
        for finding in &assess(&observation, &request, &config.policy).findings {
            println!("{finding}");
        }
        match planned {
            Ok(plan) => break plan,
            Err(refusal) => {
                println!("{refusal}");
                return Ok(false);
            }
        }
    };
    println!("\n-- plan\n{plan}");

    println!("-- progress");
    let journal = FileJournal::create(&config.journal, &plan.id).await?;
    let chosen = cluster.control(&plan.gateways).await?;
    let mut operation = Operation::begin(plan, cluster.ports(chosen, Arc::new(journal))).await?;
    let talk = tokio::spawn(progress::follow(Ui::new(Format::Text), operation.events()));
    let end = operation.run().await;
    drop(operation);
    talk.await?;
    match end {
        End::Done(proof) => {
            println!("\n-- proof");
            for line in proof {
                println!("{line}");
            }
            println!();
            Ok(true)
        }
        End::Stopped(stopped) => {
            println!("stopped: {}", stopped.message);
            for line in stopped.evidence.iter().chain(&stopped.next) {
                println!("  {line}");
            }
            Ok(false)
        }
        End::Undone(what) => {
            println!("undone: {}", what.join("; "));
            Ok(false)
        }
    }
}
