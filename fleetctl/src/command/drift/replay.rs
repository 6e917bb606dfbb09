//! `fleetctl drift replay`: what device and server would have said to rows that are in a file, or to pictures in a folder.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;
use sealift_protocol::drift::{self, DriftState, Policy, Verdict, WINDOW_MS, Watcher, figures};
use sealift_protocol::profile::{Baseline, Cell, Season};
use serde::Serialize;

use crate::baseline::pictures::{Pictures, View};
use crate::baseline::rows::Rows;
use crate::baseline::source::Told;
use crate::baseline::table::{Counted, Schema};
use crate::baseline::types::{self, Types};
use crate::cli::Format;
use crate::output::{note, table};

/// Rows in one window; a day of one inference a second.
const WINDOW_ROWS_MAX: u64 = 100_000;
/// Windows in a season: the minutes of a week.
const PERIOD_MAX: u32 = 10_080;

/// Runs rows through the code that device and server run, and prints what it says of each window.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Reference rows (CSV, JSON Lines, Parquet, .npy or .npz): columns are features, with `prediction` and `confidence` where there are any. Or a folder of PNG and JPEG pictures.
    #[arg(long, value_name = "REF")]
    baseline: PathBuf,
    /// Of an .npz archive of reference rows with several arrays: which one.
    #[arg(long, value_name = "NAME")]
    baseline_array: Option<String>,
    /// The rows to judge, oldest first; or a folder of pictures, which are judged in the order of their names.
    #[arg(long, value_name = "ROWS")]
    data: PathBuf,
    /// Of an .npz archive of rows to judge with several arrays: which one.
    #[arg(long, value_name = "NAME")]
    array: Option<String>,
    /// Rows in a window.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=WINDOW_ROWS_MAX))]
    window: u64,
    /// Windows in a season, such as 24 windows of an hour; the reference then has a distribution for each of them.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=i64::from(PERIOD_MAX)))]
    period: Option<u32>,
    /// Corrects what columns are taken for: lines such as `colour = "categorical"`.
    #[arg(long, value_name = "FILE")]
    types: Option<PathBuf>,
}

