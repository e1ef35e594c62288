//! A PDF file in, its views out: the text of its pages, its bytes as they are, pictures of its pages. Knows nothing of what is
//! made of a picture.

use std::sync::Arc;

use hayro_syntax::{
    DecryptionError, LoadPdfError, Pdf,
    object::{
        Dict,
        dict::keys::{COUNT, PAGES},
    },
};
use memchr::memmem;

use self::{
    picture::{Painter, Picture, check_images},
    streams::Bounds,
    text::TextReader,
};
use super::{Content, Needs, Pretokenizer, View, too_long_decoded};
use crate::{
    config::{DocumentView, PretokenizeDocument},
    data::Segment,
};

mod contents;
mod picture;
mod streams;
mod text;

const MODALITY: &str = "document";
const PICTURE_MODALITY: &str = "image";
/// Pictures of a file may have so many times `max_document_bytes` in all.
const MOST_PICTURES: u64 = 16;
/// Where a file must begin and end as PDF files do; some have a mail's head before, or line ends behind.
const EDGE_BYTES: usize = 1024;

/// Makes the segments and bytes of a picture: width, height, RGB row by row. Joins the pages with what is done to images.
pub type PictureFn = Arc<dyn Fn(u32, u32, Vec<u8>) -> Result<(Vec<Segment>, Vec<u8>), String> + Send + Sync>;

/// Views of PDF files.
///
/// - `text`: what the pages show, in the order in which their content shows it, UTF-8. A page that shows text is a segment (kind
///   `page`, meta `{"page":1}`, counted from 1) and ends in a line feed, its own or one that is added; a page without text has no
///   segment, and a file without text no bytes. Between two glyphs a line feed stands where the line changes, a space where the
///   gap is as wide as one. A glyph whose character the file does not tell is U+FFFD, and `"unknown":2` in meta counts them.
///   Notes, fields of forms and attached files are no part of it; hidden text (behind scans, say) is.
/// - `raw`: the file, in one segment (kind `raw`).
/// - `image`: a picture of each page at `dpi` over white, each a view of its own named `page-1`, in modality `image`.
///
/// The first view is the document itself, without a name, unless it is a picture; the others are `text` and `raw`.
///
/// A file is refused if it is encrypted with a password, if it is cut off (no `%%EOF` at its end, shorter than it says, pages
/// missing), or if a stream that is needed cannot be decoded whole: for pictures, any stream, and an image whose pixels would be
/// made up in part. A table of objects that is wrong is replaced by what the file's objects themselves say, as every reader does.
///
/// It is refused, too, if a stream unpacks to more than four times a document's limit (at least 64 MiB), or all together to four
/// times that, or if that cannot be told. So the objects of a file take no more memory than this, and content and fonts as much
/// again. Pictures are the same on all processors of a kind, but for images that are made smaller: their scaler chooses its
/// instructions by the processor.
#[derive(Clone)]
pub struct Document {
    settings: PretokenizeDocument,
    max_document_bytes: u64,
    picture: PictureFn,
}

impl Document {
    /// Documents of up to `max_document_bytes` each; `picture` is asked for each page if pictures are wanted.
    pub fn new(settings: &PretokenizeDocument, max_document_bytes: u64, picture: PictureFn) -> Self {
        Self { settings: settings.clone(), max_document_bytes, picture }
    }

    fn has(&self, view: DocumentView) -> bool {
        self.settings.views.contains(&view)
    }

    fn open(&self, file: &Arc<Vec<u8>>, bounds: Bounds) -> Result<Pdf, String> {
        check_edges(file)?;
        let measured = streams::check_unread(file, bounds)?;
        let pdf = Pdf::new(Arc::clone(file)).map_err(unread)?;
        check_pages(&pdf, self.settings.max_pages)?;
        streams::check_read(&pdf, measured, bounds)?;
        Ok(pdf)
    }

