// One verdict: why, the distributions that it compares, how it came to be, and the same elsewhere.

import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { driftHistoryQuery, driftSeriesQuery, histogramQuery } from "../../api/queries";
import type { DriftView } from "../../api/types";
import { Histogram } from "../../charts/histogram";
import { Series } from "../../charts/series";
import { useLocale } from "../../i18n/language";
import { Age, Empty, Facts, Panel } from "../../ui/basics";
import { ChooseInSight } from "../../ui/choose";
import { Loaded } from "../../ui/loaded";
import { DriftMark } from "../../ui/mark";
import { VersionLink } from "../../ui/model-link";
import { scopesOf } from "./order";
import { subjectText } from "./subject";

interface DriftDetailProps {
  verdict: DriftView;
  verdicts: DriftView[];
  onChoose: (verdict: DriftView) => void;
}

/** Small pictures on one page; beyond them the table above is the better view. */
const SITES_MAX = 12;

export function DriftDetail({ verdict, verdicts, onChoose }: DriftDetailProps) {
  const { say } = useLocale();
  const { model, scope, subject } = verdict;
  const histogram = useQuery(histogramQuery({ model, scope, subject }));
  const others = verdicts.filter((one) => one.subject === subject && one.scope !== scope);
  const order = scopesOf(others);
  const sites = others.sort((left, right) => order.indexOf(left.scope) - order.indexOf(right.scope)).slice(0, SITES_MAX);
  return (
    <>
      <Panel title={say("drift.detail", { subject: subjectText(say, subject), scope })} aside={<DriftMark state={verdict.state} />}>
        <p className="drift-why">{verdict.why}</p>
        <div className="columns columns-wide">
          <section aria-label={say("drift.histogram")}>
            <h3>{say("drift.histogram")}</h3>
            <Loaded query={histogram}>{(view) => <Histogram histogram={view} />}</Loaded>
          </section>
          <section aria-label={say("drift.series")}>
            <h3>{say("drift.series")}</h3>
            <OverTime verdict={verdict} />
          </section>
        </div>
        <VerdictFacts verdict={verdict} />
      </Panel>
      {sites.length > 0 && (
        <Panel title={say("drift.elsewhere", { subject: subjectText(say, subject) })}>
          <ul className="multiples">
            {sites.map((site) => <Site key={site.scope} verdict={site} onChoose={onChoose} />)}
          </ul>
        </Panel>
      )}
    </>
  );
}

const SPANS = ["now", "hour", "day"] as const;
type Span = (typeof SPANS)[number];

/** How the value came to be: over the newest windows, or from what is kept for weeks and months. */
function OverTime({ verdict }: { verdict: DriftView }) {
  const { say } = useLocale();
  const [span, setSpan] = useState<Span>("now");
  const { model, scope, subject } = verdict;
  const of = { model, scope, subject };
  const newest = useQuery({ ...driftSeriesQuery(of), enabled: span === "now" });
  const past = useQuery({ ...driftHistoryQuery(of, span === "hour" ? "hour" : "day"), enabled: span !== "now" });
  return (
    <>
      <ChooseInSight
        label={say("drift.span")}
        options={SPANS.map((id) => ({ id, text: say(`drift.span.${id}`) }))}
        chosen={span}
        onChoose={(id) => setSpan(SPANS.find((one) => one === id) ?? "now")}
      />
      <Loaded query={span === "now" ? newest : past}>
        {(found) =>
          found.length < 2 ? (
            <Empty icon="queued">{say("drift.fewWindows")}</Empty>
          ) : (
            <Series points={found} threshold={verdict.threshold} />
          )
        }
      </Loaded>
    </>
  );
}

function VerdictFacts({ verdict }: { verdict: DriftView }) {
  const { say, number } = useLocale();
  return (
    <Facts
      rows={[
        [say("drift.value"), say("drift.valueOf", { value: verdict.value.toFixed(3), threshold: verdict.threshold.toFixed(3) })],
        [say("drift.metric"), <code key="metric">{verdict.metric}</code>],
        [say("drift.p"), verdict.p == null ? "—" : verdict.p < 0.001 ? "< 0.001" : verdict.p.toFixed(3)],
        [say("drift.rows"), verdict.skipped ? say("drift.rowsOf", { rows: number(verdict.rows), skipped: number(verdict.skipped) }) : number(verdict.rows)],
        [say("drift.version"), <VersionLink key="version" model={verdict.model} version={verdict.version} />],
        [say("drift.period"), <span key="period"><Age at={verdict.from} /> – <Age at={verdict.until} /></span>],
      ]}
    />
  );
}

function Site({ verdict, onChoose }: { verdict: DriftView; onChoose: (verdict: DriftView) => void }) {
  const { model, scope, subject } = verdict;
  const histogram = useQuery(histogramQuery({ model, scope, subject }));
  return (
    <li>
      <p className="multiple-head">
        <button type="button" className="link-button" onClick={() => onChoose(verdict)}>{scope}</button>
        <DriftMark state={verdict.state} />
        <span className="number muted">{verdict.value.toFixed(2)}</span>
      </p>
      <Loaded query={histogram}>{(view) => <Histogram histogram={view} isSmall />}</Loaded>
    </li>
  );
}
