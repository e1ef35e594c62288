//! The tables below `[pretokenize]`: a type a modality. Each is both what is read from the file and what the plan holds. Knows
//! nothing of how any of it is done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pretokenizing of `modality = "text"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PretokenizeText {
    /// Where segments end.
    pub segments: TextSegments,
    /// File with a Hugging Face tokenizer (`tokenizer.json`), for `segments = "tokenizer"`.
    #[schemars(length(min = 1))]
    pub tokenizer: Option<String>,
    /// Text that is not UTF-8: scored byte by byte as it is, or sent to quarantine.
    pub invalid_utf8: InvalidUtf8,
}

/// Where segments of text end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TextSegments {
    /// The whole text is one.
    #[default]
    Whole,
    /// After blank lines.
    Paragraph,
    /// Sentences of Unicode's default rules (UAX #29).
    Sentence,
    /// Tokens of `tokenizer`.
    Tokenizer,
}

/// What becomes of text that is not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InvalidUtf8 {
    /// Its bytes are taken as they are.
    #[default]
    Keep,
    /// The row goes to quarantine.
    Quarantine,
}

/// Pretokenizing of `modality = "image"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PretokenizeImage {
    /// Side of the square patches, in pixels; those at the right and lower edge hold what is there.
    #[schemars(range(min = 1, max = 65535))]
    pub patch: u32,
    /// Longest side in pixels; larger images are made smaller, none is enlarged. Default: as they are.
    #[schemars(range(min = 1, max = 65535))]
    pub max_side: Option<u32>,
    /// Entropy of a patch's bytes, in bits per byte, below which it is merged with neighbours that are below it, too. Default: no merging.
    #[schemars(range(min = 0.0, max = 8.0))]
    pub merge_below: Option<f64>,
    /// Pixels of an image, as its header tells them, above which it is not decoded but goes to quarantine.
    #[schemars(range(min = 1))]
    pub max_pixels: u64,
}

impl Default for PretokenizeImage {
    fn default() -> Self {
        Self { patch: 16, max_side: None, merge_below: None, max_pixels: 100_000_000 }
    }
}

/// Pretokenizing of `modality = "audio"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PretokenizeAudio {
    /// Length of a frame, in milliseconds; the last one of a sound holds what is left.
    #[schemars(range(min = 1, max = 60000))]
    pub frame_ms: u32,
    /// Mix all channels into one.
    pub mono: bool,
    /// Samples a second to convert to. Default: as they are.
    #[schemars(range(min = 1000, max = 768000))]
    pub sample_rate: Option<u32>,
    /// Seconds of sound above which a row goes to quarantine.
    #[schemars(range(min = 1))]
    pub max_seconds: u32,
}

impl Default for PretokenizeAudio {
    fn default() -> Self {
        Self { frame_ms: 20, mono: false, sample_rate: None, max_seconds: 3600 }
    }
}

/// Pretokenizing of `modality = "code"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PretokenizeCode {
    /// Language of all rows. Default: what the column `source.language` says, else the path's ending, else the content.
    pub language: Option<Language>,
}

/// A programming language whose items are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Language {
    Rust,
    Python,
    C,
    Cpp,
    JavaScript,
    TypeScript,
    Tsx,
    Java,
    Go,
}

/// Pretokenizing of `modality = "document"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PretokenizeDocument {
    /// What is made of a file: the text of its pages, its bytes as they are, pictures of its pages; each a row of its own.
    #[schemars(length(min = 1))]
    pub views: Vec<DocumentView>,
    /// Resolution of the pictures, in dots per inch.
    #[schemars(range(min = 1, max = 1200))]
    pub dpi: u32,
    /// Pages above which a file goes to quarantine.
    #[schemars(range(min = 1))]
    pub max_pages: u32,
}

impl Default for PretokenizeDocument {
    fn default() -> Self {
        Self { views: vec![DocumentView::Text], dpi: 72, max_pages: 5000 }
    }
}

/// What is made of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DocumentView {
    /// The text of its pages.
    Text,
    /// Its bytes as they are.
    Raw,
    /// A picture of each page.
    Image,
}

impl DocumentView {
    /// Whether a row with these views may become several documents: a picture is of one page.
    pub fn are_several(views: &[DocumentView]) -> bool {
        views.len() > 1 || views.contains(&DocumentView::Image)
    }
}

/// Pretokenizing of `modality = "video"`; pictures are cut as `image` says, and sound as `audio` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PretokenizeVideo {
    /// Pictures for a second of the film, each the one that is shown at its time.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 240.0))]
    pub fps: f64,
    /// Longest side of a picture, in pixels; larger ones are made smaller, none is enlarged.
    #[schemars(range(min = 1, max = 65535))]
    pub size: u32,
    /// Whether sound is taken, too.
    pub audio: bool,
    /// Seconds of film above which a row goes to quarantine.
    #[schemars(range(min = 1))]
    pub max_seconds: u32,
    /// Pixels of a picture as it is encoded, above which a row goes to quarantine.
    #[schemars(range(min = 1))]
    pub max_pixels: u64,
}

impl Default for PretokenizeVideo {
    fn default() -> Self {
        Self { fps: 1.0, size: 224, audio: true, max_seconds: 3600, max_pixels: 10_000_000 }
    }
}
