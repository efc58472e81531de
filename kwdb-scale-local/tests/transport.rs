//! The contract of a host transport, on this machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod contract;

use contract::Fixture;
use kwdb_scale_core::topology::HostName;
use kwdb_scale_local::LocalTransport;

fn fixture() -> Fixture {
    let scratch = tempfile::tempdir().unwrap();
    let host = HostName::from("n1");
    Fixture {
        transport: Box::new(LocalTransport::new([host.clone(), "n2".into()])),
        host,
        scratch: scratch.path().to_str().unwrap().to_owned(),
        keep: Box::new(scratch),
    }
}

contract_suite!(fixture());
