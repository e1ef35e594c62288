//! Lists and opens GPUs through Burn.

use ::burn::prelude::Device;

use crate::model::device::{Abilities, Adapter};
use crate::{
    config::{Device as Api, Precision},
    model::ModelError,
};

use super::{Gpu, Real};
use half::{bf16, f16};

/// Every adapter of every interface in this build; opens none.
pub fn adapters() -> Vec<Adapter> {
    let mut adapters = Vec::new();
    #[cfg(feature = "cuda")]
    adapters.extend(cuda::adapters());
    #[cfg(feature = "wgpu")]
    {
        #[cfg(feature = "vulkan")]
        adapters.extend(graphics::adapters(Api::Vulkan));
        #[cfg(feature = "metal")]
        adapters.extend(graphics::adapters(Api::Metal));
        adapters.extend(graphics::adapters(Api::Wgpu));
    }
    adapters
}

/// What `adapter` does; opens it.
///
/// # Errors
/// When the driver refuses.
pub fn abilities(adapter: &Adapter) -> Result<Abilities, ModelError> {
    let device = open(adapter)?;
    let gpu = Gpu::of(&device)?;
    // As nearly all models have them.
    let head_dim = 64;
    let tensor_cores =
        [super::kernels::<f16>(&gpu.client, head_dim), super::kernels::<bf16>(&gpu.client, head_dim)]
            .iter()
            .any(|kernels| *kernels != super::Kernels::Units);
    let mut precisions = Vec::new();
    // bf16 keeps 8 bits of a number, f16 keeps 11: enough for this model's range, and nearer to f32.
    for (precision, dtype) in [(Precision::F16, f16::DTYPE), (Precision::Bf16, bf16::DTYPE)] {
        if device.supports_dtype(dtype) {
            precisions.push(precision);
        }
    }
    precisions.push(Precision::F32);
    Ok(Abilities { precisions, memory: gpu.client.properties().memory.max_memory(), tensor_cores })
}

/// The device of `adapter`, ready to compute.
///
/// # Errors
/// When the driver refuses.
pub fn open(adapter: &Adapter) -> Result<Device, ModelError> {
    match adapter.api {
        #[cfg(feature = "cuda")]
        Api::Cuda => Ok(Device::cuda(adapter.number)),
        #[cfg(feature = "wgpu")]
        Api::Wgpu | Api::Vulkan | Api::Metal => graphics::open(adapter),
        _ => Err(ModelError::Device(format!("{adapter} is not a GPU of this build"))),
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use ::burn::prelude::Device;
    use ::burn::tensor::DeviceType;

    use crate::config::Device as Api;
    use crate::model::device::{Adapter, Kind};

    pub(super) fn adapters() -> Vec<Adapter> {
        let devices = Device::enumerate(DeviceType::Cuda).into_vec();
        let adapter = |(number, device): (usize, Device)| Adapter {
            api: Api::Cuda,
            number,
            number_of_kind: number,
            name: device.identity().map_or_else(|| "CUDA device".to_owned(), |identity| identity.name),
            kind: Kind::DiscreteGpu,
            driver: String::new(),
        };
        devices.into_iter().enumerate().map(adapter).collect()
    }
}

#[cfg(feature = "wgpu")]
mod graphics {
    use std::sync::Mutex;

    use ::burn::prelude::Device;
    use ::burn::tensor::DeviceKind;
    use ::burn::tensor::wgpu::{WgpuBackend, wgpu};

    use crate::config::Device as Api;
    use crate::model::ModelError;
    use crate::model::device::{Adapter, Kind};

    /// A device is set up once a process; whoever asks again gets the same.
    static OPEN: Mutex<Vec<(Api, usize, Device)>> = Mutex::new(Vec::new());

    pub(super) fn adapters(api: Api) -> Vec<Adapter> {
        let backends = match api {
            Api::Vulkan => wgpu::Backends::VULKAN,
            Api::Metal => wgpu::Backends::METAL,
            _ => wgpu::Backends::PRIMARY,
        };
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let found = cubecl::future::block_on(instance.enumerate_adapters(backends));
        let mut adapters: Vec<Adapter> = Vec::with_capacity(found.len());
        for (number, adapter) in found.iter().enumerate() {
            let info = adapter.get_info();
            let kind = match info.device_type {
                wgpu::DeviceType::DiscreteGpu => Kind::DiscreteGpu,
                wgpu::DeviceType::IntegratedGpu => Kind::IntegratedGpu,
                wgpu::DeviceType::VirtualGpu => Kind::VirtualGpu,
                wgpu::DeviceType::Cpu => Kind::Software,
                wgpu::DeviceType::Other => Kind::Unknown,
            };
            adapters.push(Adapter {
                api,
                number,
                number_of_kind: adapters.iter().filter(|a| a.kind == kind).count(),
                name: info.name,
                kind,
                driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            });
        }
        adapters
    }

    pub(super) fn open(adapter: &Adapter) -> Result<Device, ModelError> {
        let mut open = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((.., device)) = open.iter().find(|(a, n, _)| (*a, *n) == (adapter.api, adapter.number)) {
            return Ok(device.clone());
        }
        let i = adapter.number_of_kind;
        let kind = match adapter.kind {
            Kind::DiscreteGpu => DeviceKind::DiscreteGpu(i),
            Kind::IntegratedGpu => DeviceKind::IntegratedGpu(i),
            Kind::VirtualGpu => DeviceKind::VirtualGpu(i),
            Kind::Cpu | Kind::Software => DeviceKind::Cpu,
            Kind::Unknown => DeviceKind::DefaultDevice,
        };
        let interface = match adapter.api {
            Api::Vulkan => WgpuBackend::Vulkan,
            Api::Metal => WgpuBackend::Metal,
            _ => WgpuBackend::Auto,
        };
        let device = Device::wgpu_options()
            .device_kind(kind)
            .graphics_api(interface)
            .init()
            .map_err(|error| ModelError::Device(format!("{adapter} cannot be opened: {error}")))?;
        open.push((adapter.api, adapter.number, device.clone()));
        Ok(device)
    }
}
