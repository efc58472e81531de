//! Looking at a host in one round trip: a fixed shell script that changes nothing, and the reading of its answer.
//!
//! The script is a constant; paths reach it as positional arguments only. It answers in items that end with a NUL
//! byte and begin with a letter, so that no file name, however strange, can be taken for something else:
//!
//! | item | meaning |
//! |---|---|
//! | `S<state>` | the next directory: `absent`, `dir`, `denied`, or `other` (neither absent nor a directory) |
//! | `N<name>` | an entry of it; names that KWDB uses come first; at most twelve |
//! | `C+` or `C-<name>` | a file of the certificate directory can be read, or cannot |
//! | `T`, `L<hex>` | the kernel's table of sockets could be read; a port in it that listens |
//! | `E` | the end; an answer without it was cut off and counts for nothing |

use super::command::CommandLine;
use super::host::{KwbaseHost, Security};
use crate::fact::Fact;
use crate::ports::{StoreContent, StoreFacts};
use crate::topology::Address;

const SCRIPT: &str = r#"
emit() { printf '%s\0' "$1"; }
entries() (
  cd "$1" || exit 1
  count=0
  for name in kwbase.start_mode CURRENT STORAGE_VERSION auxiliary logs tsdb raft .[!.]* ..?* *; do
    [ -e "$name" ] || [ -L "$name" ] || continue
    [ "$name" = lost+found ] && continue
    emit "N$name"
    count=$((count + 1))
    [ "$count" -lt 12 ] || break
  done
)
certs=$1
shift
for dir do
  if [ -d "$dir" ]; then
    if [ -r "$dir" ] && [ -x "$dir" ]; then emit Sdir; entries "$dir"; else emit Sdenied; fi
  elif [ -e "$dir" ] || [ -L "$dir" ]; then
    emit Sother
  else
    parent=$dir
    while [ ! -e "$parent" ]; do
      parent=${parent%/*}
      [ -n "$parent" ] || parent=/
    done
    if [ -d "$parent" ] && [ -x "$parent" ]; then emit Sabsent; else emit Sdenied; fi
  fi
done
if [ -n "$certs" ]; then
  for file in ca.crt client.root.crt client.root.key; do
    if [ -f "$certs/$file" ] && [ -r "$certs/$file" ]; then emit "C+$file"; else emit "C-$file"; fi
  done
fi
for table in /proc/net/tcp /proc/net/tcp6; do
  [ -r "$table" ] || continue
  emit T
  while read -r slot local remote state rest; do
    if [ "$state" = 0A ]; then emit "L${local##*:}"; fi
  done < "$table"
done
emit E
"#;

/// How many names a store in use is reported with.
const NAMES: usize = 10;

/// The script's command line for `host`.
pub(super) fn command(host: &KwbaseHost) -> CommandLine {
    let certs = match &host.security {
        Security::Insecure => String::new(),
        Security::Certs { certs_dir } => certs_dir.clone(),
    };
    // A slash at the end would let the search for an existing parent stop at the directory's own name.
    let dirs = host.data_directories().into_iter().map(|d| d.trim_end_matches('/').to_owned());
    let fixed = ["sh", "-c", SCRIPT, "sh"].map(str::to_owned);
    host.program("inspect", fixed.into_iter().chain([certs]).chain(dirs))
}

/// What the script found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) stores: Vec<StoreFacts>,
    pub(super) can_authenticate: Fact<bool>,
    /// Ports that listen in the network namespace in which the script ran.
    pub(super) ports: Fact<Vec<u16>>,
}

impl Found {
    /// Nothing is known, for one reason.
    pub(super) fn nothing(host: &KwbaseHost, why: &str) -> Self {
        let store = |path: &str| StoreFacts { path: path.to_owned(), content: Fact::unknown(why) };
        Self {
            stores: host.data_directories().into_iter().map(store).collect(),
            can_authenticate: if host.secure() { Fact::unknown(why) } else { Fact::Known(true) },
            ports: Fact::unknown(why),
        }
    }
}

/// Reads the script's answer.
pub(super) fn read(host: &KwbaseHost, stdout: &str) -> Found {
    let items: Vec<&str> = stdout.split_terminator('\0').collect();
    if items.last() != Some(&"E") {
        return Found::nothing(host, "the answer of the host was cut off");
    }
    let mut contents: Vec<Fact<StoreContent>> = Vec::new();
    let (mut readable, mut unreadable) = (0, 0);
    let mut ports: Option<Vec<u16>> = None;
    for item in items {
        let mut rest = item.chars();
        let tag = rest.next();
        let value = rest.as_str();
        match tag {
            Some('S') => contents.push(match value {
                "dir" => Fact::Known(StoreContent::Empty),
                "absent" => Fact::Known(StoreContent::Absent),
                "denied" => Fact::unknown("the user that runs kwbase may not look into it"),
                "other" => Fact::unknown("it is no directory (a file, or a link that leads nowhere)"),
                other => Fact::unknown(format!("the host said '{}'", other.escape_debug())),
            }),
            Some('N') => {
                let name: String = value.escape_debug().take(80).collect();
                match contents.last_mut() {
                    Some(Fact::Known(StoreContent::InUse(names))) => {
                        let more = names.len() < NAMES && !names.contains(&name);
                        names.extend(more.then_some(name));
                    }
                    Some(last) => *last = Fact::Known(StoreContent::InUse(vec![name])),
                    None => {}
                }
            }
            Some('C') if value.starts_with('+') => readable += 1,
            Some('C') => unreadable += 1,
            Some('T') => {
                ports.get_or_insert_default();
            }
            Some('L') => {
                if let (Some(ports), Ok(port)) = (&mut ports, u16::from_str_radix(value, 16)) {
                    ports.push(port);
                }
            }
            _ => {}
        }
    }
    let unanswered = || Fact::unknown("the host did not say");
    let mut contents = contents.into_iter();
    let stores = host.data_directories().into_iter().map(|path| StoreFacts {
        path: path.to_owned(),
        content: contents.next().unwrap_or_else(unanswered),
    });
    Found {
        stores: stores.collect(),
        can_authenticate: match (host.secure(), readable, unreadable) {
            (false, _, _) => Fact::Known(true),
            (true, 3, 0) => Fact::Known(true),
            (true, _, 1..) => Fact::Known(false),
            (true, _, _) => Fact::unknown("the host did not say"),
        },
        ports: Fact::from_option(ports, "the host has no /proc/net/tcp"),
    }
}

/// Those of `addresses` whose port is among `ports`.
pub(super) fn listening(addresses: Vec<Address>, ports: &[u16]) -> Vec<Address> {
    addresses.into_iter().filter(|a| a.port().is_some_and(|p| ports.contains(&p))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::kwbase::StoreSpec;

    fn run(host: &KwbaseHost) -> Found {
        let line = command(host);
        let output = Command::new(&line.argv()[0]).args(&line.argv()[1..]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        read(host, &String::from_utf8_lossy(&output.stdout))
    }

    fn host(dirs: &[&Path]) -> KwbaseHost {
        let mut host = KwbaseHost::new("h", Security::Insecure);
        host.stores = dirs.iter().map(|d| StoreSpec::new(d.to_str().unwrap())).collect();
        host
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("kwbase-inspect-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn stores_as_a_real_shell_sees_them() {
        let root = scratch("stores");
        let (empty, used, file) = (root.join("empty dir"), root.join("used"), root.join("file"));
        std::fs::create_dir_all(empty.join("lost+found")).unwrap();
        std::fs::create_dir_all(&used).unwrap();
        std::fs::write(&file, "").unwrap();
        for name in
            ["000001.sst", "kwbase.start_mode", "CURRENT", ".hidden", "two\nlines", "-n", "E", "$(id)"]
        {
            std::fs::write(used.join(name), "").unwrap();
        }
        let missing = root.join("no/such");
        let found = run(&host(&[&empty, &used, &missing, &file]));
        std::fs::remove_dir_all(&root).unwrap();

        assert_eq!(found.stores[0].content, Fact::Known(StoreContent::Empty));
        let Fact::Known(StoreContent::InUse(names)) = &found.stores[1].content else {
            panic!("{:?}", found.stores[1])
        };
        assert_eq!(names[..2], ["kwbase.start_mode", "CURRENT"]);
        for name in [".hidden", "two\\nlines", "-n", "E", "$(id)"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
        assert_eq!(found.stores[2].content, Fact::Known(StoreContent::Absent));
        assert!(found.stores[3].content.why_unknown().unwrap().contains("no directory"));
        assert_eq!(found.can_authenticate, Fact::Known(true));
    }

    #[test]
    fn a_directory_that_may_not_be_read_is_unknown() {
        let root = scratch("denied");
        let locked = root.join("locked");
        std::fs::create_dir_all(&locked).unwrap();
        std::fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
        let may_all_the_same = std::fs::read_dir(&locked).is_ok();
        let found = run(&host(&[&locked, &locked.join("below")]));
        std::fs::set_permissions(&locked, Permissions::from_mode(0o700)).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        if may_all_the_same {
            // The superuser may look everywhere.
            assert_eq!(found.stores[0].content, Fact::Known(StoreContent::Empty));
            assert_eq!(found.stores[1].content, Fact::Known(StoreContent::Absent));
        } else {
            assert!(found.stores.iter().all(|s| s.content.known().is_none()), "{found:?}");
        }
    }

    #[test]
    fn certificates_of_root_must_all_be_there() {
        let root = scratch("certs");
        let mut host = host(&[&root.join("store")]);
        host.security = Security::Certs { certs_dir: root.to_str().unwrap().to_owned() };
        for file in ["ca.crt", "client.root.crt"] {
            std::fs::write(root.join(file), "x").unwrap();
        }
        assert_eq!(run(&host).can_authenticate, Fact::Known(false));
        std::fs::write(root.join("client.root.key"), "x").unwrap();
        let found = run(&host);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found.can_authenticate, Fact::Known(true));
    }

    #[test]
    fn ports_that_listen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = run(&host(&[Path::new("/no/such/store")]));
        if let Fact::Known(ports) = &found.ports {
            assert!(ports.contains(&port), "{port} in {ports:?}");
            let both = vec![Address::new(format!("127.0.0.1:{port}")), Address::new("127.0.0.1:0")];
            assert_eq!(listening(both, ports), [Address::new(format!("127.0.0.1:{port}"))]);
        } else {
            assert!(!Path::new("/proc/net/tcp").exists());
        }
    }

    #[test]
    fn a_cut_answer_counts_for_nothing() {
        let host = host(&[Path::new("/a")]);
        for text in ["", "Sabsent\0", "Sdir\0Nx\0", "noise"] {
            assert!(read(&host, text).stores[0].content.known().is_none(), "{text:?}");
        }
        assert_eq!(read(&host, "E\0").stores[0].content, Fact::unknown("the host did not say"));
    }
}
