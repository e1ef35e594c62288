//! Arguments in, exit code out. Knows nothing of how anything is done.

mod cli;
#[cfg(feature = "media")]
mod look;

use std::{
    io::{self, BufRead, IsTerminal, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use blt_pipeline::{
    config::{self, Device, Overrides, Pipeline, Weights},
    model::{
        self, Abilities, Adapter, BatchCache, EntropyModel, Format, ModelError, ModelFiles, StoredAs, Style,
        device::Kind,
    },
    pipeline::{self, Begun, DeviceFacts, Display, Ending, Plan, RunError, Share, Stop, Summary, Trace},
    publish::{self, PushError},
    remote::{self, Pins, RemoteError},
    schema::{self, Table},
    sink::{self, Finish, Output, SinkError, Start, Status, Storage},
};
use clap::Parser;
use indicatif::MultiProgress;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use self::cli::{
    Cli, Command, DtypeArg, FormatArg, LogFormat, ModelCommand, NamesArg, PipelineArgs, PlanArgs, PushArgs,
    RunArgs, SchemaName,
};

const EXIT_PLAN: u8 = 2;
const EXIT_DATA: u8 = 65;
const EXIT_INTERNAL: u8 = 70;
const EXIT_RESUMABLE: u8 = 75;

/// An error with the exit code it leads to.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn plan(error: impl ToString) -> Self {
        Failure { code: EXIT_PLAN, message: error.to_string() }
    }

    /// Of a model that could not be opened.
    fn model(error: ModelError) -> Self {
        let code = match error {
            ModelError::Remote(RemoteError::Failed(_) | RemoteError::Local { .. }) => EXIT_RESUMABLE,
            _ => EXIT_PLAN,
        };
        Failure { code, message: error.to_string() }
    }

    /// Of a model that is to be verified: a file that is damaged is what was looked for.
    fn verified(error: ModelError) -> Self {
        if !matches!(error, ModelError::Weights { .. }) {
            return Failure::model(error);
        }
        let code = EXIT_DATA;
        Failure { code, message: error.to_string() }
    }

    /// Of a device that was chosen and does not do its part: gone, full, or with a driver that fails.
    fn device(error: ModelError) -> Self {
        let code = match error {
            ModelError::Lost(_) | ModelError::OutOfMemory(_) => EXIT_RESUMABLE,
            ModelError::Device(_) => EXIT_INTERNAL,
            _ => EXIT_PLAN,
        };
        Failure { code, message: error.to_string() }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = match &error {
            RunError::Plan(_)
            | RunError::Sink(
                SinkError::Refused(_) | SinkError::Remote(RemoteError::Refused(_) | RemoteError::Denied(_)),
            ) => EXIT_PLAN,
            RunError::Sink(
                SinkError::Io { .. } | SinkError::Raced(_) | SinkError::Remote(_) | SinkError::Unknown { .. },
            )
            | RunError::Model(_)
            | RunError::Unreachable(_) => EXIT_RESUMABLE,
            RunError::Quarantine { .. } => EXIT_DATA,
            RunError::Sink(SinkError::Encode(_)) | RunError::Panic { .. } => EXIT_INTERNAL,
        };
        Failure { code, message: error.to_string() }
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        RunError::Sink(error).into()
    }
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        let code = match error {
            PushError::Sink(error) => return error.into(),
            PushError::NotSound { .. } => EXIT_DATA,
            PushError::Unfinished { .. } | PushError::Changed { .. } | PushError::Interrupted { .. } => {
                EXIT_RESUMABLE
            }
            PushError::Answer { .. } => EXIT_INTERNAL,
            _ => EXIT_PLAN,
        };
        Failure { code, message: error.to_string() }
    }
}

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    let cli = Cli::parse();
    let bars = io::stderr().is_terminal().then(MultiProgress::new);
    start_log(cli.log_format, bars.clone());
    // A panic reaches the user as the error of its unit or of the run, not as a stack of threads.
    std::panic::set_hook(Box::new(|info| tracing::debug!("{info}")));
    let dispatch = AssertUnwindSafe(|| match &cli.command {
        Command::Run(args) => run(args, cli.log_format, bars),
        Command::Plan(args) => show_plan(args).map(|()| 0),
        Command::Status { output, json } => show_status(output, *json).map(|()| 0),
        Command::Verify { output, json } => verify(output, *json),
        Command::Finalize { output } => finalize(output),
        Command::Push(args) => push(args, bars.as_ref()).map(|()| 0),
        Command::Gc { output, delete } => collect_garbage(output, *delete).map(|()| 0),
        #[cfg(feature = "media")]
        Command::Inspect(args) => look::inspect(args).map(|()| 0),
        #[cfg(not(feature = "media"))]
        Command::Inspect(_) => {
            Err(Failure::plan("inspect: this build does not draw; build it with the feature `media`"))
        }
        Command::Devices { json } => show_devices(*json).map(|()| 0),
        Command::Model { command } => on_model(command),
        Command::Schema { name } => show_schema(*name).map(|()| 0),
    });
    let result = catch_unwind(dispatch).unwrap_or_else(|panic| {
        let message =
            format!("{}; this is a defect of blt-pipeline", pipeline::panic_message(panic.as_ref()));
        Err(Failure { code: EXIT_INTERNAL, message })
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            match cli.log_format {
                LogFormat::Json => tracing::error!("{}", failure.message),
                // Nowhere is left to say that standard error is closed.
                LogFormat::Text => drop(writeln!(io::stderr(), "error: {}", failure.message)),
            }
            ExitCode::from(failure.code)
        }
    }
}

