//! The digest that ties all directives of one rollout together.

use serde::Serialize;

use super::{Budget, WavePlan};
use crate::codec::{self, CodecError};
use crate::digest::Digest;
use crate::directive::Trial;
use crate::id::{ModelName, RolloutId, TenantId, Version};

/// Stands before what is hashed, so that no other document can have the same digest.
const CONTEXT: &str = "sealift-campaign-v1";

/// Everything that a rollout was asked for with. Two directives with one campaign digest belong to one rollout, and whoever has the
/// rollout can prove what was asked for, and by whom.
///
/// The digest is taken once, when the rollout is made: fields that come later change none that was taken before.
#[derive(Debug, Clone, Serialize)]
pub struct Campaign<'a> {
    /// Whose fleet.
    pub tenant: &'a TenantId,
    /// Its number.
    pub rollout: RolloutId,
    /// The model.
    pub model: &'a ModelName,
    /// The version.
    pub version: &'a Version,
    /// Digest of the OCI index.
    pub index: Digest,
    /// Which devices.
    pub filter: &'a str,
    /// Its steps and their gates.
    pub waves: &'a [WavePlan],
    /// How each device tries the image.
    pub trial: Trial,
    /// Whether it goes back.
    pub is_rollback: bool,
    /// Who asked.
    pub requester: &'a str,
    /// How many devices may be at work at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<&'a Budget>,
}

impl Campaign<'_> {
    /// The SHA-256 of the CBOR of context and content, with the fields in the order of this type.
    pub fn digest(&self) -> Result<Digest, CodecError> {
        Ok(Digest::of(&codec::encode(&(CONTEXT, self))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_names_everything_that_was_asked_for() {
        let (tenant, other) = (TenantId::parse("main").unwrap(), TenantId::parse("b").unwrap());
        let model = ModelName::parse("vision/digits").unwrap();
        let versions = ["1", "2"].map(|version| Version::parse(version).unwrap());
        let wave = WavePlan {
            name: "canary".to_owned(),
            count: Some(1),
            soak_s: 30,
            max_bad_share: Some(0.1),
            ..WavePlan::default()
        };
        let looser = WavePlan { max_bad_share: Some(0.2), ..wave.clone() };
        let (waves, looser) = ([wave], [looser]);
        let base = Campaign {
            tenant: &tenant,
            rollout: RolloutId(1),
            model: &model,
            version: &versions[0],
            index: Digest::of(b"index"),
            filter: "site:tokyo",
            waves: &waves,
            trial: Trial::default(),
            is_rollback: false,
            requester: "ann",
            budget: None,
        };
        let budget = Budget { label: "site".to_owned(), count: Some(1), percent: None };
        let trial = Trial { probation_s: 1, ..Trial::default() };
        let others = [
            Campaign { tenant: &other, ..base.clone() },
            Campaign { rollout: RolloutId(2), ..base.clone() },
            Campaign { version: &versions[1], ..base.clone() },
            Campaign { index: Digest::of(b"other"), ..base.clone() },
            Campaign { filter: "", ..base.clone() },
            Campaign { waves: &[], ..base.clone() },
            Campaign { waves: &looser, ..base.clone() },
            Campaign { trial, ..base.clone() },
            Campaign { is_rollback: true, ..base.clone() },
            Campaign { requester: "bob", ..base.clone() },
            Campaign { budget: Some(&budget), ..base.clone() },
        ];

        let digest = base.digest().unwrap();
        assert_eq!(digest, base.clone().digest().unwrap());
        for other in others {
            assert_ne!(digest, other.digest().unwrap(), "{other:?}");
        }
        // Kept bytes: what was written down once must stay provable.
        assert_eq!(
            digest.to_string(),
            "sha256:35a003e796d1cc81c7e1dd4c5a7195657de595ff9cfff92a9341ccfcb5c827dd"
        );
    }
}
