//! What `lab` takes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Make a cluster in a new directory; comes back when nothing is under-replicated.
    Up(UpArgs),
    /// Describe one more host in the lab's file; starts no node.
    Add(LabAdd),
    /// Show the hosts, their addresses and which nodes run.
    Status(LabDir),
    /// Kill a node's process (SIGKILL).
    Kill(LabNode),
    /// Start a node's process again on its old store.
    Restart(LabNode),
    /// Run a command on a host as root, without SSH (--hosts netns).
    Run(LabRun),
    /// Pull a host's cable (--hosts netns).
    Cut(LabNode),
    /// Put a host's cable in again (--hosts netns).
    Heal(LabNode),
    /// End a host's sshd with every session (--hosts netns).
    StopSshd(LabNode),
    /// Start a host's sshd (--hosts netns).
    StartSshd(LabNode),
    /// Give a host another host key, of which known_hosts is not told (--hosts netns).
    Rekey(LabNode),
    /// End every process of the lab and delete what it made.
    Down(LabDir),
}

/// What `lab up` takes.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// A directory that is absent or empty.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Nodes to start.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=30))]
    pub nodes: u32,
    /// With certificates, made in the directory.
    #[arg(long)]
    pub secure: bool,
    /// With `start-single-replica`.
    #[arg(long)]
    pub single_replica: bool,
    /// A real kwbase, in place of the twin.
    #[arg(long, value_name = "PATH")]
    pub kwbase: Option<PathBuf>,
    /// Ranges of a table to make.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2000))]
    pub ranges: u32,
    /// Stores of each node.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub stores_per_node: u32,
    /// How much faster than real the twin's time goes.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub speed: f64,
    /// What a host is.
    #[arg(long, value_enum, default_value = "processes")]
    pub hosts: HostsArg,
    /// As whom kwscale logs in on the hosts (--hosts netns).
    #[arg(long, value_enum, default_value = "root")]
    pub login: LoginArg,
    /// With what nodes are started, marked and stopped (deploy.sh: --hosts netns).
    #[arg(long, value_enum, default_value = "kwbase")]
    pub method: MethodArg,
}

/// With what nodes of a lab are started, marked and stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum MethodArg {
    /// The command line of kwbase.
    Kwbase,
    /// Stand-ins of deploy.sh, systemctl and kw-status, and the unit kaiwudb.
    #[value(name = "deploy.sh")]
    DeploySh,
}

/// What a lab's host is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum HostsArg {
    /// A directory and loopback ports of this machine.
    Processes,
    /// A machine of its own, with an address, files, processes and an sshd; Linux, as root.
    Netns,
}

/// The user whom sshd lets in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LoginArg {
    /// root itself.
    Root,
    /// The user kaiwudb, for whom `sudo -n` does everything.
    Kaiwudb,
}

#[derive(Args, Debug)]
pub(crate) struct LabAdd {
    /// The lab's directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Leave the certificates out, as on a machine on which KWDB was only installed (--hosts netns).
    #[arg(long)]
    pub(crate) without_certs: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LabRun {
    /// The lab's directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The host's name, such as n2.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct LabDir {
    /// The lab's directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct LabNode {
    /// The lab's directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The host's name, such as n2.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}
