//! The machine against a small hostile world: whatever happens between two looks, no act breaks a rule, and the
//! journal always gives back the durable state.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod cut;
mod joins;
mod overlap;
mod status;
mod world;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use kwdb_scale_core::execute::{
    Act, ActResult, Cancel, Effect, End, Event, Ledger, Order, Record, State, StopReason, step,
};
use kwdb_scale_core::plan::Plan;
use kwdb_scale_core::ports::{Enqueued, PortErrorKind};
use kwdb_scale_core::request::{NodeRef, Operation, Options, Pace};
use kwdb_scale_core::topology::NodeId;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use world::{Queue, World, address, host, make_plan, make_plan_at, make_plan_with};

/// What may happen before a look is answered.
#[derive(Clone, Debug)]
enum Mishap {
    Nothing,
    Move(u8),
    KillStaying,
    ReviveStaying,
    KillLeaving,
    CutLeaving,
    HealLeaving,
    Recommission,
    Freeze,
    Thaw,
    Silence(u32),
    Speak,
    LoseNextAct,
    FailNextAct,
    CrashAndResume,
    CancelLeave,
    CancelUndo,
    Queue(Queue),
    /// The operator is killed in the next act and undoes; a mark is done so many seconds later.
    OrphanNextAct(u8),
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        30 => Just(Mishap::Nothing),
        30 => (1..6_u8).prop_map(Mishap::Move),
        2 => Just(Mishap::KillStaying),
        4 => Just(Mishap::ReviveStaying),
        1 => Just(Mishap::KillLeaving),
        2 => Just(Mishap::CutLeaving),
        2 => Just(Mishap::HealLeaving),
        1 => Just(Mishap::Recommission),
        2 => Just(Mishap::Freeze),
        4 => Just(Mishap::Thaw),
        3 => (1..4_u32).prop_map(Mishap::Silence),
        6 => Just(Mishap::Speak),
        3 => Just(Mishap::LoseNextAct),
        2 => Just(Mishap::FailNextAct),
        3 => Just(Mishap::CrashAndResume),
        1 => Just(Mishap::CancelLeave),
        1 => Just(Mishap::CancelUndo),
        1 => (1..30_u8).prop_map(Mishap::OrphanNextAct),
        6 => queue().prop_map(Mishap::Queue),
    ]
}

fn queue() -> impl Strategy<Value = Queue> {
    prop_oneof![
        4 => Just(Queue::Works),
        1 => Just(Queue::Absent),
        1 => Just(Queue::Silent),
        1 => Just(Queue::Denies),
        1 => Just(Queue::Says(Enqueued::Processed)),
        1 => Just(Queue::Says(Enqueued::Stale("n1 has no replica for r1".into()))),
        1 => Just(Queue::Says(Enqueued::Failed("0 of 2 live stores are able to take a new replica".into()))),
    ]
}

/// Which acts are meant.
type Of = fn(&Act) -> bool;

struct Run {
    world: World,
    state: State,
    records: Vec<Record>,
    leaving: Vec<u32>,
    lose: bool,
    fail: bool,
    orphan: Option<u8>,
    /// From the first such act on, so many seconds long, each fails because its host is away.
    away: Option<(Of, i64)>,
    away_until: Option<jiff::Timestamp>,
    /// The first leaving node is cut off once it is empty, and reached again after so many looks, if at all.
    cut_when_empty: Option<Option<usize>>,
    /// The world as the last look saw it.
    seen: Option<World>,
    confirmed: BTreeMap<NodeId, u64>,
    waiting_for: String,
    replayed: usize,
}

impl Run {
    fn new(world: World, plan: Plan) -> Self {
        let leaving = plan.leaving.iter().map(|l| l.node.0).collect();
        let records = vec![Record::Begun { plan: Box::new(plan.clone()) }];
        Self {
            world,
            state: State::new(plan),
            records,
            leaving,
            lose: false,
            fail: false,
            orphan: None,
            away: None,
            away_until: None,
            cut_when_empty: None,
            seen: None,
            confirmed: BTreeMap::new(),
            waiting_for: String::new(),
            replayed: 0,
        }
    }

