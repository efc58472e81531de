//! The pure machine: what happened goes in, what is to be done comes out. No async, no clock, no I/O.
//!
//! Each step is a small reconciler: look, judge the fresh facts, then act, wait, or be done. Because every
//! judgement starts from what is true now, taking up an operation after a crash needs nothing special: the journal
//! is replayed and the step at hand looks again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::event::{Effect, Event, Looked, Order, Progress};
use super::nudge::Nudges;
use super::record::{Act, ActResult, Cancel, End, Ledger, Record, StopReason, Stopped};
use super::steps;
use super::watch::{DrainWatch, Samples};
use crate::observation::Observation;
use crate::plan::{Plan, Step};
use crate::policy::Policy;
use crate::ports::{Gateway, StopNode};
use crate::topology::{Address, HostName, NodeId, RangeId};

/// How long a gateway that did not answer is left alone; doubled with each time up to [`LONGEST_REST`].
const GATEWAY_REST: SignedDuration = SignedDuration::from_secs(15);
const LONGEST_REST: SignedDuration = SignedDuration::from_mins(4);

/// A gateway that did not answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rest {
    until: Timestamp,
    length: SignedDuration,
}

/// An operation: the durable part and what is only known while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The durable part: what a replay of the journal gives.
    pub ledger: Ledger,
    pub(super) scratch: Scratch,
}

/// What is at hand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    Preflight,
    Step,
    Undo,
}

/// What is known only while the operation runs; a resume begins with an empty one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scratch {
    pub stage: Stage,
    pub entered: Option<Timestamp>,
    pub resting: BTreeMap<Address, Rest>,
    /// How long the scans of the last look took.
    pub scan_took: SignedDuration,
    /// Since when fewer members answer than must agree.
    pub blind_since: Option<Timestamp>,
    pub samples: Samples,
    pub drain: DrainWatch,
    pub nudges: Nudges,
    /// Ranges that want one more replica, by the last look.
    pub short: Vec<RangeId>,
    pub tries: u32,
    /// Since when acts of the step at hand fail, whatever else was done between them.
    pub failing_since: Option<Timestamp>,
    /// The next look also reads what range health needs.
    pub want_health: bool,
    /// The next look also looks at the host.
    pub want_host: bool,
    /// The next look also lists ranges left.
    pub want_leftovers: bool,
    /// Whether the ranges left were listed for the stall at hand.
    pub gate_since: Option<Timestamp>,
    /// Since when the cluster is not fit for the first act, over all the looks before it.
    pub unfit_since: Option<Timestamp>,
    pub acted_at: Option<Timestamp>,
    /// The gateway of the last act.
    pub acted_via: Option<Address>,
    pub said: BTreeSet<String>,
    pub settled: Option<(Vec<(u32, u64)>, Timestamp)>,
    /// When the node that was stopped had started, by the members that stay.
    pub stopped_start: Option<Timestamp>,
    /// Since when everything says that it is down.
    pub down_since: Option<Timestamp>,
    /// Hosts that were seen to have the certificates that they had before, since the last act.
    pub as_before: BTreeSet<HostName>,
    /// Acts that were begun and are held for over, each with the reason why that could not be looked up, if so.
    pub over: Vec<(Act, Option<String>)>,
    /// Acts that were begun and of which nothing is seen, with the time since when.
    pub quiet: Vec<(Act, Timestamp)>,
}

impl Scratch {
    fn new(stage: Stage) -> Self {
        Self {
            stage,
            entered: None,
            resting: BTreeMap::new(),
            blind_since: None,
            scan_took: SignedDuration::ZERO,
            samples: Samples::default(),
            drain: DrainWatch::default(),
            nudges: Nudges::default(),
            short: Vec::new(),
            tries: 0,
            failing_since: None,
            want_health: false,
            want_host: false,
            want_leftovers: false,
            gate_since: None,
            unfit_since: None,
            acted_at: None,
            acted_via: None,
            said: BTreeSet::new(),
            settled: None,
            stopped_start: None,
            down_since: None,
            as_before: BTreeSet::new(),
            over: Vec::new(),
            quiet: Vec::new(),
        }
    }
}

/// What a judgement comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Look again at once (for more).
    Again,
    /// Look again after a pause.
    Wait(String),
    /// Nothing was done yet, and these facts speak against beginning: compare with the plan once more.
    Unfit(Vec<String>),
    /// Change something.
    Act(Act),
    /// The end condition is proven by this.
    Done(String),
    /// Stop the operation.
    Stop(Stopped),
}

