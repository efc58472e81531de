//! What a command over SSH costs: on an open connection, and with the connection made first.
//!
//! Against an sshd of OpenSSH on a loopback port, whose share is in every figure; without one, a line says so.
//! `peers/` measures the same beside other programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the sshd of the SSH crate's own tests"
)]

#[path = "../kwdb-scale-ssh/tests/sshd/mod.rs"]
mod sshd;

use std::time::Duration;

use criterion::Criterion;
use kwdb_scale_core::ports::{Command, HostTransport};
use sshd::{Sshd, n1};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    if let Some(program) = sshd::installed() {
        exec(&mut criterion, &Sshd::start(&program, ""));
    }
    criterion.final_summary();
}

fn exec(c: &mut Criterion, server: &Sshd) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut group = c.benchmark_group("over SSH");
    let command = Command::new(["true"]);
    group.bench_function("connect, log in, run", |b| {
        b.iter(|| runtime.block_on(server.transport().run(&n1(), &command)).unwrap());
    });

    let transport = server.transport();
    group.bench_function("run", |b| {
        b.iter(|| runtime.block_on(transport.run(&n1(), &command)).unwrap());
    });
    let mut script = Command::new(["sh", "-s"]);
    script.stdin = Some(include_bytes!("peers/probe.sh").to_vec());
    group.bench_function("script", |b| {
        b.iter(|| runtime.block_on(transport.run(&n1(), &script)).unwrap());
    });
    let (path, content) = (server.path("put").display().to_string(), vec![7; 1 << 20]);
    group.bench_function("put 1 MiB", |b| {
        b.iter(|| runtime.block_on(transport.put(&n1(), &path, &content, 0o600)).unwrap());
    });
    group.bench_function("get 1 MiB", |b| {
        b.iter(|| runtime.block_on(transport.get(&n1(), &path, 1 << 20)).unwrap());
    });
    group.finish();
}
