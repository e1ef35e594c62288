//! What became of a request that was not answered as hoped in; whether to try again, and after how long, out. Knows nothing of what
//! was asked.

use std::{error::Error, time::Duration};

use hf_hub::HFError;
use reqwest::blocking::Response;
use serde_json::Value;

use crate::remote::told_wait;

/// Why there is no answer, or no good one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setback {
    /// `None` when there was no answer.
    pub status: Option<u16>,
    /// By which the Hub tells errors of one status apart.
    pub code: String,
    /// The other side's words, or the system's.
    pub message: String,
    /// How long the other side said to wait.
    wait: Option<Duration>,
}

/// Tries left, and time.
pub(super) struct Patience {
    next_wait: Duration,
    tries: u32,
    waited: Duration,
}

/// Of a request that was answered by nobody.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The Hub counts requests in windows of five minutes; one that says to wait for longer is left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(330);
/// All waits for one request; a limit that lasts longer is a matter for another time.
const LONGEST_WAITS: Duration = Duration::from_secs(900);
/// After 429 without a word on how long.
const BUSY_WAIT: Duration = Duration::from_secs(10);

impl Setback {
    /// Of an answer that is no success.
    pub fn of_response(response: Response) -> Setback {
        let status = response.status().as_u16();
        let wait = told_wait(response.headers());
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let code = header("x-error-code").unwrap_or_default();
        let message = header("x-error-message");
        let message = message.or_else(|| error_of(&response.text().ok()?)).unwrap_or_default();
        Setback { status: Some(status), code, message, wait }
    }

    /// Of a request that got no answer. Without the address, which may hold a signature.
    pub fn of_network(error: reqwest::Error) -> Setback {
        Setback { status: None, code: String::new(), message: innermost(&error.without_url()), wait: None }
    }

    /// Of an answer that cannot be read.
    pub fn of_answer(error: &dyn Error) -> Setback {
        let message = format!("an answer without sense: {error}");
        Setback { status: None, code: String::new(), message, wait: None }
    }

    /// Of a question that hf-hub asked; `None` when it could not read the answer.
    pub fn of_hub(error: HFError) -> Result<Setback, String> {
        let (context, wait) = match error {
            HFError::Request { source, .. } if source.is_decode() => return Err(innermost(&source)),
            HFError::Request { source, .. } => return Ok(Setback::of_network(source)),
            HFError::RateLimited { retry_after, context } => (Some(context), retry_after),
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Conflict { context }
            | HFError::Http { context } => (Some(context), None),
            HFError::RepoNotFound { context, .. }
            | HFError::RevisionNotFound { context, .. }
            | HFError::EntryNotFound { context, .. } => (context, None),
            other => return Err(other.to_string()),
        };
        let Some(context) = context else { return Err("that there is no such thing".into()) };
        Ok(Setback {
            status: Some(context.status.as_u16()),
            code: context.error_code.unwrap_or_default(),
            message: context.server_message.unwrap_or_default(),
            wait,
        })
    }

    /// Whether the same request may be answered later.
    pub fn may_pass(&self) -> bool {
        matches!(self.status, None | Some(408 | 429 | 500 | 502 | 503 | 504))
    }

    /// Whether the Hub has had enough of all requests, not of this one.
    pub fn is_limit(&self) -> bool {
        self.status == Some(429)
    }

    /// For people.
    pub fn what(&self) -> String {
        match (self.status, self.message.as_str()) {
            (None, message) => message.to_owned(),
            (Some(429), _) => "the Hub has had too many requests".to_owned(),
            (Some(status), "") => status.to_string(),
            (Some(status), message) => format!("{status}: {message}"),
        }
    }
}

impl Patience {
    pub fn new() -> Patience {
        Patience { next_wait: FIRST_WAIT, tries: TRIES, waited: Duration::ZERO }
    }

    /// How long to wait after `setback`; `None` when it is of no use to try again.
    pub fn wait(&mut self, setback: &Setback) -> Option<Duration> {
        if !setback.may_pass() {
            return None;
        }
        let is_busy = setback.is_limit();
        let wait = match setback.wait {
            Some(told) => told,
            None if is_busy => BUSY_WAIT.max(self.next_wait),
            None => self.next_wait,
        };
        self.next_wait *= 2;
        if !is_busy {
            self.tries = self.tries.checked_sub(1).filter(|left| *left > 0)?;
        }
        self.waited += wait;
        (wait <= LONGEST_WAIT && self.waited <= LONGEST_WAITS).then_some(wait)
    }
}

fn error_of(body: &str) -> Option<String> {
    let value: Value = serde_json::from_str(body).ok()?;
    Some(value.get("error")?.as_str()?.to_owned())
}

/// What lies at the bottom of an error; what is above only says that a request failed.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setback(status: Option<u16>, wait: Option<u64>) -> Setback {
        let wait = wait.map(Duration::from_secs);
        Setback { status, code: String::new(), message: String::new(), wait }
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_forever() {
        let mut patience = Patience::new();
        let waits: Vec<_> = (0..TRIES).map_while(|_| patience.wait(&setback(None, None))).collect();
        assert_eq!(waits, [500, 1000, 2000].map(Duration::from_millis));
        for status in [400, 401, 403, 404, 409, 412, 422] {
            assert_eq!(Patience::new().wait(&setback(Some(status), Some(1))), None, "{status}");
        }
    }

    #[test]
    fn a_limit_is_waited_for_as_told_within_minutes() {
        let mut patience = Patience::new();
        assert_eq!(patience.wait(&setback(Some(429), Some(300))), Some(Duration::from_secs(300)));
        assert_eq!(patience.wait(&setback(Some(429), None)), Some(BUSY_WAIT));
        assert_eq!(patience.wait(&setback(Some(429), Some(3600))), None);
        let mut patience = Patience::new();
        let n_waits = (0..100).map_while(|_| patience.wait(&setback(Some(429), Some(300)))).count();
        assert_eq!(n_waits, 3);
    }
}
