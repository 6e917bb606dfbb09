//! What devices keep for people to look at: rules by model, the signed list, and the keys to which samples are encrypted.

use sealift_protocol::api::CaptureNew;
use sealift_protocol::id::{ModelName, UnixMillis, Version};

use super::{Change, StoreError, TenantStore, from_json, parsed, signed, to_json, unsigned};

/// The rules of one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PolicyRow {
    pub(crate) model: ModelName,
    /// Whether devices go by them.
    pub(crate) is_on: bool,
    pub(crate) rules: CaptureNew,
    pub(crate) changed_by: String,
    pub(crate) changed_at: UnixMillis,
    /// Samples that devices have chosen and lost.
    pub(crate) lost: u64,
    /// When training was asked for last, and for which version.
    pub(crate) retraining: Option<(UnixMillis, Option<Version>)>,
}

/// What there is of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) model: ModelName,
    pub(crate) samples: u64,
    pub(crate) bytes: u64,
    pub(crate) labelled: u64,
    pub(crate) newest_at: UnixMillis,
}

/// The newest list, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ListRow {
    /// Its number; 0 before the first.
    pub(crate) sequence: u64,
    /// The key that signed it, by its name in the trust bundle.
    pub(crate) signer: String,
    pub(crate) signed_at: UnixMillis,
}

/// A key to which devices encrypt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) number: u32,
    pub(crate) public: Vec<u8>,
    /// The private half, sealed.
    pub(crate) private: String,
    pub(crate) made_at: UnixMillis,
}

#[derive(sqlx::FromRow)]
struct PolicyColumns {
    model: String,
    is_on: i64,
    rules: String,
    changed_by: String,
    changed_at: i64,
    lost: i64,
    retraining_at: Option<i64>,
    retraining_version: Option<String>,
}

/// Whether somebody has labelled sample `s`, here by `l`: as this sample, or by the name of an inference that is the only one of that name.
macro_rules! joined {
    () => {
        "l.tenant = s.tenant AND l.inference = s.inference AND (l.sample = s.id OR (l.sample = ''
             AND NOT EXISTS (SELECT 1 FROM samples o WHERE o.tenant = s.tenant
                 AND o.inference = s.inference AND o.id <> s.id)))"
    };
}
pub(super) use joined;

