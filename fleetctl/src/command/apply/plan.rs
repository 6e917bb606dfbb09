//! What a file asks for beside what there is. Decides from values.

use sealift_protocol::api::{
    ChannelNew, ChannelView, Destination, KindChange, KindView, RolloutNew, RolloutState,
    RolloutView, RuleNew, RuleView, SilenceNew, SilenceView, WavePlan,
};
use sealift_protocol::id::{RolloutId, UnixMillis};
use serde::Serialize;

use super::difference::between;
use super::file::{Entry, File, Silence};
use crate::output::word;

/// For how long late devices may catch up where nobody says; the server says it so of every rollout.
const TAIL_S: u32 = 7 * 24 * 3_600;
/// A silence's end is as good as the same if it is so near.
const NEAR_MS: u64 = 2_000;

/// What there is, of the kinds of things that the file speaks of.
#[derive(Debug, Default)]
pub(super) struct Present {
    pub(super) kinds: Vec<KindView>,
    pub(super) rules: Vec<RuleView>,
    pub(super) channels: Vec<ChannelView>,
    pub(super) silences: Vec<SilenceView>,
    pub(super) rollouts: Vec<RolloutView>,
}

/// One thing of the file, and what becomes of it.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) what: &'static str,
    pub(super) name: String,
    pub(super) action: Verb,
    /// Its number, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// In what it differs, or why nothing is done.
    pub(super) changes: Vec<String>,
    /// Where the file says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    pub(super) is_done: bool,
    /// Of a webhook that was made; shown once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
    #[serde(skip)]
    pub(super) deed: Option<Deed>,
}

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verb {
    Create,
    Change,
    /// It is as the file says.
    Unchanged,
    /// It is not as the file says, and is left as it is.
    Keep,
}

/// What is asked of the server.
#[derive(Debug)]
pub(super) enum Deed {
    Kind(KindChange),
    Rule { new: RuleNew, was: Option<RuleNew> },
    Channel { new: ChannelNew, was: Option<u64> },
    Silence { new: SilenceNew, was: Option<u64> },
    Draft { new: Box<RolloutNew>, was: Option<RolloutId> },
}

/// All that the file asks for, in the order in which it is carried out: what watches comes before what is watched.
pub(super) fn plan(file: &File, present: &Present, now: UnixMillis) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for entry in &file.alert_kinds {
        steps.push(kind(entry, present)?);
    }
    for entry in &file.alert_rules {
        steps.push(rule(entry, present)?);
    }
    for entry in &file.channels {
        steps.push(channel(entry, present)?);
    }
    for entry in &file.silences {
        steps.push(silence(entry, present, now));
    }
    for entry in &file.rollouts {
        steps.push(draft(entry, present, now)?);
    }
    Ok(steps)
}

fn step(what: &'static str, name: &str, line: Option<usize>) -> Step {
    let (action, changes) = (Verb::Unchanged, Vec::new());
    let name = name.to_owned();
    Step { what, name, action, id: None, changes, line, is_done: false, secret: None, deed: None }
}

impl Step {
    fn create(self, deed: Deed) -> Self {
        Self { action: Verb::Create, deed: Some(deed), ..self }
    }

    fn change(self, changes: Vec<String>, deed: Deed) -> Self {
        Self { action: Verb::Change, changes, deed: Some(deed), ..self }
    }

    fn keep(self, why: &str) -> Self {
        Self { action: Verb::Keep, changes: vec![why.to_owned()], ..self }
    }
}

fn kind(
    Entry { line, value: (kind, change) }: &Entry<(String, KindChange)>,
    present: &Present,
) -> anyhow::Result<Step> {
    let step = step("alert-kind", kind, *line);
    let was = present.kinds.iter().find(|view| view.kind == *kind);
    let was = was.map(|view| view.change.clone()).unwrap_or_default();
    let changes = between(&was, change)?;
    Ok(if changes.is_empty() { step } else { step.change(changes, Deed::Kind(change.clone())) })
}

fn rule(Entry { line, value }: &Entry<RuleNew>, present: &Present) -> anyhow::Result<Step> {
    let step = step("alert-rule", &value.name, *line);
    let Some(view) = present.rules.iter().find(|view| view.rule.name == value.name) else {
        return Ok(step.create(Deed::Rule { new: value.clone(), was: None }));
    };
    let changes = between(&view.rule, value)?;
    let was = Some(view.rule.clone());
    Ok(if changes.is_empty() {
        step
    } else {
        step.change(changes, Deed::Rule { new: value.clone(), was })
    })
}

