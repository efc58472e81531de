//! Things that happen to the cluster while an operation runs.

use std::time::Duration;

use kwdb_scale_core::execute::{End, Record, StopReason};
use kwdb_scale_core::request::Options;
use kwdb_scale_core::topology::{Address, NodeId};
use kwdb_scale_sim::memory::SimHost;
use kwdb_scale_sim::model::{Cluster, MembershipStatus, Phase, TableSpec, ZoneTarget};

use crate::scene::{Book, Scene, Stage, cluster_of, is_marked, scale_in};

/// Seconds after the beginning: in the preflight, around the mark, in the middle, around the stop, at the end.
const TIMES: [u64; 9] = [0, 1, 3, 8, 20, 45, 70, 90, 110];

fn address(n: u16) -> Address {
    SimHost::numbered(n).address
}

fn after(stage: &Stage, seconds: u64, act: impl FnOnce(&mut Cluster) + Send + 'static) {
    stage.world.at(stage.world.now() + Duration::from_secs(seconds), act);
}

fn reason(end: &End) -> Option<StopReason> {
    match end {
        End::Stopped(stopped) => Some(stopped.reason),
        _ => None,
    }
}

async fn acted(book: &Book) -> bool {
    book.all().await.iter().any(|r| matches!(r, Record::Intent { .. }))
}

#[tokio::test]
async fn the_leaving_node_dies() {
    let scene = Scene::leave_one().await;
    for t in TIMES {
        let which = format!("killed at {t} s");
        let mut stage = scene.stage();
        after(&stage, t, |c| {
            c.kill_node(&address(5));
        });
        let book = Book::default();
        let end = stage.run(&book, &[]).await.unwrap();
        if acted(&book).await {
            stage.prove_done(&end, &which);
        } else {
            assert_eq!(reason(&end), Some(StopReason::Refused), "{which}");
            stage.nothing_wrong(&which);
        }
    }
}

#[tokio::test]
async fn a_staying_node_restarts() {
    let scene = Scene::leave_one().await;
    for t in TIMES {
        for victim in [1, 3] {
            let which = format!("n{victim} restarted at {t} s");
            let mut stage = scene.stage();
            after(&stage, t, move |c| {
                c.kill_node(&address(victim));
            });
            let back = stage.restart(victim);
            after(&stage, t + 40, back);
            let book = Book::default();
            let end = stage.run(&book, &[]).await.unwrap();
            if reason(&end) == Some(StopReason::Refused) {
                assert!(!acted(&book).await, "{which}");
                continue;
            }
            stage.prove_done(&end, &which);
        }
    }
}

/// A gateway that never comes back closes the gate before the stop; when it is back a resume gets to the end.
#[tokio::test]
async fn a_gateway_dies() {
    let scene = Scene::leave_one().await;
    for t in TIMES {
        let which = format!("gateway killed at {t} s");
        let mut stage = scene.stage();
        after(&stage, t, |c| {
            c.kill_node(&address(1));
        });
        let book = Book::default();
        let end = stage.run(&book, &[]).await.unwrap();
        stage.nothing_wrong(&which);
        match reason(&end) {
            Some(StopReason::Refused) => assert!(!acted(&book).await, "{which}"),
            Some(StopReason::GateClosed | StopReason::Deadline) => {
                let back = stage.restart(1);
                back(&mut stage.world.cluster());
                stage.world.advance(Duration::from_secs(60));
                let end = stage.go_on(&book).await;
                stage.prove_done(&end, &which);
            }
            None => assert!(matches!(end, End::Done(_)), "{which}"),
            Some(other) => panic!("{which}: {other:?} {end:?}"),
        }
    }
}

#[tokio::test]
async fn someone_else_recommissions() {
    let scene = Scene::leave_one().await;
    let mut seen = 0;
    for t in (0..120).step_by(6) {
        let which = format!("recommissioned at {t} s");
        let mut stage = scene.stage();
        after(&stage, t, |c| {
            c.recommission(&address(2), &[NodeId(5)]).unwrap();
        });
        let end = stage.run(&Book::default(), &[]).await.unwrap();
        stage.nothing_wrong(&which);
        if reason(&end) == Some(StopReason::Recommissioned) {
            seen += 1;
            let cluster = stage.world.cluster();
            assert!(!is_marked(&cluster, NodeId(5)), "{which}: it was marked again");
        }
    }
    assert!(seen > 3, "{seen}");
}

