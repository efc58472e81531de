//! What a journal holds: the durable part of an operation, and the only way it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::plan::{OldDirectory, Plan, Step};
use crate::ports::PortErrorKind;
use crate::request::Certificates;
use crate::topology::{Address, HostName, NodeClass, NodeId, StartMode};

/// Something that changes the cluster or a host. Recorded before it is done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Act {
    /// Set a cluster setting.
    SetSetting {
        /// Name.
        name: String,
        /// Value to set.
        value: String,
        /// Value found before.
        old: Option<String>,
    },
    /// Put back the former value of a cluster setting.
    RestoreSetting {
        /// Name.
        name: String,
        /// The former value.
        value: String,
    },
    /// Clear what removed nodes left on a host.
    ClearData {
        /// Where.
        host: HostName,
        /// The directories, and what becomes of each.
        directories: Vec<OldDirectory>,
    },
    /// Make certificates for a host and install them there.
    Certify {
        /// Which, and how.
        job: Certification,
    },
    /// Put back the certificates that a host had before.
    RestoreCertificates {
        /// Which.
        job: Certification,
    },
    /// Remove what an interrupted [`Certify`](Self::Certify) left of temporary files.
    CleanCertificates {
        /// Which.
        job: Certification,
    },
    /// Start a node.
    Start {
        /// Where.
        host: HostName,
        /// The address it will advertise.
        address: Address,
        /// The sub-command.
        mode: StartMode,
        /// Members that stay.
        join: Vec<Address>,
    },
    /// Set the decommissioning bit.
    Mark {
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Have the server count the replicas of nodes that are marked already, just before a stop. Where no read-only
    /// status is to be had this sets the bit once more, which is why it is an act.
    Confirm {
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Clear the decommissioning bit.
    Recommission {
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Make a node refuse clients.
    Drain {
        /// The node.
        node: NodeId,
    },
    /// End a node's process.
    Stop {
        /// The node.
        node: NodeId,
    },
}

impl Act {
    /// Whether it sets the decommissioning bit.
    pub(super) fn marks(&self) -> bool {
        matches!(self, Self::Mark { .. } | Self::Confirm { .. })
    }
}

/// Certificates for one host, as they were begun.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Certification {
    /// The host.
    pub host: HostName,
    /// How they are made.
    pub method: Certificates,
    /// SHA-256 of the authority's certificate, as hex digits.
    pub authority: String,
    /// Names everything temporary and the directory of the old certificates, so that they are found again.
    pub tag: String,
    /// Whether the host had no certificates before.
    pub fresh: bool,
    /// The topmost directory on the way to the certificates that was not there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

/// What came of an [`Act`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActResult {
    /// Done; what was said.
    Done(String),
    /// The server's count of replicas on each node, for [`Act::Confirm`] and [`Act::Mark`].
    Counted(BTreeMap<NodeId, u64>),
    /// Not done, or not known to be done (see [`PortErrorKind::may_have_been_done`]).
    Failed {
        /// What to decide by.
        kind: PortErrorKind,
        /// One line.
        message: String,
    },
}

/// How an operation is given up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancel {
    /// Leave everything as it is; the operation can be resumed.
    Leave,
    /// Recommission what was marked and restore the settings that the plan restores, while no node was stopped yet. From then on a resumed
    /// operation goes on undoing.
    Undo,
}

/// Why an operation stopped before its end.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// Before the first act: the cluster drifted from the plan, or a check refuses now. Nothing was done.
    Refused,
    /// The caller asked.
    Cancelled,
    /// A wait reached its deadline.
    Deadline,
    /// Nothing moved for the policy's stall time.
    Stalled,
    /// Somebody else cleared the bit that we had set.
    Recommissioned,
    /// An act failed in a way that repeating does not mend.
    ActFailed,
    /// The cluster is not as it should be between two steps.
    GateClosed,
    /// The journal or the lock failed: nothing more may be done.
    Journal,
}

impl StopReason {
    /// Whether trying to resume makes sense without a person's help.
    pub fn is_resumable(self) -> bool {
        matches!(self, Self::Cancelled | Self::Deadline | Self::GateClosed | Self::Journal)
    }
}

/// How an operation ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The end state is proven; what proves it, one a line.
    Done(Vec<String>),
    /// Everything that was changed was put back; what was done, one a line.
    Undone(Vec<String>),
    /// Stopped before the end.
    Stopped(Stopped),
}

/// An operation that stopped before its end.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stopped {
    /// Why.
    pub reason: StopReason,
    /// One sentence.
    pub message: String,
    /// The facts, one a line.
    pub evidence: Vec<String>,
    /// What can be done now, one a line.
    pub next: Vec<String>,
}

