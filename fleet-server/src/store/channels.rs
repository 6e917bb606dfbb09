//! Channels, and what is and was sent to them.

use sealift_protocol::api::{
    AlertSeverity, AlertView, ChannelKind, ChannelView, DeliveryState, DeliveryView,
};
use sealift_protocol::id::{AlertId, UnixMillis};

use super::{
    Change, StoreError, TenantStore, corrupt, from_json, from_word, signed, to_json, unsigned, word,
};
use crate::alert::deliver::{self, Verb};
use crate::alert::matcher::Matcher;

/// Messages that wait for one channel; a receiver that is away for longer reads the list of alerts.
const WAITING_MAX: i64 = 1_000;
/// What comes within this is sent together, where a channel writes to people.
const GROUP_WAIT_MS: i64 = 10_000;
/// Messages that are sent together.
const GROUP_MAX: i64 = 50;

/// Somebody whom alerts are sent to.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    /// Its number.
    pub(crate) id: u64,
    /// What people call it.
    pub(crate) name: String,
    /// By which way it sends.
    pub(crate) kind: ChannelKind,
    /// Where to, without what is secret of it.
    pub(crate) address: String,
    /// Alerts below this are not sent.
    pub(crate) least: AlertSeverity,
    /// Alerts that these do not all match are not sent.
    pub(crate) matchers: Vec<Matcher>,
    /// Where to, sealed.
    pub(crate) destination: String,
    /// Who added it.
    pub(crate) created_by: String,
    /// When.
    pub(crate) created_at: UnixMillis,
    last_delivery: Option<String>,
    waiting: u64,
}

impl Channel {
    /// Whether people read it: what comes at once is one message to them.
    const fn is_grouped(&self) -> bool {
        match self.kind {
            ChannelKind::Slack | ChannelKind::Smtp => true,
            ChannelKind::Webhook | ChannelKind::Alertmanager => false,
        }
    }

    /// When a message is to be sent that is queued now.
    fn due_at(&self, alert: &AlertView, now: UnixMillis) -> UnixMillis {
        let is_urgent = alert.severity == AlertSeverity::Critical.as_str();
        if self.is_grouped() && !is_urgent { now.plus(GROUP_WAIT_MS) } else { now }
    }

    /// As it is shown.
    pub(crate) fn view(&self) -> ChannelView {
        ChannelView {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            address: self.address.clone(),
            least: self.least,
            matchers: self.matchers.iter().map(ToString::to_string).collect(),
            created_by: self.created_by.clone(),
            created_at: self.created_at,
            secret: None,
            last_delivery: self.last_delivery.clone(),
            pending: self.waiting,
        }
    }
}

/// A channel before it has a number of its own.
pub(crate) struct ChannelRow<'a> {
    pub(crate) id: u64,
    pub(crate) name: &'a str,
    pub(crate) kind: ChannelKind,
    pub(crate) address: &'a str,
    pub(crate) least: AlertSeverity,
    pub(crate) matchers: &'a [Matcher],
    pub(crate) destination: &'a str,
    pub(crate) created_by: &'a str,
}

/// A message.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Its number.
    pub(crate) number: u64,
    /// The alert; none for a test.
    pub(crate) alert: Option<AlertId>,
    /// What became of the alert.
    pub(crate) verb: Verb,
    /// The alert as it was.
    pub(crate) view: AlertView,
    /// Names the message, so that a receiver knows it again.
    pub(crate) message: String,
    /// When it was queued.
    pub(crate) queued_at: UnixMillis,
    attempt: u64,
    due_at: UnixMillis,
}

/// Messages that are sent together.
#[derive(Debug)]
pub(crate) struct Due {
    /// To whom.
    pub(crate) channel: Channel,
    /// Oldest first.
    pub(crate) deliveries: Vec<Delivery>,
}

impl Due {
    /// How often the oldest was tried.
    pub(crate) fn attempt(&self) -> u64 {
        self.deliveries.first().map_or(0, |delivery| delivery.attempt)
    }
}

#[derive(sqlx::FromRow)]
struct ChannelColumns {
    number: i64,
    name: String,
    kind: String,
    address: String,
    least: String,
    matchers: String,
    destination: String,
    created_by: String,
    created_at: i64,
    last_delivery: Option<String>,
    waiting: i64,
}

#[derive(sqlx::FromRow)]
struct DeliveryColumns {
    number: i64,
    alert: Option<i64>,
    verb: String,
    message: String,
    body: String,
    state: String,
    attempt: i64,
    queued_at: i64,
    due_at: i64,
    outcome: Option<String>,
}

