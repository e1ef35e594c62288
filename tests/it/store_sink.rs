//! Outputs in an object store: the same promise as in a folder, whatever the store and the way to it do. The store is
//! an S3 of the test's own, behind a proxy that loses, delays and refuses what it is told to.
// What it tells of a long torture is for whoever asked for one.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    fault_proxy::{Fault, FaultProxy, Faults},
    faults::{LAST_STEPS, STEPS},
    http1::Request,
    s3_server::S3Server,
    support::{Outcome, Work, assert_same, assert_sound, prose, set_flags, snapshot},
    torture::{Random, rounds},
};

const SETS: [&str; 2] = ["sink.unit_bytes=700", "sink.embeddings=none"];
const BUCKET: &str = "bucket";
const OUT: &str = "s3://bucket/some/out";
const PREFIX: &str = "some/out/";

/// Shards, and a store for their output.
struct Story {
    work: Work,
    server: Arc<S3Server>,
    proxy: FaultProxy,
    copies: AtomicU32,
}

impl Story {
    /// Two shards of 6 rows, a unit each.
    fn new() -> Self {
        let story = Story::empty();
        story.shard("a.parquet", 0, 6);
        story.shard("b.parquet", 10, 6);
        story
    }

    fn empty() -> Self {
        let server = Arc::new(S3Server::start(&[BUCKET]));
        let proxy = FaultProxy::start(server.port());
        let work = Work::new();
        fs::create_dir(work.path("tmp")).unwrap();
        Story { work, server, proxy, copies: AtomicU32::new(0) }
    }