impl Verdict {
    pub(super) fn stop(reason: StopReason, message: impl Into<String>) -> Self {
        Self::Stop(Stopped { reason, message: message.into(), evidence: Vec::new(), next: Vec::new() })
    }

    pub(super) fn stop_with(
        reason: StopReason,
        message: impl Into<String>,
        evidence: Vec<String>,
        next: Vec<String>,
    ) -> Self {
        Self::Stop(Stopped { reason, message: message.into(), evidence, next })
    }
}

/// A judgement's surroundings.
pub(super) struct Ctx<'a> {
    pub at: Timestamp,
    pub state: &'a mut State,
    pub looked: &'a Looked,
    /// Facts by the first gateway that answered; the second is in `other_views`.
    pub obs: &'a Observation,
    pub notify: &'a mut Vec<Progress>,
    pub records: &'a mut Vec<Record>,
}

impl Ctx<'_> {
    pub(super) fn plan(&self) -> std::sync::Arc<Plan> {
        self.state.ledger.plan.clone()
    }

    /// When the step at hand was entered, in this run.
    pub(super) fn entered(&self) -> Timestamp {
        self.state.scratch.entered.unwrap_or(self.at)
    }

    /// Tells the caller something once.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.state.scratch.said.insert(text.clone()) {
            self.notify.push(Progress::Note { text });
        }
    }

    /// Since when a condition between steps is not met.
    pub(super) fn gate_open_for(&mut self) -> SignedDuration {
        let since = *self.state.scratch.gate_since.get_or_insert(self.at);
        self.at.duration_since(since)
    }
}

impl State {
    /// An operation that begins.
    pub fn new(plan: Plan) -> Self {
        Self { ledger: Ledger::new(plan), scratch: Scratch::new(Stage::Preflight) }
    }

    /// An operation that goes on after a replay.
    pub fn resume(ledger: Ledger) -> Self {
        let stage = match (ledger.cancel, ledger.admitted) {
            (Some(Cancel::Undo), _) => Stage::Undo,
            (_, true) => Stage::Step,
            (_, false) => Stage::Preflight,
        };
        Self { ledger, scratch: Scratch::new(stage) }
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.ledger.plan.policy
    }

    /// Up to two gateways that answered lately, in the plan's order.
    pub(super) fn gateways(&self, at: Timestamp) -> Vec<&Gateway> {
        let plan = &self.ledger.plan;
        let mut list: Vec<&Gateway> = plan.gateways.iter().filter(|g| self.is_rested(g, at)).collect();
        if list.len() < 2 {
            list.extend(plan.gateways.iter().filter(|g| !self.is_rested(g, at)));
        }
        list.truncate(2);
        list
    }

    fn is_rested(&self, gateway: &Gateway, at: Timestamp) -> bool {
        self.scratch.resting.get(&gateway.sql_address).is_none_or(|rest| rest.until <= at)
    }

    fn rest(&mut self, address: Address, at: Timestamp) {
        let length =
            self.scratch.resting.get(&address).map_or(GATEWAY_REST, |r| (r.length * 2).min(LONGEST_REST));
        self.scratch.resting.insert(address, Rest { until: later(at, length), length });
    }

    /// How many views must agree: two, or as many members as stay.
    pub(super) fn views_needed(&self) -> usize {
        self.ledger.plan.gateways.len().min(2)
    }

    pub(super) fn step_at_hand(&self) -> Option<&Step> {
        self.ledger.plan.steps.get(self.ledger.cursor)
    }

    pub(super) fn stop_target(&self, node: NodeId, at: Timestamp) -> Option<StopNode> {
        let leaving = self.ledger.plan.leaving(node)?;
        Some(StopNode {
            node,
            address: leaving.address.clone(),
            host: leaving.host.clone(),
            via: (*self.gateways(at).first()?).clone(),
            deadline: self.policy().stop_deadline.unsigned_abs(),
        })
    }

    fn enter(&mut self, stage: Stage, at: Timestamp) {
        let resting = std::mem::take(&mut self.scratch.resting);
        let over = std::mem::take(&mut self.scratch.over);
        let Scratch { blind_since, unfit_since, .. } = self.scratch;
        self.scratch =
            Scratch { resting, over, blind_since, unfit_since, entered: Some(at), ..Scratch::new(stage) };
    }

