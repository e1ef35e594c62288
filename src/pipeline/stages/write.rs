//! The stages `patch`, `encode` and `compress`: from scores to patches, and to tables in temporary files.

use std::sync::Arc;

use crossbeam_channel::bounded;

use super::{
    AssembledUnit, Blame, FailedUnit, Passed, PieceRequest, ScoredBatch, WrittenUnit, attempt, refusal,
};
use crate::{
    data::Unit,
    pipeline::{
        RunError,
        assemble::Assembler,
        control::Control,
        meter::{Closed, Inlet, Outlet, StageMeter},
        plan::Plan,
        sizes::Load,
    },
    sink::{EncodedPiece, Encoder, Piece, SinkError},
};

/// Cuts patches and pools embeddings, unit after unit.
pub fn patch(
    plan: &Plan,
    meter: &StageMeter,
    control: &Control,
    scored: &Inlet<Passed<ScoredBatch>>,
    assembled: &Outlet<Passed<AssembledUnit>>,
) -> Result<(), Closed> {
    let mut open: Option<Assembler> = None;
    let mut failed_unit = None;
    while let Some(batch) = scored.recv() {
        if control.halted() {
            open = None;
            continue;
        }
        let ScoredBatch { ticket, documents, packed, scores, last } = match batch {
            Ok(batch) => batch,
            Err(failed) => {
                open = None;
                // Of a unit that failed here, nobody needs to hear that the model failed it too.
                if failed_unit != Some(failed.unit.id) {
                    assembled.send(Err(failed))?;
                }
                continue;
            }
        };
        if failed_unit == Some(ticket.unit.id) {
            continue;
        }
        let mut dense = None;
        let step = attempt(meter, &ticket.unit, Blame::Program, || {
            let mut assembler = open.take().unwrap_or_else(|| Assembler::new(plan.recipe.clone(), documents));
            assembler.push(&packed, &scores)?;
            // Some texts fall into more patches than memory was set aside for. To wait for it here would be to wait for the
            // units behind.
            let needed = plan.memory_of(&Load { patches: Some(assembler.n_patches()), ..ticket.load });
            dense = refusal(&ticket.unit, needed, 0, ticket.memory.total());
            if let Some(refusal) = &dense {
                return Err(refusal.clone());
            }
            ticket.memory.cover(needed);
            if last {
                return assembler.finish().map(Some);
            }
            open = Some(assembler);
            Ok(None)
        });
        match step {
            Ok(None) => {}
            Ok(Some((unit, counts))) => {
                // The next unit may come in for what is no longer needed of this one.
                let held = plan.memory_of(&Load { patches: Some(counts.patches), ..ticket.load });
                ticket.memory.lower(held - plan.hidden_memory_of(&ticket.load));
                assembled.send(Ok(AssembledUnit { ticket, unit, counts }))?;
            }
            Err(mut failed) => {
                failed_unit = Some(ticket.unit.id);
                if dense.is_some() {
                    failed.blame = Blame::Input;
                }
                assembled.send(Err(failed))?;
            }
        }
    }
    Ok(())
}

/// Writes units to temporary files, many at once. Others encode and compress what is in them.
pub fn encode(
    encoder: &Encoder,
    meter: &StageMeter,
    control: &Control,
    assembled: &Inlet<Passed<AssembledUnit>>,
    pieces: &Outlet<PieceRequest>,
    written: &Outlet<Passed<WrittenUnit>>,
) -> Result<(), Closed> {
    while let Some(unit) = assembled.recv() {
        if control.halted() {
            continue;
        }
        let AssembledUnit { ticket, unit, counts } = match unit {
            Ok(unit) => unit,
            Err(failed) => {
                written.send(Err(failed))?;
                continue;
            }
        };
        let (mut storage_failure, mut piece_failure) = (None, None);
        let encoded = attempt(meter, &ticket.unit, Blame::Program, || {
            let mut crew = |row_group| {
                encode_pieces(row_group, &ticket.unit, meter, pieces).map_err(|failed| {
                    let reason = failed.reason.clone();
                    piece_failure = Some(failed);
                    SinkError::Encode(reason)
                })
            };
            encoder.encode(unit, counts, ticket.started, &mut crew).map_err(|error| {
                let reason = error.to_string();
                storage_failure = (!matches!(error, SinkError::Encode(_))).then_some(error);
                reason
            })
        });
        if let Some(error) = storage_failure {
            control.fail(RunError::Sink(error.midway()));
            continue;
        }
        let encoded = encoded.map_err(|failed| piece_failure.unwrap_or(failed));
        written.send(encoded.map(|unit| WrittenUnit { ticket, unit }))?;
    }
    Ok(())
}

/// Has the pieces of a row group encoded and waits for all of them.
fn encode_pieces(
    row_group: Vec<Piece>,
    unit: &Arc<Unit>,
    meter: &StageMeter,
    pieces: &Outlet<PieceRequest>,
) -> Result<Vec<EncodedPiece>, FailedUnit> {
    // Room for every answer, so that nobody waits to give one.
    let (done, answers) = bounded(row_group.len());
    let mut encoded: Vec<Option<EncodedPiece>> = row_group.iter().map(|_| None).collect();
    for (place, piece) in row_group.into_iter().enumerate() {
        let request = PieceRequest { unit: unit.clone(), place, piece, done: done.clone() };
        if pieces.send_midway(request).is_err() {
            break;
        }
    }
    drop(done);
    while let Ok((place, piece)) = meter.held_up("wait for compress", || answers.recv()) {
        encoded[place] = Some(piece?);
    }
    encoded.into_iter().collect::<Option<_>>().ok_or_else(|| FailedUnit {
        unit: unit.clone(),
        stage: meter.name,
        blame: Blame::Program,
        reason: "the threads that compress have ended".into(),
    })
}

/// Encodes and compresses parts of units, many at once.
pub fn compress(meter: &StageMeter, pieces: &Inlet<PieceRequest>) -> Result<(), Closed> {
    while let Some(PieceRequest { unit, place, piece, done }) = pieces.recv() {
        let encoded =
            attempt(meter, &unit, Blame::Program, || piece.encode().map_err(|error| error.to_string()));
        // Nobody waits any more where another part of the row group has failed.
        let _ = done.send((place, encoded));
    }
    Ok(())
}
