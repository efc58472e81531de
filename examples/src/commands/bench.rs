//! `bench scale-in`: the documented commands beside `apply`, on the same data of a real cluster that is made for it.
//!
//! Four nodes are started and filled, and left alone until nothing moves. Then they are killed, and what their stores
//! hold is copied. Each way begins from that copy, one after the other, with the same two questions asked each second.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum as _};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::health::range_health;
use kwdb_scale_core::observation::Observation;
use kwdb_scale_core::ports::FactSource;
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{Address, NodeClass, StoreId};
use kwdb_scale_sim::lab::{Lab, LabInfo, LabOptions};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::time::{sleep, timeout};

use super::lab::{blocking, interrupted, make};
use crate::cli::PaceArg;
use crate::connect::Cluster;
use crate::failure::{Exit, Failure};
use crate::lab;
use crate::ui::Ui;

/// The last of so many nodes leaves.
const NODES: usize = 4;
/// Replica counts that do not change for so long have settled.
const SETTLED: Duration = Duration::from_secs(30);
/// For the cluster to settle, and for one scale-in.
const LONGEST: Duration = Duration::from_secs(3600);
/// For a started cluster to be fit for a scale-in.
const FIT: &str = "5m";
const POLL: Duration = Duration::from_secs(1);
/// The same where so few replicas are left that the end is near.
const CLOSE: (u64, Duration) = (32, Duration::from_millis(200));

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Scale a real cluster in from four nodes to three: by the documented commands, and by kwscale over the admin RPC.
    ScaleIn(ScaleInArgs),
}

/// What `bench scale-in` takes.
#[derive(Args, Debug)]
pub(crate) struct ScaleInArgs {
    /// The real kwbase.
    #[arg(long, value_name = "PROGRAM")]
    kwbase: PathBuf,
    /// A directory that is absent or empty; what is made there is deleted at the end.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Ranges of a table with small rows.
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    ranges: u32,
    /// The pace of kwscale's way.
    #[arg(long, value_enum, default_value = "full")]
    pace: PaceArg,
    /// With certificates.
    #[arg(long)]
    secure: bool,
}

/// One way to scale in, in seconds since its beginning.
#[derive(Clone, Debug, Serialize)]
struct Way {
    /// When the count of replicas on the leaving node was first seen to be zero.
    empty_s: Option<f64>,
    /// When kwscale said that none is left, before it proves that.
    #[serde(skip_serializing_if = "Option::is_none")]
    noticed_s: Option<f64>,
    /// When it was told that the node is empty (documented), or everything was done and proven.
    told_s: f64,
    /// When the node was stopped, too.
    whole_s: f64,
    /// The fewest replicas that any range had.
    fewest_replicas: Option<usize>,
    /// Replicas on the leaving node at the beginning.
    replicas: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    ranges: usize,
    documented: Way,
    kwscale: Way,
    /// Of the whole times.
    ratio: f64,
}

pub(crate) async fn scale_in(ui: &Ui, args: &ScaleInArgs) -> Result<Exit, Failure> {
    if !args.kwbase.is_file() {
        return Err(Failure::usage(format!("--kwbase {}: there is no such program", args.kwbase.display())));
    }
    let options = LabOptions {
        nodes: NODES,
        ranges: args.ranges,
        secure: args.secure,
        kwbase: Some(args.kwbase.clone()),
        deadline: LONGEST,
        ..LabOptions::new(&args.dir)
    };
    // A lab that is there already is somebody's.
    if std::fs::read_dir(&args.dir).is_ok_and(|mut dir| dir.next().is_some()) {
        return Err(Failure::usage(format!("--dir {} is not empty", args.dir.display())));
    }
    ui.say(format_args!("making {NODES} nodes with {} ranges in {} …", args.ranges, args.dir.display()));
    let made = match make(options).await {
        Ok(made) => made,
        Err(failure) => {
            if let Ok(left) = Lab::open(&args.dir) {
                blocking(move || lab::down(left)).await?;
            }
            return Err(failure);
        }
    };
    let info = made.info().clone();
    let measured = tokio::select! {
        measured = measure(ui, args, &info) => measured,
        () = interrupted() => Err(Failure::other("interrupted: the cluster was ended")),
    };
    let _ = std::fs::remove_dir_all(copy_of(&info));
    for file in [control_file(&info), plan_file(&info)] {
        let _ = std::fs::remove_file(file);
    }
    blocking(move || lab::down(made)).await?;
    let report = measured?;
    if ui.json() {
        ui.print_json(&report)?;
    } else {
        ui.print(report.text(args));
    }
    Ok(Exit::Done)
}

