//! What is written of a repository in; which one is meant out. Knows nothing of whether it exists.

use std::fmt;

use super::PushError;

/// What a repository is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dataset,
    Model,
}

/// A branch of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub kind: Kind,
    pub owner: String,
    pub name: String,
    pub revision: String,
}

/// The branch that is meant where none is named.
const MAIN: &str = "main";
/// As the Hub has it.
const MAX_NAME: usize = 96;

impl Kind {
    /// In addresses of the API.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Dataset => "datasets",
            Kind::Model => "models",
        }
    }
}

impl Target {
    /// Reads `hf://datasets/OWNER/NAME[@BRANCH]` or `hf://OWNER/NAME[@BRANCH]`.
    ///
    /// A folder in a repository is refused: the Hub reads a card at the root only, and finds the tables from there.
    pub fn parse(written: &str) -> Result<Target, PushError> {
        let wrong = |problem: &str| {
            let forms =
                "write hf://datasets/OWNER/NAME[@BRANCH] for an output, hf://OWNER/NAME[@BRANCH] for a model";
            Err(PushError::Address { uri: written.to_owned(), problem: format!("{problem}; {forms}") })
        };
        let Some(address) = written.strip_prefix("hf://") else {
            return wrong("it does not begin with hf://");
        };
        let (kind, address) = match address.split_once('/') {
            Some(("datasets", rest)) => (Kind::Dataset, rest),
            Some((other @ ("spaces" | "kernels" | "buckets"), _)) => {
                return wrong(&format!("push does not know {other}"));
            }
            _ => (Kind::Model, address),
        };
        let (repository, revision) = match address.split_once('@') {
            None => (address, MAIN),
            Some((repository, revision)) => (repository, revision),
        };
        let Some((owner, name)) = repository.split_once('/') else {
            return wrong("it has no owner and name");
        };
        let folder =
            "it names a folder, and push takes a whole repository or branch, whose root has the card";
        if name.contains('/') || (revision.contains('/') && !revision.starts_with("refs/")) {
            return wrong(folder);
        }
        for part in [owner, name] {
            if !is_name(part) {
                return wrong(&format!("{part:?} is no name on the Hub"));
            }
        }
        let fits = |c: char| c.is_ascii_graphic() && !"~^:?*[\\@".contains(c);
        if revision.is_empty() || !revision.chars().all(fits) {
            return wrong(&format!("{revision:?} is no branch"));
        }
        Ok(Target { kind, owner: owner.into(), name: name.into(), revision: revision.into() })
    }

    /// As the Hub calls it.
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Where its page is, below the Hub's address.
    pub fn place(&self) -> Vec<&str> {
        match self.kind {
            Kind::Dataset => vec!["datasets", &self.owner, &self.name],
            Kind::Model => vec![&self.owner, &self.name],
        }
    }

    /// Whether the branch is the one that is meant where none is named.
    pub fn is_main(&self) -> bool {
        self.revision == MAIN
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}", self.place().join("/"))?;
        if self.is_main() { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends = text.starts_with(['-', '.']) || text.ends_with(['-', '.']);
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(fits) && !ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_datasets_models_and_branches_are_understood() {
        for (written, kind, id, revision) in [
            ("hf://datasets/sea/tides", Kind::Dataset, "sea/tides", "main"),
            ("hf://datasets/sea/tides@v2", Kind::Dataset, "sea/tides", "v2"),
            ("hf://sea/tides-model.1", Kind::Model, "sea/tides-model.1", "main"),
            ("hf://sea/tides@refs/pr/7", Kind::Model, "sea/tides", "refs/pr/7"),
        ] {
            let target = Target::parse(written).unwrap();
            assert_eq!((target.kind, target.id().as_str(), target.revision.as_str()), (kind, id, revision));
            assert_eq!(target.to_string(), written);
        }
    }

    #[test]
    fn what_is_no_repository_is_refused_with_the_form_that_is() {
        for (written, problem) in [
            ("https://huggingface.co/sea/tides", "does not begin with hf://"),
            ("hf://tides", "no owner and name"),
            ("hf://datasets/tides", "no owner and name"),
            ("hf://spaces/sea/tides", "does not know spaces"),
            ("hf://datasets/sea/tides/2024", "names a folder"),
            ("hf://datasets/sea/tides@main/2024", "names a folder"),
            ("hf://datasets/sea/", "\"\" is no name"),
            ("hf://datasets/../tides", "\"..\" is no name"),
            ("hf://sea/ti des", "\"ti des\" is no name"),
            ("hf://sea/tides@", "\"\" is no branch"),
            ("hf://sea/tides@a b", "\"a b\" is no branch"),
        ] {
            let told = Target::parse(written).unwrap_err().to_string();
            assert!(told.contains(problem) && told.contains("hf://datasets/OWNER/NAME"), "{told}");
        }
    }
}
