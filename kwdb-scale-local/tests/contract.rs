//! The contracts of a host transport, a journal, a lock and a clock, on this machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;

use kwdb_scale_core::ports::OperationLock;
use kwdb_scale_core::topology::HostName;
use kwdb_scale_local::{FileJournal, FileLock, LocalTransport, SystemClock};
use kwdb_scale_sim::contract::{self, TransportFixture};
use kwdb_scale_sim::transport_contract;

fn fixture() -> TransportFixture {
    let scratch = tempfile::tempdir().unwrap();
    let host = HostName::from("n1");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().to_string();
    TransportFixture {
        transport: Box::new(LocalTransport::new([host.clone(), "n2".into()])),
        host,
        scratch: scratch.path().to_str().unwrap().to_owned(),
        says: ["printf", "%s", "four"].map(str::to_owned).into(),
        fails: ["sh", "-c", "exit 3"].map(str::to_owned).into(),
        open_and_closed: (open.into(), "127.0.0.1:1".into()),
        keep: Box::new((scratch, listener)),
    }
}

transport_contract!(posix, fixture());

#[tokio::test]
async fn journal() {
    let dir = tempfile::tempdir().unwrap();
    let first = FileJournal::create(dir.path(), "contract").await.unwrap();
    contract::journal(&first).await;
    let path = first.path().to_owned();
    drop(first);
    contract::journal_reopened(&FileJournal::open(path).await.unwrap()).await;
}

#[tokio::test]
async fn lock() {
    let dir = tempfile::tempdir().unwrap();
    // Two handles, as two programs have.
    let [first, second] = [FileLock::in_dir(dir.path()), FileLock::in_dir(dir.path())];
    contract::operation_lock(&first, &second).await;
    drop(second.acquire("the next").await.unwrap());
}

#[tokio::test]
async fn clock() {
    contract::clock(&SystemClock::new()).await;
}
