//! Changes that are carried out.

use std::fs;

use crate::support::Case;

const SPEED: u32 = 40;

pub(crate) fn out_in_out_in(case: &Case) {
    let lab = case.lab(4, SPEED, &["--ranges", "12"]);
    assert_eq!(lab.status().members(), [1, 2, 3, 4]);
    lab.kwscale(&["status"]).exit(0).says(&["n1", "member", "replicas", "region=NODE1", "0 unavailable"]);
    let host = lab.lab("add", &[]).stdout;
    assert_eq!(host.trim(), "n5");

    // Out. What a file says can be shown, and once it is true there is nothing to do.
    let plan = lab.plan(&["scale-out", "n5"]);
    lab.kwscale(&["show", &plan]).exit(0).says(&["scale-out", "n5", "verify"]);
    let shown = lab.kwscale(&["show", &plan, "--format", "json"]).exit(0);
    assert_eq!(shown.stdout, fs::read_to_string(&plan).unwrap(), "the canonical form is what was written");
    let applied = lab.kwscale(&["apply", &plan, "--yes", "--format", "json"]).exit(0).json();
    assert_eq!(applied["kind"], "done");
    assert_eq!(applied["joined"]["n5"], 5);
    let status = lab.status();
    assert_eq!(status.members(), [1, 2, 3, 4, 5]);
    assert!(status.good() && status.node(5).unwrap()["host"] == "n5");
    // The plan's facts are not true any more, and to apply it again is refused.
    lab.kwscale(&["apply", &plan, "--yes"]).exit(3);

    // In.
    lab.change(&["scale-in", "5"]);
    let status = lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
    assert!(status.good());

    // Out again: the store of the node that left is not empty.
    lab.kwscale(&["plan", "scale-out", "n5"]).exit(3).says(&["n5", "store", "cure"]);
    // A member is not wiped, and may be stopped one at a time.
    lab.kwscale(&["safe-to-wipe", "4"]).exit(3).says(&["safe-to-wipe node 4: no", "a live member", "cure"]);
    lab.kwscale(&["safe-to-wipe", "n5"]).exit(0).says(&[
        "safe-to-wipe node 5: yes",
        "its liveness has expired",
        "no range names a store of node 5",
    ]);
    lab.kwscale(&["ok-to-stop", "n4"]).exit(0).says(&["ok-to-stop node 4: yes"]);
    let no = lab.kwscale(&["ok-to-stop", "3", "4", "--format", "json"]).exit(3).json();
    assert_eq!((&no["yes"], &no["question"]), (&false.into(), &"ok_to_stop".into()));
    // The old data is moved aside, by a plan that shows it and with the consent to just that.
    let store = lab.inside("nodes/n5/store");
    std::fs::write(store.join("precious.doc"), "mine").unwrap();
    let foreign = "what no store of KWDB has, and would be deleted: precious.doc";
    lab.kwscale(&["plan", "scale-out", "n5", "--wipe-old-data=delete"]).exit(3).says(&[foreign]);
    let plan = lab.plan(&["scale-out", "n5", "--no-await-balance", "--wipe-old-data"]);
    let aside = store.with_file_name("store.node-5");
    let shown = lab.kwscale(&["show", &plan]).exit(0);
    let shown = shown.says(&["move", &store.display().to_string(), &aside.display().to_string(), "clear-"]);
    let shown = shown.says(&["kwbase.start_mode", "and what no store of KWDB has: precious.doc"]);
    let token = shown.stdout.split_whitespace().find(|w| w.starts_with("clear-")).unwrap().to_owned();
    let refused = lab.kwscale(&["apply", &plan, "--yes"]).exit(3);
    refused.says(&["--consent", &token]);
    lab.kwscale(&["apply", &plan, "--yes", "--consent", "clear-0123456789abcdef"]).exit(3);
    assert!(!aside.exists());
    // What came after the consent is not part of it.
    std::fs::write(store.join("late.doc"), "mine").unwrap();
    lab.kwscale(&["apply", &plan, "--yes", "--consent", &token])
        .exit(3)
        .says(&["late.doc", "nothing was done"]);
    assert!(!aside.exists() && store.join("late.doc").is_file());
    std::fs::remove_file(store.join("late.doc")).unwrap();
    lab.kwscale(&["apply", &plan, "--yes", "--consent", &token]).exit(0).says(&["store.node-5"]);
    assert!(aside.join("precious.doc").is_file());
    assert!(aside.join("kwbase.start_mode").is_file() && store.join("kwbase.start_mode").is_file());
    // The address is the same, the node is another.
    let status = lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4, 6], "removed"));
    assert_eq!(status.node(5).unwrap()["address"], status.node(6).unwrap()["address"]);

    // In again, by the name of the host, which now means node 6.
    lab.change(&["scale-in", "n5"]);
    let status = lab.status();
    assert_eq!(
        (status.members(), status.class(5), status.class(6)),
        (vec![1, 2, 3, 4], "removed", "removed")
    );
    assert!(status.good());
}

