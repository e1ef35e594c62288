//! How long to wait for a service that is busy or away, and who waits: what one request is told, all others to the same service obey.
//! Knows nothing of how requests are sent.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, StatusCode};

/// How long a service may fail before it is given up, unless `BLT_NETWORK_PATIENCE` says otherwise, in seconds.
const PATIENCE: Duration = Duration::from_secs(600);
/// A host that has never answered may not exist: it is given up sooner.
const PATIENCE_WITH_STRANGERS: Duration = Duration::from_secs(20);
/// Nobody is kept from trying for longer, whatever a service says.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How often it is looked whether a service has answered for the first time.
const FIRST_ANSWER: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// A pause is told of when it is longer.
const TOLD_FROM: Duration = Duration::from_secs(2);

/// How long a service may fail before it is given up.
pub(super) fn patience() -> Duration {
    seconds_of("BLT_NETWORK_PATIENCE").unwrap_or(PATIENCE)
}

/// A number of seconds in the environment variable `name`.
pub(super) fn seconds_of(name: &str) -> Option<Duration> {
    let seconds: f64 = std::env::var(name).ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|wait| !wait.is_zero())
}

/// The way to one service, which it opens and closes.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nobody passes before.
    opens: Option<Instant>,
    /// Requests that may be sent before `renewed`, as the service announced.
    left: Option<u64>,
    renewed: Option<Instant>,
    /// The `renewed` that was told of.
    told: Option<Instant>,
    /// Sent and not answered.
    in_flight: u64,
    failing_since: Option<Instant>,
    has_answered: bool,
    /// Whether it tells what is left of a window.
    announces: bool,
    /// Whether a request is on its way to hear that.
    scouts: bool,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Passage<'a> {
    gate: &'a Gate,
    /// Whether others wait for what it hears.
    is_scout: bool,
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.scouts &= !self.is_scout;
    }
}

/// The gate to `service`, the same for all who name it so.
pub(super) fn gate(service: &str) -> Arc<Gate> {
    static GATES: LazyLock<Mutex<HashMap<String, Arc<Gate>>>> = LazyLock::new(Mutex::default);
    let mut gates = GATES.lock().unwrap_or_else(PoisonError::into_inner);
    gates.entry(service.to_owned()).or_default().clone()
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `service` takes requests; tells how long that was.
    pub(super) async fn pass(&self, service: &str) -> (Passage<'_>, Duration) {
        let begun = Instant::now();
        loop {
            let wait = {
                let mut state = self.state();
                match state.admit(Instant::now()) {
                    Ok(is_scout) => return (Passage { gate: self, is_scout }, begun.elapsed()),
                    Err(wait) => {
                        if wait >= TOLD_FROM && state.told != state.renewed {
                            state.told = state.renewed;
                            tracing::info!(
                                "{service} takes no more requests for {:.0} s",
                                wait.as_secs_f64()
                            );
                        }
                        wait
                    }
                }
            };
            tokio::time::sleep(wait + jitter(wait.min(Duration::from_secs(1)))).await;
        }
    }

    /// The service answered well, and with `headers`.
    pub(super) fn succeeded(&self, headers: &HeaderMap) {
        let mut state = self.state();
        state.failing_since = None;
        state.has_answered = true;
        state.announced(headers, Instant::now());
    }

    /// The service is busy, in its own words or ours; tells how long the request has to wait that is tried for the `n`th time, and
    /// whether the service said so.
    pub(super) fn is_busy(
        &self,
        service: &str,
        status: StatusCode,
        headers: &HeaderMap,
        n: u32,
    ) -> (Duration, bool) {
        let now = Instant::now();
        let mut state = self.state();
        state.failing_since.get_or_insert(now);
        state.has_answered = true;
        state.announced(headers, now);
        let asked = retry_after(headers).or_else(|| state.closed_for(now));
        let wait = asked.unwrap_or_else(|| backoff(n));
        // Who is told to wait speaks for all; who only failed does not.
        if asked.is_some() || status == StatusCode::TOO_MANY_REQUESTS {
            let opens = now + wait.min(LONGEST_PAUSE);
            let is_news = state.opens.is_none_or(|known| known + TOLD_FROM < opens);
            state.opens = Some(state.opens.map_or(opens, |known| known.max(opens)));
            if wait >= TOLD_FROM && is_news {
                tracing::warn!("{service} asks to wait {:.0} s ({status})", wait.as_secs_f64());
            }
        }
        (wait, asked.is_some())
    }

    /// No answer came; tells how long to wait before the `n`th try.
    pub(super) fn is_silent(&self, n: u32) -> Duration {
        self.state().failing_since.get_or_insert(Instant::now());
        backoff(n)
    }

    /// Whether there is no hope: a request has tried for `tried`, not counting what the service asked it to wait; nobody's request
    /// was answered well for as long; or the service asks for a `wait` that is longer.
    pub(super) fn is_given_up(&self, tried: Duration, wait: Duration) -> bool {
        let state = self.state();
        let patience = if state.has_answered { patience() } else { patience().min(PATIENCE_WITH_STRANGERS) };
        tried > patience
            || wait > patience
            || state.failing_since.is_some_and(|since| since.elapsed() > patience)
    }
}

