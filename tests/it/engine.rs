//! The engine's laws, with a fake model: same bytes, every row once, faults that cost their unit only,
//! memory that does not grow.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use blt_pipeline::{
    data::{BYTE_OFFSET, PackedTokens, Scores, Wanted},
    model::{EntropyModel, FakeModel, Fault, ModelError, Pending},
    pipeline::{Display, Ending, Stop, Summary, Trace, run},
};

use crate::support::{CONTEXT, DIM, Work, assert_same, assert_sound, files, prose, rows, snapshot};

fn fake() -> FakeModel {
    FakeModel::new(DIM, CONTEXT)
}

/// A fake model that asks `before` about each batch first.
struct Watched<F> {
    model: FakeModel,
    before: F,
}

impl<F: FnMut(&PackedTokens) -> Result<(), ModelError> + Send> EntropyModel for Watched<F> {
    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn max_context(&self) -> usize {
        self.model.max_context()
    }

    fn device_class(&self) -> String {
        self.model.device_class()
    }

    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError> {
        (self.before)(batch)?;
        self.model.score(batch, wanted)
    }
}

fn watched<F: FnMut(&PackedTokens) -> Result<(), ModelError> + Send>(before: F) -> Watched<F> {
    Watched { model: fake(), before }
}

/// A fake model whose answers are altered.
struct Altered(fn(&PackedTokens, &mut Scores));

impl EntropyModel for Altered {
    fn dim(&self) -> usize {
        fake().dim()
    }

    fn max_context(&self) -> usize {
        fake().max_context()
    }

    fn device_class(&self) -> String {
        fake().device_class()
    }

    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError> {
        let mut scores = fake().score(batch, wanted)?;
        (self.0)(batch, &mut scores);
        Ok(scores)
    }
}

/// 3 shards of 20 rows, 2 kB a row, 2 rows a unit: 30 units, several batches each.
fn shards() -> Work {
    let work = Work::new();
    for shard in 0..3u32 {
        let texts: Vec<String> =
            (0..20).map(|row| prose(1500 + 53 * row as usize, 100 * shard + row)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        work.texts(&format!("{shard}.parquet"), &texts);
    }
    work
}

const SETS: [&str; 2] = ["sink.unit_bytes=4200", "model.batch_tokens=1024"];

/// The same with more keys.
fn sets<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SETS[..], more].concat()
}

#[track_caller]
fn assert_every_row_once(work: &Work) {
    let documents = work.documents();
    let keys: BTreeSet<(String, u64)> =
        documents.iter().map(|r| (r.source_file.clone(), r.source_row)).collect();
    let expected: BTreeSet<(String, u64)> =
        (0..3).flat_map(|shard| (0..20).map(move |row| (format!("{shard}.parquet"), row))).collect();
    assert_eq!((keys, documents.len()), (expected, 60));
    assert_sound(&work.out());
}

fn undisturbed(more: &[&str]) -> (Work, Summary) {
    let work = shards();
    let summary = work.engine(&sets(more), &mut fake()).unwrap();
    assert_eq!(summary.ending, Ending::Finished);
    (work, summary)
}

#[test]
fn workers_and_memory_change_no_byte_of_the_output() {
    let (work, _) = undisturbed(&["pretokenize.workers=1"]);
    assert!(files(&work.out(), "documents").len() >= 20, "many units");
    assert_every_row_once(&work);
    let expected = snapshot(&work.out());
    for more in [
        ["pretokenize.workers=2", "limits.memory=1 GiB"],
        ["pretokenize.workers=7", "limits.memory=1500 kB"],
        ["pretokenize.workers=7", "limits.memory=750 kB"],
    ] {
        let (work, _) = undisturbed(&more);
        let found = snapshot(&work.out());
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{more:?}");
        assert!(found == expected, "{more:?}");
    }
}

