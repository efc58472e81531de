//! Operations of core on the model while everything goes wrong that can: crashes at every record, calls that fail or
//! come late, nodes that die, people who interfere. No act may ever break a rule, and a resume must get to the end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod calls;
mod cancels;
mod certificates;
mod crashes;
mod events;
mod operations;
mod scene;
