//! Whether a model is whole, and gives the reference's values on this machine: a model's files in, what was found out.
//! Knows nothing of devices; it scores in `f32` on the processor.

use std::fmt;

use safetensors::SafeTensors;

use super::{
    CPU_BATCH_TOKENS, CpuModel, EntropyModel, ModelError, ModelFiles, score_documents, weights::Names,
};
use crate::data::Wanted;

/// Of the models that are known, cut from `tests/data/golden` by `tests/it/model_files.rs`: `text`, and for BOS and each
/// byte of it `entropies` and `norms`. The model's hash is in the metadata.
const KNOWN: [&[u8]; 2] = [
    include_bytes!("../../models/golden/small.safetensors"),
    include_bytes!("../../models/golden/nano.safetensors"),
];

/// How far entropies, in nats, and norms, in parts of themselves, may be from the reference's. Two of its own
/// implementations are 2.4e-6 apart.
const TOLERANCE: f32 = 1e-4;

/// What is found out about a model without another one to compare it with.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Number of tensors; each has the shape that the configuration asks for, or the model would not be open.
    pub tensors: usize,
    /// Tensors with values that are no numbers, and how many; the first ones first.
    pub not_finite: Vec<(String, usize)>,
    /// How well it agrees with the reference; `None` where nothing tells the reference's values.
    pub agreement: Option<Agreement>,
    /// The model's hash.
    pub sha256: String,
}

/// A model's scores of a text beside the reference's.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// What the model is called.
    pub model: String,
    /// Length of the text.
    pub bytes: usize,
    /// The largest difference of an entropy, nats.
    pub entropies: f32,
    /// The largest difference of a norm, in parts of it.
    pub norms: f32,
}

impl Verified {
    /// Whether nothing is wrong, as far as it was found out.
    pub fn holds(&self) -> bool {
        self.not_finite.is_empty() && self.agreement.as_ref().is_none_or(Agreement::holds)
    }
}

impl Agreement {
    /// Whether it is as close as an `f32` model comes.
    pub fn holds(&self) -> bool {
        self.entropies < TOLERANCE && self.norms < TOLERANCE
    }

    fn of(golden: &Golden<'_>, entropies: &[f32], norms: &[f32]) -> Self {
        // Not a number is the largest of all.
        let largest = |differences: &mut dyn Iterator<Item = f32>| {
            differences.map(f32::abs).max_by(f32::total_cmp).unwrap_or(f32::NAN)
        };
        Agreement {
            model: golden.model.clone(),
            bytes: golden.text.len(),
            entropies: largest(
                &mut entropies.iter().zip(&golden.entropies).map(|(ours, theirs)| ours - theirs),
            ),
            norms: largest(&mut norms.iter().zip(&golden.norms).map(|(ours, theirs)| ours / theirs - 1.0)),
        }
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verified { tensors, not_finite, agreement, sha256 } = self;
        writeln!(f, "tensors       {tensors}, all that config.json asks for, in its shapes")?;
        if not_finite.is_empty() {
            writeln!(f, "values        finite, all of them")?;
        }
        for (name, n) in not_finite {
            writeln!(f, "values        {n} of {name} are no finite numbers")?;
        }
        let Some(Agreement { model, bytes, entropies, norms }) = agreement else {
            return write!(
                f,
                "golden        no values of the reference are known for this model (sha256 {sha256}); what it computes was \
                 not checked"
            );
        };
        writeln!(
            f,
            "golden        {model}: {bytes} bytes scored in f32 on the processor, beside the reference's values"
        )?;
        writeln!(f, "entropies     differ by {entropies:e} nats at most; {TOLERANCE:e} is allowed")?;
        writeln!(f, "norms         differ by {norms:e} of themselves at most; {TOLERANCE:e} is allowed")?;
        match self.holds() {
            true => write!(f, "the model gives the reference's values"),
            false => write!(f, "the model does not give the reference's values"),
        }
    }
}

