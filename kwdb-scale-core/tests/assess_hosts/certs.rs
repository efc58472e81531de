//! Certificates of hosts, and where the authority's key lies.

use super::*;

#[test]
fn certificates_that_will_not_do() {
    type Change = fn(&mut CertificateDirectory);
    let remove: Change = |dir| dir.files.retain(|f| f.name != "node.crt");
    let cases: [(Change, &str); 9] = [
        (remove, "there is no /etc/kaiwudb/certs/node.crt"),
        (|dir| dir.files.retain(|f| f.name != "node.key"), "there is no /etc/kaiwudb/certs/node.key"),
        (
            |dir| certificate_of(dir, "node.crt").names = vec!["10.9.9.9".into()],
            "is not for 10.0.0.6, but for 10.9.9.9",
        ),
        (
            |dir| certificate_of(dir, "node.crt").not_after = jiff::Timestamp::UNIX_EPOCH,
            "node.crt ended at 1970",
        ),
        (|dir| certificate_of(dir, "ca.crt").not_before = jiff::Timestamp::MAX, "ca.crt is not valid before"),
        (
            |dir| certificate_of(dir, "ca.crt").fingerprint = "ff".repeat(32),
            "of another authority (ffffffffffffffff)",
        ),
        (|dir| certificate_of(dir, "node.crt").issuer = "CN=Else".into(), "but by CN=Else"),
        (|dir| dir.files[4].mode = 0o740, "node.key has mode 740"),
        (
            |dir| certificate_of(dir, "node.crt").purposes = Some(vec!["1.3.6.1.5.5.7.3.1".into()]),
            "node.crt may not be used as that of a client",
        ),
    ];
    for (change, words) in cases {
        let mut scene = Scene::secure();
        change(scene.directory(NEW));
        let found = scene.assess(scale_out(&[NEW]));
        let refusal = found.refusals().next().unwrap_or_else(|| panic!("{words}")).to_string();
        assert!(refusal.contains("host-certificates") && refusal.contains(words), "{words}: {refusal}");
    }
    let mut scene = Scene::secure();
    scene.machine(NEW).certificates = Fact::Known(None);
    scene.refuses("host-certificates", &["h6", "does not exist", "--certificates issue"]);
    scene.cluster.host_mut(NEW).archive_only = true;
    scene.refuses("host-certificates", &["--certificates archive", "deploy.sh"]);
    let mut scene = Scene::secure();
    scene.cluster.host_mut(NEW).script = script(|_| {});
    assert!(scene.assess(scale_out(&[NEW])).refusals().next().is_none());
    scene.cluster.host_mut(NEW).script = script(|s| s.archive = Some(false));
    scene.refuses("script-join", &["h6", "archive of certificates", "--certificates archive"]);
    scene.cluster.host_mut(NEW).script = script(|s| s.unusable.push("no deploy.sh".into()));
    scene.refuses("script-join", &["h6", "no deploy.sh"]);
    scene.cluster.host_mut(NEW).script = script(|s| s.unfit.push("its store is encrypted".into()));
    scene.refuses("script-join", &["its store is encrypted"]);
    archives_on_hosts_of_the_script();
    scene.cluster.host_mut(NEW).script = Some(Fact::unknown("it was cut off"));
    scene.refuses("script-join", &["h6", "unknown", "it was cut off"]);

    let mut scene = Scene::secure();
    let soon = scene.cluster.now + SignedDuration::from_hours(24 * 29);
    certificate_of(scene.directory(NEW), "client.root.crt").not_after = soon;
    scene.warns("host-certificates-end", &["client.root.crt: ends at"]);

    // Nobody to compare with: said, and no refusal.
    let mut scene = Scene::secure();
    for node in 1..NEW {
        scene.machine(node).certificates = Fact::unknown("it may not be read");
    }
    scene.finds(scale_out(&[NEW]), Severity::Info, "host-untold", &["the cluster's CA"]);
}

