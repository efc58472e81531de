//! x
mod config;
mod connection;
mod detached;
mod error;
mod exchange;
mod files;
mod host_keys;
mod known_hosts;
mod login;
mod pool;
mod probe;
mod run;
mod script;
mod ssh_config;
mod transport;

pub use config::{Agent, Answer, KeyFile, Login, Privilege, SshHost, SshLimits};
pub use host_keys::HostKeyPolicy;
pub use ssh_config::SshConfig;
pub use transport::SshTransport;
