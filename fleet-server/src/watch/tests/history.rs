//! Hours and days of the digits: exact sums, kept longer than what they were made of, out of which one camera can be taken again.

use std::collections::BTreeSet;

use sealift_protocol::profile::Profile;

use super::*;
use crate::config::Retention;
use crate::history::{Forgotten, History, HistoryError, Question};
use crate::store::spans::{Length, SpanKey, StoredSpan};

const HOUR_MS: i64 = 3_600 * SECOND_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Whatever came is summed up by then.
const SETTLED_MS: i64 = 60 * SECOND_MS;

const SITES: [&str; 3] = ["tokyo", "osaka", "nagoya"];

impl Ground {
    fn history(&self, kept: Retention) -> History {
        let (policy, labels) = (Policy::default(), vec!["site".to_owned()]);
        History::new(self.store.clone(), self.blobs.clone(), (policy, labels), kept)
    }

    /// Every site sends windows in each of so many hours.
    async fn hours(&mut self, hours: usize, drifted: Option<&str>) {
        for _ in 0..hours {
            for site in SITES {
                self.window(site, drifted == Some(site)).await;
            }
            self.now = self.now.plus(HOUR_MS);
        }
    }

    async fn sum_up(&self) {
        self.history(Retention::default())
            .turn(&mut BTreeMap::new(), self.now.plus(SETTLED_MS))
            .await
            .unwrap();
    }

    async fn spans(&self, scope: &str, length: Length) -> Vec<(SpanKey, StoredSpan)> {
        let (scope, all) = (Scope::parse(scope).unwrap(), (UnixMillis(0), UnixMillis(i64::MAX)));
        self.store.spans((&digits(), &scope), length, all, 10_000).await.unwrap()
    }

    /// All windows of some cameras in an hour together, from the windows themselves.
    async fn together(&self, cameras: &[&str], hour: UnixMillis) -> Profile {
        let mut all = Profile::empty(&self.baseline);
        for stored in self.store.windows_after(0, 100_000).await.unwrap() {
            let is_in = Length::Hour.floor(stored.received_at) == hour;
            if is_in && cameras.contains(&stored.device.as_str()) {
                all.merge(&Profile::decode(&stored.window.profile).unwrap()).unwrap();
            }
        }
        all
    }

    async fn forget(&self, camera: &str) -> Forgotten {
        let mut change = self.store.begin().await.unwrap();
        let history = self.history(Retention::default());
        let forgotten = history.forget(&mut change, &device(camera)).await.unwrap();
        change.commit().await.unwrap();
        forgotten
    }
}

fn rows(spans: &[(SpanKey, StoredSpan)]) -> u64 {
    spans.iter().map(|(_, span)| Profile::decode(&span.profile).unwrap().rows()).sum()
}

async fn hours_are_sums(mut ground: Ground) {
    ground.hours(3, None).await;
    ground.sum_up().await;
    // Some more of the last hour, which is there already.
    ground.now = ground.now.plus(-HOUR_MS / 2);
    ground.window("osaka", true).await;
    ground.sum_up().await;
    ground.sum_up().await;

    let fleet = ground.spans("fleet", Length::Hour).await;
    let windows: Vec<_> = fleet.iter().map(|(_, span)| span.windows).collect();
    assert_eq!(windows, [3, 3, 4]);
    for (key, span) in fleet {
        let whole = ground.together(&SITES, key.from).await;
        assert_eq!(span.profile, whole.encode().unwrap());
    }
    for site in SITES {
        let scope = format!("device:{site}");
        for (key, span) in ground.spans(&scope, Length::Hour).await {
            assert_eq!(span.profile, ground.together(&[site], key.from).await.encode().unwrap());
            let scopes: BTreeSet<_> = span.scopes.iter().map(Scope::to_string).collect();
            assert_eq!(scopes, ["fleet".to_owned(), format!("site={site}")].into());
        }
    }
}

#[tokio::test]
async fn hours_are_the_sums_of_windows_to_the_bit() {
    hours_are_sums(Ground::of_three_sites().await).await;
}

#[tokio::test]
#[ignore = "needs SEALIFT_POSTGRES_URL"]
async fn hours_are_the_sums_of_windows_to_the_bit_on_postgres() {
    let url = std::env::var("SEALIFT_POSTGRES_URL");
    let url = url.expect("SEALIFT_POSTGRES_URL must name a database to write to");
    let ground = Ground::on(&url, tempfile::tempdir().unwrap()).await.with_three_sites().await;
    hours_are_sums(ground).await;
}

