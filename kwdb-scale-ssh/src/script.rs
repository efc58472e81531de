//! The shell texts that run on the host, and the one place where they are made.
//!
//! What sshd is asked to run is one line for the login shell, which must be a POSIX one: `exec sh -c TEXT …`, so that
//! the command becomes, in the end, the very process whose exit code or signal sshd reports. sshd starts each line in
//! a session and process group of its own, whose number is the login shell's `$$`; TEXT verifies that and tells the
//! number, so that the whole group can be ended later. Everything in the line goes through
//! [`kwdb_scale_core::kwbase::quote`].

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use kwdb_scale_core::kwbase::quote;
use kwdb_scale_core::ports::PortError;

use crate::config::Privilege;
use crate::error::config;

/// Linux takes no longer argument (`MAX_ARG_STRLEN`), and the line is one.
const LONGEST_LINE: usize = (128 << 10) - 1;
/// What our shells call themselves (`$0`).
const OWN_NAME: &str = "kwdb-scale";
/// Every mark begins with it.
const MARK: &str = "kwdb-scale-";
/// Of a start after its mark, two numbers included.
const START_LENGTH: usize = 40;
/// What the watcher on the host leaves us to end the command ourselves, so that its end can be told.
const WATCH_MARGIN: Duration = Duration::from_secs(2);

