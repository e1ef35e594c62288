//! Counters of a running pipeline, written by the stages and read by the display. Decides nothing.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use super::{
    meter::{QueueMeter, StageMeter},
    plan::Plan,
};

/// How far a shard is, in tokens scored and bytes planned.
#[derive(Debug)]
pub struct ShardProgress {
    /// Name of the shard.
    pub source_file: String,
    /// Content bytes that this run has to do.
    pub total: u64,
    done: AtomicU64,
}

impl ShardProgress {
    /// Bytes done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed).min(self.total)
    }
}

/// Shared by stages and display.
#[derive(Debug)]
pub struct Stats {
    /// By shard index.
    pub shards: Vec<ShardProgress>,
    rows: AtomicU64,
    device: AtomicU64,
    /// Rows that this run has to do.
    pub total_rows: u64,
    stages: Mutex<Vec<Arc<StageMeter>>>,
    queues: Mutex<Vec<Arc<QueueMeter>>>,
}

impl Stats {
    /// For the `pending` units of `plan`.
    pub fn new(plan: &Plan, pending: &[Arc<crate::data::Unit>]) -> Self {
        let mut shards: Vec<ShardProgress> = plan
            .shards
            .iter()
            .map(|s| ShardProgress {
                source_file: s.source_file().to_owned(),
                total: 0,
                done: AtomicU64::new(0),
            })
            .collect();
        for unit in pending {
            if let Some(shard) = shards.get_mut(unit.id.shard as usize) {
                shard.total += unit.content_bytes;
            }
        }
        Stats {
            shards,
            rows: AtomicU64::new(0),
            device: AtomicU64::new(0),
            total_rows: pending.iter().map(|u| u.rows.end - u.rows.start).sum(),
            stages: Mutex::default(),
            queues: Mutex::default(),
        }
    }

    /// Tokens of a shard have been scored.
    pub fn scored(&self, shard: u32, tokens: u64) {
        if let Some(shard) = self.shards.get(shard as usize) {
            shard.done.fetch_add(tokens, Ordering::Relaxed);
        }
    }

    /// The device had work for so long.
    pub fn device_worked(&self, time: Duration) {
        self.device.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Seconds that the device had work.
    pub fn device_seconds(&self) -> f64 {
        Duration::from_nanos(self.device.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Rows have been committed.
    pub fn committed(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Rows committed by this run.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Bytes done and planned, over all shards.
    pub fn bytes(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(done, total), s| (done + s.done(), total + s.total))
    }

    /// The wiring tells which stages and queues there are.
    pub fn watch(&self, stages: Vec<Arc<StageMeter>>, queues: Vec<Arc<QueueMeter>>) {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).extend(stages);
        *self.queues.lock().unwrap_or_else(PoisonError::into_inner) = queues;
    }

    /// Meters of all stages of all passes.
    pub fn stages(&self) -> Vec<Arc<StageMeter>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Meters of the queues of the current pass.
    pub fn queues(&self) -> Vec<Arc<QueueMeter>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
