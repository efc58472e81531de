//! Emptiness by the server's own status, beside the count of range descriptors.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn scale_in(status: Option<BTreeMap<u32, u64>>) -> (World, End, Vec<Record>) {
    let mut world = World::new(4);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] });
    world.status = status;
    Run::new(world, plan).run(&[])
}

#[test]
fn two_members_say_it_before_a_node_counts_as_empty() {
    for (status, through) in [(Some(BTreeMap::new()), "asked"), (None, "asked in vain")] {
        let (world, end, records) = scale_in(status);
        assert!(matches!(end, End::Done(_)), "{through}: {end:?}");
        assert_eq!(world.status_through, BTreeSet::from([vec![1, 2]]), "{through}");
        let marks = |r: &&Record| matches!(r, Record::Intent { act: Act::Mark { .. }, .. });
        assert_eq!(records.iter().filter(marks).count(), 1, "{through}");
    }
}

/// Whichever of the two it is: no range names the node, and the server counts replicas all the same.
#[test]
fn one_member_that_counts_more_keeps_the_node_running() {
    for member in [1, 2] {
        let (world, end, records) = scale_in(Some(BTreeMap::from([(member, 3)])));
        let End::Stopped(stopped) = end else { panic!("{end:?}") };
        assert_eq!(stopped.reason, StopReason::GateClosed, "{stopped:?}");
        let words = format!("the server's own count of replicas on node 4, 3 through h{member}:26257");
        assert!(stopped.message.contains(&words), "{stopped:?}");
        assert!(world.nodes[&4].up && world.nodes[&4].bit && world.replicas(4) == 0);
        assert!(!records.iter().any(|r| matches!(r, Record::Intent { act: Act::Stop { .. }, .. })));
    }
}
