//! The guard of a connection: a process on the host that watches its commands, so that each need not start a watcher.
//!
//! The second command of a connection starts one, in a session of its own, so that ending a command's group leaves it
//! alone. Later ones write their process, the time it began and their deadline into its standard input, a pipe, which is
//! opened through `/proc` by whoever has the guard's number and finds its name there: both are of that one process, and
//! the name is known to nobody else. Opening fails once the guard has closed it, and what was written before that is read to
//! its end: so a command is either seen by the guard, or knows that it is not, and starts its own watcher. A command that
//! goes on is told from a later process of the same number by when it began.
//!
//! A guard ends when nothing is left to watch and nothing came for a few seconds, or the connection is gone.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// For how long what one command found out is true for the next ones.
const KNOWN: Duration = Duration::from_secs(60);

/// So many guards in a row that took no command: none is started any more. The host does not let them work, or commands
/// are too far apart.
const USELESS: u32 = 3;

/// The text of the guard. `$1`: its name, `$2`: the process of the connection, then the first command: process, when it
/// began, seconds left. `l` is what is watched, in threes; `i` counts seconds in which nothing came.
pub(crate) const GUARD: &str = r#"trap '' HUP INT TERM
cd /
exec 4<&0
echo "$1" >/proc/$$/comm || exec <&-
s=$2 l="$3 $4 $5" i=0 o=1
same() {
read -r x <"/proc/$1/stat" || return 1
b=$2
set -- ${x##*) }
[ "$1" != Z ] && [ "${20}" = "$b" ]
}
while :; do
while read -r p b w <&4; do l="$l $p $b $w" i=0; done
set -- $l
l=
while [ $# -gt 2 ]; do
case $3 in
0) same "$1" "$2" && kill -s TERM -- "-$1" && l="$l $1 $2 -1" ;;
-1) kill -s KILL -- "-$1" ;;
*) same "$1" "$2" && l="$l $1 $2 $(($3-1))" ;;
esac
shift 3
done
if [ -z "$l" ]; then
[ -n "$o" ] || exit 0
if [ $i -ge 5 ] || ! kill -0 "$s"; then
exec <&-
o=
continue
fi
fi
i=$((i+1))
sleep 1
done
"#;

/// Starts the guard instead of a watcher, where the host lets it work; its input is a pipe that nobody else has (bash
/// makes none of an empty here-document). Needs
/// `NAME` and `TEXT`, and ends with what is done otherwise.
pub(crate) const START: &str = r#"if [ "$g" = "$l" ] && [ -n "$b" ] && command -v setsid >/dev/null; then
( ( exec setsid sh -c TEXT kwdb-scale NAME "$s" $$ "$b" "$w" >/dev/null 2>&1 <<.

.
) & printf '%s start %s %s %s\n' "$n" $$ "$g" "$e guard=$!" )
else
"#;

/// Gives the command to the guard: `r` is empty when it does not take it, as where the shell's here-document is no pipe.
/// Needs `PID` and `NAME`.
pub(crate) const ASK: &str = r#"r=
[ "$g" = "$l" ] && [ -n "$b" ] && {
read -r r </proc/PID/comm && [ "$r" = NAME ] && [ -p /proc/PID/fd/0 ] &&
printf '%s %s %s\n' $$ "$b" "$w" >>/proc/PID/fd/0
} 2>/dev/null || r=
"#;

/// What the start line says of the host, beside the process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Told {
    /// Whether the environment of the session has no variables that are taken out, if that was looked at.
    pub(crate) clean: Option<bool>,
    /// The guard that this command started.
    pub(crate) guard: Option<u32>,
    /// The guard took this command.
    pub(crate) guarded: bool,
}

impl Told {
    pub(crate) fn parse(words: &[&str]) -> Self {
        let mut told = Self::default();
        for word in words {
            match word.split_once('=') {
                None if *word == "clean" => told.clean = Some(true),
                None if *word == "unclean" => told.clean = Some(false),
                None if *word == "guarded" => told.guarded = true,
                Some(("guard", pid)) => told.guard = pid.parse().ok().filter(|pid| *pid > 1),
                _ => {}
            }
        }
        told
    }

    /// Nobody on the host waits for the end of this command's input.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded || self.guard.is_some()
    }
}

/// Who is to watch a command.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Watch {
    /// A watcher of its own.
    #[default]
    Own,
    /// The guard of this name, which it starts.
    Start(String),
    /// The guard of this process and name, if it is still there.
    Ask(u32, String),
}

/// What a command need not find out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Known {
    pub(crate) clean: bool,
    pub(crate) watch: Watch,
}

/// What is known of the sessions of one connection.
#[derive(Debug, Default)]
pub(crate) struct Knowledge(Mutex<Sessions>);