#[test]
fn the_embeddings_choice_changes_no_byte_with_workers_either() {
    for embeddings in ["sink.embeddings=none", "sink.embeddings=document", "sink.embeddings=byte"] {
        let (one, _) = undisturbed(&[embeddings, "pretokenize.workers=1"]);
        let (many, _) = undisturbed(&[embeddings, "pretokenize.workers=5", "limits.memory=2 MB"]);
        assert_same(&snapshot(&one.out()), &snapshot(&many.out()), embeddings);
    }
}

#[test]
fn a_finished_output_is_not_done_again() {
    let (work, first) = undisturbed(&[]);
    let times = |work: &Work| -> Vec<_> {
        walkdir::WalkDir::new(work.out())
            .into_iter()
            .map(|e| e.unwrap().metadata().unwrap().modified().unwrap())
            .collect()
    };
    let before = (snapshot(&work.out()), times(&work));
    let mut model = watched(|_| panic!("a finished output asks no model"));
    let summary = work.engine(&SETS, &mut model).unwrap();
    assert_eq!(summary.ending, Ending::FinishedBefore);
    assert_eq!((summary.total, summary.run.rows), (first.total, 0));
    assert!((snapshot(&work.out()), times(&work)) == before);
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bytes() {
    let (reference, _) = undisturbed(&[]);
    let expected = snapshot(&reference.out());
    for batches_before_the_stop in [0, 1, 17, 50] {
        let work = shards();
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, flag) = (AtomicUsize::new(0), stop.clone());
        let mut model = watched(move |_| {
            if seen.fetch_add(1, Ordering::Relaxed) == batches_before_the_stop {
                flag.store(true, Ordering::Relaxed);
            }
            Ok(())
        });
        // A budget of a few units, so that the source has not read everything before the stop.
        let sets = sets(&["limits.memory=1500 kB"]);
        let summary = run(
            &work.plan(&sets),
            &mut model,
            Stop { asked: stop, overdue: None },
            &Display::Silent,
            &Trace::off(),
        )
        .unwrap();
        assert_eq!(summary.ending, Ending::Interrupted, "after {batches_before_the_stop}");
        assert!(summary.total.rows < 60 && summary.failures.is_empty());
        assert!(!work.out().join("_blt/manifest.json").exists());
        // A glob sees committed files only.
        assert_eq!(files(&work.out(), "documents").len(), files(&work.out(), "_blt/commits").len());

        let second = work.engine(&sets, &mut fake()).unwrap();
        assert_eq!(second.ending, Ending::Finished);
        assert_eq!((summary.run.rows + second.run.rows, second.total.rows), (60, 60));
        assert_same(&snapshot(&work.out()), &expected, "stopped");
    }
}

#[test]
fn a_fault_in_one_batch_is_tried_again_and_leaves_no_trace() {
    let (reference, _) = undisturbed(&[]);
    for fault in [Fault::Panic, Fault::Error, Fault::Nan] {
        for batch in [0, 1, 20] {
            let work = shards();
            let summary = work.engine(&SETS, &mut fake().with_fault(batch, fault)).unwrap();
            assert_eq!(
                (summary.ending, &summary.failures[..]),
                (Ending::Finished, &[][..]),
                "{fault:?} at {batch}"
            );
            assert!(snapshot(&work.out()) == snapshot(&reference.out()), "{fault:?} at {batch}");
        }
    }
}

/// A model that fails at every batch with this byte in it.
fn poisoned(
    poison: u8,
    fail: impl Fn() -> Result<(), ModelError> + Send,
) -> Watched<impl FnMut(&PackedTokens) -> Result<(), ModelError> + Send> {
    watched(move |batch| {
        let poison = u16::from(poison) + BYTE_OFFSET;
        if batch.tokens.contains(&poison) { fail() } else { Ok(()) }
    })
}

