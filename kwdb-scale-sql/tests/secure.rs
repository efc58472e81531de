//! With TLS 1.2, as KWDB speaks it: certificates, names, passwords, and what is said when they are wrong.
#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod fake;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use fake::{Fake, Talk, error};
use kwdb_scale_core::ports::{FactSource, PortError, PortErrorKind};
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::secret::Secret;
use kwdb_scale_core::topology::Address;
use kwdb_scale_sql::{Secure, SqlSource};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

/// What `kwbase cert` makes: every CA of the same name, keys in PKCS#1.
struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("KWDB CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn sign(&self, common_name: &str, names: &[&str], key: &KeyPair) -> String {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = name(common_name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(key, &self.issuer).unwrap().pem()
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "KWDB");
    name.push(DnType::CommonName, common_name);
    name
}

/// An RSA key as `kwbase cert` writes it (PKCS#1), and the same for signing.
static RSA: LazyLock<(String, KeyPair)> = LazyLock::new(|| {
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    let pkcs1 = key.to_pkcs1_pem(rsa::pkcs1::LineEnding::LF).unwrap().to_string();
    let pkcs8 = key.to_pkcs8_pem(rsa::pkcs8::LineEnding::LF).unwrap();
    (pkcs1, KeyPair::from_pkcs8_pem_and_sign_algo(&pkcs8, &rcgen::PKCS_RSA_SHA256).unwrap())
});

/// A node for TLS 1.2 with a certificate of `ca` for `names`. Takes a client certificate of `ca`, or none and asks
/// for the password `Alice_12345`.
async fn node(ca: &Ca, names: &[&str]) -> Fake {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateDer::from_pem_slice(ca.sign("node", names, &key).as_bytes()).unwrap();
    let der = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], der)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Fake::start(move |_, stream, heard| {
        let acceptor = acceptor.clone();
        async move {
            let mut plain = Talk::new(stream, Arc::clone(&heard));
            if plain.startup().await?.is_some() {
                plain.note("plaintext");
                return Ok(());
            }
            plain.send(b"S").await?;
            let stream = match acceptor.accept(plain.stream).into_fallible().await {
                Ok(stream) => stream,
                Err((_, mut stream)) => {
                    // Lets the alert arrive before the reset that unread bytes would bring.
                    let mut rest = Vec::new();
                    return stream.read_to_end(&mut rest).await.map(drop);
                }
            };
            let has_certificate = stream.get_ref().1.peer_certificates().is_some();
            let mut talk = Talk::new(stream, heard);
            let user = talk.startup().await?.unwrap()["user"].clone();
            if !has_certificate {
                talk.send(&fake::message('R', &[0, 0, 0, 3])).await?;
                let Some((_, password)) = talk.message().await? else { return Ok(()) };
                if password != "Alice_12345" {
                    let text = format!("password authentication failed for user {user}");
                    return talk.send(&error("XXUUU", &text)).await;
                }
            }
            talk.note(if has_certificate { "by certificate" } else { "by password" });
            talk.welcome().await?;
            talk.set().await?;
            talk.serve(|_| Rows::Zones(vec![])).await
        }
    })
    .await
}

async fn ask(address: &Address, secure: Secure) -> Result<Rows, PortError> {
    let source = SqlSource::builder([address.clone()]).user("alice").security(secure).build()?;
    source.fetch(address, &Query::Zones).await.map(|answer| answer.rows)
}

fn write(dir: &Path, file: &str, content: &str) -> PathBuf {
    let path = dir.join(file);
    std::fs::write(&path, content).unwrap();
    path
}

/// SEC1 in PEM, out of the PKCS#8 that holds it.
fn sec1(key: &KeyPair) -> String {
    let pkcs8 = key.serialize_der();
    let at = pkcs8.windows(5).position(|w| w == [0x30, 0x6b, 0x02, 0x01, 0x01]).unwrap();
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let base64: String = pkcs8[at..]
        .chunks(3)
        .flat_map(|c| {
            let bits = (0..3).fold(0_usize, |b, i| b << 8 | usize::from(*c.get(i).unwrap_or(&0)));
            let length = c.len() + 1;
            let alphabet = &alphabet;
            (0..4).map(move |i| if i < length { alphabet[bits >> (18 - 6 * i) & 63] } else { '=' })
        })
        .collect();
    format!("-----BEGIN EC PRIVATE KEY-----\n{base64}\n-----END EC PRIVATE KEY-----\n")
}

