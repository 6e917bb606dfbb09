// Deletes what a device has sent: with a reason, and after the person has confirmed it.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { forgetDevice } from "../../api/calls";
import { queryClient } from "../../api/queries";
import { useLocale } from "../../i18n/language";
import { Button } from "../../ui/basics";
import { CopyLine } from "../../ui/copy";
import { ProblemNote } from "../../ui/loaded";
import { DialogBox } from "../../ui/modal";
import { shellQuote } from "../../ui/shell-quote";

export function Forget({ device }: { device: string }) {
  const { say, number } = useLocale();
  const [isAsked, setAsked] = useState(false);
  const forget = useMutation({
    mutationFn: (reason: string) => forgetDevice(device, reason),
    onSuccess: async () => {
      setAsked(false);
      await queryClient.invalidateQueries();
    },
  });
  const gone = forget.data;
  return (
    <div className="stack">
      <div className="dialog-foot">
        <p className="muted">{say("forget.means")}</p>
        <Button onClick={() => setAsked(true)}>{say("forget.open")}</Button>
      </div>
      {gone && (
        <p role="status">
          {say("forget.done", {
            windows: number(gone.windows),
            spans: number(gone.spans),
            events: number(gone.events),
            samples: number(gone.samples ?? 0),
            batches: number(gone.batches ?? 0),
          })}
        </p>
      )}
      {isAsked && (
        <DialogBox title={say("forget.title", { device })} isDanger onClose={() => setAsked(false)}>
          <ForgetForm device={device} isPending={forget.isPending} error={forget.error} onReason={forget.mutate} onClose={() => setAsked(false)} />
        </DialogBox>
      )}
    </div>
  );
}

interface ForgetFormProps {
  device: string;
  isPending: boolean;
  error: Error | null;
  onReason: (reason: string) => void;
  onClose: () => void;
}

export function ForgetForm({ device, isPending, error, onReason, onClose }: ForgetFormProps) {
  const { say } = useLocale();
  const [reason, setReason] = useState("");
  const given = reason.trim();
  const mayGo = given !== "" && !isPending;
  return (
    <form
      className="dialog-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (mayGo) onReason(given);
      }}
    >
      <div className="dialog-body stack">
        <p>{say("forget.what")}</p>
        <label className="field">
          <span>{say("forget.reason")}</span>
          <textarea rows={2} required value={reason} onChange={(event) => setReason(event.target.value)} />
        </label>
        <CopyLine text={`fleetctl device forget ${device}${given ? ` --reason ${shellQuote(given)}` : ""}`} label={say("rollback.command")} />
        {error && <ProblemNote error={error} />}
      </div>
      <div className="dialog-foot">
        <Button onClick={onClose}>{say("common.cancel")}</Button>
        <Button type="submit" look="main" disabled={!mayGo}>{say("forget.go")}</Button>
      </div>
    </form>
  );
}
