//! `EnqueueRange`: a range is run through a queue of one of its replicas' stores now, beside the scanner and the store's
//! own queue (`server/admin.go`, `kv/kvserver/store.go` of V3.2.1).

use kwdb_scale_core::topology::{Address, NodeId, StoreId};

use super::cluster::Cluster;
use super::types::RpcError;

/// The queues of a store's scanner.
const QUEUES: [&str; 9] = [
    "gc",
    "merge",
    "split",
    "replicate",
    "replicaGC",
    "raftlog",
    "raftsnapshot",
    "consistencyChecker",
    "timeSeriesMaintenance",
];

/// What is to be run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enqueue {
    /// On which node; `None` is every one.
    pub node: Option<NodeId>,
    /// Through which queue, upper and lower case alike.
    pub queue: String,
    /// Which range.
    pub range: u64,
    /// Without asking the queue first whether there is anything to do.
    pub skip_should_queue: bool,
}

/// A run on one node, which may take time: see [`Cluster::enqueue_goes_on`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EnqueueRun {
    /// The node.
    pub node: NodeId,
    /// The trace so far.
    pub events: Vec<(jiff::Timestamp, String)>,
    /// Why it failed, or an empty text; `None` while it runs.
    pub ended: Option<String>,
    range: usize,
    store: StoreId,
    /// The change of replicas that it waits for.
    change: u64,
    /// The change is somebody else's, and the run would have removed that store.
    other: Option<Option<StoreId>>,
}

impl Cluster {
    /// Begins a run on each node concerned, through the node at this RPC address.
    ///
    /// # Errors
    /// The node is not there, waits for `init` or has no quorum; the node named is unknown or cannot be reached.
    pub fn enqueue_range(&mut self, via: &Address, job: &Enqueue) -> Result<Vec<EnqueueRun>, RpcError> {
        self.serving(via)?;
        let nodes: Vec<NodeId> = match job.node {
            None => {
                let known = |m: &&super::state::Member| !m.liveness.decommissioning || self.node_live(m.id);
                self.members.iter().filter(known).map(|m| m.id).collect()
            }
            Some(node) if self.member(node).is_none() => return Err(RpcError::NoDescriptor(node)),
            Some(node) if self.process_of(node).is_none() => return Err(self.cannot_dial(node)),
            Some(node) => vec![node],
        };
        // All nodes look before any of them acts: they do it at the same time.
        let mut runs: Vec<EnqueueRun> = nodes.into_iter().map(|node| self.begin_run(node, job)).collect();
        for run in runs.iter_mut().filter(|run| run.ended.is_none()) {
            self.note(run, "running replicate.process");
            self.process_run(run);
        }
        Ok(runs)
    }

    /// Looks whether a run has come further; one that has ended stays as it is.
    pub fn enqueue_goes_on(&mut self, run: &mut EnqueueRun) {
        if run.ended.is_some() {
            return;
        }
        let Some(range) = self.ranges.get(run.range) else { return };
        if range.change.is_some_and(|change| change.number == run.change) {
            return;
        }
        let id = range.id;
        match run.other {
            Some(wanted) => {
                // Somebody else's change came first: what this run planned no longer fits.
                let gone = wanted.filter(|store| !range.voters.contains(store));
                let why = match gone {
                    Some(store) => format!("target {} not found", self.replica_name(store)),
                    None => format!("descriptor changed: [expected] r{id}:{}", range.start_key),
                };
                self.end_run(run, format!("change replicas of r{id} failed: {why}"));
            }
            // As the queue does: again, until nothing is missing.
            None if range.leaseholder == Some(run.store) && self.action(run.range).priority() > 1 => {
                self.process_run(run)
            }
            None => self.end_run(run, String::new()),
        }
    }

