// Stops all rollouts, or lets them go on: one field, one button.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { haltAll, resumeAll } from "../api/calls";
import { haltQuery, queryClient } from "../api/queries";
import { useLocale } from "../i18n/language";
import { Button } from "../ui/basics";
import { CopyLine } from "../ui/copy";
import { ProblemNote } from "../ui/loaded";
import { DialogBox } from "../ui/modal";
import { commandOf } from "./command";
import { type HaltWish, wishHalt } from "./wish";

export function HaltDialog({ wish }: { wish: HaltWish }) {
  const { say } = useLocale();
  const [reason, setReason] = useState("");
  const close = () => wishHalt(undefined);
  const act = useMutation({
    mutationFn: () => (wish === "halt" ? haltAll(reason.trim()) : resumeAll(reason.trim())),
    onSuccess: (view) => {
      queryClient.setQueryData(haltQuery.queryKey, view);
      void queryClient.invalidateQueries();
      close();
    },
  });
  const isMissing = wish === "halt" && reason.trim() === "";
  return (
    <DialogBox title={say(`halt.${wish}.title`)} isDanger={wish === "halt"} onClose={close}>
      <form
        className="dialog-form"
        onSubmit={(event) => {
          event.preventDefault();
          if (!isMissing && !act.isPending) act.mutate();
        }}
      >
        <div className="dialog-body stack">
          <p>{say(`halt.${wish}.means`)}</p>
          <label className="field">
            <span>{say("halt.reason")}</span>
            <textarea
              rows={2}
              required={wish === "halt"}
              value={reason}
              placeholder={say("rollback.reasonHint")}
              onChange={(event) => setReason(event.target.value)}
            />
          </label>
          <div className="field">
            <span>{say("rollback.command")}</span>
            <CopyLine text={commandOf(wish, reason)} label={say("rollback.command")} />
          </div>
          {act.isError && <ProblemNote error={act.error} />}
        </div>
        <div className="dialog-foot">
          <p className="muted" aria-live="polite" id="halt-missing">{isMissing && say("rollback.missing.reason")}</p>
          <Button onClick={close}>{say("common.cancel")}</Button>
          <Button
            look={wish === "halt" ? "danger" : "main"}
            type="submit"
            aria-disabled={isMissing || act.isPending}
            aria-describedby="halt-missing"
          >
            {say(`halt.${wish}.button`)}
          </Button>
        </div>
      </form>
    </DialogBox>
  );
}
