#![expect(
    clippy::float_cmp,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are the same to the bit, and pixels are bytes"
)]

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::image::{Colour, ImageTensor, Layout};
use crate::tensor::{Datatype, Tensor, half};

/// The figure of a picture with this name.
fn figure_of(pixels: &Pixels, name: &str) -> f32 {
    pixels.figures()[figure(&format!("image.{name}")).unwrap()]
}

/// A grey picture of which each pixel is told.
fn picture(width: usize, height: usize, pixel: impl Fn(usize, usize) -> u8) -> Pixels {
    let data = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let data = data.map(|(x, y)| pixel(x, y)).collect();
    Pixels { width, height, channels: 1, data }
}

/// Numbers from 0 to 255, the same each time.
fn chance(place: usize) -> u8 {
    let mixed = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
}

/// A picture with a little of everything, in colour.
fn colourful(width: usize, height: usize) -> Pixels {
    let pixel = |place: usize| {
        let (x, y) = (place % width, place / width);
        [(x * 255 / width) as u8, (y * 255 / height) as u8, chance(place)]
    };
    let data = (0..width * height).flat_map(pixel).collect();
    Pixels { width, height, channels: 3, data }
}

#[test]
fn a_plain_picture_is_as_bright_as_its_pixels_and_nothing_else() {
    let plain = picture(20, 10, |_, _| 77);
    let figures = plain.figures();
    let expected = [20.0, 10.0, 2.0, 77.0, 0.0, 0.0, 0.0, 0.0, 50.0, 0.0];
    assert_eq!(figures[..10], expected);
    assert_eq!(figures[10..], [0.0; 9]);
    assert_eq!(figures[BRIGHTNESS], figure_of(&plain, "brightness"));
}

#[test]
fn a_single_pixel_is_a_picture_and_none_is_not() {
    assert_eq!(picture(1, 1, |_, _| 9).figures()[..4], [1.0, 1.0, 1.0, 9.0]);
    assert!(picture(1, 1, |_, _| 9).figures().iter().all(|figure| figure.is_finite()));
    let short = Pixels { width: 4, height: 4, channels: 3, data: vec![0; 40] };
    assert!(short.figures().iter().all(|figure| figure.is_nan()));
}

#[test]
fn sharpness_is_the_variance_of_the_laplacian() {
    // Columns of 0 and 100: inside, four times a pixel less its neighbours is 200 or -200; at the edges, 100 or -100.
    let stripes = picture(8, 8, |x, _| if x % 2 == 0 { 0 } else { 100 });
    let mean_square = (6.0 * 200.0_f32.powi(2) + 2.0 * 100.0_f32.powi(2)) / 8.0;
    assert_eq!(figure_of(&stripes, "sharpness"), mean_square);
    assert_eq!(figure_of(&stripes, "contrast"), 50.0);
}

#[test]
fn noise_is_measured_as_what_was_added() {
    // The sum of twelve numbers from 0 to 1 is about a bell curve with a deviation of one.
    let bell = |place: usize| {
        (0..12).map(|part| f64::from(chance(place * 12 + part)) / 256.0).sum::<f64>() - 6.0
    };
    for sigma in [4.0, 12.0] {
        let noisy = picture(64, 64, |x, y| (128.0 + sigma * bell(y * 64 + x)).round() as u8);
        let found = f64::from(figure_of(&noisy, "noise"));
        assert!((found / sigma - 1.0).abs() < 0.06, "{found} of {sigma}");
    }
}

#[test]
fn lines_have_their_way_and_a_turned_picture_another() {
    let upright = picture(40, 40, |x, _| if x / 5 % 2 == 0 { 0 } else { 200 });
    let flat = picture(40, 40, |_, y| if y / 5 % 2 == 0 { 0 } else { 200 });
    let slanted = picture(40, 40, |x, y| if (x + y) / 5 % 2 == 0 { 0 } else { 200 });
    let other = picture(40, 40, |x, y| if (x + 40 - y) / 5 % 2 == 0 { 0 } else { 200 });
    assert_eq!((figure_of(&upright, "upright"), figure_of(&flat, "upright")), (100.0, 0.0));
    assert!(figure_of(&slanted, "slant") > 90.0 && figure_of(&other, "slant") < -90.0);
    assert!((45.0..55.0).contains(&figure_of(&slanted, "upright")));
}

#[test]
fn a_place_says_how_much_lighter_it_is_than_the_picture() {
    let lit = picture(9, 9, |x, y| if x < 3 && y >= 6 { 90 } else { 0 });
    assert_eq!((figure_of(&lit, "brightness"), figure_of(&lit, "lower-left")), (10.0, 80.0));
    assert_eq!(figure_of(&lit, "middle"), -10.0);
}

#[test]
fn colour_is_saturation_and_grey_has_none() {
    let all = |pixel: [u8; 3]| Pixels { width: 5, height: 5, channels: 3, data: pixel.repeat(25) };
    assert_eq!(figure_of(&all([200, 100, 100]), "saturation"), 100.0 * 127.0 / 255.0);
    assert_eq!(figure_of(&all([90, 90, 90]), "saturation"), 0.0);
    let mut without_colour = colourful(30, 20).figures();
    without_colour[figure("image.saturation").unwrap()] = 0.0;
    assert_eq!(colourful(30, 20).figures_in_grey(), without_colour);
}

