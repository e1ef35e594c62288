//! Which devices there are, and which of them a pipeline runs on. Knows no tensor library.

use std::fmt;
use std::path::PathBuf;

use super::{EntropyModel, ModelError, Pending};
use crate::config::{self, Device as Api, Precision};
use crate::data::{PackedTokens, Wanted};

/// What sort of hardware an adapter is, in the order in which it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A card with memory of its own.
    DiscreteGpu,
    /// A part of the processor.
    IntegratedGpu,
    /// A share of a GPU given to a virtual machine.
    VirtualGpu,
    /// The driver does not say.
    Unknown,
    /// The processor itself.
    Cpu,
    /// The processor behind a GPU's interface: slower than [`Kind::Cpu`], and taken only when it is named.
    Software,
}

impl Kind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::DiscreteGpu => "discrete GPU",
            Kind::IntegratedGpu => "integrated GPU",
            Kind::VirtualGpu => "virtual GPU",
            Kind::Unknown => "unknown",
            Kind::Cpu => "processor",
            Kind::Software => "software",
        }
    }
}

/// Something that the model can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// The interface it is reached through: never `Auto`.
    pub api: Api,
    /// Its number among the adapters of that interface.
    pub number: usize,
    /// Its number among those of its kind, as Burn counts.
    pub(super) number_of_kind: usize,
    /// As the driver calls it.
    pub name: String,
    /// What sort of hardware it is.
    pub kind: Kind,
    /// Name and version of the driver; empty where there is none.
    pub driver: String,
}

/// What an adapter does, known once it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Number formats of weights and activations, the one that `auto` takes first.
    pub precisions: Vec<Precision>,
    /// Bytes of its memory, where the driver tells.
    pub memory: Option<u64>,
    /// Whether 16-bit products run on tensor cores.
    pub tensor_cores: bool,
}

impl Adapter {
    /// The processor, as the model library sees it.
    pub fn cpu() -> Self {
        Self {
            api: Api::Cpu,
            number: 0,
            number_of_kind: 0,
            name: instruction_level(),
            kind: Kind::Cpu,
            driver: String::new(),
        }
    }

    /// What it does; opens it.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn abilities(&self) -> Result<Abilities, ModelError> {
        #[cfg(feature = "gpu")]
        if self.kind != Kind::Cpu {
            return super::burn::abilities(self);
        }
        Ok(Abilities { precisions: vec![Precision::F32], memory: None, tensor_cores: false })
    }

    fn answers_to(&self, name: &str) -> bool {
        match name.parse::<usize>() {
            Ok(number) => number == self.number,
            Err(_) => self.name.to_lowercase().contains(&name.to_lowercase()),
        }
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {} ({})", self.api.name(), self.number, self.name, self.kind.name())
    }
}

/// The instruction sets that the kernels for the processor choose between at run time.
fn instruction_level() -> String {
    let mut level = std::env::consts::ARCH.to_string();
    #[cfg(target_arch = "x86_64")]
    for (name, there) in [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ] {
        if there {
            level.push('+');
            level.push_str(name);
        }
    }
    level
}

/// Everything this build can compute on, the processor last.
pub fn adapters() -> Vec<Adapter> {
    #[cfg(feature = "gpu")]
    let gpus = super::burn::adapters();
    #[cfg(not(feature = "gpu"))]
    let gpus = Vec::new();
    gpus.into_iter().chain([Adapter::cpu()]).collect()
}

/// Interfaces that this build has, the processor left out.
const COMPILED: [(Api, bool); 4] = [
    (Api::Cuda, cfg!(feature = "cuda")),
    (Api::Vulkan, cfg!(feature = "vulkan")),
    (Api::Metal, cfg!(feature = "metal")),
    (Api::Wgpu, cfg!(feature = "wgpu")),
];

