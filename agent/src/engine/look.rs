//! The figures of some pictures of a request, computed where its pixels are: in the worker, behind its sandbox.

use std::time::Duration;

use sealift_protocol::image::{IoContract, PictureInput};
use sealift_protocol::picture::{self, Figures};
use sealift_protocol::tensor::Tensor;
use tokio::time::Instant;

/// Which pictures are looked at, and what was seen of them.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// Places in the input, rising.
    places: Vec<u16>,
    /// Of each of them, in their order, once all are there.
    figures: Vec<Figures>,
    /// What it has cost.
    taken: Duration,
}

impl Look {
    /// Wants the pictures at these places.
    pub(crate) const fn new(places: Vec<u16>) -> Self {
        Self { places, figures: Vec::new(), taken: Duration::ZERO }
    }

    /// Looks at the picture at `place`, if it is wanted. Places come in their order.
    pub(crate) fn at(&mut self, place: usize, figures: impl FnOnce() -> Figures) {
        let next = self.places.get(self.figures.len()).copied().map(usize::from);
        if next == Some(place) {
            let begin = Instant::now();
            self.figures.push(figures());
            self.taken += begin.elapsed();
        }
    }

    /// Looks at the wanted pictures of a request, if its contract says that it has some as numbers.
    pub(crate) fn decoded(&mut self, contract: &IoContract, inputs: &[Tensor]) {
        let Some(PictureInput::Decoded(spec, image)) = contract.picture_input() else { return };
        let Some(tensor) = inputs.iter().find(|tensor| tensor.name == spec.name) else { return };
        for place in self.places.clone().into_iter().map(usize::from) {
            self.at(place, || picture::of_tensor(tensor, image, place));
        }
    }

    /// How long it took.
    pub(crate) const fn taken(&self) -> Duration {
        self.taken
    }

    /// What was seen, picture by picture; nothing if not all of them were there.
    pub(crate) fn into_figures(self) -> Vec<Figures> {
        if self.figures.len() == self.places.len() { self.figures } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_looked_at_and_a_picture_that_is_missing_leaves_nothing() {
        let figures = |place: u8| [f32::from(place); picture::FIGURES];
        let mut look = Look::new(vec![1, 3]);
        (0..4).for_each(|place| look.at(usize::from(place), || figures(place)));
        assert_eq!(look.into_figures(), [figures(1), figures(3)]);

        let mut short = Look::new(vec![1, 3]);
        (0..3).for_each(|place| short.at(usize::from(place), || figures(place)));
        assert!(short.into_figures().is_empty());
    }

    #[test]
    fn pictures_that_came_as_numbers_are_looked_at() {
        let contract = br#"{"schema":1,
            "inputs":[{"name":"x","datatype":"FP32","shape":[-1,1,2,2],"image":{"colour":"grey"}}],
            "outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}"#;
        let contract = IoContract::parse(contract).unwrap();
        let x =
            Tensor::fp32("x", &[2, 1, 2, 2], &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).unwrap();
        let mut look = Look::new(vec![1]);

        look.decoded(&contract, &[x]);

        assert_eq!(look.into_figures()[0][picture::BRIGHTNESS].to_bits(), 255.0_f32.to_bits());
    }
}
