//! The deny list: read, added to and signed here, with a key that never leaves this machine.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use sealift_protocol::api::{RevocationKind, VersionView};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::tuf::bundle::Revocations;
use sealift_protocol::tuf::key::KeyId;
use sealift_protocol::tuf::{model_path, publisher_role};
use serde::Serialize;

use super::edit;
use super::publish::{Holding, Outcome};
use super::view::View;
use crate::client::Client;

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
    pub(crate) holding: Holding,
}

/// What was signed, and what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Denied {
    pub(crate) kind: RevocationKind,
    pub(crate) subject: String,
    pub(crate) images: usize,
    pub(crate) directors: usize,
    pub(crate) devices: usize,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// Signs the next deny list and hands it in. The server gets signed bytes, never a key.
///
/// An expired list is followed too: in an emergency nobody shall have to renew it first.
pub(crate) async fn deny(client: &Client, denial: &Denial) -> anyhow::Result<Denied> {
    let listed = match &denial.subject {
        Subject::Version(model, version) => {
            let path = format!("models/{model}/versions/{version}");
            Some(client.get::<VersionView>(&path, &[]).await?.digest)
        }
        Subject::Image(_) | Subject::Director(_) | Subject::Device(_) => None,
    };
    let signed = RefCell::new(None);
    let draft = |view: &View, now| {
        let mut list = view.revocations.clone();
        let (kind, subject) = change(view, listed, denial, &mut list)?;
        let change = edit::deny(view, &list, now)?;
        signed.replace(Some((kind, subject, list)));
        Ok(Some(change))
    };
    let outcome = denial.holding.carry_out(client, Some(&denial.reason), draft).await?;
    let (kind, subject, list) = signed.into_inner().context("nothing was signed")?;
    let (images, directors, devices) =
        (list.images.len(), list.directors.len(), list.devices.len());
    Ok(Denied { kind, subject, images, directors, devices, outcome })
}

/// Puts the subject on the list, or takes it off.
fn change(
    view: &View,
    listed: Option<Digest>,
    denial: &Denial,
    list: &mut Revocations,
) -> anyhow::Result<(RevocationKind, String)> {
    let is_lifted = denial.is_lifted;
    let (kind, subject, is_news) = match &denial.subject {
        Subject::Version(model, version) => {
            let digest = signed_digest(view, model, version).or(listed);
            let digest = digest.with_context(|| format!("there is no {model}@{version}"))?;
            let is_news = toggle(&mut list.images, digest, is_lifted);
            (RevocationKind::Image, digest.to_string(), is_news)
        }
        Subject::Image(digest) => {
            let is_news = toggle(&mut list.images, *digest, is_lifted);
            (RevocationKind::Image, digest.to_string(), is_news)
        }
        Subject::Director(text) => {
            let keyid = director(view, text, list)?;
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

fn toggle<T: Ord>(list: &mut BTreeSet<T>, entry: T, is_lifted: bool) -> bool {
    if is_lifted { list.remove(&entry) } else { list.insert(entry) }
}

/// The digest that the publisher signed; of a version that nobody has signed, or not any more, the server's word has to do.
fn signed_digest(view: &View, model: &ModelName, version: &Version) -> Option<Digest> {
    let of_team = view.roles.get(&publisher_role(model.team()))?;
    of_team.targets.get(&model_path(model, version))?.digest()
}

/// The full id of a director's key, of which the beginning is enough.
fn director(view: &View, text: &str, list: &Revocations) -> anyhow::Result<KeyId> {
    let known = view.bundle.directors.iter().map(|director| director.keyid().clone());
    let known: Vec<_> = known.chain(list.directors.iter().cloned()).collect();
    let meant: BTreeSet<_> =
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
    ensure!(is_hex, "`{text}` is neither a device nor the serial number of a certificate, in hex");
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