    fn check_act(&self, order: &Order) {
        let plan = &self.state.ledger.plan;
        assert!(self.state.ledger.admitted, "an act before the preflight");
        assert!(!self.leaving.contains(&order.via.node.0), "a leaving node is the gateway");
        match &order.act {
            Act::Mark { nodes } => {
                let leaving: Vec<NodeId> = plan.leaving.iter().map(|l| l.node).collect();
                let mut batches = leaving.chunks(plan.request.options.at_a_time(leaving.len()));
                assert!(batches.any(|batch| batch == nodes), "{nodes:?} are no batch of {leaving:?}");
                let before = self.state.ledger.marked.iter().filter(|n| !nodes.contains(n));
                for node in before {
                    assert_eq!(self.world.replicas(node.0), 0, "marked before node {} was empty", node.0);
                }
            }
            Act::Stop { node } => {
                let seen = self.seen.as_ref().unwrap();
                assert!(seen.nodes[&node.0].bit, "stopped without the bit");
                assert_eq!(seen.replicas(node.0), 0, "stopped with replicas");
                assert_eq!(self.confirmed.get(node), Some(&0), "stopped without confirmation");
                for (id, n) in &seen.nodes {
                    assert!(n.up || self.leaving.contains(id), "stopped while member {id} was down");
                }
            }
            Act::Confirm { .. } => {
                let other = order.also.as_ref().map(|also| also.node);
                assert!(other.is_some_and(|other| other != order.via.node), "confirmed by one member alone");
                assert!(!self.leaving.contains(&other.unwrap().0), "a leaving node confirms");
            }
            Act::Start { host, join, .. } => {
                let there = self.world.nodes.values().filter(|n| n.host == *host).count();
                assert_eq!(there, 0, "started twice");
                assert!(!join.is_empty() && !join.contains(&address(host)));
                assert!(self.leaving.iter().all(|l| !join.contains(&address(&self.world.nodes[l].host))));
            }
            Act::Recommission { nodes } => {
                assert!(nodes.iter().all(|n| self.state.ledger.marked.contains(n)));
                // One that was told to stop is taken back only while it is up.
                let up = |n: &NodeId| self.world.nodes[&n.0].up;
                assert!(nodes.iter().all(|n| !self.state.ledger.stopped.contains(n) || up(n)));
            }
            _ => {}
        }
    }

    fn feed(&mut self, event: Event) -> Option<Effect> {
        let (state, effects) = step(&self.state, self.world.now, event);
        let mut blocking = None;
        for effect in effects {
            assert!(blocking.is_none(), "an effect follows one that waits for an event");
            match effect {
                Effect::Record(record) => self.records.push(record),
                Effect::Notify(_) => {}
                other => blocking = Some(other),
            }
        }
        self.state = state;
        if self.records.len() > self.replayed {
            self.replayed = self.records.len();
            let replayed = Ledger::replay(&self.records).unwrap();
            assert_eq!(replayed, self.state.ledger, "a replay gives another state");
        }
        blocking
    }

    fn resume(&mut self) {
        let mut ledger = Ledger::replay(&self.records).unwrap();
        ledger.apply(&Record::Resumed).unwrap();
        self.records.push(Record::Resumed);
        self.state = State::resume(ledger);
        self.confirmed.clear();
    }

    fn cut_or_heal(&mut self) {
        let Some((heals_after, leaving)) = self.cut_when_empty.as_mut().zip(self.leaving.first()) else {
            return;
        };
        if self.world.replicas(*leaving) > 0 {
            return;
        }
        match heals_after {
            Some(0) => self.world.cut.clear(),
            Some(left) => {
                *left -= 1;
                self.world.cut.insert(*leaving);
            }
            None => drop(self.world.cut.insert(*leaving)),
        }
    }

