//! Outputs that grow, are repaired, shared by processes, started over and tidied up.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, StringArray};

use crate::support::{
    Outcome, Work, assert_same, assert_sound, blt, files, prose, read_table, set_flags, snapshot,
};

const SETS: [&str; 2] = ["sink.unit_bytes=700", "sink.embeddings=none"];

/// `rows` rows of 600 bytes, a unit each.
fn shard(work: &Work, name: &str, seed: u32, rows: u32) {
    let texts: Vec<String> = (0..rows).map(|row| prose(600, 100 * seed + row)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    work.texts(name, &texts);
}

fn run(work: &Work, flags: &[&str], sets: &[&str]) -> Outcome {
    work.blt("run", &[flags, &set_flags(&SETS), &set_flags(sets)].concat())
}

fn out(work: &Work) -> String {
    work.out().to_str().unwrap().to_owned()
}

/// The tables' files, without records.
fn tables(out: &Path) -> BTreeMap<String, Vec<u8>> {
    snapshot(out).into_iter().filter(|(name, _)| !name.starts_with("_blt")).collect()
}

fn keys(out: &Path, table: &str) -> Vec<(String, u64)> {
    let table = read_table(out, table);
    let mut keys: Vec<_> = table
        .iter()
        .flat_map(|table| {
            crate::support::rows(table).into_iter().map(|row| (row.source_file, row.source_row))
        })
        .collect();
    keys.sort();
    keys
}

#[test]
fn extend_takes_new_shards_into_a_finished_output_and_leaves_the_rest_alone() {
    let work = Work::new();
    shard(&work, "b.parquet", 1, 3);
    shard(&work, "d.parquet", 2, 3);
    run(&work, &[], &[]).expect(0, &["6 read"]);
    let before = tables(&work.out());

    // Its name sorts before the others, yet they keep their places.
    shard(&work, "a.parquet", 3, 2);
    shard(&work, "c.parquet", 4, 2);
    run(&work, &[], &[]).expect(2, &["shard a.parquet is new", "shard c.parquet is new", "--extend"]);
    let plan = work.blt("plan", &[&["--extend"], &set_flags(&SETS)[..]].concat());
    plan.expect(0, &["(6 of 10 units committed)"]);
    run(&work, &["--extend"], &[]).expect(0, &["finished", "4 read", "in all      10 rows"]);
    assert_sound(&work.out());
    let after = tables(&work.out());
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "old files stay");
    assert_eq!(keys(&work.out(), "documents").len(), 10);
    assert_eq!(files(&work.out(), "documents").iter().filter(|n| n.starts_with("00002-")).count(), 2);

    // Every day the same command, with something new or without, and after a restart without the flag.
    run(&work, &["--extend"], &[]).expect(0, &["was finished before"]);
    run(&work, &[], &[]).expect(0, &["was finished before"]);
    // Yesterday's shards need not stay where they were, once they are done.
    fs::remove_file(work.path("shards/b.parquet")).unwrap();
    run(&work, &[], &[]).expect(2, &["shard b.parquet is gone"]);
    shard(&work, "e.parquet", 5, 1);
    run(&work, &["--extend"], &[]).expect(0, &["finished", "1 read", "in all      11 rows"]);
    assert_sound(&work.out());
    // Anything else is refused as ever.
    shard(&work, "d.parquet", 9, 3);
    run(&work, &["--extend"], &[]).expect(2, &["shard d.parquet changed"]);
    run(&work, &["--extend"], &["patch.threshold=3.0"]).expect(2, &["patch.threshold was"]);
}

#[test]
fn a_shard_that_vanished_before_it_was_done_is_missed() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 4);
    work.run_with("commit::link=2*off->return(kill)", &SETS);
    fs::remove_file(work.path("shards/a.parquet")).unwrap();
    shard(&work, "b.parquet", 2, 1);
    run(&work, &["--extend"], &[])
        .expect(2, &["shard a.parquet is gone from source.uri", "unit 00000-0000", "not committed yet"]);
}

#[test]
fn extensions_of_a_running_output_meet_in_one_plan() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 12);
    // Slow enough to be running while the other comes.
    let slow = work.start_with("commit::before_record=sleep(100)", &SETS);
    let started = Instant::now();
    while !work.out().join("_blt/plan.json").exists() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    shard(&work, "b.parquet", 2, 3);
    run(&work, &["--extend"], &[]).expect(0, &["15 rows"]);
    // Whoever comes second finds nothing to do at the end, whatever it did.
    Outcome::of(slow.wait_with_output().unwrap()).expect(0, &[]);
    assert_sound(&work.out());
    assert_eq!(keys(&work.out(), "documents").len(), 15);
    run(&work, &[], &[]).expect(0, &["was finished before"]);
}

