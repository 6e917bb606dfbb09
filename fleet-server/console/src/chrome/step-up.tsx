// Asks the person once more who they are, before what does most harm.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { stepUp } from "../api/calls";
import { sessionQuery } from "../api/queries";
import { useLocale } from "../i18n/language";
import { Button } from "../ui/basics";
import { ProblemNote } from "../ui/loaded";
import { DialogBox } from "../ui/modal";
import type { OnEnd } from "./confirmation";

export function StepUpDialog({ onEnd }: { onEnd: OnEnd }) {
  const { say } = useLocale();
  const method = useQuery(sessionQuery).data?.method;
  return (
    <DialogBox title={say("stepUp.title")} onClose={() => onEnd(false)}>
      {method === "password" && <WithSecret onEnd={onEnd} />}
      {method === "oidc" && (
        <div className="dialog-body stack">
          <p>{say("stepUp.why")}</p>
          <p className="muted">{say("stepUp.oidcHint")}</p>
          <a className="button button-main" href="/api/v1/session/oidc?step_up=true">{say("stepUp.oidc")}</a>
        </div>
      )}
      {method !== "password" && method !== "oidc" && (
        <div className="dialog-body stack">
          <p>{say("stepUp.link")}</p>
        </div>
      )}
    </DialogBox>
  );
}

function WithSecret({ onEnd }: { onEnd: OnEnd }) {
  const { say } = useLocale();
  const [secret, setSecret] = useState("");
  const confirm = useMutation({ mutationFn: () => stepUp(secret), onSuccess: () => onEnd(true) });
  return (
    <form
      className="dialog-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (secret !== "" && !confirm.isPending) confirm.mutate();
      }}
    >
      <div className="dialog-body stack">
        <p>{say("stepUp.why")}</p>
        <label className="field">
          <span>{say("stepUp.secret")}</span>
          <input
            type="password"
            autoComplete="current-password"
            autoFocus
            required
            value={secret}
            onChange={(event) => setSecret(event.target.value)}
          />
        </label>
        {confirm.isError && <ProblemNote error={confirm.error} />}
      </div>
      <div className="dialog-foot">
        <Button onClick={() => onEnd(false)}>{say("common.cancel")}</Button>
        <Button type="submit" look="main" disabled={confirm.isPending}>{say("stepUp.confirm")}</Button>
      </div>
    </form>
  );
}
