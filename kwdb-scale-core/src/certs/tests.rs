//! Archives that mean harm, and the scripts in a real shell with a stand-in for `kwbase`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::kwbase::{KwbaseHost, Security};
use crate::ports::{
    CertificateState, Command, CommandEnd, CommandOutput, Detached, HostTransport, PortState, Spawned,
};
use crate::topology::{Address, HostName};

mod failing;
mod issuing;

const KEY: &str = "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n";
const TAG: &str = "20260101T000000Z-1a2b3c4d-1";

fn data(name: &str) -> String {
    fs::read_to_string(format!("{}/tests/data/certs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn authority() -> String {
    Certificate::from_pem(&data("ca.crt")).unwrap().fingerprint
}

fn order(names: &[&str]) -> IssueOrder {
    IssueOrder {
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        authority: authority(),
        tag: TAG.to_owned(),
        now: Certificate::from_pem(&data("node.crt")).unwrap().not_before,
        deadline: Duration::from_secs(20),
    }
}

/// Runs commands on this machine.
#[derive(Debug, Default)]
struct Here {
    /// The verb of a script that fails instead, with an error of the host or of its connection.
    fails: Option<(&'static str, Option<PortErrorKind>)>,
}

#[async_trait]
impl HostTransport for Here {
    async fn run(&self, _: &HostName, command: &Command) -> Result<CommandOutput, PortError> {
        let no_room = Command::new(["sh", "-c", "echo no room >&2; exit 1"]);
        let command = match self.fails {
            Some((verb, kind)) if command.argv.iter().any(|word| word == verb) => match kind {
                Some(kind) => return Err(PortError::new(kind, "it went away")),
                None => &no_room,
            },
            _ => command,
        };
        let mut child = std::process::Command::new(&command.argv[0])
            .args(&command.argv[1..])
            .envs(&command.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(command.stdin.as_deref().unwrap_or_default());
        let output = child.wait_with_output().unwrap();
        let end = match output.status.code() {
            Some(code) => CommandEnd::Exit(code),
            None => CommandEnd::Signal(output.status.signal().unwrap()),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(CommandOutput {
            end,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            truncated: false,
        })
    }

    async fn spawn(&self, _: &HostName, _: &Detached) -> Result<Spawned, PortError> {
        unreachable!()
    }

    async fn put(&self, _: &HostName, _: &str, _: &[u8], _: u32) -> Result<(), PortError> {
        unreachable!()
    }

    async fn get(&self, _: &HostName, _: &str, _: usize) -> Result<Vec<u8>, PortError> {
        unreachable!()
    }

    async fn probe(&self, _: &HostName, _: &Address, _: Duration) -> Result<PortState, PortError> {
        unreachable!()
    }
}

/// A machine: a directory whose name is awkward for shells.
struct Machine {
    root: PathBuf,
    transport: Arc<Here>,
    host: KwbaseHost,
}

impl Machine {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("it's $(a) \"{name}\" {}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::create_dir(root.join("ca")).unwrap();
        for (file, text) in [("ca.crt", data("ca.crt")), ("ca.key", KEY.to_owned())] {
            fs::write(root.join("ca").join(file), text).unwrap();
        }
        for file in ["node.crt", "client.root.crt"] {
            fs::write(root.join(file), data(file)).unwrap();
        }
        let program = root.join("kwbase");
        let text = format!(
            "#!/bin/sh\n[ \"$1\" != version ] || {{ echo 'KaiwuDB Version: V3.2.1'; exit 0; }}\nhere=${{0%/*}}\ndir=${{3#--certs-dir=}}\necho \"$@\" >> \"$here/log\"\n[ ! -e \"$here/slow\" ] || {{ rm \"$here/slow\"; sleep 2; }}\n[ ! -e \"$here/broken\" ] || exit 1\n\
             [ \"$2\" = create-node ] && name=node || name=client.root\n\
             cp \"$here/$name.crt\" \"$dir/\" && printf '%s' '{KEY}' > \"$dir/$name.key\"\n"
        );
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let certs_dir = root.join("etc/my certs").display().to_string();
        let mut host = KwbaseHost::new("n5", Security::Certs { certs_dir });
        host.program = program.display().to_string();
        host.env.insert("TMPDIR".to_owned(), root.join("tmp").display().to_string());
        Self { root, transport: Arc::new(Here::default()), host }
    }

    fn issuer(&self) -> IssueOnHost<Here> {
        let ca = |name: &str| self.root.join("ca").join(name).display().to_string();
        IssueOnHost::new(self.transport.clone(), self.host.clone(), ca("ca.key"), ca("ca.crt")).unwrap()
    }

    fn dir(&self) -> PathBuf {
        self.root.join("etc/my certs")
    }

    fn there(&self) -> Installation<'_, Here> {
        let Security::Certs { certs_dir } = &self.host.security else { unreachable!() };
        Installation {
            transport: &self.transport,
            host: &self.host,
            dir: certs_dir,
            tag: TAG,
            deadline: Duration::from_secs(20),
        }
    }

    fn beside(&self, what: &str) -> PathBuf {
        self.root.join(format!("etc/my certs.{what}-{TAG}"))
    }

    /// An older set, of another authority.
    fn with_old(&self) {
        fs::create_dir_all(self.dir()).unwrap();
        for file in ["ca.crt", "ca.key", "node.crt", "node.key"] {
            fs::write(self.dir().join(file), format!("old {file}")).unwrap();
        }
        fs::write(self.dir().join("sm4.key"), "kept").unwrap();
    }

    fn is_old(&self) {
        for file in ["ca.crt", "ca.key", "node.crt", "node.key"] {
            assert_eq!(self.read(file), format!("old {file}"));
        }
        assert!(!self.dir().join("client.root.crt").exists() && self.dir().join("sm4.key").exists());
        assert!(
            !self.beside("new").exists() && !self.beside("old").exists() && !self.beside("gone").exists()
        );
    }

    fn is_new(&self) {
        assert_eq!(self.read("ca.crt").trim(), data("ca.crt").trim());
        assert_eq!(self.read("node.crt").trim(), data("node.crt").trim());
        for file in ["node.key", "client.root.key"] {
            assert_eq!(self.read(file), KEY);
            let mode = fs::metadata(self.dir().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(!self.dir().join("ca.key").exists() && !self.beside("new").exists());
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir().join(file)).unwrap_or_else(|e| format!("{file}: {e}"))
    }

    fn temporary(&self) -> Vec<PathBuf> {
        fs::read_dir(self.root.join("tmp")).unwrap().map(|e| e.unwrap().path()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[tokio::test]
async fn a_set_is_installed_and_put_back() {
    for old in [false, true] {
        let machine = Machine::new(&format!("install {old}"));
        if old {
            machine.with_old();
        }
        let set = machine.issuer().issue(&order(&["10.0.0.5"])).await.unwrap();
        let there = machine.there();
        let [ca, ..] = there.stage(&set, "").await.unwrap();
        assert_eq!(Certificate::from_pem(&ca).unwrap().fingerprint, authority());
        assert_eq!(there.look(None).await.unwrap().leftovers.len(), 1, "staged, nothing replaced");
        there.commit(old, !old).await.unwrap();
        machine.is_new();
        let look = there.look(None).await.unwrap();
        assert_eq!(look.key_faults(), Vec::<String>::new());
        assert!(look.leftovers.is_empty() && look.has("node.crt"));
        if old {
            assert_eq!(look.state, CertificateState::Installed);
            assert_eq!(fs::metadata(machine.beside("old")).unwrap().permissions().mode() & 0o777, 0o700);
            assert_eq!(fs::read_to_string(machine.beside("old").join("ca.key")).unwrap(), "old ca.key");
        } else {
            assert_eq!(look.state, CertificateState::Untouched);
            assert_eq!(fs::metadata(machine.dir()).unwrap().permissions().mode() & 0o777, 0o700);
            assert!(!machine.beside("old").exists());
        }
        // Twice is as good as once, and the oldest set is the one that is kept.
        there.stage(&set, "").await.unwrap();
        there.commit(false, !old).await.unwrap();
        machine.is_new();
        for _ in 0..2 {
            there.restore(!old, false, None).await.unwrap();
            if old { machine.is_old() } else { assert!(!there.look(None).await.unwrap().has("node.crt")) }
        }
    }
}

/// A run in a container of its own cannot be seen from another one: it has a minute, and no more.
#[tokio::test]
async fn a_run_that_cannot_be_seen_has_its_time() {
    let machine = Machine::new("unseen");
    machine.with_old();
    let there = machine.there();
    let new = machine.beside("new");
    let left = |age: u64| {
        fs::create_dir(&new).unwrap();
        fs::write(new.join("pid"), "1 pid:[4026539999]\n").unwrap();
        let written = std::time::SystemTime::now() - Duration::from_secs(age);
        fs::File::options().write(true).open(new.join("pid")).unwrap().set_modified(written).unwrap();
    };
    for (age, waits) in [(57, true), (90, false)] {
        left(age);
        let begun = std::time::Instant::now();
        there.restore(false, false, None).await.unwrap();
        // One that is young is waited for until it is a minute old; the other is not waited for, whatever the visit takes.
        assert!(
            !waits || begun.elapsed() > Duration::from_millis(1500),
            "{age} s old: {:?}",
            begun.elapsed()
        );
        assert!(!new.exists());
        machine.is_old();
    }
}

/// Wherever it is interrupted: the old set, or the new one after the next visit.
#[tokio::test]
async fn an_interruption_leaves_old_or_new() {
    for stop in ["staged", "committed", "aside moved", "half moved"] {
        for back in [false, true] {
            let machine = Machine::new(&format!("{stop} {back}"));
            machine.with_old();
            let set = machine.issuer().issue(&order(&["10.0.0.5"])).await.unwrap();
            let there = machine.there();
            there.stage(&set, "").await.unwrap();
            let new = machine.beside("new");
            if stop != "staged" {
                // What `commit` does, step by step.
                fs::create_dir(new.join("old")).unwrap();
                for file in ["ca.crt", "ca.key", "node.crt", "node.key"] {
                    fs::copy(machine.dir().join(file), new.join("old").join(file)).unwrap();
                }
                fs::write(new.join("drop"), "").unwrap();
                fs::rename(new.join("owner"), new.join("commit")).unwrap();
            }
            if stop == "aside moved" || stop == "half moved" {
                fs::rename(new.join("old"), machine.beside("old")).unwrap();
            }
            if stop == "half moved" {
                fs::rename(new.join("ca.crt"), machine.dir().join("ca.crt")).unwrap();
                fs::rename(new.join("node.crt"), machine.dir().join("node.crt")).unwrap();
            }
            let look = there.look(None).await.unwrap();
            let half = stop != "staged";
            assert_eq!(look.state == CertificateState::Half, half, "{stop}");
            assert!(!look.leftovers.is_empty(), "{stop}");
            if back {
                there.restore(false, false, None).await.unwrap();
                machine.is_old();
            } else {
                there.clean().await.unwrap();
                if half { machine.is_new() } else { machine.is_old() }
            }
            assert!(there.look(None).await.unwrap().leftovers.is_empty(), "{stop}");
        }
    }
}

/// Directories too, wherever it is interrupted, and only those; none in which anything lies.
#[tokio::test]
async fn a_directory_that_was_made_goes_with_what_lay_in_it() {
    for stop in ["staged", "committed", "half moved", "done", "half undone"] {
        for before in ["nothing", "above", "directory"] {
            let machine = Machine::new(&format!("made {stop} {before}"));
            let etc = machine.root.join("etc");
            match before {
                "above" => fs::create_dir(&etc).unwrap(),
                "directory" => fs::create_dir_all(machine.dir()).unwrap(),
                _ => {}
            }
            let there = machine.there();
            let made = there.look(None).await.unwrap().missing;
            let topmost = match before {
                "nothing" => Some(&etc),
                "above" => Some(&machine.dir()),
                _ => None,
            };
            assert_eq!(made, topmost.map(|path| path.display().to_string()), "{before}");
            let made = made.as_deref();
            let set = machine.issuer().issue(&order(&["10.0.0.5"])).await.unwrap();
            there.stage(&set, "").await.unwrap();
            let new = machine.beside("new");
            match stop {
                "staged" => {}
                "done" => there.commit(false, true).await.unwrap(),
                // What `commit` does, step by step.
                _ => fs::rename(new.join("owner"), new.join("commit")).unwrap(),
            }
            if stop == "half moved" {
                let _ = fs::create_dir(machine.dir());
                fs::rename(new.join("ca.crt"), machine.dir().join("ca.crt")).unwrap();
            }
            if stop == "half undone" {
                let _ = fs::create_dir(machine.dir());
                there.restore(true, false, None).await.unwrap();
                assert_eq!(fs::read_dir(machine.dir()).unwrap().count(), 0);
                let _ = made.is_some() && before == "nothing" && fs::remove_dir(machine.dir()).is_ok();
                // Nobody would look for it otherwise.
                let left = there.look(made).await.unwrap().leftovers;
                assert_eq!(left.len(), usize::from(made.is_some()), "{left:?}");
            }
            for _ in 0..2 {
                there.restore(true, false, made).await.unwrap();
                let there = |path: &PathBuf| path.exists();
                assert_eq!(
                    (there(&etc), there(&machine.dir())),
                    (before != "nothing", before == "directory"),
                    "{stop} {before}"
                );
            }
            assert_eq!(there.look(made).await.unwrap().leftovers, Vec::<String>::new(), "{stop} {before}");
        }
    }
    let machine = Machine::new("made, and used by others");
    let there = machine.there();
    let made = there.look(None).await.unwrap().missing;
    let set = machine.issuer().issue(&order(&["10.0.0.5"])).await.unwrap();
    there.stage(&set, "").await.unwrap();
    there.commit(false, true).await.unwrap();
    fs::write(machine.dir().join("sm4.key"), "kept").unwrap();
    there.restore(true, false, made.as_deref()).await.unwrap();
    assert_eq!(machine.read("sm4.key"), "kept");
    let look = there.look(made.as_deref()).await.unwrap();
    assert!(look.leftovers.is_empty() && look.files.is_empty(), "{look:?}");
}

/// An operator that is ended does not end what it began over there.
#[tokio::test]
async fn whoever_comes_next_waits_for_a_run_that_goes_on() {
    let machine = Machine::new("alone");
    let order = order(&["10.0.0.5"]);
    let archive = machine.issuer().archive(&order).await.unwrap();
    let slow = machine.root.join("slow");
    fs::write(&slow, "").unwrap();
    std::thread::scope(|scope| {
        let stage = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(machine.there().stage_archive(&archive, &order, "", false)).unwrap();
        };
        let first = scope.spawn(stage);
        while slow.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // In the middle of the first one's.
        scope.spawn(stage).join().unwrap();
        first.join().unwrap();
    });
    let log = fs::read_to_string(machine.root.join("log")).unwrap();
    let made: Vec<&str> = log.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(made, ["create-node", "create-client", "create-node", "create-client"]);
    machine.there().commit(false, true).await.unwrap();
    assert!(machine.there().look(None).await.unwrap().leftovers.is_empty());
}

#[tokio::test]
async fn the_documented_archive() {
    for keep in [false, true] {
        let machine = Machine::new(&format!("archive {keep}"));
        let order = order(&["10.0.0.5"]);
        let archive = machine.issuer().archive(&order).await.unwrap();
        assert_eq!(archive.names().collect::<Vec<_>>(), ["ca.crt", "ca.key"]);
        assert!(!format!("{archive:?}").contains("PRIVATE KEY"));
        assert_eq!(machine.temporary(), Vec::<PathBuf>::new());
        let there = machine.there();
        there.stage_archive(&archive, &order, "", keep).await.unwrap();
        there.commit(false, true).await.unwrap();
        assert_eq!(machine.dir().join("ca.key").exists(), keep);
        assert!(!machine.dir().join(archive::NAME).exists());
        assert_eq!(there.look(None).await.unwrap().key_faults(), Vec::<String>::new());
        there.restore(true, keep, None).await.unwrap();
        assert_eq!(fs::read_dir(machine.dir()).unwrap().count(), 0);

        // As a file for deploy.sh.
        let dir = machine.root.join("tmp").display().to_string();
        let deadline = Duration::from_secs(20);
        put_archive(&machine.transport, &machine.host, &dir, (&archive, "kaiwudb"), TAG, deadline)
            .await
            .unwrap();
        let file = machine.root.join("tmp").join(archive::NAME);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Archive::open(&fs::read(&file).unwrap()).unwrap(), archive);
        // With its key where it is, and for whom it will be.
        let of = async |dir: &str, authority: &str| {
            let found =
                find_archive(&machine.transport, &machine.host, dir, (TAG, authority), deadline).await;
            let found = found.unwrap();
            assert_eq!(found.leftovers, Vec::<String>::new());
            (found.there, found.faults.join("\n"))
        };
        assert_eq!(of(&dir, &archive.authority().fingerprint).await, (true, String::new()));
        let (there, faults) = of(&dir, &"cd".repeat(32)).await;
        assert!(there && faults.contains("another authority"), "{faults}");
        let listed = std::process::Command::new("tar").arg("-tvzf").arg(&file).output().unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap();
        assert_eq!(listed.matches("kaiwudb/kaiwudb").count(), 2, "{listed}");
        for bad in [
            packed(&[("ca.crt", tar::EntryType::Symlink, b""), ("ca.key", tar::EntryType::Regular, b"x")]),
            packed(&[
                ("../../ca.crt", tar::EntryType::Regular, b"x"),
                ("ca.key", tar::EntryType::Regular, b"x"),
            ]),
            b"no archive".to_vec(),
        ] {
            fs::write(&file, bad).unwrap();
            let (there, faults) = of(&dir, &archive.authority().fingerprint).await;
            assert!(there && faults.contains("alone"), "{faults}");
        }
        for _ in 0..2 {
            remove_archive(&machine.transport, &machine.host, &dir, TAG, deadline).await.unwrap();
        }
        assert_eq!(machine.temporary(), Vec::<PathBuf>::new());
        assert!(!of(&dir, &archive.authority().fingerprint).await.0);
        let none = machine.root.join("none").display().to_string();
        assert!(
            put_archive(&machine.transport, &machine.host, &none, (&archive, "kaiwudb"), TAG, deadline)
                .await
                .is_err()
        );
    }
}

/// A tar of raw headers, so that it can hold what no honest tool writes.
fn packed(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        if kind.is_symlink() || kind.is_hard_link() {
            header.set_link_name("/etc/shadow").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[test]
fn hostile_archives_are_not_opened() {
    use tar::EntryType as Kind;
    let ca = data("ca.crt");
    let good: [(&str, Kind, &[u8]); 2] =
        [("./ca.crt", Kind::Regular, ca.as_bytes()), ("ca.key", Kind::Regular, KEY.as_bytes())];
    assert!(Archive::open(&packed(&good)).is_ok());
    let long = vec![b'a'; archive::FILE_MAX + 1];
    let bad: &[(&str, Kind, &[u8])] = &[
        ("/etc/cron.d/x", Kind::Regular, b"x"),
        ("/ca.crt", Kind::Regular, b"x"),
        ("../ca.crt", Kind::Regular, b"x"),
        ("./../../ca.crt", Kind::Regular, b"x"),
        ("sub/ca.crt", Kind::Regular, b"x"),
        ("node.crt", Kind::Symlink, b""),
        ("node.key", Kind::Link, b""),
        ("node.key", Kind::Char, b""),
        ("node.key", Kind::Block, b""),
        ("node.key", Kind::Fifo, b""),
        ("sub", Kind::Directory, b""),
        ("passwd", Kind::Regular, b"x"),
        ("client..crt", Kind::Regular, b"x"),
        ("client.a/b.crt", Kind::Regular, b"x"),
        ("client.root.crt.sh", Kind::Regular, b"x"),
        ("-rf", Kind::Regular, b"x"),
        ("ca.crt", Kind::Regular, b"x"),
        ("node.crt", Kind::Regular, &long),
    ];
    for entry in bad {
        let refused = Archive::open(&packed(&[good[0], good[1], *entry])).unwrap_err();
        assert!(matches!(refused, ArchiveError::Refused { .. }), "{}: {refused:?}", entry.0);
        assert!(!refused.to_string().contains('\n'));
    }
    for (what, entries) in [("no key", &good[..1]), ("no certificate", &good[1..])] {
        assert!(matches!(Archive::open(&packed(entries)), Err(ArchiveError::Missing(_))), "{what}");
    }
    let other = [good[1], ("ca.crt", Kind::Regular, b"-----BEGIN CERTIFICATE-----".as_slice())];
    assert!(matches!(Archive::open(&packed(&other)), Err(ArchiveError::Authority(_))));
    // Cut short, no gzip, a bomb, too many.
    let whole = packed(&good);
    for bytes in [&whole[..whole.len() / 2], b"", b"PK\x03\x04", ca.as_bytes()] {
        assert!(Archive::open(bytes).is_err());
    }
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    assert!(Archive::open(&bomb.finish().unwrap()).is_err());
    let names: Vec<String> = (0..70).map(|n| format!("client.u{n}.crt")).collect();
    let many: Vec<(&str, Kind, &[u8])> =
        names.iter().map(|n| (n.as_str(), Kind::Regular, b"x".as_slice())).collect();
    assert_eq!(Archive::open(&packed(&many)).unwrap_err(), ArchiveError::TooLarge);
}

#[test]
fn archives_of_both_names_are_read_and_the_page_s_is_made() {
    use tar::EntryType as Kind;
    assert!(archive::NAMES.contains(&archive::NAME) && archive::NAMES.contains(&"kw-certs.tar.gz"));
    let (ca, node) = (data("ca.crt"), data("node.crt"));
    // As an installer from V3.1.0 packs it.
    let full = packed(&[
        ("./", Kind::Directory, b""),
        ("./ca.crt", Kind::Regular, ca.as_bytes()),
        ("./ca.key", Kind::Regular, KEY.as_bytes()),
        ("./node.crt", Kind::Regular, node.as_bytes()),
        ("./node.key", Kind::Regular, KEY.as_bytes()),
        ("./client.root.crt", Kind::Regular, b"x"),
        ("./sm4.key", Kind::Regular, &[0, 255, 1]),
    ]);
    let archive = Archive::open(&full).unwrap();
    assert_eq!(archive.authority().fingerprint, authority());
    assert_eq!(archive.file("sm4.key"), Some([0, 255, 1].as_slice()));
    // What deploy.sh and create-node can use holds no more than the two.
    let made = Archive::open(&archive.pack().unwrap()).unwrap();
    assert_eq!(made, Archive::of_authority(&ca, KEY).unwrap());
    assert!(Archive::of_authority(&node, "no key").is_err());
}

#[test]
fn names_and_lifetimes() {
    let wanted = ["n5.example.com", "[::1]", "0.0.0.0", "::", "", "10.0.0.5"].map(str::to_owned);
    let names = node_names(wanted, &["0.0.0.0".to_owned()]);
    assert_eq!(names, ["n5.example.com", "::1", "10.0.0.5", "127.0.0.1", "localhost", "0.0.0.0"]);
    let ca = Certificate::from_pem(&data("ca.crt")).unwrap();
    assert_eq!(lifetime(&ca, ca.not_before), None);
    let late = ca.not_after - SignedDuration::from_hours(100);
    assert_eq!(lifetime(&ca, late).as_deref(), Some("99h"));
}
