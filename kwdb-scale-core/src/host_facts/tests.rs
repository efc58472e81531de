//! The probe in real shells, and its answer cut and mangled.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::probe::{Also, Question};
use super::read::{Found, RoundTrip, read};
use super::*;
use crate::owner::Owner;
use crate::owner::StartLine;

const VERSION: &str =
    "#!/bin/sh\nif [ \"$1\" = version ]; then echo 'KaiwuDB Version:  V3.2.1'; else exit 1; fi\n";

/// A directory of its own, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("kwdb-host-facts-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn dir(&self, name: &str) -> String {
        fs::create_dir_all(self.path(name)).unwrap();
        self.path(name)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn question(&self, stores: &[&str]) -> Question {
        Question {
            program: self.file("kw/bin/kwbase", VERSION, 0o755),
            prefix: Vec::new(),
            owner: Owner::Quit,
            described: None,
            binds: Vec::new(),
            certs_dir: None,
            authority_key: None,
            directories: stores.iter().map(|s| (self.path(s), DirectoryUse::Store)).collect(),
            also: None,
        }
    }

    /// Every path below, to see what a look leaves.
    fn all(&self) -> Vec<PathBuf> {
        let (mut found, mut next) = (Vec::new(), vec![self.0.clone()]);
        while let Some(dir) = next.pop() {
            for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
                if entry.is_dir() && !entry.is_symlink() {
                    next.push(entry.clone());
                }
                found.push(entry);
            }
        }
        found.sort();
        found
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The shells that are here: `sh` always.
fn shells() -> Vec<Vec<&'static str>> {
    let all = [&["sh"][..], &["dash"], &["bash", "--posix"], &["busybox", "sh"]];
    let there = |words: &&&[&'static str]| {
        let mut probe = Command::new(words[0]);
        probe.args(&words[1..]).args(["-c", "true"]).stderr(Stdio::null());
        probe.status().is_ok_and(|s| s.success())
    };
    all.iter().filter(there).map(|words| words.to_vec()).collect()
}

