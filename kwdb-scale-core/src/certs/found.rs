//! The archive of certificates as it lies on a host: looked into there, and its key neither shown nor moved.

use super::archive::{FILE_MAX, PACKED_MAX};
use crate::certificate::Certificate;

/// A shell function that looks into the archive at `$1`, with `emit` and `bound` of the probe. It gives one of the items
/// `Aabsent`, `Aother` (no file), `Adenied` and `Atools` (no tar or no gzip there), or `A` and the listing, and `C` and the
/// certificate of `ca.crt`, and `B` and whether `ca.key` is its key: `yes`, `no`, `none` (no private key), or nothing where the host
/// has no openssl, or too old a one. In the listing a line is the kind of an entry and the last word of its name; the last one is tar's
/// exit code. The script opens the archive as root, so that is tried where the user may not read it.
pub(crate) fn function() -> String {
    LOOK.replace("@PACKED@", &(PACKED_MAX + 1).to_string()).replace("@FILE@", &FILE_MAX.to_string())
}

const LOOK: &str = r#"
archive() {
  as= archive=$1
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then emit Aabsent; return 0; fi
  if [ ! -f "$1" ]; then emit Aother; return 0; fi
  if [ ! -r "$1" ]; then
    if bound sudo -n head -c 1 "$1" >/dev/null 2>&1; then as='sudo -n'; else emit Adenied; return 0; fi
  fi
  for tool in tar gzip; do
    command -v "$tool" >/dev/null 2>&1 || { emit Atools; return 0; }
  done
  emit "A$({ packed | bound tar -tvzf - 2>/dev/null; echo "$?"; } | head -c 4096 |
    sed 's/^\(.\).* \(\.\/\)\{0,1\}/\1 /' | tr -d '\000')"
  # By either of its names: tar complains of the one that is not there.
  pem=$(entry ca.crt | tr -d '\000' | sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p')
  emit "C$pem"
  of_certificate=$(printf '%s\n' "$pem" | bound openssl x509 -noout -pubkey 2>/dev/null)
  of_key=$(entry ca.key | bound openssl pkey -pubout -passin pass: 2>/dev/null)
  case $of_certificate,$of_key in
  ,*) ;;
  *,) entry ca.key | grep -q -e '-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----' || emit Bnone ;;
  *) if [ "$of_certificate" = "$of_key" ]; then emit Byes; else emit Bno; fi ;;
  esac
}
entry() { packed | bound tar -xzOf - "$1" "./$1" 2>/dev/null | head -c @FILE@; }
packed() { bound $as head -c @PACKED@ "$archive" 2>/dev/null; }
"#;

/// The directory itself, and what must be there besides.
const DIRECTORY: &str = "d ";
const WANTED: [&str; 2] = ["- ca.crt", "- ca.key"];
/// Exit codes of what `timeout` ended.
const TOO_LONG: [&str; 3] = ["124", "137", "143"];
/// How many entries are shown.
const SHOWN: usize = 5;

/// What lies where the archive is to lie. Reasons are told of the archive: `is …`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Found {
    /// Nothing.
    #[default]
    Absent,
    /// Something that could not be looked into.
    Unknown(String),
    /// What `deploy.sh join` cannot use: the script extracts it as root, and with more in it fails.
    Unusable(String),
    /// An archive of `ca.crt` and `ca.key` alone, of this authority.
    Of(Box<Certificate>),
}

