//! Help for a caller's own DDL while a cluster is scaled.
//!
//! KWDB's page warns that DDL on time-series indexes (`CREATE INDEX`, `DROP INDEX`) may return timeout errors
//! during scaling and is to be repeated afterwards. In releases up to V3.0.0 the texts are those of
//! `checkReplica()`; later ones no longer wait there, and the page still warns.

use std::time::Duration;

/// What to do about a statement that failed while the cluster was being scaled.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DdlVerdict {
    /// Repeat it when the operation is over.
    RetryAfterScaling,
    /// Repeat it soon, if need be on another node. After a lost connection look first whether it was done.
    Transient,
    /// Repeating does not help.
    Permanent,
}

/// Judges an error of a DDL statement by its SQLSTATE (when there was one) and its message.
pub fn classify(sqlstate: Option<&str>, message: &str) -> DdlVerdict {
    let text = message.to_lowercase();
    let has = |needles: &[&str]| needles.iter().any(|n| text.contains(n));
    let code = sqlstate.unwrap_or_default();
    let waits_for_scaling = has(&[
        "checkreplica()",
        "adminreplicavoterstatusconsistent",
        "when node is decommissioning",
        "when node unhealthy or dead",
    ]);
    let timed_out = has(&["timeout", "timed out", "deadline exceeded"]);
    if waits_for_scaling || timed_out || code == "57014" {
        return DdlVerdict::RetryAfterScaling;
    }
    // Retry errors (40), connections (08), resources (53), shutdown (57P); and what a closed socket says itself.
    let passing = ["40", "08", "53", "57P"].iter().any(|class| code.starts_with(class));
    let socket = has(&[
        "connection reset",
        "connection refused",
        "broken pipe",
        "unexpected eof",
        "connection closed",
        "server is shutting down",
        "not accepting clients",
        "node unavailable; try another peer",
        "replica removed",
        "restart transaction",
    ]);
    if passing || socket { DdlVerdict::Transient } else { DdlVerdict::Permanent }
}

/// Pauses between tries: each double the one before, up to a bound, a bounded number of them, always the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    left: u32,
}

impl Backoff {
    /// `tries` pauses that begin with `first` and never pass `longest`.
    pub fn new(first: Duration, longest: Duration, tries: u32) -> Self {
        Self { next: first.min(longest), longest, left: tries }
    }
}

impl Default for Backoff {
    /// 1 s, 2 s, 4 s … up to 60 s, 12 pauses: about seven minutes in all.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60), 12)
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        Some(pause)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let old = "checkReplica() have tried 30 times, timed out of AdminReplicaVoterStatusConsistent";
        assert_eq!(classify(Some("XXUUU"), old), DdlVerdict::RetryAfterScaling);
        assert_eq!(classify(None, "checkReplica() failed to connect to n4"), DdlVerdict::RetryAfterScaling);
        assert_eq!(classify(Some("57014"), "query execution canceled"), DdlVerdict::RetryAfterScaling);
        assert_eq!(classify(Some("57P01"), "server is shutting down"), DdlVerdict::Transient);
        assert_eq!(classify(Some("40001"), "restart transaction"), DdlVerdict::Transient);
        assert_eq!(classify(None, "connection reset by peer"), DdlVerdict::Transient);
        assert_eq!(classify(Some("42P07"), "index i already exists"), DdlVerdict::Permanent);
        assert_eq!(classify(Some("42601"), "syntax error"), DdlVerdict::Permanent);
    }

    #[test]
    fn pauses_are_bounded() {
        let all: Vec<u64> =
            Backoff::new(Duration::from_secs(3), Duration::from_secs(10), 4).map(|d| d.as_secs()).collect();
        assert_eq!(all, [3, 6, 10, 10]);
        let total: Duration = Backoff::default().sum();
        assert_eq!(total, Duration::from_secs(1 + 2 + 4 + 8 + 16 + 32 + 6 * 60));
        assert_eq!(Backoff::new(Duration::MAX, Duration::MAX, 2).count(), 2);
        assert_eq!(
            Backoff::new(Duration::from_secs(9), Duration::from_secs(1), 1).next(),
            Some(Duration::from_secs(1))
        );
    }
}
