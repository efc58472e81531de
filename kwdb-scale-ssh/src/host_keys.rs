//! Whether a host is the one that was meant.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKeyOrCertificate};

use crate::config::SshHost;
use crate::error::{config, local_file};
use crate::known_hosts::{self, Known, Verdict, lookup_name};

/// Which host keys are accepted. There is no way to accept any.
///
/// A refusal is of the kind [`Authentication`](PortErrorKind::Authentication) and names the fingerprint presented
/// and, where there is one, the file and line that speaks against it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HostKeyPolicy {
    /// The host's key, or the authority that signed its certificate, stands in one of these known_hosts files. A
    /// file that does not exist is empty. A host at a port other than 22 is looked up as `[host]:port` only.
    Strict {
        /// Read anew for every connection.
        files: Vec<PathBuf>,
    },
    /// The host's key has one of these fingerprints, as `ssh-keygen -l` prints them: `SHA256:…`. Of several host
    /// keys the first of Ed25519, ECDSA and RSA is presented, so that is the one to name.
    Pinned {
        /// At least one.
        fingerprints: Vec<String>,
    },
    /// The key of a host of which the files have none is added to the first; from then on, and for every host that the
    /// files know, it is as strict as [`Strict`](Self::Strict).
    AcceptNew {
        /// Made with mode 0600 when absent; its directory must exist.
        file: PathBuf,
        /// Further files that are read, and never written.
        also: Vec<PathBuf>,
        /// Whether the host's name is written as a hash, so that the file does not tell which hosts are known
        /// (`HashKnownHosts`). Both forms are read in any case.
        hashed: bool,
    },
}

impl HostKeyPolicy {
    /// The files that `ssh` uses by default: `~/.ssh/known_hosts` (where `HOME` is set) and
    /// `/etc/ssh/ssh_known_hosts`.
    pub fn default_files() -> Self {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh/known_hosts"));
        Self::Strict { files: home.into_iter().chain(["/etc/ssh/ssh_known_hosts".into()]).collect() }
    }

    pub(crate) fn check(&self) -> Result<(), PortError> {
        match self {
            Self::Strict { files } if files.is_empty() => Err(config("no known_hosts file is given")),
            Self::Pinned { fingerprints } if fingerprints.is_empty() => {
                Err(config("no host key fingerprint is given"))
            }
            Self::Pinned { fingerprints } => fingerprints.iter().try_for_each(|text| {
                match text.parse::<russh::keys::ssh_key::Fingerprint>() {
                    Ok(fingerprint) if fingerprint.is_sha256() => Ok(()),
                    _ => Err(config(format!(
                        "'{text}' is not a host key fingerprint such as 'ssh-keygen -l' prints (SHA256:…)"
                    ))),
                }
            }),
            _ => Ok(()),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Strict { files } => files.clone(),
            Self::AcceptNew { file, also, .. } => std::iter::once(file).chain(also).cloned().collect(),
            Self::Pinned { .. } => Vec::new(),
        }
    }
}

/// The policy for one handshake, with what the files say at its start.
#[derive(Debug)]
pub(crate) struct HostCheck {
    policy: HostKeyPolicy,
    /// For messages.
    shown: String,
    /// As known_hosts files name it.
    name: String,
    /// As certificates name it.
    principal: String,
    known: Known,
}

/// What is asked for, the best first. No SHA-1, no DSA.
const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

impl HostCheck {
    /// Reads the files. Blocks.
    pub(crate) fn load(host: &SshHost) -> Result<Self, PortError> {
        let principal = host.known_as.as_ref().unwrap_or(&host.address).to_ascii_lowercase();
        let name = match &host.known_as {
            Some(name) => name.to_ascii_lowercase(),
            None => lookup_name(&host.address, host.port),
        };
        let mut known = known_hosts::read(&host.host_keys.files(), &name).map_err(|(file, e)| {
            local_file(format!("the known_hosts file '{}' cannot be read", file.display()), e)
        })?;
        if let Some(place) = &known.unreadable {
            return Err(config(format!(
                "{place} revokes a key of '{}' that cannot be read, so which of its keys are good is not known: correct \
                 that line or take it out",
                host.shown()
            )));
        }
        for file in &host.revoked {
            let shown = || format!("the file of revoked host keys '{}'", file.display());
            let bytes =
                std::fs::read(file).map_err(|e| local_file(format!("{} cannot be read", shown()), e))?;
            known.revoke(file, &String::from_utf8_lossy(&bytes)).map_err(|line| {
                config(format!(
                    "line {line} of {} is neither a public key nor a certificate: list one a line",
                    shown()
                ))
            })?;
        }
        Ok(Self { policy: host.host_keys.clone(), shown: host.shown(), name, principal, known })
    }

    /// What to ask the server for: the types of known keys first, so that a host known by one of its keys is not
    /// asked for another.
    pub(crate) fn algorithms(&self) -> Vec<Algorithm> {
        let known: Vec<Algorithm> = self.known.algorithms().collect();
        let is_known = |algorithm: &Algorithm| match algorithm {
            Algorithm::Rsa { .. } => known.iter().any(|k| matches!(k, Algorithm::Rsa { .. })),
            other => known.contains(other),
        };
        let (first, then): (Vec<_>, Vec<_>) = ALGORITHMS.into_iter().partition(is_known);
        first.into_iter().chain(then).collect()
    }

