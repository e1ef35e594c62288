//! Faults that a run must survive: killed, failing and paused at every step of the commit. What is committed is
//! the expected rows once, and the same command goes on to the bytes of an undisturbed run.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use blt_pipeline::{
    data::{PackedTokens, Scores, Wanted},
    model::{EntropyModel, FakeModel, ModelError},
    pipeline::{Display, Ending, Stop, Trace, run},
    sink::Start,
};

use crate::support::{
    CONTEXT, DIM, Outcome, Work, assert_same, assert_sound, blt, files, prose, read_table, rows, snapshot,
};

/// Two shards of 6 rows, a unit each, so that `3*off` is in the middle.
const SETS: [&str; 2] = ["sink.unit_bytes=700", "sink.embeddings=none"];

fn work() -> Work {
    let work = Work::new();
    for (shard, name) in ["a.parquet", "b.parquet"].into_iter().enumerate() {
        let texts: Vec<String> = (0..6).map(|row| prose(600, 10 * shard as u32 + row)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        work.texts(name, &texts);
    }
    work
}

fn undisturbed() -> BTreeMap<String, Vec<u8>> {
    let work = work();
    work.run(&SETS).expect(0, &["12 read, 12 documents"]);
    assert!(files(&work.out(), "_blt/commits").len() == 12, "a unit a row");
    snapshot(&work.out())
}

/// What holds at any moment: no row is committed twice, and what is committed is whole.
#[track_caller]
fn assert_committed_is_whole(work: &Work, case: &str) {
    let mut seen = std::collections::BTreeSet::new();
    for name in files(&work.out(), "_blt/commits").iter().filter(|name| name.ends_with(".json")) {
        let text = fs::read(work.out().join("_blt/commits").join(name)).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for file in record["files"].as_array().unwrap() {
            let path = file["path"].as_str().unwrap();
            let bytes = fs::read(work.out().join(path)).unwrap_or_else(|e| panic!("{case}: {path}: {e}"));
            assert_eq!(file["bytes"], bytes.len(), "{case}: {path}");
            assert!(seen.insert(path.to_owned()), "{case}: {path} is named twice");
        }
    }
}

/// The judge of every case.
#[track_caller]
fn assert_goes_on_to_the_same_bytes(work: &Work, expected: &BTreeMap<String, Vec<u8>>, case: &str) {
    assert_committed_is_whole(work, case);
    work.run(&SETS);
    assert_sound(&work.out());
    assert_same(&snapshot(&work.out()), expected, case);
    assert_eq!(rows(&read_table(&work.out(), "documents").unwrap()).len(), 12, "{case}");
    work.run(&SETS).expect(0, &["was finished before"]);
    assert_same(&snapshot(&work.out()), expected, case);
}

/// Steps that every unit passes, in order.
pub const STEPS: [&str; 7] = [
    "encode::create",
    "encode::middle",
    "encode::after_footer",
    "commit::rename",
    "commit::before_record",
    "commit::link",
    "commit::after_record",
];

/// Steps at the end of a run.
pub const LAST_STEPS: [&str; 4] =
    ["finalize::before_garbage", "finalize::before_manifest", "manifest::rename", "finalize::after_manifest"];

#[test]
fn killed_at_every_step_of_a_commit() {
    let expected = undisturbed();
    for step in STEPS {
        // The first, one in the middle (each unit has two files), the last.
        for n in [0, 5, 11] {
            let (work, case) = (work(), format!("killed at {step} number {n}"));
            let outcome = work.run_with(&format!("{step}={n}*off->return(kill)"), &SETS);
            assert_eq!(outcome.code, -1, "{case}: {}{}", outcome.stdout, outcome.stderr);
            assert!(!work.out().join("_blt/manifest.json").exists(), "{case}");
            assert_goes_on_to_the_same_bytes(&work, &expected, &case);
        }
    }
}

#[test]
fn killed_while_the_plan_or_the_manifest_is_written() {
    let expected = undisturbed();
    for step in ["plan::link"].into_iter().chain(LAST_STEPS) {
        let work = work();
        let outcome = work.run_with(&format!("{step}=return(kill)"), &SETS);
        assert_eq!(outcome.code, -1, "{step}: {}{}", outcome.stdout, outcome.stderr);
        assert_eq!(work.out().join("_blt/manifest.json").exists(), step == "finalize::after_manifest");
        assert_goes_on_to_the_same_bytes(&work, &expected, step);
    }
}

#[test]
fn killed_again_and_again_at_ever_later_steps() {
    let expected = undisturbed();
    let work = work();
    let mut kills = 0;
    for step in STEPS.into_iter().chain(LAST_STEPS) {
        let outcome = work.run_with(&format!("{step}=1*off->return(kill)"), &SETS);
        kills += u32::from(outcome.code == -1);
        assert_committed_is_whole(&work, step);
    }
    assert!(kills >= 7, "{kills}");
    assert_goes_on_to_the_same_bytes(&work, &expected, "again and again");
}

#[test]
fn a_storage_that_fails_at_any_step_ends_the_run_resumable() {
    let expected = undisturbed();
    for step in STEPS.into_iter().chain(LAST_STEPS).chain(["plan::link"]) {
        for (action, words) in [("eio", "Input/output error"), ("enospc", "free some space")] {
            let (work, case) = (work(), format!("{action} at {step}"));
            let n = if STEPS.contains(&step) { "4*off->" } else { "" };
            let outcome = work.run_with(&format!("{step}={n}return({action})"), &SETS);
            outcome.expect(75, &["storage failed at ", words]);
            assert!(!outcome.stderr.contains("panicked"), "{case}: {}", outcome.stderr);
            assert_goes_on_to_the_same_bytes(&work, &expected, &case);
        }
    }
}

#[test]
fn a_panic_in_any_stage_costs_one_more_try_of_its_unit() {
    let expected = undisturbed();
    for stage in ["source", "pretokenize", "model", "patch", "encode", "compress"] {
        let work = work();
        let outcome = work.run_with(&format!("{stage}=2*off->1*panic(broken on purpose)"), &SETS);
        outcome.expect(0, &["will be tried again: panicked: broken on purpose", "12 read, 12 documents"]);
        assert_same(&snapshot(&work.out()), &expected, stage);
    }
}

#[test]
fn a_stage_that_always_panics_fails_its_units_and_says_so() {
    let expected = undisturbed();
    for stage in ["source", "pretokenize", "model", "patch", "encode", "compress"] {
        let work = work();
        let outcome = work.run_with(&format!("{stage}=panic(broken for good)"), &SETS);
        outcome.expect(70, &["is incomplete", "failed      00000-00000", &format!("in {stage}: panicked")]);
        assert_eq!(files(&work.out(), "_blt/failed").len(), 12, "{stage}");
        let status = blt(&["status", work.out().to_str().unwrap()]);
        status.expect(0, &["stopped", "0 of 12 committed", "broken for good"]);
        assert_goes_on_to_the_same_bytes(&work, &expected, stage);
    }
}

#[test]
fn a_worker_that_sleeps_at_any_step_while_another_does_its_unit() {
    let expected = undisturbed();
    // All steps at once, since they sleep for long.
    std::thread::scope(|scope| {
        for step in STEPS {
            let expected = &expected;
            scope.spawn(move || outrun_at(step, expected));
        }
    });
}

fn outrun_at(step: &str, expected: &BTreeMap<String, Vec<u8>>) {
    let work = work();
    let mut asleep = work.start_with(&format!("{step}=1*off->1*sleep(12000)"), &SETS);
    // Until it has begun.
    let started = Instant::now();
    while files(&work.out(), "documents").is_empty() && started.elapsed() < Duration::from_secs(6) {
        std::thread::sleep(Duration::from_millis(10));
    }
    work.run(&SETS).expect(0, &["finished"]);
    assert!(asleep.try_wait().unwrap().is_none(), "{step}: the other one did not wait for it");
    Outcome::of(asleep.wait_with_output().unwrap()).expect(0, &["finished"]);
    assert_sound(&work.out());
    assert_same(&snapshot(&work.out()), expected, step);
}

#[test]
fn a_worker_that_is_stopped_and_continued_changes_nothing() {
    let signal = |child: &std::process::Child, name: &str| {
        let status = std::process::Command::new("kill").args([name, &child.id().to_string()]).status();
        assert!(status.unwrap().success());
    };
    let expected = undisturbed();
    for pause in [30, 60, 90, 120, 200] {
        let work = work();
        let child = work.start(&SETS);
        std::thread::sleep(Duration::from_millis(pause));
        signal(&child, "-STOP");
        // It may have the plan in its hands, but a lock held by a stopped process is released when it goes on.
        if work.out().join("_blt/plan.json").exists() {
            // Where it does hold the lock, the other one leaves the end to it.
            let other = work.blt("run", &crate::support::set_flags(&SETS));
            assert!([0, 75].contains(&other.code), "{}{}", other.stdout, other.stderr);
        }
        signal(&child, "-CONT");
        Outcome::of(child.wait_with_output().unwrap()).expect(0, &["finished"]);
        assert_sound(&work.out());
        assert_same(&snapshot(&work.out()), &expected, "stopped and continued");
    }
}

/// Scores differently, as another kind of device would, once `go` is set.
struct OtherDevice {
    begun: Arc<AtomicBool>,
    go: Arc<AtomicBool>,
}

impl EntropyModel for OtherDevice {
    fn dim(&self) -> usize {
        DIM
    }

    fn max_context(&self) -> usize {
        CONTEXT
    }

    fn device_class(&self) -> String {
        "another kind".into()
    }

    fn score(&mut self, batch: &PackedTokens, wanted: Wanted) -> Result<Scores, ModelError> {
        self.begun.store(true, Ordering::Release);
        while !self.go.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut scores = FakeModel::new(DIM, CONTEXT).score(batch, wanted)?;
        scores.entropies.iter_mut().for_each(|h| *h += 0.001);
        Ok(scores)
    }
}

#[test]
fn of_two_kinds_of_device_on_one_unit_the_first_record_stands_and_the_other_leaves_nothing() {
    let fake = || FakeModel::new(DIM, CONTEXT);
    let expected = work();
    expected.engine(&SETS, &mut fake()).unwrap();
    let work = work();
    let (begun, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut slow = OtherDevice { begun: begun.clone(), go: go.clone() };
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| work.engine(&SETS, &mut slow).unwrap());
        while !begun.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let fast = work.engine(&SETS, &mut fake()).unwrap();
        assert_eq!(fast.ending, Ending::Finished);
        go.store(true, Ordering::Release);
        let slow = slow.join().unwrap();
        assert_eq!((slow.ending, slow.run.rows), (Ending::Finished, 0));
    });
    assert_sound(&work.out());
    assert_same(&snapshot(&work.out()), &snapshot(&expected.out()), "two kinds of device");
}

