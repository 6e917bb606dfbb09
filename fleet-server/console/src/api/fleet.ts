// Devices for the map of the fleet: read page by page, so that no answer is large, and not without end.

import { queryOptions } from "@tanstack/react-query";
import { listDevices } from "./calls";
import type { DeviceView } from "./types";

/** About 200 KB of JSON. */
const PAGE = 150;
/** As many squares as a person can take in; beyond them the map says that it shows a part. */
const DEVICES_MAX = 1_500;
const READ_AGAIN_MS = 60_000;

export interface Fleet {
  devices: DeviceView[];
  total: number;
}

export const fleetQuery = queryOptions({
  queryKey: ["devices", "fleet"],
  queryFn: ({ signal }) => readFleet(signal),
  refetchInterval: READ_AGAIN_MS,
});

async function readFleet(signal: AbortSignal): Promise<Fleet> {
  const devices: DeviceView[] = [];
  let cursor: string | undefined;
  for (;;) {
    const page = await listDevices({ limit: PAGE, ...(cursor ? { cursor } : {}) }, signal);
    devices.push(...page.items);
    cursor = page.next_cursor ?? undefined;
    if (!cursor || devices.length >= DEVICES_MAX) return { devices, total: page.total };
  }
}
