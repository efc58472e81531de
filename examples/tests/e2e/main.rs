//! End to end through `kwscale`: every command against clusters of real processes.
//!
//! The processes are the twin's. With `KWDB_SCALE_KWBASE=/path/to/kwbase` they are those of a real KWDB; cases that
//! cannot be had there are left out, and each is printed with the reason. With `KWDB_SCALE_CONTROL=command-line` (or
//! `rpc`, or `auto`) the files of the clusters have that `control`, but for cases that are about one of them.
//!
//! `cargo test -p kwdb-scale-examples --test e2e -- WORD…` runs the cases whose names hold one of the words;
//! `--list` names them, `--show` prints what every command said.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test without a harness"
)]

mod certificates;
mod change;
mod container;
mod exec;
mod guide;
mod middle;
mod netns;
mod netns_certificates;
mod netns_deploy;
mod refuse;
mod rpc;
mod ssh;
// The sshd of the SSH crate's own tests.
#[path = "../../../kwdb-scale-ssh/tests/sshd/mod.rs"]
mod sshd;
mod support;
mod usage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use support::Case;

/// A case and, where it cannot run on a real KWDB, why.
struct Entry {
    name: &'static str,
    not_real: Option<&'static str>,
    run: fn(&Case),
}

const fn both(name: &'static str, run: fn(&Case)) -> Entry {
    Entry { name, not_real: None, run }
}

const fn twin(name: &'static str, run: fn(&Case), why: &'static str) -> Entry {
    Entry { name, not_real: Some(why), run }
}

const REAL_FILES: &str = "a real node leaves logs and sockets of its own behind";
const TWIN_GUIDE: &str = "the guide's lab is the twin's";
const OWN_PROGRAM: &str = "its image holds the twin's program alone";
const NO_CLUSTER: &str = "no cluster has a part in it";

