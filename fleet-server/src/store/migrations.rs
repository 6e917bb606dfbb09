//! The tables, made step by step; only forward.

use std::borrow::Cow;

use futures_util::future::BoxFuture;
use sqlx::AnyPool;
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migration, MigrationSource, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{Dialect, StoreError};

/// Number, name and text of each step.
const STEPS: &[(i64, &str, &str)] = &[
    (1, "core", include_str!("../../migrations/0001_core.sql")),
    (2, "edge", include_str!("../../migrations/0002_edge.sql")),
    (3, "keys", include_str!("../../migrations/0003_keys.sql")),
];

#[derive(Debug)]
struct Steps(Dialect);

impl MigrationSource<'static> for Steps {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migrations = STEPS.iter().map(|&(number, name, text)| {
            let sql = AssertSqlSafe(in_dialect(text, self.0)).into_sql_str();
            Migration::new(number, Cow::Borrowed(name), MigrationType::Simple, sql, false)
        });
        let migrations = migrations.collect();
        Box::pin(async move { Ok(migrations) })
    }
}

/// The two words in which the databases differ.
fn in_dialect(text: &str, dialect: Dialect) -> String {
    let (bytes, serial) = match dialect {
        Dialect::Sqlite => ("BLOB", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        Dialect::Postgres => ("BYTEA", "BIGSERIAL PRIMARY KEY"),
    };
    text.replace("{bytes}", bytes).replace("{serial}", serial)
}

pub(super) async fn run(pool: &AnyPool, dialect: Dialect) -> Result<(), StoreError> {
    let migrator = Migrator::new(Steps(dialect)).await.map_err(StoreError::Migrate)?;
    migrator.run(pool).await.map_err(StoreError::Migrate)
}
