//! A finished output or a model's folder in; a repository on the Hugging Face Hub that holds it out. Knows nothing of how either
//! was made, and changes nothing on this machine.

#[cfg(feature = "push")]
mod account;
#[cfg(feature = "push")]
mod card;
#[cfg(feature = "push")]
mod hub;
#[cfg(feature = "push")]
mod lfs;
#[cfg(feature = "push")]
mod package;
#[cfg(feature = "push")]
mod push;
#[cfg(feature = "push")]
mod setback;
#[cfg(feature = "push")]
mod uri;

use std::{fmt, io, path::PathBuf};

#[cfg(feature = "push")]
pub use self::push::push;
use crate::{
    figures::{megabytes, thousands},
    model::ModelError,
    sink::SinkError,
};

/// How a folder is pushed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Identifier of the data's or the model's licence, for the card.
    pub license: Option<String>,
    /// What the documents are from, for the card.
    pub source: Option<String>,
    /// The repository must be private; one that is made, is.
    pub private: bool,
    /// Makes the repository if there is none.
    pub create: bool,
    /// Changes nothing.
    pub dry_run: bool,
    /// Leaves the repository's card as it is.
    pub keep_card: bool,
    /// Replaces files of another model.
    pub replace: bool,
}

/// What was pushed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Address of the repository's page.
    pub url: String,
    /// Path and size, bytes, of each file that was sent.
    pub sent: Vec<(String, u64)>,
    /// Files of an earlier state of the output that were removed from the repository.
    pub removed: Vec<String>,
    /// Files that were there before.
    pub there: usize,
    /// Commits that were made; `None` when nothing was to be changed.
    pub commits: Option<usize>,
}

