//! `apply` and `resume`: carry out a plan, and say what became of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kwdb_scale_core::execute::{
    Cancel, Canceller, End, ExecuteError, Ledger, Operation, StopReason, Stopped,
};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::plan::{Plan, Step};
use kwdb_scale_core::ports::{Gateway, PortErrorKind};
use kwdb_scale_core::topology::ClusterId;
use kwdb_scale_local::FileJournal;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::plan::read_plan;
use super::unfinished::{self, Survey, Told};
use crate::cli::{ApplyArgs, Global, ResumeArgs};
use crate::connect::{Cluster, port_failure};
use crate::failure::{Exit, Failure};
use crate::progress;
use crate::ui::Ui;

/// What `apply --format json` and `resume --format json` print.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    schema: &'static str,
    exit: u8,
    kind: &'static str,
    plan: &'a str,
    cluster_id: &'a str,
    journal: Option<String>,
    /// With what nodes are marked, counted and stopped, and why.
    means: Option<String>,
    end: Option<&'a End>,
    /// Nodes that joined, by host.
    joined: std::collections::BTreeMap<String, u32>,
    /// Nodes that carry our decommissioning mark, as far as we know.
    marked: Vec<u32>,
    /// Nodes that we stopped.
    stopped: Vec<u32>,
    /// Commands that go on from here.
    next: Vec<String>,
}

pub(crate) async fn apply(ui: &Ui, global: &Global, args: &ApplyArgs) -> Result<Exit, Failure> {
    let plan = read_plan(&args.plan)?;
    let cluster = Cluster::open(&global.cluster).await?;
    // Whoever made it: what would stop a node before it is empty is not begun.
    super::plan::no_violations(&plan, None)?;
    if plan.is_empty() {
        return nothing_to_do(ui, &plan);
    }
    cluster.must_be_of(&plan).await?;
    if let Some(token) = plan.consent().filter(|token| args.consent.as_ref() != Some(token)) {
        ui.say(&plan);
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "plan {} clears old data, as shown above; nothing was done; if that is wanted, say --consent {token}",
                plan.id
            ),
        ));
    }
    let journals = args.journal.clone().unwrap_or_else(|| cluster.config.journal.clone());
    Survey::of(&journals, &plan.cluster_id).await?.warn(ui, global);
    if !args.yes {
        ui.say(&plan);
        if !ui.confirm("Carry out this plan?")? {
            return Err(Failure::other("not confirmed: nothing was done"));
        }
    }
    cluster.must_not_share_certificates(plan.steps.iter().filter_map(|step| match step {
        Step::Certify { host, .. } => Some(host),
        _ => None,
    }))?;
    let dir = cluster.journal_dir(args.journal.as_deref())?;
    // Once more: while the question stood another process may have been at it.
    let survey = Survey::of(&dir, &plan.cluster_id).await?;
    nothing_to_restore(&cluster, &survey).await?;
    unfinished::clean(ui, global, &cluster, &survey).await?;
    let chosen = cluster.control(&plan.gateways).await?;
    ui.say(format_args!("by {}", chosen.means));
    let journal = FileJournal::create(&dir, &format!("{}-{}", plan.kind(), plan.id))
        .await
        .map_err(|e| port_failure("no journal can be made, so nothing was done", &e))?;
    let path = journal.path().to_owned();
    let means = chosen.means.to_string();
    let id = plan.cluster_id.clone();
    let ports = cluster.ports(chosen, Arc::new(journal));
    let operation = match Operation::begin_with_consent(plan, ports, args.consent.as_deref()).await {
        Ok(operation) => operation,
        Err(e) => {
            // An operation that never began leaves no trace.
            let _ = std::fs::remove_file(&path);
            return Err(execute_failure(&e));
        }
    };
    let exit = drive(ui, global, operation, means, &path, args.journal.as_deref()).await?;
    left_by_others(ui, global, &cluster, &dir, &id, exit).await;
    Ok(exit)
}

/// What older operations have left of certificates on hosts, once one has ended well: its own result says that it left none.
async fn left_by_others(ui: &Ui, global: &Global, cluster: &Cluster, dir: &Path, id: &ClusterId, exit: Exit) {
    if exit != Exit::Done {
        return;
    }
    let told = async { unfinished::clean(ui, global, cluster, &Survey::of(dir, id).await?).await };
    if let Err(e) = told.await {
        ui.say(format_args!("warning: what older operations have left of certificates is not known: {e}"));
    }
}