#[test]
fn restaged_shards_are_the_same_shards() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 4);
    work.run_with("commit::link=2*off->return(kill)", &SETS);
    fs::create_dir(work.path("elsewhere")).unwrap();
    fs::copy(work.path("shards/a.parquet"), work.path("elsewhere/a.parquet")).unwrap();
    let uri = format!("source.uri={}", work.path("elsewhere/*.parquet").display());
    run(&work, &[], &[&uri, "limits.memory=1 GiB", "pretokenize.workers=3", "pipeline.name=other"])
        .expect(0, &["other finished", "in all      4 rows"]);
    assert_sound(&work.out());
}

#[test]
fn shares_write_one_output_and_the_last_one_finishes_it() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 7);
    shard(&work, "b.parquet", 2, 8);
    run(&work, &[], &[]);
    let expected = snapshot(&work.out());
    let share = |index: &str| run(&work, &["--shard-index", index, "--shard-count", "3"], &[]);

    for order in [["0", "1", "2"], ["2", "0", "1"]] {
        fs::remove_dir_all(work.out()).unwrap();
        share(order[0]).expect(0, &["has done its share, 10 units are left to others", "5 read"]);
        let again = share(order[0]);
        again.expect(0, &["has done its share, 10 units are left to others", "0 read"]);
        blt(&["finalize", &out(&work)]).expect(75, &["is not complete: 10 units"]);
        share(order[1]).expect(0, &["has done its share, 5 units are left"]);
        share(order[2]).expect(0, &["finished", "5 read", "in all      15 rows"]);
        assert_same(&snapshot(&work.out()), &expected, "shares");
    }
    let environment = |variables: &[(&str, &str)]| {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"));
        command
            .args(["run", "pipeline.toml", "--shard-from-env", "--shard-count", "3"])
            .args(set_flags(&SETS));
        command.current_dir(work.path("")).envs(variables.iter().copied());
        Outcome::of(command.output().unwrap())
    };
    fs::remove_dir_all(work.out()).unwrap();
    environment(&[("JOB_COMPLETION_INDEX", "1")]).expect(0, &["10 units are left to others"]);
    environment(&[("SLURM_ARRAY_TASK_ID", "2")]).expect(0, &["5 units are left to others"]);
    environment(&[]).expect(2, &["neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"]);
    share("3").expect(2, &["share 3 of 3 does not exist"]);
    run(&work, &["--shard-index", "1"], &[]).expect(2, &["--shard-count"]);
}

#[test]
fn shares_at_once_with_one_that_is_killed_and_started_again() {
    let work = Work::new();
    for seed in 0..4 {
        shard(&work, &format!("{seed}.parquet"), seed, 9);
    }
    run(&work, &[], &[]);
    let expected = snapshot(&work.out());
    fs::remove_dir_all(work.out()).unwrap();
    let start = |index: u32, points: &str| {
        std::process::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"))
            .args(["run", "pipeline.toml", "--shard-count", "3", "--shard-index", &index.to_string()])
            .args(set_flags(&SETS))
            .current_dir(work.path(""))
            .env("FAILPOINTS", points)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let all = [start(0, ""), start(1, "model=sleep(150);commit::rename=7*off->return(kill)"), start(2, "")];
    let codes = all.map(|child| Outcome::of(child.wait_with_output().unwrap()).code);
    assert_eq!(codes, [0, -1, 0]);
    let status = blt(&["status", &out(&work)]);
    status.expect(0, &["stopped", " of 36 committed", "share 1/3: dead", "was at unit"]);
    blt(&["verify", &out(&work)]).expect(75, &[]);
    Outcome::of(start(1, "").wait_with_output().unwrap()).expect(0, &["finished"]);
    assert_sound(&work.out());
    assert_same(&snapshot(&work.out()), &expected, "killed and started again");
}

#[test]
fn processes_without_shares_do_not_do_each_others_work() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 40);
    run(&work, &[], &[]);
    let expected = snapshot(&work.out());
    fs::remove_dir_all(work.out()).unwrap();
    let slow = "model=sleep(400)";
    let children = [work.start_with(slow, &SETS), work.start_with(slow, &SETS)];
    let rows: Vec<u64> = children
        .map(|child| {
            let outcome = Outcome::of(child.wait_with_output().unwrap());
            outcome.expect(0, &[]);
            let line = outcome.stdout.lines().find(|line| line.contains(" read, ")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        })
        .into();
    assert_eq!(rows.iter().sum::<u64>(), 40, "each row counts for one of them");
    assert!(rows.iter().all(|&n| n >= 5), "{rows:?}");
    assert_same(&snapshot(&work.out()), &expected, "two processes");
}

