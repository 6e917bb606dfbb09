// The first look: is anything wrong, and what runs where.

import { useQuery } from "@tanstack/react-query";
import { useEffect } from "react";
import { statusQuery } from "../api/queries";
import type { Status } from "../api/types";
import { FleetMap } from "../charts/fleet-map";
import { useLocale } from "../i18n/language";
import { recordRate } from "../live/history";
import { Age, PageHeader, Panel } from "../ui/basics";
import { Loaded } from "../ui/loaded";
import { Adoption } from "./overview/adoption";
import { Attention } from "./overview/attention";
import { Counts } from "./overview/counts";
import { RunningRollouts } from "./overview/running";
import "../styles/overview.css";

/** The stream tells changes; ages and rates move without any. */
const LOOK_AGAIN_MS = 10_000;

export function OverviewPage() {
  const { say } = useLocale();
  const status = useQuery({ ...statusQuery, refetchInterval: LOOK_AGAIN_MS });
  return (
    <>
      <PageHeader title={say("overview.title")}>
        {status.data && <span className="muted">{say("overview.asOf")} <Age at={status.data.at} /></span>}
      </PageHeader>
      <Loaded query={status}>{(view) => <Sections status={view} />}</Loaded>
    </>
  );
}

function Sections({ status }: { status: Status }) {
  const { say } = useLocale();
  useEffect(() => recordRate(status.at, status.requests_per_s), [status]);
  return (
    <div className="overview">
      <Attention items={status.attention} />
      <Counts status={status} />
      <div className="overview-columns">
        <Panel title={say("overview.fleet")}>
          <FleetMap />
        </Panel>
        <div className="stack">
          <Panel title={say("overview.adoption")}>
            <Adoption adoption={status.adoption} />
          </Panel>
          <Panel title={say("overview.running")}>
            <RunningRollouts />
          </Panel>
        </div>
      </div>
    </div>
  );
}
