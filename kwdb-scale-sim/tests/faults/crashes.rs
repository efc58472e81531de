//! A crash before and after every record, then a resume.

use std::time::Duration;

use kwdb_scale_core::execute::{Cancel, End, StopReason};

use crate::scene::{Book, Crash, Moment, Scene};

pub(crate) async fn crash_everywhere(scene: Scene) {
    let mut stage = scene.stage();
    let book = Book::default();
    let end = stage.run(&book, &[]).await.unwrap();
    stage.prove_done(&end, "without a crash");
    let records = book.all().await.len();
    assert!(records > 5, "{records}");
    for n in 1..=records {
        for how in [Crash::Before, Crash::After] {
            let which = format!("crash {how:?} record {n} of {records}");
            let mut stage = scene.stage();
            let book = Book::crashing(n, how);
            match stage.run(&book, &[]).await {
                Ok(End::Stopped(stopped)) => assert_eq!(stopped.reason, StopReason::Journal, "{which}"),
                Ok(end) => panic!("{which}: {end:?}"),
                Err(_) => assert_eq!(n, 1, "{which}"),
            }
            if how == Crash::After {
                stage.world.advance(Duration::from_secs(400));
            }
            let end = stage.go_on(&book).await;
            stage.prove_done(&end, &which);
        }
    }
}

#[tokio::test]
async fn scale_out() {
    crash_everywhere(Scene::out().await).await;
}

#[tokio::test]
async fn scale_out_over_old_data() {
    crash_everywhere(Scene::come_back().await).await;
}

#[tokio::test]
async fn scale_in_of_one() {
    crash_everywhere(Scene::leave_one().await).await;
}

#[tokio::test]
async fn scale_in_of_two() {
    crash_everywhere(Scene::leave_two().await).await;
}

#[tokio::test]
async fn replace_with_setting_and_drain() {
    crash_everywhere(Scene::replace_with_everything().await).await;
}

#[tokio::test]
async fn scale_in_left_drained() {
    crash_everywhere(Scene::leave_drained().await).await;
}

/// An undo that crashes goes on undoing, wherever it crashes.
#[tokio::test]
async fn undo() {
    let scene = Scene::replace_with_everything().await;
    let cancel = [(Moment::Record(11), Cancel::Undo)];
    let mut stage = scene.stage();
    let book = Book::cancelling(&cancel);
    let end = stage.run(&book, &[]).await.unwrap();
    stage.prove_undone(&end, "without a crash");
    let records = book.all().await.len();
    assert!(records > 14, "{:#?}", book.all().await);
    for n in 12..=records {
        for how in [Crash::Before, Crash::After] {
            let which = format!("crash {how:?} record {n} of {records}");
            let mut stage = scene.stage();
            let book = Book::cancelling(&cancel).and_crashing(n, how);
            let end = stage.run(&book, &[]).await.unwrap();
            let End::Stopped(stopped) = end else { panic!("{which}: {end:?}") };
            assert_eq!(stopped.reason, StopReason::Journal, "{which}");
            let end = stage.go_on(&book).await;
            if (n, how) == (12, Crash::Before) {
                // The wish to undo was lost with the crash.
                stage.prove_done(&end, &which);
            } else {
                stage.prove_undone(&end, &which);
            }
        }
    }
}
