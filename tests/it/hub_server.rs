//! A Hugging Face Hub in this process: repositories made of bytes go in, HTTP/1.1 answers come out of two sockets of
//! the loopback interface, the hub's own and its CDN's. Knows neither TLS nor compression nor Xet's transfers (it
//! can name a Xet hash, no more), and nothing of the product that asks it.
#![allow(dead_code)] // A protocol is whole, also where no test asks for a part of it yet.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// May write everywhere and is let into every private and gated repository.
pub const OWNER_TOKEN: &str = "hf_owner";
/// A good token that may only read, and is let into no private and no gated repository.
pub const STRANGER_TOKEN: &str = "hf_stranger";

/// What the real limiter calls a fixed window is at least this long in its header.
const SECOND: Duration = Duration::from_secs(1);
/// Bytes that are written, and counted in the log, at once.
const PIECE: usize = 64 << 10;
/// A request's head that is longer is an error.
const HEAD: usize = 64 << 10;

// The words of the protocol by which clients tell errors apart.
const INVALID_TOKEN: &str = "Invalid credentials in Authorization header";
const NO_SUCH_FILE: &str = "A file with this name doesn't exist";

/// Listens until dropped. Dropping ends every connection and thread, and panics when a request broke the protocol
/// and the test did not ask for [`Hub::violations`].
pub struct Hub {
    shared: Arc<Shared>,
    doors: Vec<Door>,
}

struct Door {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// Which of the two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Hub,
    Cdn,
}

/// How the hub counts requests for its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// Paths with `/resolve/` (and where a file of the hub itself is redirected to).
    Resolvers,
    /// `/api/` and the LFS endpoints.
    Api,
    /// All others.
    Pages,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Model,
    Dataset,
}

/// How the hub behaves where the real one may behave either way.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Entries in a page of a listing, however many the client wants.
    pub page: usize,
    /// How long the CDN serves a link that the hub gave out.
    pub link_life: Option<Duration>,
    /// How many requests the CDN serves for a link that the hub gave out.
    pub link_uses: Option<u32>,
    /// The CDN's name in links: `127.0.0.1`, or `localhost` for one that differs from the hub's by more than the port.
    pub cdn_name: &'static str,
    /// Whether files in LFS have a Xet hash in headers and listings.
    pub xet: bool,
    /// Whether the hub redirects a file of its own to another path of its own, as the real one often does.
    pub resolve_cache: bool,
    /// Size, bytes, from which an uploaded file goes to LFS whatever its name.
    pub lfs_from: u64,
    /// Size of a part, bytes, of an upload to LFS; larger objects are uploaded in parts.
    pub part: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            page: 5,
            link_life: None,
            link_uses: None,
            cdn_name: "127.0.0.1",
            xet: false,
            resolve_cache: false,
            lfs_from: 10 << 20,
            part: None,
        }
    }
}

/// Faults that requests meet. Each share is of all requests, 0 to 1, and their sum is at most 1. The fate of a request
/// depends on the seed, on what it asks and on how often that was asked before, not on what other threads do.
#[derive(Clone, Debug)]
pub struct Faults {
    pub seed: u64,
    /// 429, without the limiter's headers.
    pub too_many: f64,
    /// 503.
    pub unavailable: f64,
    /// Not answered until the client gives up, at most [`Faults::hold`].
    pub held: f64,
    /// The socket is closed without an answer.
    pub dropped: f64,
    /// The body ends early and the socket is closed.
    pub cut: f64,
    /// The body comes in small pieces with pauses.
    pub slow: f64,
    /// Seconds in `Retry-After` of 429 and 503.
    pub retry_after: Option<u64>,
    pub hold: Duration,
    pub slow_piece: usize,
    pub slow_pause: Duration,
    /// The same thing, path and range, asked again and again meets at most so many faults.
    pub at_most: u32,
    /// Only this socket's requests; `None` is both.
    pub host: Option<Host>,
    /// Only requests whose path has this part; all have the empty one.
    pub path: &'static str,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            seed: 0,
            too_many: 0.0,
            unavailable: 0.0,
            held: 0.0,
            dropped: 0.0,
            cut: 0.0,
            slow: 0.0,
            retry_after: None,
            hold: Duration::from_secs(30),
            slow_piece: 1000,
            slow_pause: Duration::from_millis(2),
            at_most: u32::MAX,
            host: None,
            path: "",
        }
    }
}

/// At most `requests` in each window.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    pub requests: u32,
    pub window: Duration,
    /// How long after a refusal other requests may still be on their way without being called a violation.
    pub grace: Duration,
}

impl RateLimit {
    pub fn new(requests: u32, window: Duration) -> Self {
        RateLimit { requests, window, grace: Duration::from_millis(200) }
    }
}

/// What a limiter saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub served: u32,
    /// Answered with 429.
    pub refused: u32,
    /// Refused although an earlier answer, older than the grace, had told to wait longer.
    pub violations: u32,
}

/// A request as the log keeps it, in the order of arrival.
#[derive(Clone, Debug)]
pub struct Request {
    pub host: Host,
    pub method: String,
    /// With the query, as it was sent.
    pub path: String,
    pub range: Option<String>,
    /// 0 when the socket was closed, or is still held, without an answer.
    pub status: u16,
    /// Bytes of the body that were handed to the socket.
    pub sent: u64,
    /// Bytes that the body has; more than were sent when it was cut.
    pub length: u64,
    /// Since the hub's start.
    pub at: Duration,
    /// Whether it had an `Authorization` header.
    pub authorization: bool,
    /// Whether that held a token that the hub knows.
    pub known_token: bool,
}

/// A file to add: path, content, and whether it is in LFS.
#[derive(Clone, Debug)]
pub struct File {
    pub path: String,
    pub bytes: Vec<u8>,
    pub lfs: bool,
}

impl File {
    pub fn plain(path: &str, bytes: &[u8]) -> Self {
        File { path: path.to_owned(), bytes: bytes.to_vec(), lfs: false }
    }

    pub fn lfs(path: &str, bytes: &[u8]) -> Self {
        File { path: path.to_owned(), bytes: bytes.to_vec(), lfs: true }
    }
}

impl Hub {
    pub fn start() -> Self {
        let listeners =
            [Host::Hub, Host::Cdn].map(|host| (host, TcpListener::bind(("127.0.0.1", 0)).unwrap()));
        let port = |i: usize| listeners[i].1.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            start: Instant::now(),
            hub_port: port(0),
            cdn_port: port(1),
            state: Mutex::new(State::default()),
            log: Mutex::default(),
            connections: Mutex::default(),
            stopped: Condvar::new(),
        });
        let doors = listeners.map(|(host, listener)| {
            let address = listener.local_addr().unwrap();
            let shared = Arc::clone(&shared);
            Door { address, thread: Some(thread::spawn(move || accept(&shared, host, &listener))) }
        });
        Hub { shared, doors: doors.into() }
    }

    /// What `HF_ENDPOINT` is to be.
    pub fn endpoint(&self) -> String {
        self.shared.endpoint()
    }

    pub fn cdn_endpoint(&self) -> String {
        self.shared.cdn_endpoint()
    }

    /// The dataset `owner/name`; made, with an empty branch `main`, if there is none.
    pub fn dataset(&self, id: &str) -> Repo {
        self.repo(Kind::Dataset, id)
    }

    /// The model `owner/name`; likewise.
    pub fn model(&self, id: &str) -> Repo {
        self.repo(Kind::Model, id)
    }

    pub fn repo(&self, kind: Kind, id: &str) -> Repo {
        self.shared.state().repos.entry((kind, id.to_owned())).or_insert_with(|| RepoState::new(kind, id));
        Repo {
            shared: Arc::clone(&self.shared),
            kind,
            id: id.to_owned(),
            reference: "refs/heads/main".to_owned(),
        }
    }

    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.state().settings);
    }

    /// Replaces the faults; what was asked before is forgotten.
    pub fn faults(&self, faults: Faults) {
        let mut state = self.shared.state();
        state.faults = faults;
        state.asked.clear();
    }

    /// Starts a limiter whose first window begins now.
    pub fn rate_limit(&self, category: Category, limit: RateLimit) {
        self.shared.state().limiters.insert(category, Limiter::new(limit, Instant::now()));
    }

    /// What the limiter of the category saw.
    pub fn counts(&self, category: Category) -> Counts {
        self.shared.state().limiters.get(&category).map_or_else(Counts::default, |limiter| limiter.counts)
    }

    /// The next `times` downloads that have more than `bytes` bytes to send end after them: the socket is closed.
    pub fn cut_after(&self, bytes: u64, times: u32) {
        self.shared.state().cuts = (bytes, times);
    }

    /// The next `times` commits are done, and the socket closed without an answer.
    pub fn lose_commit_answers(&self, times: u32) {
        self.shared.state().lost_commit_answers = times;
    }

    /// All links that the CDN serves until now are answered with 403.
    pub fn expire_links(&self) {
        self.shared.state().links.clear();
    }

    pub fn log(&self) -> Vec<Request> {
        self.shared.log().requests.clone()
    }

    pub fn clear_log(&self) {
        let mut log = self.shared.log();
        log.forgotten += log.requests.len();
        log.requests.clear();
    }

    /// What clients did that the protocol forbids, such as a token sent to the CDN; they are then forgotten.
    pub fn violations(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().violations)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        {
            let mut connections = self.shared.connections();
            connections.stopped = true;
            for stream in connections.open.values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            self.shared.stopped.notify_all();
        }
        let mut broken = false;
        for door in &mut self.doors {
            // Wakes the thread that accepts.
            let _ = TcpStream::connect(door.address);
            broken |= door.thread.take().is_some_and(|thread| thread.join().is_err());
        }
        if !thread::panicking() {
            assert!(!broken, "a thread of the hub panicked");
            let violations = self.violations();
            assert!(violations.is_empty(), "requests broke the protocol: {violations:#?}");
        }
    }
}

/// A repository and the branch that its methods change.
#[derive(Clone)]
pub struct Repo {
    shared: Arc<Shared>,
    kind: Kind,
    id: String,
    reference: String,
}

impl Repo {
    /// Adds or replaces a file that the hub serves itself. Each call is a commit.
    pub fn file(&self, path: &str, bytes: &[u8]) -> &Self {
        self.files([File::plain(path, bytes)])
    }

    /// Adds or replaces a file in LFS, which the CDN serves.
    pub fn lfs(&self, path: &str, bytes: &[u8]) -> &Self {
        self.files([File::lfs(path, bytes)])
    }

    /// Adds or replaces files in one commit.
    pub fn files(&self, added: impl IntoIterator<Item = File>) -> &Self {
        let mut state = self.shared.state();
        let mut files = self.files_now(&state);
        for file in added {
            let bytes: Arc<[u8]> = file.bytes.into();
            let entry = if file.lfs {
                let object = hex(&Sha256::digest(&bytes));
                let size = bytes.len() as u64;
                state.objects.insert(object.clone(), bytes);
                Entry::lfs(object, size)
            } else {
                state.blob(bytes)
            };
            files.insert(file.path, entry);
        }
        self.commit(&mut state, "Add files", files);
        drop(state);
        self
    }

    pub fn remove(&self, path: &str) -> &Self {
        let mut state = self.shared.state();
        let mut files = self.files_now(&state);
        assert!(files.remove(path).is_some(), "{} has no {path}", self.id);
        self.commit(&mut state, "Remove a file", files);
        drop(state);
        self
    }

    /// The same repository at another branch, `dev` or `refs/convert/parquet`. A branch that is not there begins where
    /// `main` is, one in full, `refs/…`, without files.
    pub fn on(&self, branch: &str) -> Repo {
        let full = branch.starts_with("refs/");
        let reference = if full { branch.to_owned() } else { format!("refs/heads/{branch}") };
        let mut state = self.shared.state();
        let repo = self.state_of(&mut state);
        if !repo.refs.contains_key(&reference) {
            if full {
                repo.commit(&reference, "Begin", "", BTreeMap::new());
            } else {
                let main = repo.refs["refs/heads/main"].clone();
                repo.refs.insert(reference.clone(), main);
            }
        }
        Repo { shared: Arc::clone(&self.shared), kind: self.kind, id: self.id.clone(), reference }
    }

