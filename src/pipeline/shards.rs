//! The shards of a plan: those that an output has at their places, then new ones, each looked through, several at a time. Cuts nothing
//! into units.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    config::Pipeline,
    sink::{PlanRecord, ShardEntry},
    source::{Identity, Shard, ShardFile, SourceError, is_read_through, open_shard},
};

/// A footer that claims more units than this is taken for corrupt before anything is allocated for them.
const MAX_UNITS_PER_SHARD: u64 = 1 << 20;
/// How many shards are opened at a time: each waits for a disk or a network.
const OPENED_AT_A_TIME: usize = 8;

/// A shard of the plan.
#[derive(Clone, Debug)]
pub enum PlannedShard {
    /// Its footer was read.
    Ready(Shard),
    /// Its footer could not be read: it fails, the others go on.
    Broken {
        /// The file.
        file: ShardFile,
        /// What is known of it.
        identity: Identity,
        /// Why.
        reason: String,
    },
    /// The output has it, the source no longer does.
    Absent(ShardEntry),
}

impl PlannedShard {
    /// Its name in the output.
    pub fn source_file(&self) -> &str {
        match self {
            PlannedShard::Ready(shard) => &shard.file.source_file,
            PlannedShard::Broken { file, .. } => &file.source_file,
            PlannedShard::Absent(entry) => &entry.source_file,
        }
    }
}

/// Where a shard of the plan is.
pub(super) enum Place {
    File(ShardFile),
    Absent(ShardEntry),
}

/// Shards that the output has at their place in it, then the others as listed.
pub(super) fn in_order(files: Vec<ShardFile>, planned: Option<PlanRecord>) -> Vec<Place> {
    let mut by_name: BTreeMap<String, ShardFile> =
        files.into_iter().map(|file| (file.source_file.clone(), file)).collect();
    let mut places = Vec::new();
    for entry in planned.map(|plan| plan.shards).unwrap_or_default() {
        places.push(match by_name.remove(&entry.source_file) {
            Some(file) => Place::File(file),
            None => Place::Absent(entry),
        });
    }
    places.extend(by_name.into_values().map(Place::File));
    places
}

/// The shards at `places`, in their order; the first failure among them.
pub(super) fn planned_shards(
    places: &[Place],
    pipeline: &Pipeline,
    memory: u64,
) -> Result<Vec<PlannedShard>, SourceError> {
    let next = AtomicUsize::new(0);
    let opened: Mutex<BTreeMap<usize, Result<PlannedShard, SourceError>>> = Mutex::default();
    let alone = Mutex::new(());
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(place) = places.get(index) else { return };
            let shard = planned_shard(place, pipeline, memory, &alone);
            if shard.is_err() {
                // Those before it are under way; none behind it matters any more.
                next.store(places.len(), Ordering::Relaxed);
            }
            opened.lock().unwrap_or_else(PoisonError::into_inner).insert(index, shard);
        }
    };
    thread::scope(|scope| {
        for _ in 1..OPENED_AT_A_TIME.min(places.len()) {
            scope.spawn(work);
        }
        work();
    });
    opened.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// Together the shards that are opened at a time take no more than `memory`, and as much again for one that may need it all, which is
/// opened while it has `alone`.
fn planned_shard(
    place: &Place,
    pipeline: &Pipeline,
    memory: u64,
    alone: &Mutex<()>,
) -> Result<PlannedShard, SourceError> {
    let file = match place {
        Place::Absent(entry) => return Ok(PlannedShard::Absent(entry.clone())),
        Place::File(file) => file,
    };
    let open = |memory| open_shard(file, &pipeline.source, pipeline.limits.max_document_bytes, memory);
    let open_alone = || {
        let _held = alone.lock().unwrap_or_else(PoisonError::into_inner);
        open(memory)
    };
    let mut opened = if is_read_through(file, &pipeline.source) {
        open_alone()
    } else {
        open(memory / OPENED_AT_A_TIME as u64)
    };
    if let Ok(Err((_, SourceError::Memory(_)))) = opened {
        opened = open_alone();
    }
    Ok(match opened? {
        Ok(shard) => checked(shard, pipeline.sink.unit_bytes.get()),
        Err((identity, error)) => {
            PlannedShard::Broken { file: file.clone(), identity, reason: error.to_string() }
        }
    })
}

/// `shard`, unless it claims more than can be.
fn checked(shard: Shard, unit_bytes: u64) -> PlannedShard {
    let claimed: u128 = shard.row_groups.iter().map(|g| u128::from(g.weight())).sum();
    let rows: u128 = shard.row_groups.iter().map(|g| u128::from(g.rows)).sum();
    let parts = (claimed / u128::from(unit_bytes)).min(rows);
    if parts <= u128::from(MAX_UNITS_PER_SHARD) && rows <= u128::from(u32::MAX) * 1024 {
        return PlannedShard::Ready(shard);
    }
    let path = shard.file.path.display();
    let reason = format!(
        "failed to read {path}: it claims {rows} rows and {claimed} bytes; if that is \
         true, raise sink.unit_bytes or split the file"
    );
    PlannedShard::Broken { file: shard.file, identity: shard.identity, reason }
}
