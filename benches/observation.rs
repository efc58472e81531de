//! What one observation costs: each statement with its rows, the bytes of its answer on the wire, and its median time.
//!
//! On the twin's ports in this process, or with `KWDB_SCALE_SEEDS=host:port,host:port` on a running insecure cluster,
//! which is only read. Prints Markdown tables; criterion has no part in it, because bytes are not time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kwdb_scale_core::execute::{ObserveOptions, observe};
use kwdb_scale_core::observation::{full_survey, view_survey};
use kwdb_scale_core::ports::FactSource;
use kwdb_scale_core::rows::{Answer, Query, Rows};
use kwdb_scale_core::statement;
use kwdb_scale_core::topology::{Address, StoreId};
use kwdb_scale_sim::model::{Cluster, Config, NodeStart, TableSpec};
use kwdb_scale_sim::process::{Listeners, Pace, free_addresses};
use kwdb_scale_sql::SqlSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// How often each statement is asked.
const RUNS: usize = 11;

fn main() -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let seeds = std::env::var("KWDB_SCALE_SEEDS").unwrap_or_default();
        let seeds: Vec<Address> = seeds.split(',').filter(|s| !s.is_empty()).map(Address::from).collect();
        if !seeds.is_empty() {
            return measure(&seeds).await;
        }
        let addresses = free_addresses(5)?;
        let _listeners = twin(&addresses).await?;
        measure(&addresses).await
    })
}

async fn twin(addresses: &[Address]) -> Outcome<Listeners> {
    let mut cluster = Cluster::new(Config::default());
    for address in addresses {
        cluster.start_node(NodeStart::new(address.clone(), addresses.to_vec()))?;
    }
    cluster.advance(Duration::from_secs(2));
    for address in addresses.iter().take(1) {
        cluster.init(address)?;
    }
    cluster.advance(Duration::from_secs(60));
    cluster.create_table(TableSpec::new("app", "kv", 40))?;
    cluster.advance(Duration::from_secs(300));
    let mut listeners = Listeners::new(Arc::new(Mutex::new(cluster)), Pace::Manual);
    for address in addresses {
        listeners.open(address).await?;
    }
    Ok(listeners)
}

async fn measure(seeds: &[Address]) -> Outcome {
    let source = SqlSource::builder(seeds.to_vec()).build()?;
    let first = seeds.first().ok_or("no seed")?.clone();
    let Rows::Stores(stores) = source.fetch(&first, &Query::Stores).await?.rows else {
        return Err("no stores".into());
    };
    let stores: Vec<StoreId> = stores.iter().map(|s| s.store_id).collect();
    let last: Vec<StoreId> = stores.iter().rev().take(1).copied().collect();
    let survey = full_survey();
    let polls = [
        Query::Liveness,
        Query::Stores,
        Query::ReplicaCounts(last.clone()),
        Query::RangesOn { stores: last, limit: 10 },
    ];
    table("Statements of a full survey", &source, &first, &survey).await?;
    table("Polls of a drain", &source, &first, &polls).await?;

    let views = survey.len() + 2 * view_survey().len() + 1;
    let options = ObserveOptions::default();
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        observe(&source, None, &options).await?;
        times.push(begun.elapsed());
    }
    println!("\nWhole observation, up to {views} statements on three kept connections: {} ms", median(times));
    let begun = Instant::now();
    observe(&SqlSource::builder(seeds.to_vec()).build()?, None, &options).await?;
    println!("The same once, connecting first: {:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}

async fn table(title: &str, source: &SqlSource, gateway: &Address, queries: &[Query]) -> Outcome {
    println!(
        "\n{title}\n\n| statement | bytes sent | rows | bytes received | median ms |\n|---|---|---|---|---|"
    );
    let wire = Wire::before(gateway).await?;
    let counted = SqlSource::builder([wire.address.clone()]).build()?;
    // So that the log-in is not counted.
    counted.fetch(&wire.address, &Query::Cluster).await?;
    let (mut sent, mut received, mut total) = (0, 0, 0.0);
    for query in queries {
        let before = wire.count();
        let answer = counted.fetch(&wire.address, query).await?;
        let after = wire.count();
        let (up, down) = (after.0 - before.0, after.1 - before.1);
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let begun = Instant::now();
            source.fetch(gateway, query).await?;
            times.push(begun.elapsed());
        }
        let ms = median(times);
        println!("| {} | {up} | {} | {down} | {ms} |", statement::name(query), rows(&answer));
        sent += up;
        received += down;
        total += ms.parse::<f64>()?;
    }
    println!("| all | {sent} | | {received} | {total:.1} |");
    Ok(())
}

fn median(mut times: Vec<Duration>) -> String {
    times.sort();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    format!("{:.1}", middle.as_secs_f64() * 1000.0)
}

fn rows(answer: &Answer) -> usize {
    match &answer.rows {
        Rows::Liveness(rows) => rows.len(),
        Rows::Nodes(rows) => rows.len(),
        Rows::Stores(rows) => rows.len(),
        Rows::Ranges(rows) => rows.len(),
        Rows::ReplicaCounts(rows) => rows.len(),
        Rows::Zones(rows) => rows.len(),
        Rows::Jobs(rows) => rows.len(),
        Rows::Settings(rows) => rows.len(),
        _ => 1,
    }
}

/// A port before a gateway that counts what passes.
struct Wire {
    address: Address,
    counts: Arc<[AtomicU64; 2]>,
}

impl Wire {
    async fn before(gateway: &Address) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = Address::new(listener.local_addr()?.to_string());
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let (gateway, shared) = (gateway.to_string(), Arc::clone(&counts));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&gateway).await else { return };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, Arc::clone(&shared), 0));
                tokio::spawn(pass(from_server, to_client, Arc::clone(&shared), 1));
            }
        });
        Ok(Self { address, counts })
    }

    /// Bytes sent and received so far.
    fn count(&self) -> (u64, u64) {
        let [sent, received] = &*self.counts;
        (sent.load(Ordering::SeqCst), received.load(Ordering::SeqCst))
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    counts: Arc<[AtomicU64; 2]>,
    which: usize,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        if let Some(count) = counts.get(which) {
            count.fetch_add(n as u64, Ordering::SeqCst);
        }
        to.write_all(buffer.get(..n).unwrap_or_default()).await?;
    }
}
