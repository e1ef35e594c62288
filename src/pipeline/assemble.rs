//! Scores of a unit's contexts in, batch by batch; the unit's patches, means and embeddings out. Keeps no
//! hidden state longer than it needs. Knows nothing of threads or files.

use std::{ops::Range, sync::Arc};

use half::{f16, slice::HalfFloatSliceExt};
use pulp::{Arch, Simd, WithSimd};

use crate::{
    config::{EmbeddingDtype, Embeddings},
    data::{Document, EmbeddingValues, PatchColumns, PatchRule, PatchedUnit, Scores, SegmentedBatch, Wanted},
    model::PackedBatch,
    patch::{Patcher, byte_spans, lengths_of_starts, patch_lengths},
    schema::TableOptions,
    sink::Counts,
};

/// What to make of the scores.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Where patches start.
    pub rule: PatchRule,
    /// What the tables hold.
    pub tables: TableOptions,
}

impl Recipe {
    /// What the model has to return.
    pub fn wanted(&self) -> Wanted {
        Wanted { norms: self.tables.norms, pre_norm: self.tables.embeddings != Embeddings::None }
    }

    /// Whether patches are known only at the document's end, while every token's hidden state is needed
    /// for their embeddings.
    pub(super) fn defers_pooling(&self) -> bool {
        self.tables.embeddings == Embeddings::Patch && !self.rule.is_local()
    }

    /// Why a document of `n_bytes` cannot be patched and pooled, if it cannot.
    pub fn refuses(&self, n_bytes: u64) -> Option<String> {
        let hidden_bytes = (n_bytes + 2) * self.tables.dim as u64 * size_of::<f32>() as u64;
        (self.defers_pooling() && hidden_bytes > MAX_DEFERRED_BYTES).then(|| {
            format!(
                "{n_bytes} bytes are too many for patch embeddings of a top-k rule, which needs all {hidden_bytes} bytes \
                 of hidden state at once (limit {MAX_DEFERRED_BYTES}); use a threshold, or no patch embeddings"
            )
        })
    }
}

/// Hidden state of one document that a rule without locality may hold. A constant, because what goes to
/// quarantine must not depend on the machine.
const MAX_DEFERRED_BYTES: u64 = 256 << 20;

/// Puts one unit together. Batches come in the order of the unit's documents.
pub struct Assembler {
    recipe: Recipe,
    batch: Arc<SegmentedBatch>,
    entropies: Vec<f32>,
    norms: Vec<f32>,
    patch_lengths: Vec<u32>,
    patch_lengths_per_document: Vec<usize>,
    patches: PatchColumns,
    pool: Pool,
    /// Index of the document whose tokens come next.
    document: usize,
    open: OpenDocument,
}

/// What is known of a document before its last token has come.
struct OpenDocument {
    patcher: Option<Patcher>,
    starts: Vec<u32>,
    n_tokens: usize,
    /// Kept only for rules that need the document at once.
    tokens: Vec<u16>,
    hidden: Vec<f32>,
}

impl OpenDocument {
    fn new(rule: &PatchRule) -> Self {
        let patcher = Patcher::new(rule);
        OpenDocument { patcher, starts: Vec::new(), n_tokens: 0, tokens: Vec::new(), hidden: Vec::new() }
    }
}

impl Assembler {
    /// For the documents of `batch`.
    pub fn new(recipe: Recipe, batch: Arc<SegmentedBatch>) -> Self {
        let n_tokens = batch.documents.iter().map(Document::n_tokens).sum();
        let pool = Pool::new(&recipe.tables);
        Assembler {
            entropies: Vec::with_capacity(n_tokens),
            norms: Vec::with_capacity(if recipe.tables.norms { n_tokens } else { 0 }),
            patch_lengths: Vec::new(),
            patch_lengths_per_document: Vec::with_capacity(batch.documents.len()),
            patches: PatchColumns {
                norm_mean: recipe.tables.norms.then(Vec::new),
                ..PatchColumns::default()
            },
            pool,
            document: 0,
            open: OpenDocument::new(&recipe.rule),
            recipe,
            batch,
        }
    }

