//! Checks on jobs and on the cluster settings of time-series data.

use super::{Problem, known_or, some};
use crate::assess::Context;
use crate::fact::Fact;
use crate::policy::{TS_DEAD_REBALANCE, TS_REBALANCE};
use crate::request::Redistribution;

pub(super) fn jobs(cx: &Context<'_>) -> Vec<Problem> {
    known_or(&cx.obs.jobs, "which jobs run is", |rows| {
        let running: Vec<String> = rows
            .iter()
            .filter(|j| j.hinders())
            .map(|j| {
                let what = j.description.as_deref().unwrap_or("no description");
                let one_line: String = what.split_whitespace().collect::<Vec<_>>().join(" ");
                let short: String = one_line.chars().take(120).collect();
                format!("{} {} ({}): {short}", j.job_type, j.job_id, j.status)
            })
            .collect();
        if running.is_empty() {
            return Vec::new();
        }
        vec![
            Problem::new(format!("jobs that have not ended: {}", running.len()))
                .evidence(some(running, cx.policy.list_ranges))
                .cure("wait for them to end, or CANCEL JOB <id>")
                .after_secs(60),
        ]
    })
}

pub(super) fn known(cx: &Context<'_>) -> Vec<Problem> {
    known_or(&cx.obs.settings, "the cluster settings are", |_| Vec::new())
}

fn is_off(cx: &Context<'_>, name: &str) -> bool {
    matches!(cx.obs.setting(name), Fact::Known(Some(value)) if value.eq_ignore_ascii_case("false"))
}

pub(super) fn ts_rebalance(cx: &Context<'_>) -> Vec<Problem> {
    if cx.single_replica() {
        return Vec::new();
    }
    let consequence =
        "time-series ranges are not balanced onto the new node, which stays without time-series data";
    let cure = format!("SET CLUSTER SETTING {TS_REBALANCE} = true;");
    match (is_off(cx, TS_REBALANCE), cx.request.options.redistribution) {
        (true, _) => {
            vec![Problem::new(format!("{TS_REBALANCE} is false: {consequence}")).cure(cure)]
        }
        (false, Redistribution::Off) => {
            vec![Problem::new(format!("{TS_REBALANCE} is set to false as asked: {consequence}")).cure(cure)]
        }
        (false, Redistribution::OffDuring) => vec![Problem::new(format!(
            "{TS_REBALANCE} is false during the operation as asked: time-series ranges are balanced onto the new node only afterwards"
        ))],
        (false, Redistribution::Leave) => Vec::new(),
    }
}

pub(super) fn ts_dead_rebalance(cx: &Context<'_>) -> Vec<Problem> {
    if cx.single_replica() || !is_off(cx, TS_DEAD_REBALANCE) {
        return Vec::new();
    }
    vec![
        Problem::new(format!(
            "{TS_DEAD_REBALANCE} is false: if a node dies, its time-series ranges are not replicated again"
        ))
        .cure(format!("SET CLUSTER SETTING {TS_DEAD_REBALANCE} = true;")),
    ]
}
