//! Finds what the devices that something is wrong with have in common: the smallest description over labels and facts that chance does
//! not explain, such as `site=osaka and camera_fw=2.1`. Values in, blame out.
//!
//! ```text
//!  every device: its traits, and whether it is affected
//!        │  descriptions of one trait, and of two traits that some affected device has
//!        ▼
//!  exact test of each ──Bonferroni over all that could be──▶ significant ones ──that which explains most──▶ blame
//! ```
//! The test is Fisher's: if being affected had nothing to do with a trait, the affected devices among those that have it would be
//! hypergeometric. A description of two traits must say more than either alone: it is tested inside of each of them as well, or every
//! part of a bad site would be blamed beside the site. A trait that every device has, or a single one, explains nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sealift_protocol::drift::rare_excess;

/// The chance that anything at all is blamed where nothing is to blame.
const ALPHA: f64 = 0.01;
/// Affected devices that a description must have: two make no pattern.
const AFFECTED_MIN: u64 = 3;
/// Traits of one device that are looked at; more are an inventory.
const TRAITS_MAX: usize = 64;
/// Descriptions of one trait that pairs are made from, those first that explain most: two million pairs are a second's work.
const PAIRED_MAX: usize = 200;
/// A key with more values than this, such as a serial number, describes devices one by one, and is left out.
const VALUES_MAX: usize = 1_000;

/// What is known of a device: labels and facts, by name.
pub type Traits = BTreeMap<String, String>;

/// A device, and whether it is one of those that something is wrong with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Labels and facts.
    pub traits: Traits,
    /// Whether something is wrong with it.
    pub is_affected: bool,
}

/// What affected devices have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Blame {
    /// One trait or two.
    pub description: Vec<(String, String)>,
    /// Affected devices that it describes.
    pub affected: u64,
    /// All devices that it describes.
    pub devices: u64,
    /// All affected devices.
    pub all_affected: u64,
    /// How many times as often devices that it describes are affected as the others are; infinite if no other is.
    pub lift: f64,
    /// The probability of so many affected ones if the description had nothing to do with it, corrected for all that were looked at.
    pub p: f64,
}

impl Blame {
    /// The description, how many have it, how much likelier that makes their trouble, and what chance says to that.
    pub fn in_words(&self) -> String {
        let times = if self.lift.is_finite() {
            format!("{:.0} times as often as others", self.lift)
        } else {
            "and no other is".to_owned()
        };
        format!("{self}, {times}; chance explains it with a probability of {:.1e}", self.p)
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traits: Vec<_> =
            self.description.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let Self { affected, devices, all_affected, .. } = self;
        let description = traits.join(" and ");
        write!(f, "{description}: {affected} of its {devices} devices, of {all_affected} affected")
    }
}

/// Returns what explains the affected devices best; nothing if nothing does that chance would not.
///
/// That is the one with the most affected devices beyond those that it would have by chance: a part of a bad site has fewer of them,
/// and a region around it more that are well. Of those that explain as much the one with fewer traits is taken, then the one with
/// fewer devices, then the first by name. So the same fleet always gets the same answer.
pub fn blame(devices: &[Suspect]) -> Option<Blame> {
    let fleet = Fleet::of(devices)?;
    let single = fleet.singles();
    let mut found: Vec<Found> = Vec::new();
    let pairs = fleet.pairs(&single);
    let looks = fleet.looks();
    for candidate in single.iter().chain(&pairs) {
        found.extend(fleet.test(candidate, looks));
    }
    found.sort_by(|left, right| {
        let size = |found: &Found| (found.candidate.traits.len(), found.candidate.devices.len());
        (right.explained.cmp(&left.explained))
            .then_with(|| size(left).cmp(&size(right)))
            .then_with(|| left.candidate.traits.cmp(&right.candidate.traits))
    });
    found.into_iter().next().map(|found| fleet.blame(&found))
}

/// A trait by its place in the list of all traits.
type Trait = usize;

/// The fleet with its traits as sets of devices.
struct Fleet<'a> {
    names: Vec<(&'a str, &'a str)>,
    /// For each trait the devices that have it, rising.
    holders: Vec<Vec<u32>>,
    is_affected: Vec<bool>,
    affected: u64,
}

/// A description that may be to blame.
#[derive(Debug, Clone)]
struct Candidate {
    traits: Vec<Trait>,
    devices: Vec<u32>,
    affected: u64,
}

/// A description that chance does not explain.
struct Found<'a> {
    candidate: &'a Candidate,
    /// Affected devices that it describes, less those that it would by chance.
    explained: i64,
    p: f64,
}

impl<'a> Fleet<'a> {
    /// Nothing if no device is affected, or every one.
    fn of(devices: &'a [Suspect]) -> Option<Self> {
        let is_affected: Vec<bool> = devices.iter().map(|device| device.is_affected).collect();
        let affected = count(is_affected.iter().filter(|is_affected| **is_affected).count());
        if affected < AFFECTED_MIN || affected == count(devices.len()) {
            return None;
        }
        let mut holders = BTreeMap::<(&str, &str), Vec<u32>>::new();
        for (place, device) in (0_u32..).zip(devices) {
            for (key, value) in device.traits.iter().take(TRAITS_MAX) {
                holders.entry((key, value)).or_default().push(place);
            }
        }
        let mut values = BTreeMap::<&str, usize>::new();
        for (key, _) in holders.keys() {
            *values.entry(key).or_default() += 1;
        }
        // A trait of everybody tells nobody apart.
        holders.retain(|(key, _), holders| {
            holders.len() < devices.len()
                && values.get(key).is_some_and(|values| *values <= VALUES_MAX)
        });
        let (names, holders) = holders.into_iter().unzip();
        Some(Self { names, holders, is_affected, affected })
    }

