//! Looking for a command that was begun and whose end nobody waited for: a fixed shell script that looks through `/proc`.
//!
//! A process counts when it has, for each of several groups, one of the group's words among its arguments. Words reach the
//! script as positional arguments with `=` before them, and grep through a pipe, so that nobody's own arguments look like
//! what is sought. Items of the answer end with a NUL byte: `P<pid>` for each process, `U` when processes cannot be looked
//! at, `E` at the end.

use super::command::CommandLine;
use super::host::KwbaseHost;
use crate::ports::{BegunMark, ClearData, CommandOutput, PortError, PortErrorKind};
use crate::topology::Address;

/// The name under which a script that clears data runs, so that it is found.
pub(super) const CLEAR: &str = "kwdb-scale-clear";
/// The name of every other script that may go on.
const SCRIPTS: &str = "kwdb-scale";

const SCRIPT: &str = r#"
say() { printf '%s\0' "$1"; }
# Those of the files $2 whose words hold a line of $1. What ended meanwhile is no error.
with() { printf '%s' "$1" | grep -lzxFs -f - $2; }
all=$(printf '%s\n' /proc/[0-9]*/cmdline)
# Where other users' processes are hidden, or grep does not know this, nothing is told.
if ! [ -r /proc/1/cmdline ] || [ -z "$(with "kwdb-scale-look
" "/proc/$$/cmdline")" ]; then
  say U
  say E
  exit 0
fi
found=$all group=
for word in "$@" -; do
  case $word in
  =*) group="$group${word#=}
" ;;
  *)
    [ -z "$group" ] || [ -z "$found" ] || found=$(with "$group" "$found")
    group= ;;
  esac
done
for file in $found; do
  pid=${file#/proc/}
  say "P${pid%/cmdline}"
done
say E
"#;

/// What is sought: one word of each group.
pub(crate) type Groups = Vec<Vec<String>>;

/// The look's command line, on the machine itself: processes of its containers are seen there too.
pub(crate) fn command(host: &KwbaseHost, groups: &Groups) -> CommandLine {
    let mut argv: Vec<String> = ["sh", "-c", SCRIPT, "kwdb-scale-look"].map(str::to_owned).to_vec();
    for group in groups {
        argv.push("-".to_owned());
        // Words of more than one line are nobody's.
        argv.extend(group.iter().filter(|w| !w.contains('\n')).map(|word| format!("={word}")));
    }
    host.on_machine("look for what goes on", argv)
}

/// Ids of the processes that were found.
pub(crate) fn read(host: &KwbaseHost, output: &CommandOutput) -> Result<Vec<u32>, PortError> {
    let fail = |kind, why: String| Err(PortError::new(kind, format!("host {}: {why}", host.name)));
    let items: Vec<&str> = output.stdout.split_terminator('\0').collect();
    if items.last() != Some(&"E") || !output.end.success() {
        let words = output.stderr.trim().lines().last().unwrap_or_default();
        return fail(
            PortErrorKind::Malformed,
            format!("the look for processes ended with {} {}", output.end, words.escape_debug()),
        );
    }
    if items.contains(&"U") {
        let why = "its /proc does not show the processes of all users, or its grep cannot search them";
        return fail(PortErrorKind::Unsupported, why.to_owned());
    }
    Ok(items.iter().filter_map(|item| item.strip_prefix('P')?.parse().ok()).collect())
}

fn words<const N: usize>(list: [&str; N]) -> Vec<String> {
    list.map(str::to_owned).to_vec()
}

fn to(addresses: impl IntoIterator<Item = Address>) -> Vec<String> {
    addresses.into_iter().map(|address| format!("--host={address}")).collect()
}

/// `kwbase node decommission` or `recommission` of one of the nodes.
pub(crate) fn marking(begun: &BegunMark) -> Groups {
    vec![
        words(["decommission", "recommission"]),
        begun.nodes.iter().map(|node| node.0.to_string()).collect(),
        to(begun.via.iter().map(|gateway| gateway.address.clone())),
    ]
}

/// `kwbase start` of a node with one of the host's stores, or the node itself.
pub(super) fn starting(host: &KwbaseHost) -> Groups {
    let stores = host.stores.iter().flat_map(|store| {
        let (path, value) = (store.path.trim_end_matches('/'), store.value());
        [format!("--store={path}"), format!("--store={value}"), format!("-s={value}")]
    });
    vec![words(["start", "start-single-replica", "start-single-node"]), stores.collect()]
}

/// The start of a unit or container.
pub(super) fn starting_owned(host: &KwbaseHost) -> Option<Groups> {
    let name = host.owner.name()?;
    Some(vec![words([SCRIPTS]), words([name]), words(["start"])])
}

/// `kwbase node drain` or `quit` of the node at an address.
pub(super) fn stopping(address: &Address) -> Groups {
    vec![words(["drain", "quit"]), to([address.clone()])]
}

/// The stop of the node at an address through its owner.
pub(super) fn stopping_owned(address: &Address) -> Groups {
    vec![words([SCRIPTS]), words([address.as_str()])]
}

/// The clearing of the directories, or what it began.
pub(super) fn clearing(job: &ClearData) -> Groups {
    let paths = job.directories.iter().map(|d| d.path.trim_end_matches('/').to_owned()).collect();
    vec![words([CLEAR, "-delete"]), paths]
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::kwbase::Security;
    use crate::ports::CommandEnd;

    fn look(groups: &Groups) -> Vec<u32> {
        let host = KwbaseHost::new("n5", Security::Insecure);
        let line = command(&host, groups);
        let output = Command::new(&line.argv()[0]).args(&line.argv()[1..]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let output = CommandOutput {
            end: CommandEnd::Exit(output.status.code().unwrap()),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            truncated: false,
        };
        read(&host, &output).unwrap()
    }

    fn process(arguments: &[&str]) -> Child {
        let fixed = ["-c", "read x", "/some/kwbase"];
        Command::new("sh").args(fixed).args(arguments).stdin(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_process_is_found_by_a_word_of_each_group_until_it_ends() {
        let mine = format!("--host=look-{}:26257", std::process::id());
        let groups =
            vec![words(["decommission", "recommission"]), words(["5", "6 $(touch canary)"]), words([&mine])];
        assert_eq!(look(&groups), Vec::<u32>::new());
        let mut child = process(&["node", "decommission", "4", "5", "--wait=none", &mine]);
        let others = [
            process(&["node", "decommission", "55", "--wait=none", &mine]),
            process(&["node", "status", "5", "--decommission", &mine]),
            process(&["node", "decommission 5", &mine]),
        ];
        assert_eq!(look(&groups), [child.id()]);
        child.kill().unwrap();
        // Not even while nobody has waited for it.
        let ended = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            look(&groups).is_empty()
        });
        assert!(ended);
        child.wait().unwrap();
        for mut other in others {
            other.kill().unwrap();
            other.wait().unwrap();
        }
        assert!(!std::path::Path::new("canary").exists());
    }

    #[test]
    fn an_answer_that_tells_nothing_is_an_error() {
        let host = KwbaseHost::new("n5", Security::Insecure);
        let output = |stdout: &str, code| CommandOutput {
            end: CommandEnd::Exit(code),
            stdout: stdout.into(),
            stderr: String::new(),
            truncated: false,
        };
        for (stdout, code) in [("", 0), ("P17\0", 0), ("E\0", 1), ("U\0E\0", 0)] {
            assert!(read(&host, &output(stdout, code)).is_err(), "{stdout:?}");
        }
        assert_eq!(read(&host, &output("P17\0P4\0E\0", 0)).unwrap(), [17, 4]);
    }
}
