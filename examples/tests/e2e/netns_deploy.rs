//! The deploy.sh method over SSH: on hosts that are machines of their own, as the script installs them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::netns::{PLACES, down, files, on, only_sshd_and, possible, up};
use crate::support::{Case, TestLab};

/// What the stand-in of systemd keeps of a unit, and what the script itself changes and leaves: the number that its loop
/// wrote. The log of the day, which every run of it makes, also one that only tells the status, is [`LOG`].
const OF_OTHERS: &[&str] = &[
    "/etc/kaiwudb/info/MODE",
    "/etc/systemd/system/kaiwudb.service",
    "/opt/kwdb_install/decommission_progress",
    "/run/kwdb-scale-standin/kaiwudb.log",
    "/run/kwdb-scale-standin/kaiwudb.started",
    "/run/kwdb-scale-standin/kaiwudb.stopping",
];

const LOG: &str = "/opt/kwdb_install/log/";

/// The real script, where `KWDB_SCALE_DEPLOY_SH` names its directory (`kaiwudb_install` of KWDB's source): it takes the place of the
/// stand-in on every host.
fn real_script(lab: &TestLab<'_>) {
    let Some(source) = std::env::var_os("KWDB_SCALE_DEPLOY_SH").filter(|path| !path.is_empty()) else {
        return;
    };
    let source = std::path::PathBuf::from(source);
    for n in 1..=5 {
        let install_dir = lab.inside(&format!("hosts/n{n}/root/opt/kwdb_install"));
        let mut copy = Command::new("cp");
        copy.args(["-R", "--"]).args(["deploy.sh", "utils"].map(|name| source.join(name))).arg(install_dir);
        assert!(copy.status().unwrap().success(), "{} holds no deploy.sh with its utils", source.display());
    }
}

fn all_files(lab: &TestLab<'_>) -> Vec<BTreeSet<String>> {
    (1..=5).map(|n| files(lab, &format!("n{n}"))).collect()
}

