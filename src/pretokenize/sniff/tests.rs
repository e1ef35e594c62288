use super::*;

fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A box of ISO media.
fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    cat(&[&(content.len() as u32 + 8).to_be_bytes(), name, content])
}

/// A film or sound of that brand whose tracks have these handlers; its `moov` stands at the end.
fn mp4(brand: &[u8; 4], handlers: &[&[u8; 4]]) -> Vec<u8> {
    let track = |handler: &&[u8; 4]| {
        let hdlr = boxed(b"hdlr", &cat(&[&[0; 8], *handler, &[0; 13]]));
        boxed(b"trak", &boxed(b"mdia", &hdlr))
    };
    let tracks: Vec<u8> = handlers.iter().flat_map(track).collect();
    let ftyp = boxed(b"ftyp", &cat(&[brand, b"\0\0\x02\0"]));
    cat(&[&ftyp, &boxed(b"mdat", b"moov and what looks like it"), &boxed(b"moov", &tracks)])
}

/// Matroska with tracks of these types; the segment's length is unknown, as it is in a live recording.
fn mkv(types: &[u8]) -> Vec<u8> {
    let tracks: Vec<u8> = types.iter().flat_map(|kind| [0xae, 0x83, 0x83, 0x81, *kind]).collect();
    let head = b"\x1a\x45\xdf\xa3\x84\x42\x86\x81\x01\x18\x53\x80\x67\xff\xec\x81\0\x16\x54\xae\x6b";
    cat(&[head, &[0x80 | tracks.len() as u8], &tracks, b"\x1f\x43\xb6\x75\x80"])
}

/// A first page of an Ogg stream.
fn ogg_page(packet: &[u8]) -> Vec<u8> {
    cat(&[b"OggS\0\x02", &[0; 20], &[1, packet.len() as u8], packet])
}

fn frames(header: &[u8], frame_bytes: usize) -> Vec<u8> {
    let mut frame = header.to_vec();
    frame.resize(frame_bytes, 0);
    cat(&[&frame, &frame])
}

fn exe(pointer: u32, n_bytes: usize, magic: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; n_bytes];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c..0x40].copy_from_slice(&pointer.to_le_bytes());
    bytes[0x80..0x80 + magic.len()].copy_from_slice(magic);
    bytes
}

fn riff_of(group: &[u8; 4], form: &[u8; 4]) -> Vec<u8> {
    cat(&[group, b"\x24\0\0\0", form, b"fmt \x10\0\0\0"])
}

#[track_caller]
fn assert_kinds(table: &[(Kind, &[u8], &str)]) {
    for (kind, bytes, path) in table {
        let path = (!path.is_empty()).then_some(*path);
        let head = &bytes[..bytes.len().min(40)];
        assert_eq!(kind_of(bytes, path), *kind, "{:?} {path:?}", head.escape_ascii().to_string());
    }
}

