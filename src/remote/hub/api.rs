//! Questions to the Hub about repositories, and what its refusals mean. Reads no file.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use http::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, LINK, RANGE},
};
use object_store::client::{HttpClient, HttpRequest, HttpResponse};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use url::Url;

use super::{
    address::{CONVERSION, Kind, Repository},
    cache::is_below,
    environment::Environment,
};
use crate::remote::{
    Pins, Reach, RemoteError, block_on,
    cache::Checksum,
    http::{client, is_transient},
    store::with_causes,
};

/// An answer is asked for again when it was cut so often.
const CUTS: u32 = 8;

/// The Hub that the environment names.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) environment: Environment,
    /// For questions.
    metadata: HttpClient,
    /// For the bytes of files.
    data: HttpClient,
    /// Revisions that were asked for, and their commits.
    newest: Mutex<BTreeSet<(String, String)>>,
}

/// A file or folder in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::remote) struct RepositoryEntry {
    pub(super) path: String,
    pub(super) kind: EntryKind,
    pub(super) bytes: u64,
    pub(super) checksum: Checksum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Folder,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl From<TreeEntry> for RepositoryEntry {
    fn from(entry: TreeEntry) -> Self {
        let kind = if entry.kind == "file" { EntryKind::File } else { EntryKind::Folder };
        let is_hex =
            |hash: &str, n: usize| hash.len() == n && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (bytes, checksum) = match entry.lfs {
            Some(Lfs { oid, size }) => {
                let oid = oid.strip_prefix("sha256:").unwrap_or(&oid).to_owned();
                (size, if is_hex(&oid, 64) { Checksum::Sha256(oid) } else { Checksum::Unknown })
            }
            None if is_hex(&entry.oid, 40) => (entry.size, Checksum::GitBlob(entry.oid)),
            None => (entry.size, Checksum::Unknown),
        };
        RepositoryEntry { path: entry.path, kind, bytes, checksum }
    }
}

