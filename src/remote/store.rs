//! A folder in an object store: objects that appear whole or not at all, and one that is made only if it is not there. What is said of
//! an object after a lost answer is what the store then has, never a guess.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    os::unix::fs::FileExt,
    path::Path as LocalPath,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, client::HttpError, gcp::GoogleCloudStorageBuilder,
    http::HttpBuilder, path::Path,
};

use super::{
    Entry, RemoteError, Scheme, block_on,
    file::{Readable, fetch},
    http::{Connector, is_transient},
    object::ObjectFile,
    scheme,
};

/// Larger files are put in parts.
const PART_BYTES: u64 = 8 << 20;
/// S3 takes ten thousand.
const MOST_PARTS: u64 = 9000;
const PARTS_AT_A_TIME: usize = 3;
/// How often a store may say that an object is there and have none, as it does while another puts it.
const CONFLICTS: u32 = 20;

/// A folder in an object store.
#[derive(Clone)]
pub struct Store {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    uri: String,
}

impl fmt::Debug for Store {
    // What it holds may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.uri).finish()
    }
}

impl Store {
    /// The folder that `uri` names, `s3://bucket/folder` and the like; asks nothing yet.
    ///
    /// # Errors
    /// [`RemoteError::Refused`] when it names none, or the environment says nothing sensible of the service.
    pub fn open(uri: &str) -> Result<Store, RemoteError> {
        match scheme(uri) {
            Ok((Scheme::ObjectStore, _)) => {}
            _ => return Err(RemoteError::Refused(format!("{uri} is no folder of an object store"))),
        }
        let (store, folder) = open(uri)?;
        Ok(Store { store, folder, uri: uri.trim_end_matches('/').to_owned() })
    }

