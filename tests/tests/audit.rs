//! Somebody with the server's database changes its audit log in every way there is; `fleetctl audit verify` names the row.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::AuditEntry;
use sealift_protocol::audit::leaf;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::merkle::Tree;
use sealift_tests::fleet::{Options, Server, Store};
use sealift_tests::needs::variable;
use sealift_tests::process::{run, run_to_end};
use serde_json::{Value, json};
use sqlx::{AnyPool, AssertSqlSafe, Row as _};

/// The exit code of a log that was changed.
const TAMPERED: i32 = 9;

/// A server whose log has a dozen rows and more, and its database.
async fn fleet(directory: &Path) -> anyhow::Result<(Server, AnyPool)> {
    fleet_on(directory, Store::Sqlite).await
}

async fn fleet_on(directory: &Path, store: Store) -> anyhow::Result<(Server, AnyPool)> {
    let options = Options { store: store.clone(), ..Options::default() };
    let server = Server::start(directory, &options).await?;
    for number in 0..10 {
        server.ctl(&["enrol", "create", "-l", &format!("line={number}")])?;
    }
    sqlx::any::install_default_drivers();
    let database = match store {
        Store::Sqlite => format!("sqlite://{}", server.data().join("fleet.db").display()),
        Store::Postgres(url) => url,
    };
    Ok((server, AnyPool::connect(&database).await?))
}

/// Somebody who looks at the log, with a state directory of their own.
struct Auditor<'a> {
    server: &'a Server,
    config: String,
}

impl<'a> Auditor<'a> {
    fn new(server: &'a Server, directory: &Path, name: &str) -> Self {
        let config = directory.join(name).join("fleetctl.toml").display().to_string();
        Self { server, config }
    }

    /// Runs `fleetctl audit …`; returns the exit code and what it printed as JSON.
    fn audit(&self, arguments: &[&str]) -> anyhow::Result<(i32, Value)> {
        let environment = [
            ("SEALIFT_URL", self.server.endpoints.operator_url.as_str()),
            ("SEALIFT_TOKEN", &self.server.token),
            ("SEALIFT_CONFIG", &self.config),
        ];
        let arguments = [&["-o", "json", "audit"], arguments].concat();
        let (status, stdout, stderr) = run_to_end("fleetctl", &arguments, &environment)?;
        let code = status.code().context("it was killed")?;
        let report = serde_json::from_str(&stdout);
        Ok((code, report.with_context(|| format!("exit {code}: {stdout}{stderr}"))?))
    }

    fn passes(&self) -> anyhow::Result<u64> {
        let (code, report) = self.audit(&["verify"])?;
        ensure!(code == 0 && report["finding"].is_null(), "exit {code}: {report}");
        report["rows"].as_u64().context("no count of rows")
    }

    fn finds(&self, what: &str, expected: &Value) -> anyhow::Result<()> {
        let (code, report) = self.audit(&["verify"])?;
        let is_found = code == TAMPERED && report["finding"] == *expected;
        ensure!(is_found, "{what}: exit {code}, expected {expected}, found {}", report["finding"]);
        Ok(())
    }
}

const TABLES: [&str; 4] = ["audit", "audit_heads", "audit_tiles", "audit_checkpoints"];

async fn execute(database: &AnyPool, statements: &[&str]) -> anyhow::Result<()> {
    for statement in statements {
        let done = sqlx::query(AssertSqlSafe(*statement)).execute(database).await;
        done.with_context(|| (*statement).to_owned())?;
    }
    Ok(())
}

async fn keep(database: &AnyPool) -> anyhow::Result<()> {
    for table in TABLES {
        execute(database, &[&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")])
            .await?;
    }
    Ok(())
}

async fn put_back(database: &AnyPool) -> anyhow::Result<()> {
    for table in TABLES {
        let empty = format!("DELETE FROM {table}");
        let fill = format!("INSERT INTO {table} SELECT * FROM kept_{table}");
        execute(database, &[&empty, &fill]).await?;
    }
    Ok(())
}

async fn rows(database: &AnyPool) -> anyhow::Result<Vec<AuditEntry>> {
    let rows = sqlx::query(
        "SELECT sequence, at, actor, action, subject, reason, detail, hash FROM audit
         ORDER BY sequence",
    );
    let entry = |row: sqlx::any::AnyRow| {
        anyhow::Ok(AuditEntry {
            sequence: row.try_get::<i64, _>(0)?.cast_unsigned(),
            at: UnixMillis(row.try_get(1)?),
            actor: row.try_get(2)?,
            action: row.try_get(3)?,
            subject: row.try_get(4)?,
            reason: row.try_get(5)?,
            detail: row.try_get(6)?,
            hash: row.try_get(7)?,
        })
    };
    rows.fetch_all(database).await?.into_iter().map(entry).collect()
}

#[tokio::test]
async fn whatever_is_done_to_the_log_is_named() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, database) = fleet(directory.path()).await?;
    every_change_is_named(directory.path(), &server, &database).await
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn whatever_is_done_to_the_log_in_postgresql_is_named() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let store = Store::Postgres(variable("SEALIFT_POSTGRES_URL")?);
    let (server, database) = fleet_on(directory.path(), store).await?;
    every_change_is_named(directory.path(), &server, &database).await?;
    // And what was exported before names the first row that differs from then on.
    let file = directory.path().join("audit.jsonl").display().to_string();
    let (code, exported) =
        Auditor::new(&server, directory.path(), "regular").audit(&["export", "-f", &file])?;
    ensure!(code == 0, "{exported}");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replacen("enrol-token.create", "enrol-token.revoke", 2))?;
    let (code, report) =
        Auditor::new(&server, directory.path(), "offline").audit(&["verify", "--file", &file])?;
    ensure!(code == TAMPERED && report["finding"]["what"] == "edited", "{report}");
    Ok(())
}

