// Requests per second since the page was opened: the server tells only the present value.

import { useSyncExternalStore } from "react";

export interface Rate {
  at: number;
  perSecond: number;
}

/** Ten minutes at one value in five seconds. */
const RATES_MAX = 120;

let rates: readonly Rate[] = [];
const listeners = new Set<() => void>();

export function recordRate(at: number, perSecond: number): void {
  const newest = rates.at(-1);
  if (newest && at <= newest.at) return;
  rates = [...rates, { at, perSecond }].slice(-RATES_MAX);
  for (const listener of listeners) listener();
}

export function useRates(): readonly Rate[] {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => rates,
  );
}
