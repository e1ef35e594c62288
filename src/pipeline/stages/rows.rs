//! The stage `pretokenize`: from rows to documents and their segments.

use std::sync::Arc;

use super::{Blame, FailedUnit, RawUnit, SegmentedUnit, SlotRequest, attempt, refusal};
use crate::{
    data::{Document, RawBatch, RawRow, Rejected, SegmentedBatch, View},
    pipeline::{
        apart::Decoder,
        meter::{Closed, Inlet, StageMeter},
        plan::Plan,
        sizes::Load,
    },
    pretokenize::{check_tiling, too_long_decoded},
};

/// Turns rows into documents, many units at once.
pub fn pretokenize(
    plan: &Plan,
    decoder: &mut Decoder<'_>,
    meter: &StageMeter,
    work: &Inlet<SlotRequest>,
) -> Result<(), Closed> {
    while let Some((RawUnit { mut ticket, batch }, done)) = work.recv() {
        let unit = ticket.unit.clone();
        let mut too_large = false;
        let segmented = attempt(meter, &unit, Blame::Program, || {
            let decodes = decoder.decodes();
            let rows = ticket.load.rows;
            let mut load = ticket.load;
            let batch = segment(decoder, plan, batch, &mut |n_documents, n_bytes| {
                if !decodes {
                    return Ok(());
                }
                // Now it is known what could only be guessed. To wait for more here would be to wait for the units behind.
                load = Load { content: n_bytes, rows: rows.max(n_documents), ..load };
                let documents = plan.memory_of(&Load { encoded: 0, ..load });
                if let Some(refusal) = refusal(&unit, documents, 0, ticket.memory.total()) {
                    too_large = true;
                    return Err(refusal);
                }
                ticket.memory.cover(plan.memory_of(&load));
                Ok(())
            })?;
            if decodes {
                ticket.load = Load { encoded: 0, ..load };
                ticket.memory.lower(plan.memory_of(&ticket.load));
            }
            Ok(batch)
        });
        let segmented = segmented.map_err(|failed| match too_large {
            true => FailedUnit { blame: Blame::Input, ..failed },
            false => failed,
        });
        // A dropped slot means that the run is halted.
        let _ = done.send(segmented.map(|batch| SegmentedUnit { ticket, batch }));
    }
    Ok(())
}

/// Tells `made` after each row how many documents there are, and bytes of them.
///
/// # Errors
/// What fails the unit as a whole.
fn segment(
    decoder: &mut Decoder<'_>,
    plan: &Plan,
    raw: RawBatch,
    made: &mut dyn FnMut(u64, u64) -> Result<(), String>,
) -> Result<SegmentedBatch, String> {
    let RawBatch { unit, rows, mut rejected, n_filtered, carried } = raw;
    let mut documents = Vec::with_capacity(rows.len());
    let mut n_bytes = 0_u64;
    made(0, 0)?;
    for RawRow { source_row, doc_id, content } in rows {
        let views = decoder.views(content)?.map_err(|reason| ("pretokenize", reason));
        match views.and_then(|views| accepted(plan, views)) {
            Ok(views) => {
                let source_id: Arc<str> = doc_id.into();
                for view in views {
                    check_tiling(&view).map_err(|problem| format!("row {source_row}: {problem}"))?;
                    n_bytes = n_bytes.saturating_add(view.bytes.len() as u64);
                    documents.push(document(source_row, &source_id, view));
                }
                made(documents.len() as u64, n_bytes)?;
            }
            Err((stage, reason)) => rejected.push(Rejected { source_row, doc_id, stage, reason }),
        }
    }
    rejected.sort_by_key(|r| r.source_row);
    Ok(SegmentedBatch { unit, documents, rejected, n_filtered, carried })
}

/// The views of a row, unless one of them cannot be a document.
///
/// # Errors
/// Which stage cannot take it, and why.
fn accepted(plan: &Plan, views: Vec<View>) -> Result<Vec<View>, (&'static str, String)> {
    let most = plan.pipeline.limits.max_document_bytes;
    if views.is_empty() {
        return Err(("pretokenize", "it has none of the views that are asked for".to_owned()));
    }
    for view in &views {
        let n_bytes = view.bytes.len() as u64;
        if n_bytes > most {
            return Err(("pretokenize", too_long_decoded(n_bytes, most)));
        }
        if let Some(reason) = plan.recipe.refuses(n_bytes) {
            return Err(("patch", reason));
        }
    }
    Ok(views)
}

fn document(source_row: u64, source_id: &Arc<str>, view: View) -> Document {
    let View { modality, name, segments, bytes } = view;
    let doc_id = name.map_or_else(|| source_id.to_string(), |name| format!("{source_id}/{name}"));
    Document { source_row, source_id: source_id.clone(), doc_id, modality, segments, bytes }
}
