//! `inspect` on files, shards and outputs: what a person sees, and what is said when there is nothing to see.

use std::{fs, sync::Arc};

use arrow::array::{ArrayRef, StringArray};

use crate::{
    golden,
    support::{Work, blt},
};

fn weights() -> String {
    golden::folder("nano").display().to_string()
}

#[test]
fn a_file_of_text_is_shown_with_its_patches() {
    let work = Work::new();
    let path = work.path("note.txt");
    fs::write(&path, "The lamp keeper writes down\x1b[31m every ship.").unwrap();
    let shown = blt(&["inspect", path.to_str().unwrap(), "--weights", &weights()]);
    shown.expect(0, &["modality text", "nats", "⟨1b⟩"]);
    assert!(!shown.stdout.contains('\x1b'), "no escape reaches the terminal");
    fs::write(&path, "The lamp keeper writes down every ship.").unwrap();
    let shown = blt(&["inspect", path.to_str().unwrap(), "--weights", &weights()]);
    shown.expect(0, &["modality text", "segments 1 (text)"]);
    assert!(shown.stdout.replace(['│', '\n'], "").contains("The lamp keeper writes down every ship."));
}

#[test]
fn a_row_of_a_shard_is_shown_without_naming_its_column() {
    let samples = "pipelines/samples/images.parquet";
    blt(&["inspect", samples, "--row", "2", "--weights", &weights()])
        .expect(0, &["waves", "modality image", "bytes 12,288", "segments 16 (patch)"]);
    blt(&["inspect", samples, "--row", "9", "--weights", &weights()])
        .expect(65, &["the row goes to quarantine: failed to decode png: "]);
    blt(&["inspect", samples, "--row", "10", "--weights", &weights()]).expect(2, &["has 10 rows"]);
}

#[test]
fn a_page_holds_everything_it_shows() {
    let work = Work::new();
    let (page, samples) = (work.path("page.html"), "pipelines/samples/audio.parquet");
    let arguments =
        ["inspect", samples, "--row", "0", "--html", page.to_str().unwrap(), "--weights", &weights()];
    blt(&arguments).expect(0, &[]);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") || html.starts_with("<!DOCTYPE html>"), "{}", &html[..100]);
    assert!(html.contains("<audio") && html.contains("data:audio/wav;base64,"));
    assert!(!html.contains("http://") && !html.contains("https://"), "nothing is fetched");
}

#[test]
fn a_row_of_an_output_has_the_scores_that_were_written() {
    let work = Work::new();
    let texts = ["The lamp keeper", "writes down every ship"];
    work.shard("a.parquet", [("body", Arc::new(StringArray::from(texts.to_vec())) as ArrayRef)], 2);
    work.run(&["source.content=body"]);
    let (out, shards) = (work.out(), work.path("shards"));
    let (out, shards) = (out.to_str().unwrap(), shards.to_str().unwrap());
    let shown = blt(&["inspect", out, "--row", "1", "--source", shards]);
    shown.expect(0, &["a.parquet#1", "modality text", "bytes 22"]);
    assert!(shown.stdout.replace('│', "").contains("writes down every ship"));
    blt(&["inspect", out]).expect(2, &["does not hold the bytes", "--source"]);
    blt(&["inspect", out, "--row", "2", "--source", shards]).expect(2, &["the output has 2 documents"]);
    blt(&["inspect", shards]).expect(2, &["holds no output"]);
    blt(&["inspect", "no/such/file"]).expect(2, &["no/such/file"]);
}

#[test]
fn an_output_is_shown_with_its_own_shards_and_tokenizer_or_not_at_all() {
    let work = Work::with(&["lamp keeper"]);
    let tokenizer = |name: &str, word: &str| {
        let file = work.path(name);
        let text = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": { "lamp": 0, word: 1 }, "unk_token": word },
        });
        fs::write(&file, text.to_string()).unwrap();
        format!("pretokenize.text.tokenizer={}", file.display())
    };
    let (right, wrong) = (tokenizer("right.json", "keeper"), tokenizer("wrong.json", "keep"));
    work.run(&["pretokenize.text.segments=tokenizer", &right]);
    let (out, shards) = (work.out(), work.path("shards"));
    let (out, shards) = (out.to_str().unwrap(), shards.to_str().unwrap());
    let inspect = |flags: &[&str]| blt(&[&["inspect", out, "--source", shards], flags].concat());
    inspect(&["--set", &right]).expect(0, &["segments 3 (2 token, 1 rest)"]);
    inspect(&[]).expect(2, &["needs pretokenize.text.tokenizer"]);
    inspect(&["--set", &wrong]).expect(2, &["is not the tokenizer that the output was made with"]);
    inspect(&["--set", &right, "--view", "raw"]).expect(2, &["--view"]);
    work.texts("a.parquet", &["another lamp keeper"]);
    inspect(&["--set", &right]).expect(2, &["is not the file that the output was made from"]);
}

#[test]
fn reasons_reach_the_terminal_without_control_characters() {
    let work = Work::new();
    let path = work.path("evil.hdr");
    fs::write(&path, b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n\x1b[2J 5 +X 5\n").unwrap();
    let shown = blt(&["inspect", path.to_str().unwrap(), "--weights", &weights()]);
    shown.expect(65, &["the row goes to quarantine: ", "⟨1b⟩[2J"]);
    assert!(!shown.stderr.contains('\x1b') && !shown.stdout.contains('\x1b'), "{}", shown.stderr);
}
