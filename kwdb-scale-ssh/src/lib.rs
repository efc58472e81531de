//! x
#![allow(dead_code)]
mod config;
mod error;
mod host_keys;
mod known_hosts;
pub use config::{Agent, Answer, KeyFile, Login, Privilege, SshHost, SshLimits};
pub use host_keys::HostKeyPolicy;
