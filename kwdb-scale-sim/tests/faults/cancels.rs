//! The caller gives up at every record and at many sleeps.

use std::time::Duration;

use kwdb_scale_core::execute::{Cancel, End, StopReason};
use kwdb_scale_sim::memory::SimHost;
use kwdb_scale_sim::model::MembershipStatus;

use crate::scene::{Book, Moment, Scene};

async fn moments(scene: &Scene) -> Vec<Moment> {
    let book = Book::default();
    let end = scene.stage().run(&book, &[]).await.unwrap();
    assert!(matches!(end, End::Done(_)), "{end:?}");
    let records = book.all().await.len();
    let step = (book.sleeps() / 8).max(1);
    // With the last two, the end of the last step and the end, there is nothing left to give up.
    let records = (2..records - 1).map(Moment::Record);
    records.chain((1..=book.sleeps()).step_by(step).map(Moment::Sleep)).collect()
}

pub(crate) async fn give_up_everywhere(scene: Scene) {
    for moment in moments(&scene).await {
        let which = format!("leave at {moment:?}");
        let mut stage = scene.stage();
        let book = Book::cancelling(&[(moment, Cancel::Leave)]);
        match stage.run(&book, &[]).await.unwrap() {
            End::Stopped(stopped) => {
                assert_eq!(stopped.reason, StopReason::Cancelled, "{which}");
                assert!(stopped.next.iter().any(|n| n.starts_with("resume")), "{which}: {stopped:?}");
                let left: Vec<String> = stopped.next;
                let recommission = left.iter().any(|n| n.starts_with("recommission"));
                let ledger = book.all().await;
                let marked = ledger.iter().any(|r| format!("{r:?}").contains("act: Mark"));
                let stopping = stage.was_stopped(&ledger);
                assert!(recommission == marked || stopping, "{which}: {left:?}");
            }
            end => panic!("{which}: {end:?}"),
        }
        let end = stage.go_on(&book).await;
        stage.prove_done(&end, &which);

        let which = format!("undo at {moment:?}");
        let mut stage = scene.stage();
        let book = Book::cancelling(&[(moment, Cancel::Undo)]);
        let mut end = stage.run(&book, &[]).await.unwrap();
        if let End::Stopped(stopped) = &end
            && stopped.message.contains("drained")
        {
            // Only a restart takes a drain back.
            assert!(!stage.was_stopped(&book.all().await), "{which}: {stopped:?}");
            let address = SimHost::numbered(4).address;
            stage.world.cluster().stop_node(&address);
            stage.world.advance(Duration::from_secs(20));
            stage.restart(4)(&mut stage.world.cluster());
            stage.world.advance(Duration::from_secs(20));
            end = stage.go_on(&book).await;
        }
        if stage.was_stopped(&book.all().await) {
            // What went stays out, what did not is a member again; either way the operation has ended.
            let End::Undone(notes) = &end else { panic!("{which}: {end:?}") };
            stage.nothing_wrong(&which);
            let cluster = stage.world.cluster();
            for leaving in &stage.plan.leaving {
                let status = cluster.membership_status(leaving.node);
                let told = notes.iter().any(|n| n.contains("was told to stop already"));
                assert!(status == Some(MembershipStatus::Live) || told, "{which}: {status:?}, {notes:?}");
            }
        } else {
            stage.prove_undone(&end, &which);
        }
    }
}

#[tokio::test]
async fn scale_in_of_two() {
    give_up_everywhere(Scene::leave_two().await).await;
}

#[tokio::test]
async fn replace() {
    give_up_everywhere(Scene::replace_with_everything().await).await;
}

/// Ctrl-C during an undo stops it, and a resume finishes it.
#[tokio::test]
async fn an_undo_can_be_left() {
    let scene = Scene::leave_one().await;
    let mut stage = scene.stage();
    let book = Book::cancelling(&[(Moment::Sleep(12), Cancel::Undo), (Moment::Record(6), Cancel::Leave)]);
    let end = stage.run(&book, &[]).await.unwrap();
    assert!(matches!(end, End::Stopped(_) | End::Undone(_)), "{end:?}");
    let end = stage.go_on(&book).await;
    stage.prove_undone(&end, "undo, left, resumed");
}
