//! Looks and acts, done through the ports.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, join, join_all, select};
use futures_util::stream;
use jiff::SignedDuration;

use super::driver::Ports;
use super::event::{Begun, Look, Looked, Nudged, Order};
use super::machine::later;
use super::record::{Act, ActResult};
use crate::fact::Fact;
use crate::observation::Reply;
use crate::ports::{
    AuthorityFacts, CertificateControl, ClearData, DecommissionStatus, PortError, PortErrorKind,
    ProcessState, StartNode, StartOutcome,
};
use crate::rows::{Answer, Query};
use crate::topology::{Address, HostName, NodeId, RangeId};

/// For a status, which scans the meta ranges.
const STATUS_DEADLINE: Duration = Duration::from_secs(30);

/// For a node to say whether it is ready.
const READY_DEADLINE: Duration = Duration::from_secs(5);

/// For a server to be done with one range that it was asked to look at: a snapshot may have to be sent. The rest of a look
/// waits for it.
const NUDGE_DEADLINE: Duration = Duration::from_secs(20);

/// How long a quick question waits for a member while another one has answered all of its own. One that hangs must not
/// hold up what the others say for as long as a scan may take.
const LATE: SignedDuration = SignedDuration::from_secs(5);

fn scans(query: &Query) -> bool {
    matches!(query, Query::Ranges | Query::ReplicaCounts(_) | Query::RangesOn { .. })
}

fn asks_leases(query: &Query) -> bool {
    matches!(query, Query::LeasesOn { .. } | Query::LeasesOf(_))
}

/// Answered from memory, whatever the size of the cluster. Zones and jobs are tables, which may be long.
fn is_quick(query: &Query) -> bool {
    matches!(query, Query::Cluster | Query::Liveness | Query::Nodes | Query::Stores | Query::Settings(_))
}

/// One question; `others` tells whether another member has answered everything.
async fn fetch(
    ports: &Ports,
    gateway: &Address,
    query: &Query,
    others: &AtomicBool,
) -> Result<Answer, PortError> {
    let mut fetch = ports.facts.fetch(gateway, query);
    if !is_quick(query) {
        return fetch.await;
    }
    loop {
        let pause = ports.clock.sleep_until(later(ports.clock.now(), LATE));
        match select(fetch, pause).await {
            Either::Left((result, _)) => return result,
            Either::Right(_) if others.load(Ordering::Relaxed) => {
                let text = format!("{gateway} has not answered within {LATE:#}, while others answer");
                return Err(PortError::new(PortErrorKind::Deadline, text));
            }
            Either::Right(((), rest)) => fetch = rest,
        }
        give_way().await;
    }
}

