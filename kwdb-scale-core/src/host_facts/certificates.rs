//! The certificate directory of a host: what is in it, what of that is damaged, and how the probe's answer is read.
//! Nothing that is secret is read: of keys only whether they fit, and of an authority's key its digest, by which copies
//! are told from other files of the name.

use serde::{Deserialize, Serialize};

use super::probe::Question;
use super::read::{Facts, TEXT, text};
use crate::certificate::Certificate;
use crate::certs::ROOT;
use crate::fact::Fact;

/// The name, less its ending, of that user's certificate and key.
const ROOT_PAIR: &str = "client.root";

/// A certificate directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificateDirectory {
    /// Its path.
    pub path: String,
    /// Why it is none, such as a file in its place; then it has no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What is in it, by name. Directories are left out.
    pub files: Vec<CertificateFile>,
}

impl CertificateDirectory {
    /// The file of that name.
    pub fn file(&self, name: &str) -> Option<&CertificateFile> {
        self.files.iter().find(|f| f.name == name)
    }

    /// What the certificate of that name says; unknown with a reason when it is absent or cannot be read.
    pub fn certificate(&self, name: &str) -> Fact<&Certificate> {
        match self.file(name).map(|f| &f.certificate) {
            Some(Some(fact)) => fact.as_ref(),
            Some(None) => Fact::unknown(format!("{}/{name} was not read", self.path)),
            None => Fact::unknown(format!("there is no {}/{name}", self.path)),
        }
    }

    /// What surely is damaged of these certificates and their keys (but for the authority's), one a line. What is absent or
    /// could not be read is no damage.
    pub fn damage(&self, stems: &[&str]) -> Vec<String> {
        let mut lines: Vec<String> = self.fault.iter().map(|why| format!("{}: {why}", self.path)).collect();
        for stem in stems {
            let Some(file) = self.file(&format!("{stem}.crt")) else { continue };
            lines.extend(file.fault.iter().map(|why| format!("{}/{stem}.crt: {why}", self.path)));
            if *stem == ROOT_PAIR
                && let Some(Fact::Known(certificate)) = &file.certificate
                && certificate.common_name.as_deref() != Some(ROOT)
                && !certificate.is_for(ROOT)
            {
                let found = certificate.common_name.as_deref().unwrap_or("nobody").escape_debug();
                lines.push(format!("{}/{stem}.crt is of '{found}', not of '{ROOT}'", self.path));
            }
            // A node does not read the authority's key.
            if *stem != "ca" {
                lines.extend(self.key_damage(stem));
            }
        }
        lines
    }

    /// What surely is damaged of the key beside a certificate.
    pub fn key_damage(&self, stem: &str) -> Option<String> {
        match self.file(&format!("{stem}.crt"))?.key.as_ref()? {
            Fact::Known(KeyMatch::NoKey) => Some(format!(
                "{}/{stem}.key: this is no private key in PEM form, or it is cut off or has a passphrase",
                self.path
            )),
            Fact::Known(KeyMatch::Differs) => {
                Some(format!("{}/{stem}.key is not the key of {stem}.crt", self.path))
            }
            Fact::Known(KeyMatch::Fits) | Fact::Unknown(_) => None,
        }
    }
}

/// A file of a certificate directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificateFile {
    /// Its name.
    pub name: String,
    /// Permission bits, such as `0o600`.
    pub mode: u32,
    /// Its owner.
    pub owner: String,
    /// Bytes.
    pub size: u64,
    /// What it says, for files `*.crt`. Keys are never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Fact<Certificate>>,
    /// Why it is no certificate, for files `*.crt` that were read and are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Whether the key beside it is its own: of `ca.crt`, `node.crt` and `client.root.crt` that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Fact<KeyMatch>>,
    /// SHA-256 as 64 lower-case hex digits, of `ca.key` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Fact<String>>,
}

/// What lies beside a certificate as its key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyMatch {
    /// The certificate's own key: the two have one public key.
    Fits,
    /// Another key.
    Differs,
    /// No private key in PEM form that openssl reads.
    NoKey,
}

