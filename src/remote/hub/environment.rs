//! What the environment says of the Hub, in the variables that its other tools read, too. Asks nothing of it.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

use crate::remote::{cache::cache_home, http::read_timeout, patience::seconds_of};

const ENDPOINT: &str = "https://huggingface.co";

/// A token, which is never shown.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) secret: String,
    /// Where it was found.
    pub(crate) from: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.from)
    }
}

/// The settings.
#[derive(Debug)]
pub(crate) struct Environment {
    /// `HF_ENDPOINT`.
    pub(crate) endpoint: Url,
    /// `HF_TOKEN`, or the file that logging in writes.
    pub(crate) token: Option<Token>,
    /// Where a token is looked for that is written in no variable: `HF_TOKEN_PATH`, or `token` in `HF_HOME`.
    pub(crate) token_file: PathBuf,
    /// `HF_HUB_OFFLINE`.
    pub(crate) is_offline: bool,
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub(crate) cache: PathBuf,
    /// `HF_HUB_ETAG_TIMEOUT`: for an answer about a file.
    pub(crate) metadata_timeout: Duration,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: for the next piece of one.
    pub(crate) download_timeout: Duration,
}

impl Environment {
    /// # Errors
    /// When there is no place for the cache, no such address, or no such token.
    pub(crate) fn read() -> Result<Environment, String> {
        let home = match path_of("HF_HOME") {
            Some(home) => home,
            None => cache_home()
                .ok_or("there is no folder for the Hub's cache: set HF_HOME or HOME")?
                .join("huggingface"),
        };
        let named = path_of("HF_TOKEN_PATH");
        let token_file = named.clone().unwrap_or_else(|| home.join("token"));
        let cache = path_of("HF_HUB_CACHE").or_else(|| path_of("HUGGINGFACE_HUB_CACHE"));
        let written = text_of("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = Url::parse(&written)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| format!("HF_ENDPOINT = {written:?} is no address of a Hub"))?;
        Ok(Environment {
            endpoint,
            token: if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                None
            } else {
                token(&token_file, named.is_some())?
            },
            token_file,
            is_offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            metadata_timeout: seconds_of("HF_HUB_ETAG_TIMEOUT").unwrap_or_else(read_timeout),
            download_timeout: seconds_of("HF_HUB_DOWNLOAD_TIMEOUT").unwrap_or_else(read_timeout),
        })
    }
}

/// The token in the environment, or in `file`, which must be there if it `is_named`.
fn token(file: &Path, is_named: bool) -> Result<Option<Token>, String> {
    let written = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
    let written = written.iter().find_map(|name| Some(((*name).to_owned(), text_of(name)?)));
    let (from, secret) = match written {
        Some(written) => written,
        None => match fs::read_to_string(file) {
            Ok(text) => (file.display().to_string(), text.trim().to_owned()),
            // Who names a file means one that is there.
            Err(error) if is_named => {
                return Err(format!("HF_TOKEN_PATH names {}, which cannot be read: {error}", file.display()));
            }
            Err(_) => return Ok(None),
        },
    };
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("what {from} holds is no token: it has spaces or other than plain letters"));
    }
    Ok((!secret.is_empty()).then_some(Token { secret, from }))
}

fn text_of(name: &str) -> Option<String> {
    env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn path_of(name: &str) -> Option<PathBuf> {
    let path = env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)?;
    let below_home = path.strip_prefix("~").ok().zip(env::var_os("HOME"));
    Some(below_home.map_or(path.clone(), |(rest, home)| PathBuf::from(home).join(rest)))
}

fn is_set(name: &str) -> bool {
    text_of(name).is_some_and(|text| matches!(text.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
}
