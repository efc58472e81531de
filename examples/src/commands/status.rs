//! `status` and `observe`: look, and change nothing.

use std::path::Path;

use crate::cli::Global;
use crate::connect::Cluster;
use crate::failure::{Exit, Failure};
use crate::report::Status;
use crate::ui::Ui;

pub(crate) async fn status(ui: &Ui, global: &Global) -> Result<Exit, Failure> {
    let cluster = Cluster::open(&global.cluster).await?;
    let observation = cluster.observe(None).await?;
    let config = &cluster.config;
    let status = Status::of(&config.label, &config.inventory(), &observation, config.policy.max_status_age);
    if ui.json() {
        ui.print_json(&status)?;
    } else {
        ui.print(status.text());
    }
    Ok(Exit::Done)
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

/// Writes a file, whole or not at all.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let fail = |e: std::io::Error| Failure::usage(format!("{} cannot be written: {e}", file.display()));
    let mut name = file.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".part");
    let part = file.with_file_name(name);
    std::fs::write(&part, text).map_err(fail)?;
    std::fs::rename(&part, file).map_err(fail)
}
