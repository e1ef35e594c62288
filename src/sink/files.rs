//! Files of a local folder that appear whole or not at all, and survive a power cut once they are there. Knows nothing
//! of what is in them.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Serialize;

use super::SinkError;
use crate::fault;

const TEMPORARY: &str = ".tmp-";

/// One process at work on an output. Gives its temporary files names that tell what they belong to and whose
/// they are.
#[derive(Debug)]
pub struct Attempt {
    id: String,
    n_names: AtomicU64,
}

impl Attempt {
    /// With a name that no other has.
    pub fn new() -> Self {
        Attempt { id: uuid::Uuid::new_v4().simple().to_string(), n_names: AtomicU64::new(0) }
    }

    /// What its files carry in their names.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A name in `folder` that no reader looks at, `.tmp-<of>-<attempt>-<n>`, never given twice.
    pub(super) fn temporary(&self, folder: &Path, of: &str) -> PathBuf {
        let n = self.n_names.fetch_add(1, Ordering::Relaxed);
        folder.join(format!("{TEMPORARY}{of}-{}-{n}", self.id))
    }

    /// Whether `path` is a temporary file of this attempt.
    pub(super) fn owns(&self, path: &Path) -> bool {
        temporary_of(path).is_some_and(|rest| rest.contains(&self.id))
    }

    /// Writes `value` to `path` whole, in place of what is there. `point` is the point of failure in between.
    pub(super) fn replace_json<T: Serialize>(
        &self,
        path: &Path,
        value: &T,
        point: &str,
    ) -> Result<(), SinkError> {
        let temporary = self.write_beside(path, value, true)?;
        fault::point(point).and_then(|()| fs::rename(&temporary, path)).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            SinkError::Io { path: path.into(), error }
        })?;
        sync_folder(parent(path))
    }

    /// Likewise, but where losing it to a power cut does not matter.
    pub(super) fn replace_advice<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), SinkError> {
        let temporary = self.write_beside(path, value, false)?;
        fs::rename(&temporary, path).map_err(SinkError::io(path))
    }

    /// Writes `value` to `path` whole if there is no such file yet; tells whether it did.
    pub(super) fn create_json<T: Serialize>(
        &self,
        path: &Path,
        value: &T,
        point: &str,
    ) -> Result<bool, SinkError> {
        let temporary = self.write_beside(path, value, true)?;
        let linked = fault::point(point).and_then(|()| fs::hard_link(&temporary, path));
        remove_if_there(&temporary)?;
        match linked {
            Ok(()) => sync_folder(parent(path)).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(SinkError::Io { path: path.into(), error }),
        }
    }

    fn write_beside<T: Serialize>(&self, path: &Path, value: &T, sync: bool) -> Result<PathBuf, SinkError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // `00000-00003` of `00000-00003.r1.json`.
        let of = name.split('.').next().unwrap_or_default();
        let temporary = self.temporary(parent(path), of);
        let text = json_text(value)?;
        let write = || {
            let mut file = File::create_new(&temporary)?;
            file.write_all(&text)?;
            if sync { file.sync_all() } else { Ok(()) }
        };
        write().map_err(|error| {
            // What is left of it is garbage; that it could not be removed adds nothing to the error.
            let _ = fs::remove_file(&temporary);
            SinkError::Io { path: path.into(), error }
        })?;
        Ok(temporary)
    }
}

impl Default for Attempt {
    fn default() -> Self {
        Self::new()
    }
}

/// What a temporary name says after its prefix; `None` for a name that is not temporary.
pub(super) fn temporary_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix(TEMPORARY)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes names created in `folder` outlive a power cut.
pub(super) fn sync_folder(folder: &Path) -> Result<(), SinkError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(SinkError::io(folder))
}

/// Creates `folder` and what is missing above it, each name synced.
pub(super) fn create_folder(folder: &Path) -> Result<(), SinkError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = parent(folder);
    create_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(SinkError::Io { path: folder.into(), error })
        }
        _ => sync_folder(parent),
    }
}

/// `value` as it is written.
pub(super) fn json_text<T: Serialize>(value: &T) -> Result<Vec<u8>, SinkError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| SinkError::Encode(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

/// A file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, SinkError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SinkError::Io { path: path.into(), error }),
    }
}

/// Entries of a folder, sorted; none when it is not there.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, SinkError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SinkError::Io { path: folder.into(), error }),
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(SinkError::io(folder))?;
    paths.sort();
    Ok(paths)
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), SinkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SinkError::Io { path: path.into(), error })
        }
        _ => Ok(()),
    }
}

/// Bytes that may still be written to the disk that holds `folder`, or will once it exists.
///
/// # Errors
/// [`SinkError::Io`].
pub(super) fn free_bytes(folder: &Path) -> Result<u64, SinkError> {
    let absolute = std::path::absolute(folder).map_err(SinkError::io(folder))?;
    let existing = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = rustix::fs::statvfs(existing)
        .map_err(|error| SinkError::Io { path: existing.into(), error: error.into() })?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
