//! An ELF, PE or Mach-O file in, the same bytes out, cut into its sections, its headers and what lies between. Knows nothing of
//! what is in a section.

use std::{cmp::Reverse, ops::Range};

use goblin::{
    container::Ctx,
    elf::{Elf, Header as ElfHeader, ProgramHeader, SectionHeader, section_header},
    mach::{
        constants::{
            S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL, S_ZEROFILL, SECTION_TYPE,
            cputype::get_arch_name_from_types,
        },
        fat::{FatArch, FatHeader, SIZEOF_FAT_ARCH, SIZEOF_FAT_HEADER},
        header::Header as MachHeader,
        load_command::{CommandVariant, LoadCommand},
        parse_magic_and_ctx,
        segment::{Section as MachSection, Segment as MachSegment},
    },
    pe::{
        header::{CoffHeader, DosHeader, SIZEOF_COFF_HEADER, SIZEOF_PE_MAGIC},
        optional_header::OptionalHeader,
        section_table::SIZEOF_SECTION_TABLE,
        symbol::COFF_SYMBOL_SIZE,
    },
};
use scroll::{LE, Pread, ctx::SizeWith};

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
        Format::Elf => elf(bytes, &mut parts)?,
        Format::Pe => pe(bytes, &mut parts)?,
        Format::MachO => mach(bytes, &mut parts)?,
        Format::FatMachO => fat_mach(bytes, &mut parts)?,
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

/// Reads the tables of headers only: what is in a section (symbols, relocations) is none of our business, and may be damaged.
fn elf(bytes: &[u8], parts: &mut Parts) -> Result<(), String> {
    let header = Elf::parse_header(bytes).map_err(unread("ELF header"))?;
    let container = header.container().map_err(unread("ELF header"))?;
    let ctx = Ctx::new(container, header.endianness().map_err(unread("ELF header"))?);
    parts.add(HEADER, Some("elf header"), 0, ElfHeader::size(ctx) as u64)?;

    let sections = elf_sections(bytes, &header, ctx)?;
    let mut n_segments = u32::from(header.e_phnum);
    if let (0xffff, Some(first)) = (n_segments, sections.first()) {
        n_segments = first.sh_info;
    }
    if n_segments > 0 {
        let n_segments = n_segments as usize;
        check_number(n_segments)?;
        ProgramHeader::parse(bytes, header.e_phoff as usize, n_segments, ctx)
            .map_err(unread("ELF program headers"))?;
        let n_bytes = n_segments * ProgramHeader::size(ctx);
        parts.add(HEADER, Some("program headers"), header.e_phoff, n_bytes as u64)?;
    }
    parts.add(
        HEADER,
        Some("section headers"),
        header.e_shoff,
        (sections.len() * SectionHeader::size(ctx)) as u64,
    )?;

    let names = elf_names(bytes, &header, &sections);
    for section in &sections {
        // The first one is no section but room for numbers that the header has no room for.
        if matches!(section.sh_type, section_header::SHT_NULL | section_header::SHT_NOBITS) {
            continue;
        }
        let name = name_at(names, section.sh_name);
        parts.add(SECTION, name, section.sh_offset, section.sh_size)?;
    }
    Ok(())
}

fn elf_sections(bytes: &[u8], header: &ElfHeader, ctx: Ctx) -> Result<Vec<SectionHeader>, String> {
    let failed = unread("ELF section headers");
    if header.e_shoff == 0 {
        return Ok(Vec::new());
    }
    let size = SectionHeader::size(ctx);
    if usize::from(header.e_shentsize) != size {
        return Err(format!("ELF section headers of {} bytes, not {size}", header.e_shentsize));
    }
    let offset = header.e_shoff as usize;
    if offset > bytes.len() {
        return Err("truncated or damaged: ELF section headers behind the file's end".to_owned());
    }
    let mut number = u64::from(header.e_shnum);
    if number == 0 {
        // Too many for the header's field: the first section's size tells.
        let first = SectionHeader::parse(bytes, offset, 1, ctx).map_err(&failed)?;
        number = first.first().map_or(0, |first| first.sh_size);
        if number == 0 {
            return Ok(Vec::new());
        }
    }
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    check_number(number)?;
    SectionHeader::parse(bytes, offset, number, ctx).map_err(failed)
}

