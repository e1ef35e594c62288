//! Files that lie elsewhere: object stores (`s3://`, `gs://`, `az://`), web servers (`https://`) and the Hugging Face Hub (`hf://`).
//! Addresses in; listings, byte ranges, whole files and conditional puts out. Calls block, and wait for services that are busy. Knows
//! nothing of what is in a file.

mod address;
mod cache;
mod file;
mod http;
mod hub;
mod mirror;
mod object;
mod patience;
mod store;

use std::{future::Future, io, sync::LazyLock};

use tokio::runtime::Runtime;

pub use self::{
    address::{Scheme, scheme},
    file::RemoteFile,
    hub::{ModelAddress, dataset, model_folder},
    mirror::Mirror,
    object::{Found, Listing, Pins, Reach, list},
    store::{Entry, Store},
};

/// Why something that lies elsewhere could not be had or written.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It is not there, not allowed, or misspelt: doing it again changes nothing.
    #[error("{0}")]
    Refused(String),
    /// Access is denied, at least now: credentials may be wrong, or no longer good.
    #[error("{0}")]
    Denied(String),
    /// The network or the service failed, for as long as was waited: later it may do.
    #[error("{0}")]
    Failed(String),
    /// A local file beside it could not be read or written.
    #[error("{what}: {error}")]
    Local {
        /// What was being done, and with which file.
        what: String,
        /// The system's own words.
        error: io::Error,
    },
}

impl RemoteError {
    fn local(what: String) -> impl FnOnce(io::Error) -> RemoteError {
        move |error| RemoteError::Local { what, error }
    }
}

/// Waits for what happens on the network. Its threads are few, and the only ones that [`pipeline`](crate::pipeline) does not know of:
/// they move bytes between sockets and files, whoever asked for them.
fn block_on<T>(work: impl Future<Output = Result<T, RemoteError>>) -> Result<T, RemoteError> {
    runtime()?.block_on(work)
}

fn runtime() -> Result<&'static Runtime, RemoteError> {
    static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("network")
            .enable_io()
            .enable_time()
            .build()
    });
    RUNTIME
        .as_ref()
        .map_err(|error| RemoteError::Failed(format!("failed to start the network's threads: {error}")))
}
