//! What is made where the authority's key lies, and what is seen of it beforehand.

use super::*;

#[tokio::test]
async fn issuing_leaves_nothing_behind() {
    let machine = Machine::new("issue");
    let issuer = machine.issuer();
    let found = issuer.authority(Duration::from_secs(20)).await.unwrap();
    assert_eq!((found.certificate.fingerprint, found.can_sign), (authority(), Fact::Known(true)));
    assert_eq!(found.build, Some(Fact::Known("V3.2.1".to_owned())));
    let set = issuer.issue(&order(&["10.0.0.5", "n5.example.com"])).await.unwrap();
    assert_eq!(set.faults(&order(&["10.0.0.5"])), Vec::<String>::new());
    assert!(set.faults(&order(&["10.0.0.6"]))[0].contains("10.0.0.6"));
    assert!(!format!("{set:?}").contains("PRIVATE KEY"));
    assert_eq!(machine.temporary(), Vec::<PathBuf>::new());
    let log = fs::read_to_string(machine.root.join("log")).unwrap();
    assert!(log.contains("-- 10.0.0.5 n5.example.com") && log.contains("-- root"), "{log}");

    // Also when it fails; and what an interruption left is found and removed by its name.
    fs::write(machine.root.join("broken"), "").unwrap();
    assert!(issuer.issue(&order(&["10.0.0.5"])).await.is_err());
    assert_eq!(machine.temporary(), Vec::<PathBuf>::new());
    let left = machine.root.join(format!("tmp/kwdb-scale-{TAG}.aaaaaa"));
    fs::create_dir(&left).unwrap();
    fs::create_dir(machine.root.join("tmp/kwdb-scale-another")).unwrap();
    let found = issuer.leftovers(TAG, Duration::from_secs(20)).await.unwrap();
    assert!(found.len() == 1 && found[0].contains("aaaaaa"), "{found:?}");
    issuer.clean(TAG, Duration::from_secs(20)).await.unwrap();
    assert_eq!(machine.temporary().len(), 1);
}

#[tokio::test]
async fn another_authority_or_a_hostile_name_issues_nothing() {
    let machine = Machine::new("refuse");
    let other = Certificate::from_pem(&data("other-ca.crt")).unwrap().fingerprint;
    let wrong = IssueOrder { authority: other, ..order(&["10.0.0.5"]) };
    assert!(machine.issuer().issue(&wrong).await.unwrap_err().to_string().contains("another authority"));
    for name in ["", "-h", "--certs-dir=/x", "$(touch x)", "a b", "a\nb", "`x`", "é"] {
        let refused = machine.issuer().issue(&order(&[name])).await.unwrap_err();
        assert_eq!(refused.kind(), PortErrorKind::Config, "{name}");
    }
    assert!(machine.issuer().issue(&order(&[])).await.is_err());
    assert!(machine.issuer().clean("../x", Duration::from_secs(5)).await.is_err());
    assert!(!machine.root.join("log").exists());
}

#[tokio::test]
async fn what_keeps_an_authority_from_issuing_is_seen_beforehand() {
    let machine = Machine::new("unable");
    let look = async || machine.issuer().authority(Duration::from_secs(20)).await.unwrap();
    let openssl = |args: &[&str]| {
        let made =
            std::process::Command::new("openssl").args(args).current_dir(machine.root.join("ca")).output();
        made.is_ok_and(|made| made.status.success())
    };
    // Where there is no openssl that is what is told.
    let told = openssl(&["version"]);
    let expect = |found: Option<Fact<KeyMatch>>, known: KeyMatch| match told {
        true => assert_eq!(found, Some(Fact::Known(known))),
        false => assert!(found.unwrap().why_unknown().unwrap().contains("no openssl")),
    };
    let key = machine.root.join("ca/ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(look().await.key_mode, Some(0o644));
    expect(look().await.key, KeyMatch::NoKey);
    openssl(&["genrsa", "-out", "ca.key", "2048"]);
    expect(look().await.key, KeyMatch::Differs);
    openssl(&["req", "-x509", "-key", "ca.key", "-subj", "/CN=KWDB CA", "-out", "ca.crt"]);
    expect(look().await.key, KeyMatch::Fits);
    fs::remove_file(machine.root.join("ca/ca.key")).unwrap();
    let found = look().await;
    assert_eq!((found.can_sign, found.key, found.key_mode), (Fact::Known(false), None, None));

    let program = machine.root.join("kwbase");
    let build = async || look().await.build.unwrap().why_unknown().unwrap().to_owned();
    fs::write(&program, "#!/bin/sh\necho no kwbase; exit 3\n").unwrap();
    assert!(build().await.contains("exit code 3: no kwbase"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(build().await.contains("it is no file that may be run"));
    fs::remove_file(&program).unwrap();
    assert!(build().await.contains("the program is not there"));
}
