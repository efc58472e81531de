//! Properties: quoting is undone by a real shell, and no text whatever makes a parser panic.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::process::Command;

use kwdb_scale_core::kwbase::{KwbaseHost, Security, ddl, error, output, parse, quote};
use kwdb_scale_core::ports::{CommandEnd, CommandOutput};
use kwdb_scale_core::topology::{Address, HostName, NodeId, StartMode};
use proptest::prelude::*;

/// What a shell makes of `text`, a list of words.
fn words(text: &str) -> Vec<String> {
    let script = format!(r"printf '%s\0' {text}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    let all = String::from_utf8(output.stdout).unwrap();
    all.split_terminator('\0').map(str::to_owned).collect()
}

/// Words made of what shells treat specially, and of anything but NUL.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof!["[-'\"\\\\$`!*?~;&|<>(){}\\[\\]#=%^\n\t\r a]{0,12}", "[^\0]{0,12}", "--[a-z]{1,5}=[^\0]{0,6}"]
}

/// Table-like text: the parsers get past their first check.
fn tableish() -> impl Strategy<Value = String> {
    let field = "(id|address|is_live|replicas|NULL|true|-?[0-9]{1,21}|2026-11-23 12:54:11(\\.[0-9]{0,10})?|\"|[^\0]{0,4})";
    let line = (proptest::collection::vec(field, 1..6), prop_oneof![Just(","), Just("\t")])
        .prop_map(|(fields, separator)| fields.join(separator));
    proptest::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

fn parse_everything(text: &str) {
    let _ = parse::node_status(text);
    let _ = parse::node_ls(text);
    let _ = parse::decommission(text);
    let _ = parse::timestamp(text);
    let _ = output::version(text);
    let _ = output::drain_progress(text);
    let _ = output::diagnostics(text);
    let _ = output::last_lines(text, 3);
    let _ = ddl::classify(Some(text), text);
    if let Some(failure) = output::start(text).failure {
        assert!(!failure.advice().is_empty());
    }
    let out = CommandOutput {
        end: CommandEnd::Exit(1),
        stdout: String::new(),
        stderr: text.to_owned(),
        truncated: false,
    };
    let message = error::classify(&HostName::new("h"), "node ls", &out).to_string();
    assert!(!message.contains(['\n', '\u{1b}']), "{message:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_shell_gives_back_what_was_quoted(args in proptest::collection::vec(hostile(), 1..8)) {
        prop_assert_eq!(words(&quote::line(&args)), args);
    }
}

proptest! {
    #[test]
    fn parsers_never_panic(text in ".{0,200}") {
        parse_everything(&text);
    }

    #[test]
    fn parsers_never_panic_on_tables(text in tableish()) {
        parse_everything(&text);
    }

    #[test]
    fn cleaned_text_has_no_control_characters(text in "[\u{1b}\\[0-9;mA-Z\r\n\u{7}\u{9b}x]{0,40}") {
        let clean = output::clean(&text);
        prop_assert!(clean.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{:?}", clean);
    }

    #[test]
    fn rows_come_back_as_they_were_written(
        ids in proptest::collection::vec(any::<u32>(), 0..6),
        locality in "[a-z=,\" ]{0,10}",
        separator in prop_oneof![Just(b','), Just(b'\t')],
    ) {
        let mut writer = csv::WriterBuilder::new().delimiter(separator).from_writer(Vec::new());
        writer.write_record(["id", "locality", "is_live"]).unwrap();
        for id in &ids {
            writer.write_record([id.to_string().as_str(), &locality, "true"]).unwrap();
        }
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let rows = parse::node_status(&text).unwrap();
        prop_assert_eq!(rows.iter().map(|r| r.node_id.0).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn no_host_that_validates_builds_a_start_without_join(
        listen in proptest::option::of("[a-z:0-9,.-]{0,12}"),
        join in proptest::collection::vec("[a-z]{1,2}(:1)?", 0..3),
    ) {
        let mut host = KwbaseHost::new("h", Security::Insecure);
        host.listen_addr = listen.map(Address::new);
        prop_assume!(host.validate().is_ok());
        let join: Vec<Address> = join.into_iter().map(Address::new).collect();
        if let Ok(line) = host.start(&StartMode::MultiReplica, &join, None) {
            let flag = line.argv().iter().find_map(|a| a.strip_prefix("--join="));
            prop_assert!(flag.is_some_and(|seeds| !seeds.is_empty()));
        } else if host.listen_addr.is_none() {
            prop_assert!(join.is_empty());
        }
    }

    #[test]
    fn ids_are_sorted_and_single(nodes in proptest::collection::vec(1u32..9, 1..8)) {
        let host = KwbaseHost::new("h", Security::Insecure);
        let given: Vec<NodeId> = nodes.iter().copied().map(NodeId).collect();
        let line = host.node_recommission(&Address::new("a:1"), &given).unwrap();
        let ids: Vec<u32> = line.argv().iter().filter_map(|a| a.parse().ok()).collect();
        let mut expected = nodes;
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(ids, expected);
    }
}
