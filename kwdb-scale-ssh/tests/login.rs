//! Host keys and logins against a real sshd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sshd;

use std::path::{Path, PathBuf};
use std::process::Command;

use kwdb_scale_core::ports::{HostTransport, PortError, PortErrorKind};
use kwdb_scale_core::secret::Secret;
use kwdb_scale_ssh::{Agent, HostKeyPolicy, KeyFile, SshHost};
use sshd::{SshAgent, Sshd, installed, key, keygen, n1, public, transport, user};

/// Runs a command on the host, or gives the error.
async fn reach(host: SshHost) -> Result<(), PortError> {
    let command = kwdb_scale_core::ports::Command::new(["true"]);
    let result = transport(host).run(&n1(), &command).await;
    result.map(|output| assert!(output.end.success(), "{output:?}"))
}

async fn refused(host: SshHost) -> PortError {
    let error = reach(host).await.unwrap_err();
    assert!(!error.chain().contains("hunter2"), "no secret is shown: {}", error.chain());
    assert!(!error.to_string().contains('\n'), "one line: {error}");
    error
}

fn authorize(sshd: &Sshd, keys: &[&Path]) {
    let text: String = keys.iter().map(|key| public(key)).collect();
    std::fs::write(sshd.path("authorized_keys"), text).unwrap();
}

fn accept(sshd: &Sshd, file: &Path) -> SshHost {
    let policy = HostKeyPolicy::AcceptNew { file: file.into(), also: vec![], hashed: false };
    SshHost::new("127.0.0.1", user(), policy).port(sshd.port).login(KeyFile::new(sshd.path("id")))
}

#[tokio::test]
async fn every_kind_of_key() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    for (kind, passphrase) in
        [("ed25519", ""), ("ecdsa", ""), ("rsa", ""), ("ed25519", "hunter2"), ("rsa", "hunter2")]
    {
        let name = format!("{kind}-{passphrase}");
        let path = key(sshd.dir.path(), &name, kind, passphrase);
        authorize(&sshd, &[&path]);
        let file = KeyFile::new(&path);
        let file = if passphrase.is_empty() { file } else { file.passphrase(Secret::new(passphrase)) };
        reach(sshd.bare_host().login(file)).await.unwrap_or_else(|e| panic!("{name}: {}", e.chain()));
    }
    // Its private number begins with a zero byte, as that of one key in 256 does.
    let short = sshd.path("ecdsa-short");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ecdsa-short"), &short).unwrap();
    std::fs::set_permissions(&short, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let path = short.to_str().unwrap();
    let shown = Command::new("ssh-keygen").args(["-y", "-f", path]).output().unwrap();
    std::fs::write(short.with_extension("pub"), shown.stdout).unwrap();
    authorize(&sshd, &[&short]);
    reach(sshd.bare_host().login(KeyFile::new(&short))).await.unwrap();
    for (before, cipher) in [("", "aes256-ctr"), ("hunter2", "aes256-gcm@openssh.com")] {
        keygen(&["-p", "-P", before, "-N", "hunter2", "-Z", cipher, "-f", path]);
        let error = refused(sshd.bare_host().login(KeyFile::new(&short))).await;
        assert!(error.to_string().contains("give its passphrase"), "{error}");
        let file = KeyFile::new(&short).passphrase(Secret::new("hunter2"));
        reach(sshd.bare_host().login(file)).await.unwrap_or_else(|e| panic!("{cipher}: {}", e.chain()));
    }
    let pem = sshd.path("pem");
    keygen(&["-t", "rsa", "-m", "PEM", "-N", "", "-f", pem.to_str().unwrap()]);
    authorize(&sshd, &[&pem]);
    reach(sshd.bare_host().login(KeyFile::new(&pem))).await.unwrap();
}