    /// Tags the branch's commit.
    pub fn tag(&self, name: &str) -> &Self {
        self.change(|repo| {
            let commit = repo.refs[&self.reference].clone();
            repo.refs.insert(format!("refs/tags/{name}"), commit);
        })
    }

    /// Only the owner may know of it.
    pub fn private(&self) -> &Self {
        self.change(|repo| repo.private = true)
    }

    /// All may list it, only the owner may read its files.
    pub fn gated(&self) -> &Self {
        self.change(|repo| repo.gated = true)
    }

    pub fn license(&self, license: &str) -> &Self {
        self.change(|repo| repo.license = Some(license.to_owned()))
    }

    /// Requests for `owner/old-name` are redirected here.
    pub fn formerly(&self, old: &str) -> &Self {
        self.shared.state().former.insert((self.kind, old.to_owned()), self.id.clone());
        self
    }

    /// The branch's commit.
    pub fn sha(&self) -> String {
        let mut state = self.shared.state();
        self.state_of(&mut state).refs[&self.reference].clone()
    }

    /// The titles of the branch's commits, newest first.
    pub fn commits(&self) -> Vec<String> {
        let mut state = self.shared.state();
        let repo = self.state_of(&mut state);
        repo.history(&repo.refs[&self.reference]).map(|commit| commit.title.clone()).collect()
    }

    pub fn paths(&self) -> Vec<String> {
        self.files_now(&self.shared.state()).into_keys().collect()
    }

    /// What is in the file; `None` when there is none.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.shared.state();
        let files = self.files_now(&state);
        files.get(path).map(|entry| state.content(entry).to_vec())
    }

    fn state_of<'a>(&self, state: &'a mut State) -> &'a mut RepoState {
        state.repos.get_mut(&(self.kind, self.id.clone())).unwrap()
    }

    fn files_now(&self, state: &State) -> BTreeMap<String, Entry> {
        let repo = &state.repos[&(self.kind, self.id.clone())];
        repo.commits[&repo.refs[&self.reference]].files.clone()
    }

    fn commit(&self, state: &mut State, title: &str, files: BTreeMap<String, Entry>) {
        self.state_of(state).commit(&self.reference, title, "", files);
    }

    fn change(&self, change: impl FnOnce(&mut RepoState)) -> &Self {
        change(self.state_of(&mut self.shared.state()));
        self
    }
}

struct Shared {
    start: Instant,
    hub_port: u16,
    cdn_port: u16,
    state: Mutex<State>,
    log: Mutex<Log>,
    connections: Mutex<Connections>,
    /// Tells those who pause that the hub stopped.
    stopped: Condvar,
}

#[derive(Default)]
struct Log {
    /// Requests that were in the log before the first one.
    forgotten: usize,
    requests: Vec<Request>,
}

#[derive(Default)]
struct Connections {
    stopped: bool,
    next: u64,
    open: HashMap<u64, TcpStream>,
}

/// A thread that panicked has failed its test; what it held is as good as before for the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.hub_port)
    }

    fn cdn_endpoint(&self) -> String {
        format!("http://{}:{}", self.state().settings.cdn_name, self.cdn_port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        lock(&self.connections)
    }

    fn violation(&self, text: String) {
        self.state().violations.push(text);
    }

    /// Sleeps; false when the hub stopped meanwhile.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut connections = self.connections();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if connections.stopped || left.is_zero() {
                return !connections.stopped;
            }
            connections =
                self.stopped.wait_timeout(connections, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn record(&self, request: Request) -> usize {
        let mut log = self.log();
        log.requests.push(request);
        log.forgotten + log.requests.len() - 1
    }

    fn amend(&self, place: usize, change: impl FnOnce(&mut Request)) {
        let mut log = self.log();
        let forgotten = log.forgotten;
        if let Some(request) = place.checked_sub(forgotten).and_then(|place| log.requests.get_mut(place)) {
            change(request);
        }
    }
}

#[derive(Default)]
struct State {
    repos: BTreeMap<(Kind, String), RepoState>,
    former: BTreeMap<(Kind, String), String>,
    /// By git's SHA-1.
    blobs: HashMap<String, Arc<[u8]>>,
    /// What is in LFS, by SHA-256.
    objects: HashMap<String, Arc<[u8]>>,
    /// What the CDN was told to serve or take, by signature.
    links: HashMap<String, Link>,
    next_link: u64,
    settings: Settings,
    faults: Faults,
    /// How often a thing was asked, and met a fault.
    asked: HashMap<String, (u32, u32)>,
    cuts: (u64, u32),
    lost_commit_answers: u32,
    limiters: HashMap<Category, Limiter>,
    violations: Vec<String>,
}

struct Link {
    object: String,
    use_for: LinkUse,
    made: Instant,
    uses: u32,
}

enum LinkUse {
    Download {
        name: String,
    },
    Upload,
    Part {
        upload: String,
        number: usize,
    },
    /// The parts that were uploaded, by number from 1.
    Completion {
        parts: BTreeMap<usize, Vec<u8>>,
        wanted: usize,
    },
}

#[derive(Clone)]
struct Entry {
    /// Git's SHA-1 of the file, or of its pointer.
    blob: String,
    size: u64,
    /// SHA-256 of the object in LFS.
    object: Option<String>,
    /// The commit that wrote it.
    commit: String,
}

impl Entry {
    fn lfs(object: String, size: u64) -> Self {
        let pointer = pointer(&object, size);
        Entry { blob: blob_id(pointer.as_bytes()), size, object: Some(object), commit: String::new() }
    }

    /// Of the content, as clients see it.
    fn etag(&self) -> String {
        format!("\"{}\"", self.object.as_ref().unwrap_or(&self.blob))
    }

    fn xet(&self, settings: &Settings) -> Option<String> {
        let object = self.object.as_ref().filter(|_| settings.xet)?;
        // Any 64 digits that belong to the content: nobody can ask for them.
        Some(hex(&Sha256::digest(object)))
    }
}

fn pointer(object: &str, size: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{object}\nsize {size}\n")
}

fn blob_id(bytes: &[u8]) -> String {
    hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Commit {
    sha: String,
    parent: Option<String>,
    title: String,
    message: String,
    date: String,
    files: BTreeMap<String, Entry>,
}

struct RepoState {
    kind: Kind,
    id: String,
    private: bool,
    gated: bool,
    license: Option<String>,
    commits: HashMap<String, Commit>,
    /// By full name: `refs/heads/main`.
    refs: BTreeMap<String, String>,
}

impl RepoState {
    fn new(kind: Kind, id: &str) -> Self {
        let mut repo = RepoState {
            kind,
            id: id.to_owned(),
            private: false,
            gated: false,
            license: None,
            commits: HashMap::new(),
            refs: BTreeMap::new(),
        };
        repo.commit("refs/heads/main", "Initial commit", "", BTreeMap::new());
        repo
    }

    /// Moves the branch to a new commit with the files. The same calls make the same commits.
    fn commit(
        &mut self,
        reference: &str,
        title: &str,
        message: &str,
        mut files: BTreeMap<String, Entry>,
    ) -> String {
        let parent = self.refs.get(reference).cloned();
        let number = self.commits.len();
        let mut sum =
            Sha1::new().chain_update(format!("{:?} {} {parent:?} {number} {title}", self.kind, self.id));
        for (path, entry) in &files {
            sum.update(format!("{path} {}", entry.blob));
        }
        let sha = hex(&sum.finalize());
        let before = parent.as_ref().map(|parent| &self.commits[parent].files);
        for (path, entry) in &mut files {
            let old = before.and_then(|files| files.get(path)).filter(|old| old.blob == entry.blob);
            entry.commit = old.map_or_else(|| sha.clone(), |old| old.commit.clone());
        }
        let date = date(number);
        let commit = Commit {
            sha: sha.clone(),
            parent,
            title: title.to_owned(),
            message: message.to_owned(),
            date,
            files,
        };
        self.commits.insert(sha.clone(), commit);
        self.refs.insert(reference.to_owned(), sha.clone());
        sha
    }

    /// The commit and its parents.
    fn history(&self, sha: &str) -> impl Iterator<Item = &Commit> {
        std::iter::successors(self.commits.get(sha), |commit| self.commits.get(commit.parent.as_ref()?))
    }

    /// What a revision names: a branch, a tag, a full reference, a commit or the beginning of one.
    fn revision(&self, name: &str) -> Option<&Commit> {
        let named = [format!("refs/heads/{name}"), format!("refs/tags/{name}"), name.to_owned()];
        if let Some(sha) = named.iter().find_map(|name| self.refs.get(name)) {
            return self.commits.get(sha);
        }
        let short = name.len() >= 7 && name.bytes().all(|b| b.is_ascii_hexdigit());
        self.commits.iter().find(|(sha, _)| short && sha.starts_with(name)).map(|(_, commit)| commit)
    }

    fn license(&self, state: &State, commit: &Commit) -> Option<String> {
        if self.license.is_some() {
            return self.license.clone();
        }
        let card =
            std::str::from_utf8(state.content(commit.files.get("README.md")?)).ok()?.strip_prefix("---\n")?;
        let (card, _) = card.split_once("\n---")?;
        card.lines().find_map(|line| line.strip_prefix("license:")).map(|license| license.trim().to_owned())
    }
}

/// Commits are a second apart, in a time that never changes.
fn date(number: usize) -> String {
    let (days, seconds) = (number / 86_400, number % 86_400);
    format!("2024-01-{:02}T{:02}:{:02}:{:02}.000Z", 1 + days, seconds / 3600, seconds / 60 % 60, seconds % 60)
}

impl State {
    fn blob(&mut self, bytes: Arc<[u8]>) -> Entry {
        let (blob, size) = (blob_id(&bytes), bytes.len() as u64);
        self.blobs.insert(blob.clone(), bytes);
        Entry { blob, size, object: None, commit: String::new() }
    }

    fn content(&self, entry: &Entry) -> &Arc<[u8]> {
        entry.object.as_ref().map_or_else(|| &self.blobs[&entry.blob], |object| &self.objects[object])
    }

    /// The repository, if the one who asks may know of it.
    fn find(&self, asked: &Asked, kind: Kind, id: &str, who: Who) -> Result<&RepoState, Answer> {
        if let Some(new) = self.former.get(&(kind, id.to_owned())) {
            let target = asked.target.replacen(id, new, 1);
            return Err(Answer::redirect(307, target));
        }
        let repo = self.repos.get(&(kind, id.to_owned())).filter(|repo| !repo.private || who == Who::Owner);
        repo.ok_or_else(|| match who {
            Who::Nobody => Answer::error(401, "RepoNotFound", "Invalid username or password."),
            _ => Answer::error(404, "RepoNotFound", "Repository not found"),
        })
    }

    fn find_at(
        &self,
        asked: &Asked,
        kind: Kind,
        id: &str,
        who: Who,
        revision: &str,
    ) -> Result<(&RepoState, &Commit), Answer> {
        let repo = self.find(asked, kind, id, who)?;
        let commit = repo
            .revision(revision)
            .ok_or_else(|| Answer::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}")))?;
        Ok((repo, commit))
    }

    fn new_link(&mut self, object: &str, use_for: LinkUse) -> String {
        self.next_link += 1;
        let signature = hex(&Sha256::digest(format!("link {}", self.next_link)))[..32].to_owned();
        let link = Link { object: object.to_owned(), use_for, made: Instant::now(), uses: 0 };
        self.links.insert(signature.clone(), link);
        signature
    }

    /// What this request is to meet.
    fn fate(&mut self, host: Host, asked: &Asked) -> Option<Fault> {
        let faults = &self.faults;
        let path = asked.path();
        if !path.contains(faults.path) || faults.host.is_some_and(|only| only != host) {
            return None;
        }
        let shares = [
            (faults.too_many, Fault::Refused(429)),
            (faults.unavailable, Fault::Refused(503)),
            (faults.held, Fault::Held),
            (faults.dropped, Fault::Dropped),
            (faults.cut, Fault::Cut(0.0)),
            (faults.slow, Fault::Slow),
        ];
        if shares.iter().all(|(share, _)| *share == 0.0) {
            return None;
        }
        // The CDN's links are new each time; the hub's pages differ only in the query.
        let thing = if host == Host::Cdn { path } else { &asked.target };
        let key = format!("{} {thing} {:?}", asked.method, asked.header("range"));
        let (times, met) = self.asked.entry(key.clone()).or_default();
        *times += 1;
        let sum = Sha256::digest(format!("{} {times} {key}", faults.seed));
        let fraction = |from: usize| {
            let bytes = sum[from..from + 4].try_into().unwrap();
            f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
        };
        let mut left = fraction(0);
        for (share, fault) in shares {
            if left < share && *met < faults.at_most {
                *met += 1;
                return Some(if let Fault::Cut(_) = fault { Fault::Cut(fraction(4)) } else { fault });
            }
            left -= share;
        }
        None
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Refused(u16),
    Held,
    Dropped,
    /// After this fraction of the body.
    Cut(f64),
    Slow,
}

struct Limiter {
    limit: RateLimit,
    window: Instant,
    used: u32,
    /// When, in this window, the first refusal told to wait for the next one.
    told: Option<Instant>,
    counts: Counts,
}

/// What the limiter says in its headers.
struct Admission {
    served: bool,
    headers: [(&'static str, String); 2],
}

impl Limiter {
    fn new(limit: RateLimit, now: Instant) -> Self {
        Limiter { limit, window: now, used: 0, told: None, counts: Counts::default() }
    }

    fn admit(&mut self, category: Category, now: Instant) -> Admission {
        let RateLimit { requests, window, grace } = self.limit;
        while now >= self.window + window {
            self.window += window;
            (self.used, self.told) = (0, None);
        }
        let served = self.used < requests;
        if served {
            self.used += 1;
            self.counts.served += 1;
        } else {
            self.counts.refused += 1;
            let told = *self.told.get_or_insert(now);
            if now > told + grace {
                self.counts.violations += 1;
            }
        }
        let name = match category {
            Category::Resolvers => "resolvers",
            Category::Api => "api",
            Category::Pages => "pages",
        };
        // Whole seconds, rounded up: who waits as long as told is never refused.
        let seconds = |time: Duration| time.as_nanos().div_ceil(SECOND.as_nanos());
        let (left, wait) = (requests - self.used, seconds(self.window + window - now));
        let headers = [
            ("RateLimit", format!("\"{name}\";r={left};t={wait}")),
            ("RateLimit-Policy", format!("\"fixed window\";\"{name}\";q={requests};w={}", seconds(window))),
        ];
        Admission { served, headers }
    }
}

impl Category {
    fn of(path: &str) -> Self {
        if path.contains("/resolve/") || path.starts_with("/api/resolve-cache/") {
            Category::Resolvers
        } else if path.starts_with("/api/") || path.contains(".git/info/lfs/") {
            Category::Api
        } else {
            Category::Pages
        }
    }
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        }
    }

    /// Before the name in the address of a page.
    fn prefix(self) -> &'static str {
        match self {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        }
    }

    fn of(plural: &str) -> Option<Self> {
        [Kind::Model, Kind::Dataset].into_iter().find(|kind| kind.plural() == plural)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Stranger,
    Owner,
}

/// A request.
struct Asked {
    method: String,
    target: String,
    /// Names in lowercase.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    keep_alive: bool,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// The path's segments, decoded one by one: a revision may contain an encoded slash.
    fn segments(&self) -> Vec<String> {
        self.path().split('/').skip(1).map(|segment| decoded(segment, false)).collect()
    }

    fn query(&self) -> Vec<(String, String)> {
        pairs(self.target.split_once('?').map_or("", |(_, query)| query))
    }

    fn parameter(&self, name: &str) -> Option<String> {
        self.query().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn flag(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|value| is_true(&value))
    }

    fn json(&self) -> Result<Value, Answer> {
        serde_json::from_slice(&self.body).map_err(|e| Answer::error(400, "", &format!("Invalid JSON: {e}")))
    }

    fn is(&self, methods: &[&str]) -> bool {
        methods.contains(&self.method.as_str())
    }

    fn who(&self) -> Result<Who, Answer> {
        match self.header("authorization").map(|value| value.strip_prefix("Bearer ").unwrap_or(value)) {
            None => Ok(Who::Nobody),
            Some(OWNER_TOKEN) => Ok(Who::Owner),
            Some(STRANGER_TOKEN) => Ok(Who::Stranger),
            Some(_) => Err(Answer::error(401, "", INVALID_TOKEN)),
        }
    }

    fn writer(&self) -> Result<(), Answer> {
        match self.who()? {
            Who::Owner => Ok(()),
            Who::Stranger => Err(Answer::error(403, "", "This token has no permission to write")),
            Who::Nobody => Err(Answer::error(401, "", "Invalid username or password.")),
        }
    }
}

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true") || value == "1"
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decoded(key, true), decoded(value, true)))
        .collect()
}

