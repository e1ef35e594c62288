//! Sources and models on the Hub: what comes of them is what comes of the same files here, whatever the network does meanwhile.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use crate::{
    golden,
    hub_server::{Category, Faults, File, Hub, OWNER_TOKEN, RateLimit, Request, STRANGER_TOKEN},
    support::{Outcome, Work, assert_same, assert_sound, prose, set_flags, snapshot, write_parquet},
};

/// The columns of FineWeb-Edu, in its order, for `rows` documents of our own.
pub fn fineweb_rows(rows: usize, seed: u32) -> RecordBatch {
    let texts: Vec<String> =
        (0..rows).map(|i| prose(200 + (i * 397) % 1500, seed * 1000 + i as u32)).collect();
    let text = |prefix: &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("{prefix}{seed:04}/{i:08}"))))
    };
    let lengths = || texts.iter().map(|text| text.len() as i64);
    RecordBatch::try_from_iter([
        ("text", Arc::new(StringArray::from(texts.clone())) as ArrayRef),
        ("id", text("<urn:uuid:lighthouse-")),
        ("dump", Arc::new(StringArray::from(vec!["OWN-2026-47"; rows]))),
        ("url", text("https://keeper.example/log/of/the/lamp/")),
        ("file_path", text("segments/of/the/log/")),
        ("language", Arc::new(StringArray::from(vec!["en"; rows]))),
        (
            "language_score",
            Arc::new(Float64Array::from_iter_values((0..rows).map(|i| 0.9 + i as f64 * 1e-6))),
        ),
        ("token_count", Arc::new(Int64Array::from_iter_values(lengths().map(|n| n / 4)))),
        ("score", Arc::new(Float64Array::from_iter_values((0..rows).map(|i| 2.5 + (i % 7) as f64 / 4.0)))),
        ("int_score", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| 3 + (i % 3) as i64)))),
    ])
    .unwrap()
}

/// Shards named as FineWeb-Edu names them, in `shards/`, `rows` rows each.
pub fn fineweb_shards(work: &Work, shards: u32, rows: usize, rows_a_group: usize) -> Vec<String> {
    let name = |i| format!("00{i}_0000{i}.parquet");
    for i in 0..shards {
        write_parquet(&work.path("shards").join(name(i)), &fineweb_rows(rows, i), rows_a_group);
    }
    (0..shards).map(name).collect()
}

const DATASET: &str = "keeper/fineweb-own";

/// The shards of `work` as a dataset, below `sample/10BT/`, and what lies beside them.
fn publish(hub: &Hub, work: &Work) {
    let mut files: Vec<File> = fs::read_dir(work.path("shards"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            File::lfs(&format!("sample/10BT/{name}"), &fs::read(&path).unwrap())
        })
        .collect();
    files.push(File::plain("README.md", b"# A lamp's log"));
    files.push(File::plain(".gitattributes", b"*.parquet filter=lfs"));
    hub.dataset(DATASET).files(files);
}

/// What a process needs to speak to `hub` with caches and a home of its own in `work`.
fn environment(hub: &Hub, work: &Work) -> Vec<(&'static str, String)> {
    vec![
        ("HF_ENDPOINT", hub.endpoint()),
        ("HF_HOME", work.path("hf").to_str().unwrap().to_owned()),
        ("XDG_CACHE_HOME", work.path("cache").to_str().unwrap().to_owned()),
        ("BLT_NETWORK_TIMEOUT", "2".to_owned()),
        ("BLT_NETWORK_PATIENCE", "60".to_owned()),
    ]
}

fn source() -> String {
    format!("source.uri=hf://datasets/{DATASET}/sample/10BT/*.parquet")
}