    fn text(&self, pdf: &Pdf, bounds: Bounds) -> Result<(Vec<Segment>, Vec<u8>), String> {
        let mut reader = TextReader::new(bounds);
        let mut text = String::new();
        let mut segments = Vec::new();
        for (i, page) in pdf.pages().iter().enumerate() {
            let of_page = |reason| format!("page {}: {reason}", i + 1);
            let start = text.len() as u64;
            let shown = reader.read(page, start, self.max_document_bytes).map_err(of_page)?;
            if shown.text.is_empty() {
                continue;
            }
            text.push_str(&shown.text);
            if !text.ends_with('\n') {
                text.push('\n');
            }
            let mut meta = serde_json::json!({ "page": i + 1 });
            if shown.n_unknown > 0 {
                meta["unknown"] = shown.n_unknown.into();
            }
            segments.push(Segment {
                kind: "page",
                bytes: start..text.len() as u64,
                meta: Some(meta.to_string()),
            });
        }
        let n_bytes = text.len() as u64;
        if n_bytes > self.max_document_bytes {
            return Err(too_long_decoded(n_bytes, self.max_document_bytes));
        }
        Ok((segments, text.into_bytes()))
    }

    fn pictures(&self, pdf: &Pdf, bounds: Bounds) -> Result<Vec<View>, String> {
        check_images(pdf, bounds)?;
        let painter = Painter::new(self.settings.dpi, self.max_document_bytes, bounds);
        let mut left = self.max_document_bytes.saturating_mul(MOST_PICTURES);
        let mut views = Vec::new();
        contents::check(pdf, bounds)?;
        for (i, page) in pdf.pages().iter().enumerate() {
            let of_page = |reason| format!("page {}: {reason}", i + 1);
            let Picture { width, height, rgb } = painter.draw(page).map_err(of_page)?;
            left = left.checked_sub(rgb.len() as u64).ok_or_else(|| {
                format!("pictures of pages of more than {MOST_PICTURES} × limits.max_document_bytes in all")
            })?;
            let (segments, bytes) = (self.picture)(width, height, rgb).map_err(of_page)?;
            views.push(View {
                modality: PICTURE_MODALITY,
                name: Some(format!("page-{}", i + 1)),
                segments,
                bytes,
            });
        }
        Ok(views)
    }

    fn view(&self, view: DocumentView, (segments, bytes): (Vec<Segment>, Vec<u8>)) -> View {
        let name = match view {
            _ if self.settings.views.first() == Some(&view) => None,
            DocumentView::Text => Some("text".to_owned()),
            DocumentView::Raw | DocumentView::Image => Some("raw".to_owned()),
        };
        View { modality: MODALITY, name, segments, bytes }
    }
}

impl Pretokenizer for Document {
    fn needs(&self, content: &Content) -> Needs {
        if !is_pdf(&content.bytes) {
            return Needs::default();
        }
        let n_bytes = content.bytes.len() as u64;
        let mut views = 0;
        if self.has(DocumentView::Text) {
            // Text is packed to a third of its length, but most of a file is fonts and pictures.
            views += n_bytes;
        }
        if self.has(DocumentView::Raw) {
            views += n_bytes;
        }
        if self.has(DocumentView::Image) {
            let n_pages = n_pages_told(&content.bytes).min(self.settings.max_pages.into());
            let dots = u64::from(self.settings.dpi);
            let a4_bytes = dots * dots * 97 * 3;
            views += n_pages * a4_bytes.min(self.max_document_bytes);
        }
        // Objects and content unpack to some ten times their length, a page is four bytes a dot while it is drawn.
        let unpacked = (32 * n_bytes).min(Bounds::of(self.max_document_bytes).one());
        let drawn = if self.has(DocumentView::Image) { self.max_document_bytes } else { 0 };
        let most = self.max_document_bytes.saturating_mul(2 + MOST_PICTURES);
        Needs { views: views.min(most), beside: unpacked + drawn }
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        let file = Arc::new(content.bytes);
        let n_bytes = file.len() as u64;
        if self.has(DocumentView::Raw) && n_bytes > self.max_document_bytes {
            return Err(too_long_decoded(n_bytes, self.max_document_bytes));
        }
        let bounds = Bounds::of(self.max_document_bytes);
        let pdf = self.open(&file, bounds)?;
        let mut views = Vec::new();
        for view in &self.settings.views {
            match view {
                DocumentView::Text => views.push(self.view(*view, self.text(&pdf, bounds)?)),
                DocumentView::Raw => {
                    let segment = Segment { kind: "raw", bytes: 0..n_bytes, meta: None };
                    views.push(self.view(*view, (vec![segment], file.to_vec())));
                }
                DocumentView::Image => views.extend(self.pictures(&pdf, bounds)?),
            }
        }
        Ok(views)
    }
}

