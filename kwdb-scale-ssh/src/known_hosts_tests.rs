//! The rules of known_hosts one by one, and the matching against `ssh-keygen -F` on generated files.

use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Keys made for these tests; nothing uses them.
const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const ED2: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g";
/// A certificate of the first.
const ED_CERT: &str = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAILaHZZ6HnQQzNYY1KXeu6HAdXzO82qPEtZLqvyWd0hIzAAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fAAAAAAAAAAAAAAACAAAAAXQAAAAFAAAAAWgAAAAAAAAAAP//////////AAAAAAAAAAAAAAAAAAAAMwAAAAtzc2gtZWQyNTUxOQAAACB1mRLBbclZ77aNBslAj634+kj0S7xLUeC3pI6uOhrW7gAAAFMAAAALc3NoLWVkMjU1MTkAAABAlBYsngNCIdnKsCLY60NK60GiW1uHZkXw0Vov0D7+bbOGesJ5CmKJgAD+tU/zzpVWQIgJQ9stWndez2qPBUl0CA==";

fn key(text: &str) -> KeyData {
    PublicKey::from_openssh(text).unwrap().into()
}

fn known(text: &str, name: &str) -> Known {
    let mut known = Known::default();
    known.add(Path::new("kh"), text, name);
    known
}

fn judged(text: &str, name: &str, presented: &str) -> Verdict {
    known(text, name).judge(&key(presented))
}

fn at(line: usize) -> Place {
    Place { file: Path::new("kh").into(), line }
}

#[test]
fn a_known_key_is_trusted_whatever_its_comment() {
    assert_eq!(judged(&format!("h {ED} a comment\n"), "h", ED), Verdict::Trusted);
    assert_eq!(judged(&format!("\th\t{ED}\r\n"), "h", ED), Verdict::Trusted);
}

#[test]
fn another_key_is_a_change_at_its_line() {
    let text = format!("# a comment\n\nother {ED}\nh {ED2}\n");
    assert_eq!(judged(&text, "h", ED), Verdict::Changed(at(4)));
}

#[test]
fn any_of_several_keys_of_a_type_will_do() {
    assert_eq!(judged(&format!("h {ED2}\nh {ED}\n"), "h", ED), Verdict::Trusted);
}

#[test]
fn a_revoked_key_is_refused_even_if_it_also_stands_in_a_plain_line() {
    assert_eq!(judged(&format!("h {ED}\n@revoked * {ED}\n"), "h", ED), Verdict::Revoked(at(2)));
    // Of another host only.
    assert_eq!(judged(&format!("h {ED}\n@revoked x {ED}\n"), "h", ED), Verdict::Trusted);
}

#[test]
fn a_certificate_revokes_its_key() {
    assert_eq!(judged(&format!("h {ED}\n@revoked h {ED_CERT} x\n"), "h", ED), Verdict::Revoked(at(2)));
    assert_eq!(judged(&format!("h {ED2}\n@revoked h {ED_CERT}\n"), "h", ED2), Verdict::Trusted);
    let mut listed = Known::default();
    listed.revoke(Path::new("kh"), &format!("{ED_CERT} x\n")).unwrap();
    assert_eq!(listed.judge(&key(ED)), Verdict::Revoked(at(1)));
}

/// As for OpenSSH: its key is an authority's, and on a plain line it is another key than the one that is presented.
#[test]
fn certificates_on_other_lines() {
    let text = format!("@cert-authority h {ED_CERT}\n");
    assert!(known(&text, "h").is_authority(&key(ED)));
    assert_eq!(judged(&text, "h", ED), Verdict::Unknown);
    let text = format!("h {ED_CERT}\n");
    assert_eq!(judged(&text, "h", ED), Verdict::Changed(at(1)));
    assert_eq!(known(&text, "h").algorithms().count(), 0);
}

#[test]
fn what_is_revoked_must_be_readable() {
    let base64 = ED.split_once(' ').unwrap().1;
    let cases = ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519 !", "1024 65537 1"].map(str::to_owned);
    for rest in cases.into_iter().chain([format!("ssh-rsa {base64}"), ED_CERT.replace("AAAA", "AAAB")]) {
        let text = format!("h {ED}\n@revoked h {rest}\n");
        assert_eq!(known(&text, "h").unreadable, Some(at(2)), "{text}");
        assert_eq!(known(&text, "other").unreadable, None, "{text}");
        assert_eq!(known(&text.replace("revoked", "cert-authority"), "h").unreadable, None, "{text}");
    }
}

#[test]
fn an_authority_is_no_host_key() {
    let text = format!("@cert-authority *.example.com {ED}\n");
    assert_eq!(judged(&text, "a.example.com", ED), Verdict::Unknown);
    assert!(known(&text, "a.example.com").is_authority(&key(ED)));
    assert!(!known(&text, "a.example.org").is_authority(&key(ED)));
}

#[test]
fn a_tab_ends_a_marker() {
    assert_eq!(judged(&format!("@revoked\th {ED}\n"), "h", ED), Verdict::Revoked(at(1)));
}

#[test]
fn unusable_lines_are_skipped() {
    let text = format!("h\nh ssh-ed25519\nh ssh-new AAAA\nh ssh-ed25519 !!!\n@new h {ED}\n@revoked\nh {ED}");
    let known = known(&text, "h");
    assert_eq!(known.entries.iter().map(|e| e.place.line).collect::<Vec<_>>(), [7]);
}