/// The longest first, so that none is left over at the end.
const CASES: &[Entry] = &[
    both("out_in_out_in", change::out_in_out_in),
    both("secure_out_and_in", change::secure_out_and_in),
    twin(
        "netns_certificates_killed_in_every_phase",
        netns_certificates::killed_in_every_phase,
        "it counts on how fast the twin is, and a real node leaves logs and sockets of its own behind",
    ),
    twin(
        "netns_certificates_issued_and_carried",
        netns_certificates::issued_and_carried,
        "a real node leaves logs and sockets of its own behind, and another case issues certificates for one",
    ),
    both("certificates_are_made", certificates::certificates_are_made),
    twin("guide_of_the_kwbase_method", guide::guide_of_the_kwbase_method, TWIN_GUIDE),
    twin("guide_of_the_script", guide::guide_of_the_script, TWIN_GUIDE),
    both("two_of_six_at_once", change::two_of_six_at_once),
    both("two_of_five_one_at_a_time", change::two_of_five_one_at_a_time),
    both("out_by_two_then_factor_five_shrinks", change::out_by_two_then_factor_five_shrinks),
    both("netns_secure_out_and_in_by_sudo", netns::secure_out_and_in_by_sudo),
    twin(
        "netns_out_and_in_killed_in_every_act",
        netns::out_and_in_killed_in_every_act,
        "a real node leaves logs and sockets of its own behind, and the other case does the same with one",
    ),
    twin("netns_deploy_secure_out_and_in_by_sudo", netns_deploy::secure_out_and_in_by_sudo, REAL_FILES),
    twin("netns_deploy_out_and_in_killed", netns_deploy::out_and_in_killed, REAL_FILES),
    twin(
        "netns_a_lab_killed_while_it_is_made",
        netns::a_lab_killed_while_it_is_made,
        "it is about what the lab makes beside nodes",
    ),
    twin("container_in_podman", container::in_podman, OWN_PROGRAM),
    twin("container_in_docker", container::in_docker, OWN_PROGRAM),
    both("replace", change::replace),
    both("rpc_scale_in_without_kwbase", rpc::scale_in_without_kwbase),
    both("rpc_in_the_middle", rpc::in_the_middle),
    both("rpc_certificates", rpc::certificates),
    both("over_ssh", ssh::over_ssh),
    both("two_stores_a_node", change::two_stores_a_node),
    both("single_replica_out_but_never_in", change::single_replica_out_but_never_in),
    both("leave_drained_and_settings", change::leave_drained_and_settings),
    both("ctrl_c_then_resume", middle::ctrl_c_then_resume),
    both("the_mark_is_taken_back", middle::the_mark_is_taken_back),
    both("sigkill_then_resume", middle::sigkill_then_resume),
    twin(
        "undo_waits_for_a_mark_that_goes_on",
        middle::undo_waits_for_a_mark_that_goes_on,
        "it puts a slow program in the place of the twin's",
    ),
    both("a_node_killed_in_the_middle", middle::a_node_killed_in_the_middle),
    both("the_leaving_node_killed_in_the_middle", middle::the_leaving_node_killed_in_the_middle),
    both("three_nodes_and_wrong_names", refuse::three_nodes_and_wrong_names),
    both("a_dead_node_and_drift", refuse::a_dead_node_and_drift),
    both("a_constraint_names_the_leaving_node", refuse::a_constraint_names_the_leaving_node),
    both("a_host_that_is_not_fit", refuse::a_host_that_is_not_fit),
    both("who_may_not_read", refuse::who_may_not_read),
    both("secure_keys_and_authorities", refuse::secure_keys_and_authorities),
    twin(
        "a_running_job",
        refuse::a_running_job,
        "a job that runs long enough to be seen needs more data than a suite can load",
    ),
    twin(
        "two_clusters_are_kept_apart",
        refuse::two_clusters_are_kept_apart,
        "it is about files of kwscale, and two labs at once take the time of two",
    ),
    twin(
        "what_was_left_is_not_forgotten",
        refuse::what_was_left_is_not_forgotten,
        "it is about journals, and costs four drains",
    ),
    twin("exec_runs_everywhere", exec::exec_runs_everywhere, NO_CLUSTER),
    twin("exec_tells_what_failed", exec::exec_tells_what_failed, NO_CLUSTER),
    twin("exec_executes_nothing_else", exec::exec_executes_nothing_else, NO_CLUSTER),
    twin("exec_on_many_hosts", exec::exec_on_many_hosts, NO_CLUSTER),
    twin("exec_on_the_hosts_of_a_cluster", exec::exec_on_the_hosts_of_a_cluster, NO_CLUSTER),
    both("usage", usage::usage),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let show = args.iter().any(|a| a == "--show");
    let words: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    if args.iter().any(|a| a == "--list") {
        for entry in CASES {
            println!("{}: test", entry.name);
        }
        return ExitCode::SUCCESS;
    }
    let real = std::env::var_os("KWDB_SCALE_KWBASE").map(PathBuf::from);
    if let Some(kwbase) = &real {
        println!("on the real KWDB of {}", kwbase.display());
        for (entry, why) in CASES.iter().filter_map(|e| Some((e, e.not_real?))) {
            println!("left out {}: {why}", entry.name);
        }
    }
    let control = std::env::var("KWDB_SCALE_CONTROL").ok().filter(|control| !control.is_empty());
    if let Some(control) = &control {
        println!("with control = \"{control}\", but for cases that say another");
    }
    let cases: Vec<&Entry> =
        CASES.iter().filter(|e| wanted(e.name) && (real.is_none() || e.not_real.is_none())).collect();

    // Twin nodes mostly sleep; fifteen real ones are about what two cores carry.
    let workers = if real.is_some() { 3 } else { 4 };
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // What a case says when it fails is printed with its transcript.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(entry) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let (case, start) =
                        (Case::new(entry.name, real.clone(), control.clone()), Instant::now());
                    let result = catch_unwind(AssertUnwindSafe(|| (entry.run)(&case)));
                    let took = start.elapsed().as_secs_f32();
                    match result {
                        Ok(()) if show => println!("ok {} ({took:.1} s)\n{}", entry.name, case.transcript()),
                        Ok(()) => println!("ok {} ({took:.1} s)", entry.name),
                        Err(why) => {
                            let why = why
                                .downcast_ref::<String>()
                                .cloned()
                                .or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                                .unwrap_or_default();
                            println!("FAILED {} ({took:.1} s)\n{}\n{why}\n", entry.name, case.transcript());
                            failed.lock().unwrap().push(entry.name);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!(
        "end to end: {} of {} cases passed in {:.0} s{}",
        cases.len() - failed.len(),
        cases.len(),
        begun.elapsed().as_secs_f32(),
        if failed.is_empty() { String::new() } else { format!("; failed: {}", failed.join(", ")) }
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
