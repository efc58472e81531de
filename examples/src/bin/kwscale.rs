//! `kwscale`: see what a KWDB cluster is made of, and change its membership safely.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A lab's twin nodes are this executable started again.
    kwdb_scale_sim::process::hook();
    kwdb_scale_examples::cli::main()
}
