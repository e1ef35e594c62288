//! What lies in an output's `_blt` folder, as JSON. Knows nothing of where that is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::SinkError;

/// `_blt/plan.json`: what the output was made from and how. A plan that took its place, as `plan.r1.json` and
/// so on, has all of its shards and more; the highest counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// Version of the output tables.
    pub schema_version: String,
    /// Everything that decides what is written, by key: the pipeline file's keys with defaults filled
    /// in, and the model's.
    pub meaning: BTreeMap<String, Value>,
    /// The shards in their order. What `--extend` takes in comes last, so that units keep their names.
    pub shards: Vec<ShardEntry>,
    /// Fingerprints of plans that this one replaced, whose units still count: `--only-quarantined` was asked
    /// to take longer documents than they took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// Commits of the Hub that sources and model were taken from, by `datasets/owner/name@revision`: a run that goes on keeps
    /// to them, whatever the revision stands for by then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revisions: BTreeMap<String, String>,
}

impl PlanRecord {
    /// SHA-256, hex, of schema version and meaning: of what is done, not of what it is done to, since each shard
    /// has its own identity.
    ///
    /// # Errors
    /// [`SinkError::Encode`].
    pub fn fingerprint(&self) -> Result<String, SinkError> {
        let canonical = serde_json::to_vec(&(&self.schema_version, &self.meaning))
            .map_err(|error| SinkError::Encode(format!("the plan: {error}")))?;
        Ok(format!("{:x}", Sha256::digest(canonical)))
    }
}

/// A shard in the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Name of the shard in the output.
    pub source_file: String,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256, hex, of its footer.
    pub footer_sha256: String,
    /// Rows that the plan covers.
    pub rows: u64,
    /// Units they are cut into.
    pub units: u32,
    /// Uncompressed bytes of their content, as the footer tells them.
    pub content_bytes: u64,
    /// Whether its footer could not be read: then it may be replaced by one that can.
    #[serde(default)]
    pub unreadable: bool,
}

/// A file that belongs to a committed unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name of the table.
    pub table: String,
    /// Path below the output folder.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256, hex, of the file.
    pub sha256: String,
}

/// What a unit, or a whole output, holds. Sums end at the largest number: a record may say anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Source rows read.
    pub rows: u64,
    /// Of these, left out by `source.where` or `source.sample`.
    pub filtered: u64,
    /// Of these, documents.
    pub documents: u64,
    /// Of these, in quarantine.
    pub quarantined: u64,
    /// Bytes given to the model.
    pub bytes: u64,
    /// Patches that hold at least one byte.
    pub patches: u64,
    /// Sum, in nats, of the uncertainty about each byte.
    pub entropy_sum: f64,
}

impl Counts {
    /// Takes away the counts of a unit that was superseded.
    pub fn subtract(&mut self, other: &Counts) {
        // Another process may have superseded it before, unseen by this one.
        self.rows = self.rows.saturating_sub(other.rows);
        self.filtered = self.filtered.saturating_sub(other.filtered);
        self.documents = self.documents.saturating_sub(other.documents);
        self.quarantined = self.quarantined.saturating_sub(other.quarantined);
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.patches = self.patches.saturating_sub(other.patches);
        self.entropy_sum -= other.entropy_sum;
    }

    /// Adds the counts of another unit.
    pub fn add(&mut self, other: &Counts) {
        self.rows = self.rows.saturating_add(other.rows);
        self.filtered = self.filtered.saturating_add(other.filtered);
        self.documents = self.documents.saturating_add(other.documents);
        self.quarantined = self.quarantined.saturating_add(other.quarantined);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.patches = self.patches.saturating_add(other.patches);
        self.entropy_sum += other.entropy_sum;
    }
}

/// `_blt/commits/<unit>.json`: its existence commits the unit. A record that took its place, as
/// `<unit>.r1.json` and so on, names the complete new files of the unit; the highest counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Name of the unit.
    pub unit: String,
    /// Name of its shard in the output.
    pub source_file: String,
    /// First row in the shard.
    pub row_start: u64,
    /// Row after the last.
    pub row_end: u64,
    /// Uncompressed bytes of its content, as the footer tells them.
    pub content_bytes: u64,
    /// What the unit holds.
    pub counts: Counts,
    /// Its files, one a table that has rows.
    pub files: Vec<FileEntry>,
    /// Fingerprint of the plan.
    pub fingerprint: String,
    /// What computed it.
    pub device_class: String,
    /// Tokens of a full batch, as resolved.
    pub batch_tokens: usize,
    /// Seconds from reading the unit to its commit.
    pub seconds: f64,
}

/// `_blt/failed/<unit>.json`: why a unit has no commit record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// Name of the unit, or of the shard when its footer could not be read.
    pub unit: String,
    /// Name of its shard in the output.
    pub source_file: String,
    /// Station that failed.
    pub stage: String,
    /// Its words.
    pub reason: String,
}

/// `_blt/manifest.json`: written last, lists what counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the output tables.
    pub schema_version: String,
    /// Fingerprint of the plan.
    pub fingerprint: String,
    /// Number of units, all of them committed.
    pub units: u64,
    /// What the output holds.
    pub counts: Counts,
    /// Different device classes that computed it.
    pub device_classes: Vec<String>,
    /// Every file of the tables, sorted by path.
    pub files: Vec<FileEntry>,
}

/// `_blt/claims/<attempt>.json`: what one process is at. Advice for `status` and for who does what next; no
/// promise rests on it, and nothing of it reaches a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Name of the host.
    pub host: String,
    /// Process on that host.
    pub process: u32,
    /// Its share of the units, `index/count`, if it has one.
    pub share: Option<String>,
    /// When it began, seconds since 1970.
    pub since: u64,
    /// When this was written, likewise.
    pub seen: u64,
    /// Content bytes it scored so far.
    pub bytes: u64,
    /// Units it is at, each with the time it was begun.
    pub units: BTreeMap<String, u64>,
}
