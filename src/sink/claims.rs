//! What processes say they are at, in `_blt/claims`. Advice only: it tells people who does what, and keeps
//! processes on one output out of each other's way. Nothing is wrong if it is old, missing or untrue.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{Attempt, Claim, SinkError, Storage, files::temporary_of};
use crate::data::UnitId;

/// A process that has not written for so long is taken for dead where its host cannot be asked.
const SILENCE: u64 = 120;
/// An idle process writes at least so often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often claims are written and read. Every one read is a request of its own.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// A claim that changes is written no sooner after the last time.
    write: Duration,
    /// How old what is known of the others may be at the least.
    read: Duration,
    /// Likewise, for each of them: many are read seldom.
    read_each: Duration,
}

/// Processes that start together would do the same units for long if it were slow.
const ON_A_DISK: Pace =
    Pace { write: Duration::ZERO, read: Duration::ZERO, read_each: Duration::from_millis(10) };
/// Requests take their time and cost money. What is known of the others is so old that short units are done twice where
/// processes have no shares of their own.
const IN_A_STORE: Pace = Pace {
    // Google's store takes no more than one a second for an object.
    write: Duration::from_secs(2),
    read: Duration::from_secs(1),
    read_each: Duration::from_millis(250),
};

/// What can be said of the process behind a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It is there and wrote lately.
    Alive,
    /// Its host is this one, and it has no such process.
    Dead,
    /// It has not written for so many seconds: stopped, dead, or on a host whose clock is wrong.
    Silent(u64),
}

impl Claim {
    /// Whether the process behind it is at work, judged from the host `host`.
    pub fn liveness(&self, host: &str, now: u64) -> Liveness {
        let silence = now.abs_diff(self.seen);
        let processes = Path::new("/proc");
        let is_there = || processes.join(self.process.to_string()).exists();
        // In a container every run is process 1: who had this process's number before is gone.
        let is_before = self.process == std::process::id();
        if self.host == host && processes.is_dir() && (is_before || !is_there()) {
            return Liveness::Dead;
        }
        if silence > SILENCE { Liveness::Silent(silence) } else { Liveness::Alive }
    }
}

/// Name of this host.
pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Every claim that can be read, with its file. One that cannot is no claim.
pub(super) fn read_claims(storage: &Storage) -> Result<Vec<(PathBuf, Claim)>, SinkError> {
    let mut paths = storage.list(&storage.join("_blt/claims"))?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    let claims = storage.read_every_json(&paths)?;
    Ok(paths.into_iter().zip(claims).filter_map(|(path, claim)| Some((path, claim.value()?))).collect())
}