impl Report {
    fn text(&self, args: &ScaleInArgs) -> String {
        let seconds = |s: Option<f64>| s.map_or("-".to_owned(), |s| format!("{s:.1} s"));
        let line = |name: &str, way: &Way| {
            format!(
                "{name:<24}{:>12}{:>12}{:>12}{:>12}{:>18}\n",
                seconds(way.empty_s),
                seconds(way.noticed_s),
                seconds(Some(way.told_s)),
                seconds(Some(way.whole_s)),
                way.fewest_replicas.map_or("-".to_owned(), |n| n.to_string()),
            )
        };
        let replicas = self.documented.replicas.map_or("unknown".to_owned(), |n| n.to_string());
        let ratio = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) if b > 0.0 => format!("{:.3}", a / b),
            _ => "-".to_owned(),
        };
        let (ours, theirs) = (&self.kwscale, &self.documented);
        format!(
            "{} ranges, {replicas} replicas on the leaving node, 4 nodes to 3\n\n{:<24}{:>12}{:>12}{:>12}{:>12}{:>18}\n{}{}{:<24}{:>12}{:>12}{:>12}{:>12}\n",
            self.ranges,
            "",
            "empty",
            "noticed",
            "told",
            "stopped",
            "fewest replicas",
            line("documented commands", theirs),
            line(&format!("kwscale, pace {}", pace(args.pace)), ours),
            "ratio",
            ratio(ours.empty_s, theirs.empty_s),
            "",
            ratio(Some(ours.told_s), Some(theirs.told_s)),
            ratio(Some(ours.whole_s), Some(theirs.whole_s)),
        )
    }
}

