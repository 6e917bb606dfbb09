//! Devices that are judged by themselves, on a real store.

use sealift_protocol::api::{ComparedWith, DeviceNature};

use super::*;

/// Cameras of one site.
const CAMERAS: [&str; 5] = ["cam-0", "cam-1", "cam-2", "cam-3", "cam-4"];

async fn of_one_site() -> Ground {
    let ground = Ground::new().await;
    for camera in CAMERAS {
        ground.enrol(camera, "osaka").await;
        ground.serve(camera, "2", 1).await;
    }
    ground
}

impl Ground {
    /// Two seconds a round, in which some cameras see what is rotated.
    async fn watch_cameras(&mut self, rounds: usize, is_rotated: impl Fn(&str) -> bool) {
        for _ in 0..rounds {
            self.now = self.now.plus(2 * SECOND_MS);
            for camera in CAMERAS {
                self.window(camera, is_rotated(camera)).await;
            }
            self.watch.turn(self.now).await.unwrap();
        }
        self.watch.turn(self.now.plus(SECOND_MS)).await.unwrap();
    }

    async fn of_kind(&self, kind: &str) -> Vec<AlertView> {
        self.alerts().await.into_iter().filter(|alert| alert.kind == kind).collect()
    }

    fn natures(&self) -> Vec<(String, DeviceNature)> {
        let views = self.watch.devices().into_iter();
        views.map(|view| (view.device.to_string(), view.nature)).collect()
    }
}

#[tokio::test]
async fn one_camera_that_is_off_is_a_sensor_until_it_is_well() {
    let mut ground = of_one_site().await;
    ground.watch_cameras(3, |_| false).await;
    assert_eq!(ground.of_kind("device-drift").await, []);
    assert!(ground.natures().iter().all(|(_, nature)| *nature == DeviceNature::Steady));

    ground.watch_cameras(3, |camera| camera == "cam-3").await;

    let alerts = ground.of_kind("device-drift").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!((alerts[0].labels["device"].as_str(), alerts[0].state), ("cam-3", AlertState::Open));
    assert!(alerts[0].detail.contains("one device off its cohort is a sensor"), "{alerts:?}");
    assert_eq!(alerts[0].labels["site"], "osaka");
    let views = ground.watch.devices();
    let view = views.iter().find(|view| view.nature == DeviceNature::Alone).unwrap();
    assert_eq!((view.device.as_str(), view.cohort.as_str()), ("cam-3", "site=osaka"));
    assert!(view.off.iter().any(|off| off.against == ComparedWith::Cohort), "{view:?}");
    for alert in ground.of_kind("drift").await {
        assert!(alert.detail.contains("only 1 of its 5 devices"), "{}", alert.detail);
    }

    ground.restart();
    ground.watch.turn(ground.now.plus(SECOND_MS)).await.unwrap();
    assert_eq!(ground.of_kind("device-drift").await[0].state, AlertState::Open);

    ground.watch_cameras(6, |_| false).await;
    let alerts = ground.of_kind("device-drift").await;
    assert_eq!((alerts.len(), alerts[0].state), (1, AlertState::Closed), "{alerts:?}");
}

#[tokio::test]
async fn cameras_that_are_off_together_are_their_sites_business() {
    let mut ground = of_one_site().await;
    ground.watch_cameras(2, |_| false).await;
    ground.watch_cameras(3, |_| true).await;

    assert_eq!(ground.of_kind("device-drift").await, []);
    let alerts = ground.alerts_of("osaka").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let words = "5 of its 5 devices differ each by itself";
    assert!(alerts[0].detail.contains(words), "{}", alerts[0].detail);
    assert!(ground.natures().iter().all(|(_, nature)| *nature == DeviceNature::Together));
}

#[tokio::test]
async fn what_drifting_devices_have_in_common_is_said() {
    let mut ground = Ground::new().await;
    let cameras: Vec<_> = (0..16).map(|number| format!("cam-{number:02}")).collect();
    for (number, camera) in cameras.iter().enumerate() {
        let site = ["tokyo", "osaka"][number / 8];
        ground.enrol(camera, site).await;
        ground.serve(camera, "2", 1).await;
    }
    // Causes are looked for at most once a minute: now, and with the last windows.
    ground.watch.turn(ground.now).await.unwrap();
    ground.now = ground.now.plus(50 * SECOND_MS);
    for _ in 0..5 {
        ground.now = ground.now.plus(2 * SECOND_MS);
        for (number, camera) in cameras.iter().enumerate() {
            ground.window(camera, number >= 8).await;
        }
        ground.watch.turn(ground.now).await.unwrap();
    }

    let alerts = ground.of_kind("common-cause").await;
    let drifting: Vec<_> =
        alerts.iter().filter(|alert| alert.labels["trouble"] == "drifting").collect();
    assert_eq!(drifting.len(), 1, "{alerts:?}");
    assert_eq!(drifting[0].title, "drifting devices have site=osaka in common");
    assert!(drifting[0].detail.starts_with("site=osaka: 8 of its 8 devices"), "{drifting:?}");
}
