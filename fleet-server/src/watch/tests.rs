//! The story of the digits at three sites, on a real store.

mod devices;
mod history;

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::api::{AlertState, AlertView, DriftState};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, Epoch, Generation, TenantId, Version};
use sealift_protocol::image::IoContract;
use sealift_protocol::profile::{Baseline, BaselineBuilder, Column, Profiler, quadrant};
use sealift_protocol::report::{ImageRef, SlotReport};
use sealift_protocol::telemetry::{ProfileWindow, SpoolId};

use super::*;
use crate::certificate::DeviceCertificate;
use crate::registry::ImageFacts;
use crate::store::Store;
use crate::store::accounts::Account;
use crate::store::enrol::{Given, Taken};
use crate::store::registry::ManifestRow;
use crate::store::trust::Endorsement;

const BEGIN: UnixMillis = UnixMillis(1_790_000_000_000);
const SECOND_MS: i64 = 1_000;
/// Rows of a device's window.
const ROWS: usize = 400;

/// Three sites with one camera each; the cameras look at rows of digits in turn.
struct Ground {
    store: TenantStore,
    blobs: Blobs,
    watch: Watch,
    baseline: Arc<Baseline>,
    held_out: Vec<Vec<f32>>,
    drifted: Vec<Vec<f32>>,
    /// Windows sent, by camera.
    sent: BTreeMap<String, usize>,
    /// Rows that cameras pass over in each window.
    skipped: u64,
    now: UnixMillis,
    _folder: tempfile::TempDir,
}

