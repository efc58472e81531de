//! Whole operations of core on the model, in memory.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use jiff::SignedDuration;
use kwdb_scale_core::execute::{
    Advance, End, JournalRecord, ObserveOptions, Operation, Ports, Progress, Record, Stopped, observe,
};
use kwdb_scale_core::plan::{Plan, Refusal, Step, plan};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::ports::{
    DecommissionControl, DecommissionStatus, FactSource, Gateway, Journal as _, PortError, PortErrorKind,
    async_trait,
};
use kwdb_scale_core::request::{self, NodeRef, Options, Pace, Request};
use kwdb_scale_core::rows::{Answer, Query, Rows};
use kwdb_scale_core::safety::safe_to_wipe;
use kwdb_scale_core::topology::{Address, HostName, NodeId, StartMode};
use kwdb_scale_sim::memory::{Call, Fault, Faulty, MemJournal, MemLock, SimHost, Which, World};
use kwdb_scale_sim::model::{Config, TableSpec};

async fn planned(world: &World, ports: &Ports, operation: request::Operation) -> Result<Plan, Refusal> {
    planned_with(world, ports, operation, Options::default()).await
}

async fn planned_with(
    world: &World,
    ports: &Ports,
    operation: request::Operation,
    options: Options,
) -> Result<Plan, Refusal> {
    let inventory = world.inventory();
    let request = Request { operation, inventory: inventory.clone(), options };
    let options = ObserveOptions { request: Some(request.clone()), inventory, ..ObserveOptions::default() };
    let observation = observe(&*ports.facts, Some(&*ports.lifecycle), &options).await.unwrap();
    // An operation that will not end by itself need not be watched for a day.
    let policy = Policy { empty_deadline: SignedDuration::from_mins(40), ..Policy::default() };
    plan(&observation, &request, &policy)
}

async fn run(world: &World, ports: Ports, operation: request::Operation) -> End {
    let plan = match planned(world, &ports, operation).await {
        Ok(plan) => plan,
        Err(refusal) => panic!("{refusal}"),
    };
    Operation::begin(plan, ports).await.unwrap().run().await
}

async fn applied(world: &World, operation: request::Operation) -> Vec<String> {
    match run(world, world.ports(), operation).await {
        End::Done(proof) => proof,
        other => panic!("{other:?}"),
    }
}

fn stopped(end: End) -> Stopped {
    match end {
        End::Stopped(stopped) => stopped,
        other => panic!("{other:?}"),
    }
}

/// Four nodes with 40 ranges of their own, settled.
fn settled(nodes: u16) -> World {
    let world = World::started(nodes);
    world.cluster().create_table(TableSpec::new("app", "kv", 40)).unwrap();
    world.advance(Duration::from_secs(600));
    world
}

fn address(n: u16) -> Address {
    SimHost::numbered(n).address
}

fn scale_in(nodes: &[u32]) -> request::Operation {
    let nodes = nodes.iter().map(|n| NodeRef::Id(NodeId(*n))).collect();
    request::Operation::ScaleIn { nodes }
}

fn scale_out(hosts: &[&str]) -> request::Operation {
    request::Operation::ScaleOut { hosts: hosts.iter().map(|h| HostName::new(*h)).collect() }
}

/// The page asks for all nodes alive only where one is taken out. The server repairs what was on the dead one when it
/// counts as dead, half an hour later; the new node has joined long before that.
#[tokio::test]
async fn out_with_a_member_down_does_not_wait_for_its_repair() {
    let world = settled(4);
    world.add_host(SimHost::numbered(5));
    world.cluster().kill_node(&address(4));
    world.advance(Duration::from_secs(30));
    let began = world.now();
    let proof = applied(&world, scale_out(&["n5"])).await.join("\n");
    assert!(world.now().duration_since(began) < SignedDuration::from_mins(20), "{proof}");
    assert!(proof.contains("while node 4, a member, is down"), "{proof}");
    assert!(world.cluster().under_replicated() > 0, "repaired already: this shows nothing");
    // Once it is, nothing is left to tell.
    world.add_host(SimHost::numbered(6));
    world.advance(Duration::from_secs(3600));
    let proof = applied(&world, scale_out(&["n6"])).await.join("\n");
    assert!(!proof.contains("while node 4"), "{proof}");
}

