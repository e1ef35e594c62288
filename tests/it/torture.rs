//! Runs that are started and killed at random moments, alone and several at once, until their output is finished:
//! it must be the undisturbed one's, byte for byte. Short by default; `tests/README.md` has the long command.
// What it tells of a long torture is for whoever asked for one.
#![allow(clippy::print_stdout)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use blt_pipeline::{
    model::FakeModel,
    pipeline::{Display, Ending, Stop, Trace, run},
};

use crate::support::{CONTEXT, DIM, Work, assert_same, assert_sound, files, prose, set_flags, snapshot};

/// Numbers that differ from start to start, but can be had again by `BLT_TORTURE_SEED`.
pub struct Random(u64);

impl Random {
    pub fn new(story: u64) -> Self {
        let seed = match std::env::var("BLT_TORTURE_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => {
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
            }
        };
        println!("BLT_TORTURE_SEED={seed}");
        Random(seed ^ story.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

pub fn rounds(variable: &str, short: u32) -> u32 {
    std::env::var(variable).map_or(short, |n| n.parse().unwrap())
}

/// The four shards of FineWeb where they are, else shards of our own.
fn shards(work: &Work) -> PathBuf {
    match std::env::var_os("BLT_SHARED") {
        Some(shared) => PathBuf::from(shared).join("data/fineweb"),
        None => {
            crate::storage::skipped(
                "torture over FineWeb",
                "BLT_SHARED is not set; generated shards instead",
            );
            for shard in 0..4 {
                let texts: Vec<String> = (0..300).map(|row| prose(2000, 1000 * shard + row)).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                work.texts(&format!("{shard}.parquet"), &texts);
            }
            work.path("shards")
        }
    }
}

struct Torture<'a> {
    rounds: u32,
    processes: u64,
    /// A process lives for less than this before it is killed.
    longest: Duration,
    out: &'a Path,
    start: &'a dyn Fn() -> Child,
}

impl Torture<'_> {
    /// Starts and kills until both `rounds` are over and an output is finished; compares every finished output.
    fn until_finished(&self, random: &mut Random, mut check: impl FnMut(u32)) -> (u32, u32) {
        let (mut rounds, mut kills) = (0, 0);
        let mut finished = 0;
        while rounds < self.rounds || finished == 0 {
            rounds += 1;
            assert!(rounds < 100 * self.rounds.max(10), "it never finishes");
            let mut children: Vec<Child> = (0..self.processes).map(|_| (self.start)()).collect();
            let patience = Duration::from_micros(random.below(self.longest.as_micros() as u64));
            let started = Instant::now();
            while started.elapsed() < patience
                && children.iter_mut().any(|child| child.try_wait().unwrap().is_none())
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            for child in &mut children {
                // SIGKILL; one after the other, so that they die at different steps.
                let _ = child.kill();
                let status = child.wait().unwrap();
                assert!(matches!(status.code(), None | Some(0)), "{status}");
                kills += u32::from(status.code().is_none());
            }
            if self.out.join("_blt/manifest.json").exists() {
                finished += 1;
                check(rounds);
                fs::remove_dir_all(self.out).unwrap();
            }
        }
        (rounds, kills)
    }
}

fn torture(name: &str, work: &Work, torture: Torture<'_>, finish: impl Fn()) {
    let processes = torture.processes;
    finish();
    let expected = snapshot(torture.out);
    let n_units = files(torture.out, "_blt/commits").len();
    fs::remove_dir_all(torture.out).unwrap();
    let mut random = Random::new(processes);
    let mut n_outputs = 0;
    let (rounds, kills) = torture.until_finished(&mut random, |round| {
        n_outputs += 1;
        // The manifest may be there while others were killed at leaving: what they left is swept up by a last run.
        finish();
        assert_sound(torture.out);
        assert_same(&snapshot(torture.out), &expected, &format!("{name}, round {round}"));
    });
    println!(
        "{name}: {rounds} rounds of {processes} processes, {kills} killed, {n_outputs} outputs of {n_units} units the same"
    );
    assert!(kills > 0, "nobody was killed");
    let _ = work;
}

#[test]
fn killed_at_random_with_a_fast_model() {
    let work = Work::new();
    let source = format!("source.uri={}", shards(&work).join("*.parquet").display());
    // About 110 units, so that most kills fall between commits.
    let sets = [&source, "sink.unit_bytes=128 KiB", "limits.memory=64 MiB"];
    let out = work.out();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "torture::runs_the_engine_to_be_killed"])
            .env("BLT_TORTURE_PIPELINE", work.path("pipeline.toml"))
            .env("BLT_TORTURE_SETS", sets.join("\n"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for processes in [1, 3] {
        let story = Torture {
            rounds: rounds("BLT_TORTURE_ROUNDS", 24),
            processes,
            longest: Duration::from_millis(600),
            out: &out,
            start: &start,
        };
        torture("fast model", &work, story, || {
            let summary = work.engine(&sets, &mut FakeModel::new(DIM, CONTEXT)).unwrap();
            assert!(matches!(summary.ending, Ending::Finished | Ending::FinishedBefore));
        });
    }
}

/// Started by [`killed_at_random_with_a_fast_model`], in a process of its own.
#[test]
#[ignore = "part of another test"]
fn runs_the_engine_to_be_killed() {
    let file = PathBuf::from(std::env::var_os("BLT_TORTURE_PIPELINE").unwrap());
    let sets = std::env::var("BLT_TORTURE_SETS").unwrap();
    let sets: Vec<&str> = sets.lines().collect();
    let plan = crate::support::plan_of(&file, &sets);
    run(&plan, &mut FakeModel::new(DIM, CONTEXT), Stop::default(), &Display::Silent, &Trace::off()).unwrap();
}

#[test]
fn killed_at_random_with_the_embedded_model() {
    let work = Work::new();
    for shard in 0..4 {
        let texts: Vec<String> = (0..6).map(|row| prose(1500, 10 * shard + row)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        work.texts(&format!("{shard}.parquet"), &texts);
    }
    let sets = ["model.weights=embedded", "sink.unit_bytes=4 KB"];
    let out = work.out();
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_blt-pipeline"))
            .args(["run", "pipeline.toml"])
            .args(set_flags(&sets))
            .current_dir(work.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for processes in [1, 3] {
        let story = Torture {
            rounds: rounds("BLT_TORTURE_ROUNDS_EMBEDDED", 4),
            processes,
            longest: Duration::from_millis(2500),
            out: &out,
            start: &start,
        };
        torture("embedded model", &work, story, || {
            work.run(&sets);
        });
    }
}