#[tokio::test]
async fn keys_that_do_not_open() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let stranger = key(sshd.dir.path(), "stranger", "ed25519", "");
    let error = refused(sshd.bare_host().login(KeyFile::new(&stranger))).await;
    assert_eq!(error.kind(), PortErrorKind::Authentication);
    let text = error.to_string();
    assert!(text.contains("stranger") && text.contains(&user()) && text.contains("publickey"), "{text}");
    // The next way is tried on the same connection.
    reach(sshd.bare_host().login(KeyFile::new(&stranger)).login(KeyFile::new(sshd.path("id"))))
        .await
        .unwrap();

    let locked = key(sshd.dir.path(), "locked", "ed25519", "hunter2");
    let error = refused(sshd.bare_host().login(KeyFile::new(&locked))).await;
    assert!(error.kind() == PortErrorKind::Config && error.to_string().contains("passphrase"), "{error}");
    let wrong = KeyFile::new(&locked).passphrase(Secret::new("hunter22"));
    let error = refused(sshd.bare_host().login(wrong)).await;
    assert!(error.kind() == PortErrorKind::Config && error.to_string().contains("passphrase"), "{error}");
    let error = refused(sshd.bare_host().login(KeyFile::new(sshd.path("absent")))).await;
    assert!(error.kind() == PortErrorKind::NotFound && error.to_string().contains("absent"), "{error}");
    let error = refused(sshd.bare_host().login(KeyFile::new(sshd.path("sshd_config")))).await;
    assert!(error.kind() == PortErrorKind::Config && error.to_string().contains("sshd_config"), "{error}");
    // A key that cannot be used does not keep the next from being tried.
    reach(sshd.bare_host().login(KeyFile::new(&locked)).login(KeyFile::new(sshd.path("id")))).await.unwrap();
}

#[tokio::test]
async fn passwords_that_the_server_does_not_take() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let error =
        refused(sshd.bare_host().login(kwdb_scale_ssh::Login::Password(Secret::new("hunter2")))).await;
    assert_eq!(error.kind(), PortErrorKind::Authentication, "{error}");
}

/// Makes the certificate of a user's key, beside it.
fn certify(authority: &Path, id: &Path) {
    let (authority, id) = (authority.to_str().unwrap(), id.with_extension("pub"));
    keygen(&["-s", authority, "-I", "me", "-n", &user(), id.to_str().unwrap()]);
}

#[tokio::test]
async fn certificates_of_users() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let authority = key(sshd.dir.path(), "authority", "ed25519", "");
    std::fs::write(sshd.path("authorized_keys"), format!("cert-authority {}", public(&authority))).unwrap();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let id = key(sshd.dir.path(), &format!("user-{kind}"), kind, "");
        certify(&authority, &id);
        let certificate = sshd.path(&format!("user-{kind}-cert.pub"));
        reach(sshd.bare_host().login(KeyFile::new(&id).certificate(&certificate))).await.unwrap();
        assert_eq!(
            refused(sshd.bare_host().login(KeyFile::new(&id))).await.kind(),
            PortErrorKind::Authentication
        );
        let other = KeyFile::new(sshd.path("id")).certificate(&certificate);
        assert!(refused(sshd.bare_host().login(other)).await.to_string().contains("belongs to another key"));
    }
    // The key alone will do where the certificate does not.
    let id = sshd.path("user-rsa");
    authorize(&sshd, &[&id]);
    std::fs::write(sshd.path("unreadable"), "x").unwrap();
    for certificate in ["user-rsa-cert.pub", "user-ecdsa-cert.pub", "unreadable", "absent"] {
        let file = KeyFile::new(&id).certificate(sshd.path(certificate));
        reach(sshd.bare_host().login(file)).await.unwrap_or_else(|e| panic!("{certificate}: {}", e.chain()));
    }
}

