//! The command line: commands, their arguments and the help that they print.

use std::path::PathBuf;

use blt_pipeline::{publish, sink::Start};
use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  2   wrong usage, or a plan that cannot be carried out
  65  bad input: a shard could not be read, or more rows in quarantine than allowed; `verify` found damage
  70  a defect of the program or the device
  75  interrupted, or storage or network failed: the same command goes on from there; `verify`, `finalize`, `push`:
      not complete";

/// Runs the entropy model of the Byte Latent Transformer over Parquet shards.
///
/// Reads documents, scores every byte, cuts patches where the next byte is hard to guess, and writes
/// entropies, norms, patches and embeddings back to Parquet.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Format of the log on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline, or go on with one that was interrupted.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Show what a run would read and write; runs nothing.
    #[command(after_help = PLAN_HELP)]
    Plan(PlanArgs),
    /// Show how far an output is: units done, in flight and failed, by whom, and when it will be finished.
    #[command(after_help = "Example:\n  blt-pipeline status output/quickstart")]
    Status {
        /// Folder of the output, or its address in an object store.
        output: PathBuf,
        /// Prints a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Check every file and row of an output, without its source: exit code 0 if it is complete and right, 65 if
    /// something is wrong, 75 if it is right so far but not complete.
    #[command(after_help = "Example:\n  blt-pipeline verify output/quickstart")]
    Verify {
        /// Folder of the output, or its address in an object store.
        output: PathBuf,
        /// Prints a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Write the manifest of an output whose units are all committed, and remove what no record names. `run` does
    /// it with the last unit.
    #[command(after_help = "Example:\n  blt-pipeline finalize output/quickstart")]
    Finalize {
        /// Folder of the output, or its address in an object store.
        output: PathBuf,
    },
    /// List the files in an output that no commit record names, left behind by runs that were killed.
    #[command(
        after_help = "Example:\n  blt-pipeline gc output/quickstart\n  blt-pipeline gc output/quickstart --delete"
    )]
    Gc {
        /// Folder of the output, or its address in an object store.
        output: PathBuf,
        /// Deletes them, except what a paused run could still need.
        #[arg(long)]
        delete: bool,
    },
    /// Send a finished output, or a model's folder, to a repository on the Hugging Face Hub, as much of it as is not there yet.
    #[command(after_help = PUSH_HELP)]
    Push(PushArgs),
    /// Show one document as the model sees it: its bytes with their patches, where it is uncertain, pictures and sounds as such.
    #[command(after_help = INSPECT_HELP)]
    Inspect(InspectArgs),
    /// List the devices that this build can compute on, and which of them `auto` takes.
    #[command(after_help = "Example:\n  blt-pipeline devices")]
    Devices {
        /// Prints a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Look at a model, compare it with another, or write it in another form.
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
  blt-pipeline run pipelines/fineweb.toml --shard-index 0 --shard-count 8
  blt-pipeline run pipelines/fineweb.toml --only-quarantined --set limits.max_document_bytes=\"64 MiB\"

RUST_LOG=debug shows every committed unit.

Exit codes:
  0 done, 2 bad plan, 65 bad input, 70 a defect, 75 interrupted but resumable";

const PLAN_HELP: &str = "Example:\n  blt-pipeline plan pipelines/quickstart.toml --set sink.embeddings=byte";

const INSPECT_HELP: &str = "\
Examples:
  blt-pipeline inspect README.md
  blt-pipeline inspect photo.jpg --html photo.html
  blt-pipeline inspect pipelines/quickstart/000_00000.parquet --row 3
  blt-pipeline inspect output/quickstart --row 3 --source pipelines/quickstart";

const PUSH_HELP: &str = "\
Examples:
  blt-pipeline push output/quickstart hf://datasets/OWNER/NAME --create --private --license cc-by-4.0
  blt-pipeline push models/small hf://OWNER/NAME --dry-run

The token comes from HF_TOKEN, the file HF_TOKEN_PATH, or the file token in HF_HOME, and must be one that may write.

Exit codes:
  0 done, 2 refused, 65 not sound, 70 an answer without sense, 75 network or Hub failed, or the output is not finished";

#[derive(Args)]
pub(crate) struct InspectArgs {
    /// A file of any kind, a shard, or the folder of an output; all of them may lie where sources and outputs may.
    pub(crate) target: PathBuf,
    /// Row of the shard, or of the output's table `documents`, counted from 0. Default: the first.
    #[arg(long, value_name = "N")]
    pub(crate) row: Option<u64>,
    /// The view of that row, `raw` or `page-3`. Default: the first.
    #[arg(long, value_name = "NAME")]
    pub(crate) view: Option<String>,
    /// Where the shards of an output lie, which holds their scores, but not their bytes: what stands before the shards' names.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) source: Option<PathBuf>,
    /// Writes a page for a browser, which needs nothing else, in place of showing it here.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// The model: as `model.weights` in a pipeline file.
    #[arg(long, default_value = "embedded")]
    pub(crate) weights: String,
    /// Scores so many bytes at the most.
    #[arg(long, value_name = "N", default_value_t = 256 << 10)]
    pub(crate) bytes: usize,
    /// Sets a key of the pipeline that reads it: `--set pretokenize.image.patch=8`. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args)]
pub(crate) struct PipelineArgs {
    /// The pipeline file.
    pub(crate) file: PathBuf,
    /// Overrides a key of the file: `--set patch.threshold=1.5`. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Takes the first N source rows only, in plan order. Part of the plan: an output made with another
    /// limit is another output.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Folder for the output instead of `sink.uri`: a path, or s3://, gs:// or az:// with bucket and folder.
    #[arg(long, value_name = "URI")]
    pub(crate) output: Option<String>,
}

#[derive(Args)]
pub(crate) struct StartArgs {
    /// Takes shards in that the output does not have yet, also into a finished one.
    #[arg(long, group = "start")]
    pub(crate) extend: bool,
    /// Does the units with rows in quarantine once more, and no others; `limits.max_document_bytes` may be larger
    /// than before.
    #[arg(long, group = "start")]
    pub(crate) only_quarantined: bool,
    /// Deletes what the output holds and starts over; asks before it deletes committed work. Not for shares, which
    /// would delete each other's.
    #[arg(long, group = "start")]
    pub(crate) fresh: bool,
}

impl StartArgs {
    pub(crate) fn start(&self) -> Start {
        match (self.extend, self.only_quarantined, self.fresh) {
            (true, ..) => Start::Extend,
            (_, true, _) => Start::Repair,
            (.., true) => Start::Fresh,
            _ => Start::Resume,
        }
    }
}

#[derive(Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    #[command(flatten)]
    pub(crate) start: StartArgs,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    #[command(flatten)]
    pub(crate) start: StartArgs,
    /// With `--fresh`: does not ask.
    #[arg(long, requires = "fresh")]
    pub(crate) yes: bool,
    /// Does one of several equal shares of the units, counted from 0.
    #[arg(long, value_name = "I", requires = "shard_count", group = "which_share")]
    pub(crate) shard_index: Option<u32>,
    /// Number of shares; each is for a process of its own, and all of them write to one output.
    #[arg(long, value_name = "N", requires = "which_share")]
    pub(crate) shard_count: Option<u32>,
    /// Takes the index from SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX. The number of shares is
    /// SLURM_ARRAY_TASK_COUNT, or what --shard-count says: Kubernetes does not tell it.
    #[arg(long, group = "which_share")]
    pub(crate) shard_from_env: bool,
    /// Starts even if the disk seems to have too little room.
    #[arg(long)]
    pub(crate) no_space_check: bool,
    /// Writes what every thread did and waited for to FILE, for ui.perfetto.dev or chrome://tracing.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct PushArgs {
    /// Folder of the output or of the model.
    pub(crate) folder: PathBuf,
    /// hf://datasets/OWNER/NAME[@BRANCH] for an output, hf://OWNER/NAME[@BRANCH] for a model.
    #[arg(value_name = "REPOSITORY")]
    pub(crate) to: String,
    /// The licence on the card, as the Hub calls it: cc-by-4.0, odc-by, apache-2.0. Without it the card says `other`.
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// What the card says of where the documents, or the model, are from.
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Makes the repository if there is none.
    #[arg(long)]
    create: bool,
    /// Pushes to a private repository only; one that is made, is.
    #[arg(long)]
    private: bool,
    /// Shows what would be sent; changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Leaves the README.md that is there, and pushes the rest.
    #[arg(long)]
    keep_card: bool,
    /// Replaces files of another model in a model's repository.
    #[arg(long)]
    replace: bool,
}

impl PushArgs {
    pub(crate) fn options(&self) -> publish::Options {
        let Self { folder: _, to: _, license, source, create, private, dry_run, keep_card, replace } = self;
        publish::Options {
            license: license.clone(),
            source: source.clone(),
            private: *private,
            create: *create,
            dry_run: *dry_run,
            keep_card: *keep_card,
            replace: *replace,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// Download a model from the Hub to the cache that its other tools share, check it, and print where it lies.
    #[command(
        after_help = "Example:\n  blt-pipeline model fetch hf://owner/name@main\n\nHF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and HF_HUB_OFFLINE are read."
    )]
    Fetch {
        /// `hf://owner/name[@revision][/path]`.
        weights: String,
    },
    /// Print a model's architecture, size, window, threshold, licence and hashes.
    #[command(
        after_help = "Example:\n  blt-pipeline model info embedded\n  blt-pipeline model info models/small"
    )]
    Info {
        /// A model folder, a file of weights (.safetensors or .bpk), or `embedded`.
        weights: String,
    },
    /// Check a model, or compare two.
    ///
    /// One model: all tensors, their shapes and values; and, if the reference implementation's scores of a text are known
    /// for it (the embedded model, tests/data/golden/nano), its own on the processor against them. Two models, whatever
    /// their names and files: configuration, shapes and every weight. Exit code 65 if something is wrong or differs.
    #[command(
        after_help = "Example:\n  blt-pipeline model verify embedded\n  blt-pipeline model verify models/small copy"
    )]
    Verify {
        /// A model folder, a file of weights (.safetensors or .bpk), or `embedded`.
        weights: String,
        /// Likewise; the two are compared.
        other: Option<String>,
    },
    /// Write a model to a new folder, in another format, under other names or in another number format.
    #[command(
        after_help = "Example:\n  blt-pipeline model convert embedded small-f32 --names hugging-face --dtype f32\n  \
                      blt-pipeline model convert models/small small-burn --format bpk"
    )]
    Convert {
        /// A model folder, a file of weights (.safetensors or .bpk), or `embedded`.
        weights: String,
        /// The new folder: config.json, model.safetensors or model.bpk, and perhaps patch.json.
        folder: PathBuf,
        /// Format of the file of weights.
        #[arg(long, value_enum, default_value_t = FormatArg::Safetensors)]
        format: FormatArg,
        /// Whose names the tensors and the configuration's keys have; without it, Meta's in safetensors and Burn's in bpk.
        #[arg(long, value_enum)]
        names: Option<NamesArg>,
        /// Number format of the weights; without it, the one that they are stored in.
        #[arg(long, value_enum)]
        dtype: Option<DtypeArg>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum FormatArg {
    /// Hugging Face's.
    Safetensors,
    /// Burn's: burnpack.
    Bpk,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum NamesArg {
    /// As released: layers.0.attention.wq.weight.
    Meta,
    /// As transformers has them: layers.0.self_attn.q_proj.weight.
    HuggingFace,
    /// Of a Burn module whose fields have Meta's names: layers.0.attention_norm.gamma, and matrices as Burn's `Linear`
    /// keeps them.
    Burn,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum DtypeArg {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum SchemaName {
    Documents,
    Patches,
    Bytes,
    Quarantine,
    Pipeline,
}
