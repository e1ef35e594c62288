//! Channels that count what waits in them and how long their ends wait. Knows nothing of what they carry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::time::{ClockId, clock_gettime};

use super::trace::{Span, Trace};
use crate::data::UnitId;

/// Where the threads of one stage spend their time.
#[derive(Debug)]
pub struct StageMeter {
    /// Name of the stage.
    pub name: &'static str,
    /// Its threads.
    pub threads: usize,
    starved: AtomicU64,
    blocked: AtomicU64,
    busy: AtomicU64,
    /// Part of `busy` that was none.
    held_up: AtomicU64,
    /// Part of `busy` that a core spent on it.
    core: AtomicU64,
    trace: Arc<Trace>,
}

impl StageMeter {
    /// For a stage of `threads` threads, whose times go to `trace` as well.
    pub fn new(name: &'static str, threads: usize, trace: &Arc<Trace>) -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(StageMeter {
            name,
            threads,
            starved: zero(),
            blocked: zero(),
            busy: zero(),
            held_up: zero(),
            core: zero(),
            trace: trace.clone(),
        })
    }

    /// Runs `work` for `unit` on the stage's account.
    pub fn busy<T>(&self, unit: UnitId, work: impl FnOnce() -> T) -> T {
        let before = core_nanos();
        let value = self.timed(&self.busy, Span::Work(self.name, unit), work);
        self.core.fetch_add(core_nanos().saturating_sub(before), Ordering::Relaxed);
        value
    }

    /// Runs `wait`, a wait for input that is no [`Inlet`], on the stage's account.
    pub fn starved<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.timed(&self.starved, Span::Wait("wait for input"), wait)
    }

    /// Runs `wait`, a wait for `what` in the middle of work, on the stage's account.
    pub fn held_up<T>(&self, what: &'static str, wait: impl FnOnce() -> T) -> T {
        add_time(&self.held_up, || self.timed(&self.blocked, Span::Wait(what), wait))
    }

    fn timed<T>(&self, counter: &AtomicU64, what: Span, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        let duration = start.elapsed();
        counter.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
        self.trace.span(what, start, duration);
        value
    }

    /// Seconds of work, of a core, of waiting for input and of waiting for room in the output, over all threads.
    pub fn seconds(&self) -> StageSeconds {
        let seconds =
            |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed)).as_secs_f64();
        StageSeconds {
            name: self.name,
            threads: self.threads,
            // While the work goes on, its waits are known before it is.
            busy: (seconds(&self.busy) - seconds(&self.held_up)).max(0.0),
            core: seconds(&self.core),
            starved: seconds(&self.starved),
            blocked: seconds(&self.blocked),
        }
    }
}

/// A reading of a `StageMeter`.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSeconds {
    /// Name of the stage.
    pub name: &'static str,
    /// Its threads.
    pub threads: usize,
    /// Work.
    pub busy: f64,
    /// What a core spent on it: neither waits for the disk count nor for a core that others had.
    pub core: f64,
    /// Waiting for input.
    pub starved: f64,
    /// Waiting for room in the output.
    pub blocked: f64,
}

/// Time that a core has spent on this thread.
fn core_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn add_time<T>(counter: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = work();
    counter.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    value
}

/// How full a channel is.
#[derive(Debug)]
pub struct QueueMeter {
    /// Stage that reads from it.
    pub reader: &'static str,
    /// Messages it has room for.
    pub capacity: usize,
    waiting: AtomicUsize,
    name: String,
    id: u32,
    trace: Arc<Trace>,
}

impl QueueMeter {
    /// Messages in it.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed).min(self.capacity)
    }

    fn tell(&self) {
        self.trace.counter(&self.name, self.id, || self.waiting() as u64);
    }
}

/// Sending end; the channel closes when its last outlet is dropped.
pub struct Outlet<T> {
    sender: Sender<T>,
    stage: Arc<StageMeter>,
    queue: Arc<QueueMeter>,
}

/// Receiving end.
pub struct Inlet<T> {
    receiver: Receiver<T>,
    stage: Arc<StageMeter>,
    queue: Arc<QueueMeter>,
}

/// A channel of `capacity` messages from one stage to another.
pub fn channel<T>(capacity: usize, from: &Arc<StageMeter>, to: &Arc<StageMeter>) -> (Outlet<T>, Inlet<T>) {
    let (sender, receiver) = bounded(capacity);
    let queue = Arc::new(QueueMeter {
        reader: to.name,
        capacity,
        waiting: AtomicUsize::new(0),
        name: format!("{} to {}", from.name, to.name),
        id: to.trace.counter_id(),
        trace: to.trace.clone(),
    });
    (
        Outlet { sender, stage: from.clone(), queue: queue.clone() },
        Inlet { receiver, stage: to.clone(), queue },
    )
}

/// All readers of a channel are gone: the run is ending, and its reason is recorded elsewhere.
#[derive(Debug)]
pub struct Closed;

impl<T> Outlet<T> {
    /// Waits for room.
    ///
    /// # Errors
    /// [`Closed`] when nobody reads any more.
    pub fn send(&self, message: T) -> Result<(), Closed> {
        let StageMeter { blocked, .. } = self.stage.as_ref();
        self.count();
        self.stage
            .timed(blocked, Span::Wait("wait for room"), || self.sender.send(message))
            .map_err(|_| Closed)
    }

    /// Waits for room in the middle of work.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_midway(&self, message: T) -> Result<(), Closed> {
        self.count();
        self.stage.held_up("wait for room", || self.sender.send(message)).map_err(|_| Closed)
    }

    /// Before it is sent, so that a reader never takes a message that is not counted yet.
    fn count(&self) {
        self.queue.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue.tell();
    }

    /// The queue's meter.
    pub fn queue(&self) -> Arc<QueueMeter> {
        self.queue.clone()
    }
}

impl<T> Inlet<T> {
    /// Waits for a message; `None` when the channel is closed and empty.
    pub fn recv(&self) -> Option<T> {
        let message = self.stage.starved(|| self.receiver.recv()).ok()?;
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        self.queue.tell();
        Some(message)
    }
}

impl<T> Inlet<T> {
    /// A message that is there already.
    pub fn try_recv(&self) -> Option<T> {
        let message = self.receiver.try_recv().ok()?;
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(message)
    }
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Outlet { sender: self.sender.clone(), stage: self.stage.clone(), queue: self.queue.clone() }
    }
}

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        Inlet { receiver: self.receiver.clone(), stage: self.stage.clone(), queue: self.queue.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_counted_on_the_side_that_waits() {
        let trace = Trace::off();
        let (slow, fast) = (StageMeter::new("slow", 1, &trace), StageMeter::new("fast", 1, &trace));
        let (outlet, inlet) = channel(1, &slow, &fast);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                outlet.send(1).unwrap();
            });
            assert_eq!(inlet.recv(), Some(1));
            assert!(inlet.recv().is_none());
        });
        assert!(fast.seconds().starved >= 0.03 && slow.seconds().blocked < 0.03);
    }
}
