//! ID tokens: OpenID Connect Core 1.0, 3.1.3.7; RFC 7519; RFC 8725. Decides from values.

use std::collections::BTreeMap;

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sealift_protocol::id::UnixMillis;
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::OidcError;

/// Clocks of the two servers may differ by this much.
const LEEWAY_S: i64 = 60;
/// An ID token is made for the login that it answers; one that is older comes from somewhere else.
const AGE_MAX_S: i64 = 10 * 60;
/// Groups that are looked at.
const GROUPS_MAX: usize = 1_000;

/// RFC 8725, 3.1 and 3.2: the algorithms are ours to choose. Rule: signatures by a private key that only the provider has; never `none`, and
/// never a secret that this server knows as well.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What must stand in an ID token.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    /// None for a device: there is no browser that a token could be put into.
    pub(super) nonce: Option<&'a str>,
    pub(super) now: UnixMillis,
}

/// Who has logged in, as the provider says.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Claims {
    /// Names the person, for ever, at this provider.
    pub(crate) sub: String,
    /// When they last showed who they are, in seconds.
    #[serde(default)]
    pub(crate) auth_time: Option<i64>,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Frame {
    aud: Audience,
    #[serde(default)]
    azp: Option<String>,
    exp: i64,
    iat: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(flatten)]
    claims: Claims,
}

impl Claims {
    /// Whether there is such a claim.
    pub(super) fn has(&self, name: &str) -> bool {
        name == "sub" || self.more.contains_key(name)
    }

    /// These, and what `other` says besides; none if it is about somebody else.
    pub(super) fn with(mut self, other: Self) -> Option<Self> {
        if other.sub != self.sub {
            return None;
        }
        for (name, value) in other.more {
            self.more.entry(name).or_insert(value);
        }
        Some(self)
    }

    /// A claim that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        if name == "sub" { Some(&self.sub) } else { self.more.get(name)?.as_str() }
    }

    /// A claim that is a list of texts, or one.
    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        match self.more.get(name) {
            Some(Value::Array(values)) => {
                values.iter().take(GROUPS_MAX).filter_map(Value::as_str).collect()
            }
            Some(Value::String(text)) => vec![text],
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
                Vec::new()
            }
        }
    }
}

fn refused(why: impl Into<String>) -> OidcError {
    OidcError::Token(why.into())
}

/// Whether the key that an ID token names is among `keys`.
pub(super) fn has_key(token: &str, keys: &JwkSet) -> Result<bool, OidcError> {
    let header = decode_header(token).map_err(|error| refused(error.to_string()))?;
    Ok(header.kid.is_none_or(|kid| keys.find(&kid).is_some()))
}

/// Checks an ID token: first the signature, then what it says.
pub(super) fn verify(
    token: &str,
    keys: &JwkSet,
    expected: &Expected<'_>,
) -> Result<Claims, OidcError> {
    let header = decode_header(token).map_err(|error| refused(error.to_string()))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(refused(format!("{:?} is no algorithm for it", header.alg)));
    }
    let key = key(keys, header.kid.as_deref(), header.alg)?;
    let mut validation = Validation::new(header.alg);
    // Times are checked below against the `now` of this login, audiences with their rule for several.
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[expected.issuer]);
    let key = DecodingKey::from_jwk(key).map_err(|error| refused(error.to_string()))?;
    let decoded = decode::<Frame>(token, &key, &validation);
    let frame = decoded.map_err(|error| refused(error.to_string()))?.claims;
    check_audience(&frame, expected.client_id)?;
    check_times(&frame, expected.now)?;
    check_nonce(frame.nonce.as_deref(), expected.nonce)?;
    Ok(frame.claims)
}

/// RFC 8725, 3.1: a key is used for one algorithm. Rule: it is of the right kind, meant for signatures, and, where it says so, for this one.
fn key<'a>(
    keys: &'a JwkSet,
    kid: Option<&str>,
    algorithm: Algorithm,
) -> Result<&'a Jwk, OidcError> {
    let is_usable = |key: &&Jwk| {
        let common = &key.common;
        let is_named = kid.is_none_or(|kid| common.key_id.as_deref() == Some(kid));
        let is_for_signatures =
            common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
        let is_for_this = common
            .key_algorithm
            .is_none_or(|it| it.to_string().parse::<Algorithm>().is_ok_and(|it| it == algorithm));
        is_named && is_for_signatures && is_for_this
    };
    let mut usable = keys.keys.iter().filter(is_usable);
    match (usable.next(), usable.next()) {
        (Some(key), None) => Ok(key),
        // OpenID Connect Core, 10.1: with several keys the token says which.
        (Some(_), Some(_)) => Err(refused("it does not say which of several keys has signed it")),
        (None, _) => Err(refused("the provider has no key of that name for that algorithm")),
    }
}

/// OpenID Connect Core, 3.1.3.7, 3 to 5: we are an audience; of several, the one that it was made for.
fn check_audience(frame: &Frame, client_id: &str) -> Result<(), OidcError> {
    let (is_ours, is_alone) = match &frame.aud {
        Audience::One(one) => (one == client_id, true),
        Audience::Many(many) => (many.iter().any(|it| it == client_id), many.len() == 1),
    };
    let is_for_us = frame.azp.as_deref().map_or(is_alone, |azp| azp == client_id);
    if is_ours && is_for_us { Ok(()) } else { Err(refused("it was made for somebody else")) }
}

/// OpenID Connect Core, 3.1.3.7, 9 and 10; RFC 7519, 4.1.5.
fn check_times(frame: &Frame, now: UnixMillis) -> Result<(), OidcError> {
    let now_s = now.0.div_euclid(1_000);
    if now_s >= frame.exp.saturating_add(LEEWAY_S) {
        return Err(refused("it has expired"));
    }
    let latest = now_s.saturating_add(LEEWAY_S);
    if frame.iat > latest || frame.nbf.is_some_and(|nbf| nbf > latest) {
        return Err(refused("it is not good yet"));
    }
    if now_s.saturating_sub(frame.iat) > AGE_MAX_S {
        return Err(refused("it is too old"));
    }
    Ok(())
}

/// OpenID Connect Core, 3.1.3.7, 11: a token of another login is refused.
fn check_nonce(found: Option<&str>, expected: Option<&str>) -> Result<(), OidcError> {
    let Some(expected) = expected else { return Ok(()) };
    let found = found.unwrap_or_default();
    if bool::from(found.as_bytes().ct_eq(expected.as_bytes())) {
        return Ok(());
    }
    Err(refused("its nonce is of another login"))
}

#[cfg(test)]
mod tests;
