//! Results on standard output, talk on standard error.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use kwdb_scale_core::assess::{Finding, Severity};
use serde::Serialize;

use crate::failure::Failure;

/// The form of results.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON value.
    Json,
}

/// The first failure to write a result. Standard output is one for the whole process.
static LOST: OnceLock<String> = OnceLock::new();

/// Where words go, and how they look there.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    /// The form of results.
    pub format: Format,
    /// Whether standard error is a terminal: progress bars, and questions when standard input is one too.
    pub terminal: bool,
    /// Whether questions can be asked.
    pub can_ask: bool,
    colour_out: bool,
    colour_err: bool,
}

impl Ui {
    /// Looks at the standard streams and at `NO_COLOR`.
    pub fn new(format: Format) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let terminal = std::io::stderr().is_terminal();
        Self {
            format,
            terminal,
            can_ask: terminal && std::io::stdin().is_terminal(),
            colour_out: !no_colour && std::io::stdout().is_terminal(),
            colour_err: !no_colour && terminal,
        }
    }

    /// Whether results are JSON.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether standard error takes colours.
    pub fn colour(&self) -> bool {
        self.colour_err
    }

    /// A line of talk.
    pub fn say(&self, text: impl Display) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Text on standard output, a newline added where there is none.
    pub fn print(&self, text: impl Display) {
        let text = text.to_string();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let mut out = std::io::stdout().lock();
        match write!(out, "{text}{end}").and_then(|()| out.flush()) {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => drop(LOST.set(e.to_string())),
            // A reader that went away (`| head`) is no failure.
            _ => {}
        }
    }

    /// Why a result did not reach standard output, if one did not: a full disk, for example.
    pub fn lost(&self) -> Option<&'static str> {
        LOST.get().map(String::as_str)
    }

    /// A JSON value on standard output.
    ///
    /// # Errors
    /// A value that cannot be written as JSON.
    pub fn print_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Failure::other(format!("the result cannot be written as JSON: {e}")))?;
        self.print(text);
        Ok(())
    }

    /// A finding for standard output.
    pub fn finding(&self, finding: &Finding) -> String {
        let text = finding.to_string();
        let word = finding.severity.to_string();
        match (self.colour_out, text.strip_prefix(&word)) {
            (true, Some(rest)) => format!("{}{rest}", paint(colour_of(finding.severity), &word)),
            _ => text,
        }
    }

    /// Asks for a yes on the terminal.
    ///
    /// # Errors
    /// Usage, when there is no terminal to ask on.
    pub fn confirm(&self, question: &str) -> Result<bool, Failure> {
        if !self.can_ask {
            return Err(Failure::usage(format!(
                "{question} There is no terminal to answer on: give --yes to say so beforehand"
            )));
        }
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "{question} [y/N] ");
        let _ = err.flush();
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        Ok(read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes" | "Yes" | "YES"))
    }
}

fn colour_of(severity: Severity) -> u8 {
    match severity {
        Severity::Refuse => 31,
        Severity::Warn => 33,
        Severity::Info => 36,
    }
}

fn paint(colour: u8, text: &str) -> String {
    format!("\x1b[{colour}m{text}\x1b[0m")
}

/// A table of columns, each as wide as it needs to be.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
        cells.chain(header.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (i, cell) in cells.iter().enumerate() {
            if i > 0 {
                text.push_str("  ");
            }
            text.push_str(&format!("{cell:<width$}", width = width(i)));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut text = line(header.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let rows = vec![vec!["1".to_owned(), "member".to_owned()], vec!["10".to_owned(), "?".to_owned()]];
        assert_eq!(table(&["id", "class"], &rows), "id  class\n1   member\n10  ?\n");
    }
}