impl Ground {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("fleet.db").display());
        Self::on(&url, folder).await
    }

    /// In a tenant of its own, so that tests share a database.
    async fn on(url: &str, folder: tempfile::TempDir) -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let tenant = format!("t-{:x}", u64::from_be_bytes(random));
        let store = Store::open(url).await.unwrap().tenant(&TenantId::parse(&tenant).unwrap());
        let blobs = Blobs::open(None, folder.path()).await.unwrap();
        let baseline = Arc::new(baseline());
        let watch = watch(&store, &blobs);
        let ground = Self {
            store,
            blobs,
            watch,
            baseline,
            held_out: pixels(include_str!("../../../tests/fixtures/digits/data/holdout.csv")),
            drifted: pixels(include_str!("../../../tests/fixtures/digits/data/drifted.csv")),
            sent: BTreeMap::new(),
            skipped: 0,
            now: BEGIN,
            _folder: folder,
        };
        for version in ["1", "2"] {
            ground.push(version).await;
        }
        ground
    }

    /// Three sites whose cameras serve version 2.
    async fn of_three_sites() -> Self {
        Self::new().await.with_three_sites().await
    }

    async fn with_three_sites(self) -> Self {
        for site in ["tokyo", "osaka", "nagoya"] {
            self.enrol(site, site).await;
            self.serve(site, "2", 1).await;
        }
        self
    }

    async fn push(&self, version: &str) {
        let baseline = self.blobs.put(self.baseline.encode().unwrap()).await.unwrap();
        let image = image(version);
        let manifest = ManifestRow { digest: image.index, media_type: String::new(), size: 1 };
        let facts = ImageFacts {
            version: image.version.clone(),
            size_bytes: 1,
            family: String::new(),
            description: String::new(),
            licenses: Vec::new(),
            variants: Vec::new(),
            manifests: Vec::new(),
            contract: IoContract { schema: 1, ..IoContract::default() },
            baseline: Some(baseline),
        };
        let mut change = self.store.begin().await.unwrap();
        change.add_version(&digits(), &manifest, &facts, ("ann", BEGIN)).await.unwrap();
        let endorsement = Endorsement { epoch: Epoch(1), by: vec!["publisher-vision".to_owned()] };
        let name = (digits(), image.version);
        change.set_endorsement(&name, Some(&endorsement), BEGIN).await.unwrap();
        change.commit().await.unwrap();
    }

    async fn enrol(&self, camera: &str, site: &str) {
        let certificate = DeviceCertificate {
            chain_pem: String::new(),
            serial: "1".to_owned(),
            expires_at: BEGIN.plus(1),
        };
        let labels = [("site".to_owned(), site.to_owned())].into();
        let mut change = self.store.begin().await.unwrap();
        change
            .enrol_device(
                &device(camera),
                &certificate,
                Given { labels: &labels, taken: Taken::Replaced },
                BEGIN,
            )
            .await
            .unwrap();
        change.commit().await.unwrap();
    }

    /// A camera reports that it serves a version. No server has told it: then none is behind it.
    async fn serve(&self, camera: &str, version: &str, sequence: u64) {
        let serving = Some(image(version));
        let slot = SlotReport { serving, ..SlotReport::idle(digits(), Generation::default()) };
        let device = device(camera);
        let account = Account {
            device: &device,
            at: self.now,
            generation: Generation::default(),
            refused: None,
            slots: &[slot],
            trusted: None,
            position: (SpoolId(1), sequence),
        };
        let mut change = self.store.begin().await.unwrap();
        change.see(&BTreeSet::from([device.clone()]), Some(self.now)).await.unwrap();
        change.set_accounts(&[account]).await.unwrap();
        change.commit().await.unwrap();
    }

    /// A camera sends a window of the rows that come next.
    async fn window(&mut self, camera: &str, is_drifted: bool) {
        self.window_with_clock(camera, is_drifted, 0).await;
    }

    /// The same, from a camera whose clock is ahead.
    async fn window_with_clock(&mut self, camera: &str, is_drifted: bool, ahead_ms: i64) {
        let sent = self.sent.entry(camera.to_owned()).or_default();
        let rows = if is_drifted { &self.drifted } else { &self.held_out };
        // Cameras begin at different rows, and each goes round.
        let start = *sent * ROWS + camera.len() * 37;
        *sent += 1;
        let mut profiler = Profiler::new(&self.baseline);
        for row in rows.iter().cycle().skip(start % rows.len()).take(ROWS) {
            profiler.observe(row, None, None, None);
        }
        profiler.skip(self.skipped, None);
        let window = ProfileWindow {
            model: digits(),
            image: image("2"),
            from: self.now.plus(ahead_ms - 2 * SECOND_MS),
            until: self.now.plus(ahead_ms),
            profile: profiler.close().encode().unwrap(),
            errors: 0,
        };
        let mut change = self.store.begin().await.unwrap();
        change.see(&BTreeSet::from([device(camera)]), Some(self.now)).await.unwrap();
        change.add_window(&device(camera), &window, self.now).await.unwrap();
        change.commit().await.unwrap();
    }

    /// Two seconds at all sites, of which one may have drifted.
    async fn live(&mut self, rounds: usize, drifted: Option<&str>) {
        for _ in 0..rounds {
            self.now = self.now.plus(2 * SECOND_MS);
            for site in ["tokyo", "osaka", "nagoya"] {
                self.window(site, drifted == Some(site)).await;
            }
            self.watch.turn(self.now).await.unwrap();
        }
        // The round of the last windows is over.
        self.watch.turn(self.now.plus(SECOND_MS)).await.unwrap();
    }

    /// The server begins anew.
    fn restart(&mut self) {
        self.watch = watch(&self.store, &self.blobs);
    }

    /// All alerts, newest first.
    async fn alerts(&self) -> Vec<AlertView> {
        let states = [AlertState::Open, AlertState::Acknowledged, AlertState::Closed].into();
        self.store.alerts(&states, None, 1_000).await.unwrap()
    }

    /// All alerts of one site.
    async fn alerts_of(&self, site: &str) -> Vec<AlertView> {
        let scope = format!("site={site}");
        let alerts = self.alerts().await;
        let is_about = |alert: &AlertView| alert.labels.get("scope") == Some(&scope);
        alerts.into_iter().filter(is_about).collect()
    }

    /// Rows judged in a scope, and windows.
    fn judged(&self, scope: &str) -> (u64, usize) {
        let scope = Scope::parse(scope).unwrap();
        let series = self.watch.series(&digits(), &scope, &Subject::Feature("p20".to_owned()));
        (series.iter().map(|point| point.rows).sum(), series.len())
    }

    /// The groups of the baseline.
    fn groups(&self) -> Vec<String> {
        self.baseline.features().iter().map(|feature| feature.group.clone()).collect()
    }

    fn states(&self, scope: &str) -> Vec<DriftState> {
        let verdicts = self.watch.verdicts().into_iter();
        verdicts.filter(|view| view.scope == scope).map(|view| view.state).collect()
    }
}

