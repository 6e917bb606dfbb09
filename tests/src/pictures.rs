//! Made pictures, as a camera would take them; the same changed as drift changes them; and a model that takes pictures.

mod jpeg;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::digits::directory;
use crate::process::write;

/// Of a picture from the made camera.
const WIDTH: u16 = 96;
const HEIGHT: u16 = 72;

/// The fixtures' pixels are 0 to 16.
const PIXEL_STEP: u8 = 15;

/// A picture in red, green and blue.
#[derive(Debug, Clone)]
pub struct Picture {
    width: u16,
    height: u16,
    pixels: Vec<u8>,
}

/// Numbers by chance, the same each time (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`.
    fn below(&mut self, end: u16) -> u16 {
        u16::try_from(self.next() % u64::from(end.max(1))).unwrap_or(0)
    }

    /// About a bell curve with this deviation: twelve even numbers, four from each that comes.
    fn bell(&mut self, sigma: f64) -> f64 {
        const EVERY_OTHER: u64 = 0x0000_ffff_0000_ffff;
        let pairs = |four: u64| (four & EVERY_OTHER) + (four >> 16 & EVERY_OTHER);
        let sums = pairs(self.next()) + pairs(self.next()) + pairs(self.next());
        let sum = u32::try_from((sums & 0xffff_ffff) + (sums >> 32)).unwrap_or(0);
        (f64::from(sum) / 65_536.0 - 6.0) * sigma
    }
}

impl Picture {
    /// A yard with posts in the light of some hour; another one for each number.
    pub fn of_yard(number: u64) -> Self {
        let mut chance = Chance(number.wrapping_mul(0x1234_5678_9abc_def1));
        let light = 0.8 + f64::from(chance.below(400)) / 1_000.0;
        let posts: Vec<_> = (0..5)
            .map(|_| {
                let colour = [0; 3].map(|_| f64::from(40 + chance.below(150)));
                (chance.below(WIDTH), 3 + chance.below(8), 10 + chance.below(30), colour)
            })
            .collect();
        let mut pixels = Vec::new();
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let ground = [120.0, 130.0, 110.0].map(|part| part - f64::from(y) / 2.0);
                let is_in = |(left, width, top, _): &&(u16, u16, u16, [f64; 3])| {
                    (*left..left + width).contains(&x) && y >= *top
                };
                let colour = posts.iter().find(is_in).map_or(ground, |(.., colour)| *colour);
                pixels.extend(colour.map(|part| byte(part * light + chance.bell(2.0))));
            }
        }
        Self { width: WIDTH, height: HEIGHT, pixels }
    }

    /// Out of focus.
    #[must_use]
    pub fn blurred(&self) -> Self {
        // Along the rows, then along the columns: ten pixels in place of twenty-five.
        let mean = |five: [[f64; 3]; 5]| {
            [0, 1, 2].map(|part| five.iter().map(|pixel| pixel[part]).sum::<f64>() / 5.0)
        };
        let (width, height) = (i32::from(self.width), i32::from(self.height));
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let rows: Vec<_> =
            places.map(|(x, y)| mean([-2, -1, 0, 1, 2].map(|dx| self.at(x + dx, y)))).collect();
        let row = |x: i32, y: i32| {
            let at = y.clamp(0, height - 1) * width + x;
            usize::try_from(at).ok().and_then(|at| rows.get(at)).copied().unwrap_or_default()
        };
        self.made(|x, y| mean([-2, -1, 0, 1, 2].map(|dy| row(x, y + dy))))
    }

    /// From a sensor that is too warm.
    #[must_use]
    pub fn noisy(&self, number: u64) -> Self {
        let chance = std::cell::RefCell::new(Chance(number));
        self.made(|x, y| self.at(x, y).map(|part| part + chance.borrow_mut().bell(14.0)))
    }

    /// At dusk.
    #[must_use]
    pub fn dark(&self) -> Self {
        self.made(|x, y| self.at(x, y).map(|part| part * 0.55))
    }

    /// From a camera that hangs askew, by some 27 degrees.
    #[must_use]
    pub fn askew(&self) -> Self {
        let (cx, cy) = (i32::from(self.width) / 2, i32::from(self.height) / 2);
        self.made(|x, y| {
            let (x, y) = (x - cx, y - cy);
            self.at(cx + (x * 89 - y * 45) / 100, cy + (x * 45 + y * 89) / 100)
        })
    }

    /// As a PNG file.
    pub fn png(&self) -> anyhow::Result<Vec<u8>> {
        png((self.width.into(), self.height.into()), png::ColorType::Rgb, &self.pixels)
    }

    /// As a JPEG file.
    pub fn jpeg(&self) -> Vec<u8> {
        jpeg::write(self.width, self.height, &self.pixels)
    }

    /// As a file of the one kind or the other, with what it is called.
    pub fn file(&self, is_png: bool) -> anyhow::Result<(Vec<u8>, &'static str)> {
        Ok(if is_png { (self.png()?, "image/png") } else { (self.jpeg(), "image/jpeg") })
    }

    /// A pixel; beyond the edge, the one at it.
    fn at(&self, x: i32, y: i32) -> [f64; 3] {
        let inside = |at: i32, length: u16| usize::try_from(at.clamp(0, i32::from(length) - 1));
        let (x, y) = (inside(x, self.width), inside(y, self.height));
        let at = (y.unwrap_or(0) * usize::from(self.width) + x.unwrap_or(0)) * 3;
        [0, 1, 2].map(|part| self.pixels.get(at + part).copied().map_or(0.0, f64::from))
    }

    fn made(&self, pixel: impl Fn(i32, i32) -> [f64; 3]) -> Self {
        let (width, height) = (self.width, self.height);
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x.into(), y.into())));
        let pixels = places.flat_map(|(x, y)| pixel(x, y).map(byte)).collect();
        Self { width, height, pixels }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just clamped")]
