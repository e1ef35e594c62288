//! Arguments in, exit code out. Knows nothing of how anything is done.

use std::{
    io::{self, IsTerminal, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use blt_pipeline::{
    config::{self, Overrides, Pipeline, Weights},
    model::{self, ModelFiles},
    pipeline::{self, Display, Ending, Plan, RunError, Summary},
    schema::{self, Table},
    sink::SinkError,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::MultiProgress;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

const EXIT_PLAN: u8 = 2;
const EXIT_DATA: u8 = 65;
const EXIT_INTERNAL: u8 = 70;
const EXIT_RESUMABLE: u8 = 75;

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  2   wrong usage, or a plan that cannot be carried out
  65  bad input: a shard could not be read, or more rows in quarantine than allowed
  70  a defect of the program or the device
  75  interrupted, or storage failed: the same command goes on from there";

/// Runs the entropy model of the Byte Latent Transformer over Parquet shards.
///
/// Reads documents, scores every byte, cuts patches where the next byte is hard to guess, and writes
/// entropies, norms, patches and embeddings back to Parquet.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    /// Format of the log on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline, or go on with one that was interrupted.
    #[command(after_help = RUN_HELP)]
    Run(PipelineArgs),
    /// Show what a run would read and write; runs nothing.
    #[command(after_help = PLAN_HELP)]
    Plan(PipelineArgs),
    /// Look at a model.
    Model {
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Print the schema of an output table or of the pipeline file, as JSON.
    #[command(after_help = "Example:\n  blt-pipeline schema patches")]
    Schema {
        /// Which one; without it, all output tables.
        name: Option<SchemaName>,
    },
}

const RUN_HELP: &str = "\
Examples:
  blt-pipeline run pipelines/quickstart.toml
  blt-pipeline run pipelines/fineweb.toml --limit 1000 --set sink.embeddings=none --output /tmp/try

RUST_LOG=debug shows every committed unit.

Exit codes:
  0 done, 2 bad plan, 65 bad input, 70 a defect, 75 interrupted but resumable";

const PLAN_HELP: &str = "Example:\n  blt-pipeline plan pipelines/quickstart.toml --set sink.embeddings=byte";

#[derive(Args)]
struct PipelineArgs {
    /// The pipeline file.
    file: PathBuf,
    /// Overrides a key of the file: `--set patch.threshold=1.5`. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Takes the first N source rows only, in plan order. Part of the plan: an output made with another
    /// limit is another output.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Folder for the output instead of `sink.uri`.
    #[arg(long, value_name = "URI")]
    output: Option<String>,
}

#[derive(Subcommand)]
enum ModelCommand {
    /// Print a model's architecture, size, window, threshold and hash.
    #[command(
        after_help = "Example:\n  blt-pipeline model info embedded\n  blt-pipeline model info models/small"
    )]
    Info {
        /// A model folder, a safetensors file, or `embedded`.
        weights: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum SchemaName {
    Documents,
    Patches,
    Bytes,
    Quarantine,
    Pipeline,
}

/// An error with the exit code it leads to.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn plan(error: impl ToString) -> Self {
        Failure { code: EXIT_PLAN, message: error.to_string() }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = match &error {
            RunError::Plan(_) | RunError::Sink(SinkError::Refused(_)) => EXIT_PLAN,
            RunError::Sink(SinkError::Io { .. }) => EXIT_RESUMABLE,
            RunError::Quarantine { .. } => EXIT_DATA,
            RunError::Sink(SinkError::Encode(_)) | RunError::Panic { .. } => EXIT_INTERNAL,
        };
        Failure { code, message: error.to_string() }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let bars = io::stderr().is_terminal().then(MultiProgress::new);
    start_log(cli.log_format, bars.clone());
    // A panic reaches the user as the error of its unit or of the run, not as a stack of threads.
    std::panic::set_hook(Box::new(|info| tracing::debug!("{info}")));
    let dispatch = AssertUnwindSafe(|| match &cli.command {
        Command::Run(args) => run(args, cli.log_format, bars),
        Command::Plan(args) => show_plan(args).map(|()| 0),
        Command::Model { command: ModelCommand::Info { weights } } => show_model(weights).map(|()| 0),
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

fn start_log(format: LogFormat, bars: Option<MultiProgress>) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
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

fn freeze(args: &PipelineArgs) -> Result<(Plan, ModelFiles), Failure> {
    let overrides = Overrides { set: args.set.clone(), limit: args.limit, output: args.output.clone() };
    let pipeline = Pipeline::load(&args.file, &overrides).map_err(Failure::plan)?;
    Plan::check_supported(&pipeline)?;
    let files = model::open(&pipeline.model.weights).map_err(Failure::plan)?;
    let facts = pipeline::ModelFacts::of(&pipeline.model.weights, &files.info);
    Ok((Plan::freeze(pipeline, facts)?, files))
}

fn run(args: &PipelineArgs, format: LogFormat, bars: Option<MultiProgress>) -> Result<u8, Failure> {
    let (plan, files) = freeze(args)?;
    plan.output_state()?;
    let mut model = model::load(&plan.pipeline.model, &files).map_err(Failure::plan)?;
    // The device holds the weights now.
    drop(files);
    if let Some(limit) = args.limit {
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
    let summary = pipeline::run(&plan, model.as_mut(), stop_on_signals()?, &display)?;
    print(&summary)?;
    Ok(exit_code(&summary))
}

/// The first SIGINT or SIGTERM asks the run to stop, the second ends the process.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, EXIT_RESUMABLE.into(), stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|error| Failure {
                code: EXIT_INTERNAL,
                message: format!("failed to listen to signals: {error}"),
            })?;
    }
    Ok(stop)
}

fn exit_code(summary: &Summary) -> u8 {
    match summary.ending {
        Ending::Finished | Ending::FinishedBefore => 0,
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

fn show_plan(args: &PipelineArgs) -> Result<(), Failure> {
    let (plan, _) = freeze(args)?;
    print(&plan.describe()?)
}

fn show_model(weights: &str) -> Result<(), Failure> {
    let weights = match weights.strip_prefix("hf://") {
        Some(repo) => Weights::Hub { repo: repo.to_owned(), revision: None, path: None },
        None if weights == "embedded" => Weights::Embedded,
        None => Weights::Path(weights.into()),
    };
    print(&model::open(&weights).map_err(Failure::plan)?.info)
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