/// `blt-pipeline run` with `sets`, and what `more` adds to the environment.
fn run(hub: &Hub, work: &Work, sets: &[&str], more: &[(&'static str, &str)]) -> Outcome {
    let mut variables = environment(hub, work);
    variables.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    work.blt_with(&variables, &[&["run", "pipeline.toml"], set_flags(sets).as_slice()].concat())
}

/// An output without what names commits of the Hub.
fn snapshot_without_revisions(out: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut all = snapshot(out);
    for (name, bytes) in &mut all {
        if name.starts_with("_blt/plan") {
            let mut plan: Value = serde_json::from_slice(bytes).unwrap();
            plan.as_object_mut().unwrap().remove("revisions");
            *bytes = plan.to_string().into_bytes();
        }
    }
    all
}

/// Bytes that were sent of files.
fn sent(log: &[Request]) -> u64 {
    log.iter().filter(|request| !request.path.starts_with("/api/")).map(|request| request.sent).sum()
}

#[test]
fn a_dataset_on_the_hub_becomes_what_its_files_here_become() {
    let (hub, work) = (Hub::start(), Work::new());
    // As many files as the sample has.
    fineweb_shards(&work, 14, 20, 12);
    publish(&hub, &work);
    work.run(&["sink.unit_bytes=16 KiB"]);
    let expected = snapshot_without_revisions(&work.out());
    for (case, sets) in [
        ("ranges", vec![]),
        ("kept", vec!["source.cache=true"]),
        // Everything is in the cache by now.
        ("again", vec![]),
    ] {
        hub.clear_log();
        let out = work.path(case);
        let (source, sink) = (source(), format!("sink.uri={}", out.display()));
        let sets = [vec![source.as_str(), &sink, "sink.unit_bytes=16 KiB"], sets].concat();
        run(&hub, &work, &sets, &[]).expect(0, &[]);
        assert_sound(&out);
        assert_same(&snapshot_without_revisions(&out), &expected, case);
        let plan: Value = serde_json::from_slice(&fs::read(out.join("_blt/plan.json")).unwrap()).unwrap();
        assert_eq!(
            plan["revisions"][format!("datasets/{DATASET}@main")],
            hub.dataset(DATASET).sha(),
            "{case}"
        );
        assert_eq!(sent(&hub.log()) == 0, case == "again", "{case}");
    }
}

#[test]
#[allow(clippy::print_stdout)] // Figures for benches/README.md.
fn two_of_ten_columns_cost_hardly_more_than_they_take() {
    let (hub, work) = (Hub::start(), Work::new());
    let names = fineweb_shards(&work, 2, 1500, 250);
    publish(&hub, &work);
    let mut wanted = 0;
    let mut all = 0;
    for name in names {
        let file = fs::File::open(work.path("shards").join(name)).unwrap();
        all += file.metadata().unwrap().len();
        let reader = SerializedFileReader::new(file).unwrap();
        for group in reader.metadata().row_groups() {
            let columns = group.columns().iter();
            let read = columns.filter(|c| ["url", "id"].contains(&c.column_path().string().as_str()));
            wanted += read.map(|c| c.compressed_size() as u64).sum::<u64>();
        }
    }
    hub.clear_log();
    run(&hub, &work, &[&source(), "source.content=url", "sink.embeddings=none"], &[]).expect(0, &[]);
    let sent = sent(&hub.log());
    println!("{sent} bytes were sent for columns of {wanted}, in files of {all}");
    assert!(sent >= wanted && (sent as f64) < 1.2 * wanted as f64, "{sent} bytes for {wanted} of {all}");
    assert!(all > 3 * sent);
}

#[test]
#[allow(clippy::print_stdout)] // Figures for benches/README.md.
fn a_download_that_is_cut_goes_on_at_the_byte_where_it_was_cut() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 1, 3000, 500);
    publish(&hub, &work);
    let size = fs::read_dir(work.path("shards")).unwrap().next().unwrap().unwrap().metadata().unwrap().len();
    // The server writes no less at a time.
    let block = 64 << 10;
    hub.cut_after(size / 25, 20);
    hub.clear_log();
    let kept = [source(), "source.cache=true".to_owned(), "source.limit=5".to_owned()];
    let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
    run(&hub, &work, &kept, &[]).expect(0, &[]);
    let log = hub.log();
    let downloads: Vec<&Request> = log.iter().filter(|request| request.length > block).collect();
    let n_cut = downloads.iter().filter(|request| request.sent < request.length).count();
    let sent: u64 = downloads.iter().map(|request| request.sent).sum();
    println!(
        "{sent} bytes were sent of a file of {size} in {} requests, {n_cut} of them cut",
        downloads.len()
    );
    assert_eq!(n_cut, 20);
    assert!(sent <= size + 20 * block, "{sent} bytes of {size}");
    let blobs = work.path("hf/hub/datasets--keeper--fineweb-own/blobs");
    let blobs: Vec<_> = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [blob] = blobs.as_slice() else { panic!("{blobs:?}") };
    use sha2::{Digest, Sha256};
    let hash = format!("{:x}", Sha256::digest(fs::read(blob).unwrap()));
    assert_eq!(blob.file_name().unwrap().to_str(), Some(hash.as_str()));
}

