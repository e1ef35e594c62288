//! The output tables: their columns, and how a patched unit becomes record batches. Knows nothing of
//! files.

use std::{collections::HashMap, fmt, ops::Range, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, DictionaryArray, FixedSizeListArray, Float16Array, Float32Array, ListArray,
        StringArray, StructArray, UInt8Array, UInt32Array, UInt64Array,
    },
    buffer::{NullBuffer, OffsetBuffer, ScalarBuffer},
    compute::take_record_batch,
    datatypes::{DataType, Field, Fields, Int32Type, Schema, SchemaRef},
    error::ArrowError,
    record_batch::RecordBatch,
};
use serde_json::{Value, json};

use crate::{
    config::{EmbeddingDtype, Embeddings},
    data::{EmbeddingValues, PatchColumns, PatchedUnit, Rejected, SOURCE_ID, SegmentedBatch},
};

/// Version of the output tables, in the metadata of every file under [`VERSION_KEY`].
pub const SCHEMA_VERSION: &str = "1";
/// Metadata key of the schema version.
pub const VERSION_KEY: &str = "blt_pipeline.schema_version";
/// Metadata key of the table's name.
pub const TABLE_KEY: &str = "blt_pipeline.table";

/// An output table; each has a folder of its name in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// A row a document.
    Documents,
    /// A row a patch with at least one byte.
    Patches,
    /// A row a byte.
    Bytes,
    /// A row a source row that could not be processed.
    Quarantine,
}

impl Table {
    /// All of them, in the order in which they are described.
    pub const ALL: [Table; 4] = [Table::Documents, Table::Patches, Table::Bytes, Table::Quarantine];

    /// The table's name and the name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Table::Documents => "documents",
            Table::Patches => "patches",
            Table::Bytes => "bytes",
            Table::Quarantine => "quarantine",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which columns the tables of one output have.
#[derive(Clone, Debug, PartialEq)]
pub struct TableOptions {
    /// Width of an embedding.
    pub dim: usize,
    /// Where embeddings are written.
    pub embeddings: Embeddings,
    /// Their type.
    pub embedding_dtype: EmbeddingDtype,
    /// Whether `entropies` is written.
    pub entropies: bool,
    /// Whether `norms` and `norm_mean` are written.
    pub norms: bool,
    /// Whether a row may have several documents, each a view of it, and `source_id` is written.
    pub views: bool,
    /// Fields of the carried columns.
    pub carried: Fields,
}

struct Column {
    field: Field,
    meaning: &'static str,
}

fn column(name: &str, data_type: DataType, nullable: bool, meaning: &'static str) -> Column {
    Column { field: Field::new(name, data_type, nullable), meaning }
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, false)))
}

fn segment_fields() -> Fields {
    Fields::from(vec![
        Field::new("kind", DataType::Utf8, false),
        Field::new("start", DataType::UInt64, false),
        Field::new("end", DataType::UInt64, false),
        Field::new("meta", DataType::Utf8, true),
    ])
}

fn embedding_type(options: &TableOptions) -> DataType {
    let item = match options.embedding_dtype {
        EmbeddingDtype::F16 => DataType::Float16,
        EmbeddingDtype::F32 => DataType::Float32,
    };
    DataType::FixedSizeList(Arc::new(Field::new("item", item, false)), options.dim as i32)
}

fn doc_id() -> Column {
    column(
        "doc_id",
        DataType::Utf8,
        false,
        "the id column (integers in decimal), else or when null <file>#<row>; not unique",
    )
}

fn source_key() -> [Column; 2] {
    let file = "path of the shard below the longest wildcard-free folder of source.uri, '/'-separated; with source_row the true key";
    [
        column("source_file", DataType::Utf8, false, file),
        column("source_row", DataType::UInt64, false, "row number in the shard, from 0"),
    ]
}