/// As the command line writes it.
fn pace(pace: PaceArg) -> String {
    pace.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn copy_of(info: &LabInfo) -> PathBuf {
    info.dir.join("copy")
}

fn control_file(info: &LabInfo) -> PathBuf {
    info.dir.join("bench.toml")
}

fn plan_file(info: &LabInfo) -> PathBuf {
    info.dir.join("bench-plan.json")
}

async fn measure(ui: &Ui, args: &ScaleInArgs, info: &LabInfo) -> Result<Report, Failure> {
    let file = lab::cluster_file(info);
    let text = std::fs::read_to_string(&file)
        .map_err(|e| Failure::other(format!("{} cannot be read: {e}", file.display())))?;
    std::fs::write(control_file(info), text.replacen("[cluster]\n", "[cluster]\ncontrol = \"rpc\"\n", 1))
        .map_err(|e| Failure::other(format!("{} cannot be written: {e}", control_file(info).display())))?;
    let cluster = Cluster::open(&file).await?;
    ui.say("waiting until nothing moves …");
    let ranges = settle(&cluster).await?;
    stop(info).await?;
    let stores: Vec<PathBuf> = info.hosts.iter().flat_map(|h| h.stores.iter().cloned()).collect();
    copy(&stores, &copy_of(info), false).await?;
    start(info, &cluster).await?;
    fit(info).await?;
    ui.say("the documented commands: node decommission, node status, quit …");
    let documented = documented(info, &cluster).await?;
    ui.say(format_args!("… {:.1} s; the same data again, by kwscale …", documented.whole_s));
    stop(info).await?;
    copy(&stores, &copy_of(info), true).await?;
    start(info, &cluster).await?;
    fit(info).await?;
    let kwscale = ours(args, info, &cluster).await?;
    let ratio = kwscale.whole_s / documented.whole_s.max(f64::MIN_POSITIVE);
    Ok(Report { schema: "kwscale.bench/v1", ranges, documented, kwscale, ratio })
}

/// Waits until replica counts stay as they are; gives the number of ranges.
async fn settle(cluster: &Cluster) -> Result<usize, Failure> {
    let begun = Instant::now();
    let mut last: Option<(Vec<u64>, Instant)> = None;
    while begun.elapsed() < LONGEST {
        let observation = cluster.observe(None).await?;
        let counts: Option<Vec<u64>> =
            observation.nodes.values().map(|n| n.replicas.known().copied()).collect();
        match (counts, &last) {
            (Some(counts), Some((before, since))) if counts == *before => {
                if since.elapsed() >= SETTLED {
                    return Ok(observation.ranges.known().map_or(0, Vec::len));
                }
            }
            (Some(counts), _) => last = Some((counts, Instant::now())),
            (None, _) => last = None,
        }
        sleep(POLL).await;
    }
    Err(Failure::other(format!("replicas still move after {} s", LONGEST.as_secs())))
}

/// Kills what runs.
async fn stop(info: &LabInfo) -> Result<(), Failure> {
    let (dir, hosts) = (info.dir.clone(), info.hosts.clone());
    blocking(move || {
        let lab = Lab::open(&dir)?;
        for host in &hosts {
            if lab.runs(host.name.as_str())? {
                lab.kill(host.name.as_str())?;
            }
        }
        Ok(())
    })
    .await
}

/// Starts all nodes at once, because none is ready before there is a quorum, and waits for a healthy cluster.
async fn start(info: &LabInfo, cluster: &Cluster) -> Result<(), Failure> {
    let starts = info.hosts.iter().map(|host| {
        let (dir, name) = (info.dir.clone(), host.name.clone());
        tokio::spawn(blocking(move || Lab::open(&dir)?.restart(name.as_str())))
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.map_err(|e| Failure::other(format!("a start was cut off: {e}")))??;
    }
    let begun = Instant::now();
    while begun.elapsed() < LONGEST {
        if let Ok(observation) = cluster.observe(None).await
            && is_well(&observation)
        {
            return Ok(());
        }
        sleep(POLL).await;
    }
    Err(Failure::other("the cluster did not come back from its copy"))
}

fn is_well(observation: &Observation) -> bool {
    let live =
        observation.of_class(NodeClass::Member).filter(|n| n.is_healthy() == Fact::Known(true)).count();
    let health = range_health(observation, observation.counted_members(), &BTreeSet::new());
    live == NODES && matches!(health, Fact::Known(h) if h.is_good() && h.with_learners == 0)
}

/// Has `dir` hold what the stores hold, or the stores what `dir` holds.
async fn copy(stores: &[PathBuf], dir: &Path, back: bool) -> Result<(), Failure> {
    for (i, store) in stores.iter().enumerate() {
        let aside = dir.join(i.to_string());
        let (from, to) = if back { (aside, store.clone()) } else { (store.clone(), aside) };
        let copied = tokio::task::spawn_blocking(move || {
            if to.exists() {
                std::fs::remove_dir_all(&to)?;
            }
            copy_dir(&from, &to)
        });
        let copied = copied.await.map_err(|e| Failure::other(format!("a copy was cut off: {e}")))?;
        copied.map_err(|e| Failure::other(format!("{} cannot be copied: {e}", store.display())))?;
    }
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// What is asked each second meanwhile.
struct Watch {
    begun: Instant,
    empty: Option<Duration>,
    fewest: Option<usize>,
    replicas: Option<u64>,
}

impl Watch {
    /// Asks until it is dropped.
    async fn on(&mut self, cluster: &Cluster, gateway: &Address, store: StoreId) {
        let mut pause = POLL;
        loop {
            let ask = timeout(POLL * 5, cluster.sql.fetch(gateway, &Query::Ranges));
            if let Ok(Ok(answer)) = ask.await
                && let Rows::Ranges(ranges) = answer.rows
            {
                let on = ranges.iter().filter(|r| r.replicas.contains(&store) || r.learners.contains(&store));
                let left = u64::try_from(on.count()).unwrap_or(u64::MAX);
                self.replicas.get_or_insert(left);
                if left == 0 {
                    self.empty.get_or_insert(self.begun.elapsed());
                }
                let fewest = ranges.iter().map(|r| r.replicas.len()).min();
                self.fewest = [self.fewest, fewest].into_iter().flatten().min();
                pause = if left <= CLOSE.0 && self.empty.is_none() { CLOSE.1 } else { POLL };
            }
            sleep(pause).await;
        }
    }

    fn way(self, told: &Told) -> Way {
        Way {
            empty_s: self.empty.map(|d| d.as_secs_f64()),
            noticed_s: told.noticed.map(|at| at.duration_since(self.begun).as_secs_f64()),
            told_s: told.at.duration_since(self.begun).as_secs_f64(),
            whole_s: self.begun.elapsed().as_secs_f64(),
            fewest_replicas: self.fewest,
            replicas: self.replicas,
        }
    }
}

/// When it was told that the node is empty.
struct Told {
    at: Instant,
    noticed: Option<Instant>,
}

/// Does something, with the questions beside it.
async fn watched(
    info: &LabInfo,
    cluster: &Cluster,
    work: impl Future<Output = Result<Told, Failure>>,
) -> Result<Way, Failure> {
    let observation = cluster.observe(None).await?;
    let leaving = observation.nodes.values().next_back();
    let store = leaving.and_then(|n| n.stores.keys().next().copied());
    let (Some(store), Some(first)) = (store, info.hosts.first()) else {
        return Err(Failure::other("the cluster does not tell the store of the leaving node"));
    };
    let mut watch = Watch { begun: Instant::now(), empty: None, fewest: None, replicas: None };
    let told = tokio::select! {
        told = work => told?,
        () = watch.on(cluster, &first.sql_address, store) => return Err(Failure::other("the watch ended")),
    };
    Ok(watch.way(&told))
}

/// The steps of the KWDB page: decommission, look, quit.
async fn documented(info: &LabInfo, cluster: &Cluster) -> Result<Way, Failure> {
    let (Some(first), Some(last)) = (info.hosts.first(), info.hosts.last()) else {
        return Err(Failure::other("the cluster has no hosts"));
    };
    let (host, leaving) = (format!("--host={}", first.address), format!("--host={}", last.address));
    let security = match &info.certs_dir {
        Some(dir) => format!("--certs-dir={}", dir.display()),
        None => "--insecure".to_owned(),
    };
    let id = NODES.to_string();
    let run =
        async |arguments: &[&str]| finished(&info.kwbase, &[arguments, &[security.as_str()]].concat()).await;
    let work = async {
        run(&["node", "decommission", &id, &host]).await?;
        let told = Told { at: Instant::now(), noticed: None };
        run(&["node", "status", "--decommission", &host]).await?;
        run(&["quit", &leaving]).await?;
        Ok(told)
    };
    watched(info, cluster, work).await
}

/// Runs a program until it has succeeded; it ends with the one who waits for it. What it comes back with is when it
/// ended, and when it first said on standard error that no replica is left.
async fn finished(program: &Path, arguments: &[&str]) -> Result<Told, Failure> {
    let said = || format!("{} {}", program.display(), arguments.join(" "));
    let failed = |e: std::io::Error| Failure::other(format!("{} cannot be run: {e}", said()));
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let (mut noticed, mut printed, mut told) = (None, String::new(), String::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let printing = async {
        match stdout {
            Some(mut stdout) => stdout.read_to_string(&mut printed).await,
            None => Ok(0),
        }
    };
    let telling = async {
        let Some(stderr) = stderr else { return Ok(()) };
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await? {
            if line.trim_start().starts_with("0 of ") && line.contains("replicas left") {
                noticed.get_or_insert_with(Instant::now);
            }
            told.push_str(&line);
            told.push('\n');
        }
        Ok(())
    };
    let reading = async {
        tokio::try_join!(printing, telling)?;
        child.wait().await
    };
    let status = timeout(LONGEST, reading).await;
    let status = status
        .map_err(|_| Failure::other(format!("{} did not end within {} s", said(), LONGEST.as_secs())))?;
    let status = status.map_err(failed)?;
    match status.success() {
        true => Ok(Told { at: Instant::now(), noticed }),
        false => {
            Err(Failure::other(format!("{} ended with {status}:\n{printed}{}", said(), told.trim_end())))
        }
    }
}

/// This program, on the cluster.
async fn kwscale(info: &LabInfo, arguments: &[&str]) -> Result<Told, Failure> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::other(format!("this program does not know where it lies: {e}")))?;
    let file = control_file(info).display().to_string();
    finished(&program, &[&["--cluster", file.as_str()], arguments].concat()).await
}

/// Waits until a scale-in would be taken: what nodes tell of themselves is some seconds old after their start.
async fn fit(info: &LabInfo) -> Result<(), Failure> {
    kwscale(info, &["check", "--wait-healthy", FIT, "scale-in", &NODES.to_string()]).await.map(drop)
}

/// `kwscale plan` and `kwscale apply`.
async fn ours(args: &ScaleInArgs, info: &LabInfo, cluster: &Cluster) -> Result<Way, Failure> {
    let (id, plan) = (NODES.to_string(), plan_file(info).display().to_string());
    let work = async {
        kwscale(info, &["plan", "--pace", &pace(args.pace), "scale-in", &id, "-o", &plan]).await?;
        kwscale(info, &["apply", "--yes", &plan]).await
    };
    watched(info, cluster, work).await
}