/// What is secret of a channel does not come back: where only that has changed, the channel stays as it is.
fn channel(Entry { line, value }: &Entry<ChannelNew>, present: &Present) -> anyhow::Result<Step> {
    #[derive(Serialize)]
    struct Seen<'a> {
        kind: String,
        to: String,
        least: String,
        matchers: &'a [String],
    }
    let step = step("channel", &value.name, *line);
    let new = value.clone();
    let Some(view) = present.channels.iter().find(|view| view.name == value.name) else {
        return Ok(step.create(Deed::Channel { new, was: None }));
    };
    let was = Seen {
        kind: word(view.kind),
        to: view.address.clone(),
        least: word(view.least),
        matchers: &view.matchers,
    };
    let is = Seen {
        kind: word(value.destination.kind()),
        to: shown(&value.destination).unwrap_or_else(|| view.address.clone()),
        least: word(value.least),
        matchers: &value.matchers,
    };
    let changes = between(&was, &is)?;
    let step = Step { id: Some(view.id.to_string()), ..step };
    Ok(if changes.is_empty() {
        step
    } else {
        step.change(changes, Deed::Channel { new, was: Some(view.id) })
    })
}

/// Where a channel sends to, as the server shows it: of a URL the host, since the rest may be a secret. None of what is no URL.
fn shown(destination: &Destination) -> Option<String> {
    match destination {
        Destination::Webhook { url, .. }
        | Destination::Slack { url }
        | Destination::Alertmanager { url, .. } => {
            let url = url::Url::parse(url).ok()?;
            let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
            Some(format!("{}://{}{port}/…", url.scheme(), url.host_str()?))
        }
        Destination::Smtp(mail) => {
            Some(format!("{}:{} to {}", mail.host, mail.port, mail.to.join(", ")))
        }
    }
}

fn silence(Entry { line, value }: &Entry<Silence>, present: &Present, now: UnixMillis) -> Step {
    let Silence { matchers, reason, until } = value;
    let step = step("silence", &matchers.join(" "), *line);
    let for_s = u64::try_from(until.since(now)).unwrap_or(0) / 1_000;
    if for_s == 0 {
        return step.keep("its end is over");
    }
    let new = SilenceNew { matchers: matchers.clone(), reason: reason.clone(), for_s };
    let is_it = |view: &&SilenceView| {
        sorted(&view.matchers) == sorted(matchers) && view.reason == reason.trim()
    };
    let Some(view) = present.silences.iter().find(is_it) else {
        return step.create(Deed::Silence { new, was: None });
    };
    let step = Step { id: Some(view.id.to_string()), ..step };
    if view.until.since(*until).unsigned_abs() <= NEAR_MS {
        return step;
    }
    let change = format!("until: {} → {until}", view.until);
    step.change(vec![change], Deed::Silence { new, was: Some(view.id) })
}

fn sorted(matchers: &[String]) -> Vec<&str> {
    let mut sorted: Vec<_> = matchers.iter().map(|matcher| matcher.trim()).collect();
    sorted.sort_unstable();
    sorted
}

/// A rollout is known by its model, its version and its devices. What was started is not changed, and not ordered again by a file that
/// is applied again.
fn draft(
    Entry { line, value }: &Entry<RolloutNew>,
    present: &Present,
    now: UnixMillis,
) -> anyhow::Result<Step> {
    let RolloutNew { model, version, filter, .. } = value;
    let name = format!("{model}@{version} {filter}");
    let step = step("draft", name.trim(), *line);
    let wanted = as_stored(value, now);
    let is_it = |view: &&RolloutView| {
        !view.is_rollback
            && (&view.model, &view.version) == (model, version)
            && view.filter.trim() == filter.trim()
    };
    let same: Vec<_> = present.rollouts.iter().filter(is_it).collect();
    if let Some(view) = same.iter().find(|view| view.state == RolloutState::Draft) {
        let step = Step { id: Some(view.id.to_string()), ..step };
        let changes = between(&of_view(view), &wanted)?;
        let deed = Deed::Draft { new: Box::new(wanted), was: Some(view.id) };
        return Ok(if changes.is_empty() { step } else { step.change(changes, deed) });
    }
    for view in same {
        let state = word(view.state);
        let begun =
            Step { id: Some(view.id.to_string()), ..self::step("draft", name.trim(), *line) };
        if between(&of_view(view), &wanted)?.is_empty() {
            return Ok(Step { changes: vec![format!("it is {state}")], ..begun });
        }
        if view.finished_at.is_none() {
            return Ok(begun.keep(&format!("it is {state}, and what was started is not changed")));
        }
    }
    Ok(step.create(Deed::Draft { new: Box::new(wanted), was: None }))
}

