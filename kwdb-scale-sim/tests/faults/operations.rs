//! Requests of every shape to their end.

use std::time::Duration;

use kwdb_scale_core::execute::{End, ExecuteError, Operation, StopReason};
use kwdb_scale_core::plan::{Refusal, check};
use kwdb_scale_core::request::{self, Finish, OldData, Options};
use kwdb_scale_core::topology::{NodeId, StartMode};
use kwdb_scale_sim::memory::{Call, SimHost, World};
use kwdb_scale_sim::model::{Config, MembershipStatus, TableSpec, ZoneTarget};

use crate::scene::{Book, Scene, Stage, cluster_of, moved_aside, names, planned, scale_in, scale_out};

/// Plans and runs on the world itself.
async fn done(world: &World, operation: request::Operation, options: Options) -> Stage {
    let scene = Scene::new(world, operation, options).await;
    let mut stage = scene.stage();
    let end = stage.run(&Book::default(), &[]).await.unwrap();
    stage.prove_done(&end, "done");
    stage
}

fn drained() -> Options {
    Options { finish: Finish::LeaveDrained, ..Options::default() }
}

/// A node that was left drained hinders nothing, and is stopped by a scale-in of its own.
#[tokio::test]
async fn what_was_left_drained_can_be_finished() {
    let stage = done(&cluster_of(5), scale_in(&[5]), drained()).await;
    let again = planned(&stage.world, scale_in(&[5]), drained()).await.unwrap();
    assert!(again.is_empty(), "it is so already");
    // Another node may leave meanwhile, and one may join.
    let stage = done(&stage.world, scale_in(&[4]), Options::default()).await;
    stage.world.add_host(SimHost::numbered(6));
    let stage = done(&stage.world, scale_out(&[6]), Options::default()).await;
    let stage = done(&stage.world, scale_in(&[5]), Options::default()).await;
    // Started again on its old store it is left drained once more, and stopped once more.
    stage.restart(5)(&mut stage.world.cluster());
    stage.world.advance(Duration::from_secs(30));
    let stage = done(&stage.world, scale_in(&[5]), Options::default()).await;
    let plan = planned(&stage.world, scale_in(&[5]), Options::default()).await.unwrap();
    assert!(plan.is_empty());
}

#[tokio::test]
async fn reaching_a_set_of_members() {
    let world = cluster_of(4);
    world.add_host(SimHost::numbered(5));
    world.add_host(SimHost::numbered(6));
    let reach = |hosts: &[u16]| request::Operation::Reach { members: names(hosts) };
    let stage = done(&world, reach(&[1, 2, 3, 5, 6]), Options::default()).await;
    let again = planned(&stage.world, reach(&[1, 2, 3, 5, 6]), Options::default()).await.unwrap();
    assert!(again.is_empty());
    let stage = done(&stage.world, reach(&[1, 2, 3, 5]), Options::default()).await;
    assert_eq!(stage.world.cluster().replica_count(NodeId(4)), 0);
    assert_eq!(stage.plan.leaving.len(), 1);
}

#[tokio::test]
async fn two_hosts_join() {
    let world = cluster_of(3);
    world.add_host(SimHost::numbered(4));
    world.add_host(SimHost::numbered(5));
    let stage = done(&world, scale_out(&[4, 5]), Options::default()).await;
    for node in [4, 5] {
        assert!(stage.world.cluster().replica_count(NodeId(node)) > 0);
    }
}

#[tokio::test]
async fn a_node_with_two_stores_leaves() {
    let world = World::new(Config::default());
    let hosts = (1..=4).map(|n| {
        let stores = vec![format!("/data/n{n}a"), format!("/data/n{n}b")];
        SimHost { stores, ..SimHost::numbered(n) }
    });
    world.start_all(&StartMode::MultiReplica, hosts.collect());
    world.cluster().create_table(TableSpec::new("app", "kv", 20)).unwrap();
    world.advance(Duration::from_secs(300));
    assert!(world.cluster().replica_count(NodeId(4)) > 0);
    let stage = done(&world, scale_in(&[4]), Options::default()).await;
    assert_eq!(stage.plan.leaving[0].stores.len(), 2);
}

#[tokio::test]
async fn a_removed_machine_comes_back_at_its_address() {
    let stage = done(&cluster_of(5), scale_in(&[5]), Options::default()).await;
    assert!(stage.world.cluster().wipe_store(&SimHost::numbered(5).store_key("/data/n5")));
    let stage = done(&stage.world, scale_out(&[5]), Options::default()).await;
    assert_eq!(stage.world.node_on("n5"), Some(NodeId(6)));
    let stage = done(&stage.world, scale_in(&[6]), Options::default()).await;
    assert_eq!(stage.world.cluster().membership_status(NodeId(1)), Some(MembershipStatus::Live));
}

#[tokio::test]
async fn a_factor_of_five_shrinks() {
    let world = cluster_of(5);
    let target = ZoneTarget::Table { database: "app".into(), table: "kv".into() };
    world.cluster().configure_zone(target, Some(5), None).unwrap();
    world.advance(Duration::from_secs(600));
    assert_eq!(world.cluster().under_replicated(), 0);
    let stage = done(&world, scale_in(&[5]), Options::default()).await;
    assert!(stage.plan.findings.iter().any(|f| f.check == "factor-shrinks"));
}

