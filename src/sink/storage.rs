//! Where an output lies, a local folder or one in an object store: all that the sink reads and writes there goes
//! through here. Knows nothing of what the files mean.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Seek},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Attempt, FileEntry, SinkError,
    files::{self, json_text},
    spool::Spool,
};
use crate::{
    fault,
    remote::{RemoteError, Scheme, Store, scheme},
};

/// Requests to a store that are under way at once where there is much to read or remove: each waits for its answer
/// most of the time.
const REQUESTS: usize = 32;

/// A local folder, or a folder in an object store. Files are called by their path, [`Storage::root`] included.
#[derive(Clone, Debug)]
pub struct Storage {
    root: PathBuf,
    store: Option<Store>,
}

/// What lies where a JSON file should.
pub(super) enum Found<T> {
    /// No file.
    Nothing,
    /// A file that is torn, empty or edited, and why it cannot be taken.
    Damaged(String),
    /// What was written.
    Value(T),
}

impl<T> Found<T> {
    /// What cannot be read is not there.
    pub fn value(self) -> Option<T> {
        match self {
            Found::Value(value) => Some(value),
            Found::Nothing | Found::Damaged(_) => None,
        }
    }
}

impl Storage {
    /// The folder at `uri`: a path, `file://`, `s3://`, `gs://` or `az://`. It need not exist.
    ///
    /// # Errors
    /// [`SinkError::Refused`] for other schemes; [`SinkError::Remote`] when nothing tells how to reach the store.
    pub fn open(uri: impl AsRef<Path>) -> Result<Storage, SinkError> {
        let path = uri.as_ref();
        // A path that is not Unicode has no scheme.
        let Some(uri) = path.to_str() else { return Ok(Storage::from(path)) };
        match (Self::unsupported(uri), scheme(uri)) {
            (None, Ok((Scheme::Local, path))) => Ok(Storage::from(Path::new(path))),
            (None, _) => {
                let store = Store::open(uri)?;
                Ok(Storage { root: store.uri().into(), store: Some(store) })
            }
            (Some(problem), _) => Err(SinkError::Refused(problem)),
        }
    }

    /// Why nothing can be written to `uri`, whatever lies there.
    pub fn unsupported(uri: &str) -> Option<String> {
        let remedy = match scheme(uri) {
            Ok((Scheme::Local | Scheme::ObjectStore, _)) => return None,
            Ok((Scheme::Hub, _)) => "; `blt-pipeline push` brings a finished one to the Hub",
            Ok((Scheme::Web, _)) | Err(_) => "",
        };
        Some(format!("{uri:?}: outputs are written to local folders, s3://, gs:// and az:// only{remedy}"))
    }

    /// The folder or its URI, which is also what paths in messages begin with.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of what is called `below` in it.
    pub(super) fn join(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    /// Whether it is a folder of a file system: with temporary names, renames and locks.
    pub fn is_local(&self) -> bool {
        self.store.is_none()
    }

    /// What the store knows `path` by.
    fn key(&self, path: &Path) -> Result<String, SinkError> {
        match path.strip_prefix(&self.root).ok().and_then(Path::to_str) {
            Some(key) => Ok(key.to_owned()),
            None => {
                Err(SinkError::Refused(format!("{} is no place in {}", path.display(), self.root.display())))
            }
        }
    }

    /// What lies at `path`; `None` for nothing.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, SinkError> {
        match &self.store {
            None => files::read(path),
            Some(store) => Ok(store.read(&self.key(path)?)?),
        }
    }

    /// What lies at `path`, as JSON.
    pub(super) fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Result<Found<T>, SinkError> {
        let Some(text) = self.read(path)? else { return Ok(Found::Nothing) };
        Ok(match serde_json::from_slice(&text) {
            Ok(value) => Found::Value(value),
            Err(error) => {
                Found::Damaged(format!("{} is not a record of blt-pipeline: {error}", path.display()))
            }
        })
    }

    /// Likewise every one of `paths`, in their order.
    pub(super) fn read_every_json<T: DeserializeOwned + Send>(
        &self,
        paths: &[PathBuf],
    ) -> Result<Vec<Found<T>>, SinkError> {
        self.each(paths, |path| self.read_json(path))
    }

