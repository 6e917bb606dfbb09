// What an action does, and why it is taken.

import { useState } from "react";
import type { RolloutView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button } from "../../ui/basics";
import { CopyLine } from "../../ui/copy";
import { ProblemNote } from "../../ui/loaded";
import { DialogBox } from "../../ui/modal";
import { shellQuote } from "../../ui/shell-quote";
import type { PlainAction } from "./actions";

interface ReasonDialogProps {
  action: PlainAction;
  rollout: RolloutView;
  isPending: boolean;
  error: Error | null;
  onReason: (reason: string) => void;
  onClose: () => void;
}

export function ReasonDialog({ action, rollout, isPending, error, onReason, onClose }: ReasonDialogProps) {
  const { say } = useLocale();
  const [reason, setReason] = useState("");
  const name = say(`action.${action}`);
  return (
    <DialogBox title={say("rollout.actionTitle", { action: name, id: rollout.id })} onClose={onClose}>
      <form
        className="dialog-form"
        onSubmit={(event) => {
          event.preventDefault();
          if (!isPending) onReason(reason.trim());
        }}
      >
        <div className="dialog-body stack">
          <p>{say(`action.means.${action}`)}</p>
          <label className="field">
            <span>{say("rollout.reasonWanted")}</span>
            <textarea rows={2} value={reason} onChange={(event) => setReason(event.target.value)} />
          </label>
          <CopyLine text={`fleetctl rollout ${action} ${rollout.id}${reason.trim() ? ` --reason ${shellQuote(reason.trim())}` : ""}`} label={say("rollback.command")} />
          {error && <ProblemNote error={error} />}
        </div>
        <div className="dialog-foot">
          <Button onClick={onClose}>{say("common.cancel")}</Button>
          <Button type="submit" look="main" disabled={isPending}>{name}</Button>
        </div>
      </form>
    </DialogBox>
  );
}
