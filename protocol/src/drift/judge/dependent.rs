//! Rows that resemble the rows before them: quiet streams stay quiet, and what drifts in them is found.

use crate::drift::{DriftState, Policy, Subject, Watcher};
use crate::profile::{BaselineBuilder, Cell, Column};

/// Heat, of which each value is `by` times the one before and fresh noise, and load, which is independent.
struct Stream {
    random: fastrand::Rng,
    by: f64,
    heat: f64,
}

impl Stream {
    fn new(seed: u64, by: f64) -> Self {
        let mut stream = Self { random: fastrand::Rng::with_seed(seed), by, heat: 0.0 };
        stream.heat = stream.noise();
        stream
    }

    fn noise(&mut self) -> f64 {
        (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0
    }

    fn row(&mut self) -> [f64; 2] {
        self.heat = self.by * self.heat + (1.0 - self.by * self.by).sqrt() * self.noise();
        [self.heat, self.noise()]
    }

    fn watcher(&mut self, rows: usize) -> Watcher {
        let columns = ["heat", "load"].map(|name| Column::numeric(name, "g")).to_vec();
        let mut builder = BaselineBuilder::new(columns, vec![]);
        (0..rows).for_each(|_| builder.push(&self.row(), None, None).unwrap());
        Watcher::new(builder.build().unwrap(), Policy::default())
    }

    /// What drifts after one more window of 200 rows.
    fn live(&mut self, watcher: &mut Watcher, change: impl Fn(&mut [f64; 2])) -> Vec<Subject> {
        for _ in 0..200 {
            let mut row = self.row();
            change(&mut row);
            #[expect(clippy::cast_possible_truncation, reason = "as a device sees it")]
            let cells = row.map(|value| Cell::Number(value as f32));
            watcher.observe(&cells, None, None);
        }
        let verdicts = watcher.close().unwrap().iter();
        let drifted = verdicts.filter(|verdict| verdict.state == DriftState::Drifted);
        drifted.map(|verdict| verdict.subject.clone()).collect()
    }
}

fn heat() -> Subject {
    Subject::Feature("heat".to_owned())
}

fn load() -> Subject {
    Subject::Feature("load".to_owned())
}

#[test]
fn a_long_memory_is_no_drift() {
    for (seed, by, rows) in [(1, 0.9, 2_000), (2, 0.98, 5_000), (3, 0.99, 3_000), (4, 0.999, 5_000)]
    {
        let mut stream = Stream::new(seed, by);
        let mut watcher = stream.watcher(rows);
        for window in 0..120 {
            let drifted = stream.live(&mut watcher, |_| ());
            assert_eq!(drifted, [], "memory {by}, window {window}");
        }
    }
}

#[test]
fn a_shift_of_one_standard_deviation_is_found_in_spite_of_a_memory() {
    let mut stream = Stream::new(5, 0.98);
    let mut watcher = stream.watcher(20_000);
    (0..5).for_each(|_| assert_eq!(stream.live(&mut watcher, |_| ()), []));
    let found = (0..64).find(|_| stream.live(&mut watcher, |row| row[0] += 1.0).contains(&heat()));
    assert!(found.is_some_and(|window| window < 48), "{found:?}");
}

#[test]
fn a_memory_of_one_column_does_not_hide_another() {
    let mut stream = Stream::new(6, 0.999);
    let mut watcher = stream.watcher(3_000);
    (0..5).for_each(|_| assert_eq!(stream.live(&mut watcher, |_| ()), []));
    let shift = |row: &mut [f64; 2]| row[1] += 0.5;
    let found = (0..4).find(|_| stream.live(&mut watcher, shift).contains(&load()));
    assert!(found.is_some_and(|window| window <= 1), "{found:?}");
}

#[test]
fn a_stretch_of_missing_values_is_no_drift_where_the_reference_has_them() {
    let mut stream = Stream::new(7, 0.0);
    let columns = vec![Column::numeric("heat", "g"), Column::numeric("load", "g")];
    let mut builder = BaselineBuilder::new(columns, vec![]);
    // Of 500 rows one lot of 50 is missing.
    let is_out = |row: usize| row % 500 < 50;
    for row in 0..5_000 {
        let [heat, load] = stream.row();
        builder.push(&[if is_out(row) { f64::NAN } else { heat }, load], None, None).unwrap();
    }
    let mut watcher = Watcher::new(builder.build().unwrap(), Policy::default());
    for row in 0..20_000 {
        #[expect(clippy::cast_possible_truncation, reason = "as a device sees it")]
        let [heat, load] = stream.row().map(|value| Cell::Number(value as f32));
        watcher.observe(&[if is_out(row) { Cell::Null } else { heat }, load], None, None);
        if row % 50 == 49 {
            let verdicts = watcher.close().unwrap();
            assert!(verdicts.iter().all(|verdict| verdict.state != DriftState::Drifted), "{row}");
        }
    }
}

#[test]
fn rows_that_were_sorted_say_nothing_of_how_they_came() {
    let mut stream = Stream::new(8, 0.0);
    let mut rows: Vec<_> = (0..2_000).map(|_| stream.row()).collect();
    rows.sort_by(|left, right| left[0].total_cmp(&right[0]));
    let columns = vec![Column::numeric("heat", "g"), Column::numeric("load", "g")];
    let mut builder = BaselineBuilder::new(columns, vec![]);
    for row in &rows {
        builder.push(row, None, None).unwrap();
    }
    let mut watcher = Watcher::new(builder.build().unwrap(), Policy::default());
    let shift = |row: &mut [f64; 2]| row[0] += 0.5;
    let found = (0..4).find(|_| stream.live(&mut watcher, shift).contains(&heat()));
    assert!(found.is_some_and(|window| window <= 1), "{found:?}");
}
