//! The engine: wires the stages with threads and bounded channels, runs a plan into an output, and tells
//! how it went. Nothing else in the crate spawns.

mod apart;
mod assemble;
mod control;
mod deal;
mod display;
mod meter;
mod plan;
mod shards;
mod share;
mod sizes;
mod stages;
mod stats;
mod summary;
mod trace;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicUsize},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{RecvTimeoutError, bounded};

use self::{
    apart::Decoder,
    control::{Budget, Control},
    deal::Dealer,
    meter::{Closed, Inlet, StageMeter, channel},
    stages::{Blame, FailedUnit, Passed, WrittenUnit},
    stats::Stats,
};
pub use self::{
    apart::{Outcome, views_of},
    assemble::Recipe,
    control::Stop,
    display::Display,
    meter::StageSeconds,
    plan::{Begun, DeviceFacts, ModelFacts, Plan, TOKENIZER, tokenizer_hash},
    shards::PlannedShard,
    share::Share,
    stages::panic_message,
    summary::{Ending, Failure, Summary},
    trace::Trace,
};
use crate::{
    config::Quarantine,
    data::{Unit, UnitId},
    model::{EntropyModel, ModelError},
    sink::{Claims, Committed, Counts, Encoder, FailureRecord, Finish, Ledger, Output, SinkError, Start},
    source::SourceError,
};

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan asks for what cannot be.
    #[error("{0}")]
    Plan(String),
    /// The output.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The network, or the service where the source lies, failed. What was committed stays, and the same command goes on.
    #[error("{0}; what is committed stays, and the same command goes on from there")]
    Unreachable(String),
    /// More rows in quarantine than `limits.max_quarantined` allows.
    #[error(
        "{quarantined} of {rows} rows are in quarantine, more than limits.max_quarantined allows; see the \
         table quarantine in the output for the reasons"
    )]
    Quarantine {
        /// Rows in quarantine so far.
        quarantined: u64,
        /// Rows of the plan.
        rows: u64,
    },
    /// The model's device is gone. What was committed stays, and the same command goes on from there.
    #[error("{0}; what is committed stays, and the same command goes on from there")]
    Model(ModelError),
    /// A thread of the engine panicked.
    #[error("the {stage} stage panicked: {message}; this is a defect of blt-pipeline")]
    Panic {
        /// The stage.
        stage: &'static str,
        /// What the panic said.
        message: String,
    },
}

impl From<SourceError> for RunError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Unreachable(problem) => RunError::Unreachable(problem),
            SourceError::Plan(_) | SourceError::Denied(_) | SourceError::Data(_) | SourceError::Memory(_) => {
                RunError::Plan(error.to_string())
            }
        }
    }
}