#[tokio::test]
async fn servers_that_sum_up_at_once_count_every_window_once() {
    let mut ground = Ground::of_three_sites().await;
    ground.hours(4, None).await;
    let (one, other) = (ground.history(Retention::default()), ground.history(Retention::default()));
    let until = ground.now.plus(SETTLED_MS);
    let (mut known, mut known_to_other) = (BTreeMap::new(), BTreeMap::new());
    let turns = tokio::join!(one.turn(&mut known, until), other.turn(&mut known_to_other, until));
    for turn in [turns.0, turns.1] {
        assert!(
            matches!(turn, Ok(()) | Err(HistoryError::Store(StoreError::Changed(_)))),
            "{turn:?}"
        );
    }
    ground.sum_up().await;

    assert_eq!(rows(&ground.spans("fleet", Length::Hour).await), 12 * ROWS as u64);
}

#[tokio::test]
async fn windows_with_a_wrong_clock_are_in_the_hour_in_which_they_came() {
    let mut ground = Ground::of_three_sites().await;
    let now = ground.now;
    for ahead_ms in [-now.0, 80 * 365 * DAY_MS] {
        ground.window_with_clock("osaka", false, ahead_ms).await;
    }
    // Kept by the camera for two days, while nobody heard it.
    ground.window_with_clock("osaka", false, -2 * DAY_MS).await;
    ground.sum_up().await;

    let hours: Vec<_> = ground.spans("device:osaka", Length::Hour).await;
    let windows: Vec<_> = hours.iter().map(|(key, span)| (key.from, span.windows)).collect();
    let hour = |at| Length::Hour.floor(at);
    assert_eq!(windows, [(hour(now.plus(-2 * DAY_MS)), 1), (hour(now), 2)]);
}

#[tokio::test]
async fn old_hours_become_days_and_old_days_go() {
    let mut ground = Ground::of_three_sites().await;
    ground.hours(30, None).await;
    ground.sum_up().await;
    let hours = ground.spans("fleet", Length::Hour).await;
    let history = ground.history(Retention::default());
    let later = ground.now.plus(17 * DAY_MS);

    history.turn(&mut BTreeMap::new(), later).await.unwrap();

    assert_eq!(ground.spans("fleet", Length::Hour).await, []);
    let days = ground.spans("fleet", Length::Day).await;
    assert!((2..=3).contains(&days.len()), "{}", days.len());
    for (day, span) in &days {
        let mut whole = Profile::empty(&ground.baseline);
        for (_, hour) in hours.iter().filter(|(key, _)| Length::Day.floor(key.from) == day.from) {
            whole.merge(&Profile::decode(&hour.profile).unwrap()).unwrap();
        }
        assert_eq!(span.profile, whole.encode().unwrap());
    }
    assert_eq!(rows(&days), rows(&hours));

    history.turn(&mut BTreeMap::new(), later.plus(400 * DAY_MS)).await.unwrap();
    assert_eq!(ground.spans("fleet", Length::Day).await, []);
}

#[tokio::test]
async fn what_is_too_much_goes_oldest_first() {
    let mut ground = Ground::of_three_sites().await;
    ground.hours(60, None).await;
    let newest = Length::Hour.floor(ground.now.plus(-HOUR_MS));
    let history = ground.history(Retention { history_mb: 1, ..Retention::default() });

    history.turn(&mut BTreeMap::new(), ground.now.plus(SETTLED_MS)).await.unwrap();

    let sizes = ground.store.span_bytes().await.unwrap();
    let bytes: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    println!("{bytes} bytes in {} hours", sizes.len());
    assert!(bytes <= 1 << 20 && bytes > (1 << 20) * 9 / 10, "{bytes}");
    assert_eq!(sizes.last().unwrap().0, newest);
    assert!(sizes.len() < 60, "{} hours", sizes.len());
}