/// Removes what dead processes said, and what they were about to say; `attempt` is alive.
pub(super) fn forget_the_dead(storage: &Storage, attempt: &Attempt) -> Result<(), SinkError> {
    let (host, now) = (host(), now());
    let mut others = Vec::new();
    for (path, claim) in read_claims(storage)? {
        let is_own = path.file_stem().is_some_and(|stem| stem == attempt.id());
        if !is_own && claim.liveness(&host, now) == Liveness::Dead {
            storage.remove_if_there(&path)?;
        } else {
            others.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    if !storage.is_local() {
        return Ok(());
    }
    for path in storage.list(&storage.join("_blt/claims"))? {
        // A process that is about to make its first claim makes the next one a moment later.
        let is_anothers = |rest: &str| others.iter().any(|attempt| rest.starts_with(attempt.as_str()));
        if temporary_of(&path).is_some_and(|rest| !is_anothers(rest)) {
            storage.remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// What this process says, and what it knows of the others.
#[derive(Debug)]
pub struct Claims {
    storage: Storage,
    pace: Pace,
    attempt: Arc<Attempt>,
    claim: Mutex<Own>,
    others: Mutex<Others>,
}

#[derive(Debug)]
struct Own {
    claim: Claim,
    /// When it was written.
    written: Option<Instant>,
    /// Whether it is another since.
    changed: bool,
}

#[derive(Debug, Default)]
struct Others {
    units: BTreeSet<String>,
    n_claims: u32,
    read: Option<Instant>,
    /// Whether there ever was one.
    met: bool,
}

impl Claims {
    pub(super) fn new(storage: &Storage, attempt: Arc<Attempt>, share: Option<String>) -> Self {
        let claim = Claim {
            host: host(),
            process: std::process::id(),
            share,
            since: now(),
            seen: 0,
            bytes: 0,
            units: BTreeMap::new(),
        };
        Claims {
            storage: storage.clone(),
            pace: if storage.is_local() { ON_A_DISK } else { IN_A_STORE },
            attempt,
            claim: Mutex::new(Own { claim, written: None, changed: true }),
            others: Mutex::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.storage.join("_blt/claims").join(format!("{}.json", self.attempt.id()))
    }

    /// This process begins `unit`; others shall know at once.
    pub fn begin(&self, unit: UnitId) {
        let bytes = {
            let mut own = lock(&self.claim);
            own.claim.units.insert(unit.to_string(), now());
            own.changed = true;
            own.claim.bytes
        };
        // Who cannot be told may do the unit, too. It is tried again soon, and a failure is told of then.
        let _ = self.publish(bytes);
    }

    /// It is done with `unit`, whatever came of it.
    pub fn end(&self, unit: UnitId) {
        let mut own = lock(&self.claim);
        own.claim.units.remove(&unit.to_string());
        own.changed = true;
    }

    /// Writes the claim if it changed or is old. `bytes` of content were scored so far.
    ///
    /// # Errors
    /// When the storage fails; the run need not care.
    pub fn publish(&self, bytes: u64) -> Result<(), SinkError> {
        let claim = {
            let mut own = lock(&self.claim);
            let due = if own.changed { self.pace.write } else { HEARTBEAT };
            if own.written.is_some_and(|at| at.elapsed() < due) {
                return Ok(());
            }
            own.written = Some(Instant::now());
            own.changed = false;
            own.claim.seen = now();
            own.claim.bytes = bytes;
            own.claim.clone()
        };
        self.storage.create_folder(&self.storage.join("_blt/claims"))?;
        match self.storage.replace_advice(&self.attempt, &self.path(), &claim) {
            // Somebody tidied up in between.
            Err(SinkError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                lock(&self.claim).changed = true;
                Ok(())
            }
            Err(error) => {
                lock(&self.claim).changed = true;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Whether another process that is alive says that it is at `unit`.
    pub fn is_anothers(&self, unit: UnitId) -> bool {
        self.others().units.contains(&unit.to_string())
    }

    /// Whether another process may have committed anything since this one began; on a disk it is as easy to look.
    pub fn in_company(&self) -> bool {
        self.storage.is_local() || self.others().met
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        let mut others = lock(&self.others);
        let Pace { read, read_each, .. } = self.pace;
        if others.read.is_none_or(|at| at.elapsed() > read.max(read_each * others.n_claims.max(1))) {
            let own = self.path();
            let (host, now) = (host(), now());
            // What cannot be read is not known; the unit may be done twice then, which harms nothing.
            let claims = read_claims(&self.storage).unwrap_or_default();
            others.n_claims = claims.len() as u32;
            others.met |= claims.iter().any(|(path, _)| *path != own);
            let alive = claims
                .into_iter()
                .filter(|(path, claim)| *path != own && claim.liveness(&host, now) == Liveness::Alive);
            others.units = alive.flat_map(|(_, claim)| claim.units.into_keys()).collect();
            others.read = Some(Instant::now());
        }
        others
    }

    /// Takes the claim back: this process ends.
    pub fn withdraw(&self) {
        // A claim that stays is taken for a dead process's.
        let _ = self.storage.remove_if_there(&self.path());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_believed_to_live_while_its_host_has_it_or_it_writes() {
        let claim = |host: &str, process, seen| Claim {
            host: host.into(),
            process,
            share: None,
            since: 0,
            seen,
            bytes: 0,
            units: BTreeMap::new(),
        };
        // The first process of any system.
        let own = 1;
        for (claim, expected) in [
            (claim("here", own, 1000), Liveness::Alive),
            (claim("here", u32::MAX, 1000), Liveness::Dead),
            (claim("here", std::process::id(), 1000), Liveness::Dead),
            (claim("there", u32::MAX, 1000), Liveness::Alive),
            (claim("there", u32::MAX, 500), Liveness::Silent(510)),
            // Its clock is a day ahead.
            (claim("there", own, 87_410), Liveness::Silent(86_400)),
        ] {
            assert_eq!(claim.liveness("here", 1010), expected, "{claim:?}");
        }
    }
}