/// Rows of 600 bytes, among them a null and two that are longer.
fn with_long_rows(work: &Work) {
    let texts: Vec<Option<String>> = (0..12)
        .map(|row| match row {
            3 => None,
            5 | 9 => Some(prose(1500, row)),
            _ => Some(prose(600, row)),
        })
        .collect();
    work.shard("a.parquet", [("text", Arc::new(StringArray::from(texts)) as ArrayRef)], 1);
}

const SHORT: &str = "limits.max_document_bytes=1000";
const ALL: &str = "limits.max_quarantined=1.0";

#[test]
fn only_quarantined_rows_units_are_done_again_and_give_what_a_new_run_would() {
    let new = Work::new();
    with_long_rows(&new);
    run(&new, &[], &[ALL]).expect(0, &["12 read, 11 documents, 1 in quarantine"]);

    let work = Work::new();
    with_long_rows(&work);
    run(&work, &[], &[ALL, SHORT]).expect(0, &["12 read, 9 documents, 3 in quarantine"]);
    // Nothing was fixed: nothing changes.
    let before = snapshot(&work.out());
    run(&work, &["--only-quarantined"], &[ALL, SHORT]).expect(0, &["finished", "3 read"]);
    assert_same(&snapshot(&work.out()), &before, "nothing was fixed");

    run(&work, &["--only-quarantined"], &[ALL])
        .expect(0, &["finished", "3 read, 2 documents, 1 in quarantine"]);
    assert_sound(&work.out());
    assert_same(&tables(&work.out()), &tables(&new.out()), "repaired");
    assert_eq!(keys(&work.out(), "quarantine"), [("a.parquet".to_owned(), 3)]);
    let records = files(&work.out(), "_blt/commits");
    assert_eq!(records.iter().filter(|name| name.contains(".r1.")).count(), 2, "{records:?}");

    run(&work, &[], &[ALL]).expect(0, &["was finished before"]);
    run(&work, &[], &[ALL, SHORT]).expect(2, &["limits.max_document_bytes was 33554432, now 1000"]);
    run(&work, &["--only-quarantined"], &[ALL, SHORT]).expect(2, &["limits.max_document_bytes was"]);
    run(&work, &["--only-quarantined"], &[ALL, "patch.threshold=3.0"]).expect(2, &["patch.threshold was"]);
}

#[test]
fn a_repair_that_is_killed_or_fails_anywhere_goes_on_to_the_same_tables() {
    let new = Work::new();
    with_long_rows(&new);
    run(&new, &[], &[ALL]);
    let expected = tables(&new.out());
    let work = Work::new();
    with_long_rows(&work);
    let steps = [
        "plan::link",
        "encode::middle",
        "commit::rename",
        "commit::before_record",
        "commit::link",
        "commit::after_record",
        "finalize::before_garbage",
        "finalize::before_manifest",
        "manifest::rename",
    ];
    for step in steps {
        for n in [0, 1] {
            for action in ["kill", "eio"] {
                let case = format!("{action} at {step} {n}");
                let _ = fs::remove_dir_all(work.out());
                run(&work, &[], &[ALL, SHORT]).expect(0, &[]);
                let flags = [&["run", "pipeline.toml", "--only-quarantined"], &set_flags(&SETS)[..]].concat();
                let broken = std::process::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"))
                    .args(&flags)
                    .args(set_flags(&[ALL]))
                    .current_dir(work.path(""))
                    .env("FAILPOINTS", format!("{step}={n}*off->return({action})"))
                    .output();
                let broken = Outcome::of(broken.unwrap());
                assert!(n == 1 || [-1, 75].contains(&broken.code), "{case}: {}", broken.stderr);
                // A plain run finishes what it finds; it does not repair, but it leaves no file that counts twice.
                let plain = run(&work, &[], &[ALL]);
                if plain.code == 0 {
                    assert_sound(&work.out());
                } else {
                    plain.expect(2, &["limits.max_document_bytes was 1000"]);
                }
                run(&work, &["--only-quarantined"], &[ALL]).expect(0, &["finished"]);
                assert_sound(&work.out());
                assert_same(&tables(&work.out()), &expected, &case);
            }
        }
    }
}

