//! Everything that an output's `_blt` folder says, read at one moment. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    CommitRecord, Counts, FailureRecord, FileEntry, Manifest, PlanRecord, SinkError, Storage,
    files::temporary_of, storage::Found,
};
use crate::data::UnitId;

/// The plan, the records that count, and what else lies beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// The plan that counts.
    pub plan: PlanRecord,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Of every committed unit the record that counts, by the unit's name.
    pub committed: BTreeMap<String, CommitRecord>,
    /// Records that cannot be read, being torn, empty or edited, and that no later one took the place of. They
    /// commit nothing.
    pub damaged: Vec<PathBuf>,
    /// Units and shards that could not be done, as the last run that tried said.
    pub failed: Vec<FailureRecord>,
    /// The manifest, if there is one.
    pub manifest: Option<Manifest>,
}

impl Ledger {
    /// Reads the output in `storage`; `None` when there is none.
    ///
    /// # Errors
    /// [`SinkError::Refused`] when the plan cannot be read, or a record belongs to another one;
    /// [`SinkError::Io`] and [`SinkError::Remote`] when something cannot be read.
    pub fn read(storage: &Storage) -> Result<Option<Ledger>, SinkError> {
        let Some((_, plan)) = read_plan(storage)? else {
            return Ok(None);
        };
        let fingerprint = plan.fingerprint()?;
        let records = |folder: &str| -> Result<Vec<PathBuf>, SinkError> {
            let mut paths = storage.list(&storage.join(folder))?;
            paths.retain(|path| record_name(path).is_some());
            Ok(paths)
        };
        let mut committed: BTreeMap<String, (u32, CommitRecord)> = BTreeMap::new();
        let mut damaged = Vec::new();
        let paths = records("_blt/commits")?;
        let found = storage.read_every_json::<CommitRecord>(&paths)?;
        for (path, found) in paths.into_iter().zip(found) {
            let Some((name, revision)) = record_name(&path) else {
                continue;
            };
            match found {
                Found::Value(record) if record.unit == name => {
                    refuse_other_fingerprint(&path, &record, &plan, &fingerprint)?;
                    if committed.get(&name).is_none_or(|(highest, _)| *highest < revision) {
                        committed.insert(name, (revision, record));
                    }
                }
                Found::Nothing => {}
                Found::Value(_) | Found::Damaged(_) => damaged.push((path, name, revision)),
            }
        }
        let stands = |name: &String| committed.get(name).map(|(revision, _)| *revision);
        damaged.retain(|(_, name, revision)| stands(name).is_none_or(|standing| standing < *revision));
        let failed = storage.read_every_json(&records("_blt/failed")?)?;
        Ok(Some(Ledger {
            plan,
            fingerprint,
            committed: committed.into_iter().map(|(name, (_, record))| (name, record)).collect(),
            damaged: damaged.into_iter().map(|(path, ..)| path).collect(),
            // What cannot be read is only told of, or written anew.
            failed: failed.into_iter().filter_map(Found::value).collect(),
            manifest: storage.read_json(&storage.join("_blt/manifest.json"))?.value(),
        }))
    }

    /// Records of the plan's units that are committed, in its order. As many steps as there are records: how many units
    /// there are is only what a file says.
    pub fn committed_units(&self) -> BTreeMap<UnitId, &CommitRecord> {
        self.committed.iter().filter_map(|(name, record)| Some((self.unit(name)?, record))).collect()
    }

    /// The unit of the plan that is called `name`.
    pub fn unit(&self, name: &str) -> Option<UnitId> {
        let (shard, unit) = name.split_once('-')?;
        let id = UnitId { shard: shard.parse().ok()?, unit: unit.parse().ok()? };
        let entry = self.plan.shards.get(id.shard as usize)?;
        (id.unit < entry.units && id.to_string() == name).then_some(id)
    }

    /// Number of units of the plan.
    pub fn n_units(&self) -> u64 {
        self.plan.shards.iter().map(|s| u64::from(s.units)).sum()
    }

    /// Units of the plan that are not committed, and shards that could not be read.
    pub fn n_left(&self) -> u64 {
        let committed = self.committed_units().len() as u64;
        let unreadable = self.plan.shards.iter().filter(|shard| shard.unreadable).count() as u64;
        self.n_units().saturating_sub(committed) + unreadable
    }

    /// Whether every unit of the plan is committed, and every shard could be read.
    pub fn is_complete(&self) -> bool {
        self.n_left() == 0
    }

