// The waves of a rollout that is being written.

import { useLocale } from "../../i18n/language";
import { Button } from "../../ui/basics";
import { Icon } from "../../ui/icon";
import { type DraftWave, newWave, type Unit } from "./draft";

export function WavesEditor({ waves, onWaves }: { waves: DraftWave[]; onWaves: (waves: DraftWave[]) => void }) {
  const { say } = useLocale();
  const change = (index: number, part: Partial<DraftWave>) =>
    onWaves(waves.map((wave, at) => (at === index ? { ...wave, ...part } : wave)));
  return (
    <div className="stack">
      {waves.map((wave, index) => (
        // Waves have no id; a row keeps its place.
        <fieldset key={index} className="wave-row">
          <legend>{say("wave.numbered", { number: index + 1 })}</legend>
          <TextField label={say("newRollout.waveName")} value={wave.name} onValue={(name) => change(index, { name })} />
          <NumberField label={say("newRollout.upTo")} unit="" max={1_000_000} value={wave.amount} onValue={(amount) => change(index, { amount })} />
          <UnitField label={say("newRollout.unit")} unit={wave.unit} onUnit={(unit) => change(index, { unit })} />
          <NumberField label={say("newRollout.soak")} unit={say("newRollout.minutes")} max={10_080} value={wave.soakMinutes} onValue={(soakMinutes) => change(index, { soakMinutes })} />
          <TextField label={say("newRollout.waveFilter")} value={wave.filter} onValue={(filter) => change(index, { filter })} />
          <NumberField label={say("newRollout.minDevices")} unit="" max={1_000_000} value={wave.minDevices} onValue={(minDevices) => change(index, { minDevices })} />
          <button
            type="button"
            className="icon-button"
            aria-label={say("newRollout.removeWave", { number: index + 1 })}
            disabled={waves.length === 1}
            onClick={() => onWaves(waves.filter((_, at) => at !== index))}
          >
            <Icon name="close" />
          </button>
        </fieldset>
      ))}
      <div>
        <Button icon="plus" onClick={() => onWaves([...waves, newWave])}>{say("newRollout.addWave")}</Button>
      </div>
    </div>
  );
}

interface NumberFieldProps {
  label: string;
  unit: string;
  max: number;
  value: number;
  onValue: (value: number) => void;
}

export function NumberField({ label, unit, max, value, onValue }: NumberFieldProps) {
  return (
    <label className="field">
      <span>{label}</span>
      <span className="with-unit">
        <input type="number" min={0} max={max} step="any" required value={Number.isNaN(value) ? "" : value} onChange={(event) => onValue(event.target.valueAsNumber)} />
        {unit !== "" && <span className="muted">{unit}</span>}
      </span>
    </label>
  );
}

export function TextField({ label, value, onValue }: { label: string; value: string; onValue: (value: string) => void }) {
  return (
    <label className="field">
      <span>{label}</span>
      <input value={value} onChange={(event) => onValue(event.target.value)} />
    </label>
  );
}

export function UnitField({ label, unit, onUnit }: { label: string; unit: Unit; onUnit: (unit: Unit) => void }) {
  const { say } = useLocale();
  return (
    <label className="field">
      <span>{label}</span>
      <select value={unit} onChange={(event) => onUnit(event.target.value === "count" ? "count" : "percent")}>
        <option value="percent">{say("newRollout.unit.percent")}</option>
        <option value="count">{say("newRollout.unit.count")}</option>
      </select>
    </label>
  );
}