    fn devices(&self) -> u64 {
        count(self.is_affected.len())
    }

    /// Descriptions that could be blamed, whoever is affected: which of them have affected devices is what is tested.
    fn looks(&self) -> f64 {
        let large = self.holders.iter().filter(|holders| count(holders.len()) >= AFFECTED_MIN);
        let traits = float(count(large.count()));
        traits + traits * (traits - 1.0) / 2.0
    }

    fn candidate(&self, traits: Vec<Trait>, devices: Vec<u32>) -> Option<Candidate> {
        let affected = devices.iter().filter(|device| self.is_affected(**device)).count();
        let affected = count(affected);
        (affected >= AFFECTED_MIN).then_some(Candidate { traits, devices, affected })
    }

    fn is_affected(&self, device: u32) -> bool {
        usize::try_from(device).ok().and_then(|place| self.is_affected.get(place)) == Some(&true)
    }

    fn singles(&self) -> Vec<Candidate> {
        let candidates = self.holders.iter().enumerate();
        candidates.filter_map(|(one, devices)| self.candidate(vec![one], devices.clone())).collect()
    }

    /// Pairs of different keys, from the traits that explain most.
    fn pairs(&self, singles: &[Candidate]) -> Vec<Candidate> {
        let mut paired: Vec<&Candidate> = singles.iter().collect();
        paired.sort_by_key(|single| {
            (std::cmp::Reverse(self.explained(single)), single.traits.clone())
        });
        paired.truncate(PAIRED_MAX);
        let mut pairs = Vec::new();
        for (place, one) in paired.iter().enumerate() {
            for other in paired.iter().skip(place + 1) {
                pairs.extend(self.pair(one, other));
            }
        }
        pairs
    }

    fn pair(&self, one: &Candidate, other: &Candidate) -> Option<Candidate> {
        let key = |candidate: &Candidate| {
            candidate.traits.first().and_then(|one| self.names.get(*one)).map(|(key, _)| *key)
        };
        if key(one) == key(other) {
            return None;
        }
        let both = common(&one.devices, &other.devices);
        // The same devices need no second trait.
        if both.len() == one.devices.len() || both.len() == other.devices.len() {
            return None;
        }
        let traits: BTreeSet<_> = one.traits.iter().chain(&other.traits).copied().collect();
        self.candidate(traits.into_iter().collect(), both)
    }

    fn test<'b>(&self, candidate: &'b Candidate, looks: f64) -> Option<Found<'b>> {
        let p = self.p_inside(candidate, None) * looks;
        if p >= ALPHA {
            return None;
        }
        if candidate.traits.len() > 1 {
            let inside = candidate.traits.iter().map(|one| self.p_inside(candidate, Some(*one)));
            if inside.fold(0.0, f64::max) * looks >= ALPHA {
                return None;
            }
        }
        Some(Found { candidate, explained: self.explained(candidate), p })
    }

    /// Fisher's exact test of a description, among all devices or among those with one trait.
    fn p_inside(&self, candidate: &Candidate, among: Option<Trait>) -> f64 {
        let (devices, affected) = match among.and_then(|one| self.holders.get(one)) {
            Some(holders) => {
                let affected = holders.iter().filter(|device| self.is_affected(**device)).count();
                (count(holders.len()), count(affected))
            }
            None => (self.devices(), self.affected),
        };
        let (seen, rows) = (candidate.affected, count(candidate.devices.len()));
        rare_excess((affected.saturating_sub(seen), devices.saturating_sub(rows)), (seen, rows))
    }

    /// Affected devices beyond those that as many devices by chance would have.
    fn explained(&self, candidate: &Candidate) -> i64 {
        let described = count(candidate.devices.len());
        let by_chance = described * self.affected / self.devices().max(1);
        candidate.affected.cast_signed().saturating_sub(by_chance.cast_signed())
    }

    fn blame(&self, found: &Found<'_>) -> Blame {
        let Candidate { traits, devices, affected } = found.candidate;
        let names = traits.iter().filter_map(|one| self.names.get(*one));
        let description = names.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let described = count(devices.len());
        let share = |hits: u64, all: u64| float(hits) / float(all.max(1));
        let others = share(self.affected - affected, self.devices() - described);
        Blame {
            description: description.collect(),
            affected: *affected,
            devices: described,
            all_affected: self.affected,
            lift: share(*affected, described) / others,
            p: found.p.min(1.0),
        }
    }
}

/// What two rising lists share.
fn common(left: &[u32], right: &[u32]) -> Vec<u32> {
    let mut right = right.iter().peekable();
    let is_shared = |one: &&u32| {
        while right.next_if(|other| other < one).is_some() {}
        right.peek() == Some(one)
    };
    left.iter().filter(is_shared).copied().collect()
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn float(count: u64) -> f64 {
    sealift_protocol::drift::number(count)
}

#[cfg(test)]
mod tests;
