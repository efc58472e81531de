//! Hosts that get their certificates by the operation, each in a directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Case, Out, TestLab};

const SPEED: u32 = 40;
const FILES: [&str; 5] = ["ca.crt", "client.root.crt", "client.root.key", "node.crt", "node.key"];

/// A secure lab whose file says who issues certificates, and a place for everything temporary.
struct Scene<'a> {
    lab: TestLab<'a>,
    temp: PathBuf,
    case: &'a Case,
}

impl<'a> Scene<'a> {
    fn new(case: &'a Case) -> Self {
        let lab = case.lab(3, SPEED, &["--secure", "--ranges", "4"]);
        let temp = PathBuf::from(lab.path("temp"));
        fs::create_dir(&temp).unwrap();
        // Slow where it is to be interrupted.
        let slow = lab.path("slow-kwbase");
        let text = format!(
            "#!/bin/sh\n[ \"$2\" != create-client ] || [ ! -e '{0}' ] || {{ touch '{0}.seen'; sleep 3; }}\nexec '{1}' \"$@\"\n",
            lab.path("be-slow"),
            lab.kwbase().display()
        );
        fs::write(&slow, text).unwrap();
        fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
        Self { lab, temp, case }
    }

    /// Adds a host with a certificate directory of its own to the cluster's file.
    fn add(&self) -> PathBuf {
        let name = self.lab.lab("add", &[]).stdout.trim().to_owned();
        let dir = self.lab.inside(&format!("{name}-certs"));
        let file = self.lab.cluster_file();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}certs_dir = \"{}\"\n", dir.display())).unwrap();
        dir
    }

    /// The file with who issues. `more` are further lines of the table.
    fn file(&self, ca_key: &Path, more: &str) -> String {
        let table = format!(
            "\n[certificates]\nca_host = \"n1\"\nca_key = \"{}\"\nprogram = \"{}\"\nnames = [\"db.example.com\"]\n{more}",
            ca_key.display(),
            self.lab.path("slow-kwbase")
        );
        self.lab.edited("issuing.toml", |text| format!("{text}{table}"))
    }

    fn issuing(&self) -> String {
        self.file(&self.lab.inside("certs/ca.key"), "")
    }

    fn kwscale(&self, args: &[&str]) -> Out {
        let file = self.lab.inside("issuing.toml").display().to_string();
        let all: Vec<&str> = ["--cluster", &file].into_iter().chain(args.iter().copied()).collect();
        self.case.start(&all, &[("TMPDIR", self.temp.to_str().unwrap())]).end(self.case)
    }

    fn plan(&self, args: &[&str]) -> String {
        let plan = self.lab.path("plan.json");
        let all: Vec<&str> =
            ["plan", "-o", &plan, "--wait-healthy", "90s"].into_iter().chain(args.iter().copied()).collect();
        self.kwscale(&all).exit(0);
        plan
    }

    /// Ends the apply of a plan while certificates are made.
    fn killed(&self, plan: &str) {
        let (slow, seen) = (self.lab.path("be-slow"), self.lab.path("be-slow.seen"));
        fs::write(&slow, "").unwrap();
        let file = self.lab.inside("issuing.toml").display().to_string();
        let args = ["--cluster", &file, "apply", plan, "--yes"];
        let mut running = self.case.start(&args, &[("TMPDIR", self.temp.to_str().unwrap())]);
        self.case.until("certificates are made", 60, || {
            assert!(running.runs(), "it ended too early:\n{}", running.stderr());
            Path::new(&seen).exists()
        });
        running.signal(Signal::KILL);
        drop(running);
        fs::remove_file(&slow).unwrap();
        fs::remove_file(&seen).unwrap();
    }

    /// Nothing temporary is left, here or beside `dir`, and no key of the authority.
    fn nothing_left(&self, dir: &Path) {
        let names = |dir: &Path| -> Vec<String> {
            let entries = fs::read_dir(dir).into_iter().flatten();
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names(&self.temp), Vec::<String>::new(), "in the temporary directory");
        let own = dir.file_name().unwrap().to_str().unwrap();
        for name in names(dir.parent().unwrap()).iter().filter(|n| n.starts_with(own)) {
            assert!(name == own || name.contains(".old-"), "{name} is left");
        }
        assert!(!dir.join("ca.key").exists(), "the authority's key was left on the new host");
    }

    fn installed(&self, dir: &Path) {
        self.nothing_left(dir);
        for name in FILES {
            let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if name.ends_with(".key") { 0o600 } else { 0o644 }, "{name}");
        }
        assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
        let flag = format!("--certs-dir={}", dir.display());
        let listed = self.case.run(&self.lab.kwbase(), &["cert", "list", &flag]).exit(0);
        listed.says(&["db.example.com", "127.0.0.1", "user: root"]);
    }
}

