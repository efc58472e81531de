//! The twin's ports inside a test, asked by a real PostgreSQL client.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::statement;
use kwdb_scale_core::topology::Address;
use kwdb_scale_sim::certs;
use kwdb_scale_sim::model::{Cluster, Config, NodeStart, Security, Shared};
use kwdb_scale_sim::process::{Listeners, Pace, free_addresses};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

struct Twin {
    cluster: Shared,
    addresses: Vec<Address>,
    listeners: Listeners,
}

/// Three nodes that have replicated their ranges.
async fn three_nodes(security: Security, pace: Pace, certs: Option<&std::path::Path>) -> Twin {
    let addresses = free_addresses(3).unwrap();
    let mut cluster = Cluster::new(Config { security: security.clone(), ..Config::default() });
    for address in &addresses {
        let start =
            NodeStart { security: security.clone(), ..NodeStart::new(address.clone(), addresses.clone()) };
        cluster.start_node(start).unwrap();
    }
    cluster.advance(Duration::from_secs(2));
    cluster.init(&addresses[0]).unwrap();
    cluster.advance(Duration::from_secs(300));
    let cluster = Arc::new(Mutex::new(cluster));
    let mut listeners = Listeners::new(Arc::clone(&cluster), pace);
    if let Some(certs) = certs {
        listeners = listeners.secure(certs).unwrap();
    }
    for address in &addresses {
        listeners.open(address).await.unwrap();
    }
    Twin { cluster, addresses, listeners }
}