const CHANNELS: &str =
    "SELECT c.number, c.name, c.kind, c.address, c.least, c.matchers, c.destination,
    c.created_by, c.created_at, c.last_delivery, (SELECT COUNT(*) FROM deliveries d
    WHERE d.tenant = c.tenant AND d.channel = c.number AND d.state = 'waiting') AS waiting
    FROM channels c WHERE c.tenant = $1 ORDER BY c.number";

impl TenantStore {
    /// All channels.
    pub(crate) async fn channels(&self) -> Result<Vec<Channel>, StoreError> {
        let rows: Vec<ChannelColumns> =
            sqlx::query_as(CHANNELS).bind(self.id().to_owned()).fetch_all(self.readers()).await?;
        rows.into_iter().map(channel).collect()
    }

    /// What is due of each channel: the oldest message, and where people read it, what has come since. One channel that is not reached
    /// holds up no other.
    pub(crate) async fn due_deliveries(&self, now: UnixMillis) -> Result<Vec<Due>, StoreError> {
        let owners: Vec<i64> = sqlx::query_scalar(
            "SELECT DISTINCT channel FROM deliveries
             WHERE tenant = $1 AND state = 'waiting' AND due_at <= $2",
        )
        .bind(self.id().to_owned())
        .bind(now.0)
        .fetch_all(self.readers())
        .await?;
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for channel in self.channels().await? {
            if !owners.contains(&signed("channel", channel.id)?) {
                continue;
            }
            let (horizon, limit) =
                if channel.is_grouped() { (now.plus(GROUP_WAIT_MS), GROUP_MAX) } else { (now, 1) };
            let deliveries = self.waiting(channel.id, horizon, limit).await?;
            all.push(Due { channel, deliveries });
        }
        Ok(all)
    }

    async fn waiting(
        &self,
        channel: u64,
        before: UnixMillis,
        limit: i64,
    ) -> Result<Vec<Delivery>, StoreError> {
        let rows: Vec<DeliveryColumns> = sqlx::query_as(
            "SELECT * FROM deliveries WHERE tenant = $1 AND channel = $2 AND state = 'waiting'
             AND due_at <= $3 ORDER BY number LIMIT $4",
        )
        .bind(self.id().to_owned())
        .bind(signed("channel", channel)?)
        .bind(before.0)
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(delivery).collect()
    }

    /// One message of a channel.
    pub(crate) async fn delivery(
        &self,
        channel: u64,
        number: u64,
    ) -> Result<Option<Delivery>, StoreError> {
        let row: Option<DeliveryColumns> = sqlx::query_as(
            "SELECT * FROM deliveries WHERE tenant = $1 AND channel = $2 AND number = $3",
        )
        .bind(self.id().to_owned())
        .bind(signed("channel", channel)?)
        .bind(signed("delivery", number)?)
        .fetch_optional(self.readers())
        .await?;
        row.map(delivery).transpose()
    }

    /// The mail that told of an alert first, if one did.
    pub(crate) async fn thread_of(
        &self,
        channel: u64,
        alert: AlertId,
    ) -> Result<Option<String>, StoreError> {
        let thread: Option<String> = sqlx::query_scalar(
            "SELECT thread FROM deliveries WHERE tenant = $1 AND channel = $2 AND alert = $3
             AND thread IS NOT NULL ORDER BY number LIMIT 1",
        )
        .bind(self.id().to_owned())
        .bind(signed("channel", channel)?)
        .bind(signed("alert", alert.0)?)
        .fetch_optional(self.readers())
        .await?;
        Ok(thread)
    }

    /// The newest messages of a channel, numbered below `before`, newest first.
    pub(crate) async fn deliveries(
        &self,
        channel: u64,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeliveryView>, StoreError> {
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let rows: Vec<DeliveryColumns> = sqlx::query_as(
            "SELECT * FROM deliveries WHERE tenant = $1 AND channel = $2 AND number < $3
             ORDER BY number DESC LIMIT $4",
        )
        .bind(self.id().to_owned())
        .bind(signed("channel", channel)?)
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(logged).collect()
    }

    /// How many messages of a channel are kept.
    pub(crate) async fn count_deliveries(&self, channel: u64) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM deliveries WHERE tenant = $1 AND channel = $2",
        )
        .bind(self.id().to_owned())
        .bind(signed("channel", channel)?)
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }
}

fn channel(row: ChannelColumns) -> Result<Channel, StoreError> {
    Ok(Channel {
        id: unsigned("channel", row.number)?,
        name: row.name,
        kind: from_word("kind of channel", &row.kind)?,
        address: row.address,
        least: from_word("severity", &row.least)?,
        matchers: from_json("matchers", &row.matchers)?,
        destination: row.destination,
        created_by: row.created_by,
        created_at: UnixMillis(row.created_at),
        last_delivery: row.last_delivery,
        waiting: unsigned("count", row.waiting)?,
    })
}

