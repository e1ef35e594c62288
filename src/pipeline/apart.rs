//! Rows through a pretokenizer whose decoders may panic or never return: such a row is given up, and the run goes on. Knows
//! nothing of what is decoded.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{control::Control, stages::panic_message};
use crate::{
    data::{Content, View},
    pretokenize::{Pretokenizer, took_too_long},
};

/// How often a worker that waits looks whether the run goes on.
const POLL: Duration = Duration::from_millis(50);
/// Rows that may be in the making after they were given up. Each has a thread that nothing can end but itself.
const MOST_GIVEN_UP: usize = 64;
/// Decoders call themselves for what is inside of what they read.
const STACK_BYTES: usize = 16 << 20;

/// What becomes of a row: its views, or why it goes to quarantine.
pub type Outcome = Result<Vec<View>, String>;

/// Decodes rows one after another, on a thread of its own where the pretokenizer may hang.
pub(super) struct Decoder<'a> {
    pretokenizer: Arc<dyn Pretokenizer>,
    row_time: Duration,
    control: &'a Control,
    /// Threads of all decoders of the run that were given up and have not ended.
    given_up: Arc<AtomicUsize>,
    helper: Option<Helper>,
}

/// The thread. It ends when this is dropped, once it has done its row.
struct Helper {
    work: Sender<Content>,
    done: Receiver<Outcome>,
    /// Gone once neither the worker nor the thread has it.
    counted: Arc<Mutex<Option<Counted>>>,
}

/// One of the rows that were given up, while its thread goes on.
struct Counted {
    given_up: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.given_up.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a> Decoder<'a> {
    /// `given_up` is shared by all decoders of a run.
    pub fn new(
        pretokenizer: Arc<dyn Pretokenizer>,
        row_time: Duration,
        control: &'a Control,
        given_up: Arc<AtomicUsize>,
    ) -> Self {
        Decoder { pretokenizer, row_time, control, given_up, helper: None }
    }

    /// Whether documents are more or less than the content they come from.
    pub fn decodes(&self) -> bool {
        self.pretokenizer.decodes()
    }

    /// What becomes of a row.
    ///
    /// # Errors
    /// What fails the whole unit: no thread can be had, or the run is being stopped.
    pub fn views(&mut self, content: Content) -> Result<Outcome, String> {
        if !self.pretokenizer.decodes() {
            return Ok(decode(self.pretokenizer.as_ref(), content));
        }
        let helper = match self.helper.take() {
            Some(helper) => helper,
            None => self.start()?,
        };
        let started = Instant::now();
        if helper.work.send(content).is_err() {
            return Err("the thread that decodes has ended".into());
        }
        loop {
            match helper.done.recv_timeout(POLL) {
                Ok(outcome) => {
                    self.helper = Some(helper);
                    return Ok(outcome);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the thread that decodes has ended".into());
                }
                Err(RecvTimeoutError::Timeout) if self.control.halted() => {
                    self.give_up(&helper);
                    return Err("the run was stopped".into());
                }
                Err(RecvTimeoutError::Timeout) if started.elapsed() < self.row_time => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.give_up(&helper);
                    return Ok(Err(took_too_long(self.row_time)));
                }
            }
        }
    }

    /// The row is in the making until the helper's thread lets go of what it shares with it.
    fn give_up(&self, helper: &Helper) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
        *helper.counted.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Counted { given_up: self.given_up.clone() });
    }

    fn start(&self) -> Result<Helper, String> {
        let n = self.given_up.load(Ordering::Relaxed);
        if n >= MOST_GIVEN_UP {
            return Err(format!(
                "{n} rows are still being decoded after pretokenize.row_seconds = {}; raise it, or leave such rows out",
                self.row_time.as_secs()
            ));
        }
        // One row at a time, which its worker waits for.
        let (work, rows) = bounded::<Content>(1);
        let (outcomes, done) = bounded(1);
        let pretokenizer = self.pretokenizer.clone();
        let counted = Arc::default();
        let of_thread = Arc::clone(&counted);
        // Not one of the run's threads: nobody can wait for one that hangs.
        let thread = thread::Builder::new().name("decode".into()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            let _of_thread: Arc<Mutex<Option<Counted>>> = of_thread;
            while let Ok(content) = rows.recv() {
                if outcomes.send(decode(pretokenizer.as_ref(), content)).is_err() {
                    return;
                }
            }
        });
        spawned
            .map(|_| Helper { work, done, counted })
            .map_err(|error| format!("failed to start a thread to decode: {error}"))
    }
}

/// What becomes of a row that stands alone.
///
/// # Errors
/// When no thread can be had.
pub fn views_of(
    pretokenizer: Arc<dyn Pretokenizer>,
    row_time: Duration,
    content: Content,
) -> Result<Outcome, String> {
    let control = Control::new(Arc::default(), Duration::ZERO);
    Decoder::new(pretokenizer, row_time, &control, Arc::default()).views(content)
}

fn decode(pretokenizer: &dyn Pretokenizer, content: Content) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| pretokenizer.views(content)))
        .unwrap_or_else(|panic| Err(format!("the decoder panicked: {}", panic_message(panic.as_ref()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretokenize::Needs;

    /// Waits, panics or answers as its content says.
    struct Moody;

    impl Pretokenizer for Moody {
        fn needs(&self, _: &Content) -> Needs {
            Needs::default()
        }

        fn views(&self, content: Content) -> Outcome {
            match content.bytes.as_slice() {
                b"hang" => thread::sleep(Duration::from_secs(2)),
                b"panic" => panic!("out of luck"),
                _ => {}
            }
            Ok(vec![View { modality: "text", name: None, segments: Vec::new(), bytes: Vec::new() }])
        }
    }

    #[test]
    fn a_row_that_hangs_or_panics_costs_itself_and_nothing_else() {
        let control = Control::new(Arc::default(), Duration::from_secs(10));
        let given_up = Arc::new(AtomicUsize::new(0));
        let mut decoder = Decoder::new(Arc::new(Moody), Duration::from_secs(1), &control, given_up.clone());
        let mut views =
            |bytes: &[u8]| decoder.views(Content { bytes: bytes.to_vec(), ..Content::default() }).unwrap();
        assert_eq!(views(b"fine").unwrap().len(), 1);
        assert_eq!(views(b"panic"), Err("the decoder panicked: out of luck".into()));
        assert_eq!(views(b"fine").unwrap().len(), 1);
        assert_eq!(views(b"hang"), Err("decoding took longer than pretokenize.row_seconds = 1".into()));
        assert_eq!(given_up.load(Ordering::Relaxed), 1);
        assert_eq!(views(b"fine").unwrap().len(), 1);
        while given_up.load(Ordering::Relaxed) > 0 {
            thread::sleep(POLL);
        }
    }

    #[test]
    fn a_stop_does_not_wait_for_a_row_that_hangs() {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let control = Control::new(stop, Duration::ZERO);
        let mut decoder = Decoder::new(Arc::new(Moody), Duration::from_secs(60), &control, Arc::default());
        let hanging = Content { bytes: b"hang".to_vec(), ..Content::default() };
        let started = Instant::now();
        assert_eq!(decoder.views(hanging), Err("the run was stopped".into()));
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}
