//! Batch engine that runs the Byte Latent Transformer's entropy model over Parquet: documents in; the
//! uncertainty about every byte, the patches it gives, and their embeddings out.
//!
//! The program `blt-pipeline` is a thin shell around this crate. What it does from a user's side stands
//! in `README.md`; this page is the architecture.
//!
//! # Example
//!
//! Score a document with the model inside the crate, and cut it where the next byte is hard to guess:
//!
//! ```
//! use std::iter::once;
//!
//! use blt_pipeline::config::RELEASED_THRESHOLD;
//! use blt_pipeline::data::{BOS, BYTE_OFFSET, Boundary, EOS, PatchRule, Wanted};
//! use blt_pipeline::model::{CpuModel, ModelFiles, score_documents};
//! use blt_pipeline::patch::{byte_spans, patch_lengths};
//!
//! let text: &[u8] = b"The tide comes in twice a day, and the harbour follows it.";
//!
//! let files = ModelFiles::embedded()?;
//! let threshold = files.patch.map_or(RELEASED_THRESHOLD, |patch| patch.threshold);
//! let mut model = CpuModel::new(&files);
//! let scores = score_documents(&mut model, &[text], 8192, Wanted::default())?;
//! assert_eq!(scores[0].entropies.len(), text.len() + 2); // [j]: the uncertainty about byte j, in nats
//!
//! let bytes = text.iter().map(|&byte| u16::from(byte) + BYTE_OFFSET);
//! let tokens: Vec<u16> = once(BOS).chain(bytes).chain([EOS]).collect();
//! let rule = PatchRule { boundary: Boundary::Above { threshold }, max_patch_length: None };
//! let lengths = patch_lengths(&rule, &tokens, &scores[0].entropies);
//!
//! let patches: Vec<&[u8]> = byte_spans(&lengths).map(|(start, n)| &text[start..start + n]).collect();
//! assert_eq!(patches.concat(), text); // patches tile the document
//! assert!(patches.len() < text.len() / 2);
//! # Ok::<(), blt_pipeline::model::ModelError>(())
//! ```
//!
//! # The way of the data
//!
//! ```text
//! Pipeline ──▶ Plan: shards, units, recipe, fingerprint
//!                │
//!                ▼
//!     source ──RawBatch──▶ pretokenize ×N ──SegmentedBatch──▶ pack ──PackedBatch──▶ model
//!                                                                                     │
//!     commit ◀──EncodedUnit── encode ×M ◀──PatchedUnit── patch ×2 ◀──Scores───────────┘
//!                              │    ▲
//!                        Piece ▼    │ EncodedPiece
//!                            compress ×C
//! ```
//!
//! Every station is a function from the end of one channel to the beginning of the next, on threads of
//! its own that [`pipeline::run`] starts and joins. Decoders of foreign files may hang: they run on threads beside those of
//! `pretokenize`, which wait for a row only so long, and then let row and thread go. Nothing else spawns during a run. Channels are
//! bounded, and every wait on one is measured, which is how the summary can name the bottleneck. What a
//! station hands on has a type of its own, so that a batch can neither skip a station nor meet one twice.
//!
//! Units leave `pretokenize` in the order in which they entered: the source reserves a unit's place
//! before its rows are worked on. The source also takes the unit's share of `limits.memory` as its rows come, which is
//! given back once the unit is committed, and it is the only station that obeys a stop at once: the
//! others end as their channels close. One thread has the model; the thread that called
//! [`run`](pipeline::run) commits.
//!
//! A unit of patch embeddings is hundreds of megabytes, and few of them fit into the memory. So `encode` cuts each row group
//! into pieces, a page of floats or another column, has them encoded and compressed by whoever of `compress` is free, and
//! itself only puts them together, hashes and writes.
//!
//! All of it can be watched: [`pipeline::Trace`] is told what each thread did, and waited for, when.
//!
//! # The unit
//!
//! A *shard* is an input file. A *unit* is a run of its rows: whole row groups, or an even part of one
//! that is larger than `sink.unit_bytes` ([`source::cut`]). Units follow from the footers (JSON Lines
//! have none: from what reading a file through tells) and the plan alone, so every machine cuts the same ones. A unit is read, scored, written and committed on its own;
//! nothing flows from one to the next. (Files that rows name in place of content are read with the unit; they count as a part of
//! the shard, though nothing but their being read once a unit holds them to it.) It is therefore also what is retried and what a resumed run skips.
//!
//! A failure in one unit, a panic included, does not end the run. The unit travels on as the news of its
//! failure, so that the end of the line hears of every unit once; it is tried again after all others,
//! and then recorded below `_blt/failed`. A shard whose footer cannot be read fails as a whole. What ends
//! a run is a storage that cannot be written, more rows in quarantine than allowed, or a panic outside
//! of a unit's work.
//!
//! # Commit
//!
//! 1. A unit's tables are written to `.tmp-<unit>-<attempt>-…` files beside their place, synced, and
//!    renamed to `<table>/<shard>-<unit>-<hash8>.parquet`, where `hash8` is of the content; then the folder
//!    is synced. A table without rows has no file.
//! 2. The record `_blt/commits/<shard>-<unit>.json` is created by a hard link, which fails if another
//!    attempt was first. Its existence commits the unit. A loser removes the files that the winner's
//!    record does not name.
//! 3. Once every unit has its record, whatever no record names is removed, and `_blt/manifest.json` is
//!    written last: it lists every file that counts.
//!
//! In an object store ([`sink::Storage`]) there are no temporary names and no renames: `encode` writes to the local disk and puts the
//! hashed files under their final names, and the record is an object that is put only if there is none. An answer may be
//! lost, so the record is read back before anything is said of it; nothing is taken for committed, or not, because a
//! request failed.
//!
//! `_blt/plan.json` says what the output was made from. A run whose plan differs is refused with every
//! difference; one whose plan is the same does the units that have no record yet.
//!
//! Nothing that counts is ever overwritten. What takes the place of a record or of the plan is created
//! beside it under the next number (`<unit>.r1.json`, `plan.r1.json`), and the highest readable number
//! counts: a repair of a unit with rows in quarantine, a plan with more shards, and the second try
//! after a torn record are all the same operation, and of two processes that try one wins.
//!
//! # Who may remove what
//!
//! A process may be paused anywhere and go on days later. So a file under a final name stays as long as
//! its unit has no record: the attempt that made it could still name it. Once there is a record, an
//! unnamed file belongs to an attempt that has lost, and whoever finishes the output removes it
//! ([`sink::collect`]). Only a repair may supersede a record, so repairs share the lock `_blt/lock`, and
//! whoever removes files holds it alone; the system releases it when a process dies. Committing takes no
//! lock, and no attempt waits for another; only who finishes an output waits a moment for who is at it.
//! `--fresh` is the exception: it deletes what an attempt could still name, so it asks the claims first,
//! and an attempt looks once more for its files before it creates its record.
//!
//! A store has no such lock, and repairs are refused there. Then no record is ever superseded, and whoever finishes the
//! output may remove what no record names at any time. Where two finish it and it grew in between, the one that writes
//! its manifest last has to have seen the plan that counts: each looks for it once more afterwards.
//!
//! Claims (`_blt/claims`) say which process is at which unit. They are advice, for [`sink::Status`] and so
//! that processes seldom do the same; no promise rests on them, or on a clock.
//!
//! # The same bytes
//!
//! The content of a unit's files depends on this crate's version, the plan, the batch size in tokens and
//! the [device class](model::EntropyModel::device_class), and the commit record holds the last two. It
//! does not depend on the number of threads, the other units, the time, the host, or how often a run was
//! stopped. That is why files carry no time and no host, means are summed in a fixed order, and
//! [`source.sample`](config::Sample) is a hash of file and row rather than a random draw.
//!
//! # Tokens
//!
//! A document of n bytes is n + 2 tokens: [`BOS`](data::BOS), every byte plus
//! [`BYTE_OFFSET`](data::BYTE_OFFSET), [`EOS`](data::EOS). Entropy `j` is that of the prediction made
//! after token `j`, hence the uncertainty about byte `j`; norm and hidden state of byte `j` are those of
//! token `j + 1`. A document longer than the model's context is cut into *contexts*, each scored alone
//! with positions from 0. Contexts of many documents lie end to end in one stream, without padding and
//! without seeing each other.
//!
//! # Modules
//!
//! | module | in → out | may use |
//! |---|---|---|
//! | [`data`] | what travels between stations | – |
//! | [`schema`] | a unit → record batches of the output tables | `data`, `config` |
//! | [`config`] | pipeline file and flags → a validated [`Pipeline`](config::Pipeline) | `data` |
//! | [`remote`] | addresses elsewhere → listings, ranges, whole files, conditional puts; object stores and the Hub | – |
//! | [`source`] | URI → shards, units, rows: Parquet, JSON Lines, loose files | `data`, `config`, `remote` |
//! | [`pretokenize`] | a row's content → what the model sees of it, with segments | `data`, `config` |
//! | `inspect` | a scored document → what a person sees of it | `patch` |
//! | [`model`] | bytes → entropies, norms, hidden states; `model::cpu` on the processor, `model::burn` on GPUs, and it alone knows Burn | `data`, `config` |
//! | [`patch`] | entropies → patch lengths | `data` |
//! | [`sink`] | a unit → Parquet files, records, manifest; what they say, and whether it is true | `data`, `schema`, `config`, `remote` |
//! | [`pipeline`] | a [`Plan`](pipeline::Plan) → an output and a [`Summary`](pipeline::Summary) | all above |
//! | [`publish`] | an output or a model's folder → a repository on the Hub | `sink`, `schema`, `model` |

pub mod config;
pub mod data;
mod fault;
mod figures;
#[cfg(feature = "media")]
pub mod inspect;
pub mod model;
pub mod patch;
pub mod pipeline;
pub mod pretokenize;
pub mod publish;
#[cfg(feature = "remote")]
pub mod remote;
#[cfg(not(feature = "remote"))]
#[path = "no_remote.rs"]
pub mod remote;
pub mod schema;
pub mod sink;
pub mod source;
