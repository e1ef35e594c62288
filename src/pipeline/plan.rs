//! Freezes a pipeline file, the source's footers and the model's facts into a [`Plan`]: shards, units, recipe
//! and fingerprint. Runs nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use arrow::datatypes::{Field, Fields};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    RunError,
    assemble::Recipe,
    encoders,
    shards::{PlannedShard, in_order, planned_shards},
    share::Share,
    sizes::memory_of_machine,
};
use crate::{
    config::{Compression, Pipeline, Precision, Weights},
    data::{Boundary, PatchRule, Unit, UnitId},
    figures::{megabytes, thousands},
    model::{self, ModelInfo, device::Kind},
    pretokenize::{Pretokenizer, pretokenizer},
    remote::{Pins, Scheme, scheme},
    schema::{SCHEMA_VERSION, TableOptions},
    sink::{self, Opening, PlanRecord, ShardEntry, SinkError, Space, Start, Storage},
    source::{RowReader, Shard, ShardFile, SourceError, agree_on_types, begin_keeping, cut, list_shards},
};

/// What a record calls the types of columns that come from the data itself.
const TYPES: &str = "source.types";

/// What a record calls the tokenizer that makes segments.
pub const TOKENIZER: &str = "pretokenize.text.tokenizer";

/// What a plan needs to know of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    /// What the pipeline file calls it.
    pub name: String,
    /// Width of the hidden state.
    pub dim: usize,
    /// Longest context in tokens.
    pub max_context: usize,
    /// Number of parameters.
    pub parameters: usize,
    /// SHA-256, hex, of configuration and weights.
    pub sha256: String,
    /// The model's own patch threshold, nats.
    pub threshold: Option<f32>,
    /// Commits of the Hub that were resolved so far, as [`PlanRecord::revisions`] has them.
    pub revisions: Pins,
    /// Where it runs.
    pub device: DeviceFacts,
}

/// What a plan needs to know of the device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceFacts {
    /// For people.
    pub name: String,
    /// Number format that it computes in.
    pub precision: Precision,
    /// Tokens that it takes in one go, where neither the pipeline file nor the output says.
    pub batch_tokens: usize,
    /// Bytes that everything on its way may hold, where the pipeline file does not say.
    pub memory: u64,
}

impl DeviceFacts {
    /// The processor.
    pub fn cpu() -> Self {
        Self {
            name: "cpu".into(),
            precision: Precision::F32,
            batch_tokens: model::CPU_BATCH_TOKENS,
            memory: Self::memory_beside(Kind::Cpu),
        }
    }

    /// What a run may hold beside such a device: 2 GiB, and beside a card of its own memory a quarter of the machine's,
    /// from 2 to 8 GiB. Its batches are so large, and so soon done, that the next unit must be there while those before it are
    /// patched and encoded.
    pub fn memory_beside(kind: Kind) -> u64 {
        match kind {
            Kind::DiscreteGpu | Kind::VirtualGpu => (memory_of_machine() / 4).clamp(2 << 30, 8 << 30),
            Kind::IntegratedGpu | Kind::Unknown | Kind::Cpu | Kind::Software => 2 << 30,
        }
    }
}

impl ModelFacts {
    /// The facts of the model that `weights` names.
    pub fn of(weights: &Weights, info: &ModelInfo, revisions: Pins, device: DeviceFacts) -> Self {
        let name = match weights {
            Weights::Embedded => "embedded".to_owned(),
            Weights::Path(path) => path.display().to_string(),
            Weights::Hub(address) => format!("hf://{}", address.repo),
        };
        ModelFacts {
            name,
            dim: info.config.dim,
            max_context: info.config.max_seqlen,
            parameters: info.n_parameters,
            sha256: info.sha256.clone(),
            threshold: info.threshold,
            revisions,
            device,
        }
    }
}

/// What an output was begun with, if it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begun {
    /// Number format of weights and activations.
    pub precision: Option<Precision>,
    /// Tokens of a full batch.
    pub batch_tokens: Option<usize>,
    /// Commits of the Hub that it keeps to.
    pub revisions: Pins,
}