    /// Takes the scores of the unit's next batch.
    ///
    /// # Errors
    /// When a value is not finite, or the scores do not fit the batch.
    pub fn push(&mut self, packed: &PackedBatch, scores: &Scores) -> Result<(), String> {
        for (span, range) in packed.kept() {
            if span.document != self.document || span.first_token + span.skip != self.open.n_tokens {
                return Err(format!(
                    "scores of document {} came when document {} was due",
                    span.document, self.document
                ));
            }
            self.push_tokens(&packed.packed.tokens[range.clone()], scores, range)?;
            if self.open.n_tokens == self.batch.documents[self.document].n_tokens() {
                self.close_document()?;
            }
        }
        Ok(())
    }

    fn push_tokens(&mut self, tokens: &[u16], scores: &Scores, range: Range<usize>) -> Result<(), String> {
        let entropies = slice(&scores.entropies, &range, "entropies")?;
        self.check_finite(entropies, "entropy")?;
        self.entropies.extend_from_slice(entropies);
        if self.recipe.tables.norms {
            let norms = slice(scores.norms.as_deref().unwrap_or_default(), &range, "norms")?;
            self.check_finite(norms, "norm")?;
            self.norms.extend_from_slice(norms);
        }
        let first = self.open.n_tokens;
        let seen = self.open.starts.len();
        match &mut self.open.patcher {
            Some(patcher) => patcher.push(tokens, entropies, &mut self.open.starts),
            None => self.open.tokens.extend_from_slice(tokens),
        }
        self.open.n_tokens += tokens.len();
        if self.recipe.tables.embeddings == Embeddings::None {
            return Ok(());
        }
        let dim = self.recipe.tables.dim;
        let hidden = scores.pre_norm.as_deref().unwrap_or_default();
        let hidden = slice(hidden, &(range.start * dim..range.end * dim), "hidden states")?;
        if self.recipe.defers_pooling() {
            self.open.hidden.extend_from_slice(hidden);
        } else {
            let n_bytes = self.batch.documents[self.document].bytes.len();
            self.pool.push(hidden, first, n_bytes, &self.open.starts[seen..]);
        }
        Ok(())
    }

    fn check_finite(&self, values: &[f32], what: &str) -> Result<(), String> {
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => Err(format!(
                "the model returned the {what} {} for token {} of row {} of {}",
                values[at],
                self.open.n_tokens + at,
                self.batch.documents[self.document].source_row,
                self.batch.unit.source_file
            )),
        }
    }

    fn close_document(&mut self) -> Result<(), String> {
        let n_tokens = self.open.n_tokens;
        let n_bytes = self.batch.documents[self.document].bytes.len();
        let open = std::mem::replace(&mut self.open, OpenDocument::new(&self.recipe.rule));
        let entropies = &self.entropies[self.entropies.len() - n_tokens..];
        let lengths = match open.patcher {
            Some(_) => lengths_of_starts(open.starts, n_tokens),
            None => patch_lengths(&self.recipe.rule, &open.tokens, entropies),
        };
        if self.recipe.defers_pooling() {
            let mut end = 0;
            let starts: Vec<u32> = lengths
                .iter()
                .map(|&n| {
                    end += n;
                    end - n
                })
                .collect();
            self.pool.push(&open.hidden, 0, n_bytes, &starts);
        }
        self.pool.close_document(n_bytes);

        let norms = self.norms.len().checked_sub(n_tokens).map(|first| &self.norms[first..]);
        let first_patch = self.patches.start.len();
        let mut tiled = 0;
        for (start, n) in byte_spans(&lengths) {
            if start != tiled {
                break;
            }
            tiled += n;
            self.patches.start.push(start as u64);
            self.patches.length.push(n as u64);
            self.patches.entropy_start.push(entropies[start]);
            self.patches.entropy_mean.push(mean(&entropies[start..start + n]));
            if let (Some(column), Some(norms)) = (&mut self.patches.norm_mean, norms) {
                column.push(mean(&norms[start + 1..=start + n]));
            }
        }
        if tiled != n_bytes {
            return Err(format!(
                "patches cover {tiled} of the {n_bytes} bytes of document {}",
                self.document
            ));
        }
        self.patches.per_document.push(self.patches.start.len() - first_patch);
        self.patch_lengths_per_document.push(lengths.len());
        self.patch_lengths.extend(lengths);
        self.document += 1;
        Ok(())
    }

    /// Patches so far.
    pub fn n_patches(&self) -> u64 {
        (self.patches.start.len() + self.open.starts.len()) as u64
    }

    /// The unit, once all its batches have come.
    ///
    /// # Errors
    /// When scores are missing, or an embedding is not finite in the type it is stored in.
    pub fn finish(self) -> Result<(PatchedUnit, Counts), String> {
        if self.document != self.batch.documents.len() {
            return Err(format!(
                "the model scored {} of {} documents",
                self.document,
                self.batch.documents.len()
            ));
        }
        let embeddings = self.pool.finish(self.patches.start.len())?;
        let counts = counts(&self.batch, &self.entropies, self.patches.start.len());
        let unit = PatchedUnit {
            batch: self.batch,
            entropies: self.entropies,
            norms: self.recipe.tables.norms.then_some(self.norms),
            patch_lengths: self.patch_lengths,
            patch_lengths_per_document: self.patch_lengths_per_document,
            patches: self.patches,
            embeddings,
        };
        Ok((unit, counts))
    }
}

