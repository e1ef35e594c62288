//! Headers of PE.

use goblin::pe::{
    header::{CoffHeader, DosHeader, SIZEOF_COFF_HEADER, SIZEOF_PE_MAGIC},
    optional_header::OptionalHeader,
    section_table::SIZEOF_SECTION_TABLE,
    symbol::COFF_SYMBOL_SIZE,
};
use scroll::{LE, Pread};

use super::{HEADER, Parts, SECTION, name_at, unread, until_nul};

pub(super) fn read(bytes: &[u8], parts: &mut Parts) -> Result<(), String> {
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
    let names = names_of(bytes, &coff_header);
    let table = bytes.get(sections_at..).unwrap_or_default();
    for section in table.chunks_exact(SIZEOF_SECTION_TABLE).take(n_sections) {
        let number =
            |at| section.pread_with::<u32>(at, LE).map_err(|e| format!("failed to read a PE section: {e}"));
        let (n_bytes, offset) = (number(16)?, number(20)?);
        // Only what has a place in the file: `.bss` has a size alone.
        if offset != 0 {
            parts.add(SECTION, name_of(&section[..8], names), offset.into(), n_bytes.into())?;
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
fn names_of<'a>(bytes: &'a [u8], header: &CoffHeader) -> &'a [u8] {
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
fn name_of<'a>(field: &'a [u8], names: &'a [u8]) -> Option<&'a str> {
    let field = until_nul(field);
    match field.and_then(name_offset) {
        // The first four bytes are no name.
        Some(offset) if (4..names.len()).contains(&offset) => name_at(names, offset),
        _ => field,
    }
}

/// `/12` in decimal, or `//AAAAAM` in base 64 for what has no room in seven digits (`getSectionName` in LLVM's `COFFObjectFile.cpp`).
fn name_offset(field: &str) -> Option<usize> {
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
