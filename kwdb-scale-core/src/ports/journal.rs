//! Where the record of an operation is kept, and the lock that lets one operation run at a time.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

use super::PortError;
use crate::execute::JournalRecord;

/// An append-only record of one operation.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Journal: Debug + Send + Sync {
    /// Appends a record. Durable when it returns `Ok`; after an error the record may or may not be there.
    async fn append(&self, record: &JournalRecord) -> Result<(), PortError>;

    /// All records in order. A torn last record is dropped; damage before the last is an error (`Malformed`).
    async fn records(&self) -> Result<Vec<JournalRecord>, PortError>;
}

/// Lets at most one membership operation run.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait OperationLock: Debug + Send + Sync {
    /// Takes the lock for an operation described by `label`, or fails at once with `Denied` naming the holder.
    async fn acquire(&self, label: &str) -> Result<Box<dyn LockGuard>, PortError>;
}

/// A held lock; dropping it gives it back.
pub trait LockGuard: Debug + Send + Sync {
    /// Until when the lock is surely held; `None` for a lock without a lease (a file lock of this machine). An act
    /// starts only if the lease outlasts the act's deadline.
    fn held_until(&self) -> Option<Timestamp>;
}
