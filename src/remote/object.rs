//! Files of a source that lie in object stores, on web servers or on the Hub: found below an address, and read in ranges.

use std::{collections::BTreeSet, fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};

use super::{
    Found, Listing, Pins, Reach, RemoteError, Scheme, block_on,
    file::Readable,
    hub, scheme,
    store::{explain, open, with_causes},
};

/// The file at `uri`, or the files in or below it, as `reach` says. Revisions of the Hub are those of `pins`, or else resolved and pinned there.
///
/// # Errors
/// [`RemoteError::Refused`] when there is neither; [`RemoteError::Failed`].
pub fn list(uri: &str, reach: Reach, pins: &mut Pins) -> Result<Listing, RemoteError> {
    match scheme(uri).map_err(RemoteError::Refused)? {
        (Scheme::Hub, _) => hub::list(uri, reach, pins),
        (Scheme::Web, _) => {
            let (store, path) = open(uri)?;
            let meta = block_on(async {
                store.head(&path).await.map_err(|error| explain(&format!("failed to open {uri}"), uri, error))
            })?;
            Ok(single(ObjectFile::new(store, uri.to_owned(), meta)))
        }
        _ => {
            let (store, path) = open(uri)?;
            block_on(objects(store, path, uri.trim_end_matches('/'), !uri.ends_with('/'), reach))
        }
    }
}

fn single(file: ObjectFile) -> Listing {
    let name = file.meta.location.filename().unwrap_or_default().to_owned();
    Listing { files: vec![Found { name, file: file.into() }], is_file: true }
}

async fn objects(
    store: Arc<dyn ObjectStore>,
    path: Path,
    uri: &str,
    may_be_file: bool,
    reach: Reach,
) -> Result<Listing, RemoteError> {
    if may_be_file && path.parts().next().is_some() {
        match store.head(&path).await {
            Ok(meta) => return Ok(single(ObjectFile::new(store, uri.to_owned(), meta))),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(explain(&format!("failed to open {uri}"), uri, error)),
        }
    }
    let listed: object_store::Result<Vec<ObjectMeta>> = match reach {
        Reach::Below => store.list(Some(&path)).try_collect().await,
        Reach::Here => store.list_with_delimiter(Some(&path)).await.map(|listed| listed.objects),
    };
    let listed = listed.map_err(|error| explain(&format!("failed to list {uri}"), uri, error))?;
    let mut files = Vec::with_capacity(listed.len());
    for meta in listed {
        let Some(parts) = meta.location.prefix_match(&path) else { continue };
        let parts: Vec<_> = parts.collect();
        let name = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
        if name.is_empty() {
            continue;
        }
        files
            .push(Found { file: ObjectFile::new(store.clone(), format!("{uri}/{name}"), meta).into(), name });
    }
    drop_folder_markers(&mut files);
    if files.is_empty() {
        return Err(RemoteError::Refused(format!("{uri}: there is no such object, and none below it")));
    }
    Ok(Listing { files, is_file: false })
}

/// Some tools put an empty object where they show a folder.
fn drop_folder_markers(files: &mut Vec<Found>) {
    let mut folders = BTreeSet::new();
    for found in files.iter() {
        folders.extend(found.name.match_indices('/').map(|(at, _)| found.name[..at].to_owned()));
    }
    files.retain(|found| found.file.bytes() > 0 || !folders.contains(&found.name));
}

/// An object as it was listed.
#[derive(Clone)]
pub(super) struct ObjectFile {
    store: Arc<dyn ObjectStore>,
    uri: String,
    meta: ObjectMeta,
    /// What names this version of it, where the store does.
    pub(super) etag: Option<String>,
}

impl fmt::Debug for ObjectFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectFile").field(&self.uri).finish()
    }
}

impl ObjectFile {
    pub(super) fn new(store: Arc<dyn ObjectStore>, uri: String, meta: ObjectMeta) -> Self {
        // A weak one does not promise the same bytes, and no store takes it for a condition.
        let etag = meta.e_tag.clone().filter(|etag| !etag.starts_with("W/"));
        ObjectFile { store, uri, etag, meta }
    }
}

impl ObjectFile {
    /// What tells this version from others; `None` where the store says too little.
    pub(super) fn version(&self) -> Option<String> {
        let is_dated = self.meta.last_modified.timestamp() > 0;
        (self.etag.is_some() || is_dated).then(|| {
            let etag = self.etag.as_deref().unwrap_or_default();
            format!("{} {} {etag} {}", self.uri, self.meta.size, self.meta.last_modified)
        })
    }
}

impl Readable for ObjectFile {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn bytes(&self) -> u64 {
        self.meta.size
    }

    async fn stream(
        &self,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, String>>, RemoteError> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: self.etag.clone(),
            ..GetOptions::default()
        };
        let what = format!("failed to read {}", self.uri);
        let answer = self
            .store
            .get_opts(&self.meta.location, options)
            .await
            .map_err(|error| explain(&what, &self.uri, error))?;
        let is_other = self.etag.is_none() && answer.meta.last_modified != self.meta.last_modified;
        if answer.range != range || answer.meta.size != self.meta.size || is_other {
            return Err(RemoteError::Refused(format!(
                "{what}: it changed since it was listed ({} bytes of {}, now {} of {})",
                self.meta.size, self.meta.last_modified, answer.meta.size, answer.meta.last_modified
            )));
        }
        Ok(answer.into_stream().map_err(|error| with_causes(&error)).boxed())
    }
}