#[test]
fn damaged_certificates() {
    type Change = fn(&mut CertificateDirectory);
    fn broken(dir: &mut CertificateDirectory, name: &str) {
        let file = dir.files.iter_mut().find(|f| f.name == name).unwrap();
        file.certificate = Some(Fact::unknown("it is empty"));
        file.fault = Some("it is empty".into());
    }
    fn key(dir: &mut CertificateDirectory, name: &str, key: KeyMatch) {
        dir.files.iter_mut().find(|f| f.name == name).unwrap().key = Some(Fact::Known(key));
    }
    let cases: [(Change, &str); 5] = [
        (|dir| broken(dir, "ca.crt"), "/etc/kaiwudb/certs/ca.crt: it is empty"),
        (|dir| broken(dir, "node.crt"), "/etc/kaiwudb/certs/node.crt: it is empty"),
        (|dir| key(dir, "node.crt", KeyMatch::Differs), "node.key is not the key of node.crt"),
        (|dir| key(dir, "node.crt", KeyMatch::NoKey), "node.key: this is no private key"),
        (
            |dir| {
                dir.fault = Some("it is no directory".into());
                dir.files.clear();
            },
            "/etc/kaiwudb/certs: it is no directory",
        ),
    ];
    for (change, words) in cases {
        let mut scene = Scene::secure();
        change(scene.directory(NEW));
        scene.refuses("host-certificates", &["h6", words]);
        // On a member it is a warning: it runs, and does not start again.
        let mut scene = Scene::secure();
        change(scene.directory(2));
        scene.warns("certificates-of-members", &["host h2", words]);
        scene.finds(scale_in(&[5]), Severity::Warn, "certificates-of-members", &["host h2", words]);
        // Where new ones are made it is worth a note.
        let mut scene = Scene::secure();
        change(scene.directory(NEW));
        let mut request = scene.cluster.request(scale_out(&[NEW]));
        request.options.certificates = Certificates::Issue;
        let found = assess(&scene.cluster.observe(), &request, &Policy::default()).findings;
        if words.ends_with("no directory") {
            // It is in the way of what would be made.
            assert!(!found.iter().any(|f| f.check == "host-certificates-replaced"), "{found:#?}");
            let refusal = found.iter().find(|f| f.check == "host-certificates").unwrap();
            assert!(refusal.severity == Severity::Refuse && refusal.message.contains(words), "{refusal}");
            continue;
        }
        let note = found.iter().find(|f| f.check == "host-certificates-replaced").unwrap();
        assert_eq!(note.severity, Severity::Info);
        assert!(note.to_string().contains(words), "{note}");
        assert!(!found.iter().any(|f| f.check == "host-certificates"), "{found:#?}");
    }
    // kwbase starts with a damaged certificate of root, and no command can log in: as where there is none.
    let mut scene = Scene::secure();
    broken(scene.directory(NEW), "client.root.crt");
    scene.cluster.host_mut(NEW).can_authenticate = Fact::Known(false);
    scene.warns("host-credentials", &["h6", "client.root.crt: it is empty"]);
    // What could not be compared is told.
    let mut scene = Scene::secure();
    let node = scene.directory(NEW).files.iter_mut().find(|f| f.name == "node.crt").unwrap();
    node.key = Some(Fact::unknown("the host has no openssl"));
    scene.finds(scale_out(&[NEW]), Severity::Info, "host-untold", &["node.key", "no openssl"]);
}

