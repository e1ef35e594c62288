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
fn forms_show_their_text_where_they_are_shown() {
    let resources = "<</XObject<</X 5 0 R>>>>";
    let form = stream(&format!("/Subtype/Form/Resources {HELVETICA}"), b"BT /F 10 Tf (form) Tj ET");
    let content = stream("", b"/X Do q 1 0 0 1 0 20 cm /X Do Q");
    let (text, _) = text_of(pages_with(resources, &[content], &[form])).unwrap();
    assert_eq!(text, "form\nform\n");
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

#[test]
fn what_is_no_pdf_or_not_all_of_one_goes_to_quarantine() {
    let refused = |bytes: &[u8]| text_of(bytes.to_vec()).unwrap_err();
    assert_eq!(refused(b""), "no bytes");
    assert_eq!(refused(b"\0"), "not a PDF file: no %PDF- at its beginning");
    assert_eq!(refused(b"%PDF-1.4\n%%EOF"), "damaged: no pages can be found in it");
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

    let long = pages(&[&format!("BT /F 12 Tf {} ET", "(One) Tj ".repeat(400))]);
    let content = Content { bytes: long, ..Content::default() };
    let refused = document(&[DocumentView::Text], 1000).views(content).unwrap_err();
    assert_eq!(refused, format!("page 1: {}", too_long_decoded(1001, 1000)));

    let wide = |first: &str| {
        HELVETICA.replace("/Encoding", &format!("/FirstChar {first}/LastChar 9/Widths[1]/Encoding"))
    };
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
        let _ = text_of(pages_with(HELVETICA, &[stream("", b"BT ET")], &[object]));
        let _ = text_of(pages_with(&nested, &[stream("", b"BT ET")], &[]));
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
        let mut file = pages_with(HELVETICA, &[packed, stream("", b"BT /F 12 Tf (One) Tj ET /X Do")], &[]);
        file.truncate((length * file.len() as f64) as usize);
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let which: &[_] = if with_pictures { &[DocumentView::Text, DocumentView::Image] } else { &[DocumentView::Text] };
        let _ = views(file, which);
    }
}
