//! The header of burnpack, Burn's format of tensors (`.bpk`): a file's header in, where its tensors lie out, and the
//! other way round. Knows nothing of what the tensors are, and opens no file.
//!
//! A file is ten bytes (magic, version, length of the metadata), the metadata in CBOR, and the tensors, each of which
//! begins at a multiple of 256 bytes; numbers are little-endian. So does [burn-pack](https://docs.rs/burn-pack/0.22.1)
//! define it, which is not used here: it brings a hundred other crates, and Burn is an optional part of this one.

use std::{collections::BTreeMap, fmt};

use ciborium::de::Error as CborError;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use super::tensors::Entry;

/// "BURN" as a number.
pub(super) const MAGIC: [u8; 4] = 0x4255_524e_u32.to_le_bytes();
/// Bytes before the metadata.
pub(super) const PREFIX_BYTES: u64 = 10;
/// Burn's only one so far.
const VERSION: u16 = 1;
/// Tensors begin at multiples of it.
const ALIGNMENT: u64 = 256;
/// Of 100,000 tensors, Burn's most. Burn itself reads up to 100 MB, which could take ten times as much memory.
const MAX_METADATA_BYTES: u64 = 16 << 20;
/// As in Burn.
const MAX_DEPTH: usize = 128;

/// Keys beside this one say where a file comes from, or hold numbers that are no tensors.
#[derive(Deserialize)]
struct Metadata {
    tensors: BTreeMap<String, Stored>,
}

/// A key beside these tells parameters of equal names apart in training.
#[derive(Deserialize)]
struct Stored {
    dtype: Dtype,
    shape: Vec<u64>,
    /// Start and end, from where the first tensor may begin.
    data_offsets: (u64, u64),
}

/// The name of a number format. What some have inside, such as the scheme of a quantized one, is passed over.
struct Dtype(String);

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl<'de> Visitor<'de> for Name {
            type Value = Dtype;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a number format")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Dtype, E> {
                Ok(Dtype(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dtype, A::Error> {
                let Some((name, IgnoredAny)) = map.next_entry()? else {
                    return Err(A::Error::custom("a number format has no name"));
                };
                while let Some((IgnoredAny, IgnoredAny)) = map.next_entry()? {}
                Ok(Dtype(name))
            }
        }

        deserializer.deserialize_any(Name)
    }
}

/// Where the metadata of a file that begins with `prefix` lies: start and length, both within the file.
pub(super) fn header(prefix: &[u8], file_bytes: u64) -> Result<(u64, usize), String> {
    let Some(&[m0, m1, m2, m3, v0, v1, l0, l1, l2, l3]) = prefix.first_chunk() else {
        return Err(format!("{file_bytes} bytes are no burnpack file"));
    };
    if [m0, m1, m2, m3] != MAGIC {
        return Err("it does not begin as a burnpack file does".to_owned());
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version != VERSION {
        return Err(format!("it has version {version} of burnpack, and only {VERSION} is known"));
    }
    let metadata_bytes = u32::from_le_bytes([l0, l1, l2, l3]);
    if u64::from(metadata_bytes) > MAX_METADATA_BYTES.min(file_bytes.saturating_sub(PREFIX_BYTES)) {
        return Err(format!(
            "metadata of {metadata_bytes} bytes does not fit a burnpack file of {file_bytes} bytes"
        ));
    }
    Ok((PREFIX_BYTES, metadata_bytes as usize))
}

/// The tensors that `metadata` tells of. They lie in the file without overlap and fill it to its end.
pub(super) fn entries(metadata: &[u8], file_bytes: u64) -> Result<BTreeMap<String, Entry>, String> {
    let mut rest = metadata;
    let parsed: Metadata =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH).map_err(|error| {
            let problem = match error {
                CborError::Io(_) => "it ends too early".to_owned(),
                CborError::Syntax(at) => format!("byte {at} makes no sense"),
                CborError::Semantic(_, problem) => problem,
                CborError::RecursionLimitExceeded => "it is nested too deep".to_owned(),
            };
            format!("the burnpack metadata is broken: {problem}")
        })?;
    if !rest.is_empty() {
        return Err(format!("the burnpack metadata is broken: {} bytes follow it", rest.len()));
    }
    let data_start = (PREFIX_BYTES + metadata.len() as u64).next_multiple_of(ALIGNMENT);
    let (mut entries, mut extents) = (BTreeMap::new(), Vec::new());
    for (name, Stored { dtype: Dtype(dtype), shape, data_offsets: (start, end) }) in parsed.tensors {
        let in_file = |offset: u64| data_start.checked_add(offset).filter(|&at| at <= file_bytes);
        let (Some(first), Some(last)) = (in_file(start), in_file(end)) else {
            return Err(format!(
                "{name} ends at byte {end} of the tensors, after the file's {file_bytes} bytes"
            ));
        };
        let Some(bytes) = last.checked_sub(first) else {
            return Err(format!("{name} ends at byte {end} of the tensors, and begins at {start}"));
        };
        let needed = size(&dtype)
            .map(|size| shape.iter().try_fold(size, |product, &dimension| product.checked_mul(dimension)));
        if needed.is_some_and(|needed| needed != Some(bytes)) {
            return Err(format!("{name} has {bytes} bytes, which do not make {shape:?} of {dtype}"));
        }
        let Ok(shape) = shape.iter().map(|&n| usize::try_from(n)).collect() else {
            return Err(format!("{name} is too large for this machine: {shape:?}"));
        };
        extents.push((first, last, name.clone()));
        entries.insert(name, Entry { dtype, shape, start: first, bytes });
    }
    extents.sort_unstable();
    let mut end = data_start;
    for (first, last, name) in extents {
        if first < end {
            return Err(format!("{name} begins within another tensor"));
        }
        end = last;
    }
    // The last tensor may be padded, too.
    if end.next_multiple_of(ALIGNMENT) < file_bytes {
        return Err(format!("{} bytes follow the last tensor", file_bytes - end));
    }
    Ok(entries)
}