#[derive(Debug, Default)]
struct Sessions {
    clean: Option<Instant>,
    begun: bool,
    guard: Guard,
    /// Guards in a row that took nothing.
    useless: u32,
}

#[derive(Debug, Default)]
enum Guard {
    #[default]
    None,
    /// Until then only one command starts it.
    Starting(Instant),
    Running(u32, String),
    /// The host does not let one work.
    Impossible,
}

impl Knowledge {
    /// For the next command, which may want to be watched.
    pub(crate) fn ask(&self, watched: bool, now: Instant) -> Known {
        let Ok(mut sessions) = self.0.lock() else { return Known::default() };
        let clean = sessions.clean.is_some_and(|since| now.duration_since(since) < KNOWN);
        let watch = match &sessions.guard {
            _ if !watched => Watch::Own,
            Guard::Running(pid, name) => Watch::Ask(*pid, name.clone()),
            Guard::Starting(until) if now < *until => Watch::Own,
            // The only command of a connection does not pay for others.
            Guard::None | Guard::Starting(_) if sessions.begun => {
                sessions.guard = Guard::Starting(now + KNOWN);
                Watch::Start(name())
            }
            _ => Watch::Own,
        };
        Known { clean, watch }
    }

    /// What a command found out that was started with `known`.
    pub(crate) fn tell(&self, known: &Known, told: Told, now: Instant) {
        let Ok(mut sessions) = self.0.lock() else { return };
        sessions.begun = true;
        if let Some(clean) = told.clean {
            sessions.clean = clean.then_some(now);
        }
        match (&known.watch, told.guard) {
            (Watch::Start(name), Some(pid)) => sessions.guard = Guard::Running(pid, name.clone()),
            (Watch::Start(_), None) => sessions.guard = Guard::Impossible,
            (Watch::Ask(..), _) if told.guarded => sessions.useless = 0,
            // Another may run already.
            (Watch::Ask(pid, _), _) if matches!(&sessions.guard, Guard::Running(now, _) if now == pid) => {
                sessions.useless += 1;
                sessions.guard = if sessions.useless < USELESS { Guard::None } else { Guard::Impossible };
            }
            _ => {}
        }
    }
}

/// As long as the kernel lets a process call itself, and accidental for nobody else.
fn name() -> String {
    let random = crate::script::mark();
    format!("kwdb{}", random.get(random.len().saturating_sub(11)..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_are_not_cut() {
        let (a, b) = (name(), name());
        assert_ne!(a, b);
        assert_eq!(a.len(), 15, "{a}");
        assert!(a.chars().all(|c| c.is_ascii_alphanumeric()), "{a}");
    }

    #[test]
    fn nonsense_tells_nothing() {
        assert_eq!(Told::parse(&["guard=1", "guard=x", "else", "clean=1"]), Told::default());
        let told = Told::parse(&["unclean", "guard=7"]);
        assert_eq!((told.clean, told.guard, told.guarded), (Some(false), Some(7), false));
    }

    #[test]
    fn what_is_known_and_for_how_long() {
        let (knowledge, now) = (Knowledge::default(), Instant::now());
        let told = |text: &str| Told::parse(&text.split(' ').collect::<Vec<_>>());
        assert_eq!(knowledge.ask(true, now), Known::default(), "nothing, at first");
        knowledge.tell(&Known::default(), told("clean"), now);
        let second = knowledge.ask(true, now);
        let Known { clean: true, watch: Watch::Start(name) } = &second else { panic!("{second:?}") };
        assert_eq!(knowledge.ask(true, now).watch, Watch::Own, "one starts it");
        knowledge.tell(&second, told("guard=7"), now);
        let third = knowledge.ask(true, now);
        assert_eq!(third.watch, Watch::Ask(7, name.clone()));
        assert_eq!(knowledge.ask(false, now).watch, Watch::Own, "a copy is not watched");
        knowledge.tell(&third, told("guarded"), now);
        let now = now + KNOWN;
        assert!(!knowledge.ask(true, now).clean, "asked again after a while");
        knowledge.tell(&third, told("unclean guarded"), now);
        assert!(!knowledge.ask(true, now).clean);
        // It is gone; and the next ones take nothing.
        for guard in 8..10 {
            knowledge.tell(&knowledge.ask(true, now), told("unclean"), now);
            let start = knowledge.ask(true, now);
            assert!(matches!(start.watch, Watch::Start(_)), "{start:?}");
            knowledge.tell(&start, told(&format!("unclean guard={guard}")), now);
        }
        knowledge.tell(&knowledge.ask(true, now), told("unclean"), now);
        assert_eq!(knowledge.ask(true, now), Known::default());
    }
}
