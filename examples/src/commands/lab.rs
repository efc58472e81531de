//! `lab …`: local clusters of real processes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kwdb_scale_sim::lab::{Hosts, Lab, LabError, LabHost, LabOptions, Login, NetnsOptions};
use serde_json::json;

use crate::cli::{HostsArg, LabAdd, LabNode, LabRun, LoginArg, MethodArg, UpArgs};
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
            | LabError::Running(_)
            | LabError::NoMachines
            | LabError::Unfit { .. } => Exit::Usage,
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
pub(super) async fn blocking<T: Send + 'static>(
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
    let login = match args.login {
        LoginArg::Root => Login::Root,
        LoginArg::Kaiwudb => Login::Ordinary,
    };
    let deploy = args.method == MethodArg::DeploySh;
    if deploy && args.stores_per_node > 1 {
        return Err(Failure::usage(
            "--method deploy.sh installs one store a node: leave --stores-per-node out",
        ));
    }
    let hosts = match args.hosts {
        HostsArg::Netns => Hosts::Netns(NetnsOptions { login, deploy, ..NetnsOptions::default() }),
        HostsArg::Processes if deploy => {
            return Err(Failure::usage(
                "--method deploy.sh needs hosts with files of their own: add --hosts netns",
            ));
        }
        HostsArg::Processes if login != Login::Root => {
            return Err(Failure::usage("--login is for hosts that have an sshd: add --hosts netns"));
        }
        HostsArg::Processes => Hosts::Processes,
    };
    let options = LabOptions {
        hosts,
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
    let made = make(options).await?;
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
    // The script makes certificates itself, of the authority's key.
    let archive = if deploy && args.secure { " --certificates archive" } else { "" };
    ui.say(format_args!(
        "{} nodes are up. Try:\n  export KWSCALE_CLUSTER={}\n  kwscale status\n  kwscale lab add --dir {dir}\n  \
         kwscale plan{archive} scale-out n{next} -o out.json\n  kwscale apply out.json{scale_in}\n  kwscale lab down --dir {dir}",
        info.hosts.len(),
        file.display(),
    ));
    Ok(Exit::Done)
}

/// Makes a lab; what was started is ended again when that is interrupted.
pub(super) async fn make(options: LabOptions) -> Result<Lab, Failure> {
    let (dir, cancel) = (options.dir.clone(), Arc::clone(&options.cancel));
    let mut making = std::pin::pin!(blocking(move || lab::up(options)));
    tokio::select! {
        made = &mut making => made,
        () = interrupted() => {
            // It ends what it has made, unless it is too slow for a person who insists.
            cancel.store(true, Ordering::Relaxed);
            tokio::select! {
                _ = making => {}
                () = interrupted() => {}
            }
            // What was started so far is not left behind.
            if let Ok(lab) = Lab::open(&dir) {
                blocking(move || lab::down(lab)).await?;
            }
            Err(Failure::other("interrupted: what was started was ended again"))
        }
    }
}

/// Ctrl-C or SIGTERM.
pub(super) async fn interrupted() {
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

pub(crate) async fn add(ui: &Ui, args: &LabAdd) -> Result<Exit, Failure> {
    let mut lab = Lab::open(&args.dir)?;
    let certs = !args.without_certs;
    let host =
        blocking(move || if certs { lab::add(&mut lab) } else { lab::add_without_certs(&mut lab) }).await?;
    if ui.json() {
        ui.print_json(
            &json!({"schema": "kwscale.lab/v1", "host": {"name": host.name, "address": host.address}}),
        )?;
    } else {
        ui.print(&host.name);
    }
    ui.say(format_args!("host {} at {} is described; no node was started", host.name, host.address));
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

/// Hosts and what runs on them, from the lab's own files and the processes of this machine: no node is asked.
pub(crate) fn status(ui: &Ui, dir: &Path) -> Result<Exit, Failure> {
    let lab = Lab::open(dir)?;
    let info = lab.info();
    let mut hosts = Vec::new();
    for host in &info.hosts {
        hosts.push((host, lab.runs(host.name.as_str())?));
    }
    if ui.json() {
        let one = |(host, runs): &(&LabHost, bool)| {
            json!({
                "name": host.name,
                "address": host.address,
                "http_address": host.http_address,
                "namespace": info.net.as_ref().map(|net| net.namespace(host.name.as_str())),
                "runs": runs,
            })
        };
        ui.print_json(&json!({
            "schema": "kwscale.lab/v1",
            "dir": info.dir,
            "cluster": lab::cluster_file(info),
            "real": info.real,
            "hosts": hosts.iter().map(one).collect::<Vec<_>>(),
        }))?;
        return Ok(Exit::Done);
    }
    for (host, runs) in hosts {
        let runs = if runs { "runs" } else { "no node" };
        let namespace = info.net.as_ref().map(|net| format!("  {}", net.namespace(host.name.as_str())));
        ui.print(format_args!(
            "{:<5} {:<22} {runs:<8}{}",
            host.name,
            host.address,
            namespace.unwrap_or_default()
        ));
    }
    Ok(Exit::Done)
}

/// Becomes the command, whose exit code is then ours.
pub(crate) fn run(args: &LabRun) -> Result<Exit, Failure> {
    use std::os::unix::process::CommandExt;
    let mut command = Lab::open(&args.dir)?.command_on(&args.name)?;
    if let Some(term) = std::env::var_os("TERM") {
        command.env("TERM", term);
    }
    let error = command.args(&args.command).exec();
    Err(Failure::other(format!("nsenter cannot be run: {error}")))
}

pub(crate) async fn cut(ui: &Ui, args: &LabNode) -> Result<Exit, Failure> {
    befall(ui, args, "cut", Lab::cut).await
}

pub(crate) async fn heal(ui: &Ui, args: &LabNode) -> Result<Exit, Failure> {
    befall(ui, args, "healed", Lab::heal).await
}

pub(crate) async fn stop_sshd(ui: &Ui, args: &LabNode) -> Result<Exit, Failure> {
    befall(ui, args, "sshd_stopped", Lab::stop_sshd).await
}

pub(crate) async fn start_sshd(ui: &Ui, args: &LabNode) -> Result<Exit, Failure> {
    befall(ui, args, "sshd_started", Lab::start_sshd).await
}

pub(crate) async fn rekey(ui: &Ui, args: &LabNode) -> Result<Exit, Failure> {
    befall(ui, args, "rekeyed", Lab::rekey).await
}

async fn befall(
    ui: &Ui,
    args: &LabNode,
    how: &'static str,
    what: fn(&Lab, &str) -> Result<(), LabError>,
) -> Result<Exit, Failure> {
    let (lab, name) = (Lab::open(&args.dir)?, args.name.clone());
    blocking(move || what(&lab, &name)).await?;
    done(ui, &args.name, how)
}

fn done(ui: &Ui, what: &str, how: &str) -> Result<Exit, Failure> {
    if ui.json() {
        ui.print_json(&json!({"schema": "kwscale.lab/v1", how: what}))?;
    } else {
        ui.say(format_args!("{what} {}", how.replace('_', " ")));
    }
    Ok(Exit::Done)
}