/// Percent-decodes; a query's `+` is a space.
fn decoded(text: &str, query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let pair =
            after.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (first, pair) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) if query => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Encodes one segment of a path.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn encoded_path(path: &str) -> String {
    path.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

/// `None` when a character is not of the alphabet or the length is wrong.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (held < 6 && bits == 0).then_some(bytes)
}

/// An answer, whole; for HEAD only its body stays unsent.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    bytes: Arc<[u8]>,
    range: Range<usize>,
    /// Content of a repository's file, which [`Hub::cut_after`] may cut.
    download: bool,
    /// Done, but the socket is closed instead of telling.
    lost: bool,
}

impl Answer {
    fn new(status: u16, content_type: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let range = 0..bytes.len();
        let headers = vec![("Content-Type", content_type.to_owned())];
        Answer { status, headers, bytes, range, download: false, lost: false }
    }

    fn text(status: u16, text: &str) -> Self {
        Answer::new(status, "text/plain; charset=utf-8", text.as_bytes())
    }

    fn json(value: &Value) -> Self {
        Answer::new(200, "application/json; charset=utf-8", value.to_string().into_bytes())
    }

    fn json_status(status: u16, value: &Value) -> Self {
        Answer { status, ..Answer::json(value) }
    }

    /// With the code and message by which clients tell errors apart; an empty code is none.
    fn error(status: u16, code: &str, message: &str) -> Self {
        let mut answer = Answer::json_status(status, &json!({ "error": message }));
        // What was asked may be in the message, and is not always fit for a header.
        let message: String =
            message.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
        if !code.is_empty() {
            answer = answer.with("X-Error-Code", code);
        }
        answer.with("X-Error-Message", message)
    }

    fn redirect(status: u16, target: String) -> Self {
        Answer::text(status, &format!("Redirecting to {target}")).with("Location", target)
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A file's content, or the range of it that was asked for.
    fn content(asked: &Asked, bytes: Arc<[u8]>, etag: &str) -> Self {
        let size = bytes.len();
        let mut answer = Answer::new(200, "application/octet-stream", bytes);
        answer.download = true;
        answer = answer.with("ETag", etag).with("Accept-Ranges", "bytes");
        if asked.header("if-match").is_some_and(|wanted| wanted != etag) {
            return Answer::text(412, "Precondition failed");
        }
        // A range of another content than the one that the client began with is of no use to it.
        let same = asked.header("if-range").is_none_or(|wanted| wanted == etag);
        match asked.header("range").filter(|_| same).map(|range| one_range(range, size)) {
            // Several ranges, or another unit: the whole, as an object store does.
            None | Some(Ranges::Ignored) => answer,
            Some(Ranges::Impossible) => Answer::text(416, "Requested range not satisfiable")
                .with("Content-Range", format!("bytes */{size}")),
            Some(Ranges::One(range)) => {
                let part = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                Answer { status: 206, range, ..answer }.with("Content-Range", part)
            }
        }
    }
}

enum Ranges {
    Ignored,
    Impossible,
    One(Range<usize>),
}

/// What `Range: bytes=…` wants of `size` bytes.
fn one_range(text: &str, size: usize) -> Ranges {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Ranges::Ignored;
    };
    let number = |text: &str| text.parse::<usize>().ok();
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..size.min(last.saturating_add(1)),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(last)) if first.is_empty() => size - size.min(last)..size,
        _ => return Ranges::Ignored,
    };
    if range.is_empty() { Ranges::Impossible } else { Ranges::One(range) }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        206 => "Partial Content",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

/// Takes connections, a thread for each, until the hub is dropped, and ends when all those threads have ended.
fn accept(shared: &Arc<Shared>, host: Host, listener: &TcpListener) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut broken = false;
    while !shared.connections().stopped {
        let Ok((stream, _)) = listener.accept() else {
            // No more file descriptors, say; the clients that hold them will end.
            shared.pause(Duration::from_millis(10));
            continue;
        };
        let Some(number) = register(shared, &stream) else { continue };
        let (ended, open) = threads.into_iter().partition(JoinHandle::is_finished);
        threads = open;
        broken |= joined(ended);
        let shared = Arc::clone(shared);
        threads.push(thread::spawn(move || {
            // Clients may go away at any time; that is no error of theirs or ours.
            let _ = converse(&shared, host, &stream);
            let _ = stream.shutdown(Shutdown::Both);
            shared.connections().open.remove(&number);
        }));
    }
    broken |= joined(threads);
    assert!(!broken, "a connection's thread panicked");
}

/// Whether any of the threads panicked.
fn joined(threads: Vec<JoinHandle<()>>) -> bool {
    let mut broken = false;
    for thread in threads {
        broken |= thread.join().is_err();
    }
    broken
}

/// `None` when the hub is being dropped, and so would not close the connection any more.
fn register(shared: &Shared, stream: &TcpStream) -> Option<u64> {
    let copy = stream.try_clone().ok()?;
    let mut connections = shared.connections();
    if connections.stopped {
        return None;
    }
    connections.next += 1;
    let number = connections.next;
    connections.open.insert(number, copy);
    Some(number)
}

/// Answers one request after the other.
fn converse(shared: &Shared, host: Host, mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    loop {
        let asked = match next_request(&mut read, stream)? {
            Ok(Some(asked)) => asked,
            Ok(None) => return Ok(()),
            Err(error) => {
                shared.violation(format!("a request that is not HTTP: {error}"));
                return stream.write_all(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
            }
        };
        if !respond(shared, host, &asked, stream)? || !asked.keep_alive {
            return Ok(());
        }
    }
}

/// Reads a request; `Ok(None)` when the client closed the connection before it.
fn next_request(read: &mut Vec<u8>, mut stream: &TcpStream) -> io::Result<Result<Option<Asked>, String>> {
    let mut asked = loop {
        match head(read) {
            Err(error) => return Ok(Err(error)),
            Ok(Some((asked, length))) => {
                read.drain(..length);
                break asked;
            }
            Ok(None) if read.len() > HEAD => return Ok(Err("its head is too long".to_owned())),
            Ok(None) => {}
        }
        if !fill(read, stream)? {
            return Ok(Ok(None));
        }
    };
    if asked.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let chunked =
        asked.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    if chunked {
        loop {
            let (line, size) = match httparse::parse_chunk_size(read) {
                Ok(httparse::Status::Complete((line, size))) => (line, usize::try_from(size).unwrap()),
                Ok(httparse::Status::Partial) => {
                    if !fill(read, stream)? {
                        return Ok(Ok(None));
                    }
                    continue;
                }
                Err(_) => return Ok(Err("a chunk without a size".to_owned())),
            };
            while read.len() < line + size + 2 {
                if !fill(read, stream)? {
                    return Ok(Ok(None));
                }
            }
            // The last chunk's line end is that of the trailers, of which no client sends any.
            asked.body.extend_from_slice(&read[line..line + size]);
            read.drain(..line + size + 2);
            if size == 0 {
                return Ok(Ok(Some(asked)));
            }
        }
    }
    let length = match asked.header("content-length").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(length)) => length,
        Some(Err(_)) => return Ok(Err("its Content-Length is no number".to_owned())),
    };
    while read.len() < length {
        if !fill(read, stream)? {
            return Ok(Ok(None));
        }
    }
    asked.body = read.drain(..length).collect();
    Ok(Ok(Some(asked)))
}

