//! `inspect`: finds one document in a file, a shard or an output, has it scored unless it was, and shows it. Draws nothing itself.

use std::{
    fs::File,
    io::{self, IsTerminal},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Float32Type, UInt32Type, UInt64Type},
};
use blt_pipeline::{
    config::{Overrides, Pipeline, Weights},
    data::{BOS, BYTE_OFFSET, Content, EOS, Segment, Unit, UnitId, View, Wanted},
    inspect::{self, Inspected, Terminal},
    model::{self, CpuModel, score_documents},
    patch::patch_lengths,
    pipeline::{TOKENIZER, tokenizer_hash, views_of},
    pretokenize::pretokenizer,
    remote::Pins,
    sink::{Ledger, PlanRecord, ShardEntry, Storage},
    source::{RowReader, SourceError, list_shards, open_shard},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::{EXIT_DATA, Failure, cli::InspectArgs, print};

/// Tokens that the model sees in one go.
const BATCH_TOKENS: usize = 8192;
/// Longest side of a picture that is scored, unless the settings say otherwise: larger ones would take minutes.
const MAX_SIDE: &str = "pretokenize.image.max_side=256";
/// Endings of files that hold rows.
const TABLES: [&str; 7] = ["parquet", "jsonl", "ndjson", "jsonl.gz", "ndjson.gz", "jsonl.zst", "ndjson.zst"];

pub(crate) fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let (document, n_left) = match output_at(&args.target)? {
        Some((output, ledger)) => (of_output(args, &output, &ledger)?, 0),
        None if args.target.is_dir() => {
            let target = args.target.display();
            return Err(Failure::plan(format!(
                "{target} is a folder, and holds no output; name a file in it"
            )));
        }
        None => of_file(args)?,
    };
    document.check().map_err(|problem| Failure { code: EXIT_DATA, message: problem })?;
    if n_left > 0 {
        tracing::info!("{n_left} more bytes are not scored; --bytes takes more");
    }
    match &args.html {
        Some(path) => std::fs::write(path, inspect::html(&document))
            .map_err(|error| Failure::plan(format!("--html: failed to write {}: {error}", path.display()))),
        None => print(&inspect::terminal(&document, &terminal()).trim_end()),
    }
}

/// The output at `target`, a folder here or in a store, if there is one.
fn output_at(target: &Path) -> Result<Option<(Storage, Ledger)>, Failure> {
    let is_elsewhere = target.to_str().is_some_and(|uri| Storage::unsupported(uri).is_some());
    if is_elsewhere || target.is_file() {
        return Ok(None);
    }
    let output = Storage::open(target)?;
    Ok(Ledger::read(&output)?.map(|ledger| (output, ledger)))
}

/// What standard output is shown on.
fn terminal() -> Terminal {
    if !io::stdout().is_terminal() {
        return Terminal::default();
    }
    let (colour, pictures) = inspect::abilities(|name| std::env::var(name).ok());
    let mut terminal = Terminal { colour, pictures, ..Terminal::default() };
    if let Ok(size) = rustix::termios::tcgetwinsize(io::stdout())
        && size.ws_col > 0
        && size.ws_row > 0
    {
        (terminal.columns, terminal.rows) = (size.ws_col, Some(size.ws_row));
        let cell = (size.ws_xpixel / size.ws_col, size.ws_ypixel / size.ws_row);
        if cell.0 > 0 && cell.1 > 0 {
            terminal.cell = cell;
        }
    }
    terminal
}

/// A pipeline that reads `uri`, with `sets` before those of the arguments.
fn pipeline(args: &InspectArgs, uri: &Path, sets: &[String]) -> Result<Pipeline, Failure> {
    let uri = Value::from(uri.to_string_lossy());
    let text = format!("source.uri = {uri}\nsink.uri = \"inspect\"\n");
    let set = sets.iter().chain(&args.set).cloned().collect();
    Pipeline::parse(&text, "inspect", &Overrides { set, ..Overrides::default() }).map_err(Failure::plan)
}

