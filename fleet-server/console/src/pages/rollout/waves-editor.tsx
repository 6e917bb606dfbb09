// The waves of a rollout that is being written.

import { useLocale } from "../../i18n/language";
import { Button } from "../../ui/basics";
import { Icon } from "../../ui/icon";
import type { DraftWave } from "./draft";

export function WavesEditor({ waves, onWaves }: { waves: DraftWave[]; onWaves: (waves: DraftWave[]) => void }) {
  const { say } = useLocale();
  const change = (index: number, part: Partial<DraftWave>) =>
    onWaves(waves.map((wave, at) => (at === index ? { ...wave, ...part } : wave)));
  const add = () => onWaves([...waves, { name: "", percent: 100, soakMinutes: 0 }]);
  return (
    <div className="stack">
      {waves.map((wave, index) => (
        // Waves have no id; a row keeps its place.
        <fieldset key={index} className="wave-row">
          <legend>{say("wave.numbered", { number: index + 1 })}</legend>
          <label className="field">
            <span>{say("newRollout.waveName")}</span>
            <input value={wave.name} onChange={(event) => change(index, { name: event.target.value })} />
          </label>
          <NumberField label={say("newRollout.upTo")} unit="%" max={100} value={wave.percent} onValue={(percent) => change(index, { percent })} />
          <NumberField label={say("newRollout.soak")} unit={say("newRollout.minutes")} max={10_080} value={wave.soakMinutes} onValue={(soakMinutes) => change(index, { soakMinutes })} />
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
        <Button icon="plus" onClick={add}>{say("newRollout.addWave")}</Button>
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
        <span className="muted">{unit}</span>
      </span>
    </label>
  );
}