/// False when there is no more.
fn fill(read: &mut Vec<u8>, mut stream: &TcpStream) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    let length = loop {
        match stream.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    read.extend_from_slice(&piece[..length]);
    Ok(length > 0)
}

/// A request's head and its length; `None` when more has to be read.
fn head(read: &[u8]) -> Result<Option<(Asked, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(read).map_err(|e| e.to_string())? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let mut asked = Asked {
        method: request.method.unwrap().to_owned(),
        target: request.path.unwrap().to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        keep_alive: request.version == Some(1),
    };
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|e| format!("{}: {e}", header.name))?;
        asked.headers.push((header.name.to_ascii_lowercase(), value.to_owned()));
    }
    asked.keep_alive &= asked.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
    Ok(Some((asked, length)))
}

/// Answers the request, or does to it what the faults say. False when the connection is to be closed.
fn respond(shared: &Shared, host: Host, asked: &Asked, stream: &TcpStream) -> io::Result<bool> {
    let place = shared.record(Request {
        host,
        method: asked.method.clone(),
        path: asked.target.clone(),
        range: asked.header("range").map(str::to_owned),
        status: 0,
        sent: 0,
        length: 0,
        at: shared.start.elapsed(),
        authorization: asked.header("authorization").is_some(),
        known_token: matches!(asked.who(), Ok(Who::Stranger | Who::Owner)),
    });
    let (admission, fault, faults) = {
        let mut state = shared.state();
        let category = Category::of(asked.path());
        let limiter = state.limiters.get_mut(&category).filter(|_| host == Host::Hub);
        let admission = limiter.map(|limiter| limiter.admit(category, Instant::now()));
        let refused = admission.as_ref().is_some_and(|admission| !admission.served);
        let fault = if refused { None } else { state.fate(host, asked) };
        (admission, fault, state.faults.clone())
    };
    let mut answer = match fault {
        _ if admission.as_ref().is_some_and(|admission| !admission.served) => {
            Answer::error(429, "", "Too many requests in this window")
        }
        Some(Fault::Refused(status)) => {
            let answer = Answer::text(status, "Not now");
            match faults.retry_after {
                Some(seconds) => answer.with("Retry-After", seconds.to_string()),
                None => answer,
            }
        }
        Some(Fault::Held) => {
            stream.set_read_timeout(Some(faults.hold.max(Duration::from_millis(1))))?;
            // Ends when the client closes the connection, when the hub is dropped, or after that time.
            let mut stream = stream;
            let _ = stream.read(&mut [0]);
            return Ok(false);
        }
        Some(Fault::Dropped) => return Ok(false),
        _ => match host {
            Host::Hub => hub_answer(shared, asked),
            Host::Cdn => cdn_answer(shared, asked),
        }
        .unwrap_or_else(|error| error),
    };
    if answer.lost {
        return Ok(false);
    }
    for (name, value) in admission.into_iter().flat_map(|admission| admission.headers) {
        answer = answer.with(name, value);
    }
    let length = answer.range.len();
    let cut = match fault {
        Some(Fault::Cut(fraction)) if length > 0 => Some((length as f64 * fraction) as usize),
        _ => shared.state().cut(asked, &answer),
    };
    let slow = matches!(fault, Some(Fault::Slow)).then_some((faults.slow_piece.max(1), faults.slow_pause));
    send(shared, asked, stream, &answer, place, cut, slow)
}

impl State {
    /// After how many bytes [`Hub::cut_after`] ends this answer.
    fn cut(&mut self, asked: &Asked, answer: &Answer) -> Option<usize> {
        let (bytes, times) = &mut self.cuts;
        let bytes = usize::try_from(*bytes).unwrap();
        if *times == 0 || !answer.download || asked.method != "GET" || answer.range.len() <= bytes {
            return None;
        }
        *times -= 1;
        Some(bytes)
    }
}

/// Writes the answer, of its body only the first `cut` bytes, in pieces of some bytes with pauses. False when the
/// connection is to be closed.
fn send(
    shared: &Shared,
    asked: &Asked,
    mut stream: &TcpStream,
    answer: &Answer,
    place: usize,
    cut: Option<usize>,
    slow: Option<(usize, Duration)>,
) -> io::Result<bool> {
    let length = answer.range.len();
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("X-Request-Id: {place}\r\nContent-Length: {length}\r\n"));
    head.push_str(if asked.keep_alive { "\r\n" } else { "Connection: close\r\n\r\n" });
    // Told before it is written: who has an answer finds it in the log.
    let body_length = if asked.method == "HEAD" { 0 } else { length as u64 };
    shared.amend(place, |request| (request.status, request.length) = (answer.status, body_length));
    if asked.method == "HEAD" {
        stream.write_all(head.as_bytes())?;
        return Ok(true);
    }
    let body = &answer.bytes[answer.range.start..answer.range.start + cut.unwrap_or(length)];
    let (piece, pause) = slow.unwrap_or((PIECE, Duration::ZERO));
    let mut pieces = body.chunks(piece);
    // One packet for a small answer.
    let first = if slow.is_some() { &[] } else { pieces.next().unwrap_or_default() };
    let head_length = head.len();
    let mut out = head.into_bytes();
    out.extend_from_slice(first);
    write_counted(shared, stream, &out, head_length, place)?;
    for piece in pieces {
        if !shared.pause(pause) {
            return Ok(false);
        }
        write_counted(shared, stream, piece, 0, place)?;
    }
    Ok(body.len() == length)
}

/// Writes the bytes, of which the first `head` are no body. They are in the log before the client has them, and are
/// taken from it again when it did not take them.
fn write_counted(
    shared: &Shared,
    mut stream: &TcpStream,
    bytes: &[u8],
    head: usize,
    place: usize,
) -> io::Result<()> {
    shared.amend(place, |request| request.sent += (bytes.len() - head) as u64);
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let unsent = bytes.len() - written.max(head);
                shared.amend(place, |request| request.sent -= unsent as u64);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// What the hub answers.
fn hub_answer(shared: &Shared, asked: &Asked) -> Result<Answer, Answer> {
    let segments = asked.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts[..] {
        ["api", "whoami-v2"] if asked.is(&["GET"]) => whoami(asked),
        ["api", "validate-yaml"] if asked.is(&["POST"]) => {
            Ok(Answer::json(&json!({"errors": [], "warnings": []})))
        }
        ["api", "repos", "create"] if asked.is(&["POST"]) => create_repo(shared, asked),
        ["api", "complete_multipart", upload] if asked.is(&["POST"]) => complete(shared, asked, upload),
        ["api", "resolve-cache", kind, owner, name, sha, ref path @ ..] if asked.is(&["GET", "HEAD"]) => {
            let kind = Kind::of(kind).ok_or_else(not_found)?;
            resolve(shared, asked, kind, &format!("{owner}/{name}"), sha, &path.join("/"), false)
        }
        ["api", kind, ref rest @ ..] => {
            let kind = Kind::of(kind).ok_or_else(not_found)?;
            let (id, rest) = split_id(rest, &API).ok_or_else(not_found)?;
            api_answer(shared, asked, kind, &id, rest)
        }
        ref page => {
            let (kind, rest) = match page {
                ["datasets", rest @ ..] => (Kind::Dataset, rest),
                rest => (Kind::Model, rest),
            };
            if let [id @ .., "info", "lfs", "objects", action @ ("batch" | "verify")] = rest {
                let id = id.join("/");
                let id = id.strip_suffix(".git").ok_or_else(not_found)?;
                return if *action == "batch" {
                    batch(shared, asked, kind, id)
                } else {
                    verify(shared, asked)
                };
            }
            let (id, rest) = split_id(rest, &["resolve"]).ok_or_else(not_found)?;
            match rest {
                ["resolve", rest @ ..] if asked.is(&["GET", "HEAD"]) => {
                    let (revision, path) = split_revision(rest).ok_or_else(not_found)?;
                    resolve(shared, asked, kind, &id, &revision, &path, true)
                }
                [] => Ok(Answer::text(200, "A page")),
                _ => Err(not_found()),
            }
        }
    }
}

/// What follows a repository's name in a path of the API.
const API: [&str; 11] = [
    "revision",
    "tree",
    "paths-info",
    "refs",
    "commits",
    "commit",
    "parquet",
    "preupload",
    "branch",
    "tag",
    "auth-check",
];

fn not_found() -> Answer {
    Answer::error(404, "", "Sorry, there is nothing here")
}

/// `owner/name`, or the bare name of an old model, and what follows.
fn split_id<'a, 'b>(parts: &'a [&'b str], following: &[&str]) -> Option<(String, &'a [&'b str])> {
    let bare = parts.len() == 1 || parts.get(1).is_some_and(|second| following.contains(second));
    let length = if bare { 1 } else { 2 };
    Some((parts.get(..length)?.join("/"), &parts[length..]))
}

/// A revision, and the path that follows. `refs/convert/parquet` may come with its slashes as they are.
fn split_revision(parts: &[&str]) -> Option<(String, String)> {
    let length = if let ["refs", "convert" | "pr", ..] = parts { 3 } else { 1 };
    Some((parts.get(..length)?.join("/"), parts[length..].join("/")))
}

fn whoami(asked: &Asked) -> Result<Answer, Answer> {
    let (name, role) = match asked.who()? {
        Who::Nobody => return Err(Answer::error(401, "", "Invalid username or password.")),
        Who::Stranger => ("stranger", "read"),
        Who::Owner => ("owner", "write"),
    };
    Ok(Answer::json(&json!({
        "type": "user", "id": name, "name": name, "fullname": name, "isPro": false, "orgs": [],
        "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": role}},
    })))
}

fn api_answer(shared: &Shared, asked: &Asked, kind: Kind, id: &str, rest: &[&str]) -> Result<Answer, Answer> {
    let get = asked.is(&["GET", "HEAD"]);
    let post = asked.is(&["POST"]);
    match rest {
        [] if get => info(shared, asked, kind, id, "main"),
        ["revision", revision @ ..] if get => info(shared, asked, kind, id, &revision.join("/")),
        ["tree", revision @ ..] if get => {
            let (revision, folder) = split_revision(revision).ok_or_else(not_found)?;
            tree(shared, asked, kind, id, &revision, &folder)
        }
        ["paths-info", revision @ ..] if post => {
            let (revision, _) = split_revision(revision).ok_or_else(not_found)?;
            paths_info(shared, asked, kind, id, &revision)
        }
        ["refs"] if get => refs(shared, asked, kind, id),
        ["commits", revision @ ..] if get => {
            let (revision, _) = split_revision(revision).ok_or_else(not_found)?;
            commits(shared, asked, kind, id, &revision)
        }
        ["auth-check"] if get => {
            let (state, who) = (shared.state(), asked.who()?);
            open_gate(state.find(asked, kind, id, who)?, who)?;
            Ok(Answer::json(&json!({})))
        }
        ["parquet", below @ ..] if get && kind == Kind::Dataset => parquet(shared, asked, id, below),
        ["branch", name] if post => {
            new_reference(shared, asked, kind, id, &format!("refs/heads/{name}"), None)
        }
        ["tag", revision] if post => {
            let tag = asked.json()?["tag"].as_str().ok_or_else(|| bad("tag"))?.to_owned();
            new_reference(shared, asked, kind, id, &format!("refs/tags/{tag}"), Some(revision))
        }
        ["preupload", revision] if post => preupload(shared, asked, kind, id, revision),
        ["commit", revision] if post => commit(shared, asked, kind, id, revision),
        _ => Err(not_found()),
    }
}

fn bad(what: &str) -> Answer {
    Answer::error(400, "", &format!("Invalid {what}"))
}

fn open_gate(repo: &RepoState, who: Who) -> Result<(), Answer> {
    match who {
        _ if !repo.gated => Ok(()),
        Who::Owner => Ok(()),
        Who::Stranger => {
            Err(Answer::error(403, "GatedRepo", &format!("{} is gated and you are not let in", repo.id)))
        }
        Who::Nobody => {
            Err(Answer::error(401, "GatedRepo", &format!("{} is gated: log in to read it", repo.id)))
        }
    }
}