/// An operation that was stopped and would put a setting back is not silently forgotten for another one.
async fn nothing_to_restore(cluster: &Cluster, survey: &Survey) -> Result<(), Failure> {
    let Some(told) = survey.newest()? else { return Ok(()) };
    let restorable = told.ledger.restorable();
    if restorable.is_empty() {
        return Ok(());
    }
    let observation = cluster.observe(None).await?;
    let left: Vec<String> = restorable
        .iter()
        // Somebody may have put it back by hand; what is not known is not taken for that.
        .filter(|(name, s)| match observation.setting(name) {
            Fact::Known(now) => now == Some(s.ours.as_str()),
            Fact::Unknown(_) => true,
        })
        .map(|(name, s)| {
            format!("{name} is {} and is to be {} again", s.ours, s.old.as_deref().unwrap_or("what it was"))
        })
        .collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!(
            "an operation was stopped before its end ({}): {}; go on with it by kwscale resume, or take it back by \
             kwscale resume --undo",
            told.path.display(),
            left.join(", ")
        ),
    ))
}

pub(crate) async fn resume(ui: &Ui, global: &Global, args: &ResumeArgs) -> Result<Exit, Failure> {
    let cluster = Cluster::open(&global.cluster).await?;
    let (told, survey, dir) = to_resume(global, &cluster, args).await?;
    let ledger = &told.ledger;
    let path = told.path.clone();
    let plan = &ledger.plan;
    let done = ledger.cursor.min(plan.steps.len());
    ui.say(format_args!(
        "{} of plan {}, {done} of {} steps done, by {}",
        plan.kind(),
        plan.id,
        plan.steps.len(),
        path.display()
    ));
    if (args.undo || ledger.cancel == Some(Cancel::Undo))
        && let Some(why) = survey.bars_undo(global, &told)
    {
        return Err(Failure::new(Exit::Refused, format!("plan {} is not undone: {why}", plan.id)));
    }
    cluster.journal_dir(args.journal.as_ref().map(|_| dir.as_path()))?;
    if !args.yes {
        let question = if ledger.cancel == Some(Cancel::Undo) {
            "It is being undone. Go on taking back its mark and its settings?"
        } else if args.undo {
            "Take back its mark and its settings?"
        } else {
            for (index, _) in plan.steps.iter().enumerate().skip(done) {
                ui.say(format_args!("  {}. {}", index + 1, plan.describe(index)));
            }
            "Go on with these steps?"
        };
        if !ui.confirm(question)? {
            return Err(Failure::other("not confirmed: nothing was done"));
        }
    }
    let chosen = cluster.control(&ledger.plan.gateways).await?;
    ui.say(format_args!("by {}", chosen.means));
    let means = chosen.means.to_string();
    let ports = cluster.ports(chosen, Arc::new(told.journal().await?));
    let operation = Operation::resume(ports).await.map_err(|e| execute_failure(&e))?;
    if args.undo {
        operation.canceller().cancel(Cancel::Undo);
    }
    let exit = drive(ui, global, operation, means, &path, args.journal.as_deref()).await?;
    left_by_others(ui, global, &cluster, &dir, &ledger.plan.cluster_id, exit).await;
    Ok(exit)
}

/// The operation that is named by its journal, or the newest one; with all of them, and their directory.
async fn to_resume(
    global: &Global,
    cluster: &Cluster,
    args: &ResumeArgs,
) -> Result<(Told, Survey, PathBuf), Failure> {
    let given = args.journal.clone().unwrap_or_else(|| cluster.config.journal.clone());
    if given.is_file() {
        let none =
            || Failure::usage(format!("{}: nothing was recorded, so nothing was done", given.display()));
        let told = Told::read(&given).await?.ok_or_else(none)?;
        let id = cluster.id().await?;
        if told.ledger.plan.cluster_id != id {
            return Err(Failure::usage(format!(
                "{}: it is of cluster {}, and {} leads to cluster {id}; name the file of its cluster with --cluster",
                given.display(),
                told.ledger.plan.cluster_id,
                cluster.config.path.display()
            )));
        }
        let dir = given.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Ok((told, Survey::of(dir, &id).await?, dir.to_owned()));
    }
    let nothing = |more: &str| {
        Failure::usage(format!("there is no operation to resume in {}; {more}", given.display()))
    };
    let begin = "begin one with plan -o and apply";
    if matches!(FileJournal::list(&given).await, Ok(journals) if journals.is_empty()) {
        // Nothing to ask the cluster for.
        return Err(nothing(begin));
    }
    let survey = Survey::of(&given, &cluster.id().await?).await?;
    match survey.newest()?.cloned() {
        Some(told) => Ok((told, survey, given)),
        None => Err(match survey.lines(global) {
            older if older.is_empty() => nothing(begin),
            older => {
                nothing(&format!("the newest has ended, and an older one has not: {}", older.join("; ")))
            }
        }),
    }
}