#[tokio::test]
async fn agents() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let agent = SshAgent::start(sshd.dir.path());
    let error = refused(sshd.bare_host().login(Agent::at(&agent.socket))).await;
    assert!(error.kind() == PortErrorKind::Authentication && error.to_string().contains("no key"), "{error}");
    let keys: Vec<PathBuf> =
        ["ed25519", "ecdsa", "rsa"].iter().map(|kind| key(sshd.dir.path(), kind, kind, "")).collect();
    for key in &keys {
        agent.add(key);
    }
    for key in &keys {
        authorize(&sshd, &[key]);
        reach(sshd.bare_host().login(Agent::at(&agent.socket))).await.unwrap();
        let only = Agent::at(&agent.socket).only(key.with_extension("pub"));
        reach(sshd.bare_host().login(only)).await.unwrap();
    }
    let other = Agent::at(&agent.socket).only(keys[0].with_extension("pub"));
    assert_eq!(refused(sshd.bare_host().login(other)).await.kind(), PortErrorKind::Authentication);
    let error = refused(sshd.bare_host().login(Agent::at(sshd.path("absent")))).await;
    assert!(error.to_string().contains("absent"), "{error}");
    // The private key names its public one as well.
    authorize(&sshd, &[&keys[1]]);
    reach(sshd.bare_host().login(Agent::at(&agent.socket).only(&keys[1]))).await.unwrap();
    let error =
        refused(sshd.bare_host().login(Agent::at(&agent.socket).only(sshd.path("sshd_config")))).await;
    assert!(error.to_string().contains("no OpenSSH public key"), "{error}");

    // A certificate in the agent, of an RSA key too.
    let authority = key(sshd.dir.path(), "authority", "ed25519", "");
    std::fs::write(sshd.path("authorized_keys"), format!("cert-authority {}", public(&authority))).unwrap();
    let id = key(sshd.dir.path(), "user", "rsa", "");
    certify(&authority, &id);
    agent.add(&id);
    let only = Agent::at(&agent.socket).only(id.with_extension("pub"));
    reach(sshd.bare_host().login(only)).await.unwrap();
}

