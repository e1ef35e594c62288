//! The output folder: opening it for a plan, committing units, and closing it with a manifest. Knows
//! nothing of how files are encoded.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Attempt, Claims, CommitRecord, Counts, EncodedUnit, FailureRecord, Ledger, Liveness, Manifest,
    PlanRecord, SinkError,
    admission::{refuse_other_plan, refuse_unfinished_absent},
    claims::{forget_the_dead, host, now, read_claims},
    files::{create_folder, list, remove_if_there, sync_folder},
    garbage::{self, garbage},
    ledger::{commit_path, plan_path, read_plan, read_unit, record_name},
    lock::Lock,
};
use crate::{
    data::UnitId,
    fault,
    schema::{SCHEMA_VERSION, Table},
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

/// A local output folder that belongs to one plan.
#[derive(Debug)]
pub struct Output {
    root: PathBuf,
    fingerprint: String,
    repairs: bool,
    attempt: Arc<Attempt>,
    /// Held while units may be superseded: nobody removes what no record names as long as it is.
    lock: Lock,
}

/// How long whoever would finish an output waits for others that are about to.
const FINISH_PATIENCE: Duration = Duration::from_secs(10);

/// The plan of the output in folder `root`, if there is one. Shards keep the place they have in it.
///
/// # Errors
/// [`SinkError::Refused`] when it cannot be read as a plan; [`SinkError::Io`].
pub fn planned(root: &Path) -> Result<Option<PlanRecord>, SinkError> {
    refuse_file(root)?;
    let plan = read_plan(root).map_err(|error| refusal(root, error))?;
    Ok(plan.map(|(_, plan)| plan))
}

/// Checks that an output may be opened, without reading its records; writes nothing.
///
/// # Errors
/// As [`Output::open`].
pub fn admit(root: &Path, opening: Opening<'_>) -> Result<(), SinkError> {
    if opening.start == Start::Fresh {
        return refuse_file(root);
    }
    match planned(root)? {
        None => refuse_foreign_folder(root),
        Some(existing) => {
            refuse_other_plan(root, &existing, opening)?;
            refuse_unfinished_absent(root, opening)
        }
    }
    .map_err(|error| refusal(root, error))
}

/// Names of the units that have a record in folder `root`, readable or not.
///
/// # Errors
/// [`SinkError::Io`].
pub fn recorded_units(root: &Path) -> Result<BTreeSet<String>, SinkError> {
    let records = list(&root.join("_blt/commits"))?;
    Ok(records.iter().filter_map(|path| record_name(path)).map(|(name, _)| name).collect())
}

/// Bytes of all files of the output in folder `root`, those that count and others.
///
/// # Errors
/// [`SinkError::Io`].
pub fn stored_bytes(root: &Path) -> Result<u64, SinkError> {
    let files = garbage::listing(root)?;
    Ok(files.iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum())
}

/// How far the output in folder `root` is, in words; writes nothing.
///
/// # Errors
/// As [`Output::open`].
pub fn inspect(root: &Path, opening: Opening<'_>) -> Result<String, SinkError> {
    refuse_file(root)?;
    let inspect = || {
        let ledger = match (Ledger::read(root), opening.start) {
            (Err(SinkError::Refused(_)), Start::Fresh) => return Ok("cannot be read, to be deleted".into()),
            (ledger, _) => ledger?,
        };
        let Some(ledger) = ledger else {
            refuse_foreign_folder(root)?;
            return Ok("new".into());
        };
        let n_committed = ledger.committed.len();
        if opening.start == Start::Fresh {
            return Ok(format!("{n_committed} committed units, to be deleted"));
        }
        refuse_other_plan(root, &ledger.plan, opening)?;
        refuse_unfinished_absent(root, opening)?;
        let units: u64 = opening.plan.shards.iter().map(|s| u64::from(s.units)).sum();
        let is_the_same = ledger.plan.shards.len() == opening.plan.shards.len();
        Ok(match ledger.is_finished() && is_the_same {
            true => "finished".into(),
            false => format!("{n_committed} of {units} units committed"),
        })
    };
    inspect().map_err(|error| refusal(root, error))
}

impl Output {
    /// Opens the folder `root`, creating it when it is not there.
    ///
    /// # Errors
    /// [`SinkError::Refused`] when the folder holds the work of another plan, naming each difference,
    /// or files that are no output; [`SinkError::Raced`] when another process extended it at the same moment;
    /// [`SinkError::Io`] when it cannot be read or written.
    pub fn open(root: &Path, opening: Opening<'_>) -> Result<Output, SinkError> {
        refuse_file(root)?;
        let open = || {
            if opening.start == Start::Fresh {
                delete(root)?;
            }
            Self::open_folder(root, opening)
        };
        open().map_err(|error| refusal(root, error))
    }

    fn open_folder(root: &Path, opening: Opening<'_>) -> Result<Output, SinkError> {
        let attempt = Arc::new(Attempt::new());
        let plan = opening.plan;
        let existing = read_plan(root)?;
        if existing.is_none() {
            refuse_foreign_folder(root)?;
        }
        // Some may be missing from an output that was being deleted.
        for folder in ["_blt/commits", "_blt/failed", "_blt/claims"] {
            create_folder(&root.join(folder))?;
        }
        let mut lock = Lock::open(root)?;
        let repairs = opening.start == Start::Repair;
        if repairs {
            lock.share()?;
            lock.refuse_missing(root)?;
        }
        let (path, next) = match &existing {
            None => (plan_path(root, 0), plan.clone()),
            Some((revision, existing)) => {
                refuse_other_plan(root, existing, opening)?;
                refuse_unfinished_absent(root, opening)?;
                let mut next = plan.clone();
                next.earlier = existing.earlier.clone();
                let replaced = existing.fingerprint()?;
                if replaced != plan.fingerprint()? && !next.earlier.contains(&replaced) {
                    next.earlier.push(replaced);
                }
                // Shards are new, or could not be read before, or longer documents are taken.
                (plan_path(root, revision + 1), next)
            }
        };
        if existing.is_none_or(|(_, existing)| existing != next) {
            if !repairs {
                lock.share()?;
            }
            if !attempt.create_json(&path, &next, "plan::link")? {
                // Another process came first; it may have brought the same plan or another one.
                return Self::open_folder(root, opening);
            }
            if !repairs {
                lock.release()?;
            }
            sync_folder(root)?;
        }
        forget_the_dead(root)?;
        Ok(Output { root: root.into(), fingerprint: plan.fingerprint()?, repairs, attempt, lock })
    }

    /// Opens what is there, whatever its plan, to finish it.
    ///
    /// # Errors
    /// [`SinkError::Refused`] when there is no output; [`SinkError::Io`].
    pub fn open_existing(root: &Path) -> Result<Output, SinkError> {
        let plan = planned(root)?.ok_or_else(|| no_output(root))?;
        Ok(Output {
            root: root.into(),
            fingerprint: plan.fingerprint()?,
            repairs: false,
            attempt: Arc::new(Attempt::new()),
            lock: Lock::open(root)?,
        })
    }

    /// Names this process's temporary files.
    pub fn attempt(&self) -> Arc<Attempt> {
        self.attempt.clone()
    }

    /// Where this process says what it is at; `share` is its share of the units.
    pub fn claims(&self, share: Option<String>) -> Claims {
        Claims::new(&self.root, self.attempt.clone(), share)
    }

    /// Everything that is recorded.
    ///
    /// # Errors
    /// As [`Ledger::read`].
    pub fn ledger(&self) -> Result<Ledger, SinkError> {
        Ledger::read(&self.root)?.ok_or_else(|| no_output(&self.root))
    }

    /// Gives the files of `unit` their final names and creates its commit record, unless another attempt has
    /// committed the unit before: then that one's work stands and this one's is removed. A repair takes the
    /// place of the record that stands, unless it would say the same.
    ///
    /// # Errors
    /// [`SinkError::Io`]; the unit is not committed then.
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
        let (next, standing) = read_unit(&self.root, &record.unit)?;
        if let Some(standing) = &standing
            && (!self.repairs || standing.files == record.files)
        {
            unit.discard();
            return Ok(Committed { record: standing.clone(), superseded: None, ours: false });
        }
        let mut renamed = Vec::new();
        let published = self.publish(&unit, &mut renamed).and_then(|()| {
            self.attempt.create_json(&commit_path(&self.root, &record.unit, next), &record, "commit::link")
        });
        if let Ok(true) = published {
            fault::point("commit::after_record").map_err(SinkError::io(&self.root))?;
            remove_if_there(&self.failure_path(&record.unit))?;
            return Ok(Committed { record, superseded: standing, ours: true });
        }
        unit.discard();
        // Whoever finishes the output removes what no record names, also from under an attempt that is still
        // at work: then there is a record by now.
        match (read_unit(&self.root, &record.unit)?.1, published) {
            (Some(winner), Ok(_)) => {
                // A repair leaves that to whoever finishes the output: a later record may name them.
                let lost = |path: &&String| !self.repairs && winner.files.iter().all(|f| f.path != **path);
                for path in renamed.iter().filter(lost) {
                    remove_if_there(&self.root.join(path))?;
                }
                Ok(Committed { record: winner, superseded: None, ours: false })
            }
            (Some(winner), Err(_)) if !self.repairs => {
                Ok(Committed { record: winner, superseded: None, ours: false })
            }
            (_, Err(error)) => Err(error),
            (None, Ok(_)) => Err(SinkError::Refused(format!(
                "the record of unit {} in {} vanished while it was read",
                record.unit,
                self.root.display()
            ))),
        }
    }

    /// Gives the files their final names; `renamed` tells which got theirs, by path below the root.
    fn publish(&self, unit: &EncodedUnit, renamed: &mut Vec<String>) -> Result<(), SinkError> {
        for (temporary, file) in &unit.files {
            let path = self.root.join(&file.path);
            fault::point("commit::rename")
                .and_then(|()| fs::rename(temporary, &path))
                .map_err(SinkError::io(&path))?;
            renamed.push(file.path.clone());
        }
        for table in unit.files.iter().map(|(_, file)| &file.table) {
            sync_folder(&self.root.join(table))?;
        }
        fault::point("commit::before_record").map_err(SinkError::io(&self.root))?;
        // Whoever starts over takes the files from under an attempt that is paused here.
        for path in renamed.iter().map(|path| self.root.join(path)) {
            path.metadata().map_err(SinkError::io(&path))?;
        }
        Ok(())
    }

    /// Whether a record says that the unit is committed.
    ///
    /// # Errors
    /// [`SinkError::Io`].
    pub fn is_committed(&self, unit: UnitId) -> Result<bool, SinkError> {
        let name = unit.to_string();
        // Nearly always there is none, and nothing to read.
        Ok(commit_path(&self.root, &name, 0).exists() && read_unit(&self.root, &name)?.1.is_some())
    }

    fn failure_path(&self, name: &str) -> PathBuf {
        self.root.join("_blt/failed").join(format!("{name}.json"))
    }

    /// Records that a unit, or a shard as a whole, could not be done.
    ///
    /// # Errors
    /// [`SinkError::Io`].
    pub fn record_failure(&self, failure: &FailureRecord) -> Result<(), SinkError> {
        self.attempt.replace_json(&self.failure_path(&failure.unit), failure, "failure::rename")
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
            // Whoever committed the last unit meanwhile may have given up waiting.
            match finish? {
                Finish::Left { units: 1.., .. } if self.is_recorded()? => {}
                finish => return Ok(finish),
            }
        }
    }

    /// Whether every unit of the plan has a record by its name, so that reading them all may be worth while.
    fn is_recorded(&self) -> Result<bool, SinkError> {
        let Some((_, plan)) = read_plan(&self.root)? else { return Ok(false) };
        let units: u64 = plan.shards.iter().map(|s| u64::from(s.units)).sum();
        let readable = plan.shards.iter().all(|shard| !shard.unreadable);
        // A record may be damaged: then looking again would find the same.
        Ok(readable && recorded_units(&self.root)?.len() as u64 >= units && self.ledger()?.is_complete())
    }

    fn finalize_alone(&self) -> Result<Finish, SinkError> {
        let listing = garbage::listing(&self.root)?;
        let ledger = self.ledger()?;
        if !ledger.is_complete() {
            return Ok(Finish::Left { units: ledger.n_left(), counts: ledger.counts() });
        }
        let files = ledger.files();
        let listed: BTreeSet<&Path> = listing.iter().map(PathBuf::as_path).collect();
        for file in &files {
            let path = self.root.join(&file.path);
            // What was committed after the listing is not in it.
            if !listed.contains(path.as_path()) && !path.is_file() {
                let repair = if ledger.damaged.is_empty() { "" } else { ", run --only-quarantined" };
                return Err(SinkError::Refused(format!(
                    "{} is gone, but a commit record names it; restore it{repair}, or start over with run --fresh",
                    path.display()
                )));
            }
        }
        let manifest = manifest(&ledger, files);
        let garbage = garbage(&self.root, &listing, &ledger);
        let path = self.root.join("_blt/manifest.json");
        if ledger.manifest.as_ref().is_some_and(|old| {
            let doomed: BTreeSet<&Path> = garbage.iter().map(|g| g.path.as_path()).collect();
            old.files.iter().any(|file| doomed.contains(self.root.join(&file.path).as_path()))
        }) {
            // A manifest must not name what is being removed.
            remove_if_there(&path)?;
        }
        fault::point("finalize::before_garbage").map_err(SinkError::io(&self.root))?;
        garbage::remove(&garbage)?;
        if !self.repairs {
            // Nothing failed in the end.
            for failure in list(&self.root.join("_blt/failed"))?.iter().filter(|path| path.is_file()) {
                remove_if_there(failure)?;
            }
        }
        forget_the_dead(&self.root)?;
        fault::point("finalize::before_manifest").map_err(SinkError::io(&self.root))?;
        if ledger.manifest.as_ref() != Some(&manifest) || !path.is_file() {
            self.attempt.replace_json(&path, &manifest, "manifest::rename")?;
        }
        fault::point("finalize::after_manifest").map_err(SinkError::io(&self.root))?;
        Ok(Finish::Done { counts: manifest.counts })
    }

    /// Removes what [`collect`](super::collect) says may go, as no attempt can need it; returns all that was
    /// found.
    ///
    /// # Errors
    /// [`SinkError::Refused`] while a process is at work on the output; [`SinkError::Io`].
    pub fn remove_garbage(&mut self) -> Result<Vec<super::Garbage>, SinkError> {
        refuse_others_at_work(&self.root)?;
        if !self.lock.take_alone(Duration::ZERO)? {
            return Err(SinkError::Refused(format!(
                "another process repairs or finishes {}; wait for it",
                self.root.display()
            )));
        }
        let found = super::collect(&self.root)?;
        garbage::remove(&found)?;
        forget_the_dead(&self.root)?;
        self.lock.release()?;
        Ok(found)
    }

    /// Removes this process's temporary files: units in flight are dropped. Errors are of no interest, since what
    /// stays is removed when the output is finished.
    pub fn withdraw(&self) {
        let listing = garbage::listing(&self.root).unwrap_or_default();
        for path in listing.iter().filter(|path| self.attempt.owns(path)) {
            let _ = remove_if_there(path);
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
fn delete(root: &Path) -> Result<(), SinkError> {
    let lies_there = root.join("_blt").is_dir();
    if !lies_there {
        return refuse_foreign_folder(root);
    }
    refuse_others_at_work(root)?;
    let mut lock = Lock::open(root)?;
    if !lock.take_alone(Duration::ZERO)? {
        return Err(SinkError::Refused(format!(
            "another process is at work on {}; wait for it",
            root.display()
        )));
    }
    remove_if_there(&root.join("_blt/manifest.json"))?;
    for folder in
        ["_blt/commits", "_blt/failed", "_blt/claims"].into_iter().chain(Table::ALL.map(|t| t.name()))
    {
        let folder = root.join(folder);
        let is_record = folder.parent().is_some_and(|parent| parent.ends_with("_blt"));
        for path in list(&folder)?.iter().filter(|path| is_record || garbage::is_ours(path)) {
            remove_if_there(path)?;
            fault::point("fresh::deleting").map_err(SinkError::io(root))?;
        }
        match fs::remove_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                return Err(SinkError::Refused(format!(
                    "{} holds files that blt-pipeline did not write; move them elsewhere",
                    folder.display()
                )));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SinkError::Io { path: folder, error });
            }
            _ => sync_folder(root)?,
        }
    }
    // Revisions of the plan before the plan itself.
    let mut rest = list(&root.join("_blt"))?;
    rest.sort_by_key(|path| path.ends_with("plan.json"));
    for path in rest.iter().filter(|path| !path.is_dir() && !path.ends_with("lock")) {
        remove_if_there(path)?;
    }
    sync_folder(&root.join("_blt"))
}