/// As the server keeps it.
fn as_stored(new: &RolloutNew, now: UnixMillis) -> RolloutNew {
    let mut stored = RolloutNew { draft: true, ..new.clone() };
    stored.start_at = stored.start_at.filter(|&at| at > now);
    stored.tail_s = Some(stored.tail_s.unwrap_or(TAIL_S));
    if stored.waves.is_empty() {
        let percent = Some(100.0);
        stored.waves = vec![WavePlan { name: "all".to_owned(), percent, ..WavePlan::default() }];
    }
    stored
}

fn of_view(view: &RolloutView) -> RolloutNew {
    RolloutNew {
        model: view.model.clone(),
        version: view.version.clone(),
        filter: view.filter.trim().to_owned(),
        waves: view.waves.iter().map(|wave| wave.plan.clone()).collect(),
        trial: view.trial,
        start_at: view.start_at,
        budget: view.budget.clone(),
        tail_s: Some(view.tail_s),
        draft: true,
        reason: view.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn wanted(reason: &str) -> Entry<RolloutNew> {
        let value = json!({ "model": "vision/digits", "version": "7", "reason": reason });
        Entry { line: Some(3), value: serde_json::from_value(value).unwrap() }
    }

    fn rollout(id: &str, state: &str, reason: &str) -> RolloutView {
        let wave = json!({ "plan": { "name": "all", "percent": 100.0 }, "state": "pending", "devices": 0,
            "succeeded": 0, "bad": 0, "opened_at": null, "soak_until": null, "gates": [] });
        let finished_at = matches!(state, "succeeded" | "reverted").then_some(5);
        let value = json!({ "id": id, "model": "vision/digits", "version": "7", "filter": "",
            "state": state, "is_rollback": false, "reason": reason, "why": "", "created_by": "ann",
            "created_at": 1, "finished_at": finished_at, "tail_s": TAIL_S, "waves": [wave],
            "progress": {}, "allowed_actions": [] });
        serde_json::from_value(value).unwrap()
    }

    fn decided(rollouts: Vec<RolloutView>, reason: &str) -> (Verb, Option<String>, Vec<String>) {
        let present = Present { rollouts, ..Present::default() };
        let step = draft(&wanted(reason), &present, NOW).unwrap();
        let acts = matches!(step.action, Verb::Create | Verb::Change);
        assert_eq!(step.deed.is_some(), acts, "{step:?}");
        (step.action, step.id, step.changes)
    }

    #[test]
    fn a_draft_is_made_once_and_changed_where_it_differs() {
        assert_eq!(decided(Vec::new(), "a").0, Verb::Create);
        assert_eq!(decided(vec![rollout("r-1", "draft", "a")], "a").0, Verb::Unchanged);

        let (verb, id, changes) = decided(vec![rollout("r-1", "draft", "a")], "b");

        assert_eq!((verb, id.as_deref()), (Verb::Change, Some("r-1")));
        assert_eq!(changes, ["reason: a → b"]);
    }

    #[test]
    fn what_was_started_is_not_changed_and_not_made_again() {
        let (verb, _, why) = decided(vec![rollout("r-1", "running", "a")], "b");
        assert_eq!(
            (verb, why.concat().as_str()),
            (Verb::Keep, "it is running, and what was started is not changed")
        );
        let (verb, _, why) = decided(vec![rollout("r-1", "succeeded", "a")], "a");
        assert_eq!((verb, why.concat().as_str()), (Verb::Unchanged, "it is succeeded"));
        assert_eq!(decided(vec![rollout("r-1", "reverted", "a")], "again").0, Verb::Create);
    }

    #[test]
    fn a_silence_is_not_prolonged_by_applying_it_again() {
        let entry = |until: i64| Entry {
            line: None,
            value: Silence {
                matchers: vec!["site=lab".to_owned(), "kind=drift".to_owned()],
                reason: "moved".to_owned(),
                until: NOW.plus(until),
            },
        };
        let view = json!({ "id": 4, "matchers": ["kind=drift", "site=lab"], "reason": "moved",
            "created_by": "ann", "created_at": 1, "until": NOW.plus(60_500).0, "covers": 0 });
        let silences = vec![serde_json::from_value(view).unwrap()];
        let present = Present { silences, ..Present::default() };

        let verbs = [60_000, 120_000, 0].map(|until| silence(&entry(until), &present, NOW).action);

        assert_eq!(verbs, [Verb::Unchanged, Verb::Change, Verb::Keep]);
    }
}
