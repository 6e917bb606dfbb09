//! Images in another size: first across, then down, with whole numbers between the passes and weights of 22 bits behind the point. So
//! does Pillow, by which most models are trained, but that it takes the passes the other way round for some shapes: one rounding apart.

use sealift_protocol::image::Filter;
use sealift_protocol::picture::Pixels;

/// Bits behind the point of a weight: 8 bits of a pixel and 2 to spare for sums beyond white fit beside them into 32.
const POINT_BITS: u32 = 32 - 8 - 2;

/// A stretch of one dimension of the new image: `length` pixels from `begin` on, of `full` that the whole old image would become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) full: u64,
    pub(super) begin: u64,
    pub(super) length: usize,
}

/// Where the pixels come from that a new one is made of, and what each counts.
#[derive(Debug)]
struct Weights {
    first: usize,
    weights: Vec<i32>,
}

/// Makes the part of the resized image that the stretches name.
pub(super) fn resize(from: &Pixels, filter: Filter, across: Stretch, down: Stretch) -> Pixels {
    if filter == Filter::Nearest {
        return nearest(from, across, down);
    }
    vertically(&horizontally(from, across, filter), down, filter)
}

impl Stretch {
    /// Whether it is the old image's whole length.
    const fn is_all_of(self, length: usize) -> bool {
        self.full == length as u64 && self.begin == 0 && self.length == length
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "lengths are below 2^32, and a negative start is the image's edge"
)]
fn weights(length: usize, stretch: Stretch, filter: Filter) -> Vec<Weights> {
    let scale = length as f64 / stretch.full as f64;
    // When an image shrinks the filter widens, so that every old pixel counts.
    let width = scale.max(1.0);
    let support = reach(filter) * width;
    let pixel = |place: u64| {
        let centre = (place as f64 + 0.5) * scale;
        let first = ((centre - support + 0.5).max(0.0) as usize).min(length.saturating_sub(1));
        let end = ((centre + support + 0.5) as usize).clamp(first + 1, length.max(first + 1));
        let raw = (first..end).map(|old| weight(filter, (old as f64 - centre + 0.5) / width));
        let raw: Vec<f64> = raw.collect();
        let sum: f64 = raw.iter().sum();
        let share = |weight: &f64| {
            let share = if sum == 0.0 { *weight } else { weight / sum };
            (share * f64::from(1_u32 << POINT_BITS)).round() as i32
        };
        Weights { first, weights: raw.iter().map(share).collect() }
    };
    (stretch.begin..).take(stretch.length).map(pixel).collect()
}

/// How far from its centre a filter looks, in pixels.
const fn reach(filter: Filter) -> f64 {
    match filter {
        Filter::Nearest => 0.5,
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
    }
}

fn weight(filter: Filter, distance: f64) -> f64 {
    const A: f64 = -0.5;
    let distance = distance.abs();
    match filter {
        Filter::Nearest => f64::from(u8::from(distance < 0.5)),
        Filter::Bilinear => (1.0 - distance).max(0.0),
        Filter::Bicubic if distance < 1.0 => {
            ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
        }
        Filter::Bicubic if distance < 2.0 => {
            (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A
        }
        Filter::Bicubic => 0.0,
    }
}

/// The weighted sum, rounded, within what a pixel can be.
fn sum(pixels: impl Iterator<Item = u8>, weights: &[i32]) -> u8 {
    let half = 1_i64 << (POINT_BITS - 1);
    let parts = pixels.zip(weights).map(|(pixel, &weight)| i64::from(pixel) * i64::from(weight));
    let rounded = (parts.sum::<i64>() + half) >> POINT_BITS;
    u8::try_from(rounded.clamp(0, i64::from(u8::MAX))).unwrap_or(u8::MAX)
}

fn horizontally(from: &Pixels, across: Stretch, filter: Filter) -> Pixels {
    if across.is_all_of(from.width) {
        return from.clone();
    }
    let (columns, channels) = (weights(from.width, across, filter), from.channels);
    let mut data = Vec::with_capacity(columns.len() * from.height * channels);
    for row in from.data.chunks_exact(from.width * channels) {
        for Weights { first, weights } in &columns {
            for channel in 0..channels {
                let old = row.get(first * channels + channel..).unwrap_or_default();
                data.push(sum(old.iter().step_by(channels).copied(), weights));
            }
        }
    }
    Pixels { width: columns.len(), height: from.height, channels, data }
}

fn vertically(from: &Pixels, down: Stretch, filter: Filter) -> Pixels {
    if down.is_all_of(from.height) {
        return from.clone();
    }
    let rows = weights(from.height, down, filter);
    let row_bytes = from.width * from.channels;
    let mut data = Vec::with_capacity(rows.len() * row_bytes);
    for Weights { first, weights } in &rows {
        for place in 0..row_bytes {
            let old = from.data.get(first * row_bytes + place..).unwrap_or_default();
            data.push(sum(old.iter().step_by(row_bytes).copied(), weights));
        }
    }
    Pixels { width: from.width, height: rows.len(), channels: from.channels, data }
}

fn nearest(from: &Pixels, across: Stretch, down: Stretch) -> Pixels {
    let (columns, rows) = (places(from.width, across), places(from.height, down));
    let mut data = Vec::with_capacity(columns.len() * rows.len() * from.channels);
    for row in rows {
        for column in &columns {
            let begin = (row * from.width + column) * from.channels;
            data.extend(from.data.get(begin..begin + from.channels).unwrap_or_default());
        }
    }
    Pixels { width: across.length, height: down.length, channels: from.channels, data }
}

/// The old pixel under the middle of each new one.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "lengths are below 2^32"
)]
fn places(length: usize, stretch: Stretch) -> Vec<usize> {
    let scale = length as f64 / stretch.full as f64;
    let place = |new: u64| ((new as f64 + 0.5) * scale) as usize;
    (stretch.begin..)
        .take(stretch.length)
        .map(|new| place(new).min(length.saturating_sub(1)))
        .collect()
}