/// Everything a run does, decided.
#[derive(Debug)]
pub struct Plan {
    /// The pipeline file.
    pub pipeline: Pipeline,
    /// The model.
    pub model: ModelFacts,
    /// Shards by index.
    pub shards: Vec<PlannedShard>,
    /// Units in plan order.
    pub units: Vec<Arc<Unit>>,
    /// What is made of the scores.
    pub recipe: Recipe,
    /// Tokens of a context.
    pub context: usize,
    /// Tokens that a context repeats from the one before.
    pub overlap: usize,
    /// Tokens of a full batch.
    pub batch_tokens: usize,
    /// Bytes that everything on its way may hold at once, the model not counted.
    pub memory: u64,
    /// What to do with work that lies in the output.
    pub start: Start,
    /// The part of the units that this process does; all of them without one.
    pub share: Option<Share>,
    /// What makes documents of rows.
    pub pretokenizer: Arc<dyn Pretokenizer>,
    output: Storage,
    absent: Vec<String>,
    /// What the output is identified by.
    pub record: PlanRecord,
    /// SHA-256, hex, of the record's schema version and meaning.
    pub fingerprint: String,
}

impl Plan {
    /// Lists the source, reads its footers and cuts units. Shards that the output has keep their place; new
    /// ones come after them, in the order of their names.
    ///
    /// # Errors
    /// [`RunError::Plan`] when the source has no such files or columns, or a key does not go together with
    /// the model or with this build; [`RunError::Sink`] when the output cannot be read.
    pub fn freeze(pipeline: Pipeline, model: ModelFacts, start: Start) -> Result<Plan, RunError> {
        Self::check_supported(&pipeline)?;
        let pretokenizer = pretokenizer(pipeline.source.modality, &pipeline.pretokenize, &pipeline.limits)
            .map_err(RunError::Plan)?;
        let output = Storage::open(&pipeline.sink.uri)?;
        let planned = match start {
            Start::Fresh => None,
            _ => sink::planned(&output)?,
        };
        let memory = pipeline.limits.memory.unwrap_or(model.device.memory);
        let (context, overlap, batch_tokens) = lengths(&pipeline, &model, planned.as_ref())?;
        let mut revisions = model.revisions.clone();
        revisions.extend(pins(planned.as_ref(), start));
        let files = list_shards(&pipeline.source, &pipeline.sink.uri, &mut revisions)?;
        let begun_types = planned.as_ref().and_then(|plan| plan.meaning.get(TYPES).cloned());
        let mut shards = planned_shards(&in_order(files, planned), &pipeline, memory)?;
        let absent = shards.iter().filter_map(|shard| match shard {
            PlannedShard::Absent(entry) => Some(entry.source_file.clone()),
            PlannedShard::Ready(_) | PlannedShard::Broken { .. } => None,
        });
        let absent = absent.collect();
        let ready = shards.iter_mut().filter_map(|shard| match shard {
            PlannedShard::Ready(shard) => Some(shard),
            PlannedShard::Broken { .. } | PlannedShard::Absent(_) => None,
        });
        let types = agree_on_types(ready, &pipeline.source, begun_types.as_ref())?;
        let units = units(&shards, pipeline.sink.unit_bytes.get(), pipeline.source.limit.map(|n| n.get()));
        let recipe = Recipe {
            rule: pipeline.patch.resolve(model.threshold),
            tables: TableOptions {
                dim: model.dim,
                embeddings: pipeline.sink.embeddings,
                embedding_dtype: pipeline.sink.embedding_dtype,
                entropies: pipeline.sink.entropies,
                norms: pipeline.sink.norms,
                views: pipeline.has_views(),
                carried: carried_fields(&shards)?,
            },
        };
        let broken = broken_before_limit(&shards, &units, pipeline.source.limit.map(|n| n.get()));
        let mut record =
            record(&pipeline, &model, &recipe.rule, (context, batch_tokens), &shards, &units, broken);
        record.revisions = revisions;
        if let Some(types) = types {
            record.meaning.insert(TYPES.into(), types);
        }
        if let Some(path) = &pipeline.pretokenize.text.tokenizer
            && let Some(named) = record.meaning.get_mut(TOKENIZER)
        {
            *named = tokenizer_hash(path).map_err(RunError::Plan)?.into();
        }
        let fingerprint = record.fingerprint()?;
        Ok(Plan {
            output,
            absent,
            pretokenizer,
            start,
            share: None,
            pipeline,
            model,
            shards,
            units,
            recipe,
            context,
            overlap,
            batch_tokens,
            memory,
            record,
            fingerprint,
        })
    }

