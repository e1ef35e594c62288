//! A folder and a repository's listing in; which files go there, which are there, and which must not be out. Knows nothing of requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Cursor, Read, Seek},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    PushError,
    hub::Entry,
    uri::{Kind, Target},
};
use crate::{
    model::{Format, ModelFiles, ModelInfo},
    remote::git_blob,
    schema::Table,
    sink::{self, Ledger, Manifest, Storage},
};

/// The card's name in a repository.
pub(super) const CARD: &str = "README.md";

/// A file to push.
#[derive(Debug)]
pub(super) struct Item {
    /// In the repository.
    pub path: String,
    content: Content,
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
    /// Whether it may take the place of another content.
    pub may_replace: bool,
}

#[derive(Debug)]
enum Content {
    File(PathBuf),
    Text(Bytes),
}

/// What an item's content is read from.
pub(super) trait Reader: Read + Seek + Send {}

impl Reader for File {}
impl Reader for Cursor<Bytes> {}

/// What a folder is.
pub(super) enum Found {
    Output(Box<Output>),
    Model(Box<ModelInfo>),
}

/// A finished output.
pub(super) struct Output {
    pub ledger: Ledger,
    pub manifest: Manifest,
}

/// Everything that goes to a repository, in the order of its going: what says that all is there comes last.
pub(super) struct Package {
    kind: Kind,
    pub items: Vec<Item>,
    /// Files of an earlier state of the output, which go when this one comes.
    retired: BTreeSet<String>,
}

/// What is left to do.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub send: Vec<&'a Item>,
    pub remove: Vec<String>,
    pub there: usize,
}

impl Item {
    fn file(root: &Path, path: &str, may_replace: bool) -> Result<Item, PushError> {
        let file = root.join(path);
        let unread = |error| PushError::Read { file: file.clone(), error };
        let mut sum = Sha256::new();
        let bytes = io::copy(&mut File::open(&file).map_err(unread)?, &mut sum).map_err(unread)?;
        let sha256 = format!("{:x}", sum.finalize());
        Ok(Item { path: path.to_owned(), content: Content::File(file), bytes, sha256, may_replace })
    }

    /// One that is made here.
    pub fn text(path: &str, text: String, may_replace: bool) -> Item {
        let text = Bytes::from(text);
        let sha256 = format!("{:x}", Sha256::digest(&text));
        let bytes = text.len() as u64;
        Item { path: path.to_owned(), content: Content::Text(text), bytes, sha256, may_replace }
    }

    /// Its content, from the beginning.
    pub fn open(&self) -> Result<Box<dyn Reader>, PushError> {
        Ok(match &self.content {
            Content::File(file) => Box::new(File::open(file).map_err(|error| self.unread(error))?),
            Content::Text(text) => Box::new(Cursor::new(text.clone())),
        })
    }

    /// Its first `n` bytes, or all.
    pub fn beginning(&self, n: u64) -> Result<Vec<u8>, PushError> {
        let mut beginning = Vec::new();
        self.open()?.take(n).read_to_end(&mut beginning).map_err(|error| self.unread(error))?;
        Ok(beginning)
    }

    /// All of it, if it is what it was.
    pub fn whole(&self) -> Result<Vec<u8>, PushError> {
        let whole = self.beginning(self.bytes + 1)?;
        let is_same = format!("{:x}", Sha256::digest(&whole)) == self.sha256;
        if is_same { Ok(whole) } else { Err(self.changed()) }
    }

    /// Whether its file was cut or grew since it was looked at.
    pub fn has_another_size(&self) -> bool {
        match &self.content {
            Content::File(file) => fs::metadata(file).is_ok_and(|found| found.len() != self.bytes),
            Content::Text(_) => false,
        }
    }

    pub fn changed(&self) -> PushError {
        PushError::Changed { file: self.place() }
    }

    pub fn unread(&self, error: io::Error) -> PushError {
        PushError::Read { file: self.place(), error }
    }

    fn place(&self) -> PathBuf {
        match &self.content {
            Content::File(file) => file.clone(),
            Content::Text(_) => PathBuf::from(&self.path),
        }
    }

    /// Whether `entry` is of this content.
    pub fn is(&self, entry: &Entry) -> Result<bool, PushError> {
        if entry.size != self.bytes {
            return Ok(false);
        }
        if let Some(object) = &entry.lfs {
            return Ok(object.sha256 == self.sha256);
        }
        // As git names a file's content.
        let blob = git_blob(&mut self.open()?, self.bytes).map_err(|error| self.unread(error))?;
        Ok(blob == entry.blob)
    }
}

/// Names of the weights in a model's folder; one that can be opened has one.
fn weights_in(folder: &Path) -> impl Iterator<Item = &'static str> {
    Format::ALL.map(Format::file_name).into_iter().filter(|name| folder.join(name).is_file())
}

