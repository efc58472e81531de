//! The traits that the outside implements. Core does no I/O of its own; it asks these.
//!
//! Each method says what is durable when it returns, whether it may be repeated, and what dropping its future
//! does. All are object-safe ([`macro@async_trait`]), so that wrappers (dry run, audit, fault injection) can stand
//! between. Every method that talks to the outside ends by its own deadline.

mod certificates;
mod clock;
mod control;
mod error;
mod facts;
mod host;
mod journal;
mod lifecycle;

pub use crate::host_facts::{HostFacts, StoreContent, StoreFacts};
pub use async_trait::async_trait;
pub use certificates::{
    AuthorityFacts, AuthorityKeyFile, CertificateControl, CertificateFacts, CertificateState, CertifyHost,
};
pub use clock::Clock;
pub use control::{
    BegunMark, DecommissionControl, DecommissionStatus, Enqueued, Gateway, Means, ReplicateQueue,
    SettingsControl,
};
pub use error::{PortError, PortErrorKind};
pub use facts::FactSource;
pub use host::{Command, CommandEnd, CommandOutput, Detached, HostTransport, PortState, Spawned};
pub use journal::{Journal, LockGuard, OperationLock};
pub use lifecycle::{
    BegunWork, ClearData, NodeLifecycle, ProcessState, Readiness, StartNode, StartOutcome, StopNode,
};

#[cfg(feature = "mock")]
pub use {
    certificates::MockCertificateControl,
    clock::MockClock,
    control::{MockDecommissionControl, MockReplicateQueue, MockSettingsControl},
    facts::MockFactSource,
    host::MockHostTransport,
    journal::{MockJournal, MockOperationLock},
    lifecycle::MockNodeLifecycle,
};