/// What is told where RUST_LOG does not say. What decoders say of a file is its row's matter, and stands in its reason where it counts;
/// hf-hub tells of every failed request as an error, also of those that are tried again.
const QUIET: &str = "warn,blt_pipeline=info,goblin=off,hayro=off,hf_hub=off,rubato=off,symphonia=off,tiff=off,tokenizers=error,zune_jpeg=off";

fn start_log(format: LogFormat, bars: Option<MultiProgress>) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(QUIET));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(bars.is_some())
        .with_target(false)
        .with_writer(move || LogWriter { bars: bars.clone(), line: Vec::new() });
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Writes a log line above the progress bars.
struct LogWriter {
    bars: Option<MultiProgress>,
    line: Vec<u8>,
}

impl Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let write = || io::stderr().write_all(&line);
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // A log that cannot be written must not end the run.
        let _ = self.flush();
    }
}

/// A pipeline file with its device and model.
struct Opened {
    pipeline: Pipeline,
    files: ModelFiles,
    adapter: Adapter,
    device: DeviceFacts,
    begun: Begun,
    /// Commits of the Hub that were resolved.
    revisions: Pins,
}

fn open(args: &PipelineArgs, start: Start) -> Result<Opened, Failure> {
    let overrides = Overrides { set: args.set.clone(), limit: args.limit, output: args.output.clone() };
    let pipeline = Pipeline::load(&args.file, &overrides).map_err(Failure::plan)?;
    Plan::check_supported(&pipeline)?;
    let begun = Plan::begun_with(&pipeline, start)?;
    let mut revisions = begun.revisions.clone();
    let files = model::open(&pipeline.model.weights, &mut revisions).map_err(Failure::model)?;
    // A driver that is out of order is no matter for a run on the processor.
    let adapters =
        if pipeline.model.device == Device::Cpu { vec![Adapter::cpu()] } else { model::adapters() };
    let (adapter, why) = model::choose(&pipeline.model, &adapters).map_err(Failure::plan)?;
    let has = adapter.abilities().map_err(Failure::device)?.precisions;
    let asked = pipeline.model.precision;
    let precision =
        model::precision(asked, begun.precision, &adapter.to_string(), &has).map_err(Failure::plan)?;
    let batch_tokens = model::batch_tokens(&adapter);
    let memory = DeviceFacts::memory_beside(adapter.kind);
    let device = DeviceFacts { name: format!("{adapter}, {why}"), precision, batch_tokens, memory };
    Ok(Opened { pipeline, files, adapter, device, begun, revisions })
}

/// Puts the model on its device, and finds out how many tokens it takes in one go where nothing says.
fn load(opened: &mut Opened) -> Result<Box<dyn EntropyModel>, Failure> {
    let Opened { pipeline, files, adapter, device, begun, revisions: _ } = opened;
    let mut model = model::load(adapter, device.precision, files).map_err(Failure::device)?;
    if adapter.kind == Kind::Cpu {
        return Ok(model);
    }
    tracing::info!("device {}, {}", device.name, device.precision.name());
    let context = pipeline.model.context.map_or(model.max_context(), |n| n.get() as usize);
    let cache = BatchCache::of_user();
    let key = format!("{} {} {context}", model.device_class(), files.info.sha256);
    let known = begun.batch_tokens.or(pipeline.model.batch_tokens.map(|n| n.get() as usize));
    let most = known.or_else(|| cache.as_ref()?.get(&key)).unwrap_or(device.batch_tokens);
    let started = Instant::now();
    let fits = model::fitting_batch(model.as_mut(), most, context).map_err(Failure::device)?;
    tracing::info!(
        "kernels are ready after {:.1} s; {fits} tokens fit at once",
        started.elapsed().as_secs_f64()
    );
    if let Some(known) = known.filter(|known| *known > fits) {
        tracing::warn!("batches of {known} tokens will be scored in parts");
    }
    if let (None, Some(cache)) = (known, cache) {
        cache.put(&key, fits);
    }
    device.batch_tokens = fits;
    Ok(model)
}