#[tokio::test]
async fn out_in_out_in_on_one_cluster() {
    let world = settled(4);
    let began = world.now();
    world.add_host(SimHost::numbered(5));
    for id in [5, 6] {
        applied(&world, scale_out(&["n5"])).await;
        assert_eq!(world.node_on("n5"), Some(NodeId(id)));
        applied(&world, scale_in(&[id])).await;
        assert_eq!(world.cluster().replica_count(NodeId(id)), 0);
        // The machine comes back with an empty store, at the same address.
        let key = SimHost::numbered(5).store_key("/data/n5");
        assert!(world.cluster().wipe_store(&key));
    }
    let took = world.now().duration_since(began);
    assert!(took.as_secs() < 3600, "{took:?}");
}

/// Two hours after a node's end the gossip has forgotten its address. Its last status has not, so that the machine is
/// still known for its own and comes back.
#[tokio::test]
async fn a_machine_comes_back_when_the_gossip_has_forgotten_it() {
    let world = settled(4);
    applied(&world, scale_in(&[4])).await;
    world.advance(Duration::from_secs(3 * 3600));
    let ports = world.ports();
    let options = ObserveOptions::default();
    let observation = observe(&*ports.facts, None, &options).await.unwrap();
    let node = &observation.nodes[&NodeId(4)];
    assert!(node.sql_address.known().is_none(), "the gossip remembers it: this shows nothing");
    assert_eq!(node.address.known(), Some(&address(4)));
    assert!(safe_to_wipe(&observation, &[NodeId(4)]).is_yes());

    let options = Options { old_data: request::OldData::MoveAside, ..Options::default() };
    let plan = planned_with(&world, &ports, scale_out(&["n4"]), options).await.unwrap();
    assert!(plan.to_string().contains("move /data/n4 to /data/n4.node-4"), "{plan}");
    let consent = plan.consent();
    match Operation::begin_with_consent(plan, ports, consent.as_deref()).await.unwrap().run().await {
        End::Done(_) => assert_eq!(world.node_on("n4"), Some(NodeId(5))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_of_six_leave_at_once() {
    let world = settled(6);
    let proof = applied(&world, scale_in(&[5, 6])).await;
    assert!(!proof.is_empty());
    for node in [5, 6] {
        assert_eq!(world.cluster().replica_count(NodeId(node)), 0);
    }
}

/// Seconds from the moment in which node 4 was empty until the operation saw that, and until it had proven it.
async fn noticed(seed: u64, pace: Pace) -> (f64, f64) {
    let config = Config { seed, ..Config::default() };
    let world = World::started_with(config, StartMode::MultiReplica, 4);
    world.advance(Duration::from_secs(300));
    world.cluster().create_table(TableSpec::new("app", "kv", 60)).unwrap();
    world.advance(Duration::from_secs(1200));
    let ports = world.ports();
    let options = Options { pace, ..Options::default() };
    let plan = planned_with(&world, &ports, scale_in(&[4]), options).await.unwrap();
    let empty_step = plan.steps.iter().position(|s| matches!(s, Step::AwaitEmpty { .. })).unwrap() + 1;
    let journal = Arc::clone(&ports.journal);
    let mut operation = Operation::begin(plan, ports).await.unwrap();
    let mut events = operation.events();
    let mut seen = None;
    loop {
        // One thing at a time, so that what is told was seen now.
        match operation.advance(SignedDuration::from_nanos(1)).await {
            Advance::Waiting { until, .. } => world.advance_to(until),
            Advance::Progress => {}
            Advance::Ended(end) => panic!("{end:?}"),
        }
        let empty = world.cluster().empty_since(NodeId(4));
        let since = |at: jiff::Timestamp| at.duration_since(empty.unwrap()).as_secs_f64();
        while let Some(Some(event)) = events.next().now_or_never() {
            match event {
                Progress::Replicas { left: 0, .. } if seen.is_none() => seen = Some(since(world.now())),
                Progress::StepDone { step, .. } if step == empty_step => {
                    let records = journal.records().await.unwrap();
                    let done = |r: &&JournalRecord| matches!(r.record, Record::StepDone { step, .. } if step + 1 == empty_step);
                    return (seen.unwrap(), since(records.iter().find(done).unwrap().at));
                }
                _ => {}
            }
        }
    }
}

/// Emptiness is noticed within a second, whatever moves the last replicas; three samples, five seconds apart, prove it.
#[tokio::test]
async fn emptiness_is_noticed_within_a_second() {
    for pace in [Pace::Server, Pace::Tail, Pace::Full] {
        for seed in 1..=4 {
            let (seen, proven) = noticed(seed, pace).await;
            println!("{pace:?}, seed {seed}: seen after {seen:.2} s, proven after {proven:.2} s");
            assert!(seen <= 1.0, "{pace:?}, seed {seed}: seen after {seen:.2} s");
            assert!((10.0..=13.0).contains(&proven), "{pace:?}, seed {seed}: proven after {proven:.2} s");
        }
    }
}

#[tokio::test]
async fn three_nodes_are_refused() {
    let world = World::started(3);
    let ports = world.ports();
    let refusal = planned(&world, &ports, scale_in(&[3])).await.unwrap_err();
    assert!(refusal.reasons().count() > 0);
}

#[tokio::test]
async fn a_node_of_two_stores_and_a_factor_of_five_leave_in_order() {
    let world = settled(4);
    let host = SimHost { stores: vec!["/data/a".into(), "/data/b".into()], ..SimHost::numbered(5) };
    world.add_host(host);
    applied(&world, scale_out(&["n5"])).await;
    // Five nodes: system ranges take their fifth replica, and give it back when one leaves.
    world.advance(Duration::from_secs(600));
    applied(&world, scale_in(&[5])).await;
    assert_eq!(world.cluster().replica_count(NodeId(5)), 0);
    assert_eq!(world.cluster().under_replicated(), 0);
}

#[tokio::test]
async fn a_survivor_that_dies_in_the_middle_stops_the_scale_in_before_the_stop() {
    let world = settled(5);
    world.when(
        |c| c.replica_count(NodeId(5)) < 20,
        |c| {
            c.kill_node(&address(2));
        },
    );
    let ports = world.ports();
    let journal = ports.journal.clone();
    let stopped = stopped(run(&world, ports, scale_in(&[5])).await);
    assert!(world.cluster().listening(&address(5)), "it was not stopped: {stopped:?}");
    // The survivor comes back; the operation goes on from its journal.
    let start = SimHost::numbered(2).node_start(StartMode::MultiReplica, vec![address(1)]);
    world.cluster().start_node(start).unwrap();
    world.advance(Duration::from_secs(120));
    let ports = Ports { journal, ..world.ports() };
    match Operation::resume(ports).await.unwrap().run().await {
        End::Done(_) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(world.cluster().replica_count(NodeId(5)), 0);
    assert!(!world.cluster().listening(&address(5)));
}

#[tokio::test]
async fn someone_elses_recommission_is_noticed_before_the_stop() {
    let world = settled(4);
    world.when(|c| c.replica_count(NodeId(4)) < 20, |c| drop(c.recommission(&address(2), &[NodeId(4)])));
    let stopped = stopped(run(&world, world.ports(), scale_in(&[4])).await);
    assert!(stopped.message.contains("recommission"), "{stopped:?}");
    assert!(world.cluster().listening(&address(4)));
    assert!(world.cluster().replica_count(NodeId(4)) > 0);
}

#[tokio::test]
async fn answers_that_get_lost_do_not_get_the_act_done_wrongly() {
    for call in [Call::Mark, Call::Stop] {
        let world = settled(4);
        let ports = world.ports();
        let lose = |kind| Fault::LoseAnswer(kind);
        let control = Faulty::new(&world, ports.control.clone()).with(
            call,
            Which::Nth(1),
            lose(PortErrorKind::ConnectionLost),
        );
        let lifecycle = Faulty::new(&world, ports.lifecycle.clone()).with(
            call,
            Which::Nth(1),
            lose(PortErrorKind::ConnectionLost),
        );
        let ports = Ports { control: Arc::new(control), lifecycle: Arc::new(lifecycle), ..ports };
        let journal = ports.journal.clone();
        let end = match run(&world, ports, scale_in(&[4])).await {
            End::Stopped(_) => {
                let ports = Ports { journal, ..world.ports() };
                Operation::resume(ports).await.unwrap().run().await
            }
            end => end,
        };
        assert!(matches!(end, End::Done(_)), "{call:?}: {end:?}");
        assert!(!world.cluster().listening(&address(4)), "{call:?}");
        assert_eq!(world.cluster().replica_count(NodeId(4)), 0);
    }
}

#[tokio::test]
async fn a_liar_that_shows_no_replicas_does_not_get_a_full_node_stopped() {
    let world = settled(4);
    let ports = world.ports();
    // One gateway answers every count with zero.
    let lie: kwdb_scale_sim::memory::Edit = Arc::new(|_, answer| {
        if answer.gateway == address(1)
            && let Rows::ReplicaCounts(rows) = &mut answer.rows
        {
            rows.iter_mut().for_each(|r| r.replicas = 0);
        }
    });
    let facts = Faulty::new(&world, ports.facts.clone()).with(Call::Fetch, Which::All, Fault::Falsify(lie));
    // And the node cannot be emptied: two of three that stay are there.
    world.when(
        |c| c.replica_count(NodeId(4)) < 30,
        |c| {
            c.freeze_node(&address(3), true);
        },
    );
    let ports = Ports { facts: Arc::new(facts), ..ports };
    let end = run(&world, ports, scale_in(&[4])).await;
    let held = world.cluster().replica_count(NodeId(4));
    assert!(held > 0 && world.cluster().listening(&address(4)), "{held} replicas; {end:?}");
}

/// From its so-many-th question on one gateway never answers again: its process is stopped, its connections stay.
#[derive(Debug)]
struct Hangs {
    inner: Arc<dyn FactSource>,
    from: usize,
    asked: AtomicUsize,
}

#[async_trait]
impl FactSource for Hangs {
    fn seeds(&self) -> Vec<Address> {
        self.inner.seeds()
    }

    async fn fetch(&self, gateway: &Address, query: &Query) -> Result<Answer, PortError> {
        // A scan has a deadline of its own, which is the source's matter.
        let scans = matches!(query, Query::Ranges | Query::ReplicaCounts(_));
        if *gateway == address(1) && !scans && self.asked.fetch_add(1, Ordering::SeqCst) >= self.from {
            std::future::pending::<()>().await;
        }
        self.inner.fetch(gateway, query).await
    }
}

#[tokio::test]
async fn a_gateway_that_hangs_does_not_hold_up_what_others_say() {
    for from in [20, 60] {
        let world = settled(5);
        let ports = world.ports();
        let facts = Arc::new(Hangs { inner: ports.facts.clone(), from, asked: AtomicUsize::new(0) });
        let end = run(&world, Ports { facts: facts.clone(), ..ports }, scale_in(&[5])).await;
        assert!(matches!(end, End::Done(_)), "{end:?}");
        assert!(facts.asked.load(Ordering::SeqCst) > from, "it never hung");
        assert!(!world.cluster().listening(&address(5)));
    }
}

/// What the server's own status is asked through, and how often nodes are marked. Through one member it counts more.
#[derive(Debug)]
struct Statuses {
    inner: Arc<dyn DecommissionControl>,
    more: Option<(NodeId, u64)>,
    marks: AtomicUsize,
    asked: Mutex<BTreeSet<NodeId>>,
}

#[async_trait]
impl DecommissionControl for Statuses {
    async fn mark(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        self.marks.fetch_add(1, Ordering::SeqCst);
        self.inner.mark(via, nodes, deadline).await
    }

    async fn recommission(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        self.inner.recommission(via, nodes, deadline).await
    }

    async fn status(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Option<Vec<DecommissionStatus>>, PortError> {
        self.asked.lock().unwrap().insert(via.node);
        let mut said = self.inner.status(via, nodes, deadline).await?;
        if let Some((_, more)) = self.more.filter(|(node, _)| *node == via.node) {
            said.iter_mut().flatten().for_each(|status| status.replicas += more);
        }
        Ok(said)
    }
}

#[tokio::test]
async fn emptiness_is_the_servers_own_word_through_two_members_and_nothing_is_marked_again() {
    for more in [None, Some((NodeId(1), 1)), Some((NodeId(2), 1))] {
        let world = settled(4);
        let ports = world.ports();
        let control = Arc::new(Statuses {
            inner: ports.control.clone(),
            more,
            marks: AtomicUsize::new(0),
            asked: Mutex::default(),
        });
        let end = run(&world, Ports { control: control.clone(), ..ports }, scale_in(&[4])).await;
        assert_eq!(control.marks.load(Ordering::SeqCst), 1);
        assert_eq!(*control.asked.lock().unwrap(), BTreeSet::from([NodeId(1), NodeId(2)]));
        assert_eq!(world.cluster().replica_count(NodeId(4)), 0);
        assert_eq!(world.cluster().listening(&address(4)), more.is_some(), "{end:?}");
        match (end, more) {
            (End::Done(_), None) => {}
            (End::Stopped(stopped), Some((node, _))) => {
                let words = format!("1 through {}", address(u16::try_from(node.0).unwrap()));
                assert!(stopped.message.contains(&words), "{stopped:?}");
            }
            (end, more) => panic!("{more:?}: {end:?}"),
        }
    }
}

/// A crash after any record of the journal: what is resumed ends well.
#[tokio::test]
async fn resume_after_a_crash_at_any_record() {
    let before = settled(4);
    let world = before.fork();
    let journal = MemJournal::default();
    let ports = Ports { journal: Arc::new(journal.clone()), ..world.ports() };
    assert!(matches!(run(&world, ports, scale_in(&[4])).await, End::Done(_)));
    let records = journal.records().await.unwrap().len();
    for crash in 1..records {
        let world = before.fork();
        let journal = MemJournal::default();
        let limited = Arc::new(Limited { inner: journal.clone(), after: crash });
        let ports = Ports { journal: limited, lock: Arc::new(MemLock::default()), ..world.ports() };
        let plan = planned(&world, &ports, scale_in(&[4])).await.unwrap();
        if let Ok(mut operation) = Operation::begin(plan, ports).await {
            let _ = operation.run().await;
        }
        let ports = Ports { journal: Arc::new(journal.cut(crash)), ..world.ports() };
        let end = Operation::resume(ports).await.unwrap().run().await;
        assert!(matches!(end, End::Done(_)), "after record {crash} of {records}: {end:?}");
        assert_eq!(world.cluster().replica_count(NodeId(4)), 0);
        assert!(!world.cluster().listening(&address(4)));
    }
}

/// A journal on a disk that goes away.
#[derive(Debug)]
struct Limited {
    inner: MemJournal,
    after: usize,
}

#[async_trait::async_trait]
impl kwdb_scale_core::ports::Journal for Limited {
    async fn append(&self, record: &JournalRecord) -> Result<(), PortError> {
        if self.inner.records().await?.len() >= self.after {
            return Err(PortError::new(PortErrorKind::Other, "the disk is gone"));
        }
        self.inner.append(record).await
    }

    async fn records(&self) -> Result<Vec<JournalRecord>, PortError> {
        self.inner.records().await
    }
}
