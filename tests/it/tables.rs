//! The output tables say what the library says of the same documents: scores, patches, means,
//! embeddings; and their files have the schemas that are documented.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch},
    datatypes::{Fields, Schema, UInt8Type, UInt32Type, UInt64Type},
};
use blt_pipeline::{
    config::{EmbeddingDtype, Embeddings},
    data::{BOS, BYTE_OFFSET, DOCUMENT_COLUMNS, EOS, PatchRule},
    model::{DocumentScores, score_documents},
    patch::{byte_spans, patch_lengths},
    schema::{self, Table, TableOptions},
};
use half::f16;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::{
    golden::{self, ALL},
    support::{Row, Work, files, prose, rows},
};

/// Nano's hidden state.
const DIM: usize = 64;
/// Nano's longest context.
const CONTEXT: usize = 8192;

/// Nothing, a byte, no UTF-8, a paragraph, a byte more than a context, and more than two contexts.
fn documents() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        b"x".to_vec(),
        vec![0xff, 0xfe, 0x00, b'a', 0xc3, 0x28, 0x80],
        prose(700, 1).into_bytes(),
        prose(CONTEXT - 1, 2).into_bytes(),
        prose(2 * CONTEXT + 300, 3).into_bytes(),
    ]
}

fn shard(work: &Work, documents: &[Vec<u8>]) {
    let column = BinaryArray::from_iter_values(documents);
    work.shard("a.parquet", [("text", Arc::new(column) as ArrayRef)], 3);
}

fn tokens(bytes: &[u8]) -> Vec<u16> {
    let bytes = bytes.iter().map(|&b| u16::from(b) + BYTE_OFFSET);
    std::iter::once(BOS).chain(bytes).chain([EOS]).collect()
}

fn score(documents: &[Vec<u8>]) -> Vec<DocumentScores> {
    let slices: Vec<&[u8]> = documents.iter().map(|d| &d[..]).collect();
    score_documents(&mut golden::nano(), &slices, CONTEXT, ALL).unwrap()
}

#[track_caller]
fn assert_close(ours: &[f32], theirs: &[f32], tolerance: f32, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what} {i}: {a}, not {b}");
    }
}

fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64) as f32
}

/// Mean hidden state of the bytes from `start` on, summed in f64.
fn mean_state(scores: &DocumentScores, start: usize, length: usize) -> Vec<f32> {
    let states = scores.pre_norm.as_ref().unwrap();
    let state = |i: usize| {
        let values = (start + 1..=start + length).map(|token| f64::from(states[token * DIM + i]));
        (values.sum::<f64>() / length as f64) as f32
    };
    (0..DIM).map(state).collect()
}

/// Equal to the nearest half, one step aside allowed.
#[track_caller]
fn assert_halves(ours: &[f32], theirs: &[f32], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (a, b) in ours.iter().zip(theirs) {
        let step = f16::from_f32(b.abs()).to_bits() + 1;
        let step = f16::from_bits(step).to_f32() - b.abs();
        assert!((a - b).abs() <= 1.5 * step.abs().max(1e-4), "{what}: {a}, not {b}");
    }
}

/// The rule that the pipeline uses: nano has no threshold of its own.
fn rule(work: &Work) -> PatchRule {
    work.pipeline(&[]).patch.resolve(None)
}

