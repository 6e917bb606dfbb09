// Rollouts that are not finished.

import { useQuery } from "@tanstack/react-query";
import { rolloutsQuery } from "../../api/queries";
import type { RolloutState } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Empty } from "../../ui/basics";
import { Loaded } from "../../ui/loaded";
import { RolloutMark } from "../../ui/mark";
import { RolloutLink } from "../../ui/model-link";
import { ProgressBar } from "../../ui/progress-counts";

const unfinished: RolloutState[] = ["running", "paused", "halted", "completing", "reverting"];

export function RunningRollouts() {
  const { say } = useLocale();
  const rollouts = useQuery(rolloutsQuery);
  return (
    <Loaded query={rollouts}>
      {({ items }) => {
        const running = items.filter(({ state }) => unfinished.includes(state));
        if (running.length === 0) return <Empty icon="rollouts">{say("overview.noRollouts")}</Empty>;
        return (
          <ul className="running">
            {running.map((rollout) => (
              <li key={rollout.id}>
                <p>
                  <RolloutLink rollout={rollout.id} /> {rollout.model}@{rollout.version}
                  <RolloutMark state={rollout.state} />
                </p>
                <ProgressBar progress={rollout.progress} />
                <p className="muted small">{rollout.why}</p>
              </li>
            ))}
          </ul>
        );
      }}
    </Loaded>
  );
}
