//! An ELF, PE or Mach-O file in, the same bytes out, cut into its sections, its headers and what lies between. Knows nothing of
//! what is in a section.

mod elf;
mod mach_o;
mod pe;
#[cfg(test)]
mod tests;

use std::{cmp::Reverse, ops::Range};

use super::{Content, Needs, Pretokenizer, View, too_long_decoded};
use crate::data::Segment;

const MODALITY: &str = "binary";
/// A part of the file that its headers call a section, or a Mach-O segment that has none.
const SECTION: &str = "section";
/// A header, or a table that a header points to.
const HEADER: &str = "header";
/// Bytes that no header speaks of.
const GAP: &str = "gap";

/// Sections, load commands and architectures of a file in all, each: memory goes by their number, and real files stay far below.
const MOST_PARTS: usize = 1 << 18;
/// Longer names are left out: a file may have one that all its sections share, and reading it for each takes time.
const MOST_NAME_BYTES: usize = 16 << 10;
/// A Java class begins with the same four bytes as a fat Mach-O file; what would be the number of architectures is its version,
/// which is above this (the same rule as in `file`'s magic).
const MOST_ARCHITECTURES: u32 = 42;

/// Sections of executables, libraries and object files: ELF, PE, Mach-O, and Mach-O of several architectures.
///
/// The bytes stay as they are. Segments tile them in file order: kind `section`, meta `{"name":".text","format":"elf"}` (`pe`,
/// `mach-o`; `"arch":"arm64"` besides in a file of several; no `name` where it is not UTF-8 or longer than 16 KiB); kind `header`, the same meta, `name`
/// telling which; kind `gap`, no meta. Sections without bytes in the file (`.bss`) have no segment. A byte that several parts
/// claim belongs to the one that starts first; of those that start together to a header before a section, then to the one that
/// the file lists first; what of a part lies behind is still its own, and a part of which nothing is left has no segment.
///
/// Archives of objects (`.a`) and bare COFF objects are none of these: they go to quarantine.
#[derive(Clone, Debug)]
pub struct Binary {
    max_document_bytes: u64,
}

impl Binary {
    /// For files of up to `max_document_bytes`.
    pub fn new(max_document_bytes: u64) -> Self {
        Self { max_document_bytes }
    }
}

impl Pretokenizer for Binary {
    fn needs(&self, content: &Content) -> Needs {
        let n_bytes = content.bytes.len() as u64;
        let is_read = n_bytes <= self.max_document_bytes && format_of(&content.bytes).is_some();
        Needs { views: if is_read { n_bytes } else { 0 }, beside: 0 }
    }

    fn views(&self, content: Content) -> Result<Vec<View>, String> {
        let bytes = content.bytes;
        let n_bytes = bytes.len() as u64;
        if n_bytes > self.max_document_bytes {
            return Err(too_long_decoded(n_bytes, self.max_document_bytes));
        }
        let parts = parts(&bytes, self.max_document_bytes)?;
        let segments = tile(parts, n_bytes);
        Ok(vec![View { modality: MODALITY, name: None, segments, bytes }])
    }
}

/// The parts that tile `n_bytes`, by the rule of [`Binary`].
fn tile(mut parts: Vec<Part>, n_bytes: u64) -> Vec<Segment> {
    // Stable: parts of one kind that start together stay in the order of the file's own table.
    parts.sort_by_key(|part| (part.bytes.start, Reverse(part.kind == HEADER)));
    let mut segments = Vec::with_capacity(2 * parts.len() + 1);
    let mut end = 0;
    for part in parts {
        if part.bytes.end <= end {
            continue;
        }
        if part.bytes.start > end {
            segments.push(Segment { kind: GAP, bytes: end..part.bytes.start, meta: None });
        }
        segments.push(Segment {
            kind: part.kind,
            bytes: end.max(part.bytes.start)..part.bytes.end,
            meta: Some(part.meta),
        });
        end = part.bytes.end;
    }
    if end < n_bytes {
        segments.push(Segment { kind: GAP, bytes: end..n_bytes, meta: None });
    }
    segments
}

/// What a header says of some bytes; they are within the file and not empty.
struct Part {
    kind: &'static str,
    bytes: Range<u64>,
    meta: String,
}

/// A format, as the first bytes tell it.
#[derive(Clone, Copy)]
enum Format {
    Elf,
    Pe,
    MachO,
    /// Of several architectures.
    FatMachO,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Elf => "elf",
            Format::Pe => "pe",
            Format::MachO | Format::FatMachO => "mach-o",
        }
    }
}

