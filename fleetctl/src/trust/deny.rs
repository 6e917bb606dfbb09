//! The deny list: read, added to and signed here, with a key that never leaves this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use sealift_protocol::api::{RevocationKind, VersionView};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::tuf::bundle::{Revocations, TrustBundle};
use sealift_protocol::tuf::client::Want;
use sealift_protocol::tuf::key::{KeyId, SigningKey};
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::repository::TargetsDraft;
use sealift_protocol::tuf::{BUNDLE_PATH, REVOCATIONS_PATH, REVOCATIONS_ROLE, Role, model_path};
use serde::Serialize;

use super::{DAY_MS, Trust, fetch, now, read_key};
use crate::client::{Client, send};

/// What is to be denied.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Version(ModelName, Version),
    Image(Digest),
    Director(String),
    Device(String),
}

/// An addition to the deny list, or a removal from it.
pub(crate) struct Denial {
    pub(crate) subject: Subject,
    /// Takes it off the list again.
    pub(crate) is_lifted: bool,
    pub(crate) reason: String,
    pub(crate) keys: Vec<PathBuf>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) expires_days: u32,
}

/// What was signed and handed in.
#[derive(Debug, Serialize)]
pub(crate) struct Denied {
    pub(crate) kind: RevocationKind,
    pub(crate) subject: String,
    pub(crate) metadata_version: u64,
    pub(crate) images: usize,
    pub(crate) directors: usize,
    pub(crate) devices: usize,
}

#[derive(Serialize)]
struct Upload<'a> {
    metadata: String,
    files: BTreeMap<&'a str, String>,
    reason: &'a str,
}

