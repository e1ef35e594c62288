//! What the environment says of the Hub, in the variables that its other tools read, too. Asks nothing of it.

use std::{env, fmt, fs, path::PathBuf, time::Duration};

use crate::remote::{cache::cache_home, http::read_timeout, patience::seconds_of};

const ENDPOINT: &str = "https://huggingface.co";

/// A token, which is never shown.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) secret: String,
    /// Where it was found.
    pub(super) from: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.from)
    }
}

/// The settings.
#[derive(Debug)]
pub(super) struct Environment {
    /// `HF_ENDPOINT`, without a slash at the end.
    pub(super) endpoint: String,
    /// `HF_TOKEN`, or the file that logging in writes.
    pub(super) token: Option<Token>,
    /// `HF_HUB_OFFLINE`.
    pub(super) is_offline: bool,
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub(super) cache: PathBuf,
    /// `HF_HUB_ETAG_TIMEOUT`: for an answer about a file.
    pub(super) metadata_timeout: Duration,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: for the next piece of one.
    pub(super) download_timeout: Duration,
}

impl Environment {
    /// # Errors
    /// When there is no place for the cache.
    pub(super) fn read() -> Result<Environment, String> {
        let home = match path_of("HF_HOME") {
            Some(home) => home,
            None => cache_home()
                .ok_or("there is no folder for the Hub's cache: set HF_HOME or HOME")?
                .join("huggingface"),
        };
        let cache = path_of("HF_HUB_CACHE").or_else(|| path_of("HUGGINGFACE_HUB_CACHE"));
        let endpoint = text_of("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Environment {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { token(&home) },
            is_offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            metadata_timeout: seconds_of("HF_HUB_ETAG_TIMEOUT").unwrap_or_else(read_timeout),
            download_timeout: seconds_of("HF_HUB_DOWNLOAD_TIMEOUT").unwrap_or_else(read_timeout),
        })
    }
}

fn token(home: &std::path::Path) -> Option<Token> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(secret) = text_of(name) {
            return Some(Token { secret, from: name.to_owned() });
        }
    }
    let file = path_of("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
    let secret = fs::read_to_string(&file).ok()?.trim().to_owned();
    (!secret.is_empty()).then(|| Token { secret, from: file.display().to_string() })
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