fn columns(table: Table, options: &TableOptions) -> Vec<Column> {
    let mut columns = Vec::new();
    if table != Table::Quarantine {
        columns.push(doc_id());
    }
    if table == Table::Documents && options.views {
        let meaning = "doc_id of the row that this is a view of; a further view has a doc_id of its own, `<source_id>/<view>`";
        columns.push(column(SOURCE_ID, DataType::Utf8, false, meaning));
    }
    columns.extend(source_key());
    match table {
        Table::Documents => {
            columns.extend([
                column(
                    "modality",
                    DataType::Utf8,
                    false,
                    "text, image, audio, code, document, binary or raw",
                ),
                column("n_bytes", DataType::UInt64, false, "bytes given to the model"),
                column(
                    "segments",
                    list_of(DataType::Struct(segment_fields())),
                    false,
                    "pretokenizer segments, which tile the bytes; start and end in bytes, end excluded; kind and meta, a JSON object or null, by modality below",
                ),
            ]);
            if options.entropies {
                columns.push(column(
                    "entropies",
                    list_of(DataType::Float32),
                    false,
                    "n_bytes + 2 values in nats: [j] is the entropy of the prediction made after token j, so for j < n_bytes the uncertainty about byte j",
                ));
            }
            if options.norms {
                columns.push(column(
                    "norms",
                    list_of(DataType::Float32),
                    false,
                    "n_bytes + 2 values: L2 norm of the hidden state before the final norm at token j (BOS is token 0, byte j token j + 1)",
                ));
            }
            columns.push(column(
                "patch_lengths",
                list_of(DataType::UInt32),
                false,
                "patch lengths in tokens, BOS and EOS included; they sum to n_bytes + 2",
            ));
            if options.embeddings == Embeddings::Document {
                columns.push(column(
                    "embedding",
                    embedding_type(options),
                    true,
                    "mean over the bytes of the hidden state before the final norm; null for no bytes",
                ));
            }
        }
        Table::Patches => {
            columns.extend([
                column("patch", DataType::UInt32, false, "number of the patch in its document, from 0"),
                column("start", DataType::UInt64, false, "first byte in the document"),
                column(
                    "length",
                    DataType::UInt64,
                    false,
                    "bytes, at least 1; the patches of a document tile [0, n_bytes)",
                ),
                column(
                    "entropy_start",
                    DataType::Float32,
                    false,
                    "entropies[start], nats: the uncertainty about the first byte",
                ),
                column(
                    "entropy_mean",
                    DataType::Float32,
                    false,
                    "mean of entropies[start .. start + length], nats",
                ),
            ]);
            if options.norms {
                columns.push(column(
                    "norm_mean",
                    DataType::Float32,
                    false,
                    "mean L2 norm over tokens start + 1 ..= start + length",
                ));
            }
            if options.embeddings == Embeddings::Patch {
                columns.push(column(
                    "embedding",
                    embedding_type(options),
                    false,
                    "mean over tokens start + 1 ..= start + length of the hidden state before the final norm",
                ));
            }
        }
        Table::Bytes => {
            columns.extend([
                column("byte", DataType::UInt64, false, "position of the byte in the document"),
                column("value", DataType::UInt8, false, "the byte"),
                column(
                    "entropy",
                    DataType::Float32,
                    false,
                    "entropies[byte], nats: the uncertainty about this byte",
                ),
            ]);
            if options.norms {
                columns.push(column(
                    "norm",
                    DataType::Float32,
                    false,
                    "norms[byte + 1]: L2 norm at this byte's token",
                ));
            }
            columns.push(column(
                "embedding",
                embedding_type(options),
                false,
                "hidden state before the final norm at this byte's token",
            ));
        }
        Table::Quarantine => columns.extend([
            doc_id(),
            column("stage", DataType::Utf8, false, "station that gave the row up"),
            column("reason", DataType::Utf8, false, "what was wrong with it"),
        ]),
    }
    columns
}

/// Arrow schema of a table as readers see it, with the schema version in its metadata.
pub fn schema(table: Table, options: &TableOptions) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> =
        columns(table, options).into_iter().map(|c| Arc::new(c.field)).collect();
    if table == Table::Documents {
        fields.extend(options.carried.iter().cloned());
    }
    let metadata = [(VERSION_KEY, SCHEMA_VERSION), (TABLE_KEY, table.name())];
    let metadata: HashMap<String, String> = metadata.map(|(k, v)| (k.into(), v.into())).into();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// A table's columns as JSON for readers: name, type, nullability and meaning.