fn freeze(opened: Opened, start: Start) -> Result<Plan, Failure> {
    let Opened { pipeline, files, device, revisions, .. } = opened;
    let facts = pipeline::ModelFacts::of(&pipeline.model.weights, &files.info, revisions, device);
    Ok(Plan::freeze(pipeline, facts, start)?)
}

fn run(args: &RunArgs, format: LogFormat, bars: Option<MultiProgress>) -> Result<u8, Failure> {
    let share = share(args)?;
    if args.start.fresh && share.is_some() {
        return Err(Failure::plan(
            "--fresh cannot be used with shares: each would delete the others' work; run it once without",
        ));
    }
    // From here on a signal is a stop, and nothing is lost by it.
    let plans = Arc::new(AtomicBool::new(true));
    let stop = stop_on_signals(&plans)?;
    let start = args.start.start();
    let mut opened = open(&args.pipeline, start)?;
    let mut model = load(&mut opened)?;
    // The device holds the weights from here on.
    let mut plan = freeze(opened, start)?;
    plan.share = share;
    plan.check_output()?;
    if !args.no_space_check {
        plan.check_space()?;
    }
    if plan.start == Start::Fresh && !args.yes {
        confirm_deletion(&plan)?;
    }
    let trace = match &args.profile {
        None => Trace::off(),
        Some(path) => Trace::create(path).map_err(|error| {
            Failure::plan(format!("--profile: failed to create {}: {error}", path.display()))
        })?,
    };
    if let Some(limit) = args.pipeline.limit {
        tracing::info!(
            "--limit {limit} is part of the plan: an output made with another limit is another output"
        );
    }
    if plan.rows() == 0 {
        tracing::warn!("the source has no rows");
    }
    let display = match (format, bars) {
        (LogFormat::Text, Some(bars)) => Display::Bars(bars),
        _ => Display::Log(Duration::from_secs(10)),
    };
    plans.store(false, Ordering::Relaxed);
    let summary = pipeline::run(&plan, model.as_mut(), stop, &display, &trace)?;
    print(&summary)?;
    Ok(exit_code(&summary))
}

/// The share that the flags, or the scheduler's variables, give this process.
fn share(args: &RunArgs) -> Result<Option<Share>, Failure> {
    let (index, count) = match (args.shard_index, args.shard_count, args.shard_from_env) {
        (Some(index), Some(count), _) => (index, count),
        (_, count, true) => share_of_environment(count, |name| std::env::var(name).ok())?,
        _ => return Ok(None),
    };
    Share::new(index, count).map(Some).map_err(Failure::plan)
}

/// Index and number of shares as Slurm's job arrays or Kubernetes' indexed jobs tell them, unless `count` is given.
fn share_of_environment(
    count: Option<u32>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(u32, u32), Failure> {
    let refuse = |problem: String| Failure::plan(format!("--shard-from-env: {problem}"));
    let number = |name: &str| match variable(name) {
        None => Ok(None),
        Some(text) => {
            let number = text.trim().parse::<u32>();
            number.map(Some).map_err(|_| refuse(format!("{name} is {text:?}, not a number")))
        }
    };
    let (index, told) = if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
        // An array may start anywhere and leave tasks out.
        let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
        let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
        let distance = id.checked_sub(first).filter(|distance| distance.is_multiple_of(step));
        let index = distance.ok_or_else(|| {
            refuse(format!("SLURM_ARRAY_TASK_ID is {id}, which is not {first} and a multiple of {step}"))
        })?;
        (index / step, number("SLURM_ARRAY_TASK_COUNT")?)
    } else if let Some(index) = number("JOB_COMPLETION_INDEX")? {
        (index, None)
    } else {
        return Err(refuse("neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set".into()));
    };
    match count.or(told) {
        Some(count) => Ok((index, count)),
        None => Err(refuse("nothing tells the number of shares; add --shard-count".into())),
    }
}

