//! The laws of units, over real footers of any shape: they tile the rows, every machine cuts the same ones, a limit takes
//! the first of them, and a run reads every row exactly once.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arrow::{
    array::{ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray},
    datatypes::UInt64Type,
};
use blt_pipeline::{
    data::Unit,
    model::FakeModel,
    pipeline::{Ending, Plan, PlannedShard},
};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use proptest::prelude::*;

use crate::{
    hard_files::{columns, corpora, files},
    storage::skipped,
    support::{CONTEXT, DIM, Work, freeze, prose},
};

/// A shard and how it is cut.
#[derive(Clone, Debug)]
struct Shape {
    /// Bytes of each row's content, if it is not null.
    rows: Vec<Option<usize>>,
    group_rows: usize,
    page_rows: usize,
    dictionary: bool,
    carried: bool,
    unit_bytes: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let size = prop_oneof![1 => Just(None), 1 => Just(Some(0)), 6 => (1usize..300).prop_map(Some)];
    let rows = prop::collection::vec(size, 0..300);
    let unit_bytes = prop_oneof![1u64..200, 1000u64..60_000];
    (rows, 1usize..400, 1usize..100, any::<bool>(), any::<bool>(), unit_bytes).prop_map(
        |(rows, group_rows, page_rows, dictionary, carried, unit_bytes)| Shape {
            rows,
            group_rows,
            page_rows,
            dictionary,
            carried,
            unit_bytes,
        },
    )
}

impl Shape {
    fn write(&self, path: &Path) {
        // Few different values, so that a dictionary is worth it.
        let text = |(i, size): (usize, &Option<usize>)| size.map(|n| prose(n, i as u32 % 7).into_bytes());
        let texts: BinaryArray = self.rows.iter().enumerate().map(text).collect();
        let names: StringArray =
            (0..self.rows.len()).map(|i| (i % 5 > 0).then(|| prose(i % 90, 1))).collect();
        let table = RecordBatch::try_from_iter([
            ("name", Arc::new(names) as ArrayRef),
            ("text", Arc::new(texts) as ArrayRef),
        ])
        .unwrap();
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(self.dictionary)
            .set_max_row_group_row_count(Some(self.group_rows))
            .set_data_page_row_count_limit(self.page_rows)
            .set_write_batch_size(self.page_rows)
            .build();
        let mut writer =
            ArrowWriter::try_new(File::create(path).unwrap(), table.schema(), Some(properties)).unwrap();
        writer.write(&table).unwrap();
        writer.close().unwrap();
    }

    /// A folder with two such shards.
    fn work(&self) -> Work {
        let work = Work::new();
        self.write(&work.path("shards/a.parquet"));
        self.write(&work.path("shards/b.parquet"));
        work
    }

    fn sets(&self) -> Vec<String> {
        let mut sets =
            vec![format!("sink.unit_bytes={}", self.unit_bytes), "limits.max_quarantined=1.0".into()];
        if self.carried {
            sets.push("source.carry=['name']".into());
        }
        sets
    }

    fn plan(&self, work: &Work, more: &[&str]) -> Plan {
        let sets = self.sets();
        work.plan(&[&sets.iter().map(String::as_str).collect::<Vec<_>>()[..], more].concat())
    }
}

