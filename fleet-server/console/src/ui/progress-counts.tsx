// How many devices of a rollout are where, in the order in which a device goes through it.

import type { DeviceProgress, RolloutView } from "../api/types";
import { useLocale } from "../i18n/language";
import { type Segment, StackedBar } from "./bar";
import { ProgressMark, progressLooks } from "./mark";

const order: DeviceProgress[] = [
  "succeeded",
  "probation",
  "in-progress",
  "offered",
  "queued",
  "offline",
  "silent",
  "rolled-back",
  "failed",
  "rejected",
  "not-applicable",
  "superseded",
];

export function ProgressCounts({ progress }: { progress: RolloutView["progress"] }) {
  const { number } = useLocale();
  return (
    <ul className="progress-counts">
      {order
        .filter((state) => (progress[state] ?? 0) > 0)
        .map((state) => (
          <li key={state}>
            <ProgressMark progress={state} />
            <strong>{number(progress[state] ?? 0)}</strong>
          </li>
        ))}
    </ul>
  );
}

export function ProgressBar({ progress }: { progress: RolloutView["progress"] }) {
  const { say } = useLocale();
  const total = Object.values(progress).reduce((sum, count) => sum + count, 0);
  const segments = order.map((state): Segment => {
    const [tone] = progressLooks[state];
    return { key: state, label: say(`progress.${state}`), value: progress[state] ?? 0, className: `fill-${tone}` };
  });
  const done = progress.succeeded ?? 0;
  return <StackedBar segments={segments} label={say("rollout.doneOf", { done, total })} />;
}
