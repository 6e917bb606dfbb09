//! Everything that the server remembers, in SQLite or PostgreSQL. The same SQL on both.
//!
//! ```text
//! Store ── tenant(&id) ──▶ TenantStore ── begin() ──▶ Change ── commit()
//!  whole database           reads of one tenant        writes of one decision, all or none
//! ```
//!
//! Architecture Invariant: every query has a tenant. It is in the type: only [`TenantStore`] and [`Change`] run any, and both are of one
//! tenant.

use std::sync::Once;
use std::time::Duration;

use sealift_protocol::api::AuditEntry;
use sealift_protocol::id::TenantId;
use sqlx::any::{AnyArguments, AnyPoolOptions, install_default_drivers};
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Transaction};

pub(crate) mod accounts;
pub(crate) mod alert_rules;
pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod batch_results;
pub(crate) mod captures;
pub(crate) mod certificates;
pub(crate) mod channels;
pub(crate) mod claims;
pub(crate) mod desired;
pub(crate) mod devices;
pub(crate) mod enrol;
pub(crate) mod evidence;
pub(crate) mod fleet;
pub(crate) mod halt;
mod forecasts;
mod habits;
pub(crate) mod housekeeping;
pub(crate) mod labels;
pub(crate) mod late;
mod looks;
pub(crate) mod loose;
mod many;
pub(crate) mod matching;
mod migrations;
pub(crate) mod operators;
mod pending;
pub(crate) mod profiles;
pub(crate) mod quarantine;
pub(crate) mod recover;
pub(crate) mod registry;
pub(crate) mod reports;
pub(crate) mod repositories;
pub(crate) mod requests;
pub(crate) mod revocations;
pub(crate) mod rollback;
pub(crate) mod rollouts;
pub(crate) mod scope;
pub(crate) mod samples;
pub(crate) mod sessions;
pub(crate) mod silences;
pub(crate) mod spans;
pub(crate) mod spools;
pub(crate) mod status;
pub(crate) mod suspects;
pub(crate) mod timeline;
pub(crate) mod told;
pub(crate) mod tokens;
pub(crate) mod trust;
pub(crate) mod uploads;
pub(crate) mod webhooks;

use pending::Pending;