    /// Looks whether there is anything to run: a run that goes on has not ended.
    fn begin_run(&mut self, node: NodeId, job: &Enqueue) -> EnqueueRun {
        let mut run = EnqueueRun {
            node,
            events: Vec::new(),
            ended: None,
            range: usize::MAX,
            store: StoreId(0),
            change: 0,
            other: None,
        };
        if self.process_of(node).is_none() {
            let status = self.membership_status(node).map(|s| s.to_string()).unwrap_or_default();
            let why = self.cannot_dial(node);
            run.ended = Some(format!("failed to dial into node {} ({status}): {why}", node.0));
            return run;
        }
        let stores = self.member(node).map(|m| m.stores.clone()).unwrap_or_default();
        let found = self.ranges.iter().enumerate().filter(|(_, r)| r.id == job.range).find_map(|(i, r)| {
            let mut all = r.voters.iter().chain(&r.learners);
            all.find(|s| stores.contains(s)).map(|store| (i, *store))
        });
        let Some((range, store)) = found else {
            run.ended = Some(format!("n{} has no replica for r{}", node.0, job.range));
            return run;
        };
        (run.range, run.store) = (range, store);
        let queue = QUEUES.iter().find(|queue| queue.eq_ignore_ascii_case(&job.queue));
        let Some(queue) = queue else {
            run.ended = Some(format!("unknown queue type {:?}", job.queue));
            return run;
        };
        if *queue != "replicate" {
            self.note(&mut run, &format!("running {queue}.process"));
            run.ended = Some(String::new());
            return run;
        }
        self.takeover_by(range, store);
        if self.ranges.get(range).and_then(|r| r.leaseholder) != Some(store) {
            let key = self.ranges.get(range).map(|r| r.start_key.clone()).unwrap_or_default();
            run.ended = Some(format!(
                "replica [{},r{}:{key}] does not have the range lease",
                self.replica_name(store),
                job.range
            ));
            return run;
        }
        if !job.skip_should_queue {
            let worth = self.is_worth_it(range, store);
            self.note(&mut run, &format!("running replicate.shouldQueue: {worth}"));
            if !worth {
                run.ended = Some(String::new());
                return run;
            }
        }
        run
    }

    fn process_run(&mut self, run: &mut EnqueueRun) {
        let Some(r) = self.ranges.get(run.range) else { return };
        if let Some(change) = r.change {
            let wanted = r.voters.iter().copied().find(|s| self.is_leaving(*s) || self.is_dead(*s));
            (run.change, run.other) = (change.number, Some(wanted));
            return;
        }
        if self.is_mpp() {
            return self.end_run(run, String::new());
        }
        let id = r.id;
        // Those that leave are counted neither among the stores nor among the replicas.
        let have = r.voters.iter().filter(|s| !self.is_leaving(**s)).count();
        let moves = self.needs_place(run.range);
        // A leaseholder that is to go gives its lease away, and the next one looks for a place.
        if moves.is_some_and(|old| old != Some(run.store) && self.places(run.range, old).is_empty()) {
            let live = self.stores.iter().filter(|s| self.store_live(s.id) && !self.is_leaving(s.id)).count();
            self.process_range(run.range, run.store, true);
            let why = format!(
                "0 of {live} live stores are able to take a new replica for the range ({have} already have a replica); \
                 likely not enough nodes in cluster"
            );
            return self.end_run(run, why);
        }
        if self.process_range(run.range, run.store, true) {
            run.change = self.ranges.get(run.range).and_then(|r| r.change).map_or(0, |change| change.number);
            self.note(run, &format!("change replicas of r{id}"));
        } else {
            self.end_run(run, String::new());
        }
    }

    fn end_run(&mut self, run: &mut EnqueueRun, error: String) {
        self.note(run, "done");
        run.ended = Some(error);
    }

    fn note(&self, run: &mut EnqueueRun, message: &str) {
        run.events.push((self.now(), message.to_owned()));
    }

    fn cannot_dial(&self, node: NodeId) -> RpcError {
        self.member(node).map_or(RpcError::NoDescriptor(node), |m| RpcError::CannotDial(m.address.clone()))
    }

