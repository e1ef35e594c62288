//! Shapes and constants of an entropy model, read from its `config.json` as released by Meta or as
//! written by Hugging Face. Knows nothing of weights.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::ModelError;
use crate::data::VOCABULARY;

/// Window of every entropy model released so far. Hugging Face's conversion drops the value, and the
/// reference writes it in code (`bytelatent/entropy_model.py`); without it entropies past the window
/// come out 3–6 times too high (facebookresearch/blt issue 141).
const RELEASED_WINDOW: usize = 512;

/// Larger counts in a configuration are taken for damage: they would only overflow later.
const MAX_COUNT: u64 = 1 << 24;
const MAX_LAYERS: usize = 1 << 10;

/// An entropy model's architecture. Exists only validated, so nothing checks it again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// Width of the hidden state.
    pub dim: usize,
    /// Number of transformer layers.
    pub n_layers: usize,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values; each serves `n_heads / n_kv_heads` heads of queries.
    pub n_kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Width between the products of the SwiGLU feed-forward layer.
    pub ffn_hidden: usize,
    /// Added inside the root of RMSNorm.
    pub norm_eps: f32,
    /// Base of the rotary angles: pair i turns by θ^(−2i / head_dim) radians a position.
    pub rope_theta: f32,
    /// Token i sees j of its context with i − window < j ≤ i; `None`: all j ≤ i.
    pub sliding_window: Option<usize>,
    /// Longest context in tokens.
    pub max_seqlen: usize,
    /// Always [`VOCABULARY`].
    pub vocab_size: usize,
    /// The output layer is the token embedding.
    pub weight_tying: bool,
}

impl ModelConfig {
    /// Reads the bytes of a `config.json`: `{"args": {...}}` as Meta releases it, a
    /// `BltPatcherConfig` of Hugging Face, or a whole `BltConfig` with a `patcher_config` inside.
    /// `file` stands in the errors.
    ///
    /// Keys that say nothing about inference are ignored; absent ones have the defaults of the
    /// reference (`LMTransformerArgs`) or of transformers (`BltPatcherConfig`).
    ///
    /// # Errors
    /// When the bytes are not JSON, when a key has the wrong type, and when the values do not make a
    /// model that this crate can run; the message names the key.
    pub fn from_json(file: &Path, json: &[u8]) -> Result<Self, ModelError> {
        parse(json).map_err(|reason| ModelError::Config { file: file.to_owned(), reason })
    }

    /// Number of weights, a tied output layer counted once.
    pub fn n_parameters(&self) -> usize {
        let queries = self.n_heads * self.head_dim;
        let keys = self.n_kv_heads * self.head_dim;
        let attention = self.dim * (2 * queries + 2 * keys);
        let layer = attention + 3 * self.dim * self.ffn_hidden + 2 * self.dim;
        let tables = if self.weight_tying { 1 } else { 2 };
        self.n_layers * layer + tables * self.vocab_size * self.dim + self.dim
    }
}

fn parse(json: &[u8]) -> Result<ModelConfig, String> {
    let root: Value = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let root = root.as_object().ok_or("the top level is not an object")?;
    let config = if let Some(args) = root.get("args") {
        meta(&Keys::new("args.", args)?)?
    } else if let Some(patcher) = root.get("patcher_config") {
        hugging_face(&Keys::new("patcher_config.", patcher)?)?
    } else if root.contains_key("hidden_size") || root.contains_key("num_hidden_layers") {
        hugging_face(&Keys { prefix: "", map: root })?
    } else {
        return Err("none of the keys args, patcher_config and hidden_size is there: \
             neither a released nor a Hugging Face configuration"
            .into());
    };
    validated(config)
}