fn format_of(bytes: &[u8]) -> Option<Format> {
    match bytes {
        [0x7f, b'E', b'L', b'F', ..] => Some(Format::Elf),
        [b'M', b'Z', ..] => Some(Format::Pe),
        [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => Some(Format::MachO),
        [0xca, 0xfe, 0xba, 0xbe, n @ ..] => {
            n.first_chunk().is_some_and(is_few_architectures).then_some(Format::FatMachO)
        }
        _ => None,
    }
}

fn is_few_architectures(n: &[u8; 4]) -> bool {
    u32::from_be_bytes(*n) <= MOST_ARCHITECTURES
}

/// All that the headers of a file say.
fn parts(bytes: &[u8], max_document_bytes: u64) -> Result<Vec<Part>, String> {
    let Some(format) = format_of(bytes) else {
        return Err(match bytes {
            [] => "no bytes",
            _ if bytes.starts_with(b"!<arch>\n") => {
                "an archive of object files, which is not ELF, PE or Mach-O itself"
            }
            _ => "not an ELF, PE or Mach-O file",
        }
        .to_owned());
    };
    let mut parts = Parts {
        format: format.name(),
        arch: None,
        file: 0..bytes.len() as u64,
        parts: Vec::new(),
        meta_bytes_left: max_document_bytes.max(1 << 20),
    };
    match format {
        Format::Elf => elf::read(bytes, &mut parts)?,
        Format::Pe => pe::read(bytes, &mut parts)?,
        Format::MachO => mach_o::read(bytes, &mut parts)?,
        Format::FatMachO => mach_o::read_fat(bytes, &mut parts)?,
    }
    Ok(parts.parts)
}

/// The parts found so far in a file, or in one architecture of it.
struct Parts {
    format: &'static str,
    arch: Option<&'static str>,
    /// Where in the whole file offsets count from, and what they must not leave.
    file: Range<u64>,
    parts: Vec<Part>,
    /// Names can be shared by many sections, and each segment has its own copy.
    meta_bytes_left: u64,
}

impl Parts {
    /// Takes note of a part. One without bytes is none.
    fn add(
        &mut self,
        kind: &'static str,
        name: Option<&str>,
        offset: u64,
        n_bytes: u64,
    ) -> Result<(), String> {
        if n_bytes == 0 {
            return Ok(());
        }
        let what = name.unwrap_or("without a name");
        let length = self.file.end - self.file.start;
        if offset.checked_add(n_bytes).is_none_or(|end| end > length) {
            return Err(format!(
                "truncated or damaged: {kind} {} has {n_bytes} bytes at {offset}, but there are only {length} bytes",
                what.escape_debug()
            ));
        }
        if self.parts.len() >= MOST_PARTS {
            return Err(format!("more than {MOST_PARTS} sections"));
        }
        let meta = self.meta(name);
        self.meta_bytes_left = self
            .meta_bytes_left
            .checked_sub(meta.len() as u64)
            .ok_or("names of sections longer than limits.max_document_bytes in all")?;
        let start = self.file.start + offset;
        self.parts.push(Part { kind, bytes: start..start + n_bytes, meta });
        Ok(())
    }

    fn meta(&self, name: Option<&str>) -> String {
        let mut meta = serde_json::Map::new();
        let fields = [("name", name), ("format", Some(self.format)), ("arch", self.arch)];
        for (key, value) in fields {
            if let Some(value) = value {
                meta.insert(key.to_owned(), value.into());
            }
        }
        serde_json::Value::Object(meta).to_string()
    }
}

/// What goblin says of headers it cannot read.
fn unread(what: &'static str) -> impl Fn(goblin::error::Error) -> String {
    move |error| format!("failed to read the {what}: {error}")
}

fn check_number(n: usize) -> Result<(), String> {
    if n > MOST_PARTS { Err(format!("{n} sections, more than {MOST_PARTS}")) } else { Ok(()) }
}

/// The name that starts at `start` and ends before a NUL.
fn name_at(names: &[u8], start: usize) -> Option<&str> {
    let name = names.get(start..)?;
    until_nul(name)
}

fn until_nul(name: &[u8]) -> Option<&str> {
    let name = &name[..name.len().min(MOST_NAME_BYTES + 1)];
    let end = memchr::memchr(0, name).unwrap_or(name.len());
    if end > MOST_NAME_BYTES { None } else { std::str::from_utf8(&name[..end]).ok() }
}