    fn record(&mut self, record: Record, effects: &mut Vec<Effect>) {
        // The machine makes its own records in order, so none is refused; a bug shows as a stopped operation.
        if let Err(e) = self.ledger.apply(&record) {
            let end = End::Stopped(Stopped {
                reason: StopReason::Journal,
                message: e.to_string(),
                evidence: Vec::new(),
                next: Vec::new(),
            });
            self.ledger.ended = Some(end);
            return;
        }
        effects.push(Effect::Record(record));
    }
}

/// One step of the machine.
///
/// `at` is the present by the caller's clock. The effects are to be performed in order; the last one, if it is a
/// look, an act or a sleep, is answered by the next event. An operation has ended when its ledger says so.
pub fn step(state: &State, at: Timestamp, event: Event) -> (State, Vec<Effect>) {
    let mut next = state.clone();
    let mut effects = Vec::new();
    if next.ledger.ended.is_some() {
        return (next, effects);
    }
    match event {
        Event::Start => {
            let stage = next.scratch.stage;
            next.enter(stage, at);
            announce(&next, &mut effects);
            look(&mut next, at, &mut effects);
        }
        Event::Woke => look(&mut next, at, &mut effects),
        Event::Looked(looked) => judge(&mut next, at, &looked, &mut effects),
        Event::Acted(result) => {
            let step = next.ledger.cursor;
            next.scratch.acted_at = Some(at);
            // Looked at for the act; what came of it is asked of the cluster.
            next.scratch.want_host = false;
            if matches!(result, ActResult::Failed { .. }) {
                next.scratch.tries += 1;
                next.scratch.failing_since.get_or_insert(at);
            }
            rest_after(&mut next, at, &result);
            next.record(Record::Outcome { step, result }, &mut effects);
            look(&mut next, at, &mut effects);
        }
        Event::Cancel(how) => cancel(&mut next, at, how, &mut effects),
    }
    (next, effects)
}

/// A gateway through which an act failed for want of an answer is left alone for a while.
fn rest_after(state: &mut State, at: Timestamp, result: &ActResult) {
    if let ActResult::Failed { kind, .. } = result
        && kind.is_transient()
        && let Some(address) = state.scratch.acted_via.clone()
    {
        state.rest(address, at);
    }
}

pub(super) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn announce(state: &State, effects: &mut Vec<Effect>) {
    if state.scratch.stage == Stage::Step && state.step_at_hand().is_some() {
        effects.push(Effect::Notify(Progress::StepStarted {
            step: state.ledger.cursor + 1,
            of: state.ledger.plan.steps.len(),
            what: state.ledger.plan.describe(state.ledger.cursor),
        }));
    }
}

fn cancel(state: &mut State, at: Timestamp, how: Cancel, effects: &mut Vec<Effect>) {
    if state.scratch.stage == Stage::Undo && how == Cancel::Undo {
        return look(state, at, effects);
    }
    state.record(Record::CancelAsked { how }, effects);
    match how {
        Cancel::Leave => {
            let stopped = steps::cancelled(state);
            end(state, End::Stopped(stopped), effects);
        }
        Cancel::Undo => {
            state.enter(Stage::Undo, at);
            look(state, at, effects);
        }
    }
}

fn end(state: &mut State, end: End, effects: &mut Vec<Effect>) {
    state.record(Record::Ended { end: end.clone() }, effects);
    effects.push(Effect::Notify(Progress::Ended { end }));
}

fn look(state: &mut State, at: Timestamp, effects: &mut Vec<Effect>) {
    if state.ledger.ended.is_some() {
        return;
    }
    if state.scratch.stage == Stage::Step && state.step_at_hand().is_none() {
        let notes = state.ledger.notes.clone();
        return end(state, End::Done(notes), effects);
    }
    let mut look = match state.scratch.stage {
        Stage::Preflight => steps::preflight::look(state, at),
        Stage::Undo => steps::undo::look(state, at),
        Stage::Step => steps::look(state, at),
    };
    look.begun = steps::begun::look(state, at);
    effects.push(Effect::Look(look));
}

