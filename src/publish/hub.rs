//! Questions and changes in; the Hub's answers out, each tried again where that may help. Knows nothing of outputs, models or cards.
//!
//! hf-hub asks after repositories and makes them. It does not commit: files in LFS it sends by Xet only, putting them into the commit
//! itself where the Hub wants another way; it commits again when the answer to a commit is lost; it does not wait as long as the Hub
//! says; and in a listing it does not read the checksum of a file in LFS. That part of the Hub's protocol is spoken here.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hf_hub::{HFClient, HFClientSync, HFError, RepoTypeDataset, RepoTypeModel};
use reqwest::{
    Url,
    blocking::{Client, RequestBuilder},
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, LINK},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    PushError,
    account::Account,
    setback::{Patience, Setback},
    uri::{Kind, Target},
};

/// A branch on the Hub, and who pushes to it.
pub(super) struct Hub {
    pub target: Target,
    account: Account,
    questions: HFClientSync,
    client: Client,
    /// When the Hub, having had too many requests, takes the next: whichever thread was told, all wait.
    opens: Mutex<Instant>,
}

/// What is known of a repository.
pub(super) struct Repository {
    pub private: bool,
}

/// A file in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Entry {
    /// Git's SHA-1 of the file, or of its pointer.
    #[serde(rename = "oid")]
    pub blob: String,
    pub size: u64,
    /// What it is in LFS.
    pub lfs: Option<Object>,
}

/// A file's content in LFS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Object {
    /// SHA-256, hex.
    #[serde(rename = "oid")]
    pub sha256: String,
}

/// How the repository keeps a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Regular,
    Lfs,
    Ignored,
}

/// An answer, whole.
pub(super) struct Reply {
    pub headers: HeaderMap,
    pub body: bytes::Bytes,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Of everything but content. A commit of a hundred files can take the Hub a minute.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Data that nobody takes for so long has nobody who takes it.
const STALLED: Duration = Duration::from_secs(60);
/// Bytes a second; content that goes more slowly is not waited for.
const SLOWEST: u64 = 20_000;
const USER_AGENT: &str = concat!("blt-pipeline/", env!("CARGO_PKG_VERSION"));

impl Hub {
    pub fn new(account: Account, target: Target) -> Result<Hub, PushError> {
        let failed = |error: String| PushError::Environment(format!("there is no HTTP client: {error}"));
        let quiet = reqwest::Client::builder().user_agent(USER_AGENT).connect_timeout(CONNECT_TIMEOUT);
        let quiet = quiet.timeout(TIMEOUT).build().map_err(|error| failed(error.to_string()))?;
        // It is asked again from here, where waits are kept.
        let questions = HFClient::builder().client(quiet).retry_max_attempts(0).cache_enabled(false);
        let questions = questions.endpoint(account.endpoint()).token(account.token()).build_sync();
        let client = Client::builder().user_agent(USER_AGENT).connect_timeout(CONNECT_TIMEOUT).timeout(None);
        #[cfg(target_os = "linux")]
        let client = client.tcp_user_timeout(STALLED);
        Ok(Hub {
            target,
            account,
            questions: questions.map_err(|error| failed(error.to_string()))?,
            client: client.tcp_keepalive(STALLED).build().map_err(|error| failed(error.to_string()))?,
            opens: Mutex::new(Instant::now()),
        })
    }

    /// Address of the branch's page.
    pub fn page(&self) -> String {
        let mut place = self.target.place();
        if !self.target.is_main() {
            place.extend(["tree", &self.target.revision]);
        }
        self.account.address(&place).to_string()
    }