async fn connect(address: &Address) -> Result<Client, tokio_postgres::Error> {
    let config = format!("host=127.0.0.1 port={} user=root connect_timeout=5", address.port().unwrap());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn cells(messages: &[SimpleQueryMessage]) -> Vec<Vec<Option<String>>> {
    let rows = messages.iter().filter_map(|m| match m {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()).collect()
}

fn db_error(error: &tokio_postgres::Error) -> (String, String) {
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    (error.code().code().to_owned(), error.message().to_owned())
}

#[tokio::test]
async fn every_query_of_the_closed_set_comes_back_as_the_model_says() {
    let twin = three_nodes(Security::Insecure, Pace::Manual, None).await;
    let client = connect(&twin.addresses[1]).await.unwrap();
    let stores = {
        let cluster = twin.cluster.lock().unwrap();
        let Rows::Stores(stores) = cluster.rows(&twin.addresses[1], &Query::Stores).unwrap().rows else {
            panic!()
        };
        stores.iter().map(|s| s.store_id).collect::<Vec<_>>()
    };
    for query in [
        Query::Cluster,
        Query::Liveness,
        Query::Nodes,
        Query::Stores,
        Query::Ranges,
        Query::ReplicaCounts(stores.clone()),
        Query::RangesOn { stores, limit: 3 },
        Query::Zones,
        Query::Jobs,
        Query::Settings(vec!["server.time_until_store_dead".to_owned()]),
    ] {
        let rows = cells(&client.simple_query(&statement::sql(&query)).await.unwrap());
        let answer = statement::parse(&query, &twin.addresses[1], statement::columns(&query), &rows).unwrap();
        let expected = twin.cluster.lock().unwrap().rows(&twin.addresses[1], &query).unwrap();
        assert_eq!(answer.rows, expected.rows, "{query:?}");
    }
}

#[tokio::test]
async fn small_statements_and_errors() {
    let twin = three_nodes(Security::Insecure, Pace::Manual, None).await;
    let client = connect(&twin.addresses[0]).await.unwrap();
    let rows = cells(
        &client.simple_query("SET statement_timeout = '5s'; SELECT 1; SELECT version()").await.unwrap(),
    );
    assert_eq!(rows[0], [Some("1".to_owned())]);
    assert!(rows[1][0].as_deref().unwrap().starts_with("KaiwuDB V3.2.1 "));
    let page = "SELECT sum((metrics->>'ranges.unavailable')::DECIMAL)::INT AS ranges_unavailable,
       sum((metrics->>'ranges.underreplicated')::DECIMAL)::INT AS ranges_underreplicated
    FROM kwdb_internal.kv_store_status;";
    assert_eq!(
        cells(&client.simple_query(page).await.unwrap()),
        [[Some("0".to_owned()), Some("0".to_owned())]]
    );
    client.simple_query("SET CLUSTER SETTING server.time_until_store_dead = '75s'").await.unwrap();
    let shown = client.simple_query("SHOW CLUSTER SETTING server.time_until_store_dead").await.unwrap();
    assert_eq!(cells(&shown), [[Some("1m15s".to_owned())]]);
    let error = client.simple_query("SELECT * FROM nosuch").await.unwrap_err();
    assert_eq!(
        db_error(&error),
        ("42601".into(), "the twin does not know this statement: SELECT * FROM nosuch".into())
    );
    let error = client.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(db_error(&error).0, "0A000");
    // The session goes on after both.
    client.simple_query("SELECT 1").await.unwrap();
    let config = format!("host=127.0.0.1 port={} user=nosuchuser", twin.addresses[0].port().unwrap());
    let Err(error) = tokio_postgres::connect(&config, NoTls).await else { panic!() };
    assert_eq!(
        db_error(&error),
        ("XXUUU".into(), "password authentication failed for user nosuchuser".into())
    );
}

#[tokio::test]
async fn who_is_no_administrator_reads_no_topology() {
    let twin = three_nodes(Security::Insecure, Pace::Manual, None).await;
    twin.listeners.set_user("bob", "Bob_123456", false);
    let config = format!("host=127.0.0.1 port={} user=bob", twin.addresses[0].port().unwrap());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    let error = client.simple_query(&statement::sql(&Query::Nodes)).await.unwrap_err();
    assert_eq!(
        db_error(&error),
        (
            "42501".into(),
            "only users with the admin role are allowed to read kwdb_internal.gossip_nodes".into()
        )
    );
    let query = Query::Cluster;
    let rows = cells(&client.simple_query(&statement::sql(&query)).await.unwrap());
    let answer = statement::parse(&query, &twin.addresses[0], statement::columns(&query), &rows).unwrap();
    let Rows::Cluster(row) = answer.rows else { panic!() };
    assert_eq!(row.is_admin, Some(false));
    let rows = cells(&client.simple_query(&statement::sql(&Query::Zones)).await.unwrap());
    assert!(
        statement::parse(&Query::Zones, &twin.addresses[0], statement::columns(&Query::Zones), &rows)
            .is_err()
    );
}

#[tokio::test]
async fn a_drained_node_refuses_and_a_killed_one_is_gone() {
    let mut twin = three_nodes(Security::Insecure, Pace::Manual, None).await;
    let idle = connect(&twin.addresses[2]).await.unwrap();
    let transaction = connect(&twin.addresses[2]).await.unwrap();
    transaction.simple_query("BEGIN; SELECT 1").await.unwrap();
    let waits = |twin: &Twin| twin.cluster.lock().unwrap().drain_waits_until(&twin.addresses[2]);
    twin.cluster.lock().unwrap().refuse_clients(&twin.addresses[2]).unwrap();
    assert!(waits(&twin).is_some());
    while !idle.is_closed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    transaction.simple_query("SELECT 1; ROLLBACK; BEGIN").await.unwrap();
    let error = connect(&twin.addresses[2]).await.unwrap_err();
    assert_eq!(db_error(&error), ("57P01".into(), "server is not accepting clients".into()));

    twin.cluster.lock().unwrap().drain(&twin.addresses[2]).unwrap();
    while !transaction.is_closed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = connect(&twin.addresses[2]).await.unwrap_err();
    assert_eq!(db_error(&error).0, "57P01");
    twin.cluster.lock().unwrap().kill_node(&twin.addresses[2]);
    // The port is closed a moment after the connections.
    while tokio::net::TcpStream::connect(twin.addresses[2].as_str()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let again = NodeStart::new(twin.addresses[2].clone(), twin.addresses.clone());
    twin.cluster.lock().unwrap().start_node(again).unwrap();
    twin.listeners.open(&twin.addresses[2]).await.unwrap();
    twin.cluster.lock().unwrap().advance(Duration::from_secs(5));
    connect(&twin.addresses[2]).await.unwrap();
}

#[tokio::test]
async fn without_a_quorum_clients_stall_and_go_on_when_it_is_back() {
    let mut twin = three_nodes(Security::Insecure, Pace::Manual, None).await;
    let client = connect(&twin.addresses[0]).await.unwrap();
    for address in &twin.addresses[1..] {
        assert!(twin.cluster.lock().unwrap().kill_node(address));
    }
    let late = connect(&twin.addresses[0]);
    let query = client.simple_query("SELECT 1");
    tokio::pin!(late, query);
    let stalled = tokio::time::timeout(Duration::from_millis(200), async {
        tokio::select! { _ = &mut late => "connected", _ = &mut query => "answered" }
    });
    assert!(stalled.await.is_err());
    for address in &twin.addresses[1..] {
        let again = NodeStart::new(address.clone(), twin.addresses.clone());
        twin.cluster.lock().unwrap().start_node(again).unwrap();
        twin.listeners.open(address).await.unwrap();
    }
    twin.cluster.lock().unwrap().advance(Duration::from_secs(30));
    query.await.unwrap();
    late.await.unwrap();
}

#[tokio::test]
async fn a_secure_node_wants_a_certificate_or_a_password() {
    let tmp = tempfile::tempdir().unwrap();
    let (ours, theirs) = (tmp.path().join("ours"), tmp.path().join("theirs"));
    certs::create(&ours, &["127.0.0.1"], &["root"]).unwrap();
    certs::create(&theirs, &["127.0.0.1"], &["root"]).unwrap();
    let security = Security::Ca(std::fs::read_to_string(ours.join("ca.crt")).unwrap());
    let twin = three_nodes(security, Pace::Manual, Some(&ours)).await;
    twin.listeners.set_user("alice", "Alice_12345", true);
    let port = twin.addresses[0].port().unwrap();

    let connector = |ca: &std::path::Path, client: Option<&std::path::Path>| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca.join("ca.crt")).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        MakeRustlsConnect::new(match client {
            None => builder.with_no_client_auth(),
            Some(dir) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(dir.join("client.root.crt")).unwrap()],
                    PrivateKeyDer::from_pem_file(dir.join("client.root.key")).unwrap(),
                )
                .unwrap(),
        })
    };
    let as_user = |user: &str, password: &str| {
        format!("host=127.0.0.1 port={port} sslmode=require user={user} {password}")
    };

    // The certificate of root is root's, and nobody else's.
    let (client, connection) =
        tokio_postgres::connect(&as_user("root", ""), connector(&ours, Some(&ours))).await.unwrap();
    tokio::spawn(connection);
    client.simple_query("SELECT 1").await.unwrap();
    let Err(error) = tokio_postgres::connect(&as_user("alice", ""), connector(&ours, Some(&ours))).await
    else {
        panic!()
    };
    assert_eq!(db_error(&error).0, "XXUUU");
    // Passwords.
    let alice = as_user("alice", "password=Alice_12345");
    assert!(tokio_postgres::connect(&alice, connector(&ours, None)).await.is_ok());
    let Err(error) = tokio_postgres::connect(&as_user("alice", "password=no"), connector(&ours, None)).await
    else {
        panic!()
    };
    assert_eq!(db_error(&error).1, "password authentication failed for user alice");
    // A client that trusts another authority, and one that another authority vouches for.
    assert!(tokio_postgres::connect(&alice, connector(&theirs, None)).await.is_err());
    assert!(tokio_postgres::connect(&as_user("root", ""), connector(&ours, Some(&theirs))).await.is_err());
    // Plaintext is let in, and asked for the password.
    let plain = format!("host=127.0.0.1 port={port} sslmode=disable user=alice password=Alice_12345");
    assert!(tokio_postgres::connect(&plain, NoTls).await.is_ok());
    let root = format!("host=127.0.0.1 port={port} sslmode=disable user=root");
    assert!(tokio_postgres::connect(&root, NoTls).await.is_err());
}
