//! What known_hosts files say of a host, by the rules of OpenSSH (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! Pure: the texts of the files come in, entries and verdicts go out. The matching is tested against
//! `ssh-keygen -F` in `known_hosts_tests.rs`.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, PublicKey};
use sha1::Sha1;

/// OpenSSH gives up on a pattern that does not fit its buffer, and with it on the whole list.
const LONGEST_PATTERN: usize = 1022;
/// Bytes of an HMAC-SHA1, and by OpenSSH's rule of its salt.
const HASH_BYTES: usize = 20;

/// Where an entry stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) file: Arc<Path>,
    /// From 1.
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Marker {
    /// An ordinary key.
    None,
    /// `@cert-authority`
    CertAuthority,
    /// `@revoked`
    Revoked,
}

/// A line that is about the host asked for.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) marker: Marker,
    pub(crate) key: HostKey,
}

/// What an entry holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HostKey {
    /// The key, or that inside the certificate.
    pub(crate) data: KeyData,
    /// Whether it is a certificate. OpenSSH takes the key inside one where it revokes or names an authority. On a plain line it
    /// is a key of the host that is none presented.
    pub(crate) certificate: bool,
}

impl HostKey {
    /// A line of OpenSSH: type, base64, perhaps a comment.
    fn parse(line: &str) -> Option<Self> {
        match PublicKey::from_openssh(line) {
            Ok(key) => Some(Self { data: key.into(), certificate: false }),
            Err(_) => {
                let certificate = Certificate::from_openssh(line).ok()?;
                Some(Self { data: certificate.public_key().clone(), certificate: true })
            }
        }
    }

    fn is_plain(&self, key: &KeyData) -> bool {
        !self.certificate && self.data == *key
    }
}

/// What the files say of one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) entries: Vec<Entry>,
    /// The first line that revokes what cannot be read: nobody can say which keys are still good.
    pub(crate) unreadable: Option<Place>,
}

/// The verdict on a key that a host presented.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is one of the host's keys.
    Trusted,
    /// The files have other keys of the host, the first of them here.
    Changed(Place),
    /// It is revoked.
    Revoked(Place),
    /// The files have no key of the host.
    Unknown,
}

impl Known {
    /// Takes from `text`, the content of `file`, the lines about `name` (see [`lookup_name`]).
    ///
    /// Lines that OpenSSH would skip (comments, unknown markers, unreadable or unknown keys) are skipped, except that an
    /// unreadable key of a `@revoked` line is kept in mind.
    pub(crate) fn add(&mut self, file: &Path, text: &str, name: &str) {
        let file: Arc<Path> = file.into();
        for (index, line) in text.split('\n').enumerate() {
            let place = Place { file: Arc::clone(&file), line: index + 1 };
            if let Some(fields) = Fields::of(line)
                && matches(fields.hosts, name)
            {
                match fields.key() {
                    Some(key) => self.entries.push(Entry { place, marker: fields.marker, key }),
                    None if fields.marker == Marker::Revoked => {
                        self.unreadable.get_or_insert(place);
                    }
                    None => {
                        tracing::debug!(%place, "a line with an unreadable or unknown host key was skipped")
                    }
                }
            }
        }
    }

    /// Takes the keys of `text`, the content of `file` with one public key or certificate a line, as revoked. Gives the number of the
    /// first line that is none: what cannot be read cannot be kept to.
    pub(crate) fn revoke(&mut self, file: &Path, text: &str) -> Result<(), usize> {
        let file: Arc<Path> = file.into();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = HostKey::parse(line).ok_or(index + 1)?;
            let place = Place { file: Arc::clone(&file), line: index + 1 };
            self.entries.push(Entry { place, marker: Marker::Revoked, key });
        }
        Ok(())
    }

    /// The verdict on a plain key.
    pub(crate) fn judge(&self, key: &KeyData) -> Verdict {
        if let Some(place) = self.revoked(key) {
            return Verdict::Revoked(place.clone());
        }
        let plain = || self.entries.iter().filter(|e| e.marker == Marker::None);
        match (plain().any(|e| e.key.is_plain(key)), plain().next()) {
            (true, _) => Verdict::Trusted,
            (false, Some(other)) => Verdict::Changed(other.place.clone()),
            (false, None) => Verdict::Unknown,
        }
    }

    /// Where `key` is revoked, by itself or by a certificate of it.
    pub(crate) fn revoked(&self, key: &KeyData) -> Option<&Place> {
        self.entries.iter().find(|e| e.marker == Marker::Revoked && &e.key.data == key).map(|e| &e.place)
    }

    /// Whether `key` may sign certificates of the host.
    pub(crate) fn is_authority(&self, key: &KeyData) -> bool {
        self.authorities().any(|known| known == key)
    }

    pub(crate) fn authorities(&self) -> impl Iterator<Item = &KeyData> {
        self.entries.iter().filter(|e| e.marker == Marker::CertAuthority).map(|e| &e.key.data)
    }

    /// The types of the host's plain keys, so that the server can be asked for those first.
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        let plain = self.entries.iter().filter(|e| e.marker == Marker::None && !e.key.certificate);
        plain.map(|e| e.key.data.algorithm())
    }
}

