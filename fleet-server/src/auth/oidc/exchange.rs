//! What is asked of the provider, and how its answers are read: bounded, and as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use sealift_protocol::id::UnixMillis;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{ANSWER_BYTES_MAX, Claims, Metadata, OidcError, Provider, encoded, id_token, parse};

/// OpenID Connect Core, 3.1.3.3.
#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    #[serde(default)]
    access_token: Option<String>,
}

/// RFC 6749, 5.2.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Provider {
    /// Turns the code of an answer into who has logged in.
    pub(super) async fn with_code(
        &self,
        code: &str,
        (verifier, nonce): (&str, &str),
        now: UnixMillis,
    ) -> Result<Claims, OidcError> {
        let form = [
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", self.settings.redirect.clone()),
            ("code_verifier", verifier.to_owned()),
        ];
        self.tokens(&form, Some(nonce), now).await
    }

    /// Asks whether somebody has confirmed for a device. RFC 8628, 3.4.
    pub(super) async fn with_device_code(
        &self,
        code: &str,
        now: UnixMillis,
    ) -> Result<Claims, OidcError> {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code".to_owned()),
            ("device_code", code.to_owned()),
        ];
        self.tokens(&form, None, now).await
    }

    async fn tokens(
        &self,
        form: &[(&str, String)],
        nonce: Option<&str>,
        now: UnixMillis,
    ) -> Result<Claims, OidcError> {
        let mut known = self.known(now).await?;
        let endpoint = known.metadata.token_endpoint.clone();
        let tokens: Tokens = self.post(&known.metadata, &endpoint, form).await?;
        if !id_token::has_key(&tokens.id_token, &known.keys)? {
            // The provider has changed its keys.
            known = self.known_anew(&known, now).await?;
        }
        let expected = id_token::Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce,
            now,
        };
        let claims = id_token::verify(&tokens.id_token, &known.keys, &expected)?;
        let has_all =
            claims.has(&self.settings.groups_claim) && claims.has(&self.settings.name_claim);
        match (&known.metadata.userinfo_endpoint, tokens.access_token) {
            (Some(endpoint), Some(access)) if !has_all => {
                let more: Claims = self.get(endpoint, Some(&access)).await?;
                // OpenID Connect Core, 5.3.2: the answer may be about somebody else. Rule: the subject must be the ID token's.
                claims.with(more).ok_or_else(|| {
                    OidcError::Token("the user info is about somebody else".to_owned())
                })
            }
            _ => Ok(claims),
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        address: &str,
        access: Option<&str>,
    ) -> Result<T, OidcError> {
        let mut request = self.http.get(parse(address)?).header(ACCEPT, "application/json");
        if let Some(access) = access {
            request = request.bearer_auth(access);
        }
        read(request).await
    }

    /// Posts a form in the name of this server. RFC 6749, 2.3.1.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        metadata: &Metadata,
        endpoint: &str,
        form: &[(&str, String)],
    ) -> Result<T, OidcError> {
        let id = &self.settings.client_id;
        let mut form = form.to_vec();
        let mut request = self.http.post(parse(endpoint)?).header(ACCEPT, "application/json");
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let takes_basic =
            methods.is_empty() || methods.iter().any(|it| it == "client_secret_basic");
        match &self.settings.client_secret {
            Some(secret) if takes_basic => {
                let encode = |text: &str| {
                    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>()
                };
                let pair = STANDARD.encode(format!("{}:{}", encode(id), encode(secret)));
                request = request.header(AUTHORIZATION, format!("Basic {pair}"));
            }
            Some(secret) => {
                form.push(("client_id", id.clone()));
                form.push(("client_secret", secret.clone()));
            }
            None => form.push(("client_id", id.clone())),
        }
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        read(request.body(encoded(&form))).await
    }
}

async fn read<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, OidcError> {
    let unusable = |error: reqwest::Error| OidcError::Provider(error.without_url().to_string());
    let response = request.send().await.map_err(unusable)?;
    let status = response.status();
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(part) = stream.next().await {
        body.extend_from_slice(&part.map_err(unusable)?);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(OidcError::Provider("its answer is too long".to_owned()));
        }
    }
    if status.is_success() {
        let read = serde_json::from_slice(&body);
        return read.map_err(|error| {
            OidcError::Provider(format!("its answer is not understood: {error}"))
        });
    }
    let Ok(Refusal { error, error_description }) = serde_json::from_slice(&body) else {
        return Err(OidcError::Provider(format!("it answers {status}")));
    };
    Err(match error.as_str() {
        "authorization_pending" => OidcError::Pending { slower: false },
        "slow_down" => OidcError::Pending { slower: true },
        _ => OidcError::Refused(format!("{error} {error_description}").trim().to_owned()),
    })
}