#[tokio::test]
async fn only_the_site_that_drifts_is_told_of_once_with_its_group() {
    let mut ground = Ground::of_three_sites().await;
    ground.live(6, None).await;
    assert!(ground.alerts().await.is_empty());
    let steady = ground.states("site=osaka");
    assert!(!steady.is_empty() && steady.iter().all(|state| *state == DriftState::Steady));

    ground.live(4, Some("osaka")).await;

    let alerts = ground.alerts_of("osaka").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let alert = &alerts[0];
    assert_eq!((alert.kind.as_str(), alert.state), ("drift", AlertState::Open));
    assert_eq!(alert.labels["model"], "vision/digits");
    assert_eq!(alert.labels["site"], "osaka");
    assert!(ground.groups().contains(&alert.labels["group"]), "{:?}", alert.labels);
    for other in ["tokyo", "nagoya"] {
        assert_eq!(ground.alerts_of(other).await, []);
    }

    ground.live(6, Some("osaka")).await;
    assert_eq!(ground.alerts_of("osaka").await.len(), 1, "it is told of once");
}

#[tokio::test]
async fn rows_that_were_passed_over_are_told_beside_those_that_were_judged() {
    let mut ground = Ground::of_three_sites().await;
    ground.skipped = 7;
    ground.live(4, None).await;

    let (fleet, p20) = (Scope::Fleet, Subject::Feature("p20".to_owned()));
    let verdicts = ground.watch.verdicts();
    let series = ground.watch.series(&digits(), &fleet, &p20);
    let histogram = ground.watch.histogram(&digits(), &fleet, &p20).unwrap();
    let devices = ground.watch.devices();

    let of_views = verdicts.iter().map(|view| (view.rows, view.skipped));
    let of_points = series.iter().map(|point| (point.rows, point.skipped));
    let of_devices = devices.iter().map(|view| (view.rows, view.skipped));
    let told: Vec<_> = of_views.chain(of_points).chain(of_devices).collect();
    assert!(!verdicts.is_empty() && !series.is_empty() && !devices.is_empty());
    for (rows, skipped) in told.into_iter().chain([(histogram.rows, histogram.skipped)]) {
        assert_eq!(skipped, rows / ROWS as u64 * 7, "of {rows} rows");
    }
}

#[tokio::test]
async fn a_site_that_recovers_closes_its_alert() {
    recover(Ground::of_three_sites().await).await;
}

#[tokio::test]
#[ignore = "needs SEALIFT_POSTGRES_URL"]
async fn a_site_that_recovers_closes_its_alert_on_postgres() {
    let url = std::env::var("SEALIFT_POSTGRES_URL");
    let url = url.expect("SEALIFT_POSTGRES_URL must name a database to write to");
    let ground = Ground::on(&url, tempfile::tempdir().unwrap()).await;
    recover(ground.with_three_sites().await).await;
}

async fn recover(mut ground: Ground) {
    ground.live(4, None).await;
    ground.live(4, Some("osaka")).await;

    ground.live(8, None).await;

    let alerts = ground.alerts_of("osaka").await;
    assert_eq!((alerts.len(), alerts[0].state), (1, AlertState::Closed));
    let why = "; over: site=osaka is as the reference again";
    assert!(alerts[0].detail.ends_with(why), "{}", alerts[0].detail);
}

#[tokio::test]
async fn rolling_one_site_back_closes_its_alert_and_says_why() {
    let mut ground = Ground::of_three_sites().await;
    ground.live(4, None).await;
    ground.live(4, Some("osaka")).await;

    ground.serve("osaka", "1", 2).await;
    ground.watch.turn(ground.now.plus(2 * SECOND_MS)).await.unwrap();

    let alerts = ground.alerts_of("osaka").await;
    assert_eq!((alerts.len(), alerts[0].state), (1, AlertState::Closed));
    let why = "; over: vision/digits 2 is not served in site=osaka any more";
    assert!(alerts[0].detail.ends_with(why), "{}", alerts[0].detail);
    assert_eq!(ground.states("site=osaka"), []);
    assert_ne!(ground.states("site=tokyo"), [], "where it is served it is watched");
}

