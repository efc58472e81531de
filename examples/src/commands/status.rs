//! `status` and `observe`: look, and change nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kwdb_scale_core::kwbase::parse::StatusRow;
use kwdb_scale_core::topology::{HostName, NodeId};
use serde::Serialize;

use crate::cli::Global;
use crate::connect::Cluster;
use crate::failure::{Exit, Failure};
use crate::report::{Status, ids};
use crate::ui::Ui;

/// What `--format json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// By host; left out unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    deploy: Option<&'a BTreeMap<HostName, Said>>,
}

pub(crate) async fn status(ui: &Ui, global: &Global, deploy: bool) -> Result<Exit, Failure> {
    let cluster = Cluster::open(&global.cluster).await?;
    let observation = cluster.observe(None).await?;
    let config = &cluster.config;
    let status = Status::of(&config.label, &config.inventory(), &observation, config.policy.max_status_age);
    let said = if deploy { Some(scripts(&cluster).await) } else { None };
    if ui.json() {
        ui.print_json(&Shown { status: &status, deploy: said.as_ref() })?;
        return Ok(Exit::Done);
    }
    ui.print(status.text());
    for (host, said) in said.iter().flatten() {
        ui.print(format_args!("\n{host} by its deploy.sh (nothing is decided by it)\n{said}"));
    }
    if said.is_some_and(|said| said.is_empty()) {
        ui.say("kwscale: no host of the file has method = \"deploy.sh\"");
    }
    Ok(Exit::Done)
}

/// What the script and its helpers say on one host, or why they cannot be asked.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Unknown(String),
    Known {
        running: Option<bool>,
        decommission_progress: Option<u64>,
        /// Nodes that `cluster --status` lists.
        cluster_status: Vec<NodeId>,
        /// Nodes that `kw-status` lists.
        kw_status: Vec<NodeId>,
    },
}

async fn scripts(cluster: &Cluster) -> BTreeMap<HostName, Said> {
    let hosts = cluster.config.deploy.iter().map(|host| host.name.clone());
    let ask = |host: HostName| async move {
        let said = match cluster.commands.show(&host).await {
            Err(e) => Said::Unknown(e.chain()),
            Ok(shown) => {
                let nodes = |rows: &[StatusRow]| rows.iter().map(|row| row.node_id).collect();
                Said::Known {
                    running: shown.running,
                    decommission_progress: shown.progress,
                    cluster_status: nodes(&shown.cluster),
                    kw_status: nodes(&shown.kw_status),
                }
            }
        };
        (host, said)
    };
    futures_util::future::join_all(hosts.map(ask)).await.into_iter().collect()
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (running, progress, cluster, kw) = match self {
            Self::Unknown(why) => return write!(f, "  unknown: {why}"),
            Self::Known { running, decommission_progress, cluster_status, kw_status } => {
                (running, decommission_progress, cluster_status, kw_status)
            }
        };
        let running = running.map_or("does not say whether KWDB runs", |runs| match runs {
            true => "KWDB runs",
            false => "KWDB does not run",
        });
        let listed = |nodes: &[NodeId]| match nodes {
            [] => "nothing".to_owned(),
            nodes => format!("nodes {}", ids(nodes)),
        };
        writeln!(f, "  status                 {running}")?;
        writeln!(f, "  cluster --status       lists {}", listed(cluster))?;
        writeln!(f, "  kw-status              lists {}", listed(kw))?;
        let progress = progress.map_or("nothing".to_owned(), |left| format!("{left} replicas left"));
        write!(f, "  decommission_progress  {progress}")
    }
}

pub(crate) async fn observe(ui: &Ui, global: &Global, output: Option<&Path>) -> Result<Exit, Failure> {
    let cluster = Cluster::open(&global.cluster).await?;
    let observation = cluster.observe(None).await?;
    match output {
        None => ui.print_json(&observation)?,
        Some(file) => {
            let mut text = serde_json::to_string_pretty(&observation)
                .map_err(|e| Failure::other(format!("the observation cannot be written as JSON: {e}")))?;
            text.push('\n');
            write(file, &text)?;
            if ui.json() {
                ui.print_json(&serde_json::json!({
                    "schema": "kwscale.observe/v1",
                    "output": file.display().to_string(),
                    "nodes": observation.nodes.len(),
                }))?;
            } else {
                ui.say(format_args!(
                    "observation of {} nodes written to {}",
                    observation.nodes.len(),
                    file.display()
                ));
            }
        }
    }
    Ok(Exit::Done)
}

/// Writes a file, whole or not at all; through a link, and into what is no plain file (a device, a pipe), as it is.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let fail = |e: std::io::Error| {
        // Without the name of a temporary file that the message may hold.
        let bare = e.raw_os_error().or_else(|| e.get_ref()?.downcast_ref::<std::io::Error>()?.raw_os_error());
        let why = bare
            .map_or_else(|| e.kind().to_string(), |code| std::io::Error::from_raw_os_error(code).to_string());
        Failure::usage(format!("{} cannot be written: {why}", file.display()))
    };
    let target = match std::fs::canonicalize(file) {
        Ok(target) => target,
        Err(e) if file.is_symlink() => return Err(fail(e)),
        Err(_) => file.to_owned(),
    };
    match std::fs::metadata(&target) {
        Ok(found) if !found.is_file() => return std::fs::write(&target, text).map_err(fail),
        _ => {}
    }
    let dir = target.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Removed again when anything fails.
    let mut part = tempfile::NamedTempFile::new_in(dir).map_err(fail)?;
    part.write_all(text.as_bytes()).map_err(fail)?;
    let mode = std::fs::metadata(&target).map_or(0o644, |found| found.permissions().mode());
    part.as_file().set_permissions(Permissions::from_mode(mode)).map_err(fail)?;
    part.persist(&target).map_err(|e| fail(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("plan.json"), dir.path().join("link"));
        write(&file, "one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
        assert!(link.is_symlink());
        write(Path::new("/dev/null"), "three").unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
        assert!(write(dir.path(), "four").is_err());
        let astray = dir.path().join("astray");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &astray).unwrap();
        assert!(write(&astray, "five").is_err() && astray.is_symlink());
        std::fs::remove_file(&astray).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left of what failed");
    }
}
