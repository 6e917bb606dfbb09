//! Which of a model's variants a device takes, and why not the others.

use sealift_protocol::image::{Host, ModelIndex, Variant};
use sealift_protocol::telemetry::Facts;

use super::Me;
use crate::device::{Fault, FaultKind};

/// The best variant that fits the device: by accelerator, then by the publisher's order. Says what keeps the device from the others.
pub(super) fn choose<'a>(index: &'a ModelIndex, me: &Me) -> Result<&'a Variant, Fault> {
    let host = Host {
        os: &me.facts.os,
        architecture: &me.facts.architecture,
        memory_mb: me.facts.memory_mb,
        accelerators: &me.accelerators,
    };
    let name = |variant: &Variant| format!("{}/{}", variant.accelerator, variant.precision);
    let mut best: Option<(usize, &Variant)> = None;
    let mut passed_over = Vec::new();
    for variant in index.variants() {
        match host.rank(variant) {
            Ok(rank) if best.is_none_or(|(least, _)| rank < least) => {
                passed_over.extend(best.map(|(_, other)| format!("{} comes after", name(other))));
                best = Some((rank, variant));
            }
            Ok(_) => passed_over.push(format!("{} comes after", name(variant))),
            Err(why) => passed_over.push(format!("{} {why}", name(variant))),
        }
    }
    let passed_over = passed_over.join("; ");
    if let Some((_, variant)) = best {
        let variant_name = name(variant);
        tracing::info!(variant = variant_name, passed_over, "variant chosen");
        return Ok(variant);
    }
    let Facts { os, architecture, memory_mb, .. } = &me.facts;
    let names: Vec<_> = me.accelerators.iter().map(|each| each.as_str()).collect();
    let reason = format!(
        "none of {} variants is for {os}/{architecture} with {memory_mb} MiB and {}: {passed_over}",
        index.variants().len(),
        names.join(", "),
    );
    Err(Fault::new(FaultKind::NotApplicable, "image.no-variant", &reason))
}

#[cfg(test)]
mod tests {
    use sealift_protocol::id::{DeviceId, TenantId};
    use sealift_protocol::image::{Accelerator, Descriptor, Platform, media_type};

    use super::*;

    fn variant(accelerator: Accelerator, precision: &str, min_memory_mb: u64) -> Variant {
        let manifest = Descriptor::of(media_type::MANIFEST, precision.as_bytes());
        let precision = precision.to_owned();
        Variant { manifest, platform: None, accelerator, precision, min_memory_mb }
    }

    fn index() -> ModelIndex {
        let arm =
            Platform { os: "linux".to_owned(), architecture: "arm64".to_owned(), variant: None };
        let bytes = ModelIndex::write(&[
            variant(Accelerator::Cpu, "fp32", 512),
            variant(Accelerator::Cpu, "int8", 64),
            Variant { platform: Some(arm), ..variant(Accelerator::Cpu, "fp16", 0) },
            variant(Accelerator::Openvino, "fp32", 64),
        ]);
        ModelIndex::parse(&bytes).unwrap()
    }

    fn me(memory_mb: u64, accelerators: &[Accelerator]) -> Me {
        let (os, architecture) = ("linux".to_owned(), "amd64".to_owned());
        let facts = Facts { os, architecture, memory_mb, ..Facts::default() };
        Me {
            tenant: TenantId::parse("main").unwrap(),
            device: DeviceId::parse("cam-1").unwrap(),
            facts,
            accelerators: accelerators.to_vec(),
            require_cosign: false,
        }
    }

    fn chosen(memory_mb: u64, accelerators: &[Accelerator]) -> (Accelerator, String) {
        let index = index();
        let variant = choose(&index, &me(memory_mb, accelerators)).unwrap();
        (variant.accelerator, variant.precision.clone())
    }

    #[test]
    fn the_best_accelerator_decides_and_then_the_publishers_order() {
        const BOTH: [Accelerator; 2] = [Accelerator::Openvino, Accelerator::Cpu];
        assert_eq!(chosen(4_096, &[Accelerator::Cpu]), (Accelerator::Cpu, "fp32".to_owned()));
        assert_eq!(chosen(256, &[Accelerator::Cpu]), (Accelerator::Cpu, "int8".to_owned()));
        assert_eq!(chosen(4_096, &BOTH), (Accelerator::Openvino, "fp32".to_owned()));
    }

    #[test]
    fn a_device_that_fits_none_says_what_it_lacks_for_each() {
        let fault = choose(&index(), &me(32, &[Accelerator::Cpu])).unwrap_err();
        assert_eq!(
            (fault.kind, fault.code.as_str()),
            (FaultKind::NotApplicable, "image.no-variant")
        );
        let expected = "none of 4 variants is for linux/amd64 with 32 MiB and cpu: cpu/fp32 needs 512 MiB; \
            cpu/int8 needs 64 MiB; cpu/fp16 is for linux/arm64; openvino/fp32 needs 64 MiB";
        assert_eq!(fault.reason, expected);
    }
}
