//! A filter as a condition of SQL. The only evaluation there is: what the console lists is what a rollout targets.

use std::fmt::Write as _;

use sealift_protocol::api::DeviceState;
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use sqlx::Any;
use sqlx::any::AnyArguments;
use sqlx::query::{QueryAs, QueryScalar};

use super::{StoreError, TenantStore, parsed};
use crate::filter::{Comparison, Condition, Filter, Glob};

/// At which moment devices are looked at, and how long a device may be silent before it is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Presence {
    /// The moment.
    pub(crate) now: UnixMillis,
    /// A device from which nothing came for this long is offline, whatever the broker says.
    pub(crate) offline_after_ms: i64,
}

impl Presence {
    pub(crate) const fn offline_before(self) -> i64 {
        self.now.0.saturating_sub(self.offline_after_ms)
    }

    /// The state of device `d` as an expression.
    pub(crate) fn state(self) -> String {
        format!(
            "CASE WHEN d.revoked_at IS NOT NULL THEN 'revoked'
             WHEN d.online = 0 OR COALESCE(d.seen_at, 0) < {} THEN 'offline'
             WHEN d.trouble IS NOT NULL THEN 'unhealthy' ELSE 'online' END",
            self.offline_before()
        )
    }
}

/// A condition on device `d`, with its parameters. Values are parameters; the text holds only words and numbers of ours.
#[derive(Debug, Clone)]
pub(crate) struct Matching {
    /// Such as `d.tenant = $1 AND …`.
    pub(crate) text: String,
    parameters: Vec<String>,
}

impl Matching {
    fn of_tenant(tenant: &str) -> Self {
        Self { text: "d.tenant = $1".to_owned(), parameters: vec![tenant.to_owned()] }
    }

    /// Adds a parameter and returns its placeholder.
    pub(crate) fn parameter(&mut self, value: &str) -> String {
        self.parameters.push(value.to_owned());
        format!("${}", self.parameters.len())
    }

    pub(crate) fn bind_as<'q, T>(
        &self,
        query: QueryAs<'q, Any, T, AnyArguments>,
    ) -> QueryAs<'q, Any, T, AnyArguments> {
        self.parameters.iter().fold(query, |query, value| query.bind(value.clone()))
    }

    pub(crate) fn bind_scalar<'q, T>(
        &self,
        query: QueryScalar<'q, Any, T, AnyArguments>,
    ) -> QueryScalar<'q, Any, T, AnyArguments> {
        self.parameters.iter().fold(query, |query, value| query.bind(value.clone()))
    }

    fn like(&mut self, column: &str, glob: &Glob) -> String {
        match glob.exact() {
            Some(text) => format!("{column} = {}", self.parameter(text)),
            None => format!("{column} LIKE {} ESCAPE '\\'", self.parameter(&glob.to_like())),
        }
    }
}

impl TenantStore {
    /// The condition that `filter` stands for.
    pub(crate) async fn matching(
        &self,
        filter: &Filter,
        presence: Presence,
    ) -> Result<Matching, StoreError> {
        let mut matching = Matching::of_tenant(self.id());
        for term in filter.terms() {
            let condition = match &term.condition {
                Condition::Model(model, version) => {
                    let versions = match version {
                        Some(wanted) => Some(self.served_versions(model, wanted).await?),
                        None => None,
                    };
                    serves(&mut matching, model, versions.as_deref())
                }
                Condition::Label(name, value) => has_label(&mut matching, name, value),
                Condition::State(state) => {
                    format!("{} = '{}'", presence.state(), state_word(*state))
                }
                Condition::Id(glob) => matching.like("d.id", glob),
                Condition::Seen(comparison, ago_ms) => seen(*comparison, *ago_ms, presence.now),
                Condition::Chosen(number) => format!(
                    "EXISTS (SELECT 1 FROM device_sets c WHERE c.tenant = d.tenant
                     AND c.number = {number} AND c.device = d.id)"
                ),
                Condition::Simulated(is_simulated) => {
                    format!("d.simulated = {}", i64::from(*is_simulated))
                }
            };
            let not = if term.is_negated { "NOT " } else { "" };
            // Writing to a `String` cannot fail.
            let _ = write!(matching.text, " AND {not}({condition})");
        }
        Ok(matching)
    }

    /// The versions of a model that some device serves and that compare as asked. They are few; SQL cannot compare them.
    async fn served_versions(
        &self,
        model: &ModelName,
        (comparison, wanted): &(Comparison, Version),
    ) -> Result<Vec<Version>, StoreError> {
        let served: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT serving_version FROM slots
             WHERE tenant = $1 AND model = $2 AND serving_version IS NOT NULL",
        )
        .bind(self.id().to_owned())
        .bind(model.to_string())
        .fetch_all(self.readers())
        .await?;
        let mut versions = Vec::new();
        for text in served {
            let version: Version = parsed("version", &text)?;
            if comparison.holds(version.cmp(wanted)) {
                versions.push(version);
            }
        }
        Ok(versions)
    }
}

fn serves(matching: &mut Matching, model: &ModelName, versions: Option<&[Version]>) -> String {
    let model = matching.parameter(&model.to_string());
    let version = match versions {
        None => "s.serving_version IS NOT NULL".to_owned(),
        Some([]) => "1 = 0".to_owned(),
        Some(versions) => {
            let list: Vec<_> =
                versions.iter().map(|version| matching.parameter(version.as_str())).collect();
            format!("s.serving_version IN ({})", list.join(", "))
        }
    };
    format!(
        "EXISTS (SELECT 1 FROM slots s WHERE s.tenant = d.tenant AND s.device = d.id
         AND s.model = {model} AND {version})"
    )
}

fn has_label(matching: &mut Matching, name: &str, value: &Glob) -> String {
    let name = matching.parameter(name);
    let value = matching.like("l.value", value);
    format!(
        "EXISTS (SELECT 1 FROM labels l WHERE l.tenant = d.tenant AND l.device = d.id
         AND l.name = {name} AND {value})"
    )
}

/// `seen:<5m` is: the last message came after five minutes ago. A device that never sent anything was seen longer ago than any time.
fn seen(comparison: Comparison, ago_ms: i64, now: UnixMillis) -> String {
    let moment = now.0.saturating_sub(ago_ms);
    let sign = match comparison {
        Comparison::Equal => "=",
        Comparison::Less => ">",
        Comparison::AtMost => ">=",
        Comparison::Greater => "<",
        Comparison::AtLeast => "<=",
    };
    format!("COALESCE(d.seen_at, 0) {sign} {moment}")
}

const fn state_word(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Online => "online",
        DeviceState::Unhealthy => "unhealthy",
        DeviceState::Offline => "offline",
        DeviceState::Revoked => "revoked",
    }
}
