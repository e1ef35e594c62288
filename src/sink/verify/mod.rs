//! An output in; whether it holds what its plan and records promise out, or the first thing that it does
//! not. Knows nothing of the source, which may be gone, and changes nothing.

mod rows;
mod rules;
mod unit;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    CommitRecord, FailureRecord, Ledger, Manifest, ShardEntry, SinkError, Storage,
    files::temporary_of,
    ledger::{commit_path, read_plan, read_unit, record_name},
    output::no_output,
    storage::Found,
};
use crate::{
    data::UnitId,
    figures::{megabytes, thousands},
    schema::{SCHEMA_VERSION, Table},
};
use rules::Rules;

/// What was found in an output.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verification {
    /// Whether the output is finished, and no problem was found: every unit is committed, and the manifest says what
    /// the records say.
    pub complete: bool,
    /// Units of the plan.
    pub units: u64,
    /// Units whose files were read and found sound.
    pub checked: u64,
    /// Files of these units.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Source rows of these units.
    pub rows: u64,
    /// Rows of `documents` in them.
    pub documents: u64,
    /// Rows of `patches` in them.
    pub patches: u64,
    /// Rows of `quarantine` in them.
    pub quarantined: u64,
    /// What contradicts the plan or the records; what comes after it was not looked at.
    pub problem: Option<Problem>,
    /// What is no problem but good to know.
    pub notes: Vec<String>,
}

/// Why an output is not sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, below the output folder.
    pub file: String,
    /// The row, where one is to blame.
    pub row: Option<ProblemRow>,
    /// The unit it belongs to.
    pub unit: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// A row, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemRow {
    /// Of the shard.
    Source(u64),
    /// Of the file.
    InFile(u64),
}

/// Why the check ends.
enum Halt {
    Problem(Box<Problem>),
    Storage(SinkError),
}

type Checked<T> = Result<T, Halt>;

impl From<SinkError> for Halt {
    fn from(error: SinkError) -> Halt {
        Halt::Storage(error)
    }
}

impl From<Problem> for Halt {
    fn from(problem: Problem) -> Halt {
        Halt::Problem(Box::new(problem))
    }
}

impl Problem {
    /// Of a file that `record` names, as a whole.
    fn of_file(record: &CommitRecord, file: &str, what: String) -> Halt {
        Problem::of_record(file, Some(&record.unit), what)
    }

    /// Of a file in `_blt`.
    fn of_record(file: &str, unit: Option<&str>, what: String) -> Halt {
        Problem { file: file.into(), row: None, unit: unit.map(Into::into), what }.into()
    }
}

/// Reads every file of the output in `storage` and compares it with what the plan, the records and the other
/// tables say: sizes and checksums, schemas, numbers of rows, every source row of a unit once, tokens, patches and
/// means, the manifest, and files that nobody names.
///
/// Units come in the order of the plan, and the check ends at the first problem. Memory stays within some rows of each
/// table; a file from a store is copied to the folder for temporary files, one at a time for each table.
///
/// # Errors
/// [`SinkError::Refused`] when there is no output, or one of another version of the tables; otherwise when something
/// cannot be read.
pub fn verify(storage: &Storage) -> Result<Verification, SinkError> {
    let mut found = Verification::default();
    match check(storage, &mut found) {
        Ok(()) => {}
        Err(Halt::Problem(problem)) => found.problem = Some(*problem),
        Err(Halt::Storage(error)) => return Err(error),
    }
    Ok(found)
}

