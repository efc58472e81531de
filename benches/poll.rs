//! What one poll costs: a kwbase process each time, or a question over a connection that is kept, by SQL and by RPC; in
//! time, and in what it takes of the client's processor.
//!
//! On the twin always; with `KWDB_SCALE_KWBASE=/path/to/kwbase` also on a real cluster of three nodes, which is
//! started on free ports and ended by pid.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use jiff::Timestamp;
use kwdb_scale_core::execute::{JournalRecord, ObserveOptions, Record, observe};
use kwdb_scale_core::kwbase::parse;
use kwdb_scale_core::ports::{Command, DecommissionControl, FactSource, Gateway, HostTransport, Journal};
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{Address, HostName, NodeId, StoreId};
use kwdb_scale_local::{FileJournal, LocalTransport};
use kwdb_scale_rpc::AdminRpc;
use kwdb_scale_sim::lab::{Lab, LabOptions};
use kwdb_scale_sim::model::{Cluster, Config, NodeStart, TableSpec};
use kwdb_scale_sim::process::{Listeners, Pace, free_addresses};
use kwdb_scale_sql::SqlSource;
use tokio::runtime::Runtime;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Ranges of the table in each cluster.
const RANGES: u32 = 40;
const DEADLINE: Duration = Duration::from_secs(20);

fn main() -> Outcome {
    // Nodes and the kwbase of the twin are this executable started again.
    kwdb_scale_sim::process::hook();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    parsing(&mut criterion);
    journal(&mut criterion, &runtime)?;
    questions_to_the_twin(&mut criterion, &runtime)?;
    processes(&mut criterion, &runtime, None)?;
    let real = std::env::var_os("KWDB_SCALE_KWBASE").filter(|path| !path.is_empty());
    if let Some(kwbase) = real {
        processes(&mut criterion, &runtime, Some(kwbase.into()))?;
    }
    criterion.final_summary();
    Ok(())
}

/// What `kwbase node status --all --format=csv` prints of `nodes` nodes.
fn status_csv(nodes: usize) -> String {
    let header = "id,address,sql_address,build,started_at,updated_at,locality,start_mode,is_available,is_live,\
                  replicas_leaders,replicas_leaseholders,ranges,ranges_unavailable,ranges_underreplicated,\
                  live_bytes,key_bytes,value_bytes,intent_bytes,system_bytes,gossiped_replicas,is_decommissioning,\
                  is_draining\n";
    let row = |n: usize| {
        format!(
            "{n},10.0.0.{n}:26257,10.0.0.{n}:26257,V3.2.1,2026-11-23 13:44:29.277952+00:00,\
             2026-11-23 13:50:12.100001+00:00,region=NODE{n},start,true,true,20,20,57,0,0,92837465,1029384,\
             92837465,0,18273,57,false,false\n"
        )
    };
    std::iter::once(header.to_owned()).chain((1..=nodes).map(row)).collect()
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse node status");
    for nodes in [5, 100] {
        let text = status_csv(nodes);
        let rows = parse::node_status(&text).map(|rows| rows.len());
        assert!(rows.is_ok_and(|rows| rows == nodes), "the text is what kwbase prints");
        group.bench_with_input(BenchmarkId::from_parameter(nodes), &text, |b, text| {
            b.iter(|| parse::node_status(black_box(text)));
        });
    }
    group.finish();
}

/// Each record is written and synced before the next.
fn journal(c: &mut Criterion, runtime: &Runtime) -> Outcome {
    let dir = tempfile::tempdir()?;
    let journal = runtime.block_on(FileJournal::create(dir.path(), "bench"))?;
    let mut seq = 0;
    c.bench_function("journal append", |b| {
        b.iter(|| {
            seq += 1;
            let record = Record::StepDone { step: 3, note: "n5 is empty in three samples".to_owned() };
            let record = JournalRecord { seq, at: Timestamp::UNIX_EPOCH, record };
            assert!(runtime.block_on(journal.append(&record)).is_ok(), "the record is written");
        });
    });
    Ok(())
}

