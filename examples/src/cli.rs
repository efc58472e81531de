//! The command line of `kwscale`.

mod lab;
mod request;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args, Parser, Subcommand};
use jiff::SignedDuration;
use kwdb_scale_core::safety::Question;
use serde_json::json;

use crate::commands;
use crate::commands::bench::BenchCommand;
use crate::failure::{Exit, Failure};
use crate::ui::{Format, Ui};
use request::wait;

pub use lab::{HostsArg, LoginArg, MethodArg, UpArgs};
pub(crate) use lab::{LabAdd, LabCommand, LabNode, LabRun};
pub(crate) use request::ChangeCommand;
pub use request::{CertificatesArg, FinishArg, PaceArg, RedistributionArg, RequestOptions, WipeArg};

/// See what a KWDB cluster is made of, and change its membership safely.
#[derive(Debug, Parser)]
#[command(
    name = "kwscale",
    version,
    after_help = "Exit codes: 0 done; 1 other failure; 2 usage, missing or malformed file or key; 3 refused, or the \
                  cluster or a host cannot be reached; 4 stopped, resumable; 5 needs a person."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The file that describes the cluster.
    #[arg(long, global = true, value_name = "FILE", env = "KWSCALE_CLUSTER", default_value = "cluster.toml", value_parser = file)]
    pub cluster: PathBuf,
    /// The form of results.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub format: Format,
}

/// An empty variable counts as none.
fn file(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(if text.is_empty() { "cluster.toml" } else { text }))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make and break local clusters of real processes to try things on.
    #[command(subcommand)]
    Lab(LabCommand),
    /// Show nodes, range health and settings.
    Status {
        /// Also show what deploy.sh, kw-status and decommission_progress say on the hosts of that method. Nothing is ever
        /// decided by it.
        #[arg(long)]
        deploy: bool,
    },
    /// Write a full observation as JSON.
    Observe {
        /// The file to write; standard output when left out.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Look at hosts: system, installation, what runs, room, limits, clock, certificates.
    Hosts {
        /// Host names of the cluster's file; all of them when left out.
        #[arg(value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Run every check of a change, and plan nothing.
    Check {
        #[command(flatten)]
        options: RequestOptions,
        #[command(subcommand)]
        change: ChangeCommand,
    },
    /// Make a plan, and do nothing.
    Plan {
        #[command(flatten)]
        options: RequestOptions,
        #[command(subcommand)]
        change: ChangeCommand,
    },
    /// Show a plan that was written with -o.
    Show {
        /// The plan.
        plan: PathBuf,
    },
    /// Whether every range keeps its quorum when these nodes stop now: exit code 0 for yes, 3 for no.
    OkToStop {
        /// Node ids or host names.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Whether these nodes are proven removed, so that nothing of the cluster is on their disks: exit code 0 for yes, 3 for
    /// no.
    SafeToWipe {
        /// Node ids or host names.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Carry out a plan.
    Apply(ApplyArgs),
    /// Go on with the newest operation that has not ended, or undo it.
    Resume(ResumeArgs),
    /// Run a script or a command on every host, or put a file there.
    Exec(ExecArgs),
    /// Measure the documented commands beside kwscale, on a real cluster that is made for it.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Take back the decommissioning mark of nodes; an operation that was stopped with this mark is undone and ended.
    Recommission(RecommissionArgs),
}

/// What `apply` takes.
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// The plan, as written by plan -o.
    pub plan: PathBuf,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// The consent that the plan asks for, when it clears old data.
    #[arg(long, value_name = "TOKEN")]
    pub consent: Option<String>,
    /// Where the record of the operation is kept, in place of the directory beside the cluster's file.
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
}

/// What `resume` takes.
#[derive(Args, Debug)]
pub struct ResumeArgs {
    /// Take back what the operation changed, as far as that goes, instead of going on.
    #[arg(long)]
    pub undo: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Where the record of the operation is kept, in place of the directory beside the cluster's file; or the record
    /// itself, of an operation that is not the newest.
    #[arg(long, value_name = "DIR|FILE")]
    pub journal: Option<PathBuf>,
}

/// What `recommission` takes.
#[derive(Args, Debug)]
pub struct RecommissionArgs {
    /// Node ids or host names.
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Where the record of a stopped operation is kept, in place of the directory beside the cluster's file.
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
}

/// What `exec` takes.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("work").required(true))]
pub struct ExecArgs {
    /// A file of hosts, in place of the cluster's: a name or address a line, with its port where it has one, comments after #.
    #[arg(long, value_name = "FILE")]
    pub hosts_file: Option<PathBuf>,
    /// The port of hosts that the file gives none.
    #[arg(long, value_name = "PORT", requires = "hosts_file", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Log in with this private key; without, with an SSH agent.
    #[arg(long, value_name = "FILE", requires = "hosts_file")]
    pub key: Option<PathBuf>,
    /// Trust the host keys in this file; without, those that ssh would trust. May be given again.
    #[arg(long, value_name = "FILE", requires = "hosts_file")]
    pub known_hosts: Vec<PathBuf>,
    /// Log in as this user; without, as oneself.
    #[arg(long, value_name = "NAME", requires = "hosts_file")]
    pub user: Option<String>,
    /// Run this local script, which sh reads from its standard input.
    #[arg(long, value_name = "FILE", group = "work")]
    pub script: Option<PathBuf>,
    /// Run this command, without a shell. Takes everything that follows.
    #[arg(long, value_name = "ARGV", group = "work", num_args = 1.., allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// Put this local file there, whole or not at all, with its permission bits.
    #[arg(long, value_name = "FILE", group = "work", requires = "to")]
    pub put: Option<PathBuf>,
    /// What the file is called there.
    #[arg(long, value_name = "PATH", requires = "put", conflicts_with_all = ["script", "command"])]
    pub to: Option<String>,
    /// Do it so many times, over the same connections. No host waits for the rounds of another.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rounds: u32,
    /// Hosts at once. Connections are made by at most 8 at once in any case.
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_once)]
    pub at_once: usize,
    /// After so long a command is ended; connecting counts.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = wait, allow_hyphen_values = true)]
    pub deadline: SignedDuration,
    /// One JSON object a line for each host and round; the same as --format json.
    #[arg(long)]
    pub json: bool,
}

