//! From patched units to committed Parquet files, records and a manifest. Knows nothing of models or
//! threads.

mod encode;
mod output;
mod record;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;

pub use self::{
    encode::{EncodedUnit, Encoder},
    output::{Committed, Output, Progress},
    record::{CommitRecord, Counts, FailureRecord, FileEntry, Manifest, PlanRecord, ShardEntry},
};

/// Why an output could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The output belongs to something else, or its records make no sense: a person has to decide.
    #[error("{0}")]
    Refused(String),
    /// The storage failed; the run can go on later.
    #[error("storage failed at {}: {error}{}", path.display(), remedy(error))]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The storage's own words.
        error: io::Error,
    },
    /// A unit's columns could not be encoded.
    #[error("failed to encode {0}")]
    Encode(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space and start the same command again, it goes on where it stopped"
        }
        _ => "",
    }
}

impl SinkError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> SinkError {
        move |error| SinkError::Io { path: path.into(), error }
    }
}

/// Makes names created in `folder` outlive a power cut.
fn sync_folder(folder: &Path) -> Result<(), SinkError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(SinkError::io(folder))
}

/// Creates `folder` and what is missing above it, each name synced.
fn create_folder(folder: &Path) -> Result<(), SinkError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(SinkError::Io { path: folder.into(), error })
        }
        _ => sync_folder(parent),
    }
}

const TEMPORARY: &str = ".tmp-";

/// Name for a file that no reader should see yet.
fn temporary(folder: &Path) -> PathBuf {
    folder.join(format!("{TEMPORARY}{}", uuid::Uuid::new_v4()))
}

/// Whether it is a name that [`temporary`] gives.
fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()))
}

/// Writes `value` as JSON to a temporary file beside `path` and syncs it.
fn write_json_beside<T: Serialize>(path: &Path, value: &T) -> Result<PathBuf, SinkError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = temporary(folder);
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| SinkError::Encode(error.to_string()))?;
    text.push(b'\n');
    let write = || {
        let mut file = File::create_new(&temporary)?;
        io::Write::write_all(&mut file, &text)?;
        file.sync_all()
    };
    write().map_err(|error| {
        // What is left of it is garbage; that it could not be removed adds nothing to the error.
        let _ = fs::remove_file(&temporary);
        SinkError::Io { path: path.into(), error }
    })?;
    Ok(temporary)
}

/// Writes `value` to `path` whole, or not at all.
fn replace_json<T: Serialize>(path: &Path, value: &T) -> Result<(), SinkError> {
    let temporary = write_json_beside(path, value)?;
    fs::rename(&temporary, path).map_err(SinkError::io(path))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Writes `value` to `path` whole if there is no such file yet; tells whether it did.
fn create_json<T: Serialize>(path: &Path, value: &T) -> Result<bool, SinkError> {
    let temporary = write_json_beside(path, value)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary).map_err(SinkError::io(&temporary))?;
    match linked {
        Ok(()) => sync_folder(path.parent().unwrap_or(Path::new("."))).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(SinkError::Io { path: path.into(), error }),
    }
}
