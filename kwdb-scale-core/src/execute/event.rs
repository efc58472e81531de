//! What goes into the machine and what comes out of it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{Act, ActResult, Cancel, End, Record};
use crate::fact::Fact;
use crate::observation::Reply;
use crate::ports::{Gateway, HostFacts, ProcessState, StopNode};
use crate::rows::Query;
use crate::topology::{Address, HostName, NodeId};

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Begin, or go on after a replay.
    Start,
    /// What a [`Look`] brought.
    Looked(Looked),
    /// What an act brought.
    Acted(ActResult),
    /// A sleep ended.
    Woke,
    /// The caller gives up.
    Cancel(Cancel),
}

/// Something that the driver has to do, in order. At most the last of a batch waits for an [`Event`].
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make a record durable. When that fails nothing that follows may be done.
    Record(Record),
    /// Tell the caller.
    Notify(Progress),
    /// Read; answered by [`Event::Looked`].
    Look(Look),
    /// Change something; answered by [`Event::Acted`].
    Act(Box<Order>),
    /// Wait; answered by [`Event::Woke`].
    Sleep {
        /// Until when.
        until: Timestamp,
        /// What is waited for.
        waiting_for: String,
    },
}

/// An act with all that the ports need to do it.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The act.
    pub act: Act,
    /// The node that stays, through which it is done.
    pub via: Gateway,
    /// The node to drain or stop.
    pub target: Option<StopNode>,
    /// How long it may take.
    pub deadline: SignedDuration,
}

/// What is to be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// Questions with the SQL address to ask.
    pub asks: Vec<(Address, Query)>,
    /// Hosts to look at.
    pub hosts: Vec<HostName>,
    /// Processes to look for.
    pub processes: Vec<StopNode>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looked {
    /// Answers in the order of the questions.
    pub replies: Vec<Reply>,
    /// How long the scans of the meta ranges took together.
    pub scan_took: SignedDuration,
    /// Hosts.
    pub hosts: BTreeMap<HostName, Fact<HostFacts>>,
    /// Processes by node.
    pub processes: BTreeMap<NodeId, ProcessState>,
}

/// What the caller is told while an operation runs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[non_exhaustive]
pub enum Progress {
    /// A step begins.
    StepStarted {
        /// Its number, from 1.
        step: usize,
        /// How many there are.
        of: usize,
        /// What it does.
        what: String,
    },
    /// An act is about to be done.
    Acting {
        /// The act.
        act: Act,
    },
    /// Replicas are moving off leaving nodes.
    Replicas {
        /// Replicas left by range descriptors, all leaving nodes together.
        left: u64,
        /// Replicas there were when the step began.
        of: u64,
        /// Moved per minute, over the last minutes.
        per_minute: f64,
        /// Estimate of the time left; unknown until something moved.
        eta: Option<SignedDuration>,
    },
    /// Something is waited for.
    Waiting {
        /// What.
        waiting_for: String,
        /// When it is looked at again.
        until: Timestamp,
    },
    /// Something worth knowing.
    Note {
        /// One line.
        text: String,
    },
    /// A step's end condition is proven.
    StepDone {
        /// Its number, from 1.
        step: usize,
        /// What proves it.
        note: String,
    },
    /// The operation ended or stopped.
    Ended {
        /// How.
        end: End,
    },
}
