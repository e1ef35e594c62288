//! How a run ended, for people and for exit codes. Computes nothing of its own.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{Plan, StageSeconds};
use crate::{
    figures::{megabytes, thousands},
    sink::Counts,
};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every unit is committed and the manifest written.
    Finished,
    /// It had been finished before: nothing was done.
    FinishedBefore,
    /// This process has nothing left to do, but the output is not finished.
    ShareDone {
        /// Units and unreadable shards that are left to others; `None` when another process finishes the output.
        left: Option<u64>,
    },
    /// Units failed.
    Incomplete,
    /// A stop was asked for.
    Interrupted,
}

/// A unit, or a shard, that could not be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Name of the unit or number of the shard.
    pub name: String,
    /// Name of the shard in the output.
    pub source_file: String,
    /// Stage that failed.
    pub stage: &'static str,
    /// Whether the input is to blame, not the program.
    pub input: bool,
    /// What went wrong.
    pub reason: String,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How it ended.
    pub ending: Ending,
    /// What this run added to the output.
    pub run: Counts,
    /// What the output holds.
    pub total: Counts,
    /// Units and shards that could not be done.
    pub failures: Vec<Failure>,
    /// Where the time went.
    pub stages: Vec<StageSeconds>,
    /// Wall time of the run.
    pub seconds: f64,
    /// Seconds of it that the device had at least one batch.
    pub device_seconds: f64,
    /// Folder of the output.
    pub output: PathBuf,
    /// Name of the pipeline.
    pub name: String,
}

impl Summary {
    pub(super) fn new(plan: &Plan, output: &Path) -> Self {
        Summary {
            ending: Ending::Incomplete,
            run: Counts::default(),
            total: Counts::default(),
            failures: Vec::new(),
            stages: Vec::new(),
            seconds: 0.0,
            device_seconds: 0.0,
            output: output.into(),
            name: plan.pipeline.name.clone(),
        }
    }

    /// The stage whose threads were the busiest, with the share of the run they worked.
    pub fn bottleneck(&self) -> Option<(&StageSeconds, f64)> {
        let share = |stage: &StageSeconds| stage.busy / (self.seconds * stage.threads as f64);
        let busiest = self.stages.iter().max_by(|a, b| share(a).total_cmp(&share(b)))?;
        Some((busiest, share(busiest)))
    }
}

impl StageSeconds {
    /// Sums the readings of several passes by stage.
    pub(super) fn merged(readings: impl Iterator<Item = StageSeconds>) -> Vec<StageSeconds> {
        let mut merged: Vec<StageSeconds> = Vec::new();
        for reading in readings {
            match merged.iter_mut().find(|stage| stage.name == reading.name) {
                None => merged.push(reading),
                Some(stage) => {
                    stage.busy += reading.busy;
                    stage.core += reading.core;
                    stage.starved += reading.starved;
                    stage.blocked += reading.blocked;
                }
            }
        }
        merged
    }
}

impl Summary {
    fn fmt_time(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = megabytes((self.run.bytes as f64 / self.seconds) as u64);
        writeln!(f, "  time        {:.1} s, {rate}/s", self.seconds)?;
        for StageSeconds { name, threads, busy, starved, blocked, .. } in &self.stages {
            writeln!(
                f,
                "    {name:<12}{busy:>8.2} s busy {starved:>8.2} s waiting for input {blocked:>8.2} s for room   ×{threads}"
            )?;
        }
        writeln!(f, "  device      busy {:.0}% of the time", 100.0 * self.device_seconds / self.seconds)?;
        if let Some((stage, share)) = self.bottleneck() {
            writeln!(f, "  bottleneck  {} (busy {:.0}% of the time)", stage.name, 100.0 * share)?;
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = match self.ending {
            Ending::ShareDone { left: Some(units) } => {
                format!("has done its share, {units} units are left to others")
            }
            _ => "has done its share, another process finishes the output".to_owned(),
        };
        let ending = match self.ending {
            Ending::Finished => "finished",
            Ending::ShareDone { .. } => share.as_str(),
            Ending::FinishedBefore => "was finished before, nothing to do",
            Ending::Incomplete => "is incomplete; the same command tries again what failed",
            Ending::Interrupted => "was interrupted; the same command goes on from here",
        };
        writeln!(f, "{} {ending}", self.name)?;
        let counts = if self.ending == Ending::FinishedBefore { &self.total } else { &self.run };
        write!(
            f,
            "  rows        {} read, {} documents",
            thousands(counts.rows),
            thousands(counts.documents)
        )?;
        if counts.filtered > 0 {
            write!(f, ", {} left out by where or sample", thousands(counts.filtered))?;
        }
        if counts.quarantined > 0 {
            write!(f, ", {} in quarantine", thousands(counts.quarantined))?;
        }
        writeln!(f)?;
        let per = |sum: f64, n: u64| if n == 0 { 0.0 } else { sum / n as f64 };
        writeln!(
            f,
            "  bytes       {}, mean entropy {:.3} nats",
            thousands(counts.bytes),
            per(counts.entropy_sum, counts.bytes)
        )?;
        writeln!(
            f,
            "  patches     {}, {:.2} bytes each",
            thousands(counts.patches),
            per(counts.bytes as f64, counts.patches)
        )?;
        if self.total.rows > counts.rows {
            writeln!(
                f,
                "  in all      {} rows, {} bytes with earlier runs",
                thousands(self.total.rows),
                thousands(self.total.bytes)
            )?;
        }
        if counts.rows > 0 && self.seconds > 0.0 {
            self.fmt_time(f)?;
        }
        for failure in &self.failures {
            let (name, file, stage) = (&failure.name, &failure.source_file, failure.stage);
            writeln!(f, "  failed      {name} of {file} in {stage}: {}", failure.reason)?;
        }
        writeln!(f, "  output      {}", self.output.display())?;
        if counts.documents > 0 {
            let documents = self.output.join("documents");
            writeln!(
                f,
                "  read it     python -c \"import pyarrow.dataset as d; print(d.dataset('{}').head(3))\"",
                documents.display()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottleneck_is_the_stage_whose_threads_rest_least() {
        let stage = |name, threads, busy| StageSeconds {
            name,
            threads,
            busy,
            core: busy,
            starved: 0.0,
            blocked: 0.0,
        };
        let summary = Summary {
            ending: Ending::Finished,
            run: Counts::default(),
            total: Counts::default(),
            failures: Vec::new(),
            stages: vec![stage("encode", 4, 12.0), stage("model", 1, 9.0)],
            seconds: 10.0,
            device_seconds: 9.0,
            output: "out".into(),
            name: "x".into(),
        };
        assert_eq!(summary.bottleneck().map(|(stage, share)| (stage.name, share)), Some(("model", 0.9)));
    }
}
