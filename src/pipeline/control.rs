//! What ends a run early: a stop signal, a failure that nothing can go on after, a full memory budget. Knows
//! nothing of the stages.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::RunError;

/// What a batch on the device, which nothing can interrupt, may take beyond the grace.
const OVERTIME: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// How a run is asked to end early.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Set from outside. Units in flight may still finish, within `limits.stop_grace_seconds`.
    pub asked: Arc<AtomicBool>,
    /// Called when a batch on the device keeps the run from ending in time: nothing can interrupt it, and the
    /// process may as well exit, since everything in flight has been dropped. `None` waits for the batch.
    pub overdue: Option<fn()>,
}

/// Shared by all threads of a run.
pub struct Control {
    stop: Arc<AtomicBool>,
    grace: Duration,
    stop_seen: OnceLock<Instant>,
    fatal: Mutex<Option<RunError>>,
    failed: AtomicBool,
}

impl Control {
    /// `stop` is set from outside to end the run; then units in flight may take `grace` to finish.
    pub fn new(stop: Arc<AtomicBool>, grace: Duration) -> Self {
        Control {
            stop,
            grace,
            stop_seen: OnceLock::new(),
            fatal: Mutex::new(None),
            failed: AtomicBool::new(false),
        }
    }

    /// Records a failure that ends the run; the first one counts.
    pub fn fail(&self, error: RunError) {
        lock(&self.fatal).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    /// The failure that ended the run, if one did.
    pub fn failure(&self) -> Option<RunError> {
        lock(&self.fatal).take()
    }

    /// Whether a stop was asked for.
    pub fn interrupted(&self) -> bool {
        let stop = self.stop.load(Ordering::Relaxed);
        if stop {
            self.stop_seen.get_or_init(Instant::now);
        }
        stop
    }

    /// Whether no new unit should be started.
    pub fn stopping(&self) -> bool {
        self.interrupted() || self.failed.load(Ordering::Acquire)
    }

    /// Whether units in flight should be dropped too.
    pub fn halted(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.stopped_for() > Some(self.grace)
    }

    /// Whether the run should have ended by now.
    pub fn overdue(&self) -> bool {
        self.stopped_for() > Some(self.grace + OVERTIME)
    }

    /// How long ago a stop was asked for.
    fn stopped_for(&self) -> Option<Duration> {
        if !self.interrupted() {
            return None;
        }
        self.stop_seen.get().map(Instant::elapsed)
    }
}

/// A poisoned lock means that a thread panicked, which is recorded on its own.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that units in flight may hold together.
pub struct Budget {
    total: u64,
    free: Mutex<u64>,
    returned: Condvar,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Arc<Self> {
        Arc::new(Budget { total, free: Mutex::new(total), returned: Condvar::new() })
    }

    /// Waits until `bytes` are free and takes them; a unit larger than the whole budget gets all of it,
    /// alone. `None` when the run is stopping.
    pub fn acquire(self: &Arc<Self>, bytes: u64, control: &Control) -> Option<Permit> {
        let bytes = bytes.min(self.total);
        let mut free = lock(&self.free);
        while *free < bytes {
            if control.stopping() {
                return None;
            }
            free = self.returned.wait_timeout(free, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= bytes;
        Some(Permit { budget: self.clone(), bytes })
    }
}

/// A share of the budget, given back when dropped.
pub struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&self.budget.free) += self.bytes;
        self.budget.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Control {
        Control::new(Arc::default(), Duration::from_secs(10))
    }

    #[test]
    fn a_unit_larger_than_the_budget_waits_for_all_of_it() {
        let (budget, control) = (Budget::new(100), running());
        let small = budget.acquire(30, &control);
        std::thread::scope(|scope| {
            let large = scope.spawn(|| budget.acquire(1000, &control).map(|p| p.bytes));
            std::thread::sleep(2 * POLL);
            assert!(!large.is_finished());
            drop(small);
            assert_eq!(large.join().unwrap(), Some(100));
        });
        assert_eq!(*lock(&budget.free), 100);
    }

    #[test]
    fn a_stop_ends_the_wait_for_memory() {
        let stop = Arc::new(AtomicBool::new(false));
        let (budget, control) = (Budget::new(1), Control::new(stop.clone(), Duration::from_secs(10)));
        let _all = budget.acquire(1, &control);
        stop.store(true, Ordering::Relaxed);
        assert!(budget.acquire(1, &control).is_none());
        assert!(control.stopping() && !control.halted());
    }
}
