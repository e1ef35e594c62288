//! Files of many formats, decoded by this program and by others (decoders.py): pixel for pixel, sample for sample, word for word. What
//! is not the same is listed here, each row with its reason. Needs the shards in `data/multimodal` of `BLT_SHARED`, and all but the last story
//! an interpreter, `BLT_MEDIA_PYTHON`, that has pyarrow, pillow, soundfile and pypdf, and ffmpeg or imageio-ffmpeg.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use arrow::array::{Array, AsArray, RecordBatch};
use blt_pipeline::{
    config::{Overrides, Pipeline},
    data::{Content, View},
    model::FakeModel,
    pretokenize::{Pretokenizer, pretokenizer},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::support::{CONTEXT, DIM, Work, assert_sound};

/// Largest mean and single difference of an 8-bit sample of a lossy picture, JPEG or WebP: decoders round differently.
const LOSSY_PIXELS: (f64, f64) = (0.5, 4.0);
/// Likewise of a sound in floats or lossy, MP3, Vorbis or AAC, in steps of 16 bits: the half step by which we round, a quarter in the mean, and
/// what two decoders differ by before.
const LOSSY_SAMPLES: (f64, f64) = (0.26, 1.0);
/// Least share of pypdf's words that are found, of any PDF that is not listed and of all.
const WORDS: (f64, f64) = (0.99, 0.995);

/// What two decoders make of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Equal,
    /// Not equal, but of a lossy format, and within its bounds.
    Close,
    Differs,
    OtherSize,
    OursOnly,
    TheirsOnly,
    /// Neither reads it.
    Neither,
    /// Only ffmpeg might, which is not there.
    Untried,
}
use Outcome::{Close, Differs, Equal, Neither, OtherSize, OursOnly, TheirsOnly, Untried};

/// Rows of a shard, what becomes of them, and why.
type Known = (&'static [usize], Outcome, &'static str);

const IMAGES: &[Known] = &[
    (&[0, 33, 120, 80], Differs, "5 and 6 bits to 8: we round, Pillow cuts (1 of 255)"),
    (&[7], Differs, "pixels that an RLE bitmap leaves out: black here, the palette's first colour there"),
    (&[13, 114], Differs, "CMYK to RGB, rounded differently (1 of 255)"),
    (&[14], Differs, "two icons of one size and depth: we take the first, Pillow the last"),
    (&[16, 34], Differs, "a bitmap's alpha of one bit: Pillow takes it for opaque"),
    (
        &[21, 22],
        Differs,
        "a frame smaller than its GIF: around it we see through, Pillow has the background's colour",
    ),
    (&[68], Differs, "an icon whose mask and alpha contradict: we take both, Pillow alpha alone"),
    (&[94], Differs, "a TGA that says its fourth channel is no alpha: Pillow takes it for alpha"),
    (
        &[102, 146],
        Differs,
        "premultiplied alpha, which Pillow divides out and multiplies in again (1 of 255)",
    ),
    (
        &[6, 104],
        OtherSize,
        "a frame larger than its GIF: Pillow makes the picture larger, we keep to the header",
    ),
    (&[5, 133, 158], OursOnly, "TGA runs that go on in the next row"),
    (&[53, 124], OursOnly, "TGA pixels of 15 bits, or with a palette beside them"),
    (&[54, 64, 70, 116], OursOnly, "Radiance HDR, which Pillow has not"),
    (&[97, 125, 152], OursOnly, "bitmaps with unusual bit fields"),
    (&[122], OursOnly, "a bitmap of 2 bits a pixel"),
    (&[127], OursOnly, "an RLE bitmap that leaves pixels out by ending early, as it may"),
    (&[35, 117], TheirsOnly, "an icon with another size than its directory tells, or a mask that is cut off"),
    (&[58, 78], TheirsOnly, "TIFF in YCbCr that is not JPEG, or with a palette"),
    (&[75], TheirsOnly, "a TIFF that fuzzing changed: a strip larger than the picture"),
    (&[76], TheirsOnly, "RLE that leaves the bitmap"),
    (&[112], TheirsOnly, "a bitmap of more than one plane, which there is not"),
];

