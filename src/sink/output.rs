//! The output: opening it for a plan, committing units, and closing it with a manifest. Knows
//! nothing of how files are encoded.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use super::{
    Attempt, Claims, CommitRecord, Counts, EncodedUnit, Encoder, FailureRecord, Ledger, Liveness, Manifest,
    PlanRecord, SinkError, Storage,
    admission::{refuse_other_plan, refuse_unfinished_absent},
    claims::{forget_the_dead, host, now, read_claims},
    files::free_bytes,
    garbage::{self, garbage},
    ledger::{commit_path, plan_path, read_plan, read_unit, record_name},
    lock::{Lock, no_locks},
    spool::{self, Spool},
};
use crate::{
    data::UnitId,
    fault,
    remote::RemoteError,
    schema::{SCHEMA_VERSION, Table, TableOptions},
};

/// What a run does with an output that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Does what is not committed yet.
    #[default]
    Resume,
    /// The same, and takes in shards that the output does not have yet.
    Extend,
    /// Does the units with rows in quarantine once more; `limits.max_document_bytes` may have grown.
    Repair,
    /// Deletes it first.
    Fresh,
}

/// What a run brings to an output.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// Its plan.
    pub plan: &'a PlanRecord,
    /// Shards of the output that the source no longer has.
    pub absent: &'a [String],
    /// What to do with work that is there.
    pub start: Start,
}

/// A unit that is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The record that stands.
    pub record: CommitRecord,
    /// The record that it took the place of.
    pub superseded: Option<CommitRecord>,
    /// Whether this attempt made it.
    pub ours: bool,
}

/// How an attempt to finish an output ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finish {
    /// The manifest says what the records say, and nothing else lies in the tables.
    Done {
        /// What the output holds.
        counts: Counts,
    },
    /// Something is left to do.
    Left {
        /// Units that are not committed, and shards that could not be read.
        units: u64,
        /// What the output holds.
        counts: Counts,
    },
    /// Another process repairs or finishes it; the last one does it.
    Busy,
}

/// An output that belongs to one plan.
#[derive(Debug)]
pub struct Output {
    storage: Storage,
    fingerprint: String,
    repairs: bool,
    attempt: Arc<Attempt>,
    /// Failures that were recorded in a store when it was opened: no other is looked for there in vain.
    failures: BTreeSet<PathBuf>,
    /// Held while units may be superseded: nobody removes what no record names as long as it is.
    lock: Lock,
}

/// How long whoever would finish an output waits for others that are about to.
const FINISH_PATIENCE: Duration = Duration::from_secs(10);

/// The plan of the output in `storage`, if there is one. Shards keep the place they have in it.
///
/// # Errors
/// [`SinkError::Refused`] when it cannot be read as a plan; when the storage fails.
pub fn planned(storage: &Storage) -> Result<Option<PlanRecord>, SinkError> {
    refuse_file(storage)?;
    let plan = read_plan(storage).map_err(|error| refusal(storage, error))?;
    Ok(plan.map(|(_, plan)| plan))
}

/// Checks that an output may be opened, without reading its records; writes nothing.
///
/// # Errors
/// As [`Output::open`].
pub fn admit(storage: &Storage, opening: Opening<'_>) -> Result<(), SinkError> {
    match opening.start {
        Start::Fresh => return refuse_file(storage),
        Start::Repair if !storage.is_local() => return Err(no_locks(storage)),
        _ => {}
    }
    match planned(storage)? {
        None => refuse_foreign_folder(storage),
        Some(existing) => {
            refuse_other_plan(storage, &existing, opening)?;
            refuse_unfinished_absent(storage, opening)
        }
    }
    .map_err(|error| refusal(storage, error))
}

/// Names of the units that have a record in `storage`, readable or not.
///
/// # Errors
/// When the storage fails.
pub fn recorded_units(storage: &Storage) -> Result<BTreeSet<String>, SinkError> {
    let records = storage.list(&storage.join("_blt/commits"))?;
    Ok(records.iter().filter_map(|path| record_name(path)).map(|(name, _)| name).collect())
}

/// The local disk that an output in `storage` needs room on.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// A folder of it.
    pub folder: PathBuf,
    /// Bytes that may be written to it, those of the output that is deleted first included.
    pub free: u64,
    /// Whether the output stays there, not only units on their way to a store.
    pub is_output: bool,
}

