//! That an input of a contract is pictures, and how its numbers come from pixels.

use serde::{Deserialize, Serialize};

use super::contract::TensorSpec;
use super::processing::{Colour, Layout};
use crate::tensor::Datatype;

/// An input of decoded pictures: each number is `(pixel / divisor - mean) / std` of a pixel from 0 to 255. UINT8 is pixels as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageTensor {
    /// Order of the dimensions; flat is not taken.
    #[serde(default)]
    pub layout: Layout,
    /// Order of the channels.
    #[serde(default)]
    pub colour: Colour,
    /// What a pixel is divided by.
    #[serde(default = "full_scale")]
    pub divisor: f32,
    /// Taken off, by channel; one for all, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// Divided by after that, by channel; one for all, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f32>,
}

const fn full_scale() -> f32 {
    255.0
}

/// The one input of a contract that is pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PictureInput<'a> {
    /// JPEG and PNG files, each an element.
    Encoded(&'a TensorSpec),
    /// Pixels as numbers.
    Decoded(&'a TensorSpec, &'a ImageTensor),
}

impl PictureInput<'_> {
    /// The input's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Encoded(spec) | Self::Decoded(spec, _) => &spec.name,
        }
    }
}

impl ImageTensor {
    /// The pixel that a number was made of.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounds to the nearest; what is beyond a pixel becomes the nearest that there is"
    )]
    pub fn pixel(&self, number: f32, channel: usize) -> u8 {
        let of = |values: &[f32], default: f32| {
            values.get(channel).or(values.first()).copied().unwrap_or(default)
        };
        let pixel = (number * of(&self.std, 1.0) + of(&self.mean, 0.0)) * self.divisor;
        (pixel + 0.5) as u8
    }

    /// Why a tensor cannot be such pictures, in words.
    pub(super) fn misfit(&self, spec: &TensorSpec) -> Option<String> {
        let name = &spec.name;
        let channels = self.colour.channels();
        let place = if self.layout == Layout::Nhwc { 3 } else { 1 };
        let is_one_each =
            |values: &[f32]| matches!(values.len(), 0 | 1) || values.len() == channels;
        let divisors = || self.std.iter().chain([&self.divisor]);
        if !spec.features.is_empty() {
            Some(format!("tensor `{name}`: it is pictures, or it has features, and not both"))
        } else if self.layout == Layout::Flat || spec.shape.len() != 4 {
            Some(format!("tensor `{name}`: pictures have four dimensions, nchw or nhwc"))
        } else if spec.shape.get(place).copied() != i64::try_from(channels).ok() {
            Some(format!("tensor `{name}`: its colour has {channels} channels, its shape others"))
        } else if !matches!(spec.datatype, Datatype::Fp32 | Datatype::Fp16 | Datatype::Uint8) {
            Some(format!("tensor `{name}`: pictures are FP32, FP16 or UINT8"))
        } else if !is_one_each(&self.mean) || !is_one_each(&self.std) {
            Some(format!("tensor `{name}`: mean and std are none, one, or one for each channel"))
        } else if divisors().chain(&self.mean).any(|value| !value.is_finite())
            || divisors().any(|&value| value == 0.0)
        {
            Some(format!("tensor `{name}`: a divisor is 0, or a value is not finite"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::IoContract;

    fn contract(image: &str, datatype: &str, shape: &str) -> Result<IoContract, String> {
        let json = format!(
            r#"{{"schema":1,"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"image":{image}}}],
                "outputs":[{{"name":"y","datatype":"FP32","shape":[-1]}}]}}"#
        );
        IoContract::parse(json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_tensor_of_pictures_is_told_by_its_contract() {
        let contract = contract(r#"{"mean":[0.5]}"#, "FP32", "[-1,3,224,224]").unwrap();
        let Some(PictureInput::Decoded(spec, image)) = contract.picture_input() else { panic!() };
        assert_eq!((spec.name.as_str(), image.layout, image.divisor), ("x", Layout::Nchw, 255.0));
    }

    #[test]
    fn what_cannot_be_pictures_is_refused() {
        for (image, datatype, shape, why) in [
            ("{}", "FP32", "[-1,224,224,3]", "its colour has 3 channels"),
            (r#"{"layout":"nhwc"}"#, "FP32", "[-1,3,224,224]", "its colour has 3 channels"),
            ("{}", "FP32", "[-1,150528]", "four dimensions"),
            (r#"{"layout":"flat"}"#, "FP32", "[-1,3,8,8]", "four dimensions"),
            ("{}", "INT64", "[-1,3,8,8]", "FP32, FP16 or UINT8"),
            (r#"{"std":[0]}"#, "FP32", "[-1,3,8,8]", "a divisor is 0"),
            (r#"{"mean":[1,2]}"#, "FP32", "[-1,3,8,8]", "one for each channel"),
            (r#"{"turn":90}"#, "FP32", "[-1,3,8,8]", "cannot be read"),
        ] {
            let told = contract(image, datatype, shape).unwrap_err();
            assert!(told.contains(why), "{image} {datatype} {shape}: {told}");
        }
    }

    #[test]
    fn every_pixel_survives_its_way_to_a_number_and_back() {
        let mean = vec![0.485, 0.456, 0.406];
        let std = vec![0.229, 0.224, 0.225];
        let image =
            ImageTensor { layout: Layout::Nchw, colour: Colour::Rgb, divisor: 255.0, mean, std };
        for pixel in 0..=u8::MAX {
            for channel in 0..3 {
                let number = (f32::from(pixel) / 255.0 - image.mean[channel]) / image.std[channel];
                assert_eq!(image.pixel(number, channel), pixel);
            }
        }
        assert_eq!((image.pixel(-9.0, 0), image.pixel(99.0, 0)), (0, 255));
    }
}
