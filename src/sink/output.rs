//! The output folder: opening it for a plan, committing units, and closing it with a manifest. Knows
//! nothing of how files are encoded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::{
    CommitRecord, Counts, EncodedUnit, FailureRecord, Manifest, PlanRecord, SinkError, create_folder,
    create_json, is_temporary, replace_json, sync_folder,
};
use crate::{
    data::UnitId,
    schema::{SCHEMA_VERSION, Table},
};

/// How far an output has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Records of the committed units, by name.
    pub committed: BTreeMap<String, CommitRecord>,
    /// Whether the manifest is there: nothing is left to do.
    pub finished: bool,
}

/// A unit that is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The record that stands.
    pub record: CommitRecord,
    /// Whether this attempt made it.
    pub ours: bool,
}

/// A local output folder that belongs to one plan.
#[derive(Clone, Debug)]
pub struct Output {
    root: PathBuf,
    fingerprint: String,
}

impl Output {
    /// Opens the folder `root` for `plan`, creating it when it is not there.
    ///
    /// # Errors
    /// [`SinkError::Refused`] when the folder holds the work of another plan, naming each difference,
    /// or files that are no output; [`SinkError::Io`] when it cannot be read or written.
    pub fn open(root: &Path, plan: &PlanRecord, fingerprint: &str) -> Result<Output, SinkError> {
        refuse_file(root)?;
        Self::open_folder(root, plan, fingerprint).map_err(|error| refusal(root, error))
    }

    fn open_folder(root: &Path, plan: &PlanRecord, fingerprint: &str) -> Result<Output, SinkError> {
        let path = root.join("_blt/plan.json");
        match read_json::<PlanRecord>(&path)? {
            Some(existing) => {
                refuse_other_plan(root, &existing, plan)?;
                if existing != *plan {
                    // A shard that could not be read was repaired; nothing is committed of it yet.
                    replace_json(&path, plan)?;
                }
            }
            None => {
                refuse_foreign_folder(root)?;
                for folder in ["_blt/commits", "_blt/failed"] {
                    create_folder(&root.join(folder))?;
                }
                if !create_json(&path, plan)? {
                    // Another process came first; it may have brought another plan.
                    return Self::open_folder(root, plan, fingerprint);
                }
                sync_folder(root)?;
            }
        }
        Ok(Output { root: root.into(), fingerprint: fingerprint.into() })
    }