    /// Whether certificates are of any use.
    pub(crate) fn certificates(&self) -> bool {
        self.known.authorities().next().is_some()
    }

    pub(crate) fn check(&self, presented: &PublicKeyOrCertificate) -> Result<(), PortError> {
        if let Some(certificate) = presented.certificate()
            && self.vouched_for(certificate)?
        {
            return Ok(());
        }
        // A certificate of an unknown authority still holds a key that may be known.
        self.check_key(presented.public_key().key_data())
    }

    fn check_key(&self, key: &KeyData) -> Result<(), PortError> {
        match (self.known.judge(key), &self.policy) {
            (Verdict::Revoked(place), _) => Err(self.refusal(key, &format!("which {place} revokes: {REVOKED}"))),
            (_, HostKeyPolicy::Pinned { fingerprints }) => {
                let fingerprint = key.fingerprint(HashAlg::Sha256);
                match fingerprints.iter().any(|pin| pin.parse().is_ok_and(|pin| fingerprint == pin)) {
                    true => Ok(()),
                    false => {
                        Err(self.refusal(key, "which is not one of those pinned: if it is right, pin it"))
                    }
                }
            }
            (Verdict::Trusted, _) => Ok(()),
            (Verdict::Changed(place), _) => Err(self.refusal(
                key,
                &format!(
                    "but {place} has another: somebody may be listening in; if the key was changed on purpose, \
                     correct that line"
                ),
            )),
            (Verdict::Unknown, HostKeyPolicy::AcceptNew { file, hashed, .. }) => {
                self.record(file, *hashed, key)
            }
            (Verdict::Unknown, HostKeyPolicy::Strict { files }) => {
                let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
                Err(self.refusal(
                    key,
                    &format!(
                        "and '{}' is not in {}: compare the fingerprint with the host's and add the key",
                        self.name,
                        files.join(" nor in ")
                    ),
                ))
            }
        }
    }

    /// Whether a known authority says so. A certificate of one that is not valid is an error.
    fn vouched_for(&self, certificate: &Certificate) -> Result<bool, PortError> {
        let authority = certificate.signature_key();
        if let Some(place) = self.known.revoked(authority) {
            return Err(self.refusal(
                authority,
                &format!("as the authority of its certificate, which {place} revokes: {REVOKED}"),
            ));
        }
        if let Some(place) = self.known.revoked(certificate.public_key()) {
            return Err(self.refusal(certificate.public_key(), &format!("which {place} revokes: {REVOKED}")));
        }
        if !self.known.is_authority(authority) {
            return Ok(false);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
        let principals = certificate.valid_principals();
        // Exactly, in lower case, as OpenSSH before 10.3 does; a later one takes patterns.
        let named = principals.contains(&self.principal);
        let fault = if certificate.cert_type() != CertType::Host {
            "is not one of a host".to_owned()
        } else if certificate.signature().algorithm() == (Algorithm::Rsa { hash: None }) {
            "is signed with SHA-1".to_owned()
        } else if !(certificate.valid_after()..certificate.valid_before()).contains(&now) {
            "is not valid now: compare the clocks".to_owned()
        } else if certificate.validate_at(now, [&authority.fingerprint(HashAlg::Sha256)]).is_err() {
            "has a wrong signature".to_owned()
        } else if certificate.critical_options().iter().next().is_some() {
            "has a critical option, and none is known for hosts".to_owned()
        } else if !named {
            // OpenSSH before 10.3 takes one without principals for any host.
            format!("is not for '{}' but for {principals:?}", self.principal)
        } else {
            return Ok(true);
        };
        Err(PortError::new(
            PortErrorKind::Authentication,
            format!(
                "the certificate of '{}' {fault}; have another issued for the host if it is right",
                self.shown
            ),
        ))
    }

    fn record(&self, file: &Path, hashed: bool, key: &KeyData) -> Result<(), PortError> {
        let line = known_hosts::line(&self.name, hashed, key)
            .ok_or_else(|| self.refusal(key, "which cannot be written to a known_hosts file"))?;
        append(file, &line).map_err(|e| {
            local_file(format!("the key of '{}' cannot be added to '{}'", self.shown, file.display()), e)
        })?;
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        tracing::info!(host = self.shown, %fingerprint, file = %file.display(), "a new host key was accepted");
        Ok(())
    }

    fn refusal(&self, key: &KeyData, why: &str) -> PortError {
        let (algorithm, fingerprint) = (key.algorithm(), key.fingerprint(HashAlg::Sha256));
        PortError::new(
            PortErrorKind::Authentication,
            format!("'{}' presented the {algorithm} key {fingerprint}, {why}", self.shown),
        )
    }
}

/// What to do about a host whose key somebody revoked.
const REVOKED: &str = "the host wants a new one before it is reached, unless that line is wrong";

/// Adds a line durably, after the line break that the last one may lack.
fn append(file: &Path, line: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(file)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let text = if last == [b'\n'] { line.to_owned() } else { format!("\n{line}") };
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
#[path = "host_keys_tests.rs"]
mod tests;