impl State {
    /// Lets a request pass and tells whether it is a scout, or how long it has to wait.
    fn admit(&mut self, now: Instant) -> Result<bool, Duration> {
        if let Some(opens) = self.opens.filter(|opens| *opens > now) {
            return Err(opens - now);
        }
        if self.renewed.is_some_and(|renewed| renewed <= now) {
            (self.left, self.renewed) = (None, None);
        }
        if let (Some(0), Some(renewed)) = (self.left, self.renewed) {
            return Err(renewed - now);
        }
        // Who is first in a window hears what the rate is, before the others come.
        let is_scout = !self.has_answered || (self.announces && self.left.is_none());
        if is_scout && self.scouts {
            return Err(FIRST_ANSWER);
        }
        self.scouts |= is_scout;
        self.left = self.left.map(|left| left - 1);
        self.in_flight += 1;
        Ok(is_scout)
    }

    /// Takes in how many requests are left in the service's window.
    fn announced(&mut self, headers: &HeaderMap, now: Instant) {
        let Some((left, window)) = rate_limit(headers) else { return };
        if window > LONGEST_PAUSE {
            return;
        }
        self.announces = true;
        // The answered request is in flight no longer, as far as the service counts; the others it may not have seen.
        let left = left.saturating_sub(self.in_flight.saturating_sub(1));
        let renewed = now + window;
        // Answers overtake each other: within a window less is left each time. Its end is told in whole seconds.
        let same_window = self.renewed.is_some_and(|known| renewed <= known + Duration::from_secs(1));
        self.left = Some(self.left.filter(|_| same_window).map_or(left, |known| known.min(left)));
        self.renewed = Some(renewed);
    }

    fn closed_for(&self, now: Instant) -> Option<Duration> {
        self.renewed.filter(|_| self.left == Some(0)).map(|renewed| renewed.saturating_duration_since(now))
    }
}

/// What is left of the tightest window of `RateLimit: "name";r=LEFT;t=SECONDS, …`.
fn rate_limit(headers: &HeaderMap) -> Option<(u64, Duration)> {
    let values = headers.get_all("ratelimit").iter().filter_map(|value| value.to_str().ok());
    let windows = values.flat_map(|value| value.split(',')).filter_map(|window| {
        let number = |name: &str| {
            let mut parts = window.split(';').map(str::trim);
            parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        Some((number("r")?, Duration::from_secs(number("t")?)))
    });
    windows.min()
}

/// How long an answer says to wait: as `Retry-After`, or until the service's window ends, if nothing is left of it.
#[cfg(feature = "push")]
pub(crate) fn told_wait(headers: &HeaderMap) -> Option<Duration> {
    let window = || rate_limit(headers).filter(|(left, _)| *left == 0).map(|(_, window)| window);
    // Its seconds are whole.
    retry_after(headers).or_else(|| window().map(|wait| wait.saturating_add(Duration::from_secs(1))))
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    let since = Duration::from_secs(u64::try_from(date.timestamp()).ok()?);
    Some((SystemTime::UNIX_EPOCH + since).duration_since(SystemTime::now()).unwrap_or_default())
}

/// Twice as long each time, and never the same for two.
fn backoff(n: u32) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << n.min(10)).min(LONGEST_WAIT);
    wait / 2 + jitter(wait / 2)
}