    fn suffer(&mut self, mishap: &Mishap) -> Option<Event> {
        let staying = self.world.nodes.keys().find(|id| !self.leaving.contains(id)).copied().unwrap();
        match mishap {
            Mishap::Nothing => {}
            Mishap::Move(n) => (0..*n).for_each(|_| self.world.allocate()),
            Mishap::KillStaying => self.world.nodes.get_mut(&staying).unwrap().up = false,
            Mishap::ReviveStaying => self.world.nodes.get_mut(&staying).unwrap().up = true,
            Mishap::KillLeaving => {
                if let Some(l) = self.leaving.first() {
                    self.world.nodes.get_mut(l).unwrap().up = false;
                }
            }
            Mishap::CutLeaving => self.world.cut.extend(self.leaving.first()),
            Mishap::HealLeaving => self.world.cut.clear(),
            Mishap::Recommission => {
                if let Some(l) = self.leaving.first() {
                    self.world.nodes.get_mut(l).unwrap().bit = false;
                }
            }
            Mishap::Freeze => self.world.moving = false,
            Mishap::Thaw => self.world.moving = true,
            Mishap::Silence(n) => {
                self.world.silent.insert(*n);
            }
            Mishap::Speak => self.world.silent.clear(),
            Mishap::LoseNextAct => self.lose = true,
            Mishap::FailNextAct => self.fail = true,
            Mishap::CrashAndResume => {
                self.resume();
                return Some(Event::Start);
            }
            Mishap::OrphanNextAct(seconds) => self.orphan = Some(*seconds),
            Mishap::CancelLeave => return Some(Event::Cancel(Cancel::Leave)),
            Mishap::Queue(queue) => self.world.queue = queue.clone(),
            Mishap::CancelUndo => return Some(Event::Cancel(Cancel::Undo)),
        }
        None
    }

    fn run(mut self, mishaps: &[Mishap]) -> (World, End, Vec<Record>) {
        let mut script = mishaps.iter();
        let mut event = Event::Start;
        for _ in 0..3000 {
            let blocking = self.feed(event.clone());
            if let Some(end) = self.state.ledger.ended.clone() {
                return (self.world, end, self.records);
            }
            event = match blocking.expect("neither waiting nor ended") {
                Effect::Look(look) => {
                    for (gateway, query) in &look.asks {
                        let leaving = self.leaving.iter().any(|l| address(&host(*l)) == *gateway);
                        assert!(!leaving, "{query:?} was put to a leaving node");
                    }
                    self.cut_or_heal();
                    match script.next().and_then(|m| self.suffer(m)) {
                        Some(event) => event,
                        None => {
                            self.seen = Some(self.world.clone());
                            Event::Looked(self.world.answer(&look))
                        }
                    }
                }
                Effect::Act(order) => {
                    self.check_act(&order);
                    if let Some(seconds) = self.orphan.take() {
                        if matches!(order.act, Act::Mark { .. } | Act::Confirm { .. }) {
                            self.world.later(seconds, *order);
                        } else {
                            self.world.act(&order);
                        }
                        self.resume();
                        event = Event::Cancel(Cancel::Undo);
                        continue;
                    }
                    let now = self.world.now;
                    let away = self.away.filter(|(of, _)| of(&order.act)).is_some_and(|(_, seconds)| {
                        let until = now + jiff::SignedDuration::from_secs(seconds);
                        now < *self.away_until.get_or_insert(until)
                    });
                    if away || std::mem::take(&mut self.fail) {
                        let kind = PortErrorKind::Unreachable;
                        Event::Acted(ActResult::Failed { kind, message: "refused".into() })
                    } else {
                        let result = self.world.act(&order);
                        if let ActResult::Counted(counts) = &result {
                            self.confirmed.extend(counts.clone());
                        }
                        if std::mem::take(&mut self.lose) {
                            let kind = PortErrorKind::ConnectionLost;
                            Event::Acted(ActResult::Failed { kind, message: "lost".into() })
                        } else {
                            Event::Acted(result)
                        }
                    }
                }
                Effect::Sleep { until, waiting_for } => {
                    self.waiting_for = waiting_for;
                    self.world.now = until;
                    self.world.catch_up();
                    self.world.allocate();
                    Event::Woke
                }
                Effect::Record(_) | Effect::Notify(_) => unreachable!(),
            };
        }
        panic!("no end after 3000 events; waiting for {}", self.waiting_for);
    }
}

