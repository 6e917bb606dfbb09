//! Looking back: how a subject stood in each hour or day.

use std::sync::Arc;

use sealift_protocol::api::HistoryPoint;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::profile::Baseline;
use sealift_protocol::report::ImageRef;

use super::sum::{Misfit, Sum, Sums};
use super::{History, HistoryError, Known};
use crate::drift::{Against, Case, Scope, Subject, Verdict, Window, judge};
use crate::store::spans::{Length, SpanKey, StoredSpan};

/// Spans in one answer.
pub(crate) const SPANS_MAX: u32 = 1_000;
/// Rows read for them: versions of a model live side by side.
const ROWS_MAX: u32 = 4 * SPANS_MAX;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) model: ModelName,
    pub(crate) scope: Scope,
    pub(crate) subject: Subject,
    pub(crate) length: Length,
    pub(crate) from: UnixMillis,
    pub(crate) until: UnixMillis,
}

impl History {
    /// How a subject stood in each span, oldest first; of two versions in one span, each by itself. Each span is judged alone.
    pub(crate) async fn look(&self, asked: &Question) -> Result<Vec<HistoryPoint>, HistoryError> {
        let spans = self.spans(asked).await?;
        let mut known = Known::new();
        let mut points = Vec::new();
        for (key, span) in spans {
            let image = ImageRef { version: span.version.clone(), index: key.digest };
            let Some(baseline) = self.baseline(&mut known, &key.model, &image).await? else {
                continue;
            };
            let point = self.point(&key, span, asked, &baseline);
            points.extend(point.map_err(HistoryError::Sum)?);
        }
        Ok(points)
    }

    /// The spans asked for. Days that are hours still are put together.
    async fn spans(&self, asked: &Question) -> Result<Vec<(SpanKey, StoredSpan)>, HistoryError> {
        let Question { model, scope, length, from, until, .. } = asked;
        let of = async |length| {
            self.store.spans((model, scope), length, (*from, *until), ROWS_MAX).await
        };
        let hours = of(Length::Hour).await?;
        if *length == Length::Hour {
            return Ok(hours);
        }
        let days = of(Length::Day).await?;
        by_day(days.into_iter().chain(hours)).map_err(HistoryError::Sum)
    }

    fn point(
        &self,
        key: &SpanKey,
        span: StoredSpan,
        asked: &Question,
        baseline: &Arc<Baseline>,
    ) -> Result<Option<HistoryPoint>, Misfit> {
        let Sum { version, errors, profile, .. } = Sum::read(span)?;
        let (rows, skipped) = (profile.rows(), profile.skipped());
        let until = key.from.plus(key.length.ms());
        let windows = [Window { from: key.from, until, profile }];
        let scope = key.scope.clone();
        let case = Case { scope, windows: &windows, against: Against::Baseline };
        let verdicts = judge(baseline, &[case], &[], &self.policy)?;
        let of_subject = verdicts.into_iter().filter(|verdict| verdict.subject == asked.subject);
        let excess = |verdict: &Verdict| verdict.value / verdict.threshold;
        let strongest = of_subject.max_by(|a, b| excess(a).total_cmp(&excess(b)));
        Ok(strongest.map(|verdict| HistoryPoint {
            from: key.from,
            until,
            version,
            rows,
            skipped,
            errors,
            metric: verdict.metric.to_string(),
            value: verdict.value,
            threshold: verdict.threshold,
            p: verdict.corrected_p,
            state: verdict.state,
        }))
    }
}

/// Hours put together to days, with days that are there already.
fn by_day(
    spans: impl Iterator<Item = (SpanKey, StoredSpan)>,
) -> Result<Vec<(SpanKey, StoredSpan)>, Misfit> {
    let mut sums = Sums::default();
    for (key, span) in spans {
        let from = Length::Day.floor(key.from);
        sums.add(SpanKey { length: Length::Day, from, ..key }, Sum::read(span)?)?;
    }
    let stored = |(key, sum): (SpanKey, Sum)| Ok((key, sum.stored()?));
    let mut days = sums.0.into_iter().map(stored).collect::<Result<Vec<_>, Misfit>>()?;
    days.sort_by_key(|(key, _)| (key.from, key.digest));
    Ok(days)
}