/// Room for an output in `storage`, which is deleted first if `fresh`.
///
/// # Errors
/// [`SinkError::Io`].
pub fn space(storage: &Storage, fresh: bool) -> Result<Space, SinkError> {
    if !storage.is_local() {
        return Ok(Space { folder: spool::root(), free: Spool::free_bytes()?, is_output: false });
    }
    let deleted = if fresh { garbage::listing(storage)? } else { Vec::new() };
    let freed: u64 = deleted.iter().filter_map(|path| path.metadata().ok()).map(|m| m.len()).sum();
    let free = free_bytes(storage.root())?.saturating_add(freed);
    Ok(Space { folder: storage.root().into(), free, is_output: true })
}

/// How far the output in `storage` is, in words; writes nothing.
///
/// # Errors
/// As [`Output::open`].
pub fn inspect(storage: &Storage, opening: Opening<'_>) -> Result<String, SinkError> {
    refuse_file(storage)?;
    let inspect = || {
        let ledger = match (Ledger::read(storage), opening.start) {
            (Err(SinkError::Refused(_)), Start::Fresh) => return Ok("cannot be read, to be deleted".into()),
            (ledger, _) => ledger?,
        };
        let Some(ledger) = ledger else {
            refuse_foreign_folder(storage)?;
            return Ok("new".into());
        };
        let n_committed = ledger.committed.len();
        if opening.start == Start::Fresh {
            return Ok(format!("{n_committed} committed units, to be deleted"));
        }
        refuse_other_plan(storage, &ledger.plan, opening)?;
        refuse_unfinished_absent(storage, opening)?;
        let units: u64 = opening.plan.shards.iter().map(|s| u64::from(s.units)).sum();
        let is_the_same = ledger.plan.shards.len() == opening.plan.shards.len();
        Ok(match ledger.is_finished() && is_the_same {
            true => "finished".into(),
            false => format!("{n_committed} of {units} units committed"),
        })
    };
    inspect().map_err(|error| refusal(storage, error))
}

impl Output {
    /// Opens the output in `storage`, creating it when it is not there.
    ///
    /// # Errors
    /// [`SinkError::Refused`] when the folder holds the work of another plan, naming each difference,
    /// or files that are no output; [`SinkError::Raced`] when another process extended it at the same moment;
    /// [`SinkError::Io`] and [`SinkError::Remote`] when it cannot be read or written.
    pub fn open(storage: &Storage, opening: Opening<'_>) -> Result<Output, SinkError> {
        refuse_file(storage)?;
        let open = || {
            if opening.start == Start::Fresh {
                delete(storage)?;
            }
            Self::open_folder(storage, opening)
        };
        open().map_err(|error| refusal(storage, error))
    }

    fn open_folder(storage: &Storage, opening: Opening<'_>) -> Result<Output, SinkError> {
        let attempt = Arc::new(Attempt::new());
        let plan = opening.plan;
        let existing = read_plan(storage)?;
        if existing.is_none() {
            refuse_foreign_folder(storage)?;
        }
        // Some may be missing from an output that was being deleted.
        for folder in ["_blt/commits", "_blt/failed", "_blt/claims"] {
            storage.create_folder(&storage.join(folder))?;
        }
        let mut lock = Lock::open(storage)?;
        let repairs = opening.start == Start::Repair;
        if repairs {
            lock.share()?;
            lock.refuse_missing(storage)?;
        }
        let (path, next) = match &existing {
            None => (plan_path(storage, 0), plan.clone()),
            Some((revision, existing)) => {
                refuse_other_plan(storage, existing, opening)?;
                refuse_unfinished_absent(storage, opening)?;
                let mut next = plan.clone();
                next.earlier = existing.earlier.clone();
                let replaced = existing.fingerprint()?;
                if replaced != plan.fingerprint()? && !next.earlier.contains(&replaced) {
                    next.earlier.push(replaced);
                }
                // Shards are new, or could not be read before, or longer documents are taken.
                (plan_path(storage, revision + 1), next)
            }
        };
        if existing.is_none_or(|(_, existing)| existing != next) {
            if !repairs {
                lock.share()?;
            }
            if !storage.create_json(&attempt, &path, &next, "plan::link")? {
                // Another process came first; it may have brought the same plan or another one.
                return Self::open_folder(storage, opening);
            }
            if !repairs {
                lock.release()?;
            }
            storage.sync_folder(storage.root())?;
        }
        storage.refuse_unconditional(&plan_path(storage, 0))?;
        forget_the_dead(storage, &attempt)?;
        let mut failures = BTreeSet::new();
        if !storage.is_local() {
            spool::sweep();
            failures.extend(storage.list(&storage.join("_blt/failed"))?);
        }
        let fingerprint = plan.fingerprint()?;
        Ok(Output { storage: storage.clone(), fingerprint, repairs, attempt, failures, lock })
    }

