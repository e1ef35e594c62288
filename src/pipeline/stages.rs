//! The stages: each a function from an inlet to an outlet, with what they hand to each other. Spawns nothing; the wiring is next door.
//!
//! A unit that fails travels on as a [`FailedUnit`] in place of its data, so that the end of the line hears
//! of every unit exactly once, unless the run is halted: then units in flight are dropped.

mod device;
mod read;
mod rows;
mod write;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender};

pub use self::{
    device::{model, pack},
    read::source,
    rows::pretokenize,
    write::{compress, encode, patch},
};
use super::{control::Permit, meter::StageMeter, sizes::Load};
use crate::{
    data::{PatchedUnit, RawBatch, Scores, SegmentedBatch, Unit},
    fault,
    figures::megabytes,
    model::PackedBatch,
    sink::{Claims, Counts, EncodedPiece, EncodedUnit, Piece},
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
