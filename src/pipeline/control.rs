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

/// How long units in flight may take to finish once a stop was asked for.
const STOP_GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Shared by all threads of a run.
pub struct Control {
    stop: Arc<AtomicBool>,
    stop_seen: OnceLock<Instant>,
    fatal: Mutex<Option<RunError>>,
    failed: AtomicBool,
}

impl Control {
    /// `stop` is set from outside to end the run.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        Control { stop, stop_seen: OnceLock::new(), fatal: Mutex::new(None), failed: AtomicBool::new(false) }
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
        let grace_is_over =
            || self.interrupted() && self.stop_seen.get().is_some_and(|seen| seen.elapsed() > STOP_GRACE);
        self.failed.load(Ordering::Acquire) || grace_is_over()
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
        Control::new(Arc::default())
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
        let (budget, control) = (Budget::new(1), Control::new(stop.clone()));
        let _all = budget.acquire(1, &control);
        stop.store(true, Ordering::Relaxed);
        assert!(budget.acquire(1, &control).is_none());
        assert!(control.stopping() && !control.halted());
    }
}
