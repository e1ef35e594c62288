//! The stages: each a function from an inlet to an outlet. Spawns nothing; the wiring is next door.
//!
//! A unit that fails travels on as a [`FailedUnit`] in place of its data, so that the end of the line hears
//! of every unit exactly once, unless the run is halted: then units in flight are dropped.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    RunError,
    apart::Decoder,
    assemble::{Assembler, Recipe},
    control::{Budget, Control, Permit},
    deal::{Deal, Dealer},
    meter::{Closed, Inlet, Outlet, StageMeter},
    plan::Plan,
    sizes::Load,
    stats::Stats,
};
use crate::{
    data::{
        Document, PackedTokens, PatchedUnit, RawBatch, RawRow, Rejected, Scores, SegmentedBatch, Unit, View,
        Wanted,
    },
    fault,
    figures::megabytes,
    model::{EntropyModel, ModelError, PackedBatch, Packer, Pending, score_in_parts},
    pretokenize::{Pretokenizer, Needs, check_tiling, needs_of, too_long_decoded},
    sink::{Claims, Counts, EncodedPiece, EncodedUnit, Encoder, Piece, SinkError},
    source::{Held, RowReader, SourceError},
};

/// A unit on its way: its share of the memory budget is held until the last message of it is dropped.
pub struct Ticket {
    /// The unit.
    pub unit: Arc<Unit>,
    /// Place of the unit in this pass.
    pub sequence: usize,
    started: Instant,
    claims: Arc<Claims>,
    load: Load,
    memory: Permit,
}

impl Ticket {
    /// The part of the unit's source that `tokens` of its documents stand for.
    fn source_bytes(&self, tokens: u64) -> u64 {
        let all = u128::from((self.load.content + 2 * self.load.rows).max(1));
        let share = u128::from(self.unit.content_bytes) * u128::from(tokens) / all;
        share.try_into().unwrap_or(u64::MAX)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.claims.end(self.unit.id);
    }
}

/// Whether the input or the program is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The shard's bytes.
    Input,
    /// The program or the device.
    Program,
}

/// A unit that a stage could not do.
#[derive(Clone, Debug)]
pub struct FailedUnit {
    /// The unit.
    pub unit: Arc<Unit>,
    /// Name of the stage.
    pub stage: &'static str,
    /// Whose fault.
    pub blame: Blame,
    /// What went wrong.
    pub reason: String,
}

/// A message, or the news that its unit failed before.
pub type Passed<T> = Result<T, FailedUnit>;

/// Rows of a unit.
pub struct RawUnit {
    ticket: Ticket,
    batch: RawBatch,
}

/// Documents of a unit.
pub struct SegmentedUnit {
    ticket: Ticket,
    batch: SegmentedBatch,
}

/// Tokens for the model; `last` of its unit or not.
pub struct ModelBatch {
    ticket: Arc<Ticket>,
    documents: Arc<SegmentedBatch>,
    packed: PackedBatch,
    last: bool,
}

/// The same with the model's answer.
pub struct ScoredBatch {
    ticket: Arc<Ticket>,
    documents: Arc<SegmentedBatch>,
    packed: PackedBatch,
    scores: Scores,
    last: bool,
}

/// A unit ready for the tables.
pub struct AssembledUnit {
    ticket: Arc<Ticket>,
    unit: PatchedUnit,
    counts: Counts,
}

/// A part of a unit's tables to encode, its place among the others, and where the answer goes.
pub struct PieceRequest {
    unit: Arc<Unit>,
    place: usize,
    piece: Piece,
    done: Sender<(usize, Passed<EncodedPiece>)>,
}

/// A unit in temporary files.
pub struct WrittenUnit {
    /// Held until the unit is committed.
    pub ticket: Arc<Ticket>,
    /// Its files.
    pub unit: EncodedUnit,
}

/// Runs `work` for a unit; an error or a panic in it fails the unit, not the run.
fn attempt<T>(
    stage: &StageMeter,
    unit: &Arc<Unit>,
    blame: Blame,
    work: impl FnOnce() -> Result<T, String>,
) -> Passed<T> {
    contained(stage, unit, blame, || {
        fault::point(stage.name).map_err(|error| error.to_string())?;
        work()
    })
}

/// The same for the rest of a work that was begun.
fn contained<T>(
    stage: &StageMeter,
    unit: &Arc<Unit>,
    blame: Blame,
    work: impl FnOnce() -> Result<T, String>,
) -> Passed<T> {
    let failed = |blame, reason| FailedUnit { unit: unit.clone(), stage: stage.name, blame, reason };
    match stage.busy(unit.id, || catch_unwind(AssertUnwindSafe(work))) {
        Ok(result) => result.map_err(|reason| failed(blame, reason)),
        Err(panic) => Err(failed(Blame::Program, format!("panicked: {}", panic_message(panic.as_ref())))),
    }
}

/// What a panic said.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Where a pretokenizer puts its result: reserved by the source, in the order of the units.
pub type Slot<T> = Receiver<Passed<T>>;

/// A unit to pretokenize and the slot's other end.
pub type SlotRequest = (RawUnit, Sender<Passed<SegmentedUnit>>);

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

/// Why the unit cannot be held in memory, if it and its shard's open pages need more than all there is.
fn refusal(unit: &Unit, needed: u64, pages: u64, total: u64) -> Option<String> {
    let all = needed.saturating_add(pages);
    (all > total).then(|| {
        let remedy = if pages > needed {
            format!("write the shard with smaller pages or shorter lines, since what is read of it at once takes {}", megabytes(pages))
        } else {
            "lower limits.max_document_bytes so that its long rows go to quarantine, or sink.unit_bytes if it has many \
             rows"
                .into()
        };
        format!(
            "unit {} (rows {} to {} of {}) needs about {} or more, and limits.memory = {}; raise limits.memory, or {remedy}",
            unit.id,
            unit.rows.start,
            unit.rows.end - 1,
            unit.source_file,
            megabytes(all),
            megabytes(total)
        )
    })
}

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
