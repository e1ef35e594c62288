//! The stages `pack` and `model`: documents in batches of tokens, and what the device says of them.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{Blame, FailedUnit, ModelBatch, Passed, ScoredBatch, SegmentedUnit, Slot, attempt, contained};
use crate::{
    data::{PackedTokens, Scores, Wanted},
    model::{EntropyModel, ModelError, PackedBatch, Packer, Pending, score_in_parts},
    pipeline::{
        RunError,
        assemble::Recipe,
        control::Control,
        meter::{Closed, Inlet, Outlet, StageMeter},
        plan::Plan,
        stats::Stats,
    },
};

/// Lays the documents of each unit end to end in batches for the model.
pub fn pack(
    plan: &Plan,
    meter: &StageMeter,
    control: &Control,
    slots: &Inlet<Slot<SegmentedUnit>>,
    batches: &Outlet<Passed<ModelBatch>>,
) -> Result<(), Closed> {
    while let Some(slot) = slots.recv() {
        let Ok(segmented) = meter.starved(|| slot.recv()) else {
            return Err(Closed);
        };
        if control.halted() {
            continue;
        }
        let SegmentedUnit { ticket, batch } = match segmented {
            Ok(unit) => unit,
            Err(failed) => {
                batches.send(Err(failed))?;
                continue;
            }
        };
        let (ticket, documents) = (Arc::new(ticket), Arc::new(batch));
        let message = |packed, last| {
            let (ticket, documents) = (ticket.clone(), documents.clone());
            Ok(ModelBatch { ticket, documents, packed, last })
        };
        let mut packer = match Packer::new(plan.context, plan.batch_tokens, plan.overlap) {
            Ok(packer) => packer,
            Err(error) => {
                let (unit, stage) = (ticket.unit.clone(), meter.name);
                batches.send(Err(FailedUnit {
                    unit,
                    stage,
                    blame: Blame::Program,
                    reason: error.to_string(),
                }))?;
                continue;
            }
        };
        meter.busy(ticket.unit.id, || {
            // One batch is held back, to know which is the last.
            let mut held: Option<PackedBatch> = None;
            let mut emit = |packed| match held.replace(packed) {
                Some(previous) => batches.send_midway(message(previous, false)),
                None => Ok(()),
            };
            for (index, document) in documents.documents.iter().enumerate() {
                packer.push(index, &document.bytes, &mut emit)?;
            }
            packer.finish(&mut emit)?;
            batches.send_midway(message(held.unwrap_or_default(), true))
        })?;
    }
    Ok(())
}

/// Batches that the device has at a time: while it computes one, the results of the one before are read and the tokens
/// of the next are on their way.
const IN_FLIGHT: usize = 2;

/// A batch that the device has, or the news that a unit failed, which keeps its place among them and goes to the thread
/// that has the unit's other batches.
enum Flight {
    Batch { batch: ModelBatch, scores: Pending },
    Failed { failed: FailedUnit, sequence: usize },
}

impl Flight {
    fn has_landed(&self) -> bool {
        match self {
            Flight::Batch { scores, .. } => scores.is_done(),
            Flight::Failed { .. } => true,
        }
    }
}