/// Runs every unit of `plan`, or of its share, that is not committed yet; as a repair, those with rows in
/// quarantine. `stop` ends the run early.
///
/// Units that fail are tried once more after all others; if they fail again the reason is recorded in the
/// output and in the summary, and the output stays without a manifest. Whoever commits the last unit of the
/// output writes the manifest. `trace` is told what every thread does when.
///
/// # Errors
/// When the output is refused or cannot be written, when too many rows are in quarantine, or when the
/// engine itself fails. What has been committed stays, and the same call goes on from there.
pub fn run(
    plan: &Plan,
    model: &mut dyn EntropyModel,
    stop: Stop,
    display: &Display,
    trace: &Arc<Trace>,
) -> Result<Summary, RunError> {
    let started = Instant::now();
    let mut output = Output::open(plan.output(), plan.opening())?;
    let before = output.ledger()?;
    let mut summary = Summary::new(plan, plan.output().root());
    if before.is_finished() && plan.start != Start::Repair {
        // A repair that was killed may have left files that no record names.
        output.finalize()?;
        summary.ending = Ending::FinishedBefore;
        summary.total = before.counts();
        return Ok(summary);
    }
    let pending = pending(plan, &before);
    let (n_committed, total) = (before.committed.len(), before.counts());
    // Millions of records are not needed any more.
    drop(before);
    tracing::info!(
        shards = plan.shards.len(),
        units = pending.len(),
        rows = pending.iter().map(|u| u.rows.end - u.rows.start).sum::<u64>(),
        committed_before = n_committed,
        model = plan.model.name,
        device = model.device_class(),
        "running {}",
        plan.pipeline.name
    );
    let stats = Stats::new(plan, &pending);
    let control = Control::new(stop.asked, plan.pipeline.limits.stop_grace);
    let claims = Arc::new(output.claims(plan.share.map(|share| share.to_string())));
    let dealer = Dealer::new(&output, claims.clone(), plan.start == Start::Repair);
    let mut engine = Engine {
        plan,
        output: &output,
        encoder: output.encoder(plan.recipe.tables.clone(), plan.zstd_level())?,
        control: &control,
        stats: &stats,
        dealer: &dealer,
        trace,
        settled: BTreeSet::new(),
        total,
        rows: plan.record.shards.iter().map(|shard| shard.rows).sum(),
        done: Counts::default(),
        given_up: Arc::default(),
    };
    if plan.start != Start::Repair {
        engine.check_quarantine();
    }
    let encoder = engine.encoder.clone();
    let leave = || {
        if let Some(exit) = stop.overdue {
            encoder.withdraw();
            trace.flush();
            exit();
        }
    };
    let overdue = || {
        // A store may be what lets everybody wait, and is asked nothing more; a claim in it is old soon.
        if stop.overdue.is_some() && output.is_local() {
            output.withdraw();
            claims.withdraw();
        }
        leave();
    };
    let result = watched(&control, &claims, &stats, trace, &overdue, || {
        display.show(&stats, || {
            let failed = engine.pass(&pending, model);
            let again: Vec<Arc<Unit>> = failed.iter().map(|f| f.unit.clone()).collect();
            for failure in &failed {
                tracing::warn!(unit = %failure.unit.id, stage = failure.stage, "will be tried again: {}", failure.reason);
            }
            if again.is_empty() || control.stopping() { failed } else { engine.pass(&again, model) }
        })
    });
    trace.flush();
    // A process that ended is at nothing, and a unit that was dropped leaves nothing.
    output.withdraw();
    if output.is_local() {
        claims.withdraw();
    }
    let claims = Leaving(claims);
    let failures = engine.record_failures(&result);
    // A repair is there to make them fewer.
    let too_many = if plan.start == Start::Repair { engine.too_many_quarantined() } else { None };
    let Engine { mut settled, done, total: known, .. } = engine;
    summary.run = done;
    summary.stages = StageSeconds::merged(stats.stages().iter().map(|m| m.seconds()));
    if let Some(error) = control.failure() {
        return Err(error);
    }
    summary.failures = failures?;
    settled.extend(result.iter().map(|failed| failed.unit.id));
    settled.extend(dealer.skipped());
    // A store has no lock that keeps others from starting over while this one finishes: its claim does.
    let mut finalize = || match output.is_local() {
        true => output.finalize(),
        false => watched(&control, &claims.0, &stats, trace, &leave, || output.finalize())
            .map_err(SinkError::midway),
    };
    let mut total = None;
    summary.ending = if control.interrupted() && pending.iter().any(|unit| !settled.contains(&unit.id)) {
        Ending::Interrupted
    } else if !summary.failures.is_empty() {
        if plan.start == Start::Repair {
            // What was repaired counts already.
            finalize()?;
        }
        Ending::Incomplete
    } else {
        match finalize()? {
            Finish::Done { counts } => {
                total = Some(counts);
                Ending::Finished
            }
            Finish::Left { units, counts } => {
                total = Some(counts);
                Ending::ShareDone { left: Some(units) }
            }
            Finish::Busy => Ending::ShareDone { left: None },
        }
    };
    // Millions of records take their time to read: once is enough.
    summary.total = match total {
        Some(counts) => counts,
        // Whoever stops on a store waits no longer: what this process knows is nearly all.
        None if !output.is_local() => known,
        None => output.ledger()?.counts(),
    };
    summary.seconds = started.elapsed().as_secs_f64();
    summary.device_seconds = stats.device_seconds();
    match too_many {
        Some(error) if summary.ending != Ending::Interrupted => Err(error),
        _ => Ok(summary),
    }
}