/// The adapter that `settings` ask for among `adapters`, and why, in words.
///
/// `auto` takes the best real GPU, else the processor; software that answers in place of a GPU only where
/// `model.adapter` names it.
///
/// # Errors
/// When there is none, with all that was found.
pub fn choose(settings: &config::Model, adapters: &[Adapter]) -> Result<(Adapter, String), ModelError> {
    let (api, named) = (settings.device, settings.adapter.as_deref());
    let refuse = |problem: String| Err(ModelError::Unsupported(problem));
    if COMPILED.contains(&(api, false)) {
        let name = api.name();
        return refuse(format!(
            "model.device = {name:?}: this build has no {name}; build it with `--features {name}`, or use another \
             device. {}",
            found(adapters)
        ));
    }
    let mut fit: Vec<&Adapter> = adapters
        .iter()
        .filter(|a| api == Api::Auto || a.api == api)
        .filter(|a| named.map_or(a.kind != Kind::Software, |name| a.answers_to(name)))
        .collect();
    fit.sort_by_key(|a| a.kind);
    let Some(&best) = fit.first() else {
        let asked = match named {
            Some(name) => format!("model.device = {:?}, model.adapter = {name:?}", api.name()),
            None => format!("model.device = {:?}", api.name()),
        };
        let remedy = if named.is_none() && adapters.iter().any(|a| a.api == api && a.kind == Kind::Software) {
            " Software in place of a GPU is used only where model.adapter names it."
        } else {
            ""
        };
        return refuse(format!("{asked}: there is no such device. {}{remedy}", found(adapters)));
    };
    let why = match (api, named) {
        (_, Some(_)) => "named".to_owned(),
        (Api::Auto, None) if best.kind == Kind::Cpu => match COMPILED.iter().any(|(_, there)| *there) {
            true => "no GPU found".to_owned(),
            false => "this build has no GPU support".to_owned(),
        },
        (Api::Auto, None) if fit.len() > 2 => format!("the best of {} devices", fit.len()),
        (Api::Auto, None) => "a GPU is there".to_owned(),
        _ if fit.len() > 1 => format!("the first of {}", fit.len()),
        _ => "named".to_owned(),
    };
    Ok((best.clone(), why))
}

fn found(adapters: &[Adapter]) -> String {
    let names: Vec<String> = adapters.iter().map(ToString::to_string).collect();
    format!("Found: {}.", names.join(", "))
}

/// The number format to compute in: what the pipeline file asks for or, where it leaves that free, what an output was
/// begun with, else what the device does best.
///
/// # Errors
/// When the device does not have what was asked for, or what the output was begun with.
pub fn precision(
    asked: Precision,
    begun_with: Option<Precision>,
    device: &str,
    has: &[Precision],
) -> Result<Precision, ModelError> {
    let wanted = match asked {
        Precision::Auto => begun_with.or(has.first().copied()).unwrap_or(Precision::F32),
        asked => asked,
    };
    if has.contains(&wanted) {
        return Ok(wanted);
    }
    let names: Vec<&str> = has.iter().map(|precision| precision.name()).collect();
    let why = if asked == Precision::Auto { ", which the output was begun with" } else { "" };
    Err(ModelError::Unsupported(format!(
        "model.precision = {:?}{why}: {device} has {}",
        wanted.name(),
        names.join(", ")
    )))
}

/// Tokens of a full batch for `model`: of `most` or half of it, half of that, …, the first that the device has room for
/// with two batches on their way, as a run has them; at least a context. What compiles at first use compiles here.
///
/// # Errors
/// When there is no room for one context, or the device fails.
pub fn fitting_batch(model: &mut dyn EntropyModel, most: usize, context: usize) -> Result<usize, ModelError> {
    let wanted = Wanted { norms: true, pre_norm: true };
    let mut tokens = most.max(context);
    loop {
        let mut context_lengths = vec![context; tokens / context];
        context_lengths.extend(Some(tokens % context).filter(|left| *left > 0));
        let batch = PackedTokens { tokens: vec![0; tokens], context_lengths };
        let both = [model.submit(&batch, wanted), model.submit(&batch, wanted)];
        let both: Result<Vec<_>, _> = both.into_iter().map(|flight| flight.and_then(Pending::wait)).collect();
        match both {
            Ok(_) => return Ok(tokens),
            Err(ModelError::OutOfMemory(_)) if tokens > context => tokens = (tokens / 2).max(context),
            Err(error) => return Err(error),
        }
    }
}

/// Where it is remembered how many tokens fit: a JSON object in the user's cache folder.
#[derive(Clone, Debug)]
pub struct BatchCache(PathBuf);

impl BatchCache {
    /// The user's; `None` where there is no place for it.
    pub fn of_user() -> Option<Self> {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
        Some(Self(base.join("blt-pipeline/batch_tokens.json")))
    }

    /// What was found to fit for `key`.
    pub fn get(&self, key: &str) -> Option<usize> {
        self.read().get(key)?.as_u64().map(|tokens| tokens as usize)
    }

