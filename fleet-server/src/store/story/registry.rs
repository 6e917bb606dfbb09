//! Repositories, uploads and cleaning up.

use tempfile::TempDir;

use super::super::loose::InUse;
use super::super::repositories::{LinkFault, ReferrerQuery};
use super::super::uploads::NewPart;
use super::*;
use crate::blobs::Blobs;
use crate::content::ContentDigest;
use crate::registry::document::Document;
use crate::registry::name::{Reference, Repository};
use crate::registry::sweep::{Sweeper, Swept};

const HOUR_MS: i64 = 3_600_000;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry on the story's ground, with a blob store of its own.
struct Shelf {
    store: TenantStore,
    blobs: Blobs,
    sweeper: Sweeper,
    _folder: TempDir,
}

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn digest(bytes: &[u8]) -> ContentDigest {
    Digest::of(bytes).into()
}

/// A manifest that names these contents.
fn manifest(contents: &[&str], more: &str) -> Vec<u8> {
    let layers: Vec<_> = contents
        .iter()
        .map(|content| {
            let (digest, size) = (digest(content.as_bytes()), content.len());
            format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":{size}}}"#)
        })
        .collect();
    let (config, layers) = (&layers[0], layers.join(","));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layers}]{more}}}"#
    )
    .into_bytes()
}

fn document(bytes: &[u8]) -> Document {
    Document::parse(bytes, None).unwrap()
}

impl Shelf {
    async fn on(ground: &Ground) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(None, folder.path()).await.unwrap();
        let (store, blobs) = (ground.store.clone(), blobs.of_tenant(ground.tenant()));
        let sweeper = Sweeper::new(store.clone(), blobs.clone());
        Self { store, blobs, sweeper, _folder: folder }
    }

    async fn push_blob(&self, name: &str, content: &str, now: UnixMillis) -> ContentDigest {
        let digest = digest(content.as_bytes());
        let mut change = self.store.begin().await.unwrap();
        change.hold(digest, now).await.unwrap();
        change.commit().await.unwrap();
        self.blobs.put_as(digest, content.to_owned().into()).await.unwrap();
        let mut change = self.store.begin().await.unwrap();
        change.add_blob(&repository(name), digest, content.len() as u64, now).await.unwrap();
        change.commit().await.unwrap();
        digest
    }

    async fn push_manifest(
        &self,
        name: &str,
        bytes: &[u8],
        tag: Option<&str>,
        now: UnixMillis,
    ) -> Result<ContentDigest, LinkFault> {
        let (name, document, digest) = (repository(name), document(bytes), digest(bytes));
        let mut change = self.store.begin().await.unwrap();
        change.hold(digest, now).await.unwrap();
        change.commit().await.unwrap();
        self.blobs.put_as(digest, bytes.to_vec().into()).await.unwrap();
        let mut change = self.store.begin().await.unwrap();
        if let Some(fault) = change.check_links(&name, &document, now).await.unwrap() {
            return Err(fault);
        }
        change.add_manifest(&name, (digest, bytes.len() as u64), &document, now).await.unwrap();
        if let Some(tag) = tag {
            change.set_tag(&name, tag, digest).await.unwrap();
        }
        change.commit().await.unwrap();
        Ok(digest)
    }

    async fn remove_manifest(&self, name: &str, digest: ContentDigest, now: UnixMillis) -> bool {
        let mut change = self.store.begin().await.unwrap();
        let is_gone = change.remove_manifest(&repository(name), digest, now).await.unwrap();
        change.commit().await.unwrap();
        is_gone
    }

    async fn in_use(&self, digest: impl Into<ContentDigest>) -> Option<InUse> {
        let mut change = self.store.begin().await.unwrap();
        change.in_use(&Repository::from(&digits()), digest.into()).await.unwrap()
    }

    async fn has_blob(&self, name: &str, digest: ContentDigest) -> bool {
        self.store.blob(&repository(name), digest).await.unwrap().is_some()
    }

    async fn has_bytes(&self, digest: ContentDigest) -> bool {
        self.blobs.size(digest).await.unwrap().is_some()
    }

    /// Cleans up until nothing is left to do; whatever becomes loose goes once it was loose for long enough.
    async fn sweep(&self, now: UnixMillis) {
        for later in [0, 3 * HOUR_MS] {
            self.sweeper.sweep(now.plus(later)).await.unwrap();
        }
    }
}

