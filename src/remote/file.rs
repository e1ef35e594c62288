//! A file that lies elsewhere, as it was listed, and the reading of ranges of it: each byte comes once, however often the answer is
//! cut. Does not know where it lies.

use std::{fmt, future::Future, io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use super::{RemoteError, block_on, hub::HubFile, mirror::Mirror, object::ObjectFile};

/// How often an answer may be cut before its first byte, one after another.
const FRUITLESS: u32 = 8;
/// Small files that are asked for at a time.
const TOGETHER: usize = 8;

/// What ranges can be read of.
pub(super) trait Readable {
    /// Its address, for people.
    fn uri(&self) -> &str;
    /// Its size.
    fn bytes(&self) -> u64;
    /// The bytes of `range`, as they come; an answer may end early.
    fn stream(
        &self,
        range: Range<u64>,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Bytes, String>>, RemoteError>> + Send;
}

/// Gives the bytes of `range`, with the place of each piece, to `take`, in order and each once.
pub(super) async fn fetch(
    file: &impl Readable,
    range: Range<u64>,
    take: &mut (dyn FnMut(u64, &[u8]) -> io::Result<()> + Send),
) -> Result<(), RemoteError> {
    let mut at = range.start;
    let mut n_fruitless = 0;
    while at < range.end {
        let (begun, mut problem) = (at, "the answer ended early".to_owned());
        let mut stream = file.stream(at..range.end).await?;
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => {
                    let rest = (range.end - at).min(piece.len() as u64) as usize;
                    take(at, &piece[..rest])
                        .map_err(RemoteError::local(format!("failed to keep bytes of {}", file.uri())))?;
                    at += rest as u64;
                    if at == range.end {
                        break;
                    }
                }
                Err(error) => {
                    problem = error;
                    break;
                }
            }
        }
        if at == range.end {
            break;
        }
        tracing::debug!("{} was cut at byte {at}: {problem}", file.uri());
        n_fruitless = if at > begun { 0 } else { n_fruitless + 1 };
        if n_fruitless == FRUITLESS {
            return Err(RemoteError::Failed(format!(
                "failed to read {} at byte {at}: {problem}",
                file.uri()
            )));
        }
        if n_fruitless > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100 << n_fruitless)).await;
        }
    }
    Ok(())
}

/// A file that lies elsewhere. Two are equal when they have the same address and size.
#[derive(Clone)]
pub struct RemoteFile(Arc<Origin>);

#[derive(Debug)]
enum Origin {
    Object(ObjectFile),
    Hub(HubFile),
}

impl From<ObjectFile> for RemoteFile {
    fn from(file: ObjectFile) -> Self {
        RemoteFile(Arc::new(Origin::Object(file)))
    }
}

impl From<HubFile> for RemoteFile {
    fn from(file: HubFile) -> Self {
        RemoteFile(Arc::new(Origin::Hub(file)))
    }
}

impl fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteFile").field(&self.uri()).finish()
    }
}

impl PartialEq for RemoteFile {
    fn eq(&self, other: &Self) -> bool {
        self.uri() == other.uri() && self.bytes() == other.bytes()
    }
}

impl Eq for RemoteFile {}

impl RemoteFile {
    /// Its address, for people.
    pub fn uri(&self) -> &str {
        match &*self.0 {
            Origin::Object(file) => file.uri(),
            Origin::Hub(file) => file.uri(),
        }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        match &*self.0 {
            Origin::Object(file) => file.bytes(),
            Origin::Hub(file) => file.bytes(),
        }
    }

    pub(super) async fn fetch(
        &self,
        range: Range<u64>,
        take: &mut (dyn FnMut(u64, &[u8]) -> io::Result<()> + Send),
    ) -> Result<(), RemoteError> {
        match &*self.0 {
            Origin::Object(file) => fetch(file, range, take).await,
            Origin::Hub(file) => fetch(file, range, take).await,
        }
    }

    /// All of it, if it has the size that it was listed with.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn read(&self) -> Result<Vec<u8>, RemoteError> {
        let mut content = Vec::with_capacity(self.bytes() as usize);
        block_on(async {
            self.fetch(0..self.bytes(), &mut |_, bytes| {
                content.extend_from_slice(bytes);
                Ok(())
            })
            .await
        })?;
        Ok(content)
    }

    /// All of each of `files`, as [`read`](Self::read), several at a time.
    ///
    /// # Errors
    /// That of the first which fails.
    pub fn read_together(files: &[&RemoteFile]) -> Result<Vec<Vec<u8>>, RemoteError> {
        let read = |file: RemoteFile| async move {
            let mut content = Vec::with_capacity(file.bytes() as usize);
            file.fetch(0..file.bytes(), &mut |_, bytes| {
                content.extend_from_slice(bytes);
                Ok(())
            })
            .await?;
            Ok(content)
        };
        let files: Vec<RemoteFile> = files.iter().map(|file| (*file).clone()).collect();
        block_on(stream::iter(files).map(read).buffered(TOGETHER).try_collect())
    }

    /// A local file of the same size, into which ranges come as they are asked for.
    ///
    /// # Errors
    /// [`RemoteError::Local`].
    pub fn mirror(&self) -> Result<Mirror, RemoteError> {
        Mirror::new(self.clone())
    }

    /// What of it the cache knows, if it was listed on the Hub.
    pub(super) fn hub_file(&self) -> Option<&HubFile> {
        match &*self.0 {
            Origin::Hub(file) => Some(file),
            Origin::Object(_) => None,
        }
    }

    /// What names this version of it, for a place in the cache; `None` where nothing does.
    pub(super) fn version(&self) -> Option<String> {
        match &*self.0 {
            Origin::Object(file) => file.version(),
            Origin::Hub(file) => Some(file.uri().to_owned()),
        }
    }
}