fn info(shared: &Shared, asked: &Asked, kind: Kind, id: &str, revision: &str) -> Result<Answer, Answer> {
    let (state, who) = (shared.state(), asked.who()?);
    let (repo, commit) = state.find_at(asked, kind, id, who, revision)?;
    let license = repo.license(&state, commit);
    let blobs = asked.flag("blobs");
    let mut siblings = Vec::new();
    for (path, entry) in &commit.files {
        let mut sibling = json!({ "rfilename": path });
        if blobs {
            sibling["size"] = json!(entry.size);
            sibling["blobId"] = json!(entry.blob);
            if let Some(object) = &entry.object {
                let pointer = pointer(object, entry.size).len();
                sibling["lfs"] = json!({"sha256": object, "size": entry.size, "pointerSize": pointer});
            }
        }
        siblings.push(sibling);
    }
    let mut tags: Vec<String> = license.iter().map(|license| format!("license:{license}")).collect();
    tags.push("region:us".to_owned());
    let mut all = json!({
        "_id": blob_id(id.as_bytes())[..24],
        "id": id,
        "author": id.split('/').next().filter(|_| id.contains('/')),
        "sha": commit.sha,
        "lastModified": commit.date,
        "createdAt": date(0),
        "private": repo.private,
        "gated": if repo.gated { json!("manual") } else { json!(false) },
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        "siblings": siblings,
        "usedStorage": commit.files.values().map(|entry| entry.size).sum::<u64>(),
    });
    if let Some(license) = license {
        all["cardData"] = json!({ "license": license });
    }
    let wanted: BTreeSet<String> = asked
        .query()
        .into_iter()
        .filter(|(key, _)| key == "expand" || key == "expand[]")
        .map(|p| p.1)
        .collect();
    if !wanted.is_empty() {
        let all_fields = all.as_object().unwrap().clone();
        let fields =
            all_fields.into_iter().filter(|(key, _)| key == "_id" || key == "id" || wanted.contains(key));
        all = Value::Object(fields.collect::<Map<_, _>>());
    }
    Ok(Answer::json(&all))
}

/// A file or a folder of a listing.
enum Listed<'a> {
    File(&'a Entry),
    Folder,
}

/// What is in the folder, by path; with what is in folders below when `recursive`. Nothing when it is no folder.
fn listing<'a>(commit: &'a Commit, folder: &str, recursive: bool) -> BTreeMap<&'a str, Listed<'a>> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut listed = BTreeMap::new();
    for (path, entry) in commit.files.range(prefix.clone()..) {
        let Some(below) = path.strip_prefix(&prefix) else { break };
        let folders = below.match_indices('/').map(|(at, _)| &path[..prefix.len() + at]);
        let deep = below.contains('/');
        for folder in folders.take(if recursive { usize::MAX } else { 1 }) {
            listed.insert(folder, Listed::Folder);
        }
        if recursive || !deep {
            listed.insert(path, Listed::File(entry));
        }
    }
    listed
}

fn tree_entry(
    settings: &Settings,
    repo: &RepoState,
    commit: &Commit,
    path: &str,
    listed: &Listed,
    expand: bool,
) -> Value {
    let (mut value, last) = match listed {
        Listed::Folder => {
            let mut sum = Sha1::new();
            let mut last = &commit.sha;
            let prefix = format!("{path}/");
            for (path, entry) in
                commit.files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix))
            {
                sum.update(format!("{path} {}", entry.blob));
                last = &entry.commit;
            }
            (json!({"type": "directory", "oid": hex(&sum.finalize()), "size": 0, "path": path}), last)
        }
        Listed::File(entry) => {
            let mut value = json!({"type": "file", "oid": entry.blob, "size": entry.size, "path": path});
            if let Some(object) = &entry.object {
                let pointer = pointer(object, entry.size).len();
                value["lfs"] = json!({"oid": object, "size": entry.size, "pointerSize": pointer});
            }
            if let Some(xet) = entry.xet(settings) {
                value["xetHash"] = json!(xet);
            }
            (value, &entry.commit)
        }
    };
    if expand && let Some(last) = repo.commits.get(last) {
        value["lastCommit"] = json!({"id": last.sha, "title": last.title, "date": last.date});
    }
    value
}

fn tree(
    shared: &Shared,
    asked: &Asked,
    kind: Kind,
    id: &str,
    revision: &str,
    folder: &str,
) -> Result<Answer, Answer> {
    let (state, who) = (shared.state(), asked.who()?);
    let (repo, commit) = state.find_at(asked, kind, id, who, revision)?;
    let listed = listing(commit, folder.trim_end_matches('/'), asked.flag("recursive"));
    if listed.is_empty() && !folder.is_empty() {
        return Err(Answer::error(
            404,
            "EntryNotFound",
            &format!("{folder} does not exist on \"{revision}\""),
        ));
    }
    let expand = asked.flag("expand");
    let entries: Vec<_> = listed.into_iter().collect();
    paged(
        &state.settings,
        shared,
        asked,
        &entries,
        |(path, _)| path.to_string(),
        |(path, listed)| tree_entry(&state.settings, repo, commit, path, listed, expand),
    )
}

/// One page of the items, and the link to the next one. Its cursor is the key of the last item before it.
fn paged<T>(
    settings: &Settings,
    shared: &Shared,
    asked: &Asked,
    items: &[T],
    key: impl Fn(&T) -> String,
    value: impl Fn(&T) -> Value,
) -> Result<Answer, Answer> {
    let limit = asked.parameter("limit").map(|limit| limit.parse().map_err(|_| bad("limit"))).transpose()?;
    let limit = limit.unwrap_or(usize::MAX).min(settings.page).max(1);
    let begin = match asked.parameter("cursor") {
        None => 0,
        Some(cursor) => {
            let before = items.iter().position(|item| hex(key(item).as_bytes()) == cursor);
            before.ok_or_else(|| bad("cursor"))? + 1
        }
    };
    let page = &items[begin..items.len().min(begin + limit)];
    let answer = Answer::json(&Value::Array(page.iter().map(value).collect()));
    let Some(last) = page.last().filter(|_| begin + page.len() < items.len()) else { return Ok(answer) };
    let mut query: Vec<String> = Vec::new();
    for (name, value) in asked.query().iter().filter(|(name, _)| name != "cursor") {
        query.push(format!("{}={}", encoded(name), encoded(value)));
    }
    query.push(format!("cursor={}", hex(key(last).as_bytes())));
    let next = format!("{}{}?{}", shared.endpoint(), asked.path(), query.join("&"));
    Ok(answer.with("Link", format!("<{next}>; rel=\"next\"")))
}

fn paths_info(
    shared: &Shared,
    asked: &Asked,
    kind: Kind,
    id: &str,
    revision: &str,
) -> Result<Answer, Answer> {
    let is_json = asked.header("content-type").is_some_and(|value| value.starts_with("application/json"));
    let (paths, expand) = if is_json {
        let body = asked.json()?;
        let paths = body["paths"].as_array().ok_or_else(|| bad("paths"))?;
        let paths = paths.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        (paths, body["expand"].as_bool().unwrap_or(false))
    } else {
        let fields = pairs(std::str::from_utf8(&asked.body).map_err(|_| bad("form"))?);
        let expand = fields.iter().any(|(key, value)| key == "expand" && is_true(value));
        let paths: Vec<String> = fields
            .into_iter()
            .filter(|(key, _)| key == "paths" || key == "paths[]")
            .map(|pair| pair.1)
            .collect();
        (paths, expand)
    };
    let (state, who) = (shared.state(), asked.who()?);
    let (repo, commit) = state.find_at(asked, kind, id, who, revision)?;
    let mut found = Vec::new();
    // A path that is not there is left out, as the real hub does.
    for path in &paths {
        let path = path.trim_end_matches('/');
        let listed = match commit.files.get(path) {
            Some(entry) => Listed::File(entry),
            None if listing(commit, path, false).is_empty() || path.is_empty() => continue,
            None => Listed::Folder,
        };
        found.push(tree_entry(&state.settings, repo, commit, path, &listed, expand));
    }
    Ok(Answer::json(&Value::Array(found)))
}

fn refs(shared: &Shared, asked: &Asked, kind: Kind, id: &str) -> Result<Answer, Answer> {
    let (state, who) = (shared.state(), asked.who()?);
    let repo = state.find(asked, kind, id, who)?;
    let below = |prefix: &str| {
        let of = repo.refs.iter().filter_map(|(name, sha)| Some((name.strip_prefix(prefix)?, name, sha)));
        of.map(|(name, full, sha)| json!({"name": name, "ref": full, "targetCommit": sha}))
            .collect::<Vec<_>>()
    };
    let mut all = json!({
        "branches": below("refs/heads/"), "converts": below("refs/convert/"), "tags": below("refs/tags/"),
    });
    if asked.flag("include_prs") {
        all["pullRequests"] = json!(below("refs/pr/"));
    }
    Ok(Answer::json(&all))
}

fn commits(shared: &Shared, asked: &Asked, kind: Kind, id: &str, revision: &str) -> Result<Answer, Answer> {
    let (state, who) = (shared.state(), asked.who()?);
    let (repo, commit) = state.find_at(asked, kind, id, who, revision)?;
    let history: Vec<&Commit> = repo.history(&commit.sha).collect();
    paged(
        &state.settings,
        shared,
        asked,
        &history,
        |commit| commit.sha.clone(),
        |commit| {
            json!({
                "id": commit.sha, "title": commit.title, "message": commit.message, "date": commit.date,
                "authors": [{"user": "owner"}],
            })
        },
    )
}

/// The files of the branch `refs/convert/parquet`, which lie in `config/split/`: the addresses by config and split, or
/// a redirect to one of them.
fn parquet(shared: &Shared, asked: &Asked, id: &str, below: &[&str]) -> Result<Answer, Answer> {
    let (state, who) = (shared.state(), asked.who()?);
    let repo = state.find(asked, Kind::Dataset, id, who)?;
    open_gate(repo, who)?;
    let unconverted = || Answer::error(404, "EntryNotFound", "The dataset has no Parquet files");
    let commit = repo.revision("refs/convert/parquet").ok_or_else(unconverted)?;
    let mut configs: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for path in commit.files.keys() {
        if let [config, split, name] = path.split('/').collect::<Vec<_>>()[..] {
            configs.entry(config).or_default().entry(split).or_default().push(name);
        }
    }
    let base = format!("{}/api/datasets/{id}/parquet", shared.endpoint());
    let urls = |config: &str, split: &str, names: &[&str]| {
        let urls =
            (0..names.len()).map(|i| format!("{base}/{}/{}/{i}.parquet", encoded(config), encoded(split)));
        json!(urls.collect::<Vec<_>>())
    };
    let splits = |config: &str, splits: &BTreeMap<&str, Vec<&str>>| {
        let of = splits.iter().map(|(split, names)| (split.to_string(), urls(config, split, names)));
        Value::Object(of.collect())
    };
    let value = match below {
        [] => Value::Object(
            configs.iter().map(|(config, of)| (config.to_string(), splits(config, of))).collect(),
        ),
        [config] => splits(config, configs.get(config).ok_or_else(unconverted)?),
        [config, split, number @ ..] => {
            let names = configs.get(config).and_then(|splits| splits.get(split)).ok_or_else(unconverted)?;
            if let [number] = number {
                let number = number.strip_suffix(".parquet").and_then(|number| number.parse::<usize>().ok());
                let name = number.and_then(|number| names.get(number)).ok_or_else(unconverted)?;
                let path = encoded_path(&format!("{config}/{split}/{name}"));
                return Ok(Answer::redirect(
                    302,
                    format!("{}/datasets/{id}/resolve/refs%2Fconvert%2Fparquet/{path}", shared.endpoint()),
                ));
            }
            urls(config, split, names)
        }
    };
    Ok(Answer::json(&value))
}