#[test]
fn a_download_goes_on_in_the_next_process() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 1, 2000, 500);
    publish(&hub, &work);
    let size = fs::read_dir(work.path("shards")).unwrap().next().unwrap().unwrap().metadata().unwrap().len();
    hub.faults(Faults {
        slow: 1.0,
        slow_piece: 16 << 10,
        slow_pause: Duration::from_millis(20),
        ..Faults::default()
    });
    let flags = [source(), "source.cache=true".to_owned(), "source.limit=5".to_owned()];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut child = work.start_in(&environment(&hub, &work), &set_flags(&flags));
    let folder = work.path("hf/hub/datasets--keeper--fineweb-own/blobs");
    let begun = Instant::now();
    let kept = loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "the download did not begin");
        let incomplete = fs::read_dir(&folder).into_iter().flatten().flatten();
        let kept: u64 = incomplete.map(|entry| entry.metadata().map_or(0, |m| m.len())).sum();
        if kept > size / 4 {
            break kept;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    hub.faults(Faults::default());
    hub.clear_log();
    run(&hub, &work, &flags, &[]).expect(0, &["goes on at byte"]);
    let whole = hub.log().iter().map(|request| request.sent).max().unwrap();
    assert!(whole <= size - kept, "{whole} bytes were sent of {size}, {kept} were there");
    assert_sound(&work.out());
}

#[test]
fn what_is_damaged_in_an_unfinished_download_is_found_and_downloaded_anew() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 1, 100, 50);
    publish(&hub, &work);
    let shard = fs::read(work.path("shards/000_00000.parquet")).unwrap();
    use sha2::{Digest, Sha256};
    let blobs = work.path("hf/hub/datasets--keeper--fineweb-own/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let mut half = shard[..shard.len() / 2].to_vec();
    half[100] ^= 1;
    fs::write(blobs.join(format!("{:x}.incomplete", Sha256::digest(&shard))), half).unwrap();
    run(&hub, &work, &[&source(), "source.cache=true"], &[]).expect(0, &["it is downloaded anew"]);
    assert_sound(&work.out());
}

#[test]
#[allow(clippy::print_stdout)] // Figures for benches/README.md.
fn a_run_ends_right_on_a_network_that_fails_every_tenth_time() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 6, 120, 5);
    publish(&hub, &work);
    work.run(&[]);
    let expected = snapshot_without_revisions(&work.out());
    hub.faults(Faults {
        seed: 3,
        too_many: 0.07,
        unavailable: 0.07,
        held: 0.01,
        dropped: 0.02,
        cut: 0.02,
        retry_after: Some(1),
        hold: Duration::from_secs(10),
        ..Faults::default()
    });
    hub.rate_limit(Category::Resolvers, RateLimit::new(6, Duration::from_secs(2)));
    hub.rate_limit(Category::Api, RateLimit::new(2, Duration::from_secs(1)));
    hub.set(|settings| {
        settings.page = 2;
        settings.link_uses = Some(8);
    });
    hub.clear_log();
    let out = work.path("faulty");
    let sink = format!("sink.uri={}", out.display());
    run(&hub, &work, &[&source(), &sink], &[]).expect(0, &[]);
    assert_sound(&out);
    assert_same(&snapshot_without_revisions(&out), &expected, "with faults");
    let log = hub.log();
    let failed = log.iter().filter(|r| r.status == 0 || r.status >= 429 || r.sent < r.length).count();
    let limited = (hub.counts(Category::Resolvers), hub.counts(Category::Api));
    println!("{failed} of {} requests failed; the limiters saw {limited:?}", log.len());
    assert!(failed * 10 >= log.len(), "{failed} of {} requests failed, too few", log.len());
    assert_eq!((limited.0.violations, limited.1.violations), (0, 0));
    assert_eq!((limited.0.refused, limited.1.refused), (0, 0), "the announced rate was exceeded");
}