#[test]
fn documents_and_patches_equal_the_library() {
    let (work, documents) = (Work::new(), documents());
    shard(&work, &documents);
    work.run(&[]);
    let (rule, scores) = (rule(&work), score(&documents));
    let table = work.documents();
    let patches = rows(&work.table("patches").unwrap());
    let numbers = work.table("patches").unwrap()["patch"].as_primitive::<UInt32Type>().values().to_vec();
    let mut next = 0;
    assert_eq!(table.len(), documents.len());
    for (row, (document, (bytes, scores))) in table.iter().zip(documents.iter().zip(&scores)).enumerate() {
        assert_eq!((document.source_row, document.n_bytes), (row as u64, bytes.len() as u64));
        assert_eq!(
            (&*document.source_file, document.doc_id.as_str()),
            ("a.parquet", &*format!("a.parquet#{row}"))
        );
        assert_close(&document.entropies, &scores.entropies, 1e-4, "entropy");
        assert_close(&document.norms, scores.norms.as_ref().unwrap(), 1e-4, "norm");
        // From the written entropies, so that a difference in their last bit cannot move a patch.
        assert_eq!(document.patch_lengths, patch_lengths(&rule, &tokens(bytes), &document.entropies));

        let first = next;
        for (start, length) in byte_spans(&document.patch_lengths) {
            let patch: &Row = &patches[next];
            assert_eq!((patch.source_row, &patch.doc_id), (document.source_row, &document.doc_id));
            assert_eq!(
                (numbers[next] as usize, patch.start, patch.length),
                (next - first, start as u64, length as u64)
            );
            assert_eq!(patch.entropy_start, document.entropies[start]);
            assert_eq!(patch.entropy_mean, mean(&document.entropies[start..start + length]));
            assert_eq!(patch.norm_mean, mean(&document.norms[start + 1..=start + length]));
            let expected = mean_state(scores, start, length);
            assert_halves(patch.embedding.as_ref().unwrap(), &expected, "embedding");
            next += 1;
        }
        let own = &patches[first..next];
        assert_eq!(own.iter().map(|p| p.length).sum::<u64>(), bytes.len() as u64);
        assert!(own.windows(2).all(|pair| pair[0].start + pair[0].length == pair[1].start));
    }
    assert_eq!(next, patches.len());
}

#[test]
fn a_document_embedding_is_the_mean_over_its_bytes_and_null_without_any() {
    let (work, mut documents) = (Work::new(), documents());
    documents.truncate(4);
    shard(&work, &documents);
    work.run(&["sink.embeddings=document", "sink.embedding_dtype=f32"]);
    for (row, (scores, bytes)) in work.documents().iter().zip(score(&documents).iter().zip(&documents)) {
        let Some(embedding) = &row.embedding else {
            assert!(bytes.is_empty());
            continue;
        };
        assert_close(embedding, &mean_state(scores, 0, bytes.len()), 1e-3, "embedding");
    }
    let nulls = work.table("documents").unwrap()["embedding"].null_count();
    assert_eq!(nulls, 1, "the empty document's");
    assert!(
        work.table("bytes").is_none() && work.table("patches").unwrap().column_by_name("embedding").is_none()
    );
}

#[test]
fn the_table_of_bytes_holds_every_byte_with_its_own_scores() {
    let (work, mut documents) = (Work::new(), documents());
    documents.truncate(4);
    shard(&work, &documents);
    work.run(&["sink.embeddings=byte"]);
    let table = work.table("bytes").unwrap();
    let values = table["value"].as_primitive::<UInt8Type>().values();
    assert_eq!(values[..], documents.concat());
    let positions = table["byte"].as_primitive::<UInt64Type>().values();
    let source_rows = table["source_row"].as_primitive::<UInt64Type>().values();
    let float = |name: &str| table[name].as_primitive::<arrow::datatypes::Float32Type>().values().to_vec();
    let (entropy, norm) = (float("entropy"), float("norm"));
    let embeddings = rows(&table);
    let (scores, written) = (score(&documents), work.documents());
    let mut i = 0;
    for (row, bytes) in documents.iter().enumerate() {
        for j in 0..bytes.len() {
            assert_eq!((positions[i], source_rows[i]), (j as u64, row as u64));
            assert_eq!((entropy[i], norm[i]), (written[row].entropies[j], written[row].norms[j + 1]));
            let expected = mean_state(&scores[row], j, 1);
            assert_halves(embeddings[i].embedding.as_ref().unwrap(), &expected, "embedding");
            i += 1;
        }
    }
    assert_eq!(i, table.num_rows());
}

