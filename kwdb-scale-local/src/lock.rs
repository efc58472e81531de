//! The lock that lets one operation run at a time, for the programs of this machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kwdb_scale_core::ports::{LockGuard, OperationLock, PortError, PortErrorKind, async_trait};

use crate::error::{blocking, file_error};
use crate::files::make_directory;

/// Name of the lock file in a directory of journals.
const FILE_NAME: &str = "operation.lock";
/// More than this of a holder's note is not shown.
const LONGEST_NOTE: u64 = 500;

/// An advisory lock on a file, which holds the holder's label and process id while it is locked.
///
/// The operating system gives the lock back when the holder's process ends, however it ends, so there is nothing to
/// clean up and the file is never removed. It binds programs that see the same file: those of this machine.
#[derive(Clone, Debug)]
pub struct FileLock {
    path: PathBuf,
}

impl FileLock {
    /// The lock of the operations that keep their journals in `dir` (the file `operation.lock` in it).
    pub fn in_dir(dir: impl AsRef<Path>) -> Self {
        Self::at(dir.as_ref().join(FILE_NAME))
    }

    /// A lock on the file at `path`, which is made when it is absent, as is its directory.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[async_trait]
impl OperationLock for FileLock {
    async fn acquire(&self, label: &str) -> Result<Box<dyn LockGuard>, PortError> {
        let path = self.path.clone();
        let label: String = label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        blocking(move || take(path, &label)).await.map(|guard| Box::new(guard) as Box<dyn LockGuard>)
    }
}

/// Gives the lock back when dropped.
#[derive(Debug)]
struct FileGuard {
    file: File,
}

impl LockGuard for FileGuard {
    fn held_until(&self) -> Option<Timestamp> {
        None
    }
}

impl Drop for FileGuard {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        // Closing would do unless a process being started by another thread holds a copy of the descriptor just now.
        if let Err(e) = self.file.unlock() {
            tracing::warn!(error = %e, "an operation lock could not be given back");
        }
    }
}

fn take(path: PathBuf, label: &str) -> Result<FileGuard, PortError> {
    let failed = |e| file_error(format!("the lock file '{}' cannot be used", path.display()), e);
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        make_directory(dir)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            // From here on an error gives the lock back with the guard.
            let mut guard = FileGuard { file };
            let note = format!("{label} (process {})\n", std::process::id());
            guard.file.set_len(0).and_then(|()| guard.file.write_all(note.as_bytes())).map_err(failed)?;
            Ok(guard)
        }
        Err(TryLockError::WouldBlock) => {
            let mut note = Vec::new();
            let _ = Read::by_ref(&mut file).take(LONGEST_NOTE).read_to_end(&mut note);
            let note = String::from_utf8_lossy(&note);
            let holder = match note.lines().next().map(str::trim) {
                Some(line) if !line.is_empty() => line,
                _ => "another process",
            };
            let message = format!(
                "another operation runs: the lock '{}' is held by {holder}; wait for it or stop it",
                path.display()
            );
            Err(PortError::new(PortErrorKind::Denied, message))
        }
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}
