//! Which device goes back to which version, and which stays as it is and why. Decides from values.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::api::RollbackUntouched;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{Epoch, UnixMillis, Version};
use sealift_protocol::report::ImageRef;

use crate::order::OrderError;
use crate::store::scope::Placed;

/// What becomes of the devices that are meant.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// Who goes where.
    pub(super) steps: BTreeMap<Version, Vec<Placed>>,
    /// Versions that are left, and that nobody who is meant goes to or stays on.
    pub(super) left: BTreeSet<Version>,
    /// Who stays as they are.
    pub(super) untouched: Vec<RollbackUntouched>,
}

/// What of a version decides whether a device takes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rollable {
    pub(super) digest: Digest,
    pub(super) epoch: Epoch,
}

/// What a device served at a time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Served<'a> {
    /// Nobody knows.
    Unknown,
    Nothing,
    Image(&'a ImageRef),
}

/// A device, and what is known of it.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) device: &'a Placed,
    pub(super) served: Served<'a>,
    /// Images of a lower epoch are refused by it.
    pub(super) floor: Epoch,
}

/// All devices with something newer go to one version.
pub(super) fn to_version(
    placed: &[Placed],
    target: &Version,
    is_newer: impl Fn(&Version, &Version) -> bool,
) -> Decision {
    let present: BTreeSet<&Version> = placed.iter().flat_map(Placed::versions).collect();
    let left: BTreeSet<Version> =
        present.into_iter().filter(|it| is_newer(it, target)).cloned().collect();
    let moved = |device: &&Placed| device.versions().any(|it| left.contains(it));
    let devices: Vec<_> = placed.iter().filter(moved).cloned().collect();
    let steps =
        if devices.is_empty() { BTreeMap::new() } else { [(target.clone(), devices)].into() };
    Decision { steps, left, untouched: Vec::new() }
}

/// Each device goes to what it itself ran.
pub(super) fn to_time<'a>(
    candidates: impl Iterator<Item = Candidate<'a>>,
    versions: &BTreeMap<Version, Result<Rollable, OrderError>>,
    at: UnixMillis,
) -> Decision {
    let mut decision = Decision::default();
    let (mut left, mut stays) = (BTreeSet::new(), BTreeSet::new());
    for candidate in candidates {
        let device = candidate.device;
        match target(&candidate, versions, at) {
            Ok(version) if device.versions().all(|present| *present == version) => {
                stays.insert(version);
            }
            Ok(version) => {
                left.extend(device.versions().filter(|it| **it != version).cloned());
                decision.steps.entry(version).or_default().push(device.clone());
            }
            Err((code, why)) => {
                stays.extend(device.versions().cloned());
                let (device, code) = (device.device.clone(), code.to_owned());
                decision.untouched.push(RollbackUntouched { device, code, why });
            }
        }
    }
    let is_left = |it: &Version| !stays.contains(it) && !decision.steps.contains_key(it);
    decision.left = left.into_iter().filter(is_left).collect();
    decision
}

/// The version that a device goes to, or a code and a sentence.
fn target(
    candidate: &Candidate<'_>,
    versions: &BTreeMap<Version, Result<Rollable, OrderError>>,
    at: UnixMillis,
) -> Result<Version, (&'static str, String)> {
    let unknown = || ("unknown", format!("what it ran at {at} is not known"));
    let image = match candidate.served {
        Served::Image(image) => image,
        Served::Unknown => return Err(unknown()),
        Served::Nothing => {
            return Err(("nothing", format!("it ran nothing of the model at {at}")));
        }
    };
    let version = &image.version;
    let row = match versions.get(version) {
        Some(Ok(row)) => row,
        Some(Err(refused)) => return Err((code(refused), refused.to_string())),
        None => return Err(unknown()),
    };
    if row.digest != image.index {
        let why = format!("version {version} is another image now than it ran at {at}");
        return Err(("changed", why));
    }
    if row.epoch < candidate.floor {
        let why = format!(
            "version {version} has security epoch {}, the device takes none below {}",
            row.epoch.0, candidate.floor.0
        );
        return Err(("floor", why));
    }
    Ok(version.clone())
}

