//! Turns `source.uri` into a sorted list of files, here or elsewhere, or of folders of loose files, and the names they have in
//! the output. Does not open them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use super::SourceError;
use crate::{
    config::{FileFormat, Source},
    remote::{self, Pins, Reach, RemoteFile, Scheme, scheme},
};

/// A file that the source names, or a folder of loose files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFile {
    /// Where it lies; of one that lies elsewhere its address.
    pub path: PathBuf,
    /// The file, if it lies elsewhere.
    pub remote: Option<RemoteFile>,
    /// Its path below the longest wildcard-free folder of the URI, '/'-separated; a folder's ends in '/'.
    pub source_file: String,
    /// The files of a folder, in the order of their names.
    pub members: Option<Arc<[Member]>>,
}

/// A loose file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it lies; of one that lies elsewhere its address.
    pub path: PathBuf,
    /// The file, if it lies elsewhere.
    pub remote: Option<RemoteFile>,
    /// Its path below the longest wildcard-free folder of the URI, '/'-separated.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Files of `source`, sorted by `source_file`: a path names one file, a folder all `*.parquet` files below it or, if there are
/// none, all of JSON Lines, a glob (`*`, `**`, `?`, `[…]`, `{a,b}`; `*` stays within a folder) what it matches; the same for
/// addresses of object stores and of the Hub. Hidden files and folders, and what is below `output`, are left out. Of loose files
/// ([`FileFormat::Files`]) a folder has all that are below it, links are not followed, and those of one folder are listed
/// together. What branches of the Hub stand for is taken from `pins`, and put there.
///
/// # Errors
/// [`SourceError::Plan`] when a URI matches nothing, has a scheme this build does not read, when two
/// different files would have the same name, or one file two names; [`SourceError::Unreachable`].
pub fn list_shards(source: &Source, output: &str, pins: &mut Pins) -> Result<Vec<ShardFile>, SourceError> {
    let folder = Path::new(output).canonicalize().ok();
    let mut by_name: BTreeMap<String, (ShardFile, PathBuf)> = BTreeMap::new();
    let mut by_path: BTreeMap<PathBuf, String> = BTreeMap::new();
    for uri in &source.uris {
        for file in list(uri, source, pins)? {
            let ShardFile { path, source_file, .. } = &file;
            let failed = |error| SourceError::Plan(format!("failed to open {}: {error}", path.display()));
            let real = match &file.remote {
                None => path.canonicalize().map_err(failed)?,
                Some(_) => path.clone(),
            };
            let is_output = match &file.remote {
                None => folder.as_ref().is_some_and(|folder| real.starts_with(folder)),
                Some(remote) => {
                    let below = remote.uri().strip_prefix(output.trim_end_matches('/'));
                    below.is_some_and(|below| below.starts_with('/'))
                }
            };
            if is_output {
                continue;
            }
            let refused = |problem: String| Err(SourceError::Plan(format!("source.uri: {problem}")));
            match by_name.get(source_file) {
                Some((_, known)) if *known == real => continue,
                Some((other, _)) => {
                    return refused(format!(
                        "{} and {} would both be called {source_file} in the output; name a folder above both, \
                         with a glob",
                        other.path.display(),
                        path.display(),
                    ));
                }
                None => {}
            }
            if let Some(name) = by_path.insert(real.clone(), source_file.clone()) {
                return refused(format!(
                    "{} would be read twice, as {name} and as {source_file}; name it once",
                    path.display()
                ));
            }
            by_name.insert(source_file.clone(), (file, real));
        }
    }
    let files = by_name.into_values().map(|(file, _)| file);
    if source.format == FileFormat::Files { folders(files) } else { Ok(files.collect()) }
}

