//! A committed unit in; the first thing in its files that contradicts its record, its plan, or itself out. Never holds
//! more than a few rows of a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
    vec::IntoIter,
};

use super::{
    Checked, Halt, Problem, ProblemRow, record_file,
    rows::{Bytes, Cursor, Document, Documents, Patches, Quarantined, TableFile},
    rules::Rules,
};
use crate::{
    config::Embeddings,
    schema::Table,
    sink::{CommitRecord, Counts, Storage},
};

/// Checks the files that `record` names, all of them.
pub(super) fn check(storage: &Storage, rules: &mut Rules, record: &CommitRecord) -> Checked<()> {
    let recorded = record_file(storage, &record.unit)?;
    let in_record = |what| Problem::of_record(&recorded, Some(&record.unit), what);
    let mut files = BTreeMap::new();
    for entry in &record.files {
        let file = TableFile::open(storage, rules, record, entry)?;
        if files.insert(entry.table.as_str(), file).is_some() {
            return Err(in_record(format!("it names two files of the table {}", entry.table)));
        }
    }
    let mut take = |table: Table| files.remove(table.name());
    let names = (recorded.as_str(), record.unit.as_str());
    let quarantined = quarantined_rows(Cursor::new(take(Table::Quarantine), Quarantined::of, names))?;
    let mut documents = Cursor::new(take(Table::Documents), Documents::of, names);
    let mut patches = Cursor::new(take(Table::Patches), Patches::of, names);
    let mut bytes = Cursor::new(take(Table::Bytes), Bytes::of, names);

    let path = documents.path().to_owned();
    let problem = |row: u64, what: String| -> Halt {
        let (row, unit) = (Some(ProblemRow::Source(row)), Some(record.unit.clone()));
        Problem { file: path.clone(), row, unit, what }.into()
    };
    let mut counts = Counts {
        rows: record.row_end - record.row_start,
        quarantined: quarantined.len() as u64,
        ..Counts::default()
    };
    let mut account =
        Account { due: record.row_start, quarantined: quarantined.into_iter().peekable(), n_left_out: 0 };
    let mut views = Views::default();
    while let Some((columns, row)) = documents.next()? {
        let document = columns.row(row);
        let source_row = document.source_row;
        if !views.is_further_view(&document).map_err(|what| problem(source_row, what))? {
            account.document(rules, record, source_row).map_err(|(row, what)| problem(row, what))?;
        }
        check_document(&document).map_err(|what| problem(source_row, what))?;
        counts.patches += check_patches(&document, &mut patches)?;
        if rules.tables.embeddings == Embeddings::Byte {
            check_bytes(&document, &mut bytes)?;
        }
        counts.documents += 1;
        counts.bytes += document.n_bytes;
        if let Some(entropies) = document.entropies {
            let of_bytes = &entropies[..entropies.len() - 2];
            counts.entropy_sum += of_bytes.iter().map(|&h| f64::from(h)).sum::<f64>();
        }
    }
    account.until(rules, record, record.row_end).map_err(|(row, what)| problem(row, what))?;
    counts.filtered = account.n_left_out;
    expect_end(&mut patches)?;
    expect_end(&mut bytes)?;
    if !rules.tables.entropies {
        // Nothing else tells it.
        counts.entropy_sum = record.counts.entropy_sum;
    }
    compare_counts(&counts, &record.counts).map_err(in_record)
}

/// Source rows in quarantine, in order.
fn quarantined_rows(mut cursor: Cursor<Quarantined>) -> Checked<Vec<u64>> {
    let mut found: Vec<u64> = Vec::new();
    while let Some((columns, row)) = cursor.next()? {
        let source_row = columns.keys.source_row.value(row);
        let mut wrong = None;
        if found.last().is_some_and(|&last| last >= source_row) {
            wrong = Some("its source rows do not ascend");
        } else if columns.stage.value(row).is_empty() || columns.reason.value(row).is_empty() {
            wrong = Some("stage or reason is empty");
        }
        if let Some(wrong) = wrong {
            return Err(cursor.problem_here(source_row, wrong.into()));
        }
        found.push(source_row);
    }
    Ok(found)
}

/// Views of the source row that came last.
#[derive(Default)]
struct Views {
    source_row: Option<u64>,
    source_id: String,
    doc_ids: BTreeSet<String>,
}

impl Views {
    /// Whether `document` is one more view of the row that came last.
    ///
    /// # Errors
    /// When its names are not those of a view.
    fn is_further_view(&mut self, document: &Document<'_>) -> Result<bool, String> {
        let Some(source_id) = document.source_id else { return Ok(false) };
        let doc_id = document.doc_id;
        let is_named =
            doc_id.strip_prefix(source_id).is_some_and(|name| name.is_empty() || name.starts_with('/'));
        if !is_named {
            return Err(format!("doc_id is {doc_id:?}, of a view of {source_id:?}"));
        }
        let is_further = self.source_row == Some(document.source_row);
        if !is_further {
            let (source_row, source_id) = (Some(document.source_row), source_id.to_owned());
            *self = Views { source_row, source_id, doc_ids: BTreeSet::new() };
        } else if self.source_id != source_id {
            return Err(format!("source_id is {source_id:?}, that of another view {:?}", self.source_id));
        }
        match self.doc_ids.insert(doc_id.to_owned()) {
            true => Ok(is_further),
            false => Err(format!("the view {doc_id:?} is there twice")),
        }
    }
}

