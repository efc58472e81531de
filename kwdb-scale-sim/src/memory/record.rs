//! A journal and a lock in memory.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use kwdb_scale_core::execute::JournalRecord;
use kwdb_scale_core::ports::{Journal, LockGuard, OperationLock, PortError, PortErrorKind};

/// A journal that its clones share: a clone is what a resumed operation finds.
#[derive(Clone, Debug, Default)]
pub struct MemJournal(Arc<Mutex<Vec<JournalRecord>>>);

impl MemJournal {
    /// A copy with the first `n` records only: what a crash after the n-th leaves.
    pub fn cut(&self, n: usize) -> Self {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self(Arc::new(Mutex::new(records.iter().take(n).cloned().collect())))
    }
}

#[async_trait]
impl Journal for MemJournal {
    async fn append(&self, record: &JournalRecord) -> Result<(), PortError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
        Ok(())
    }

    async fn records(&self) -> Result<Vec<JournalRecord>, PortError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A lock that its clones share.
#[derive(Clone, Debug, Default)]
pub struct MemLock(Arc<Mutex<Option<String>>>);

#[derive(Debug)]
struct Guard(MemLock);

#[async_trait]
impl OperationLock for MemLock {
    async fn acquire(&self, label: &str) -> Result<Box<dyn LockGuard>, PortError> {
        let mut holder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = holder.as_ref() {
            let text = format!("the lock is held by: {holder}");
            return Err(PortError::new(PortErrorKind::Denied, text));
        }
        // The label stands in errors, which are one line.
        *holder = Some(label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
        Ok(Box::new(Guard(self.clone())))
    }
}

impl LockGuard for Guard {
    fn held_until(&self) -> Option<Timestamp> {
        None
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
