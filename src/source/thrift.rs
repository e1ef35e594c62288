//! Reads Thrift's compact protocol as far as Parquet needs it before anything is allocated: a page's header, and
//! what a footer will take once it is parsed. Builds no structure of what it skips.

use std::io::{self, Read};

/// Deeper than any footer: a schema's elements lie flat in a list.
const MAX_DEPTH: u32 = 16;
/// Memory of a parsed list element, by how deep its list lies: schema elements and row groups; column chunks, which hold
/// statistics and offsets; what a column chunk lists.
const ELEMENT_BYTES: [u64; 3] = [512, 1280, 48];

/// Types on the wire.
mod kind {
    pub const TRUE: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const BYTE: u8 = 3;
    pub const I64: u8 = 6;
    pub const DOUBLE: u8 = 7;
    pub const BINARY: u8 = 8;
    pub const LIST: u8 = 9;
    pub const SET: u8 = 10;
    pub const MAP: u8 = 11;
    pub const STRUCT: u8 = 12;
    pub const UUID: u8 = 13;
}

/// What stands before a page's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// What the page holds.
    pub kind: PageKind,
    /// Bytes of the page in the file.
    pub compressed: u32,
    /// Bytes of the page in memory.
    pub uncompressed: u32,
}

/// Kinds of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Values that data pages refer to.
    Dictionary {
        /// Number of them.
        num_values: u32,
    },
    /// Nothing that a reader of values needs.
    Index,
    /// Data, levels and values compressed together.
    DataV1 {
        /// Values, nulls included.
        num_values: u32,
        /// Number of the encoding.
        encoding: i64,
        /// Number of the definition levels' encoding.
        definition_encoding: i64,
        /// Number of the repetition levels' encoding.
        repetition_encoding: i64,
    },
    /// Data, with levels ahead that are not compressed.
    DataV2 {
        /// Values, nulls included.
        num_values: u32,
        /// Of these, nulls.
        num_nulls: u32,
        /// Rows.
        num_rows: u32,
        /// Number of the encoding.
        encoding: i64,
        /// Bytes of the definition levels.
        definition_bytes: u32,
        /// Bytes of the repetition levels.
        repetition_bytes: u32,
        /// Whether the values are compressed.
        is_compressed: bool,
    },
}

impl PageKind {
    /// Number of the encoding of a data page.
    pub fn encoding(self) -> Option<i64> {
        match self {
            PageKind::DataV1 { encoding, .. } | PageKind::DataV2 { encoding, .. } => Some(encoding),
            PageKind::Dictionary { .. } | PageKind::Index => None,
        }
    }

    /// Values in the page, nulls included; 0 for pages without data.
    pub fn num_data_values(self) -> u32 {
        match self {
            PageKind::DataV1 { num_values, .. } | PageKind::DataV2 { num_values, .. } => num_values,
            PageKind::Dictionary { .. } | PageKind::Index => 0,
        }
    }
}

/// Reads the page header that `input` starts with; returns it and its length.
///
/// # Errors
/// When it ends early, is malformed, or says what cannot be.
pub fn page_header(input: impl Read, left: u64) -> io::Result<(PageHeader, u64)> {
    let mut thrift = Compact { input, left, cost: 0, most: u64::MAX };
    let mut fields = [None; 9];
    let mut details = [None; 9];
    let mut id = 0;
    while let Some(kind) = thrift.field(&mut id)? {
        match (id, kind) {
            (1..=4, kind::BYTE..=kind::I64) => fields[id as usize] = Some(thrift.integer(kind)?),
            (5 | 7 | 8, kind::STRUCT) => {
                let mut inner = 0;
                while let Some(kind) = thrift.field(&mut inner)? {
                    match (inner, kind) {
                        (1..=7, kind::TRUE) => details[inner as usize] = Some(1),
                        (1..=7, kind::FALSE) => details[inner as usize] = Some(0),
                        (1..=7, kind::BYTE..=kind::I64) => {
                            details[inner as usize] = Some(thrift.integer(kind)?);
                        }
                        _ => thrift.skip(kind, 1)?,
                    }
                }
            }
            _ => thrift.skip(kind, 0)?,
        }
    }
    let given = |value: Option<i64>, what| value.ok_or_else(|| invalid(format!("it has no {what}")));
    let size = |value: Option<i64>, what| {
        let value = given(value, what)?;
        // Sizes are 32 bits with a sign in the format.
        if (0..=i64::from(i32::MAX)).contains(&value) {
            return Ok(value as u32);
        }
        Err(invalid(format!("its {what} is {value}")))
    };
    let num_values = || size(details[1], "number of values");
    let kind = match given(fields[1], "type")? {
        0 => PageKind::DataV1 {
            num_values: num_values()?,
            encoding: given(details[2], "encoding")?,
            definition_encoding: given(details[3], "encoding of levels")?,
            repetition_encoding: given(details[4], "encoding of levels")?,
        },
        1 => PageKind::Index,
        2 => PageKind::Dictionary { num_values: num_values()? },
        3 => PageKind::DataV2 {
            num_values: num_values()?,
            num_nulls: size(details[2], "number of nulls")?,
            num_rows: size(details[3], "number of rows")?,
            encoding: given(details[4], "encoding")?,
            definition_bytes: size(details[5], "length of definition levels")?,
            repetition_bytes: size(details[6], "length of repetition levels")?,
            is_compressed: details[7] != Some(0),
        },
        other => return Err(invalid(format!("its type is {other}"))),
    };
    let header = PageHeader {
        kind,
        uncompressed: size(fields[2], "uncompressed size")?,
        compressed: size(fields[3], "compressed size")?,
    };
    Ok((header, left - thrift.left))
}