pub(crate) fn secure_out_and_in(case: &Case) {
    let lab = case.lab(4, SPEED, &["--secure", "--ranges", "6"]);
    lab.lab("add", &[]);
    lab.change(&["scale-out", "n5"]);
    assert_eq!(lab.status().members(), [1, 2, 3, 4, 5]);
    lab.change(&["scale-in", "n2"]);
    let status = lab.status();
    assert_eq!((status.members(), status.class(2)), (vec![1, 3, 4, 5], "removed"));
    assert!(status.good());
}

pub(crate) fn two_of_six_at_once(case: &Case) {
    let lab = case.lab(6, SPEED, &["--ranges", "10"]);
    let plan = lab.plan(&["scale-in", "5", "n6"]);
    lab.kwscale(&["show", &plan]).exit(0).says(&["nodes 5, 6", "in one command"]);
    lab.kwscale(&["apply", &plan, "--yes"]).exit(0);
    let status = lab.status();
    assert_eq!(
        (status.members(), status.class(5), status.class(6)),
        (vec![1, 2, 3, 4], "removed", "removed")
    );
    assert!(status.good());
}

/// The second is not marked before the first is gone, and what that costs is said.
pub(crate) fn two_of_five_one_at_a_time(case: &Case) {
    let lab = case.lab(5, SPEED, &["--ranges", "10"]);
    let plan = lab.plan(&["--batch", "1", "scale-in", "4", "5"]);
    let shown = lab.kwscale(&["show", &plan]).exit(0);
    shown.says(&["replicas will move", "1 of 2 nodes leaving at a time"]);
    let json = lab.kwscale(&["apply", &plan, "--yes", "--format", "json"]).exit(0);
    let said = |what: &str| json.stderr.lines().position(|line| line.trim() == what).expect(what);
    let order = ["mark 4", "stop node 4", "mark 5", "stop node 5"].map(said);
    assert!(order.is_sorted(), "{order:?}\n{}", json.stderr);
    let outcome = json.json();
    assert_eq!(outcome["stopped"], serde_json::json!([4, 5]));
    assert!(outcome["means"].as_str().unwrap().starts_with("the "), "{outcome}");
    let status = lab.status();
    assert_eq!((status.members(), status.class(4), status.class(5)), (vec![1, 2, 3], "removed", "removed"));
    assert!(status.good());
}

pub(crate) fn out_by_two_then_factor_five_shrinks(case: &Case) {
    let lab = case.lab(3, SPEED, &["--ranges", "6"]);
    lab.lab("add", &[]);
    lab.lab("add", &[]);
    lab.change(&["scale-out", "n4", "n5", "--no-await-balance"]);
    let status = lab.status();
    assert_eq!(status.members(), [1, 2, 3, 4, 5]);
    assert!(status.good());
    // System ranges, which want five replicas, fall to three: told, not refused.
    let plan = lab.plan(&["scale-in", "5"]);
    lab.kwscale(&["show", &plan]).exit(0).says(&["5 → 3 replicas", "tolerates 2 → 1"]);
    lab.kwscale(&["apply", &plan, "--yes"]).exit(0);
    let status = lab.status();
    assert_eq!(status.members(), [1, 2, 3, 4]);
    assert!(status.good());
}