#[test]
fn pictures_are_known_by_their_signatures() {
    let bmp = |header: u8| cat(&[b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0", &[header, 0, 0, 0], &[0; 20]]);
    let icon = b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0\x68\0\0\0\x16\0\0\0";
    assert_kinds(&[
        (Kind::Image, b"\x89PNG\r\n\x1a\n", ""),
        (Kind::Image, b"\xff\xd8\xff\xe0", "song.mp3"),
        (Kind::Image, b"GIF89a\x01\0\x01\0", "a.txt"),
        (Kind::Image, b"II*\0\x08\0\0\0", ""),
        (Kind::Image, b"MM\0*\0\0\0\x08", ""),
        (Kind::Image, &riff_of(b"RIFF", b"WEBP"), ""),
        (Kind::Image, &bmp(40), ""),
        (Kind::Image, &bmp(124), ""),
        (Kind::Raw, &bmp(41), ""),
        (Kind::Image, icon, ""),
        (Kind::Raw, b"\0\0\x01\0\x01\0\x10\x10", ""),
        (Kind::Image, b"qoif\0\0\0\x01", ""),
        (Kind::Image, &mp4(b"avif", &[b"pict"]), ""),
        (Kind::Image, &mp4(b"heic", &[]), ""),
        (Kind::Image, &cat(&[&[0; 30], b"TRUEVISION-XFILE.\0"]), ""),
        (Kind::Image, b"\0\0\x02\0\0\0\0\0", "dir.d/A.TGA"),
        (Kind::Raw, b"\0\0\x02\0\0\0\0\0", "tga"),
        (Kind::Raw, b"\xff\x0a\xfa\x1f", "a.bin"),
        (Kind::Image, b"\xff\x0a\xfa\x1f", "a.jxl"),
    ]);
}

#[test]
fn maps_of_pixels_written_as_text_are_told_from_text() {
    assert_kinds(&[
        (Kind::Image, b"P1\n# a cross\n3 3\n010\n111\n010\n", ""),
        (Kind::Image, b"P3 1 2 255\n0 0 0\r\n255 255 255", ""),
        (Kind::Image, b"P5\n2 2\n255\n\0\x01\x02\xff", ""),
        (Kind::Image, b"P5 2 2 255 abcd", ""),
        (Kind::Image, b"P4 9 1\n\xff\x80", ""),
        (Kind::Image, b"P6\n2 2\n255\n\0cut", ""),
        (Kind::Text, b"P5 2 2 255 more words than pixels", ""),
        (Kind::Text, b"P1 and P2 are points.", ""),
        (Kind::Text, b"P3 1 2 255\n", ""),
        (Kind::Text, b"P3 10 20 30 oranges", ""),
        (Kind::Text, b"P6 99999999999 1 255 a", ""),
        (Kind::Text, b"P2 2 2 70000 1 2 3 4", ""),
        (Kind::Image, b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\nabcd", ""),
        (Kind::Text, b"#?RADIANCE is a format", ""),
    ]);
}

#[test]
fn sound_is_told_from_moving_pictures_by_what_the_container_holds() {
    assert_kinds(&[
        (Kind::Audio, &riff_of(b"RIFF", b"WAVE"), ""),
        (Kind::Audio, &riff_of(b"RF64", b"WAVE"), ""),
        (Kind::Audio, &riff_of(b"FORM", b"AIFC"), ""),
        (Kind::Video, &riff_of(b"RIFF", b"AVI "), ""),
        (Kind::Raw, &riff_of(b"RIFF", b"ACON"), ""),
        (Kind::Audio, b"fLaC\0\0\0\x22", "x.rs"),
        (Kind::Audio, &mp4(b"M4A ", &[b"soun", b"vide"]), ""),
        (Kind::Audio, &mp4(b"isom", &[b"soun"]), ""),
        (Kind::Video, &mp4(b"isom", &[b"soun", b"vide"]), ""),
        (Kind::Video, &mp4(b"isom", &[]), "a.m4a"),
        (Kind::Video, b"\0\0\0\x08wide\0\0\0\0mdat", ""),
        (Kind::Audio, &mkv(&[2]), ""),
        (Kind::Video, &mkv(&[2, 1]), ""),
        (Kind::Video, &mkv(&[2])[..22], ""),
        (Kind::Audio, &ogg_page(b"\x01vorbis"), ""),
        (Kind::Video, &cat(&[&ogg_page(b"OpusHead"), &ogg_page(b"\x80theora")]), ""),
        (Kind::Video, b"FLV\x01\x05\0\0\0\x09", ""),
        (Kind::Video, &[b"\x47" as &[u8], &[0; 187]].concat().repeat(3), "x.ts"),
        (Kind::Raw, &[b"\x47" as &[u8], &[0; 187]].concat().repeat(2), "x.ts"),
    ]);
}

#[test]
fn frames_of_sound_need_a_second_one_or_a_path() {
    let mp3 = frames(b"\xff\xfb\x90\x00", 417);
    let layer_1 = frames(b"\xff\xff\x40\x00", 136);
    let adts = frames(b"\xff\xf1\x50\x80\x02\x1f\xfc", 16);
    let utf16: Vec<u8> = "\u{feff}Hello, world".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut noise = mp3.clone();
    noise[417] = 0;
    assert_kinds(&[
        (Kind::Audio, &mp3, ""),
        (Kind::Audio, &mp3[..417], ""),
        (Kind::Raw, &mp3[..400], ""),
        (Kind::Audio, &mp3[..400], "a.MP3"),
        (Kind::Raw, &noise, ""),
        (Kind::Audio, &layer_1, ""),
        (Kind::Audio, &adts, ""),
        (Kind::Audio, b"ID3\x04\0\0\0\0\x02\x01", ""),
        (Kind::Raw, b"ID3\x04\0\0\0\0\xf2\x01", ""),
        (Kind::Audio, b"\x80\x81 junk", "a.mp3"),
        (Kind::Text, b"Not found", "a.mp3"),
        (Kind::Raw, &utf16, ""),
        (Kind::Raw, &utf16, "a.txt"),
        (Kind::Raw, &[0xff; 3000], ""),
    ]);
}

#[test]
fn programs_and_what_resembles_them() {
    assert_kinds(&[
        (Kind::Binary, b"\x7fELF\x02\x01\x01", ""),
        (Kind::Binary, &exe(0x80, 512, b"PE\0\0"), ""),
        (Kind::Binary, &exe(0x400, 512, b""), ""),
        (Kind::Raw, &exe(0x80, 512, b"NE\0\0"), ""),
        (Kind::Raw, b"MZ\x90\0", ""),
        (Kind::Binary, b"\xcf\xfa\xed\xfe\x07\0\0\x01", ""),
        (Kind::Binary, b"\xca\xfe\xba\xbe\0\0\0\x02", ""),
        (Kind::Raw, b"\xca\xfe\xba\xbe\0\0\0\x34", "A.class"),
        (Kind::Raw, b"\0asm\x01\0\0\0", ""),
    ]);
}

#[test]
fn documents_are_pdf_and_packed_content_is_raw() {
    assert_kinds(&[
        (Kind::Document, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", ""),
        (Kind::Document, b"\xef\xbb\xbf\r\n%PDF-2.0\n1 0 obj\n<<>>\nendobj", ""),
        (Kind::Document, b"%PDF-1.4\n\0", "x.txt"),
        (Kind::Text, b"%PDF-1.5 and later can compress objects.", ""),
        (Kind::Text, b"The mark is %PDF-1.5, before 1 0 obj", ""),
        (Kind::Raw, b"PK\x03\x04\x14\0\0\0\0\0%PDF-1.4", "a.docx"),
        (Kind::Raw, b"\x1f\x8b\x08\x08\x01\x01\x01\x01\x02\x03", "notes.txt"),
    ]);
}

#[test]
fn words_that_are_signatures_elsewhere_stay_text() {
    for word in [
        "BM",
        "MZ",
        "GIF",
        "GIF89a",
        "II*",
        "RIFF1234WAVE",
        "OggS",
        "ID3",
        "qoif",
        "fLaC",
        "BZh9",
        "MAC",
        "DSD",
        "farbfeld",
        "#!AMR",
        "PK",
    ] {
        assert_eq!(kind_of(format!("{word} is a word.\n").as_bytes(), None), Kind::Text, "{word}");
        let latin_1 = [word.as_bytes(), b" adresse d'\xe9quipement\r\n"].concat();
        assert_eq!(kind_of(&latin_1, Some("a.txt")), Kind::Text, "{word}");
        assert_eq!(kind_of(&latin_1, None), Kind::Raw, "{word}");
    }
    assert_kinds(&[
        (Kind::Text, b"The wide caf\xe9.\n", "a.txt"),
        (Kind::Text, b"P5 2 2 255 de plus, et ils sont d\xe9\xe7us", "a.txt"),
        // As written on DOS, with the mark of its end.
        (Kind::Text, b"MAC adresse d'\xe9quipement\r\n\x1a", "a.txt"),
        (Kind::Text, b"DSD et caf\xe9\r\n\x1a", "a.txt"),
        (Kind::Audio, b"MAC \x96\x0f\0\0", "a.txt"),
        (Kind::Audio, b"DSD \x1c\0\0\0\0\0\0\0", "a.txt"),
    ]);
}

#[test]
fn text_is_code_by_its_path_alone() {
    assert_kinds(&[
        (Kind::Text, b"", ""),
        (Kind::Text, b"", "a.png"),
        (Kind::Text, b"fn main() {}", ""),
        (Kind::Code, b"fn main() {}", "src/main.rs"),
        (Kind::Code, b"MZ = 1", "C:\\x\\A.PY"),
        (Kind::Code, b"int x;", "a.tar.gz::lib/x.h"),
        (Kind::Text, b"fn main() {}", "rs"),
        (Kind::Text, b"fn main() {}", "src.rs/README"),
        (Kind::Text, "\u{feff}gr\u{fc}n \u{1f600}\t\r\n\x0c\x1b[1m".as_bytes(), ""),
        (Kind::Text, b"<html>not a picture</html>", "a.png"),
        (Kind::Code, b"// caf\xe9", "a.c"),
        (Kind::Text, b"caf\xe9", "a.md"),
        (Kind::Raw, b"caf\xe9", "a.bin"),
        (Kind::Raw, b"caf\xe9", ""),
        (Kind::Raw, b"a\0b", "a.txt"),
        (Kind::Raw, b"a\0b", "a.c"),
        (Kind::Raw, b"a\x01b", ""),
        (Kind::Text, b"a\x01b", "a.txt"),
        (Kind::Raw, "a\u{7f}".as_bytes(), ""),
        (Kind::Raw, &std::array::from_fn::<u8, 256, _>(|n| n as u8), "allbytes.bin"),
    ]);
}

#[test]
fn cut_and_changed_content_never_panics() {
    let samples = [
        mp4(b"isom", &[b"soun", b"vide"]),
        mkv(&[2, 2, 17]),
        cat(&[&ogg_page(b"OpusHead"), &ogg_page(b"\x01vorbis")]),
        frames(b"\xff\xfb\x90\x00", 417),
        frames(b"\xff\xf1\x50\x80\x02\x1f\xfc", 16),
        exe(0x80, 512, b"PE\0\0"),
        b"P6 # c\n 2 2\n255\n\0aaaaaaaaaaa".to_vec(),
        cat(&[b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", &[7; 30]]),
    ];
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for sample in samples {
        for end in 0..sample.len() {
            kind_of(&sample[..end], None);
        }
        for _ in 0..500 {
            let mut changed = sample.clone();
            for _ in 0..1 + random(8) {
                changed[random(sample.len())] = [0, 0xff, 0x80, random(256) as u8][random(4)];
            }
            kind_of(&changed, None);
        }
    }
}
