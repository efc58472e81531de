//! `kwbase cert`: certificates in files of this machine. No cluster has a part in it, so neither has the model.
//!
//! Words, order of checks, modes and lifetimes are those of KWDB V3.2.1.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::certificate::Certificate;

use super::print;
use crate::certs::{Authority, CA_HOURS, CERT_HOURS, Key};
use crate::cli::args::{Args, CLIENT, Flag};

const MAKE: &[Flag] = &[
    ("ca-key", "", true),
    ("lifetime", "", true),
    ("key-size", "", true),
    ("overwrite", "", false),
    ("allow-ca-key-reuse", "", false),
    ("also-generate-pkcs8-key", "", false),
];

/// Runs `kwbase cert …`; `args` begin with `cert`. The result is the exit code.
pub(super) fn main(args: &[String]) -> i32 {
    let (out, err, code) = answer(args);
    print(&out, &err);
    code
}

/// Output, error output and exit code.
fn answer(args: &[String]) -> (String, String, i32) {
    let fail = |text: String| (String::new(), text, 1);
    let sub = args.get(1).map(String::as_str).unwrap_or_default();
    let usage_of =
        |text: &str| text.split_once("Usage:").map_or(String::new(), |(_, u)| format!("Usage:{u}"));
    let Some(help) = help(sub) else {
        let all = include_str!("../cli/help/cert.txt");
        if matches!(sub, "--help" | "-h") {
            return (all.to_owned(), String::new(), 0);
        }
        let usage = usage_of(all);
        return fail(format!("{usage}ERROR: unknown sub-command: \"{sub}\"\nFailed running \"cert\"\n"));
    };
    let name = format!("cert {sub}");
    let args = match Args::parse(args.get(2..).unwrap_or_default(), &[CLIENT, MAKE]) {
        Ok(args) => args,
        Err(bad) => {
            let usage = usage_of(help);
            return fail(format!("{usage}\nERROR: {}\nFailed running \"{name}\"\n", bad.0));
        }
    };
    if args.is_set("help") {
        return (help.to_owned(), String::new(), 0);
    }
    match (Run { args }).command(sub, &name) {
        Ok(said) => (said, String::new(), 0),
        Err(text) => fail(format!("ERROR: {text}\nFailed running \"{name}\"\n")),
    }
}

fn help(sub: &str) -> Option<&'static str> {
    Some(match sub {
        "create-ca" => include_str!("../cli/help/cert_create_ca.txt"),
        "create-client-ca" => include_str!("../cli/help/cert_create_client_ca.txt"),
        "create-node" => include_str!("../cli/help/cert_create_node.txt"),
        "create-client" => include_str!("../cli/help/cert_create_client.txt"),
        "list" => include_str!("../cli/help/cert_list.txt"),
        _ => return None,
    })
}

struct Run {
    args: Args,
}

impl Run {
    fn command(&self, sub: &str, name: &str) -> Result<String, String> {
        let words: Vec<&str> = self.args.words.iter().map(String::as_str).collect();
        let none = |words: &[&str]| match words.first() {
            Some(word) => Err(format!("unknown command \"{word}\" for \"kwbase {name}\"")),
            None => Ok(()),
        };
        match sub {
            "create-ca" => {
                none(&words)?;
                self.create_ca("ca.crt", "CA").map_err(|e| format!("failed to generate CA cert and key: {e}"))
            }
            "create-client-ca" => {
                none(&words)?;
                self.create_ca("ca-client.crt", "client CA")
                    .map_err(|e| format!("failed to generate client CA cert and key: {e}"))
            }
            "create-node" if words.is_empty() => {
                Err("create-node requires at least one host name or address, none was specified".to_owned())
            }
            "create-node" => self
                .create_node(&words)
                .map_err(|e| format!("failed to generate node certificate and key: {e}")),
            "create-client" => match words.as_slice() {
                [user] => self
                    .create_client(&user.to_lowercase())
                    .map_err(|e| format!("failed to generate client certificate and key: {e}")),
                other => Err(format!("accepts 1 arg(s), received {}", other.len())),
            },
            _ => {
                none(&words)?;
                self.list()
            }
        }
    }

    fn dir(&self) -> String {
        let home = || std::env::home_dir().map(|home| home.join(".kwbase-certs").display().to_string());
        let given = self.args.get("certs-dir").map(str::to_owned);
        given.or_else(|| std::env::var("KWBASE_CERTS_DIR").ok()).or_else(home).unwrap_or_default()
    }

