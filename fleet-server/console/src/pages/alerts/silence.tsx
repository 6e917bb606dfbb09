// Lets nobody be told of an alert, and of those like it, for a while.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { silenceAlerts } from "../../api/calls";
import { queryClient } from "../../api/queries";
import type { AlertView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button } from "../../ui/basics";
import { ProblemNote } from "../../ui/loaded";

const HOUR_S = 3600;

/** What tells an alert and its like from others: its kind, and the narrowest place that it names. */
export function likeOf({ kind, labels }: Pick<AlertView, "kind" | "labels">): string[] {
  const place = ["device", "rule", "rollout", "site", "model"].find((name) => labels[name] !== undefined);
  return [`kind=${kind}`, ...(place === undefined ? [] : [`${place}=${labels[place]}`])];
}

export function Silence({ alert }: { alert: AlertView }) {
  const { say } = useLocale();
  const [isOpen, setIsOpen] = useState(false);
  if (!isOpen) {
    return <Button look="quiet" onClick={() => setIsOpen(true)}>{say("alerts.silence")}</Button>;
  }
  return <SilenceForm alert={alert} onDone={() => setIsOpen(false)} />;
}

function SilenceForm({ alert, onDone }: { alert: AlertView; onDone: () => void }) {
  const { say } = useLocale();
  const [matchers, setMatchers] = useState(likeOf(alert).join(" "));
  const [hours, setHours] = useState("2");
  const [reason, setReason] = useState("");
  const silence = useMutation({
    mutationFn: () =>
      silenceAlerts({
        matchers: matchers.split(/\s+/).filter((word) => word !== ""),
        reason: reason.trim(),
        for_s: Math.round(Number(hours) * HOUR_S),
      }),
    onSuccess: () => {
      onDone();
      void queryClient.invalidateQueries({ queryKey: ["silences"] });
      return queryClient.invalidateQueries({ queryKey: ["alerts"] });
    },
  });
  return (
    <form
      className="form-row"
      onSubmit={(event) => {
        event.preventDefault();
        silence.mutate();
      }}
    >
      <label className="field">
        <span>{say("alerts.silenceWhich")}</span>
        <input required value={matchers} onChange={(event) => setMatchers(event.target.value)} />
      </label>
      <label className="field">
        <span>{say("alerts.silenceHours")}</span>
        <input required type="number" min="0.1" max="744" step="0.1" value={hours} onChange={(event) => setHours(event.target.value)} />
      </label>
      <label className="field">
        <span>{say("alerts.silenceReason")}</span>
        <input required value={reason} onChange={(event) => setReason(event.target.value)} />
      </label>
      <Button type="submit" look="main" disabled={silence.isPending}>{say("alerts.silence")}</Button>
      {silence.isError && <ProblemNote error={silence.error} />}
    </form>
  );
}
