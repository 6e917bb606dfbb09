// What the form says, as a plan with counts, and as a command.

import { useLocale } from "../../i18n/language";
import { CopyLine } from "../../ui/copy";
import { commandOf, type Draft } from "./draft";

export function PlanInWords({ draft, devices }: { draft: Draft; devices: number | undefined }) {
  const { say, number, duration } = useLocale();
  const upTo = (percent: number) => (devices === undefined ? "…" : number(Math.ceil((devices * percent) / 100)));
  return (
    <div className="stack">
      <p>{say("newRollout.planHead", { image: `${draft.model}@${draft.version}`, devices: devices === undefined ? "…" : number(devices) })}</p>
      <ol className="plan-waves">
        {draft.waves.map((wave, index) => (
          <li key={index}>
            <strong>{wave.name || say("wave.numbered", { number: index + 1 })}</strong>:{" "}
            {say("newRollout.planWave", { devices: upTo(wave.percent), limit: `${number(draft.maxBadPercent)} %` })}
            {wave.soakMinutes > 0 && <> {say("newRollout.planSoak", { duration: duration(wave.soakMinutes * 60) })}</>}
          </li>
        ))}
      </ol>
      <p>{say("newRollout.planTrial", { duration: duration(draft.trialMinutes * 60) })}</p>
      <CopyLine text={commandOf(draft)} label={say("rollback.command")} />
    </div>
  );
}