impl Hub {
    /// # Errors
    /// [`RemoteError::Refused`] when the environment makes no sense.
    pub(super) fn get() -> Result<&'static Hub, RemoteError> {
        static HUB: LazyLock<Result<Hub, String>> = LazyLock::new(|| {
            let environment = Environment::read()?;
            Ok(Hub {
                metadata: client(environment.metadata_timeout).map_err(|error| error.to_string())?,
                data: client(environment.download_timeout).map_err(|error| error.to_string())?,
                environment,
                newest: Mutex::default(),
            })
        });
        HUB.as_ref().map_err(|problem| RemoteError::Refused(problem.clone()))
    }

    fn newest(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `commit` is what the revision stood for when this process asked.
    pub(super) fn is_newest(&self, repository: &Repository, commit: &str) -> bool {
        repository.revision() != commit && self.newest().contains(&(repository.pin(), commit.to_owned()))
    }

    pub(super) fn is_offline(&self) -> bool {
        self.environment.is_offline
    }

    /// An address on the Hub, from the parts of its path.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.environment.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts.into_iter().filter(|part| !part.is_empty()));
        }
        url
    }

    /// Parts of the path of what the Hub tells of `repository` under the name `what`.
    fn api<'a>(&self, repository: &'a Repository, what: &'a str, commit: &'a str, path: &'a str) -> Url {
        let kind = match repository.kind {
            Kind::Dataset => "datasets",
            Kind::Model => "models",
        };
        self.url(
            ["api", kind]
                .into_iter()
                .chain(repository.id.split('/'))
                .chain([what, commit])
                .chain(path.split('/')),
        )
    }

    /// Whether the token may go along to `url`.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.environment.endpoint.origin()
    }

    /// Sends a request; the token goes to the Hub itself only.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        range: Option<std::ops::Range<u64>>,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, RemoteError> {
        let mut request = http::Request::builder().method(method).uri(url.as_str());
        if self.is_own(url)
            && let Some(token) = &self.environment.token
        {
            let mut value = http::HeaderValue::from_str(&format!("Bearer {}", token.secret))
                .map_err(|_| RemoteError::Refused(format!("the token in {} is no token", token.from)))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let for_data = range.is_some();
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request: HttpRequest = request
            .body(body.unwrap_or_default().into())
            .map_err(|error| RemoteError::Refused(format!("{} cannot be asked for: {error}", url.path())))?;
        let client = if for_data { &self.data } else { &self.metadata };
        let host = url.host_str().unwrap_or_default();
        client
            .execute(request)
            .await
            .map_err(|error| RemoteError::Failed(format!("failed to reach {host}: {}", with_causes(&error))))
    }

    /// The answer to a question, and its headers.
    async fn ask<T: DeserializeOwned>(
        &self,
        repository: &Repository,
        url: &Url,
        body: Option<Vec<u8>>,
    ) -> Result<(T, HeaderMap), RemoteError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut url = url.clone();
        let mut n_cuts = 0;
        for _ in 0..CUTS {
            let answer = self.send(method.clone(), &url, None, body.clone()).await?;
            let (parts, content) = answer.into_parts();
            if parts.status.is_redirection() {
                // A repository has another name now.
                url = self.redirected(&url, &parts.headers, repository)?;
                continue;
            }
            if !parts.status.is_success() {
                return Err(self.refusal(repository, None, parts.status, &parts.headers));
            }
            match content.bytes().await {
                Ok(content) => {
                    let answer = serde_json::from_slice(&content).map_err(|error| {
                        RemoteError::Failed(format!(
                            "{} answered {} with no such JSON: {error}",
                            host(&url),
                            url.path()
                        ))
                    })?;
                    return Ok((answer, parts.headers));
                }
                Err(error) => {
                    tracing::debug!("an answer of {} was cut: {error}", host(&url));
                    n_cuts += 1;
                }
            }
        }
        Err(RemoteError::Failed(format!(
            "{} does not answer {}: it was cut {n_cuts} times",
            host(&url),
            url.path()
        )))
    }

    /// Where a redirect leads.
    pub(super) fn redirected(
        &self,
        from: &Url,
        headers: &HeaderMap,
        repository: &Repository,
    ) -> Result<Url, RemoteError> {
        let location = headers.get(http::header::LOCATION).and_then(|location| location.to_str().ok());
        location.and_then(|location| from.join(location).ok()).ok_or_else(|| {
            RemoteError::Failed(format!("{repository}: {} redirects {} to nowhere", host(from), from.path()))
        })
    }

    /// The commit that the revision of `repository` stands for.
    pub(super) fn commit(&self, repository: &Repository, pins: &mut Pins) -> Result<String, RemoteError> {
        if let Some(commit) = pins.get(&repository.pin()) {
            return Ok(commit.clone());
        }
        #[derive(Deserialize)]
        struct Info {
            sha: Option<String>,
        }
        let commit = match self.is_offline() {
            true => self.commit_in_cache(repository)?,
            false => {
                let url = self.api(repository, "revision", repository.revision(), "");
                let (info, _) = block_on(self.ask::<Info>(repository, &url, None))?;
                let commit = info.sha.ok_or_else(|| {
                    RemoteError::Refused(format!("{repository} has no commit: it is empty"))
                })?;
                if commit.is_empty() || !commit.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    return Err(RemoteError::Failed(format!(
                        "{repository}: the Hub tells {commit:?} for a commit"
                    )));
                }
                self.newest().insert((repository.pin(), commit.clone()));
                commit
            }
        };
        pins.insert(repository.pin(), commit.clone());
        Ok(commit)
    }

    /// What is at `path` in `repository`: what is in or below a folder, or a file, and whether it is that.
    pub(super) fn entries(
        &self,
        repository: &Repository,
        commit: &str,
        path: &str,
        reach: Reach,
    ) -> Result<(Vec<RepositoryEntry>, bool), RemoteError> {
        if !path.is_empty() {
            let body = json!({ "paths": [path], "expand": false }).to_string().into_bytes();
            let url = self.api(repository, "paths-info", commit, "");
            let (found, _) = block_on(self.ask::<Vec<TreeEntry>>(repository, &url, Some(body)))?;
            match found.into_iter().map(RepositoryEntry::from).find(|entry| entry.path == path) {
                Some(entry) if entry.kind == EntryKind::File => return Ok((vec![entry], true)),
                Some(_) => {}
                None => {
                    return Err(RemoteError::Refused(format!(
                        "{repository} has no {path} at commit {commit}"
                    )));
                }
            }
        }
        let listed = block_on(self.tree(repository, commit, path, reach))?;
        if !listed.iter().any(|entry| entry.kind == EntryKind::File) {
            return Err(RemoteError::Refused(format!("{repository}: there is no file below /{path}")));
        }
        Ok((listed, false))
    }

    async fn tree(
        &self,
        repository: &Repository,
        commit: &str,
        path: &str,
        reach: Reach,
    ) -> Result<Vec<RepositoryEntry>, RemoteError> {
        let mut url = self.api(repository, "tree", commit, path);
        url.query_pairs_mut().append_pair("recursive", if reach == Reach::Below { "true" } else { "false" });
        let mut all = Vec::new();
        loop {
            let (page, headers) = self.ask::<Vec<TreeEntry>>(repository, &url, None).await?;
            let is_empty = page.is_empty();
            for entry in page {
                // What a listing names becomes a path in the cache.
                let is_inside = path.is_empty() || Path::new(&entry.path).starts_with(path);
                if !is_inside || !is_below(&entry.path) {
                    let problem = format!("{repository}: the Hub lists {:?} below /{path}", entry.path);
                    return Err(RemoteError::Failed(problem));
                }
                all.push(RepositoryEntry::from(entry));
            }
            match next_page(&headers).and_then(|next| url.join(&next).ok()) {
                Some(next) if !is_empty && next != url => url = next,
                _ => return Ok(all),
            }
        }
    }

    /// Files of a dataset's `config` and `split` in the Hub's own conversion to Parquet, and the folder they are in.
    pub(super) fn converted(
        &self,
        repository: &Repository,
        commit: &str,
        config: Option<&str>,
        split: Option<&str>,
    ) -> Result<(Vec<RepositoryEntry>, String), RemoteError> {
        let folders = |path: &str| -> Result<Vec<String>, RemoteError> {
            let entries = block_on(self.tree(repository, commit, path, Reach::Here))?;
            let folders = entries.into_iter().filter(|entry| entry.kind == EntryKind::Folder);
            Ok(folders.map(|entry| entry.path.rsplit('/').next().unwrap_or_default().to_owned()).collect())
        };
        let configs = folders("")?;
        let config = chosen(&format!("{repository}: source.config"), &configs, config, "default")?;
        let splits = folders(&config)?;
        if let Some(split) = split.filter(|split| splits.contains(&format!("partial-{split}"))) {
            return Err(RemoteError::Refused(format!(
                "{repository}: source.split = {split:?}: the Hub has converted only a first part of it; name the dataset's \
                 own files with a glob, or take that part with source.split = \"partial-{split}\""
            )));
        }
        let split = chosen(&format!("{repository}: source.split"), &splits, split, "train")?;
        let folder = format!("{config}/{split}");
        Ok((block_on(self.tree(repository, commit, &folder, Reach::Below))?, folder))
    }

    /// What a refusal means, and what can be done.
    pub(super) fn refusal(
        &self,
        repository: &Repository,
        path: Option<&str>,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> RemoteError {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let what = match path {
            Some(path) => format!("failed to read {path} of {repository}"),
            None => format!("failed to open {repository}"),
        };
        let page =
            self.url([repository.prefix().trim_end_matches('/')].into_iter().chain(repository.id.split('/')));
        let tokens = self.url(["settings", "tokens"]);
        let refused = |problem: String| match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RemoteError::Denied(format!("{what}: {problem}"))
            }
            _ => RemoteError::Refused(format!("{what}: {problem}")),
        };
        let token = self.environment.token.as_ref();
        match (status, code, token) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, "GatedRepo", None) => refused(format!(
                "it is gated, and there is no token: ask for access at {page}, and set HF_TOKEN to a token of yours from {tokens}"
            )),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, "GatedRepo", Some(token)) => refused(format!(
                "it is gated, and access was not granted to the owner of the token in {}: ask for it at {page}",
                token.from
            )),
            (StatusCode::UNAUTHORIZED, "RepoNotFound", None) | (StatusCode::UNAUTHORIZED, "", None) => {
                refused(format!(
                    "there is no such repository, or it is private and there is no token: check {page}, or set HF_TOKEN to a \
                     token from {tokens}, or write it to {}",
                    self.environment.token_file.display()
                ))
            }
            (StatusCode::UNAUTHORIZED, _, Some(token)) => {
                refused(format!("the token in {} is not valid (any more): make one at {tokens}", token.from))
            }
            (StatusCode::FORBIDDEN, _, Some(token)) => refused(format!(
                "the token in {} may not read it{}: check its permissions at {tokens}",
                token.from,
                if message.is_empty() { String::new() } else { format!(" ({message})") }
            )),
            (StatusCode::NOT_FOUND, "RevisionNotFound", _) if repository.revision() == CONVERSION => refused(
                "the Hub has not converted it to Parquet; name the dataset's own files with a glob, like \
                 hf://datasets/OWNER/NAME/**/*.parquet"
                    .to_owned(),
            ),
            (StatusCode::NOT_FOUND, "RevisionNotFound", _) => {
                refused(format!("it has no revision {}", repository.revision()))
            }
            (StatusCode::NOT_FOUND, "EntryNotFound", _) => refused("there is no such file".to_owned()),
            (StatusCode::NOT_FOUND, _, Some(token)) => refused(format!(
                "there is no such repository, or the token in {} may not see it: check {page}",
                token.from
            )),
            (StatusCode::NOT_FOUND, _, None) => refused(format!("there is no such repository: check {page}")),
            (status, ..) if is_transient(status) => {
                RemoteError::Failed(format!("{what}: the Hub answered {status} for as long as was waited"))
            }
            _ => refused(format!("the Hub answered {status} {message}")),
        }
    }
}

/// The one of `names` that is asked for, or that goes without saying.
fn chosen(key: &str, names: &[String], written: Option<&str>, usual: &str) -> Result<String, RemoteError> {
    let has = |name: &str| names.iter().any(|known| known == name);
    match (written, names) {
        (Some(written), _) if has(written) => Ok(written.to_owned()),
        (Some(written), _) => Err(RemoteError::Refused(format!(
            "{key} = {written:?}: there is none; there are {}",
            names.join(", ")
        ))),
        (None, [only]) => Ok(only.clone()),
        (None, _) if has(usual) => Ok(usual.to_owned()),
        (None, _) => {
            Err(RemoteError::Refused(format!("{key} is not written; there are {}", names.join(", "))))
        }
    }
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

/// The address in `Link: <…>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|value| value.split(',')).find_map(|link| {
        let (address, relation) = link.split_once('>')?;
        relation.contains("rel=\"next\"").then(|| address.trim().trim_start_matches('<').to_owned())
    })
}
