//! What the thief tries, one after the other.

use anyhow::Context as _;
use ed25519_dalek::SigningKey as Director;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, ModelName, TeamId, Version};
use sealift_protocol::image::{ImageManifest, LayerKind, ModelIndex};
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::{BUNDLE_PATH, REVOCATIONS_ROLE, Role, model_path, publisher_role};

use super::forge::{Forgery, now};
use super::{Thief, digest};
use crate::digits::MODEL;
use crate::fleet::Device;

const HOUR_MS: i64 = 3_600_000;

/// An attack. Those that forge metadata come last: a device that has seen a newer version of them takes no older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// A genuine directive to an image that no publisher has signed.
    UnsignedImage,
    /// A genuine directive that names another digest than the publisher signed.
    OtherDigest,
    /// A genuine directive to a signed image with a known hole.
    BelowTheFloor,
    /// A genuine directive to a signed image that was revoked.
    RevokedImage,
    /// A directive for another device.
    OtherDevice,
    /// A directive that was signed long ago.
    OldDirective,
    /// A directive of a director that the thief has made up.
    MadeUpDirector,
    /// A signed image whose weights are exchanged under their digest.
    SwappedWeights,
    /// A signed image whose index is exchanged under its digest.
    SwappedIndex,
    /// A blob that does not end where it should.
    EndlessBlob,
    /// A certification authority that the thief has made up.
    MadeUpAuthority,
    /// The metadata of a week ago, signed again as old ones.
    OlderTimestamp,
    /// Time stands still.
    Freeze,
    /// A snapshot that says nothing of the deny list.
    DenyListHidden,
    /// A snapshot that goes back to the deny list before.
    OlderDenyList,
    /// The publisher's metadata, signed with every key of the server.
    PublisherByOnlineKeys,
    /// The publisher's metadata, signed by nobody.
    PublisherUnsigned,
    /// Another team's genuine signature under a model of this one.
    OtherTeam,
    /// New targets that make the thief a publisher, and a trust bundle with a director of the thief's.
    MadeUpTargets,
    /// A new root, with the thief's keys in every role.
    MadeUpRoot,
}

impl Attack {
    /// All of them, in the order in which they can be tried on one device.
    pub const ALL: [Self; 20] = [
        Self::UnsignedImage,
        Self::OtherDigest,
        Self::BelowTheFloor,
        Self::RevokedImage,
        Self::OtherDevice,
        Self::OldDirective,
        Self::MadeUpDirector,
        Self::SwappedWeights,
        Self::SwappedIndex,
        Self::EndlessBlob,
        Self::MadeUpAuthority,
        Self::OlderTimestamp,
        Self::Freeze,
        Self::DenyListHidden,
        Self::OlderDenyList,
        Self::OtherTeam,
        Self::PublisherByOnlineKeys,
        Self::PublisherUnsigned,
        Self::MadeUpTargets,
        Self::MadeUpRoot,
    ];

    /// What it is, in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnsignedImage => "a directive to an image that no publisher signed",
            Self::OtherDigest => "a directive to other bytes than the publisher signed",
            Self::BelowTheFloor => "a signed image with a known hole, below the device's floor",
            Self::RevokedImage => "a signed image that was revoked before the theft",
            Self::OtherDevice => "another device's directive",
            Self::OldDirective => "a directive that was signed long ago",
            Self::MadeUpDirector => "a directive of a made-up director",
            Self::SwappedWeights => "other weights under the digest of signed ones",
            Self::SwappedIndex => "another index under the digest of a signed one",
            Self::EndlessBlob => "a blob longer than was signed",
            Self::MadeUpAuthority => "a TLS certificate of a made-up authority",
            Self::OlderTimestamp => "an older timestamp, signed with the stolen key",
            Self::Freeze => "a timestamp that has expired, so that time stands still",
            Self::DenyListHidden => "a forged snapshot without the deny list",
            Self::OlderDenyList => "a forged snapshot with the deny list of before",
            Self::PublisherByOnlineKeys => "publisher metadata signed with every key of the server",
            Self::PublisherUnsigned => "publisher metadata that nobody signed",
            Self::OtherTeam => "another team's genuine signature under this team's model",
            Self::MadeUpTargets => "new targets with a made-up publisher and trust bundle",
            Self::MadeUpRoot => "a new root with the thief's keys in every role",
        }
    }

    /// The code with which a device refuses it; of a server that it does not even speak to, what TLS says.
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnsignedImage | Self::OtherTeam => "tuf.no-target",
            Self::OtherDigest => "image.target",
            Self::BelowTheFloor => "image.epoch",
            Self::RevokedImage => "image.revoked",
            Self::OtherDevice => "directive.audience",
            Self::OldDirective => "directive.window",
            Self::MadeUpDirector => "cose.key",
            Self::SwappedWeights | Self::SwappedIndex => "image.digest",
            Self::EndlessBlob => "image.size",
            Self::MadeUpAuthority => "invalid peer certificate",
            Self::OlderTimestamp => "tuf.timestamp.rollback",
            Self::Freeze => "tuf.timestamp.expired",
            Self::DenyListHidden => "tuf.snapshot.dropped-role",
            Self::OlderDenyList => "tuf.delegated.rollback",
            Self::PublisherByOnlineKeys | Self::PublisherUnsigned => "tuf.delegated.threshold",
            Self::MadeUpTargets => "tuf.targets.threshold",
            Self::MadeUpRoot => "tuf.root.threshold",
        }
    }

    /// Whether the device tells of it as a security event. A server that cannot be reached is none: that happens every day.
    pub const fn is_told(self) -> bool {
        !matches!(self, Self::MadeUpAuthority)
    }
}

