//! The texts on the shells of this machine, without any SSH.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

use proptest::prelude::*;

use super::*;

/// Every POSIX shell that is installed here; `sh` always is.
fn shells() -> impl Iterator<Item = &'static str> {
    let there =
        |shell: &&str| Command::new(shell).args(["-c", ":"]).output().is_ok_and(|o| o.status.success());
    ["sh", "dash", "bash", "zsh", "ksh"].into_iter().filter(there)
}

/// Runs a line as sshd does: by a shell that leads a process group of its own.
fn login(shell: &str, line: &str) -> Output {
    Command::new(shell)
        .args(["-c", line])
        .env("KWBASE_LEFT_OVER", "x")
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .unwrap()
}

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|&word| word.to_owned()).collect()
}

fn plain(argv: &[&str]) -> String {
    run("MARK", &Privilege::AsIs, &words(argv), &BTreeMap::new(), Input::Empty, Backstop::Itself).unwrap().0
}

/// What the command itself said.
fn said(output: &Output) -> (Said, String, String) {
    let (said, at) = find(&output.stdout, "MARK").expect("the mark");
    let err = find_bare(&output.stderr, "MARK").unwrap_or(0);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (said, text(&output.stdout[at..]), text(&output.stderr[err..]))
}

#[test]
fn the_command_becomes_the_process_of_the_login_shell() {
    for shell in shells() {
        let output = login(
            shell,
            &format!("echo noise; echo noise >&2; {}", plain(&["sh", "-c", "echo $$; kill -9 $$"])),
        );
        assert_eq!(output.status.signal(), Some(9), "{shell}: {output:?}");
        let (said, out, err) = said(&output);
        let pid = out.trim().parse().unwrap();
        assert_eq!(said, Said::Start(Process { pid, group: pid }), "{shell}");
        assert_eq!(err, "", "{shell}");
    }
}

/// A text for `sh -c` is run by our shell itself: it must not be able to tell.
#[test]
fn a_shell_text_runs_as_in_a_shell_of_its_own() {
    let watched = |argv: &[&str]| {
        let backstop = Backstop::Watcher(Duration::from_secs(30));
        run("MARK", &Privilege::AsIs, &words(argv), &BTreeMap::new(), Input::Empty, backstop).unwrap()
    };
    for shell in shells() {
        let text = r#"wait; echo "$0 $# $1 $2:${n-}${l-}${g-}${w-}${p-}:$(cat)"; exit 7"#;
        let (line, held) = watched(&["sh", "-c", text, "name", "a b", "-n"]);
        assert!(held);
        let output = login(shell, &line);
        assert_eq!(output.status.code(), Some(7), "{shell}");
        let (_, out, err) = said(&output);
        assert_eq!((out.as_str(), err.as_str()), ("name 2 a b -n::\n", ""), "{shell}");

        let output = login(shell, &watched(&["sh", "-c", "set -e; false; echo no"]).0);
        assert_eq!((output.status.code(), said(&output).1.as_str()), (Some(1), ""), "{shell}");
        let output = login(shell, &watched(&["sh", "-c", "echo (", "name"]).0);
        assert_eq!((output.status.code(), said(&output).1.as_str()), (Some(2), ""), "{shell}");
    }
}

