//! `deploy.sh` as a way to scale: the contract suites, and each trap of the script, on stand-ins of the documented scripts
//! and nodes of the twin; with `KWDB_SCALE_KWBASE=/path/to/kwbase` on nodes of a real one. All on this machine: each host
//! is a directory and an address of the loopback network.
//!
//! `cargo test -p kwdb-scale-examples --test deploy -- WORD…` runs the cases whose names hold one of the words.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bench;
mod cases;
mod kwscale;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

type Case = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// Cases at once.
const WORKERS: usize = 4;

/// The longest first.
const CASES: &[(&str, Case)] = &[
    ("kwscale_with_deploy_sh", || Box::pin(kwscale::out_and_in())),
    ("contract_of_lifecycle_and_control", || Box::pin(cases::contract_of_lifecycle_and_control())),
    ("the_script_and_its_traps", || Box::pin(cases::the_script_and_its_traps())),
    ("a_join_that_fails_leaves_everything_as_it_was", || Box::pin(cases::a_join_that_fails())),
    ("joins_of_older_releases_return_early", || Box::pin(cases::joins_that_return_early())),
    ("a_unit_that_is_started_again", || Box::pin(kwscale::a_unit_that_is_started_again())),
    ("units_of_the_kwbase_method", || Box::pin(cases::units_of_the_kwbase_method())),
];

fn main() -> ExitCode {
    kwdb_scale_sim::process::hook();
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if std::env::args().any(|a| a == "--list") {
        CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<_> =
        CASES.iter().filter(|(n, _)| words.is_empty() || words.iter().any(|w| n.contains(w))).collect();
    // They wait most of the time.
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((name, case)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let begun = Instant::now();
                    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(case())));
                    let word = if ended.is_ok() { "ok" } else { "FAILED" };
                    failed.fetch_or(ended.is_err(), Ordering::Relaxed);
                    println!("test {name} ... {word} ({:.1?})", begun.elapsed());
                }
            });
        }
    });
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