#[tokio::test]
async fn a_restart_counts_no_row_twice_and_comes_to_the_same_verdicts() {
    let mut ground = Ground::of_three_sites().await;
    ground.live(4, None).await;
    ground.live(3, Some("osaka")).await;
    let before = (ground.watch.verdicts(), ground.judged("fleet"), ground.judged("site=osaka"));

    ground.restart();
    ground.watch.turn(ground.now.plus(SECOND_MS)).await.unwrap();

    let after = (ground.watch.verdicts(), ground.judged("fleet"), ground.judged("site=osaka"));
    assert_eq!(after, before);
    assert_eq!(ground.alerts_of("osaka").await.len(), 1, "the alert goes on");
}

#[tokio::test]
async fn looking_again_without_new_windows_changes_nothing() {
    let mut ground = Ground::of_three_sites().await;
    ground.live(5, None).await;
    let before = ground.watch.verdicts();

    for seconds in 2..6 {
        ground.watch.turn(ground.now.plus(seconds * SECOND_MS)).await.unwrap();
    }

    assert_eq!(ground.watch.verdicts(), before);
    assert_eq!(ground.judged("site=tokyo").1, 5, "each window was judged once");
}

#[tokio::test]
async fn an_alert_outlives_a_restart_after_which_nothing_has_come() {
    let mut ground = Ground::of_three_sites().await;
    ground.live(4, Some("osaka")).await;
    assert_eq!(ground.alerts_of("osaka").await.len(), 1);

    ground.restart();
    let later = ground.now.plus(REPLAY_MS + SECOND_MS);
    ground.watch.turn(later).await.unwrap();

    assert_eq!(ground.watch.verdicts(), [], "nothing is known");
    assert_eq!(ground.alerts_of("osaka").await[0].state, AlertState::Open);
}

#[tokio::test]
async fn the_fleet_is_judged_by_all_sites_together() {
    let mut ground = Ground::of_three_sites().await;
    ground.live(3, None).await;
    let (_, windows) = ground.judged("fleet");

    // Only tokyo is heard of: the fleet waits for the others, tokyo itself does not.
    for _ in 0..3 {
        ground.now = ground.now.plus(SECOND_MS);
        ground.window("tokyo", false).await;
        ground.watch.turn(ground.now).await.unwrap();
    }
    assert_eq!(ground.judged("fleet").1, windows);
    assert_eq!(ground.judged("site=tokyo").1, 5);

    // Whoever does not come is waited for ten rounds and no longer.
    for _ in 0..8 {
        ground.now = ground.now.plus(SECOND_MS);
        ground.window("tokyo", false).await;
        ground.watch.turn(ground.now).await.unwrap();
    }
    assert_eq!(ground.judged("fleet").1, windows + 1);
}

#[tokio::test]
async fn a_camera_with_a_wrong_clock_is_judged_by_the_servers() {
    let mut ground = Ground::of_three_sites().await;
    let day_ms = 86_400 * SECOND_MS;
    for ahead_ms in [day_ms, -day_ms, 0] {
        ground.now = ground.now.plus(2 * SECOND_MS);
        ground.window_with_clock("osaka", true, ahead_ms).await;
        ground.watch.turn(ground.now.plus(SECOND_MS)).await.unwrap();
    }

    let verdicts = ground.watch.verdicts();
    assert!(verdicts.iter().all(|view| view.until == ground.now), "{verdicts:?}");
    assert_eq!(ground.alerts_of("osaka").await.len(), 1);
}

#[tokio::test]
async fn a_senseless_profile_is_left_out_and_holds_up_nobody() {
    let mut ground = Ground::of_three_sites().await;
    let window = ProfileWindow {
        model: digits(),
        image: image("2"),
        from: BEGIN,
        until: BEGIN,
        profile: b"no profile".to_vec(),
        errors: 0,
    };
    let mut change = ground.store.begin().await.unwrap();
    change.add_window(&device("osaka"), &window, BEGIN).await.unwrap();
    change.commit().await.unwrap();

    ground.live(3, None).await;

    assert_eq!(ground.judged("site=osaka").1, 3);
}

#[tokio::test]
async fn a_histogram_shows_reference_and_current_shares() {
    let mut ground = Ground::of_three_sites().await;
    ground.live(2, None).await;

    let scope = Scope::parse("site=tokyo").unwrap();
    let subject = Subject::parse("feature:p20").unwrap();
    let view = ground.watch.histogram(&digits(), &scope, &subject).unwrap();

    assert_eq!(view.rows, 2 * 400);
    assert_eq!(view.bins.len(), view.reference.len());
    for shares in [&view.reference, &view.current] {
        assert_eq!(shares.len(), view.bins.len());
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
    }
    let group = Subject::parse("group:upper-left").unwrap();
    assert_eq!(ground.watch.histogram(&digits(), &scope, &group), None);
}