/// Forty thousand reads are some 100 µs, of a thumbnail and of 200 megapixels.
#[test]
fn the_cost_has_a_bound_whatever_the_size() {
    let reads = Cell::new(0);
    let figures = figures((16_384, 12_000), |x, y| {
        reads.set(reads.get() + 1);
        Some([chance(y * 16_384 + x); 3])
    });
    assert_eq!(reads.get(), 64 * 64 * 10);
    assert!(figures.iter().all(|figure| figure.is_finite()));
}

/// A device counts on bins that another release has made: what a picture's figures are must not change, to the bit.
#[test]
fn figures_stay_what_they_are() {
    let figures = colourful(150, 97).figures();
    let bits: Vec<u32> = figures.iter().map(|figure| figure.to_bits()).collect();
    insta::assert_debug_snapshot!(bits);
}

#[test]
fn columns_are_found_by_their_names() {
    for (place, column) in columns().iter().enumerate() {
        assert_eq!(figure(&column.name), Some(place));
    }
    assert_eq!(figure("brightness"), None);
}

fn of(colour: Colour, layout: Layout) -> ImageTensor {
    let (mean, std) = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
    ImageTensor { layout, colour, divisor: 255.0, mean, std }
}

/// What an application makes of pictures of one size, as tools for training do.
fn tensor(pictures: &[Pixels], image: &ImageTensor, datatype: Datatype) -> Tensor {
    let Pixels { width, height, .. } = pictures[0];
    let mut bytes = Vec::new();
    for Pixels { data, .. } in pictures {
        let mut push = |place: usize, channel: usize| {
            let from = if image.colour == Colour::Bgr { 2 - channel } else { channel };
            let pixel = data[place * 3 + from];
            let number = (f32::from(pixel) / 255.0 - image.mean[channel]) / image.std[channel];
            match datatype {
                Datatype::Uint8 => bytes.push(pixel),
                Datatype::Fp16 => bytes.extend(half::from_f64(f64::from(number)).to_le_bytes()),
                _ => bytes.extend(number.to_le_bytes()),
            }
        };
        if image.layout == Layout::Nhwc {
            (0..width * height).for_each(|place| (0..3).for_each(|part| push(place, part)));
        } else {
            (0..3).for_each(|part| (0..width * height).for_each(|place| push(place, part)));
        }
    }
    let [count, width, height] = [pictures.len(), width, height].map(|length| length as u64);
    let shape = match image.layout {
        Layout::Nhwc => vec![count, height, width, 3],
        Layout::Nchw | Layout::Flat => vec![count, 3, height, width],
    };
    Tensor::new("x".to_owned(), datatype, shape, bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_picture_has_the_same_figures_encoded_and_decoded(
        width in 1_usize..90, height in 1_usize..90, data in prop::collection::vec(any::<u8>(), 2 * 3 * 90 * 90),
        colour in prop::sample::select(vec![Colour::Rgb, Colour::Bgr]),
        layout in prop::sample::select(vec![Layout::Nchw, Layout::Nhwc]),
        datatype in prop::sample::select(vec![Datatype::Fp32, Datatype::Fp16, Datatype::Uint8]),
    ) {
        let bytes = width * height * 3;
        let pictures: Vec<_> = data.chunks_exact(bytes).take(2)
            .map(|data| Pixels { width, height, channels: 3, data: data.to_vec() }).collect();
        let image = of(colour, layout);
        let tensor = tensor(&pictures, &image, datatype);
        prop_assert_eq!(count(&tensor), 2);
        for (place, picture) in pictures.iter().enumerate() {
            prop_assert_eq!(of_tensor(&tensor, &image, place), picture.figures());
        }
    }

    #[test]
    fn any_tensor_has_figures_or_none(
        shape in prop::collection::vec(0_u64..5, 0..6), byte in any::<u8>(), place in any::<usize>(),
        datatype in prop::sample::select(vec![Datatype::Fp32, Datatype::Fp16, Datatype::Uint8, Datatype::Int64]),
    ) {
        let bytes = shape.iter().product::<u64>() as usize * datatype.element_bytes().unwrap();
        let tensor = Tensor::new("x".to_owned(), datatype, shape, vec![byte; bytes]).unwrap();
        for layout in [Layout::Nchw, Layout::Nhwc, Layout::Flat] {
            let figures = of_tensor(&tensor, &of(Colour::Rgb, layout), place % 7);
            let missing = figures.iter().filter(|figure| figure.is_nan()).count();
            prop_assert!(missing == 0 || missing == FIGURES);
        }
    }
}

#[test]
fn what_is_not_finite_is_no_picture() {
    let image = ImageTensor {
        colour: Colour::Grey,
        mean: vec![],
        std: vec![],
        ..of(Colour::Grey, Layout::Nchw)
    };
    let tensor = |value: f32| Tensor::fp32("x", &[1, 1, 2, 2], &[0.5, 0.5, value, 0.5]).unwrap();
    assert!(of_tensor(&tensor(f32::NAN), &image, 0)[BRIGHTNESS].is_nan());
    assert_eq!(of_tensor(&tensor(0.5), &image, 0)[BRIGHTNESS], 128.0);
    assert!(of_tensor(&tensor(0.5), &image, 1)[BRIGHTNESS].is_nan());
}