/// The twin's ports in this process: what a question costs besides the database.
fn questions_to_the_twin(c: &mut Criterion, runtime: &Runtime) -> Outcome {
    let addresses = free_addresses(5)?;
    let mut cluster = Cluster::new(Config::default());
    for address in &addresses {
        cluster.start_node(NodeStart::new(address.clone(), addresses.clone()))?;
    }
    cluster.advance(Duration::from_secs(2));
    for address in addresses.iter().take(1) {
        cluster.init(address)?;
    }
    cluster.advance(Duration::from_secs(60));
    cluster.create_table(TableSpec::new("app", "kv", RANGES))?;
    cluster.advance(Duration::from_secs(300));
    let _guard = runtime.enter();
    // Its clock stands, so that only questions are measured.
    let mut listeners = Listeners::new(Arc::new(Mutex::new(cluster)), Pace::Manual);
    for address in &addresses {
        runtime.block_on(listeners.open(address))?;
    }
    questions(c, runtime, "twin, in process", &addresses)
}

/// Polls over SQL and RPC, on connections that are kept.
fn questions(c: &mut Criterion, runtime: &Runtime, name: &str, seeds: &[Address]) -> Outcome {
    let source = SqlSource::builder(seeds.to_vec()).build()?;
    let first = seeds.first().ok_or("no seed")?;
    let answer = runtime.block_on(source.fetch(first, &Query::Stores))?;
    let Rows::Stores(stores) = answer.rows else { return Err("no stores".into()) };
    let stores: Vec<StoreId> = stores.iter().map(|s| s.store_id).collect();
    let leaving: Vec<StoreId> = stores.iter().rev().take(1).copied().collect();
    let mut group = c.benchmark_group(name);
    for (name, query) in [
        ("sql liveness", Query::Liveness),
        ("sql stores", Query::Stores),
        ("sql replica counts of one store", Query::ReplicaCounts(leaving)),
        ("sql ranges", Query::Ranges),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let answer = runtime.block_on(source.fetch(first, &query));
                assert!(answer.is_ok(), "{answer:?}");
            });
        });
    }
    group.bench_function("sql liveness, connecting first", |b| {
        b.iter(|| {
            let source = SqlSource::builder([first.clone()]).build();
            let answer = source.map(|source| runtime.block_on(source.fetch(first, &Query::Liveness)));
            assert!(answer.is_ok_and(|a| a.is_ok()), "it answers");
        });
    });
    let rpc = AdminRpc::builder().build()?;
    let via = gateway(first);
    let status = |rpc: &AdminRpc| {
        let answer = runtime.block_on(rpc.status(&via, &[NodeId(3)], DEADLINE));
        assert!(answer.as_ref().is_ok_and(Option::is_some), "{answer:?}");
    };
    group.bench_function("rpc status of one node", |b| b.iter(|| status(&rpc)));
    group.bench_function("rpc ready", |b| {
        b.iter(|| {
            let answer = runtime.block_on(rpc.ready(first, DEADLINE));
            assert!(answer.is_ok(), "{answer:?}");
        });
    });
    group.bench_function("rpc status of one node, connecting first", |b| {
        b.iter(|| {
            let rpc = AdminRpc::builder().build();
            assert!(rpc.is_ok(), "{rpc:?}");
            rpc.iter().for_each(status);
        });
    });
    let options = ObserveOptions::default();
    group.bench_function("full observation", |b| {
        b.iter(|| {
            let observation = runtime.block_on(observe(&source, None, &options));
            assert!(observation.is_ok(), "{observation:?}");
        });
    });
    group.finish();
    Ok(())
}

fn gateway(address: &Address) -> Gateway {
    Gateway { node: NodeId(1), sql_address: address.clone(), address: address.clone(), host: None }
}