/// The table that names of sections are in, empty where there is none.
fn elf_names<'a>(bytes: &'a [u8], header: &ElfHeader, sections: &[SectionHeader]) -> &'a [u8] {
    let index = match (u32::from(header.e_shstrndx), sections.first()) {
        (section_header::SHN_XINDEX, Some(first)) => first.sh_link,
        (index, _) => index,
    };
    sections
        .get(index as usize)
        .and_then(|table| {
            let start = usize::try_from(table.sh_offset).ok()?;
            let end = start.checked_add(usize::try_from(table.sh_size).ok()?)?;
            bytes.get(start..end)
        })
        .unwrap_or_default()
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

fn pe(bytes: &[u8], parts: &mut Parts) -> Result<(), String> {
    let failed = unread("PE header");
    let dos_header = DosHeader::parse(bytes).map_err(&failed)?;
    let mut offset = dos_header.pe_pointer as usize + SIZEOF_PE_MAGIC;
    let coff_header = CoffHeader::parse(bytes, &mut offset).map_err(&failed)?;
    let optional_header_at = dos_header.pe_pointer as usize + SIZEOF_PE_MAGIC + SIZEOF_COFF_HEADER;
    let sections_at = optional_header_at + usize::from(coff_header.size_of_optional_header);
    let n_sections = usize::from(coff_header.number_of_sections);
    parts.add(HEADER, Some("pe header"), 0, sections_at as u64)?;
    parts.add(
        HEADER,
        Some("section table"),
        sections_at as u64,
        (n_sections * SIZEOF_SECTION_TABLE) as u64,
    )?;

    // Goblin would copy a section's name out of the string table, for all of them before the first is looked at.
    let names = pe_names(bytes, &coff_header);
    let table = bytes.get(sections_at..).unwrap_or_default();
    for section in table.chunks_exact(SIZEOF_SECTION_TABLE).take(n_sections) {
        let number =
            |at| section.pread_with::<u32>(at, LE).map_err(|e| format!("failed to read a PE section: {e}"));
        let (n_bytes, offset) = (number(16)?, number(20)?);
        // Only what has a place in the file: `.bss` has a size alone.
        if offset != 0 {
            parts.add(SECTION, pe_name(&section[..8], names), offset.into(), n_bytes.into())?;
        }
    }

    if coff_header.pointer_to_symbol_table != 0 {
        let start = u64::from(coff_header.pointer_to_symbol_table);
        let n_bytes = u64::from(coff_header.number_of_symbol_table) * COFF_SYMBOL_SIZE as u64;
        parts.add(HEADER, Some("symbol table"), start, n_bytes)?;
    }
    if coff_header.size_of_optional_header > 0 {
        let header: OptionalHeader =
            bytes.pread_with(optional_header_at, LE).map_err(unread("PE optional header"))?;
        if let Some(table) = header.data_directories.get_certificate_table() {
            // The one directory that is found by its place in the file rather than in memory.
            let (start, n_bytes) = (u64::from(table.virtual_address), u64::from(table.size));
            parts.add(HEADER, Some("certificate table"), start, n_bytes)?;
        }
    }
    Ok(())
}

/// The string table, which stands behind the symbols and begins with its own size; empty where there is none.
fn pe_names<'a>(bytes: &'a [u8], header: &CoffHeader) -> &'a [u8] {
    if header.pointer_to_symbol_table == 0 {
        return &[];
    }
    let n_symbols = header.number_of_symbol_table as usize;
    let start = header.pointer_to_symbol_table as usize + n_symbols * COFF_SYMBOL_SIZE;
    let table = bytes.get(start..).unwrap_or_default();
    let n_bytes = table.first_chunk().map_or(0, |size| u32::from_le_bytes(*size));
    table.get(..n_bytes as usize).unwrap_or_default()
}

/// The name of a section: what its field of 8 bytes says, or the entry of `names` that this points to.
fn pe_name<'a>(field: &'a [u8], names: &'a [u8]) -> Option<&'a str> {
    let field = until_nul(field);
    match field.and_then(pe_name_offset) {
        // The first four bytes are no name.
        Some(offset) if (4..names.len()).contains(&offset) => name_at(names, offset),
        _ => field,
    }
}

