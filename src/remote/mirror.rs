//! A local file of the size of one that lies elsewhere, empty but for the ranges that were asked for: what reads files reads it as if
//! all of it were here. Does not know what the ranges mean.

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FallocateFlags, fallocate};
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{RemoteError, RemoteFile, block_on, runtime};

/// A request asks for no more, so that several carry a long range.
const PART_BYTES: u64 = 8 << 20;
/// Of all mirrors together.
const REQUESTS_AT_A_TIME: usize = 8;
/// What lies between two ranges is read along with them, rather than with a request of its own, up to so many bytes and so small a part
/// of what is wanted.
const GAP_BYTES: u64 = 256 << 10;
const GAP_PART: u64 = 20;

static REQUESTS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(REQUESTS_AT_A_TIME));

/// A file that fills as its ranges are asked for. Its bytes take room in the folder for temporary files until they are forgotten.
#[derive(Debug)]
pub struct Mirror {
    remote: RemoteFile,
    file: Arc<File>,
    parts: Mutex<Vec<Part>>,
}

#[derive(Debug)]
struct Part {
    range: Range<u64>,
    /// What brings it; `None` once it is there.
    work: Option<JoinHandle<Result<(), RemoteError>>>,
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            work.abort();
        }
    }
}

impl Mirror {
    pub(super) fn new(remote: RemoteFile) -> Result<Mirror, RemoteError> {
        let failed =
            || format!("failed to make a temporary file in {} (TMPDIR)", std::env::temp_dir().display());
        let file = tempfile::tempfile().map_err(RemoteError::local(failed()))?;
        file.set_len(remote.bytes()).map_err(RemoteError::local(failed()))?;
        Ok(Mirror { remote, file: Arc::new(file), parts: Mutex::default() })
    }

    /// The local file. What was not asked for reads as zeros.
    ///
    /// # Errors
    /// [`RemoteError::Local`].
    pub fn file(&self) -> Result<File, RemoteError> {
        self.file
            .try_clone()
            .map_err(RemoteError::local(format!("failed to open the copy of {}", self.remote.uri())))
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to bring what of `ranges` is not there.
    ///
    /// # Errors
    /// [`RemoteError::Failed`] when the network's threads cannot be had.
    pub fn begin(&self, ranges: &[Range<u64>]) -> Result<(), RemoteError> {
        let runtime = runtime()?;
        let mut parts = self.parts();
        for range in merged(ranges.to_vec(), self.remote.bytes()) {
            let known: Vec<Range<u64>> = parts.iter().map(|part| part.range.clone()).collect();
            for missing in missing(range, known) {
                for start in missing.clone().step_by(PART_BYTES as usize) {
                    let range = start..(start + PART_BYTES).min(missing.end);
                    let (remote, file, wanted) = (self.remote.clone(), self.file.clone(), range.clone());
                    let work = runtime.spawn(async move {
                        let _permit = REQUESTS.acquire().await;
                        remote.fetch(wanted, &mut |at, bytes| file.write_all_at(bytes, at)).await
                    });
                    parts.push(Part { range, work: Some(work) });
                }
            }
        }
        Ok(())
    }

    /// Brings `ranges`, and waits until they are there.
    ///
    /// # Errors
    /// [`RemoteError`]; what did not come is asked for again the next time.
    pub fn bring(&self, ranges: &[Range<u64>]) -> Result<(), RemoteError> {
        // What failed before it was needed is asked for once more: that may be long ago.
        if self.wait_for(ranges).is_err() {
            self.begin(ranges)?;
            return self.wait_for(ranges);
        }
        self.begin(ranges)?;
        self.wait_for(ranges)
    }

    /// Waits for what of `ranges` was begun. Parts that failed are begun no more.
    fn wait_for(&self, ranges: &[Range<u64>]) -> Result<(), RemoteError> {
        let mut all = Ok(());
        self.parts().retain_mut(|part| {
            if !ranges.iter().any(|range| range.start < part.range.end && part.range.start < range.end) {
                return true;
            }
            let Some(work) = part.work.take() else { return true };
            let done = block_on(async {
                work.await.unwrap_or_else(|error| {
                    Err(RemoteError::Failed(format!("failed to read {}: {error}", self.remote.uri())))
                })
            });
            let is_there = done.is_ok();
            if all.is_ok() {
                all = done;
            }
            is_there
        });
        all
    }

    /// Gives back the room of `ranges`, as they were asked for: they read as zeros then.
    pub fn forget(&self, ranges: &[Range<u64>]) {
        let ranges = merged(ranges.to_vec(), self.remote.bytes());
        self.parts().retain(|part| {
            let is_within =
                |range: &Range<u64>| range.start <= part.range.start && part.range.end <= range.end;
            if !ranges.iter().any(is_within) {
                return true;
            }
            // Where holes cannot be made the room is given back with the file.
            let _ = fallocate(
                &*self.file,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                part.range.start,
                part.range.end - part.range.start,
            );
            false
        });
    }
}

/// `ranges` within a file of `bytes`, sorted, those that touch or nearly do as one.
fn merged(mut ranges: Vec<Range<u64>>, bytes: u64) -> Vec<Range<u64>> {
    ranges.retain_mut(|range| {
        range.end = range.end.min(bytes);
        range.start < range.end
    });
    ranges.sort_by_key(|range| (range.start, range.end));
    let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let mut left = wanted / GAP_PART;
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(last) if range.start - last.end <= left.min(GAP_BYTES) => {
                left -= range.start - last.end;
                last.end = range.end;
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// What of `range` is in none of `known`.
fn missing(range: Range<u64>, mut known: Vec<Range<u64>>) -> Vec<Range<u64>> {
    known.sort_by_key(|known| known.start);
    let mut missing = Vec::new();
    let mut at = range.start;
    for known in known {
        if known.end <= at || known.start >= range.end {
            continue;
        }
        if known.start > at {
            missing.push(at..known.start);
        }
        at = known.end;
    }
    if at < range.end {
        missing.push(at..range.end);
    }
    missing
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_asked_for_together() {
        for (ranges, expected) in [
            (vec![0..10, 10..20], vec![0..20]),
            (vec![500..1000, 0..490], vec![0..1000]),
            (vec![0..10, 90..100], vec![0..10, 90..100]),
            (vec![95..200], vec![95..100]),
            (vec![100..200, 5..5], vec![]),
        ] {
            let bytes = if ranges == [500..1000, 0..490] { 1000 } else { 100 };
            assert_eq!(merged(ranges.clone(), bytes), expected, "{ranges:?}");
        }
    }

    #[test]
    fn only_what_is_missing_is_asked_for() {
        for (known, expected) in [
            (vec![], vec![10..20]),
            (vec![12..14, 0..11], vec![11..12, 14..20]),
            (vec![0..30], vec![]),
            (vec![18..40, 30..50], vec![10..18]),
        ] {
            assert_eq!(missing(10..20, known.clone()), expected, "{known:?}");
        }
    }
}
