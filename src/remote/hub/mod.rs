//! The Hugging Face Hub: repositories by `hf://` address in, their files at one commit out, read from the Hub or from the cache that all
//! of its tools share. Never prints or keeps a token.

mod address;
mod api;
mod cache;
mod environment;
mod file;

use std::path::PathBuf;

#[cfg(feature = "push")]
pub(crate) use self::environment::{Environment, Token};
pub(super) use self::file::HubFile;
use self::{
    address::{CONVERSION, Kind, Repository, source_address},
    api::{EntryKind, Hub},
};
use super::{Found, Listing, ModelAddress, Pins, Reach, RemoteError};

/// As [`list`](super::list), of an `hf://datasets/…` address.
pub(super) fn list(uri: &str, reach: Reach, pins: &mut Pins) -> Result<Listing, RemoteError> {
    let (repository, path) = source_address(uri).map_err(RemoteError::Refused)?;
    let hub = Hub::get()?;
    let commit = hub.commit(&repository, pins)?;
    if hub.is_offline() {
        return hub.listed_in_cache(&repository, &commit, &path);
    }
    let (entries, is_file) = hub.entries(&repository, &commit, &path, reach)?;
    let below = |whole: &str| match (is_file, path.is_empty()) {
        (true, _) => whole.rsplit('/').next().unwrap_or(whole).to_owned(),
        (false, true) => whole.to_owned(),
        (false, false) => whole[path.len() + 1..].to_owned(),
    };
    let files = entries.into_iter().filter(|entry| entry.kind == EntryKind::File);
    let files = files.map(|entry| Found {
        name: below(&entry.path),
        file: HubFile::new(hub, repository.clone(), commit.clone(), entry).into(),
    });
    Ok(Listing { files: files.collect(), is_file })
}

/// Files of a dataset that is named without a path, by its `config` and `split`, in the Hub's own conversion to Parquet; `None` when
/// `uri` names a path.
///
/// # Errors
/// [`RemoteError`].
pub fn dataset(
    uri: &str,
    config: Option<&str>,
    split: Option<&str>,
    pins: &mut Pins,
) -> Result<Option<Listing>, RemoteError> {
    let (mut repository, path) = source_address(uri).map_err(RemoteError::Refused)?;
    if !path.is_empty() {
        return Ok(None);
    }
    if repository.revision.as_deref().is_some_and(|revision| revision != CONVERSION) {
        return Err(RemoteError::Refused(format!(
            "{uri}: the Hub converts only the newest revision to Parquet; leave the revision out, or name the files with a glob"
        )));
    }
    repository.revision = Some(CONVERSION.to_owned());
    let hub = Hub::get()?;
    let commit = hub.commit(&repository, pins)?;
    if hub.is_offline() {
        let folder = match (config, split) {
            (Some(config), Some(split)) => format!("{config}/{split}"),
            _ => {
                return Err(RemoteError::Refused(format!(
                    "{uri}: HF_HUB_OFFLINE is set: write source.config and source.split"
                )));
            }
        };
        return hub.listed_in_cache(&repository, &commit, &folder).map(Some);
    }
    let (entries, folder) = hub.converted(&repository, &commit, config, split)?;
    let files = entries.into_iter().filter(|entry| entry.kind == EntryKind::File);
    let files = files.map(|entry| Found {
        name: entry.path[folder.len() + 1..].to_owned(),
        file: HubFile::new(hub, repository.clone(), commit.clone(), entry).into(),
    });
    Ok(Some(Listing { files: files.collect(), is_file: false }))
}

/// What a model folder may hold that is of use.
const MODEL_FILES: [&str; 3] = ["config.json", "patch.json", "README.md"];
const WEIGHT_FILES: [&str; 2] = ["model.safetensors", "model.bpk"];

/// The model at `address` on this machine: its folder, or its file if the address is that of one. What is not in the cache is
/// downloaded and checked. The revision is that of `pins`, or else resolved and pinned there.
///
/// # Errors
/// [`RemoteError`].
pub fn model_folder(address: &ModelAddress, pins: &mut Pins) -> Result<PathBuf, RemoteError> {
    let hub = Hub::get()?;
    let repository =
        Repository { kind: Kind::Model, id: address.repo.clone(), revision: address.revision.clone() };
    let commit = hub.commit(&repository, pins)?;
    let path = address.path.as_deref().unwrap_or_default().trim_matches('/');
    if hub.is_offline() {
        return hub.in_cache(&repository, &commit, path);
    }
    let (mut entries, is_file) = hub.entries(&repository, &commit, path, Reach::Here)?;
    let folder = if is_file { path.rsplit_once('/').map_or("", |(folder, _)| folder) } else { path };
    if is_file {
        // What describes it lies beside it.
        let (beside, _) = hub.entries(&repository, &commit, folder, Reach::Here)?;
        entries.extend(beside.into_iter().filter(|entry| entry.path != path));
    }
    let at = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let weights: Vec<String> =
        if is_file { vec![path.to_owned()] } else { WEIGHT_FILES.iter().map(|name| at(name)).collect() };
    let weights = entries.iter().find(|entry| weights.contains(&entry.path)).cloned();
    let has_config = entries.iter().any(|entry| entry.path == at("config.json"));
    let (Some(weights), true) = (weights, has_config) else {
        let names: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).take(20).collect();
        return Err(RemoteError::Refused(format!(
            "{repository}: a model is config.json and {} in one folder; this one has {}",
            WEIGHT_FILES.join(" or "),
            names.join(", ")
        )));
    };
    let mut place = PathBuf::new();
    let wanted = entries.iter().filter(|entry| entry.kind == EntryKind::File).filter(|entry| {
        let is_license = entry.path.starts_with(&at("LICENSE"));
        is_license || MODEL_FILES.iter().any(|name| entry.path == at(name))
    });
    for entry in wanted.cloned().chain([weights]) {
        if entry.bytes > 100 << 20 {
            tracing::info!("{repository}: {}, {} MB", entry.path, entry.bytes / 1_000_000);
        }
        place =
            super::RemoteFile::from(HubFile::new(hub, repository.clone(), commit.clone(), entry)).keep()?;
    }
    // The weights came last.
    Ok(if is_file { place } else { place.parent().map(PathBuf::from).unwrap_or_default() })
}