    fn ca_key(&self) -> Result<String, String> {
        let given = self.args.get("ca-key").map(str::to_owned);
        let path = given.or_else(|| std::env::var("KWBASE_CA_KEY").ok()).unwrap_or_default();
        if path.is_empty() { Err("the path to the CA key is required".to_owned()) } else { Ok(path) }
    }

    fn lifetime(&self, default: u64) -> Result<Duration, String> {
        let hours = Duration::from_secs(default * 3600);
        let Some(text) = self.args.get("lifetime") else { return Ok(hours) };
        let span: Result<jiff::SignedDuration, _> = text.parse();
        span.map(|s| s.unsigned_abs()).map_err(|_| {
            format!("invalid argument \"{text}\" for \"--lifetime\" flag: time: invalid duration \"{text}\"")
        })
    }

    fn new_key(&self) -> Result<Key, String> {
        let bits = self.args.get("key-size").and_then(|t| t.parse().ok()).unwrap_or(2048);
        Key::new(bits).map_err(|e| e.to_string())
    }

    fn write(&self, path: &str, mode: u32, content: &[u8]) -> Result<(), String> {
        let mut options = fs::OpenOptions::new();
        options.write(true).mode(mode);
        if self.args.is_set("overwrite") {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        let done = options.open(path).and_then(|mut file| file.write_all(content));
        done.map_err(|e| format!("open {path}: {}", words(&e)))
    }

    fn create_ca(&self, file: &str, who: &str) -> Result<String, String> {
        let key_path = self.ca_key()?;
        let dir = self.dir();
        if fs::metadata(&dir).is_err() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(|e| format!("mkdir {dir}: {}", words(&e)))?;
        }
        self.keys_are_private()?;
        let key = if fs::metadata(&key_path).is_ok() {
            if !self.args.is_set("allow-ca-key-reuse") {
                return Err(format!("CA key {key_path} exists, but key reuse is disabled"));
            }
            Key::read(Path::new(&key_path)).map_err(|e| format!("could not load CA key {key_path}: {e}"))?
        } else {
            let key = self.new_key()?;
            let pem = key.pkcs1_pem().map_err(|e| e.to_string())?;
            self.write(&key_path, 0o600, pem.as_bytes())
                .map_err(|e| format!("could not write {who} key to file {key_path}: {e}"))?;
            key
        };
        let (_, certificate) = Authority::new(&key, self.lifetime(CA_HOURS)?).map_err(|e| e.to_string())?;
        let path = format!("{dir}/{file}");
        // An older certificate stays behind the new one.
        let older = fs::read_to_string(&path).unwrap_or_default();
        self.write(&path, 0o644, format!("{certificate}{older}").as_bytes())
            .map_err(|e| format!("could not write {who} certificate file {path}: {e}"))?;
        Ok(String::new())
    }

    /// The authority, if it lasts for so long.
    fn authority(&self, what: &str, lifetime: Duration) -> Result<Authority, String> {
        let key_path = self.ca_key()?;
        let ca_path = format!("{}/ca.crt", self.dir());
        let loading =
            |why: String| format!("error loading CA certificate {ca_path} and key {key_path}: {why}");
        let ca =
            fs::read_to_string(&ca_path).map_err(|e| loading(format!("open {ca_path}: {}", words(&e))))?;
        let key_text =
            fs::read_to_string(&key_path).map_err(|e| loading(format!("open {key_path}: {}", words(&e))))?;
        if !key_text.contains("PRIVATE KEY-----") {
            return Err(loading(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input".to_owned(),
            ));
        }
        let key = Key::read(Path::new(&key_path)).map_err(|e| loading(e.to_string()))?;
        let certificate = Certificate::from_pem(&ca).map_err(|e| loading(e.to_string()))?;
        let authority = Authority::of(&key, Path::new(&ca_path)).map_err(|e| loading(e.to_string()))?;
        if !authority.fits(Path::new(&ca_path)).unwrap_or(false) {
            return Err(loading("tls: private key does not match public key".to_owned()));
        }
        let left = certificate.not_after.duration_since(Timestamp::now()).unsigned_abs();
        if left < lifetime {
            return Err(format!(
                "error creating {what} and key: CA lifetime is {:.6}h, shorter than the requested {:.6}h. Renew CA \
                 certificate, or rerun with --lifetime={}h for a shorter duration.",
                left.as_secs_f64() / 3600.0,
                lifetime.as_secs_f64() / 3600.0,
                left.as_secs() / 3600
            ));
        }
        Ok(authority)
    }

