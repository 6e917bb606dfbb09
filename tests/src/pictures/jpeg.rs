//! A writer of baseline JPEG (ITU-T T.81) that is as plain as one can be: no subsampling, one step for all coefficients, codes of one length.

use std::f64::consts::PI;
use std::sync::LazyLock;

/// Figure A.6: in which order coefficients are written.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// What coefficients are rounded to; about quality 92.
const STEP: u8 = 4;
const DC_BITS: u32 = 4;
const DC_SYMBOLS: u8 = 12;
const AC_BITS: u32 = 8;
const END: u8 = 0x00;
const SIXTEEN_ZEROS: u8 = 0xf0;

/// A.3.3: how high each wave is at each of eight places, with its scale.
#[expect(clippy::cast_precision_loss, reason = "at most 15")]
static WAVES: LazyLock<[[f64; 8]; 8]> = LazyLock::new(|| {
    let scale = |of: usize| if of == 0 { 0.125_f64.sqrt() } else { 0.5 };
    let wave = |at: usize, of: usize| ((2 * at + 1) as f64 * of as f64 * PI / 16.0).cos();
    std::array::from_fn(|at| std::array::from_fn(|of| wave(at, of) * scale(of)))
});

/// A picture of red, green and blue as a JPEG file.
pub(super) fn write(width: u16, height: u16, pixels: &[u8]) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8];
    segment(&mut file, 0xdb, &[&[0][..], &[STEP; 64]].concat());
    let size = [height.to_be_bytes(), width.to_be_bytes()].concat();
    let parts = [3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0];
    segment(&mut file, 0xc0, &[&[8][..], &size, &parts].concat());
    segment(&mut file, 0xc4, &table(0x00, DC_BITS, &(0..DC_SYMBOLS).collect::<Vec<_>>()));
    segment(&mut file, 0xc4, &table(0x10, AC_BITS, &ac_symbols()));
    segment(&mut file, 0xda, &[3, 1, 0, 2, 0, 3, 0, 0, 63, 0]);
    let mut bits = Bits { file, held: 0, count: 0 };
    scan(&mut bits, (usize::from(width), usize::from(height)), pixels);
    bits.end()
}

fn segment(file: &mut Vec<u8>, marker: u8, body: &[u8]) {
    file.extend([0xff, marker]);
    file.extend(u16::try_from(body.len() + 2).unwrap_or(u16::MAX).to_be_bytes());
    file.extend(body);
}

/// B.2.4.2: codes of one length; each symbol's is its place.
fn table(class: u8, bits: u32, symbols: &[u8]) -> Vec<u8> {
    let count = u8::try_from(symbols.len()).unwrap_or(u8::MAX);
    let lengths = (1..=16).map(|length| if length == bits { count } else { 0 });
    [class].into_iter().chain(lengths).chain(symbols.iter().copied()).collect()
}

/// The most bits that a coefficient has.
const AC_SIZES: u8 = 10;

fn ac_symbols() -> Vec<u8> {
    let runs = (0..16).flat_map(|run: u8| (1..=AC_SIZES).map(move |size| run << 4 | size));
    [END, SIXTEEN_ZEROS].into_iter().chain(runs).collect()
}

/// The place of a symbol in that list.
fn ac_code(symbol: u8) -> u32 {
    match symbol {
        END => 0,
        SIXTEEN_ZEROS => 1,
        _ => u32::from(symbol >> 4) * u32::from(AC_SIZES) + u32::from(symbol & 0xf) + 1, // a run
    }
}

fn scan(bits: &mut Bits, (width, height): (usize, usize), pixels: &[u8]) {
    let mut before = [0; 3];
    for top in (0..height).step_by(8) {
        for left in (0..width).step_by(8) {
            for (part, before) in before.iter_mut().enumerate() {
                let mut block = [0.0; 64];
                for (place, to) in block.iter_mut().enumerate() {
                    let y = (top + place / 8).min(height - 1);
                    let x = (left + place % 8).min(width - 1);
                    let at = (y * width + x) * 3;
                    *to = colour(pixels.get(at..at + 3).unwrap_or(&[0; 3]), part) - 128.0;
                }
                let coefficients = coefficients(&block);
                bits.block(&coefficients, *before);
                *before = coefficients[0];
            }
        }
    }
}

/// JFIF 1.02, page 3.
fn colour(pixel: &[u8], part: usize) -> f64 {
    const WEIGHTS: [[f64; 3]; 3] =
        [[0.299, 0.587, 0.114], [-0.168_736, -0.331_264, 0.5], [0.5, -0.418_688, -0.081_312]];
    let sum: f64 =
        pixel.iter().zip(WEIGHTS[part]).map(|(value, weight)| f64::from(*value) * weight).sum();
    if part == 0 { sum } else { sum + 128.0 }
}

/// A.3.3, rounded, in the order of the zigzag: along the rows first, then along the columns, which is an eighth of the work.
#[expect(clippy::cast_possible_truncation, reason = "at most 2,048")]
fn coefficients(block: &[f64; 64]) -> [i32; 64] {
    let waves = &*WAVES;
    let (mut along, mut both) = ([0.0; 64], [0.0; 64]);
    for y in 0..8 {
        for u in 0..8 {
            for (x, wave) in waves.iter().enumerate() {
                along[y * 8 + u] += block[y * 8 + x] * wave[u];
            }
        }
    }
    for v in 0..8 {
        for u in 0..8 {
            for (y, wave) in waves.iter().enumerate() {
                both[v * 8 + u] += along[y * 8 + u] * wave[v];
            }
        }
    }
    ZIGZAG.map(|place| (both[place] / f64::from(STEP)).round() as i32)
}

/// Bits into bytes.
struct Bits {
    file: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, bits: u32) {
        self.held = self.held << bits | u64::from(value);
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.held >> self.count).to_le_bytes()[0];
            self.file.push(byte);
            // F.1.2.3: what looks like a marker is followed by a zero.
            if byte == 0xff {
                self.file.push(0);
            }
        }
    }

    /// F.1.2.1 and F.1.2.2.
    fn block(&mut self, coefficients: &[i32; 64], before: i32) {
        let difference = coefficients[0] - before;
        self.push(size(difference), DC_BITS);
        self.number(difference);
        let mut zeros = 0;
        for &coefficient in &coefficients[1..] {
            if coefficient == 0 {
                zeros += 1;
                continue;
            }
            while zeros > 15 {
                self.push(ac_code(SIXTEEN_ZEROS), AC_BITS);
                zeros -= 16;
            }
            let size = u8::try_from(size(coefficient)).unwrap_or(0);
            self.push(ac_code(zeros << 4 | size), AC_BITS);
            self.number(coefficient);
            zeros = 0;
        }
        if zeros > 0 {
            self.push(ac_code(END), AC_BITS);
        }
    }

    /// The low bits of a number; of a negative one, of the number below.
    fn number(&mut self, number: i32) {
        let bits = size(number);
        let value = if number < 0 { number - 1 } else { number };
        self.push(value.cast_unsigned() & ((1 << bits) - 1), bits);
    }

    fn end(mut self) -> Vec<u8> {
        if self.count > 0 {
            let left = 8 - self.count;
            self.push((1 << left) - 1, left);
        }
        self.file.extend([0xff, 0xd9]);
        self.file
    }
}

/// How many bits a number takes.
const fn size(number: i32) -> u32 {
    u32::BITS - number.unsigned_abs().leading_zeros()
}