fn slice<'a>(values: &'a [f32], range: &Range<usize>, what: &str) -> Result<&'a [f32], String> {
    values.get(range.clone()).ok_or_else(|| format!("the model returned too few {what}"))
}

fn mean(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
    (sum / values.len() as f64) as f32
}

fn counts(batch: &SegmentedBatch, entropies: &[f32], n_patches: usize) -> Counts {
    let mut counts = Counts {
        rows: batch.unit.rows.end - batch.unit.rows.start,
        filtered: batch.n_filtered,
        documents: batch.documents.len() as u64,
        quarantined: batch.rejected.len() as u64,
        patches: n_patches as u64,
        ..Counts::default()
    };
    let mut first = 0;
    for document in &batch.documents {
        let n_bytes = document.bytes.len();
        counts.bytes += n_bytes as u64;
        counts.entropy_sum += entropies[first..first + n_bytes].iter().map(|&h| f64::from(h)).sum::<f64>();
        first += document.n_tokens();
    }
    counts
}

/// Averages hidden states of bytes over patches or documents, or keeps each one.
struct Pool {
    /// Which vectors the processor has.
    arch: Arch,
    embeddings: Embeddings,
    dim: usize,
    values: EmbeddingValues,
    /// In f64: a document may have millions of bytes, and the order of the sum is fixed anyway.
    sum: Vec<f64>,
    n_summed: usize,
    mean: Vec<f32>,
}

impl Pool {
    fn new(tables: &TableOptions) -> Self {
        let values = match tables.embedding_dtype {
            EmbeddingDtype::F16 => EmbeddingValues::F16(Vec::new()),
            EmbeddingDtype::F32 => EmbeddingValues::F32(Vec::new()),
        };
        Pool {
            arch: Arch::new(),
            embeddings: tables.embeddings,
            dim: tables.dim,
            values,
            sum: vec![0.0; tables.dim],
            n_summed: 0,
            mean: vec![0.0; tables.dim],
        }
    }

    /// Takes hidden states `[n × dim]` of the tokens from `first` on, and the `starts` of patches among
    /// them. BOS and EOS are no bytes and count nowhere.
    fn push(&mut self, hidden: &[f32], first: usize, n_bytes: usize, starts: &[u32]) {
        let bytes = first.max(1)..(first + hidden.len() / self.dim).min(n_bytes + 1);
        if bytes.is_empty() {
            return;
        }
        let dim = self.dim;
        let rows = |tokens: Range<usize>| &hidden[(tokens.start - first) * dim..][..tokens.len() * dim];
        match self.embeddings {
            Embeddings::None => {}
            Embeddings::Byte => append(&mut self.values, rows(bytes)),
            Embeddings::Document => self.add(rows(bytes)),
            Embeddings::Patch => {
                let mut start = bytes.start;
                for end in starts.iter().map(|&start| start as usize).filter(|start| bytes.contains(start)) {
                    self.add(rows(start..end));
                    self.flush();
                    start = end;
                }
                self.add(rows(start..bytes.end));
            }
        }
    }

