//! Measured accuracy and agreement, out of what is stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sealift_protocol::api::{
    AccuracyGroup, AccuracyReport, AccuracyView, AgreementView, LabelSource,
};
use sealift_protocol::capture::SampleId;
use sealift_protocol::id::{DeviceId, UnixMillis, Version};

use super::accuracy::{self, Estimate, Judged};
use super::agreement::{self, Agreement};
use super::{Review, ReviewError};
use crate::store::labels::Said;
use crate::store::samples::Which;

/// Samples that figures are made of at once: some 40 MB.
const SAMPLES_MAX: u32 = 200_000;

/// Chances are stored in parts of this.
const PARTS: f64 = 1e9;

/// By what figures are told apart, beside the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    /// Nothing.
    Version,
    /// The day (UTC).
    Day,
    /// The value of a label of the device.
    Label(String),
}

/// Which figures.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) which: Which<'a>,
    /// Only this version.
    pub(crate) version: Option<&'a Version>,
    pub(crate) by: By,
}

/// A sample with all that is said of it.
#[derive(Debug)]
struct Sampled {
    first: Said,
    said: Vec<(String, String, LabelSource)>,
}

#[derive(Debug, Default)]
struct Group {
    judged: Vec<Judged>,
    lost: u64,
}

impl Review {
    /// How often a model was right.
    pub(crate) async fn accuracy(
        &self,
        question: &Question<'_>,
    ) -> Result<AccuracyReport, ReviewError> {
        let devices = match &question.by {
            By::Label(name) => self.store.devices_by_label(name).await?,
            By::Version | By::Day => BTreeMap::new(),
        };
        let mut groups: BTreeMap<(Version, Option<String>), Group> = BTreeMap::new();
        let mut left_out = 0;
        for sampled in self.sampled(question.which).await? {
            let first = &sampled.first;
            if question.version.is_some_and(|version| *version != first.version) {
                continue;
            }
            let value = value(&question.by, first, &devices);
            let group = groups.entry((first.version.clone(), value)).or_default();
            group.lost += u64::try_from(first.lost).unwrap_or(0);
            match judged(&sampled) {
                Some(judged) => group.judged.push(judged),
                None => left_out += u64::from(!sampled.said.is_empty()),
            }
        }
        let view = |((version, value), group): (_, Group)| {
            let Estimate { labels, effective, share, low, high } =
                accuracy::estimate(&group.judged)?;
            let (group, lost) = (AccuracyGroup { version, value }, group.lost);
            Some(AccuracyView { group, labels, effective, accuracy: share, low, high, lost })
        };
        let Which { from, until, .. } = question.which;
        let items = groups.into_iter().filter_map(view).collect();
        let method = accuracy::METHOD.to_owned();
        Ok(AccuracyReport { method, from, until, items, left_out })
    }

    /// How people agree about the same samples.
    pub(crate) async fn agreement(
        &self,
        which: Which<'_>,
    ) -> Result<Vec<AgreementView>, ReviewError> {
        let mut labels: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for sampled in self.sampled(which).await? {
            let of_people = sampled.said.into_iter().filter(|(.., source)| is_a_persons(*source));
            let said = of_people.map(|(labeller, label, _)| (labeller, label)).collect();
            labels.insert(sampled.first.sample.to_string(), said);
        }
        let view = |found: Agreement| {
            let Agreement { labellers, common, same, kappa } = found;
            AgreementView { labellers: labellers.into(), common, same, kappa }
        };
        Ok(agreement::agreements(&labels).into_iter().map(view).collect())
    }

    /// All samples, with all that is said of each.
    async fn sampled(&self, which: Which<'_>) -> Result<Vec<Sampled>, ReviewError> {
        let rows = self.store.said(which, SAMPLES_MAX + 1).await?;
        // Rule: a figure of some of the samples would be taken for one of all.
        if u32::try_from(rows.len()).unwrap_or(u32::MAX) > SAMPLES_MAX {
            return Err(ReviewError::TooMuch(SAMPLES_MAX));
        }
        let mut sampled: BTreeMap<SampleId, Sampled> = BTreeMap::new();
        for row in rows {
            let word = row.word.clone();
            let entry =
                sampled.entry(row.sample).or_insert(Sampled { first: row, said: Vec::new() });
            entry.said.extend(word);
        }
        Ok(sampled.into_values().collect())
    }
}

