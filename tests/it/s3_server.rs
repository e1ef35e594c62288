//! An S3 of the test's own: objects in memory behind the requests that a sink and a source send. It promises what S3
//! does: every write is seen at once, a conditional one is decided in one step, tags follow the bytes. Signatures are
//! checked. Knows no versions and no access lists, and refuses with 501 what it does not know.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs, io,
    io::{BufReader, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};

use crate::http1::{Framing, Listener, Request, Wire, copy_body, decode};

pub const ACCESS_KEY: &str = "lighthouse";
pub const SECRET_KEY: &str = "fog+horn/keeper";
pub const REGION: &str = "eu-north-1";

/// Every part of an upload but its last has to be at least this.
pub const MIN_PART_BYTES: usize = 5 << 20;

/// What may be asked of a bucket or an object. Anything else would be silently ignored.
const QUERIES: [&str; 12] = [
    "continuation-token",
    "delete",
    "delimiter",
    "fetch-owner",
    "list-type",
    "max-keys",
    "partNumber",
    "prefix",
    "start-after",
    "uploadId",
    "uploads",
    "x-id",
];

/// Headers that would change what a request means.
const UNKNOWN_HEADERS: [&str; 5] = [
    "if-modified-since",
    "if-unmodified-since",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-range",
];

/// The server; it ends when dropped.
pub struct S3Server {
    shared: Arc<Shared>,
    listener: Listener,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    buckets: BTreeMap<String, BTreeMap<String, Object>>,
    uploads: BTreeMap<String, Upload>,
    /// Tags of the objects that uploads have become.
    completed: HashMap<String, String>,
    created_uploads: u64,
    page_keys: usize,
    forgets_completed: bool,
    ignores_conditions: bool,
}

#[derive(Clone)]
struct Object {
    bytes: Arc<Vec<u8>>,
    /// With its quotes.
    tag: String,
    modified: SystemTime,
    /// What was sent along and is to be given back: the type, metadata.
    headers: Vec<(String, String)>,
}

