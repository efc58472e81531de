//! `status` and `observe`: look, and change nothing.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
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