fn check(storage: &Storage, found: &mut Verification) -> Checked<()> {
    // Before the records: what is published in between is named by one.
    let listing = files_of_tables(storage)?;
    let ledger = read_ledger(storage)?;
    if ledger.plan.schema_version != SCHEMA_VERSION {
        let version = &ledger.plan.schema_version;
        return Err(SinkError::Refused(format!(
            "{} has tables of version {version}; this program knows version {SCHEMA_VERSION}",
            storage.root().display()
        ))
        .into());
    }
    found.units = ledger.n_units();
    found.notes = notes(&ledger);
    let mut rules = Rules::of(&ledger.plan)?;
    check_records(storage, &ledger, &rules)?;
    for record in ledger.committed_units().into_values() {
        unit::check(storage, &mut rules, record)?;
        found.checked += 1;
        found.files += record.files.len() as u64;
        found.bytes += record.files.iter().map(|file| file.bytes).sum::<u64>();
        found.rows += record.counts.rows;
        found.documents += record.counts.documents;
        found.patches += record.counts.patches;
        found.quarantined += record.counts.quarantined;
    }
    let is_finished = check_manifest(storage, &listing, &ledger, &mut found.notes)?;
    check_strays(storage, &listing, &ledger, is_finished, &mut found.notes)?;
    found.complete = is_finished;
    Ok(())
}

/// Whatever lies in the folders of the tables and is not temporary.
fn files_of_tables(storage: &Storage) -> Checked<Vec<PathBuf>> {
    let mut all = Vec::new();
    for table in Table::ALL {
        let found = storage.list(&storage.join(table.name()))?;
        all.extend(found.into_iter().filter(|path| temporary_of(path).is_none()));
    }
    Ok(all)
}

/// What is recorded; records that make no sense are a problem of the output.
fn read_ledger(storage: &Storage) -> Checked<Ledger> {
    let refused = |file: &str, error| match error {
        SinkError::Refused(what) => Problem::of_record(file, None, what),
        other => other.into(),
    };
    if read_plan(storage).map_err(|error| refused("_blt/plan.json", error))?.is_none() {
        return Err(no_output(storage).into());
    }
    let ledger = Ledger::read(storage).map_err(|error| refused("_blt/commits", error))?;
    ledger.ok_or_else(|| no_output(storage).into())
}

fn notes(ledger: &Ledger) -> Vec<String> {
    let mut notes = Vec::new();
    for shard in ledger.plan.shards.iter().filter(|shard| shard.unreadable) {
        notes.push(format!("shard {} could not be read", shard.source_file));
    }
    for FailureRecord { unit, source_file, stage, reason } in &ledger.failed {
        notes.push(format!("{unit} of {source_file} failed in {stage}: {reason}"));
    }
    match ledger.n_units().saturating_sub(ledger.committed.len() as u64) {
        0 => {}
        n => notes.push(format!("{n} of {} units are not committed", ledger.n_units())),
    }
    notes
}

/// Records and plan agree on which units there are, and which rows they have.
fn check_records(storage: &Storage, ledger: &Ledger, rules: &Rules) -> Checked<()> {
    if let Some(name) = ledger.committed.keys().find(|name| ledger.unit(name).is_none()) {
        let what = "the plan has no such unit".to_owned();
        return Err(Problem::of_record(&record_file(storage, name)?, Some(name), what));
    }
    let committed = ledger.committed_units();
    for (shard, entry) in (0u32..).zip(&ledger.plan.shards) {
        let units = committed.range(UnitId { shard, unit: 0 }..UnitId { shard, unit: entry.units });
        check_shard(storage, rules, entry, units.map(|(id, record)| (id.unit, *record)))?;
    }
    for path in &ledger.damaged {
        let Some((name, revision)) = record_name(path) else { continue };
        if !is_superseded(storage, &name, revision)? {
            let file = path.strip_prefix(storage.root()).unwrap_or(path).display().to_string();
            let what = "the record cannot be read, or is that of another unit; run the pipeline again to do the unit \
                        once more";
            return Err(Problem::of_record(&file, Some(&name), what.into()));
        }
    }
    Ok(())
}