fn delivery(row: DeliveryColumns) -> Result<Delivery, StoreError> {
    let alert = row.alert.map(|alert| unsigned("alert", alert)).transpose()?;
    Ok(Delivery {
        number: unsigned("delivery", row.number)?,
        alert: alert.map(AlertId),
        verb: Verb::parse(&row.verb).ok_or_else(|| corrupt("verb", &row.verb))?,
        view: from_json("alert", &row.body)?,
        message: row.message,
        queued_at: UnixMillis(row.queued_at),
        attempt: unsigned("attempt", row.attempt)?,
        due_at: UnixMillis(row.due_at),
    })
}

fn logged(row: DeliveryColumns) -> Result<DeliveryView, StoreError> {
    let (state, outcome) = (from_word("state of a delivery", &row.state)?, row.outcome.clone());
    let Delivery { number, alert, verb, view, queued_at, attempt, due_at, .. } = delivery(row)?;
    let verb = verb.as_str().to_owned();
    let (title, attempts, at) = (view.title, attempt, due_at);
    Ok(DeliveryView { id: number, alert, verb, title, state, attempts, outcome, queued_at, at })
}

impl Change {
    /// The number of a channel that is about to be added: what it needs is sealed under it.
    pub(crate) async fn next_channel(&mut self) -> Result<u64, StoreError> {
        self.next_number("channels").await
    }

    /// Adds a channel; false if its name is taken.
    pub(crate) async fn add_channel(
        &mut self,
        row: ChannelRow<'_>,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (number, name, address) =
            (signed("channel", row.id)?, row.name.to_owned(), row.address.to_owned());
        let (kind, least) = (word("kind of channel", &row.kind)?, row.least.as_str());
        let matchers = to_json("matchers", &row.matchers)?;
        let (destination, by) = (row.destination.to_owned(), row.created_by.to_owned());
        let added = self
            .run(
                "INSERT INTO channels (tenant, number, name, kind, address, least, matchers,
                 destination, created_by, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
                |it| {
                    let it = it.bind(number).bind(name).bind(kind).bind(address).bind(least);
                    it.bind(matchers).bind(destination).bind(by).bind(now.0)
                },
            )
            .await?;
        Ok(added == 1)
    }

    /// Removes a channel and what was to be sent to it; false if there is none.
    pub(crate) async fn remove_channel(&mut self, id: u64) -> Result<bool, StoreError> {
        let number = signed("channel", id)?;
        let removed = self
            .run("DELETE FROM channels WHERE tenant = $1 AND number = $2", |it| it.bind(number));
        Ok(removed.await? == 1)
    }

    /// Queues what has become of an alert for every channel that it is of and whose queue is not full.
    pub(crate) async fn enqueue(
        &mut self,
        alert: &AlertView,
        verb: Verb,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let message = deliver::message_id(self.tenant().as_str(), alert.id, now);
        self.enqueue_as(&message, (Some(alert.id), alert, verb), now).await.map(drop)
    }

    /// The same under a name of its own; for what is about no alert, without a number. Returns for how many channels it was queued.
    pub(crate) async fn enqueue_as(
        &mut self,
        message: &str,
        (id, alert, verb): (Option<AlertId>, &AlertView, Verb),
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        let rows: Vec<ChannelColumns> = sqlx::query_as(CHANNELS)
            .bind(self.tenant().to_string())
            .fetch_all(self.connection())
            .await?;
        let mut queued = 0;
        for row in rows {
            let channel = channel(row)?;
            if !deliver::concerns(&channel, alert) {
                continue;
            }
            if signed("count", channel.waiting)? >= WAITING_MAX {
                let outcome =
                    format!("{now}: {} left out, for {WAITING_MAX} messages wait", alert.id);
                self.note_delivery(channel.id, &outcome).await?;
                continue;
            }
            let due_at = channel.due_at(alert, now);
            self.queue(channel.id, (id, alert, verb), message, (now, due_at)).await?;
            queued += 1;
        }
        Ok(queued)
    }