const SOUNDS: &[Known] = &[
    (&[284], OtherSize, "libsndfile ends 12 samples early; ffmpeg has as many as we"),
    (&[55, 76, 87, 151, 223, 245], TheirsOnly, "Opus, which is not read"),
    (&[40, 147, 167, 291], TheirsOnly, "Monkey's Audio, which is not read"),
    (&[26, 169], TheirsOnly, "WavPack, which is not read"),
    (&[65, 102, 215, 293], TheirsOnly, "Speex, which is not read"),
    (&[85, 106, 185, 190, 322], TheirsOnly, "MP3 that is cut off inside of a frame"),
    (&[94], TheirsOnly, "MP3 that begins with what is no frame"),
    (&[99, 166, 220], TheirsOnly, "something between the ID3 tag and the MP3, or the tag's length is wrong"),
    (&[96, 248], TheirsOnly, "MP3 whose first frame lacks what stood before it: a part cut out of a sound"),
    (&[225], TheirsOnly, "MP3 with 2304 samples where its header tells 576000"),
    (&[226], TheirsOnly, "M4A whose `mdat` tells a length of 0"),
    (&[95], TheirsOnly, "24 bits in blocks of 4 bytes, without the header that is for it"),
    (&[292], TheirsOnly, "a chunk of length 0 that holds the samples"),
    (&[108, 242], TheirsOnly, "AIFF with 5873 bytes of sound where its header tells 5882"),
];

/// Of the files that decoders.py makes.
const MADE_SOUNDS: &[Known] = &[
    (&[16, 17], Differs, "IMA ADPCM, whose steps are not rounded as the standard rounds them"),
    (
        &[79, 80],
        OtherSize,
        "the start that Matroska tells to leave out is not there; ffmpeg is asked to keep it",
    ),
];

/// Documents, how many of pypdf's words are not found, and why.
const DOCUMENTS: &[(&[usize], u64, &str)] = &[
    (&[5, 21, 22], 1, "pypdf calls a ligature by its name, `/f_i`, where fontTools is not installed"),
    (&[14], 8, "a Latin word that touches an Arabic one, on four pages: pypdf puts a blank between them"),
    (&[16], 2, "likewise, on one page"),
];

/// What decoders.py says of a row.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Told {
    row: usize,
    path: Option<String>,
    theirs: bool,
    untried: bool,
    by: String,
    told: String,
    lossy: bool,
    same_size: bool,
    mean: f64,
    largest: f64,
    words: u64,
    found: u64,
}

/// Also where the test runner keeps what passing tests print to itself.
#[expect(clippy::explicit_write, reason = "`eprintln!` is captured")]
pub fn tell(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

/// The interpreter that has the others' decoders; none is told of loudly.
pub fn interpreter(story: &str) -> Option<OsString> {
    let interpreter = std::env::var_os("BLT_MEDIA_PYTHON");
    if interpreter.is_none() {
        tell(&format!(
            "NOT TRIED: {story}. Set BLT_MEDIA_PYTHON to an interpreter that has pyarrow, pillow, soundfile and pypdf, \
             and ffmpeg or imageio-ffmpeg"
        ));
    }
    interpreter
}

/// A shard of `data/multimodal`.
fn shard(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("BLT_SHARED").map_or_else(|| "../shared".into(), PathBuf::from);
    let path = folder.join("data/multimodal").join(name);
    if !path.exists() {
        assert!(std::env::var_os("BLT_SHARED").is_none(), "BLT_SHARED has no data/multimodal/{name}");
        crate::storage::skipped(name, "name the shared folder in BLT_SHARED");
        return None;
    }
    Some(path.canonicalize().unwrap())
}

/// Content by row; `None` where it is null.
fn contents(shard: &Path, column: &str) -> Vec<Option<Content>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(shard).unwrap()).unwrap();
    let mut all = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let files = batch[column].as_struct();
        let bytes = files.column_by_name("bytes").unwrap().as_binary::<i32>();
        let paths = files.column_by_name("path").unwrap().as_string::<i32>();
        all.extend((0..files.len()).map(|row| {
            let has_bytes = files.is_valid(row) && bytes.is_valid(row);
            has_bytes.then(|| Content {
                bytes: bytes.value(row).to_vec(),
                path: paths.is_valid(row).then(|| paths.value(row).to_owned()),
                language: None,
            })
        }));
    }
    all
}

