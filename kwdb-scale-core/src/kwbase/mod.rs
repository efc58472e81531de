//! The `kwbase` command line: what it prints.

pub mod ddl;
pub mod error;
pub mod output;
pub mod parse;
pub mod quote;