/// Content of a file: the hub's own, or a redirect to the CDN for what is in LFS.
fn resolve(
    shared: &Shared,
    asked: &Asked,
    kind: Kind,
    id: &str,
    revision: &str,
    path: &str,
    may_redirect: bool,
) -> Result<Answer, Answer> {
    let mut state = shared.state();
    let who = asked.who()?;
    let (repo, commit) = state.find_at(asked, kind, id, who, revision)?;
    open_gate(repo, who)?;
    let sha = commit.sha.clone();
    let entry = commit.files.get(path).cloned();
    let entry = entry.ok_or_else(|| {
        Answer::error(404, "EntryNotFound", "Entry not found").with("X-Repo-Commit", sha.clone())
    })?;
    let name = path.rsplit('/').next().unwrap();
    let named = |answer: Answer| {
        let disposition = format!("inline; filename*=UTF-8''{0}; filename=\"{0}\";", encoded(name));
        answer.with("X-Repo-Commit", sha.clone()).with("Content-Disposition", disposition)
    };
    let linked = |answer: Answer| {
        answer.with("X-Linked-Size", entry.size.to_string()).with("X-Linked-ETag", entry.etag())
    };
    let Some(object) = &entry.object else {
        if may_redirect && state.settings.resolve_cache {
            let path = encoded_path(path);
            let target =
                format!("/api/resolve-cache/{}/{id}/{sha}/{path}?etag={}", kind.plural(), entry.blob);
            return Ok(linked(Answer::redirect(307, target)).with("X-Repo-Commit", sha));
        }
        let bytes = Arc::clone(state.content(&entry));
        return Ok(named(Answer::content(asked, bytes, &entry.etag())));
    };
    let signature = state.new_link(object, LinkUse::Download { name: encoded(name) });
    let settings = &state.settings;
    let life = settings.link_life.map_or(3600, |life| life.as_secs());
    let target = format!(
        "http://{}:{}/repos/{}/{object}?X-Expires={life}&X-Signature={signature}",
        settings.cdn_name,
        shared.cdn_port,
        &object[..2],
    );
    let mut answer = linked(Answer::redirect(302, target)).with("X-Repo-Commit", sha.clone());
    answer = answer.with("Accept-Ranges", "bytes");
    if let Some(xet) = entry.xet(settings) {
        answer = answer.with("X-Xet-Hash", xet);
    }
    Ok(answer)
}

/// What the CDN answers: to a GET or HEAD of a link the object, to a PUT that it took it.
fn cdn_answer(shared: &Shared, asked: &Asked) -> Result<Answer, Answer> {
    if asked.header("authorization").is_some() {
        shared.violation(format!("{} {} sent a token to the CDN", asked.method, asked.target));
        return Err(denied(400, "InvalidArgument", "Only one way of authentication is allowed"));
    }
    let signature = asked.parameter("X-Signature").unwrap_or_default();
    let mut state = shared.state();
    let State { links, settings, .. } = &mut *state;
    let link = links.get_mut(&signature).filter(|link| asked.path().ends_with(&format!("/{}", link.object)));
    let link = link.ok_or_else(|| denied(403, "AccessDenied", "The link is not signed"))?;
    let old = settings.link_life.is_some_and(|life| link.made.elapsed() >= life);
    if old || settings.link_uses.is_some_and(|uses| link.uses >= uses) {
        return Err(denied(403, "AccessDenied", "The link has expired"));
    }
    link.uses += 1;
    let object = link.object.clone();
    match &link.use_for {
        LinkUse::Download { name } if asked.is(&["GET", "HEAD"]) => {
            let disposition = format!("inline; filename*=UTF-8''{name}; filename=\"{name}\";");
            let bytes = Arc::clone(&state.objects[&object]);
            drop(state);
            Ok(Answer::content(asked, bytes, &format!("\"{object}\""))
                .with("Content-Disposition", disposition))
        }
        LinkUse::Upload if asked.is(&["PUT"]) => {
            drop(state);
            if hex(&Sha256::digest(&asked.body)) != object {
                return Err(denied(400, "BadDigest", "The content is not that of the signed SHA-256"));
            }
            shared.state().objects.insert(object.clone(), asked.body.clone().into());
            Ok(Answer::text(200, "").with("ETag", format!("\"{object}\"")))
        }
        LinkUse::Part { upload, number } if asked.is(&["PUT"]) => {
            let (upload, number) = (upload.clone(), *number);
            let etag = part_etag(&asked.body);
            match links.get_mut(&upload).map(|link| &mut link.use_for) {
                Some(LinkUse::Completion { parts, .. }) => parts.insert(number, asked.body.clone()),
                _ => return Err(denied(404, "NoSuchUpload", "The upload is over")),
            };
            Ok(Answer::text(200, "").with("ETag", etag))
        }
        _ => Err(denied(403, "AccessDenied", "The link is not signed for this")),
    }
}

fn part_etag(bytes: &[u8]) -> String {
    format!("\"{}\"", blob_id(bytes))
}

/// An object store's error.
fn denied(status: u16, code: &str, message: &str) -> Answer {
    let xml = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Answer::new(status, "application/xml", xml.into_bytes())
}

fn create_repo(shared: &Shared, asked: &Asked) -> Result<Answer, Answer> {
    asked.writer()?;
    let body = asked.json()?;
    let name = body["name"].as_str().ok_or_else(|| bad("name"))?;
    let kind = match body["type"].as_str() {
        None | Some("model") => Kind::Model,
        Some("dataset") => Kind::Dataset,
        Some(other) => return Err(bad(other)),
    };
    let id = format!("{}/{name}", body["organization"].as_str().unwrap_or("owner"));
    let url = format!("{}/{}{id}", shared.endpoint(), kind.prefix());
    let mut state = shared.state();
    if state.repos.contains_key(&(kind, id.clone())) {
        let message = format!("You already created the {kind:?} {id}");
        return Err(
            Answer::json_status(409, &json!({"error": message, "url": url})).with("X-Error-Message", message)
        );
    }
    let mut repo = RepoState::new(kind, &id);
    repo.private = body["visibility"] == "private" || body["private"] == true;
    let attributes = state.blob(b"*.parquet filter=lfs diff=lfs merge=lfs -text\n".as_slice().into());
    repo.commit("refs/heads/main", "Initial commit", "", [(".gitattributes".to_owned(), attributes)].into());
    state.repos.insert((kind, id.clone()), repo);
    Ok(Answer::json(&json!({"url": url, "name": id, "id": id})))
}

/// A branch or a tag at a revision.
fn new_reference(
    shared: &Shared,
    asked: &Asked,
    kind: Kind,
    id: &str,
    reference: &str,
    revision: Option<&str>,
) -> Result<Answer, Answer> {
    asked.writer()?;
    let body = if asked.body.is_empty() { Value::Null } else { asked.json()? };
    let revision = revision.or(body["startingPoint"].as_str()).unwrap_or("main");
    let mut state = shared.state();
    let sha = state.find_at(asked, kind, id, Who::Owner, revision)?.1.sha.clone();
    let repo = state.repos.get_mut(&(kind, id.to_owned())).unwrap();
    if repo.refs.contains_key(reference) {
        return Err(Answer::error(409, "", &format!("{reference} exists already")));
    }
    repo.refs.insert(reference.to_owned(), sha);
    Ok(Answer::json_status(201, &json!({})))
}

/// Endings of names whose files go to LFS however small they are.
const LFS_ENDINGS: [&str; 8] = [".parquet", ".arrow", ".safetensors", ".bin", ".gz", ".zst", ".zip", ".npy"];

fn preupload(shared: &Shared, asked: &Asked, kind: Kind, id: &str, revision: &str) -> Result<Answer, Answer> {
    asked.writer()?;
    let state = shared.state();
    let (_, commit) = state.find_at(asked, kind, id, Who::Owner, revision)?;
    let body = asked.json()?;
    let mut files = Vec::new();
    for file in body["files"].as_array().ok_or_else(|| bad("files"))? {
        let path = file["path"].as_str().ok_or_else(|| bad("path"))?;
        let size = file["size"].as_u64().ok_or_else(|| bad("size"))?;
        let large =
            size >= state.settings.lfs_from || LFS_ENDINGS.iter().any(|ending| path.ends_with(ending));
        let mut answer = json!({
            "path": path, "uploadMode": if large { "lfs" } else { "regular" }, "shouldIgnore": false,
        });
        if let Some(entry) = commit.files.get(path) {
            // Of a file in LFS, what the client compares with is the object's.
            answer["oid"] = json!(entry.object.as_ref().unwrap_or(&entry.blob));
        }
        files.push(answer);
    }
    Ok(Answer::json(&json!({"files": files, "commitOid": commit.sha})))
}