/// Bytes of an element. Formats that are not here have no fixed size, or none that matters: no model has them.
fn size(dtype: &str) -> Option<u64> {
    match dtype {
        "F64" | "I64" | "U64" => Some(8),
        "F32" | "Flex32" | "I32" | "U32" => Some(4),
        "F16" | "BF16" | "I16" | "U16" => Some(2),
        "I8" | "U8" => Some(1),
        _ => None,
    }
}

/// A tensor that is to be written.
pub(super) struct Outgoing<'a> {
    pub name: &'a str,
    /// As [`Entry::dtype`].
    pub dtype: &'a str,
    pub shape: &'a [usize],
    pub bytes: usize,
}

/// All of a file that stands before its first tensor. The tensors follow in this order, with [`padding`] between them.
pub(super) fn head(tensors: &[Outgoing<'_>]) -> Result<Vec<u8>, String> {
    #[derive(Serialize)]
    struct Metadata<'a> {
        tensors: BTreeMap<&'a str, Stored<'a>>,
        metadata: BTreeMap<&'a str, &'a str>,
    }
    #[derive(Serialize)]
    struct Stored<'a> {
        dtype: &'a str,
        shape: &'a [usize],
        data_offsets: (u64, u64),
    }

    // Says of the file what those of Burn's stores say.
    let about = [("format", "burnpack"), ("producer", env!("CARGO_PKG_NAME"))];
    let mut metadata = Metadata { tensors: BTreeMap::new(), metadata: BTreeMap::from(about) };
    let mut end = 0u64;
    for &Outgoing { name, dtype, shape, bytes } in tensors {
        let start = end.next_multiple_of(ALIGNMENT);
        end = start + bytes as u64;
        metadata.tensors.insert(name, Stored { dtype, shape, data_offsets: (start, end) });
    }
    let mut cbor = Vec::new();
    ciborium::into_writer(&metadata, &mut cbor).map_err(|error| error.to_string())?;
    let length = u32::try_from(cbor.len()).map_err(|_| format!("metadata of {} bytes", cbor.len()))?;
    let mut head = [&MAGIC[..], &VERSION.to_le_bytes(), &length.to_le_bytes(), &cbor].concat();
    head.extend_from_slice(padding(head.len()));
    Ok(head)
}

/// Zeros from the end of something that began at a multiple of 256 to the next one.
pub(super) fn padding(bytes: usize) -> &'static [u8] {
    const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
    &ZEROS[..bytes.next_multiple_of(ZEROS.len()) - bytes]
}