#[test]
fn keys_of_the_authority() {
    let mut scene = Scene::secure();
    scene.directory(2).files.push(file("ca.key", 0o644, None));
    scene.warns("ca-key-open", &["host h2: /etc/kaiwudb/certs/ca.key (mode 644)"]);
    scene.finds(scale_in(&[5]), Severity::Warn, "ca-key-open", &["h2"]);
    // Where the description says that it lies it may be as open.
    let mut scene = Scene::secure();
    let configured = |mode| {
        Some(AuthorityKey { path: "/srv/ca/ca.key".into(), sha256: Fact::Known(Some("a".repeat(64))), mode })
    };
    scene.machine(1).authority_key = configured(Some(0o644));
    scene.warns("ca-key-open", &["host h1: /srv/ca/ca.key (mode 644)"]);
    for mode in [Some(0o640), None] {
        scene.machine(1).authority_key = configured(mode);
        assert!(
            !checks(&scene.assess(scale_out(&[NEW])), Severity::Warn).contains(&"ca-key-open".to_owned())
        );
    }

    // The host of the only key may not leave; once another has it too, it may.
    let key = |sum: &str| {
        let mut key = file("ca.key", 0o600, None);
        key.sha256 = Some(Fact::Known(sum.repeat(64)));
        key
    };
    let mut scene = Scene::secure();
    scene.directory(5).files.push(key("a"));
    scene.finds(
        scale_in(&[5]),
        Severity::Refuse,
        "ca-key-last",
        &["h5", "ca.key", "member that stays", "elsewhere does not count"],
    );
    assert!(scene.assess(replace(&[5], &[NEW])).refused());
    assert!(!scene.assess(scale_in(&[4])).refused());
    scene.directory(1).files.push(key("a"));
    assert!(!scene.assess(scale_in(&[5])).refused());
    assert!(scene.assess(scale_in(&[1, 5])).refused(), "not both");
    // What the cure names counts: a member's host, and the control host, which need not have a node. An operator's machine that no
    // look reaches does not.
    scene.directory(1).files.pop();
    scene.cluster.inventory.control = Some(host(NEW));
    scene.directory(NEW).files.push(key("a"));
    assert!(!scene.assess(scale_in(&[5])).refused());
    scene.directory(NEW).files.pop();
    scene.cluster.inventory.control = None;
    scene.cluster.inventory.authority_elsewhere = true;
    scene.finds(scale_in(&[5]), Severity::Refuse, "ca-key-last", &["h5"]);
    scene.cluster.inventory.authority_elsewhere = false;
    scene.directory(1).files.push(key("a"));
    // Another file of that name is no copy, nor is one that could not be read, nor an empty one.
    *scene.directory(1).files.last_mut().unwrap() = key("b");
    scene.finds(scale_in(&[5]), Severity::Refuse, "ca-key-last", &["h5", "host h1", "is another file"]);
    scene.directory(1).files.last_mut().unwrap().sha256 = Some(Fact::unknown("it may not be read"));
    scene.finds(scale_in(&[5]), Severity::Refuse, "ca-key-last", &["host h1", "it may not be read"]);
    scene.directory(1).files.last_mut().unwrap().size = 0;
    scene.finds(scale_in(&[5]), Severity::Refuse, "ca-key-last", &["h5"]);
    assert!(!scene.assess(scale_in(&[1])).refused(), "an empty file is no key");
    // One that leaves unread is compared with none.
    *scene.directory(1).files.last_mut().unwrap() = key("a");
    scene.directory(5).files.last_mut().unwrap().sha256 = Some(Fact::unknown("it may not be read"));
    scene.finds(scale_in(&[5]), Severity::Refuse, "ca-key-last", &["h5", "it may not be read"]);

    // The key where the configuration says that it lies.
    let mut scene = Scene::secure();
    scene.cluster.inventory.authority = Some(host(5));
    assert!(!scene.assess(scale_in(&[5])).refused(), "it was looked at, and has none");
    let path = "/root/ca/ca.key";
    let configured = |sha256| Some(AuthorityKey { path: path.into(), sha256, mode: None });
    scene.machine(5).authority_key = configured(Fact::Known(Some("a".repeat(64))));
    scene.finds(scale_in(&[5]), Severity::Refuse, "ca-key-last", &["h5", path]);
    scene.directory(2).files.push(key("a"));
    assert!(!scene.assess(scale_in(&[5])).refused());
    scene.machine(5).authority_key = configured(Fact::unknown("it may not be read"));
    scene.finds(scale_in(&[5]), Severity::Refuse, "ca-key-last", &["h5", path, "it may not be read"]);
    scene.machine(5).authority_key = configured(Fact::Known(None));
    assert!(!scene.assess(scale_in(&[5])).refused());
    scene.cluster.hosts.insert(host(5), Fact::unknown("nobody answers"));
    assert!(checks(&scene.assess(scale_in(&[5])), Severity::Refuse).iter().any(|c| c == "ca-key-last"));

    // It is not where it is said to lie: it may have been moved on the same host.
    let mut scene = Scene::secure();
    scene.machine(5).authority_key = configured(Fact::Known(None));
    scene.finds(
        scale_in(&[5]),
        Severity::Refuse,
        "ca-key-last",
        &["h5", path, "may lie elsewhere", "[certificates]"],
    );
    assert!(!scene.assess(scale_in(&[4])).refused());
    scene.directory(2).files.push(key("a"));
    assert!(!scene.assess(scale_in(&[5])).refused(), "another host has one");
    let looked = |authority| {
        let mut scene = Scene::secure();
        scene.machine(5).authority_key = configured(Fact::Known(None));
        let request = scene.cluster.request(scale_in(&[5]));
        refusals(&scene, authority, request, "ca-key-last")
    };
    let found = looked(Fact::unknown("no such file"));
    assert!(found.len() == 1 && found[0].contains("no such file"), "{found:?}");
    let elsewhere = looked_at(&mut Scene::secure());
    assert_eq!(looked(Fact::Known(elsewhere)), [""; 0], "it was found on h1");

    let peers = Peers { addresses: vec!["10.0.0.2".into()], ssh_port: Some(22), ssh_user: None };
    let mut scene = Scene::new();
    scene.machine(5).peers = Fact::Known(Some(peers.clone()));
    scene.finds(scale_in(&[5]), Severity::Refuse, "ca-key-last", &["h5", "/etc/kaiwudb/info/NODE"]);
    scene.machine(1).peers = Fact::Known(Some(peers));
    assert!(!scene.assess(scale_in(&[5])).refused());
}