/// What the shell prints, with `home` for the user's home and its `bin` first in the path.
fn answer(shell: &[&str], question: &Question, home: &Path) -> (String, String) {
    let argv = question.argv();
    let mut words = argv.iter().map(String::as_str).collect::<Vec<_>>();
    // Both scripts are run by that shell.
    let inner = words.iter().rposition(|w| *w == "-c").unwrap() - 1;
    words.splice(inner..=inner, shell.iter().copied());
    words.splice(0..1, shell.iter().copied());
    let path = format!("{}:{}", home.join("bin").display(), std::env::var("PATH").unwrap());
    let output = Command::new(words[0])
        .args(&words[1..])
        .env("HOME", home)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{shell:?}: {output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (String::from_utf8_lossy(&output.stdout).into_owned(), stderr)
}

fn look(shell: &[&str], question: &Question, home: &Path) -> Found {
    let sent = jiff::Timestamp::now();
    let (stdout, stderr) = answer(shell, question, home);
    let trip = RoundTrip { sent, answered: jiff::Timestamp::now() };
    assert_eq!(stderr, "", "{shell:?}");
    read(question, &stdout, &stderr, Some(trip))
}

#[test]
fn what_every_linux_host_tells() {
    let scratch = Scratch::new("plain");
    let question = scratch.question(&["no/such", "empty"]);
    scratch.dir("empty");
    scratch.dir("empty.node-4");
    scratch.dir("empty.other");
    symlink("nowhere", scratch.path("empty.node-5")).unwrap();
    let before = scratch.all();
    for shell in shells() {
        let found = look(&shell, &question, &scratch.0);
        assert_eq!(found.build, Fact::Known("V3.2.1".into()), "{shell:?}");
        let content: Vec<_> = found.stores.iter().map(|s| s.content.known().unwrap()).collect();
        assert_eq!(content, [&StoreContent::Absent, &StoreContent::Empty], "{shell:?}");
        let asides = ["empty.node-4", "empty.node-5"].map(|name| scratch.path(name));
        assert_eq!(
            (found.stores[0].asides.len(), &found.stores[1].asides[..]),
            (0, &asides[..]),
            "{shell:?}"
        );
        assert_eq!(found.can_authenticate, Fact::Known(true));
        let machine = found.machine;
        assert!(!machine.user.known().unwrap().is_empty() && !machine.inside);
        assert_eq!(machine.certificates, Fact::Known(None));
        for file_system in &machine.file_systems {
            let space = file_system.space.known().unwrap();
            assert!(space.size >= space.free && space.mount.starts_with('/'), "{shell:?}: {space:?}");
        }
        // The installation's directory, and one for each store.
        assert_eq!(machine.writable.len(), 3, "{shell:?}");
        assert!(machine.writable.iter().all(|w| w.writable == Fact::Known(true)), "{shell:?}");
        if cfg!(target_os = "linux") {
            // A container engine or a service manager may be there and not answer.
            let unknown: Vec<String> = machine.unknowns();
            let odd = |line: &&String| !line.starts_with(UNIT) && !line.starts_with(CONTAINER);
            assert_eq!(unknown.iter().filter(odd).count(), 0, "{shell:?}: {unknown:#?}");
            let clock = machine.clock.known().unwrap();
            // The clocks are one and the same.
            assert_eq!(clock.surely_from(ClockOffset::OPERATOR), SignedDuration::ZERO, "{clock:?}");
            assert!(machine.limits.open_files.known().unwrap().soft.is_none_or(|n| n > 0));
            let own = machine.addresses.known().unwrap();
            let holds = |ip: &str| own.iter().any(|n| n.holds(ip.parse().unwrap()));
            assert!(holds("127.0.0.1") && holds("127.9.8.7"), "{shell:?}: {own:?}");
            for one in own.iter().filter(|n| n.prefix == if n.ip.is_ipv4() { 32 } else { 128 }) {
                // An address of one link alone needs its name to be bound.
                if !matches!(one.ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
                    std::net::TcpListener::bind((one.ip, 0)).unwrap_or_else(|e| panic!("{one}: {e}"));
                }
            }
            for documented in ["203.0.113.77", "2001:db8::77"] {
                let can = std::net::TcpListener::bind((documented, 0)).is_ok();
                assert_eq!(holds(documented), can, "{shell:?}: {own:?}");
            }
        }
    }
    assert_eq!(scratch.all(), before, "a look leaves nothing");
}

#[test]
fn stores_as_real_shells_see_them() {
    let scratch = Scratch::new("stores");
    scratch.dir("empty dir/lost+found");
    scratch.file("file", "", 0o644);
    for name in
        ["000001.sst", "kwbase.start_mode", "CURRENT", ".hidden", "two\nlines", "-n", "E", "Z0", "$(id)"]
    {
        scratch.file(&format!("used/{name}"), "", 0o644);
    }
    let question = scratch.question(&["empty dir", "used", "no/such", "file"]);
    let before = scratch.all();
    for shell in shells() {
        let stores = look(&shell, &question, &scratch.0).stores;
        assert_eq!(stores[0].content, Fact::Known(StoreContent::Empty), "{shell:?}");
        let Fact::Known(StoreContent::InUse(names)) = &stores[1].content else { panic!("{:?}", stores[1]) };
        assert_eq!(names[..2], ["kwbase.start_mode", "CURRENT"]);
        for name in [".hidden", "two\\nlines", "-n", "E", "Z0", "$(id)"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
        assert_eq!(stores[2].content, Fact::Known(StoreContent::Absent));
        assert!(stores[3].content.why_unknown().unwrap().contains("no directory"));
    }
    assert_eq!(scratch.all(), before, "nothing is made in a store in use");
}

/// The stores as the shell tells of them in a mount namespace that `prepare` has made, which runs what follows `args`. `None`
/// where none can be made, which CI does not go without.
fn stores_among_mounts(
    shell: &[&str],
    question: &Question,
    scratch: &Scratch,
    prepare: &str,
    args: &[String],
) -> Option<Vec<StoreFacts>> {
    let argv = question.argv();
    let mut words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let inner = words.iter().rposition(|w| *w == "-c").unwrap() - 1;
    words.splice(inner..=inner, shell.iter().copied());
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-ec", prepare, "sh"]).args(args).args(words).env("HOME", &scratch.0);
    let output = command.stdin(Stdio::null()).output();
    let Some(output) = output.ok().filter(|o| o.status.success()) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "there is no unshare, or it may not make a mount namespace"
        );
        println!("not run: no mount namespace can be made");
        return None;
    };
    Some(read(question, &String::from_utf8_lossy(&output.stdout), "", None).stores)
}

#[test]
fn mounts_as_real_shells_see_them() {
    let scratch = Scratch::new("mounts");
    let odd = "a b\tc\\040d%s";
    for dir in ["whole", "used/tsdb/deep", &format!("used/{odd}/x"), "used2/y", "plain"] {
        scratch.dir(dir);
    }
    // What is mounted stands by the physical path.
    std::os::unix::fs::symlink(scratch.path("used"), scratch.path("link")).unwrap();
    let question = scratch.question(&["whole", "used", "link", "plain", "no/such"]);
    for shell in shells() {
        let mount =
            "for at do [ \"$at\" = -- ] && break; shift; mount -t tmpfs none \"$at\"; done; shift; \"$@\"";
        let mounts =
            ["whole", "used/tsdb/deep", &format!("used/{odd}"), "used2/y"].map(|at| scratch.path(at));
        let args = [&mounts[..], &["--".to_owned()]].concat();
        let Some(stores) = stores_among_mounts(&shell, &question, &scratch, mount, &args) else { return };
        let found: Vec<Vec<String>> = stores.iter().map(|s| s.mounts.known().unwrap().clone()).collect();
        let below = |at: &str| vec![format!("{at}/tsdb/deep"), format!("{at}/{}", "a b\\tc\\\\040d%s")];
        let wanted = [
            vec![scratch.path("whole")],
            below(&scratch.path("used")),
            below(&scratch.path("link")),
            vec![],
            vec![],
        ];
        assert_eq!(found, wanted, "{shell:?}");
        let leads: Vec<Option<&str>> = stores.iter().map(|s| s.leads_to.as_deref()).collect();
        assert_eq!(leads, [None, None, Some(scratch.path("used").as_str()), None, None], "{shell:?}");
        assert!(stores[0].is_mounted() && stores[0].mounted_below().next().is_none());
        assert!(!stores[1].is_mounted() && stores[1].mounted_below().count() == 2);
    }
}

