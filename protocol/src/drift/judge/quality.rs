//! What is wrong with values is judged as what it is: missing, of another type, out of range, unseen, stuck.

use crate::drift::{DriftState, Metric, Policy, Subject, Watcher};
use crate::profile::{BaselineBuilder, Cell, Column, Kind};

const HEAT: usize = 0;
const MODE: usize = 2;

/// Heat and load that change from row to row, and one of three modes.
fn row(place: u16) -> Vec<Cell> {
    let spread = |step: u16| f32::from(place.wrapping_mul(step) % 997);
    [spread(389), spread(631), f32::from(place.wrapping_mul(7) % 3)].map(Cell::Number).to_vec()
}

/// The metrics that drift after two windows of 200 rows, every so many of which was changed.
fn drifted(every: u16, change: impl Fn(&mut Vec<Cell>)) -> Vec<(String, Metric)> {
    let mode = Column {
        name: "mode".to_owned(),
        group: "g".to_owned(),
        kind: Kind::Categorical(["idle", "run", "stop"].map(str::to_owned).to_vec()),
    };
    let columns = vec![Column::numeric("heat", "g"), Column::numeric("load", "g"), mode];
    let mut builder = BaselineBuilder::new(columns, vec![]);
    (0..1_994).for_each(|place| builder.push_cells(&row(place), None, None).unwrap());
    let mut watcher = Watcher::new(builder.build().unwrap(), Policy::default());
    let mut verdicts = Vec::new();
    for window in 0..2 {
        for place in window * 200..(window + 1) * 200 {
            let mut cells = row(place);
            if place % every == 0 {
                change(&mut cells);
            }
            watcher.observe(&cells, None, None);
        }
        verdicts = watcher.close().unwrap().to_vec();
    }
    let drifted = verdicts.into_iter().filter(|verdict| verdict.state == DriftState::Drifted);
    let of_features = drifted.filter_map(|verdict| match verdict.subject {
        Subject::Feature(name) => Some((name, verdict.metric)),
        // Groups say the same again.
        Subject::Group(_) | Subject::Prediction | Subject::Confidence | Subject::Correlations => {
            None
        }
    });
    of_features.collect()
}

fn only(feature: &str, metric: Metric) -> Vec<(String, Metric)> {
    vec![(feature.to_owned(), metric)]
}

#[test]
fn nothing_is_wrong_with_what_is_as_ever() {
    assert_eq!(drifted(1, |_| ()), []);
}

#[test]
fn missing_values_are_told() {
    let heat = drifted(15, |cells| cells[HEAT] = Cell::Null);
    assert_eq!(heat, only("heat", Metric::MissingShare));
    let nan = drifted(15, |cells| cells[HEAT] = Cell::Number(f32::NAN));
    assert_eq!(nan, only("heat", Metric::MissingShare));
    let mode = drifted(15, |cells| cells[MODE] = Cell::Null);
    assert_eq!(mode, only("mode", Metric::MissingShare));
}

#[test]
fn values_of_another_type_are_told() {
    let heat = drifted(15, |cells| cells[HEAT] = Cell::WrongType);
    assert_eq!(heat, only("heat", Metric::WrongTypeShare));
    let mode = drifted(15, |cells| cells[MODE] = Cell::WrongType);
    assert_eq!(mode, only("mode", Metric::WrongTypeShare));
}

#[test]
fn values_out_of_range_are_told() {
    let told = drifted(20, |cells| cells[HEAT] = Cell::Number(5_000.0));
    assert!(told.contains(&("heat".to_owned(), Metric::OutOfRangeShare)), "{told:?}");
    assert!(told.iter().all(|(feature, _)| feature == "heat"), "{told:?}");
}

#[test]
fn unseen_words_are_told() {
    let told = drifted(15, |cells| cells[MODE] = Cell::Unseen(7));
    assert!(told.contains(&("mode".to_owned(), Metric::UnseenShare)), "{told:?}");
    assert!(told.iter().all(|(feature, _)| feature == "mode"), "{told:?}");
}

#[test]
fn a_stuck_sensor_is_told() {
    let told = drifted(1, |cells| cells[HEAT] = Cell::Number(498.0));
    assert!(told.contains(&("heat".to_owned(), Metric::Stuck)), "{told:?}");
    assert!(told.iter().all(|(feature, _)| feature == "heat"), "{told:?}");
}