    /// What the device is free to choose and the output of `pipeline` was begun with: it stays so.
    ///
    /// # Errors
    /// [`RunError::Sink`] when the output cannot be read.
    pub fn begun_with(pipeline: &Pipeline, start: Start) -> Result<Begun, RunError> {
        let planned = match start {
            Start::Fresh => None,
            _ => sink::planned(&Storage::open(&pipeline.sink.uri)?)?,
        };
        let key = |name: &str| planned.as_ref().and_then(|plan| plan.meaning.get(name));
        Ok(Begun {
            precision: key("model.precision").and_then(|name| serde_json::from_value(name.clone()).ok()),
            batch_tokens: key("model.batch_tokens").and_then(|n| n.as_u64()).map(|n| n as usize),
            revisions: pins(planned.as_ref(), start),
        })
    }

    /// Checks that this build has all that `pipeline` asks for, before anything is opened.
    ///
    /// # Errors
    /// [`RunError::Plan`] with everything that is missing, a line each.
    pub fn check_supported(pipeline: &Pipeline) -> Result<(), RunError> {
        let mut problems: Vec<String> = Vec::new();
        for uri in &pipeline.source.uris {
            match scheme(uri) {
                Err(problem) => problems.push(format!("source.uri = {uri:?}: {problem}")),
                Ok((Scheme::Local, _)) => {}
                Ok(_) if pipeline.source.resolve_paths => problems.push(format!(
                    "source.resolve_paths = true: {uri} does not lie on this machine, and files beside shards are read \
                     only there; download the folder first"
                )),
                Ok(_) => {}
            }
        }
        problems
            .extend(Storage::unsupported(&pipeline.sink.uri).map(|problem| format!("sink.uri = {problem}")));
        if problems.is_empty() { Ok(()) } else { Err(RunError::Plan(problems.join("\n"))) }
    }

    /// Where the output lies.
    pub fn output(&self) -> &Storage {
        &self.output
    }