    /// Queues one message; returns its number.
    pub(crate) async fn queue(
        &mut self,
        channel: u64,
        (id, alert, verb): (Option<AlertId>, &AlertView, Verb),
        message: &str,
        (now, due_at): (UnixMillis, UnixMillis),
    ) -> Result<u64, StoreError> {
        let id = id.map(|id| signed("alert", id.0)).transpose()?;
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO deliveries (tenant, channel, alert, verb, message, body, state, queued_at,
             due_at) VALUES ($1, $2, $3, $4, $5, $6, 'waiting', $7, $8) RETURNING number",
        )
        .bind(self.tenant().to_string())
        .bind(signed("channel", channel)?)
        .bind(id)
        .bind(verb.as_str())
        .bind(message.to_owned())
        .bind(to_json("alert", alert)?)
        .bind(now.0)
        .bind(due_at.0)
        .fetch_one(self.connection())
        .await?;
        unsigned("delivery", number)
    }

    /// Takes messages to be sent, so that no other server sends them before `until`; those that another has taken are left out.
    pub(crate) async fn claim(
        &mut self,
        due: Due,
        until: UnixMillis,
    ) -> Result<Option<Due>, StoreError> {
        let Due { channel, deliveries } = due;
        let mut claimed = Vec::new();
        for delivery in deliveries {
            let (number, due_at) = (signed("delivery", delivery.number)?, delivery.due_at.0);
            let taken = self
                .run(
                    "UPDATE deliveries SET due_at = $4
                     WHERE tenant = $1 AND number = $2 AND state = 'waiting' AND due_at = $3",
                    |it| it.bind(number).bind(due_at).bind(until.0),
                )
                .await?;
            if taken == 1 {
                claimed.push(delivery);
            }
        }
        Ok((!claimed.is_empty()).then_some(Due { channel, deliveries: claimed }))
    }

    /// Queues a message again that was delivered or given up; false if there is none of this number, or it waits.
    pub(crate) async fn resend_delivery(
        &mut self,
        channel: u64,
        number: u64,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (channel, number) = (signed("channel", channel)?, signed("delivery", number)?);
        let changed = self
            .run(
                "UPDATE deliveries SET state = 'waiting', attempt = 0, due_at = $4
                 WHERE tenant = $1 AND channel = $2 AND number = $3 AND state <> 'waiting'",
                |it| it.bind(channel).bind(number).bind(now.0),
            )
            .await?;
        Ok(changed == 1)
    }

    /// Messages have arrived: they are not sent again. `thread` is the mail that they were in.
    pub(crate) async fn finish_deliveries(
        &mut self,
        due: &Due,
        outcome: &str,
        thread: Option<&str>,
    ) -> Result<(), StoreError> {
        for delivery in &due.deliveries {
            let (number, thread) =
                (signed("delivery", delivery.number)?, thread.map(str::to_owned));
            self.run(
                "UPDATE deliveries SET thread = COALESCE(thread, $3)
                 WHERE tenant = $1 AND number = $2",
                |it| it.bind(number).bind(thread),
            )
            .await?;
        }
        self.settle(due, (DeliveryState::Delivered, None), outcome).await
    }

    /// Messages did not arrive, and are not tried any more.
    pub(crate) async fn give_up_deliveries(
        &mut self,
        due: &Due,
        outcome: &str,
    ) -> Result<(), StoreError> {
        self.settle(due, (DeliveryState::GivenUp, None), outcome).await
    }

    /// Messages did not arrive: they are tried again later.
    pub(crate) async fn retry_deliveries(
        &mut self,
        due: &Due,
        due_at: UnixMillis,
        outcome: &str,
    ) -> Result<(), StoreError> {
        self.settle(due, (DeliveryState::Waiting, Some(due_at)), outcome).await
    }

    async fn settle(
        &mut self,
        due: &Due,
        (state, due_at): (DeliveryState, Option<UnixMillis>),
        outcome: &str,
    ) -> Result<(), StoreError> {
        for delivery in &due.deliveries {
            let (number, text) = (signed("delivery", delivery.number)?, outcome.to_owned());
            let (state, due_at) = (word("state", &state)?, due_at.map(|at| at.0));
            self.run(
                "UPDATE deliveries SET state = $3, attempt = attempt + 1, outcome = $4,
                 due_at = COALESCE($5, due_at) WHERE tenant = $1 AND number = $2",
                |it| it.bind(number).bind(state).bind(text).bind(due_at),
            )
            .await?;
        }
        self.note_delivery(due.channel.id, outcome).await
    }

    /// Notes how the last delivery of a channel went.
    pub(crate) async fn note_delivery(
        &mut self,
        channel: u64,
        outcome: &str,
    ) -> Result<(), StoreError> {
        let (number, outcome) = (signed("channel", channel)?, outcome.to_owned());
        self.run(
            "UPDATE channels SET last_delivery = $3 WHERE tenant = $1 AND number = $2",
            |it| it.bind(number).bind(outcome),
        )
        .await?;
        Ok(())
    }
}