#[test]
fn torn_and_empty_records_commit_nothing_and_their_units_are_done_again() {
    let expected = undisturbed();
    for (text, case) in [(&b""[..], "empty"), (b"{\"unit\": \"00000-000", "torn"), (b"\0\0\0\0", "zeros")] {
        let work = work();
        work.run(&SETS);
        let record = work.out().join("_blt/commits/00000-00003.json");
        fs::write(&record, text).unwrap();
        fs::remove_file(work.out().join("_blt/manifest.json")).unwrap();
        let status = blt(&["status", work.out().to_str().unwrap()]);
        status.expect(0, &["stopped", "11 of 12 committed", "00000-00003.json cannot be read"]);
        work.run(&SETS).expect(0, &["rows        1 read", "in all      12 rows"]);
        assert_sound(&work.out());
        let found = snapshot(&work.out());
        let tables = |all: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
            all.iter()
                .filter(|(name, _)| !name.starts_with("_blt/commits"))
                .map(|(n, b)| (n.clone(), b.clone()))
                .collect()
        };
        assert_same(&tables(&found), &tables(&expected), case);
        assert!(found.contains_key("_blt/commits/00000-00003.r1.json"), "{case}");
        work.run(&SETS).expect(0, &["was finished before"]);
    }
}

#[test]
fn clocks_that_are_a_day_off_and_claims_that_make_no_sense_do_no_harm() {
    let expected = undisturbed();
    let work = work();
    work.run_with("commit::link=3*off->return(kill)", &SETS);
    let claims = work.out().join("_blt/claims");
    let own = fs::read_dir(&claims).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&own).unwrap();
    let claim: serde_json::Value = serde_json::from_str(&text).unwrap();
    let now = claim["seen"].as_u64().unwrap();
    for (name, host, seen) in [
        ("ahead", "elsewhere", now + 86_400),
        ("behind", "elsewhere", now - 86_400),
        ("now", "elsewhere", now),
    ] {
        let mut claim = claim.clone();
        claim["host"] = host.into();
        claim["seen"] = seen.into();
        claim["since"] = (now + 2 * 86_400).into();
        fs::write(claims.join(format!("{name}.json")), claim.to_string()).unwrap();
    }
    fs::write(claims.join("torn.json"), "{").unwrap();
    fs::write(claims.join(".tmp-0123-0123-0"), "{").unwrap();
    for entry in
        walkdir::WalkDir::new(work.path("shards")).into_iter().flatten().filter(|e| e.file_type().is_file())
    {
        let yesterday = std::time::SystemTime::now() - Duration::from_secs(86_400);
        fs::File::options().append(true).open(entry.path()).unwrap().set_modified(yesterday).unwrap();
    }
    blt(&["status", work.out().to_str().unwrap()])
        .expect(0, &["on elsewhere: silent", "on elsewhere: alive"]);
    work.run(&SETS);
    assert!(!own.exists(), "the killed process is forgotten");
    assert!(!claims.join(".tmp-0123-0123-0").exists(), "and what it was about to say");
    fs::remove_dir_all(&claims).unwrap();
    assert_sound(&work.out());
    let found = snapshot(&work.out());
    assert_same(&found, &expected, "clocks");
}

