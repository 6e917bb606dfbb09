// One device: what it should run, what it says it runs, how it does, what happened.

import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { deviceQuery, timelineQuery } from "../api/queries";
import type { DeviceView } from "../api/types";
import { useLocale } from "../i18n/language";
import { useLiveDevice } from "../live/hooks";
import { wishRollback } from "../rollback/wish";
import { Age, Button, Labels, PageHeader, Panel } from "../ui/basics";
import { Loaded } from "../ui/loaded";
import { DeviceMark } from "../ui/mark";
import { Timeline } from "../ui/timeline";
import { Batches } from "./device/batches";
import { Forget } from "./device/forget";
import { Health } from "./device/health";
import { Identity } from "./device/identity";
import { Slots } from "./device/slots";
import { TryIt } from "./device/try";
import "../styles/devices.css";

const route = getRouteApi("/shell/devices/$device");

export function DevicePage() {
  const { device: id } = route.useParams();
  const device = useQuery(deviceQuery(id));
  return (
    <>
      {!device.data && <PageHeader title={id} />}
      <Loaded query={device}>{(view) => <Sections key={view.id} read={view} readAt={device.dataUpdatedAt} />}</Loaded>
    </>
  );
}

function Sections({ read, readAt }: { read: DeviceView; readAt: number }) {
  const { say, number } = useLocale();
  const device = useLiveDevice(read, readAt);
  const timeline = useQuery(timelineQuery(device.id));
  const isBehind = device.reported_generation < device.desired_generation;
  return (
    <>
      <PageHeader title={device.id} hint={<Labels labels={device.labels} />}>
        <DeviceMark state={device.state} />
        <span className="muted">{say("device.seen")} <Age at={device.seen_at} /></span>
        <Button
          icon="back"
          onClick={() => {
            const model = device.slots[0]?.model;
            wishRollback({ filter: `id:${device.id}`, ...(model ? { model } : {}) });
          }}
        >
          {say("device.rollBack")}
        </Button>
      </PageHeader>
      <Panel
        title={say("device.slots")}
        aside={
          <span className={isBehind ? "warn-text" : "muted"}>
            {say(isBehind ? "device.generationsBehind" : "device.generations", {
              desired: number(device.desired_generation),
              reported: number(device.reported_generation),
            })}
          </span>
        }
      >
        <Slots slots={device.slots} />
      </Panel>
      <div className="columns">
        <Panel title={say("device.health")} aside={device.health && <Age at={device.health.at} />}>
          <Health health={device.health} />
        </Panel>
        <Panel title={say("device.identity")}>
          <Identity device={device} />
        </Panel>
      </div>
      <Panel title={say("try.title")}>
        <TryIt device={device} />
      </Panel>
      <Panel title={say("batches.title")}>
        <Batches device={device} />
      </Panel>
      <Panel title={say("device.timeline")}>
        <Loaded query={timeline}>{({ items }) => <Timeline entries={items} />}</Loaded>
      </Panel>
      <Panel title={say("forget.panel")}>
        <Forget device={device.id} />
      </Panel>
    </>
  );
}