/// Walks a footer of `bytes` bytes; returns about how much memory it takes when parsed, its own bytes included.
///
/// # Errors
/// When a length in it does not fit what is left of it, or as soon as it is known to take more than `most`.
pub fn footer_cost(input: impl Read, bytes: u64, most: u64) -> io::Result<u64> {
    let mut thrift = Compact { input, left: bytes, cost: 0, most };
    thrift.allocate(bytes)?;
    thrift.skip(kind::STRUCT, 0)?;
    Ok(thrift.cost)
}

struct Compact<R> {
    input: R,
    left: u64,
    cost: u64,
    most: u64,
}

impl<R: Read> Compact<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.left = self.left.checked_sub(1).ok_or_else(ended)?;
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(invalid("a number is longer than 64 bits".into()))
    }

    /// An integer of type `kind`.
    fn integer(&mut self, kind: u8) -> io::Result<i64> {
        if kind == kind::BYTE {
            return Ok(i64::from(self.byte()? as i8));
        }
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// Type of the structure's next field, whose number replaces that of the last one in `id`.
    fn field(&mut self, id: &mut i16) -> io::Result<Option<u8>> {
        let head = self.byte()?;
        let (delta, kind) = (head >> 4, head & 0x0f);
        if kind == 0 {
            return Ok(None);
        }
        *id = match delta {
            0 => self.integer(kind::I64)? as i16,
            delta => id.saturating_add(delta.into()),
        };
        Ok(Some(kind))
    }

    fn skip_bytes(&mut self, bytes: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(ended)?;
        let skipped = io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(ended()) }
    }

    fn skip(&mut self, kind: u8, depth: u32) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(invalid("it is nested too deeply".into()));
        }
        match kind {
            kind::TRUE | kind::FALSE => Ok(()),
            kind::BYTE => self.skip_bytes(1),
            4..=kind::I64 => self.varint().map(|_| ()),
            kind::DOUBLE => self.skip_bytes(8),
            kind::UUID => self.skip_bytes(16),
            kind::BINARY => {
                let bytes = self.varint()?;
                self.skip_bytes(bytes)
            }
            kind::STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            kind::LIST | kind::SET => {
                let head = self.byte()?;
                let (count, kind) = (head >> 4, head & 0x0f);
                let count = if count == 15 { self.varint()? } else { count.into() };
                self.elements(count, depth)?;
                for _ in 0..count {
                    // In a list, a truth value takes a byte.
                    self.skip(if kind <= kind::FALSE { kind::BYTE } else { kind }, depth + 1)?;
                }
                Ok(())
            }
            kind::MAP => {
                let count = self.varint()?;
                self.elements(count, depth)?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                for _ in 0..count {
                    self.skip(kinds >> 4, depth + 1)?;
                    self.skip(kinds & 0x0f, depth + 1)?;
                }
                Ok(())
            }
            other => Err(invalid(format!("there is no type {other}"))),
        }
    }

    /// Takes note of a list of `count` elements before they are read. Each is a byte at least.
    fn elements(&mut self, count: u64, depth: u32) -> io::Result<()> {
        if count > self.left {
            return Err(invalid(format!("a list claims {count} elements, but {} bytes are left", self.left)));
        }
        // A list's structures lie two levels below it.
        let level = (depth / 2).min(ELEMENT_BYTES.len() as u32 - 1) as usize;
        self.allocate(count.saturating_mul(ELEMENT_BYTES[level]))
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        self.cost = self.cost.saturating_add(bytes);
        if self.cost <= self.most {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::OutOfMemory, format!("it takes {} bytes or more", self.cost)))
    }
}

fn ended() -> io::Error {
    invalid("it ends too early".into())
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data page v1: type 0, 100 bytes, compressed 40, 7 values, PLAIN, RLE, RLE, and statistics to skip.
    const HEADER: [u8; 21] =
        [0x15, 0, 0x15, 200, 1, 0x15, 80, 0x2c, 0x15, 14, 0x15, 0, 0x15, 6, 0x15, 6, 0x1c, 0x18, 0, 0, 0];

    #[test]
    fn a_page_header_is_read_and_measured() {
        let bytes = [&HEADER[..], &[0], b"the page"].concat();
        let (header, length) = page_header(&bytes[..], bytes.len() as u64).unwrap();
        assert_eq!(length, 22);
        assert_eq!((header.uncompressed, header.compressed), (100, 40));
        let kind =
            PageKind::DataV1 { num_values: 7, encoding: 0, definition_encoding: 3, repetition_encoding: 3 };
        assert_eq!(header.kind, kind);
    }

    #[test]
    fn what_a_header_cannot_say_is_an_error() {
        assert!(page_header(&HEADER[..], 21).is_err(), "cut short");
        let negative = [0x15, 0, 0x15, 1, 0x15, 80, 0x2c, 0x15, 14, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0];
        let error = page_header(&negative[..], 17).unwrap_err().to_string();
        assert!(error.contains("uncompressed size is -1"), "{error}");
    }

    #[test]
    fn a_list_that_claims_more_than_there_is_is_found_before_it_is_read() {
        // Field 2, a list of structures, 2 million of them in a footer of 7 bytes.
        let footer = [0x29, 0xfc, 0x80, 0x89, 0x7a, 0, 0];
        let error = footer_cost(&footer[..], 7, u64::MAX).unwrap_err().to_string();
        assert!(error.contains("claims 2000000 elements, but 2 bytes are left"), "{error}");
    }

    #[test]
    fn a_footer_is_given_up_once_it_takes_too_much() {
        // 15 row groups that end at once.
        let footer = [&[0x49, 0xfc, 15][..], &[0; 16]].concat();
        assert_eq!(footer_cost(&footer[..], 19, u64::MAX).unwrap(), 19 + 15 * 512);
        assert_eq!(footer_cost(&footer[..], 19, 7000).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
}
