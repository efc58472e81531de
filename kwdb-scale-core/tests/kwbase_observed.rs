//! The parsers on the recorded output of a real KWDB V3.2.1. Every file of `data/observed` is read: each parses, or
//! stands in a short list with the reason.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kwdb_scale_core::kwbase::error::classify;
use kwdb_scale_core::kwbase::output::{self, DrainProgress};
use kwdb_scale_core::kwbase::parse::{self, ParseError};
use kwdb_scale_core::ports::{CommandEnd, CommandOutput, DecommissionStatus, PortErrorKind};
use kwdb_scale_core::rows::{LivenessRow, NodeRow};
use kwdb_scale_core::topology::{Address, HostName, NodeId, StartMode};

/// One recording: first line date, then `$ command`, `--- stdout`, `--- stderr`, `--- exit code: N`.
struct Recording {
    command: String,
    output: CommandOutput,
}

fn observed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/observed")
}

fn recording(name: &str) -> Recording {
    let text = std::fs::read_to_string(observed().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (head, rest) = text.split_once("--- stdout\n").unwrap_or_else(|| panic!("{name} is no recording"));
    let (stdout, rest) = rest.rsplit_once("--- stderr\n").unwrap();
    let (stderr, code) = rest.rsplit_once("--- exit code: ").unwrap();
    Recording {
        command: head.lines().find_map(|l| l.strip_prefix("$ ")).unwrap().to_owned(),
        output: CommandOutput {
            end: CommandEnd::Exit(code.trim().parse().unwrap()),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            truncated: false,
        },
    }
}

fn stdout(name: &str) -> String {
    recording(name).output.stdout
}

fn all_files() -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut dirs = vec![observed()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.insert(path.strip_prefix(observed()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files
}

/// Formats that are for people: this library always asks for csv.
const NOT_FOR_MACHINES: &[&str] = &[
    "20-status-3/format-html.txt",
    "20-status-3/format-raw.txt",
    "20-status-3/format-records.txt",
    "20-status-3/format-sql.txt",
    "20-status-3/format-table.txt",
    "20-status-3/id-2-all-records.txt",
    "20-status-3/node-ls-table.txt",
    "42-decommission-bad/07-status-after.txt",
    "92-final-4-node-check.txt",
];

/// Output of a start, kept without the frame of a recording or inside another command's.
const STARTS: &[(&str, bool)] = &[
    ("30-scale-out/02-start-node4.txt", false),
    ("70-secure/05-start4.txt", false),
    ("80-single-replica/00-cmd.txt", true),
];

fn failures() -> BTreeMap<&'static str, PortErrorKind> {
    BTreeMap::from([
        ("02-init-again.txt", PortErrorKind::Other),
        ("20-status-3/id-99.txt", PortErrorKind::UnknownNode),
        ("20-status-3/id-bad.txt", PortErrorKind::Config),
        ("20-status-3/id-two.txt", PortErrorKind::Config),
        ("20-status-3/unreachable.txt", PortErrorKind::Unreachable),
        ("27-http-drain/06-quit-again-5-down.txt", PortErrorKind::Unreachable),
        ("42-decommission-bad/01-id-99-wait-all.txt", PortErrorKind::UnknownNode),
        ("42-decommission-bad/02-id-99-wait-none.txt", PortErrorKind::UnknownNode),
        ("42-decommission-bad/03-noargs.txt", PortErrorKind::Config),
        ("42-decommission-bad/04-abc.txt", PortErrorKind::Config),
        ("42-decommission-bad/05-recommission-99.txt", PortErrorKind::UnknownNode),
        ("42-decommission-bad/06-wait-bogus.txt", PortErrorKind::Config),
        ("43-decommission-finish/13-status4-plain.txt", PortErrorKind::UnknownNode),
        ("62-five-nodes/01-decommission-4-and-99-wait-none.txt", PortErrorKind::UnknownNode),
        ("62-five-nodes/07-sql-on-drained.txt", PortErrorKind::ShuttingDown),
        ("62-five-nodes/07c-status-via-drained.txt", PortErrorKind::ShuttingDown),
        ("70-secure/07-status-insecure-flag.txt", PortErrorKind::Authentication),
        ("70-secure/08-status-nocerts.txt", PortErrorKind::Config),
        ("70-secure/09-status-ca-only.txt", PortErrorKind::Authentication),
        ("70-secure/27-quit-insecure.txt", PortErrorKind::Tls),
        ("80-single-replica/05-decommission-3.txt", PortErrorKind::SingleReplica),
        ("80-single-replica/08-decommission-2-none.txt", PortErrorKind::SingleReplica),
    ])
}

/// Fields of a line as plain text, for the comparison with what the parser made of it.
fn first_fields(text: &str) -> Vec<u32> {
    text.lines().filter_map(|l| l.split([',', '\t']).next()?.parse().ok()).collect()
}

#[test]
fn every_file_parses_or_is_listed() {
    let mut failing = failures();
    let mut for_people: BTreeSet<&str> = NOT_FOR_MACHINES.iter().copied().collect();
    let (mut statuses, mut marks) = (0, 0);
    for file in all_files() {
        if STARTS.iter().any(|(name, _)| *name == file) {
            continue;
        }
        // Answers of SQL, which other tests read.
        if file.ends_with(".csv") {
            continue;
        }
        let r = recording(&file);
        if r.command.starts_with("kwbase sql") && r.output.end.success() {
            continue;
        }
        let words: Vec<&str> = r.command.split_whitespace().skip_while(|w| *w != "kwbase").skip(1).collect();
        let node_command = words.first() == Some(&"node");
        let verb = if node_command { words[1] } else { words[0] };
        let text = &r.output.stdout;

        if let Some(kind) = failing.remove(file.as_str()) {
            assert!(!r.output.end.success());
            let error = classify(&HostName::new("n1"), verb, &r.output);
            assert_eq!(error.kind(), kind, "{file}: {}", error.chain());
            continue;
        }
        // 124: the recorder ended the command, what it had said until then is to be understood.
        assert!(matches!(r.output.end, CommandEnd::Exit(0 | 124)), "{file} fails and is not listed");
        if for_people.remove(file.as_str()) {
            let parsed = if verb == "ls" {
                parse::node_ls(text).map(drop)
            } else {
                parse::node_status(text).map(drop)
            };
            assert!(parsed.is_err(), "{file} was understood all the same: {parsed:?}");
            continue;
        }
        match verb {
            "status" => {
                let rows = parse::node_status(text).unwrap_or_else(|e| panic!("{file}: {e}"));
                let ids: Vec<u32> = rows.iter().map(|r| r.node_id.0).collect();
                assert_eq!(ids, first_fields(text), "{file}");
                for row in &rows {
                    let base = [row.address.is_some(), row.build.is_some(), row.is_live.is_some()];
                    assert_eq!(base, [true; 3], "{file}");
                    assert!(row.started_at.is_some() && row.updated_at >= row.started_at, "{file}");
                    let decommission = r.command.contains("--decommission") || r.command.contains("--all");
                    assert_eq!(row.is_decommissioning.is_some(), decommission, "{file}");
                    let ranges = r.command.contains("--ranges") || r.command.contains("--all");
                    assert_eq!(row.ranges_underreplicated.is_some(), ranges, "{file}");
                }
                statuses += 1;
            }
            "ls" => assert_eq!(parse::node_ls(text).unwrap(), [1, 2, 3].map(NodeId), "{file}"),
            "decommission" | "recommission" => {
                let out = parse::decommission(text).unwrap_or_else(|e| panic!("{file}: {e}"));
                assert_eq!(out.tables.len(), text.matches("is_live").count(), "{file}");
                let ids: Vec<u32> = out.tables.iter().flatten().map(|s| s.node.0).collect();
                assert_eq!(ids, first_fields(text), "{file}");
                assert_eq!(out.no_more_data, text.contains("No more data"), "{file}");
                assert!(out.last().iter().all(|s| s.decommissioning == (verb == "decommission")), "{file}");
                marks += 1;
            }
            "drain" | "quit" => {
                let last = output::drain_progress(&r.output.stderr).pop();
                assert_eq!(last, Some(DrainProgress { remaining: 0, complete: true }), "{file}");
                assert_eq!(text, "ok\n", "{file}");
            }
            "version" => assert_eq!(output::version(text).unwrap().build, "V3.2.1"),
            "init" => assert_eq!(text, "Cluster successfully initialized\n"),
            other => panic!("{file}: nothing reads '{other}'"),
        }
    }
    assert!(failing.is_empty(), "not there: {failing:?}");
    assert!(for_people.is_empty(), "not there: {for_people:?}");
    assert_eq!((statuses, marks), (96, 15));
}

#[test]
fn status_to_the_last_column() {
    let rows = parse::node_status(&stdout("20-status-3/--all.csv.txt")).unwrap();
    let row = &rows[1];
    assert_eq!(row.node_id, NodeId(2));
    assert_eq!(row.address, Some(Address::new("127.0.0.1:26258")));
    assert_eq!(row.build.as_deref(), Some("V3.2.1"));
    assert_eq!(row.started_at.unwrap().to_string(), "2026-11-23T12:54:12.865747Z");
    assert_eq!(row.locality.as_ref().unwrap().to_string(), "region=NODE2");
    assert_eq!(row.start_mode, Some(StartMode::MultiReplica));
    assert_eq!((row.replicas_leaders, row.replicas_leaseholders, row.ranges), (Some(5), Some(5), Some(57)));
    assert_eq!((row.ranges_unavailable, row.ranges_underreplicated), (Some(0), Some(0)));
    assert_eq!((row.live_bytes, row.key_bytes, row.value_bytes), (Some(1165023), Some(228260), Some(950864)));
    assert_eq!((row.intent_bytes, row.system_bytes), (Some(0), Some(24496)));
    assert_eq!(
        (row.gossiped_replicas, row.is_decommissioning, row.is_draining),
        (Some(57), Some(false), Some(false))
    );

    let node = NodeRow::from(row);
    assert_eq!(
        (node.node_id, node.is_live, node.ranges, node.leases),
        (NodeId(2), Some(true), Some(57), None)
    );
    let liveness = LivenessRow::from(row);
    assert_eq!((liveness.decommissioning, liveness.draining), (Some(false), Some(false)));
    assert_eq!((liveness.expiration, liveness.epoch, liveness.upgrading), (None, None, None));
}

#[test]
fn csv_and_tsv_say_the_same() {
    let csv = parse::node_status(&stdout("20-status-3/format-csv.txt")).unwrap();
    let tsv = parse::node_status(&stdout("20-status-3/format-tsv.txt")).unwrap();
    assert_eq!(csv, tsv);
    assert_eq!(csv[0].gossiped_replicas, None);
}

#[test]
fn a_removed_node_stays_in_the_decommission_view() {
    let rows = parse::node_status(&stdout("43-decommission-finish/14-status4-decommission.txt")).unwrap();
    let row = &rows[0];
    assert_eq!((row.is_available, row.is_live), (Some(false), Some(false)));
    assert_eq!((row.is_decommissioning, row.is_draining), (Some(true), Some(true)));
}

#[test]
fn decommission_tables_in_order_and_the_closing_sentence() {
    let out =
        parse::decommission(&stdout("43-decommission-finish/01-decommission-4-wait-all-csv.txt")).unwrap();
    let replicas: Vec<u64> = out.tables.iter().map(|t| t[0].replicas).collect();
    assert_eq!(replicas, [4, 3, 2, 1, 0]);
    assert!(out.no_more_data);

    let marked =
        parse::decommission(&stdout("40-decommission-none/01-decommission-4-wait-none.txt")).unwrap();
    let expected = DecommissionStatus {
        node: NodeId(4),
        is_live: true,
        replicas: 54,
        decommissioning: true,
        draining: false,
    };
    assert_eq!(marked.tables, [vec![expected]]);
    assert!(!marked.no_more_data);

    let both =
        parse::decommission(&stdout("62-five-nodes/09-decommission-4-and-5-wait-all-via-node5.txt")).unwrap();
    assert_eq!(both.last().iter().map(|s| (s.node.0, s.replicas)).collect::<Vec<_>>(), [(4, 0), (5, 0)]);

    let hanging = parse::decommission(&stdout("44-three-nodes/01-decommission-3-wait-all.txt")).unwrap();
    assert_eq!((hanging.tables.len(), hanging.last()[0].replicas, hanging.no_more_data), (1, 79, false));
}

#[test]
fn warnings_are_kept_and_are_no_errors() {
    let said = |f: &str| output::diagnostics(&recording(f).output.stderr);
    let again = said("43-decommission-finish/06-decommission-4-again-none.txt");
    assert_eq!(again.warnings, ["node 4 is already decommissioning or decommissioned"]);
    assert_eq!(again.error, None);
    assert_eq!(
        said("40-decommission-none/05-recommission-4-again.txt").warnings,
        ["node 4 is not decommissioned"]
    );
    let quit = said("43-decommission-finish/09-quit-4.txt");
    assert!(quit.log[0].contains("cannot reuse client connection"), "{quit:?}");
    assert_eq!((quit.error, quit.warnings.len()), (None, 0));
}

#[test]
fn errors_taken_apart() {
    let said = |f: &str| output::diagnostics(&recording(f).output.stderr);
    let drained = said("62-five-nodes/07c-status-via-drained.txt");
    assert_eq!(drained.error.as_deref(), Some("server is not accepting clients"));
    assert_eq!(drained.sqlstate.as_deref(), Some("57P01"));
    assert_eq!(drained.failed.as_deref(), Some("node status"));
    let twice = said("02-init-again.txt");
    assert_eq!(
        twice.error.as_deref(),
        Some("rpc error: code = Unknown desc = cluster has already been initialized")
    );
    assert_eq!(twice.hint.as_deref(), Some("Please ensure all your start commands are using --join."));
    let dial = said("20-status-3/unreachable.txt").error.unwrap();
    assert!(
        dial.starts_with("cannot dial server.\n") && dial.ends_with("connect: connection refused"),
        "{dial}"
    );
}

#[test]
fn error_messages_are_one_line_with_everything_in_the_source() {
    for (file, _) in failures() {
        let r = recording(file);
        let error = classify(&HostName::new("n1"), "node status", &r.output);
        let text = error.to_string();
        assert!(!text.contains('\n') && text.starts_with("kwbase node status on n1: "), "{text}");
        let said = output::diagnostics(&r.output.stderr).error.unwrap();
        let first = said.lines().next().unwrap().to_owned();
        assert!(error.chain().contains(&first), "{file}: {}", error.chain());
    }
    let partial = recording("62-five-nodes/01-decommission-4-and-99-wait-none.txt");
    let error = classify(&HostName::new("n1"), "node decommission", &partial.output);
    assert!(error.to_string().contains("may have been marked all the same"), "{error}");
    assert!(error.kind().may_have_been_done());
}

#[test]
fn starts() {
    for (file, waiting) in STARTS {
        let text = std::fs::read_to_string(observed().join(file)).unwrap();
        let out = output::start(&text);
        assert_eq!((out.waiting_to_join, out.failure), (*waiting, None), "{file}");
        let shown = output::last_lines(&text, 8);
        assert!(!shown.contains("INSECURE MODE") && !shown.contains("no confidentiality"), "{shown}");
    }
}

#[test]
fn drain_lines() {
    let stderr = recording("50-client-during-shutdown/02-quit-4.txt").output.stderr;
    let all = output::drain_progress(&stderr);
    assert_eq!(
        all,
        [(55, false), (0, true)].map(|(remaining, complete)| DrainProgress { remaining, complete })
    );
}

#[test]
fn columns_may_drift() {
    // Moved, added, dropped, NULL, a zone behind the time, quotes, a greeting above and CRLF.
    let text = "Welcome to host n1\r\n\"is_live\",status,started_at,\"id\",address,locality\r\n\
                true,fine,2026-11-23 12:54:11+00:00,7,NULL,\"region=a,zone=b\"\r\n";
    let rows = parse::node_status(text).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].node_id, rows[0].is_live), (NodeId(7), Some(true)));
    assert_eq!(rows[0].started_at.unwrap().to_string(), "2026-11-23T12:54:11Z");
    assert_eq!((&rows[0].address, rows[0].is_available, &rows[0].start_mode), (&None, None, &None));
    assert!(rows[0].locality.as_ref().unwrap().has("zone", "b"));
}

