//! Whatever type holds the content, the model sees the same bytes.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BinaryViewArray, DictionaryArray, FixedSizeBinaryArray,
        LargeBinaryArray, LargeStringArray, StringArray, StringViewArray, StructArray,
    },
    buffer::NullBuffer,
    datatypes::{DataType, Field, Fields, Int32Type},
};

use crate::support::{Row, Work};

/// Of equal length, for the type of fixed size; the last is missing.
const TEXTS: [Option<&str>; 4] = [Some("harbour!"), Some("fog horn"), Some("ünïcöd"), None];

fn padded() -> [Option<&'static str>; 4] {
    TEXTS.map(|text| text.map(|t| if t.len() == 9 { "ünïcö" } else { t }))
}

/// `documents` without what names them, and the rows in quarantine.
fn outcome(column: ArrayRef) -> (Vec<Row>, Vec<(u64, String)>) {
    use arrow::{array::AsArray, datatypes::UInt64Type};
    let work = Work::new();
    let rows = column.len();
    work.shard("a.parquet", [("text", column)], rows);
    work.run(&["limits.max_quarantined=1.0"]);
    let quarantine = work.table("quarantine").map_or(Vec::new(), |table| {
        let rows = table["source_row"].as_primitive::<UInt64Type>().values().iter().copied();
        let reasons = table["reason"].as_string::<i32>().iter().map(|r| r.unwrap().to_owned());
        rows.zip(reasons).collect()
    });
    (work.documents(), quarantine)
}

fn bytes() -> Vec<Option<&'static [u8]>> {
    padded().iter().map(|t| t.map(str::as_bytes)).collect()
}

#[test]
fn every_type_of_content_gives_the_same_documents() {
    let texts = padded();
    let expected = outcome(Arc::new(StringArray::from(texts.to_vec())));
    assert_eq!(expected.0.iter().map(|r| r.n_bytes).collect::<Vec<_>>(), [8, 8, 8]);
    assert_eq!(expected.1, [(3, "the content is null".to_owned())]);

    let dictionary: DictionaryArray<Int32Type> = texts.into_iter().collect();
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes().into_iter(), 8).unwrap();
    let keys = [Some(0), Some(1), Some(2), None].into_iter().collect();
    let short = FixedSizeBinaryArray::try_from_iter(bytes().into_iter().flatten()).unwrap();
    let columns: [(&str, ArrayRef); 9] = [
        ("large_string", Arc::new(LargeStringArray::from(texts.to_vec()))),
        ("string_view", Arc::new(StringViewArray::from(texts.to_vec()))),
        ("binary", Arc::new(BinaryArray::from(bytes()))),
        ("large_binary", Arc::new(LargeBinaryArray::from(bytes()))),
        ("binary_view", Arc::new(BinaryViewArray::from(bytes()))),
        ("fixed_size_binary", Arc::new(fixed)),
        ("dictionary of strings", Arc::new(dictionary)),
        (
            "dictionary of fixed_size_binary",
            Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(short))),
        ),
        ("struct<bytes, path>", images(&[0, 1, 2, 2], Some(3), None)),
    ];
    for (name, column) in columns {
        assert!(outcome(column) == expected, "{name}");
    }
}

/// Hugging Face's way to store files: `bytes` of the given texts, `path` of all rows but one null.
fn images(texts: &[usize], null_struct: Option<usize>, null_bytes: Option<usize>) -> ArrayRef {
    let content = texts.iter().enumerate().map(|(i, &t)| bytes()[t].filter(|_| Some(i) != null_bytes));
    let content: BinaryArray = content.collect();
    let paths: StringArray = (0..texts.len()).map(|i| (i != 1).then(|| format!("{i}.txt"))).collect();
    let fields = Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]);
    let valid: NullBuffer = (0..texts.len()).map(|i| Some(i) != null_struct).collect::<Vec<_>>().into();
    Arc::new(StructArray::try_new(fields, vec![Arc::new(content), Arc::new(paths)], Some(valid)).unwrap())
}

#[test]
fn a_null_struct_or_null_bytes_go_to_quarantine_and_a_null_path_does_not_matter() {
    let (documents, quarantine) = outcome(images(&[0, 1, 2, 0], Some(0), Some(2)));
    assert_eq!(documents.iter().map(|r| r.source_row).collect::<Vec<_>>(), [1, 3]);
    let null = "the content is null".to_owned();
    assert_eq!(quarantine, [(0, null.clone()), (2, null)]);
}
