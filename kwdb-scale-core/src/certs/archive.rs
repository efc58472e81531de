//! The documented archive of certificates: `kaiwudb_certs.tar.gz` of `ca.key` and `ca.crt`.
//!
//! From V3.1.0 the installer leaves `kw-certs.tar.gz`, which also holds the node's and root's pairs; both are read.
//! An archive comes from another machine, so it is opened here, in memory, before any of it reaches a file system:
//! only files, only names that are known, no directory but `./`, no link, no device, and no more than 64 KiB a file.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::certificate::Certificate;

/// The name that the KWDB page gives it, and that `deploy.sh join` insists on.
pub const NAME: &str = "kaiwudb_certs.tar.gz";
/// The names by which it is found: the page's, and that of installers from V3.1.0.
pub const NAMES: [&str; 2] = [NAME, "kw-certs.tar.gz"];
/// Most bytes of one file.
pub const FILE_MAX: usize = 64 << 10;
/// Most bytes of an archive, packed.
pub const PACKED_MAX: usize = 1 << 20;
/// Most files.
const FILES_MAX: usize = 64;

/// Why an archive is not opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// No gzip of a tar, or cut short.
    #[error("this is no archive of certificates (tar, packed with gzip): {0}")]
    Unreadable(String),
    /// Something in it that is no known certificate file.
    #[error(
        "the archive holds '{name}', {what}; it is not opened: make it again on the node that holds the authority"
    )]
    Refused {
        /// The entry, escaped.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Too many files, or too long ones.
    #[error(
        "the archive holds more than {FILES_MAX} files, or more than {PACKED_MAX} bytes; it is not opened"
    )]
    TooLarge,
    /// A file that it must hold is missing.
    #[error("the archive lacks {0}; make it again on the node that holds the authority")]
    Missing(&'static str),
    /// `ca.crt` in it cannot be read.
    #[error("ca.crt in the archive: {0}")]
    Authority(String),
}

/// An opened archive. It holds a private key: `Debug` shows names only.
#[derive(Clone, Eq, PartialEq)]
pub struct Archive {
    files: BTreeMap<String, Vec<u8>>,
    authority: Certificate,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("names", &self.files.keys()).finish_non_exhaustive()
    }
}

/// Whether a file of that name belongs into a certificate archive.
pub fn is_known(name: &str) -> bool {
    let client = name
        .strip_prefix("client.")
        .and_then(|rest| rest.strip_suffix(".crt").or_else(|| rest.strip_suffix(".key")));
    let user = |u: &str| {
        (1..=63).contains(&u.len()) && u.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    matches!(name, "ca.crt" | "ca.key" | "node.crt" | "node.key" | "sm4.key") || client.is_some_and(user)
}

impl Archive {
    /// Opens one.
    ///
    /// # Errors
    /// [`ArchiveError`]: it is damaged, holds something that does not belong there, or lacks `ca.crt` or `ca.key`.
    pub fn open(packed: &[u8]) -> Result<Self, ArchiveError> {
        if packed.len() > PACKED_MAX {
            return Err(ArchiveError::TooLarge);
        }
        let unreadable = |e: std::io::Error| ArchiveError::Unreadable(e.to_string());
        // A gzip of nothing but zeros unpacks to a thousand times its size.
        let most = (FILE_MAX + 1024) * (FILES_MAX + 1);
        let mut archive = tar::Archive::new(GzDecoder::new(packed).take(most as u64));
        let mut files = BTreeMap::new();
        for entry in archive.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let refuse =
                |what| Err(ArchiveError::Refused { name: path.escape_debug().take(80).collect(), what });
            let kind = entry.header().entry_type();
            let name = path.strip_prefix("./").unwrap_or(&path);
            if kind.is_dir() && matches!(path.as_str(), "." | "./") {
                continue;
            }
            if path.starts_with('/') || path.split('/').any(|part| part == "..") {
                return refuse("a path that leads out of the directory");
            }
            if !kind.is_file() {
                return refuse("which is no plain file");
            }
            if !is_known(name) {
                return refuse("which is no certificate file");
            }
            if entry.size() > FILE_MAX as u64 {
                return refuse("which is longer than 64 KiB");
            }
            if files.len() >= FILES_MAX {
                return Err(ArchiveError::TooLarge);
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(unreadable)?;
            if content.len() as u64 != entry.size() {
                return Err(ArchiveError::Unreadable("it ends in the middle of a file".to_owned()));
            }
            if files.insert(name.to_owned(), content).is_some() {
                return refuse("which stands there twice");
            }
        }
        Self::of(files)
    }

    /// An archive of the authority's certificate and private key, both in PEM.
    ///
    /// # Errors
    /// [`ArchiveError`]: the certificate is none.
    pub fn of_authority(certificate: &str, key: &str) -> Result<Self, ArchiveError> {
        let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        Self::of(BTreeMap::from([file("ca.crt", certificate), file("ca.key", key)]))
    }

    fn of(files: BTreeMap<String, Vec<u8>>) -> Result<Self, ArchiveError> {
        let pem = |name: &'static str| {
            let content = files.get(name).ok_or(ArchiveError::Missing(name))?;
            Ok(String::from_utf8_lossy(content).into_owned())
        };
        if !pem("ca.key")?.contains("PRIVATE KEY-----") {
            return Err(ArchiveError::Missing("a private key in ca.key"));
        }
        let authority =
            Certificate::from_pem(&pem("ca.crt")?).map_err(|e| ArchiveError::Authority(e.to_string()))?;
        Ok(Self { files, authority })
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &Certificate {
        &self.authority
    }

    /// Names of the files in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The content of a file in it.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// The archive of `ca.key` and `ca.crt` alone, as the KWDB page packs it (`./ca.key ./ca.crt`): with more in it
    /// `deploy.sh join` and `kwbase cert create-node` fail with "file exists".
    ///
    /// # Errors
    /// [`ArchiveError::Unreadable`]: it cannot be packed.
    pub fn pack(&self) -> Result<Vec<u8>, ArchiveError> {
        self.pack_for("")
    }

    /// The same with files that belong to this user and the group of that name when root extracts them. `deploy.sh join`
    /// extracts as root and makes certificates as its management user, who has to read the key.
    ///
    /// # Errors
    /// As [`pack`](Self::pack); a name longer than 31 bytes.
    pub fn pack_for(&self, owner: &str) -> Result<Vec<u8>, ArchiveError> {
        let unwritable = |e: std::io::Error| ArchiveError::Unreadable(e.to_string());
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, mode) in [("ca.key", 0o600), ("ca.crt", 0o644)] {
            let content = self.file(name).ok_or(ArchiveError::Missing("ca.key or ca.crt"))?;
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            header.set_username(owner).map_err(unwritable)?;
            header.set_groupname(owner).map_err(unwritable)?;
            builder.append_data(&mut header, format!("./{name}"), content).map_err(unwritable)?;
        }
        let mut gzip = builder.into_inner().map_err(unwritable)?;
        gzip.flush().map_err(unwritable)?;
        gzip.finish().map_err(unwritable)
    }
}
