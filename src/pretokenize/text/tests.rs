//! What becomes of text, by every rule.

use std::io::Write;

use super::{tokens::*, *};

fn text(segments: TextSegments) -> Text {
    Text::new(&PretokenizeText { segments, ..PretokenizeText::default() }, 1 << 20).unwrap()
}

fn text_of_tokenizer(json: &serde_json::Value) -> Text {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json.to_string().as_bytes()).unwrap();
    let tokenizer = Some(file.path().to_str().unwrap().to_owned());
    let settings =
        PretokenizeText { segments: TextSegments::Tokenizer, tokenizer, ..PretokenizeText::default() };
    Text::new(&settings, 1 << 20).unwrap()
}

fn view(text: &Text, bytes: &[u8]) -> View {
    let mut views = text.views(Content { bytes: bytes.to_vec(), ..Content::default() }).unwrap();
    assert_eq!(views.len(), 1);
    let view = views.remove(0);
    assert_eq!((view.modality, &view.name, &*view.bytes), ("text", &None, bytes));
    let mut end = 0;
    for segment in &view.segments {
        assert_eq!(segment.bytes.start, end, "{:?} of {bytes:?}", view.segments);
        assert!(segment.bytes.end > end, "{:?} of {bytes:?}", view.segments);
        end = segment.bytes.end;
    }
    assert_eq!(end, bytes.len() as u64);
    view
}

/// Kind, bytes and meta of each segment.
fn parts(text: &Text, bytes: impl AsRef<[u8]>) -> Vec<(&'static str, String, String)> {
    let view = view(text, bytes.as_ref());
    let part = |segment: &Segment| {
        let bytes = &view.bytes[segment.bytes.start as usize..segment.bytes.end as usize];
        let bytes =
            std::str::from_utf8(bytes).map_or_else(|_| bytes.escape_ascii().to_string(), str::to_owned);
        (segment.kind, bytes, segment.meta.clone().unwrap_or_default())
    };
    view.segments.iter().map(part).collect()
}

fn strings(text: &Text, bytes: impl AsRef<[u8]>) -> Vec<String> {
    parts(text, bytes).into_iter().map(|(_, bytes, _)| bytes).collect()
}

/// The character that stands for a byte in the vocabulary of a byte-level tokenizer.
fn byte_level(byte: u8) -> String {
    let is_itself = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let n_moved = (0..byte).filter(|byte| !is_itself(*byte)).count() as u32;
    let code = if is_itself(byte) { u32::from(byte) } else { 256 + n_moved };
    char::from_u32(code).unwrap().into()
}

/// Every byte is a token of its own number; `hello` and ` hello` are tokens, too.
fn byte_level_tokenizer() -> serde_json::Value {
    let mut vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..=255).map(|byte| (byte_level(byte), byte.into())).collect();
    let merges = ["h e", "l l", "he ll", "hell o", "\u{120} hello"];
    for (n, merge) in merges.iter().enumerate() {
        vocabulary.insert(merge.replace(' ', ""), (256 + n).into());
    }
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    serde_json::json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [{
            "id": 261, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

fn word_piece_tokenizer() -> serde_json::Value {
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": null,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "hello": 3, ",": 4, "wor": 5, "##ld": 6, "s": 7, "##s": 8},
        },
    })
}

#[test]
fn bytes_that_are_not_utf8_stay_as_they_are() {
    let view = view(&text(TextSegments::Whole), &[0xff, 0x00, b'a', 0xc3]);
    assert_eq!(view.segments, [Segment { kind: "text", bytes: 0..4, meta: None }]);
}

