//! Whole files: written atomically, read up to a limit.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kwdb_scale_core::ports::{PortError, PortErrorKind};

use crate::error::file_error;

/// Writes `content` under a temporary name beside `path` (readable by the owner only until it is complete), syncs it,
/// gives it the mode, renames it and syncs the directory. Replaces regular files and links to them, and nothing else.
pub(crate) fn put(path: &Path, content: &[u8], mode: u32) -> Result<(), PortError> {
    let failed = |e| file_error(format!("'{}' cannot be written", path.display()), e);
    // What cannot be looked at is absent, a link that leads nowhere, or fails below.
    if let Ok(found) = fs::metadata(path)
        && !found.is_file()
    {
        let what = if found.is_dir() { "a directory" } else { "there and is not a regular file" };
        let message = format!("'{}' was not written: it is {what}", path.display());
        return Err(PortError::new(PortErrorKind::Malformed, message));
    }
    let dir = directory_of(path);
    let mut temporary =
        tempfile::Builder::new().prefix(".kwdb-scale-").suffix(".tmp").tempfile_in(&dir).map_err(failed)?;
    temporary.write_all(content).map_err(failed)?;
    // By descriptor, so the umask has no say.
    temporary.as_file().set_permissions(Permissions::from_mode(mode & 0o7777)).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|e| failed(e.error))?;
    sync_directory(&dir)
}

/// Reads a regular file of at most `max` bytes.
pub(crate) fn get(path: &Path, max: usize) -> Result<Vec<u8>, PortError> {
    let failed = |e| file_error(format!("'{}' cannot be read", path.display()), e);
    let malformed =
        |why: &str| PortError::new(PortErrorKind::Malformed, format!("'{}' {why}", path.display()));
    // Looked at before it is opened: opening a named pipe would wait for a writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(malformed("is not a regular file"));
    }
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut content = Vec::new();
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut content).map_err(failed)?;
    if content.len() > max {
        return Err(malformed(&format!("is longer than {max} bytes")));
    }
    Ok(content)
}

/// Makes names created, renamed or removed in `dir` durable.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), PortError> {
    let sync = || File::open(dir)?.sync_all();
    sync().map_err(|e| file_error(format!("the directory '{}' cannot be synced", dir.display()), e))
}

/// Makes `dir` and its parents, each for the owner only, durably.
pub(crate) fn make_directory(dir: &Path) -> Result<(), PortError> {
    use std::os::unix::fs::DirBuilderExt;
    if dir.is_dir() {
        return Ok(());
    }
    let parent = directory_of(dir);
    if parent != dir {
        make_directory(&parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => sync_directory(&parent),
        // Somebody else made it meanwhile.
        Err(_) if dir.is_dir() => Ok(()),
        Err(e) => Err(file_error(format!("the directory '{}' cannot be made", dir.display()), e)),
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) => PathBuf::from("."),
        None => PathBuf::from("/"),
    }
}
