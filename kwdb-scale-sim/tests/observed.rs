//! The twin beside a real KWDB V3.2.1: every recorded command that it can answer is run in the state in which it was
//! recorded, and stream, header, message and exit code are compared, with counts and times masked.
//!
//! `data/observed-index.txt` names every recording; those that the twin answers lie under `data/observed`, verbatim;
//! the others stand in `data/observed-uncovered.txt` with the reason. That list may only shrink.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod observed_support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use kwdb_scale_core::topology::StartMode;
use kwdb_scale_sim::model::{Security, TableSpec};
use observed_support::{Replay, files_under, lines_of};

/// How many recordings the twin does not answer. Lower it when the list gets shorter.
const UNCOVERED: usize = 110;

#[test]
fn every_recording_is_answered_or_listed() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let index: BTreeSet<String> = lines_of(&data.join("observed-index.txt")).into_iter().collect();
    let here: BTreeSet<String> = files_under(&data.join("observed")).into_iter().collect();
    let listed: Vec<(String, String)> = lines_of(&data.join("observed-uncovered.txt"))
        .into_iter()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.split_once(char::is_whitespace).map(|(a, b)| (a.to_owned(), b.trim().to_owned())).unwrap())
        .collect();
    let uncovered: BTreeSet<String> = listed.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(listed.len(), uncovered.len(), "a name stands twice in the list");
    assert!(listed.iter().all(|(_, reason)| reason.len() > 5), "each needs a reason");
    assert_eq!(uncovered.intersection(&here).collect::<Vec<_>>(), Vec::<&String>::new(), "listed, yet here");
    let known: BTreeSet<String> = uncovered.union(&here).cloned().collect();
    assert_eq!(known, index, "neither here nor listed, or not a recording");
    assert_eq!(uncovered.len(), UNCOVERED, "the list changed: it may only shrink");

    let mut answered = insecure_cluster();
    answered.extend(secure_cluster());
    answered.extend(single_replica_cluster());
    answered.extend(four_nodes_in_another_order());
    assert_eq!(here.difference(&answered).collect::<Vec<_>>(), Vec::<&String>::new(), "here, yet never run");
}

const N: [&str; 5] =
    ["127.0.0.1:26257", "127.0.0.1:26258", "127.0.0.1:26259", "127.0.0.1:26260", "127.0.0.1:26261"];

/// The long insecure run: three nodes, a fourth, its removal, its return, a fifth.
fn insecure_cluster() -> BTreeSet<String> {
    let mut r = Replay::new("2026-11-23T12:54:05Z", Security::Insecure);
    r.check("00-version.txt");
    for name in ["node", "node_ls", "node_status", "node_decommission", "node_recommission", "node_drain"] {
        r.check(&format!("help/{name}.txt"));
    }
    r.check("help/quit.txt");
    r.check("help/init.txt");
    let seeds = &N[..3];
    r.at("2026-11-23T12:54:06Z");
    r.start(N[0], seeds, StartMode::MultiReplica);
    r.at("2026-11-23T12:54:08Z");
    r.start(N[1], seeds, StartMode::MultiReplica);
    r.check("01-init.txt");
    r.check("02-init-again.txt");
    r.at("2026-11-23T12:54:12.200Z");
    r.start(N[2], seeds, StartMode::MultiReplica);
    r.check("03-node-status-3nodes.txt");
    r.check_dir("20-status-3", &[]);
    r.at("2026-11-23T12:55:40Z");
    r.cluster().create_table(TableSpec::new("app", "kv", 21)).unwrap();
    r.check("30-scale-out/01-before.txt");
    r.check_start("30-scale-out/02-start-node4.txt", 0);
    r.check_dir("30-scale-out", &["01-", "02-"]);
    r.check_dir("40-decommission-none", &[]);
    r.check("41-decommission-live/01-decommission-4-wait-live.txt");
    r.check("41-decommission-live/02-status.txt");
    r.check_dir("42-decommission-bad", &[]);
    r.check_list("43-decommission-finish", &["00-", "01-", "02-", "03-", "04-", "05-", "06-", "09-"]);
    for after in [0, 3, 8, 12] {
        r.check(&format!("43-decommission-finish/10-after-quit-status-decommission-plus-{after}.txt"));
        r.check(&format!("43-decommission-finish/11-after-quit-status-plain-plus-{after}.txt"));
        if after == 0 {
            r.slip(Duration::from_millis(900));
        }
    }
    r.check_list("43-decommission-finish", &["13-", "14-", "15-", "16-"]);
    r.check_dir("44-three-nodes", &[]);

    // The removed node comes back on its old store and is taken in again.
    r.at("2026-11-23T13:00:20Z");
    r.start(N[3], seeds, StartMode::MultiReplica);
    r.at("2026-11-23T13:00:34Z");
    r.quietly("kwbase node recommission 4 --insecure --host=127.0.0.1:26257");
    r.at("2026-11-23T13:01:50Z");
    r.hold_transaction(N[3], "2026-11-23T13:02:30Z");
    r.check_list("50-client-during-shutdown", &["02-", "03-status-during-1", "03-status-during-2"]);
    r.check_list("50-client-during-shutdown", &["03-status-during-4", "05-"]);

    r.at("2026-11-23T13:04:39.500Z");
    r.start(N[3], seeds, StartMode::MultiReplica);
    r.check("61-kill9/00-before.txt");
    r.check("61-kill9/01-sample-01.txt");
    r.at("2026-11-23T13:08:09.600Z");
    r.cluster().kill_node(&N[3].into());
    r.check_dir("61-kill9", &["00-", "01-sample-01.txt", "03-"]);
    r.check("61-kill9/03-status-plain.txt");

    r.at("2026-11-23T13:10:26Z");
    r.start(N[3], seeds, StartMode::MultiReplica);
    r.start(N[4], seeds, StartMode::MultiReplica);
    r.check_list("62-five-nodes", &["00-", "01-", "02-", "03-", "04-", "05-", "06-", "07c-", "08-"]);
    r.at("2026-11-23T13:11:11.400Z");
    r.start(N[4], seeds, StartMode::MultiReplica);
    r.quietly("kwbase node decommission 4 --insecure --host=127.0.0.1:26257 --wait=none");
    r.check("62-five-nodes/09-decommission-4-and-5-wait-all-via-node5.txt");
    r.check("62-five-nodes/10-status.txt");
    r.check_list("27-http-drain", &["02-", "05-", "06-"]);

    r.at("2026-11-23T13:17:00Z");
    r.cluster().stop_node(&N[3].into());
    r.at("2026-11-23T13:23:30Z");
    r.check("90-ts-stub/03-status.txt");
    r.done()
}