#[test]
fn an_empty_text_is_a_document_without_segments() {
    for text in [
        text(TextSegments::Whole),
        text(TextSegments::Paragraph),
        text(TextSegments::Sentence),
        text_of_tokenizer(&byte_level_tokenizer()),
    ] {
        assert!(view(&text, b"").segments.is_empty());
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_when_asked_for() {
    let settings = PretokenizeText { invalid_utf8: InvalidUtf8::Quarantine, ..PretokenizeText::default() };
    let text = Text::new(&settings, 4).unwrap();
    let of = |bytes: &[u8]| text.views(Content { bytes: bytes.to_vec(), ..Content::default() });
    assert!(of("\u{e9}a".as_bytes()).is_ok());
    let reason = of(b"a\xff").unwrap_err();
    assert_eq!(reason, "failed to read text as UTF-8: invalid utf-8 sequence of 1 bytes from index 1");
    let reason = of(b"a\xe2\x82").unwrap_err();
    assert_eq!(reason, "failed to read text as UTF-8: incomplete utf-8 byte sequence from index 1");
    assert!(of(b"abcde").unwrap_err().contains("limits.max_document_bytes = 4"));
}

#[test]
fn blank_lines_end_a_paragraph_and_belong_to_it() {
    let text = text(TextSegments::Paragraph);
    for (whole, expected) in [
        ("one", vec!["one"]),
        ("one\ntwo", vec!["one\ntwo"]),
        ("one\n\ntwo\n", vec!["one\n\n", "two\n"]),
        ("one\n \t\n\n\n  two", vec!["one\n \t\n\n\n", "  two"]),
        ("one\r\n\r\ntwo", vec!["one\r\n\r\n", "two"]),
        ("one\r\rtwo\r\n", vec!["one\r\r", "two\r\n"]),
        ("\n\none\n\n", vec!["\n\none\n\n"]),
        ("\n \n", vec!["\n \n"]),
        ("one\n\n\u{a0}\n\ntwo", vec!["one\n\n", "\u{a0}\n\n", "two"]),
    ] {
        assert_eq!(strings(&text, whole), expected);
    }
    assert_eq!(strings(&text, b"caf\xe9\n\n\xff"), ["caf\\xe9\\n\\n", "\\xff"]);
}

#[test]
fn sentences_end_where_uax_29_says() {
    let text = text(TextSegments::Sentence);
    for (whole, expected) in [
        (
            "Hello there.  It is 3.14! (Or \"so.\") ok",
            vec!["Hello there.  ", "It is 3.14! ", "(Or \"so.\") ok"],
        ),
        ("no end", vec!["no end"]),
        ("One\nTwo\r\nThree", vec!["One\n", "Two\r\n", "Three"]),
        ("\u{4f60}\u{597d}\u{3002}\u{518d}\u{89c1}", vec!["\u{4f60}\u{597d}\u{3002}", "\u{518d}\u{89c1}"]),
        ("etc. and so on. Then", vec!["etc. and so on. ", "Then"]),
    ] {
        assert_eq!(strings(&text, whole), expected);
    }
}

#[test]
fn sentences_go_through_bytes_that_are_not_utf8() {
    let sentences = strings(&text(TextSegments::Sentence), b"Caf\xe9 is good. \xff\xfe Next. \xe2\x82 End");
    assert_eq!(sentences, ["Caf\\xe9 is good. ", "\\xff\\xfe Next. ", "\\xe2\\x82 End"]);
}

#[test]
fn a_sentence_that_does_not_come_to_its_end_takes_no_quadratic_time() {
    let text = text(TextSegments::Sentence);
    for filler in [" ", ")(", "1 "] {
        let whole = format!("a.{}b", filler.repeat((1 << 20) / filler.len() - 3));
        assert!(view(&text, whole.as_bytes()).segments.len() <= 2);
    }
}

#[test]
fn tokens_carry_their_ids_and_the_blank_before_them() {
    let text = text_of_tokenizer(&byte_level_tokenizer());
    let expected = [("hello", 259), (" hello", 260), (" ", 32), ("x", 120), ("<|end|>", 261)];
    let expected = expected.map(|(part, id)| ("token", part.to_owned(), format!(r#"{{"id":{id}}}"#)));
    assert_eq!(parts(&text, "hello hello x<|end|>"), expected);
}

#[test]
fn tokens_that_share_a_character_share_a_segment() {
    let text = text_of_tokenizer(&byte_level_tokenizer());
    let parts = parts(&text, "h\u{e9}");
    assert_eq!(parts[0], ("token", "h".into(), r#"{"id":104}"#.into()));
    assert_eq!(parts[1], ("token", "\u{e9}".into(), r#"{"ids":[195,169]}"#.into()));
}

#[test]
fn bytes_that_are_not_utf8_are_in_no_token() {
    let text = text_of_tokenizer(&byte_level_tokenizer());
    let kinds: Vec<_> =
        parts(&text, b"\xffhello\xe2\x82 hello\xc3").into_iter().map(|p| (p.0, p.1)).collect();
    let expected = [
        ("rest", "\\xff"),
        ("token", "hello"),
        ("rest", "\\xe2\\x82"),
        ("token", " hello"),
        ("rest", "\\xc3"),
    ];
    assert_eq!(kinds, expected.map(|(kind, part)| (kind, part.to_owned())));
}

#[test]
fn tokens_of_normalized_text_are_bytes_of_the_original() {
    let text = text_of_tokenizer(&word_piece_tokenizer());
    let expected = [
        ("token", "H\u{c9}llo", r#"{"id":3}"#),
        ("token", ",", r#"{"id":4}"#),
        ("rest", "  ", ""),
        ("token", "WOR", r#"{"id":5}"#),
        ("token", "LD", r#"{"id":6}"#),
        ("rest", "\n", ""),
        ("token", "nowhere", r#"{"id":0}"#),
        ("rest", " ", ""),
    ];
    let expected = expected.map(|(kind, part, meta)| (kind, part.to_owned(), meta.to_owned()));
    assert_eq!(parts(&text, "H\u{c9}llo,  WORLD\nnowhere "), expected);
    assert_eq!(strings(&text, " \n "), [" \n "]);
    // The accent is a character of its own here, which the normalizer drops out of the middle of a token.
    assert_eq!(strings(&text, "He\u{301}llo,"), ["He\u{301}llo", ","]);
}

#[test]
fn tokens_without_bytes_are_grouped_with_a_neighbour() {
    let group = |tokens, bytes| Group { tokens, bytes };
    assert_eq!(groups(&[(0, 0), (0, 2), (2, 2), (3, 4)], 5), Ok(vec![group(0..3, 0..2), group(3..4, 3..4)]));
    assert_eq!(groups(&[(0, 0), (0, 0)], 5), Ok(vec![group(0..2, 0..5)]));
    assert_eq!(groups(&[(0, 3), (1, 4), (4, 5)], 5), Ok(vec![group(0..2, 0..4), group(2..3, 4..5)]));
    assert_eq!(groups(&[], 5), Ok(vec![]));
    assert!(groups(&[(0, 6)], 5).is_err());
    assert!(groups(&[(3, 2)], 5).is_err());
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_refused_before_any_row() {
    let mut settings = PretokenizeText { segments: TextSegments::Tokenizer, ..PretokenizeText::default() };
    let mut of = |tokenizer: Option<&str>| {
        settings.tokenizer = tokenizer.map(str::to_owned);
        Text::new(&settings, 1).err().unwrap()
    };
    assert_eq!(of(None), "segments = \"tokenizer\" needs the path of one");
    assert!(of(Some("/nowhere/tokenizer.json")).contains(": failed to read /nowhere/tokenizer.json: "));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{\"version\": ").unwrap();
    let path = file.path().to_str().unwrap();
    assert!(of(Some(path)).contains(&format!(": failed to read a tokenizer from {path}: ")));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut random = byte_level_tokenizer();
    random["model"]["dropout"] = 0.5.into();
    file.write_all(random.to_string().as_bytes()).unwrap();
    assert!(of(file.path().to_str()).contains("drops merges at random"));
}

#[test]
fn cut_and_changed_text_is_tiled_by_every_rule() {
    let texts = [
        text(TextSegments::Whole),
        text(TextSegments::Paragraph),
        text(TextSegments::Sentence),
        text_of_tokenizer(&byte_level_tokenizer()),
        text_of_tokenizer(&word_piece_tokenizer()),
    ];
    let sample = "Hello, h\u{e9}llo \u{1f600}\u{200d}\u{fb01}! 3.14\r\n\r\n \u{4f60}\u{597d}\u{3002} e\u{301}\u{0}<|end|> ok.\u{2029}"
        .as_bytes();
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for text in &texts {
        for end in 0..sample.len() {
            view(text, &sample[..end]);
        }
        for _ in 0..300 {
            let mut changed = sample.to_vec();
            for _ in 0..1 + random(6) {
                changed[random(sample.len())] = random(256) as u8;
            }
            view(text, &changed);
        }
    }
}