/// A document from where it lies, scored here, and how many bytes of it were left out.
fn of_file(args: &InspectArgs) -> Result<(Inspected, usize), Failure> {
    let name = args.target.to_string_lossy().to_lowercase();
    let mut sets = vec!["source.modality=auto".to_owned(), MAX_SIDE.to_owned()];
    match TABLES.iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
        false => sets.push("source.format=files".into()),
        true => sets.extend(content_column(&args.target).map(|name| format!("source.content={name}"))),
    }
    let pipeline = pipeline(args, &args.target, &sets)?;
    let row = args.row.unwrap_or(0);
    let (doc_id, content) = content(&pipeline, None, row)?;
    let view = chosen(views(&pipeline, content)?, args.view.as_deref())?;
    let weights =
        Weights::parse(&args.weights).map_err(|problem| Failure::plan(format!("--weights {problem}")))?;
    let files = model::open(&weights, &mut Pins::new()).map_err(Failure::model)?;
    let View { modality, mut segments, mut bytes, .. } = view;
    let n_all = bytes.len();
    shorten(&mut segments, &mut bytes, args.bytes);
    let mut model = CpuModel::new(&files);
    let wanted = Wanted { norms: true, pre_norm: false };
    let scores = score_documents(
        &mut model,
        &[bytes.as_slice()],
        BATCH_TOKENS.max(files.info.config.max_seqlen),
        wanted,
    );
    let scores = scores.map_err(Failure::device)?.remove(0);
    let rule = pipeline.patch.resolve(files.info.threshold);
    let inside = bytes.iter().map(|&byte| u16::from(byte) + BYTE_OFFSET);
    let tokens: Vec<u16> = [BOS].into_iter().chain(inside).chain([EOS]).collect();
    let document = Inspected {
        doc_id,
        source: format!("{} row {row}", args.target.display()),
        modality: modality.to_owned(),
        segments: segments.into_iter().map(shown).collect(),
        patch_lengths: patch_lengths(&rule, &tokens, &scores.entropies),
        threshold: pipeline.patch.threshold(files.info.threshold),
        entropies: scores.entropies,
        norms: scores.norms,
        bytes,
    };
    let n_left = n_all - document.bytes.len();
    Ok((document, n_left))
}

/// Leaves what does not fit in `most` bytes, by whole segments where there are several.
fn shorten(segments: &mut Vec<Segment>, bytes: &mut Vec<u8>, most: usize) {
    if bytes.len() <= most {
        return;
    }
    let n_whole = segments.iter().take_while(|segment| segment.bytes.end <= most as u64).count();
    let end = match n_whole.checked_sub(1).map(|last| segments[last].bytes.end) {
        Some(end) => end as usize,
        None => most,
    };
    segments.truncate(n_whole.max(1));
    if let Some(last) = segments.last_mut() {
        last.bytes.end = last.bytes.end.min(end as u64);
    }
    bytes.truncate(end);
}

fn shown(segment: Segment) -> inspect::Segment {
    inspect::Segment { kind: segment.kind.to_owned(), bytes: segment.bytes, meta: segment.meta }
}

/// The column of a Parquet file that looks like content, where it is not `text`.
fn content_column(file: &Path) -> Option<String> {
    let metadata = ParquetRecordBatchReaderBuilder::try_new(File::open(file).ok()?).ok()?;
    let schema = metadata.schema();
    let holds_files = |data_type: &DataType| match data_type {
        DataType::Struct(fields) => fields.find("bytes").is_some(),
        _ => false,
    };
    if schema.column_with_name("text").is_some() {
        return None;
    }
    let media = schema.fields().iter().find(|field| holds_files(field.data_type()));
    let named = media.or_else(|| schema.fields().iter().find(|field| field.name() == "content"));
    named.map(|field| field.name().clone())
}