fn at_once(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(hosts @ 1..=10_000) => Ok(hosts),
        _ => Err("write a number of 1 to 10000".to_owned()),
    }
}

/// The program: reads the command line, runs the command, says what went wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new(cli.global.format);
    start_log();
    let runtime = match cli.command {
        // Its work is done elsewhere, often on the same machine: one thread is woken less often than two wake each other.
        Command::Exec(_) => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    };
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(&cli, &ui));
            // What still runs in the background was given up.
            runtime.shutdown_background();
            result
        }
        Err(e) => Err(Failure::other(format!("the runtime cannot be started: {e}"))),
    };
    let exit = match result {
        Ok(exit) => exit,
        Err(failure) => {
            ui.say(format_args!("kwscale: {failure}"));
            if ui.json() {
                let mut object = json!({
                    "schema": "kwscale.error/v1",
                    "exit": failure.exit as u8,
                    "kind": failure.exit.word(),
                    "message": failure.message,
                });
                if let (Some(details), Some(map)) = (failure.details, object.as_object_mut()) {
                    map.insert("details".to_owned(), details);
                }
                ui.print(format_args!("{object:#}"));
            }
            failure.exit
        }
    };
    match (ui.lost(), exit) {
        (None, exit) => exit.into(),
        // The other codes say more than that.
        (Some(why), exit) => {
            ui.say(format_args!("kwscale: the result was lost: standard output cannot be written: {why}"));
            if exit == Exit::Done { Exit::Failed.into() } else { exit.into() }
        }
    }
}

async fn run(cli: &Cli, ui: &Ui) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Lab(LabCommand::Up(args)) => commands::lab::up(ui, args).await,
        Command::Lab(LabCommand::Add(args)) => commands::lab::add(ui, args).await,
        Command::Lab(LabCommand::Status(args)) => commands::lab::status(ui, &args.dir),
        Command::Lab(LabCommand::Run(args)) => commands::lab::run(args),
        Command::Lab(LabCommand::Cut(args)) => commands::lab::cut(ui, args).await,
        Command::Lab(LabCommand::Heal(args)) => commands::lab::heal(ui, args).await,
        Command::Lab(LabCommand::StopSshd(args)) => commands::lab::stop_sshd(ui, args).await,
        Command::Lab(LabCommand::StartSshd(args)) => commands::lab::start_sshd(ui, args).await,
        Command::Lab(LabCommand::Rekey(args)) => commands::lab::rekey(ui, args).await,
        Command::Lab(LabCommand::Kill(args)) => commands::lab::kill(ui, &args.dir, &args.name).await,
        Command::Lab(LabCommand::Restart(args)) => commands::lab::restart(ui, &args.dir, &args.name).await,
        Command::Lab(LabCommand::Down(args)) => commands::lab::down(ui, &args.dir).await,
        Command::Bench(BenchCommand::ScaleIn(args)) => commands::bench::scale_in(ui, args).await,
        Command::Status { deploy } => commands::status::status(ui, global, *deploy).await,
        Command::Observe { output } => commands::status::observe(ui, global, output.as_deref()).await,
        Command::Hosts { hosts } => commands::hosts::hosts(ui, global, hosts).await,
        Command::Check { options, change } => commands::plan::check(ui, global, options, change).await,
        Command::Plan { options, change } => commands::plan::plan(ui, global, options, change).await,
        Command::Show { plan } => commands::plan::show(ui, plan),
        Command::OkToStop { nodes } => commands::safety::ask(ui, global, Question::OkToStop, nodes).await,
        Command::SafeToWipe { nodes } => commands::safety::ask(ui, global, Question::SafeToWipe, nodes).await,
        Command::Apply(args) => commands::apply::apply(ui, global, args).await,
        Command::Resume(args) => commands::apply::resume(ui, global, args).await,
        Command::Exec(args) => commands::exec::exec(ui, global, args).await,
        Command::Recommission(args) => commands::recommission::recommission(ui, global, args).await,
    }
}