    fn replica_name(&self, store: StoreId) -> String {
        format!("n{},s{}", self.node_of(store).map_or(0, |n| n.0), store.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use std::time::Duration;

    use kwdb_scale_core::topology::{Address, NodeId, StoreId};

    use super::Enqueue;
    use crate::memory::World;
    use crate::model::{Cluster, EnqueueRun};

    fn ends(cluster: &mut Cluster, via: &Address, job: &Enqueue) -> Vec<EnqueueRun> {
        let mut runs = cluster.enqueue_range(via, job).unwrap();
        for _ in 0..2_000 {
            cluster.advance(Duration::from_millis(10));
            runs.iter_mut().for_each(|run| cluster.enqueue_goes_on(run));
            if runs.iter().all(|run| run.ended.is_some()) {
                return runs;
            }
        }
        panic!("it never ends: {runs:?}");
    }

    /// A cluster of four, a way to it, and a range of three replicas with its leaseholder and the node that has none.
    fn four() -> (World, Address, Enqueue, usize, StoreId) {
        let world = World::started(4);
        let via = world.hosts()[0].address.clone();
        let cluster = world.cluster();
        let range = cluster.ranges.iter().rposition(|r| r.voters.len() == 3).unwrap();
        let r = &cluster.ranges[range];
        let holder = cluster.node_of(r.leaseholder.unwrap()).unwrap();
        let free = cluster.stores.iter().find(|s| !r.voters.contains(&s.id)).unwrap().id;
        let job = Enqueue {
            node: Some(holder),
            queue: "replicate".to_owned(),
            range: r.id,
            skip_should_queue: true,
        };
        drop(cluster);
        (world, via, job, range, free)
    }

    #[test]
    fn another_change_came_first() {
        let (world, via, job, range, free) = four();
        let mut cluster = world.cluster();
        cluster.begin_change(range, free, None, None);
        let runs = ends(&mut cluster, &via, &job);
        let error = runs[0].ended.clone().unwrap();
        let start = format!(
            "change replicas of r{} failed: descriptor changed: [expected] r{}:",
            job.range, job.range
        );
        assert!(error.starts_with(&start), "{error}");
        assert_eq!(cluster.ranges[range].change, None, "the other one ended as it would have");
    }

    #[test]
    fn a_replica_of_a_leaving_node_moves_in_the_time_of_a_change() {
        let (world, via, job, range, free) = four();
        let mut cluster = world.cluster();
        let holder = cluster.ranges[range].leaseholder;
        let old = cluster.ranges[range].voters.iter().copied().find(|s| Some(*s) != holder).unwrap();
        let leaving = cluster.node_of(old).unwrap();
        cluster.decommission(&via, &[leaving]).unwrap();
        let begun = cluster.now();
        let runs = ends(&mut cluster, &via, &job);
        assert_eq!(runs[0].ended.as_deref(), Some(""), "{runs:?}");
        assert!(cluster.now().duration_since(begun).as_secs() < 2, "no scanner was waited for");
        let voters = &cluster.ranges[range].voters;
        assert!(voters.contains(&free) && !voters.contains(&old), "{voters:?}");
    }

    /// Otherwise the store that began the change would wait for it for ever.
    #[test]
    fn a_queue_goes_on_when_the_lease_went_elsewhere_during_its_change() {
        let (world, _, _, range, free) = four();
        let mut cluster = world.cluster();
        let holder = cluster.ranges[range].leaseholder.unwrap();
        let other = cluster.ranges[range].voters.iter().copied().find(|s| *s != holder);
        cluster.begin_change(range, free, other, Some(holder));
        assert!(cluster.store(holder).unwrap().busy.is_some());
        cluster.set_lease(range, other);
        cluster.advance(Duration::from_secs(1));
        assert_eq!(cluster.store(holder).unwrap().busy, None);
    }

    #[test]
    fn nodes_that_are_down_are_said_to_be() {
        let (world, via, job, _, _) = four();
        let mut cluster = world.cluster();
        let down = cluster.members[3].address.clone();
        cluster.kill_node(&down);
        let error =
            cluster.enqueue_range(&via, &Enqueue { node: Some(NodeId(4)), ..job.clone() }).unwrap_err();
        assert!(error.to_string().starts_with("initial connection heartbeat failed: "), "{error}");
        let runs = cluster.enqueue_range(&via, &Enqueue { node: None, ..job }).unwrap();
        let error = runs.iter().find(|run| run.node == NodeId(4)).unwrap().ended.clone().unwrap();
        assert!(error.starts_with("failed to dial into node 4 ("), "{error}");
    }
}