/// The name under which a host is looked up: in lower case, in brackets with its port unless that is 22.
pub(crate) fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// A line for `name`, as OpenSSH writes one; `hashed`, as it does with `HashKnownHosts yes`.
pub(crate) fn line(name: &str, hashed: bool, key: &KeyData) -> Option<String> {
    let key = PublicKey::new(key.clone(), "").to_openssh().ok()?;
    let name = if hashed { hash(name)? } else { name.to_owned() };
    Some(format!("{name} {}\n", key.trim_end()))
}

/// `|1|salt|hash`
fn hash(name: &str) -> Option<String> {
    // Hashers of the standard library, each keyed by the operating system's randomness: a salt only has to be
    // another one for each line.
    let words = (0..3).flat_map(|_| RandomState::new().build_hasher().finish().to_be_bytes());
    let salt: Vec<u8> = words.take(HASH_BYTES).collect();
    let mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?.chain_update(name).finalize();
    Some(HostPatterns::HashedName { salt, hash: mac.into_bytes().into() }.to_string())
}

/// Reads the files; one that does not exist is empty, as for OpenSSH.
pub(crate) fn read(files: &[PathBuf], name: &str) -> Result<Known, (PathBuf, std::io::Error)> {
    let mut known = Known::default();
    for file in files {
        match std::fs::read(file) {
            Ok(bytes) => known.add(file, &String::from_utf8_lossy(&bytes), name),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err((file.clone(), e)),
        }
    }
    Ok(known)
}

struct Fields<'a> {
    marker: Marker,
    hosts: &'a str,
    rest: &'a str,
}

impl<'a> Fields<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let line = line.trim_end_matches('\r').trim_start_matches(BLANKS);
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (marker, line) = match line.starts_with('@') {
            false => (Marker::None, line),
            true => {
                let (word, rest) = line.split_once(BLANKS)?;
                let marker = match word {
                    "@cert-authority" => Marker::CertAuthority,
                    "@revoked" => Marker::Revoked,
                    _ => return None,
                };
                (marker, rest.trim_start_matches(BLANKS))
            }
        };
        let (hosts, rest) = line.split_once(BLANKS).unwrap_or((line, ""));
        (!hosts.is_empty()).then_some(Self { marker, hosts, rest })
    }

    fn key(&self) -> Option<HostKey> {
        let mut words = self.rest.split(BLANKS).filter(|word| !word.is_empty());
        let (kind, base64) = (words.next()?, words.next()?);
        HostKey::parse(&format!("{kind} {base64}"))
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

fn matches(hosts: &str, name: &str) -> bool {
    if hosts.starts_with('|') {
        return match hosts.parse() {
            Ok(HostPatterns::HashedName { salt, hash }) if salt.len() == HASH_BYTES => {
                Hmac::<Sha1>::new_from_slice(&salt)
                    .is_ok_and(|mac| mac.chain_update(name).verify_slice(&hash).is_ok())
            }
            _ => false,
        };
    }
    let mut found = false;
    for pattern in hosts.split(',') {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        if pattern.len() > LONGEST_PATTERN {
            return false;
        }
        if glob(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            found = true;
        }
    }
    found
}

/// `*` stands for any number of bytes, `?` for one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // On a mismatch the last star takes one byte more: quadratic at worst, whatever the pattern.
    let (mut pattern, mut text) = (pattern, text);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some((b'*', rest)), _) => {
                retry = Some((rest, text));
                pattern = rest;
            }
            (Some((p, rest)), Some((t, left))) if *p == b'?' || p == t => (pattern, text) = (rest, left),
            (None, None) => return true,
            _ => match retry.and_then(|(p, t)| Some((p, t.split_first()?.1))) {
                Some(next) => {
                    retry = Some(next);
                    (pattern, text) = next;
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
#[path = "known_hosts_tests.rs"]
mod tests;
