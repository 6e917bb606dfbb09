// Whether the person is being asked to confirm, for whoever waits for it.

import { useEffect, useState } from "react";
import { confirmThrough } from "../api/client";

/** Called once with whether the person has confirmed. */
export type OnEnd = (isConfirmed: boolean) => void;

/** What to call when the question is answered; undefined while nothing is asked. */
export function useConfirmation(): OnEnd | undefined {
  const [asked, setAsked] = useState<{ end: OnEnd }>();
  useEffect(
    () =>
      confirmThrough(
        () =>
          new Promise((resolve) => {
            setAsked((before) => {
              // Of two questions at a time the first is given up: one answer cannot be for both.
              before?.end(false);
              return { end: resolve };
            });
          }),
      ),
    [],
  );
  return (
    asked &&
    ((isConfirmed) => {
      setAsked(undefined);
      asked.end(isConfirmed);
    })
  );
}
