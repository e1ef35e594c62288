//! Loose files as rows: the bytes of each are the content of one document. The files of a folder are a shard, numbered in the
//! order of their names; its columns are `path` and `size`. Knows nothing of what is in a file.

use std::{collections::VecDeque, fs::File, io::Read, ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, UInt64Array},
    datatypes::{DataType, Field, Fields, Schema},
};
use sha2::{Digest, Sha256};

use super::{
    Grant, Held, Member, RowGroup, ShardFile, SourceError,
    access::changed_or_unreachable,
    filter::{self, Filter, Verdict},
    rows::{FoundRow, settle, too_long},
    shard::{Format, Identity, Shard},
};
use crate::{
    config::Source,
    data::{RawBatch, Unit, value_bytes},
    remote::RemoteFile,
};

/// Column with a file's path below the longest wildcard-free folder of the URI, '/'-separated. It is the document's id.
const PATH: &str = "path";
/// Column with its bytes.
const SIZE: &str = "size";
/// What `source.content` is where the pipeline file does not say.
const DEFAULT_CONTENT: &str = "text";
/// Files that are read before they are looked at.
const TOGETHER: usize = 8;
/// Where a unit may begin.
const GROUP_BYTES: u64 = 256 << 10;

/// The folder `file` with its `members` as a shard.
///
/// # Errors
/// [`SourceError::Plan`] when `source` names a column that files do not have, or its condition is wrong.
pub(super) fn survey(
    file: &ShardFile,
    members: &Arc<[Member]>,
    source: &Source,
) -> Result<Shard, SourceError> {
    let refused = |key: &str, name: &str| {
        SourceError::Plan(format!(
            "{key} = {name:?}: loose files have the columns {PATH} and {SIZE} only; their bytes are the content"
        ))
    };
    if source.id.required && source.id.name != PATH {
        return Err(refused("source.id", &source.id.name));
    }
    if source.content != DEFAULT_CONTENT {
        return Err(refused("source.content", &source.content));
    }
    for (key, column) in [("source.path", &source.path), ("source.language", &source.language)] {
        match column {
            Some(name) if name != PATH || key == "source.language" => return Err(refused(key, name)),
            _ => {}
        }
    }
    let schema = schema();
    let field = |name: &String| schema.field_with_name(name).ok().cloned().map(Arc::new);
    let carried = source.carry.iter().map(|name| field(name).ok_or_else(|| refused("source.carry", name)));
    let carried = carried.collect::<Result<Fields, _>>()?;
    filter::of(source, &schema, &file.path)?;
    let mut row_groups: Vec<RowGroup> = Vec::new();
    let mut hash = Sha256::new();
    for member in members.iter() {
        hash.update(&member.name);
        hash.update([0]);
        hash.update(member.bytes.to_le_bytes());
        let carried_bytes = if source.carry.is_empty() { 0 } else { member.name.len() as u64 + 12 };
        match row_groups.last_mut() {
            Some(group) if group.content_bytes.saturating_add(member.bytes) <= GROUP_BYTES => {
                group.rows += 1;
                group.content_bytes += member.bytes;
                group.carried_bytes += carried_bytes;
            }
            _ => row_groups.push(RowGroup { rows: 1, content_bytes: member.bytes, carried_bytes }),
        }
    }
    let bytes = members.iter().map(|member| member.bytes).fold(0, u64::saturating_add);
    let identity = Identity { bytes, footer_sha256: format!("{:x}", hash.finalize()) };
    Ok(Shard { file: file.clone(), identity, row_groups, carried, format: Format::Files(members.clone()) })
}

fn schema() -> Schema {
    Schema::new(vec![Field::new(PATH, DataType::Utf8, true), Field::new(SIZE, DataType::UInt64, true)])
}

/// Reads units of one folder, file by file.
pub struct FileReader {
    members: Arc<[Member]>,
    units: VecDeque<Range<u64>>,
    filter: Option<Filter>,
    shard: Shard,
    source: Source,
    max_document_bytes: u64,
}

impl FileReader {
    /// As [`RowReader::open`](super::RowReader::open).
    pub(super) fn open(
        shard: &Shard,
        members: &Arc<[Member]>,
        source: &Source,
        max_document_bytes: u64,
        units: &[Range<u64>],
    ) -> Result<FileReader, SourceError> {
        Ok(FileReader {
            members: members.clone(),
            units: units.iter().cloned().collect(),
            filter: filter::of(source, &schema(), &shard.file.path)?,
            shard: shard.clone(),
            source: source.clone(),
            max_document_bytes,
        })
    }

