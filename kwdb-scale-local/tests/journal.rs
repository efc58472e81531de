//! The file journal and the file lock, and what a crash leaves of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kwdb_scale_core::execute::journal::{JournalRecord, SCHEMA};
use kwdb_scale_core::ports::{Journal, OperationLock, PortErrorKind};
use kwdb_scale_local::{FileJournal, FileLock};

fn record(seq: u64) -> JournalRecord {
    let record = kwdb_scale_core::execute::Record::StepDone {
        step: 0,
        note: format!("record {seq}: ä → 数据库"),
    };
    JournalRecord { seq, at: "2025-01-02T03:04:05Z".parse().unwrap(), record }
}

async fn written(path: &Path, records: u64) -> Vec<JournalRecord> {
    let journal = FileJournal::create_at(path).await.unwrap();
    for seq in 1..=records {
        journal.append(&record(seq)).await.unwrap();
    }
    journal.records().await.unwrap()
}

#[tokio::test]
async fn records_come_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/on the way");
    let journal = FileJournal::create(&dir, "scale-in/4").await.unwrap();
    journal.append(&record(1)).await.unwrap();
    journal.append(&record(2)).await.unwrap();
    let path = journal.path().to_owned();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with("Z-scale-in-4.jsonl"), "{name}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(journal);

    let journal = FileJournal::open(&path).await.unwrap();
    assert_eq!(journal.records().await.unwrap(), [record(1), record(2)]);
    journal.append(&record(3)).await.unwrap();
    assert_eq!(journal.records().await.unwrap(), [record(1), record(2), record(3)]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn the_latest_is_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(FileJournal::latest(dir.path().join("absent")).await.unwrap(), None);
    assert_eq!(FileJournal::latest(dir.path()).await.unwrap(), None);
    fs::write(dir.path().join("operation.lock"), "").unwrap();
    fs::write(dir.path().join("20200102T030405.678Z-b.jsonl"), "").unwrap();
    let new = FileJournal::create(dir.path(), "a").await.unwrap();
    let all = FileJournal::list(dir.path()).await.unwrap();
    assert_eq!(all, [dir.path().join("20200102T030405.678Z-b.jsonl"), new.path().to_owned()]);
    assert_eq!(FileJournal::latest(dir.path()).await.unwrap().as_deref(), Some(new.path()));
}

#[tokio::test]
async fn a_journal_is_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j.jsonl");
    let before = written(&path, 2).await;
    let error = FileJournal::create_at(&path).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Config);
    assert!(error.to_string().contains("resume"), "{error}");
    assert_eq!(FileJournal::open(&path).await.unwrap().records().await.unwrap(), before);
    let absent = FileJournal::open(dir.path().join("absent.jsonl")).await.unwrap_err();
    assert_eq!(absent.kind(), PortErrorKind::NotFound);
}

#[tokio::test]
async fn a_crash_at_any_byte_loses_the_torn_record_only() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.jsonl");
    let records = written(&whole, 3).await;
    let bytes = fs::read(&whole).unwrap();
    let torn = dir.path().join("torn.jsonl");
    for length in 0..=bytes.len() {
        fs::write(&torn, &bytes[..length]).unwrap();
        let survivors = bytes[..length].iter().filter(|b| **b == b'\n').count();
        let journal = FileJournal::open(&torn).await.unwrap();
        assert_eq!(journal.records().await.unwrap(), records[..survivors], "cut at byte {length}");
        assert_eq!(fs::read(&torn).unwrap().len(), length, "opening changes nothing");
        let next = survivors as u64 + 1;
        journal.append(&record(next)).await.unwrap();
        let mut expected = records[..survivors].to_vec();
        expected.push(record(next));
        let reopened = FileJournal::open(&torn).await.unwrap().records().await.unwrap();
        assert_eq!(reopened, expected, "cut at byte {length}");
    }
}

#[tokio::test]
async fn damage_before_the_end_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j.jsonl");
    written(&path, 3).await;
    let good = fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = good.split_inclusive(|b| *b == b'\n').collect();
    let flipped = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    let second = lines[0].len() + lines[1].len() / 2;
    for (what, bad) in [
        ("a byte changed", flipped(second, b'!')),
        ("not UTF-8", flipped(second, 0xff)),
        ("a line missing", [lines[0], lines[2]].concat()),
        ("a line twice", [lines[0], lines[0]].concat()),
        ("a line torn in the middle", [lines[0], &lines[1][..20], b"\n", lines[2]].concat()),
        ("not UTF-8, and a torn end", [&flipped(second, 0xff), &b"{\"seq"[..]].concat()),
    ] {
        fs::write(&path, bad).unwrap();
        let error = FileJournal::open(&path).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Malformed, "{what}: {}", error.chain());
        assert!(
            error.to_string().contains("j.jsonl") && error.to_string().contains("line 2"),
            "{what}: {error}"
        );
    }
    let newer = String::from_utf8(good.clone()).unwrap().replace(SCHEMA, "kwdb-scale.journal/v2");
    fs::write(&path, newer).unwrap();
    assert_eq!(FileJournal::open(&path).await.unwrap_err().kind(), PortErrorKind::Unsupported);
}

#[tokio::test]
async fn a_number_out_of_turn_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = FileJournal::create(dir.path(), "x").await.unwrap();
    for seq in [0, 2] {
        assert_eq!(journal.append(&record(seq)).await.unwrap_err().kind(), PortErrorKind::Config);
    }
    journal.append(&record(1)).await.unwrap();
    assert_eq!(journal.append(&record(1)).await.unwrap_err().kind(), PortErrorKind::Config);
    assert_eq!(journal.records().await.unwrap(), [record(1)]);
}

#[tokio::test]
async fn a_journal_that_changed_under_us_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j.jsonl");
    let first = FileJournal::create_at(&path).await.unwrap();
    let second = FileJournal::open(&path).await.unwrap();
    first.append(&record(1)).await.unwrap();
    // The other writer would write record 1 again.
    assert_eq!(second.append(&record(1)).await.unwrap_err().kind(), PortErrorKind::Malformed);
    let again = second.append(&record(1)).await.unwrap_err();
    assert!(again.to_string().contains("open it again"), "{again}");
    first.append(&record(2)).await.unwrap();
    assert_eq!(first.records().await.unwrap(), [record(1), record(2)]);
    fs::remove_file(&path).unwrap();
    assert_eq!(first.append(&record(3)).await.unwrap_err().kind(), PortErrorKind::Malformed);
}

#[tokio::test]
async fn the_second_holder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let lock = FileLock::in_dir(dir.path().join("made"));
    let held = lock.acquire("scale-in of n4\nand n5").await.unwrap();
    assert_eq!(held.held_until(), None);
    let error = lock.acquire("scale-out").await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Denied);
    let expected = format!("held by scale-in of n4 and n5 (process {})", std::process::id());
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(error.to_string().contains(lock.path().to_str().unwrap()), "{error}");
    drop(held);
    let held = lock.acquire("short").await.unwrap();
    let error = FileLock::at(lock.path()).acquire("third").await.unwrap_err();
    assert!(error.to_string().contains("held by short (process"), "{error}");
    drop(held);
    assert_eq!(fs::read(lock.path()).unwrap(), b"", "nobody is named when nobody holds it");
}
