//! Without TLS: answers, errors told apart, lost connections, deadlines, settings, other gateways.
#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod fake;

use std::time::{Duration, Instant};

use fake::{Fake, Talk, cells, error, failure, nobody, table};
use kwdb_scale_core::ports::{FactSource, PortErrorKind, SettingsControl};
use kwdb_scale_core::rows::{ClusterRow, Query, ReplicaCountRow, Rows, SettingRow};
use kwdb_scale_core::secret::Secret;
use kwdb_scale_core::statement;
use kwdb_scale_core::topology::{Address, NodeId, StoreId};
use kwdb_scale_sql::{Secure, SqlSource};
use tokio::io::AsyncReadExt;

fn source(seed: &Address) -> SqlSource {
    SqlSource::builder([seed.clone()]).build().unwrap()
}

/// For nodes that do not answer.
fn hasty(seed: &Address) -> SqlSource {
    SqlSource::builder([seed.clone()])
        .connect_timeout(Duration::from_millis(300))
        .startup_timeout(Duration::from_millis(300))
        .build()
        .unwrap()
}

fn rows(query: &Query) -> Rows {
    match query {
        Query::Cluster => Rows::Cluster(ClusterRow {
            cluster_id: "0105c1ba-2c3b-4f61-a04b-ed6d6110c0c4".into(),
            gateway_node: NodeId(1),
            build: Some("V3.2.1".into()),
            is_admin: Some(true),
        }),
        Query::ReplicaCounts(stores) => Rows::ReplicaCounts(
            stores.iter().map(|s| ReplicaCountRow { store_id: *s, replicas: u64::from(s.0) * 10 }).collect(),
        ),
        Query::Settings(_) => Rows::Settings(vec![SettingRow {
            name: "server.time_until_store_dead".into(),
            value: "30m0s".into(),
        }]),
        Query::Zones => Rows::Zones(vec![]),
        other => panic!("{other:?} is not asked in these tests"),
    }
}

async fn good() -> Fake {
    Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.log_in().await?;
        talk.serve(rows).await
    })
    .await
}

#[tokio::test]
async fn answers_come_over_one_connection() {
    let node = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        let parameters = talk.log_in().await?;
        talk.note(format!(
            "{} {} {}",
            parameters["user"], parameters["database"], parameters["application_name"]
        ));
        talk.serve(rows).await
    })
    .await;
    let source = source(&node.address);
    let answer = source.fetch(&node.address, &Query::Cluster).await.unwrap();
    assert_eq!(answer.gateway, node.address);
    assert_eq!(answer.server_time.to_string(), "2026-11-23T13:44:29.277952469Z");
    assert_eq!(answer.rows, rows(&Query::Cluster));

    let counts = Query::ReplicaCounts(vec![StoreId(4), StoreId(5)]);
    assert_eq!(source.fetch(&node.address, &counts).await.unwrap().rows, rows(&counts));
    assert_eq!(source.fetch(&node.address, &Query::Zones).await.unwrap().rows, Rows::Zones(vec![]));
    assert_eq!(source.seeds(), std::slice::from_ref(&node.address));
    assert_eq!(node.connections(), 1);
    assert!(node.heard().contains(&"root system kwdb-scale".to_owned()), "{:?}", node.heard());
    assert!(node.heard().contains(&"Q SET statement_timeout = 15000".to_owned()), "{:?}", node.heard());

    drop(source);
    node.wait_for("X ").await;
}

#[tokio::test]
async fn questions_through_one_node_share_its_connection() {
    let node = good().await;
    let source = source(&node.address);
    let asked: Vec<_> = (1..=8)
        .map(|n| {
            let (source, gateway) = (source.clone(), node.address.clone());
            tokio::spawn(async move {
                let query = Query::ReplicaCounts(vec![StoreId(n)]);
                (source.fetch(&gateway, &query).await.unwrap().rows, rows(&query))
            })
        })
        .collect();
    for task in asked {
        let (got, wanted) = task.await.unwrap();
        assert_eq!(got, wanted);
    }
    assert_eq!(node.connections(), 1);
}