/// Whether a later record of the unit can be read.
fn is_superseded(storage: &Storage, name: &str, revision: u32) -> Checked<bool> {
    let (end, _) = read_unit(storage, name)?;
    for later in revision + 1..end {
        let path = commit_path(storage.root(), name, later);
        if let Found::Value(record) = storage.read_json::<CommitRecord>(&path)?
            && record.unit == name
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The committed `units` of a shard are disjoint, in order, and leave room for the others; all of them tile it.
fn check_shard<'a>(
    storage: &Storage,
    rules: &Rules,
    entry: &ShardEntry,
    units: impl Iterator<Item = (u32, &'a CommitRecord)>,
) -> Checked<()> {
    let of_shard = |what: String| {
        let what = format!("shard {}: {what}", entry.source_file);
        Err(Problem::of_record("_blt/plan.json", None, what))
    };
    if u64::from(entry.units) > entry.rows {
        return of_shard(format!("{} units cannot share {} rows", entry.units, entry.rows));
    }
    let (mut next_unit, mut next_row) = (0, 0);
    let mut content_bytes = 0u64;
    let mut n_committed = 0;
    for (unit, record) in units {
        let problem = |what: String| match record_file(storage, &record.unit) {
            Ok(file) => Problem::of_record(&file, Some(&record.unit), what),
            Err(halt) => halt,
        };
        if record.source_file != entry.source_file {
            let (found, planned) = (&record.source_file, &entry.source_file);
            return Err(problem(format!("its source_file is {found:?}, that of the plan {planned:?}")));
        }
        if rules.batch_tokens.is_some_and(|planned| planned != record.batch_tokens) {
            return Err(problem(format!(
                "its batch_tokens is {}, not that of the plan",
                record.batch_tokens
            )));
        }
        let (start, end) = (record.row_start, record.row_end);
        // No unit is without rows.
        let room = u64::from(unit - next_unit);
        let fits = start >= next_row && if room == 0 { start == next_row } else { start - next_row >= room };
        if !fits || start >= end {
            return Err(problem(format!(
                "source rows {start} to {end} of unit {unit} do not fit behind {room} more units from row {next_row} on"
            )));
        }
        (next_unit, next_row) = (unit + 1, end);
        content_bytes = content_bytes.saturating_add(record.content_bytes);
        n_committed += 1;
    }
    let left = u64::from(entry.units - next_unit);
    let rest = entry.rows.checked_sub(next_row);
    if rest.is_none_or(|rest| if left == 0 { rest != 0 } else { rest < left }) {
        return of_shard(format!(
            "its units end at row {next_row}, with {left} more to come; the plan says {} rows",
            entry.rows
        ));
    }
    if n_committed == entry.units && content_bytes != entry.content_bytes {
        return of_shard(format!(
            "its units have {content_bytes} bytes of content, the plan says {}",
            entry.content_bytes
        ));
    }
    Ok(())
}

/// The unit's record that was written last, below the output folder.
fn record_file(storage: &Storage, unit: &str) -> Checked<String> {
    let (next, _) = read_unit(storage, unit)?;
    let path = commit_path(Path::new(""), unit, u32::saturating_sub(next, 1));
    Ok(path.display().to_string())
}

/// Tells whether the manifest is there and says what the records say. One that is older than an extension or a repair
/// under way is no problem as long as its files are there.
fn check_manifest(
    storage: &Storage,
    listing: &[PathBuf],
    ledger: &Ledger,
    notes: &mut Vec<String>,
) -> Checked<bool> {
    const FILE: &str = "_blt/manifest.json";
    let problem = |what: String| Err(Problem::of_record(FILE, None, what));
    let Some(manifest) = &ledger.manifest else {
        if storage.is_file(&storage.join(FILE))? {
            return problem("it cannot be read; run the pipeline again to write it anew".into());
        }
        notes.push("there is no manifest yet".into());
        return Ok(false);
    };
    let difference = difference(manifest, ledger);
    match difference {
        None if ledger.is_complete() => return Ok(true),
        None => {}
        Some(what) if ledger.is_complete() && !is_older(storage, manifest, ledger)? => {
            return problem(format!("{what}; run the pipeline again to write it anew"));
        }
        Some(_) => notes.push("the manifest is older than what was committed since".into()),
    }
    let listed: BTreeSet<&Path> = listing.iter().map(PathBuf::as_path).collect();
    for file in &manifest.files {
        let path = storage.join(&file.path);
        if !listed.contains(path.as_path()) && !storage.is_file(&path)? {
            return problem(format!("it names {}, which is gone", file.path));
        }
    }
    Ok(false)
}

/// Where the manifest does not say what the records say.
fn difference(manifest: &Manifest, ledger: &Ledger) -> Option<String> {
    let devices: BTreeSet<&String> = ledger.committed.values().map(|record| &record.device_class).collect();
    let files = ledger.files();
    let what = if manifest.schema_version != ledger.plan.schema_version {
        "schema_version is not that of the plan".into()
    } else if manifest.fingerprint != ledger.fingerprint {
        "fingerprint is not that of the plan".into()
    } else if manifest.units != ledger.n_units() {
        format!("it says {} units, the plan {}", manifest.units, ledger.n_units())
    } else if manifest.counts != ledger.counts() {
        "its counts are not those of the records".into()
    } else if !manifest.device_classes.iter().eq(devices) {
        "its device_classes are not those of the records".into()
    } else if let Some((file, _)) = manifest.files.iter().zip(&files).find(|(a, b)| a != b) {
        format!("what it says of {} is not what the records say", file.path)
    } else if manifest.files != files {
        format!("it names {} files, the records {}", manifest.files.len(), files.len())
    } else {
        return None;
    };
    Some(what)
}

/// Whether the output grew, or units were superseded, after the manifest was written.
fn is_older(storage: &Storage, manifest: &Manifest, ledger: &Ledger) -> Checked<bool> {
    if manifest.units < ledger.n_units() && manifest.counts.rows < ledger.counts().rows {
        return Ok(true);
    }
    let named: BTreeSet<String> = manifest.files.iter().map(|file| file.path.clone()).collect();
    for record in ledger.committed.values() {
        let is_new = record.files.iter().any(|file| !named.contains(&file.path));
        if is_new && storage.is_file(&commit_path(storage.root(), &record.unit, 1))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Readers take every file in a table's folder for a part of the table.
fn check_strays(
    storage: &Storage,
    listing: &[PathBuf],
    ledger: &Ledger,
    is_finished: bool,
    notes: &mut Vec<String>,
) -> Checked<()> {
    let files = ledger.files();
    let named: BTreeSet<PathBuf> = files.iter().map(|file| storage.join(&file.path)).collect();
    let strays: Vec<&PathBuf> = listing.iter().filter(|path| !named.contains(*path)).collect();
    let Some(first) = strays.first() else { return Ok(()) };
    let file = first.strip_prefix(storage.root()).unwrap_or(first).display().to_string();
    if is_finished {
        let what = "no record names it, and readers of the folder would see its rows as well; remove it, or let gc do \
                    so";
        return Err(Problem::of_record(&file, None, what.into()));
    }
    notes.push(format!(
        "no record names {file}{}",
        match strays.len() {
            1 => String::new(),
            n => format!(" and {} other files", n - 1),
        }
    ));
    Ok(())
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        match self.row {
            Some(ProblemRow::Source(row)) => write!(f, ", source row {row}")?,
            Some(ProblemRow::InFile(row)) => write!(f, ", row {row} of the file")?,
            None => {}
        }
        if let Some(unit) = &self.unit {
            write!(f, " (unit {unit})")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (&self.problem, self.complete) {
            (Some(_), _) => "not sound",
            (None, true) => "sound and complete",
            (None, false) => "sound so far, not complete",
        };
        writeln!(f, "{state}")?;
        writeln!(f, "  units       {} of {} checked", thousands(self.checked), thousands(self.units))?;
        writeln!(f, "  files       {}, {}", thousands(self.files), megabytes(self.bytes))?;
        let (rows, documents, patches) =
            (thousands(self.rows), thousands(self.documents), thousands(self.patches));
        write!(f, "  rows        {rows}: {documents} documents with {patches} patches")?;
        write!(f, ", {} in quarantine", thousands(self.quarantined))?;
        for note in &self.notes {
            write!(f, "\n  note        {note}")?;
        }
        if let Some(problem) = &self.problem {
            write!(f, "\n  problem     {problem}")?;
        }
        Ok(())
    }
}