    /// Opens what is there, whatever its plan, to finish it.
    ///
    /// # Errors
    /// [`SinkError::Refused`] when there is no output; when the storage fails.
    pub fn open_existing(storage: &Storage) -> Result<Output, SinkError> {
        let plan = planned(storage)?.ok_or_else(|| no_output(storage))?;
        Ok(Output {
            storage: storage.clone(),
            fingerprint: plan.fingerprint()?,
            repairs: false,
            attempt: Arc::new(Attempt::new()),
            failures: BTreeSet::new(),
            lock: Lock::open(storage)?,
        })
    }

    /// Writes the tables of its units. `zstd` is the level of compression, `None` for none.
    ///
    /// # Errors
    /// [`SinkError::Encode`] when there is no such level; [`SinkError::Io`] when there is no place for temporary files.
    pub fn encoder(&self, options: TableOptions, zstd: Option<i32>) -> Result<Encoder, SinkError> {
        Encoder::new(&self.storage, options, zstd, self.attempt.clone())
    }

    /// Whether it lies in a folder of a file system.
    pub fn is_local(&self) -> bool {
        self.storage.is_local()
    }

    /// Where this process says what it is at; `share` is its share of the units.
    pub fn claims(&self, share: Option<String>) -> Claims {
        Claims::new(&self.storage, self.attempt.clone(), share)
    }

    /// Everything that is recorded.
    ///
    /// # Errors
    /// As [`Ledger::read`].
    pub fn ledger(&self) -> Result<Ledger, SinkError> {
        Ledger::read(&self.storage)?.ok_or_else(|| no_output(&self.storage))
    }

    /// Gives the files of `unit` their final names and creates its commit record, unless another attempt has
    /// committed the unit before: then that one's work stands and this one's is removed. A repair takes the
    /// place of the record that stands, unless it would say the same.
    ///
    /// # Errors
    /// When the storage fails: the unit is not committed then, unless it is [`SinkError::Unknown`].
    pub fn commit(
        &self,
        unit: EncodedUnit,
        device_class: &str,
        batch_tokens: usize,
    ) -> Result<Committed, SinkError> {
        let record = CommitRecord {
            unit: unit.unit.id.to_string(),
            source_file: unit.unit.source_file.to_string(),
            row_start: unit.unit.rows.start,
            row_end: unit.unit.rows.end,
            content_bytes: unit.unit.content_bytes,
            counts: unit.counts,
            files: unit.files.iter().map(|(_, file)| file.clone()).collect(),
            fingerprint: self.fingerprint.clone(),
            device_class: device_class.into(),
            batch_tokens,
            seconds: unit.started.elapsed().as_secs_f64(),
        };
        match self.is_local() {
            true => self.commit_to_folder(unit, record),
            false => self.commit_to_store(record),
        }
    }