#[test]
fn a_store_whose_parent_may_not_be_written_cannot_be_moved() {
    let scratch = Scratch::new("unmovable");
    for name in ["open/store/CURRENT", "closed/store/CURRENT"] {
        scratch.file(name, "", 0o644);
    }
    let question = scratch.question(&["open/store", "closed/store", "closed/absent"]);
    // The superuser may write wherever the file system lets anybody, which busybox does not ask it.
    for shell in shells().into_iter().filter(|shell| !shell.contains(&"busybox")) {
        let closes =
            "at=$1; shift; mount -t tmpfs none \"$at\"; mkdir \"$at/store\"; : >\"$at/store/CURRENT\"
            mount -o remount,ro \"$at\"; \"$@\"";
        let args = [scratch.path("closed")];
        let Some(stores) = stores_among_mounts(&shell, &question, &scratch, closes, &args) else { return };
        let found: Vec<bool> = stores.iter().map(|s| s.unmovable).collect();
        assert_eq!(found, [false, true, false], "{shell:?}: {stores:?}");
    }
}

#[test]
fn a_directory_that_may_not_be_read_is_unknown() {
    let scratch = Scratch::new("denied");
    let locked = scratch.dir("locked");
    let question = scratch.question(&["locked", "locked/below"]);
    fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
    let may_all_the_same = fs::read_dir(&locked).is_ok();
    let found = look(&["sh"], &question, &scratch.0);
    fs::set_permissions(&locked, Permissions::from_mode(0o700)).unwrap();
    if may_all_the_same {
        // The superuser may look everywhere.
        assert_eq!(found.stores[0].content, Fact::Known(StoreContent::Empty));
        assert_eq!(found.stores[1].content, Fact::Known(StoreContent::Absent));
    } else {
        assert!(found.stores.iter().all(|s| s.content.known().is_none()), "{found:?}");
        let closed = |w: &&Writable| w.directory == locked;
        assert_eq!(found.machine.writable.iter().find(closed).unwrap().writable, Fact::Known(false));
    }
}

#[test]
fn programs_that_are_not_there_or_fail() {
    let scratch = Scratch::new("program");
    let mut question = scratch.question(&["store"]);
    for (text, mode, words) in [
        (VERSION, 0o644, "no file that may be run"),
        (
            "#!/bin/sh\necho 'libkwdbts2.so: cannot open shared object file' >&2; exit 127\n",
            0o755,
            "libkwdbts2.so",
        ),
        ("#!/bin/sh\necho hello\n", 0o755, "KaiwuDB Version"),
    ] {
        question.program = scratch.file("kwbase", text, mode);
        let found = look(&["sh"], &question, &scratch.0);
        assert!(found.build.why_unknown().unwrap().contains(words), "{:?}", found.build);
    }
    question.program = scratch.path("nowhere");
    let found = look(&["sh"], &question, &scratch.0);
    assert!(found.build.why_unknown().unwrap().contains("the program is not there"), "{:?}", found.build);
}

