//! Result tables in every format of `--format`.

use std::fmt::Write as _;

/// How rows are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    Tsv,
    Csv,
    Table,
    Records,
    Sql,
    Raw,
    Html,
}

impl Format {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "tsv" => Self::Tsv,
            "csv" => Self::Csv,
            "table" => Self::Table,
            "records" => Self::Records,
            "sql" => Self::Sql,
            "raw" => Self::Raw,
            "html" => Self::Html,
            _ => return None,
        })
    }

    /// Prints `rows` under `columns`.
    pub(crate) fn print(self, columns: &[&str], rows: &[Vec<String>]) -> String {
        match self {
            Self::Tsv => separated(columns, rows, '\t'),
            Self::Csv => separated(columns, rows, ','),
            Self::Table => table(columns, rows),
            Self::Records => records(columns, rows),
            Self::Sql => sql(columns, rows),
            Self::Raw => raw(columns, rows),
            Self::Html => html(columns, rows),
        }
    }
}

fn separated(columns: &[&str], rows: &[Vec<String>], by: char) -> String {
    let quote = |field: &str| {
        let special = |c: char| c == by || matches!(c, '"' | '\n' | '\r');
        // Go's csv writer, which is used for both, also quotes a field that starts with a blank.
        if field.is_empty() || !field.contains(special) && !field.starts_with(' ') {
            field.to_owned()
        } else {
            format!("\"{}\"", field.replace('"', "\"\""))
        }
    };
    let line = |fields: Vec<String>| fields.join(&by.to_string()) + "\n";
    let mut text = line(columns.iter().map(|c| quote(c)).collect());
    for row in rows {
        text += &line(row.iter().map(|f| quote(f)).collect());
    }
    text
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            rows.iter().filter_map(|r| r.get(i)).map(String::len).chain([c.len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<String>| {
        let joined = cells.iter().map(|c| format!(" {c} ")).collect::<Vec<_>>().join("|");
        format!(" {}\n", joined.trim_end())
    };
    let centred = |text: &str, width: usize| {
        let left = (width - text.len()) / 2;
        format!("{}{text}{}", " ".repeat(left), " ".repeat(width - text.len() - left))
    };
    let mut text = line(columns.iter().zip(&widths).map(|(c, w)| centred(c, *w)).collect());
    let dashes: Vec<String> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
    let _ = writeln!(text, "-{}-", dashes.join("+"));
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(f, w)| {
            let number = !f.is_empty() && f.bytes().all(|b| b.is_ascii_digit());
            if number { format!("{f:>w$}") } else { format!("{f:<w$}") }
        });
        text += &line(cells.collect());
    }
    let _ = writeln!(text, "({})", count(rows.len(), "row"));
    text
}

fn records(columns: &[&str], rows: &[Vec<String>]) -> String {
    let width = columns.iter().map(|c| c.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "-[ RECORD {} ]", i + 1);
        for (column, field) in columns.iter().zip(row) {
            let _ = writeln!(text, "{column:<width$} | {field}");
        }
    }
    text
}

fn sql(columns: &[&str], rows: &[Vec<String>]) -> String {
    let list = columns.iter().map(|c| format!("  {c} STRING")).collect::<Vec<_>>().join(",\n");
    let mut text = format!("CREATE TABLE results (\n{list}\n);\n\n");
    for row in rows {
        let values = row.iter().map(|f| format!("'{}'", f.replace('\'', "''"))).collect::<Vec<_>>();
        let _ = writeln!(text, "INSERT INTO results VALUES ({});", values.join(", "));
    }
    let _ = writeln!(text, "-- {}", count(rows.len(), "row"));
    text
}

fn raw(columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("# {}\n", count(columns.len(), "column"));
    for (i, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "# row {}", i + 1);
        for field in row {
            let _ = writeln!(text, "## {}\n{field}", field.len());
        }
    }
    let _ = writeln!(text, "# {}", count(rows.len(), "row"));
    text
}

fn html(columns: &[&str], rows: &[Vec<String>]) -> String {
    let escape = |f: &str| f.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let head: String = columns.iter().map(|c| format!("<th>{}</th>", escape(c))).collect();
    let mut text = format!("<table>\n<thead><tr><th>row</th>{head}</tr></thead>\n<tbody>\n");
    for (i, row) in rows.iter().enumerate() {
        let cells: String = row.iter().map(|f| format!("<td>{}</td>", escape(f))).collect();
        let _ = writeln!(text, "<tr><td>{}</td>{cells}</tr>", i + 1);
    }
    let foot = count(rows.len(), "row");
    let _ = writeln!(
        text,
        "</tbody>\n<tfoot><tr><td colspan={}>{foot}</td></tr></tfoot></table>",
        columns.len() + 1
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_column_table_as_observed() {
        let rows: Vec<Vec<String>> = (1..=3).map(|n| vec![n.to_string()]).collect();
        assert_eq!(Format::Table.print(&["id"], &rows), "  id\n------\n   1\n   2\n   3\n(3 rows)\n");
    }

    #[test]
    fn separators_inside_a_field_are_quoted() {
        let rows = vec![vec!["1".to_owned(), "region=a,zone=b".to_owned()]];
        assert_eq!(Format::Csv.print(&["id", "l"], &rows), "id,l\n1,\"region=a,zone=b\"\n");
        assert_eq!(Format::Tsv.print(&["id", "l"], &rows), "id\tl\n1\tregion=a,zone=b\n");
    }
}