fn nothing_to_do(ui: &Ui, plan: &Plan) -> Result<Exit, Failure> {
    ui.say("nothing to do: the plan is empty");
    if ui.json() {
        ui.print_json(&Outcome {
            schema: "kwscale.apply/v1",
            exit: Exit::Done as u8,
            kind: Exit::Done.word(),
            plan: &plan.id,
            cluster_id: plan.cluster_id.as_str(),
            journal: None,
            means: None,
            end: None,
            joined: Default::default(),
            marked: Vec::new(),
            stopped: Vec::new(),
            next: Vec::new(),
        })?;
    }
    Ok(Exit::Done)
}

/// Undoes the operation of the journal as far as it can be: its mark and its settings. The journal has ended then.
///
/// # Errors
/// With exit code 4 or 5 when the undo stopped on the way; what it came to otherwise.
pub(crate) async fn undo(
    ui: &Ui,
    cluster: &Cluster,
    gateways: &[Gateway],
    journal: FileJournal,
) -> Result<Vec<String>, Failure> {
    let chosen = cluster.control(gateways).await?;
    let ports = cluster.ports(chosen, Arc::new(journal));
    let mut operation = Operation::resume(ports).await.map_err(|e| execute_failure(&e))?;
    operation.canceller().cancel(Cancel::Undo);
    match run(ui, &mut operation).await? {
        End::Done(what) | End::Undone(what) => Ok(what),
        End::Stopped(stopped) => {
            let next = stopped.next.join("; ");
            let exit = exit_of(&End::Stopped(stopped.clone()));
            Err(Failure::new(exit, format!("the undo stopped: {}; {next}", stopped.message)))
        }
    }
}

/// Runs the operation to its end, and gives up on Ctrl-C.
async fn run(ui: &Ui, operation: &mut Operation) -> Result<End, Failure> {
    watch_signals(*ui, operation.canceller())?;
    let talk = tokio::spawn(progress::follow(*ui, operation.events()));
    let end = operation.run().await;
    // The stream ends with the operation; what it told last is to be seen before the result.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), talk).await;
    Ok(end)
}

/// Runs the operation and says what became of it.
async fn drive(
    ui: &Ui,
    global: &Global,
    mut operation: Operation,
    means: String,
    journal: &Path,
    journal_dir: Option<&Path>,
) -> Result<Exit, Failure> {
    let end = run(ui, &mut operation).await?;
    let ledger = operation.ledger();
    let exit = exit_of(&end);
    let next = next_commands(global, journal_dir, ledger, &end);
    if ui.json() {
        ui.print_json(&Outcome {
            schema: "kwscale.apply/v1",
            exit: exit as u8,
            kind: exit.word(),
            plan: &ledger.plan.id,
            cluster_id: ledger.plan.cluster_id.as_str(),
            journal: Some(journal.display().to_string()),
            means: Some(means),
            end: Some(&end),
            joined: ledger.joined.iter().map(|(h, n)| (h.to_string(), n.0)).collect(),
            marked: ledger.marked.iter().map(|n| n.0).collect(),
            stopped: ledger.stopped.iter().map(|n| n.0).collect(),
            next,
        })?;
    } else {
        ui.print(text(&end, ledger, &next));
    }
    Ok(exit)
}

fn exit_of(end: &End) -> Exit {
    match end {
        End::Done(_) | End::Undone(_) => Exit::Done,
        End::Stopped(Stopped { reason: StopReason::Refused, .. }) => Exit::Refused,
        End::Stopped(stopped) if stopped.reason.is_resumable() => Exit::Stopped,
        End::Stopped(_) => Exit::NeedsPerson,
    }
}

fn text(end: &End, ledger: &Ledger, next: &[String]) -> String {
    let mut text = String::new();
    let mut list = |head: &str, lines: &[String]| {
        text.push_str(head);
        text.push('\n');
        for line in lines {
            text.push_str(&format!("  {}\n", line.replace('\n', "\n  ")));
        }
    };
    match end {
        End::Done(proof) => list("done; what proves it:", proof),
        End::Undone(what) => list("undone; what was put back:", what),
        End::Stopped(stopped) => {
            list(&format!("stopped: {}", stopped.message), &stopped.evidence);
            if !stopped.next.is_empty() {
                list("what can be done:", &stopped.next);
            }
            if stopped.reason != StopReason::Refused {
                list("where it stands:", &standing(ledger, stopped.reason));
            }
        }
    }
    if !next.is_empty() {
        list("go on with:", next);
    }
    text
}