#[test]
fn certificates_are_read_and_keys_are_not() {
    let scratch = Scratch::new("certs");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/certs");
    for name in ["ca.crt", "node.crt", "client.root.crt"] {
        scratch.file(&format!("certs/{name}"), &fs::read_to_string(data.join(name)).unwrap(), 0o644);
    }
    scratch.file("certs/broken.crt", "-----BEGIN CERTIFICATE-----\n", 0o644);
    scratch.file("certs/odd name\nE.crt", "", 0o644);
    let secret = "KEYMATERIAL";
    scratch.file("certs/node.key", secret, 0o640);
    let mut question = scratch.question(&["store"]);
    question.certs_dir = Some(scratch.path("certs"));
    for shell in shells() {
        let (stdout, _) = answer(&shell, &question, &scratch.0);
        assert!(!stdout.contains(secret), "{shell:?}");
        let found = look(&shell, &question, &scratch.0);
        assert_eq!(found.can_authenticate, Fact::Known(false), "client.root.key is missing");
        let dir = found.machine.certificates.known().unwrap().clone().unwrap();
        assert_eq!(dir.files.len(), 6, "{shell:?}: {dir:?}");
        let key = dir.file("node.key").unwrap();
        assert_eq!((key.mode, key.size, &key.certificate), (0o640, 11, &None));
        let (ca, node) = (dir.certificate("ca.crt"), dir.certificate("node.crt"));
        assert!(node.known().unwrap().names_as_issuer(ca.known().unwrap()));
        assert!(dir.certificate("broken.crt").known().is_none());
        assert!(dir.certificate("other.crt").why_unknown().unwrap().contains("there is no"));
        assert!(found.machine.writable.iter().any(|w| w.directory == dir.path));
    }
    // A key that is one; without openssl it is not looked into.
    let cut_off = "-----BEGIN RSA PRIVATE KEY-----\nKEYMATERIAL\n";
    match key_pair(&scratch, "made", "root") {
        true => {
            for end in ["crt", "key"] {
                fs::rename(
                    scratch.path(&format!("made.{end}")),
                    scratch.path(&format!("certs/client.root.{end}")),
                )
                .unwrap();
            }
        }
        false => drop(scratch.file("certs/client.root.key", cut_off, 0o600)),
    }
    let found = look(&["sh"], &question, &scratch.0);
    assert_eq!(found.can_authenticate, Fact::Known(true), "{:?}", found.machine.certificates);
    if key_pair(&scratch, "certs/client.root", "alice") {
        let found = look(&["sh"], &question, &scratch.0);
        assert_eq!(found.can_authenticate, Fact::Known(false), "the certificate of another user");
        let damage = found.machine.certificates.known().unwrap().clone().unwrap().damage(&["client.root"]);
        assert!(damage.iter().any(|line| line.contains("is of 'alice', not of 'root'")), "{damage:?}");
    }
    scratch.file("certs/client.root.crt", "garbage", 0o644);
    assert_eq!(look(&["sh"], &question, &scratch.0).can_authenticate, Fact::Known(false));
    question.certs_dir = Some(scratch.path("none"));
    let found = look(&["sh"], &question, &scratch.0);
    assert_eq!(found.machine.certificates, Fact::Known(None));
    assert_eq!(found.can_authenticate, Fact::Known(false));
}

/// Real keys, made on the spot: none is kept in the source.
fn key_pair(scratch: &Scratch, name: &str, user: &str) -> bool {
    let (key, crt) = (scratch.path(&format!("{name}.key")), scratch.path(&format!("{name}.crt")));
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj";
    let (user, files) = (format!("/CN={user}"), ["-keyout", &key, "-out", &crt]);
    let made = Command::new("openssl").args(words.split(' ')).arg(user).args(files).output();
    made.is_ok_and(|o| o.status.success())
}