    /// What this plan brings to its output.
    pub fn opening(&self) -> Opening<'_> {
        Opening { plan: &self.record, absent: &self.absent, start: self.start }
    }

    /// Checks that the output may be opened for this plan; writes nothing.
    ///
    /// # Errors
    /// [`RunError::Sink`] when it holds something else or cannot be read.
    pub fn check_output(&self) -> Result<(), RunError> {
        Ok(sink::admit(&self.output, self.opening())?)
    }

    /// How far the output is, in words; writes nothing.
    ///
    /// # Errors
    /// [`RunError::Sink`] when it holds something else or cannot be read.
    pub fn output_state(&self) -> Result<String, RunError> {
        Ok(sink::inspect(&self.output, self.opening())?)
    }

    /// Checks that the disk has room for what this process has yet to write, as far as that can be estimated; where the
    /// output goes to a store, for the units that wait for it.
    ///
    /// # Errors
    /// [`RunError::Sink`] with both figures when it has not, or when it cannot be asked.
    pub fn check_space(&self) -> Result<(), RunError> {
        let recorded = match self.start {
            Start::Fresh => BTreeSet::new(),
            Start::Resume | Start::Extend => sink::recorded_units(&self.output)?,
            // Only some units are done again; which ones, the quarantine decides.
            Start::Repair => return Ok(()),
        };
        let units = self.share_of_units();
        let left = units.iter().filter(|unit| !recorded.contains(&unit.id.to_string()));
        let mut content: Vec<u64> = left.map(|unit| self.scored_bytes(unit)).collect();
        let Space { folder, free, is_output } = sink::space(&self.output, self.start == Start::Fresh)?;
        if !is_output {
            content.sort_unstable_by(|a, b| b.cmp(a));
            content.truncate(encoders());
        }
        let needed: u64 = self.output_bytes(content.iter().sum()).iter().map(|(_, bytes)| bytes).sum();
        if needed <= free {
            return Ok(());
        }
        let (what, remedy) = match is_output {
            true => ("the output", "free some space, write less (sink.embeddings, sink.norms)"),
            false => (
                "what waits for the store at once",
                "free some space, name another folder by TMPDIR, choose a smaller sink.unit_bytes",
            ),
        };
        Err(RunError::Sink(SinkError::Refused(format!(
            "{what} will take about {}, but {} has room for {} only; {remedy}, or pass --no-space-check",
            megabytes(needed),
            folder.display(),
            megabytes(free)
        ))))
    }

    /// Content of `unit` that can become documents at most: longer rows go to quarantine.
    fn scored_bytes(&self, unit: &Unit) -> u64 {
        let rows = unit.rows.end - unit.rows.start;
        unit.content_bytes.min(rows.saturating_mul(self.pipeline.limits.max_document_bytes))
    }

    /// Units that this process does, in plan order.
    pub fn share_of_units(&self) -> Vec<Arc<Unit>> {
        match self.share {
            None => self.units.clone(),
            Some(share) => share.of(&self.units),
        }
    }

    /// Level of zstd, if the tables are compressed.
    pub fn zstd_level(&self) -> Option<i32> {
        match self.pipeline.sink.compression {
            Compression::None => None,
            Compression::Zstd(level) => Some(level),
        }
    }

    /// Opens the shard of `unit` to read `rows`.
    pub(super) fn open(&self, unit: &Unit, rows: &[Range<u64>]) -> Result<RowReader, SourceError> {
        let max_document_bytes = self.pipeline.limits.max_document_bytes;
        match self.shards.get(unit.id.shard as usize) {
            Some(PlannedShard::Ready(shard)) => {
                RowReader::open(shard, &self.pipeline.source, max_document_bytes, self.memory, rows)
            }
            _ => Err(SourceError::Plan(format!("unit {} has no shard", unit.id))),
        }
    }

    /// Begins to bring the shard of `unit`, which comes soon.
    pub(super) fn begin_keeping(&self, unit: &Unit) {
        if let Some(PlannedShard::Ready(shard)) = self.shards.get(unit.id.shard as usize) {
            begin_keeping(&shard.file, &self.pipeline.source);
        }
    }

    /// Source rows of all units.
    pub fn rows(&self) -> u64 {
        self.units.iter().map(|u| u.rows.end - u.rows.start).sum()
    }

    /// Content bytes of all units, as the footers tell them.
    pub fn content_bytes(&self) -> u64 {
        self.units.iter().map(|u| u.content_bytes).sum()
    }

    /// What a run would read and write, for people.
    ///
    /// # Errors
    /// As [`output_state`](Self::output_state).
    pub fn describe(&self) -> Result<String, RunError> {
        let state = self.output_state()?;
        let mut text = format!("{}\n", self.pipeline.name);
        let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<12}{value}\n"));
        line("source", self.pipeline.source.uris.join(", "));
        line("shards", self.shards.len().to_string());
        let unit_bytes = self.pipeline.sink.unit_bytes.get();
        line("units", format!("{}, of about {} of content at most", self.units.len(), megabytes(unit_bytes)));
        line("rows", thousands(self.rows()));
        line("content", megabytes(self.content_bytes()));
        if let Some(condition) = &self.pipeline.source.filter {
            line("where", condition.clone());
        }
        if let Some(types) = self.record.meaning.get(TYPES) {
            line("types", types.to_string());
        }
        let model = &self.model;
        line(
            "model",
            format!("{}, {} parameters, dim {}", model.name, thousands(model.parameters as u64), model.dim),
        );
        line(
            "device",
            format!(
                "{}, {}, {} tokens a batch",
                model.device.name,
                model.device.precision.name(),
                self.batch_tokens
            ),
        );
        line("patches", self.describe_rule());
        line("output", format!("{} ({state})", self.output.root().display()));
        for (table, bytes) in self.output_bytes(self.content_bytes()) {
            line("", format!("{:<12}about {}", table.name(), megabytes(bytes)));
        }
        for (_, _, reason) in self.broken() {
            line("unreadable", reason.to_owned());
        }
        text.push_str(&format!("  {:<12}{}", "fingerprint", self.fingerprint));
        Ok(text)
    }

    fn describe_rule(&self) -> String {
        let rule = match self.recipe.rule.boundary {
            Boundary::Above { threshold } => format!("entropy above {threshold} nats"),
            Boundary::AboveAndRising { threshold, rise } => {
                format!("entropy above {threshold} nats and {rise} above the last")
            }
            Boundary::Rising { threshold } => format!("entropy {threshold} nats above the last"),
            Boundary::TopK { patch_size } => format!("highest entropies, {patch_size} tokens a patch"),
            Boundary::Space => "after space-like bytes".into(),
            Boundary::Static { patch_size } => format!("every {patch_size} tokens"),
            Boundary::Byte => "every byte".into(),
        };
        match self.recipe.rule.max_patch_length {
            Some(n) => format!("{rule}, at most {n} tokens"),
            None => rule,
        }
    }

    /// Shards that could not be read, with their index and why. Those that a limit ends before don't count.
    pub(super) fn broken(&self) -> impl Iterator<Item = (usize, &ShardFile, &str)> {
        let limit = self.pipeline.source.limit.map(|n| n.get());
        let end = broken_before_limit(&self.shards, &self.units, limit);
        self.shards.iter().enumerate().take(end).filter_map(|(index, shard)| match shard {
            PlannedShard::Ready(_) | PlannedShard::Absent(_) => None,
            PlannedShard::Broken { file, reason, .. } => Some((index, file, reason.as_str())),
        })
    }
}