fn judge(state: &mut State, at: Timestamp, looked: &Looked, effects: &mut Vec<Effect>) {
    note_gateways(state, at, looked);
    state.scratch.scan_took = looked.scan_took;
    match sight(state, at, looked) {
        Sight::Enough => {}
        Sight::AskOthers => return look(state, at, effects),
        Sight::Blind(stopped) => return end(state, End::Stopped(stopped), effects),
    }
    let primary = answered(looked)
        .or_else(|| looked.replies.first().map(|r| r.gateway.clone()))
        .unwrap_or_else(|| Address::new("(no gateway)"));
    let mut obs = Observation::build(&primary, &looked.replies, looked.hosts.clone());
    obs.authority.clone_from(&looked.authority);
    obs.means.clone_from(&looked.means);
    obs.owned.clone_from(&looked.owned);
    let (mut notify, mut records) = (Vec::new(), Vec::new());
    let stage = state.scratch.stage;
    let verdict = {
        let mut ctx =
            Ctx { at, state: &mut *state, looked, obs: &obs, notify: &mut notify, records: &mut records };
        match (steps::begun::judge(&mut ctx), stage) {
            (Some(verdict), _) => verdict,
            (None, Stage::Preflight) => steps::preflight::judge(&mut ctx),
            (None, Stage::Undo) => steps::undo::judge(&mut ctx),
            (None, Stage::Step) => steps::judge(&mut ctx),
        }
    };
    effects.extend(notify.into_iter().map(Effect::Notify));
    for record in records {
        state.record(record, effects);
    }
    match verdict {
        Verdict::Again => look(state, at, effects),
        Verdict::Wait(waiting_for) => wait(state, at, waiting_for, effects),
        Verdict::Unfit(why) => unfit(state, at, why, effects),
        Verdict::Act(act) => order(state, at, act, effects),
        Verdict::Stop(stopped) => end(state, End::Stopped(stopped), effects),
        Verdict::Done(note) => done(state, at, note, effects),
    }
}

enum Sight {
    /// Enough members answered, or there is hope that they will.
    Enough,
    /// Too few of those asked answered, but others can be asked at once.
    AskOthers,
    /// Too few answered for the policy's stall time.
    Blind(Stopped),
}

fn sight(state: &mut State, at: Timestamp, looked: &Looked) -> Sight {
    let asked: BTreeSet<&Address> = looked.replies.iter().map(|r| &r.gateway).collect();
    let asked = state.ledger.plan.gateways.iter().filter(|g| asked.contains(&g.sql_address)).count();
    let needed = state.views_needed().min(asked);
    let answers =
        |g: &&Gateway| looked.replies.iter().any(|r| r.gateway == g.sql_address && r.result.is_ok());
    let answered = state.ledger.plan.gateways.iter().filter(answers).count();
    if answered >= needed {
        state.scratch.blind_since = None;
        return Sight::Enough;
    }
    let rested = state.ledger.plan.gateways.iter().filter(|g| state.is_rested(g, at)).count();
    if rested >= needed {
        return Sight::AskOthers;
    }
    let since = *state.scratch.blind_since.get_or_insert(at);
    let limit = state.policy().stall_after;
    if at.duration_since(since) < limit {
        return Sight::Enough;
    }
    let evidence = looked.replies.iter().filter_map(|r| r.result.as_ref().err().cloned()).collect();
    Sight::Blind(Stopped {
        reason: StopReason::GateClosed,
        message: format!("fewer than {needed} of the members that stay have answered for {limit:#}"),
        evidence,
        next: steps::next_moves(state),
    })
}

/// A gateway none of whose answers came is left alone for a while.
fn note_gateways(state: &mut State, at: Timestamp, looked: &Looked) {
    let asked: BTreeSet<&Address> = looked.replies.iter().map(|r| &r.gateway).collect();
    for gateway in asked {
        let silent = looked.replies.iter().filter(|r| r.gateway == *gateway).all(|r| r.result.is_err());
        if silent && state.ledger.plan.gateways.iter().any(|g| g.sql_address == *gateway) {
            state.rest(gateway.clone(), at);
        } else {
            state.scratch.resting.remove(gateway);
        }
    }
}

fn answered(looked: &Looked) -> Option<Address> {
    looked.replies.iter().find(|r| r.result.is_ok()).map(|r| r.gateway.clone())
}

/// The pause between two looks at a drain that ends soon.
const NEAR_THE_END: SignedDuration = SignedDuration::from_millis(500);

