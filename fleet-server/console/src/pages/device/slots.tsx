// Desired beside reported, model by model.

import type { Outcome, SlotView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Digest, Empty, TableScroll } from "../../ui/basics";
import { Mark, type Tone } from "../../ui/mark";
import type { IconName } from "../../ui/icon";
import { ModelLink, RolloutLink, VersionLink } from "../../ui/model-link";

export function Slots({ slots }: { slots: SlotView[] }) {
  const { say } = useLocale();
  if (slots.length === 0) return <Empty icon="models">{say("device.noSlots")}</Empty>;
  return (
    <TableScroll label={say("device.slots")}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("device.model")}</th>
            <th scope="col">{say("device.desired")}</th>
            <th scope="col">{say("device.reported")}</th>
            <th scope="col">{say("device.digest")}</th>
            <th scope="col">{say("device.phase")}</th>
            <th scope="col">{say("device.previous")}</th>
            <th scope="col">{say("device.providers")}</th>
            <th scope="col">{say("device.outcome")}</th>
          </tr>
        </thead>
        <tbody>
          {slots.map((slot) => <SlotRow key={slot.model} slot={slot} />)}
        </tbody>
      </table>
    </TableScroll>
  );
}

function SlotRow({ slot }: { slot: SlotView }) {
  const { say, dateTime } = useLocale();
  const { held } = slot;
  const isSettled = slot.desired === slot.serving;
  return (
    <tr>
      <th scope="row"><ModelLink model={slot.model} /></th>
      <td>
        <VersionLink model={slot.model} version={slot.desired} />
        {slot.rollout && <span className="muted small"> <RolloutLink rollout={slot.rollout} /></span>}
      </td>
      <td>
        <Mark tone={isSettled ? "ok" : "warn"} icon={isSettled ? "check" : "warning"}>
          {slot.serving ? say("device.serves", { version: slot.serving }) : say("device.servesNothing")}
        </Mark>
      </td>
      <td><Digest digest={slot.serving_digest} /></td>
      <td>{slot.phase ? say(`phase.${slot.phase}`) : <span className="muted">—</span>}
        {slot.halted && <p className="small">{say("halt.device", { reason: slot.halted.reason })}</p>}
        {slot.shadow && <Shadow shadow={slot.shadow} />}
        {held && <p className="small">{say("device.held", { until: dateTime(held.until), reason: held.reason })}</p>}
      </td>
      <td><VersionLink model={slot.model} version={slot.previous} /></td>
      <td><Providers providers={slot.providers} /></td>
      <td>{slot.outcome ? <OutcomeText outcome={slot.outcome} /> : <span className="muted">—</span>}</td>
    </tr>
  );
}

/** How the last version compares that was tried beside the live one. */
export function Shadow({ shadow }: { shadow: NonNullable<SlotView["shadow"]> }) {
  const { say, share, number } = useLocale();
  const { image: { version }, live: { version: live }, counts } = shadow;
  const { rows, agreed, requests, skipped, failed, answered, returned } = counts;
  const mean = (sum: number) => number(Math.round(sum / requests));
  return (
    <div className="small">
      <p>{rows > 0 ? say("device.shadow", { version, live, rows: number(rows), share: share(agreed / rows) }) : say("device.shadowNothing", { version, live })}</p>
      {requests > 0 && <p className="muted">{say("device.shadowTook", { took: mean(counts.shadow_us), live: mean(counts.live_us) })}</p>}
      {skipped + failed > 0 && <p className="muted">{say("device.shadowSkipped", { skipped: number(skipped), failed: number(failed) })}</p>}
      {answered + returned > 0 && <p className="muted">{say("device.shadowAnswered", { version, answered: number(answered), returned: number(returned) })}</p>}
    </div>
  );
}

/** Where the nodes of the graph really run: a graph that falls back to the processor shows here. */
function Providers({ providers }: { providers: SlotView["providers"] }) {
  const { say } = useLocale();
  if (providers.length === 0) return <span className="muted">—</span>;
  return (
    <ul className="plain-list">
      {providers.map(([provider, nodes]) => (
        <li key={provider}>
          {provider.replace(/ExecutionProvider$/, "")} <span className="muted">{say("device.nodes", { count: nodes })}</span>
        </li>
      ))}
    </ul>
  );
}

const looks: Record<Outcome["result"], readonly [Tone, IconName]> = {
  committed: ["ok", "check"],
  failed: ["bad", "critical"],
  rejected: ["bad", "revoked"],
  "not-applicable": ["idle", "close"],
  "rolled-back": ["bad", "back"],
  superseded: ["idle", "close"],
};

function OutcomeText({ outcome }: { outcome: Outcome }) {
  const { say } = useLocale();
  const [tone, icon] = looks[outcome.result];
  return (
    <div className="outcome">
      <Mark tone={tone} icon={icon}>{say(`outcome.${outcome.result}`, { version: outcome.image.version })}</Mark>{" "}
      <span className="muted small"><Age at={outcome.at} /></span>
      {outcome.reason && <p className="small">{outcome.reason}</p>}
      {outcome.code && <code className="small">{outcome.code}</code>}
    </div>
  );
}