#[tokio::test]
async fn many_silent_devices_are_one_piece_of_news() {
    let ground = Ground::new().await;
    for number in 0..=100 {
        let name = format!("cam-{number}");
        ground.enrol(&name, "tokyo").await;
        ground.serve(&name, "2", 1).await;
        if number == 1 {
            let later = BEGIN.plus(700 * SECOND_MS);
            ground.watch.turn(later).await.unwrap();
            let alerts = ground.alerts().await;
            assert_eq!(alerts.len(), 2, "two are told of one by one: {alerts:?}");
        }
    }

    ground.watch.turn(BEGIN.plus(701 * SECOND_MS)).await.unwrap();

    let alerts = ground.alerts().await;
    let open = alerts.iter().filter(|alert| alert.state == AlertState::Open);
    let titles: Vec<_> = open.map(|alert| alert.title.as_str()).collect();
    assert_eq!(titles, ["101 devices are silent"]);
}

#[tokio::test]
async fn what_silent_devices_have_in_common_is_said_once() {
    let ground = Ground::new().await;
    let later = BEGIN.plus(700 * SECOND_MS);
    for number in 0..24 {
        let (name, site) = (format!("cam-{number}"), ["tokyo", "lyon", "oslo"][number % 3]);
        ground.enrol(&name, site).await;
        ground.serve(&name, "2", 1).await;
        if site != "oslo" {
            let mut change = ground.store.begin().await.unwrap();
            change.see(&BTreeSet::from([device(&name)]), Some(later)).await.unwrap();
            change.commit().await.unwrap();
        }
    }

    ground.watch.turn(later).await.unwrap();
    ground.watch.turn(later.plus(SECOND_MS)).await.unwrap();

    let alerts = ground.alerts().await;
    let found: Vec<_> = alerts.iter().filter(|alert| alert.kind == "common-cause").collect();
    assert_eq!(found.len(), 1, "{alerts:?}");
    assert_eq!(found[0].title, "silent devices have site=oslo in common");
    let detail = "site=oslo: 8 of its 8 devices, of 8 affected, and no other is; ";
    assert!(found[0].detail.starts_with(detail), "{}", found[0].detail);
}

fn watch(store: &TenantStore, blobs: &Blobs) -> Watch {
    let patience = Patience {
        silent_after_ms: 120_000,
        offline_after_ms: 90_000,
        directive_valid_ms: 86_400_000,
    };
    let outlook = Outlook {
        policy: Policy::default(),
        labels: vec!["site".to_owned()],
        interval: Duration::from_secs(1),
    };
    let (signals, hub) = (Signals::default(), Hub::default());
    Watch::new(store.clone(), blobs.clone(), (signals, hub), patience, outlook)
}

fn baseline() -> Baseline {
    let column = |index: usize| {
        Column::numeric(&format!("p{}{}", index / 8, index % 8), quadrant(index, 8, 8))
    };
    let mut builder = BaselineBuilder::new((0..64).map(column).collect(), vec![]);
    for row in pixels(include_str!("../../../tests/fixtures/digits/v2/reference.csv")) {
        let row: Vec<f64> = row.into_iter().map(f64::from).collect();
        builder.push(&row, None, None).unwrap();
    }
    builder.build().unwrap()
}

/// The columns p00 to p77 of a CSV file.
fn pixels(csv: &str) -> Vec<Vec<f32>> {
    let header = csv.lines().next().unwrap();
    let first = header.split(',').position(|name| name == "p00").unwrap();
    let row = |line: &str| {
        line.split(',').skip(first).take(64).map(|cell| cell.parse().unwrap()).collect()
    };
    csv.lines().skip(1).map(row).collect()
}

fn digits() -> ModelName {
    ModelName::parse("vision/digits").unwrap()
}

fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

fn image(version: &str) -> ImageRef {
    let index = Digest::of(version.as_bytes());
    ImageRef { version: Version::parse(version).unwrap(), index }
}