/// LFS: where to send the objects, and nothing for those that are here already; or where to get them.
fn batch(shared: &Shared, asked: &Asked, kind: Kind, id: &str) -> Result<Answer, Answer> {
    let body = asked.json()?;
    let upload = body["operation"] == "upload";
    if upload {
        asked.writer()?;
    }
    let who = asked.who()?;
    let mut state = shared.state();
    open_gate(state.find(asked, kind, id, who)?, who)?;
    let cdn = format!("http://{}:{}", state.settings.cdn_name, shared.cdn_port);
    let transfers: Vec<&str> =
        body["transfers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let part = state.settings.part.filter(|_| transfers.contains(&"multipart"));
    let mut objects = Vec::new();
    for object in body["objects"].as_array().ok_or_else(|| bad("objects"))? {
        let oid = object["oid"].as_str().filter(|oid| oid.len() == 64).ok_or_else(|| bad("oid"))?;
        let size = object["size"].as_u64().ok_or_else(|| bad("size"))?;
        let mut answer = json!({"oid": oid, "size": size, "authenticated": true});
        let here = state.objects.contains_key(oid);
        let href = |signature: &str| format!("{cdn}/uploads/{oid}?X-Signature={signature}");
        if !upload && here {
            let signature = state.new_link(oid, LinkUse::Download { name: oid.to_owned() });
            answer["actions"] = json!({"download": {"href": href(&signature)}});
        } else if !upload {
            answer["error"] = json!({"code": 404, "message": "There is no such object"});
        } else if !here {
            let action = match part.filter(|part| size > *part) {
                None => json!({"href": href(&state.new_link(oid, LinkUse::Upload))}),
                Some(part) => {
                    let wanted = usize::try_from(size.div_ceil(part)).unwrap();
                    let upload = state.new_link(oid, LinkUse::Completion { parts: BTreeMap::new(), wanted });
                    let mut header = json!({ "chunk_size": part.to_string() });
                    for number in 1..=wanted {
                        let link = LinkUse::Part { upload: upload.clone(), number };
                        header[format!("{number:05}")] = json!(href(&state.new_link(oid, link)));
                    }
                    json!({"href": format!("{}/api/complete_multipart/{upload}", shared.endpoint()), "header": header})
                }
            };
            let verify = format!("{}/{}{id}.git/info/lfs/objects/verify", shared.endpoint(), kind.prefix());
            answer["actions"] = json!({"upload": action, "verify": {"href": verify}});
        }
        objects.push(answer);
    }
    let transfer = if part.is_some() { "multipart" } else { "basic" };
    let mut answer = Answer::json(&json!({"transfer": transfer, "objects": objects, "hash_algo": "sha256"}));
    answer.headers[0].1 = "application/vnd.git-lfs+json".to_owned();
    Ok(answer)
}

/// LFS: whether an object that was uploaded is here.
fn verify(shared: &Shared, asked: &Asked) -> Result<Answer, Answer> {
    asked.writer()?;
    let body = asked.json()?;
    let (oid, size) = (body["oid"].as_str().ok_or_else(|| bad("oid"))?, body["size"].as_u64());
    match shared.state().objects.get(oid) {
        None => Err(Answer::error(404, "", "The object was not uploaded")),
        Some(object) if Some(object.len() as u64) != size => Err(bad("size")),
        Some(_) => Ok(Answer::json(&json!({}))),
    }
}

/// Joins the parts of an upload, which the client lists with the ETags that it got.
fn complete(shared: &Shared, asked: &Asked, upload: &str) -> Result<Answer, Answer> {
    let body = asked.json()?;
    let mut state = shared.state();
    let link = state.links.get(upload).ok_or_else(|| Answer::error(403, "", "The link is not signed"))?;
    let LinkUse::Completion { parts, wanted } = &link.use_for else { return Err(bad("upload")) };
    let listed = body["parts"].as_array().ok_or_else(|| bad("parts"))?;
    if body["oid"] != link.object.as_str() || listed.len() != *wanted {
        return Err(bad("list of parts"));
    }
    let mut bytes = Vec::new();
    for (i, part) in listed.iter().enumerate() {
        let here = parts.get(&(i + 1)).ok_or_else(|| bad("list of parts"))?;
        if part["partNumber"] != i + 1 || part["etag"] != part_etag(here) {
            return Err(bad("part"));
        }
        bytes.extend_from_slice(here);
    }
    if hex(&Sha256::digest(&bytes)) != link.object {
        return Err(Answer::error(422, "", "The parts are not the object of that SHA-256"));
    }
    let object = link.object.clone();
    // The link stays: a client that did not get the answer asks again.
    state.objects.insert(object, bytes.into());
    Ok(Answer::json(&json!({ "success": true })))
}

/// A new commit of the lines of JSON: what it is called, files with their content or object, paths to remove.
fn commit(shared: &Shared, asked: &Asked, kind: Kind, id: &str, revision: &str) -> Result<Answer, Answer> {
    asked.writer()?;
    if asked.flag("create_pr") {
        return Err(Answer::error(400, "", "Pull requests are not served"));
    }
    let mut state = shared.state();
    let base = state.find_at(asked, kind, id, Who::Owner, revision)?.1;
    let (base, mut files) = (base.sha.clone(), base.files.clone());
    let (mut title, mut message) = (String::new(), String::new());
    let mut changed = BTreeSet::new();
    for (i, line) in asked.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        let line: Value = serde_json::from_slice(line).map_err(|_| bad(&format!("line {}", i + 1)))?;
        let value = &line["value"];
        let text = |key: &str| value[key].as_str().ok_or_else(|| bad(&format!("{key} in line {}", i + 1)));
        let key = line["key"].as_str().ok_or_else(|| bad(&format!("line {}", i + 1)))?;
        if (i == 0) != (key == "header") {
            return Err(bad("order of lines: the header is the first"));
        }
        match key {
            "header" => {
                title = text("summary")?.to_owned();
                message = value["description"].as_str().unwrap_or_default().to_owned();
                if value["parentCommit"].as_str().is_some_and(|parent| parent != base) {
                    return Err(Answer::error(412, "", "The branch has another commit meanwhile"));
                }
            }
            "file" => {
                let bytes = match value["encoding"].as_str() {
                    Some("base64") => from_base64(text("content")?).ok_or_else(|| bad("base64"))?,
                    _ => text("content")?.as_bytes().to_vec(),
                };
                let entry = state.blob(bytes.into());
                files.insert(text("path")?.to_owned(), entry);
            }
            "lfsFile" => {
                let oid = text("oid")?;
                let object = state.objects.get(oid);
                let object =
                    object.ok_or_else(|| Answer::error(422, "", &format!("{oid} was not uploaded")))?;
                let size = object.len() as u64;
                if value["size"].as_u64().is_some_and(|told| told != size) {
                    return Err(bad("size"));
                }
                files.insert(text("path")?.to_owned(), Entry::lfs(oid.to_owned(), size));
            }
            "deletedFile" => {
                if files.remove(text("path")?).is_none() {
                    return Err(Answer::error(404, "EntryNotFound", NO_SUCH_FILE));
                }
            }
            "deletedFolder" => {
                let prefix = format!("{}/", text("path")?.trim_end_matches('/'));
                let before = files.len();
                files.retain(|path, _| !path.starts_with(&prefix));
                if files.len() == before {
                    return Err(Answer::error(404, "EntryNotFound", "There is no such folder"));
                }
            }
            other => return Err(bad(&format!("key {other}"))),
        }
        if key != "header" && !changed.insert(text("path")?.to_owned()) {
            return Err(bad("commit: a path is in it twice"));
        }
    }
    if title.is_empty() {
        return Err(bad("commit: it has no summary"));
    }
    // A commit goes to a branch; a full name is one as well.
    let full =
        if revision.starts_with("refs/") { revision.to_owned() } else { format!("refs/heads/{revision}") };
    let repo = state.repos.get_mut(&(kind, id.to_owned())).unwrap();
    if !repo.refs.contains_key(&full) {
        return Err(Answer::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}")));
    }
    let sha = repo.commit(&full, &title, &message, files);
    let url = format!("{}/{}{id}/commit/{sha}", shared.endpoint(), kind.prefix());
    let mut answer = Answer::json(&json!({
        "success": true, "commitOid": sha, "commitUrl": url, "hookOutput": "",
    }));
    answer.lost = state.lost_commit_answers > 0;
    state.lost_commit_answers = state.lost_commit_answers.saturating_sub(1);
    Ok(answer)
}

mod tests {
    use super::*;

    struct Got {
        status: u16,
        headers: Vec<(String, String)>,
        /// Shorter than `Content-Length` when the socket was closed early.
        body: Vec<u8>,
    }

    impl Got {
        fn header(&self, name: &str) -> Option<&str> {
            self.headers
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        }

        fn json(&self) -> Value {
            serde_json::from_slice(&self.body).unwrap()
        }
    }

    fn write(stream: &mut TcpStream, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(&[format!("{head}\r\n").as_bytes(), body].concat()).unwrap();
    }

    /// `None` when the socket was closed without an answer.
    fn read(stream: &mut TcpStream, method: &str) -> Option<Got> {
        try_read(stream, method).unwrap()
    }