pub fn describe(table: Table) -> Value {
    let embeddings = match table {
        Table::Documents => Embeddings::Document,
        Table::Bytes => Embeddings::Byte,
        Table::Patches | Table::Quarantine => Embeddings::Patch,
    };
    let options = TableOptions {
        dim: 0,
        embeddings,
        embedding_dtype: EmbeddingDtype::F16,
        entropies: true,
        norms: true,
        views: true,
        carried: Fields::empty(),
    };
    let when = |name: &str| match (table, name) {
        (Table::Documents, "source_id") => {
            Some("pretokenize.document.views names more than one view, or \"image\"")
        }
        (Table::Documents, "embedding") => Some("sink.embeddings = \"document\""),
        (Table::Patches, "embedding") => Some("sink.embeddings = \"patch\""),
        (Table::Documents, "entropies") => Some("sink.entropies = true"),
        (_, "norms" | "norm_mean" | "norm") => Some("sink.norms = true"),
        _ => None,
    };
    let mut fields = Vec::new();
    for Column { field, meaning } in columns(table, &options) {
        let mut entry = json!({
            "name": field.name(),
            "type": type_name(field.data_type()),
            "nullable": field.is_nullable(),
            "meaning": meaning,
        });
        if let Some(when) = when(field.name()) {
            entry["only_when"] = when.into();
        }
        if field.name() == "segments" {
            entry["modalities"] = segment_kinds();
        }
        fields.push(entry);
    }
    if table == Table::Documents {
        fields.push(json!({
            "name": "<each column of source.carry>",
            "type": "as in the source",
            "nullable": true,
            "meaning": "the source row's own value",
        }));
    }
    let rows = match table {
        Table::Documents => {
            "a row a document, in source order within a file: a source row that is neither filtered nor in quarantine"
        }
        Table::Patches => "a row a patch that holds at least one byte; documents and patches in order",
        Table::Bytes => "a row a byte, only for sink.embeddings = \"byte\"; documents and bytes in order",
        Table::Quarantine => "a row a source row that could not be processed",
    };
    json!({
        "table": table.name(),
        "schema_version": SCHEMA_VERSION,
        "files": format!("{table}/<shard>-<unit>-<hash8>.parquet"),
        "rows": rows,
        "fields": fields,
    })
}

/// What segments there are: for each modality the kinds, in groups that have the same keys in `meta`, and what these say. A key whose
/// name ends in `?` may be missing.
fn segment_kinds() -> Value {
    json!({
        "text": [
            { "kinds": ["text", "paragraph", "sentence"], "meta": null },
            { "kinds": ["token"], "meta": {
                "id?": "of the token",
                "ids?": "in its place, of tokens that share a character",
            } },
            { "kinds": ["rest"], "meta": null },
        ],
        "image": [
            { "kinds": ["patch"], "meta": {
                "x": "left edge of the rectangle whose pixels the bytes are, row by row; in pixels of the picture turned as its file says and made smaller to max_side",
                "y": "its upper edge",
                "w": "its width",
                "h": "its height",
            } },
        ],
        "audio": [
            { "kinds": ["frame"], "meta": {
                "start": "of the frame, in seconds",
                "length": "in seconds",
                "channel": "from 0",
                "rate": "samples a second",
            } },
        ],
        "code": [
            {
                "kinds": [
                    "function", "method", "class", "struct", "enum", "union", "interface", "trait", "impl", "module",
                    "macro", "constant", "variable", "type", "import", "rest",
                ],
                "meta": {
                    "name?": "of the item; missing where it has none, or one that is not UTF-8 or longer than 256 bytes",
                    "language": "rust, python, c, cpp, javascript, typescript, tsx, java, go, the row's own word for another, or null",
                    "lines": "the first and the last one, from 1",
                },
            },
        ],
        "document": [
            { "kinds": ["page"], "meta": {
                "page": "number of the page, from 1",
                "unknown?": "glyphs whose character the file does not tell, each U+FFFD; missing where there are none",
            } },
            { "kinds": ["raw"], "meta": null },
        ],
        "binary": [
            { "kinds": ["section", "header"], "meta": {
                "name?": "as the file calls it; missing where it is not UTF-8 or longer than 16 KiB",
                "format": "elf, pe or mach-o",
                "arch?": "of a Mach-O file of several: the architecture",
            } },
            { "kinds": ["gap"], "meta": null },
        ],
        "video": [
            { "kinds": ["patch"], "meta": {
                "x": "as of an image, of the picture made smaller to pretokenize.video.size",
                "y": "likewise",
                "w": "likewise",
                "h": "likewise",
                "frame": "number of the picture, from 0",
                "t": "its time, in seconds from the start of the track of pictures",
            } },
            { "kinds": ["frame"], "meta": {
                "start": "of the frame of sound, in seconds from there; negative before it",
                "length": "in seconds",
                "channel": "from 0",
                "rate": "samples a second",
            } },
        ],
        "raw": [
            { "kinds": ["raw"], "meta": null },
        ],
    })
}

