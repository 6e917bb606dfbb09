// Tokens with which devices get their identity.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { createEnrolToken, revokeEnrolToken } from "../../api/calls";
import { enrolTokensQuery, queryClient } from "../../api/queries";
import type { EnrolTokenView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Button, Labels } from "../../ui/basics";
import { CopyLine } from "../../ui/copy";
import { Items, Listing } from "../../ui/listing";
import { ProblemNote } from "../../ui/loaded";
import { labelsOf } from "./labels";

const readAgain = () => queryClient.invalidateQueries({ queryKey: enrolTokensQuery.queryKey });

export function EnrolTokens() {
  const { say } = useLocale();
  const tokens = useQuery(enrolTokensQuery);
  const revoke = useMutation({ mutationFn: revokeEnrolToken, onSuccess: readAgain });
  return (
    <div className="stack">
      <Items query={tokens} icon="shield" none={say("settings.tokensNone")}>
        {(items) => <TokenTable tokens={items} onRevoke={(id) => revoke.mutate(id)} />}
      </Items>
      {revoke.isError && <ProblemNote error={revoke.error} />}
      <NewToken />
    </div>
  );
}

function TokenTable({ tokens, onRevoke }: { tokens: EnrolTokenView[]; onRevoke: (id: string) => void }) {
  const { say, number } = useLocale();
  return (
    <Listing
      label={say("settings.tokens")}
      items={tokens}
      keyOf={({ id }) => id}
      columns={[
        { title: say("settings.tokenId"), cell: ({ id }) => <code>{id}</code> },
        { title: say("settings.tokenUses"), look: "number", cell: ({ uses_left }) => number(uses_left) },
        { title: say("settings.tokenLabels"), cell: ({ labels }) => <Labels labels={labels} /> },
        { title: say("settings.tokenEnds"), cell: ({ expires_at }) => <Age at={expires_at} /> },
        { title: say("settings.tokenBy"), cell: ({ created_by }) => created_by },
      ]}
      actions={({ id }) => (
        <Button look="quiet" aria-label={say("settings.revokeNamed", { id })} onClick={() => onRevoke(id)}>
          {say("settings.revoke")}
        </Button>
      )}
    />
  );
}

function NewToken() {
  const { say } = useLocale();
  const [device, setDevice] = useState("");
  const [labels, setLabels] = useState("");
  const [uses, setUses] = useState(1);
  const create = useMutation({
    mutationFn: () => createEnrolToken({ labels: labelsOf(labels), uses, ...(device.trim() ? { device: device.trim() } : {}) }),
    onSuccess: readAgain,
  });
  const id = device.trim() === "" ? "ID" : device.trim();
  return (
    <form
      className="form-row"
      aria-label={say("settings.newToken")}
      onSubmit={(event) => {
        event.preventDefault();
        create.mutate();
      }}
    >
      <label className="field">
        <span>{say("settings.tokenDevice")}</span>
        <input value={device} onChange={(event) => setDevice(event.target.value)} />
      </label>
      <label className="field">
        <span>{say("settings.tokenLabelsHint")}</span>
        <input value={labels} onChange={(event) => setLabels(event.target.value)} />
      </label>
      <label className="field">
        <span>{say("settings.tokenTimes")}</span>
        <input type="number" min={1} max={100_000} required value={Number.isNaN(uses) ? "" : uses} onChange={(event) => setUses(event.target.valueAsNumber)} />
      </label>
      <Button type="submit" look="main" disabled={create.isPending}>{say("settings.tokenCreate")}</Button>
      {create.isError && <ProblemNote error={create.error} />}
      {create.data && (
        <div className="form-result" role="status">
          <p>{say("settings.tokenOnce")}</p>
          <CopyLine
            text={`fleet-agent enrol --store DIR --url ${create.data.url} --token ${create.data.token} --device ${id}`}
            label={say("settings.enrolCommand")}
          />
        </div>
      )}
    </form>
  );
}
