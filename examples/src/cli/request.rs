//! What is asked for: the change of `plan`, and the choices that the KWDB page leaves to the operator.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::SignedDuration;
use kwdb_scale_core::request::{
    Certificates, Finish, NodeRef, OldData, Operation, Options, Pace, Redistribution,
};
use kwdb_scale_core::topology::HostName;

use crate::config::LONGEST;
use crate::failure::Failure;

/// The choices that the KWDB page leaves to the operator.
#[derive(Args, Debug)]
pub struct RequestOptions {
    /// Write the plan to this file, for apply.
    #[arg(short, long, global = true, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Wait up to so long (30s, 10m, 1h) until nothing refuses that passes by itself.
    #[arg(long, global = true, value_name = "DURATION", value_parser = wait, allow_hyphen_values = true)]
    pub wait_healthy: Option<SignedDuration>,
    /// What to do with the balancing of time-series ranges.
    #[arg(long, global = true, value_enum, default_value = "leave")]
    pub redistribution: RedistributionArg,
    /// What ends a scale-in.
    #[arg(long, global = true, value_enum, default_value = "stop")]
    pub finish: FinishArg,
    /// Do not wait until ranges and leases are spread evenly after a scale-out.
    #[arg(long, global = true)]
    pub no_await_balance: bool,
    /// Drain emptied nodes as a step of its own before they are stopped.
    #[arg(long, global = true)]
    pub drain: bool,
    /// Clear what a removed node left on a host that comes back: aside renames the directories, delete deletes what they
    /// hold. The plan shows which; apply wants its consent.
    #[arg(long, global = true, value_enum, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "aside")]
    pub wipe_old_data: Option<WipeArg>,
    /// Where the certificates of hosts that join a secure cluster come from.
    #[arg(long, global = true, value_enum, default_value = "present")]
    pub certificates: CertificatesArg,
    /// How soon servers look at the ranges of leaving nodes.
    #[arg(long, global = true, value_enum, default_value = "tail")]
    pub pace: PaceArg,
    /// At most so many nodes leave at a time; all of them, marked together, when it is not given.
    #[arg(long, global = true, value_name = "NODES", value_parser = batch)]
    pub batch: Option<NonZeroU32>,
}

/// A time to wait: positive, and at most a year.
pub(super) fn wait(text: &str) -> Result<SignedDuration, String> {
    match text.parse::<SignedDuration>() {
        Ok(wait) if wait.is_positive() && wait <= LONGEST => Ok(wait),
        _ => Err("write a time above nothing and up to a year, such as 30s, 10m or 1h".to_owned()),
    }
}

fn batch(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("write a number of nodes, of 1 to {}", u32::MAX))
}

/// See [`Redistribution`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RedistributionArg {
    /// Leave the setting as it is.
    Leave,
    /// Switch it off and leave it so.
    Off,
    /// Switch it off for the time of the operation.
    OffDuring,
}

/// See [`Certificates`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CertificatesArg {
    /// They lie there already.
    Present,
    /// They are made where the authority's key lies, and installed.
    Issue,
    /// As the KWDB page does it: the authority's key is carried to the host, and they are made there.
    Archive,
}

/// See [`Pace`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PaceArg {
    /// When their scanner comes to them.
    Server,
    /// When moving becomes slow they are asked to look at what is left.
    Tail,
    /// They are asked from the start.
    Full,
}

/// See [`Finish`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FinishArg {
    /// Stop the emptied node.
    Stop,
    /// Leave the emptied node running.
    LeaveDrained,
}

/// See [`OldData`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WipeArg {
    /// Rename the directories.
    Aside,
    /// Delete what they hold.
    Delete,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChangeCommand {
    /// Start nodes on hosts and have them join.
    ScaleOut {
        /// Host names of the cluster's file, in order of joining.
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Move everything off nodes, then stop them.
    ScaleIn {
        /// Node ids or host names.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Add nodes, then move everything off others.
    Replace {
        /// Node ids or host names of those that leave.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
        /// Host names of those that come.
        #[arg(long = "with", required = true, value_name = "HOST", num_args = 1..)]
        with: Vec<String>,
    },
}

impl ChangeCommand {
    pub(crate) fn operation(&self) -> Operation {
        let hosts = |names: &[String]| names.iter().map(|h| HostName::new(h.clone())).collect();
        let refs = |names: &[String]| names.iter().map(|n| NodeRef::parse(n)).collect();
        match self {
            Self::ScaleOut { hosts: names } => Operation::ScaleOut { hosts: hosts(names) },
            Self::ScaleIn { nodes } => Operation::ScaleIn { nodes: refs(nodes) },
            Self::Replace { nodes, with } => Operation::Replace { nodes: refs(nodes), hosts: hosts(with) },
        }
    }
}

impl RequestOptions {
    /// Whoever gives an option that means nothing for the change expects something that would not be done.
    pub(crate) fn must_fit(&self, change: &ChangeCommand) -> Result<(), Failure> {
        let options = self.options();
        let (kind, why, given) = match change {
            ChangeCommand::ScaleOut { .. } => (
                "scale-out",
                "no node leaves",
                [
                    ("--finish", options.finish != Finish::Stop),
                    ("--drain", options.drain),
                    ("--batch", options.batch.is_some()),
                ],
            ),
            ChangeCommand::ScaleIn { .. } => (
                "scale-in",
                "no host joins",
                [
                    ("--certificates", !options.certificates.is_present()),
                    ("--wipe-old-data", options.old_data != OldData::Refuse),
                    ("--no-await-balance", !options.await_balance),
                ],
            ),
            ChangeCommand::Replace { .. } => return Ok(()),
        };
        let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        if given.is_empty() {
            return Ok(());
        }
        let (means, it) = if given.len() == 1 { ("means", "it") } else { ("mean", "them") };
        Err(Failure::usage(format!(
            "{} {means} nothing for a {kind}, in which {why}: leave {it} out",
            given.join(" and ")
        )))
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            redistribution: match self.redistribution {
                RedistributionArg::Leave => Redistribution::Leave,
                RedistributionArg::Off => Redistribution::Off,
                RedistributionArg::OffDuring => Redistribution::OffDuring,
            },
            finish: match self.finish {
                FinishArg::Stop => Finish::Stop,
                FinishArg::LeaveDrained => Finish::LeaveDrained,
            },
            await_balance: !self.no_await_balance,
            drain: self.drain,
            old_data: match self.wipe_old_data {
                None => OldData::Refuse,
                Some(WipeArg::Aside) => OldData::MoveAside,
                Some(WipeArg::Delete) => OldData::Delete,
            },
            certificates: match self.certificates {
                CertificatesArg::Present => Certificates::Present,
                CertificatesArg::Issue => Certificates::Issue,
                CertificatesArg::Archive => Certificates::Archive,
            },
            pace: match self.pace {
                PaceArg::Server => Pace::Server,
                PaceArg::Tail => Pace::Tail,
                PaceArg::Full => Pace::Full,
            },
            batch: self.batch,
        }
    }
}
