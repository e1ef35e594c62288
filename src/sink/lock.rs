//! The lock of an output, for the one thing that needs it: removing files that a record might be about to name.

use std::{
    fs::{File, TryLockError},
    io, thread,
    time::{Duration, Instant},
};

use super::{SinkError, Storage};

/// Removing files and writing a manifest takes less, unless the process is paused.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// `_blt/lock`: shared by processes that supersede records or write a plan, held alone by whoever removes what
/// no record names. The system releases it when its process dies. A store has no such lock, and some file systems
/// have none: there, nobody supersedes records, so that whatever lies beside a unit's record is of no use to anybody.
#[derive(Debug)]
pub(super) struct Lock(Option<File>);

impl Lock {
    pub(super) fn open(storage: &Storage) -> Result<Lock, SinkError> {
        if !storage.is_local() {
            return Ok(Lock(None));
        }
        let path = storage.join("_blt/lock");
        let file = File::options().create(true).append(true).open(&path).map_err(SinkError::io(&path))?;
        Ok(Lock(Some(file)))
    }

    /// Waits for whoever holds it alone, which is short.
    pub(super) fn share(&mut self) -> Result<(), SinkError> {
        let Some(file) = &self.0 else { return Ok(()) };
        let started = Instant::now();
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if started.elapsed() >= PATIENCE => {
                    return Err(SinkError::Raced(
                        "another process has been finishing the output for long".into(),
                    ));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(POLL),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    self.0 = None;
                    return Ok(());
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// Without locks, nobody can tell that a record is about to be superseded.
    pub(super) fn refuse_missing(&self, storage: &Storage) -> Result<(), SinkError> {
        match self.0 {
            Some(_) => Ok(()),
            None => Err(no_locks(storage)),
        }
    }

    /// Tells whether this process holds it alone now. Waits `patience` for those that share it, and longer for
    /// one that holds it alone, as that one is finishing the output and may have read its records too early.
    pub(super) fn take_alone(&mut self, patience: Duration) -> Result<bool, SinkError> {
        self.release()?;
        let Some(file) = &self.0 else { return Ok(true) };
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    self.0 = None;
                    return Ok(true);
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            let is_shared = file.try_lock_shared().is_ok();
            if is_shared {
                file.unlock().map_err(failed)?;
            }
            let patience = if is_shared || patience.is_zero() { patience } else { PATIENCE };
            if started.elapsed() >= patience {
                return Ok(false);
            }
            thread::sleep(POLL);
        }
    }

    pub(super) fn release(&mut self) -> Result<(), SinkError> {
        match &self.0 {
            Some(file) => file.unlock().map_err(failed),
            None => Ok(()),
        }
    }
}

/// Why an output in `storage` cannot be repaired.
pub(super) fn no_locks(storage: &Storage) -> SinkError {
    SinkError::Refused(format!(
        "--only-quarantined needs file locks, and the storage of {} has none; copy the output to a local disk, repair \
         it there, and copy it back",
        storage.root().display()
    ))
}

fn failed(error: io::Error) -> SinkError {
    SinkError::Io { path: "_blt/lock".into(), error }
}
