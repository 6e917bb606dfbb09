use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://id.example";
const NOW_S: i64 = 1_790_000_000;

struct Provider {
    key: EncodingKey,
    keys: JwkSet,
}

impl Provider {
    fn new(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Self { key, keys: JwkSet { keys: vec![jwk] } }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k1".to_owned());
        encode(&header, claims, &self.key).unwrap()
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "u-1", "aud": "sealift", "exp": NOW_S + 300, "iat": NOW_S, "nonce": "n-1",
        "preferred_username": "ann", "groups": ["ops", "all"], "auth_time": NOW_S,
    })
}

fn with(change: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn look(token: &str, keys: &JwkSet) -> Result<Claims, String> {
    let now = UnixMillis(NOW_S * 1_000);
    let expected = Expected { issuer: ISSUER, client_id: "sealift", nonce: Some("n-1"), now };
    verify(token, keys, &expected).map_err(|error| error.to_string())
}

#[test]
fn a_good_token_says_who_it_is() {
    let provider = Provider::new("k1");
    let claims = look(&provider.sign(&claims()), &provider.keys).unwrap();
    assert_eq!((claims.sub.as_str(), claims.auth_time), ("u-1", Some(NOW_S)));
    assert_eq!(claims.text("preferred_username"), Some("ann"));
    assert_eq!(claims.texts("groups"), ["ops", "all"]);
}

#[test]
fn a_token_for_another_login_audience_or_time_is_refused() {
    let provider = Provider::new("k1");
    for (change, why) in [
        (json!({"nonce": "n-2"}), "nonce"),
        (json!({"nonce": null}), "nonce"),
        (json!({"iss": "https://evil.example"}), "Issuer"),
        (json!({"aud": "other"}), "somebody else"),
        (json!({"aud": ["other", "sealift"]}), "somebody else"),
        (json!({"aud": ["other", "sealift"], "azp": "other"}), "somebody else"),
        (json!({"aud": "sealift", "azp": "other"}), "somebody else"),
        (json!({"exp": NOW_S - 61}), "expired"),
        (json!({"exp": null}), "exp"),
        (json!({"iat": NOW_S + 61}), "not good yet"),
        (json!({"nbf": NOW_S + 61}), "not good yet"),
        (json!({"iat": NOW_S - 601}), "too old"),
        (json!({"sub": null}), "sub"),
        (json!({"exp": "soon"}), "expected i64"),
    ] {
        let refused = look(&provider.sign(&with(&change)), &provider.keys).unwrap_err();
        assert!(refused.contains(why), "{change}: {refused}");
    }
    let several = with(&json!({"aud": ["other", "sealift"], "azp": "sealift"}));
    assert!(look(&provider.sign(&several), &provider.keys).is_ok());
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let provider = Provider::new("k1");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for header in [json!({"alg": "none"}), json!({"alg": "None", "kid": "k1"}), json!({})] {
        let token = format!("{}.{}.", part(&header), part(&claims()));
        assert!(look(&token, &provider.keys).is_err(), "{header}");
    }
    let signed = provider.sign(&claims());
    let (body, _) = signed.rsplit_once('.').unwrap();
    assert!(look(&format!("{body}."), &provider.keys).is_err());
    assert!(look("", &provider.keys).is_err() && look("a.b.c", &provider.keys).is_err());
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    // RFC 8725, 2.1: RS256 or ES256 turned into HS256, with the public key as the secret.
    let provider = Provider::new("k1");
    let public = serde_json::to_vec(&provider.keys.keys[0]).unwrap();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("k1".to_owned());
    let token = encode(&header, &claims(), &EncodingKey::from_secret(&public)).unwrap();

    assert!(look(&token, &provider.keys).unwrap_err().contains("no algorithm"));
}

#[test]
fn another_key_and_a_changed_body_are_refused() {
    let (provider, other) = (Provider::new("k1"), Provider::new("k1"));
    assert!(look(&other.sign(&claims()), &provider.keys).is_err());

    let signed = provider.sign(&claims());
    let parts: Vec<_> = signed.split('.').collect();
    let body = URL_SAFE_NO_PAD.encode(with(&json!({"groups": ["admins"]})).to_string());
    assert!(look(&format!("{}.{body}.{}", parts[0], parts[2]), &provider.keys).is_err());
}

#[test]
fn a_key_for_something_else_is_not_used() {
    let mut provider = Provider::new("k1");
    let token = provider.sign(&claims());
    provider.keys.keys[0].common.public_key_use = Some(PublicKeyUse::Encryption);
    assert!(look(&token, &provider.keys).unwrap_err().contains("no key"));

    let provider = Provider::new("k2");
    assert!(!has_key(&token, &provider.keys).unwrap());
    assert!(look(&token, &provider.keys).unwrap_err().contains("no key"));
}

#[test]
fn what_the_user_info_adds_is_about_the_same_person() {
    let of = |value: Value| serde_json::from_value::<Claims>(value).unwrap();
    let told = of(json!({"sub": "u-1", "groups": ["ops"]}));
    let merged = of(json!({"sub": "u-1"})).with(told.clone()).unwrap();
    assert!(merged.has("groups") && merged.texts("groups") == ["ops"]);
    assert!(of(json!({"sub": "u-2"})).with(told).is_none());
}