/// Takes the claim back however the run ends.
struct Leaving(Arc<Claims>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// Units to do, in plan order.
fn pending(plan: &Plan, before: &Ledger) -> Vec<Arc<Unit>> {
    let mut units = plan.share_of_units();
    units.retain(|unit| match (before.committed.get(&unit.id.to_string()), plan.start) {
        (None, Start::Repair) => false,
        (None, _) => true,
        (Some(record), Start::Repair) => record.counts.quarantined > 0,
        (Some(_), _) => false,
    });
    units
}

/// How often the claim of this process is looked at, and a stop.
const WATCH: Duration = Duration::from_millis(250);

/// Runs `work` and meanwhile says what this process is at; calls `overdue` once when a stop is not obeyed in time.
fn watched<T>(
    control: &Control,
    claims: &Claims,
    stats: &Stats,
    trace: &Trace,
    overdue: &(dyn Fn() + Sync),
    work: impl FnOnce() -> T,
) -> T {
    // Never sends: dropped when the work is done.
    let (running, done) = bounded::<()>(1);
    let goes_on = || done.recv_timeout(WATCH) == Err(RecvTimeoutError::Timeout);
    thread::scope(|scope| {
        // A thread of its own: a store that does not answer holds it up, and a stop is obeyed all the same.
        scope.spawn(|| {
            let mut warned = false;
            loop {
                if let Err(error) = claims.publish(stats.bytes().0)
                    && !std::mem::replace(&mut warned, true)
                {
                    tracing::warn!("failed to tell others what this process is at: {error}");
                }
                if !goes_on() {
                    return;
                }
            }
        });
        scope.spawn(|| {
            let mut called = false;
            loop {
                trace.flush();
                if control.overdue() && !std::mem::replace(&mut called, true) {
                    overdue();
                }
                if !goes_on() {
                    return;
                }
            }
        });
        let result = work();
        drop(running);
        result
    })
}

/// How many threads the stages get that can use several.
struct Threads {
    pretokenize: usize,
    patch: usize,
    encode: usize,
    compress: usize,
}

impl Threads {
    fn of(plan: &Plan) -> Self {
        let cores = thread::available_parallelism().map_or(1, |n| n.get());
        Threads {
            pretokenize: plan.pipeline.pretokenize.workers.map_or(cores, |n| n.get() as usize),
            // A unit's batches go to one thread in order: the second one takes the next unit early.
            patch: 2,
            encode: encoders(),
            compress: cores,
        }
    }
}

/// Threads that write units. They hash and wait for the disk or the store: while one does, others keep those who
/// compress at work.
fn encoders() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get()).clamp(2, 16)
}

struct Engine<'a> {
    plan: &'a Plan,
    output: &'a Output,
    encoder: Encoder,
    control: &'a Control,
    stats: &'a Stats,
    dealer: &'a Dealer<'a>,
    trace: &'a Arc<Trace>,
    /// Units whose record was made or found.
    settled: BTreeSet<UnitId>,
    /// What the output holds, as far as this process knows.
    total: Counts,
    /// Source rows of the plan, those of shards that are done and gone included.
    rows: u64,
    /// What of it came from this run.
    done: Counts,
    /// Rows that were given up and are still being decoded.
    given_up: Arc<AtomicUsize>,
}