struct Upload {
    bucket: String,
    key: String,
    headers: Vec<(String, String)>,
    parts: BTreeMap<usize, (Vec<u8>, String)>,
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An error of S3: status, code, message.
struct Refusal(u16, &'static str, String);

type Answered = Result<Reply, Refusal>;

impl S3Server {
    /// With empty `buckets`.
    pub fn start(buckets: &[&str]) -> Self {
        let state = State {
            buckets: buckets.iter().map(|bucket| ((*bucket).to_owned(), BTreeMap::new())).collect(),
            uploads: BTreeMap::new(),
            completed: HashMap::new(),
            created_uploads: 0,
            page_keys: 1000,
            forgets_completed: false,
            ignores_conditions: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let serving = shared.clone();
        // An error is a client that closed its connection within a request; such a request does nothing.
        let listener = Listener::start(move |client| drop(serving.serve(client)));
        S3Server { shared, listener }
    }

    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// What a process needs in its environment to reach `endpoint`: this server's, or that of a proxy before it.
    pub fn variables(endpoint: &str) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", endpoint.to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// Lists at most `keys` a page, so that few objects make many pages.
    pub fn set_page_keys(&self, keys: usize) {
        self.shared.state().page_keys = keys;
    }

    /// As some services that speak S3 do, puts what is to be put only if nothing is there.
    pub fn set_ignores_conditions(&self, ignores: bool) {
        self.shared.state().ignores_conditions = ignores;
    }

    /// S3 answers a second completion of an upload like the first, but promises that to nobody. With `forgets` it is
    /// 404 `NoSuchUpload`, as some stores answer.
    pub fn set_forgets_completed(&self, forgets: bool) {
        self.shared.state().forgets_completed = forgets;
    }

    /// Every object of `bucket` by its key.
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.shared.state();
        state.buckets[bucket].iter().map(|(key, object)| (key.clone(), object.bytes.to_vec())).collect()
    }

    pub fn object(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        Some(self.shared.state().buckets[bucket].get(key)?.bytes.to_vec())
    }

    /// Writes an object past HTTP, as somebody else would.
    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let object = Object::new(bytes.to_vec(), tag(bytes), Vec::new());
        self.shared.state().buckets.get_mut(bucket).unwrap().insert(key.to_owned(), object);
    }

    /// Removes an object past HTTP; whether it was there.
    pub fn remove(&self, bucket: &str, key: &str) -> bool {
        self.shared.state().buckets.get_mut(bucket).unwrap().remove(key).is_some()
    }

    /// Keys of uploads to `bucket` that were neither completed nor aborted: someone pays for their parts.
    pub fn open_uploads(&self, bucket: &str) -> Vec<String> {
        let state = self.shared.state();
        state
            .uploads
            .values()
            .filter(|upload| upload.bucket == bucket)
            .map(|upload| upload.key.clone())
            .collect()
    }

    /// Puts every file below `folder` into `bucket`, its path below `folder` after `prefix`.
    pub fn upload(&self, folder: &Path, bucket: &str, prefix: &str) {
        for entry in walkdir::WalkDir::new(folder) {
            let entry = entry.unwrap();
            if entry.file_type().is_file() {
                let below = entry.path().strip_prefix(folder).unwrap().to_str().unwrap();
                self.put(bucket, &format!("{prefix}{below}"), &fs::read(entry.path()).unwrap());
            }
        }
    }

    /// Writes every object of `bucket` below `prefix` into `folder`, for what reads an output from there.
    pub fn download(&self, bucket: &str, prefix: &str, folder: &Path) {
        for (key, bytes) in self.objects(bucket) {
            if let Some(below) = key.strip_prefix(prefix) {
                let path = folder.join(below);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

impl Object {
    fn new(bytes: Vec<u8>, tag: String, headers: Vec<(String, String)>) -> Self {
        Object { bytes: Arc::new(bytes), tag, modified: SystemTime::now(), headers }
    }
}

impl Reply {
    fn empty(status: u16) -> Self {
        Reply { status, headers: Vec::new(), body: Vec::new() }
    }

    fn xml(body: String) -> Self {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}").into_bytes();
        Reply { status: 200, headers: Vec::new(), body }.with("Content-Type", "application/xml")
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl From<Refusal> for Reply {
    fn from(Refusal(status, code, message): Refusal) -> Self {
        let (code, message) = (escape(code), escape(&message));
        let reply = Reply::xml(format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"));
        Reply { status, ..reply }
    }
}

fn refuse<T>(status: u16, code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(status, code, message.into()))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, mut client: BufReader<Wire>) -> io::Result<()> {
        let mut requests = 0_u64;
        while let Some(request) = Request::read(&mut client)? {
            requests += 1;
            if request.headers.get("expect").is_some() {
                client.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let framing = request.framing()?;
            let mut body = Vec::new();
            copy_body(&mut client, framing, &mut body)?;
            let answered = match framing {
                Framing::Length(_) => self.answer(&request, body),
                _ => refuse(411, "MissingContentLength", "a body needs its Content-Length"),
            };
            let reply = answered.unwrap_or_else(Reply::from).with("x-amz-request-id", requests.to_string());

            let mut head =
                format!("HTTP/1.1 {} \r\nDate: {}\r\n", reply.status, http_date(SystemTime::now()));
            for (name, value) in &reply.headers {
                write!(head, "{name}: {value}\r\n").unwrap();
            }
            if reply.status != 304 && reply.status != 204 {
                write!(head, "Content-Length: {}\r\n", reply.body.len()).unwrap();
            }
            head.push_str("\r\n");
            let mut whole = head.into_bytes();
            if request.method != "HEAD" {
                whole.extend(&reply.body);
            }
            client.get_mut().write_all(&whole)?;
            if request.closes() {
                break;
            }
        }
        Ok(())
    }

    /// Does what was asked. All of it happens under one lock, after the whole body has come.
    fn answer(&self, request: &Request, body: Vec<u8>) -> Answered {
        check_signature(request)?;
        check_body(request, &body)?;
        if let Some((name, _)) = request.raw_query().find(|(name, _)| !QUERIES.contains(name)) {
            return refuse(501, "NotImplemented", format!("the query {name} is not known"));
        }
        if let Some(name) = UNKNOWN_HEADERS.iter().find(|name| request.headers.get(name).is_some()) {
            return refuse(501, "NotImplemented", format!("the header {name} is not known"));
        }

        let path = request.path();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if key.len() > 1024 {
            return refuse(400, "KeyTooLongError", "a key has at most 1024 bytes");
        }
        let mut state = self.state();
        if !state.buckets.contains_key(bucket) {
            return refuse(404, "NoSuchBucket", format!("there is no bucket {bucket}"));
        }
        let upload = request.query("uploadId");
        match (request.method.as_str(), key, upload) {
            ("GET", "", None) if request.query("list-type").as_deref() == Some("2") => {
                state.list(request, bucket)
            }
            ("HEAD", "", None) => Ok(Reply::empty(200)),
            ("POST", "", None) if request.query("delete").is_some() => state.delete_objects(bucket, &body),
            (_, "", _) => {
                refuse(501, "NotImplemented", format!("{} of a bucket is not known", request.method))
            }
            ("GET" | "HEAD", key, None) => state.get(request, bucket, key),
            ("PUT", key, None) if request.headers.get("x-amz-copy-source").is_some() => {
                state.copy(request, bucket, key)
            }
            ("PUT", key, None) => state.put(request, bucket, key, body),
            ("DELETE", key, None) => {
                state.buckets.get_mut(bucket).unwrap().remove(key);
                Ok(Reply::empty(204))
            }
            ("POST", key, None) if request.query("uploads").is_some() => {
                state.create_upload(request, bucket, key)
            }
            ("PUT", key, Some(id)) => state.put_part(request, bucket, key, &id, body),
            ("POST", key, Some(id)) => state.complete(request, bucket, key, &id, &body),
            ("DELETE", key, Some(id)) => {
                state.upload(bucket, key, &id)?;
                state.uploads.remove(&id);
                Ok(Reply::empty(204))
            }
            (method, _, _) => refuse(501, "NotImplemented", format!("{method} of an object is not known")),
        }
    }
}

impl State {
    fn object(&self, bucket: &str, key: &str) -> Result<&Object, Refusal> {
        let object = self.buckets.get(bucket).and_then(|objects| objects.get(key));
        object.ok_or_else(|| Refusal(404, "NoSuchKey", format!("there is no object {key}")))
    }

    /// Refuses a write whose `If-None-Match` or `If-Match` does not hold.
    fn check_write(&self, request: &Request, bucket: &str, key: &str) -> Result<(), Refusal> {
        let found = self.object(bucket, key);
        match request.headers.get("if-none-match") {
            None => {}
            Some("*") if found.is_ok() && !self.ignores_conditions => {
                return refuse(412, "PreconditionFailed", "If-None-Match: it is there");
            }
            Some("*") => {}
            Some(_) => return refuse(501, "NotImplemented", "If-None-Match of a write has to be *"),
        }
        match request.headers.get("if-match") {
            None => Ok(()),
            Some(wanted) if wanted == "*" || found?.tag == wanted => Ok(()),
            Some(_) => refuse(412, "PreconditionFailed", "If-Match: it is another"),
        }
    }

    fn store(&mut self, bucket: &str, key: &str, object: Object) {
        self.buckets.get_mut(bucket).unwrap().insert(key.to_owned(), object);
    }

    fn put(&mut self, request: &Request, bucket: &str, key: &str, body: Vec<u8>) -> Answered {
        self.check_write(request, bucket, key)?;
        let tag = tag(&body);
        self.store(bucket, key, Object::new(body, tag.clone(), kept_headers(request)));
        Ok(echo_checksums(request, Reply::empty(200).with("ETag", tag)))
    }

    fn copy(&mut self, request: &Request, bucket: &str, key: &str) -> Answered {
        self.check_write(request, bucket, key)?;
        let mut object = self.copied(request)?.clone();
        object.modified = SystemTime::now();
        let result = copy_result("CopyObjectResult", &object.tag, object.modified);
        self.store(bucket, key, object);
        Ok(result)
    }

    /// The object that `x-amz-copy-source` names.
    fn copied(&self, request: &Request) -> Result<&Object, Refusal> {
        let source = decode(request.headers.get("x-amz-copy-source").unwrap_or_default());
        let source = source.strip_prefix('/').unwrap_or(&source);
        let (bucket, key) = source.split_once('/').unwrap_or((source, ""));
        self.object(bucket, key)
    }

    fn get(&self, request: &Request, bucket: &str, key: &str) -> Answered {
        let object = self.object(bucket, key)?;
        let size = object.bytes.len();
        let mut reply = Reply::empty(200)
            .with("ETag", &object.tag)
            .with("Last-Modified", http_date(object.modified))
            .with("Accept-Ranges", "bytes");
        if request.headers.get("if-match").is_some_and(|wanted| wanted != "*" && wanted != object.tag) {
            return refuse(412, "PreconditionFailed", "If-Match: it is another");
        }
        if request.headers.get("if-none-match").is_some_and(|known| known == "*" || known == object.tag) {
            reply.status = 304;
            return Ok(reply);
        }
        reply.headers.extend(object.headers.iter().cloned());
        let range = match request.headers.get("range") {
            Some(text) => parse_range(text, size)?,
            None => None,
        };
        let (start, end) = range.unwrap_or((0, size));
        if range.is_some() {
            reply.status = 206;
            reply = reply.with("Content-Range", format!("bytes {start}-{}/{size}", end - 1));
        }
        reply.body = object.bytes[start..end].to_vec();
        Ok(reply)
    }

    fn list(&self, request: &Request, bucket: &str) -> Answered {
        let prefix = request.query("prefix").unwrap_or_default();
        let delimiter = request.query("delimiter").filter(|delimiter| !delimiter.is_empty());
        let max_keys = request.query("max-keys").unwrap_or("1000".to_owned()).parse::<usize>();
        let Ok(max_keys) = max_keys else {
            return refuse(400, "InvalidArgument", "max-keys is not a number");
        };
        let page = max_keys.min(self.page_keys);
        let after = match request.query("continuation-token") {
            Some(token) => match unhex(&token) {
                Some(name) => name,
                None => return refuse(400, "InvalidArgument", "the continuation token is incorrect"),
            },
            None => request.query("start-after").unwrap_or_default(),
        };

        let (mut found, mut count, mut last, mut truncated) = (String::new(), 0, String::new(), false);
        for (key, object) in self.buckets[bucket].range(prefix.clone()..) {
            let Some(rest) = key.strip_prefix(&prefix) else { break };
            let cut =
                delimiter.as_deref().and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len()));
            let name = cut.map_or(key.as_str(), |cut| &key[..prefix.len() + cut]);
            if *key <= after || (cut.is_some() && (name == after || name == last)) {
                continue;
            }
            if count == page {
                truncated = page > 0;
                break;
            }
            count += 1;
            last = name.to_owned();
            match cut {
                Some(_) => {
                    write!(found, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escape(name))
                        .unwrap();
                }
                None => write!(
                    found,
                    "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
                     <StorageClass>STANDARD</StorageClass></Contents>",
                    escape(name),
                    iso_date(object.modified),
                    escape(&object.tag),
                    object.bytes.len(),
                )
                .unwrap(),
            }
        }
        if truncated {
            let token: String = last.bytes().map(|byte| format!("{byte:02x}")).collect();
            write!(found, "<NextContinuationToken>{token}</NextContinuationToken>").unwrap();
        }
        Ok(Reply::xml(format!(
            "<ListBucketResult><Name>{}</Name><Prefix>{}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{max_keys}</MaxKeys>\
             <IsTruncated>{truncated}</IsTruncated>{found}</ListBucketResult>",
            escape(bucket),
            escape(&prefix),
        )))
    }

    fn delete_objects(&mut self, bucket: &str, body: &[u8]) -> Answered {
        let text = xml_text(body)?;
        let keys = elements(text, "Key");
        if keys.is_empty() || keys.len() > 1000 {
            return refuse(400, "MalformedXML", "1 to 1000 objects are deleted at once");
        }
        let quiet = elements(text, "Quiet").first() == Some(&"true");
        let mut deleted = String::new();
        for key in keys {
            self.buckets.get_mut(bucket).unwrap().remove(&unescape(key));
            if !quiet {
                write!(deleted, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
            }
        }
        Ok(Reply::xml(format!("<DeleteResult>{deleted}</DeleteResult>")))
    }

    fn create_upload(&mut self, request: &Request, bucket: &str, key: &str) -> Answered {
        self.created_uploads += 1;
        let id = format!("upload-{}", self.created_uploads);
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let result = format!(
            "<InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>",
            escape(&bucket),
            escape(&key),
        );
        let headers = kept_headers(request);
        self.uploads.insert(id, Upload { bucket, key, headers, parts: BTreeMap::new() });
        Ok(Reply::xml(result))
    }

    fn upload(&mut self, bucket: &str, key: &str, id: &str) -> Result<&mut Upload, Refusal> {
        let upload = self.uploads.get_mut(id).filter(|upload| upload.bucket == bucket && upload.key == key);
        upload.ok_or_else(|| Refusal(404, "NoSuchUpload", format!("there is no upload {id} of {key}")))
    }

    fn put_part(&mut self, request: &Request, bucket: &str, key: &str, id: &str, body: Vec<u8>) -> Answered {
        let copied = request.headers.get("x-amz-copy-source").is_some();
        let body = if copied { self.copied(request)?.bytes.to_vec() } else { body };
        let tag = tag(&body);
        let upload = self.upload(bucket, key, id)?;
        let number = request.query("partNumber").unwrap_or_default().parse::<usize>();
        let Some(number) = number.ok().filter(|number| (1..=10_000).contains(number)) else {
            return refuse(400, "InvalidArgument", "a part's number is 1 to 10000");
        };
        upload.parts.insert(number, (body, tag.clone()));
        Ok(match copied {
            true => copy_result("CopyPartResult", &tag, SystemTime::now()),
            false => echo_checksums(request, Reply::empty(200).with("ETag", tag)),
        })
    }

    fn complete(&mut self, request: &Request, bucket: &str, key: &str, id: &str, body: &[u8]) -> Answered {
        let tag = match self.completed.get(id) {
            Some(tag) if !self.forgets_completed => tag.clone(),
            _ => self.complete_first(request, bucket, key, id, body)?,
        };
        Ok(Reply::xml(format!(
            "<CompleteMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag>\
             </CompleteMultipartUploadResult>",
            escape(bucket),
            escape(key),
            escape(&tag),
        )))
    }

    fn complete_first(
        &mut self,
        request: &Request,
        bucket: &str,
        key: &str,
        id: &str,
        body: &[u8],
    ) -> Result<String, Refusal> {
        let upload = self.upload(bucket, key, id)?;
        let listed = elements(xml_text(body)?, "Part");
        if listed.is_empty() {
            return refuse(400, "MalformedXML", "an upload has at least one part");
        }
        let (mut whole, mut tags, mut last) = (Vec::new(), String::new(), 0);
        for (i, part) in listed.iter().enumerate() {
            let field = |name| elements(part, name).first().map_or(String::new(), |text| unescape(text));
            let number = field("PartNumber").parse::<usize>().unwrap_or(0);
            if number <= last {
                return refuse(400, "InvalidPartOrder", "parts are listed by ascending number");
            }
            last = number;
            // With or without quotes, as S3 takes it.
            let wanted = field("ETag").replace('"', "");
            let part = upload.parts.get(&number).filter(|(_, tag)| tag.replace('"', "") == wanted);
            let Some((bytes, tag)) = part else {
                return refuse(400, "InvalidPart", format!("part {number} was not put, or is another"));
            };
            if i + 1 < listed.len() && bytes.len() < MIN_PART_BYTES {
                return refuse(
                    400,
                    "EntityTooSmall",
                    format!("part {number} is smaller than {MIN_PART_BYTES} bytes"),
                );
            }
            whole.extend(bytes);
            tags.push_str(tag);
        }
        let headers = upload.headers.clone();
        self.check_write(request, bucket, key)?;
        let whole_tag = format!("\"{}-{}\"", tag(tags.as_bytes()).replace('"', ""), listed.len());
        self.store(bucket, key, Object::new(whole, whole_tag.clone(), headers));
        self.uploads.remove(id);
        self.completed.insert(id.to_owned(), whole_tag.clone());
        Ok(whole_tag)
    }
}

/// The tag of a body, with its quotes: as long as S3's, but of SHA-256, since a tag's meaning is nobody's business.
fn tag(bytes: &[u8]) -> String {
    format!("\"{}\"", &sha256(bytes)[..32])
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Headers of a write that a read gets back.
fn kept_headers(request: &Request) -> Vec<(String, String)> {
    const KEPT: [&str; 5] =
        ["cache-control", "content-disposition", "content-encoding", "content-language", "content-type"];
    let kept = |name: &str| name.starts_with("x-amz-meta-") || KEPT.contains(&name);
    let headers = request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    headers.filter(|(name, _)| kept(name)).collect()
}

/// Gives a write's checksums back, as S3 does once it has checked them. Only SHA-256 is checked here.
fn echo_checksums(request: &Request, mut reply: Reply) -> Reply {
    for (name, value) in request.headers.iter() {
        if name.to_ascii_lowercase().starts_with("x-amz-checksum-") {
            reply = reply.with(name, value);
        }
    }
    reply
}

fn copy_result(name: &str, tag: &str, modified: SystemTime) -> Reply {
    let (tag, modified) = (escape(tag), iso_date(modified));
    Reply::xml(format!("<{name}><ETag>{tag}</ETag><LastModified>{modified}</LastModified></{name}>"))
}

/// First and past-the-end byte; `None` for what is no range and so is ignored.
fn parse_range(text: &str, size: usize) -> Result<Option<(usize, usize)>, Refusal> {
    let Some(range) = text.strip_prefix("bytes=") else { return Ok(None) };
    if range.contains(',') {
        return refuse(501, "NotImplemented", "only one range is given at once");
    }
    let Some((first, last)) = range.split_once('-') else { return Ok(None) };
    let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(start), Ok(last)) if start <= last => (start, size.min(last.saturating_add(1))),
        (Ok(start), Err(_)) if last.is_empty() => (start, size),
        (Err(_), Ok(length)) if first.is_empty() => (size - size.min(length), size),
        _ => return Ok(None),
    };
    if start >= end {
        return refuse(416, "InvalidRange", format!("{text} is not within {size} bytes"));
    }
    Ok(Some((start, end)))
}

/// Checks version 4 of AWS's signature.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
fn check_signature(request: &Request) -> Result<(), Refusal> {
    let denied = |code, message: &str| Refusal(403, code, message.to_owned());
    let missing = || denied("AccessDenied", "the request is not signed");
    let authorization = request.headers.get("authorization").ok_or_else(missing)?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256").ok_or_else(missing)?;
    let field = |name: &str| {
        let value = fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        value.ok_or_else(missing)
    };
    let (credential, signed, signature) =
        (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let (key, scope) = credential.split_once('/').ok_or_else(missing)?;
    if key != ACCESS_KEY {
        return Err(denied("InvalidAccessKeyId", &format!("the access key {key} is not known")));
    }

    let mut canonical = format!("{}\n{}\n", request.method, encode(&request.path(), b"/"));
    let mut query: Vec<String> = request
        .raw_query()
        .map(|(name, value)| {
            let [name, value] = [name, value].map(|text| encode(&decode(&text.replace('+', " ")), b""));
            format!("{name}={value}")
        })
        .collect();
    query.sort();
    writeln!(canonical, "{}", query.join("&")).unwrap();
    for name in signed.split(';') {
        let value = request.headers.get(name).unwrap_or_default();
        writeln!(canonical, "{name}:{}", value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
    }
    let body = request.headers.get("x-amz-content-sha256").unwrap_or_default();
    write!(canonical, "\n{signed}\n{body}").unwrap();

    let date = request.headers.get("x-amz-date").unwrap_or_default();
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut secret = format!("AWS4{SECRET_KEY}").into_bytes();
    for step in scope.split('/') {
        secret = hmac(&secret, step.as_bytes());
    }
    let expected: String = hmac(&secret, text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    if signature != expected {
        return Err(denied(
            "SignatureDoesNotMatch",
            "the signature is not that of this request and secret key",
        ));
    }
    Ok(())
}

/// HMAC-SHA256, RFC 2104; `key` fits a block.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

fn check_body(request: &Request, body: &[u8]) -> Result<(), Refusal> {
    match request.headers.get("x-amz-content-sha256") {
        None => return refuse(400, "InvalidRequest", "x-amz-content-sha256 is missing"),
        Some("UNSIGNED-PAYLOAD") => {}
        Some(other) if other.starts_with("STREAMING-") => {
            return refuse(501, "NotImplemented", "a body is not signed in pieces");
        }
        Some(hash) if hash == sha256(body) => {}
        Some(_) => return refuse(400, "XAmzContentSHA256Mismatch", "the body is not what was signed"),
    }
    if let Some(sent) = request.headers.get("x-amz-checksum-sha256") {
        use base64::{Engine, prelude::BASE64_STANDARD};
        if sent != BASE64_STANDARD.encode(Sha256::digest(body)) {
            return refuse(400, "BadDigest", "the SHA-256 is not that of the body");
        }
    }
    Ok(())
}

/// Percent signs for all but unreserved letters and `kept`.
fn encode(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
    }
    encoded
}

fn unhex(text: &str) -> Option<String> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    String::from_utf8(bytes?).ok()
}

fn xml_text(body: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(body).or_else(|_| refuse(400, "MalformedXML", "the body is not UTF-8"))
}

/// Contents of each `<name>`; the requests nest no element in one of its own name.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let after_open = xml.split(&open).skip(1);
    after_open.filter_map(|rest| Some(rest.split_once(&close)?.0)).collect()
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\r', "&#13;")
}

fn unescape(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&#13;", "\r").replace("&amp;", "&")
}

/// `Wed, 25 Nov 2026 20:16:17 GMT`.
fn http_date(time: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, [year, month, day, hour, minute, second], _) = calendar(time);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize - 1]);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `2026-11-25T20:16:17.000Z`.
fn iso_date(time: SystemTime) -> String {
    let (_, [year, month, day, hour, minute, second], millis) = calendar(time);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Days since 1970, year to second, milliseconds. The year starts in March, so that its leap day comes last.
fn calendar(time: SystemTime) -> (u64, [u64; 6], u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (days, [year, month, day, seconds / 3600, seconds / 60 % 60, seconds % 60], since.subsec_millis())
}