/// Loose files by folder.
fn folders(files: impl Iterator<Item = ShardFile>) -> Result<Vec<ShardFile>, SourceError> {
    let mut by_folder: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    for ShardFile { path, remote, source_file: name, .. } in files {
        let failed = |error| SourceError::Plan(format!("failed to open {}: {error}", path.display()));
        let bytes = match &remote {
            None => path.metadata().map_err(failed)?.len(),
            Some(remote) => remote.bytes(),
        };
        let folder = name.rfind('/').map_or("./", |slash| &name[..=slash]);
        by_folder.entry(folder.to_owned()).or_default().push(Member { path, remote, name, bytes });
    }
    let shard = |(source_file, members): (String, Vec<Member>)| ShardFile {
        path: members.first().and_then(|member| member.path.parent()).unwrap_or(Path::new("")).into(),
        remote: None,
        source_file,
        members: Some(members.into()),
    };
    Ok(by_folder.into_iter().map(shard).collect())
}

fn list(uri: &str, source: &Source, pins: &mut Pins) -> Result<Vec<ShardFile>, SourceError> {
    let plan_error = |problem: String| SourceError::Plan(format!("source.uri = {uri:?}: {problem}"));
    let is_bare = is_bare_dataset(uri);
    if !is_bare && (source.config.is_some() || source.split.is_some()) {
        return Err(plan_error(
            "source.config and source.split are for a dataset that is named without a path, hf://datasets/OWNER/NAME"
                .to_owned(),
        ));
    }
    match scheme(uri).map_err(plan_error)? {
        (Scheme::Local, path) => list_local(path, source.format).map_err(plan_error),
        (Scheme::Hub | Scheme::ObjectStore | Scheme::Web, rest) => list_remote(uri, rest, source, pins),
    }
}

/// Whether `uri` is that of a dataset on the Hub as a whole.
fn is_bare_dataset(uri: &str) -> bool {
    let rest = uri.strip_prefix("hf://datasets/");
    rest.is_some_and(|rest| !rest.contains(WILDCARDS) && rest.trim_end_matches('/').split('/').count() == 2)
}

fn list_local(pattern: &str, format: FileFormat) -> Result<Vec<ShardFile>, String> {
    let path = Path::new(pattern);
    if path.is_dir() {
        return match format {
            FileFormat::Auto => {
                matches(path, PARQUET, format).or_else(|none| matches(path, LINES, format).map_err(|_| none))
            }
            FileFormat::Parquet => matches(path, PARQUET, format),
            FileFormat::Jsonl => matches(path, LINES, format),
            FileFormat::Files => matches(path, ALL, format),
        };
    }
    // A file whose name holds a bracket is that file, not a pattern.
    if path.is_file() || !pattern.contains(WILDCARDS) {
        return single(path);
    }
    let (base, glob) = split_at_wildcard(pattern);
    if !base.is_dir() {
        return Err(format!("there is no folder {}", base.display()));
    }
    matches(&base, glob, format)
}