    /// Calls `call` with each of `paths`: on a disk one after the other, on a store many at once. Whoever fails ends
    /// it.
    pub(super) fn each<R: Send>(
        &self,
        paths: &[PathBuf],
        call: impl Fn(&Path) -> Result<R, SinkError> + Sync,
    ) -> Result<Vec<R>, SinkError> {
        if self.is_local() || paths.len() < 2 {
            return paths.iter().map(|path| call(path)).collect();
        }
        let threads = rayon::ThreadPoolBuilder::new().num_threads(REQUESTS.min(paths.len())).build();
        let threads = threads
            .map_err(|error| SinkError::Io { path: self.root.clone(), error: io::Error::other(error) })?;
        threads.install(|| paths.par_iter().map(|path| call(path)).collect())
    }

    /// What lies directly in `folder`, sorted; nothing when it is not there. A store has no folders to tell of.
    pub(super) fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, SinkError> {
        let Some(store) = &self.store else { return files::list(folder) };
        let key = self.key(folder)?;
        let entries = store.list(&key)?;
        let paths = entries.into_iter().map(|entry| self.root.join(entry.key));
        Ok(paths.filter(|path| path.parent() == Some(folder)).collect())
    }

    /// Whether `path`, which was listed, is a folder.
    pub(super) fn is_folder(&self, path: &Path) -> bool {
        self.is_local() && path.is_dir()
    }

    /// Names in the folder itself, of files and folders.
    pub(super) fn entries(&self) -> Result<BTreeSet<OsString>, SinkError> {
        let Some(store) = &self.store else {
            let paths = files::list(&self.root)?;
            return Ok(paths.iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect());
        };
        Ok(store.names()?.into_iter().map(OsString::from).collect())
    }

    /// Whether a file lies at `path`; on a disk, one that cannot be looked at does not.
    pub(super) fn is_file(&self, path: &Path) -> Result<bool, SinkError> {
        match &self.store {
            None => Ok(path.is_file()),
            Some(_) => Ok(self.bytes(path)?.is_some()),
        }
    }