    fn commit_to_folder(&self, unit: EncodedUnit, record: CommitRecord) -> Result<Committed, SinkError> {
        let (next, standing) = read_unit(&self.storage, &record.unit)?;
        if let Some(standing) = &standing
            && (!self.repairs || standing.files == record.files)
        {
            unit.discard();
            return Ok(Committed { record: standing.clone(), superseded: None, ours: false });
        }
        let mut renamed = Vec::new();
        let path = commit_path(self.storage.root(), &record.unit, next);
        let created = self
            .publish(&unit, &mut renamed)
            .and_then(|()| self.storage.create_json(&self.attempt, &path, &record, "commit::link"));
        if let Ok(true) = created {
            fault::point("commit::after_record").map_err(SinkError::io(self.storage.root()))?;
            self.storage.remove_if_there(&self.failure_path(&record.unit))?;
            return Ok(Committed { record, superseded: standing, ours: true });
        }
        unit.discard();
        // Whoever finishes the output removes what no record names, also from under an attempt that is still
        // at work: then there is a record by now.
        match (read_unit(&self.storage, &record.unit)?.1, created) {
            (Some(winner), Ok(_)) => {
                // A repair leaves that to whoever finishes the output: a later record may name them.
                if !self.repairs {
                    self.remove_lost(&renamed, &winner)?;
                }
                Ok(Committed { record: winner, superseded: None, ours: false })
            }
            (Some(winner), Err(_)) if !self.repairs => {
                Ok(Committed { record: winner, superseded: None, ours: false })
            }
            (_, Err(error)) => Err(error),
            (None, Ok(_)) => Err(self.vanished(&record)),
        }
    }

    /// The files have their final names already. Nobody supersedes a record in a store, so that what the winner's does not
    /// name is of no use to anybody.
    fn commit_to_store(&self, record: CommitRecord) -> Result<Committed, SinkError> {
        let storage = &self.storage;
        let published: Vec<String> = record.files.iter().map(|file| file.path.clone()).collect();
        if let Err(error) = self.expect_published(&published) {
            // Whoever finished the output has removed what no record names.
            let Some(winner) = read_unit(storage, &record.unit)?.1.filter(|winner| *winner != record) else {
                return Err(error);
            };
            self.remove_lost(&published, &winner)?;
            return Ok(Committed { record: winner, superseded: None, ours: false });
        }
        // Nearly always there is no record, and to create one is to ask for it.
        let mut number = 0;
        loop {
            let path = commit_path(storage.root(), &record.unit, number);
            let created = storage.create_json(&self.attempt, &path, &record, "commit::link");
            let known = match created {
                Ok(true) => Ok((number + 1, Some(record.clone()))),
                _ => read_unit(storage, &record.unit),
            };
            match (known, created) {
                // Also where the store created it and never said so.
                (Ok((_, Some(winner))), _) if winner == record => {
                    fault::point("commit::after_record").map_err(SinkError::io(storage.root()))?;
                    // A failure that another process recorded meanwhile stays until the output is finished.
                    let failure = self.failure_path(&record.unit);
                    if self.failures.contains(&failure) {
                        storage.remove_if_there(&failure)?;
                    }
                    return Ok(Committed { record, superseded: None, ours: true });
                }
                (Ok((_, Some(winner))), _) => {
                    self.remove_lost(&published, &winner)?;
                    return Ok(Committed { record: winner, superseded: None, ours: false });
                }
                // What is there is damaged and commits nothing.
                (Ok((free, None)), Ok(_)) if free > number => number = free,
                (Ok((_, None)), Ok(_)) => return Err(self.vanished(&record)),
                // The request may arrive yet.
                (Ok((_, None)), Err(SinkError::Remote(error @ RemoteError::Failed(_))))
                | (Err(SinkError::Remote(error)), Err(SinkError::Remote(_))) => {
                    return Err(SinkError::Unknown { unit: record.unit, error });
                }
                (Ok((_, None)), Err(error)) | (Err(error), _) => return Err(error),
            }
        }
    }

    fn vanished(&self, record: &CommitRecord) -> SinkError {
        SinkError::Refused(format!(
            "the record of unit {} in {} vanished while it was read",
            record.unit,
            self.storage.root().display()
        ))
    }

    /// Removes those of the `published` files that `winner`, the record that stands, does not name.
    fn remove_lost(&self, published: &[String], winner: &CommitRecord) -> Result<(), SinkError> {
        for path in published.iter().filter(|path| winner.files.iter().all(|f| f.path != **path)) {
            self.storage.remove_if_there(&self.storage.join(path))?;
        }
        Ok(())
    }