/// `LMTransformerArgs` of the reference, with its defaults.
fn meta(keys: &Keys) -> Result<ModelConfig, String> {
    let dim = keys.count("dim")?.unwrap_or(512);
    let (n_heads, head_dim) = match (keys.count("n_heads")?, keys.count("head_dim")?) {
        (Some(heads), Some(head_dim)) => (heads, head_dim),
        (Some(heads), None) => (heads, keys.quotient("dim", dim, "n_heads", heads)?),
        (None, Some(head_dim)) => (keys.quotient("dim", dim, "head_dim", head_dim)?, head_dim),
        (None, None) => return Err(keys.error("n_heads", "is missing, and head_dim too")),
    };
    let multiple_of = keys.count("multiple_of")?.unwrap_or(256);
    if multiple_of == 0 {
        return Err(keys.error("multiple_of", "is 0"));
    }
    // The reference truncates before and after the multiplier, then rounds up.
    let mut hidden = 8 * dim / 3;
    if let Some(multiplier) = keys.real("ffn_dim_multiplier")? {
        if !(0.0..=1024.0).contains(&multiplier) {
            return Err(keys.error("ffn_dim_multiplier", &format!("is {multiplier}")));
        }
        hidden = (multiplier * hidden as f64) as usize;
    }
    let sliding_window = keys.count("sliding_window")?;
    meta_attention(keys, sliding_window)?;
    Ok(ModelConfig {
        dim,
        n_layers: keys.count("n_layers")?.unwrap_or(8),
        n_heads,
        n_kv_heads: keys.count("n_kv_heads")?.unwrap_or(n_heads),
        head_dim,
        ffn_hidden: hidden.next_multiple_of(multiple_of),
        norm_eps: keys.real("norm_eps")?.unwrap_or(1e-5) as f32,
        rope_theta: keys.real("rope_theta")?.unwrap_or(10_000.0) as f32,
        sliding_window,
        max_seqlen: keys.count("max_seqlen")?.unwrap_or(1024),
        vocab_size: keys.count("vocab_size")?.ok_or_else(|| keys.error("vocab_size", "is missing"))?,
        weight_tying: keys.flag("weight_tying")?.unwrap_or(false),
    })
}

/// Refuses combinations that the reference would run with another mask than ours.
fn meta_attention(keys: &Keys, sliding_window: Option<usize>) -> Result<(), String> {
    // In the reference an absent type is "causal", which ignores the window.
    let kind = keys.text("attn_bias_type")?.unwrap_or("causal");
    match (kind, sliding_window) {
        ("local_block_causal", Some(_)) | ("causal" | "block_causal", None) => Ok(()),
        ("local_block_causal", None) => {
            Err(keys
                .error("sliding_window", "is missing, and attn_bias_type = \"local_block_causal\" needs it"))
        }
        ("causal" | "block_causal", Some(window)) => Err(keys.error(
            "attn_bias_type",
            &format!(
                "is \"{kind}\", which ignores sliding_window = {window}; \
                 write \"local_block_causal\", or sliding_window = null"
            ),
        )),
        (other, _) => Err(keys.error("attn_bias_type", &format!("is \"{other}\", unknown"))),
    }
}

/// `BltPatcherConfig` of transformers, with its defaults.
fn hugging_face(keys: &Keys) -> Result<ModelConfig, String> {
    let dim = keys.count("hidden_size")?.unwrap_or(768);
    let n_heads = keys.count("num_attention_heads")?.unwrap_or(12);
    let head_dim = match keys.count("head_dim")? {
        Some(head_dim) => head_dim,
        None => keys.quotient("hidden_size", dim, "num_attention_heads", n_heads)?,
    };
    match keys.text("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => return Err(keys.error("hidden_act", &format!("is \"{other}\", not silu"))),
    }
    // transformers 5 moved the rotary constants into `rope_parameters`.
    let mut theta = keys.real("rope_theta")?;
    for name in ["rope_parameters", "rope_scaling"] {
        let Some(value) = keys.map.get(name).filter(|v| !v.is_null()) else {
            continue;
        };
        let inner = Keys::new(name, value).map_err(|_| keys.error(name, "is not an object"))?;
        match inner.text("rope_type")?.or(inner.text("type")?) {
            None | Some("default") => {}
            Some(other) => {
                return Err(keys.error(name, &format!("asks for rope_type \"{other}\"")));
            }
        }
        theta = theta.or(inner.real("rope_theta")?);
    }
    // `norm_eps` is what transformers' own conversion script writes.
    let norm_eps = keys.real("rms_norm_eps")?.or(keys.real("norm_eps")?);
    let sliding_window = match keys.map.get("sliding_window") {
        None => Some(RELEASED_WINDOW),
        Some(_) => keys.count("sliding_window")?,
    };
    Ok(ModelConfig {
        dim,
        n_layers: keys.count("num_hidden_layers")?.unwrap_or(14),
        n_heads,
        n_kv_heads: keys.count("num_key_value_heads")?.unwrap_or(n_heads),
        head_dim,
        // As transformers does it, 0 and null mean the derived width.
        ffn_hidden: match keys.map.get("intermediate_size") {
            None => 2048,
            Some(_) => keys.count("intermediate_size")?.filter(|&n| n > 0).unwrap_or(8 * dim / 3),
        },
        norm_eps: norm_eps.unwrap_or(1e-5) as f32,
        rope_theta: theta.unwrap_or(10_000.0) as f32,
        sliding_window,
        max_seqlen: keys.count("max_position_embeddings")?.unwrap_or(8192),
        vocab_size: keys.count("vocab_size")?.unwrap_or(VOCABULARY),
        weight_tying: keys.flag("tie_word_embeddings")?.unwrap_or(false),
    })
}

