//! What the KWDB page tells in its notes.

use super::Problem;
use crate::assess::Context;
use crate::fact::Fact;
use crate::policy::TS_REBALANCE;
use crate::request::{Finish, Redistribution};
use crate::version::Capabilities;

fn note(text: impl Into<String>) -> Vec<Problem> {
    vec![Problem::new(text)]
}

pub(super) fn queries(cx: &Context<'_>) -> Vec<Problem> {
    if Capabilities::of(cx.obs.version().known().copied()).queries_may_be_incomplete {
        note("queries may be temporarily incomplete during the operation; afterwards the data is complete")
    } else {
        Vec::new()
    }
}

pub(super) fn ts_ddl(_: &Context<'_>) -> Vec<Problem> {
    note(
        "CREATE INDEX and DROP INDEX on time-series tables may return timeout errors during the operation: retry them afterwards",
    )
}

pub(super) fn disk(_: &Context<'_>) -> Vec<Problem> {
    note("disk usage may temporarily rise while data moves")
}

pub(super) fn off_peak(_: &Context<'_>) -> Vec<Problem> {
    note("scale during off-peak hours to keep the effect on business small")
}

pub(super) fn alter(cx: &Context<'_>) -> Vec<Problem> {
    if cx.single_replica() {
        return Vec::new();
    }
    note("avoid frequent ALTER statements during redistribution: they may prolong it")
}

pub(super) fn redistribution(cx: &Context<'_>) -> Vec<Problem> {
    if cx.single_replica() {
        return Vec::new();
    }
    let effect = format!(
        "{TS_REBALANCE} = false stops only the balancing of time-series ranges; relational ranges, repair and decommissioning go on"
    );
    note(match cx.request.options.redistribution {
        Redistribution::Leave => {
            format!("existing data is distributed over all nodes after the scale-out; {effect}")
        }
        Redistribution::Off => format!("redistribution is switched off and stays off; {effect}"),
        Redistribution::OffDuring => {
            format!("redistribution is off during the operation and as before afterwards; {effect}")
        }
    })
}

pub(super) fn single_replica(cx: &Context<'_>) -> Vec<Problem> {
    if !cx.single_replica() {
        return Vec::new();
    }
    note(
        "single-replica cluster: existing data is not migrated, only newly created tables use the new node, and the cluster cannot be scaled in afterwards",
    )
}

pub(super) fn clients(cx: &Context<'_>) -> Vec<Problem> {
    let stop = match cx.request.options.finish {
        Finish::Stop => {
            "clients must leave the node before it is stopped: open transactions may see SQLSTATE 57P01 or a closed connection"
        }
        Finish::LeaveDrained => "it stays running and serving until it is quit (the page's optional step)",
    };
    note(format!("a decommissioning node goes on serving SQL; {stop}"))
}

/// Replicas that will move when nodes with `counts` leave `at_a_time`, of a cluster with `members` live nodes: those of
/// a batch are spread over all that are left, also over those that leave later.
fn expected_moves(counts: &[u64], at_a_time: usize, members: usize) -> u64 {
    let mut left = counts.to_vec();
    let (mut members, mut moves) = (members, 0_u64);
    while !left.is_empty() {
        let batch: Vec<u64> = left.drain(..at_a_time.clamp(1, left.len())).collect();
        members = members.saturating_sub(batch.len());
        let moved: u64 = batch.iter().fold(0, |sum, n| sum.saturating_add(*n));
        moves = moves.saturating_add(moved);
        let share = moved / u64::try_from(members.max(1)).unwrap_or(u64::MAX);
        for count in &mut left {
            *count = count.saturating_add(share);
        }
    }
    moves
}

pub(super) fn moves(cx: &Context<'_>) -> Vec<Problem> {
    let mut counts = Vec::new();
    for node in &cx.leaving {
        match &node.replicas {
            Fact::Known(n) => counts.push(*n),
            Fact::Unknown(why) => {
                return vec![Problem::unknown(
                    &format!("how many replicas leave node {} is", node.id.0),
                    why,
                )];
            }
        }
    }
    let members = cx.staying.len() + cx.change.add.len() + counts.len();
    let expected = |at_a_time| expected_moves(&counts, at_a_time, members);
    let percent = |more: u64, than: u64| more.saturating_sub(than).saturating_mul(100) / than.max(1);
    let (all, together) = (counts.len(), expected(counts.len()));
    let at_a_time = cx.request.options.at_a_time(all);
    let asked = expected(at_a_time);
    match (all, at_a_time) {
        _ if together == 0 => note("the leaving nodes hold nothing: no replica will move"),
        (0 | 1, _) => note(format!("about {together} replicas will move")),
        (_, n) if n < all => note(format!(
            "about {asked} replicas will move with {n} of {all} nodes leaving at a time: {} % more than about {together} \
             with all marked together",
            percent(asked, together)
        )),
        _ => note(format!(
            "about {together} replicas will move with all {all} nodes marked together; one node at a time about {} would \
             ({} % more), and small data takes about twice the time then",
            expected(1),
            percent(expected(1), together)
        )),
    }
}

pub(super) fn rejoin(_: &Context<'_>) -> Vec<Problem> {
    note("to add a decommissioned node back, clear its data directory first and join it as a new node")
}

#[cfg(test)]
mod tests {
    use super::expected_moves;

    #[test]
    fn batches_move_what_lands_on_nodes_that_leave_later_again() {
        // A real V3.2.1 with 657 ranges needed 616 moves for two of six nodes together and 717 one after the other; 957
        // and 1205 for three of six.
        assert_eq!(expected_moves(&[320, 320], 2, 6), 640);
        assert_eq!(expected_moves(&[320, 320], 1, 6), 704);
        assert_eq!(expected_moves(&[320, 320, 320], 3, 6), 960);
        assert_eq!(expected_moves(&[320, 320, 320], 1, 6), 1184);
        // The first two, and a half of each third of theirs with the last.
        assert_eq!(expected_moves(&[300, 300, 300], 2, 6), 900 + 150);
        assert_eq!(expected_moves(&[], 1, 3), 0);
    }
}
