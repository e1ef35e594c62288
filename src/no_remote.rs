//! Stands in for what reads and writes files that lie elsewhere, in a build without the feature `remote`: says so.

#[path = "remote/address.rs"]
mod address;
#[path = "remote/terms.rs"]
mod terms;

use std::{
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

pub use self::{
    address::{Scheme, scheme},
    terms::{Entry, Found, Listing, ModelAddress, Pins, Reach, RemoteError},
};

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
