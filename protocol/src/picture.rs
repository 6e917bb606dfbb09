//! A few figures of a picture, which are counted as any column of numbers is: how large, bright, sharp and noisy it is, which way its
//! lines run, and where it is lighter than elsewhere.
//!
//! ```text
//!  picture ──▶ 64 x 64 points, spread evenly, each with its eight neighbours ──▶ sums of whole numbers ──▶ figures
//! ```
//! However large the picture, no more points than that are looked at, so the cost has a bound. Their neighbours are those of the picture
//! itself, not of a smaller one, so that blur and noise of a single pixel show. Sums are exact and each figure is a fixed sequence of
//! operations that IEEE 754 rounds in one way: device and publisher come to the same bit.

#[cfg(feature = "pictures")]
mod decode;
mod tensor;

#[cfg(feature = "pictures")]
pub use decode::{NotDecoded, decode};
pub use tensor::{count, of_tensor};

use crate::profile::Column;

/// Figures of a picture.
pub const FIGURES: usize = 19;

/// The figures of one picture, in the order of [`columns`]; not a number where a pixel is none.
pub type Figures = [f32; FIGURES];

/// The figure that stands for a picture where there is room for one number: how bright it is.
pub const BRIGHTNESS: usize = 3;

/// Points a side; a smaller picture has all its pixels looked at.
const POINTS: usize = 64;
/// Places a side.
const PLACES: usize = 3;

/// Name and group of each figure.
const COLUMNS: [(&str, &str); FIGURES] = [
    ("image.width", "image.size"),
    ("image.height", "image.size"),
    ("image.aspect", "image.size"),
    ("image.brightness", "image.light"),
    ("image.contrast", "image.light"),
    ("image.saturation", "image.light"),
    ("image.sharpness", "image.detail"),
    ("image.noise", "image.detail"),
    ("image.upright", "image.lines"),
    ("image.slant", "image.lines"),
    ("image.upper-left", "image.places"),
    ("image.upper-middle", "image.places"),
    ("image.upper-right", "image.places"),
    ("image.left", "image.places"),
    ("image.middle", "image.places"),
    ("image.right", "image.places"),
    ("image.lower-left", "image.places"),
    ("image.lower-middle", "image.places"),
    ("image.lower-right", "image.places"),
];

/// Red, green and blue weigh what ITU-R BT.601 says, in parts of 65,536.
pub const GREY: [u32; 3] = [19_595, 38_470, 7_471];

/// A decoded picture: rows from the top, pixels of one channel (grey) or three (red, green, blue).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// One or three.
    pub channels: usize,
    /// Row by row, pixel by pixel.
    pub data: Vec<u8>,
}

impl Pixels {
    /// The figures of the picture.
    pub fn figures(&self) -> Figures {
        figures((self.width, self.height), |x, y| self.pixel(x, y))
    }

    /// The figures of the picture without its colours, as a model of one channel is given it.
    pub fn figures_in_grey(&self) -> Figures {
        figures((self.width, self.height), |x, y| self.pixel(x, y).map(|pixel| [grey(pixel); 3]))
    }

    fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        let at = (y * self.width + x) * self.channels;
        if self.channels == 1 {
            return self.data.get(at).map(|grey| [*grey; 3]);
        }
        self.data.get(at..)?.first_chunk().copied()
    }
}

/// The columns of a baseline that counts pictures.
pub fn columns() -> Vec<Column> {
    COLUMNS.iter().map(|(name, group)| Column::numeric(name, group)).collect()
}

/// Which figure a column of this name holds.
pub fn figure(name: &str) -> Option<usize> {
    COLUMNS.iter().position(|(known, _)| *known == name)
}

/// How light a pixel is.
#[expect(clippy::cast_possible_truncation, reason = "the weights add up to 1, so a byte holds it")]
pub fn grey(pixel: [u8; 3]) -> u8 {
    let ([red, green, blue], [of_red, of_green, of_blue]) = (pixel.map(u32::from), GREY);
    ((red * of_red + green * of_green + blue * of_blue + (1 << 15)) >> 16) as u8
}

/// The figures of a picture of this width and height, whose pixels `pixel` tells; all are not a number if one that is looked at is none.
fn figures(
    (width, height): (usize, usize),
    pixel: impl Fn(usize, usize) -> Option<[u8; 3]>,
) -> Figures {
    let (columns, rows) = (points(width), points(height));
    let mut sums = Sums::default();
    for (row, y) in rows.iter().enumerate() {
        for (column, x) in columns.iter().enumerate() {
            let place = (row * PLACES / rows.len()) * PLACES + column * PLACES / columns.len();
            let near = Near::of((width, height), (*x, *y), &pixel);
            let (Some(near), Some(colour)) = (near, pixel(*x, *y)) else {
                return [f32::NAN; FIGURES];
            };
            sums.add(&near, colour, place);
        }
    }
    sums.figures(width, height)
}