const fn is_a_persons(source: LabelSource) -> bool {
    match source {
        LabelSource::Review => true,
        LabelSource::Truth => false,
    }
}

/// What a sample adds to the accuracy. What really happened counts whoever it was of, with the chance of the sample; what people say counts
/// where chance drew the sample for them, with both chances: else a model would be judged by what people like to look at.
fn judged(sampled: &Sampled) -> Option<Judged> {
    let Said { prediction, chance, audit, .. } = &sampled.first;
    let prediction = prediction.as_ref()?;
    let said = sampled.said.iter().map(|(_, label, source)| (label.as_str(), *source));
    let parts = |parts: i64| {
        #[expect(clippy::cast_precision_loss, reason = "at most a thousand million")]
        let share = parts as f64 / PARTS;
        share
    };
    let (label, chance) = match settled(&said)? {
        (label, LabelSource::Truth) => (label, parts(*chance)),
        (label, LabelSource::Review) if *audit > 0 => (label, parts(*chance) * parts(*audit)),
        (_, LabelSource::Review) => return None,
    };
    Some(Judged { chance, is_right: label == prediction })
}

/// What is held to be right, and by whom: what happened before what people say.
pub(crate) fn settled<'a>(
    said: &(impl Iterator<Item = (&'a str, LabelSource)> + Clone),
) -> Option<(&'a str, LabelSource)> {
    let by = |wanted: LabelSource| {
        let labels = said.clone().filter(move |(_, source)| *source == wanted);
        most(labels.map(|(label, _)| label)).map(|label| (label, wanted))
    };
    by(LabelSource::Truth).or_else(|| by(LabelSource::Review))
}

/// What most say; none where nobody says anything, or two things are said equally often.
fn most<'a>(labels: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for label in labels {
        *counts.entry(label).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    let mut first = counts.into_iter().filter(|(_, count)| *count == most);
    let (label, _) = first.next()?;
    first.next().is_none().then_some(label)
}

fn value(by: &By, said: &Said, devices: &BTreeMap<DeviceId, String>) -> Option<String> {
    match by {
        By::Version => None,
        By::Day => Some(day(said.at)),
        By::Label(_) => Some(devices.get(&said.device).cloned().unwrap_or_default()),
    }
}

/// The day as `2026-11-21`, UTC.
fn day(at: UnixMillis) -> String {
    let day = Timestamp::from_millisecond(at.0).map(|at| at.to_string());
    day.unwrap_or_default().chars().take_while(|&letter| letter != 'T').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(audit: i64, said: &[(&str, &str, LabelSource)]) -> Sampled {
        let first = Said {
            sample: SampleId::new([1; 16]),
            device: DeviceId::parse("cam-1").unwrap(),
            version: Version::parse("1").unwrap(),
            at: UnixMillis(0),
            prediction: Some("7".to_owned()),
            chance: 500_000_000,
            audit,
            lost: 0,
            word: None,
        };
        let said =
            said.iter().map(|(who, what, source)| ((*who).to_owned(), (*what).to_owned(), *source));
        Sampled { first, said: said.collect() }
    }

    #[test]
    fn truth_counts_whoever_it_is_of_and_people_only_where_chance_sent_them() {
        use LabelSource::{Review, Truth};
        let chance = |sampled: &Sampled| judged(sampled).map(|one| (one.chance, one.is_right));
        let audit = 200_000_000;
        assert_eq!(chance(&sampled(0, &[("ann", "7", Review)])), None);
        assert_eq!(chance(&sampled(audit, &[("ann", "7", Review)])), Some((0.1, true)));
        assert_eq!(chance(&sampled(0, &[("erp", "1", Truth)])), Some((0.5, false)));
        let both = [("ann", "7", Review), ("erp", "1", Truth)];
        assert_eq!(chance(&sampled(audit, &both)), Some((0.5, false)), "what happened is right");
        let torn = [("ann", "7", Review), ("ben", "1", Review)];
        assert_eq!(chance(&sampled(audit, &torn)), None, "nobody knows");
        let won = [("ann", "7", Review), ("ben", "1", Review), ("cem", "1", Review)];
        assert_eq!(chance(&sampled(audit, &won)), Some((0.1, false)));
        assert_eq!(chance(&sampled(audit, &[])), None);
    }

    #[test]
    fn a_day_is_that_of_the_calendar() {
        assert_eq!(day(UnixMillis(1_790_000_000_000)), "2026-09-21");
    }
}
