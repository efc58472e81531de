//! The contract of a host transport over a real sshd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sshd;

use std::net::TcpListener;

use kwdb_scale_sim::contract::TransportFixture;
use sshd::{Sshd, installed, n1};

fn fixture(sshd: &std::path::Path) -> TransportFixture {
    let sshd = Sshd::start(sshd, "");
    let scratch = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().to_string();
    TransportFixture {
        transport: Box::new(sshd.transport()),
        host: n1(),
        scratch: scratch.path().to_str().unwrap().to_owned(),
        says: ["printf", "%s", "four"].map(str::to_owned).into(),
        fails: ["sh", "-c", "exit 3"].map(str::to_owned).into(),
        open_and_closed: (open.into(), "127.0.0.1:1".into()),
        keep: Box::new((scratch, listener, sshd)),
    }
}

kwdb_scale_sim::transport_contract!(
    posix,
    match installed() {
        Some(sshd) => fixture(&sshd),
        None => return,
    }
);
