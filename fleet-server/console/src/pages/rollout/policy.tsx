// When a rollout begins and disturbs devices, and how many at a time.

import { useLocale } from "../../i18n/language";
import { type Draft, newWindow } from "./draft";
import { NumberField, TextField, UnitField } from "./waves-editor";

interface PolicyProps {
  draft: Draft;
  onChange: (part: Partial<Draft>) => void;
}

const WEEK = [0, 1, 2, 3, 4, 5, 6] as const;

export function WhenFields({ draft, onChange }: PolicyProps) {
  const { say } = useLocale();
  const { window } = draft;
  return (
    <div className="stack">
      <div className="field-row">
        <label className="field">
          <span>{say("newRollout.startAt")}</span>
          <input type="datetime-local" value={draft.startAt} onChange={(event) => onChange({ startAt: event.target.value })} />
        </label>
        <NumberField label={say("newRollout.tail")} unit={say("newRollout.days")} max={90} value={draft.tailDays} onValue={(tailDays) => onChange({ tailDays })} />
      </div>
      <label className="check">
        <input type="checkbox" checked={window !== undefined} onChange={(event) => onChange({ window: event.target.checked ? newWindow : undefined })} />{" "}
        {say("newRollout.window")} <span className="muted small">{say("newRollout.windowHint")}</span>
      </label>
      {window && (
        <>
          <fieldset className="days">
            <legend>{say("newRollout.windowDays")}</legend>
            {WEEK.map((day) => (
              <label key={day} className="check">
                <input type="checkbox" checked={(window.days & (1 << day)) !== 0} onChange={() => onChange({ window: { ...window, days: window.days ^ (1 << day) } })} />{" "}
                {say(`weekday.${day}`)}
              </label>
            ))}
          </fieldset>
          <div className="field-row">
            <ClockField label={say("newRollout.from")} value={window.from} onValue={(from) => onChange({ window: { ...window, from } })} />
            <ClockField label={say("newRollout.to")} value={window.to} onValue={(to) => onChange({ window: { ...window, to } })} />
          </div>
        </>
      )}
    </div>
  );
}

function ClockField({ label, value, onValue }: { label: string; value: string; onValue: (value: string) => void }) {
  return (
    <label className="field">
      <span>{label}</span>
      <input type="time" value={value} onChange={(event) => onValue(event.target.value)} />
    </label>
  );
}

export function BudgetFields({ draft, onChange }: PolicyProps) {
  const { say } = useLocale();
  return (
    <div className="field-row">
      <TextField label={say("newRollout.budgetLabel")} value={draft.budgetLabel} onValue={(budgetLabel) => onChange({ budgetLabel })} />
      {draft.budgetLabel.trim() !== "" && (
        <>
          <NumberField label={say("newRollout.budgetSize")} unit="" max={1_000_000} value={draft.budgetAmount} onValue={(budgetAmount) => onChange({ budgetAmount })} />
          <UnitField label={say("newRollout.unit")} unit={draft.budgetUnit} onUnit={(budgetUnit) => onChange({ budgetUnit })} />
        </>
      )}
    </div>
  );
}
