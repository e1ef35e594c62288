//! Headers of ELF.

use goblin::{
    container::Ctx,
    elf::{Elf, Header as ElfHeader, ProgramHeader, SectionHeader, section_header},
};

use super::{HEADER, Parts, SECTION, check_number, name_at, unread};

/// Reads the tables of headers only: what is in a section (symbols, relocations) is none of our business, and may be damaged.
pub(super) fn read(bytes: &[u8], parts: &mut Parts) -> Result<(), String> {
    let header = Elf::parse_header(bytes).map_err(unread("ELF header"))?;
    let container = header.container().map_err(unread("ELF header"))?;
    let ctx = Ctx::new(container, header.endianness().map_err(unread("ELF header"))?);
    parts.add(HEADER, Some("elf header"), 0, ElfHeader::size(ctx) as u64)?;

    let sections = sections_of(bytes, &header, ctx)?;
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

    let names = names_of(bytes, &header, &sections);
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

fn sections_of(bytes: &[u8], header: &ElfHeader, ctx: Ctx) -> Result<Vec<SectionHeader>, String> {
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
fn names_of<'a>(bytes: &'a [u8], header: &ElfHeader, sections: &[SectionHeader]) -> &'a [u8] {
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
