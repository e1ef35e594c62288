//! A shard's bytes on this machine: the file itself, a copy of one that lies elsewhere, or as much of that as is needed. Knows nothing
//! of what they mean, but where a Parquet file has its footer.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, path::Path};

use super::{ShardFile, SourceError};
use crate::remote::{Mirror, RemoteError};

/// Of a file's end, so much is read at first: most footers are smaller, and it is a small part of most files.
const FIRST_END_BYTES: u64 = 512 << 10;
const FIRST_END_PART: u64 = 1000;
/// The last bytes of a Parquet file: length of the footer, and `PAR1`.
const TAIL_BYTES: u64 = 8;
/// Of a file without a footer, what its identity is made of.
pub(super) const END_BYTES: u64 = 64 << 10;

/// A shard's bytes.
pub(super) struct ShardBytes {
    pub(super) file: File,
    /// What brings ranges of it that are not there.
    mirror: Option<Mirror>,
}

impl From<RemoteError> for SourceError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Refused(problem) => SourceError::Plan(problem),
            RemoteError::Denied(problem) => SourceError::Denied(problem),
            RemoteError::Failed(_) | RemoteError::Local { .. } => SourceError::Unreachable(error.to_string()),
        }
    }
}

impl ShardBytes {
    /// All of `file`, on this machine.
    ///
    /// # Errors
    /// [`SourceError::Plan`] when it cannot be opened; [`SourceError::Unreachable`].
    pub(super) fn whole(file: &ShardFile) -> Result<ShardBytes, SourceError> {
        let file = match &file.remote {
            None => open(&file.path)?,
            Some(remote) => open(&remote.keep()?)?,
        };
        Ok(ShardBytes { file, mirror: None })
    }

    /// `file` with its footer, if it is Parquet, and otherwise its end; the rest of one that lies elsewhere comes by
    /// [`bring`](Self::bring).
    ///
    /// # Errors
    /// As [`whole`](Self::whole).
    pub(super) fn with_footer(file: &ShardFile) -> Result<ShardBytes, SourceError> {
        let Some(remote) = &file.remote else { return Self::whole(file) };
        if remote.copy().is_some() {
            return Self::whole(file);
        }
        let mirror = remote.mirror()?;
        let bytes = remote.bytes();
        let first = FIRST_END_BYTES.min((bytes / FIRST_END_PART).max(TAIL_BYTES)).min(bytes);
        mirror.bring(std::slice::from_ref(&(bytes - first..bytes)))?;
        let local = mirror.file()?;
        let mut tail = [0; TAIL_BYTES as usize];
        let failed =
            |error| SourceError::Unreachable(format!("failed to read the copy of {}: {error}", remote.uri()));
        if bytes >= TAIL_BYTES {
            local.read_exact_at(&mut tail, bytes - TAIL_BYTES).map_err(failed)?;
        }
        let claimed = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        // As far as its identity reaches.
        let has_footer = bytes >= 12 && claimed + 12 <= bytes;
        let end = if has_footer { claimed + TAIL_BYTES } else { END_BYTES.min(bytes) };
        mirror.bring(std::slice::from_ref(&(bytes - end..bytes)))?;
        Ok(ShardBytes { file: local, mirror: Some(mirror) })
    }

    /// Waits until `ranges` are there.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`].
    pub(super) fn bring(&self, ranges: &[Range<u64>]) -> Result<(), SourceError> {
        match &self.mirror {
            None => Ok(()),
            Some(mirror) => Ok(mirror.bring(ranges)?),
        }
    }

    /// Begins to bring `ranges`, which are needed soon.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`].
    pub(super) fn begin(&self, ranges: &[Range<u64>]) -> Result<(), SourceError> {
        self.mirror.as_ref().map_or(Ok(()), |mirror| Ok(mirror.begin(ranges)?))
    }

    /// `ranges` are not needed any more.
    pub(super) fn forget(&self, ranges: &[Range<u64>]) {
        if let Some(mirror) = &self.mirror {
            mirror.forget(ranges);
        }
    }
}

/// What is refused while it is read was there when it was planned.
pub(super) fn changed_or_unreachable(error: impl Into<SourceError>) -> SourceError {
    match error.into() {
        SourceError::Plan(problem) => SourceError::Data(problem),
        // It was allowed when it was planned: credentials end.
        SourceError::Denied(problem) => SourceError::Unreachable(problem),
        other => other,
    }
}

fn open(path: &Path) -> Result<File, SourceError> {
    File::open(path).map_err(|error| SourceError::Plan(format!("failed to open {}: {error}", path.display())))
}