    /// How far the output in folder `root` is, in words; writes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn inspect(root: &Path, plan: &PlanRecord, fingerprint: &str) -> Result<String, SinkError> {
        refuse_file(root)?;
        Self::inspect_folder(root, plan, fingerprint).map_err(|error| refusal(root, error))
    }

    fn inspect_folder(root: &Path, plan: &PlanRecord, fingerprint: &str) -> Result<String, SinkError> {
        let Some(existing) = read_json::<PlanRecord>(&root.join("_blt/plan.json"))? else {
            refuse_foreign_folder(root)?;
            return Ok("new".into());
        };
        refuse_other_plan(root, &existing, plan)?;
        let progress = Output { root: root.into(), fingerprint: fingerprint.into() }.progress()?;
        let units: u32 = plan.shards.iter().map(|s| s.units).sum();
        Ok(match progress.finished {
            true => "finished".into(),
            false => format!("{} of {units} units committed", progress.committed.len()),
        })
    }

    /// Reads which units are committed.
    ///
    /// # Errors
    /// [`SinkError::Refused`] when a record makes no sense, [`SinkError::Io`] when one cannot be read.
    pub fn progress(&self) -> Result<Progress, SinkError> {
        let mut progress = Progress::default();
        for path in self.records("commits")? {
            if let Some(record) = read_json::<CommitRecord>(&path)? {
                if record.fingerprint != self.fingerprint {
                    return Err(SinkError::Refused(format!(
                        "{} belongs to another plan than _blt/plan.json beside it; the output was tampered with",
                        path.display()
                    )));
                }
                progress.committed.insert(record.unit.clone(), record);
            }
        }
        progress.finished = self.root.join("_blt/manifest.json").is_file();
        Ok(progress)
    }

    fn records(&self, kind: &str) -> Result<Vec<PathBuf>, SinkError> {
        let folder = self.root.join("_blt").join(kind);
        let mut paths = Vec::new();
        for entry in list(&folder)? {
            if entry.extension().is_some_and(|e| e == "json") {
                paths.push(entry);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Gives the files of `unit` their final names and creates its commit record, unless another attempt has
    /// committed the unit before: then that one's work stands and this one's is removed.
    ///
    /// # Errors
    /// [`SinkError::Io`]; the unit is not committed then.
    pub fn commit(
        &self,
        unit: EncodedUnit,
        device_class: &str,
        batch_tokens: usize,
    ) -> Result<Committed, SinkError> {
        let id = unit.unit.id.to_string();
        let path = self.record_path("commits", &id);
        let record = CommitRecord {
            unit: id,
            source_file: unit.unit.source_file.to_string(),
            row_start: unit.unit.rows.start,
            row_end: unit.unit.rows.end,
            counts: unit.counts,
            files: unit.files.iter().map(|(_, file)| file.clone()).collect(),
            fingerprint: self.fingerprint.clone(),
            device_class: device_class.into(),
            batch_tokens,
            seconds: unit.started.elapsed().as_secs_f64(),
        };
        let published = match read_json::<CommitRecord>(&path)? {
            Some(_) => Ok(false),
            None => self.publish(&unit, &record, &path),
        };
        if let Ok(true) = published {
            remove_if_there(&self.record_path("failed", &record.unit))?;
            return Ok(Committed { record, ours: true });
        }
        unit.discard();
        // Whoever finishes the output removes what no record names, also from under an attempt that is still
        // at work: then there is a record by now.
        match (read_json::<CommitRecord>(&path)?, published) {
            (Some(winner), _) => {
                for file in record.files.iter().filter(|file| !winner.files.contains(file)) {
                    remove_if_there(&self.root.join(&file.path))?;
                }
                Ok(Committed { record: winner, ours: false })
            }
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => {
                Err(SinkError::Refused(format!("{} vanished while it was read", path.display())))
            }
        }
    }

    /// Whether the record could be created: it may be there already.
    fn publish(&self, unit: &EncodedUnit, record: &CommitRecord, path: &Path) -> Result<bool, SinkError> {
        for (temporary, file) in &unit.files {
            let path = self.root.join(&file.path);
            fs::rename(temporary, &path).map_err(SinkError::io(&path))?;
        }
        for table in unit.files.iter().map(|(_, file)| &file.table) {
            sync_folder(&self.root.join(table))?;
        }
        create_json(path, record)
    }

    /// Whether the unit has a commit record.
    pub fn is_committed(&self, unit: UnitId) -> bool {
        self.record_path("commits", &unit.to_string()).is_file()
    }

    fn record_path(&self, kind: &str, name: &str) -> PathBuf {
        self.root.join("_blt").join(kind).join(format!("{name}.json"))
    }

    /// Records that a unit, or a shard as a whole, could not be done.
    ///
    /// # Errors
    /// [`SinkError::Io`].
    pub fn record_failure(&self, failure: &FailureRecord) -> Result<(), SinkError> {
        replace_json(&self.record_path("failed", &failure.unit), failure)
    }

    /// Writes the manifest and removes what no record names, once every one of `units` is committed;
    /// tells whether they are.
    ///
    /// # Errors
    /// As [`progress`](Self::progress).
    pub fn finalize(&self, units: impl Iterator<Item = UnitId>) -> Result<bool, SinkError> {
        let committed = self.progress()?.committed;
        let (mut counts, mut n_units) = (Counts::default(), 0);
        let mut files = Vec::new();
        let mut device_classes = BTreeSet::new();
        for unit in units {
            let Some(record) = committed.get(&unit.to_string()) else {
                return Ok(false);
            };
            counts.add(&record.counts);
            files.extend(record.files.iter().cloned());
            device_classes.insert(record.device_class.clone());
            n_units += 1;
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        self.collect_garbage(&files.iter().map(|f| self.root.join(&f.path)).collect())?;
        let manifest = Manifest {
            schema_version: SCHEMA_VERSION.into(),
            fingerprint: self.fingerprint.clone(),
            units: n_units,
            counts,
            device_classes: device_classes.into_iter().collect(),
            files,
        };
        replace_json(&self.root.join("_blt/manifest.json"), &manifest)?;
        Ok(true)
    }

    /// Every unit has its record, so an attempt that is still at work has lost already.
    fn collect_garbage(&self, named: &BTreeSet<PathBuf>) -> Result<(), SinkError> {
        for table in Table::ALL {
            for path in list(&self.root.join(table.name()))? {
                if !named.contains(&path) {
                    remove_if_there(&path)?;
                }
            }
        }
        // Not those in `_blt` itself: another process may be writing its manifest there.
        for folder in ["_blt/commits", "_blt/failed"] {
            for path in list(&self.root.join(folder))? {
                // Nothing failed in the end.
                if is_temporary(&path) || folder == "_blt/failed" {
                    remove_if_there(&path)?;
                }
            }
        }
        Ok(())
    }
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

fn refuse_other_plan(root: &Path, existing: &PlanRecord, plan: &PlanRecord) -> Result<(), SinkError> {
    let differences = differences(existing, plan);
    if differences.is_empty() {
        return Ok(());
    }
    Err(SinkError::Refused(format!(
        "{} holds the output of another plan: {}; give this plan a folder of its own (sink.uri or --output), or \
         delete that one first",
        root.display(),
        differences.join("; ")
    )))
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

fn differences(old: &PlanRecord, new: &PlanRecord) -> Vec<String> {
    const SHOWN: usize = 8;
    let mut found = Vec::new();
    if old.schema_version != new.schema_version {
        found.push(format!("the schema version was {}, now {}", old.schema_version, new.schema_version));
    }
    let keys: BTreeSet<&String> = old.meaning.keys().chain(new.meaning.keys()).collect();
    let show = |value: Option<&serde_json::Value>| value.map_or("absent".into(), |v| v.to_string());
    for key in keys {
        let (was, is) = (old.meaning.get(key), new.meaning.get(key));
        if was != is {
            found.push(format!("{key} was {}, now {}", show(was), show(is)));
        }
    }
    let by_name = |plan: &PlanRecord| -> BTreeMap<String, super::ShardEntry> {
        plan.shards.iter().map(|s| (s.source_file.clone(), s.clone())).collect()
    };
    let (was, is) = (by_name(old), by_name(new));
    for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
        match (was.get(name), is.get(name)) {
            (Some(_), None) => found.push(format!("shard {name} is gone")),
            (None, Some(_)) => found.push(format!("shard {name} is new")),
            (Some(a), Some(_)) if a.unreadable => {}
            (Some(a), Some(b)) if (a.bytes, &a.footer_sha256) != (b.bytes, &b.footer_sha256) => {
                found.push(format!("shard {name} changed ({} bytes, now {})", a.bytes, b.bytes));
            }
            (Some(a), Some(b)) if a != b => found.push(format!("shard {name} is cut differently")),
            _ => {}
        }
    }
    if found.len() > SHOWN {
        let more = found.len() - SHOWN;
        found.truncate(SHOWN);
        found.push(format!("and {more} more differences"));
    }
    found
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SinkError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SinkError::Io { path: path.into(), error }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        SinkError::Refused(format!("{} is not a record of blt-pipeline: {error}", path.display()))
    })
}

/// Entries of a folder; none when it is not there.
fn list(folder: &Path) -> Result<Vec<PathBuf>, SinkError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SinkError::Io { path: folder.into(), error }),
    };
    entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(SinkError::io(folder))
}

fn remove_if_there(path: &Path) -> Result<(), SinkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SinkError::Io { path: path.into(), error })
        }
        _ => Ok(()),
    }
}
