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
mod terms;

use std::{future::Future, io, sync::LazyLock};

use tokio::runtime::Runtime;

pub use self::{
    address::{Scheme, scheme},
    file::RemoteFile,
    hub::{dataset, model_folder},
    mirror::Mirror,
    object::list,
    store::Store,
    terms::{Entry, Found, Listing, ModelAddress, Pins, Reach, RemoteError},
};
#[cfg(feature = "push")]
pub(crate) use self::{
    cache::git_blob,
    hub::{Environment, Token},
    patience::told_wait,
};

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