/// The shard at which a limit ends, or the number of shards: what cannot be read from there on is not needed.
fn broken_before_limit(shards: &[PlannedShard], units: &[Arc<Unit>], limit: Option<u64>) -> usize {
    let absent: u64 = shards.iter().map(|s| if let PlannedShard::Absent(e) = s { e.rows } else { 0 }).sum();
    let rows: u64 = units.iter().map(|u| u.rows.end - u.rows.start).sum();
    match units.last() {
        Some(last) if limit == Some(rows + absent) => last.id.shard as usize,
        _ => shards.len(),
    }
}

/// Commits of the Hub that an output keeps to. Who extends it takes the data that there is now, and the same model.
/// What a record says of the tokenizer in the file at `path`: what it is counts, not where it lies.
///
/// # Errors
/// When it cannot be read.
pub fn tokenizer_hash(path: &str) -> Result<String, String> {
    let file =
        std::fs::read(path).map_err(|error| format!("{TOKENIZER} = {path:?}: failed to read it: {error}"))?;
    Ok(format!("sha256:{:x}", Sha256::digest(file)))
}

fn pins(planned: Option<&PlanRecord>, start: Start) -> Pins {
    match (planned, start) {
        (Some(planned), Start::Resume | Start::Repair) => planned.revisions.clone(),
        (Some(planned), Start::Extend) => {
            let of_model = planned.revisions.iter().filter(|(name, _)| !name.starts_with("datasets/"));
            of_model.map(|(name, commit)| (name.clone(), commit.clone())).collect()
        }
        (_, Start::Fresh) | (None, _) => Pins::new(),
    }
}

fn threshold(rule: &PatchRule) -> Option<f32> {
    match rule.boundary {
        Boundary::Above { threshold }
        | Boundary::AboveAndRising { threshold, .. }
        | Boundary::Rising { threshold } => Some(threshold),
        _ => None,
    }
}

/// Context, overlap and batch in tokens. A batch that the device is free to choose stays what an output was
/// begun with.
fn lengths(
    pipeline: &Pipeline,
    model: &ModelFacts,
    planned: Option<&PlanRecord>,
) -> Result<(usize, usize, usize), RunError> {
    let refuse = |problem: String| Err(RunError::Plan(problem));
    let context = pipeline.model.context.map_or(model.max_context, |n| n.get() as usize);
    let overlap = pipeline.model.overlap as usize;
    if context > model.max_context {
        return refuse(format!(
            "model.context = {context}: the model {} takes at most {} tokens",
            model.name, model.max_context
        ));
    }
    if overlap >= context {
        return refuse(format!(
            "model.overlap = {overlap}: it must be below the context of {context} tokens"
        ));
    }
    let batch_tokens = match pipeline.model.batch_tokens {
        None => planned
            .and_then(|plan| plan.meaning.get("model.batch_tokens")?.as_u64())
            .map(|n| n as usize)
            .filter(|&n| n >= context)
            .unwrap_or_else(|| model.device.batch_tokens.max(context)),
        Some(n) => n.get() as usize,
    };
    if batch_tokens < context {
        return refuse(format!(
            "model.batch_tokens = {batch_tokens}: a batch must hold a whole context, {context} tokens"
        ));
    }
    Ok((context, overlap, batch_tokens))
}

