//! Which pictures are looked at: all of them, or, where they come faster than may be computed, as many by chance.
//!
//! What a picture shows has no say, and neither has where in its request it stands: a sample by anything else than chance would look like
//! drift. How many are looked at follows from how many came in the second before; how many were not, is counted.

use std::time::Duration;

use sealift_protocol::image::IoContract;
use sealift_protocol::picture::{self, BRIGHTNESS, Figures};
use sealift_protocol::profile::Baseline;
use sealift_protocol::tensor::Tensor;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::limits::{LOOKS_A_REQUEST, LOOKS_A_REQUEST_MAX, LOOKS_A_SECOND, LOOKS_A_SECOND_MAX};

/// How long pictures are counted before the share of those that are looked at is set anew.
const SPAN: Duration = Duration::from_secs(1);

/// The pictures of a contract, and which of their figures a baseline has.
#[derive(Debug)]
pub(super) struct Pictures {
    input: String,
    /// Of each column of the baseline, the figure that it holds.
    columns: Vec<usize>,
}

/// What was seen of the pictures of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen<'a> {
    /// Which were looked at, rising.
    pub(crate) places: &'a [u16],
    /// Of each of them, in the same order.
    pub(crate) figures: &'a [Figures],
}

/// Pictures since the image went live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Looks {
    pub(crate) looked_at: u64,
    pub(crate) passed_over: u64,
}

/// Chooses pictures.
#[derive(Debug, Default)]
pub(super) struct Eye {
    dice: Dice,
    /// When the second began.
    begin: Option<Instant>,
    /// Pictures of the second so far.
    came: u32,
    /// Of these, the ones that were chosen.
    chosen: u32,
    /// What part of the pictures is chosen; none yet is all.
    share: Option<f64>,
}

impl Pictures {
    /// Looks up what is to be counted; none where the baseline counts no pictures, or the contract has none.
    pub(super) fn new(contract: &IoContract, baseline: &Baseline) -> Option<Self> {
        let features = baseline.features().iter().take(baseline.inputs());
        let columns = features.map(|feature| picture::figure(&feature.name));
        let columns = columns.collect::<Option<_>>()?;
        let Some(input) = contract.picture_input() else {
            tracing::warn!("the baseline counts pictures, and the contract has no input of them");
            return None;
        };
        Some(Self { input: input.name().to_owned(), columns })
    }

    /// How many pictures a request has.
    pub(super) fn count(&self, inputs: &[Tensor]) -> usize {
        inputs.iter().find(|tensor| tensor.name == self.input).map_or(0, picture::count)
    }

    /// The values of a row that the baseline has.
    pub(super) fn fill(&self, row: &mut Vec<f32>, figures: &Figures) {
        row.clear();
        row.extend(
            self.columns.iter().map(|&figure| figures.get(figure).copied().unwrap_or(f32::NAN)),
        );
    }
}

impl Seen<'_> {
    /// The figures of the picture at `place`, if it was looked at.
    pub(super) fn at(&self, place: usize) -> Option<&Figures> {
        let place = u16::try_from(place).ok()?;
        self.figures.get(self.places.binary_search(&place).ok()?)
    }
}

/// What stands for a picture where there is room for one number.
pub(super) fn level(figures: &Figures) -> f64 {
    figures.get(BRIGHTNESS).copied().map_or(f64::NAN, f64::from)
}

impl Eye {
    /// Which of `pictures` of a request that came at `now` are looked at.
    pub(super) fn choose(&mut self, pictures: usize, now: Instant) -> Vec<u16> {
        self.turn(now);
        let pictures = u16::try_from(pictures).unwrap_or(u16::MAX);
        self.came = self.came.saturating_add(u32::from(pictures));
        let of_request = LOOKS_A_REQUEST / f64::from(pictures.max(1));
        let share = self.share.unwrap_or(1.0).min(of_request);
        let mut chosen = Vec::new();
        for place in 0..pictures {
            let has_room = chosen.len() < LOOKS_A_REQUEST_MAX && self.chosen < LOOKS_A_SECOND_MAX;
            if has_room && self.dice.throw() < share {
                chosen.push(place);
                self.chosen += 1;
            }
        }
        chosen
    }

    /// Begins another second, if the last one is over.
    fn turn(&mut self, now: Instant) {
        let begin = *self.begin.get_or_insert(now);
        let elapsed = now.saturating_duration_since(begin);
        if elapsed < SPAN {
            return;
        }
        let a_second = f64::from(self.came) / elapsed.as_secs_f64();
        self.share = Some((LOOKS_A_SECOND / a_second).min(1.0));
        (self.begin, self.came, self.chosen) = (Some(now), 0, 0);
    }
}

#[cfg(test)]
mod tests;