/// Where along a side is looked: at every pixel, or at the middles of [`POINTS`] equal parts.
fn points(length: usize) -> Vec<usize> {
    let count = length.min(POINTS);
    (0..count).map(|point| (2 * point + 1) * length / (2 * count)).collect()
}

/// How light a point is, and what is beside it; beyond the edge lies what is at the edge.
struct Near {
    above: [i32; 3],
    level: [i32; 3],
    below: [i32; 3],
}

impl Near {
    fn of(
        (width, height): (usize, usize),
        (x, y): (usize, usize),
        pixel: impl Fn(usize, usize) -> Option<[u8; 3]>,
    ) -> Option<Self> {
        let xs = [x.saturating_sub(1), x, (x + 1).min(width.saturating_sub(1))];
        let row = |y: usize| {
            let [left, middle, right] = xs.map(|x| pixel(x, y).map(|at| i32::from(grey(at))));
            Some([left?, middle?, right?])
        };
        let below = row((y + 1).min(height.saturating_sub(1)))?;
        Some(Self { above: row(y.saturating_sub(1))?, level: row(y)?, below })
    }
}

/// Sums over 4,096 points at most, so that 32 bits hold each: the largest is of squares up to 1,020².
#[derive(Debug, Default)]
struct Sums {
    points: u32,
    light: u32,
    light_squares: u32,
    saturation: u32,
    laplacian: i32,
    laplacian_squares: u32,
    noise: u32,
    across: u32,
    down: u32,
    both: i32,
    places: [(u32, u32); PLACES * PLACES],
}

impl Sums {
    fn add(&mut self, near: &Near, [red, green, blue]: [u8; 3], place: usize) {
        let Near { above: [a, up, b], level: [left, middle, right], below: [c, under, d] } = *near;
        let light = middle.unsigned_abs();
        self.points += 1;
        self.light += light;
        self.light_squares += light * light;
        let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
        let colour = u32::from(most - least) * u32::from(u8::MAX);
        self.saturation += colour.checked_div(u32::from(most)).unwrap_or(0);
        let laplacian = 4 * middle - up - under - left - right;
        self.laplacian += laplacian;
        self.laplacian_squares += laplacian.unsigned_abs().pow(2);
        let noise = a - 2 * up + b - 2 * left + 4 * middle - 2 * right + c - 2 * under + d;
        self.noise += noise.unsigned_abs();
        let (across, down) = (right - left, under - up);
        self.across += across.unsigned_abs().pow(2);
        self.down += down.unsigned_abs().pow(2);
        self.both += across * down;
        if let Some((points, sum)) = self.places.get_mut(place) {
            *points += 1;
            *sum += light;
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "figures are counted as f32"
    )]
    fn figures(&self, width: usize, height: usize) -> Figures {
        /// Immerkær, "Fast noise variance estimation", 1996: the mean of this mask over pure noise, for a deviation of one.
        const NOISE: f64 = 6.0 * 0.797_884_560_802_865_4;
        let mean = |sum: u32| f64::from(sum) / f64::from(self.points.max(1));
        let variance = |sum: f64, squares: u32| {
            let points = f64::from(self.points.max(1));
            (points * f64::from(squares) - sum * sum) / (points * points)
        };
        let brightness = mean(self.light);
        let lines = f64::from(self.across) + f64::from(self.down);
        // A picture without any line has none of either kind.
        let share = |part: f64, none: f64| if lines > 0.0 { 100.0 * part / lines } else { none };
        let (width, height) = (width as f64, height as f64);
        let mut figures = [0.0; FIGURES];
        let (whole, places) = figures.split_at_mut(FIGURES - PLACES * PLACES);
        let of_whole = [
            width,
            height,
            width / height.max(1.0),
            brightness,
            variance(f64::from(self.light), self.light_squares).sqrt(),
            100.0 * mean(self.saturation) / 255.0,
            variance(f64::from(self.laplacian), self.laplacian_squares),
            mean(self.noise) / NOISE,
            share(f64::from(self.across), 50.0),
            share(2.0 * f64::from(self.both), 0.0),
        ];
        whole.iter_mut().zip(of_whole).for_each(|(to, figure)| *to = figure as f32);
        for (to, (points, sum)) in places.iter_mut().zip(self.places) {
            let there = f64::from(sum) / f64::from(points.max(1));
            *to = if points > 0 { (there - brightness) as f32 } else { 0.0 };
        }
        figures
    }
}

#[cfg(test)]
mod tests;
