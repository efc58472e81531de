//! `ok-to-stop` and `safe-to-wipe`: a question, answered with evidence.

use kwdb_scale_core::observation::Observation;
use kwdb_scale_core::request::{Inventory, NodeRef};
use kwdb_scale_core::safety::{Answer, Question, ok_to_stop, safe_to_wipe};
use kwdb_scale_core::topology::{NodeClass, NodeId};
use serde::Serialize;

use crate::cli::Global;
use crate::connect::Cluster;
use crate::failure::{Exit, Failure};
use crate::ui::Ui;

/// What `--format json` prints.
#[derive(Debug, Serialize)]
struct Said<'a> {
    schema: &'static str,
    yes: bool,
    #[serde(flatten)]
    answer: &'a Answer,
}

pub(crate) async fn ask(
    ui: &Ui,
    global: &Global,
    question: Question,
    names: &[String],
) -> Result<Exit, Failure> {
    let cluster = Cluster::open(&global.cluster).await?;
    let observation = cluster.observe(None).await?;
    let inventory = cluster.config.inventory();
    let mut nodes = Vec::new();
    for name in names {
        nodes.extend(named(&observation, &inventory, question, name)?);
    }
    let answer = match question {
        Question::OkToStop => ok_to_stop(&observation, &nodes),
        Question::SafeToWipe => safe_to_wipe(&observation, &nodes),
    };
    if ui.json() {
        ui.print_json(&Said { schema: "kwscale.answer/v1", yes: answer.is_yes(), answer: &answer })?;
    } else {
        ui.print(&answer);
    }
    Ok(if answer.is_yes() { Exit::Done } else { Exit::Refused })
}

/// The nodes that a name means. On a host's disks lies what all its former nodes left; to be stopped is the one that is
/// there now.
fn named(
    observation: &Observation,
    inventory: &Inventory,
    question: Question,
    name: &str,
) -> Result<Vec<NodeId>, Failure> {
    let host = match NodeRef::parse(name) {
        NodeRef::Id(id) => return Ok(vec![id]),
        NodeRef::Host(host) => host,
    };
    let refuse = |why: String| Failure::new(Exit::Refused, why);
    let entry = inventory.hosts.get(&host).ok_or_else(|| {
        Failure::usage(format!("host '{host}' is not in the cluster's file; add it or give the node id"))
    })?;
    let there = observation.nodes.values().filter(|n| n.address.known() == Some(&entry.address));
    let meant = there.filter(|n| question == Question::SafeToWipe || n.class != NodeClass::Removed);
    let ids: Vec<NodeId> = meant.map(|n| n.id).collect();
    if ids.is_empty() {
        return Err(refuse(format!(
            "no node of the cluster is at {} of host {host}; give the node id",
            entry.address
        )));
    }
    Ok(ids)
}