fn units(shards: &[PlannedShard], unit_bytes: u64, limit: Option<u64>) -> Vec<Arc<Unit>> {
    let mut units = Vec::new();
    let mut left = limit.unwrap_or(u64::MAX);
    for (index, shard) in shards.iter().enumerate() {
        let shard = match shard {
            PlannedShard::Ready(shard) => shard,
            PlannedShard::Broken { .. } => continue,
            PlannedShard::Absent(entry) => {
                left = left.saturating_sub(entry.rows);
                continue;
            }
        };
        let source_file: Arc<str> = shard.file.source_file.as_str().into();
        for (number, cut) in cut(&shard.row_groups, unit_bytes).into_iter().enumerate() {
            if left == 0 {
                return units;
            }
            let all = cut.rows.end - cut.rows.start;
            let taken = all.min(left);
            left -= taken;
            let share = |bytes: u64| (u128::from(bytes) * u128::from(taken) / u128::from(all)) as u64;
            units.push(Arc::new(Unit {
                id: UnitId { shard: index as u32, unit: number as u32 },
                source_file: source_file.clone(),
                rows: cut.rows.start..cut.rows.start + taken,
                content_bytes: share(cut.content_bytes),
                carried_bytes: share(cut.carried_bytes),
            }));
        }
    }
    units
}

/// Carried columns must be the same in every shard, since they share a table. Any of them may be null.
fn carried_fields(shards: &[PlannedShard]) -> Result<Fields, RunError> {
    let mut first: Option<&Shard> = None;
    for shard in shards {
        let PlannedShard::Ready(shard) = shard else {
            continue;
        };
        let expected = first.get_or_insert(shard);
        for (a, b) in expected.carried.iter().zip(&shard.carried) {
            if a.data_type() != b.data_type() {
                return Err(RunError::Plan(format!(
                    "source.carry: column {} is {} in {} and {} in {}",
                    a.name(),
                    a.data_type(),
                    expected.file.path.display(),
                    b.data_type(),
                    shard.file.path.display()
                )));
            }
        }
    }
    let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
    Ok(first.map_or_else(Fields::empty, |shard| shard.carried.iter().map(nullable).collect()))
}

fn record(
    pipeline: &Pipeline,
    model: &ModelFacts,
    rule: &PatchRule,
    (context, batch_tokens): (usize, usize),
    shards: &[PlannedShard],
    units: &[Arc<Unit>],
    limit_ends_at: usize,
) -> PlanRecord {
    let mut meaning: BTreeMap<String, Value> = pipeline.meaning().into_iter().collect();
    meaning.insert("model.sha256".into(), model.sha256.clone().into());
    meaning.insert("model.precision".into(), model.device.precision.name().into());
    meaning.insert("model.dim".into(), model.dim.into());
    meaning.insert("model.context".into(), context.into());
    meaning.insert("model.batch_tokens".into(), batch_tokens.into());
    meaning.insert("patch.threshold".into(), threshold(rule).into());
    let mut by_shard: BTreeMap<u32, (u64, u32, u64)> = BTreeMap::new();
    for unit in units {
        let (rows, n_units, content_bytes) = by_shard.entry(unit.id.shard).or_default();
        *rows += unit.rows.end - unit.rows.start;
        *n_units += 1;
        *content_bytes += unit.content_bytes;
    }
    let entry = |(index, shard): (usize, &PlannedShard)| {
        let (identity, unreadable) = match shard {
            PlannedShard::Ready(shard) => (&shard.identity, false),
            PlannedShard::Broken { identity, .. } => (identity, index < limit_ends_at),
            PlannedShard::Absent(entry) => return entry.clone(),
        };
        let (rows, units, content_bytes) = by_shard.get(&(index as u32)).copied().unwrap_or_default();
        ShardEntry {
            source_file: shard.source_file().to_owned(),
            bytes: identity.bytes,
            footer_sha256: identity.footer_sha256.clone(),
            rows,
            units,
            content_bytes,
            unreadable,
        }
    };
    let shards = shards.iter().enumerate().map(entry).collect();
    let (earlier, revisions) = (Vec::new(), Pins::new());
    PlanRecord { schema_version: SCHEMA_VERSION.into(), meaning, shards, earlier, revisions }
}