    /// Remembers it. A cache that cannot be written is no reason to stop.
    pub fn put(&self, key: &str, tokens: usize) {
        let mut all = self.read();
        all.insert(key.to_owned(), tokens.into());
        let written = self.0.parent().map(std::fs::create_dir_all).transpose().and_then(|_| {
            // Whole or not at all: others may read and write it now.
            let new = self.0.with_extension(format!("tmp-{}", std::process::id()));
            std::fs::write(&new, serde_json::Value::Object(all).to_string())?;
            std::fs::rename(&new, &self.0)
        });
        if let Err(error) = written {
            tracing::debug!("failed to write {}: {error}", self.0.display());
        }
    }

    fn read(&self) -> serde_json::Map<String, serde_json::Value> {
        let text = std::fs::read(&self.0).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Scores;

    fn card(number: usize, kind: Kind) -> Adapter {
        let name = format!("NVIDIA H100 80GB HBM3 {}", kind.name());
        Adapter { api: Api::Wgpu, number, number_of_kind: number, name, kind, driver: String::new() }
    }

    #[test]
    fn the_best_real_device_is_taken_unless_another_is_named() {
        let all = [
            card(0, Kind::Software),
            card(1, Kind::IntegratedGpu),
            card(2, Kind::DiscreteGpu),
            card(3, Kind::DiscreteGpu),
            Adapter::cpu(),
        ];
        let choose = |adapter: Option<&str>, all: &[Adapter]| {
            let settings = config::Model { adapter: adapter.map(str::to_owned), ..config::Model::default() };
            choose(&settings, all).map(|(adapter, _)| adapter.number)
        };
        assert_eq!(choose(None, &all).unwrap(), 2);
        // A number is no part of a name: all of these have an 8, a 1 and a 3 in theirs.
        assert_eq!(choose(Some("1"), &all).unwrap(), 1);
        assert_eq!(choose(Some("3"), &all).unwrap(), 3);
        assert!(choose(Some("8"), &all).unwrap_err().to_string().contains("no such device"));
        assert_eq!(choose(Some("h100"), &all).unwrap(), 2);
        assert_eq!(choose(Some("Software"), &all).unwrap(), 0);
        assert_eq!(choose(None, &[card(7, Kind::Software), Adapter::cpu()]).unwrap(), 0);
    }

    #[test]
    fn an_output_keeps_the_number_format_that_it_was_begun_with() {
        let (f16, f32) = (Precision::F16, Precision::F32);
        let of = |asked, begun, has: &[Precision]| precision(asked, begun, "the device", has);
        assert_eq!(of(Precision::Auto, None, &[f16, f32]).unwrap(), f16);
        assert_eq!(of(Precision::Auto, Some(f32), &[f16, f32]).unwrap(), f32);
        assert_eq!(of(f32, Some(f16), &[f16, f32]).unwrap(), f32);
        let refused = of(Precision::Auto, Some(f16), &[f32]).unwrap_err().to_string();
        assert!(refused.contains("which the output was begun with"), "{refused}");
    }

    /// Has room for so many tokens at once, in whatever contexts.
    struct Small(usize);

    impl EntropyModel for Small {
        fn dim(&self) -> usize {
            1
        }

        fn max_context(&self) -> usize {
            100
        }

        fn device_class(&self) -> String {
            "small".to_owned()
        }

        fn score(&mut self, batch: &PackedTokens, _: Wanted) -> Result<Scores, ModelError> {
            match batch.tokens.len() > self.0 {
                true => Err(ModelError::OutOfMemory(format!("{} tokens", batch.tokens.len()))),
                false => Ok(Scores::default()),
            }
        }
    }

    #[test]
    fn the_largest_batch_that_fits_is_found_by_halves_and_all_of_it_is_tried() {
        assert_eq!(fitting_batch(&mut Small(800), 800, 100).unwrap(), 800);
        assert_eq!(fitting_batch(&mut Small(799), 800, 100).unwrap(), 400);
        // Not only the whole contexts in it.
        assert_eq!(fitting_batch(&mut Small(800), 850, 100).unwrap(), 425);
        assert_eq!(fitting_batch(&mut Small(120), 800, 100).unwrap(), 100);
        assert!(matches!(fitting_batch(&mut Small(99), 800, 100), Err(ModelError::OutOfMemory(_))));
    }
}