/// The machine of the leaving node is given to a new node before the operation comes to its stop.
#[tokio::test]
async fn the_address_is_given_to_another_node() {
    let scene = Scene::leave_one().await;
    for (t, gap) in [(20, 1), (20, 30), (45, 2), (70, 1), (70, 12), (80, 1), (90, 1)] {
        let which = format!("killed at {t} s, another there {gap} s later");
        let mut stage = scene.stage();
        after(&stage, t, |c| {
            c.kill_node(&address(5));
        });
        let mut start = SimHost::numbered(5)
            .node_start(kwdb_scale_core::topology::StartMode::MultiReplica, vec![address(1), address(2)]);
        start.stores = vec!["n5:/data/fresh".to_owned()];
        after(&stage, t + gap, move |c| {
            c.start_node(start).unwrap();
        });
        let book = Book::default();
        let mut end = stage.run(&book, &[]).await.unwrap();
        stage.nothing_wrong(&which);
        if matches!(end, End::Stopped(_)) {
            end = stage.go_on(&book).await;
        }
        stage.nothing_wrong(&which);
        assert!(matches!(end, End::Done(_)), "{which}: {end:?}");
        let status = stage.world.cluster().membership_status(NodeId(6));
        assert_eq!(status, Some(MembershipStatus::Live), "{which}");
    }
}

/// A node that hangs listens and is held for gone: nobody can prove that the listener is the node.
#[tokio::test]
async fn the_leaving_node_hangs() {
    let scene = Scene::leave_one().await;
    let mut stage = scene.stage();
    after(&stage, 20, |c| {
        c.freeze_node(&address(5), true);
    });
    let book = Book::default();
    let end = stage.run(&book, &[]).await.unwrap();
    assert_eq!(reason(&end), Some(StopReason::GateClosed), "{end:?}");
    assert!(!stage.was_stopped(&book.all().await));
    stage.world.cluster().freeze_node(&address(5), false);
    stage.world.advance(Duration::from_secs(30));
    let end = stage.go_on(&book).await;
    stage.prove_done(&end, "thawed");
}

/// A constraint that appears after the mark leaves the drain without a place; the stop says of which ranges.
#[tokio::test]
async fn a_constraint_stalls_the_drain() {
    let world = cluster_of(4);
    let spec = TableSpec { partitions: vec!["p0".into(), "p1".into()], ..TableSpec::new("app", "parts", 2) };
    world.cluster().create_table(spec).unwrap();
    world.advance(Duration::from_secs(300));
    let scene = Scene::new(&world, scale_in(&[4]), Options::default()).await;
    let mut stage = scene.stage();
    let partition = |p: &str| ZoneTarget::Partition {
        database: "app".into(),
        table: "parts".into(),
        partition: p.into(),
    };
    let targets = ["p0", "p1"].map(partition);
    let blocked = targets.clone();
    stage.world.when(
        |c| is_marked(c, NodeId(4)),
        move |c| {
            for target in blocked {
                c.configure_zone(target, None, Some("[-region=NODE3]")).unwrap();
            }
        },
    );
    let book = Book::default();
    let end = stage.run(&book, &[]).await.unwrap();
    let End::Stopped(stopped) = &end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::Stalled, "{end:?}");
    let left = stage.world.cluster().replica_count(NodeId(4));
    assert_eq!(stopped.evidence.len() as u64, left, "{:?}", stopped.evidence);
    assert!(stopped.evidence.iter().all(|e| e.contains("app.parts")), "{:?}", stopped.evidence);
    for target in &targets {
        assert!(stage.world.cluster().discard_zone(target));
    }
    let end = stage.go_on(&book).await;
    stage.prove_done(&end, "discarded");
}

/// A stopped node that its supervisor starts again is never taken for removed; it is found out by its newer start.
#[tokio::test]
async fn the_stopped_node_comes_back() {
    let scene = Scene::leave_one().await;
    let mut stage = scene.stage();
    let down = |c: &Cluster| c.process(&address(5)).is_some_and(|p| matches!(p.phase, Phase::Exited { .. }));
    let back = stage.restart(5);
    stage.world.when(down, back);
    let book = Book::default();
    let end = stage.run(&book, &[]).await.unwrap();
    stage.nothing_wrong("came back");
    assert_eq!(reason(&end), Some(StopReason::GateClosed), "{end:?}");
    let end = stage.go_on(&book).await;
    stage.prove_done(&end, "came back once");
}