pub(super) async fn tags_come_in_the_order_of_their_bytes(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    assert_eq!(shelf.store.tags(&repository("a/b"), "", 9).await.unwrap(), None);
    shelf.push_blob("a/b", "x", NOW).await;
    for tag in ["b", "B", "a10", "a_1", "a2"] {
        shelf.push_manifest("a/b", &manifest(&["x"], ""), Some(tag), NOW).await.unwrap();
    }

    let tags = async |last: &str, limit| {
        shelf.store.tags(&repository("a/b"), last, limit).await.unwrap().unwrap()
    };

    assert_eq!(tags("", 9).await, ["B", "a10", "a2", "a_1", "b"]);
    assert_eq!(tags("a10", 2).await, ["a2", "a_1"]);
    assert_eq!(tags("b", 2).await, [""; 0]);
}

pub(super) async fn a_manifest_needs_what_it_names(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    let (x, y) = (digest(b"x"), digest(b"yy"));
    let bytes = manifest(&["x", "yy"], "");
    assert_eq!(
        shelf.push_manifest("a/b", &bytes, None, NOW).await,
        Err(LinkFault::Missing(x.min(y)))
    );
    shelf.push_blob("a/b", "x", NOW).await;
    shelf.push_blob("other", "yy", NOW).await;
    assert_eq!(shelf.push_manifest("a/b", &bytes, None, NOW).await, Err(LinkFault::Missing(y)));

    let mut change = ground.store.begin().await.unwrap();
    let mounted = change.touch_blob(None, y, NOW).await.unwrap();
    assert_eq!(mounted, Some(2));
    change.add_blob(&repository("a/b"), y, 3, NOW).await.unwrap();
    change.commit().await.unwrap();

    let wrong = LinkFault::Size { digest: y, given: 3, said: 2 };
    assert_eq!(shelf.push_manifest("a/b", &bytes, None, NOW).await, Err(wrong));
    let (name, reference) = (repository("a/b"), Reference::Digest(digest(&bytes)));
    assert_eq!(shelf.store.manifest(&name, &reference).await.unwrap(), None);
}