    /// Gives the files their final names; `renamed` tells which got theirs, by path below the root.
    fn publish(&self, unit: &EncodedUnit, renamed: &mut Vec<String>) -> Result<(), SinkError> {
        for (temporary, file) in &unit.files {
            let path = self.storage.join(&file.path);
            fault::point("commit::rename").map_err(SinkError::io(&path))?;
            self.storage.publish(temporary, &path)?;
            renamed.push(file.path.clone());
        }
        for table in unit.files.iter().map(|(_, file)| &file.table) {
            self.storage.sync_folder(&self.storage.join(table))?;
        }
        self.expect_published(renamed)
    }

    /// The last step before the record: whoever starts over takes the files from under an attempt that is paused here.
    fn expect_published(&self, published: &[String]) -> Result<(), SinkError> {
        let storage = &self.storage;
        fault::point("commit::before_record").map_err(SinkError::io(storage.root()))?;
        let paths: Vec<PathBuf> = published.iter().map(|path| storage.join(path)).collect();
        let expect = |path: &Path| match storage.bytes(path)? {
            Some(_) => Ok(()),
            None => Err(SinkError::Io { path: path.into(), error: io::ErrorKind::NotFound.into() }),
        };
        storage.each(&paths, expect).map(drop)
    }

    /// Whether a record says that the unit is committed.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn is_committed(&self, unit: UnitId) -> Result<bool, SinkError> {
        let name = unit.to_string();
        // Nearly always there is none, and nothing to read.
        let is_there = self.storage.is_file(&commit_path(self.storage.root(), &name, 0))?;
        Ok(is_there && read_unit(&self.storage, &name)?.1.is_some())
    }

    fn failure_path(&self, name: &str) -> PathBuf {
        self.storage.join("_blt/failed").join(format!("{name}.json"))
    }

    /// Records that a unit, or a shard as a whole, could not be done.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn record_failure(&self, failure: &FailureRecord) -> Result<(), SinkError> {
        let path = self.failure_path(&failure.unit);
        self.storage.replace_json(&self.attempt, &path, failure, "failure::rename")
    }

    /// Removes what no record names and writes the manifest, if every unit is committed. Failures of a repair
    /// stay recorded.
    ///
    /// # Errors
    /// As [`Ledger::read`]; [`SinkError::Refused`] when a file is gone that a record names.
    pub fn finalize(&mut self) -> Result<Finish, SinkError> {
        loop {
            if !self.lock.take_alone(FINISH_PATIENCE)? {
                return Ok(Finish::Busy);
            }
            let finish = self.finalize_alone();
            self.lock.release()?;
            match finish? {
                // Whoever committed the last unit meanwhile may have given up waiting.
                Some(Finish::Left { units: 1.., .. }) if self.is_recorded()? => {}
                Some(finish) => return Ok(finish),
                None => {}
            }
        }
    }

    /// Whether every unit of the plan has a record by its name, so that reading them all may be worth while.
    fn is_recorded(&self) -> Result<bool, SinkError> {
        let Some((_, plan)) = read_plan(&self.storage)? else { return Ok(false) };
        let units: u64 = plan.shards.iter().map(|s| u64::from(s.units)).sum();
        let readable = plan.shards.iter().all(|shard| !shard.unreadable);
        // A record may be damaged: then looking again would find the same.
        Ok(readable && recorded_units(&self.storage)?.len() as u64 >= units && self.ledger()?.is_complete())
    }

    /// `None` when another process extended the output meanwhile, which no lock prevents on a store: its manifest may
    /// have been written before this one, which is to be written anew then.
    fn finalize_alone(&self) -> Result<Option<Finish>, SinkError> {
        let storage = &self.storage;
        let listing = garbage::listing(storage)?;
        let ledger = self.ledger()?;
        if !ledger.is_complete() {
            return Ok(Some(Finish::Left { units: ledger.n_left(), counts: ledger.counts() }));
        }
        let files = ledger.files();
        let listed: BTreeSet<&Path> = listing.iter().map(PathBuf::as_path).collect();
        for file in &files {
            let path = storage.join(&file.path);
            // What was committed after the listing is not in it.
            if !listed.contains(path.as_path()) && !storage.is_file(&path)? {
                let repair = if ledger.damaged.is_empty() { "" } else { ", run --only-quarantined" };
                return Err(SinkError::Refused(format!(
                    "{} is gone, but a commit record names it; restore it{repair}, or start over with run --fresh",
                    path.display()
                )));
            }
        }
        let manifest = manifest(&ledger, files);
        let garbage = garbage(storage, &listing, &ledger)?;
        let path = storage.join("_blt/manifest.json");
        if ledger.manifest.as_ref().is_some_and(|old| {
            let doomed: BTreeSet<&Path> = garbage.iter().map(|g| g.path.as_path()).collect();
            old.files.iter().any(|file| doomed.contains(storage.join(&file.path).as_path()))
        }) {
            // A manifest must not name what is being removed.
            storage.remove_if_there(&path)?;
        }
        fault::point("finalize::before_garbage").map_err(SinkError::io(storage.root()))?;
        garbage::remove(storage, &garbage)?;
        if !self.repairs {
            // Nothing failed in the end.
            for failure in storage.list(&storage.join("_blt/failed"))? {
                // On a store somebody may extend the output meanwhile, and fail.
                let is_known = |unit: &str| ledger.failed.iter().any(|failed| failed.unit == unit);
                let is_anothers =
                    !storage.is_local() && record_name(&failure).is_some_and(|(unit, _)| !is_known(&unit));
                if !storage.is_folder(&failure) && !is_anothers {
                    storage.remove_if_there(&failure)?;
                }
            }
        }
        forget_the_dead(storage, &self.attempt)?;
        fault::point("finalize::before_manifest").map_err(SinkError::io(storage.root()))?;
        if ledger.manifest.as_ref() != Some(&manifest) || !storage.is_file(&path)? {
            storage.replace_json(&self.attempt, &path, &manifest, "manifest::rename")?;
        }
        fault::point("finalize::after_manifest").map_err(SinkError::io(storage.root()))?;
        if !storage.is_local() && read_plan(storage)?.is_none_or(|(_, plan)| plan != ledger.plan) {
            return Ok(None);
        }
        Ok(Some(Finish::Done { counts: manifest.counts }))
    }

    /// Removes what [`collect`](super::collect) says may go, as no attempt can need it; returns all that was
    /// found.
    ///
    /// # Errors
    /// [`SinkError::Refused`] while a process is at work on the output; [`SinkError::Io`].
    pub fn remove_garbage(&mut self) -> Result<Vec<super::Garbage>, SinkError> {
        refuse_others_at_work(&self.storage)?;
        if !self.lock.take_alone(Duration::ZERO)? {
            return Err(SinkError::Refused(format!(
                "another process repairs or finishes {}; wait for it",
                self.storage.root().display()
            )));
        }
        let found = super::collect(&self.storage)?;
        garbage::remove(&self.storage, &found)?;
        forget_the_dead(&self.storage, &self.attempt)?;
        self.lock.release()?;
        Ok(found)
    }

    /// Removes this process's temporary files: units in flight are dropped. Errors are of no interest, since what
    /// stays is removed when the output is finished.
    pub fn withdraw(&self) {
        if !self.is_local() {
            // There are none; those that wait for the store lie elsewhere.
            return;
        }
        let listing = garbage::listing(&self.storage).unwrap_or_default();
        for path in listing.iter().filter(|path| self.attempt.owns(path)) {
            let _ = self.storage.remove_if_there(path);
        }
    }
}

