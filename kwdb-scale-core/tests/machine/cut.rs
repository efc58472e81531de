//! A leaving node that is cut off from everybody: the others hold its liveness for expired, and its process goes on.

use super::*;

fn leaving() -> Operation {
    Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] }
}

/// A scale-in of node 4 during which it is cut off as soon as it is empty, and reached again after so many looks.
fn cut_when_empty(heals_after: Option<usize>) -> (World, End, Vec<Record>) {
    let world = World::new(4);
    let plan = make_plan(&world, leaving());
    let mut run = Run::new(world, plan);
    run.cut_when_empty = Some(heals_after);
    run.run(&[])
}

#[test]
fn a_node_that_is_cut_off_is_not_told_to_be_removed() {
    let (world, end, _) = cut_when_empty(None);
    assert!(world.nodes[&4].up);
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::GateClosed);
    assert!(stopped.message.contains("proof that the process of node 4 has ended"), "{stopped:?}");
    assert!(stopped.evidence[0].contains("may be cut off"), "{stopped:?}");
    let next = stopped.next.join("\n");
    assert!(
        next.contains("let host h4 be reached")
            && next.contains("h4 is gone for good, the cluster holds node 4 for removed already"),
        "{next}"
    );
}

#[test]
fn one_that_is_reached_again_is_stopped() {
    let (world, end, _) = cut_when_empty(Some(5));
    assert!(matches!(end, End::Done(_)), "{end:?}");
    prove_end(&world, &[4], &[], &end);
}
