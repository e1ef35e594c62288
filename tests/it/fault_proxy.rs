//! An HTTP/1.1 proxy before one port of 127.0.0.1 that loses, delays and refuses requests by a seeded schedule, and
//! logs what passed. Changes no byte of what it forwards, so signatures stay good. Knows nothing of S3 but two codes.

use std::{
    collections::HashMap,
    io::{self, BufReader, Write},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::http1::{Answer, Framing, Listener, Request, Wire, copy_body};

/// A request of another thread may be on its way while a 503 is written, on a busy machine for long; only what arrives later ignores it.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// 503 `SlowDown` with `Retry-After`; not forwarded.
    Status503,
    /// 429 with `Retry-After`; not forwarded.
    Status429,
    /// 500 `InternalError`; not forwarded.
    Status500,
    /// 500 `InternalError` after the upstream has done what was asked.
    Status500Done,
    /// 409 `ConditionalRequestConflict`, S3's answer to a race of conditional writes; not forwarded.
    Status409,
    /// Silence for [`Faults::hold`], then closed; not forwarded.
    Timeout,
    /// Reset as soon as the head is read; not forwarded.
    ResetBefore,
    /// The upstream has done what was asked, then closed without an answer.
    LoseAnswer,
    /// Likewise, but reset.
    LoseAnswerReset,
    /// The answer ends within its body, or within its head if there is no body.
    CutBody,
}

impl Fault {
    pub const ALL: [Fault; 10] = [
        Fault::Status503,
        Fault::Status429,
        Fault::Status500,
        Fault::Status500Done,
        Fault::Status409,
        Fault::Timeout,
        Fault::ResetBefore,
        Fault::LoseAnswer,
        Fault::LoseAnswerReset,
        Fault::CutBody,
    ];

    /// Status and code of an answer that the proxy makes up.
    fn answer(self) -> Option<(u16, &'static str)> {
        match self {
            Fault::Status503 => Some((503, "SlowDown")),
            Fault::Status429 => Some((429, "TooManyRequests")),
            Fault::Status500 | Fault::Status500Done => Some((500, "InternalError")),
            Fault::Status409 => Some((409, "ConditionalRequestConflict")),
            Fault::Timeout
            | Fault::ResetBefore
            | Fault::LoseAnswer
            | Fault::LoseAnswerReset
            | Fault::CutBody => None,
        }
    }

    fn forwards(self) -> bool {
        matches!(self, Fault::Status500Done | Fault::LoseAnswer | Fault::LoseAnswerReset | Fault::CutBody)
    }
}

type Matches = Box<dyn Fn(&Request) -> bool + Send>;

/// Which requests go wrong. Whether one does depends on the seed, on method, target and range, and on how often these
/// were asked for before, but not on the order in which threads come: a seed fails the same requests each time.
pub struct Faults {
    pub seed: u64,
    /// Of the requests that `only` lets through, 0 to 1.
    pub fraction: f64,
    /// Each as likely as any other.
    pub kinds: Vec<Fault>,
    pub only: Matches,
    /// Of 503 and 429, in whole seconds.
    pub retry_after_s: u64,
    /// How long a timeout is silent.
    pub hold: Duration,
}

impl Faults {
    pub fn none() -> Self {
        Faults {
            seed: 0,
            fraction: 0.0,
            kinds: Vec::new(),
            only: Box::new(|_| true),
            retry_after_s: 1,
            hold: Duration::from_secs(5),
        }
    }

    fn choose(&self, request: &Request, asked: &str, before: u64) -> Option<Fault> {
        if self.kinds.is_empty() || !(self.only)(request) {
            return None;
        }
        let mut state = self.seed ^ before.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for byte in asked.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        let unit = (mix(state) >> 11) as f64 / (1_u64 << 53) as f64;
        let kind = (mix(state ^ 1) % self.kinds.len() as u64) as usize;
        (unit < self.fraction).then(|| self.kinds[kind])
    }
}