/// Why a folder was not pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The feature is missing.
    #[error(
        "push: this build does not talk to the Hub; build it with the feature `push`: cargo build --release --features push"
    )]
    NotBuilt,
    /// An address that no repository has.
    #[error("failed to understand {uri}: {problem}")]
    Address {
        /// As it was written.
        uri: String,
        /// What is wrong with it, and what is right.
        problem: String,
    },
    /// The folder is neither an output nor a model, or the address is that of the other.
    #[error("failed to push {}: {problem}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it, and what helps.
        problem: String,
    },
    /// The output is not finished.
    #[error("failed to push {}: it is not finished; `blt-pipeline status` tells what is left", .folder.display())]
    Unfinished {
        /// The folder.
        folder: PathBuf,
    },
    /// The output does not hold what its records say.
    #[error("failed to push {}: it is not sound: {problem}", .folder.display())]
    NotSound {
        /// The folder.
        folder: PathBuf,
        /// The first thing that is wrong.
        problem: String,
    },
    /// What is said on the card is not what a card may say.
    #[error("--license: {0:?} is not an identifier; give one such as cc-by-4.0, odc-by or other")]
    License(String),
    /// The environment forbids the network.
    #[error("failed to push: HF_HUB_OFFLINE forbids it; unset the variable")]
    Offline,
    /// The environment says something that cannot be.
    #[error("failed to push: {0}")]
    Environment(String),
    /// There is no token.
    #[error(
        "failed to push: there is no token of the Hub; set HF_TOKEN to one that may write, or put it into the file {}",
        .file.display()
    )]
    NoToken {
        /// Where one was looked for last.
        file: PathBuf,
    },
    /// The Hub does not know the token.
    #[error(
        "failed to push to {repository}: the Hub does not accept the token from {origin}; make one at {settings}"
    )]
    InvalidToken {
        /// The repository.
        repository: String,
        /// Where the token was found.
        origin: String,
        /// Address of the page where tokens are made.
        settings: String,
    },
    /// The token may not do that.
    #[error(
        "failed to {what}: the token from {origin} may not; it needs the permission to write there{}",
        said(message)
    )]
    NoAccess {
        /// Where the token was found.
        origin: String,
        /// What was tried.
        what: String,
        /// The Hub's own words.
        message: String,
    },
    /// There is no such repository, as far as the token can see.
    #[error(
        "failed to push to {repository}: there is no such repository, or the token from {origin} may not see it; --create makes it"
    )]
    NoRepository {
        /// The repository.
        repository: String,
        /// Where the token was found.
        origin: String,
    },
    /// The repository has no such branch.
    #[error(
        "failed to push to {repository}: it has no branch {revision}; make it on the Hub, or leave @{revision} out"
    )]
    NoRevision {
        /// The repository.
        repository: String,
        /// The branch.
        revision: String,
    },
    /// `--private` was asked for, and all may read the repository.
    #[error("failed to push to {repository}: it is public, and --private was asked for; nothing was sent")]
    Public {
        /// The repository.
        repository: String,
    },
    /// The repository has a card that this program did not write.
    #[error(
        "failed to push to {repository}: its README.md was not written by blt-pipeline; --keep-card leaves it and pushes the rest"
    )]
    ForeignCard {
        /// The repository.
        repository: String,
    },
    /// Tables or records lie in the repository that are not this output's.
    #[error(
        "failed to push to {repository}: another output lies there ({}); push to a repository or branch of its own",
        list(files)
    )]
    ForeignFiles {
        /// The repository.
        repository: String,
        /// Which files.
        files: Vec<String>,
    },
    /// Files of the same name and another content lie in the repository.
    #[error(
        "failed to push to {repository}: its {} would be replaced by another content; {remedy}",
        list(files)
    )]
    Differs {
        /// The repository.
        repository: String,
        /// Which files.
        files: Vec<String>,
        /// What helps.
        remedy: &'static str,
    },
    /// The repository's own rules leave a file out.
    #[error("failed to push to {repository}: its .gitignore leaves {file} out; remove that line there")]
    Ignored {
        /// The repository.
        repository: String,
        /// The file.
        file: String,
    },
    /// The repository keeps large files as text.
    #[error(
        "failed to push to {repository}: it would keep {file} ({}) outside of LFS; add a line such as \
         `*.{} filter=lfs diff=lfs merge=lfs -text` to its .gitattributes",
        megabytes(*bytes), extension(file)
    )]
    NotLfs {
        /// The repository.
        repository: String,
        /// The file.
        file: String,
        /// Its size.
        bytes: u64,
    },
    /// A file is another than it was a moment ago.
    #[error("failed to push {}: it changed while it was being sent; start the same command again", .file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// A file cannot be read.
    #[error("failed to read {}: {error}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The network or the Hub is down, or the Hub has had enough for now.
    #[error("failed to {what}: {problem}; start the same command again later, it goes on where it stopped")]
    Interrupted {
        /// What was tried.
        what: String,
        /// What became of it.
        problem: String,
    },
    /// The Hub refuses what was asked, or its answer makes no sense.
    #[error("failed to {what}: the Hub answered {problem}")]
    Answer {
        /// What was tried.
        what: String,
        /// What it said.
        problem: String,
    },
    /// The output cannot be read.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (it says: {message})") }
}

fn list(files: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = files.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match files.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn extension(file: &str) -> &str {
    file.rsplit_once('.').map_or("*", |(_, extension)| extension)
}

impl fmt::Display for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.sent.iter().map(|(_, bytes)| bytes).sum();
        let n = thousands(self.sent.len() as u64);
        let Some(commits) = self.commits else {
            for (path, bytes) in &self.sent {
                writeln!(f, "{bytes:>14} bytes  {path}")?;
            }
            for path in &self.removed {
                writeln!(f, "{:>14}        {path}", "remove")?;
            }
            return write!(
                f,
                "{n} files would be sent, {}; {} are there already; nothing was changed at {}",
                megabytes(bytes),
                thousands(self.there as u64),
                self.url
            );
        };
        writeln!(f, "pushed to   {}", self.url)?;
        write!(f, "files       {n} sent, {}; {} were there", megabytes(bytes), thousands(self.there as u64))?;
        if !self.removed.is_empty() {
            write!(f, "; {} of an earlier state removed", thousands(self.removed.len() as u64))?;
        }
        write!(f, "\ncommits     {}", thousands(commits as u64))
    }
}

/// What stands for `push` in a build without it.
///
/// # Errors
/// [`PushError::NotBuilt`], always.
#[cfg(not(feature = "push"))]
pub fn push(
    _: &std::path::Path,
    _: &str,
    _: &Options,
    _: Option<&indicatif::MultiProgress>,
) -> Result<Pushed, PushError> {
    Err(PushError::NotBuilt)
}
