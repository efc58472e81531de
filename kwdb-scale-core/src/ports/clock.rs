//! Time, so that core names no runtime's.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

/// The caller's time. Deadlines of the executor are on this clock; freshness of facts is judged by the server's
/// clock, which every answer carries.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Clock: Debug + Send + Sync {
    /// The present. Must never step back: an implementation anchors wall time once and adds monotonic time.
    fn now(&self) -> Timestamp;

    /// Returns at `until` or later, at once when that is past. Dropping the future has no effect.
    async fn sleep_until(&self, until: Timestamp);
}
