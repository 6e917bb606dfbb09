// What is known to suggest in filters: labels of devices that were read, models and their versions.

import { type InfiniteData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo } from "react";
import { modelsQuery } from "../api/queries";
import type { DeviceView, Page } from "../api/types";
import type { Known } from "./suggest";

export function useKnown(): Known {
  const client = useQueryClient();
  const models = useQuery(modelsQuery).data;
  return useMemo(() => {
    const lists = client.getQueriesData<InfiniteData<Page<DeviceView>>>({ queryKey: ["devices", "list"] });
    const devices = lists.flatMap(([, list]) => list?.pages ?? []).flatMap((page) => page.items);
    const versions = models?.items.map(({ name, versions: all }) => [name, all.map(({ version }) => version)] as const);
    return { labels: labelsOf(devices), models: Object.fromEntries(versions ?? []) };
  }, [client, models]);
}

export function labelsOf(devices: DeviceView[]): Record<string, string[]> {
  const values = new Map<string, Set<string>>();
  for (const device of devices) {
    for (const [key, value] of Object.entries(device.labels)) {
      values.set(key, (values.get(key) ?? new Set()).add(value));
    }
  }
  return Object.fromEntries([...values].map(([key, all]) => [key, [...all]]));
}