/// Signs the next deny list and hands it in. The server gets signed bytes, never a key.
///
/// The list before is taken as it was signed by the keys given, expired or not: in an emergency nobody shall have to renew it first.
pub(crate) async fn deny(client: &Client, denial: &Denial) -> anyhow::Result<Denied> {
    let keys = denial.keys.iter().map(|path| read_key(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut trust = Trust::open(client, denial.root.as_deref()).await?;
    trust.update_top(client).await?;
    let current = trust.newest(client, REVOCATIONS_ROLE).await?;
    let public: Vec<_> = keys.iter().map(SigningKey::public).collect();
    let role = Role::Delegated(REVOCATIONS_ROLE.to_owned());
    let mut draft = TargetsDraft::next(role, current, &public).with_context(|| {
        format!("the present deny list is not signed by the keys given; is it a key of the role {REVOCATIONS_ROLE}?")
    })?;
    let mut list = present_list(client, &draft).await?;
    let (kind, subject) = change(client, &mut trust, denial, &mut list).await?;
    let bytes = list.to_bytes();
    Revocations::parse(&bytes)?;
    draft.set(REVOCATIONS_PATH, TargetFile::of(&bytes));
    let metadata_version = draft.version();
    let expires = now().plus(i64::from(denial.expires_days) * DAY_MS);
    let metadata = draft.sign(expires, &keys.iter().collect::<Vec<_>>())?;
    let upload = Upload {
        metadata: STANDARD.encode(metadata),
        files: BTreeMap::from([(REVOCATIONS_PATH, STANDARD.encode(&bytes))]),
        reason: &denial.reason,
    };
    let request = client
        .request(Method::PUT, &format!("/api/v1/trust/roles/{REVOCATIONS_ROLE}"))?
        .header("content-type", "application/vnd.sealift.trust-upload+json")
        .body(serde_json::to_vec(&upload)?);
    send(request).await?;
    let (images, directors) = (list.images.len(), list.directors.len());
    let devices = list.devices.len();
    Ok(Denied { kind, subject, metadata_version, images, directors, devices })
}

/// The list that the present metadata name, with their digest.
async fn present_list(client: &Client, draft: &TargetsDraft) -> anyhow::Result<Revocations> {
    let Some(entry) = draft.targets().get(REVOCATIONS_PATH) else {
        return Ok(Revocations::default());
    };
    let file = format!("targets/{}", entry.location(REVOCATIONS_PATH, true));
    let bytes = fetch(client, &file).await?.context("the server has lost the deny list")?;
    entry.check(REVOCATIONS_PATH, &bytes)?;
    Ok(Revocations::parse(&bytes)?)
}

/// Puts the subject on the list, or takes it off.
async fn change(
    client: &Client,
    trust: &mut Trust,
    denial: &Denial,
    list: &mut Revocations,
) -> anyhow::Result<(RevocationKind, String)> {
    let is_lifted = denial.is_lifted;
    let (kind, subject, is_news) = match &denial.subject {
        Subject::Version(model, version) => {
            let digest = digest_of(client, trust, model, version).await?;
            let is_news = toggle(&mut list.images, digest, is_lifted);
            (RevocationKind::Image, digest.to_string(), is_news)
        }
        Subject::Image(digest) => {
            let is_news = toggle(&mut list.images, *digest, is_lifted);
            (RevocationKind::Image, digest.to_string(), is_news)
        }
        Subject::Director(text) => {
            let keyid = director(client, trust, text, list).await?;
            let is_news = toggle(&mut list.directors, keyid.clone(), is_lifted);
            (RevocationKind::Director, keyid.to_string(), is_news)
        }
        Subject::Device(serial) => {
            let serial = serial_number(serial)?;
            let is_news = toggle(&mut list.devices, serial.clone(), is_lifted);
            (RevocationKind::Device, serial, is_news)
        }
    };
    let standing =
        if is_lifted { "is not on the deny list" } else { "is on the deny list already" };
    ensure!(is_news, "{subject} {standing}");
    Ok((kind, subject))
}

fn toggle<T: Ord>(list: &mut std::collections::BTreeSet<T>, entry: T, is_lifted: bool) -> bool {
    if is_lifted { list.remove(&entry) } else { list.insert(entry) }
}

/// The digest that the publisher signed; of a version whose signature has expired, the one that the server names.
async fn digest_of(
    client: &Client,
    trust: &mut Trust,
    model: &ModelName,
    version: &Version,
) -> anyhow::Result<Digest> {
    let target = model_path(model, version);
    trust.client.want(Want::Entry(target.clone()));
    if trust.follow(client).await.is_ok()
        && let Ok(entry) = trust.client.target(&target)
        && let Some(digest) = entry.digest()
    {
        return Ok(digest);
    }
    let view: VersionView = client.get(&format!("models/{model}/versions/{version}"), &[]).await?;
    Ok(view.digest)
}

/// The full id of a director's key, of which the beginning is enough.
async fn director(
    client: &Client,
    trust: &mut Trust,
    text: &str,
    list: &Revocations,
) -> anyhow::Result<KeyId> {
    trust.client.want(Want::File(BUNDLE_PATH.to_owned()));
    trust.follow(client).await?;
    let bytes = trust.client.file(BUNDLE_PATH).context("there is no trust bundle")?;
    let bundle = TrustBundle::parse(bytes)?;
    let known = bundle.directors.iter().map(|director| director.keyid().clone());
    let known: Vec<_> = known.chain(list.directors.iter().cloned()).collect();
    let meant: std::collections::BTreeSet<_> =
        known.iter().filter(|keyid| keyid.to_string().starts_with(text)).collect();
    if let [only] = Vec::from_iter(meant).as_slice()
        && text.len() >= KEYID_CHARS_MIN
    {
        return Ok((*only).clone());
    }
    let known: Vec<_> = known.iter().map(ToString::to_string).collect();
    bail!("`{text}` does not name one director; these are trusted: {}", known.join(", "))
}

/// Fewer would be a guess.
const KEYID_CHARS_MIN: usize = 8;

/// A serial number as tools print it, in the form of the list: lower-case hex without colons and leading zeros.
fn serial_number(text: &str) -> anyhow::Result<String> {
    let serial: String = text.chars().filter(|c| *c != ':').collect();
    let is_hex = !serial.is_empty() && serial.chars().all(|c| c.is_ascii_hexdigit());
    ensure!(is_hex, "`{text}` is not the serial number of a certificate, in hex");
    Ok(serial.to_lowercase().trim_start_matches('0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_read_as_tools_print_them() {
        assert_eq!(serial_number("0A:1B:2c").unwrap(), "a1b2c");
        assert!(serial_number("cam-1").is_err());
        assert!(serial_number("").is_err());
    }
}