/// A type's name for people.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "string".into(),
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        // A table's description is for models of any width.
        DataType::FixedSizeList(item, 0) => format!("fixed_size_list<{}, dim>", type_name(item.data_type())),
        DataType::FixedSizeList(item, n) => format!("fixed_size_list<{}, {n}>", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|f| format!("{}: {}", f.name(), type_name(f.data_type()))).collect();
            format!("struct<{}>", fields.join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}

/// A batch of `table`; repeated strings may come as dictionaries.
fn record_batch(
    table: Table,
    options: &TableOptions,
    arrays: Vec<ArrayRef>,
) -> Result<RecordBatch, ArrowError> {
    let plain = schema(table, options);
    let fields = plain.fields().iter().zip(&arrays);
    let fields: Vec<Field> =
        fields.map(|(f, a)| f.as_ref().clone().with_data_type(a.data_type().clone())).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

/// Record batches of `documents`, `patches`, `bytes` and `quarantine` for one unit, in this order;
/// tables without rows are left out.
///
/// # Errors
/// When the unit's columns disagree with each other or with `options`.
pub fn batches(unit: PatchedUnit, options: &TableOptions) -> Result<Vec<(Table, RecordBatch)>, ArrowError> {
    let PatchedUnit {
        batch,
        entropies,
        norms,
        patch_lengths,
        patch_lengths_per_document,
        patches,
        embeddings,
    } = unit;
    let mut embedding = match embeddings {
        None => None,
        Some(EmbeddingValues::F16(values)) => Some(Arc::new(Float16Array::from(values)) as ArrayRef),
        Some(EmbeddingValues::F32(values)) => Some(Arc::new(Float32Array::from(values)) as ArrayRef),
    };
    let mut out = Vec::new();
    let entropies = Float32Array::from(entropies);
    let norms = norms.map(Float32Array::from);

    if options.embeddings == Embeddings::Byte && batch.documents.iter().any(|d| !d.bytes.is_empty()) {
        let values = take_embedding(&mut embedding)?;
        out.push((Table::Bytes, byte_rows(&batch, &entropies, norms.as_ref(), values, options)?));
    }
    if !patches.start.is_empty() {
        let PatchColumns { per_document, start, length, entropy_start, entropy_mean, norm_mean } = patches;
        let mut numbers = Vec::with_capacity(start.len());
        for &n in &per_document {
            numbers.extend(0..n as u32);
        }
        let mut arrays = document_keys(&batch, &per_document)?;
        arrays.push(Arc::new(UInt32Array::from(numbers)));
        arrays.push(Arc::new(UInt64Array::from(start)));
        arrays.push(Arc::new(UInt64Array::from(length)));
        arrays.push(Arc::new(Float32Array::from(entropy_start)));
        arrays.push(Arc::new(Float32Array::from(entropy_mean)));
        if options.norms {
            arrays.push(Arc::new(Float32Array::from(norm_mean.ok_or_else(|| missing("norm_mean"))?)));
        }
        if options.embeddings == Embeddings::Patch {
            arrays.push(fixed_size_list(take_embedding(&mut embedding)?, None, options)?);
        }
        out.push((Table::Patches, record_batch(Table::Patches, options, arrays)?));
    }
    if !batch.documents.is_empty() {
        let lengths = (patch_lengths, patch_lengths_per_document);
        let document_embedding = match options.embeddings {
            Embeddings::Document => Some(take_embedding(&mut embedding)?),
            _ => None,
        };
        out.push((
            Table::Documents,
            document_rows(&batch, entropies, norms, lengths, document_embedding, options)?,
        ));
    }
    if !batch.rejected.is_empty() {
        let arrays = quarantine_rows(&batch.unit.source_file, &batch.rejected);
        out.push((Table::Quarantine, record_batch(Table::Quarantine, options, arrays)?));
    }
    out.sort_by_key(|(table, _)| *table);
    Ok(out)
}

fn missing(column: &str) -> ArrowError {
    ArrowError::InvalidArgumentError(format!("the unit has no column {column}, though it is asked for"))
}

fn take_embedding(embedding: &mut Option<ArrayRef>) -> Result<ArrayRef, ArrowError> {
    embedding.take().ok_or_else(|| missing("embedding"))
}

/// Dictionary array with one value for every row.
fn constant(value: &str, rows: usize) -> ArrayRef {
    let keys = ScalarBuffer::from(vec![0i32; rows]);
    dictionary(keys, StringArray::from(vec![value]))
}

fn dictionary(keys: ScalarBuffer<i32>, values: StringArray) -> ArrayRef {
    let keys = arrow::array::PrimitiveArray::<Int32Type>::new(keys, None);
    Arc::new(DictionaryArray::new(keys, Arc::new(values)))
}

/// `doc_id`, `source_file` and `source_row` for tables with `rows[d]` rows for document `d`.
fn document_keys(batch: &SegmentedBatch, rows: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
    let total = rows.iter().sum();
    let mut ids = Vec::with_capacity(total);
    let mut source_rows = Vec::with_capacity(total);
    for (index, (document, &n)) in batch.documents.iter().zip(rows).enumerate() {
        ids.resize(ids.len() + n, index as i32);
        source_rows.resize(source_rows.len() + n, document.source_row);
    }
    let doc_ids = StringArray::from_iter_values(batch.documents.iter().map(|d| &d.doc_id));
    Ok(vec![
        dictionary(ids.into(), doc_ids),
        constant(&batch.unit.source_file, total),
        Arc::new(UInt64Array::from(source_rows)),
    ])
}

fn document_rows(
    batch: &SegmentedBatch,
    entropies: Float32Array,
    norms: Option<Float32Array>,
    (patch_lengths, per_document): (Vec<u32>, Vec<usize>),
    embedding: Option<ArrayRef>,
    options: &TableOptions,
) -> Result<RecordBatch, ArrowError> {
    let documents = &batch.documents;
    let token_lengths = || documents.iter().map(|d| d.n_tokens());
    let mut arrays: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from_iter_values(documents.iter().map(|d| &d.doc_id)))];
    if options.views {
        arrays.push(Arc::new(StringArray::from_iter_values(documents.iter().map(|d| &d.source_id))));
    }
    arrays.extend([
        constant(&batch.unit.source_file, documents.len()),
        Arc::new(UInt64Array::from_iter_values(documents.iter().map(|d| d.source_row))),
        modalities(batch),
        Arc::new(UInt64Array::from_iter_values(documents.iter().map(|d| d.bytes.len() as u64))),
        segments(batch)?,
    ]);
    if options.entropies {
        arrays.push(list(Arc::new(entropies), token_lengths())?);
    }
    if options.norms {
        arrays.push(list(Arc::new(norms.ok_or_else(|| missing("norms"))?), token_lengths())?);
    }
    arrays.push(list(Arc::new(UInt32Array::from(patch_lengths)), per_document.into_iter())?);
    if let Some(values) = embedding {
        let present: NullBuffer = documents.iter().map(|d| !d.bytes.is_empty()).collect::<Vec<bool>>().into();
        arrays.push(fixed_size_list(values, Some(present), options)?);
    }
    if let Some(carried) = &batch.carried {
        let first = batch.unit.rows.start;
        let kept = UInt64Array::from_iter_values(documents.iter().map(|d| d.source_row - first));
        arrays.extend(take_record_batch(carried, &kept)?.columns().iter().cloned());
    }
    record_batch(Table::Documents, options, arrays)
}