/// Finds out what `folder` is and checks that it is whole: an output as `verify` does, a model by loading it.
pub(super) fn open(folder: &Path, kind: Kind) -> Result<Found, PushError> {
    let wrong =
        |problem: &str| Err(PushError::Folder { folder: folder.to_owned(), problem: problem.to_owned() });
    let is_output = folder.join("_blt").is_dir();
    let is_model = folder.join("config.json").is_file() && weights_in(folder).next().is_some();
    match (is_output, is_model, kind) {
        (true, _, Kind::Model) => wrong("it is an output, which goes to a dataset: hf://datasets/OWNER/NAME"),
        (false, true, Kind::Dataset) => {
            wrong("it is a model, which goes to a model's repository: hf://OWNER/NAME")
        }
        (true, _, Kind::Dataset) => Ok(Found::Output(Box::new(open_output(folder)?))),
        (false, true, Kind::Model) => Ok(Found::Model(Box::new(ModelFiles::open(folder)?.info))),
        (false, false, _) => wrong(
            "it is neither an output (it has no _blt) nor a model's folder (config.json and model.safetensors or model.bpk)",
        ),
    }
}

fn open_output(root: &Path) -> Result<Output, PushError> {
    let folder = root.to_owned();
    let found = sink::verify(&Storage::from(root))?;
    if let Some(problem) = found.problem {
        return Err(PushError::NotSound { folder, problem: problem.to_string() });
    }
    let ledger = Ledger::read(&Storage::from(root))?.filter(|_| found.complete);
    let Some(mut ledger) = ledger else { return Err(PushError::Unfinished { folder }) };
    let Some(manifest) = ledger.manifest.take() else { return Err(PushError::Unfinished { folder }) };
    Ok(Output { ledger, manifest })
}

impl Package {
    /// An output's tables and the papers that belong to them, without its card: with the papers, what is fetched from the
    /// repository is an output again, which `verify` can check and `run --extend` go on with. What processes write to each other
    /// (claims, locks, failures) stays.
    pub fn of_output(root: &Path, output: &Output) -> Result<Package, PushError> {
        let mut items = Vec::new();
        for file in &output.manifest.files {
            if !is_of_table(&file.path) {
                let problem = format!("_blt/manifest.json: {:?} is in no table", file.path);
                return Err(PushError::NotSound { folder: root.to_owned(), problem });
            }
            // Its sum was just checked.
            let content = Content::File(root.join(&file.path));
            let (bytes, sha256) = (file.bytes, file.sha256.clone());
            items.push(Item { path: file.path.clone(), content, bytes, sha256, may_replace: false });
        }
        for paper in sink::papers(&Storage::from(root))? {
            // Records and manifest grow with their output; another plan is another output.
            let may_replace = !is_plan(&paper);
            items.push(Item::file(root, &paper, may_replace)?);
        }
        Ok(Package {
            kind: Kind::Dataset,
            items,
            retired: output.ledger.superseded_files(&Storage::from(root))?,
        })
    }

    /// A model's files and the texts that belong to them; the configuration comes last.
    pub fn of_model(folder: &Path, may_replace: bool) -> Result<Package, PushError> {
        let mut items = Vec::new();
        let texts = ["patch.json", "LICENSE", "LICENSE.md", "LICENSE.txt", CARD];
        for name in weights_in(folder) {
            items.push(Item::file(folder, name, may_replace)?);
        }
        for name in texts.into_iter().filter(|name| folder.join(name).is_file()) {
            items.push(Item::file(folder, name, may_replace)?);
        }
        items.push(Item::file(folder, "config.json", may_replace)?);
        Ok(Package { kind: Kind::Model, items, retired: BTreeSet::new() })
    }

    /// Puts a card before the last file, which says that all is there.
    pub fn add_card(&mut self, card: Item) {
        let last = self.items.len().saturating_sub(1);
        self.items.insert(last, card);
    }

    pub fn card(&self) -> Option<&Item> {
        self.items.iter().find(|item| item.path == CARD)
    }

