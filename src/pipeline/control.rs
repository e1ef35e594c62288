//! What ends a run early: a stop signal, a failure that nothing can go on after, a full memory budget. Knows
//! nothing of the stages.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{RunError, trace::Trace};

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

/// Bytes that everything in flight may hold together.
pub struct Budget {
    total: u64,
    used: Mutex<u64>,
    returned: Condvar,
    /// What the trace was told last.
    told: AtomicU64,
    trace: Arc<Trace>,
}

impl Budget {
    /// A budget of `total` bytes, whose use goes to `trace`.
    pub fn new(total: u64, trace: &Arc<Trace>) -> Arc<Self> {
        let (used, returned) = (Mutex::new(0), Condvar::new());
        Arc::new(Budget { total, used, returned, told: AtomicU64::new(0), trace: trace.clone() })
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Tells the trace, unless little has changed: a share grows row by row.
    fn tell(&self, used: u64) {
        let told = self.told.load(Ordering::Relaxed);
        if used.abs_diff(told) > used.max(told) / 16 {
            self.told.store(used, Ordering::Relaxed);
            self.trace.counter("bytes in flight", 0, || used);
        }
    }

    /// A share of nothing.
    pub fn permit(self: &Arc<Self>) -> Permit {
        Permit { budget: self.clone(), bytes: AtomicU64::new(0) }
    }
}

/// A share of the budget, given back when dropped.
pub struct Permit {
    budget: Arc<Budget>,
    bytes: AtomicU64,
}

impl Permit {
    /// Makes the share `bytes` and waits until they are free; false when the run is stopping. Only one thread may wait, and
    /// for no more than what others will return, or everyone waits for everyone.
    pub fn resize(&self, bytes: u64, control: &Control) -> bool {
        let Budget { total, used, returned, .. } = self.budget.as_ref();
        let mut used = lock(used);
        let own = self.bytes.load(Ordering::Relaxed);
        while bytes > own && used.saturating_add(bytes - own) > *total {
            if control.stopping() {
                return false;
            }
            used = returned.wait_timeout(used, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.set(&mut used, bytes);
        true
    }

    /// Makes the share at least `bytes` at once, over the budget if need be: whoever waits, waits until that is made up for.
    pub fn cover(&self, bytes: u64) {
        let mut used = lock(&self.budget.used);
        if bytes > self.bytes.load(Ordering::Relaxed) {
            self.set(&mut used, bytes);
        }
    }

    /// Gives back what the share has over `bytes`.
    pub fn lower(&self, bytes: u64) {
        let mut used = lock(&self.budget.used);
        if bytes < self.bytes.load(Ordering::Relaxed) {
            self.set(&mut used, bytes);
        }
    }

    /// All of the budget that it is a share of.
    pub fn total(&self) -> u64 {
        self.budget.total
    }

    fn set(&self, used: &mut u64, bytes: u64) {
        let own = self.bytes.swap(bytes, Ordering::Relaxed);
        *used = used.saturating_sub(own).saturating_add(bytes);
        self.budget.tell(*used);
        self.budget.returned.notify_all();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.set(&mut lock(&self.budget.used), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Control {
        Control::new(Arc::default(), Duration::from_secs(10))
    }

    #[test]
    fn a_share_that_grows_waits_until_others_return_theirs() {
        let (budget, control) = (Budget::new(100, &Trace::off()), running());
        let (small, large) = (budget.permit(), budget.permit());
        assert!(small.resize(30, &control) && large.resize(70, &control));
        std::thread::scope(|scope| {
            let grown = scope.spawn(|| large.resize(90, &control));
            std::thread::sleep(2 * POLL);
            assert!(!grown.is_finished());
            drop(small);
            assert!(grown.join().unwrap());
        });
        assert_eq!(*lock(&budget.used), 90);
        drop(large);
        assert_eq!(*lock(&budget.used), 0);
    }

    #[test]
    fn what_was_taken_over_the_budget_is_made_up_for_first() {
        let stop = Arc::new(AtomicBool::new(false));
        let (budget, control) =
            (Budget::new(100, &Trace::off()), Control::new(stop.clone(), Duration::from_secs(10)));
        let (dense, next) = (budget.permit(), budget.permit());
        assert!(dense.resize(80, &control));
        dense.cover(10);
        dense.cover(120);
        assert_eq!(*lock(&budget.used), 120);
        dense.lower(200);
        assert_eq!(*lock(&budget.used), 120);
        dense.lower(110);
        assert_eq!(*lock(&budget.used), 110);
        stop.store(true, Ordering::Relaxed);
        assert!(!next.resize(1, &control), "a stop ends the wait");
        drop(dense);
        assert!(next.resize(1, &control));
    }

    #[test]
    fn a_stop_ends_the_wait_for_memory() {
        let stop = Arc::new(AtomicBool::new(false));
        let (budget, control) =
            (Budget::new(1, &Trace::off()), Control::new(stop.clone(), Duration::from_secs(10)));
        let all = budget.permit();
        assert!(all.resize(1, &control));
        stop.store(true, Ordering::Relaxed);
        assert!(!budget.permit().resize(1, &control));
        assert!(control.stopping() && !control.halted());
    }
}