/// What is said of one window.
#[derive(Debug, Serialize)]
struct Judged {
    index: usize,
    rows: u64,
    /// The first of its rows, counted from 0, and the first after it.
    from_row: u64,
    until_row: u64,
    /// `ok`, `warning` or `drift`; `ok` too while there are too few rows to say.
    verdict: Overall,
    has_enough_rows: bool,
    /// What happens to the alarm in this window.
    alarm: Alarm,
    /// The window in which the open alarm began, and for one that ends here, the window in which it ends.
    alarm_begin: Option<usize>,
    alarm_end: Option<usize>,
    /// What drifts, or may.
    why: Vec<String>,
    features: Vec<Judgements>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Overall {
    TooFew,
    Ok,
    Warning,
    Drift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Alarm {
    None,
    Begins,
    Open,
    Ends,
}

/// A feature, `prediction`, `confidence`, or what concerns several features.
#[derive(Debug, Serialize)]
struct Judgements {
    feature: String,
    verdict: Overall,
    metrics: Vec<MetricView>,
}

#[derive(Debug, Serialize)]
struct MetricView {
    metric: String,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    statistic: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p_value: Option<f64>,
    /// After correction for everything that was looked at in this window.
    #[serde(skip_serializing_if = "Option::is_none")]
    corrected_p: Option<f64>,
    /// Newest windows that were merged for it.
    windows: usize,
    rows: u64,
    /// None for a figure that is shown and not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Overall>,
}

/// Runs the replay and prints it.
pub(crate) fn run(format: Format, replay: &Replay) -> anyhow::Result<()> {
    if replay.baseline.is_dir() && replay.data.is_dir() {
        return of_pictures(format, replay);
    }
    let types = replay.types.as_deref().map_or_else(|| Ok(Types::new()), types::read)?;
    let array = replay.baseline_array.as_deref();
    let reference = Rows::read(&replay.baseline, Told { array, columns: None })?;
    let schema = Schema::guess(&reference, &types)
        .with_context(|| format!("cannot make a baseline of {}", replay.baseline.display()))?;
    for (column, why) in &schema.ignored {
        note(&format!("column `{column}` is not watched: {why}"));
    }
    let baseline = schema
        .baseline(&reference, replay.season())
        .with_context(|| format!("cannot make a baseline of {}", replay.baseline.display()))?;
    let names: Vec<_> = reference.head().into_iter().map(str::to_owned).collect();
    drop(reference);
    let told = Told { array: replay.array.as_deref(), columns: Some(&names) };
    let rows = Rows::read(&replay.data, told)?;
    let layout = schema
        .layout(&rows)
        .with_context(|| format!("{} does not fit the baseline", replay.data.display()))?;
    replay.tell(format, baseline, rows.len(), |row, counted| {
        schema.read(&layout, &rows, row, counted);
    })
}

/// The same of two folders of pictures.
fn of_pictures(format: Format, replay: &Replay) -> anyhow::Result<()> {
    ensure!(replay.types.is_none(), "pictures have no columns\nhelp: leave --types out");
    let reference = Pictures::read(&replay.baseline, View::default(), false)?;
    let baseline = reference.baseline(None, replay.season())?;
    drop(reference);
    let pictures = Pictures::read(&replay.data, View::default(), false)?;
    replay.tell(format, baseline, pictures.rows.len(), |row, counted| {
        counted.cells.clear();
        let figures = pictures.rows.get(row).into_iter().flatten();
        counted.cells.extend(figures.copied().map(Cell::Number));
    })
}

impl Replay {
    fn season(&self) -> Option<Season> {
        let period = self.period?;
        let phases = usize::try_from(period).unwrap_or(usize::MAX);
        Some(Season { rows: self.window, phases, phase_ms: WINDOW_MS })
    }

    /// Judges rows, window by window, and prints what is said of each.
    fn tell(
        &self,
        format: Format,
        baseline: Baseline,
        rows: usize,
        read: impl Fn(usize, &mut Counted),
    ) -> anyhow::Result<()> {
        ensure!(
            self.period.is_none() || !baseline.phases().is_empty(),
            "{} does not have rows of every phase\nhelp: a season of {} windows of {} rows needs that many reference rows, better several times",
            self.baseline.display(),
            self.period.unwrap_or(0),
            self.window,
        );
        let mut printer = Printer::new(format);
        let watcher = Watcher::new(baseline, Policy::default());
        let mut story = Story { watcher, index: 0, row: 0, began: None };
        let mut counted = Counted::default();
        for row in 0..rows {
            read(row, &mut counted);
            story.watcher.observe(&counted.cells, counted.prediction, counted.confidence);
            if story.watcher.rows() == self.window {
                printer.print(&story.close()?)?;
            }
        }
        if story.watcher.rows() > 0 {
            printer.print(&story.close()?)?;
        }
        printer.end()
    }
}

/// The windows so far.
struct Story {
    watcher: Watcher,
    index: usize,
    row: u64,
    /// The window in which the open alarm began.
    began: Option<usize>,
}

impl Story {
    fn close(&mut self) -> anyhow::Result<Judged> {
        let rows = self.watcher.rows();
        let verdicts = self.watcher.close()?.to_vec();
        let verdict = verdicts.iter().map(|verdict| overall(verdict.state)).max();
        let verdict = verdict.unwrap_or(Overall::TooFew);
        let is_open = verdict == Overall::Drift;
        let alarm = match (self.began, is_open) {
            (None, false) => Alarm::None,
            (None, true) => Alarm::Begins,
            (Some(_), true) => Alarm::Open,
            (Some(_), false) => Alarm::Ends,
        };
        let began = self.began.or_else(|| is_open.then_some(self.index));
        self.began = began.filter(|_| is_open);
        let judged = Judged {
            index: self.index,
            rows,
            from_row: self.row,
            until_row: self.row + rows,
            verdict: verdict.max(Overall::Ok),
            has_enough_rows: verdict > Overall::TooFew,
            alarm,
            alarm_begin: began,
            alarm_end: (alarm == Alarm::Ends).then_some(self.index),
            why: why(&verdicts),
            features: self.subjects(&verdicts),
        };
        self.index += 1;
        self.row += rows;
        Ok(judged)
    }

    fn subjects(&self, verdicts: &[Verdict]) -> Vec<Judgements> {
        let mut order = Vec::new();
        let mut metrics = BTreeMap::<String, Vec<&Verdict>>::new();
        for verdict in verdicts {
            let subject = verdict.subject.to_string();
            let known = metrics.entry(subject.clone()).or_default();
            if known.is_empty() {
                order.push(subject);
            }
            known.push(verdict);
        }
        // All columns are in one group, which says what its strongest feature says.
        order.retain(|subject| !subject.starts_with("group:"));
        let subject = |subject: String| {
            let verdicts = metrics.remove(&subject).unwrap_or_default();
            let worst = verdicts.iter().map(|verdict| overall(verdict.state)).max();
            let feature = subject.strip_prefix("feature:").unwrap_or(&subject).to_owned();
            let judged = verdicts.into_iter().map(view);
            let metrics = judged.chain(self.figures(&feature)).collect();
            Judgements { feature, verdict: worst.unwrap_or(Overall::TooFew), metrics }
        };
        order.into_iter().map(subject).collect()
    }

    /// What else can be said of the newest window.
    fn figures(&self, feature: &str) -> Vec<MetricView> {
        let Some(newest) = self.watcher.newest() else { return Vec::new() };
        let figures = figures(self.watcher.baseline(), newest, feature);
        let figures = figures.into_iter().map(|figure| MetricView {
            metric: figure.metric.to_string(),
            value: figure.value,
            statistic: None,
            p_value: figure.p,
            corrected_p: None,
            windows: 1,
            rows: newest.rows(),
            verdict: None,
        });
        figures.collect()
    }
}

fn view(verdict: &Verdict) -> MetricView {
    MetricView {
        metric: verdict.metric.to_string(),
        value: verdict.value,
        statistic: Some(verdict.statistic),
        p_value: Some(verdict.p),
        corrected_p: Some(verdict.corrected_p),
        windows: verdict.windows,
        rows: verdict.rows,
        verdict: Some(overall(verdict.state)),
    }
}

const fn overall(state: DriftState) -> Overall {
    match state {
        DriftState::TooFew => Overall::TooFew,
        DriftState::Steady => Overall::Ok,
        DriftState::Suspect => Overall::Warning,
        DriftState::Drifted => Overall::Drift,
    }
}

fn why(verdicts: &[Verdict]) -> Vec<String> {
    let is_group = |verdict: &Verdict| matches!(verdict.subject, drift::Subject::Group(_));
    let is_news = |verdict: &&Verdict| {
        !is_group(verdict) && matches!(verdict.state, DriftState::Suspect | DriftState::Drifted)
    };
    let sentence = |verdict: &Verdict| format!("{}: {}", verdict.subject, verdict.why);
    verdicts.iter().filter(is_news).map(sentence).collect()
}

/// One window a line: an array for programs, a table for people.
struct Printer {
    format: Format,
    out: BufWriter<io::Stdout>,
    printed: usize,
    lines: Vec<[String; 5]>,
}

impl Printer {
    fn new(format: Format) -> Self {
        Self { format, out: BufWriter::new(io::stdout()), printed: 0, lines: Vec::new() }
    }

    fn print(&mut self, judged: &Judged) -> anyhow::Result<()> {
        self.printed += 1;
        if matches!(self.format, Format::Table) {
            let alarm = serde_json::to_value(judged.alarm)?;
            let verdict = serde_json::to_value(judged.verdict)?;
            let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let why = judged.why.first().cloned().unwrap_or_default();
            let (index, rows) = (judged.index.to_string(), judged.rows.to_string());
            self.lines.push([index, rows, word(&verdict), word(&alarm), why]);
            return Ok(());
        }
        let before = if self.printed == 1 { "[\n" } else { ",\n" };
        self.out.write_all(before.as_bytes())?;
        serde_json::to_writer(&mut self.out, judged)?;
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<()> {
        ensure!(self.printed > 0, "there is no window to judge");
        match self.format {
            Format::Json => self.out.write_all(b"\n]\n")?,
            Format::Table => {
                let table = table(["WINDOW", "ROWS", "VERDICT", "ALARM", "WHY"], self.lines);
                writeln!(self.out, "{table}")?;
            }
        }
        Ok(self.out.flush()?)
    }
}