pub(crate) fn replace(case: &Case) {
    let lab = case.lab(4, SPEED, &["--ranges", "6"]);
    lab.lab("add", &[]);
    lab.change(&["replace", "3", "--no-await-balance", "--with", "n5"]);
    let status = lab.status();
    assert_eq!((status.members(), status.class(3)), (vec![1, 2, 4, 5], "removed"));
    assert!(status.good());
}

pub(crate) fn two_stores_a_node(case: &Case) {
    let lab = case.lab(4, SPEED, &["--stores-per-node", "2", "--ranges", "6"]);
    let status = lab.status();
    assert_eq!(status.node(4).unwrap()["stores"].as_array().unwrap().len(), 2);
    lab.change(&["scale-in", "4"]);
    let status = lab.status();
    assert_eq!((status.members(), status.class(4)), (vec![1, 2, 3], "removed"));
    assert!(status.good());
}

pub(crate) fn single_replica_out_but_never_in(case: &Case) {
    let lab = case.lab(4, SPEED, &["--single-replica", "--ranges", "4"]);
    assert_eq!(lab.status().0["start_mode"], "start-single-replica");
    let refused = lab.kwscale(&["plan", "scale-in", "4", "--format", "json"]).exit(3).json();
    assert_eq!(refused["refused"], true);
    lab.kwscale(&["plan", "scale-in", "4"]).exit(3).says(&["single-replica", "cure"]);
    lab.kwscale(&["check", "replace", "4", "--with", "n5"]).exit(3);
    lab.lab("add", &[]);
    lab.change(&["scale-out", "n5"]);
    assert_eq!(lab.status().members(), [1, 2, 3, 4, 5]);
}

pub(crate) fn leave_drained_and_settings(case: &Case) {
    const SETTING: &str = "kv.allocator.ts_consider_rebalance.enabled";
    let lab = case.lab(4, SPEED, &[]);
    let before = lab.status().0["settings"][SETTING].clone();
    assert_eq!(before, "true");
    let out = lab.change(&["scale-in", "4", "--finish", "leave-drained", "--redistribution", "off-during"]);
    out.says(&["restore"]);
    let status = lab.status();
    assert_eq!((status.members(), status.class(4)), (vec![1, 2, 3], "leaving"));
    assert_eq!(status.node(4).unwrap()["replicas"], 0);
    assert_eq!(status.node(4).unwrap()["live"], true);
    assert_eq!(status.0["settings"][SETTING], "true");
    // Taken back, it is a member again.
    lab.kwscale(&["recommission", "4"]).exit(0).says(&["recommissioned: 4"]);
    assert_eq!(lab.status().members(), [1, 2, 3, 4]);
    lab.kwscale(&["recommission", "4"]).exit(0).says(&["not marked"]);
    // Left once more, it is stopped by a plan of its own.
    if case.real.is_none() {
        lab.lab("add", &[]);
        lab.change(&["scale-out", "n5", "--no-await-balance"]);
        lab.change(&["scale-in", "5", "--finish", "leave-drained"]);
        lab.kwscale(&["plan", "scale-in", "5", "--finish", "leave-drained"]).exit(0).says(&["nothing to do"]);
        lab.change(&["scale-in", "5"]);
        assert_eq!((lab.status().members(), lab.status().class(5)), (vec![1, 2, 3, 4], "removed"));
    }
    // Off stays off.
    lab.change(&["scale-in", "4", "--redistribution", "off", "--drain"]).says(&["drain node 4"]);
    let status = lab.status();
    assert_eq!(status.class(4), "removed");
    assert_eq!(status.0["settings"][SETTING], "false");
}
