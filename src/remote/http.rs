//! Requests that are tried again for as long as there is hope. Every service is spoken to this way: what one says of being busy holds
//! for all requests to it. Knows nothing of what is asked.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{StatusCode, Uri, header::HeaderValue};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
        ReqwestConnector,
    },
};

use super::{
    RemoteError,
    patience::{gate, seconds_of},
    store::with_causes,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A request that was tried so often without an answer is told of.
const TOLD_AT: u32 = 3;
const MACHINE_TRIES: u32 = 3;
const MACHINE_WAIT: Duration = Duration::from_secs(1);
const USER_AGENT: &str = concat!("blt-pipeline/", env!("CARGO_PKG_VERSION"));

/// How long an answer, or the next piece of it, may take, unless `BLT_NETWORK_TIMEOUT` says otherwise, in seconds.
pub(super) fn read_timeout() -> Duration {
    seconds_of("BLT_NETWORK_TIMEOUT").unwrap_or(READ_TIMEOUT)
}

/// A request with a body and its answer, all in all.
const LONGEST_SENDING: Duration = Duration::from_secs(900);
/// What is sent arrives at this rate, bytes a second, or the request is tried again.
const SLOWEST_UPLOAD: u64 = 64 << 10;

/// A client that waits and tries again.
#[derive(Debug)]
struct Patient {
    asking: HttpClient,
    /// For requests with a body: the other's patience between two pieces of an answer would count while the body is sent.
    sending: HttpClient,
    read_timeout: Duration,
}

impl Patient {
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let length = request.body().content_length() as u64;
        if length == 0 {
            return self.asking.execute(request).await;
        }
        let limit = self.read_timeout + Duration::from_secs(length / SLOWEST_UPLOAD);
        let answer = tokio::time::timeout(limit, self.sending.execute(request)).await;
        answer.unwrap_or_else(|elapsed| Err(HttpError::new(HttpErrorKind::Timeout, elapsed)))
    }
}

#[async_trait]
impl HttpService for Patient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let service = service(request.uri());
        let Some(name) = service else {
            return self.ask_machine(request).await;
        };
        let gate = gate(&name);
        let (parts, body) = request.into_parts();
        let begun = Instant::now();
        // Waited because the service said so.
        let mut asked = Duration::ZERO;
        let mut n = 0;
        loop {
            let request = HttpRequest::from_parts(parts.clone(), body.clone());
            let (passage, waited) = gate.pass(&name).await;
            asked += waited;
            let answer = self.execute(request).await;
            let (wait, is_asked) = match &answer {
                Ok(response) if !is_transient(response.status()) => {
                    gate.succeeded(response.headers());
                    return answer;
                }
                Ok(response) => gate.is_busy(&name, response.status(), response.headers(), n),
                Err(error) if error.kind() == HttpErrorKind::Decode => return answer,
                Err(_) => (gate.is_silent(n), false),
            };
            drop(passage);
            if gate.is_given_up(begun.elapsed().saturating_sub(asked), wait) {
                return answer;
            }
            if is_asked {
                asked += wait;
            }
            match &answer {
                Ok(response) => tracing::debug!("{name} answered {} to {}", response.status(), parts.method),
                Err(error) if n == TOLD_AT => {
                    tracing::warn!(
                        "{name} does not answer, and is asked again and again: {}",
                        with_causes(error)
                    );
                }
                Err(error) => tracing::debug!("{name} did not answer {}: {error}", parts.method),
            }
            n += 1;
            tokio::time::sleep(wait).await;
        }
    }
}

impl Patient {
    /// Asks for the machine's own credentials: a hiccup is waited for, but who is not in such a cloud shall know soon.
    async fn ask_machine(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        for _ in 1..MACHINE_TRIES {
            let answer = self.execute(HttpRequest::from_parts(parts.clone(), body.clone())).await;
            match &answer {
                Ok(response) if !is_transient(response.status()) => return answer,
                Err(error) if error.kind() == HttpErrorKind::Connect => return answer,
                _ => tokio::time::sleep(MACHINE_WAIT).await,
            }
        }
        self.execute(HttpRequest::from_parts(parts, body)).await
    }
}

/// Whose patience a request to `uri` is on; `None` for the addresses at which a cloud tells a machine its credentials.
fn service(uri: &Uri) -> Option<String> {
    let authority = uri.authority()?.as_str();
    let host = uri.host()?;
    if host.starts_with("169.254.") || host == "metadata.google.internal" || host == "[fd00:ec2::254]" {
        return None;
    }
    // The Hub counts these apart.
    let path = uri.path();
    let part = match (path.starts_with("/api/"), path.contains("/resolve/")) {
        (true, _) => "/api",
        (_, true) => "/resolve",
        _ => "",
    };
    Some(format!("{authority}{part}"))
}

pub(super) fn is_transient(status: StatusCode) -> bool {
    // Not implemented, and no such version of HTTP, are for good.
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504 | 506..)
}

/// A client that follows no redirect, so that a token stays with the host it is for.
pub(super) fn client(read_timeout: Duration) -> Result<HttpClient, RemoteError> {
    let client = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT.min(read_timeout))
        .read_timeout(read_timeout)
        // Several connections carry more than the streams of one.
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| RemoteError::Failed(format!("failed to set up HTTPS: {error}")))?;
    // What is sent this way is small.
    let client = HttpClient::new(client);
    Ok(HttpClient::new(Patient { asking: client.clone(), sending: client, read_timeout }))
}

/// The same for `object_store`, with what its options say of proxies and certificates.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let timeout = read_timeout();
        // An answer of gigabytes may take its time, as long as it goes on. Who names an endpoint with http:// means it.
        let options = options
            .clone()
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .with_user_agent(HeaderValue::from_static(USER_AGENT))
            .with_allow_http(true);
        let connect = |options: ClientOptions| ReqwestConnector::default().connect(&options);
        Ok(HttpClient::new(Patient {
            asking: connect(options.clone().with_read_timeout(timeout))?,
            sending: connect(options.with_timeout(LONGEST_SENDING))?,
            read_timeout: timeout,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_patience_of_its_own() {
        for (uri, expected) in [
            ("https://huggingface.co/api/datasets/a/b/tree/main", Some("huggingface.co/api")),
            ("https://huggingface.co/datasets/a/b/resolve/main/x.parquet", Some("huggingface.co/resolve")),
            ("http://127.0.0.1:9000/bucket/x", Some("127.0.0.1:9000")),
            ("http://169.254.169.254/latest/api/token", None),
        ] {
            assert_eq!(service(&uri.parse().unwrap()).as_deref(), expected, "{uri}");
        }
    }
}