fn manifest(ledger: &Ledger, files: Vec<super::FileEntry>) -> Manifest {
    let device_classes: BTreeSet<&String> = ledger.committed.values().map(|r| &r.device_class).collect();
    Manifest {
        schema_version: SCHEMA_VERSION.into(),
        fingerprint: ledger.fingerprint.clone(),
        units: ledger.n_units(),
        counts: ledger.counts(),
        device_classes: device_classes.into_iter().cloned().collect(),
        files,
    }
}

/// Deletes an output and nothing else. Records go first and the plan last: whatever is left of it after a kill is
/// an output with less committed.
fn delete(storage: &Storage) -> Result<(), SinkError> {
    if !storage.has_records()? {
        return refuse_foreign_folder(storage);
    }
    let root = storage.root();
    refuse_others_at_work(storage)?;
    let mut lock = Lock::open(storage)?;
    if !lock.take_alone(Duration::ZERO)? {
        return Err(SinkError::Refused(format!(
            "another process is at work on {}; wait for it",
            root.display()
        )));
    }
    storage.remove_if_there(&storage.join("_blt/manifest.json"))?;
    for folder in
        ["_blt/commits", "_blt/failed", "_blt/claims"].into_iter().chain(Table::ALL.map(|t| t.name()))
    {
        let folder = storage.join(folder);
        let is_record = folder.parent().is_some_and(|parent| parent.ends_with("_blt"));
        let mut doomed = storage.list(&folder)?;
        doomed.retain(|path| is_record || garbage::is_ours(path));
        storage.remove_every(&doomed, "fresh::deleting")?;
        if !storage.remove_folder(&folder)? {
            return Err(SinkError::Refused(format!(
                "{} holds files that blt-pipeline did not write; move them elsewhere",
                folder.display()
            )));
        }
        storage.sync_folder(root)?;
    }
    // Revisions of the plan before the plan itself.
    let records = storage.join("_blt");
    let mut rest = storage.list(&records)?;
    rest.sort_by_key(|path| path.ends_with("plan.json"));
    rest.retain(|path| !storage.is_folder(path) && !path.ends_with("lock"));
    for path in &rest {
        storage.remove_if_there(path)?;
    }
    storage.sync_folder(&records)
}