/// A random part of `most`.
fn jitter(most: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_window_is_read_whatever_else_is_announced() {
        for (value, expected) in [
            ("\"resolvers\";r=12;t=250", Some((12, 250))),
            ("\"api\";r=900;t=7, \"resolvers\";r=0;t=31", Some((0, 31))),
            ("limit=100, remaining=3", None),
            ("\"api\";r=x;t=7", None),
        ] {
            let expected = expected.map(|(left, t)| (left, Duration::from_secs(t)));
            assert_eq!(rate_limit(&headers(&[("ratelimit", value)])), expected, "{value}");
        }
    }

    #[test]
    fn waiting_is_asked_for_in_seconds_or_by_date() {
        let wait = |value| retry_after(&headers(&[("retry-after", value)]));
        assert_eq!(wait("37"), Some(Duration::from_secs(37)));
        assert_eq!(wait("Tue, 01 Jan 2019 00:00:00 GMT"), Some(Duration::ZERO));
        assert!(wait("Wed, 01 Jan 2200 00:00:00 GMT") > Some(Duration::from_secs(1_000_000)));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn what_is_announced_is_not_exceeded_by_requests_in_flight() {
        let now = Instant::now();
        let mut state = State { has_answered: true, ..State::default() };
        for _ in 0..4 {
            state.admit(now).unwrap();
        }
        // The first of four is answered: five are left, of which three are on their way.
        state.announced(&headers(&[("ratelimit", "\"api\";r=5;t=60")]), now);
        assert_eq!((state.admit(now), state.admit(now)), (Ok(false), Ok(false)));
        assert!(state.admit(now).unwrap_err() > Duration::from_secs(59));
        assert_eq!(state.admit(now + Duration::from_secs(60)), Ok(true));
    }

    #[test]
    fn a_service_that_asks_for_days_is_given_up() {
        let gate = Gate::default();
        let busy = |value| {
            gate.is_busy("test", StatusCode::TOO_MANY_REQUESTS, &headers(&[("retry-after", value)]), 0)
        };
        for (value, expected) in [("1", false), ("86400", true), ("18446744073709551615", true)] {
            let (wait, is_asked) = busy(value);
            assert!(is_asked);
            assert_eq!(gate.is_given_up(Duration::ZERO, wait), expected, "{value}");
        }
        // Nobody is kept out for that long.
        assert!(gate.state().admit(Instant::now() + LONGEST_PAUSE + Duration::from_secs(1)).is_ok());
        gate.state()
            .announced(&headers(&[("ratelimit", "\"api\";r=0;t=18446744073709551615")]), Instant::now());
        assert_eq!(gate.state().left, None);
    }

    #[test]
    fn what_a_service_asks_to_wait_is_not_counted_as_failing_of_its_own() {
        let gate = Gate::default();
        gate.succeeded(&HeaderMap::new());
        assert!(!gate.is_given_up(patience() / 2, patience() / 2));
        assert!(gate.is_given_up(patience() + Duration::from_secs(1), Duration::ZERO));
    }

    #[test]
    fn an_answer_that_was_overtaken_gives_nothing_back() {
        let now = Instant::now();
        let mut state = State { has_answered: true, ..State::default() };
        state.admit(now).unwrap();
        state.admit(now).unwrap();
        // The second was counted later, and is heard first.
        state.announced(&headers(&[("ratelimit", "\"api\";r=1;t=60")]), now);
        state.in_flight -= 1;
        state.announced(&headers(&[("ratelimit", "\"api\";r=2;t=60")]), now);
        state.in_flight -= 1;
        assert_eq!(state.left, Some(0));
        // In the next window the first one goes alone again.
        let next = now + Duration::from_secs(60);
        assert_eq!((state.admit(next), state.admit(next)), (Ok(true), Err(FIRST_ANSWER)));
        state.announced(&headers(&[("ratelimit", "\"api\";r=2;t=60")]), next);
        assert_eq!((state.admit(next), state.admit(next)), (Ok(false), Ok(false)));
    }

    #[test]
    fn the_first_request_goes_alone() {
        let now = Instant::now();
        let mut state = State::default();
        assert_eq!((state.admit(now), state.admit(now)), (Ok(true), Err(FIRST_ANSWER)));
        state.has_answered = true;
        assert_eq!(state.admit(now), Ok(false));
    }
}