/// A log on standard error for those who ask for one with `KWSCALE_LOG` (such as `debug`).
fn start_log() {
    let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("KWSCALE_LOG") else { return };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use kwdb_scale_core::request::{NodeRef, OldData, Operation};

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_or_behind() {
        let line =
            "kwscale plan scale-in 4 n2 -o p.json --wait-healthy 30s --format json --cluster c.toml --drain";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(cli.global.format, Format::Json);
        let Command::Plan { options, change } = cli.command else { panic!("not a plan") };
        assert_eq!(options.wait_healthy, Some(SignedDuration::from_secs(30)));
        assert!(options.drain && options.options().await_balance);
        let Operation::ScaleIn { nodes } = change.operation() else { panic!("not a scale-in") };
        assert_eq!(nodes, [NodeRef::parse("4"), NodeRef::Host("n2".into())]);
        let cli = Cli::try_parse_from("kwscale plan scale-out --wipe-old-data n5".split(' ')).unwrap();
        let Command::Plan { options, .. } = cli.command else { panic!("not a plan") };
        assert_eq!(options.options().old_data, OldData::MoveAside);
        assert!(Cli::try_parse_from("kwscale --cluster c.toml plan replace 4 --with n5".split(' ')).is_ok());
    }

    #[test]
    fn an_option_that_means_nothing_for_the_change_is_refused() {
        let refusal = |change: &str, option: &str| {
            let cli =
                Cli::try_parse_from(format!("kwscale plan {change} {option}").split_whitespace()).unwrap();
            let Command::Plan { options, change } = cli.command else { panic!("not a plan") };
            options.must_fit(&change).err().map(|failure| (failure.exit, failure.message))
        };
        let joining =
            ["--certificates issue", "--certificates archive", "--wipe-old-data", "--no-await-balance"];
        let leaving = ["--finish leave-drained", "--drain", "--batch 2"];
        for (change, why, senseless) in [
            ("scale-in 4", "scale-in, in which no host joins", &joining[..]),
            ("scale-out n5", "scale-out, in which no node leaves", &leaving[..]),
        ] {
            for option in senseless {
                let (exit, message) = refusal(change, option).unwrap();
                let name = option.split(' ').next().unwrap();
                assert_eq!(exit, Exit::Usage);
                assert!(
                    message.starts_with(&format!("{name} means nothing")) && message.contains(why),
                    "{message}"
                );
            }
        }
        let (_, message) = refusal("scale-in 4", "--wipe-old-data --certificates issue").unwrap();
        assert!(message.starts_with("--certificates and --wipe-old-data mean nothing"), "{message}");
        // Where they mean something, and their defaults.
        for option in joining.iter().chain(&leaving) {
            assert_eq!(refusal("replace 4 --with n5", option), None);
        }
        joining.iter().for_each(|option| assert_eq!(refusal("scale-out n5", option), None));
        leaving.iter().for_each(|option| assert_eq!(refusal("scale-in 4", option), None));
        let both = "--redistribution off --pace full --certificates present --finish stop";
        assert_eq!((refusal("scale-in 4", both), refusal("scale-out n5", both)), (None, None));
    }

    #[test]
    fn a_batch_of_none_is_told_in_words() {
        for batch in ["0", "-1", "x", "4294967296"] {
            let line = ["kwscale", "plan", "scale-in", "4", &format!("--batch={batch}")];
            let error = Cli::try_parse_from(line).unwrap_err().to_string();
            assert!(
                error.contains("--batch") && error.contains("write a number of nodes, of 1 to"),
                "{error}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "kwscale",
            "kwscale plan scale-in",
            "kwscale plan replace 4",
            "kwscale plan scale-out n5 --finish vanish",
            "kwscale lab up --dir d",
            "kwscale lab up --dir d --nodes 0",
            "kwscale recommission",
            "kwscale status --wait-healthy",
            "kwscale plan scale-in 4 --wait-healthy -5s",
            "kwscale plan scale-in 4 --wait-healthy 99999999999h",
            "kwscale plan scale-in 4 --wait-healthy soon",
            "kwscale plan scale-out n5 --wipe-old-data=all",
            "kwscale ok-to-stop",
            "kwscale exec",
            "kwscale exec --hosts-file h",
            "kwscale exec --script s --command true",
            "kwscale exec --script s --to x",
            "kwscale exec --put f",
            "kwscale exec --script s --user u",
            "kwscale exec --script s --rounds 0",
            "kwscale exec --script s --at-once 0",
            "kwscale exec --script s --deadline 0s",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