#[test]
fn a_leaving_host_that_nobody_could_look_at_may_hold_the_only_key() {
    let of = |scene: &Scene, operation: Operation, check: &str| {
        let found = scene.assess(operation).findings;
        found.into_iter().find(|f| f.check == check).map(|f| (f.severity, f.to_string()))
    };
    let last = |scene: &Scene| of(scene, scale_in(&[5]), "ca-key-last");
    let unseen = |mut scene: Scene| {
        scene.cluster.hosts.insert(host(5), Fact::unknown("the host's key is another one"));
        scene
    };
    let scene = unseen(Scene::secure());
    let (severity, text) = last(&scene).unwrap();
    assert_eq!(severity, Severity::Refuse);
    for words in ["host h5 leaves", "the host's key is another one", "[certificates]"] {
        assert!(text.contains(words), "{text}");
    }
    assert!(of(&scene, replace(&[5], &[NEW]), "ca-key-last").is_some());
    assert_eq!(of(&scene, scale_in(&[4]), "ca-key-last"), None, "that one was looked at");

    // One that stays has the key, or is said to have it.
    let key = || {
        let mut key = file("ca.key", 0o600, None);
        key.sha256 = Some(Fact::Known("a".repeat(64)));
        key
    };
    let mut scene = unseen(Scene::secure());
    scene.directory(2).files.push(key());
    assert_eq!(last(&scene), None);
    scene.directory(2).files.last_mut().unwrap().sha256 = Some(Fact::unknown("it may not be read"));
    assert!(last(&scene).is_some());
    *scene.directory(2).files.last_mut().unwrap() = key();
    scene.directory(2).files.iter_mut().find(|f| f.name == "ca.crt").unwrap().key =
        Some(Fact::Known(KeyMatch::Differs));
    assert!(last(&scene).is_some(), "it is another authority's");
    let mut scene = unseen(Scene::secure());
    scene.machine(2).authority_key = Some(AuthorityKey {
        path: "/root/ca/ca.key".into(),
        sha256: Fact::unknown("it may not be read"),
        mode: None,
    });
    scene.cluster.inventory.authority = Some(host(2));
    assert_eq!(last(&scene), None);
    scene.machine(2).authority_key = None;
    assert!(last(&scene).is_some(), "it was looked at, and has none");
    scene.cluster.hosts.insert(host(2), Fact::unknown("nobody answers"));
    assert_eq!(last(&scene), None);
    let mut scene = unseen(Scene::secure());
    scene.cluster.inventory.authority_elsewhere = true;
    assert_eq!(last(&scene), None);

    // There is no key to lose, or nobody looks at hosts.
    assert_eq!(last(&unseen(Scene::new())), None);
    let mut scene = Scene::secure();
    scene.cluster.hosts.remove(&host(5));
    assert_eq!(last(&scene), None);
    // Where no host is seen, nobody knows that.
    let mut scene = Scene::new();
    for facts in scene.cluster.hosts.values_mut() {
        *facts = Fact::unknown("nobody answers");
    }
    assert!(last(&scene).is_some());

    // A dead machine may be gone for good.
    let mut scene = unseen(Scene::secure());
    scene.cluster.kill(5);
    assert_eq!(last(&scene), None);
    let (severity, text) = of(&scene, scale_in(&[5]), "ca-key-unseen").unwrap();
    assert!(severity == Severity::Warn && text.contains("host h5 leaves"), "{text}");
    scene.directory(2).files.push(key());
    assert_eq!(of(&scene, scale_in(&[5]), "ca-key-unseen"), None);
}

