//! How far two people who label the same predictions agree beyond chance: Cohen's kappa ("A coefficient of agreement for nominal scales",
//! Educational and Psychological Measurement 1960).

use std::collections::{BTreeMap, BTreeSet};

/// How two people agree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Agreement {
    /// Who, in the order of their names.
    pub(crate) labellers: [String; 2],
    /// What both have labelled.
    pub(crate) common: u64,
    /// Of that, what they have labelled the same.
    pub(crate) same: u64,
    /// 1 for the same, 0 for no more than chance; none where both have said one and the same label all along, so that chance is certain.
    pub(crate) kappa: Option<f64>,
}

/// Compares all pairs of people who have labelled something in common. `labels` are by prediction and by labeller.
pub(crate) fn agreements(labels: &BTreeMap<String, BTreeMap<String, String>>) -> Vec<Agreement> {
    let names: BTreeSet<&String> = labels.values().flat_map(BTreeMap::keys).collect();
    let pairs = names.iter().flat_map(|first| {
        let later = names
            .range::<&String, _>((std::ops::Bound::Excluded(*first), std::ops::Bound::Unbounded));
        later.map(move |second| (*first, *second))
    });
    pairs.filter_map(|pair| agreement(labels, pair)).collect()
}

fn agreement(
    labels: &BTreeMap<String, BTreeMap<String, String>>,
    (first, second): (&String, &String),
) -> Option<Agreement> {
    let both: Vec<_> =
        labels.values().filter_map(|said| Some((said.get(first)?, said.get(second)?))).collect();
    if both.is_empty() {
        return None;
    }
    let mut counts: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (one, other) in &both {
        counts.entry(one.as_str()).or_default().0 += 1.0;
        counts.entry(other.as_str()).or_default().1 += 1.0;
    }
    let same = both.iter().filter(|(one, other)| one == other).count();
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let all = number(both.len());
    let observed = number(same) / all;
    let by_chance: f64 = counts.values().map(|(one, other)| one / all * other / all).sum();
    let kappa = (by_chance < 1.0).then(|| (observed - by_chance) / (1.0 - by_chance));
    Some(Agreement {
        labellers: [first.clone(), second.clone()],
        common: u64::try_from(both.len()).unwrap_or(u64::MAX),
        same: u64::try_from(same).unwrap_or(u64::MAX),
        kappa,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(table: &[(&str, &str, usize)]) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        for (one, other, times) in table {
            for _ in 0..*times {
                let both = [("ann", one), ("ben", other)];
                let both = both.map(|(name, label)| (name.to_owned(), (*label).to_owned()));
                labels.insert(format!("s{}", labels.len()), BTreeMap::from(both));
            }
        }
        labels
    }

    #[test]
    fn kappa_is_what_cohen_says() {
        // Observed (20 + 15) / 50 = 0.7; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5; so (0.7 - 0.5) / (1 - 0.5).
        let table = [("y", "y", 20), ("y", "n", 5), ("n", "y", 10), ("n", "n", 15)];
        let [agreement] = &agreements(&said(&table))[..] else { panic!("one pair") };
        assert_eq!((agreement.common, agreement.same), (50, 35));
        assert!((agreement.kappa.unwrap() - 0.4).abs() < 1e-12);
    }

    #[test]
    fn where_chance_is_certain_there_is_no_kappa_and_without_common_labels_no_pair() {
        assert_eq!(agreements(&said(&[("y", "y", 3)]))[0].kappa, None);
        let alone = BTreeMap::from([
            ("a".to_owned(), BTreeMap::from([("ann".to_owned(), "y".to_owned())])),
            ("b".to_owned(), BTreeMap::from([("ben".to_owned(), "y".to_owned())])),
        ]);
        assert!(agreements(&alone).is_empty());
    }

    #[test]
    fn three_people_are_three_pairs() {
        let all = ["ann", "ben", "cem"].map(|name| (name.to_owned(), "y".to_owned()));
        let labels = BTreeMap::from([("a".to_owned(), BTreeMap::from(all))]);
        let pairs = agreements(&labels);
        let names: Vec<_> = pairs.iter().map(|pair| pair.labellers.join(" ")).collect();
        assert_eq!(names, ["ann ben", "ann cem", "ben cem"]);
    }
}