    fn create_node(&self, hosts: &[&str]) -> Result<String, String> {
        self.ca_key()?;
        self.keys_are_private()?;
        let what = "node server certificate";
        let lifetime = self.lifetime(CERT_HOURS)?;
        let authority = self.authority(what, lifetime)?;
        let key = self.new_key()?;
        let certificate = authority.node(&key, hosts, lifetime).map_err(|e| e.to_string())?;
        let (path, key_path) = (format!("{}/node.crt", self.dir()), format!("{}/node.key", self.dir()));
        self.pair(what, "node", (&path, &certificate), (&key_path, &key))?;
        Ok(String::new())
    }

    fn create_client(&self, user: &str) -> Result<String, String> {
        self.ca_key()?;
        let mut letters = user.chars();
        let first = letters.next().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if !first || user.len() > 63 || letters.any(|c| !(c.is_alphanumeric() || "-_.".contains(c))) {
            return Err(format!(
                "username \"{user}\" invalid\nSQLSTATE: 42602\nHINT: Usernames are case insensitive, must start with a \
                 letter, digit or underscore, may contain letters, digits, dashes, periods, or underscores, and must \
                 not exceed 63 characters."
            ));
        }
        self.keys_are_private()?;
        let what = "client certificate";
        let lifetime = self.lifetime(CERT_HOURS)?;
        let authority = self.authority(what, lifetime)?;
        let key = self.new_key()?;
        let certificate = authority.client(&key, user, lifetime).map_err(|e| e.to_string())?;
        let base = format!("{}/client.{user}", self.dir());
        let (path, key_path) = (format!("{base}.crt"), format!("{base}.key"));
        self.pair(what, "client", (&path, &certificate), (&key_path, &key))?;
        if self.args.is_set("also-generate-pkcs8-key") {
            let pk8 = format!("{key_path}.pk8");
            let der = key.pkcs8_der().map_err(|e| e.to_string())?;
            self.write(&pk8, 0o600, &der)
                .map_err(|e| format!("error writing client PKCS8 key to {pk8}: {e}"))?;
        }
        Ok(String::new())
    }

    fn pair(
        &self,
        what: &str,
        whose: &str,
        (path, certificate): (&str, &str),
        (key_path, key): (&str, &Key),
    ) -> Result<(), String> {
        self.write(path, 0o644, certificate.as_bytes())
            .map_err(|e| format!("error writing {what} to {path}: {e}"))?;
        let pem = key.pkcs1_pem().map_err(|e| e.to_string())?;
        self.write(key_path, 0o600, pem.as_bytes())
            .map_err(|e| format!("error writing {whose} key to {key_path}: {e}"))
    }

    /// Every command loads the directory first, and one key that others may read spoils it.
    fn keys_are_private(&self) -> Result<(), String> {
        for (certificate, key) in self.pairs() {
            let Ok(meta) = fs::metadata(&key) else { continue };
            let mode = meta.permissions().mode() & 0o777;
            if fs::metadata(&certificate).is_ok() && mode & 0o077 != 0 {
                return Err(format!(
                    "key file {key} has permissions {}, exceeds -rwx------",
                    permissions(mode)
                ));
            }
        }
        Ok(())
    }

    /// Certificate and key of node and clients, by name.
    fn pairs(&self) -> Vec<(String, String)> {
        let dir = self.dir();
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|e| e.file_name().into_string().ok())
            .filter_map(|n| n.strip_suffix(".crt").map(str::to_owned))
            .filter(|n| n == "node" || n.starts_with("client."))
            .collect();
        names.sort_by_key(|n| (n != "node", n.clone()));
        names.into_iter().map(|n| (format!("{dir}/{n}.crt"), format!("{dir}/{n}.key"))).collect()
    }

    fn list(&self) -> Result<String, String> {
        let dir = self.dir();
        self.keys_are_private().map_err(|e| format!("cannot load certificates: {e}"))?;
        let mut text = format!(
            "Certificate directory: {dir}\nUsage\tCertificate File\tKey File\tExpires\tNotes\tError\n"
        );
        let ca = [(format!("{dir}/ca.crt"), String::new())];
        for (path, key) in ca.into_iter().chain(self.pairs()) {
            let Ok(pem) = fs::read_to_string(&path) else { continue };
            let file = path.rsplit('/').next().unwrap_or_default();
            let key_file = key.rsplit('/').next().filter(|_| fs::metadata(&key).is_ok());
            let user = file.strip_prefix("client.").and_then(|f| f.strip_suffix(".crt"));
            let (usage, notes) = match (file, user) {
                ("ca.crt", _) => ("CA", format!("num certs: {}", pem.matches("-----BEGIN").count())),
                (_, Some(user)) => ("Client", format!("user: {user}")),
                _ => {
                    let names = Certificate::from_pem(&pem).map(|c| c.names).unwrap_or_default();
                    // Names first, then addresses.
                    let is_ip = |n: &String| n.parse::<std::net::IpAddr>().is_ok();
                    let (ips, dns): (Vec<String>, Vec<String>) = names.into_iter().partition(is_ip);
                    ("Node", format!("addresses: {}", [dns, ips].concat().join(",")))
                }
            };
            let (expires, error) = match Certificate::from_pem(&pem) {
                Ok(certificate) => {
                    (certificate.not_after.strftime("%Y/%m/%d").to_string(), "\"\"".to_owned())
                }
                Err(e) => ("\"\"".to_owned(), e.to_string()),
            };
            text +=
                &format!("{usage}\t{file}\t{}\t{expires}\t{notes}\t{error}\n", key_file.unwrap_or("\"\""));
        }
        Ok(text)
    }
}