/// One entry of the journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Record {
    /// The operation begins; the plan is all there is to know.
    Begun {
        /// The plan.
        plan: Box<Plan>,
    },
    /// The plan still fitted the cluster; from here on things may change.
    Admitted,
    /// Taken up again.
    Resumed,
    /// An act is about to be done.
    Intent {
        /// Index of the step, from 0.
        step: usize,
        /// The act.
        act: Act,
    },
    /// What came of the last intent.
    Outcome {
        /// Index of the step, from 0.
        step: usize,
        /// The result.
        result: ActResult,
    },
    /// A new node is proven to have joined.
    Joined {
        /// Its host.
        host: HostName,
        /// Its id.
        node: NodeId,
    },
    /// A step's end condition is proven.
    StepDone {
        /// Index of the step, from 0.
        step: usize,
        /// What proves it.
        note: String,
    },
    /// The caller gave up.
    CancelAsked {
        /// How.
        how: Cancel,
    },
    /// The operation ended or stopped.
    Ended {
        /// How.
        end: End,
    },
}

/// A setting that we changed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SavedSetting {
    /// The value before.
    pub old: Option<String>,
    /// The value that we gave it.
    pub ours: String,
}

/// The durable state of an operation: what a replay of its journal gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Whether the preflight passed.
    pub admitted: bool,
    /// Index of the step at hand; equal to the number of steps when all are done.
    pub cursor: usize,
    /// An act whose outcome is not known.
    pub pending: Option<Act>,
    /// Acts that were begun and whose end is not known: no outcome was recorded, or one that may have been done all the
    /// same. They may still go on, on the host where they were begun.
    pub begun: Vec<Act>,
    /// The last act of the step at hand whose outcome is known, with the outcome.
    pub last: Option<(Act, ActResult)>,
    /// Whether an act of the step at hand was begun, in this run or an earlier one.
    pub attempted: bool,
    /// Hosts on which we may have replaced certificates.
    pub certified: BTreeMap<HostName, Certification>,
    /// Hosts on which we may have started a node.
    pub started: BTreeSet<HostName>,
    /// New nodes by host.
    pub joined: BTreeMap<HostName, NodeId>,
    /// Nodes whose bit we may have set.
    pub marked: BTreeSet<NodeId>,
    /// Nodes that we may have stopped.
    pub stopped: BTreeSet<NodeId>,
    /// Those of them whose stop command was done, so that their process was seen to end.
    pub ended_there: BTreeSet<NodeId>,
    /// Settings that we may have changed.
    pub saved: BTreeMap<String, SavedSetting>,
    /// Settings among them that we put back.
    pub restored: BTreeSet<String>,
    /// How the caller gave up, if so.
    pub cancel: Option<Cancel>,
    /// How it ended, if so.
    pub ended: Option<End>,
    /// What each finished step proved.
    pub notes: Vec<String>,
}

/// A record that cannot follow the ones before it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the journal makes no sense: {0}; look at the cluster by hand")]
pub struct OutOfOrder(pub String);

