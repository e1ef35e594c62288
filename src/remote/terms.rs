//! What is asked of places elsewhere, and what they answer, in a build with a network and in one without.

use std::{collections::BTreeMap, io};

use super::RemoteFile;

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

/// Commits that branches and tags stood for when they were first asked for, by `datasets/owner/name@revision`: what is pinned here is
/// not asked for again.
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
    /// Its path below the address, '/'-separated; of a single file its own name.
    pub name: String,
    /// The file.
    pub file: RemoteFile,
}

/// A model on the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelAddress {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit; `None` is `main`.
    pub revision: Option<String>,
    /// Folder or file inside the repository.
    pub path: Option<String>,
}

/// An object below a [`Store`](super::Store)'s folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name below the folder, '/'-separated.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}