fn secure_cluster() -> BTreeSet<String> {
    let n = ["127.0.0.1:36257", "127.0.0.1:36258", "127.0.0.1:36259"];
    let mut r = Replay::new("2026-11-23T13:05:20Z", Security::Ca("lab".to_owned()));
    r.at("2026-11-23T13:05:22Z");
    r.start(n[0], &n, StartMode::MultiReplica);
    r.at("2026-11-23T13:05:24Z");
    r.start(n[1], &n, StartMode::MultiReplica);
    r.check("70-secure/04-init.txt");
    r.at("2026-11-23T13:05:28.200Z");
    r.start(n[2], &n, StartMode::MultiReplica);
    r.at("2026-11-23T13:05:30.500Z");
    r.check_start("70-secure/05-start4.txt", 0);
    r.check_list("70-secure", &["06-", "06b-", "07-", "08-", "09-", "21-", "22-"]);
    r.align(n[0], 4, "2026-11-23T13:07:36.700Z", "2026-11-23T13:07:31.632Z");
    r.check_list("70-secure", &["23-", "24-", "25-", "27-"]);
    r.check("70-secure/30-status-as-alice.txt");
    r.done()
}

fn single_replica_cluster() -> BTreeSet<String> {
    let n = ["127.0.0.1:46257", "127.0.0.1:46258", "127.0.0.1:46259"];
    let mut r = Replay::new("2026-11-23T13:13:02Z", Security::Insecure);
    r.check_start("80-single-replica/00-cmd.txt", 3);
    r.at("2026-11-23T13:13:08Z");
    r.start(n[1], &n, StartMode::SingleReplica);
    r.check("80-single-replica/01-init.txt");
    r.at("2026-11-23T13:13:12.200Z");
    r.start(n[2], &n, StartMode::SingleReplica);
    r.check("80-single-replica/02-status.txt");
    r.cluster().create_table(TableSpec::new("app", "kv", 1)).unwrap();
    r.check_list("80-single-replica", &["05-", "06-", "08-", "09-"]);
    r.done()
}

/// Ids follow the order of arrival, not ports.
fn four_nodes_in_another_order() -> BTreeSet<String> {
    let mut r = Replay::new("2026-11-23T13:32:40Z", Security::Insecure);
    r.at("2026-11-23T13:32:42Z");
    let order = [N[0], N[3], N[1], N[2]];
    r.start(order[0], &N[..4], StartMode::MultiReplica);
    r.at("2026-11-23T13:32:44Z");
    r.cluster().init(&N[0].into()).unwrap();
    for (address, at) in order[1..].iter().zip(["45", "46.500", "48"]) {
        r.at(&format!("2026-11-23T13:32:{at}Z"));
        r.start(address, &N[..4], StartMode::MultiReplica);
    }
    r.check("92-final-4-node-check.txt");
    r.done()
}
