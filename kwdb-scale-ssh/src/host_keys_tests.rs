//! The policies, on files written here and certificates signed here.

use std::os::unix::fs::PermissionsExt;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::certificate::Builder;
use russh::keys::{PrivateKey, PublicKey};

use super::*;

fn private() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

fn plain(key: &PrivateKey) -> PublicKeyOrCertificate {
    PublicKey::new(key.public_key().key_data().clone(), "").into()
}

fn text(key: &PrivateKey) -> String {
    PublicKey::new(key.public_key().key_data().clone(), "").to_openssh().unwrap()
}

fn check(policy: &HostKeyPolicy) -> HostCheck {
    HostCheck::load(&SshHost::new("Node.Example.com", "root", policy.clone()).port(2222)).unwrap()
}

/// A file with `content` and the policy that reads it.
fn strict(content: &str) -> (tempfile::NamedTempFile, HostKeyPolicy) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let policy = HostKeyPolicy::Strict { files: vec!["/nonexistent/known_hosts".into(), file.path().into()] };
    (file, policy)
}

#[test]
fn strict_trusts_what_is_known_and_names_what_speaks_against() {
    let (key, other) = (private(), private());
    let (file, policy) = strict(&format!("# mine\n[node.example.com]:2222 {}\n", text(&key)));
    check(&policy).check(&plain(&key)).unwrap();
    let error = check(&policy).check(&plain(&other)).unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Authentication);
    let place = format!("{}:2", file.path().display());
    let fingerprint = other.fingerprint(HashAlg::Sha256).to_string();
    assert!(error.to_string().contains(&place) && error.to_string().contains(&fingerprint), "{error}");

    let (file, policy) = strict(&format!("node.example.com {}\n", text(&key)));
    let error = check(&policy).check(&plain(&key)).unwrap_err();
    let named = ["'[node.example.com]:2222'", file.path().to_str().unwrap(), "/nonexistent/known_hosts"];
    assert!(named.iter().all(|n| error.to_string().contains(n)), "{error}");
}

#[test]
fn revoked_keys_are_never_accepted() {
    let (key, other) = (private(), private());
    let (_known, policy) = strict(&format!("[node.example.com]:2222 {}\n", text(&key)));
    let pinned = HostKeyPolicy::Pinned { fingerprints: vec![key.fingerprint(HashAlg::Sha256).to_string()] };
    let file = tempfile::NamedTempFile::new().unwrap();
    let load = |policy: &HostKeyPolicy, content: &str| {
        std::fs::write(file.path(), content).unwrap();
        let host = SshHost::new("Node.Example.com", "root", policy.clone()).port(2222);
        HostCheck::load(&host.revoked_keys(file.path()))
    };
    for policy in [&policy, &pinned] {
        load(policy, &format!("{}\n", text(&other))).unwrap().check(&plain(&key)).unwrap();
        let error =
            load(policy, &format!("# gone\n{}\n", text(&key))).unwrap().check(&plain(&key)).unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Authentication);
        assert!(error.to_string().contains(&format!("{}:2 revokes", file.path().display())), "{error}");
    }
    let error = load(&policy, &format!("{}\nSSHKRL\n", text(&other))).unwrap_err();
    assert!(error.to_string().starts_with("line 2 of the file of revoked host keys"), "{error}");
    let gone = SshHost::new("h", "root", policy).revoked_keys("/nonexistent/revoked");
    assert!(HostCheck::load(&gone).unwrap_err().to_string().contains("/nonexistent/revoked"));
}

#[test]
fn a_file_that_cannot_be_read_is_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let policy = HostKeyPolicy::Strict { files: vec![dir.path().into()] };
    let error = HostCheck::load(&SshHost::new("h", "root", policy)).unwrap_err();
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn pins() {
    let (key, other) = (private(), private());
    let pin = |key: &PrivateKey| key.fingerprint(HashAlg::Sha256).to_string();
    let policy = HostKeyPolicy::Pinned { fingerprints: vec![pin(&other), pin(&key)] };
    policy.check().unwrap();
    check(&policy).check(&plain(&key)).unwrap();
    let policy = HostKeyPolicy::Pinned { fingerprints: vec![pin(&other)] };
    let error = check(&policy).check(&plain(&key)).unwrap_err();
    assert!(error.to_string().contains(&pin(&key)), "{error}");
    for wrong in ["", "SHA256:", "MD5:00", "SHA256:AAAA"] {
        let policy = HostKeyPolicy::Pinned { fingerprints: vec![wrong.into()] };
        assert_eq!(policy.check().unwrap_err().kind(), PortErrorKind::Config, "{wrong}");
    }
    assert!(HostKeyPolicy::Pinned { fingerprints: vec![] }.check().is_err());
}

