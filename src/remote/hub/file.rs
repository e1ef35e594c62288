//! A file of a repository at one commit: ranges of it, from wherever the Hub says that its bytes are.

use std::{
    fmt,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE},
};
use object_store::client::HttpResponse;
use url::Url;

use super::{
    address::Repository,
    api::{Hub, RepositoryEntry},
};
use crate::remote::{RemoteError, file::Readable, store::with_causes};

/// Redirects, and addresses that no longer hold, of one request.
const HOPS: u32 = 8;

/// A file of a repository at one commit.
pub(in crate::remote) struct HubFile {
    pub(super) hub: &'static Hub,
    pub(super) repository: Repository,
    pub(super) commit: String,
    pub(super) entry: RepositoryEntry,
    uri: String,
    /// Where its bytes are, as the Hub last said: good for many ranges, but not for ever.
    place: Mutex<Option<Url>>,
}

impl fmt::Debug for HubFile {
    // Its place is a secret for as long as it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HubFile").field(&self.uri).finish()
    }
}

impl HubFile {
    pub(super) fn new(
        hub: &'static Hub,
        repository: Repository,
        commit: String,
        entry: RepositoryEntry,
    ) -> Self {
        let uri = format!("hf://{}{}@{commit}/{}", repository.prefix(), repository.id, entry.path);
        HubFile { hub, repository, commit, entry, uri, place: Mutex::default() }
    }

    fn place(&self) -> Option<Url> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_place(&self, place: Option<Url>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Its address on the Hub.
    fn page(&self) -> Url {
        let prefix = self.repository.prefix().trim_end_matches('/');
        let parts =
            [prefix].into_iter().chain(self.repository.id.split('/')).chain(["resolve", &self.commit]);
        self.hub.url(parts.chain(self.entry.path.split('/')))
    }

    /// An answer that has bytes, from wherever they are.
    async fn answer(&self, range: &Range<u64>) -> Result<HttpResponse, RemoteError> {
        let mut url = self.place().unwrap_or_else(|| self.page());
        let mut was_refused = false;
        for _ in 0..HOPS {
            let answer = self.hub.send(Method::GET, &url, Some(range.clone()), None).await?;
            let status = answer.status();
            if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
                return Ok(answer);
            }
            if status.is_redirection() {
                url = self.hub.redirected(&url, answer.headers(), &self.repository)?;
                if !self.hub.is_own(&url) {
                    self.set_place(Some(url.clone()));
                }
                continue;
            }
            // A place that was good for a while: the Hub knows a new one.
            if !self.hub.is_own(&url)
                && status.is_client_error()
                && status != StatusCode::RANGE_NOT_SATISFIABLE
            {
                self.set_place(None);
                if was_refused {
                    return Err(RemoteError::Refused(format!(
                        "failed to read {}: {} answers {status} to it, also at a new address",
                        self.uri,
                        url.host_str().unwrap_or_default()
                    )));
                }
                was_refused = true;
                url = self.page();
                continue;
            }
            return Err(self.hub.refusal(&self.repository, Some(&self.entry.path), status, answer.headers()));
        }
        Err(RemoteError::Failed(format!("failed to read {}: it was sent from place to place", self.uri)))
    }
}

impl Readable for HubFile {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn bytes(&self) -> u64 {
        self.entry.bytes
    }

    async fn stream(
        &self,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, String>>, RemoteError> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        if self.hub.is_offline() {
            return Err(RemoteError::Refused(format!(
                "{}: HF_HUB_OFFLINE is set, and it is not in the cache",
                self.uri
            )));
        }
        let answer = self.answer(&range).await?;
        let status = answer.status();
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let changed = |found: String| {
            RemoteError::Failed(format!(
                "failed to read {}: {found} came for bytes {} to {}",
                self.uri, range.start, range.end
            ))
        };
        let mut skipped = 0;
        if status == StatusCode::PARTIAL_CONTENT {
            let content_range = header(CONTENT_RANGE).unwrap_or_default().to_owned();
            let expected = format!("bytes {}-{}/{}", range.start, range.end - 1, self.entry.bytes);
            if content_range != expected {
                return Err(changed(format!("{content_range:?}")));
            }
        } else {
            // Small files come whole.
            if header(CONTENT_LENGTH).is_some_and(|length| length != self.entry.bytes.to_string()) {
                return Err(changed(format!(
                    "a file of {} bytes",
                    header(CONTENT_LENGTH).unwrap_or_default()
                )));
            }
            skipped = range.start;
        }
        let pieces = answer.into_body().bytes_stream().map_err(|error| with_causes(&error));
        let pieces = pieces.map(move |piece| {
            piece.map(|mut piece: Bytes| {
                let cut = skipped.min(piece.len() as u64);
                skipped -= cut;
                piece.split_off(cut as usize)
            })
        });
        Ok(pieces.boxed())
    }
}
