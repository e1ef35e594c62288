//! Cells of the content and id columns of a decoded batch. Knows nothing of files.

use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::DataType,
};

pub(super) struct ContentColumn<'a> {
    bytes: BytesColumn<'a>,
    /// The field `path` of a struct.
    path: Option<BytesColumn<'a>>,
    outer: Option<&'a dyn Array>,
}

impl<'a> ContentColumn<'a> {
    pub(super) fn of(column: &'a dyn Array) -> Option<Self> {
        match column.data_type() {
            DataType::Struct(_) => {
                let fields = column.as_struct();
                let bytes = BytesColumn::of(fields.column_by_name("bytes")?)?;
                let path = fields.column_by_name("path").and_then(|path| BytesColumn::of(path));
                Some(ContentColumn { bytes, path, outer: Some(column) })
            }
            _ => Some(ContentColumn { bytes: BytesColumn::of(column)?, path: None, outer: None }),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&'a [u8]> {
        if self.is_null(index) {
            return None;
        }
        self.bytes.get(index)
    }

    /// The path beside the bytes.
    pub(super) fn path(&self, index: usize) -> Option<&'a [u8]> {
        if self.is_null(index) {
            return None;
        }
        self.path.as_ref()?.get(index)
    }

    fn is_null(&self, index: usize) -> bool {
        self.outer.is_some_and(|outer| outer.is_null(index))
    }
}

pub(super) enum BytesColumn<'a> {
    Variable(&'a arrow::array::LargeBinaryArray),
    Fixed(&'a arrow::array::FixedSizeBinaryArray),
}

impl<'a> BytesColumn<'a> {
    pub(super) fn of(column: &'a dyn Array) -> Option<Self> {
        match column.data_type() {
            DataType::LargeBinary => column.as_binary_opt().map(BytesColumn::Variable),
            DataType::FixedSizeBinary(_) => column.as_fixed_size_binary_opt().map(BytesColumn::Fixed),
            _ => None,
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&'a [u8]> {
        match self {
            BytesColumn::Variable(column) => column.is_valid(index).then(|| column.value(index)),
            BytesColumn::Fixed(column) => column.is_valid(index).then(|| column.value(index)),
        }
    }
}

pub(super) enum IdColumn<'a> {
    Bytes(BytesColumn<'a>),
    Decimal(arrow::array::StringArray),
}

impl<'a> IdColumn<'a> {
    pub(super) fn of(column: &'a dyn Array) -> Option<Self> {
        if column.data_type().is_integer() {
            let decimal = cast(column, &DataType::Utf8).ok()?;
            return Some(IdColumn::Decimal(decimal.as_string().clone()));
        }
        BytesColumn::of(column).map(IdColumn::Bytes)
    }

    pub(super) fn get(&self, index: usize) -> Result<Option<String>, String> {
        match self {
            IdColumn::Decimal(ids) => Ok(ids.is_valid(index).then(|| ids.value(index).to_owned())),
            IdColumn::Bytes(ids) => match ids.get(index).map(std::str::from_utf8) {
                None => Ok(None),
                Some(Ok(id)) => Ok(Some(id.to_owned())),
                Some(Err(_)) => Err("the id is not UTF-8".to_owned()),
            },
        }
    }
}
