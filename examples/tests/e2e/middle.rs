//! Things that happen in the middle of an operation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::support::{Case, Running, TestLab};

/// Slow enough for something to happen while replicas move.
const SPEED: u32 = 10;
const RANGES: &[&str] = &["--ranges", "40"];

/// Begins to scale node 5 in and comes back when it is marked and still holds replicas.
fn begin(case: &Case, lab: &TestLab<'_>) -> Running {
    let plan = lab.plan(&["scale-in", "5"]);
    let mut running = lab.start(&["apply", &plan, "--yes"]);
    case.until("replicas move", 60, || {
        assert!(running.runs(), "it ended too early:\n{}", running.stderr());
        running.stderr().contains("replicas left")
    });
    let status = lab.status();
    assert!(status.marked(5) && status.class(5) == "leaving", "node 5 is {}", status.class(5));
    assert!(status.node(5).unwrap()["replicas"].as_u64().unwrap() > 0);
    running
}

fn scaled_in(lab: &TestLab<'_>) {
    let status = lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
    assert!(status.good());
}

pub(crate) fn ctrl_c_then_resume(case: &Case) {
    let lab = case.lab(5, SPEED, RANGES);
    let running = begin(case, &lab);
    running.signal(Signal::INT);
    let out = running.end(case).exit(4).says(&["kwscale resume", "kwscale recommission", "marked"]);
    assert!(out.stdout.contains(&lab.cluster_file()), "the commands can be copied as they are");
    assert!(lab.status().marked(5), "the mark is left");
    // To begin another operation now is refused: a node is leaving.
    lab.kwscale(&["plan", "scale-in", "4"]).exit(3).says(&["5", "leaving"]);
    lab.kwscale(&["resume"]).exit(2).says(&["--yes"]);
    lab.kwscale(&["resume", "--yes"]).exit(0);
    scaled_in(&lab);
    lab.kwscale(&["resume", "--yes"]).exit(2).says(&["no operation to resume"]);
}

pub(crate) fn the_mark_is_taken_back(case: &Case) {
    let lab = case.lab(5, SPEED, RANGES);
    // By somebody else, behind the back of the operation.
    let running = begin(case, &lab);
    let address = lab.status().node(1).unwrap()["address"].as_str().unwrap().to_owned();
    let host = format!("--host={address}");
    case.run(&lab.kwbase(), &["node", "recommission", "5", "--insecure", &host]).exit(0);
    running.end(case).exit(5).says(&["recommissioned"]);
    let status = lab.status();
    assert_eq!((status.class(5), status.marked(5)), ("member", false));

    // By the operator, after a stop.
    let running = begin(case, &lab);
    // While it runs nobody else begins.
    lab.kwscale(&["recommission", "5"]).exit(3).says(&["another operation"]);
    running.signal(Signal::TERM);
    running.end(case).exit(4).says(&["kwscale recommission"]);
    lab.kwscale(&["recommission", "5"]).exit(0);
    let status = lab.status();
    assert!(!status.marked(5) && status.class(5) == "member");
    // The operation that had set the mark has ended with it.
    lab.kwscale(&["resume", "--yes"]).exit(2).says(&["no operation to resume"]);
    // A node whose mark is not set needs nothing.
    lab.kwscale(&["recommission", "5"]).exit(0).says(&["not marked"]);
    if case.real.is_none() {
        // By somebody else after a stop: it cannot be gone on with behind the back of who took the mark back.
        let running = begin(case, &lab);
        running.signal(Signal::INT);
        running.end(case).exit(4);
        case.run(&lab.kwbase(), &["node", "recommission", "5", "--insecure", &host]).exit(0);
        let out = lab.kwscale(&["resume", "--yes"]).exit(5).says(&["recommissioned by someone else"]);
        assert!(
            !out.stdout.contains("stays marked") && !out.stdout.contains("kwscale resume"),
            "{}",
            out.stdout
        );
        assert!(!lab.status().marked(5));
        // Once another operation is done, the one that was left is overtaken.
        lab.change(&["scale-in", "5"]);
        let out = lab.kwscale(&["resume", "--yes"]).exit(2).says(&[
            "no operation to resume",
            "an older one has not",
            "cannot be taken back",
        ]);
        // Its undo would take back the mark of a node that is gone.
        let older = out.stderr.split("--journal ").nth(1).unwrap().split(';').next().unwrap().trim();
        let out = lab.kwscale(&["resume", "--undo", "--yes", "--journal", older]).exit(3);
        out.says(&["is not undone", "node 5"]);
        assert_eq!(lab.status().class(5), "removed");
        // Nobody comes back from the dead.
        lab.kwscale(&["recommission", "5"]).exit(3).says(&["removed", "cure", "joins as a new node"]);
        assert_eq!(lab.status().class(5), "removed");
    }
}

