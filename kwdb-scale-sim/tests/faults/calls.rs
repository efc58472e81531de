//! Every call of every port fails, comes late, is done twice, or loses its answer.

use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::execute::{End, Record, StopReason};
use kwdb_scale_core::ports::PortErrorKind;
use kwdb_scale_core::rows::Rows;
use kwdb_scale_core::topology::NodeId;
use kwdb_scale_sim::memory::{Call, Edit, Fault, Which};

use crate::scene::{Book, CALLS, Scene};

pub(crate) fn faults() -> [Fault; 6] {
    [
        Fault::Fail(PortErrorKind::Unreachable),
        Fault::Fail(PortErrorKind::CommandFailed),
        Fault::LoseAnswer(PortErrorKind::ConnectionLost),
        Fault::LoseAnswer(PortErrorKind::Deadline),
        Fault::Delay(Duration::from_secs(5 * 60)),
        Fault::Twice,
    ]
}

pub(crate) async fn suffer(scene: &Scene, call: Call, which: Which, fault: Fault) {
    let what = format!("{call:?} {which:?} {fault:?}");
    let mut stage = scene.stage();
    let book = Book::default();
    let mut end = stage.run(&book, &[(call, which, fault)]).await.unwrap();
    let refused = |end: &End| matches!(end, End::Stopped(s) if s.reason == StopReason::Refused);
    if refused(&end) {
        // Only before the first act.
        stage.nothing_wrong(&what);
        let acts = book.all().await.iter().any(|r| matches!(r, Record::Intent { .. }));
        assert!(!acts, "{what}: {end:?}");
        return;
    }
    if matches!(end, End::Stopped(_)) {
        end = stage.go_on(&book).await;
    }
    stage.prove_done(&end, &what);
}

#[tokio::test]
async fn each_act_fails_once() {
    let scene = Scene::replace_with_everything().await;
    let mut clean = scene.stage();
    let end = clean.run(&Book::default(), &[]).await.unwrap();
    clean.prove_done(&end, "without faults");
    for call in CALLS
        .into_iter()
        .filter(|c| !matches!(c, Call::Fetch | Call::Inspect | Call::ClearData | Call::Recommission))
    {
        let count = clean.calls[&call];
        assert!(count > 0, "{call:?} was never called");
        for n in 1..=count {
            for fault in faults() {
                // A process started twice by the port itself is not ours to prevent.
                if (call, matches!(fault, Fault::Twice)) != (Call::Start, true) {
                    suffer(&scene, call, Which::Nth(n), fault).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn each_act_over_old_data_fails_once() {
    let scene = Scene::come_back().await;
    let mut clean = scene.stage();
    let end = clean.run(&Book::default(), &[]).await.unwrap();
    clean.prove_done(&end, "without faults");
    assert_eq!(clean.calls[&Call::ClearData], 1);
    for fault in faults() {
        suffer(&scene, Call::ClearData, Which::Nth(1), fault).await;
    }
    for n in 1..=clean.calls[&Call::Inspect] {
        suffer(&scene, Call::Inspect, Which::Nth(n), faults()[n as usize % 2].clone()).await;
    }
}

#[tokio::test]
async fn some_reads_fail() {
    let scene = Scene::replace_with_everything().await;
    let mut clean = scene.stage();
    clean.run(&Book::default(), &[]).await.unwrap();
    for call in [Call::Fetch, Call::Inspect] {
        let count = clean.calls[&call];
        let step = (count / 7).max(1) as usize;
        for (i, n) in (1..=count).step_by(step).enumerate() {
            let fault = faults()[i % 5].clone();
            suffer(&scene, call, Which::Nth(n), fault).await;
            let fault = faults()[(i + 2) % 5].clone();
            suffer(&scene, call, Which::Nth(n), fault).await;
        }
    }
}

/// From some call on nothing answers any more: the operation stops by itself, and goes on when all is well again.
#[tokio::test]
async fn silence_ends_in_a_stop() {
    let scene = Scene::replace_with_everything().await;
    let mut clean = scene.stage();
    clean.run(&Book::default(), &[]).await.unwrap();
    for call in CALLS.into_iter().filter(|c| *c != Call::Recommission) {
        let count = clean.calls[&call];
        let step = (count / 5).max(1) as usize;
        for (i, n) in (1..=count).step_by(step).enumerate() {
            let kind = [PortErrorKind::Unreachable, PortErrorKind::Denied][i % 2];
            suffer(&scene, call, Which::From(n), Fault::Fail(kind)).await;
        }
    }
}

/// A port that never answers is left at the act's deadline.
#[tokio::test]
async fn a_stop_that_hangs_is_left() {
    let scene = Scene::leave_one().await;
    let mut stage = scene.stage();
    stage.stop_hangs = true;
    let book = Book::default();
    let end = stage.run(&book, &[]).await.unwrap();
    assert!(matches!(end, End::Stopped(_)), "{end:?}");
    stage.stop_hangs = false;
    let end = stage.go_on(&book).await;
    stage.prove_done(&end, "answers again");
}

/// Gossip that lacks a member makes the member count, and what ranges need, too low: nothing is stopped on it.
#[tokio::test]
async fn gossip_that_lacks_a_member() {
    let scene = Scene::leave_one().await;
    let mut stage = scene.stage();
    let lacking: Edit = Arc::new(|_, answer| {
        if let Rows::Liveness(rows) = &mut answer.rows
            && rows.iter().any(|r| r.decommissioning == Some(true))
        {
            rows.retain(|r| r.node_id != NodeId(3));
        }
    });
    let book = Book::default();
    let end = stage.run(&book, &[(Call::Fetch, Which::All, Fault::Falsify(lacking))]).await.unwrap();
    let End::Stopped(stopped) = &end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::GateClosed);
    assert!(stopped.message.contains("node 3 is missing"), "{stopped:?}");
    assert!(!stage.was_stopped(&book.all().await));
    let end = stage.go_on(&book).await;
    stage.prove_done(&end, "complete again");
}
