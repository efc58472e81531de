//! Carrying out a plan.
//!
//! The machine, [`step`], is pure: events in, effects out. The [`Operation`] is its driver: it performs the effects through
//! the [ports](crate::ports), records intent before each act and outcome after it, and can be resumed from its
//! journal at any point.

mod driver;
mod event;
pub mod journal;
mod machine;
mod nudge;
mod observe;
mod overlap;
mod perform;
mod reach;
mod record;
mod remains;
mod steps;
mod watch;

pub use driver::{Advance, Canceller, EventStream, ExecuteError, Operation, Ports};
pub use event::{EVENT_SCHEMA, Effect, Event, Look, Looked, Nudge, Nudged, Order, Progress, Statuses};
pub use journal::JournalRecord;
pub use machine::{State, step};
pub use observe::{Awaited, ObserveError, ObserveOptions, observe};
pub use overlap::Changed;
pub use record::{
    Act, ActResult, Cancel, Certification, End, Ledger, OutOfOrder, Record, SavedSetting, StopReason, Stopped,
};
pub use remains::{Remains, clean_certificates};
