//! Code that others wrote, every file of the dependencies and of Python's own library: its segments tile it, and its bytes stay. Needs an
//! interpreter, `BLT_MEDIA_PYTHON`, for its library, and the registry's folder of cargo.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use blt_pipeline::{data::Content, pretokenize::Pretokenizer};
use walkdir::WalkDir;

use crate::decoders::{by_default, interpreter, tell};

const ENDINGS: [&str; 14] =
    ["rs", "c", "h", "cpp", "cc", "hpp", "js", "mjs", "ts", "tsx", "py", "pyi", "java", "go"];
/// Above it, code is not looked into.
const MAX_PARSED_BYTES: usize = 4 << 20;
/// Files of a language there have to be. Of others the dependencies have none, or few.
const LEAST: [(&str, usize); 5] =
    [("rust", 10_000), ("c", 500), ("cpp", 100), ("python", 1_000), ("javascript", 5)];
/// Part of a language's files in which an item has to be found, so that one `rest` for each file does not do.
const LEAST_WITH_ITEMS: f64 = 0.9;

#[derive(Debug, Default)]
struct Counts {
    n_files: usize,
    n_bytes: usize,
    n_segments: usize,
    n_with_items: usize,
}

/// Source files below `folder`, but not what was installed into a Python beside its library.
fn source_files(folder: &Path) -> Vec<PathBuf> {
    let is_own = |entry: &walkdir::DirEntry| entry.file_name() != "site-packages";
    let entries = WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(is_own);
    let is_source = |path: &PathBuf| {
        path.extension().and_then(|ending| ending.to_str()).is_some_and(|e| ENDINGS.contains(&e))
    };
    entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.into_path())
        .filter(is_source)
        .collect()
}

/// Folders of the packages that `Cargo.lock` names, as far as they were fetched.
fn dependencies() -> Vec<PathBuf> {
    let lock: toml::Table = fs::read_to_string("Cargo.lock").unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter().map(|package| {
        format!("{}-{}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
    });
    let names: BTreeSet<String> = packages.collect();
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).unwrap();
    let registries = fs::read_dir(home.join("registry/src")).expect("cargo keeps its packages there");
    let registries: Vec<PathBuf> = registries.map(|registry| registry.unwrap().path()).collect();
    let folders = names.iter().flat_map(|name| registries.iter().map(move |registry| registry.join(name)));
    folders.filter(|folder| folder.is_dir()).collect()
}

fn python_library(interpreter: OsString) -> PathBuf {
    let output = Command::new(interpreter)
        .args(["-c", "import sysconfig; print(sysconfig.get_paths()['stdlib'], end='')"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().into()
}

/// Asserts all that holds of any code; language of the file, number of segments, whether an item was found.
fn tiled(code: &dyn Pretokenizer, path: &Path, bytes: &[u8]) -> (String, usize, bool) {
    let content =
        Content { bytes: bytes.to_vec(), path: path.to_str().map(str::to_owned), ..Content::default() };
    assert_eq!(code.needs(&content).views, bytes.len() as u64, "{path:?}");
    let views = code.views(content).unwrap();
    let [view] = &views[..] else { panic!("{path:?} has {} views", views.len()) };
    assert_eq!((view.modality, &view.name), ("code", &None), "{path:?}");
    assert!(view.bytes == bytes, "{path:?}");
    let (mut at, mut line, mut languages) = (0, 1, BTreeSet::new());
    for segment in &view.segments {
        assert!(segment.bytes.start == at && segment.bytes.end > at, "{path:?} at {at}: {segment:?}");
        let text = &bytes[at as usize..segment.bytes.end as usize];
        let n_breaks = text.iter().filter(|byte| **byte == b'\n').count();
        let last = line + n_breaks - usize::from(text.ends_with(b"\n"));
        let meta: serde_json::Value = serde_json::from_str(segment.meta.as_deref().unwrap()).unwrap();
        assert_eq!(meta["lines"], serde_json::json!([line, last]), "{path:?}");
        (at, line) = (segment.bytes.end, line + n_breaks);
        languages.insert(meta["language"].as_str().unwrap_or("none").to_owned());
    }
    assert_eq!(at, bytes.len() as u64, "{path:?}");
    assert!(languages.len() <= 1, "{path:?}: {languages:?}");
    let is_one_rest = view.segments.iter().all(|segment| segment.kind == "rest");
    if bytes.len() > MAX_PARSED_BYTES {
        assert!(view.segments.len() == 1 && is_one_rest, "{path:?}");
    }
    let language = languages.pop_first().unwrap_or("empty".to_owned());
    (language, view.segments.len(), !is_one_rest)
}

#[test]
fn every_source_file_of_the_dependencies_and_of_pythons_library_is_tiled() {
    let Some(interpreter) = interpreter("code of the dependencies and of Python's library") else { return };
    let start = Instant::now();
    let folders = dependencies();
    let mut paths = source_files(&python_library(interpreter));
    assert!(
        paths.iter().any(|path| path.ends_with("test/test_grammar.py")),
        "Python's own tests are missing"
    );
    paths.extend(folders.iter().flat_map(|folder| source_files(folder)));
    let (code, auto) = (by_default("code"), by_default("auto"));
    let (next, all) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<String, Counts>::new()));
    let n_not_utf8 = AtomicUsize::new(0);
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bytes = fs::read(path).unwrap();
            let (language, n_segments, has_items) = tiled(&*code, path, &bytes);
            if std::str::from_utf8(&bytes).is_err() {
                n_not_utf8.fetch_add(1, Ordering::Relaxed);
                // In whatever encoding, its ending says that it is code; with a NUL in it, it is none.
                let content = Content {
                    bytes: bytes.clone(),
                    path: path.to_str().map(str::to_owned),
                    ..Content::default()
                };
                let expected = if bytes.contains(&0) { "raw" } else { "code" };
                assert_eq!(auto.views(content).unwrap()[0].modality, expected, "{path:?}");
            }
            let mut all = all.lock().unwrap();
            let counts = all.entry(language).or_default();
            counts.n_files += 1;
            counts.n_bytes += bytes.len();
            counts.n_segments += n_segments;
            counts.n_with_items += usize::from(has_items);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(work);
        }
    });
    let all = all.into_inner().unwrap();
    for (language, Counts { n_files, n_bytes, n_segments, n_with_items }) in &all {
        tell(&format!(
            "{language}: {n_files} files, {:.1} MB, {n_segments} segments; items in {n_with_items}",
            *n_bytes as f64 / 1e6
        ));
    }
    tell(&format!(
        "{} packages and Python's library in {:.0?}; {n_not_utf8:?} files are not UTF-8",
        folders.len(),
        start.elapsed()
    ));
    assert!(n_not_utf8.into_inner() >= 3, "Python's tests have files that are not UTF-8");
    for (language, least) in LEAST {
        let counts = &all[language];
        assert!(counts.n_files >= least, "{language}: {counts:?}");
        assert!(
            counts.n_with_items as f64 >= LEAST_WITH_ITEMS * counts.n_files as f64,
            "{language}: {counts:?}"
        );
    }
}