#[test]
fn damage_and_digests_of_keys() {
    let scratch = Scratch::new("damage");
    scratch.dir("certs");
    if !key_pair(&scratch, "certs/node", "node") || !key_pair(&scratch, "certs/ca", "the CA") {
        assert!(std::env::var_os("CI").is_none(), "CI needs openssl");
        println!("not run: there is no openssl");
        return;
    }
    let mut question = scratch.question(&["store"]);
    question.certs_dir = Some(scratch.path("certs"));
    question.authority_key = Some(scratch.path("certs/ca.key"));
    let see = |shell: &[&str], question: &Question| {
        let machine = look(shell, question, &scratch.0).machine;
        (machine.certificates.known().unwrap().clone().unwrap(), machine.authority_key.unwrap())
    };
    for shell in shells() {
        let (dir, key) = see(&shell, &question);
        assert_eq!(dir.damage(&["ca", "node"]), [""; 0], "{shell:?}");
        for name in ["ca.crt", "node.crt"] {
            assert_eq!(dir.file(name).unwrap().key, Some(Fact::Known(KeyMatch::Fits)), "{shell:?} {name}");
        }
        let content = fs::read(scratch.path("certs/ca.key")).unwrap();
        let sum = crate::canonical::hex(&<sha2::Sha256 as sha2::Digest>::digest(&content));
        assert_eq!(dir.file("ca.key").unwrap().sha256, Some(Fact::Known(sum.clone())), "{shell:?}");
        assert_eq!(key.sha256, Fact::Known(Some(sum)), "{shell:?}");
        assert_eq!(key.mode, Some(dir.file("ca.key").unwrap().mode), "{shell:?}");
        assert_eq!(dir.file("node.key").unwrap().sha256, None, "{shell:?}");
    }
    for (name, text, words) in [
        ("node.key", fs::read_to_string(scratch.path("certs/ca.key")).unwrap(), "is not the key of node.crt"),
        ("node.key", "garbage".to_owned(), "no private key"),
        ("node.key", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n".to_owned(), "no private key"),
        ("node.crt", String::new(), "node.crt: it is empty"),
        ("ca.crt", "garbage".to_owned(), "ca.crt: this is no certificate"),
    ] {
        scratch.file(&format!("certs/{name}"), &text, 0o600);
        let damage = see(&["sh"], &question).0.damage(&["ca", "node"]);
        assert!(damage.iter().any(|line| line.contains(words)), "{words}: {damage:?}");
    }
    scratch.file("certs/ca.key", "", 0o600);
    assert_eq!(see(&["sh"], &question).1.sha256, Fact::Known(None), "an empty file is no key");
    question.authority_key = Some(scratch.file("elsewhere/ca.key", "x", 0o644));
    assert_eq!(see(&["sh"], &question).1.mode, Some(0o644));
    question.authority_key = Some(scratch.path("nowhere/ca.key"));
    let none = see(&["sh"], &question).1;
    assert_eq!((none.sha256, none.mode), (Fact::Known(None), None));
    question.certs_dir = Some(scratch.file("file", "x", 0o600));
    let (dir, _) = see(&["sh"], &question);
    assert!(dir.damage(&[])[0].contains("it is no directory"), "{dir:?}");
}

/// What the scripts of `certs` leave when they are killed, by the names that they give it.
#[test]
fn temporary_files_of_certificates_are_leftovers() {
    let scratch = Scratch::new("cut-off");
    let mut question = scratch.question(&["store"]);
    question.certs_dir = Some(scratch.dir("etc/certs"));
    let tag = "20260102T030405Z-0a1b2c3d-1";
    let told = |question: &Question, shell: &[&str]| {
        let temp = format!("TMPDIR={}", scratch.dir("temp"));
        let wrapped: Vec<&str> = ["env", &temp].into_iter().chain(shell.iter().copied()).collect();
        let machine = look(&wrapped, question, &scratch.0).machine;
        let own = |l: &&Leftover| l.path.starts_with(scratch.0.to_str().unwrap());
        let found = machine.leftovers.known().unwrap().iter().filter(own).cloned();
        found
            .map(|l| (l.path[scratch.0.to_str().unwrap().len() + 1..].to_owned(), l.mode))
            .collect::<Vec<_>>()
    };
    // Kept on purpose, and files of others.
    scratch.file(&format!("etc/certs.old-{tag}/node.key"), "x", 0o600);
    scratch.file("temp/kwdb-scale-notes.txt", "x", 0o644);
    scratch.dir("temp/kwdb-scale-shells-1");
    assert_eq!(told(&question, &["sh"]), []);

    let new = format!("etc/certs.new-{tag}");
    scratch.file(&format!("{new}/ca.key"), "x", 0o644);
    scratch.file(&format!("{new}/node.crt"), "x", 0o644);
    scratch.file(&format!("{new}/old/node.key"), "x", 0o600);
    scratch.dir(&format!("etc/certs.gone-{tag}"));
    let issued = format!("temp/kwdb-scale-{tag}.aB3dE6");
    scratch.file(&format!("{issued}/kaiwudb_certs.tar.gz"), "x", 0o600);
    for dir in [&new, &issued, &format!("etc/certs.gone-{tag}")] {
        fs::set_permissions(scratch.path(dir), Permissions::from_mode(0o700)).unwrap();
    }
    let want = [
        (new.clone(), 0o700),
        (format!("{new}/ca.key"), 0o644),
        (format!("{new}/old/node.key"), 0o600),
        (format!("etc/certs.gone-{tag}"), 0o700),
        (issued.clone(), 0o700),
        (format!("{issued}/kaiwudb_certs.tar.gz"), 0o600),
    ];
    for shell in shells() {
        assert_eq!(told(&question, &shell), want, "{shell:?}");
    }
    // They lie beside what a link leads to.
    std::os::unix::fs::symlink(scratch.path("etc/certs"), scratch.path("link")).unwrap();
    question.certs_dir = Some(scratch.path("link"));
    assert_eq!(told(&question, &["sh"]), want);

    // A part that did not come may have had more to tell; what is known is told.
    let (stdout, _) = answer(&["sh"], &question, &scratch.0);
    let outer = stdout.split_once("Sabsent").unwrap().0;
    let outside = |more: &str| read(&question, &format!("{outer}{more}Z1\0"), "", None).machine.leftovers;
    let archive = "Kleft 644 root /tmp/kaiwudb_certs.tar.gz\0";
    assert!(outside(archive).known().unwrap().iter().any(|l| l.path == "/tmp/kaiwudb_certs.tar.gz"));
    if !outer.contains("Kleft ") {
        assert!(outside("").known().is_none());
    }
}

#[test]
fn service_container_deploy_script_and_leftovers() {
    let scratch = Scratch::new("managed");
    let question = scratch.question(&["store"]);
    let home = scratch.dir("home");
    scratch.file("home/kaiwudb_install/deploy.sh", "#!/bin/bash\n# KaiwuDB\n", 0o755);
    scratch.file("home/other/deploy.sh", "#!/bin/bash\n", 0o755);
    scratch.file("home/kaiwudb_install/kaiwudb_certs.tar.gz", "x", 0o640);
    let unit = |text: &str| scratch.file("home/bin/systemctl", &format!("#!/bin/sh\n{text}\n"), 0o755);
    let engine = |text: &str| scratch.file("home/bin/docker", &format!("#!/bin/sh\n{text}\n"), 0o755);
    let see = || look(&["sh"], &question, Path::new(&home)).machine;

    unit(
        "printf 'MainPID=4711\\nLoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\nUser=kaiwudb\\n'\n\
         echo 'ExecStart={ path=/k ; argv[]=/k/kwbase start --join=a:1,b ; pid=0 }'",
    );
    engine("echo 'running kwdb/kwdb:3.2.1 \"/k\" [\"start\",\"--join=c:2\"]'");
    let machine = see();
    let starts = |join: &[&str]| {
        let join = join.iter().copied().map(Address::new).collect();
        Some(StartLine { start_mode: Some(StartMode::MultiReplica), join, ..StartLine::default() })
    };
    let active = Unit {
        active: "active".into(),
        enabled: "enabled".into(),
        main_pid: Some(4711),
        user: Some("kaiwudb".into()),
        starts: starts(&["a:1", "b"]),
    };
    assert!(active.is_up());
    assert_eq!(machine.unit, Fact::Known(Some(active)));
    let container = machine.container.known().unwrap().clone().unwrap();
    assert_eq!((container.image.as_str(), container.is_up()), ("kwdb/kwdb:3.2.1", true));
    assert_eq!(container.starts, starts(&["c:2"]));
    assert_eq!(machine.deploy_scripts, Fact::Known(vec![format!("{home}/kaiwudb_install/deploy.sh")]));
    let left = machine.leftovers.known().unwrap();
    let archive = format!("{home}/kaiwudb_install/kaiwudb_certs.tar.gz");
    assert!(left.iter().any(|l| l.path == archive && l.mode == 0o640), "{left:?}");

    unit("printf 'MainPID=0\\nLoadState=not-found\\nActiveState=inactive\\nUnitFileState=\\n'");
    engine("echo 'Error: No such container: kaiwudb-container' >&2; exit 1");
    let machine = see();
    assert_eq!((machine.unit, machine.container), (Fact::Known(None), Fact::Known(None)));

    unit("printf 'MainPID=0\\nLoadState=loaded\\nActiveState=inactive\\nUnitFileState=disabled\\n'");
    engine("echo 'permission denied while trying to connect' >&2; exit 1");
    let machine = see();
    assert!(!machine.unit.known().unwrap().as_ref().unwrap().is_up());
    // A podman of this machine may say that it has no such container; of docker nothing is known then either.
    assert!(machine.container.why_unknown().unwrap().contains("permission denied"));

    // The container that owns the host's node is asked for by its name, of its engine alone.
    let owner = |engine: &str| Owner::Container { engine: engine.to_owned(), name: "kw7".to_owned() };
    engine(
        "case \"$*\" in *Status*' kw7') echo 'WARN[0000] words' >&2; echo 'exited kwdb:1' ;; *Labels*) echo kw.service ;; esac",
    );
    let mut question = scratch.question(&["store"]);
    question.owner = owner("docker");
    let machine = look(&["sh"], &question, Path::new(&home)).machine;
    assert_eq!(machine.container_name(), "kw7");
    let container = machine.container.known().unwrap().as_ref().unwrap();
    assert_eq!(container.state, "exited");
    assert!(
        container.returns.as_ref().unwrap().starts_with("unit kw.service owns it; name"),
        "{container:?}"
    );
    engine(
        "echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?' >&2; exit 1",
    );
    let machine = look(&["sh"], &question, Path::new(&home)).machine;
    assert!(machine.container.why_unknown().unwrap().contains("Cannot connect"), "{:?}", machine.container);
    question.owner = owner("no-such-engine");
    let machine = look(&["sh"], &question, Path::new(&home)).machine;
    assert!(machine.container.why_unknown().unwrap().contains("there is no program no-such-engine"));
}

#[cfg(target_os = "linux")]
#[test]
fn nodes_that_run() {
    let scratch = Scratch::new("running");
    let question = scratch.question(&["store"]);
    let store = scratch.path("store");
    // A shell under the name of kwbase, which reads the file `start` of its directory.
    scratch.file("start", "read -r line\n", 0o644);
    let spec = format!("--store=path={store},attrs=ssd");
    let mut child = Command::new("sh")
        .arg0("kwbase")
        .args(["start", "--insecure", &spec, "--listen-addr", "127.0.0.1:1", "--store", "/second/"])
        .current_dir(&scratch.0)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    for shell in shells() {
        let found = look(&shell, &question, &scratch.0);
        let all = found.machine.processes.known().unwrap();
        let own: Vec<_> = all.iter().filter(|p| p.pid == child.id()).collect();
        assert_eq!(own.len(), 1, "{shell:?}: {all:?}");
        assert_eq!(own[0].start_mode, StartMode::MultiReplica);
        assert_eq!(own[0].stores, [store.clone(), "/second".to_owned()]);
        assert_eq!(own[0].listen_addr, Some("127.0.0.1:1".into()));
        assert!(own[0].open_files.known().is_some() && own[0].locked_memory.known().is_some());
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn ports_that_listen() {
    let scratch = Scratch::new("ports");
    let question = scratch.question(&["store"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    for shell in shells() {
        let found = look(&shell, &question, &scratch.0);
        let ports = found.machine.ports.known().unwrap();
        assert!(ports.contains(&Listener { ip: at.ip(), port: at.port() }), "{shell:?}: {at} in {ports:?}");
    }
}

#[test]
fn what_stands_behind_a_prefix_is_told_through_it() {
    let scratch = Scratch::new("prefix");
    let mut question = scratch.question(&["store"]);
    question.prefix = vec!["env".into(), "THROUGH=it".into()];
    let found = look(&["sh"], &question, &scratch.0);
    assert!(found.machine.inside && found.build.known().is_some());
    // The way in fails: what the machine itself tells is known all the same.
    question.prefix = vec!["sh".into(), "-c".into(), "echo 'no such container' >&2; exit 7".into()];
    let argv = question.argv();
    let output = Command::new(&argv[0]).args(&argv[1..]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let found = read(&question, &stdout, &stderr, None);
    let why = found.stores[0].content.why_unknown().unwrap();
    assert_eq!(why, "'sh' ended with exit code 7: no such container");
    assert!(found.machine.user.known().is_some() && found.machine.limits.open_files.known().is_none());
}

/// The items of an answer of a host that is installed by KWDB's installer.
const INSTALLED: &str = "Kclock 100.25|Kos-ID debian|Kos-VERSION_ID 12|Kkernel 6.1|Karch x86_64|Kuser ops|Ksudo no|\
    Kmode-state there|Kmode bare|Kmode multi-replication|Kmode /usr/local/kaiwudb|Kmode /data|Kmode 26257|Kmode 8080|Kmode kaiwudb|\
    Kmode tls|Kmode false|Kmode 10.0.0.4|Knode-state there|Knode 10.0.0.1 10.0.0.2|Knode 22|Knode root|Kdeploy-looked yes|\
    Kunit-state denied|Kcontainer-absent none|Kmaps 65530|Kleft-looked yes|Sabsent|Kversion-state 0|\
    Kversion KaiwuDB Version: V3.2.1|T|L0100007F:6691|L00000000000000000000000001000000:1F90|\
    L0000000000000000FFFF00000400000A:6A79|Kspace /dev/a b 1000 10 500 2% /data x|Kwrite yes /data|Ksession-files 1024 unlimited|\
    Ksession-memory 65536 x|Kproc-looked yes|E|Kclock 100.75|Z0|";

fn question() -> Question {
    Question {
        program: "/usr/local/kaiwudb/bin/kwbase".into(),
        prefix: Vec::new(),
        owner: Owner::Quit,
        described: None,
        binds: Vec::new(),
        certs_dir: None,
        authority_key: None,
        directories: vec![("/data".into(), DirectoryUse::Store)],
        also: None,
    }
}

#[test]
fn an_answer_is_read_item_by_item() {
    let second = |s: i64| jiff::Timestamp::from_second(s).unwrap();
    let trip = RoundTrip { sent: second(90), answered: second(92) };
    let machine = read(&question(), &INSTALLED.replace('|', "\0"), "", Some(trip)).machine;
    assert_eq!(machine.system.known().unwrap().to_string(), "debian 12 x86_64 kernel 6.1");
    assert_eq!(machine.installed.known().unwrap().as_ref().unwrap().start_mode, StartMode::MultiReplica);
    assert_eq!(machine.peers.known().unwrap().as_ref().unwrap().addresses.len(), 2);
    assert!(machine.unit.why_unknown().is_some());
    let ports: Vec<String> =
        machine.ports.known().unwrap().iter().map(|l| format!("{} {}", l.ip, l.port)).collect();
    assert_eq!(ports, ["10.0.0.4 27257", "127.0.0.1 26257", "::1 8080"]);
    let space = machine.file_systems[0].space.known().unwrap();
    assert_eq!((space.source.as_str(), space.mount.as_str()), ("/dev/a b", "/data x"));
    assert_eq!((space.size, space.free), (1_024_000, 512_000));
    assert_eq!(machine.limits.open_files, Fact::Known(Limit { soft: Some(1024), hard: None }));
    assert!(machine.limits.locked_memory.known().is_none());
    // Read half a second apart within two: the offset is known but for three quarters of a second.
    let clock = machine.clock.known().unwrap();
    assert_eq!(clock.uncertainty, SignedDuration::from_millis(750));
    assert_eq!(clock.offset, SignedDuration::from_millis(9_500));
    assert_eq!(clock.surely_from(ClockOffset::OPERATOR), SignedDuration::from_millis(8_750));

    // A date without fractions is right within its second.
    let coarse = INSTALLED.replace("100.25", "100.%N").replace("100.75", "100.").replace('|', "\0");
    let clock = *read(&question(), &coarse, "", Some(trip)).machine.clock.known().unwrap();
    assert_eq!(clock.uncertainty, SignedDuration::from_millis(1_500));
    // A clock that was set back in between says nothing.
    let back = INSTALLED.replace("100.25", "50.0").replace('|', "\0");
    assert!(read(&question(), &back, "", Some(trip)).machine.clock.known().is_none());
}

#[test]
fn addresses_that_a_machine_has_not() {
    let own = ["127.0.0.0/8", "10.0.0.8/32", "x", "10.0.0.9/33"].map(|n| format!("Kaddress {n}|")).concat();
    let six = "Kaddress6 00000000000000000000000000000001|Kaddress6 1|";
    let mut question = question();
    let binds = ["10.0.0.7:26257", "10.0.0.8:8080", "127.0.0.5:1", "[::1]:1", "[::ffff:10.0.0.8]:1", "[::2]"];
    question.binds = binds.map(Address::new).to_vec();
    let read = |items: &str| {
        let answer = INSTALLED.replace("T|L", &format!("{items}T|L")).replace('|', "\0");
        read(&question, &answer, "", None).machine
    };
    let machine = read(&format!("{own}{six}"));
    let told: Vec<String> = machine.addresses.known().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.0.0.8", "127.0.0.0/8", "::1"]);
    assert_eq!(machine.cannot_bind(), [&Address::new("10.0.0.7:26257"), &Address::new("[::2]")]);
    // A machine that has none told none.
    let machine = read(six);
    assert!(machine.cannot_bind().is_empty());
    assert!(machine.unknowns().contains(&"addresses: the host has no /proc/net/fib_trie".to_owned()));
    // A router takes them all for its own.
    assert!(read("Kaddress 0.0.0.0/0|Kaddress ::/0|").cannot_bind().is_empty());
}

#[test]
fn an_answer_that_was_cut_off_counts_for_nothing() {
    let whole = INSTALLED.replace('|', "\0");
    for end in 0..whole.len() {
        let found = read(&question(), &whole[..end], "", None);
        assert!(found.build.known().is_none() && found.stores[0].content.known().is_none(), "{end}");
        assert!(found.machine.user.known().is_none() && found.machine.ports.known().is_none(), "{end}");
        assert_eq!(found.machine.processes.why_unknown(), Some("the answer of the host was cut off"));
        assert_eq!(found.also.why_unknown(), Some("the answer of the host was cut off"));
    }
    assert!(read(&question(), &whole, "", None).machine.user.known().is_some());
}

#[test]
fn another_script_is_asked_in_the_same_command() {
    let scratch = Scratch::new("also");
    scratch.file("d/CURRENT", "", 0o644);
    let plain = scratch.question(&["d"]);
    // It takes names of the probe's, reads what it is given and leaves in the middle.
    let script = "emit \"A$1\"\nemit \"B$2 $may_root\"\nemit E\nline() { :; }\nname=x\ncat\nexit 3\n";
    let also = Also { script: script.to_owned(), arguments: ["a  b", "$(id)"].map(str::to_owned).into() };
    let question = Question { also: Some(also.clone()), ..plain.clone() };
    for shell in shells() {
        let (found, other) = (look(&shell, &question, &scratch.0), look(&shell, &plain, &scratch.0));
        let items = found.also.known().unwrap();
        assert_eq!(items[0], "Aa  b");
        assert!(
            items[1].starts_with("B$(id) ") && [" yes", " no"].iter().any(|end| items[1].ends_with(end)),
            "{items:?}"
        );
        assert_eq!((&items[2..], other.also), (&["E".to_owned()][..], Fact::Known(vec![])));
        // And nothing of the probe's own is lost.
        assert_eq!((found.stores, found.build), (other.stores, other.build), "{shell:?}");
        let (own, other) = (found.machine, other.machine);
        assert_eq!((own.user, own.sudo, own.system), (other.user, other.sudo, other.system), "{shell:?}");
        assert_eq!(own.unit, other.unit, "{shell:?}");
    }
    let output = Command::new("sh").args(&also.alone()[1..]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("Aa  b\0B$(id) "), "{output:?}");
}

fn mangled() -> impl Strategy<Value = String> {
    let items: Vec<String> = INSTALLED.split_terminator('|').map(str::to_owned).collect();
    let item = prop_oneof![
        4 => proptest::sample::select(items),
        1 => "[KSNCTLEXZ][a-z-]{0,12} ?[^\0]{0,12}",
        1 => "K(clock|mode|unit|container|space|write|cert|pem|left|proc|arg|session-files|version) [^\0]{0,20}",
        1 => "L[0-9A-F\u{e9}]{0,36}:[0-9A-F]{0,5}",
        1 => "K(cert [0-9]{1,12} r [0-9]{1,22} x|left 9 |proc [0-9]{1,12} u|clock [0-9]{1,22}\\.[0-9]{0,12})",
    ];
    proptest::collection::vec(item, 0..40).prop_map(|items| items.iter().map(|i| format!("{i}\0")).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_the_reading_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        items in mangled(),
        secure in any::<bool>(),
        ends in any::<bool>(),
    ) {
        let mut question = question();
        question.certs_dir = secure.then(|| "/certs".to_owned());
        let trip = RoundTrip { sent: jiff::Timestamp::MIN, answered: jiff::Timestamp::MAX };
        let end = if ends { "E\0Kclock 5.5\0Z0\0" } else { "Z1\0" };
        for text in [String::from_utf8_lossy(&bytes).into_owned(), items.clone(), format!("{items}{end}")] {
            let found = read(&question, &text, &text, Some(trip));
            // One answer for each question, whatever was said.
            prop_assert_eq!(found.stores.len(), 1);
            prop_assert_eq!(found.machine.file_systems.len(), 1);
            let _ = found.machine.unknowns();
            if !text.ends_with('\0') {
                prop_assert!(found.build.known().is_none());
            }
        }
    }
}
