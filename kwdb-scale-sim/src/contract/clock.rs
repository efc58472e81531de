//! The contract of a `Clock`.

use jiff::SignedDuration;
use kwdb_scale_core::ports::Clock;

/// Time never steps back; a sleep ends at its time or later, at once when that is past; giving one up does nothing.
///
/// # Panics
/// When the clock does otherwise.
pub async fn clock(clock: &dyn Clock) {
    let mut last = clock.now();
    for _ in 0..1000 {
        let now = clock.now();
        assert!(now >= last, "the clock stepped back from {last} to {now}");
        last = now;
    }
    for past in [SignedDuration::ZERO, SignedDuration::from_secs(3600)] {
        let before = clock.now();
        clock.sleep_until(before - past).await;
        let took = clock.now().duration_since(before);
        assert!(took < SignedDuration::from_secs(10), "a time that is past was waited for: {took}");
    }
    for ahead in [1, 40] {
        let until = clock.now() + SignedDuration::from_millis(ahead);
        clock.sleep_until(until).await;
        let now = clock.now();
        assert!(now >= until, "a sleep until {until} ended at {now}");
    }
    // Never polled, so that a virtual clock does not run ahead either.
    drop(clock.sleep_until(clock.now() + SignedDuration::from_hours(1000)));
    assert!(clock.now() < last + SignedDuration::from_hours(1), "a sleep that was given up moved the clock");
}