/// Lets the other questions of a look go on, also where the clock's sleep takes no time.
async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Gateways are asked side by side, the questions to one of them in order.
pub(super) async fn perform_look(ports: &Ports, look: &Look) -> Looked {
    let mut gateways: Vec<&Address> = Vec::new();
    for (gateway, _) in &look.asks {
        if !gateways.contains(&gateway) {
            gateways.push(gateway);
        }
    }
    let answered = &AtomicBool::new(false);
    let per_gateway = gateways.into_iter().map(|gateway| async move {
        let mut replies = Vec::new();
        let (mut scan_took, mut leases_took, mut quickest) =
            (SignedDuration::ZERO, SignedDuration::ZERO, None);
        for (_, query) in look.asks.iter().filter(|(g, _)| g == gateway) {
            let begun = ports.clock.now();
            let result = fetch(ports, gateway, query, answered).await;
            let took = ports.clock.now().duration_since(begun);
            if scans(query) {
                scan_took += took;
            } else if asks_leases(query) {
                leases_took += took;
            } else if matches!(query, Query::Liveness) && result.is_ok() {
                quickest = Some(took);
            }
            let failed = result.as_ref().err().map(PortError::kind);
            let result = result.map_err(|e| format!("{gateway}: {}", e.chain()));
            replies.push(Reply { gateway: gateway.clone(), query: query.clone(), result });
            if failed.is_some_and(PortErrorKind::is_transient) {
                // One deadline is enough to know that this gateway does not answer now.
                break;
            }
        }
        if replies.iter().all(|r| r.result.is_ok()) {
            answered.store(true, Ordering::Relaxed);
        }
        (replies, scan_took, leases_took, quickest)
    });
    let mut looked = Looked::default();
    let (answers, nudged) = join(join_all(per_gateway), perform_nudges(ports, look)).await;
    for (replies, scan_took, leases_took, quickest) in answers {
        looked.leases_took = looked.leases_took.max(leases_took);
        looked.replies.extend(replies);
        looked.scan_took = looked.scan_took.max(scan_took);
        looked.quickest = [looked.quickest, quickest].into_iter().flatten().min();
    }
    (looked.can_nudge, looked.nudged) = (ports.queue.is_some(), nudged);
    looked.means = ports.control.means();
    looked.owned = ports.lifecycle.owned();
    let begun = ports.clock.now();
    let late = |gateway: &Address| looked.replies.iter().any(|r| r.gateway == *gateway && r.result.is_err());
    let statuses = look.statuses.iter().map(|(via, nodes)| {
        let late = late(&via.sql_address);
        async move {
            let said = match late {
                true => Err(format!("{} was not asked: it does not answer SQL", via.sql_address)),
                false => ports.control.status(via, nodes, STATUS_DEADLINE).await.map_err(|e| e.chain()),
            };
            (via.sql_address.clone(), said)
        }
    });
    looked.statuses = join_all(statuses).await;
    // They scan the meta ranges, too.
    looked.scan_took += ports.clock.now().duration_since(begun);
    let hosts = look.hosts.iter().map(|host| async move {
        let facts = ports.lifecycle.inspect(host).await;
        (host.clone(), facts.map_or_else(|e| Fact::Unknown(e.chain()), Fact::Known))
    });
    looked.hosts = join_all(hosts).await.into_iter().collect();
    let processes = look.processes.iter().map(|node| async move {
        (node.node, ports.lifecycle.process(node).await.unwrap_or(ProcessState::Unknown))
    });
    looked.processes = join_all(processes).await.into_iter().collect();
    let ready = look.ready.iter().map(|node| async move {
        let told = ports.lifecycle.readiness(node, READY_DEADLINE).await;
        (node.clone(), told.map_or_else(|e| Fact::Unknown(e.chain()), Fact::Known))
    });
    looked.ready = join_all(ready).await.into_iter().collect();
    let certificates = look.certificates.iter().map(|job| async move {
        let facts = match &ports.certificates {
            Some(port) => port.look(job).await,
            None => Err(no_certificates()),
        };
        (job.host.clone(), facts.map_or_else(|e| Fact::Unknown(e.chain()), Fact::Known))
    });
    looked.certificates = join_all(certificates).await.into_iter().collect();
    let begun = look.begun.iter().map(|(act, begun)| async move {
        let told = match begun {
            Begun::Mark(mark) => ports.control.mark_under_way(mark).await,
            Begun::Work(work) => ports.lifecycle.work_under_way(work).await,
        };
        (act.clone(), told.map_or_else(|e| Fact::Unknown(e.chain()), Fact::Known))
    });
    looked.begun = join_all(begun).await;
    if let Some(members) = &look.authority {
        looked.authority = look_at_authority(ports.certificates.as_deref(), members).await;
    }
    looked
}

async fn perform_nudges(ports: &Ports, look: &Look) -> Vec<(RangeId, Nudged)> {
    let Some(queue) = &ports.queue else { return Vec::new() };
    let asking = look.nudges.iter().map(|nudge| async move {
        let result = queue.enqueue(&nudge.via, nudge.node, nudge.range, NUDGE_DEADLINE).await;
        (nudge.range, result.map_err(|e| (e.kind(), e.chain())))
    });
    // A stream of the iterator itself would make the operation's future one that cannot be sent to another thread.
    let asking: Vec<_> = asking.collect();
    stream::iter(asking).buffer_unordered(look.nudges_at_once.max(1)).collect().await
}

fn no_certificates() -> PortError {
    let text = "nothing is configured that issues certificates; configure an authority, or put the certificates on the \
                host and ask for none";
    PortError::new(PortErrorKind::Config, text)
}