/// Node 5 is removed, its unit stopped and disabled, and nothing is left on any host.
#[track_caller]
fn gone(case: &Case, lab: &TestLab<'_>, before: &[BTreeSet<String>]) {
    let status = lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
    assert!(status.good());
    let unit = on(lab, "n5", &["systemctl", "show", "-p", "ActiveState", "-p", "UnitFileState", "kaiwudb"]);
    assert_eq!(unit, ["ActiveState=inactive", "UnitFileState=disabled"]);
    for (index, had) in before.iter().enumerate() {
        let host = format!("n{}", index + 1);
        only_sshd_and(case, lab, &host, host != "n5");
        let mut left: Vec<String> = files(lab, &host).difference(had).cloned().collect();
        left.retain(|path| !path.starts_with(LOG) && (host != "n5" || !OF_OTHERS.contains(&path.as_str())));
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
    real_script(&lab);
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
    lab.kwscale(&["status", "--deploy"]).exit(0).says(&[
        "n5 by its deploy.sh",
        "KWDB runs",
        "lists nodes 1, 2, 3, 4, 5",
        "decommission_progress",
    ]);

    // Taken back while the script's mark may be under way: it is waited for, and nothing of it is left.
    let plan = lab.plan(&["scale-in", "n5"]);
    killed(case, &lab, &["apply", &plan, "--yes"], "deploy.sh decommission");
    lab.kwscale(&["resume", "--undo", "--yes"]).exit(0);
    let status = lab.status();
    assert_eq!((status.class(5), status.marked(5)), ("member", false));
    only_sshd_and(case, &lab, "n5", true);
    let outputs = on(&lab, "n5", &["find", "/opt/kwdb_install", "-name", "kwdb-scale*"]);
    assert_eq!(outputs, [""; 0]);

    let plan = lab.plan(&["scale-in", "n5"]);
    killed(case, &lab, &["apply", &plan, "--yes"], "deploy.sh decommission");
    lab.kwscale(&["resume", "--yes"]).exit(0).says(&["node 5 is removed"]);
    gone(case, &lab, &before);
    down(lab);
}

/// Files on a host that hold the authority's private key or may hold it.
fn keys(lab: &TestLab<'_>, host: &str) -> Vec<String> {
    let key = fs::read_to_string(lab.inside("hosts/n1/root/etc/kaiwudb/certs/ca.key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    let named = ["-name", "ca.key", "-o", "-name", "*.tar.gz", "-o", "-name", "*kwdb-scale*"];
    let mut found = on(lab, host, &[&["find"], PLACES, &named].concat());
    let search = format!(
        "grep -rlF --exclude-dir=dpkg --exclude-dir=apt -e '{line}' {} || [ $? = 1 ]",
        PLACES.join(" ")
    );
    found.extend(on(lab, host, &["sh", "-c", &search]));
    found.retain(|path| !path.starts_with("/run/kwdb-scale-standin"));
    found.sort();
    found.dedup();
    found
}

/// The authority's key is on its holder, and nowhere else: neither on a host nor with the operator.
#[track_caller]
fn only_its_holder_has_the_key(lab: &TestLab<'_>) {
    const KEY: &str = "/etc/kaiwudb/certs/ca.key";
    assert_eq!(keys(lab, "n1"), [KEY]);
    for host in ["n2", "n3", "n4", "n5"] {
        assert_eq!(keys(lab, host), Vec::<String>::new(), "on {host}");
    }
    let line = format!("sed -n 2p '{}'", lab.inside(&format!("hosts/n1/root{KEY}")).display());
    let command = format!("grep -rlF --exclude-dir=hosts -e \"$({line})\" '{}'", lab.path(""));
    let found = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!((found.status.code(), found.stdout), (Some(1), Vec::new()), "with the operator");
}

/// Ends what a join runs, the node too, at once.
const END_OF_A_JOIN: &str = r#"
for process in /proc/[0-9]*; do
  case $(tr '\0' ' ' 2>/dev/null <"$process/cmdline") in
    *END_OF*) ;;
    *deploy.sh*join* | *kwbase\ cert* | *kwbase\ start*) [ "${process#/proc/}" = $$ ] || all="$all ${process#/proc/}" ;;
  esac
done
kill -9 $all
: END_OF"#;

pub(crate) fn secure_out_and_in_by_sudo(case: &Case) {
    const ARCHIVE: &str = "/opt/kwdb_install/kaiwudb_certs.tar.gz";
    if !possible("netns_deploy_secure_out_and_in_by_sudo") {
        return;
    }
    let lab = up(case, &["--method", "deploy.sh", "--secure", "--login", "kaiwudb"]);
    lab.lab("add", &["--without-certs"]);
    real_script(&lab);
    let before = all_files(&lab);
    on(&lab, "n5", &["systemctl", "enable", "kaiwudb"]);
    only_its_holder_has_the_key(&lab);

    // The script makes the certificates itself: there is one way.
    lab.kwscale(&["plan", "--certificates", "issue", "scale-out", "n5"]).exit(3).says(&[
        "certificates-authority",
        "deploy.sh join makes them itself",
        "method archive",
    ]);
    let planned = |name: &str| {
        let file = lab.path(name);
        let args =
            ["plan", "-o", &file, "--wait-healthy", "90s", "--certificates", "archive", "scale-out", "n5"];
        lab.kwscale(&args).exit(0).says(&["private key", "leaves host n1 for host n5"]);
        file
    };

    // The script does not make the directory in which it opens the archive.
    on(&lab, "n5", &["mv", "/etc/kaiwudb/certs", "/etc/kaiwudb/moved"]);
    lab.kwscale(&["plan", "--certificates", "archive", "scale-out", "n5"])
        .exit(3)
        .says(&["script-join", "install -d -o kaiwudb -g kaiwudb /etc/kaiwudb/certs"]);
    on(&lab, "n5", &["mv", "/etc/kaiwudb/moved", "/etc/kaiwudb/certs"]);

    // A join that fails leaves the host as it was, but for the archive for another try, which an undo removes.
    let environment = lab.inside("hosts/n5/root/etc/kaiwudb/script/kaiwudb_env");
    let good = fs::read_to_string(&environment).unwrap();
    fs::write(&environment, good.replace("--cache", "--no-such-flag=1 --cache")).unwrap();
    let plan = planned("fails.json");
    lab.kwscale(&["apply", &plan, "--yes"]).exit(5).says(&["may lie on host n5", "undo"]);
    assert_eq!(keys(&lab, "n5"), [ARCHIVE]);
    assert_eq!(on(&lab, "n5", &["stat", "-c", "%a %U", ARCHIVE]), ["600 root"]);
    // The next one takes the archive that lies there for somebody's. Its undo names it, with the command that removes it.
    let plan = lab.path("second.json");
    lab.kwscale(&["plan", "-o", &plan, "--certificates", "archive", "scale-out", "n5"]).exit(0);
    lab.kwscale(&["apply", &plan, "--yes"]).exit(5);
    let journals = fs::read_dir(lab.inside("kwscale-journal")).unwrap().map(|e| e.unwrap().path());
    let journals = journals.filter(|path| path.extension().is_some_and(|e| e == "jsonl"));
    let mut journals: Vec<String> = journals.map(|path| path.display().to_string()).collect();
    journals.sort();
    let [older, newer]: [String; 2] = journals.try_into().unwrap();
    lab.kwscale(&["resume", "--undo", "--yes", "--journal", &older]).exit(3).says(&[
        "is not undone",
        "take the newer back first, by",
        &format!("--journal {newer} --undo"),
    ]);
    lab.kwscale(&["resume", "--undo", "--yes"]).exit(0).says(&[
        "kaiwudb_certs.tar.gz on host n5 is left, with private keys",
        &format!("--journal {older}, or take it back by the same with --undo"),
    ]);
    assert_eq!(keys(&lab, "n5"), [ARCHIVE]);
    lab.kwscale(&["resume", "--undo", "--yes", "--journal", &older])
        .exit(0)
        .says(&["no archive with the authority's private key"]);
    only_its_holder_has_the_key(&lab);
    assert_eq!(on(&lab, "n5", &["ls", "/etc/kaiwudb/certs"]), [""; 0]);
    fs::write(&environment, good).unwrap();

    // Ended with everything that the join runs, as when the host goes down: the undo cleans up after it.
    on(&lab, "n5", &["sh", "-c", "echo old >/etc/kaiwudb/certs/old.txt"]);
    let plan = planned("cut.json");
    let mut running = lab.start(&["apply", &plan, "--yes"]);
    case.until("the key is extracted", 90, || {
        assert!(running.runs(), "it ended too early:\n{}", running.stderr());
        lab.inside("hosts/n5/root/etc/kaiwudb/certs/ca.key").exists()
    });
    running.signal(Signal::KILL);
    on(&lab, "n5", &["sh", "-c", END_OF_A_JOIN]);
    assert_eq!(running.end(case).code, None);
    assert_eq!(
        keys(&lab, "n5"),
        ["/etc/kaiwudb/certs/ca.key", ARCHIVE, "/opt/kwdb_install/kwdb-scale.join.out"]
    );
    lab.kwscale(&["hosts", "n5"]).exit(0).says(&["/etc/kaiwudb/before-join"]);
    lab.kwscale(&["resume", "--undo", "--yes"]).exit(0).says(&["nor anything that its join had kept aside"]);
    only_its_holder_has_the_key(&lab);
    assert_eq!(on(&lab, "n5", &["ls", "/etc/kaiwudb/certs"]), ["old.txt"]);
    assert_eq!(on(&lab, "n5", &["find", "/etc/kaiwudb", "-name", "before-join"]), [""; 0]);
    assert!(!lab.status().members().contains(&5));
    // What the script deletes that is none of what it makes comes back.
    on(&lab, "n5", &["sh", "-c", "cd /etc/kaiwudb/certs && mv old.txt client.alice.key"]);

    // Ended while the script joins, which removes the key by itself.
    let plan = planned("out.json");
    killed(case, &lab, &["apply", &plan, "--yes"], "deploy.sh join");
    lab.kwscale(&["resume", "--yes"]).exit(0).says(&["node 5 joined"]);
    only_its_holder_has_the_key(&lab);
    only_sshd_and(case, &lab, "n5", true);
    let listed = on(&lab, "n5", &["ls", "/etc/kaiwudb/certs"]);
    let made = ["ca.crt", "client.root.crt", "client.root.key", "node.crt", "node.key"];
    assert_eq!(listed, [&made[..1], &["client.alice.key"], &made[1..]].concat());
    let owner = on(&lab, "n5", &["stat", "-c", "%U", "/etc/kaiwudb/certs/node.key"]);
    assert_eq!(owner, ["kaiwudb"]);

    lab.change(&["scale-in", "n5"]).says(&["node 5 is removed"]);
    only_its_holder_has_the_key(&lab);
    // Its certificates stay.
    let mut had = before;
    had[4].extend(listed.into_iter().map(|name| format!("/etc/kaiwudb/certs/{name}")));
    gone(case, &lab, &had);
    archives_are_known_before_old_data_goes(&lab);
    undone_while_the_script_goes_on(case, &lab);
    down(lab);
}

/// The archive that lies on n5, which has the data of a removed node, is looked into by a plan; nothing is changed by it.
fn archives_are_known_before_old_data_goes(lab: &TestLab<'_>) {
    const ARCHIVE: &str = "/opt/kwdb_install/kaiwudb_certs.tar.gz";
    const SUMS: &str = "find /opt/kwdb_install /etc/kaiwudb /etc/systemd /var/lib/kaiwudb -printf '%p %m %u %s\\n' \
                        -type f -exec sha256sum {} + | sort";
    let made = |how: &str| {
        let script = format!("set -e; cd /run; {how}; chmod 600 {ARCHIVE}; rm -rf /run/made");
        on(lab, "n5", &["sh", "-c", &script]);
    };
    let other = format!(
        "mkdir made; /usr/local/kaiwudb/bin/kwbase cert create-ca --certs-dir=made --ca-key=made/ca.key; \
         tar -czf {ARCHIVE} -C made ./ca.key ./ca.crt"
    );
    for (how, words) in [
        (format!("echo garbage >{ARCHIVE}"), "no archive of ca.crt and ca.key alone"),
        (format!("tar -czf {ARCHIVE} -C /etc/kaiwudb/certs ./ca.crt"), "it holds ca.crt"),
        (other, "of another authority"),
    ] {
        made(&how);
        let before = on(lab, "n5", &["sh", "-c", SUMS]);
        assert!(before.iter().any(|line| line.contains("/var/lib/kaiwudb/")), "{before:?}");
        let wipe = ["scale-out", "n5", "--wipe-old-data"];
        // Whoever is to have put the archive there.
        for asked in [&["--certificates", "archive"][..], &[]] {
            let args = [&["plan"], asked, &wipe].concat();
            lab.kwscale(&args).exit(3).says(&["script-join", "the archive", words]);
        }
        assert_eq!(on(lab, "n5", &["sh", "-c", SUMS]), before, "{words}");
    }
    on(lab, "n5", &["rm", ARCHIVE]);
    let (plan, again) = (lab.path("again.json"), ["--wipe-old-data", "scale-out", "n5"]);
    let args = [&["plan", "-o", &plan, "--wait-healthy", "90s", "--certificates", "archive"], &again[..]];
    lab.kwscale(&args.concat()).exit(0).says(&["old data"]);
}

/// Sends a signal to what runs the script on n5, and not to the script.
fn signal_the_join(lab: &TestLab<'_>, signal: &str) {
    let script = r#"
for process in /proc/[0-9]*; do
  case $(tr '\0' ' ' 2>/dev/null <"$process/cmdline") in
    *SIGNAL_TO*) ;;
    *kwdb-scale.join.out*) kill -"$1" "${process#/proc/}" ;;
  esac
