//! The time of this machine.

use jiff::{SignedDuration, Timestamp};
use kwdb_scale_core::ports::{Clock, async_trait};
use tokio::time::{Duration, Instant, sleep};

/// A sleep is never longer than this before the clock is looked at again.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The wall clock, read once when it is made, and monotonic time from then on: it never steps, neither back nor
/// forth, whatever is done to the wall clock later. Time during which the machine is suspended does not count.
///
/// Monotonic time is tokio's, so that a test under `tokio::time::pause` moves it.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    wall: Timestamp,
    anchor: Instant,
}

impl SystemClock {
    /// A clock anchored now. Clones share the anchor.
    pub fn new() -> Self {
        Self { wall: Timestamp::now(), anchor: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SignedDuration::try_from(self.anchor.elapsed())
            .ok()
            .and_then(|passed| self.wall.checked_add(passed).ok())
            .unwrap_or(Timestamp::MAX)
    }

    async fn sleep_until(&self, until: Timestamp) {
        loop {
            let left = until.duration_since(self.now());
            match Duration::try_from(left) {
                Ok(left) if !left.is_zero() => sleep(left.min(LONGEST_SLEEP)).await,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sleeps_until_and_no_less() {
        let clock = SystemClock::new();
        let start = clock.now();
        let until = start + SignedDuration::from_hours(5) + SignedDuration::from_micros(1);
        clock.sleep_until(until).await;
        assert!(clock.now() >= until);
        assert!(clock.now() < until + SignedDuration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_past_is_no_wait() {
        let clock = SystemClock::new();
        let start = clock.now();
        clock.sleep_until(start - SignedDuration::from_hours(1)).await;
        clock.sleep_until(start).await;
        assert_eq!(clock.now(), start);
    }

    #[test]
    fn starts_at_the_wall_clock() {
        let before = Timestamp::now();
        let now = SystemClock::new().now();
        assert!(now >= before && now < before + SignedDuration::from_secs(60));
    }
}
