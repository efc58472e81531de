//! The deploy.sh method over SSH: on hosts that are machines of their own, as the script installs them.

use std::fs;

use rustix::process::Signal;

use crate::netns::{down, files, on, only_sshd_and, possible, up};
use crate::support::{Case, TestLab};

/// What the stand-in of systemd keeps of a unit, and what the script itself changes and leaves: the number that its loop
/// wrote.
const OF_OTHERS: &[&str] = &[
    "/etc/kaiwudb/info/MODE",
    "/etc/systemd/system/kaiwudb.service",
    "/opt/kwdb_install/decommission_progress",
    "/run/kwdb-scale-standin/kaiwudb.log",
    "/run/kwdb-scale-standin/kaiwudb.started",
    "/run/kwdb-scale-standin/kaiwudb.stopping",
];

fn all_files(lab: &TestLab<'_>) -> Vec<std::collections::BTreeSet<String>> {
    (1..=5).map(|n| files(lab, &format!("n{n}"))).collect()
}

/// Node 5 is removed, its unit stopped and disabled, and nothing is left on any host.
#[track_caller]
fn gone(case: &Case, lab: &TestLab<'_>, before: &[std::collections::BTreeSet<String>]) {
    let status = lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
    assert!(status.good());
    let unit = on(lab, "n5", &["systemctl", "show", "-p", "ActiveState", "-p", "UnitFileState", "kaiwudb"]);
    assert_eq!(unit, ["ActiveState=inactive", "UnitFileState=disabled"]);
    for (index, had) in before.iter().enumerate() {
        let host = format!("n{}", index + 1);
        only_sshd_and(case, lab, &host, host != "n5");
        let mut left: Vec<String> = files(lab, &host).difference(had).cloned().collect();
        left.retain(|path| host != "n5" || !OF_OTHERS.contains(&path.as_str()));
        assert_eq!(left, Vec::<String>::new(), "left on {host}");
    }
}

/// Begins or goes on with an operation and ends it as a crash would, once that runs on n5.
fn killed(case: &Case, lab: &TestLab<'_>, args: &[&str], when: &str) {
    let mut running = lab.start(args);
    case.until(when, 90, || {
        assert!(running.runs(), "it ended too early:\n{}", running.stderr());
        on(lab, "n5", &["ps", "-eo", "args="]).iter().any(|line| line.contains(when))
    });
    running.signal(Signal::KILL);
    assert_eq!(running.end(case).code, None);
}

pub(crate) fn out_and_in_killed(case: &Case) {
    if !possible("netns_deploy_out_and_in_killed") {
        return;
    }
    let lab = up(case, &["--method", "deploy.sh"]);
    lab.lab("add", &[]);
    let before = all_files(&lab);
    // Installed, and not started.
    let installed = |path: &str| fs::read_to_string(lab.inside(&format!("hosts/n5/root{path}"))).unwrap();
    let unit = || installed("/etc/systemd/system/kaiwudb.service");
    let own = installed("/etc/kaiwudb/info/MODE").lines().last().unwrap().to_owned();
    assert!(unit().contains(&format!("--join {own}:26257")), "{}", unit());
    only_sshd_and(case, &lab, "n5", false);
    on(&lab, "n5", &["systemctl", "enable", "kaiwudb"]);

    let plan = lab.plan(&["scale-out", "n5"]);
    killed(case, &lab, &["apply", &plan, "--yes"], "deploy.sh join");
    lab.kwscale(&["resume", "--yes"]).exit(0).says(&["node 5 joined"]);
    let status = lab.status();
    assert_eq!((status.members(), status.good()), (vec![1, 2, 3, 4, 5], true));
    // By the script, and by nothing else: the unit runs it, as its user, with one member to join.
    only_sshd_and(case, &lab, "n5", true);
    assert_eq!(unit().matches("--join").count(), 1, "{}", unit());
    assert!(!unit().contains(&format!("--join {own}:26257")), "{}", unit());
    let user = on(&lab, "n5", &["ps", "-C", "kwbase", "-o", "user="]);
    assert_eq!(user, ["kaiwudb"]);

    let plan = lab.plan(&["scale-in", "n5"]);
    killed(case, &lab, &["apply", &plan, "--yes"], "deploy.sh decommission");
    lab.kwscale(&["resume", "--yes"]).exit(0).says(&["node 5 is removed"]);
    gone(case, &lab, &before);
    down(lab);
}
