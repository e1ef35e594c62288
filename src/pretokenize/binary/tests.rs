use goblin::{mach::constants::S_ZEROFILL, pe::symbol::COFF_SYMBOL_SIZE};
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
    let file = elf_file(&[(".text", PROGBITS, 80, 20), (".bss", 8, 100, 4096), (".data", PROGBITS, 100, 10)]);
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
    let file = |n_bytes| pe_file_with_names(b"/4\0\0\0\0\0\0", 0, &[vec![b'a'; n_bytes], vec![0]].concat());
    assert_eq!(section_name(&file(MOST_NAME_BYTES)), format!("section {} pe", "a".repeat(MOST_NAME_BYTES)));
    assert_eq!(section_name(&file(MOST_NAME_BYTES + 1)), "section ? pe");
}

/// 64 bits, little endian: a segment of one section and a zero-filled one, and `__LINKEDIT`.
fn mach_file() -> Vec<u8> {
    let mut file = Vec::new();
    let words = |file: &mut Vec<u8>, words: &[u32]| file.extend(words.iter().flat_map(|w| w.to_le_bytes()));
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
