//! The pictures of a tensor whose contract says that they are some: its numbers back to pixels.

use super::{FIGURES, Figures, figures};
use crate::image::{Colour, ImageTensor, Layout};
use crate::tensor::{Datatype, Tensor, half};

/// How many pictures a tensor holds; its first dimension counts them.
pub fn count(tensor: &Tensor) -> usize {
    let first = tensor.shape.first().copied().unwrap_or(0);
    usize::try_from(first).unwrap_or(usize::MAX)
}

/// The figures of the picture at `place`; not a number where the tensor has none there.
pub fn of_tensor(tensor: &Tensor, image: &ImageTensor, place: usize) -> Figures {
    let none = [f32::NAN; FIGURES];
    let Some(view) = View::new(tensor, image, place) else { return none };
    figures((view.width, view.height), |x, y| view.pixel(x, y))
}

/// One picture of a tensor.
struct View<'a> {
    tensor: &'a Tensor,
    image: &'a ImageTensor,
    width: usize,
    height: usize,
    /// Elements before it, between its rows, its pixels and its channels.
    begin: usize,
    row: usize,
    pixel: usize,
    channel: usize,
}

impl<'a> View<'a> {
    fn new(tensor: &'a Tensor, image: &'a ImageTensor, place: usize) -> Option<Self> {
        let shape: Result<Vec<usize>, _> =
            tensor.shape.iter().map(|&length| usize::try_from(length)).collect();
        let [count, first, second, third] = shape.ok()?.try_into().ok()?;
        let (channels, height, width) = match image.layout {
            Layout::Nchw => (first, second, third),
            Layout::Nhwc => (third, first, second),
            Layout::Flat => return None, // its width is not known
        };
        if place >= count || channels != image.colour.channels() || width == 0 || height == 0 {
            return None;
        }
        let begin = place * first * second * third;
        let (row, pixel, channel) = if image.layout == Layout::Nhwc {
            (width * channels, channels, 1)
        } else {
            (width, 1, width * height)
        };
        Some(Self { tensor, image, width, height, begin, row, pixel, channel })
    }

    fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        let at = self.begin + y * self.row + x * self.pixel;
        let part = |channel: usize| self.value(at + channel * self.channel, channel);
        match self.image.colour {
            Colour::Rgb => Some([part(0)?, part(1)?, part(2)?]),
            Colour::Bgr => Some([part(2)?, part(1)?, part(0)?]),
            Colour::Grey => part(0).map(|grey| [grey; 3]),
        }
    }

    /// The pixel that an element was made of: the nearest whole number from 0 to 255; nothing for what is not finite.
    fn value(&self, at: usize, channel: usize) -> Option<u8> {
        let bytes = &self.tensor.bytes;
        let number = match self.tensor.datatype {
            Datatype::Uint8 => return bytes.get(at).copied(),
            Datatype::Fp32 => f32::from_le_bytes(*bytes.get(at * 4..)?.first_chunk()?),
            Datatype::Fp16 => {
                half::to_f32(u16::from_le_bytes(*bytes.get(at * 2..)?.first_chunk()?))
            }
            // No contract says that these are pictures.
            Datatype::Bool
            | Datatype::Uint16
            | Datatype::Uint32
            | Datatype::Uint64
            | Datatype::Int8
            | Datatype::Int16
            | Datatype::Int32
            | Datatype::Int64
            | Datatype::Bf16
            | Datatype::Fp64
            | Datatype::Bytes => return None,
        };
        number.is_finite().then(|| self.image.pixel(number, channel))
    }
}
