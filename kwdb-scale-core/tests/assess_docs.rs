//! `docs/checks.md` repeats the catalogue's table. `KWDB_SCALE_BLESS=1` writes it anew.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use kwdb_scale_core::assess::{OperationKind, catalogue};

fn table() -> String {
    let mut text = String::from(
        "| Check | What must hold, should hold, or is said | Scale-out | Scale-in | Replace | Fulfilled | Source |\n|---|---|---|---|---|---|---|\n",
    );
    for check in catalogue() {
        let say = |kind| check.severity(kind).map_or_else(|| "–".to_owned(), |s| s.to_string());
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | {} | {} | {} |\n",
            check.name,
            check.what,
            say(OperationKind::Out),
            say(OperationKind::In),
            say(OperationKind::Replace),
            say(OperationKind::Nothing),
            check.source
        ));
    }
    text
}

#[test]
fn the_documented_table_is_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/checks.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("<!-- table -->\n").unwrap();
    let (found, tail) = rest.split_once("<!-- /table -->").unwrap();
    if std::env::var_os("KWDB_SCALE_BLESS").is_some() {
        std::fs::write(&path, format!("{head}<!-- table -->\n{}<!-- /table -->{tail}", table())).unwrap();
        return;
    }
    assert_eq!(found, table(), "run this test with KWDB_SCALE_BLESS=1");
}

#[test]
fn every_check_is_named_once_and_every_note_of_the_page_has_one() {
    let mut names: Vec<&str> = catalogue().iter().map(|c| c.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/checks.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, page) = text.split_once("## What the KWDB page says").unwrap();
    let mut mapped = 0;
    for row in page.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| Page")) {
        let (_, checks) = row.trim_end_matches(" |").rsplit_once("| ").unwrap();
        let named: Vec<&str> = checks.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{row}");
        for name in named {
            assert!(names.contains(&name), "{name} is no check: {row}");
            mapped += 1;
        }
    }
    assert!(mapped > 20, "{mapped}");
}