#[test]
fn patterns() {
    let cases = [
        ("h", "h", true),
        ("h", "hh", false),
        ("a,h,b", "h", true),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com,!a.example.com", "a.example.com", false),
        ("!a.example.com,*.example.com", "b.example.com", true),
        ("!a.example.com", "b.example.com", false),
        ("H?ST", "host", true),
        ("[h]:2222", "h", false),
        ("[*]:2222", "[h]:2222", true),
        ("h", "[h]:2222", false),
        ("**a*?b*", "xaybz", true),
        ("", "h", false),
    ];
    for (hosts, name, expected) in cases {
        assert_eq!(matches(hosts, name), expected, "{hosts} {name}");
    }
}

#[test]
fn names() {
    assert_eq!(lookup_name("Host", 22), "host");
    assert_eq!(lookup_name("Host", 2222), "[host]:2222");
    assert_eq!(lookup_name("::1", 22), "::1");
    assert_eq!(lookup_name("::1", 2), "[::1]:2");
}

#[test]
fn a_written_line_is_found_again() {
    let text = line("[h]:2222", false, &key(ED)).unwrap();
    assert_eq!(text, format!("[h]:2222 {ED}\n"));
    assert_eq!(judged(&text, "[h]:2222", ED), Verdict::Trusted);
}

#[test]
fn a_hostile_pattern_takes_no_time() {
    let pattern = "*a".repeat(500);
    assert!(!glob(pattern.as_bytes(), "a".repeat(400).as_bytes()));
}

/// The lines, with their markers, that `ssh-keygen -F` finds.
fn oracle(file: &Path, name: &str) -> Vec<(usize, Marker)> {
    let output = Command::new("ssh-keygen").arg("-F").arg(name).arg("-f").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found = text.lines().filter_map(|l| l.strip_prefix(&format!("# Host {name} found: line ")));
    found
        .map(|l| {
            let (number, marker) = l.split_once(' ').unwrap_or((l, ""));
            let marker = match marker.trim() {
                "CA" => Marker::CertAuthority,
                "REVOKED" => Marker::Revoked,
                "" => Marker::None,
                other => panic!("an unknown marker of ssh-keygen: {other}"),
            };
            (number.parse().unwrap(), marker)
        })
        .collect()
}

fn hosts_field() -> impl Strategy<Value = String> {
    let label =
        prop::sample::select(vec!["h", "H", "n1", "n2", "*", "?1", "n?", "10.0.0.1", "::1", "a*b", "axxb"]);
    let host = prop::collection::vec(label, 1..3).prop_map(|labels| labels.join("."));
    let pattern = (any::<bool>(), host, prop::sample::select(vec![0, 22, 2222, 2200])).prop_map(
        |(negated, host, port)| {
            let host = if port == 0 { host } else { format!("[{host}]:{port}") };
            if negated { format!("!{host}") } else { host }
        },
    );
    prop::collection::vec(pattern, 1..4).prop_map(|patterns| patterns.join(","))
}

fn file_line() -> impl Strategy<Value = String> {
    // No tab ends a marker here: OpenSSH 9 skips such a line although its manual allows any blank. We read it.
    let start = ["", " ", "\t", "@revoked ", "@cert-authority ", "@revoked  \t", "#", "@other "];
    let start = prop::sample::select(start.to_vec());
    let gap = prop::sample::select(vec![" ", "\t", "  \t "]);
    let end = prop::sample::select(vec!["", " comment", "\tn1 # n2", "   "]);
    let key = prop::sample::select(vec![ED, ED2, ED_CERT]);
    (start, hosts_field(), gap, key, end)
        .prop_map(|(start, hosts, gap, key, end)| format!("{start}{hosts}{gap}{key}{end}"))
}

const NAMES: [&str; 12] = [
    "h",
    "n1",
    "n2",
    "n1.h",
    "10.0.0.1",
    "::1",
    "[::1]:2222",
    "[n1]:2222",
    "[n2]:2200",
    "axxb",
    "[axxb.n1]:2222",
    "n1.n2",
];

/// Runs where OpenSSH is installed; in CI it must be.
fn has_ssh_keygen() -> bool {
    let there = Command::new("ssh-keygen").arg("-?").output().is_ok();
    assert!(there || std::env::var_os("CI").is_none(), "ssh-keygen is not installed");
    if !there {
        eprintln!("not run, because ssh-keygen is not installed: the comparison of known_hosts with OpenSSH");
    }
    there
}

#[test]
fn the_same_lines_as_openssh() {
    if !has_ssh_keygen() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    let lines = prop::collection::vec(file_line(), 1..12);
    let case = (lines, prop::sample::select(NAMES.to_vec()));
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    runner
        .run(&case, |(lines, name)| {
            let text = lines.join("\n") + "\n";
            std::fs::write(&file, &text).unwrap();
            let ours: Vec<_> = known(&text, name).entries.iter().map(|e| (e.place.line, e.marker)).collect();
            prop_assert_eq!(ours, oracle(&file, name), "{} in\n{}", name, text);
            Ok(())
        })
        .unwrap();
}

#[test]
fn hashed_names_as_openssh_writes_them() {
    if !has_ssh_keygen() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    let plain: String = NAMES.iter().map(|name| format!("{name} {ED}\n")).collect();
    std::fs::write(&file, plain).unwrap();
    let hashed = Command::new("ssh-keygen").arg("-H").arg("-f").arg(&file).output().unwrap();
    assert!(hashed.status.success(), "{hashed:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches("|1|").count(), NAMES.len(), "{text}");
    for name in NAMES.iter().chain(&["n3", "[n1]:22"]) {
        let ours: Vec<_> = known(&text, name).entries.iter().map(|e| (e.place.line, e.marker)).collect();
        assert_eq!(ours, oracle(&file, name), "{name}");
    }
}