#[test]
fn a_run_keeps_to_its_commit_until_it_is_extended() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 2, 40, 10);
    publish(&hub, &work);
    let first = hub.dataset(DATASET).sha();
    let source = source();
    run(&hub, &work, &[&source, "sink.unit_bytes=8 KiB"], &[]).expect(0, &[]);
    fs::remove_file(work.path("out/_blt/manifest.json")).unwrap();
    let record = fs::read_dir(work.path("out/_blt/commits")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(record).unwrap();
    // The branch goes on: a shard is replaced, and one is new.
    let changed = work.path("shards/000_00000.parquet");
    write_parquet(&changed, &fineweb_rows(40, 9), 10);
    fineweb_shards(&work, 3, 40, 10);
    let new = fs::read(work.path("shards/002_00002.parquet")).unwrap();
    hub.dataset(DATASET).lfs("sample/10BT/002_00002.parquet", &new);
    run(&hub, &work, &[&source, "sink.unit_bytes=8 KiB"], &[]).expect(0, &[]);
    assert_sound(&work.out());
    let plan = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(work.out().join("_blt").join(name)).unwrap()).unwrap()
    };
    let pin = format!("datasets/{DATASET}@main");
    assert_eq!(plan("plan.json")["revisions"][&pin], first);
    assert_eq!(plan("plan.json")["shards"].as_array().unwrap().len(), 2);
    let mut variables = environment(&hub, &work);
    variables.push(("RUST_BACKTRACE", "0".into()));
    let flags = set_flags(&[&source, "sink.unit_bytes=8 KiB"]);
    work.blt_with(&variables, &[&["run", "pipeline.toml", "--extend"], flags.as_slice()].concat())
        .expect(0, &[]);
    assert_eq!(plan("plan.r1.json")["revisions"][&pin], hub.dataset(DATASET).sha());
    assert_eq!(plan("plan.r1.json")["shards"].as_array().unwrap().len(), 3);
    assert_sound(&work.out());
}

#[test]
fn a_dataset_without_a_path_is_read_from_its_conversion() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 1, 30, 10);
    let shard = fs::read(work.path("shards/000_00000.parquet")).unwrap();
    let dataset = hub.dataset(DATASET);
    dataset.file("data.csv", b"a,b");
    let refused = |sets: &[&str], parts: &[&str]| {
        let uri = format!("source.uri=hf://datasets/{DATASET}");
        run(&hub, &work, &[&[uri.as_str()], sets].concat(), &[]).expect(2, parts);
    };
    refused(&[], &["has not converted it to Parquet", "**/*.parquet"]);
    let converted = dataset.on("refs/convert/parquet");
    converted.lfs("default/train/0000.parquet", &shard);
    converted.lfs("default/partial-test/0000.parquet", &shard);
    converted.lfs("lamp/train/0000.parquet", &shard);
    refused(&["source.config=fog"], &["source.config = \"fog\"", "default, lamp"]);
    refused(&["source.split=validation"], &["source.split = \"validation\"", "partial-test, train"]);
    refused(&["source.split=test"], &["only a first part", "partial-test"]);
    let uri = format!("source.uri=hf://datasets/{DATASET}");
    run(&hub, &work, &[&uri, "source.config=lamp"], &[]).expect(0, &["30"]);
    assert_eq!(work.documents()[7].source_file, "0000.parquet");
    assert_sound(&work.out());
    let path = format!("source.uri=hf://datasets/{DATASET}@refs/convert/parquet/lamp/*/*.parquet");
    refused(&[&path, "source.config=lamp"], &["source.config", "without a path"]);
    refused(&["source.uri=shards/*.parquet", "source.config=lamp"], &["source.config", "without a path"]);
}

