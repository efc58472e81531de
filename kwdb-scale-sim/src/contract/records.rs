//! The contracts of a `Journal` and of an `OperationLock`.

use jiff::Timestamp;
use kwdb_scale_core::execute::{JournalRecord, Record};
use kwdb_scale_core::ports::{Journal, OperationLock, PortErrorKind};

use super::wait::{fails, must};

fn record(seq: u64) -> JournalRecord {
    let note = format!("record {seq}\nwith \"every\" kind of \u{1b}[1m text\\ 数据库 \u{0}");
    let at = Timestamp::UNIX_EPOCH + std::time::Duration::from_nanos(1_795_438_474_000_000_001 + seq);
    JournalRecord { seq, at, record: Record::StepDone { step: seq as usize, note } }
}

/// An empty journal takes records 1 to 5 and gives them back in order, at every moment.
///
/// # Panics
/// When it does otherwise.
pub async fn journal(journal: &dyn Journal) {
    let found = must("reading a new journal", journal.records().await);
    assert!(found.is_empty(), "a new journal holds nothing, and held {found:?}");
    extend(journal, 1..=5).await;
}

/// The same journal, opened anew after [`journal`](fn@journal) as an operation that is resumed opens it: it holds
/// records 1 to 5, and takes 6 to 8.
///
/// # Panics
/// When it does otherwise.
pub async fn journal_reopened(journal: &dyn Journal) {
    extend(journal, 6..=8).await;
}

async fn extend(journal: &dyn Journal, seqs: std::ops::RangeInclusive<u64>) {
    let before: Vec<_> = (1..*seqs.start()).map(record).collect();
    assert_eq!(must("reading the journal", journal.records().await), before, "what was appended before");
    for seq in seqs {
        must(&format!("appending record {seq}"), journal.append(&record(seq)).await);
        let expected: Vec<_> = (1..=seq).map(record).collect();
        let found = must("reading the journal", journal.records().await);
        assert_eq!(found, expected, "every record that was appended, in order");
    }
}

/// One holder at a time, whoever asks; refused at once with the holder's label; given back by dropping.
///
/// `first` and `second` are two handles on one lock that is free, such as two processes would have.
///
/// # Panics
/// When it does otherwise.
pub async fn operation_lock(first: &dyn OperationLock, second: &dyn OperationLock) {
    for round in 0..2 {
        let label = format!("scale-in of n{round}");
        let held = must("taking a free lock", first.acquire(&label).await);
        if let Some(until) = held.held_until() {
            assert!(until > Timestamp::UNIX_EPOCH, "a lease ends some day: {until}");
        }
        for (who, handle) in [("another handle", second), ("the same handle", first)] {
            let error = fails(&format!("a second lock by {who}"), handle.acquire("somebody else").await);
            assert_eq!(error.kind(), PortErrorKind::Denied, "{error}");
            assert!(error.to_string().contains(&label), "it names the holder '{label}': {error}");
        }
        drop(held);
        let theirs = must("taking a lock that was given back", second.acquire("two\nlines").await);
        let error = fails("a lock held by the other handle", first.acquire("mine again").await);
        assert_eq!(error.kind(), PortErrorKind::Denied, "{error}");
        drop(theirs);
    }
}
