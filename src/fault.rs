//! Points where a test makes a run die or fail. Without the feature `failpoints` they are empty functions, and a
//! released program has none.

use std::io;

/// Does what `FAILPOINTS` (or a test of this process) says of the point `name`: `return(kill)` ends the process
/// as SIGKILL does, `return(enospc)` and `return(eio)` fail as a storage does, `panic` panics, `sleep(ms)` waits.
///
/// # Errors
/// The storage failure that was asked for.
#[cfg(feature = "failpoints")]
pub(crate) fn point(name: &str) -> io::Result<()> {
    use rustix::process::{Signal, getpid, kill_process};

    fail::fail_point!(name, |action: Option<String>| match action.as_deref() {
        Some("kill") => {
            kill_process(getpid(), Signal::KILL)?;
            // It takes effect before the process does anything else, but the compiler cannot know.
            std::process::abort()
        }
        Some("enospc") => Err(rustix::io::Errno::NOSPC.into()),
        _ => Err(rustix::io::Errno::IO.into()),
    });
    Ok(())
}

/// Nothing.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn point(_name: &str) -> io::Result<()> {
    Ok(())
}
