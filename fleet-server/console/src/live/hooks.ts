// What rows listen to.

import { useCallback, useSyncExternalStore } from "react";
import type { DeviceView } from "../api/types";
import { liveDevices } from "./connection";

/** The newest view of a device that was read at `readAt`. */
export function useLiveDevice(read: DeviceView, readAt: number): DeviceView {
  const subscribe = useCallback((listener: () => void) => liveDevices.subscribe(read.id, listener), [read.id]);
  return useSyncExternalStore(subscribe, () => liveDevices.newest(read.id, read, readAt));
}

const tickers = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

function everySecond(listener: () => void): () => void {
  tickers.add(listener);
  timer ??= setInterval(() => {
    for (const ticker of tickers) ticker();
  }, 1_000);
  return () => {
    tickers.delete(listener);
    if (tickers.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}

/** A text that depends on the time; renders again only when the text is another. */
export function useTicking(text: (now: number) => string): string {
  return useSyncExternalStore(everySecond, () => text(Date.now()));
}
