//! An Arrow array as a polars column: the same buffers, no copy but of the bits that say which values are null. Types that
//! polars has no counterpart for are refused.

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
    buffer::NullBuffer,
    compute::cast,
    datatypes::{self as types, DataType, TimeUnit},
};
use polars::prelude::{Column, IntoColumn, PlSmallStr, Series};
use polars_arrow::{
    array::{
        Array as PolarsArray, BinaryArray, BooleanArray, FixedSizeListArray, ListArray,
        PrimitiveArray as PolarsPrimitive, StructArray, Utf8Array, new_null_array,
    },
    bitmap::Bitmap,
    datatypes::{ArrowDataType, Field as PolarsField, TimeUnit as PolarsUnit},
    offset::{Offset, OffsetsBuffer},
    types::NativeType,
};
use polars_buffer::Buffer;

type Bridged = Result<Box<dyn PolarsArray>, String>;

/// `array` as the column `name`.
///
/// # Errors
/// When polars has no such type.
pub(super) fn column(name: &str, array: &ArrayRef) -> Result<Column, String> {
    let series = Series::from_arrow(PlSmallStr::from_str(name), bridged(array)?);
    series.map(IntoColumn::into_column).map_err(super::problem)
}

fn bridged(array: &ArrayRef) -> Bridged {
    use ArrowDataType as To;
    let nulls = bits(array.nulls())?;
    match array.data_type() {
        DataType::Null => Ok(new_null_array(To::Null, array.len())),
        DataType::Boolean => {
            let values = array.as_boolean().values();
            let values = Bitmap::try_new(values.sliced().as_slice().to_vec(), values.len());
            boxed(BooleanArray::try_new(To::Boolean, values.map_err(super::problem)?, nulls))
        }
        DataType::Int8 => primitive::<types::Int8Type>(array, To::Int8),
        DataType::Int16 => primitive::<types::Int16Type>(array, To::Int16),
        DataType::Int32 => primitive::<types::Int32Type>(array, To::Int32),
        DataType::Int64 => primitive::<types::Int64Type>(array, To::Int64),
        DataType::UInt8 => primitive::<types::UInt8Type>(array, To::UInt8),
        DataType::UInt16 => primitive::<types::UInt16Type>(array, To::UInt16),
        DataType::UInt32 => primitive::<types::UInt32Type>(array, To::UInt32),
        DataType::UInt64 => primitive::<types::UInt64Type>(array, To::UInt64),
        DataType::Float16 => converted(array, &DataType::Float32),
        DataType::Float32 => primitive::<types::Float32Type>(array, To::Float32),
        DataType::Float64 => primitive::<types::Float64Type>(array, To::Float64),
        DataType::Date32 => primitive::<types::Date32Type>(array, To::Date32),
        DataType::Date64 => primitive::<types::Date64Type>(array, To::Date64),
        DataType::Time32(TimeUnit::Second) => {
            primitive::<types::Time32SecondType>(array, To::Time32(PolarsUnit::Second))
        }
        DataType::Time32(_) => {
            primitive::<types::Time32MillisecondType>(array, To::Time32(PolarsUnit::Millisecond))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            primitive::<types::Time64MicrosecondType>(array, To::Time64(PolarsUnit::Microsecond))
        }
        DataType::Time64(_) => {
            primitive::<types::Time64NanosecondType>(array, To::Time64(PolarsUnit::Nanosecond))
        }
        DataType::Timestamp(unit, zone) => {
            let to = To::Timestamp(unit_of(*unit), zone.as_deref().map(PlSmallStr::from_str));
            match unit {
                TimeUnit::Second => primitive::<types::TimestampSecondType>(array, to),
                TimeUnit::Millisecond => primitive::<types::TimestampMillisecondType>(array, to),
                TimeUnit::Microsecond => primitive::<types::TimestampMicrosecondType>(array, to),
                TimeUnit::Nanosecond => primitive::<types::TimestampNanosecondType>(array, to),
            }
        }
        DataType::Duration(unit) => {
            let to = To::Duration(unit_of(*unit));
            match unit {
                TimeUnit::Second => primitive::<types::DurationSecondType>(array, to),
                TimeUnit::Millisecond => primitive::<types::DurationMillisecondType>(array, to),
                TimeUnit::Microsecond => primitive::<types::DurationMicrosecondType>(array, to),
                TimeUnit::Nanosecond => primitive::<types::DurationNanosecondType>(array, to),
            }
        }
        DataType::Decimal128(precision, scale) if *scale >= 0 => primitive::<types::Decimal128Type>(
            array,
            To::Decimal(usize::from(*precision), usize::from(scale.unsigned_abs())),
        ),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            converted(array, &DataType::Decimal128(*precision, *scale))
        }
        DataType::Utf8 => {
            let text = array.as_string::<i32>();
            let offsets = offsets(text.offsets().clone())?;
            boxed(Utf8Array::try_new(To::Utf8, offsets, Buffer::from_owner(text.values().clone()), nulls))
        }
        DataType::LargeUtf8 => {
            let text = array.as_string::<i64>();
            let offsets = offsets(text.offsets().clone())?;
            boxed(Utf8Array::try_new(
                To::LargeUtf8,
                offsets,
                Buffer::from_owner(text.values().clone()),
                nulls,
            ))
        }
        DataType::Binary => {
            let bytes = array.as_binary::<i32>();
            let offsets = offsets(bytes.offsets().clone())?;
            boxed(BinaryArray::try_new(
                To::Binary,
                offsets,
                Buffer::from_owner(bytes.values().clone()),
                nulls,
            ))
        }
        DataType::LargeBinary => {
            let bytes = array.as_binary::<i64>();
            let offsets = offsets(bytes.offsets().clone())?;
            boxed(BinaryArray::try_new(
                To::LargeBinary,
                offsets,
                Buffer::from_owner(bytes.values().clone()),
                nulls,
            ))
        }
        DataType::Utf8View => converted(array, &DataType::LargeUtf8),
        DataType::BinaryView | DataType::FixedSizeBinary(_) => converted(array, &DataType::LargeBinary),
        DataType::Dictionary(_, value) => converted(array, value),
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let (items, field) = items(field.name(), list.values())?;
            boxed(ListArray::try_new(To::List(field), offsets(list.offsets().clone())?, items, nulls))
        }
        DataType::LargeList(field) => {
            let list = array.as_list::<i64>();
            let (items, field) = items(field.name(), list.values())?;
            boxed(ListArray::try_new(To::LargeList(field), offsets(list.offsets().clone())?, items, nulls))
        }
        DataType::FixedSizeList(field, size) => {
            let (items, field) = items(field.name(), array.as_fixed_size_list().values())?;
            let to = To::FixedSizeList(field, size.unsigned_abs() as usize);
            boxed(FixedSizeListArray::try_new(to, array.len(), items, nulls))
        }
        DataType::Struct(fields) => {
            let mut values = Vec::with_capacity(fields.len());
            let mut types = Vec::with_capacity(fields.len());
            for (field, child) in fields.iter().zip(array.as_struct().columns()) {
                let child = bridged(child)?;
                types.push(PolarsField::new(PlSmallStr::from_str(field.name()), child.dtype().clone(), true));
                values.push(child);
            }
            boxed(StructArray::try_new(To::Struct(types), array.len(), values, nulls))
        }
        other => Err(format!("a condition cannot use values of type {other}")),
    }
}