#[test]
fn repairs_at_once_meet() {
    let new = Work::new();
    with_long_rows(&new);
    run(&new, &[], &[ALL]);
    let work = Work::new();
    with_long_rows(&work);
    run(&work, &[], &[ALL, SHORT]).expect(0, &[]);
    // The plan is changed first, by one of them.
    run(&work, &["--only-quarantined"], &[ALL, "limits.max_document_bytes=1001"]).expect(0, &[]);
    run(&work, &["--only-quarantined", "--shard-index", "0", "--shard-count", "100"], &[ALL]).expect(0, &[]);
    let children: Vec<_> =
        ["commit::link=sleep(200)", "commit::rename=sleep(100)", "finalize::before_garbage=sleep(300)"]
            .iter()
            .map(|points| {
                std::process::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"))
                    .args(["run", "pipeline.toml", "--only-quarantined"])
                    .args(set_flags(&SETS))
                    .args(set_flags(&[ALL]))
                    .current_dir(work.path(""))
                    .env("FAILPOINTS", points)
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
    for child in children {
        Outcome::of(child.wait_with_output().unwrap()).expect(0, &[]);
    }
    run(&work, &[], &[ALL]).expect(0, &[]);
    assert_sound(&work.out());
    assert_same(&tables(&work.out()), &tables(&new.out()), "repairs at once");
}

#[test]
fn fresh_starts_over_and_only_when_it_is_meant() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 4);
    run(&work, &["--fresh"], &[]).expect(0, &["finished"]);
    run(&work, &["--fresh"], &[])
        .expect(2, &["--fresh would delete 4 committed units in ", "pass --yes if that is meant"]);
    assert_eq!(files(&work.out(), "_blt/commits").len(), 4);
    run(&work, &["--fresh", "--yes"], &["patch.threshold=3.0"]).expect(0, &["finished", "4 read"]);
    assert_sound(&work.out());
    let expected = snapshot(&work.out());

    // Killed while it deletes: what is left is an output with less in it.
    run(&work, &["--fresh", "--yes"], &[]).expect(0, &[]);
    for n in [0, 1, 3, 6, 9] {
        let flags = set_flags(&["patch.threshold=3.0"]);
        let broken = std::process::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"))
            .args(["run", "pipeline.toml", "--fresh", "--yes"])
            .args(set_flags(&SETS))
            .args(&flags)
            .current_dir(work.path(""))
            .env("FAILPOINTS", format!("fresh::deleting={n}*off->return(kill)"))
            .output();
        assert_eq!(Outcome::of(broken.unwrap()).code, -1, "{n}");
        run(&work, &[], &[]).expect(0, &["finished"]);
        assert_sound(&work.out());
    }
    run(&work, &["--fresh", "--yes"], &["patch.threshold=3.0"]).expect(0, &[]);
    assert_same(&snapshot(&work.out()), &expected, "fresh");

    // What is not ours stays.
    fs::write(work.out().join("documents/notes.txt"), "mine").unwrap();
    run(&work, &["--fresh", "--yes"], &[])
        .expect(2, &["documents holds files that blt-pipeline did not write"]);
    assert_eq!(fs::read(work.out().join("documents/notes.txt")).unwrap(), b"mine");
    for pair in [["--fresh", "--extend"], ["--extend", "--only-quarantined"]] {
        run(&work, &pair, &[]).expect(2, &["cannot be used with"]);
    }
}

#[test]
fn fresh_and_gc_leave_an_output_alone_that_somebody_is_at() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 8);
    let busy = work.start_with("model=sleep(300)", &SETS);
    let started = Instant::now();
    while files(&work.out(), "_blt/claims").is_empty() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    run(&work, &["--fresh", "--yes"], &[]).expect(2, &["is at work on", "stop it first"]);
    blt(&["gc", &out(&work), "--delete"]).expect(2, &["is at work on", "stop it first"]);
    let status = blt(&["status", &out(&work)]);
    status.expect(0, &["running", "alive for", "last heard of"]);
    blt(&["verify", &out(&work)]).expect(75, &["units"]);
    Outcome::of(busy.wait_with_output().unwrap()).expect(0, &["finished"]);
    assert_sound(&work.out());
}

