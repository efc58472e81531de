//! `check`, `plan` and `show`.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use kwdb_scale_core::assess::{Assessment, Change, Finding, OperationKind, Severity, assess};
use kwdb_scale_core::observation::Observation;
use kwdb_scale_core::plan::{Plan, check as check_plan, plan as make_plan};
use kwdb_scale_core::request::{Operation, Request};
use serde::Serialize;

use super::status::write;
use crate::cli::{ChangeCommand, Global, RequestOptions};
use crate::connect::Cluster;
use crate::failure::{Exit, Failure};
use crate::ui::Ui;

/// What `check --format json` prints, and `plan --format json` when it refuses.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    schema: &'static str,
    refused: bool,
    change: &'a Change,
    findings: &'a [Finding],
}

pub(crate) async fn check(
    ui: &Ui,
    global: &Global,
    options: &RequestOptions,
    change: &ChangeCommand,
) -> Result<Exit, Failure> {
    if options.output.is_some() {
        return Err(Failure::usage("check writes no plan: leave -o out, or use plan"));
    }
    let (_, _, _, assessment) = look(ui, global, options, change).await?;
    report(ui, &assessment.change, &assessment.findings)?;
    Ok(if assessment.refused() { Exit::Refused } else { Exit::Done })
}

pub(crate) async fn plan(
    ui: &Ui,
    global: &Global,
    options: &RequestOptions,
    change: &ChangeCommand,
) -> Result<Exit, Failure> {
    let (cluster, request, observation, assessment) = look(ui, global, options, change).await?;
    let plan = match make_plan(&observation, &request, &cluster.config.policy) {
        Ok(plan) => plan,
        Err(refusal) => {
            report(ui, &assessment.change, &refusal.findings)?;
            return Ok(Exit::Refused);
        }
    };
    no_violations(&plan, Some(&observation))?;
    let json = plan.to_json().map_err(|e| Failure::other(e.to_string()))?;
    if let Some(file) = &options.output {
        write(file, &json)?;
    }
    if ui.json() {
        ui.print(json);
    } else {
        ui.print(&plan);
    }
    if let Some(file) = &options.output {
        ui.say(format_args!("plan {} written to {}; carry it out with:", plan.id, file.display()));
        let consent = plan.consent().map(|token| format!(" --consent {token}")).unwrap_or_default();
        ui.say(format_args!(
            "  kwscale --cluster {} apply {}{consent}",
            global.cluster.display(),
            file.display()
        ));
    }
    Ok(Exit::Done)
}

pub(crate) fn show(ui: &Ui, file: &Path) -> Result<Exit, Failure> {
    let plan = read_plan(file)?;
    if ui.json() {
        ui.print(plan.to_json().map_err(|e| Failure::other(e.to_string()))?);
    } else {
        ui.print(&plan);
    }
    Ok(Exit::Done)
}

/// Has the plan judged by the checker, which trusts no planner.
pub(crate) fn no_violations(plan: &Plan, observation: Option<&Observation>) -> Result<(), Failure> {
    let violations = check_plan(plan, observation);
    if violations.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    let message = format!("plan {} breaks rules; make the plan again: {}", plan.id, lines.join("; "));
    let details = serde_json::to_value(&violations).ok();
    Err(Failure { exit: Exit::Refused, message, details })
}

/// Reads a plan file.
pub(crate) fn read_plan(file: &Path) -> Result<Plan, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        Failure::usage(format!("{} cannot be read: {e}; make a plan with plan -o", file.display()))
    })?;
    Plan::from_json(&text).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))
}

/// Observes and assesses, again and again while what refuses passes by itself and there is time for it.
async fn look(
    ui: &Ui,
    global: &Global,
    options: &RequestOptions,
    change: &ChangeCommand,
) -> Result<(Cluster, Request, Observation, Assessment), Failure> {
    options.must_fit(change)?;
    let cluster = Cluster::open(&global.cluster).await?;
    let config = &cluster.config;
    let request =
        Request { operation: change.operation(), inventory: config.inventory(), options: options.options() };
    if let (false, Operation::ScaleOut { hosts } | Operation::Replace { hosts, .. }) =
        (request.options.certificates.is_present(), &request.operation)
    {
        cluster.must_not_share_certificates(hosts)?;
    }
    let until = options.wait_healthy.map(|wait| Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX));
    let mut said = None;
    loop {
        let observation = cluster.observe(Some(&request)).await?;
        let assessment = assess(&observation, &request, &config.policy);
        let waits = assessment.refused() && assessment.refusals().all(Finding::may_pass);
        let now = Timestamp::now();
        match until {
            Some(until) if waits && now < until => {
                let reason = assessment.refusals().map(|f| f.message.clone()).collect::<Vec<_>>().join("; ");
                if said.as_ref() != Some(&reason) {
                    ui.say(format_args!("waiting: {reason}"));
                    said = Some(reason);
                }
                let pause =
                    config.policy.poll.min(until.duration_since(now)).max(SignedDuration::from_millis(100));
                tokio::time::sleep(pause.unsigned_abs()).await;
            }
            _ => return Ok((cluster, request, observation, assessment)),
        }
    }
}

fn report(ui: &Ui, change: &Change, findings: &[Finding]) -> Result<(), Failure> {
    let refusals = findings.iter().filter(|f| f.severity == Severity::Refuse).count();
    if ui.json() {
        return ui.print_json(&Checked {
            schema: "kwscale.check/v1",
            refused: refusals > 0,
            change,
            findings,
        });
    }
    // A request that was refused because its names make no sense has no change to show.
    let mut text = match (change.kind, refusals) {
        (OperationKind::Nothing, 1..) => "no change can be told from the request".to_owned(),
        (kind, _) => kind.to_string(),
    };
    if !change.add.is_empty() {
        let hosts: Vec<&str> = change.add.iter().map(|h| h.as_str()).collect();
        text.push_str(&format!(", coming: {}", hosts.join(", ")));
    }
    if !change.remove.is_empty() {
        let nodes: Vec<String> = change.remove.iter().map(|n| n.0.to_string()).collect();
        text.push_str(&format!(", leaving: {}", nodes.join(", ")));
    }
    text.push('\n');
    for finding in findings {
        text.push_str(&ui.finding(finding));
        text.push('\n');
    }
    text.push_str(&match refusals {
        0 => "nothing refuses\n".to_owned(),
        1 => "refused for 1 reason\n".to_owned(),
        n => format!("refused for {n} reasons\n"),
    });
    ui.print(text);
    Ok(())
}