/// Edits, removes, swaps, inserts, appends and cuts rows; after each, `fleetctl audit verify` names the first that is not as it was.
async fn every_change_is_named(
    directory: &Path,
    server: &Server,
    database: &AnyPool,
) -> anyhow::Result<()> {
    let regular = Auditor::new(server, directory, "regular");
    let size = regular.passes()?;
    ensure!(size >= 12, "{size} rows");
    keep(database).await?;

    let (cut, beyond) = (size - 2, size + 1);
    let up = "UPDATE audit SET sequence = -sequence WHERE sequence >= 8";
    let insert = "INSERT INTO audit SELECT tenant, 8, at, 'mallory', action, subject, reason,
        detail, hash FROM audit WHERE sequence = 3";
    let append = format!(
        "INSERT INTO audit SELECT tenant, {beyond}, at, 'mallory', action, subject, reason, detail,
         hash FROM audit WHERE sequence = 3"
    );
    let truncate = format!("DELETE FROM audit WHERE sequence >= {cut}");
    let cases: [(&str, Vec<&str>, Value); 7] = [
        (
            "a field is edited",
            vec!["UPDATE audit SET actor = 'mallory' WHERE sequence = 5"],
            json!({"row": 5, "what": "edited"}),
        ),
        (
            "a row is deleted",
            vec!["DELETE FROM audit WHERE sequence = 6"],
            json!({"row": 6, "what": "removed", "until": 6}),
        ),
        (
            "a row is deleted and the rest numbered anew",
            vec![
                "DELETE FROM audit WHERE sequence = 6",
                "UPDATE audit SET sequence = -sequence WHERE sequence > 6",
                "UPDATE audit SET sequence = -sequence - 1 WHERE sequence < 0",
            ],
            json!({"row": 6, "what": "removed", "until": 6}),
        ),
        (
            "two rows are swapped",
            vec![
                "UPDATE audit SET sequence = -4 WHERE sequence = 4",
                "UPDATE audit SET sequence = 4 WHERE sequence = 9",
                "UPDATE audit SET sequence = 9 WHERE sequence = -4",
            ],
            json!({"row": 4, "what": "moved", "was": 9}),
        ),
        (
            "a row is inserted",
            vec![up, "UPDATE audit SET sequence = 1 - sequence WHERE sequence < 0", insert],
            json!({"row": 8, "what": "inserted"}),
        ),
        ("a row is appended", vec![append.as_str()], json!({"row": beyond, "what": "edited"})),
        (
            "the tail is cut off",
            vec![truncate.as_str()],
            json!({"row": cut, "what": "cut", "until": size}),
        ),
    ];
    for (what, statements, expected) in &cases {
        execute(database, statements).await.with_context(|| (*what).to_owned())?;

        regular.finds(what, expected)?;
        // Somebody who never looked before needs no memory for these.
        Auditor::new(server, directory, what).finds(what, expected)?;

        put_back(database).await?;
        regular.passes().with_context(|| format!("put back after: {what}"))?;
    }
    Ok(())
}

/// Edits a row and makes everything that is computed from it anew, as somebody who knows the form but has no key can.
async fn edit_and_hash_anew(database: &AnyPool, number: usize) -> anyhow::Result<()> {
    let mut rows = rows(database).await?;
    let row = &mut rows[number - 1];
    "mallory".clone_into(&mut row.actor);
    row.hash = leaf(row).hex();
    sqlx::query("UPDATE audit SET actor = 'mallory', hash = $1 WHERE sequence = $2")
        .bind(row.hash.clone())
        .bind(row.sequence.cast_signed())
        .execute(database)
        .await?;
    set_head(database, &rows).await
}

async fn set_head(database: &AnyPool, rows: &[AuditEntry]) -> anyhow::Result<()> {
    let tree: Tree = rows.iter().map(leaf).collect();
    let peaks: Vec<_> = tree.peaks().iter().map(Digest::hex).collect();
    sqlx::query("UPDATE audit_heads SET size = $1, peaks = $2")
        .bind(tree.size().cast_signed())
        .bind(peaks.join(" "))
        .execute(database)
        .await?;
    Ok(())
}

