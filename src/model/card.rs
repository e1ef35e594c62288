//! What a model's folder says beside the model: its licence, and size and hash of each file. Knows nothing of what the
//! files mean.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    ModelError, ModelFiles,
    tensors::read_error,
    weights::{Origin, hex},
};

/// As much of a README or a licence as is looked at.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// As much of a licence's name as is told.
const MAX_NAME_CHARS: usize = 120;
/// Where a licence is written out.
const LICENCES: [&str; 5] = ["LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"];

/// What stands beside a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Card {
    /// What the model's card or its licence file calls the licence, and which of them; `not stated` without either.
    pub licence: String,
    /// Configuration, weights, and patch defaults where there are any.
    pub files: Vec<FileFacts>,
}

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileFacts {
    /// Without its folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Hex SHA-256 of its bytes, as `sha256sum` prints it.
    pub sha256: String,
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "licence       {}", self.licence)?;
        for FileFacts { name, bytes, sha256 } in &self.files {
            write!(f, "\n{name}: {bytes} bytes, sha256 {sha256}")?;
        }
        Ok(())
    }
}

impl ModelFiles {
    /// Reads the model's files once more, and what its folder says of its licence.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn card(&self) -> Result<Card, ModelError> {
        let mut facts = Vec::new();
        match &self.origin {
            Origin::Embedded(files) => {
                for (name, contents) in files {
                    let mut sha = Sha256::new();
                    sha.update(contents);
                    facts.push(FileFacts {
                        name: (*name).to_owned(),
                        bytes: contents.len() as u64,
                        sha256: hex(sha),
                    });
                }
                let licence = format!("{} (this program's)", env!("CARGO_PKG_LICENSE"));
                Ok(Card { licence, files: facts })
            }
            Origin::Folder { folder, files } => {
                for file in files {
                    facts.push(FileFacts::of(file).map_err(|source| read_error(file, source))?);
                }
                Ok(Card { licence: licence(folder)?.unwrap_or("not stated".to_owned()), files: facts })
            }
        }
    }
}

impl FileFacts {
    fn of(file: &Path) -> io::Result<Self> {
        let mut sha = Sha256::new();
        let bytes = io::copy(&mut File::open(file)?, &mut sha)?;
        let name = file.file_name().map(|name| name.display().to_string()).unwrap_or_default();
        Ok(FileFacts { name, bytes, sha256: hex(sha) })
    }
}

/// The licence that `folder` states: in its model card's front matter, or else the first line of its licence file.
fn licence(folder: &Path) -> Result<Option<String>, ModelError> {
    let found = |name: &str, licence: String| Ok(Some(format!("{licence} ({name})")));
    if let Some(licence) = text(&folder.join("README.md"))?.as_deref().and_then(of_front_matter) {
        return found("README.md", licence);
    }
    for name in LICENCES {
        let text = text(&folder.join(name))?;
        let line = text.as_deref().and_then(|text| text.lines().map(printable).find(|line| !line.is_empty()));
        if let Some(line) = line {
            return found(name, line);
        }
    }
    Ok(None)
}

/// The beginning of a text file, if it is there and is text.
fn text(file: &Path) -> Result<Option<String>, ModelError> {
    let mut bytes = Vec::new();
    match File::open(file).and_then(|file| file.take(MAX_TEXT_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => Ok(bytes.utf8_chunks().next().map(|chunk| chunk.valid().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(read_error(file, source)),
    }
}

/// `license` of the YAML between the first two lines of three dashes, with the names that `other` and a list have.
fn of_front_matter(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim_end);
    lines.next().filter(|first| *first == "---")?;
    let (mut names, mut other, mut in_list) = (Vec::new(), None, false);
    for line in lines.take_while(|line| *line != "---") {
        if let Some(item) = line.trim_start().strip_prefix("- ").filter(|_| in_list) {
            names.push(scalar(item));
            continue;
        }
        in_list = false;
        match line.split_once(':') {
            Some(("license", value)) if scalar(value).is_empty() => in_list = true,
            Some(("license", value)) => {
                let list = scalar(value);
                let list = list.trim_start_matches('[').trim_end_matches(']');
                names.extend(list.split(',').map(scalar));
            }
            Some(("license_name", value)) => other = Some(scalar(value)),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    let names = names.join(", ");
    match other.filter(|other| !other.is_empty()) {
        _ if names.is_empty() => None,
        Some(other) => Some(printable(&format!("{names}: {other}"))),
        None => Some(printable(&names)),
    }
}

/// A value of YAML without its quotes, or without the comment after it.
fn scalar(value: &str) -> String {
    let value = value.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.split(*quote).next());
    let plain = || value.split(" #").next().unwrap_or_default().trim();
    quoted.unwrap_or_else(plain).to_owned()
}

/// One line for a terminal: the file is someone else's.
fn printable(line: &str) -> String {
    line.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_states_a_licence_in_many_ways() {
        for (text, expected) in [
            ("---\nlicense: mit\n---\n# A model", Some("mit")),
            ("---\r\ntags: [a]\r\nlicense: \"cc-by-4.0\" # ours\r\n---\r\n", Some("cc-by-4.0")),
            ("---\nlicense: apache-2.0 # of the weights\n---", Some("apache-2.0")),
            ("---\nlicense: other\nlicense_name: fair\nlicense_link: LICENSE\n---\n", Some("other: fair")),
            ("---\nlicense:\n  - mit\n- apache-2.0\ntags:\n- x\n---\n", Some("mit, apache-2.0")),
            ("---\nlicense: [mit, 'bsd']\n---\n", Some("mit, bsd")),
            ("---\nlicense: m\u{1b}[2Jit\n---\n", Some("m[2Jit")),
            ("---\nlicense:\n---\nlicense: mit", None),
            ("---\ntags:\n- mit\nbase:\n  license: mit\n---\n", None),
            ("---\nlicense_name: fair\n---\n", None),
            ("# A model\nlicense: mit", None),
            ("", None),
        ] {
            assert_eq!(of_front_matter(text).as_deref(), expected, "{text:?}");
        }
    }
}