fn prove_end(world: &World, leaving: &[u32], joined: &[u32], end: &End) {
    if matches!(end, End::Done(_)) {
        for l in leaving {
            assert!(!world.nodes[l].up && world.nodes[l].bit && world.replicas(*l) == 0);
        }
        for j in joined {
            assert!(world.nodes.values().any(|n| n.host == host(*j) && n.up && !n.bit));
        }
    }
    if matches!(end, End::Undone(_)) {
        assert!(world.orphans.is_empty(), "what was begun goes on after an undo");
    }
}

#[test]
fn a_host_that_is_away_for_a_minute_ends_no_operation() {
    let acts: [Of; 3] = [
        |act| matches!(act, Act::Mark { .. }),
        |act| matches!(act, Act::Confirm { .. }),
        |act| matches!(act, Act::Stop { .. }),
    ];
    let scale_in = || Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] };
    for act in acts {
        let world = World::new(5);
        let plan = make_plan(&world, scale_in());
        let mut run = Run::new(world, plan);
        run.away = Some((act, 60));
        let (world, end, records) = run.run(&[]);
        assert!(matches!(end, End::Done(_)), "{end:?}");
        prove_end(&world, &[4], &[], &end);
        let failed = |r: &&Record| matches!(r, Record::Outcome { result: ActResult::Failed { .. }, .. });
        let tries = records.iter().filter(failed).count();
        assert!((4..=10).contains(&tries), "tried again {tries} times in a minute");

        // One that stays away stops it, within minutes, and says how often it was tried.
        let world = World::new(5);
        let plan = make_plan(&world, scale_in());
        let begun = world.now;
        let mut run = Run::new(world, plan);
        run.away = Some((act, 86_400));
        let (world, end, _) = run.run(&[]);
        let End::Stopped(stopped) = end else { panic!("{end:?}") };
        assert_eq!(stopped.reason, StopReason::GateClosed, "{stopped:?}");
        assert!(stopped.message.contains("times in 2m: refused"), "{}", stopped.message);
        assert!(world.now.duration_since(begun) < jiff::SignedDuration::from_mins(30));
    }
}

#[test]
fn a_quiet_world_lets_everything_through() {
    let world = World::new(5);
    let nodes = vec![NodeRef::Id(NodeId(4)), NodeRef::Host(host(5))];
    let plan = make_plan(&world, Operation::ScaleIn { nodes });
    let (world, end, records) = Run::new(world, plan).run(&[]);
    assert!(matches!(end, End::Done(_)), "{end:?}");
    prove_end(&world, &[4, 5], &[], &end);
    let marks = records.iter().filter(|r| matches!(r, Record::Intent { act: Act::Mark { .. }, .. })).count();
    assert_eq!(marks, 1, "all targets are marked in one command");

    let world = World::new(6);
    let nodes = [4, 5, 6].map(|n| NodeRef::Id(NodeId(n))).to_vec();
    let options = Options { batch: NonZeroU32::new(2), ..Options::default() };
    let plan = make_plan_with(options, &world, Operation::ScaleIn { nodes });
    let (world, end, records) = Run::new(world, plan).run(&[]);
    assert!(matches!(end, End::Done(_)), "{end:?}");
    prove_end(&world, &[4, 5, 6], &[], &end);
    let marked = records.iter().filter_map(|r| match r {
        Record::Intent { act: Act::Mark { nodes }, .. } => Some(nodes.len()),
        _ => None,
    });
    assert_eq!(marked.collect::<Vec<_>>(), [2, 1], "in batches of two");

    let plan = make_plan(&World::new(3), Operation::ScaleOut { hosts: vec![host(7), host(8)] });
    let (world, end, _) = Run::new(World::new(3), plan).run(&[]);
    assert!(matches!(end, End::Done(_)), "{end:?}");
    prove_end(&world, &[], &[7, 8], &end);
}

