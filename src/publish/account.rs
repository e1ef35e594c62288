//! The environment in; where the Hub is and who asks it out. The token leaves this file in a header only, and in no text.

use std::{env, fmt, fs, path::PathBuf};

use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};

use super::PushError;

const ENDPOINT: &str = "https://huggingface.co";

/// Who pushes, and where to.
#[derive(Clone)]
pub(super) struct Account {
    /// Address of the Hub.
    hub: Url,
    /// Where the token was found.
    pub origin: String,
    token: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("hub", &self.hub).field("origin", &self.origin).finish()
    }
}

impl Account {
    /// As the Hub's own programs find it: `HF_ENDPOINT`, and `HF_TOKEN`, the file `HF_TOKEN_PATH`, or `token` in `HF_HOME`.
    pub fn of_environment() -> Result<Account, PushError> {
        let is_true = |value: &str| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        if variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)) {
            return Err(PushError::Offline);
        }
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let hub = Url::parse(&endpoint).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
        let Some(hub) = hub else {
            return Err(PushError::Environment(format!("HF_ENDPOINT is {endpoint:?}, which is no address")));
        };
        let (token, origin) = token()?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem =
                format!("what {origin} holds is no token: it has spaces or other than plain letters");
            return Err(PushError::Environment(problem));
        }
        Ok(Account { hub, origin, token })
    }

    /// The Hub's address, without a slash at the end.
    pub fn endpoint(&self) -> &str {
        self.hub.as_str().trim_end_matches('/')
    }

    /// An address on the Hub; what is in a segment stays in it, slashes included.
    pub fn address(&self, segments: &[&str]) -> Url {
        let mut url = self.hub.clone();
        // Addresses of the web have segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// For hf-hub, which makes its headers itself.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What tells the Hub who asks. Marked so that no log of the HTTP library shows it.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // Its characters were checked.
        if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", self.token)) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    /// Whether `url` is the Hub's own: nobody else is told the token.
    pub fn may_know(&self, url: &Url) -> bool {
        self.hub.origin() == url.origin()
    }

    /// `text` without the token, should somebody have written it there.
    pub fn without_token(&self, text: &str) -> String {
        text.replace(&self.token, "<token>")
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn token() -> Result<(String, String), PushError> {
    if let Some(token) = variable("HF_TOKEN") {
        return Ok((token, "HF_TOKEN".into()));
    }
    let named = variable("HF_TOKEN_PATH").map(PathBuf::from);
    let file = named.clone().unwrap_or_else(|| hf_hub::hf_home().join("token"));
    match fs::read_to_string(&file) {
        Ok(text) if !text.trim().is_empty() => Ok((text.trim().to_owned(), file.display().to_string())),
        Err(error) if named.is_some() => {
            let problem = format!("HF_TOKEN_PATH names {}, which cannot be read: {error}", file.display());
            Err(PushError::Environment(problem))
        }
        _ => Err(PushError::NoToken { file }),
    }
}
