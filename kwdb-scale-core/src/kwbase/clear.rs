//! Clearing what a removed node left on a host: a fixed shell script, and the reading of its answer.
//!
//! The script is a constant; paths reach it as positional arguments only: four for each directory (the directory,
//! where it goes or nothing, the value of `--store` that names it, the SHA-256 of the sorted names that it may hold). It looks at every directory before it touches one:
//! also at what is mounted below one. That cannot be deleted, and would be carried along by a move.
//! What it says ends with a NUL byte and begins with a letter: `C` and what was done, `F` and why it failed, `E` at the
//! end.

use super::begun;
use super::command::CommandLine;
use super::host::{HostError, KwbaseHost};
use crate::host_facts::probe::MOUNTS;
use crate::plan::OldDirectory;
use crate::ports::{CommandOutput, PortError, PortErrorKind};

const SCRIPT: &str = r#"
LC_ALL=C; export LC_ALL
say() { printf '%s\0' "$1"; }
fail() { say "F$1"; exit 1; }
names() (
  cd "$1" || exit 1
  for name in .[!.]* ..?* *; do
    [ "$name" = lost+found ] && continue
    if [ -e "$name" ] || [ -L "$name" ]; then printf '%s\n' "$name"; fi
  done
)
held() {
  # By the argument of the start command. The patterns go through a pipe, so that nobody's own arguments look like it.
  printf '%s\n' "--store=$1" "--store=$2" "-s=$2" |
    grep -lzxF -f - /proc/[0-9]*/cmdline 2>/dev/null | grep -q .
}
look() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  case $1$3 in *"
"*) fail "$1 has a line break in its name; clear it by hand" ;; esac
  [ ! -L "$1" ] || fail "$1 is a link; clear it by hand"
  [ -d "$1" ] || fail "$1 is no directory; clear it by hand"
  real=$(cd -P -- "$1" && pwd -P && printf x) || fail "$1 cannot be entered"
  [ "$real" = "$1
x" ] || fail "$1 leads to another place; name the place itself"
  if held "$1" "$3"; then fail "a process runs on $1; end it first"; fi
  [ -r /proc/self/mountinfo ] || fail "what is mounted below $1 cannot be seen (/proc/self/mountinfo)"
  top=$1 aside=$2
  mounts "$1" mounted
  if [ -n "$2" ]; then movable "$1" "$2"; fi
  [ -n "$(names "$1")" ] || return 0
  sum=$(names "$1" | sort | sha256sum) || fail "what $1 holds cannot be compared (sha256sum)"
  [ "${sum%% *}" = "$4" ] || fail "$1 does not hold what the consent was given for; make another plan"
}
mounted() {
  [ "$1" = "$top" ] || fail "something is mounted at $1; unmount it first"
  [ -z "$aside" ] || immovable "$1"
}
immovable() {
  fail "$1 is a mount point and cannot be moved; clear it by hand, or have it deleted"
}
movable() {
  if [ -e "$2" ] || [ -L "$2" ]; then fail "$2 is there already; move it away"; fi
  here=$(stat -c %d -- "$1") && above=$(stat -c %d -- "${1%/*}/") || fail "$1 cannot be looked at"
  [ "$here" = "$above" ] || immovable "$1"
}
clear_one() {
  if [ -n "$2" ]; then
    if [ -d "$1" ]; then
      mv -- "$1" "$2" || fail "$1 cannot be moved to $2"
    fi
    # An empty directory takes its place, as the start expects it, with the same owner.
    if [ ! -e "$1" ] && [ -d "$2" ]; then
      mkdir -- "$1" && chmod "$(stat -c %a -- "$2")" "$1" && chown "$(stat -c %u:%g -- "$2")" "$1" ||
        fail "$1 was moved to $2, and cannot be made anew"
    fi
    say "C$1 was moved to $2"
  elif [ -d "$1" ]; then
    find "$1" -xdev -mindepth 1 -delete || fail "$1 cannot be cleared in full"
    say "Cwhat was in $1 is deleted"
  fi
}
each() {
  what=$1
  shift
  while [ $# -ge 4 ]; do
    "$what" "$1" "$2" "$3" "$4"
    shift 4
  done
}
each look "$@"
each clear_one "$@"
sync
say E
"#;

/// The script's command line.
///
/// # Errors
/// A directory that is none of the host's description.
pub(super) fn command(host: &KwbaseHost, directories: &[OldDirectory]) -> Result<CommandLine, HostError> {
    let script = [MOUNTS, SCRIPT].concat();
    let mut argv: Vec<String> = ["sh", "-c", &script, begun::CLEAR].map(str::to_owned).to_vec();
    for directory in directories {
        if !host.data_directories().contains(&directory.path.as_str()) {
            return Err(HostError {
                host: host.name.clone(),
                field: "stores".to_owned(),
                reason: format!("{} is none of them, so it is not cleared", directory.path.escape_debug()),
                cure: "clear only what belongs to the node".to_owned(),
            });
        }
        let flag = host.stores.iter().find(|s| s.path == directory.path).map(|s| s.value());
        argv.push(directory.path.trim_end_matches('/').to_owned());
        argv.push(directory.aside.clone().unwrap_or_default());
        argv.push(flag.unwrap_or_else(|| directory.path.clone()));
        argv.push(directory.digest());
    }
    Ok(host.on_machine("clear", host.prefix().into_iter().chain(argv).collect()))
}

/// What was done, in one line.
pub(super) fn read(host: &KwbaseHost, output: &CommandOutput) -> Result<String, PortError> {
    let items: Vec<&str> = output.stdout.split_terminator('\0').collect();
    let done: Vec<&str> = items.iter().filter_map(|item| item.strip_prefix('C')).collect();
    let before = if done.is_empty() { String::new() } else { format!(" (before that {})", done.join(", ")) };
    let words = output.stderr.trim().lines().last().unwrap_or_default();
    if let Some(why) = items.iter().find_map(|item| item.strip_prefix('F')) {
        let words = if words.is_empty() { String::new() } else { format!(": {words}") };
        let message = format!("host {}: {}{words}{before}", host.name, why.escape_debug());
        return Err(PortError::new(PortErrorKind::CommandFailed, message));
    }
    if items.last() != Some(&"E") || !output.end.success() {
        let message = format!(
            "host {} did not say that it cleared the data ({}: {words}){before}",
            host.name, output.end
        );
        return Err(PortError::new(PortErrorKind::Other, message));
    }
    Ok(if done.is_empty() { "nothing was left to clear".to_owned() } else { done.join(", ") })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use super::*;
    use crate::kwbase::{Security, StoreSpec};
    use crate::plan::OldEntry;
    use crate::ports::CommandEnd;
    use crate::topology::HostName;

    fn host(stores: &[&Path]) -> KwbaseHost {
        let mut host = KwbaseHost::new(HostName::new("n5"), Security::Insecure);
        host.stores = stores.iter().map(|s| StoreSpec::new(s.display().to_string())).collect();
        host
    }

    fn directory(path: &Path, aside: Option<&Path>) -> OldDirectory {
        let text = |p: &Path| p.display().to_string();
        let listed = fs::read_dir(path).into_iter().flatten();
        let entry = |e: std::io::Result<fs::DirEntry>| OldEntry {
            name: e.unwrap().file_name().into_string().unwrap(),
            foreign: false,
        };
        OldDirectory { path: text(path), aside: aside.map(text), entries: listed.map(entry).collect() }
    }

    fn run(host: &KwbaseHost, directories: &[OldDirectory]) -> Result<String, String> {
        let line = command(host, directories).unwrap();
        let output = Command::new(&line.argv()[0]).args(&line.argv()[1..]).output().unwrap();
        read(host, &said(output)).map_err(|e| e.to_string())
    }

    fn said(output: Output) -> CommandOutput {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        CommandOutput {
            end: CommandEnd::Exit(output.status.code().unwrap()),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            truncated: false,
        }
    }

    /// The same after a shell has run `before` in a mount namespace of its own; `None` where there can be none.
    fn run_mounted(
        before: &str,
        host: &KwbaseHost,
        directories: &[OldDirectory],
    ) -> Option<Result<String, String>> {
        let line = command(host, directories).unwrap();
        let shell = ["-rm", "sh", "-ec", &format!("{before}; \"$@\""), "sh"];
        let can = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
        if !can.is_ok_and(|o| o.status.success()) {
            assert!(
                std::env::var_os("CI").is_none(),
                "there is no unshare, or it may not make a mount namespace"
            );
            println!("not run: no mount namespace can be made");
            return None;
        }
        let output = Command::new("unshare").args(shell).args(line.argv()).output().unwrap();
        Some(read(host, &said(output)).map_err(|e| e.to_string()))
    }

    fn store(dir: &Path, name: &str) -> std::path::PathBuf {
        let store = dir.join(name);
        fs::create_dir_all(store.join("logs")).unwrap();
        fs::write(store.join("kwbase.start_mode"), "start").unwrap();
        fs::set_permissions(&store, fs::Permissions::from_mode(0o750)).unwrap();
        store
    }

    #[test]
    fn a_store_is_moved_and_an_empty_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        // A name that a shell would act on, were it not an argument.
        let a = store(&dir, "a $(touch canary) '\"--x*;");
        let aside = dir.join("a.node-5");
        let job = [directory(&a, Some(&aside))];
        let said = run(&host(&[&a]), &job).unwrap();
        assert!(said.contains("was moved to"), "{said}");
        assert!(aside.join("kwbase.start_mode").is_file());
        assert_eq!(fs::read_dir(&a).unwrap().count(), 0);
        assert_eq!(fs::metadata(&a).unwrap().permissions().mode() & 0o777, 0o750);
        assert!(!Path::new("canary").exists() && !dir.join("canary").exists());
        // Once more: the old data is where it was put, and something new is not put over it.
        fs::write(a.join("CURRENT"), "x").unwrap();
        let error = run(&host(&[&a]), &job).unwrap_err();
        assert!(error.contains("is there already"), "{error}");
        assert!(a.join("CURRENT").is_file());
        // A crash between the two halves is made good.
        fs::remove_dir_all(&a).unwrap();
        run(&host(&[&a]), &job).unwrap();
        assert!(a.is_dir() && aside.join("kwbase.start_mode").is_file());
    }

    #[test]
    fn what_a_store_holds_is_deleted_and_the_store_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (a, b, other) = (store(&dir, "a"), store(&dir, "b"), store(&dir, "other"));
        std::os::unix::fs::symlink(&other, a.join("link")).unwrap();
        run(&host(&[&a, &b]), &[directory(&a, None), directory(&b, None)]).unwrap();
        assert!(fs::read_dir(&a).unwrap().count() == 0 && fs::read_dir(&b).unwrap().count() == 0);
        assert!(other.join("kwbase.start_mode").is_file(), "a link is deleted, not what it leads to");
        assert_eq!(
            run(&host(&[&a]), &[directory(&a, None)]).unwrap(),
            "what was in {} is deleted".replace("{}", &a.display().to_string())
        );
    }

    #[test]
    fn nothing_is_touched_when_one_directory_must_not_be() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (a, b) = (store(&dir, "a"), store(&dir, "b"));
        let link = dir.join("link");
        std::os::unix::fs::symlink(&b, &link).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        std::os::unix::fs::symlink(&dir, dir.join("sub/up")).unwrap();
        let detour = dir.join("sub/up/b");
        let file = dir.join("file");
        fs::write(&file, "x").unwrap();
        for (bad, why) in [
            (&link, "is a link"),
            (&detour, "leads to another place"),
            (&file, "no directory"),
            (&store(&dir, "two\nlines"), "line break"),
        ] {
            let job = [directory(&a, Some(&dir.join("a.aside"))), directory(bad, None)];
            let error = run(&host(&[&a, bad]), &job).unwrap_err();
            assert!(error.contains(why) && error.starts_with("host n5"), "{error}");
            assert!(a.join("kwbase.start_mode").is_file() && b.join("kwbase.start_mode").is_file());
        }
        let error = command(&host(&[&a]), &[directory(&b, None)]).unwrap_err();
        assert!(error.to_string().contains("is none of them"), "{error}");
    }

    #[test]
    fn nothing_is_touched_when_something_is_mounted_below() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (a, b) = (store(&dir, "a"), store(&dir, "b c"));
        fs::create_dir_all(b.join("ts db/deep")).unwrap();
        let mount = |at: &Path| format!("mount -t tmpfs none '{}'", at.display());
        let aside = dir.join("aside");
        let both = |aside: Option<&Path>| [directory(&a, None), directory(&b, aside)];
        for (at, why) in [
            (b.join("ts db"), "something is mounted at"),
            (b.join("ts db/deep"), "something is mounted at"),
            // Another directory's mount is none of theirs.
            (store(&dir, "b"), ""),
        ] {
            for aside in [None, Some(&*aside)].into_iter().filter(|_| !why.is_empty()) {
                let Some(done) = run_mounted(&mount(&at), &host(&[&a, &b]), &both(aside)) else { return };
                let error = done.unwrap_err();
                assert!(error.contains(&format!("{why} {}; unmount it first", at.display())), "{error}");
                assert!(a.join("kwbase.start_mode").is_file() && b.join("kwbase.start_mode").is_file());
            }
            if why.is_empty() {
                run_mounted(&mount(&at), &host(&[&a, &b]), &both(None)).unwrap().unwrap();
                assert!(fs::read_dir(&a).unwrap().count() == 0 && fs::read_dir(&b).unwrap().count() == 0);
            }
        }
        // A directory that is mounted over itself is on the file system of the one above.
        let (a, b) = (store(&dir, "a"), store(&dir, "b c"));
        let bind = format!("mount --bind '{0}' '{0}'", b.display());
        let error = run_mounted(&bind, &host(&[&a, &b]), &both(Some(&aside))).unwrap().unwrap_err();
        assert!(error.contains("is a mount point and cannot be moved"), "{error}");
        assert!(a.join("kwbase.start_mode").is_file());
        run_mounted(&bind, &host(&[&a, &b]), &both(None)).unwrap().unwrap();
        assert_eq!(fs::read_dir(&b).unwrap().count(), 0);
    }

    #[test]
    fn what_came_after_the_consent_is_not_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (a, b) = (store(&dir, "a"), store(&dir, "b"));
        for job in [[directory(&a, None)], [directory(&a, Some(&dir.join("a.aside")))]] {
            fs::write(a.join("precious.doc"), "x").unwrap();
            let error = run(&host(&[&a]), &job).unwrap_err();
            assert!(error.contains("does not hold what the consent was given for"), "{error}");
            assert!(a.join("precious.doc").is_file() && a.join("kwbase.start_mode").is_file());
            fs::remove_file(a.join("precious.doc")).unwrap();
            // Before anything of another is touched.
            fs::write(b.join("new"), "x").unwrap();
            let both = [job[0].clone(), OldDirectory { path: b.display().to_string(), ..job[0].clone() }];
            assert!(run(&host(&[&a, &b]), &both).is_err());
            assert!(a.join("kwbase.start_mode").is_file() && b.join("new").is_file());
            fs::remove_file(b.join("new")).unwrap();
        }
        let mut job = [directory(&a, None)];
        job[0].entries.reverse();
        run(&host(&[&a]), &job).unwrap();
    }

    #[test]
    fn a_store_with_a_process_on_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let a = store(&dir.path().canonicalize().unwrap(), "a");
        let mut child = Command::new("sh")
            .args(["-c", "read x", "kwbase", "start", &format!("--store={}", a.display())])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let result = run(&host(&[&a]), &[directory(&a, None)]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(result.unwrap_err().contains("a process runs on"));
        assert!(a.join("kwbase.start_mode").is_file());
    }

    #[test]
    fn an_answer_that_was_cut_off_is_no_success() {
        let host = host(&[Path::new("/d/a")]);
        let output = |stdout: &str, code| CommandOutput {
            end: CommandEnd::Exit(code),
            stdout: stdout.into(),
            stderr: "no space\n".into(),
            truncated: false,
        };
        for (stdout, code) in [("", 0), ("C/d/a was moved", 0), ("C/d/a\0", 0), ("E", 1)] {
            assert!(read(&host, &output(stdout, code)).is_err(), "{stdout}");
        }
        let error = read(&host, &output("Cone\0Ftwo\0", 1)).unwrap_err().to_string();
        assert_eq!(error, "host n5: two: no space (before that one)");
    }
}