/// A step of SplitMix64.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A request that passed, or did not. Everything but `took` and the bytes of a chunked answer is there before the
/// client sees the end of its answer.
#[derive(Clone, Debug)]
pub struct Entry {
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    pub range: Option<String>,
    /// What the client was answered; `None` if nothing, or not yet.
    pub status: Option<u16>,
    /// What the upstream answered; `None` if it was not asked.
    pub upstream_status: Option<u16>,
    /// Of the body, on the wire.
    pub request_bytes: u64,
    /// Likewise.
    pub response_bytes: u64,
    pub fault: Option<Fault>,
    /// Sent before the time of a `Retry-After` had passed that another request was answered, or this one.
    pub early: bool,
    /// Sent before the time of a `Retry-After` had passed that the same request was answered.
    pub early_repeat: bool,
    /// Since the proxy started.
    pub at: Duration,
    pub took: Duration,
}

/// A 503 or 429 that was answered.
struct Throttled {
    asked: String,
    answered: Instant,
    until: Instant,
}

struct State {
    faults: Faults,
    armed: Vec<(Fault, Matches)>,
    asked: HashMap<String, u64>,
    throttled: Vec<Throttled>,
    log: Vec<Entry>,
}

/// The proxy; it ends when dropped.
pub struct FaultProxy {
    shared: Arc<Shared>,
    listener: Listener,
}

struct Shared {
    upstream: u16,
    started: Instant,
    state: Mutex<State>,
}

/// What becomes of a connection after an exchange.
enum Then {
    Keep,
    Close,
}

