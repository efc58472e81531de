//! What each command of `kwscale` does.

pub(crate) mod apply;
pub(crate) mod bench;
pub(crate) mod exec;
pub(crate) mod hosts;
mod hosts_file;
pub(crate) mod lab;
pub(crate) mod plan;
pub(crate) mod recommission;
pub(crate) mod safety;
pub(crate) mod status;
mod unfinished;
