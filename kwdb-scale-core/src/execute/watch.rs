//! Samples that must agree, and the progress of a drain.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

/// Agreeing samples, spaced by the server's clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples {
    count: u32,
    last: Option<Timestamp>,
}

impl Samples {
    /// Takes a sample in, unless it is too close to the one before; returns how many agree so far.
    pub(super) fn add(&mut self, server_time: Timestamp, spacing: SignedDuration) -> u32 {
        let far_enough = self.last.is_none_or(|last| server_time.duration_since(last) >= spacing);
        if far_enough {
            self.count += 1;
            self.last = Some(server_time);
        }
        self.count
    }

    /// Forgets: a sample did not agree.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// How far back the rate of a drain is taken.
const RATE_WINDOW: SignedDuration = SignedDuration::from_mins(1);

/// Over so long it is told whether moving has become slow.
const FADING_WINDOW: SignedDuration = SignedDuration::from_secs(10);

/// So few replicas are the last of a drain, which the servers' scanner comes to late.
pub(super) const LAST: u64 = 32;

/// Replicas left over time, and when they are counted next.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DrainWatch {
    first: Option<u64>,
    lowest: Option<(u64, Timestamp)>,
    history: VecDeque<(Timestamp, u64)>,
    /// The most replicas a minute over any [`FADING_WINDOW`] so far.
    best: f64,
    next_scan: Option<Timestamp>,
}

impl DrainWatch {
    /// Whether the meta ranges may be scanned again.
    pub(super) fn scan_due(&self, at: Timestamp) -> bool {
        self.next_scan.is_none_or(|next| next <= at)
    }

    /// The next scan is due after `pause`.
    pub(super) fn scanned(&mut self, at: Timestamp, pause: SignedDuration) {
        self.next_scan = at.checked_add(pause).ok();
    }

    /// Takes a count in. A count that rose (a move was undone) does not reset the stall clock.
    pub(super) fn counted(&mut self, at: Timestamp, left: u64) {
        self.first.get_or_insert(left);
        if self.lowest.is_none_or(|(lowest, _)| left < lowest) {
            self.lowest = Some((left, at));
        }
        self.history.push_back((at, left));
        while self.history.front().is_some_and(|(t, _)| at.duration_since(*t) > RATE_WINDOW) {
            self.history.pop_front();
        }
        self.best = self.best.max(self.lately(at).unwrap_or(0.0));
    }

    /// Replicas a minute over the last [`FADING_WINDOW`]; `None` before so much was seen.
    fn lately(&self, at: Timestamp) -> Option<f64> {
        let (t0, n0) = self.history.iter().rev().find(|(t, _)| at.duration_since(*t) >= FADING_WINDOW)?;
        let (t1, n1) = self.history.back()?;
        #[allow(clippy::cast_precision_loss)]
        let moved = n0.saturating_sub(*n1) as f64;
        let minutes = t1.duration_since(*t0).as_secs_f64() / 60.0;
        (minutes > 0.0).then(|| moved / minutes)
    }

    /// Whether moving has fallen to less than half of what it was, or nothing moves.
    pub(super) fn is_fading(&self, at: Timestamp) -> bool {
        self.lately(at).is_some_and(|lately| match self.best > 0.0 {
            true => lately < self.best / 2.0,
            // The mark has to reach the stores first.
            false => self.idle(at) >= FADING_WINDOW * 2,
        })
    }

    /// Whether it is worth looking more often: few are left, or at the pace of the last two counts all are gone within
    /// two more of `pause`.
    pub(super) fn ends_soon(&self, pause: SignedDuration) -> bool {
        let mut counts = self.history.iter().rev();
        let Some((t1, left)) = counts.next() else { return false };
        let soon = counts.next().is_some_and(|(t0, before)| {
            #[allow(clippy::cast_precision_loss)]
            let moved = before.saturating_sub(*left) as f64;
            #[allow(clippy::cast_precision_loss)]
            let left = *left as f64;
            moved * pause.as_secs_f64() * 2.0 >= left * t1.duration_since(*t0).as_secs_f64()
        });
        *left <= LAST || soon
    }

