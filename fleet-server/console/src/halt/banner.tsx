// On every page while all rollouts are stopped: who, why, since when, and how many devices have confirmed it.

import { useQuery } from "@tanstack/react-query";
import { haltQuery } from "../api/queries";
import type { HaltView } from "../api/types";
import { useLocale } from "../i18n/language";
import { Age, Button } from "../ui/basics";
import { Icon } from "../ui/icon";
import { wishHalt } from "./wish";

export function HaltBanner() {
  const view = useQuery(haltQuery).data;
  return view?.halt ? <Banner view={view} halt={view.halt} /> : null;
}

function Banner({ view, halt }: { view: HaltView; halt: NonNullable<HaltView["halt"]> }) {
  const { say, number } = useLocale();
  const counts = { confirmed: number(view.confirmed), unconfirmed: number(view.unconfirmed), offline: number(view.offline) };
  return (
    <section className="halt-banner" aria-label={say("halt.banner")} role="status">
      <Icon name="critical" size={20} />
      <div>
        <p><strong>{say("halt.banner")}</strong> {halt.reason}</p>
        <p className="small">
          {say("halt.by", { by: halt.by })} · <Age at={halt.since} /> · {say("halt.confirmed", counts)}
        </p>
      </div>
      <Button onClick={() => wishHalt("resume")}>{say("halt.resume")}</Button>
    </section>
  );
}