fn byte(value: f64) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

fn png(
    (width, height): (u32, u32),
    colour: png::ColorType,
    bytes: &[u8],
) -> anyhow::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(colour);
    encoder.set_compression(png::Compression::Fast);
    encoder.write_header()?.write_image_data(bytes)?;
    Ok(file)
}

/// A PNG file of a few bytes that says it is 2,500 million pixels.
pub fn bomb() -> anyhow::Result<Vec<u8>> {
    let mut file = Vec::new();
    drop(png::Encoder::new(&mut file, 50_000, 50_000).write_header()?);
    Ok(file)
}

/// The picture of a digit.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 16")]
pub fn of_digit(pixels: &[f32]) -> anyhow::Result<Vec<u8>> {
    let bytes: Vec<_> = pixels.iter().map(|&pixel| pixel as u8 * PIXEL_STEP).collect();
    png((8, 8), png::ColorType::Grayscale, &bytes)
}

/// The digits, as a picture goes in and names come out, with these lines more in its `model.toml`.
pub fn model(folder: &Path, lines: &str) -> anyhow::Result<PathBuf> {
    let from = directory("v1");
    let into = folder.join("pictures");
    let read = |name: &str| -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&fs::read(from.join(name))?)?)
    };
    fs::create_dir_all(&into)?;
    fs::copy(from.join("model.onnx"), into.join("model.onnx"))?;
    let contract = read("contract.json")?;
    let names: Vec<_> = (0..10).map(|digit| format!("digit {digit}")).collect();
    let contract = json!({"schema": 1,
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "best", "datatype": "BYTES", "shape": [-1, 1]}, {"name": "label", "datatype": "INT64", "shape": [-1]}],
        "processing": {"graph": {"inputs": contract["inputs"], "outputs": contract["outputs"]},
            "before": [{"image": {"from": "image", "to": "pixels", "width": 8, "height": 8, "colour": "grey",
                "divisor": PIXEL_STEP, "layout": "flat"}}],
            "after": [{"top-k": {"from": "probabilities", "k": 1, "names": "best", "labels": names}}]}});
    write(&into.join("contract.json"), &contract.to_string())?;
    let golden = read("golden.json")?["cases"][0].clone();
    let pixels: Vec<f32> = serde_json::from_value(golden["inputs"][0]["data"].clone())?;
    fs::write(into.join("digit.png"), of_digit(&pixels)?)?;
    let golden = json!({"cases": [{"name": "a picture", "tolerance": golden["tolerance"],
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "files": ["digit.png"]}],
        "outputs": [golden["outputs"][0]]}]});
    write(&into.join("golden.json"), &golden.to_string())?;
    let model = "name = \"vision/digits\"\nversion = \"1\"\nweights = \"model.onnx\"\ncontract = \"contract.json\"\n\
        golden = \"golden.json\"\n";
    write(&into.join("model.toml"), &format!("{model}{lines}"))?;
    Ok(into)
}

#[cfg(test)]
mod tests {
    use sealift_protocol::picture::{Figures, decode, figure};

    use super::*;

    fn figures(file: &[u8]) -> Figures {
        decode(file).unwrap().figures()
    }

    #[test]
    fn a_made_jpeg_shows_what_the_png_of_the_same_picture_shows() {
        let picture = Picture::of_yard(3);
        let (jpeg, png) =
            (decode(&picture.jpeg()).unwrap(), decode(&picture.png().unwrap()).unwrap());
        assert_eq!((jpeg.width, jpeg.height, jpeg.channels), (96, 72, 3));
        let gaps = jpeg.data.iter().zip(&png.data).map(|(jpeg, png)| jpeg.abs_diff(*png));
        assert!(gaps.max().unwrap() < 16, "JPEG keeps nearly all of it");
    }

    #[test]
    fn what_is_done_to_a_picture_shows_where_it_should() {
        let picture = Picture::of_yard(5);
        let of = |picture: &Picture, name: &str| {
            figures(&picture.png().unwrap())[figure(&format!("image.{name}")).unwrap()]
        };
        let was = |name: &str| of(&picture, name);
        assert!(of(&picture.blurred(), "sharpness") < was("sharpness") / 4.0);
        assert!(of(&picture.noisy(1), "noise") > was("noise") * 3.0);
        assert!(of(&picture.dark(), "brightness") < was("brightness") * 0.7);
        assert!(of(&picture.askew(), "upright") < was("upright") - 5.0);
    }

    #[test]
    fn a_bomb_is_small_and_says_it_is_large() {
        let bomb = bomb().unwrap();
        assert!(bomb.len() < 100);
        assert!(decode(&bomb).unwrap_err().to_string().contains("50000 x 50000"));
    }
}
