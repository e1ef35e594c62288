//! The cache that all tools of the Hub share: blobs by their hash, snapshots of links to them by commit, and what commit a branch was at.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use walkdir::WalkDir;

use super::{
    HubFile,
    address::{Kind, Repository},
    api::{EntryKind, Hub, RepositoryEntry},
};
use crate::remote::{
    Found, Listing, RemoteError, RemoteFile,
    cache::{Checksum, download, write_whole},
};

impl Hub {
    /// Folder of a repository.
    fn folder(&self, repository: &Repository) -> PathBuf {
        self.environment.cache.join(folder_name(repository))
    }

    fn snapshot(&self, repository: &Repository, commit: &str) -> PathBuf {
        self.folder(repository).join("snapshots").join(commit)
    }

    fn missing(&self, what: &str) -> RemoteError {
        RemoteError::Refused(format!(
            "HF_HUB_OFFLINE is set, and the cache {} has no {what}; unset it once, with source.cache = true for a source",
            self.environment.cache.display()
        ))
    }

    /// The commit that the cache has of a revision.
    pub(super) fn commit_in_cache(&self, repository: &Repository) -> Result<String, RemoteError> {
        let revision = repository.revision();
        let known = fs::read_to_string(self.folder(repository).join("refs").join(revision));
        let commit = known.map(|commit| commit.trim().to_owned()).unwrap_or_else(|_| revision.to_owned());
        if commit.is_empty() || !self.snapshot(repository, &commit).is_dir() {
            return Err(self.missing(&format!("revision {revision} of {repository}")));
        }
        Ok(commit)
    }

    /// As [`list`](super::list), of what the cache has.
    pub(super) fn listed_in_cache(
        &'static self,
        repository: &Repository,
        commit: &str,
        path: &str,
    ) -> Result<Listing, RemoteError> {
        let base = self.in_cache(repository, commit, path)?;
        let is_file = base.is_file();
        let mut files = Vec::new();
        for entry in WalkDir::new(&base).follow_links(true) {
            let failed = |error: io::Error| RemoteError::Local {
                what: format!("failed to list {}", base.display()),
                error,
            };
            let entry = entry.map_err(|error| failed(error.into()))?;
            if !entry.file_type().is_file() {
                continue;
            }
            let below = entry.path().strip_prefix(&base).unwrap_or(entry.path());
            let name = match is_file {
                true => entry.file_name().to_string_lossy().into_owned(),
                false => below.to_string_lossy().into_owned(),
            };
            let whole = match (is_file, path.is_empty()) {
                (true, _) => path.to_owned(),
                (false, true) => name.clone(),
                (false, false) => format!("{path}/{name}"),
            };
            let bytes = entry.metadata().map_err(|error| failed(error.into()))?.len();
            let entry =
                RepositoryEntry { path: whole, kind: EntryKind::File, bytes, checksum: Checksum::Unknown };
            let file = HubFile::new(self, repository.clone(), commit.to_owned(), entry);
            files.push(Found { name, file: file.into() });
        }
        if !is_file {
            tracing::warn!(
                "HF_HUB_OFFLINE is set: of {repository} the {} files in the cache are taken for all",
                files.len()
            );
        }
        Ok(Listing { files, is_file })
    }

    /// Where the cache has `path` of a snapshot.
    pub(super) fn in_cache(
        &self,
        repository: &Repository,
        commit: &str,
        path: &str,
    ) -> Result<PathBuf, RemoteError> {
        if !is_below(path) {
            return Err(self.missing(&format!("{path} of {repository}")));
        }
        let place = self.snapshot(repository, commit).join(path);
        match place.exists() {
            true => Ok(place),
            false => Err(self.missing(&format!("{path} of {repository} at commit {commit}"))),
        }
    }
}

/// Whether `path` stays in the folder that it is joined to.
pub(super) fn is_below(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// `datasets--owner--name`.
fn folder_name(repository: &Repository) -> String {
    let kind = match repository.kind {
        Kind::Dataset => "datasets",
        Kind::Model => "models",
    };
    format!("{kind}--{}", repository.id.replace('/', "--"))
}

impl HubFile {
    fn snapshot_path(&self) -> PathBuf {
        self.hub.snapshot(&self.repository, &self.commit).join(&self.entry.path)
    }

    /// As [`RemoteFile::copy`].
    pub(in crate::remote) fn copy(&self) -> Option<PathBuf> {
        let path = self.snapshot_path();
        let has_all = path.metadata().is_ok_and(|metadata| metadata.len() == self.entry.bytes);
        has_all.then_some(path)
    }

    /// As [`RemoteFile::keep`]; `remote` is this file.
    pub(in crate::remote) fn keep(&self, remote: &RemoteFile) -> Result<PathBuf, RemoteError> {
        let folder = self.hub.folder(&self.repository);
        let blob_name = match &self.entry.checksum {
            Checksum::Sha256(hash) | Checksum::GitBlob(hash) => hash.clone(),
            Checksum::Unknown => {
                return Err(RemoteError::Failed(format!(
                    "failed to download {remote:?}: the Hub tells no hash of it"
                )));
            }
        };
        let locks = self.hub.environment.cache.join(".locks").join(folder_name(&self.repository));
        let blob = folder.join("blobs").join(&blob_name);
        let path = self.snapshot_path();
        let parent = path.parent().unwrap_or(Path::new("."));
        for folder in [&folder.join("blobs"), &locks, &parent.to_owned()] {
            fs::create_dir_all(folder)
                .map_err(RemoteError::local(format!("failed to create {}", folder.display())))?;
        }
        download(remote, &self.entry.checksum, &blob, &locks.join(format!("{blob_name}.lock")))?;
        // As many steps up as the file lies deep in its snapshot, and two more.
        let depth = self.entry.path.split('/').count() + 1;
        let target = Path::new(&"../".repeat(depth)).join("blobs").join(&blob_name);
        // Another process may have been faster, and be reading it.
        if self.copy().is_none() {
            let temporary = parent.join(format!(".{}", uuid::Uuid::new_v4().simple()));
            symlink(&target, &temporary)
                .and_then(|()| fs::rename(&temporary, &path))
                .map_err(RemoteError::local(format!("failed to link {}", path.display())))?;
        }
        // What an output keeps to is of no interest to others.
        if self.hub.is_newest(&self.repository, &self.commit) {
            let reference = folder.join("refs").join(self.repository.revision());
            write_whole(&reference, self.commit.as_bytes())
                .map_err(RemoteError::local(format!("failed to write {}", reference.display())))?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_cannot_lead_out_of_the_cache() {
        for (path, expected) in
            [("a/b.parquet", true), ("", true), ("../b", false), ("a/../../b", false), ("/etc/passwd", false)]
        {
            assert_eq!(is_below(path), expected, "{path}");
        }
    }
}