#[tokio::test]
async fn errors_of_a_statement_are_told_apart() {
    for (code, text, kind, says) in [
        ("57P01", "server is shutting down", PortErrorKind::ShuttingDown, "draining or shutting down"),
        (
            "57014",
            "query execution canceled due to statement timeout",
            PortErrorKind::Deadline,
            "gave the statement up",
        ),
        (
            "42501",
            "only users with the admin role are allowed to read kwdb_internal.gossip_nodes",
            PortErrorKind::Denied,
            "cure: GRANT admin TO root",
        ),
        ("42703", "column \"x\" does not exist", PortErrorKind::Unsupported, "[42703]"),
        ("XXUUU", "unknown cluster setting 'x'", PortErrorKind::Unsupported, "lacks the setting"),
        ("XX000", "something\n  else", PortErrorKind::Other, "something else [XX000]"),
    ] {
        let node = Fake::start(move |_, stream, heard| async move {
            let mut talk = Talk::new(stream, heard);
            talk.log_in().await?;
            while talk.message().await?.is_some() {
                talk.send(&failure(code, text)).await?;
            }
            Ok(())
        })
        .await;
        let e = source(&node.address).fetch(&node.address, &Query::Cluster).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        let line = e.to_string();
        assert!(line.starts_with(&format!("{}: ", node.address)) && line.contains(says), "{line}");
        assert!(!line.contains('\n'));
    }
}

#[tokio::test]
async fn errors_of_the_log_in_are_told_apart() {
    for (code, text, kind) in [
        ("XXUUU", "password authentication failed for user root", PortErrorKind::Authentication),
        ("57P01", "server is not accepting clients", PortErrorKind::ShuttingDown),
        ("08P01", "node is running secure mode, SSL connection required", PortErrorKind::Tls),
        ("XXUUU", "node is running secure mode, SSL connection required", PortErrorKind::Tls),
        ("53300", "sorry, too many clients already", PortErrorKind::Other),
    ] {
        let node = Fake::start(move |_, stream, heard| async move {
            let mut talk = Talk::new(stream, heard);
            talk.startup().await?;
            talk.send(&error(code, text)).await
        })
        .await;
        let e = source(&node.address).fetch(&node.address, &Query::Cluster).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
}

#[tokio::test]
async fn a_node_that_waits_for_init_takes_the_connection_and_stalls() {
    let node = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.startup().await?;
        talk.message().await.map(drop)
    })
    .await;
    let began = Instant::now();
    let e = hasty(&node.address).fetch(&node.address, &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Deadline);
    assert!(e.to_string().contains("it waits for init"), "{e}");
    assert!(began.elapsed() < Duration::from_secs(5));
    node.wait_for("end").await;
}

#[tokio::test]
async fn a_late_answer_ends_the_connection_and_the_next_question_gets_a_new_one() {
    let node = Fake::start(|number, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.log_in().await?;
        if number == 1 {
            talk.message().await?;
            return talk.message().await.map(drop);
        }
        talk.serve(rows).await
    })
    .await;
    let source = SqlSource::builder([node.address.clone()]).deadline(Duration::from_secs(2)).build().unwrap();
    let e = source.fetch(&node.address, &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Deadline);
    assert!(e.to_string().contains("no answer within 2 s (cluster)"), "{e}");
    node.wait_for("end").await;
    assert_eq!(source.fetch(&node.address, &Query::Cluster).await.unwrap().rows, rows(&Query::Cluster));
    assert_eq!(node.connections(), 2);
}

#[tokio::test]
async fn a_dropped_question_leaves_no_connection_with_an_answer_outstanding() {
    let node = Fake::start(|number, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.log_in().await?;
        if number == 1 {
            talk.message().await?;
            return talk.message().await.map(drop);
        }
        talk.serve(rows).await
    })
    .await;
    let source = source(&node.address);
    let one = Query::ReplicaCounts(vec![StoreId(1)]);
    let asking = tokio::time::timeout(Duration::from_millis(200), source.fetch(&node.address, &one));
    assert!(asking.await.is_err());
    node.wait_for("end").await;
    let two = Query::ReplicaCounts(vec![StoreId(2)]);
    assert_eq!(source.fetch(&node.address, &two).await.unwrap().rows, rows(&two));
}

