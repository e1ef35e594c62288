//! Storage that is full or read-only: said with the way on, and gone on from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Work, assert_same, assert_sound, files, prose, snapshot};

/// A small filesystem: `BLT_TEST_SMALL_DISK` if set, else a tmpfs of 1 MiB if this process may mount one.
pub struct SmallDisk {
    pub folder: PathBuf,
    mounted: Option<tempfile::TempDir>,
}

impl SmallDisk {
    /// `None`, loudly, where there is none to be had.
    pub fn new(story: &str) -> Option<Self> {
        if let Some(folder) = std::env::var_os("BLT_TEST_SMALL_DISK") {
            let folder = tempfile::tempdir_in(folder).expect("BLT_TEST_SMALL_DISK can be written").keep();
            return Some(SmallDisk { folder, mounted: None });
        }
        let mounted = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let status = Command::new("mount").args(mount).arg(mounted.path()).output();
        if status.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk { folder: mounted.path().to_owned(), mounted: Some(mounted) });
        }
        skipped(
            story,
            "this process may not mount a tmpfs; name a folder on a small one in BLT_TEST_SMALL_DISK",
        );
        None
    }

    /// Leaves `free` bytes, more or less.
    fn fill(&self, free: usize) -> PathBuf {
        let path = self.folder.join("ballast");
        let mut size = 64 << 20;
        // Halved until it fits, then topped up.
        let mut ballast = Vec::new();
        while size >= 4096 {
            ballast.resize(ballast.len() + size, 0);
            if fs::write(&path, &ballast).is_err() {
                ballast.truncate(ballast.len() - size);
                size /= 2;
            }
        }
        ballast.truncate(ballast.len().saturating_sub(free));
        fs::write(&path, &ballast).unwrap();
        path
    }

    fn remount(&self, option: &str) -> bool {
        let Some(mounted) = &self.mounted else { return false };
        let option = format!("remount,{option}");
        let output = Command::new("mount").args(["-o", &option]).arg(mounted.path()).output().unwrap();
        output.status.success()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match &self.mounted {
            // Lazily: a test that failed may still hold a file.
            Some(mounted) => drop(Command::new("umount").arg("-l").arg(mounted.path()).status()),
            None => drop(fs::remove_dir_all(&self.folder)),
        }
    }
}

/// Past the test harness, which hides what a passing test prints.
pub fn skipped(story: &str, why: &str) {
    use std::io::Write;
    let line = format!("SKIPPED {story}: {why}\n");
    fs::OpenOptions::new()
        .write(true)
        .open("/dev/stderr")
        .and_then(|mut stderr| stderr.write_all(line.as_bytes()))
        .expect("standard error is open");
}

fn work() -> Work {
    let work = Work::new();
    let texts: Vec<String> = (0..30).map(|i| prose(1000, i)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    work.texts("a.parquet", &texts);
    work
}

const SETS: [&str; 2] = ["sink.unit_bytes=2 KB", "sink.embeddings=none"];

fn run(work: &Work, out: &Path) -> crate::support::Outcome {
    let mut arguments = crate::support::set_flags(&SETS);
    let out = out.to_str().unwrap();
    // What the disk says when it is full is told here; that it is asked first, below.
    arguments.extend(["--output", out, "--no-space-check"]);
    work.blt("run", &arguments)
}

#[test]
fn a_full_disk_is_said_with_the_remedy_and_the_same_command_finishes_once_there_is_room() {
    let Some(disk) = SmallDisk::new("a full disk") else { return };
    let work = work();
    run(&work, &work.out()).expect(0, &[]);
    let expected = snapshot(&work.out());
    let whole: usize = expected.values().map(Vec::len).sum();
    // From not even the plan to nearly everything.
    for free in [0, 20_000, whole / 2, whole] {
        let out = disk.folder.join(format!("out-{free}"));
        let ballast = disk.fill(free);
        let outcome = run(&work, &out);
        outcome.expect(
            75,
            &["storage failed at ", "No space left on device", "free some space and start the same command"],
        );
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        assert!(
            files(&out, "documents").iter().all(|name| !name.starts_with(".tmp-")),
            "torn files are gone"
        );
        fs::remove_file(ballast).unwrap();
        run(&work, &out).expect(0, &[]);
        assert_sound(&out);
        assert_same(&snapshot(&out), &expected, "after a full disk");
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_disk_without_room_for_the_estimate_is_refused_with_both_figures_before_anything_is_written() {
    let Some(disk) = SmallDisk::new("a disk without room") else { return };
    let work = Work::new();
    work.texts("a.parquet", &[prose(400_000, 0).as_str()]);
    let ballast = disk.fill(100_000);
    let out = disk.folder.join("out");
    let arguments = ["--output", out.to_str().unwrap(), "--set", "sink.embeddings=none"];
    let figures =
        ["the output will take about 4.0", " MB, but ", "has room for ", " kB only", "--no-space-check"];
    work.blt("run", &arguments).expect(2, &figures);
    assert!(!out.exists());
    fs::remove_file(ballast).unwrap();
}

#[test]
fn a_read_only_output_is_resumable_too() {
    let Some(disk) = SmallDisk::new("a read-only disk") else { return };
    let (work, out) = (work(), disk.folder.join("out"));
    if !disk.remount("ro") {
        return skipped("a read-only disk", "the small disk is not ours to remount");
    }
    run(&work, &out).expect(75, &["storage failed at ", "Read-only file system"]);
    assert!(disk.remount("rw"));
    run(&work, &out).expect(0, &[]);
    assert_sound(&out);
}

#[test]
fn an_output_below_a_file_cannot_be_made() {
    let work = work();
    fs::write(work.path("file"), "").unwrap();
    run(&work, &work.path("file/out")).expect(2, &["cannot be an output", "Not a directory"]);
}