#[test]
fn a_new_key_is_recorded_once_and_then_strict() {
    let (key, other) = (private(), private());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    let policy =
        HostKeyPolicy::AcceptNew { file: file.clone(), also: vec![dir.path().join("also")], hashed: false };
    check(&policy).check(&plain(&key)).unwrap();
    check(&policy).check(&plain(&key)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("[node.example.com]:2222 {}\n", text(&key)));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let error = check(&policy).check(&plain(&other)).unwrap_err();
    assert!(error.to_string().contains(&format!("{}:1", file.display())), "{error}");

    // After a last line without its break, and never a revoked one.
    std::fs::write(&file, format!("@revoked * {}", text(&other))).unwrap();
    check(&policy).check(&plain(&key)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
    let error = check(&policy).check(&plain(&other)).unwrap_err();
    assert!(error.to_string().contains("revokes"), "{error}");

    // What the other files know counts as well.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(dir.path().join("also"), format!("[node.example.com]:2222 {}", text(&other))).unwrap();
    assert!(check(&policy).check(&plain(&key)).is_err());
    check(&policy).check(&plain(&other)).unwrap();
    assert!(!file.exists());

    let policy =
        HostKeyPolicy::AcceptNew { file: dir.path().join("absent/known_hosts"), also: vec![], hashed: false };
    let error = check(&policy).check(&plain(&key)).unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::NotFound, "not recorded, not accepted: {error}");
}

/// `ssh-keygen` finds it, and so do we.
#[test]
fn a_new_key_is_recorded_under_a_hash_as_ssh_does() {
    let (key, other) = (private(), private());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    let policy = HostKeyPolicy::AcceptNew { file: file.clone(), also: vec![], hashed: true };
    let hosts = [("Node.Example.com", 2222), ("10.0.0.1", 22), ("::1", 22)];
    for (address, port) in hosts {
        let check = || HostCheck::load(&SshHost::new(address, "root", policy.clone()).port(port)).unwrap();
        check().check(&plain(&key)).unwrap();
        check().check(&plain(&key)).unwrap();
        assert!(check().check(&plain(&other)).unwrap_err().to_string().contains("has another"));
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let names: std::collections::BTreeSet<&str> =
        text.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!((text.lines().count(), names.len()), (3, 3), "{text}");
    assert!(names.iter().all(|n| n.starts_with("|1|")) && !text.contains("example"), "{text}");
    let there = std::process::Command::new("ssh-keygen").arg("-?").output().is_ok();
    assert!(there || std::env::var_os("CI").is_none(), "ssh-keygen is not installed");
    if !there {
        eprintln!("not run, because ssh-keygen is not installed: the search for a hashed name by OpenSSH");
        return;
    }
    for (name, line) in [("[node.example.com]:2222", 1), ("10.0.0.1", 2), ("::1", 3)] {
        let found =
            std::process::Command::new("ssh-keygen").args(["-F", name, "-f"]).arg(&file).output().unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        assert!(found.contains(&format!("found: line {line}")), "{name}: {found}");
        assert!(found.contains(text.lines().nth(line - 1).unwrap()), "{name}: {found}");
    }
}

#[test]
fn known_types_are_asked_for_first() {
    let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7vbqajDw4o6gJy8UtmIbkcpnkO3Kwc4qsEnSZp/TR+fQi62F79RHWmwKOtFmwteURgLbj7D/WGuNLGOfa/2vse3G2eHnHl5CB8ruRX9fBl/KgwCVr2JaEuUm66bBQeP5XeBotdR4cvX38uPYivCDdPjJ1QWPdspTBKcxeFbccDw==";
    let (_file, policy) = strict(&format!("[node.example.com]:2222 {rsa}\n"));
    let algorithms = check(&policy).algorithms();
    assert!(
        algorithms.iter().take(2).all(|a| matches!(a, Algorithm::Rsa { hash: Some(_) })),
        "{algorithms:?}"
    );
    assert_eq!(algorithms.len(), ALGORITHMS.len());
    assert!(!check(&policy).certificates());
}

const DAY: u64 = 86_400;

struct Cert {
    kind: CertType,
    principals: Vec<&'static str>,
    from: i64,
    to: i64,
    critical: bool,
}

impl Default for Cert {
    fn default() -> Self {
        Self { kind: CertType::Host, principals: vec!["node.example.com"], from: -1, to: 1, critical: false }
    }
}

impl Cert {
    fn sign(&self, authority: &PrivateKey, key: &PrivateKey) -> PublicKeyOrCertificate {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let day = |n: i64| now.saturating_add_signed(n * i64::try_from(DAY).unwrap());
        let mut builder =
            Builder::new_with_random_nonce(&mut safe_rng(), key.public_key(), day(self.from), day(self.to))
                .unwrap();
        builder.cert_type(self.kind).unwrap();
        if self.principals.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        for principal in &self.principals {
            builder.valid_principal(*principal).unwrap();
        }
        if self.critical {
            builder.critical_option("force-command", "x").unwrap();
        }
        builder.sign(authority).unwrap().into()
    }
}

#[test]
fn certificates_of_known_authorities() {
    let (authority, key) = (private(), private());
    let (_file, policy) =
        strict(&format!("@cert-authority *.example.com,[*.example.com]:* {}\n", text(&authority)));
    let check = check(&policy);
    assert!(check.certificates());
    check.check(&Cert::default().sign(&authority, &key)).unwrap();
    check
        .check(&Cert { principals: vec!["x", "node.example.com"], ..Cert::default() }.sign(&authority, &key))
        .unwrap();
    let wrong = [
        (Cert { kind: CertType::User, ..Cert::default() }, "not one of a host"),
        (Cert { principals: vec!["other.example.com"], ..Cert::default() }, "other.example.com"),
        (Cert { principals: vec!["*.example.com", "node.example.co?"], ..Cert::default() }, "is not for"),
        (Cert { principals: vec!["Node.Example.com"], ..Cert::default() }, "is not for"),
        (Cert { principals: vec![], ..Cert::default() }, "is not for"),
        (Cert { from: -2, to: -1, ..Cert::default() }, "not valid now"),
        (Cert { from: 1, to: 2, ..Cert::default() }, "not valid now"),
        (Cert { critical: true, ..Cert::default() }, "critical option"),
    ];
    for (certificate, expected) in wrong {
        let error = check.check(&certificate.sign(&authority, &key)).unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Authentication);
        assert!(error.to_string().contains(expected), "{error}");
    }
    // The authority's own key is not a host's.
    assert!(check.check(&plain(&authority)).is_err());
}