/// The authority of the scene's certificates, on h1, with its own key.
fn looked_at(scene: &mut Scene) -> AuthorityFacts {
    let own = certificate_of(scene.directory(1), "ca.crt").fingerprint.clone();
    AuthorityFacts {
        place: "host h1".into(),
        fingerprint: own.clone(),
        not_after: jiff::Timestamp::MAX,
        can_sign: Fact::Known(true),
        key: Some(Fact::Known(KeyMatch::Fits)),
        build: Some(Fact::Known("V3.2.1".into())),
        key_file: Some(AuthorityKeyFile {
            host: host(1),
            path: "/etc/kaiwudb/certs/ca.key".into(),
            mode: None,
        }),
        trusted: [("host h1".to_owned(), Fact::Known(own))].into(),
        archive_only: Default::default(),
    }
}

/// What is found where the authority was looked at.
fn found(scene: &Scene, authority: Fact<AuthorityFacts>, request: &Request) -> Assessment {
    let mut observed = scene.cluster.observe();
    observed.reach = scene.reach.clone();
    observed.authority = Some(authority);
    assess(&observed, request, &Policy::default())
}

/// The refusals of the check, where the authority was looked at.
fn refusals(scene: &Scene, authority: Fact<AuthorityFacts>, request: Request, check: &str) -> Vec<String> {
    let found = found(scene, authority, &request);
    found.refusals().filter(|f| f.check == check).map(ToString::to_string).collect()
}

#[test]
fn an_authority_whose_key_everybody_may_read_where_it_lies() {
    let mut scene = Scene::secure();
    for (mode, open) in [(Some(0o644), true), (Some(0o600), false), (None, false)] {
        let mut facts = looked_at(&mut scene);
        facts.key_file =
            Some(AuthorityKeyFile { host: "operator".into(), path: "/safe/ca.key".into(), mode });
        let request = scene.cluster.request(scale_out(&[NEW]));
        let assessment = found(&scene, Fact::Known(facts), &request);
        let told: Vec<&Finding> = assessment.findings.iter().filter(|f| f.check == "ca-key-open").collect();
        assert_eq!(told.len(), usize::from(open), "{told:?}");
        assert!(told.iter().all(|f| f.to_string().contains("host operator: /safe/ca.key (mode 644)")));
    }
}

#[test]
fn an_authority_that_cannot_issue() {
    type Change = fn(&mut AuthorityFacts);
    let cases: [(Change, [&str; 2]); 5] = [
        (|_| {}, ["", ""]),
        (|f| f.key = Some(Fact::Known(KeyMatch::Differs)), ["its key is not that of its certificate"; 2]),
        (|f| f.key = Some(Fact::Known(KeyMatch::NoKey)), ["no private key in PEM form"; 2]),
        (|f| f.can_sign = Fact::Known(false), ["cannot be read on host h1"; 2]),
        // With the archive they are made on the new host.
        (
            |f| f.build = Some(Fact::unknown("kwbase: the program is not there")),
            ["cannot be made on host h1: kwbase", ""],
        ),
    ];
    for (change, expected) in cases {
        for (method, words) in [Certificates::Issue, Certificates::Archive].into_iter().zip(expected) {
            let mut scene = Scene::secure();
            let mut facts = looked_at(&mut scene);
            change(&mut facts);
            let mut request = scene.cluster.request(scale_out(&[NEW]));
            request.options.certificates = method;
            let found = refusals(&scene, Fact::Known(facts), request, "certificates-authority");
            match words {
                "" => assert_eq!(found, [""; 0]),
                words => assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}"),
            }
        }
    }
    let scene = Scene::secure();
    let mut request = scene.cluster.request(scale_out(&[NEW]));
    request.options.certificates = Certificates::Issue;
    let found = assess(&scene.cluster.observe(), &request, &Policy::default());
    assert!(found.refusals().any(|f| f.to_string().contains("nothing is configured that issues them")));
}