/// Of a modality, as it is set up by default.
pub fn by_default(modality: &str) -> std::sync::Arc<dyn Pretokenizer> {
    let text = format!("[source]\nuri = \"a\"\nmodality = {modality:?}\n[sink]\nuri = \"b\"\n");
    let pipeline = Pipeline::parse(&text, "test", &Overrides::default()).unwrap();
    pretokenizer(pipeline.source.modality, &pipeline.pretokenize, &pipeline.limits).unwrap()
}

fn part(view: &View, segment: usize) -> &[u8] {
    let bytes = &view.segments[segment].bytes;
    &view.bytes[bytes.start as usize..bytes.end as usize]
}

fn metas(view: &View) -> Vec<Value> {
    view.segments.iter().map(|s| serde_json::from_str(s.meta.as_deref().unwrap()).unwrap()).collect()
}

fn number(meta: &Value, key: &str) -> usize {
    meta[key].as_u64().unwrap() as usize
}

/// Width, height and RGB, put together from the patches by what their meta says.
fn picture(view: &View) -> Vec<u8> {
    let metas = metas(view);
    let rectangles: Vec<[usize; 4]> =
        metas.iter().map(|meta| ["x", "y", "w", "h"].map(|key| number(meta, key))).collect();
    let width = rectangles.iter().map(|[x, _, w, _]| x + w).max().unwrap();
    let height = rectangles.iter().map(|[_, y, _, h]| y + h).max().unwrap();
    // Nothing is left out, and nothing told twice.
    assert_eq!(rectangles.iter().map(|[.., w, h]| w * h).sum::<usize>(), width * height);
    let mut rgb = vec![0; 3 * width * height];
    for (segment, [x, y, w, _]) in rectangles.into_iter().enumerate() {
        for (line, pixels) in part(view, segment).chunks_exact(3 * w).enumerate() {
            rgb[3 * ((y + line) * width + x)..][..3 * w].copy_from_slice(pixels);
        }
    }
    [&(width as u32).to_le_bytes()[..], &(height as u32).to_le_bytes(), &rgb].concat()
}

/// Rate, channels and samples, all channels of one moment together, put together from the frames.
fn sound(view: &View) -> Vec<u8> {
    let metas = metas(view);
    let rate = number(&metas[0], "rate");
    let n_channels = 1 + metas.iter().map(|meta| number(meta, "channel")).max().unwrap();
    let mut told = [(rate as u32).to_le_bytes(), (n_channels as u32).to_le_bytes()].concat();
    for (frame, metas) in metas.chunks(n_channels).enumerate() {
        assert!(
            metas.iter().enumerate().all(|(c, m)| number(m, "channel") == c && number(m, "rate") == rate)
        );
        let channels: Vec<&[u8]> = (0..n_channels).map(|c| part(view, frame * n_channels + c)).collect();
        for at in (0..channels[0].len()).step_by(2) {
            channels.iter().for_each(|channel| told.extend(&channel[at..at + 2]));
        }
    }
    told
}

/// A JSON object: the text of each page that has one.
fn pages(view: &View) -> Vec<u8> {
    let text = |(segment, meta): (usize, Value)| {
        let text = std::str::from_utf8(part(view, segment)).unwrap();
        (meta["page"].to_string(), Value::from(text))
    };
    Value::from_iter(metas(view).into_iter().enumerate().map(text)).to_string().into_bytes()
}

