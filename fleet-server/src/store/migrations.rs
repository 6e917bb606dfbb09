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
    (4, "registry", include_str!("../../migrations/0004_registry.sql")),
    (5, "identity", include_str!("../../migrations/0005_identity.sql")),
    (6, "operators", include_str!("../../migrations/0006_operators.sql")),
    (7, "audit", include_str!("../../migrations/0007_audit.sql")),
    (8, "revocation", include_str!("../../migrations/0008_revocation.sql")),
    (9, "recover", include_str!("../../migrations/0009_recover.sql")),
    (10, "evidence", include_str!("../../migrations/0010_evidence.sql")),
    (11, "halt", include_str!("../../migrations/0011_halt.sql")),
    (12, "rollouts", include_str!("../../migrations/0012_rollouts.sql")),
    (16, "channels", include_str!("../../migrations/0016_channels.sql")),
    (17, "rules", include_str!("../../migrations/0017_rules.sql")),
    (19, "reverts", include_str!("../../migrations/0019_reverts.sql")),
    (21, "requests", include_str!("../../migrations/0021_requests.sql")),
    (22, "spans", include_str!("../../migrations/0022_spans.sql")),
    (24, "review", include_str!("../../migrations/0024_review.sql")),
    (26, "batches", include_str!("../../migrations/0026_batches.sql")),
    (27, "late", include_str!("../../migrations/0027_late.sql")),
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

/// The words in which the databases differ. `{ascii}` is text in the order of its bytes, which PostgreSQL otherwise sorts as people do.
fn in_dialect(text: &str, dialect: Dialect) -> String {
    let (bytes, serial, ascii) = match dialect {
        Dialect::Sqlite => ("BLOB", "INTEGER PRIMARY KEY AUTOINCREMENT", "TEXT"),
        Dialect::Postgres => ("BYTEA", "BIGSERIAL PRIMARY KEY", "TEXT COLLATE \"C\""),
    };
    text.replace("{bytes}", bytes).replace("{serial}", serial).replace("{ascii}", ascii)
}

pub(super) async fn run(pool: &AnyPool, dialect: Dialect) -> Result<(), StoreError> {
    let migrator = Migrator::new(Steps(dialect)).await.map_err(StoreError::Migrate)?;
    migrator.run(pool).await.map_err(StoreError::Migrate)
}