done
: SIGNAL_TO"#;
    on(lab, "n5", &["sh", "-c", script, "sh", signal]);
}

/// The node has joined, and what runs the script has not tidied up yet: an undo leaves that to it, and waits.
fn undone_while_the_script_goes_on(case: &Case, lab: &TestLab<'_>) {
    let plan = lab.path("again.json");
    let made: serde_json::Value = serde_json::from_str(&fs::read_to_string(&plan).unwrap()).unwrap();
    let consent = format!("clear-{}", made["id"].as_str().unwrap());
    // Its own process: what runs it has its name, too.
    killed(case, lab, &["apply", &plan, "--yes", "--consent", &consent], "/deploy.sh join --addr");
    signal_the_join(lab, "STOP");
    case.until("the node has joined", 60, || lab.status().members().len() == 5);
    let kept = lab.inside("hosts/n5/root/etc/kaiwudb/before-join");
    let mut undo = lab.start(&["resume", "--undo", "--yes"]);
    case.until("it is waited for", 60, || {
        assert!(undo.runs() && kept.exists(), "it was not waited for:\n{}", undo.stderr());
        undo.stderr().contains("deploy.sh join on host n5")
    });
    signal_the_join(lab, "CONT");
    // sudo stops when what it runs was stopped, and it may learn of that only now.
    std::thread::sleep(std::time::Duration::from_secs(1));
    signal_the_join(lab, "CONT");
    undo.end(case).exit(0).says(&["stays a member"]);
    assert!(!kept.exists());
    only_its_holder_has_the_key(lab);
    only_sshd_and(case, lab, "n5", true);
}