#[test]
fn the_authority_that_was_looked_at_counts_as_far_as_it_is_proven() {
    type Change = fn(&mut AuthorityFacts);
    let operators: Change = |f| {
        f.key_file =
            Some(AuthorityKeyFile { host: "kwscale".into(), path: "/safe/ca.key".into(), mode: None })
    };
    let cases: [(Change, &str); 7] = [
        (|_| {}, ""),
        // An embedder's issuer, whose key is in no file.
        (|f| (f.key, f.key_file) = (None, None), ""),
        (|f| f.can_sign = Fact::Known(false), "cannot be read on host h1"),
        (|f| f.key = Some(Fact::Known(KeyMatch::Differs)), "its key is not that of its certificate"),
        (|f| f.key = Some(Fact::unknown("the host has no openssl")), "the host has no openssl"),
        (|f| f.fingerprint = "ee".repeat(32), "host h1 trusts"),
        (|f| f.trusted = [("host h1".to_owned(), Fact::unknown("no route"))].into(), "host h1: no route"),
    ];
    let mut key = file("ca.key", 0o600, None);
    key.sha256 = Some(Fact::Known("a".repeat(64)));
    for (change, words) in cases {
        for unseen in [true, false] {
            let mut scene = Scene::secure();
            let mut facts = looked_at(&mut scene);
            operators(&mut facts);
            change(&mut facts);
            if unseen {
                scene.cluster.hosts.insert(host(5), Fact::unknown("nobody answers"));
            } else {
                scene.directory(5).files.push(key.clone());
            }
            // What the caller says does not count where somebody looked.
            scene.cluster.inventory.authority_elsewhere = true;
            let request = scene.cluster.request(scale_in(&[5]));
            let found = refusals(&scene, Fact::Known(facts), request, "ca-key-last");
            match words {
                "" => assert_eq!(found, [""; 0]),
                words => assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}"),
            }
        }
    }
    let mut scene = Scene::secure();
    scene.directory(5).files.push(key);
    let request = || scene.cluster.request(scale_in(&[5]));
    let found = refusals(&scene, Fact::unknown("no such file"), request(), "ca-key-last");
    assert!(found.len() == 1 && found[0].contains("no such file"), "{found:?}");
    // Its file lies on the host that leaves, or may be the very same one.
    for (holder, path, words) in [
        (host(5), "/root/ca/ca.key", "lies on host h5, which leaves"),
        ("kwscale".into(), "/etc/kaiwudb/certs/ca.key", "may be the same file"),
    ] {
        let mut facts = looked_at(&mut Scene::secure());
        facts.key_file = Some(AuthorityKeyFile { host: holder, path: path.into(), mode: None });
        let found = refusals(&scene, Fact::Known(facts), request(), "ca-key-last");
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    }
}

#[test]
fn a_certificate_of_root_that_nobody_can_log_in_with() {
    type Change = fn(&mut CertificateDirectory);
    let cases: [(Change, &str); 4] = [
        (|dir| certificate_of(dir, "client.root.crt").issuer = "CN=Else".into(), "but by CN=Else"),
        (
            |dir| certificate_of(dir, "client.root.crt").not_after = jiff::Timestamp::UNIX_EPOCH,
            "client.root.crt ended at 1970",
        ),
        (
            |dir| certificate_of(dir, "client.root.crt").purposes = Some(vec!["1.3.6.1.5.5.7.3.1".into()]),
            "client.root.crt may not be used as that of a client",
        ),
        (
            |dir| {
                let mut other = dir.file("ca.crt").unwrap().clone();
                other.name = "ca-client.crt".into();
                dir.files.push(other);
                certificate_of(dir, "ca-client.crt").subject = "CN=Clients".into();
            },
            "by the authority of ca-client.crt there",
        ),
    ];
    for (change, words) in cases {
        let mut scene = Scene::secure();
        change(scene.directory(NEW));
        scene.warns("host-credentials", &["h6", words, "create-client root"]);
        let found = scene.assess(scale_out(&[NEW]));
        assert!(!found.findings.iter().any(|f| f.check == "host-certificates-end"), "{words}");
    }
}
