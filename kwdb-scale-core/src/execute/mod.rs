//! Carrying out a plan.

pub mod journal;

pub use journal::JournalRecord;
use serde::{Deserialize, Serialize};

/// What a journal says happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Record {
    /// Placeholder until the executor lands.
    Note(String),
}