#[tokio::test]
async fn single_replica_grows() {
    let world = World::started_with(Config::default(), StartMode::SingleReplica, 2);
    world.cluster().create_table(TableSpec::new("app", "kv", 6)).unwrap();
    world.advance(Duration::from_secs(60));
    world.add_host(SimHost::numbered(3));
    let scene = Scene::new(&world, scale_out(&[3]), Options::default()).await;
    let mut stage = scene.stage();
    let end = stage.run(&Book::default(), &[]).await.unwrap();
    assert!(matches!(end, kwdb_scale_core::execute::End::Done(_)), "{end:?}");
    stage.nothing_wrong("single replica");
    assert_eq!(stage.world.node_on("n3"), Some(NodeId(3)));
}

/// Adding a node may be the cure for one that is down; it must not wait for the dead one.
#[tokio::test]
async fn a_node_joins_while_one_is_down() {
    let world = cluster_of(4);
    world.cluster().set_setting("server.time_until_store_dead", "75s").unwrap();
    world.cluster().kill_node(&SimHost::numbered(4).address);
    world.advance(Duration::from_secs(600));
    world.add_host(SimHost::numbered(5));
    let scene = Scene::new(&world, scale_out(&[5]), Options::default()).await;
    let mut stage = scene.stage();
    let end = stage.run(&Book::default(), &[]).await.unwrap();
    assert!(matches!(end, kwdb_scale_core::execute::End::Done(_)), "{end:?}");
    stage.nothing_wrong("one is down");
}

fn reasons(refusal: &Refusal) -> String {
    refusal.reasons().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A machine comes back as a new node only when its old data is asked to be cleared, by somebody who consents to just
/// that.
#[tokio::test]
async fn a_removed_machine_comes_back() {
    let stage = done(&cluster_of(5), scale_in(&[5]), Options::default()).await;
    let refusal = planned(&stage.world, scale_out(&[5]), Options::default()).await.unwrap_err();
    assert!(reasons(&refusal).contains("/data/n5 of host n5 holds a node's files"), "{refusal}");

    for old_data in [OldData::MoveAside, OldData::Delete] {
        let options = Options { old_data, ..Options::default() };
        let scene = Scene::new(&stage.world, scale_out(&[5]), options).await;
        assert_eq!(check(&scene.plan, None), []);
        let text = scene.plan.to_string();
        let fate = match old_data {
            OldData::MoveAside => "move /data/n5 to /data/n5.node-5",
            _ => "DELETE what is in /data/n5",
        };
        assert!(text.contains(fate) && text.contains(&scene.plan.consent().unwrap()), "{text}");
        for consent in [None, Some("yes"), Some("clear-0123456789abcdef")] {
            let begun = Operation::begin_with_consent(scene.plan.clone(), stage.world.ports(), consent).await;
            assert!(matches!(begun, Err(ExecuteError::Consent { .. })), "{consent:?}");
        }
        let mut back = scene.stage();
        let end = back.run(&Book::default(), &[]).await.unwrap();
        back.prove_done(&end, "back");
        let cluster = back.world.cluster();
        let host = back.world.host(&names(&[5])[0]).unwrap();
        assert_eq!(cluster.process(&host.address).unwrap().node, Some(NodeId(6)), "it got an id of its own");
    }
}

/// Data is not cleared of a node that is a member, nor of one that nobody knows.
#[tokio::test]
async fn whose_data_it_is_must_be_known() {
    let world = cluster_of(5);
    let refusal = planned(&world, scale_out(&[5]), moved_aside()).await.map(|p| p.is_empty());
    assert_eq!(refusal, Ok(true), "a member is there already");
    // Another address, the same store: nobody who was removed had it.
    let stage = done(&world, scale_in(&[5]), Options::default()).await;
    let moved = SimHost { address: "10.0.0.77:26257".into(), ..SimHost::numbered(5) };
    let other = World::over(std::sync::Arc::new(std::sync::Mutex::new(stage.world.cluster().clone())));
    for n in 1..=4 {
        other.add_host(SimHost::numbered(n));
    }
    other.add_host(moved);
    let refusal = planned(&other, scale_out(&[5]), moved_aside()).await.unwrap_err();
    assert!(reasons(&refusal).contains("whose they are is unknown"), "{refusal}");
}

/// A removed node that was started again meanwhile is left alone, data and all.
#[tokio::test]
async fn a_node_that_came_back_by_itself_is_not_cleared() {
    let scene = Scene::come_back().await;
    let mut stage = scene.stage();
    stage.restart(5)(&mut stage.world.cluster());
    stage.world.advance(Duration::from_secs(30));
    let end = stage.run(&Book::default(), &[]).await.unwrap();
    stage.nothing_wrong("came back");
    let End::Stopped(stopped) = &end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::Refused, "{stopped:?}");
    assert_eq!(stage.calls[&Call::ClearData], 0);
}
