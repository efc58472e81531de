//! Waiting in the suites: by the fixture's clock, or by real time.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::ports::{Clock, FactSource, PortError};
use kwdb_scale_core::rows::{LivenessRow, NodeRow, Query, RangeRow, Rows};
use kwdb_scale_core::topology::{Address, NodeId};

/// Longer than anything takes on a busy machine; only a failure waits for so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// For what a cluster does by itself.
pub(super) const CLUSTER: SignedDuration = SignedDuration::from_mins(10);
/// Between two looks.
const PAUSE: SignedDuration = SignedDuration::from_millis(250);

/// Real time on tokio, for fixtures over real ports. A small clock for tests: `kwdb-scale-local` has the one for
/// programs.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    wall: Timestamp,
    anchor: tokio::time::Instant,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { wall: Timestamp::now(), anchor: tokio::time::Instant::now() }
    }
}

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        self.wall + self.anchor.elapsed()
    }

    async fn sleep_until(&self, until: Timestamp) {
        let left = Duration::try_from(until.duration_since(self.now())).unwrap_or_default();
        tokio::time::sleep(left).await;
    }
}

/// Asks again, by real time, until there is an answer.
pub(super) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks again, by the clock given, until there is an answer.
pub(super) async fn in_time<T>(clock: &dyn Clock, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = clock.now() + CLUSTER;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(clock.now() < end, "gave up waiting until {what}");
        clock.sleep_until(clock.now() + PAUSE).await;
    }
}

/// The result, or a panic that says what was done and every cause.
pub(super) fn must<T>(what: &str, result: Result<T, PortError>) -> T {
    result.unwrap_or_else(|e| panic!("{what}: {:?}: {}", e.kind(), e.chain()))
}

/// The error, or a panic that shows what came instead.
pub(super) fn fails<T: std::fmt::Debug>(what: &str, result: Result<T, PortError>) -> PortError {
    match result {
        Ok(value) => panic!("{what} must fail, and gave {value:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(
                !text.trim().is_empty() && !text.contains('\n'),
                "{what}: an error is one line: {text:?}"
            );
            error
        }
    }
}

pub(super) async fn rows(facts: &dyn FactSource, gateway: &Address, query: &Query) -> Rows {
    must(&format!("{query:?} through {gateway}"), facts.fetch(gateway, query).await).rows
}

pub(super) async fn liveness(facts: &dyn FactSource, gateway: &Address) -> Vec<LivenessRow> {
    match rows(facts, gateway, &Query::Liveness).await {
        Rows::Liveness(rows) => rows,
        other => panic!("liveness was answered with {other:?}"),
    }
}

pub(super) async fn nodes(facts: &dyn FactSource, gateway: &Address) -> Vec<NodeRow> {
    match rows(facts, gateway, &Query::Nodes).await {
        Rows::Nodes(rows) => rows,
        other => panic!("nodes were answered with {other:?}"),
    }
}

pub(super) async fn ranges(facts: &dyn FactSource, gateway: &Address) -> Vec<RangeRow> {
    match rows(facts, gateway, &Query::Ranges).await {
        Rows::Ranges(rows) => rows,
        other => panic!("ranges were answered with {other:?}"),
    }
}

/// Waits until a gateway says of the nodes that their decommissioning bit is so.
pub(super) async fn bits(
    clock: &dyn Clock,
    facts: &dyn FactSource,
    gateway: &Address,
    of: &[NodeId],
    marked: bool,
) {
    in_time(clock, &format!("{gateway} hears that the bit of {of:?} is {marked}"), async || {
        let rows = liveness(facts, gateway).await;
        let so = |n: &NodeId| rows.iter().any(|r| r.node_id == *n && r.decommissioning == Some(marked));
        of.iter().all(so).then_some(())
    })
    .await;
}

pub(super) fn known<'a, T>(what: &str, fact: &'a Fact<T>) -> &'a T {
    match fact {
        Fact::Known(value) => value,
        Fact::Unknown(why) => panic!("{what} is unknown: {why}"),
    }
}
