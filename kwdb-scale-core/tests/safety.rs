//! What `safe_to_wipe` says of altered observations: evidence is what was seen, and what was not seen is a no.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod support;

use jiff::SignedDuration;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::observation::Observation;
use kwdb_scale_core::safety::{Answer, safe_to_wipe};
use kwdb_scale_core::topology::NodeId;
use support::*;

const GONE: NodeId = NodeId(5);
const EMPTY: &str = "no range names a store of node 5";
const MARKED: &str = "node 5 is marked, and its liveness has expired";

fn asked(change: impl FnOnce(&mut Observation)) -> Answer {
    let mut cluster = Cluster::new(5);
    cluster.remove(5);
    let mut observation = cluster.observe();
    change(&mut observation);
    // As an embedder may have kept it.
    let text = serde_json::to_string(&observation).unwrap();
    safe_to_wipe(&Observation::from_json(&text).unwrap(), &[GONE])
}

fn has(answer: &Answer, words: &str) -> bool {
    answer.evidence.iter().any(|line| line.contains(words))
}

#[track_caller]
fn refused(answer: &Answer, objection: &str) {
    assert!(!answer.is_yes(), "{answer}");
    assert!(answer.objections.iter().any(|o| o.message.contains(objection)), "{answer}");
}

#[test]
fn a_removed_node_is_told_by_what_was_seen() {
    let answer = asked(|_| {});
    assert!(answer.is_yes(), "{answer}");
    assert!(has(&answer, EMPTY) && has(&answer, MARKED), "{answer}");
    assert_eq!(
        answer.evidence.iter().filter(|l| l.contains("says the same of node 5")).count(),
        2,
        "{answer}"
    );
}

#[test]
fn what_speaks_against_it_is_no_evidence_for_it() {
    let count = asked(|o| o.nodes.get_mut(&GONE).unwrap().replicas = Fact::Known(3));
    refused(&count, "3 ranges name a store of node 5");
    let unknown = asked(|o| o.nodes.get_mut(&GONE).unwrap().replicas = Fact::unknown("nobody counted"));
    refused(&unknown, "nobody counted");
    let stores = asked(|o| o.nodes.get_mut(&GONE).unwrap().stores.clear());
    refused(&stores, "which stores node 5 had");
    let ranges = asked(|o| o.ranges = Fact::unknown("the scan failed"));
    refused(&ranges, "the scan failed");
    // The count says none, and a range names one all the same.
    let named = asked(|o| {
        let store = *o.nodes[&GONE].stores.keys().next().unwrap();
        let Fact::Known(ranges) = &mut o.ranges else { return };
        ranges[0].learners.push(store);
    });
    refused(&named, "1 ranges name a store of node 5");
    for answer in [count, unknown, stores, ranges, named] {
        assert!(!has(&answer, EMPTY), "{answer}");
    }
}

#[test]
fn a_class_that_liveness_contradicts_is_no_proof() {
    let bit = asked(|o| o.nodes.get_mut(&GONE).unwrap().decommissioning = Fact::Known(false));
    let unread = asked(|o| o.nodes.get_mut(&GONE).unwrap().decommissioning = Fact::unknown("NULL"));
    let alive = asked(|o| {
        let later = *o.server_time.known().unwrap() + SignedDuration::from_secs(5);
        o.nodes.get_mut(&GONE).unwrap().expiration = Fact::Known(later);
    });
    let timeless = asked(|o| o.server_time = Fact::unknown("no answer"));
    for answer in [bit, unread, alive, timeless] {
        refused(&answer, "whether node 5 is removed");
        assert!(!has(&answer, MARKED), "{answer}");
    }
}

#[test]
fn a_view_that_disagrees_or_none_at_all_refuses() {
    let disagrees = asked(|o| {
        let Fact::Known(rows) = &mut o.other_views[0].liveness else { return };
        rows.iter_mut().find(|r| r.node_id == GONE).unwrap().decommissioning = Some(false);
    });
    refused(&disagrees, "does not hold node 5 for removed");
    assert_eq!(disagrees.evidence.iter().filter(|l| l.contains("says the same")).count(), 1, "{disagrees}");
    let absent = asked(|o| {
        let Fact::Known(rows) = &mut o.other_views[0].liveness else { return };
        rows.retain(|r| r.node_id != GONE);
    });
    refused(&absent, "does not hold node 5 for removed");
    let alone = asked(|o| o.other_views.clear());
    refused(&alone, "only one gateway answered");
    assert!(!has(&alone, "says the same"), "{alone}");
}