/// Asks before committed work is deleted.
fn confirm_deletion(plan: &Plan) -> Result<(), Failure> {
    let output = plan.output();
    let n_committed = match sink::Ledger::read(output) {
        Ok(ledger) => ledger.map_or(0, |ledger| ledger.committed.len()),
        // What cannot be read may be anything.
        Err(_) => usize::MAX,
    };
    if n_committed == 0 {
        return Ok(());
    }
    let what = match n_committed {
        usize::MAX => "work that cannot be read".to_owned(),
        n => format!("{n} committed units"),
    };
    if !io::stdin().is_terminal() {
        return Err(Failure::plan(format!(
            "--fresh would delete {what} in {}; pass --yes if that is meant",
            output.root().display()
        )));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "delete {what} in {}? [y/N] ", output.root().display())
        .and_then(|()| io::stdin().lock().read_line(&mut answer));
    match asked {
        Ok(_) if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) => Ok(()),
        _ => Err(Failure::plan("nothing was deleted")),
    }
}

/// The first SIGINT or SIGTERM asks the run to stop, the second ends the process.
/// Until `plans` is cleared, a signal ends the program: nothing is written yet.
fn stop_on_signals(plans: &Arc<AtomicBool>) -> Result<Stop, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, EXIT_RESUMABLE.into(), stop.clone())
            .and_then(|_| flag::register_conditional_shutdown(signal, EXIT_RESUMABLE.into(), plans.clone()))
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|error| Failure {
                code: EXIT_INTERNAL,
                message: format!("failed to listen to signals: {error}"),
            })?;
    }
    Ok(Stop { asked: stop, overdue: Some(exit_without_waiting) })
}

/// A batch on the device cannot be interrupted, nor a request to a store; nothing waits for its result any more.
fn exit_without_waiting() {
    tracing::warn!(
        "a batch on the device, or a request to a store, outlasts limits.stop_grace_seconds; units in flight are \
         dropped, the same command goes on from here"
    );
    std::process::exit(EXIT_RESUMABLE.into());
}

fn exit_code(summary: &Summary) -> u8 {
    match summary.ending {
        Ending::Finished | Ending::FinishedBefore | Ending::ShareDone { .. } => 0,
        Ending::Interrupted => EXIT_RESUMABLE,
        Ending::Incomplete if summary.failures.iter().all(|f| f.input) => EXIT_DATA,
        Ending::Incomplete => EXIT_INTERNAL,
    }
}

fn print(text: &impl std::fmt::Display) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        // A reader that has seen enough, such as `head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure {
            code: EXIT_INTERNAL,
            message: format!("failed to write to standard output: {error}"),
        }),
        Ok(()) => Ok(()),
    }
}

fn show_plan(args: &PlanArgs) -> Result<(), Failure> {
    let start = args.start.start();
    let opened = open(&args.pipeline, start)?;
    let decided = opened.begun.batch_tokens.is_some() || opened.pipeline.model.batch_tokens.is_some();
    let tried = opened.adapter.kind != Kind::Cpu && !decided;
    print(&freeze(opened, start)?.describe()?)?;
    if tried {
        print(
            &"batch_tokens is what a run begins to try with: it gets smaller if so many do not fit on the device",
        )?;
    }
    Ok(())
}

fn show_status(output: &Path, json: bool) -> Result<(), Failure> {
    let status = Status::read(&Storage::open(output)?)?;
    match json {
        true => print(&as_json(&status)?),
        false => print(&status),
    }
}

fn as_json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure { code: EXIT_INTERNAL, message: error.to_string() })
}

fn verify(output: &Path, json: bool) -> Result<u8, Failure> {
    let found = sink::verify(&Storage::open(output)?)?;
    match json {
        true => print(&as_json(&found)?)?,
        false => print(&found)?,
    }
    Ok(match (&found.problem, found.complete) {
        (Some(_), _) => EXIT_DATA,
        (None, true) => 0,
        (None, false) => EXIT_RESUMABLE,
    })
}

fn finalize(output: &Path) -> Result<u8, Failure> {
    match Output::open_existing(&Storage::open(output)?)?.finalize()? {
        Finish::Done { .. } => print(&format!("{} is finished", output.display())).map(|()| 0),
        Finish::Left { units, .. } => Err(Failure {
            code: EXIT_RESUMABLE,
            message: format!(
                "{} is not complete: {units} units or shards are left to do; `status` tells more",
                output.display()
            ),
        }),
        Finish::Busy => Err(Failure {
            code: EXIT_RESUMABLE,
            message: format!("another process repairs or finishes {}", output.display()),
        }),
    }
}