fn modalities(batch: &SegmentedBatch) -> ArrayRef {
    let mut names: Vec<&'static str> = Vec::new();
    let mut keys = Vec::with_capacity(batch.documents.len());
    for document in &batch.documents {
        let key = names.iter().position(|&n| n == document.modality).unwrap_or_else(|| {
            names.push(document.modality);
            names.len() - 1
        });
        keys.push(key as i32);
    }
    dictionary(keys.into(), StringArray::from(names))
}

fn segments(batch: &SegmentedBatch) -> Result<ArrayRef, ArrowError> {
    let all = || batch.documents.iter().flat_map(|d| &d.segments);
    let fields: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(all().map(|s| s.kind))),
        Arc::new(UInt64Array::from_iter_values(all().map(|s| s.bytes.start))),
        Arc::new(UInt64Array::from_iter_values(all().map(|s| s.bytes.end))),
        Arc::new(StringArray::from_iter(all().map(|s| s.meta.as_deref()))),
    ];
    let values = StructArray::try_new(segment_fields(), fields, None)?;
    list(Arc::new(values), batch.documents.iter().map(|d| d.segments.len()))
}

fn offsets(lengths: impl Iterator<Item = usize>) -> Result<OffsetBuffer<i32>, ArrowError> {
    let mut end = 0i32;
    let mut offsets = vec![0];
    for length in lengths {
        end = i32::try_from(length).ok().and_then(|n| end.checked_add(n)).ok_or_else(|| {
            ArrowError::InvalidArgumentError("a unit of more than 2^31 tokens; lower sink.unit_bytes".into())
        })?;
        offsets.push(end);
    }
    Ok(OffsetBuffer::new(offsets.into()))
}