impl Engine<'_> {
    /// Takes `units` through all stages once; returns those that failed, in their order. A failure of the whole run is
    /// left with the control.
    fn pass(&mut self, units: &[Arc<Unit>], model: &mut dyn EntropyModel) -> Vec<FailedUnit> {
        let (plan, control, stats, dealer) = (self.plan, self.control, self.stats, self.dealer);
        let (pretokenizer, row_time) = (&plan.pretokenizer, plan.pipeline.pretokenize.row_time);
        let device_class = model.device_class();
        let threads = Threads::of(plan);
        let budget = Budget::new(plan.memory, self.trace);
        let meters = Meters::new(&threads, self.trace);

        // Each channel closes when the stage that writes to it returns: the source first, then one after
        // the other. Capacities are small, since every message holds megabytes; what they are for is to
        // let neighbours run side by side, and one message more absorbs their unevenness.
        let (work_out, work_in) = channel(threads.pretokenize, &meters.source, &meters.pretokenize);
        // As many reserved slots as units can be at work in pretokenize, and one that is being packed.
        let (slots_out, slots_in) = channel(2 * threads.pretokenize + 1, &meters.source, &meters.pack);
        let (batches_out, batches_in) = channel(4, &meters.pack, &meters.model);
        let (scored_out, scored_in): (Vec<_>, Vec<_>) =
            (0..threads.patch).map(|_| channel(2, &meters.model, &meters.patch)).unzip();
        let (assembled_out, assembled_in) = channel(1, &meters.patch, &meters.encode);
        // Pieces point into their unit and hold nothing themselves.
        let (pieces_out, pieces_in) = channel(threads.compress, &meters.encode, &meters.compress);
        let (written_out, written_in) = channel(threads.encode, &meters.encode, &meters.commit);

        let mut queues = vec![work_out.queue(), slots_out.queue(), batches_out.queue()];
        queues.extend(scored_out.iter().map(|outlet| outlet.queue()));
        queues.extend([assembled_out.queue(), pieces_out.queue(), written_out.queue()]);
        stats.watch(meters.all(), queues);

        let (recipe, encoder) = (&plan.recipe, self.encoder.clone());
        let meters = &meters;
        thread::scope(|scope| {
            let crew = Spawner { scope, control, trace: self.trace };
            let (outlet, slots, source_budget) = (work_out, slots_out, budget);
            crew.spawn("source", move || {
                let (meter, decoding) = (&meters.source, pretokenizer.as_ref());
                stages::source(plan, units, meter, decoding, &source_budget, control, dealer, &outlet, &slots)
            });
            for _ in 0..threads.pretokenize {
                let inlet = work_in.clone();
                let mut decoder =
                    Decoder::new(pretokenizer.clone(), row_time, control, self.given_up.clone());
                crew.spawn("pretokenize", move || {
                    stages::pretokenize(plan, &mut decoder, &meters.pretokenize, &inlet)
                });
            }
            drop(work_in);
            crew.spawn("pack", move || stages::pack(plan, &meters.pack, control, &slots_in, &batches_out));
            crew.spawn("model", move || {
                stages::model(model, recipe, &meters.model, control, stats, &batches_in, &scored_out)
            });
            for inlet in scored_in {
                let outlet = assembled_out.clone();
                crew.spawn("patch", move || stages::patch(plan, &meters.patch, control, &inlet, &outlet));
            }
            drop(assembled_out);
            for _ in 0..threads.encode {
                let (inlet, outlet, encoder) = (assembled_in.clone(), written_out.clone(), encoder.clone());
                let pieces = pieces_out.clone();
                crew.spawn("encode", move || {
                    stages::encode(&encoder, &meters.encode, control, &inlet, &pieces, &outlet)
                });
            }
            drop((assembled_in, pieces_out, written_out));
            for _ in 0..threads.compress {
                let pieces = pieces_in.clone();
                crew.spawn("compress", move || stages::compress(&meters.compress, &pieces));
            }
            drop(pieces_in);
            self.trace.name_thread("commit");
            // The calling thread commits. The inlet is dropped before the scope waits for its threads.
            let inlet = written_in;
            let commit = AssertUnwindSafe(|| self.commit(&meters.commit, &device_class, &inlet));
            catch_unwind(commit).unwrap_or_else(|panic| {
                let message = panic_message(panic.as_ref()).to_owned();
                control.fail(RunError::Panic { stage: "commit", message });
                Vec::new()
            })
        })
    }

    fn commit(
        &mut self,
        meter: &StageMeter,
        device_class: &str,
        written: &Inlet<Passed<WrittenUnit>>,
    ) -> Vec<FailedUnit> {
        let mut failed = Vec::new();
        while let Some(unit) = written.recv() {
            // The ticket's share of the memory is given back once the unit is committed.
            let (_ticket, unit, id) = match unit {
                Ok(WrittenUnit { ticket, unit }) => {
                    let id = ticket.unit.id;
                    (ticket, unit, id)
                }
                Err(failure) => {
                    failed.push(failure);
                    continue;
                }
            };
            if self.control.halted() {
                unit.discard();
                continue;
            }
            let committed = meter.busy(id, || self.output.commit(unit, device_class, self.plan.batch_tokens));
            match committed {
                Ok(Committed { record, superseded, ours }) => {
                    self.stats.committed(record.counts.rows);
                    self.settled.insert(id);
                    if ours || !self.dealer.repairs() {
                        self.total.add(&record.counts);
                    }
                    if let Some(superseded) = superseded {
                        self.total.subtract(&superseded.counts);
                    }
                    if ours {
                        self.done.add(&record.counts);
                        tracing::debug!(unit = %record.unit, rows = record.counts.rows, "committed");
                    } else if self.dealer.repairs() {
                        self.done.add(&record.counts);
                        tracing::debug!(unit = %record.unit, "came out as it was");
                    } else {
                        tracing::info!(unit = %record.unit, "was committed by another process");
                    }
                    if !self.dealer.repairs() {
                        self.check_quarantine();
                    }
                }
                Err(error) => self.control.fail(error.midway().into()),
            }
        }
        // They come as threads finish; readers want them in order.
        failed.sort_by_key(|failure: &FailedUnit| failure.unit.id);
        failed
    }

    fn check_quarantine(&self) {
        if let Some(error) = self.too_many_quarantined() {
            self.control.fail(error);
        }
    }

    fn too_many_quarantined(&self) -> Option<RunError> {
        let (quarantined, rows) = (self.total.quarantined, self.rows);
        let exceeded = match self.plan.pipeline.limits.max_quarantined {
            Quarantine::Rows(allowed) => quarantined > allowed,
            Quarantine::Fraction(allowed) => quarantined as f64 > allowed * rows as f64,
        };
        exceeded.then_some(RunError::Quarantine { quarantined, rows })
    }

    fn record_failures(&self, failed: &[FailedUnit]) -> Result<Vec<Failure>, SinkError> {
        let mut failures = Vec::new();
        for (index, file, reason) in self.plan.broken() {
            failures.push(Failure {
                name: format!("{index:05}"),
                source_file: file.source_file.clone(),
                stage: "source",
                input: true,
                reason: reason.into(),
            });
        }
        for f in failed {
            // Another process may have done it.
            if !self.dealer.repairs() && self.output.is_committed(f.unit.id)? {
                continue;
            }
            failures.push(Failure {
                name: f.unit.id.to_string(),
                source_file: f.unit.source_file.to_string(),
                stage: f.stage,
                input: f.blame == Blame::Input,
                reason: f.reason.clone(),
            });
        }
        for Failure { name, source_file, stage, reason, .. } in &failures {
            let (unit, source_file) = (name.clone(), source_file.clone());
            let (stage, reason) = ((*stage).to_owned(), reason.clone());
            self.output.record_failure(&FailureRecord { unit, source_file, stage, reason })?;
        }
        Ok(failures)
    }
}