#[tokio::test]
async fn an_end_in_the_middle_of_an_answer_is_a_lost_connection() {
    let node = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.log_in().await?;
        talk.message().await?;
        let bytes = table(&Query::Cluster, &rows(&Query::Cluster));
        talk.send(&bytes[..bytes.len() - 20]).await
    })
    .await;
    let source = source(&node.address);
    let e = source.fetch(&node.address, &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::ConnectionLost, "{e}");
    assert_eq!(node.connections(), 1, "a new connection that is lost is not tried again");
}

#[tokio::test]
async fn a_kept_connection_that_died_is_made_anew() {
    for farewell in [vec![], error("57P01", "server is shutting down")] {
        let node = Fake::start(move |number, stream, heard| {
            let farewell = farewell.clone();
            async move {
                let mut talk = Talk::new(stream, heard);
                talk.log_in().await?;
                if number == 1 {
                    let (_, text) = talk.message().await?.unwrap();
                    talk.answer(&text, &rows).await?;
                    // It goes when the next question comes, so that the client cannot have seen it before.
                    talk.message().await?;
                    return talk.send(&farewell).await;
                }
                talk.serve(rows).await
            }
        })
        .await;
        let source = source(&node.address);
        source.fetch(&node.address, &Query::Cluster).await.unwrap();
        assert_eq!(source.fetch(&node.address, &Query::Cluster).await.unwrap().rows, rows(&Query::Cluster));
        assert_eq!(node.connections(), 2);
    }
}

#[tokio::test]
async fn a_serialization_failure_is_sent_again() {
    let node = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.log_in().await?;
        talk.message().await?;
        talk.send(&failure("40001", "restart transaction: TransactionRetryWithProtoRefreshError")).await?;
        talk.serve(rows).await
    })
    .await;
    let source = source(&node.address);
    assert_eq!(source.fetch(&node.address, &Query::Cluster).await.unwrap().rows, rows(&Query::Cluster));
    assert_eq!(node.connections(), 1);
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_named() {
    let node = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.log_in().await?;
        talk.message().await?;
        let row = ["2026-11-23 13:44:29+00:00", "t", "4", "many"].map(|c| Some(c.to_owned())).to_vec();
        talk.send(&cells(&["server_time", "present", "store_id", "replicas"], &[row])).await?;
        talk.message().await.map(drop)
    })
    .await;
    let query = Query::ReplicaCounts(vec![StoreId(4)]);
    let e = source(&node.address).fetch(&node.address, &query).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Malformed);
    assert!(e.to_string().contains("column 'replicas' holds 'many'"), "{e}");
}

#[tokio::test]
async fn a_password_asked_for_in_plaintext_is_not_answered() {
    let node = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.startup().await?;
        talk.send(&fake::message('R', &[0, 0, 0, 3])).await?;
        talk.message().await.map(drop)
    })
    .await;
    let e = source(&node.address).fetch(&node.address, &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Tls);
    assert!(e.to_string().contains("the node runs in secure mode"), "{e}");
    node.wait_for("end").await;
    assert_eq!(node.heard(), ["startup", "end"]);
}

#[tokio::test]
async fn secure_mode_says_nothing_to_a_node_that_refuses_tls() {
    let node = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.startup().await?;
        talk.send(b"N").await?;
        let mut rest = Vec::new();
        talk.stream.read_to_end(&mut rest).await?;
        talk.note(format!("{} bytes more", rest.len()));
        Ok(())
    })
    .await;
    let ca = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
    let source = SqlSource::builder([node.address.clone()])
        .security(Secure::ca_pem(ca).password(Secret::new("Alice_12345")))
        .build()
        .unwrap();
    let e = source.fetch(&node.address, &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Tls);
    assert!(e.to_string().contains("does not speak TLS"), "{e}");
    node.wait_for("0 bytes more").await;
    assert_eq!(node.heard(), ["SSLRequest", "0 bytes more"]);
}

