//! Which service an address is of. Parses nothing behind that.

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A path, or `file://`.
    Local,
    /// `s3://`, `gs://` or `az://` (and `abfs://`).
    ObjectStore,
    /// `https://` or `http://`: one file.
    Web,
    /// `hf://`.
    Hub,
}

/// The scheme of `uri`, and what follows it.
///
/// # Errors
/// With what is known, when it is none of those.
pub fn scheme(uri: &str) -> Result<(Scheme, &str), String> {
    match uri.split_once("://") {
        None => Ok((Scheme::Local, uri)),
        Some(("file", path)) => Ok((Scheme::Local, path)),
        Some(("s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss", rest)) => {
            Ok((Scheme::ObjectStore, rest))
        }
        Some(("https" | "http", rest)) => Ok((Scheme::Web, rest)),
        Some(("hf", rest)) => Ok((Scheme::Hub, rest)),
        Some((other, _)) => Err(format!(
            "there is no scheme {other}://; known are a path, file://, s3://, gs://, az://, https:// and hf://"
        )),
    }
}