    /// Adds rows to those that are averaged next.
    fn add(&mut self, rows: &[f32]) {
        self.arch.dispatch(AddRows { sum: &mut self.sum, rows });
        self.n_summed += rows.len() / self.dim;
    }

    fn close_document(&mut self, n_bytes: usize) {
        match self.embeddings {
            Embeddings::Patch => self.flush(),
            // A null embedding still takes its place in the column.
            Embeddings::Document if n_bytes == 0 => self.append_mean(1.0),
            Embeddings::Document => self.flush(),
            Embeddings::None | Embeddings::Byte => {}
        }
    }

    fn flush(&mut self) {
        if self.n_summed > 0 {
            self.append_mean(self.n_summed as f64);
            self.sum.fill(0.0);
            self.n_summed = 0;
        }
    }

    fn append_mean(&mut self, count: f64) {
        self.arch.dispatch(Mean { sum: &self.sum, count, mean: &mut self.mean });
        append(&mut self.values, &self.mean);
    }

    fn finish(self, n_patches: usize) -> Result<Option<EmbeddingValues>, String> {
        if self.embeddings == Embeddings::None {
            return Ok(None);
        }
        let (n_values, finite) = match &self.values {
            // To the end rather than to the first that is not, which the compiler turns into vectors.
            EmbeddingValues::F16(values) => {
                (values.len(), values.iter().fold(true, |all, v| all & v.is_finite()))
            }
            EmbeddingValues::F32(values) => {
                (values.len(), values.iter().fold(true, |all, v| all & v.is_finite()))
            }
        };
        if !finite {
            return Err(
                "an embedding is not finite in its type; sink.embedding_dtype = \"f32\" has more room".into(),
            );
        }
        if self.embeddings == Embeddings::Patch && n_values != n_patches * self.dim {
            return Err(format!("{n_values} embedding values for {n_patches} patches of dim {}", self.dim));
        }
        Ok(Some(self.values))
    }
}

/// Adds to each of `sum` its column of `rows`, in their order: one column a lane, so that the width of the vectors
/// changes nothing.
struct AddRows<'a> {
    sum: &'a mut [f64],
    rows: &'a [f32],
}

impl WithSimd for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // As many sums as stay in registers while they meet all rows.
        const TOGETHER: usize = 32;
        let Self { sum, rows } = self;
        let dim = sum.len();
        let (together, rest) = sum.as_chunks_mut::<TOGETHER>();
        for (i, sums) in together.iter_mut().enumerate() {
            let mut kept = *sums;
            for row in rows.chunks_exact(dim) {
                for (sum, &value) in kept.iter_mut().zip(&row[i * TOGETHER..][..TOGETHER]) {
                    *sum += f64::from(value);
                }
            }
            *sums = kept;
        }
        let first = dim - rest.len();
        for row in rows.chunks_exact(dim) {
            for (sum, &value) in rest.iter_mut().zip(&row[first..]) {
                *sum += f64::from(value);
            }
        }
    }
}

/// `sum` divided by `count`.
struct Mean<'a> {
    sum: &'a [f64],
    count: f64,
    mean: &'a mut [f32],
}

impl WithSimd for Mean<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (mean, sum) in self.mean.iter_mut().zip(self.sum) {
            *mean = (sum / self.count) as f32;
        }
    }
}

fn append(values: &mut EmbeddingValues, row: &[f32]) {
    match values {
        EmbeddingValues::F16(values) => {
            let first = values.len();
            values.resize(first + row.len(), f16::ZERO);
            // Eight at a time where the processor can; one at a time is most of the stage's work.
            values[first..].convert_from_f32_slice(row);
        }
        EmbeddingValues::F32(values) => values.extend_from_slice(row),
    }
}