/// What `sh` is differs between systems: the texts must do on each of them.
#[test]
fn whatever_sh_is_a_command_is_known_by_its_group_and_ended_with_it() {
    let here = |program: &str| {
        let path = std::env::var("PATH").unwrap();
        path.split(':').map(|dir| format!("{dir}/{program}")).find(|file| std::path::Path::new(file).exists())
    };
    let dir = std::env::temp_dir().join(format!("kwdb-scale-shells-{}", std::process::id()));
    for shell in ["dash", "bash", "zsh", "busybox"] {
        let Some(file) = here(shell) else { continue };
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(file, dir.join("sh")).unwrap();
        let path = format!("PATH={}:{}; ", dir.display(), std::env::var("PATH").unwrap());
        let backstop = Backstop::Watcher(Duration::from_secs(60));
        let argv = words(&["sh", "-c", "sleep 50 & echo $!; kill -0 $! && echo lives; wait"]);
        let (text, held) =
            run("MARK", &Privilege::AsIs, &argv, &BTreeMap::new(), Input::Empty, backstop).unwrap();
        assert!(held);
        let mut child = Command::new("sh");
        child.args(["-c", &format!("{path}{text}")]).process_group(0);
        let mut child =
            child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut out, &mut line).unwrap();
            line
        };
        let Some((Said::Start(process), _)) = find(line().as_bytes(), "MARK") else {
            let mut more = String::new();
            let _ = std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut more);
            panic!("{shell}: {more}")
        };
        assert_eq!((process.pid, process.group), (child.id(), child.id()), "{shell}");
        let sleeper: u32 = line().trim().parse().unwrap();
        assert_eq!(line(), "lives\n", "{shell}");
        let ended = login("sh", &format!("{path}{}", end("MARK", &Privilege::AsIs, process).unwrap()));
        assert!(ended.status.success() || ended.status.signal().is_some(), "{shell}: {ended:?}");
        assert!(child.wait().unwrap().signal().is_some(), "{shell}");
        let state = std::fs::read_to_string(format!("/proc/{sleeper}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{shell}: {state}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_group_that_is_not_ours_alone_is_not_told() {
    let output = Command::new("sh").args(["-c", &format!("( {} )", plain(&["true"]))]).output().unwrap();
    let (said, ..) = said(&output);
    assert!(matches!(said, Said::Start(Process { group: 0, .. })), "{said:?}");
}

#[test]
fn programs_that_are_not_there() {
    for shell in shells() {
        for program in ["kwdb-scale-no-such-program", "/nonexistent/x", "/", "/etc/passwd", "a*"] {
            let output = login(shell, &plain(&[program, "x"]));
            assert_eq!(said(&output).0, Said::NoProgram, "{shell} {program}");
        }
    }
    for argv in [&[][..], &[""], &["-c"]] {
        let error =
            run("MARK", &Privilege::AsIs, &words(argv), &BTreeMap::new(), Input::Empty, Backstop::Itself);
        assert!(error.is_err(), "{argv:?}");
    }
}

#[test]
fn the_environment() {
    let env: BTreeMap<_, _> =
        [("A".to_owned(), "it's\n$x".to_owned()), ("KWBASE_B".to_owned(), "b".to_owned())].into();
    for shell in shells() {
        let line =
            run("MARK", &Privilege::AsIs, &words(&["env"]), &env, Input::Empty, Backstop::Itself).unwrap().0;
        let (_, out, _) = said(&login(shell, &line));
        let has = |line: &str| out.lines().any(|l| l == line);
        assert!(has("A=it's") && has("$x") && has("KWBASE_B=b") && has("LC_ALL=C"), "{shell}: {out}");
        assert!(!out.contains("KWBASE_LEFT_OVER"), "{shell}: {out}");
    }
    let bad = [("A B".to_owned(), String::new())].into();
    assert!(run("MARK", &Privilege::AsIs, &words(&["env"]), &bad, Input::Empty, Backstop::Itself).is_err());
}

#[test]
fn limits_of_a_line() {
    let long = "x".repeat(LONGEST_LINE);
    for arg in ["a\0hunter2", &long] {
        let error = run(
            "MARK",
            &Privilege::AsIs,
            &words(&["echo", arg]),
            &BTreeMap::new(),
            Input::Empty,
            Backstop::Itself,
        );
        let error = error.unwrap_err().to_string();
        assert!(!error.contains("hunter2") && !error.contains("xxx"), "{error}");
    }
}

#[test]
fn sudo_stands_in_front() {
    let user = Some("kaiwudb".to_owned());
    let argv = words(&["true"]);
    let line = |privilege: &Privilege| {
        run("MARK", privilege, &argv, &BTreeMap::new(), Input::Empty, Backstop::Itself).unwrap().0
    };
    assert!(line(&Privilege::Sudo { user: None }).starts_with("exec sudo -n -- sh -c "));
    assert!(line(&Privilege::Sudo { user: user.clone() }).starts_with("exec sudo -n -u kaiwudb -- sh -c "));
    let password = kwdb_scale_core::secret::Secret::new("hunter2");
    let with_password = line(&Privilege::SudoPassword { user, password });
    assert!(
        with_password.starts_with("exec sudo -S -p MARK-password: -u kaiwudb -- sh -c "),
        "{with_password}"
    );
    assert!(!with_password.contains("hunter2"));
}

#[test]
fn marks_differ_and_need_no_quotes() {
    let (a, b) = (mark(), mark());
    assert_ne!(a, b);
    assert_eq!(quote::quote(&a), a);
}

#[test]
fn an_output_that_ends_within_the_start_is_told_from_other_words() {
    let mark = mark();
    let start = format!("{mark} start 4194304 4194304");
    for length in MARK.len()..=start.len() {
        let cut = &start[..length];
        assert!(ends_in_start(format!("motd\nno newline {cut}").as_bytes(), &mark), "{cut}");
    }
    let repeated = format!("unknown command: exec sh -c 'x' kwdb-scale {mark} \"$$\" 0 id");
    let (asked, other) = (prompt(&mark), format!("{}1", &mark[..mark.len() - 1]));
    let (before, tail) = (format!("{start}\nx"), format!("{start}x"));
    let words = ["", "kwdb-scale", "kwdb-scale-host $", &repeated, &asked, &before, &tail];
    for words in words {
        assert!(!ends_in_start(words.as_bytes(), &mark), "{words}");
    }
    assert!(mark == other || !ends_in_start(other.as_bytes(), &mark), "another command's");
}

#[test]
fn nonsense_is_not_a_process() {
    for line in [
        "MARK start 1 1\n",
        "MARK start 0 0\n",
        "MARK start x 2\n",
        "MARK start 5 1\n",
        "MARK \n",
        "MARK else\n",
    ] {
        assert_eq!(find(line.as_bytes(), "MARK").unwrap().0, Said::Nonsense, "{line}");
    }
    assert_eq!(find(b"noise MARK start 5 5", "MARK"), None, "not complete");
    let asked = format!("{}\r\nMARK start 5 5\r\nrest", prompt("MARK"));
    let (said, at) = find(asked.as_bytes(), "MARK").unwrap();
    assert_eq!((said, &asked[at..]), (Said::Start(Process { pid: 5, group: 5 }), "rest"));
    assert_eq!(find(prompt("MARK").as_bytes(), "MARK"), None);
    assert_eq!(
        find(b"noise MARK start 5 0\nrest", "MARK"),
        Some((Said::Start(Process { pid: 5, group: 0 }), 21))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text that can be an argument arrives as it is, through the login shell and ours.
    #[test]
    fn arguments_arrive(args in prop::collection::vec("[^\0]{0,40}|[ -~\n\t'\"\\\\$`!*?~]{0,40}", 0..6)) {
        let mut argv = words(&["printf", "%s\\0", "first"]);
        argv.extend(args.iter().cloned());
        let line = run("MARK", &Privilege::AsIs, &argv, &BTreeMap::new(), Input::Empty, Backstop::Itself).unwrap().0;
        for shell in shells() {
            let (_, out, err) = said(&login(shell, &line));
            let arrived: Vec<&str> = out.split_terminator('\0').skip(1).collect();
            prop_assert_eq!(&arrived, &args, "{}: {}", shell, err);
        }
    }
}
