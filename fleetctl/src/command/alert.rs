//! `fleetctl alert`.

use anyhow::bail;
use sealift_protocol::api::{
    Acknowledge, AlertSeverity, AlertView, AtLeast, BacktestNew, BacktestOf, BacktestView,
    FiringView, KindChange, KindView, RuleNew, RuleView, SilenceNew, SilenceView,
};

use crate::cli::{Alert, AlertTest, Rule};
use crate::client::Client;
use crate::output::{Output, or_dash, printable, table, word};

const DAY_MS: i64 = 24 * 3_600 * 1_000;

pub(crate) async fn run(client: &Client, output: Output, alert: Alert) -> anyhow::Result<()> {
    match alert {
        Alert::List { all, matchers } => {
            let state = if all { "" } else { "open,acknowledged" };
            let query = [("state", state), ("match", &matchers.join(","))];
            let alerts: Vec<AlertView> = client.list("alerts", &query).await?;
            output.text(&alerts, |alerts| text(alerts))
        }
        Alert::Ack { alert, note } => {
            let path = format!("alerts/{alert}/acknowledge");
            let view: AlertView = client.post(&path, &Acknowledge { note }).await?;
            output.text(&view, |view| format!("{} is {}", view.id, word(view.state)))
        }
        Alert::Silence { matchers, for_s, reason } => {
            let new = SilenceNew { matchers, reason, for_s };
            let made: SilenceView = client.post("silences", &new).await?;
            output.text(&made, |made| format!("silence {} until {}", made.id, made.until))
        }
        Alert::Silences => silences(client, output).await,
        Alert::Unsilence { silence } => client.delete(&format!("silences/{silence}")).await,
        Alert::Kinds => kinds(client, output).await,
        Alert::Kind { kind, hold, severity, off } => {
            let severity = severity.map(Into::into);
            let change = KindChange { hold_s: hold, severity, is_off: off };
            client.put(&format!("alert-kinds/{kind}"), &change).await
        }
        Alert::Rules => rules(client, output).await,
        Alert::Rule(Rule::Add { name, rule, hold, severity }) => {
            let (at_least, severity) = (rule.at_least, severity.into());
            let filter = rule.filter.unwrap_or_default();
            let new = RuleNew { name, filter, at_least, hold_s: hold, severity };
            let made: RuleView = client.post("alert-rules", &new).await?;
            output.text(&made, |made| format!("rule {}", made.rule.name))
        }
        Alert::Rule(Rule::Remove { name }) => client.delete(&format!("alert-rules/{name}")).await,
        Alert::Test(test) => self::test(client, output, test).await,
    }
}

async fn silences(client: &Client, output: Output) -> anyhow::Result<()> {
    let silences: Vec<SilenceView> = client.list("silences", &[]).await?;
    let rows = silences.iter().map(|silence| {
        [
            silence.id.to_string(),
            silence.matchers.join(" "),
            silence.until.to_string(),
            silence.covers.to_string(),
            silence.created_by.clone(),
            silence.reason.clone(),
        ]
    });
    output.rows(&silences, ["SILENCE", "MATCH", "UNTIL", "COVERS", "BY", "WHY"], rows)
}

async fn kinds(client: &Client, output: Output) -> anyhow::Result<()> {
    let kinds: Vec<KindView> = client.list("alert-kinds", &[]).await?;
    let rows = kinds.iter().map(|kind| {
        let KindChange { hold_s, severity, is_off } = &kind.change;
        [
            kind.kind.clone(),
            format!("{} s", hold_s.unwrap_or(kind.hold_s)),
            severity.map_or_else(|| "as built in".to_owned(), word),
            if *is_off { "off" } else { "on" }.to_owned(),
            kind.meaning.clone(),
        ]
    });
    output.rows(&kinds, ["KIND", "HOLD", "SEVERITY", "STATE", "MEANING"], rows)
}

async fn rules(client: &Client, output: Output) -> anyhow::Result<()> {
    let rules: Vec<RuleView> = client.list("alert-rules", &[]).await?;
    let rows = rules.iter().map(|view| {
        [
            view.rule.name.clone(),
            view.rule.filter.clone(),
            match view.rule.at_least {
                AtLeast::Devices(devices) => devices.to_string(),
                AtLeast::Percent(percent) => format!("{percent}%"),
            },
            format!("{} s", view.rule.hold_s),
            word(view.rule.severity),
            or_dash(view.since),
        ]
    });
    output.rows(&rules, ["RULE", "FILTER", "AT LEAST", "HOLD", "SEVERITY", "HOLDS SINCE"], rows)
}

async fn test(client: &Client, output: Output, test: AlertTest) -> anyhow::Result<()> {
    let AlertTest { rule, kind, new, hold, since } = test;
    let of = match (rule, kind, new.filter) {
        (Some(rule), _, _) => BacktestOf::Rule(rule),
        (None, Some(kind), _) => BacktestOf::Kind(kind),
        (None, None, Some(filter)) => BacktestOf::New(RuleNew {
            name: "new".to_owned(),
            filter,
            at_least: new.at_least,
            hold_s: 0,
            severity: AlertSeverity::Warning,
        }),
        (None, None, None) => bail!("a rule's name, --kind or --filter says what is to be tried"),
    };
    let request = BacktestNew { of, hold_s: hold, since_s: since };
    let view: BacktestView = client.post("alert-rules/test", &request).await?;
    output.text(&view, backtest)
}

fn backtest(view: &BacktestView) -> String {
    let days = view.until.since(view.from) / DAY_MS;
    let row = |firing: &FiringView| {
        [firing.at.to_string(), or_dash(firing.until), firing.subject.clone()]
    };
    let rows = table(["FIRED", "OVER", "ABOUT"], view.firings.iter().map(row));
    let (fired, from, source) = (view.fired, view.from, &view.source);
    format!("would have fired {fired} times in {days} days, since {from}\nfrom {source}\n\n{rows}")
}

/// What is open at a glance; then, alert by alert, the evidence and what to do, which are too long for a column.
fn text(alerts: &[AlertView]) -> String {
    let row = |alert: &AlertView| {
        [
            alert.id.to_string(),
            if alert.silenced_until.is_some() { "silenced".to_owned() } else { word(alert.state) },
            alert.severity.clone(),
            alert.opened_at.to_string(),
            alert.title.clone(),
        ]
    };
    let evidence = |alert: &AlertView| {
        let (detail, help) = (printable(&alert.detail), printable(&alert.help));
        format!("\n\n{}  {detail}\n     next: {help}", alert.id)
    };
    let head = ["ALERT", "STATE", "SEVERITY", "OPENED", "WHAT"];
    let overview = table(head, alerts.iter().map(row));
    alerts.iter().map(evidence).fold(overview, |text, evidence| text + &evidence)
}