    /// Whether the manifest is there and says what the records say: nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.manifest.as_ref().is_some_and(|m| self.is_complete() && m.files == self.files())
    }

    /// What the committed units hold together.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.committed.values().for_each(|record| counts.add(&record.counts));
        counts
    }

    /// Files that only superseded records of the output in `storage` name: a repair put others in their place.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn superseded_files(&self, storage: &Storage) -> Result<BTreeSet<String>, SinkError> {
        let mut files = BTreeSet::new();
        let mut paths = storage.list(&storage.join("_blt/commits"))?;
        paths.retain(|path| record_name(path).is_some());
        let records = storage.read_every_json::<CommitRecord>(&paths)?;
        for record in records.into_iter().filter_map(Found::value) {
            files.extend(record.files.into_iter().map(|file| file.path));
        }
        for file in self.files() {
            files.remove(&file.path);
        }
        Ok(files)
    }

    /// Files of the committed units, sorted by path.
    pub fn files(&self) -> Vec<FileEntry> {
        let mut files: Vec<FileEntry> =
            self.committed.values().flat_map(|record| record.files.iter().cloned()).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }
}

/// Paths, below the root of `storage`, of all in `_blt` that says what the output is: its plans and records, those that were
/// superseded included, and the manifest, which comes last.
///
/// # Errors
/// As [`Ledger::read`].
pub fn papers(storage: &Storage) -> Result<Vec<String>, SinkError> {
    let mut paths = storage.list(&storage.join("_blt/commits"))?;
    paths.retain(|path| record_name(path).is_some());
    if let Some((revision, _)) = read_plan(storage)? {
        paths.extend((0..=revision).map(|revision| plan_path(storage, revision)));
    }
    paths.push(storage.join("_blt/manifest.json"));
    let below = |path: &PathBuf| path.strip_prefix(storage.root()).unwrap_or(path).display().to_string();
    Ok(paths.iter().map(below).collect())
}

/// The plan that counts, with its revision; `None` when the folder has none.
///
/// # Errors
/// As [`Ledger::read`].
pub(super) fn read_plan(storage: &Storage) -> Result<Option<(u32, PlanRecord)>, SinkError> {
    let read = |revision| match storage.read_json::<PlanRecord>(&plan_path(storage, revision))? {
        Found::Damaged(what) => {
            Err(SinkError::Refused(format!("{what}; restore it, or start over with run --fresh")))
        }
        found => Ok(found.value()),
    };
    let Some(mut plan) = read(0)? else {
        return Ok(None);
    };
    let mut revision = 0;
    while let Some(next) = read(revision + 1)? {
        (revision, plan) = (revision + 1, next);
    }
    Ok(Some((revision, plan)))
}

/// A unit's record that counts, and the number that the next one would get.
///
/// # Errors
/// When the storage fails.
pub(super) fn read_unit(storage: &Storage, name: &str) -> Result<(u32, Option<CommitRecord>), SinkError> {
    let (mut next, mut counts) = (0, None);
    loop {
        match storage.read_json::<CommitRecord>(&commit_path(storage.root(), name, next))? {
            Found::Nothing => return Ok((next, counts)),
            Found::Value(record) if record.unit == name => counts = Some(record),
            // Torn: it commits nothing, and the next number is free to.
            Found::Value(_) | Found::Damaged(_) => {}
        }
        next += 1;
    }
}

pub(super) fn plan_path(storage: &Storage, revision: u32) -> PathBuf {
    storage.join("_blt").join(revised("plan", revision))
}

pub(super) fn commit_path(root: &Path, name: &str, revision: u32) -> PathBuf {
    root.join("_blt/commits").join(revised(name, revision))
}

fn revised(name: &str, revision: u32) -> String {
    if revision == 0 { format!("{name}.json") } else { format!("{name}.r{revision}.json") }
}

/// `00000-00003.r2.json` is revision 2 of what is called `00000-00003`. `None` for other names.
pub(super) fn record_name(path: &Path) -> Option<(String, u32)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".json")?;
    if temporary_of(path).is_some() {
        return None;
    }
    match stem.split_once(".r") {
        None => Some((stem.to_owned(), 0)),
        Some((name, revision)) => Some((name.to_owned(), revision.parse().ok()?)),
    }
}

fn refuse_other_fingerprint(
    path: &Path,
    record: &CommitRecord,
    plan: &PlanRecord,
    fingerprint: &str,
) -> Result<(), SinkError> {
    if record.fingerprint == fingerprint || plan.earlier.contains(&record.fingerprint) {
        return Ok(());
    }
    Err(SinkError::Refused(format!(
        "{} belongs to another plan than _blt/plan.json; the output was mixed with another one. Remove what does \
         not belong there, or start over with run --fresh",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_from_what_lies_beside_it() {
        for (file, expected) in [
            ("00000-00003.json", Some(("00000-00003", 0))),
            ("00000-00003.r12.json", Some(("00000-00003", 12))),
            (".tmp-00000-00003-abc-0", None),
            ("00000-00003.rx.json", None),
            ("notes.txt", None),
        ] {
            let expected = expected.map(|(name, revision): (&str, u32)| (name.to_owned(), revision));
            assert_eq!(record_name(Path::new(file)), expected, "{file}");
        }
    }
}