pub(crate) fn sigkill_then_resume(case: &Case) {
    let lab = case.lab(5, SPEED, RANGES);
    let running = begin(case, &lab);
    running.signal(Signal::KILL);
    assert_eq!(running.end(case).code, None);
    lab.kwscale(&["resume", "--yes", "--format", "json"]).exit(0);
    scaled_in(&lab);
}

/// The operator is killed while its mark is under way, which goes on all the same.
pub(crate) fn undo_waits_for_a_mark_that_goes_on(case: &Case) {
    let lab = case.lab(4, SPEED, RANGES);
    // A call ends with its connection; a command does not end with who began it.
    lab.control("command-line");
    let (program, at_once) = (lab.inside("bin/kwbase"), lab.inside("bin/kwbase-at-once"));
    let (begun, over) = (lab.inside("mark.begun"), lab.inside("mark.over"));
    fs::rename(&program, &at_once).unwrap();
    let slow = format!(
        "#!/bin/sh\n[ \"$2\" = decommission ] || exec '{kwbase}' \"$@\"\n: >'{begun}'\nsleep 6\n'{kwbase}' \"$@\"\n: >'{over}'\n",
        kwbase = at_once.display(),
        begun = begun.display(),
        over = over.display()
    );
    fs::write(&program, slow).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let plan = lab.plan(&["scale-in", "4"]);
    let running = lab.start(&["apply", &plan, "--yes"]);
    case.until("the mark is begun", 60, || begun.exists());
    running.signal(Signal::KILL);
    assert_eq!(running.end(case).code, None);
    assert!(!lab.status().marked(4));
    let out = lab.kwscale(&["resume", "--undo", "--yes"]).exit(0);
    assert!(
        out.stderr.contains("to end") && out.stderr.contains("kwbase node decommission"),
        "{}",
        out.stderr
    );
    assert!(over.exists(), "undone before the mark was over");
    let status = lab.status();
    assert_eq!((status.class(4), status.marked(4)), ("member", false));
}

pub(crate) fn a_node_killed_in_the_middle(case: &Case) {
    let lab = case.lab(5, SPEED, RANGES);
    let mut running = begin(case, &lab);
    lab.lab("kill", &["n2"]);
    // A member that is down closes the gate before the stop; nothing is lost and nothing is stopped.
    case.until("the gate is closed", 240, || {
        assert!(running.runs(), "it ended too early:\n{}", running.stderr());
        running.stderr().contains("fit for the next act: node 2 is down")
    });
    assert_ne!(lab.status().class(5), "removed");
    if case.real.is_some() {
        // It opens when the member is back, which may be while the operation still waits …
        lab.lab("restart", &["n2"]);
        running.end(case).exit(0);
    } else {
        // … or after it gave up.
        running.end(case).exit(4).says(&["node 2", "kwscale resume"]);
        lab.lab("restart", &["n2"]);
        case.until("node 2 is back", 60, || lab.status().class(2) == "member");
        lab.kwscale(&["resume", "--yes"]).exit(0);
    }
    scaled_in(&lab);
}

pub(crate) fn the_leaving_node_killed_in_the_middle(case: &Case) {
    let lab = case.lab(5, SPEED, RANGES);
    let running = begin(case, &lab);
    lab.lab("kill", &["n5"]);
    // Its replicas move off from their copies: the end is the same.
    running.end(case).exit(0).says(&["removed"]);
    scaled_in(&lab);
}