#[tokio::test]
async fn hashing_anew_does_not_help_against_checkpoints_and_memory() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, database) = fleet(directory.path()).await?;
    let regular = Auditor::new(&server, directory.path(), "regular");
    let size = regular.passes()?;
    keep(&database).await?;

    edit_and_hash_anew(&database, 5).await?;
    regular.finds("hashed anew", &json!({"row": 5, "what": "rewritten"}))?;
    let (code, report) = Auditor::new(&server, directory.path(), "new").audit(&["verify"])?;
    let finding = &report["finding"];
    let spans = finding["row"].as_u64() <= Some(5) && finding["until"].as_u64() >= Some(5);
    ensure!(code == TAMPERED && finding["what"] == "unproven" && spans, "{report}");
    put_back(&database).await?;

    // The tail is cut off, and with it whatever speaks of it in the database: the server itself signs the shorter log.
    let rows = rows(&database).await?;
    let shorter = size - 3;
    let cut = format!("DELETE FROM audit WHERE sequence > {shorter}");
    let forget = format!("DELETE FROM audit_checkpoints WHERE size > {shorter}");
    execute(&database, &[&cut, &forget]).await?;
    set_head(&database, &rows[..usize::try_from(shorter)?]).await?;
    regular.finds("cut", &json!({"row": shorter + 1, "what": "cut", "until": size}))
}

#[tokio::test]
async fn a_log_made_anew_with_the_same_key_is_named() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut server, database) = fleet(directory.path()).await?;
    let size = Auditor::new(&server, directory.path(), "regular").passes()?;

    server.process.kill()?;
    for table in TABLES {
        execute(&database, &[&format!("DELETE FROM {table}")]).await?;
    }
    server.process.restart()?;
    server.ready().await?;
    for number in 0..15 {
        server.ctl(&["enrol", "create", "-l", &format!("line={number}")])?;
    }

    let regular = Auditor::new(&server, directory.path(), "regular");
    let expected = json!({"row": 1, "what": "rewritten"});
    regular.finds("made anew", &expected)?;
    let stranger = Auditor::new(&server, directory.path(), "stranger");
    ensure!(stranger.passes()? > size, "whoever never looked cannot know");
    Ok(())
}

#[tokio::test]
async fn an_exported_log_is_continued_and_checked_without_a_server() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut server, _) = fleet(directory.path()).await?;
    let path = directory.path().join("audit.jsonl");
    let file = path.display().to_string();
    let auditor = Auditor::new(&server, directory.path(), "regular");
    auditor.audit(&["export", "-f", &file])?;

    // A crash in the middle of a line, and more rows since.
    let text = fs::read_to_string(&path)?;
    fs::write(&path, &text[..text.len() * 2 / 3])?;
    server.ctl(&["enrol", "create"])?;
    let (code, exported) = auditor.audit(&["export", "-f", &file])?;
    ensure!(code == 0, "{exported}");
    let again = auditor.audit(&["export", "-f", &file])?;
    ensure!(again == (0, json!({"rows": exported["rows"], "added": 0})), "{again:?}");

    server.process.kill()?;
    let auditor = Auditor::new(&server, directory.path(), "offline");
    let (code, report) = auditor.audit(&["verify", "--file", &file])?;
    ensure!(code == 0 && report["rows"] == exported["rows"], "{report}");
    let whole = fs::read_to_string(&path)?;
    fs::write(&path, whole.replacen("enrol-token.create", "enrol-token.revoke", 3))?;
    let (code, report) = auditor.audit(&["verify", "--file", &file])?;
    ensure!(code == TAMPERED && report["finding"]["what"] == "edited", "{report}");
    Ok(())
}

#[tokio::test]
async fn a_cut_log_is_named_by_a_checkpoint_that_was_kept() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, database) = fleet(directory.path()).await?;
    let kept: Value = server.api()?.get("audit/checkpoint").await?;
    let note = directory.path().join("checkpoint");
    fs::write(&note, kept["note"].as_str().context("a note")?)?;
    let (size, note) = (kept["size"].as_u64().context("a size")?, note.display().to_string());
    let config = directory.path().join("fleet-server.toml").display().to_string();
    let look = || -> anyhow::Result<Value> {
        let look = ["recover", "--config", &config, "--json", "--checkpoint", &note];
        Ok(serde_json::from_str(&run("fleet-server", &look, &[])?)?)
    };
    ensure!(look()?["audit"]["lost_from_row"].is_null(), "{}", look()?);

    let rows = rows(&database).await?;
    let shorter = size - 4;
    for table in ["audit WHERE sequence", "audit_checkpoints WHERE size"] {
        execute(&database, &[&format!("DELETE FROM {table} > {shorter}")]).await?;
    }
    set_head(&database, &rows[..usize::try_from(shorter)?]).await?;

    let cut = look()?;
    ensure!(cut["audit"]["lost_from_row"] == shorter + 1, "{cut}");
    ensure!(cut["audit"]["kept_rows"] == size, "{cut}");
    fs::write(&note, "not a checkpoint")?;
    let (status, _, stderr) =
        run_to_end("fleet-server", &["recover", "--config", &config, "--checkpoint", &note], &[])?;
    ensure!(!status.success() && stderr.contains("not one of this server's log"), "{stderr}");
    Ok(())
}
