//! HTTP/1.1 as far as servers of a test need it: connections in, heads and bodies out. Knows no method and no service.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often a silent connection looks whether its server ends.
const TICK: Duration = Duration::from_millis(50);

/// A head above this is refused, so that garbage does not fill the memory.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A port of 127.0.0.1 and a thread for each of its connections. They all end when it is dropped.
pub struct Listener {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on a free port; `serve` has a connection until it returns.
    pub fn start(serve: impl Fn(BufReader<Wire>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let accept = move || {
            thread::scope(|scope| {
                for stream in listener.incoming() {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    // A client may be gone before it was accepted; that is its own matter.
                    let Ok(wire) = stream.and_then(|stream| Wire::new(stream, stopped.clone())) else {
                        continue;
                    };
                    scope.spawn(|| serve(BufReader::new(wire)));
                }
            });
        };
        Listener { port, stop, thread: Some(thread::spawn(accept)) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts. If nobody accepts any more, there is nobody to wake.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let ended = self.thread.take().unwrap().join();
        // A panic of a connection fails the test, unless the test already fails.
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

/// A connection whose reads and writes fail once its server ends, instead of waiting for ever.
pub struct Wire {
    stream: TcpStream,
    stop: Arc<AtomicBool>,
}

impl Wire {
    fn new(stream: TcpStream, stop: Arc<AtomicBool>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
        Ok(Wire { stream, stop })
    }

    /// A connection to `port` of 127.0.0.1 that ends with the same server.
    pub fn connect(&self, port: u16) -> io::Result<Wire> {
        Wire::new(TcpStream::connect(("127.0.0.1", port))?, self.stop.clone())
    }

    /// Makes the close of the connection a reset: the other side loses what it has not yet read.
    pub fn reset_on_close(&self) -> io::Result<()> {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Stays silent for `duration`, or until the server ends.
    pub fn hold(&self, duration: Duration) {
        let mut left = duration;
        while !left.is_zero() && !self.stop.load(Ordering::Relaxed) {
            let step = left.min(TICK);
            thread::sleep(step);
            left -= step;
        }
    }

    /// Does `step` again for as long as it only ran out of its time.
    fn patiently(&mut self, mut step: impl FnMut(&mut TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match step(&mut self.stream) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.stop.load(Ordering::Relaxed) {
                        return Err(e);
                    }
                }
                done => return done,
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.read(buffer))
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Names as sent, values without the white space around them.
#[derive(Clone, Debug)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    fn of(parsed: &[httparse::Header]) -> io::Result<Self> {
        let mut headers = Vec::new();
        for header in parsed {
            let value = std::str::from_utf8(header.value).map_err(io::Error::other)?;
            headers.push((header.name.to_owned(), value.trim().to_owned()));
        }
        Ok(Headers(headers))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether `name` lists `token`: `Connection: close`.
    fn lists(&self, name: &str, token: &str) -> bool {
        self.get(name).is_some_and(|value| value.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
    }

    fn framing(&self) -> io::Result<Option<Framing>> {
        if self.lists("transfer-encoding", "chunked") {
            return Ok(Some(Framing::Chunked));
        }
        let length = self.get("content-length").map(str::parse).transpose().map_err(io::Error::other)?;
        Ok(length.map(Framing::Length))
    }
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    pub headers: Headers,
    /// The head, as sent.
    pub raw: Vec<u8>,
}

impl Request {
    /// The next request of a connection; `None` if the client closed it instead.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(raw) = read_head(from)? else { return Ok(None) };
        let mut parsed = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut parsed);
        request.parse(&raw).map_err(io::Error::other)?;
        let method = request.method.unwrap_or_default().to_owned();
        let target = request.path.unwrap_or_default().to_owned();
        let headers = Headers::of(request.headers)?;
        Ok(Some(Request { method, target, headers, raw }))
    }

    /// The path, as sent.
    pub fn raw_path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// The path, decoded.
    pub fn path(&self) -> String {
        decode(self.raw_path())
    }

    /// Names and values of the query, as sent.
    pub fn raw_query(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The value of `name` in the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, value) = self.raw_query().find(|(n, _)| *n == name)?;
        Some(decode(&value.replace('+', " ")))
    }

    pub fn framing(&self) -> io::Result<Framing> {
        Ok(self.headers.framing()?.unwrap_or(Framing::Length(0)))
    }

    pub fn closes(&self) -> bool {
        self.headers.lists("connection", "close")
    }
}

/// The head of an answer.
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    /// The head, as sent.
    pub raw: Vec<u8>,
}

impl Answer {
    /// The answer to a request that was sent; an error if the server closed the connection instead.
    pub fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let raw = read_head(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut parsed = [httparse::EMPTY_HEADER; 100];
        let mut answer = httparse::Response::new(&mut parsed);
        answer.parse(&raw).map_err(io::Error::other)?;
        let status = answer.code.unwrap_or_default();
        let headers = Headers::of(answer.headers)?;
        Ok(Answer { status, headers, raw })
    }

    pub fn framing(&self, method: &str) -> io::Result<Framing> {
        if method == "HEAD" || matches!(self.status, 100..200 | 204 | 304) {
            return Ok(Framing::Length(0));
        }
        Ok(self.headers.framing()?.unwrap_or(Framing::UntilClose))
    }

    pub fn closes(&self) -> bool {
        self.headers.lists("connection", "close") || self.raw.starts_with(b"HTTP/1.0")
    }
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Passes a body on unchanged, chunk sizes and trailers included. Returns its bytes.
pub fn copy_body(from: &mut impl BufRead, framing: Framing, to: &mut impl Write) -> io::Result<u64> {
    match framing {
        Framing::Length(bytes) => copy_exactly(from, bytes, to),
        Framing::UntilClose => io::copy(from, to),
        Framing::Chunked => {
            let mut total = 0;
            loop {
                let line = read_line(from)?;
                to.write_all(&line)?;
                let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
                let size = text.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
                total += line.len() as u64;
                if size == 0 {
                    break;
                }
                total += copy_exactly(from, size + 2, to)?;
            }
            loop {
                let line = read_line(from)?;
                to.write_all(&line)?;
                total += line.len() as u64;
                if line == b"\r\n" {
                    return Ok(total);
                }
            }
        }
    }
}

fn copy_exactly(from: &mut impl BufRead, bytes: u64, to: &mut impl Write) -> io::Result<u64> {
    let copied = io::copy(&mut from.take(bytes), to)?;
    if copied < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(copied) }
}

fn read_line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(MAX_HEAD_BYTES as u64).read_until(b'\n', &mut line)?;
    if line.ends_with(b"\r\n") { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read_head(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    if from.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut head = Vec::new();
    loop {
        let line = read_line(from)?;
        head.extend(&line);
        if line == b"\r\n" {
            return Ok(Some(head));
        }
        if head.len() > MAX_HEAD_BYTES {
            return Err(io::Error::other("failed to read a head: it is too long"));
        }
    }
}

/// Undoes percent signs; what is not UTF-8 then stays as it was sent.
pub fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}