/// Polls by the command line: a process for each. And what each way takes of the client's processor, which only shows
/// where the nodes are processes of their own.
fn processes(c: &mut Criterion, runtime: &Runtime, kwbase: Option<PathBuf>) -> Outcome {
    let tmp = tempfile::tempdir()?;
    let name = if kwbase.is_some() { "real" } else { "twin, processes" };
    let real = kwbase.is_some();
    let dir = tmp.path().join("lab");
    let nodes = if real { 3 } else { 5 };
    let options = LabOptions { nodes, ranges: RANGES, speed: 20.0, kwbase, ..LabOptions::new(dir) };
    let lab = Lab::up(options)?.scoped();
    let host = HostName::from("n1");
    let transport = LocalTransport::new([host.clone()]);
    let program = lab.info().kwbase.display().to_string();
    let first = lab.info().hosts.first().ok_or("no host")?;
    let at = format!("--host={}", first.address);
    let spawn = |args: &[&str]| {
        let line = [program.as_str()].into_iter().chain(args.iter().copied());
        let command = Command::new(line.chain([at.as_str(), "--insecure", "--format=csv"]));
        let output = runtime.block_on(transport.run(&host, &command));
        assert!(output.as_ref().is_ok_and(|output| output.end.success()), "{output:?}");
    };
    client_cpu(runtime, name, &first.address, &|| spawn(&["node", "status"]))?;
    let mut group = c.benchmark_group(name);
    group.bench_function("spawn node status", |b| b.iter(|| spawn(&["node", "status"])));
    group.bench_function("spawn node status --all", |b| b.iter(|| spawn(&["node", "status", "--all"])));
    if !real {
        group.bench_function("spawn node decommission --wait=none", |b| {
            b.iter(|| spawn(&["node", "decommission", "5", "--wait=none"]));
        });
        spawn(&["node", "recommission", "5"]);
    }
    group.finish();
    if real {
        let seeds: Vec<Address> = lab.info().seeds();
        questions(c, runtime, name, &seeds)?;
    }
    Ok(())
}

/// Says what a poll takes of the processor of its client and of the processes that it starts.
fn client_cpu(runtime: &Runtime, name: &str, at: &Address, spawn: &dyn Fn()) -> Outcome {
    let sql = SqlSource::builder([at.clone()]).build()?;
    let (rpc, via) = (AdminRpc::builder().build()?, gateway(at));
    let ask = |query: &Query| {
        let answer = runtime.block_on(sql.fetch(at, query));
        assert!(answer.is_ok(), "{answer:?}");
    };
    let status = |rpc: &AdminRpc| {
        let answer = runtime.block_on(rpc.status(&via, &[NodeId(3)], DEADLINE));
        assert!(answer.is_ok(), "{answer:?}");
    };
    let anew = || AdminRpc::builder().build().iter().for_each(status);
    let polls: [(&str, u32, &dyn Fn()); 5] = [
        ("sql liveness", 1000, &|| ask(&Query::Liveness)),
        ("sql replica counts of one store", 1000, &|| ask(&Query::ReplicaCounts(vec![StoreId(3)]))),
        ("rpc status of one node", 1000, &|| status(&rpc)),
        ("rpc status of one node, connecting first", 200, &anew),
        ("spawn node status", 20, spawn),
    ];
    for (poll, times, one) in polls {
        one();
        let (began, before) = (Instant::now(), cpu_time()?);
        (0..times).for_each(|_| one());
        let each = |d: Duration| d.as_secs_f64() * 1e3 / f64::from(times);
        let (cpu, wall) = (each(cpu_time()? - before), each(began.elapsed()));
        println!("{name}/{poll}: {cpu:.2} ms of client CPU a poll, {wall:.2} ms of time ({times} polls)");
    }
    Ok(())
}

/// User and system time of this process and of the children that have ended.
fn cpu_time() -> Outcome<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, in brackets, may hold anything; utime, stime, cutime and cstime are the 14th to 17th field.
    let (_, fields) = stat.rsplit_once(") ").ok_or("/proc/self/stat is not as expected")?;
    let ticks: Result<Vec<u64>, _> = fields.split_whitespace().skip(11).take(4).map(str::parse).collect();
    let ticks = ticks?.into_iter().sum::<u64>() as f64;
    Ok(Duration::from_secs_f64(ticks / rustix::param::clock_ticks_per_second() as f64))
}