    /// Replicas left at the last count; as good as infinite before the first.
    pub(super) fn left(&self) -> u64 {
        self.history.back().map_or(u64::MAX, |(_, left)| *left)
    }

    /// Replicas there were at the first count.
    pub(super) fn of(&self) -> u64 {
        self.first.unwrap_or(0)
    }

    /// For how long nothing moved.
    pub(super) fn idle(&self, at: Timestamp) -> SignedDuration {
        self.lowest.map_or(SignedDuration::ZERO, |(_, since)| at.duration_since(since))
    }

    /// Replicas moved per minute lately, and an estimate of the time left.
    pub(super) fn pace(&self) -> (f64, Option<SignedDuration>) {
        let (Some((t0, n0)), Some((t1, n1))) = (self.history.front(), self.history.back()) else {
            return (0.0, None);
        };
        let minutes = t1.duration_since(*t0).as_secs_f64() / 60.0;
        let moved = n0.saturating_sub(*n1);
        if moved == 0 || minutes <= 0.0 {
            return (0.0, None);
        }
        #[allow(clippy::cast_precision_loss)]
        let rate = moved as f64 / minutes;
        #[allow(clippy::cast_precision_loss)]
        let left = SignedDuration::try_from_secs_f64(*n1 as f64 / rate * 60.0).ok();
        (rate, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn samples_are_spaced_by_the_servers_clock() {
        let mut s = Samples::default();
        assert_eq!(s.add(t(0), SignedDuration::from_secs(5)), 1);
        assert_eq!(s.add(t(4), SignedDuration::from_secs(5)), 1);
        assert_eq!(s.add(t(5), SignedDuration::from_secs(5)), 2);
        s.reset();
        assert_eq!(s.add(t(6), SignedDuration::from_secs(5)), 1);
    }

    #[test]
    fn a_rising_count_is_no_progress() {
        let mut d = DrainWatch::default();
        d.counted(t(0), 10);
        d.counted(t(20), 12);
        d.counted(t(40), 10);
        assert_eq!(d.idle(t(40)), SignedDuration::from_secs(40));
        d.counted(t(60), 5);
        assert_eq!(d.idle(t(60)), SignedDuration::ZERO);
        let (rate, eta) = d.pace();
        assert!((rate - 5.0).abs() < 0.01, "{rate}");
        assert_eq!(eta.unwrap().as_secs(), 60);
    }

    #[test]
    fn a_drain_fades_when_it_has_lost_half_its_pace() {
        let mut d = DrainWatch::default();
        let mut left = 100;
        for second in 0..30 {
            d.counted(t(second), left);
            assert!(!d.is_fading(t(second)), "at {second} s");
            left -= 2;
        }
        let last = (30..45).find(|second| {
            d.counted(t(*second), left);
            d.is_fading(t(*second))
        });
        assert_eq!(last, Some(36));
        let mut stuck = DrainWatch::default();
        let first = (0..60).find(|second| {
            stuck.counted(t(*second), 5);
            stuck.is_fading(t(*second))
        });
        assert_eq!(first, Some(20));
    }

    #[test]
    fn the_end_is_foreseen() {
        let pause = SignedDuration::from_secs(2);
        let mut d = DrainWatch::default();
        assert!(!d.ends_soon(pause), "nothing was counted");
        d.counted(t(0), 300);
        assert!(!d.ends_soon(pause));
        d.counted(t(2), 260);
        assert!(!d.ends_soon(pause), "twenty a second: thirteen seconds");
        d.counted(t(4), 80);
        assert!(d.ends_soon(pause), "ninety a second");
        d.counted(t(6), 80);
        assert!(!d.ends_soon(pause), "it came to a halt");
        d.counted(t(8), LAST);
        assert!(d.ends_soon(pause), "the last ones");
    }

    #[test]
    fn scans_are_spaced() {
        let mut d = DrainWatch::default();
        assert!(d.scan_due(t(0)));
        d.scanned(t(0), SignedDuration::from_secs(9));
        assert!(!d.scan_due(t(8)) && d.scan_due(t(9)));
    }
}
