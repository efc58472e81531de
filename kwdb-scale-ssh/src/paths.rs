//! Paths of an ssh_config, as `ssh -G` leaves them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kwdb_scale_core::ports::PortError;

use crate::error::config;

/// The paths of a line of `ssh -G`, which parts them by spaces and does not show that one holds spaces itself. Where several readings
/// are possible, a file that is there is meant; else a path that begins at the root or at home goes on until the next such path, and
/// any other is one word.
pub(crate) fn separate<'a>(line: &'a str, is_file: &dyn Fn(&str) -> bool) -> Vec<&'a str> {
    let (mut paths, mut rest) = (Vec::new(), line.trim_start());
    while !rest.is_empty() {
        let gaps = rest.match_indices(' ').map(|(at, _)| at).chain([rest.len()]);
        let ends: Vec<usize> =
            gaps.filter(|at| !rest.get(..*at).is_some_and(|path| path.ends_with(' '))).collect();
        let there = ends.iter().rev().find(|end| rest.get(..**end).is_some_and(is_file));
        let begins = |end: &usize| {
            let next = rest.get(*end..).unwrap_or_default().trim_start();
            next.starts_with(['/', '~']) || !rest.starts_with(['/', '~'])
        };
        let end = there.or_else(|| ends.iter().find(|end| begins(end))).copied().unwrap_or(rest.len());
        let (path, next) = rest.split_at_checked(end).unwrap_or((rest, ""));
        paths.push(path);
        rest = next.trim_start();
    }
    paths
}

/// A path's `~`, replaced, and what comes after it.
pub(crate) fn split_home<'a>(path: &'a str, home: Option<&Path>) -> Result<(String, &'a str), PortError> {
    match path.strip_prefix('~') {
        None => Ok((String::new(), path)),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => match home {
            Some(home) => Ok((home.display().to_string(), rest)),
            None => Err(unusable(path, "HOME is not set")),
        },
        Some(_) => Err(unusable(path, "homes of others are not known: write it in full")),
    }
}

fn unusable(path: &str, why: &str) -> PortError {
    config(format!("the path '{path}' of the ssh_config cannot be used: {why}"))
}

/// What `ssh -G` leaves in paths: `~`, the percent tokens and `${VARIABLE}`.
pub(crate) fn expand(
    path: &str,
    home: Option<&Path>,
    tokens: &BTreeMap<char, String>,
) -> Result<PathBuf, PortError> {
    let bad = |why: String| unusable(path, &why);
    // The home's own name may hold a percent sign.
    let (mut text, mut rest) = split_home(path, home)?;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        if c == '%' {
            let token =
                rest.chars().next().ok_or_else(|| bad("it ends with a lone %: write %%".to_owned()))?;
            rest = rest.get(token.len_utf8()..).unwrap_or_default();
            match token {
                '%' => text.push('%'),
                'd' => text += &split_home("~", home)?.0,
                _ => {
                    text += tokens.get(&token).ok_or_else(|| {
                        bad(format!("the token %{token} is not known: write out what it stands for"))
                    })?
                }
            }
        } else if let (true, Some(inside)) = (c == '$', rest.strip_prefix('{')) {
            let (name, after) =
                inside.split_once('}').ok_or_else(|| bad("a variable's '}' is missing".to_owned()))?;
            text += &std::env::var(name).map_err(|e| bad(format!("the variable '{name}': {e}")))?;
            rest = after;
        } else {
            text.push(c);
        }
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_paths_of_a_line() {
        let cases: [(&str, &[&str], &[&str]); 9] = [
            ("/a /b", &[], &["/a", "/b"]),
            ("/a b/c ~/d", &[], &["/a b/c", "~/d"]),
            ("/a  b  ~/d", &[], &["/a  b", "~/d"]),
            ("/a /b c", &["/a", "/b c"], &["/a", "/b c"]),
            ("/a /b", &["/a /b", "/a"], &["/a /b"]),
            ("one two", &["one"], &["one", "two"]),
            ("one two", &[], &["one", "two"]),
            ("one two", &["one two", "two"], &["one two"]),
            ("none", &[], &["none"]),
        ];
        for (line, there, expected) in cases {
            assert_eq!(separate(line, &|path| there.contains(&path)), expected, "{line}");
        }
    }
}
