//! The check that the description of a host makes sense: each refusal names field, reason and cure.

use super::host::{HostError, KwbaseHost, Security};
use crate::topology::Address;

impl KwbaseHost {
    /// Checks the whole description. The first thing that is wrong is the error.
    pub fn validate(&self) -> Result<(), HostError> {
        let fail = |field: &str, reason: &str, cure: &str| {
            Err(HostError {
                host: self.name.clone(),
                field: field.to_owned(),
                reason: reason.to_owned(),
                cure: cure.to_owned(),
            })
        };
        let word = |field: &str, text: &str| {
            if text.is_empty() {
                return fail(field, "is empty", "leave it out or give a value");
            }
            if text.chars().any(char::is_control) {
                return fail(field, "holds a control character", "write it without");
            }
            Ok(())
        };
        let path = |field: &str, text: &str| {
            word(field, text)?;
            if !text.starts_with('/') {
                return fail(field, &format!("'{text}' is not an absolute path"), "start it with /");
            }
            if text.split('/').any(|part| part == "..") {
                return fail(field, &format!("'{text}' holds .."), "write the path that is meant");
            }
            Ok(())
        };
        let store = |field: &str, text: &str| {
            path(field, text)?;
            if text.contains(',') {
                let reason = format!("'{text}' holds a comma, which kwbase takes for the end of the path");
                return fail(field, &reason, "use a directory without a comma in its name");
            }
            if text.trim_end_matches('/').is_empty() {
                return fail(field, "is the root directory", "name a directory of its own");
            }
            Ok(())
        };

        word("name", self.name.as_str())?;
        word("program", &self.program)?;
        if self.program.starts_with('-') {
            return fail("program", "starts with '-'", "give the path of kwbase");
        }
        for part in &self.exec_prefix {
            word("exec_prefix", part)?;
        }
        let container =
            self.exec_prefix.first().is_some_and(|p| p.ends_with("docker") || p.ends_with("podman"));
        let terminal = |p: &String| matches!(p.as_str(), "-t" | "-it" | "-ti" | "--tty");
        if container && self.exec_prefix.iter().any(terminal) {
            return fail("exec_prefix", "asks for a terminal, and there is none", "use -i instead of -it");
        }
        if let Security::Certs { certs_dir } = &self.security {
            path("security.certs.certs_dir", certs_dir)?;
        }

        if self.stores.is_empty() {
            return fail("stores", "is empty", "name at least one directory, such as /var/lib/kaiwudb");
        }
        for spec in &self.stores {
            store("stores.path", &spec.path)?;
            for attr in &spec.attrs {
                word("stores.attrs", attr)?;
                if attr.contains([',', ':', '=']) {
                    return fail(
                        "stores.attrs",
                        &format!("'{attr}' holds one of , : ="),
                        "one attribute an item",
                    );
                }
            }
            if let Some(size) = &spec.size {
                word("stores.size", size)?;
                if size.contains([',', '=']) {
                    return fail(
                        "stores.size",
                        &format!("'{size}' holds one of , ="),
                        "such as 20% or 200GiB",
                    );
                }
            }
        }
        for dir in &self.ts_store {
            store("ts_store", dir)?;
        }
        let mut dirs = self.data_directories();
        dirs.sort_unstable();
        if let Some(twice) =
            dirs.windows(2).find_map(|w| (w.first() == w.last()).then(|| w.first())).flatten()
        {
            return fail("stores", &format!("'{twice}' is named twice"), "a directory holds one store");
        }

        for (field, address) in [
            ("listen_addr", &self.listen_addr),
            ("advertise_addr", &self.advertise_addr),
            ("sql_addr", &self.sql_addr),
            ("advertise_sql_addr", &self.advertise_sql_addr),
            ("http_addr", &self.http_addr),
            ("brpc_addr", &self.brpc_addr),
        ] {
            let Some(address) = address else { continue };
            if let Err(reason) = check_address(address) {
                return fail(field, &reason, "write host:port");
            }
            if field == "brpc_addr" && address.port().is_none() {
                return fail(field, "has no port, and kwbase does not start without", "such as :27257");
            }
        }
        for (key, value) in self.locality.iter().flat_map(|l| l.tiers()) {
            word("locality", key)?;
            word("locality", value)?;
        }
        for attr in &self.attrs {
            word("attrs", attr)?;
        }
        for (field, text) in [
            ("cache", &self.cache),
            ("max_sql_memory", &self.max_sql_memory),
            ("max_offset", &self.max_offset),
        ] {
            text.as_ref().map_or(Ok(()), |t| word(field, t))?;
        }
        if let Some(file) = &self.pid_file {
            path("pid_file", file)?;
        }

        for flag in &self.extra_flags {
            let field =
                format!("extra_flags '{}'", flag.split('=').next().unwrap_or_default().escape_debug());
            word("extra_flags", flag)?;
            let name = match flag.strip_prefix("--") {
                Some(rest) if !rest.is_empty() => rest.split('=').next().unwrap_or_default(),
                _ => return fail(&field, "does not start with --", "one word a flag: --name=value"),
            };
            if OWN_FLAGS.contains(&name) {
                return fail(&field, "is set by this library", "use the field of that name, or leave it out");
            }
            if name.contains("password") {
                return fail(&field, "would show a secret on the command line", "leave it out");
            }
        }
        for (name, value) in &self.env {
            let field = format!("env '{}'", name.escape_debug());
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return fail(&field, "is no name of a variable", "use letters, digits and _");
            }
            if OWN_VARIABLES.contains(&name.as_str()) {
                return fail(&field, "is set by this library as a flag", "leave it out");
            }
            if value.contains('\0') {
                return fail(&field, "holds a NUL byte", "write it without");
            }
        }