#[test]
fn offline_the_cache_is_all_there_is() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 2, 30, 10);
    publish(&hub, &work);
    let offline = [("HF_HUB_OFFLINE", "1")];
    let source = source();
    run(&hub, &work, &[&source], &offline)
        .expect(2, &["HF_HUB_OFFLINE", "revision main", "source.cache = true"]);
    run(&hub, &work, &[&source, "source.cache=true"], &[]).expect(0, &[]);
    hub.clear_log();
    let out = work.path("offline");
    let sink = format!("sink.uri={}", out.display());
    run(&hub, &work, &[&source, &sink], &offline).expect(0, &[]);
    assert!(hub.log().is_empty(), "{:?}", hub.log());
    assert_same(&snapshot(&out), &snapshot(&work.out()), "offline");
    let other = source.replace("10BT", "100BT");
    run(&hub, &work, &[&other], &offline).expect(2, &["HF_HUB_OFFLINE", "sample/100BT"]);
}

/// What another tool finds in the cache that we filled, and what we find in the one that it filled.
#[test]
fn the_cache_is_shared_with_the_hubs_own_client() {
    let (hub, work) = (Hub::start(), Work::new());
    let names = fineweb_shards(&work, 2, 30, 10);
    publish(&hub, &work);
    let python = |script: &str, offline: &str| {
        let mut variables = environment(&hub, &work);
        variables.push(("HF_HUB_OFFLINE", offline.to_owned()));
        variables.push(("HF_HUB_DISABLE_XET", "1".to_owned()));
        crate::hub_client::run_script(script, &variables)
    };
    run(&hub, &work, &[&source(), "source.cache=true"], &[]).expect(0, &[]);
    let expected = |name: &str| fs::read(work.path("shards").join(name)).unwrap();
    let script = format!(
        "from huggingface_hub import hf_hub_download, snapshot_download\n\
         print(hf_hub_download({DATASET:?}, 'sample/10BT/{}', repo_type='dataset'))\n",
        names[1]
    );
    let Some(found) = python(&script, "1") else { return };
    assert_eq!(fs::read(found.trim()).unwrap(), expected(&names[1]));
    // The other way round: a home that Python alone has filled.
    fs::remove_dir_all(work.path("hf")).unwrap();
    let script = format!(
        "from huggingface_hub import snapshot_download\nprint(snapshot_download({DATASET:?}, repo_type='dataset'))\n"
    );
    python(&script, "0").unwrap();
    hub.clear_log();
    let out = work.path("offline");
    let sink = format!("sink.uri={}", out.display());
    run(&hub, &work, &[&source(), &sink], &[("HF_HUB_OFFLINE", "1")]).expect(0, &[]);
    assert!(hub.log().is_empty());
    assert_same(&snapshot(&out), &snapshot(&work.out()), "from Python's cache");
}

#[test]
fn a_model_on_the_hub_is_fetched_once_and_is_the_same() {
    let (hub, work) = (Hub::start(), Work::with(&["The lamp is lit."]));
    let model = hub.model("keeper/nano");
    for name in ["config.json", "model.safetensors"] {
        let bytes = fs::read(golden::folder("nano").join(name)).unwrap();
        let file = if name.ends_with("json") { File::plain(name, &bytes) } else { File::lfs(name, &bytes) };
        model.files([file]);
    }
    model.file("LICENSE", b"to the keeper alone");
    model.lfs("optimizer.bin", &[0; 1000]);
    work.run(&[]);
    for (case, fetched) in [("first", true), ("second", false)] {
        hub.clear_log();
        let out = work.path(case);
        let sink = format!("sink.uri={}", out.display());
        run(&hub, &work, &["model.weights=hf://keeper/nano@main", &sink], &[]).expect(0, &[]);
        assert_same(&snapshot_without_revisions(&out), &snapshot_without_revisions(&work.out()), case);
        assert_eq!(sent(&hub.log()) > 0, fetched, "{case}");
    }
    let variables = environment(&hub, &work);
    let fetched = work.blt_with(&variables, &["model", "fetch", "hf://keeper/nano"]);
    fetched.expect(0, &["models--keeper--nano/snapshots", &model.sha()]);
    assert!(Path::new(fetched.stdout.lines().next().unwrap()).join("LICENSE").is_file());
    work.blt_with(&variables, &["model", "info", "hf://keeper/nano"]).expect(0, &["sha256"]);
    model.remove("config.json");
    let refused = work.blt_with(&variables, &["model", "fetch", "hf://keeper/nano"]);
    refused.expect(2, &["config.json and model.safetensors", "optimizer.bin"]);
}

