// Why each device is where it is: reasons first, with the devices behind each.

import { useQuery } from "@tanstack/react-query";
import { whyQuery } from "../../api/queries";
import type { DeviceProgress, WhyView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Empty, TableScroll } from "../../ui/basics";
import { Loaded } from "../../ui/loaded";
import { ProgressMark } from "../../ui/mark";
import { DeviceLink } from "../../ui/model-link";

/** Devices named for one reason; the rest are counted. */
const NAMED_MAX = 12;

export interface Reason {
  progress: DeviceProgress;
  why: string;
  devices: WhyView[];
}

/** One entry per place and reason, those with most devices first; device names inside a reason do not part it. */
export function groupReasons(items: WhyView[]): Reason[] {
  const reasons = new Map<string, Reason>();
  for (const item of items) {
    const why = item.why.replaceAll(item.device, "…");
    const key = `${item.progress} ${why}`;
    const reason = reasons.get(key) ?? { progress: item.progress, why: item.why, devices: [] };
    reason.devices.push(item);
    reasons.set(key, reason);
  }
  return [...reasons.values()].sort((left, right) => right.devices.length - left.devices.length);
}

export function Why({ rollout }: { rollout: string }) {
  const { say, number } = useLocale();
  const why = useQuery(whyQuery(rollout));
  return (
    <Loaded query={why}>
      {({ items, total }) =>
        items.length === 0 ? (
          <Empty icon="queued">{say("rollout.noDevices")}</Empty>
        ) : (
          <TableScroll label={say("rollout.whyEach")}>
            <table className="table">
              <thead>
                <tr>
                  <th scope="col">{say("rollout.where")}</th>
                  <th scope="col" className="number">{say("rollout.count")}</th>
                  <th scope="col">{say("rollout.why")}</th>
                  <th scope="col">{say("rollout.devices")}</th>
                </tr>
              </thead>
              <tbody>
                {groupReasons(items).map((reason) => (
                  <tr key={reason.progress + reason.why}>
                    <td><ProgressMark progress={reason.progress} /></td>
                    <td className="number">{number(reason.devices.length)}</td>
                    <td className="cell-text">{reason.why}</td>
                    <td>
                      <span className="labels">
                        {reason.devices.slice(0, NAMED_MAX).map(({ device }) => <DeviceLink key={device} device={device} />)}
                        {reason.devices.length > NAMED_MAX && (
                          <span className="muted">{say("rollout.andMore", { count: reason.devices.length - NAMED_MAX })}</span>
                        )}
                      </span>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
            {items.length < total && <p className="muted small">{say("fleet.part", { shown: items.length, total })}</p>}
          </TableScroll>
        )
      }
    </Loaded>
  );
}
