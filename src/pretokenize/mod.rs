//! From the bytes of a row to the document the model sees and its segments, one file a modality. Knows
//! nothing of tokens or tensors.

mod text;

use crate::data::{Document, RawRow};

/// What a modality does to a row.
pub trait Pretokenizer: Send + Sync {
    /// Name of the modality, as `source.modality` and the output call it.
    fn modality(&self) -> &'static str;

    /// The document of a row; its segments tile its bytes.
    ///
    /// # Errors
    /// The reason why the row goes to quarantine.
    fn pretokenize(&self, row: RawRow) -> Result<Document, String>;
}

/// Modalities that [`pretokenizer`] knows.
pub const MODALITIES: [&str; 1] = ["text"];

/// The pretokenizer of a modality; `None` for a name that is not in [`MODALITIES`].
pub fn pretokenizer(modality: &str) -> Option<Box<dyn Pretokenizer>> {
    match modality {
        "text" => Some(Box::new(text::Text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_modality_exists_under_its_own_name() {
        for name in MODALITIES {
            assert_eq!(pretokenizer(name).map(|p| p.modality()), Some(name));
        }
        assert!(pretokenizer("smell").is_none());
    }
}
