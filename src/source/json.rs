//! The parts of a JSON text, each as it stands there: fields of an object, items of a list. Knows nothing of what they mean.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, value::RawValue};

/// Calls `take` with each field of the object that `text` is, in order. Of a name that stands there twice the last one counts,
/// which is the caller's to see to.
///
/// # Errors
/// When it is no object, or no JSON.
pub(super) fn fields<'a>(
    text: &'a [u8],
    take: impl FnMut(Cow<'a, str>, &'a RawValue),
) -> serde_json::Result<()> {
    let mut text = Deserializer::from_slice(text);
    text.deserialize_map(Fields(take))?;
    text.end()
}

/// Calls `take` with each item of the list that `text` is, in order.
///
/// # Errors
/// When it is no list, or no JSON.
pub(super) fn items<'a>(text: &'a [u8], take: impl FnMut(&'a RawValue)) -> serde_json::Result<()> {
    let mut text = Deserializer::from_slice(text);
    text.deserialize_seq(Items(take))?;
    text.end()
}

/// The string that `text` is.
///
/// # Errors
/// When it is no string, or one that is no Unicode.
pub(super) fn string(text: &str) -> serde_json::Result<Cow<'_, str>> {
    let Text(string) = serde_json::from_str(text)?;
    Ok(string)
}

/// Borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Fields<F>(F);

impl<'a, F: FnMut(Cow<'a, str>, &'a RawValue)> Visitor<'a> for Fields<F> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a map")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((Text(name), value)) = map.next_entry()? {
            (self.0)(name, value);
        }
        Ok(())
    }
}

struct Items<F>(F);

impl<'a, F: FnMut(&'a RawValue)> Visitor<'a> for Items<F> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }
}