/// Accounts for every source row of a unit, in order.
struct Account {
    /// The first row that nothing was said of yet.
    due: u64,
    quarantined: Peekable<IntoIter<u64>>,
    n_left_out: u64,
}

impl Account {
    /// A document of `source_row` came.
    fn document(
        &mut self,
        rules: &Rules,
        record: &CommitRecord,
        source_row: u64,
    ) -> Result<(), (u64, String)> {
        if source_row < self.due {
            let what = format!("the row is there twice, or too late: source row {} was due", self.due);
            return Err((source_row, what));
        }
        self.until(rules, record, source_row)?;
        if self.quarantined.peek() == Some(&source_row) {
            return Err((source_row, "the row is in documents and in quarantine".into()));
        }
        refuse_left_out(rules, record, source_row)?;
        self.due = source_row + 1;
        Ok(())
    }

    /// No document comes from the rows that are due before `end`.
    fn until(&mut self, rules: &Rules, record: &CommitRecord, end: u64) -> Result<(), (u64, String)> {
        for row in self.due..end {
            if self.quarantined.next_if_eq(&row).is_some() {
                refuse_left_out(rules, record, row)?;
            } else if rules.has_filter || !keeps(rules, record, row) {
                self.n_left_out += 1;
            } else {
                return Err((row, "the row is neither in documents nor in quarantine".into()));
            }
        }
        self.due = end;
        Ok(())
    }
}

fn keeps(rules: &Rules, record: &CommitRecord, row: u64) -> bool {
    rules.sample.is_none_or(|sample| sample.keeps(&record.source_file, row))
}

fn refuse_left_out(rules: &Rules, record: &CommitRecord, row: u64) -> Result<(), (u64, String)> {
    if keeps(rules, record, row) { Ok(()) } else { Err((row, "source.sample leaves the row out".into())) }
}

/// What a document says of itself.
fn check_document(document: &Document<'_>) -> Result<(), String> {
    let n_bytes = document.n_bytes;
    let n_tokens = n_bytes.checked_add(2).ok_or_else(|| format!("n_bytes is {n_bytes}"))?;
    for (name, list) in [("entropies", document.entropies), ("norms", document.norms)] {
        if let Some(list) = list
            && list.len() as u64 != n_tokens
        {
            return Err(format!("{} {name} for {n_bytes} bytes, expected {n_tokens}", list.len()));
        }
    }
    let lengths = document.patch_lengths;
    if let Some(index) = lengths.iter().position(|&length| length == 0) {
        return Err(format!("patch_lengths[{index}] is 0"));
    }
    let sum: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    if sum != n_tokens {
        return Err(format!("patch_lengths sum to {sum} for {n_bytes} bytes, expected {n_tokens}"));
    }
    let mut tiled = 0;
    for (&start, &end) in document.segment_starts.iter().zip(document.segment_ends) {
        if start != tiled || end < start {
            return Err(format!("a segment is {start} to {end} where {tiled} is due"));
        }
        tiled = end;
    }
    if tiled != n_bytes {
        return Err(format!("segments end at {tiled} of {n_bytes} bytes"));
    }
    match document.embedded {
        Some(false) if n_bytes > 0 => Err("the embedding of a document with bytes is null".into()),
        Some(true) if n_bytes == 0 => Err("the embedding of a document without bytes is not null".into()),
        _ => Ok(()),
    }
}

/// First byte and number of bytes of each patch that holds any. Byte j is token j + 1; the first token and the last
/// are no bytes. Lengths are positive and sum to two more than `n_bytes`.
fn byte_spans(lengths: &[u32], n_bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut end_token = 0;
    lengths.iter().filter_map(move |&length| {
        let start = u64::saturating_sub(end_token, 1);
        end_token += u64::from(length);
        let end = (end_token - 1).min(n_bytes);
        (start < end).then_some((start, end - start))
    })
}

/// Compares the rows of `patches` that are next with what `document` says; tells how many there are.
fn check_patches(document: &Document<'_>, patches: &mut Cursor<Patches>) -> Checked<u64> {
    let mut number = 0;
    for (start, length) in byte_spans(document.patch_lengths, document.n_bytes) {
        let Some((columns, row)) = patches.next()? else {
            return Err(patches.ends_early(document.source_row, format!("patch {number}")));
        };
        if let Err(what) = check_patch(document, (columns, row), number, (start, length)) {
            return Err(patches.problem_here(document.source_row, what));
        }
        number += 1;
    }
    Ok(number)
}

