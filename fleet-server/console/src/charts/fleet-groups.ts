// Devices by the label that says most about where they are.

import type { DeviceView } from "../api/types";

export interface FleetGroup {
  name: string;
  devices: DeviceView[];
}

/** Groups that still can be told apart on one screen. */
const GROUPS_MAX = 24;
const PREFERRED = ["site", "region", "line", "plant", "zone"];

/** Groups by a label that most devices have and that makes a few groups; all in one group without such a label. */
export function groupFleet(devices: DeviceView[]): { label: string; groups: FleetGroup[] } {
  const label = PREFERRED.find((key) => isGood(key, devices)) ?? "";
  const groups = new Map<string, DeviceView[]>();
  for (const device of devices) {
    const name = label === "" ? "" : (device.labels[label] ?? "—");
    const group = groups.get(name);
    if (group) group.push(device);
    else groups.set(name, [device]);
  }
  const sorted = [...groups].sort(([left], [right]) => left.localeCompare(right));
  return { label, groups: sorted.map(([name, all]) => ({ name, devices: all })) };
}

function isGood(key: string, devices: DeviceView[]): boolean {
  const values = devices.flatMap((device) => device.labels[key] ?? []);
  return values.length * 2 > devices.length && new Set(values).size <= GROUPS_MAX;
}
