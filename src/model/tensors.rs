//! Reads a file of named tensors, safetensors or burnpack: a name in, `f32` values out. Knows nothing of the models
//! that the tensors belong to.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::tensor::Metadata;

use super::{ModelError, burnpack};

/// Bytes before the header of a safetensors file: its length.
const SAFETENSORS_PREFIX_BYTES: u64 = 8;
/// As the safetensors crate limits it.
const MAX_SAFETENSORS_HEADER_BYTES: u64 = 100_000_000;

/// How a file holds tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Hugging Face's: a header in JSON, then the tensors.
    Safetensors,
    /// Burn's: a header in CBOR, then the tensors.
    Burnpack,
}

impl Format {
    /// Both.
    pub const ALL: [Format; 2] = [Format::Safetensors, Format::Burnpack];

    /// What the weights in a model folder are called.
    pub fn file_name(self) -> &'static str {
        match self {
            Format::Safetensors => "model.safetensors",
            Format::Burnpack => "model.bpk",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors",
            Format::Burnpack => "burnpack",
        })
    }
}

/// What a header says of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Such as `BF16`; `F32`, `F16` and `BF16` have as many bytes as `shape` needs.
    pub dtype: String,
    pub shape: Vec<usize>,
    /// Where its bytes begin in the file, and how many they are; all of them lie in it.
    pub start: u64,
    pub bytes: u64,
}

/// A file whose header is checked and whose tensors are read one by one, so that a model inside a larger checkpoint
/// costs only its own bytes.
pub(super) struct TensorFile<R> {
    pub file: PathBuf,
    pub format: Format,
    pub file_bytes: u64,
    pub entries: BTreeMap<String, Entry>,
    reader: R,
}

impl TensorFile<File> {
    pub(super) fn open_path(file: &Path) -> Result<Self, ModelError> {
        Self::open(file, File::open(file).map_err(|source| read_error(file, source))?)
    }
}

impl<R: Read + Seek> TensorFile<R> {
    pub(super) fn open(file: &Path, mut reader: R) -> Result<Self, ModelError> {
        let failed = |source| read_error(file, source);
        let broken = |problem| ModelError::Weights { file: file.to_owned(), problems: vec![problem] };
        let file_bytes = reader.seek(SeekFrom::End(0)).map_err(failed)?;
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut prefix = Vec::new();
        reader.by_ref().take(burnpack::PREFIX_BYTES).read_to_end(&mut prefix).map_err(failed)?;
        // No safetensors file begins like that: its header would be larger than any that is read.
        let is_burnpack =
            prefix.starts_with(&burnpack::MAGIC) || file.extension().is_some_and(|e| e == "bpk");
        let (format, header) = if is_burnpack {
            (Format::Burnpack, burnpack::header(&prefix, file_bytes))
        } else {
            (Format::Safetensors, safetensors_header(&prefix, file_bytes))
        };
        // Checked against the file before anything of that size is allocated.
        let (header_start, header_bytes) = header.map_err(broken)?;
        let mut header = vec![0; header_bytes];
        reader
            .seek(SeekFrom::Start(header_start))
            .and_then(|_| reader.read_exact(&mut header))
            .map_err(failed)?;
        let entries = match format {
            Format::Burnpack => burnpack::entries(&header, file_bytes),
            Format::Safetensors => safetensors_entries(&header, file_bytes),
        };
        Ok(Self { file: file.to_owned(), format, file_bytes, entries: entries.map_err(broken)?, reader })
    }

    /// A tensor's elements, which are `F32`, `F16` or `BF16`.
    pub(super) fn tensor(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let broken = |problem| ModelError::Weights {
            file: self.file.clone(),
            problems: vec![format!("{name} {problem}")],
        };
        let Some(Entry { dtype, start, bytes, .. }) = self.entries.get(name) else {
            return Err(broken("is missing"));
        };
        let Ok(bytes) = usize::try_from(*bytes) else { return Err(broken("is too large for this machine")) };
        let mut data = vec![0; bytes];
        self.reader
            .seek(SeekFrom::Start(*start))
            .and_then(|_| self.reader.read_exact(&mut data))
            .map_err(|source| read_error(&self.file, source))?;
        Ok(match dtype.as_str() {
            "BF16" => elements(&data, |b| bf16::from_le_bytes(b).to_f32()),
            "F16" => elements(&data, |b| f16::from_le_bytes(b).to_f32()),
            _ => elements(&data, f32::from_le_bytes),
        })
    }
}

fn elements<const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&b| element(b)).collect()
}

/// Where the header of a safetensors file that begins with `prefix` lies: start and length.
fn safetensors_header(prefix: &[u8], file_bytes: u64) -> Result<(u64, usize), String> {
    let Some(length) = prefix.first_chunk() else {
        return Err(format!("{file_bytes} bytes are no safetensors file"));
    };
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > MAX_SAFETENSORS_HEADER_BYTES.min(file_bytes.saturating_sub(SAFETENSORS_PREFIX_BYTES)) {
        return Err(format!(
            "a header of {header_bytes} bytes does not fit a safetensors file of {file_bytes} bytes"
        ));
    }
    Ok((SAFETENSORS_PREFIX_BYTES, header_bytes as usize))
}

fn safetensors_entries(header: &[u8], file_bytes: u64) -> Result<BTreeMap<String, Entry>, String> {
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|e| format!("the safetensors header is broken: {e}"))?;
    let data_start = SAFETENSORS_PREFIX_BYTES + header.len() as u64;
    let promised = metadata.data_len() as u64;
    if data_start.checked_add(promised) != Some(file_bytes) {
        return Err(format!(
            "the header promises {promised} bytes of tensors, the file has {}",
            file_bytes - data_start
        ));
    }
    let entry = |name: String| {
        let info = metadata.info(&name)?;
        let (start, end) = info.data_offsets;
        let entry = Entry {
            dtype: format!("{:?}", info.dtype),
            shape: info.shape.clone(),
            start: data_start + start as u64,
            bytes: (end - start) as u64,
        };
        Some((name, entry))
    };
    Ok(metadata.offset_keys().into_iter().filter_map(entry).collect())
}

pub(super) fn read_error(file: &Path, source: std::io::Error) -> ModelError {
    ModelError::Read { file: file.to_owned(), source }
}