fn check_patch(
    document: &Document<'_>,
    (columns, row): (&Patches, usize),
    number: u64,
    (start, length): (u64, u64),
) -> Result<(), String> {
    let Patches { keys, patch, .. } = columns;
    let of = format_args!("of patch {number}");
    let source_row = keys.source_row.value(row);
    if source_row != document.source_row || u64::from(patch.value(row)) != number {
        return Err(format!(
            "patch {} of source row {source_row} came where patch {number} of source row {} is due",
            patch.value(row),
            document.source_row
        ));
    }
    let doc_id = keys.doc_id.value(row);
    if doc_id != document.doc_id {
        return Err(format!("doc_id {of} is {doc_id:?}, that of its document {:?}", document.doc_id));
    }
    let found = (columns.start.value(row), columns.length.value(row));
    if found != (start, length) {
        let (found_start, found_length) = found;
        return Err(format!(
            "start and length {of} are {found_start} and {found_length}; by patch_lengths they are {start} and {length}"
        ));
    }
    let (from, to) = (start as usize, (start + length) as usize);
    let equal =
        |name: &str, found: f32, expected: f32, list: &str| match found.to_bits() == expected.to_bits() {
            true => Ok(()),
            false => Err(format!("{name} {of} is {found}; by {list} it is {expected}")),
        };
    if let Some(entropies) = document.entropies {
        equal("entropy_start", columns.entropy_start.value(row), entropies[from], "entropies")?;
        equal("entropy_mean", columns.entropy_mean.value(row), mean(&entropies[from..to]), "entropies")?;
    }
    if let (Some(norms), Some(norm_mean)) = (document.norms, &columns.norm_mean) {
        equal("norm_mean", norm_mean.value(row), mean(&norms[from + 1..=to]), "norms")?;
    }
    Ok(())
}

/// Summed in f64, in order, as it is when it is written.
fn mean(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
    (sum / values.len() as f64) as f32
}

/// Compares the rows of `bytes` that are next with what `document` says.
fn check_bytes(document: &Document<'_>, bytes: &mut Cursor<Bytes>) -> Checked<()> {
    for number in 0..document.n_bytes {
        let Some((columns, row)) = bytes.next()? else {
            return Err(bytes.ends_early(document.source_row, format!("byte {number}")));
        };
        if let Err(what) = check_byte(document, columns, row, number) {
            return Err(bytes.problem_here(document.source_row, what));
        }
    }
    Ok(())
}

fn check_byte(document: &Document<'_>, columns: &Bytes, row: usize, number: u64) -> Result<(), String> {
    let (source_row, byte) = (columns.keys.source_row.value(row), columns.byte.value(row));
    if (source_row, byte) != (document.source_row, number) {
        return Err(format!(
            "byte {byte} of source row {source_row} came where byte {number} of source row {} is due",
            document.source_row
        ));
    }
    let doc_id = columns.keys.doc_id.value(row);
    if doc_id != document.doc_id {
        return Err(format!(
            "doc_id of byte {number} is {doc_id:?}, that of its document {:?}",
            document.doc_id
        ));
    }
    let at = number as usize;
    let norms =
        columns.norm.as_ref().map(|norm| norm.value(row)).zip(document.norms.map(|norms| norms[at + 1]));
    let entropies = document.entropies.map(|entropies| (columns.entropy.value(row), entropies[at]));
    for (name, pair) in [("entropy", entropies), ("norm", norms)] {
        if let Some((found, expected)) = pair
            && found.to_bits() != expected.to_bits()
        {
            return Err(format!("{name} of byte {number} is {found}, that in its document {expected}"));
        }
    }
    Ok(())
}

fn expect_end<T>(cursor: &mut Cursor<T>) -> Checked<()> {
    if cursor.next()?.is_none() {
        return Ok(());
    }
    Err(cursor.problem(Some(ProblemRow::InFile(cursor.row())), "the row belongs to no document".into()))
}

fn compare_counts(found: &Counts, recorded: &Counts) -> Result<(), String> {
    for (name, found, recorded) in [
        ("rows", found.rows, recorded.rows),
        ("filtered", found.filtered, recorded.filtered),
        ("documents", found.documents, recorded.documents),
        ("quarantined", found.quarantined, recorded.quarantined),
        ("bytes", found.bytes, recorded.bytes),
        ("patches", found.patches, recorded.patches),
    ] {
        if found != recorded {
            return Err(format!("counts.{name} is {recorded}, the files hold {found}"));
        }
    }
    if found.entropy_sum != recorded.entropy_sum {
        return Err(format!(
            "counts.entropy_sum is {}, the files hold {}",
            recorded.entropy_sum, found.entropy_sum
        ));
    }
    Ok(())
}