fn validated(config: ModelConfig) -> Result<ModelConfig, String> {
    let positive = [
        ("dim", config.dim),
        ("number of layers", config.n_layers),
        ("number of heads", config.n_heads),
        ("number of key-value heads", config.n_kv_heads),
        ("head_dim", config.head_dim),
        ("feed-forward width", config.ffn_hidden),
        ("longest context", config.max_seqlen),
        ("sliding window", config.sliding_window.unwrap_or(1)),
    ];
    if let Some((name, _)) = positive.iter().find(|(_, n)| *n == 0) {
        return Err(format!("the {name} is 0"));
    }
    if config.n_layers > MAX_LAYERS {
        return Err(format!("{} layers are more than {MAX_LAYERS}", config.n_layers));
    }
    if !config.n_heads.is_multiple_of(config.n_kv_heads) {
        return Err(format!(
            "{} heads cannot share {} key-value heads evenly",
            config.n_heads, config.n_kv_heads
        ));
    }
    if !config.head_dim.is_multiple_of(2) {
        return Err(format!("head_dim {} is odd, rotary positions need pairs", config.head_dim));
    }
    if config.vocab_size != VOCABULARY {
        return Err(format!("the vocabulary has {} tokens, not {VOCABULARY}", config.vocab_size));
    }
    if !(config.norm_eps >= 0.0 && config.norm_eps.is_finite()) {
        return Err(format!("the norm's eps is {}", config.norm_eps));
    }
    if !(config.rope_theta > 0.0 && config.rope_theta.is_finite()) {
        return Err(format!("rope_theta is {}", config.rope_theta));
    }
    Ok(config)
}

