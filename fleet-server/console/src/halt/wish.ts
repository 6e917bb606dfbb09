// The wish to stop all rollouts, or to let them go on, from wherever it was expressed. The dialog is open while there is one.

import { useSyncExternalStore } from "react";

export type HaltWish = "halt" | "resume";

let current: HaltWish | undefined;
const listeners = new Set<() => void>();

export function wishHalt(wish: HaltWish | undefined): void {
  current = wish;
  for (const listener of listeners) listener();
}

export function useHaltWish(): HaltWish | undefined {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );
}
