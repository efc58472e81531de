//! The journal of an operation as a file of JSON lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kwdb_scale_core::execute::journal::{CodecError, JournalRecord, decode, encode};
use kwdb_scale_core::ports::{Journal, PortError, PortErrorKind, async_trait};

use crate::error::{blocking, file_error};
use crate::files::{make_directory, sync_directory};

const EXTENSION: &str = "jsonl";

/// An append-only file of JSON lines, one record a line, in core's codec.
///
/// Each record is one write followed by a sync; the file has mode 0600 and its directory is synced once it exists.
/// After a failed append the file's end is unknown, so the journal takes no more records until it is opened again; the
/// same when the file changed under it (one writer at a time is what the [`FileLock`](crate::FileLock) is for).
/// An append goes on to its end when its future is dropped.
#[derive(Debug)]
pub struct FileJournal {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Length of the file as we know it.
    length: u64,
    /// Length of the whole records in it: less than `length` when the last line was torn by a crash.
    whole: u64,
    /// Number of the record that is due.
    next: u64,
    /// Why no more records are taken.
    broken: Option<&'static str>,
}

impl FileJournal {
    /// Makes a new journal `<time>-<name>.jsonl` in `dir`, which is made when it is absent.
    ///
    /// The time is the present in UTC to the millisecond, so that names sort by age. Of `name`, letters, digits, `.`,
    /// `_` and `-` are kept and anything else becomes `-`.
    pub async fn create(dir: impl AsRef<Path>, name: &str) -> Result<Self, PortError> {
        let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let name: String = name.chars().map(plain).collect();
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ");
        Self::create_at(dir.as_ref().join(format!("{time}-{name}.{EXTENSION}"))).await
    }

    /// Makes a new journal at `path`; refuses (with `Config`) when a file is there already.
    pub async fn create_at(path: impl Into<PathBuf>) -> Result<Self, PortError> {
        let path = path.into();
        blocking(move || {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            make_directory(dir)?;
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(|e| not_created(&path, e))?;
            sync_directory(dir)?;
            let state = State { file, length: 0, whole: 0, next: 1, broken: None };
            Ok(Self { path, state: Arc::new(Mutex::new(state)) })
        })
        .await
    }

