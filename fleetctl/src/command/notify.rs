//! `fleetctl notify`.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use sealift_protocol::api::{
    ChannelNew, ChannelView, DeliveryState, DeliveryView, Destination, Mail,
};

use crate::cli::{ChannelName, Notify, NotifyAdd};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, note, or_dash, prompt_secret, word};

/// The longest secret is an address.
const SECRET_BYTES_MAX: u64 = 4_096;

pub(crate) async fn run(client: &Client, output: Output, notify: Notify) -> anyhow::Result<()> {
    match notify {
        Notify::List => list(client, output).await,
        Notify::Add(add) => self::add(client, output, add).await,
        Notify::Remove { name } => {
            let channel = find(client, &name).await?;
            client.delete(&format!("channels/{}", channel.id)).await
        }
        Notify::Test { name } => test(client, output, &name).await,
        Notify::Log { name } => log(client, output, &name).await,
        Notify::Resend { name, message } => {
            let channel = find(client, &name).await?;
            let path = format!("channels/{}/deliveries/{message}/resend", channel.id);
            client.order(&path, &()).await
        }
    }
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let channels: Vec<ChannelView> = client.list("channels", &[]).await?;
    let rows = channels.iter().map(|channel| {
        [
            channel.name.clone(),
            word(channel.kind),
            channel.address.clone(),
            word(channel.least),
            channel.matchers.join(" "),
            channel.pending.to_string(),
            or_dash(channel.last_delivery.as_ref()),
        ]
    });
    let columns = ["NAME", "KIND", "TO", "LEAST", "MATCH", "WAITING", "LAST"];
    output.rows(&channels, columns, rows)
}

async fn find(client: &Client, name: &str) -> anyhow::Result<ChannelView> {
    let channels: Vec<ChannelView> = client.list("channels", &[]).await?;
    let found = channels.into_iter().find(|channel| channel.name == name);
    found.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("there is no channel `{name}`"))
            .help("`fleetctl notify list` lists them")
            .into()
    })
}

async fn add(client: &Client, output: Output, add: NotifyAdd) -> anyhow::Result<()> {
    let destination = destination(&add)?;
    let NotifyAdd { name, least, matchers, .. } = add;
    let new = ChannelNew { name, least: least.into(), matchers, destination };
    let made: ChannelView = client.post("channels", &new).await?;
    output.text(&made, |made| {
        let secret = made.secret.as_ref().map_or_else(String::new, |secret| format!("\n{secret}"));
        format!("{} sends to {}{secret}", made.name, made.address)
    })?;
    if made.secret.is_some() {
        note("the secret to check signatures with is shown only now");
    }
    note(&format!("`fleetctl notify test {}` tries it", made.name));
    Ok(())
}

fn destination(add: &NotifyAdd) -> anyhow::Result<Destination> {
    Ok(match add.kind {
        ChannelName::Webhook => Destination::Webhook { url: url(add)?, secret: None },
        ChannelName::Slack => Destination::Slack { url: url(add)? },
        ChannelName::Smtp => Destination::Smtp(Box::new(mail(add)?)),
        ChannelName::Alertmanager => Destination::Alertmanager {
            url: add.address.clone().context("--address is Alertmanager's URL")?,
            username: add.user.clone(),
            password: password(add)?,
        },
    })
}

/// The address of a webhook: in the open, from a file, or asked for.
fn url(add: &NotifyAdd) -> anyhow::Result<String> {
    match (&add.address, &add.secret_file) {
        (Some(url), None) => Ok(url.clone()),
        (None, Some(file)) => read(file),
        (None, None) => prompt_secret("address: ")?.context("--address or --secret-file is needed"),
        (Some(_), Some(_)) => bail!("the address is either --address or in --secret-file"),
    }
}

fn mail(add: &NotifyAdd) -> anyhow::Result<Mail> {
    let address = add.address.as_deref().context("--address is the mail server, as `host:port`")?;
    let (host, port) = address.rsplit_once(':').context("a mail server is `host:port`")?;
    let ca_pem = add.ca.as_ref().map(|path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    });
    Ok(Mail {
        host: host.to_owned(),
        port: port.parse().with_context(|| format!("`{port}` is no port"))?,
        tls: add.tls.into(),
        ca_pem: ca_pem.transpose()?,
        username: add.user.clone(),
        password: password(add)?,
        from: add.from.clone().context("--from says whom mails are from")?,
        to: add.to.clone(),
    })
}

fn password(add: &NotifyAdd) -> anyhow::Result<Option<String>> {
    match (&add.user, &add.secret_file) {
        (None, None) => Ok(None),
        (None, Some(_)) => bail!("a password goes with --user"),
        (Some(_), Some(file)) => read(file).map(Some),
        (Some(_), None) => {
            prompt_secret("password: ")?.context("--secret-file is needed").map(Some)
        }
    }
}

/// A secret, without the line's end.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
    } else {
        let file = std::fs::File::open(path);
        let file = file.with_context(|| format!("cannot read {}", path.display()))?;
        file.take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
    }
    Ok(text.trim().to_owned())
}

async fn test(client: &Client, output: Output, name: &str) -> anyhow::Result<()> {
    let channel = find(client, name).await?;
    let path = format!("channels/{}/test", channel.id);
    let tried: DeliveryView = client.post(&path, &()).await?;
    let outcome = tried.outcome.clone().unwrap_or_default();
    output.text(&tried, |_| format!("{name}: {outcome}"))?;
    match tried.state {
        DeliveryState::Delivered => Ok(()),
        DeliveryState::Waiting | DeliveryState::GivenUp => {
            Err(Failure::new(Exit::Failed, format!("the test did not arrive: {outcome}")).into())
        }
    }
}

async fn log(client: &Client, output: Output, name: &str) -> anyhow::Result<()> {
    let channel = find(client, name).await?;
    let path = format!("channels/{}/deliveries", channel.id);
    let log: Vec<DeliveryView> = client.list(&path, &[]).await?;
    let rows = log.iter().map(|delivery| {
        [
            delivery.id.to_string(),
            delivery.queued_at.to_string(),
            or_dash(delivery.alert),
            delivery.verb.clone(),
            word(delivery.state),
            delivery.attempts.to_string(),
            or_dash(delivery.outcome.as_ref()),
        ]
    });
    let columns = ["MESSAGE", "QUEUED", "ALERT", "VERB", "STATE", "TRIES", "OUTCOME"];
    output.rows(&log, columns, rows)
}