/// What `uri`, of which `rest` follows the scheme, names elsewhere.
fn list_remote(
    uri: &str,
    rest: &str,
    source: &Source,
    pins: &mut Pins,
) -> Result<Vec<ShardFile>, SourceError> {
    let refused = |problem: String| SourceError::Plan(format!("source.uri = {uri:?}: {problem}"));
    let (base, glob) = match rest.find(WILDCARDS) {
        None => (uri, None),
        Some(wildcard) => {
            let slash = rest[..wildcard]
                .rfind('/')
                .ok_or_else(|| refused("the first part of an address cannot have a wildcard".to_owned()))?;
            let slash = uri.len() - rest.len() + slash;
            (&uri[..slash], Some(&uri[slash + 1..]))
        }
    };
    let (is_hub, is_web) = (uri.starts_with("hf://"), uri.starts_with("http"));
    if is_web && rest.contains('?') {
        return Err(refused("addresses with `?` are not read; download the file and name that".to_owned()));
    }
    if is_web && glob.is_some() {
        return Err(refused("a web server lists no files; name each of them".to_owned()));
    }
    let converted = match is_bare_dataset(uri) {
        true => remote::dataset(uri, source.config.as_deref(), source.split.as_deref(), pins)?,
        false => None,
    };
    let reach = match glob {
        Some(glob) if !glob.contains(['/', '{']) && !glob.contains("**") => Reach::Here,
        _ => Reach::Below,
    };
    let listing = match converted {
        Some(listing) => listing,
        // What has a slash at its end is no file.
        None if glob.is_some() && !is_hub => remote::list(&format!("{base}/"), reach, pins)?,
        None => remote::list(base, reach, pins)?,
    };
    let shard = |found: remote::Found| ShardFile {
        path: found.file.uri().into(),
        remote: Some(found.file),
        source_file: found.name,
        members: None,
    };
    if listing.is_file {
        return Ok(listing.files.into_iter().map(shard).collect());
    }
    let patterns: &[&str] = match (glob, source.format) {
        (Some(glob), _) => &[glob],
        (None, FileFormat::Auto) => &[PARQUET, LINES],
        (None, FileFormat::Parquet) => &[PARQUET],
        (None, FileFormat::Jsonl) => &[LINES],
        (None, FileFormat::Files) => &[ALL],
    };
    let is_hidden = |name: &str| name.split('/').any(|part| part.starts_with('.'));
    for pattern in patterns {
        let glob = matcher(pattern).map_err(refused)?;
        let wanted = |found: &&remote::Found| !is_hidden(&found.name) && glob.is_match(&found.name);
        let found: Vec<ShardFile> = listing.files.iter().filter(wanted).cloned().map(shard).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let mut names: Vec<&str> = listing.files.iter().map(|found| found.name.as_str()).collect();
    names.sort_unstable();
    names.truncate(8);
    Err(refused(format!(
        "no file below {base} matches {}; there are {}, …",
        patterns.join(" or "),
        names.join(", ")
    )))
}

const PARQUET: &str = "**/*.parquet";
const LINES: &str = "**/*.{jsonl,ndjson,jsonl.gz,ndjson.gz,jsonl.zst,ndjson.zst}";

const ALL: &str = "**/*";

const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

fn single(path: &Path) -> Result<Vec<ShardFile>, String> {
    let metadata = path.metadata().map_err(|error| format!("failed to open {}: {error}", path.display()))?;
    let name = path.file_name().and_then(|n| n.to_str());
    match name {
        Some(name) if metadata.is_file() => Ok(vec![ShardFile {
            path: path.into(),
            remote: None,
            source_file: name.to_owned(),
            members: None,
        }]),
        _ => Err(format!("{} is not a file with a UTF-8 name", path.display())),
    }
}

/// Longest folder without a wildcard, and the pattern below it.
fn split_at_wildcard(pattern: &str) -> (PathBuf, &str) {
    let wildcard = pattern.find(WILDCARDS).unwrap_or(pattern.len());
    match pattern[..wildcard].rfind('/') {
        Some(0) => ("/".into(), &pattern[1..]),
        Some(slash) => (pattern[..slash].into(), &pattern[slash + 1..]),
        None => (".".into(), pattern),
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| format!("not a valid glob: {error}"))
}

fn matches(base: &Path, pattern: &str, format: FileFormat) -> Result<Vec<ShardFile>, String> {
    let glob = matcher(pattern)?;
    // What lies deeper than the pattern reaches is not looked at: it may be vast, or not ours to read.
    let depth = if pattern.contains("**") { usize::MAX } else { pattern.split('/').count() };
    let mut files = Vec::new();
    // Unfinished downloads and writers' notes lie beside the shards under such names.
    let is_hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    // Among loose files a link is another name of a file that is read anyway, or leads out of the folder.
    let walk = WalkDir::new(base).follow_links(format != FileFormat::Files).max_depth(depth).into_iter();
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.file_name())) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let below = error.path().and_then(|path| path.strip_prefix(base).ok());
                // A link to nowhere beside the shards is no shard.
                if below.is_some_and(|below| !glob.is_match(below) && !pattern.contains("**")) {
                    continue;
                }
                return Err(format!("failed to list {}: {error}", base.display()));
            }
        };
        if !entry.file_type().is_file() {
            continue;
        }
        let below = entry.path().strip_prefix(base).unwrap_or(entry.path());
        if !glob.is_match(below) {
            continue;
        }
        let name = below
            .components()
            .map(|c| c.as_os_str().to_str())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| format!("the name of {} is not UTF-8", entry.path().display()))?;
        let source_file = name.join("/");
        files.push(ShardFile { path: entry.path().into(), remote: None, source_file, members: None });
    }
    if files.is_empty() {
        return Err(format!("no file below {} matches {pattern}", base.display()));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn source(uris: &[String]) -> Source {
        let text = format!("[source]\nuri = {uris:?}\n[sink]\nuri = 'out'\n");
        crate::config::Pipeline::parse(&text, "test", &Default::default()).unwrap().source
    }

    fn names(folder: &Path, uris: &[&str]) -> Result<Vec<String>, String> {
        let uris: Vec<String> = uris.iter().map(|u| format!("{}/{u}", folder.display())).collect();
        let shards =
            list_shards(&source(&uris), "/nowhere", &mut Pins::new()).map_err(|error| error.to_string())?;
        Ok(shards.into_iter().map(|s| s.source_file).collect())
    }

    #[test]
    fn names_start_below_the_longest_folder_without_a_wildcard() {
        let folder = folder(&["a/1.parquet", "a/2.parquet", "b/c/1.parquet", "b/.x.parquet", "b/n.txt"]);
        let names = |uris: &[&str]| names(folder.path(), uris);
        for (uris, expected) in [
            (vec!["a/*.parquet"], Ok(vec!["1.parquet", "2.parquet"])),
            (vec!["a/1.parquet"], Ok(vec!["1.parquet"])),
            (vec!["**/1.parquet"], Ok(vec!["a/1.parquet", "b/c/1.parquet"])),
            (vec!["{a,b/c}/1.parquet"], Ok(vec!["a/1.parquet", "b/c/1.parquet"])),
            (vec!["a/[2-9].parquet"], Ok(vec!["2.parquet"])),
            (vec![""], Ok(vec!["a/1.parquet", "a/2.parquet", "b/c/1.parquet"])),
            (vec!["a/1.parquet", "a/*.parquet"], Ok(vec!["1.parquet", "2.parquet"])),
        ] {
            assert_eq!(names(&uris), expected.map(|e| e.into_iter().map(String::from).collect()));
        }
    }

    #[test]
    fn other_files_beside_and_below_the_shards_do_not_matter() {
        let folder = folder(&["a/1.parquet", "a/out/documents/2.parquet"]);
        std::os::unix::fs::symlink("nowhere", folder.path().join("a/link")).unwrap();
        assert_eq!(names(folder.path(), &["a/*.parquet"]), Ok(vec!["1.parquet".to_owned()]));
        let all = vec![format!("{}/a/**/*.parquet", folder.path().display())];
        std::fs::remove_file(folder.path().join("a/link")).unwrap();
        let out = folder.path().join("a/out");
        let shards = list_shards(&source(&all), out.to_str().unwrap(), &mut Pins::new()).unwrap();
        assert_eq!(shards.iter().map(|s| s.source_file.as_str()).collect::<Vec<_>>(), ["1.parquet"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = folder(&["a/1.parquet", "b/1.parquet"]);
        for (uris, part) in [
            (vec!["a/x.parquet"], "failed to open"),
            (vec!["a/*.csv"], "matches *.csv"),
            (vec!["z/*.parquet"], "there is no folder"),
            (vec!["a/1.parquet", "b/1.parquet"], "would both be called 1.parquet"),
            (vec!["a/1.parquet", "**/1.parquet"], "would be read twice"),
        ] {
            let error = names(folder.path(), &uris).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