#[test]
fn certificates_of_others() {
    let (authority, other, key) = (private(), private(), private());
    let certificate = Cert::default().sign(&other, &key);
    let known = format!("@cert-authority * {}\n", text(&authority));
    assert!(check(&strict(&known).1).check(&certificate).is_err());
    // The key inside is known by itself.
    let (_file, policy) = strict(&format!("{known}[node.example.com]:2222 {}\n", text(&key)));
    check(&policy).check(&certificate).unwrap();
    // Neither a revoked authority nor a revoked key passes.
    for revoked in [&authority, &key] {
        let (_file, policy) = strict(&format!("{known}@revoked * {}\n", text(revoked)));
        let error = check(&policy).check(&Cert::default().sign(&authority, &key)).unwrap_err();
        assert!(error.to_string().contains("revokes"), "{error}");
    }
}

#[test]
fn a_revoked_certificate_revokes_its_key() {
    let (authority, key) = (private(), private());
    let presented = Cert::default().sign(&authority, &key);
    let revoked = presented.certificate().unwrap().to_openssh().unwrap();
    let host = "[node.example.com]:2222";
    let known =
        format!("@cert-authority * {}\n{host} {}\n@revoked {host} {revoked}\n", text(&authority), text(&key));
    let (file, policy) = strict(&known);
    // The certificate, the key alone, and another certificate of it.
    for presented in [&presented, &plain(&key), &Cert::default().sign(&authority, &key)] {
        let error = check(&policy).check(presented).unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Authentication);
        assert!(error.to_string().contains(&format!("{}:3 revokes", file.path().display())), "{error}");
    }
    // A certificate that it signed, as an authority.
    let (_file, policy) = strict(&format!("@cert-authority * {}\n@revoked {host} {revoked}\n", text(&key)));
    let error = check(&policy).check(&Cert::default().sign(&key, &private())).unwrap_err();
    assert!(error.to_string().contains("revokes"), "{error}");
}

#[test]
fn a_revoked_key_that_cannot_be_read_closes_the_host() {
    let key = private();
    let host = "[node.example.com]:2222";
    let (file, policy) = strict(&format!("{host} {}\n@revoked {host} ssh-ed25519 AAAA\n", text(&key)));
    let error =
        HostCheck::load(&SshHost::new("node.example.com", "root", policy.clone()).port(2222)).unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Config);
    assert!(error.to_string().starts_with(&format!("{}:2 revokes", file.path().display())), "{error}");
    // It is not about others.
    HostCheck::load(&SshHost::new("other.example.com", "root", policy)).unwrap();
}