#[tokio::test]
async fn nobody_at_home() {
    let dead = nobody().await;
    let e = source(&dead).fetch(&dead, &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Unreachable);
    assert!(e.to_string().contains("refused"), "{e}");

    let address = Address::new("name.invalid:26257");
    let e = source(&address).fetch(&address, &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Unreachable);
    assert!(e.to_string().contains("'name.invalid' cannot be resolved"), "{e}");
}

#[tokio::test]
async fn what_is_configured_wrongly_is_said_before_any_connection() {
    for seeds in [vec![], vec!["127.0.0.1"], vec!["127.0.0.1:0"], vec![":26257"], vec!["/tmp/x:26257"]] {
        let e = SqlSource::builder(seeds.clone()).build().unwrap_err();
        assert_eq!(e.kind(), PortErrorKind::Config, "{seeds:?}");
    }
    let source = source(&Address::new("127.0.0.1:26257"));
    let e = source.fetch(&Address::new("h"), &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Config);
    assert!(e.to_string().contains("'h' is not an SQL address"), "{e}");
}

#[tokio::test]
async fn another_gateway_is_asked_after_transient_errors_only() {
    let (dead, alive) = (nobody().await, good().await);
    let draining = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.startup().await?;
        talk.send(&error("57P01", "server is not accepting clients")).await
    })
    .await;
    let refusing = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.startup().await?;
        talk.send(&error("XXUUU", "password authentication failed for user root")).await
    })
    .await;
    let source = source(&dead);
    let gateways = [dead.clone(), draining.address.clone(), alive.address.clone(), refusing.address.clone()];
    let answer = source.fetch_any(&gateways, &Query::Cluster).await.unwrap();
    assert_eq!(answer.gateway, alive.address);

    let gateways = [refusing.address.clone(), alive.address.clone()];
    let e = source.fetch_any(&gateways, &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Authentication);

    let e = source.fetch_any(&[dead.clone(), draining.address.clone()], &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::ShuttingDown);
    let line = e.to_string();
    assert!(
        line.contains("none of 2")
            && line.contains(dead.as_str())
            && line.contains(draining.address.as_str())
    );
    let e = source.fetch_any(&[dead], &Query::Cluster).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Unreachable);
    assert_eq!(source.fetch_any(&[], &Query::Cluster).await.unwrap_err().kind(), PortErrorKind::Config);
}

#[tokio::test]
async fn settings_are_read_and_set() {
    let node = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.log_in().await?;
        while let Some((_, text)) = talk.message().await? {
            if text.starts_with("SET CLUSTER SETTING unknown.") {
                talk.send(&failure("XXUUU", "unknown cluster setting 'unknown.x'")).await?;
            } else if text.starts_with("SET CLUSTER SETTING ") {
                talk.send(&fake::done("SET CLUSTER SETTING")).await?;
            } else if text == "SHOW CLUSTER SETTING version" {
                talk.send(&cells(&["version"], &[vec![Some("20.1-3".to_owned())]])).await?;
            } else {
                talk.answer(&text, &rows).await?;
            }
        }
        Ok(())
    })
    .await;
    let (source, gateway) = (source(&node.address), &node.address);
    let name = "server.time_until_store_dead";
    assert_eq!(source.get(gateway, name).await.unwrap().as_deref(), Some("30m0s"));
    assert_eq!(source.get(gateway, "SERVER.time_until_store_dead").await.unwrap().as_deref(), Some("30m0s"));
    assert_eq!(source.get(gateway, "unknown.x").await.unwrap(), None);
    assert_eq!(source.get(gateway, "version").await.unwrap().as_deref(), Some("20.1-3"));

    source.set(gateway, name, "it's").await.unwrap();
    assert!(node.heard().contains(&format!("Q SET CLUSTER SETTING {name} = 'it''s'")), "{:?}", node.heard());
    let e = source.set(gateway, "unknown.x", "1").await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Unsupported);

    let before = node.heard().len();
    let e = source.set(gateway, "a = 1; DROP DATABASE app; --", "1").await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Config);
    assert_eq!(node.heard().len(), before);
    assert!(node.heard().contains(&format!("Q {}", statement::sql(&Query::Settings(vec![name.to_owned()])))));
}
