//! Whole files kept on this machine, checked before they count: those of the Hub where its other tools keep them, all others in a folder
//! of ours. A download that broke goes on at the byte where it broke. Knows nothing of how bytes are had.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{RemoteError, RemoteFile, block_on, runtime};
use crate::figures::megabytes;

/// How often a download says how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// SHA-1, hex, by which git knows a file of `content`, which has `bytes` bytes.
pub(crate) fn git_blob(content: &mut impl Read, bytes: u64) -> io::Result<String> {
    let mut hash = Sha1::new().chain_update(format!("blob {bytes}\0"));
    io::copy(content, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

/// What a file's bytes must hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256, hex, of the bytes.
    Sha256(String),
    /// SHA-1, hex, of the bytes as git stores them.
    GitBlob(String),
    /// Nobody says.
    Unknown,
}

impl Checksum {
    /// What `file`, of `bytes` bytes, hashes to instead, if it does.
    fn refutes(&self, file: &mut File, bytes: u64) -> io::Result<Option<String>> {
        file.seek(SeekFrom::Start(0))?;
        let (found, expected) = match self {
            Checksum::Sha256(expected) => {
                let mut hash = Sha256::new();
                io::copy(file, &mut hash)?;
                (format!("{:x}", hash.finalize()), expected)
            }
            Checksum::GitBlob(expected) => (git_blob(file, bytes)?, expected),
            Checksum::Unknown => return Ok(None),
        };
        Ok((found != *expected).then_some(found))
    }
}

/// Puts the whole of `remote` at `path`, whose folder is there: what lies beside it under the name `path`.incomplete is gone on with.
/// Another process that does the same is waited for, by the lock `lock`.
pub(super) fn download(
    remote: &RemoteFile,
    checksum: &Checksum,
    path: &Path,
    lock: &Path,
) -> Result<(), RemoteError> {
    let failed = |what: &str| RemoteError::local(format!("failed to {what} {}", path.display()));
    let locked = File::options().create(true).append(true).open(lock).map_err(failed("lock"))?;
    // Where the storage has no locks, two of the same write the same bytes.
    let _ = locked.lock();
    if path.exists() {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".incomplete");
    let incomplete = path.with_file_name(name);
    let bytes = remote.bytes();
    // Bytes that were kept by a process that was killed may be wrong, for once.
    for may_begin_again in [true, false] {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&incomplete)
            .map_err(failed("create"))?;
        let mut kept = file.metadata().map_err(failed("read"))?.len();
        if kept > bytes {
            file.set_len(0).map_err(failed("write"))?;
            kept = 0;
        }
        if kept > 0 {
            tracing::info!("{} goes on at byte {kept} of {bytes}", remote.uri());
        }
        let mut told = Instant::now();
        block_on(remote.fetch(kept..bytes, &mut |at, piece| {
            if told.elapsed() > TOLD_EVERY {
                told = Instant::now();
                tracing::info!("{}: {} of {} are here", remote.uri(), megabytes(at), megabytes(bytes));
            }
            file.write_all_at(piece, at)
        }))?;
        file.sync_all().map_err(failed("write"))?;
        match checksum.refutes(&mut file, bytes).map_err(failed("read"))? {
            None => return fs::rename(&incomplete, path).map_err(failed("create")),
            Some(found) => {
                fs::remove_file(&incomplete).map_err(failed("remove"))?;
                let problem = format!("{} hashes to {found} here, and to {checksum:?} there", remote.uri());
                if !(may_begin_again && kept > 0) {
                    return Err(RemoteError::Failed(format!(
                        "{problem}; it is downloaded anew the next time"
                    )));
                }
                tracing::warn!("{problem}; it is downloaded anew");
            }
        }
    }
    Ok(())
}

impl RemoteFile {
    /// A copy on this machine, if there is one.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn copy(&self) -> Option<PathBuf> {
        match self.hub_file() {
            Some(file) => file.copy(),
            None => Some(self.own_path()?).filter(|path| path.is_file()),
        }
    }

    /// A whole copy on this machine, downloaded and checked unless it is there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn keep(&self) -> Result<PathBuf, RemoteError> {
        if let Some(path) = self.copy() {
            return Ok(path);
        }
        if let Some(file) = self.hub_file() {
            return file.keep(self);
        }
        if self.version().is_none() {
            return Err(RemoteError::Refused(format!(
                "{}: the server tells neither a tag nor a date of it, so that no copy can be kept; download it and name the file",
                self.uri()
            )));
        }
        let path = self.own_path().ok_or_else(|| {
            RemoteError::Refused("there is no folder for the cache: set XDG_CACHE_HOME or HOME".to_owned())
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .map_err(RemoteError::local(format!("failed to create {}", folder.display())))?;
        download(self, &Checksum::Unknown, &path, &folder.join(".lock"))?;
        Ok(path)
    }

    /// Begins to keep a copy, which is needed soon. What fails is tried again, and told of, when it is needed.
    pub fn begin_keeping(&self) {
        let file = self.clone();
        if file.copy().is_none()
            && let Ok(runtime) = runtime()
        {
            runtime.spawn_blocking(move || file.keep());
        }
    }

    /// Where a copy is kept of what is not of the Hub.
    fn own_path(&self) -> Option<PathBuf> {
        let version = format!("{:x}", Sha256::digest(self.version()?));
        let name = self.uri().rsplit('/').next().unwrap_or_default();
        Some(cache_home()?.join("blt-pipeline").join(&version[..32]).join(name))
    }
}

/// `$XDG_CACHE_HOME`, or `.cache` in the home folder.
pub(super) fn cache_home() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")))
}

/// Puts `bytes` at `path` whole, in place of what is there.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}