    /// Its address, without a slash at the end.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').filter(|part| !part.is_empty()).fold(self.folder.clone(), |path, part| path.join(part))
    }

    fn explain(&self, what: &str, key: &str, error: object_store::Error) -> RemoteError {
        explain(&format!("failed to {what} {}/{key}", self.uri), &self.uri, error)
    }

    /// A whole object; `None` when it is not there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn read(&self, key: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        block_on(self.content(key))
    }

    async fn content(&self, key: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        let answer = match self.store.get(&self.path(key)).await {
            Ok(answer) => answer,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.explain("read", key, error)),
        };
        let file = ObjectFile::new(self.store.clone(), format!("{}/{key}", self.uri), answer.meta.clone());
        if let Ok(content) = answer.bytes().await {
            return Ok(Some(content.into()));
        }
        // It was cut.
        match whole(&file).await {
            // Replaced or removed in between: whatever is there now is the answer.
            Err(RemoteError::Refused(problem)) => match self.find(key).await? {
                Some(now) if now.etag == file.etag => Err(RemoteError::Refused(problem)),
                Some(now) => whole(&now).await.map(Some),
                None => Ok(None),
            },
            content => content.map(Some),
        }
    }

    async fn find(&self, key: &str) -> Result<Option<ObjectFile>, RemoteError> {
        let path = self.path(key);
        match self.store.head(&path).await {
            Ok(meta) => Ok(Some(ObjectFile::new(self.store.clone(), format!("{}/{key}", self.uri), meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.explain("read", key, error)),
        }
    }

    /// Size of an object; `None` when it is not there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn bytes(&self, key: &str) -> Result<Option<u64>, RemoteError> {
        Ok(block_on(self.find(key))?.map(|file| file.bytes()))
    }

    /// Every object below `folder`, however deep, sorted.
    ///
    /// # Errors
    /// [`RemoteError`]; a folder that is not there is empty.
    pub fn list(&self, folder: &str) -> Result<Vec<Entry>, RemoteError> {
        let prefix = self.path(folder);
        let listed = block_on(async {
            let all = self.store.list(Some(&prefix)).try_collect::<Vec<_>>().await;
            all.map_err(|error| self.explain("list", folder, error))
        })?;
        let mut entries: Vec<Entry> = listed
            .into_iter()
            .filter_map(|meta| Some(Entry { key: self.key(&meta.location)?, bytes: meta.size }))
            .collect();
        entries.sort();
        Ok(entries)
    }

    /// What `location` is called below the folder; `None` for the folder's own marker, which some tools make.
    fn key(&self, location: &Path) -> Option<String> {
        let parts: Vec<_> = location.prefix_match(&self.folder)?.collect();
        let names: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        Some(names.join("/")).filter(|key| !key.is_empty())
    }

    /// Names of what is directly in the folder, objects and folders.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn names(&self) -> Result<Vec<String>, RemoteError> {
        let listed = block_on(async {
            let all = self.store.list_with_delimiter(Some(&self.folder)).await;
            all.map_err(|error| self.explain("list", "", error))
        })?;
        let objects = listed.objects.iter().map(|meta| &meta.location);
        Ok(objects.chain(&listed.common_prefixes).filter_map(|location| self.key(location)).collect())
    }

    /// Whether the store keeps the promise that [`create`](Self::create) rests on, tried with an object that is there: it is not
    /// changed, whatever the store does.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn keeps_conditions(&self, key: &str) -> Result<bool, RemoteError> {
        block_on(async {
            let Some(content) = self.content(key).await? else { return Ok(true) };
            match self.store.put_opts(&self.path(key), content.into(), PutMode::Create.into()).await {
                Ok(_) => Ok(false),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    Ok(true)
                }
                Err(error) => Err(self.explain("put", key, error)),
            }
        })
    }

    /// Makes an object of `bytes` unless there is one of that name: true when this call made it, which includes that its answer was
    /// lost and these bytes are found there; false when another one is there.
    ///
    /// # Errors
    /// [`RemoteError::Failed`], too, when it cannot be told whether it was made.
    pub fn create(&self, key: &str, bytes: Vec<u8>) -> Result<bool, RemoteError> {
        let bytes = Bytes::from(bytes);
        block_on(async {
            for _ in 0..CONFLICTS {
                let put =
                    self.store.put_opts(&self.path(key), bytes.clone().into(), PutMode::Create.into()).await;
                let failure = match put {
                    Ok(_) => return Ok(true),
                    Err(
                        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
                    ) => None,
                    Err(error) => match self.explain("put", key, error) {
                        refused @ (RemoteError::Refused(_) | RemoteError::Denied(_)) => return Err(refused),
                        failed => Some(failed),
                    },
                };
                let unknown = |error: &dyn fmt::Display| {
                    RemoteError::Failed(format!(
                        "it is not known whether {}/{key} was put: {error}",
                        self.uri
                    ))
                };
                match (self.content(key).await, failure) {
                    (Ok(Some(there)), _) => return Ok(there == bytes),
                    // Whoever puts it at this moment may fail, and then we may.
                    (Ok(None), None) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                    // The request may arrive yet.
                    (Ok(None), Some(failure)) => return Err(unknown(&failure)),
                    (Err(error), _) => return Err(unknown(&error)),
                }
            }
            Err(RemoteError::Failed(format!(
                "failed to put {}/{key}: the store says that it is there, and has no such object",
                self.uri
            )))
        })
    }

    /// Puts an object of `bytes` in place of what is there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn replace(&self, key: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        block_on(async {
            let put =
                self.store.put_opts(&self.path(key), Bytes::from(bytes).into(), PutOptions::default()).await;
            put.map(|_| ()).map_err(|error| self.explain("put", key, error))
        })
    }

    /// Puts a local file, whole or not at all, in place of what is there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn upload(&self, key: &str, file: &LocalPath) -> Result<(), RemoteError> {
        let failed = |error| RemoteError::Local { what: format!("failed to read {}", file.display()), error };
        let local = Arc::new(File::open(file).map_err(failed)?);
        let bytes = local.metadata().map_err(failed)?.len();
        let part_bytes = PART_BYTES.max(bytes.div_ceil(MOST_PARTS));
        let read = |start: u64| {
            let mut part = vec![0; part_bytes.min(bytes - start) as usize];
            local.read_exact_at(&mut part, start).map(|()| PutPayload::from(part)).map_err(failed)
        };
        let path = self.path(key);
        let explain = |error| self.explain("put", key, error);
        block_on(async {
            if bytes <= part_bytes {
                let put = self.store.put_opts(&path, read(0)?, PutOptions::default()).await;
                return put.map(|_| ()).map_err(explain);
            }
            let mut upload = self.store.put_multipart(&path).await.map_err(explain)?;
            let parts = async {
                let starts = (0..bytes).step_by(part_bytes as usize);
                let mut under_way = stream::iter(starts)
                    .map(|start| {
                        let part = read(start).map(|part| upload.put_part(part));
                        async move { part?.await.map_err(explain) }
                    })
                    .buffered(PARTS_AT_A_TIME);
                while let Some(part) = under_way.next().await {
                    part?;
                }
                Ok(())
            };
            if let Err(error) = parts.await {
                // Parts that stay cost money until the bucket's rules remove them; the error says what matters.
                let _ = upload.abort().await;
                return Err(error);
            }
            match upload.complete().await {
                Ok(_) => Ok(()),
                // An upload whose completion was answered and not heard is gone when it is asked for again.
                Err(error) => match self.find(key).await? {
                    Some(there) if there.bytes() == bytes => Ok(()),
                    _ => Err(explain(error)),
                },
            }
        })
    }

    /// Writes an object to `file`, from its start.
    ///
    /// # Errors
    /// [`RemoteError::Refused`] when it is not there.
    pub fn download(&self, key: &str, file: &mut File) -> Result<(), RemoteError> {
        block_on(async {
            let Some(object) = self.find(key).await? else {
                return Err(RemoteError::Refused(format!("{}/{key} is not there", self.uri)));
            };
            fetch(&object, 0..object.bytes(), &mut |at, bytes| file.write_all_at(bytes, at)).await
        })
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn remove(&self, key: &str) -> Result<(), RemoteError> {
        block_on(async {
            match self.store.delete(&self.path(key)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.explain("remove", key, error)),
            }
        })
    }
}