/// `/12` in decimal, or `//AAAAAM` in base 64 for what has no room in seven digits (`getSectionName` in LLVM's `COFFObjectFile.cpp`).
fn pe_name_offset(field: &str) -> Option<usize> {
    let digits = field.strip_prefix('/')?;
    let (base, digits) = digits.strip_prefix('/').map_or((10, digits), |digits| (64, digits));
    if digits.is_empty() {
        return None;
    }
    digits.bytes().try_fold(0, |offset, byte| {
        let digit = match byte {
            b'0'..=b'9' if base == 10 => byte - b'0',
            b'A'..=b'Z' if base == 64 => byte - b'A',
            b'a'..=b'z' if base == 64 => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' if base == 64 => 62,
            b'/' if base == 64 => 63,
            _ => return None,
        };
        Some(offset * base + usize::from(digit))
    })
}

/// A Mach-O file of several architectures, each in its place.
fn fat_mach(bytes: &[u8], parts: &mut Parts) -> Result<(), String> {
    let failed = unread("fat Mach-O header");
    let header = FatHeader::parse(bytes).map_err(&failed)?;
    let n_bytes = SIZEOF_FAT_HEADER + header.nfat_arch as usize * SIZEOF_FAT_ARCH;
    parts.add(HEADER, Some("fat header"), 0, n_bytes as u64)?;
    for i in 0..header.nfat_arch as usize {
        let arch = FatArch::parse(bytes, SIZEOF_FAT_HEADER + i * SIZEOF_FAT_ARCH).map_err(&failed)?;
        let (start, end) = (u64::from(arch.offset), u64::from(arch.offset) + u64::from(arch.size));
        if end > bytes.len() as u64 {
            return Err(format!(
                "truncated or damaged: architecture {i} ends at {end}, behind the file's end"
            ));
        }
        parts.arch = get_arch_name_from_types(arch.cputype(), arch.cpusubtype());
        parts.file = start..end;
        mach(&bytes[start as usize..end as usize], parts)
            .map_err(|error| format!("architecture {i}: {error}"))?;
    }
    Ok(())
}

fn mach(bytes: &[u8], parts: &mut Parts) -> Result<(), String> {
    let failed = unread("Mach-O header");
    let (magic, ctx) = parse_magic_and_ctx(bytes, 0).map_err(&failed)?;
    let ctx = ctx.ok_or_else(|| format!("not a Mach-O file: its first bytes are {magic:#010x}"))?;
    let header: MachHeader = bytes.pread_with(0, ctx).map_err(&failed)?;
    let mut offset = MachHeader::size_with(&ctx.container);
    parts.add(HEADER, Some("mach header"), 0, offset as u64)?;
    parts.add(HEADER, Some("load commands"), offset as u64, header.sizeofcmds.into())?;
    check_number(header.ncmds)?;

    let end = offset + header.sizeofcmds as usize;
    for _ in 0..header.ncmds {
        let command =
            LoadCommand::parse(bytes, &mut offset, ctx.le).map_err(unread("Mach-O load commands"))?;
        // A size of less than a command's head would read the same bytes again and again.
        if command.command.cmdsize() < 8 || offset > end {
            return Err("Mach-O load commands do not fill the room that the header gives them".to_owned());
        }
        let segment = match &command.command {
            CommandVariant::Segment32(segment) => {
                MachSegment::from_32_lossy(bytes, segment, command.offset, ctx)
            }
            CommandVariant::Segment64(segment) => {
                MachSegment::from_64_lossy(bytes, segment, command.offset, ctx)
            }
            CommandVariant::Symtab(table) => {
                let symbol_bytes = if ctx.is_big() { 16 } else { 12 };
                let n_bytes = u64::from(table.nsyms) * symbol_bytes;
                parts.add(HEADER, Some("symbol table"), table.symoff.into(), n_bytes)?;
                parts.add(HEADER, Some("string table"), table.stroff.into(), table.strsize.into())?;
                continue;
            }
            _ => continue,
        };
        mach_segment(&segment.map_err(unread("Mach-O segments"))?, ctx, parts)?;
    }
    Ok(())
}

