//! A simulated KWDB for tests: one deterministic model, in memory on a virtual clock.

pub mod cli;
pub mod memory;
pub mod model;