impl Found {
    /// Reads the items of the function among others.
    pub(crate) fn read<'a>(items: impl Iterator<Item = &'a str> + Clone) -> Self {
        let one = |tag| items.clone().find_map(|item| item.strip_prefix(tag));
        let alone = |what: &str| Self::Unusable(format!("is no archive of ca.crt and ca.key alone: {what}"));
        let listing = match one('A') {
            None | Some("absent") => return Self::Absent,
            Some("other") => return alone("it is no file"),
            Some("denied") => return Self::Unknown("it may not be read".to_owned()),
            Some("tools") => return Self::Unknown("the host has no tar or no gzip".to_owned()),
            Some(listing) => listing,
        };
        let mut lines: Vec<&str> = listing.lines().collect();
        let code = lines.pop().unwrap_or_default();
        if TOO_LONG.contains(&code) {
            return Self::Unknown("to unpack it took too long".to_owned());
        }
        lines.retain(|line| *line != DIRECTORY);
        lines.sort_unstable();
        if lines != WANTED {
            let names = lines.iter().take(SHOWN).map(|line| {
                let name: String = line.chars().skip(2).take(80).collect();
                name.escape_debug().to_string()
            });
            let names: Vec<String> = names.collect();
            return match names.len() {
                0 => alone("tar finds nothing in it"),
                _ => alone(&format!("it holds {}", names.join(", "))),
            };
        }
        if code != "0" {
            return alone("it is damaged");
        }
        match (Certificate::from_pem(one('C').unwrap_or_default()), one('B')) {
            (Ok(_), Some("no")) => {
                Self::Unusable("holds a ca.key that is not the key of its ca.crt".to_owned())
            }
            (Ok(_), Some("none")) => Self::Unusable("holds a ca.key that is no private key".to_owned()),
            (Ok(certificate), _) => Self::Of(Box::new(certificate)),
            (Err(e), _) => Self::Unusable(format!("holds a ca.crt that is none: {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::host_facts::probe::COMMON;

    /// It looks like a key; openssl does not read it, which tells nothing.
    const KEY: &[u8] = b"-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n";

    fn certificate() -> Vec<u8> {
        fs::read(format!("{}/tests/data/certs/ca.crt", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    /// A new authority's certificate and key; `None` where there is no openssl.
    fn authority(dir: &Path) -> Option<[Vec<u8>; 2]> {
        let (crt, key) = (dir.join("made.crt"), dir.join("made.key"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/O=KWDB/CN=KWDB CA",
                "-days",
                "30",
            ])
            .args([OsStr::new("-out"), crt.as_ref(), OsStr::new("-keyout"), key.as_ref()])
            .output();
        assert!(made.is_ok() || std::env::var_os("CI").is_none(), "openssl is not installed");
        let made = made.is_ok_and(|output| output.status.success());
        made.then(|| [crt, key].map(|file| fs::read(file).unwrap()))
    }

    #[test]
    fn the_key_is_that_of_the_certificate() {
        let dir = std::env::temp_dir().join(format!("kwdb-archive-keys-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let Some([crt, key]) = authority(&dir) else {
            eprintln!("not run, because openssl is not installed: whether a key fits its certificate");
            return;
        };
        let [_, other] = authority(&dir).unwrap();
        let file = dir.join("kaiwudb_certs.tar.gz");
        for shell in shells() {
            for (key, fault) in [
                (&key[..], None),
                (&other[..], Some("a ca.key that is not the key of its ca.crt")),
                (b"", Some("a ca.key that is no private key")),
                (b"garbage", Some("a ca.key that is no private key")),
            ] {
                fs::write(&file, packed(&[("./ca.crt", &crt), ("./ca.key", key)])).unwrap();
                match (found(&shell, file.to_str().unwrap(), ""), fault) {
                    (Found::Of(_), None) => {}
                    (Found::Unusable(why), Some(words)) => assert!(why.contains(words), "{shell:?}: {why}"),
                    (other, _) => panic!("{shell:?}: {fault:?}: {other:?}"),
                }
            }
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    /// A name that ends in a slash is a directory's.
    fn packed(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(if name.ends_with('/') {
                tar::EntryType::Directory
            } else {
                tar::EntryType::Regular
            });
            header.set_mode(0o600);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn shells() -> Vec<Vec<&'static str>> {
        let all = [&["sh"][..], &["bash", "--posix"], &["busybox", "sh"]];
        let there = |words: &&&[&str]| {
            let mut probe = Command::new(words[0]);
            probe.args(&words[1..]).args(["-c", "true"]).stderr(Stdio::null());
            probe.status().is_ok_and(|s| s.success())
        };
        all.iter().filter(there).map(|words| words.to_vec()).collect()
    }

    /// What is found at `path`; nothing of a key is told.
    fn found(shell: &[&str], path: &str, more: &str) -> Found {
        let script = format!("{COMMON}{more}{}archive \"$1\"", function());
        let output =
            Command::new(shell[0]).args(&shell[1..]).args(["-c", &script, "sh", path]).output().unwrap();
        assert!(output.stderr.is_empty(), "{shell:?}: {}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!stdout.contains("c2VjcmV0"), "{shell:?}: {stdout}");
        Found::read(stdout.split_terminator('\0'))
    }

    #[test]
    fn what_lies_there() {
        let dir = std::env::temp_dir().join(format!("kwdb-archive-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("kaiwudb_certs.tar.gz");
        let path = file.to_str().unwrap();
        let ca = certificate();
        let whole = packed(&[("./ca.key", KEY), ("./ca.crt", &ca)]);
        let both = [&ca[..], KEY].concat();
        let noise: Vec<u8> =
            (0..60_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let long: Vec<(&str, &[u8])> =
            vec![("ca.crt", &noise), ("ca.key", &noise), ("a", &noise), ("b", &noise), ("c", &noise)];
        let many: Vec<(String, &[u8])> = (0..400).map(|n| (format!("file-{n}"), &b""[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(name, content)| (name.as_str(), *content)).collect();
        for shell in shells() {
            assert_eq!(found(&shell, path, ""), Found::Absent, "{shell:?}");
            for good in [
                whole.clone(),
                packed(&[("ca.crt", &ca), ("ca.key", KEY)]),
                packed(&[("./", b""), ("./ca.crt", &ca), ("./ca.key", KEY)]),
                // A key beside the certificate, too, is not told.
                packed(&[("ca.crt", &both), ("ca.key", KEY)]),
            ] {
                fs::write(&file, good).unwrap();
                let Found::Of(of) = found(&shell, path, "") else { panic!("{shell:?}: a good archive") };
                assert_eq!(*of, Certificate::from_pem(&String::from_utf8_lossy(&ca)).unwrap(), "{shell:?}");
            }
            let cut = whole.len() - 40;
            for (bad, words) in [
                (b"garbage".to_vec(), "tar finds nothing"),
                (Vec::new(), "tar finds nothing"),
                (whole[..cut].to_vec(), "alone"),
                (packed(&[("ca.crt", &ca)]), "it holds ca.crt"),
                (packed(&[("ca.crt", &ca), ("ca.key", KEY), ("node.crt", &ca)]), "ca.crt, ca.key, node.crt"),
                (packed(&[("../ca.crt", &ca), ("ca.key", KEY)]), "alone"),
                (packed(&[("ca.crt", KEY), ("ca.key", KEY)]), "a ca.crt that is none"),
                (packed(&[("ca.crt", b""), ("ca.key", KEY)]), "a ca.crt that is none"),
                (packed(&long), "alone"),
                (packed(&many), "file-0"),
            ] {
                fs::write(&file, &bad).unwrap();
                match found(&shell, path, "") {
                    Found::Unusable(why) => assert!(why.contains(words), "{shell:?}: {words}: {why}"),
                    other => panic!("{shell:?}: {words}: {other:?}"),
                }
            }
            // What is needed to look is not there, or does not come back.
            fs::write(&file, &whole).unwrap();
            for (more, words) in [
                ("command() { [ \"$2\" != gzip ]; }\n", "no tar or no gzip"),
                (
                    "tar() { sleep 9; }\nbound() { if [ \"$1\" = tar ]; then (exit 124); else \"$@\"; fi; }\n",
                    "too long",
                ),
            ] {
                match found(&shell, path, more) {
                    Found::Unknown(why) => assert!(why.contains(words), "{shell:?}: {words}: {why}"),
                    other => panic!("{shell:?}: {words}: {other:?}"),
                }
            }
            fs::remove_file(&file).unwrap();
            // Nobody writes into it.
            let made = Command::new("mkfifo").arg(&file).status().unwrap();
            assert!(made.success());
            let begun = Instant::now();
            assert!(matches!(found(&shell, path, ""), Found::Unusable(why) if why.contains("no file")));
            assert!(begun.elapsed() < Duration::from_secs(4));
            fs::remove_file(&file).unwrap();
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_archive_that_may_not_be_read() {
        assert_eq!(Found::read(["Adenied"].into_iter()), Found::Unknown("it may not be read".to_owned()));
        assert_eq!(Found::read(["S+", "E"].into_iter()), Found::Absent);
    }
}