/// A process that is alive writes its claim more often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Refuses when another process says that it is at work in `storage`.
fn refuse_others_at_work(storage: &Storage) -> Result<(), SinkError> {
    let (host, now) = (host(), now());
    // Who is silent on this host may be paused, and go on.
    let alive = |claim: &super::Claim| match claim.liveness(&host, now) {
        Liveness::Alive => true,
        Liveness::Silent(_) => claim.host == host,
        Liveness::Dead => false,
    };
    let claims = read_claims(storage)?;
    let mut at_work = claims.iter().find(|(_, claim)| alive(claim)).cloned();
    if at_work.is_none() && !storage.is_local() && !claims.is_empty() {
        // They may be of other machines with any clock, and with this one's name. Who is alive writes meanwhile.
        tracing::info!("{} processes have left claims: waiting whether one is alive", claims.len());
        thread::sleep(SIGN_OF_LIFE);
        at_work = read_claims(storage)?.into_iter().find(|claim| !claims.contains(claim));
    }
    match at_work {
        None => Ok(()),
        Some((_, claim)) => Err(SinkError::Refused(format!(
            "process {} on {} is at work on {}; stop it first",
            claim.process,
            claim.host,
            storage.root().display()
        ))),
    }
}

pub(super) fn no_output(storage: &Storage) -> SinkError {
    let root = storage.root().display();
    SinkError::Refused(format!("{root} is no output of blt-pipeline: it has no _blt/plan.json"))
}

/// A failure of the storage that waiting does not cure speaks against the folder.
fn refusal(storage: &Storage, error: SinkError) -> SinkError {
    use io::ErrorKind::{NotADirectory, PermissionDenied, Unsupported};
    match error {
        SinkError::Io { path, error }
            if matches!(error.kind(), NotADirectory | PermissionDenied | Unsupported) =>
        {
            let (root, path) = (storage.root().display(), path.display());
            SinkError::Refused(format!("sink.uri: {root} cannot be an output: {path}: {error}"))
        }
        other => other,
    }
}

fn refuse_file(storage: &Storage) -> Result<(), SinkError> {
    let root = storage.root();
    if storage.is_local() && root.exists() && !root.is_dir() {
        return Err(SinkError::Refused(format!("sink.uri: {} is a file, not a folder", root.display())));
    }
    Ok(())
}

/// A folder with files of its own is not an output: what lies there is not ours to mix with. Where another process began
/// one since its plan was looked for, whoever goes on to create the plan finds it.
fn refuse_foreign_folder(storage: &Storage) -> Result<(), SinkError> {
    let foreign = storage.entries()?.into_iter().find(|name| name != "_blt");
    match foreign {
        None => Ok(()),
        Some(_) if storage.is_file(&plan_path(storage, 0))? => Ok(()),
        Some(name) => Err(SinkError::Refused(format!(
            "sink.uri: {} is not empty and no output of blt-pipeline (it holds {}); name another folder",
            storage.root().display(),
            name.display()
        ))),
    }
}