impl Ledger {
    /// The state at the beginning.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan: Arc::new(plan),
            admitted: false,
            cursor: 0,
            pending: None,
            begun: Vec::new(),
            last: None,
            attempted: false,
            certified: BTreeMap::new(),
            started: BTreeSet::new(),
            joined: BTreeMap::new(),
            marked: BTreeSet::new(),
            stopped: BTreeSet::new(),
            ended_there: BTreeSet::new(),
            saved: BTreeMap::new(),
            restored: BTreeSet::new(),
            cancel: None,
            ended: None,
            notes: Vec::new(),
        }
    }

    /// Rebuilds the state from all records of a journal.
    ///
    /// # Errors
    /// [`OutOfOrder`] when the records cannot have been written by an operation.
    pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Self, OutOfOrder> {
        let mut records = records.into_iter();
        let mut ledger = match records.next() {
            Some(Record::Begun { plan }) => Self::new((**plan).clone()),
            Some(_) => return Err(OutOfOrder("it does not begin with a plan".into())),
            None => return Err(OutOfOrder("it is empty".into())),
        };
        for record in records {
            ledger.apply(record)?;
        }
        Ok(ledger)
    }

    /// Takes one more record in.
    ///
    /// # Errors
    /// [`OutOfOrder`]; the state is then unchanged.
    pub fn apply(&mut self, record: &Record) -> Result<(), OutOfOrder> {
        if self.ended.is_some() && !matches!(record, Record::Resumed) {
            return Err(OutOfOrder("a record follows the end".into()));
        }
        match record {
            Record::Begun { .. } => return Err(OutOfOrder("it begins twice".into())),
            Record::Admitted => self.admitted = true,
            Record::Resumed => {
                self.ended = None;
                // An undo that was begun is finished: going forward from half of it would fight with itself.
                if self.cancel == Some(Cancel::Leave) {
                    self.cancel = None;
                }
                // What came of acts is found out by looking; a failure of an earlier run is no verdict on this one.
                self.last = None;
                self.pending = None;
            }
            Record::Intent { step, act } => {
                self.at(*step)?;
                if !self.admitted {
                    return Err(OutOfOrder("an act before the preflight".into()));
                }
                self.intend(act);
            }
            Record::Outcome { step, result } => {
                self.at(*step)?;
                let act = self.pending.take().ok_or_else(|| {
                    OutOfOrder(format!("an outcome without an intent at step {}", step + 1))
                })?;
                if let (Act::RestoreSetting { name, .. }, ActResult::Done(_)) = (&act, result) {
                    self.restored.insert(name.clone());
                }
                if let (Act::Stop { node }, ActResult::Done(_)) = (&act, result) {
                    self.ended_there.insert(*node);
                }
                if !matches!(result, ActResult::Failed { kind, .. } if kind.may_have_been_done()) {
                    self.begun.retain(|a| *a != act);
                }
                if let (Act::Recommission { .. }, ActResult::Done(_)) = (&act, result) {
                    self.begun.retain(|a| !a.marks());
                }
                self.last = Some((act, result.clone()));
            }
            Record::Joined { host, node } => {
                self.joined.insert(host.clone(), *node);
            }
            Record::StepDone { step, note } => {
                self.at(*step)?;
                self.cursor += 1;
                self.pending = None;
                self.begun.clear();
                self.last = None;
                self.attempted = false;
                self.notes.push(note.clone());
            }
            Record::CancelAsked { how } => {
                if self.cancel != Some(Cancel::Undo) {
                    self.cancel = Some(*how);
                }
            }
            Record::Ended { end } => self.ended = Some(end.clone()),
        }
        Ok(())
    }

    /// Whether the last try to mark this node failed, so that it may be marked or not.
    pub fn mark_failed(&self, node: NodeId) -> bool {
        matches!(&self.last, Some((Act::Mark { nodes }, ActResult::Failed { .. })) if nodes.contains(&node))
    }

    /// Nodes whose mark can be taken back: those that this operation marked and has not told to stop. One that was
    /// marked before the operation began is none of its business.
    pub fn recommissionable(&self) -> BTreeSet<NodeId> {
        self.marked.difference(&self.stopped).filter(|id| !self.was_marked_before(id)).copied().collect()
    }

    /// Certificates that can be put back: those of hosts on which no node was started.
    pub fn restorable_certificates(&self) -> impl Iterator<Item = &Certification> {
        self.certified.values().filter(|c| !self.started.contains(&c.host))
    }

    /// Archives with the authority's private key that may lie on hosts where a node was started that did not join.
    pub fn left_archives(&self) -> impl Iterator<Item = &Certification> {
        let left = |c: &&Certification| {
            c.method == Certificates::Archive
                && self.started.contains(&c.host)
                && !self.joined.contains_key(&c.host)
        };
        self.certified.values().filter(left)
    }

    /// The same for hosts whose node joined: what its join had to remove may have been left.
    pub(super) fn joined_by_archive(&self) -> impl Iterator<Item = &Certification> {
        let joined =
            |c: &&Certification| c.method == Certificates::Archive && self.joined.contains_key(&c.host);
        self.certified.values().filter(joined)
    }

    /// Whether a node was marked already when the plan was made.
    pub(super) fn was_marked_before(&self, node: &NodeId) -> bool {
        self.plan.fingerprint.nodes.get(node).is_some_and(|n| n.class == NodeClass::Leaving)
    }

    /// Settings that this operation may have changed, that its plan puts back at its end, and that were not put back
    /// yet. One that the request switches off for good is not among them.
    pub fn restorable(&self) -> BTreeMap<String, SavedSetting> {
        let mut settings = self.wanted_back();
        settings.retain(|name, _| !self.restored.contains(name));
        settings
    }

    /// The same with those that were put back already.
    pub(super) fn wanted_back(&self) -> BTreeMap<String, SavedSetting> {
        let wanted_back = |name: &str| {
            self.plan.steps.iter().any(|s| matches!(s, Step::RestoreSetting { name: n } if n == name))
        };
        let saved = self.saved.iter().filter(|(name, _)| wanted_back(name));
        saved.map(|(name, setting)| (name.clone(), setting.clone())).collect()
    }

    fn at(&self, step: usize) -> Result<(), OutOfOrder> {
        if step == self.cursor {
            return Ok(());
        }
        Err(OutOfOrder(format!("step {} where step {} is at hand", step + 1, self.cursor + 1)))
    }

    fn intend(&mut self, act: &Act) {
        match act {
            Act::SetSetting { name, value, old } => {
                self.restored.remove(name);
                // The first value found is the one to go back to, also when the act is repeated.
                self.saved
                    .entry(name.clone())
                    .and_modify(|s| s.ours.clone_from(value))
                    .or_insert_with(|| SavedSetting { old: old.clone(), ours: value.clone() });
            }
            Act::Mark { nodes } => self.marked.extend(nodes),
            Act::Stop { node } => {
                self.stopped.insert(*node);
            }
            Act::Certify { job } => {
                // The first is the one to go back to.
                self.certified.entry(job.host.clone()).or_insert_with(|| job.clone());
            }
            Act::Start { host, .. } => {
                self.started.insert(host.clone());
            }
            Act::RestoreSetting { .. }
            | Act::ClearData { .. }
            | Act::RestoreCertificates { .. }
            | Act::CleanCertificates { .. }
            | Act::Confirm { .. }
            | Act::Recommission { .. }
            | Act::Drain { .. } => {}
        }
        self.attempted = true;
        if !self.begun.contains(act) {
            self.begun.push(act.clone());
        }
        self.pending = Some(act.clone());
    }
}
