//! What an output's records and claims say of its state, for people and as JSON. Changes nothing.

use std::fmt;

use serde::Serialize;

use super::{
    Counts, FailureRecord, Ledger, Liveness, SinkError, Storage,
    claims::{host, now, read_claims},
    output::no_output,
};
use crate::figures::{duration, megabytes, thousands};

/// How far an output is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// `finished`, `running`, `complete` (all committed, the manifest is missing), or `stopped`.
    pub state: &'static str,
    /// Units of the plan.
    pub units: u64,
    /// Units committed.
    pub committed: u64,
    /// What they hold.
    pub counts: Counts,
    /// Source rows of the plan.
    pub rows: u64,
    /// Uncompressed bytes of the plan's content.
    pub content_bytes: u64,
    /// Likewise, of the units committed.
    pub committed_content_bytes: u64,
    /// Bytes of the files that count.
    pub output_bytes: u64,
    /// Seconds until the processes at work are done, at the rate since each of them began; `None` when none is.
    pub eta_seconds: Option<u64>,
    /// Processes that are at work, or were when they died.
    pub processes: Vec<ProcessStatus>,
    /// Units and shards that could not be done.
    pub failed: Vec<FailureRecord>,
    /// Records that cannot be read.
    pub damaged_records: Vec<String>,
    /// What computed the committed units.
    pub device_classes: Vec<String>,
    /// Fingerprint of the plan.
    pub fingerprint: String,
}

/// A process and the units it says it is at.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessStatus {
    /// Name of its host.
    pub host: String,
    /// Number of the process there.
    pub process: u32,
    /// Its share of the units, `index/count`, if it has one.
    pub share: Option<String>,
    /// `alive`, `dead`, or `silent` when it has not written for two minutes.
    pub state: &'static str,
    /// Seconds since it began.
    pub for_seconds: u64,
    /// Seconds since it last wrote.
    pub seen_seconds_ago: u64,
    /// Content bytes it scored so far.
    pub bytes: u64,
    /// The units it is at, and for how many seconds.
    pub units: Vec<(String, u64)>,
}

impl Status {
    /// Of the output in `storage`.
    ///
    /// # Errors
    /// As [`Ledger::read`]; [`SinkError::Refused`] when there is no output.
    pub fn read(storage: &Storage) -> Result<Status, SinkError> {
        let ledger = Ledger::read(storage)?.ok_or_else(|| no_output(storage))?;
        let (host, now) = (host(), now());
        let mut processes = Vec::new();
        for (_, claim) in read_claims(storage)? {
            let state = match claim.liveness(&host, now) {
                Liveness::Alive => "alive",
                Liveness::Dead => "dead",
                Liveness::Silent(_) => "silent",
            };
            let since = |begun: u64| now.saturating_sub(begun);
            processes.push(ProcessStatus {
                state,
                for_seconds: since(claim.since),
                seen_seconds_ago: since(claim.seen),
                units: claim.units.iter().map(|(unit, &begun)| (unit.clone(), since(begun))).collect(),
                host: claim.host,
                process: claim.process,
                share: claim.share,
                bytes: claim.bytes,
            });
        }
        let content_bytes = sum(ledger.plan.shards.iter().map(|s| s.content_bytes));
        let committed_content_bytes = sum(ledger.committed.values().map(|r| r.content_bytes));
        let left = u64::saturating_sub(content_bytes, committed_content_bytes);
        let alive = || processes.iter().filter(|p| p.state == "alive");
        let rate: f64 =
            alive().filter(|p| p.for_seconds > 0).map(|p| p.bytes as f64 / p.for_seconds as f64).sum();
        let state = match (ledger.is_finished(), ledger.is_complete()) {
            (true, _) => "finished",
            (false, _) if alive().next().is_some() => "running",
            (false, true) => "complete",
            (false, false) => "stopped",
        };
        let mut device_classes: Vec<String> =
            ledger.committed.values().map(|r| r.device_class.clone()).collect();
        device_classes.sort();
        device_classes.dedup();
        Ok(Status {
            state,
            units: ledger.n_units(),
            committed: ledger.committed.len() as u64,
            counts: ledger.counts(),
            rows: sum(ledger.plan.shards.iter().map(|s| s.rows)),
            content_bytes,
            committed_content_bytes,
            output_bytes: sum(ledger.files().iter().map(|f| f.bytes)),
            eta_seconds: (state == "running" && rate > 0.0).then(|| (left as f64 / rate) as u64),
            damaged_records: ledger.damaged.iter().map(|path| path.display().to_string()).collect(),
            failed: ledger.failed,
            processes,
            device_classes,
            fingerprint: ledger.fingerprint,
        })
    }
}

/// A record may say anything: the sum ends at the largest number.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(f, "{}", self.state)?;
        writeln!(f, "  units       {} of {} committed", thousands(self.committed), thousands(self.units))?;
        let (rows, all, documents) =
            (thousands(counts.rows), thousands(self.rows), thousands(counts.documents));
        write!(f, "  rows        {rows} of {all}: {documents} documents")?;
        if counts.filtered > 0 {
            write!(f, ", {} left out by where or sample", thousands(counts.filtered))?;
        }
        writeln!(f, ", {} in quarantine", thousands(counts.quarantined))?;
        writeln!(
            f,
            "  content     {} of {} committed",
            megabytes(self.committed_content_bytes),
            megabytes(self.content_bytes)
        )?;
        writeln!(f, "  output      {} in the files that count", megabytes(self.output_bytes))?;
        match self.eta_seconds {
            Some(seconds) => writeln!(f, "  eta         {}", duration(seconds))?,
            None if self.state == "running" => writeln!(f, "  eta         not known yet")?,
            None => {}
        }
        for p in &self.processes {
            let share = p.share.as_ref().map_or(String::new(), |share| format!(", share {share}"));
            writeln!(
                f,
                "  process     {} on {}{share}: {} for {}, last heard of {} ago",
                p.process,
                p.host,
                p.state,
                duration(p.for_seconds),
                duration(p.seen_seconds_ago)
            )?;
            for (unit, seconds) in &p.units {
                let at = if p.state == "alive" { "at" } else { "was at" };
                writeln!(f, "    {at} unit {unit} for {}", duration(*seconds))?;
            }
        }
        for failure in &self.failed {
            let FailureRecord { unit, source_file, stage, reason } = failure;
            writeln!(f, "  failed      {unit} of {source_file} in {stage}: {reason}")?;
        }
        for record in &self.damaged_records {
            writeln!(
                f,
                "  damaged     {record} cannot be read; the next run does its unit, or, if it repaired one, run --only-quarantined"
            )?;
        }
        if self.device_classes.len() > 1 {
            writeln!(f, "  devices     {}", self.device_classes.join(", "))?;
        }
        write!(f, "  fingerprint {}", self.fingerprint)
    }
}