    /// Opens an existing journal to read it and to go on writing it.
    ///
    /// A last line torn by a crash is left in the file until the next append takes its place. Fails with `NotFound`
    /// when there is no such file, `Malformed` when it is damaged before its last line, `Unsupported` when a newer
    /// library wrote it.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, PortError> {
        let path = path.into();
        blocking(move || {
            let failed = |e| file_error(format!("the journal '{}' cannot be opened", path.display()), e);
            let mut file = OpenOptions::new().read(true).append(true).open(&path).map_err(failed)?;
            // What a crashed writer left may not have reached the disk; from here on it is relied upon.
            file.sync_all().map_err(failed)?;
            let content = read_all(&mut file).map_err(failed)?;
            let records = decode_bytes(&path, &content)?;
            let whole = content.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
            let state = State {
                file,
                length: content.len() as u64,
                whole: whole as u64,
                next: records.last().map_or(1, |last| last.seq.saturating_add(1)),
                broken: None,
            };
            Ok(Self { path, state: Arc::new(Mutex::new(state)) })
        })
        .await
    }

    /// The journals in `dir`, the oldest first; none when the directory does not exist.
    pub async fn list(dir: impl Into<PathBuf>) -> Result<Vec<PathBuf>, PortError> {
        let dir = dir.into();
        blocking(move || {
            let failed = |e| file_error(format!("the directory '{}' cannot be read", dir.display()), e);
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(e) => return Err(failed(e)),
            };
            let mut journals = Vec::new();
            for entry in entries {
                let path = entry.map_err(failed)?.path();
                if path.extension().is_some_and(|extension| extension == EXTENSION) {
                    journals.push(path);
                }
            }
            journals.sort();
            Ok(journals)
        })
        .await
    }

    /// The newest journal in `dir`, finished or not.
    pub async fn latest(dir: impl Into<PathBuf>) -> Result<Option<PathBuf>, PortError> {
        Ok(Self::list(dir).await?.pop())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does `work` on a blocking thread with the state locked.
    async fn with_state<T, F>(&self, work: F) -> Result<T, PortError>
    where
        T: Send + 'static,
        F: FnOnce(&mut State, &Path) -> Result<T, PortError> + Send + 'static,
    {
        let (state, path) = (Arc::clone(&self.state), self.path.clone());
        blocking(move || work(&mut state.lock().unwrap_or_else(PoisonError::into_inner), &path)).await
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn append(&self, record: &JournalRecord) -> Result<(), PortError> {
        let seq = record.seq;
        let line = encode(record).map_err(|e| codec_error(&self.path, e))?;
        self.with_state(move |state, path| state.append(seq, line.as_bytes(), path)).await
    }

    async fn records(&self) -> Result<Vec<JournalRecord>, PortError> {
        self.with_state(|state, path| {
            let content = read_all(&mut state.file)
                .map_err(|e| file_error(format!("the journal '{}' cannot be read", path.display()), e))?;
            decode_bytes(path, &content)
        })
        .await
    }
}

impl State {
    fn append(&mut self, seq: u64, line: &[u8], path: &Path) -> Result<(), PortError> {
        let path = path.display();
        if let Some(reason) = self.broken {
            let message = format!("the journal '{path}' takes no more records ({reason}): open it again");
            return Err(PortError::new(PortErrorKind::Other, message));
        }
        if seq != self.next {
            let message = format!("the journal '{path}' was given record {seq} where {} is due", self.next);
            return Err(PortError::new(PortErrorKind::Config, message));
        }
        // Until the last step has succeeded nothing more may be written after whatever is there now.
        self.broken = Some("an append failed");
        let failed = |e| file_error(format!("the journal '{path}' cannot be written"), e);
        let found = self.file.metadata().map_err(failed)?;
        if found.len() != self.length || found.nlink() == 0 {
            self.broken = Some("somebody else changed or removed the file");
            let message = format!("the journal '{path}' was changed or removed by somebody else");
            return Err(PortError::new(PortErrorKind::Malformed, message));
        }
        if self.whole < self.length {
            self.file.set_len(self.whole).and_then(|()| self.file.sync_all()).map_err(failed)?;
            self.length = self.whole;
        }
        self.file.write_all(line).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.length += line.len() as u64;
        self.whole = self.length;
        self.next += 1;
        self.broken = None;
        Ok(())
    }
}

fn not_created(path: &Path, error: io::Error) -> PortError {
    if error.kind() == io::ErrorKind::AlreadyExists {
        let message = format!(
            "there is a journal at '{}' already: resume it, or take another directory or name",
            path.display()
        );
        return PortError::new(PortErrorKind::Config, message);
    }
    file_error(format!("the journal '{}' cannot be made", path.display()), error)
}

fn read_all(file: &mut File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

fn decode_bytes(path: &Path, content: &[u8]) -> Result<Vec<JournalRecord>, PortError> {
    let whole = content.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
    let (lines, torn) = content.split_at_checked(whole).unwrap_or((content, &[]));
    // A torn line may end within a character; it is no record either way.
    let text = match str::from_utf8(content) {
        Ok(text) => text,
        Err(e) if e.valid_up_to() >= lines.len() && !torn.is_empty() => {
            str::from_utf8(lines).unwrap_or_default()
        }
        Err(e) => {
            let line = content.iter().take(e.valid_up_to()).filter(|b| **b == b'\n').count() + 1;
            let damaged = CodecError::Damaged { line, reason: "not UTF-8".into() };
            return Err(codec_error(path, damaged));
        }
    };
    decode(text).map_err(|e| codec_error(path, e))
}

fn codec_error(path: &Path, error: CodecError) -> PortError {
    let kind = match &error {
        CodecError::Damaged { .. } => PortErrorKind::Malformed,
        CodecError::Schema { .. } => PortErrorKind::Unsupported,
        _ => PortErrorKind::Config,
    };
    PortError::new(kind, format!("the journal '{}': {error}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests {
    use kwdb_scale_core::execute::Record;

    use super::*;

    fn record(seq: u64) -> JournalRecord {
        JournalRecord {
            seq,
            at: Timestamp::UNIX_EPOCH,
            record: Record::StepDone { step: 0, note: "x".into() },
        }
    }

    #[tokio::test]
    async fn after_a_failed_append_it_must_be_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let journal = FileJournal::create(dir.path(), "x").await.unwrap();
        journal.append(&record(1)).await.unwrap();
        // A descriptor that cannot be written stands for a full disk.
        let unwritable = File::open(journal.path()).unwrap();
        let good = std::mem::replace(&mut journal.state.lock().unwrap().file, unwritable);
        journal.append(&record(2)).await.unwrap_err();
        journal.state.lock().unwrap().file = good;
        let error = journal.append(&record(2)).await.unwrap_err();
        assert!(error.to_string().contains("open it again"), "{error}");
        assert_eq!(journal.records().await.unwrap(), [record(1)], "it can still be read");
        let journal = FileJournal::open(journal.path()).await.unwrap();
        journal.append(&record(2)).await.unwrap();
        assert_eq!(journal.records().await.unwrap(), [record(1), record(2)]);
    }
}
