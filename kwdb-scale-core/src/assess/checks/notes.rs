//! What the KWDB page tells in its notes.

use super::Problem;
use crate::assess::Context;
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

pub(super) fn rejoin(_: &Context<'_>) -> Vec<Problem> {
    note("to add a decommissioned node back, clear its data directory first and join it as a new node")
}