impl TenantStore {
    /// The rules of all models that ever had any, by name.
    pub(crate) async fn capture_policies(&self) -> Result<Vec<PolicyRow>, StoreError> {
        let rows: Vec<PolicyColumns> = sqlx::query_as(
            "SELECT model, is_on, rules, changed_by, changed_at, lost, retraining_at,
             retraining_version FROM capture_policies WHERE tenant = $1 ORDER BY model",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(policy).collect()
    }

    /// What there is of each model.
    pub(crate) async fn sample_totals(&self) -> Result<Vec<Totals>, StoreError> {
        let rows: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as(concat!(
            "SELECT s.model, COUNT(*), CAST(SUM(LENGTH(s.body)) AS BIGINT),
             CAST(SUM(CASE WHEN EXISTS (SELECT 1 FROM sample_labels l WHERE ",
            joined!(),
            ") THEN 1 ELSE 0 END) AS BIGINT), MAX(s.at)
             FROM samples s WHERE s.tenant = $1 GROUP BY s.model ORDER BY s.model"
        ))
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let totals = |(model, samples, bytes, labelled, newest): (String, i64, i64, i64, i64)| {
            Ok(Totals {
                model: parsed("model", &model)?,
                samples: unsigned("count", samples)?,
                bytes: unsigned("bytes", bytes)?,
                labelled: unsigned("count", labelled)?,
                newest_at: UnixMillis(newest),
            })
        };
        rows.into_iter().map(totals).collect()
    }

    /// The newest list as it was signed; none before the first.
    pub(crate) async fn signed_captures(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let body: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT body FROM capture_lists WHERE tenant = $1")
                .bind(self.id().to_owned())
                .fetch_optional(self.readers())
                .await?;
        Ok(body.flatten())
    }

    /// What is known of the newest list; the default one before the first.
    pub(crate) async fn capture_list(&self) -> Result<ListRow, StoreError> {
        let row: Option<(i64, String, i64)> = sqlx::query_as(
            "SELECT sequence, signer, signed_at FROM capture_lists WHERE tenant = $1",
        )
        .bind(self.id().to_owned())
        .fetch_optional(self.readers())
        .await?;
        let Some((sequence, signer, signed_at)) = row else { return Ok(ListRow::default()) };
        let (sequence, signed_at) = (unsigned("sequence", sequence)?, UnixMillis(signed_at));
        Ok(ListRow { sequence, signer, signed_at })
    }

    /// The newest list, if the broker does not have it.
    pub(crate) async fn unpublished_captures(&self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let row: Option<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT sequence, body FROM capture_lists
             WHERE tenant = $1 AND published = 0 AND body IS NOT NULL",
        )
        .bind(self.id().to_owned())
        .fetch_optional(self.readers())
        .await?;
        row.map(|(sequence, body)| Ok((unsigned("sequence", sequence)?, body))).transpose()
    }

    /// All keys, the newest first.
    pub(crate) async fn capture_keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        let rows: Vec<(i64, Vec<u8>, String, i64)> = sqlx::query_as(
            "SELECT number, public, private, made_at FROM capture_keys WHERE tenant = $1
             ORDER BY number DESC",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let key = |(number, public, private, made_at): (i64, Vec<u8>, String, i64)| {
            let number = u32::try_from(number).map_err(|_| StoreError::TooLarge("key"))?;
            Ok(KeyRow { number, public, private, made_at: UnixMillis(made_at) })
        };
        rows.into_iter().map(key).collect()
    }
}

impl Change {
    /// Waits for whoever signs a list at the same time, and returns the newest list's sequence.
    pub(crate) async fn lock_captures(&mut self) -> Result<u64, StoreError> {
        let sequence: i64 = sqlx::query_scalar(
            "INSERT INTO capture_lists (tenant, sequence) VALUES ($1, 0)
             ON CONFLICT (tenant) DO UPDATE SET sequence = capture_lists.sequence
             RETURNING sequence",
        )
        .bind(self.tenant().to_string())
        .fetch_one(self.connection())
        .await?;
        unsigned("sequence", sequence)
    }

    /// The rules that devices go by, as this change sees them.
    pub(crate) async fn policies_that_are_on(&mut self) -> Result<Vec<PolicyRow>, StoreError> {
        let rows: Vec<PolicyColumns> = sqlx::query_as(
            "SELECT model, is_on, rules, changed_by, changed_at, lost, retraining_at,
             retraining_version FROM capture_policies WHERE tenant = $1 AND is_on = 1
             ORDER BY model",
        )
        .bind(self.tenant().to_string())
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(policy).collect()
    }

    /// Puts rules in the place of those before, and switches them on.
    pub(crate) async fn set_capture_policy(
        &mut self,
        model: &ModelName,
        rules: &CaptureNew,
        (by, now): (&str, UnixMillis),
    ) -> Result<(), StoreError> {
        let (rules, by) = (to_json("rules", rules)?, by.to_owned());
        self.run(
            "INSERT INTO capture_policies (tenant, model, is_on, rules, changed_by, changed_at)
             VALUES ($1, $2, 1, $3, $4, $5) ON CONFLICT (tenant, model) DO UPDATE SET is_on = 1,
             rules = excluded.rules, changed_by = excluded.changed_by,
             changed_at = excluded.changed_at",
            |it| it.bind(model.to_string()).bind(rules).bind(by).bind(now.0),
        )
        .await?;
        Ok(())
    }

    /// Switches rules off; false where they are not on.
    pub(crate) async fn end_capture_policy(
        &mut self,
        model: &ModelName,
        (by, now): (&str, UnixMillis),
    ) -> Result<bool, StoreError> {
        let by = by.to_owned();
        let changed = self
            .run(
                "UPDATE capture_policies SET is_on = 0, changed_by = $3, changed_at = $4
                 WHERE tenant = $1 AND model = $2 AND is_on = 1",
                |it| it.bind(model.to_string()).bind(by).bind(now.0),
            )
            .await?;
        Ok(changed == 1)
    }

    /// Puts a list in the place of the one before. The broker does not have it yet.
    pub(crate) async fn set_captures(
        &mut self,
        list: &ListRow,
        body: Vec<u8>,
    ) -> Result<(), StoreError> {
        let (sequence, signer) = (signed("sequence", list.sequence)?, list.signer.clone());
        let at = list.signed_at.0;
        self.run(
            "UPDATE capture_lists SET sequence = $2, signer = $3, signed_at = $4, body = $5,
             published = 0 WHERE tenant = $1",
            |it| it.bind(sequence).bind(signer).bind(at).bind(body),
        )
        .await?;
        Ok(())
    }

    /// Notes that the broker has a list, unless a newer one came in between.
    pub(crate) async fn mark_captures_published(
        &mut self,
        sequence: u64,
    ) -> Result<(), StoreError> {
        let sequence = signed("sequence", sequence)?;
        self.run(
            "UPDATE capture_lists SET published = 1 WHERE tenant = $1 AND sequence = $2",
            |it| it.bind(sequence),
        )
        .await?;
        Ok(())
    }

    /// The broker has lost its memory, or is another one.
    pub(crate) async fn mark_captures_unpublished(&mut self) -> Result<(), StoreError> {
        self.run("UPDATE capture_lists SET published = 0 WHERE tenant = $1", |it| it).await?;
        Ok(())
    }

    /// Adds a key; false if another server has added one of that number.
    pub(crate) async fn add_capture_key(&mut self, key: KeyRow) -> Result<bool, StoreError> {
        let KeyRow { number, public, private, made_at } = key;
        let added = self
            .run(
                "INSERT INTO capture_keys (tenant, number, public, private, made_at)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                |it| it.bind(i64::from(number)).bind(public).bind(private).bind(made_at.0),
            )
            .await?;
        Ok(added == 1)
    }

    /// Counts samples that a device has lost.
    pub(crate) async fn add_lost_samples(
        &mut self,
        model: &ModelName,
        lost: u32,
    ) -> Result<(), StoreError> {
        self.run(
            "UPDATE capture_policies SET lost = lost + $3 WHERE tenant = $1 AND model = $2",
            |it| it.bind(model.to_string()).bind(i64::from(lost)),
        )
        .await?;
        Ok(())
    }

    /// Notes that training was asked for, if nobody else did since `before`.
    pub(crate) async fn note_retraining(
        &mut self,
        model: &ModelName,
        (before, now): (Option<UnixMillis>, UnixMillis),
        version: Option<&Version>,
    ) -> Result<bool, StoreError> {
        let (before, version) = (before.map_or(-1, |at| at.0), version.map(ToString::to_string));
        let changed = self
            .run(
                "UPDATE capture_policies SET retraining_at = $3, retraining_version = $4
                 WHERE tenant = $1 AND model = $2 AND COALESCE(retraining_at, -1) = $5",
                |it| it.bind(model.to_string()).bind(now.0).bind(version).bind(before),
            )
            .await?;
        Ok(changed == 1)
    }
}

fn policy(row: PolicyColumns) -> Result<PolicyRow, StoreError> {
    let version =
        row.retraining_version.as_deref().map(|text| parsed("version", text)).transpose()?;
    Ok(PolicyRow {
        model: parsed("model", &row.model)?,
        is_on: row.is_on != 0,
        rules: from_json("rules", &row.rules)?,
        changed_by: row.changed_by,
        changed_at: UnixMillis(row.changed_at),
        lost: unsigned("count", row.lost)?,
        retraining: row.retraining_at.map(|at| (UnixMillis(at), version)),
    })
}
