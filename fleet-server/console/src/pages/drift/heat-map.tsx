// Subjects by scopes: a table whose cells are shaded by how near each value is to its threshold.

import { useState } from "react";
import type { DriftView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button, TableScroll } from "../../ui/basics";
import { Icon } from "../../ui/icon";
import { DriftMark, driftLooks } from "../../ui/mark";
import { degreeOf, firstSubjects, scopesOf, subjectsOf } from "./order";
import { subjectText } from "./subject";

interface DriftHeatMapProps {
  verdicts: DriftView[];
  chosen: DriftView | undefined;
  onChoose: (verdict: DriftView) => void;
}

export function DriftHeatMap({ verdicts, chosen, onChoose }: DriftHeatMapProps) {
  const { say } = useLocale();
  const [isAll, setIsAll] = useState(false);
  const scopes = scopesOf(verdicts);
  const all = subjectsOf(verdicts);
  const subjects = isAll ? all : firstSubjects(verdicts);
  return (
    <>
      <div className="fleet-legend">
        {(["drifted", "suspect", "steady", "too-few"] as const).map((state) => <DriftMark key={state} state={state} />)}
        {all.length > subjects.length || isAll ? (
          <Button look="quiet" aria-pressed={isAll} onClick={() => setIsAll(!isAll)}>{say("drift.all", { count: all.length })}</Button>
        ) : null}
      </div>
      <TableScroll label={say("drift.table")}>
        <table className="heat">
          <thead>
            <tr>
              <th scope="col">{say("drift.subject")}</th>
              {scopes.map((scope) => <th key={scope} scope="col">{scope}</th>)}
            </tr>
          </thead>
          <tbody>
            {subjects.map((subject) => (
              <tr key={subject}>
                <th scope="row" title={subject}>{subjectText(say, subject)}</th>
                {scopes.map((scope) => {
                  const verdict = verdicts.find((one) => one.subject === subject && one.scope === scope);
                  return (
                    <td key={scope}>
                      {verdict ? <Cell verdict={verdict} isChosen={verdict === chosen} onChoose={onChoose} /> : <span className="muted">—</span>}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </TableScroll>
    </>
  );
}

function Cell({ verdict, isChosen, onChoose }: { verdict: DriftView; isChosen: boolean; onChoose: (verdict: DriftView) => void }) {
  const { say } = useLocale();
  const [, icon] = driftLooks[verdict.state];
  const value = verdict.value.toFixed(2);
  const label = `${subjectText(say, verdict.subject)}, ${verdict.scope}: ${value}, ${say(`drift.state.${verdict.state}`)}`;
  return (
    <button
      type="button"
      className={`heat-cell heat-${heatOf(verdict)}`}
      aria-label={label}
      aria-pressed={isChosen}
      title={verdict.why}
      onClick={() => onChoose(verdict)}
    >
      {verdict.state !== "steady" && <Icon name={icon} size={12} />}
      {value}
    </button>
  );
}

/** Five steps of shade, the last two for what is over its threshold. */
function heatOf(verdict: DriftView): string {
  if (verdict.state === "too-few") return "none";
  const degree = degreeOf(verdict);
  if (degree >= 2) return "4";
  if (degree >= 1) return "3";
  if (degree >= 0.6) return "2";
  return degree >= 0.3 ? "1" : "0";
}
