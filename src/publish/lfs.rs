//! Files in; their content at the store of the repository's LFS out. Knows nothing of commits: what is sent and never committed is
//! seen by nobody, and need not be sent again.
//!
//! Protocol: <https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>, and the Hub's own `multipart` for large files, whose parts'
//! addresses come as headers named by their numbers, with their size as `chunk_size`.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use indicatif::ProgressBar;
use reqwest::{
    Url,
    blocking::{Body, RequestBuilder},
    header::{ACCEPT, CONTENT_TYPE, ETAG},
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    PushError,
    hub::{Hub, Reply},
    package::Item,
    setback::{Patience, Setback},
};

/// What the store wants for one object.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Actions {
    /// Absent when it has the object.
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Clone, Debug, Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

/// Why a part was not taken.
enum Refusal {
    /// Its address is no longer good.
    Expired(Setback),
    Final(PushError),
}

impl From<PushError> for Refusal {
    fn from(error: PushError) -> Refusal {
        Refusal::Final(error)
    }
}

/// Addresses that may expire while one file is sent.
const RENEWALS: u32 = 5;
const LFS: &str = "application/vnd.git-lfs+json";

/// Asks where `items` go; by SHA-256.
pub(super) fn actions(hub: &Hub, items: &[&Item]) -> Result<BTreeMap<String, Actions>, PushError> {
    #[derive(Deserialize)]
    struct Problem {
        code: u16,
        message: String,
    }
    #[derive(Deserialize)]
    struct Answered {
        oid: String,
        #[serde(default)]
        actions: Actions,
        error: Option<Problem>,
    }
    #[derive(Deserialize)]
    struct Batch {
        transfer: Option<String>,
        objects: Vec<Answered>,
    }
    if items.is_empty() {
        return Ok(BTreeMap::new());
    }
    let what = format!("ask where {} takes files", hub.target);
    let objects: Vec<(&str, u64)> = items.iter().map(|item| (item.sha256.as_str(), item.bytes)).collect();
    let batch: Batch = hub.read(&what, &hub.lfs_batch(&objects)?)?;
    if let Some(other) = batch.transfer.filter(|name| !["basic", "multipart"].contains(&name.as_str())) {
        return Err(
            hub.nonsense(&what, format!("that files are to be sent by {other:?}, which was not offered"))
        );
    }
    let mut all = BTreeMap::new();
    for answered in batch.objects {
        if let Some(Problem { code, message }) = answered.error {
            let item = items.iter().find(|item| item.sha256 == answered.oid);
            let file = item.map_or(answered.oid.as_str(), |item| item.path.as_str());
            return Err(hub.nonsense(&what, format!("{code} for {file}: {message}")));
        }
        all.insert(answered.oid, answered.actions);
    }
    match items.iter().find(|item| !all.contains_key(&item.sha256)) {
        Some(item) => Err(hub.nonsense(&what, format!("without a word on {}", item.path))),
        None => Ok(all),
    }
}

/// Sends one file, unless the store has it; `bar` counts the bytes.
pub(super) fn send(hub: &Hub, item: &Item, actions: &Actions, bar: &ProgressBar) -> Result<(), PushError> {
    let mut actions = actions.clone();
    let mut renewals = 0;
    loop {
        let Some(upload) = &actions.upload else {
            bar.inc(item.bytes);
            return Ok(());
        };
        match send_to(hub, item, upload, bar) {
            Ok(()) => return verify(hub, item, actions.verify.as_ref()),
            Err(Refusal::Final(error)) => return Err(error),
            Err(Refusal::Expired(setback)) if renewals == RENEWALS => {
                let what = format!("send {}", item.path);
                return Err(PushError::Interrupted { what, problem: setback.what() });
            }
            Err(Refusal::Expired(_)) => renewals += 1,
        }
        actions = self::actions(hub, &[item])?.remove(&item.sha256).unwrap_or_default();
    }
}

fn send_to(hub: &Hub, item: &Item, upload: &Action, bar: &ProgressBar) -> Result<(), Refusal> {
    let mut sending = Sending { item, offset: 0, sum: Sha256::new(), bar };
    let result = send_content(hub, &mut sending, upload);
    if result.is_err() {
        bar.dec(sending.offset);
    }
    result
}