/// The file in which the private key of the cluster's authority lies by the caller's configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuthorityKey {
    /// Its path.
    pub path: String,
    /// SHA-256 as 64 lower-case hex digits; `None` when there is no such file, or an empty one.
    pub sha256: Fact<Option<String>>,
    /// Permission bits, such as `0o600`; `None` when there is no such file, or they could not be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Reads what was told of the directory. `items` stand in the order of the files.
pub(super) fn directory(
    question: &Question,
    items: &[&str],
    facts: &Facts<'_>,
    missing: &str,
) -> Fact<Option<CertificateDirectory>> {
    let path = question.certs_dir.clone().unwrap_or_default();
    match facts.one("certs") {
        Some("there") => {}
        Some("absent") => return Fact::Known(None),
        Some("file") => {
            let fault = Some("it is no directory".to_owned());
            return Fact::Known(Some(CertificateDirectory { path, fault, files: Vec::new() }));
        }
        Some(_) => return Fact::unknown("it may not be read"),
        None => return Fact::unknown(missing),
    }
    let mut found: Vec<CertificateFile> = Vec::new();
    for item in items {
        let Some((key, value)) = item.strip_prefix('K').and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        match (key, found.last_mut()) {
            ("cert", _) => found.extend(file(value)),
            ("pem", Some(last)) => match Certificate::from_pem(value) {
                Ok(certificate) => last.certificate = Some(Fact::Known(certificate)),
                Err(e) => {
                    let why = if value.trim().is_empty() { "it is empty".to_owned() } else { e.to_string() };
                    last.certificate = Some(Fact::Unknown(why.clone()));
                    last.fault = Some(why);
                }
            },
            ("pair", Some(last)) => {
                last.key = Some(pair(value));
            }
            ("sum", Some(last)) => last.sha256 = Some(digest(value)),
            _ => {}
        }
    }
    Fact::Known(Some(CertificateDirectory { path, fault: None, files: found }))
}

fn file(value: &str) -> Option<CertificateFile> {
    let mut parts = value.splitn(4, ' ');
    let mut next = || parts.next().unwrap_or_default();
    let (mode, owner, size, name) = (u32::from_str_radix(next(), 8).ok()?, next(), next().parse(), next());
    let name: String = name.escape_debug().take(TEXT).collect();
    let unread = "it may not be read";
    Some(CertificateFile {
        mode,
        owner: text(owner),
        size: size.ok()?,
        certificate: name.ends_with(".crt").then(|| Fact::unknown(unread)),
        fault: None,
        key: None,
        sha256: (name == "ca.key").then(|| Fact::unknown(unread)),
        name,
    })
}

/// Whether a key is that of a certificate.
pub(super) fn pair(value: &str) -> Fact<KeyMatch> {
    match value {
        "yes" => Fact::Known(KeyMatch::Fits),
        "no" => Fact::Known(KeyMatch::Differs),
        "none" => Fact::Known(KeyMatch::NoKey),
        why => Fact::Unknown(text(why)),
    }
}

fn digest(value: &str) -> Fact<String> {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if value.len() == 64 && value.chars().all(hex) {
        return Fact::Known(value.to_owned());
    }
    Fact::unknown("the host has no sha256sum and no openssl")
}

/// What was told of the configured key, where one is configured on this host.
pub(super) fn authority_key(question: &Question, facts: &Facts<'_>, missing: &str) -> Option<AuthorityKey> {
    let path = question.authority_key.clone()?;
    let sha256 = match facts.one("cakey").map(|told| told.split_once(' ').unwrap_or((told, ""))) {
        Some(("there", sum)) => digest(sum).map(Some),
        Some(("absent", _)) => Fact::Known(None),
        Some(_) => Fact::unknown("it may not be read"),
        None => Fact::unknown(missing),
    };
    let mode = facts.one("cakey-mode").and_then(|mode| u32::from_str_radix(mode, 8).ok());
    Some(AuthorityKey { path, sha256, mode })
}