#[test]
fn a_standstill_is_explained() {
    let mut world = World::new(4);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] });
    world.moving = false;
    let left = world.replicas(4);
    let (_, end, _) = Run::new(world, plan).run(&[]);
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::Stalled);
    assert_eq!(stopped.evidence.len() as u64, left, "{:?}", stopped.evidence);
    assert!(stopped.next.iter().any(|n| n.starts_with("recommission 4")), "{:?}", stopped.next);
}

/// How long a scale-in of one node takes, and how often a server is asked to look at a range.
fn scale_in_at(pace: Pace, queue: Queue) -> (i64, usize, End) {
    let mut world = World::new(4);
    let nodes = vec![NodeRef::Id(NodeId(4))];
    let plan = make_plan_at(pace, &world, Operation::ScaleIn { nodes });
    world.queue = queue;
    let began = world.now;
    let (world, end, _) = Run::new(world, plan).run(&[]);
    prove_end(&world, &[4], &[], &end);
    (world.now.duration_since(began).as_secs(), world.asked.len(), end)
}

#[test]
fn servers_are_asked_to_look_sooner() {
    let (documented, none, end) = scale_in_at(Pace::Server, Queue::Works);
    assert!(none == 0 && matches!(end, End::Done(_)), "{end:?}");
    for pace in [Pace::Tail, Pace::Full] {
        let (quick, asked, end) = scale_in_at(pace, Queue::Works);
        assert!(quick < documented && asked > 0, "{pace:?}: {quick} s of {documented} s, {asked} asked");
        let End::Done(notes) = end else { panic!("{end:?}") };
        let told = format!("{asked} times a server was asked to look at a range");
        assert!(notes.iter().any(|n| n.contains(&told)), "{notes:?}");
    }
    // What the queues say changes nothing of what becomes of it.
    for queue in [
        Queue::Absent,
        Queue::Silent,
        Queue::Denies,
        Queue::Says(Enqueued::Processed),
        Queue::Says(Enqueued::Raced("descriptor changed".into())),
    ] {
        let (_, asked, end) = scale_in_at(Pace::Full, queue.clone());
        assert!(matches!(end, End::Done(_)) && asked < 400, "{queue:?}: {asked} asked, {end:?}");
        assert_eq!(asked == 0, queue == Queue::Absent, "{queue:?}: {asked} asked");
    }
}

#[test]
fn a_node_that_says_that_it_is_not_ready_has_not_joined() {
    let mut world = World::new(3);
    let plan = make_plan(&world, Operation::ScaleOut { hosts: vec![host(7)] });
    world.not_ready = 5;
    let (world, end, _) = Run::new(world, plan).run(&[]);
    let End::Done(notes) = end else { panic!("{end:?}") };
    assert!(notes.iter().any(|n| n.contains("ready by its own word")), "{notes:?}");
    assert_eq!(world.not_ready, 0);
}