pub(crate) fn certificates_are_made(case: &Case) {
    let scene = Scene::new(case);
    let n4 = scene.add();

    // Nobody issues, another authority does, or the key is not there: nothing begins.
    scene
        .lab
        .kwscale(&["plan", "--certificates", "issue", "scale-out", "n4"])
        .exit(3)
        .says(&["certificates-authority", "cure"]);
    let other = scene.lab.path("other");
    let (dir, key) = (format!("--certs-dir={other}"), format!("--ca-key={other}/ca.key"));
    case.run(&scene.lab.kwbase(), &["cert", "create-ca", &dir, &key]).exit(0);
    scene.file(&Path::new(&other).join("ca.key"), "");
    scene
        .kwscale(&["plan", "--certificates", "issue", "scale-out", "n4"])
        .exit(3)
        .says(&["not the one that the cluster trusts", "cure"]);
    scene.file(&scene.lab.inside("certs/no.key"), "");
    scene.kwscale(&["plan", "--certificates", "issue", "scale-out", "n4"]).exit(3).says(&["cannot be read"]);
    // Nor where the key is another one, or nothing makes certificates there.
    fs::copy(format!("{other}/ca.key"), scene.lab.inside("certs/other.key")).unwrap();
    scene.file(&scene.lab.inside("certs/other.key"), "");
    scene
        .kwscale(&["check", "--certificates", "issue", "scale-out", "n4"])
        .exit(3)
        .says(&["certificates-authority", "its key is not that of its certificate"]);
    fs::remove_file(scene.lab.inside("certs/other.key")).unwrap();
    let file = scene.issuing();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("slow-kwbase", "no-kwbase")).unwrap();
    scene.kwscale(&["check", "--certificates", "issue", "scale-out", "n4"]).exit(3).says(&[
        "certificates-authority",
        "no-kwbase: the program is not there",
        "[certificates]",
    ]);
    scene.kwscale(&["check", "--certificates", "archive", "scale-out", "n4"]).exit(0);
    assert!(!n4.exists());

    // Issued where the key lies. What lay there, of another authority, is kept aside.
    scene.issuing();
    fs::create_dir(&n4).unwrap();
    fs::set_permissions(&n4, fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(format!("{other}/ca.crt"), n4.join("ca.crt")).unwrap();
    fs::copy(format!("{other}/ca.key"), n4.join("ca.key")).unwrap();
    fs::write(n4.join("notes.txt"), "not a certificate").unwrap();
    let plan = scene.plan(&["--certificates", "issue", "scale-out", "n4", "--no-await-balance"]);
    scene.kwscale(&["show", &plan]).exit(0).says(&["issue certificates for host n4"]);
    scene.kwscale(&["apply", &plan, "--yes"]).exit(0).says(&["old ones are kept in", ".old-"]);
    assert_eq!(scene.lab.status().members(), [1, 2, 3, 4]);
    scene.installed(&n4);
    assert!(n4.join("notes.txt").exists());
    let old: Vec<PathBuf> = fs::read_dir(scene.lab.inside(""))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_str().unwrap().contains("n4-certs.old-"))
        .collect();
    assert_eq!(old.len(), 1, "{old:?}");
    assert_eq!(fs::metadata(&old[0]).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read(old[0].join("ca.key")).unwrap(), fs::read(format!("{other}/ca.key")).unwrap());

    // The page's way.
    let n5 = scene.add();
    scene.issuing();
    let text = scene.kwscale(&["plan", "--certificates", "archive", "scale-out", "n5"]).exit(0);
    text.says(&["certificates-key-travels", "leaves host n1"]);
    let plan = scene.plan(&["--certificates", "archive", "scale-out", "n5", "--no-await-balance"]);
    scene.kwscale(&["apply", &plan, "--yes"]).exit(0);
    assert_eq!(scene.lab.status().members(), [1, 2, 3, 4, 5]);
    scene.installed(&n5);

    // Ended with SIGKILL while certificates are made: taken back, and begun again and gone on with.
    let n6 = scene.add();
    scene.issuing();
    let plan = scene.plan(&["--certificates", "issue", "scale-out", "n6", "--no-await-balance"]);
    scene.killed(&plan);
    scene.kwscale(&["resume", "--undo", "--yes"]).exit(0);
    std::thread::sleep(Duration::from_secs(4));
    scene.nothing_left(&n6);
    assert!(!n6.join("node.crt").exists());
    let plan = scene.plan(&["--certificates", "issue", "scale-out", "n6", "--no-await-balance"]);
    scene.killed(&plan);
    scene.kwscale(&["resume", "--yes"]).exit(0);
    assert_eq!(scene.lab.status().members(), [1, 2, 3, 4, 5, 6]);
    scene.installed(&n6);

    another_plan_after_a_kill(&scene);

    // A directory of two hosts is never touched.
    let shared = scene.lab.lab("add", &[]).stdout.trim().to_owned();
    scene.issuing();
    scene
        .kwscale(&["plan", "--certificates", "issue", "scale-out", &shared])
        .exit(2)
        .says(&["one certificate directory", "certs_dir"]);
}