    fn try_read(stream: &mut TcpStream, method: &str) -> io::Result<Option<Got>> {
        let mut read = Vec::new();
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 40];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(length) = response.parse(&read).unwrap() {
                let value = |h: &httparse::Header| String::from_utf8(h.value.to_vec()).unwrap();
                let headers: Vec<_> =
                    response.headers.iter().map(|h| (h.name.to_owned(), value(h))).collect();
                let mut got = Got { status: response.code.unwrap(), headers, body: read.split_off(length) };
                let length: usize = got.header("content-length").unwrap().parse().unwrap();
                while method != "HEAD" && got.body.len() < length && fill(&mut got.body, stream)? {}
                return Ok(Some(got));
            }
            if !fill(&mut read, stream)? {
                return Ok(None);
            }
        }
    }

    fn connect(url: &str) -> (TcpStream, &str) {
        try_connect(url).unwrap()
    }

    fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Got> {
        let (mut stream, target) = connect(url);
        write(&mut stream, method, target, headers, body);
        read(&mut stream, method)
    }

    fn get(url: &str, headers: &[(&str, &str)]) -> Got {
        ask("GET", url, headers, &[]).unwrap()
    }

    fn until(holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never came so far");
            thread::sleep(Duration::from_millis(1));
        }
    }

    const OWNER: (&str, &str) = ("Authorization", "Bearer hf_owner");

    fn filled() -> (Hub, Repo, String) {
        let hub = Hub::start();
        let repo = hub.dataset("owner/corpus");
        repo.file("README.md", b"0123456789").lfs("data/a.bin", &[b'x'; 200_000]);
        let resolve = format!("{}/datasets/owner/corpus/resolve/main", hub.endpoint());
        (hub, repo, resolve)
    }

    #[test]
    fn ranges_are_those_of_the_standard() {
        let (_hub, _, resolve) = filled();
        let url = format!("{resolve}/README.md");
        let table = [
            ("bytes=0-0", 206, "0", "bytes 0-0/10"),
            ("bytes=2-4", 206, "234", "bytes 2-4/10"),
            ("bytes=8-", 206, "89", "bytes 8-9/10"),
            ("bytes=8-99", 206, "89", "bytes 8-9/10"),
            ("bytes=-3", 206, "789", "bytes 7-9/10"),
            ("bytes=-99", 206, "0123456789", "bytes 0-9/10"),
            ("bytes=4-2", 200, "0123456789", ""),
            ("bytes=0-1,3-4", 200, "0123456789", ""),
            ("lines=1-2", 200, "0123456789", ""),
        ];
        for (range, status, body, content_range) in table {
            let got = get(&url, &[("Range", range)]);
            assert_eq!((got.status, got.body.as_slice()), (status, body.as_bytes()), "{range}");
            assert_eq!(got.header("content-range").unwrap_or_default(), content_range, "{range}");
        }
        for range in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            let got = get(&url, &[("Range", range)]);
            assert_eq!((got.status, got.header("content-range")), (416, Some("bytes */10")), "{range}");
        }
        let etag = get(&url, &[]).header("etag").unwrap().to_owned();
        assert_eq!(get(&url, &[("Range", "bytes=2-4"), ("If-Range", &etag)]).status, 206);
        assert_eq!(get(&url, &[("Range", "bytes=2-4"), ("If-Range", "\"other\"")]).body, b"0123456789");
        assert_eq!(get(&url, &[("If-Match", "\"other\"")]).status, 412);
        let head = ask("HEAD", &url, &[("Range", "bytes=2-4")], &[]).unwrap();
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (206, Some("3"), 0));
    }

    #[test]
    fn pages_hold_every_entry_once() {
        let (hub, repo, _) = filled();
        repo.files((0..23).map(|i| File::plain(&format!("d{}/f{i:02}", i % 4), b"x")));
        hub.set(|settings| settings.page = 4);
        let mut next =
            Some(format!("{}/api/datasets/owner/corpus/tree/main?recursive=true&limit=100", hub.endpoint()));
        let (mut paths, mut pages) = (Vec::new(), 0);
        while let Some(url) = next {
            let got = get(&url, &[]);
            for entry in got.json().as_array().unwrap() {
                paths.push(entry["path"].as_str().unwrap().to_owned());
            }
            pages += 1;
            next = got.header("link").map(|link| {
                let (url, rel) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
                assert_eq!(rel, "; rel=\"next\"");
                url.to_owned()
            });
        }
        let mut expected: Vec<String> = repo.paths();
        expected.extend(["data", "d0", "d1", "d2", "d3"].map(str::to_owned));
        expected.sort();
        assert_eq!((paths, pages), (expected, 30_usize.div_ceil(4)));
    }

    #[test]
    fn objects_come_from_the_other_host_by_links_that_end() {
        let (hub, repo, resolve) = filled();
        let url = format!("{resolve}/data/a.bin");
        let got = ask("HEAD", &url, &[OWNER], &[]).unwrap();
        assert_eq!((got.status, got.header("x-linked-size")), (302, Some("200000")));
        assert_eq!(got.header("x-repo-commit").unwrap(), repo.sha());
        let link = got.header("location").unwrap().to_owned();
        assert!(link.starts_with(&hub.cdn_endpoint()) && !link.starts_with(&hub.endpoint()));
        let part = get(&link, &[("Range", "bytes=199990-")]);
        assert_eq!(
            (part.status, part.body.len(), part.header("etag")),
            (206, 10, got.header("x-linked-etag"))
        );
        assert_eq!(get(&link.replace("X-Signature=", "X-Signature=0"), &[]).status, 403);
        assert!(hub.violations().is_empty());
        assert_eq!(get(&link, &[OWNER]).status, 400);
        assert_eq!(hub.violations().len(), 1);

        let requests = hub.log();
        let first = &requests[0];
        assert_eq!((first.host, first.status, first.sent, first.known_token), (Host::Hub, 302, 0, true));
        let second = &requests[1];
        assert_eq!(
            (second.host, second.status, second.sent, second.authorization),
            (Host::Cdn, 206, 10, false)
        );
        assert_eq!(second.range.as_deref(), Some("bytes=199990-"));
        hub.clear_log();

        let link = || get(&url, &[]).header("location").unwrap().to_owned();
        hub.set(|settings| settings.link_uses = Some(2));
        let twice = link();
        assert_eq!([0; 3].map(|_| get(&twice, &[]).status), [200, 200, 403]);
        hub.set(|settings| (settings.link_uses, settings.link_life) = (None, Some(Duration::ZERO)));
        assert_eq!(get(&link(), &[]).status, 403);
        hub.set(|settings| settings.link_life = None);
        let link = link();
        hub.expire_links();
        assert_eq!(get(&link, &[]).status, 403);
        assert_eq!(hub.log().len(), 8);
    }

    #[test]
    fn limiter_tells_when_to_come_again_and_counts_who_does_not_listen() {
        let (begin, window) = (Instant::now(), Duration::from_secs(10));
        let limit = RateLimit { requests: 2, window, grace: Duration::from_millis(100) };
        let mut limiter = Limiter::new(limit, begin);
        let table = [
            (0, true, "r=1;t=10", 0),
            (1500, true, "r=0;t=9", 0),
            (3000, false, "r=0;t=7", 0),
            // Was on its way already.
            (3100, false, "r=0;t=7", 0),
            (3101, false, "r=0;t=7", 1),
            (9999, false, "r=0;t=1", 2),
            (10_000, true, "r=1;t=10", 2),
            (35_000, true, "r=1;t=5", 2),
            (35_001, true, "r=0;t=5", 2),
            (39_500, false, "r=0;t=1", 2),
        ];
        for (at, served, told, violations) in table {
            let admission = limiter.admit(Category::Resolvers, begin + Duration::from_millis(at));
            let [(_, left), (_, policy)] = &admission.headers;
            assert_eq!((admission.served, left), (served, &format!("\"resolvers\";{told}")), "{at}");
            assert_eq!(
                (policy.as_str(), limiter.counts.violations),
                ("\"fixed window\";\"resolvers\";q=2;w=10", violations)
            );
        }
        assert_eq!(limiter.counts, Counts { served: 5, refused: 5, violations: 2 });
    }

    #[test]
    fn limits_are_of_a_category() {
        let (hub, _, resolve) = filled();
        let url = format!("{resolve}/README.md");
        hub.rate_limit(Category::Resolvers, RateLimit::new(2, Duration::from_secs(3600)));
        assert_eq!([0; 3].map(|_| get(&url, &[]).status), [200, 200, 429]);
        let refused = get(&url, &[]);
        assert!(refused.header("ratelimit").unwrap().starts_with("\"resolvers\";r=0;t="));
        assert_eq!(refused.header("ratelimit-policy").unwrap(), "\"fixed window\";\"resolvers\";q=2;w=3600");
        let counts = hub.counts(Category::Resolvers);
        assert_eq!((counts.served, counts.refused), (2, 2));
        let api = get(&format!("{}/api/datasets/owner/corpus", hub.endpoint()), &[]);
        assert_eq!((api.status, api.header("ratelimit")), (200, None));
        assert_eq!(hub.counts(Category::Api), Counts::default());
    }

    #[test]
    fn downloads_are_cut_where_told_and_no_more_often() {
        let (hub, _, resolve) = filled();
        let link = get(&format!("{resolve}/data/a.bin"), &[]).header("location").unwrap().to_owned();
        hub.cut_after(150_000, 2);
        let sent = [0; 3].map(|_| get(&link, &[]).body.len());
        // Too short to be cut.
        hub.cut_after(150_000, 1);
        assert_eq!(get(&link, &[("Range", "bytes=50000-")]).body.len(), 150_000);
        assert_eq!(sent, [150_000, 150_000, 200_000]);
        let logged: Vec<u64> = hub.log()[1..].iter().map(|request| request.sent).collect();
        assert_eq!(logged, [150_000, 150_000, 200_000, 150_000]);
    }

    #[test]
    fn faults_are_the_same_for_the_same_seed_and_end() {
        let (hub, _, resolve) = filled();
        let fates = |seed| {
            let shares = Faults {
                too_many: 0.2,
                unavailable: 0.2,
                dropped: 0.2,
                cut: 0.2,
                slow: 0.1,
                ..Faults::default()
            };
            hub.faults(Faults { seed, retry_after: Some(1), path: "/resolve/", ..shares });
            (0..40)
                .map(|_| ask("GET", &format!("{resolve}/README.md"), &[], &[]))
                .map(|got| got.map(|got| (got.status, got.body.len())))
                .collect::<Vec<_>>()
        };
        let first = fates(1);
        assert_eq!(first, fates(1));
        assert_ne!(first, fates(2));
        let kinds: BTreeSet<u16> = first.iter().map(|got| got.map_or(0, |(status, _)| status)).collect();
        assert_eq!(kinds, [0, 200, 429, 503].into());
        assert!(first.iter().any(|got| got.is_some_and(|(status, length)| status == 200 && length < 10)));

        hub.faults(Faults { unavailable: 1.0, retry_after: Some(7), at_most: 2, ..Faults::default() });
        let url = format!("{}/api/datasets/owner/corpus", hub.endpoint());
        let answers = [0; 3].map(|_| get(&url, &[]));
        assert_eq!(answers.each_ref().map(|got| got.status), [503, 503, 200]);
        assert_eq!(answers[0].header("retry-after"), Some("7"));
    }

    #[test]
    fn dropping_ends_held_slow_and_idle_connections() {
        let (hub, _, resolve) = filled();
        let link = get(&format!("{resolve}/data/a.bin"), &[]).header("location").unwrap().to_owned();
        let slow = Faults {
            slow: 1.0,
            slow_pause: Duration::from_secs(600),
            host: Some(Host::Cdn),
            ..Faults::default()
        };
        hub.faults(slow);
        let (mut slow, target) = connect(&link);
        write(&mut slow, "GET", target, &[], &[]);
        until(|| hub.log().last().unwrap().status == 200);
        hub.faults(Faults { held: 1.0, ..Faults::default() });
        let url = format!("{resolve}/README.md");
        let (mut held, target) = connect(&url);
        write(&mut held, "GET", target, &[], &[]);
        until(|| hub.log().len() == 3);
        let (mut idle, _) = connect(&url);
        let begun = Instant::now();
        drop(hub);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(read(&mut held, "GET").is_none());
        assert!(read(&mut slow, "GET").is_none_or(|got| got.body.len() < 200_000));
        let mut byte = [0];
        assert!(!matches!(idle.read(&mut byte), Ok(1..)));
    }

    #[test]
    fn dropping_under_load_ends_every_download() {
        let (hub, repo, resolve) = filled();
        repo.lfs("large.bin", &vec![b'y'; 8 << 20]);
        hub.faults(Faults { cut: 0.2, slow: 0.2, slow_piece: 10_000, dropped: 0.1, ..Faults::default() });
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let url = format!("{resolve}/large.bin");
                // Until the hub is gone and refuses the connection; one closed without an answer may be a fault.
                thread::spawn(move || {
                    let mut received = 0;
                    let mut lost = 0;
                    while lost < 20 {
                        let Ok((mut stream, target)) = try_connect(&url) else { break };
                        let link = try_ask(&mut stream, target)
                            .and_then(|got| got.header("location").map(str::to_owned));
                        let Some(link) = link else {
                            lost += 1;
                            continue;
                        };
                        let Ok((mut stream, target)) = try_connect(&link) else { break };
                        received += try_ask(&mut stream, target).map_or(0, |got| got.body.len());
                    }
                    received
                })
            })
            .collect();
        until(|| hub.log().iter().filter(|request| request.host == Host::Cdn).count() >= 20);
        let begun = Instant::now();
        drop(hub);
        assert!(begun.elapsed() < Duration::from_secs(10));
        let received: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(received > 8 << 20);
    }

    fn try_connect(url: &str) -> io::Result<(TcpStream, &str)> {
        let rest = url.strip_prefix("http://").unwrap();
        let (host, _) = rest.split_once('/').unwrap();
        Ok((TcpStream::connect(host)?, &rest[host.len()..]))
    }

    fn try_ask(stream: &mut TcpStream, target: &str) -> Option<Got> {
        stream.write_all(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes()).ok()?;
        try_read(stream, "GET").ok()?
    }

    #[test]
    #[should_panic(expected = "sent a token to the CDN")]
    fn dropping_tells_of_a_token_at_the_cdn() {
        let hub = Hub::start();
        get(&format!("{}/repos/xx/yy", hub.cdn_endpoint()), &[OWNER]);
    }

    #[test]
    fn connections_are_kept_and_errors_have_their_codes() {
        let (hub, repo, resolve) = filled();
        hub.model("owner/secret").private();
        hub.dataset("owner/gated").file("a", b"a").gated();
        repo.formerly("owner/old");
        let base = hub.endpoint();
        let (mut stream, _) = connect(&format!("{base}/"));
        let stranger = ("Authorization", "Bearer hf_stranger");
        let wrong = ("Authorization", "Bearer hf_wrong");
        let none = ("Accept", "*/*");
        let table = [
            (none, "/datasets/owner/corpus/resolve/main/README.md", 200, None),
            (none, "/datasets/owner/corpus/resolve/main/none", 404, Some("EntryNotFound")),
            (none, "/datasets/owner/corpus/resolve/none/README.md", 404, Some("RevisionNotFound")),
            (none, "/datasets/owner/none/resolve/main/README.md", 401, Some("RepoNotFound")),
            (stranger, "/datasets/owner/none/resolve/main/README.md", 404, Some("RepoNotFound")),
            (none, "/api/models/owner/secret", 401, Some("RepoNotFound")),
            (stranger, "/api/models/owner/secret", 404, Some("RepoNotFound")),
            (OWNER, "/api/models/owner/secret", 200, None),
            (none, "/datasets/owner/gated/resolve/main/a", 401, Some("GatedRepo")),
            (stranger, "/datasets/owner/gated/resolve/main/a", 403, Some("GatedRepo")),
            (OWNER, "/datasets/owner/gated/resolve/main/a", 200, None),
            (wrong, "/api/datasets/owner/corpus", 401, None),
            (none, "/api/datasets/owner/old/tree/main?recursive=1", 307, None),
            (none, "/api/datasets/owner/corpus/tree/main/none%0A%C3%A9", 404, Some("EntryNotFound")),
        ];
        for (header, target, status, code) in table {
            write(&mut stream, "GET", target, &[header], &[]);
            let got = read(&mut stream, "GET").unwrap();
            assert_eq!((got.status, got.header("x-error-code")), (status, code), "{header:?} {target}");
            if header == wrong {
                assert_eq!(got.header("x-error-message"), Some(INVALID_TOKEN));
            }
            if status == 307 {
                assert_eq!(got.header("location"), Some("/api/datasets/owner/corpus/tree/main?recursive=1"));
            }
        }
        drop(stream);
        let (mut stream, target) = connect(&resolve);
        let target = target.replace("/resolve/main", "/paths-info/main");
        write(
            &mut stream,
            "POST",
            &format!("/api{target}"),
            &[("Expect", "100-continue")],
            b"paths=data&paths=no",
        );
        let mut line = [0; 25];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(read(&mut stream, "POST").unwrap().json()[0]["type"], "directory");
    }

    #[test]
    fn commit_whose_answer_was_lost_is_there_and_its_retry_conflicts() {
        let (hub, repo, _) = filled();
        let url = format!("{}/api/datasets/owner/corpus/commit/main", hub.endpoint());
        let commit = format!(
            "{}\n{}\n",
            json!({"key": "header", "value": {"summary": "Write", "parentCommit": repo.sha()}}),
            json!({"key": "file", "value": {"path": "new.txt", "content": "bmV3", "encoding": "base64"}}),
        );
        // As a client sends a body whose length it does not know.
        let (half, rest) = commit.split_at(50);
        let chunks = format!("{:x}\r\n{half}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n", half.len(), rest.len());
        let headers = [OWNER, ("Transfer-Encoding", "chunked")];
        hub.lose_commit_answers(1);
        assert!(ask("POST", &url, &headers, chunks.as_bytes()).is_none());
        assert_eq!(repo.bytes("new.txt").unwrap(), b"new");
        assert_eq!(repo.commits()[0], "Write");
        assert_eq!(ask("POST", &url, &headers, chunks.as_bytes()).unwrap().status, 412);
        assert_eq!(ask("POST", &url, &[("Authorization", "Bearer hf_stranger")], &[]).unwrap().status, 403);
        assert_eq!(repo.commits().len(), 4);
    }

    #[test]
    fn base64_is_read_or_refused() {
        for (text, bytes) in
            [("", Some("")), ("YQ==", Some("a")), ("YWI=", Some("ab")), ("YWJj", Some("abc"))]
        {
            assert_eq!(from_base64(text).as_deref(), bytes.map(str::as_bytes), "{text}");
        }
        for text in ["Y", "YR==", "Y*==", "YQ==YQ=="] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }
}