#[test]
fn where_the_queues_fill_servers_are_asked_less() {
    let asked = |filling: bool| {
        let mut world = World::new(4);
        // Enough for more than one round, before the end is near and looked at often.
        world.ranges = vec![world.ranges; 40].concat();
        let nodes = vec![NodeRef::Id(NodeId(4))];
        let plan = make_plan_at(Pace::Full, &world, Operation::ScaleIn { nodes });
        (world.queue, world.filling) = (Queue::Says(Enqueued::Processed), filling);
        let (world, end, _) = Run::new(world, plan).run(&[]);
        assert!(matches!(end, End::Done(_)), "{end:?}");
        world.asked.len()
    };
    let (calm, busy) = (asked(false), asked(true));
    assert!(busy > 0 && busy * 2 <= calm, "{busy} of {calm}");
}

/// A fifth node makes ranges with a factor of five want two replicas more: each when its scanner comes to it, or at once.
#[test]
fn servers_are_asked_to_look_sooner_for_a_new_node() {
    let scale_out_at = |pace: Pace, queue: Queue| {
        let mut world = World::new(4);
        world.factor = 5;
        let plan = make_plan_at(pace, &world, Operation::ScaleOut { hosts: vec![host(7)] });
        world.queue = queue;
        let began = world.now;
        let (world, end, _) = Run::new(world, plan).run(&[]);
        prove_end(&world, &[], &[7], &end);
        assert!(matches!(end, End::Done(_)), "{end:?}");
        (world.now.duration_since(began).as_secs(), world.asked.len())
    };
    let (documented, none) = scale_out_at(Pace::Server, Queue::Works);
    assert_eq!(none, 0);
    for pace in [Pace::Tail, Pace::Full] {
        let (quick, asked) = scale_out_at(pace, Queue::Works);
        assert!(quick < documented && asked > 0, "{pace:?}: {quick} s of {documented} s, {asked} asked");
    }
    for queue in [Queue::Absent, Queue::Silent, Queue::Denies, Queue::Says(Enqueued::Processed)] {
        let (_, asked) = scale_out_at(Pace::Full, queue.clone());
        assert_eq!(asked == 0, queue == Queue::Absent, "{queue:?}: {asked} asked");
    }
}

#[test]
fn a_standstill_is_explained_in_the_servers_words() {
    let mut world = World::new(4);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] });
    let words = "0 of 3 live stores are able to take a new replica for the range";
    (world.moving, world.queue) = (false, Queue::Says(Enqueued::Failed(words.into())));
    let left = world.replicas(4) as usize;
    let (_, end, _) = Run::new(world, plan).run(&[]);
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    let told = stopped.evidence.iter().filter(|e| e.contains(words)).count();
    assert!(stopped.reason == StopReason::Stalled && told == left, "{left} left: {:?}", stopped.evidence);
}

#[test]
fn drift_is_listed_and_nothing_is_done() {
    let world = World::new(5);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(5))] });
    let mut later = world;
    later.nodes.get_mut(&2).unwrap().up = false;
    let (after, end, records) = Run::new(later, plan).run(&[]);
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::Refused);
    assert!(stopped.evidence.iter().any(|e| e.contains("node 2: class: was member, is dead")), "{stopped:?}");
    assert!(!records.iter().any(|r| matches!(r, Record::Intent { .. })));
    assert!(!after.nodes[&5].bit);
}

/// The preflight finds everything well, and then a member falls silent: that is drift too, not a gate to wait at.
#[test]
fn a_member_that_dies_just_before_the_first_act_is_drift() {
    let world = World::new(5);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(5))] });
    let (after, end, records) = Run::new(world, plan).run(&[Mishap::Nothing, Mishap::KillStaying]);
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::Refused, "{stopped:?}");
    assert!(stopped.evidence.iter().any(|e| e.contains("node 1: class: was member, is dead")), "{stopped:?}");
    assert!(records.contains(&Record::Admitted), "the preflight had passed");
    assert!(!records.iter().any(|r| matches!(r, Record::Intent { .. })) && !after.nodes[&5].bit);
    // One that comes back in time does no harm.
    let world = World::new(5);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(5))] });
    let script =
        [Mishap::Nothing, Mishap::KillStaying, Mishap::Nothing, Mishap::Nothing, Mishap::ReviveStaying];
    let (_, end, _) = Run::new(world, plan).run(&script);
    assert!(matches!(end, End::Done(_)), "{end:?}");
}

