//! JPEG and PNG to pixels. How large an image is, is read from its header and judged before memory is taken for it.

use std::borrow::Cow;
use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Pixels;
use crate::limits::{IMAGE_PIXELS_MAX, IMAGE_SIDE_MAX};

/// What begins a file of each kind: ITU-T T.81, B.1.1.3, and the PNG specification, 5.2.
const JPEG: [u8; 3] = [0xff, 0xd8, 0xff];
const PNG: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];

/// Scans of a progressive JPEG; each costs as much as the whole image, and encoders write about ten.
const SCANS_MAX: usize = 64;

/// Beside the pixels a decoder of PNG keeps a row, a window and some chunks.
const PNG_BYTES_MAX: usize = 64 << 20;

/// Why bytes are no image that is taken.
#[derive(Debug, thiserror::Error)]
pub enum NotDecoded {
    /// Of another kind.
    #[error("neither a JPEG nor a PNG image, nor one in base64")]
    Kind,
    /// Announces more pixels than are taken.
    #[error(
        "{width} x {height} pixels; at most {IMAGE_PIXELS_MAX} and {IMAGE_SIDE_MAX} a side are taken"
    )]
    TooLarge {
        /// Pixels in a row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// Of colours that are not taken.
    #[error("its colours are {0}; grey and RGB are taken")]
    Colours(String),
    /// Cut off, or not what its kind says.
    #[error("broken: {0}")]
    Broken(String),
}

/// Decodes a file, or a file in base64, which is how JSON carries one.
pub fn decode(file: &[u8]) -> Result<Pixels, NotDecoded> {
    let file = if is_image(file) {
        Cow::Borrowed(file)
    } else {
        let bytes = STANDARD.decode(file.trim_ascii()).map_err(|_| NotDecoded::Kind)?;
        Cow::Owned(bytes)
    };
    if file.starts_with(&JPEG) {
        jpeg(&file)
    } else if file.starts_with(&PNG) {
        png(&file)
    } else {
        Err(NotDecoded::Kind)
    }
}

fn is_image(file: &[u8]) -> bool {
    file.starts_with(&JPEG) || file.starts_with(&PNG)
}

fn jpeg(file: &[u8]) -> Result<Pixels, NotDecoded> {
    let broken = |error| NotDecoded::Broken(format!("{error:?}"));
    let side = usize::try_from(IMAGE_SIDE_MAX).unwrap_or(usize::MAX);
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(side)
        .set_max_height(side)
        .jpeg_set_max_scans(SCANS_MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    limit(width as u64, height as u64)?;
    let colours = decoder.input_colorspace().unwrap_or(ColorSpace::Unknown);
    let (out, channels) = if colours == ColorSpace::Luma {
        (ColorSpace::Luma, 1)
    } else if matches!(colours, ColorSpace::YCbCr | ColorSpace::RGB) {
        (ColorSpace::RGB, 3)
    } else {
        return Err(NotDecoded::Colours(format!("{colours:?}")));
    };
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let data = decoder.decode().map_err(broken)?;
    whole(Pixels { width, height, channels, data })
}

fn png(file: &[u8]) -> Result<Pixels, NotDecoded> {
    let broken = |error: png::DecodingError| NotDecoded::Broken(error.to_string());
    let limits = png::Limits { bytes: PNG_BYTES_MAX };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(file), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let (width, height) = decoder.read_header_info().map_err(broken)?.size();
    limit(u64::from(width), u64::from(height))?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let bytes = reader.output_buffer_size();
    let mut data = vec![0; bytes.ok_or_else(|| NotDecoded::Broken("no size".to_owned()))?];
    let frame = reader.next_frame(&mut data).map_err(broken)?;
    data.truncate(frame.buffer_size());
    let (channels, skipped) = match frame.color_type {
        png::ColorType::Grayscale => (1, 0),
        png::ColorType::GrayscaleAlpha => (1, 1),
        png::ColorType::Rgb => (3, 0),
        png::ColorType::Rgba => (3, 1),
        png::ColorType::Indexed => return Err(NotDecoded::Colours("a palette".to_owned())),
    };
    if skipped > 0 {
        data = without_last(&data, channels + skipped);
    }
    let side = |length: u32| usize::try_from(length).unwrap_or_default();
    whole(Pixels { width: side(width), height: side(height), channels, data })
}

/// Every pixel without its last channel, which says how opaque it is.
fn without_last(data: &[u8], channels: usize) -> Vec<u8> {
    let mut kept = Vec::with_capacity(data.len());
    for pixel in data.chunks_exact(channels) {
        kept.extend(pixel.iter().take(channels - 1));
    }
    kept
}

/// A few bytes can announce gigabytes of pixels.
const fn limit(width: u64, height: u64) -> Result<(), NotDecoded> {
    let side_max = IMAGE_SIDE_MAX as u64;
    let is_taken = width > 0 && height > 0 && width <= side_max && height <= side_max;
    if is_taken && width * height <= IMAGE_PIXELS_MAX {
        return Ok(());
    }
    Err(NotDecoded::TooLarge { width, height })
}

fn whole(pixels: Pixels) -> Result<Pixels, NotDecoded> {
    if pixels.data.len() == pixels.width * pixels.height * pixels.channels {
        return Ok(pixels);
    }
    Err(NotDecoded::Broken("pixels are missing".to_owned()))
}