#[test]
fn a_text_document_is_one_segment_and_an_empty_one_none() {
    let work = Work::with(&["keeper", ""]);
    work.run(&[]);
    let table = work.table("documents").unwrap();
    let segments = table["segments"].as_list::<i32>();
    assert_eq!((segments.value_length(0), segments.value_length(1)), (1, 0));
    let segment = segments.value(0);
    let column = |name: &str| segment.as_struct().column_by_name(name).unwrap().clone();
    assert_eq!(column("kind").as_string::<i32>().value(0), "text");
    assert_eq!(column("start").as_primitive::<UInt64Type>().value(0), 0);
    assert_eq!(column("end").as_primitive::<UInt64Type>().value(0), 6);
    assert!(column("meta").is_null(0));
    assert!(table["modality"].as_string::<i32>().iter().all(|m| m == Some("text")));
}

fn schema_of(path: &Path) -> Schema {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.schema().as_ref().clone()
}

#[test]
fn files_have_the_schemas_that_are_documented() {
    for (embeddings, set) in [
        (Embeddings::None, "none"),
        (Embeddings::Document, "document"),
        (Embeddings::Patch, "patch"),
        (Embeddings::Byte, "byte"),
    ] {
        let work = Work::new();
        let texts = arrow::array::StringArray::from(vec![Some("keeper"), None]);
        work.shard("a.parquet", [("text", Arc::new(texts) as ArrayRef)], 2);
        work.run(&[&format!("sink.embeddings={set}"), "limits.max_quarantined=1.0"]);
        let options = TableOptions {
            dim: DIM,
            embeddings,
            embedding_dtype: EmbeddingDtype::F16,
            entropies: true,
            norms: true,
            views: false,
            carried: Fields::empty(),
        };
        for table in Table::ALL {
            let written = files(&work.out(), table.name());
            if table == Table::Bytes && embeddings != Embeddings::Byte {
                assert!(written.is_empty());
                continue;
            }
            let found = schema_of(&work.out().join(table.name()).join(&written[0]));
            assert_eq!(found, *schema::schema(table, &options), "{table} with {set}");
        }
    }
}

/// Run with `BLT_UPDATE=1` to write the schemas anew.
#[test]
fn the_schemas_in_the_repository_are_those_of_the_tables() {
    for table in Table::ALL {
        let path = PathBuf::from(format!("schemas/{table}.json"));
        let current = format!("{:#}\n", schema::describe(table));
        if std::env::var_os("BLT_UPDATE").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == current, "{} is out of date: run this test with BLT_UPDATE=1", path.display());
    }
}

#[test]
fn the_names_that_nothing_can_be_carried_under_are_the_columns_of_documents() {
    let options = TableOptions {
        dim: 1,
        embeddings: Embeddings::Document,
        embedding_dtype: EmbeddingDtype::F16,
        entropies: true,
        norms: true,
        views: true,
        carried: Fields::empty(),
    };
    let schema = schema::schema(Table::Documents, &options);
    let own: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(own, DOCUMENT_COLUMNS);
}

#[test]
fn lists_have_no_page_statistics_and_floats_are_split_into_byte_streams() {
    let work = Work::with(&["keeper", "counts"]);
    work.run(&[]);
    let path = work.out().join("documents").join(&files(&work.out(), "documents")[0]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let group = reader.metadata().row_group(0);
    let column = |name: &str| group.columns().iter().find(|c| c.column_path().string() == name).unwrap();
    let entropies = column("entropies.list.item");
    assert!(entropies.encodings().any(|e| e == parquet::basic::Encoding::BYTE_STREAM_SPLIT));
    assert!(entropies.statistics().is_none() && column("n_bytes").statistics().is_some());
}

/// A table without rows has no file: `RecordBatch` readers would have nothing to show.
#[test]
fn a_table_without_rows_has_no_file() {
    let work = Work::with(&["", ""]);
    work.run(&["sink.embeddings=byte"]);
    let count = |table: &str| work.table(table).map(|t: RecordBatch| t.num_rows());
    assert_eq!(["documents", "patches", "bytes", "quarantine"].map(count), [Some(2), None, None, None]);
}
