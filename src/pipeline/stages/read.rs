//! The stage `source`: rows of the units, in order, within the memory that there is.

use std::{sync::Arc, time::Instant};

use crossbeam_channel::bounded;

use super::{Blame, RawUnit, SegmentedUnit, Slot, SlotRequest, Ticket, attempt, refusal};
use crate::{
    data::{RawBatch, RawRow, Unit},
    pipeline::{
        RunError,
        control::{Budget, Control},
        deal::{Deal, Dealer},
        meter::{Closed, Outlet, StageMeter},
        plan::Plan,
        sizes::Load,
    },
    pretokenize::{Needs, Pretokenizer, needs_of},
    source::{Held, RowReader, SourceError},
};

/// Reads `units` shard by shard, and those that another process is at last. The only stage that obeys a stop at
/// once: the others end as their inlets close.
#[expect(clippy::too_many_arguments, reason = "a stage is a function of everything it is wired to")]
pub fn source(
    plan: &Plan,
    units: &[Arc<Unit>],
    meter: &StageMeter,
    pretokenizer: &dyn Pretokenizer,
    budget: &Arc<Budget>,
    control: &Control,
    dealer: &Dealer<'_>,
    work: &Outlet<SlotRequest>,
    slots: &Outlet<Slot<SegmentedUnit>>,
) -> Result<(), Closed> {
    let mut reader: Option<RowReader> = None;
    // What the reader holds from unit to unit. A unit's own share grows as its rows come: the footer tells neither which
    // of them are long nor how often a value is repeated.
    let reader_memory = budget.permit();
    let mut sequence = 0;
    let mut put_off = Vec::new();
    let mut todo: Vec<Arc<Unit>> = units.to_vec();
    let mut at_last = false;
    loop {
        for (index, unit) in todo.iter().enumerate() {
            if index == 0 || todo[index - 1].id.shard != unit.id.shard {
                reader = None;
            }
            if control.stopping() {
                return Ok(());
            }
            match dealer.deal(unit.id, at_last) {
                Deal::Now => {}
                deal => {
                    if deal == Deal::Later {
                        put_off.push(unit.clone());
                    }
                    continue;
                }
            }
            let (started, memory) = (Instant::now(), budget.permit());
            let mut load = Load { rows: unit.rows.end - unit.rows.start, ..Load::default() };
            let mut held_by_reader = 0;
            let read = attempt(meter, unit, Blame::Input, || {
                let rest = todo[index..].iter();
                let wait_for = |needed: u64, reader: u64| {
                    let granted = || reader_memory.resize(reader, control) && memory.resize(needed, control);
                    match meter.held_up("wait for memory", granted) {
                        true => Ok(()),
                        false => Err(SourceError::Memory("the run was stopped".into())),
                    }
                };
                let grant = |load: &Load, reader: u64| {
                    let needed = plan.memory_of(load);
                    match refusal(unit, needed, reader, budget.total()) {
                        Some(refusal) => Err(SourceError::Memory(refusal)),
                        None => wait_for(needed, reader),
                    }
                };
                let read = read_unit(plan, &mut reader, unit, rest, &mut |held: Held| {
                    // What is decoded is held beside what it comes from.
                    let content = if pretokenizer.decodes() { 0 } else { held.content };
                    let encoded = held.content - content;
                    load = Load { content, encoded, carried: held.carried, ..load };
                    held_by_reader = held.reader;
                    grant(&load, held.reader)
                })
                .and_then(|batch| {
                    if pretokenizer.decodes() {
                        let needs = needs_of_rows(pretokenizer, &batch.rows);
                        load.content = needs.views;
                        load.encoded = load.encoded.saturating_add(needs.beside);
                        // No unit is refused for a guess: it takes all there is, and what it turns out to need is asked then.
                        let all = budget.total().saturating_sub(held_by_reader);
                        wait_for(plan.memory_of(&load).min(all), held_by_reader)?;
                    }
                    Ok(batch)
                });
                read.map_err(|error| {
                    if let SourceError::Unreachable(problem) = &error {
                        // No other unit would fare better.
                        control.fail(RunError::Unreachable(problem.clone()));
                    }
                    error.to_string()
                })
            });
            if control.stopping() {
                return Ok(());
            }
            if reader.is_none() {
                reader_memory.resize(0, control);
            }
            let (unit, claims) = (unit.clone(), dealer.claims());
            let ticket = Ticket { unit, sequence, started, claims, load, memory };
            sequence += 1;
            // One message each way; the slot closes with the worker that holds its other end.
            let (done, slot) = bounded(1);
            match read {
                Ok(batch) => {
                    slots.send(slot)?;
                    work.send((RawUnit { ticket, batch }, done))?;
                }
                Err(failed) => {
                    done.send(Err(failed)).map_err(|_| Closed)?;
                    slots.send(slot)?;
                }
            }
        }
        if put_off.is_empty() {
            return Ok(());
        }
        todo = std::mem::take(&mut put_off);
        at_last = true;
    }
}

/// What all of `rows` need, of which one is decoded at a time.
fn needs_of_rows(pretokenizer: &dyn Pretokenizer, rows: &[RawRow]) -> Needs {
    let of_rows = rows.iter().map(|row| needs_of(pretokenizer, &row.content));
    of_rows.fold(Needs::default(), |all, row| Needs {
        views: all.views.saturating_add(row.views),
        beside: all.beside.max(row.beside),
    })
}

/// Reads `unit` with the shard's open reader, or with a new one for the units of its shard in `rest`, of all of which
/// it is the first. After a failure no reader is left open.
fn read_unit<'a>(
    plan: &Plan,
    reader: &mut Option<RowReader>,
    unit: &Arc<Unit>,
    rest: impl Iterator<Item = &'a Arc<Unit>>,
    grant: &mut dyn FnMut(Held) -> Result<(), SourceError>,
) -> Result<RawBatch, SourceError> {
    let mut open = match reader.take() {
        Some(open) => open,
        None => {
            let mut rest = rest.peekable();
            let mut rows = Vec::new();
            while let Some(same) = rest.next_if(|u| u.id.shard == unit.id.shard) {
                rows.push(same.rows.clone());
            }
            let open = plan.open(unit, &rows)?;
            if let Some(next) = rest.next() {
                plan.begin_keeping(next);
            }
            open
        }
    };
    match open.read(unit.clone(), grant) {
        Ok(batch) => {
            *reader = Some(open);
            Ok(batch)
        }
        Err(error @ (SourceError::Memory(_) | SourceError::Unreachable(_))) => Err(error),
        // It decodes ahead, so that the fault may be the next unit's: read this one alone.
        Err(ahead) => {
            drop(open);
            let alone = plan.open(unit, std::slice::from_ref(&unit.rows));
            alone.and_then(|mut alone| alone.read(unit.clone(), grant)).inspect_err(|_| {
                tracing::debug!(unit = %unit.id, "reading on failed with: {ahead}");
            })
        }
    }
}