async fn forgetting(mut ground: Ground) {
    ground.hours(3, Some("osaka")).await;
    ground.sum_up().await;
    // Not in an hour yet.
    ground.window("osaka", true).await;
    ground.watch.turn(ground.now).await.unwrap();

    let forgotten = ground.forget("osaka").await;

    assert_eq!((forgotten.rows.windows, forgotten.spans), (4, 3));
    ground.sum_up().await;
    for scope in ["device:osaka", "site=osaka"] {
        assert_eq!(ground.spans(scope, Length::Hour).await, [], "{scope}");
    }
    let fleet = ground.spans("fleet", Length::Hour).await;
    assert_eq!(fleet.len(), 3);
    for (key, span) in fleet {
        let left = Profile::decode(&span.profile).unwrap();
        let others = ground.together(&["tokyo", "nagoya"], key.from).await;
        assert_eq!((span.windows, left.rows()), (2, others.rows()));
        let pairs = left.numeric().iter().zip(others.numeric());
        for ((left, others), feature) in pairs.zip(ground.baseline.features()) {
            let reference = feature.numeric().unwrap();
            assert_eq!(left.bins(reference), others.bins(reference), "{}", feature.name);
            assert_eq!(left.mean_and_sd(reference), others.mean_and_sd(reference));
        }
    }
    // What is judged now begins anew, without it.
    ground.watch.turn(ground.now.plus(SECOND_MS)).await.unwrap();
    assert_eq!(ground.judged("site=osaka"), (0, 0));

    let again = ground.forget("osaka").await;
    assert_eq!((again.rows.windows, again.spans), (0, 0));
    ground.window("osaka", false).await;
    ground.sum_up().await;
    assert_eq!(rows(&ground.spans("site=osaka", Length::Hour).await), ROWS as u64);
}

#[tokio::test]
async fn a_device_that_is_forgotten_is_in_no_sum_any_more() {
    forgetting(Ground::of_three_sites().await).await;
}

#[tokio::test]
#[ignore = "needs SEALIFT_POSTGRES_URL"]
async fn a_device_that_is_forgotten_is_in_no_sum_any_more_on_postgres() {
    let url = std::env::var("SEALIFT_POSTGRES_URL");
    let url = url.expect("SEALIFT_POSTGRES_URL must name a database to write to");
    let ground = Ground::on(&url, tempfile::tempdir().unwrap()).await;
    forgetting(ground.with_three_sites().await).await;
}

/// Whoever had read windows before they were forgotten must not write them down after.
#[tokio::test]
async fn windows_forgotten_while_they_are_summed_up_are_not_written() {
    let mut ground = Ground::of_three_sites().await;
    ground.hours(1, None).await;
    let forgotten = ground.store.forgotten_devices().await.unwrap();
    let after = ground.store.summed_windows().await.unwrap();
    let last = ground.store.windows_after(after, 100).await.unwrap().last().unwrap().number;

    ground.forget("osaka").await;

    let mut change = ground.store.begin().await.unwrap();
    let refused = change.windows_summed((after, last), forgotten).await;
    assert!(matches!(refused, Err(StoreError::Changed(_))), "{refused:?}");
}

#[tokio::test]
async fn looking_back_shows_the_site_and_the_day_on_which_it_drifted() {
    let mut ground = Ground::of_three_sites().await;
    ground.now = Length::Day.floor(ground.now);
    ground.skipped = 7;
    ground.hours(24, None).await;
    ground.hours(24, Some("osaka")).await;
    ground.sum_up().await;
    let history = ground.history(Retention::default());
    let asked = |scope: &str, length| Question {
        model: digits(),
        scope: Scope::parse(scope).unwrap(),
        subject: Subject::Feature("p20".to_owned()),
        length,
        from: UnixMillis(0),
        until: ground.now,
    };

    let osaka = history.look(&asked("site=osaka", Length::Day)).await.unwrap();
    let tokyo = history.look(&asked("site=tokyo", Length::Day)).await.unwrap();

    let differs: Vec<_> =
        osaka.iter().map(|point| point.value >= point.threshold && point.p < 0.01).collect();
    assert_eq!(differs, [false, true], "{osaka:#?}");
    assert!(tokyo.iter().all(|point| point.value < point.threshold), "{tokyo:#?}");
    assert_eq!((osaka[0].rows, osaka[0].version.as_str()), (24 * ROWS as u64, "2"));
    assert_eq!(osaka[0].skipped, 24 * 7);
    let hours = history.look(&asked("site=osaka", Length::Hour)).await.unwrap();
    assert_eq!(hours.len(), 48);
}
