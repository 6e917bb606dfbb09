// What the form says, as a plan with counts, and as a file.

import { useLocale } from "../../i18n/language";
import { CopyLine } from "../../ui/copy";
import { type Draft, type DraftWave, rolloutOf } from "./draft";
import { yamlOf } from "./yaml";

export function PlanInWords({ draft, devices }: { draft: Draft; devices: number | undefined }) {
  const { say, number, duration } = useLocale();
  const yaml = yamlOf(rolloutOf(draft));
  const upTo = ({ unit, amount, filter }: DraftWave) => {
    if (unit === "count") return number(amount);
    // How many match a wave's own filter is for the server to say.
    return devices === undefined || filter.trim() !== "" ? "…" : number(Math.ceil((devices * amount) / 100));
  };
  const { latencyRisePercent = 0, confidenceDropPercent = 0, classLossPercent = 0 } = draft.behaviour ?? {};
  const share = (percent: number) => ({ share: `${number(percent)} %` });
  const rules = [
    ...(latencyRisePercent > 0 ? [say("newRollout.planLatency", share(latencyRisePercent))] : []),
    ...(confidenceDropPercent > 0 ? [say("newRollout.planConfidence", share(confidenceDropPercent))] : []),
    ...(classLossPercent > 0 ? [say("newRollout.planClass", share(classLossPercent))] : []),
  ];
  return (
    <div className="stack">
      <p>{say("newRollout.planHead", { image: `${draft.model}@${draft.version}`, devices: devices === undefined ? "…" : number(devices) })}</p>
      <ol className="plan-waves">
        {draft.waves.map((wave, index) => (
          <li key={index}>
            <strong>{wave.name || say("wave.numbered", { number: index + 1 })}</strong>:{" "}
            {say("newRollout.planWave", { devices: upTo(wave), limit: `${number(draft.maxBadPercent)} %` })}
            {wave.filter.trim() !== "" && <> {say("wave.filterIs", { filter: wave.filter.trim() })}.</>}
            {wave.soakMinutes > 0 && <> {say("newRollout.planSoak", { duration: duration(wave.soakMinutes * 60) })}</>}
          </li>
        ))}
      </ol>
      {draft.shadow && <p>{say("newRollout.planShadow", { duration: duration(draft.shadow.minutes * 60) })}</p>}
      <p>{say("newRollout.planTrial", { duration: duration(draft.trialMinutes * 60) })}</p>
      {rules.length > 0 && <p>{say("newRollout.planBehaviour", { duration: duration((draft.behaviour?.steadyMinutes ?? 0) * 60), rules: rules.join(", ") })}</p>}
      <details>
        <summary>{say("newRollout.yaml")}</summary>
        <pre className="yaml" tabIndex={0}>{yaml}</pre>
      </details>
      <CopyLine text={`fleetctl rollout create -f - <<'EOF'\n${yaml}EOF`} label={say("rollback.command")} />
    </div>
  );
}
