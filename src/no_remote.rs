//! Stands in for what reads and writes files that lie elsewhere, in a build without the feature `remote`: says so.

#[path = "remote/address.rs"]
mod address;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

pub use self::address::{Scheme, scheme};

/// Why something that lies elsewhere could not be had or written.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It is not there, not allowed, or misspelt: doing it again changes nothing.
    #[error("{0}")]
    Refused(String),
    /// Access is denied, at least now: credentials may be wrong, or no longer good.
    #[error("{0}")]
    Denied(String),
    /// The network or the service failed, for as long as was waited: later it may do.
    #[error("{0}")]
    Failed(String),
    /// A local file beside it could not be read or written.
    #[error("{what}: {error}")]
    Local {
        /// What was being done, and with which file.
        what: String,
        /// The system's own words.
        error: io::Error,
    },
}

fn absent(uri: &str) -> RemoteError {
    RemoteError::Refused(format!(
        "{uri}: this build has no network; build it with --features remote, which is a default feature"
    ))
}

/// What a build with the feature would have; nothing makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Never {}

/// A file that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile(Never);

/// A local file that fills as its ranges are asked for.
#[derive(Debug)]
pub struct Mirror(Never);

/// A folder in an object store.
#[derive(Clone, Debug)]
pub struct Store(Never);

/// An object below a [`Store`]'s folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name below the folder, '/'-separated.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// Commits by repository and revision.
pub type Pins = BTreeMap<String, String>;

/// How deep a listing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To what lies in the folder itself.
    Here,
    /// To everything below it.
    Below,
}

/// Files below an address.
#[derive(Clone, Debug)]
pub struct Listing {
    /// In no order.
    pub files: Vec<Found>,
    /// Whether the address is that of one file.
    pub is_file: bool,
}

/// A file that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its path below the address.
    pub name: String,
    /// The file.
    pub file: RemoteFile,
}

/// A model on the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelAddress {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: Option<String>,
    /// Folder or file inside the repository.
    pub path: Option<String>,
}

/// # Errors
/// Always.
pub fn list(uri: &str, _reach: Reach, _pins: &mut Pins) -> Result<Listing, RemoteError> {
    Err(absent(uri))
}

/// # Errors
/// Always.
pub fn dataset(
    uri: &str,
    _config: Option<&str>,
    _split: Option<&str>,
    _pins: &mut Pins,
) -> Result<Option<Listing>, RemoteError> {
    Err(absent(uri))
}

/// # Errors
/// Always.
pub fn model_folder(address: &ModelAddress, _pins: &mut Pins) -> Result<PathBuf, RemoteError> {
    Err(absent(&format!("hf://{}", address.repo)))
}

/// As the functions of a build with the feature.
#[allow(missing_docs, clippy::missing_errors_doc)]
impl RemoteFile {
    pub fn uri(&self) -> &str {
        match self.0 {}
    }

    pub fn bytes(&self) -> u64 {
        match self.0 {}
    }

    pub fn read(&self) -> Result<Vec<u8>, RemoteError> {
        match self.0 {}
    }

    pub fn read_together(_files: &[&RemoteFile]) -> Result<Vec<Vec<u8>>, RemoteError> {
        Ok(Vec::new())
    }

    pub fn mirror(&self) -> Result<Mirror, RemoteError> {
        match self.0 {}
    }

    pub fn copy(&self) -> Option<PathBuf> {
        match self.0 {}
    }

    pub fn begin_keeping(&self) {
        match self.0 {}
    }

    pub fn keep(&self) -> Result<PathBuf, RemoteError> {
        match self.0 {}
    }
}

/// As the functions of a build with the feature.
#[allow(missing_docs, clippy::missing_errors_doc)]
impl Mirror {
    pub fn file(&self) -> Result<File, RemoteError> {
        match self.0 {}
    }

    pub fn begin(&self, _ranges: &[Range<u64>]) -> Result<(), RemoteError> {
        match self.0 {}
    }

    pub fn bring(&self, _ranges: &[Range<u64>]) -> Result<(), RemoteError> {
        match self.0 {}
    }

    pub fn forget(&self, _ranges: &[Range<u64>]) {
        match self.0 {}
    }
}

/// As the functions of a build with the feature.
#[allow(missing_docs, clippy::missing_errors_doc)]
impl Store {
    pub fn open(uri: &str) -> Result<Store, RemoteError> {
        Err(absent(uri))
    }

    pub fn uri(&self) -> &str {
        match self.0 {}
    }

    pub fn read(&self, _key: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        match self.0 {}
    }

    pub fn bytes(&self, _key: &str) -> Result<Option<u64>, RemoteError> {
        match self.0 {}
    }

    pub fn list(&self, _folder: &str) -> Result<Vec<Entry>, RemoteError> {
        match self.0 {}
    }

    pub fn names(&self) -> Result<Vec<String>, RemoteError> {
        match self.0 {}
    }

    pub fn keeps_conditions(&self, _key: &str) -> Result<bool, RemoteError> {
        match self.0 {}
    }

    pub fn create(&self, _key: &str, _bytes: Vec<u8>) -> Result<bool, RemoteError> {
        match self.0 {}
    }

    pub fn replace(&self, _key: &str, _bytes: Vec<u8>) -> Result<(), RemoteError> {
        match self.0 {}
    }

    pub fn upload(&self, _key: &str, _file: &Path) -> Result<(), RemoteError> {
        match self.0 {}
    }

    pub fn download(&self, _key: &str, _file: &mut File) -> Result<(), RemoteError> {
        match self.0 {}
    }

    pub fn remove(&self, _key: &str) -> Result<(), RemoteError> {
        match self.0 {}
    }
}