#[test]
fn what_cannot_be_trusted_is_an_error() {
    let no_header = parse::node_status("ERROR: no\n").unwrap_err();
    assert!(matches!(no_header, ParseError::NoHeader { .. }));
    let short = parse::node_status("id,address,is_live\n1,a:1,true\n2,b:1\n").unwrap_err();
    assert_eq!(short, ParseError::Fields { line: 3, fields: 2, columns: 3 });
    let word = parse::node_status("id,is_live\n1,perhaps\n").unwrap_err();
    assert!(matches!(word, ParseError::Value { line: 2, column: "is_live", .. }), "{word}");
    // An unknown count of replicas is not zero.
    let head = "id,is_live,replicas,is_decommissioning,is_draining\n";
    let null = parse::decommission(&format!("{head}4,true,NULL,true,false\n")).unwrap_err();
    assert_eq!(null, ParseError::Missing { line: 2, column: "replicas" });
    let gone =
        parse::decommission("id,is_live,is_decommissioning,is_draining\n4,true,true,false\n").unwrap_err();
    assert_eq!(gone, ParseError::Missing { line: 2, column: "replicas" });
    assert!(parse::node_ls("").is_err());
    assert!(output::version("kwbase\n").is_err());
}

#[test]
fn timestamps_with_and_without_zone() {
    let expected = "2026-11-23T12:54:11.2Z";
    for text in ["2026-11-23 12:54:11.2", "2026-11-23 12:54:11.2+00:00", "2026-11-23 20:54:11.2 +08:00"] {
        assert_eq!(parse::timestamp(text).map(|t| t.to_string()).as_deref(), Some(expected), "{text}");
    }
    assert_eq!(parse::timestamp("yesterday"), None);
}
