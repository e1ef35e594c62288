//! What becomes of a row that a format's reader found: a row of the batch, one that is given up, or one that does not
//! count. The same for every format.

use std::borrow::Cow;

use super::{beside::Beside, filter::Verdict};
use crate::data::{Content, RawBatch, RawRow, Rejected};

/// Name of this station in the quarantine table.
const STAGE: &str = "source";

/// A row as it was read.
pub(super) struct FoundRow<'a> {
    pub(super) verdict: Verdict,
    /// The id column's value, or what is wrong with it.
    pub(super) id: Result<Option<String>, String>,
    /// The content, or why there is none.
    pub(super) content: Result<Cow<'a, [u8]>, String>,
    /// As [`Content::path`].
    pub(super) path: Option<String>,
    /// As [`Content::language`].
    pub(super) language: Option<String>,
}

/// Puts row `source_row` of `file` where it belongs; returns the bytes of content that are held for it.
pub(super) fn settle(batch: &mut RawBatch, file: &str, source_row: u64, found: FoundRow<'_>) -> u64 {
    let unknown = match found.verdict {
        Verdict::Keep => None,
        Verdict::Drop => {
            batch.n_filtered += 1;
            return 0;
        }
        Verdict::Unknown(reason) => Some(reason),
    };
    let fallback = || format!("{file}#{source_row}");
    let (doc_id, problem) = match found.id {
        Ok(id) => (id.unwrap_or_else(fallback), None),
        Err(problem) => (fallback(), Some(problem)),
    };
    let content = match problem.or(unknown) {
        Some(problem) => Err(problem),
        None => found.content,
    };
    match content {
        Ok(content) => {
            let bytes = content.into_owned();
            let n_bytes = bytes.len() as u64;
            let content = Content { bytes, path: found.path, language: found.language };
            batch.rows.push(RawRow { source_row, doc_id, content });
            n_bytes
        }
        Err(reason) => {
            batch.rejected.push(Rejected { source_row, doc_id, stage: STAGE, reason });
            0
        }
    }
}

/// Longest path or name of a language, in bytes; no system has longer paths.
const MOST_NAME_BYTES: usize = 4096;

/// A path or the name of a language, of which no row holds more than a file could be called by.
pub(super) fn name_of(text: &str) -> String {
    text[..text.floor_char_boundary(MOST_NAME_BYTES)].to_owned()
}

/// Content of a row that has none: the file that its `path` names, where such files are read.
pub(super) fn absent_content(
    path: Option<&str>,
    beside: Option<&mut Beside>,
) -> Result<Cow<'static, [u8]>, String> {
    match (path, beside) {
        (Some(path), Some(beside)) => beside.read(path).map(Cow::Owned),
        (Some(path), None) => Err(format!(
            "the content is null; its path is {path:?}, and source.resolve_paths = true would read that file"
        )),
        (None, Some(_)) => Err("the content and its path are null".to_owned()),
        (None, None) => Err("the content is null".to_owned()),
    }
}

/// Why a document of `n_bytes` is not taken, if it is too long.
pub(super) fn too_long(n_bytes: u64, max_document_bytes: u64) -> Option<String> {
    (n_bytes > max_document_bytes).then(|| {
        format!("{n_bytes} bytes of content, more than limits.max_document_bytes = {max_document_bytes}")
    })
}