/// The pipeline file that the README starts with, word for word, against a Hub that has what it names.
#[test]
fn the_fineweb_pipeline_is_true() {
    let (hub, work) = (Hub::start(), Work::new());
    let names = fineweb_shards(&work, 14, 12, 12);
    let shard = |name: &String| fs::read(work.path("shards").join(name)).unwrap();
    let files = names.iter().map(|name| File::lfs(&format!("sample/10BT/{name}"), &shard(name)));
    hub.dataset("HuggingFaceFW/fineweb-edu").files(files);
    hub.dataset("HuggingFaceFW/fineweb-edu").lfs("data/CC-MAIN-2024-10/train-00000.parquet", b"not read");
    let model = hub.model("facebook/blt-entropy");
    let nano = |name: &str| fs::read(golden::folder("nano").join(name)).unwrap();
    model
        .lfs("model.safetensors", &nano("model.safetensors"))
        .file("config.json", &nano("config.json"))
        .gated();
    let mut variables = environment(&hub, &work);
    let file = std::env::current_dir().unwrap().join("pipelines/fineweb.toml");
    let out = work.out();
    let arguments = ["run", file.to_str().unwrap(), "--output", out.to_str().unwrap()];
    work.blt_with(&variables, &arguments)
        .expect(2, &["facebook/blt-entropy", "it is gated, and there is no token"]);
    variables.push(("HF_TOKEN", OWNER_TOKEN.to_owned()));
    work.blt_with(&variables, &arguments).expect(0, &["fineweb-edu-10bt finished", "168 documents"]);
    assert_sound(&out);
    let documents = work.table("documents").unwrap();
    assert_eq!((documents.num_rows(), documents.schema().fields().len()), (168, 11));
    assert!(documents.column_by_name("url").is_some() && documents.column_by_name("score").is_some());
}

