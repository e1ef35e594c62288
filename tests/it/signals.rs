//! SIGINT and SIGTERM end the binary soon, with exit code 75, and the same command goes on from there.

use std::{
    fs,
    io::Read,
    process::{Child, Command},
    time::{Duration, Instant},
};

use crate::support::{Work, assert_same, assert_sound, files, prose, set_flags, snapshot};

/// As DESIGN gives units in flight 10 s, and a busy machine its share.
const GRACE: Duration = Duration::from_secs(20);

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until `ready`, then a little longer.
fn wait_until(child: &mut Child, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(60), "the run did not start");
        assert!(child.try_wait().unwrap().is_none(), "the run ended before its signal");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Exit code, standard output and error, and how long they took to come.
fn wait(mut child: Child) -> (Option<i32>, String, String, Duration) {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let elapsed = started.elapsed();
    // Nothing to do if it has ended.
    let _ = child.kill();
    let status = child.wait().unwrap();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (status.code(), stdout, stderr, elapsed)
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_bytes() {
    let sets = ["sink.unit_bytes=2 KB", "model.weights=embedded", "sink.embeddings=none"];
    let undisturbed = work(30, 1000);
    undisturbed.run(&sets);
    let work = work(30, 1000);
    for commits in [1, 5, 9] {
        let mut child = work.start(&sets);
        wait_until(&mut child, || files(&work.out(), "_blt/commits").len() >= commits);
        signal(&child, "-KILL");
        assert_eq!(wait(child).0, None, "killed");
        assert!(!work.out().join("_blt/manifest.json").exists());
    }
    work.run(&sets).expect(0, &["in all      30 rows"]);
    // Whatever the killed left under temporary names is gone, too.
    assert_sound(&work.out());
    assert_same(&snapshot(&work.out()), &snapshot(&undisturbed.out()), "killed");
}

/// Enough for the embedded model to be busy while the signal comes.
fn work(documents: u32, bytes: usize) -> Work {
    let work = Work::new();
    let texts: Vec<String> = (0..documents).map(|i| prose(bytes, i)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    work.texts("a.parquet", &texts);
    work
}

#[test]
fn a_signal_ends_the_run_and_the_same_command_finishes_it_to_the_same_bytes() {
    // One unit in memory at a time, so that the others are not begun.
    let sets =
        ["sink.unit_bytes=2 KB", "limits.memory=300 kB", "model.weights=embedded", "sink.embeddings=none"];
    let undisturbed = work(40, 1000);
    undisturbed.run(&sets);
    let expected = snapshot(&undisturbed.out());
    for name in ["-INT", "-TERM"] {
        let work = work(40, 1000);
        let mut child = work.start(&sets);
        wait_until(&mut child, || !files(&work.out(), "_blt/commits").is_empty());
        signal(&child, name);
        let (code, stdout, stderr, elapsed) = wait(child);
        assert_eq!(code, Some(75), "{stdout}{stderr}");
        assert!(elapsed < GRACE, "{elapsed:?}");
        assert!(stdout.contains("was interrupted; the same command goes on from here"), "{stdout}");
        assert!(!work.out().join("_blt/manifest.json").exists());
        assert_eq!(files(&work.out(), "documents").len(), files(&work.out(), "_blt/commits").len());
        work.blt("plan", &set_flags(&sets)).expect(0, &[" units committed)"]);

        work.run(&sets).expect(0, &["in all      40 rows"]);
        assert_sound(&work.out());
        assert_same(&snapshot(&work.out()), &expected, name);
    }
}

#[test]
fn a_unit_that_takes_too_long_is_dropped_and_a_second_signal_does_not_wait_for_it() {
    // One document of minutes: it cannot be finished within the grace.
    let sets = ["model.weights=embedded", "sink.embeddings=none", "limits.max_quarantined=1.0"];
    for second in [false, true] {
        let work = work(1, 20 << 20);
        let mut child = work.start(&sets);
        wait_until(&mut child, || work.out().join("_blt/plan.json").exists());
        std::thread::sleep(Duration::from_millis(300));
        signal(&child, "-TERM");
        if second {
            std::thread::sleep(Duration::from_millis(200));
            signal(&child, "-TERM");
        }
        let (code, stdout, stderr, elapsed) = wait(child);
        assert_eq!(code, Some(75), "{stdout}{stderr}");
        if second {
            assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
        } else {
            assert!(Duration::from_secs(8) < elapsed && elapsed < GRACE, "{elapsed:?}");
            assert!(files(&work.out(), "documents").is_empty());
        }
        assert!(fs::read_dir(work.out().join("_blt/commits")).unwrap().next().is_none());
        work.blt("plan", &set_flags(&sets)).expect(0, &["(0 of 1 units committed)"]);
    }
}
