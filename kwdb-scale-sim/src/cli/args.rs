//! Reading a `kwbase` command line as cobra does: flags and words in any order, `--flag=value` or `--flag value`.

use std::collections::BTreeMap;

use kwdb_scale_core::topology::Address;

/// A command line that was understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    /// Values by flag name, in order; booleans have `true` or `false`.
    flags: BTreeMap<&'static str, Vec<String>>,
    /// Words after the command.
    pub(crate) words: Vec<String>,
}

/// Why a command line was not understood: the text after `ERROR: `.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BadFlag(pub(crate) String);

/// A flag: long name, its one-letter form, and whether it takes a value.
pub(crate) type Flag = (&'static str, &'static str, bool);

/// Flags of every client command.
pub(crate) const CLIENT: &[Flag] = &[
    ("host", "", true),
    ("port", "p", true),
    ("insecure", "", false),
    ("certs-dir", "", true),
    ("cert-principal-map", "", true),
    ("url", "", true),
    ("cluster-name", "", true),
    ("disable-cluster-name-verification", "", false),
    ("logtostderr", "", false),
    ("no-color", "", false),
    ("vmodule", "", true),
    ("help", "h", false),
];

impl Args {
    /// Reads what follows the name of the command.
    pub(crate) fn parse(words: &[String], known: &[&[Flag]]) -> Result<Self, BadFlag> {
        let mut args = Self::default();
        let mut rest = words.iter();
        let mut only_words = false;
        while let Some(word) = rest.next() {
            if only_words || !word.starts_with('-') || word == "-" {
                args.words.push(word.clone());
                continue;
            }
            if word == "--" {
                only_words = true;
                continue;
            }
            let (name, mut value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut all = known.iter().flat_map(|k| k.iter());
            let found = match name.strip_prefix("--") {
                Some(long) => all.find(|f| f.0 == long),
                None => all.find(|f| !f.1.is_empty() && name.strip_prefix('-') == Some(f.1)),
            };
            let Some((flag, _, takes_value)) = found else {
                return Err(BadFlag(match name.strip_prefix("--") {
                    Some(_) => format!("unknown flag: {name}"),
                    None => {
                        let letter: String = name.chars().skip(1).take(1).collect();
                        format!("unknown shorthand flag: '{letter}' in {name}")
                    }
                }));
            };
            if value.is_none() {
                value = if *takes_value { rest.next().cloned() } else { Some("true".to_owned()) };
            }
            let Some(value) = value else {
                return Err(BadFlag(format!("flag needs an argument: {name}")));
            };
            if !takes_value && value != "true" && value != "false" && *flag != "logtostderr" {
                return Err(BadFlag(format!(
                    "invalid argument \"{value}\" for \"--{flag}\" flag: strconv.ParseBool: parsing \"{value}\": invalid syntax"
                )));
            }
            args.flags.entry(flag).or_default().push(value);
        }
        Ok(args)
    }

    /// The last value of a flag.
    pub(crate) fn get(&self, flag: &str) -> Option<&str> {
        self.flags.get(flag).and_then(|v| v.last()).map(String::as_str)
    }

    /// All values of a flag, lists split at commas.
    pub(crate) fn list(&self, flag: &str) -> Vec<String> {
        let values = self.flags.get(flag).map(Vec::as_slice).unwrap_or_default();
        values.iter().flat_map(|v| v.split(',')).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    }

    /// All values of a flag, as they are.
    pub(crate) fn all(&self, flag: &str) -> Vec<String> {
        self.flags.get(flag).cloned().unwrap_or_default()
    }

    pub(crate) fn is_set(&self, flag: &str) -> bool {
        self.get(flag).is_some_and(|v| v != "false")
    }
}

/// `host:port` with the defaults that KWDB fills in.
pub(crate) fn full_address(text: &str, default_port: &str) -> Address {
    let bare = text.trim();
    let (host, port) = match bare.rsplit_once(':') {
        Some((h, p)) if !h.contains(':') || h.ends_with(']') => (h, p),
        _ => (bare, ""),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    Address::new(format!("{host}:{}", if port.is_empty() { default_port } else { port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, BadFlag> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Args::parse(&words, &[CLIENT, &[("wait", "", true)]])
    }

    #[test]
    fn flags_and_words_in_any_order() {
        let args = parse("4 --insecure 5 --host 127.0.0.1:1 --wait=none -- -6").unwrap();
        assert_eq!(args.words, ["4", "5", "-6"]);
        assert!(args.is_set("insecure") && !args.is_set("help"));
        assert_eq!((args.get("host"), args.get("wait")), (Some("127.0.0.1:1"), Some("none")));
    }

    #[test]
    fn what_is_not_known_is_said() {
        assert_eq!(parse("--nope").unwrap_err().0, "unknown flag: --nope");
        assert_eq!(parse("--host").unwrap_err().0, "flag needs an argument: --host");
        assert!(parse("--insecure=maybe").unwrap_err().0.starts_with("invalid argument \"maybe\""));
    }

    #[test]
    fn addresses_get_their_defaults() {
        assert_eq!(full_address("", "26257").as_str(), "localhost:26257");
        assert_eq!(full_address("h", "26257").as_str(), "h:26257");
        assert_eq!(full_address(":1", "26257").as_str(), "localhost:1");
        assert_eq!(full_address("[::1]:5", "26257").as_str(), "[::1]:5");
    }
}