/// Sends a file whole, or in the parts that the store wants.
fn send_content(hub: &Hub, sending: &mut Sending, upload: &Action) -> Result<(), Refusal> {
    let item = sending.item;
    let what = format!("send {}", item.path);
    let Some(part_bytes) = upload.header.get("chunk_size") else {
        let url = hub.url(&upload.href, &what)?;
        sending.part(hub, &url, item.bytes, &upload.header)?;
        return Ok(sending.check()?);
    };
    let part_bytes: u64 = part_bytes
        .parse()
        .ok()
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| hub.nonsense(&what, format!("that its parts have {part_bytes:?} bytes")))?;
    let numbered = upload.header.iter().filter_map(|(name, url)| Some((name.parse::<u64>().ok()?, url)));
    let parts: BTreeMap<u64, &String> = numbered.collect();
    let n_parts = item.bytes.div_ceil(part_bytes);
    if !parts.keys().copied().eq(1..=n_parts) {
        let problem = format!("with {} addresses for {n_parts} parts", parts.len());
        return Err(hub.nonsense(&what, problem).into());
    }
    let mut done = Vec::new();
    for (number, address) in parts {
        let bytes = part_bytes.min(item.bytes - sending.offset);
        let reply = sending.part(hub, &hub.url(address, &what)?, bytes, &BTreeMap::new())?;
        let Some(etag) = reply.headers.get(ETAG).and_then(|etag| etag.to_str().ok()) else {
            return Err(hub.nonsense(&what, format!("without a tag for part {number}")).into());
        };
        done.push(json!({ "partNumber": number, "etag": etag }));
    }
    sending.check()?;
    let url = hub.url(&upload.href, &what)?;
    let body = json!({ "oid": item.sha256, "parts": done }).to_string();
    hub.ask(&what, |client| {
        client.post(url.clone()).header(ACCEPT, LFS).header(CONTENT_TYPE, LFS).body(body.clone())
    })?;
    Ok(())
}

fn verify(hub: &Hub, item: &Item, verify: Option<&Action>) -> Result<(), PushError> {
    let Some(action) = verify else { return Ok(()) };
    let what = format!("ask whether {} arrived", item.path);
    let url = hub.url(&action.href, &what)?;
    let body = json!({ "oid": item.sha256, "size": item.bytes }).to_string();
    hub.ask(&what, |client| {
        let request =
            client.post(url.clone()).header(ACCEPT, LFS).header(CONTENT_TYPE, LFS).body(body.clone());
        with_headers(request, &action.header)
    })?;
    Ok(())
}

fn with_headers(request: RequestBuilder, headers: &BTreeMap<String, String>) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// A file on its way, from its beginning to its end.
struct Sending<'a> {
    item: &'a Item,
    /// Bytes that arrived.
    offset: u64,
    /// Of these bytes.
    sum: Sha256,
    bar: &'a ProgressBar,
}

impl Sending<'_> {
    /// Sends the next `bytes`, again where that may help.
    fn part(
        &mut self,
        hub: &Hub,
        url: &Url,
        bytes: u64,
        headers: &BTreeMap<String, String>,
    ) -> Result<Reply, Refusal> {
        let mut patience = Patience::new();
        loop {
            let sum = Arc::new(Mutex::new(self.sum.clone()));
            let mut content = self.item.open()?;
            content.seek(SeekFrom::Start(self.offset)).map_err(|error| self.item.unread(error))?;
            let sent = Arc::new(AtomicU64::new(0));
            let bar = self.bar.clone();
            let counted = Counted { content: content.take(bytes), sum: sum.clone(), sent: sent.clone(), bar };
            let request = with_headers(hub.put(url, bytes), headers).body(Body::sized(counted, bytes));
            let setback = match hub.send(url, request) {
                Ok(reply) => {
                    self.offset += bytes;
                    self.sum = sum.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    return Ok(reply);
                }
                Err(setback) => setback,
            };
            let sent = sent.load(Ordering::Relaxed);
            self.bar.dec(sent);
            let sum = sum.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let is_all = self.offset + sent == self.item.bytes;
            if self.item.has_another_size() || (is_all && hex(sum) != self.item.sha256) {
                return Err(self.item.changed().into());
            }
            // As a store answers whose address is signed for some minutes.
            if matches!(setback.status, Some(400 | 401 | 403 | 404)) {
                return Err(Refusal::Expired(setback));
            }
            if !hub.waits(&mut patience, &setback) {
                return Err(hub.failed(&format!("send {}", self.item.path), &setback).into());
            }
        }
    }

    /// What arrived is what was meant.
    fn check(&self) -> Result<(), PushError> {
        if hex(self.sum.clone()) == self.item.sha256 { Ok(()) } else { Err(self.item.changed()) }
    }
}

fn hex(sum: Sha256) -> String {
    format!("{:x}", sum.finalize())
}

/// Content that is counted and summed as it is read.
struct Counted<R> {
    content: R,
    sum: Arc<Mutex<Sha256>>,
    sent: Arc<AtomicU64>,
    bar: ProgressBar,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(buffer)?;
        self.sum.lock().unwrap_or_else(PoisonError::into_inner).update(&buffer[..n]);
        self.sent.fetch_add(n as u64, Ordering::Relaxed);
        self.bar.inc(n as u64);
        Ok(n)
    }
}