fn list(values: ArrayRef, lengths: impl Iterator<Item = usize>) -> Result<ArrayRef, ArrowError> {
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    Ok(Arc::new(ListArray::try_new(item, offsets(lengths)?, values, None)?))
}

/// A row for each run of `dim` values; null where `present` says so.
fn fixed_size_list(
    values: ArrayRef,
    present: Option<NullBuffer>,
    options: &TableOptions,
) -> Result<ArrayRef, ArrowError> {
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    Ok(Arc::new(FixedSizeListArray::try_new(item, options.dim as i32, values, present)?))
}

fn byte_rows(
    batch: &SegmentedBatch,
    entropies: &Float32Array,
    norms: Option<&Float32Array>,
    embedding: ArrayRef,
    options: &TableOptions,
) -> Result<RecordBatch, ArrowError> {
    let per_document: Vec<usize> = batch.documents.iter().map(|d| d.bytes.len()).collect();
    let total = per_document.iter().sum();
    let (mut positions, mut values) = (Vec::with_capacity(total), Vec::with_capacity(total));
    let (mut entropy, mut norm) = (Vec::with_capacity(total), Vec::with_capacity(total));
    let mut first = 0;
    for document in &batch.documents {
        let n = document.bytes.len();
        positions.extend(0..n as u64);
        values.extend_from_slice(&document.bytes);
        entropy.extend_from_slice(token_range(entropies, first..first + n)?);
        if let Some(norms) = norms {
            norm.extend_from_slice(token_range(norms, first + 1..first + 1 + n)?);
        }
        first += document.n_tokens();
    }
    let mut arrays = document_keys(batch, &per_document)?;
    arrays.push(Arc::new(UInt64Array::from(positions)));
    arrays.push(Arc::new(UInt8Array::from(values)));
    arrays.push(Arc::new(Float32Array::from(entropy)));
    if options.norms {
        arrays.push(Arc::new(Float32Array::from(norm)));
    }
    arrays.push(fixed_size_list(embedding, None, options)?);
    record_batch(Table::Bytes, options, arrays)
}

fn token_range(values: &Float32Array, range: Range<usize>) -> Result<&[f32], ArrowError> {
    values.values().get(range).ok_or_else(|| missing("entropies or norms of every token"))
}

fn quarantine_rows(source_file: &str, rejected: &[Rejected]) -> Vec<ArrayRef> {
    vec![
        constant(source_file, rejected.len()),
        Arc::new(UInt64Array::from_iter_values(rejected.iter().map(|r| r.source_row))),
        Arc::new(StringArray::from_iter_values(rejected.iter().map(|r| &r.doc_id))),
        Arc::new(StringArray::from_iter_values(rejected.iter().map(|r| r.stage))),
        Arc::new(StringArray::from_iter_values(rejected.iter().map(|r| &r.reason))),
    ]
}