#[test]
fn a_device_that_fails_fails_units_and_one_that_is_lost_ends_the_run() {
    struct Broken(fn(String) -> ModelError);
    impl EntropyModel for Broken {
        fn dim(&self) -> usize {
            DIM
        }

        fn max_context(&self) -> usize {
            CONTEXT
        }

        fn device_class(&self) -> String {
            "fake".into()
        }

        fn score(&mut self, _: &PackedTokens, _: Wanted) -> Result<Scores, ModelError> {
            Err(self.0("nobody answers".into()))
        }
    }
    let work = work();
    let run =
        |error| run(&work.plan(&SETS), &mut Broken(error), Stop::default(), &Display::Silent, &Trace::off());
    let summary = run(ModelError::Device).unwrap();
    assert_eq!((summary.ending, summary.failures.len()), (Ending::Incomplete, 12));
    assert!(summary.failures.iter().all(|f| f.reason.contains("nobody answers")));
    let lost = run(ModelError::Lost).unwrap_err().to_string();
    assert!(lost.contains("the device is lost: nobody answers; what is committed stays"), "{lost}");
    let summary = work.engine(&SETS, &mut FakeModel::new(DIM, CONTEXT)).unwrap();
    assert_eq!((summary.ending, work.plan(&SETS).start), (Ending::Finished, Start::Resume));
    assert_sound(&work.out());
}