/// Row `row` of the shard that `planned` and its output's plan tell of, or of the first one.
fn content(
    pipeline: &Pipeline,
    planned: Option<(&ShardEntry, &PlanRecord)>,
    row: u64,
) -> Result<(String, Content), Failure> {
    let of_source = |error: SourceError| Failure::plan(error);
    let source = &pipeline.source;
    let mut pins = planned.map(|(_, plan)| plan.revisions.clone()).unwrap_or_default();
    let files = list_shards(source, &pipeline.sink.uri, &mut pins).map_err(of_source)?;
    let name = planned.map(|(entry, _)| entry.source_file.as_str());
    let file = files.iter().find(|file| name.is_none_or(|name| file.source_file == name));
    let file =
        file.ok_or_else(|| Failure::plan(format!("--source has no shard {}", name.unwrap_or("to look at"))))?;
    let most = pipeline.limits.max_document_bytes;
    let memory = u64::MAX / 4;
    let opened = open_shard(file, source, most, memory).map_err(of_source)?;
    let shard = opened.map_err(|(_, error)| Failure { code: EXIT_DATA, message: error.to_string() })?;
    if let Some((entry, _)) = planned
        && (entry.bytes, &entry.footer_sha256) != (shard.identity.bytes, &shard.identity.footer_sha256)
    {
        return Err(Failure::plan(format!(
            "{} is not the file that the output was made from: its size or its footer is another",
            file.path.display()
        )));
    }
    let n_rows: u64 = shard.row_groups.iter().map(|group| group.rows).sum();
    if row >= n_rows {
        return Err(Failure::plan(format!("--row {row}: {} has {n_rows} rows", file.path.display())));
    }
    let data = |error: SourceError| Failure { code: EXIT_DATA, message: error.to_string() };
    let rows = row..row + 1;
    let mut reader =
        RowReader::open(&shard, source, most, memory, std::slice::from_ref(&rows)).map_err(data)?;
    let unit = Unit {
        id: UnitId { shard: 0, unit: 0 },
        source_file: file.source_file.as_str().into(),
        rows,
        content_bytes: most,
        carried_bytes: 0,
    };
    let mut batch = reader.read(Arc::new(unit), &mut |_| Ok(())).map_err(data)?;
    match (batch.rows.pop(), batch.rejected.pop()) {
        (Some(row), _) => Ok((row.doc_id, row.content)),
        (None, Some(rejected)) => Err(Failure {
            code: EXIT_DATA,
            message: format!(
                "row {row} of {} goes to quarantine: {}",
                file.path.display(),
                inspect::printable(&rejected.reason)
            ),
        }),
        (None, None) => Err(Failure::plan(format!("row {row} of {} is left out", file.path.display()))),
    }
}

fn views(pipeline: &Pipeline, content: Content) -> Result<Vec<View>, Failure> {
    let pretokenizer = pretokenizer(pipeline.source.modality, &pipeline.pretokenize, &pipeline.limits);
    let row_time = pipeline.pretokenize.row_time;
    let views = views_of(pretokenizer.map_err(Failure::plan)?, row_time, content).map_err(Failure::plan)?;
    views.map_err(|reason| Failure {
        code: EXIT_DATA,
        message: format!("the row goes to quarantine: {}", inspect::printable(&reason)),
    })
}

/// The view called `name`, or the first one.
fn chosen(mut views: Vec<View>, name: Option<&str>) -> Result<View, Failure> {
    let names: Vec<String> = views.iter().filter_map(|view| view.name.clone()).collect();
    let index = match name {
        None => Some(0).filter(|_| !views.is_empty()),
        Some(_) => views.iter().position(|view| view.name.as_deref() == name),
    };
    match index {
        Some(index) => Ok(views.swap_remove(index)),
        None => Err(Failure::plan(format!(
            "--view {}: the row has the views {}",
            name.unwrap_or_default(),
            names.join(", ")
        ))),
    }
}