fn converted(array: &ArrayRef, to: &DataType) -> Bridged {
    bridged(&cast(array, to).map_err(|error| error.to_string())?)
}

fn boxed<A: PolarsArray + 'static>(array: polars::prelude::PolarsResult<A>) -> Bridged {
    array.map(|array| Box::new(array) as Box<dyn PolarsArray>).map_err(super::problem)
}

fn primitive<T>(array: &ArrayRef, to: ArrowDataType) -> Bridged
where
    T: ArrowPrimitiveType,
    T::Native: NativeType,
{
    let array: &PrimitiveArray<T> = array.as_primitive();
    boxed(PolarsPrimitive::try_new(to, Buffer::from_owner(array.values().clone()), bits(array.nulls())?))
}

fn offsets<O: Offset, T: AsRef<[O]> + Send + 'static>(offsets: T) -> Result<OffsetsBuffer<O>, String> {
    OffsetsBuffer::try_from(Buffer::from_owner(offsets)).map_err(super::problem)
}

fn items(name: &str, values: &ArrayRef) -> Result<(Box<dyn PolarsArray>, Box<PolarsField>), String> {
    let values = bridged(values)?;
    let field = PolarsField::new(PlSmallStr::from_str(name), values.dtype().clone(), true);
    Ok((values, Box::new(field)))
}

fn unit_of(unit: TimeUnit) -> PolarsUnit {
    match unit {
        TimeUnit::Second => PolarsUnit::Second,
        TimeUnit::Millisecond => PolarsUnit::Millisecond,
        TimeUnit::Microsecond => PolarsUnit::Microsecond,
        TimeUnit::Nanosecond => PolarsUnit::Nanosecond,
    }
}

fn bits(nulls: Option<&NullBuffer>) -> Result<Option<Bitmap>, String> {
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
    // The one safe way to a bitmap takes its bytes.
    let bits = nulls.map(|nulls| Bitmap::try_new(nulls.inner().sliced().as_slice().to_vec(), nulls.len()));
    bits.transpose().map_err(super::problem)
}
