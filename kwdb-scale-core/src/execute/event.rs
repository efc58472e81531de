//! What goes into the machine and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{Act, ActResult, Cancel, End, Record};
use crate::canonical;
use crate::fact::Fact;
use crate::observation::Reply;
use crate::ports::{
    AuthorityFacts, BegunMark, BegunWork, CertificateFacts, CertifyHost, DecommissionStatus, Enqueued,
    Gateway, HostFacts, Means, PortErrorKind, ProcessState, Readiness, StopNode,
};
use crate::rows::Query;
use crate::schema::{self, ReadError};
use crate::topology::{Address, HostName, NodeId, RangeId};

/// Schema id of an event's JSON form.
pub const EVENT_SCHEMA: &str = "kwdb-scale.event/v1";

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and nearly always it is the largest")]
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
    /// Another one that is to say the same, for a confirmation; `None` where only one stays.
    pub also: Option<Gateway>,
    /// The node to drain or stop.
    pub target: Option<StopNode>,
    /// The host whose certificates are made, put back or cleaned up after.
    pub certify: Option<CertifyHost>,
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
    /// RPC addresses of nodes that are asked whether they are ready.
    pub ready: Vec<Address>,
    /// Certificates to look at.
    pub certificates: Vec<CertifyHost>,
    /// Whether to look at the authority that issues certificates, and what it is compared with on these hosts of
    /// members.
    pub authority: Option<Vec<HostName>>,
    /// Nodes whose status the server is asked for, by the member through which it is asked.
    pub statuses: Vec<(Gateway, Vec<NodeId>)>,
    /// Ranges that servers are to look at; it changes nothing that they would not do by themselves.
    pub nudges: Vec<Nudge>,
    /// How many of these may be under way at once.
    pub nudges_at_once: usize,
    /// Acts that were begun and whose end is not known: whether they still go on.
    pub begun: Vec<(Act, Begun)>,
}

/// An act whose end is not known, for the port that can tell whether it goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    /// For [`DecommissionControl`](crate::ports::DecommissionControl).
    Mark(BegunMark),
    /// For [`NodeLifecycle`](crate::ports::NodeLifecycle).
    Work(BegunWork),
}

/// A range that a server is to look at, through its replicate queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Nudge {
    /// The member through which it is asked.
    pub via: Gateway,
    /// The node that holds the range's lease.
    pub node: NodeId,
    /// The range.
    pub range: RangeId,
}

/// What became of a [`Nudge`]: the server's answer, or why there is none.
pub type Nudged = Result<Enqueued, (PortErrorKind, String)>;

/// What the server says of nodes, `None` where the port has no such question; or why there is no answer.
pub type Statuses = Result<Option<Vec<DecommissionStatus>>, String>;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looked {
    /// Answers in the order of the questions.
    pub replies: Vec<Reply>,
    /// How long the scans of the meta ranges took together.
    pub scan_took: SignedDuration,
    /// How long it took to look lease holders up, which asks each range.
    pub leases_took: SignedDuration,
    /// Hosts.
    pub hosts: BTreeMap<HostName, Fact<HostFacts>>,
    /// Processes by node.
    pub processes: BTreeMap<NodeId, ProcessState>,
    /// What nodes say of themselves by their RPC address; `None` where the port cannot ask.
    pub ready: BTreeMap<Address, Fact<Option<Readiness>>>,
    /// Certificates by host.
    pub certificates: BTreeMap<HostName, Fact<CertificateFacts>>,
    /// The authority that issues certificates.
    pub authority: Option<Fact<AuthorityFacts>>,
    /// With what nodes are marked, as the port says.
    pub means: Option<Means>,
    /// Hosts where a node is stopped by what owns its process, as the port says.
    pub owned: BTreeSet<HostName>,
    /// What the server says of nodes, by the SQL address of the member that was asked.
    pub statuses: Vec<(Address, Statuses)>,
    /// Whether servers can be asked to look at ranges at all.
    pub can_nudge: bool,
    /// What became of the nudges.
    pub nudged: Vec<(RangeId, Nudged)>,
    /// The quickest answer to a question about liveness, which costs the server next to nothing.
    pub quickest: Option<SignedDuration>,
    /// What still goes on of each act that was asked about, for people; known `None` when it is over.
    pub begun: Vec<(Act, Fact<Option<String>>)>,
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

impl Progress {
    /// One line of JSON without a newline, in canonical form, with its schema ([`EVENT_SCHEMA`]).
    ///
    /// # Errors
    /// A value that cannot be written as JSON.
    ///
    /// ```
    /// # use kwdb_scale_core::execute::Progress;
    /// let line = Progress::Note { text: "all is well".into() }.to_json()?;
    /// assert_eq!(line, r#"{"event":"note","schema":"kwdb-scale.event/v1","text":"all is well"}"#);
    /// assert!(Progress::from_json(&line.replace("v1", "v2")).is_err());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("schema".into(), EVENT_SCHEMA.into());
        }
        canonical::to_string(&value)
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// [`ReadError`]: another major version, or no event.
    pub fn from_json(text: &str) -> Result<Self, ReadError> {
        schema::read(text, EVENT_SCHEMA)
    }
}
