//! The environment in; where the Hub is and who asks it out. The token leaves this file in a header only, and in no text.

use std::fmt;

use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};

use super::PushError;
use crate::remote::{Environment, Token};

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
    /// As [`Environment`] finds it.
    pub fn of_environment() -> Result<Account, PushError> {
        let environment = Environment::read().map_err(PushError::Environment)?;
        if environment.is_offline {
            return Err(PushError::Offline);
        }
        match environment.token {
            Some(Token { secret, from }) => {
                Ok(Account { hub: environment.endpoint, origin: from, token: secret })
            }
            None => Err(PushError::NoToken { file: environment.token_file }),
        }
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