/// Connections that read at the same time, for people and for the server's own work.
const READERS_MAX: u32 = 4;
/// Connections that read for devices. They come in crowds, and wait for each other alone: never a person for ten thousand of them.
const CROWD_READERS_MAX: u32 = 4;
/// Connections of one server to PostgreSQL beside those for devices; its default limit is 100 for all.
const POSTGRES_CONNECTIONS_MAX: u32 = 12;
/// Pages that SQLite keeps: what a batch of messages touches, and what a list reads. Beyond it the system's own cache has the file.
const WRITER_CACHE_KIB: u32 = 32 << 10;
const READER_CACHE_KIB: u32 = 4 << 10;
/// Longest wait for a connection: beyond it the store is overloaded, and a caller is told so.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The URL names no database that is known.
    #[error("store url `{0}` is neither sqlite:// nor postgres://")]
    Url(String),
    /// The database cannot be opened.
    #[error("cannot open the store")]
    Open(#[source] sqlx::Error),
    /// The tables cannot be made, or are of a newer server.
    #[error("cannot bring the store's tables up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A query failed.
    #[error("a query of the store failed")]
    Query(#[from] sqlx::Error),
    /// A row holds what this server never wrote.
    #[error("the store holds a {what} that cannot be read: `{text}`")]
    Corrupt {
        /// What it should be.
        what: &'static str,
        /// What stands there.
        text: String,
    },
    /// Somebody else decided in between; look again.
    #[error("{0} was changed in between")]
    Changed(&'static str),
    /// A number that the database cannot hold.
    #[error("{0} is too large to be stored")]
    TooLarge(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// The database; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dialect: Dialect,
    readers: AnyPool,
    /// The readers of devices.
    crowd: AnyPool,
    /// SQLite has one writer at a time: with one connection writers wait in turn, where two would fail each other.
    writer: AnyPool,
}

impl Store {
    /// Opens `sqlite://PATH` (made if it is not there) or `postgres://…`, and brings its tables up to date.
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(install_default_drivers);
        let store = if let Some(path) = url.strip_prefix("sqlite://") {
            Self::open_sqlite(path).await?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let pool = async |connections| {
                let options = AnyPoolOptions::new().max_connections(connections);
                options.acquire_timeout(WAIT_MAX).connect(url).await.map_err(StoreError::Open)
            };
            let readers = pool(POSTGRES_CONNECTIONS_MAX).await?;
            let crowd = pool(CROWD_READERS_MAX).await?;
            Self { dialect: Dialect::Postgres, writer: readers.clone(), readers, crowd }
        } else {
            let scheme = url.split(':').next().unwrap_or_default();
            return Err(StoreError::Url(format!("{scheme}:…")));
        };
        migrations::run(&store.writer, store.dialect).await?;
        Ok(store)
    }

    async fn open_sqlite(path: &str) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(|error| StoreError::Open(error.into()))?;
        let path =
            path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let url = format!("sqlite://{path}?mode=rwc");
        let pool = async |connections, cache_kib| {
            let options = AnyPoolOptions::new().acquire_timeout(WAIT_MAX);
            let options =
                options.max_connections(connections).after_connect(move |connection, _| {
                    Box::pin(async move { set_up_sqlite(connection, cache_kib).await })
                });
            options.connect(&url).await.map_err(StoreError::Open)
        };
        let writer = pool(1, WRITER_CACHE_KIB).await?;
        let readers = pool(READERS_MAX, READER_CACHE_KIB).await?;
        let crowd = pool(CROWD_READERS_MAX, READER_CACHE_KIB).await?;
        Ok(Self { dialect: Dialect::Sqlite, readers, crowd, writer })
    }

    /// The part of the store that belongs to `tenant`.
    pub(crate) fn tenant(&self, tenant: &TenantId) -> TenantStore {
        TenantStore { store: self.clone(), tenant: tenant.clone() }
    }

    /// The same store for what devices ask: they wait for each other, and nobody waits for them.
    pub(crate) fn for_devices(&self) -> Self {
        Self { readers: self.crowd.clone(), ..self.clone() }
    }
}

/// WAL lets readers go on beside the writer; FULL keeps what was committed over a power loss, since receipts are given on commits.
async fn set_up_sqlite(connection: &mut AnyConnection, cache_kib: u32) -> Result<(), sqlx::Error> {
    for pragma in [
        "PRAGMA busy_timeout = 10000",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
        // What a statement about many rows keeps, in case it fails halfway: up to a few thousand pages.
        "PRAGMA temp_store = MEMORY",
        // A page that is written often goes from the log into the file less often: the log has up to 16 MiB.
        "PRAGMA wal_autocheckpoint = 4000",
    ] {
        sqlx::query(pragma).execute(&mut *connection).await?;
    }
    let cache = AssertSqlSafe(format!("PRAGMA cache_size = -{cache_kib}"));
    sqlx::query(cache).execute(connection).await?;
    Ok(())
}

/// One tenant's part of the store; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct TenantStore {
    store: Store,
    tenant: TenantId,
}

impl TenantStore {
    /// Whose part it is.
    pub(crate) const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.store.readers).await?;
        Ok(())
    }

    /// Begins a change. Dropped without [`Change::commit`], it never was.
    pub(crate) async fn begin(&self) -> Result<Change, StoreError> {
        // IMMEDIATE: another process, such as `fleet-server token create`, is waited for at the begin, not failed in the middle.
        let begin = match self.store.dialect {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN",
        };
        let transaction = self.store.writer.begin_with(begin).await?;
        let (dialect, tenant) = (self.store.dialect, self.tenant.clone());
        let (pending, deeds) = Default::default();
        Ok(Change { transaction, dialect, tenant, pending, deeds })
    }

    /// The same for what devices ask.
    pub(crate) fn for_devices(&self) -> Self {
        Self { store: self.store.for_devices(), tenant: self.tenant.clone() }
    }

    pub(crate) const fn readers(&self) -> &AnyPool {
        &self.store.readers
    }

    pub(crate) fn id(&self) -> &str {
        self.tenant.as_str()
    }
}