    /// The repository, if there is one that the token may see.
    pub fn repository(&self) -> Result<Option<Repository>, PushError> {
        let wanted = || Some(vec!["private".to_owned()]);
        let (owner, name) = (&self.target.owner, &self.target.name);
        let found = self.question(&format!("find {}", self.target), || match self.target.kind {
            Kind::Dataset => {
                let repository = self.questions.dataset(owner, name);
                repository.info().maybe_expand(wanted()).send().map(|info| info.private)
            }
            Kind::Model => {
                let repository = self.questions.model(owner, name);
                repository.info().maybe_expand(wanted()).send().map(|info| info.private)
            }
        });
        match found {
            Ok(private) => Ok(Some(Repository { private: private.unwrap_or(false) })),
            Err(PushError::NoRepository { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the repository, unless somebody else just did.
    pub fn create(&self, private: bool) -> Result<(), PushError> {
        let id = self.target.id();
        self.question(&format!("make the repository {}", self.target), || {
            let made = match self.target.kind {
                Kind::Dataset => {
                    let new = self.questions.create_repository().repo_id(&id).repo_type(RepoTypeDataset);
                    new.private(private).send()
                }
                Kind::Model => {
                    let new = self.questions.create_repository().repo_id(&id).repo_type(RepoTypeModel);
                    new.private(private).send()
                }
            };
            match made {
                Ok(_) | Err(HFError::Conflict { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    /// The branch's last commit.
    pub fn head(&self) -> Result<String, PushError> {
        #[derive(Deserialize)]
        struct Revision {
            sha: String,
        }
        let what = format!("find the last commit of {}", self.target);
        let url = self.at_revision("revision");
        let revision: Revision = self.read(&what, &self.ask(&what, |client| client.get(url.clone()))?)?;
        Ok(revision.sha)
    }

    /// Every file of the branch.
    pub fn tree(&self) -> Result<BTreeMap<String, Entry>, PushError> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        enum Listed {
            File {
                path: String,
                #[serde(flatten)]
                entry: Entry,
            },
            #[serde(other)]
            Other,
        }
        let what = format!("list the files of {}", self.target);
        let mut files = BTreeMap::new();
        let mut first = self.at_revision("tree");
        first.query_pairs_mut().append_pair("recursive", "true");
        let mut next = Some(first);
        while let Some(url) = next {
            let reply = self.ask(&what, |client| client.get(url.clone()))?;
            for listed in self.read::<Vec<Listed>>(&what, &reply)? {
                if let Listed::File { path, entry } = listed {
                    files.insert(path, entry);
                }
            }
            next = next_page(&reply.headers, &url).map_err(|problem| self.nonsense(&what, problem))?;
        }
        Ok(files)
    }

    /// A file's content.
    pub fn content(&self, path: &str) -> Result<bytes::Bytes, PushError> {
        let what = format!("read {path} of {}", self.target);
        let mut place = self.target.place();
        place.extend(["resolve", &self.target.revision]);
        place.extend(path.split('/'));
        let url = self.account.address(&place);
        Ok(self.ask(&what, |client| client.get(url.clone()))?.body)
    }

    /// How the repository would keep files of these paths, sizes and first bytes, in their order.
    pub fn modes(&self, files: &[(&str, u64, Vec<u8>)]) -> Result<Vec<Mode>, PushError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answered {
            path: String,
            upload_mode: String,
            #[serde(default)]
            should_ignore: bool,
        }
        #[derive(Deserialize)]
        struct All {
            files: Vec<Answered>,
        }
        let what = format!("ask how {} keeps files", self.target);
        let question = |(path, size, sample): &(&str, u64, Vec<u8>)| json!({ "path": path, "size": size, "sample": BASE64_STANDARD.encode(sample) });
        let body = json!({ "files": files.iter().map(question).collect::<Vec<_>>() });
        let url = self.at_revision("preupload");
        let reply = self.ask(&what, |client| client.post(url.clone()).json(&body))?;
        let mut modes = BTreeMap::new();
        for answered in self.read::<All>(&what, &reply)?.files {
            let mode = match answered.upload_mode.as_str() {
                _ if answered.should_ignore => Mode::Ignored,
                "regular" => Mode::Regular,
                "lfs" => Mode::Lfs,
                other => {
                    return Err(self.nonsense(&what, format!("that {} is kept by {other:?}", answered.path)));
                }
            };
            modes.insert(answered.path, mode);
        }
        let mode = |(path, size, _): &(&str, u64, Vec<u8>)| match modes.get(*path) {
            // A storage of objects takes no empty ones.
            Some(Mode::Lfs) if *size == 0 => Ok(Mode::Regular),
            Some(mode) => Ok(*mode),
            None => Err(self.nonsense(&what, format!("without a word on {path}"))),
        };
        files.iter().map(mode).collect()
    }

    /// Asks once to make a commit of `lines` upon the commit `head`; tells the new one.
    pub fn try_commit(&self, title: &str, head: &str, lines: &[Value]) -> Result<String, Setback> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Made {
            commit_oid: String,
        }
        let header = json!({ "summary": title, "description": "", "parentCommit": head });
        let mut body = json!({ "key": "header", "value": header }).to_string();
        for line in lines {
            body.push('\n');
            body.push_str(&line.to_string());
        }
        let url = self.at_revision("commit");
        let request = self.client.post(url.clone()).header(CONTENT_TYPE, "application/x-ndjson").body(body);
        let reply = self.send(&url, request.timeout(TIMEOUT))?;
        // An answer without sense is as good as none.
        let made = serde_json::from_slice::<Made>(&reply.body);
        made.map(|made| made.commit_oid).map_err(|error| Setback::of_answer(&error))
    }

    /// Asks the repository's LFS for leave to send objects of these SHA-256 and sizes.
    pub fn lfs_batch(&self, objects: &[(&str, u64)]) -> Result<Reply, PushError> {
        const LFS: &str = "application/vnd.git-lfs+json";
        let what = format!("ask where {} takes files", self.target);
        let repository = format!("{}.git", self.target.name);
        let mut place = self.target.place();
        place.pop();
        place.extend([&*repository, "info", "lfs", "objects", "batch"]);
        let url = self.account.address(&place);
        let object = |(sha256, size): &(&str, u64)| json!({ "oid": sha256, "size": size });
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects.iter().map(object).collect::<Vec<_>>(),
            "hash_algo": "sha256",
            "ref": { "name": self.target.revision },
        });
        let body = body.to_string();
        self.ask(&what, |client| {
            client.post(url.clone()).header(ACCEPT, LFS).header(CONTENT_TYPE, LFS).body(body.clone())
        })
    }

    /// Sends the request that `build` makes until it is answered well or that is of no more use.
    pub fn ask(&self, what: &str, build: impl Fn(&Client) -> RequestBuilder) -> Result<Reply, PushError> {
        let mut patience = Patience::new();
        loop {
            let request =
                build(&self.client).build().map_err(|error| self.nonsense(what, error.to_string()))?;
            let url = request.url().clone();
            match self.send(&url, RequestBuilder::from_parts(self.client.clone(), request).timeout(TIMEOUT)) {
                Ok(reply) => return Ok(reply),
                Err(setback) if self.waits(&mut patience, &setback) => {}
                Err(setback) => return Err(self.failed(what, &setback)),
            }
        }
    }

    /// Sends a request once; the token goes along if `url` is the Hub's.
    pub fn send(&self, url: &Url, request: RequestBuilder) -> Result<Reply, Setback> {
        let mut request = request;
        if self.account.may_know(url) {
            self.wait_until_open();
            request = request.headers(self.account.headers());
        }
        let response = request.send().map_err(Setback::of_network)?;
        if !response.status().is_success() {
            return Err(Setback::of_response(response));
        }
        let headers = response.headers().clone();
        Ok(Reply { headers, body: response.bytes().map_err(Setback::of_network)? })
    }

    /// A request that carries `bytes` of content.
    pub fn put(&self, url: &Url, bytes: u64) -> RequestBuilder {
        self.client.put(url.clone()).timeout(TIMEOUT + Duration::from_secs(bytes / SLOWEST))
    }

    fn question<T>(&self, what: &str, ask: impl Fn() -> Result<T, HFError>) -> Result<T, PushError> {
        let mut patience = Patience::new();
        loop {
            self.wait_until_open();
            let error = match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let setback = Setback::of_hub(error).map_err(|problem| self.nonsense(what, problem))?;
            if !self.waits(&mut patience, &setback) {
                return Err(self.failed(what, &setback));
            }
        }
    }

    /// Waits as long as is due after `setback`; false when it is of no use to try again.
    pub fn waits(&self, patience: &mut Patience, setback: &Setback) -> bool {
        let Some(wait) = patience.wait(setback) else { return false };
        if wait > Duration::from_secs(5) {
            tracing::warn!("{}; waiting {} s", self.account.without_token(&setback.what()), wait.as_secs());
        }
        if setback.is_limit() {
            let mut opens = self.opens.lock().unwrap_or_else(PoisonError::into_inner);
            *opens = (*opens).max(Instant::now() + wait);
        }
        thread::sleep(wait);
        true
    }

    fn wait_until_open(&self) {
        let opens = *self.opens.lock().unwrap_or_else(PoisonError::into_inner);
        thread::sleep(opens.saturating_duration_since(Instant::now()));
    }

    /// `<endpoint>/api/<kind>/<owner>/<name>/<of>/<revision>`
    fn at_revision(&self, of: &str) -> Url {
        let Target { kind, owner, name, revision } = &self.target;
        self.account.address(&["api", kind.plural(), owner, name, of, revision])
    }

    /// Reads an address that the Hub gave.
    pub fn url(&self, address: &str, what: &str) -> Result<Url, PushError> {
        Url::parse(address)
            .map_err(|error| self.nonsense(what, format!("with an address that is none: {error}")))
    }

    /// Reads an answer's JSON.
    pub fn read<T: DeserializeOwned>(&self, what: &str, reply: &Reply) -> Result<T, PushError> {
        serde_json::from_slice(&reply.body)
            .map_err(|error| self.nonsense(what, format!("what it should not: {error}")))
    }

    /// There is no repository.
    pub fn missing(&self) -> PushError {
        PushError::NoRepository { repository: self.target.to_string(), origin: self.account.origin.clone() }
    }

    /// An answer that makes no sense.
    pub fn nonsense(&self, what: &str, problem: String) -> PushError {
        PushError::Answer { what: what.into(), problem: self.account.without_token(&problem) }
    }

    /// What a setback means that nothing more is done about.
    pub fn failed(&self, what: &str, setback: &Setback) -> PushError {
        let (repository, origin) = (self.target.to_string(), self.account.origin.clone());
        let message = self.account.without_token(&setback.message);
        match setback.status {
            Some(401) if setback.code == "RepoNotFound" => PushError::NoRepository { repository, origin },
            Some(401) => {
                let settings = self.account.address(&["settings", "tokens"]).to_string();
                PushError::InvalidToken { repository, origin, settings }
            }
            Some(403) => PushError::NoAccess { origin, what: what.into(), message },
            Some(404) if setback.code == "RevisionNotFound" => {
                PushError::NoRevision { repository, revision: self.target.revision.clone() }
            }
            Some(404) => PushError::NoRepository { repository, origin },
            _ => {
                let (what, problem) = (what.to_owned(), self.account.without_token(&setback.what()));
                if setback.may_pass() {
                    PushError::Interrupted { what, problem }
                } else {
                    PushError::Answer { what, problem }
                }
            }
        }
    }
}

/// The next page of a listing: `Link: <address>; rel="next"`. It would be told the token, so it must be where this page is.
fn next_page(headers: &HeaderMap, page: &Url) -> Result<Option<Url>, String> {
    let links = headers.get(LINK).and_then(|links| links.to_str().ok()).unwrap_or_default();
    let Some(next) = links.split(',').find(|link| link.contains("rel=\"next\"")) else { return Ok(None) };
    let address = next.trim().strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let address = address.and_then(|(address, _)| page.join(address).ok());
    let next = address.filter(|next| next.origin() == page.origin() && next != page);
    next.map(Some).ok_or_else(|| format!("with a list that goes on elsewhere: {links}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_taken_from_the_same_host_only() {
        let page = Url::parse("https://hub.example/api/tree?recursive=true").unwrap();
        for (link, expected) in [
            (
                "<https://hub.example/api/tree?cursor=a%3D>; rel=\"next\"",
                "https://hub.example/api/tree?cursor=a%3D",
            ),
            ("</api/tree?cursor=b>; rel=\"next\"", "https://hub.example/api/tree?cursor=b"),
            ("<https://hub.example/api/tree?cursor=a>; rel=\"prev\"", "none"),
            ("<https://other.example/api/tree?cursor=a>; rel=\"next\"", "with a list that goes on elsewhere"),
            (
                "<https://hub.example/api/tree?recursive=true>; rel=\"next\"",
                "with a list that goes on elsewhere",
            ),
        ] {
            let headers = HeaderMap::from_iter([(LINK, link.parse().unwrap())]);
            let found = match next_page(&headers, &page) {
                Ok(next) => next.map_or("none".to_owned(), |next| next.to_string()),
                Err(problem) => problem,
            };
            assert!(found.starts_with(expected), "{link}: {found}");
        }
    }
}
