//! The files that a node leaves in its store directories: by them a used store is told from a fresh one, and a node
//! that is started on its old store comes back as itself.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const IDENTITY: &str = "MANIFEST-000001";
const START_MODE: &str = "kwbase.start_mode";

/// What the twin keeps where the real one keeps its engine's manifest.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Manifest {
    /// Names the store's data: made anew for every fresh store.
    store: String,
    /// The cluster whose data it is, once the node has joined.
    cluster: Option<String>,
}

/// One open store. The lock ends with it.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    manifest: Manifest,
    _lock: File,
}

impl Store {
    /// Opens a store, or makes one in an absent or empty directory. The error is the text behind `ERROR: `.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let fail = |error: io::Error| format!("failed to create engines: {}: {error}", path.display());
        fs::DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(fail)?;
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new().create(true).append(true).mode(0o640).open(&lock_path).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "failed to create engines: IO error: While lock file: {}: Resource temporarily unavailable",
                    lock_path.display()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        let manifest = match fs::read(path.join(IDENTITY)) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                format!("failed to create engines: {}: not a store of the twin: {error}", path.display())
            })?,
            Err(_) => Manifest { store: fresh_name(), cluster: None },
        };
        let store = Self { path: path.to_owned(), manifest, _lock: lock };
        for (file, content) in [("CURRENT", "MANIFEST-000001\n"), ("OPTIONS-000003", ""), ("000002.log", "")]
        {
            store.write(file, content).map_err(fail)?;
        }
        store.save().map_err(fail)?;
        Ok(store)
    }

    /// A name for the store's data: the path and what makes it unlike any earlier store there.
    pub(crate) fn name(&self) -> String {
        format!("{}#{}", self.path.display(), self.manifest.store)
    }

    /// The cluster whose data the store holds.
    pub(crate) fn cluster(&self) -> Option<String> {
        self.manifest.cluster.clone()
    }

    /// Records that the store belongs to a cluster now.
    pub(crate) fn joined(&mut self, cluster: &str, mode: &str) -> io::Result<()> {
        self.manifest.cluster = Some(cluster.to_owned());
        self.write(START_MODE, mode)?;
        self.save()
    }

    /// Writes a small file into the directory.
    pub(crate) fn write(&self, name: &str, content: &str) -> io::Result<()> {
        fs::write(self.path.join(name), content)
    }

    /// Appends a line to `logs/kwbase.log`.
    pub(crate) fn log(&self, text: &str) {
        let logs = self.path.join("logs");
        let written = fs::create_dir_all(&logs)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(logs.join("kwbase.log")))
            .and_then(|mut file| {
                writeln!(file, "I{} {text}", jiff::Timestamp::now().strftime("%y%m%d %H:%M:%S.%6f"))
            });
        if let Err(error) = written {
            eprintln!("log of {}: {error}", self.path.display());
        }
    }

    fn save(&self) -> io::Result<()> {
        self.write(IDENTITY, &serde_json::to_string(&self.manifest)?)
    }
}

/// Writes a file that only its owner reads, all at once.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    fs::rename(unfinished, path)
}

/// Unlikely to be given twice.
pub(crate) fn fresh_name() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// A number by chance: `RandomState` is the standard library's only source of it.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_its_name_until_it_is_wiped() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("n1");
        let mut store = Store::open(&path).unwrap();
        assert!(Store::open(&path).unwrap_err().contains("Resource temporarily unavailable"));
        store.joined("c", "start").unwrap();
        let name = store.name();
        drop(store);
        assert_eq!(fs::read_to_string(path.join(START_MODE)).unwrap(), "start");
        let store = Store::open(&path).unwrap();
        assert_eq!((store.name(), store.cluster()), (name.clone(), Some("c".to_owned())));
        drop(store);
        fs::remove_dir_all(&path).unwrap();
        let store = Store::open(&path).unwrap();
        assert_ne!(store.name(), name);
        assert_eq!(store.cluster(), None);
    }
}