/// Asserts that the units of each shard are numbered from 0, in order, not empty, and tile its rows.
#[track_caller]
fn assert_tiles(plan: &Plan, case: &str) {
    let mut units = plan.units.iter();
    for (index, shard) in plan.shards.iter().enumerate() {
        let PlannedShard::Ready(shard) = shard else { continue };
        let rows: u64 = shard.row_groups.iter().map(|group| group.rows).sum();
        let content: u64 = shard.row_groups.iter().filter(|g| g.rows > 0).map(|g| g.content_bytes).sum();
        let (mut next_row, mut next_unit, mut bytes) = (0, 0, 0);
        while next_row < rows {
            let unit = units.next().unwrap_or_else(|| panic!("{case}: no unit from row {next_row} on"));
            assert_eq!((unit.id.shard as usize, unit.id.unit), (index, next_unit), "{case}");
            assert!(unit.rows.start == next_row && unit.rows.end > next_row, "{case}: {unit:?}");
            (next_row, next_unit, bytes) = (unit.rows.end, next_unit + 1, bytes + unit.content_bytes);
        }
        assert_eq!((next_row, bytes), (rows, content), "{case}");
    }
    assert_eq!(units.next(), None, "{case}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_machine_cuts_the_same_units(shape in shapes(), workers in 1u32..9, mib in 8u64..100_000) {
        let work = shape.work();
        let plan = shape.plan(&work, &[]);
        assert_tiles(&plan, &format!("{shape:?}"));
        prop_assert_eq!(plan.rows(), 2 * shape.rows.len() as u64);
        prop_assert_eq!(&shape.plan(&work, &[]).units, &plan.units);

        let elsewhere = Work::new();
        for name in ["a.parquet", "b.parquet"] {
            let copy = elsewhere.path("shards").join(name);
            fs::copy(work.path("shards").join(name), &copy).unwrap();
            let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(workers) << 24);
            File::options().write(true).open(&copy).unwrap().set_modified(long_ago).unwrap();
        }
        let (workers, memory) =
            (format!("pretokenize.workers={workers}"), format!("limits.memory=\"{mib} MiB\""));
        // On threads of their own, all at once: who plans, and beside what, must not matter.
        let others: Vec<Plan> = std::thread::scope(|scope| {
            let plan = || shape.plan(&elsewhere, &[&workers, &memory]);
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(plan)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for other in others {
            prop_assert_eq!(&other.units, &plan.units);
            prop_assert_eq!(&other.record, &plan.record);
            prop_assert_eq!(&other.fingerprint, &plan.fingerprint);
        }
    }

    #[test]
    fn a_limit_takes_the_first_units_and_a_part_of_one(shape in shapes(), limit in 1u64..700) {
        let work = shape.work();
        let all = shape.plan(&work, &[]).units;
        let plan = shape.plan(&work, &[&format!("source.limit={limit}")]);
        prop_assert_eq!(plan.rows(), limit.min(2 * shape.rows.len() as u64));
        let Some((last, whole)) = plan.units.split_last() else { return Ok(()) };
        prop_assert_eq!(whole, &all[..whole.len()]);
        let uncut: &Unit = &all[whole.len()];
        prop_assert_eq!((last.id, last.rows.start), (uncut.id, uncut.rows.start));
        prop_assert!(last.rows.end <= uncut.rows.end && last.content_bytes <= uncut.content_bytes);
    }
}

proptest! {
    // Every unit's files are synced.
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_run_reads_every_row_once(shape in shapes(), limit in prop::option::of(1u64..700)) {
        let mut shape = shape;
        shape.unit_bytes = shape.unit_bytes.max(2000);
        let work = shape.work();
        let mut sets = shape.sets();
        sets.push("sink.embeddings=none".into());
        sets.extend(limit.map(|limit| format!("source.limit={limit}")));
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let summary = work.engine(&sets, &mut FakeModel::new(DIM, CONTEXT)).unwrap();
        prop_assert_eq!(summary.ending, Ending::Finished);

        let n = shape.rows.len() as u64;
        let rows = |shard: &'static str| (0..n).map(move |row| (shard.to_owned(), row));
        let expected = rows("a.parquet").chain(rows("b.parquet")).take(limit.unwrap_or(u64::MAX) as usize);
        let mut found: Vec<(String, u64)> = Vec::new();
        for table in ["documents", "quarantine"] {
            let Some(table) = work.table(table) else { continue };
            let files = table["source_file"].as_string::<i32>().iter().map(|file| file.unwrap().to_owned());
            found.extend(files.zip(table["source_row"].as_primitive::<UInt64Type>().values().iter().copied()));
        }
        found.sort();
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
    }
}

#[test]
fn files_that_break_readers_are_refused_in_words_or_cut_into_units_that_tile_them() {
    let Some(corpora) = corpora() else {
        return skipped("units of files that break readers", "name the shared folder in BLT_SHARED");
    };
    let work = Work::new();
    let (mut n_refused, mut n_broken, mut n_units) = (0, 0, 0);
    for path in ["data", "bad_data"].into_iter().flat_map(|folder| files(&corpora, folder)) {
        for column in columns(&path) {
            for unit_bytes in [1u64, 300, 64 << 20] {
                let case = format!("{} column {column}, units of {unit_bytes}", path.display());
                let mut pipeline = work.pipeline(&[&format!("sink.unit_bytes={unit_bytes}")]);
                pipeline.source.uris = vec![path.display().to_string()];
                pipeline.source.content.clone_from(&column);
                match freeze(pipeline.clone()) {
                    Err(error) => {
                        let error = error.to_string();
                        assert!(error.contains("source.") && !error.contains("panicked"), "{case}: {error}");
                        n_refused += 1;
                    }
                    Ok(plan) => {
                        assert_tiles(&plan, &case);
                        assert_eq!(freeze(pipeline).unwrap().units, plan.units, "{case}");
                        if let [PlannedShard::Broken { reason, .. }] = &plan.shards[..] {
                            assert!(reason.starts_with("failed to read the footer of "), "{case}: {reason}");
                            n_broken += 1;
                        }
                        n_units += plan.units.len();
                    }
                }
            }
        }
    }
    assert!(n_refused > 100 && n_broken > 1 && n_units > 1000, "{n_refused} {n_broken} {n_units}");
}