impl FaultProxy {
    /// Listens on a free port and forwards to `upstream`, without faults at first.
    pub fn start(upstream: u16) -> Self {
        let state = State {
            faults: Faults::none(),
            armed: Vec::new(),
            asked: HashMap::new(),
            throttled: Vec::new(),
            log: Vec::new(),
        };
        let shared = Arc::new(Shared { upstream, started: Instant::now(), state: Mutex::new(state) });
        let serving = shared.clone();
        // An error is a side that closed its connection; the log tells how far it came.
        let listener = Listener::start(move |client| drop(serving.serve(client)));
        FaultProxy { shared, listener }
    }

    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Replaces the schedule; what [`Self::next`] has armed stays.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.state().faults = faults;
    }

    /// Injects `fault` into exactly one request: the next that `matches`.
    pub fn next(&self, fault: Fault, matches: impl Fn(&Request) -> bool + Send + 'static) {
        self.shared.state().armed.push((fault, Box::new(matches)));
    }

    /// How many faults of [`Self::next`] have not met their request yet.
    pub fn armed(&self) -> usize {
        self.shared.state().armed.len()
    }

    pub fn log(&self) -> Vec<Entry> {
        self.shared.state().log.clone()
    }

    /// Requests that ignored a `Retry-After`.
    pub fn violations(&self) -> usize {
        self.shared.state().log.iter().filter(|entry| entry.early || entry.early_repeat).count()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, mut client: BufReader<Wire>) -> io::Result<()> {
        let mut upstream = None;
        while let Some(request) = Request::read(&mut client)? {
            let arrived = Instant::now();
            let (entry, fault) = self.admit(&request, arrived);
            let then = self.exchange(&mut client, &mut upstream, &request, entry, fault);
            self.note(entry, |entry| entry.took = arrived.elapsed());
            match then? {
                Then::Keep => {}
                Then::Close => break,
            }
        }
        Ok(())
    }

    /// Logs a request and says what goes wrong with it.
    fn admit(&self, request: &Request, arrived: Instant) -> (usize, Option<Fault>) {
        let range = request.headers.get("range").map(str::to_owned);
        let asked = format!("{} {} {}", request.method, request.target, range.as_deref().unwrap_or_default());
        let mut state = self.state();
        let times = state.asked.entry(asked.clone()).or_default();
        let before = *times;
        *times += 1;
        let waiting = || state.throttled.iter().filter(|t| arrived < t.until);
        let early = waiting().any(|t| arrived > t.answered + IN_FLIGHT);
        let early_repeat = waiting().any(|t| t.asked == asked);
        let armed = state.armed.iter().position(|(_, matches)| matches(request));
        let fault = match armed {
            Some(i) => Some(state.armed.remove(i).0),
            None => state.faults.choose(request, &asked, before),
        };
        state.log.push(Entry {
            method: request.method.clone(),
            target: request.target.clone(),
            range,
            status: None,
            upstream_status: None,
            request_bytes: 0,
            response_bytes: 0,
            fault,
            early: early || early_repeat,
            early_repeat,
            at: arrived - self.started,
            took: Duration::ZERO,
        });
        if matches!(fault, Some(Fault::Status503 | Fault::Status429)) {
            let until = arrived + Duration::from_secs(state.faults.retry_after_s);
            state.throttled.push(Throttled { asked, answered: arrived, until });
        }
        (state.log.len() - 1, fault)
    }

    fn note(&self, entry: usize, change: impl FnOnce(&mut Entry)) {
        change(&mut self.state().log[entry]);
    }

    fn exchange(
        &self,
        client: &mut BufReader<Wire>,
        upstream: &mut Option<BufReader<Wire>>,
        request: &Request,
        entry: usize,
        fault: Option<Fault>,
    ) -> io::Result<Then> {
        match fault {
            Some(Fault::ResetBefore) => {
                client.get_ref().reset_on_close()?;
                return Ok(Then::Close);
            }
            Some(Fault::Timeout) => {
                let hold = self.state().faults.hold;
                client.get_ref().hold(hold);
                return Ok(Then::Close);
            }
            _ => {}
        }
        if request.headers.get("expect").is_some() {
            client.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if let Some(fault) = fault
            && !fault.forwards()
        {
            let request_bytes = copy_body(client, request.framing()?, &mut io::sink())?;
            self.note(entry, |entry| entry.request_bytes = request_bytes);
            return self.refuse(client, request, entry, fault);
        }

        let upstream = match upstream {
            Some(upstream) => upstream,
            None => upstream.insert(BufReader::new(client.get_ref().connect(self.upstream)?)),
        };
        upstream.get_mut().write_all(&request.raw)?;
        let request_bytes = copy_body(client, request.framing()?, upstream.get_mut())?;
        self.note(entry, |entry| entry.request_bytes = request_bytes);
        let answer = loop {
            let answer = Answer::read(upstream)?;
            if answer.status >= 200 {
                break answer;
            }
        };
        let framing = answer.framing(&request.method)?;
        self.note(entry, |entry| entry.upstream_status = Some(answer.status));
        match fault {
            None => {
                self.note(entry, |entry| {
                    entry.status = Some(answer.status);
                    if let Framing::Length(bytes) = framing {
                        entry.response_bytes = bytes;
                    }
                });
                client.get_mut().write_all(&answer.raw)?;
                let response_bytes = copy_body(upstream, framing, client.get_mut())?;
                self.note(entry, |entry| entry.response_bytes = response_bytes);
                let closes = request.closes() || answer.closes() || framing == Framing::UntilClose;
                Ok(if closes { Then::Close } else { Then::Keep })
            }
            Some(Fault::CutBody) => {
                let mut body = Vec::new();
                copy_body(upstream, framing, &mut body)?;
                self.note(entry, |entry| {
                    entry.status = Some(answer.status);
                    entry.response_bytes = body.len() as u64 / 2;
                });
                if body.is_empty() {
                    client.get_mut().write_all(&answer.raw[..answer.raw.len() / 2])?;
                } else {
                    client.get_mut().write_all(&answer.raw)?;
                    client.get_mut().write_all(&body[..body.len() / 2])?;
                }
                Ok(Then::Close)
            }
            Some(fault) => {
                copy_body(upstream, framing, &mut io::sink())?;
                if fault == Fault::Status500Done {
                    return self.refuse(client, request, entry, fault);
                }
                if fault == Fault::LoseAnswerReset {
                    client.get_ref().reset_on_close()?;
                }
                Ok(Then::Close)
            }
        }
    }

    /// Answers with an error of the proxy's own, its request read whole, and keeps the connection.
    fn refuse(
        &self,
        client: &mut BufReader<Wire>,
        request: &Request,
        entry: usize,
        fault: Fault,
    ) -> io::Result<Then> {
        let (status, code) = fault.answer().unwrap();
        let wait = match fault {
            Fault::Status503 | Fault::Status429 => {
                format!("Retry-After: {}\r\n", self.state().faults.retry_after_s)
            }
            _ => String::new(),
        };
        let mut body =
            format!("<Error><Code>{code}</Code><Message>injected by the test's proxy</Message></Error>");
        let head = format!(
            "HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n{wait}Content-Length: {}\r\n\r\n",
            body.len(),
        );
        if request.method == "HEAD" {
            body.clear();
        }
        self.note(entry, |entry| {
            entry.status = Some(status);
            entry.response_bytes = body.len() as u64;
        });
        client.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        Ok(if request.closes() { Then::Close } else { Then::Keep })
    }
}