    /// As [`RowReader::read`](super::RowReader::read).
    pub(super) fn read(&mut self, unit: Arc<Unit>, grant: &mut Grant<'_>) -> Result<RawBatch, SourceError> {
        let failed = |problem: String| {
            SourceError::Data(format!("failed to read {}: {problem}", self.shard.file.path.display()))
        };
        let members = self.members.get(unit.rows.start as usize..unit.rows.end as usize);
        let members = members.ok_or_else(|| failed("it has fewer files than were planned".to_owned()))?;
        while self.units.front().is_some_and(|rows| rows.end <= unit.rows.start) {
            self.units.pop_front();
        }
        if self.units.pop_front().as_ref() != Some(&unit.rows) {
            return Err(failed("the rows were asked for out of order".to_owned()));
        }
        let columns = columns(members).map_err(failed)?;
        let verdicts = match &self.filter {
            None => vec![Verdict::Keep; members.len()],
            Some(filter) => filter
                .verdicts(&columns, |_, _| true)
                .map_err(|problem| failed(format!("source.where: {problem}")))?,
        };
        let mut batch = RawBatch::new(unit.clone());
        let mut held = Held::default();
        if !self.source.carry.is_empty() {
            let carried = self.source.carry.iter().map(|name| columns.schema().index_of(name));
            let carried =
                carried.collect::<Result<Vec<_>, _>>().and_then(|indices| columns.project(&indices));
            let carried = carried.map_err(|error| failed(error.to_string()))?;
            held.carried = carried.columns().iter().map(|column| value_bytes(column)).sum();
            batch.carried = Some(carried);
        }
        grant(held)?;
        let file = &self.shard.file.source_file;
        let mut rows: Vec<(&Member, u64, Verdict)> = Vec::with_capacity(members.len());
        for ((member, mut verdict), row) in members.iter().zip(verdicts).zip(unit.rows.clone()) {
            if self.source.sample.is_some_and(|sample| !sample.keeps(file, row)) {
                verdict = Verdict::Drop;
            }
            rows.push((member, row, verdict));
        }
        // A few at a time: of files that lie elsewhere, each takes a while to answer.
        for rows in rows.chunks_mut(TOGETHER) {
            let is_read = |member: &Member, verdict: &Verdict| {
                *verdict == Verdict::Keep && too_long(member.bytes, self.max_document_bytes).is_none()
            };
            let read: Vec<&Member> = rows
                .iter()
                .filter(|(member, _, verdict)| is_read(member, verdict))
                .map(|(member, ..)| *member)
                .collect();
            held.content += read.iter().map(|member| member.bytes).sum::<u64>();
            grant(held)?;
            let mut contents = contents(&read)?.into_iter();
            for (member, row, verdict) in rows {
                let content = match is_read(member, verdict) {
                    true => contents.next().map(Into::into).ok_or_else(String::new),
                    false => Err(too_long(member.bytes, self.max_document_bytes).unwrap_or_default()),
                };
                let verdict = std::mem::replace(verdict, Verdict::Drop);
                let (id, path) = (Ok(Some(member.name.clone())), Some(member.name.clone()));
                let found = FoundRow { verdict, id, content, path, language: None };
                settle(&mut batch, file, *row, found);
            }
        }
        Ok(batch)
    }
}

/// The bytes of `members`, in their order; together where all of them lie elsewhere.
fn contents(members: &[&Member]) -> Result<Vec<Vec<u8>>, SourceError> {
    let remote: Vec<&RemoteFile> = members.iter().filter_map(|member| member.remote.as_ref()).collect();
    if remote.len() == members.len() {
        return RemoteFile::read_together(&remote).map_err(changed_or_unreachable);
    }
    members.iter().map(|member| content(member)).collect()
}

/// The bytes of a file that is as long as it was when the run was planned.
fn content(member: &Member) -> Result<Vec<u8>, SourceError> {
    let failed =
        |problem: String| SourceError::Data(format!("failed to read {}: {problem}", member.path.display()));
    if let Some(remote) = &member.remote {
        return remote.read().map_err(changed_or_unreachable);
    }
    let mut bytes = Vec::with_capacity(member.bytes as usize);
    let file = File::open(&member.path).map_err(|error| failed(error.to_string()))?;
    file.take(member.bytes + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 != member.bytes {
        return Err(failed(format!("it had {} bytes when the run was planned", member.bytes)));
    }
    Ok(bytes)
}

fn columns(members: &[Member]) -> Result<RecordBatch, String> {
    let paths: ArrayRef = Arc::new(StringArray::from_iter_values(members.iter().map(|member| &member.name)));
    let sizes: ArrayRef = Arc::new(UInt64Array::from_iter_values(members.iter().map(|member| member.bytes)));
    RecordBatch::try_new(Arc::new(schema()), vec![paths, sizes]).map_err(|error| error.to_string())
}