    pub fn card_mut(&mut self) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.path == CARD)
    }

    pub fn remove_card(&mut self) {
        self.items.retain(|item| item.path != CARD);
    }

    /// What is left to do where `tree` is.
    pub fn compare(&self, tree: &BTreeMap<String, Entry>, target: &Target) -> Result<Work<'_>, PushError> {
        let mut work = Work { send: Vec::new(), remove: Vec::new(), there: 0 };
        let (mut different, mut foreign) = (Vec::new(), Vec::new());
        for item in &self.items {
            match tree.get(&item.path) {
                None => work.send.push(item),
                Some(entry) if item.is(entry)? => work.there += 1,
                Some(_) if item.may_replace => work.send.push(item),
                Some(_) if is_plan(&item.path) => foreign.push(item.path.clone()),
                Some(_) => different.push(item.path.clone()),
            }
        }
        if self.kind == Kind::Dataset {
            let own: BTreeSet<&str> = self.items.iter().map(|item| item.path.as_str()).collect();
            for path in tree.keys().filter(|path| is_of_output(path) && !own.contains(path.as_str())) {
                if self.retired.contains(path) {
                    work.remove.push(path.clone());
                } else {
                    foreign.push(path.clone());
                }
            }
        }
        let repository = target.to_string();
        if !foreign.is_empty() {
            return Err(PushError::ForeignFiles { repository, files: foreign });
        }
        if !different.is_empty() {
            let remedy = match self.kind {
                Kind::Dataset => "push to a repository or branch of its own",
                Kind::Model => {
                    "pass --replace if that is meant, or push to a repository or branch of its own"
                }
            };
            return Err(PushError::Differs { repository, files: different, remedy });
        }
        Ok(work)
    }
}

fn is_plan(path: &str) -> bool {
    path.starts_with("_blt/plan.")
}

/// Whether an output reads a file of this path as its own.
fn is_of_output(path: &str) -> bool {
    is_of_table(path) || is_plan(path) || path.starts_with("_blt/commits/")
}

fn is_of_table(path: &str) -> bool {
    let below = |table: &Table| path.strip_prefix(table.name())?.strip_prefix('/');
    Table::ALL.iter().find_map(below).is_some_and(|rest| rest.split('/').all(|part| part != ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::hub::Object;

    fn listed(item: &Item) -> Entry {
        Entry { blob: "pointer".into(), size: item.bytes, lfs: Some(Object { sha256: item.sha256.clone() }) }
    }

    fn other(bytes: u64) -> Entry {
        Entry { blob: "other".into(), size: bytes, lfs: None }
    }

    fn package() -> Package {
        let item = |path: &str, may_replace| Item::text(path, format!("content of {path}"), may_replace);
        let items = vec![
            item("documents/00000-00000-aa.parquet", false),
            item("_blt/plan.json", false),
            item(CARD, true),
            item("_blt/manifest.json", true),
        ];
        let retired = BTreeSet::from(["documents/00000-00000-00.parquet".to_owned()]);
        Package { kind: Kind::Dataset, items, retired }
    }

    #[test]
    fn what_is_there_is_not_sent_again_and_earlier_files_go() {
        let (package, target) = (package(), Target::parse("hf://datasets/sea/tides").unwrap());
        let all = package.compare(&BTreeMap::new(), &target).unwrap();
        assert_eq!((all.send.len(), all.there), (4, 0));
        let tree = BTreeMap::from([
            (".gitattributes".to_owned(), other(7)),
            ("documents/00000-00000-00.parquet".to_owned(), other(7)),
            ("documents/00000-00000-aa.parquet".to_owned(), listed(&package.items[0])),
            ("_blt/manifest.json".to_owned(), other(9)),
        ]);
        let work = package.compare(&tree, &target).unwrap();
        let paths: Vec<&str> = work.send.iter().map(|item| item.path.as_str()).collect();
        assert_eq!(paths, ["_blt/plan.json", CARD, "_blt/manifest.json"]);
        assert_eq!((work.remove.len(), work.there), (1, 1));
    }

    #[test]
    fn nothing_of_another_output_is_mixed_in_or_replaced() {
        let (package, target) = (package(), Target::parse("hf://datasets/sea/tides").unwrap());
        for (path, expected) in [
            (
                "documents/00007-00000-bb.parquet",
                "another output lies there (documents/00007-00000-bb.parquet)",
            ),
            ("bytes/notes.txt", "another output lies there (bytes/notes.txt)"),
            ("_blt/commits/00007-00000.json", "another output lies there"),
            ("_blt/plan.json", "another output lies there (_blt/plan.json)"),
            ("documents/00000-00000-aa.parquet", "would be replaced by another content"),
        ] {
            let tree = BTreeMap::from([(path.to_owned(), other(3))]);
            let told = package.compare(&tree, &target).unwrap_err().to_string();
            assert!(told.contains(expected) && told.contains("of its own"), "{told}");
        }
        let tree = BTreeMap::from([("documents-of-mine/a.parquet".to_owned(), other(3))]);
        assert_eq!(package.compare(&tree, &target).unwrap().send.len(), 4);
    }

    #[test]
    fn a_file_outside_of_lfs_is_known_by_gits_own_sum() {
        let item = Item::text("a", "what is up, doc?".into(), false);
        // From the git book, "Git Objects".
        let blob = "bd9dbf5aae1a3862dd1526723246b20206e5fc37".to_owned();
        assert!(item.is(&Entry { blob, size: 16, lfs: None }).unwrap());
        assert!(!item.is(&other(16)).unwrap());
    }
}