/// Row `--row` of the table `documents`, whose bytes come from `--source`.
fn of_output(args: &InspectArgs, output: &Storage, ledger: &Ledger) -> Result<Inspected, Failure> {
    let Some(source) = &args.source else {
        return Err(Failure::plan(format!(
            "{} does not hold the bytes of its documents: name the folder that its shards lie in with --source",
            args.target.display()
        )));
    };
    if args.view.is_some() {
        return Err(Failure::plan(
            "--view: every view is a row of an output's documents; --row takes one".to_owned(),
        ));
    }
    let row = args.row.unwrap_or(0);
    let table = document_row(output, ledger, row)?;
    let text = |name: &str| {
        let column = table.column_by_name(name)?;
        let column = arrow::compute::cast(column, &DataType::Utf8).ok()?;
        let column = column.as_string_opt::<i32>()?;
        column.is_valid(0).then(|| column.value(0).to_owned())
    };
    let absent = |name: &str| Failure {
        code: EXIT_DATA,
        message: format!("the output has no column {name}; run it with sink.{name} = true"),
    };
    let floats = |name: &str| {
        let list = table.column_by_name(name)?.as_list_opt::<i32>()?.value(0);
        Some(list.as_primitive_opt::<Float32Type>()?.values().to_vec())
    };
    let number = |name: &str| Some(table.column_by_name(name)?.as_primitive_opt::<UInt64Type>()?.value(0));
    let lengths = || {
        let list = table.column_by_name("patch_lengths")?.as_list_opt::<i32>()?.value(0);
        Some(list.as_primitive_opt::<UInt32Type>()?.values().to_vec())
    };
    let name = |name: &str| text(name).ok_or_else(|| absent(name));
    let (doc_id, source_file) = (name("doc_id")?, name("source_file")?);
    let source_row = number("source_row").ok_or_else(|| absent("source_row"))?;
    let sets: Vec<String> =
        ledger.plan.meaning.iter().filter_map(|(key, value)| set_of(key, value)).collect();
    let pipeline = pipeline(args, source, &sets)?;
    let plan = &ledger.plan;
    if let Some(path) = &pipeline.pretokenize.text.tokenizer {
        let hash = tokenizer_hash(path).map_err(Failure::plan)?;
        if plan.meaning.get(TOKENIZER).and_then(Value::as_str) != Some(&hash) {
            return Err(Failure::plan(format!(
                "{TOKENIZER} = {path:?} is {hash}, which is not the tokenizer that the output was made with"
            )));
        }
    }
    let entry = plan.shards.iter().find(|entry| entry.source_file == source_file);
    let entry =
        entry.ok_or_else(|| Failure::plan(format!("the output's plan has no shard {source_file}")))?;
    let (source_id, content) = content(&pipeline, Some((entry, plan)), source_row)?;
    let view = doc_id.strip_prefix(&source_id).and_then(|name| name.strip_prefix('/'));
    let view = chosen(views(&pipeline, content)?, view)?;
    Ok(Inspected {
        source: format!("{source_file} row {source_row}"),
        modality: view.modality.to_owned(),
        segments: view.segments.into_iter().map(shown).collect(),
        bytes: view.bytes,
        entropies: floats("entropies").ok_or_else(|| absent("entropies"))?,
        norms: floats("norms"),
        patch_lengths: lengths().ok_or_else(|| absent("patch_lengths"))?,
        threshold: ledger.plan.meaning.get("patch.threshold").and_then(Value::as_f64).map(|nats| nats as f32),
        doc_id,
    })
}

/// A key of a plan as the pipeline file would have it; `None` for what has to do with other rows, with how rows are scored, and for
/// the tokenizer, of which the plan does not tell where it lies.
fn set_of(key: &str, value: &Value) -> Option<String> {
    let of_row = ["source.content", "source.format", "source.language", "source.modality", "source.path"];
    let counts = of_row.contains(&key)
        || (key.starts_with("pretokenize.") && key != TOKENIZER)
        || matches!(key, "source.resolve_paths" | "limits.max_document_bytes")
        || (key == "source.id" && value != "id");
    (counts && !value.is_null()).then(|| format!("{key}={value}"))
}

/// Row `row` of the table `documents`, counted over all of its files.
fn document_row(output: &Storage, ledger: &Ledger, row: u64) -> Result<RecordBatch, Failure> {
    let mut before = 0;
    for file in ledger.files().iter().filter(|file| file.table == "documents") {
        if row - before >= file.rows {
            before += file.rows;
            continue;
        }
        let failed = |error: String| Failure {
            code: EXIT_DATA,
            message: format!("failed to read {}: {error}", output.root().join(&file.path).display()),
        };
        let reader = ParquetRecordBatchReaderBuilder::try_new(output.table_file(file)?)
            .and_then(|builder| {
                builder.with_offset((row - before) as usize).with_limit(1).with_batch_size(1).build()
            })
            .map_err(|error| failed(error.to_string()))?;
        for batch in reader {
            let batch = batch.map_err(|error| failed(error.to_string()))?;
            if batch.num_rows() == 1 {
                return Ok(batch);
            }
        }
    }
    Err(Failure::plan(format!("--row {row}: the output has {before} documents")))
}
