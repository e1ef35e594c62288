//! Decides whether a plan may go on in an output that is there, and says what differs if it may not. Changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Opening, PlanRecord, ShardEntry, SinkError, Start, Storage, ledger::read_unit, recorded_units};
use crate::data::UnitId;

pub(super) fn refuse_other_plan(
    storage: &Storage,
    existing: &PlanRecord,
    opening: Opening<'_>,
) -> Result<(), SinkError> {
    let Differences { mut found, extend_would_do, raced } = differences(existing, opening);
    if raced {
        return Err(SinkError::Raced(format!(
            "another process changed the plan of {} at the same moment",
            storage.root().display()
        )));
    }
    if found.is_empty() {
        return Ok(());
    }
    const SHOWN: usize = 8;
    if found.len() > SHOWN {
        let more = found.len() - SHOWN;
        found.truncate(SHOWN);
        found.push(format!("and {more} more differences"));
    }
    let remedy = if extend_would_do {
        "--extend takes new shards in, and lets go of those that are done; or "
    } else {
        ""
    };
    Err(SinkError::Refused(format!(
        "{} holds the output of another plan: {}; {remedy}give this plan a folder of its own (sink.uri or --output), \
         or start over with --fresh",
        storage.root().display(),
        found.join("; ")
    )))
}

/// A shard that is no longer there may be left out only once all of it is committed.
pub(super) fn refuse_unfinished_absent(storage: &Storage, opening: Opening<'_>) -> Result<(), SinkError> {
    let absent: BTreeSet<&String> = opening.absent.iter().collect();
    if absent.is_empty() {
        return Ok(());
    }
    // A store lists a thousand records in the time that it takes to read one.
    let recorded = if storage.is_local() { None } else { Some(recorded_units(storage)?) };
    for (shard, entry) in (0u32..).zip(&opening.plan.shards) {
        if !absent.contains(&entry.source_file) {
            continue;
        }
        for unit in 0..entry.units {
            let name = UnitId { shard, unit }.to_string();
            let is_committed = match &recorded {
                Some(recorded) => recorded.contains(&name),
                None => read_unit(storage, &name)?.1.is_some(),
            };
            if !is_committed {
                return Err(SinkError::Refused(format!(
                    "shard {} is gone from source.uri, and unit {name} of it is not committed yet; bring it back, \
                     or start over with --fresh",
                    entry.source_file
                )));
            }
        }
    }
    Ok(())
}

struct Differences {
    found: Vec<String>,
    /// Whether `--extend` is all that is needed.
    extend_would_do: bool,
    /// Whether the output's plan has become another one since ours was frozen.
    raced: bool,
}

fn differences(old: &PlanRecord, opening: Opening<'_>) -> Differences {
    let (new, start) = (opening.plan, opening.start);
    let mut found = Vec::new();
    if old.schema_version != new.schema_version {
        found.push(format!("the schema version was {}, now {}", old.schema_version, new.schema_version));
    }
    let keys: BTreeSet<&String> = old.meaning.keys().chain(new.meaning.keys()).collect();
    let show = |value: Option<&serde_json::Value>| value.map_or("absent".into(), |v| v.to_string());
    for key in keys {
        let (was, is) = (old.meaning.get(key), new.meaning.get(key));
        // Rows that were taken are taken still: units without rows in quarantine stay what they are.
        let grown = || is.and_then(|v| v.as_u64()) > was.and_then(|v| v.as_u64());
        let repaired = start == Start::Repair && key == "limits.max_document_bytes" && grown();
        if was != is && !repaired {
            found.push(format!("{key} was {}, now {}", show(was), show(is)));
        }
    }
    let lets_go = matches!(start, Start::Extend | Start::Repair);
    let (mut n_come_or_gone, mut raced) = (0, false);
    let by_name = |plan: &PlanRecord| -> BTreeMap<String, (usize, ShardEntry)> {
        let entries = plan.shards.iter().cloned().enumerate();
        entries.map(|(index, s)| (s.source_file.clone(), (index, s))).collect()
    };
    let (was, is) = (by_name(old), by_name(new));
    let absent: BTreeSet<&String> = opening.absent.iter().collect();
    for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
        match (was.get(name), is.get(name)) {
            (Some(_), Some(_)) if absent.contains(name) && lets_go => {}
            (Some(_), Some(_)) if absent.contains(name) => {
                n_come_or_gone += 1;
                found.push(format!("shard {name} is gone"));
            }
            (None, Some(_)) if start == Start::Extend => {}
            (None, Some(_)) => {
                n_come_or_gone += 1;
                found.push(format!("shard {name} is new"));
            }
            // A plan is frozen with all shards of the output at their places.
            (Some(_), None) => raced = true,
            (Some((a, _)), Some((b, _))) if a != b => raced = true,
            (Some((_, a)), _) if a.unreadable => {}
            // Behind the limit: nothing is read of it.
            (Some((_, a)), Some((_, b))) if a.units == 0 && b.units == 0 => {}
            (Some((_, a)), Some((_, b))) if (a.bytes, &a.footer_sha256) != (b.bytes, &b.footer_sha256) => {
                found.push(format!("shard {name} changed ({} bytes, now {})", a.bytes, b.bytes));
            }
            (Some((_, a)), Some((_, b))) if b.unreadable => found.push(format!(
                "shard {name} could be read before, and now it cannot; `plan` with a new output tells why ({} units)",
                a.units
            )),
            (Some((_, a)), Some((_, b))) if a != b => {
                found.push(format!("shard {name} is cut differently"));
            }
            _ => {}
        }
    }
    Differences { extend_would_do: n_come_or_gone == found.len(), found, raced }
}