#[tokio::test]
async fn host_keys() {
    let Some(program) = installed() else { return };
    let dir = tempfile::tempdir().unwrap();
    key(dir.path(), "host", "ed25519", "");
    let rsa = key(dir.path(), "rsa", "rsa", "");
    let id = key(dir.path(), "id", "ed25519", "");
    std::fs::write(dir.path().join("authorized_keys"), public(&id)).unwrap();
    let sshd = Sshd::start_in(dir, &program, &format!("HostKey {}", rsa.display()));
    let file = sshd.path("recorded");

    // Recorded once, then strict.
    for _ in 0..2 {
        reach(accept(&sshd, &file)).await.unwrap();
    }
    let recorded = std::fs::read_to_string(&file).unwrap();
    assert_eq!(recorded.lines().count(), 1, "{recorded}");
    let known = format!("[127.0.0.1]:{} ssh-ed25519 ", sshd.port);
    assert!(recorded.starts_with(&known), "{recorded}");

    // Another key under that name is refused, with file and line.
    let other = key(sshd.dir.path(), "other", "ed25519", "");
    std::fs::write(&file, format!("# once\n[127.0.0.1]:{} {}", sshd.port, public(&other))).unwrap();
    let error = refused(accept(&sshd, &file)).await;
    assert_eq!(error.kind(), PortErrorKind::Authentication);
    assert!(error.to_string().contains(&format!("{}:2", file.display())), "{error}");

    // A host known by its RSA key only is asked for that one.
    let policy = HostKeyPolicy::Strict { files: vec![file.clone()] };
    let host = SshHost::new("127.0.0.1", user(), policy).port(sshd.port).login(KeyFile::new(&id));
    std::fs::write(&file, format!("[127.0.0.1]:{} {}", sshd.port, public(&rsa))).unwrap();
    reach(host.clone()).await.unwrap();
    std::fs::write(&file, format!("alias {}", public(&rsa))).unwrap();
    assert!(refused(host.clone()).await.to_string().contains(file.to_str().unwrap()));
    reach(host.known_as("Alias")).await.unwrap();

    // Pinned.
    let output = Command::new("ssh-keygen").arg("-lf").arg(sshd.path("host")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let fingerprint = text.split_whitespace().nth(1).unwrap().to_owned();
    let pinned = |fingerprint: String| {
        let policy = HostKeyPolicy::Pinned { fingerprints: vec![fingerprint] };
        SshHost::new("127.0.0.1", user(), policy).port(sshd.port).login(KeyFile::new(&id))
    };
    reach(pinned(fingerprint.clone())).await.unwrap();
    let error = refused(pinned("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into())).await;
    assert!(error.to_string().contains(&fingerprint), "{error}");
    assert_eq!(sshd.logins(), 5, "nobody logs in to a host that is not known: {}", sshd.log());
}

#[tokio::test]
async fn host_certificates() {
    let Some(program) = installed() else { return };
    let dir = tempfile::tempdir().unwrap();
    let authority = key(dir.path(), "authority", "ed25519", "");
    for (name, principal, works) in
        [("right", "node1,127.0.0.1", true), ("wrong", "node2", false), ("pattern", "127.0.0.*", false)]
    {
        let dir = tempfile::tempdir().unwrap();
        let host_key = key(dir.path(), "host", "ed25519", "");
        let id = key(dir.path(), "id", "ed25519", "");
        std::fs::write(dir.path().join("authorized_keys"), public(&id)).unwrap();
        let host_public = host_key.with_extension("pub");
        keygen(&[
            "-s",
            authority.to_str().unwrap(),
            "-I",
            name,
            "-h",
            "-n",
            principal,
            host_public.to_str().unwrap(),
        ]);
        let certificate = dir.path().join("host-cert.pub");
        let sshd = Sshd::start_in(dir, &program, &format!("HostCertificate {}", certificate.display()));
        let file = sshd.path("authorities");
        std::fs::write(&file, format!("@cert-authority [127.0.0.*]:* {}", public(&authority))).unwrap();
        let policy = HostKeyPolicy::Strict { files: vec![file.clone()] };
        let host = SshHost::new("127.0.0.1", user(), policy).port(sshd.port).login(KeyFile::new(&id));
        if !works {
            let error = refused(host).await;
            assert!(error.to_string().contains(principal), "{error}");
            continue;
        }
        reach(host.clone()).await.unwrap();
        // Revoked by the certificate itself: neither it nor its key alone passes.
        let certificate = std::fs::read_to_string(sshd.path("host-cert.pub")).unwrap();
        for known in [format!("@cert-authority * {}", public(&authority)), format!("* {}", public(&host_key))]
        {
            std::fs::write(&file, format!("{known}@revoked [127.0.0.1]:* {certificate}")).unwrap();
            let error = refused(host.clone()).await;
            assert!(error.to_string().contains("authorities:2 revokes"), "{error}");
        }
    }
}

#[tokio::test]
async fn nobody_there() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let policy = HostKeyPolicy::Strict { files: vec!["/nonexistent".into()] };
    let host = SshHost::new("127.0.0.1", "u", policy).port(free).login(KeyFile::new("/nonexistent"));
    let error = refused(host).await;
    assert_eq!(error.kind(), PortErrorKind::Unreachable);
    assert!(error.to_string().contains(&format!("127.0.0.1:{free}")), "{error}");
}

/// The server hears of two keys only.
#[tokio::test]
async fn the_right_key_first_and_none_twice() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "MaxAuthTries 2");
    let agent = SshAgent::start(sshd.dir.path());
    let strangers: Vec<PathBuf> =
        ["a", "b", "c"].iter().map(|name| key(sshd.dir.path(), name, "ed25519", "")).collect();
    let id = sshd.path("id");
    agent.add(&strangers[0]);
    // Declined as the agent's, so not offered from its file.
    let host = sshd.bare_host().login(Agent::at(&agent.socket));
    reach(host.login(KeyFile::new(&strangers[0])).login(KeyFile::new(&id))).await.unwrap();
    for key in strangers.iter().skip(1).chain([&id]) {
        agent.add(key);
    }
    let error = refused(sshd.bare_host().login(Agent::at(&agent.socket))).await;
    assert!(error.to_string().contains("too many attempts"), "{error}");
    for first in [id.clone(), id.with_extension("pub")] {
        let agent = Agent::at(&agent.socket).first("/nonexistent").first(first);
        reach(sshd.bare_host().login(agent)).await.unwrap();
    }
}