fn code(refused: &OrderError) -> &'static str {
    if let OrderError::Quarantined { reason, .. } = refused {
        return if reason.starts_with("revoked: ") { "revoked" } else { "quarantined" };
    }
    // Nothing else keeps a version from being rolled out.
    if matches!(refused, OrderError::Unsigned { .. }) { "unsigned" } else { "gone" }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::id::{DeviceId, ModelName};

    use super::*;

    const AT: UnixMillis = UnixMillis(1_000);

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    fn image(text: &str) -> ImageRef {
        ImageRef { version: version(text), index: Digest::of(text.as_bytes()) }
    }

    fn placed(device: &str, runs: &str) -> Placed {
        Placed {
            device: DeviceId::parse(device).unwrap(),
            desired: Some(version(runs)),
            rollout: None,
            serving: Some(version(runs)),
            previous: None,
            on_disk: BTreeSet::new(),
        }
    }

    fn row(text: &str, epoch: u64) -> (Version, Result<Rollable, OrderError>) {
        let rollable = Rollable { digest: Digest::of(text.as_bytes()), epoch: Epoch(epoch) };
        (version(text), Ok(rollable))
    }

    fn refused(text: &str) -> (Version, Result<Rollable, OrderError>) {
        let model = ModelName::parse("vision/digits").unwrap();
        let reason = "reads 7 as 1".to_owned();
        (version(text), Err(OrderError::Quarantined { model, version: version(text), reason }))
    }

    #[test]
    fn each_device_goes_to_what_it_itself_ran_and_says_why_not() {
        let fleet = ["a", "b", "c", "d", "e", "f"].map(|device| placed(device, "3"));
        let (one, two, bad, old) = (image("1"), image("2"), image("9"), image("0"));
        let ran = [
            Served::Image(&one),
            Served::Image(&two),
            Served::Image(&bad),
            Served::Nothing,
            Served::Unknown,
            Served::Image(&old),
        ];
        let versions = BTreeMap::from([row("1", 1), row("2", 1), refused("9"), row("0", 0)]);
        let candidates = fleet.iter().zip(ran);
        let candidates =
            candidates.map(|(device, served)| Candidate { device, served, floor: Epoch(1) });

        let decision = to_time(candidates, &versions, AT);

        let steps: Vec<_> = decision
            .steps
            .iter()
            .map(|(version, devices)| (version.as_str(), devices[0].device.as_str()))
            .collect();
        assert_eq!(steps, [("1", "a"), ("2", "b")]);
        let untouched: Vec<_> =
            decision.untouched.iter().map(|it| (it.device.as_str(), it.code.as_str())).collect();
        let why = [("c", "quarantined"), ("d", "nothing"), ("e", "unknown"), ("f", "floor")];
        assert_eq!(untouched, why);
        assert!(decision.left.is_empty(), "others stay on 3");
    }

    #[test]
    fn what_one_leaves_and_another_goes_to_is_not_left() {
        let fleet = [placed("a", "3"), placed("b", "2"), placed("c", "1")];
        let (one, two) = (image("1"), image("2"));
        let versions = BTreeMap::from([row("1", 1), row("2", 1)]);
        let ran = [&two, &one, &one];
        let candidates = fleet.iter().zip(ran).map(|(device, image)| Candidate {
            device,
            served: Served::Image(image),
            floor: Epoch(0),
        });

        let decision = to_time(candidates, &versions, AT);

        assert_eq!(decision.steps.len(), 2);
        assert_eq!(decision.left, BTreeSet::from([version("3")]));
        assert!(decision.untouched.is_empty(), "the third stays where it was");
    }

    #[test]
    fn a_version_pushed_anew_is_not_what_ran() {
        let fleet = [placed("a", "3")];
        let other = ImageRef { index: Digest::of(b"other"), ..image("1") };
        let versions = BTreeMap::from([row("1", 1)]);
        let candidate =
            Candidate { device: &fleet[0], served: Served::Image(&other), floor: Epoch(0) };
        let decision = to_time([candidate].into_iter(), &versions, AT);
        assert_eq!(decision.untouched[0].code, "changed");
    }
}