async fn whole(file: &ObjectFile) -> Result<Vec<u8>, RemoteError> {
    let mut content = Vec::with_capacity(file.bytes() as usize);
    fetch(file, 0..file.bytes(), &mut |_, bytes| {
        content.extend_from_slice(bytes);
        Ok(())
    })
    .await?;
    Ok(content)
}

/// The store of `uri`, the same for all that lie in it, and the place in it.
pub(super) fn open(uri: &str) -> Result<(Arc<dyn ObjectStore>, Path), RemoteError> {
    static STORES: LazyLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> = LazyLock::new(Mutex::default);
    let refused = |problem: String| RemoteError::Refused(format!("{uri}: {problem}"));
    let (name, rest) = uri.split_once("://").ok_or_else(|| refused("it is no address".to_owned()))?;
    let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() {
        return Err(refused(format!("it names no bucket; {name}://BUCKET/FOLDER does")));
    }
    if authority.contains('@') && !name.starts_with("abfs") {
        let host = authority.rsplit('@').next().unwrap_or_default();
        return Err(RemoteError::Refused(format!(
            "{name}://…@{host}: a password in an address is not read, as it would be told in messages"
        )));
    }
    if key.contains(['?', '#']) && matches!(name, "http" | "https") {
        return Err(refused(
            "addresses with `?` or `#` are not read; download the file and name that".to_owned(),
        ));
    }
    let path = match name {
        // Keys of stores are written as they are; paths of web servers as browsers write them.
        "http" | "https" => Path::from_url_path(key),
        _ => Path::parse(key.trim_end_matches('/')),
    };
    let path = path.map_err(|error| refused(error.to_string()))?;
    let place = format!("{name}://{authority}");
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = stores.get(&place) {
        return Ok((store.clone(), path));
    }
    let store = build(name, &place).map_err(|error| refused(format!("{error}; {}", credentials_of(uri))))?;
    stores.insert(place, store.clone());
    Ok((store, path))
}

