//! The driver: performs the machine's effects through the ports.

use std::collections::VecDeque;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_channel::mpsc;
use futures_util::Stream;
use futures_util::future::{Either, poll_fn, select};
use futures_util::task::AtomicWaker;
use jiff::{SignedDuration, Timestamp};

use super::event::{Effect, Event, Order, Progress};
use super::journal::JournalRecord;
use super::machine::{State, later, step};
use super::perform::{perform_act, perform_look};
use super::record::{ActResult, Cancel, End, Ledger, OutOfOrder, Record, StopReason, Stopped};
use crate::plan::Plan;
use crate::ports::{
    CertificateControl, Clock, DecommissionControl, FactSource, Journal, LockGuard, NodeLifecycle,
    OperationLock, PortError, PortErrorKind, ReplicateQueue, SettingsControl,
};

/// A port that keeps the deadline it is given answers before this much more has gone by; one that does not is left.
pub(super) const ACT_MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// Everything that an operation needs of the outside.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Facts of the cluster.
    pub facts: Arc<dyn FactSource>,
    /// Cluster settings.
    pub settings: Arc<dyn SettingsControl>,
    /// The decommissioning bit.
    pub control: Arc<dyn DecommissionControl>,
    /// Where servers are asked to look at ranges sooner; `None` where they cannot be.
    pub queue: Option<Arc<dyn ReplicateQueue>>,
    /// Processes of nodes.
    pub lifecycle: Arc<dyn NodeLifecycle>,
    /// Certificates of hosts that join; `None` where they always lie there already.
    pub certificates: Option<Arc<dyn CertificateControl>>,
    /// The record of this operation.
    pub journal: Arc<dyn Journal>,
    /// The lock of the cluster.
    pub lock: Arc<dyn OperationLock>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Why an operation could not begin, resume or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// Another operation holds the lock, or the lock cannot be had.
    #[error("the operation lock cannot be had: {0}")]
    Lock(#[source] PortError),
    /// The journal cannot be written or read.
    #[error("the journal failed: {0}")]
    Journal(#[source] PortError),
    /// The journal cannot have been written by an operation.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
    /// The journal's operation ended; there is nothing to resume.
    #[error("the operation of this journal has ended: {0}")]
    Ended(String),
    /// The plan says that there is nothing to do.
    #[error("the plan is empty: there is nothing to do")]
    EmptyPlan,
    /// The plan clears data, and the consent given is not [the plan's](Plan::consent).
    #[error("the plan clears old data and begins only with the consent {token}, given to this very plan")]
    Consent {
        /// The consent that is wanted.
        token: String,
    },
}

/// Where an operation stands after [`Operation::advance`].
#[derive(Clone, Debug, PartialEq)]
pub enum Advance {
    /// The budget is used up; call again.
    Progress,
    /// Nothing to do until then; call again at or after `until`.
    Waiting {
        /// What is waited for.
        waiting_for: String,
        /// When to call again.
        until: Timestamp,
    },
    /// The end.
    Ended(End),
}

/// A typed stream of [`Progress`]; ends with the operation.
#[derive(Debug)]
pub struct EventStream(mpsc::UnboundedReceiver<Progress>);

impl Stream for EventStream {
    type Item = Progress;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Progress>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}

#[derive(Default)]
struct CancelCell {
    asked: Mutex<Option<Cancel>>,
    waker: AtomicWaker,
}

/// Gives up an operation from anywhere. An act under way is finished first.
#[derive(Clone, Default)]
pub struct Canceller(Arc<CancelCell>);

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canceller")
    }
}

impl Canceller {
    /// Asks the operation to stop, or to undo. An undo asked for later outweighs a leave.
    pub fn cancel(&self, how: Cancel) {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if *asked != Some(Cancel::Undo) {
            *asked = Some(how);
        }
        drop(asked);
        self.0.waker.wake();
    }

