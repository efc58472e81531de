//! `lab …`: local clusters of real processes.

use std::path::Path;

use kwdb_scale_sim::lab::{Lab, LabError, LabOptions};
use serde_json::json;

use crate::cli::UpArgs;
use crate::failure::{Exit, Failure};
use crate::lab;
use crate::ui::Ui;

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        use std::error::Error;
        let exit = match &error {
            LabError::NoLab(_)
            | LabError::TooFewNodes(_)
            | LabError::NotEmpty(_)
            | LabError::NoHost(_)
            | LabError::NotRunning(_)
            | LabError::Running(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        match error.source() {
            Some(cause) => Self::new(exit, format!("{error}: {cause}")),
            None => Self::new(exit, error.to_string()),
        }
    }
}

/// The twin's model does not keep up with more.
const FASTEST: f64 = 10_000.0;

/// Labs block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LabError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Failure::from),
        Err(e) => Err(Failure::other(format!("the lab's work was cut off: {e}"))),
    }
}

pub(crate) async fn up(ui: &Ui, args: &UpArgs) -> Result<Exit, Failure> {
    if !(args.speed > 0.0 && args.speed <= FASTEST) {
        return Err(Failure::usage(format!("--speed {} is not above 0 and up to {FASTEST}", args.speed)));
    }
    if args.kwbase.is_some() && args.speed != 1.0 {
        return Err(Failure::usage("--speed is for the twin: a real kwbase has no other speed than 1"));
    }
    if let Some(kwbase) = &args.kwbase
        && !kwbase.is_file()
    {
        return Err(Failure::usage(format!("--kwbase {}: there is no such program", kwbase.display())));
    }
    let options = LabOptions {
        nodes: args.nodes as usize,
        secure: args.secure,
        single_replica: args.single_replica,
        ranges: args.ranges,
        stores_per_node: args.stores_per_node as usize,
        speed: args.speed,
        kwbase: args.kwbase.clone(),
        ..LabOptions::new(&args.dir)
    };
    ui.say(format_args!("starting {} nodes in {} …", args.nodes, args.dir.display()));
    let dir = args.dir.clone();
    let made = tokio::select! {
        made = blocking(move || lab::up(options)) => made?,
        () = interrupted() => {
            // What was started so far is not left behind.
            if let Ok(lab) = Lab::open(&dir) {
                blocking(move || lab::down(lab)).await?;
            }
            return Err(Failure::other("interrupted: what was started was ended again"));
        }
    };
    let info = made.info();
    let file = lab::cluster_file(info);
    if ui.json() {
        ui.print_json(&json!({
            "schema": "kwscale.lab/v1",
            "dir": info.dir,
            "cluster": file,
            "kwbase": info.kwbase,
            "real": info.real,
            "hosts": info.hosts.iter().map(|h| json!({"name": h.name, "address": h.address})).collect::<Vec<_>>(),
        }))?;
    } else {
        ui.print(file.display());
    }
    let dir = args.dir.display();
    let next = info.hosts.len() + 1;
    // A single-replica cluster is never scaled in.
    let scale_in = match args.single_replica {
        true => String::new(),
        false => {
            format!("\n  kwscale plan scale-in {} -o in.json\n  kwscale apply in.json", info.hosts.len())
        }
    };
    ui.say(format_args!(
        "{} nodes are up. Try:\n  export KWSCALE_CLUSTER={}\n  kwscale status\n  kwscale lab add --dir {dir}\n  \
         kwscale plan scale-out n{next} -o out.json\n  kwscale apply out.json{scale_in}\n  kwscale lab down --dir {dir}",
        info.hosts.len(),
        file.display(),
    ));
    Ok(Exit::Done)
}

/// Ctrl-C or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

pub(crate) async fn add(ui: &Ui, dir: &Path) -> Result<Exit, Failure> {
    let mut lab = Lab::open(dir)?;
    let host = lab::add(&mut lab)?;
    if ui.json() {
        ui.print_json(
            &json!({"schema": "kwscale.lab/v1", "host": {"name": host.name, "address": host.address}}),
        )?;
    } else {
        ui.print(&host.name);
    }
    ui.say(format_args!("host {} at {} is described and not started", host.name, host.address));
    Ok(Exit::Done)
}

pub(crate) async fn kill(ui: &Ui, dir: &Path, name: &str) -> Result<Exit, Failure> {
    let (lab, target) = (Lab::open(dir)?, name.to_owned());
    blocking(move || lab.kill(&target)).await?;
    done(ui, name, "killed")
}

pub(crate) async fn restart(ui: &Ui, dir: &Path, name: &str) -> Result<Exit, Failure> {
    let (lab, target) = (Lab::open(dir)?, name.to_owned());
    blocking(move || lab.restart(&target)).await?;
    done(ui, name, "started")
}

pub(crate) async fn down(ui: &Ui, dir: &Path) -> Result<Exit, Failure> {
    let lab = Lab::open(dir)?;
    blocking(move || lab::down(lab)).await?;
    done(ui, &dir.display().to_string(), "ended")
}

fn done(ui: &Ui, what: &str, how: &str) -> Result<Exit, Failure> {
    if ui.json() {
        ui.print_json(&json!({"schema": "kwscale.lab/v1", how: what}))?;
    } else {
        ui.say(format_args!("{what} {how}"));
    }
    Ok(Exit::Done)
}
