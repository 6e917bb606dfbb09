//! Encoded images to the numbers that a graph takes.

use sealift_protocol::image::{Colour, Fit, ImageStep, Layout, TensorSpec};
use sealift_protocol::picture::{Pixels, decode, grey};
use sealift_protocol::tensor::{Datatype, Tensor, half};

use super::resample::{Stretch, resize};
use super::{EngineError, MADE_BYTES_MAX};
use crate::engine::look::Look;

/// Makes the graph's input out of all elements of `images`, and looks at those that `look` asks for.
pub(super) fn run(
    step: &ImageStep,
    spec: &TensorSpec,
    images: &Tensor,
    look: &mut Look,
) -> Result<Tensor, EngineError> {
    let refused = |text: String| EngineError::Input(format!("input `{}`{text}", step.from));
    let (width, height) = (side(step.width), side(step.height));
    let elements = width * height * step.colour.channels();
    let element_bytes = spec.datatype.element_bytes().unwrap_or(1);
    let count = usize::try_from(images.elements().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let bytes = elements.saturating_mul(element_bytes).saturating_mul(count);
    if bytes > MADE_BYTES_MAX {
        return Err(refused(format!(
            ": {count} images make {bytes} bytes, at most {MADE_BYTES_MAX} are taken"
        )));
    }
    let scales = Scales::new(step);
    let mut made = Vec::with_capacity(bytes);
    for (place, file) in images.byte_elements().enumerate() {
        let pixels = decode(file);
        let pixels = pixels.map_err(|error| refused(format!(", element {place}: {error}")))?;
        look.at(place, || pixels.figures());
        let pixels = fit(step, &in_colour(pixels, step.colour));
        write(&pixels, step.layout, spec.datatype, &scales, &mut made);
    }
    let channels = step.colour.channels() as u64;
    let (rows, columns) = (u64::from(step.height), u64::from(step.width));
    let shape = match step.layout {
        Layout::Nchw => vec![count as u64, channels, rows, columns],
        Layout::Nhwc => vec![count as u64, rows, columns, channels],
        Layout::Flat => vec![count as u64, channels * rows * columns],
    };
    Tensor::new(spec.name.clone(), spec.datatype, shape, made)
        .map_err(|error| EngineError::Run(error.to_string()))
}

fn side(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

fn in_colour(pixels: Pixels, colour: Colour) -> Pixels {
    let Pixels { width, height, channels, data } = pixels;
    let data = match (colour, channels) {
        (Colour::Grey, 3) => data.as_chunks::<3>().0.iter().map(|pixel| grey(*pixel)).collect(),
        (Colour::Rgb | Colour::Bgr, 1) => data.iter().flat_map(|&grey| [grey; 3]).collect(),
        (Colour::Bgr, _) => data
            .as_chunks::<3>()
            .0
            .iter()
            .flat_map(|&[red, green, blue]| [blue, green, red])
            .collect(),
        (Colour::Grey | Colour::Rgb, _) => data,
    };
    Pixels { width, height, channels: colour.channels(), data }
}

fn fit(step: &ImageStep, pixels: &Pixels) -> Pixels {
    let (width, height) = (side(step.width), side(step.height));
    let whole = |length: usize| Stretch { full: length as u64, begin: 0, length };
    match step.fit {
        Fit::Stretch => resize(pixels, step.filter, whole(width), whole(height)),
        Fit::Crop => {
            let (full_width, full_height) = covering(step, pixels);
            let across = middle(full_width, width);
            resize(pixels, step.filter, across, middle(full_height, height))
        }
        Fit::Pad => {
            let (new_width, new_height) = fitting(pixels, width, height);
            let small = resize(pixels, step.filter, whole(new_width), whole(new_height));
            on_black(&small, width, height)
        }
    }
}

/// The size of the whole image once its shorter side has the length that is wanted, or once it covers the target.
fn covering(step: &ImageStep, pixels: &Pixels) -> (u64, u64) {
    let (width, height) = (pixels.width as u64, pixels.height as u64);
    let (target_width, target_height) = (u64::from(step.width), u64::from(step.height));
    let is_upright = match step.shorter_side {
        Some(_) => width <= height,
        None => target_width * height >= target_height * width,
    };
    let shorter = step.shorter_side.map(u64::from);
    if is_upright {
        let full = shorter.unwrap_or(target_width);
        (full, (full * height / width).max(target_height))
    } else {
        let full = shorter.unwrap_or(target_height);
        ((full * width / height).max(target_width), full)
    }
}

/// The middle `length` of `full`; an odd rest goes to the even side, as Python rounds.
const fn middle(full: u64, length: usize) -> Stretch {
    let rest = full.saturating_sub(length as u64);
    let half = rest / 2;
    let begin = if rest % 2 == 1 && half % 2 == 1 { half + 1 } else { half };
    Stretch { full, begin, length }
}

/// The largest size of the same proportions that fits.
fn fitting(pixels: &Pixels, width: usize, height: usize) -> (usize, usize) {
    let rounded =
        |numerator: usize, denominator: usize| (numerator * 2 + denominator) / (denominator * 2);
    if width * pixels.height <= height * pixels.width {
        (width, rounded(width * pixels.height, pixels.width).clamp(1, height))
    } else {
        (rounded(height * pixels.width, pixels.height).clamp(1, width), height)
    }
}

fn on_black(small: &Pixels, width: usize, height: usize) -> Pixels {
    let channels = small.channels;
    let (left, top) = ((width - small.width) / 2, (height - small.height) / 2);
    let mut data = vec![0; width * height * channels];
    let rows = data.chunks_exact_mut(width * channels).skip(top);
    for (row, from) in rows.zip(small.data.chunks_exact(small.width * channels)) {
        let place = left * channels..left * channels + from.len();
        if let Some(target) = row.get_mut(place) {
            target.copy_from_slice(from);
        }
    }
    Pixels { width, height, channels, data }
}

/// What each of the 256 values of a pixel becomes, by channel: three operations in FP32, as numpy does them.
struct Scales(Vec<[f32; 256]>);

impl Scales {
    fn new(step: &ImageStep) -> Self {
        let of = |values: &[f32], channel: usize, default: f32| {
            values.get(channel).or(values.first()).copied().unwrap_or(default)
        };
        let channel = |channel: usize| {
            let (mean, std) = (of(&step.mean, channel, 0.0), of(&step.std, channel, 1.0));
            let mut value = 0.0_f32;
            [(); 256].map(|()| {
                let pixel = value;
                value += 1.0;
                (pixel / step.divisor - mean) / std
            })
        };
        Self((0..step.colour.channels()).map(channel).collect())
    }
}

fn write(pixels: &Pixels, layout: Layout, datatype: Datatype, table: &Scales, made: &mut Vec<u8>) {
    let channels = pixels.channels;
    let mut push = |pixel: u8, channel: usize| {
        let scaled = || {
            let values = table.0.get(channel);
            values.and_then(|values| values.get(usize::from(pixel))).copied().unwrap_or_default()
        };
        if datatype == Datatype::Uint8 {
            made.push(pixel);
        } else if datatype == Datatype::Fp16 {
            made.extend(half::from_f64(f64::from(scaled())).to_le_bytes());
        } else {
            made.extend(scaled().to_le_bytes()); // FP32: the contract was checked for it
        }
    };
    match layout {
        Layout::Nhwc => {
            let place = pixels.data.iter().enumerate();
            place.for_each(|(place, &pixel)| push(pixel, place % channels));
        }
        Layout::Nchw | Layout::Flat => {
            for channel in 0..channels {
                let of_channel = pixels.data.iter().skip(channel).step_by(channels);
                of_channel.for_each(|&pixel| push(pixel, channel));
            }
        }
    }
}