fn build(scheme: &str, place: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    // The client tries again itself.
    let retry = RetryConfig {
        max_retries: 0,
        backoff: BackoffConfig::default(),
        retry_timeout: super::patience::patience(),
    };
    Ok(match scheme {
        "s3" | "s3a" => Arc::new(
            AmazonS3Builder::from_env()
                .with_url(place)
                .with_http_connector(Connector)
                .with_retry(retry)
                .build()?,
        ),
        "gs" => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(place)
                .with_http_connector(Connector)
                .with_retry(retry)
                .build()?,
        ),
        "http" | "https" => Arc::new(
            HttpBuilder::new().with_url(place).with_http_connector(Connector).with_retry(retry).build()?,
        ),
        _ => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_url(place)
                .with_http_connector(Connector)
                .with_retry(retry)
                .build()?,
        ),
    })
}

/// What `error` means, when `what` was tried with something of the service of `uri`.
pub(super) fn explain(what: &str, uri: &str, error: object_store::Error) -> RemoteError {
    use object_store::Error::{NotFound, PermissionDenied, Precondition, Unauthenticated};
    match error {
        NotFound { .. } => absent(what),
        Precondition { .. } => RemoteError::Refused(format!("{what}: it changed since it was listed")),
        PermissionDenied { .. } | Unauthenticated { .. } => denied(what, uri),
        other => {
            let text = with_causes(&other);
            let never_answered = is_of_network(&other);
            if text.contains("169.254.169.254") || text.contains("metadata.google.internal") {
                return RemoteError::Denied(format!(
                    "{what}: there are no credentials; {}",
                    credentials_of(uri)
                ));
            }
            // S3 says these with 400, or with 200 and an error in the body.
            let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
            if says(&["ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"]) {
                return denied(what, uri);
            }
            if says(&["<Code>InternalError", "<Code>SlowDown"]) {
                return RemoteError::Failed(format!("{what}: {text}"));
            }
            match status_in(&text) {
                Some(StatusCode::NOT_FOUND) => absent(what),
                Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => denied(what, uri),
                // S3 says so of two requests for one object at the same moment.
                Some(StatusCode::CONFLICT) => RemoteError::Failed(format!("{what}: {text}")),
                Some(status) if is_transient(status) => RemoteError::Failed(format!("{what}: {text}")),
                _ if never_answered => RemoteError::Failed(format!("{what}: {text}")),
                _ => RemoteError::Refused(format!("{what}: {text}")),
            }
        }
    }
}

fn absent(what: &str) -> RemoteError {
    RemoteError::Refused(format!("{what}: there is no such object or bucket"))
}

fn denied(what: &str, uri: &str) -> RemoteError {
    RemoteError::Denied(format!("{what}: access is denied; {}", credentials_of(uri)))
}

/// The status that a service answered with, as `object_store` writes it: of listings it tells no more.
fn status_in(text: &str) -> Option<StatusCode> {
    let (_, status) = text.split_once("status code: ")?;
    status.get(..3)?.parse::<u16>().ok().and_then(|status| StatusCode::from_u16(status).ok())
}

fn credentials_of(uri: &str) -> &'static str {
    match uri.split_once("://").map(|(scheme, _)| scheme) {
        Some("s3" | "s3a") => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to those that may (and AWS_REGION, AWS_ENDPOINT_URL), or \
             AWS_SKIP_SIGNATURE=true for a public bucket"
        }
        Some("gs") => {
            "set GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS to a key file that may, or \
             GOOGLE_SKIP_SIGNATURE=true for a public bucket"
        }
        Some("az" | "azure" | "abfs" | "abfss") => {
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_KEY) to those that may"
        }
        _ => "the server asks for a login, which is not supported",
    }
}

fn is_of_network(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<HttpError>().is_some() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error and what led to it, each said once.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