#[test]
fn every_refusal_says_what_is_wrong_and_what_to_do() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 1, 10, 10);
    publish(&hub, &work);
    let shard = fs::read(work.path("shards/000_00000.parquet")).unwrap();
    hub.dataset("keeper/secret").private().lfs("a.parquet", &shard);
    hub.dataset("keeper/gated").gated().lfs("a.parquet", &shard);
    let token_file = work.path("token");
    fs::write(&token_file, format!("{STRANGER_TOKEN}\n")).unwrap();
    let token_file = token_file.to_str().unwrap();
    let uri = |rest: &str| format!("source.uri=hf://{rest}");
    let gated_page = format!("{}/datasets/keeper/gated", hub.endpoint());
    for (case, uri, token, code, parts) in [
        (
            "no token",
            uri("datasets/keeper/secret/*.parquet"),
            ("HF_TOKEN", ""),
            2,
            vec!["there is no token", "HF_TOKEN"],
        ),
        (
            "wrong token",
            uri("datasets/keeper/fineweb-own/**"),
            ("HF_TOKEN", "hf_wrong"),
            2,
            vec!["token in HF_TOKEN is not valid", "settings/tokens"],
        ),
        (
            "not yours",
            uri("datasets/keeper/secret/*.parquet"),
            ("HF_TOKEN_PATH", token_file),
            2,
            vec!["no such repository", token_file],
        ),
        (
            "gated, no token",
            uri("datasets/keeper/gated/*.parquet"),
            ("HF_TOKEN", ""),
            2,
            vec!["gated", "no token", &gated_page],
        ),
        (
            "gated",
            uri("datasets/keeper/gated/*.parquet"),
            ("HF_TOKEN", STRANGER_TOKEN),
            2,
            vec!["access was not granted", &gated_page],
        ),
        (
            "no such dataset",
            uri("datasets/keeper/nothing/*.parquet"),
            ("HF_TOKEN", STRANGER_TOKEN),
            2,
            vec!["no such repository", "keeper/nothing"],
        ),
        (
            "no such revision",
            uri("datasets/keeper/fineweb-own@v9/*.parquet"),
            ("HF_TOKEN", ""),
            2,
            vec!["it has no revision v9"],
        ),
        (
            "no such folder",
            uri("datasets/keeper/fineweb-own/sample/1BT/*.parquet"),
            ("HF_TOKEN", ""),
            2,
            vec!["has no sample/1BT"],
        ),
        (
            "no such file",
            uri("datasets/keeper/fineweb-own/sample/10BT/*.csv"),
            ("HF_TOKEN", ""),
            2,
            vec!["matches *.csv", "000_00000.parquet"],
        ),
        (
            "a model",
            uri("keeper/fineweb-own/a.parquet"),
            ("HF_TOKEN", ""),
            2,
            vec!["hf://datasets/OWNER/NAME", "model.weights"],
        ),
        ("no name", uri("datasets/keeper"), ("HF_TOKEN", ""), 2, vec!["expected hf://datasets/OWNER/NAME"]),
        (
            "wrong column",
            source() + "\nsource.content=body",
            ("HF_TOKEN", ""),
            2,
            vec![
                "source.content = \"body\"",
                "no such column",
                "language_score",
                "hf://datasets/keeper/fineweb-own@",
            ],
        ),
        (
            "no scheme",
            "source.uri=ftp://keeper/x.parquet".to_owned(),
            ("HF_TOKEN", ""),
            2,
            vec!["no scheme ftp://", "hf://"],
        ),
        (
            "a sink",
            source() + "\nsink.uri=hf://datasets/keeper/out",
            ("HF_TOKEN", ""),
            2,
            vec!["sink.uri", "hf://"],
        ),
    ] {
        let sets: Vec<&str> = uri.split('\n').collect();
        let outcome = run(&hub, &work, &sets, &[token]);
        outcome.expect(code, &parts);
        assert!(outcome.stderr.lines().count() <= 3, "{case}:\n{}", outcome.stderr);
        for secret in ["hf_wrong", STRANGER_TOKEN, OWNER_TOKEN] {
            assert!(
                !format!("{}{}", outcome.stderr, outcome.stdout).contains(secret),
                "{case}: the token is shown"
            );
        }
    }
    let gated = uri("datasets/keeper/gated/*.parquet");
    run(&hub, &work, &[&gated], &[("HF_TOKEN", OWNER_TOKEN), ("RUST_LOG", "trace")]).expect(0, &[]);
    for entry in walkdir::WalkDir::new(work.path("")) {
        let path = entry.unwrap().into_path();
        let holds = |secret: &str| {
            fs::read(&path).is_ok_and(|b| memchr::memmem::find(&b, secret.as_bytes()).is_some())
        };
        assert!(!path.is_file() || !holds(OWNER_TOKEN), "{} holds a token", path.display());
    }
}

#[test]
fn a_hub_that_does_not_answer_stops_the_run_and_it_goes_on_later() {
    let (hub, work) = (Hub::start(), Work::new());
    fineweb_shards(&work, 2, 40, 10);
    publish(&hub, &work);
    let nowhere = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("BLT_NETWORK_PATIENCE", "1")];
    run(&hub, &work, &[&source()], &nowhere)
        .expect(75, &["failed to reach 127.0.0.1", "the same command goes on"]);
    hub.faults(Faults { unavailable: 1.0, path: "sample/10BT/001", ..Faults::default() });
    run(&hub, &work, &[&source()], &[("BLT_NETWORK_PATIENCE", "1")])
        .expect(75, &["503", "the same command goes on"]);
    hub.faults(Faults::default());
    run(&hub, &work, &[&source()], &[]).expect(0, &[]);
    assert_sound(&work.out());
}