    fn take(&self) -> Option<Cancel> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ready when it is asked for; nothing is taken.
    async fn asked(&self) {
        poll_fn(|cx| {
            self.0.waker.register(cx.waker());
            if self.is_asked() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn is_asked(&self) -> bool {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// A running operation.
///
/// Dropping it, or the future of one of its methods, leaves a journal from which it can be resumed.
pub struct Operation {
    state: State,
    ports: Ports,
    next_seq: u64,
    sleeping: Option<(Timestamp, String)>,
    event: Option<Event>,
    effects: VecDeque<Effect>,
    canceller: Canceller,
    listeners: Vec<mpsc::UnboundedSender<Progress>>,
    lock: Box<dyn LockGuard>,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("plan", &self.state.ledger.plan.id)
            .field("cursor", &self.state.ledger.cursor)
            .finish_non_exhaustive()
    }
}

impl Operation {
    /// Takes the lock and records the plan. Nothing of the cluster is touched before the first
    /// [`advance`](Self::advance).
    ///
    /// # Errors
    /// [`ExecuteError::EmptyPlan`], [`ExecuteError::Consent`], [`ExecuteError::Lock`], [`ExecuteError::Journal`].
    pub async fn begin(plan: Plan, ports: Ports) -> Result<Self, ExecuteError> {
        Self::begin_with_consent(plan, ports, None).await
    }

    /// The same for a plan that clears old data: `consent` is [`Plan::consent`], said by whoever may say it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn begin_with_consent(
        plan: Plan,
        ports: Ports,
        consent: Option<&str>,
    ) -> Result<Self, ExecuteError> {
        if plan.is_empty() {
            return Err(ExecuteError::EmptyPlan);
        }
        if let Some(token) = plan.consent().filter(|token| consent != Some(token)) {
            return Err(ExecuteError::Consent { token });
        }
        let lock = take_lock(&ports, &plan).await?;
        let record = Record::Begun { plan: Box::new(plan.clone()) };
        let mut operation = Self::new(State::new(plan), ports, lock, 1);
        operation.append(record).await.map_err(ExecuteError::Journal)?;
        Ok(operation)
    }

    /// Takes up the operation of the journal.
    ///
    /// # Errors
    /// [`ExecuteError::Ended`] when it is done or undone, [`ExecuteError::OutOfOrder`], [`ExecuteError::Journal`],
    /// [`ExecuteError::Lock`].
    pub async fn resume(ports: Ports) -> Result<Self, ExecuteError> {
        let records = ports.journal.records().await.map_err(ExecuteError::Journal)?;
        let plan = Ledger::replay(records.iter().map(|r| &r.record))?.plan;
        let lock = take_lock(&ports, &plan).await?;
        // Once more under the lock: until now another process may have been at it.
        let records = ports.journal.records().await.map_err(ExecuteError::Journal)?;
        let mut ledger = Ledger::replay(records.iter().map(|r| &r.record))?;
        match &ledger.ended {
            Some(End::Done(_)) => return Err(ExecuteError::Ended("it is done".into())),
            Some(End::Undone(_)) => return Err(ExecuteError::Ended("it was undone".into())),
            Some(End::Stopped(s)) if s.reason == StopReason::Refused => {
                return Err(ExecuteError::Ended(format!("{}; make a new plan", s.message)));
            }
            _ => {}
        }
        let next_seq = records.len() as u64 + 1;
        ledger.apply(&Record::Resumed)?;
        let mut operation = Self::new(State::resume(ledger), ports, lock, next_seq);
        operation.append(Record::Resumed).await.map_err(ExecuteError::Journal)?;
        Ok(operation)
    }

    fn new(state: State, ports: Ports, lock: Box<dyn LockGuard>, next_seq: u64) -> Self {
        Self {
            state,
            ports,
            next_seq,
            sleeping: None,
            event: Some(Event::Start),
            effects: VecDeque::new(),
            canceller: Canceller::default(),
            listeners: Vec::new(),
            lock,
        }
    }

    /// What is known durably.
    pub fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// What happens from now on.
    pub fn events(&mut self) -> EventStream {
        let (sender, receiver) = mpsc::unbounded();
        self.listeners.push(sender);
        EventStream(receiver)
    }

    /// A handle to give up with.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Runs to the end.
    pub async fn run(&mut self) -> End {
        loop {
            if let Advance::Ended(end) = self.advance(SignedDuration::MAX).await {
                return end;
            }
        }
    }

    /// Does work for about `budget`, so that one loop can hold many operations. An act under way is finished even
    /// when it takes longer (it ends by its own deadline).
    pub async fn advance(&mut self, budget: SignedDuration) -> Advance {
        let begun = self.ports.clock.now();
        loop {
            if let Some(effect) = self.effects.pop_front() {
                self.perform(effect).await;
                continue;
            }
            if let Some(end) = &self.state.ledger.ended {
                self.listeners.clear();
                return Advance::Ended(end.clone());
            }
            let now = self.ports.clock.now();
            if let Some(how) = self.canceller.take() {
                // The look or the sleep under way is dropped; an act never is, it was awaited in `perform`, and
                // what came of it is recorded first.
                self.sleeping = None;
                if let Some(event @ Event::Acted(_)) = self.event.take() {
                    self.feed(now, event);
                    self.effects.retain(|e| matches!(e, Effect::Record(_) | Effect::Notify(_)));
                }
                self.feed(now, Event::Cancel(how));
                continue;
            }
            if let Some(event) = self.event.take() {
                self.feed(now, event);
                continue;
            }
            if now.duration_since(begun) >= budget {
                return Advance::Progress;
            }
            match self.sleeping.clone() {
                Some((until, _)) if until <= now => {
                    self.sleeping = None;
                    self.event = Some(Event::Woke);
                }
                Some((until, waiting_for)) => {
                    if until.duration_since(begun) > budget {
                        return Advance::Waiting { waiting_for, until };
                    }
                    self.sleep(until).await;
                }
                None => self.event = Some(Event::Woke),
            }
        }
    }

    fn feed(&mut self, now: Timestamp, event: Event) {
        let (state, effects) = step(&self.state, now, event);
        // The records among the effects reach the journal before anything that follows them is done; see `perform`.
        self.effects.extend(effects);
        self.state = state;
    }

    async fn sleep(&self, until: Timestamp) {
        let slept = self.ports.clock.sleep_until(until);
        match select(pin!(self.canceller.asked()), slept).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Record(record) => {
                if let Err(e) = self.append(record).await {
                    // What is not recorded must not be done.
                    self.effects.clear();
                    self.event = None;
                    let end = End::Stopped(Stopped {
                        reason: StopReason::Journal,
                        message: format!("the journal failed, so nothing more is done: {}", e.chain()),
                        evidence: Vec::new(),
                        next: vec!["mend the journal's disk, then resume the operation".into()],
                    });
                    self.notify(&Progress::Ended { end: end.clone() });
                    self.state.ledger.ended = Some(end);
                }
            }
            Effect::Notify(progress) => self.notify(&progress),
            Effect::Look(look) => {
                let looking = pin!(perform_look(&self.ports, &look));
                if let Either::Right((looked, _)) = select(pin!(self.canceller.asked()), looking).await {
                    self.event = Some(Event::Looked(looked));
                }
            }
            Effect::Act(order) => {
                let result = self.act(&order).await;
                self.event = Some(Event::Acted(result));
            }
            Effect::Sleep { until, waiting_for } => self.sleeping = Some((until, waiting_for)),
        }
    }

    fn notify(&mut self, progress: &Progress) {
        tracing::debug!(cluster = %self.state.ledger.plan.cluster_id, plan = %self.state.ledger.plan.id, ?progress);
        self.listeners.retain(|l| l.unbounded_send(progress.clone()).is_ok());
    }

    async fn append(&mut self, record: Record) -> Result<(), PortError> {
        let record = JournalRecord { seq: self.next_seq, at: self.ports.clock.now(), record };
        self.ports.journal.append(&record).await?;
        self.next_seq += 1;
        Ok(())
    }

    async fn act(&self, order: &Order) -> ActResult {
        let limit = later(self.ports.clock.now(), order.deadline.saturating_add(ACT_MARGIN));
        if self.lock.held_until().is_some_and(|until| until < limit) {
            return ActResult::Failed {
                kind: PortErrorKind::Denied,
                message: "the lease of the operation lock does not outlast the act's deadline".into(),
            };
        }
        let acting = pin!(perform_act(&self.ports, order));
        let result = match select(acting, self.ports.clock.sleep_until(limit)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(PortError::new(
                PortErrorKind::Deadline,
                format!("the port did not end the act by its deadline of {:#}", order.deadline),
            )),
        };
        result.unwrap_or_else(|e| ActResult::Failed { kind: e.kind(), message: e.chain() })
    }
}

async fn take_lock(ports: &Ports, plan: &Plan) -> Result<Box<dyn LockGuard>, ExecuteError> {
    let label = format!("{} plan {} cluster {}", plan.kind(), plan.id, plan.cluster_id);
    ports.lock.acquire(&label).await.map_err(ExecuteError::Lock)
}