    /// Size of the file at `path`; `None` when there is none.
    pub(super) fn bytes(&self, path: &Path) -> Result<Option<u64>, SinkError> {
        match &self.store {
            None => match path.metadata() {
                Ok(metadata) => Ok(Some(metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(SinkError::Io { path: path.into(), error }),
            },
            Some(store) => Ok(store.bytes(&self.key(path)?)?),
        }
    }

    /// Writes `value` to `path` whole if there is no such file yet; tells whether it did. `point` is the point of
    /// failure before it.
    pub(super) fn create_json<T: Serialize>(
        &self,
        attempt: &Attempt,
        path: &Path,
        value: &T,
        point: &str,
    ) -> Result<bool, SinkError> {
        let Some(store) = &self.store else { return attempt.create_json(path, value, point) };
        fault::point(point).map_err(SinkError::io(path))?;
        Ok(store.create(&self.key(path)?, json_text(value)?)?)
    }

    /// Refuses a store that puts what is to be put only if nothing is there; tried with the file at `path`, which stays as it is.
    pub(super) fn refuse_unconditional(&self, path: &Path) -> Result<(), SinkError> {
        let Some(store) = &self.store else { return Ok(()) };
        if store.keeps_conditions(&self.key(path)?)? {
            return Ok(());
        }
        Err(SinkError::Refused(format!(
            "sink.uri: the store of {} does not keep the condition `If-None-Match: *`, so that two processes could commit one \
             unit; write to another store, or to a local folder",
            self.root.display()
        )))
    }

    /// Writes `value` to `path` whole, in place of what is there.
    pub(super) fn replace_json<T: Serialize>(
        &self,
        attempt: &Attempt,
        path: &Path,
        value: &T,
        point: &str,
    ) -> Result<(), SinkError> {
        let Some(store) = &self.store else { return attempt.replace_json(path, value, point) };
        fault::point(point).map_err(SinkError::io(path))?;
        Ok(store.replace(&self.key(path)?, json_text(value)?)?)
    }

    /// Likewise, but where losing it does not matter.
    pub(super) fn replace_advice<T: Serialize>(
        &self,
        attempt: &Attempt,
        path: &Path,
        value: &T,
    ) -> Result<(), SinkError> {
        match &self.store {
            None => attempt.replace_advice(path, value),
            Some(store) => Ok(store.replace(&self.key(path)?, json_text(value)?)?),
        }
    }

    /// Removes the file at `path`, if there is one.
    pub(super) fn remove_if_there(&self, path: &Path) -> Result<(), SinkError> {
        match &self.store {
            None => files::remove_if_there(path),
            Some(store) => Ok(store.remove(&self.key(path)?)?),
        }
    }

    /// Removes all of `paths` that are there; `point` is the point of failure after each.
    pub(super) fn remove_every(&self, paths: &[PathBuf], point: &str) -> Result<(), SinkError> {
        self.each(paths, |path| {
            self.remove_if_there(path)?;
            fault::point(point).map_err(SinkError::io(path))
        })
        .map(drop)
    }

    /// Creates `folder` and what is missing above it. A store has no folders.
    pub(super) fn create_folder(&self, folder: &Path) -> Result<(), SinkError> {
        if self.is_local() { files::create_folder(folder) } else { Ok(()) }
    }

    /// Makes names created in `folder` outlive a power cut; those in a store do.
    pub(super) fn sync_folder(&self, folder: &Path) -> Result<(), SinkError> {
        if self.is_local() { files::sync_folder(folder) } else { Ok(()) }
    }

    /// Removes `folder`, in which nothing is left; tells whether that is so.
    pub(super) fn remove_folder(&self, folder: &Path) -> Result<bool, SinkError> {
        if let Some(store) = &self.store {
            // But what some tools put where they show a folder.
            let key = self.key(folder)?;
            return Ok(store.list(&key)?.iter().all(|entry| entry.key == key));
        }
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SinkError::Io { path: folder.into(), error })
            }
            _ => Ok(true),
        }
    }

    /// Whether the output may be there: its `_blt` holds anything.
    pub(super) fn has_records(&self) -> Result<bool, SinkError> {
        match &self.store {
            None => Ok(self.join("_blt").is_dir()),
            Some(store) => Ok(!store.list("_blt")?.is_empty()),
        }
    }

    /// Where temporary files are written whose final place is in a store; `None` where they are beside it.
    pub(super) fn spool(&self, attempt: &Attempt) -> Result<Option<Spool>, SinkError> {
        if self.is_local() { Ok(None) } else { Spool::create(attempt).map(Some) }
    }

    /// Brings the local file `temporary` to `path`, whole, in place of what is there. On a disk it is there no longer
    /// under the old name, and both lie in one folder.
    pub(super) fn publish(&self, temporary: &Path, path: &Path) -> Result<(), SinkError> {
        match &self.store {
            None => fs::rename(temporary, path).map_err(SinkError::io(path)),
            Some(store) => Ok(store.upload(&self.key(path)?, temporary)?),
        }
    }

    /// A file of a table, at its beginning, that a record of the output names; one from a store is a copy without a name.
    ///
    /// # Errors
    /// [`SinkError::Io`] when it is gone or has another size than the record says, and what else keeps it from being read.
    pub fn table_file(&self, entry: &FileEntry) -> Result<File, SinkError> {
        let path = self.join(&entry.path);
        let problem = match self.fetch(&path, entry.bytes)? {
            Some(Ok(file)) => return Ok(file),
            Some(Err(found)) => format!("{found} bytes, but its record says {}", entry.bytes),
            None => "no such file, but a record names it".to_owned(),
        };
        Err(SinkError::Io { path, error: io::Error::new(io::ErrorKind::InvalidData, problem) })
    }

    /// The file at `path`, at its beginning; `None` when there is none. One from a store is a copy on the local disk
    /// that has no name, and no file of another size than `bytes` is fetched: then its size is the error.
    pub(super) fn fetch(&self, path: &Path, bytes: u64) -> Result<Option<Result<File, u64>>, SinkError> {
        let failed = |error| SinkError::Io { path: path.into(), error };
        let (mut file, found) = match &self.store {
            None => match File::open(path) {
                Ok(file) => {
                    let found = file.metadata().map_err(failed)?.len();
                    (file, found)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            },
            Some(store) => {
                let key = self.key(path)?;
                let Some(found) = store.bytes(&key)? else { return Ok(None) };
                if found != bytes {
                    return Ok(Some(Err(found)));
                }
                let mut file = Spool::nameless()?;
                store.download(&key, &mut file)?;
                let found = file.metadata().map_err(failed)?.len();
                (file, found)
            }
        };
        file.rewind().map_err(failed)?;
        Ok(Some(if found == bytes { Ok(file) } else { Err(found) }))
    }
}

impl From<&Path> for Storage {
    /// The local folder `path`.
    fn from(path: &Path) -> Self {
        Storage { root: path.into(), store: None }
    }
}

impl From<RemoteError> for SinkError {
    fn from(error: RemoteError) -> Self {
        SinkError::Remote(error)
    }
}