/// One meter a stage.
struct Meters {
    source: Arc<StageMeter>,
    pretokenize: Arc<StageMeter>,
    pack: Arc<StageMeter>,
    model: Arc<StageMeter>,
    patch: Arc<StageMeter>,
    encode: Arc<StageMeter>,
    compress: Arc<StageMeter>,
    commit: Arc<StageMeter>,
}

impl Meters {
    fn new(threads: &Threads, trace: &Arc<Trace>) -> Self {
        let meter = |name, threads| StageMeter::new(name, threads, trace);
        Meters {
            source: meter("source", 1),
            pretokenize: meter("pretokenize", threads.pretokenize),
            pack: meter("pack", 1),
            model: meter("model", 1),
            patch: meter("patch", threads.patch),
            encode: meter("encode", threads.encode),
            compress: meter("compress", threads.compress),
            commit: meter("commit", 1),
        }
    }

    fn all(&self) -> Vec<Arc<StageMeter>> {
        let Meters { source, pretokenize, pack, model, patch, encode, compress, commit } = self;
        [source, pretokenize, pack, model, patch, encode, compress, commit].map(Arc::clone).into()
    }
}

/// Starts the threads of a pass, and sees to it that a panic ends the run with its own words.
struct Spawner<'scope, 'env> {
    scope: &'scope thread::Scope<'scope, 'env>,
    control: &'scope Control,
    trace: &'scope Trace,
}

impl<'scope> Spawner<'scope, '_> {
    fn spawn(&self, stage: &'static str, body: impl FnOnce() -> Result<(), Closed> + Send + 'scope) {
        let (control, trace) = (self.control, self.trace);
        let fail = move |message| control.fail(RunError::Panic { stage, message });
        let watched = move || {
            trace.name_thread(stage);
            match catch_unwind(AssertUnwindSafe(body)) {
                // Whoever closed the channel has recorded why, or was itself closed out.
                Ok(Ok(()) | Err(Closed)) => {}
                Err(panic) => fail(panic_message(panic.as_ref()).to_owned()),
            }
        };
        if let Err(error) = thread::Builder::new().name(stage.into()).spawn_scoped(self.scope, watched) {
            fail(format!("failed to start its thread: {error}"));
        }
    }
}