#[test]
fn a_poison_unit_fails_alone_and_its_reason_is_kept() {
    for (fail, parts) in [
        (
            (|| panic!("tensor of shape [0]")) as fn() -> Result<(), ModelError>,
            ["panicked: ", "tensor of shape [0]"],
        ),
        (|| Err(ModelError::Device("out of memory".into())), ["failed to run the model", "out of memory"]),
    ] {
        let work = Work::with(&["one", "two", "poison \u{7}", "three"]);
        work.texts("b.parquet", &["four"]);
        let sets = ["sink.unit_bytes=1"];
        let summary = work.engine(&sets, &mut poisoned(7, fail)).unwrap();
        assert_eq!(summary.ending, Ending::Incomplete);
        let [failure] = &summary.failures[..] else { panic!("{:?}", summary.failures) };
        assert_eq!((failure.name.as_str(), failure.stage, failure.input), ("00000-00002", "model", false));
        assert!(parts.iter().all(|part| failure.reason.contains(part)), "{}", failure.reason);
        let printed = summary.to_string();
        assert!(printed.contains("failed      00000-00002 of a.parquet in model"), "{printed}");
        assert!(!printed.contains("thread '") && !printed.contains("RUST_BACKTRACE"), "{printed}");
        let record = std::fs::read_to_string(work.out().join("_blt/failed/00000-00002.json")).unwrap();
        assert!(parts.iter().all(|part| record.contains(part)), "{record}");
        assert_eq!(work.documents().len(), 4);

        // The device is well again: the same command finishes, and the failure is forgotten.
        assert_eq!(work.engine(&sets, &mut fake()).unwrap().ending, Ending::Finished);
        assert!(files(&work.out(), "_blt/failed").is_empty());
        assert_eq!(work.documents().len(), 5);
        assert_sound(&work.out());
    }
}

