//! A file of the source as a plan knows it: what tells one version of it from another, its row groups, and how it is read. Leaves
//! to each format what is in it.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use arrow::datatypes::Fields;
use sha2::{Digest, Sha256};

use super::{
    Member, RowGroup, ShardFile, SourceError,
    access::{END_BYTES, ShardBytes, changed_or_unreachable},
    files, footer,
    lines::{self, LineIndex},
    packed::Packing,
};
use crate::config::{FileFormat, Source};

/// What tells one version of a shard from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256, hex, of its footer; of its last bytes when it has none that can be told; of all of a file of JSON Lines; of
    /// the names and sizes of loose files.
    pub footer_sha256: String,
}

/// A shard that has been looked through.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The file and its name in the output.
    pub file: ShardFile,
    /// What the rest of the plan relies on.
    pub identity: Identity,
    /// Row groups in file order; in a file that has none, runs of rows.
    pub row_groups: Vec<RowGroup>,
    /// Fields of the carried columns; in JSON Lines none before [`agree_on_types`](super::agree_on_types).
    pub carried: Fields,
    pub(super) format: Format,
}

/// How a shard is read.
#[derive(Clone, Debug)]
pub(super) enum Format {
    Parquet,
    Lines(Arc<LineIndex>),
    Files(Arc<[Member]>),
}

/// Looks through `file`, in the format that `source` names, or that its own name tells, and finds the columns that `source`
/// names. Documents are at most `max_document_bytes` long; a footer that takes more than `max_bytes` of memory is not read.
///
/// # Errors
/// [`SourceError::Plan`] when the file cannot be opened, or a column is missing or of a type that holds
/// no content, or the condition on rows is wrong; [`SourceError::Data`] with the shard's identity when it cannot be read.
pub fn open_shard(
    file: &ShardFile,
    source: &Source,
    max_document_bytes: u64,
    max_bytes: u64,
) -> Result<Result<Shard, (Identity, SourceError)>, SourceError> {
    let (packing, has_lines) = Packing::of(&file.source_file);
    match (&file.members, source.format, has_lines) {
        (Some(members), ..) => files::survey(file, members, source).map(Ok),
        (None, FileFormat::Jsonl, _) | (None, FileFormat::Auto, true) => {
            lines::survey(file, packing, source, max_document_bytes, max_bytes)
        }
        (None, FileFormat::Auto | FileFormat::Parquet | FileFormat::Files, _) => {
            footer::survey(file, source, max_bytes)
        }
    }
}

/// Begins to bring `file`, whose rows are needed soon, if it lies elsewhere and is kept as a whole.
pub fn begin_keeping(file: &ShardFile, source: &Source) {
    if let Some(remote) = &file.remote
        && source.cache
    {
        remote.begin_keeping();
    }
}

/// Whether looking through `file` means to read all of it.
pub fn is_read_through(file: &ShardFile, source: &Source) -> bool {
    let (_, has_lines) = Packing::of(&file.source_file);
    file.members.is_none()
        && (source.format == FileFormat::Jsonl || source.format == FileFormat::Auto && has_lines)
}

impl Shard {
    /// The file, if it is the one that was planned; of one that lies elsewhere a copy, if it is kept.
    ///
    /// # Errors
    /// [`SourceError::Data`]; [`SourceError::Unreachable`].
    pub(super) fn open_unchanged(&self, is_kept: bool) -> Result<ShardBytes, SourceError> {
        let path = &self.file.path;
        let open = if is_kept { ShardBytes::whole } else { ShardBytes::with_footer };
        let mut bytes = open(&self.file).map_err(changed_or_unreachable)?;
        if identify(&mut bytes.file, path).map_err(changed_or_unreachable)? != self.identity {
            return Err(SourceError::Data(format!(
                "{} is not the file that was planned: its size or footer changed since",
                path.display()
            )));
        }
        Ok(bytes)
    }
}

pub(super) fn identify(file: &mut File, path: &Path) -> Result<Identity, SourceError> {
    let failed = |error| SourceError::Plan(format!("failed to read {}: {error}", path.display()));
    let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let mut tail = [0u8; 8];
    let mut footer_bytes = 8.min(bytes);
    if bytes >= 12 {
        file.seek(SeekFrom::End(-8)).map_err(failed)?;
        file.read_exact(&mut tail).map_err(failed)?;
        let claimed = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        // A file without a footer is known by its end: enough to see that it was replaced.
        let has_footer = claimed + 12 <= bytes;
        footer_bytes = if has_footer { claimed + 8 } else { bytes.min(END_BYTES) };
    }
    Ok(Identity { bytes, footer_sha256: hash_of_end(file, bytes, footer_bytes).map_err(failed)? })
}

/// A file by its size and its last bytes.
///
/// # Errors
/// [`SourceError::Plan`] when it cannot be read.
pub(super) fn identify_by_end(file: &mut File, path: &Path) -> Result<Identity, SourceError> {
    let failed = |error| SourceError::Plan(format!("failed to read {}: {error}", path.display()));
    let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let footer_sha256 = hash_of_end(file, bytes, bytes.min(END_BYTES)).map_err(failed)?;
    Ok(Identity { bytes, footer_sha256 })
}

/// SHA-256, hex, of the last `n` of a file's `bytes`.
fn hash_of_end(file: &mut File, bytes: u64, n: u64) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(bytes - n))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file.take(n), &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}