/// `None` where no authority is configured.
pub(super) async fn look_at_authority(
    port: Option<&dyn CertificateControl>,
    members: &[HostName],
) -> Option<Fact<AuthorityFacts>> {
    let facts = port.filter(|port| port.issues())?.authority(members).await;
    Some(facts.map_or_else(|e| Fact::Unknown(e.chain()), Fact::Known))
}

fn counted(statuses: Vec<DecommissionStatus>) -> ActResult {
    ActResult::Counted(statuses.into_iter().map(|s| (s.node, s.replicas)).collect::<BTreeMap<_, _>>())
}

/// The most that anybody counts. Nodes of which not everybody says that they are marked are left out.
fn agreed(nodes: &[NodeId], said: &[Vec<DecommissionStatus>]) -> ActResult {
    let most = |node: &NodeId| {
        let of = |said: &Vec<DecommissionStatus>| {
            let status = said.iter().find(|s| s.node == *node)?;
            status.decommissioning.then_some(status.replicas)
        };
        said.iter().map(of).collect::<Option<Vec<u64>>>()?.into_iter().max().map(|most| (*node, most))
    };
    ActResult::Counted(nodes.iter().filter_map(most).collect())
}

pub(super) async fn perform_act(ports: &Ports, order: &Order) -> Result<ActResult, PortError> {
    let via = &order.via;
    let deadline: Duration = order.deadline.unsigned_abs();
    let target = || {
        order
            .target
            .clone()
            .ok_or_else(|| PortError::new(PortErrorKind::Config, "the node to stop is not known"))
    };
    match &order.act {
        Act::SetSetting { name, value, .. } | Act::RestoreSetting { name, value } => {
            ports.settings.set(&via.sql_address, name, value).await?;
            Ok(ActResult::Done(format!("{name} = {value}")))
        }
        Act::Certify { job } | Act::RestoreCertificates { job } | Act::CleanCertificates { job } => {
            let port = ports.certificates.as_deref().ok_or_else(no_certificates)?;
            let wanted = order
                .certify
                .as_ref()
                .ok_or_else(|| PortError::new(PortErrorKind::Config, "the host to certify is not known"))?;
            let what = match &order.act {
                Act::Certify { .. } => port.install(wanted).await.map(|()| "certificates installed"),
                Act::RestoreCertificates { .. } => {
                    port.restore(wanted).await.map(|()| "certificates put back")
                }
                _ => port.clean(wanted).await.map(|()| "temporary files removed"),
            };
            what.map(|what| ActResult::Done(format!("{what} on host {}", job.host)))
        }
        Act::Start { host, mode, join, .. } => {
            let node = StartNode { host: host.clone(), mode: mode.clone(), join: join.clone(), deadline };
            Ok(match ports.lifecycle.start(&node).await? {
                StartOutcome::Started => ActResult::Done("the start command came back".into()),
                StartOutcome::StillStarting(pid) => ActResult::Done(format!("still starting, pid {pid}")),
                StartOutcome::Failed(message) => {
                    ActResult::Failed { kind: PortErrorKind::CommandFailed, message }
                }
            })
        }
        Act::ClearData { host, directories } => {
            let job = ClearData { host: host.clone(), directories: directories.clone(), deadline };
            ports.lifecycle.clear_data(&job).await.map(ActResult::Done)
        }
        Act::Mark { nodes } => ports.control.mark(via, nodes, deadline).await.map(counted),
        Act::Confirm { nodes } => {
            let status = |via| ports.control.status(via, nodes, deadline);
            let Some(first) = status(via).await? else {
                return ports.control.mark(via, nodes, deadline).await.map(counted);
            };
            let second = match &order.also {
                Some(also) => status(also).await?.unwrap_or_default(),
                None => first.clone(),
            };
            Ok(agreed(nodes, &[first, second]))
        }
        Act::Recommission { nodes } => {
            ports.control.recommission(via, nodes, deadline).await?;
            Ok(ActResult::Done("recommissioned".into()))
        }
        Act::Drain { .. } => {
            ports.lifecycle.drain(&target()?).await?;
            Ok(ActResult::Done("drained".into()))
        }
        Act::Stop { .. } => {
            ports.lifecycle.stop(&target()?).await?;
            Ok(ActResult::Done("stopped".into()))
        }
    }
}
