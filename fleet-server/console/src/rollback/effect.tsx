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
  if (effect.devices === 0) return <Empty icon="info">{say("rollback.nothing", { version: effect.version })}</Empty>;
  return (
    <>
      <p className="effect-main">
        <strong>{number(effect.devices)}</strong>
        <span>{say("rollback.effectDevices", { count: effect.devices, version: effect.version })}</span>
      </p>
      <ul className="effect-list">
        <li>{say("rollback.withoutDownload", { count: effect.without_download })}</li>
        <li>{say("rollback.withDownload", { count: effect.devices - effect.without_download })}</li>
        <li>
          {effect.quarantined.length > 0
            ? say("rollback.quarantines", { versions: effect.quarantined.join(", ") })
            : say("rollback.quarantinesNone")}
        </li>
        <li>
          {effect.superseded.length > 0
            ? say("rollback.supersedes", { rollouts: effect.superseded.join(", ") })
            : say("rollback.supersedesNone")}
        </li>
      </ul>
    </>
  );
}