    fn shard(&self, name: &str, seed: u32, rows: u32) {
        let texts: Vec<String> = (0..rows).map(|row| prose(600, seed + row)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.work.texts(name, &texts);
    }

    /// What an undisturbed run writes to a folder, which has a lock besides.
    fn expected(&self) -> BTreeMap<String, Vec<u8>> {
        self.work.run(&SETS);
        let mut expected = snapshot(&self.work.out());
        assert!(expected.remove("_blt/lock").is_some());
        expected
    }

    fn command(&self, points: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blt-pipeline"));
        command
            .args(arguments)
            .current_dir(self.work.path(""))
            .env_remove("RUST_LOG")
            .env("FAILPOINTS", points)
            .env("TMPDIR", self.work.path("tmp"))
            .env("BLT_NETWORK_PATIENCE", "20")
            .env("BLT_NETWORK_TIMEOUT", "1")
            .envs(S3Server::variables(&self.proxy.endpoint()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, points: &str, flags: &[&str]) -> Child {
        let arguments = [&["run", "pipeline.toml", "--output", OUT], &set_flags(&SETS)[..], flags].concat();
        self.command(points, &arguments).spawn().unwrap()
    }

    /// `blt-pipeline run … --output s3://…`, with points of failure and further flags.
    fn run_with(&self, points: &str, flags: &[&str]) -> Outcome {
        Outcome::of(self.start(points, flags).wait_with_output().unwrap())
    }

    fn run(&self) -> Outcome {
        self.run_with("", &[])
    }

    /// `blt-pipeline COMMAND s3://…`
    fn on_output(&self, command: &str, flags: &[&str]) -> Outcome {
        Outcome::of(self.command("", &[&[command, OUT], flags].concat()).output().unwrap())
    }

    /// The output as it lies in the store, copied to a folder.
    fn copy(&self) -> PathBuf {
        let folder = self.work.path(&format!("copy-{}", self.copies.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&folder).unwrap();
        self.server.download(BUCKET, PREFIX, &folder);
        folder
    }

    fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.server.object(BUCKET, &format!("{PREFIX}{name}"))
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let objects = self.server.objects(BUCKET).into_keys();
        let prefix = format!("{PREFIX}{folder}/");
        objects.filter_map(|key| Some(key.strip_prefix(&prefix)?.to_owned())).collect()
    }

    fn empty_bucket(&self) {
        for key in self.server.objects(BUCKET).into_keys() {
            self.server.remove(BUCKET, &key);
        }
    }

    /// What holds at any moment: no row is committed twice, and what is committed is whole.
    #[track_caller]
    fn assert_committed_is_whole(&self, case: &str) {
        let mut seen = std::collections::BTreeSet::new();
        for name in self.names("_blt/commits") {
            let record: Value =
                serde_json::from_slice(&self.object(&format!("_blt/commits/{name}")).unwrap()).unwrap();
            for file in record["files"].as_array().unwrap() {
                let path = file["path"].as_str().unwrap();
                let bytes = self.object(path).unwrap_or_else(|| panic!("{case}: {path} is gone"));
                assert_eq!(file["sha256"], format!("{:x}", Sha256::digest(&bytes)), "{case}: {path}");
                assert!(seen.insert(path.to_owned()), "{case}: {path} is named twice");
            }
        }
    }

    #[track_caller]
    fn assert_finished(&self, expected: &BTreeMap<String, Vec<u8>>, case: &str) {
        let copy = self.copy();
        assert_sound(&copy);
        assert_same(&snapshot(&copy), expected, case);
        assert_eq!(self.server.open_uploads(BUCKET), Vec::<String>::new(), "{case}");
    }

    /// The judge of every case.
    #[track_caller]
    fn assert_goes_on_to_the_same_bytes(&self, expected: &BTreeMap<String, Vec<u8>>, case: &str) {
        self.assert_committed_is_whole(case);
        self.run().expect(0, &["finished"]);
        self.assert_finished(expected, case);
        self.run().expect(0, &["was finished before"]);
        self.assert_finished(expected, case);
        let left: Vec<_> = fs::read_dir(self.work.path("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{case}: the spool is left behind: {left:?}");
    }
}

#[test]
fn a_document_of_an_output_in_a_store_can_be_looked_at() {
    let story = Story::new();
    story.run().expect(0, &["12 documents"]);
    let inspect = |flags: &[&str]| story.on_output("inspect", flags);
    let shown = inspect(&["--row", "7", "--source", "shards"]);
    shown.expect(0, &["b.parquet#1", "modality text"]);
    let last_word = prose(600, 11).split_whitespace().next_back().unwrap().to_owned();
    assert!(shown.stdout.replace(['│', '\n'], "").contains(&last_word), "{last_word}: {}", shown.stdout);
    inspect(&["--row", "12", "--source", "shards"]).expect(2, &["the output has 12 documents"]);
    let table = story.names("documents").remove(0);
    story.server.remove(BUCKET, &format!("{PREFIX}documents/{table}"));
    inspect(&["--row", "0", "--source", "shards"])
        .expect(75, &[&table, "no such file, but a record names it"]);
}

#[test]
fn a_store_holds_what_a_folder_holds_and_every_command_knows_it() {
    let story = Story::new();
    // More than a page.
    story.server.set_page_keys(7);
    let expected = story.expected();
    story.on_output("status", &[]).expect(2, &["s3://bucket/some/out is no output of blt-pipeline"]);
    let plan = |words: &[&str]| {
        let arguments = [&["plan", "pipeline.toml", "--output", OUT], &set_flags(&SETS)[..]].concat();
        Outcome::of(story.command("", &arguments).output().unwrap()).expect(0, words);
    };
    plan(&["s3://bucket/some/out (new)"]);
    assert!(story.server.objects(BUCKET).is_empty(), "asking writes nothing");
    story.run().expect(0, &["finished", "12 read, 12 documents", "s3://bucket/some/out"]);
    story.assert_goes_on_to_the_same_bytes(&expected, "undisturbed");
    plan(&["s3://bucket/some/out (finished)"]);
    story.on_output("status", &[]).expect(0, &["finished", "12 of 12 committed"]);
    story.on_output("verify", &[]).expect(0, &["sound and complete", "12 of 12 checked"]);
    story.on_output("finalize", &[]).expect(0, &["s3://bucket/some/out is finished"]);
    story.on_output("gc", &[]).expect(0, &["0 files that no record names"]);
    // A slash at the end is no other output.
    let flags =
        [&["run", "pipeline.toml", "--output", "s3://bucket/some/out/"], &set_flags(&SETS)[..]].concat();
    Outcome::of(story.command("", &flags).output().unwrap()).expect(0, &["was finished before"]);
    story.assert_finished(&expected, "every command");

    let document = &story.names("documents")[3];
    let bytes = story.object(&format!("documents/{document}")).unwrap();
    let mut changed = bytes.clone();
    changed[100] ^= 1;
    story.server.put(BUCKET, &format!("{PREFIX}documents/{document}"), &changed);
    story.on_output("verify", &[]).expect(65, &[document.as_str(), "its SHA-256 is"]);
    story.server.put(BUCKET, &format!("{PREFIX}documents/{document}"), &bytes[1..]);
    story.on_output("verify", &[]).expect(65, &[document.as_str(), "its record says"]);
    story.server.remove(BUCKET, &format!("{PREFIX}documents/{document}"));
    story.on_output("verify", &[]).expect(65, &[document.as_str(), "the file is gone"]);
    story.run().expect(2, &["is gone, but a commit record names it"]);
}

#[test]
fn killed_at_every_step_of_a_commit_to_a_store() {
    let story = Story::new();
    let expected = story.expected();
    for step in STEPS {
        // The first, one in the middle, the last.
        for n in [0, 5, 11] {
            let case = format!("killed at {step} number {n}");
            let outcome = story.run_with(&format!("{step}={n}*off->return(kill)"), &[]);
            assert_eq!(outcome.code, -1, "{case}: {}{}", outcome.stdout, outcome.stderr);
            assert!(story.object("_blt/manifest.json").is_none(), "{case}");
            story.assert_goes_on_to_the_same_bytes(&expected, &case);
            story.empty_bucket();
        }
    }
}

#[test]
fn killed_while_plan_or_manifest_are_put_and_again_and_again() {
    let story = Story::new();
    let expected = story.expected();
    for step in ["plan::link"].into_iter().chain(LAST_STEPS) {
        let outcome = story.run_with(&format!("{step}=return(kill)"), &[]);
        assert_eq!(outcome.code, -1, "{step}: {}{}", outcome.stdout, outcome.stderr);
        assert_eq!(story.object("_blt/manifest.json").is_some(), step == "finalize::after_manifest");
        story.assert_goes_on_to_the_same_bytes(&expected, step);
        story.empty_bucket();
    }
    for step in STEPS.into_iter().chain(LAST_STEPS) {
        story.run_with(&format!("{step}=1*off->return(kill)"), &[]);
        story.assert_committed_is_whole(step);
    }
    story.assert_goes_on_to_the_same_bytes(&expected, "again and again");
}

#[test]
fn a_disk_that_fails_on_the_way_to_a_store_ends_the_run_resumable() {
    let story = Story::new();
    let expected = story.expected();
    for step in ["encode::create", "encode::middle", "encode::after_footer"] {
        for (action, words) in [("eio", "Input/output error"), ("enospc", "free some space")] {
            let outcome = story.run_with(&format!("{step}=4*off->return({action})"), &[]);
            outcome.expect(75, &["storage failed at ", words, "TMPDIR names another folder"]);
        }
    }
    story.assert_goes_on_to_the_same_bytes(&expected, "a disk that fails");
    let missing = story.work.path("nowhere");
    let mut command = story.command("", &["run", "pipeline.toml", "--output", "s3://bucket/other"]);
    let outcome = Outcome::of(command.env("TMPDIR", &missing).output().unwrap());
    outcome.expect(75, &["storage failed at ", missing.to_str().unwrap(), "TMPDIR names another folder"]);
}

/// Whether a request puts the commit record of unit `unit`.
fn puts_record(request: &Request, unit: &str) -> bool {
    request.method == "PUT" && request.target.contains(&format!("_blt/commits/{unit}.json"))
}

#[test]
fn a_lost_answer_to_the_put_of_a_record_is_no_lost_and_no_double_commit() {
    let expected = Story::new().expected();
    for fault in [
        Fault::LoseAnswer,
        Fault::LoseAnswerReset,
        Fault::Status500Done,
        Fault::CutBody,
        Fault::Status409,
        Fault::ResetBefore,
    ] {
        let story = Story::new();
        for unit in ["00000-00000", "00000-00003", "00001-00005"] {
            story.proxy.next(fault, move |request| puts_record(request, unit));
        }
        story.proxy.next(fault, |request| request.method == "PUT" && request.target.contains("plan.json"));
        // A put without a condition meets no conflict.
        if fault != Fault::Status409 {
            let puts =
                |request: &Request| request.method == "PUT" && request.target.contains("manifest.json");
            story.proxy.next(fault, puts);
        }
        let outcome = story.run();
        // Every unit is ours: the answer that never came is not taken for another's commit.
        outcome.expect(0, &["finished", "12 read, 12 documents"]);
        assert!(!outcome.stderr.contains("another process"), "{fault:?}: {}", outcome.stderr);
        assert_eq!(story.proxy.armed(), 0, "{fault:?}: every fault met its request");
        story.assert_finished(&expected, &format!("{fault:?}"));
    }
}

#[test]
fn a_store_that_is_gone_in_the_middle_of_a_commit_leaves_a_question_that_the_next_run_answers() {
    let expected = Story::new().expected();
    for (fault, is_committed) in [(Fault::LoseAnswerReset, true), (Fault::ResetBefore, false)] {
        let story = Story::new();
        story.proxy.next(fault, |request| puts_record(request, "00000-00003"));
        // And from then on nothing is answered any more.
        let gone = Arc::new(AtomicBool::new(false));
        story.proxy.set_faults(Faults {
            fraction: 1.0,
            kinds: vec![Fault::ResetBefore],
            only: Box::new(move |request| {
                let now = puts_record(request, "00000-00003") || gone.load(Ordering::Relaxed);
                gone.store(now, Ordering::Relaxed);
                now
            }),
            ..Faults::none()
        });
        let arguments = [&["run", "pipeline.toml", "--output", OUT], &set_flags(&SETS)[..]].concat();
        let mut command = story.command("", &arguments);
        let outcome = Outcome::of(command.env("BLT_NETWORK_PATIENCE", "1").output().unwrap());
        outcome.expect(
            75,
            &[
                "it is not known whether unit 00000-00003 is committed",
                "s3://bucket/some/out/_blt/commits/00000-00003.json",
                "the same command again finds out",
            ],
        );
        story.proxy.set_faults(Faults::none());
        let record = story.object("_blt/commits/00000-00003.json");
        assert_eq!(record.is_some(), is_committed, "{fault:?}");
        story.assert_goes_on_to_the_same_bytes(&expected, &format!("{fault:?}"));
        if let Some(record) = record {
            assert_eq!(story.object("_blt/commits/00000-00003.json"), Some(record), "it stands");
        }
    }
}

#[test]
fn a_store_that_fails_one_request_in_ten_is_waited_for() {
    let expected = Story::new().expected();
    for (seed, kinds) in [
        (1, vec![Fault::Status503]),
        (2, vec![Fault::Timeout]),
        (3, vec![Fault::Status429, Fault::Status500]),
        // A conflict is an answer to a condition only.
        (4, Fault::ALL.into_iter().filter(|&fault| fault != Fault::Status409).collect()),
    ] {
        let story = Story::new();
        let hold = Duration::from_secs(2);
        let case = format!("{kinds:?}");
        story.proxy.set_faults(Faults { seed, fraction: 0.1, kinds, hold, ..Faults::none() });
        story.run().expect(0, &["finished", "12 read"]);
        let log = story.proxy.log();
        let failed = log.iter().filter(|entry| entry.fault.is_some()).count();
        assert!(failed > 0, "{case}: none of {} requests failed", log.len());
        assert_eq!(story.proxy.violations(), 0, "{case}");
        story.on_output("verify", &[]).expect(0, &["sound and complete"]);
        story.proxy.set_faults(Faults::none());
        story.assert_finished(&expected, &case);
    }
}

#[test]
fn a_unit_costs_few_requests_and_an_output_that_is_finished_few_altogether() {
    let story = Story::new();
    story.run().expect(0, &["finished"]);
    let log = story.proxy.log();
    // Its two tables, whether they are there, its record; a look at claims now and then; the records once more at the end,
    // a request each.
    let of_units = log.iter().filter(|entry| !entry.target.contains("claims")).count();
    let listed: Vec<String> = log.iter().map(|entry| format!("{} {}", entry.method, entry.target)).collect();
    assert!(of_units <= 12 * 7 + 35, "{of_units} requests for 12 units:\n{}", listed.join("\n"));
    let claims = log.iter().filter(|entry| entry.target.contains("claims") && entry.method == "PUT").count();
    assert!(claims <= 4 + 2 * log.last().unwrap().at.as_secs() as usize, "{claims} claims");
}

#[test]
fn processes_on_one_store_commit_each_unit_once() {
    let story = Story::empty();
    for shard in 0..4 {
        story.shard(&format!("{shard}.parquet"), 100 * shard, 10);
    }
    let expected = story.expected();
    for _ in 0..3 {
        let children: Vec<Child> =
            (0..3).map(|_| story.start("commit::before_record=sleep(20)", &[])).collect();
        let mut read = 0;
        for child in children {
            let outcome = Outcome::of(child.wait_with_output().unwrap());
            assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
            let rows = outcome.stdout.lines().find_map(|line| line.trim().strip_prefix("rows "));
            read += rows.map_or(0, |rows| rows.trim().split(' ').next().unwrap().parse::<u32>().unwrap());
        }
        assert_eq!(read, 40, "each unit is one process's");
        story.assert_finished(&expected, "three processes");
        story.empty_bucket();
    }
    // With shares of their own, one of which is killed and started again.
    let share = |points, index| story.run_with(points, &["--shard-index", index, "--shard-count", "2"]);
    share("", "1").expect(0, &["left to other"]);
    assert_eq!(share("commit::link=3*off->return(kill)", "0").code, -1);
    story.on_output("finalize", &[]).expect(75, &["is not complete"]);
    story.on_output("verify", &[]).expect(75, &["sound so far, not complete"]);
    story.on_output("status", &[]).expect(0, &["stopped", "of 40 committed"]);
    share("", "0").expect(0, &["finished"]);
    story.assert_goes_on_to_the_same_bytes(&expected, "shares");
}

#[test]
fn a_process_that_sleeps_at_any_step_while_another_does_its_unit() {
    let expected = Story::new().expected();
    std::thread::scope(|scope| {
        for step in STEPS {
            let expected = &expected;
            scope.spawn(move || {
                let story = Story::new();
                let mut asleep = story.start(&format!("{step}=1*off->1*sleep(12000)"), &[]);
                let started = Instant::now();
                while story.names("_blt/claims").is_empty() && started.elapsed() < Duration::from_secs(6) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                story.run().expect(0, &["finished"]);
                assert!(asleep.try_wait().unwrap().is_none(), "{step}: the other one did not wait for it");
                Outcome::of(asleep.wait_with_output().unwrap()).expect(0, &["finished"]);
                story.assert_finished(expected, step);
            });
        }
    });
}

#[test]
fn who_loses_a_unit_takes_its_files_back_and_what_a_dead_one_left_goes_at_the_end() {
    let story = Story::new();
    story.expected();
    // Another kind of device was faster at 00000-00003, and one that died wrote of 00000-00001.
    let record: Value =
        serde_json::from_slice(&fs::read(story.work.out().join("_blt/commits/00000-00003.json")).unwrap())
            .unwrap();
    let mut child = story.start("commit::before_record=1*sleep(5000)", &[]);
    let started = Instant::now();
    while story.names("documents").is_empty() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let other = b"what another kind of device made of it";
    let sha256 = format!("{:x}", Sha256::digest(other));
    let mut winner = record.clone();
    for file in winner["files"].as_array_mut().unwrap() {
        let path = format!("{}/00000-00003-{}.parquet", file["table"].as_str().unwrap(), &sha256[..8]);
        story.server.put(BUCKET, &format!("{PREFIX}{path}"), other);
        file["path"] = path.into();
        file["sha256"] = sha256.clone().into();
        file["bytes"] = other.len().into();
    }
    winner["device_class"] = "another kind".into();
    let record_key = format!("{PREFIX}_blt/commits/00000-00003.json");
    story.server.put(BUCKET, &record_key, winner.to_string().as_bytes());
    let dead = format!("{PREFIX}documents/00000-00001-0123abcd.parquet");
    story.server.put(BUCKET, &dead, b"dead");
    let stranger = format!("{PREFIX}documents/notes.txt");
    story.server.put(BUCKET, &stranger, b"mine");
    story.on_output("gc", &["--delete"]).expect(2, &["is at work on s3://bucket/some/out; stop it first"]);
    assert!(child.try_wait().unwrap().is_none());
    Outcome::of(child.wait_with_output().unwrap())
        .expect(0, &["was committed by another process", "finished"]);
    let own = &record["files"][0]["path"].as_str().unwrap();
    assert!(story.object(own).is_none(), "the loser's own files are gone");
    assert!(story.object(winner["files"][0]["path"].as_str().unwrap()).is_some(), "the winner's stay");
    assert!(story.server.object(BUCKET, &dead).is_none(), "a dead one's are garbage once there is a record");
    assert!(story.server.object(BUCKET, &stranger).is_some(), "what is not ours stays");
    let manifest: Value = serde_json::from_slice(&story.object("_blt/manifest.json").unwrap()).unwrap();
    assert_eq!(manifest["device_classes"].as_array().unwrap().len(), 2);
    // Without either it is as ever.
    story.server.remove(BUCKET, &stranger);
    story.on_output("gc", &["--delete"]).expect(0, &["0 files deleted"]);
    story.server.put(BUCKET, &dead, b"dead");
    story
        .on_output("gc", &[])
        .expect(0, &["0123abcd.parquet  (can be deleted)", "1 files that no record names"]);
    story.on_output("gc", &["--delete"]).expect(0, &["1 files deleted, 4 bytes"]);
    assert!(story.server.object(BUCKET, &dead).is_none());
}

#[test]
fn a_store_that_does_not_keep_conditions_is_refused_before_anything_is_committed() {
    let story = Story::new();
    story.server.set_ignores_conditions(true);
    story.run().expect(2, &["sink.uri", "does not keep the condition `If-None-Match: *`"]);
    assert!(story.names("_blt/commits").is_empty() && story.names("documents").is_empty());
    story.server.set_ignores_conditions(false);
    story.run().expect(0, &["finished"]);
}

#[test]
fn the_marks_that_some_tools_put_for_folders_are_no_files() {
    let story = Story::new();
    let expected = story.expected();
    for folder in ["", "_blt/"] {
        story.server.put(BUCKET, &format!("{PREFIX}{folder}"), b"");
    }
    story.run().expect(0, &["finished"]);
    story.run_with("", &["--fresh", "--yes"]).expect(0, &["finished"]);
    for folder in ["", "_blt/"] {
        story.server.remove(BUCKET, &format!("{PREFIX}{folder}"));
    }
    story.assert_finished(&expected, "with marks");
}

#[test]
fn starting_over_deletes_the_output_and_nothing_else() {
    let story = Story::new();
    let expected = story.expected();
    story.server.put(BUCKET, "some/outside.txt", b"mine");
    story.run().expect(0, &["finished"]);
    let fresh = |points, more: &[&str]| story.run_with(points, &[&["--fresh"], more].concat());
    fresh("", &[]).expect(2, &["--fresh would delete 12 committed units in s3://bucket/some/out"]);
    let outcome = fresh("fresh::deleting=7*off->return(kill)", &["--yes"]);
    assert_eq!(outcome.code, -1, "{}", outcome.stderr);
    assert!(story.object("_blt/plan.json").is_some(), "the plan goes last");
    assert!(story.object("_blt/manifest.json").is_none(), "the manifest goes first");
    story.assert_goes_on_to_the_same_bytes_beside("some/outside.txt", &expected, "killed while it deleted");
    fresh("", &["--yes"]).expect(0, &["finished", "12 read"]);
    story.assert_finished(&expected, "fresh");

    // Nobody deletes from under a process that is alive.
    let mut child = story.start("commit::before_record=1*off->1*sleep(4000)", &["--fresh", "--yes"]);
    let started = Instant::now();
    while story.names("_blt/claims").is_empty() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    fresh("", &["--yes"]).expect(2, &["is at work on s3://bucket/some/out; stop it first"]);
    assert!(child.try_wait().unwrap().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    story.assert_finished(&expected, "the one at work");

    story.server.put(BUCKET, &format!("{PREFIX}documents/notes.txt"), b"mine");
    fresh("", &["--yes"]).expect(2, &["holds files that blt-pipeline did not write"]);
    assert!(story.server.object(BUCKET, &format!("{PREFIX}documents/notes.txt")).is_some());
    assert!(story.server.object(BUCKET, "some/outside.txt").is_some());
}

impl Story {
    fn assert_goes_on_to_the_same_bytes_beside(
        &self,
        other: &str,
        expected: &BTreeMap<String, Vec<u8>>,
        case: &str,
    ) {
        self.assert_goes_on_to_the_same_bytes(expected, case);
        assert!(self.server.object(BUCKET, other).is_some(), "{case}: {other} is another's");
    }
}

#[test]
fn an_output_that_grows_while_it_is_being_finished_gets_the_manifest_of_all() {
    let story = Story::empty();
    story.shard("a.parquet", 0, 4);
    let finishing = story.start("finalize::before_manifest=1*sleep(5000)", &[]);
    let started = Instant::now();
    while story.names("_blt/commits").len() < 4 && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(1500));
    story.shard("b.parquet", 100, 3);
    story.run_with("", &["--extend"]).expect(0, &["finished", "3 read", "in all      7 rows"]);
    Outcome::of(finishing.wait_with_output().unwrap()).expect(0, &["finished"]);
    assert_sound(&story.copy());
    story.on_output("status", &[]).expect(0, &["finished", "7 of 7 committed"]);
    story.run().expect(0, &["was finished before"]);
}

#[test]
fn an_output_that_another_process_begins_at_the_same_moment_is_no_foreign_folder() {
    let story = Story::new();
    story.run().expect(0, &["finished"]);
    let theirs = story.server.objects(BUCKET);
    story.empty_bucket();
    // It found no plan, and now looks what else is there.
    let server = story.server.clone();
    let lists_all = move |request: &Request| {
        if request.target.ends_with("prefix=some%2Fout%2F") {
            theirs.iter().for_each(|(key, bytes)| server.put(BUCKET, key, bytes));
        }
        false
    };
    let kinds = vec![Fault::Timeout];
    story.proxy.set_faults(Faults { fraction: 1.0, kinds, only: Box::new(lists_all), ..Faults::none() });
    story.run().expect(0, &["was finished before"]);
}

#[test]
fn what_cannot_be_an_output_is_refused_with_the_reason() {
    let story = Story::new();
    let run = |out: &str, change: &dyn Fn(&mut Command)| {
        let mut command = story.command("", &["run", "pipeline.toml", "--output", out]);
        change(&mut command);
        Outcome::of(command.output().unwrap())
    };
    let as_is = |_: &mut Command| {};
    run("s3://nobucket/out", &as_is).expect(2, &["s3://nobucket/out", "there is no such object or bucket"]);
    let guessed = |command: &mut Command| {
        command.env("AWS_SECRET_ACCESS_KEY", "guessed");
    };
    run(OUT, &guessed).expect(2, &[OUT, "access is denied", "AWS_SECRET_ACCESS_KEY"]);
    for uri in ["https://example.org/out", "ftp://example.org/out"] {
        run(uri, &as_is).expect(2, &["sink.uri = ", uri, "local folders, s3://, gs:// and az:// only"]);
    }
    run("hf://datasets/a/b", &as_is)
        .expect(2, &["sink.uri = ", "`blt-pipeline push` brings a finished one to the Hub"]);
    story.server.put(BUCKET, "photos/cat.jpg", b"meow");
    run("s3://bucket/photos", &as_is)
        .expect(2, &["sink.uri: s3://bucket/photos is not empty and no output", "it holds cat.jpg"]);
    run("s3://bucket", &as_is)
        .expect(2, &["sink.uri: s3://bucket is not empty and no output", "it holds photos"]);
    assert_eq!(story.server.objects(BUCKET).len(), 1, "nothing was written");
    story.run().expect(0, &["finished"]);
    let repair = story.run_with("", &["--only-quarantined"]);
    repair.expect(2, &["--only-quarantined needs file locks", "repair it there, and copy it back"]);
    let other = story.run_with("", &["--set", "patch.threshold=3.0"]);
    other.expect(2, &["s3://bucket/some/out holds the output of another plan", "patch.threshold was"]);
}

#[test]
fn without_credentials_the_variables_are_named() {
    let story = Story::new();
    let mut command = story.command("", &["run", "pipeline.toml", "--output", OUT]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let started = Instant::now();
    let outcome = Outcome::of(command.output().unwrap());
    outcome.expect(2, &[OUT, "there are no credentials", "AWS_ACCESS_KEY_ID"]);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

/// One unit of more than 20 MB.
const LARGE: [&str; 4] = [
    "--set=sink.unit_bytes=1 MiB",
    "--set=sink.embeddings=byte",
    "--set=sink.embedding_dtype=f32",
    "--set=sink.compression=none",
];

fn large() -> Story {
    let story = Story::empty();
    let texts: Vec<String> = (0..4).map(|row| prose(75_000, row)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    story.work.texts("a.parquet", &texts);
    story
}

#[test]
fn the_disk_on_the_way_to_a_store_needs_room_for_the_units_that_wait() {
    let Some(disk) = crate::storage::SmallDisk::new("a small disk before a store") else { return };
    let story = large();
    let run = |flags: &[&str]| {
        let arguments = [&["run", "pipeline.toml", "--output", OUT], &LARGE[..], flags].concat();
        Outcome::of(story.command("", &arguments).env("TMPDIR", &disk.folder).output().unwrap())
    };
    let place = disk.folder.to_str().unwrap();
    run(&[]).expect(
        2,
        &["what waits for the store at once will take about", place, "TMPDIR", "--no-space-check"],
    );
    assert!(story.server.objects(BUCKET).is_empty(), "nothing is written before that");
    run(&["--no-space-check"])
        .expect(75, &["storage failed at", place, "TMPDIR names another folder", "free some space"]);
    assert_eq!(fs::read_dir(&disk.folder).unwrap().count(), 0, "it is empty again");
    // However little room there is for all of the output.
    let small = [&["--limit", "1"], &set_flags(&SETS)[..]].concat();
    let arguments = [&["run", "pipeline.toml", "--output", "s3://bucket/small"], &small[..]].concat();
    let outcome = story.command("", &arguments).env("TMPDIR", &disk.folder).output().unwrap();
    Outcome::of(outcome).expect(0, &["finished"]);
}

#[test]
fn large_files_go_in_parts_whatever_becomes_of_one() {
    let story = large();
    story.work.blt("run", &LARGE).expect(0, &["finished"]);
    let mut expected = snapshot(&story.work.out());
    expected.remove("_blt/lock");
    let largest = expected.values().map(Vec::len).max().unwrap();
    assert!(largest > 20 << 20, "{largest} bytes go in more than one part");
    for forgets in [false, true] {
        story.server.set_forgets_completed(forgets);
        let is_of_parts = |request: &Request| request.target.contains("uploadId=");
        story.proxy.next(Fault::LoseAnswer, is_of_parts);
        story.proxy.next(Fault::ResetBefore, is_of_parts);
        story.proxy.next(Fault::Status503, is_of_parts);
        let completes = |request: &Request| request.method == "POST" && request.target.contains("uploadId=");
        story.proxy.next(Fault::LoseAnswerReset, completes);
        let arguments = [&["run", "pipeline.toml", "--output", OUT], &LARGE[..]].concat();
        let run = || Outcome::of(story.command("", &arguments).output().unwrap());
        run().expect(0, &["finished"]);
        assert_eq!(story.proxy.armed(), 0);
        story.assert_finished(&expected, &format!("forgets completed uploads: {forgets}"));
        run().expect(0, &["was finished before"]);
        story.on_output("verify", &[]).expect(0, &["sound and complete"]);
        story.empty_bucket();
    }
}

#[test]
fn a_store_that_does_not_answer_keeps_no_run_from_stopping() {
    let expected = Story::new().expected();
    // While files are put, records, and the manifest.
    for part in ["/documents/", "/commits/", "/manifest.json"] {
        let story = Story::new();
        story.proxy.set_faults(Faults {
            fraction: 1.0,
            kinds: vec![Fault::Timeout],
            only: Box::new(move |request| request.method == "PUT" && request.target.contains(part)),
            hold: Duration::from_secs(60),
            ..Faults::none()
        });
        let arguments = [&["run", "pipeline.toml", "--output", OUT], &set_flags(&SETS)[..]].concat();
        let mut command = story.command("", &arguments);
        command.args(["--set", "limits.stop_grace_seconds=1"]);
        // As it is where nobody says otherwise.
        command.env_remove("BLT_NETWORK_TIMEOUT").env_remove("BLT_NETWORK_PATIENCE");
        let mut child = command.spawn().unwrap();
        let started = Instant::now();
        let hangs = || story.proxy.log().iter().any(|entry| entry.fault.is_some());
        while !hangs() && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(child.try_wait().unwrap().is_none());
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(status.unwrap().success());
        let asked = Instant::now();
        let outcome = Outcome::of(child.wait_with_output().unwrap());
        assert!(asked.elapsed() < Duration::from_secs(15), "{part}: {:?}", asked.elapsed());
        outcome.expect(75, &["or a request to a store, outlasts limits.stop_grace_seconds"]);
        story.proxy.set_faults(Faults::none());
        story.assert_goes_on_to_the_same_bytes(&expected, part);
    }
}

#[test]
fn killed_at_random_with_a_store() {
    let story = Story::empty();
    for shard in 0..3 {
        story.shard(&format!("{shard}.parquet"), 100 * shard, 12);
    }
    let expected = story.expected();
    let mut random = Random::new(7);
    for processes in [1, 3] {
        // Worst first: everything that can go wrong on the way, too.
        let seed = random.below(1 << 30);
        let kinds = vec![Fault::Status503, Fault::LoseAnswer, Fault::LoseAnswerReset, Fault::ResetBefore];
        story.proxy.set_faults(Faults { seed, fraction: 0.03, kinds, ..Faults::none() });
        let (mut n, mut kills, mut finished) = (0, 0, 0);
        while n < rounds("BLT_TORTURE_ROUNDS_STORE", 10) || finished == 0 {
            n += 1;
            assert!(n < 1000, "it never finishes");
            let mut children: Vec<Child> = (0..processes).map(|_| story.start("", &[])).collect();
            let patience = Duration::from_micros(random.below(2_500_000));
            let started = Instant::now();
            while started.elapsed() < patience
                && children.iter_mut().any(|child| child.try_wait().unwrap().is_none())
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            for mut child in children {
                let _ = child.kill();
                let outcome = child.wait_with_output().unwrap();
                let told = String::from_utf8(outcome.stderr).unwrap();
                assert!(matches!(outcome.status.code(), None | Some(0)), "{}: {told}", outcome.status);
                kills += u32::from(outcome.status.code().is_none());
            }
            story.assert_committed_is_whole(&format!("round {n}"));
            if story.object("_blt/manifest.json").is_some() {
                finished += 1;
                story.run().expect(0, &["finished"]);
                story.assert_finished(&expected, &format!("round {n} of {processes} processes"));
                story.empty_bucket();
            }
        }
        println!("store: {n} rounds of {processes} processes, {kills} killed, {finished} outputs the same");
        assert!(kills > 0, "nobody was killed");
        story.proxy.set_faults(Faults::none());
        story.run().expect(0, &["finished"]);
        story.assert_goes_on_to_the_same_bytes(&expected, "at last");
        story.empty_bucket();
    }
}