fn wait(state: &mut State, at: Timestamp, waiting_for: String, effects: &mut Vec<Effect>) {
    let entered = *state.scratch.entered.get_or_insert(at);
    let limit = match state.scratch.stage {
        Stage::Step => steps::deadline(state),
        Stage::Preflight | Stage::Undo => state.policy().join_deadline,
    };
    // What was begun before has its own time to end.
    let limit = limit.saturating_add(steps::begun::patience(state));
    if at >= later(entered, limit) {
        let stopped = steps::deadline_reached(state, limit, &waiting_for);
        return end(state, End::Stopped(stopped), effects);
    }
    // Scans of the meta ranges take at most a tenth of the time. A drain spaces its scans by itself, so that its
    // cheap questions are asked more often; and when it ends soon that is noticed soon.
    let poll = state.policy().poll;
    let pause = match state.step_at_hand() {
        Some(Step::AwaitEmpty { .. }) if state.scratch.drain.ends_soon(poll) => poll.min(NEAR_THE_END),
        Some(Step::AwaitEmpty { .. }) => poll,
        _ => poll.max(scan_pause(state)),
    };
    // Never past the deadline, so that it is noticed in time.
    let until = later(at, pause).min(later(entered, limit));
    effects.push(Effect::Notify(Progress::Waiting { waiting_for: waiting_for.clone(), until }));
    effects.push(Effect::Sleep { until, waiting_for });
}

/// The pause after a scan that keeps scans to a tenth of the time; bounded, so that one scan that hung does not
/// put the operation to sleep for hours.
pub(super) fn scan_pause(state: &State) -> SignedDuration {
    let nine_times = state.scratch.scan_took.checked_mul(9).unwrap_or(SignedDuration::MAX);
    nine_times.min(state.policy().stall_after / 2)
}

/// Back before the first act: a node that fell silent just now is drift as soon as its liveness has expired.
fn unfit(state: &mut State, at: Timestamp, why: Vec<String>, effects: &mut Vec<Effect>) {
    let since = *state.scratch.unfit_since.get_or_insert(at);
    let limit = state.policy().stall_after;
    let first = why.first().cloned().unwrap_or_default();
    if at.duration_since(since) >= limit {
        let stopped = Stopped {
            reason: StopReason::Refused,
            message: format!(
                "the cluster is not fit for the first act since {limit:#}: {first}; nothing was done"
            ),
            evidence: why,
            next: vec!["mend what is listed, or make the plan again".to_owned()],
        };
        return end(state, End::Stopped(stopped), effects);
    }
    state.enter(Stage::Preflight, at);
    wait(state, at, format!("the cluster to be fit for the first act: {first}"), effects);
}

fn order(state: &mut State, at: Timestamp, act: Act, effects: &mut Vec<Effect>) {
    let mut gateways = state.gateways(at).into_iter().cloned();
    let Some(via) = gateways.next() else {
        let stopped = steps::no_gateway();
        return end(state, End::Stopped(stopped), effects);
    };
    let also = gateways.next().filter(|_| matches!(act, Act::Confirm { .. }));
    let deadline = steps::act_deadline(state, &act);
    let (mut certify, mut target) = (None, None);
    match &act {
        Act::Drain { node } | Act::Stop { node } => target = state.stop_target(*node, at),
        Act::Certify { job } | Act::RestoreCertificates { job } | Act::CleanCertificates { job } => {
            certify = Some(steps::certify::job(state, at, job));
        }
        _ => {}
    }
    state.scratch.over.retain(|(a, _)| *a != act);
    state.scratch.quiet.retain(|(a, _)| *a != act);
    let step = state.ledger.cursor;
    state.record(Record::Intent { step, act: act.clone() }, effects);
    if state.ledger.ended.is_some() {
        return;
    }
    state.scratch.acted_via = Some(via.sql_address.clone());
    state.scratch.as_before.clear();
    effects.push(Effect::Notify(Progress::Acting { act: act.clone() }));
    effects.push(Effect::Act(Box::new(Order { act, via, also, target, certify, deadline })));
}

fn done(state: &mut State, at: Timestamp, note: String, effects: &mut Vec<Effect>) {
    match state.scratch.stage {
        Stage::Preflight => {
            state.record(Record::Admitted, effects);
            effects.push(Effect::Notify(Progress::Note { text: note }));
        }
        Stage::Step => {
            let step = state.ledger.cursor;
            state.record(Record::StepDone { step, note: note.clone() }, effects);
            effects.push(Effect::Notify(Progress::StepDone { step: step + 1, note }));
        }
        Stage::Undo => {
            let notes = steps::undo::summary(state, note);
            return end(state, End::Undone(notes), effects);
        }
    }
    state.enter(Stage::Step, at);
    announce(state, effects);
    look(state, at, effects);
}
