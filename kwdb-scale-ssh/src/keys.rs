//! Private keys in files: read for every connection, opened once.

use std::path::Path;
use std::sync::Arc;

use kwdb_scale_core::ports::PortError;
use kwdb_scale_core::secret::Secret;
use russh::AgentAuthError;
use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_key::encoding::Encode as _;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{self, Signature};
use russh::keys::{Certificate, HashAlg, PrivateKey, PublicKey};
use tokio::sync::Mutex;

use crate::config::KeyFile;
use crate::ecdsa::with_short_number;
use crate::error::{SshFault, blocking, config, local_file};

/// The keys of a transport's connections. Opening an encrypted one takes a good part of a second by design, and the hosts
/// of a fleet mostly share one.
#[derive(Debug, Default)]
pub(crate) struct Keys(
    /// Held while one is opened, so that the others wait for it.
    Mutex<Vec<Opened>>,
);

pub(crate) type CertificateOf = Result<Option<Certificate>, PortError>;

#[derive(Clone, Debug)]
struct Opened {
    file: KeyFile,
    /// What the file held.
    text: Secret,
    key: Arc<PrivateKey>,
}

impl Keys {
    /// The key, and its certificate if the file has one, or why that cannot be used.
    pub(crate) async fn open(&self, file: &KeyFile) -> Result<(Arc<PrivateKey>, CertificateOf), PortError> {
        let mut opened = self.0.lock().await;
        let before = opened.iter().find(|o| o.file == *file).cloned();
        let given = file.clone();
        let (now, certificate) = blocking(move || {
            let now = read_key(given, before)?;
            let certificate = read_certificate(&now);
            Ok((now, certificate))
        })
        .await?;
        let key = Arc::clone(&now.key);
        opened.retain(|o| o.file != *file);
        opened.push(now);
        Ok((key, certificate))
    }
}

/// Reads the file, and opens the key unless that was done with the same text.
fn read_key(file: KeyFile, before: Option<Opened>) -> Result<Opened, PortError> {
    let shown = file.path.display();
    let text = std::fs::read_to_string(&file.path)
        .map(Secret::new)
        .map_err(|e| local_file(format!("the key file '{shown}' cannot be read"), e))?;
    if let Some(before) = before.filter(|before| before.text == text) {
        return Ok(before);
    }
    let passphrase = file.passphrase.as_ref();
    let open = |e| with_short_number(text.expose(), passphrase.map(Secret::expose)).ok_or(e);
    let key = russh::keys::decode_secret_key(text.expose(), passphrase.map(Secret::expose));
    let key =
        key.or_else(open).map_err(|e| {
            let cannot = |why: &str| config(format!("the key file '{shown}' cannot be used: {why}"));
            match (&e, passphrase) {
                (russh::keys::Error::KeyIsEncrypted, None) => cannot("it is encrypted: give its passphrase")
                    .with_source(SshFault::Passphrase.caused_by(e)),
                (_, Some(_)) => {
                    cannot("the passphrase is wrong, or it is no private key: correct one or the other")
                        .with_source(SshFault::Passphrase.caused_by(e))
                }
                (_, None) if public(text.expose()).is_some() => {
                    cannot("it is a public key: name the private key, or add that to an agent (ssh-add)")
                        .with_source(e)
                }
                (_, None) => cannot("it is no private key, or one of an unknown type: name a private key")
                    .with_source(e),
            }
        })?;
    Ok(Opened { key: Arc::new(key), text, file })
}

fn read_certificate(opened: &Opened) -> CertificateOf {
    let key = &opened.key;
    let Some(path) = &opened.file.certificate else { return Ok(None) };
    let shown = Path::display(path);
    let text = std::fs::read_to_string(path)
        .map_err(|e| local_file(format!("the certificate '{shown}' cannot be read"), e))?;
    let certificate = Certificate::from_openssh(text.trim())
        .map_err(|e| config(format!("'{shown}' is not an OpenSSH certificate")).with_source(e))?;
    if certificate.public_key() != key.public_key().key_data() {
        return Err(config(format!("the certificate '{shown}' belongs to another key")));
    }
    Ok(Some(certificate))
}