fn collect_garbage(output: &Path, delete: bool) -> Result<(), Failure> {
    let storage = Storage::open(output)?;
    let found =
        if delete { Output::open_existing(&storage)?.remove_garbage()? } else { sink::collect(&storage)? };
    for file in &found {
        let fate = match (file.kept, delete) {
            (Some(why), _) => format!("stays: {why}"),
            (None, true) => "deleted".to_owned(),
            (None, false) => "can be deleted".to_owned(),
        };
        print(&format!("{:>12} bytes  {}  ({fate})", file.bytes, file.path.display()))?;
    }
    let removable = found.iter().filter(|file| file.kept.is_none());
    let (n, bytes) = removable.fold((0, 0), |(n, bytes), file| (n + 1, bytes + file.bytes));
    print(&match delete {
        true => format!("{n} files deleted, {bytes} bytes"),
        false => format!("{n} files that no record names, {bytes} bytes; --delete deletes them"),
    })
}

fn push(args: &PushArgs, bars: Option<&MultiProgress>) -> Result<(), Failure> {
    print(&publish::push(&args.folder, &args.to, &args.options(), bars)?)
}

fn on_model(command: &ModelCommand) -> Result<u8, Failure> {
    match command {
        ModelCommand::Fetch { weights } => {
            let Weights::Hub(address) = parse_weights(weights)? else {
                return Err(Failure::plan(format!("{weights} is no model on the Hub, hf://owner/name")));
            };
            let mut pins = Pins::new();
            let place =
                remote::model_folder(&address, &mut pins).map_err(|error| Failure::model(error.into()))?;
            ModelFiles::open(&place).map_err(Failure::model)?;
            let commits: Vec<&str> = pins.values().map(String::as_str).collect();
            print(&format!("{}\ncommit {}", place.display(), commits.join(", "))).map(|()| 0)
        }
        ModelCommand::Info { weights } => {
            let files = open_model(weights).map_err(Failure::model)?;
            let card = files.card().map_err(Failure::plan)?;
            print(&format!("{}\n{card}", files.info)).map(|()| 0)
        }
        ModelCommand::Verify { weights, other: None } => {
            let verified = open_model(weights).and_then(|files| files.verify()).map_err(Failure::verified)?;
            print(&verified).map(|()| if verified.holds() { 0 } else { EXIT_DATA })
        }
        ModelCommand::Verify { weights, other: Some(other) } => {
            let files = open_model(weights).map_err(Failure::verified)?;
            let other = open_model(other).map_err(Failure::verified)?;
            let differences = files.differences(&other);
            if differences.is_empty() {
                let stored =
                    [&files.info, &other.info].map(|info| format!("as {} in {}", info.dtype, info.format));
                let how =
                    if stored[0] == stored[1] { "" } else { &format!(", stored {}", stored.join(" and ")) };
                return print(&format!("the same model{how}")).map(|()| 0);
            }
            print(&differences.join("\n")).map(|()| EXIT_DATA)
        }
        ModelCommand::Convert { weights, folder, format, names, dtype } => {
            let files = open_model(weights).map_err(Failure::model)?;
            let stored_as = match dtype {
                Some(DtypeArg::F32) => StoredAs::F32,
                Some(DtypeArg::F16) => StoredAs::F16,
                Some(DtypeArg::Bf16) => StoredAs::Bf16,
                None => StoredAs::of(&files.info.dtype).ok_or_else(|| {
                    Failure::plan(format!(
                        "{weights} is stored as {}; choose one with --dtype",
                        files.info.dtype
                    ))
                })?,
            };
            let (format, usual) = match format {
                FormatArg::Safetensors => (Format::Safetensors, Style::Meta),
                FormatArg::Bpk => (Format::Burnpack, Style::Burn),
            };
            let style = match names {
                Some(NamesArg::Meta) => Style::Meta,
                Some(NamesArg::HuggingFace) => Style::HuggingFace,
                Some(NamesArg::Burn) => Style::Burn,
                None => usual,
            };
            print(&files.save(folder, format, style, stored_as).map_err(Failure::plan)?).map(|()| 0)
        }
    }
}