/// First part: who we are. `$n` is the mark, `$l` the leader of the session, `$g` the process group or 0 where it is
/// not ours alone. Where we are the leader it is enough that a group of our number exists: nobody else can have made it. To
/// read it from /proc costs a system call for each byte.
const IDENTITY: &str = r#"n=$1 l=$2; shift 2
g=
if [ "$l" = $$ ]; then
if kill -0 "-$l" 2>/dev/null; then g=$l; fi
else
[ -r /proc/$$/stat ] && read -r g </proc/$$/stat && g=${g##*) } && g=${g#* * } && g=${g%% *}
[ -n "$g" ] || g=$(ps -o pgid= -p $$ 2>/dev/null | tr -d ' ')
fi
[ "$g" = "$l" ] || g=0
"#;

/// Second part: the environment. Two programs are started only where there is something to take out. The shell that
/// lists it is also the one that starts the watcher, where there is one (WATCH): to copy a shell is what costs most here.
const ENVIRONMENT: &str = r#"case $(WATCHexport -p) in
*KWBASE_*) for v in $(env | sed -n 's/^\(KWBASE_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$v"; done ;;
esac
LC_ALL=C; export LC_ALL
"#;

/// Is there such a program? The shell's own failure to start one cannot be told from a program's exit code 127.
const PROGRAM: &str = r#"p=
case $1 in
*/*) [ -f "$1" ] && [ -x "$1" ] || p=no ;;
*) p=no; set -f; IFS=:
for d in $PATH; do [ -f "${d:-.}/$1" ] && [ -x "${d:-.}/$1" ] && p= && break; done
unset IFS; set +f ;;
esac
[ -z "$p" ] || { printf '%s no-program\n' "$n"; exit 0; }
"#;

/// Ends the group at the deadline even when nobody can reach the host any more. It is nobody's child, holds no
/// descriptor that the command has, and looks once a second whether there is anything left to watch. It stays in the
/// group, so that the group's number cannot become somebody else's meanwhile.
const WATCHER: &str = r#"
(
trap '' TERM HUP INT
HELDc=0
while [ $c -lt "$w" ] && kill -0 $$ 2>/dev/null; do sleep 1; c=$((c+1)); done
if kill -0 $$; then
t=$$; [ "$g" = 0 ] || t=-$g
kill -TERM $t; sleep 1; kill -KILL $t
fi
) </dev/null >/dev/null 2>&1 &
"#;
/// The watcher of a command without input has the session's input to itself, and sleeps until that ends: when the
/// command has ended, when the connection is gone, or when we end it because the command takes its time
/// ([`crate::exchange`]). So a short command costs the host no clock.
const HELD: [&str; 2] = ["exec 3<&0", "read -r c <&3\n"];

/// Both outputs begin here: whatever a login script said before is not the command's.
const START: &str = r#"printf '%s start %s %s\n' "$n" $$ "$g"
"#;
const START_STDERR: &str = r#"printf '%s\n' "$n" >&2
"#;

/// `$1`: process, `$2`: its group or 0.
const END: &str = r#"t=$1; [ "$2" = 0 ] || t=-$2
kill -TERM $t
c=0
while [ $c -lt 10 ] && kill -0 "$1"; do sleep 0.1; c=$((c+1)); done
kill -KILL $t
"#;

/// A word that no output holds by accident, for one command.
pub(crate) fn mark() -> String {
    // Two hashers of the standard library, each keyed by the operating system's randomness.
    let word = || std::hash::RandomState::new().build_hasher().finish();
    format!("{MARK}{:016x}{:016x}", word(), word())
}

/// How the command gets its standard input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Input {
    /// Nothing; the session's own input is the watcher's.
    Empty,
    Given,
    Terminal,
}

/// What ends a command that has not ended by its deadline, should nobody reach the host then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Backstop {
    /// A watcher on the host, started with the command.
    Watcher(Duration),
    /// It ends by itself when the connection goes, because all it does is to copy from or to it.
    Itself,
}

/// The line that runs a command to its end, and whether its watcher waits for the end of the session's input.
pub(crate) fn run(
    mark: &str,
    privilege: &Privilege,
    argv: &[String],
    env: &BTreeMap<String, String>,
    input: Input,
    backstop: Backstop,
) -> Result<(String, bool), PortError> {
    program(argv)?;
    // One more shell would be no better than the one that is there.
    let own = match argv {
        [sh, c, text, rest @ ..] if sh == "sh" && c == "-c" => Some((text, rest)),
        _ => None,
    };
    // A deadline of years needs no watcher.
    let watch = match backstop {
        Backstop::Watcher(deadline) => deadline.saturating_add(WATCH_MARGIN).as_millis().div_ceil(1000),
        Backstop::Itself => 0,
    };
    let watch = i32::try_from(watch).unwrap_or(0);
    let held = watch > 0 && input == Input::Empty && privilege.password().is_none();
    let watcher = match (watch > 0, held) {
        (false, _) => String::new(),
        (true, true) => format!("{}{}", HELD[0], WATCHER.replace("HELD", HELD[1])),
        (true, false) => WATCHER.replace("HELD", ""),
    };
    let mut text = format!("{IDENTITY}w=$1; shift\n{}", ENVIRONMENT.replace("WATCH", &watcher));
    exports(env, &mut text)?;
    if own.is_none() {
        text += PROGRAM;
    }
    text += START;
    if input != Input::Terminal {
        text += START_STDERR;
    }
    let from = if input == Input::Empty { "</dev/null" } else { "" };
    let (name, args) = match own {
        Some((script, rest)) => {
            text += &format!("exec {from}\np=$1; shift; unset n l g w; eval \"unset p\n$p\"");
            let (name, args) = rest.split_first().map_or(("sh", rest), |(name, args)| (name.as_str(), args));
            (name, [std::slice::from_ref(script), args].concat())
        }
        None => {
            text += &format!("exec \"$@\" {from}");
            (OWN_NAME, argv.to_vec())
        }
    };
    let watch = watch.to_string();
    let line = line(name, mark, privilege, &text, std::iter::once(&watch).chain(&args))?;
    Ok((line, held))
}

/// The line that starts a command whose descriptors all lead away from the connection.
pub(crate) fn spawn(
    mark: &str,
    privilege: &Privilege,
    argv: &[String],
    env: &BTreeMap<String, String>,
    output_file: &str,
) -> Result<String, PortError> {
    let mut text = format!("{IDENTITY}o=$1; shift\n{}", ENVIRONMENT.replace("WATCH", ""));
    exports(env, &mut text)?;
    text += PROGRAM;
    text += r#"[ -d "${o%/*}/" ] || { printf '%s no-directory\n' "$n"; exit 0; }
(umask 077; : >>"$o") 2>/dev/null || { printf '%s no-output\n' "$n"; exit 0; }
"#;
    text += START;
    text += START_STDERR;
    text += r#"exec "$@" </dev/null >>"$o" 2>&1"#;
    program(argv)?;
    let args = std::iter::once(output_file).chain(argv.iter().map(String::as_str));
    line(OWN_NAME, mark, privilege, &text, args)
}

/// The line that ends what [`run`] started.
pub(crate) fn end(mark: &str, privilege: &Privilege, process: Process) -> Result<String, PortError> {
    let text = format!("{IDENTITY}{START}{START_STDERR}{END}");
    let (pid, group) = (process.pid.to_string(), process.group.to_string());
    line(OWN_NAME, mark, privilege, &text, [pid, group])
}

/// The program's name, for messages: never an argument, which could hold anything.
pub(crate) fn program(argv: &[String]) -> Result<&str, PortError> {
    match argv.first() {
        // A leading dash would be an option of `exec`.
        Some(program) if program.starts_with('-') => {
            Err(config(format!("'{}' is not the name of a program", program.escape_default())))
        }
        Some(program) if !program.is_empty() => Ok(program),
        _ => Err(config("a command line without a program")),
    }
}

fn exports(env: &BTreeMap<String, String>, text: &mut String) -> Result<(), PortError> {
    for (name, value) in env {
        let identifier = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if !identifier {
            return Err(config(format!("'{}' is not the name of a variable", name.escape_default())));
        }
        *text += &format!("{name}={}; export {name}\n", quote::quote(value));
    }
    Ok(())
}

fn line(
    name: &str,
    mark: &str,
    privilege: &Privilege,
    text: &str,
    args: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<String, PortError> {
    let mut words = privilege.prefix(&prompt(mark));
    words.extend(["sh", "-c", text, name, mark].map(str::to_owned));
    let line = format!("exec {} \"$$\" {}", quote::line(words), quote::line(args));
    if line.contains('\0') {
        return Err(config("an argument or a variable holds a NUL byte"));
    }
    if line.len() > LONGEST_LINE {
        return Err(config(format!("the command line is longer than {LONGEST_LINE} bytes")));
    }
    Ok(line)
}

/// What sudo is told to ask with.
pub(crate) fn prompt(mark: &str) -> String {
    format!("{mark}-password:")
}

/// A started command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// 0: not known to be its own.
    pub(crate) group: u32,
}

/// What the text said before it gave way to the command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Start(Process),
    NoProgram,
    NoDirectory,
    NoOutput,
    Nonsense,
}

/// Finds the marked line; `None` when it is not complete yet. Gives it and where it ends. On a terminal sudo's [`prompt`],
/// which holds the mark, stands in the same output before it.
pub(crate) fn find(bytes: &[u8], mark: &str) -> Option<(Said, usize)> {
    let begin = format!("{mark} ");
    let at = bytes.windows(begin.len()).position(|w| w == begin.as_bytes())?;
    let rest = bytes.get(at + mark.len()..)?;
    let length = rest.iter().position(|b| *b == b'\n')?;
    let line = String::from_utf8_lossy(rest.get(..length)?);
    let words: Vec<&str> = line.split_whitespace().collect();
    let said = match words.as_slice() {
        ["start", pid, group] => match (pid.parse(), group.parse()) {
            // 0 and 1 would mean everybody.
            (Ok(pid), Ok(group)) if pid > 1 && group != 1 => Said::Start(Process { pid, group }),
            _ => Said::Nonsense,
        },
        ["no-program"] => Said::NoProgram,
        ["no-directory"] => Said::NoDirectory,
        ["no-output"] => Said::NoOutput,
        _ => Said::Nonsense,
    };
    Some((said, at + mark.len() + length + 1))
}

/// Whether the output ends within the marked line of a start: whoever said so much of it had begun. What holds the mark
/// elsewhere, such as the words of a restricted shell that repeats the line that it does not run, does not count.
pub(crate) fn ends_in_start(bytes: &[u8], mark: &str) -> bool {
    let tail = bytes.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let tail = tail.get(tail.len().saturating_sub(mark.len() + START_LENGTH)..).unwrap_or_default();
    let tail = String::from_utf8_lossy(tail);
    let Some(at) = tail.rfind(MARK) else { return false };
    let said = tail.get(at..).unwrap_or_default();
    match said.strip_prefix(mark) {
        Some(rest) => {
            let numbers = rest.strip_prefix(" start ");
            " start ".starts_with(rest)
                || numbers.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit() || b == b' '))
        }
        None => mark.starts_with(said),
    }
}

/// The same for the mark alone, on standard error.
pub(crate) fn find_bare(bytes: &[u8], mark: &str) -> Option<usize> {
    let line = format!("{mark}\n");
    bytes.windows(line.len()).position(|w| w == line.as_bytes()).map(|at| at + line.len())
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
