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
mod status;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use self::{
    claims::{Claims, Liveness},
    columns::{EncodedPiece, Piece},
    encode::{Crew, EncodedUnit, Encoder},
    files::{Attempt, free_bytes},
    garbage::{Garbage, collect, garbage},
    ledger::{Ledger, papers},
    output::{
        Committed, Finish, Opening, Output, Start, admit, inspect, planned, recorded_units, stored_bytes,
    },
    record::{Claim, CommitRecord, Counts, FailureRecord, FileEntry, Manifest, PlanRecord, ShardEntry},
    status::{ProcessStatus, Status},
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