/// A killed operation is not gone on with: what it left is told of, and removed before the next one begins.
fn another_plan_after_a_kill(scene: &Scene<'_>) {
    let n7 = scene.add();
    // Of an archive certificates are made on the host itself.
    let file = scene.issuing();
    let text = fs::read_to_string(&file).unwrap();
    let (others, own) = text.split_once("name = \"n7\"").unwrap();
    let slow = own.replacen(&scene.lab.kwbase().display().to_string(), &scene.lab.path("slow-kwbase"), 1);
    assert_ne!(own, slow);
    fs::write(&file, format!("{others}name = \"n7\"{slow}")).unwrap();
    let plan = scene.plan(&["--certificates", "archive", "scale-out", "n7", "--no-await-balance"]);
    scene.killed(&plan);
    scene.issuing();
    let journals = || {
        let entries = fs::read_dir(scene.lab.inside("kwscale-journal")).unwrap();
        let paths = entries.map(|e| e.unwrap().path());
        let mut list: Vec<PathBuf> = paths.filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
        list.sort();
        list
    };
    let killed = journals().pop().unwrap().display().to_string();
    // What it had begun over there ends by itself, and leaves the private keys that it made.
    let own = format!("{}.new-", n7.display());
    let beside = || {
        let entries = fs::read_dir(n7.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
        entries.filter(|p| p.to_str().unwrap().starts_with(&own)).collect::<Vec<_>>()
    };
    scene.case.until("the keys are made, and the authority's is gone", 60, || {
        beside().iter().any(|new| new.join("client.root.key").exists() && !new.join("ca.key").exists())
    });
    let [new] = beside().try_into().unwrap();
    fs::write(new.join("ca.key"), "as if its host had died").unwrap();
    fs::set_permissions(new.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (dir, key) = (new.display().to_string(), new.join("ca.key").display().to_string());
    scene.kwscale(&["hosts"]).exit(0).says(&[
        &format!("{dir} (mode 700, of "),
        &format!("{dir}/client.root.key (mode 600, of "),
        &format!("{key} (mode 644, of "),
    ]);
    scene.kwscale(&["check", "--certificates", "issue", "scale-out", "n7"]).exit(0).says(&[
        "host-leftovers",
        &dir,
        "goes on or was cut off",
        "ca-key-open",
        &format!("{key} (mode 644"),
    ]);

    let plan = scene.plan(&["--certificates", "issue", "scale-out", "n7", "--no-await-balance"]);
    scene.kwscale(&["apply", &plan, "--yes"]).exit(0).says(&[
        "has not ended",
        "at hand: ",
        &format!("--journal {killed}"),
        "--undo",
        "removed what plan",
        &dir,
    ]);
    assert_eq!(scene.lab.status().members(), [1, 2, 3, 4, 5, 6, 7]);
    scene.installed(&n7);

    // It is named, can be gone on with, and is not undone over what the newer one did.
    let out = scene.kwscale(&["resume", "--yes"]).exit(2);
    out.says(&[
        "no operation to resume",
        "an older one has not",
        &format!("--journal {killed}"),
        "cannot be taken back",
    ]);
    let out = scene.kwscale(&["resume", "--undo", "--yes", "--journal", &killed]).exit(3);
    out.says(&["is not undone", "host n7"]);
    scene.installed(&n7);
    scene.kwscale(&["resume", "--yes", "--journal", &killed]).exit(0);
    assert_eq!(scene.lab.status().members(), [1, 2, 3, 4, 5, 6, 7]);
    scene.installed(&n7);
    let out = scene.kwscale(&["resume", "--yes"]).exit(2).says(&["no operation to resume"]);
    assert!(!out.stderr.contains("an older one"), "{}", out.stderr);
    let out = scene.kwscale(&["resume", "--yes", "--journal", &killed]).exit(3);
    out.says(&["has ended"]);
}
