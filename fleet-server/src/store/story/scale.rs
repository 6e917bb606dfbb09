//! How long it takes with 100,000 devices. Figures, not a pass mark for every machine: run by hand, in release, with `--nocapture`.

use std::time::Instant;

use super::*;
use crate::filter::Filter;

const DEVICES: usize = 100_000;

#[tokio::test]
#[ignore = "takes minutes: a measurement"]
async fn a_hundred_thousand_devices() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("fleet.db").display());
    let ground = Ground::on(&url).await;
    fill(&ground).await;
    ground.push("1").await;
    let presence = ground.presence(NOW);

    let all = Filter::default();
    let timed = Timed::begin("overview: devices by state");
    ground.store.devices_by_state(&Filter::default(), presence).await.unwrap();
    timed.end(300);
    let timed = Timed::begin("overview: adoption");
    ground.store.adoption(&Filter::default(), presence).await.unwrap();
    timed.end(300);
    let timed = Timed::begin("first page of 100 devices");
    ground.store.devices(&all, presence, None, 100).await.unwrap();
    timed.end(300);
    let timed = Timed::begin("count with a filter");
    let filter = "site:tokyo -state:offline model:vision/digits".parse().unwrap();
    ground.store.count_devices(&filter, presence).await.unwrap();
    timed.end(1_000);
    let id = ground.roll_out("1").await;
    let row = ground.rollout(id).await;
    let timed = Timed::begin("a rollout's plan, from the database");
    ground.reconciler.look(&row, NOW).await.unwrap();
    timed.end(3_000);
    let timed = Timed::begin("a turn that tells 500 devices");
    let mut row = row;
    row.waves[0].set_standing(crate::rollout::Standing::Passed { since: NOW });
    let mut change = ground.store.begin().await.unwrap();
    change.save_rollout(&row, NOW).await.unwrap();
    change.commit().await.unwrap();
    ground.reconciler.turn(NOW).await.unwrap();
    timed.end(5_000);
    messages(&ground).await;
}

async fn messages(ground: &Ground) {
    let beat = codec::encode(&sealift_protocol::telemetry::Beat::default()).unwrap();
    let ids: Vec<_> = (0..5_000).map(|number| device(&format!("d-{number}"))).collect();
    let timed = Timed::begin("5,000 heartbeats of 5,000 devices");
    let beats = ids.iter().map(|id| ground.accept(id, Up::Beat, &beat, NOW));
    let stored = futures_util::future::join_all(beats).await;
    assert!(stored.iter().all(Result::is_ok));
    timed.end(5_000);
}

async fn fill(ground: &Ground) {
    let mut change = ground.store.begin().await.unwrap();
    for number in 0..DEVICES {
        let id = format!("d-{number}");
        let statement = "INSERT INTO devices (tenant, id, enrolled_at, certificate_serial,
            certificate_expires_at, online, seen_at) VALUES ($1, $2, $3, '1', $3, 1, $3)";
        change.run(statement, |it| it.bind(id.clone()).bind(NOW.0)).await.unwrap();
        let statement =
            "INSERT INTO labels (tenant, device, name, value) VALUES ($1, $2, 'site', 'tokyo')";
        change.run(statement, |it| it.bind(id)).await.unwrap();
    }
    change.commit().await.unwrap();
}

struct Timed {
    what: &'static str,
    begun: Instant,
}

impl Timed {
    #[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    fn begin(what: &'static str) -> Self {
        Self { what, begun: Instant::now() }
    }

    fn end(self, limit_ms: u128) {
        let took = self.begun.elapsed().as_millis();
        println!("{took:>6} ms  {}", self.what);
        if !cfg!(debug_assertions) {
            assert!(took <= limit_ms, "{} took {took} ms", self.what);
        }
    }
}
