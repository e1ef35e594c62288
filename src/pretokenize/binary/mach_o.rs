//! Headers of Mach-O, of one architecture or several.

use goblin::{
    container::Ctx,
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
};
use scroll::{Pread, ctx::SizeWith};

use super::{HEADER, Parts, SECTION, check_number, unread, until_nul};

/// A Mach-O file of several architectures, each in its place.
pub(super) fn read_fat(bytes: &[u8], parts: &mut Parts) -> Result<(), String> {
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
        read(&bytes[start as usize..end as usize], parts)
            .map_err(|error| format!("architecture {i}: {error}"))?;
    }
    Ok(())
}

pub(super) fn read(bytes: &[u8], parts: &mut Parts) -> Result<(), String> {
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
        read_segment(&segment.map_err(unread("Mach-O segments"))?, ctx, parts)?;
    }
    Ok(())
}

/// The sections of a segment, or the segment if it has none (`__LINKEDIT`).
fn read_segment(segment: &MachSegment<'_>, ctx: Ctx, parts: &mut Parts) -> Result<(), String> {
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