impl Thief {
    /// Lays out everything for an attack.
    pub(super) async fn mount(&mut self, attack: Attack, device: &Device) -> anyhow::Result<()> {
        let targets = self.targets.clone();
        let of = async |version: &str| digest(&self.front, version).await;
        let version = match attack {
            Attack::BelowTheFloor => &targets.old,
            Attack::RevokedImage => &targets.denied,
            Attack::UnsignedImage
            | Attack::PublisherByOnlineKeys
            | Attack::PublisherUnsigned
            | Attack::OtherTeam
            | Attack::MadeUpTargets
            | Attack::MadeUpRoot => &targets.unsigned,
            Attack::OtherDigest
            | Attack::OtherDevice
            | Attack::OldDirective
            | Attack::MadeUpDirector
            | Attack::SwappedWeights
            | Attack::SwappedIndex
            | Attack::EndlessBlob
            | Attack::MadeUpAuthority
            | Attack::OlderTimestamp
            | Attack::Freeze
            | Attack::DenyListHidden
            | Attack::OlderDenyList => &targets.signed,
        };
        let index = match attack {
            Attack::OtherDigest => of(&targets.unsigned).await?,
            _ => of(version).await?, // the version's own
        };
        self.stage(attack, version, index).await?;
        let whom = match attack {
            Attack::OtherDevice => DeviceId::parse("cam-of-somebody-else")?,
            _ => device.id.clone(), // the one that is attacked
        };
        let begin = match attack {
            Attack::OldDirective => now()?.plus(-1_000 * HOUR_MS),
            _ => now()?, // fresh
        };
        let genuine = self.director.clone();
        if attack == Attack::MadeUpDirector {
            self.director = Director::from_bytes(&[0x5a; 32]);
        }
        let directive = self.directive(&whom, version, index, begin);
        self.director = genuine;
        self.front.forge("/directive", directive?);
        Ok(())
    }

    /// What must lie ready before the directive comes.
    async fn stage(&mut self, attack: Attack, version: &str, index: Digest) -> anyhow::Result<()> {
        match attack {
            Attack::SwappedWeights => self.swap_weights(index, |bytes| bytes.reverse()).await,
            Attack::EndlessBlob => self.swap_weights(index, |bytes| bytes.extend([0; 4_096])).await,
            Attack::SwappedIndex => self.swap_index(index).await,
            Attack::MadeUpAuthority => {
                self.front.impersonate();
                Ok(())
            }
            Attack::OlderTimestamp => {
                let snapshot = self.newest_snapshot().await?;
                self.stamp(1, snapshot, now()?.plus(HOUR_MS))
            }
            Attack::Freeze => {
                let snapshot = self.newest_snapshot().await?;
                self.version += 1;
                self.stamp(self.version, snapshot, now()?.plus(-HOUR_MS))
            }
            Attack::DenyListHidden => {
                let role = Role::Delegated(REVOCATIONS_ROLE.to_owned());
                self.publish(&[], Some(&role)).await
            }
            Attack::OlderDenyList => self.older_deny_list().await,
            Attack::PublisherByOnlineKeys => {
                let director = SigningKey::from_seed(&self.director.to_bytes());
                let keys = [self.snapshot.clone(), self.timestamp.clone(), director];
                self.publisher(version, index, &keys.each_ref()).await
            }
            Attack::PublisherUnsigned => self.publisher(version, index, &[]).await,
            Attack::OtherTeam => self.other_team(version, index).await,
            Attack::MadeUpTargets => self.made_up_targets().await,
            Attack::MadeUpRoot => self.made_up_root().await,
            Attack::UnsignedImage
            | Attack::OtherDigest
            | Attack::BelowTheFloor
            | Attack::RevokedImage
            | Attack::OtherDevice
            | Attack::OldDirective
            | Attack::MadeUpDirector => Ok(()),
        }
    }