fn parse_weights(weights: &str) -> Result<Weights, Failure> {
    Weights::parse(weights).map_err(|problem| Failure::plan(format!("{weights:?} {problem}")))
}

fn open_model(weights: &str) -> Result<ModelFiles, ModelError> {
    let weights = Weights::parse(weights)
        .map_err(|problem| ModelError::Unsupported(format!("{weights:?} {problem}")))?;
    model::open(&weights, &mut Pins::new())
}

fn show_devices(json: bool) -> Result<(), Failure> {
    let adapters = model::adapters();
    let automatic = model::choose(&config::Model::default(), &adapters).map_err(Failure::plan)?;
    let rows: Vec<(&Adapter, Result<Abilities, String>)> =
        adapters.iter().map(|adapter| (adapter, adapter.abilities().map_err(|e| e.to_string()))).collect();
    if json {
        let row = |(adapter, abilities): &(&Adapter, Result<Abilities, String>)| {
            let known = abilities.as_ref().ok();
            serde_json::json!({
                "device": adapter.api.name(),
                "adapter": adapter.number,
                "name": adapter.name,
                "kind": adapter.kind.name(),
                "driver": adapter.driver,
                "memory_bytes": known.and_then(|a| a.memory),
                "precisions": known.map(|a| a.precisions.iter().map(|p| p.name()).collect::<Vec<_>>()),
                "tensor_cores": known.map(|a| a.tensor_cores),
                "error": abilities.as_ref().err(),
                "auto": **adapter == automatic.0,
            })
        };
        return print(&format!("{:#}", rows.iter().map(row).collect::<serde_json::Value>()));
    }
    let mut text = format!("{:<10} {:<34} {:<15} {:>9}  precisions\n", "device", "name", "kind", "memory");
    for (adapter, abilities) in &rows {
        let place = format!("{}:{}", adapter.api.name(), adapter.number);
        let (memory, precisions) = match abilities {
            Ok(a) => {
                let names: Vec<&str> = a.precisions.iter().map(|precision| precision.name()).collect();
                let cores = if a.tensor_cores { ", on tensor cores" } else { "" };
                (
                    a.memory.map_or_else(
                        || "-".to_owned(),
                        |bytes| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64),
                    ),
                    format!("{}{cores}", names.join(", ")),
                )
            }
            Err(error) => ("-".to_owned(), error.clone()),
        };
        let (name, kind) = (&adapter.name, adapter.kind.name());
        text.push_str(&format!("{place:<10} {name:<34} {kind:<15} {memory:>9}  {precisions}\n"));
    }
    let (adapter, why) = automatic;
    print(&format!("{text}\nmodel.device = \"auto\" takes {adapter}: {why}"))
}

fn show_schema(name: Option<SchemaName>) -> Result<(), Failure> {
    let value = match name {
        None => Table::ALL.iter().map(|&table| schema::describe(table)).collect(),
        Some(SchemaName::Documents) => schema::describe(Table::Documents),
        Some(SchemaName::Patches) => schema::describe(Table::Patches),
        Some(SchemaName::Bytes) => schema::describe(Table::Bytes),
        Some(SchemaName::Quarantine) => schema::describe(Table::Quarantine),
        Some(SchemaName::Pipeline) => config::json_schema(),
    };
    print(&format!("{value:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_tells_index_and_number_of_shares() {
        let slurm = [
            ("SLURM_ARRAY_TASK_ID", "7"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_STEP", "3"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
        ];
        for (count, variables, expected) in [
            (None, &slurm[..], Ok((2, 4))),
            (None, &[("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "8")], Ok((3, 8))),
            (Some(5), &[("JOB_COMPLETION_INDEX", "4")], Ok((4, 5))),
            (None, &[("JOB_COMPLETION_INDEX", "4")], Err("add --shard-count")),
            (Some(5), &[], Err("neither SLURM_ARRAY_TASK_ID nor")),
            (Some(5), &[("JOB_COMPLETION_INDEX", "four")], Err("is \"four\", not a number")),
            (None, &[("SLURM_ARRAY_TASK_ID", "6"), slurm[1], slurm[2]], Err("is 6, which is not 1 and")),
        ] {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            match (share_of_environment(count, variable), expected) {
                (Ok(share), Ok(expected)) => assert_eq!(share, expected),
                (Err(failure), Err(part)) => assert!(failure.message.contains(part), "{}", failure.message),
                (found, _) => panic!("{variables:?} gave {:?}", found.map_err(|failure| failure.message)),
            }
        }
    }
}