#[test]
fn undo_takes_the_mark_back() {
    let world = World::new(4);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] });
    let mishaps: Vec<Mishap> =
        [Mishap::Freeze].into_iter().chain(vec![Mishap::Nothing; 8]).chain([Mishap::CancelUndo]).collect();
    let (world, end, _) = Run::new(world, plan).run(&mishaps);
    assert!(matches!(end, End::Undone(_)), "{end:?}");
    assert!(!world.nodes[&4].bit && world.nodes[&4].up);
}

/// The operator was killed while a mark was under way: it is done later, and the undo must not come before it.
#[test]
fn undo_waits_for_a_mark_that_goes_on() {
    for seconds in [1, 8, 29] {
        let world = World::new(4);
        let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] });
        let (world, end, records) = Run::new(world, plan).run(&[Mishap::OrphanNextAct(seconds)]);
        assert!(matches!(end, End::Undone(_)), "{end:?}");
        prove_end(&world, &[4], &[], &end);
        assert!(!world.nodes[&4].bit && world.nodes[&4].up, "the mark is left");
        let back = |r: &&Record| matches!(r, Record::Intent { act: Act::Recommission { .. }, .. });
        assert_eq!(records.iter().filter(back).count(), 1);
    }
}

/// One that never ends: nothing is claimed.
#[test]
fn undo_is_not_claimed_while_a_mark_goes_on() {
    let world = World::new(4);
    let plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] });
    let (world, end, _) = Run::new(world, plan).run(&[Mishap::OrphanNextAct(200)]);
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::Deadline, "{stopped:?}");
    assert!(stopped.message.contains("the mark still goes on after"), "{stopped:?}");
    assert!(!world.orphans.is_empty());
}

/// Where it cannot be looked up whether the mark goes on, it is waited for as long as it may take, and then undone; the
/// wait is not part of the time that the undo has.
#[test]
fn undo_waits_where_nothing_can_be_looked_up() {
    let mut world = World::new(4);
    let mut plan = make_plan(&world, Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] });
    plan.policy.join_deadline = plan.policy.act_deadline;
    world.blind = true;
    let (world, end, _) = Run::new(world, plan).run(&[Mishap::OrphanNextAct(8)]);
    assert!(matches!(end, End::Undone(_)), "{end:?}");
    assert!(!world.nodes[&4].bit && world.nodes[&4].up, "the mark is left");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/machine/regressions.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_hostile_world_breaks_no_rule(
        mishaps in prop::collection::vec(mishap(), 0..60),
        leave in 1..4_u32,
        batch in prop::option::of((1..3_u32).prop_map(|n| NonZeroU32::new(n).unwrap())),
    ) {
        let world = World::new(6);
        let nodes = (0..leave).map(|n| NodeRef::Id(NodeId(6 - n))).collect();
        let options = Options { batch, ..Options::default() };
        let plan = make_plan_with(options, &world, Operation::ScaleIn { nodes });
        let leaving: Vec<u32> = plan.leaving.iter().map(|l| l.node.0).collect();
        let (world, end, _) = Run::new(world, plan).run(&mishaps);
        prove_end(&world, &leaving, &[], &end);
    }

    #[test]
    fn replacing_in_a_hostile_world_breaks_no_rule(mishaps in prop::collection::vec(mishap(), 0..60)) {
        let world = World::new(4);
        let nodes = vec![NodeRef::Id(NodeId(4))];
        let plan = make_plan(&world, Operation::Replace { nodes, hosts: vec![host(8)] });
        let (world, end, _) = Run::new(world, plan).run(&mishaps);
        prove_end(&world, &[4], &[8], &end);
    }
}
