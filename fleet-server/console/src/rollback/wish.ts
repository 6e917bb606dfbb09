// The wish to roll something back, from wherever it was expressed. The dialog is open while there is one.

import { useSyncExternalStore } from "react";

export interface RollbackWish {
  /** `team/name`. */
  model?: string;
  filter?: string;
  reason?: string;
}

let current: RollbackWish | undefined;
const listeners = new Set<() => void>();

export function wishRollback(wish: RollbackWish | undefined): void {
  current = wish;
  for (const listener of listeners) listener();
}

export function useRollbackWish(): RollbackWish | undefined {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );
}