/// Owns the device: scores batch after batch and deals units to the patching threads.
pub fn model(
    model: &mut dyn EntropyModel,
    recipe: &Recipe,
    meter: &StageMeter,
    control: &Control,
    stats: &Stats,
    batches: &Inlet<Passed<ModelBatch>>,
    scored: &[Outlet<Passed<ScoredBatch>>],
) -> Result<(), Closed> {
    let wanted = recipe.wanted();
    let mut flights: VecDeque<Flight> = VecDeque::with_capacity(IN_FLIGHT);
    // The unit whose batches come, and that of which no more need to, since it failed.
    let (mut current, mut failed_unit) = (None, None);
    // Since when the device has had something to do.
    let mut working: Option<Instant> = None;
    // What the device has been found to have no room for.
    let mut too_many_tokens = usize::MAX;
    loop {
        let next = match flights.front() {
            None => match batches.recv() {
                Some(batch) => Some(batch),
                None => return Ok(()),
            },
            Some(first) if flights.len() == IN_FLIGHT || first.has_landed() => None,
            Some(_) => batches.try_recv(),
        };
        if control.halted() {
            flights.clear();
            continue;
        }
        match next {
            Some(Err(failed)) if failed_unit == Some(failed.unit.id) => {}
            Some(Err(failed)) => {
                failed_unit = Some(failed.unit.id);
                // Of another unit than the current one nothing has been dealt yet: any thread will do.
                let sequence =
                    current.filter(|(id, _)| *id == failed.unit.id).map_or(0, |(_, sequence)| sequence);
                flights.push_back(Flight::Failed { failed, sequence });
            }
            Some(Ok(batch)) if failed_unit == Some(batch.ticket.unit.id) => {}
            Some(Ok(batch)) => {
                let sequence = batch.ticket.sequence;
                current = Some((batch.ticket.unit.id, sequence));
                working.get_or_insert_with(Instant::now);
                let submitted = attempt(meter, &batch.ticket.unit, Blame::Program, || {
                    if batch.packed.packed.tokens.is_empty() {
                        return Ok(Pending::done(Scores::default()));
                    }
                    let packed = &batch.packed.packed;
                    let scores = match packed.tokens.len() {
                        n if n >= too_many_tokens => score_in_parts(model, packed, wanted).map(Pending::done),
                        _ => model.submit(packed, wanted),
                    };
                    let scores = scores.or_else(|error| {
                        in_parts(error, model, packed, wanted, &mut too_many_tokens).map(Pending::done)
                    });
                    scores.map_err(|error| lost(error, control))
                });
                flights.push_back(match submitted {
                    Ok(scores) => Flight::Batch { batch, scores },
                    Err(failed) => {
                        failed_unit = Some(failed.unit.id);
                        Flight::Failed { failed, sequence }
                    }
                });
            }
            None => match flights.pop_front() {
                Some(Flight::Batch { batch, scores }) => {
                    let ModelBatch { ticket, documents, packed, last } = batch;
                    let outlet = &scored[ticket.sequence % scored.len()];
                    let scores = contained(meter, &ticket.unit, Blame::Program, || {
                        let scores = scores.wait().or_else(|error| {
                            in_parts(error, model, &packed.packed, wanted, &mut too_many_tokens)
                        });
                        scores.map_err(|error| lost(error, control))
                    });
                    if let (true, Some(since)) = (flights.is_empty(), working) {
                        stats.device_worked(since.elapsed());
                        working = None;
                    }
                    match scores {
                        Ok(scores) => {
                            let tokens = packed.kept().map(|(_, range)| range.len() as u64).sum();
                            stats.scored(ticket.unit.id.shard, ticket.source_bytes(tokens));
                            outlet.send(Ok(ScoredBatch { ticket, documents, packed, scores, last }))?;
                        }
                        Err(failed) => {
                            // If the next unit's batches come already, this one has no more; and that may have failed, too.
                            if current.is_some_and(|(id, _)| id == failed.unit.id) {
                                failed_unit = Some(failed.unit.id);
                            }
                            // A later batch of the unit may be with the device already, or have failed, too.
                            flights.retain(|flight| match flight {
                                Flight::Batch { batch, .. } => batch.ticket.unit.id != failed.unit.id,
                                Flight::Failed { failed: other, .. } => other.unit.id != failed.unit.id,
                            });
                            outlet.send(Err(failed))?;
                        }
                    }
                }
                Some(Flight::Failed { failed, sequence }) => {
                    scored[sequence % scored.len()].send(Err(failed))?
                }
                None => {}
            },
        }
    }
}

/// What a device that failed with `error` for want of memory makes of the same batch in parts; `too_many_tokens` is what
/// need not be tried again.
fn in_parts(
    error: ModelError,
    model: &mut dyn EntropyModel,
    batch: &PackedTokens,
    wanted: Wanted,
    too_many_tokens: &mut usize,
) -> Result<Scores, ModelError> {
    let ModelError::OutOfMemory(_) = error else {
        return Err(error);
    };
    *too_many_tokens = batch.tokens.len().min(*too_many_tokens);
    tracing::warn!("{error} with a batch of {too_many_tokens} tokens: it gets smaller ones from here on");
    score_in_parts(model, batch, wanted)
}

/// What went wrong, in words. A device that is gone ends the run: every unit behind would fail as well.
fn lost(error: ModelError, control: &Control) -> String {
    let reason = error.to_string();
    if let ModelError::Lost(_) = error {
        control.fail(RunError::Model(error));
    }
    reason
}