#[test]
fn gc_lists_what_no_record_names_and_deletes_it_only_when_asked() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 4);
    work.run_with("commit::before_record=2*off->return(kill)", &SETS);
    let listed = blt(&["gc", &out(&work)]);
    listed.expect(0, &["0 files that no record names", "stays: its unit is not committed"]);
    // Of a committed unit, by another kind of device.
    let committed = files(&work.out(), "_blt/commits")[0].replace(".json", "");
    let stray = work.out().join(format!("documents/{committed}-0123abcd.parquet"));
    fs::write(&stray, "x").unwrap();
    let torn = work.out().join(format!("patches/.tmp-{committed}-0123-4"));
    fs::write(&torn, "xyz").unwrap();
    let foreign = work.out().join("documents/notes.parquet");
    fs::write(&foreign, "x").unwrap();
    let before = snapshot(&work.out());
    blt(&["gc", &out(&work)]).expect(0, &["2 files that no record names, 4 bytes; --delete deletes them"]);
    assert!(snapshot(&work.out()) == before, "a dry run");
    blt(&["gc", &out(&work), "--delete"]).expect(0, &["2 files deleted, 4 bytes"]);
    assert!(!stray.exists() && !torn.exists() && foreign.exists());
    fs::remove_file(foreign).unwrap();
    run(&work, &[], &[]).expect(0, &["finished"]);
    assert_sound(&work.out());
    blt(&["gc", &out(&work)]).expect(0, &["0 files that no record names, 0 bytes"]);
    blt(&["gc", work.path("shards").to_str().unwrap()]).expect(2, &["is no output of blt-pipeline"]);
}

#[test]
fn finalize_writes_the_manifest_that_a_killed_run_did_not() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 4);
    run(&work, &[], &[]);
    let expected = snapshot(&work.out());
    fs::remove_dir_all(work.out()).unwrap();
    work.run_with("manifest::rename=return(kill)", &SETS);
    let status = || blt(&["status", &out(&work)]);
    status().expect(0, &["complete", "4 of 4 committed"]);
    blt(&["finalize", &out(&work)]).expect(0, &["is finished"]);
    status().expect(0, &["finished"]);
    assert_sound(&work.out());
    assert_same(&snapshot(&work.out()), &expected, "finalize");
    // A file that somebody deleted is missed.
    fs::remove_file(work.out().join("_blt/manifest.json")).unwrap();
    let gone = work.out().join("documents").join(&files(&work.out(), "documents")[2]);
    fs::remove_file(&gone).unwrap();
    blt(&["finalize", &out(&work)])
        .expect(2, &[gone.to_str().unwrap(), "is gone, but a commit record names it"]);
    blt(&["finalize", "nowhere"]).expect(2, &["nowhere is no output of blt-pipeline"]);
}

#[test]
fn status_speaks_json() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 4);
    work.run_with("commit::link=3*off->return(kill)", &SETS);
    let outcome = blt(&["status", &out(&work), "--json"]);
    outcome.expect(0, &[]);
    let status: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (&status["state"], &status["units"], &status["committed"]),
        (&"stopped".into(), &4.into(), &3.into())
    );
    assert_eq!((&status["rows"], &status["counts"]["rows"]), (&4.into(), &3.into()));
    assert_eq!(status["processes"][0]["state"], "dead");
    assert_eq!(status["eta_seconds"], serde_json::Value::Null);
}

#[test]
fn a_batch_that_outlasts_the_grace_does_not_keep_the_process() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 3);
    let sets = [&SETS[..], &["limits.stop_grace_seconds=1"]].concat();
    let child = work.start_with("model=1*off->sleep(30000)", &sets);
    let started = Instant::now();
    while files(&work.out(), "_blt/commits").is_empty() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    let signal = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(signal.unwrap().success());
    let started = Instant::now();
    let outcome = Outcome::of(child.wait_with_output().unwrap());
    outcome.expect(75, &["outlasts limits.stop_grace_seconds", "the same command goes on from here"]);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(files(&work.out(), "_blt/claims").is_empty(), "clean");
    blt(&["gc", &out(&work)]).expect(0, &["0 files that no record names"]);
    run(&work, &[], &[]).expect(0, &["finished", "in all      3 rows"]);
    assert_sound(&work.out());
}

