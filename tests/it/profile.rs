//! `--profile`: a timeline of every stage that is JSON however the run ends, agrees with the summary, and changes no byte.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use blt_pipeline::{
    model::FakeModel,
    pipeline::{Display, Stop, Trace, run},
};
use serde_json::Value;

use crate::support::{CONTEXT, DIM, Outcome, Work, assert_same, files, prose, set_flags, snapshot};

const STAGES: [&str; 8] = ["source", "pretokenize", "pack", "model", "patch", "encode", "compress", "commit"];

/// 40 documents of 1,000 bytes in many units.
fn work() -> Work {
    let texts: Vec<String> = (0..40).map(|i| prose(1000, i)).collect();
    Work::with(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

const SETS: [&str; 2] = ["sink.unit_bytes=2 KB", "sink.embeddings=patch"];

fn events(path: &Path) -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Something that a thread did, in nanoseconds since the start.
#[derive(Debug)]
struct Span {
    name: String,
    is_work: bool,
    unit: Option<String>,
    start: u64,
    end: u64,
}

/// Names of threads and what they did, by track.
fn tracks(events: &[Value]) -> BTreeMap<u64, (String, Vec<Span>)> {
    let mut tracks: BTreeMap<u64, (String, Vec<Span>)> = BTreeMap::new();
    let nanos = |value: &Value| (value.as_f64().unwrap() * 1000.0).round() as u64;
    for event in events {
        let track = tracks.entry(event["tid"].as_u64().unwrap()).or_default();
        if event["name"] == "thread_name" {
            track.0 = event["args"]["name"].as_str().unwrap().to_owned();
        }
        if event["ph"] == "X" {
            let start = nanos(&event["ts"]);
            track.1.push(Span {
                name: event["name"].as_str().unwrap().to_owned(),
                is_work: event["cat"] == "work",
                unit: event["args"]["unit"].as_str().map(str::to_owned),
                start,
                end: start + nanos(&event["dur"]),
            });
        }
    }
    tracks
}

#[test]
fn a_timeline_has_every_stage_and_agrees_with_the_summary() {
    let work = work();
    let path = work.path("trace.json");
    let trace = Trace::create(&path).unwrap();
    let mut model = FakeModel::new(DIM, CONTEXT).with_sleep(Duration::from_millis(2));
    let plan = work.plan(&SETS);
    let summary = run(&plan, &mut model, Stop::default(), &Display::Silent, &trace).unwrap();
    let events = events(&path);

    let mut work_seconds: BTreeMap<String, f64> = BTreeMap::new();
    let mut units_scored: Vec<String> = Vec::new();
    for (thread, mut spans) in tracks(&events).into_values() {
        // A span that begins earlier, or ends later, holds the other one.
        spans.sort_by_key(|span| (span.start, u64::MAX - span.end));
        let mut open: Vec<&Span> = Vec::new();
        for span in &spans {
            open.retain(|outer| outer.end > span.start);
            let outer = open.last();
            assert!(outer.is_none_or(|outer| outer.end >= span.end), "{thread}: {outer:?} cuts {span:?}");
            let seconds = (span.end - span.start) as f64 / 1e9;
            if span.is_work {
                assert!(open.is_empty(), "{thread}: {span:?} inside of {outer:?}");
                assert_eq!(span.name, thread);
                *work_seconds.entry(thread.clone()).or_default() += seconds;
                if thread == "model" {
                    units_scored.push(span.unit.clone().expect("work is for a unit"));
                }
            } else if outer.is_some_and(|outer| outer.is_work) {
                // A wait in the middle of work is no work.
                *work_seconds.entry(thread.clone()).or_default() -= seconds;
            }
            open.push(span);
        }
    }
    units_scored.dedup();
    let units: Vec<String> = plan.units.iter().map(|unit| unit.id.to_string()).collect();
    assert!(units.len() > 5);
    assert_eq!(units_scored, units, "each unit once, in their order");

    assert_eq!(work_seconds.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut stages = STAGES;
        stages.sort();
        stages
    });
    for stage in &summary.stages {
        let traced = work_seconds[stage.name];
        // Waits of less than 0.1 ms are left out, and a unit has some of them. On a busy machine a thread is also put aside between
        // the two readings of its clock: 25 ms of 160 were seen.
        let tolerance = 0.25 * stage.busy + 0.001 * units.len() as f64;
        assert!((traced - stage.busy).abs() <= tolerance, "{}: {traced} for {}", stage.name, stage.busy);
    }
    for name in ["source to pretokenize", "patch to encode", "encode to compress", "bytes in flight"] {
        let values =
            events.iter().filter(|e| e["name"] == name).map(|e| e["args"]["value"].as_u64().unwrap());
        let values: Vec<u64> = values.collect();
        assert!(values.iter().any(|&value| value > 0), "{name}");
        assert_eq!(values.last(), Some(&0), "{name}: empty at the end");
    }
}

#[test]
fn a_profile_changes_no_byte() {
    let (plain, profiled) = (work(), work());
    plain.run(&SETS);
    profiled.blt("run", &[&["--profile", "trace.json"], &set_flags(&SETS)[..]].concat()).expect(0, &[]);
    assert!(events(&profiled.path("trace.json")).len() > 100);
    assert_same(&snapshot(&profiled.out()), &snapshot(&plain.out()), "with a profile");
}

#[test]
fn a_profile_is_whole_however_the_run_ends() {
    let flags = [&["--profile", "trace.json"], &set_flags(&SETS)[..]].concat();
    // Fails for good, cannot write, is killed by itself.
    for (points, code) in [
        ("patch=panic(broken)", 70),
        ("encode::middle=5*off->return(enospc)", 75),
        ("commit::link=5*off->return(kill)", -1),
    ] {
        let work = work();
        let outcome = Outcome::of(work.start_flags(points, &flags).wait_with_output().unwrap());
        outcome.expect(code, &[]);
        let events = events(&work.path("trace.json"));
        if code >= 0 {
            let stages: Vec<String> = tracks(&events).into_values().map(|(thread, _)| thread).collect();
            assert!(STAGES.iter().all(|stage| stages.iter().any(|s| s == stage)), "{points}: {stages:?}");
        }
    }
    // Is asked to stop, asked twice, killed.
    for signals in [&["-TERM"][..], &["-TERM", "-TERM"], &["-KILL"]] {
        let work = work();
        let mut child = work.start_flags("model=sleep(100)", &flags);
        let started = Instant::now();
        while files(&work.out(), "_blt/commits").len() < 3 && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before its signal");
        for name in signals {
            let sent = Command::new("kill").args([*name, &child.id().to_string()]).status();
            assert!(sent.unwrap().success());
            std::thread::sleep(Duration::from_millis(20));
        }
        child.wait().unwrap();
        let events = events(&work.path("trace.json"));
        assert!(tracks(&events).into_values().any(|(thread, spans)| thread == "model" && !spans.is_empty()));
    }
}

#[test]
fn a_profile_that_cannot_be_written_is_said_before_anything_is_done() {
    let work = work();
    let flags = [&["--profile", "no/such/folder/trace.json"], &set_flags(&SETS)[..]].concat();
    work.blt("run", &flags).expect(2, &["--profile", "failed to create no/such/folder/trace.json"]);
    assert!(!work.out().exists());
}
