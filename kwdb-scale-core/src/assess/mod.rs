//! The catalogue of checks: what must hold, what should, and what is good to know before membership changes.

mod finding;

pub use finding::{Finding, Retry, Severity};