#[test]
fn a_unit_whose_torn_record_was_superseded_can_be_repaired_like_any_other() {
    let new = Work::new();
    with_long_rows(&new);
    run(&new, &[], &[ALL]);
    let work = Work::new();
    with_long_rows(&work);
    run(&work, &[], &[ALL, SHORT]).expect(0, &[]);
    for record in files(&work.out(), "_blt/commits") {
        fs::write(work.out().join("_blt/commits").join(record), "{").unwrap();
    }
    run(&work, &[], &[ALL, SHORT]).expect(0, &["12 read"]);
    assert_sound(&work.out());
    run(&work, &["--only-quarantined"], &[ALL]).expect(0, &["finished"]);
    assert_sound(&work.out());
    assert_same(&tables(&work.out()), &tables(&new.out()), "torn, done again, repaired");
    // The repair itself is torn: the record before it counts again, but its files are gone.
    let record = files(&work.out(), "_blt/commits").into_iter().find(|name| name.contains(".r2.")).unwrap();
    fs::write(work.out().join("_blt/commits").join(record), "").unwrap();
    blt(&["verify", &out(&work)]).expect(65, &["r2.json"]);
    run(&work, &[], &[ALL]).expect(2, &["run --only-quarantined"]);
    run(&work, &["--only-quarantined"], &[ALL]).expect(0, &["finished"]);
    assert_sound(&work.out());
    assert_same(&tables(&work.out()), &tables(&new.out()), "the repair was torn");
}

#[test]
fn a_run_that_ended_with_too_many_in_quarantine_can_be_repaired() {
    let work = Work::new();
    let long = prose(1500, 1);
    work.texts("a.parquet", &[&prose(600, 2), &long, &long, &prose(600, 3)]);
    let limit = "limits.max_quarantined=1";
    // Both are in one unit, so that it is committed before they are too many.
    let sets = [SHORT, limit, "sink.unit_bytes=1 MiB"];
    run(&work, &[], &sets).expect(65, &["2 of 4 rows are in quarantine"]);
    run(&work, &["--only-quarantined"], &sets).expect(65, &["2 of 4 rows are in quarantine"]);
    run(&work, &["--only-quarantined"], &[limit, "sink.unit_bytes=1 MiB"]).expect(0, &["finished", "0 "]);
    assert_sound(&work.out());
}

#[test]
fn the_share_in_quarantine_is_of_all_rows_also_of_shards_that_are_gone() {
    let work = Work::new();
    let texts: Vec<Option<String>> = (0..50).map(|row| (row > 0).then(|| prose(100, row))).collect();
    work.shard("a.parquet", [("text", Arc::new(StringArray::from(texts)) as ArrayRef)], 50);
    run(&work, &[], &["limits.max_quarantined=0.02"]).expect(0, &["1 in quarantine"]);
    fs::remove_file(work.path("shards/a.parquet")).unwrap();
    shard(&work, "b.parquet", 1, 2);
    run(&work, &["--extend"], &["limits.max_quarantined=0.02"]).expect(0, &["finished"]);
    // A repair lets go of it, too: its own row cannot be read again, and stays where it is.
    run(&work, &["--only-quarantined"], &["limits.max_quarantined=0.02"]).expect(0, &["finished"]);
    run(&work, &[], &[]).expect(2, &["shard a.parquet is gone", "--extend"]);
    assert_sound(&work.out());
}

#[test]
fn extensions_that_begin_together_all_go_on() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 2);
    run(&work, &[], &[]);
    shard(&work, "b.parquet", 2, 8);
    let children: Vec<_> = (0..4)
        .map(|_| {
            std::process::Command::new(env!("CARGO_BIN_EXE_blt-pipeline"))
                .args(["run", "pipeline.toml", "--extend"])
                .args(set_flags(&SETS))
                .current_dir(work.path(""))
                .env("FAILPOINTS", "plan::link=sleep(500)")
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        Outcome::of(child.wait_with_output().unwrap()).expect(0, &[]);
    }
    assert_sound(&work.out());
    assert_eq!(keys(&work.out(), "documents").len(), 10);
}

#[test]
fn shares_do_not_start_over() {
    let work = Work::new();
    shard(&work, "a.parquet", 1, 2);
    let flags = ["--fresh", "--yes", "--shard-index", "0", "--shard-count", "2"];
    run(&work, &flags, &[]).expect(2, &["--fresh cannot be used with shares"]);
}