/// As Go prints a mode.
fn permissions(mode: u32) -> String {
    let letters = "rwxrwxrwx".chars().enumerate();
    let text: String = letters.map(|(i, c)| if mode & (0o400 >> i) != 0 { c } else { '-' }).collect();
    format!("-{text}")
}

/// The operating system's words, as Go prints them.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists => "file exists".to_owned(),
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What V3.2.1 said, each command in the state that the ones before it left: exit code and the line with the error.
    const SAID: &[(&str, i32, &str)] = &[
        (
            "create-ca --certs-dir=c",
            1,
            "failed to generate CA cert and key: the path to the CA key is required",
        ),
        ("create-ca --certs-dir=c --ca-key=c/ca.key", 0, ""),
        (
            "create-ca --certs-dir=c --ca-key=c/ca.key",
            1,
            "failed to generate CA cert and key: CA key c/ca.key exists, but key reuse is disabled",
        ),
        (
            "create-ca --certs-dir=c --ca-key=c/ca.key --allow-ca-key-reuse",
            1,
            "failed to generate CA cert and key: could not write CA certificate file c/ca.crt: open c/ca.crt: file exists",
        ),
        ("create-ca --certs-dir=d --ca-key=c/ca.key --allow-ca-key-reuse", 0, ""),
        (
            "create-node --certs-dir=c --ca-key=c/ca.key",
            1,
            "create-node requires at least one host name or address, none was specified",
        ),
        ("create-node --certs-dir=c --ca-key=c/ca.key a.example.com 10.0.0.1 localhost ::1", 0, ""),
        (
            "create-node --certs-dir=c --ca-key=c/ca.key a",
            1,
            "failed to generate node certificate and key: error writing node server certificate to c/node.crt: open \
             c/node.crt: file exists",
        ),
        (
            "create-node --certs-dir=c --ca-key=c/none.key --overwrite a",
            1,
            "failed to generate node certificate and key: error loading CA certificate c/ca.crt and key c/none.key: open \
             c/none.key: no such file or directory",
        ),
        (
            "create-node --certs-dir=none --ca-key=c/ca.key a",
            1,
            "failed to generate node certificate and key: error loading CA certificate none/ca.crt and key c/ca.key: open \
             none/ca.crt: no such file or directory",
        ),
        ("create-node --nope", 1, "unknown flag: --nope"),
        ("create-client --certs-dir=c --ca-key=c/ca.key", 1, "accepts 1 arg(s), received 0"),
        ("create-client root --certs-dir=c --ca-key=c/ca.key", 0, ""),
        (
            "create-client root --certs-dir=c --ca-key=c/ca.key",
            1,
            "failed to generate client certificate and key: error writing client certificate to c/client.root.crt: open \
             c/client.root.crt: file exists",
        ),
        ("create-client root --certs-dir=c --ca-key=c/ca.key --overwrite --also-generate-pkcs8-key", 0, ""),
        (
            "create-client Root/.. --certs-dir=c --ca-key=c/ca.key",
            1,
            "failed to generate client certificate and key: username \"root/..\" invalid",
        ),
        ("list --certs-dir=c", 0, ""),
        ("list --certs-dir=none", 0, ""),
        ("list x", 1, "unknown command \"x\" for \"kwbase cert list\""),
        ("bogus", 1, "unknown sub-command: \"bogus\""),
    ];

    /// On the twin; and with `KWDB_SCALE_KWBASE` on a real kwbase too, so that neither the twin nor this table drifts.
    #[test]
    fn says_what_kwbase_says() {
        let tmp = tempfile::tempdir().unwrap();
        let real = std::env::var_os("KWDB_SCALE_KWBASE");
        let here = |word: &str, root: &str| {
            word.replace("=c", &format!("={root}/c")).replace("=d", &format!("={root}/d"))
        };
        for who in [None, real.as_ref()].into_iter().take(1 + usize::from(real.is_some())) {
            let root = tmp.path().join(if who.is_some() { "real" } else { "twin" }).display().to_string();
            fs::create_dir(&root).unwrap();
            let mut listed = String::new();
            for (line, code, error) in SAID {
                let words =
                    line.split(' ').map(|w| here(w, &root).replace("=none", &format!("={root}/none")));
                let args: Vec<String> = ["cert".to_owned()].into_iter().chain(words).collect();
                let (out, err, got) = match who {
                    None => answer(&args),
                    Some(program) => {
                        let o = Command::new(program).args(&args).output().unwrap();
                        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                        (text(&o.stdout), text(&o.stderr), o.status.code().unwrap())
                    }
                };
                let said = err.lines().find_map(|l| l.strip_prefix("ERROR: ")).unwrap_or_default();
                assert_eq!(
                    (got, said.replace(&format!("{root}/"), "").as_str()),
                    (*code, *error),
                    "{line} {who:?}"
                );
                if line.starts_with("list --certs-dir=c") {
                    listed = out;
                }
            }
            let lines: Vec<&str> = listed.lines().collect();
            assert_eq!(lines[1], "Usage\tCertificate File\tKey File\tExpires\tNotes\tError");
            assert!(lines[2].starts_with("CA\tca.crt\t\"\"\t") && lines[2].ends_with("\tnum certs: 1\t\"\""));
            assert!(lines[3].starts_with("Node\tnode.crt\tnode.key\t"), "{listed}");
            assert!(
                lines[3].ends_with("\taddresses: a.example.com,localhost,10.0.0.1,::1\t\"\""),
                "{listed}"
            );
            assert!(lines[4].starts_with("Client\tclient.root.crt\tclient.root.key\t"), "{listed}");
            for (file, mode) in
                [("ca.crt", 0o644), ("ca.key", 0o600), ("node.key", 0o600), ("client.root.key.pk8", 0o600)]
            {
                let found = fs::metadata(format!("{root}/c/{file}")).unwrap().permissions().mode();
                assert_eq!(found & 0o777, mode, "{file} {who:?}");
            }
            assert_eq!(fs::metadata(format!("{root}/c")).unwrap().permissions().mode() & 0o777, 0o700);
            let read = |file: &str| {
                Certificate::from_pem(&fs::read_to_string(format!("{root}/c/{file}")).unwrap()).unwrap()
            };
            assert!(read("node.crt").names_as_issuer(&read("ca.crt")));
            // One key that others may read spoils the directory.
            fs::set_permissions(format!("{root}/c/node.key"), fs::Permissions::from_mode(0o640)).unwrap();
            let args = ["cert", "list", &format!("--certs-dir={root}/c")].map(str::to_owned);
            if who.is_none() {
                assert!(answer(&args).1.contains("node.key has permissions -rw-r-----, exceeds -rwx------"));
            }
        }
    }

    #[test]
    fn an_authority_is_not_outlived_and_must_fit_its_key() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().display().to_string();
        let run = |words: &str| {
            let words = words.split(' ').map(|w| w.replace("ROOT", &root));
            answer(&["cert".to_owned()].into_iter().chain(words).collect::<Vec<_>>())
        };
        assert_eq!(run("create-ca --certs-dir=ROOT/c --ca-key=ROOT/c/ca.key --lifetime=100h").2, 0);
        let (_, err, code) = run("create-node --certs-dir=ROOT/c --ca-key=ROOT/c/ca.key a");
        assert!(code == 1 && err.contains("CA lifetime is 99.99") && err.contains("--lifetime=99h"), "{err}");
        assert_eq!(run("create-node --certs-dir=ROOT/c --ca-key=ROOT/c/ca.key --lifetime=99h a").2, 0);
        assert_eq!(run("create-ca --certs-dir=ROOT/d --ca-key=ROOT/d/ca.key").2, 0);
        let (_, err, code) = run("create-client --certs-dir=ROOT/c --ca-key=ROOT/d/ca.key root");
        assert!(code == 1 && err.contains("private key does not match public key"), "{err}");
    }
}
