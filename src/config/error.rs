//! Mistakes in a pipeline file, as a person reads them: what is wrong, where, what was probably
//! meant, and the line itself with a caret below.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Why there is no pipeline.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file itself cannot be read, or is not UTF-8.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// The pipeline file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// At least one problem, in the order of the file's text, those of flags last.
    #[error("{}", join(.0))]
    Invalid(Vec<Problem>),
}

/// One mistake in a pipeline file or in a flag that overrides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, for example ``unknown key `treshold` in [patch]``.
    pub message: String,
    /// The place: `a.toml:12:1`, or the flag.
    pub place: String,
    /// What was probably meant, or what there is.
    pub hint: Option<String>,
    /// The line of the file with a caret below.
    pub excerpt: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.message, self.place)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        Ok(())
    }
}

fn join(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// Line and column of the byte `offset` of `text`, from 1; columns count characters.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The line where `span` starts, with carets below as much of the span as lies in that line.
pub(super) fn excerpt(text: &str, span: &Range<usize>) -> String {
    let (number, column) = line_and_column(text, span.start);
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let end = span.end.max(span.start + 1).min(text.len());
    let (end_number, end_column) = line_and_column(text, end);
    let carets = if end_number == number {
        end_column.saturating_sub(column)
    } else {
        (line.chars().count() + 1).saturating_sub(column)
    };
    // A tab before the span stays a tab below it, so that the caret stands under the right place.
    let indent: String = line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let number = number.to_string();
    let margin = " ".repeat(number.len());
    format!("{margin} |\n{number} | {line}\n{margin} | {indent}{}", "^".repeat(carets.max(1)))
}
