//! The parts of the configuration that say who comes in, for how long, and what takes two people.

use std::fs;
use std::path::{Path, PathBuf};

use sealift_protocol::api::Role;
use serde::Deserialize;

use super::ConfigError;
use crate::auth::oidc::{self, CALLBACK, Grant, Settings};
use crate::reach::Reach;

/// A client's secret is a line.
const SECRET_BYTES_MAX: u64 = 4 << 10;
/// A session ends with the week.
const SESSION_S_MAX: u32 = 7 * 24 * 3_600;

/// How operators come in, and for how long.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// A session through which nothing came for this long has ended.
    pub session_idle_s: u32,
    /// A session ends after this long.
    pub session_s: u32,
    /// A rollback of more devices than this must be confirmed by the person who asks.
    pub step_up_rollback_devices: u64,
}

impl Default for Access {
    fn default() -> Self {
        Self { session_idle_s: 3_600, session_s: 12 * 3_600, step_up_rollback_devices: 100 }
    }
}

/// What somebody else must approve.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// Which rollouts.
    pub rollouts: Approval,
}

/// Which rollouts somebody else must approve. Going back never waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// None.
    #[default]
    Never,
    /// What comes after the first wave; all of it, if there is one wave only.
    OutsideCanary,
    /// All of it.
    Always,
}

/// The provider of identities.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// Its address, as it names itself.
    pub issuer: String,
    /// As whom it knows this server.
    pub client_id: String,
    /// A file with what it was told to know us by; none for a public client.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for besides `openid`.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// The claim with the operator's name.
    #[serde(default = "name_claim")]
    pub name_claim: String,
    /// The claim with the groups.
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    /// What each group may do. Somebody in several has the first.
    pub roles: Vec<GroupRole>,
}

/// What a group may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRole {
    /// The group.
    pub group: String,
    /// The role of its members.
    pub role: Role,
    /// Which devices, as a filter of labels; all if empty.
    #[serde(default)]
    pub scope: String,
}

fn scopes() -> Vec<String> {
    ["profile", "groups"].map(str::to_owned).to_vec()
}

fn name_claim() -> String {
    "preferred_username".to_owned()
}

fn groups_claim() -> String {
    "groups".to_owned()
}

fn rule<T>(text: String, help: &'static str) -> Result<T, ConfigError> {
    Err(ConfigError::Rule(text, help))
}

impl Access {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let is_possible = (60..=SESSION_S_MAX).contains(&self.session_s)
            && (60..=self.session_s).contains(&self.session_idle_s);
        if is_possible {
            return Ok(());
        }
        rule(
            "access.session_idle_s is not between 60 and access.session_s, or that is over a week"
                .to_owned(),
            "leave them out for an hour and twelve hours",
        )
    }
}

impl Oidc {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Err(error) = oidc::parse(&self.issuer) {
            return rule(format!("oidc.issuer: {error}"), "name the provider's https address");
        }
        for granted in &self.roles {
            if let Err(error) = Reach::parse(&granted.scope) {
                return rule(
                    format!("oidc.roles of {}: {error}", granted.group),
                    "give labels such as `site:osaka`, or leave the scope out",
                );
            }
        }
        if self.roles.is_empty() {
            return rule(
                "oidc.roles is empty, so that nobody could come in".to_owned(),
                "map a group: [[oidc.roles]] with group and role",
            );
        }
        Ok(())
    }

    /// What is needed at run time; `url` is where people reach this server.
    pub(crate) fn settings(&self, url: &str) -> Result<Settings, ConfigError> {
        let client_secret = self.client_secret_file.as_deref().map(read_secret).transpose()?;
        let grant = |it: &GroupRole| {
            let (group, scope) = (it.group.clone(), it.scope.clone());
            Grant { group, role: it.role, scope }
        };
        Ok(Settings {
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            client_secret,
            scopes: self.scopes.clone(),
            name_claim: self.name_claim.clone(),
            groups_claim: self.groups_claim.clone(),
            grants: self.roles.iter().map(grant).collect(),
            redirect: format!("{}{CALLBACK}", url.trim_end_matches('/')),
        })
    }
}

fn read_secret(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |error| ConfigError::Read(path.to_owned(), error);
    if fs::metadata(path).map_err(unreadable)?.len() > SECRET_BYTES_MAX {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    Ok(fs::read_to_string(path).map_err(unreadable)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oidc(text: &str) -> Result<(), String> {
        let oidc: Oidc = toml::from_str(text).map_err(|error| error.to_string())?;
        oidc.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_provider_is_asked_over_tls_and_somebody_has_a_role() {
        let roles = "[[roles]]\ngroup = 'ops'\nrole = 'operator'\nscope = 'site:osaka'";
        let of = |issuer: &str, roles: &str| {
            let roles = if roles.is_empty() { "roles = []" } else { roles };
            oidc(&format!("issuer = '{issuer}'\nclient_id = 'sealift'\n{roles}"))
        };
        assert_eq!(of("https://id.example", roles), Ok(()));
        assert!(of("http://id.example", roles).unwrap_err().contains("https"));
        assert!(of("https://id.example", "").unwrap_err().contains("nobody could come in"));
        let volatile = roles.replace("site:osaka", "state:online");
        assert!(of("https://id.example", &volatile).unwrap_err().contains("no scope"));
        let unknown = roles.replace("operator", "boss");
        assert!(of("https://id.example", &unknown).is_err());
    }

    #[test]
    fn sessions_end() {
        assert!(Access::default().check().is_ok());
        for (idle, life) in [(0, 3_600), (7_200, 3_600), (3_600, SESSION_S_MAX + 1)] {
            let access = Access { session_idle_s: idle, session_s: life, ..Access::default() };
            assert!(access.check().is_err(), "{idle} {life}");
        }
    }
}