impl ModelFiles {
    /// Looks for values that are no numbers, and scores a text if the reference's scores of it are known.
    ///
    /// # Errors
    /// None in a build whose tests pass.
    pub fn verify(&self) -> Result<Verified, ModelError> {
        let tensors = self.tensors();
        let not_finite: Vec<(String, usize)> = tensors
            .iter()
            .map(|(role, _, values)| {
                (Names::Meta.name(*role), values.iter().filter(|value| !value.is_finite()).count())
            })
            .filter(|(_, n)| *n > 0)
            .collect();
        let agreement = match Golden::of(&self.info.sha256)? {
            Some(golden) => {
                let mut model = CpuModel::new(self);
                let batch_tokens = CPU_BATCH_TOKENS.max(model.max_context());
                let wanted = Wanted { norms: true, pre_norm: false };
                let scores = score_documents(&mut model, &[golden.text], batch_tokens, wanted)?;
                let scores =
                    scores.first().map(|s| (&s.entropies[..], s.norms.as_deref().unwrap_or_default()));
                let (entropies, norms) = scores.unwrap_or_default();
                Some(Agreement::of(&golden, entropies, norms))
            }
            None => None,
        };
        Ok(Verified { tensors: tensors.len(), not_finite, agreement, sha256: self.info.sha256.clone() })
    }
}

/// The reference's scores of a text. They end before EOS, so that the text may be the beginning of a document: no token
/// sees what follows it.
struct Golden<'a> {
    model: String,
    text: &'a [u8],
    /// `[n_bytes + 1]`, nats
    entropies: Vec<f32>,
    /// `[n_bytes + 1]`
    norms: Vec<f32>,
}

impl Golden<'static> {
    /// Those of the model with that hash.
    fn of(sha256: &str) -> Result<Option<Self>, ModelError> {
        let broken = |error: safetensors::SafeTensorError| ModelError::Weights {
            file: "models/golden".into(),
            problems: vec![error.to_string()],
        };
        for file in KNOWN {
            let (_, metadata) = SafeTensors::read_metadata(file).map_err(broken)?;
            let Some(about) =
                metadata.metadata().as_ref().filter(|about| about.get("sha256").is_some_and(|s| s == sha256))
            else {
                continue;
            };
            let tensors = SafeTensors::deserialize(file).map_err(broken)?;
            let floats = |name| -> Result<Vec<f32>, ModelError> {
                let data = tensors.tensor(name).map_err(broken)?.data();
                Ok(data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
            };
            return Ok(Some(Golden {
                model: about.get("model").cloned().unwrap_or_default(),
                text: tensors.tensor("text").map_err(broken)?.data(),
                entropies: floats("entropies")?,
                norms: floats("norms")?,
            }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_anywhere_is_seen_and_what_is_no_number_is_the_largest() {
        let golden =
            Golden { model: "m".into(), text: b"ab", entropies: vec![1.0, 2.0, 3.0], norms: vec![4.0; 3] };
        let agreement = |entropies: [f32; 3], norms: [f32; 3]| Agreement::of(&golden, &entropies, &norms);
        let same = agreement([1.0, 2.0, 3.0], [4.0; 3]);
        assert_eq!((same.holds(), same.entropies, same.norms, same.bytes), (true, 0.0, 0.0, 2));
        let close = agreement([1.00001, 2.0, 3.0], [4.0, 4.0, 4.0001]);
        assert!(close.holds() && close.entropies > 0.0 && close.norms > 0.0, "{close:?}");
        let off = agreement([1.0, 2.0, 2.5], [4.0, 3.0, 4.0]);
        assert_eq!((off.holds(), off.entropies, off.norms), (false, 0.5, 0.25));
        assert!(!agreement([1.0, 2.0, 3.0], [4.0, 3.99, 4.0]).holds());
        assert!(!agreement([f32::NAN, 2.0, 3.0], [4.0; 3]).holds());
        assert!(!agreement([1.0, 2.0, 3.0], [4.0, f32::NAN, 4.0]).holds());
        assert!(!Agreement::of(&golden, &[], &[]).holds(), "nothing was compared");

        let verified =
            Verified { tensors: 1, not_finite: Vec::new(), agreement: Some(off), sha256: "s".into() };
        assert!(!verified.holds());
        assert!(
            verified.to_string().ends_with("the model does not give the reference's values"),
            "{verified}"
        );
    }
}
