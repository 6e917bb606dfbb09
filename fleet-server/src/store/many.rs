//! Statements about many rows at once: one of them costs hardly more than the same of one row.

use std::collections::BTreeSet;

use sealift_protocol::id::DeviceId;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::QueryAs;
use sqlx::{Any, AssertSqlSafe, FromRow};

use super::{Change, Dialect, Statement, StoreError};

/// Values in one statement. It could have 32,766; with this many, the way to the database's thread and back is a small part already, and
/// what SQLite looks for among their names another.
pub(super) const VALUES_MAX: usize = 400;

/// Rows of so many values that one statement takes.
pub(super) const fn rows(columns: usize) -> usize {
    VALUES_MAX / columns
}

/// Rows of values such as `($1, $2, $3), ($1, $4, $5)`: the tenant is the first parameter of all, `columns` follow for each row.
pub(super) fn values(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let own: Vec<_> = (0..columns).map(|column| parameter(row * columns + column)).collect();
        format!("($1, {})", own.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// A list such as `$2, $3, $4`.
pub(super) fn list(values: usize) -> String {
    (0..values).map(parameter).collect::<Vec<_>>().join(", ")
}

/// Pairs of values: a list of the first ones, and rows of both, such as `$2, $4` and `($2, $3), ($4, $5)`. A list finds rows by an index
/// that pairs would not.
pub(super) fn pairs(count: usize) -> (String, String) {
    let pair = |row: usize| (parameter(2 * row), parameter(2 * row + 1));
    let firsts: Vec<_> = (0..count).map(|row| pair(row).0).collect();
    let rows = (0..count).map(pair).map(|(first, second)| format!("({first}, {second})"));
    (firsts.join(", "), rows.collect::<Vec<_>>().join(", "))
}

/// The placeholder of a value, counted from 0, after the tenant.
fn parameter(place: usize) -> String {
    format!("${}", place + 2)
}

/// Rows of so many values, as many at a time as one statement takes.
pub(super) fn parts<T>(all: impl IntoIterator<Item = T>, columns: usize) -> Vec<Vec<T>> {
    let mut all = all.into_iter().peekable();
    let mut parts = Vec::new();
    while all.peek().is_some() {
        parts.push(all.by_ref().take(rows(columns)).collect());
    }
    parts
}

/// The same statement for SQLite, which takes `$2` for a name and compares it with each name before it. `?2` has a name that is looked for
/// whenever a value is bound, `?` has none: it is the next parameter, where each stands once and in order. No text of ours has a `$` in
/// a literal.
fn numbered(text: &str) -> String {
    let mut parts = text.split('$');
    let mut unnamed = parts.next().unwrap_or_default().to_owned();
    for (place, part) in parts.enumerate() {
        let rest = part.trim_start_matches(|it: char| it.is_ascii_digit());
        let number = part.strip_suffix(rest).and_then(|number| number.parse().ok());
        if number != Some(place + 1) {
            return text.replace('$', "?");
        }
        unnamed.push('?');
        unnamed.push_str(rest);
    }
    unnamed
}

impl Change {
    /// A statement about many rows, whose first parameter is the tenant. Not kept prepared: its text depends on how many they are, and
    /// would push out those that are asked all the time.
    pub(super) fn statement<'q>(&self, text: String) -> Statement<'q> {
        let (tenant, text) = (self.tenant().to_string(), self.numbered(text));
        sqlx::query(AssertSqlSafe(text)).persistent(false).bind(tenant)
    }

    /// The same where rows come back.
    pub(super) fn query_as<'q, T>(&self, text: String) -> QueryAs<'q, Any, T, AnyArguments>
    where
        T: for<'r> FromRow<'r, AnyRow>,
    {
        let (tenant, text) = (self.tenant().to_string(), self.numbered(text));
        sqlx::query_as(AssertSqlSafe(text)).persistent(false).bind(tenant)
    }

    fn numbered(&self, text: String) -> String {
        match self.dialect {
            Dialect::Sqlite => numbered(&text),
            Dialect::Postgres => text,
        }
    }

    /// Has everybody else who writes about devices wait, so that two messages of one are applied one after the other. PostgreSQL locks
    /// the rows of one statement in whatever order it meets them: two writers could wait for each other in a circle.
    pub(crate) async fn lock_devices(
        &mut self,
        devices: &BTreeSet<DeviceId>,
    ) -> Result<(), StoreError> {
        match self.dialect {
            Dialect::Sqlite => return Ok(()), // has one writer
            Dialect::Postgres => (),
        }
        for part in parts(devices, 1) {
            let text = format!(
                "SELECT id FROM devices WHERE tenant = $1 AND id IN ({})
                 ORDER BY id COLLATE \"C\" FOR UPDATE",
                list(part.len())
            );
            let _: Vec<(String,)> = self.rows_of(text, &part).await?;
        }
        Ok(())
    }

    /// The rows that a statement about devices gives.
    pub(super) async fn rows_of<T>(
        &mut self,
        text: String,
        devices: &[&DeviceId],
    ) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> FromRow<'r, AnyRow> + Send + Unpin,
    {
        let query = self.query_as(text);
        let query = devices.iter().fold(query, |query, device| query.bind(device.to_string()));
        Ok(query.fetch_all(self.connection()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenant_is_shared_by_all_rows() {
        assert_eq!(values(2, 3), "($1, $2, $3, $4), ($1, $5, $6, $7)");
        assert_eq!(list(3), "$2, $3, $4");
        assert_eq!(pairs(2), ("$2, $4".to_owned(), "($2, $3), ($4, $5)".to_owned()));
    }

    #[test]
    fn parameters_have_numbers_where_they_are_not_one_after_the_other() {
        let (list, values) = (list(2), values(2, 2));
        assert_eq!(numbered(&format!("a = $1 IN ({list})")), "a = ? IN (?, ?)");
        assert_eq!(numbered(&format!("VALUES {values}")), "VALUES (?1, ?2, ?3), (?1, ?4, ?5)");
        assert_eq!(numbered("$1, $3, $2"), "?1, ?3, ?2");
        assert_eq!(numbered("no parameter"), "no parameter");
    }
}
