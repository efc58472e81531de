//! The one function through which an argument becomes part of a shell text.
//!
//! Commands are run by argv. A shell text exists for people to read and copy, and for transports (such as SSH)
//! whose far end has no argv.

/// Quotes one argument for a POSIX shell so that the shell gives back exactly the same bytes.
///
/// A word of harmless characters stays as it is; anything else stands in single quotes. An argument cannot hold a
/// NUL byte on any POSIX system; one that does is quoted like the rest and refused by whoever runs it.
pub fn quote(arg: &str) -> String {
    // `=` is harmless only behind a flag: `a=b` as the first word would be an assignment.
    let flag = arg.starts_with("--");
    let harmless = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '@' | '%' | '+' | ':' | ',' | '.' | '/' | '-')
            || (flag && c == '=')
    };
    if !arg.is_empty() && arg.chars().all(harmless) {
        return arg.to_owned();
    }
    format!("'{}'", arg.replace('\'', r"'\''"))
}

/// Quotes every argument and joins them with blanks.
pub fn line<S: AsRef<str>>(argv: impl IntoIterator<Item = S>) -> String {
    argv.into_iter().map(|arg| quote(arg.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_words_stay() {
        assert_eq!(
            line(["kwbase", "start", "--join=a:1,b:2", "--store=/d"]),
            "kwbase start --join=a:1,b:2 --store=/d"
        );
    }

    #[test]
    fn the_rest_is_quoted() {
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a=b"), "'a=b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("--store=/a b"), "'--store=/a b'");
        assert_eq!(quote("~"), "'~'");
    }
}
