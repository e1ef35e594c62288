//! The lock of an output, for the one thing that needs it: removing files that a record might be about to name.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::SinkError;

/// `_blt/lock`: shared by processes that supersede records or write a plan, held alone by whoever removes what
/// no record names. The system releases it when its process dies.
#[derive(Debug)]
pub(super) struct Lock(Option<File>);

impl Lock {
    pub(super) fn open(root: &Path) -> Result<Lock, SinkError> {
        let path = root.join("_blt/lock");
        let file = File::options().create(true).append(true).open(&path).map_err(SinkError::io(&path))?;
        Ok(Lock(Some(file)))
    }

    /// Waits for whoever holds it alone, which is short.
    pub(super) fn share(&mut self) -> Result<(), SinkError> {
        let Some(file) = &self.0 else { return Ok(()) };
        match file.lock_shared() {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.0 = None,
            other => other.map_err(SinkError::io(Path::new("_blt/lock")))?,
        }
        Ok(())
    }

    /// Without locks, nobody can tell that a record is about to be superseded.
    pub(super) fn refuse_missing(&self, root: &Path) -> Result<(), SinkError> {
        match self.0 {
            Some(_) => Ok(()),
            None => Err(SinkError::Refused(format!(
                "--only-quarantined needs file locks, and the storage of {} has none; copy the output to another                  one for this",
                root.display()
            ))),
        }
    }

    /// Tells whether this process holds it alone now.
    pub(super) fn take_alone(&mut self, patience: Duration) -> Result<bool, SinkError> {
        self.release()?;
        let Some(file) = &self.0 else { return Ok(true) };
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) if started.elapsed() >= patience => return Ok(false),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(50)),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    self.0 = None;
                    return Ok(true);
                }
                Err(TryLockError::Error(error)) => {
                    return Err(SinkError::Io { path: "_blt/lock".into(), error });
                }
            }
        }
    }

    pub(super) fn release(&mut self) -> Result<(), SinkError> {
        match &self.0 {
            Some(file) => file.unlock().map_err(SinkError::io(Path::new("_blt/lock"))),
            None => Ok(()),
        }
    }
}