pub(super) async fn referrers_are_found_by_subject_and_kind(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    shelf.push_blob("a/b", "x", NOW).await;
    let subject = digest(b"about");
    let about = format!(r#","subject":{{"mediaType":"a/b","digest":"{subject}","size":5}}"#);
    let mut expected = BTreeMap::new();
    for kind in ["k/one", "k/two", "k/two2"] {
        let more = format!(r#"{about},"artifactType":"{kind}","annotations":{{"n":"{kind}"}}"#);
        let digest = shelf.push_manifest("a/b", &manifest(&["x"], &more), None, NOW).await.unwrap();
        expected.insert(digest.to_string(), kind);
    }
    shelf.push_manifest("a/b", &manifest(&["x"], ""), None, NOW).await.unwrap();

    let ask = async |artifact_type, after: &str, limit| {
        let query = ReferrerQuery { subject, artifact_type, after, limit };
        shelf.store.referrers(&repository("a/b"), query).await.unwrap()
    };

    let all = ask(None, "", 9).await;
    let found: Vec<_> = all.iter().map(|referrer| referrer.manifest.digest.to_string()).collect();
    assert!(found.iter().eq(expected.keys()));
    for referrer in &all {
        let kind = expected[&referrer.manifest.digest.to_string()];
        assert_eq!(referrer.artifact_type.as_deref(), Some(kind));
        assert_eq!(referrer.annotations["n"], kind);
    }
    assert_eq!(ask(Some("k/two"), "", 9).await.len(), 1);
    assert_eq!(ask(None, &found[0], 1).await, all[1..2]);
}

pub(super) async fn an_upload_goes_on_only_where_it_is(ground: Ground) {
    let store = &ground.store;
    let mut change = store.begin().await.unwrap();
    change.add_upload(Some(&repository("a/b")), "u1", ("ann", NOW)).await.unwrap();
    change.commit().await.unwrap();
    let add = async |start, size, name, parts_max| {
        let mut change = store.begin().await.unwrap();
        let part = NewPart { start, size, name };
        let is_added = change.add_upload_part("u1", part, parts_max, NOW).await.unwrap();
        change.commit().await.unwrap();
        is_added
    };

    assert!(add(0, 7, "a", 3).await);
    assert!(!add(0, 7, "b", 3).await, "the same place twice");
    assert!(!add(8, 7, "c", 3).await, "a gap");
    assert!(add(7, 3, "d", 3).await);
    assert!(!add(10, 1, "e", 2).await, "too many parts");

    let upload = store.upload(&repository("a/b"), "u1").await.unwrap().unwrap();
    assert_eq!(upload.bytes, 10);
    assert_eq!(store.upload(&repository("other"), "u1").await.unwrap(), None);
    assert_eq!(store.upload_parts("u1").await.unwrap(), ["a", "d"]);
    assert_eq!(store.uploads_under_way().await.unwrap(), (1, 10));
    let mut change = store.begin().await.unwrap();
    assert!(change.end_upload("u1").await.unwrap());
    assert!(!change.end_upload("u1").await.unwrap());
    change.commit().await.unwrap();
    assert_eq!(store.upload_parts("u1").await.unwrap(), [""; 0]);
}

pub(super) async fn abandoned_uploads_are_removed(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    for (id, at) in [("old", NOW), ("fresh", NOW.plus(20 * HOUR_MS))] {
        let mut change = shelf.store.begin().await.unwrap();
        change.add_upload(Some(&repository("a/b")), id, ("ann", at)).await.unwrap();
        change.commit().await.unwrap();
        shelf.blobs.put_part(id, "0", "bytes".into()).await.unwrap();
    }
    shelf.blobs.put_part("ended", "0", "left by a crash".into()).await.unwrap();

    shelf.sweep(NOW.plus(25 * HOUR_MS)).await;

    assert_eq!(shelf.blobs.uploads().await.unwrap(), ["fresh".to_owned()].into());
    assert!(!shelf.store.is_upload("old").await.unwrap());
    assert!(shelf.store.is_upload("fresh").await.unwrap());
}

pub(super) async fn only_what_nothing_names_is_cleaned_up(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    for content in ["named", "untagged", "loose", "shared"] {
        shelf.push_blob("a/b", content, NOW).await;
    }
    shelf.push_blob("other", "shared", NOW).await;
    shelf.push_manifest("a/b", &manifest(&["named"], ""), Some("1"), NOW).await.unwrap();
    shelf.push_manifest("a/b", &manifest(&["untagged"], ""), None, NOW).await.unwrap();
    shelf.push_manifest("other", &manifest(&["shared"], ""), None, NOW).await.unwrap();
    let later = NOW.plus(25 * HOUR_MS);
    shelf.push_blob("a/b", "fresh", later).await;

    shelf.sweep(NOW.plus(20 * HOUR_MS)).await;
    assert!(shelf.has_blob("a/b", digest(b"loose")).await, "within the time of grace");
    shelf.sweep(later).await;

    for content in ["named", "untagged", "fresh"] {
        let digest = digest(content.as_bytes());
        assert!(shelf.has_blob("a/b", digest).await && shelf.has_bytes(digest).await, "{content}");
    }
    assert!(!shelf.has_blob("a/b", digest(b"loose")).await);
    assert!(!shelf.has_bytes(digest(b"loose")).await);
    assert!(!shelf.has_blob("a/b", digest(b"shared")).await, "nothing there names it");
    assert!(shelf.has_bytes(digest(b"shared")).await, "another repository does");
    assert_eq!(shelf.sweeper.sweep(later).await.unwrap(), Swept::default());
}

pub(super) async fn a_deleted_manifest_frees_what_it_named(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    let blob = shelf.push_blob("a/b", "x", NOW).await;
    let bytes = manifest(&["x"], "");
    let named = shelf.push_manifest("a/b", &bytes, Some("1"), NOW).await.unwrap();
    let later = NOW.plus(48 * HOUR_MS);

    assert!(shelf.remove_manifest("a/b", named, later).await);
    assert!(!shelf.remove_manifest("a/b", named, later).await);
    let tags = shelf.store.tags(&repository("a/b"), "", 9).await.unwrap();
    assert_eq!(tags, Some(Vec::new()));
    assert!(shelf.has_bytes(named).await, "its bytes stay for a while");

    shelf.sweep(later).await;
    assert!(!shelf.has_bytes(named).await && !shelf.has_bytes(blob).await);
}

/// A push may find a blob that is just taken out of its repository, or whose bytes are just being removed. Whoever comes first, a blob that a
/// manifest names has its bytes.
pub(super) async fn cleaning_up_takes_nothing_from_a_push(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    let blob = digest(b"x");
    let mut now = NOW;
    for round in 0..24 {
        shelf.push_blob("a/b", "x", now).await;
        now = now.plus(25 * HOUR_MS);
        if round % 2 == 1 {
            shelf.sweeper.sweep(now).await.unwrap();
            now = now.plus(3 * HOUR_MS);
        }
        let bytes = manifest(&["x"], &format!(r#","annotations":{{"round":"{round}"}}"#));

        let pusher = async {
            match shelf.push_manifest("a/b", &bytes, None, now).await {
                Ok(digest) => digest,
                Err(fault) => {
                    assert_eq!(fault, LinkFault::Missing(blob), "told, so that it is sent again");
                    shelf.push_blob("a/b", "x", now).await;
                    shelf.push_manifest("a/b", &bytes, None, now).await.unwrap()
                }
            }
        };
        let (swept, kept) = tokio::join!(shelf.sweeper.sweep(now), pusher);

        swept.unwrap();
        shelf.sweep(now.plus(48 * HOUR_MS)).await;
        assert!(shelf.has_blob("a/b", blob).await, "round {round}");
        assert!(shelf.has_bytes(blob).await, "round {round}");
        assert!(shelf.has_bytes(kept).await, "round {round}");
        now = now.plus(100 * HOUR_MS);
        assert!(shelf.remove_manifest("a/b", kept, now).await);
    }
}

pub(super) async fn manifests_of_an_older_server_are_read_before_anything_goes(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    let blob = shelf.push_blob("a/b", "x", NOW).await;
    let bytes = manifest(&["x"], "");
    let old = shelf.push_manifest("a/b", &bytes, None, NOW).await.unwrap();
    let mut change = shelf.store.begin().await.unwrap();
    for statement in [
        "UPDATE manifests SET described = 0 WHERE tenant = $1",
        "DELETE FROM manifest_links WHERE tenant = $1",
    ] {
        change.run(statement, |it| it).await.unwrap();
    }
    change.commit().await.unwrap();

    shelf.sweep(NOW.plus(48 * HOUR_MS)).await;

    assert!(shelf.has_blob("a/b", blob).await && shelf.has_bytes(old).await);
    assert!(shelf.store.undescribed().await.unwrap().is_empty());
}

pub(super) async fn what_a_signed_or_deployed_version_needs_stays(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    ground.push("1").await;
    ground.push("2").await;
    let signed = InUse { version: version("1"), is_signed: true };
    assert_eq!(shelf.in_use(image("1").index).await, Some(signed));
    assert_eq!(shelf.in_use(image("3").index).await, None);

    let mut devices = ground.fleet(2).await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;
    let mut change = ground.store.begin().await.unwrap();
    for text in ["1", "2"] {
        change.set_endorsement(&(digits(), version(text)), None, NOW).await.unwrap();
    }
    change.commit().await.unwrap();

    let deployed = InUse { version: version("1"), is_signed: false };
    assert_eq!(shelf.in_use(image("1").index).await, Some(deployed));
    assert_eq!(shelf.in_use(image("2").index).await, None);
    let mut change = ground.store.begin().await.unwrap();
    change.unlist(&Repository::from(&digits()), image("2").index.into()).await.unwrap();
    change.commit().await.unwrap();
    let left = ground.store.versions(None).await.unwrap();
    assert_eq!(left[&digits()].len(), 1);
}

pub(super) async fn a_signed_version_is_not_taken_off_the_list(ground: Ground) {
    ground.push("1").await;
    let mut change = ground.store.begin().await.unwrap();
    let refused = change.unlist(&Repository::from(&digits()), image("1").index.into()).await;
    assert!(matches!(refused, Err(super::super::StoreError::Changed("version"))), "{refused:?}");
}

/// Contents below a version are needed as the version is: its manifests, and their blobs.
pub(super) async fn contents_of_a_signed_version_stay(ground: Ground) {
    let shelf = Shelf::on(&ground).await;
    let name = digits().to_string();
    let weights = shelf.push_blob(&name, "weights", NOW).await;
    let other = shelf.push_blob(&name, "other", NOW).await;
    let variant = manifest(&["weights"], "");
    let variant_digest = shelf.push_manifest(&name, &variant, None, NOW).await.unwrap();
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[
            {{"mediaType":"{MANIFEST}","digest":"{variant_digest}","size":{}}}]}}"#,
        variant.len()
    );
    let index_digest = shelf.push_manifest(&name, index.as_bytes(), Some("1"), NOW).await.unwrap();
    let row = ManifestRow {
        digest: index_digest.sha256().unwrap(),
        media_type: String::new(),
        size: index.len() as u64,
    };
    let facts = ImageFacts {
        version: version("1"),
        size_bytes: 1,
        family: String::new(),
        description: String::new(),
        licenses: Vec::new(),
        variants: Vec::new(),
        manifests: Vec::new(),
        contract: IoContract { schema: 1, ..IoContract::default() },
        baseline: None,
    };
    let mut change = ground.store.begin().await.unwrap();
    change.add_version(&digits(), &row, &facts, ("ann", NOW)).await.unwrap();
    assert_eq!(change.listed(&digits(), "1").await.unwrap(), index_digest.sha256());
    change.commit().await.unwrap();
    assert_eq!(shelf.in_use(weights).await, None, "nobody has signed it");
    for digest in [weights, variant_digest, index_digest, other] {
        let mut change = ground.store.begin().await.unwrap();
        change.unlist(&repository(&name), digest).await.unwrap();
        let listed = change.listed(&digits(), "1").await.unwrap();
        assert_eq!(listed.is_some(), digest == other, "what is not complete is not listed");
    }

    let endorsement = Endorsement { epoch: Epoch(1), by: Vec::new() };
    let mut change = ground.store.begin().await.unwrap();
    let name = (digits(), version("1"));
    assert!(change.set_endorsement(&name, Some(&endorsement), NOW).await.unwrap());
    change.commit().await.unwrap();

    for digest in [weights, variant_digest, index_digest] {
        assert!(shelf.in_use(digest).await.is_some_and(|in_use| in_use.is_signed), "{digest}");
    }
    assert_eq!(shelf.in_use(other).await, None);
}