fn run_script(interpreter: &OsString, arguments: &[&OsStr]) -> String {
    let script = Path::new(file!()).with_file_name("decoders.py");
    let output = Command::new(interpreter).arg(script).args(arguments).output().unwrap();
    let [out, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{errors}");
    out
}

/// Decodes a shard of the shared folder here and elsewhere: of each row whether we read it and what decoders.py says. `None` without what
/// it takes.
fn compared(column: &str, name: &str, rebuilt: fn(&View) -> Vec<u8>) -> Option<Vec<(bool, Told)>> {
    let (interpreter, shard) = (interpreter(&format!("other decoders on {name}"))?, shard(name)?);
    Some(compare(&interpreter, column, &shard, rebuilt))
}

/// Likewise, of a shard with files of every format that is read, made by the others.
fn compared_made(column: &str, rebuilt: fn(&View) -> Vec<u8>) -> Option<Vec<(bool, Told)>> {
    let interpreter = interpreter(&format!("{column} files that others make"))?;
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join("made.parquet");
    run_script(&interpreter, &["make".as_ref(), column.as_ref(), shard.as_ref()]);
    Some(compare(&interpreter, column, &shard, rebuilt))
}

fn compare(
    interpreter: &OsString,
    column: &str,
    shard: &Path,
    rebuilt: fn(&View) -> Vec<u8>,
) -> Vec<(bool, Told)> {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let modality = by_default(if column == "pdf" { "document" } else { column });
    let contents = contents(shard, column);
    let mut is_ours = Vec::new();
    for (row, content) in contents.into_iter().enumerate() {
        let views = content.map(|content| modality.views(content));
        if let Some(Ok(views)) = &views {
            let [view] = &views[..] else { panic!("row {row} has {} views", views.len()) };
            blt_pipeline::pretokenize::check_tiling(view)
                .unwrap_or_else(|error| assert_eq!(error, "", "{row}"));
            fs::write(folder.path().join(row.to_string()), rebuilt(view)).unwrap();
        }
        is_ours.push(matches!(views, Some(Ok(_))));
    }
    let ours = start.elapsed();
    let out = run_script(interpreter, &[column.as_ref(), shard.as_ref(), folder.path().as_ref()]);
    let there = start.elapsed() - ours;
    tell(&format!("{column}s: {ours:.1?} to decode and write here, {there:.1?} there"));
    let told: Vec<Told> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(told.iter().map(|told| told.row).eq(0..is_ours.len()), "a row is missing");
    is_ours.into_iter().zip(told).collect()
}

fn outcome(is_ours: bool, told: &Told, (mean, largest): (f64, f64)) -> Outcome {
    match (is_ours, told.theirs) {
        (_, false) if told.untried => Untried,
        (false, false) => Neither,
        (true, false) => OursOnly,
        (false, true) => TheirsOnly,
        (true, true) if !told.same_size => OtherSize,
        (true, true) if told.largest == 0.0 => Equal,
        (true, true) if told.lossy && told.mean <= mean && told.largest <= largest => Close,
        (true, true) => Differs,
    }
}

/// Asserts that each row that both read is equal or close, each that one side alone reads is known, and so is any other; and that at
/// least so many are equal.
fn hold_to(name: &str, rows: &[(bool, Told)], bounds: (f64, f64), known: &[Known], least_equal: usize) {
    let mut counts = BTreeMap::<Outcome, usize>::new();
    let mut lossy = BTreeMap::<&str, (usize, f64, f64)>::new();
    let mut wrong = Vec::new();
    for (is_ours, told) in rows {
        let found = outcome(*is_ours, told, bounds);
        *counts.entry(found).or_default() += 1;
        if told.lossy && told.same_size {
            let (n, mean, largest) = lossy.entry(&told.by).or_default();
            (*n, *mean, *largest) = (*n + 1, mean.max(told.mean), largest.max(told.largest));
        }
        let listed = known.iter().find(|(rows, ..)| rows.contains(&told.row));
        let is_right = match listed {
            _ if found == Untried => true,
            Some((_, outcome, _)) => found == *outcome,
            None => matches!(found, Equal | Close | Neither),
        };
        if !is_right {
            let expected = listed.map_or("not in the list".to_owned(), |l| format!("listed as {l:?}"));
            wrong.push(format!("{found:?}, {expected}: {told:?}"));
        }
    }
    tell(&format!("{name}: {} rows, {counts:?}", rows.len()));
    for (by, (n, mean, largest)) in lossy {
        tell(&format!("  {by}: {n} rows differ by {mean:.3} in the mean and {largest:.3} at most"));
    }
    if let Some(n) = counts.get(&Untried) {
        tell(&format!("NOT TRIED: {n} rows of {name} that only ffmpeg might read"));
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    assert!(counts.get(&Equal).is_some_and(|n| *n >= least_equal), "{name}: {counts:?}");
}

#[test]
fn pictures_are_those_that_pillow_sees() {
    let Some(rows) = compared("image", "images_mixed.parquet", picture) else { return };
    hold_to("images_mixed.parquet", &rows, LOSSY_PIXELS, IMAGES, 95);
}

#[test]
fn sounds_are_those_that_libsndfile_and_ffmpeg_hear() {
    let Some(rows) = compared("audio", "audio_mixed.parquet", sound) else { return };
    hold_to("audio_mixed.parquet", &rows, LOSSY_SAMPLES, SOUNDS, 225);
}

#[test]
fn three_hundred_spoken_digits_are_the_same_sample_for_sample() {
    let Some(rows) = compared("audio", "audio_digits_hub_shard.parquet", sound) else { return };
    hold_to("audio_digits_hub_shard.parquet", &rows, LOSSY_SAMPLES, &[], 300);
}

#[test]
fn pictures_of_every_format_are_those_that_pillow_writes() {
    let Some(rows) = compared_made("image", picture) else { return };
    hold_to("made pictures", &rows, LOSSY_PIXELS, &[], 30);
}

#[test]
fn sounds_of_every_format_are_those_that_libsndfile_and_ffmpeg_write() {
    let Some(rows) = compared_made("audio", sound) else { return };
    hold_to("made sounds", &rows, LOSSY_SAMPLES, MADE_SOUNDS, 40);
}

#[test]
fn documents_have_the_words_that_pypdf_finds() {
    let Some(rows) = compared("pdf", "pdf_mixed.parquet", pages) else { return };
    let (mut n_files, mut n_words, mut n_found, mut wrong) = (0, 0, 0, Vec::new());
    for (is_ours, told) in &rows {
        let listed = DOCUMENTS.iter().find(|(rows, ..)| rows.contains(&told.row));
        let is_right = match listed {
            Some((_, n_missing, _)) => told.words - told.found == *n_missing,
            None => told.found as f64 >= WORDS.0 * told.words as f64,
        };
        if *is_ours != told.theirs || !is_right {
            wrong.push(format!("{told:?}, listed as {listed:?}"));
        }
        if *is_ours {
            tell(&format!("  row {}: {} of {} words, {}", told.row, told.found, told.words, told.told));
            (n_files, n_words, n_found) = (n_files + 1, n_words + told.words, n_found + told.found);
        }
    }
    let share = n_found as f64 / n_words as f64;
    tell(&format!("pdf_mixed.parquet: {n_files} files, {n_found} of {n_words} words, {share:.4}"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(n_files >= 24 && n_words > 5000 && share >= WORDS.1, "{share}");
}

/// The words with which the modality refuses what has no bytes, what is cut in half, and what is nothing it knows.
const REFUSED: [(&str, &str, [&str; 3]); 3] = [
    (
        "image",
        "images_mixed.parquet",
        [
            "an empty file is no image",
            "failed to decode bmp: ",
            "the first bytes are those of no known image format",
        ],
    ),
    (
        "audio",
        "audio_mixed.parquet",
        [
            "failed to decode: no bytes",
            "failed to decode: ",
            "failed to decode: no format of sound that is known",
        ],
    ),
    (
        "pdf",
        "pdf_mixed.parquet",
        ["no bytes", "truncated: no %%EOF at its end", "not a PDF file: no %PDF- at its beginning"],
    ),
];

/// What becomes of a row: modality and length of its document, or the reason in quarantine.
type Fate = Result<(String, u64), String>;

/// By row, after a whole run with a fake model. Asserts that each row is in one of the two tables, and there once.
fn fates(shard: &Path, column: &str, modality: &str) -> Vec<Fate> {
    let work = Work::new();
    let sets = [
        format!("source.uri={}", shard.display()),
        format!("source.content={column}"),
        format!("source.modality={modality}"),
        "limits.max_quarantined=1.0".to_owned(),
        "sink.embeddings=none".to_owned(),
    ];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    work.engine(&sets, &mut FakeModel::new(DIM, CONTEXT)).unwrap();
    assert_sound(&work.out());
    let mut fates = BTreeMap::<u64, Fate>::new();
    let documents = work.table("documents").unwrap();
    for (row, found) in work.documents().into_iter().enumerate() {
        let fate = Ok((string(&documents, "modality", row), found.n_bytes));
        assert_eq!(fates.insert(found.source_row, fate), None, "row {} twice", found.source_row);
    }
    if let Some(quarantine) = work.table("quarantine") {
        for (row, found) in crate::support::rows(&quarantine).into_iter().enumerate() {
            let fate = Err(string(&quarantine, "reason", row));
            assert_eq!(fates.insert(found.source_row, fate), None, "row {} twice", found.source_row);
        }
    }
    assert!(fates.keys().copied().eq(0..contents(shard, column).len() as u64), "a row is missing");
    fates.into_values().collect()
}

fn string(table: &RecordBatch, column: &str, row: usize) -> String {
    let column = arrow::compute::cast(&table[column], &arrow::datatypes::DataType::Utf8).unwrap();
    column.as_string::<i32>().value(row).to_owned()
}

/// The last six rows: a null struct, null bytes, no bytes, a file cut in half, all byte values four times, and one byte without a path.
#[test]
fn every_row_has_one_fate_and_rows_without_a_file_the_right_one() {
    let null = "the content is null";
    let only_path = "the content is null; its path is \"missing.bin\", and source.resolve_paths = true would read that file";
    for (column, name, refused) in REFUSED {
        let Some(shard) = shard(name) else { return };
        let named = fates(&shard, column, if column == "pdf" { "document" } else { column });
        let edges = &named[named.len() - 6..];
        let [no_bytes, cut, unknown] = refused;
        // Where the path decides nothing, it is not read.
        let second = if column == "image" { only_path } else { null };
        for (edge, words) in edges.iter().zip([null, second, no_bytes, cut, unknown, unknown]) {
            assert!(
                edge.as_ref().is_err_and(|reason| reason.starts_with(words)),
                "{name}: {edge:?}, {words}"
            );
        }

        let found = fates(&shard, column, "auto");
        let document = |modality: &str, n_bytes| Ok((modality.to_owned(), n_bytes));
        let expected = [
            Err(null.to_owned()),
            Err(only_path.to_owned()),
            document("text", 0),
            edges[3].clone(),
            document("raw", 1024),
            document("raw", 1),
        ];
        assert_eq!(found[found.len() - 6..], expected, "{name}");
        // Their documents are their bytes.
        let auto = by_default("auto");
        for content in contents(&shard, column).into_iter().rev().take(2).map(Option::unwrap) {
            assert_eq!(auto.views(content.clone()).unwrap()[0].bytes, content.bytes);
        }
        // What a file is need not be told: what the modality reads, `auto` finds to be of it, with the same bytes.
        for (row, (named, found)) in named.iter().zip(&found).enumerate() {
            assert!(named.is_err() || named == found, "{name} row {row}: {named:?}, {found:?}");
        }
    }
    let Some(digits) = shard("audio_digits_hub_shard.parquet") else { return };
    for modality in ["audio", "auto"] {
        let fates = fates(&digits, "audio", modality);
        assert!(
            fates.iter().all(|fate| fate.as_ref().is_ok_and(|(found, _)| found == "audio")),
            "{modality}"
        );
    }
}
