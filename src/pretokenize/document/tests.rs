use std::io::Write as _;

use flate2::{Compression, write::ZlibEncoder};
use proptest::prelude::*;

use super::*;

const MOST: u64 = 1 << 20;
const HELVETICA: &str =
    "<</Font<</F <</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>>>>>";

/// A file of these objects, numbered from 1, the first of which is the catalog.
fn file(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"%PDF-1.7\n".to_vec();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (i, object) in objects.iter().enumerate() {
        table += &format!("{:010} 00000 n \n", file.len());
        file.extend(format!("{} 0 obj\n", i + 1).bytes());
        file.extend(object);
        file.extend(b"\nendobj\n");
    }
    let start = file.len();
    file.extend(table.bytes());
    file.extend(
        format!("trailer\n<</Size {}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n", objects.len() + 1).bytes(),
    );
    file
}

fn stream(dictionary: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = format!("<<{dictionary}/Length {}>>\nstream\n", bytes.len()).into_bytes();
    stream.extend(bytes);
    stream.extend(b"\nendstream");
    stream
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Pages of 100 × 50 points with these resources and contents, and `more` objects from number `3 + 2 * contents.len()` on.
fn pages_with(resources: &str, contents: &[Vec<u8>], more: &[Vec<u8>]) -> Vec<u8> {
    let kids: String = (0..contents.len()).map(|i| format!("{} 0 R ", 3 + 2 * i)).collect();
    let mut objects = vec![
        b"<</Type/Catalog/Pages 2 0 R>>".to_vec(),
        format!(
            "<</Type/Pages/Count {}/Kids[{kids}]/MediaBox[0 0 100 50]/Resources {resources}>>",
            contents.len()
        )
        .into_bytes(),
    ];
    for (i, content) in contents.iter().enumerate() {
        objects.push(format!("<</Type/Page/Parent 2 0 R/Contents {} 0 R>>", 4 + 2 * i).into_bytes());
        objects.push(content.clone());
    }
    objects.extend_from_slice(more);
    file(&objects)
}

fn pages(contents: &[&str]) -> Vec<u8> {
    let streams: Vec<_> = contents.iter().map(|content| stream("", content.as_bytes())).collect();
    pages_with(HELVETICA, &streams, &[])
}

fn document(views: &[DocumentView], max_document_bytes: u64) -> Document {
    let settings = PretokenizeDocument { views: views.to_vec(), ..PretokenizeDocument::default() };
    let picture: PictureFn = Arc::new(|width, height, rgb| {
        assert_eq!(rgb.len() as u32, 3 * width * height);
        Ok((vec![Segment { kind: "patch", bytes: 0..rgb.len() as u64, meta: None }], rgb))
    });
    Document::new(&settings, max_document_bytes, picture)
}

fn views(file: Vec<u8>, which: &[DocumentView]) -> Result<Vec<View>, String> {
    let views = document(which, MOST).views(Content { bytes: file, ..Content::default() })?;
    for view in &views {
        let mut end = 0;
        for segment in &view.segments {
            assert_eq!(segment.bytes.start, end, "segments tile");
            assert!(segment.bytes.start < segment.bytes.end, "none is empty");
            end = segment.bytes.end;
        }
        assert_eq!(end, view.bytes.len() as u64);
    }
    Ok(views)
}

fn text_of(file: Vec<u8>) -> Result<(String, Vec<String>), String> {
    let mut views = views(file, &[DocumentView::Text])?;
    assert_eq!(views.len(), 1);
    let view = views.remove(0);
    assert_eq!((view.modality, view.name), (MODALITY, None));
    let meta = view.segments.into_iter().map(|segment| segment.meta.unwrap()).collect();
    Ok((String::from_utf8(view.bytes).unwrap(), meta))
}

fn text(content: &str) -> String {
    text_of(pages(&[content])).unwrap().0
}

#[test]
fn each_page_with_text_is_a_segment_that_ends_its_line() {
    let file = pages(&["BT /F 12 Tf (One) Tj ET", "0 0 10 10 re f", "BT /F 12 Tf (Tw\\366) Tj ET"]);
    let (text, meta) = text_of(file).unwrap();
    assert_eq!(text, "One\nTwö\n");
    assert_eq!(meta, [r#"{"page":1}"#, r#"{"page":3}"#]);
}

#[test]
fn an_empty_stream_is_empty_content() {
    let (text, _) = text_of(pages_with(HELVETICA, &[stream("/Filter/FlateDecode", b"")], &[])).unwrap();
    assert_eq!(text, "");
}

#[test]
fn a_file_without_text_is_a_document_of_no_bytes() {
    let (text, meta) = text_of(pages(&["0 0 10 10 re f"])).unwrap();
    assert_eq!((text.as_str(), meta.len()), ("", 0));
}

#[test]
fn spaces_and_lines_are_where_the_page_has_them() {
    assert_eq!(text("BT /F 10 Tf (kerned) Tj 0 -12 Td (next) Tj ET"), "kerned\nnext\n");
    assert_eq!(text("BT /F 10 Tf [(V) 80 (A) -300 (word) -20 (s)] TJ ET"), "VA words\n");
    assert_eq!(text("BT /F 10 Tf [(has ) -300 (one)] TJ ET"), "has one\n");
    assert_eq!(text("BT /F 10 Tf (x) Tj 4 Ts 6 0 Td (2) Tj ET"), "x2\n");
    assert_eq!(text("BT /F 10 Tf 12 TL (a) Tj (b) ' 0 0 (c) \" T* (d) Tj ET"), "a\nb\nc\nd\n");
    assert_eq!(text("q 0 1 -1 0 0 0 cm BT /F 10 Tf (up) Tj ET Q BT /F 10 Tf (right) Tj ET"), "up\nright\n");
}

#[test]
fn forms_show_their_text_where_and_how_they_are_shown() {
    let resources = "<</XObject<</X 5 0 R>>>>";
    let form = stream(&format!("/Subtype/Form/Resources {HELVETICA}"), b"BT /F 10 Tf (form) Tj ET");
    let content = stream("", b"/X Do q 1 0 0 1 0 20 cm /X Do Q");
    let (text, _) = text_of(pages_with(resources, &[content], &[form])).unwrap();
    assert_eq!(text, "form\nform\n");

    // The font and its size are those that are set where the form is shown.
    let resources = HELVETICA.replacen("<<", "<</XObject<</X 5 0 R>>", 1);
    let form = stream("/Subtype/Form", b"BT (a) Tj 20 0 Td (b) Tj ET");
    let content = stream("", b"BT /F 100 Tf ET /X Do 1 0 0 1 0 300 cm BT /F 10 Tf ET /X Do");
    let (text, _) = text_of(pages_with(&resources, &[content], &[form])).unwrap();
    assert_eq!(text, "ab\na b\n");
}

#[test]
fn a_glyph_of_which_the_file_tells_no_character_is_counted() {
    let resources = "<</Font<</F <</Type/Font/Subtype/Type0/Encoding/Identity-H/BaseFont/X/DescendantFonts[\
        <</Subtype/CIDFontType2/BaseFont/X/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>]>>>>>>";
    let content = stream("", b"BT /F 10 Tf <00410042> Tj ET");
    let (text, meta) = text_of(pages_with(resources, &[content], &[])).unwrap();
    assert_eq!(text, "\u{fffd}\u{fffd}\n");
    assert_eq!(meta, [r#"{"page":1,"unknown":2}"#]);
}

#[test]
fn a_map_to_unicode_is_followed() {
    let map = stream("", b"1 begincodespacerange <00> <ff> endcodespacerange 3 beginbfchar <41> <00660069> <43> <> <42> <05d0> endbfchar");
    let resources = "<</Font<</F <</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 5 0 R>>>>>>";
    let content = stream("", b"BT /F 10 Tf (ACB) Tj ET");
    let (text, _) = text_of(pages_with(resources, &[content], &[map])).unwrap();
    assert_eq!(text, "fi\u{5d0}\n");
}

#[test]
fn views_beside_the_first_have_names() {
    let file = pages(&["BT /F 12 Tf (One) Tj ET", "1 0 0 rg 0 0 100 50 re f"]);
    let all = [DocumentView::Raw, DocumentView::Text, DocumentView::Image];
    let views = views(file.clone(), &all).unwrap();
    let names: Vec<_> = views.iter().map(|view| (view.modality, view.name.as_deref())).collect();
    assert_eq!(
        names,
        [
            ("document", None),
            ("document", Some("text")),
            ("image", Some("page-1")),
            ("image", Some("page-2"))
        ]
    );
    assert_eq!(views[0].bytes, file);
    assert_eq!(views[0].segments, [Segment { kind: "raw", bytes: 0..file.len() as u64, meta: None }]);
    assert_eq!(views[1].bytes, b"One\n");
    assert_eq!(views[3].bytes, [255, 0, 0].repeat(5000));
    assert!(
        views[2].bytes.len() == 15000 && views[2].bytes.iter().any(|byte| *byte < 128),
        "letters are dark"
    );
}

#[test]
fn pictures_above_the_limit_are_not_drawn() {
    let content = Content { bytes: pages(&[""]), ..Content::default() };
    let refused = document(&[DocumentView::Image], 14_999).views(content).unwrap_err();
    assert_eq!(refused, format!("page 1: {}", too_long_decoded(15_000, 14_999)));
}

/// A page with one image, of this dictionary and these bytes.
fn with_image(dictionary: &str, bytes: &[u8]) -> Vec<u8> {
    let image = stream(&format!("/Subtype/Image{dictionary}"), bytes);
    let content = stream("", b"100 0 0 50 0 0 cm /X Do");
    pages_with("<</XObject<</X 5 0 R>>>>", &[content], &[image])
}

/// The bytes of a page's picture.
fn drawn(file: Vec<u8>) -> Result<Vec<u8>, String> {
    Ok(views(file, &[DocumentView::Image])?.remove(0).bytes)
}

#[test]
fn images_are_drawn_whole_or_not_at_all() {
    let size = "/Width 1/Height 2/BitsPerComponent 8";
    let rgb = |bytes: &[u8]| drawn(with_image(&format!("{size}/ColorSpace/DeviceRGB"), bytes));
    let picture = rgb(&[255, 0, 0, 0, 0, 255]).unwrap();
    assert_eq!((&picture[..3], &picture[14_997..]), (&[255, 0, 0][..], &[0, 0, 255][..]));
    assert_eq!(rgb(&[255, 0, 0, 0, 0]).unwrap_err(), "an image of 5 bytes once decoded, of 6");
    let packed = deflated(&[7; 6]);
    let flate = format!("{size}/ColorSpace/DeviceRGB/Filter/FlateDecode");
    assert!(drawn(with_image(&flate, &packed)).is_ok());
    assert!(drawn(with_image(&flate, &packed[..packed.len() - 5])).unwrap_err().contains("truncated"));
    let named = format!("{size}/ColorSpace[/Indexed/DeviceRGB 0<ff0000>]");
    assert!(drawn(with_image(&named, &[0, 0])).is_ok() && drawn(with_image(&named, &[0])).is_err());

    // Two white rows and the end of Group 4.
    let fax = |height: u32| {
        let fax = format!("/Width 8/Height {height}/Filter/CCITTFaxDecode/DecodeParms<</K -1/Columns 8>>");
        drawn(with_image(&fax, &[0xc0, 0x04, 0x00, 0x40]))
    };
    assert!(fax(2).is_ok());
    assert_eq!(fax(3).unwrap_err(), "an image of CCITT of which 2 rows of 3 can be decoded");

    let jpeg: Vec<u8> =
        (0..JPEG.len() / 2).map(|i| u8::from_str_radix(&JPEG[2 * i..2 * i + 2], 16).unwrap()).collect();
    let dct = |side: u32, bytes: &[u8]| {
        let dct = format!("/Width {side}/Height 8/BitsPerComponent 8/ColorSpace/DeviceGray/Filter/DCTDecode");
        drawn(with_image(&dct, bytes))
    };
    assert!(dct(8, &jpeg).is_ok());
    assert!(dct(8, &jpeg[..jpeg.len() - 2]).unwrap_err().ends_with("before its EOI marker"));
    assert_eq!(dct(4, &jpeg).unwrap_err(), "64 pixels, more than 32");

    let jbig2 = |bytes: &[u8]| drawn(with_image("/Width 8/Height 8/Filter/JBIG2Decode", bytes)).unwrap_err();
    let page = |side: u32| {
        let head = [0, 0, 0, 0, 48, 0, 1, 0, 0, 0, 19];
        [&head, &side.to_be_bytes()[..], &side.to_be_bytes()[..], &[0; 11]].concat()
    };
    assert_eq!(jbig2(&page(8)[..29]), "a segment of an image of JBIG2 is not all there");
    let symbols = [1, 2, 3, 4, 0, 0, 1, 0, 0, 0, 2, 0, 1];
    assert_eq!(jbig2(&[&page(8)[..], &symbols].concat()), "an image of JBIG2 with Huffman codes");

    let jpx = drawn(with_image("/Width 8/Height 8/Filter/JPXDecode", &code_stream(8, 8))).unwrap_err();
    assert_eq!(jpx, "an image of JPEG 2000 ends before its end");
}

/// 8 × 8 pixels of grey.
const JPEG: &str = "ffd8ffe000104a46494600010100000100010000ffdb0043001b12141714111b1716171e1c1b2028422b28252528513a3d30\
    42605565645f555d5b6a7899816a7190735b5d85b586909ea3abadab6780bcc9baa6c799a8aba4ffc0000b080008000801011100ffc40014\
    000100000000000000000000000000000002ffc40017100003010000000000000000000000000000030532ffda0008010100003f00305593\
    ffd9";

/// The beginning of JPEG 2000: an image of one component in tiles of this side.
fn code_stream(side: u32, tile: u32) -> Vec<u8> {
    let mut stream = vec![0xff, 0x4f, 0xff, 0x51, 0, 41, 0, 0];
    for number in [side, side, 0, 0, tile, tile, 0, 0] {
        stream.extend(number.to_be_bytes());
    }
    stream.extend([0, 1, 7, 1, 1]);
    stream
}

#[test]
fn images_are_measured_by_every_number_that_memory_is_set_aside_by() {
    let refused = |dictionary: &str, bytes: &[u8]| drawn(with_image(dictionary, bytes)).unwrap_err();
    let too_large = |n_bytes: u64| format!("an image of {n_bytes} bytes once decoded, more than 67108864");
    assert_eq!(refused("/Width 5000/Height 5000", b""), too_large(100_000_000));
    let fax = "/Width 1/Height 30000/Filter/CCITTFaxDecode/DecodeParms";
    assert_eq!(refused(&format!("{fax}<</Columns 4000000000>>"), b""), too_large(120_000_000_000_000));
    assert_eq!(refused(&format!("{fax}<<>>/DP<</Columns 4000000000>>"), b""), too_large(120_000_000_000_000));
    let page = [&[0, 0, 0, 0, 48, 0, 1, 0, 0, 0, 19], &[0, 0, 255, 255].repeat(2)[..], &[0; 11]].concat();
    assert_eq!(refused("/Width 8/Height 8/Filter/JBIG2Decode", &page), too_large(65535 * 65535));
    let jpx = "/Width 8/Height 8/Filter/JPXDecode";
    assert_eq!(refused(jpx, &code_stream(10_000, 10_000)), too_large(400_000_000));
    assert_eq!(refused(jpx, &code_stream(1000, 2)), "an image of 250000 tiles, more than 65535");
    let precincts = [0xff, 0x52, 0, 13, 1, 0, 0, 1, 0, 0, 4, 4, 0, 0, 0x11];
    let tiny = [&code_stream(8, 8)[..], &precincts].concat();
    assert_eq!(refused(jpx, &tiny), "an image of JPEG 2000 of tiny precincts");

    let inline = |image: &str| drawn(pages(&[&format!("BI {image} ID x\nEI Q")]));
    assert_eq!(inline("/W 5000/H 5000/CS/G/BPC 8").unwrap_err(), too_large(100_000_000));
    let fax = inline("/W 1/H 30000/IM true/F/CCF/DP<</Columns 4000000000>>");
    assert_eq!(fax.unwrap_err(), too_large(120_000_000_000_000));
    assert!(inline("/W 1/H 1/CS/G/BPC 8").is_ok());
}

#[test]
fn memory_is_guessed_from_what_a_file_says_of_its_pages() {
    let estimate = |bytes: &[u8]| {
        let content = Content { bytes: bytes.to_vec(), ..Content::default() };
        let document = document(&[DocumentView::Text, DocumentView::Image], 32 << 20);
        let needs = document.needs(&content);
        (needs.views, needs.beside)
    };
    assert_eq!(estimate(b"no PDF at all, though it says /MediaBox /Type/Page"), (0, 0));
    let two = pages(&["", ""]);
    let n_bytes = two.len() as u64;
    let a4_bytes = 72 * 72 * 97 * 3;
    assert_eq!(estimate(&two), (n_bytes + 2 * a4_bytes, 32 * n_bytes + (32 << 20)));
    let packed = [&two[..], b"<</Type/ObjStm>>", &[0; 200_000]].concat();
    assert_eq!(estimate(&packed).0, packed.len() as u64 + 4 * a4_bytes);
    let many = [&two[..], &b"<</Type /Page>>".repeat(100_000)].concat();
    assert_eq!(estimate(&many).0, 18 * (32 << 20), "what the views may have at most");
}

#[test]
fn what_is_no_pdf_or_not_all_of_one_goes_to_quarantine() {
    let refused = |bytes: &[u8]| text_of(bytes.to_vec()).unwrap_err();
    assert_eq!(refused(b""), "no bytes");
    assert_eq!(refused(b"\0"), "not a PDF file: no %PDF- at its beginning");
    assert_eq!(refused(b"%PDF-1.4\n%%EOF"), "damaged: no pages can be found in it");
    assert_eq!(refused(&pages(&[])), "no pages");
    let whole = pages(&["BT /F 12 Tf (One) Tj ET"]);
    for length in 1..whole.len() - 1 {
        assert!(text_of(whole[..length].to_vec()).is_err(), "{length}");
    }
    let linearized =
        [b"%PDF-1.4\n1 0 obj\n<</Linearized 1/L 5000/H[1 2]>>\nendobj\n", whole.as_slice()].concat();
    assert!(refused(&linearized).starts_with("truncated: "));
}

#[test]
fn missing_pages_and_content_are_noticed() {
    let replaced = |from: &str, to: &str| {
        let file = String::from_utf8(pages(&["BT /F 12 Tf (One) Tj ET", "BT /F 12 Tf (Two) Tj ET"])).unwrap();
        assert!(file.contains(from));
        text_of(file.replace(from, to).into_bytes())
    };
    assert_eq!(
        replaced("[3 0 R 5 0 R ]", "[3 0 R 9 0 R ]").unwrap_err(),
        "truncated or damaged: 1 pages can be read of the 2 that it says it has"
    );
    assert_eq!(
        replaced("/Contents 6 0 R", "/Contents 9 0 R").unwrap_err(),
        "page 2: its content is not there"
    );
    assert!(replaced("(Two) Tj", "(Two  Tj").unwrap_err().starts_with("page 2: its content is damaged"));
}

#[test]
fn a_wrong_table_of_objects_is_made_again_from_the_objects() {
    let file = String::from_utf8(pages(&["BT /F 12 Tf (One) Tj ET"])).unwrap();
    let moved = file.replace("%PDF-1.7\n", "%PDF-1.7\n% moves all objects\n");
    assert_eq!(text_of(moved.into_bytes()).unwrap().0, "One\n");
}

#[test]
fn a_password_is_asked_for() {
    let file = String::from_utf8(pages(&["BT /F 12 Tf (One) Tj ET"])).unwrap();
    let key = "00".repeat(32);
    let encrypted = file.replace(
        "/Root 1 0 R",
        &format!("/Root 1 0 R/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/O<{key}>/U<{key}>/P -4>>"),
    );
    let reason = text_of(encrypted.into_bytes()).unwrap_err();
    assert_eq!(reason, "encrypted, and the empty password does not open it");
}

#[test]
fn limits_hold_before_memory_is_set_aside() {
    let one = stream("", b"BT /F 12 Tf (One) Tj ET");
    let settings = PretokenizeDocument { max_pages: 1, ..PretokenizeDocument::default() };
    let two_pages = Content { bytes: pages_with(HELVETICA, &[one.clone(), one], &[]), ..Content::default() };
    let refused = Document::new(&settings, MOST, document(&[], MOST).picture).views(two_pages).unwrap_err();
    assert_eq!(refused, "2 pages, more than max_pages = 1");

    let bomb = stream("/Filter/FlateDecode", &deflated(&vec![b' '; (64 << 20) + 1]));
    let reason = "a stream of more than 67108864 bytes once decoded, by limits.max_document_bytes";
    assert_eq!(text_of(pages_with(HELVETICA, &[bomb], &[])).unwrap_err(), reason);

    // The reader of objects asks nobody, and is not to be led astray by what looks like the beginning of another one.
    let objects = |packed: &[u8], trailer: &str| {
        let objects = stream("/Type/ObjStm/N 1/First 5/Filter/FlateDecode/X(obj)", packed);
        let content = stream("", b"BT /F 12 Tf (One) Tj ET");
        let file = pages_with(HELVETICA, &[content], &[objects]);
        let at = memmem::rfind(&file, b"/Root").unwrap();
        text_of([&file[..at], trailer.as_bytes(), &file[at..]].concat()).unwrap_err()
    };
    assert_eq!(objects(&deflated(&vec![0; (64 << 20) + 1]), ""), reason);
    let most = "that may have up to 72240000 bytes once decoded";
    assert_eq!(objects(&[255; 70_000], "/X(/Encrypt)"), format!("a damaged stream {most}"));
    assert_eq!(objects(&[255; 70_000], "/Encrypt<<>>"), format!("an encrypted stream of objects {most}"));

    let long = pages(&[&format!("BT /F 12 Tf {} ET", "(One) Tj ".repeat(400))]);
    let content = Content { bytes: long, ..Content::default() };
    let refused = document(&[DocumentView::Text], 1000).views(content).unwrap_err();
    assert_eq!(refused, format!("page 1: {}", too_long_decoded(1001, 1000)));

    let wide = |first: &str| {
        HELVETICA.replace("/Encoding", &format!("/FirstChar {first}/LastChar 9/Widths[1]/Encoding"))
    };
    // A stream is measured once, but may be a page's content many times.
    let blanks = stream("/Filter/FlateDecode", &deflated(&vec![b' '; 10 << 20]));
    let again = |n: usize| {
        let file =
            String::from_utf8(pages(&[""])).unwrap().replace("4 0 R", &format!("[{}]", "5 0 R ".repeat(n)));
        let trailer = file.rfind("xref\n0").unwrap();
        let mut bytes = file.as_bytes()[..trailer].to_vec();
        bytes.extend(b"5 0 obj\n");
        bytes.extend(&blanks);
        bytes.extend(b"\nendobj\ntrailer<</Root 1 0 R>>\n%%EOF");
        text_of(bytes)
    };
    assert_eq!(again(6).unwrap().0, "");
    assert_eq!(again(7).unwrap_err(), format!("page 1: {reason}"));
    let same = vec![stream("", b"/X Do /X Do /X Do"); 9];
    let refused = text_of(pages_with(
        "<</XObject<</X 21 0 R>>>>",
        &same,
        &[stream("/Subtype/Form/Filter/FlateDecode", &deflated(&vec![b' '; 10 << 20]))],
    ));
    assert!(refused.unwrap_err().starts_with("page 9: more content than limits.max_document_bytes allows"));

    let fonts: String = (0..26)
        .map(|i| format!("/F{i} <</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 5 0 R>>"))
        .collect();
    let shown: String = (0..26).map(|i| format!("BT /F{i} 10 Tf ET ")).collect();
    let fonts = format!("<</Font<<{fonts}>>>>");
    let refused = text_of(pages_with(&fonts, &[stream("", shown.as_bytes())], std::slice::from_ref(&blanks)))
        .unwrap_err();
    assert_eq!(refused, "page 1: maps of characters of more than 268435456 bytes in all fonts");

    let content = || stream("", b"BT /F 12 Tf (One) Tj ET");
    let refused = text_of(pages_with(&wide("4000000000"), &[content()], &[])).unwrap_err();
    assert_eq!(refused, "page 1: a font whose first character is none of 256");
}

#[test]
fn what_is_nested_without_end_is_refused_or_skipped() {
    let resources = "<</XObject<</X 5 0 R>>>>";
    let form = stream("/Subtype/Form", b"/X Do");
    let refused = text_of(pages_with(resources, &[stream("", b"/X Do")], &[form])).unwrap_err();
    assert_eq!(refused, "page 1: more than 28 forms within each other");

    // Each shows the next twice: 2²⁷ in all.
    let forms: Vec<_> = (0..27)
        .map(|i| {
            let next = format!("/Subtype/Form/Resources<</XObject<</X {} 0 R>>>>", 6 + i);
            stream(&next, b"/X Do /X Do")
        })
        .collect();
    let refused = text_of(pages_with(resources, &[stream("", b"/X Do")], &forms)).unwrap_err();
    assert!(refused.starts_with("page 1: more content than limits.max_document_bytes allows"), "{refused}");

    for nested in ["[".repeat(100_000), "<</A".repeat(100_000), "(".repeat(100_000), "q ".repeat(20_000)] {
        assert!(text_of(pages(&[&nested])).is_err());
        let object = nested.clone().into_bytes();
        // An object that nothing shows is of no concern, unless it takes too long to look for streams in it.
        let aside = text_of(pages_with(HELVETICA, &[stream("", b"BT ET")], &[object])).map(|(text, _)| text);
        let expected = match nested.as_bytes() {
            [b'<', ..] => Err("dictionaries within each other, more than 32 deep".to_owned()),
            _ => Ok(String::new()),
        };
        assert_eq!(aside, expected);
        match text_of(pages_with(&nested, &[stream("", b"BT ET")], &[])) {
            Ok((text, _)) => assert!(text.is_empty() && expected.is_ok(), "what is no object is skipped"),
            Err(reason) => assert!(reason.starts_with("damaged: ") || expected == Err(reason)),
        }
    }

    let cycle = String::from_utf8(pages(&["BT /F 12 Tf (One) Tj ET"])).unwrap();
    let cycle = cycle.replace("/Kids[3 0 R ]", "/Kids[3 0 R 2 0 R]");
    assert_eq!(text_of(cycle.into_bytes()).unwrap().0, "One\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_tile_or_are_refused(
        length in 0.5..1.1_f64,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        with_pictures in prop::bool::weighted(0.1),
    ) {
        let packed = stream("/Filter/FlateDecode", &deflated(b"BT /F 12 Tf 20 20 Td (packed) Tj T* [(a) -300 (b)] TJ ET"));
        let objects = stream("/Type/ObjStm/N 1/First 4/X(5 0 obj<<)/Filter/FlateDecode", &deflated(b"9 0 <</A 1>>"));
        let mut file = pages_with(HELVETICA, &[packed, stream("", b"BT /F 12 Tf (One) Tj ET /X Do")], &[objects]);
        file.truncate((length * file.len() as f64) as usize);
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let which: &[_] = if with_pictures { &[DocumentView::Text, DocumentView::Image] } else { &[DocumentView::Text] };
        let _ = views(file, which);
    }
}

#[test]
fn a_line_of_more_dashes_than_there_is_memory_for_is_not_drawn() {
    let form = |lines: &[u8]| stream("/Subtype/Form/BBox[0 0 100 50]", lines);
    let shows = "<</XObject<</X 5 0 R>>/ExtGState<</G<</D[[.00001]0]>>>>>>";
    let (far, near) = (b"0 0 m 100 2147483647 l S" as &[u8], b"0 0 m 100 50 l S" as &[u8]);
    for (content, shown) in [
        ([b"[3 1] 0 d ", far].concat(), near),
        ([b"q [.000001] 0 d ", near, b" Q"].concat(), near),
        ([b"/G gs ", near].concat(), near),
        (b"[0] 0 d 0 0 m 9000 9000 l S".to_vec(), near),
        (b"[1 -1] 0 d 0 0 m 1 1 l S".to_vec(), near),
        (b"[.00001] 0 d /X Do".to_vec(), near),
        (b"/X Do".to_vec(), b"[3 1] 0 d 0 0 m 0 1 50 2147483647 9 9 c b" as &[u8]),
        (b"[.00001] 0 d 1 Tr BT /F 10 Tf 10 0 0 10 0 0 Tm (x) Tj ET".to_vec(), near),
    ] {
        let file = pages_with(shows, &[stream("", &content)], &[form(shown)]);
        let error = views(file, &[DocumentView::Image]).unwrap_err();
        assert!(error.starts_with("a line of ") && error.contains(" dashes, more than "), "{error}");
    }
    for content in [
        &[b"q [3 1] 0 d ", near, b" Q ", far].concat()[..],
        b"[3 1] 0 d 0 0 m 90000 90000 l S [] 0 d 0 0 m 9000000000 0 l S",
    ] {
        let file = pages_with(shows, &[stream("", content)], &[form(near)]);
        assert_eq!(views(file, &[DocumentView::Image]).unwrap().len(), 1);
    }
}

#[test]
fn an_image_between_operators_is_bounded_even_if_it_begins_in_one_stream_and_ends_in_another() {
    let large = "q BI /W 4000000 /H 4000000 /BPC 1 /IM true";
    let whole = pages(&[&format!("{large} ID abc EI Q")]);
    let parts = file(&[
        b"<</Type/Catalog/Pages 2 0 R>>".to_vec(),
        b"<</Type/Pages/Count 1/Kids[3 0 R]/MediaBox[0 0 60 40]/Resources <<>>>>".to_vec(),
        b"<</Type/Page/Parent 2 0 R/Contents[4 0 R 5 0 R]>>".to_vec(),
        stream("", large.as_bytes()),
        stream("", b" ID abc EI Q"),
    ]);
    for file in [whole, parts] {
        let error = views(file, &[DocumentView::Image]).unwrap_err();
        assert!(error.starts_with("an image of 64000000000000 bytes once decoded, more than "), "{error}");
    }
    let small = pages(&["q 50 0 0 50 0 0 cm BI /W 2 /H 2 /BPC 8 /CS /G ID abcd EI Q"]);
    assert_eq!(views(small, &[DocumentView::Image]).unwrap().len(), 1);
}

#[test]
fn a_page_of_little_content_that_takes_gigabytes_to_draw_is_not_drawn() {
    let forms = |depth: usize| {
        let form = |i: usize| {
            let shown = format!("/Subtype/Form/BBox[0 0 100 50]/Resources<</XObject<</X {} 0 R>>>>", 6 + i);
            stream(&shown, &if i + 1 < depth { b"/X Do ".repeat(20) } else { b"0 0 9 9 re f".to_vec() })
        };
        let forms: Vec<_> = (0..depth).map(form).collect();
        pages_with("<</XObject<</X 5 0 R>>>>", &[stream("", b"/X Do")], &forms)
    };
    let tiles = |side: u32| {
        let tile = format!("/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 {side} {side}]/XStep 8/YStep 8");
        let fill = stream("", b"/Pattern cs /P scn 0 0 100 50 re f");
        pages_with("<</Pattern<</P 5 0 R>>>>", &[fill], &[stream(&tile, b"1 0 0 rg 0 0 4 4 re f")])
    };
    let images = |times: usize| {
        let side = 2000;
        let mask = format!("/Subtype/Image/ImageMask true/BitsPerComponent 1/Width {side}/Height {side}");
        let mask = stream(&(mask + "/Filter/FlateDecode"), &deflated(&vec![0; side * side / 8]));
        let content = stream("", &b"q 2000 0 0 2000 0 0 cm /X Do Q ".repeat(times));
        pages_with("<</XObject<</X 5 0 R>>>>", &[content], &[mask])
    };
    let stencils = |times: usize| {
        let tile = "/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 8 8]/XStep 8/YStep 8";
        let stencil = "/Subtype/Image/ImageMask true/BitsPerComponent 1/Width 8/Height 1";
        let shown = b"q 100 0 0 50 0 0 cm /X Do Q ".repeat(times);
        let content = [&b"/Pattern cs /P scn "[..], &shown].concat();
        let content = stream("/Filter/FlateDecode", &deflated(&content));
        let more = [stream(stencil, b"\x0f"), stream(tile, b"1 0 0 rg 0 0 4 4 re f")];
        pages_with("<</XObject<</X 5 0 R>>/Pattern<</P 6 0 R>>>>", &[content], &more)
    };
    let lines = |times: usize| {
        let content = [b"0 0 m ", &b"100 50 l 0 49 l "[..].repeat(times)[..], b"f"].concat();
        pages_with("<<>>", &[stream("/Filter/FlateDecode", &deflated(&content))], &[])
    };
    let drawn = |file| views(file, &[DocumentView::Image]).map(|views| views.len());
    for (large, small) in [
        (forms(8), forms(3)),
        (tiles(100_000), tiles(80)),
        (images(60), images(1)),
        (stencils(10_000), stencils(10)),
        (lines(3_000_000), lines(1000)),
    ] {
        let error = drawn(large).unwrap_err();
        assert!(error.starts_with("page 1: drawing it takes more than "), "{error}");
        assert_eq!(drawn(small), Ok(1));
    }
}

/// It would take the process with it: the stack is used up.
#[test]
fn a_glyph_that_shows_itself_is_not_drawn() {
    let font = |glyph: u32| {
        format!(
            "<</Font<</F<</Type/Font/Subtype/Type3/FontBBox[0 0 9 9]/FontMatrix[.1 0 0 .1 0 0]/FirstChar 65/LastChar 65/Widths[9]\
             /Encoding<</Differences[65/a]>>/CharProcs<</a {glyph} 0 R>>>>>>>>"
        )
    };
    let shown = |glyph| {
        let content = stream("", b"BT /F 10 Tf 5 5 Td (AA) Tj ET");
        views(
            pages_with(&font(glyph), &[content], &[stream("", b"9 0 d0 0 0 5 5 re f")]),
            &[DocumentView::Image],
        )
    };
    assert_eq!(shown(4).unwrap_err(), "page 1: more than 28 glyphs, tiles and masks within each other");
    assert_eq!(shown(5).unwrap().len(), 1);
}