/// Refuses when another process says that it is at work in `root`.
fn refuse_others_at_work(root: &Path) -> Result<(), SinkError> {
    let (host, now) = (host(), now());
    // Who is silent on this host may be paused, and go on.
    let alive = |claim: &super::Claim| match claim.liveness(&host, now) {
        Liveness::Alive => true,
        Liveness::Silent(_) => claim.host == host,
        Liveness::Dead => false,
    };
    match read_claims(root)?.into_iter().find(|(_, claim)| alive(claim)) {
        None => Ok(()),
        Some((_, claim)) => Err(SinkError::Refused(format!(
            "process {} on {} is at work on {}; stop it first",
            claim.process,
            claim.host,
            root.display()
        ))),
    }
}

pub(super) fn no_output(root: &Path) -> SinkError {
    SinkError::Refused(format!("{} is no output of blt-pipeline: it has no _blt/plan.json", root.display()))
}

/// A failure of the storage that waiting does not cure speaks against the folder.
fn refusal(root: &Path, error: SinkError) -> SinkError {
    use io::ErrorKind::{NotADirectory, PermissionDenied, Unsupported};
    match error {
        SinkError::Io { path, error }
            if matches!(error.kind(), NotADirectory | PermissionDenied | Unsupported) =>
        {
            let (root, path) = (root.display(), path.display());
            SinkError::Refused(format!("sink.uri: {root} cannot be an output: {path}: {error}"))
        }
        other => other,
    }
}

fn refuse_file(root: &Path) -> Result<(), SinkError> {
    if root.exists() && !root.is_dir() {
        return Err(SinkError::Refused(format!("sink.uri: {} is a file, not a folder", root.display())));
    }
    Ok(())
}

/// A folder with files of its own is not an output: what lies there is not ours to mix with.
fn refuse_foreign_folder(root: &Path) -> Result<(), SinkError> {
    let foreign = list(root)?.into_iter().find(|path| !path.ends_with("_blt"));
    match foreign {
        None => Ok(()),
        Some(path) => Err(SinkError::Refused(format!(
            "sink.uri: {} is not empty and no output of blt-pipeline (it holds {}); name another folder",
            root.display(),
            path.file_name().unwrap_or_default().display()
        ))),
    }
}
