//! A run as a timeline: what each thread did and waited for, in the Trace Event Format that <https://ui.perfetto.dev> and
//! `chrome://tracing` open. Decides nothing.

use std::{
    cell::Cell,
    fmt::{self, Arguments, Display},
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::data::UnitId;

/// Where the timeline goes, if anywhere. Events are written as they end: what is held is one buffer.
#[derive(Debug, Default)]
pub struct Trace(Option<Recorder>);

#[derive(Debug)]
struct Recorder {
    started: Instant,
    /// Threads and counters that have a number.
    tracks: AtomicU32,
    file: Mutex<TraceFile>,
}

thread_local! {
    /// Number of this thread's track.
    static TRACK: Cell<u32> = const { Cell::new(0) };
}

/// What a span of time was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A stage worked on a unit.
    Work(&'static str, UnitId),
    /// A thread waited for something.
    Wait(&'static str),
}

/// Waits that are shorter are not written: there would be more of them than of everything else.
const SHORTEST_WAIT: Duration = Duration::from_micros(100);
/// Events that are written at once.
const BUFFER_BYTES: usize = 64 << 10;

impl Trace {
    /// No timeline.
    pub fn off() -> Arc<Self> {
        Arc::default()
    }

    /// A timeline in a new file, in place of what is there.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path) -> io::Result<Arc<Self>> {
        let mut file = TraceFile {
            path: path.into(),
            file: File::create(path)?,
            pending: b"[".to_vec(),
            end: 0,
            failed: false,
        };
        file.write()?;
        let (started, tracks, file) = (Instant::now(), AtomicU32::new(0), Mutex::new(file));
        Ok(Arc::new(Trace(Some(Recorder { started, tracks, file }))))
    }

    /// Gives this thread a track of its own.
    pub(super) fn name_thread(&self, name: &str) {
        if let Some(recorder) = &self.0 {
            let track = recorder.number();
            TRACK.set(track);
            let mut file = recorder.file();
            for (event, args) in [
                ("thread_name", json!({ "name": name })),
                ("thread_sort_index", json!({ "sort_index": track })),
            ] {
                file.event(format_args!(r#""name":"{event}","ph":"M","tid":{track},"args":{args}"#));
            }
        }
    }

    /// This thread did, or waited for, `what` from `start` on, for so long.
    pub(super) fn span(&self, what: Span, start: Instant, duration: Duration) {
        let Some(recorder) = &self.0 else { return };
        let (track, ts, dur) = (TRACK.get(), recorder.micros(start), Micros(duration));
        match what {
            Span::Wait(_) if duration < SHORTEST_WAIT => {}
            Span::Wait(name) => recorder.file().event(format_args!(
                r#""name":"{name}","cat":"wait","ph":"X","tid":{track},"ts":{ts},"dur":{dur}"#
            )),
            Span::Work(stage, unit) => recorder.file().event(format_args!(
                r#""name":"{stage}","cat":"work","ph":"X","tid":{track},"ts":{ts},"dur":{dur},"args":{{"unit":"{unit}"}}"#
            )),
        }
    }

    /// A number for a counter, so that two of one name are two.
    pub(super) fn counter_id(&self) -> u32 {
        self.0.as_ref().map_or(0, Recorder::number)
    }

    /// Counter `id`, called `name`, is now at `value`, which is read as it is written: a later value never comes before an
    /// earlier one.
    pub(super) fn counter(&self, name: &str, id: u32, value: impl FnOnce() -> u64) {
        if let Some(recorder) = &self.0 {
            let mut file = recorder.file();
            let (ts, value) = (recorder.micros(Instant::now()), value());
            file.event(format_args!(
                r#""name":"{name}","ph":"C","id":{id},"tid":0,"ts":{ts},"args":{{"value":{value}}}"#
            ));
        }
    }

    /// Writes what has been recorded so far. Between two calls the file ends with the first one's events, and is a whole
    /// array in any case.
    pub(super) fn flush(&self) {
        if let Some(recorder) = &self.0 {
            recorder.file().flush();
        }
    }
}

impl Recorder {
    fn number(&self) -> u32 {
        self.tracks.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn micros(&self, at: Instant) -> Micros {
        Micros(at.saturating_duration_since(self.started))
    }

    fn file(&self) -> MutexGuard<'_, TraceFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The format's unit of time, with nanoseconds behind the point.
struct Micros(Duration);

impl Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        write!(f, "{}.{:03}", nanos / 1000, nanos % 1000)
    }
}

#[derive(Debug)]
struct TraceFile {
    path: PathBuf,
    file: File,
    /// Events that are not written yet.
    pending: Vec<u8>,
    /// Where the next ones go, over the array's end.
    end: u64,
    failed: bool,
}

impl TraceFile {
    fn event(&mut self, fields: Arguments<'_>) {
        let is_first = self.end + self.pending.len() as u64 == 1;
        let comma = if is_first { "" } else { "," };
        // Writing to memory does not fail.
        let _ = write!(self.pending, "{comma}\n{{\"pid\":1,{fields}}}");
        if self.pending.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.failed {
            self.pending.clear();
        } else if let Err(error) = self.write() {
            // The run is worth more than its timeline.
            tracing::warn!("failed to write the profile {}: {error}", self.path.display());
            self.failed = true;
        }
    }

    /// Each write closes the array, and the next one goes over that: whenever the process ends, the file is JSON.
    fn write(&mut self) -> io::Result<()> {
        let events = self.pending.len();
        self.pending.extend(b"\n]\n");
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&self.pending)?;
        self.end += events as u64;
        self.pending.clear();
        Ok(())
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_json_after_every_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let trace = Trace::create(&path).unwrap();
        let events =
            || -> Vec<serde_json::Value> { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
        assert_eq!(events().len(), 0);
        trace.name_thread("source");
        trace.flush();
        assert_eq!(events()[0]["args"]["name"], "source");
        let start = Instant::now();
        let unit = UnitId { shard: 1, unit: 2 };
        for _ in 0..2000 {
            trace.span(Span::Work("source", unit), start, Duration::from_nanos(1_234_567));
            trace.span(Span::Wait("wait for input"), start, SHORTEST_WAIT / 2);
            assert!(trace.0.as_ref().unwrap().file().pending.len() < BUFFER_BYTES);
        }
        assert!(events().len() > 1000, "it is written while it grows");
        trace.counter("queue", 7, || 3);
        drop(trace);
        let events = events();
        assert_eq!(events.len(), 2 + 2000 + 1);
        let span = &events[2];
        assert_eq!((&span["dur"], &span["args"]["unit"]), (&json!(1234.567), &json!("00001-00002")));
        assert_eq!(span["tid"], events[0]["tid"]);
        assert_eq!(events[2002]["args"]["value"], 3);
    }
}
