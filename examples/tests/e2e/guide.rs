//! The guide, command by command: what `docs/ssh-guide.md` tells a person to type does what it says.
//!
//! A command must end with 0, or with the code that the guide itself says behind it (`# exit 3`). Only what a person does between
//! commands is put in: directories of the case's own, the answer to a question, the token that a plan ended with.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::netns;
use crate::support::{Case, KWSCALE};

const GUIDE: &str = include_str!("../../../docs/ssh-guide.md");
const EXIT: &str = "# exit ";
const KILLED: &str = "timeout -s KILL 2 ";

/// Sections 1 to 7, which begin with a lab and end with its end.
pub(crate) fn guide_of_the_kwbase_method(case: &Case) {
    follow(case, "\n## 1. ", "\n## 8. ", "/tmp/ssh-lab", 40);
}

/// Section 8, the same with `deploy.sh`.
pub(crate) fn guide_of_the_script(case: &Case) {
    follow(case, "\n## 8. ", "\u{0}", "/tmp/deploy-lab", 15);
}

fn follow(case: &Case, from: &str, to: &str, written: &str, least: usize) {
    if !netns::possible("the guide") {
        return;
    }
    let text = &GUIDE[GUIDE.find(from).expect("the section is there")..];
    let text = &text[..text.find(to).unwrap_or(text.len())];
    let commands: Vec<&str> = text
        .split("```sh\n")
        .skip(1)
        .flat_map(|block| block.split("```").next().unwrap_or_default().lines())
        .collect();
    assert!(commands.len() >= least, "the guide has its commands: {commands:?}");

    let place = case.place();
    let (home, lab) = (place.path(""), place.inside("").display().to_string());
    let lab = lab.trim_end_matches('/');
    let programs = Path::new(KWSCALE).parent().unwrap().display();
    let path = format!("{programs}:{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut env = BTreeMap::from([("PATH".to_owned(), path)]);
    let mut token = None;
    for command in commands {
        let (line, exit) = command.split_once(EXIT).unwrap_or((command, "0"));
        let mut line = line.trim_end().replace(written, lab);
        if let Some((name, value)) = line.strip_prefix("export ").and_then(|set| set.split_once('=')) {
            env.insert(name.to_owned(), value.to_owned());
            continue;
        }
        if line.contains("TOKEN") {
            line = line.replace("TOKEN", token.as_deref().expect("a plan ended with a token"));
        }
        if line.starts_with("kwscale apply ") && !line.contains("--yes") {
            line += " --yes";
        }
        // How far it comes in that time depends on the machine.
        let killed = line.strip_prefix(KILLED).map(|rest| format!("exec {rest}"));
        let mut shell = Command::new("sh");
        shell
            .args(["-c", killed.as_ref().unwrap_or(&line)])
            .current_dir(&home)
            .env_remove("SSH_AUTH_SOCK")
            .envs(&env);
        let running = case.start_command(&mut shell, line);
        if killed.is_some() {
            case.until("the node is being emptied", 60, || running.stderr().contains("\n[2/4] "));
            running.signal(Signal::KILL);
            assert_eq!(running.end(case).code, None, "`{command}` was killed in the middle");
            continue;
        }
        let out = running.end(case);
        assert_eq!(out.code, exit.parse().ok(), "how `{command}` ended");
        let said = format!("{}\n{}", out.stdout, out.stderr);
        let said = said.split_once("--consent ");
        token = said.and_then(|(_, rest)| rest.split_whitespace().next()).map(str::to_owned).or(token);
    }
    assert!(!place.inside("").exists(), "the guide ends its lab");
}
