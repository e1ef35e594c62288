//! Finds, and removes when asked, what lies in an output's folders and counts for nothing. Decides by names and
//! records alone.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{Ledger, SinkError, Storage, files::temporary_of};
use crate::schema::Table;

/// A file that no record names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Why it stays: an attempt may still be at work that will name it.
    pub kept: Option<&'static str>,
}

/// Every file of the tables and records folders, as [`garbage`] needs it.
///
/// To be read before the ledger: whatever lies in it and had its record created before it was published is then
/// named by that record.
///
/// # Errors
/// [`SinkError::Io`].
pub(super) fn listing(storage: &Storage) -> Result<Vec<PathBuf>, SinkError> {
    // What lies beside records is garbage under a temporary name only, and a store has none.
    let records = if storage.is_local() { &["_blt", "_blt/commits", "_blt/failed"][..] } else { &[] };
    let mut all = Vec::new();
    for folder in Table::ALL.iter().map(|t| t.name()).chain(records.iter().copied()) {
        let found = storage.list(&storage.join(folder))?;
        all.extend(found.into_iter().filter(|path| !storage.is_folder(path)));
    }
    Ok(all)
}

/// What in the output in `storage` counts for nothing.
///
/// The files of a unit without a record are kept: the attempt that published them may be paused, and its record
/// would name what is gone.
///
/// # Errors
/// As [`Ledger::read`]; [`SinkError::Refused`] when there is no output.
pub fn collect(storage: &Storage) -> Result<Vec<Garbage>, SinkError> {
    let listing = listing(storage)?;
    let ledger = Ledger::read(storage)?.ok_or_else(|| super::output::no_output(storage))?;
    garbage(storage, &listing, &ledger)
}

/// What of `listing`, read before `ledger`, counts for nothing.
///
/// # Errors
/// When the storage fails.
pub(super) fn garbage(
    storage: &Storage,
    listing: &[PathBuf],
    ledger: &Ledger,
) -> Result<Vec<Garbage>, SinkError> {
    let named: BTreeSet<PathBuf> = ledger.files().into_iter().map(|f| storage.join(f.path)).collect();
    let is_committed = |unit: &str| ledger.committed.contains_key(unit);
    let mut found = Vec::new();
    for path in listing {
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
        let kept = match temporary_of(path) {
            // Plan and manifest are written under the lock that whoever removes garbage holds.
            Some(_) if folder == "_blt" => None,
            Some(_) if folder == "failed" => {
                (!ledger.is_complete()).then_some("a run may be recording a failure")
            }
            Some(rest) => (!unit_of(rest).is_some_and(is_committed))
                .then_some("its unit is not committed, so an attempt may be writing it"),
            // A record that cannot be read stays, too: the next one has the number after it.
            None if ["_blt", "commits", "failed"].iter().any(|f| folder == *f) || named.contains(path) => {
                continue;
            }
            None => {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                match unit_of(name) {
                    Some(unit) => (!is_committed(unit))
                        .then_some("its unit is not committed, so a paused attempt may still name it"),
                    None => Some("it has no name that blt-pipeline gives"),
                }
            }
        };
        let bytes = storage.bytes(path)?.unwrap_or(0);
        found.push(Garbage { path: path.clone(), bytes, kept });
    }
    Ok(found)
}

/// Removes what of `garbage` need not be kept.
pub(super) fn remove(storage: &Storage, garbage: &[Garbage]) -> Result<(), SinkError> {
    for file in garbage.iter().filter(|file| file.kept.is_none()) {
        storage.remove_if_there(&file.path)?;
    }
    Ok(())
}

/// Whether a file in a table's folder has a name that blt-pipeline gives.
pub(super) fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    temporary_of(path).is_some() || unit_of(name).is_some()
}

/// `00000-00003` of `00000-00003-858abd7d.parquet` and the like.
fn unit_of(name: &str) -> Option<&str> {
    let second = name.match_indices('-').nth(1)?.0;
    let unit = &name[..second];
    let digits = |part: &str| part.len() >= 5 && part.bytes().all(|b| b.is_ascii_digit());
    unit.split_once('-').filter(|(shard, unit)| digits(shard) && digits(unit)).map(|_| unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_unit_is_in_its_name() {
        for (name, unit) in [
            ("00000-00003-858abd7d.parquet", Some("00000-00003")),
            ("00012-100000-858abd7d.parquet", Some("00012-100000")),
            ("00000-00003-0123456789abcdef-7", Some("00000-00003")),
            ("plan-0123456789abcdef-7", None),
            ("notes.parquet", None),
        ] {
            assert_eq!(unit_of(name), unit, "{name}");
        }
    }
}
