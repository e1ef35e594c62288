//! `hf://` addresses. Asks nothing of the Hub.

use std::fmt;

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dataset,
    Model,
}

/// A repository, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository {
    pub(super) kind: Kind,
    /// `owner/name`.
    pub(super) id: String,
    /// Branch, tag or commit.
    pub(super) revision: Option<String>,
}

/// The branch that the Hub's own conversions to Parquet are in.
pub(super) const CONVERSION: &str = "refs/convert/parquet";
const DEFAULT_REVISION: &str = "main";

impl Repository {
    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// Under which its commit is pinned.
    pub(super) fn pin(&self) -> String {
        format!("{}{}@{}", self.prefix(), self.id, self.revision())
    }

    /// `datasets/` or nothing: how its pages' paths begin.
    pub(super) fn prefix(&self) -> &'static str {
        match self.kind {
            Kind::Dataset => "datasets/",
            Kind::Model => "",
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}{}", self.prefix(), self.id)?;
        match &self.revision {
            Some(revision) => write!(f, "@{}", revision.replace('/', "%2F")),
            None => Ok(()),
        }
    }
}

/// Parts of `hf://datasets/OWNER/NAME[@REVISION][/PATH]`: repository and path.
pub(super) fn source_address(uri: &str) -> Result<(Repository, String), String> {
    let rest = uri.strip_prefix("hf://").unwrap_or(uri);
    let Some(rest) = rest.strip_prefix("datasets/") else {
        return Err(format!(
            "{uri}: a source on the Hub is hf://datasets/OWNER/NAME[@REVISION]/PATH; models are for model.weights"
        ));
    };
    let malformed = || format!("{uri}: expected hf://datasets/OWNER/NAME[@REVISION]/PATH");
    let (owner, rest) = rest.split_once('/').ok_or_else(malformed)?;
    let (name, mut path) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, mut revision) = match name.split_once('@') {
        Some((name, revision)) => (name, Some(revision.replace("%2F", "/").replace("%2f", "/"))),
        None => (name, None),
    };
    // The Hub's own branches have slashes in their names: `@refs/convert/parquet/…`, `@refs/pr/7/…`.
    if revision.as_deref() == Some("refs") {
        let mut parts = path.splitn(3, '/');
        let (Some(kind @ ("convert" | "pr")), Some(which)) = (parts.next(), parts.next()) else {
            return Err(malformed());
        };
        revision = Some(format!("refs/{kind}/{which}"));
        path = parts.next().unwrap_or_default();
    }
    if owner.is_empty() || name.is_empty() || revision.as_deref() == Some("") {
        return Err(malformed());
    }
    let repository = Repository { kind: Kind::Dataset, id: format!("{owner}/{name}"), revision };
    Ok((repository, path.trim_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_repository_revision_and_path() {
        for (uri, expected) in [
            ("hf://datasets/a/b/data/x.parquet", Some(("a/b", "main", "data/x.parquet"))),
            ("hf://datasets/a/b@v1.0/x.parquet", Some(("a/b", "v1.0", "x.parquet"))),
            ("hf://datasets/a/b@refs%2Fconvert%2Fparquet/d", Some(("a/b", "refs/convert/parquet", "d"))),
            ("hf://datasets/a/b@refs/convert/parquet/d/e", Some(("a/b", "refs/convert/parquet", "d/e"))),
            ("hf://datasets/a/b@refs/pr/7/", Some(("a/b", "refs/pr/7", ""))),
            ("hf://datasets/a/b", Some(("a/b", "main", ""))),
            ("hf://datasets/a", None),
            ("hf://datasets/a/b@/x", None),
            ("hf://datasets//b", None),
            ("hf://a/b/x.parquet", None),
        ] {
            let found = source_address(uri).ok();
            let found = found.as_ref().map(|(r, path)| (r.id.as_str(), r.revision(), path.as_str()));
            assert_eq!(found, expected, "{uri}");
        }
    }
}
