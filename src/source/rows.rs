//! What becomes of a row that a format's reader found: a row of the batch, one that is given up, or one that does not
//! count. The same for every format.

use std::borrow::Cow;

use super::filter::Verdict;
use crate::data::{RawBatch, RawRow, Rejected};

/// Name of this station in the quarantine table.
const STAGE: &str = "source";

/// A row as it was read.
pub(super) struct FoundRow<'a> {
    pub(super) verdict: Verdict,
    /// The id column's value, or what is wrong with it.
    pub(super) id: Result<Option<String>, String>,
    /// The content, or why there is none.
    pub(super) content: Result<Cow<'a, [u8]>, String>,
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
            let content = content.into_owned();
            let n_bytes = content.len() as u64;
            batch.rows.push(RawRow { source_row, doc_id, content });
            n_bytes
        }
        Err(reason) => {
            batch.rejected.push(Rejected { source_row, doc_id, stage: STAGE, reason });
            0
        }
    }
}

/// Why a document of `n_bytes` is not taken, if it is too long.
pub(super) fn too_long(n_bytes: u64, max_document_bytes: u64) -> Option<String> {
    (n_bytes > max_document_bytes).then(|| {
        format!("{n_bytes} bytes of content, more than limits.max_document_bytes = {max_document_bytes}")
    })
}
