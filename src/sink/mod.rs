//! From patched units to committed Parquet files, records and a manifest. Knows nothing of models or
//! threads.

mod admission;
mod claims;
mod columns;
mod encode;
mod files;
mod floats;
mod garbage;
mod ledger;
mod lock;
mod output;
mod record;
mod spool;
mod status;
mod storage;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::remote::RemoteError;

pub use self::{
    claims::{Claims, Liveness},
    columns::{EncodedPiece, Piece},
    encode::{Crew, EncodedUnit, Encoder},
    files::Attempt,
    garbage::{Garbage, collect},
    ledger::{Ledger, papers},
    output::{
        Committed, Finish, Opening, Output, Space, Start, admit, inspect, planned, recorded_units, space,
    },
    record::{Claim, CommitRecord, Counts, FailureRecord, FileEntry, Manifest, PlanRecord, ShardEntry},
    status::{ProcessStatus, Status},
    storage::Storage,
    verify::{Problem, ProblemRow, Verification, verify},
};

/// Why an output could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The output belongs to something else, or its records make no sense: a person has to decide.
    #[error("{0}")]
    Refused(String),
    /// Another process changed the output at the same moment; the same command works on what it left.
    #[error("{0}; start the same command again")]
    Raced(String),
    /// The storage failed; the run can go on later.
    #[error("storage failed at {}: {error}{}", path.display(), remedy(error))]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The storage's own words.
        error: io::Error,
    },
    /// The store that the output lies in did not answer, or refused.
    #[error("{0}")]
    Remote(RemoteError),
    /// The store's answer to a commit is lost, and so far it does not say what came of it.
    #[error("it is not known whether unit {unit} is committed: {error}; the same command again finds out")]
    Unknown {
        /// Name of the unit.
        unit: String,
        /// Why nothing can be read.
        error: RemoteError,
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
    /// Of a run under way: access that was granted may be again, with other credentials or later.
    pub fn midway(self) -> Self {
        match self {
            SinkError::Remote(RemoteError::Denied(problem)) => {
                SinkError::Remote(RemoteError::Failed(problem))
            }
            other => other,
        }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> SinkError {
        move |error| SinkError::Io { path: path.into(), error }
    }
}
