// What can be done with a rollout. The server says what is allowed, and why something is not.

import { useMutation } from "@tanstack/react-query";
import { lazy, Suspense, useState } from "react";
import type { Action, AllowedAction, RolloutView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { wishRollback } from "../../rollback/wish";
import { Button } from "../../ui/basics";
import type { IconName } from "../../ui/icon";
import { actOnRollout } from "../../api/calls";
import { queryClient } from "../../api/queries";

const ReasonDialog = lazy(() => import("./reason").then((module) => ({ default: module.ReasonDialog })));

const icons: Record<Action, IconName> = {
  start: "running",
  pause: "pause",
  resume: "running",
  promote: "arrow",
  abort: "close",
  retry: "running",
  rollback: "back",
  approve: "check",
  reject: "close",
};

export type PlainAction = Exclude<Action, "rollback">;

export function Actions({ rollout }: { rollout: RolloutView }) {
  const { say } = useLocale();
  const [asked, setAsked] = useState<PlainAction>();
  const act = useMutation({
    mutationFn: ({ action, reason }: { action: PlainAction; reason: string }) => actOnRollout(rollout.id, action, reason),
    onSuccess: (view) => {
      queryClient.setQueryData(["rollout", view.id], view);
      setAsked(undefined);
    },
  });
  const begin = (action: Action) => {
    if (action === "rollback") wishRollback({ model: rollout.model, filter: rollout.filter });
    else setAsked(action);
  };
  const refused = rollout.allowed_actions.filter(({ refused: why }) => why != null);
  return (
    <div className="actions">
      <div className="actions-row" role="group" aria-label={say("rollout.actions")}>
        {rollout.allowed_actions.map((allowed) => <ActionButton key={allowed.action} allowed={allowed} onAct={begin} />)}
      </div>
      {refused.length > 0 && (
        <details className="refused">
          <summary>{say("rollout.refused", { count: refused.length })}</summary>
          <ul>
            {refused.map(({ action, refused: why }) => (
              <li key={action} id={`refused-${action}`}><strong>{say(`action.${action}`)}</strong>: {why}</li>
            ))}
          </ul>
        </details>
      )}
      <Suspense fallback={null}>
        {asked && (
          <ReasonDialog
            action={asked}
            rollout={rollout}
            isPending={act.isPending}
            error={act.error}
            onReason={(reason) => act.mutate({ action: asked, reason })}
            onClose={() => {
              act.reset();
              setAsked(undefined);
            }}
          />
        )}
      </Suspense>
    </div>
  );
}

/** A refused action stays in sight and in reach, so that its reason can be read. */
function ActionButton({ allowed, onAct }: { allowed: AllowedAction; onAct: (action: Action) => void }) {
  const { say } = useLocale();
  const isRefused = allowed.refused != null;
  return (
    <Button
      look={allowed.action === "rollback" ? "danger" : "plain"}
      icon={icons[allowed.action]}
      aria-disabled={isRefused}
      title={allowed.refused ?? undefined}
      aria-describedby={isRefused ? `refused-${allowed.action}` : undefined}
      onClick={() => {
        if (!isRefused) onAct(allowed.action);
      }}
    >
      {say(`action.${allowed.action}`)}
    </Button>
  );
}