/// What is written together, by one tenant.
#[derive(Debug)]
pub(crate) struct Change {
    transaction: Transaction<'static, Any>,
    dialect: Dialect,
    tenant: TenantId,
    /// Rows that are written together.
    pending: Pending,
    /// Rows of the audit log that are written at the commit, not numbered yet.
    deeds: Vec<AuditEntry>,
}

impl Change {
    /// Makes everything written true, or nothing.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        self.write_pending().await?;
        // Last of all: whoever waits for the audit log's lock holds no other that its holder could still want.
        self.write_deeds().await?;
        Ok(self.transaction.commit().await?)
    }

    /// Whose it is.
    pub(crate) const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// Runs `statement`, whose first parameter is the tenant; returns how many rows it changed.
    pub(crate) async fn run<'q>(
        &mut self,
        statement: &'static str,
        bind: impl FnOnce(Statement<'q>) -> Statement<'q>,
    ) -> Result<u64, StoreError> {
        let statement = sqlx::query(statement).bind(self.tenant.as_str().to_owned());
        let done = bind(statement).execute(self.connection()).await?;
        Ok(done.rows_affected())
    }

    /// The next number of a kind: 1, 2, 3, … Writers of one kind wait for each other, so that numbers are in the order of commits.
    pub(crate) async fn next_number(&mut self, name: &'static str) -> Result<u64, StoreError> {
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO counters (tenant, name, value) VALUES ($1, $2, 1)
             ON CONFLICT (tenant, name) DO UPDATE SET value = counters.value + 1 RETURNING value",
        )
        .bind(self.tenant.as_str().to_owned())
        .bind(name)
        .fetch_one(self.connection())
        .await?;
        unsigned("counter", number)
    }
}

pub(crate) type Statement<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

/// A number as the database holds it.
pub(crate) fn signed(what: &'static str, number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::TooLarge(what))
}

/// A number as the database holds it, back.
pub(crate) fn unsigned(what: &'static str, number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| corrupt(what, &number.to_string()))
}

/// Reads a name or another text that was parsed before it was stored.
pub(crate) fn parsed<T: std::str::FromStr>(
    what: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    text.parse().map_err(|_| corrupt(what, text))
}

/// Reads JSON that this server has written.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| corrupt(what, text))
}

/// Writes JSON. The types stored have string keys and finite numbers, so it is the caller's fault if they cannot be written.
pub(crate) fn to_json<T: serde::Serialize>(
    what: &'static str,
    value: &T,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt(what, &error.to_string()))
}

/// A unit variant of an enum as its name in JSON, without the quotes.
pub(crate) fn word<T: serde::Serialize>(
    what: &'static str,
    value: &T,
) -> Result<String, StoreError> {
    let text = to_json(what, value)?;
    Ok(text.trim_matches('"').to_owned())
}

/// The variant that [`word`] has named.
pub(crate) fn from_word<T: serde::de::DeserializeOwned>(
    what: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    let value = serde_json::Value::String(text.to_owned());
    serde_json::from_value(value).map_err(|_| corrupt(what, text))
}

/// A corrupt row is quoted with at most this much.
const QUOTED_CHARS_MAX: usize = 80;

pub(crate) fn corrupt(what: &'static str, text: &str) -> StoreError {
    StoreError::Corrupt { what, text: text.chars().take(QUOTED_CHARS_MAX).collect() }
}

#[cfg(test)]
mod story;
