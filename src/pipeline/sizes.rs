//! What units take in memory and on the disk, as far as it is known beforehand, and what the machine has.

use super::plan::Plan;
use crate::{
    config::{EmbeddingDtype, Embeddings},
    data::{Boundary, Unit},
    schema::Table,
    sink::Encoder,
};

/// Bytes of text in a patch, a little below the average at the thresholds models are released with.
const BYTES_PER_PATCH: u64 = 4;

/// What decides how much memory a unit takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Rows.
    pub rows: u64,
    /// Bytes of documents: of the content, where that is not decoded.
    pub content: u64,
    /// Bytes that they are yet to be decoded from.
    pub encoded: u64,
    /// Bytes of carried columns.
    pub carried: u64,
    /// Patches; until they are known, what text has on average.
    pub patches: Option<u64>,
}

impl Load {
    fn planned(unit: &Unit) -> Load {
        let rows = unit.rows.end - unit.rows.start;
        Load { rows, content: unit.content_bytes, carried: unit.carried_bytes, ..Load::default() }
    }
}

impl Plan {
    /// Bytes that `unit` holds at its most, as far as its footer tells.
    pub fn memory_cost(&self, unit: &Unit) -> u64 {
        self.memory_of(&Load::planned(unit))
    }

    /// Bytes that a unit with this load holds at its most, from its rows to its encoded tables.
    ///
    /// An upper estimate: for many short documents about twice what was measured, for a single long one about that.
    pub(super) fn memory_of(&self, load: &Load) -> u64 {
        let &Load { rows, content, encoded, carried, patches } = load;
        let tables = &self.recipe.tables;
        let tokens = content.saturating_add(2 * rows);
        let patches = patches.unwrap_or_else(|| content / self.bytes_per_patch());
        let embeddings = self.embedding_width().saturating_mul(match tables.embeddings {
            Embeddings::None => 0,
            Embeddings::Document => rows,
            Embeddings::Patch => patches,
            Embeddings::Byte => content,
        });
        // The content once, 8 bytes of scores a token; 32 of columns a patch and 20 of keys and numbers, some of them twice while
        // their lists grow.
        let columns = content.saturating_add(8 * tokens).saturating_add(60 * patches);
        // What is being written: pages of two lists of floats, and what they are compressed to, at 16 bytes a token; levels and
        // positions of the other lists, as the Parquet writer has them; the encoded pieces of the open row group.
        let encoding = 24 * tokens + Encoder::ROW_GROUP_BYTES.min(columns.saturating_add(embeddings));
        let bytes = match tables.embeddings {
            // Position, byte, entropy, norm and keys.
            Embeddings::Byte => content.saturating_mul(40),
            _ => 0,
        };
        let hidden = self.hidden_memory_of(load);
        // Carried columns are read, put together and taken from. A row has names and numbers besides its content.
        let rows = carried.saturating_mul(3).saturating_add(rows.saturating_mul(256));
        [encoded, columns, embeddings, encoding, bytes, hidden, rows].into_iter().fold(0, u64::saturating_add)
    }

    /// The part of [`Self::memory_of`] that a unit no longer needs once it is patched: hidden states of its batches between the
    /// model and the patcher, of which it has four at its most.
    pub(super) fn hidden_memory_of(&self, load: &Load) -> u64 {
        let tables = &self.recipe.tables;
        let tokens = load.content.saturating_add(2 * load.rows);
        match tables.embeddings {
            Embeddings::None => 0,
            _ => {
                let held = tokens.min(4 * self.batch_tokens as u64 + self.deferred_tokens(tokens));
                held.saturating_mul(4 * tables.dim as u64)
            }
        }
    }

    /// Tokens whose hidden states wait for the end of their document, twice because their list grows by doubling.
    fn deferred_tokens(&self, tokens: u64) -> u64 {
        if self.recipe.defers_pooling() { 2 * tokens } else { 0 }
    }

    /// What the rule says, or an estimate where the text decides.
    fn bytes_per_patch(&self) -> u64 {
        let rule = &self.recipe.rule;
        let expected = match rule.boundary {
            Boundary::Static { patch_size } | Boundary::TopK { patch_size } => patch_size.get().into(),
            Boundary::Byte => 1,
            _ => BYTES_PER_PATCH,
        };
        rule.max_patch_length.map_or(expected, |most| expected.min(most.get().into()))
    }

    /// Bytes of one embedding.
    fn embedding_width(&self) -> u64 {
        let tables = &self.recipe.tables;
        tables.dim as u64
            * match tables.embedding_dtype {
                EmbeddingDtype::F16 => 2,
                EmbeddingDtype::F32 => 4,
            }
    }

    fn embedding_bytes(&self, content_bytes: u64) -> u64 {
        let rows = match self.recipe.tables.embeddings {
            Embeddings::None | Embeddings::Document => 0,
            Embeddings::Patch => content_bytes / self.bytes_per_patch(),
            Embeddings::Byte => content_bytes,
        };
        rows.saturating_mul(self.embedding_width())
    }

    /// Bytes that each table will take for `content` bytes of content, estimated: random mantissas do not compress, so
    /// floats count in full, less the share of their exponents.
    pub fn output_bytes(&self, content: u64) -> Vec<(Table, u64)> {
        let tables = &self.recipe.tables;
        let float_lists = u64::from(tables.entropies) + u64::from(tables.norms);
        let patches = content / self.bytes_per_patch();
        let embeddings = self.embedding_bytes(content) / 10 * 9;
        let at = |level: Embeddings| if tables.embeddings == level { embeddings } else { 0 };
        let mut sizes = vec![
            (Table::Documents, content * float_lists * 7 / 2 + patches / 2),
            (Table::Patches, patches * (8 + 3 * u64::from(tables.norms)) + at(Embeddings::Patch)),
        ];
        if tables.embeddings == Embeddings::Byte {
            sizes.push((Table::Bytes, content * 7 + at(Embeddings::Byte)));
        }
        sizes
    }
}

/// Bytes that this machine, or the control group that the process is in, has; 0 where the system does not tell.
pub(super) fn memory_of_machine() -> u64 {
    let kib = |text: String| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(kib).map_or(0, |kib| 1024 * kib);
    // In a container the group's folder is this one; "max" is no limit.
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|n| n.trim().parse().ok());
    limit.map_or(total, |limit: u64| limit.min(total))
}
