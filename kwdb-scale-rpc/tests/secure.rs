//! Over the twin's ports with TLS 1.2, as KWDB speaks it: whose certificate is taken, and what is said of the others.
#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod twin;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use hyper_util::rt::{TokioExecutor, TokioIo};
use kwdb_scale_core::ports::{DecommissionControl, PortErrorKind};
use kwdb_scale_core::secret::Secret;
use kwdb_scale_core::topology::{Address, NodeId};
use kwdb_scale_rpc::{AdminRpc, Readiness, Secure};
use kwdb_scale_sim::certs;
use kwdb_scale_sim::process::Pace;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use twin::{DEADLINE, Twin, fails, insecure};

fn certs(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    certs::create(dir.path(), names, &["root", "alice"]).unwrap();
    dir
}

/// The cluster's own: keys take their time to make.
static OURS: LazyLock<TempDir> = LazyLock::new(|| certs(&["127.0.0.1", "localhost"]));

fn rpc(secure: Secure) -> AdminRpc {
    AdminRpc::builder().security(secure).build().unwrap()
}

fn text(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_and_node_are_taken_and_nobody_else() {
    let ours = &*OURS;
    let twin = Twin::secure(4, ours.path()).await;
    let via = twin.via(1);
    for user in ["root", "node"] {
        let rpc = rpc(Secure::certs_dir(ours.path(), user));
        assert_eq!(rpc.ready(&via.address, DEADLINE).await.unwrap(), Readiness::Ready);
        let marked = rpc.mark(&via, &[NodeId(4)], DEADLINE).await.unwrap();
        assert!(marked[0].decommissioning);
        let cleared = rpc.recommission(&via, &[NodeId(4)], DEADLINE).await.unwrap();
        assert!(!cleared[0].decommissioning);
    }
    let pem = |file: &str| text(ours.path(), file);
    let by_text = Secure::ca_pem(pem("ca.crt"))
        .client_cert_pem(pem("client.root.crt"), Secret::new(pem("client.root.key")))
        .server_name("localhost");
    assert!(rpc(by_text).status(&via, &[NodeId(4)], DEADLINE).await.unwrap().is_some());

    let theirs = certs(&["127.0.0.1"]);
    let of = async |secure: Secure| {
        let rpc = rpc(secure);
        let errors = [
            fails(rpc.ready(&via.address, DEADLINE).await),
            fails(rpc.status(&via, &[NodeId(4)], DEADLINE).await),
            fails(rpc.mark(&via, &[NodeId(4)], DEADLINE).await),
            fails(rpc.drain(&via.address, DEADLINE, |_| {}).await),
            fails(rpc.shutdown(&via.address, DEADLINE).await),
        ];
        let [first, rest @ ..] = errors;
        assert!(rest.iter().all(|e| e.kind() == first.kind()), "{first} {rest:?}");
        assert_eq!(first.to_string().lines().count(), 1, "{first}");
        first
    };
    let alice = of(Secure::certs_dir(ours.path(), "alice")).await;
    assert_eq!(alice.kind(), PortErrorKind::Denied, "{alice}");
    assert!(alice.to_string().contains("root or node"), "{alice}");
    assert!(alice.chain().contains("user [alice] is not allowed to perform this RPC"), "{}", alice.chain());

    let pair = |dir: &Path| (dir.join("client.root.crt"), dir.join("client.root.key"));
    let (cert, key) = pair(theirs.path());
    let foreign = of(Secure::ca_file(ours.path().join("ca.crt")).client_cert_files(cert, key)).await;
    assert_eq!(foreign.kind(), PortErrorKind::Authentication, "{}", foreign.chain());
    assert!(foreign.to_string().contains("refused the client certificate"), "{foreign}");

    let (cert, key) = pair(ours.path());
    let wrong_ca = of(Secure::ca_file(theirs.path().join("ca.crt")).client_cert_files(cert, key)).await;
    assert_eq!(wrong_ca.kind(), PortErrorKind::Tls, "{}", wrong_ca.chain());
    assert!(wrong_ca.to_string().contains("not signed by the given CA"), "{wrong_ca}");

    for secure in [
        Secure::certs_dir(ours.path(), "root").server_name("kw9.example"),
        Secure::certs_dir(ours.path(), "root").server_name_of(via.address.clone(), "kw9.example"),
    ] {
        let name = of(secure).await;
        assert_eq!(name.kind(), PortErrorKind::Tls, "{}", name.chain());
        assert!(
            name.to_string().contains("another name") && name.to_string().contains("kw9.example"),
            "{name}"
        );
    }
    let none = of(Secure::certs_dir(ours.path(), "root").server_name("no name")).await;
    assert_eq!(none.kind(), PortErrorKind::Config, "{none}");

    let plaintext = fails(insecure().mark(&via, &[NodeId(4)], DEADLINE).await);
    assert_eq!(plaintext.kind(), PortErrorKind::Tls, "{}", plaintext.chain());
    assert!(plaintext.to_string().contains("secure"), "{plaintext}");

    let status = rpc(Secure::certs_dir(ours.path(), "root")).status(&via, &[NodeId(4)], DEADLINE).await;
    let status = status.unwrap().unwrap();
    assert!(!status[0].decommissioning && !status[0].draining, "none of them did anything: {status:?}");
}

#[tokio::test]
async fn tls_to_an_insecure_node_is_said_to_be_that() {
    let ours = &*OURS;
    let twin = Twin::plain(3, Pace::Times(20.0)).await;
    let secure = rpc(Secure::certs_dir(ours.path(), "root"));
    let error = fails(secure.status(&twin.via(1), &[NodeId(1)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::Tls, "{}", error.chain());
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

/// The code and the words that a client without a certificate, or with a method of its own, is answered with.
async fn raw(address: &Address, ca: Option<&Path>, path: &str) -> (String, String) {
    let stream = tokio::net::TcpStream::connect(address.as_str()).await.unwrap();
    let request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::empty())
        .unwrap();
    let answer = match ca {
        None => send(stream, request).await,
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
            let ring = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = rustls::ClientConfig::builder_with_provider(ring)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec()];
            let name = ServerName::try_from("localhost").unwrap();
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
            send(stream, request).await
        }
    };
    let header = |name: &str| answer.headers()[name].to_str().unwrap().replace("%20", " ");
    (header("grpc-status"), header("grpc-message"))
}

async fn send<S>(
    stream: S,
    request: http::Request<tonic::body::Body>,
) -> http::Response<hyper::body::Incoming>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

#[tokio::test]
async fn the_twin_says_what_a_kwdb_says_to_strangers() {
    let ours = &*OURS;
    let twin = Twin::secure(3, ours.path()).await;
    let ca = ours.path().join("ca.crt");
    for method in ["Health", "DecommissionStatus", "Decommission", "Drain", "EnqueueRange"] {
        let path = format!("/kwbase.server.serverpb.Admin/{method}");
        let said = raw(&twin.addresses[0], Some(&ca), &path).await;
        assert_eq!(said, ("2".to_owned(), "no client certificates in request".to_owned()), "{method}");
    }
    let plain = Twin::plain(3, Pace::Times(20.0)).await;
    let unknown = raw(&plain.addresses[0], None, "/kwbase.server.serverpb.Admin/Nope").await;
    let text = "unknown method Nope for service kwbase.server.serverpb.Admin";
    assert_eq!(unknown, ("12".to_owned(), text.to_owned()));
    let unknown = raw(&plain.addresses[0], None, "/grpc.health.v1.Health/Check").await;
    assert_eq!(unknown, ("12".to_owned(), "unknown service grpc.health.v1.Health".to_owned()));
}

#[test]
fn what_is_missing_is_named_before_any_connection() {
    let ours = &*OURS;
    let build = |secure: Secure| AdminRpc::builder().security(secure).build().unwrap_err();
    let none = build(Secure::ca_file(ours.path().join("ca.crt")));
    assert_eq!(none.kind(), PortErrorKind::Config, "{none}");
    assert!(none.to_string().contains("client.root.crt"), "{none}");
    let absent = build(Secure::certs_dir(ours.path(), "bob"));
    assert_eq!(absent.kind(), PortErrorKind::NotFound, "{absent}");
    assert!(absent.to_string().contains("client.bob.crt"), "{absent}");
    let cert = ours.path().join("client.root.crt");
    let twice = build(Secure::ca_file(ours.path().join("ca.crt")).client_cert_files(&cert, &cert));
    assert_eq!(twice.kind(), PortErrorKind::Config, "{twice}");
    let other = ours.path().join("client.alice.key");
    let unfit = build(Secure::ca_file(ours.path().join("ca.crt")).client_cert_files(&cert, other));
    assert_eq!(unfit.kind(), PortErrorKind::Config, "{unfit}");
}