/// An object of the file; null counts as absent.
struct Keys<'a> {
    prefix: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    fn new(prefix: &'a str, value: &'a Value) -> Result<Self, String> {
        let map =
            value.as_object().ok_or_else(|| format!("{} is not an object", prefix.trim_end_matches('.')))?;
        Ok(Self { prefix, map })
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn error(&self, key: &str, reason: &str) -> String {
        format!("{}{key} {reason}", self.prefix)
    }

    fn count(&self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(n) if n <= MAX_COUNT => Ok(Some(n as usize)),
            _ => Err(self.error(key, &format!("is {value}, not a count up to {MAX_COUNT}"))),
        }
    }

    fn real(&self, key: &str) -> Result<Option<f64>, String> {
        let number = |value: &Value| {
            value.as_f64().ok_or_else(|| self.error(key, &format!("is {value}, not a number")))
        };
        self.get(key).map(number).transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        let flag = |value: &Value| {
            value.as_bool().ok_or_else(|| self.error(key, &format!("is {value}, not true or false")))
        };
        self.get(key).map(flag).transpose()
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        let text = |value: &'a Value| {
            value.as_str().ok_or_else(|| self.error(key, &format!("is {value}, not a string")))
        };
        self.get(key).map(text).transpose()
    }

    /// `whole / part`, which must come out even.
    fn quotient(&self, whole_key: &str, whole: usize, part_key: &str, part: usize) -> Result<usize, String> {
        if part == 0 || !whole.is_multiple_of(part) {
            let reason = format!("{whole} is not divisible by {}{part_key} {part}", self.prefix);
            return Err(self.error(whole_key, &reason));
        }
        Ok(whole / part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ModelConfig, String> {
        ModelConfig::from_json(Path::new("m/config.json"), json.as_bytes()).map_err(|e| e.to_string())
    }

    /// `facebook/blt-entropy`, whose size is known.
    const RELEASED: &str = r#"{"args": {"dim": 768, "n_layers": 14, "head_dim": null, "n_heads": 12,
        "n_kv_heads": null, "ffn_dim_multiplier": 1.0, "multiple_of": 256, "norm_eps": 1e-05,
        "rope_theta": 10000.0, "max_seqlen": 8192, "vocab_size": 260, "seed": 42,
        "attn_impl": "xformers", "attn_bias_type": "local_block_causal", "sliding_window": 512}}"#;

    #[test]
    fn the_released_model_has_its_published_size() {
        let config = read(RELEASED).unwrap();
        assert_eq!(config.n_parameters(), 99_512_064);
        assert_eq!((config.head_dim, config.ffn_hidden), (64, 2048));
        assert_eq!(config.sliding_window, Some(512));
    }

    #[test]
    fn hugging_face_and_meta_spell_the_same_model() {
        let bare = r#"{"hidden_size": 768, "rope_theta": 10000.0}"#;
        let new = r#"{"model_type": "blt", "patcher_config": {
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}}"#;
        assert_eq!(read(bare), read(RELEASED));
        assert_eq!(read(new), read(RELEASED));
        let whole = read(r#"{"patcher_config": {"sliding_window": null}}"#).unwrap();
        assert_eq!(whole.sliding_window, None);
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let config = read(r#"{"args": {"n_heads": 8, "vocab_size": 260}}"#).unwrap();
        assert_eq!((config.dim, config.n_layers, config.max_seqlen), (512, 8, 1024));
        assert_eq!(config.ffn_hidden, 1536); // int(8 · 512 / 3) = 1365, rounded up to 256
        assert_eq!(config.sliding_window, None);
        let config = read(r#"{"args": {"dim": 96, "head_dim": 32, "vocab_size": 260}}"#).unwrap();
        assert_eq!(config.n_heads, 3);
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_name() {
        let cases = [
            ("", "failed to read m/config.json: "),
            ("[]", "not an object"),
            ("{}", "none of the keys args"),
            (r#"{"args": {"n_heads": 8}}"#, "args.vocab_size is missing"),
            (r#"{"args": {"vocab_size": 260}}"#, "args.n_heads is missing"),
            (
                r#"{"args": {"dim": 100, "n_heads": 8, "vocab_size": 260}}"#,
                "args.dim 100 is not divisible by args.n_heads 8",
            ),
            (r#"{"args": {"dim": -1, "n_heads": 8, "vocab_size": 260}}"#, "args.dim is -1"),
            (r#"{"args": {"dim": 1e99, "n_heads": 8, "vocab_size": 260}}"#, "args.dim is 1e+99"),
            (r#"{"args": {"n_heads": 8, "n_kv_heads": 3, "vocab_size": 260}}"#, "cannot share 3"),
            (r#"{"args": {"n_heads": 8, "head_dim": 5, "vocab_size": 260}}"#, "head_dim 5 is odd"),
            (r#"{"args": {"n_heads": 8, "vocab_size": 256}}"#, "256 tokens, not 260"),
            (
                r#"{"args": {"n_heads": 8, "vocab_size": 260, "sliding_window": 512}}"#,
                "args.attn_bias_type is \"causal\", which ignores sliding_window = 512",
            ),
            (
                r#"{"args": {"n_heads": 8, "vocab_size": 260, "attn_bias_type": "local_block_causal"}}"#,
                "args.sliding_window is missing",
            ),
            (
                r#"{"args": {"n_heads": 8, "vocab_size": 260, "attn_bias_type": "prefix"}}"#,
                "\"prefix\", unknown",
            ),
            (
                r#"{"args": {"n_heads": 8, "vocab_size": 260, "sliding_window": 0,
                "attn_bias_type": "local_block_causal"}}"#,
                "sliding window is 0",
            ),
            (
                r#"{"hidden_size": 768, "rope_scaling": {"rope_type": "llama3"}}"#,
                "rope_scaling asks for rope_type \"llama3\"",
            ),
            (r#"{"hidden_size": 768, "hidden_act": "gelu"}"#, "hidden_act is \"gelu\", not silu"),
        ];
        for (json, message) in cases {
            let error = read(json).unwrap_err();
            assert!(error.contains(message), "{json}: {error}");
        }
    }
}