#[tokio::test]
async fn keys_of_every_form_log_in() {
    let (ca, dir) = (Ca::new(), tempfile::tempdir().unwrap());
    let node = node(&ca, &["127.0.0.1", "localhost"]).await;
    write(dir.path(), "ca.crt", &ca.pem());

    // As kwbase cert writes them.
    assert!(RSA.0.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    write(dir.path(), "client.alice.crt", &ca.sign("alice", &[], &RSA.1));
    write(dir.path(), "client.alice.key", &RSA.0);
    ask(&node.address, Secure::certs_dir(dir.path(), "alice")).await.unwrap();

    let key = KeyPair::generate().unwrap();
    let certificate = ca.sign("alice", &[], &key);
    for key in [key.serialize_pem(), sec1(&key)] {
        let secure = Secure::ca_pem(ca.pem()).client_cert_pem(&certificate, Secret::new(key));
        ask(&node.address, secure).await.unwrap();
    }
    let by_certificate = node.heard().iter().filter(|l| *l == "by certificate").count();
    assert_eq!(by_certificate, 3);
}

#[tokio::test]
async fn a_password_goes_under_tls() {
    let ca = Ca::new();
    let node = node(&ca, &["127.0.0.1"]).await;
    let right = Secure::ca_pem(ca.pem()).password(Secret::new("Alice_12345"));
    assert_eq!(ask(&node.address, right).await.unwrap(), Rows::Zones(vec![]));
    assert!(node.heard().contains(&"by password".to_owned()));

    let wrong = Secure::ca_pem(ca.pem()).password(Secret::new("hunter2"));
    let e = ask(&node.address, wrong).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Authentication);
    assert!(e.to_string().contains("the log-in as 'alice' was refused"), "{e}");
    assert!(!format!("{e:?} {}", e.chain()).contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_ca_is_said_and_no_password_given() {
    let (ca, other) = (Ca::new(), Ca::new());
    let node = node(&ca, &["127.0.0.1"]).await;
    let e = ask(&node.address, Secure::ca_pem(other.pem()).password(Secret::new("Alice_12345")))
        .await
        .unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Tls);
    assert!(e.to_string().contains("not signed by the given CA"), "{e}");
    assert_eq!(node.heard(), ["SSLRequest"]);
}

#[tokio::test]
async fn a_wrong_name_is_said_and_can_be_overridden() {
    let ca = Ca::new();
    let node = node(&ca, &["n1.example"]).await;
    let secure = || Secure::ca_pem(ca.pem()).password(Secret::new("Alice_12345"));
    let e = ask(&node.address, secure()).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Tls);
    let line = e.to_string();
    assert!(line.contains("for another name") && line.contains("n1.example"), "{line}");

    ask(&node.address, secure().server_name("n1.example")).await.unwrap();
    let by_address = secure().server_name("wrong.example").server_name_of(node.address.clone(), "n1.example");
    ask(&node.address, by_address).await.unwrap();
    let of_another = secure().server_name_of(Address::new("127.0.0.1:1"), "n1.example");
    assert_eq!(ask(&node.address, of_another).await.unwrap_err().kind(), PortErrorKind::Tls);
}

#[tokio::test]
async fn a_client_certificate_of_another_ca_is_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let node = node(&ca, &["127.0.0.1"]).await;
    let key = KeyPair::generate().unwrap();
    let secure = Secure::ca_pem(ca.pem())
        .client_cert_pem(other.sign("alice", &[], &key), Secret::new(key.serialize_pem()))
        .password(Secret::new("Alice_12345"));
    let e = ask(&node.address, secure).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Authentication, "{}", e.chain());
    assert!(e.to_string().contains("refused the client certificate"), "{e}");
}

#[tokio::test]
async fn bytes_that_are_no_tls_are_said() {
    let node = Fake::start(|_, stream, heard| async move {
        let mut talk = Talk::new(stream, heard);
        talk.startup().await?;
        talk.send(b"SHTTP/1.1 400 Bad Request\r\n\r\n").await?;
        let mut rest = Vec::new();
        talk.stream.read_to_end(&mut rest).await.map(drop)
    })
    .await;
    let secure = Secure::ca_pem(Ca::new().pem()).password(Secret::new("Alice_12345"));
    let e = ask(&node.address, secure).await.unwrap_err();
    assert_eq!(e.kind(), PortErrorKind::Tls, "{}", e.chain());
}

#[test]
fn a_configuration_that_cannot_work_is_refused_before_any_connection() {
    let (ca, dir) = (Ca::new(), tempfile::tempdir().unwrap());
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = ca.sign("alice", &[], &key);
    let ca_file = write(dir.path(), "ca.crt", &ca.pem());
    let cert_file = write(dir.path(), "alice.crt", &certificate);
    let no_key = write(dir.path(), "no.key", &certificate);
    let other_key = write(dir.path(), "other.key", &other.serialize_pem());
    let empty = write(dir.path(), "empty.crt", "nothing");
    let absent = dir.path().join("absent.key");
    let with = |cert: &Path, key: &Path| Secure::ca_file(&ca_file).client_cert_files(cert, key);
    for (secure, kind, says) in [
        (Secure::ca_file(&ca_file), PortErrorKind::Config, "neither is given"),
        (with(&cert_file, &absent), PortErrorKind::NotFound, "absent.key' cannot be read"),
        (with(&cert_file, &no_key), PortErrorKind::Config, "no.key' is no unencrypted"),
        (with(&cert_file, &other_key), PortErrorKind::Config, "other.key' cannot be used together"),
        (with(&empty, &other_key), PortErrorKind::Config, "empty.crt' holds no certificate"),
        (
            Secure::ca_file(&empty).password(Secret::new("x")),
            PortErrorKind::Config,
            "empty.crt' holds no certificate",
        ),
    ] {
        let e = SqlSource::builder(["127.0.0.1:26257"]).security(secure).build().unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(says), "{e}");
    }
}

#[test]
fn neither_password_nor_key_is_shown() {
    let ca = Ca::new();
    let key = KeyPair::generate().unwrap();
    let builder = SqlSource::builder(["127.0.0.1:26257"]).security(
        Secure::ca_pem(ca.pem())
            .client_cert_pem(ca.sign("alice", &[], &key), Secret::new(key.serialize_pem()))
            .password(Secret::new("hunter2")),
    );
    let shown = format!("{builder:?} {:?}", builder.clone().build().unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains("PRIVATE KEY"), "{shown}");
}
