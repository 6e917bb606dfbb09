// Tokens with which devices get their identity.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { createEnrolToken, revokeEnrolToken } from "../../api/calls";
import { enrolTokensQuery, queryClient } from "../../api/queries";
import type { EnrolTokenView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Button, Empty, Labels, TableScroll } from "../../ui/basics";
import { CopyLine } from "../../ui/copy";
import { Loaded, ProblemNote } from "../../ui/loaded";
import { labelsOf } from "./labels";

const readAgain = () => queryClient.invalidateQueries({ queryKey: enrolTokensQuery.queryKey });

export function EnrolTokens() {
  const { say } = useLocale();
  const tokens = useQuery(enrolTokensQuery);
  const revoke = useMutation({ mutationFn: revokeEnrolToken, onSuccess: readAgain });
  return (
    <div className="stack">
      <Loaded query={tokens}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty icon="shield">{say("settings.tokensNone")}</Empty>
          ) : (
            <TokenTable tokens={items} onRevoke={(id) => revoke.mutate(id)} />
          )
        }
      </Loaded>
      {revoke.isError && <ProblemNote error={revoke.error} />}
      <NewToken />
    </div>
  );
}

function TokenTable({ tokens, onRevoke }: { tokens: EnrolTokenView[]; onRevoke: (id: string) => void }) {
  const { say, number } = useLocale();
  return (
    <TableScroll label={say("settings.tokens")}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("settings.tokenId")}</th>
            <th scope="col" className="number">{say("settings.tokenUses")}</th>
            <th scope="col">{say("settings.tokenLabels")}</th>
            <th scope="col">{say("settings.tokenEnds")}</th>
            <th scope="col">{say("settings.tokenBy")}</th>
            <td />
          </tr>
        </thead>
        <tbody>
          {tokens.map((token) => (
            <tr key={token.id}>
              <th scope="row"><code>{token.id}</code></th>
              <td className="number">{number(token.uses_left)}</td>
              <td><Labels labels={token.labels} /></td>
              <td><Age at={token.expires_at} /></td>
              <td>{token.created_by}</td>
              <td>
                <Button look="quiet" aria-label={say("settings.revokeNamed", { id: token.id })} onClick={() => onRevoke(token.id)}>
                  {say("settings.revoke")}
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
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