fn unread(error: LoadPdfError) -> String {
    match error {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => {
            "encrypted, and the empty password does not open it".to_owned()
        }
        LoadPdfError::Decryption(error) => format!("encrypted, and cannot be decrypted: {error:?}"),
        LoadPdfError::Invalid => "damaged: no pages can be found in it".to_owned(),
    }
}

fn is_pdf(file: &[u8]) -> bool {
    memmem::find(&file[..file.len().min(EDGE_BYTES)], b"%PDF-").is_some()
}

/// How many pages `file` has, more or less. Those that are told in packed objects cannot be seen: a page has some 50 kB.
fn n_pages_told(file: &[u8]) -> u64 {
    let is_page = |at: &usize| {
        let kind = file[at + b"/Type".len()..].trim_ascii_start();
        kind.starts_with(b"/Page") && !kind.starts_with(b"/Pages")
    };
    let told = memmem::find_iter(file, b"/Type").filter(is_page).count() as u64;
    let has_packed = memmem::find(file, b"/ObjStm").is_some();
    told.max(if has_packed { file.len() as u64 / 50_000 } else { 0 }).max(1)
}

/// A reader that makes the best of what is left of a file cannot tell that something is missing; so that is asked first.
fn check_edges(file: &[u8]) -> Result<(), String> {
    if file.is_empty() {
        return Err("no bytes".to_owned());
    }
    let head = &file[..file.len().min(EDGE_BYTES)];
    if !is_pdf(file) {
        return Err("not a PDF file: no %PDF- at its beginning".to_owned());
    }
    if memmem::find(&file[file.len().saturating_sub(EDGE_BYTES)..], b"%%EOF").is_none() {
        return Err("truncated: no %%EOF at its end".to_owned());
    }
    match linearized_length(head) {
        Some(length) if length > file.len() as u64 => {
            Err(format!("truncated: {} bytes, but it says that it has {length}", file.len()))
        }
        _ => Ok(()),
    }
}

/// The length of the file, as files made for the web tell it at their beginning (PDF 32000-1, annex F).
fn linearized_length(head: &[u8]) -> Option<u64> {
    let start = memmem::find(head, b"/Linearized")?;
    let dict = &head[start..];
    let dict = &dict[..memmem::find(dict, b">>").unwrap_or(dict.len())];
    let value = memmem::find_iter(dict, b"/L").find_map(|at| {
        let value = &dict[at + 2..];
        value.first().is_some_and(|byte| byte.is_ascii_whitespace()).then(|| value.trim_ascii_start())
    })?;
    let n_digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&value[..n_digits]).ok()?.parse().ok()
}

fn check_pages(pdf: &Pdf, max_pages: u32) -> Result<(), String> {
    let n_pages = pdf.pages().len();
    if n_pages == 0 {
        return Err("no pages".to_owned());
    }
    if n_pages > max_pages as usize {
        return Err(format!("{n_pages} pages, more than max_pages = {max_pages}"));
    }
    let xref = pdf.xref();
    let root = xref.get::<Dict<'_>>(xref.root_id());
    let told = root.and_then(|root| root.get::<Dict<'_>>(PAGES)).and_then(|pages| pages.get::<i64>(COUNT));
    match told {
        Some(told) if told > n_pages as i64 => Err(format!(
            "truncated or damaged: {n_pages} pages can be read of the {told} that it says it has"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
