//! Shows how far a run is: bars on a terminal, log lines elsewhere. Changes nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::stats::Stats;
use crate::figures::{megabytes, thousands};

/// Where progress goes.
#[derive(Clone, Debug)]
pub enum Display {
    /// Nowhere.
    Silent,
    /// Bars on a terminal.
    Bars(MultiProgress),
    /// A log line every so often.
    Log(Duration),
}

const REDRAW: Duration = Duration::from_millis(200);
const SHOWN_SHARDS: usize = 4;

impl Display {
    /// Shows `stats` while `work` runs.
    pub(super) fn show<T>(&self, stats: &Stats, work: impl FnOnce() -> T) -> T {
        // Never sends: dropped when the work is done.
        let (running, done) = bounded::<()>(1);
        thread::scope(|scope| {
            match self {
                Display::Silent => {}
                Display::Bars(bars) => {
                    scope.spawn(move || draw(bars, stats, &done));
                }
                Display::Log(interval) => {
                    scope.spawn(move || log(*interval, stats, &done));
                }
            }
            let result = work();
            drop(running);
            result
        })
    }
}

fn wait(done: &Receiver<()>, interval: Duration) -> bool {
    matches!(done.recv_timeout(interval), Err(RecvTimeoutError::Timeout))
}

fn log(interval: Duration, stats: &Stats, done: &Receiver<()>) {
    let started = Instant::now();
    while wait(done, interval) {
        let (bytes, total) = stats.bytes();
        let rate = bytes as f64 / started.elapsed().as_secs_f64();
        tracing::info!(
            rows = stats.rows(),
            total_rows = stats.total_rows,
            bytes,
            total_bytes = total,
            bytes_per_second = rate as u64,
            eta_seconds = ((total - bytes) as f64 / rate.max(1.0)) as u64,
            queues = queues(stats),
            "progress"
        );
    }
}

/// Fill of each stage's input, `pack 1/5`; threads with a queue each count together.
fn queues(stats: &Stats) -> String {
    let mut stages: Vec<(&str, usize, usize)> = Vec::new();
    for queue in stats.queues() {
        match stages.iter_mut().find(|(name, ..)| *name == queue.reader) {
            None => stages.push((queue.reader, queue.waiting(), queue.capacity)),
            Some((_, waiting, capacity)) => {
                *waiting += queue.waiting();
                *capacity += queue.capacity;
            }
        }
    }
    let fill = stages.iter().map(|(name, waiting, capacity)| format!("{name} {waiting}/{capacity}"));
    fill.collect::<Vec<_>>().join("  ")
}

fn draw(bars: &MultiProgress, stats: &Stats, done: &Receiver<()>) {
    let style = |template: &str| {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    let (_, total_bytes) = stats.bytes();
    let total = bars.add(ProgressBar::new(total_bytes));
    total.set_style(style("{bar:32.green} {percent:>3}%  {msg}"));
    let fill = bars.add(ProgressBar::new_spinner());
    fill.set_style(style("  waiting  {msg:.dim}"));
    let mut shards: Vec<(usize, ProgressBar)> = Vec::new();
    let started = Instant::now();
    while wait(done, REDRAW) {
        let (bytes, _) = stats.bytes();
        let rate = bytes as f64 / started.elapsed().as_secs_f64();
        let eta = Duration::from_secs(((total_bytes - bytes) as f64 / rate.max(1.0)) as u64);
        total.set_position(bytes);
        total.set_message(format!(
            "{}/{} rows  {}  {}/s  eta {}",
            thousands(stats.rows()),
            thousands(stats.total_rows),
            megabytes(bytes),
            megabytes(rate as u64),
            if bytes == 0 { "?".into() } else { indicatif::HumanDuration(eta).to_string() },
        ));
        fill.set_message(queues(stats));
        shards.retain(|(index, bar)| {
            let shard = &stats.shards[*index];
            bar.set_position(shard.done());
            let unfinished = shard.done() < shard.total;
            if !unfinished {
                bar.finish_and_clear();
            }
            unfinished
        });
        for (index, shard) in stats.shards.iter().enumerate() {
            let begun = shard.done() > 0 && shard.done() < shard.total;
            if begun && shards.len() < SHOWN_SHARDS && shards.iter().all(|(i, _)| *i != index) {
                let bar = bars.add(ProgressBar::new(shard.total));
                bar.set_style(style("{bar:32.cyan} {percent:>3}%  {msg}"));
                bar.set_message(shard.source_file.clone());
                shards.push((index, bar));
            }
        }
    }
    for bar in shards.iter().map(|(_, bar)| bar).chain([&fill, &total]) {
        bar.finish_and_clear();
    }
}