/// The public key that a file names: it holds one, or its certificate, or a private key, which is not opened for that.
pub(crate) fn public_key(path: &Path) -> Result<KeyData, PortError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map(Secret::new)
        .map_err(|e| local_file(format!("the public key '{shown}' cannot be read"), e))?;
    let text = text.expose();
    public(text).or_else(|| public_of(text)).ok_or_else(|| {
        config(format!(
            "'{shown}' is no OpenSSH public key: name the .pub file, or make one with ssh-keygen -y"
        ))
    })
}

/// Whether the file holds a public key or a certificate instead of a private key.
pub(crate) fn is_public(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| public(&text).is_some())
}

fn public(text: &str) -> Option<KeyData> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let certified = || Certificate::from_openssh(line).ok().map(|c| c.public_key().clone());
    PublicKey::from_openssh(line).ok().map(KeyData::from).or_else(certified)
}

/// That of a private key, which OpenSSH's own format tells without a passphrase.
fn public_of(text: &str) -> Option<KeyData> {
    let key = PrivateKey::from_openssh(text).ok();
    let key = key.or_else(|| russh::keys::decode_secret_key(text, None).ok());
    key.or_else(|| with_short_number(text, None)).map(|key| key.public_key().key_data().clone())
}

/// Signs with a private key by the hash that is asked for; of an RSA key with a certificate, the library itself would
/// sign by SHA-1.
#[derive(Debug)]
pub(crate) struct KeySigner(pub(crate) Arc<PrivateKey>);

impl KeySigner {
    fn sign(&self, hash: Option<HashAlg>, data: &[u8]) -> Result<Signature, ssh_key::Error> {
        Ok(match self.0.key_data() {
            KeypairData::Rsa(rsa) => (rsa, hash).try_sign(data)?,
            other => other.try_sign(data)?,
        })
    }
}

impl russh::Signer for KeySigner {
    type Error = AgentAuthError;

    /// Gives what was to be signed with the signature after it.
    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, AgentAuthError> {
        let signature = self.sign(hash, &data).map_err(russh::keys::Error::from)?;
        signature.encode_prefixed(&mut data).map_err(russh::keys::Error::from)?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use kwdb_scale_core::ports::PortErrorKind;
    use russh::keys::Algorithm;
    use russh::keys::ssh_key::LineEnding;

    use super::*;

    fn write(path: &Path, passphrase: &str) -> PrivateKey {
        let rng = &mut russh::keys::key::safe_rng();
        let key = PrivateKey::random(rng, Algorithm::Ed25519).unwrap();
        let encrypted = key.encrypt(rng, passphrase).unwrap();
        std::fs::write(path, encrypted.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        key
    }

    #[tokio::test]
    async fn a_key_is_opened_once_and_a_changed_file_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        let first = write(&path, "secret");
        let (keys, file) = (Keys::default(), KeyFile::new(&path).passphrase(Secret::new("secret")));
        let (one, _) = keys.open(&file).await.unwrap();
        let (two, _) = keys.open(&file).await.unwrap();
        assert!(Arc::ptr_eq(&one, &two) && one.public_key().key_data() == first.public_key().key_data());
        // The passphrase is part of what was asked for.
        let wrong = keys.open(&KeyFile::new(&path).passphrase(Secret::new("other"))).await.unwrap_err();
        assert!(wrong.to_string().contains("passphrase is wrong"), "{wrong}");
        assert_eq!(SshFault::of(&wrong), Some(SshFault::Passphrase));
        let none = keys.open(&KeyFile::new(&path)).await.unwrap_err();
        assert_eq!(SshFault::of(&none), Some(SshFault::Passphrase), "{none}");
        // What is no key is not encrypted, whatever it is called.
        let words = dir.path().join("passphrase");
        std::fs::write(&words, "passphrase\n").unwrap();
        let none = keys.open(&KeyFile::new(&words)).await.unwrap_err();
        assert_eq!((SshFault::of(&none), none.kind()), (None, PortErrorKind::Config), "{none}");
        let second = write(&path, "secret");
        let (three, _) = keys.open(&file).await.unwrap();
        assert_eq!(three.public_key().key_data(), second.public_key().key_data());
        assert!(!format!("{keys:?}").contains("OPENSSH"));
    }
}
