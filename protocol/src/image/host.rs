//! What a variant asks of a device: what computes it, on which system, with how much memory.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::manifest::Variant;

/// What computes a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// Any processor.
    Cpu,
    /// Intel OpenVINO.
    Openvino,
    /// NVIDIA CUDA.
    Cuda,
    /// NVIDIA TensorRT.
    Tensorrt,
    /// Qualcomm QNN.
    Qnn,
    /// Apple CoreML.
    Coreml,
}

impl Accelerator {
    /// The value of the annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Openvino => "openvino",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
            Self::Qnn => "qnn",
            Self::Coreml => "coreml",
        }
    }

    /// What computes by a provider of the inference library; none for the processor, and for what needs no variant of its own.
    pub fn of_provider(provider: &str) -> Option<Self> {
        match provider {
            "OpenVINOExecutionProvider" => Some(Self::Openvino),
            "CUDAExecutionProvider" => Some(Self::Cuda),
            "TensorrtExecutionProvider" => Some(Self::Tensorrt),
            "QNNExecutionProvider" => Some(Self::Qnn),
            "CoreMLExecutionProvider" => Some(Self::Coreml),
            _ => None, // the processor, and whatever else needs no variant of its own
        }
    }

    /// What can compute on a device with these providers, best first, and the processor in any case.
    pub fn of_providers<'a>(providers: impl Iterator<Item = &'a str>) -> Vec<Self> {
        let mut accelerators: Vec<_> = providers.filter_map(Self::of_provider).collect();
        accelerators.push(Self::Cpu);
        accelerators.dedup();
        accelerators
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Cpu, Self::Openvino, Self::Cuda, Self::Tensorrt, Self::Qnn, Self::Coreml];
        all.into_iter().find(|accelerator| accelerator.as_str() == text)
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a variant must fit. Devices choose by it, and the server foresees by it what they choose.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// `linux`.
    pub os: &'a str,
    /// `amd64`, `arm64`.
    pub architecture: &'a str,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// What can compute, best first.
    pub accelerators: &'a [Accelerator],
}

impl Host<'_> {
    /// The best that fits: by accelerator, then by the publisher's order.
    pub fn choose<'i, T>(&self, all: &'i [T], variant: impl Fn(&T) -> &Variant) -> Option<&'i T> {
        let ranked = all.iter().filter_map(|each| Some((self.rank(variant(each)).ok()?, each)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, each)| each)
    }

    /// How good a variant is here, 0 is best; or, for people, what is lacking for it.
    pub fn rank(&self, variant: &Variant) -> Result<usize, String> {
        if let Some(platform) = &variant.platform
            && (platform.os != self.os || platform.architecture != self.architecture)
        {
            return Err(format!("is for {}/{}", platform.os, platform.architecture));
        }
        if variant.min_memory_mb > self.memory_mb {
            return Err(format!("needs {} MiB", variant.min_memory_mb));
        }
        let place = self.accelerators.iter().position(|each| *each == variant.accelerator);
        place.ok_or_else(|| format!("needs {}", variant.accelerator))
    }
}
