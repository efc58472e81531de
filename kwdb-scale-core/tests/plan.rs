//! Plans as people and files see them: text, JSON, ids, differences.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use kwdb_scale_core::observation::Observation;
use kwdb_scale_core::plan::{Plan, PlanError, diff, plan};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::request::{Finish, Operation, Options, Redistribution};
use support::{Cluster, reach, replace, scale_in, scale_out};

fn made(cluster: &Cluster, operation: Operation, options: Options) -> Plan {
    let mut request = cluster.request(operation);
    request.options = options;
    plan(&cluster.observe(), &request, &Policy::default())
        .unwrap_or_else(|r| panic!("{}", r.reasons().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// The text without its first line, whose id changes with every field that a plan gains.
fn text(plan: &Plan) -> String {
    plan.to_string().lines().skip(1).collect::<Vec<_>>().join("\n")
}

#[test]
fn texts_of_plans() {
    let five = Cluster::new(5);
    let during = Options { redistribution: Redistribution::OffDuring, ..Options::default() };
    insta::assert_snapshot!("scale_out_by_two", text(&made(&five, scale_out(&[6, 7]), during)));
    insta::assert_snapshot!(
        "scale_in_of_two",
        text(&made(&Cluster::new(6), scale_in(&[5, 6]), Options::default()))
    );
    let drained = Options { drain: true, finish: Finish::LeaveDrained, ..Options::default() };
    insta::assert_snapshot!("scale_in_left_drained", text(&made(&five, scale_in(&[5]), drained)));
    insta::assert_snapshot!("replace", text(&made(&five, replace(&[2], &[6]), Options::default())));
}

#[test]
fn a_node_that_was_left_drained_is_stopped_by_a_plan_of_its_own() {
    let mut five = Cluster::new(5);
    five.mark(5);
    five.empty(5);
    let stop = made(&five, scale_in(&[5]), Options::default());
    assert_eq!((stop.members_before, stop.members_after), (4, 4));
    let steps: Vec<&str> = stop.steps.iter().map(|s| s.name()).collect();
    assert_eq!(steps, ["mark", "await-empty", "stop", "verify"]);
    let leave = Options { finish: Finish::LeaveDrained, ..Options::default() };
    assert!(made(&five, scale_in(&[5]), leave).is_empty(), "it is so already");
}

#[test]
fn a_request_that_is_true_gives_an_empty_plan() {
    let plan = made(&Cluster::new(4), reach(&[1, 2, 3, 4]), Options::default());
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let cluster = Cluster::new(5);
    let first = made(&cluster, scale_in(&[5]), Options::default()).to_json().unwrap();
    assert_eq!(first, made(&cluster, scale_in(&[5]), Options::default()).to_json().unwrap());
    // An observation that went through a file gives the same plan too.
    let file = serde_json::to_string(&cluster.observe()).unwrap();
    let read: Observation = serde_json::from_str(&file).unwrap();
    let again = plan(&read, &cluster.request(scale_in(&[5])), &Policy::default()).unwrap();
    assert_eq!(first, again.to_json().unwrap());
}

#[test]
fn json_is_read_back_and_edits_are_noticed() {
    let plan = made(&Cluster::new(5), scale_in(&[5]), Options::default());
    let json = plan.to_json().unwrap();
    assert_eq!(Plan::from_json(&json).unwrap(), plan);
    let edited = json.replace("\"members_after\":4", "\"members_after\":3");
    assert_ne!(edited, json);
    assert!(matches!(Plan::from_json(&edited), Err(PlanError::Changed { .. })));
    let newer = json.replace("kwdb-scale.plan/v1", "kwdb-scale.plan/v2");
    assert!(matches!(Plan::from_json(&newer), Err(PlanError::Schema(_))));
}

#[test]
fn differences_are_lines() {
    let cluster = Cluster::new(6);
    let one = made(&cluster, scale_in(&[6]), Options::default());
    let two = made(&cluster, scale_in(&[5, 6]), Options::default());
    assert_eq!(diff(&one, &one), "");
    let lines = diff(&one, &two);
    assert!(lines.contains("-   members: 6 before, 5 after"), "{lines}");
    assert!(lines.contains("+   members: 6 before, 4 after"), "{lines}");
}
