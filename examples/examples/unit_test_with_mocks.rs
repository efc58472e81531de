//! How code that uses the ports is unit-tested: with the mocks of core's feature `mock`, without any cluster.
//!
//! `cargo run --example unit_test_with_mocks` runs the tests as a program; `cargo test --examples` as tests.

use std::process::ExitCode;
use std::time::Duration;

use kwdb_scale_core::ports::{
    DecommissionControl, DecommissionStatus, Gateway, MockDecommissionControl, PortError, PortErrorKind,
};
use kwdb_scale_core::topology::NodeId;

/// The code under test, a caller's own: takes a mark back, once more when the connection was lost on the way.
async fn take_back(control: &dyn DecommissionControl, via: &Gateway, node: NodeId) -> Result<(), PortError> {
    let deadline = Duration::from_secs(10);
    let answer = match control.recommission(via, &[node], deadline).await {
        Err(e) if e.kind() == PortErrorKind::ConnectionLost => {
            control.recommission(via, &[node], deadline).await?
        }
        other => other?,
    };
    match answer.iter().find(|s| s.node == node) {
        Some(status) if !status.decommissioning => Ok(()),
        _ => Err(PortError::new(PortErrorKind::Malformed, format!("{node} is still marked"))),
    }
}

fn gateway() -> Gateway {
    Gateway {
        node: NodeId(1),
        address: "10.0.0.1:26257".into(),
        sql_address: "10.0.0.1:26257".into(),
        host: None,
    }
}

fn status(node: u32, decommissioning: bool) -> DecommissionStatus {
    DecommissionStatus { node: NodeId(node), is_live: true, replicas: 7, decommissioning, draining: false }
}

async fn a_lost_connection_is_tried_again() -> Result<(), String> {
    let mut control = MockDecommissionControl::new();
    let mut calls = 0;
    control
        .expect_recommission()
        .withf(|via, nodes, _| via.node == NodeId(1) && nodes == [NodeId(4)])
        .times(2)
        .returning(move |_, _, _| {
            calls += 1;
            match calls {
                1 => Err(PortError::new(PortErrorKind::ConnectionLost, "reset by peer")),
                _ => Ok(vec![status(4, false)]),
            }
        });
    take_back(&control, &gateway(), NodeId(4)).await.map_err(|e| e.to_string())
}

async fn an_unknown_node_is_not_tried_again() -> Result<(), String> {
    let mut control = MockDecommissionControl::new();
    control.expect_recommission().times(1).returning(|_, _, _| {
        Err(PortError::new(PortErrorKind::UnknownNode, "node not in the liveness table"))
    });
    match take_back(&control, &gateway(), NodeId(99)).await {
        Err(e) if e.kind() == PortErrorKind::UnknownNode => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn success_is_not_taken_at_its_word() -> Result<(), String> {
    let mut control = MockDecommissionControl::new();
    control.expect_recommission().times(1).returning(|_, _, _| Ok(vec![status(4, true)]));
    match take_back(&control, &gateway(), NodeId(4)).await {
        Err(e) if e.to_string().contains("still marked") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let results = [
        ("a lost connection is tried again", a_lost_connection_is_tried_again().await),
        ("an unknown node is not tried again", an_unknown_node_is_not_tried_again().await),
        ("success is not taken at its word", success_is_not_taken_at_its_word().await),
    ];
    let mut exit = ExitCode::SUCCESS;
    for (name, result) in results {
        match result {
            Ok(()) => println!("ok: {name}"),
            Err(why) => {
                println!("failed: {name}: {why}");
                exit = ExitCode::FAILURE;
            }
        }
    }
    exit
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn lost() {
        super::a_lost_connection_is_tried_again().await.unwrap();
    }

    #[tokio::test]
    async fn unknown() {
        super::an_unknown_node_is_not_tried_again().await.unwrap();
    }

    #[tokio::test]
    async fn word() {
        super::success_is_not_taken_at_its_word().await.unwrap();
    }
}