        if let Err([field, reason, cure]) = self.owner.check() {
            return fail(&field, &reason, &cure);
        }
        let output = self.start_output();
        // The service manager has its own log.
        if self.output_file.is_none() && self.owner.is_quit() && !self.exec_prefix.is_empty() {
            return fail(
                "output_file",
                "has no default with exec_prefix, because it is written outside of what the prefix enters",
                "name an absolute path on the outer host",
            );
        }
        path("output_file", &output)?;
        let inside = |d: &&str| output.starts_with(&format!("{}/", d.trim_end_matches('/')));
        if self.exec_prefix.is_empty() && self.data_directories().iter().any(inside) {
            return fail("output_file", "lies in a store, which must stay empty", "put it beside the store");
        }
        Ok(())
    }
}

/// Whether the text can be an address of `--host`, `--join` or a listener.
pub(super) fn check_address(address: &Address) -> Result<(), String> {
    let text = address.as_str();
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.starts_with('-') || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == ',') {
        return Err(format!("'{}' is no address", text.escape_debug()));
    }
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(h, p)| (h, Some(p)));
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("'{text}' has several colons; an IPv6 address stands in brackets"));
    }
    match port {
        Some(p) if p.parse::<u16>().is_err() => Err(format!("'{text}' has no port number behind its colon")),
        _ => Ok(()),
    }
}

/// Flags that have a field of their own, or would make a start something else than a join.
const OWN_FLAGS: &[&str] = &[
    "advertise-addr",
    "advertise-host",
    "advertise-port",
    "advertise-sql-addr",
    "attrs",
    "background",
    "brpc-addr",
    "cache",
    "certs-dir",
    "format",
    "host",
    "http-addr",
    "http-host",
    "http-port",
    "insecure",
    "join",
    "listen-addr",
    "locality",
    "max-offset",
    "max-sql-memory",
    "pid-file",
    "port",
    "sql-addr",
    "store",
    "ts-store",
    "url",
    "use-raft-store",
];

/// Variables that would change where a command connects or as whom.
const OWN_VARIABLES: &[&str] = &[
    "KWBASE_CERTS_DIR",
    "KWBASE_DATABASE",
    "KWBASE_HOST",
    "KWBASE_INSECURE",
    "KWBASE_PORT",
    "KWBASE_URL",
    "KWBASE_USER",
];