    /// Puts other bytes under the digest of an image's weights.
    async fn swap_weights(
        &self,
        index: Digest,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> anyhow::Result<()> {
        let manifests = format!("/v2/{MODEL}/manifests");
        let parsed = ModelIndex::parse(&self.front.stolen(&format!("{manifests}/{index}")).await?)?;
        let manifest = parsed.variants().first().context("a variant")?.manifest.digest;
        let bytes = self.front.stolen(&format!("{manifests}/{manifest}")).await?;
        let manifest = ImageManifest::parse(&bytes)?;
        let weights = manifest.layer(LayerKind::Weights).context("weights")?.blob.digest;
        let path = format!("/v2/{MODEL}/blobs/{weights}");
        let mut bytes = self.front.stolen(&path).await?;
        change(&mut bytes);
        self.front.forge(path, bytes);
        Ok(())
    }

    /// Puts the index of an unsigned image under the digest of a signed one.
    async fn swap_index(&self, index: Digest) -> anyhow::Result<()> {
        let other = digest(&self.front, &self.targets.unsigned).await?;
        let bytes = self.front.stolen(&format!("/v2/{MODEL}/manifests/{other}")).await?;
        self.front.forge(format!("/v2/{MODEL}/manifests/{index}"), bytes);
        Ok(())
    }

    /// Goes back to the deny list that did not name the revoked image yet; it is genuinely signed.
    async fn older_deny_list(&mut self) -> anyhow::Result<()> {
        let role = Role::Delegated(REVOCATIONS_ROLE.to_owned());
        let (version, _) = self.newest(&role).await?;
        let version = version - 1;
        let bytes = self.front.stolen(&format!("/tuf/{version}.{role}.json")).await?;
        self.publish(&[Forgery { role, version, bytes }], None).await
    }

    /// The publisher's next metadata with the thief's image, signed with `keys`.
    async fn publisher(
        &mut self,
        version: &str,
        index: Digest,
        keys: &[&SigningKey],
    ) -> anyhow::Result<()> {
        let role = Role::Delegated(publisher_role(&TeamId::parse("vision")?));
        let path = model_path(&ModelName::parse(MODEL)?, &Version::parse(version)?);
        let target = self.target_of(index).await?;
        let forgery = self
            .next_targets(role, keys, |targets| drop(targets.targets.insert(path, target)))
            .await?;
        self.publish(&[forgery], None).await
    }

    /// The other team signs, with its own genuine key, a model of this one.
    async fn other_team(&mut self, version: &str, index: Digest) -> anyhow::Result<()> {
        let role = Role::Delegated(publisher_role(&TeamId::parse("audio")?));
        let path = model_path(&ModelName::parse(MODEL)?, &Version::parse(version)?);
        let target = self.target_of(index).await?;
        let forgery = self
            .next_targets(role, &[&self.other_team], |targets| {
                drop(targets.targets.insert(path, target));
            })
            .await?;
        self.publish(&[forgery], None).await
    }

    async fn made_up_targets(&mut self) -> anyhow::Result<()> {
        let keys = [self.snapshot.clone(), self.timestamp.clone()];
        let bundle = br#"{"schema":1,"directors":[],"device_cas":[]}"#;
        let forgery = self
            .next_targets(Role::Targets, &keys.each_ref(), |targets| {
                targets.targets.insert(BUNDLE_PATH.to_owned(), TargetFile::of(bundle));
                if let Some(delegations) = &mut targets.delegations {
                    for key in &keys {
                        delegations.keys.insert(key.id(), key.public());
                    }
                }
            })
            .await?;
        self.publish(&[forgery], None).await
    }

    async fn made_up_root(&mut self) -> anyhow::Result<()> {
        let keys = [1, 2, 3].map(|seed| SigningKey::from_seed(&[seed; 32]));
        let root = self.next_root(&keys.each_ref()).await?;
        self.front.forge("/tuf/2.root.json", root);
        Ok(())
    }
}
