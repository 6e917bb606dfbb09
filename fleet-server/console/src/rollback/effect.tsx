// What a rollback would do, in counts.

import type { UseQueryResult } from "@tanstack/react-query";
import type { RollbackResult } from "../api/types";
import { useLocale } from "../i18n/language";
import { Empty } from "../ui/basics";
import { ProblemNote, Waiting } from "../ui/loaded";

export function RollbackEffect({ query }: { query: UseQueryResult<RollbackResult> }) {
  const { say } = useLocale();
  return (
    <section className="effect" aria-label={say("rollback.effect")} aria-live="polite" aria-busy={query.isFetching}>
      <h3>{say("rollback.effect")}</h3>
      {query.isError ? (
        <ProblemNote error={query.error} />
      ) : query.data ? (
        <EffectCounts effect={query.data} />
      ) : (
        <Waiting />
      )}
    </section>
  );
}

function EffectCounts({ effect }: { effect: RollbackResult }) {
  const { say, number } = useLocale();
  const penalised = (effect.steps ?? []).reduce((sum, step) => sum + step.penalised, 0);
  if (effect.devices === 0) return <Empty icon="info">{say("rollback.nothing", { version: effect.version })}</Empty>;
  return (
    <>
      <p className="effect-main">
        <strong>{number(effect.devices)}</strong>
        <span>{say("rollback.effectDevices", { count: effect.devices, version: effect.version })}</span>
      </p>
      <ul className="effect-list">
        {(effect.steps?.length ?? 0) > 1 &&
          effect.steps?.map((step) => (
            <li key={step.version}>{say("rollback.step", { count: step.devices, version: step.version })}</li>
          ))}
        <li>{say("rollback.withoutDownload", { count: effect.without_download })}</li>
        <li>{say("rollback.withDownload", { count: effect.devices - effect.without_download })}</li>
        <li>
          {effect.quarantined.length > 0
            ? say(effect.is_quarantine_scoped ? "rollback.quarantinesHere" : "rollback.quarantines", { versions: effect.quarantined.join(", ") })
            : say("rollback.quarantinesNone")}
        </li>
        <li>
          {effect.superseded.length > 0
            ? say("rollback.supersedes", { rollouts: effect.superseded.join(", ") })
            : say("rollback.supersedesNone")}
        </li>
        {(effect.reverting ?? []).length > 0 && <li>{say("rollback.reverts", { rollouts: (effect.reverting ?? []).join(", ") })}</li>}
        {(effect.reverting_in_part ?? []).length > 0 && (
          <li>{say("rollback.revertsInPart", { rollouts: (effect.reverting_in_part ?? []).join(", ") })}</li>
        )}
        {penalised > 0 && <li>{say("rollback.penalised", { count: penalised })}</li>}
      </ul>
      <Untouched effect={effect} />
    </>
  );
}

/** Devices that are named; the rest is counted. */
const NAMED_MAX = 8;

function Untouched({ effect }: { effect: RollbackResult }) {
  const { say } = useLocale();
  const named = (effect.untouched ?? []).slice(0, NAMED_MAX);
  const count = effect.untouched_devices ?? 0;
  if (count === 0) return null;
  return (
    <>
      <h3>{say("rollback.untouched", { count })}</h3>
      <ul className="effect-list">
        {named.map(({ device, why }) => <li key={device}><strong>{device}</strong>: {why}</li>)}
        {count > named.length && <li>{say("rollback.untouchedMore", { count: count - named.length })}</li>}
      </ul>
    </>
  );
}
