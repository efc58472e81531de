//! `node decommission` and `node recommission`.

use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::ports::DecommissionStatus;
use kwdb_scale_core::topology::NodeId;

use super::args::Args;
use super::connect::{Client, LATENCY, rpc_text};
use super::status::format_of;
use super::{Output, Step};
use crate::model::{Cluster, MembershipStatus, RpcError};

const COLUMNS: [&str; 5] = ["id", "is_live", "replicas", "is_decommissioning", "is_draining"];

/// The pause between two calls: 5 ms, doubled each time up to 20 s, from the start again when replicas went.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// A `node decommission` that marks and, with `--wait=all`, waits.
#[derive(Debug)]
pub(crate) struct Wait {
    args: Args,
    client: Client,
    due: Option<Timestamp>,
    nodes: Option<Vec<NodeId>>,
    shown: Option<Vec<DecommissionStatus>>,
    least: u64,
    pause: Duration,
}

impl Wait {
    pub(crate) fn new(args: Args, client: Client) -> Self {
        Self { args, client, due: None, nodes: None, shown: None, least: u64::MAX, pause: FIRST_PAUSE }
    }

    pub(crate) fn step(&mut self, cluster: &mut Cluster, out: &mut Output) -> Step {
        let now = cluster.now();
        let due = *self.due.get_or_insert(now + LATENCY);
        if now < due {
            return Step::At(due);
        }
        let nodes = match &self.nodes {
            Some(nodes) => nodes.clone(),
            None => match self.begin(cluster, out) {
                Ok(nodes) => nodes,
                Err(step) => return step,
            },
        };
        let via = match self.client.rpc(cluster) {
            Ok(via) => via,
            Err(text) => return Step::Fail(text),
        };
        let status = match cluster.decommission(&via, &nodes) {
            Ok(status) => status,
            Err(RpcError::Hang) => return Step::Hang,
            Err(error) => {
                out.stderr.push('\n');
                let text = rpc_text(&error, "Decommission");
                return Step::Fail(format!("while trying to mark as decommissioning: {text}"));
            }
        };
        let left: u64 = status.iter().map(|s| s.replicas).sum();
        let marked = status.iter().all(|s| s.decommissioning);
        if self.shown.as_ref() == Some(&status) {
            out.stderr.push('.');
        } else {
            out.stderr.push('\n');
            out.stdout += &table(&self.args, &status);
            self.shown = Some(status);
        }
        if left == 0 && marked {
            out.stdout += "\nNo more data reported on target nodes. Please verify cluster health before removing the nodes.\n";
            return Step::Done;
        }
        if self.args.get("wait") == Some("none") {
            return Step::Done;
        }
        // A call takes a few milliseconds by itself.
        let call = Duration::from_millis(3);
        let again = if left < self.least {
            self.least = left;
            self.pause = FIRST_PAUSE;
            now + call
        } else {
            let pause = self.pause;
            self.pause = (pause * 2).min(LONGEST_PAUSE);
            now + pause + call
        };
        self.due = Some(again);
        Step::At(again)
    }

    fn begin(&mut self, cluster: &Cluster, out: &mut Output) -> Result<Vec<NodeId>, Step> {
        let nodes = ids(&self.args).map_err(Step::Fail)?;
        if self.args.get("wait") == Some("live") {
            out.stderr += "\n--wait=live is deprecated and is treated as --wait=all\n";
            self.shown = None;
        }
        self.client.rpc(cluster).map_err(Step::Fail)?;
        for id in &nodes {
            match cluster.membership_status(*id) {
                None => out.stderr += &format!("warning: cannot find status of node {}\n", id.0),
                Some(MembershipStatus::Decommissioning | MembershipStatus::Decommissioned) => {
                    out.stderr +=
                        &format!("warning: node {} is already decommissioning or decommissioned\n", id.0);
                }
                Some(_) => {}
            }
        }
        self.nodes = Some(nodes.clone());
        Ok(nodes)
    }
}

pub(crate) fn recommission(cluster: &mut Cluster, args: &Args, client: &Client, out: &mut Output) -> Step {
    let nodes = match ids(args) {
        Ok(nodes) => nodes,
        Err(text) => return Step::Fail(text),
    };
    let via = match client.rpc(cluster) {
        Ok(via) => via,
        Err(text) => return Step::Fail(text),
    };
    for id in &nodes {
        match cluster.membership_status(*id) {
            None => out.stderr += &format!("warning: cannot find status of node {}\n", id.0),
            Some(MembershipStatus::Decommissioning | MembershipStatus::Decommissioned) => {}
            Some(MembershipStatus::Live) => {
                out.stderr += &format!("warning: node {} is not decommissioned\n", id.0);
            }
            Some(other) => {
                out.stderr += &format!("warning: node {} is in unexpected state {other}\n", id.0);
            }
        }
    }
    match cluster.recommission(&via, &nodes) {
        Ok(status) => {
            out.stdout += &table(args, &status);
            Step::Done
        }
        Err(RpcError::Hang) => Step::Hang,
        Err(error) => Step::Fail(rpc_text(&error, "Decommission")),
    }
}

fn ids(args: &Args) -> Result<Vec<NodeId>, String> {
    args.words
        .iter()
        .map(|w| {
            let bad = || format!("unable to parse {w}: strconv.ParseInt: parsing \"{w}\": invalid syntax");
            w.parse().map(NodeId).map_err(|_| bad())
        })
        .collect()
}

fn table(args: &Args, status: &[DecommissionStatus]) -> String {
    let rows: Vec<Vec<String>> = status
        .iter()
        .map(|s| {
            vec![
                s.node.0.to_string(),
                s.is_live.to_string(),
                s.replicas.to_string(),
                s.decommissioning.to_string(),
                s.draining.to_string(),
            ]
        })
        .collect();
    format_of(args).print(&COLUMNS, &rows)
}
