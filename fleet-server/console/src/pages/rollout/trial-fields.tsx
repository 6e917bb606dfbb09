// By what each device tries the version, before it makes it live and after.

import { useLocale } from "../../i18n/language";
import type { Draft } from "./draft";
import { type DraftBehaviour, type DraftShadow, newBehaviour, newShadow } from "./trial";
import { NumberField } from "./waves-editor";

interface TrialProps {
  draft: Draft;
  onChange: (part: Partial<Draft>) => void;
}

export function BehaviourFields({ draft: { behaviour }, onChange }: TrialProps) {
  const { say } = useLocale();
  const change = (part: Partial<DraftBehaviour>) => behaviour && onChange({ behaviour: { ...behaviour, ...part } });
  return (
    <div className="stack">
      <label className="check">
        <input type="checkbox" checked={behaviour !== undefined} onChange={(event) => onChange({ behaviour: event.target.checked ? newBehaviour : undefined })} />{" "}
        {say("newRollout.behaviour")} <span className="muted small">{say("newRollout.behaviourHint")}</span>
      </label>
      {behaviour && (
        <div className="field-row">
          <NumberField label={say("newRollout.latencyRise")} unit="%" max={900} value={behaviour.latencyRisePercent} onValue={(latencyRisePercent) => change({ latencyRisePercent })} />
          <NumberField label={say("newRollout.confidenceDrop")} unit="%" max={100} value={behaviour.confidenceDropPercent} onValue={(confidenceDropPercent) => change({ confidenceDropPercent })} />
          <NumberField label={say("newRollout.classLoss")} unit="%" max={100} value={behaviour.classLossPercent} onValue={(classLossPercent) => change({ classLossPercent })} />
          <NumberField label={say("newRollout.steady")} unit={say("newRollout.minutes")} max={1440} value={behaviour.steadyMinutes} onValue={(steadyMinutes) => change({ steadyMinutes })} />
        </div>
      )}
    </div>
  );
}

export function ShadowFields({ draft: { shadow }, onChange }: TrialProps) {
  const { say } = useLocale();
  const change = (part: Partial<DraftShadow>) => shadow && onChange({ shadow: { ...shadow, ...part } });
  return (
    <div className="stack">
      <label className="check">
        <input type="checkbox" checked={shadow !== undefined} onChange={(event) => onChange({ shadow: event.target.checked ? newShadow : undefined })} />{" "}
        {say("newRollout.shadow")} <span className="muted small">{say("newRollout.shadowHint")}</span>
      </label>
      {shadow && (
        <>
          <div className="field-row">
            <NumberField label={say("newRollout.shadowFor")} unit={say("newRollout.minutes")} max={10_080} value={shadow.minutes} onValue={(minutes) => change({ minutes })} />
            <NumberField label={say("newRollout.agreement")} unit="%" max={99.9} value={shadow.agreementPercent} onValue={(agreementPercent) => change({ agreementPercent })} />
            <NumberField label={say("newRollout.shadowRows")} unit="" max={10_000_000} value={shadow.rows} onValue={(rows) => change({ rows })} />
            <NumberField label={say("newRollout.disagreement")} unit="%" max={100} value={shadow.disagreementPercent ?? leftBy(shadow)} onValue={(disagreementPercent) => change({ disagreementPercent })} />
          </div>
          <div className="field-row">
            <NumberField label={say("newRollout.shadowCpu")} unit="%" max={100} value={shadow.cpuPercent} onValue={(cpuPercent) => change({ cpuPercent })} />
            <NumberField label={say("newRollout.split")} unit="%" max={50} value={shadow.splitPercent} onValue={(splitPercent) => change({ splitPercent })} />
            <NumberField label={say("newRollout.tolerance")} unit="%" max={50} value={shadow.tolerancePercent} onValue={(tolerancePercent) => change({ tolerancePercent })} />
            <label className="field">
              <span>{say("newRollout.quiet")}</span>
              <select value={shadow.quiet} onChange={(event) => change({ quiet: event.target.value === "fail" ? "fail" : "pass" })}>
                <option value="pass">{say("newRollout.quiet.pass")}</option>
                <option value="fail">{say("newRollout.quiet.fail")}</option>
              </select>
            </label>
          </div>
        </>
      )}
    </div>
  );
}

/** What the agreement of each device leaves is what all of them together may disagree on. */
function leftBy({ agreementPercent }: DraftShadow): number {
  return agreementPercent > 0 ? Math.round((100 - agreementPercent) * 10) / 10 : 100;
}
