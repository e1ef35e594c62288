//! Files on the local disk that are on their way to a store, or come from one. Knows nothing of what is in them.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{Attempt, SinkError, claims::host, files};

/// Of this host's folders: another one may see them, but not their locks.
fn prefix() -> String {
    let host: String = host().chars().filter(char::is_ascii_alphanumeric).collect();
    format!("blt-pipeline-{host}-")
}

/// A folder for one process below the system's for temporary files. It is removed with this value; what a killed
/// process left there is removed by [`sweep`].
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    /// Locked: its process lives.
    _lock: File,
}

impl Spool {
    /// The folder of the process that is `attempt`.
    pub fn create(attempt: &Attempt) -> Result<Spool, SinkError> {
        let folder = root().join(format!("{}{}", prefix(), attempt.id()));
        loop {
            DirBuilder::new().mode(0o700).create(&folder).map_err(failed(&folder))?;
            // Whoever sweeps may have locked it before, and then removes it.
            let lock = match File::open(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock.map_err(failed(&folder))?,
            };
            // Where the system's folder has no locks, nobody sweeps what lies in it.
            let _ = lock.lock();
            if folder.is_dir() {
                return Ok(Spool { folder, _lock: lock });
            }
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes all that is in it.
    pub fn remove(&self) {
        // What stays is swept up by the next process.
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// A file that is gone when it is closed.
    pub fn nameless() -> Result<File, SinkError> {
        let path = root().join(format!("{}{}", prefix(), Attempt::new().id()));
        let file =
            File::options().read(true).write(true).create_new(true).open(&path).map_err(failed(&path))?;
        fs::remove_file(&path).map_err(failed(&path))?;
        Ok(file)
    }

    /// Bytes that the disk has room for.
    pub fn free_bytes() -> Result<u64, SinkError> {
        files::free_bytes(&root())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.remove();
    }
}

/// `TMPDIR`, or where the system has its temporary files.
pub(super) fn root() -> PathBuf {
    std::env::temp_dir()
}

/// A failure of the disk that files wait on, which is not where the output lies.
pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> SinkError {
    move |error| {
        let told = format!(
            "{error} (files on their way to or from the store are there; TMPDIR names another folder)"
        );
        SinkError::Io { path: path.into(), error: io::Error::new(error.kind(), told) }
    }
}

/// Removes the folders of processes that are dead. What cannot be removed is another user's.
pub(super) fn sweep() {
    let Ok(entries) = fs::read_dir(root()) else { return };
    let prefix = prefix();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id = name.strip_prefix(&prefix).unwrap_or_default();
        if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) || !path.is_dir() {
            continue;
        }
        if let Ok(folder) = File::open(&path)
            && folder.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_lives_as_long_as_its_process_and_no_longer() {
        let (own, dead) = (Attempt::new(), Attempt::new());
        let own = Spool::create(&own).unwrap();
        fs::write(own.folder().join("a"), "a").unwrap();
        let left = root().join(format!("{}{}", prefix(), dead.id()));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("b"), "b").unwrap();
        let other = Spool::create(&Attempt::new()).unwrap();
        sweep();
        assert!(own.folder().join("a").exists(), "its process lives");
        assert!(!left.exists(), "nobody holds it");
        let folder = other.folder().to_owned();
        drop((own, other));
        assert!(!folder.exists());
    }
}