/// What was done so far, one a line.
fn standing(ledger: &Ledger, reason: StopReason) -> Vec<String> {
    let steps = ledger.plan.steps.len();
    let mut lines = vec![format!("{} of {steps} steps done", ledger.cursor.min(steps))];
    if ledger.cursor < steps {
        lines.push(format!("at hand: {}", ledger.plan.describe(ledger.cursor)));
    }
    for certification in ledger.left_archives() {
        lines.push(format!(
            "the archive with the authority's private key may lie on host {}: `kwscale resume --undo` removes it",
            certification.host
        ));
    }
    for (host, node) in &ledger.joined {
        lines.push(format!("node {} of host {host} has joined", node.0));
    }
    for node in ledger.marked.iter().filter(|n| !ledger.stopped.contains(n)) {
        lines.push(match reason {
            StopReason::Recommissioned => format!("node {} had been marked by this operation", node.0),
            _ if ledger.mark_failed(*node) => {
                format!(
                    "the mark of node {} failed; kwscale status tells whether it is set all the same",
                    node.0
                )
            }
            _ => format!("node {} stays marked as decommissioning: its replicas go on moving off", node.0),
        });
    }
    for node in &ledger.stopped {
        lines.push(format!("the stop of node {} was begun", node.0));
    }
    for (name, saved) in &ledger.saved {
        lines.push(format!("{name} was set to {}", saved.ours));
    }
    lines
}

fn next_commands(global: &Global, journal_dir: Option<&Path>, ledger: &Ledger, end: &End) -> Vec<String> {
    let End::Stopped(stopped) = end else { return Vec::new() };
    if stopped.reason == StopReason::Refused {
        return Vec::new();
    }
    let cluster = quote(&global.cluster);
    let journal = journal_dir.map(|d| format!(" --journal {}", quote(d))).unwrap_or_default();
    let mut next = Vec::new();
    // To go on against somebody who took the mark back is no choice.
    if stopped.reason != StopReason::Recommissioned {
        next.push(format!("kwscale resume --cluster {cluster}{journal}"));
    }
    let marked = ledger.recommissionable();
    // One that is named by its journal may not be the one that `recommission` undoes.
    let named = journal_dir.is_some_and(Path::is_file);
    if !marked.is_empty() && !named {
        let nodes: Vec<String> = marked.iter().map(|n| n.0.to_string()).collect();
        next.push(format!("kwscale recommission --cluster {cluster}{journal} {}", nodes.join(" ")));
    } else if !marked.is_empty() || !ledger.restorable().is_empty() {
        next.push(format!("kwscale resume --undo --cluster {cluster}{journal}"));
    }
    next
}

pub(crate) fn quote(path: &Path) -> String {
    kwdb_scale_core::kwbase::quote::quote(&path.display().to_string())
}

/// The first Ctrl-C or SIGTERM asks the operation to stop and leaves its mark; the second ends the program.
fn watch_signals(ui: Ui, canceller: Canceller) -> Result<(), Failure> {
    let fail = |e: std::io::Error| Failure::other(format!("signals cannot be watched: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asked {
                std::process::exit(i32::from(Exit::Stopped as u8));
            }
            asked = true;
            ui.say("stopping: an act under way is finished first, marks are left as they are (again to leave at once)");
            canceller.cancel(Cancel::Leave);
        }
    });
    Ok(())
}

pub(crate) fn execute_failure(error: &ExecuteError) -> Failure {
    match error {
        ExecuteError::Lock(e) if e.kind() == PortErrorKind::Denied => {
            Failure::new(Exit::Refused, error.to_string())
        }
        ExecuteError::Ended(_) => Failure::new(Exit::Refused, error.to_string()),
        ExecuteError::Lock(e) => port_failure("the operation lock cannot be had", e),
        ExecuteError::Journal(e) => port_failure("the journal failed", e),
        ExecuteError::OutOfOrder(_) => Failure::usage(error.to_string()),
        other => Failure::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_exit_code() {
        use StopReason as Why;
        let stopped = |reason| {
            End::Stopped(Stopped { reason, message: String::new(), evidence: Vec::new(), next: Vec::new() })
        };
        for (end, exit) in [
            (End::Done(Vec::new()), Exit::Done),
            (stopped(Why::Refused), Exit::Refused),
            (stopped(Why::Cancelled), Exit::Stopped),
            (stopped(Why::Deadline), Exit::Stopped),
            (stopped(Why::GateClosed), Exit::Stopped),
            (stopped(Why::Journal), Exit::Stopped),
            (stopped(Why::Stalled), Exit::NeedsPerson),
            (stopped(Why::Recommissioned), Exit::NeedsPerson),
            (stopped(Why::ActFailed), Exit::NeedsPerson),
        ] {
            assert_eq!(exit_of(&end), exit, "{end:?}");
        }
    }
}