#[test]
fn units_that_fail_late_cost_no_other_unit() {
    // Several batches each, dealt to several threads; every other unit fails at its last but one.
    let texts: Vec<String> = (0..12)
        .map(|i| {
            let mut text = prose(4000, i);
            if i % 2 == 1 {
                text.insert(2500, '\u{7}');
            }
            text
        })
        .collect();
    let work = Work::with(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut model = poisoned(7, || Err(ModelError::Device("no more".into())));
    let summary = work.engine(&["sink.unit_bytes=1", "model.batch_tokens=1024"], &mut model).unwrap();
    let failed: Vec<&str> = summary.failures.iter().map(|failure| failure.name.as_str()).collect();
    let odd: Vec<String> = (0..6).map(|i| format!("00000-{:05}", 2 * i + 1)).collect();
    assert_eq!(failed, odd, "{:?}", summary.failures);
    assert!(summary.failures.iter().all(|failure| failure.stage == "model"), "{:?}", summary.failures);
    assert_eq!(work.documents().len(), 6);
}

/// Fails a batch with a 7 in it when its scores are waited for, and one with an 8 at once.
struct LateAndEarly;

impl EntropyModel for LateAndEarly {
    fn dim(&self) -> usize {
        fake().dim()
    }

    fn max_context(&self) -> usize {
        fake().max_context()
    }

    fn device_class(&self) -> String {
        fake().device_class()
    }

    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError> {
        self.submit(batch, wanted)?.wait()
    }

    fn submit(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Pending, ModelError> {
        let fail = |what: &str| ModelError::Device(what.to_owned());
        if batch.tokens.contains(&(8 + BYTE_OFFSET)) {
            return Err(fail("early"));
        }
        let batch = batch.clone();
        Ok(Pending::running(move || {
            // Long enough for the batch behind it to come.
            std::thread::sleep(Duration::from_millis(50));
            if batch.tokens.contains(&(7 + BYTE_OFFSET)) {
                Err(fail("late"))
            } else {
                fake().score(&batch, wanted)
            }
        }))
    }
}

#[test]
fn a_unit_that_fails_after_the_next_one_did_is_told_once_and_so_is_that() {
    // The first one's last batch is with the device when the second one's first fails.
    let (mut first, mut second) = (prose(2000, 1), prose(4000, 2));
    first.push('\u{7}');
    second.insert(0, '\u{8}');
    let work = Work::with(&[&first, &second, &prose(2000, 3)]);
    let sets = ["sink.unit_bytes=1", "model.batch_tokens=1024"];
    let summary = work.engine(&sets, &mut LateAndEarly).unwrap();
    let failed: Vec<(&str, &str)> =
        summary.failures.iter().map(|failure| (failure.name.as_str(), failure.stage)).collect();
    assert_eq!(failed, [("00000-00000", "model"), ("00000-00001", "model")], "{:?}", summary.failures);
    assert_eq!(work.documents().len(), 1);
}

#[test]
fn a_value_that_is_not_finite_fails_its_unit_and_names_the_row() {
    let mut infinite = Altered(|batch, scores| {
        if batch.tokens.contains(&(7 + BYTE_OFFSET)) {
            *scores.norms.as_mut().unwrap().last_mut().unwrap() = f32::INFINITY;
        }
    });
    let work = Work::with(&["one", "poison \u{7}", "three"]);
    let summary = work.engine(&["sink.unit_bytes=1"], &mut infinite).unwrap();
    assert_eq!(summary.ending, Ending::Incomplete);
    let reason = &summary.failures[0].reason;
    assert!(reason.contains("the model returned the norm inf for token 9 of row 1 of a.parquet"), "{reason}");
    assert_eq!(work.documents().len(), 2);
}

#[test]
fn a_model_that_answers_too_little_fails_the_unit_not_the_run() {
    let mut short = Altered(|_, scores| {
        scores.entropies.pop();
    });
    let work = Work::with(&["one", "two"]);
    let summary = work.engine(&[], &mut short).unwrap();
    assert_eq!((summary.ending, summary.failures.len()), (Ending::Incomplete, 1));
    assert!(summary.failures[0].reason.contains("too few entropies"), "{}", summary.failures[0].reason);
}

#[test]
fn a_row_that_needs_more_than_the_memory_budget_fails_by_name_until_it_is_raised() {
    let large = prose(300_000, 1);
    let texts = ["small", &large, "small too"];
    let (reference, work) = (Work::with(&texts), Work::with(&texts));
    let sets = |memory| [memory, "sink.unit_bytes=1"];
    assert_eq!(reference.engine(&sets("limits.memory=1 GiB"), &mut fake()).unwrap().ending, Ending::Finished);

    let summary = work.engine(&sets("limits.memory=2 MB"), &mut fake()).unwrap();
    assert_eq!((summary.ending, summary.total.rows), (Ending::Incomplete, 2));
    let [failure] = &summary.failures[..] else { panic!("{:?}", summary.failures) };
    assert!(failure.input && failure.stage == "source", "{failure:?}");
    for part in [
        "unit 00000-00001 (rows 1 to 1 of a.parquet) needs about ",
        "limits.memory = 2.0 MB; raise limits.memory",
    ] {
        assert!(failure.reason.contains(part), "{}", failure.reason);
    }

    let summary = work.engine(&sets("limits.memory=1 GiB"), &mut fake()).unwrap();
    assert_eq!((summary.ending, summary.run.rows), (Ending::Finished, 1));
    assert_same(&snapshot(&work.out()), &snapshot(&reference.out()), "with more memory");
}

/// Every byte a patch is four times what text has on average, and known only once the model has seen it.
#[test]
fn a_text_of_more_patches_than_memory_was_set_aside_for_fails_by_name_or_passes() {
    let mut surprised = Altered(|_, scores| scores.entropies.fill(9.0));
    for (memory, ending) in
        [("limits.memory=13 MB", Ending::Incomplete), ("limits.memory=64 MB", Ending::Finished)]
    {
        let work = Work::with(&[&prose(100_000, 1)]);
        let summary = work.engine(&[memory, "model.batch_tokens=1024"], &mut surprised).unwrap();
        assert_eq!(summary.ending, ending, "{memory}: {:?}", summary.failures);
        if let Some(failure) = summary.failures.first() {
            assert!(failure.input && failure.stage == "patch", "{failure:?}");
        }
    }
}

#[test]
fn a_top_k_rule_with_patch_embeddings_gives_the_means_of_the_whole_document() {
    let work = Work::with(&[&prose(1000, 1)]);
    work.engine(&["patch.patch_size=8", "sink.embedding_dtype=f32"], &mut fake()).unwrap();
    let top_k = rows(&work.table("patches").unwrap());
    let other = Work::with(&[&prose(1000, 1)]);
    other.engine(&["sink.embeddings=byte", "sink.embedding_dtype=f32"], &mut fake()).unwrap();
    let bytes = rows(&other.table("bytes").unwrap());
    assert!(top_k.len() > 100);
    for patch in &top_k {
        let range = patch.start as usize..(patch.start + patch.length) as usize;
        for (i, value) in patch.embedding.as_ref().unwrap().iter().enumerate() {
            let sum: f64 =
                bytes[range.clone()].iter().map(|b| f64::from(b.embedding.as_ref().unwrap()[i])).sum();
            assert!((f64::from(*value) - sum / patch.length as f64).abs() < 1e-6);
        }
    }
}

/// How many units the model has not seen yet, though the source has read them, shows in how far the
/// source may run ahead: with a budget of three units it stands still while the model does.
#[test]
fn a_slow_model_holds_the_source_back() {
    let work = shards();
    let plan = work.plan(&SETS);
    let cost = plan.units.iter().map(|unit| plan.memory_cost(unit)).max().unwrap();
    let memory = format!("limits.memory={}", 3 * cost);
    let plan = work.plan(&sets(&[&memory]));
    // While the first batch waits, shards that are opened later vanish: whatever has not been read by
    // then can no longer be.
    let shards: Vec<_> = (1..3).map(|n| work.path(&format!("shards/{n}.parquet"))).collect();
    let mut first = true;
    let mut model = watched(move |_| {
        if std::mem::take(&mut first) {
            std::thread::sleep(Duration::from_millis(300));
            for shard in &shards {
                std::fs::remove_file(shard).unwrap();
            }
        }
        Ok(())
    });
    let summary = run(&plan, &mut model, Stop::default(), &Display::Silent, &Trace::off()).unwrap();
    assert_eq!(summary.total.rows, 20, "only the first shard was within reach");
    assert!(summary.failures.iter().all(|f| f.reason.contains("failed to open")), "{:?}", summary.failures);
    assert!(summary.failures.len() + files(&work.out(), "documents").len() == plan.units.len());
}

#[test]
fn runs_at_once_on_one_output_all_end_well_with_the_same_bytes() {
    let work = shards();
    let sets = ["sink.unit_bytes=1 KB"];
    work.engine(&sets, &mut fake()).unwrap();
    let expected = snapshot(&work.out());
    for round in 0..8 {
        std::fs::remove_dir_all(work.out()).unwrap();
        let plan = work.plan(&sets);
        let endings: Vec<Result<Ending, String>> = std::thread::scope(|scope| {
            let runs = [(); 3].map(|()| {
                scope.spawn(|| {
                    let summary = run(&plan, &mut fake(), Stop::default(), &Display::Silent, &Trace::off());
                    summary.map(|s| s.ending).map_err(|error| error.to_string())
                })
            });
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for ending in endings {
            let well = matches!(ending, Ok(Ending::Finished | Ending::FinishedBefore));
            assert!(well, "round {round}: {ending:?}");
        }
        assert_sound(&work.out());
        assert_same(&snapshot(&work.out()), &expected, "three at once");
    }
}

#[test]
fn memory_does_not_grow_with_the_input() {
    let peak = |shards: &str| -> u64 {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "engine::runs_a_large_input_for_the_test_of_memory",
                "--ignored",
                "--nocapture",
            ])
            .env("BLT_TEST_SHARDS", shards)
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{stdout}");
        let line = stdout.lines().find_map(|l| l.split_once("peak kB: ")).expect("a peak").1;
        line.trim().parse().unwrap()
    };
    let (small, large) = (peak("2"), peak("8"));
    // 32 MiB of content fill the budget of 64 MiB several times over; 128 MiB may not need more.
    assert!(large < small + small / 4 + 20_000, "{small} kB with 2 shards, {large} kB with 8");
    assert!(large < 200_000, "{large} kB");
}

#[test]
#[ignore = "run by memory_does_not_grow_with_the_input, in a process of its own"]
#[allow(clippy::print_stdout)]
fn runs_a_large_input_for_the_test_of_memory() {
    let Some(shards) = std::env::var_os("BLT_TEST_SHARDS") else { return };
    let shards: u32 = shards.to_str().unwrap().parse().unwrap();
    let work = Work::new();
    let text = prose(1 << 18, 1);
    let first = work.texts("0.parquet", &vec![text.as_str(); 64]);
    for shard in 1..shards {
        std::fs::hard_link(&first, work.path(&format!("shards/{shard}.parquet"))).unwrap();
    }
    // Little to write, much to hold: entropies of every token travel to the patcher all the same.
    let sets = [
        "limits.memory=64 MiB",
        "sink.unit_bytes=256 KiB",
        "sink.embeddings=none",
        "sink.entropies=false",
        "sink.norms=false",
        "patch.mode=static",
        "patch.patch_size=4096",
        "model.batch_tokens=65536",
    ];
    let mut model = fake().with_sleep(Duration::from_millis(2));
    let started = Instant::now();
    let summary = work.engine(&sets, &mut model).unwrap();
    assert_eq!(summary.total.bytes, u64::from(shards) * (16 << 20));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    println!("{:?}, peak kB: {}", started.elapsed(), peak.trim().trim_end_matches("kB"));
}

#[test]
fn a_batch_that_the_device_has_no_room_for_is_scored_in_parts() {
    let (expected, _) = undisturbed(&[]);
    let work = shards();
    let (mut asked, mut largest) = (0, 0);
    let mut small = watched(|batch| {
        asked += 1;
        let n = batch.tokens.len();
        if n > 600 {
            return Err(ModelError::OutOfMemory(format!("{n} tokens")));
        }
        largest = largest.max(n);
        Ok(())
    });
    assert_eq!(work.engine(&SETS, &mut small).unwrap().ending, Ending::Finished);
    assert!((256..=600).contains(&largest) && asked > 60, "{largest} {asked}");
    assert_same(&snapshot(&work.out()), &snapshot(&expected.out()), "in parts");

    // Where not even a context fits, units fail and say what to do.
    let work = shards();
    let mut none = watched(|_| Err(ModelError::OutOfMemory("0 bytes".into())));
    let summary = work.engine(&SETS, &mut none).unwrap();
    assert_eq!(summary.ending, Ending::Incomplete);
    assert!(summary.failures.iter().all(|f| f.reason.contains("lower model.context")), "{summary}");
}

#[test]
fn two_batches_are_with_a_device_that_computes_by_itself_and_come_back_in_order() {
    /// Answers each batch on a thread of its own, the earlier ones later.
    struct Beside {
        submitted: u64,
        flying: Arc<AtomicUsize>,
        most: usize,
    }
    impl EntropyModel for Beside {
        fn dim(&self) -> usize {
            fake().dim()
        }

        fn max_context(&self) -> usize {
            fake().max_context()
        }

        fn device_class(&self) -> String {
            fake().device_class()
        }

        fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError> {
            self.submit(batch, wanted)?.wait()
        }

        fn submit(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Pending, ModelError> {
            self.submitted += 1;
            self.most = self.most.max(1 + self.flying.fetch_add(1, Ordering::SeqCst));
            let (batch, pause) = (batch.clone(), Duration::from_millis(5 * (self.submitted % 2)));
            let thread = std::thread::spawn(move || {
                std::thread::sleep(pause);
                fake().score(&batch, wanted)
            });
            let flying = self.flying.clone();
            Ok(Pending::running(move || {
                let scores = thread.join().unwrap();
                flying.fetch_sub(1, Ordering::SeqCst);
                scores
            }))
        }
    }
    let (expected, _) = undisturbed(&[]);
    let work = shards();
    let mut device = Beside { submitted: 0, flying: Arc::default(), most: 0 };
    let summary = work.engine(&SETS, &mut device).unwrap();
    assert_eq!((summary.ending, device.most), (Ending::Finished, 2));
    assert!(summary.device_seconds > 0.1 && summary.device_seconds <= summary.seconds, "{summary}");
    assert_same(&snapshot(&work.out()), &snapshot(&expected.out()), "two in flight");
}