/// The sections of a segment, or the segment if it has none (`__LINKEDIT`).
fn mach_segment(segment: &MachSegment<'_>, ctx: Ctx, parts: &mut Parts) -> Result<(), String> {
    // In a file of debug symbols the other segments are told, but are not there.
    if segment.filesize == 0 {
        return Ok(());
    }
    if segment.nsects == 0 {
        return parts.add(SECTION, until_nul(&segment.segname), segment.fileoff, segment.filesize);
    }
    let room = (segment.cmdsize as usize).saturating_sub(MachSegment::size_with(&ctx));
    if segment.nsects as usize > room / MachSection::size_with(&ctx) {
        return Err(format!("{} sections in a Mach-O load command of {room} bytes", segment.nsects));
    }
    for section in segment {
        let (section, _) = section.map_err(unread("Mach-O sections"))?;
        let is_empty = [S_ZEROFILL, S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL];
        if is_empty.contains(&(section.flags & SECTION_TYPE)) {
            continue;
        }
        let name = until_nul(&section.segname)
            .zip(until_nul(&section.sectname))
            .map(|(segment, section)| format!("{segment},{section}"));
        parts.add(SECTION, name.as_deref(), section.offset.into(), section.size)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segments(bytes: &[u8]) -> Result<Vec<(String, Range<u64>)>, String> {
        let content = Content { bytes: bytes.to_vec(), ..Content::default() };
        let mut views = Binary::new(1 << 20).views(content)?;
        assert_eq!(views.len(), 1);
        let view = views.remove(0);
        assert_eq!((view.modality, &view.name), (MODALITY, &None));
        assert_eq!(view.bytes, bytes);
        let mut end = 0;
        for segment in &view.segments {
            assert_eq!(segment.bytes.start, end, "segments tile");
            assert!(segment.bytes.start < segment.bytes.end, "none is empty");
            end = segment.bytes.end;
        }
        assert_eq!(end, bytes.len() as u64);
        let name = |segment: Segment| match segment.meta {
            None => (segment.kind.to_owned(), segment.bytes),
            Some(meta) => {
                let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
                let name = meta["name"].as_str().unwrap_or("?");
                let arch = meta["arch"].as_str().map_or(String::new(), |arch| format!(" of {arch}"));
                let format = meta["format"].as_str().unwrap();
                (format!("{} {name} {format}{arch}", segment.kind), segment.bytes)
            }
        };
        Ok(view.segments.into_iter().map(name).collect())
    }

    fn told(bytes: &[u8]) -> Vec<(String, Range<u64>)> {
        segments(bytes).unwrap()
    }

    fn named(parts: &[(&str, Range<u64>)]) -> Vec<(String, Range<u64>)> {
        parts.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect()
    }

    /// Name, type, place and size of a section.
    type Section = (&'static str, u32, u64, u64);
    const PROGBITS: u32 = 1;

    /// ELF64, little endian: header, 100 bytes of anything, names, headers of sections.
    fn elf_file(sections: &[Section]) -> Vec<u8> {
        let mut names = vec![0];
        let mut table = vec![0; 64];
        let mut section = |name: &str, kind: u32, offset: u64, size: u64, names: &mut Vec<u8>| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            table.extend(header);
            names.extend(name.bytes().chain([0]));
        };
        for &(name, kind, offset, size) in sections {
            section(name, kind, offset, size, &mut names);
        }
        let names_size = names.len() + ".shstrtab\0".len();
        section(".shstrtab", 3, 164, names_size as u64, &mut names);

        let mut file = vec![0; 64];
        file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        file[16..18].copy_from_slice(&1_u16.to_le_bytes());
        file[40..48].copy_from_slice(&(164 + names.len() as u64).to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&(sections.len() as u16 + 2).to_le_bytes());
        file[62..64].copy_from_slice(&(sections.len() as u16 + 1).to_le_bytes());
        file.extend((0..100_u8).map(|i| i.wrapping_mul(37)));
        file.extend(names);
        file.extend(table);
        file
    }

    #[test]
    fn elf_is_cut_into_headers_sections_and_gaps() {
        let file =
            elf_file(&[(".text", PROGBITS, 80, 20), (".bss", 8, 100, 4096), (".data", PROGBITS, 100, 10)]);
        assert_eq!(
            told(&file),
            named(&[
                ("header elf header elf", 0..64),
                ("gap", 64..80),
                ("section .text elf", 80..100),
                ("section .data elf", 100..110),
                ("gap", 110..164),
                ("section .shstrtab elf", 164..192),
                ("header section headers elf", 192..512),
            ])
        );
    }

    #[test]
    fn a_byte_belongs_to_the_section_that_starts_first() {
        let file = elf_file(&[
            ("a", PROGBITS, 70, 30),
            ("nested", PROGBITS, 80, 10),
            ("overlaps", PROGBITS, 90, 30),
            ("same", PROGBITS, 70, 10),
            ("on the header", PROGBITS, 0, 66),
        ]);
        assert_eq!(
            told(&file)[..5],
            named(&[
                ("header elf header elf", 0..64),
                ("section on the header elf", 64..66),
                ("gap", 66..70),
                ("section a elf", 70..100),
                ("section overlaps elf", 100..120),
            ])
        );
    }

    #[test]
    fn a_section_behind_the_end_says_that_the_file_is_truncated() {
        let error = segments(&elf_file(&[(".text", PROGBITS, 80, 2000)])).unwrap_err();
        assert_eq!(
            error,
            "truncated or damaged: section .text has 2000 bytes at 80, but there are only 373 bytes"
        );
        let overflow = elf_file(&[(".text", PROGBITS, u64::MAX, 2)]);
        assert!(segments(&overflow).unwrap_err().starts_with("truncated or damaged"));
    }

    #[test]
    fn a_hostile_number_of_sections_is_refused_by_its_number() {
        let mut file = elf_file(&[]);
        file[60..62].copy_from_slice(&0_u16.to_le_bytes());
        let first = file.len() - 128;
        file[first + 32..first + 40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(segments(&file).unwrap_err(), format!("{} sections, more than 262144", u64::MAX));
        file[60..62].copy_from_slice(&u16::MAX.to_le_bytes());
        let error = segments(&file).unwrap_err();
        assert_eq!(
            error,
            "failed to read the ELF section headers: Buffer is too short for 65535 section headers"
        );
    }

    #[test]
    fn a_name_that_is_not_utf8_is_left_out() {
        let mut file = elf_file(&[("xyz", PROGBITS, 80, 20)]);
        file[165] = 0xff;
        assert_eq!(told(&file)[2], ("section ? elf".to_owned(), 80..100));
    }

    /// PE32+ with an optional header of the shortest kind goblin reads, one section, and bytes behind it.
    fn pe_file() -> Vec<u8> {
        let mut file = vec![0; 0x300];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c..0x40].copy_from_slice(&0x80_u32.to_le_bytes());
        file[0x80..0x84].copy_from_slice(b"PE\0\0");
        file[0x84..0x86].copy_from_slice(&0x8664_u16.to_le_bytes());
        file[0x86..0x88].copy_from_slice(&2_u16.to_le_bytes());
        for (i, (name, size, place)) in
            [(b".text\0\0\0", 0x80_u32, 0x200_u32), (b".bss\0\0\0\0", 0x1000, 0)].iter().enumerate()
        {
            let at = 0x98 + 40 * i;
            file[at..at + 8].copy_from_slice(*name);
            file[at + 16..at + 20].copy_from_slice(&size.to_le_bytes());
            file[at + 20..at + 24].copy_from_slice(&place.to_le_bytes());
        }
        file
    }

    #[test]
    fn pe_is_cut_into_headers_sections_and_what_is_appended() {
        assert_eq!(
            told(&pe_file()),
            named(&[
                ("header pe header pe", 0..0x98),
                ("header section table pe", 0x98..0xe8),
                ("gap", 0xe8..0x200),
                ("section .text pe", 0x200..0x280),
                ("gap", 0x280..0x300),
            ])
        );
        let mut dos = pe_file();
        dos[0x80..0x82].copy_from_slice(b"NE");
        assert_eq!(
            segments(&dos).unwrap_err(),
            "failed to read the PE header: Malformed entity: PE header is malformed (signature 0x454e)"
        );
    }

    /// [`pe_file`] with `field` in the place of `.text`, symbols at its end, and behind these a string table of `names`.
    fn pe_file_with_names(field: &[u8; 8], n_symbols: u32, names: &[u8]) -> Vec<u8> {
        let mut file = pe_file();
        file[0x98..0xa0].copy_from_slice(field);
        file[0x8c..0x90].copy_from_slice(&0x300_u32.to_le_bytes());
        file[0x90..0x94].copy_from_slice(&n_symbols.to_le_bytes());
        file.resize(0x300 + n_symbols as usize * COFF_SYMBOL_SIZE, 0);
        file.extend((names.len() as u32 + 4).to_le_bytes());
        file.extend(names);
        file
    }

    fn section_name(file: &[u8]) -> String {
        told(file).into_iter().find(|(name, _)| name.starts_with("section ")).unwrap().0
    }

    #[test]
    fn long_names_of_pe_sections_are_in_the_string_table() {
        let names = b".debug_line\0.debug_info\0";
        for (field, expected) in [
            (b"/4\0\0\0\0\0\0", "section .debug_line pe"),
            (b"/16\0\0\0\0\0", "section .debug_info pe"),
            (b"//AAAAAQ", "section .debug_info pe"),
            // These point to no name, so they are one.
            (b"/3\0\0\0\0\0\0", "section /3 pe"),
            (b"/29\0\0\0\0\0", "section /29 pe"),
            (b"/+4\0\0\0\0\0", "section /+4 pe"),
            (b"//A-\0\0\0\0", "section //A- pe"),
            (b"/\0\0\0\0\0\0\0", "section / pe"),
            (b"/9999999", "section /9999999 pe"),
            (b"//\0\0\0\0\0\0", "section // pe"),
        ] {
            assert_eq!(section_name(&pe_file_with_names(field, 2, names)), expected);
        }
    }

    #[test]
    fn without_a_string_table_no_name_is_taken_from_elsewhere() {
        let mut file = pe_file_with_names(b"/4\0\0\0\0\0\0", 0, b".debug_line\0");
        assert_eq!(section_name(&file), "section .debug_line pe");
        file[0x300] = 0xff;
        assert_eq!(section_name(&file), "section /4 pe", "a table that ends behind the file");
        // Byte 4 of the file itself.
        file[0x8c..0x90].fill(0);
        file[4..8].copy_from_slice(b"DOS\0");
        assert_eq!(section_name(&file), "section /4 pe");
    }

    /// 65,535 sections that share a name of megabytes would take gigabytes for it.
    #[test]
    fn a_name_is_no_longer_than_any_real_one() {
        let file =
            |n_bytes| pe_file_with_names(b"/4\0\0\0\0\0\0", 0, &[vec![b'a'; n_bytes], vec![0]].concat());
        assert_eq!(
            section_name(&file(MOST_NAME_BYTES)),
            format!("section {} pe", "a".repeat(MOST_NAME_BYTES))
        );
        assert_eq!(section_name(&file(MOST_NAME_BYTES + 1)), "section ? pe");
    }

    /// 64 bits, little endian: a segment of one section and a zero-filled one, and `__LINKEDIT`.
    fn mach_file() -> Vec<u8> {
        let mut file = Vec::new();
        let words =
            |file: &mut Vec<u8>, words: &[u32]| file.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        let name = |file: &mut Vec<u8>, name: &str| {
            file.extend(name.bytes().chain(std::iter::repeat(0)).take(16));
        };
        words(&mut file, &[0xfeed_facf, 0x0100_000c, 0, 2, 2, 72 + 160 + 72, 0, 0]);
        words(&mut file, &[0x19, 72 + 160]);
        name(&mut file, "__TEXT");
        words(&mut file, &[0, 0, 0, 0, 0, 0, 0x200, 0, 7, 5, 2, 0]);
        for (section, offset, flags) in [("__text", 0x180, 0), ("__bss", 0x180, S_ZEROFILL)] {
            name(&mut file, section);
            name(&mut file, "__TEXT");
            words(&mut file, &[0, 0, 0x40, 0, offset, 0, 0, 0, flags, 0, 0, 0]);
        }
        words(&mut file, &[0x19, 72]);
        name(&mut file, "__LINKEDIT");
        words(&mut file, &[0, 0, 0, 0, 0x1c0, 0, 0x40, 0, 7, 5, 0, 0]);
        file.resize(0x200, 0xaa);
        file
    }

    #[test]
    fn mach_o_sections_are_named_with_their_segments() {
        assert_eq!(
            told(&mach_file()),
            named(&[
                ("header mach header mach-o", 0..32),
                ("header load commands mach-o", 32..336),
                ("gap", 336..0x180),
                ("section __TEXT,__text mach-o", 0x180..0x1c0),
                ("section __LINKEDIT mach-o", 0x1c0..0x200),
            ])
        );
    }

    #[test]
    fn fat_mach_o_tells_the_architectures_in_file_order() {
        let thin = mach_file();
        let mut file = Vec::new();
        file.extend([0xcafe_babe_u32, 2].iter().flat_map(|word| word.to_be_bytes()));
        for (cpu, offset) in [(0x0100_000c_u32, 0x400_u32), (0x0100_0007, 0x100)] {
            let subtype = if cpu == 0x0100_000c { 0 } else { 3 };
            file.extend([cpu, subtype, offset, 0x200, 8].iter().flat_map(|word| word.to_be_bytes()));
        }
        file.resize(0x100, 0);
        file.extend(&thin);
        file.resize(0x400, 0);
        file.extend(&thin);
        let told = told(&file);
        assert_eq!(told[0], ("header fat header mach-o".to_owned(), 0..48));
        let sections: Vec<_> = told.iter().filter(|(name, _)| name.starts_with("section __TEXT")).collect();
        assert_eq!(
            sections,
            [
                &("section __TEXT,__text mach-o of x86_64".to_owned(), 0x280..0x2c0),
                &("section __TEXT,__text mach-o of arm64".to_owned(), 0x580..0x5c0),
            ]
        );
    }

    #[test]
    fn what_is_none_of_the_formats_goes_to_quarantine() {
        let cases: [(&[u8], &str); 6] = [
            (b"", "no bytes"),
            (b"#!/bin/sh\n", "not an ELF, PE or Mach-O file"),
            (b"\xca\xfe\xba\xbe\0\0\0\x34\0\x1d", "not an ELF, PE or Mach-O file"),
            (b"!<arch>\ndebian-binary", "an archive of object files, which is not ELF, PE or Mach-O itself"),
            (b"MZ", "failed to read the PE header: "),
            (b"\x7fELF", "failed to read the ELF header: "),
        ];
        for (bytes, reason) in cases {
            let error = segments(bytes).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
            let content = Content { bytes: bytes.to_vec(), ..Content::default() };
            let is_by_first_bytes = reason.starts_with("failed");
            assert_eq!(Binary::new(1 << 20).needs(&content).views > 0, is_by_first_bytes, "{reason}");
        }
    }

    #[test]
    fn a_file_above_the_limit_is_not_cut() {
        let content = Content { bytes: pe_file(), ..Content::default() };
        let estimates = [0x2ff, 0x300].map(|limit| Binary::new(limit).needs(&content).views);
        assert_eq!(estimates, [0, 0x300]);
        assert_eq!(Binary::new(0x2ff).views(content).unwrap_err(), too_long_decoded(0x300, 0x2ff));
    }

    #[test]
    fn every_truncation_of_elf_is_refused() {
        // The table of section headers is at its end.
        let file = elf_file(&[(".text", PROGBITS, 80, 20)]);
        for length in 0..file.len() {
            assert!(segments(&file[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

        #[test]
        fn damaged_files_tile_or_are_refused(
            which in 0..3_usize,
            length in 0.0..1.5_f64,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut file = match which {
                0 => elf_file(&[(".text", PROGBITS, 80, 20), (".data", PROGBITS, 90, 30)]),
                1 => pe_file(),
                _ => mach_file(),
            };
            file.truncate((length * file.len() as f64) as usize);
            for (place, byte) in changes {
                if !file.is_empty() {
                    let place = place.index(file.len());
                    file[place] = byte;
                }
            }
            let _ = segments(&file);
        }
    }
}
