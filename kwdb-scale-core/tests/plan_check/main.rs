//! The plan checker: valid plans made by hand break no rule, each way to break one is told by its name, and neither
//! shuffled steps nor the planner get past it.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod fixture;
mod mutations;
mod planner;
mod shuffled;
