//! The file of hosts that `exec` takes: one `host`, `host:port` or `[address]:port` a line, comments after `#`.

use std::collections::BTreeMap;
use std::path::Path;

use kwdb_scale_core::topology::HostName;

use crate::failure::Failure;

/// A host of the file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Target {
    /// A DNS name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

impl Target {
    /// What it is called in results: as the file writes it.
    pub(crate) fn name(&self) -> HostName {
        HostName::new(match self.port {
            None => self.host.clone(),
            Some(port) if self.host.contains(':') => format!("[{}]:{port}", self.host),
            Some(port) => format!("{}:{port}", self.host),
        })
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, rest))) => (host, Some(rest.strip_prefix(':').ok_or("it has words after ']'")?)),
            Some(None) => return Err("its '[' is not closed"),
            None => match text.split_once(':') {
                // More than one colon: an IPv6 address.
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (text, None),
            },
        };
        // Nothing that a shell, an option parser or a known_hosts file could take for something else.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if text.contains('@') {
            return Err("the user is given with --user");
        }
        if host.is_empty() || host.starts_with('-') || !host.chars().all(plain) {
            return Err("it is not a DNS name or an IP address");
        }
        let port = match port.map(str::parse) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return Err("its port is not one of 1 to 65535"),
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Reads the file; the error names it, the line, the reason and the cure.
pub(crate) fn read(path: &Path) -> Result<Vec<Target>, Failure> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| Failure::unreadable("the file of hosts", path, &e))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("the file of hosts {shown} is not UTF-8: write plain text")))?;
    parse(&text).map_err(|why| Failure::usage(format!("{shown}{why}")))
}

fn parse(text: &str) -> Result<Vec<Target>, String> {
    let mut seen = BTreeMap::new();
    let mut targets = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let word = line.split('#').next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        let target = Target::parse(word).map_err(|why| {
            let word = word.escape_debug();
            format!(
                ", line {number}: '{word}' cannot be used: {why}; write host, host:port or [address]:port"
            )
        })?;
        if let Some(first) = seen.insert(target.clone(), number) {
            return Err(format!(
                ", line {number}: '{}' stands in line {first} already; write each host once",
                target.name()
            ));
        }
        targets.push(target);
    }
    match targets.is_empty() {
        true => Err(" names no host; write one a line".to_owned()),
        false => Ok(targets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_their_order() {
        let text = "# the fleet\ndb1\n  10.0.0.2:2222 # second\r\n\n[fd00::1]:22\nfe80::1%eth0\n[::1]";
        let names: Vec<String> = parse(text).unwrap().iter().map(|t| t.name().to_string()).collect();
        assert_eq!(names, ["db1", "10.0.0.2:2222", "[fd00::1]:22", "fe80::1%eth0", "::1"]);
    }

    #[test]
    fn every_mistake_names_its_line() {
        for (text, why) in [
            ("", "names no host"),
            ("# none\n", "names no host"),
            ("a\nb\na", "line 3: 'a' stands in line 1"),
            ("a\n-oProxyCommand=x", "line 2"),
            ("$(touch x)", "line 1"),
            ("a;reboot", "line 1"),
            ("a b", "line 1"),
            ("a\u{1b}[2J", "line 1"),
            ("ops@a", "--user"),
            ("a:0", "1 to 65535"),
            ("a:99999", "1 to 65535"),
            ("a:ssh", "1 to 65535"),
            ("[::1", "not closed"),
            ("[::1]22", "after ']'"),
            (":22", "line 1"),
            ("ü", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
}
